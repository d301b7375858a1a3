//! SES through SNS: certificates are fetched, subscriptions confirmed, and what is told reaches its mail.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::SecondsFormat;
use domain::{Lane, MessageId};
use mailfleet_tests::{Fleet, mail};
use proto::v1::MessageState;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use testkit::until;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

const TOPIC: &str = "arn:aws:sns:eu-west-1:111122223333:ses-events";
const HOST: &str = "sns.eu-west-1.amazonaws.com";

/// SNS, as far as it is asked: over TLS, under its own name.
struct Sns {
    at: SocketAddr,
    root: String,
    signing: RsaKeyPair,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Sns {
    async fn start() -> Self {
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["sns.amazonaws.com".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        let pem = params.self_signed(&pair).unwrap().pem();
        let signing = RsaKeyPair::from_pkcs8(&pair.serialize_der()).unwrap();

        let own = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![own.cert.der().clone()],
                PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        let seen = Arc::clone(&asked);
        serving.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = vec![0; 8_192];
                let length = stream.read(&mut request).await.unwrap_or(0);
                let line = String::from_utf8_lossy(&request[..length]).lines().next().unwrap_or_default().to_owned();
                let body =
                    if line.starts_with("GET /SimpleNotificationService-1.pem ") { pem.as_str() } else { "<ok/>" };
                seen.lock().unwrap().push(line);
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                let _gone = stream.write_all(answer.as_bytes()).await;
                let _gone = stream.shutdown().await;
            }
        });
        Self { at, root: own.cert.pem(), signing, asked, _serving: serving }
    }

    /// A post as SNS makes it.
    fn post(&self, kind: &str, message: &str, id: &str) -> (Vec<(&'static str, String)>, String) {
        let at = service::clock::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let subscribe = format!("https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=tok123");
        let signed = if kind == "Notification" {
            format!("Message\n{message}\nMessageId\n{id}\nTimestamp\n{at}\nTopicArn\n{TOPIC}\nType\n{kind}\n")
        } else {
            format!(
                "Message\n{message}\nMessageId\n{id}\nSubscribeURL\n{subscribe}\nTimestamp\n{at}\nToken\ntok123\n\
                 TopicArn\n{TOPIC}\nType\n{kind}\n"
            )
        };
        let mut signature = vec![0; self.signing.public_modulus_len()];
        self.signing.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        let mut body = json!({
            "Type": kind, "MessageId": id, "TopicArn": TOPIC, "Message": message, "Timestamp": at, "SignatureVersion": "2",
            "Signature": STANDARD.encode(signature), "SigningCertURL": format!("https://{HOST}/SimpleNotificationService-1.pem"),
        });
        if kind != "Notification" {
            body["SubscribeURL"] = json!(subscribe);
            body["Token"] = json!("tok123");
        }
        let headers = vec![
            ("x-amz-sns-message-type", kind.to_owned()),
            ("x-amz-sns-message-id", id.to_owned()),
            ("x-amz-sns-topic-arn", TOPIC.to_owned()),
        ];
        (headers, body.to_string())
    }

    fn asked(&self, start: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.starts_with(start)).count()
    }
}

async fn post(web: SocketAddr, (headers, body): &(Vec<(&'static str, String)>, String)) -> String {
    let mut stream = TcpStream::connect(web).await.unwrap();
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "POST /webhooks/aws HTTP/1.1\r\nHost: hooks.example.com\r\nConnection: close\r\n{fields}\
         Content-Type: text/plain; charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

fn bounced(id: MessageId) -> Value {
    json!({
        "eventType": "Bounce",
        "mail": {"timestamp": "2026-01-02T03:04:04.000Z", "messageId": "0102018c-example-1", "source": "news@example.com",
                 "destination": ["ann@receiver.test"], "tags": {"mid": [id.to_string()]}},
        "bounce": {"bounceType": "Permanent", "bounceSubType": "General", "feedbackId": "fb",
                   "timestamp": service::clock::now().to_rfc3339_opts(SecondsFormat::Millis, true),
                   "bouncedRecipients": [{"emailAddress": "ann@receiver.test", "action": "failed", "status": "5.1.1",
                                          "diagnosticCode": "smtp; 550 5.1.1 user unknown"}]},
    })
}

#[tokio::test]
async fn a_topic_is_confirmed_its_certificate_fetched_once_and_its_bounces_reach_their_mails() {
    let mut fleet = Fleet::start().await;
    fleet.ready().await;
    let sns = Sns::start().await;
    fleet.settings.feedback.sns.connect_to = Some(sns.at);
    fleet.settings.feedback.sns.ca_file = Some(fleet.file("sns-root", &sns.root));
    let hook = json!({"provider": "ses", "topics": [TOPIC]});
    fleet.settings.feedback.webhooks.insert("aws".to_owned(), serde_json::from_value(hook).unwrap());
    let web = fleet.launch_feedback().await;

    let confirmation = sns.post("SubscriptionConfirmation", "You have chosen to subscribe.", "id-1");
    assert!(post(web, &confirmation).await.contains(" 200 "));
    let confirm = "GET /?Action=ConfirmSubscription&TopicArn=arn%3Aaws%3Asns%3Aeu-west-1%3A111122223333%3Ases-events&Token=tok123 ";
    assert_eq!((sns.asked("GET /SimpleNotificationService-1.pem "), sns.asked(confirm)), (1, 1));

    let id = fleet.submit(mail().lane(Lane::Bulk).to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    let told = sns.post("Notification", &bounced(id).to_string(), "id-2");
    let forged = (told.0.clone(), told.1.replace("5.1.1", "5.2.2"));
    assert!(post(web, &forged).await.contains(" 403 "));
    for _ in 0..2 {
        assert!(post(web, &told).await.contains(" 200 "));
    }
    until("it is told", async || fleet.get(id).await.timeline.iter().any(|one| one.event == "returned")).await;
    let timeline = fleet.get(id).await.timeline;
    let told: Vec<_> = timeline.iter().filter(|one| one.event == "returned").collect();
    assert_eq!((told.len(), told[0].source.as_str(), told[0].enhanced_status.as_str()), (1, "ses", "5.1.1"));
    assert_eq!(sns.asked("GET /SimpleNotificationService-1.pem "), 1, "the certificate is kept");
    fleet.assert_sound().await;
}
