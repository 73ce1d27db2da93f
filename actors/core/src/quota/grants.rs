//! What the machine needs to know of the policy: which budgets a caller draws from and what every
//! holder was granted.
//!
//! A trait, so that properties can be tested against policies made up on the spot. In production
//! the policy book implements it; whatever it says is a pure function of signed records.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use selvedge_base::Wall;
use selvedge_crdt::escrow::{BudgetId, Holder, LedgerKey};
use selvedge_proto::policy::{AccountPath, Budget, KeyId, PolicyBook, Standing, Stop};

/// The policy as a node knows it.
pub trait Grants: fmt::Debug + Send + Sync {
    /// Every budget a call of this account and key counts against, whatever its scope.
    fn budgets_of(&self, account: &AccountPath, key: Option<&KeyId>) -> Arc<[Arc<Budget>]>;

    /// All budgets there are.
    fn budgets(&self) -> Vec<Arc<Budget>>;

    /// A budget by its identity.
    fn budget(&self, id: &BudgetId) -> Option<Arc<Budget>>;

    /// Whether and from which ledgers a budget is spent at `wall`.
    fn standing(&self, budget: &BudgetId, wall: Wall) -> Standing;

    /// What a holder was granted of a ledger, as vested at `wall`.
    fn grant(&self, key: &LedgerKey, holder: &Holder, wall: Wall) -> u64;

    /// The most a holder may ever have been granted of a ledger, cuts and vesting aside: what its
    /// row is checked against. `None` when the ledger is not known here.
    fn ceiling(&self, key: &LedgerKey, holder: &Holder) -> Option<u64>;

    /// Who is granted part of a ledger.
    fn members(&self, key: &LedgerKey, wall: Wall) -> BTreeSet<Holder>;

    /// Whether a holder is one of [`Grants::members`].
    fn is_member(&self, key: &LedgerKey, holder: &Holder, wall: Wall) -> bool {
        self.members(key, wall).contains(holder)
    }

    /// Who must agree, group by group, before a mark in a ledger of a reclaimable budget counts.
    fn voters(&self, _key: &LedgerKey, _wall: Wall) -> Vec<Vec<Holder>> {
        // A policy without reclaimable budgets need not say anything.
        Vec::new()
    }

    /// The next moment after `wall` at which [`Grants::standing`] or [`Grants::grant`] may answer
    /// otherwise although no record changed.
    fn changes_at(&self, budget: &BudgetId, wall: Wall) -> Wall;

    /// When the ledger's window ends; `None` for permits and rates.
    fn resets_at(&self, key: &LedgerKey) -> Option<Wall>;
}

impl Grants for PolicyBook {
    fn budgets_of(&self, account: &AccountPath, key: Option<&KeyId>) -> Arc<[Arc<Budget>]> {
        Self::budgets_of(self, account, key)
    }

    fn budgets(&self) -> Vec<Arc<Budget>> {
        Self::budgets(self).cloned().collect()
    }

    fn budget(&self, id: &BudgetId) -> Option<Arc<Budget>> {
        Self::budget(self, id)
    }

    fn standing(&self, budget: &BudgetId, wall: Wall) -> Standing {
        Self::standing(self, budget, wall)
    }

    fn grant(&self, key: &LedgerKey, holder: &Holder, wall: Wall) -> u64 {
        Self::grant(self, key, holder, wall)
    }

    fn ceiling(&self, key: &LedgerKey, holder: &Holder) -> Option<u64> {
        Self::ceiling(self, key, holder)
    }

    fn members(&self, key: &LedgerKey, wall: Wall) -> BTreeSet<Holder> {
        Self::members(self, key, wall)
    }

    fn is_member(&self, key: &LedgerKey, holder: &Holder, wall: Wall) -> bool {
        Self::is_member(self, key, holder, wall)
    }

    fn voters(&self, key: &LedgerKey, wall: Wall) -> Vec<Vec<Holder>> {
        Self::voters(self, key, wall)
    }

    fn changes_at(&self, budget: &BudgetId, wall: Wall) -> Wall {
        Self::changes_at(self, budget, wall)
    }

    fn resets_at(&self, key: &LedgerKey) -> Option<Wall> {
        Self::resets_at(self, key)
    }
}

/// What the policy says of a budget for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) standing: Standing,
    /// From when to when this holds.
    pub(super) since: Wall,
    pub(super) until: Wall,
    /// When the window ends.
    pub(super) resets_at: Option<Wall>,
}

/// No policy at all: nothing is limited and nothing can be spent of any budget.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unlimited;

impl Grants for Unlimited {
    fn budgets_of(&self, _: &AccountPath, _: Option<&KeyId>) -> Arc<[Arc<Budget>]> {
        Arc::from([])
    }

    fn budgets(&self) -> Vec<Arc<Budget>> {
        Vec::new()
    }

    fn budget(&self, _: &BudgetId) -> Option<Arc<Budget>> {
        None
    }

    fn standing(&self, _: &BudgetId, _: Wall) -> Standing {
        Standing::Stopped(Stop::Unsettled)
    }

    fn grant(&self, _: &LedgerKey, _: &Holder, _: Wall) -> u64 {
        0
    }

    fn ceiling(&self, _: &LedgerKey, _: &Holder) -> Option<u64> {
        None
    }

    fn members(&self, _: &LedgerKey, _: Wall) -> BTreeSet<Holder> {
        BTreeSet::new()
    }

    fn changes_at(&self, _: &BudgetId, _: Wall) -> Wall {
        Wall(u64::MAX)
    }

    fn resets_at(&self, _: &LedgerKey) -> Option<Wall> {
        None
    }
}
