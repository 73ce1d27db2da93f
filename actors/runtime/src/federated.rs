//! Federated rounds at this node: where the rounds' machines and the trainer meet.
//!
//! Owns what a job file says and what becomes of it. Decides nothing of a round:
//! [`selvedge_federated`] does; computes nothing: [`selvedge_train`] does.

mod spec;
mod task;

pub use spec::{JobSpec, SpecError, Training};
pub(crate) use task::is_job;
pub use task::{Announced, AnnouncedError, Task};
