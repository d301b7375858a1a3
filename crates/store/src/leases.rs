//! Leases: who may do what only one may do at a time.
//!
//! A lease is a row judged by the database's clock, not an advisory lock: it works through a transaction-mode
//! pooler, and a stopped holder loses it. Epochs come from one sequence, so an epoch alone names a holder of one
//! lease during one tenure.

use crate::{PLAIN, Store, StoreError, call, transaction};
use chrono::{DateTime, Utc};
use std::time::Duration;

/// A lease that was got or renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is for: `dispatcher`, `shard.7`, `fold`.
    pub name: String,
    /// This tenure.
    pub epoch: i64,
}

/// Who holds a lease now.
#[derive(Clone, Debug)]
pub struct LeaseHolder {
    /// What it is for.
    pub name: String,
    /// The holder's name.
    pub owner: String,
    /// Its tenure.
    pub epoch: i64,
    /// Until when, by the database's clock.
    pub until: DateTime<Utc>,
    /// Whether it is live.
    pub live: bool,
}

impl Store {
    /// Takes a lease that nobody holds; `None` while somebody does.
    ///
    /// # Errors
    /// When the database does not answer; the lease may have been taken all the same and runs out by itself.
    pub async fn take_lease(&self, name: &str, owner: &str, term: Duration) -> Result<Option<Lease>, StoreError> {
        let epoch = call!(self, conn => {
            sqlx::query_scalar!(
                r#"insert into mailfleet.leases as l (name, owner, epoch, until)
                   values ($1, $2, nextval('mailfleet.lease_epochs'),
                           mailfleet.clock() + $3::double precision * interval '1 second')
                   on conflict (name) do update
                   set owner = excluded.owner, epoch = excluded.epoch, until = excluded.until
                   where l.until <= mailfleet.clock()
                   returning epoch"#,
                name,
                owner,
                term.as_secs_f64(),
            )
            .fetch_optional(conn)
            .await?
        })?;
        Ok(epoch.map(|epoch| Lease { name: name.to_owned(), epoch }))
    }

    /// Renews leases that are still live; returns the epochs that were renewed. The others are lost.
    ///
    /// # Errors
    /// When the database does not answer; the caller counts from before the call.
    pub async fn renew_leases(&self, epochs: &[i64], term: Duration) -> Result<Vec<i64>, StoreError> {
        let mut sorted = epochs.to_vec();
        sorted.sort_unstable();
        transaction!(self, PLAIN, conn => {
            sqlx::query_scalar!(
                "with mine as materialized (
                     select name from mailfleet.leases
                     where epoch = any ($1) and until > mailfleet.clock()
                     order by name for update
                 )
                 update mailfleet.leases l
                 set until = mailfleet.clock() + $2::double precision * interval '1 second'
                 from mine where l.name = mine.name and l.epoch = any ($1)
                 returning l.epoch",
                &sorted,
                term.as_secs_f64(),
            )
            .fetch_all(&mut *conn)
            .await?
        })
    }

    /// Gives leases back, so that the next owner need not wait.
    ///
    /// # Errors
    /// When the database does not answer; they run out by themselves then.
    pub async fn give_up_leases(&self, epochs: &[i64]) -> Result<(), StoreError> {
        call!(self, conn => {
            sqlx::query!("update mailfleet.leases set until = '-infinity' where epoch = any ($1)", epochs)
                .execute(conn)
                .await?;
        })
    }

    /// The leases that are held or ended within the last hour, and who holds or held them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn leases(&self) -> Result<Vec<LeaseHolder>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"select name, owner, epoch, greatest(until, 'epoch') as "until!", until > mailfleet.clock() as "live!"
                   from mailfleet.leases where until > mailfleet.clock() - interval '1 hour' order by name"#
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(rows
            .into_iter()
            .map(|row| LeaseHolder {
                name: row.name,
                owner: row.owner,
                epoch: row.epoch,
                until: row.until,
                live: row.live,
            })
            .collect())
    }
}
