//! Where a request could run best, as a pure function.
//!
//! Hard filters first: a peer that is not well, or a model that failed. Then the least estimated
//! completion time, `rtt + (pending + prompt tokens) / prefill rate + output × time per token`.
//! Stale load herds, so among near-equal candidates two are drawn and the better one is taken
//! (Mitzenmacher 2001), and those with unusually many requests in flight from here come later
//! (Prequal, NSDI 2024). Every candidate gets its verdict, so that a decision can be explained.
//! Owns no state: capability, label and tenant rules were applied by whoever lists candidates.

use selvedge_base::{Micros, NodeId};
use serde::{Deserialize, Serialize};

use crate::swim::PeerState;

/// A place where the request could run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which node.
    pub node: NodeId,
    /// Whether it is this node.
    pub is_me: bool,
    /// Its health as seen from here.
    pub state: PeerState,
    /// Round trip; none for this node or when not yet measured.
    pub rtt: Option<Micros>,
    /// Where the model stands there.
    pub model_state: Readiness,
    /// Sequences of the model being computed.
    pub running: u32,
    /// Requests waiting there.
    pub queued: u32,
    /// Prompt tokens not yet computed there.
    pub pending_prompt_tokens: u32,
    /// Prompt tokens per second there; 0 = not known.
    pub prefill_rate: u32,
    /// Microseconds per token there, at the present batch size; 0 = not known.
    pub step_us: u32,
    /// Requests this node has handed there and that are not finished.
    pub in_flight_from_here: u32,
}

/// Where a model stands, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Readiness {
    /// Answers requests.
    Ready,
    /// Being loaded.
    Loading,
    /// On disk only.
    Cold,
    /// Could not be loaded.
    Failed,
}

/// What the request needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Tokens of the prompt, counted or estimated.
    pub prompt_tokens: u32,
    /// Tokens of the answer to expect.
    pub output_tokens: u32,
}

/// All candidates, best first, and the one to take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Every candidate: usable ones in the order to try them, then the excluded ones.
    pub ranked: Vec<Scored>,
    /// The one to take first: the first of `ranked`, none when all are excluded.
    pub chosen: Option<NodeId>,
}

/// A candidate's estimate and what was made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    /// Which node.
    pub node: NodeId,
    /// Estimated time to the end of the answer.
    pub estimate: Micros,
    /// Why it stands where it stands.
    pub verdict: Verdict,
}

/// Why a candidate stands where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Taken: the least estimated time.
    Fastest,
    /// Taken: this node, and no other is better by enough to make the trip.
    Local,
    /// Taken: as good as the fastest, and drawn so that not all nodes choose the same.
    Drawn,
    /// Usable, but slower.
    Slower,
    /// Usable, but has many requests of this node in flight.
    Busy,
    /// Usable, but its model is still loading.
    Loading,
    /// Usable, but its model is not in memory.
    Cold,
    /// Excluded: may be gone.
    Suspect,
    /// Excluded: computes without progress.
    Frozen,
    /// Excluded: gone.
    Dead,
    /// Excluded: could not load the model.
    Failed,
}

impl Verdict {
    /// Whether the candidate may be tried at all.
    pub const fn usable(self) -> bool {
        !matches!(self, Self::Suspect | Self::Frozen | Self::Dead | Self::Failed)
    }

    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fastest => "fastest",
            Self::Local => "local, and no peer is faster by enough",
            Self::Drawn => "drawn among the near-equal fastest",
            Self::Slower => "slower",
            Self::Busy => "has many of our requests in flight",
            Self::Loading => "model is loading there",
            Self::Cold => "model is not in memory there",
            Self::Suspect => "may be gone",
            Self::Frozen => "computes without progress",
            Self::Dead => "gone",
            Self::Failed => "could not load the model",
        }
    }
}
