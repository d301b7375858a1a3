//! The benchmark: a whole fleet as separate processes, release build, durable commits.
//!
//! ```text
//! bench [--mails N] [--domains N] [--mailfleet PATH] [--keep]
//! ```
//!
//! Starts a local fleet in a temporary folder, sends N templated mails of about 10 KB, signed with RSA-2048 (and
//! Ed25519 beside it), from this process through `SendBatch`, and waits until every one has its final event. Prints
//! mails per second, and CPU time a mail by process: Postgres and NATS included, sink and load apart. What a run
//! measures depends on the disk as well, so its fsync time stands beside the figures. Figures of two runs can be
//! compared when both were made on the same quiet machine.

use anyhow::{Context, bail};
use proto::v1::{
    Address, CreateApiKeyRequest, CreateDomainRequest, CreateTemplateRequest, CreateTenantRequest, KeyScope, Lane,
    Mail, PublishTemplateVersionRequest, Recipient, SendBatchRequest, TemplateRef,
    domain_service_client::DomainServiceClient, mail::Content, mail_service_client::MailServiceClient,
    publish_template_version_request::Body, template_service_client::TemplateServiceClient,
    tenant_service_client::TenantServiceClient,
};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use store::{Store, StoreConfig};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// Recipients of one call.
const CALL: usize = 500;
/// Calls under way at the same time.
const CALLS: usize = 4;
/// Mails before the measurement: connections are open, contents and keys are cached, plans are made.
const WARM_UP: usize = 2_000;
/// Longest time that a run may take.
const LIMIT: Duration = Duration::from_secs(600);
/// Clock ticks a second in `/proc/PID/stat`: 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

struct Arguments {
    mails: usize,
    domains: usize,
    mailfleet: PathBuf,
    keep: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = arguments()?;
    let folder = std::env::temp_dir().join(format!("mailfleet-bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let outcome = run(&arguments, &folder).await;
    mailfleet(&arguments, &folder, &["down", "--quiet"])?;
    if arguments.keep {
        say(&format!("kept {}", folder.display()))?;
    } else {
        testkit::PostgresServer::remove(&folder.join("postgres")).await.ok();
        fs::remove_dir_all(&folder)?;
    }
    outcome
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut found = Arguments { mails: 20_000, domains: 8, mailfleet: "target/release/mailfleet".into(), keep: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--mails" => found.mails = value()?.parse().context("--mails is a number")?,
            "--domains" => found.domains = value()?.parse::<usize>().context("--domains is a number")?.max(1),
            "--mailfleet" => found.mailfleet = value()?.into(),
            "--keep" => found.keep = true,
            _ => bail!("{word} is unknown; there are --mails N, --domains N, --mailfleet PATH, --keep"),
        }
    }
    Ok(found)
}

async fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let fsync = fsync_time(folder)?;
    mailfleet(arguments, folder, &["up", "--detach"])?;
    let state: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("state.json"))?)?;
    let api = Api::prepare(&state).await?;
    let store = store(folder).await?;
    say("the fleet runs; warming up")?;
    send(&api, &store, arguments, WARM_UP).await?;
    let processes = processes(&state, folder)?;
    let before = Usage::of(&processes)?;
    let own_before = cpu_of(std::process::id())?;
    say(&format!("sending {} mails", arguments.mails))?;
    let took = send(&api, &store, arguments, arguments.mails).await?;
    let after = Usage::of(&processes)?;
    let own = cpu_of(std::process::id())? - own_before;
    let audit = store.audit().await?;
    report(arguments.mails, took, fsync, &before, &after, own, audit.is_clean())
}

/// The commands of the fleet under test.
fn mailfleet(arguments: &Arguments, folder: &Path, words: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(&arguments.mailfleet)
        .arg("--dir")
        .arg(folder)
        .args(words)
        .env_remove("DATABASE_URL")
        .env_remove("NATS_URL")
        // What is measured is the fleet, not the limits that it keeps for receivers.
        .env("MAILFLEET_SENDER__SHAPING__DEFAULT__RATE", "none")
        .env("MAILFLEET_SENDER__SHAPING__DEFAULT__CONNECTION_RATE", "none")
        .env("MAILFLEET_SENDER__SHAPING__DEFAULT__MESSAGES_PER_CONNECTION", "1000")
        .status()
        .with_context(|| format!("cannot run {}; build it with --release first", arguments.mailfleet.display()))?;
    if status.success() { Ok(()) } else { bail!("mailfleet {} failed", words.join(" ")) }
}

