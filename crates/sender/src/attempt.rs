//! One attempt at one letter, and what it came to.

use crate::{
    Office,
    journal::Ticket,
    letters::Claimed,
    route::{Fault, NoSession, Session, Wire},
    tenure::Tenure,
};
use bus::Job;
use domain::{
    BounceClass, SmtpReply, Stage, TraceContext, Verdict,
    fact::FactDetail,
    sandbox::{self, SANDBOX},
    text::sanitise,
};
use service::trace;
use smtp::client::{Abort, Attempt, ConnectError, Envelope, Reply, Stage as WireStage, Unsendable, WireError};
use std::time::{Duration, Instant};
use store::{Outcome, What};

/// Longest text kept of a reply or reason, in characters.
const MAX_TEXT: usize = 500;

/// What an attempt came to, for the record and for the pace of its site.
pub(crate) struct Done {
    pub(crate) outcome: Outcome,
    /// The journal's line, when a dot was sent.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) mood: Mood,
    /// Where the record goes on from, if somebody traces the message.
    pub(crate) trace: Option<TraceContext>,
}

impl Done {
    pub(crate) const fn new(outcome: Outcome, ticket: Option<Ticket>, mood: Mood) -> Self {
        Self { outcome, ticket, mood, trace: None }
    }
}

/// What an attempt tells about its site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It works.
    Answers,
    /// It does not, or asks to slow down.
    Fails,
    /// Nothing: the attempt ended for a reason of our own.
    Silent,
}

/// What handing a letter to a session came to.
pub(crate) enum Over {
    /// Nothing was sent because the session had died while it rested; another one may be tried at once. With the
    /// journal's line, if there is one already.
    Dead(Option<Ticket>),
    /// The route took nothing, for a reason that is not the letter's: another route may take it, else this is done.
    /// The journal has no reply yet.
    Declined { fault: Fault, done: Done },
    /// It is over.
    Done(Done),
}

/// The last look before a letter can no longer be held back: is it still ours, and does the journal say so.
pub(crate) fn before_dot(
    office: &Office,
    tenure: &Tenure,
    job: &Job,
    ticket: &mut Option<Ticket>,
) -> Result<(), Abort> {
    failpoint::hit!("sender.journal.before");
    if !tenure.is_live() {
        return Err(Abort("the lease of the shard is over"));
    }
    match office.journal.dot(job.message, job.release, tenure.lease.epoch) {
        Ok(line) => *ticket = Some(line),
        Err(error) => {
            tracing::error!(%error, "cannot write to the journal; nothing is sent without it");
            // Whatever is claimed here would come back unsent for ever: others may take the shards.
            office.life.fail("journal", "cannot be written");
            return Err(Abort("the journal cannot be written"));
        }
    }
    failpoint::hit!("sender.dot.before");
    Ok(())
}

