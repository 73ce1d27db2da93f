//! Whole meshes on virtual time, in one thread, bit for bit the same each time.
//!
//! A seed makes a [`plan::Plan`] (nodes, network, faults), a plan makes a run, a run makes an
//! [`Outcome`]: a hash of everything that happened, how long detections took, and which invariants
//! broke. The machines inside are those of production; the network, the engines and the faults
//! around them are models. Owns no machine of its own and touches no operating system: whoever
//! runs many seeds prints and measures.

#![warn(missing_docs)]

mod check;
mod clock;
mod cloud;
pub mod diff;
mod disk;
mod engine;
pub mod federated;
pub mod grid;
mod invariant;
mod ledger;
mod marks;
mod names;
mod network;
mod node;
mod outcome;
pub mod plan;
mod queue;
pub mod scenario;
pub mod shrink;
mod stream;
pub mod swarm;
mod timeline;
mod trace;
pub mod watch;
mod world;

pub use invariant::Invariant;
pub use marks::{Mark, Marks};
pub use outcome::{BudgetOutcome, Counters, Detections, Outcome, Requests, Violation};
pub use plan::{Plan, PlanError};
pub use scenario::{Scenario, scenarios};
pub use timeline::Timeline;
pub use trace::TraceHash;
pub use watch::{Event, EventKind, Standing, Watch};
pub use world::run;
