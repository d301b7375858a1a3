//! The `[feedback.inbound]` section.

use domain::Mailbox;
use serde::{Deserialize, Serialize};
use service::SecretFile;
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

/// Where mail comes in: bounces and answers to the return paths of the fleet's mails, mails that unsubscribe, and
/// reports. The MX records of the return-path domains lead here. Mail to any other address is refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InboundConfig {
    /// Where to listen. Default `[::]:2525`, for a load balancer in front of it that listens on port 25.
    pub listen: SocketAddr,
    /// What it calls itself in its greeting. Default `localhost`; the name in the MX records, please.
    pub hostname: String,
    /// Mailboxes that reports are sent to: those of feedback loops, of DMARC records (`rua`) and of TLS-RPT records.
    /// Everybody can write there. What such a mail tells about a message counts only where it bears the message's
    /// token. Default none.
    pub report_mailboxes: Vec<Mailbox>,
    /// The certificate for STARTTLS and its key. Default none: mail comes in plain.
    pub tls: Option<InboundTls>,
    /// Largest mail, in octets. Default 10 MiB. Some receivers send the whole mail back.
    pub max_octets: NonZeroUsize,
    /// Recipients of one mail. Default 20.
    pub max_recipients: NonZeroUsize,
    /// Sessions at once; further ones wait. Default 200.
    pub max_sessions: NonZeroUsize,
    /// Sessions at once of one address. Default 20.
    pub max_sessions_per_address: NonZeroUsize,
    /// Mails whose bodies come in at once; times `max_octets` is the memory that they take at most. The others are
    /// told to come again after 10 s. Default 100.
    pub max_bodies: NonZeroUsize,
    /// Addresses that are none of ours after which a session is closed. Default 10.
    pub max_strangers: NonZeroU32,
    /// How long a client may be silent. Default 5 min (RFC 5321, 4.5.3.2.7).
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// How long a session may last. Default 15 min.
    #[serde(with = "humantime_serde")]
    pub session: Duration,
    /// How long sessions may go on after a shutdown was requested. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// What is kept on disk while Postgres is away.
    pub spool: InboundSpoolConfig,
    /// Your own rules for what receivers say, which come before those that are built in: the file that
    /// `[sender] reply_rules` names. Default none.
    pub reply_rules: Option<PathBuf>,
    /// Mails read at once by one process. Default 50.
    pub batch: NonZeroU32,
    /// How long after the last look mails that others have taken in are looked for. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// How long whoever reads a mail has it for himself. Default 60 s.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// How often reading a mail is begun before it counts as dead. Default 5.
    pub tries: NonZeroU32,
    /// How long a mail is kept once it has been read; dead ones four times as long. Default 30 days.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
}

/// A certificate and its key, read at the start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboundTls {
    /// The chain, its own certificate first (PEM).
    pub certificate_file: PathBuf,
    /// Its key (PEM).
    pub key_file: SecretFile,
}

/// What is kept on this machine's disk while Postgres is away.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InboundSpoolConfig {
    /// Its directory; one process's alone, on a volume that outlives it. Default `feedback-inbound`.
    pub directory: PathBuf,
    /// Most bytes in all. Beyond, mails are told to come again. Default 4 GiB.
    pub max_bytes: u64,
    /// Between two tries to bring it to Postgres. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub replay_every: Duration,
}

impl Default for InboundConfig {
    fn default() -> Self {
        const fn some(number: usize) -> NonZeroUsize {
            NonZeroUsize::new(number).expect("not zero")
        }
        Self {
            listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 2525),
            hostname: "localhost".to_owned(),
            report_mailboxes: Vec::new(),
            tls: None,
            max_octets: some(10 * 1024 * 1024),
            max_recipients: some(20),
            max_sessions: some(200),
            max_sessions_per_address: some(20),
            max_bodies: some(100),
            max_strangers: const { NonZeroU32::new(10).expect("not zero") },
            idle: Duration::from_secs(300),
            session: Duration::from_secs(900),
            grace: Duration::from_secs(5),
            spool: InboundSpoolConfig::default(),
            reply_rules: None,
            batch: const { NonZeroU32::new(50).expect("not zero") },
            poll: Duration::from_secs(1),
            lease: Duration::from_secs(60),
            tries: const { NonZeroU32::new(5).expect("not zero") },
            keep: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl Default for InboundSpoolConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("feedback-inbound"),
            max_bytes: 4 * 1024 * 1024 * 1024,
            replay_every: Duration::from_secs(1),
        }
    }
}
