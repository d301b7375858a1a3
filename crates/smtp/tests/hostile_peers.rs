//! The client against peers that misbehave: every one ends in a declared outcome.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

extern crate mailfleet_smtp as smtp;

#[macro_use]
mod support;

use bytes::Bytes;
use smtp::client::{Abort, Attempt, ConnectError, Connection, Stage, Violation, WireError};
use std::time::Duration;
use support::{Addresses, Peer, body, client, connect, peer};
use tokio::io::AsyncReadExt;

const SHORT: Duration = Duration::from_millis(100);

fn go() -> Result<(), Abort> {
    Ok(())
}

async fn attempt(address: std::net::SocketAddr) -> (Attempt, Connection) {
    let mut connection = connect(address).await;
    let attempt = connection.send(&Addresses::to("user@peer.test").envelope(), &body(), go).await;
    (attempt, connection)
}

#[tokio::test]
async fn a_421_greeting_refuses_the_session() {
    let (address, _peer) = peer(async |mut peer: Peer| peer.say("421 4.3.2 not now\r\n").await).await;
    let refused = Connection::connect(address, "peer.test", &client()).await.unwrap_err();
    assert_matches!(&refused, ConnectError::Refused { stage: Stage::Banner, reply } if reply.closes());
}

#[tokio::test]
async fn helo_is_said_to_a_peer_that_does_not_know_ehlo() {
    let (address, peer) = peer(async |mut peer: Peer| {
        peer.say("220 old.test\r\n").await;
        peer.line().await;
        peer.say("502 what\r\n").await;
        let helo = peer.line().await;
        peer.say("250 old.test\r\n").await;
        helo
    })
    .await;
    let connection = connect(address).await;
    assert!(!connection.capabilities().pipelining);
    assert_eq!(peer.await.unwrap(), "HELO client.test\r\n");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_left_when_the_deadline_passes() {
    let (address, _peer) = peer(async |mut peer: Peer| peer.rest().await).await;
    let mut config = client();
    config.deadlines.banner = SHORT;
    let error = Connection::connect(address, "peer.test", &config).await.unwrap_err();
    assert_matches!(error, ConnectError::Wire(WireError::Timeout { stage: Stage::Banner }));
}

#[tokio::test]
async fn a_tarpit_that_drips_bytes_does_not_move_the_deadline() {
    let (address, _peer) = peer(async |mut peer: Peer| {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while peer.try_say(b"220-x\r\n").await {
            tick.tick().await;
        }
    })
    .await;
    let mut config = client();
    config.deadlines.banner = SHORT;
    let error = Connection::connect(address, "peer.test", &config).await.unwrap_err();
    assert_matches!(error, ConnectError::Wire(WireError::Timeout { stage: Stage::Banner }));
}

#[tokio::test]
async fn endless_replies_are_cut_off() {
    let flood = |chunk: Vec<u8>| async move |mut peer: Peer| while peer.try_say(&chunk).await {};
    for (chunk, violation) in [
        (vec![b'2'; 4_096], Violation::LongLine),
        (b"220-hello\r\n".repeat(20), Violation::LongReply),
        ([b"220-".to_vec(), vec![0; 1_500], b"\r\n".to_vec()].concat(), Violation::LongReply),
        (vec![0; 100], Violation::LongLine),
        (b"GET / HTTP/1.1\r\n".to_vec(), Violation::NotAReply),
    ] {
        let (address, _peer) = peer(flood(chunk)).await;
        let error = Connection::connect(address, "peer.test", &client()).await.unwrap_err();
        assert_matches!(error, ConnectError::Wire(WireError::Protocol { source, .. }) if source == violation);
    }
}

#[tokio::test]
async fn greylisting_is_a_refusal_that_keeps_the_connection() {
    let (address, peer) = peer(async |mut peer: Peer| {
        peer.greet(&["PIPELINING"]).await;
        peer.until("DATA\r\n").await;
        peer.say("250 ok\r\n450 4.7.1 come back\r\n554 no recipients\r\n").await;
        let second = peer.until("DATA\r\n").await;
        peer.say("250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n").await;
        peer.until("\r\n.\r\n").await;
        peer.say("250 taken\r\n").await;
        second
    })
    .await;
    let (first, mut connection) = attempt(address).await;
    assert_matches!(first, Attempt::Refused { stage: Stage::Rcpt, reply } if reply.is_transient());
    let to = Addresses::to("user@peer.test");
    assert_matches!(connection.send(&to.envelope(), &body(), go).await, Attempt::Delivered(_));
    let expected = "RSET\r\nMAIL FROM:<bounces@client.test>\r\nRCPT TO:<user@peer.test>\r\nDATA\r\n";
    assert_eq!(peer.await.unwrap(), expected);
}

#[tokio::test]
async fn data_granted_without_recipients_is_closed_by_a_lone_dot() {
    let (address, peer) = peer(async |mut peer: Peer| {
        peer.greet(&["PIPELINING"]).await;
        peer.until("DATA\r\n").await;
        peer.say("250 ok\r\n550 5.1.1 no\r\n354 go\r\n").await;
        let dot = peer.line().await;
        peer.say("554 5.5.1 no valid recipients\r\n").await;
        peer.until("DATA\r\n").await;
        peer.say("250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n").await;
        peer.until("\r\n.\r\n").await;
        peer.say("250 taken\r\n").await;
        dot
    })
    .await;
    let (first, mut connection) = attempt(address).await;
    assert_matches!(first, Attempt::Refused { stage: Stage::Rcpt, reply } if reply.code == 550);
    let to = Addresses::to("user@peer.test");
    assert_matches!(connection.send(&to.envelope(), &body(), go).await, Attempt::Delivered(_));
    assert_eq!(peer.await.unwrap(), ".\r\n");
}

#[tokio::test]
async fn a_peer_that_takes_data_from_a_refused_sender_is_left_without_a_dot() {
    let (address, peer) = peer(async |mut peer: Peer| {
        peer.greet(&["PIPELINING"]).await;
        peer.until("DATA\r\n").await;
        peer.say("550 no\r\n250 ok\r\n354 go\r\n").await;
        peer.rest().await
    })
    .await;
    let (first, connection) = attempt(address).await;
    assert_matches!(first, Attempt::Refused { stage: Stage::Mail, .. });
    assert!(!connection.is_reusable());
    drop(connection);
    assert_eq!(peer.await.unwrap(), "");
}

#[tokio::test]
async fn a_421_in_a_flight_defers_and_ends_the_connection() {
    for replies in ["421 4.7.0 bye\r\n", "250 ok\r\n421 4.7.0 bye\r\n", "250 ok\r\n250 ok\r\n421 4.7.0 bye\r\n"] {
        let (address, _peer) = peer(async move |mut peer: Peer| {
            peer.greet(&["PIPELINING"]).await;
            peer.until("DATA\r\n").await;
            peer.say(replies).await;
        })
        .await;
        let (first, connection) = attempt(address).await;
        assert_matches!(first, Attempt::Refused { reply, .. } if reply.closes());
        assert!(!connection.is_reusable());
    }
}

#[tokio::test]
async fn a_reset_within_the_body_is_before_the_dot() {
    let (address, _peer) = peer(async |mut peer: Peer| {
        peer.greet(&["PIPELINING"]).await;
        peer.grant().await;
        let mut some = vec![0; 10_000];
        peer.stream.read_exact(&mut some).await.unwrap();
        peer.reset();
    })
    .await;
    let mut connection = connect(address).await;
    // More than both socket buffers hold.
    let large = Bytes::from(vec![b'x'; 16_000_000]);
    let called = std::cell::Cell::new(false);
    let to = Addresses::to("user@peer.test");
    let before_dot = || {
        called.set(true);
        Ok(())
    };
    let attempt = connection.send(&to.envelope(), &large, before_dot).await;
    assert_matches!(attempt, Attempt::CutBeforeDot(WireError::Io { stage: Stage::Body, .. }));
    assert!(!called.get());
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_cut_before_the_dot() {
    let (address, _peer) = peer(async |mut peer: Peer| {
        peer.greet(&["PIPELINING"]).await;
        peer.grant().await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut config = client();
    config.deadlines.body_progress = SHORT;
    let mut connection = Connection::connect(address, "peer.test", &config).await.unwrap();
    let large = Bytes::from(vec![b'x'; 16_000_000]);
    let attempt = connection.send(&Addresses::to("user@peer.test").envelope(), &large, go).await;
    assert_matches!(attempt, Attempt::CutBeforeDot(WireError::Timeout { stage: Stage::Body }));
}

#[tokio::test]
async fn silence_after_the_dot_is_in_doubt() {
    let (address, _peer) = peer(async |mut peer: Peer| {
        peer.greet(&["PIPELINING"]).await;
        peer.grant().await;
        peer.rest().await
    })
    .await;
    let mut config = client();
    config.deadlines.dot = SHORT;
    let mut connection = Connection::connect(address, "peer.test", &config).await.unwrap();
    let attempt = connection.send(&Addresses::to("user@peer.test").envelope(), &body(), go).await;
    assert_matches!(attempt, Attempt::NoReplyAfterDot(WireError::Timeout { stage: Stage::Dot }));
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn a_close_or_reset_or_nonsense_after_the_dot_is_in_doubt() {
    for end in ["close", "reset", "354 what\r\n", "hello\r\n"] {
        let (address, _peer) = peer(async move |mut peer: Peer| {
            peer.greet(&["PIPELINING"]).await;
            peer.grant().await;
            peer.until("\r\n.\r\n").await;
            match end {
                "close" => {}
                "reset" => peer.reset(),
                text => peer.say(text).await,
            }
        })
        .await;
        let (attempt, connection) = attempt(address).await;
        assert_matches!(attempt, Attempt::NoReplyAfterDot(error) if !error.is_ours(), end);
        assert!(!connection.is_reusable());
    }
}

#[tokio::test]
async fn a_refusal_of_the_dot_is_no_doubt() {
    let (address, _peer) = peer(async |mut peer: Peer| {
        peer.greet(&["PIPELINING"]).await;
        peer.grant().await;
        peer.until("\r\n.\r\n").await;
        peer.say("554-5.7.1 spam\r\n554 5.7.1 <script>\r\n").await;
        peer.rest().await
    })
    .await;
    let (attempt, connection) = attempt(address).await;
    assert_matches!(
        attempt,
        Attempt::Refused { stage: Stage::Dot, reply } if reply.is_permanent() && reply.text == "5.7.1 spam <script>"
    );
    assert!(connection.is_reusable());
}

#[tokio::test]
async fn a_250_before_the_dot_counts_for_nothing() {
    let (address, peer) = peer(async |mut peer: Peer| {
        peer.greet(&["PIPELINING"]).await;
        peer.until("DATA\r\n").await;
        peer.say("250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n").await;
        peer.rest().await
    })
    .await;
    let (attempt, connection) = attempt(address).await;
    assert_matches!(
        attempt,
        Attempt::CutBeforeDot(WireError::Protocol { stage: Stage::Body, source: Violation::Unsolicited })
    );
    drop(connection);
    assert_eq!(peer.await.unwrap(), "");
}

#[tokio::test]
async fn replies_that_do_not_fit_their_command_end_the_connection() {
    for replies in
        ["354 go\r\n", "250 ok\r\n354 go\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n220 hi\r\n"]
    {
        let (address, _peer) = peer(async move |mut peer: Peer| {
            peer.greet(&["PIPELINING"]).await;
            peer.until("DATA\r\n").await;
            peer.say(replies).await;
            peer.rest().await
        })
        .await;
        let (attempt, connection) = attempt(address).await;
        let WireError::Protocol { source, .. } = (match attempt {
            Attempt::CutBeforeDot(error) => error,
            other => panic!("{other:?}"),
        }) else {
            panic!("a violation")
        };
        assert_eq!(source, Violation::UnexpectedCode, "{replies}");
        assert!(!connection.is_reusable());
    }
}

#[tokio::test]
async fn a_reply_too_many_spoils_the_connection_but_not_the_message() {
    let (address, _peer) = peer(async |mut peer: Peer| {
        peer.greet(&["PIPELINING"]).await;
        peer.grant().await;
        peer.until("\r\n.\r\n").await;
        peer.say("250 taken\r\n250 and again\r\n").await;
        peer.rest().await
    })
    .await;
    let (attempt, connection) = attempt(address).await;
    assert_matches!(attempt, Attempt::Delivered(_));
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn a_connection_that_died_while_it_rested_is_not_started() {
    let (address, peer) = peer(async |mut peer: Peer| {
        peer.greet(&["PIPELINING"]).await;
        peer.grant().await;
        peer.until("\r\n.\r\n").await;
        peer.say("250 taken\r\n").await;
        peer.reset();
    })
    .await;
    let (first, mut connection) = attempt(address).await;
    assert_matches!(first, Attempt::Delivered(_));
    peer.await.unwrap();
    let to = Addresses::to("user@peer.test");
    let second = connection.send(&to.envelope(), &body(), go).await;
    assert_matches!(second, Attempt::NotStarted(error) if !error.is_ours());
}

#[tokio::test]
async fn a_dropped_attempt_leaves_no_reusable_connection() {
    let (address, _peer) = peer(async |mut peer: Peer| {
        peer.greet(&["PIPELINING"]).await;
        peer.rest().await
    })
    .await;
    let mut connection = connect(address).await;
    let to = Addresses::to("user@peer.test");
    let cut = tokio::time::timeout(SHORT, connection.send(&to.envelope(), &body(), go)).await;
    assert!(cut.is_err());
    assert!(!connection.is_reusable());
}
