//! The API as its callers use it.

use crate::{
    Fleet, Post,
    faults::{self, Patient},
};
use domain::MessageId;
use proto::v1::{
    self, KeyScope, MessageState, delivery_service_client::DeliveryServiceClient,
    domain_service_client::DomainServiceClient, endpoint_service_client::EndpointServiceClient,
    inbound_service_client::InboundServiceClient, mail_service_client::MailServiceClient,
    queue_service_client::QueueServiceClient, recipient_result::Outcome,
    suppression_service_client::SuppressionServiceClient, template_service_client::TemplateServiceClient,
    tenant_service_client::TenantServiceClient,
};
use testkit::{LIMIT, eventually, until};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_types::StatusExt;

/// What a tenant's key can be good for.
pub const ALL_SCOPES: [KeyScope; 6] = [
    KeyScope::Send,
    KeyScope::Read,
    KeyScope::Templates,
    KeyScope::Domains,
    KeyScope::Suppressions,
    KeyScope::Endpoints,
];
/// Largest request that is made here: above what the server takes.
const MAX_REQUEST: usize = 64 << 20;

/// A key, presented with every call.
#[derive(Clone)]
pub struct Bearer(String);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value: MetadataValue<_> = format!("Bearer {}", self.0).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

/// A connection on which every call presents one key.
pub type Line = InterceptedService<Patient, Bearer>;

/// A line over this connection with this key.
pub fn bearer(channel: Channel, key: &str) -> Line {
    InterceptedService::new(Patient::new(channel, faults::of_environment().is_some()), Bearer(key.to_owned()))
}

/// The reason of an error, as programs read it.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(String::new, |info| info.reason)
}

/// The fields that an error names.
pub fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

impl Fleet {
    /// A line with this key.
    pub fn line(&self, key: &str) -> Line {
        let patient = Patient::new(self.channel.clone(), self.settings.faults.is_some());
        InterceptedService::new(patient, Bearer(key.to_owned()))
    }

    /// A line without any key.
    pub fn plain(&self) -> Channel {
        self.channel.clone()
    }

    /// The mail service with the tenant's key.
    pub fn mails(&self) -> MailServiceClient<Line> {
        self.mails_with(&self.key)
    }

    /// The mail service with another key.
    pub fn mails_with(&self, key: &str) -> MailServiceClient<Line> {
        MailServiceClient::new(self.line(key))
            .max_encoding_message_size(MAX_REQUEST)
            .max_decoding_message_size(MAX_REQUEST)
    }

    /// The template service with the tenant's key.
    pub fn templates(&self) -> TemplateServiceClient<Line> {
        TemplateServiceClient::new(self.line(&self.key))
    }

    /// The suppression service with the tenant's key.
    pub fn suppressions(&self) -> SuppressionServiceClient<Line> {
        SuppressionServiceClient::new(self.line(&self.key))
    }

    /// The domain service with this key.
    pub fn domains_with(&self, key: &str) -> DomainServiceClient<Line> {
        DomainServiceClient::new(self.line(key))
    }

    /// The queue service with the tenant's key.
    pub fn queues(&self) -> QueueServiceClient<Line> {
        QueueServiceClient::new(self.line(&self.key))
    }

    /// The queue service with the key that administers the fleet.
    pub fn all_queues(&self) -> QueueServiceClient<Line> {
        QueueServiceClient::new(self.line(&self.admin))
    }

    /// The endpoint service with the tenant's key.
    pub fn endpoints(&self) -> EndpointServiceClient<Line> {
        EndpointServiceClient::new(self.line(&self.key))
    }

    /// The service for mail that came in, with the key that administers the fleet.
    pub fn inbound(&self) -> InboundServiceClient<Line> {
        InboundServiceClient::new(self.line(&self.admin)).max_decoding_message_size(MAX_REQUEST)
    }

    /// The delivery service with the key that administers the fleet.
    pub fn delivery(&self) -> DeliveryServiceClient<Line> {
        DeliveryServiceClient::new(self.line(&self.admin))
    }

    /// The tenant service with the key that administers the fleet.
    pub fn tenants(&self) -> TenantServiceClient<Line> {
        TenantServiceClient::new(self.line(&self.admin))
    }

