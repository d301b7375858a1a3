//! A fleet's start, and the start and end of its services.

use crate::{
    Settings, Zone,
    home::{self, Database, Folder},
    house::{House, admin_key, connect},
    member::Member,
};
use bus::{Bus, topology};
use domain::MessageId;
use proto::v1;
use sqlx::{Connection, PgConnection};
use std::net::SocketAddr;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
};
use store::Store;
use testkit::{
    FaultProxy, NatsServer, PostgresServer, VirtualClock,
    sink::{Sink, SinkConfig},
    until,
};
use tonic::transport::{Channel, Endpoint};

/// The domain that the tenant sends from.
pub(crate) const SENDING_DOMAIN: &str = "example.com";
/// Tries to start a service whose calls go wrong on purpose.
const STARTS: usize = 20;

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Takes mail in.
    Ingest,
    /// Releases it.
    Dispatcher,
    /// Makes it.
    Renderer,
    /// Delivers it.
    Sender,
    /// Counts it.
    Analytics,
    /// Answers recipients; runs where a test launches it.
    Feedback,
}

impl Kind {
    /// Every service that a mail needs on its way.
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Dispatcher, Self::Renderer, Self::Sender, Self::Analytics];

    /// The name of the first of its kind in a fleet.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Dispatcher => "dispatcher",
            Self::Renderer => "renderer",
            Self::Sender => "sender",
            Self::Analytics => "analytics",
            Self::Feedback => "feedback",
        }
    }
}

/// What a fleet is to be like.
pub struct Builder {
    settings: Settings,
    sink: SinkConfig,
    private_nats: bool,
    private_postgres: bool,
    without: BTreeSet<Kind>,
}

impl Builder {
    /// Changes the configuration.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Changes the sink.
    pub fn sink(mut self, change: impl FnOnce(&mut SinkConfig)) -> Self {
        change(&mut self.sink);
        self
    }

    /// With a broker of its own, which the test may stop, kill and wipe.
    pub fn private_nats(mut self) -> Self {
        self.private_nats = true;
        self
    }

    /// With a database server of its own, which the test may stop and kill.
    pub fn private_postgres(mut self) -> Self {
        self.private_postgres = true;
        self
    }

    /// Without this service, for now.
    pub fn without(mut self, kind: Kind) -> Self {
        self.without.insert(kind);
        self
    }

    /// Starts everything, and returns when it is ready to deliver.
    pub async fn start(self) -> Fleet {
        let filter =
            tracing_subscriber::EnvFilter::try_from_env("MAILFLEET_TEST_LOG").unwrap_or_else(|_| "warn".into());
        // Every test of a process but the first finds one there.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let folder = Folder::new();
        let database = if self.private_postgres {
            Database::private(&folder).await
        } else {
            Database::Shared(testkit::TestDatabase::create().await)
        };
        let nats = if self.private_nats { Some(home::private_nats(&folder).await) } else { None };
        let sink = Sink::start(self.sink).await.unwrap();
        let mut settings = self.settings;
        settings.aim_at(sink.addr());
        settings.bus.url = match &nats {
            Some(server) => server.url(),
            None => home::shared_nats().await,
        };
        settings.bus.prefix = format!("e2e{}", home::tag()).parse().unwrap();
        let store = connect(&database.url(), "harness").await;
        let bus = Bus::connect(settings.bus.clone()).await.unwrap();
        let mut fleet = Fleet {
            clock: VirtualClock::of(&store),
            zone: Zone::default(),
            tenant: String::new(),
            key: String::new(),
            admin: admin_key(&store).await,
            channel: Endpoint::from_static("http://127.0.0.1:1").connect_lazy(),
            endpoint: String::new(),
            known: Mutex::default(),
            members: BTreeMap::new(),
            shared_bus: nats.is_none(),
            store,
            sink,
            bus,
            settings,
            nats,
            database,
            folder,
        };
        for kind in Kind::ALL.into_iter().filter(|kind| !self.without.contains(kind)) {
            fleet.launch(kind, kind.name()).await;
        }
        if !self.without.contains(&Kind::Ingest) {
            fleet.move_in().await;
        }
        fleet.ready().await;
        fleet
    }
}

/// A fleet that runs. Ends with its value.
pub struct Fleet {
    /// The database, as the harness sees it.
    pub store: Store,
    /// The database's clock.
    pub clock: VirtualClock,
    /// The receiver.
    pub sink: Sink,
    /// What is published of the sending domain's keys.
    pub zone: Zone,
    /// The first tenant's id.
    pub tenant: String,
    /// Its key.
    pub key: String,
    /// The key that administers the fleet.
    pub admin: String,
    /// How services that are started from now on are configured.
    pub settings: Settings,
    /// The broker, as the harness sees it.
    pub bus: Bus,
    pub(crate) channel: Channel,
    /// Where ingest listens.
    pub endpoint: String,
    pub(crate) known: Mutex<BTreeSet<MessageId>>,
    members: BTreeMap<String, (Kind, Member)>,
    shared_bus: bool,
    nats: Option<NatsServer>,
    database: Database,
    folder: Folder,
}

impl Fleet {
    /// A fleet with one of each service.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A fleet to be described first.
    pub fn builder() -> Builder {
        Builder {
            settings: Settings::default(),
            sink: SinkConfig::default(),
            private_nats: false,
            private_postgres: false,
            without: BTreeSet::new(),
        }
    }

    /// The broker of a fleet with one of its own.
    pub fn nats(&mut self) -> &mut NatsServer {
        self.nats.as_mut().expect("built with `private_nats`")
    }

    /// The database server of a fleet with one of its own.
    pub fn postgres(&mut self) -> &mut PostgresServer {
        match &mut self.database {
            Database::Private { server, .. } => server,
            Database::Shared(_) => panic!("not built with `private_postgres`"),
        }
    }

