//! The `[feedback]` section.

use crate::{inbound::InboundConfig, notify::NotifyConfig};
use serde::{Deserialize, Serialize};
use service::{HttpConfig, SecretFile};
use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

/// Everything that feedback can be told. Durations are texts such as `500ms`, `30s`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedbackConfig {
    /// Where recipients' programs ask for links and images, and post their unsubscriptions. It speaks plain HTTP: a load
    /// balancer or proxy in front of it ends TLS for the addresses of `[fleet.tracking]`.
    pub web: HttpConfig,
    /// Whether the last address of `X-Forwarded-For` is the client's: a proxy in front of it sets it. Default false.
    pub behind_proxy: bool,
    /// Most hits of one commit. Default 500.
    pub batch: NonZeroU32,
    /// How long opens and clicks are gathered: what a scanner does at once is seen together. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How long an unsubscription waits for others before its commit. Default 5 ms.
    #[serde(with = "humantime_serde")]
    pub linger_wanted: Duration,
    /// Hits that may wait for their commit; opens and clicks beyond are not counted. Default 20,000.
    pub queue: NonZeroU32,
    /// How long a commit may take before what it held goes to the spool. Default 3 s.
    #[serde(with = "humantime_serde")]
    pub commit_within: Duration,
    /// What is kept here while Postgres is away.
    pub spool: SpoolConfig,
    /// Whose posts are taken in, by a name that ends their address: `POST /webhooks/NAME`.
    pub webhooks: BTreeMap<String, WebhookConfig>,
    /// Where mail comes in; absent: none does.
    pub inbound: Option<InboundConfig>,
    /// How SNS is reached, for webhooks of SES.
    pub sns: SnsConfig,
    /// How events are posted to the endpoints of tenants.
    pub notify: NotifyConfig,
    /// Posts that are read at once; those beyond are told to come again before they are looked at. Default 16.
    pub webhooks_at_once: NonZeroU32,
}

/// How SNS is reached: for the certificates with which it signs, and to confirm subscriptions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnsConfig {
    /// Where its hosts are reached instead of where DNS says, as through an endpoint of a VPC. Default none.
    pub connect_to: Option<SocketAddr>,
    /// Roots that its certificate is checked against, instead of Mozilla's (PEM). Default none.
    pub ca_file: Option<PathBuf>,
}

/// One webhook of a provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// `sendgrid`, `mailgun`, `ses` (through SNS), `postmark`, `sparkpost` or `resend`.
    pub provider: String,
    /// Of SES: the topics of SNS that may post, by their ARNs. Needed there.
    #[serde(default)]
    pub topics: Vec<String>,
    /// What the provider signs with, one a line, up to 8, all of them good: SendGrid's verification keys, Mailgun's
    /// signing keys, Resend's signing secrets. Postmark and SparkPost sign nothing.
    pub secrets_file: Option<SecretFile>,
    /// What must come with each post, one `USER:PASSWORD` a line (HTTP Basic). Needed for Postmark and SparkPost.
    pub credentials_file: Option<SecretFile>,
}

/// What is kept on this machine's disk while Postgres is away.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// Its directory; one process's alone, on a volume that outlives it. Default `feedback-spool`.
    pub directory: PathBuf,
    /// Size at which the next file is begun, in bytes. Default 4 MiB.
    pub segment_bytes: u64,
    /// Most bytes in all. Beyond, opens and clicks are not counted, and unsubscriptions are answered with 503.
    /// Default 1 GiB.
    pub max_bytes: u64,
    /// Between two tries to bring it to Postgres. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub replay_every: Duration,
}

impl Default for FeedbackConfig {
    fn default() -> Self {
        Self {
            web: HttpConfig { max_body: 2 * 1024 * 1024, ..HttpConfig::default() },
            behind_proxy: false,
            batch: const { NonZeroU32::new(500).expect("not zero") },
            linger: Duration::from_secs(1),
            linger_wanted: Duration::from_millis(5),
            queue: const { NonZeroU32::new(20_000).expect("not zero") },
            commit_within: Duration::from_secs(3),
            spool: SpoolConfig::default(),
            webhooks: BTreeMap::new(),
            inbound: None,
            sns: SnsConfig::default(),
            notify: NotifyConfig::default(),
            webhooks_at_once: const { NonZeroU32::new(16).expect("not zero") },
        }
    }
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("feedback-spool"),
            segment_bytes: 4 * 1024 * 1024,
            max_bytes: 1024 * 1024 * 1024,
            replay_every: Duration::from_secs(1),
        }
    }
}
