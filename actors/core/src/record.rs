//! What is remembered of a request: where it went, what was considered, how it ended.
//!
//! Owns the shape of the record that answers "which node answered, and why". Keeping records is
//! the runtime's job; the flow only fills one in.

use selvedge_base::{Micros, NodeId, Refusal, RequestId};
use selvedge_contract::{FinishReason, Usage};
use selvedge_proto::choice::Choice;
use serde::{Deserialize, Serialize};

use crate::journey::Leg;
use crate::routes::Saving;

/// One request, from arrival to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The request.
    pub id: RequestId,
    /// The model asked for, as the caller wrote it.
    pub model: String,
    /// The model that answers instead, since a budget for the one asked for is used up.
    pub downgraded_to: Option<String>,
    /// The tenant charged.
    pub tenant: String,
    /// The targets it could go to, in order, where there was more to choose than a node.
    pub legs: Vec<Leg>,
    /// Every node that was tried, in order.
    pub attempts: Vec<Attempt>,
    /// How it ended.
    pub outcome: Outcome,
    /// From arrival to the end.
    pub took: Micros,
    /// From arrival to the first token that reached the caller.
    pub first_token: Option<Micros>,
    /// The longest pause between two tokens that a change of node caused.
    pub longest_gap: Option<Micros>,
    /// What trying small models first has saved, where the route does.
    pub saving: Option<Saving>,
}

/// One node's turn at a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The node.
    pub node: NodeId,
    /// What was known when it was chosen: every candidate with its estimate and verdict.
    pub choice: Choice,
    /// Tokens the caller had when this turn began.
    pub from_index: u32,
    /// Why the turn ended without the answer's end; `None` for the last, successful one.
    pub ended: Option<String>,
}

/// How a request ended; there is exactly one per admitted request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Still being answered.
    Running,
    /// Answered.
    Finished {
        /// Why the answer ended.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
    /// Refused or broken off.
    Failed(Refusal),
    /// The caller went away.
    Cancelled,
}