async fn store(folder: &Path) -> anyhow::Result<Store> {
    let config: toml::Table = fs::read_to_string(folder.join("mailfleet.toml"))?.parse()?;
    let url = config["postgres"]["url"].as_str().context("the configuration names no database")?.to_owned();
    let config = StoreConfig { url, max_connections: 1, ..StoreConfig::default() };
    Ok(Store::connect(&config).await?)
}

type Client = InterceptedService<Channel, Bearer>;

/// Presents an API key.
#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    fn new(key: &str) -> anyhow::Result<Self> {
        Ok(Self(format!("Bearer {}", key.trim()).parse()?))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// The tenant's side of the API.
struct Api {
    mail: MailServiceClient<Client>,
}

impl Api {
    /// Makes a tenant with a key, a domain and a template, through the API.
    async fn prepare(state: &serde_json::Value) -> anyhow::Result<Self> {
        let text = |name: &str| state[name].as_str().with_context(|| format!("the fleet's state has no {name}"));
        let channel = Channel::from_shared(text("endpoint")?.to_owned())?.connect().await?;
        let admin = Bearer::new(&fs::read_to_string(text("admin_key_file")?)?)?;
        let mut tenants = TenantServiceClient::with_interceptor(channel.clone(), admin);
        let tenant = tenants.create_tenant(CreateTenantRequest { name: "bench".to_owned() }).await?.into_inner();
        let scopes = [KeyScope::Send, KeyScope::Read, KeyScope::Templates, KeyScope::Domains];
        let request = CreateApiKeyRequest {
            tenant_id: tenant.tenant_id,
            name: "bench".to_owned(),
            scopes: scopes.map(i32::from).to_vec(),
            expires_at: None,
        };
        let key = Bearer::new(&tenants.create_api_key(request).await?.into_inner().api_key)?;
        let mut domains = DomainServiceClient::with_interceptor(channel.clone(), key.clone());
        let domain = CreateDomainRequest { domain: "bench.test".to_owned(), return_path_domain: String::new() };
        domains.create_domain(domain).await?;
        let mut templates = TemplateServiceClient::with_interceptor(channel.clone(), key.clone());
        templates.create_template(CreateTemplateRequest { name: "bench".to_owned() }).await?;
        let template = PublishTemplateVersionRequest {
            template: "bench".to_owned(),
            subject: "{{ name }}, your order {{ order }} is on its way".to_owned(),
            body: Some(Body::Html(html())),
            ..PublishTemplateVersionRequest::default()
        };
        templates.publish_template_version(template).await?;
        let mail = MailServiceClient::with_interceptor(channel, key).max_decoding_message_size(64 << 20);
        Ok(Self { mail })
    }
}

/// About 8 KB with ten variables; with its text part and headers a mail of about 10 KB.
fn html() -> String {
    let mut html = String::from("<html><body style=\"font-family:sans-serif\"><h1>Hello {{ name }}</h1>");
    let filler = "Thank you for your order. It has left our house this morning and will be with you soon. ";
    for (index, variable) in
        ["order", "city", "street", "item", "size", "colour", "price", "date", "clerk"].iter().enumerate()
    {
        html.push_str(&format!("<h2>{index}. {{{{ {variable} }}}}</h2><p>{}</p>", filler.repeat(5)));
    }
    html.push_str("</body></html>");
    html
}

