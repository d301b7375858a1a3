//! What a peer does when: data.

use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How a receiver behaves. As TOML:
///
/// ```toml
/// offers = ["PIPELINING"]
/// certificate = "self_signed"
///
/// [[on]]
/// at = "rcpt"
/// to = "bob"
/// times = 1
/// per = "triplet"
/// do = [{ say = "450 4.7.1 come back" }]
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// Keywords offered with `EHLO`, but for `STARTTLS`. Default: `PIPELINING`, `8BITMIME`, `SIZE 26214400`.
    pub offers: Vec<String>,
    /// Offer `STARTTLS`, and show such a certificate. Default: no TLS.
    pub certificate: Option<Certificate>,
    /// The first rule that applies is followed. Where none does, the peer is a receiver like any other.
    #[serde(rename = "on")]
    pub rules: Vec<Rule>,
}

impl Default for Script {
    fn default() -> Self {
        let offers = ["PIPELINING", "8BITMIME", "SIZE 26214400"];
        Self { offers: offers.map(str::to_owned).into(), certificate: None, rules: Vec::new() }
    }
}

/// What a peer shows in a handshake. Nobody has vouched for any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certificate {
    /// Its own name, valid now.
    SelfSigned,
    /// Its own name, valid until years ago.
    Expired,
    /// Somebody else's name.
    WrongName,
}

/// Where in a conversation the peer has to say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Somebody has connected.
    Connect,
    /// `EHLO`.
    Ehlo,
    /// `HELO`.
    Helo,
    /// `STARTTLS`.
    Starttls,
    /// `MAIL`.
    Mail,
    /// `RCPT`.
    Rcpt,
    /// `DATA`.
    Data,
    /// Within the body, once [`Rule::octets`] of it have come.
    Body,
    /// The final dot.
    Dot,
    /// `RSET`.
    Rset,
    /// `QUIT`.
    Quit,
    /// Any other command.
    Other,
}

/// What to do at one stage, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The stage.
    pub at: Stage,
    /// Only for recipients whose address begins so; from `RCPT` to the dot.
    #[serde(default)]
    pub to: Option<String>,
    /// Only with TLS, or only without.
    #[serde(default)]
    pub tls: Option<bool>,
    /// Only when more conversations than this are open, this one counted.
    #[serde(default)]
    pub beyond: Option<usize>,
    /// Not the first so many times that all of this holds.
    #[serde(default)]
    pub skip: u32,
    /// Then no more than so many times.
    #[serde(default)]
    pub times: Option<u32>,
    /// And no longer than so long after the first time.
    #[serde(default, with = "humantime_serde")]
    pub lasts: Option<Duration>,
    /// For what times are counted.
    #[serde(default)]
    pub per: Per,
    /// Octets of body after which [`Stage::Body`] is reached.
    #[serde(default)]
    pub octets: usize,
    /// One after the other.
    #[serde(rename = "do")]
    pub steps: Vec<Step>,
}

/// For what a rule counts its times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// All together.
    #[default]
    Peer,
    /// Each connection.
    Connection,
    /// Each client address, sender and recipient, as a greylist does.
    Triplet,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// What a receiver like any other does at this stage.
    Default,
    /// Says a line, and its end.
    Say(String),
    /// Says this text, and nothing behind it.
    Raw(String),
    /// Says these octets, given as hexadecimal digits.
    Hex(String),
    /// Says this text again and again, as fast as it is taken, until the client goes.
    Flood(String),
    /// Says this text octet by octet, 25 a second, again and again until the client goes.
    Drip(String),
    /// Waits until so many octets have come that were not taken yet.
    Hear(usize),
    /// Does nothing, and reads nothing, for so long.
    Pause(#[serde(with = "humantime_serde")] Duration),
    /// Says nothing more, and reads until the client goes.
    Silence,
    /// Forgets what came behind this command in the same segment.
    Forget,
    /// Keeps the message. Its copy is there whatever is said next.
    Keep,
    /// Begins TLS.
    Handshake,
    /// Ends the connection in good order, without a word.
    Close,
    /// Resets the connection.
    Reset,
    /// Resets every connection, and is not there for so long.
    Die(#[serde(with = "humantime_serde")] Duration),
}

/// What a rule is held against.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    pub(super) stage: Stage,
    pub(super) recipient: &'a str,
    pub(super) tls: bool,
    pub(super) open: usize,
    pub(super) connection: usize,
    pub(super) triplet: &'a str,
}

impl Rule {
    fn fits(&self, moment: &Moment<'_>) -> bool {
        self.at == moment.stage
            && self.to.as_ref().is_none_or(|head| moment.recipient.starts_with(head.as_str()))
            && self.tls.is_none_or(|tls| tls == moment.tls)
            && self.beyond.is_none_or(|most| moment.open > most)
    }
}

