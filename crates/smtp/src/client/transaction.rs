//! One message to one recipient, and exactly how far it went.

use super::{
    connect::Connection,
    error::{Abort, Stage, WireError},
    wire::RawReply,
};
use crate::{
    body::wire_form,
    reply::{Reply, Violation},
};
use bytes::Bytes;
use domain::{EnvelopeSender, Mailbox};
use std::io::Write;

/// Up to here body and dot are one write into an empty socket buffer, which takes it whole.
const ONE_WRITE: usize = 32 * 1_024;
/// What is held back of a larger body, to go out with the dot once there is room for it: so the look at
/// `before_dot` comes right before the dot however slow the peer reads.
const TAIL: usize = 4 * 1_024;
/// A larger buffer is not kept for the next message.
const KEPT_SCRATCH: usize = 256 * 1_024;

/// Sender and recipient of one message.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// `MAIL FROM`.
    pub sender: &'a EnvelopeSender,
    /// `RCPT TO`.
    pub recipient: &'a Mailbox,
    /// The header has raw UTF-8 in it (RFC 6532). Addresses that need SMTPUTF8 are seen without it.
    pub smtputf8: bool,
}

impl Envelope<'_> {
    fn needs_smtputf8(&self) -> bool {
        self.smtputf8 || self.recipient.needs_smtputf8() || self.sender.0.as_ref().is_some_and(Mailbox::needs_smtputf8)
    }
}

/// How far an attempt went. No variant but the last leaves a doubt.
#[derive(Debug)]
#[must_use = "what became of the message must be recorded"]
pub enum Attempt {
    /// 2yz to the final dot: the peer has it.
    Delivered(Reply),
    /// The peer said 4yz or 5yz: it does not have it. After a 421 the connection is over.
    Refused {
        /// To what.
        stage: Stage,
        /// With what words.
        reply: Reply,
    },
    /// Nothing was sent, since this peer cannot take this message. Permanent for this host; the
    /// connection stays as it was.
    Unsendable(Unsendable),
    /// The connection was dead or died before the peer answered `MAIL`, as one that has rested does.
    /// Nothing is known of the receiver; another connection may be tried at once.
    NotStarted(WireError),
    /// The connection died, or the caller stopped, before a final dot could go out. Never delivered.
    CutBeforeDot(WireError),
    /// The final dot went out, or may have, and no valid reply came: in doubt. "Message may be sent more
    /// than once" if it is sent again.
    NoReplyAfterDot(WireError),
}

/// Why a peer cannot take a message at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// An address or header needs SMTPUTF8, which the peer does not offer (RFC 6531, 3.2).
    #[error("needs SMTPUTF8, which the receiver does not offer")]
    NoSmtpUtf8,
    /// The message is larger than the peer's `SIZE` (RFC 1870).
    #[error("has {size} octets, the receiver takes {limit}")]
    TooLarge {
        /// Octets of the message.
        size: u64,
        /// Octets that the peer takes.
        limit: u64,
    },
    /// There is no message: an empty one is never delivered.
    #[error("is empty")]
    Empty,
}

impl Unsendable {
    /// The same as a reply, for records that keep one: 553 5.6.7 (RFC 6531, 3.5), 552 5.3.4, 554 5.6.0.
    pub fn as_reply(&self) -> Reply {
        let (code, status) = match self {
            Self::NoSmtpUtf8 => (553, "5.6.7"),
            Self::TooLarge { .. } => (552, "5.3.4"),
            Self::Empty => (554, "5.6.0"),
        };
        Reply { code, text: format!("{status} message {self}") }
    }
}

impl Connection {
    /// Delivers `body` to one recipient.
    ///
    /// `before_dot` is called at most once, right before the write that contains the final dot. When it
    /// says no, the connection is closed without one. Once it was called this must not be cancelled.
    ///
    /// # Crashes
    /// A process that dies after `before_dot` was called leaves the message in doubt; before, it was not
    /// delivered.
    pub async fn send(
        &mut self,
        envelope: &Envelope<'_>,
        body: &Bytes,
        before_dot: impl FnOnce() -> Result<(), Abort>,
    ) -> Attempt {
        if let Some(reason) = self.unsendable(envelope, body) {
            return Attempt::Unsendable(reason);
        }
        if !self.usable {
            return Attempt::NotStarted(WireError::NotReusable);
        }
        // Until the transaction has come to an orderly end, also if this future is dropped.
        self.usable = false;
        if let Err(error) = self.wire.check_quiet(Stage::Reset).await {
            return Attempt::NotStarted(error);
        }
        self.messages += 1;
        let attempt = match self.open(envelope, body).await {
            Ok(()) => self.deliver(body, before_dot).await,
            Err(attempt) => attempt,
        };
        if self.scratch.capacity() > KEPT_SCRATCH {
            self.scratch = Vec::new();
        }
        attempt
    }

