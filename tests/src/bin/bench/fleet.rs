//! The fleet under test: `mailfleet up`, every service a process of its own, aimed at the benchmark's sink.

mod house;

use crate::{
    backends,
    load::{self, Handed},
    mail::{Letter, Plan, variables},
    report::note,
    scenarios::Subject,
    usage::Group,
};
use anyhow::{Context, bail};
use house::{TEMPLATE, command, furnish, nats, settings, store, tenant};
use mailfleet_tests::{Line, bearer};
use proto::v1::{
    Address, Lane, Mail, PauseQueueRequest, QueueSelector, Recipient, ResumeQueueRequest, SendBatchRequest,
    SendMessageRequest, TemplateRef, mail::Content, mail_service_client::MailServiceClient,
    queue_service_client::QueueServiceClient,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};
use store::Store;
use testkit::{LIMIT, eventually};
use tonic::transport::Channel;

/// How often is asked whether everything has its final event.
const POLL: Duration = Duration::from_millis(20);
/// Longest time between the last copy and the last final event.
const SETTLE_LIMIT: Duration = Duration::from_secs(300);
/// Largest answer: it names every refused recipient.
const MAX_ANSWER: usize = 64 << 20;

/// How a fleet differs from the usual one.
#[derive(Clone, Debug)]
pub struct Options {
    /// Author's domain.
    pub from: &'static str,
    /// Recipients in one call.
    pub batch: usize,
    /// Calls under way at a time.
    pub calls: usize,
    /// Most connections to one site; `None`: what ships.
    pub max_connections: Option<usize>,
}

/// A fleet that runs.
pub struct Fleet {
    folder: PathBuf,
    mailfleet: PathBuf,
    options: Options,
    sink_port: u16,
    state: Value,
    mails: MailServiceClient<Line>,
    queues: QueueServiceClient<Line>,
    /// The database, to see how far the log is.
    pub store: Store,
    database: String,
    tenant: String,
    /// Where the log's head will be when everything handed in so far has its final event.
    target: AtomicI64,
    more: Vec<(String, Child)>,
    is_stopped: bool,
}

impl Fleet {
    /// Starts one in a folder of its own.
    pub async fn start(
        mailfleet: &Path,
        folder: &Path,
        sink_port: u16,
        letter: &Letter,
        options: Options,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        command(mailfleet, folder, sink_port, &options, &["up", "--detach"])?;
        match Self::move_in(mailfleet, folder, sink_port, letter, options.clone()).await {
            Ok(fleet) => Ok(fleet),
            Err(error) => {
                command(mailfleet, folder, sink_port, &options, &["down", "--quiet"])?;
                Err(error)
            }
        }
    }

    async fn move_in(
        mailfleet: &Path,
        folder: &Path,
        sink_port: u16,
        letter: &Letter,
        options: Options,
    ) -> anyhow::Result<Self> {
        let state: Value = serde_json::from_slice(&fs::read(folder.join("state.json"))?)?;
        let text = |name: &str| state[name].as_str().with_context(|| format!("the fleet's state has no {name}"));
        let channel = Channel::from_shared(text("endpoint")?.to_owned())?.connect().await?;
        let admin = bearer(channel.clone(), fs::read_to_string(text("admin_key_file")?)?.trim());
        let (tenant, key) = tenant(admin).await?;
        let line = bearer(channel, &key);
        furnish(&line, letter).await?;
        let (store, database) = store(folder).await?;
        Ok(Self {
            folder: folder.to_owned(),
            mailfleet: mailfleet.to_owned(),
            mails: MailServiceClient::new(line.clone()).max_decoding_message_size(MAX_ANSWER),
            queues: QueueServiceClient::new(line),
            target: store.log_head().await?.seq.into(),
            more: Vec::new(),
            is_stopped: false,
            options,
            sink_port,
            state,
            store,
            database,
            tenant,
        })
    }

