//! Pure types and rules of mailfleet: identifiers, addresses, lanes and slots, the states of a
//! message and the transitions between them, facts, retry and throttle arithmetic.
//!
//! Nothing here does I/O, is async or reads a clock: time comes in as a parameter, so that every
//! rule can be proved by a table or a property.

mod address;
mod ids;
mod lane;
mod state;

pub mod fact;

pub use address::{AddressError, AddressHash, DomainName, EnvelopeSender, Mailbox};
pub use ids::*;
pub use lane::{Lane, Shard, ShardCount, SiteId, Slot, SlotError};
pub use state::{Actor, Closing, Place, TRANSITIONS, Transition, is_declared};