/// Sends `count` mails and waits until all have their final event; returns how long that took.
async fn send(api: &Api, store: &Store, arguments: &Arguments, count: usize) -> anyhow::Result<Duration> {
    let start = store.log_head().await?.seq;
    let begun = Instant::now();
    let run = begun.elapsed().as_nanos();
    let mut pieces = (0..count).step_by(CALL).map(|first| first..count.min(first + CALL));
    let mut calls = tokio::task::JoinSet::new();
    loop {
        while calls.len() < CALLS
            && let Some(piece) = pieces.next()
        {
            let request = request(piece, arguments.domains, run);
            let mut client = api.mail.clone();
            calls.spawn(async move { client.send_batch(request).await });
        }
        let Some(done) = calls.join_next().await else { break };
        let answer = done??.into_inner();
        if answer.refused > 0 {
            bail!("{} recipients were refused", answer.refused);
        }
    }
    // Accepted and final: two entries a mail. Counting the log costs nothing that would be measured.
    let target = start + 2 * i64::try_from(count)?;
    while store.log_head().await?.seq < target {
        if begun.elapsed() > LIMIT {
            bail!("not every mail had its final event after {LIMIT:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(begun.elapsed())
}

fn request(piece: std::ops::Range<usize>, domains: usize, run: u128) -> SendBatchRequest {
    let recipients = piece
        .map(|index| Recipient {
            email: format!("r{index}.{run}@receiver{}.test", index % domains),
            variables_json: format!(
                r#"{{"name":"Ada {index}","order":"B-{index}","city":"Turku","street":"Quay 7","item":"Lamp","size":"M","colour":"blue","price":"19.90","date":"2 May","clerk":"Noor"}}"#
            ),
        })
        .collect();
    let mail = Mail {
        from: Some(Address { email: "shop@bench.test".to_owned(), name: "Bench".to_owned() }),
        content: Some(Content::Template(TemplateRef { template: "bench".to_owned(), version: 0 })),
        lane: Lane::Bulk.into(),
        ..Mail::default()
    };
    SendBatchRequest { mail: Some(mail), recipients, idempotency_key: String::new() }
}

/// The processes of the fleet by name; Postgres and NATS among them.
fn processes(state: &serde_json::Value, folder: &Path) -> anyhow::Result<BTreeMap<String, u32>> {
    let mut found = BTreeMap::new();
    for process in state["processes"].as_array().context("the fleet's state names no processes")? {
        let name = process["name"].as_str().unwrap_or_default().to_owned();
        let pid = process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        found.insert(name, pid.context("a process of the fleet does not run")?);
    }
    let postmaster = fs::read_to_string(folder.join("postgres/data/postmaster.pid"))?;
    found.insert("postgres".to_owned(), postmaster.lines().next().unwrap_or_default().trim().parse()?);
    let folder = folder.to_string_lossy().into_owned();
    for pid in pids()? {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains("nats-server") && line.contains(&folder) {
            found.insert("nats".to_owned(), pid);
        }
    }
    Ok(found)
}

fn pids() -> anyhow::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("needs /proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// CPU seconds by process.
struct Usage(BTreeMap<String, f64>);

impl Usage {
    fn of(processes: &BTreeMap<String, u32>) -> anyhow::Result<Self> {
        let mut used = BTreeMap::new();
        for (name, pid) in processes {
            let mut seconds = cpu_of(*pid)?;
            if name == "postgres" {
                // Its connections are processes of their own.
                for child in pids()? {
                    if parent_of(child) == Some(*pid) {
                        seconds += cpu_of(child).unwrap_or(0.0);
                    }
                }
            }
            used.insert(name.clone(), seconds);
        }
        Ok(Self(used))
    }
}

fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; what follows it is plain.
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn parent_of(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// User and system time of a process and of its children that have ended, in seconds.
fn cpu_of(pid: u32) -> anyhow::Result<f64> {
    let fields = stat(pid).with_context(|| format!("process {pid} is gone"))?;
    let ticks: f64 = fields.get(11..15).unwrap_or_default().iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS)
}

/// Median time of an 8 KB write with its fdatasync on the disk that the database will be on.
fn fsync_time(folder: &Path) -> anyhow::Result<Duration> {
    let path = folder.join("fsync");
    let file = fs::File::create(&path)?;
    let page = [7; 8192];
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        file.write_all_at(&page, 0)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    fs::remove_file(path)?;
    times.sort();
    Ok(times[times.len() / 2])
}

fn report(
    mails: usize,
    took: Duration,
    fsync: Duration,
    before: &Usage,
    after: &Usage,
    own: f64,
    audit_clean: bool,
) -> anyhow::Result<()> {
    let each = |seconds: f64| seconds * 1e6 / mails as f64;
    let mut sum = 0.0;
    let mut by_process = serde_json::Map::new();
    say(&format!("\n{:<12} {:>12}", "process", "CPU µs/mail"))?;
    for (name, seconds) in &after.0 {
        let used = each(seconds - before.0.get(name).copied().unwrap_or(0.0));
        if name != "sink" {
            sum += used;
        }
        by_process.insert(name.clone(), used.round().into());
        say(&format!("{name:<12} {used:>12.0}"))?;
    }
    say(&format!("{:<12} {:>12.0}", "load", each(own)))?;
    say(&format!("{:<12} {sum:>12.0}   without sink and load", "fleet"))?;
    let rate = mails as f64 / took.as_secs_f64();
    say(&format!("\n{mails} mails in {:.1} s: {rate:.0} mails/s; fsync {} µs", took.as_secs_f64(), fsync.as_micros()))?;
    let line = serde_json::json!({
        "mails": mails, "wall_s": took.as_secs_f64(), "mails_per_s": rate.round(), "cpu_us_per_mail": sum.round(),
        "by_process": by_process, "load_us_per_mail": each(own).round(), "fsync_us": fsync.as_micros() as u64,
        "audit_clean": audit_clean,
    });
    say(&line.to_string())
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(())
}
