//! One connection to the sink.

use super::{
    script::{Behaviour, Script},
    state::Shared,
};
use domain::Mailbox;
use smtp::server::{Answer, Handler, Mail, Message, Then};
use std::{sync::Arc, time::Duration};

/// Octets that `cut-body` reads before it resets.
const CUT_AFTER: usize = 1_000;

/// Plays the scripts of its recipients.
pub(super) struct SinkSession {
    shared: Arc<Shared>,
    number: u64,
    /// What the recipients of the message under way ask for.
    behaviours: Vec<Behaviour>,
    /// Slow domains in which this connection has a place.
    slow_domains: Vec<String>,
}

impl SinkSession {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let number = shared.connected();
        Self { shared, number, behaviours: Vec::new(), slow_domains: Vec::new() }
    }

    /// What happens this time.
    fn behaviour(&self, recipient: &Mailbox) -> Behaviour {
        match Script::of(recipient) {
            Script { behaviour, once: false } => behaviour,
            Script { behaviour, once: true } if self.shared.is_first_time(recipient, behaviour) => behaviour,
            Script { .. } => Behaviour::Accept,
        }
    }

    fn has_place(&mut self, recipient: &Mailbox) -> bool {
        let domain = recipient.domain_str();
        if !Script::is_slow_domain(recipient) || self.slow_domains.iter().any(|held| held == domain) {
            return true;
        }
        let taken = self.shared.take_place(domain);
        if taken {
            self.slow_domains.push(domain.to_owned());
        }
        taken
    }

    fn asks_for(&self, behaviour: Behaviour) -> bool {
        self.behaviours.contains(&behaviour)
    }

    fn delay(&self, recipients: &[Mailbox]) -> Duration {
        let configured = self.shared.config().slow_delay;
        let by_domain = recipients.iter().any(Script::is_slow_domain).then_some(configured);
        let by_name = self.behaviours.iter().filter_map(|behaviour| match behaviour {
            Behaviour::Slow(delay) => Some(delay.unwrap_or(configured)),
            _ => None,
        });
        by_name.chain(by_domain).max().unwrap_or_default()
    }
}

impl Handler for SinkSession {
    async fn greet(&mut self, hostname: &str) -> Answer {
        if self.shared.is_crowded() {
            return Answer::new(421, "4.7.0 too many connections").then(Then::Close);
        }
        tokio::time::sleep(self.shared.config().round_trip).await;
        Answer::owned(220, format!("{hostname} ESMTP"))
    }

    async fn mail(&mut self, _mail: &Mail) -> Answer {
        self.behaviours.clear();
        Answer::new(250, "2.1.0 sender ok")
    }

    async fn rcpt(&mut self, _mail: &Mail, recipient: &Mailbox) -> Answer {
        if !self.has_place(recipient) {
            self.shared.refused();
            return Answer::new(421, "4.7.0 too many connections for this receiver").then(Then::Close);
        }
        let behaviour = self.behaviour(recipient);
        let refusal = match behaviour {
            Behaviour::Greylist => Answer::new(450, "4.7.1 greylisted, come back later"),
            Behaviour::TempFail => Answer::new(451, "4.3.0 try again later"),
            Behaviour::Unknown => Answer::new(550, "5.1.1 no such user"),
            Behaviour::Full => Answer::new(552, "5.2.2 mailbox full"),
            Behaviour::Busy => Answer::new(421, "4.3.2 busy").then(Then::Close),
            Behaviour::Accept
            | Behaviour::RejectData
            | Behaviour::DropBeforeDot
            | Behaviour::CutBody
            | Behaviour::DropAfterDot
            | Behaviour::HangAfterDot
            | Behaviour::Slow(_) => {
                self.behaviours.push(behaviour);
                return Answer::new(250, "2.1.5 recipient ok");
            }
        };
        self.shared.refused();
        refusal
    }

    async fn data(&mut self, _mail: &Mail, _recipients: &[Mailbox]) -> Answer {
        let answer = Answer::new(354, "end with a dot");
        if self.asks_for(Behaviour::DropBeforeDot) {
            self.shared.dropped();
            answer.then(Then::CloseSilently)
        } else if self.asks_for(Behaviour::CutBody) {
            self.shared.dropped();
            answer.then(Then::ResetInBody(CUT_AFTER))
        } else {
            answer
        }
    }

    async fn message(&mut self, message: Message) -> Answer {
        let delay = self.delay(&message.recipients);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if self.asks_for(Behaviour::RejectData) {
            self.shared.refused();
            return Answer::new(554, "5.7.1 message refused");
        }
        if let Err(error) = self.shared.keep(&message, self.number).await {
            tracing::warn!(error = %error, "cannot keep a copy");
            return Answer::new(451, "4.3.0 cannot keep the message");
        }
        let taken = Answer::new(250, "2.0.0 taken");
        if self.asks_for(Behaviour::HangAfterDot) {
            self.shared.dropped();
            tokio::time::sleep(self.shared.config().hang).await;
            return taken.then(Then::CloseSilently);
        }
        if self.asks_for(Behaviour::DropAfterDot) {
            self.shared.dropped();
            return taken.then(Then::CloseSilently);
        }
        taken
    }
}

impl Drop for SinkSession {
    fn drop(&mut self) {
        self.shared.disconnected(&self.slow_domains);
    }
}
