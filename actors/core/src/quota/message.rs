//! What nodes say to each other about rights.
//!
//! None of it needs an answer and all of it may be lost, doubled or reordered: rows are a join
//! semilattice, and every other message is a wish. Owns the shape and the bounds of messages, not
//! what follows from them.

use std::collections::BTreeSet;

use selvedge_base::NodeId;
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::{Holder, LedgerKey, SignedRow};
use serde::{Deserialize, Serialize};

/// Bytes of rows or heads one message carries. With what surrounds them a message stays below
/// 64 KiB, which a link of 10 Mbit/s passes in 50 ms; the largest row takes 20 KiB.
pub const MAX_PAYLOAD_BYTES: usize = 48 << 10;
/// Ledgers one digest or recall names: more than a node has budgets, in case both windows of a
/// turn are open.
pub const MAX_HEADS: usize = 2_048;

/// Between two members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuotaMessage {
    /// Which rows the sender has; the receiver answers with [`QuotaMessage::Rows`] the sender
    /// lacks.
    Digest(QuotaDigest),
    /// Rows the receiver may lack, its own holder's included.
    Rows(Vec<SignedRow>),
    /// Please give rights.
    Ask(Ask),
    /// The sender has nothing to give in this ledger now.
    Declined {
        /// Which ledger.
        key: LedgerKey,
    },
    /// Sent when two nodes meet: do you hold anything newer of mine than this? Tells a store that
    /// was rolled back, and is answered with [`QuotaMessage::Recalled`].
    Recall {
        /// Who asks.
        holder: Holder,
        /// Its newest durable rows.
        heads: Vec<(LedgerKey, u64)>,
    },
    /// The answer to a recall.
    Recalled {
        /// Who asked.
        holder: Holder,
        /// Rows of that holder that it did not name. One is proof enough.
        rows: Vec<SignedRow>,
    },
    /// Please witness that this holder may spend up to the mark in the row.
    Witness(SignedRow),
    /// The sender has made the mark durable and will say so whoever asks.
    Witnessed(Testimony),
    /// Please stop witnessing for a holder that cannot be reached, and tell its last mark.
    SealAsked {
        /// Which ledger.
        key: LedgerKey,
        /// Whose rights shall be reclaimed.
        holder: Holder,
    },
}

/// Which rows a node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaDigest {
    /// Who says so.
    pub holder: Holder,
    /// Ledgers and the rows held of each.
    pub heads: Vec<(LedgerKey, Vec<(Holder, u64)>)>,
}

/// A wish for rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Which ledger.
    pub key: LedgerKey,
    /// Who shall get them; a holder of the node that sends.
    pub holder: Holder,
    /// How much would be good.
    pub amount: u64,
    /// Less than this would be of no use; 0 when any amount helps.
    pub least: u64,
    /// A request waits for it.
    pub urgent: bool,
}

/// A witness's word on how far a holder may have spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// Which ledger.
    pub key: LedgerKey,
    /// Whose mark.
    pub holder: Holder,
    /// The highest mark the witness ever made durable for it.
    pub hw: u64,
    /// All it had given away by then.
    pub given: u64,
    /// The witness will witness no more for this holder in this ledger.
    pub sealed: bool,
    /// The witness.
    pub witness: NodeId,
    /// The witness's signature over [`Testimony::canonical_bytes`].
    pub signature: Signature,
}

impl QuotaMessage {
    /// Whether the message keeps the bounds; one that does not is ignored as a whole.
    pub fn is_within_bounds(&self) -> bool {
        match self {
            Self::Digest(digest) => {
                let entries: usize = digest.heads.iter().map(|(_, rows)| 1 + rows.len()).sum();
                digest.heads.len() <= MAX_HEADS && entries * 26 <= MAX_PAYLOAD_BYTES
            }
            Self::Recall { heads, .. } => heads.len() <= MAX_HEADS,
            Self::Rows(rows) | Self::Recalled { rows, .. } => {
                rows.iter().map(SignedRow::wire_bytes).sum::<usize>() <= 2 * MAX_PAYLOAD_BYTES
                    && rows.iter().all(|signed| signed.row.is_within_bounds())
            }
            Self::Witness(signed) => signed.row.is_within_bounds(),
            Self::Ask(_) | Self::Declined { .. } | Self::Witnessed(_) | Self::SealAsked { .. } => {
                true
            }
        }
    }

    /// The ledgers the message speaks of, for logs.
    pub fn ledgers(&self) -> BTreeSet<LedgerKey> {
        match self {
            Self::Digest(digest) => digest.heads.iter().map(|(key, _)| *key).collect(),
            Self::Recall { heads, .. } => heads.iter().map(|(key, _)| *key).collect(),
            Self::Rows(rows) | Self::Recalled { rows, .. } => {
                rows.iter().map(|signed| signed.row.key).collect()
            }
            Self::Witness(signed) => BTreeSet::from([signed.row.key]),
            Self::Ask(ask) => BTreeSet::from([ask.key]),
            Self::Witnessed(testimony) => BTreeSet::from([testimony.key]),
            Self::Declined { key } | Self::SealAsked { key, .. } => BTreeSet::from([*key]),
        }
    }
}

impl Testimony {
    /// The bytes the witness signs: version, domain, every field but the signature.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(b"selvedge escrow testimony");
        bytes.extend(self.key.budget.0);
        bytes.extend(self.key.window.to_be_bytes());
        bytes.extend(self.holder.node.0);
        bytes.extend(self.holder.incarnation.to_be_bytes());
        bytes.extend(self.hw.to_be_bytes());
        bytes.extend(self.given.to_be_bytes());
        bytes.push(u8::from(self.sealed));
        bytes.extend(self.witness.0);
        bytes
    }
}
