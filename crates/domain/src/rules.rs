//! The rules that turn a reply into a class: data with a version, of which the first that matches decides.
//!
//! `rules/replies.toml` tells the form. An operator's own rules come before those that are built in. Every rule has
//! examples that it must decide itself, so that a mistake is told when a file is read and not when mail bounces.

use crate::{BounceClass, EnhancedStatus, SmtpReply, Stage, Verdict, reply};
use serde::Deserialize;
use std::sync::{Arc, LazyLock};

/// Most rules of one file.
const MAX_RULES: usize = 1_000;
/// Most texts of one rule.
const MAX_TEXTS: usize = 1_000;

static BUILTIN: LazyLock<Ruleset> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a constant, which a test reads as well")]
    Ruleset::parse(include_str!("../rules/replies.toml")).expect("the rules that are built in hold")
});

/// Rules with a version. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ruleset {
    version: Arc<str>,
    rules: Arc<[Rule]>,
}

/// Why a text holds no rules.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It is no TOML of this form; the text says where.
    #[error("{0}")]
    Form(String),
    /// Some rules are wrong.
    #[error("{}", .0.join("\n"))]
    Rules(Vec<String>),
}

/// What the rules say of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement<'a> {
    /// What becomes of the message.
    pub verdict: Verdict,
    /// The rule that decided; `None` when none did, or none was asked.
    pub rule: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(default, rename = "rule")]
    rules: Vec<Rule>,
}

/// One rule. Every condition that is given must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    class: BounceClass,
    #[serde(default)]
    lasts: Lasts,
    /// The first digit, or all three; empty: any.
    #[serde(default)]
    codes: Vec<u16>,
    /// Empty: any. No class: 4.1.1 and 5.1.1 are one.
    #[serde(default)]
    status: Vec<Subject>,
    /// Any of these, in lower case; empty: whatever the words.
    #[serde(default)]
    texts: Vec<String>,
    /// Replies that it decides.
    examples: Vec<String>,
}

/// How long a failure lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Lasts {
    /// As the first digit says.
    #[default]
    AsCoded,
    /// For now, whatever the first digit says.
    ForNow,
}

/// Subject and detail of an enhanced status (`1.1`), or all of a subject (`7`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Subject {
    subject: u16,
    detail: Option<u16>,
}

impl TryFrom<String> for Subject {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let number =
            |part: &str| part.parse().map_err(|_| "must be a subject and a detail, as 1.1, or a subject, as 7");
        Ok(match text.split_once('.') {
            Some((subject, detail)) => Self { subject: number(subject)?, detail: Some(number(detail)?) },
            None => Self { subject: number(&text)?, detail: None },
        })
    }
}

/// What a rule asks of a reply. Every condition that is given must hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions<'a> {
    pub(crate) codes: &'a [u16],
    pub(crate) status: &'a [Subject],
    pub(crate) texts: &'a [String],
}

impl Conditions<'_> {
    /// `words` as [`reply::words_alone`] gives them.
    pub(crate) fn hold(self, code: u16, enhanced: Option<EnhancedStatus>, words: &str) -> bool {
        let coded = self.codes.is_empty() || self.codes.iter().any(|one| *one == code || *one == code / 100);
        let stated = self.status.is_empty()
            || enhanced.is_some_and(|status| {
                self.status.iter().any(|one| {
                    one.subject == status.subject() && one.detail.is_none_or(|detail| detail == status.detail())
                })
            });
        coded && stated && (self.texts.is_empty() || self.texts.iter().any(|text| words.contains(text.as_str())))
    }

    pub(crate) const fn are_none(self) -> bool {
        self.codes.is_empty() && self.status.is_empty() && self.texts.is_empty()
    }

    /// What is wrong with them.
    pub(crate) fn problems(self) -> Vec<String> {
        let mut problems = Vec::new();
        for code in self.codes.iter().filter(|code| !matches!(code, 4 | 5 | 400..=599)) {
            problems.push(format!("has the code {code}; give 4, 5 or 400 to 599"));
        }
        if self.texts.len() > MAX_TEXTS {
            problems.push(format!("has more than {MAX_TEXTS} texts"));
        }
        for text in self.texts {
            if text.trim().is_empty() {
                problems.push("has an empty text, which every reply contains".to_owned());
            } else if text.to_lowercase() != *text {
                problems.push(format!("has a text that is not in lower case: {text:?}"));
            } else if text.contains('@') {
                problems.push(format!("has a text with an address, which is never looked at: {text:?}"));
            }
        }
        problems
    }
}

