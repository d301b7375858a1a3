//! What holds for every call there is, found in the descriptors: none reaches another tenant, and none fails for what
//! it is given.

#[path = "every_call/arbitrary.rs"]
mod arbitrary;
#[path = "every_call/isolation.rs"]
mod isolation;

use super::*;
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use proto::v1::TemplateRef;
use std::collections::BTreeMap;
use tonic::{
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Words that only the owner's things hold.
const MARK: &str = "owlmark";
/// How many answers of a stream are looked at.
const ANSWERS: usize = 3;

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

/// The owner's things.
struct Things {
    tenant: String,
    key: String,
    message: String,
    batch: String,
    campaign: String,
    dead: String,
    queue: i64,
    endpoint: String,
    tokens: BTreeMap<&'static str, String>,
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
    let request = v1::CreateEndpointRequest {
        url: format!("https://{MARK}.example/hooks"),
        ..v1::CreateEndpointRequest::default()
    };
    let mut endpoints = v1::endpoint_service_client::EndpointServiceClient::new(house.line(&house.key));
    let made = endpoints.create_endpoint(request).await.unwrap().into_inner();
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
        endpoint: made.endpoint.unwrap().endpoint_id,
        tokens,
    }
}
