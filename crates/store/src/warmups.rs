//! The ledger of routes that are warmed up: what each day allows, and what of it senders have taken.
//!
//! Permits are taken in small slices under the lock of the plan's row, so all senders together never go above a day's
//! cap, nor faster than it spreads over the day. What a sender takes and does not use is lost.

use crate::{PLAIN, Store, StoreError, audit_log, call, transaction};
use chrono::{DateTime, NaiveDate, Utc};
use domain::{
    SiteId,
    warmup::{self, Day, Ladder, Overflow, Thresholds},
};
use std::time::Duration;

/// Most plans that a fleet has.
const MAX_WARMUPS: i64 = 1_000;
/// Most days that one look returns.
const MAX_DAYS: i64 = 90;

/// A plan as an operator makes it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewWarmup {
    /// The route.
    pub route: String,
    /// The site; `None`: all that have no plan of their own, together.
    pub site: Option<SiteId>,
    /// The daily caps.
    pub ladder: Ladder,
    /// The rung to begin at, from 0.
    pub rung: u16,
    /// What becomes of mail above the cap.
    pub overflow: Overflow,
    /// Over how long a day's cap spreads, a minute to a day.
    pub spread: Duration,
    /// Whether it stays where it is.
    pub held: bool,
}

/// A plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Warmup {
    /// Its number.
    pub id: i64,
    /// What was asked for; the rung is today's.
    pub plan: NewWarmup,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Today's cap and what of it has been taken; `None` before the first mail of the day.
    pub today: Option<(u32, u32)>,
}

/// A day of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmupDay {
    /// The day (UTC).
    pub day: NaiveDate,
    /// The rung, from 0.
    pub rung: u16,
    /// Its cap.
    pub cap: u32,
    /// What has been taken.
    pub taken: u32,
    /// How it came from the day before: `start`, `up`, `stay`, `down` or `held`.
    pub step: String,
    /// Why.
    pub why: String,
}

/// What a look for permits came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmupSlice {
    /// So many may go.
    pub granted: u32,
    /// When there will be more, from now; nothing when there are some.
    pub wait: Duration,
    /// Between two permits by the plain rate.
    pub interval: Duration,
    /// When the day ends, and with it what was granted and not used.
    pub day_ends_in: Duration,
    /// The plan caps nothing any more: the ladder has been climbed, or the plan removed.
    pub is_over: bool,
}

impl Store {
    /// Makes a plan, or changes the one of this route and site; days that were are kept. Today's cap follows when the
    /// rung or ladder changed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn set_warmup(&self, plan: &NewWarmup) -> Result<i64, StoreError> {
        let ladder: Vec<i32> = plan.ladder.caps().iter().map(|cap| i32::try_from(*cap).unwrap_or(i32::MAX)).collect();
        let rung = i16::try_from(plan.rung).unwrap_or(i16::MAX);
        transaction!(self, PLAIN, conn => {
            let id = sqlx::query_scalar!(
                "insert into mailfleet.warmups
                     (route, site, ladder, rung, overflow, spread_seconds, held, created_at)
                 values ($1, $2, $3, $4, $5, $6, $7, mailfleet.clock())
                 on conflict (route, site) do update
                 set ladder = excluded.ladder, rung = excluded.rung, overflow = excluded.overflow,
                     spread_seconds = excluded.spread_seconds, held = excluded.held
                 returning warmup_id",
                plan.route,
                plan.site.as_ref().map_or("", SiteId::as_str),
                &ladder,
                rung,
                plan.overflow.as_str(),
                plan.spread.as_secs_f64(),
                plan.held,
            )
            .fetch_one(&mut *conn)
            .await?;
            let cap = plan.ladder.cap(plan.rung).map_or(i32::MAX, |cap| i32::try_from(cap).unwrap_or(i32::MAX));
            sqlx::query!(
                "update mailfleet.warmup_days
                 set rung = $2, cap = greatest($3, taken), step = 'start', why = 'set by an operator'
                 where warmup_id = $1 and day = (mailfleet.clock() at time zone 'UTC')::date
                   and (rung <> $2 or cap <> $3)",
                id,
                rung,
                cap,
            )
            .execute(&mut *conn)
            .await?;
            audit_log::enter(self, conn, None, &resource(&plan.route, plan.site.as_ref())).await?;
            id
        })
    }

    /// Removes a plan with its days; `false` when there is none. Nothing is capped any more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remove_warmup(&self, route: &str, site: Option<&SiteId>) -> Result<bool, StoreError> {
        transaction!(self, PLAIN, conn => {
            let removed = sqlx::query!(
                "delete from mailfleet.warmups where route = $1 and site = $2",
                route,
                site.map_or("", SiteId::as_str)
            )
            .execute(&mut *conn)
            .await?;
            let is_there = removed.rows_affected() > 0;
            if is_there {
                audit_log::enter(self, conn, None, &resource(route, site)).await?;
            }
            is_there
        })
    }

    /// The plans, by route and site.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn warmups(&self) -> Result<Vec<Warmup>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"select w.warmup_id, w.route, w.site, w.ladder, w.rung, w.overflow, w.spread_seconds, w.held,
                          w.created_at, d.cap as "cap?", d.taken as "taken?"
                   from mailfleet.warmups w
                   left join mailfleet.warmup_days d
                       on d.warmup_id = w.warmup_id and d.day = (mailfleet.clock() at time zone 'UTC')::date
                   order by w.route, w.site
                   limit $1"#,
                MAX_WARMUPS
            )
            .fetch_all(conn)
            .await?
        })?;
        let read = rows.into_iter().map(|row| {
            let today = row.cap.zip(row.taken);
            Ok(Warmup {
                id: row.warmup_id,
                plan: plan(
                    row.warmup_id,
                    row.route,
                    row.site,
                    row.ladder,
                    row.rung,
                    &row.overflow,
                    row.spread_seconds,
                    row.held,
                )?,
                created_at: row.created_at,
                today: today.map(|(cap, taken)| (cap.unsigned_abs(), taken.unsigned_abs())),
            })
        });
        read.collect()
    }

    /// The last days of a plan, the newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn warmup_days(&self, warmup: i64) -> Result<Vec<WarmupDay>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                "select day, rung, cap, taken, step, why from mailfleet.warmup_days
                 where warmup_id = $1 order by day desc limit $2",
                warmup,
                MAX_DAYS
            )
            .fetch_all(conn)
            .await?
        })?;
        let day = rows.into_iter().map(|row| WarmupDay {
            day: row.day,
            rung: row.rung.unsigned_abs(),
            cap: row.cap.unsigned_abs(),
            taken: row.taken.unsigned_abs(),
            step: row.step,
            why: row.why,
        });
        Ok(day.collect())
    }

    /// Takes up to `most` permits of a plan's day. The first look of a day decides its rung by what the day before
    /// brought.
    ///
    /// # Errors
    /// When the database does not answer; then permits may have been taken, and are lost.
    pub async fn take_warmup(&self, warmup: i64, most: u32) -> Result<WarmupSlice, StoreError> {
        transaction!(self, PLAIN, conn => { take(conn, warmup, most).await? })
    }
}

