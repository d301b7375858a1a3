//! STARTTLS, its traps, and logging in.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

extern crate mailfleet_smtp as smtp;

#[macro_use]
mod support;

use smtp::{
    TlsContext,
    client::{
        Abort, Attempt, ClientConfig, ConnectError, Connection, Credentials, Stage, TlsPolicy, Violation, WireError,
    },
    server::ServerConfig,
};
use support::{Addresses, Peer, body, certificate, client, peer, required, server};

fn go() -> Result<(), Abort> {
    Ok(())
}

fn trusting(root: rustls::pki_types::CertificateDer<'static>) -> ClientConfig {
    ClientConfig { tls: required(), tls_context: TlsContext::with_roots([root]).unwrap(), ..client() }
}

#[tokio::test]
async fn a_message_goes_out_encrypted_when_it_is_offered_and_verified_when_required() {
    let (tls, root) = certificate(&["mx.peer.test"]);
    let (address, keeper) = server(ServerConfig { tls: Some(tls), ..ServerConfig::new("mx.test") }).await;
    let large = bytes::Bytes::from(b"line of a larger body\r\n".repeat(10_000));
    for config in [client(), trusting(root)] {
        let mut connection = Connection::connect(address, "127.0.0.1", &config).await.unwrap();
        assert!(connection.is_tls());
        assert!(!connection.capabilities().starttls);
        let to = Addresses::to("user@peer.test");
        assert_matches!(connection.send(&to.envelope(), &body(), go).await, Attempt::Delivered(_));
        assert_matches!(connection.send(&to.envelope(), &large, go).await, Attempt::Delivered(_));
        connection.quit().await;
    }
    assert!(keeper.kept.lock().unwrap().iter().all(|message| message.tls));
    assert_eq!(keeper.bodies(), vec![body(), large.clone(), body(), large]);
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_is_refused_where_it_is_required() {
    let (tls, root) = certificate(&["other.peer.test"]);
    let (_, stranger) = certificate(&["mx.peer.test"]);
    let (address, _keeper) = server(ServerConfig { tls: Some(tls), ..ServerConfig::new("mx.test") }).await;
    for config in [trusting(root), trusting(stranger)] {
        let error = Connection::connect(address, "127.0.0.1", &config).await.unwrap_err();
        assert_matches!(&error, ConnectError::Tls(_));
        assert!(!error.may_retry_in_clear(&config.tls));
        assert!(error.may_retry_in_clear(&TlsPolicy::Opportunistic));
    }
}

#[tokio::test]
async fn required_tls_is_never_given_up() {
    for keywords in [&["PIPELINING"][..], &["STARTTLS"]] {
        let (address, peer) = peer(async move |mut peer: Peer| {
            peer.greet(keywords).await;
            if keywords.contains(&"STARTTLS") {
                peer.line().await;
                peer.say("454 4.7.0 not now\r\n").await;
            }
            peer.rest().await
        })
        .await;
        let config = ClientConfig { tls: required(), ..client() };
        let error = Connection::connect(address, "127.0.0.1", &config).await.unwrap_err();
        assert_matches!(error, ConnectError::TlsUnavailable { .. });
        assert_eq!(peer.await.unwrap(), "");
    }
}

#[tokio::test]
async fn an_opportunistic_session_goes_on_in_clear_when_starttls_is_refused() {
    let (address, _peer) = peer(async |mut peer: Peer| {
        peer.greet(&["STARTTLS"]).await;
        peer.line().await;
        peer.say("454 4.7.0 not now\r\n").await;
        peer.rest().await
    })
    .await;
    assert!(!support::connect(address).await.is_tls());
}

#[tokio::test]
async fn plain_text_behind_the_answer_to_starttls_ends_the_connection() {
    let (address, peer) = peer(async |mut peer: Peer| {
        peer.greet(&["STARTTLS"]).await;
        peer.line().await;
        peer.say("220 go ahead\r\n250 injected\r\n").await;
        peer.rest().await
    })
    .await;
    let error = Connection::connect(address, "127.0.0.1", &client()).await.unwrap_err();
    let expected = Violation::TextBeforeTls;
    assert_matches!(error, ConnectError::Wire(WireError::Protocol { stage: Stage::StartTls, source }) if source == expected);
    assert_eq!(peer.await.unwrap(), "");
}

#[tokio::test]
async fn a_server_ends_a_session_with_text_behind_starttls() {
    let (tls, _) = certificate(&["mx.peer.test"]);
    let (address, _keeper) = server(ServerConfig { tls: Some(tls), ..ServerConfig::new("mx.test") }).await;
    let answer = support::converse(address, b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<a@b.test>\r\n").await;
    assert!(answer.ends_with("501 5.5.4 text behind STARTTLS\r\n"), "{answer}");
}

fn with_password(allow_without_tls: bool) -> ClientConfig {
    let credentials = Credentials { username: "user".into(), password: "secret".into(), allow_without_tls };
    ClientConfig { credentials: Some(credentials), tls: TlsPolicy::None, ..client() }
}

#[tokio::test]
async fn credentials_do_not_travel_in_clear() {
    let (address, peer) = peer(async |mut peer: Peer| {
        peer.greet(&["AUTH PLAIN LOGIN"]).await;
        peer.rest().await
    })
    .await;
    let error = Connection::connect(address, "127.0.0.1", &with_password(false)).await.unwrap_err();
    assert_matches!(error, ConnectError::AuthWithoutTls);
    assert_eq!(peer.await.unwrap(), "");
}

#[tokio::test]
async fn plain_is_preferred_and_login_spoken() {
    let (address, plain) = peer(async |mut peer: Peer| {
        peer.greet(&["AUTH LOGIN PLAIN"]).await;
        let line = peer.line().await;
        peer.say("235 2.7.0 welcome\r\n").await;
        line
    })
    .await;
    Connection::connect(address, "127.0.0.1", &with_password(true)).await.unwrap();
    assert_eq!(plain.await.unwrap(), "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n");

    let (address, login) = peer(async |mut peer: Peer| {
        peer.greet(&["AUTH LOGIN"]).await;
        let mut lines = peer.line().await;
        peer.say("334 VXNlcm5hbWU6\r\n").await;
        lines += &peer.line().await;
        peer.say("334 UGFzc3dvcmQ6\r\n").await;
        lines += &peer.line().await;
        peer.say("235 2.7.0 welcome\r\n").await;
        lines
    })
    .await;
    Connection::connect(address, "127.0.0.1", &with_password(true)).await.unwrap();
    assert_eq!(login.await.unwrap(), "AUTH LOGIN\r\ndXNlcg==\r\nc2VjcmV0\r\n");
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_mechanism_have_their_errors() {
    let (address, _peer) = peer(async |mut peer: Peer| {
        peer.greet(&["AUTH PLAIN"]).await;
        peer.line().await;
        peer.say("535 5.7.8 no\r\n").await;
    })
    .await;
    let error = Connection::connect(address, "127.0.0.1", &with_password(true)).await.unwrap_err();
    assert_matches!(error, ConnectError::Refused { stage: Stage::Auth, reply } if reply.code == 535);

    let (address, _peer) = peer(async |mut peer: Peer| peer.greet(&["AUTH GSSAPI"]).await).await;
    let error = Connection::connect(address, "127.0.0.1", &with_password(true)).await.unwrap_err();
    assert_matches!(error, ConnectError::AuthUnavailable);
}
