//! `status`: what runs, whether it is ready, who holds what, how much waits.

use crate::fleet::{Process, http};
use crate::{
    exit::Exit,
    output::{Output, Table, grouped, safe},
    reach::Reach,
};
use serde::Serialize;
use store::LeaseHolder;

/// How a fleet stands.
#[derive(Debug, Serialize)]
struct Status {
    version: &'static str,
    services: Vec<ServiceStatus>,
    /// What is wrong with the database, when it cannot be asked.
    database: Option<String>,
    bus_epoch: Option<i64>,
    waiting: i64,
    due: i64,
    moving: i64,
    pauses: usize,
    leases: Vec<LeaseStatus>,
}

#[derive(Debug, Serialize)]
struct ServiceStatus {
    name: String,
    pid: Option<u32>,
    restarts: u32,
    ready: bool,
    trouble: String,
}

#[derive(Debug, Serialize)]
struct LeaseStatus {
    name: String,
    owner: String,
    epoch: i64,
    live: bool,
}

/// Tells how the fleet stands; a finding when something is not ready.
pub async fn status(reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let local = reach.local()?;
    let mut services = Vec::new();
    for process in local.iter().flat_map(|state| &state.processes) {
        services.push(ask(process).await);
    }
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION"),
        services,
        database: None,
        bus_epoch: None,
        waiting: 0,
        due: 0,
        moving: 0,
        pauses: 0,
        leases: Vec::new(),
    };
    // Without a local fleet and without a configuration there is nothing to tell.
    let sections = reach.sections()?;
    drop(sections);
    if let Err(error) = look(&mut status, reach).await {
        status.database = Some(crate::exit::tell(&error));
    }
    let well = status.database.is_none() && status.services.iter().all(|service| service.ready);
    out.answer(&status, || told(&status))?;
    Ok(if well { Exit::Ok } else { Exit::Finding })
}

async fn ask(process: &Process) -> ServiceStatus {
    let (ready, trouble) = match (process.pid, process.http) {
        (None, _) => (false, "ended; is being started again".to_owned()),
        (Some(_), None) => (true, String::new()),
        (Some(_), Some(address)) => match http::ready(address).await {
            None => (false, "does not answer".to_owned()),
            Some(answer) => (answer.ok, answer.trouble()),
        },
    };
    ServiceStatus { name: process.name.clone(), pid: process.pid, restarts: process.restarts, ready, trouble }
}

async fn look(status: &mut Status, reach: &Reach) -> anyhow::Result<()> {
    let store = reach.store().await?;
    for queue in store.queues(None).await? {
        status.waiting += queue.waiting;
        status.due += queue.due;
        status.moving += queue.moving;
    }
    status.pauses = store.pauses().await?.len();
    status.bus_epoch = Some(store.bus_state().await?.epoch);
    status.leases = store.leases().await?.into_iter().map(LeaseStatus::from).collect();
    Ok(())
}

impl From<LeaseHolder> for LeaseStatus {
    fn from(lease: LeaseHolder) -> Self {
        Self { name: lease.name, owner: lease.owner, epoch: lease.epoch, live: lease.live }
    }
}

fn told(status: &Status) -> String {
    let mut text = format!("mailfleet {}\n\n", status.version);
    if !status.services.is_empty() {
        let mut table = Table::new(5, &["service", "process", "ready", "restarts", ""]);
        for service in &status.services {
            table.row(vec![
                service.name.clone(),
                service.pid.map_or("-".to_owned(), |pid| pid.to_string()),
                if service.ready { "yes" } else { "NO" }.to_owned(),
                service.restarts.to_string(),
                safe(&service.trouble),
            ]);
        }
        text.push_str(&table.text());
        text.push('\n');
    }
    if let Some(trouble) = &status.database {
        text.push_str(&format!("the database cannot be asked: {trouble}\n"));
        return text;
    }
    text.push_str(&format!(
        "{} waiting ({} due), {} moving, {} pauses; broker epoch {}\n",
        grouped(status.waiting),
        grouped(status.due),
        grouped(status.moving),
        status.pauses,
        status.bus_epoch.unwrap_or(0)
    ));
    for (owner, names) in by_owner(&status.leases) {
        text.push_str(&format!("{} holds {}\n", safe(&owner), names.join(", ")));
    }
    let ended: Vec<&str> = status.leases.iter().filter(|lease| !lease.live).map(|lease| lease.name.as_str()).collect();
    if !ended.is_empty() {
        text.push_str(&format!("nobody holds {}\n", ended.join(", ")));
    }
    text
}

/// The live leases of each owner; shards shortened to their count.
fn by_owner(leases: &[LeaseStatus]) -> Vec<(String, Vec<String>)> {
    let mut owners: std::collections::BTreeMap<&str, (Vec<String>, usize)> = std::collections::BTreeMap::new();
    for lease in leases.iter().filter(|lease| lease.live) {
        let (names, shards) = owners.entry(&lease.owner).or_default();
        if lease.name.starts_with("shard.") {
            *shards += 1;
        } else {
            names.push(lease.name.clone());
        }
    }
    owners
        .into_iter()
        .map(|(owner, (mut names, shards))| {
            if shards > 0 {
                names.push(format!("{shards} shards"));
            }
            (owner.to_owned(), names)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_of_many_shards_is_told_in_one_line() {
        let lease = |name: &str, owner: &str| LeaseStatus {
            name: name.to_owned(),
            owner: owner.to_owned(),
            epoch: 1,
            live: true,
        };
        let leases = [lease("dispatcher", "d"), lease("shard.0", "s"), lease("shard.1", "s")];
        let expected =
            vec![("d".to_owned(), vec!["dispatcher".to_owned()]), ("s".to_owned(), vec!["2 shards".to_owned()])];
        assert_eq!(by_owner(&leases), expected);
    }
}
