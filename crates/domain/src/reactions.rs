//! What a sender does by itself when replies say that it is too fast or unwelcome: data with a version.
//!
//! `rules/reactions.toml` tells the form. An operator's own reactions come before those that are built in; one of the
//! same name takes the place of the built-in one. Replies of receivers alone are looked at, never our own words.

use crate::{
    BounceClass, EnhancedStatus, Rate, SiteId, Slot, SmtpReply, reply,
    rules::{Conditions, RulesError, Subject, name_problem},
    throttle::is_within,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::Hash,
    num::{NonZeroU16, NonZeroU32},
    sync::{Arc, LazyLock},
    time::Duration,
};

/// Most reactions of one file.
const MAX_REACTIONS: usize = 500;
/// Most replies that a reaction may wait for.
const MAX_COUNT: u32 = 1_000;
/// Longest time over which replies are counted, and longest time for which something lasts.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most places for which replies are counted at once; the oldest is forgotten first.
const MAX_COUNTS: usize = 10_000;

static BUILTIN: LazyLock<Reactions> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a constant, which a test reads as well")]
    Reactions::parse(include_str!("../rules/reactions.toml")).expect("the reactions that are built in hold")
});

/// Reactions with a version. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reactions {
    version: Arc<str>,
    all: Arc<[Reaction]>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(default, rename = "reaction")]
    reactions: Vec<Reaction>,
}

/// One reaction. Every condition that is given must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reaction {
    name: String,
    /// Named sites, or domains for the sites below them; empty: all.
    #[serde(default)]
    sites: Vec<String>,
    /// What the rules for replies said; empty: anything.
    #[serde(default)]
    classes: Vec<BounceClass>,
    #[serde(default)]
    codes: Vec<u16>,
    #[serde(default)]
    status: Vec<Subject>,
    #[serde(default)]
    texts: Vec<String>,
    #[serde(default)]
    scope: Scope,
    /// So many such replies within `within`.
    #[serde(default = "one")]
    count: NonZeroU32,
    #[serde(default = "an_hour", with = "humantime_serde")]
    within: Duration,
    #[serde(rename = "do")]
    action: Action,
    /// For how long; then it ends, a rate in steps.
    #[serde(default, with = "humantime_serde")]
    lasts: Duration,
    /// Replies that it matches.
    examples: Vec<String>,
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn an_hour() -> Duration {
    Duration::from_secs(3600)
}

/// Whose mail a reaction is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All mail of the route to the site.
    #[default]
    Site,
    /// The mail of one tenant to the site, whatever the route.
    Tenant,
    /// The mail of one campaign to the site, whatever the route.
    Campaign,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The rate becomes this part of what it was; it climbs back in steps.
    Cut(f64),
    /// No more than so much.
    Limit(Limit),
    /// Nothing at all.
    Suspend,
    /// Nothing, and no reaction after this one looks at the reply.
    Ignore,
    /// The connections that there are will do, for a while; no reaction after this one looks at the reply.
    Fewer,
}

/// A limit below the configured ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Messages.
    pub rate: Option<Rate>,
    /// Connections at once.
    pub connections: Option<NonZeroU16>,
    /// Messages of a connection.
    pub messages_per_connection: Option<NonZeroU16>,
}

/// Something that is to be done now.
#[derive(Clone, Debug, PartialEq)]
pub struct Reacted<'a> {
    /// By which rule.
    pub rule: &'a str,
    /// Whose mail it is about.
    pub scope: Scope,
    /// What.
    pub action: Action,
    /// For how long; nothing for a cut, which ends by itself.
    pub lasts: Duration,
}

impl Scope {
    /// The word in rows and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Tenant => "tenant",
            Self::Campaign => "campaign",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Reaction {
    fn conditions(&self) -> Conditions<'_> {
        Conditions { codes: &self.codes, status: &self.status, texts: &self.texts }
    }

