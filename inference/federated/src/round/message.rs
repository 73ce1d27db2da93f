//! What clients and anchors say to each other, and what their machines order.

use selvedge_base::NodeId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Digest;
use super::certificate::{Ballot, Certificate, Receipt, SignedAccept};
use super::close::{Close, ContributionId, Header, Why};
use super::tip::{Folded, Opening};
use crate::field::Fp;
use crate::fixed::UpdateError;
use crate::privacy::accountant::MicroEpsilon;
use crate::privacy::ledger::{Overspent, Spend};

/// What is for one anchor in a contribution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Its share, sealed to it.
    Sealed(Vec<u8>),
    /// The update itself, and what opens the commitment.
    Open {
        /// The levels.
        levels: Vec<i32>,
        /// What the commitment was made with.
        salt: Digest,
    },
    /// Its share, sealed to it, and what proves that all shares lie on polynomials. In jobs with a
    /// guard, which nodes before wire version 11 do not know.
    Proven {
        /// The share, with its part of the proof's random blocks.
        sealed: Vec<u8>,
        /// The same for all anchors.
        proof: Vec<Fp>,
    },
}

impl Payload {
    /// Bytes it takes on a stream, about.
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Sealed(sealed) => sealed.len(),
            Self::Proven { sealed, proof } => sealed.len() + 5 * proof.len(),
            // A level takes one byte up to 125 either way, three up to a quarter of the clip, and
            // five beyond.
            Self::Open { levels, .. } => 4 * levels.len() + 32,
        }
    }

    /// The same with what proves the shares.
    pub(super) fn with_proof(self, proof: &[Fp]) -> Self {
        match self {
            Self::Sealed(sealed) => Self::Proven { sealed, proof: proof.to_vec() },
            Self::Open { .. } | Self::Proven { .. } => self,
        }
    }

    /// What proves the shares; nothing where there is no proof.
    pub(super) fn proof(&self) -> &[Fp] {
        match self {
            Self::Proven { proof, .. } => proof,
            Self::Sealed(_) | Self::Open { .. } => &[],
        }
    }
}

/// What is said. The transport proves who says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A client contributes.
    Share {
        /// What is public.
        header: Header,
        /// Digests of all shares.
        digests: Vec<Digest>,
        /// The share of whom it is sent to.
        payload: Payload,
    },
    /// An anchor has it.
    Receipt(Receipt),
    /// An anchor does not take it.
    Refused {
        /// What.
        id: ContributionId,
        /// Why.
        why: Refused,
    },
    /// An anchor wants to propose.
    Prepare {
        /// For which round.
        round: u64,
        /// In which turn.
        ballot: Ballot,
    },
    /// An anchor accepts nothing of a lesser turn any more.
    Promise {
        /// For which round.
        round: u64,
        /// In which turn.
        ballot: Ballot,
        /// What it accepted last.
        accepted: Option<(Ballot, Box<Close>)>,
        /// What it holds.
        held: Vec<Header>,
    },
    /// An anchor has promised a greater turn.
    Behind {
        /// For which round.
        round: u64,
        /// Which turn.
        promised: Ballot,
    },
    /// An anchor proposes.
    Propose {
        /// In which turn.
        ballot: Ballot,
        /// Which set.
        close: Box<Close>,
    },
    /// An anchor accepted.
    Accepted(SignedAccept),
    /// A set is closed.
    Closed(Box<Certificate>),
    /// A part of its sum.
    Opened(Box<Opening>),
    /// Somebody knows less than this round.
    Ask {
        /// The first round it does not know the end of.
        round: u64,
    },
    /// A round is over.
    Folded(Box<Folded>),
}

impl Message {
    /// Whether it is for the client of whoever gets it, and for its anchor.
    pub const fn is_for(&self) -> (bool, bool) {
        match self {
            Self::Receipt(_) | Self::Refused { .. } => (true, false),
            Self::Folded(_) => (true, true),
            Self::Share { .. }
            | Self::Prepare { .. }
            | Self::Promise { .. }
            | Self::Behind { .. }
            | Self::Propose { .. }
            | Self::Accepted(_)
            | Self::Closed(_)
            | Self::Opened(_)
            | Self::Ask { .. } => (false, true),
        }
    }
}

