//! How each service is built, as the command builds it.

use crate::Settings;
use bus::{Bus, BusConfig};
use domain::TokenKeys;
use ingest::keys::fleet_key;
use press::Press;
use service::{Health, Lifecycle, Metrics, Sealer};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use store::{Store, StoreConfig};

/// The key that seals DKIM keys, and that the keys of tokens derive from.
const MASTER_KEY: [u8; 32] = [7; 32];

/// The keys of the tokens in the mails of every fleet under test.
pub fn token_keys() -> TokenKeys {
    press::token_keys(&Sealer::new(&MASTER_KEY))
}

pub(crate) async fn connect(url: &str, name: &str) -> Store {
    let config = StoreConfig {
        url: url.to_owned(),
        max_connections: 6,
        acquire_timeout: Duration::from_secs(5),
        call_timeout: Duration::from_secs(5),
        application: name.to_owned(),
        ..StoreConfig::default()
    };
    Store::connect(&config).await.unwrap()
}

/// A key that administers the fleet, as the operator's command makes it.
pub(crate) async fn admin_key(store: &Store) -> String {
    let now = store.now().await.unwrap();
    let (key, token) = fleet_key("admin", now).unwrap();
    store.create_api_key(&key, now).await.unwrap();
    token
}

/// What a service is made from, on its own runtime.
#[derive(Clone)]
pub(crate) struct House {
    pub(crate) url: String,
    pub(crate) name: String,
    pub(crate) settings: Settings,
    pub(crate) journal: PathBuf,
    /// How often it was started.
    pub(crate) starts: Arc<AtomicUsize>,
}

impl House {
    async fn neighbours(&self) -> (Store, Bus) {
        // With the faults of the last start a service that could not start never could.
        let start = format!("{} {}", self.name, self.starts.fetch_add(1, Ordering::Relaxed));
        let faults = self.settings.faults.as_ref().map(|faults| faults.apart(&start));
        let apart = |what| faults.as_ref().map(|faults| faults.apart(what));
        let config = BusConfig { faults: apart("bus"), ..self.settings.bus.clone() };
        let store = connect(&self.url, &self.name).await.with_faults(apart("store"));
        (store, Bus::connect(config).await.unwrap())
    }

    fn press(&self, store: &Store) -> Arc<Press> {
        let (sealer, site) = (Arc::new(Sealer::new(&MASTER_KEY)), self.settings.tracking.clone());
        Arc::new(Press::new(store.clone(), sealer, &self.settings.renderer.press, site))
    }

    pub(crate) async fn ingest(self, life: Lifecycle) -> SocketAddr {
        let (store, bus) = self.neighbours().await;
        let neighbours = ingest::Neighbours {
            store,
            bus,
            shards: self.settings.shards,
            tracked: self.settings.tracking.is_some(),
            sealer: Some(Arc::new(Sealer::new(&MASTER_KEY))),
            health: Health::new(life.clone()),
        };
        let service = ingest::Ingest::build(self.settings.ingest, neighbours).await.unwrap();
        let address = service.addr();
        life.spawn("ingest", service.run(life.clone()));
        address
    }

    pub(crate) async fn dispatcher(self, life: Lifecycle) {
        let (store, bus) = self.neighbours().await;
        let neighbours = dispatcher::Neighbours {
            store,
            bus,
            shards: self.settings.shards,
            owner: self.name,
            health: Health::new(life.clone()),
        };
        let service = dispatcher::Dispatcher::build(self.settings.dispatcher, neighbours).unwrap();
        life.spawn("dispatcher", service.run(life.clone()));
    }

    pub(crate) async fn renderer(self, life: Lifecycle) {
        let (store, bus) = self.neighbours().await;
        let press = self.press(&store);
        let (metrics, health) = (Metrics::new("renderer"), Health::new(life.clone()));
        let Settings { renderer: config, shards, .. } = self.settings;
        renderer::Renderer::build(config, shards, store, bus, press, &metrics, &health).run(&life);
    }

    pub(crate) async fn sender(self, life: Lifecycle) {
        let (store, bus) = self.neighbours().await;
        let press = self.press(&store);
        let mut config = self.settings.sender;
        config.name = self.name;
        config.journal.directory = self.journal;
        let metrics = Metrics::new("sender");
        let service =
            sender::Sender::build(config, self.settings.shards, store, bus, press, &metrics, life.clone()).await;
        life.spawn("sender", service.unwrap().run());
    }

    pub(crate) async fn feedback(self, life: Lifecycle) -> (SocketAddr, Option<SocketAddr>) {
        let (store, _) = self.neighbours().await;
        let mut config = self.settings.feedback;
        config.spool.directory = self.journal.join("spool");
        if let Some(inbound) = &mut config.inbound {
            inbound.spool.directory = self.journal.join("mails");
        }
        let sealer = Arc::new(Sealer::new(&MASTER_KEY));
        let tokens = press::token_keys(&sealer);
        let (metrics, health) = (Metrics::new("feedback"), Health::new(life.clone()));
        let built = feedback::FeedbackService::build(config, store, tokens, sealer, &metrics, &health).await.unwrap();
        let addresses = (built.web_addr(), built.inbound_addr());
        built.run(&life);
        addresses
    }

    pub(crate) async fn analytics(self, life: Lifecycle) {
        let (store, bus) = self.neighbours().await;
        let neighbours =
            analytics::Neighbours { store, bus: Some(bus), owner: self.name, health: Health::new(life.clone()) };
        let service = analytics::Analytics::build(self.settings.analytics, neighbours).unwrap();
        life.spawn("analytics", service.run(life.clone()));
    }
}
