//! What a receiver answered, and what becomes of the message.
//!
//! The decision is data: a [`crate::Ruleset`], first match wins. A 5yz ends a message only when it is
//! about the message; one that is about us (greeting, EHLO, STARTTLS, AUTH) means that this host cannot
//! be used now. Only evidence about the recipient suppresses him, never policy or reputation.

use crate::{class::BounceClass, text};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// The most characters of a reply that are kept and looked at.
const MAX_TEXT: usize = 2_000;
/// The most characters of a reply that are shown and stored in a fact.
const MAX_SHOWN: usize = 500;
/// The shortest and the longest wait that a receiver can ask for; others count as these.
const STATED_WAIT: (u64, u64) = (1, 24 * 3600);

/// An enhanced status code (RFC 3463), such as `5.1.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnhancedStatus {
    class: u8,
    subject: u16,
    detail: u16,
}

/// A text that is no enhanced status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an enhanced status such as 5.1.1")]
pub struct EnhancedStatusError;

impl EnhancedStatus {
    /// 2 success, 4 for now, 5 for good.
    pub const fn class(self) -> u8 {
        self.class
    }

    /// What it is about: 1 address, 2 mailbox, 3 mail system, 4 network, 5 protocol, 6 content, 7 policy.
    pub const fn subject(self) -> u16 {
        self.subject
    }

    /// The detail within the subject.
    pub const fn detail(self) -> u16 {
        self.detail
    }
}

impl FromStr for EnhancedStatus {
    type Err = EnhancedStatusError;

    fn from_str(text: &str) -> Result<Self, EnhancedStatusError> {
        let mut parts = text.split('.');
        let mut next = |most: usize| -> Result<u16, EnhancedStatusError> {
            let part = parts.next().ok_or(EnhancedStatusError)?;
            let fits = (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            if fits { part.parse().map_err(|_| EnhancedStatusError) } else { Err(EnhancedStatusError) }
        };
        let (class, subject, detail) = (next(1)?, next(3)?, next(3)?);
        if parts.next().is_some() {
            return Err(EnhancedStatusError);
        }
        match class {
            2 | 4 | 5 => Ok(Self { class: class as u8, subject, detail }),
            _ => Err(EnhancedStatusError),
        }
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl TryFrom<String> for EnhancedStatus {
    type Error = EnhancedStatusError;

    fn try_from(text: String) -> Result<Self, EnhancedStatusError> {
        text.parse()
    }
}

impl From<EnhancedStatus> for String {
    fn from(status: EnhancedStatus) -> String {
        status.to_string()
    }
}

/// A reply of an SMTP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmtpReply {
    code: u16,
    enhanced: Option<EnhancedStatus>,
    text: String,
}

impl SmtpReply {
    /// The reply with this code and these words; the lines of a reply of many are separated by `\n`. The
    /// enhanced status is taken from the start of the first line and removed from the start of every line;
    /// what could move a cursor or forge a line is removed, and what goes beyond 2,000 characters.
    pub fn new(code: u16, words: &str) -> Self {
        let mut enhanced = None;
        let mut lines = Vec::new();
        for (n, line) in words.lines().enumerate() {
            let line = line.trim_start();
            let (head, rest) = line.split_once(|c: char| c.is_whitespace()).unwrap_or((line, ""));
            let status = head.parse().ok();
            if n == 0 {
                enhanced = status;
            }
            lines.push(if status.is_some() && status == enhanced { rest } else { line });
        }
        Self { code, enhanced, text: text::sanitise(&lines.join(" "), MAX_TEXT) }
    }

    /// The three digits.
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced status, when there is one.
    pub const fn enhanced(&self) -> Option<EnhancedStatus> {
        self.enhanced
    }

    /// The words, on one line, without the enhanced status; at most 2,000 characters.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The words as facts and people get them: at most 500 characters.
    pub fn shown(&self) -> String {
        text::sanitise(&self.text, MAX_SHOWN)
    }

    /// How long it asks to wait, if it does; from 1 s to 24 h.
    pub fn stated_wait(&self) -> Option<Duration> {
        stated_wait(&self.text.to_lowercase())
    }

    /// Whether it is a 2yz.
    pub const fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether it asks to come back later (4yz).
    pub const fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }
}

/// A text that is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must begin with three digits from 200 to 599, such as 550 5.1.1 User unknown")]
pub struct SmtpReplyError;

impl FromStr for SmtpReply {
    type Err = SmtpReplyError;

