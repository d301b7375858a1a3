//! Mails that came in: bounces, complaints, answers, reports.
//!
//! A mail is kept as it came before it is answered for. Whoever reads it takes it for a while ([`Store::due_inbound`])
//! and records what it comes to in one transaction with its end ([`Store::finish_inbound`]): a reader that dies leaves
//! it to the next one, and what it says is counted once.

use crate::{
    HOT, PLAIN, Store, StoreError, audit_log, call,
    feedback::{Feedback, RecordedFeedback, record_in},
    transaction,
};
use chrono::{DateTime, Utc};
use domain::{InboundId, MessageId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::{net::IpAddr, time::Duration};
use uuid::Uuid;

/// Octets of the mails that are taken at once to be read, but for the last of them.
const OCTETS: i64 = 32 * 1024 * 1024;
/// Most mails removed or read anew by one statement.
const AT_ONCE: i64 = 1_000;

/// What kind of address a mail came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// The return path of a message.
    ReturnPath,
    /// Where the recipient of a message unsubscribes.
    Unsubscribe,
    /// A mailbox that reports are sent to.
    Reports,
}

impl Door {
    /// Every door.
    pub const ALL: [Self; 3] = [Self::ReturnPath, Self::Unsubscribe, Self::Reports];

    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReturnPath => "return_path",
            Self::Unsubscribe => "unsubscribe",
            Self::Reports => "reports",
        }
    }

    const fn code(self) -> i16 {
        match self {
            Self::ReturnPath => 1,
            Self::Unsubscribe => 2,
            Self::Reports => 3,
        }
    }
}

/// A mail as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundMail {
    /// Its name here.
    pub id: InboundId,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// What kind of address it came to.
    pub door: Door,
    /// The message of ours that the address names.
    pub about: Option<MessageId>,
    /// The envelope sender; empty for `<>`.
    pub sender: String,
    /// The envelope recipient.
    pub recipient: String,
    /// The address of whoever brought it.
    pub remote: String,
    /// What he called himself.
    pub helo: String,
    /// Whether it came under TLS.
    pub tls: bool,
    /// Header and body.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

/// Where a mail stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InboundState {
    /// Nobody has read it yet.
    Waiting,
    /// It has been read.
    Read,
    /// Nothing could be made of it.
    Dead,
}

impl InboundState {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Read => "read",
            Self::Dead => "dead",
        }
    }

    const fn code(self) -> i16 {
        match self {
            Self::Waiting => 0,
            Self::Read => 1,
            Self::Dead => 2,
        }
    }
}

/// A mail that is to be read.
#[derive(Clone, Debug)]
pub struct DueInbound {
    /// The mail.
    pub mail: InboundMail,
    /// How often somebody has begun to, this time included.
    pub tries: u16,
}

/// What reading a mail came to.
#[derive(Clone, Debug)]
pub struct InboundOutcome {
    /// The mail.
    pub id: InboundId,
    /// What it is, in a word; empty for one of which nothing could be made.
    pub kind: String,
    /// What it says, or why nothing could be made of it.
    pub outcome: serde_json::Value,
    /// Whether nothing could be made of it.
    pub is_dead: bool,
    /// What it tells about messages.
    pub feedback: Vec<Feedback>,
    /// What it tells about a domain's mail.
    pub dmarc: Option<NewDmarcReport>,
    /// What it tells about TLS to a domain.
    pub tls: Vec<NewTlsReport>,
}

/// A report of what became of a domain's mail.
#[derive(Clone, Debug)]
pub struct NewDmarcReport {
    /// Who reports.
    pub org: String,
    /// Names it among his reports.
    pub report_id: String,
    /// The domain.
    pub domain: String,
    /// From when.
    pub begins: DateTime<Utc>,
    /// Until when.
    pub ends: DateTime<Utc>,
    /// The policy that he found.
    pub policy: String,
    /// The same for domains below.
    pub subdomain_policy: String,
    /// Rows that are not kept.
    pub left_out: u32,
    /// The others.
    pub rows: Vec<NewDmarcRow>,
}

/// Mails of one kind from one address.
#[derive(Clone, Debug)]
pub struct NewDmarcRow {
    /// The address.
    pub source: Option<IpAddr>,
    /// How many.
    pub count: u32,
    /// What was done with them.
    pub disposition: String,
    /// Whether an aligned signature held.
    pub dkim: bool,
    /// Whether aligned SPF held.
    pub spf: bool,
    /// The domain in `From`.
    pub header_from: String,
    /// The domain of the envelope sender.
    pub envelope_from: String,
    /// The single results and reasons.
    pub details: serde_json::Value,
}

