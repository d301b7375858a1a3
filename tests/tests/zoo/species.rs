//! What a data file of the zoo says.

use domain::Lane;
use mailfleet_tests::dns::Trouble;
use sender::TlsMode;
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};
use testkit::peer::Script;

/// A receiver: one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Species {
    /// The file's name; its domain is `NAME.zoo.test`.
    #[serde(skip)]
    pub name: String,
    /// What it does to its senders, in one line.
    pub story: String,
    /// Which fleet it meets. Default: `open`.
    #[serde(default)]
    pub fleet: Habitat,
    /// What that fleet is told of this receiver, as `[sender.shaping.sites]` would.
    #[serde(default)]
    pub limits: toml::Table,
    /// Its hosts by name, each with a script and an address of its own.
    #[serde(default)]
    pub host: BTreeMap<String, Script>,
    /// What DNS says beside the hosts' addresses. Default: every host is an MX host, the first the best.
    #[serde(default)]
    pub dns: Vec<Name>,
    /// What is sent to it, and what becomes of that.
    pub mail: Vec<Mail>,
    /// What the fleet may do to itself and to the receiver meanwhile.
    pub bounds: Bounds,
}

/// How a fleet is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Habitat {
    /// Direct, to any address, shared with all others of this kind.
    #[default]
    Open,
    /// Direct, to public addresses only, shared with all others of this kind.
    Public,
    /// A fleet of its own whose relay is the only host, with this use of TLS.
    Relay(TlsMode),
}

/// What DNS knows of a name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    /// Below the domain; `@` is the domain itself.
    pub name: String,
    /// `PREFERENCE HOST`; the host below the domain, or with a dot at its end.
    #[serde(default)]
    pub mx: Vec<String>,
    /// Addresses, or names of hosts of this file.
    #[serde(default)]
    pub a: Vec<String>,
    /// The name that it stands for; below the domain.
    pub alias: Option<String>,
    /// What is wrong with its servers.
    pub trouble: Option<Trouble>,
    /// So many of these: `#` in the texts above is the number.
    #[serde(default = "one")]
    pub repeat: u16,
}

/// Some messages alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// The local part, with `.0`, `.1` behind it.
    pub to: String,
    /// How many.
    #[serde(default = "one")]
    pub count: u16,
    /// In which lane. Default: the call's own.
    pub lane: Option<Lane>,
    /// Octets of body, about. Default: a small mail.
    #[serde(default)]
    pub octets: usize,
    /// What becomes of each.
    pub expect: Expect,
}

/// What becomes of a message. All but the outcome is of its last attempt, or of all together.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Where it is in the end.
    pub outcome: Outcome,
    /// The last reply's code; 0: there was none.
    pub code: Option<u32>,
    /// Its enhanced status.
    pub status: Option<String>,
    /// The class of the last failure.
    pub class: Option<String>,
    /// What stands in the text of the last event.
    pub text: Option<String>,
    /// Attempts, fewest and most.
    pub attempts: [usize; 2],
    /// Copies that the receiver keeps, fewest and most.
    pub copies: [usize; 2],
    /// Attempts that ended in doubt, fewest and most.
    pub doubts: [usize; 2],
    /// Whether its copies came under TLS.
    pub tls: Option<bool>,
}

/// Where a message is when all is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Closed: the receiver said that it has it.
    Delivered,
    /// Closed: it will never be taken.
    Bounced,
    /// Closed: nobody knows.
    Unknown,
    /// It goes again later.
    Waiting,
}

/// What the fleet may do meanwhile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Connections that it opens for each attempt, and for one try of each message that comes to none, at most.
    pub connections: usize,
    /// Octets that it lets itself be told in one conversation, at most.
    pub told: u64,
    /// Who ends the conversations: all of them.
    pub ended_by: EndedBy,
    /// The stage at which the fleet's own deadline passes, at least once.
    pub deadline: Option<String>,
}

/// Who ends every conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The fleet, with or without a farewell.
    Fleet,
    /// The receiver.
    Receiver,
    /// Now the one, now the other.
    Both,
    /// There is none.
    Nobody,
}

const fn one() -> u16 {
    1
}

impl Species {
    /// The domain that mail is sent to.
    pub fn domain(&self) -> String {
        format!("{}.zoo.test", self.name)
    }

    /// Whether mail to it must not go in clear.
    pub fn needs_tls(&self) -> bool {
        matches!(self.fleet, Habitat::Relay(TlsMode::Required | TlsMode::Implicit))
            || self.limits.get("tls").and_then(toml::Value::as_str) == Some("required")
    }
}

/// Every file of the zoo, by name.
///
/// # Panics
/// When a file is not as it has to be: each is read whole, and a word that means nothing is an error.
pub fn all() -> Vec<Species> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Species {
    assert_eq!(path.extension().and_then(|ending| ending.to_str()), Some("toml"), "{}", path.display());
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap().to_owned();
    let text = std::fs::read_to_string(path).unwrap();
    let species: Species = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let label =
        name.len() <= 63 && name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'0'..=b'9'));
    assert!(label, "{name}: is no label of a domain");
    assert!(!species.story.trim().is_empty() && species.story.lines().count() == 1, "{name}: has no story of one line");
    assert!(!species.mail.is_empty(), "{name}: gets no mail");
    for mail in &species.mail {
        let Expect { attempts, copies, doubts, tls, .. } = &mail.expect;
        assert!([attempts, copies, doubts].iter().all(|[least, most]| least <= most), "{name}: a range that is none");
        assert!(copies[1] <= 1 + doubts[1], "{name}: more copies than doubts explain");
        assert!(tls.is_none() || copies[0] > 0, "{name}: TLS of a copy that there need not be");
    }
    Species { name, ..species }
}

/// Those that meet a shared fleet.
pub fn of(habitat: Habitat) -> Vec<Species> {
    all().into_iter().filter(|one| one.fleet == habitat).collect()
}

/// Those that are relays.
pub fn behind_relays() -> Vec<Species> {
    all().into_iter().filter(|one| matches!(one.fleet, Habitat::Relay(_))).collect()
}