    /// Ends a service as a signal does: what is under way is finished first.
    pub async fn stop(&mut self, name: &str) {
        let (_, member) = self.members.remove(name).expect("runs");
        member.stop().await;
    }

    /// Ends a service as a kill does.
    pub async fn crash(&mut self, name: &str) {
        let (_, member) = self.members.remove(name).expect("runs");
        member.crash().await;
    }

    /// Whether a service of this kind runs.
    pub fn runs(&self, kind: Kind) -> bool {
        self.members.values().any(|(one, _)| *one == kind)
    }

    /// Loses the volume with a sender's journal.
    pub fn lose_journal(&self, name: &str) {
        std::fs::remove_dir_all(self.journal(name)).unwrap();
    }

    fn journal(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("journal-{name}"))
    }

    /// A file that goes away with the fleet.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A connection to the database, for what no service does.
    pub async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.database.url()).await.unwrap()
    }

    /// A proxy that misbehaves on command, before the database.
    pub async fn before_postgres(&self) -> FaultProxy {
        FaultProxy::start(upstream(&self.database.url())).await.unwrap()
    }

    /// A proxy that misbehaves on command, before the broker.
    pub async fn before_nats(&self) -> FaultProxy {
        FaultProxy::start(upstream(&self.settings.bus.url)).await.unwrap()
    }

    /// Starts a service under this name.
    pub async fn launch(&mut self, kind: Kind, name: &str) {
        self.launch_at(kind, name, self.database.url()).await;
    }

    /// Starts a service that reaches its database through this proxy.
    pub async fn launch_through(&mut self, kind: Kind, name: &str, postgres: &FaultProxy) {
        let url = self.database.url();
        let through = url.replacen(&upstream(&url), &postgres.address().to_string(), 1);
        self.launch_at(kind, name, through).await;
    }

    async fn launch_at(&mut self, kind: Kind, name: &str, url: String) {
        assert!(!self.members.contains_key(name), "{name} runs");
        let (settings, journal) = (self.settings.clone(), self.journal(name));
        let house = House { url, name: name.to_owned(), settings, journal, starts: Arc::default() };
        let tries = if self.settings.faults.is_some() { STARTS } else { 1 };
        let house = || house.clone();
        let member = match kind {
            Kind::Ingest => {
                let (member, address) = Member::start(name, tries, |life| house().ingest(life)).await;
                // Whoever starts again listens where the one before did.
                self.settings.ingest.listen = address;
                self.endpoint = format!("http://{address}");
                self.channel = Endpoint::from_shared(self.endpoint.clone()).unwrap().connect_lazy();
                member
            }
            Kind::Dispatcher => Member::start(name, tries, |life| house().dispatcher(life)).await.0,
            Kind::Renderer => Member::start(name, tries, |life| house().renderer(life)).await.0,
            Kind::Sender => Member::start(name, tries, |life| house().sender(life)).await.0,
            Kind::Analytics => Member::start(name, tries, |life| house().analytics(life)).await.0,
            Kind::Feedback => {
                let (member, (web, inbound)) = Member::start(name, tries, |life| house().feedback(life)).await;
                self.settings.feedback.web.listen = web;
                if let (Some(config), Some(address)) = (&mut self.settings.feedback.inbound, inbound) {
                    config.listen = address;
                }
                member
            }
        };
        self.members.insert(name.to_owned(), (kind, member));
    }

    /// Starts feedback, and tells where recipients reach it.
    pub async fn launch_feedback(&mut self) -> SocketAddr {
        self.launch(Kind::Feedback, Kind::Feedback.name()).await;
        self.settings.feedback.web.listen
    }

    /// Waits until every service that runs has what it needs to work.
    pub async fn ready(&self) {
        let mut wanted = Vec::new();
        if self.runs(Kind::Dispatcher) {
            wanted.push(dispatcher::LEASE.to_owned());
        }
        if self.runs(Kind::Analytics) {
            wanted.push(analytics::LEASE.to_owned());
        }
        if self.runs(Kind::Sender) {
            wanted.extend(self.settings.shards.all().map(|shard| shard.lease_name()));
        }
        until("every lease is held", async || {
            let leases = self.store.leases().await.unwrap_or_default();
            wanted.iter().all(|name| leases.iter().any(|lease| lease.live && lease.name == *name))
        })
        .await;
        if self.runs(Kind::Dispatcher) {
            until("the broker is ready", async || {
                let sight = topology::look(&self.bus, self.settings.shards).await;
                sight.is_ok_and(|sight| sight.missing.is_empty())
            })
            .await;
        }
    }

    /// A tenant with a key and a domain to send from.
    async fn move_in(&mut self) {
        let (tenant, key) = self.new_tenant("acme").await;
        let domain = v1::CreateDomainRequest { domain: SENDING_DOMAIN.to_owned(), ..Default::default() };
        let made = self.domains_with(&key).create_domain(domain).await.unwrap().into_inner();
        self.zone = Zone::publish(&made.domain.unwrap().dns_records);
        (self.tenant, self.key) = (tenant, key);
    }

    /// Ends everything in order.
    pub(crate) async fn end(mut self) {
        for kind in Kind::ALL {
            let names: Vec<String> =
                self.members.iter().filter(|(_, (one, _))| *one == kind).map(|(name, _)| name.clone()).collect();
            for name in names {
                assert!(!self.members[&name].1.has_failed(), "a task of {name} failed");
                self.stop(&name).await;
            }
        }
        if self.shared_bus {
            topology::wipe(&self.bus).await.unwrap();
        }
        self.store.close().await;
    }
}

/// `host:port` of a URL.
fn upstream(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest).to_owned()
}