/// Why an anchor does not take a contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refused {
    /// The sender is not the client.
    #[error("the contribution is another node's")]
    Sender,
    /// This node is no anchor now.
    #[error("this node is no anchor of the job now")]
    NoAnchor,
    /// It was shared to other anchors.
    #[error("the shares are for the anchors of epoch {0}, and another one is now")]
    Epoch(u64),
    /// It was folded or expired before.
    #[error("contribution {last} was the last to be folded or expired")]
    Replayed {
        /// The last one.
        last: u64,
    },
    /// It follows something that is not known here yet.
    #[error("the contribution is ahead of what is known here: round {}", .round.saturating_add(1))]
    Ahead {
        /// The round that is next here.
        round: u64,
    },
    /// The number is another update's.
    #[error("the number of the contribution is bound to another update")]
    Bound,
    /// Digests, share and commitment do not fit together.
    #[error("the share is not the one that its digests name")]
    Digest,
    /// The share cannot be opened.
    #[error("the share cannot be opened")]
    Sealed,
    /// The update is not what the job says.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// There is no room.
    #[error("there is no room for another client")]
    Full,
    /// The shares lie on no polynomial, or nothing shows that they do.
    #[error("nothing proves that the shares belong together")]
    Unproven,
    /// It was in a sum that no honest updates make. Nobody tells others: each finds out.
    #[error("its group's sum is beyond what updates within the clip add up to: one of them lies")]
    Beyond,
}

impl Refused {
    /// All reasons in a word each.
    pub const KINDS: [&'static str; 12] = [
        "ahead",
        "beyond",
        "bound",
        "digest",
        "epoch",
        "full",
        "no_anchor",
        "replayed",
        "sealed",
        "sender",
        "unproven",
        "update",
    ];

    /// Whether nodes that do all they should come to it too: word of a round, or of other anchors,
    /// that is on its way.
    pub const fn is_of_timing(&self) -> bool {
        match self {
            Self::NoAnchor | Self::Epoch(_) | Self::Replayed { .. } | Self::Ahead { .. } => true,
            Self::Sender
            | Self::Bound
            | Self::Digest
            | Self::Sealed
            | Self::Update(_)
            | Self::Full
            | Self::Unproven
            | Self::Beyond => false,
        }
    }

    /// The reason in a word, to count by.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::NoAnchor => "no_anchor",
            Self::Epoch(_) => "epoch",
            Self::Replayed { .. } => "replayed",
            Self::Ahead { .. } => "ahead",
            Self::Bound => "bound",
            Self::Digest => "digest",
            Self::Sealed => "sealed",
            Self::Update(_) => "update",
            Self::Full => "full",
            Self::Unproven => "unproven",
            Self::Beyond => "beyond",
        }
    }
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<C> {
    /// Make this durable, after what was ordered before; answer with its number. A shell that
    /// cannot stops the machine and begins again from what is stored.
    Store {
        /// Its number, from 1.
        write: u64,
        /// What.
        change: Box<C>,
    },
    /// Send this; it may be lost.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Box<Message>,
    },
    /// Send what was stored as the end of this round.
    Replay {
        /// To whom.
        to: NodeId,
        /// Which round.
        round: u64,
    },
    /// Train from the model of this round; answer when done.
    Train {
        /// The round.
        round: u64,
    },
    /// Ask the ledger of this node's data whether this contribution may leave; what it answers is
    /// an input. Asked again until it does.
    Spend(Spend),
    /// Tell people.
    Report(Event),
}

/// What is worth telling people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A contribution is safe: enough anchors have it.
    Receipted(ContributionId),
    /// A contribution counts in the model.
    Counted(ContributionId),
    /// A contribution never will.
    Expired(ContributionId, Why),
    /// What these add up to no honest updates make: at least one lies, and none of them counts.
    LeftOut {
        /// The round.
        round: u64,
        /// Which.
        ids: Vec<ContributionId>,
    },
    /// A contribution was refused.
    Refused {
        /// Which. Whoever sends it writes what it likes here.
        id: ContributionId,
        /// Who sent it, which the transport proved; of a client's own contribution, who refused.
        from: NodeId,
        /// Why.
        why: Refused,
    },
    /// This client contributes no more to the job: its bound of epsilon allows no further time.
    PrivacySpent {
        /// What it has spent on the job.
        spent: MicroEpsilon,
    },
    /// This client contributes no more to the job: its data are used up, in all jobs together.
    PrivacyDenied(Overspent),
    /// What was trained cannot be contributed.
    BadUpdate(UpdateError),
    /// A set is closed.
    Closed {
        /// The round.
        round: u64,
        /// How many count.
        entries: usize,
    },
    /// Too few contributed to close.
    BelowFloor {
        /// The round.
        round: u64,
        /// Nodes that contributed.
        found: usize,
    },
    /// The round is over.
    Folded {
        /// The round.
        round: u64,
        /// The digest of its record.
        record: Digest,
    },
    /// Parts of the round's sum contradict each other, and too few came to tell whose is wrong: the
    /// round waits for another anchor's.
    Disagree {
        /// The round.
        round: u64,
    },
    /// An anchor proposed to hand the job to anchors that nobody asked this one for. It is not
    /// accepted; word of the wish may be on its way.
    Unasked {
        /// Who.
        by: NodeId,
        /// The round.
        round: u64,
    },
    /// Somebody sent what cannot be.
    Misdeed {
        /// Who.
        by: NodeId,
        /// What.
        what: String,
    },
}
