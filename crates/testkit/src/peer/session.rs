//! One conversation.

use super::{
    Conversation, Copy, End, Shared, Stage, Step,
    script::{Moment, Rule},
    wire::{Gone, Wire},
};
use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

/// Between two octets of a drip.
const DRIP: Duration = Duration::from_millis(40);
const DOT: &[u8] = b"\r\n.\r\n";

/// Talks to a client until one of both has gone.
pub(super) async fn hold(stream: TcpStream, number: usize, shared: Arc<Shared>) {
    // Without it the second of two answers waits for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let client = stream.peer_addr().map_or_else(|_| String::new(), |address| address.ip().to_string());
    let mut session =
        Session { wire: Wire::new(stream), number, shared, client, envelope: Envelope::default(), granted: false };
    let end = match session.talk().await {
        Err(Gone) | Ok(End::Open) => End::Client,
        Ok(end) => end,
    };
    session.note(|conversation| conversation.end = end);
}

#[derive(Default)]
struct Envelope {
    sender: String,
    recipient: String,
    /// The sender was not refused.
    begun: bool,
    /// Some recipient was not refused.
    accepted: bool,
}

struct Session {
    wire: Wire,
    number: usize,
    shared: Arc<Shared>,
    client: String,
    envelope: Envelope,
    /// The last reply was a 354.
    granted: bool,
}

impl Session {
    fn note(&self, write: impl FnOnce(&mut Conversation)) {
        write(&mut self.shared.notes().conversations[self.number]);
    }

    fn note_copy(&self, write: impl FnOnce(&mut Copy)) {
        // Only at the dot, where this session's copy is the last of this session.
        if let Some(copy) = self.shared.notes().copies.iter_mut().rev().find(|copy| copy.conversation == self.number) {
            write(copy);
        }
    }

    async fn talk(&mut self) -> Result<End, Gone> {
        if let ControlFlow::Break(end) = self.act(Stage::Connect).await? {
            return Ok(end);
        }
        loop {
            let line = self.wire.until(b"\n").await?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let stage = self.hear(&line);
            if let ControlFlow::Break(end) = self.act(stage).await? {
                return Ok(end);
            }
            if stage == Stage::Quit {
                return Ok(End::Client);
            }
            if std::mem::take(&mut self.granted)
                && let ControlFlow::Break(end) = self.body().await?
            {
                return Ok(end);
            }
        }
    }