/// How often each rule has had its turn, and since when.
#[derive(Debug, Default)]
pub(super) struct Turns(HashMap<(usize, String), (u32, Instant)>);

impl Turns {
    /// The first rule that applies now.
    pub(super) fn choose<'a>(&mut self, script: &'a Script, moment: &Moment<'_>, now: Instant) -> Option<&'a Rule> {
        script
            .rules
            .iter()
            .enumerate()
            .find(|(index, rule)| rule.fits(moment) && self.turn(*index, rule, moment, now))
            .map(|(_, rule)| rule)
    }

    fn turn(&mut self, index: usize, rule: &Rule, moment: &Moment<'_>, now: Instant) -> bool {
        let key = match rule.per {
            Per::Peer => String::new(),
            Per::Connection => moment.connection.to_string(),
            Per::Triplet => moment.triplet.to_owned(),
        };
        let (turns, since) = self.0.entry((index, key)).or_insert((0, now));
        let turn = *turns;
        *turns += 1;
        turn >= rule.skip
            && rule.times.is_none_or(|times| turn - rule.skip < times)
            && rule.lasts.is_none_or(|span| now.saturating_duration_since(*since) < span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment<'a>(stage: Stage, recipient: &'a str, triplet: &'a str, connection: usize) -> Moment<'a> {
        Moment { stage, recipient, tls: false, open: 1, connection, triplet }
    }

    fn said(turns: &mut Turns, script: &Script, moment: &Moment<'_>) -> Option<String> {
        match turns.choose(script, moment, Instant::now())?.steps.first()? {
            Step::Say(text) => Some(text.clone()),
            other => Some(format!("{other:?}")),
        }
    }

    fn script(rules: &str) -> Script {
        serde_json::from_str(&format!(r#"{{"on": {rules}}}"#)).unwrap()
    }

    #[test]
    fn the_first_rule_that_applies_is_followed_and_its_turns_are_counted_by_itself() {
        let script = script(
            r#"[{"at": "rcpt", "to": "bob", "do": [{"say": "550"}]},
                {"at": "rcpt", "times": 1, "per": "triplet", "do": [{"say": "450"}]},
                {"at": "rcpt", "skip": 2, "times": 1, "do": [{"say": "421"}]},
                {"at": "data", "tls": true, "do": ["silence"]},
                {"at": "connect", "beyond": 1, "do": ["close"]}]"#,
        );
        let mut turns = Turns::default();
        let mut rcpt = |to: &str, triplet: &str| said(&mut turns, &script, &moment(Stage::Rcpt, to, triplet, 0));
        assert_eq!(rcpt("bob@x", "1").as_deref(), Some("550"));
        assert_eq!(rcpt("ann@x", "1").as_deref(), Some("450"));
        assert_eq!(rcpt("ann@x", "2").as_deref(), Some("450"));
        assert_eq!(rcpt("ann@x", "1"), None);
        assert_eq!(rcpt("ann@x", "1"), None);
        assert_eq!(rcpt("ann@x", "1").as_deref(), Some("421"));
        assert_eq!(rcpt("ann@x", "1"), None);
        assert_eq!(said(&mut turns, &script, &moment(Stage::Data, "ann@x", "1", 0)), None);
        assert_eq!(said(&mut turns, &script, &moment(Stage::Connect, "", "", 0)), None);
        let crowded = Moment { open: 2, ..moment(Stage::Connect, "", "", 0) };
        assert_eq!(said(&mut turns, &script, &crowded).as_deref(), Some("Close"));
    }

    #[test]
    fn a_rule_that_lasts_a_while_ends_after_it() {
        let script = script(r#"[{"at": "rcpt", "lasts": "2s", "per": "connection", "do": ["close"]}]"#);
        let (mut turns, start) = (Turns::default(), Instant::now());
        let first = moment(Stage::Rcpt, "ann@x", "1", 0);
        assert!(turns.choose(&script, &first, start).is_some());
        assert!(turns.choose(&script, &first, start + Duration::from_millis(1_999)).is_some());
        assert!(turns.choose(&script, &first, start + Duration::from_secs(2)).is_none());
        let other = moment(Stage::Rcpt, "ann@x", "1", 1);
        assert!(turns.choose(&script, &other, start + Duration::from_secs(2)).is_some());
    }

    #[test]
    fn a_script_with_a_word_too_many_is_refused() {
        for wrong in [
            r#"{"offer": []}"#,
            r#"{"on": [{"at": "rcpt", "do": ["shout"]}]}"#,
            r#"{"on": [{"at": "rcpt", "when": 1, "do": []}]}"#,
            r#"{"on": [{"at": "vrfy", "do": []}]}"#,
            r#"{"on": [{"at": "rcpt"}]}"#,
        ] {
            assert!(serde_json::from_str::<Script>(wrong).is_err(), "{wrong}");
        }
    }
}
