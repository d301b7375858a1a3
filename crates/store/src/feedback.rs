//! What comes back about mails: reports, complaints, opens, clicks, unsubscribes.
//!
//! A fact and what it does to the suppression list are one transaction, so that whoever was told that it is done is
//! sent nothing by a claim that begins later.

use crate::{
    HOT, NewSuppression, Store, StoreError, SuppressionCause,
    suppressions::{suppress_in, unsuppress_in},
    transaction,
};
use chrono::{DateTime, Utc};
use domain::{
    Mailbox, MessageId, TenantId,
    fact::{FactDetail, FactKind, source_ordinal},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};

/// One thing that came back about a mail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    /// The mail.
    pub message: MessageId,
    /// What; of the kinds that [`FactKind::is_feedback`].
    pub kind: FactKind,
    /// What names the source, so that what comes twice is counted once.
    pub source: String,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// What is known of it.
    pub detail: FactDetail,
    /// What becomes of the recipient.
    pub effect: Effect,
}

/// What becomes of the recipient of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// The tenant sends him no bulk mail any more.
    Unsubscribe,
    /// The tenant sends him bulk mail again, if it was he who did not want it.
    Resubscribe,
    /// The tenant sends him nothing any more: there is nobody.
    Gone,
    /// The tenant sends him no bulk mail any more: he complained.
    Complaint,
}

/// What recording came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordedFeedback {
    /// Facts written.
    pub written: usize,
    /// Known before.
    pub repeated: usize,
    /// About mails that are not kept.
    pub unknown: usize,
}

impl Store {
    /// Records what came back, and does what it asks for, in one transaction. A repeat changes nothing: what it asked for
    /// was done with the first, and may have been taken back since.
    ///
    /// # Errors
    /// When the database does not answer; then nothing was recorded, or, after a time-out, nobody knows.
    pub async fn record_feedback(&self, items: &[Feedback]) -> Result<RecordedFeedback, StoreError> {
        transaction!(self, HOT, conn => { record_in(self, conn, items).await? })
    }

    /// Records what one post of a provider tells, together with what names the post: `None` when it has been taken in
    /// before. It is remembered until `until`.
    ///
    /// # Errors
    /// When the database does not answer; then nothing was recorded, or, after a time-out, nobody knows.
    pub async fn record_post(
        &self,
        post: Option<(&str, DateTime<Utc>)>,
        items: &[Feedback],
    ) -> Result<Option<RecordedFeedback>, StoreError> {
        transaction!(self, HOT, conn => {
            let is_new = match post {
                None => true,
                Some((key, until)) => {
                    let done = sqlx::query!(
                        "insert into mailfleet.webhook_posts (key, expires_at) values ($1, $2) on conflict do nothing",
                        key,
                        until
                    )
                    .execute(&mut *conn)
                    .await?;
                    done.rows_affected() == 1
                }
            };
            if is_new { Some(record_in(self, conn, items).await?) } else { None }
        })
    }

    /// Forgets posts that no provider repeats any more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_posts(&self) -> Result<u64, StoreError> {
        let done = crate::call!(self, conn => {
            sqlx::query!("delete from mailfleet.webhook_posts where expires_at < mailfleet.clock()").execute(conn).await?
        })?;
        Ok(done.rows_affected())
    }

    /// Whom a mail went to, for the page that asks whether he wants no more: his address, the tenant, and whether the
    /// tenant's bulk mail is kept from him.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn correspondent(&self, message: MessageId) -> Result<Option<Correspondent>, StoreError> {
        let row = crate::call!(self, conn => {
            sqlx::query!(
                "select tenant_id, recipient from mailfleet.messages where message_id = $1",
                message.as_uuid()
            )
            .fetch_optional(conn)
            .await?
        })?;
        let Some(row) = row else { return Ok(None) };
        let corrupt = |_| StoreError::Corrupt { table: "messages", id: message.to_string(), column: "recipient" };
        let recipient: Mailbox = row.recipient.parse().map_err(corrupt)?;
        let tenant = TenantId::from_uuid(row.tenant_id);
        let suppressed = self.suppression(tenant, recipient.hash()).await?.is_some();
        Ok(Some(Correspondent { tenant, recipient, suppressed }))
    }

    /// What came back about the mail of a tenant or a campaign, counted from the log.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn engagement(
        &self,
        tenant: Option<TenantId>,
        campaign: Option<domain::CampaignId>,
    ) -> Result<Engagement, StoreError> {
        transaction!(self, crate::PLAIN, conn => {
            sqlx::query_as!(
                Engagement,
                r#"select coalesce(sum(accepted), 0)::bigint as "accepted!",
                          coalesce(sum(delivered), 0)::bigint as "delivered!",
                          coalesce(sum(opens), 0)::bigint as "opens!",
                          coalesce(sum(unique_human_opens), 0)::bigint as "unique_human_opens!",
                          coalesce(sum(clicks), 0)::bigint as "clicks!",
                          coalesce(sum(unique_human_clicks), 0)::bigint as "unique_human_clicks!",
                          coalesce(sum(unsubscribed), 0)::bigint as "unsubscribed!",
                          coalesce(sum(complained), 0)::bigint as "complained!",
                          coalesce(sum(returned), 0)::bigint as "returned!",
                          coalesce(sum(returned_soft), 0)::bigint as "returned_soft!",
                          coalesce(sum(returned_block), 0)::bigint as "returned_block!"
                   from mailfleet.campaign_engagement
                   where ($1::uuid is null or tenant_id = $1) and ($2::uuid is null or campaign_id = $2)"#,
                tenant.map(|id| id.as_uuid()),
                campaign.map(|id| id.as_uuid()),
            )
            .fetch_one(&mut *conn)
            .await?
        })
    }

    /// When mails were delivered, as far as it is known: by message.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delivered_at(&self, messages: &[MessageId]) -> Result<HashMap<MessageId, DateTime<Utc>>, StoreError> {
        let ids: Vec<uuid::Uuid> = messages.iter().map(|id| id.as_uuid()).collect();
        let rows = transaction!(self, "begin read only; set local enable_seqscan = off", conn => {
            sqlx::query!(
                r#"select message_id as "message_id!", at as "at!" from (
                       select message_id, at from mailfleet.message_events
                       where message_id = any ($1) and kind = 2 and ordinal = 0 and closing = 1
                       union all
                       select message_id, at from mailfleet.facts
                       where message_id = any ($1) and kind = 2 and closing = 1
                   ) as ends"#,
                &ids
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        Ok(rows.into_iter().map(|row| (MessageId::from_uuid(row.message_id), row.at)).collect())
    }
}

