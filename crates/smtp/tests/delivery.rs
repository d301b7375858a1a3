//! The client against our own server: what goes in comes out, once.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

extern crate mailfleet_smtp as smtp;

#[macro_use]
mod support;

use bytes::Bytes;
use proptest::prelude::*;
use smtp::{
    client::{Abort, Attempt, Connection, Envelope, Stage, Unsendable, WireError},
    server::{Extensions, ServerConfig},
};
use support::{Addresses, body, client, connect, server};

fn go() -> Result<(), Abort> {
    Ok(())
}

#[tokio::test]
async fn a_message_arrives_as_it_was_and_the_connection_is_used_again() {
    let (address, keeper) = server(ServerConfig::new("mx.test")).await;
    let mut connection = connect(address).await;
    assert!(connection.capabilities().pipelining);
    let to = Addresses::to("user@peer.test");
    for sent in 1..=3 {
        assert_matches!(connection.send(&to.envelope(), &body(), go).await, Attempt::Delivered(reply) if reply.code == 250);
        assert_eq!(connection.messages_sent(), sent);
        assert!(connection.is_reusable());
    }
    connection.quit().await;
    assert_eq!(keeper.bodies(), vec![body(); 3]);
    let kept = keeper.kept.lock().unwrap();
    assert_eq!((kept[0].mail.sender.clone(), kept[0].recipients.clone()), (to.sender, vec![to.recipient]));
    assert_eq!(kept[0].mail.size, Some(body().len() as u64));
}

#[tokio::test]
async fn without_pipelining_and_extensions_it_arrives_all_the_same() {
    let none = Extensions { pipelining: false, eight_bit_mime: false, smtputf8: false, size: false };
    let (address, keeper) = server(ServerConfig { extensions: none, ..ServerConfig::new("mx.test") }).await;
    let mut connection = connect(address).await;
    let (to, unknown) = (Addresses::to("user@peer.test"), Addresses::to("unknown@peer.test"));
    assert_matches!(connection.send(&to.envelope(), &body(), go).await, Attempt::Delivered(_));
    assert_matches!(
        connection.send(&unknown.envelope(), &body(), go).await,
        Attempt::Refused { stage: Stage::Rcpt, reply } if reply.code == 550
    );
    assert_matches!(connection.send(&to.envelope(), &body(), go).await, Attempt::Delivered(_));
    assert_eq!(keeper.bodies().len(), 2);
}

#[tokio::test]
async fn a_refused_recipient_leaves_the_connection_usable_and_nothing_behind() {
    let (address, keeper) = server(ServerConfig::new("mx.test")).await;
    let mut connection = connect(address).await;
    let (to, unknown) = (Addresses::to("user@peer.test"), Addresses::to("unknown@peer.test"));
    for _ in 0..2 {
        let attempt = connection.send(&unknown.envelope(), &body(), || panic!("no dot")).await;
        assert_matches!(attempt, Attempt::Refused { stage: Stage::Rcpt, reply } if reply.text == "5.1.1 no such user");
        assert!(connection.is_reusable());
        assert_matches!(connection.send(&to.envelope(), &body(), go).await, Attempt::Delivered(_));
    }
    assert_eq!(keeper.bodies().len(), 2);
    assert!(keeper.kept.lock().unwrap().iter().all(|message| message.recipients == [to.recipient.clone()]));
}

#[tokio::test]
async fn a_no_before_the_dot_closes_without_one() {
    let (address, keeper) = server(ServerConfig::new("mx.test")).await;
    let to = Addresses::to("user@peer.test");
    for size in [100, 1_000_000] {
        let mut connection = connect(address).await;
        let large = Bytes::from(vec![b'x'; size]);
        let attempt = connection.send(&to.envelope(), &large, || Err(Abort("lease is over"))).await;
        assert_matches!(attempt, Attempt::CutBeforeDot(error @ WireError::Aborted(_)) if error.is_ours());
        assert!(!connection.is_reusable());
        let again = connection.send(&to.envelope(), &body(), go).await;
        assert_matches!(again, Attempt::NotStarted(WireError::NotReusable));
    }
    assert!(keeper.bodies().is_empty());
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let (address, keeper) = server(ServerConfig::new("mx.test")).await;
    let mut connection = connect(address).await;
    let large: Bytes = (0..200_000).flat_map(|line| format!(".line {line}\r\n").into_bytes()).collect();
    let to = Addresses::to("user@peer.test");
    assert_matches!(connection.send(&to.envelope(), &large, go).await, Attempt::Delivered(_));
    assert!(keeper.bodies() == vec![large]);
}

