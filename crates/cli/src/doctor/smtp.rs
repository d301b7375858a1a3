//! An SMTP server, as the sender's own client meets it.

use super::{Findings, Grade};
use crate::{
    exit::{Exit, Failure},
    output::Output,
};
use clap::{Args, ValueEnum};
use domain::{BounceClass, EnvelopeSender, Mailbox, Ruleset, SmtpReply, Verdict};
use smtp::{
    TlsContext,
    client::{
        Abort, Attempt, Capabilities, ClientConfig, ConnectError, Connection, Credentials, Deadlines, Envelope,
        HandshakeFault, HeloName, Stage as WireStage, TlsPolicy, WireError,
    },
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// The port of mail between servers (RFC 5321).
const SMTP: u16 = 25;
/// The port that speaks TLS from the first byte on (RFC 8314).
const SUBMISSIONS: u16 = 465;
/// Most addresses of a host that are tried.
const MOST_ADDRESSES: usize = 4;

#[derive(Debug, Args)]
pub struct SmtpArgs {
    /// The server: mx.example.com, smtp.example.com:587, 192.0.2.1, [2001:db8::1]:25; the port is 25 unless it is given
    #[arg(value_name = "HOST[:PORT]")]
    target: String,
    /// How to encrypt; auto: from the first byte on at port 465, else STARTTLS
    #[arg(long, value_enum, default_value_t = Tls::Auto)]
    tls: Tls,
    /// Certificates (PEM) to verify the server's by, instead of Mozilla's roots
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Log in as
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// The file that holds the password
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// The name to give with EHLO: the one that the source address resolves to
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    helo: HeloName,
    /// The address to come from
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// Ask whether mail from this address …
    #[arg(long, value_name = "ADDRESS", requires = "to")]
    from: Option<Mailbox>,
    /// … to this one would be taken; the connection is closed before a mail is complete
    #[arg(long, value_name = "ADDRESS", requires = "from")]
    to: Option<Mailbox>,
    /// Longest wait for each answer, such as 10s
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    within: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tls {
    Auto,
    None,
    Starttls,
    Implicit,
}

/// The server and how it is talked to.
struct Patient {
    host: String,
    port: u16,
    implicit: bool,
    config: ClientConfig,
    within: Duration,
}

/// Looks at a server.
pub(super) async fn run(args: SmtpArgs, out: Output) -> anyhow::Result<Exit> {
    let (host, port) = split(&args.target).ok_or_else(|| {
        Failure::usage(format!("{:?} is no HOST or HOST:PORT, such as smtp.example.com:587", args.target))
    })?;
    let credentials = credentials(&args)?;
    let tls = args.ca_file.as_deref().map_or_else(TlsContext::new, TlsContext::with_file);
    let tls = tls.map_err(|error| Failure::usage(format!("--ca-file: {}", service::Chain(&error))))?;
    let mut config = ClientConfig::new(args.helo.clone(), tls);
    config.source = args.source;
    config.deadlines = Deadlines {
        connect: args.within,
        banner: args.within,
        ehlo: args.within,
        starttls: args.within,
        auth: args.within,
        mail: args.within,
        rcpt: args.within,
        data: args.within,
        body_progress: args.within,
        dot: args.within,
        reset: args.within,
    };
    let implicit = args.tls == Tls::Implicit || (args.tls == Tls::Auto && port == SUBMISSIONS);
    let patient = Patient { host, port, implicit, config, within: args.within };
    let mut findings = Findings::new(out);
    let Some(address) = patient.reach(&mut findings).await else { return Ok(findings.exit()) };
    let Some((policy, offered)) = patient.encrypt(address, args.tls, credentials.is_some(), &mut findings).await else {
        return Ok(findings.exit());
    };
    let mut config = ClientConfig { tls: policy, ..patient.config.clone() };
    match credentials {
        Some(credentials) => {
            config.credentials = Some(credentials);
            if !patient.log_in(address, &config, &mut findings).await {
                return Ok(findings.exit());
            }
        }
        None if port != SMTP && (offered.auth_plain || offered.auth_login) => findings.tell(
            "login",
            Grade::Warn,
            Duration::ZERO,
            "wants one, and none was given".to_owned(),
            "give --username and --password-file to try it",
        ),
        None => {}
    }
    if let (Some(from), Some(to)) = (args.from, args.to) {
        patient.ask(address, &config, from, &to, &mut findings).await;
    }
    Ok(findings.exit())
}

fn credentials(args: &SmtpArgs) -> anyhow::Result<Option<Credentials>> {
    let (Some(username), Some(file)) = (&args.username, &args.password_file) else { return Ok(None) };
    let password = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("--password-file: cannot read {}: {error}", file.display())))?;
    let password = password.trim_end_matches(['\r', '\n']).to_owned();
    Ok(Some(Credentials { username: username.clone(), password, allow_without_tls: false }))
}

