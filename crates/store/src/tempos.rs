//! How fast sites are sent to below their limits: what holds, every change with its cause, and what operators lift.

use crate::{PLAIN, Store, StoreError, audit_log, call, transaction};
use chrono::{DateTime, Utc};
use domain::{
    CampaignId, MessageId, SiteId, TenantId,
    tempo::{Change, Levels, TempoState},
};
use std::{num::NonZeroU16, time::Duration};
use uuid::Uuid;

/// Most places that one look returns.
const MAX_TEMPOS: i64 = 10_000;
/// Most changes that one look returns.
const MAX_CHANGES: i64 = 200;

/// Whose mail to a site it is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TempoPlace {
    /// The site.
    pub site: SiteId,
    /// The route; empty when it is about a tenant or a campaign.
    pub route: String,
    /// The tenant, if it is about his mail alone.
    pub tenant: Option<TenantId>,
    /// The campaign, if it is about its mail alone.
    pub campaign: Option<CampaignId>,
}

/// A change that a sender made.
#[derive(Clone, Debug)]
pub struct NewTempoChange {
    /// Where.
    pub place: TempoPlace,
    /// The rule, or `recovered` or `lifted`.
    pub cause: String,
    /// What the receiver said, without addresses; empty when it said nothing.
    pub reply: String,
    /// The mail that it said it about.
    pub message: Option<MessageId>,
    /// From what to what.
    pub change: Change,
    /// What the next owner must know; `None`: all is as configured again.
    pub state: Option<TempoState>,
}

/// A change as it was written.
#[derive(Clone, Debug)]
pub struct TempoChange {
    /// Its number.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Where.
    pub place: TempoPlace,
    /// The rule, or `recovered` or `lifted`.
    pub cause: String,
    /// What the receiver said.
    pub reply: String,
    /// The mail that it said it about.
    pub message: Option<MessageId>,
    /// What held before.
    pub before: Levels,
    /// What held from then on.
    pub after: Levels,
    /// When it will change by itself at the earliest.
    pub next_at: Option<DateTime<Utc>>,
}

/// Something that an operator has lifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TempoLift {
    /// Its number; they rise.
    pub id: i64,
    /// At which site.
    pub site: SiteId,
    /// For which route; empty: every one, and every tenant and campaign.
    pub route: String,
}

fn nil<T>(id: Option<T>, uuid: impl Fn(&T) -> Uuid) -> Uuid {
    id.as_ref().map_or(Uuid::nil(), uuid)
}

impl TempoPlace {
    fn read(site: String, route: String, tenant: Uuid, campaign: Uuid) -> Self {
        Self {
            site: SiteId::from_stored(site),
            route,
            tenant: Some(tenant).filter(|id| !id.is_nil()).map(TenantId::from_uuid),
            campaign: Some(campaign).filter(|id| !id.is_nil()).map(CampaignId::from_uuid),
        }
    }
}

fn count(value: i32) -> Option<NonZeroU16> {
    u16::try_from(value).ok().and_then(NonZeroU16::new)
}

fn seconds(value: Option<f64>) -> Option<Duration> {
    Duration::try_from_secs_f64(value?.max(0.0)).ok()
}

