//! `doctor` as an operator meets it, at servers that run.

use serde_json::Value;
use std::{net::SocketAddr, path::PathBuf, process::Output, sync::Arc};
use testkit::sink::{Sink, SinkConfig, SinkTls};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::TcpListener,
    process::Command,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig, crypto,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

async fn doctor(words: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_mailfleet")).args(["--json", "doctor", "smtp"]).args(words).output();
    command.await.expect("the program runs")
}

/// The exit code, and of each check its result, what was found and the advice.
async fn examined(words: &[&str]) -> (Option<i32>, Vec<(String, String, String, String)>) {
    let output = doctor(words).await;
    let text = String::from_utf8(output.stdout).expect("is UTF-8");
    let checks = text.lines().map(|line| {
        let check: Value = serde_json::from_str(line).expect("a line is a value");
        let word = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
        (word("check"), word("result"), word("found"), word("advice"))
    });
    (output.status.code(), checks.collect())
}

/// What is said of one check.
fn of<'a>(checks: &'a [(String, String, String, String)], name: &str) -> (&'a str, &'a str, &'a str) {
    let found = checks.iter().find(|(check, ..)| check == name);
    let (_, result, found, advice) = found.unwrap_or_else(|| panic!("no check {name}: {checks:?}"));
    (result, found, advice)
}

fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("can be written");
    path.to_string_lossy().into_owned()
}

#[tokio::test]
async fn a_server_in_clear_is_told_as_such_and_what_it_says_of_a_recipient() {
    let sink = Sink::start(SinkConfig::default()).await.expect("starts");
    let target = sink.addr().to_string();
    let (code, checks) = examined(&[&target]).await;
    assert_eq!(code, Some(1));
    assert_eq!(of(&checks, "tcp").0, "ok");
    let (result, offers, _) = of(&checks, "offers");
    assert!(result == "ok" && offers.contains("PIPELINING") && offers.contains("SIZE 2"), "{offers}");
    assert_eq!(of(&checks, "tls").0, "fail", "another port than 25 is for passwords");
    for (to, code, result, part) in [
        ("ann@receiver.test", 0, "ok", "taken"),
        ("greylist@receiver.test", 0, "warn", "greylisted"),
        ("unknown@receiver.test", 1, "fail", "invalid_recipient"),
    ] {
        let words = [&target, "--tls", "none", "--from", "bob@sender.test", "--to", to];
        let (exit, checks) = examined(&words).await;
        let (graded, found, _) = of(&checks, "recipient");
        assert_eq!((exit, graded), (Some(code), result), "{to}: {checks:?}");
        assert!(found.contains(part), "{found}");
    }
    assert_eq!(sink.stats().accepted, 0, "no mail is ever sent");
}

#[tokio::test]
async fn a_certificate_is_judged_by_who_signed_it_and_by_its_name() {
    let tls = SinkTls::SelfSigned(vec!["localhost".to_owned()]);
    let sink = Sink::start(SinkConfig { tls, ..SinkConfig::default() }).await.expect("starts");
    let [named, numbered] = [format!("localhost:{}", sink.addr().port()), sink.addr().to_string()];
    let (code, checks) = examined(&[&numbered]).await;
    let (result, _, advice) = of(&checks, "tls");
    assert_eq!((code, result), (Some(1), "fail"));
    assert!(advice.contains("signed by itself"), "{advice}");
    let root = sink.certificate().expect("it has one");
    let root = file("doctor-root.pem", &pem(root));
    let (code, checks) = examined(&[&numbered, "--ca-file", &root]).await;
    assert_eq!(code, Some(1));
    assert!(of(&checks, "tls").2.contains("another host's"), "{checks:?}");
    let (code, checks) = examined(&[&named, "--ca-file", &root]).await;
    assert_eq!((code, of(&checks, "tls").0), (Some(0), "ok"), "{checks:?}");
}

fn pem(certificate: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(certificate))
}

#[tokio::test]
async fn a_port_where_nobody_listens_and_one_where_nobody_speaks_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = listener.local_addr().expect("an address").to_string();
    let (code, checks) = examined(&[&silent, "--within", "300ms"]).await;
    let (result, found, advice) = of(&checks, "greeting");
    assert_eq!((code, result), (Some(1), "fail"));
    assert!(found.contains("banner") && advice.contains("--tls implicit"), "{found}: {advice}");
    drop(listener);
    let (code, checks) = examined(&[&silent]).await;
    assert_eq!((code, of(&checks, "tcp").0), (Some(1), "fail"));
    assert!(of(&checks, "tcp").2.contains("nobody listens"), "{checks:?}");
}

#[tokio::test]
async fn a_login_goes_over_tls_alone_and_a_wrong_one_is_named() {
    let (address, certificate, _server) = submissions("right").await;
    let root = file("doctor-login.pem", &certificate);
    let [right, wrong] = [file("doctor-right", "right\n"), file("doctor-wrong", "wrong\n")];
    let target = format!("localhost:{}", address.port());
    let words =
        |password| [&target, "--tls", "implicit", "--ca-file", &root, "--username", "ann", "--password-file", password];
    let (code, checks) = examined(&words(&right)).await;
    assert_eq!((code, of(&checks, "login").0), (Some(0), "ok"), "{checks:?}");
    let (code, checks) = examined(&words(&wrong)).await;
    let (result, found, advice) = of(&checks, "login");
    assert_eq!((code, result), (Some(1), "fail"));
    assert!(found.contains("535") && advice.contains("password is wrong"), "{found}: {advice}");
    let sink = Sink::start(SinkConfig::default()).await.expect("starts");
    let clear = sink.addr().to_string();
    let (code, checks) = examined(&[&clear, "--username", "ann", "--password-file", &right]).await;
    assert_eq!((code, of(&checks, "tls").0), (Some(1), "fail"));
    assert!(checks.iter().all(|(check, ..)| check != "login"), "{checks:?}");
}

/// A server that speaks TLS from the first byte on and wants this password of `ann`.
async fn submissions(password: &'static str) -> (SocketAddr, String, JoinSet<()>) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate with its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let mut client = BufStream::new(stream);
            let mut answer = "220 submissions.test ESMTP\r\n".to_owned();
            loop {
                let sent = async {
                    client.write_all(answer.as_bytes()).await?;
                    client.flush().await
                };
                let mut line = String::new();
                if sent.await.is_err() || client.read_line(&mut line).await.unwrap_or(0) == 0 {
                    break;
                }
                let right = format!("AUTH PLAIN {}\r\n", STANDARD.encode(format!("\0ann\0{password}")));
                answer = match line.get(..4) {
                    Some("EHLO") => "250-submissions.test\r\n250 AUTH PLAIN\r\n",
                    Some("AUTH") if line == right => "235 2.7.0 welcome\r\n",
                    Some("AUTH") => "535 5.7.8 credentials are not valid\r\n",
                    _ => "221 2.0.0 bye\r\n",
                }
                .to_owned();
            }
        }
    });
    (address, made.cert.pem(), serving)
}
