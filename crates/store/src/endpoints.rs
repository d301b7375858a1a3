//! Where tenants have events posted to, and how far each has got in the log.

mod progress;

pub use progress::{ParkedEvent, Progress, TakenEndpoint};

use crate::{HOT, Store, StoreError, audit_log, call, transaction};
use chrono::{DateTime, Utc};
use domain::{EndpointId, TenantId};
use std::time::Duration;
use uuid::Uuid;

/// An endpoint to make.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// Its name.
    pub id: EndpointId,
    /// Where events are posted.
    pub url: String,
    /// The kinds of events that are; empty: all.
    pub events: Vec<String>,
    /// What it is, for people.
    pub description: String,
    /// What signs, sealed.
    pub secret: Vec<u8>,
    /// The place in the log after which it begins; `None`: at its end.
    pub after: Option<i64>,
}

/// Whether an endpoint is posted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It is.
    Active,
    /// Its owner does not want it now; it keeps its place.
    Paused,
    /// It failed for too long, or said that it is gone; it keeps its place.
    Disabled,
}

impl EndpointState {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }

    fn from_stored(word: &str) -> Option<Self> {
        [Self::Active, Self::Paused, Self::Disabled].into_iter().find(|state| state.as_str() == word)
    }
}

/// An endpoint as it stands.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its name.
    pub id: EndpointId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Of a run over an old stretch of the log: whose it is.
    pub main: Option<EndpointId>,
    /// Where events are posted.
    pub url: String,
    /// The kinds of events that are; empty: all.
    pub events: Vec<String>,
    /// What it is.
    pub description: String,
    /// Whether it is posted to.
    pub state: EndpointState,
    /// Why it is not.
    pub why: String,
    /// Everything up to here is done.
    pub cursor: i64,
    /// Where a run ends.
    pub until: Option<i64>,
    /// Not before then.
    pub next_at: DateTime<Utc>,
    /// Failures in a row.
    pub failures: u32,
    /// Since when.
    pub failing_since: Option<DateTime<Utc>>,
    /// When it last took something.
    pub succeeded_at: Option<DateTime<Utc>>,
    /// What was wrong last.
    pub last_error: String,
    /// Whether a test is wanted.
    pub test_wanted: bool,
    /// What the last test came to.
    pub test_result: String,
    /// When that was.
    pub tested_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Events that are tried again by themselves.
    pub parked: u64,
    /// Events that were given up.
    pub dead: u64,
}

/// What changes of an endpoint; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct EndpointChange {
    /// Where events are posted.
    pub url: Option<String>,
    /// The kinds of events.
    pub events: Option<Vec<String>>,
    /// What it is.
    pub description: Option<String>,
    /// Whether it is posted to.
    pub active: Option<bool>,
}

