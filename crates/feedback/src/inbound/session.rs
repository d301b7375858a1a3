//! One SMTP session: whose mail is taken in.

use super::{Inbound, desk::Intake};
use crate::metrics::OfMail;
use domain::{InboundId, Mailbox, MessageId, text::sanitise, verp};
use smtp::server::{Answer, Handler, Mail, Message, Then};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use store::{Door, InboundMail};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

/// How long a body waits for its place.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest name of a client that is kept, in characters.
const MAX_HELO: usize = 255;

/// Decides in one session.
pub(crate) struct Session {
    inbound: Arc<Inbound>,
    intake: Intake,
    peer: SocketAddr,
    helo: String,
    strangers: u32,
    /// The place of the body that comes in.
    place: Option<OwnedSemaphorePermit>,
}

impl Session {
    pub(crate) fn new(inbound: Arc<Inbound>, intake: Intake, peer: SocketAddr) -> Self {
        Self { inbound, intake, peer, helo: String::new(), strangers: 0, place: None }
    }

    /// What kind of address it is, and which message it names; `None` for one that is none of ours.
    fn door(&self, recipient: &Mailbox) -> Option<(Door, Option<MessageId>)> {
        let tokens = &self.inbound.office.tokens;
        if let Some(message) = verp::message_of_return_path(recipient, Some(tokens)) {
            return Some((Door::ReturnPath, Some(message)));
        }
        if let Some(message) = verp::message_of_unsubscribe_address(recipient, tokens) {
            return Some((Door::Unsubscribe, Some(message)));
        }
        let same = |known: &Mailbox| {
            known.local().eq_ignore_ascii_case(recipient.local()) && known.domain() == recipient.domain()
        };
        self.inbound.config.report_mailboxes.iter().any(same).then_some((Door::Reports, None))
    }

    fn count(&self, result: &'static str) {
        self.inbound.office.metrics.mails.get_or_create(&OfMail { result }).inc();
    }
}

impl Handler for Session {
    fn hello(&mut self, name: &str) {
        self.helo = sanitise(name, MAX_HELO);
    }

    async fn rcpt(&mut self, _mail: &Mail, recipient: &Mailbox) -> Answer {
        if self.door(recipient).is_some() {
            return Answer::new(250, "2.1.5 recipient ok");
        }
        self.strangers += 1;
        self.count("refused");
        if self.strangers > self.inbound.config.max_strangers.get() {
            return Answer::new(421, "4.7.0 too many addresses that are not here").then(Then::Close);
        }
        Answer::new(550, "5.1.1 no such address here")
    }

    async fn data(&mut self, _mail: &Mail, _recipients: &[Mailbox]) -> Answer {
        match timeout(PATIENCE, Arc::clone(&self.inbound.bodies).acquire_owned()).await {
            Ok(Ok(place)) => {
                self.place = Some(place);
                Answer::new(354, "go ahead, end with a dot")
            }
            _ => {
                self.count("shed");
                Answer::new(451, "4.3.2 too many mails at once, come again")
            }
        }
    }

    async fn message(&mut self, message: Message) -> Answer {
        let now = service::clock::now();
        let mut mails: Vec<InboundMail> = Vec::with_capacity(message.recipients.len());
        for recipient in &message.recipients {
            let Some((door, about)) = self.door(recipient) else { continue };
            // The same mail to two spellings of an address is one.
            if mails.iter().any(|mail| (mail.door, mail.about) == (door, about)) {
                continue;
            }
            mails.push(InboundMail {
                id: InboundId::new(now),
                received_at: now,
                door,
                about,
                sender: message.mail.sender.0.as_ref().map_or_else(String::new, ToString::to_string),
                recipient: recipient.to_string(),
                remote: self.peer.ip().to_canonical().to_string(),
                helo: self.helo.clone(),
                tls: message.tls,
                raw: message.body.to_vec(),
            });
        }
        let is_kept = self.intake.keep(mails).await;
        self.place = None;
        if is_kept {
            self.count("taken");
            Answer::new(250, "2.0.0 kept")
        } else {
            self.count("put_off");
            Answer::new(451, "4.3.0 cannot keep it now, come again")
        }
    }
}
