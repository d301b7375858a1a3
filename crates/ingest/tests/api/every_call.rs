//! What holds for every call there is, found in the descriptors: none reaches another tenant, and none fails for what
//! it is given.

use super::*;
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use proto::v1::{QueueSelector, SuppressionScope, TemplateRef, preview_template_request::What};
use std::collections::BTreeMap;
use tonic::{
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Words that only the owner's things hold.
const MARK: &str = "owlmark";
/// How many answers of a stream are looked at.
const ANSWERS: usize = 3;
/// What an answer must never say: that something went wrong which was not the caller's fault.
const OUR_FAULT: [Code; 5] = [Code::Unknown, Code::Internal, Code::DataLoss, Code::Cancelled, Code::Unimplemented];

/// Sends and receives octets as they are.
struct Octets;

impl Codec for Octets {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Octets {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Octets {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let left = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(left)))
    }
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).unwrap()
}

/// Every call of the API: `Service.Method`, its path and what it is given.
fn calls() -> Vec<(String, String, MessageDescriptor)> {
    let pool = pool();
    let ours = pool.services().filter(|service| service.full_name().starts_with("mailfleet.v1."));
    ours.flat_map(|service| {
        let methods: Vec<_> = service.methods().collect();
        methods.into_iter().map(move |method| {
            let name = format!("{}.{}", service.name(), method.name());
            (name, format!("/{}/{}", service.full_name(), method.name()), method.input())
        })
    })
    .collect()
}

impl House {
    /// Makes a call; its first answers, or how it failed.
    async fn call(&self, path: &str, key: Option<&str>, body: Bytes) -> Result<Vec<Bytes>, Status> {
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        client.ready().await.unwrap();
        let mut request = Request::new(tokio_stream::once(body));
        if let Some(key) = key {
            request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        }
        let path: PathAndQuery = path.parse().unwrap();
        let mut answers = client.streaming(request, path, Octets).await?.into_inner();
        let mut seen = Vec::new();
        while seen.len() < ANSWERS {
            match answers.message().await? {
                Some(answer) => seen.push(answer),
                None => break,
            }
        }
        Ok(seen)
    }
}

/// What a tenant's key gets for what is another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    /// This error.
    Error(Code),
    /// An answer in which there is nothing of the other's.
    Own,
}

/// What a call needs, what it is given when it names the owner's things, and what a stranger gets for that.
struct Row {
    scope: KeyScope,
    body: Bytes,
    gets: Gets,
}

fn row(scope: KeyScope, body: impl Message, gets: Gets) -> Row {
    Row { scope, body: body.encode_to_vec().into(), gets }
}

/// The owner's things.
struct Things {
    tenant: String,
    key: String,
    message: String,
    batch: String,
    campaign: String,
    dead: String,
    queue: i64,
    tokens: BTreeMap<&'static str, String>,
}

