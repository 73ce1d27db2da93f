//! Budgets as they really are: what every holder made durable and what was really served.
//!
//! Owned by the observer. Marks and gifts are taken from disks at the moment they become durable,
//! spending from what callers really got, so neither trusts what a machine says of itself.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::Mono;
use selvedge_crdt::escrow::{Ballot, BudgetId, EscrowRow, Holder, LedgerKey};

use crate::invariant::Invariant;

/// All ledgers of a run.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) ledgers: BTreeMap<LedgerKey, Ledger>,
    /// Holders of which nobody outside knows what they spent of a budget in which window: those
    /// that come later may pay for it too.
    pub(crate) vague: BTreeSet<(Holder, BudgetId)>,
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
    /// The newest row of a reclaimable budget that a quorum of disks has had.
    chosen: Option<EscrowRow>,
    /// Rows beyond it, and up to which of each turn every voter's disk has had them.
    pending: Vec<EscrowRow>,
    votes: BTreeMap<Option<Ballot>, BTreeMap<Holder, u64>>,
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

    /// A row of a reclaimable budget became durable at one of the `voters`: it counts with most.
    pub(crate) fn witnessed(
        &mut self,
        row: &EscrowRow,
        by: Holder,
        voters: &[Holder],
        granted: u64,
    ) -> Result<(), (Invariant, String)> {
        let Some(ledger) = self.ledgers.get_mut(&row.key) else { return Ok(()) };
        if !voters.contains(&by) {
            return Ok(());
        }
        let forgot = ledger.forgotten > 0;
        let held = ledger.holders.entry(row.holder).or_default();
        if !held.pending.contains(row) {
            held.pending.push(row.clone());
        }
        let votes = held.votes.entry(row.ballot).or_default();
        let known = votes.entry(by).or_default();
        *known = row.seq.max(*known);
        let votes = &held.votes;
        let is_chosen = |row: &&EscrowRow| {
            let votes = votes.get(&row.ballot);
            let has = |voter: &&Holder| {
                votes.and_then(|votes| votes.get(*voter)).is_some_and(|seq| *seq >= row.seq)
            };
            2 * voters.iter().filter(has).count() > voters.len()
        };
        let mut chosen: Vec<EscrowRow> = held.pending.iter().filter(is_chosen).cloned().collect();
        chosen.sort_by_key(EscrowRow::turn);
        held.pending.retain(|row| !chosen.contains(row));
        let mut newest = None;
        for row in chosen {
            // A disk that is slow may be the last to have what a quorum had long ago.
            let last = held.chosen.get_or_insert_with(|| row.clone());
            let (older, newer) =
                if row.turn() > last.turn() { (&*last, &row) } else { (&row, &*last) };
            if !newer.succeeds(older) && !forgot {
                let seen = format!("{older:?} was witnessed, and {newer:?}");
                return Err((Invariant::QuotaWitnessedKept, seen));
            }
            if row.turn() >= last.turn() {
                *last = row.clone();
                newest = Some(row);
            }
        }
        let Some(newest) = newest else { return Ok(()) };
        self.stored(&newest, granted)
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
