//! Reads the mails that came in, and records what they come to.
//!
//! A mail is believed as far as the address that it came to, or the token in what came back, has been signed by us: both
//! name one message, and what is said counts for that message's recipient alone.

use super::Inbound;
use crate::{
    metrics::OfReport,
    report::{Action, DmarcReport, Finding, Kind, Reading, TlsReport},
    webhook::Bounce,
};
use domain::{
    MessageId, Token,
    fact::{FactDetail, FactKind},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use store::{
    Door, DueInbound, Effect, Feedback, InboundMail, InboundOutcome, NewDmarcReport, NewDmarcRow, NewTlsReport,
    StoreError,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// What told it, in the log.
const SOURCE: &str = "mail";
/// How often mails that are old enough are removed, and for how long after a failure nothing is tried.
const UPKEEP: std::time::Duration = std::time::Duration::from_secs(3600);

/// Reads what is due until the shutdown is requested.
pub(crate) async fn run(inbound: Arc<Inbound>, token: CancellationToken) {
    let mut next_upkeep = Instant::now();
    loop {
        let done = tokio::select! {
            biased;
            () = token.cancelled() => return,
            done = round(&inbound) => done,
        };
        if Instant::now() >= next_upkeep {
            next_upkeep = Instant::now() + UPKEEP;
            if let Err(error) = forget(&inbound).await {
                tracing::warn!(%error, "cannot remove old mails that came in");
            }
        }
        match done {
            // There may be more.
            Ok(some) if some > 0 => continue,
            Ok(_) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot read the mails that came in; they wait");
            }
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = inbound.bell.notified() => {}
            () = sleep(inbound.config.poll) => {}
        }
    }
}

async fn forget(inbound: &Inbound) -> Result<(), StoreError> {
    while inbound.office.store.forget_inbound(inbound.config.keep).await? > 0 {}
    Ok(())
}

/// One batch; how many there were.
async fn round(inbound: &Arc<Inbound>) -> Result<usize, StoreError> {
    let config = &inbound.config;
    let due = inbound.office.store.due_inbound(config.batch.get(), config.lease).await?;
    let count = due.len();
    if count == 0 {
        return Ok(0);
    }
    let mut outcomes = Vec::with_capacity(count);
    for one in due {
        // What has been begun too often takes whoever reads it down.
        if u32::from(one.tries) > config.tries.get() {
            outcomes.push(dead(&one.mail, &format!("reading it was begun {} times and never ended", one.tries - 1)));
            continue;
        }
        if let Some(outcome) = read(inbound, one).await {
            outcomes.push(outcome);
        }
    }
    for outcome in &mut outcomes {
        narrow(inbound, outcome).await?;
    }
    if let Err(error) = finish(inbound, &outcomes).await {
        if outcomes.len() == 1 {
            return Err(error);
        }
        // One by one, so that no mail shares another's fate.
        for outcome in &outcomes {
            if let Err(error) = finish(inbound, std::slice::from_ref(outcome)).await {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, inbound = %outcome.id, "cannot record what a mail came to; it is read again");
            }
        }
    }
    Ok(count)
}

/// Records what mails came to.
async fn finish(inbound: &Inbound, outcomes: &[InboundOutcome]) -> Result<(), StoreError> {
    let items: Vec<Feedback> = outcomes.iter().flat_map(|outcome| outcome.feedback.iter().cloned()).collect();
    let recording = inbound.office.store.finish_inbound(outcomes);
    let done = timeout(inbound.config.lease, recording).await.unwrap_or(Err(StoreError::Timeout))?;
    inbound.office.metrics.recorded(&items, done);
    for outcome in outcomes {
        let kind = if outcome.is_dead { "dead".to_owned() } else { outcome.kind.clone() };
        inbound.office.metrics.mails_read.get_or_create(&OfReport { kind }).inc();
        if outcome.is_dead {
            tracing::warn!(inbound = %outcome.id, error = %outcome.outcome["error"], "nothing can be made of a mail that came in");
        }
    }
    Ok(())
}

/// Reads one mail apart from everything else, since it is whatever somebody sends; `None` when that broke down: the mail
/// is tried again later.
async fn read(inbound: &Arc<Inbound>, due: DueInbound) -> Option<InboundOutcome> {
    let id = due.mail.id;
    let office = Arc::clone(inbound);
    let reading = tokio::task::spawn_blocking(move || match office.reader.read(&due.mail.raw) {
        Ok(reading) => outcome(&office, &due.mail, reading),
        Err(error) => dead(&due.mail, &error.to_string()),
    });
    match reading.await {
        Ok(outcome) => Some(outcome),
        Err(error) => {
            tracing::error!(inbound = %id, %error, "reading a mail broke down; it is tried again");
            None
        }
    }
}

fn dead(mail: &InboundMail, error: &str) -> InboundOutcome {
    InboundOutcome {
        id: mail.id,
        kind: String::new(),
        outcome: json!({"error": error}),
        is_dead: true,
        feedback: Vec::new(),
        dmarc: None,
        tls: Vec::new(),
    }
}

