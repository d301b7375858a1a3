//! A connection to the API with a key.

use crate::{BuildError, Error, Retry};
use proto::v1::{
    SendBatchRequest, SendBatchResponse, SendMessageRequest, SendMessageResponse,
    analytics_service_client::AnalyticsServiceClient, delivery_service_client::DeliveryServiceClient,
    domain_service_client::DomainServiceClient, endpoint_service_client::EndpointServiceClient,
    inbound_service_client::InboundServiceClient, mail_service_client::MailServiceClient,
    queue_service_client::QueueServiceClient, suppression_service_client::SuppressionServiceClient,
    template_service_client::TemplateServiceClient, tenant_service_client::TenantServiceClient,
};
use std::{fmt, time::Duration};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

/// The largest answer and request that is taken: the server's own default.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// Longest time of a call that lasts, such as an import.
const LASTING: Duration = Duration::from_secs(24 * 3600);

/// A connection to the API with a key. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    lasting: Channel,
    credentials: Credentials,
    retry: Retry,
}

/// What a client is made from.
#[derive(Clone)]
pub struct Builder {
    endpoint: String,
    key: String,
    tenant: Option<String>,
    connect_timeout: Duration,
    call_timeout: Duration,
    retry: Retry,
}

/// The metadata that every call carries.
#[derive(Clone)]
pub struct Credentials {
    bearer: MetadataValue<Ascii>,
    tenant: Option<MetadataValue<Ascii>>,
}

/// A connection on which every call presents the key.
pub type Guarded = InterceptedService<Channel, Credentials>;

// Neither shows the key.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("retry", &self.retry).finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.bearer.clone());
        if let Some(tenant) = &self.tenant {
            request.metadata_mut().insert("mailfleet-tenant", tenant.clone());
        }
        Ok(request)
    }
}

impl Credentials {
    fn new(key: &str, tenant: Option<&str>) -> Result<Self, BuildError> {
        let word = |text: String, what| MetadataValue::try_from(text).map_err(|_| BuildError::Word(what));
        let mut bearer = word(format!("Bearer {}", key.trim()), "the API key")?;
        bearer.set_sensitive(true);
        let tenant = tenant.map(|tenant| word(tenant.to_owned(), "the tenant's id")).transpose()?;
        Ok(Self { bearer, tenant })
    }
}

impl Builder {
    /// The API key. White space around it is taken off, as a file may have it.
    pub fn key(mut self, key: &str) -> Self {
        key.trim().clone_into(&mut self.key);
        self
    }

    /// The id of the tenant that is acted for; only for keys that administer the fleet.
    pub fn tenant(mut self, id: &str) -> Self {
        self.tenant = Some(id.to_owned());
        self
    }

    /// Longest wait for the connection. Default 5 s.
    pub const fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Longest wait for one answer. Default 60 s.
    pub const fn call_timeout(mut self, limit: Duration) -> Self {
        self.call_timeout = limit;
        self
    }

    /// How calls that send are made again.
    pub const fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Connects now.
    ///
    /// # Errors
    /// When the endpoint or the key cannot be, or nobody answers.
    pub async fn connect(self) -> Result<Client, BuildError> {
        let channel = self.address()?.timeout(self.call_timeout).connect().await;
        let channel = channel.map_err(|source| BuildError::Connect { endpoint: self.endpoint.clone(), source })?;
        self.client(channel)
    }

    /// Connects with the first call, and again whenever the connection is lost.
    ///
    /// # Errors
    /// When the endpoint or the key cannot be.
    pub fn connect_lazy(self) -> Result<Client, BuildError> {
        let channel = self.address()?.timeout(self.call_timeout).connect_lazy();
        self.client(channel)
    }

    fn address(&self) -> Result<Endpoint, BuildError> {
        let address = Endpoint::from_shared(self.endpoint.clone());
        let address = address.map_err(|_| BuildError::Endpoint(self.endpoint.clone()))?;
        Ok(address.connect_timeout(self.connect_timeout).tcp_nodelay(true))
    }

    fn client(self, channel: Channel) -> Result<Client, BuildError> {
        let lasting = self.address()?.timeout(LASTING).connect_lazy();
        let credentials = Credentials::new(&self.key, self.tenant.as_deref())?;
        Ok(Client { channel, lasting, credentials, retry: self.retry })
    }
}