/// Host and port, the brackets of an IPv6 address taken off.
fn split(target: &str) -> Option<(String, u16)> {
    if let Ok(address) = target.parse::<IpAddr>() {
        return Some((address.to_string(), SMTP));
    }
    if let Ok(address) = target.parse::<SocketAddr>() {
        return Some((address.ip().to_string(), address.port()));
    }
    if let Some(literal) = target.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return literal.parse::<IpAddr>().ok().map(|address| (address.to_string(), SMTP));
    }
    let (host, port) = match target.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (target, SMTP),
    };
    let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@');
    is_host.then(|| (host.to_owned(), port))
}

impl Patient {
    /// Name and TCP. The first address that takes a connection.
    async fn reach(&self, findings: &mut Findings) -> Option<SocketAddr> {
        let begun = Instant::now();
        let found = timeout(self.within, tokio::net::lookup_host((self.host.as_str(), self.port))).await;
        let addresses: Vec<SocketAddr> = match found {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => {
                let advice = "no address has this name: look for a typing error, and whether this host's DNS works";
                findings.tell("name", Grade::Fail, begun.elapsed(), error.to_string(), advice);
                return None;
            }
            Err(_) => {
                let advice = "the name servers of this host do not answer: see /etc/resolv.conf and the firewall";
                findings.tell("name", Grade::Fail, begun.elapsed(), "no answer in time".to_owned(), advice);
                return None;
            }
        };
        let listed = addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
        findings.tell("name", Grade::Ok, begun.elapsed(), format!("{} is {listed}", self.host), "");
        let mut reached = None;
        for address in addresses.into_iter().take(MOST_ADDRESSES) {
            let begun = Instant::now();
            match timeout(self.within, self.connect(address)).await {
                Ok(Ok(())) => {
                    findings.tell("tcp", Grade::Ok, begun.elapsed(), format!("{address} takes connections"), "");
                    reached = reached.or(Some(address));
                }
                Ok(Err(error)) => {
                    let found = format!("{address}: {error}");
                    findings.tell("tcp", Grade::Fail, begun.elapsed(), found, self.unreachable(&error));
                }
                Err(_) => {
                    let silent = io::Error::from(io::ErrorKind::TimedOut);
                    let found = format!("{address}: no answer in {:?}", self.within);
                    findings.tell("tcp", Grade::Fail, begun.elapsed(), found, self.unreachable(&silent));
                }
            }
        }
        reached
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<()> {
        let socket =
            if address.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
        if let Some(source) = self.config.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.connect(address).await.map(|_| ())
    }

    fn unreachable(&self, error: &io::Error) -> &'static str {
        match error.kind() {
            io::ErrorKind::TimedOut if self.port == SMTP => {
                "packets vanish: most hosters and many networks block port 25 to the outside; have it opened, or send \
                 through a relay at port 587 or 465"
            }
            io::ErrorKind::TimedOut => "packets vanish: a firewall, here or there, drops them",
            io::ErrorKind::ConnectionRefused => "nobody listens there: another port, or the server is down",
            io::ErrorKind::AddrNotAvailable => "the source address is not one of this host, or of the other family",
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                "this host has no way there; for an IPv6 address it may have no IPv6"
            }
            _ => "the connection cannot be made",
        }
    }

    /// Greeting, offers, TLS. What to go on with, and what is offered then.
    async fn encrypt(
        &self,
        address: SocketAddr,
        wanted: Tls,
        has_login: bool,
        findings: &mut Findings,
    ) -> Option<(TlsPolicy, Capabilities)> {
        let verified =
            if self.implicit { TlsPolicy::Implicit { name: None } } else { TlsPolicy::Required { name: None } };
        if !self.implicit {
            let offered = self.greet(address, TlsPolicy::None, findings).await?;
            if wanted == Tls::None {
                return Some((TlsPolicy::None, offered));
            }
            if !offered.starttls {
                let (grade, advice) = if has_login || self.port != SMTP {
                    (Grade::Fail, "no password goes over it; it may speak TLS from the first byte on at port 465")
                } else {
                    (Grade::Warn, "mail goes in clear; a site that needs TLS gets none")
                };
                findings.tell("tls", grade, Duration::ZERO, "STARTTLS is not offered".to_owned(), advice);
                return (grade == Grade::Warn).then_some((TlsPolicy::None, offered));
            }
        }
        let begun = Instant::now();
        match self.session(address, verified.clone()).await {
            Ok(connection) => {
                let found = format!("the certificate is good for {}", self.host);
                findings.tell("tls", Grade::Ok, begun.elapsed(), found, "");
                let offered = *connection.capabilities();
                connection.quit().await;
                if self.implicit {
                    findings.tell("offers", Grade::Ok, Duration::ZERO, offers(&offered), "");
                }
                Some((verified, offered))
            }
            Err(error) => {
                let took = begun.elapsed();
                let Some((why, advice)) = about_handshake(&error, self.implicit) else {
                    let (found, advice) = self.explain(&error);
                    findings.tell("tls", Grade::Fail, took, found, &advice);
                    return None;
                };
                // Between servers nobody verifies: worse than none it is not (RFC 7435).
                if self.port == SMTP && !has_login && !self.implicit {
                    let opportunistic = self.session(address, TlsPolicy::Opportunistic).await;
                    if let Ok(connection) = opportunistic {
                        let advice = format!(
                            "{advice}; mail to it goes under TLS all the same, but to a site with a policy (MTA-STS, DANE)"
                        );
                        findings.tell("tls", Grade::Warn, took, why, &advice);
                        let offered = *connection.capabilities();
                        connection.quit().await;
                        return Some((TlsPolicy::Opportunistic, offered));
                    }
                }
                findings.tell("tls", Grade::Fail, took, why, &advice);
                None
            }
        }
    }

    async fn greet(&self, address: SocketAddr, tls: TlsPolicy, findings: &mut Findings) -> Option<Capabilities> {
        let begun = Instant::now();
        match self.session(address, tls).await {
            Ok(connection) => {
                let offered = *connection.capabilities();
                findings.tell("offers", Grade::Ok, begun.elapsed(), offers(&offered), advice_on(&offered));
                connection.quit().await;
                Some(offered)
            }
            Err(error) => {
                let (found, advice) = self.explain(&error);
                findings.tell("greeting", Grade::Fail, begun.elapsed(), found, &advice);
                None
            }
        }
    }

    async fn session(&self, address: SocketAddr, tls: TlsPolicy) -> Result<Connection, ConnectError> {
        let config = ClientConfig { tls, ..self.config.clone() };
        Connection::connect(address, &self.host, &config).await
    }

    async fn log_in(&self, address: SocketAddr, config: &ClientConfig, findings: &mut Findings) -> bool {
        let begun = Instant::now();
        match Connection::connect(address, &self.host, config).await {
            Ok(connection) => {
                findings.tell("login", Grade::Ok, begun.elapsed(), "user name and password are taken".to_owned(), "");
                connection.quit().await;
                true
            }
            Err(error) => {
                let (found, advice) = self.explain(&error);
                findings.tell("login", Grade::Fail, begun.elapsed(), found, &advice);
                false
            }
        }
    }

    /// Goes as far as the recipient, and one step on; never to a mail's end.
    async fn ask(
        &self,
        address: SocketAddr,
        config: &ClientConfig,
        from: Mailbox,
        to: &Mailbox,
        findings: &mut Findings,
    ) {
        let begun = Instant::now();
        let mut connection = match Connection::connect(address, &self.host, config).await {
            Ok(connection) => connection,
            Err(error) => {
                let (found, advice) = self.explain(&error);
                findings.tell("recipient", Grade::Fail, begun.elapsed(), found, &advice);
                return;
            }
        };
        let sender = EnvelopeSender(Some(from));
        let envelope = Envelope { sender: &sender, recipient: to, smtputf8: false };
        let body = "Subject: a look at the connection\r\n\r\nThis never ends.\r\n".into();
        let attempt = connection.send(&envelope, &body, || Err(Abort("only asked"))).await;
        let took = begun.elapsed();
        match attempt {
            Attempt::CutBeforeDot(WireError::Aborted(_)) => {
                let found = "the recipient is taken; whether the content would be, nobody has asked".to_owned();
                findings.tell("recipient", Grade::Ok, took, found, "");
            }
            Attempt::Refused { stage, reply } => {
                let judged = SmtpReply::new(reply.code, &reply.text);
                let verdict = Ruleset::builtin().classify(stage.into(), &judged);
                let grade = if matches!(verdict, Verdict::Defer { .. }) { Grade::Warn } else { Grade::Fail };
                let class = verdict.class().unwrap_or(BounceClass::Uncategorized);
                let found = format!("refused at {stage}: {reply} ({class})");
                findings.tell("recipient", grade, took, found, advice_for(class));
            }
            Attempt::Unsendable(reason) => {
                let advice = "the address needs SMTPUTF8, which only newer servers speak";
                findings.tell("recipient", Grade::Fail, took, format!("the message {reason}"), advice);
            }
            Attempt::Delivered(_) | Attempt::NoReplyAfterDot(_) => {}
            Attempt::NotStarted(error) | Attempt::CutBeforeDot(error) => {
                let advice = "the server ends the conversation: a policy, or it is overloaded; try again later";
                findings.tell("recipient", Grade::Fail, took, service::Chain(&error).to_string(), advice);
            }
        }
    }

    /// What was found, and what to do about it.
    fn explain(&self, error: &ConnectError) -> (String, String) {
        let found = match error {
            ConnectError::Wire(error) => service::Chain(error).to_string(),
            error => service::Chain(error).to_string(),
        };
        let advice = match error {
            ConnectError::Refused { stage: WireStage::Auth, reply } if reply.is_transient() => {
                "the server cannot check the password now: try again later".to_owned()
            }
            ConnectError::Refused { stage: WireStage::Auth, .. } => {
                "user name or password is wrong, or the account may not use SMTP: many providers want an API key or a \
                 password for this purpose alone"
                    .to_owned()
            }
            ConnectError::Refused { stage, reply } => {
                let judged = SmtpReply::new(reply.code, &reply.text);
                let class = Ruleset::builtin().classify((*stage).into(), &judged).class();
                advice_for(class.unwrap_or(BounceClass::Uncategorized)).to_owned()
            }
            ConnectError::TlsUnavailable { .. } => "the server takes STARTTLS back: try port 465".to_owned(),
            ConnectError::Tls(_) | ConnectError::TlsName => {
                about_handshake(error, self.implicit).map_or_else(String::new, |(_, advice)| advice)
            }
            ConnectError::AuthWithoutTls => "no password goes over a connection in clear".to_owned(),
            ConnectError::AuthUnavailable => {
                "this port takes no login: submission is at 587 or 465, 25 is for mail between servers".to_owned()
            }
            ConnectError::Wire(WireError::Timeout { stage: WireStage::Banner }) if !self.implicit => {
                "it is connected and says nothing: it may speak TLS from the first byte on (--tls implicit), hold back \
                 strangers for a while, or be overloaded"
                    .to_owned()
            }
            ConnectError::Wire(WireError::Closed { .. } | WireError::Io { .. } | WireError::GoneAway(_)) => {
                "the server hangs up: a blocklist, a limit of connections, or a firewall in between".to_owned()
            }
            ConnectError::Wire(WireError::Timeout { .. }) => {
                "the server is too slow, or something in between".to_owned()
            }
            ConnectError::Wire(_) => "what answers does not speak SMTP as it should; is it a mail server?".to_owned(),
        };
        (found, advice)
    }
}