/// A row for each call there is.
fn rows(own: &Things) -> BTreeMap<&'static str, Row> {
    use Gets::{Error, Own};
    use KeyScope::{Admin, Domains, Read, Send, Suppressions, Templates};
    let (template, domain) = (format!("{MARK}-welcome"), format!("{MARK}.example"));
    let email = format!("2{MARK}@example.org");
    let token = |list: &str| own.tokens[list].clone();
    let mail =
        |from: &str| v1::Mail { from: Some(v1::Address { email: from.to_owned(), ..Default::default() }), ..inline() };
    let to = || vec![recipient("someone@example.net")];
    let from = format!("news@{domain}");
    let selector = || Some(QueueSelector { queue_id: Some(own.queue), ..Default::default() });
    let reference = TemplateRef { template: template.clone(), version: 1 };
    let unknown_domain = Error(Code::FailedPrecondition);
    let bad_token = Error(Code::InvalidArgument);
    let not_found = Error(Code::NotFound);
    let forbidden = Error(Code::PermissionDenied);
    BTreeMap::from([
        (
            "MailService.SendMessage",
            row(
                Send,
                v1::SendMessageRequest { mail: Some(mail(&from)), recipients: to(), ..Default::default() },
                unknown_domain,
            ),
        ),
        (
            "MailService.SendBatch",
            row(
                Send,
                v1::SendBatchRequest {
                    mail: Some(v1::Mail { content: Some(Content::Template(reference.clone())), ..inline() }),
                    recipients: to(),
                    ..Default::default()
                },
                not_found,
            ),
        ),
        (
            "MailService.StreamMessages",
            row(
                Send,
                v1::StreamMessagesRequest {
                    message: Some(v1::SendMessageRequest {
                        mail: Some(mail(&from)),
                        recipients: to(),
                        ..Default::default()
                    }),
                },
                Own,
            ),
        ),
        (
            "MailService.ListMessages",
            row(Read, v1::ListMessagesRequest { page_token: token("messages"), ..Default::default() }, bad_token),
        ),
        (
            "MailService.WatchEvents",
            row(Read, v1::WatchEventsRequest { after_seq: Some(0), ..Default::default() }, Own),
        ),
        ("MailService.GetMessage", row(Read, v1::GetMessageRequest { message_id: own.message.clone() }, not_found)),
        (
            "MailService.CancelMessage",
            row(Send, v1::CancelMessageRequest { message_id: own.message.clone() }, not_found),
        ),
        ("MailService.CancelBatch", row(Send, v1::CancelBatchRequest { batch_id: own.batch.clone() }, not_found)),
        ("TemplateService.CreateTemplate", row(Templates, v1::CreateTemplateRequest { name: template.clone() }, Own)),
        (
            "TemplateService.PublishTemplateVersion",
            row(
                Templates,
                v1::PublishTemplateVersionRequest {
                    template: format!("{MARK}-other"),
                    subject: "S".to_owned(),
                    text: "T".to_owned(),
                    ..Default::default()
                },
                not_found,
            ),
        ),
        (
            "TemplateService.ListTemplates",
            row(
                Templates,
                v1::ListTemplatesRequest { page_token: token("templates"), ..Default::default() },
                bad_token,
            ),
        ),
        (
            "TemplateService.GetTemplate",
            row(Templates, v1::GetTemplateRequest { name: format!("{MARK}-other") }, not_found),
        ),
        (
            "TemplateService.GetTemplateVersion",
            row(Templates, v1::GetTemplateVersionRequest { template: format!("{MARK}-other"), version: 1 }, not_found),
        ),
        (
            "TemplateService.DiffTemplateVersions",
            row(
                Templates,
                v1::DiffTemplateVersionsRequest {
                    template: format!("{MARK}-other"),
                    from_version: 1,
                    to_version: 1,
                    ..Default::default()
                },
                not_found,
            ),
        ),
        (
            "TemplateService.PreviewTemplate",
            row(
                Templates,
                v1::PreviewTemplateRequest {
                    what: Some(What::Template(TemplateRef { template: format!("{MARK}-other"), version: 1 })),
                    ..Default::default()
                },
                not_found,
            ),
        ),
        (
            "DomainService.CreateDomain",
            row(Domains, v1::CreateDomainRequest { domain: domain.clone(), ..Default::default() }, Own),
        ),
        (
            "DomainService.GetDomain",
            row(Domains, v1::GetDomainRequest { domain: format!("other.{domain}") }, not_found),
        ),
        (
            "DomainService.ListDomains",
            row(Domains, v1::ListDomainsRequest { page_token: token("domains"), ..Default::default() }, bad_token),
        ),
        (
            "DomainService.RotateDomainKeys",
            row(Domains, v1::RotateDomainKeysRequest { domain: format!("other.{domain}") }, not_found),
        ),
        (
            "DomainService.ActivateDomainKeys",
            row(
                Domains,
                v1::ActivateDomainKeysRequest { domain: format!("other.{domain}"), selectors: vec!["x".to_owned()] },
                not_found,
            ),
        ),
        (
            "SuppressionService.AddSuppression",
            row(
                Suppressions,
                v1::AddSuppressionRequest { emails: vec!["mine@example.org".to_owned()], ..Default::default() },
                Own,
            ),
        ),
        (
            "SuppressionService.RemoveSuppression",
            row(Suppressions, v1::RemoveSuppressionRequest { email: email.clone() }, Own),
        ),
        ("SuppressionService.CheckSuppression", row(Suppressions, v1::CheckSuppressionRequest { email }, Own)),
        (
            "SuppressionService.ListSuppressions",
            row(
                Suppressions,
                v1::ListSuppressionsRequest { page_token: token("suppressions"), ..Default::default() },
                bad_token,
            ),
        ),
        (
            "SuppressionService.ImportSuppressions",
            row(
                Suppressions,
                v1::ImportSuppressionsRequest {
                    entries: vec![v1::ImportedSuppression {
                        email: "mine2@example.org".to_owned(),
                        scope: SuppressionScope::All.into(),
                        ..Default::default()
                    }],
                },
                Own,
            ),
        ),
        ("SuppressionService.ExportSuppressions", row(Suppressions, v1::ExportSuppressionsRequest::default(), Own)),
        (
            "QueueService.PauseQueue",
            row(Send, v1::PauseQueueRequest { selector: selector(), reason: "mine".to_owned() }, Own),
        ),
        ("QueueService.ResumeQueue", row(Send, v1::ResumeQueueRequest { selector: selector() }, Own)),
        ("QueueService.ListQueues", row(Read, v1::ListQueuesRequest::default(), Own)),
        (
            "QueueService.ListDeadLetters",
            row(Read, v1::ListDeadLettersRequest { campaign_id: own.campaign.clone(), ..Default::default() }, Own),
        ),
        (
            "QueueService.RequeueDeadLetters",
            row(Send, v1::RequeueDeadLettersRequest { message_ids: vec![own.dead.clone()] }, Own),
        ),
        (
            "AnalyticsService.QueryMetrics",
            row(
                Read,
                administration::figures(&[
                    v1::MetricDimension::Campaign,
                    v1::MetricDimension::Template,
                    v1::MetricDimension::Tenant,
                ]),
                Own,
            ),
        ),
        ("TenantService.CreateTenant", row(Admin, v1::CreateTenantRequest { name: "mine".to_owned() }, forbidden)),
        ("TenantService.ListTenants", row(Admin, v1::ListTenantsRequest::default(), forbidden)),
        ("TenantService.GetTenant", row(Admin, v1::GetTenantRequest { tenant: own.tenant.clone() }, forbidden)),
        (
            "TenantService.UpdateTenant",
            row(
                Admin,
                v1::UpdateTenantRequest { tenant_id: own.tenant.clone(), name: "mine".to_owned(), quotas: None },
                forbidden,
            ),
        ),
        (
            "TenantService.CreateApiKey",
            row(
                Admin,
                v1::CreateApiKeyRequest {
                    tenant_id: own.tenant.clone(),
                    name: "mine".to_owned(),
                    scopes: vec![Read.into()],
                    expires_at: None,
                },
                forbidden,
            ),
        ),
        ("TenantService.RevokeApiKey", row(Admin, v1::RevokeApiKeyRequest { api_key_id: own.key.clone() }, forbidden)),
        ("TenantService.ListApiKeys", row(Admin, v1::ListApiKeysRequest { tenant_id: own.tenant.clone() }, forbidden)),
        (
            "TenantService.RotateApiKey",
            row(Admin, v1::RotateApiKeyRequest { api_key_id: own.key.clone(), grace: None }, forbidden),
        ),
        (
            "TenantService.ListAuditEvents",
            row(Admin, v1::ListAuditEventsRequest { tenant_id: own.tenant.clone(), ..Default::default() }, forbidden),
        ),
    ])
}