impl Client {
    /// A client of the API at this address.
    pub fn builder(endpoint: impl Into<String>) -> Builder {
        Builder {
            endpoint: endpoint.into(),
            key: String::new(),
            tenant: None,
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(60),
            retry: Retry::default(),
        }
    }

    /// The same connection with another key.
    ///
    /// # Errors
    /// When the key cannot be.
    pub fn with_key(&self, key: &str, tenant: Option<&str>) -> Result<Self, BuildError> {
        Ok(Self { credentials: Credentials::new(key, tenant)?, ..self.clone() })
    }

    /// Sends to up to 50 recipients, all or none, and repeats the call while that can help.
    ///
    /// # Errors
    /// When it is refused, or repeats do not help in time.
    pub async fn send(&self, mut request: SendMessageRequest) -> Result<SendMessageResponse, Error> {
        let key = keyed(&mut request.idempotency_key);
        self.repeated(&key, request, |mut mail, request| async move { mail.send_message(request).await }).await
    }

    /// Sends to up to 10,000 recipients, those that are good, and repeats the call while that can help.
    ///
    /// # Errors
    /// When it is refused as a whole, or repeats do not help in time.
    pub async fn send_batch(&self, mut request: SendBatchRequest) -> Result<SendBatchResponse, Error> {
        let key = keyed(&mut request.idempotency_key);
        self.repeated(&key, request, |mut mail, request| async move { mail.send_batch(request).await }).await
    }

    async fn repeated<Q: Clone, A, F: Future<Output = Result<Response<A>, Status>>>(
        &self,
        key: &str,
        request: Q,
        call: impl Fn(MailServiceClient<Guarded>, Q) -> F,
    ) -> Result<A, Error> {
        Ok(self.retry.run(key, || call(self.mail(), request.clone())).await?.into_inner())
    }

    fn guarded(&self) -> Guarded {
        InterceptedService::new(self.channel.clone(), self.credentials.clone())
    }

    /// `MailService`.
    pub fn mail(&self) -> MailServiceClient<Guarded> {
        MailServiceClient::new(self.guarded())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// `DeliveryService`.
    pub fn delivery(&self) -> DeliveryServiceClient<Guarded> {
        DeliveryServiceClient::new(self.guarded())
    }

    /// `EndpointService`.
    pub fn endpoints(&self) -> EndpointServiceClient<Guarded> {
        EndpointServiceClient::new(self.guarded())
    }

    /// `InboundService`.
    pub fn inbound(&self) -> InboundServiceClient<Guarded> {
        InboundServiceClient::new(self.guarded()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// `QueueService`.
    pub fn queues(&self) -> QueueServiceClient<Guarded> {
        QueueServiceClient::new(self.guarded())
    }

    /// `TemplateService`.
    pub fn templates(&self) -> TemplateServiceClient<Guarded> {
        TemplateServiceClient::new(self.guarded()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// `TenantService`.
    pub fn tenants(&self) -> TenantServiceClient<Guarded> {
        TenantServiceClient::new(self.guarded())
    }

    /// `DomainService`.
    pub fn domains(&self) -> DomainServiceClient<Guarded> {
        DomainServiceClient::new(self.guarded())
    }

    /// `SuppressionService`.
    pub fn suppressions(&self) -> SuppressionServiceClient<Guarded> {
        SuppressionServiceClient::new(self.guarded())
    }

    /// `SuppressionService`, for imports and exports, which last.
    pub fn lasting_suppressions(&self) -> SuppressionServiceClient<Guarded> {
        SuppressionServiceClient::new(InterceptedService::new(self.lasting.clone(), self.credentials.clone()))
    }

    /// `AnalyticsService`.
    pub fn analytics(&self) -> AnalyticsServiceClient<Guarded> {
        AnalyticsServiceClient::new(self.guarded())
    }
}

/// Gives a call a key unless it has one; returns it.
fn keyed(key: &mut String) -> String {
    if key.is_empty() {
        *key = Uuid::now_v7().to_string();
    }
    key.clone()
}