/// A report of how TLS went under one policy.
#[derive(Clone, Debug)]
pub struct NewTlsReport {
    /// Who reports.
    pub org: String,
    /// Names it among his reports.
    pub report_id: String,
    /// The domain.
    pub domain: String,
    /// The kind of policy.
    pub policy: String,
    /// From when.
    pub begins: DateTime<Utc>,
    /// Until when.
    pub ends: DateTime<Utc>,
    /// Sessions that went well.
    pub successes: u32,
    /// Sessions that did not.
    pub failures: u32,
    /// Why.
    pub reasons: Vec<String>,
}

/// Which mails are looked for; what is absent does not matter.
#[derive(Clone, Debug, Default)]
pub struct InboundFilter {
    /// About this message.
    pub about: Option<MessageId>,
    /// What it turned out to be.
    pub kind: Option<String>,
    /// Where it stands.
    pub state: Option<InboundState>,
    /// Received since then.
    pub since: Option<DateTime<Utc>>,
}

/// A mail without its octets, and what has been made of it.
#[derive(Clone, Debug)]
pub struct InboundEntry {
    /// The mail; `raw` is empty but where it was asked for.
    pub mail: InboundMail,
    /// Its size.
    pub octets: u32,
    /// Where it stands.
    pub state: InboundState,
    /// How often somebody began to read it.
    pub tries: u16,
    /// What it is, once it has been read.
    pub kind: Option<String>,
    /// What it says.
    pub outcome: Option<serde_json::Value>,
    /// When it was read.
    pub read_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Keeps mails as they came: durable once this returns. One that is kept already stays as it is.
    ///
    /// # Errors
    /// When the database does not answer; then none is kept, or, after a time-out, nobody knows.
    pub async fn take_in(&self, mails: &[InboundMail]) -> Result<(), StoreError> {
        fn each<'a, T>(mails: &'a [InboundMail], get: impl Fn(&'a InboundMail) -> T) -> Vec<T> {
            mails.iter().map(get).collect()
        }
        let octets = |mail: &InboundMail| i32::try_from(mail.raw.len()).unwrap_or(i32::MAX);
        transaction!(self, HOT, conn => {
            sqlx::query!(
                r#"insert into mailfleet.inbound
                       (inbound_id, received_at, door, about, sender, recipient, remote, helo, tls, octets, raw, due_at)
                   select g.*, mailfleet.clock()
                   from unnest($1::uuid[], $2::timestamptz[], $3::smallint[], $4::uuid[], $5::text[], $6::text[],
                               $7::text[], $8::text[], $9::boolean[], $10::integer[], $11::bytea[]) as g
                   on conflict do nothing"#,
                &each(mails, |mail| mail.id.as_uuid()),
                &each(mails, |mail| mail.received_at),
                &each(mails, |mail| mail.door.code()),
                &each(mails, |mail| mail.about.map(|about| about.as_uuid())) as &[Option<Uuid>],
                &each(mails, |mail| mail.sender.as_str()) as &[&str],
                &each(mails, |mail| mail.recipient.as_str()) as &[&str],
                &each(mails, |mail| mail.remote.as_str()) as &[&str],
                &each(mails, |mail| mail.helo.as_str()) as &[&str],
                &each(mails, |mail| mail.tls),
                &each(mails, octets),
                &each(mails, |mail| mail.raw.as_slice()) as &[&[u8]],
            )
            .execute(&mut *conn)
            .await?;
        })
    }

