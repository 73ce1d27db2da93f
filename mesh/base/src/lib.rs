//! The words every other crate speaks in: identities, time, seeded dice, refusals, bounded
//! collections, the machine contract and the one codec of the wire.
//!
//! Owns no decision and touches no operating system: a value goes in, a value comes out.
//! What it deliberately lacks: sockets, clocks, entropy, files, threads.

#![warn(missing_docs, clippy::wildcard_enum_match_arm)]

pub mod bounded;
pub mod codec;
pub mod dice;
pub mod ids;
pub mod machine;
pub mod plant;
pub mod refusal;
pub mod time;
pub mod trace;

pub use bounded::{BoundedQueue, Full};
pub use dice::Dice;
pub use ids::{MeshId, ModelDigest, NodeId, RequestId};
pub use machine::Machine;
pub use plant::Plant;
pub use refusal::{Blame, Code, Refusal, Retry, Stage};
pub use time::{Micros, Mono, Now, Wall};
pub use trace::{Sampler, TraceContext};
