//! Pure types and rules of mailfleet: identifiers, addresses, lanes and slots, the states of a
//! message and the transitions between them, facts, retry and throttle arithmetic.
//!
//! Nothing here does I/O, is async or reads a clock: time comes in as a parameter, so that every
//! rule can be proved by a table or a property.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod class;
mod ids;
mod labels;
mod lane;
mod net;
mod retry_policy;
mod rules;
mod state;
mod trace;
mod tracking;

pub mod aimd;
pub mod fact;
pub mod fairness;
pub mod gcra;
pub mod history;
pub mod pool;
pub mod reactions;
pub mod reply;
pub mod retry;
pub mod sandbox;
pub mod tempo;
pub mod text;
pub mod throttle;
pub mod token;
pub mod verp;
pub mod warmup;
pub mod window;

pub use address::{AddressError, AddressHash, DomainName, EnvelopeSender, Mailbox};
pub use aimd::{Aimd, AimdPolicy};
pub use class::BounceClass;
pub use fairness::{DueQueue, Fairness, Quota};
pub use gcra::{Gcra, Rate, RateError};
pub use ids::*;
pub use labels::{Labels, Overrides};
pub use lane::{Lane, Shard, ShardCount, SiteId, Slot, SlotError};
pub use net::{Network, NetworkError, is_public};
pub use pool::{Pool, PoolError};
pub use reactions::{Reactions, Reactor};
pub use reply::{EnhancedStatus, SmtpReply, Stage, Verdict};
pub use retry::{RetrySchedule, is_expired};
pub use retry_policy::RetryPolicy;
pub use rules::{Judgement, RulesError, Ruleset};
pub use state::{Actor, Closing, Place, TRANSITIONS, Transition, is_declared};
pub use tempo::Tempo;
pub use throttle::{Shaping, SiteLimits, TlsNeed};
pub use token::{Token, TokenKeys};
pub use trace::{TraceContext, TraceContextError};
pub use tracking::{BaseUrl, BaseUrlError, TrackingChoice, TrackingSite};
pub use window::WindowPolicy;
