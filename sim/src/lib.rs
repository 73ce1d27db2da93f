//! Whole meshes on virtual time, in one thread, bit for bit the same each time.
//!
//! A seed makes a [`plan::Plan`] (nodes, network, faults), a plan makes a run, a run makes an
//! [`Outcome`]: a hash of everything that happened, how long detections took, and which invariants
//! broke. The machines inside are those of production; the network, the engines and the faults
//! around them are models. Owns no machine of its own and touches no operating system: whoever
//! runs many seeds prints and measures.

#![warn(missing_docs)]

mod check;
mod engine;
mod network;
mod node;
pub mod plan;
mod queue;
pub mod swarm;
mod trace;
mod world;

pub use check::{Detections, Violation};
pub use plan::{Plan, PlanError};
pub use trace::TraceHash;
pub use world::{Counters, Outcome, run};