fn outcome(inbound: &Inbound, mail: &InboundMail, reading: Reading) -> InboundOutcome {
    let mut kind = reading.kind;
    // Whoever writes there wants no more, in whatever words; a program that answers there wants nothing.
    if mail.door == Door::Unsubscribe && matches!(kind, Kind::Mail | Kind::Unsubscribe) {
        kind = Kind::Unsubscribe;
    }
    let about = mail.about.or_else(|| match inbound.office.tokens.open(reading.returned.token.as_deref()?)? {
        Token::Report(message) => Some(message),
        _ => None,
    });
    let mut told = reading.outcome();
    if let Some(about) = about {
        told["message_id"] = json!(about.to_string());
    }
    told["rules"] = json!(inbound.reader.version());
    let feedback = about.and_then(|about| feedback(mail, kind, &reading, about)).into_iter().collect();
    InboundOutcome {
        id: mail.id,
        kind: kind.as_str().to_owned(),
        outcome: told,
        is_dead: false,
        feedback,
        dmarc: reading.dmarc.map(dmarc),
        tls: reading.tls.map(tls).unwrap_or_default(),
    }
}

/// What a mail tells about the message that it is about.
fn feedback(mail: &InboundMail, kind: Kind, reading: &Reading, about: MessageId) -> Option<Feedback> {
    let failed = |finding: &&Finding| finding.action == Some(Action::Failed);
    let finding = reading.findings.iter().find(failed).or(reading.findings.first());
    let (fact, effect) = match kind {
        Kind::Bounce => match finding?.bounce? {
            Bounce::Hard => (FactKind::Returned, Effect::Gone),
            Bounce::Soft => (FactKind::ReturnedSoft, Effect::Nothing),
            Bounce::Block => (FactKind::ReturnedBlock, Effect::Nothing),
        },
        Kind::Delivered => (FactKind::Confirmed, Effect::Nothing),
        Kind::Complaint => (FactKind::Complained, Effect::Complaint),
        Kind::Unsubscribe => (FactKind::Unsubscribed, Effect::Unsubscribe),
        Kind::Delay
        | Kind::AutoReply
        | Kind::Challenge
        | Kind::ReadReceipt
        | Kind::DmarcReport
        | Kind::TlsReport
        | Kind::Mail => return None,
    };
    // A mail that its sender brings twice, since he did not hear that it was taken, is the same to the last octet.
    let digest = Sha256::digest(&mail.raw);
    let digest: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let class = match kind {
        Kind::Unsubscribe => Some("mailto".to_owned()),
        Kind::Complaint => reading.feedback_type.clone(),
        _ => finding.and_then(|finding| finding.class).map(|class| class.as_str().to_owned()),
    };
    let detail = FactDetail {
        enhanced: finding.and_then(|finding| finding.status).map(|status| status.to_string()),
        text: finding.and_then(|finding| finding.diagnostic.clone()),
        class,
        host: finding.and_then(|finding| finding.remote_mta.clone()).or_else(|| reading.reporting_mta.clone()),
        source: Some(SOURCE.to_owned()),
        rule: finding.and_then(|finding| finding.rule.clone()),
        ..FactDetail::default()
    };
    let source = format!("{SOURCE}/{digest}");
    Some(Feedback { message: about, kind: fact, source, at: mail.received_at, detail, effect })
}

/// Of a report about several recipients, the one that the message went to decides: a list that he forwards to has
/// members of its own, and that one of them is gone says nothing about him.
async fn narrow(inbound: &Inbound, outcome: &mut InboundOutcome) -> Result<(), StoreError> {
    let Some(feedback) = outcome.feedback.first_mut() else { return Ok(()) };
    let findings = outcome.outcome["findings"].as_array().cloned().unwrap_or_default();
    if feedback.effect != Effect::Gone || findings.len() < 2 {
        return Ok(());
    }
    let Some(known) = inbound.office.store.correspondent(feedback.message).await? else { return Ok(()) };
    let is_his = |finding: &serde_json::Value| {
        ["recipient", "original_recipient"]
            .iter()
            .any(|key| finding[*key].as_str().is_some_and(|one| one.eq_ignore_ascii_case(known.recipient.as_str())))
    };
    let all_hard = findings.iter().all(|finding| finding["bounce"] == "hard");
    let his_is_hard = findings.iter().any(|finding| is_his(finding) && finding["bounce"] == "hard");
    if !(all_hard || his_is_hard) {
        feedback.kind = FactKind::ReturnedSoft;
        feedback.effect = Effect::Nothing;
    }
    Ok(())
}

fn dmarc(report: DmarcReport) -> NewDmarcReport {
    let rows = report.rows.into_iter().map(|row| NewDmarcRow {
        source: row.source,
        count: row.count,
        disposition: row.disposition,
        dkim: row.dkim,
        spf: row.spf,
        header_from: row.header_from,
        envelope_from: row.envelope_from,
        details: json!({"dkim": row.dkim_results, "spf": row.spf_results, "reasons": row.reasons}),
    });
    NewDmarcReport {
        org: report.org,
        report_id: report.report_id,
        domain: report.domain,
        begins: report.begins,
        ends: report.ends,
        policy: report.policy,
        subdomain_policy: report.subdomain_policy,
        left_out: u32::try_from(report.left_out).unwrap_or(u32::MAX),
        rows: rows.collect(),
    }
}

fn tls(report: TlsReport) -> Vec<NewTlsReport> {
    let policy = |policy: crate::report::TlsPolicy| NewTlsReport {
        org: report.org.clone(),
        report_id: report.report_id.clone(),
        domain: policy.domain,
        policy: policy.kind,
        begins: report.begins,
        ends: report.ends,
        successes: policy.successes,
        failures: policy.failures,
        reasons: policy.reasons,
    };
    report.policies.into_iter().map(policy).collect()
}
