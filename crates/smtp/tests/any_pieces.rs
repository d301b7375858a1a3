//! Any client, at our server: what it says means the same in whatever pieces it arrives.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

extern crate mailfleet_smtp as smtp;

mod support;

use proptest::prelude::*;
use smtp::server::{Ended, ServerConfig, serve};
use std::time::Duration;
use support::{Keeper, converse, one_in, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

const OPENING: &str = "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n";

/// What a client heard, what was kept of it, and how the session ended.
type Outcome = (String, Vec<bytes::Bytes>, Ended);

/// A session with a client that says all this, through a pipe that holds so many octets.
async fn session(said: &[&[u8]], pipe: usize) -> Outcome {
    let config = ServerConfig { idle: Duration::from_secs(20), max_line: 300, ..ServerConfig::new("mx.test") };
    let (ours, theirs) = duplex(pipe);
    let (mut hears, mut says) = split(theirs);
    let (mut keeper, mut heard) = (Keeper::default(), Vec::new());
    let kept = keeper.kept.clone();
    let speak = async {
        for piece in said {
            // A server that has closed hears no more.
            let _ = says.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        let _ = says.shutdown().await;
    };
    let serving = async { serve(ours, &mut keeper, &config).await.0 };
    let (ended, (), read) = tokio::join!(serving, speak, hears.read_to_end(&mut heard));
    read.unwrap();
    let bodies = kept.lock().unwrap().iter().map(|message| message.body.clone()).collect();
    (String::from_utf8_lossy(&heard).into_owned(), bodies, ended)
}

/// Ends of messages that are none, and one that is; each before more to say.
#[rustfmt::skip]
const ENDS: [&str; 12] = [
    "\r\n.\r\n", "\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\r\n.\r\n", "\r\n..\r\n",
    "\r\n\0.\r\n", "\r\n.\r\n.\r\n", "\r\n. \r\n",
];

#[tokio::test]
async fn no_cut_makes_an_end_of_what_is_none() {
    for end in ENDS {
        let said = format!("{OPENING}a{end}RSET\r\nNOOP\r\n\r\n.\r\nQUIT\r\n");
        let whole = session(&[said.as_bytes()], 100_000).await;
        for cut in 1..said.len() {
            let (head, tail) = said.as_bytes().split_at(cut);
            assert_eq!(session(&[head, tail], 100_000).await, whole, "{end:?} cut at {cut}");
        }
        assert_eq!(session(&[said.as_bytes()], 1).await, whole, "{end:?} octet by octet");
    }
}

/// A client's side of one message, written without our code.
fn stuffed(lines: &[String]) -> String {
    let stuff = |line: &String| if line.starts_with('.') { format!(".{line}\r\n") } else { format!("{line}\r\n") };
    lines.iter().map(stuff).collect::<String>() + ".\r\n"
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()), 2 => Just(".".to_owned()), 2 => Just("..".to_owned()),
        1 => Just("RSET".to_owned()), 1 => Just("MAIL FROM:<x@y.test>".to_owned()), 1 => Just(". ".to_owned()),
        2 => "[ -~]{0,60}", 1 => "[.\u{0}\u{b}\u{c}\u{85}\u{2028}é]{1,8}", 1 => "x{900,1100}",
    ]
}

/// What clients say, well and badly.
fn speech() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::sample::select(vec![
        "EHLO x\r\n",
        "HELO x\r\n",
        "MAIL FROM:<a@b.test>\r\n",
        "MAIL FROM:<>\r\n",
        "RCPT TO:<c@d.test>\r\n",
        "RCPT TO:<unknown@d.test>\r\n",
        "DATA\r\n",
        ".\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "VRFY x\r\n",
        "STARTTLS\r\n",
        "BDAT 5 LAST\r\n",
        "AUTH PLAIN =\r\n",
        "\r\n",
        "\r",
        "\n",
        ".",
        " ",
        "a line of a body\r\n",
        "..\r\n",
    ]);
    let piece = prop_oneof![
        12 => text.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..400),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #[test]
    fn whatever_is_said_means_the_same_in_any_pieces(
        said in speech(), opened in any::<bool>(), pipe in 1_usize..200, piece in 1_usize..100,
    ) {
        let said = if opened { [OPENING.as_bytes(), &said].concat() } else { said };
        runtime().block_on(async {
            let whole = session(&[&said], 100_000).await;
            prop_assert!(whole.0.ends_with("\r\n") && whole.0.starts_with("220 "));
            let pieces: Vec<&[u8]> = said.chunks(piece).collect();
            prop_assert_eq!(session(&pieces, pipe).await, whole);
            Ok(())
        })?;
    }

    #[test]
    fn any_lines_of_any_client_are_one_message(messages in prop::collection::vec(prop::collection::vec(line(), 1..12), 1..4), piece in 1_usize..300) {
        let mut said = "EHLO x\r\n".to_owned();
        for lines in &messages {
            said += "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n";
            said += &stuffed(lines);
        }
        said += "QUIT\r\n";
        let expected: Vec<bytes::Bytes> =
            messages.iter().map(|lines| (lines.join("\r\n") + "\r\n").into()).collect();
        let pieces: Vec<&[u8]> = said.as_bytes().chunks(piece).collect();
        let (_, kept, ended) = runtime().block_on(session(&pieces, 4_096));
        prop_assert_eq!(ended, Ended::Quit);
        prop_assert_eq!(kept, expected);
    }
}

proptest! {
    #![proptest_config(one_in(8))]

    /// The same over a socket, where the system cuts.
    #[test]
    fn a_socket_makes_no_difference(said in speech()) {
        runtime().block_on(async {
            let whole = session(&[&said], 100_000).await;
            let (address, keeper) = server(ServerConfig { max_line: 300, ..ServerConfig::new("mx.test") }).await;
            prop_assert_eq!(converse(address, &said).await, whole.0);
            prop_assert_eq!(keeper.bodies(), whole.1);
            Ok(())
        })?;
    }
}