/// Gives the house's tenant one of everything, each with the mark in it.
async fn furnish(house: &House) -> Things {
    let mut templates = TemplateServiceClient::new(house.line(&house.key));
    for name in ["welcome", "other"] {
        let template = format!("{MARK}-{name}");
        templates.create_template(v1::CreateTemplateRequest { name: template.clone() }).await.unwrap();
        let source = v1::PublishTemplateVersionRequest {
            template,
            subject: format!("{MARK} hello"),
            text: format!("{MARK} text"),
            ..Default::default()
        };
        templates.publish_template_version(source).await.unwrap();
    }
    let mut domains = house.domains(&house.key);
    for domain in [format!("{MARK}.example"), format!("other.{MARK}.example")] {
        domains.create_domain(v1::CreateDomainRequest { domain, ..Default::default() }).await.unwrap();
    }
    let mut suppressions = SuppressionServiceClient::new(house.line(&house.key));
    let emails = (0..3).map(|n| format!("{n}{MARK}@example.org")).collect();
    let add = v1::AddSuppressionRequest { emails, reason: format!("{MARK} asked"), ..Default::default() };
    suppressions.add_suppression(add).await.unwrap();
    let campaign = "01900000-0000-7000-8000-000000000001".to_owned();
    let mail = v1::Mail {
        campaign_id: campaign.clone(),
        tags: vec![MARK.to_owned()],
        metadata: BTreeMap::from([("k".to_owned(), MARK.to_owned())]),
        content: Some(Content::Template(TemplateRef { template: format!("{MARK}-welcome"), version: 1 })),
        ..inline()
    };
    let bulk = v1::SendBatchRequest {
        mail: Some(mail),
        recipients: (0..3).map(|n| recipient(&format!("{MARK}.{n}@example.net"))).collect(),
        idempotency_key: format!("{MARK}-key"),
    };
    let sent = house.mail().send_batch(bulk).await.unwrap().into_inner();
    let Some(Outcome::MessageId(message)) = sent.results[0].outcome.clone() else { panic!("{sent:?}") };
    house.mail().send_message(send(&format!("{MARK}.one@example.net"), "")).await.unwrap();
    let dead = house.dead_letter(&format!("{MARK}.dead@example.net")).await;
    let queues = house.queues(&house.key).list_queues(v1::ListQueuesRequest::default()).await.unwrap().into_inner();
    let one = |page: &str| assert!(!page.is_empty(), "there is a second page");
    let messages = v1::ListMessagesRequest { page_size: 1, ..Default::default() };
    let messages = house.mail().list_messages(messages).await.unwrap().into_inner().next_page_token;
    let list = v1::ListTemplatesRequest { page_size: 1, ..Default::default() };
    let listed = templates.list_templates(list).await.unwrap().into_inner().next_page_token;
    let list = v1::ListDomainsRequest { page_size: 1, ..Default::default() };
    let named = domains.list_domains(list).await.unwrap().into_inner().next_page_token;
    let list = v1::ListSuppressionsRequest { page_size: 1, ..Default::default() };
    let silent = suppressions.list_suppressions(list).await.unwrap().into_inner().next_page_token;
    let tokens =
        BTreeMap::from([("messages", messages), ("templates", listed), ("domains", named), ("suppressions", silent)]);
    tokens.values().for_each(|token| one(token));
    Things {
        tenant: house.tenant.clone(),
        key: house.key_with(&house.tenant, &ALL_SCOPES).await.api_key_id,
        message,
        batch: sent.batch_id,
        campaign,
        dead,
        queue: queues.queues[0].queue_id,
        tokens,
    }
}