    fn matches(
        &self,
        site: Option<&SiteId>,
        class: Option<BounceClass>,
        code: u16,
        enhanced: Option<EnhancedStatus>,
        words: &str,
    ) -> bool {
        let concerns = |name: &String| site.is_none_or(|site| is_within(site.as_str(), name));
        (self.sites.is_empty() || self.sites.iter().any(concerns))
            && (self.classes.is_empty() || class.is_none_or(|class| self.classes.contains(&class)))
            && self.conditions().hold(code, enhanced, words)
    }

    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = name_problem(&self.name).into_iter().collect();
        for site in &self.sites {
            let is_named = Slot::all().any(|slot| slot.named_site() == Some(site));
            if !is_named && !site.parse::<crate::DomainName>().is_ok_and(|domain| domain.as_str().contains('.')) {
                let known: Vec<_> = Slot::all().filter_map(Slot::named_site).collect();
                problems.push(format!(
                    "is for the site {site:?}, which is neither a named one ({}) nor a domain with a dot",
                    known.join(", ")
                ));
            }
        }
        if self.conditions().are_none() && self.classes.is_empty() {
            problems.push("has no condition; give classes, codes, status or texts".to_owned());
        }
        problems.extend(self.conditions().problems());
        if self.count.get() > MAX_COUNT {
            problems.push(format!("waits for more than {MAX_COUNT} replies"));
        }
        if self.within.is_zero() || self.within > LONGEST || self.lasts > LONGEST {
            problems.push("has a within or lasts outside of 1s to 7d".to_owned());
        }
        match self.action {
            Action::Cut(part) if !(part > 0.0 && part < 1.0) => {
                problems.push("cuts to a part that does not lie between 0 and 1".to_owned());
            }
            Action::Cut(_) | Action::Ignore | Action::Fewer if !self.lasts.is_zero() => {
                problems.push("has a lasts, which cut, ignore and fewer have not".to_owned());
            }
            Action::Limit(limit) if limit == Limit::default() => {
                problems.push("has an empty limit; give rate, connections or messages_per_connection".to_owned());
            }
            Action::Limit(_) | Action::Suspend if self.lasts.is_zero() => {
                problems.push("needs a lasts, such as \"30m\"".to_owned());
            }
            Action::Cut(_) | Action::Limit(_) | Action::Suspend | Action::Ignore | Action::Fewer => {}
        }
        if self.scope != Scope::Site && !matches!(self.action, Action::Suspend) {
            problems.push("can only suspend a tenant or a campaign".to_owned());
        }
        if self.examples.is_empty() {
            problems.push("has no examples".to_owned());
        }
        for example in &self.examples {
            match example.parse::<SmtpReply>() {
                Err(error) => problems.push(format!("has the example {example:?}, which {error}")),
                Ok(reply) => {
                    let words = reply::words_alone(reply.text());
                    if !self.matches(None, None, reply.code(), reply.enhanced(), &words) {
                        problems.push(format!("has the example {example:?}, which it does not match"));
                    }
                }
            }
        }
        problems
    }
}

impl Reactions {
    /// Those that are built in.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// With all that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        Self::read(text, None)
    }

    /// Reads the text of an operator's own reactions, which come before those that are built in.
    ///
    /// # Errors
    /// With all that is wrong with it.
    pub fn parse_own(text: &str) -> Result<Self, RulesError> {
        Self::read(text, Some(Self::builtin()))
    }

    fn read(text: &str, behind: Option<&Self>) -> Result<Self, RulesError> {
        let file: File = toml::from_str(text).map_err(|error| RulesError::Form(error.to_string()))?;
        let own = &file.reactions;
        let mut problems = Vec::new();
        if own.len() > MAX_REACTIONS {
            problems.push(format!("there are {} reactions; at most {MAX_REACTIONS} are taken", own.len()));
        }
        for (at, reaction) in own.iter().take(MAX_REACTIONS).enumerate() {
            let name = &reaction.name;
            problems.extend(reaction.problems().into_iter().map(|problem| format!("reaction {name:?} {problem}")));
            if own[..at].iter().any(|other| other.name == *name) {
                problems.push(format!("two reactions have the name {name:?}"));
            }
        }
        if !problems.is_empty() {
            return Err(RulesError::Rules(problems));
        }
        let Some(behind) = behind else {
            return Ok(Self { version: file.version.into(), all: file.reactions.into() });
        };
        let others = behind.all.iter().filter(|one| !own.iter().any(|own| own.name == one.name)).cloned();
        let version = format!("{}+{}", file.version, behind.version);
        let all: Vec<Reaction> = own.iter().cloned().chain(others).collect();
        Ok(Self { version: version.into(), all: all.into() })
    }

    /// The version; of an operator's own reactions, theirs and that of those behind them.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// Counts replies and tells when it is time to react. One for each owner of sites.
