//! From a routing decision ("this provider, this model") to bytes on the wire, and back.
//!
//! Start at [`Provider::ask`]: one request, its attempts, one answer that is read as it comes. Owns
//! sockets towards providers ([`Target`], its pool and how it connects), authentication ([`auth`],
//! [`sigv4`]) and the keys on disk ([`vault`]). Decides nothing: whether to ask, with which key and
//! whether again is `selvedge_core::upstream`'s, what the bytes say is a dialect's. Reads no clock
//! and draws no entropy: both are handed in.

#![warn(missing_docs, clippy::wildcard_enum_match_arm)]

mod alarm;
mod aside;
pub mod auth;
mod body;
mod call;
mod connect;
mod error;
mod events;
mod passing;
mod pool;
pub mod post;
mod provider;
mod proxy;
mod secret;
pub mod sigv4;
mod target;
mod tls;
pub mod vault;

pub use alarm::Alarm;
pub use aside::Aside;
pub use auth::Credential;
pub use body::Answer;
pub use call::{Call, MediaType};
pub use error::{Failed, Said, SetupError};
pub use events::Events;
pub use passing::{Passed, Passing};
pub use provider::{Provider, Shared, Watcher};
pub use proxy::Proxy;
pub use secret::Secret;
pub use target::{Target, TargetSettings};
pub use tls::Roots;
pub use vault::{KeyListing, Vault, VaultError, VaultStore};

/// Reads the clocks, one at a time: most questions are about one of them, and a request asks
/// dozens. `selvedge_net::clock` in a node.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The monotonic one.
    pub mono: fn() -> selvedge_base::Mono,
    /// The one that people set.
    pub wall: fn() -> selvedge_base::Wall,
}
