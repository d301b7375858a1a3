//! The demo's recipients: made up, the same ones every time, at receivers that do not exist (`.test` is reserved,
//! RFC 2606). Some addresses ask the sink to misbehave.

use anyhow::Context;
use std::{fs, path::Path};

/// Receivers and their share of the recipients, in hundredths.
const RECEIVERS: [(&str, u32); 6] = [
    ("bluemail.test", 34),
    ("postfach.test", 24),
    ("mailhaven.test", 18),
    ("campus.test", 12),
    ("office.test", 8),
    // The sink answers each mail to it late, and takes few connections.
    ("slow.parcel.test", 4),
];
/// One in so many is put off once, as greylisting does.
const GREYLISTED_EVERY: u32 = 40;
/// One in so many is not known at its receiver.
const UNKNOWN_EVERY: u32 = 80;
/// One in so many has no room left.
const FULL_EVERY: u32 = 400;

const FIRST: [&str; 24] = [
    "Ada", "Björn", "Chloé", "Dmitri", "Elena", "Farid", "Grace", "Hiro", "Ines", "Jan", "Kofi", "Lea", "Mateo",
    "Nora", "Oskar", "Priya", "Quentin", "Rosa", "Søren", "Tomasz", "Uma", "Viktor", "Wanda", "Zoë",
];
const LAST: [&str; 20] = [
    "Adeyemi",
    "Brandt",
    "Castillo",
    "Dubois",
    "Eriksen",
    "Ferrari",
    "García",
    "Haddad",
    "Ivanova",
    "Jensen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Petrov",
    "Quiroga",
    "Rossi",
    "Schäfer",
    "Tanaka",
];
const CITIES: [&str; 10] =
    ["Bergen", "Dakar", "Genoa", "Hamburg", "Lisbon", "Marseille", "Osaka", "Porto", "Tallinn", "Valparaíso"];

/// A sequence that looks random and is the same every time (SplitMix64).
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.next() % (from.len() as u64);
        from[usize::try_from(index).unwrap_or(0)]
    }

    fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.next() % u64::from(end)).unwrap_or(0)
    }
}

/// Writes `count` recipients to a CSV file. `run` goes into the addresses that are put off once, since the sink
/// remembers whom it has put off.
pub fn write_csv(path: &Path, count: u32, run: &str) -> anyhow::Result<()> {
    let here = || format!("cannot write {}", path.display());
    let mut text = String::from("email,first_name,last_name,city,plan,points,coupon,token\n");
    let mut sequence = Sequence(2_026);
    for number in 1..=count {
        let (first, last) = (sequence.pick(&FIRST), sequence.pick(&LAST));
        let local = format!("{}.{}{number}", plain(first), plain(last));
        let local = if number % FULL_EVERY == 0 {
            format!("full.{local}")
        } else if number % UNKNOWN_EVERY == 0 {
            format!("unknown.{local}")
        } else if number % GREYLISTED_EVERY == 0 {
            format!("greylist.{local}.{run}")
        } else {
            local
        };
        let receiver = receiver(sequence.below(100));
        let city = sequence.pick(&CITIES);
        let plan = if sequence.below(5) == 0 { "gold" } else { "reader" };
        let (points, coupon, token) = (sequence.below(2_000), sequence.next() >> 40, sequence.next());
        text.push_str(&format!(
            "{local}@{receiver},{first},{last},{city},{plan},{points},SPRING-{coupon:06X},{token:016x}\n"
        ));
    }
    fs::write(path, text).with_context(here)
}

/// The receiver at this place of a hundred.
fn receiver(mut place: u32) -> &'static str {
    for (name, share) in RECEIVERS {
        match place.checked_sub(share) {
            Some(rest) => place = rest,
            None => return name,
        }
    }
    RECEIVERS[0].0
}

/// A name as it stands in an address.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            'á' | 'ä' => 'a',
            'é' | 'ë' => 'e',
            'í' => 'i',
            'ö' | 'ø' => 'o',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::read_csv;
    use std::collections::BTreeSet;

    #[test]
    fn the_recipients_are_the_same_every_time_and_can_be_mailed() {
        let path = |name: &str| std::env::temp_dir().join(format!("mailfleet-{name}-{}.csv", std::process::id()));
        let (one, two) = (path("one"), path("two"));
        write_csv(&one, 2_000, "x").expect("writes");
        write_csv(&two, 2_000, "x").expect("writes");
        assert_eq!(fs::read(&one).expect("reads"), fs::read(&two).expect("reads"));
        let recipients = read_csv(&one, &serde_json::Map::new(), None).expect("reads");
        let distinct: BTreeSet<&str> = recipients.iter().map(|recipient| recipient.email.as_str()).collect();
        assert_eq!((recipients.len(), distinct.len()), (2_000, 2_000));
        for email in &distinct {
            assert!(email.parse::<domain::Mailbox>().is_ok(), "{email}");
            assert!(email.ends_with(".test"));
        }
        for word in ["greylist.", "unknown.", "full.", "@slow."] {
            assert!(distinct.iter().any(|email| email.contains(word)), "{word}");
        }
        for path in [one, two] {
            fs::remove_file(path).expect("removes");
        }
    }

    #[test]
    fn the_shares_of_the_receivers_make_a_whole() {
        assert_eq!(RECEIVERS.iter().map(|(_, share)| share).sum::<u32>(), 100);
        assert_eq!(receiver(0), "bluemail.test");
        assert_eq!(receiver(99), "slow.parcel.test");
    }
}
