//! Which rows of a ledger are paid for: back to grants, however many hands rights went through.
//!
//! A row claims what it spends and gives, and is covered when its holder's grant and the gifts *of
//! covered rows* make up for that. The largest set of rows that cover each other in this way is
//! what counts: each of them balances, so all of them together spend and give no more to the rest
//! of the mesh than they were granted, and rights cannot be made by rows that vouch for each other
//! in a circle, nor by a row of somebody who was granted nothing. Rights that honest holders passed
//! to and fro, each counting on the other's row, are in the set as well; with the smallest set they
//! would not be.
//!
//! Owns that set, kept up to date message by message: besides one pass over the names, a change
//! looks at the rows that were not covered and at those that lose a gift, at no others. Owns no row
//! and no grant.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Ledger;
use super::row::{EscrowRow, Holder};

/// The rows of one ledger that are covered, besides this node's own, which is trusted.
#[derive(Clone, Debug, Default)]
pub struct Backing {
    /// A subset of the ledger's holders.
    covered: BTreeSet<Holder>,
    /// What covered rows gave, by receiver.
    inflow: BTreeMap<Holder, u128>,
    /// Covered rows that must be looked at again.
    doubtful: BTreeSet<Holder>,
    /// Something changed since the last look.
    stale: bool,
}

impl Backing {
    /// Whether a holder's row is covered, as of the last [`Backing::settle`].
    pub fn covers(&self, holder: &Holder) -> bool {
        self.covered.contains(holder)
    }

    /// What covered rows gave a holder, and this node's `own`, as of the last [`Backing::settle`].
    pub fn inflow(&self, holder: &Holder, own: &EscrowRow) -> u128 {
        let others = self.inflow.get(holder).copied().unwrap_or(0);
        others + own.out.get(holder).map_or(0, |amount| u128::from(*amount))
    }

    /// A holder's row was replaced, or its holder quarantined; `older` is the row that was held.
    pub fn changed(&mut self, older: Option<&EscrowRow>, holder: Holder) {
        self.stale = true;
        if self.covered.remove(&holder)
            && let Some(older) = older
        {
            self.take_back(older);
        }
    }

    /// Grants may be others than before: every row must be looked at again.
    pub fn doubt_all(&mut self) {
        self.stale = true;
        self.doubtful.clone_from(&self.covered);
    }

    /// Brings the set up to date. `allowed` is a holder's grant, and what an elastic budget allows
    /// above it. Costs as much as there are holders, and entries in rows that were not covered or
    /// are no more.
    pub fn settle(&mut self, ledger: &Ledger, own: &EscrowRow, allowed: impl Fn(&Holder) -> u64) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let mut look = std::mem::take(&mut self.doubtful);
        // At first everybody is believed, then those that do not balance are not, until all do.
        for signed in ledger.rows() {
            let holder = signed.row.holder;
            if !ledger.is_quarantined(&holder) && self.covered.insert(holder) {
                for (to, amount) in &signed.row.out {
                    *self.inflow.entry(*to).or_default() += u128::from(*amount);
                }
                look.insert(holder);
            }
        }
        while let Some(holder) = look.pop_first() {
            let Some(signed) = ledger.get(&holder).filter(|_| self.covers(&holder)) else {
                continue;
            };
            let has = self.inflow(&holder, own) + u128::from(allowed(&holder));
            if has >= signed.row.given() + u128::from(signed.row.hw) {
                continue;
            }
            self.covered.remove(&holder);
            self.take_back(&signed.row);
            look.extend(std::mem::take(&mut self.doubtful));
        }
    }

    /// The gifts of a row that is not covered any more; their receivers are to be looked at.
    fn take_back(&mut self, row: &EscrowRow) {
        for (to, amount) in &row.out {
            if let Some(total) = self.inflow.get_mut(to) {
                *total = total.saturating_sub(u128::from(*amount));
                if *total == 0 {
                    self.inflow.remove(to);
                }
            }
            if self.covered.contains(to) {
                self.doubtful.insert(*to);
            }
        }
    }
}

#[cfg(test)]
#[path = "backing_tests.rs"]
mod tests;