/// Takes permits of today, under the lock of the plan's row.
async fn take(conn: &mut sqlx::PgConnection, warmup: i64, most: u32) -> Result<WarmupSlice, StoreError> {
    const OVER: WarmupSlice = WarmupSlice {
        granted: 0,
        wait: Duration::ZERO,
        interval: Duration::ZERO,
        day_ends_in: Duration::ZERO,
        is_over: true,
    };
    let row = sqlx::query!(
        r#"select route, site, ladder, rung, overflow, spread_seconds, held, mailfleet.clock() as "now!"
           from mailfleet.warmups where warmup_id = $1 for update"#,
        warmup
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(OVER) };
    let now: DateTime<Utc> = row.now;
    let today = now.date_naive();
    let plan = plan(warmup, row.route, row.site, row.ladder, row.rung, &row.overflow, row.spread_seconds, row.held)?;
    if plan.ladder.cap(plan.rung).is_none() {
        return Ok(OVER);
    }
    let known = sqlx::query!(
        "select cap, taken, arrival from mailfleet.warmup_days where warmup_id = $1 and day = $2",
        warmup,
        today
    )
    .fetch_optional(&mut *conn)
    .await?;
    let (cap, taken, arrival) = match known {
        Some(day) => (day.cap.unsigned_abs(), day.taken.unsigned_abs(), day.arrival),
        None => {
            let (rung, step, why) = next_rung(conn, warmup, &plan, today).await?;
            let Some(cap) = plan.ladder.cap(rung) else {
                sqlx::query!(
                    "update mailfleet.warmups set rung = $2 where warmup_id = $1",
                    warmup,
                    i16::try_from(rung).unwrap_or(i16::MAX)
                )
                .execute(&mut *conn)
                .await?;
                return Ok(OVER);
            };
            sqlx::query!(
                "with kept as (update mailfleet.warmups set rung = $3 where warmup_id = $1)
                 insert into mailfleet.warmup_days (warmup_id, day, rung, cap, arrival, step, why)
                 values ($1, $2, $3, $4, $5, $6, $7)",
                warmup,
                today,
                i16::try_from(rung).unwrap_or(i16::MAX),
                i32::try_from(cap).unwrap_or(i32::MAX),
                now,
                step,
                why,
            )
            .execute(&mut *conn)
            .await?;
            (cap, 0, now)
        }
    };
    let spacing = plan.spread / cap.max(1);
    let tomorrow = (today + chrono::Days::new(1)).and_time(chrono::NaiveTime::MIN).and_utc();
    let day_ends_in = (tomorrow - now).to_std().unwrap_or_default();
    let rest = cap.saturating_sub(taken);
    if rest == 0 {
        return Ok(WarmupSlice { granted: 0, wait: day_ends_in, interval: spacing, day_ends_in, is_over: false });
    }
    // GCRA by the database's clock: the cap spreads over the day, with a minute's worth at once.
    let interval = chrono::Duration::from_std(spacing).unwrap_or(chrono::Duration::days(1));
    let tolerance = interval * i32::try_from(warmup::burst(cap, plan.spread) - 1).unwrap_or(i32::MAX);
    let arrival = arrival.max(now);
    let room = now + tolerance - arrival;
    if room < chrono::Duration::zero() {
        let wait = (-room).to_std().unwrap_or_default();
        return Ok(WarmupSlice { granted: 0, wait, interval: spacing, day_ends_in, is_over: false });
    }
    let by_pace = 1 + room.num_microseconds().unwrap_or(i64::MAX) / interval.num_microseconds().unwrap_or(1).max(1);
    let granted = rest.min(most).min(u32::try_from(by_pace).unwrap_or(u32::MAX));
    sqlx::query!(
        "update mailfleet.warmup_days set taken = taken + $3, arrival = $4 where warmup_id = $1 and day = $2",
        warmup,
        today,
        i32::try_from(granted).unwrap_or(i32::MAX),
        arrival + interval * i32::try_from(granted).unwrap_or(i32::MAX),
    )
    .execute(&mut *conn)
    .await?;
    Ok(WarmupSlice { granted, wait: Duration::ZERO, interval: spacing, day_ends_in, is_over: false })
}

