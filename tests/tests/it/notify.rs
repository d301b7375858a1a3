//! Events that are posted to a tenant's endpoints.

use domain::MessageId;
use http::{HeaderMap, HeaderName, HeaderValue};
use mailfleet_tests::{Fleet, Kind, mail};
use posting::{VerifyingKey, Window, outbound::verify};
use proto::v1::{self, EndpointState, MessageState};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use testkit::{Fault, until};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A post as it came.
#[derive(Clone, Debug)]
struct Post {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Post {
    fn id(&self) -> &str {
        self.headers["webhook-id"].to_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    fn message(&self) -> String {
        self.json()["data"]["message_id"].as_str().unwrap_or_default().to_owned()
    }

    fn verifies(&self, keys: &[&str]) -> bool {
        let keys: Vec<VerifyingKey> = keys.iter().map(|key| key.parse().unwrap()).collect();
        verify(&keys, &self.headers, &self.body, Window::STANDARD, service::clock::now()).is_ok()
    }
}

/// What a receiver answers to a post.
type Answers = Arc<Mutex<Box<dyn FnMut(&Post) -> &'static str + Send>>>;

/// A tenant's program that takes posts.
struct Receiver {
    at: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
    answers: Answers,
    _serving: JoinSet<()>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let posts = Arc::new(Mutex::new(Vec::new()));
        let answers: Answers = Arc::new(Mutex::new(Box::new(|_| "200 OK")));
        let mut serving = JoinSet::new();
        let (seen, says) = (Arc::clone(&posts), Arc::clone(&answers));
        serving.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sessions.spawn(serve(stream, Arc::clone(&seen), Arc::clone(&says)));
            }
        });
        Self { at, posts, answers, _serving: serving }
    }

    fn url(&self) -> String {
        format!("http://{}/hooks?x=1", self.at)
    }

    fn answers(&self, answer: impl FnMut(&Post) -> &'static str + Send + 'static) {
        *self.answers.lock().unwrap() = Box::new(answer);
    }

    fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// The kinds of events about a message, in the order in which they came.
    fn kinds(&self, id: MessageId) -> Vec<String> {
        self.posts().iter().filter(|post| post.message() == id.to_string()).map(Post::kind).collect()
    }
}

