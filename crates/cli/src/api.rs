//! The public gRPC API as the commands call it.

use crate::exit::Failure;
use anyhow::Context;
use proto::v1::{
    analytics_service_client::AnalyticsServiceClient, domain_service_client::DomainServiceClient,
    mail_service_client::MailServiceClient, queue_service_client::QueueServiceClient,
    suppression_service_client::SuppressionServiceClient, template_service_client::TemplateServiceClient,
    tenant_service_client::TenantServiceClient,
};
use std::time::Duration;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

/// Longest wait for the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for one answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time of a call that lasts, such as an import.
const LASTING_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// The longest pause between tries that a server may ask for.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// A connection to ingest with a key.
#[derive(Clone)]
pub struct Api {
    channel: Channel,
    lasting: Channel,
    credentials: Credentials,
}

/// The metadata that every call carries.
#[derive(Clone)]
pub struct Credentials {
    bearer: MetadataValue<Ascii>,
    tenant: Option<MetadataValue<Ascii>>,
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

type Guarded = InterceptedService<Channel, Credentials>;

impl Api {
    /// Connects. `tenant` is for keys that administer the fleet.
    pub async fn connect(endpoint: &str, key: &str, tenant: Option<&str>) -> anyhow::Result<Self> {
        let address = Endpoint::from_shared(endpoint.to_owned())
            .map_err(|_| Failure::config(format!("{endpoint} is no address; give one such as http://127.0.0.1:7070")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let lasting = address.clone().timeout(LASTING_TIMEOUT).connect_lazy();
        let channel = address
            .timeout(CALL_TIMEOUT)
            .connect()
            .await
            .with_context(|| format!("cannot reach the API at {endpoint}"))?;
        Ok(Self { channel, lasting, credentials: credentials(key, tenant)? })
    }

    /// The same connection with another key.
    pub fn with_key(&self, key: &str, tenant: Option<&str>) -> anyhow::Result<Self> {
        let Self { channel, lasting, .. } = self.clone();
        Ok(Self { channel, lasting, credentials: credentials(key, tenant)? })
    }

    fn guarded(&self) -> Guarded {
        InterceptedService::new(self.channel.clone(), self.credentials.clone())
    }

    /// Mail.
    pub fn mail(&self) -> MailServiceClient<Guarded> {
        MailServiceClient::new(self.guarded()).max_decoding_message_size(64 * 1024 * 1024)
    }

    /// Queues and pauses.
    pub fn queues(&self) -> QueueServiceClient<Guarded> {
        QueueServiceClient::new(self.guarded())
    }

    /// Templates.
    pub fn templates(&self) -> TemplateServiceClient<Guarded> {
        TemplateServiceClient::new(self.guarded()).max_decoding_message_size(64 * 1024 * 1024)
    }

    /// Tenants and keys.
    pub fn tenants(&self) -> TenantServiceClient<Guarded> {
        TenantServiceClient::new(self.guarded())
    }

    /// Sending domains.
    pub fn domains(&self) -> DomainServiceClient<Guarded> {
        DomainServiceClient::new(self.guarded())
    }

    /// Suppressions.
    pub fn suppressions(&self) -> SuppressionServiceClient<Guarded> {
        SuppressionServiceClient::new(self.guarded())
    }

    /// Suppressions, for imports and exports.
    pub fn lasting_suppressions(&self) -> SuppressionServiceClient<Guarded> {
        SuppressionServiceClient::new(InterceptedService::new(self.lasting.clone(), self.credentials.clone()))
    }

    /// Figures.
    pub fn analytics(&self) -> AnalyticsServiceClient<Guarded> {
        AnalyticsServiceClient::new(self.guarded())
    }
}

fn credentials(key: &str, tenant: Option<&str>) -> anyhow::Result<Credentials> {
    let value = |text: String, what: &str| {
        MetadataValue::try_from(text).map_err(|_| Failure::config(format!("{what} has a character that none can have")))
    };
    let mut bearer = value(format!("Bearer {}", key.trim()), "the API key")?;
    bearer.set_sensitive(true);
    let tenant = tenant.map(|tenant| value(tenant.to_owned(), "the tenant's id")).transpose()?;
    Ok(Credentials { bearer, tenant })
}

/// How long to wait before the same call is tried again; `None` when that cannot help.
pub fn retry_delay(status: &Status, attempt: u32) -> Option<Duration> {
    let worth = matches!(
        status.code(),
        tonic::Code::Unavailable | tonic::Code::ResourceExhausted | tonic::Code::DeadlineExceeded
    );
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let own = Duration::from_millis(100).saturating_mul(1 << attempt.min(8));
    worth.then(|| asked.unwrap_or(own).min(MAX_RETRY_DELAY))
}

/// A timestamp of the API as a time.
pub fn time(stamp: &prost_types::Timestamp) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp(stamp.seconds, u32::try_from(stamp.nanos).unwrap_or(0)).unwrap_or_default()
}

/// A time as a timestamp of the API.
pub fn stamp(time: chrono::DateTime<chrono::Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.timestamp(),
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0),
    }
}
