//! The rows of one ledger as one node has seen them, and what follows from them.
//!
//! The rows are a join semilattice: per holder the row with the greater `(seq, bytes)` stays, so
//! it is no matter who told whom, how often and in which order. Evidence of a holder that lies is
//! kept beside them; it is what this node happened to see, and no part of the lattice.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::NodeId;
use thiserror::Error;

use super::row::{EscrowRow, Holder, LedgerKey, SignedRow};

/// Rows of one ledger. A tenant's budget is held by the nodes that serve it; 256 rows of common
/// size (under 300 bytes) are what a node keeps and passes on per budget without thinking.
pub const MAX_HOLDERS: usize = 256;
/// Of them those of one node: a store that is lost in every of four windows of an hour has other
/// problems, and nobody shall fill a ledger with names of its own.
pub const MAX_STORES: usize = 4;

/// The rows of one budget in one window, but for this node's own: that one is planned, durable and
/// told at different times, so whoever owns it hands in the form that counts.
#[derive(Clone, Debug)]
pub struct Ledger {
    key: LedgerKey,
    /// At most [`MAX_HOLDERS`].
    rows: BTreeMap<Holder, SignedRow>,
    /// What the rows say was given to whom, kept up to date so that nobody adds up all rows. Holds
    /// only receivers that some row names.
    inflow: BTreeMap<Holder, u128>,
    /// Holders caught lying: their gifts count no more. A subset of the rows' holders.
    quarantined: BTreeSet<Holder>,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum RowMerged {
    /// It was newer and is now held.
    Newer,
    /// It, or a newer one, was held already.
    Known,
    /// It proves that its holder lies or that its store was copied; the holder is quarantined.
    Conflict(Box<Misdeed>),
    /// It was not taken.
    Refused(RowRefused),
}

/// Two rows of one holder that cannot both be honest, both signed by it; in a witnessed ledger by
/// whoever had the turn to write them, of whom one lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// Two different rows under one `seq`.
    Equivocated {
        /// The row that is held.
        kept: SignedRow,
        /// The other one.
        other: SignedRow,
    },
    /// A later row took back what an earlier one had said.
    Shrank {
        /// The row before.
        older: SignedRow,
        /// The row that takes back.
        newer: SignedRow,
    },
}

/// Why a row was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RowRefused {
    /// It belongs to another ledger.
    #[error("the row belongs to another ledger")]
    Key,
    /// It has too many entries or gives to itself.
    #[error("the row is not within its bounds")]
    Bounds,
    /// There is no room for another holder.
    #[error("no room for another holder: {0} rows are held")]
    Full(usize),
    /// Its node has used too many names.
    #[error("no room for another store of {}", .0.short())]
    Stores(NodeId),
    /// Its node is no member.
    #[error("{} is no member", .0.short())]
    Stranger(NodeId),
    /// The signature does not fit.
    #[error("row is not signed by {}, who should have written it", .0.short())]
    Signature(NodeId),
}

/// Whether what a row spends and gives is covered by what its holder got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Covered,
    /// Rows it counts on are not held yet.
    Unknown,
    /// It is not, even by the most the donors ever gave.
    Overdrawn,
}

impl Ledger {
    /// An empty ledger.
    pub const fn new(key: LedgerKey) -> Self {
        Self { key, rows: BTreeMap::new(), inflow: BTreeMap::new(), quarantined: BTreeSet::new() }
    }

    /// Which ledger it is.
    pub const fn key(&self) -> LedgerKey {
        self.key
    }

    /// Takes a row if it is newer and `is_signed` approves of its signature, which is asked only
    /// for rows that would change something.
    pub fn merge(
        &mut self,
        signed: SignedRow,
        is_signed: impl FnOnce(&SignedRow) -> bool,
    ) -> RowMerged {
        if signed.row.key != self.key {
            return RowMerged::Refused(RowRefused::Key);
        }
        if !signed.row.is_within_bounds() {
            return RowMerged::Refused(RowRefused::Bounds);
        }
        let held = self.rows.get(&signed.row.holder);
        match held {
            Some(held) if held.row.seq > signed.row.seq || held.row == signed.row => {
                return RowMerged::Known;
            }
            None if self.rows.len() >= MAX_HOLDERS => {
                return RowMerged::Refused(RowRefused::Full(MAX_HOLDERS));
            }
            None if self.stores_of(&signed.row.holder.node) >= MAX_STORES => {
                return RowMerged::Refused(RowRefused::Stores(signed.row.holder.node));
            }
            Some(_) | None => {}
        }
        if !is_signed(&signed) {
            return RowMerged::Refused(RowRefused::Signature(signed.row.signer()));
        }
        let Some(held) = held.cloned() else {
            self.hold(None, signed);
            return RowMerged::Newer;
        };
        if held.row.seq == signed.row.seq {
            return self.settle_tie(held, signed);
        }
        if signed.row.succeeds(&held.row) {
            self.hold(Some(&held.row), signed);
            return RowMerged::Newer;
        }
        let misdeed = Misdeed::Shrank { older: held.clone(), newer: signed.clone() };
        self.hold(Some(&held.row), signed);
        self.quarantine(held.row.holder);
        RowMerged::Conflict(Box::new(misdeed))
    }

