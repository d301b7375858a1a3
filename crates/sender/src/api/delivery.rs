//! One attempt at one letter through a provider's HTTP API.

use super::{Answer, Api, Link, Meaning, link::Sent};
use crate::{
    Office,
    attempt::{self, Done, Mood, Over},
    letters::Claimed,
    route::Fault,
    tenure::Tenure,
};
use domain::BounceClass;
use std::time::{Duration, Instant};
use store::What;

/// Hands a letter to the provider.
pub(crate) async fn over(office: &Office, tenure: &Tenure, api: &Api, link: &mut Link, claimed: &Claimed) -> Over {
    let letter = &claimed.letter;
    let job = &letter.job;
    let begun = Instant::now();
    let Some(mime) = &letter.mime else {
        // The desk renders references before it claims them.
        return Over::Done(attempt::given_back(office, tenure, claimed, Duration::ZERO));
    };
    let mut ticket = None;
    let has_rested = link.messages_sent() > 0;
    let answer = match api.request(job.message, &job.recipient.to_string(), mime, service::clock::now()) {
        Err(refused) => refused,
        Ok(request) => match link.send(request, || attempt::before_dot(office, tenure, job, &mut ticket)).await {
            Sent::HeldBack => return Over::Done(attempt::given_back(office, tenure, claimed, Duration::ZERO)),
            Sent::Never(_) if has_rested => return Over::Dead(ticket),
            Sent::Never(text) => Answer::new(Meaning::Later, text),
            Sent::Unanswered(text) => Answer::new(Meaning::Doubt, format!("no answer to a request: {text}")),
            Sent::Answered { status, headers, body } => {
                let now = service::clock::now().timestamp_millis() as f64 / 1000.0;
                api.judge(status, &headers, &body, now)
            }
        },
    };
    let mut detail = attempt::base(office, claimed, &api.host);
    detail.took_ms = u64::try_from(begun.elapsed().as_millis()).ok();
    detail.tls = link.is_tls().then(|| "tls".to_owned());
    detail.text = Some(answer.text);
    let class = match answer.meaning {
        Meaning::Taken | Meaning::Doubt => None,
        Meaning::Refused(class) => Some(class),
        Meaning::Later => Some(BounceClass::BadConnection),
        Meaning::Unready => Some(BounceClass::InvalidSender),
        Meaning::Busy(_) => Some(BounceClass::QuotaIssues),
        Meaning::Closed => Some(BounceClass::BadConfiguration),
    };
    detail.class = class.map(|class| class.as_str().to_owned());
    let mut later = |wait| attempt::deferred(office, job, wait, &mut detail);
    let (what, mood, fault) = match answer.meaning {
        Meaning::Taken => (What::Delivered, Mood::Answers, None),
        Meaning::Refused(_) => (What::Bounced, Mood::Answers, None),
        Meaning::Later => (later(None), Mood::Fails, None),
        Meaning::Unready => (later(None), Mood::Answers, None),
        Meaning::Busy(wait) => (later(Some(wait)), Mood::Silent, Some(Fault::Busy(wait))),
        Meaning::Closed => (later(None), Mood::Silent, Some(Fault::Credentials)),
        Meaning::Doubt => (What::InDoubt, Mood::Fails, None),
    };
    let done = Done::new(attempt::outcome(tenure, job, what, detail), ticket, mood);
    match fault {
        Some(fault) => Over::Declined { fault, done },
        None => {
            if ticket.is_some() {
                office.journal.reply(&done.outcome);
            }
            Over::Done(done)
        }
    }
}
