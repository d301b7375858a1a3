//! What those who post write of an endpoint.
//!
//! A process that posts takes an endpoint for a while ([`Store::take_endpoints`]) and writes its progress as the holder
//! that it took it as: what a late one writes changes nothing. Progress is a place in the log, so an endpoint that is
//! down costs one row, however much it misses.

use super::{Endpoint, Row};
use crate::{HOT, LogEntry, Store, StoreError, audit_log, call, tail::entry_of, transaction};
use domain::{EndpointId, MessageId, TenantId};
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

/// An endpoint that was taken.
#[derive(Clone, Debug)]
pub struct TakenEndpoint {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// What signs its posts, sealed, and under which number: those that hold now.
    pub secrets: Vec<(i32, Vec<u8>)>,
    /// As whom it was taken.
    pub holder: Uuid,
    /// Where the log ended.
    pub head: i64,
}

/// An event that is tried again by itself.
#[derive(Clone, Debug)]
pub struct ParkedEvent {
    /// Its place in the log.
    pub seq: i64,
    /// Its message.
    pub message: MessageId,
    /// How often it was tried.
    pub tries: u32,
    /// In how long it is next.
    pub next_in: Duration,
    /// What was wrong.
    pub error: String,
    /// Whether it is given up.
    pub dead: bool,
}

/// What a holder writes.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Everything up to here is done, but for what is tried again by itself.
    Done {
        /// The place.
        cursor: i64,
        /// What is tried again.
        parked: Vec<ParkedEvent>,
        /// Whether anything was taken.
        took: bool,
    },
    /// It takes nothing: it is left alone for so long.
    Down {
        /// So long.
        wait: Duration,
        /// What was wrong.
        error: String,
    },
    /// It is not posted to any more.
    Disabled {
        /// Why.
        why: String,
    },
    /// Events that are tried by themselves: what became of them.
    Parked {
        /// Those that were taken.
        taken: Vec<i64>,
        /// The others.
        again: Vec<ParkedEvent>,
    },
    /// What a test came to.
    Tested {
        /// In words.
        result: String,
    },
}