    /// Reads a reply as it is written, `550 5.1.1 User unknown`; one of many lines bears its code in each.
    fn from_str(text: &str) -> Result<Self, SmtpReplyError> {
        let code = text.get(..3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let code: u16 = code.and_then(|digits| digits.parse().ok()).ok_or(SmtpReplyError)?;
        let is_whole = text[3..].chars().next().is_none_or(|next| next == '-' || next.is_whitespace());
        if !is_whole || !(200..=599).contains(&code) {
            return Err(SmtpReplyError);
        }
        let own = code.to_string();
        let words: Vec<&str> = text
            .lines()
            .map(|line| match line.strip_prefix(own.as_str()) {
                Some(rest) => rest.strip_prefix(['-', ' ']).unwrap_or(rest),
                None => line,
            })
            .collect();
        Ok(Self::new(code, &words.join("\n")))
    }
}

impl fmt::Display for SmtpReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

/// Where in the conversation a reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The greeting of the server.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    MailFrom,
    /// RCPT TO.
    RcptTo,
    /// DATA, before the content.
    Data,
    /// The final dot, or the last BDAT.
    Dot,
}

impl Stage {
    /// Whether a reply here is about the message and not about us or the host.
    pub const fn is_about_the_message(self) -> bool {
        matches!(self, Self::MailFrom | Self::RcptTo | Self::Data | Self::Dot)
    }
}

/// What becomes of the message after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver took it.
    Delivered,
    /// It goes again.
    Defer {
        /// Why.
        class: BounceClass,
        /// How long the receiver asks to wait, if it does; from 1 s to 24 h.
        stated_wait: Option<Duration>,
    },
    /// It is over.
    Bounce {
        /// Why.
        class: BounceClass,
    },
}

impl Verdict {
    /// The class, unless it was delivered.
    pub const fn class(self) -> Option<BounceClass> {
        match self {
            Self::Delivered => None,
            Self::Defer { class, .. } | Self::Bounce { class } => Some(class),
        }
    }

    /// Whether the recipient goes on the suppression list: the message bounced, and `reply` is evidence
    /// about the mailbox. A reply with a policy status (x.7.z) never is, whatever its words.
    pub fn suppresses(self, reply: &SmtpReply) -> bool {
        let Self::Bounce { class } = self else { return false };
        let policy = reply.enhanced.is_some_and(|status| status.subject == 7);
        !policy && matches!(class, BounceClass::InvalidRecipient | BounceClass::InactiveMailbox)
    }
}

/// What rules look at: the words in lower case, each after a space, without those that hold an address, since a
/// recipient called `spam@` must not decide his class.
pub(crate) fn words_alone(text: &str) -> String {
    let words = text.to_lowercase();
    let mut kept = String::with_capacity(words.len() + 1);
    for word in words.split(' ').filter(|word| !word.contains('@')) {
        kept.push(' ');
        kept.push_str(word);
    }
    kept
}

/// The wait that `words`, in lower case, ask for: "try again in 300 seconds", "greylisted for 5 minutes",
/// "come back in 00:05:00".
fn stated_wait(words: &str) -> Option<Duration> {
    /// A wait is one of these words, at most four words before the number.
    const ASKING: &[&str] =
        &["again", "retry", "retrying", "wait", "back", "greylist", "graylist", "greylisted", "graylisted", "resend"];
    const AROUND: &[char] = &['.', ',', ';', ':', '!', '(', ')', '[', ']', '"', '\'', '<', '>'];
    let words: Vec<&str> = words.split(' ').map(|word| word.trim_matches(AROUND)).collect();
    for (at, word) in words.iter().enumerate() {
        if !word.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let asked = words[at.saturating_sub(4)..at].iter().any(|word| ASKING.contains(word));
        if asked && let Some(seconds) = span(&words[at..]) {
            return Some(Duration::from_secs(seconds.clamp(STATED_WAIT.0, STATED_WAIT.1)));
        }
    }
    None
}

