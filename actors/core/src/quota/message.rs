//! What nodes say to each other about rights.
//!
//! None of it needs an answer and all of it may be lost, doubled or reordered: rows are a join
//! semilattice, and every other message is a wish. Owns the shape and the bounds of messages, not
//! what follows from them.

use std::collections::BTreeSet;

use selvedge_base::Micros;
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
    /// A node that holds nothing by the epoch in force asks for how long no other ledger can count.
    Vouch {
        /// Which one counts.
        key: LedgerKey,
        /// Any number that was not used before.
        nonce: u64,
    },
    /// The answer to [`QuotaMessage::Vouch`].
    Vouched {
        /// Which ledger.
        key: LedgerKey,
        /// The number of the question.
        nonce: u64,
        /// For how long, counted from the question.
        lasts: Micros,
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
            Self::Ask(_) | Self::Declined { .. } | Self::Vouch { .. } | Self::Vouched { .. } => {
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
            Self::Ask(ask) => BTreeSet::from([ask.key]),
            Self::Declined { key } | Self::Vouch { key, .. } | Self::Vouched { key, .. } => {
                BTreeSet::from([*key])
            }
        }
    }
}
