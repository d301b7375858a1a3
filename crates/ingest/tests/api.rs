//! The API over a real connection and a real database, without a broker: accepting needs none.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends at its first surprise")]

#[path = "api/administration.rs"]
mod administration;
#[path = "api/every_call.rs"]
mod every_call;
#[path = "api/suppressions.rs"]
mod suppressions;

use bus::{Bus, BusConfig};
use mailfleet_ingest::{
    Ingest, IngestConfig, Neighbours,
    keys::{self, MintedKey},
};
use proto::v1::{
    self, KeyScope, MessageState, domain_service_client::DomainServiceClient, mail::Content,
    mail_service_client::MailServiceClient, queue_service_client::QueueServiceClient, recipient_result::Outcome,
    suppression_service_client::SuppressionServiceClient, template_service_client::TemplateServiceClient,
    tenant_service_client::TenantServiceClient,
};
use service::{Health, Lifecycle, Sealer};
use std::{sync::Arc, time::Duration};
use store::Store;
use testkit::TestDatabase;
use tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_types::StatusExt;

#[path = "api/templates.rs"]
mod templates;

/// A key, presented with every call.
#[derive(Clone)]
struct Bearer(String);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value: MetadataValue<_> = format!("Bearer {}", self.0).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

type Line = InterceptedService<Channel, Bearer>;

/// Ingest with a tenant that can send.
struct House {
    _database: TestDatabase,
    store: Store,
    channel: Channel,
    admin: String,
    tenant: String,
    key: String,
    life: Lifecycle,
}

impl House {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut IngestConfig)) -> Self {
        let database = TestDatabase::create().await;
        let store = database.store().await;
        let admin = fleet_key(&store).await;
        let (channel, life) = instance(&store, change).await;
        let mut house =
            Self { _database: database, store, channel, admin, tenant: String::new(), key: String::new(), life };
        (house.tenant, house.key) = house.tenant_with_key("acme").await;
        let domain = v1::CreateDomainRequest { domain: "example.com".to_owned(), ..Default::default() };
        let made = DomainServiceClient::new(house.line(&house.key)).create_domain(domain).await.unwrap().into_inner();
        let records = made.domain.unwrap().dns_records;
        let purposes: Vec<&str> = records.iter().map(|one| one.purpose.as_str()).collect();
        assert!(purposes.starts_with(&["dkim-rsa", "dkim-ed25519"]) && purposes.ends_with(&["dmarc"]), "{purposes:?}");
        house
    }

    /// A second instance of ingest on the same database.
    async fn neighbour(&self) -> Channel {
        instance(&self.store, |_| {}).await.0
    }

    fn line(&self, key: &str) -> Line {
        InterceptedService::new(self.channel.clone(), Bearer(key.to_owned()))
    }

    fn mail(&self) -> MailServiceClient<Line> {
        MailServiceClient::new(self.line(&self.key)).max_encoding_message_size(64 << 20)
    }

    async fn tenant_with_key(&self, name: &str) -> (String, String) {
        let mut tenants = TenantServiceClient::new(self.line(&self.admin));
        let request = v1::CreateTenantRequest { name: name.to_owned() };
        let tenant_id = tenants.create_tenant(request).await.unwrap().into_inner().tenant_id;
        let key = self.key_with(&tenant_id, &ALL_SCOPES).await.api_key;
        (tenant_id, key)
    }

    async fn key_with(&self, tenant_id: &str, scopes: &[KeyScope]) -> v1::CreateApiKeyResponse {
        let request = v1::CreateApiKeyRequest {
            tenant_id: tenant_id.to_owned(),
            name: "test".to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
            expires_at: None,
        };
        TenantServiceClient::new(self.line(&self.admin)).create_api_key(request).await.unwrap().into_inner()
    }
}

const ALL_SCOPES: [KeyScope; 6] = [
    KeyScope::Send,
    KeyScope::Read,
    KeyScope::Templates,
    KeyScope::Domains,
    KeyScope::Suppressions,
    KeyScope::Endpoints,
];

