//! The `[feedback.notify]` section.

use domain::Network;
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU32, path::PathBuf, time::Duration};

/// How events are posted to the endpoints of tenants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifyConfig {
    /// Whether this process does. Default true.
    pub enabled: bool,
    /// Where endpoints may be besides public addresses: `["10.0.0.0/8"]`. There, http is taken as well. An endpoint is
    /// whatever a tenant says, so name what he may reach and nothing else. Default none.
    pub allow_networks: Vec<Network>,
    /// Roots that endpoints' certificates are checked against, instead of Mozilla's (PEM). Default none.
    pub ca_file: Option<PathBuf>,
    /// Endpoints that this process posts to at once. Default 16.
    pub endpoints_at_once: NonZeroU32,
    /// Posts to one endpoint at once; those of one message go one after the other. Default 8.
    pub posts_at_once: NonZeroU32,
    /// How often is looked for something to post. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// How long a connection may take. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub connect: Duration,
    /// How long an answer may take. Default 15 s.
    #[serde(with = "humantime_serde")]
    pub answer: Duration,
    /// How long an endpoint that takes nothing is left alone, a wait for each failure in a row, the last one from then on.
    /// Default 5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 2 h, 4 h.
    #[serde(with = "spans")]
    pub waits: Vec<Duration>,
    /// How often an event that is refused while others are taken is tried before it is given up, with the same waits.
    /// Default 10.
    pub tries: NonZeroU32,
    /// How long an endpoint may fail before it is posted to no more. Default 5 days.
    #[serde(with = "humantime_serde")]
    pub disable_after: Duration,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        const fn some(number: u32) -> NonZeroU32 {
            NonZeroU32::new(number).expect("not zero")
        }
        Self {
            enabled: true,
            allow_networks: Vec::new(),
            ca_file: None,
            endpoints_at_once: some(16),
            posts_at_once: some(8),
            poll: Duration::from_secs(1),
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(15),
            waits: [5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400].map(Duration::from_secs).to_vec(),
            tries: some(10),
            disable_after: Duration::from_secs(5 * 24 * 3600),
        }
    }
}

impl NotifyConfig {
    /// The wait after so many failures in a row, a tenth of it up or down so that not all come back at once.
    pub(crate) fn wait(&self, failures: u32) -> Duration {
        let at = usize::try_from(failures).unwrap_or(usize::MAX).min(self.waits.len().saturating_sub(1));
        let wait = self.waits.get(at).copied().unwrap_or(Duration::from_secs(60));
        wait.mul_f64(0.9 + 0.2 * rand::random::<f64>())
    }
}

/// Spans of time as texts.
mod spans {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(spans: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> =
            spans.iter().map(|span| humantime_serde::re::humantime::format_duration(*span).to_string()).collect();
        texts.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let read = |text: &String| humantime_serde::re::humantime::parse_duration(text);
        texts.iter().map(read).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
    }
}
