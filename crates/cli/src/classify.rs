//! `classify`: what the rules make of a reply, of a file of them, of a mail that came back, and of the replies that the
//! log keeps.

mod mails;

use crate::{
    exit::{Exit, Failure},
    messages::moment,
    output::{Output, Table, grouped, safe},
    reach::Reach,
};
use clap::Args;
use domain::{BounceClass, Mailbox, Ruleset, SmtpReply, Stage, Verdict, text};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fs,
    io::Read,
    path::PathBuf,
};
use store::StoredReply;

/// Octets of a file or of the standard input.
const MAX_INPUT: u64 = 256 * 1024 * 1024;
/// Folders within folders.
const MAX_DEPTH: usize = 16;
/// Entries of the log looked at at once.
const WINDOW: u32 = 20_000;
/// Kinds of unknown words that are told apart.
const MAX_KINDS: usize = 50_000;

#[derive(Debug, Args)]
pub struct ClassifyArgs {
    /// Replies, such as "550 5.1.1 User unknown"; files with a reply a line; mails that came back (.eml), mailboxes of them
    /// (mbox), or folders of either; - is the standard input
    #[arg(value_name = "REPLY|FILE", required_unless_present = "stored", conflicts_with = "stored")]
    inputs: Vec<String>,
    /// After which command they came: greeting, hello, start_tls, auth, mail_from, rcpt_to, data or dot
    #[arg(long, value_name = "STAGE", default_value = "rcpt_to", value_parser = stage, conflicts_with = "stored")]
    stage: Stage,
    /// Your own rules, which come before those that are built in, as `[sender] reply_rules` names them
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Try the rules on the refusals in the log: what would change, and what no rule knows
    #[arg(long)]
    stored: bool,
    /// The refusals since then: a time such as 2030-01-31T08:00:00Z, or a span before now such as 2h
    #[arg(long, value_name = "TIME", default_value = "7d", requires = "stored")]
    since: String,
    /// How many kinds of unknown words to show
    #[arg(long, value_name = "N", default_value_t = 20, requires = "stored")]
    limit: usize,
}

fn stage(word: &str) -> Result<Stage, String> {
    serde_json::from_value(word.into())
        .map_err(|_| "must be greeting, hello, start_tls, auth, mail_from, rcpt_to, data or dot".to_owned())
}

/// Tells what the rules make of it.
pub async fn run(args: ClassifyArgs, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let rules = match &args.rules {
        Some(file) => sender::read_rules(file).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Failure::config(format!("{error}{cause}"))
        })?,
        None => Ruleset::builtin().clone(),
    };
    if args.stored {
        return replay(&args, &rules, reach, out).await;
    }
    let reader = feedback::report::Reader::new(rules.clone(), feedback::report::Limits::default());
    let mut exit = Exit::Ok;
    for input in &args.inputs {
        // A file would hardly be called so; `./` before its name helps where it is.
        if input.parse::<SmtpReply>().is_ok() {
            out.line(&judged(&rules, args.stage, None, input).to_string());
            continue;
        }
        let mut contents = Vec::new();
        for file in files(input)? {
            let content = content(&file)?;
            if is_mail(&content) {
                for (number, mail) in mails::split(&content).enumerate() {
                    let told = mails::told(&reader, &file, number, &mail);
                    if told.iter().any(|line| line["kind"] == "error") {
                        exit = Exit::Finding;
                    }
                    told.iter().for_each(|line| out.line(&line.to_string()));
                }
            } else {
                contents.push((file, String::from_utf8_lossy(&content).into_owned()));
            }
        }
        let all =
            contents.iter().flat_map(|(file, content)| replies(content).into_iter().map(move |reply| (file, reply)));
        for (file, (line, reply)) in all {
            let told = judged(&rules, args.stage, Some((file, line)), &reply);
            if told["kind"] != "reply" {
                exit = Exit::Finding;
            }
            out.line(&told.to_string());
        }
    }
    Ok(exit)
}