/// An instance of ingest.
async fn instance(store: &Store, change: impl FnOnce(&mut IngestConfig)) -> (Channel, Lifecycle) {
    // Nobody listens there.
    let nats =
        BusConfig { url: "nats://127.0.0.1:1".to_owned(), retry_on_initial_connect: true, ..BusConfig::default() };
    let bus = Bus::connect(nats).await.unwrap();
    let life = Lifecycle::new();
    let neighbours = Neighbours {
        store: store.clone(),
        bus,
        shards: Default::default(),
        tracked: true,
        sealer: Some(Arc::new(Sealer::new(&[7; 32]))),
        health: Health::new(life.clone()),
    };
    let mut config = IngestConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        key_term: Duration::from_millis(200),
        require_verified_domains: false,
        ..IngestConfig::default()
    };
    change(&mut config);
    let service = Ingest::build(config, neighbours).await.unwrap();
    let address = service.addr();
    life.spawn("ingest", service.run(life.clone()));
    (Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap(), life)
}

async fn fleet_key(store: &Store) -> String {
    let now = store.now().await.unwrap();
    let (key, token) = keys::fleet_key("fleet", now).unwrap();
    store.create_api_key(&key, now).await.unwrap();
    token
}

fn inline() -> v1::Mail {
    v1::Mail {
        from: Some(v1::Address { email: "news@example.com".to_owned(), name: "News".to_owned() }),
        content: Some(Content::Inline(v1::InlineContent {
            subject: "Hello {{ name }}".to_owned(),
            html: "<p>Hello {{ name }}</p>".to_owned(),
            text: String::new(),
        })),
        ..Default::default()
    }
}

fn recipient(email: &str) -> v1::Recipient {
    v1::Recipient {
        email: email.to_owned(),
        variables_json: r#"{"name":"you"}"#.to_owned(),
        ..v1::Recipient::default()
    }
}

fn send(email: &str, key: &str) -> v1::SendMessageRequest {
    v1::SendMessageRequest { mail: Some(inline()), recipients: vec![recipient(email)], idempotency_key: key.to_owned() }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(String::new, |info| info.reason)
}

fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_accepted_without_a_broker_and_can_be_followed() {
    let house = House::start().await;
    let mut mail = house.mail();
    let sent = mail.send_message(send("a@gmail.com", "")).await.unwrap().into_inner();
    let request = v1::GetMessageRequest { message_id: sent.message_ids[0].clone() };
    let seen = mail.get_message(request).await.unwrap().into_inner();
    assert_eq!((seen.state(), seen.site.as_str()), (MessageState::Queued, "google"));
    assert_eq!(seen.timeline.iter().map(|event| event.event.as_str()).collect::<Vec<_>>(), ["accepted"]);
    let queues = QueueServiceClient::new(house.line(&house.key)).list_queues(v1::ListQueuesRequest {}).await.unwrap();
    assert_eq!(queues.into_inner().queues.iter().map(|queue| queue.waiting).collect::<Vec<_>>(), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gets_the_same_answer_and_another_body_an_error() {
    let house = House::start().await;
    let mut mail = house.mail();
    let first = mail.send_message(send("a@example.org", "k1")).await.unwrap().into_inner();
    let again = mail.send_message(send("a@example.org", "k1")).await.unwrap().into_inner();
    assert_eq!((&again.batch_id, &again.message_ids), (&first.batch_id, &first.message_ids));
    assert_eq!((first.replayed, again.replayed), (false, true));
    let other = mail.send_message(send("b@example.org", "k1")).await.unwrap_err();
    assert_eq!((other.code(), reason(&other).as_str()), (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_refuses_bad_recipients_and_repeats_its_answer() {
    let house = House::start().await;
    let mut mail = house.mail();
    let request = v1::SendBatchRequest {
        mail: Some(inline()),
        recipients: vec![recipient("a@example.org"), recipient("b@example.org\r\nDATA"), recipient("c@example.org")],
        idempotency_key: "batch".to_owned(),
    };
    let first = mail.send_batch(request.clone()).await.unwrap().into_inner();
    assert_eq!((first.accepted, first.refused), (2, 1));
    assert!(
        matches!(&first.results[1].outcome, Some(Outcome::Refused(refusal)) if refusal.field == "recipients[1].email")
    );
    let again = mail.send_batch(request.clone()).await.unwrap().into_inner();
    assert_eq!(again.results, first.results);
    let bad = v1::SendBatchRequest { recipients: vec![recipient("x")], ..request.clone() };
    let refused = mail.send_batch(bad).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "NO_RECIPIENT_LEFT"));
    let many = v1::SendBatchRequest { recipients: vec![recipient("a@example.org"); 100_000], ..request };
    let refused = mail.send_batch(many).await.unwrap_err();
    assert_eq!(fields(&refused), ["recipients"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_fields_are_refused_by_name_and_leave_nothing_behind() {
    let house = House::start().await;
    let mut mail = house.mail();
    let with = |change: fn(&mut v1::Mail)| {
        let mut mail = inline();
        change(&mut mail);
        v1::SendMessageRequest { mail: Some(mail), recipients: vec![recipient("a@example.org")], ..Default::default() }
    };
    let header = |name: &str, value: &str| v1::Header { name: name.to_owned(), value: value.to_owned() };
    let cases: Vec<(v1::SendMessageRequest, &str)> = vec![
        (with(|mail| mail.from.as_mut().unwrap().name = "x\r\nBcc: y".to_owned()), "mail.from.name"),
        (with(|mail| mail.list_id = "x\r\ny".to_owned()), "mail.list_id"),
        (
            with(|mail| {
                let Some(Content::Inline(inline)) = &mut mail.content else { return };
                inline.subject = "a\r\nBcc: b@example.org".to_owned();
            }),
            "mail.inline.subject",
        ),
        (
            with(|mail| {
                let Some(Content::Inline(inline)) = &mut mail.content else { return };
                inline.html = "{% for a in b".to_owned();
            }),
            "mail.inline.html",
        ),
        (
            v1::SendMessageRequest {
                mail: Some(v1::Mail { headers: vec![header("X-A", "b\r\nBcc: c")], ..inline() }),
                ..send("a@example.org", "")
            },
            "mail.headers[0].value",
        ),
        (
            v1::SendMessageRequest {
                mail: Some(v1::Mail { headers: vec![header("Bcc", "c@example.org")], ..inline() }),
                ..send("a@example.org", "")
            },
            "mail.headers[0].name",
        ),
        (v1::SendMessageRequest { idempotency_key: "a\nb".to_owned(), ..send("a@example.org", "") }, "idempotency_key"),
        (send("a@exam\u{202e}ple.org", ""), "recipients[0].email"),
    ];
    for (request, field) in cases {
        let refused = mail.send_message(request).await.unwrap_err();
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    let foreign =
        v1::Mail { from: Some(v1::Address { email: "a@other.org".to_owned(), name: String::new() }), ..inline() };
    let request = v1::SendMessageRequest { mail: Some(foreign), ..send("a@example.org", "") };
    assert_eq!(reason(&mail.send_message(request).await.unwrap_err()), "SENDING_DOMAIN_UNKNOWN");
    assert!(house.store.queues(None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_answered_in_order_and_a_refusal_does_not_end_it() {
    let house = House::start().await;
    let requests = (0..300).map(|at| {
        let email = if at == 7 { "bad".to_owned() } else { format!("r{at}@example.org") };
        v1::StreamMessagesRequest { message: Some(send(&email, "")) }
    });
    let stream = tokio_stream::iter(requests);
    let mut answers = house.mail().stream_messages(stream).await.unwrap().into_inner();
    for position in 0..300 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.position, position);
        let refused = matches!(answer.outcome, Some(v1::stream_messages_response::Outcome::Refused(_)));
        assert_eq!(refused, position == 7);
    }
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_published_once_and_used_by_name() {
    let house = House::start().await;
    let mut templates = TemplateServiceClient::new(house.line(&house.key));
    templates.create_template(v1::CreateTemplateRequest { name: "welcome".to_owned() }).await.unwrap();
    let taken = templates.create_template(v1::CreateTemplateRequest { name: "welcome".to_owned() }).await.unwrap_err();
    assert_eq!(reason(&taken), "NAME_TAKEN");
    let source = v1::PublishTemplateVersionRequest {
        template: "welcome".to_owned(),
        subject: "Welcome {{ name }}".to_owned(),
        body: Some(v1::publish_template_version_request::Body::Mjml(
            "<mjml><mj-body><mj-section><mj-column><mj-text>Hello {{ name }}</mj-text></mj-column></mj-section></mj-body></mjml>"
                .to_owned(),
        )),
        ..Default::default()
    };
    assert_eq!(templates.publish_template_version(source.clone()).await.unwrap().into_inner().version, 1);
    assert_eq!(templates.publish_template_version(source.clone()).await.unwrap().into_inner().version, 1);
    let broken = v1::PublishTemplateVersionRequest { subject: "{{ name".to_owned(), ..source };
    let refused = templates.publish_template_version(broken).await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), fields(&refused)), ("CONTENT_INVALID", vec!["subject".to_owned()]));
    let with = |version| {
        let template = v1::TemplateRef { template: "welcome".to_owned(), version };
        let mail = v1::Mail { content: Some(Content::Template(template)), ..inline() };
        v1::SendMessageRequest { mail: Some(mail), ..send("a@example.org", "") }
    };
    house.mail().send_message(with(0)).await.unwrap();
    assert_eq!(reason(&house.mail().send_message(with(2)).await.unwrap_err()), "TEMPLATE_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_mail_goes_from_the_author_it_names() {
    let house = House::start().await;
    let with = |from: &str| {
        let raw = format!("From: News <{from}>\nSubject: Hello\n\nHello\n");
        let mail = v1::Mail { content: Some(Content::RawMime(raw.into())), ..inline() };
        v1::SendMessageRequest { mail: Some(mail), ..send("a@example.org", "") }
    };
    house.mail().send_message(with("news@example.com")).await.unwrap();
    let refused = house.mail().send_message(with("other@example.com")).await.unwrap_err();
    assert_eq!(fields(&refused), ["mail.raw_mime"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_opens_more_than_its_own_doors() {
    let house = House::start().await;
    let (_, stranger) = house.tenant_with_key("stranger").await;
    let sent = house.mail().send_message(send("a@example.org", "")).await.unwrap().into_inner();
    let mut other = MailServiceClient::new(house.line(&stranger));
    let message_id = sent.message_ids[0].clone();
    for refused in [
        other.get_message(v1::GetMessageRequest { message_id: message_id.clone() }).await.map(drop),
        other.cancel_message(v1::CancelMessageRequest { message_id: message_id.clone() }).await.map(drop),
        other.cancel_batch(v1::CancelBatchRequest { batch_id: sent.batch_id.clone() }).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    }
    let seen = QueueServiceClient::new(house.line(&stranger)).list_queues(v1::ListQueuesRequest {}).await.unwrap();
    assert!(seen.into_inner().queues.is_empty());
    let reads = house.key_with(&house.tenant, &[KeyScope::Read]).await.api_key;
    let refused = MailServiceClient::new(house.line(&reads)).send_message(send("a@example.org", "")).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "SCOPE_MISSING"));
    // A key of the fleet acts for the tenant that it names, and for none by itself.
    let mut fleet = MailServiceClient::new(house.line(&house.admin));
    let refused = fleet.send_message(send("a@example.org", "")).await.unwrap_err();
    assert_eq!(reason(&refused), "TENANT_UNNAMED");
    let mut named = Request::new(send("a@example.org", ""));
    named.metadata_mut().insert("mailfleet-tenant", house.tenant.parse().unwrap());
    fleet.send_message(named).await.unwrap();
    let request = v1::CreateTenantRequest { name: "mine".to_owned() };
    let refused = TenantServiceClient::new(house.line(&house.key)).create_tenant(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_calls_share_commits_and_each_gets_its_own_answer() {
    let house = House::start().await;
    let calls = (0..200).map(|at| {
        let mut mail = house.mail();
        async move { mail.send_message(send(&format!("r{at}@example.org"), &format!("k{}", at % 150))).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    // Fifty keys were used twice, each time for another recipient.
    assert_eq!((accepted.len(), refused.len()), (150, 50));
    assert!(refused.into_iter().all(|answer| reason(&answer.unwrap_err()) == "IDEMPOTENCY_KEY_REUSED"));
    let waiting: i64 = house.store.queues(None).await.unwrap().iter().map(|queue| queue.waiting).sum();
    assert_eq!(waiting, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_wrong_and_revoked_keys_get_the_same_answer() {
    let house = House::start().await;
    let made = house.key_with(&house.tenant, &[KeyScope::Send]).await;
    MailServiceClient::new(house.line(&made.api_key)).send_message(send("a@example.org", "")).await.unwrap();
    let request = v1::RevokeApiKeyRequest { api_key_id: made.api_key_id };
    TenantServiceClient::new(house.line(&house.admin)).revoke_api_key(request).await.unwrap();
    let unknown = MintedKey::new(domain::ApiKeyId::new(house.store.now().await.unwrap())).unwrap().token;
    let mut answers = Vec::new();
    for key in [made.api_key.as_str(), unknown.as_str(), "", "mf_x"] {
        let refused =
            MailServiceClient::new(house.line(key)).send_message(send("a@example.org", "")).await.unwrap_err();
        answers.push((refused.code(), refused.message().to_owned(), refused.details().to_vec()));
    }
    assert_eq!(answers[0].0, Code::Unauthenticated);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pressure_is_told_with_a_delay() {
    let house = House::start_with(|config| config.server.max_calls = std::num::NonZeroUsize::MIN).await;
    let mut calls = Vec::new();
    for at in 0..20 {
        let mut mail = house.mail();
        calls.push(async move { mail.send_message(send(&format!("a{at}@example.org"), "")).await });
    }
    let answers = futures_util::future::join_all(calls).await;
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(!refused.is_empty());
    for status in refused {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
        assert!(status.get_details_retry_info().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suppressed_recipients_are_closed_and_pauses_are_told() {
    let house = House::start().await;
    let sent = house.mail().send_message(send("a@example.org", "")).await.unwrap().into_inner();
    let mut suppressions = SuppressionServiceClient::new(house.line(&house.key));
    let request = v1::AddSuppressionRequest {
        emails: vec!["A@example.org".to_owned()],
        reason: String::new(),
        ..Default::default()
    };
    let added = suppressions.add_suppression(request).await.unwrap().into_inner();
    assert_eq!((added.added, added.messages_closed), (1, 1));
    let request = v1::CheckSuppressionRequest { email: "a@example.org".to_owned() };
    assert!(suppressions.check_suppression(request).await.unwrap().into_inner().suppressed);
    let request = v1::GetMessageRequest { message_id: sent.message_ids[0].clone() };
    assert_eq!(house.mail().get_message(request).await.unwrap().into_inner().state(), MessageState::Suppressed);

    let mut queues = QueueServiceClient::new(house.line(&house.key));
    let selector = Some(v1::QueueSelector { tenant_id: Some(house.tenant.clone()), ..Default::default() });
    queues.pause_queue(v1::PauseQueueRequest { selector: selector.clone(), reason: String::new() }).await.unwrap();
    let sent = house.mail().send_message(send("b@example.org", "")).await.unwrap().into_inner();
    let request = v1::GetMessageRequest { message_id: sent.message_ids[0].clone() };
    let seen = house.mail().get_message(request).await.unwrap().into_inner();
    assert_eq!(seen.waits_for, "its queue to be resumed");
    assert!(queues.resume_queue(v1::ResumeQueueRequest { selector }).await.unwrap().into_inner().resumed);
    let slot = Some(v1::QueueSelector { slot: Some("google".to_owned()), ..Default::default() });
    let refused =
        queues.pause_queue(v1::PauseQueueRequest { selector: slot, reason: String::new() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_in_time_with_a_connection_open() {
    let house = House::start().await;
    house.mail().send_message(send("a@example.org", "")).await.unwrap();
    assert!(house.life.drain(Duration::from_secs(10)).await);
    assert!(!house.life.has_failed());
}