    /// Starts one more sender, and waits until every sender has its share of the shards.
    pub async fn one_more_sender(&mut self) -> anyhow::Result<()> {
        let name = format!("sender-{}", self.more.len() + 2);
        let journal = self.folder.join(&name);
        fs::create_dir_all(&journal)?;
        let log = fs::File::create(self.folder.join("logs").join(format!("{name}.log")))?;
        let child = settings(&mut Command::new(&self.mailfleet), self.sink_port, &self.options)
            .args(["run", "sender", "--config"])
            .arg(self.folder.join("mailfleet.toml"))
            .env("MAILFLEET_SENDER__NAME", &name)
            .env("MAILFLEET_SENDER__JOURNAL__DIRECTORY", &journal)
            .env("MAILFLEET_HTTP__LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.more.push((name, child));
        let senders = self.more.len() + 1;
        let shared = eventually(LIMIT, async || {
            let leases = self.store.leases().await.ok()?;
            let shards = leases.iter().filter(|lease| lease.live && lease.name.starts_with("shard"));
            let mut owners: Vec<&str> = shards.map(|lease| lease.owner.as_str()).collect();
            let all = owners.len();
            owners.sort_unstable();
            let each = owners.chunk_by(|one, other| one == other).map(<[&str]>::len);
            (each.clone().count() == senders && each.min() >= Some(all / senders)).then_some(())
        });
        shared.await.context("the senders do not share the shards")
    }

    /// Holds everything of the tenant back, or lets it go.
    pub async fn hold(&self, held: bool) -> anyhow::Result<()> {
        let selector = Some(QueueSelector { tenant_id: Some(self.tenant.clone()), ..QueueSelector::default() });
        let mut queues = self.queues.clone();
        if held {
            queues.pause_queue(PauseQueueRequest { selector, reason: "benchmark".to_owned() }).await?;
        } else {
            queues.resume_queue(ResumeQueueRequest { selector }).await?;
        }
        Ok(())
    }

    /// The mail service.
    pub fn mails(&self) -> MailServiceClient<Line> {
        self.mails.clone()
    }

    /// One urgent mail for one recipient.
    pub fn urgent(&self, plan: &Plan, index: usize) -> SendMessageRequest {
        self.target.fetch_add(2, Ordering::Relaxed);
        SendMessageRequest {
            mail: Some(self.mail(Lane::Transactional)),
            recipients: vec![recipient(plan, index)],
            idempotency_key: String::new(),
        }
    }

    /// Waits until the log holds this many entries fewer than everything handed in will make.
    pub async fn logged(&self, short_of: i64) -> anyhow::Result<()> {
        let begun = Instant::now();
        let target = self.target.load(Ordering::Relaxed) - short_of;
        loop {
            let seq = self.store.log_head().await?.seq;
            if seq >= target {
                return Ok(());
            }
            if begun.elapsed() > SETTLE_LIMIT {
                bail!("{} events are missing after {SETTLE_LIMIT:?}", target - seq);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends everything and removes its data.
    pub async fn stop(mut self, keep: bool) -> anyhow::Result<()> {
        self.store.close().await;
        self.end_processes()?;
        if !keep {
            testkit::PostgresServer::remove(&self.folder.join("postgres")).await?;
            fs::remove_dir_all(&self.folder)?;
        }
        Ok(())
    }

    fn end_processes(&mut self) -> anyhow::Result<()> {
        self.is_stopped = true;
        for (_, child) in &mut self.more {
            // Asked to end in order, as `down` asks the others.
            Command::new("kill").arg(child.id().to_string()).status()?;
            child.wait()?;
        }
        command(&self.mailfleet, &self.folder, self.sink_port, &self.options, &["down", "--quiet"])
    }

    fn mail(&self, lane: Lane) -> Mail {
        Mail {
            from: Some(Address { email: format!("shop@{}", self.options.from), name: "Bench".to_owned() }),
            content: Some(Content::Template(TemplateRef { template: TEMPLATE.to_owned(), version: 0 })),
            lane: lane.into(),
            ..Mail::default()
        }
    }
}

/// A measurement that was broken off leaves no process behind.
impl Drop for Fleet {
    fn drop(&mut self) {
        if !self.is_stopped
            && let Err(error) = self.end_processes()
        {
            note(&format!("cannot stop the fleet in {}: {error:#}", self.folder.display()));
        }
    }
}

impl Subject for Fleet {
    type Load = Vec<SendBatchRequest>;

    fn groups(&self) -> anyhow::Result<Vec<Group>> {
        let pid = |value: &Value| value.as_u64().and_then(|pid| u32::try_from(pid).ok());
        let mut found = Vec::new();
        for process in self.state["processes"].as_array().context("the fleet's state names no processes")? {
            let name = process["name"].as_str().unwrap_or_default();
            // The fleet's own sink idles: mail goes to the benchmark's.
            if name != "sink" {
                found.push(Group::tree(name, pid(&process["pid"]).context("a process of the fleet does not run")?));
            }
        }
        found.extend(self.more.iter().map(|(name, child)| Group::tree(name, child.id())));
        found.push(Group::one("supervisor", pid(&self.state["supervisor"]).context("no supervisor runs")?));
        let postmaster = fs::read_to_string(self.folder.join("postgres/data/postmaster.pid"))?;
        found.push(Group::tree("postgres", postmaster.lines().next().unwrap_or_default().trim().parse()?));
        found.push(Group::tree("nats", nats(&self.folder)?));
        Ok(found)
    }

    async fn parts(&self) -> anyhow::Result<Vec<Group>> {
        backends::by_client(&self.database).await
    }

    fn prepare(&self, _letter: &Letter, plan: &Plan) -> anyhow::Result<Self::Load> {
        let pieces = (0..plan.count).step_by(self.options.batch);
        let calls = pieces.map(|first| SendBatchRequest {
            mail: Some(self.mail(Lane::Bulk)),
            recipients: (first..plan.count.min(first + self.options.batch))
                .map(|index| recipient(plan, index))
                .collect(),
            idempotency_key: String::new(),
        });
        // Accepted and final, and one for each deferral.
        self.target.fetch_add(i64::try_from(2 * plan.count + plan.deferrals())?, Ordering::Relaxed);
        Ok(calls.collect())
    }

    async fn hand_in(&self, load: Self::Load) -> anyhow::Result<Handed> {
        load::call(&self.mails, load, self.options.calls).await
    }

    async fn settled(&self) -> anyhow::Result<()> {
        self.logged(0).await
    }

    async fn check(&self) -> anyhow::Result<()> {
        let audit = self.store.audit().await?;
        if !audit.is_clean() {
            bail!("the audit is not clean: {audit:?}");
        }
        Ok(())
    }
}

fn recipient(plan: &Plan, index: usize) -> Recipient {
    Recipient { email: plan.recipient(index), variables_json: variables(index), ..Recipient::default() }
}
