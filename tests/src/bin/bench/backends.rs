//! Who of the fleet makes Postgres work: its processes by the client that they serve.

use crate::usage::Group;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use std::{collections::BTreeMap, str::FromStr};

/// The server's processes, by the name that their client gave, or by what they do in the background. A service keeps
/// its connections, so after a warm-up they are the ones that it goes on using.
pub async fn by_client(url: &str) -> anyhow::Result<Vec<Group>> {
    let mut connection = PgConnectOptions::from_str(url)?.application_name("bench").connect().await?;
    let statement = "select pid, coalesce(nullif(application_name, ''), backend_type) from pg_stat_activity";
    let rows: Vec<(i32, String)> = sqlx::query_as(statement).fetch_all(&mut connection).await?;
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (pid, name) in rows {
        let name = name.strip_prefix("mailfleet-").unwrap_or(&name);
        found.entry(format!("postgres for {name}")).or_default().push(u32::try_from(pid)?);
    }
    Ok(found.into_iter().map(|(name, roots)| Group { name, roots, alone: true }).collect())
}