///
/// `K` names whose replies are counted together; times are monotonic, since any fixed moment.
#[derive(Debug)]
pub struct Reactor<K> {
    reactions: Reactions,
    seen: HashMap<(usize, K), VecDeque<Duration>>,
}

impl<K: Clone + Eq + Hash> Reactor<K> {
    /// One that has seen nothing yet.
    pub fn new(reactions: Reactions) -> Self {
        Self { reactions, seen: HashMap::new() }
    }

    /// Takes in a refusal, and tells what is to be done. `key` names whose replies are counted together in a scope;
    /// `None`: the reply is of nobody in that scope, as a mail without a campaign.
    pub fn observe(
        &mut self,
        site: &SiteId,
        class: Option<BounceClass>,
        reply: &SmtpReply,
        now: Duration,
        key: impl Fn(Scope) -> Option<K>,
    ) -> Vec<Reacted<'_>> {
        let words = reply::words_alone(reply.text());
        let mut reacted = Vec::new();
        for (at, reaction) in self.reactions.all.iter().enumerate() {
            if !reaction.matches(
                Some(site),
                Some(class.unwrap_or(BounceClass::Uncategorized)),
                reply.code(),
                reply.enhanced(),
                &words,
            ) {
                continue;
            }
            if matches!(reaction.action, Action::Ignore) {
                break;
            }
            let Some(key) = key(reaction.scope) else { continue };
            if reaction.count.get() > 1 {
                if self.seen.len() >= MAX_COUNTS && !self.seen.contains_key(&(at, key.clone())) {
                    forget(&mut self.seen);
                }
                let times = self.seen.entry((at, key)).or_default();
                times.push_back(now);
                while times.front().is_some_and(|first| *first + reaction.within < now) {
                    times.pop_front();
                }
                if times.len() < reaction.count.get() as usize {
                    continue;
                }
                times.clear();
            }
            let Reaction { name, scope, action, lasts, .. } = reaction;
            reacted.push(Reacted { rule: name, scope: *scope, action: *action, lasts: *lasts });
            if matches!(action, Action::Fewer) {
                break;
            }
        }
        reacted
    }
}