impl Store {
    /// Writes changes, and what holds after them, in one transaction.
    ///
    /// # Errors
    /// When the database does not answer. A repeat writes the changes twice, and what holds once.
    pub async fn record_tempo(&self, changes: &[NewTempoChange]) -> Result<(), StoreError> {
        transaction!(self, PLAIN, conn => {
            for entry in changes {
                let NewTempoChange { place, cause, reply, message, change, state } = entry;
                let tenant = nil(place.tenant, TenantId::as_uuid);
                let campaign = nil(place.campaign, CampaignId::as_uuid);
                sqlx::query!(
                    "insert into mailfleet.tempo_changes
                         (at, site, route, tenant_id, campaign_id, cause, reply, message_id, rate_before, rate_after,
                          connections_before, connections_after, messages_per_connection_before,
                          messages_per_connection_after, suspended_before, suspended_after, next_at)
                     values (mailfleet.clock(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                             mailfleet.clock() + $16::double precision * interval '1 second')",
                    place.site.as_str(),
                    place.route,
                    tenant,
                    campaign,
                    cause,
                    reply,
                    message.map(|id| id.as_uuid()),
                    change.before.rate,
                    change.after.rate,
                    i32::from(change.before.connections.get()),
                    i32::from(change.after.connections.get()),
                    i32::from(change.before.messages_per_connection.get()),
                    i32::from(change.after.messages_per_connection.get()),
                    change.before.suspended,
                    change.after.suspended,
                    change.next_in.map(|left| left.as_secs_f64()),
                )
                .execute(&mut *conn)
                .await?;
                let Some(state) = state else {
                    sqlx::query!(
                        "delete from mailfleet.tempos
                         where site = $1 and route = $2 and tenant_id = $3 and campaign_id = $4",
                        place.site.as_str(),
                        place.route,
                        tenant,
                        campaign,
                    )
                    .execute(&mut *conn)
                    .await?;
                    continue;
                };
                sqlx::query!(
                    "insert into mailfleet.tempos
                         (site, route, tenant_id, campaign_id, rate, climbs_at, connections, connections_until,
                          messages_per_connection, messages_per_connection_until, suspended_until, changed_at)
                     select $1, $2, $3, $4, $5, now + $6::double precision * interval '1 second', $7,
                            now + $8::double precision * interval '1 second', $9,
                            now + $10::double precision * interval '1 second',
                            now + $11::double precision * interval '1 second', now
                     from mailfleet.clock() as now
                     on conflict (site, route, tenant_id, campaign_id) do update
                     set rate = excluded.rate, climbs_at = excluded.climbs_at, connections = excluded.connections,
                         connections_until = excluded.connections_until,
                         messages_per_connection = excluded.messages_per_connection,
                         messages_per_connection_until = excluded.messages_per_connection_until,
                         suspended_until = excluded.suspended_until, changed_at = excluded.changed_at",
                    place.site.as_str(),
                    place.route,
                    tenant,
                    campaign,
                    state.rate.map(|(rate, _)| rate),
                    state.rate.map(|(_, left)| left.as_secs_f64()),
                    state.connections.map(|(value, _)| i32::from(value.get())),
                    state.connections.map(|(_, left)| left.as_secs_f64()),
                    state.messages_per_connection.map(|(value, _)| i32::from(value.get())),
                    state.messages_per_connection.map(|(_, left)| left.as_secs_f64()),
                    state.suspended.map(|left| left.as_secs_f64()),
                )
                .execute(&mut *conn)
                .await?;
            }
        })
    }

    /// What lowers the pace now, of one site or of all, up to 10,000 places; what has lapsed is left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tempos(&self, site: Option<&SiteId>) -> Result<Vec<(TempoPlace, TempoState)>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"select site, route, tenant_id, campaign_id, rate, connections, messages_per_connection,
                          extract(epoch from climbs_at - now)::double precision as climbs_in,
                          extract(epoch from connections_until - now)::double precision as connections_left,
                          extract(epoch from messages_per_connection_until - now)::double precision as messages_left,
                          extract(epoch from suspended_until - now)::double precision as suspended_left
                   from mailfleet.tempos, mailfleet.clock() as now
                   where ($1::text is null or site = $1)
                     and (rate is not null or connections_until > now or messages_per_connection_until > now
                          or suspended_until > now)
                   order by site, route, tenant_id, campaign_id
                   limit $2"#,
                site.map(SiteId::as_str),
                MAX_TEMPOS,
            )
            .fetch_all(conn)
            .await?
        })?;
        let state = rows.into_iter().map(|row| {
            let held = |value: Option<i32>, left: Option<f64>| {
                Some((value.and_then(count)?, seconds(left)?)).filter(|(_, left)| !left.is_zero())
            };
            let state = TempoState {
                rate: row.rate.map(|rate| (rate, seconds(row.climbs_in).unwrap_or_default())),
                connections: held(row.connections, row.connections_left),
                messages_per_connection: held(row.messages_per_connection, row.messages_left),
                suspended: seconds(row.suspended_left).filter(|left| !left.is_zero()),
            };
            (TempoPlace::read(row.site, row.route, row.tenant_id, row.campaign_id), state)
        });
        Ok(state.collect())
    }

    /// The last changes at a site, the newest first, up to `limit` and never more than 200.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tempo_changes(&self, site: &SiteId, limit: u32) -> Result<Vec<TempoChange>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                "select * from mailfleet.tempo_changes where site = $1 order by change_id desc limit $2",
                site.as_str(),
                i64::from(limit).min(MAX_CHANGES),
            )
            .fetch_all(conn)
            .await?
        })?;
        let level = |rate, connections: i32, messages: i32, suspended| Levels {
            rate,
            connections: count(connections).unwrap_or(NonZeroU16::MIN),
            messages_per_connection: count(messages).unwrap_or(NonZeroU16::MIN),
            suspended,
        };
        let changes = rows.into_iter().map(|row| TempoChange {
            id: row.change_id,
            at: row.at,
            place: TempoPlace::read(row.site, row.route, row.tenant_id, row.campaign_id),
            cause: row.cause,
            reply: row.reply,
            message: row.message_id.map(MessageId::from_uuid),
            before: level(
                row.rate_before,
                row.connections_before,
                row.messages_per_connection_before,
                row.suspended_before,
            ),
            after: level(row.rate_after, row.connections_after, row.messages_per_connection_after, row.suspended_after),
            next_at: row.next_at,
        });
        Ok(changes.collect())
    }

    /// Lifts whatever lowers the pace at a site, for one route or (empty) all of them, tenants and campaigns included.
    /// Owners do so within a second; a site that nobody owns starts as configured.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn lift_tempo(&self, site: &SiteId, route: &str) -> Result<u64, StoreError> {
        transaction!(self, PLAIN, conn => {
            sqlx::query!(
                "insert into mailfleet.tempo_lifts (at, site, route) values (mailfleet.clock(), $1, $2)",
                site.as_str(),
                route,
            )
            .execute(&mut *conn)
            .await?;
            let lifted = sqlx::query!(
                "delete from mailfleet.tempos where site = $1 and ($2 = '' or route = $2)",
                site.as_str(),
                route,
            )
            .execute(&mut *conn)
            .await?;
            let route = if route.is_empty() { "every route" } else { route };
            audit_log::enter(self, conn, None, &format!("site {site}, {route}")).await?;
            lifted.rows_affected()
        })
    }

    /// The lifts numbered above `after`; with `None`, just the number of the last one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tempo_lifts(&self, after: Option<i64>) -> Result<(i64, Vec<TempoLift>), StoreError> {
        let Some(after) = after else {
            let last = call!(self, conn => {
                sqlx::query_scalar!(r#"select coalesce(max(lift_id), 0) as "last!" from mailfleet.tempo_lifts"#)
                    .fetch_one(conn)
                    .await?
            })?;
            return Ok((last, Vec::new()));
        };
        let rows = call!(self, conn => {
            sqlx::query!(
                "select lift_id, site, route from mailfleet.tempo_lifts where lift_id > $1 order by lift_id",
                after
            )
            .fetch_all(conn)
            .await?
        })?;
        let last = rows.last().map_or(after, |row| row.lift_id);
        let lift = rows.into_iter().map(|row| TempoLift {
            id: row.lift_id,
            site: SiteId::from_stored(row.site),
            route: row.route,
        });
        Ok((last, lift.collect()))
    }

    /// Forgets changes and lifts older than `keep`, and what has lapsed. Returns how many changes are gone.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_tempo_changes(&self, keep: Duration) -> Result<u64, StoreError> {
        transaction!(self, PLAIN, conn => {
            let keep = keep.as_secs_f64();
            sqlx::query!(
                "delete from mailfleet.tempo_lifts
                 where at < mailfleet.clock() - $1::double precision * interval '1 second'",
                keep
            )
            .execute(&mut *conn)
            .await?;
            sqlx::query!(
                "delete from mailfleet.tempos
                 where changed_at < mailfleet.clock() - $1::double precision * interval '1 second'",
                keep
            )
            .execute(&mut *conn)
            .await?;
            let gone = sqlx::query!(
                "delete from mailfleet.tempo_changes
                 where at < mailfleet.clock() - $1::double precision * interval '1 second'",
                keep
            )
            .execute(&mut *conn)
            .await?;
            gone.rows_affected()
        })
    }
}
