//! A private broker for a test: on a free port of the loopback interface, with its data in a directory
//! of its own, ended with the test.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::{BatchId, ContentId, EnvelopeSender, Lane, MessageId, ShardCount, SiteId, TenantId};
use mailfleet_bus::{Bus, BusConfig, Job, Letter, topology};
use std::{
    net::TcpListener,
    num::NonZeroU16,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Broker {
    child: Child,
    port: u16,
    data: PathBuf,
}

impl Broker {
    pub fn start() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let data = std::env::temp_dir().join(format!("mailfleet-bus-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&data).expect("can make a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("is bound").port();
        drop(listener);
        let child = launch(port, &data);
        Self { child, port, data }
    }

    /// Kills it without a warning and starts another at the same place.
    pub fn restart(&mut self) {
        self.kill();
        self.child = launch(self.port, &self.data);
    }

    pub fn kill(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }

    pub fn config(&self) -> BusConfig {
        BusConfig {
            url: format!("nats://127.0.0.1:{}", self.port),
            prefix: "t1".parse().expect("a prefix"),
            retry_on_initial_connect: true,
            ping_interval: Duration::from_millis(500),
            publish_timeout: Duration::from_millis(500),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(100),
            pull_expires: Duration::from_secs(2),
            pull_heartbeat: Duration::from_millis(500),
            ..BusConfig::default()
        }
    }

    pub async fn connect(&self, config: BusConfig) -> Bus {
        let bus = Bus::connect(config).await.expect("connects");
        eventually("the broker answers", async || topology::look(&bus, shards()).await.ok()).await;
        bus
    }

    /// A bus with its topology in place.
    pub async fn bus(&self) -> Bus {
        let bus = self.connect(self.config()).await;
        topology::apply(&bus, shards()).await.expect("applies");
        bus
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _gone = std::fs::remove_dir_all(&self.data);
    }
}

fn launch(port: u16, data: &PathBuf) -> Child {
    Command::new("nats-server")
        .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"])
        .arg(data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server is on the path")
}

/// Waits for a condition.
pub async fn eventually<T>(what: &str, condition: impl AsyncFn() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}

/// Fails the test when something takes for ever.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

pub fn shards() -> ShardCount {
    ShardCount(NonZeroU16::new(4).expect("not zero"))
}

pub fn job(index: u32, domain: &str) -> Job {
    let now = DateTime::<Utc>::from_timestamp(1_790_000_000, 0).expect("in range");
    let (tenant, batch, site) = (TenantId::new(now), BatchId::new(now), SiteId::of_domain(domain));
    Job {
        message: MessageId::of_batch(batch, index),
        release: 1,
        attempt: 0,
        bus_epoch: 1,
        queue: 1,
        tenant,
        campaign: None,
        batch,
        content: ContentId::of(tenant, &[b"x"]),
        recipient: format!("p{index}@{domain}").parse().expect("an address"),
        slot: site.slot(),
        site,
        lane: Lane::Bulk,
        variables: Bytes::from_static(b"{}"),
        overrides: Bytes::new(),
        expires_at: now,
        alone: false,
        trace: None,
    }
}

pub fn letter(index: u32, domain: &str, size: usize) -> Letter {
    let mime = Some(vec![b'm'; size].into());
    Letter { job: job(index, domain), sender: EnvelopeSender(None), mime, smtputf8: false, sandbox: false }
}