/// A file, or those in a folder and the folders in it, by name.
fn files(input: &str) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::from(input), 0)];
    if !folders[0].0.is_dir() {
        return Ok(vec![input.to_owned()]);
    }
    while let Some((folder, depth)) = folders.pop() {
        let unreadable = |error| Failure::usage(format!("cannot read the folder {}: {error}", folder.display()));
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.is_dir() && depth < MAX_DEPTH {
                folders.push((path, depth + 1));
            } else if path.is_file() {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn content(file: &str) -> anyhow::Result<Vec<u8>> {
    let read = || {
        let mut content = Vec::new();
        let source: Box<dyn Read> =
            if file == "-" { Box::new(std::io::stdin().lock()) } else { Box::new(fs::File::open(file)?) };
        source.take(MAX_INPUT + 1).read_to_end(&mut content)?;
        Ok(content)
    };
    let content = read().map_err(|error: std::io::Error| {
        Failure::usage(format!(
            "{file} is no reply, which begins with three digits, and no file that can be read: {error}"
        ))
    })?;
    if content.len() as u64 > MAX_INPUT {
        return Err(Failure::usage(format!("{file} is larger than 256 MiB; cut it")));
    }
    Ok(content)
}

/// Whether a text begins as a mail or a mailbox does (RFC 5322, RFC 4155), and not with a reply.
fn is_mail(content: &[u8]) -> bool {
    let first = content.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let first = String::from_utf8_lossy(&first[..first.len().min(1_000)]).into_owned();
    let name = first.split_once(':').map_or("", |(name, _)| name);
    first.starts_with("From ")
        || (name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
}

/// The replies in a text, each with the number of its first line. A line `550-…` goes on in the next one.
fn replies(content: &str) -> Vec<(usize, String)> {
    let mut replies: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (number, line) in content.lines().enumerate() {
        let line = line.trim();
        match replies.last_mut() {
            Some((_, reply)) if goes_on && line.get(..3) == reply.get(..3) => {
                reply.push('\n');
                reply.push_str(line);
            }
            _ if line.is_empty() => continue,
            _ => replies.push((number + 1, line.to_owned())),
        }
        goes_on = line.as_bytes().get(3) == Some(&b'-');
    }
    replies
}

fn judged(rules: &Ruleset, stage: Stage, place: Option<(&str, usize)>, text: &str) -> Value {
    let (file, line) = place.unzip();
    let reply: SmtpReply = match text.parse() {
        Ok(reply) => reply,
        Err(error) => {
            return json!({
                "file": file, "line": line, "kind": "unreadable", "class": null, "recipient": null, "status": null,
                "action": null, "error": format!("{}: {error}", text::sanitise(text, 80)),
            });
        }
    };
    let judgement = rules.judge(stage, &reply);
    let (action, wait) = match judgement.verdict {
        Verdict::Delivered => ("delivered", None),
        Verdict::Defer { stated_wait, .. } => ("delayed", stated_wait),
        Verdict::Bounce { .. } => ("failed", None),
    };
    json!({
        "file": file, "line": line, "kind": "reply", "class": judgement.verdict.class(),
        "recipient": recipient(reply.text()), "status": reply.enhanced().map(|status| status.to_string()),
        "action": action, "suppresses": judgement.verdict.suppresses(&reply),
        "stated_wait_s": wait.map(|wait| wait.as_secs()), "rule": judgement.rule, "rules": rules.version(),
        "reply": reply.shown(),
    })
}

/// The first address in the words of a reply.
fn recipient(words: &str) -> Option<String> {
    const AROUND: &[char] = &['<', '>', '(', ')', '[', ']', ',', ';', ':', '.', '"', '\''];
    let found = words.split(' ').filter(|word| word.contains('@'));
    found.filter_map(|word| word.trim_matches(AROUND).parse::<Mailbox>().ok()).map(|mailbox| mailbox.to_string()).next()
}

/// What a reply was taken for, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Taken {
    class: Option<BounceClass>,
    has_bounced: bool,
}

impl Taken {
    fn word(self) -> String {
        let class = self.class.map_or("none", BounceClass::as_str);
        format!("{class}, {}", if self.has_bounced { "failed" } else { "delayed" })
    }

    fn value(self) -> Value {
        json!({"class": self.class, "action": if self.has_bounced { "failed" } else { "delayed" }})
    }
}

#[derive(Debug, Default)]
struct Tally {
    count: u64,
    example: String,
}

impl Tally {
    fn add(&mut self, reply: &SmtpReply) {
        if self.count == 0 {
            self.example = reply.shown();
        }
        self.count += 1;
    }
}

#[derive(Debug, Default)]
struct Replayed {
    replies: u64,
    changes: BTreeMap<(Taken, Taken), Tally>,
    unknown: HashMap<String, Tally>,
    /// Of kinds beyond those that are told apart.
    others: u64,
}

impl Replayed {
    fn add(&mut self, rules: &Ruleset, stored: &StoredReply) {
        let reply = SmtpReply::new(stored.code, &stored.words);
        // The log does not keep the stage. What did not end the message although such a reply does was about us.
        let ends = matches!(Ruleset::builtin().classify(Stage::RcptTo, &reply), Verdict::Bounce { .. });
        let stage = if ends && !stored.has_bounced { Stage::Greeting } else { Stage::RcptTo };
        let verdict = rules.classify(stage, &reply);
        let was = Taken { class: stored.class, has_bounced: stored.has_bounced };
        let would = Taken { class: verdict.class(), has_bounced: matches!(verdict, Verdict::Bounce { .. }) };
        self.replies += 1;
        if was != would {
            self.changes.entry((was, would)).or_default().add(&reply);
        }
        if verdict.class() == Some(BounceClass::Uncategorized) {
            let room = self.unknown.len() < MAX_KINDS;
            match self.unknown.entry(format!("{} {}", reply.code(), text::shape(reply.text()))) {
                Entry::Occupied(mut entry) => entry.get_mut().add(&reply),
                Entry::Vacant(entry) if room => entry.insert(Tally::default()).add(&reply),
                Entry::Vacant(_) => self.others += 1,
            }
        }
    }
}

async fn replay(args: &ClassifyArgs, rules: &Ruleset, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let since = moment(&args.since, service::clock::now())?;
    let store = reach.store().await?;
    let mut at = store.log_place(since).await?;
    let mut replayed = Replayed::default();
    loop {
        let page = store.replies(at, WINDOW).await?;
        page.replies.iter().for_each(|reply| replayed.add(rules, reply));
        if page.upto >= page.head {
            break;
        }
        at = page.upto;
    }
    let mut changes: Vec<_> = replayed.changes.iter().collect();
    changes.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.count));
    let mut unknown: Vec<_> = replayed.unknown.iter().collect();
    unknown.sort_by(|a, b| (b.1.count, a.0).cmp(&(a.1.count, b.0)));
    let value = json!({
        "rules": rules.version(),
        "replies": replayed.replies,
        "changes": changes.iter().map(|((was, would), tally)| {
            json!({"from": was.value(), "to": would.value(), "count": tally.count, "example": tally.example})
        }).collect::<Vec<_>>(),
        "unknown": unknown.iter().take(args.limit).map(|(shape, tally)| {
            json!({"shape": shape, "count": tally.count, "example": tally.example})
        }).collect::<Vec<_>>(),
        "unknown_kinds": unknown.len(),
        "unknown_others": replayed.others,
    });
    out.answer(&value, || {
        let mut text = format!(
            "{} refusals, rules {}\n",
            grouped(i64::try_from(replayed.replies).unwrap_or(i64::MAX)),
            rules.version()
        );
        if changes.is_empty() {
            text.push_str("\nnothing would change\n");
        } else {
            let mut table = Table::new(2, &["was", "would be", "count", "such as"]);
            for ((was, would), tally) in &changes {
                table.row(vec![was.word(), would.word(), tally.count.to_string(), safe(&tally.example)]);
            }
            text.push_str(&format!("\n{}", table.text()));
        }
        if !unknown.is_empty() {
            let mut table = Table::new(0, &["count", "what no rule knows"]);
            for (shape, tally) in unknown.iter().take(args.limit) {
                table.row(vec![tally.count.to_string(), safe(shape)]);
            }
            text.push_str(&format!("\n{}", table.text()));
            if unknown.len() > args.limit {
                text.push_str(&format!("and {} kinds more; --limit shows them\n", unknown.len() - args.limit));
            }
        }
        text
    })?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Value {
        judged(Ruleset::builtin(), Stage::RcptTo, None, text)
    }

    #[test]
    fn a_reply_is_told_with_its_class_status_action_and_recipient() {
        let value = told("550 5.1.1 <ann@example.org>: Recipient address rejected: User unknown");
        assert_eq!(
            [&value["kind"], &value["class"], &value["recipient"], &value["status"], &value["action"]],
            ["reply", "invalid_recipient", "ann@example.org", "5.1.1", "failed"]
        );
        assert_eq!((&value["suppresses"], &value["rule"]), (&json!(true), &json!("no-such-mailbox")));
        let value = told("450 4.2.0 Greylisted, try again in 5 minutes");
        assert_eq!((&value["action"], &value["stated_wait_s"]), (&json!("delayed"), &json!(300)));
        assert_eq!(told("user unknown")["kind"], "unreadable");
        assert_eq!(judged(Ruleset::builtin(), Stage::Dot, None, "250 ok")["action"], "delivered");
    }

    #[test]
    fn a_file_holds_a_reply_a_line_and_some_of_many() {
        let found = replies("550 one\n\n  450-4.2.0 two\r\n450 4.2.0 goes on\n421-three\n550 four\nfive\n");
        let found: Vec<(usize, &str)> = found.iter().map(|(line, reply)| (*line, reply.as_str())).collect();
        assert_eq!(
            found,
            [(1, "550 one"), (3, "450-4.2.0 two\n450 4.2.0 goes on"), (5, "421-three"), (6, "550 four"), (7, "five")]
        );
    }

    #[test]
    fn a_mail_is_not_taken_for_replies() {
        for (content, expected) in [
            ("\r\nReceived: from mx.example.org\r\n", true),
            ("From bounce@example.org Thu Nov 26 19:00:00 2026\n", true),
            ("550 5.1.1 no such user: gone\n", false),
            ("user unknown: gone", false),
            ("", false),
        ] {
            assert_eq!(is_mail(content.as_bytes()), expected, "{content}");
        }
    }

    fn stored(code: u16, words: &str, class: BounceClass, has_bounced: bool) -> StoredReply {
        let site = domain::SiteId::from_stored("receiver.test".to_owned());
        StoredReply { seq: 1, site, code, words: words.to_owned(), class: Some(class), has_bounced }
    }

    #[test]
    fn a_replay_tells_what_would_change_and_gathers_what_no_rule_knows() {
        let rules = "version = \"2\"\n[[rule]]\nname = \"ours\"\nclass = \"spam_block\"\ntexts = [\"xyzzy\"]\n\
                     examples = [\"550 xyzzy\"]";
        let rules = Ruleset::parse_own(rules).expect("holds");
        let mut replayed = Replayed::default();
        for n in 0..3 {
            let words = format!("refused 0x{n}f, see https://example.org/{n}");
            replayed.add(&rules, &stored(554, &words, BounceClass::Uncategorized, true));
        }
        replayed.add(&rules, &stored(550, "5.1.1 user unknown", BounceClass::InvalidRecipient, true));
        // About us, at the greeting.
        replayed.add(&rules, &stored(554, "5.7.1 go away", BounceClass::PolicyRelated, false));
        replayed.add(&rules, &stored(550, "xyzzy", BounceClass::Uncategorized, true));
        let changes: Vec<_> =
            replayed.changes.iter().map(|((was, would), tally)| (was.word(), would.word(), tally.count)).collect();
        assert_eq!(changes, [("uncategorized, failed".to_owned(), "spam_block, failed".to_owned(), 1)]);
        let unknown: Vec<_> = replayed.unknown.iter().map(|(shape, tally)| (shape.as_str(), tally.count)).collect();
        assert_eq!(unknown, [("554 refused #x#f, see URL", 3)]);
    }
}
