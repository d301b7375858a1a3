//! The log from any place on: what watchers are told.

use crate::{Event, Store, StoreError, transaction};
use domain::{BatchId, CampaignId, Labels, Lane, Mailbox, MessageId, SiteId, TenantId};
use uuid::Uuid;

/// An entry of a row of `log_after.sql` or `log_at.sql`, which are types of their own and have the same columns.
macro_rules! entry_of {
    ($row:expr) => {{
        let row = $row;
        let corrupt =
            |column| $crate::StoreError::Corrupt { table: "message_events", column, id: row.message_id.to_string() };
        let labels = $crate::listing::read_labels(row.labels)
            .with($crate::listing::read_overrides(row.overrides.as_deref()).as_ref());
        (|| {
            Ok::<_, $crate::StoreError>($crate::LogEntry {
                seq: row.seq,
                tenant: domain::TenantId::from_uuid(row.tenant_id),
                message: domain::MessageId::from_uuid(row.message_id),
                batch: domain::BatchId::from_uuid(row.batch_id),
                campaign: row.campaign_id.map(domain::CampaignId::from_uuid),
                recipient: row.recipient.parse().map_err(|_| corrupt("recipient"))?,
                lane: domain::Lane::from_code(row.lane).ok_or_else(|| corrupt("lane"))?,
                site: domain::SiteId::from_stored(row.site.clone()),
                event: $crate::Event {
                    kind: domain::fact::FactKind::from_code(row.kind).ok_or_else(|| corrupt("kind"))?,
                    closing: row.closing.and_then(domain::Closing::from_code),
                    ordinal: u32::try_from(row.ordinal).unwrap_or(0),
                    at: row.at,
                    seq: Some(row.seq),
                    detail: serde_json::from_value(row.detail.clone()).unwrap_or_default(),
                },
                labels,
            })
        })()
    }};
}
pub(crate) use entry_of;

/// A look: index scans alone, whatever was planned while a table was empty.
const LOOK: &str = "begin read only; set local enable_seqscan = off";

/// An entry of the log and the message that it happened to.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Its place.
    pub seq: i64,
    /// Whose message it is.
    pub tenant: TenantId,
    /// The message.
    pub message: MessageId,
    /// The call that brought it.
    pub batch: BatchId,
    /// Its campaign.
    pub campaign: Option<CampaignId>,
    /// To whom.
    pub recipient: Mailbox,
    /// How urgent it is.
    pub lane: Lane,
    /// The site as far as it was known then.
    pub site: SiteId,
    /// What happened.
    pub event: Event,
    /// What the message is called.
    pub labels: Labels,
}

/// A stretch of the log.
#[derive(Clone, Debug)]
pub struct LogPage {
    /// The entries, in order.
    pub entries: Vec<LogEntry>,
    /// Everything up to here has been looked at.
    pub upto: i64,
    /// Where the log ended at the time of the look.
    pub head: i64,
}

impl Store {
    /// The first and the last number that the log keeps; the first is one above the last when it keeps nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log_range(&self) -> Result<(i64, i64), StoreError> {
        transaction!(self, LOOK, conn => {
            let last = sqlx::query_scalar!("select seq from mailfleet.log_state").fetch_one(&mut *conn).await?;
            let first = sqlx::query_scalar!("select min(seq) from mailfleet.message_events").fetch_one(&mut *conn).await?;
            (first.unwrap_or(last + 1), last)
        })
    }

    /// What these tenants have among the `window` entries after `after`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log_after(&self, tenants: &[TenantId], after: i64, window: u32) -> Result<LogPage, StoreError> {
        let tenants: Vec<Uuid> = tenants.iter().map(TenantId::as_uuid).collect();
        let (rows, upto, head) = transaction!(self, LOOK, conn => {
            // Its entries are there before the head says so: both are one commit.
            let head = sqlx::query_scalar!("select seq from mailfleet.log_state").fetch_one(&mut *conn).await?;
            let upto = head.min(after.saturating_add(i64::from(window)));
            let rows = if upto > after {
                sqlx::query_file!("src/sql/log_after.sql", after, upto, &tenants).fetch_all(&mut *conn).await?
            } else {
                Vec::new()
            };
            (rows, upto, head)
        })?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            entries.push(entry_of!(row)?);
        }
        Ok(LogPage { entries, upto: upto.max(after), head })
    }
}