    fn unsendable(&self, envelope: &Envelope<'_>, body: &Bytes) -> Option<Unsendable> {
        let size = body.len() as u64;
        match self.capabilities.size.flatten() {
            _ if body.is_empty() => Some(Unsendable::Empty),
            _ if envelope.needs_smtputf8() && !self.capabilities.smtputf8 => Some(Unsendable::NoSmtpUtf8),
            Some(limit) if size > limit => Some(Unsendable::TooLarge { size, limit }),
            _ => None,
        }
    }

    /// MAIL, RCPT and DATA, up to the 354. `Err` is the end of the attempt.
    async fn open(&mut self, envelope: &Envelope<'_>, body: &Bytes) -> Result<(), Attempt> {
        let resets = std::mem::take(&mut self.needs_reset);
        if self.pipelining {
            self.scratch.clear();
            if resets {
                self.scratch.extend_from_slice(RSET);
            }
            self.push_mail(envelope, body);
            self.push_rcpt(envelope);
            self.scratch.extend_from_slice(DATA);
            let sent = self.wire.send(Stage::Mail, &self.scratch, self.deadlines.mail).await;
            sent.map_err(Attempt::NotStarted)?;
        }
        if resets {
            self.reset().await.map_err(Attempt::NotStarted)?;
        }
        self.mail(envelope, body).await?;
        self.rcpt(envelope).await?;
        self.data().await
    }

    fn push_mail(&mut self, envelope: &Envelope<'_>, body: &Bytes) {
        let out = &mut self.scratch;
        // Writing to a vector does not fail.
        let _ = write!(out, "MAIL FROM:<{}>", envelope.sender.as_str());
        if self.capabilities.size.is_some() {
            let _ = write!(out, " SIZE={}", body.len());
        }
        if self.capabilities.eight_bit_mime && !body.is_ascii() {
            out.extend_from_slice(b" BODY=8BITMIME");
        }
        if envelope.needs_smtputf8() {
            out.extend_from_slice(b" SMTPUTF8");
        }
        out.extend_from_slice(b"\r\n");
    }

    fn push_rcpt(&mut self, envelope: &Envelope<'_>) {
        let _ = write!(self.scratch, "RCPT TO:<{}>\r\n", envelope.recipient.as_str());
    }

    async fn reset(&mut self) -> Result<(), WireError> {
        const STAGE: Stage = Stage::Reset;
        if !self.pipelining {
            self.wire.send(STAGE, RSET, self.deadlines.reset).await?;
        }
        let reply = self.wire.reply(STAGE, self.deadlines.reset).await?;
        match reply.class() {
            2 => Ok(()),
            _ if reply.code == 421 => Err(WireError::GoneAway(reply.into_reply())),
            _ => Err(WireError::Protocol { stage: STAGE, source: Violation::UnexpectedCode }),
        }
    }

    async fn mail(&mut self, envelope: &Envelope<'_>, body: &Bytes) -> Result<(), Attempt> {
        const STAGE: Stage = Stage::Mail;
        if !self.pipelining {
            self.scratch.clear();
            self.push_mail(envelope, body);
            let sent = self.wire.send(STAGE, &self.scratch, self.deadlines.mail).await;
            sent.map_err(Attempt::NotStarted)?;
        }
        let reply = self.wire.reply(STAGE, self.deadlines.mail).await.map_err(Attempt::NotStarted)?;
        if reply.class() == 2 {
            return Ok(());
        }
        if reply.code == 421 && self.messages > 1 {
            // The good-bye to a connection that rested, or that has carried enough, crosses the next command on its way.
            return Err(Attempt::NotStarted(WireError::GoneAway(reply.into_reply())));
        }
        let (attempt, goes_on) = refusal(STAGE, reply);
        if goes_on && self.pipelining {
            // The rest of the flight is on its way. A peer that takes DATA without a sender is not one
            // to send anything to.
            self.usable = self.skip(Stage::Rcpt).await.is_some() && matches!(self.skip(Stage::Data).await, Some(4 | 5));
        } else {
            self.usable = goes_on;
        }
        Err(attempt)
    }