#[tokio::test]
async fn what_a_peer_cannot_take_is_not_sent() {
    let extensions = Extensions { smtputf8: false, ..Extensions::default() };
    let config = ServerConfig { extensions, max_size: 50, ..ServerConfig::new("mx.test") };
    let (address, keeper) = server(config).await;
    let mut connection = connect(address).await;
    let (to, utf8) = (Addresses::to("user@peer.test"), Addresses::to("usér@peer.test"));
    let small = Bytes::from_static(b"small\r\n");
    let attempt = connection.send(&to.envelope(), &body(), go).await;
    assert_matches!(attempt, Attempt::Unsendable(Unsendable::TooLarge { limit: 50, .. }));
    assert_matches!(connection.send(&utf8.envelope(), &small, go).await, Attempt::Unsendable(Unsendable::NoSmtpUtf8));
    let raw_header = Envelope { smtputf8: true, ..to.envelope() };
    assert_matches!(connection.send(&raw_header, &small, go).await, Attempt::Unsendable(Unsendable::NoSmtpUtf8));
    assert_matches!(connection.send(&to.envelope(), &Bytes::new(), go).await, Attempt::Unsendable(Unsendable::Empty));
    assert!(Unsendable::NoSmtpUtf8.as_reply().is_permanent());
    assert_matches!(connection.send(&to.envelope(), &small, go).await, Attempt::Delivered(_));
    assert_eq!(keeper.bodies(), vec![small]);
}

#[tokio::test]
async fn an_internationalised_address_arrives() {
    let (address, keeper) = server(ServerConfig::new("mx.test")).await;
    let mut connection = connect(address).await;
    let utf8 = Addresses::to("usér@bücher.test");
    let eight_bit = Bytes::from("Subject: é\r\n\r\né\r\n");
    assert_matches!(connection.send(&utf8.envelope(), &eight_bit, go).await, Attempt::Delivered(_));
    let kept = keeper.kept.lock().unwrap();
    assert!(kept[0].mail.smtputf8);
    assert_eq!(kept[0].recipients[0].as_str(), "usér@xn--bcher-kva.test");
}

#[tokio::test]
async fn an_attempt_can_run_on_any_thread() {
    let (address, keeper) = server(ServerConfig::new("mx.test")).await;
    let sent = tokio::spawn(async move {
        let mut connection = Connection::connect(address, "mx.test", &client()).await.unwrap();
        let to = Addresses::to("user@peer.test");
        let attempt = connection.send(&to.envelope(), &body(), go).await;
        connection.quit().await;
        attempt
    });
    assert_matches!(sent.await.unwrap(), Attempt::Delivered(_));
    assert_eq!(keeper.bodies().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The bodies of smuggling, and any other, arrive as one message each, in order, on one connection.
    #[test]
    fn any_body_arrives_as_exactly_one_message(
        bodies in prop::collection::vec(
            prop::collection::vec(
                prop_oneof![
                    3 => Just(b"\r\n".to_vec()), 3 => Just(b"\n".to_vec()), 3 => Just(b"\r".to_vec()),
                    3 => Just(b".".to_vec()), 1 => Just(b"MAIL FROM:<x@y.test>\r\n".to_vec()), 1 => Just(b"\0".to_vec()),
                    2 => prop::collection::vec(any::<u8>(), 1..2_000),
                ],
                1..40,
            ),
            1..4,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let (address, keeper) = server(ServerConfig::new("mx.test")).await;
            let mut connection = connect(address).await;
            let to = Addresses::to("user@peer.test");
            let mut expected = Vec::new();
            for parts in &bodies {
                let body = Bytes::from(parts.concat());
                expected.push(normalised(&body));
                let attempt = connection.send(&to.envelope(), &body, go).await;
                prop_assert!(matches!(attempt, Attempt::Delivered(_)), "{:?}", attempt);
            }
            prop_assert!(keeper.bodies() == expected);
            Ok(())
        })?;
    }
}

fn normalised(body: &[u8]) -> Bytes {
    let mut wire = Vec::new();
    smtp::wire_form(body, &mut wire);
    let text = wire.strip_suffix(b".\r\n").unwrap();
    let mut out = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.ends_with(b"\r\n") && !line[..line.len() - 2].contains(&b'\r'));
        out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    let letters = |bytes: &[u8]| bytes.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect::<Vec<_>>();
    assert_eq!(letters(&out), letters(body));
    out.into()
}