/// Makes room: the place whose last reply is the oldest.
fn forget<K: Clone + Eq + Hash>(seen: &mut HashMap<K, VecDeque<Duration>>) {
    let oldest = seen.iter().min_by_key(|(_, times)| times.back().copied()).map(|(key, _)| key.clone());
    if let Some(oldest) = oldest {
        seen.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteId {
        SiteId::from_stored(name.to_owned())
    }

    fn observe(
        reactor: &mut Reactor<Scope>,
        name: &str,
        class: BounceClass,
        text: &str,
        at: u64,
    ) -> Vec<(String, Action)> {
        let reply: SmtpReply = text.parse().unwrap();
        let found = reactor.observe(&site(name), Some(class), &reply, Duration::from_secs(at), Some);
        found.into_iter().map(|one| (one.rule.to_owned(), one.action)).collect()
    }

    fn own(text: &str) -> Result<Reactions, String> {
        Reactions::parse_own(&format!("version = \"t\"\n{text}")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_reactions_that_are_built_in_hold() {
        let read = Reactions::parse(include_str!("../rules/reactions.toml"));
        assert!(read.is_ok(), "{}", read.unwrap_err());
    }

    #[test]
    fn a_receiver_that_asks_to_slow_down_is_sent_to_at_half_the_rate() {
        let mut reactor = Reactor::new(Reactions::builtin().clone());
        let found = observe(&mut reactor, "mx.example.org", BounceClass::RateLimited, "421 4.7.0 slow down", 0);
        assert_eq!(found, [("slow-down".to_owned(), Action::Cut(0.5))]);
        assert_eq!(observe(&mut reactor, "mx.example.org", BounceClass::InvalidRecipient, "550 5.1.1 no", 1), []);
    }

    #[test]
    fn a_rate_that_is_the_recipients_alone_slows_nobody_else_down() {
        let mut reactor = Reactor::new(Reactions::builtin().clone());
        let text = "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages";
        assert_eq!(observe(&mut reactor, "google", BounceClass::RateLimited, text, 0), []);
    }

    #[test]
    fn only_so_many_replies_within_the_time_count_and_then_the_count_begins_anew() {
        let text = "[[reaction]]\nname = \"three\"\nsites = [\"yahoo\"]\ntexts = [\"[xyz]\"]\ncount = 3\n\
                    within = \"1h\"\ndo = \"suspend\"\nlasts = \"2h\"\nexamples = [\"421 4.7.0 [xyz] later\"]";
        let mut reactor = Reactor::new(own(text).unwrap());
        let mut at = |site, at| {
            let found = observe(&mut reactor, site, BounceClass::TransientFailure, "421 4.7.0 [XYZ] no", at);
            found.iter().any(|(rule, _)| rule == "three")
        };
        assert!(!at("yahoo", 0) && !at("yahoo", 3_000));
        assert!(!at("yahoo", 3_601), "the first is too old");
        assert!(!at("google", 3_602), "another site's rule");
        assert!(at("yahoo", 3_700));
        assert!(!at("yahoo", 3_701), "counted anew");
    }

    #[test]
    fn an_operators_reaction_takes_the_place_of_the_one_with_its_name() {
        let text = "[[reaction]]\nname = \"slow-down\"\nclasses = [\"rate_limited\"]\ndo = { cut = 0.9 }\n\
                    examples = [\"421 4.7.0 slow\"]";
        let mut reactor = Reactor::new(own(text).unwrap());
        let found = observe(&mut reactor, "mx.example.org", BounceClass::RateLimited, "421 4.7.0 slow down", 0);
        assert_eq!(found, [("slow-down".to_owned(), Action::Cut(0.9))]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_at_once_and_by_name() {
        let with = |more: &str| format!("[[reaction]]\nname = \"a\"\nexamples = [\"421 x\"]\n{more}");
        for (text, told) in [
            (with("texts = [\"x\"]"), "missing field `do`"),
            (with("do = \"suspend\"\nlasts = \"1h\""), "has no condition"),
            (with("do = \"suspend\"\ntexts = [\"x\"]"), "needs a lasts"),
            (with("do = \"stop\"\ntexts = [\"x\"]"), "unknown variant `stop`"),
            (with("do = { cut = 1.5 }\ntexts = [\"x\"]"), "between 0 and 1"),
            (with("do = { limit = {} }\nlasts = \"1h\"\ntexts = [\"x\"]"), "empty limit"),
            (with("do = { limit = { rate = \"fast\" } }\nlasts = \"1h\"\ntexts = [\"x\"]"), "rate such as"),
            (
                with("do = { cut = 0.5 }\ntexts = [\"x\"]\nsites = [\"gmail\"]"),
                "is for the site \"gmail\", which is neither",
            ),
            (with("do = { cut = 0.5 }\ntexts = [\"x\"]\nscope = \"tenant\""), "can only suspend a tenant"),
            (with("do = { cut = 0.5 }\ntexts = [\"yz\"]"), "which it does not match"),
            (with("do = { cut = 0.5 }\ntexts = [\"x\"]\nclasses = [\"spam\"]"), "unknown variant `spam`"),
            (with("do = \"suspend\"\nlasts = \"30d\"\ntexts = [\"x\"]"), "outside of 1s to 7d"),
        ] {
            let error = own(&text).unwrap_err();
            assert!(error.contains(told), "{text}\n{error}");
        }
    }

    #[test]
    fn no_flood_of_places_fills_the_memory() {
        let text = "[[reaction]]\nname = \"a\"\ntexts = [\"x\"]\ncount = 2\nscope = \"campaign\"\ndo = \"suspend\"\n\
                    lasts = \"1h\"\nexamples = [\"421 x\"]";
        let mut reactor = Reactor::<usize>::new(own(text).unwrap());
        let reply: SmtpReply = "421 x".parse().unwrap();
        for place in 0..MAX_COUNTS + 10 {
            reactor.observe(&site("google"), None, &reply, Duration::from_secs(place as u64), |_| Some(place));
        }
        assert_eq!(reactor.seen.len(), MAX_COUNTS);
    }
}
