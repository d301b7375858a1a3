//! What recipients' programs do with the links of a mail, and whether a person did it: rules that are data.
//!
//! `rules/hits.toml` tells the form. The first rule that matches decides; what none matches, a person did. What is known
//! of a hit is kept with its fact, the rule included.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    MessageId,
    fact::{FactDetail, FactKind},
    text::sanitise,
    token::HONEYPOT_PLACE,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    sync::LazyLock,
    time::Duration,
};
use store::{Effect, Feedback};

/// Longest name of a program that is kept, in characters.
const MAX_AGENT: usize = 300;
/// Longest address that is kept, in characters.
const MAX_URL: usize = 500;

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a constant, which a test reads as well")]
    Rules::parse(include_str!("../rules/hits.toml")).expect("the rules that are built in hold")
});

/// Something that was done with a mail's links, as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The mail.
    pub message: MessageId,
    /// What was done.
    pub what: What,
    /// When.
    pub at: DateTime<Utc>,
    /// Tells it from every other hit.
    pub id: String,
    /// What the program called itself.
    pub agent: String,
    /// The network that it came from; empty when that is not known.
    pub network: String,
    /// Whether the method was HEAD.
    pub head: bool,
    /// Whether the program said that nobody looks yet.
    pub prefetch: bool,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The image was fetched.
    Open,
    /// A link was followed.
    Click {
        /// Its place in the mail.
        place: u16,
        /// Where it leads.
        url: String,
    },
    /// No more mail is wanted.
    Unsubscribe {
        /// By one click in the recipient's mail program (RFC 8058), not on the page.
        one_click: bool,
    },
    /// Mail is wanted again.
    Resubscribe,
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Class {
    /// A program that fetches for its users ahead of time, or for all of them.
    Machine,
    /// A program that looks for what is dangerous.
    Scanner,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    version: String,
    #[serde(rename = "rule")]
    rules: Vec<Rule>,
}

/// One rule. Every condition that is given must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    class: Class,
    /// The whole name of the program.
    #[serde(default)]
    is: Vec<String>,
    /// Parts of it, in lower case.
    #[serde(default)]
    holds: Vec<String>,
    #[serde(default)]
    head: bool,
    #[serde(default)]
    prefetch: bool,
    /// So soon after the delivery.
    #[serde(default, with = "humantime_serde::option")]
    within: Option<Duration>,
    /// So many links of one mail within a second.
    #[serde(default)]
    links: Option<usize>,
    /// The link that no reader sees.
    #[serde(default)]
    hidden: bool,
    /// Clicks alone.
    #[serde(default)]
    clicks: bool,
    /// Names of programs that it decides; needed where it looks at the name.
    #[serde(default)]
    examples: Vec<String>,
}

impl Rules {
    fn parse(text: &str) -> Result<Self, String> {
        let rules: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for rule in &rules.rules {
            let name = &rule.name;
            let by_name = !rule.is.is_empty() || !rule.holds.is_empty();
            if !by_name && rule.by_name_alone() {
                return Err(format!("rule {name:?} has no condition"));
            }
            if rule.holds.iter().any(|part| part.is_empty() || *part != part.to_lowercase()) {
                return Err(format!("rule {name:?} holds a part that is empty or not in lower case"));
            }
            if by_name && rule.examples.is_empty() {
                return Err(format!("rule {name:?} has no examples"));
            }
            for example in &rule.examples {
                let decides = rules
                    .rules
                    .iter()
                    .find(|other| other.knows(example) && (other.by_name_alone() || other.name == *name));
                if decides.is_none_or(|decides| decides.name != *name) {
                    return Err(format!("rule {name:?} does not decide its example {example:?}"));
                }
            }
        }
        Ok(rules)
    }
}

impl Rule {
    fn by_name_alone(&self) -> bool {
        !self.head && !self.prefetch && !self.hidden && self.within.is_none() && self.links.is_none()
    }

