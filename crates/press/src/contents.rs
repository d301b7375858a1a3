//! Parsed contents, kept for ever: what a content id names never changes.

use crate::{PressConfig, PressError, Source};
use bytes::Bytes;
use content::{Body, CompiledTemplate, ContentError, Limits, MailSource, Prepared, Tracker};
use domain::{ContentId, DomainName, TenantId};
use quick_cache::{OptionsBuilder, Weighter, sync::Cache};
use std::sync::Arc;
use store::{Content, ContentKind};

/// What a parsed content takes for each octet of its stored form: the source and its compiled form.
const WEIGHT_PER_OCTET: u64 = 2;
/// What it takes whatever its size.
const WEIGHT_BASE: u64 = 8 * 1024;

/// Contents that were loaded, good ones and broken ones.
pub(crate) struct Contents {
    cache: Cache<ContentId, Kept, ByWeight>,
    limits: Limits,
    tracker: Arc<Tracker>,
}

/// A content that can be rendered, and what is known of it without rendering.
pub(crate) struct Stock {
    pub(crate) prepared: Prepared,
    signing_domain: DomainName,
}

impl Stock {
    /// The domain whose keys sign.
    pub(crate) fn signing_domain(&self) -> &DomainName {
        &self.signing_domain
    }
}

#[derive(Clone)]
struct Kept {
    tenant: TenantId,
    stock: Result<Arc<Stock>, Arc<ContentError>>,
    weight: u64,
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<ContentId, Kept> for ByWeight {
    fn weight(&self, _: &ContentId, kept: &Kept) -> u64 {
        kept.weight
    }
}

impl Contents {
    pub(crate) fn new(config: &PressConfig, tracker: Arc<Tracker>) -> Self {
        // One shard: a content may take the whole of the room, and a chunk asks once, not once a mail.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(config.content_cache_items.get())
            .weight_capacity(config.content_cache_bytes)
            .build()
            .expect("both capacities are given");
        let cache = Cache::with_options(options, ByWeight, Default::default(), Default::default());
        Self { cache, limits: config.limits.clone(), tracker }
    }

    /// The content of this tenant; concurrent callers share one load.
    pub(crate) async fn get(&self, source: &Source, tenant: TenantId, id: ContentId) -> Result<Arc<Stock>, PressError> {
        let kept = match self.cache.get(&id) {
            Some(kept) => kept,
            None => self.cache.get_or_insert_async(&id, self.load(source, id)).await?,
        };
        if kept.tenant != tenant {
            return Err(PressError::NoContent { id });
        }
        kept.stock.map_err(|source| PressError::Content { id, source })
    }

    async fn load(&self, source: &Source, id: ContentId) -> Result<Kept, PressError> {
        let Content { tenant, kind, body } = fetch(source, id).await?;
        if kind != ContentKind::Mail {
            return Err(PressError::Shape { id });
        }
        let mut octets = body.len();
        let mail: MailSource = serde_json::from_slice(&body).map_err(|_| PressError::Shape { id })?;
        let (mut template, mut raw) = (None, None);
        if let Some(inner) = mail.body.content() {
            let part = fetch(source, inner).await?;
            octets += part.body.len();
            if part.tenant != tenant {
                return Err(PressError::NoContent { id: inner });
            }
            match (&mail.body, part.kind) {
                (Body::Template { .. }, ContentKind::Template) => {
                    let compiled: CompiledTemplate =
                        serde_json::from_slice(&part.body).map_err(|_| PressError::Shape { id: inner })?;
                    template = Some(compiled);
                }
                (Body::Raw { .. }, ContentKind::Raw) => raw = Some(Bytes::from(part.body)),
                _ => return Err(PressError::Shape { id: inner }),
            }
        }
        let mut files = Vec::with_capacity(mail.attachments.len());
        for file in &mail.attachments {
            let Content { tenant: owner, kind, body } = fetch(source, file.content).await?;
            if owner != tenant {
                return Err(PressError::NoContent { id: file.content });
            }
            if kind != ContentKind::Attachment {
                return Err(PressError::Shape { id: file.content });
            }
            octets += body.len();
            files.push(Bytes::from(body));
        }
        let signing_domain = mail.signing_domain.clone();
        let (limits, tracker) = (self.limits.clone(), self.tracker.clone());
        // Parsing a large template takes milliseconds; the reactor's threads have other work.
        let prepare = move || {
            let prepared = Prepared::with_files(&mail, template.as_ref(), raw, &files, &limits);
            prepared.map(|prepared| prepared.tracked_by(tracker))
        };
        let stock = tokio::task::spawn_blocking(prepare).await.map_err(|_| PressError::Panicked)?;
        let weight = WEIGHT_BASE + WEIGHT_PER_OCTET * u64::try_from(octets).unwrap_or(u64::MAX / 4);
        let stock = stock.map(|prepared| Arc::new(Stock { prepared, signing_domain })).map_err(Arc::new);
        Ok(Kept { tenant, stock, weight })
    }
}

async fn fetch(source: &Source, id: ContentId) -> Result<Content, PressError> {
    source.ask(async |store| store.content(id).await).await?.ok_or(PressError::NoContent { id })
}