impl Store {
    /// Makes an endpoint.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn create_endpoint(&self, tenant: TenantId, new: &NewEndpoint) -> Result<(), StoreError> {
        transaction!(self, HOT, conn => {
            sqlx::query!(
                "insert into mailfleet.endpoints
                     (endpoint_id, tenant_id, url, events, description, state, cursor, next_at, held_until, created_at)
                 select $1, $2, $3, $4, $5, 'active', coalesce($6::bigint, l.seq), now.at, now.at, now.at
                 from mailfleet.log_state l, (select mailfleet.clock() as at) as now",
                new.id.as_uuid(),
                tenant.as_uuid(),
                new.url,
                &new.events,
                new.description,
                new.after,
            )
            .execute(&mut *conn)
            .await?;
            sqlx::query!(
                "insert into mailfleet.endpoint_secrets (endpoint_id, number, sealed) values ($1, 1, $2)",
                new.id.as_uuid(),
                new.secret,
            )
            .execute(&mut *conn)
            .await?;
            audit_log::enter(self, conn, Some(tenant), &format!("endpoint {}", new.id)).await?;
        })
    }

    /// Has a stretch of the log posted once more to an endpoint, beside what is new; `false` when there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn redeliver(
        &self,
        tenant: TenantId,
        endpoint: EndpointId,
        run: EndpointId,
        after: i64,
        until: i64,
    ) -> Result<bool, StoreError> {
        transaction!(self, HOT, conn => {
            let done = sqlx::query!(
                "insert into mailfleet.endpoints
                     (endpoint_id, tenant_id, main, url, events, description, state, cursor, until_seq, next_at, held_until,
                      created_at)
                 select $3, tenant_id, endpoint_id, url, events, 'redelivery', 'active', $4, $5, now.at, now.at, now.at
                 from mailfleet.endpoints, (select mailfleet.clock() as at) as now
                 where endpoint_id = $2 and tenant_id = $1 and main is null",
                tenant.as_uuid(),
                endpoint.as_uuid(),
                run.as_uuid(),
                after,
                until,
            )
            .execute(&mut *conn)
            .await?;
            if done.rows_affected() == 1 {
                audit_log::enter(self, conn, Some(tenant), &format!("endpoint {endpoint}: redelivery")).await?;
            }
            done.rows_affected() == 1
        })
    }

    /// A tenant's endpoints and runs after one, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn endpoints(
        &self,
        tenant: TenantId,
        only: Option<EndpointId>,
        after: Option<EndpointId>,
        limit: u32,
    ) -> Result<Vec<Endpoint>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query_as!(
                Row,
                r#"select e.endpoint_id, e.tenant_id, e.main, e.url, e.events, e.description, e.state, e.why, e.cursor,
                          e.until_seq, e.next_at, e.failures, e.failing_since, e.succeeded_at, e.last_error, e.test_wanted,
                          e.test_result, e.tested_at, e.created_at,
                          (select count(*) from mailfleet.endpoint_events p
                           where p.endpoint_id = e.endpoint_id and not p.dead) as "parked!",
                          (select count(*) from mailfleet.endpoint_events p
                           where p.endpoint_id = e.endpoint_id and p.dead) as "dead!"
                   from mailfleet.endpoints e
                   where e.tenant_id = $1 and ($2::uuid is null or e.endpoint_id = $2)
                     and ($3::uuid is null or e.endpoint_id > $3)
                   order by e.endpoint_id limit $4"#,
                tenant.as_uuid(),
                only.map(|id| id.as_uuid()),
                after.map(|id| id.as_uuid()),
                i64::from(limit),
            )
            .fetch_all(conn)
            .await?
        })?;
        rows.into_iter().map(Endpoint::try_from).collect()
    }

    /// Changes an endpoint; `false` when there is none. One that is made active begins where it stopped, at once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn change_endpoint(
        &self,
        tenant: TenantId,
        id: EndpointId,
        change: &EndpointChange,
    ) -> Result<bool, StoreError> {
        transaction!(self, HOT, conn => {
            let done = sqlx::query!(
                "update mailfleet.endpoints
                 set url = coalesce($3, url), events = coalesce($4, events), description = coalesce($5, description),
                     state = case when $6 then 'active' when not $6 then 'paused' else state end,
                     why = case when $6 is null then why else '' end,
                     failures = case when $6 then 0 else failures end,
                     failing_since = case when $6 then null else failing_since end,
                     next_at = case when $6 or $3 is not null then mailfleet.clock() else next_at end
                 where endpoint_id = $2 and tenant_id = $1",
                tenant.as_uuid(),
                id.as_uuid(),
                change.url,
                change.events.as_deref(),
                change.description,
                change.active,
            )
            .execute(&mut *conn)
            .await?;
            if done.rows_affected() == 1 {
                audit_log::enter(self, conn, Some(tenant), &format!("endpoint {id}")).await?;
            }
            done.rows_affected() == 1
        })
    }

    /// The number of an endpoint's next secret; `None` when there is no such endpoint.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next_endpoint_secret(&self, tenant: TenantId, id: EndpointId) -> Result<Option<i32>, StoreError> {
        call!(self, conn => {
            sqlx::query_scalar!(
                r#"select coalesce(max(s.number), 0) + 1 as "number!"
                   from mailfleet.endpoints e join mailfleet.endpoint_secrets s using (endpoint_id)
                   where e.endpoint_id = $2 and e.tenant_id = $1 and e.main is null
                   group by e.endpoint_id"#,
                tenant.as_uuid(),
                id.as_uuid(),
            )
            .fetch_optional(conn)
            .await?
        })
    }

    /// Adds a secret that signs from now on; earlier ones sign along for `grace`. `false` when its number is taken.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn rotate_endpoint_secret(
        &self,
        tenant: TenantId,
        id: EndpointId,
        number: i32,
        sealed: &[u8],
        grace: Duration,
    ) -> Result<bool, StoreError> {
        transaction!(self, HOT, conn => {
            let done = sqlx::query!(
                "with new as (
                     insert into mailfleet.endpoint_secrets (endpoint_id, number, sealed)
                     select endpoint_id, $3, $4 from mailfleet.endpoints where endpoint_id = $2 and tenant_id = $1
                     on conflict do nothing returning endpoint_id
                 ), old as (
                     update mailfleet.endpoint_secrets s
                     set expires_at = least(s.expires_at, mailfleet.clock() + make_interval(secs => $5))
                     from new where s.endpoint_id = new.endpoint_id and s.number < $3
                 )
                 select from new",
                tenant.as_uuid(),
                id.as_uuid(),
                number,
                sealed,
                grace.as_secs_f64(),
            )
            .execute(&mut *conn)
            .await?;
            if done.rows_affected() == 1 {
                audit_log::enter(self, conn, Some(tenant), &format!("endpoint {id}: secret {number}")).await?;
            }
            done.rows_affected() == 1
        })
    }

    /// Removes an endpoint with its place and secrets; `false` when there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_endpoint(&self, tenant: TenantId, id: EndpointId) -> Result<bool, StoreError> {
        transaction!(self, HOT, conn => {
            let done = sqlx::query!(
                "delete from mailfleet.endpoints where endpoint_id = $2 and tenant_id = $1",
                tenant.as_uuid(),
                id.as_uuid(),
            )
            .execute(&mut *conn)
            .await?;
            if done.rows_affected() == 1 {
                audit_log::enter(self, conn, Some(tenant), &format!("endpoint {id}: removed")).await?;
            }
            done.rows_affected() == 1
        })
    }

    /// Asks for a test of an endpoint; `false` when there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn want_test(&self, tenant: TenantId, id: EndpointId) -> Result<bool, StoreError> {
        let done = call!(self, conn => {
            sqlx::query!(
                "update mailfleet.endpoints set test_wanted = true, next_at = least(next_at, mailfleet.clock())
                 where endpoint_id = $2 and tenant_id = $1 and main is null",
                tenant.as_uuid(),
                id.as_uuid(),
            )
            .execute(conn)
            .await?
        })?;
        Ok(done.rows_affected() == 1)
    }
}

