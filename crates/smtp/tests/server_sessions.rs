//! The server against clients that do not keep to the rules.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

extern crate mailfleet_smtp as smtp;

#[macro_use]
mod support;

use smtp::server::ServerConfig;
use support::{converse, server};
use tokio::io::AsyncReadExt;

const OPENING: &str = "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n";

fn codes(heard: &str) -> Vec<&str> {
    heard.lines().filter(|line| line.as_bytes().get(3) == Some(&b' ')).map(|line| &line[..3]).collect()
}

#[tokio::test]
async fn a_whole_session_in_one_segment_is_answered_in_order() {
    let (address, keeper) = server(ServerConfig::new("mx.test")).await;
    let text = format!("{OPENING}DATA\r\n..a\r\n.\r\nNOOP\r\nVRFY x\r\nRSET\r\nQUIT\r\n");
    let heard = converse(address, text.as_bytes()).await;
    assert_eq!(codes(&heard), ["220", "250", "250", "250", "354", "250", "250", "252", "250", "221"]);
    assert_eq!(keeper.bodies(), ["..a\r\n".strip_prefix('.').unwrap()]);
}

#[tokio::test]
async fn smuggled_commands_are_never_obeyed() {
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r\n\0.\r\n"] {
        let (address, keeper) = server(ServerConfig::new("mx.test")).await;
        let text =
            format!("{OPENING}DATA\r\na{end}MAIL FROM:<x@y.test>\r\nRCPT TO:<z@y.test>\r\nDATA\r\nb\r\n.\r\nQUIT\r\n");
        let heard = converse(address, text.as_bytes()).await;
        let kept = keeper.bodies();
        if end.contains('\0') {
            assert_eq!(kept.len(), 1, "a line with a NUL is a line");
        } else {
            assert!(kept.is_empty(), "{end:?}");
            assert_eq!(codes(&heard).last(), Some(&"554"), "{end:?}");
        }
    }
}

#[tokio::test]
async fn a_command_line_ends_in_crlf_and_in_nothing_else() {
    for text in ["EHLO x\nMAIL FROM:<a@b.test>\r\n", "EHLO x\rNOOP\r\n"] {
        let (address, _keeper) = server(ServerConfig::new("mx.test")).await;
        assert_eq!(codes(&converse(address, text.as_bytes()).await), ["220", "500"]);
    }
}

#[tokio::test]
async fn every_bound_has_its_answer() {
    let config = || ServerConfig {
        max_line: 100,
        max_recipients: 2,
        max_size: 1_000,
        max_commands: 10,
        max_mistakes: 3,
        ..ServerConfig::new("mx.test")
    };
    let (address, keeper) = server(config()).await;
    let long = converse(address, &[b'x'; 5_000]).await;
    assert_eq!(codes(&long), ["220", "500"]);

    let rcpt = "RCPT TO:<e@d.test>\r\n".repeat(2);
    let heard = converse(address, format!("{OPENING}{rcpt}QUIT\r\n").as_bytes()).await;
    assert_eq!(codes(&heard), ["220", "250", "250", "250", "250", "452", "221"]);

    assert_eq!(codes(&converse(address, "FOO\r\n".repeat(9).as_bytes()).await), ["220", "500", "500", "500", "421"]);
    let endless = converse(address, "NOOP\r\n".repeat(20).as_bytes()).await;
    assert_eq!((codes(&endless).len(), codes(&endless).last()), (12, Some(&"421")));

    let announced = "EHLO x\r\nMAIL FROM:<a@b.test> SIZE=1001\r\nQUIT\r\n";
    assert_eq!(codes(&converse(address, announced.as_bytes()).await), ["220", "250", "552", "221"]);
    let large = format!("{OPENING}DATA\r\n{}\r\n.\r\nQUIT\r\n", "x".repeat(3_000));
    assert_eq!(codes(&converse(address, large.as_bytes()).await), ["220", "250", "250", "250", "354", "552", "221"]);
    let endless = format!("{OPENING}DATA\r\n{}", "x".repeat(100_000));
    assert_eq!(codes(&converse(address, endless.as_bytes()).await).last(), Some(&"421"));
    assert!(keeper.bodies().is_empty());
}

#[tokio::test]
async fn a_silent_client_and_a_long_session_are_ended() {
    let short = std::time::Duration::from_millis(50);
    let base = || ServerConfig::new("mx.test");
    for config in [ServerConfig { session: short, ..base() }, ServerConfig { idle: short, ..base() }] {
        let (address, _keeper) = server(config).await;
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(codes(&heard), ["220", "421"]);
    }
}

#[tokio::test]
async fn commands_out_of_order_change_nothing() {
    let (address, keeper) = server(ServerConfig::new("mx.test")).await;
    let text = "MAIL FROM:<a@b.test>\r\nEHLO x\r\nRCPT TO:<c@d.test>\r\nDATA\r\nMAIL FROM:<a@b.test>\r\nDATA\r\n\
                RCPT TO:<unknown@d.test>\r\nDATA\r\nMAIL FROM:<a@b.test>\r\nSTARTTLS\r\nQUIT\r\n";
    let expected = ["220", "503", "250", "503", "503", "250", "554", "550", "554", "503", "502", "221"];
    assert_eq!(codes(&converse(address, text.as_bytes()).await), expected);
    assert!(keeper.bodies().is_empty());
}
