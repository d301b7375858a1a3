//! The whole fleet as processes, two of each service, each with its own proxies; and the servers that it stands on.

use super::{
    config::{self, Parts},
    member::Member,
    processes::{self, Peaks},
    saboteur::Saboteur,
    told,
};
use crate::{Kind, house};
use anyhow::Context;
use service::Sealer;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::Store;
use testkit::{
    FaultProxy, NatsOptions, NatsServer, PostgresOptions, PostgresServer,
    sink::{Sink, SinkConfig, SinkStore},
};
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    task::JoinSet,
};

/// How long a process may take to end in order.
pub const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Connections of the database server: what the fleet may take, and some more.
const MAX_CONNECTIONS: u16 = 90;
const DATABASE: &str = "mailfleet";
/// Between two looks at what processes use.
const SAMPLE: Duration = Duration::from_millis(500);

/// A fleet, its neighbours and its receiver.
pub struct Fleet {
    /// Everything of it is in here.
    pub folder: PathBuf,
    /// The processes.
    pub members: Vec<Arc<Member>>,
    /// The database server.
    pub postgres: AsyncMutex<PostgresServer>,
    /// The broker.
    pub nats: AsyncMutex<NatsServer>,
    /// The receiver.
    pub sink: Sink,
    /// The way past the fleet.
    pub saboteur: Saboteur,
    /// The database as the harness sees it, past the proxies.
    pub store: Store,
    /// The key that administers the fleet.
    pub admin: String,
    /// Where the API is.
    pub endpoints: Vec<String>,
    peaks: Mutex<Peaks>,
}

impl Fleet {
    /// Starts the servers and makes everything ready for the processes, which [`Self::run`] starts. `postgres` is where
    /// the database's files go.
    pub async fn prepare(program: &Path, folder: &Path, postgres: &Path) -> anyhow::Result<Arc<Self>> {
        let options = PostgresOptions {
            // A process that is killed loses nothing that it has written; only a power loss would.
            fsync: false,
            max_connections: MAX_CONNECTIONS,
            shared_buffers: "64MB".to_owned(),
            max_wal_size: "128MB".to_owned(),
            settings: vec![("min_wal_size".to_owned(), "64MB".to_owned())],
            stop_on_drop: true,
            ..PostgresOptions::default()
        };
        let server = PostgresServer::start(postgres, options).await.context("start postgres")?;
        let options = NatsOptions { stop_on_drop: true, ..NatsOptions::default() };
        let nats = NatsServer::start(&folder.join("nats"), options).await.context("start nats")?;
        store::admin::create_database(&server.url(testkit::postgres::FIRST_DATABASE), DATABASE, None).await?;
        let url = server.url(DATABASE);
        store::migrate(&url).await?;
        let saboteur = Saboteur::new(url.clone());
        saboteur.run(include_str!("trace.sql")).await.context("install the trace")?;
        let store = house::connect(&url, "harness").await;
        let admin = house::admin_key(&store).await;
        let master_key = folder.join("master.key");
        Sealer::generate_key_file(&master_key)?;
        let store_dir = SinkStore::Directory(folder.join("mailbox"));
        let sink = Sink::start(SinkConfig { store: store_dir, files_per_domain: 0, ..SinkConfig::default() }).await?;
        let mut members = Vec::new();
        let mut endpoints = Vec::new();
        let mut ports = Ports::default();
        for kind in Kind::ALL {
            for letter in ['a', 'b'] {
                let name = format!("{}-{letter}", kind.name());
                let to_postgres = FaultProxy::start(format!("127.0.0.1:{}", server.port())).await?;
                let to_nats = FaultProxy::start(format!("127.0.0.1:{}", nats.port())).await?;
                let direct = format!("127.0.0.1:{}", server.port());
                let postgres_url = url.replacen(&direct, &to_postgres.address().to_string(), 1);
                let nats_url = format!("nats://{}", to_nats.address());
                let ingest = ports.any()?;
                let journal = folder.join(format!("journal-{name}"));
                let parts = Parts {
                    postgres_url: &postgres_url,
                    nats_url: &nats_url,
                    ingest,
                    http: ports.any()?,
                    sink: sink.addr(),
                    master_key: &master_key,
                    journal: &journal,
                    name: &name,
                };
                let member = Member::new(kind, &name, program, folder, to_postgres, to_nats);
                fs::write(member.config(), config::text(&parts))?;
                if kind == Kind::Ingest {
                    endpoints.push(format!("http://{ingest}"));
                }
                members.push(Arc::new(member));
            }
        }
        Ok(Arc::new(Self {
            folder: folder.to_owned(),
            members,
            postgres: AsyncMutex::new(server),
            nats: AsyncMutex::new(nats),
            sink,
            saboteur,
            store,
            admin,
            endpoints,
            peaks: Mutex::default(),
        }))
    }

    /// Runs every process and looks at what it uses, until `stop`; returns when all have ended.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        for member in &self.members {
            let (member, stop) = (Arc::clone(member), stop.clone());
            tasks.spawn(async move { member.supervise(&stop).await });
        }
        let (fleet, mut stopped) = (Arc::clone(&self), stop.clone());
        tasks.spawn(async move {
            while tokio::time::timeout(SAMPLE, told(&mut stopped)).await.is_err() {
                fleet.sample();
            }
            Ok(())
        });
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    fn sample(&self) {
        let mut peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        for member in &self.members {
            if let Some(now) = member.pid().and_then(processes::read) {
                let peak = peaks.entry(member.name.clone()).or_default();
                *peak = peak.max(now);
            }
        }
    }

    /// The most that each process used.
    pub fn peaks(&self) -> Peaks {
        self.peaks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The processes with these names.
    pub fn named(&self, names: &[String]) -> Vec<Arc<Member>> {
        self.members.iter().filter(|member| names.contains(&member.name)).cloned().collect()
    }

    /// Where a sender keeps its journal.
    pub fn journal(&self, member: &Member) -> PathBuf {
        self.folder.join(format!("journal-{}", member.name))
    }

    /// Does this to every process's way to the database.
    pub fn before_postgres(&self, fault: testkit::Fault) {
        self.members.iter().for_each(|member| member.postgres.set(fault));
    }

    /// Does this to every process's way to the broker.
    pub fn before_nats(&self, fault: testkit::Fault) {
        self.members.iter().for_each(|member| member.nats.set(fault));
    }

    /// Undoes whatever was done and can be undone, and starts servers that do not run.
    pub async fn heal(&self) -> anyhow::Result<()> {
        for member in &self.members {
            member.heal();
        }
        let mut postgres = self.postgres.lock().await;
        if self.saboteur.run("select 1").await.is_err() {
            postgres.restart().await.context("start postgres again")?;
        }
        drop(postgres);
        let mut nats = self.nats.lock().await;
        if !NatsServer::is_running(&self.folder.join("nats")) {
            nats.restart().await.context("start nats again")?;
        }
        Ok(())
    }

    /// Ends the servers.
    pub async fn end_servers(&self) {
        self.store.close().await;
        // Whatever goes wrong here, they end with their values.
        let _ = self.nats.lock().await.stop().await;
        let _ = self.postgres.lock().await.stop().await;
    }
}

/// Free ports of loopback. All are held until the last is found, so that none is given twice.
#[derive(Default)]
struct Ports(Vec<TcpListener>);

impl Ports {
    fn any(&mut self) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        self.0.push(listener);
        Ok(address)
    }
}