impl Store {
    /// The events of an endpoint that are tried by themselves or were given up, by place; those that are due come behind
    /// none of their message that is not.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn parked_events(
        &self,
        id: EndpointId,
        dead: bool,
        due: bool,
        limit: u32,
    ) -> Result<Vec<ParkedEvent>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"select seq, message_id, tries, error, dead,
                          extract(epoch from next_at - mailfleet.clock())::float8 as "next_in!"
                   from mailfleet.endpoint_events p
                   where endpoint_id = $1 and dead = $2
                     and (not $3 or (next_at <= mailfleet.clock() and not exists (
                         select from mailfleet.endpoint_events earlier
                         where earlier.endpoint_id = p.endpoint_id and earlier.message_id = p.message_id
                           and earlier.seq < p.seq and not earlier.dead and earlier.next_at > mailfleet.clock())))
                   order by seq limit $4"#,
                id.as_uuid(),
                dead,
                due,
                i64::from(limit),
            )
            .fetch_all(conn)
            .await?
        })?;
        let event = |row: _| {
            let Parked { seq, message_id, tries, error, dead, next_in } = row;
            ParkedEvent {
                seq,
                message: MessageId::from_uuid(message_id),
                tries: tries.unsigned_abs(),
                next_in: Duration::try_from_secs_f64(next_in).unwrap_or_default(),
                error,
                dead,
            }
        };
        let parked = rows.into_iter().map(|row| Parked {
            seq: row.seq,
            message_id: row.message_id,
            tries: row.tries,
            error: row.error,
            dead: row.dead,
            next_in: row.next_in,
        });
        Ok(parked.map(event).collect())
    }

    /// Has events that were given up tried again, and tells how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn retry_parked(&self, tenant: TenantId, id: EndpointId) -> Result<u64, StoreError> {
        let done = call!(self, conn => {
            sqlx::query!(
                "update mailfleet.endpoint_events p set dead = false, tries = 0, next_at = mailfleet.clock()
                 from mailfleet.endpoints e
                 where e.endpoint_id = p.endpoint_id and e.endpoint_id = $2 and e.tenant_id = $1",
                tenant.as_uuid(),
                id.as_uuid(),
            )
            .execute(conn)
            .await?
        })?;
        Ok(done.rows_affected())
    }

    /// Of these messages, those of which events are parked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn parked_messages(&self, id: EndpointId, messages: &[MessageId]) -> Result<Vec<MessageId>, StoreError> {
        let ids: Vec<Uuid> = messages.iter().map(|message| message.as_uuid()).collect();
        let found = call!(self, conn => {
            sqlx::query_scalar!(
                "select distinct message_id from mailfleet.endpoint_events
                 where endpoint_id = $1 and not dead and message_id = any ($2)",
                id.as_uuid(),
                &ids,
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(found.into_iter().map(MessageId::from_uuid).collect())
    }

    /// Takes up to `limit` endpoints that there is something to do for; for `hold` nobody else gets them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn take_endpoints(&self, limit: u32, hold: Duration) -> Result<Vec<TakenEndpoint>, StoreError> {
        let holder = Uuid::now_v7();
        let (rows, secrets, head) = transaction!(self, HOT, conn => {
            let head = sqlx::query_scalar!("select seq from mailfleet.log_state").fetch_one(&mut *conn).await?;
            let rows = sqlx::query_as!(
                Row,
                r#"with due as materialized (
                       select e.endpoint_id from mailfleet.endpoints e
                       where ((e.state = 'active' and e.next_at <= mailfleet.clock()
                               and (e.cursor < $3
                                    or exists (select from mailfleet.endpoint_events p
                                               where p.endpoint_id = e.endpoint_id and not p.dead
                                                 and p.next_at <= mailfleet.clock())))
                              or e.test_wanted)
                         and e.held_until <= mailfleet.clock()
                       order by e.next_at, e.endpoint_id limit $1 for update of e skip locked
                   )
                   update mailfleet.endpoints e
                   set holder = $4, held_until = mailfleet.clock() + make_interval(secs => $2)
                   from due where e.endpoint_id = due.endpoint_id
                   returning e.endpoint_id, e.tenant_id, e.main, e.url, e.events, e.description, e.state, e.why, e.cursor,
                             e.until_seq, e.next_at, e.failures, e.failing_since, e.succeeded_at, e.last_error,
                             e.test_wanted, e.test_result, e.tested_at, e.created_at, 0::bigint as "parked!",
                             0::bigint as "dead!""#,
                i64::from(limit),
                hold.as_secs_f64(),
                head,
                holder,
            )
            .fetch_all(&mut *conn)
            .await?;
            let owners: Vec<Uuid> = rows.iter().map(|row| row.main.unwrap_or(row.endpoint_id)).collect();
            let secrets = sqlx::query!(
                "select endpoint_id, number, sealed from mailfleet.endpoint_secrets
                 where endpoint_id = any ($1) and (expires_at is null or expires_at > mailfleet.clock())
                 order by endpoint_id, number desc",
                &owners,
            )
            .fetch_all(&mut *conn)
            .await?;
            (rows, secrets, head)
        })?;
        let mut taken = Vec::with_capacity(rows.len());
        for row in rows {
            let owner = row.main.unwrap_or(row.endpoint_id);
            let own = secrets.iter().filter(|secret| secret.endpoint_id == owner);
            let secrets = own.map(|secret| (secret.number, secret.sealed.clone())).collect();
            taken.push(TakenEndpoint { endpoint: row.try_into()?, secrets, holder, head });
        }
        Ok(taken)
    }

    /// Writes what a holder has come to, and holds the endpoint for `hold` more (nothing: gives it back). `false` when it
    /// is not his any more: then nothing was written. A run that has come to its end is removed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn progress(
        &self,
        taken: &TakenEndpoint,
        progress: &Progress,
        hold: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let (id, hold) = (taken.endpoint.id, hold.map_or(0.0, |hold| hold.as_secs_f64()));
        transaction!(self, HOT, conn => {
            let held = sqlx::query_scalar!(
                "update mailfleet.endpoints set held_until = mailfleet.clock() + make_interval(secs => $3)
                 where endpoint_id = $1 and holder = $2 and held_until > mailfleet.clock() returning until_seq",
                id.as_uuid(),
                taken.holder,
                hold,
            )
            .fetch_optional(&mut *conn)
            .await?;
            match held {
                None => false,
                Some(until) => {
                    write(self, conn, taken, progress, until).await?;
                    true
                }
            }
        })
    }

    /// These entries of the log, if they are the tenant's, in order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log_at(&self, tenant: TenantId, seqs: &[i64]) -> Result<Vec<LogEntry>, StoreError> {
        let rows = transaction!(self, "begin read only; set local enable_seqscan = off", conn => {
            sqlx::query_file!("src/sql/log_at.sql", seqs, tenant.as_uuid()).fetch_all(&mut *conn).await?
        })?;
        rows.into_iter().map(|row| entry_of!(row)).collect()
    }
}