struct Row {
    endpoint_id: Uuid,
    tenant_id: Uuid,
    main: Option<Uuid>,
    url: String,
    events: Vec<String>,
    description: String,
    state: String,
    why: String,
    cursor: i64,
    until_seq: Option<i64>,
    next_at: DateTime<Utc>,
    failures: i32,
    failing_since: Option<DateTime<Utc>>,
    succeeded_at: Option<DateTime<Utc>>,
    last_error: String,
    test_wanted: bool,
    test_result: String,
    tested_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    parked: i64,
    dead: i64,
}

impl TryFrom<Row> for Endpoint {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = || StoreError::Corrupt { table: "endpoints", id: row.endpoint_id.to_string(), column: "state" };
        Ok(Self {
            id: EndpointId::from_uuid(row.endpoint_id),
            tenant: TenantId::from_uuid(row.tenant_id),
            main: row.main.map(EndpointId::from_uuid),
            state: EndpointState::from_stored(&row.state).ok_or_else(corrupt)?,
            url: row.url,
            events: row.events,
            description: row.description,
            why: row.why,
            cursor: row.cursor,
            until: row.until_seq,
            next_at: row.next_at,
            failures: row.failures.unsigned_abs(),
            failing_since: row.failing_since,
            succeeded_at: row.succeeded_at,
            last_error: row.last_error,
            test_wanted: row.test_wanted,
            test_result: row.test_result,
            tested_at: row.tested_at,
            created_at: row.created_at,
            parked: row.parked.unsigned_abs(),
            dead: row.dead.unsigned_abs(),
        })
    }
}