/// What came back; messages, but for `opens` and `clicks`, which count every one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Engagement {
    /// Messages accepted.
    pub accepted: i64,
    /// Messages that ended delivered: what every rate is of.
    pub delivered: i64,
    /// Opens, by people and machines.
    pub opens: i64,
    /// Messages that a person opened.
    pub unique_human_opens: i64,
    /// Clicks, by people and machines.
    pub clicks: i64,
    /// Messages of which a person followed a link.
    pub unique_human_clicks: i64,
    /// Messages whose recipient unsubscribed by them.
    pub unsubscribed: i64,
    /// Messages that were called spam.
    pub complained: i64,
    /// Messages that came back after they had been taken: there is nobody.
    pub returned: i64,
    /// Messages that came back after they had been taken, for now.
    pub returned_soft: i64,
    /// Messages that came back after they had been taken, by policy or reputation.
    pub returned_block: i64,
}

/// Whom a mail went to.
#[derive(Clone, Debug)]
pub struct Correspondent {
    /// Who sent it.
    pub tenant: TenantId,
    /// To whom.
    pub recipient: Mailbox,
    /// Whether some of the tenant's mail is kept from him.
    pub suppressed: bool,
}

/// Records what came back, within a transaction.
pub(crate) async fn record_in(
    store: &Store,
    conn: &mut PgConnection,
    items: &[Feedback],
) -> Result<RecordedFeedback, StoreError> {
    // Sorted for the locks, each key once.
    let mut keyed: BTreeMap<(MessageId, i16, u32), &Feedback> = BTreeMap::new();
    for item in items {
        debug_assert!(item.kind.is_feedback());
        keyed.entry((item.message, item.kind.code(), source_ordinal(&item.source))).or_insert(item);
    }
    if keyed.is_empty() {
        return Ok(RecordedFeedback::default());
    }
    let ordinal = |ordinal: u32| i32::try_from(ordinal).unwrap_or(i32::MAX);
    let details: Vec<serde_json::Value> =
        keyed.values().map(|item| serde_json::to_value(&item.detail).unwrap_or_default()).collect();
    let rows = sqlx::query_file!(
        "src/sql/feedback.sql",
        &keyed.keys().map(|(message, ..)| message.as_uuid()).collect::<Vec<_>>(),
        &keyed.keys().map(|(_, kind, _)| *kind).collect::<Vec<_>>(),
        &keyed.keys().map(|(.., number)| ordinal(*number)).collect::<Vec<_>>(),
        &keyed.values().map(|item| item.at).collect::<Vec<_>>(),
        &details,
    )
    .fetch_all(&mut *conn)
    .await?;
    let found: HashMap<(MessageId, i16, i32), _> =
        rows.iter().map(|row| ((MessageId::from_uuid(row.message_id), row.kind, row.ordinal), row)).collect();
    let mut wanted: BTreeMap<TenantId, Vec<NewSuppression>> = BTreeMap::new();
    let mut back: Vec<(TenantId, Mailbox)> = Vec::new();
    for ((message, kind, number), item) in &keyed {
        let key = (*message, *kind, ordinal(*number));
        let Some(row) = found.get(&key).filter(|row| row.fresh) else { continue };
        let Ok(recipient) = row.recipient.parse::<Mailbox>() else { continue };
        let tenant = TenantId::from_uuid(row.tenant_id);
        let entry = |cause, bulk_only| NewSuppression {
            recipient: recipient.clone(),
            reason: format!("message {message}"),
            cause,
            bulk_only,
        };
        match item.effect {
            Effect::Nothing => {}
            Effect::Unsubscribe => {
                wanted.entry(tenant).or_default().push(entry(SuppressionCause::Unsubscribe, true));
            }
            Effect::Complaint => {
                wanted.entry(tenant).or_default().push(entry(SuppressionCause::Complaint, true));
            }
            Effect::Gone => {
                wanted.entry(tenant).or_default().push(entry(SuppressionCause::HardBounce, false));
            }
            Effect::Resubscribe => back.push((tenant, recipient)),
        }
    }
    for (tenant, entries) in &wanted {
        suppress_in(store, conn, Some(*tenant), entries).await?;
    }
    for (tenant, recipient) in &back {
        unsuppress_in(store, conn, *tenant, recipient).await?;
    }
    let written = rows.iter().filter(|row| row.fresh).count();
    Ok(RecordedFeedback { written, repeated: rows.len() - written, unknown: keyed.len() - rows.len() })
}