/// What is wrong with the name of a rule.
pub(crate) fn name_problem(name: &str) -> Option<String> {
    let is_fit = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (!is_fit).then(|| "has a name other than letters, digits and hyphens".to_owned())
}

impl Rule {
    fn conditions(&self) -> Conditions<'_> {
        Conditions { codes: &self.codes, status: &self.status, texts: &self.texts }
    }

    fn matches(&self, code: u16, enhanced: Option<EnhancedStatus>, words: &str) -> bool {
        self.conditions().hold(code, enhanced, words)
    }

    /// What is wrong with it, but for its examples.
    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = name_problem(&self.name).into_iter().collect();
        if self.conditions().are_none() {
            problems.push("has no condition; give codes, status or texts".to_owned());
        }
        problems.extend(self.conditions().problems());
        if self.examples.is_empty() {
            problems.push("has no examples".to_owned());
        }
        problems
    }
}

impl Ruleset {
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

    /// Reads the text of an operator's own rules, which come before those that are built in.
    ///
    /// # Errors
    /// With all that is wrong with it.
    pub fn parse_own(text: &str) -> Result<Self, RulesError> {
        Self::read(text, Some(Self::builtin()))
    }

    fn read(text: &str, behind: Option<&Self>) -> Result<Self, RulesError> {
        let file: File = toml::from_str(text).map_err(|error| RulesError::Form(error.to_string()))?;
        let own = file.rules.len();
        let (version, rules) = match behind {
            None => (file.version, file.rules),
            Some(behind) => {
                let rules = file.rules.into_iter().chain(behind.rules.iter().cloned());
                (format!("{}+{}", file.version, behind.version), rules.collect())
            }
        };
        let set = Self { version: version.into(), rules: rules.into() };
        let problems = set.problems(own);
        if problems.is_empty() { Ok(set) } else { Err(RulesError::Rules(problems)) }
    }

    /// What is wrong with the first `own` rules.
    fn problems(&self, own: usize) -> Vec<String> {
        if own > MAX_RULES {
            return vec![format!("there are {own} rules; at most {MAX_RULES} are taken")];
        }
        let mut problems = Vec::new();
        for (at, rule) in self.rules[..own].iter().enumerate() {
            let name = &rule.name;
            problems.extend(rule.problems().into_iter().map(|problem| format!("rule {name:?} {problem}")));
            if self.rules[..at].iter().any(|other| other.name == *name) {
                problems.push(format!("two rules have the name {name:?}"));
            }
            for example in &rule.examples {
                match example.parse::<SmtpReply>() {
                    Err(error) => problems.push(format!("rule {name:?} has the example {example:?}, which {error}")),
                    Ok(reply) => match self.find(&reply) {
                        Some(found) if std::ptr::eq(found, rule) => {}
                        Some(found) => problems.push(format!(
                            "rule {name:?} has the example {example:?}, which the rule {:?} before it decides",
                            found.name
                        )),
                        None => {
                            problems.push(format!("rule {name:?} has the example {example:?}, which it does not match"))
                        }
                    },
                }
            }
        }
        problems
    }

