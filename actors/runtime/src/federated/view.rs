//! A job of the mesh, for those who look at it from outside.
//!
//! Owns nothing that runs: what is here was true when it was asked for.

use std::sync::Arc;

use selvedge_base::NodeId;
use selvedge_federated::privacy::accountant::MicroEpsilon;

use super::Announced;
use super::state::JobProgress;

/// A job of the mesh at this node.
#[derive(Clone, Debug)]
pub struct JobView {
    /// What people call it.
    pub name: String,
    /// How it runs here.
    pub run: JobRun,
}

/// How a job runs at this node.
#[derive(Clone, Debug)]
pub enum JobRun {
    /// It does.
    Runs {
        /// Its digest, in hexadecimal.
        job: String,
        /// Its rules, and what is trained.
        told: Arc<Announced>,
        /// How it stands.
        progress: Box<JobProgress>,
        /// Bytes that this node sent for it since its start.
        sent: u64,
        /// What all jobs together have spent of this node's data for it: of the part of them that
        /// spent most.
        data_spent: Option<MicroEpsilon>,
        /// The anchors that somebody asked for last and that are none yet.
        wanted: Vec<NodeId>,
    },
    /// It does not.
    Not {
        /// Why.
        why: String,
    },
}