/// What the failure of a handshake was, and what to do about it.
fn about_handshake(error: &ConnectError, implicit: bool) -> Option<(String, String)> {
    let advice = match error.handshake_fault()? {
        HandshakeFault::Name => "the certificate is another host's: use the name that it bears, or have it mended",
        HandshakeFault::Expired => "the certificate is over: its owner has to renew it; or this host's clock is wrong",
        HandshakeFault::NotYetValid => "the certificate is not valid yet: most likely this host's clock is wrong",
        HandshakeFault::Issuer => {
            "the certificate is signed by itself, or the server leaves out those in between; --ca-file names one to trust"
        }
        HandshakeFault::Certificate => "the certificate cannot be used: its owner has to replace it",
        HandshakeFault::NotTls if implicit => "it does not speak TLS from the first byte on: use --tls starttls",
        HandshakeFault::NotTls => "the handshake breaks off: something in between meddles with STARTTLS",
        HandshakeFault::Protocol => "no version or cipher of TLS is known to both: the server's software is old",
    };
    Some((service::Chain(error).to_string(), advice.to_owned()))
}

fn offers(offered: &Capabilities) -> String {
    let size = match offered.size {
        Some(Some(octets)) => format!("SIZE {octets}"),
        Some(None) => "SIZE".to_owned(),
        None => String::new(),
    };
    let words = [
        (offered.starttls, "STARTTLS"),
        (offered.pipelining, "PIPELINING"),
        (offered.eight_bit_mime, "8BITMIME"),
        (offered.smtputf8, "SMTPUTF8"),
        (offered.auth_plain, "AUTH PLAIN"),
        (offered.auth_login, "AUTH LOGIN"),
        (!size.is_empty(), size.as_str()),
    ];
    let words: Vec<&str> = words.into_iter().filter(|(is_offered, _)| *is_offered).map(|(_, word)| word).collect();
    if words.is_empty() { "nothing of what is of use here".to_owned() } else { words.join(", ") }
}

