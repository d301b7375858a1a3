//! A database with a tenant, and the shortest ways to put a message somewhere.

use chrono::{DateTime, Utc};
use domain::fact::FactDetail;
use domain::{BatchId, ContentId, Lane, Mailbox, MessageId, SiteId, TenantId};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::time::Duration;
use store::{
    AcceptCall, Claim, ContentKind, Lease, MessageView, NewContent, NewMessage, Outcome, Quota, Released, Store,
    Tenant, Verdict, What, Whereabouts,
};
use testkit::TestDatabase;

pub const TERM: Duration = Duration::from_secs(10);

pub struct Desk {
    pub store: Store,
    pub tenant: TenantId,
    pub database: TestDatabase,
}

impl Desk {
    pub async fn new() -> Self {
        let database = TestDatabase::create().await;
        let store = database.store().await;
        let now = store.now().await.unwrap();
        let tenant = TenantId::new(now);
        store.create_tenant(&Tenant { id: tenant, name: "tests".to_owned(), created_at: now }).await.unwrap();
        Self { store, tenant, database }
    }

    /// A connection of the test's own, to hold locks and to look where no method does.
    pub async fn pool(&self) -> PgPool {
        PgPoolOptions::new().max_connections(2).connect(&self.database.url()).await.unwrap()
    }

    pub fn call(&self, now: DateTime<Utc>, recipients: &[&str], due: Option<DateTime<Utc>>) -> AcceptCall {
        let batch = BatchId::new(now);
        let content = ContentId::of(self.tenant, &[b"content"]);
        let messages = recipients
            .iter()
            .enumerate()
            .map(|(index, recipient)| {
                let recipient: Mailbox = recipient.parse().unwrap();
                NewMessage {
                    id: MessageId::of_batch(batch, u32::try_from(index).unwrap()),
                    content,
                    site: SiteId::of_domain(recipient.domain_str()),
                    recipient,
                    variables: r#"{"name":"Ada"}"#.to_owned(),
                    lane: Lane::Bulk,
                    due,
                    expires_at: now + chrono::Duration::days(3),
                    overrides: None,
                    trace: None,
                }
            })
            .collect::<Vec<_>>();
        AcceptCall {
            tenant: self.tenant,
            campaign: None,
            batch,
            size: u32::try_from(messages.len()).unwrap(),
            refused: serde_json::json!([]),
            idempotency: None,
            labels: Default::default(),
            template: None,
            contents: vec![NewContent { id: content, kind: ContentKind::Mail, body: b"{}".to_vec(), carried: 0 }],
            messages,
        }
    }

    /// A message that waits and is due.
    pub async fn waiting(&self, recipient: &str) -> MessageId {
        let now = self.store.now().await.unwrap();
        let call = self.call(now, &[recipient], Some(now));
        let id = call.messages[0].id;
        self.store.accept(&[call], now).await.unwrap();
        id
    }

    /// Releases everything that is due.
    pub async fn release(&self) -> Vec<Released> {
        let due = self.store.due_queues(&[]).await.unwrap();
        let quotas: Vec<Quota> =
            due.iter().map(|queue| Quota { queue: queue.id, count: 1_000, lower: DateTime::UNIX_EPOCH }).collect();
        self.store.release(&quotas).await.unwrap()
    }

    pub async fn released(&self, recipient: &str) -> Released {
        let id = self.waiting(recipient).await;
        self.release().await.into_iter().find(|released| released.message == id).unwrap()
    }

    /// A live lease on a shard of this number; every call is another owner's.
    pub async fn lease(&self, number: u16) -> Lease {
        self.store.take_lease(&format!("shard.{number}"), "a sender", TERM).await.unwrap().expect("nobody holds it")
    }

    pub async fn claim(&self, lease: &Lease, released: &Released) -> Option<Verdict> {
        let claim = Claim { message: released.message, release: released.release };
        self.store.claim(lease, &[claim]).await.unwrap().remove(&claim)
    }

    /// A message that is being sent under `lease`.
    pub async fn sending(&self, lease: &Lease, recipient: &str) -> Released {
        let released = self.released(recipient).await;
        assert_eq!(self.claim(lease, &released).await, Some(Verdict::Go));
        released
    }

    pub async fn view(&self, id: MessageId) -> MessageView {
        self.store.message(Some(self.tenant), id).await.unwrap().expect("the message is there")
    }

    pub async fn whereabouts(&self, id: MessageId) -> Whereabouts {
        self.view(id).await.whereabouts
    }

    /// Folds everything and audits.
    pub async fn assert_clean(&self) {
        while self.store.fold(0, 1_000).await.unwrap().taken > 0 {}
        let audit = self.store.audit().await.unwrap();
        assert!(audit.is_clean(), "{audit:?}");
    }
}

pub fn outcome(lease: &Lease, released: &Released, what: What) -> Outcome {
    Outcome {
        message: released.message,
        release: released.release,
        epoch: lease.epoch,
        queue: released.queue,
        site: released.site.clone(),
        what,
        detail: FactDetail { route: Some("relay".to_owned()), ..FactDetail::default() },
    }
}

pub fn deferred() -> What {
    What::Deferred { wait: Duration::from_secs(60) }
}