    /// Takes up to `limit` mails that wait to be read, the oldest first, and no more than about 32 MiB of them; for
    /// `lease` nobody else gets them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn due_inbound(&self, limit: u32, lease: Duration) -> Result<Vec<DueInbound>, StoreError> {
        let rows = transaction!(self, HOT, conn => {
            sqlx::query_as!(
                Row,
                r#"with due as materialized (
                       select inbound_id, octets from mailfleet.inbound
                       where state = 0 and due_at <= mailfleet.clock()
                       order by due_at, inbound_id limit $1 for update skip locked
                   ), picked as (
                       select inbound_id from (
                           select inbound_id, sum(octets) over (order by inbound_id) - octets as before from due
                       ) as ahead where before < $3
                   )
                   update mailfleet.inbound i
                   set tries = least(i.tries + 1, 1000), due_at = mailfleet.clock() + make_interval(secs => $2)
                   from picked where i.inbound_id = picked.inbound_id
                   returning i.inbound_id, i.received_at, i.door, i.about, i.sender, i.recipient, i.remote, i.helo, i.tls,
                             i.octets, i.raw, i.state, i.tries, i.kind, i.outcome, i.read_at"#,
                i64::from(limit),
                lease.as_secs_f64(),
                OCTETS,
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        let mut due: Vec<InboundEntry> = rows.into_iter().map(InboundEntry::try_from).collect::<Result<_, _>>()?;
        due.sort_by_key(|entry| entry.mail.id);
        Ok(due.into_iter().map(|entry| DueInbound { mail: entry.mail, tries: entry.tries }).collect())
    }

    /// Records what mails came to, together with what they tell about messages. A mail that is not waiting any more was
    /// read by somebody else meanwhile; what it tells is known then.
    ///
    /// # Errors
    /// When the database does not answer; then nothing was recorded, or, after a time-out, nobody knows.
    pub async fn finish_inbound(&self, outcomes: &[InboundOutcome]) -> Result<RecordedFeedback, StoreError> {
        let mut sorted: Vec<&InboundOutcome> = outcomes.iter().collect();
        sorted.sort_by_key(|outcome| outcome.id);
        let items: Vec<Feedback> = sorted.iter().flat_map(|outcome| outcome.feedback.iter().cloned()).collect();
        let state =
            |outcome: &&InboundOutcome| if outcome.is_dead { InboundState::Dead } else { InboundState::Read }.code();
        transaction!(self, HOT, conn => {
            sqlx::query!(
                "update mailfleet.inbound i
                 set state = g.state, kind = g.kind, outcome = g.outcome, read_at = mailfleet.clock()
                 from unnest($1::uuid[], $2::smallint[], $3::text[], $4::jsonb[]) as g(inbound_id, state, kind, outcome)
                 where i.inbound_id = g.inbound_id and i.state = 0",
                &sorted.iter().map(|outcome| outcome.id.as_uuid()).collect::<Vec<_>>(),
                &sorted.iter().map(state).collect::<Vec<_>>(),
                &sorted.iter().map(|outcome| outcome.kind.as_str()).collect::<Vec<_>>() as &[&str],
                &sorted.iter().map(|outcome| outcome.outcome.clone()).collect::<Vec<_>>(),
            )
            .execute(&mut *conn)
            .await?;
            for outcome in &sorted {
                if let Some(report) = &outcome.dmarc {
                    insert_dmarc(conn, outcome.id, report).await?;
                }
                for report in &outcome.tls {
                    insert_tls(conn, outcome.id, report).await?;
                }
            }
            record_in(self, conn, &items).await?
        })
    }

    /// Mails that came in before `before`, the last one first, without their octets.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list_inbound(
        &self,
        filter: &InboundFilter,
        before: Option<InboundId>,
        limit: u32,
    ) -> Result<Vec<InboundEntry>, StoreError> {
        let rows = transaction!(self, PLAIN, conn => {
            sqlx::query_as!(
                Row,
                r#"select inbound_id, received_at, door, about, sender, recipient, remote, helo, tls, octets,
                          ''::bytea as "raw!", state, tries, kind, outcome, read_at
                   from mailfleet.inbound
                   where ($1::uuid is null or about = $1) and ($2::text is null or kind = $2)
                     and ($3::smallint is null or state = $3) and ($4::timestamptz is null or received_at >= $4)
                     and ($5::uuid is null or inbound_id < $5)
                   order by inbound_id desc limit $6"#,
                filter.about.map(|about| about.as_uuid()),
                filter.kind.as_deref(),
                filter.state.map(InboundState::code),
                filter.since,
                before.map(|id| id.as_uuid()),
                i64::from(limit),
            )
            .fetch_all(&mut *conn)
            .await?
        })?;
        rows.into_iter().map(InboundEntry::try_from).collect()
    }

    /// One mail as it came, and what has been made of it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn inbound(&self, id: InboundId) -> Result<Option<InboundEntry>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query_as!(
                Row,
                "select inbound_id, received_at, door, about, sender, recipient, remote, helo, tls, octets, raw, state,
                        tries, kind, outcome, read_at
                 from mailfleet.inbound where inbound_id = $1",
                id.as_uuid(),
            )
            .fetch_optional(conn)
            .await?
        })?;
        row.map(InboundEntry::try_from).transpose()
    }

    /// Has up to 1,000 mails that were read before `read_before` read anew, the oldest first, and tells how many; 0 when
    /// there are none left. What they told before is not told twice.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn replay_inbound(
        &self,
        filter: &InboundFilter,
        ids: &[InboundId],
        read_before: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        transaction!(self, PLAIN, conn => {
            let done = sqlx::query!(
                "update mailfleet.inbound set state = 0, tries = 0, due_at = mailfleet.clock()
                 where inbound_id in (
                     select inbound_id from mailfleet.inbound
                     where state <> 0 and ($1::uuid is null or about = $1) and ($2::text is null or kind = $2)
                       and ($3::smallint is null or state = $3) and ($4::timestamptz is null or received_at >= $4)
                       and (cardinality($5::uuid[]) = 0 or inbound_id = any ($5)) and read_at < $6
                     order by inbound_id limit $7)",
                filter.about.map(|about| about.as_uuid()),
                filter.kind.as_deref(),
                filter.state.map(InboundState::code),
                filter.since,
                &ids,
                read_before,
                AT_ONCE,
            )
            .execute(&mut *conn)
            .await?;
            if done.rows_affected() > 0 {
                audit_log::enter(self, conn, None, "inbound mail, read anew").await?;
            }
            done.rows_affected()
        })
    }

    /// Removes up to 1,000 mails that came in longer ago than `keep` and have been read, and tells how many. Dead ones
    /// stay four times as long.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_inbound(&self, keep: Duration) -> Result<u64, StoreError> {
        let done = call!(self, conn => {
            sqlx::query!(
                "delete from mailfleet.inbound where inbound_id in (
                     select inbound_id from mailfleet.inbound
                     where state <> 0
                       and received_at < mailfleet.clock() - make_interval(secs => $1::float8 * case state when 2 then 4 else 1 end)
                     order by inbound_id limit $2)",
                keep.as_secs_f64(),
                AT_ONCE,
            )
            .execute(conn)
            .await?
        })?;
        Ok(done.rows_affected())
    }
}

