//! Calls that fail at a rate.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Which calls go wrong, and how: one of three ways each, all equally likely.
///
/// Given to one store or one bus; clones share the sequence, which the seed determines. Under concurrency it is not
/// determined which call gets which member of it.
#[derive(Clone)]
pub struct Faults(Arc<Inner>);

struct Inner {
    /// Below this a random number of 64 bits means a fault.
    threshold: u64,
    seed: u64,
    asked: AtomicU64,
    injected: Arc<[AtomicU64; 3]>,
}

/// How one call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails before it has done anything.
    Before,
    /// It is done, and its caller is told that no answer came.
    After,
    /// It is done twice, one after the other; its caller gets the first answer.
    Twice,
}

impl Fault {
    const ALL: [Self; 3] = [Self::Before, Self::After, Self::Twice];
}

/// What was given as faults is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultsError(String);

impl fmt::Display for FaultsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no rate from 0 to 1, nor one with a comma and a seed behind it", self.0)
    }
}

impl std::error::Error for FaultsError {}

impl Faults {
    /// In `rate` of all calls, from 0 to 1.
    pub fn new(rate: f64, seed: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is meant")]
        let threshold = (rate.clamp(0.0, 1.0) * (u64::MAX as f64)) as u64;
        Self(Arc::new(Inner { threshold, seed, asked: AtomicU64::new(0), injected: Arc::default() }))
    }

    /// The same rate for a neighbour of this name, with a sequence of its own. They are counted together.
    pub fn apart(&self, name: &str) -> Self {
        let inner = Inner {
            threshold: self.0.threshold,
            seed: name.bytes().fold(self.0.seed, |seed, byte| mixed(seed ^ u64::from(byte))),
            asked: AtomicU64::new(0),
            injected: Arc::clone(&self.0.injected),
        };
        Self(Arc::new(inner))
    }

    /// Whether the next call goes wrong, and how.
    pub fn next(&self) -> Option<Fault> {
        let number = self.0.asked.fetch_add(1, Ordering::Relaxed);
        let random = mixed(self.0.seed.wrapping_add(number.wrapping_mul(GOLDEN)));
        if random >= self.0.threshold {
            return None;
        }
        let which = usize::try_from(mixed(random) % 3).unwrap_or(0);
        self.0.injected[which].fetch_add(1, Ordering::Relaxed);
        Some(Fault::ALL[which])
    }

    /// How many calls went wrong in each of the three ways.
    pub fn injected(&self) -> [(Fault, u64); 3] {
        let count = |fault: Fault| (fault, self.0.injected[fault as usize].load(Ordering::Relaxed));
        Fault::ALL.map(count)
    }
}

impl FromStr for Faults {
    type Err = FaultsError;

    /// `0.01`, or `0.01,7` with a seed; without one it is 1.
    fn from_str(text: &str) -> Result<Self, FaultsError> {
        let wrong = || FaultsError(text.to_owned());
        let (rate, seed) = text.split_once(',').unwrap_or((text, "1"));
        let rate: f64 = rate.trim().parse().map_err(|_| wrong())?;
        let seed = seed.trim().parse().map_err(|_| wrong())?;
        if (0.0..=1.0).contains(&rate) { Ok(Self::new(rate, seed)) } else { Err(wrong()) }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("seed", &self.0.seed).field("injected", &self.injected()).finish_non_exhaustive()
    }
}

/// Two to the 64th by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Spreads a number over all bits (splitmix64).
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(GOLDEN);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
