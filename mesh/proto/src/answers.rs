//! What nodes say to each other about answers they keep: which ones, in brief, a request for one,
//! and purges, which all nodes have to heed.
//!
//! Owns the words, their bounds and the record of purges. Does not know what an answer is, what
//! makes requests equal, or whom to ask: that is decided where requests are.

mod digests;
mod purges;

use selvedge_base::Micros;
use serde::{Deserialize, Serialize};

use crate::records::Signed;

pub use digests::{Digests, MAX_DIGESTS, MAX_WORDS};
pub use purges::{
    Heard, MAX_AUTHORS, MAX_RECENT, MAX_SCOPE_NAME, PurgeBook, PurgeLine, Scope, sign_purge,
};

/// Bytes of one piece of an answer on its way: a frame that others need not wait for long.
pub const PIECE_BYTES: usize = 64 << 10;

/// The fingerprint of all purges a node knows.
pub type Print = [u8; 16];

/// What a node says to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswersWord {
    /// Which purges the sender knows; answered by [`AnswersReply::Same`] or
    /// [`AnswersReply::Purges`].
    Brief(Print),
    /// All purges the sender knows; answered as [`AnswersWord::Brief`] once they count.
    Purges(Vec<Signed<PurgeLine>>),
    /// What the sender keeps and may give; not answered.
    Kept(Box<KeptInBrief>),
    /// A wish for an answer; answered by [`AnswersReply::Missing`], or [`AnswersReply::Held`] and
    /// its pieces.
    Ask(Ask),
}

/// What a peer says to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswersReply {
    /// It knows the same purges.
    Same,
    /// The purges it knows.
    Purges(Vec<Signed<PurgeLine>>),
    /// It gives no answer.
    Missing(Missing),
    /// It gives one; the pieces follow.
    Held(Held),
    /// A piece of it, of at most [`PIECE_BYTES`].
    Piece(Vec<u8>),
}

/// What a node keeps, as its peers may know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptInBrief {
    /// The start of the sender that this belongs to, and a number that grows: the last word counts.
    pub at: (u64, u64),
    /// Answers kept, of any label.
    pub answers: u64,
    /// Those that any node may have.
    pub wide: Digests,
    /// Those that stay at the sender's site; none for a peer elsewhere.
    pub site: Option<Digests>,
}

/// A wish for one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Which.
    pub digest: [u8; 32],
    /// The purges that the asking node knows: one that knows others gives nothing.
    pub purges: Print,
    /// The largest answer that the asking node takes, in bytes.
    pub most_bytes: u64,
}

/// Why no answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missing {
    /// It is not kept, or not any more.
    NotKept,
    /// It may not travel to who asks.
    Stays,
    /// The two nodes know different purges; they compare them now.
    Purges,
    /// It is larger than who asks takes.
    TooLarge,
}

/// What is said of an answer before its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its bytes.
    pub bytes: u64,
    /// BLAKE3 of them.
    pub digest: [u8; 32],
    /// What they are: a number of the layer above.
    pub kind: u8,
    /// How long ago it was made.
    pub age: Micros,
    /// How long it is good for from now on.
    pub left: Micros,
}
