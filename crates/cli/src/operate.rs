//! What operators do to a fleet as a whole: `report`, `audit`, `migrate`, `topology apply`, `admin-key`.

use crate::{
    exit::Exit,
    output::{Output, grouped},
    reach::Reach,
};
use domain::{ApiKeyId, CampaignId, TenantId};
use ingest::keys::fleet_key;
use serde_json::json;
use store::{Actor, Audit, Engagement, Store};

/// What came back.
pub async fn report(
    tenant: Option<TenantId>,
    campaign: Option<CampaignId>,
    reach: &Reach,
    out: Output,
) -> anyhow::Result<Exit> {
    let figures = reach.store().await?.engagement(tenant, campaign).await?;
    out.answer(&figures, || engagement(&figures))?;
    Ok(Exit::Ok)
}

/// Every rate beside what it is of.
fn engagement(figures: &Engagement) -> String {
    let mut text = format!("accepted       {:>12}\n", grouped(figures.accepted));
    let mut line = |name: &str, count: i64, of: i64, more: &str| {
        let rate = if of > 0 { format!("{:7.2} %", 100.0 * count as f64 / of as f64) } else { String::new() };
        text.push_str(&format!("{name:<14} {:>12} {rate}  {more}\n", grouped(count)));
    };
    line("delivered", figures.delivered, figures.accepted, "of accepted; the others are of delivered");
    let of = figures.delivered;
    line("opened", figures.unique_human_opens, of, &format!("by people; {} opens in all", grouped(figures.opens)));
    line("clicked", figures.unique_human_clicks, of, &format!("by people; {} clicks in all", grouped(figures.clicks)));
    line("unsubscribed", figures.unsubscribed, of, "");
    line("complained", figures.complained, of, "");
    line("returned", figures.returned, of, "there is nobody");
    line("", figures.returned_soft, of, "for now");
    line("", figures.returned_block, of, "by policy or reputation");
    text
}

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
