//! Budgets as they really are: what every holder made durable and what was really served.
//!
//! Owned by the observer. Marks and gifts are taken from disks at the moment they become durable,
//! spending from what callers really got, so neither trusts what a machine says of itself.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::Mono;
use selvedge_crdt::escrow::{EscrowRow, Holder, LedgerKey};

use crate::invariant::Invariant;

/// All ledgers of a run.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) ledgers: BTreeMap<LedgerKey, Ledger>,
}

/// One window of one budget.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Which account and budget of the plan.
    pub(crate) place: (usize, usize),
    /// The limit as the operator signed it.
    pub(crate) limit: u64,
    /// What each holder may go over it.
    pub(crate) elastic: u64,
    pub(crate) holders: BTreeMap<Holder, Held>,
    pub(crate) refused: u64,
    /// When rights were last given.
    pub(crate) gave_at: Mono,
    /// Marks and gifts that a disk confirmed and forgot.
    pub(crate) forgotten: u64,
    /// Used over what was reserved, when no right was left to pay for it.
    pub(crate) overrun: u64,
}

/// What one holder really did.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) granted: u64,
    /// The highest mark ever durable.
    pub(crate) hw: u64,
    pub(crate) out: BTreeMap<Holder, u64>,
    /// Really served.
    pub(crate) spent: u64,
    /// Whether its process ever died, or its requests were not all counted.
    pub(crate) is_rough: bool,
}

impl Books {
    /// A row became durable at its own holder's disk.
    pub(crate) fn stored(
        &mut self,
        row: &EscrowRow,
        granted: u64,
    ) -> Result<(), (Invariant, String)> {
        let Some(ledger) = self.ledgers.get_mut(&row.key) else { return Ok(()) };
        let held = ledger.holders.entry(row.holder).or_default();
        held.granted = held.granted.max(granted);
        held.hw = held.hw.max(row.hw);
        for (to, amount) in &row.out {
            let known = held.out.entry(*to).or_default();
            *known = (*known).max(*amount);
        }
        ledger.check(&row.holder)
    }

    /// Something was really served on a holder's account.
    pub(crate) fn served(
        &mut self,
        key: LedgerKey,
        holder: Holder,
        amount: u64,
    ) -> Result<(), (Invariant, String)> {
        let Some(ledger) = self.ledgers.get_mut(&key) else { return Ok(()) };
        let held = ledger.holders.entry(holder).or_default();
        held.spent += amount;
        let slack = ledger.forgotten.saturating_add(ledger.overrun);
        if held.spent > held.hw.saturating_add(slack) {
            let seen = format!("{key:?} {}: {held:?}", holder.node.short());
            return Err((Invariant::QuotaSpentWithinHw, seen));
        }
        ledger.check_spent(key)
    }
}

impl Ledger {
    /// All that is allowed above the limit: blocks of elastic budgets, and what disks forgot.
    pub(crate) fn slack(&self) -> u64 {
        let blocks = self.elastic.saturating_mul(self.holders.len() as u64);
        blocks.saturating_add(self.forgotten)
    }

    fn check(&self, holder: &Holder) -> Result<(), (Invariant, String)> {
        let Some(held) = self.holders.get(holder) else { return Ok(()) };
        let got: u64 = self.gifts(holder);
        let given: u64 = held.out.values().sum();
        let rights = held.granted + got + self.elastic + self.forgotten;
        if held.hw + given > rights {
            let name = holder.node.short();
            let seen = format!("{name} was granted {}, got {got}: {held:?}", held.granted);
            return Err((Invariant::QuotaHwWithinRights, seen));
        }
        let marks: u64 = self.holders.values().map(|held| held.hw).sum();
        if marks > self.limit + self.slack() {
            let seen = format!("marks of {marks} over a limit of {}", self.limit);
            return Err((Invariant::QuotaMarksWithinLimit, seen));
        }
        Ok(())
    }

    fn check_spent(&self, key: LedgerKey) -> Result<(), (Invariant, String)> {
        let spent = self.spent();
        if spent > self.limit + self.slack() + self.overrun {
            let seen = format!("{key:?}: {spent} of {}", self.limit);
            return Err((Invariant::QuotaSpentWithinLimit, seen));
        }
        Ok(())
    }

    /// All rights ever given to a holder, durably.
    pub(crate) fn gifts(&self, holder: &Holder) -> u64 {
        self.holders.values().filter_map(|held| held.out.get(holder)).sum()
    }

    /// Those that these donors gave.
    pub(crate) fn gifts_of(&self, holder: &Holder, donors: &BTreeSet<Holder>) -> u64 {
        let given = |(donor, held): (&Holder, &Held)| {
            donors.contains(donor).then(|| held.out.get(holder).copied()).flatten()
        };
        self.holders.iter().filter_map(given).sum()
    }

    pub(crate) fn spent(&self) -> u64 {
        self.holders.values().map(|held| held.spent).sum()
    }

    pub(crate) fn marked(&self) -> u64 {
        self.holders.values().map(|held| held.hw).sum()
    }
}
