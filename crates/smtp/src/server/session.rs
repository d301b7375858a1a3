//! One session, from the greeting to its end.

use super::{
    answer::{Answer, Then},
    command::{Command, NEEDS_SMTPUTF8},
    config::ServerConfig,
    stream::Stream,
};
use crate::body::{BodyScanner, Taken};
use bytes::{Bytes, BytesMut};
use domain::{EnvelopeSender, Mailbox};
use std::{future::Future, io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

/// How much is read at once: a flight of commands, or a message of usual size.
const READ_SIZE: usize = 32 * 1_024;
/// How much is collected of a message beyond one read before the buffer grows in large steps.
const LARGE_READ: usize = 256 * 1_024;
/// How often the size limit is read and thrown away before the connection is closed instead.
const PATIENCE: usize = 4;

/// How long a client may take to close after it was closed upon.
const LINGER: Duration = Duration::from_secs(1);

/// `MAIL FROM` and its parameters.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The envelope sender.
    pub sender: EnvelopeSender,
    /// What the client says of the size.
    pub size: Option<u64>,
    /// Whether SMTPUTF8 was asked for.
    pub smtputf8: bool,
}

/// A whole message.
#[derive(Clone, Debug)]
pub struct Message {
    /// How it was announced.
    pub mail: Mail,
    /// The recipients that were granted; at least one.
    pub recipients: Vec<Mailbox>,
    /// Header and body, lines in CRLF, without the stuffing and the final dot.
    pub body: Bytes,
    /// Whether it came under TLS.
    pub tls: bool,
}

/// Decides in one session. A method may take its time, the client waits; at the end of
/// [`ServerConfig::session`] its future is dropped and nothing more is answered.
pub trait Handler: Send {
    /// The greeting. A refusal closes the connection.
    fn greet(&mut self, hostname: &str) -> impl Future<Output = Answer> + Send {
        let greeting = Answer::owned(220, format!("{hostname} ESMTP"));
        async { greeting }
    }

    /// What the client calls itself, in `EHLO` or `HELO`: any text.
    fn hello(&mut self, _name: &str) {}

    /// `MAIL`: may this sender send?
    fn mail(&mut self, _mail: &Mail) -> impl Future<Output = Answer> + Send {
        async { Answer::new(250, "2.1.0 sender ok") }
    }

    /// `RCPT`: may it reach this recipient?
    fn rcpt(&mut self, mail: &Mail, recipient: &Mailbox) -> impl Future<Output = Answer> + Send;

    /// `DATA`: may the body come? Only a 354 lets it.
    fn data(&mut self, _mail: &Mail, _recipients: &[Mailbox]) -> impl Future<Output = Answer> + Send {
        async { Answer::new(354, "go ahead, end with a dot") }
    }

    /// The whole message. A 250 takes the responsibility for it (RFC 5321, 6.1).
    fn message(&mut self, message: Message) -> impl Future<Output = Answer> + Send;
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `QUIT`.
    Quit,
    /// The client closed without `QUIT`, or the network failed.
    ByClient,
    /// The handler closed it.
    ByHandler,
    /// The handler wants a TCP reset: the owner of the socket sets its linger time to zero and drops it.
    Reset,
    /// A limit or deadline of [`ServerConfig`].
    Limit,
    /// Bare CR or LF, text before TLS, a failed handshake.
    Violation,
}

