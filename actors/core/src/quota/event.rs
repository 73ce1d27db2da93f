//! What is worth telling people about quotas: logs, metrics, the timeline.

use selvedge_base::NodeId;
use selvedge_crdt::escrow::{BudgetId, Holder, LedgerKey, Misdeed, RowRefused};

/// Something happened that no request is waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaEvent {
    /// Rights were given to a peer, durably.
    Gave {
        /// Which ledger.
        key: LedgerKey,
        /// To whom.
        to: Holder,
        /// How much.
        amount: u64,
    },
    /// Rights from a peer may be used from now on.
    Got {
        /// Which ledger.
        key: LedgerKey,
        /// From whom.
        from: Holder,
        /// How much.
        amount: u64,
    },
    /// A peer was asked for rights.
    AskedPeer {
        /// Which ledger.
        key: LedgerKey,
        /// Whom.
        peer: NodeId,
        /// How much.
        amount: u64,
        /// Whether a request waits for it.
        urgent: bool,
    },
    /// A holder lies, or its store was copied.
    Evidence(Box<Misdeed>),
    /// A row claims more than it was given; nothing it gave is counted.
    Overdrawn {
        /// Which ledger.
        key: LedgerKey,
        /// Whose row.
        holder: Holder,
        /// Who wrote it: of a row that was taken over not the holder.
        by: NodeId,
    },
    /// A row was not taken.
    RowRefused {
        /// Who sent it.
        from: NodeId,
        /// Why.
        why: RowRefused,
    },
    /// A peer holds a newer row of this node than its disk: the store was rolled back or copied.
    /// The incarnation ended, and the next one starts without rights.
    RolledBack {
        /// Which ledger told.
        key: LedgerKey,
        /// The newest row on disk.
        ours: u64,
        /// The row the peer holds.
        theirs: u64,
        /// The new incarnation.
        incarnation: u64,
    },
    /// A peer confirmed that it holds nothing newer; with the rollback guard on, spending starts.
    Confirmed {
        /// Who.
        by: NodeId,
    },
    /// More was used than reserved and than there were rights: the next window pays.
    DebtBooked {
        /// Which budget.
        budget: BudgetId,
        /// How much.
        amount: u64,
    },
    /// A reservation's lease ended: it was settled at its full size.
    LeaseEnded {
        /// How many units of all its budgets.
        amount: u64,
    },
    /// A write did not become durable; what waited for it was refused.
    StorageFailed {
        /// What the shell said.
        why: String,
    },
    /// A window was closed and its rows dropped.
    Dropped {
        /// Which ledger.
        key: LedgerKey,
    },
    /// What a holder that is out of reach had left of a witnessed ledger is this node's now.
    Reclaimed {
        /// Which ledger.
        key: LedgerKey,
        /// Whose it was.
        from: Holder,
        /// How much.
        amount: u64,
    },
    /// Somebody else writes this node's row: it was thought to be out of reach, and what it had
    /// left beyond its mark is another's.
    TakenOver {
        /// Which ledger.
        key: LedgerKey,
        /// By whom.
        by: Holder,
    },
    /// This node writes its own row again.
    Regained {
        /// Which ledger.
        key: LedgerKey,
    },
    /// Everything was given away and sealed.
    Retired,
}