const fn advice_on(offered: &Capabilities) -> &'static str {
    if offered.pipelining {
        ""
    } else {
        "without PIPELINING every mail takes several round trips: allow it more connections"
    }
}

/// What the operator can do about a refusal of this class.
const fn advice_for(class: BounceClass) -> &'static str {
    match class {
        BounceClass::Greylisted => "it asks to come back: mailfleet does, and the next time the mail is taken",
        BounceClass::RateLimited => "it wants mail more slowly: lower rate or connections in [sender.shaping.sites]",
        BounceClass::SpamBlock | BounceClass::SpamRelated => {
            "the address or domain has a bad name there: look it up at the blocklist that the words name, warm up slowly"
        }
        BounceClass::AuthenticationFailed => "SPF, DKIM, DMARC or the name of the source address do not agree with it",
        BounceClass::InvalidRecipient | BounceClass::InactiveMailbox | BounceClass::BadDomain => {
            "there is no such mailbox, or it is not used any more"
        }
        BounceClass::InvalidSender => "it does not take this sender: does its domain exist and have an MX record?",
        BounceClass::RelayDenied => "it does not take mail for this recipient: log in first, or ask another host",
        BounceClass::QuotaIssues => "the mailbox is full",
        BounceClass::PolicyRelated => "a rule of the receiver: its words or the page that they name say more",
        BounceClass::BadConfiguration => "a login, TLS or a verified sender is missing",
        BounceClass::TransientFailure => "it is busy or out of order: try again later",
        _ => "its words say more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_in_every_usual_way() {
        let of = |text: &str| split(text).map(|(host, port)| format!("{host} {port}"));
        for (text, expected) in [
            ("mx.example.com", "mx.example.com 25"),
            ("smtp.example.com:587", "smtp.example.com 587"),
            ("192.0.2.1", "192.0.2.1 25"),
            ("192.0.2.1:465", "192.0.2.1 465"),
            ("2001:db8::1", "2001:db8::1 25"),
            ("[2001:db8::1]:587", "2001:db8::1 587"),
            ("[2001:db8::1]", "2001:db8::1 25"),
        ] {
            assert_eq!(of(text).as_deref(), Some(expected));
        }
        for wrong in ["", ":25", "host:port", "host:0", "host:70000", "smtp://host", "ann@example.com", "a b"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
