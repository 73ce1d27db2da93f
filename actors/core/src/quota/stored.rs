//! What the disk keeps of quotas, and the writes that change it.
//!
//! Owns the meaning of a write: [`QuotaStored::apply`] is the specification of what a store holds
//! after it. A shell may keep it in any form as long as one write happens as a whole or not at
//! all, in the order of the tickets.

use std::collections::BTreeMap;

use selvedge_base::Wall;
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::{BudgetId, EscrowRow, Holder, LedgerKey, Register};
use serde::{Deserialize, Serialize};

/// Everything the disk held at the start; the default is a fresh store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaStored {
    /// What is not about one ledger; `None` in a store that was never written.
    pub header: Option<QuotaHeader>,
    /// Rows by ledger and holder: those of this node and those it counts on. This node's own rows
    /// of witnessed ledgers are in `kept`.
    pub rows: BTreeMap<(LedgerKey, Holder), StoredRow>,
    /// What this node keeps of rows in witnessed ledgers, its own among them.
    pub kept: BTreeMap<(LedgerKey, Holder), Register>,
}

/// What is not about one ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaHeader {
    /// Names the store: drawn at random for a fresh one, so that a node whose store was lost
    /// never passes for the holder it was before. Greater after every rollback noticed.
    pub incarnation: u64,
    /// The holder gave everything away and retired.
    pub retired: bool,
    /// The holder never spent at this time or later.
    pub horizon: Wall,
    /// Windows before these are never opened again. Per budget.
    pub floors: BTreeMap<BudgetId, u64>,
    /// Overruns that no window has paid yet, in the budget's unit.
    pub debts: BTreeMap<BudgetId, u64>,
}

/// A row as the disk keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRow {
    /// The row.
    pub row: EscrowRow,
    /// Its holder's signature; rows of this node are signed when they are sent.
    pub signature: Option<Signature>,
}

/// What this node keeps of one row as its witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Which ledger.
    pub key: LedgerKey,
    /// Whose row.
    pub of: Holder,
    /// What was promised and accepted.
    pub register: Register,
}

/// One change of what the disk keeps, to be made durable as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaWrite {
    /// The new header, when it changed.
    pub header: Option<QuotaHeader>,
    /// Rows to replace, each under its ledger and holder.
    pub rows: Vec<StoredRow>,
    /// Registers to replace, each under its ledger and holder.
    pub kept: Vec<Kept>,
    /// Ledgers to remove with all their rows.
    pub dropped: Vec<LedgerKey>,
}

impl QuotaStored {
    /// What the store holds after a write.
    pub fn apply(&mut self, write: &QuotaWrite) {
        if let Some(header) = &write.header {
            self.header = Some(header.clone());
        }
        for stored in &write.rows {
            self.rows.insert((stored.row.key, stored.row.holder), stored.clone());
        }
        for kept in &write.kept {
            self.kept.insert((kept.key, kept.of), kept.register.clone());
        }
        for key in &write.dropped {
            self.rows.retain(|(ledger, _), _| ledger != key);
            self.kept.retain(|(ledger, _), _| ledger != key);
        }
    }
}

impl QuotaWrite {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let Self { header, rows, kept, dropped } = self;
        header.is_none() && rows.is_empty() && kept.is_empty() && dropped.is_empty()
    }
}
