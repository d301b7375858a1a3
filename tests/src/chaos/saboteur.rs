//! Somebody with a superuser's password: what is done to the database, and what is read from it, past the fleet.

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::time::Duration;

/// How long a connection or a statement of ours may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Locks, each taken against everyone.
const HOT_TABLES: [&str; 5] = ["waiting", "moving", "facts", "leases", "message_events"];

/// The way past the fleet and its proxies, to the database itself.
#[derive(Clone, Debug)]
pub struct Saboteur {
    url: String,
}

impl Saboteur {
    /// At this database.
    pub fn new(url: String) -> Self {
        Self { url }
    }

    /// A session of ours.
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        let connected = tokio::time::timeout(LIMIT, PgConnection::connect(&self.url)).await;
        let mut conn = connected.context("the database takes no connection")??;
        run(&mut conn, "set application_name = 'saboteur'").await?;
        Ok(conn)
    }

    /// Runs statements.
    pub async fn run(&self, statements: &str) -> anyhow::Result<()> {
        let mut conn = self.connect().await?;
        run(&mut conn, statements).await?;
        conn.close().await?;
        Ok(())
    }

    /// Ends the sessions of the fleet, as many as that in a hundred.
    pub async fn end_sessions(&self, percent: u64) -> anyhow::Result<()> {
        self.run(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name like 'mailfleet%' and pid % 100 < {percent}"
        ))
        .await
    }

    /// Locks a hot table for so long.
    pub async fn lock(&self, choice: u64, lasts: Duration) -> anyhow::Result<()> {
        let table = HOT_TABLES[(choice % HOT_TABLES.len() as u64) as usize];
        let mut conn = self.connect().await?;
        run(&mut conn, &format!("begin; lock table mailfleet.{table} in access exclusive mode")).await?;
        tokio::time::sleep(lasts).await;
        run(&mut conn, "rollback").await
    }

    /// Holds every connection that there is, and takes those that become free, for so long; half of the fleet's
    /// sessions end meanwhile and find no place.
    pub async fn squat(&self, lasts: Duration) -> anyhow::Result<usize> {
        let until = tokio::time::Instant::now() + lasts;
        // While there still is a place.
        let mut own = self.connect().await?;
        let mut squatters = Vec::new();
        let mut full = false;
        while tokio::time::Instant::now() < until {
            match tokio::time::timeout(LIMIT, PgConnection::connect(&self.url)).await {
                Ok(Ok(conn)) => squatters.push(conn),
                _ if full => tokio::time::sleep(Duration::from_millis(5)).await,
                _ => {
                    full = true;
                    run(
                        &mut own,
                        "select pg_terminate_backend(pid) from pg_stat_activity
                         where application_name like 'mailfleet%' and pid % 2 = 0",
                    )
                    .await?;
                }
            }
        }
        Ok(squatters.len())
    }

    /// Moves the database's clock, back as well.
    pub async fn step_clock(&self, millis: i64) -> anyhow::Result<()> {
        self.run(&format!("update mailfleet.clock_offset set shift = shift + {millis} * interval '1 millisecond'"))
            .await
    }
}

/// Runs statements on a session, within the limit.
pub async fn run(conn: &mut PgConnection, statements: &str) -> anyhow::Result<()> {
    let done = tokio::time::timeout(LIMIT, sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(conn)).await;
    done.context("the database does not answer")??;
    Ok(())
}