    /// A new tenant and a key for everything it may do.
    pub async fn new_tenant(&self, name: &str) -> (String, String) {
        let request = v1::CreateTenantRequest { name: name.to_owned() };
        let tenant = self.tenants().create_tenant(request).await.unwrap().into_inner().tenant_id;
        let key = self.new_key(&tenant, &ALL_SCOPES).await.api_key;
        (tenant, key)
    }

    /// A new key of a tenant.
    pub async fn new_key(&self, tenant: &str, scopes: &[KeyScope]) -> v1::CreateApiKeyResponse {
        let request = v1::CreateApiKeyRequest {
            tenant_id: tenant.to_owned(),
            name: "test".to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
            expires_at: None,
        };
        self.tenants().create_api_key(request).await.unwrap().into_inner()
    }

    /// Sends to one recipient.
    pub async fn submit(&self, post: Post) -> MessageId {
        assert_eq!(post.recipients.len(), 1);
        self.submit_all(post).await[0]
    }

    /// Sends to up to 50 recipients, all or none.
    pub async fn submit_all(&self, post: Post) -> Vec<MessageId> {
        let sent = self.mails().send_message(post.message()).await.unwrap().into_inner();
        self.know(&sent.message_ids)
    }

    /// Sends to up to 10,000 recipients; their messages' ids, `None` for those refused.
    pub async fn submit_batch(&self, post: Post) -> (v1::SendBatchResponse, Vec<Option<MessageId>>) {
        let sent = self.mails().send_batch(post.batch()).await.unwrap().into_inner();
        let ids = sent.results.iter().map(|result| match &result.outcome {
            Some(Outcome::MessageId(id)) => Some(self.know(std::slice::from_ref(id))[0]),
            _ => None,
        });
        let ids = ids.collect();
        (sent, ids)
    }

    /// Notes what was accepted, so that [`Fleet::assert_sound`] can account for it.
    pub fn know(&self, ids: &[String]) -> Vec<MessageId> {
        let ids: Vec<MessageId> = ids.iter().map(|id| id.parse().unwrap()).collect();
        self.known.lock().unwrap().extend(&ids);
        ids
    }

    /// A message as the API shows it.
    pub async fn get(&self, id: MessageId) -> v1::GetMessageResponse {
        let request = v1::GetMessageRequest { message_id: id.to_string() };
        self.mails().get_message(request).await.unwrap().into_inner()
    }

    /// Waits until a message has come to its end, or rests after an attempt.
    pub async fn settled(&self, id: MessageId) -> v1::GetMessageResponse {
        self.seen(id, "settles", |seen| {
            is_final(seen.state()) || (seen.state() == MessageState::Queued && seen.attempts > 0)
        })
        .await
    }

    /// Waits until nothing moves and nothing is due: what was tried is recorded, and a jump of the clock takes no lease
    /// from under it.
    pub async fn at_rest(&self) {
        until("everything rests", async || {
            let queues = self.store.queues(None).await;
            queues.is_ok_and(|queues| queues.iter().all(|queue| queue.moving == 0 && queue.due == 0))
        })
        .await;
    }

    /// Waits until a message has come to its end.
    pub async fn ended(&self, id: MessageId) -> v1::GetMessageResponse {
        self.seen(id, "ends", |seen| is_final(seen.state())).await
    }

    /// Waits until what the API shows of a message is so.
    ///
    /// # Panics
    /// When it does not come to be so in time, with how it is instead.
    pub async fn seen(
        &self,
        id: MessageId,
        what: &str,
        condition: impl Fn(&v1::GetMessageResponse) -> bool,
    ) -> v1::GetMessageResponse {
        let mut last = None;
        let found = eventually(LIMIT, async || {
            let seen = self.get(id).await;
            if condition(&seen) {
                return Some(seen);
            }
            last = Some(seen);
            None
        })
        .await;
        found.unwrap_or_else(|| panic!("message {id} never {what}: {last:#?}"))
    }
}

fn is_final(state: MessageState) -> bool {
    use MessageState as S;
    matches!(state, S::Delivered | S::Bounced | S::Expired | S::Cancelled | S::Suppressed | S::Failed | S::Unknown)
}