    /// How many holders' rows of one node are held.
    fn stores_of(&self, node: &NodeId) -> usize {
        let name = |incarnation| Holder { node: *node, incarnation };
        self.rows.range(name(0)..=name(u64::MAX)).count()
    }

    /// The row of a holder.
    pub fn get(&self, holder: &Holder) -> Option<&SignedRow> {
        self.rows.get(holder)
    }

    /// All rows, in order of their holders.
    pub fn rows(&self) -> impl Iterator<Item = &SignedRow> {
        self.rows.values()
    }

    /// How many rows are held.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether the holder was caught lying.
    pub fn is_quarantined(&self, holder: &Holder) -> bool {
        self.quarantined.contains(holder)
    }

    /// All that `holder` was ever given, as far as the rows here and this node's `own` say it: a
    /// sum of at most [`MAX_HOLDERS`] values and one.
    pub fn inflow(&self, holder: &Holder, own: &EscrowRow) -> u128 {
        let others = self.inflow.get(holder).copied().unwrap_or(0);
        others + own.out.get(holder).map_or(0, |amount| u128::from(*amount))
    }

    /// The rows of donors of `holder` and how much each ever gave it.
    pub fn gifts_to(&self, holder: &Holder) -> impl Iterator<Item = (&SignedRow, u64)> {
        let quarantined = &self.quarantined;
        self.rows.values().filter_map(move |signed| {
            let amount = *signed.row.out.get(holder)?;
            (!quarantined.contains(&signed.row.holder)).then_some((signed, amount))
        })
    }

    /// What a holder may use of `granted` plus gifts minus what it gave, as far as seen here.
    pub fn rights(&self, holder: &Holder, granted: u64, own: &EscrowRow) -> u64 {
        let given = self.rows.get(holder).map_or(0, |signed| signed.row.given());
        clamp((u128::from(granted) + self.inflow(holder, own)).saturating_sub(given))
    }

    /// What a holder may give away: its rights above its high-water mark, never above what it
    /// really spent, which it forgets in a crash. Nothing once it is sealed.
    pub fn may_give(&self, holder: &Holder, granted: u64, own: &EscrowRow) -> u64 {
        match self.rows.get(holder) {
            None => self.rights(holder, granted, own),
            Some(signed) if signed.row.sealed => 0,
            Some(signed) => self.rights(holder, granted, own).saturating_sub(signed.row.hw),
        }
    }

    /// Whether a row is covered by `allowed` (its grant, and what an elastic budget allows above
    /// it) and by the rows of its basis. A donor's row that is newer than the basis names can only
    /// have given more, so an overdrawn row is overdrawn in every view.
    pub fn standing(&self, row: &EscrowRow, allowed: u64, own: &EscrowRow) -> Standing {
        let mut covered = u128::from(allowed);
        let mut missing = false;
        for (donor, seq) in &row.basis {
            let held = self.rows.get(donor).map(|signed| &signed.row);
            match held.or_else(|| (*donor == own.holder).then_some(own)) {
                Some(gift) if gift.seq >= *seq => {
                    covered += u128::from(gift.out.get(&row.holder).copied().unwrap_or(0));
                }
                Some(_) | None => missing = true,
            }
        }
        if covered >= row.given() + u128::from(row.hw) {
            Standing::Covered
        } else if missing {
            Standing::Unknown
        } else {
            Standing::Overdrawn
        }
    }

    fn hold(&mut self, older: Option<&EscrowRow>, signed: SignedRow) {
        if !self.quarantined.contains(&signed.row.holder) {
            for (to, amount) in older.iter().flat_map(|row| &row.out) {
                self.lower(to, *amount);
            }
            for (to, amount) in &signed.row.out {
                *self.inflow.entry(*to).or_default() += u128::from(*amount);
            }
        }
        self.rows.insert(signed.row.holder, signed);
    }

    /// Two rows under one `seq`: the greater bytes stay, so that the order of arrival is no matter.
    fn settle_tie(&mut self, held: SignedRow, signed: SignedRow) -> RowMerged {
        let holder = held.row.holder;
        let (kept, other) = if signed.row.canonical_bytes() > held.row.canonical_bytes() {
            self.hold(Some(&held.row), signed.clone());
            (signed, held)
        } else {
            (held, signed)
        };
        self.quarantine(holder);
        RowMerged::Conflict(Box::new(Misdeed::Equivocated { kept, other }))
    }

    fn quarantine(&mut self, holder: Holder) {
        if !self.quarantined.insert(holder) {
            return;
        }
        let out = self.rows.get(&holder).map(|signed| signed.row.out.clone()).unwrap_or_default();
        for (to, amount) in &out {
            self.lower(to, *amount);
        }
    }

    fn lower(&mut self, to: &Holder, amount: u64) {
        if let Some(total) = self.inflow.get_mut(to) {
            *total = total.saturating_sub(u128::from(amount));
        }
    }
}

impl Misdeed {
    /// Who did it.
    pub const fn holder(&self) -> Holder {
        match self {
            Self::Equivocated { kept, .. } => kept.row.holder,
            Self::Shrank { newer, .. } => newer.row.holder,
        }
    }
}

/// Rights fit 64 bits unless a row lies; then the largest value says all there is to say.
fn clamp(amount: u128) -> u64 {
    u64::try_from(amount).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