/// Hands a letter to an open session.
pub(crate) async fn over(office: &Office, tenure: &Tenure, session: &mut Session, claimed: &Claimed) -> Over {
    let connection = match &mut session.wire {
        Wire::Smtp(connection) => connection,
        Wire::Http { api, link } => return crate::api::over(office, tenure, api, link, claimed).await,
    };
    let letter = &claimed.letter;
    let job = &letter.job;
    let begun = Instant::now();
    let Some(mime) = &letter.mime else {
        // The desk renders references before it claims them.
        return Over::Done(given_back(office, tenure, claimed, Duration::ZERO));
    };
    let body = office.routes.get(claimed.route).dressed(job.message, mime);
    let envelope = Envelope { sender: &letter.sender, recipient: &job.recipient, smtputf8: letter.smtputf8 };
    let mut ticket = None;
    // Counted before, since every attempt is counted: a fresh connection that breaks tells about the receiver.
    let has_rested = connection.messages_sent() > 0;
    failpoint::hit!("sender.mail.before");
    let attempt = connection.send(&envelope, &body, || before_dot(office, tenure, job, &mut ticket)).await;
    let mut detail = base(office, claimed, &session.host);
    detail.took_ms = u64::try_from(begun.elapsed().as_millis()).ok();
    detail.tls = connection.is_tls().then(|| "tls".to_owned());
    let (what, mood) = match attempt {
        Attempt::NotStarted(_) if has_rested => return Over::Dead(ticket),
        Attempt::NotStarted(error) => cut(office, job, &error, &mut detail),
        Attempt::Delivered(reply) => {
            answered(&mut detail, &SmtpReply::new(reply.code, &reply.text));
            (What::Delivered, Mood::Answers)
        }
        Attempt::Refused { stage, reply } => refused(office, job, stage, &reply, &mut detail),
        Attempt::Unsendable(reason) => {
            answered(&mut detail, &SmtpReply::new(reason.as_reply().code, &reason.as_reply().text));
            detail.class = Some(unsendable_class(reason).as_str().to_owned());
            (What::Bounced, Mood::Silent)
        }
        Attempt::CutBeforeDot(error) => cut(office, job, &error, &mut detail),
        Attempt::NoReplyAfterDot(error) => {
            detail.text = Some(sanitise(&format!("no reply after the final dot: {error}"), MAX_TEXT));
            (What::InDoubt, Mood::Fails)
        }
    };
    let outcome = outcome(tenure, job, what, detail);
    if ticket.is_some() {
        failpoint::hit!("sender.reply.before");
        office.journal.reply(&outcome);
        failpoint::hit!("sender.reply.after");
    }
    Over::Done(Done::new(outcome, ticket, mood))
}

/// What becomes of a letter for which no session came about.
pub(crate) fn without_session(office: &Office, tenure: &Tenure, claimed: &Claimed, reason: &NoSession) -> Done {
    let job = &claimed.letter.job;
    let mut detail = base(office, claimed, "");
    let (what, mood) = match reason {
        NoSession::Resolve(error) => {
            detail.text = Some(sanitise(&error.to_string(), MAX_TEXT));
            detail.class = Some(error.class().as_str().to_owned());
            if error.is_permanent() {
                (What::Bounced, Mood::Silent)
            } else {
                (deferred(office, job, None, &mut detail), Mood::Fails)
            }
        }
        NoSession::Connect { host, source } => {
            detail.host = Some(host.clone());
            match (source.reply(), source) {
                (Some(reply), ConnectError::Refused { stage, .. }) => {
                    let reply = SmtpReply::new(reply.code, &reply.text);
                    answered(&mut detail, &reply);
                    let verdict = office.rules.classify((*stage).into(), &reply);
                    detail.class = verdict.class().map(|class| class.as_str().to_owned());
                    let wait = match verdict {
                        Verdict::Defer { stated_wait, .. } => stated_wait,
                        // A host that refuses us at the door says nothing about the recipient: another may take it.
                        Verdict::Bounce { .. } | Verdict::Delivered => None,
                    };
                    (deferred(office, job, wait, &mut detail), Mood::Fails)
                }
                _ => {
                    detail.class = Some(connect_class(source).as_str().to_owned());
                    detail.text = Some(sanitise(&chain(source), MAX_TEXT));
                    (deferred(office, job, None, &mut detail), Mood::Fails)
                }
            }
        }
        NoSession::Api { host, source } => {
            detail.host = Some(host.clone());
            detail.class = Some(BounceClass::NoAnswerFromHost.as_str().to_owned());
            detail.text = Some(sanitise(&chain(source), MAX_TEXT));
            (deferred(office, job, None, &mut detail), Mood::Fails)
        }
        NoSession::Plain { host } => {
            detail.host = Some(host.clone());
            detail.class = Some(BounceClass::BadConfiguration.as_str().to_owned());
            detail.text = Some(sanitise(&reason.to_string(), MAX_TEXT));
            (deferred(office, job, None, &mut detail), Mood::Fails)
        }
    };
    Done::new(outcome(tenure, job, what, detail), None, mood)
}

