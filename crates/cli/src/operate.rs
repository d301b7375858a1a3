//! What operators do to a fleet as a whole: `audit`, `migrate`, `topology apply`, `admin-key`.

use crate::{
    exit::Exit,
    output::{Output, grouped},
    reach::Reach,
};
use domain::ApiKeyId;
use ingest::keys::fleet_key;
use serde_json::json;
use store::{Actor, Audit, Store};

/// Recounts everything.
pub async fn audit(reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let audit = reach.store().await?.audit().await?;
    let clean = audit.is_clean();
    let mut value = serde_json::to_value(&audit)?;
    value["clean"] = clean.into();
    out.answer(&value, || told(&audit))?;
    Ok(if clean { Exit::Ok } else { Exit::Finding })
}

fn told(audit: &Audit) -> String {
    let check = |count: i64, good: &str, bad: &str| {
        if count == 0 { format!("  ok     {good}\n") } else { format!("  WRONG  {}: {bad}\n", grouped(count)) }
    };
    let mut text = format!(
        "{} messages, {} open; {} log entries, {} facts not folded yet\n",
        grouped(audit.messages),
        grouped(audit.open),
        grouped(audit.events),
        grouped(audit.facts)
    );
    text.push_str(&check(
        audit.rollup_mismatches,
        "the figures equal a recount of the log",
        "figures that differ from a recount of the log",
    ));
    text.push_str(&check(audit.seq_gaps, "the log's numbers have no gap", "numbers missing in the log"));
    text.push_str(&check(
        audit.orphans,
        "every message waits, moves or is closed",
        "messages that neither wait, move nor are closed",
    ));
    text.push_str(&check(audit.doubled, "no message is in two places", "messages in two places at once"));
    text
}

/// Applies what is missing of the schema.
pub async fn migrate(reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    store::migrate(&reach.postgres_url()?).await?;
    let version = store::MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0);
    out.answer(&json!({"version": version}), || format!("the schema is at version {version}"))?;
    Ok(Exit::Ok)
}

/// Puts streams and consumers in place.
pub async fn apply_topology(reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let (bus, fleet) = reach.bus().await?;
    let applied = bus::topology::apply(&bus, fleet.shards).await?;
    out.answer(&applied, || {
        if applied.is_nothing() {
            return "everything was in place".to_owned();
        }
        [
            ("streams made", &applied.created_streams),
            ("streams changed", &applied.updated_streams),
            ("consumers made", &applied.created_consumers),
            ("consumers changed", &applied.updated_consumers),
            ("consumers removed", &applied.removed_consumers),
        ]
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what}: {}\n", names.join(", ")))
        .collect()
    })?;
    Ok(Exit::Ok)
}

/// Makes a key that administers the fleet: the first one, or a new one for who lost his.
pub async fn create_admin_key(name: &str, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let (id, token) = mint_admin_key(&reach.store().await?, name).await?;
    out.answer(&json!({"api_key_id": id.to_string(), "api_key": token}), || {
        format!("{token}\nThis is shown once. End it with: mailfleet admin-key revoke {id}")
    })?;
    Ok(Exit::Ok)
}

/// Ends a key.
pub async fn revoke_admin_key(id: &str, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let id: ApiKeyId =
        id.parse().map_err(|_| crate::exit::Failure::usage(format!("{id:?} is no key's id, which is a UUID")))?;
    let store = reach.store().await?.acting(Actor { key: None, call: "admin-key revoke" });
    let revoked = store.revoke_api_key(None, id, service::clock::now()).await?;
    out.answer(&json!({"revoked": revoked}), || {
        if revoked {
            "revoked; refused everywhere within seconds".to_owned()
        } else {
            "there is no such key".to_owned()
        }
    })?;
    Ok(if revoked { Exit::Ok } else { Exit::Finding })
}

/// A new key that administers the fleet; its token is known here alone.
pub async fn mint_admin_key(store: &Store, name: &str) -> anyhow::Result<(ApiKeyId, String)> {
    let now = service::clock::now();
    let (key, token) = fleet_key(name, now)?;
    store.acting(Actor { key: None, call: "admin-key create" }).create_api_key(&key, now).await?;
    Ok((key.id, token))
}
