//! Loads contents and keys, keeps them, and renders one mail.
//!
//! A [`Press`] is shared by everything in a process that renders. [`Press::plate`] brings together what the
//! mails of one content have in common: the parsed content, kept for ever since contents never change, and
//! the signing keys of its domain, kept for [`PressConfig::key_ttl`]. Many callers that want the same at
//! once share one load. [`Plate::render`] then makes one mail; it only computes, most of it the RSA
//! signature, and belongs on the [`Pool`], which bounds how much of that runs at a time and keeps room for
//! urgent mail. [`Press::render`] does all of it for a single job.
//!
//! Guarantees
//! - The same job, content and keys give the same bytes, in whichever process.
//! - A mail that cannot be rendered fails alone, with a reason fit to be shown ([`PressError::reason`]),
//!   even when rendering it panics.
//! - What is this fleet's own fault (no database, a key that does not open) never fails a mail.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod contents;
mod error;
mod keys;
mod plate;
mod pool;
mod seal;

pub use config::PressConfig;
pub use error::{PressError, Verdict};
pub use plate::Plate;
pub use pool::{Pool, PoolClosed};
pub use seal::dkim_aad;

use bus::Job;
use content::{Rendered, Tracker};
use contents::Contents;
use domain::{ContentId, TenantId, TokenKeys, TrackingSite};
use keys::Keys;
use service::Sealer;
use std::sync::{Arc, Mutex};
use store::{Store, StoreError};
use tokio::time::{Duration, Instant};

/// What a process needs to render; shared by everything in it that does.
pub struct Press {
    contents: Contents,
    keys: Keys,
    source: Source,
    pool: Pool,
    max_message_bytes: usize,
}

impl Press {
    /// A press that loads from this database, opens keys with this master key and signs return paths and links with
    /// the one that derives from it. Without a site mails are not tracked.
    pub fn new(store: Store, sealer: Arc<Sealer>, config: &PressConfig, site: Option<TrackingSite>) -> Self {
        let tracker = Arc::new(Tracker::new(token_keys(&sealer), site));
        Self {
            contents: Contents::new(config, tracker),
            keys: Keys::new(config, sealer),
            source: Source { store, pause: config.outage_pause, until: Mutex::new(None) },
            pool: Pool::new(config),
            max_message_bytes: config.limits.max_message_bytes,
        }
    }

    /// What the mails of this content of this tenant have in common.
    ///
    /// # Errors
    /// When there is no such content, it cannot be rendered for anybody, no key signs for its domain, or
    /// the database does not answer.
    pub async fn plate(&self, tenant: TenantId, content: ContentId) -> Result<Plate, PressError> {
        let stock = self.contents.get(&self.source, tenant, content).await?;
        let keys = self.keys.get(&self.source, tenant, stock.signing_domain()).await?;
        Ok(Plate::new(stock, keys))
    }

    /// Renders one mail, away from the reactor's threads.
    ///
    /// # Errors
    /// As [`Press::plate`] and [`Plate::render`].
    pub async fn render(&self, job: &Job) -> Result<Rendered, PressError> {
        let plate = self.plate(job.tenant, job.content).await?;
        let (lane, job) = (job.lane, job.clone());
        self.pool().run(lane, move || plate.render(&job)).await?
    }

    /// The octets of the largest mail that may be rendered.
    pub const fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// The threads to render on.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

/// The keys of a fleet's tokens, for who makes them and for who reads them.
pub fn token_keys(sealer: &Sealer) -> TokenKeys {
    TokenKeys::new(sealer.derive("tokens"), [])
}

impl std::fmt::Debug for Press {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Press").finish_non_exhaustive()
    }
}

/// The database, which is left alone for a moment after it did not answer: callers that queue behind one
/// load would otherwise each wait out the full time, one after the other.
struct Source {
    store: Store,
    pause: Duration,
    until: Mutex<Option<Instant>>,
}

impl Source {
    async fn ask<T>(&self, question: impl AsyncFnOnce(&Store) -> Result<T, StoreError>) -> Result<T, PressError> {
        if self.until.lock().expect("no holder of this lock panics").is_some_and(|until| Instant::now() < until) {
            return Err(PressError::Outage);
        }
        let answer = question(&self.store).await;
        if answer.as_ref().is_err_and(StoreError::is_retryable) {
            *self.until.lock().expect("no holder of this lock panics") = Some(Instant::now() + self.pause);
        }
        Ok(answer?)
    }
}