/// The seconds of a time at the start of `words`: `00:05:00`, `300s`, `5 minutes`, `1 minute and 20 seconds`.
fn span(words: &[&str]) -> Option<u64> {
    if words[0].contains(':') {
        let parts: Vec<u64> = words[0].split(':').map(number).collect::<Option<_>>()?;
        return match parts[..] {
            [hours, minutes, seconds] => Some(hours * 3600 + minutes * 60 + seconds),
            _ => None,
        };
    }
    let mut total = None;
    let mut rest = words.iter().copied().filter(|word| *word != "and");
    while let Some(word) = rest.next() {
        let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (count, glued) = word.split_at(digits);
        let Some(count) = number(count) else { break };
        let name = if glued.is_empty() { rest.next().unwrap_or_default() } else { glued.trim_start_matches('-') };
        let Some(unit) = unit(name) else { break };
        total = Some(total.unwrap_or(0) + count * unit);
    }
    total
}

/// A number of at most nine digits, so that no sum of them overflows.
fn number(text: &str) -> Option<u64> {
    if text.len() > 9 { None } else { text.parse().ok() }
}

fn unit(name: &str) -> Option<u64> {
    match name {
        "s" | "sec" | "secs" | "second" | "seconds" | "second(s" | "sec(s" => Some(1),
        "m" | "min" | "mins" | "minute" | "minutes" | "minute(s" | "min(s" => Some(60),
        "h" | "hr" | "hrs" | "hour" | "hours" | "hour(s" => Some(3600),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BounceClass::*, Ruleset};
    use proptest::prelude::*;

    fn at(stage: Stage, code: u16, words: &str) -> Verdict {
        Ruleset::builtin().classify(stage, &SmtpReply::new(code, words))
    }

    #[test]
    fn a_reply_gives_its_status_and_keeps_its_words_on_one_line() {
        let reply = SmtpReply::new(550, "5.1.1 The email account\n5.1.1 does not\u{1b}[0m exist\r\n5.1.10 see");
        assert_eq!(reply.enhanced(), "5.1.1".parse().ok());
        assert_eq!(reply.text(), "The email account does not [0m exist 5.1.10 see");
        assert_eq!(reply.to_string(), "550 5.1.1 The email account does not [0m exist 5.1.10 see");
        assert_eq!(SmtpReply::new(250, "").to_string(), "250");
        assert_eq!(SmtpReply::new(250, "2.0.0").enhanced(), "2.0.0".parse().ok());
        assert_eq!(SmtpReply::new(550, "10.1.1 x").enhanced(), None);
        assert_eq!(SmtpReply::new(550, &"x".repeat(9_000)).text().chars().count(), MAX_TEXT);
    }

    #[test]
    fn a_reply_is_read_as_it_is_written() {
        for (text, read) in [
            ("550 5.1.1 No such user", "550 5.1.1 No such user"),
            ("550-5.1.1 No such\r\n550-5.1.1 user\n550 5.1.1 here", "550 5.1.1 No such user here"),
            ("421", "421"),
            ("550-", "550"),
            ("550 550 5.1.1 twice", "550 550 5.1.1 twice"),
        ] {
            assert_eq!(text.parse::<SmtpReply>().unwrap().to_string(), read);
        }
        for text in ["", "55", "5501 x", "199 x", "600 x", "abc", "550x", "+50 x", "é50 x"] {
            assert_eq!(text.parse::<SmtpReply>(), Err(SmtpReplyError), "{text}");
        }
    }

    #[test]
    fn five_hundred_bounces_and_what_they_mean() {
        for (code, words, class) in [
            (550, "5.1.1 The email account that you tried to reach does not exist.", InvalidRecipient),
            (
                550,
                "5.1.1 <spam-virus@example.com>: Recipient address rejected: User unknown in virtual mailbox table",
                InvalidRecipient,
            ),
            (550, "No such user here", InvalidRecipient),
            (550, "Benutzer unbekannt", InvalidRecipient),
            (550, "5.1.1", InvalidRecipient),
            (550, "5.4.1 Recipient address rejected: Access denied. AS(201806281)", InvalidRecipient),
            (550, "5.5.0 Requested action not taken: mailbox unavailable (S2017062302).", InvalidRecipient),
            (
                554,
                "30 Sorry, your message to <x@yahoo.com> cannot be delivered. This mailbox is disabled (554.30).",
                InactiveMailbox,
            ),
            (550, "5.2.1 The email account that you tried to reach is inactive.", InactiveMailbox),
            (552, "5.2.2 The email account that you tried to reach is over quota and inactive.", InactiveMailbox),
            (550, "5.1.6", InactiveMailbox),
            (550, "5.1.2 host unknown", BadDomain),
            (556, "5.1.10 Recipient address has null MX", BadDomain),
            (552, "5.2.2 Mailbox full", QuotaIssues),
            (552, "message exceeds", QuotaIssues),
            (552, "5.3.4 Message size exceeds fixed limit", QuotaIssues),
            (550, "5.1.8 Sender address rejected: Domain not found", InvalidSender),
            (
                550,
                "5.7.515 Access denied, sending domain example.com does not meet the required authentication level.",
                AuthenticationFailed,
            ),
            (
                550,
                "5.7.509 Access denied, sending domain example.com does not pass DMARC verification",
                AuthenticationFailed,
            ),
            (
                550,
                "5.7.26 Unauthenticated email from example.com is not accepted due to domain's policy.",
                AuthenticationFailed,
            ),
            (550, "5.1.4 Recipient address rejected: Access denied", PolicyRelated),
            (550, "5.7.1 message refused", PolicyRelated),
            (554, "5.7.1 Service unavailable; Client host [1.2.3.4] blocked using zen.spamhaus.org", SpamBlock),
            (
                550,
                "5.7.1 Unfortunately, messages from [1.2.3.4] weren't sent. Please contact your provider since part of their network is on our block list (S3140).",
                SpamBlock,
            ),
            (550, "5.7.1 Our system has detected that this message is likely unsolicited mail", SpamContent),
            (554, "5.7.1 Message rejected: virus found", VirusRelated),
            (550, "5.7.1 Relaying denied", RelayDenied),
            (554, "5.7.1 <a@b.example>: Relay access denied", RelayDenied),
            (554, "5.4.6 too many hops", RoutingErrors),
            (501, "5.5.4 syntax", ProtocolErrors),
            (550, "no", Uncategorized),
            (554, "transaction failed", Uncategorized),
        ] {
            assert_eq!(at(Stage::RcptTo, code, words), Verdict::Bounce { class }, "{code} {words}");
        }
    }

    #[test]
    fn what_is_for_now_even_when_it_is_coded_for_good() {
        for (code, words, class) in [
            (
                550,
                "5.2.1 The email account that you tried to reach is receiving mail at a rate that prevents additional messages",
                RateLimited,
            ),
            (550, "Ip frequency limited [xx] http://service.mail.qq.com/", RateLimited),
            (550, "Connection frequency limited", RateLimited),
            (550, "5.5.3 too many recipients", TooManyRecipients),
            (552, "5.5.3", TooManyRecipients),
            (530, "5.7.0 Must issue a STARTTLS command first", BadConfiguration),
            (535, "5.7.8 credentials invalid", BadConfiguration),
            (452, "4.2.2 The email account that you tried to reach is over quota.", QuotaIssues),
            (452, "", QuotaIssues),
            (452, "4.5.3 too many", TooManyRecipients),
            (450, "4.2.0 Recipient address rejected: Greylisted", Greylisted),
            (421, "4.7.0 [TSS04] Messages from 1.2.3.4 temporarily deferred due to user complaints", SpamBlock),
            (421, "4.7.0 [TS03] All messages from 1.2.3.4 will be deferred", RateLimited),
            (421, "4.7.28 Gmail has detected an unusual rate of unsolicited mail", RateLimited),
            (451, "4.3.0 try later", TransientFailure),
            (450, "4.1.1 user unknown", InvalidRecipient),
        ] {
            let verdict = at(Stage::RcptTo, code, words);
            assert_eq!(verdict, Verdict::Defer { class, stated_wait: None }, "{code} {words}");
        }
    }

    #[test]
    fn a_refusal_of_us_is_no_refusal_of_the_message() {
        for stage in [Stage::Greeting, Stage::Hello, Stage::StartTls, Stage::Auth] {
            assert!(matches!(at(stage, 554, "5.7.1 go away"), Verdict::Defer { class: PolicyRelated, .. }));
        }
        assert_eq!(at(Stage::MailFrom, 550, "5.1.1 unknown user"), Verdict::Bounce { class: InvalidSender });
    }

    #[test]
    fn only_the_dot_delivers() {
        assert_eq!(at(Stage::Dot, 250, "2.0.0 queued"), Verdict::Delivered);
        for (stage, code) in
            [(Stage::RcptTo, 250), (Stage::Data, 250), (Stage::Dot, 354), (Stage::Dot, 99), (Stage::Dot, 600)]
        {
            assert_eq!(at(stage, code, ""), Verdict::Defer { class: ProtocolErrors, stated_wait: None });
        }
    }

    #[test]
    fn only_evidence_about_the_recipient_suppresses_him() {
        for (code, words, suppresses) in [
            (550, "5.1.1 user unknown", true),
            (554, "This mailbox is disabled (554.30)", true),
            (550, "5.7.1 user unknown", false),
            (450, "4.1.1 user unknown", false),
            (552, "5.2.2 mailbox full", false),
            (554, "5.7.1 blocked using zen.spamhaus.org", false),
            (550, "5.7.515 access denied", false),
            (550, "5.1.2 no such domain", false),
        ] {
            let reply = SmtpReply::new(code, words);
            let verdict = Ruleset::builtin().classify(Stage::RcptTo, &reply);
            assert_eq!(verdict.suppresses(&reply), suppresses, "{words}");
        }
    }

    #[test]
    fn a_wait_is_understood_as_people_state_it() {
        for (words, seconds) in [
            ("Greylisted, please try again in 180 seconds", Some(180)),
            ("4.2.0 greylisted for 5 minutes", Some(300)),
            ("Greylisting in action, please come back in 00:05:00", Some(300)),
            ("retry in 00:05:00", Some(300)),
            ("Please retry after 300s.", Some(300)),
            ("try again in 1 minute and 20 seconds", Some(80)),
            ("wait 2 hours", Some(7_200)),
            ("retry in 0 seconds", Some(1)),
            ("try again in 99 hours", Some(86_400)),
            ("try again in 99999999999999999999 hours", None),
            ("try again in 300", None),
            ("more than 100 messages per 5 minutes", None),
            ("try again later", None),
            ("retry in 1:2:3:4", None),
            ("retry in 5 potatoes", None),
            ("", None),
        ] {
            let Verdict::Defer { stated_wait, .. } = at(Stage::RcptTo, 450, words) else { panic!("{words}") };
            assert_eq!(stated_wait, seconds.map(Duration::from_secs), "{words}");
        }
    }

    #[test]
    fn classes_are_written_as_their_words() {
        for class in BounceClass::ALL {
            assert_eq!(serde_json::to_string(class).unwrap(), format!("\"{class}\""));
            assert_eq!(class.as_str().parse(), Ok(*class));
        }
    }

    proptest! {
        #[test]
        fn no_reply_is_too_strange(code in any::<u16>(), words in any::<String>(), hint in "(retry in |[0-9:]{1,12}|[45]\\.[0-9]{1,3}\\.[0-9]{1,3}| s| and ){0,8}") {
            let reply = SmtpReply::new(code, &format!("{hint}{words}"));
            for stage in [Stage::Greeting, Stage::MailFrom, Stage::RcptTo, Stage::Dot] {
                let verdict = Ruleset::builtin().classify(stage, &reply);
                let bounced = matches!(verdict, Verdict::Bounce { .. });
                prop_assert!(!bounced || code / 100 == 5);
                if let Verdict::Defer { stated_wait: Some(wait), .. } = verdict {
                    prop_assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(86_400));
                }
            }
        }

        #[test]
        fn an_enhanced_status_survives_being_written(class in prop::sample::select(vec![2_u8, 4, 5]), subject in 0_u16..1_000, detail in 0_u16..1_000) {
            let status = EnhancedStatus { class, subject, detail };
            prop_assert_eq!(status.to_string().parse(), Ok(status));
        }
    }
}
