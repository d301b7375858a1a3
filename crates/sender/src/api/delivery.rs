//! One attempt at one letter through a provider's HTTP API.

use super::{Answer, Api, Link, link::Sent};
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
            Sent::Never(text) => Answer::Later { text },
            Sent::Unanswered(text) => Answer::Doubt { text: format!("no answer to a request: {text}") },
            Sent::Answered { status, headers, body } => {
                let now = service::clock::now().timestamp_millis() as f64 / 1000.0;
                api.judge(status, &headers, &body, now)
            }
        },
    };
    let mut detail = attempt::base(office, claimed, &api.host);
    detail.took_ms = u64::try_from(begun.elapsed().as_millis()).ok();
    detail.tls = link.is_tls().then(|| "tls".to_owned());
    let class = |class: BounceClass| Some(class.as_str().to_owned());
    let mut fault = None;
    let (what, mood) = match answer {
        Answer::Taken { id } => {
            detail.text = Some(id.map_or_else(|| "taken".to_owned(), |id| format!("taken as {id}")));
            (What::Delivered, Mood::Answers)
        }
        Answer::Refused { class: why, text } => {
            (detail.class, detail.text) = (class(why), Some(text));
            (What::Bounced, Mood::Answers)
        }
        Answer::Later { text } => {
            (detail.class, detail.text) = (class(BounceClass::BadConnection), Some(text));
            (attempt::deferred(office, job, None, &mut detail), Mood::Fails)
        }
        Answer::Unready { text } => {
            (detail.class, detail.text) = (class(BounceClass::InvalidSender), Some(text));
            (attempt::deferred(office, job, None, &mut detail), Mood::Answers)
        }
        Answer::Busy { wait, text } => {
            fault = Some(Fault::Busy(wait));
            (detail.class, detail.text) = (class(BounceClass::QuotaIssues), Some(text));
            (attempt::deferred(office, job, Some(wait), &mut detail), Mood::Silent)
        }
        Answer::Closed { text } => {
            fault = Some(Fault::Credentials);
            (detail.class, detail.text) = (class(BounceClass::BadConfiguration), Some(text));
            (attempt::deferred(office, job, None, &mut detail), Mood::Silent)
        }
        Answer::Doubt { text } => {
            detail.text = Some(text);
            (What::InDoubt, Mood::Fails)
        }
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