/// As the audit log names a plan.
fn resource(route: &str, site: Option<&SiteId>) -> String {
    site.map_or_else(|| format!("warm-up of {route}"), |site| format!("warm-up of {route} at {site}"))
}

/// The rung of a day that begins, and why.
async fn next_rung(
    conn: &mut sqlx::PgConnection,
    warmup: i64,
    plan: &NewWarmup,
    today: NaiveDate,
) -> Result<(u16, &'static str, String), StoreError> {
    let last = sqlx::query!(
        "select day, cap, taken from mailfleet.warmup_days
         where warmup_id = $1 and day < $2 order by day desc limit 1",
        warmup,
        today
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(last) = last else { return Ok((plan.rung, "start", "the first day".to_owned())) };
    if plan.held {
        return Ok((plan.rung, "held", "held by an operator".to_owned()));
    }
    let site = plan.site.as_ref().map(SiteId::as_str);
    // A plan for all other sites leaves out those that have one of their own.
    let seen = sqlx::query!(
        r#"select coalesce(sum(events) filter (where kind = 2 and closing = 1), 0)::bigint as "delivered!",
                  coalesce(sum(events) filter (where kind = 3), 0)::bigint as "deferred!",
                  coalesce(sum(events) filter (where kind = 2 and closing = 2), 0)::bigint as "bounced!",
                  coalesce(sum(events) filter (where kind = 8), 0)::bigint as "complained!"
           from mailfleet.rollup_minute r
           where bucket >= $3::date::timestamp at time zone 'UTC'
             and bucket < ($3::date + 1)::timestamp at time zone 'UTC'
             and route = $1 and ($2::text is null or site = $2)
             and ($2::text is not null
                  or not exists (select from mailfleet.warmups w where w.route = $1 and w.site = r.site))"#,
        plan.route,
        site,
        last.day,
    )
    .fetch_one(&mut *conn)
    .await?;
    let suspended = sqlx::query_scalar!(
        r#"select count(*) as "suspended!" from mailfleet.tempo_changes c
           where at >= $3::date::timestamp at time zone 'UTC' and at < ($3::date + 1)::timestamp at time zone 'UTC'
             and route = $1 and suspended_after and not suspended_before and ($2::text is null or site = $2)
             and ($2::text is not null
                  or not exists (select from mailfleet.warmups w where w.route = $1 and w.site = c.site))"#,
        plan.route,
        site,
        last.day,
    )
    .fetch_one(&mut *conn)
    .await?;
    let day = Day {
        cap: last.cap.unsigned_abs(),
        taken: last.taken.unsigned_abs(),
        delivered: seen.delivered.unsigned_abs(),
        deferred: seen.deferred.unsigned_abs(),
        bounced: seen.bounced.unsigned_abs(),
        complained: seen.complained.unsigned_abs(),
        suspended: suspended.unsigned_abs(),
    };
    let (step, why) = warmup::decide(&day, &Thresholds::default());
    Ok((step.from(plan.rung), step.as_str(), why))
}

#[expect(clippy::too_many_arguments, reason = "the columns of a row")]
fn plan(
    id: i64,
    route: String,
    site: String,
    ladder: Vec<i32>,
    rung: i16,
    overflow: &str,
    spread: f64,
    held: bool,
) -> Result<NewWarmup, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "warmups", id: id.to_string(), column };
    let caps: Vec<u32> = ladder.into_iter().map(i32::unsigned_abs).collect();
    Ok(NewWarmup {
        route,
        site: Some(site).filter(|site| !site.is_empty()).map(SiteId::from_stored),
        ladder: caps.try_into().map_err(|_| corrupt("ladder"))?,
        rung: rung.unsigned_abs(),
        overflow: overflow.parse().map_err(|_| corrupt("overflow"))?,
        spread: Duration::try_from_secs_f64(spread).map_err(|_| corrupt("spread_seconds"))?,
        held,
    })
}
