//! What nodes say to each other about rights.
//!
//! None of it needs an answer and all of it may be lost, doubled or reordered: rows are a join
//! semilattice, what witnesses say is a vote that only grows, and every other message is a wish.
//! Owns the shape and the bounds of messages, not what follows from them.

use std::collections::BTreeSet;

use selvedge_base::Micros;
use selvedge_crdt::escrow::{Ballot, Holder, LedgerKey, SignedRow};
use serde::{Deserialize, Serialize};

/// The wire version that brought witnesses.
pub const WITNESSES_SINCE: u8 = 3;
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
    /// About a row of a witnessed ledger that is not chosen yet.
    Witness(Box<WitnessMessage>),
}

/// How the witnesses of a row agree; see `selvedge_crdt::escrow::Register`. Who says so is the
/// sender: a writer asks and proposes under its own name, a voter speaks for its own register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WitnessMessage {
    /// The sender wants to write.
    Prepare {
        /// Which ledger.
        key: LedgerKey,
        /// Whose row.
        of: Holder,
        /// The turn it wants.
        ballot: Ballot,
    },
    /// The sender accepts nothing of a lesser turn any more.
    Promise {
        /// Which ledger.
        key: LedgerKey,
        /// Whose row.
        of: Holder,
        /// The turn.
        ballot: Ballot,
        /// The voter.
        by: Holder,
        /// The greatest row it accepted.
        accepted: Option<SignedRow>,
    },
    /// The sender writes.
    Propose(SignedRow),
    /// The sender accepted.
    Vote {
        /// Which ledger.
        key: LedgerKey,
        /// Whose row.
        of: Holder,
        /// In which turn.
        ballot: Option<Ballot>,
        /// The voter.
        by: Holder,
        /// Rows of that turn up to this.
        seq: u64,
    },
    /// The sender has promised a greater turn.
    Behind {
        /// Which ledger.
        key: LedgerKey,
        /// Whose row.
        of: Holder,
        /// The turn it promised.
        promised: Option<Ballot>,
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
            Self::Witness(said) => said.row().is_none_or(|signed| signed.row.is_within_bounds()),
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
            Self::Witness(said) => BTreeSet::from([said.about().0]),
        }
    }
}

impl QuotaMessage {
    /// What of it a peer of wire version `version` can read, if anything: older builds know no
    /// witnesses, nor rows that another than their holder wrote.
    #[must_use]
    pub fn spoken_at(mut self, version: u8) -> Option<Self> {
        if version >= WITNESSES_SINCE {
            return Some(self);
        }
        match &mut self {
            Self::Witness(_) => return None,
            Self::Rows(rows) => {
                rows.retain(|signed| signed.row.ballot.is_none());
                if rows.is_empty() {
                    return None;
                }
            }
            // Without rows it still says that there is nothing to recall.
            Self::Recalled { rows, .. } => rows.retain(|signed| signed.row.ballot.is_none()),
            // Whoever answers was asked, and so the one who asked knows the answer.
            Self::Vouch { .. } => return None,
            Self::Vouched { .. }
            | Self::Digest(_)
            | Self::Ask(_)
            | Self::Declined { .. }
            | Self::Recall { .. } => {}
        }
        Some(self)
    }
}

impl WitnessMessage {
    /// The ledger, and whose row it is about.
    pub const fn about(&self) -> (LedgerKey, Holder) {
        match self {
            Self::Prepare { key, of, .. }
            | Self::Promise { key, of, .. }
            | Self::Vote { key, of, .. }
            | Self::Behind { key, of, .. } => (*key, *of),
            Self::Propose(signed) => (signed.row.key, signed.row.holder),
        }
    }

    /// The row it carries.
    pub const fn row(&self) -> Option<&SignedRow> {
        match self {
            Self::Propose(signed) => Some(signed),
            Self::Promise { accepted, .. } => accepted.as_ref(),
            Self::Prepare { .. } | Self::Vote { .. } | Self::Behind { .. } => None,
        }
    }
}