/// What the owner sees of his own, as octets.
async fn view(house: &House, own: &Things) -> Vec<(&'static str, Vec<Bytes>)> {
    let asked: [(&str, Vec<u8>); 9] = [
        ("MailService/GetMessage", v1::GetMessageRequest { message_id: own.message.clone() }.encode_to_vec()),
        ("MailService/ListMessages", v1::ListMessagesRequest::default().encode_to_vec()),
        ("TemplateService/ListTemplates", v1::ListTemplatesRequest::default().encode_to_vec()),
        ("TemplateService/GetTemplate", v1::GetTemplateRequest { name: format!("{MARK}-welcome") }.encode_to_vec()),
        ("DomainService/ListDomains", v1::ListDomainsRequest::default().encode_to_vec()),
        ("SuppressionService/ListSuppressions", v1::ListSuppressionsRequest::default().encode_to_vec()),
        ("QueueService/ListQueues", v1::ListQueuesRequest::default().encode_to_vec()),
        ("QueueService/ListDeadLetters", v1::ListDeadLettersRequest::default().encode_to_vec()),
        ("AnalyticsService/QueryMetrics", administration::figures(&[]).encode_to_vec()),
    ];
    let mut view = Vec::new();
    for (name, body) in asked {
        let answers = house.call(&format!("/mailfleet.v1.{name}"), Some(&house.key), body.into()).await.unwrap();
        view.push((name, answers));
    }
    view
}

