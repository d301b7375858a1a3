//! Any body, at receivers that share no code with ours: exactly one message, and no line of it a command.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

extern crate mailfleet_smtp as smtp;

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use smtp::client::{Attempt, ClientConfig, Connection};
use support::{
    Addresses, client, one_in,
    receiver::{Heard, Reading, receiver},
};

/// What has ended messages at receivers that are less strict than the standard (CVE-2023-51764 to 51766).
#[rustfmt::skip]
const ENDS: [&str; 16] = [
    "\r\n.\r\n", "\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\r\n.\r\r\n", "\n\n.\n\n", "\r.\n",
    "\n.\r", "\r\n..\r\n", "\r\n.\r\n.\r\n", "\r\n\r.\r\n", ".\r\n", ".\n",
];
/// What would follow.
const SMUGGLED: &str = "MAIL FROM:<x@evil.test>\r\nRCPT TO:<y@evil.test>\r\nDATA\r\nsmuggled\r\n.\r\nQUIT\r\n";

/// Every CR, LF or both is one end of a line, and the last line has one.
fn canonical(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut previous = 0;
    for byte in body {
        match (previous, *byte) {
            (b'\r', b'\n') => {}
            (_, b'\r' | b'\n') => out.extend_from_slice(b"\r\n"),
            _ => out.push(*byte),
        }
        previous = *byte;
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Sends the bodies over one connection, and says what the receiver made of it.
async fn delivered(bodies: &[Bytes], reading: Reading, recipient: &str, pipelining: bool) -> Heard {
    let (address, receiver) = receiver(reading).await;
    let config = ClientConfig { pipelining, ..client() };
    let mut connection = Connection::connect(address, "127.0.0.1", &config).await.unwrap();
    let to = Addresses::to(recipient);
    for body in bodies {
        let attempt = connection.send(&to.envelope(), body, || Ok(())).await;
        assert!(matches!(attempt, Attempt::Delivered(_)), "{attempt:?}");
    }
    connection.quit().await;
    receiver.await.unwrap()
}

fn expected(bodies: &[Bytes], recipient: &str) -> Heard {
    let mut commands = vec!["EHLO client.test".to_owned()];
    for _ in bodies {
        commands.push("MAIL FROM:<bounces@client.test>".to_owned());
        commands.push(format!("RCPT TO:<{recipient}>"));
        commands.push("DATA".to_owned());
    }
    commands.push("QUIT".to_owned());
    Heard { commands, messages: bodies.iter().map(|body| canonical(body)).collect() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn readings() -> impl Strategy<Value = Reading> {
    (any::<bool>(), any::<bool>(), any::<bool>(), prop_oneof![1_usize..8, Just(1_000), Just(100_000)])
        .prop_map(|(bare_lf, bare_cr, pipelining, piece)| Reading { bare_lf, bare_cr, pipelining, piece })
}

/// Ends, commands and any bytes, now and then around the size at which a body no longer goes out in one write.
fn bodies() -> impl Strategy<Value = Bytes> {
    let piece = prop_oneof![
        4 => prop::sample::select(&ENDS[..]).prop_map(|end| end.as_bytes().to_vec()),
        2 => prop::sample::select(vec!["\r", "\n", ".", "\r\n", SMUGGLED]).prop_map(|text| text.as_bytes().to_vec()),
        2 => prop::collection::vec(any::<u8>(), 1..200),
        1 => "[a-z.]{1,80}".prop_map(String::into_bytes),
    ];
    let filler = prop_oneof![3 => Just(0_usize), 1 => 27_000_usize..34_000, 1 => 60_000_usize..70_000];
    (prop::collection::vec(piece, 1..24), filler).prop_map(|(pieces, filler)| {
        let mut body = vec![b'x'; filler];
        body.extend(pieces.concat());
        body.into()
    })
}

#[tokio::test]
async fn no_end_that_was_ever_smuggled_ends_a_message() {
    for (bare_lf, bare_cr) in [(false, false), (true, false), (false, true), (true, true)] {
        for pipelining in [false, true] {
            let reading = Reading { bare_lf, bare_cr, pipelining, piece: 1_000 };
            let bodies: Vec<Bytes> = ENDS.iter().map(|end| format!("a{end}{SMUGGLED}").into()).collect();
            let heard = delivered(&bodies, reading, "user@peer.test", true).await;
            assert_eq!(heard, expected(&bodies, "user@peer.test"), "{reading:?}");
        }
    }
}

/// A dot, and what makes a line of it, at each place around the cut between what is written ahead of the last
/// look and what goes out with the final dot.
#[tokio::test]
async fn no_place_in_a_large_body_loses_its_dot() {
    const LARGE: usize = 36_000;
    let reading = Reading { pipelining: true, piece: 64 * 1_024, ..Reading::default() };
    let whole = |at: usize| {
        let mut body = vec![b'x'; LARGE];
        body[at..at + 5].copy_from_slice(b"\r\n.\r\n");
        Bytes::from(body)
    };
    let cut = LARGE - 4 * 1_024;
    let bodies: Vec<Bytes> = (cut - 12..cut + 12).map(whole).collect();
    let heard = delivered(&bodies, reading, "user@peer.test", true).await;
    assert!(heard == expected(&bodies, "user@peer.test"));
}

proptest! {
    #![proptest_config(one_in(4))]

    #[test]
    fn any_body_is_one_message_at_any_receiver(
        bodies in prop::collection::vec(bodies(), 1..4), reading in readings(), pipelining in any::<bool>(),
        local in "[a-z!#$%&'*+/=?^_`{|}~-]{1,30}", domain in "[a-z0-9]{1,20}(\\.[a-zéü漢]{1,10}){1,3}",
    ) {
        let Ok(recipient) = format!("{local}@{domain}").parse::<domain::Mailbox>() else { return Ok(()) };
        let heard = runtime().block_on(delivered(&bodies, reading, recipient.as_str(), pipelining));
        let expected = expected(&bodies, recipient.as_str());
        prop_assert_eq!(&heard.commands, &expected.commands);
        prop_assert!(heard == expected, "{:?}", bodies);
    }
}
