//! Reading the evidence after a run: from the database itself, from the sink's index, from the logs.

use super::{
    evidence::{Change, Copy, Id, Stored},
    fleet::Fleet,
    logs::{self, LogFinding},
    saboteur::Saboteur,
};
use anyhow::Context;
use domain::{Closing, fact::FactKind};
use sqlx::{Connection, PgConnection};
use std::collections::BTreeMap;
use testkit::sink::read_index;

/// Every message, with its facts and where it is.
pub async fn stored(conn: &mut PgConnection) -> anyhow::Result<BTreeMap<Id, Stored>> {
    let rows: Vec<(String, String, String, bool)> = sqlx::query_as(
        "select replace(m.message_id::text, '-', ''), m.recipient, m.batch_id::text,
                exists (select from mailfleet.waiting w where w.message_id = m.message_id)
                or exists (select from mailfleet.moving v where v.message_id = m.message_id)
         from mailfleet.messages m",
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut stored: BTreeMap<Id, Stored> = rows
        .into_iter()
        .map(|(id, recipient, batch, open)| (id, Stored { recipient, batch, open, facts: Vec::new() }))
        .collect();
    // One that is folded is not in the outbox any more; a repeat that is not folded yet is no second one.
    let facts: Vec<(String, i16, i32, Option<i16>)> = sqlx::query_as(
        "select replace(message_id::text, '-', ''), kind, ordinal, closing from (
             select message_id, kind, ordinal, closing, seq as place from mailfleet.message_events
             union all
             select message_id, kind, ordinal, closing, 1e15::bigint + fact_id from mailfleet.facts f
             where not exists (select from mailfleet.message_events e where e.message_id = f.message_id
                               and e.kind = f.kind and e.ordinal = f.ordinal)
         ) as all_facts order by place",
    )
    .fetch_all(&mut *conn)
    .await?;
    for (id, kind, ordinal, closing) in facts {
        let kind = FactKind::from_code(kind).with_context(|| format!("a fact of the unknown kind {kind}"))?;
        // A fact without a message would be an orphan of another kind; it gets an entry that the checker finds.
        let entry = stored.entry(id).or_default();
        entry.facts.push((kind, ordinal, closing.and_then(Closing::from_code)));
    }
    Ok(stored)
}

/// Every change of place.
pub async fn trace(conn: &mut PgConnection) -> anyhow::Result<BTreeMap<Id, Vec<Change>>> {
    type Row = (String, i64, i64, i16, i32, Option<i16>, Option<i16>);
    let rows: Vec<Row> = sqlx::query_as(
        "select replace(message_id::text, '-', ''), txid, (extract(epoch from begun) * 1000000)::bigint, what,
                release_no, old_state, new_state
         from chaos.trace order by n",
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut trace: BTreeMap<Id, Vec<Change>> = BTreeMap::new();
    for (id, txid, begun, what, release, old, new) in rows {
        trace.entry(id).or_default().push(Change { txid, begun, what, release, old, new });
    }
    Ok(trace)
}

/// Every copy.
pub fn copies(fleet: &Fleet) -> anyhow::Result<Vec<Copy>> {
    let lines = read_index(&fleet.folder.join("mailbox"))?;
    let copies = lines.into_iter().map(|line| Copy {
        id: line.fleet_id,
        recipient: line.recipient.to_lowercase(),
        at: i64::try_from(line.at_ms).unwrap_or(i64::MAX).saturating_mul(1_000),
    });
    Ok(copies.collect())
}

/// What is wrong in the logs.
pub fn log_findings(fleet: &Fleet) -> anyhow::Result<Vec<LogFinding>> {
    let mut found = Vec::new();
    for member in &fleet.members {
        found.extend(logs::read(&member.name, &member.log).with_context(|| format!("the log of {}", member.name))?);
    }
    Ok(found)
}

/// What is not over yet.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// Messages that rest.
    pub waiting: i64,
    /// Messages that move.
    pub moving: i64,
    /// Facts that are not in the log yet.
    pub facts: i64,
    /// When the next one of those that rest is due, in seconds from now.
    pub next_s: f64,
}

/// Counts what is not over yet.
pub async fn left(saboteur: &Saboteur) -> anyhow::Result<Left> {
    let mut conn = saboteur.connect().await?;
    let (waiting, moving, facts, next_s) = sqlx::query_as(
        "select (select count(*) from mailfleet.waiting), (select count(*) from mailfleet.moving),
                (select count(*) from mailfleet.facts),
                coalesce((select extract(epoch from min(due) - mailfleet.clock())::float8 from mailfleet.waiting), 0)",
    )
    .fetch_one(&mut conn)
    .await?;
    conn.close().await?;
    Ok(Left { waiting, moving, facts, next_s })
}
