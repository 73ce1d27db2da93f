//! One holder's row in one ledger, the bytes it signs and the names of both.

use std::collections::BTreeMap;
use std::fmt;

use selvedge_base::NodeId;
use serde::{Deserialize, Serialize};

use crate::row::Signature;

/// Holders one row may have given rights to. A holder gives to peers that run short, a handful in
/// practice; with both maps full a row stays under 17 KiB and three of them fit one message.
pub const MAX_OUT: usize = 128;
/// Donors one row may name. Larger than [`MAX_OUT`], since a receiver cannot refuse a gift.
pub const MAX_BASIS: usize = 256;

/// What stands before a row's signed bytes, so that no other record can pass for a row.
const DOMAIN: &[u8] = b"selvedge escrow row";
/// The version of the signed bytes.
const CANONICAL_VERSION: u8 = 1;
/// That of rows written under a ballot, which is signed too.
const CANONICAL_VERSION_BALLOT: u8 = 2;

/// One budget: a hash of mesh, account, name and the epoch that introduced it, so that a budget
/// set anew under an old name is another budget.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BudgetId(pub [u8; 16]);

/// One budget in one window of its period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LedgerKey {
    /// The budget.
    pub budget: BudgetId,
    /// The window's number, counted by the budget's period.
    pub window: u64,
}

/// A node with one durable store. A store that was lost, rolled back or cloned ends the
/// incarnation, and the next one starts without rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Which durable store of it.
    pub incarnation: u64,
}

/// Whose turn it is to write a holder's row in a witnessed ledger; see [`super::Register`]. The
/// greater ballot wins, and no two writers ever have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts the attempts; from 1.
    pub round: u64,
    /// Who writes.
    pub by: Holder,
}

/// What a holder says of its rights. `seq`, `hw`, every value of `out` and `sealed` only grow.
/// Its bytes are `shape`'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EscrowRow {
    /// Which ledger it belongs to.
    pub key: LedgerKey,
    /// Who writes it.
    pub holder: Holder,
    /// Counts the writes.
    pub seq: u64,
    /// High-water mark of spending, in the budget's unit: never below what was spent.
    pub hw: u64,
    /// Rights ever given, by receiver.
    pub out: BTreeMap<Holder, u64>,
    /// The holder spends and gives no more in this ledger.
    pub sealed: bool,
    /// Units asked for per second, in thousandths. Advice for donors; nothing depends on it.
    pub demand: u64,
    /// Which row (`seq`) of every donor this row counts on.
    pub basis: BTreeMap<Holder, u64>,
    /// In a witnessed ledger, the turn in which it was written; none in the holder's own first
    /// turn, and in every other ledger.
    pub ballot: Option<Ballot>,
}

/// A row with its writer's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRow {
    /// The row.
    pub row: EscrowRow,
    /// The writer's signature over [`EscrowRow::canonical_bytes`].
    pub signature: Signature,
}

/// Signs rows of this node and checks those of others: Ed25519 in production, a keyed hash in the
/// simulator.
pub trait Seal: Send + Sync {
    /// This node's signature over `bytes`.
    fn sign(&self, bytes: &[u8]) -> Signature;
    /// Whether `signer` signed `bytes`.
    fn is_signed(&self, signer: &NodeId, bytes: &[u8], signature: &Signature) -> bool;
}

impl EscrowRow {
    /// A row of a holder that has neither spent nor given anything.
    pub const fn new(key: LedgerKey, holder: Holder) -> Self {
        Self {
            key,
            holder,
            seq: 0,
            hw: 0,
            out: BTreeMap::new(),
            sealed: false,
            demand: 0,
            basis: BTreeMap::new(),
            ballot: None,
        }
    }

    /// The node that writes and signs it: the holder's, unless another has its turn.
    pub fn signer(&self) -> NodeId {
        self.ballot.map_or(self.holder.node, |ballot| ballot.by.node)
    }

    /// Its place among all rows of its holder in a witnessed ledger.
    pub const fn turn(&self) -> (Option<Ballot>, u64) {
        (self.ballot, self.seq)
    }

    /// All rights ever given. A sum of at most [`MAX_OUT`] values: it cannot overflow.
    pub fn given(&self) -> u128 {
        self.out.values().map(|amount| u128::from(*amount)).sum()
    }

    /// Whether the row keeps the bounds; one that does not is refused unread.
    pub fn is_within_bounds(&self) -> bool {
        self.out.len() <= MAX_OUT
            && self.basis.len() <= MAX_BASIS
            && !self.out.contains_key(&self.holder)
    }

    /// Whether this row may follow `older`: everything that only grows did not shrink.
    pub fn succeeds(&self, older: &Self) -> bool {
        let kept =
            |(to, amount): (&Holder, &u64)| self.out.get(to).is_some_and(|now| now >= amount);
        self.hw >= older.hw
            && (self.sealed || !older.sealed)
            && older.out.iter().all(kept)
            && !(older.sealed && (self.hw > older.hw || self.out != older.out))
    }

    /// The bytes the writer signs: version, domain, every field, maps with their lengths.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let entries = self.out.len() + self.basis.len();
        let mut bytes = Vec::with_capacity(1 + DOMAIN.len() + 24 + 40 + 89 + entries * 48);
        bytes.push(match self.ballot {
            None => CANONICAL_VERSION,
            Some(_) => CANONICAL_VERSION_BALLOT,
        });
        bytes.extend(DOMAIN);
        bytes.extend(self.key.budget.0);
        bytes.extend(self.key.window.to_be_bytes());
        put_holder(&mut bytes, &self.holder);
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.hw.to_be_bytes());
        bytes.push(u8::from(self.sealed));
        bytes.extend(self.demand.to_be_bytes());
        for map in [&self.out, &self.basis] {
            bytes.extend((map.len() as u64).to_be_bytes());
            for (holder, value) in map {
                put_holder(&mut bytes, holder);
                bytes.extend(value.to_be_bytes());
            }
        }
        if let Some(ballot) = &self.ballot {
            bytes.extend(ballot.round.to_be_bytes());
            put_holder(&mut bytes, &ballot.by);
        }
        bytes
    }
}

impl SignedRow {
    /// Signs a row of this node.
    pub fn seal(row: EscrowRow, seal: &dyn Seal) -> Self {
        let signature = seal.sign(&row.canonical_bytes());
        Self { row, signature }
    }

    /// Whether its writer signed the row.
    pub fn is_signed(&self, seal: &dyn Seal) -> bool {
        seal.is_signed(&self.row.signer(), &self.row.canonical_bytes(), &self.signature)
    }

    /// An upper bound of the bytes the row takes on the wire: integers take up to 9 bytes each, a
    /// holder 41, the signature 64, a ballot 51.
    pub fn wire_bytes(&self) -> usize {
        let entries = self.row.out.len() + self.row.basis.len();
        16 + 9 + 41 + 3 * 9 + 1 + 2 * 9 + 64 + 51 + entries * 50
    }
}

impl fmt::Debug for BudgetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BudgetId({self})")
    }
}

impl fmt::Display for BudgetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn put_holder(bytes: &mut Vec<u8>, holder: &Holder) {
    bytes.extend(holder.node.0);
    bytes.extend(holder.incarnation.to_be_bytes());
}