/// A letter that is only tried: nothing is said to anybody, and the answer is the one that its local part scripts.
pub(crate) fn tried(office: &Office, tenure: &Tenure, claimed: &Claimed) -> Done {
    let job = &claimed.letter.job;
    let answer = sandbox::reply(job.recipient.local(), job.attempt);
    let mut detail = base(office, claimed, "");
    detail.route = Some(SANDBOX.to_owned());
    let reply = SmtpReply::new(answer.code, answer.text);
    answered(&mut detail, &reply);
    let verdict = office.rules.classify(answer.stage, &reply);
    detail.class = verdict.class().map(|class| class.as_str().to_owned());
    let what = match verdict {
        Verdict::Delivered => What::Delivered,
        Verdict::Defer { stated_wait, .. } => deferred(office, job, stated_wait, &mut detail),
        Verdict::Bounce { .. } => What::Bounced,
    };
    Done::new(outcome(tenure, job, what, detail), None, Mood::Answers)
}

/// A claimed letter that was never tried: it rests again and no attempt is counted.
pub(crate) fn given_back(office: &Office, tenure: &Tenure, claimed: &Claimed, wait: Duration) -> Done {
    let job = &claimed.letter.job;
    let detail = base(office, claimed, "");
    failpoint::hit!("sender.give_back.before");
    let outcome = outcome(tenure, job, What::GivenBack { wait }, detail);
    Done::new(outcome, None, Mood::Silent)
}

/// Tells what an attempt came to, and where its record goes on from.
pub(crate) fn tell(mut span: trace::Span, job: &Job, done: &mut Done) {
    done.trace = span.place();
    let Outcome { what, detail, .. } = &done.outcome;
    let (word, has_failed) = match what {
        What::Delivered => ("delivered", false),
        What::Deferred { .. } => ("deferred", true),
        What::Bounced => ("bounced", true),
        What::InDoubt => ("in_doubt", true),
        What::GivenBack { .. } => ("given_back", false),
    };
    // Neither the reply's text nor the recipient: both name people.
    let notes = || {
        let mut notes: trace::Notes = vec![
            ("messaging.message.id", job.message.to_string().into()),
            ("mailfleet.attempt", (i64::from(job.attempt) + 1).into()),
            ("mailfleet.outcome", word.into()),
            ("mailfleet.site", job.site.as_str().to_owned().into()),
        ];
        notes.extend(detail.route.clone().map(|route| ("mailfleet.route", route.into())));
        notes.extend(detail.host.clone().map(|host| ("server.address", host.into())));
        notes.extend(detail.code.map(|code| ("smtp.reply_code", i64::from(code).into())));
        notes.extend(detail.enhanced.clone().map(|status| ("smtp.enhanced_status", status.into())));
        notes
    };
    if has_failed {
        span.fail(detail.class.as_deref().unwrap_or(word), notes);
    } else {
        span.note(notes);
    }
}

fn refused(office: &Office, job: &Job, stage: WireStage, reply: &Reply, detail: &mut FactDetail) -> (What, Mood) {
    let reply = SmtpReply::new(reply.code, &reply.text);
    answered(detail, &reply);
    let verdict = office.rules.classify(stage.into(), &reply);
    detail.class = verdict.class().map(|class| class.as_str().to_owned());
    let slower = verdict.class().is_some_and(BounceClass::asks_to_slow_down) || reply.code() == 421;
    let mood = if slower { Mood::Fails } else { Mood::Answers };
    let what = match verdict {
        Verdict::Defer { stated_wait, .. } => deferred(office, job, stated_wait, detail),
        Verdict::Bounce { .. } => What::Bounced,
        // A positive reply is never a refusal; whatever it was, the receiver does not keep to the protocol.
        Verdict::Delivered => deferred(office, job, None, detail),
    };
    (what, mood)
}