    fn knows(&self, agent: &str) -> bool {
        let lower = agent.to_lowercase();
        (self.is.is_empty() && self.holds.is_empty())
            || self.is.iter().any(|name| name == agent)
            || self.holds.iter().any(|part| lower.contains(part.as_str()))
    }

    fn matches(&self, hit: &Hit, since: Option<TimeDelta>, links: usize) -> bool {
        let is_click = matches!(hit.what, What::Click { .. });
        let soon = |within: Duration| {
            since.is_some_and(|since| since >= TimeDelta::zero() && since.to_std().is_ok_and(|since| since <= within))
        };
        self.knows(&hit.agent)
            && (!self.head || hit.head)
            && (!self.prefetch || hit.prefetch)
            && (!self.hidden || matches!(hit.what, What::Click { place: HONEYPOT_PLACE, .. }))
            && self.within.is_none_or(soon)
            && self.links.is_none_or(|least| links >= least)
            && (!self.clicks || is_click)
    }
}

/// What hits come to, given when their mails were delivered. Those that came together are judged together.
pub fn judge(hits: &[Hit], delivered: &HashMap<MessageId, DateTime<Utc>>) -> Vec<Feedback> {
    hits.iter()
        .map(|hit| {
            let since = delivered.get(&hit.message).map(|at| hit.at - *at);
            let links = links_at_once(hits, hit);
            let rule = RULES.rules.iter().find(|rule| rule.matches(hit, since, links));
            feedback(hit, rule)
        })
        .collect()
}

/// How many links of its mail were followed within the second around a hit.
fn links_at_once(hits: &[Hit], hit: &Hit) -> usize {
    let near = |other: &&Hit| other.message == hit.message && (other.at - hit.at).abs() <= TimeDelta::seconds(1);
    let places = hits.iter().filter(near).filter_map(|other| match &other.what {
        What::Click { place, .. } => Some(*place),
        What::Open | What::Unsubscribe { .. } | What::Resubscribe => None,
    });
    places.collect::<BTreeSet<u16>>().len()
}

