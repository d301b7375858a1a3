//! What became of the demo's campaign: by the log, and by what the sink itself has.

use crate::output::{Table, grouped, millis, safe};
use serde::Serialize;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};
use store::SiteFigures;
use testkit::sink::IndexLine;

/// The last line of the demo.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub accepted: i64,
    pub delivered: i64,
    pub bounced: i64,
    pub deferred_then_delivered: i64,
    /// Not sent, since their recipients answered an earlier mail: it came back, they complained, or want no more.
    pub suppressed: i64,
    /// Ended in another way: expired, failed, cancelled, unknown.
    pub other: i64,
    /// Accepted, and neither with the receiver nor closed with a reason.
    pub lost: i64,
    /// Copies beyond the first.
    pub duplicated: i64,
    /// Messages that a person opened.
    pub opened: i64,
    /// Messages of which a person followed a link.
    pub clicked: i64,
    /// Messages whose recipient wants no more.
    pub unsubscribed: i64,
    /// Messages that came back after they had been taken.
    pub returned: i64,
    /// Messages that were called spam.
    pub complained: i64,
    /// Whether the log, its numbers and the figures add up.
    pub audit_clean: bool,
    pub accept_p50_ms: f64,
    pub accept_p99_ms: f64,
    pub delivery_p50_ms: f64,
    pub delivery_p99_ms: f64,
    /// Mails a second, from the first accept until 90 of 100 were with their receivers: what was put off on
    /// purpose would measure the waits.
    pub messages_per_s: f64,
    /// From the start of the command to the figures.
    pub wall_s: f64,
}

impl Summary {
    /// Whether every recipient is accounted for, once.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.other == 0 && self.audit_clean
    }
}

/// What the sink has of a campaign's messages.
#[derive(Debug, Default)]
pub struct Copies {
    /// When the first copy of a message was taken, in milliseconds since 1970.
    first: HashMap<String, u64>,
    /// Copies beyond the first.
    pub duplicated: i64,
    /// A mail to look at.
    pub example: Option<PathBuf>,
    /// The mails that lie in files.
    pub files: Vec<PathBuf>,
}

impl Copies {
    /// Counts the copies of these messages in the sink's index.
    pub fn count<'a>(index: &[IndexLine], mailbox: &Path, messages: impl Iterator<Item = &'a str>) -> Self {
        let mut copies = Self::default();
        let mut wanted: HashMap<&str, u32> = messages.map(|id| (id, 0)).collect();
        for line in index {
            let id = line.message_id.as_deref().map(uuid_of).unwrap_or_default();
            let Some(seen) = wanted.get_mut(id) else { continue };
            *seen += 1;
            if *seen == 1 {
                copies.first.insert(id.to_owned(), line.at_ms);
            } else {
                copies.duplicated += 1;
            }
            copies.files.extend(line.file.as_ref().map(|file| mailbox.join(file)));
            if copies.example.is_none() {
                copies.example = copies.files.first().cloned();
            }
        }
        copies
    }

    /// Messages of which the sink has a copy.
    pub fn messages(&self) -> i64 {
        i64::try_from(self.first.len()).unwrap_or(i64::MAX)
    }

    /// From accept to delivery, in milliseconds, sorted. A message's id tells when it was accepted.
    pub fn latencies(&self) -> Vec<f64> {
        let mut all: Vec<f64> = self
            .first
            .iter()
            .filter_map(|(id, at_ms)| {
                let accepted = id.parse::<domain::MessageId>().ok()?.created_at().timestamp_millis();
                let at = i64::try_from(*at_ms).ok()?;
                Some(u32::try_from((at - accepted).max(0)).map_or(f64::MAX, f64::from))
            })
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// Mails a second from `start_ms` until 90 of 100 were here.
    pub fn rate(&self, start_ms: u64) -> f64 {
        let mut times: Vec<u64> = self.first.values().copied().collect();
        times.sort_unstable();
        let most = times.len() * 9 / 10;
        let Some(end) = most.checked_sub(1).and_then(|last| times.get(last)) else { return 0.0 };
        let seconds = Duration::from_millis(end.saturating_sub(start_ms).max(1)).as_secs_f64();
        u32::try_from(most).map_or(0.0, f64::from) / seconds
    }
}

/// `<UUID@domain>`: the UUID.
fn uuid_of(message_id: &str) -> &str {
    message_id.trim_start_matches('<').split('@').next().unwrap_or_default()
}

/// The value below which `share` of all lie; 0 when there is none.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    // At most the length of a list in memory: neither cast loses anything that shows.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "see above"
    )]
    let index = (last as f64 * share).round() as usize;
    sorted[index.min(last)]
}

/// The table by receiver site.
pub fn table(sites: &[SiteFigures]) -> String {
    let heads = ["receiver", "accepted", "delivered", "deferred first", "bounced", "suppressed", "other", "p50", "p99"];
    let mut table = Table::new(1, &heads);
    let cell = |ms: Option<f64>| ms.map_or("-".to_owned(), millis);
    for site in sites {
        table.row(vec![
            safe(&site.site),
            grouped(site.accepted),
            grouped(site.delivered),
            grouped(site.deferred_then_delivered),
            grouped(site.bounced),
            grouped(site.suppressed),
            grouped(site.other),
            cell(site.p50_ms),
            cell(site.p99_ms),
        ]);
    }
    let sum = |of: fn(&SiteFigures) -> i64| grouped(sites.iter().map(of).sum::<i64>());
    table.row(vec![
        "all".to_owned(),
        sum(|site| site.accepted),
        sum(|site| site.delivered),
        sum(|site| site.deferred_then_delivered),
        sum(|site| site.bounced),
        sum(|site| site.suppressed),
        sum(|site| site.other),
        String::new(),
        String::new(),
    ]);
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, at_ms: u64) -> IndexLine {
        IndexLine {
            fleet_id: None,
            message_id: Some(format!("<{message}@news.mailfleet.test>")),
            recipient: "a@b.test".to_owned(),
            at_ms,
            octets: 1,
            file: Some(format!("b.test/{at_ms}.eml")),
        }
    }

    #[test]
    fn a_second_copy_is_counted_and_strangers_are_not() {
        let index = [line("one", 1), line("stranger", 2), line("one", 3), line("two", 4)];
        let copies = Copies::count(&index, Path::new("/mailbox"), ["one", "two", "three"].into_iter());
        assert_eq!((copies.messages(), copies.duplicated), (2, 1));
        assert_eq!(copies.example, Some(PathBuf::from("/mailbox/b.test/1.eml")));
    }

    #[test]
    fn a_percentile_of_nothing_is_nothing() {
        assert!(percentile(&[], 0.5).abs() < f64::EPSILON);
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert!((percentile(&values, 0.99) - 99.0).abs() < f64::EPSILON);
    }
}