async fn insert_dmarc(conn: &mut PgConnection, mail: InboundId, report: &NewDmarcReport) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "insert into mailfleet.dmarc_reports
             (org, report_id, domain, begins, ends, policy, subdomain_policy, left_out, inbound_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing",
        report.org,
        report.report_id,
        report.domain,
        report.begins,
        report.ends,
        report.policy,
        report.subdomain_policy,
        i32::try_from(report.left_out).unwrap_or(i32::MAX),
        mail.as_uuid(),
    )
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    let rows = &report.rows;
    sqlx::query!(
        r#"insert into mailfleet.dmarc_rows
               (org, report_id, domain, ordinal, source, count, disposition, dkim, spf, header_from, envelope_from, details)
           select $1, $2, $3, g.ordinal::integer, g.source::inet, g.count, g.disposition, g.dkim, g.spf, g.header_from,
                  g.envelope_from, g.details
           from unnest($4::text[], $5::bigint[], $6::text[], $7::boolean[], $8::boolean[], $9::text[], $10::text[],
                       $11::jsonb[])
               with ordinality as g(source, count, disposition, dkim, spf, header_from, envelope_from, details, ordinal)"#,
        report.org,
        report.report_id,
        report.domain,
        &rows.iter().map(|row| row.source.map(|source| source.to_string())).collect::<Vec<_>>() as &[Option<String>],
        &rows.iter().map(|row| i64::from(row.count)).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.disposition.as_str()).collect::<Vec<_>>() as &[&str],
        &rows.iter().map(|row| row.dkim).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.spf).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.header_from.as_str()).collect::<Vec<_>>() as &[&str],
        &rows.iter().map(|row| row.envelope_from.as_str()).collect::<Vec<_>>() as &[&str],
        &rows.iter().map(|row| row.details.clone()).collect::<Vec<_>>(),
    )
    .execute(&mut *conn)
    .await?;
    Ok(())
}

async fn insert_tls(conn: &mut PgConnection, mail: InboundId, report: &NewTlsReport) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into mailfleet.tls_reports
             (org, report_id, domain, policy, begins, ends, successes, failures, reasons, inbound_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict do nothing",
        report.org,
        report.report_id,
        report.domain,
        report.policy,
        report.begins,
        report.ends,
        i64::from(report.successes),
        i64::from(report.failures),
        &report.reasons,
        mail.as_uuid(),
    )
    .execute(&mut *conn)
    .await?;
    Ok(())
}

struct Row {
    inbound_id: Uuid,
    received_at: DateTime<Utc>,
    door: i16,
    about: Option<Uuid>,
    sender: String,
    recipient: String,
    remote: String,
    helo: String,
    tls: bool,
    octets: i32,
    raw: Vec<u8>,
    state: i16,
    tries: i16,
    kind: Option<String>,
    outcome: Option<serde_json::Value>,
    read_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for InboundEntry {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "inbound", id: row.inbound_id.to_string(), column };
        let states = [InboundState::Waiting, InboundState::Read, InboundState::Dead];
        let mail = InboundMail {
            id: InboundId::from_uuid(row.inbound_id),
            received_at: row.received_at,
            door: Door::ALL.into_iter().find(|door| door.code() == row.door).ok_or_else(|| corrupt("door"))?,
            about: row.about.map(MessageId::from_uuid),
            sender: row.sender,
            recipient: row.recipient,
            remote: row.remote,
            helo: row.helo,
            tls: row.tls,
            raw: row.raw,
        };
        Ok(Self {
            mail,
            octets: row.octets.unsigned_abs(),
            state: states.into_iter().find(|state| state.code() == row.state).ok_or_else(|| corrupt("state"))?,
            tries: row.tries.unsigned_abs(),
            kind: row.kind,
            outcome: row.outcome,
            read_at: row.read_at,
        })
    }
}