fn holds_mark(octets: &[u8]) -> bool {
    octets.windows(MARK.len()).any(|window| window.eq_ignore_ascii_case(MARK.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_reaches_another_tenant_or_does_without_its_scope() {
    let house = House::start_with(|config| config.watch.heartbeat = Duration::from_millis(50)).await;
    let own = furnish(&house).await;
    let rows = rows(&own);
    let calls = calls();
    let known: Vec<&str> = calls.iter().map(|(name, ..)| name.as_str()).collect();
    let missing: Vec<_> = known.iter().filter(|name| !rows.contains_key(**name)).collect();
    let gone: Vec<_> = rows.keys().filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty() && gone.is_empty(), "give a row to {missing:?}, take those of {gone:?} away");
    let before = view(&house, &own).await;
    let (stranger_id, stranger) = house.tenant_with_key("stranger").await;
    let domain = v1::CreateDomainRequest { domain: "example.com".to_owned(), ..Default::default() };
    house.domains(&stranger).create_domain(domain).await.unwrap();
    let ended = house.key_with(&stranger_id, &ALL_SCOPES).await;
    let revoke = v1::RevokeApiKeyRequest { api_key_id: ended.api_key_id };
    house.tenants().revoke_api_key(revoke).await.unwrap();
    testkit::until("the key has ended", async || {
        house.queues(&ended.api_key).list_queues(v1::ListQueuesRequest::default()).await.is_err()
    })
    .await;
    for (name, path, _) in &calls {
        let Row { scope, body, gets } = &rows[name.as_str()];
        for key in [None, Some("mf_nonsense"), Some(ended.api_key.as_str())] {
            let refused = house.call(path, key, body.clone()).await.map(drop).unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{name} with {key:?}");
        }
        let others: Vec<KeyScope> = ALL_SCOPES.into_iter().filter(|one| one != scope).collect();
        let narrow = house.key_with(&stranger_id, &others).await.api_key;
        let refused = house.call(path, Some(&narrow), body.clone()).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{name} without {scope:?}");
        let answered = house.call(path, Some(&stranger), body.clone()).await;
        let told = match (&answered, gets) {
            (Ok(answers), Gets::Own) => answers.iter().any(|answer| holds_mark_of_another(answer, body)),
            (Err(status), Gets::Error(code)) => {
                assert_eq!(status.code(), *code, "{name}: {status:?}");
                holds_mark_of_another(status.message().as_bytes(), body)
            }
            _ => panic!("{name} is to get {gets:?}: {answered:?}"),
        };
        assert!(!told, "{name} tells of another tenant: {answered:?}");
    }
    assert_eq!(view(&house, &own).await, before, "what is the owner's has changed");
    assert!(house.store.audit().await.unwrap().is_clean());
}

/// What the caller said himself may come back to him.
fn holds_mark_of_another(answer: &[u8], body: &[u8]) -> bool {
    holds_mark(answer) && !holds_mark(body)
}

/// A sequence of numbers that a seed determines (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).unwrap()
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    fn text(&mut self, words: &[String]) -> String {
        match self.below(12) {
            0 => String::new(),
            1 => "a\0b\u{1}\u{7f}".to_owned(),
            2 => "é\u{202e}😀\u{feff}ß\u{10ffff}".to_owned(),
            3 => "x".repeat(1 << self.below(14)),
            4 => "{{ a|b('%s') }} {% for x in y %} ' -- ; \\ \" <mj-text>".to_owned(),
            5 => "[".repeat(200),
            6 => r#"{"a":{"b":[1e400,-0,null,"\u0000"]}}"#.to_owned(),
            _ => self.of(words).clone(),
        }
    }

    fn value(&mut self, field: &FieldDescriptor, words: &[String], depth: usize) -> Value {
        match field.kind() {
            Kind::Bool => Value::Bool(self.below(2) == 1),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                Value::I32(*self.of(&[0, 1, -1, 999_999_999, i32::MAX, i32::MIN]))
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                Value::I64(*self.of(&[0, 1, -1, 1_700_000_000, 253_402_300_799, 253_402_300_800, i64::MAX, i64::MIN]))
            }
            Kind::Uint32 | Kind::Fixed32 => Value::U32(*self.of(&[0, 1, 2, 500, 501, u32::MAX])),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(*self.of(&[0, 1, 2, i64::MAX as u64, u64::MAX])),
            Kind::Float => Value::F32(*self.of(&[0.0, f32::NAN, f32::INFINITY])),
            Kind::Double => Value::F64(*self.of(&[0.0, f64::NAN, f64::INFINITY])),
            Kind::String => Value::String(self.text(words)),
            Kind::Bytes => Value::Bytes(self.text(words).into_bytes().into()),
            Kind::Enum(_) => Value::EnumNumber(*self.of(&[0, 1, 2, 3, 99, -1])),
            Kind::Message(message) => Value::Message(self.message(&message, words, depth + 1)),
        }
    }

    fn message(&mut self, descriptor: &MessageDescriptor, words: &[String], depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            if depth > 6 || self.below(4) == 0 {
                continue;
            }
            let value = if field.is_map() {
                let entries = (0..self.below(4)).map(|_| {
                    let Kind::Message(entry) = field.kind() else { unreachable!("an entry is a message") };
                    let value = entry.map_entry_value_field();
                    (MapKey::String(self.text(words)), self.value(&value, words, depth))
                });
                Value::Map(entries.collect())
            } else if field.cardinality() == Cardinality::Repeated {
                Value::List((0..self.below(4)).map(|_| self.value(&field, words, depth)).collect())
            } else {
                self.value(&field, words, depth)
            };
            message.set_field(&field, value);
        }
        message
    }
}

