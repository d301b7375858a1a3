//! A tenant with a domain, a database and a broker's corner of its own, and renderers on them.

use crate::zone::Zone;
use bus::{Bus, BusConfig, Job, Letter, cut_jobs, topology};
use chrono::SubsecRound;
use content::{Body, CompiledTemplate, MailSource, NameAddr, ReturnPath, SigningKey, TemplateSource};
use domain::{
    BatchId, ContentId, DkimKeyId, DomainName, Lane, Mailbox, MessageId, SendingDomainId, ShardCount, SiteId, TenantId,
};
use mailfleet_renderer::{Renderer, RendererConfig};
use press::{Press, PressConfig, dkim_aad};

use service::{Health, Lifecycle, Metrics, Sealer, clock};
use std::{
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use store::{
    AcceptCall, AcceptOutcome, ContentKind, DkimAlgorithm, NewContent, NewDkimKey, NewMessage, SendingDomain, Store,
    Tenant, Whereabouts,
};
use testkit::{LIMIT, TestDatabase, shared, until};

pub const MASTER_KEY: [u8; 32] = [7; 32];
const DOMAIN: &str = "sender.test";
const RECEIVER: &str = "receiver.test";
static NUMBER: AtomicU32 = AtomicU32::new(0);

pub struct Fleet {
    pub database: TestDatabase,
    pub store: Store,
    pub bus: Bus,
    pub press: Arc<Press>,
    pub life: Lifecycle,
    pub zone: Zone,
    tenant: TenantId,
}

/// What is sent.
pub struct Mail {
    text: String,
}

impl Mail {
    pub fn small() -> Self {
        Self { text: "Hello {{ name }}".to_owned() }
    }

    /// With a text part of about this many octets.
    pub fn of_size(octets: usize) -> Self {
        let line = "A line of plain words that goes on for a while and then ends.\n";
        Self { text: format!("Hello {{{{ name }}}}\n{}", line.repeat(octets / line.len() + 1)) }
    }

    fn template(&self) -> CompiledTemplate {
        let source = TemplateSource {
            subject: "News for {{ name }}".to_owned(),
            text: Some(self.text.clone()),
            ..TemplateSource::default()
        };
        source.compile(&content::Limits::default()).unwrap()
    }
}

pub fn config() -> RendererConfig {
    RendererConfig {
        hold_delay: Duration::from_millis(100),
        health_interval: Duration::from_millis(50),
        ..RendererConfig::default()
    }
}

pub fn shards() -> ShardCount {
    ShardCount(NonZeroU16::new(2).unwrap())
}

/// Variables of recipients `r0`, `r1`, ….
pub fn variables(count: usize) -> Vec<String> {
    (0..count).map(|index| format!(r#"{{"name":"r{index}"}}"#)).collect()
}

pub fn press_of(store: &Store, sealer: Sealer) -> Arc<Press> {
    Arc::new(Press::new(store.clone(), Arc::new(sealer), &PressConfig::default(), None))
}

impl Fleet {
    pub async fn start() -> Self {
        Self::with_bus(|config| config).await
    }

    pub async fn with_bus(change: impl FnOnce(BusConfig) -> BusConfig) -> Self {
        let database = TestDatabase::create().await;
        let store = database.store().await;
        let prefix = format!("rend{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let config = BusConfig {
            url: shared().await.nats_url.clone(),
            prefix: prefix.parse().unwrap(),
            render_max_bytes: 8 << 20,
            send_max_bytes: 64 << 20,
            ..BusConfig::default()
        };
        let bus = Bus::connect(change(config)).await.unwrap();
        topology::apply(&bus, shards()).await.unwrap();
        let (tenant, zone) = tenant(&store).await;
        let press = press_of(&store, Sealer::new(&MASTER_KEY));
        Self { database, store, bus, press, life: Lifecycle::new(), zone, tenant }
    }

    pub async fn end(self) {
        assert!(self.life.drain(LIMIT).await, "every task ends");
        assert!(!self.life.has_failed(), "no task failed");
        topology::wipe(&self.bus).await.unwrap();
        self.store.close().await;
    }

    pub async fn renderer(&self, config: RendererConfig) -> (Lifecycle, Metrics) {
        self.renderer_with(config, self.store.clone(), Arc::clone(&self.press)).await
    }

    pub async fn renderer_with(&self, config: RendererConfig, store: Store, press: Arc<Press>) -> (Lifecycle, Metrics) {
        let (life, metrics) = (Lifecycle::new(), Metrics::new("renderer"));
        let health = Health::new(life.clone());
        Renderer::build(config, shards(), store, self.bus.clone(), press, &metrics, &health).run(&life);
        // Ends with the fleet as well.
        let (own, fleet) = (life.clone(), self.life.clone());
        self.life.spawn_finite("renderer", async move {
            tokio::select! {
                () = fleet.shutdown_requested() => {}
                () = own.shutdown_requested() => {}
            }
            own.drain(LIMIT).await;
            if own.has_failed() {
                fleet.fail("renderer", "failed");
            }
        });
        (life, metrics)
    }

    /// Accepts one call, whose messages are released at once, and makes their jobs.
    pub async fn release(&self, lane: Lane, mail: &Mail, variables: &[String]) -> Vec<Job> {
        let now = clock::now();
        let (batch, tenant) = (BatchId::new(now), self.tenant);
        let template = content(tenant, ContentKind::Template, &mail.template());
        let source = MailSource {
            from: NameAddr { name: Some("Sender".to_owned()), mailbox: format!("news@{DOMAIN}").parse().unwrap() },
            reply_to: Vec::new(),
            to_header: None,
            cc_header: Vec::new(),
            headers: Vec::new(),
            body: Body::Template { content: template.id },
            unsubscribe: None,
            list_id: None,
            feedback_id: None,
            lane,
            return_path: ReturnPath::PerMessage(format!("bounce.{DOMAIN}").parse().unwrap()),
            signing_domain: DOMAIN.parse().unwrap(),
            attachments: Vec::new(),
            sandbox: false,
            tracking: Default::default(),
        };
        let source = content(tenant, ContentKind::Mail, &source);
        let id = source.id;
        let site = SiteId::of_domain(RECEIVER);
        let expires_at = now.trunc_subsecs(6) + chrono::Duration::days(1);
        let recipient = |index| -> Mailbox { format!("r{index}@{RECEIVER}").parse().unwrap() };
        let messages: Vec<_> = (0..)
            .zip(variables)
            .map(|(index, variables)| NewMessage {
                id: MessageId::of_batch(batch, index),
                content: id,
                recipient: recipient(index),
                variables: variables.clone(),
                lane,
                site: site.clone(),
                due: None,
                expires_at,
                overrides: None,
                trace: None,
            })
            .collect();
        let call = AcceptCall {
            tenant,
            campaign: None,
            batch,
            size: u32::try_from(messages.len()).unwrap(),
            refused: serde_json::json!([]),
            idempotency: None,
            labels: Default::default(),
            template: None,
            contents: vec![template, source],
            messages: messages.clone(),
        };
        let outcome = self.store.accept(&[call], now).await.unwrap().remove(0);
        let AcceptOutcome::Accepted { bus_epoch, queues } = outcome else { panic!("{outcome:?}") };
        let job = |(message, queue): (NewMessage, i64)| Job {
            message: message.id,
            release: 1,
            attempt: 0,
            bus_epoch,
            queue,
            tenant,
            campaign: None,
            batch,
            content: id,
            recipient: message.recipient,
            slot: site.slot(),
            site: site.clone(),
            lane,
            variables: message.variables.into(),
            overrides: Default::default(),
            expires_at,
            alone: false,
            trace: None,
        };
        messages.into_iter().zip(queues).map(job).collect()
    }

    pub async fn publish(&self, jobs: Vec<Job>) {
        for result in self.bus.publish_all(&cut_jobs(jobs, shards()), 4).await {
            result.unwrap();
        }
    }

    /// The next letters of the lane, in the order of their messages' recipients.
    pub async fn letters(&self, lane: Lane, count: usize) -> Vec<Letter> {
        let shard = SiteId::of_domain(RECEIVER).slot().shard(shards());
        let mut puller = self.bus.send_jobs(lane, shard);
        let mut letters = Vec::new();
        while letters.len() < count {
            let delivery = tokio::time::timeout(LIMIT, puller.next()).await.expect("letters come");
            letters.extend(delivery.payload.items.iter().cloned());
            delivery.ack().await.unwrap();
        }
        assert_eq!(letters.len(), count);
        letters.sort_by_key(|letter| letter.job.recipient.local()[1..].parse::<u32>().unwrap());
        letters
    }

    /// Waits until a message is where it should be.
    pub async fn place(&self, message: MessageId, is_right: impl Fn(&Whereabouts) -> bool) {
        until("the message is where it should be", async || {
            let view = self.store.message(None, message).await.unwrap().unwrap();
            is_right(&view.whereabouts)
        })
        .await;
    }
}

fn content(tenant: TenantId, kind: ContentKind, value: &impl serde::Serialize) -> NewContent {
    let body = serde_json::to_vec(value).unwrap();
    NewContent { id: ContentId::of(tenant, &[&[u8::try_from(kind.code()).unwrap()], &body]), kind, body, carried: 0 }
}

/// A tenant with a sending domain that has a key of each kind.
async fn tenant(store: &Store) -> (TenantId, Zone) {
    let now = clock::now();
    let tenant = TenantId::new(now);
    store.create_tenant(&Tenant { id: tenant, name: "one".to_owned(), created_at: now }).await.unwrap();
    let sealer = Sealer::new(&MASTER_KEY);
    let rsa = SigningKey::generate_rsa_2048().unwrap();
    let ed25519 = SigningKey::generate_ed25519().unwrap();
    let key = |algorithm, selector: &str, generated: &content::GeneratedKey| {
        let id = DkimKeyId::new(now);
        NewDkimKey {
            id,
            selector: selector.to_owned(),
            algorithm,
            sealed_private_key: sealer.seal(&dkim_aad(id), &generated.pkcs8).unwrap(),
            dns_txt: generated.dns_txt.clone(),
        }
    };
    let keys = [key(DkimAlgorithm::Rsa, "r1", &rsa), key(DkimAlgorithm::Ed25519, "e1", &ed25519)];
    let domain: DomainName = DOMAIN.parse().unwrap();
    let sending = SendingDomain {
        id: SendingDomainId::new(now),
        tenant,
        return_path_domain: format!("bounce.{DOMAIN}").parse().unwrap(),
        domain,
        unsigned: false,
        created_at: now,
        verified_at: None,
    };
    store.create_sending_domain(&sending, &keys).await.unwrap();
    (tenant, Zone::new(DOMAIN, &[("r1", &rsa.dns_txt), ("e1", &ed25519.dns_txt)]))
}
