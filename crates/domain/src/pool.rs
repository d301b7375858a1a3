//! Which of several routes a message takes: an ordered, weighted list.
//!
//! The choice is a function of the message and of which routes are usable, so that a message that comes again goes the
//! same way (a receiver that greylists knows the address that it comes from), and a route that fails moves its own share
//! alone.

use crate::MessageId;
use sha2::{Digest, Sha256};
use std::num::NonZeroU16;

/// Most members of a pool.
pub const MAX_MEMBERS: usize = 32;

/// A route as a pool has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The route's name.
    pub route: String,
    /// Its share beside others of the same order.
    pub weight: NonZeroU16,
    /// Lower ones first; the next are taken when none of these can be used.
    pub order: u16,
}

/// An ordered, weighted list of routes, with at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool(Vec<Member>);

/// Why a list of routes is no pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// There is nothing to choose from.
    #[error("has no route; name at least one")]
    Empty,
    /// There is too much.
    #[error("has more than {MAX_MEMBERS} routes")]
    TooMany,
    /// One stands in it twice.
    #[error("names the route {route:?} twice; give it one weight")]
    Twice {
        /// Which.
        route: String,
    },
}

impl Pool {
    /// A pool of these.
    ///
    /// # Errors
    /// When there is none, one of them comes twice, or there are more than [`MAX_MEMBERS`].
    pub fn new(mut members: Vec<Member>) -> Result<Self, PoolError> {
        if members.is_empty() {
            return Err(PoolError::Empty);
        }
        if members.len() > MAX_MEMBERS {
            return Err(PoolError::TooMany);
        }
        members.sort_by(|one, other| (one.order, &one.route).cmp(&(other.order, &other.route)));
        for (index, member) in members.iter().enumerate() {
            if members[..index].iter().any(|other| other.route == member.route) {
                return Err(PoolError::Twice { route: member.route.clone() });
            }
        }
        Ok(Self(members))
    }

    /// The members, those that come first in front.
    pub fn members(&self) -> &[Member] {
        &self.0
    }

    /// The place in [`Pool::members`] of the route that a message takes: of the usable ones of the lowest order, each by
    /// its weight. `None`: none of them is usable.
    pub fn pick(&self, message: MessageId, is_usable: impl Fn(usize) -> bool) -> Option<usize> {
        let usable: Vec<usize> = (0..self.0.len()).filter(|place| is_usable(*place)).collect();
        let order = self.0[*usable.first()?].order;
        let candidates = usable.into_iter().take_while(|place| self.0[*place].order == order);
        // Weighted rendezvous hashing: the least of exponentially distributed values, each with its weight as rate.
        let scored = candidates.map(|place| (self.0[place].turn(message), place));
        scored.min_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, place)| place)
    }
}

impl Member {
    fn turn(&self, message: MessageId) -> f64 {
        let digest = Sha256::new().chain_update(message.as_uuid().as_bytes()).chain_update(&self.route).finalize();
        let mut bits = [0; 8];
        bits.copy_from_slice(&digest[..8]);
        // 53 bits, in the middle of their interval: never 0.
        let uniform = ((u64::from_be_bytes(bits) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -uniform.ln() / f64::from(self.weight.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn pool(members: &[(&str, u16, u16)]) -> Pool {
        let member = |(route, weight, order): &(&str, u16, u16)| Member {
            route: (*route).to_owned(),
            weight: NonZeroU16::new(*weight).unwrap(),
            order: *order,
        };
        Pool::new(members.iter().map(member).collect()).unwrap()
    }

    fn messages() -> impl Iterator<Item = MessageId> {
        (0..20_000_u128)
            .map(|index| MessageId::from_uuid(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + index)))
    }

    #[test]
    fn each_route_gets_its_share() {
        let pool = pool(&[("own", 7, 1), ("second", 2, 1), ("third", 1, 1), ("reserve", 100, 2)]);
        let mut counts = [0_u32; 4];
        messages().for_each(|message| counts[pool.pick(message, |_| true).unwrap()] += 1);
        for (count, share) in counts.iter().zip([0.7, 0.2, 0.1, 0.0]) {
            assert!((f64::from(*count) / 20_000.0 - share).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn a_route_that_fails_moves_its_own_share_alone_and_gets_it_back() {
        let pool = pool(&[("own", 2, 1), ("second", 1, 1), ("third", 1, 1), ("reserve", 1, 2)]);
        for message in messages() {
            let before = pool.pick(message, |_| true).unwrap();
            let without = pool.pick(message, |place| place != 0).unwrap();
            assert!(before == 0 || without == before);
            assert!(without == 1 || without == 2, "the reserve is for when all others fail");
        }
    }

    #[test]
    fn the_next_order_is_taken_when_none_of_the_first_can_be_used() {
        let pool = pool(&[("own", 2, 1), ("reserve", 1, 9)]);
        let message = messages().next().unwrap();
        assert_eq!(pool.pick(message, |place| place == 1), Some(1));
        assert_eq!(pool.pick(message, |_| false), None);
    }

    #[test]
    fn a_list_without_a_clear_meaning_is_no_pool() {
        assert_eq!(Pool::new(Vec::new()), Err(PoolError::Empty));
        let one = Member { route: "own".to_owned(), weight: NonZeroU16::MIN, order: 1 };
        let twice = vec![one.clone(), Member { order: 2, ..one.clone() }];
        assert_eq!(Pool::new(twice), Err(PoolError::Twice { route: "own".to_owned() }));
        let many = (0..=MAX_MEMBERS).map(|index| Member { route: index.to_string(), ..one.clone() });
        assert_eq!(Pool::new(many.collect()), Err(PoolError::TooMany));
    }
}