fn feedback(hit: &Hit, rule: Option<&Rule>) -> Feedback {
    let (kind, effect, url) = match &hit.what {
        What::Open if rule.is_some() => (FactKind::OpenedByMachine, Effect::Nothing, None),
        What::Open => (FactKind::Opened, Effect::Nothing, None),
        What::Click { url, .. } if rule.is_some() => (FactKind::ClickedByMachine, Effect::Nothing, Some(url)),
        What::Click { url, .. } => (FactKind::Clicked, Effect::Nothing, Some(url)),
        What::Unsubscribe { .. } => (FactKind::Unsubscribed, Effect::Unsubscribe, None),
        What::Resubscribe => (FactKind::Resubscribed, Effect::Resubscribe, None),
    };
    let judged = matches!(hit.what, What::Open | What::Click { .. });
    let class = match (&hit.what, rule.map(|rule| rule.class)) {
        (What::Unsubscribe { one_click: true }, _) => "one_click",
        (What::Unsubscribe { one_click: false } | What::Resubscribe, _) => "page",
        (_, None) => "human",
        (_, Some(Class::Machine)) => "machine",
        (_, Some(Class::Scanner)) => "scanner",
    };
    let detail = FactDetail {
        class: Some(class.to_owned()),
        url: url.map(|url| sanitise(url, MAX_URL)),
        agent: Some(sanitise(&hit.agent, MAX_AGENT)).filter(|agent| !agent.is_empty()),
        network: Some(hit.network.clone()).filter(|network| !network.is_empty()),
        source: Some("http".to_owned()),
        rule: rule.filter(|_| judged).map(|rule| format!("{}@{}", rule.name, RULES.version)),
        ..FactDetail::default()
    };
    Feedback { message: hit.message, kind, source: hit.id.clone(), at: hit.at, detail, effect }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSON: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

    fn noon() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 0).expect("a time")
    }

    fn message() -> MessageId {
        "01a2089f-f02b-717a-b2a9-35479c6be73a".parse().expect("an id")
    }

    fn open(agent: &str) -> Hit {
        Hit {
            message: message(),
            what: What::Open,
            at: noon(),
            id: "1".to_owned(),
            agent: agent.to_owned(),
            network: String::new(),
            head: false,
            prefetch: false,
        }
    }

    fn click(place: u16, after_ms: i64) -> Hit {
        let url = "https://example.com/".to_owned();
        Hit { what: What::Click { place, url }, at: noon() + TimeDelta::milliseconds(after_ms), ..open(PERSON) }
    }

    fn kinds(hits: &[Hit], delivered: Option<DateTime<Utc>>) -> Vec<FactKind> {
        let delivered = delivered.map(|at| (message(), at)).into_iter().collect();
        judge(hits, &delivered).into_iter().map(|one| one.kind).collect()
    }

    #[test]
    fn the_rules_that_are_built_in_hold() {
        assert_eq!(Rules::parse(include_str!("../rules/hits.toml")).err(), None);
    }

    #[test]
    fn programs_that_fetch_for_everybody_are_no_opens_and_people_are() {
        for (agent, kind) in [
            (PERSON, FactKind::Opened),
            ("Mozilla/5.0", FactKind::OpenedByMachine),
            (
                "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
                FactKind::OpenedByMachine,
            ),
            ("YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html", FactKind::OpenedByMachine),
            ("", FactKind::OpenedByMachine),
            ("curl/8.5.0", FactKind::OpenedByMachine),
        ] {
            assert_eq!(kinds(&[open(agent)], None), [kind], "{agent}");
        }
        assert_eq!(kinds(&[Hit { head: true, ..open(PERSON) }], None), [FactKind::OpenedByMachine]);
        assert_eq!(kinds(&[Hit { prefetch: true, ..open(PERSON) }], None), [FactKind::OpenedByMachine]);
    }

    #[test]
    fn what_follows_all_links_at_once_or_at_the_delivery_is_a_scanner() {
        let all = [click(0, 0), click(1, 200), click(2, 700)];
        assert_eq!(kinds(&all, None), [FactKind::ClickedByMachine; 3]);
        assert_eq!(kinds(&[click(0, 0), click(1, 5_000), click(2, 9_000)], None), [FactKind::Clicked; 3]);
        assert_eq!(kinds(&[click(0, 0), click(0, 100), click(0, 200)], None), [FactKind::Clicked; 3], "one link");
        assert_eq!(kinds(&[click(0, 1_500)], Some(noon())), [FactKind::ClickedByMachine]);
        assert_eq!(kinds(&[click(0, 60_000)], Some(noon())), [FactKind::Clicked]);
        assert_eq!(kinds(&[click(HONEYPOT_PLACE, 60_000)], None), [FactKind::ClickedByMachine], "nobody sees it");
        let told = judge(&all, &HashMap::new());
        assert_eq!(told[0].detail.rule.as_deref(), Some("all-links-at-once@1"));
        assert_eq!(told[0].detail.class.as_deref(), Some("scanner"));
    }

    #[test]
    fn a_rule_without_a_meaning_is_refused() {
        for (rule, told) in [
            ("name = \"a\"\nclass = \"machine\"", "no condition"),
            ("name = \"a\"\nclass = \"machine\"\nholds = [\"X\"]\nexamples = [\"X\"]", "not in lower case"),
            ("name = \"a\"\nclass = \"machine\"\nholds = [\"x\"]", "no examples"),
            ("name = \"a\"\nclass = \"machine\"\nholds = [\"x\"]\nexamples = [\"y\"]", "does not decide"),
            ("name = \"a\"\nclass = \"person\"\nhead = true", "unknown variant"),
        ] {
            let told_now = Rules::parse(&format!("version = \"t\"\n[[rule]]\n{rule}")).expect_err("is wrong");
            assert!(told_now.contains(told), "{rule}: {told_now}");
        }
    }
}