/// Runs a session to its end and gives the stream back.
pub async fn serve<S, H>(stream: S, handler: &mut H, config: &ServerConfig) -> (Ended, Option<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    H: Handler,
{
    let mut session = Session {
        stream: Some(Stream::Plain(stream)),
        config,
        input: BytesMut::with_capacity(READ_SIZE),
        out: Vec::with_capacity(512),
        greeted: false,
        mail: None,
        recipients: Vec::new(),
        commands: 0,
        mistakes: 0,
    };
    let ended = match timeout(config.session, session.run(handler)).await {
        Ok(Ok(never)) => match never {},
        Ok(Err(ended)) => ended,
        Err(_) => {
            TIMED_OUT.write(&mut session.out);
            Ended::Limit
        }
    };
    if ended != Ended::Reset {
        session.farewell(ended).await;
    }
    (ended, session.stream.map(Stream::into_inner))
}

enum Never {}

struct Session<'a, S> {
    /// Away only while a handshake has it; a failed handshake keeps it.
    stream: Option<Stream<S>>,
    config: &'a ServerConfig,
    input: BytesMut,
    /// Answers that wait for the end of the flight.
    out: Vec<u8>,
    greeted: bool,
    mail: Option<Mail>,
    recipients: Vec<Mailbox>,
    commands: u32,
    mistakes: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<'_, S> {
    async fn run<H: Handler>(&mut self, handler: &mut H) -> Result<Never, Ended> {
        let greeting = handler.greet(&self.config.hostname).await;
        let refused = !greeting.is_positive();
        self.answer(greeting)?;
        if refused {
            return Err(Ended::ByHandler);
        }
        loop {
            let line = self.line().await?;
            self.commands += 1;
            if self.commands > self.config.max_commands {
                return self.stop(Answer::new(421, "4.7.0 too many commands"), Ended::Limit);
            }
            match Command::parse(&line) {
                Ok(command) => self.obey(command, handler).await?,
                Err(refusal) => self.mistake(refusal)?,
            }
        }
    }

    async fn obey<H: Handler>(&mut self, command: Command, handler: &mut H) -> Result<(), Ended> {
        match command {
            Command::Mail { sender, size, smtputf8 } => self.on_mail(Mail { sender, size, smtputf8 }, handler).await,
            Command::Rcpt(recipient) => self.on_rcpt(recipient, handler).await,
            Command::Data => self.on_data(handler).await,
            Command::Ehlo(name) => {
                handler.hello(&name);
                self.clear();
                self.greeted = true;
                self.offer();
                Ok(())
            }
            Command::Helo(name) => {
                handler.hello(&name);
                self.clear();
                self.greeted = true;
                self.answer(Answer::owned(250, self.config.hostname.clone()))
            }
            Command::Rset => {
                self.clear();
                self.answer(Answer::new(250, "2.0.0 reset"))
            }
            Command::Noop => self.answer(Answer::new(250, "2.0.0 ok")),
            Command::Vrfy => self.answer(Answer::new(252, "2.5.1 send some mail, I will try my best")),
            Command::Quit => self.stop(Answer::new(221, "2.0.0 bye"), Ended::Quit),
            Command::StartTls => self.on_starttls().await,
        }
    }

    async fn on_mail<H: Handler>(&mut self, mail: Mail, handler: &mut H) -> Result<(), Ended> {
        if !self.greeted {
            return self.mistake(Answer::new(503, "5.5.1 say EHLO first"));
        }
        if self.mail.is_some() {
            return self.mistake(Answer::new(503, "5.5.1 a transaction is under way"));
        }
        if mail.size.is_some_and(|size| size > self.config.max_size as u64) {
            return self.answer(TOO_LARGE);
        }
        let answer = handler.mail(&mail).await;
        if answer.is_positive() {
            self.mail = Some(mail);
        }
        self.answer(answer)
    }

    async fn on_rcpt<H: Handler>(&mut self, recipient: Mailbox, handler: &mut H) -> Result<(), Ended> {
        let Some(mail) = &self.mail else {
            return self.mistake(Answer::new(503, "5.5.1 MAIL comes first"));
        };
        if recipient.needs_smtputf8() && !mail.smtputf8 {
            return self.mistake(NEEDS_SMTPUTF8);
        }
        if self.recipients.len() >= self.config.max_recipients {
            return self.answer(Answer::new(452, "4.5.3 too many recipients"));
        }
        let answer = handler.rcpt(mail, &recipient).await;
        if answer.is_positive() {
            self.recipients.push(recipient);
        }
        self.answer(answer)
    }

    async fn on_data<H: Handler>(&mut self, handler: &mut H) -> Result<(), Ended> {
        let Some(mail) = &self.mail else {
            return self.mistake(Answer::new(503, "5.5.1 MAIL comes first"));
        };
        if self.recipients.is_empty() {
            return self.mistake(Answer::new(554, "5.5.1 no valid recipients"));
        }
        let answer = handler.data(mail, &self.recipients).await;
        let (granted, then) = (answer.code == 354, answer.then);
        self.answer(answer)?;
        if !granted {
            return Ok(());
        }
        let cut = if let Then::ResetInBody(octets) = then { Some(octets) } else { None };
        let taken = self.body(cut).await?;
        let recipients = std::mem::take(&mut self.recipients);
        match (taken, self.mail.take()) {
            (Some(body), Some(mail)) => {
                let tls = self.stream.as_ref().is_some_and(Stream::is_tls);
                let answer = handler.message(Message { mail, recipients, body, tls }).await;
                self.answer(answer)
            }
            _ => self.answer(TOO_LARGE),
        }
    }

    async fn on_starttls(&mut self) -> Result<(), Ended> {
        let (Some(tls), Some(Stream::Plain(_))) = (&self.config.tls, &self.stream) else {
            return self.mistake(Answer::new(502, "5.5.1 no STARTTLS here"));
        };
        if !self.input.is_empty() {
            return self.stop(Answer::new(501, "5.5.4 text behind STARTTLS"), Ended::Violation);
        }
        self.answer(Answer::new(220, "2.0.0 go ahead"))?;
        self.flush().await?;
        let stream = self.stream.take().ok_or(Ended::Violation)?;
        match timeout(self.config.handshake, stream.encrypt(tls.clone())).await {
            Ok(Ok(stream)) => self.stream = Some(stream),
            Ok(Err(_)) => return Err(Ended::Violation),
            Err(_) => return Err(Ended::Limit),
        }
        // Nothing that was said in clear holds (RFC 3207, 4.2).
        self.clear();
        self.greeted = false;
        Ok(())
    }

    /// The body, or `None` if it was over the limit.
    async fn body(&mut self, cut: Option<usize>) -> Result<Option<Bytes>, Ended> {
        let limit = self.config.max_size;
        let mut scanner = BodyScanner::default();
        loop {
            let taken = scanner.take(&mut self.input, limit);
            if cut.is_some_and(|octets| taken != Taken::More || scanner.seen(&self.input) >= octets) {
                return Err(Ended::Reset);
            }
            match taken {
                Taken::Whole(body) => return Ok(Some(body)),
                Taken::TooLarge => return Ok(None),
                Taken::BareLineEnd => {
                    let refusal = Answer::new(554, "5.6.0 bare carriage return or line feed in the message");
                    return self.stop(refusal, Ended::Violation);
                }
                Taken::More if scanner.seen(&self.input) > limit.saturating_mul(PATIENCE) => {
                    return self.stop(Answer::new(421, "4.3.4 message far too large"), Ended::Limit);
                }
                Taken::More => {
                    let room = if self.input.len() < READ_SIZE { READ_SIZE } else { LARGE_READ };
                    self.read(room).await?;
                }
            }
        }
    }

    /// The next command line, without its CRLF.
    async fn line(&mut self) -> Result<BytesMut, Ended> {
        let mut scanned = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.input[scanned..]) {
                let end = scanned + at;
                if end >= self.config.max_line {
                    return self.stop(LONG_LINE, Ended::Limit);
                }
                let mut line = self.input.split_to(end + 1);
                let clean = memchr::memchr(b'\r', &line) == Some(end.wrapping_sub(1));
                if !clean {
                    return self.stop(Answer::new(500, "5.5.2 lines end in CRLF"), Ended::Violation);
                }
                line.truncate(end - 1);
                return Ok(line);
            }
            scanned = self.input.len();
            if scanned >= self.config.max_line {
                return self.stop(LONG_LINE, Ended::Limit);
            }
            self.read(READ_SIZE).await?;
        }
    }

    /// Sends what waits, then reads on.
    async fn read(&mut self, room: usize) -> Result<(), Ended> {
        self.flush().await?;
        self.input.reserve(room);
        let stream = self.stream.as_mut().ok_or(Ended::Violation)?;
        match timeout(self.config.idle, stream.read(&mut self.input)).await {
            Ok(Ok(0) | Err(_)) => Err(Ended::ByClient),
            Ok(Ok(_)) => Ok(()),
            Err(_) => self.stop(TIMED_OUT, Ended::Limit),
        }
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        if self.out.is_empty() {
            return Ok(());
        }
        let stream = self.stream.as_mut().ok_or(Ended::Violation)?;
        let written: io::Result<()> = match timeout(self.config.idle, stream.write(&self.out)).await {
            Ok(written) => written,
            Err(_) => return Err(Ended::Limit),
        };
        self.out.clear();
        written.map_err(|_| Ended::ByClient)
    }

    fn answer(&mut self, answer: Answer) -> Result<(), Ended> {
        match answer.then {
            Then::Continue | Then::ResetInBody(_) => {
                answer.write(&mut self.out);
                Ok(())
            }
            Then::Close => self.stop(answer, Ended::ByHandler),
            Then::CloseSilently => Err(Ended::ByHandler),
            Then::Reset => Err(Ended::Reset),
        }
    }

    /// A last answer; [`serve`] sends it.
    fn stop<T>(&mut self, answer: Answer, ended: Ended) -> Result<T, Ended> {
        answer.write(&mut self.out);
        Err(ended)
    }

    fn mistake(&mut self, answer: Answer) -> Result<(), Ended> {
        self.mistakes += 1;
        if self.mistakes > self.config.max_mistakes {
            return self.stop(Answer::new(421, "4.7.0 too many mistakes"), Ended::Limit);
        }
        self.answer(answer)
    }

    fn offer(&mut self) {
        let ServerConfig { hostname, max_size, tls, extensions, .. } = self.config;
        let in_clear = matches!(self.stream, Some(Stream::Plain(_)));
        let mut lines = vec![hostname.clone()];
        lines.extend(extensions.pipelining.then(|| "PIPELINING".to_owned()));
        lines.extend(extensions.eight_bit_mime.then(|| "8BITMIME".to_owned()));
        lines.extend(extensions.smtputf8.then(|| "SMTPUTF8".to_owned()));
        lines.extend(extensions.size.then(|| format!("SIZE {max_size}")));
        lines.extend((tls.is_some() && in_clear).then(|| "STARTTLS".to_owned()));
        lines.push("ENHANCEDSTATUSCODES".to_owned());
        let last = lines.len() - 1;
        for (number, line) in lines.iter().enumerate() {
            self.out.extend_from_slice(if number == last { b"250 " } else { b"250-" });
            self.out.extend_from_slice(line.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn clear(&mut self) {
        self.mail = None;
        self.recipients.clear();
    }

    /// Sends what waits and ends in order. Closing a socket that holds unread bytes would reset it and
    /// take the last answer with it, so what the client still says is read for a moment and thrown away.
    async fn farewell(&mut self, ended: Ended) {
        let _ = self.flush().await;
        let Some(stream) = &mut self.stream else { return };
        let (input, idle) = (&mut self.input, self.config.idle);
        let _ = timeout(idle.min(LINGER), async {
            stream.shut().await?;
            if ended == Ended::ByClient {
                return Ok(());
            }
            loop {
                input.clear();
                input.reserve(READ_SIZE);
                if stream.read(input).await? == 0 {
                    return io::Result::Ok(());
                }
            }
        })
        .await;
    }
}

const TIMED_OUT: Answer = Answer::new(421, "4.4.2 timed out");
const LONG_LINE: Answer = Answer::new(500, "5.5.2 line too long");
const TOO_LARGE: Answer = Answer::new(552, "5.3.4 message too large");
