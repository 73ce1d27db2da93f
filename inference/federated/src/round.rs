//! Rounds without a server: who contributed, which set counts, what its sum is.
//!
//! ```text
//! client                      anchors
//!   train, write down
//!   share ──────────────────▶ write down, sign a receipt
//!                             close: one decision among them, written down before it is said
//!                             open: with the certificate, written down before anything is shown
//!   fold ◀─ k + 1 partial sums fold: the same model everywhere, a chain of records
//! ```
//!
//! **One set.** A set is closed by single-decree Paxos (Lamport 1998) per round among the anchors:
//! two quorums have an anchor in common, which told the later proposer what it had accepted.
//! **One sum.** An anchor shows its part of the sum of a closed set only, and for one set in a
//! round. **Exactly once.** A client numbers its contributions without gaps; the chain holds the
//! highest number of each that was folded or expired, and only the next one may follow.
//! **Nothing lost.** Whoever has a receipt of `Job::receipts` anchors is known to every quorum, so
//! each later set folds it, carries it, or records that it expired.
//!
//! The anchors are trusted to stop rather than to lie about ballots; what they are not trusted with
//! is the updates, and their parts of a sum as long as more than k of them show one (see `parts`).
//! Owns the records and both machines. A machine's orders to send wait until what it ordered to be
//! stored before is durable; after a crash it begins from what was stored.

mod anchor;
mod canon;
mod certificate;
mod client;
mod close;
mod hearsay;
mod job;
mod message;
mod outbox;
mod parts;
mod propose;
mod sums;
mod tip;
mod wishes;

pub use anchor::{Anchor, AnchorChange, AnchorInput, AnchorStored, Held};
pub use certificate::{Ballot, Certificate, CertificateError, Receipt, SignedAccept};
pub use client::{Client, ClientChange, ClientInput, ClientStored, Pending};
pub use close::{
    Close, CloseError, ContributionId, Entry, Expired, Header, MAX_ENTRIES, MAX_EXPIRED,
    MAX_STALENESS, Why, weight,
};
pub use job::{Committee, Job, JobError, MAX_CLIENTS, MAX_PER_NODE, Mode, Pace, Seat};
pub use message::{Effect, Event, Message, Payload, Refused};
pub use propose::{OpenRound, Phase};
pub use sums::{Guard, GuardError, MAX_GROUPS};
pub use tip::{FoldError, Folded, Opening, Partial, Tip};
pub use wishes::{Behind, MAX_WISHES, last_wish_after, merge_wishes, one_more_wish};

/// A BLAKE3 hash.
pub type Digest = [u8; 32];

#[cfg(test)]
mod tests;