/// Ids, names and tokens that lead somewhere, so that not every call ends at its first look.
fn words(own: &Things) -> Vec<String> {
    let mut words: Vec<String> = [
        "a@example.org",
        "news@example.com",
        "example.com",
        "Hello {{ name }}",
        "<p>Hello</p>",
        "<mjml><mj-body/></mjml>",
        r#"{"name":"you"}"#,
        "de-CH",
        "delivered",
        "google",
        "text/plain",
        "a.txt",
        "X-Custom",
        "h0",
        "ada",
    ]
    .map(str::to_owned)
    .into();
    let Things { tenant, key, message, batch, campaign, dead, tokens, .. } = own;
    words.extend([tenant, key, message, batch, campaign, dead].map(Clone::clone));
    words.extend(tokens.values().cloned());
    words.push(format!("{MARK}-welcome"));
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_a_good_answer_to_whatever_it_is_given() {
    let setting = |name: &str, default: u64| {
        service::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let (cases, seed) = (setting("MAILFLEET_API_CASES", 25), setting("MAILFLEET_API_SEED", 1));
    let house = House::start_with(|config| config.watch.heartbeat = Duration::from_millis(5)).await;
    let own = furnish(&house).await;
    let words = words(&own);
    let mut dice = Dice(seed);
    let mut answered = 0;
    for (name, path, input) in calls() {
        for _ in 0..cases {
            let message = dice.message(&input, &words, 0);
            let key = if name.starts_with("Tenant") { &house.admin } else { &house.key };
            let body = message.encode_to_vec().into();
            match house.call(&path, Some(key), body).await {
                Ok(_) => answered += 1,
                Err(status) => {
                    let told = reason(&status);
                    let good = !OUR_FAULT.contains(&status.code()) && !told.is_empty() && told != "INTERNAL";
                    assert!(good, "{name}, seed {seed}: {status:?} to {message:?}");
                }
            }
        }
    }
    assert!(answered > 0);
    house.mail().send_message(send("a@example.org", "")).await.expect("it goes on");
    assert!(house.store.audit().await.unwrap().is_clean());
}