async fn serve(stream: TcpStream, posts: Arc<Mutex<Vec<Post>>>, answers: Answers) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut headers, mut line, mut first) = (HeaderMap::new(), String::new(), true);
        loop {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let text = line.trim_end();
            if first {
                assert_eq!(text, "POST /hooks?x=1 HTTP/1.1");
                first = false;
            } else if let Some((name, value)) = text.split_once(": ") {
                headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
            } else {
                break;
            }
        }
        let mut body = vec![0; headers["content-length"].to_str().unwrap().parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let post = Post { headers, body };
        let answer = answers.lock().unwrap()(&post);
        posts.lock().unwrap().push(post);
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 2\r\n\r\nok");
        if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn prepared() -> Fleet {
    let builder = Fleet::builder().settings(|settings| {
        let notify = &mut settings.feedback.notify;
        notify.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
        notify.poll = Duration::from_millis(50);
        notify.answer = Duration::from_secs(1);
        notify.connect = Duration::from_secs(1);
        notify.waits = vec![Duration::from_millis(200)];
    });
    let fleet = builder.start().await;
    fleet.ready().await;
    fleet
}

async fn start() -> Fleet {
    let mut fleet = prepared().await;
    fleet.launch_feedback().await;
    fleet
}

async fn create(fleet: &Fleet, request: v1::CreateEndpointRequest) -> (String, String) {
    let made = fleet.endpoints().create_endpoint(request).await.unwrap().into_inner();
    (made.endpoint.unwrap().endpoint_id, made.key)
}

async fn to(fleet: &Fleet, receiver: &Receiver) -> (String, String) {
    create(fleet, v1::CreateEndpointRequest { url: receiver.url(), ..Default::default() }).await
}

async fn get(fleet: &Fleet, endpoint_id: &str) -> v1::Endpoint {
    let request = v1::GetEndpointRequest { endpoint_id: endpoint_id.to_owned() };
    fleet.endpoints().get_endpoint(request).await.unwrap().into_inner().endpoint.unwrap()
}

async fn delivered(fleet: &Fleet, to: &str) -> MessageId {
    let id = fleet.submit(mail().to(to)).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    id
}

#[tokio::test]
async fn every_event_is_posted_once_signed_and_in_the_order_of_its_message() {
    let fleet = start().await;
    let receiver = Receiver::start().await;
    let earlier = delivered(&fleet, "early@receiver.test").await;
    until("it is in the log", async || fleet.store.log_range().await.is_ok_and(|(_, last)| last >= 2)).await;
    let (endpoint, key) = to(&fleet, &receiver).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(fleet.submit(mail().to(&format!("r{number}@receiver.test"))).await);
    }
    for id in &ids {
        until("it is told", async || receiver.kinds(*id).len() == 2).await;
        assert_eq!(receiver.kinds(*id), ["message.accepted", "message.delivered"]);
    }
    assert!(receiver.kinds(earlier).is_empty(), "it begins with what comes from then on");
    let posts = receiver.posts();
    assert!(posts.iter().all(|post| post.verifies(&[&key])));
    assert_eq!(posts.iter().map(Post::id).collect::<HashSet<_>>().len(), posts.len(), "each once");
    let first = posts.iter().find(|post| post.kind() == "message.delivered").unwrap().json();
    assert!(first["data"]["recipient"].as_str().unwrap().ends_with("@receiver.test"));
    assert_eq!(
        (first["data"]["smtp_code"].as_u64(), first["data"]["lane"].as_str()),
        (Some(250), Some("transactional"))
    );
    until("it has caught up", async || get(&fleet, &endpoint).await.behind == 0).await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn what_an_endpoint_refuses_holds_back_its_message_alone() {
    let fleet = start().await;
    let receiver = Receiver::start().await;
    let bad = Arc::new(Mutex::new(3));
    let left = Arc::clone(&bad);
    receiver.answers(move |post| {
        let is_bad = post.json()["data"]["recipient"] == "bad@receiver.test" && post.kind() == "message.accepted";
        let mut left = left.lock().unwrap();
        if is_bad && *left > 0 {
            *left -= 1;
            return "500 Internal Server Error";
        }
        "204 No Content"
    });
    let (endpoint, _) = to(&fleet, &receiver).await;
    // Together, so that the endpoint takes others of the same piece.
    let mails = ["bad", "good", "fine"].map(|name| mail().to(&format!("{name}@receiver.test")));
    let mut ids = Vec::new();
    for one in mails {
        ids.push(fleet.submit(one).await);
    }
    for id in &ids[1..] {
        until("the others are told", async || {
            receiver.kinds(*id).last().is_some_and(|kind| kind == "message.delivered")
        })
        .await;
    }
    until("it is told in the end", async || {
        receiver.kinds(ids[0]).last().is_some_and(|kind| kind == "message.delivered")
    })
    .await;
    let kinds = receiver.kinds(ids[0]);
    assert_eq!(kinds[..4], vec!["message.accepted"; 4], "three refused and one taken: {kinds:?}");
    let posts = receiver.posts();
    let same: HashSet<&str> = posts
        .iter()
        .filter(|post| post.message() == ids[0].to_string() && post.kind() == "message.accepted")
        .map(Post::id)
        .collect();
    assert_eq!(same.len(), 1, "every attempt bears the same id");
    until("nothing is left", async || get(&fleet, &endpoint).await.parked == 0).await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn an_endpoint_that_takes_nothing_keeps_its_place_and_is_ended_after_its_time() {
    let mut fleet = prepared().await;
    fleet.settings.feedback.notify.disable_after = Duration::from_secs(3600);
    fleet.launch_feedback().await;
    let receiver = Receiver::start().await;
    receiver.answers(|_| "503 Service Unavailable");
    let (endpoint, _) = to(&fleet, &receiver).await;
    let id = delivered(&fleet, "ann@receiver.test").await;
    until("it fails", async || get(&fleet, &endpoint).await.failures >= 2).await;
    let failing = get(&fleet, &endpoint).await;
    assert_eq!((failing.state(), failing.parked), (EndpointState::Active, 0));
    assert!(failing.last_error.contains("503") && failing.failing_since.is_some(), "{failing:?}");
    fleet.clock.advance(Duration::from_secs(4000)).await;
    until("it is ended", async || get(&fleet, &endpoint).await.state() == EndpointState::Disabled).await;
    assert!(get(&fleet, &endpoint).await.why.contains("503"));
    // Its owner mends it: nothing was missed.
    receiver.answers(|_| "200 OK");
    let before = receiver.posts().len();
    let request = v1::UpdateEndpointRequest { endpoint_id: endpoint.clone(), active: Some(true), ..Default::default() };
    fleet.endpoints().update_endpoint(request).await.unwrap();
    until("it is told", async || receiver.posts().len() >= before + 2).await;
    let kinds: Vec<String> =
        receiver.posts()[before..].iter().filter(|post| post.message() == id.to_string()).map(Post::kind).collect();
    assert_eq!(kinds, ["message.accepted", "message.delivered"]);

    receiver.answers(|_| "410 Gone");
    delivered(&fleet, "ben@receiver.test").await;
    until("it is ended at once", async || get(&fleet, &endpoint).await.state() == EndpointState::Disabled).await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_secret_is_rotated_a_test_posted_and_a_stretch_posted_once_more() {
    let fleet = start().await;
    let receiver = Receiver::start().await;
    let request =
        v1::CreateEndpointRequest { url: receiver.url(), events: vec!["delivered".to_owned()], ..Default::default() };
    let (endpoint, old) = create(&fleet, request).await;
    let rotate = v1::RotateEndpointSecretRequest {
        endpoint_id: endpoint.clone(),
        signature: v1::SignatureKind::Ed25519.into(),
        grace: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
    };
    let new = fleet.endpoints().rotate_endpoint_secret(rotate).await.unwrap().into_inner().key;
    assert!(old.starts_with("whsec_") && new.starts_with("whpk_"), "{new}");
    fleet.endpoints().test_endpoint(v1::TestEndpointRequest { endpoint_id: endpoint.clone() }).await.unwrap();
    until("it is tested", async || get(&fleet, &endpoint).await.test_result.starts_with("taken after")).await;
    let tested = receiver.posts().remove(0);
    assert_eq!(tested.kind(), "webhook.test");
    assert!(tested.verifies(&[&old]) && tested.verifies(&[&new]), "both sign for a while");
    fleet.clock.advance(Duration::from_secs(61)).await;
    fleet.ready().await;

    let id = delivered(&fleet, "ann@receiver.test").await;
    until("it is told", async || receiver.kinds(id) == ["message.delivered"]).await;
    let post = receiver.posts().pop().unwrap();
    assert!(!post.verifies(&[&old]) && post.verifies(&[&new]), "the old one is over");
    let again = v1::RedeliverRequest { endpoint_id: endpoint.clone(), after_seq: 0, until_seq: 0 };
    let run = fleet.endpoints().redeliver(again).await.unwrap().into_inner().endpoint_id;
    until("it is told once more", async || receiver.kinds(id).len() == 2).await;
    let posts: Vec<Post> = receiver.posts().into_iter().filter(|post| post.message() == id.to_string()).collect();
    assert_eq!(posts[0].id(), posts[1].id());
    until("the run is over", async || {
        let request = v1::GetEndpointRequest { endpoint_id: run.clone() };
        fleet.endpoints().get_endpoint(request).await.is_err()
    })
    .await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn nothing_is_missed_when_a_process_that_posts_is_killed_or_postgres_is_away() {
    let mut fleet = prepared().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = to(&fleet, &receiver).await;
    let proxy = fleet.before_postgres().await;
    fleet.launch_through(Kind::Feedback, "feedback", &proxy).await;
    let mut ids = vec![delivered(&fleet, "one@receiver.test").await];
    until("it is told", async || receiver.kinds(ids[0]).len() >= 2).await;
    proxy.set(Fault::Cut);
    ids.push(delivered(&fleet, "two@receiver.test").await);
    proxy.set(Fault::Nothing);
    until("it is told later", async || receiver.kinds(ids[1]).len() >= 2).await;
    fleet.crash("feedback").await;
    ids.push(delivered(&fleet, "three@receiver.test").await);
    fleet.launch(Kind::Feedback, "feedback").await;
    fleet.settings.feedback.web.listen.set_port(0);
    fleet.launch(Kind::Feedback, "feedback-2").await;
    until("it is told by another", async || receiver.kinds(ids[2]).len() >= 2).await;
    for id in &ids {
        let mut seen: HashMap<String, HashSet<String>> = HashMap::new();
        for post in receiver.posts().iter().filter(|post| post.message() == id.to_string()) {
            seen.entry(post.kind()).or_default().insert(post.id().to_owned());
        }
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen.values().all(|ids| ids.len() == 1), "a repeat is known by its id: {seen:?}");
    }
    until("it has caught up", async || get(&fleet, &endpoint).await.behind == 0).await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn an_endpoint_within_the_fleets_own_network_is_not_reached_unless_it_is_allowed() {
    let mut fleet = prepared().await;
    fleet.settings.feedback.notify.allow_networks = Vec::new();
    fleet.launch_feedback().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = to(&fleet, &receiver).await;
    delivered(&fleet, "ann@receiver.test").await;
    until("it is refused", async || get(&fleet, &endpoint).await.last_error.contains("may not be reached")).await;
    assert!(receiver.posts().is_empty());
    let bad = v1::CreateEndpointRequest {
        url: "ftp://example.com".to_owned(),
        events: vec!["gone".to_owned()],
        ..Default::default()
    };
    let refused = fleet.endpoints().create_endpoint(bad).await.unwrap_err();
    assert!(refused.message().contains("url"), "{refused:?}");
    fleet.assert_sound().await;
}