/// The session broke before a dot went out.
fn cut(office: &Office, job: &Job, error: &WireError, detail: &mut FactDetail) -> (What, Mood) {
    if error.is_ours() {
        return (What::GivenBack { wait: Duration::ZERO }, Mood::Silent);
    }
    if let WireError::GoneAway(reply) = error {
        let reply = SmtpReply::new(reply.code, &reply.text);
        answered(detail, &reply);
        let verdict = office.rules.classify(Stage::MailFrom, &reply);
        detail.class = verdict.class().map(|class| class.as_str().to_owned());
        let wait = if let Verdict::Defer { stated_wait, .. } = verdict { stated_wait } else { None };
        return (deferred(office, job, wait, detail), Mood::Fails);
    }
    let class = match error {
        WireError::Protocol { .. } => BounceClass::ProtocolErrors,
        _ => BounceClass::BadConnection,
    };
    detail.class = Some(class.as_str().to_owned());
    detail.text = Some(sanitise(&chain(error), MAX_TEXT));
    (deferred(office, job, None, detail), Mood::Fails)
}

/// Why a peer cannot take a message at all.
const fn unsendable_class(reason: Unsendable) -> BounceClass {
    match reason {
        Unsendable::TooLarge { .. } => BounceClass::QuotaIssues,
        Unsendable::NoSmtpUtf8 => BounceClass::BadConfiguration,
        Unsendable::Empty => BounceClass::ContentRelated,
    }
}

/// Why no session came about with a host that did not refuse one.
const fn connect_class(error: &ConnectError) -> BounceClass {
    match error {
        ConnectError::Wire(WireError::Protocol { .. }) => BounceClass::ProtocolErrors,
        ConnectError::Wire(
            WireError::Io { stage: WireStage::Connect, .. }
            | WireError::Timeout { .. }
            | WireError::Aborted(_)
            | WireError::NotReusable,
        ) => BounceClass::NoAnswerFromHost,
        ConnectError::Wire(WireError::Io { .. } | WireError::Closed { .. } | WireError::GoneAway(_)) => {
            BounceClass::BadConnection
        }
        ConnectError::TlsUnavailable { .. }
        | ConnectError::Tls(_)
        | ConnectError::TlsName
        | ConnectError::AuthWithoutTls
        | ConnectError::AuthUnavailable => BounceClass::BadConfiguration,
        // Its words decide.
        ConnectError::Refused { .. } => BounceClass::Uncategorized,
    }
}

pub(crate) fn deferred(office: &Office, job: &Job, stated: Option<Duration>, detail: &mut FactDetail) -> What {
    let class = detail.class.as_deref().and_then(|class| class.parse().ok());
    let schedule = office.config.retry.schedule(job.lane, class);
    let wait = schedule.next_attempt(job.attempt + 1, stated, job.message);
    detail.next_at = chrono::Duration::from_std(wait).ok().map(|wait| service::clock::now() + wait);
    What::Deferred { wait }
}

pub(crate) fn base(office: &Office, claimed: &Claimed, host: &str) -> FactDetail {
    FactDetail {
        attempt: Some(claimed.letter.job.attempt.saturating_add(1)),
        route: Some(office.routes.get(claimed.route).name().to_owned()),
        host: (!host.is_empty()).then(|| host.to_owned()),
        ..FactDetail::default()
    }
}

fn answered(detail: &mut FactDetail, reply: &SmtpReply) {
    detail.code = Some(reply.code());
    detail.enhanced = reply.enhanced().map(|status| status.to_string());
    detail.text = Some(sanitise(reply.text(), MAX_TEXT));
}

pub(crate) fn outcome(tenure: &Tenure, job: &Job, what: What, detail: FactDetail) -> Outcome {
    Outcome {
        message: job.message,
        release: job.release,
        epoch: tenure.lease.epoch,
        queue: job.queue,
        site: job.site.clone(),
        what,
        detail,
    }
}

/// An error with its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
