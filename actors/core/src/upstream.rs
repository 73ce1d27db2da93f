//! Decisions about providers: may this one be asked now, with which key, and again after a failure.
//!
//! Start at [`Desk`]: it stands before one provider and is asked before and told after every
//! attempt. Owns whose fault an ending was ([`Ending`]), the circuit breakers, the keys' limits and
//! cool-downs, retries, hedging and the times an attempt may take, and what a provider's
//! configuration means ([`provider`]). Does not own which provider answers a request (routing), the
//! keys themselves, or a single byte on the wire: `actors/upstream` does that.

pub mod breaker;
pub mod desk;
pub mod ending;
pub mod keys;
pub mod patience;
pub mod provider;

pub mod rate;
pub mod retry;
pub mod tries;

pub use breaker::{Breaker, BreakerSettings, Pass};
pub use desk::{Ask, Denied, Desk, DeskSettings, Report, Ticket};
pub use ending::{Ending, Fault};
pub use keys::{KeyPool, NoKey};
pub use patience::{Phase, TimeLimits, Watch};
pub use provider::{ProviderKind, ProviderSpec, RawProvider};

pub use rate::{Limits, MinuteWindow};
pub use retry::{Allowance, Decision, HedgeSettings, RetrySettings};
pub use tries::Tries;