    /// The version; of an operator's own rules, theirs and that of those behind them.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn find(&self, reply: &SmtpReply) -> Option<&Rule> {
        let words = reply::words_alone(reply.text());
        self.rules.iter().find(|rule| rule.matches(reply.code(), reply.enhanced(), &words))
    }

    /// Decides what `reply` at `stage` means. A positive reply means delivery only at [`Stage::Dot`]; where any other
    /// was needed, its sender does not follow the protocol.
    pub fn judge(&self, stage: Stage, reply: &SmtpReply) -> Judgement<'_> {
        match reply.code() {
            200..=299 if stage == Stage::Dot => return Judgement { verdict: Verdict::Delivered, rule: None },
            400..=599 => {}
            _ => {
                let verdict = Verdict::Defer { class: BounceClass::ProtocolErrors, stated_wait: None };
                return Judgement { verdict, rule: None };
            }
        }
        let rule = self.find(reply);
        let class = match rule.map_or(BounceClass::Uncategorized, |rule| rule.class) {
            // Before RCPT only the sender has been named.
            BounceClass::InvalidRecipient | BounceClass::InactiveMailbox | BounceClass::BadDomain
                if stage == Stage::MailFrom =>
            {
                BounceClass::InvalidSender
            }
            class => class,
        };
        let lasts = !reply.is_transient() && rule.is_none_or(|rule| rule.lasts == Lasts::AsCoded);
        let verdict = if lasts && stage.is_about_the_message() {
            Verdict::Bounce { class }
        } else {
            Verdict::Defer { class, stated_wait: reply.stated_wait() }
        };
        Judgement { verdict, rule: rule.map(|rule| rule.name.as_str()) }
    }

    /// [`Self::judge`], without the rule.
    pub fn classify(&self, stage: Stage, reply: &SmtpReply) -> Verdict {
        self.judge(stage, reply).verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(rules: &str) -> Result<Ruleset, String> {
        Ruleset::parse_own(&format!("version = \"t\"\n{rules}")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_rules_that_are_built_in_hold() {
        let read = Ruleset::parse(include_str!("../rules/replies.toml"));
        assert!(read.is_ok(), "{}", read.unwrap_err());
    }

    #[test]
    fn an_operators_rule_comes_before_those_that_are_built_in() {
        let reply = "550 5.1.1 Gesperrt: user unknown".parse().unwrap();
        assert_eq!(
            Ruleset::builtin().classify(Stage::RcptTo, &reply),
            Verdict::Bounce { class: BounceClass::InvalidRecipient }
        );
        let rules =
            own("[[rule]]\nname = \"ours\"\nclass = \"spam_block\"\nlasts = \"for_now\"\ntexts = [\"gesperrt\"]\n\
             examples = [\"550 gesperrt\"]");
        let rules = rules.unwrap();
        let judged = rules.judge(Stage::RcptTo, &reply);
        let verdict = Verdict::Defer { class: BounceClass::SpamBlock, stated_wait: None };
        assert_eq!(judged, Judgement { verdict, rule: Some("ours") });
        assert_eq!(rules.version(), format!("t+{}", Ruleset::builtin().version()));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_at_once_and_by_name() {
        for (rules, told) in [
            ("[[rule]]", "missing field"),
            ("[[rule]]\nname = \"a\"\nclass = \"spam\"\nexamples = []", "unknown variant `spam`"),
            ("[[rule]]\nname = \"a\"\nclass = \"spam_block\"\ntext = []", "unknown field `text`"),
            (
                "[[rule]]\nname = \"a\"\nclass = \"spam_block\"\nstatus = [\"5.1.1\"]\nexamples = []",
                "as 1.1, or a subject",
            ),
            ("[[rule]]\nname = \"a\"\nclass = \"spam_block\"\nexamples = []", "rule \"a\" has no condition"),
            (
                "[[rule]]\nname = \"a\"\nclass = \"spam_block\"\ntexts = [\"x\"]\nexamples = []",
                "rule \"a\" has no examples",
            ),
            (
                "[[rule]]\nname = \"a b\"\nclass = \"spam_block\"\ntexts = [\"x\"]\nexamples = [\"550 x\"]",
                "rule \"a b\" has a name",
            ),
            (
                "[[rule]]\nname = \"a\"\nclass = \"spam_block\"\ntexts = [\"X\"]\nexamples = [\"550 x\"]",
                "not in lower case: \"X\"",
            ),
            (
                "[[rule]]\nname = \"a\"\nclass = \"spam_block\"\ntexts = [\" \"]\nexamples = [\"550 x\"]",
                "an empty text",
            ),
            (
                "[[rule]]\nname = \"a\"\nclass = \"spam_block\"\ncodes = [200]\nexamples = [\"550 x\"]",
                "has the code 200",
            ),
            (
                "[[rule]]\nname = \"a\"\nclass = \"spam_block\"\ntexts = [\"xyzzy\"]\nexamples = [\"xyzzy\"]",
                "begin with three digits",
            ),
            (
                "[[rule]]\nname = \"a\"\nclass = \"spam_block\"\ntexts = [\"xyzzy\"]\nexamples = [\"550 5.1.1 no\"]",
                "which the rule \"status-mailbox-address\" before it decides",
            ),
            (
                "[[rule]]\nname = \"a\"\nclass = \"spam_block\"\ntexts = [\"xyzzy\"]\nexamples = [\"554 no\"]",
                "which it does not match",
            ),
            (
                "[[rule]]\nname = \"a\"\nclass = \"spam_block\"\ntexts = [\"one\"]\nexamples = [\"550 one\"]\n\
                 [[rule]]\nname = \"a\"\nclass = \"spam_block\"\ntexts = [\"two\"]\nexamples = [\"550 two\"]",
                "two rules have the name \"a\"",
            ),
        ] {
            let error = own(rules).unwrap_err();
            assert!(error.contains(told), "{rules}\n{error}");
        }
    }
}