    async fn rcpt(&mut self, envelope: &Envelope<'_>) -> Result<(), Attempt> {
        const STAGE: Stage = Stage::Rcpt;
        if !self.pipelining {
            self.scratch.clear();
            self.push_rcpt(envelope);
            let sent = self.wire.send(STAGE, &self.scratch, self.deadlines.rcpt).await;
            sent.map_err(Attempt::CutBeforeDot)?;
        }
        let reply = self.wire.reply(STAGE, self.deadlines.rcpt).await.map_err(Attempt::CutBeforeDot)?;
        if reply.class() == 2 {
            return Ok(());
        }
        let (attempt, goes_on) = refusal(STAGE, reply);
        self.needs_reset = true;
        self.usable = goes_on
            && (!self.pipelining
                || match self.skip(Stage::Data).await {
                    Some(4 | 5) => true,
                    Some(3) => self.end_without_recipients().await,
                    _ => false,
                });
        Err(attempt)
    }

    async fn data(&mut self) -> Result<(), Attempt> {
        const STAGE: Stage = Stage::Data;
        if !self.pipelining {
            self.wire.send(STAGE, DATA, self.deadlines.data).await.map_err(Attempt::CutBeforeDot)?;
        }
        let reply = self.wire.reply(STAGE, self.deadlines.data).await.map_err(Attempt::CutBeforeDot)?;
        if reply.code == 354 {
            return Ok(());
        }
        let (attempt, goes_on) = refusal(STAGE, reply);
        self.needs_reset = true;
        self.usable = goes_on;
        Err(attempt)
    }

    /// Takes the reply to a command of a flight that has failed already; its class, or `None` when the
    /// connection is over.
    async fn skip(&mut self, stage: Stage) -> Option<u16> {
        let within = if stage == Stage::Data { self.deadlines.data } else { self.deadlines.rcpt };
        let reply = self.wire.reply(stage, within).await.ok()?;
        (reply.code != 421).then(|| reply.class())
    }

    /// The peer took DATA although it had refused the only recipient: a lone dot closes the transaction
    /// (RFC 2920, 3.1). Nobody is there to whom the empty message could go; a peer that thanks for it all
    /// the same is left.
    async fn end_without_recipients(&mut self) -> bool {
        let within = self.deadlines.reset;
        if self.wire.check_quiet(Stage::Data).await.is_err() {
            return false;
        }
        if self.wire.send(Stage::Dot, b".\r\n", within).await.is_err() {
            return false;
        }
        let reply = self.wire.reply(Stage::Dot, within).await;
        reply.is_ok_and(|reply| matches!(reply.class(), 4 | 5) && reply.code != 421)
    }

    /// Body, look, dot, reply.
    async fn deliver(&mut self, body: &Bytes, before_dot: impl FnOnce() -> Result<(), Abort>) -> Attempt {
        self.scratch.clear();
        wire_form(body, &mut self.scratch);
        let progress = self.deadlines.body_progress;
        let head = if self.scratch.len() > ONE_WRITE { self.scratch.len() - TAIL } else { 0 };
        if head > 0
            && let Err(error) = self.wire.send_part(&self.scratch[..head], progress).await
        {
            return Attempt::CutBeforeDot(error);
        }
        // A 250 that is here before the dot is no answer to it.
        if let Err(error) = self.wire.check_quiet(Stage::Body).await {
            return Attempt::CutBeforeDot(error);
        }
        if let Err(abort) = before_dot() {
            return Attempt::CutBeforeDot(WireError::Aborted(abort));
        }
        if let Err(last) = self.wire.send_last(&self.scratch[head..], progress).await {
            return if last.dot_stayed {
                Attempt::CutBeforeDot(last.error)
            } else {
                Attempt::NoReplyAfterDot(last.error)
            };
        }
        failpoint::hit!("sender.dot.after");
        let reply = match self.wire.reply(Stage::Dot, self.deadlines.dot).await {
            Ok(reply) => reply,
            Err(error) => return Attempt::NoReplyAfterDot(error),
        };
        let class = reply.class();
        if class == 3 {
            let source = Violation::UnexpectedCode;
            return Attempt::NoReplyAfterDot(WireError::Protocol { stage: Stage::Dot, source });
        }
        self.usable = reply.code != 421 && self.wire.is_drained();
        let reply = reply.into_reply();
        if class == 2 { Attempt::Delivered(reply) } else { Attempt::Refused { stage: Stage::Dot, reply } }
    }
}

const RSET: &[u8] = b"RSET\r\n";
const DATA: &[u8] = b"DATA\r\n";

/// What a reply that is not the wanted one means, and whether the session goes on after it.
fn refusal(stage: Stage, reply: RawReply) -> (Attempt, bool) {
    match reply.class() {
        4 | 5 => {
            let reply = reply.into_reply();
            let goes_on = !reply.closes();
            (Attempt::Refused { stage, reply }, goes_on)
        }
        _ => (Attempt::CutBeforeDot(WireError::Protocol { stage, source: Violation::UnexpectedCode }), false),
    }
}