    /// Notes a command and what it says.
    fn hear(&mut self, line: &str) -> Stage {
        let clear = !self.wire.is_tls();
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let path = || line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(path, _)| path);
        let stage = match verb.as_str() {
            "EHLO" => Stage::Ehlo,
            "HELO" => Stage::Helo,
            "STARTTLS" => Stage::Starttls,
            "MAIL" => {
                self.envelope = Envelope { sender: path().to_owned(), ..Envelope::default() };
                Stage::Mail
            }
            "RCPT" => {
                path().clone_into(&mut self.envelope.recipient);
                Stage::Rcpt
            }
            "DATA" => Stage::Data,
            "RSET" => {
                self.envelope = Envelope::default();
                Stage::Rset
            }
            "QUIT" => Stage::Quit,
            _ => Stage::Other,
        };
        self.note(|conversation| {
            conversation.heard.push(line.to_owned());
            conversation.clear_mails += u32::from(stage == Stage::Mail && clear);
            conversation.farewell |= stage == Stage::Quit;
        });
        stage
    }

    /// From the 354 to the dot and its reply.
    async fn body(&mut self) -> Result<ControlFlow<End>, Gone> {
        if let Some(rule) = self.rule(Stage::Body) {
            self.wire.at_least(rule.octets.max(1)).await?;
            if let ControlFlow::Break(end) = self.follow(Stage::Body, &rule.steps).await? {
                return Ok(ControlFlow::Break(end));
            }
        }
        // The end of the line before is the first half of an empty body's dot.
        self.wire.put_back(b"\r\n");
        let taken = self.wire.until(DOT).await?;
        let body = &taken[2..taken.len() - 3];
        self.shared.notes().copies.push(Copy {
            fleet_id: fleet_id(body),
            sender: self.envelope.sender.clone(),
            recipient: self.envelope.recipient.clone(),
            octets: body.len(),
            tls: self.wire.is_tls(),
            kept: false,
            acknowledged: false,
            conversation: self.number,
        });
        let acted = self.act(Stage::Dot).await;
        self.envelope = Envelope::default();
        acted
    }

    fn rule(&self, stage: Stage) -> Option<Rule> {
        let triplet = format!("{} {} {}", self.client, self.envelope.sender, self.envelope.recipient);
        let mut notes = self.shared.notes();
        let moment = Moment {
            stage,
            recipient: &self.envelope.recipient,
            tls: self.wire.is_tls(),
            open: notes.conversations.iter().filter(|one| one.end == End::Open).count(),
            connection: self.number,
            triplet: &triplet,
        };
        notes.turns.choose(&self.shared.script, &moment, Instant::now()).cloned()
    }

    async fn act(&mut self, stage: Stage) -> Result<ControlFlow<End>, Gone> {
        match self.rule(stage) {
            Some(rule) => self.follow(stage, &rule.steps).await,
            None => self.follow(stage, &[Step::Default]).await,
        }
    }

    async fn follow(&mut self, stage: Stage, steps: &[Step]) -> Result<ControlFlow<End>, Gone> {
        for step in steps {
            match step {
                Step::Default => self.behave(stage).await?,
                Step::Say(line) => self.say(stage, line).await?,
                Step::Raw(text) => self.reply(stage, text.as_bytes()).await?,
                Step::Hex(digits) => self.reply(stage, &octets(digits)).await?,
                Step::Flood(text) => loop {
                    self.tell(text.as_bytes()).await?;
                },
                Step::Drip(text) => {
                    for octet in text.bytes().cycle() {
                        self.tell(&[octet]).await?;
                        tokio::time::sleep(DRIP).await;
                    }
                }
                Step::Hear(octets) => self.wire.at_least(*octets).await?,
                Step::Pause(time) => tokio::time::sleep(*time).await,
                Step::Silence => return Err(self.wire.until_gone().await),
                Step::Forget => self.wire.forget(),
                Step::Keep => self.note_copy(|copy| copy.kept = true),
                Step::Handshake => self.handshake().await?,
                Step::Close => {
                    self.wire.close().await;
                    return Ok(ControlFlow::Break(End::Peer));
                }
                Step::Reset => {
                    self.wire.reset();
                    return Ok(ControlFlow::Break(End::Peer));
                }
                Step::Die(time) => {
                    self.wire.reset();
                    // The listener lives as long as its sessions.
                    let _ = self.shared.deaths.send(*time);
                    return Ok(ControlFlow::Break(End::Peer));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What a receiver like any other does.
    async fn behave(&mut self, stage: Stage) -> Result<(), Gone> {
        let host = self.shared.hostname.clone();
        match stage {
            Stage::Connect => self.say(stage, &format!("220 {host} ESMTP")).await,
            Stage::Ehlo => {
                let mut lines = vec![host];
                lines.extend(self.shared.script.offers.iter().cloned());
                if self.shared.tls.is_some() && !self.wire.is_tls() {
                    lines.push("STARTTLS".to_owned());
                }
                let last = lines.pop().unwrap_or_default();
                let mut reply: String = lines.iter().map(|line| format!("250-{line}\r\n")).collect();
                reply.push_str(&format!("250 {last}"));
                self.say(stage, &reply).await
            }
            Stage::Helo => self.say(stage, &format!("250 {host}")).await,
            Stage::Starttls => {
                self.say(stage, "220 2.0.0 go ahead").await?;
                self.handshake().await
            }
            Stage::Mail => self.say(stage, "250 2.1.0 ok").await,
            Stage::Rcpt if self.envelope.begun => self.say(stage, "250 2.1.5 ok").await,
            Stage::Rcpt => self.say(stage, "503 5.5.1 no sender").await,
            Stage::Data if self.envelope.accepted => self.say(stage, "354 go ahead").await,
            Stage::Data => self.say(stage, "503 5.5.1 no valid recipients").await,
            Stage::Body => Ok(()),
            Stage::Dot => {
                self.note_copy(|copy| copy.kept = true);
                self.say(stage, "250 2.0.0 taken").await
            }
            Stage::Rset => self.say(stage, "250 2.0.0 ok").await,
            Stage::Quit => self.say(stage, "221 2.0.0 bye").await,
            Stage::Other => self.say(stage, "500 5.5.2 what").await,
        }
    }

    async fn handshake(&mut self) -> Result<(), Gone> {
        let Some(config) = self.shared.tls.clone() else { return Err(Gone) };
        self.wire.secure(config).await?;
        self.note(|conversation| conversation.tls = true);
        Ok(())
    }

    async fn say(&mut self, stage: Stage, line: &str) -> Result<(), Gone> {
        self.reply(stage, format!("{line}\r\n").as_bytes()).await
    }

    /// Notes what a reply means for the transaction, and says it.
    async fn reply(&mut self, stage: Stage, octets: &[u8]) -> Result<(), Gone> {
        let positive = octets.starts_with(b"2");
        match stage {
            Stage::Mail => self.envelope.begun |= positive,
            Stage::Rcpt => self.envelope.accepted |= positive,
            Stage::Data => self.granted |= octets.starts_with(b"354"),
            Stage::Dot if positive => self.note_copy(|copy| copy.acknowledged = true),
            _ => {}
        }
        self.tell(octets).await
    }

    async fn tell(&mut self, mut octets: &[u8]) -> Result<(), Gone> {
        while !octets.is_empty() {
            let written = self.wire.write(octets).await?;
            self.note(|conversation| conversation.told += written as u64);
            octets = &octets[written..];
        }
        Ok(())
    }
}

/// The value of `X-Mailfleet-Id` in the header of a message.
fn fleet_id(message: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"x-mailfleet-id:";
    let mut header =
        message.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii_end).take_while(|line| !line.is_empty());
    let line = header.find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    Some(String::from_utf8_lossy(line[NAME.len()..].trim_ascii()).into_owned())
}

/// The octets that these hexadecimal digits are.
fn octets(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}