async fn write(
    store: &Store,
    conn: &mut PgConnection,
    taken: &TakenEndpoint,
    progress: &Progress,
    until: Option<i64>,
) -> Result<(), StoreError> {
    let id = taken.endpoint.id.as_uuid();
    match progress {
        Progress::Done { cursor, parked, took } => {
            park(conn, id, parked).await?;
            sqlx::query!(
                "update mailfleet.endpoints
                 set cursor = greatest(cursor, $2), failures = case when $3 then 0 else failures end,
                     failing_since = case when $3 then null else failing_since end,
                     last_error = case when $3 then '' else last_error end,
                     succeeded_at = case when $3 then mailfleet.clock() else succeeded_at end
                 where endpoint_id = $1",
                id,
                *cursor,
                *took,
            )
            .execute(&mut *conn)
            .await?;
            if until.is_some_and(|until| *cursor >= until) {
                sqlx::query!(
                    "delete from mailfleet.endpoints e where e.endpoint_id = $1 and not exists (
                         select from mailfleet.endpoint_events p where p.endpoint_id = $1 and not p.dead)",
                    id
                )
                .execute(&mut *conn)
                .await?;
            }
        }
        Progress::Down { wait, error } => {
            sqlx::query!(
                "update mailfleet.endpoints
                 set failures = failures + 1, failing_since = coalesce(failing_since, mailfleet.clock()), last_error = $3,
                     next_at = mailfleet.clock() + make_interval(secs => $2)
                 where endpoint_id = $1",
                id,
                wait.as_secs_f64(),
                error,
            )
            .execute(&mut *conn)
            .await?;
        }
        Progress::Disabled { why } => {
            sqlx::query!(
                "update mailfleet.endpoints set state = 'disabled', why = $2, last_error = $2 where endpoint_id = $1",
                id,
                why,
            )
            .execute(&mut *conn)
            .await?;
            let resource = format!("endpoint {}: disabled: {why}", taken.endpoint.id);
            audit_log::enter(store, conn, Some(taken.endpoint.tenant), &resource).await?;
        }
        Progress::Parked { taken, again } => {
            sqlx::query!("delete from mailfleet.endpoint_events where endpoint_id = $1 and seq = any ($2)", id, taken)
                .execute(&mut *conn)
                .await?;
            park(conn, id, again).await?;
        }
        Progress::Tested { result } => {
            sqlx::query!(
                "update mailfleet.endpoints
                 set test_wanted = false, test_result = $2, tested_at = mailfleet.clock() where endpoint_id = $1",
                id,
                result,
            )
            .execute(&mut *conn)
            .await?;
        }
    }
    Ok(())
}

async fn park(conn: &mut PgConnection, id: Uuid, events: &[ParkedEvent]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into mailfleet.endpoint_events (endpoint_id, seq, message_id, tries, next_at, error, dead)
         select $1, g.seq, g.message_id, g.tries, mailfleet.clock() + make_interval(secs => g.next_in), g.error, g.dead
         from unnest($2::bigint[], $3::uuid[], $4::integer[], $5::float8[], $6::text[], $7::boolean[])
             as g(seq, message_id, tries, next_in, error, dead)
         on conflict (endpoint_id, seq) do update
         set tries = excluded.tries, next_at = excluded.next_at, error = excluded.error, dead = excluded.dead",
        id,
        &events.iter().map(|event| event.seq).collect::<Vec<_>>(),
        &events.iter().map(|event| event.message.as_uuid()).collect::<Vec<_>>(),
        &events.iter().map(|event| i32::try_from(event.tries).unwrap_or(i32::MAX)).collect::<Vec<_>>(),
        &events.iter().map(|event| event.next_in.as_secs_f64()).collect::<Vec<_>>(),
        &events.iter().map(|event| event.error.clone()).collect::<Vec<_>>(),
        &events.iter().map(|event| event.dead).collect::<Vec<_>>(),
    )
    .execute(&mut *conn)
    .await?;
    Ok(())
}

struct Parked {
    seq: i64,
    message_id: Uuid,
    tries: i32,
    error: String,
    dead: bool,
    next_in: f64,
}
