//! Sockets, clocks and entropy of a node.
//!
//! Owns everything between the operating system and the machines on the mesh side: who this node
//! is ([`Identity`]), the QUIC data plane ([`Endpoint`], [`Link`]), finding peers ([`discovery`]),
//! and the only readings of time ([`clock`]) and randomness ([`entropy`]). Decides nothing about
//! membership: a [`Gate`] is asked.

mod accept;
pub mod clock;
mod config;
mod counters;
mod dial;
pub mod discovery;
mod endpoint;
pub mod entropy;
mod error;
mod event;
mod frame;
mod greet;
mod identity;
mod join;
mod lifeline;
mod link;
mod registry;
#[cfg(test)]
mod scratch;
mod silence;
mod sockets;
mod stray;
#[cfg(test)]
mod tests;
mod tls;
mod vigil;

pub use config::NetConfig;
pub use counters::NetCounts;
pub use endpoint::Endpoint;
pub use error::{Attempt, NetError, stream_code};
pub use event::{Gate, NetEvent};
pub use frame::{FrameReceiver, FrameSender};
pub use identity::{Identity, IdentityError};
pub use join::JoinLink;
pub use link::Link;
pub use sockets::hold;
