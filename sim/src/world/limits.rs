//! How many run at once and how fast requests pass: the observer counts them itself, since no row
//! says so.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::{Micros, Mono};
use selvedge_crdt::escrow::BudgetId;
use selvedge_proto::policy::{Period, Unit};

use super::World;
use crate::invariant::Invariant;
use crate::ledger::Ledger;
use crate::marks::Mark;

/// For how long a newcomer may use permits and rates after a holder vouched.
const VOUCHED: Micros = Micros::secs(5);
/// What a limiter may let pass at once: this much time's worth, and one request for each node.
const AT_ONCE: Micros = Micros::millis(100);
/// A request that is told later than this after it asked may have passed its limiter at any time
/// in between, and is not counted.
const PROMPT: Micros = Micros::millis(100);

/// What the observer knows of them.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    /// Requests with a permit, and where.
    running: BTreeMap<BudgetId, BTreeSet<(usize, u64)>>,
    limiters: BTreeMap<BudgetId, Limiter>,
    /// When a holder's word last reached a node.
    vouched: BTreeMap<(usize, BudgetId), Mono>,
}

/// A bucket as large as those of all nodes together, full at first.
#[derive(Debug)]
struct Limiter {
    /// In requests × microseconds of the period.
    level: u128,
    at: Mono,
}

impl Passing {
    /// How many run on permits of a budget that a node gave out.
    pub(super) fn running_at(&self, node: usize, budget: &BudgetId) -> u64 {
        let all = self.running.get(budget).into_iter().flatten();
        all.filter(|(at, _)| *at == node).count() as u64
    }

    /// A request is over.
    pub(super) fn ended(&mut self, node: usize, request: u64) {
        for running in self.running.values_mut() {
            running.remove(&(node, request));
        }
    }

    /// A process died with all its requests.
    pub(super) fn died(&mut self, node: usize) {
        for running in self.running.values_mut() {
            running.retain(|(at, _)| *at != node);
        }
    }
}

impl World<'_> {
    /// A request was granted that asked at `asked_at`: what it took of permits and rates is within
    /// their limits.
    pub(super) fn passed(&mut self, node: usize, request: u64, budgets: &[BudgetId], asked: Mono) {
        for id in budgets {
            let Some(budget) = self.truth_book.budget(id) else { continue };
            match budget.spec.unit {
                Unit::Concurrent => self.runs(node, request, id),
                Unit::Rate => {
                    if self.now.0.since(asked) <= PROMPT {
                        self.flows(node, id, budget.spec.period);
                    }
                }
                Unit::Tokens | Unit::Requests | Unit::MicroDollars => continue,
            }
            if self.is_newcomer(node) {
                self.hit(Mark::NewcomerPassed);
                let word = self.passing.vouched.get(&(node, *id));
                if word.is_none_or(|at| at.plus(VOUCHED) < asked) {
                    let seen = format!("node {node} lets request {request} run, word of {word:?}");
                    self.broken(Invariant::QuotaNewcomersVouched, seen);
                }
            }
        }
    }

    /// A budget refused a request: a newcomer's, since no holder's word was fresh?
    pub(super) fn stopped_short(&mut self, node: usize, id: BudgetId) {
        let budget = self.truth_book.budget(&id);
        let windowed = budget.is_none_or(|budget| budget.spec.unit.is_windowed());
        let word = self.passing.vouched.get(&(node, id)).copied();
        let stale = word.is_some_and(|at| at.plus(VOUCHED) < self.now.0);
        if !windowed && stale && self.is_newcomer(node) {
            self.hit(Mark::NewcomerStopped);
        }
    }

    fn runs(&mut self, node: usize, request: u64, id: &BudgetId) {
        let running = self.passing.running.entry(*id).or_default();
        running.insert((node, request));
        let count = running.len() as u64;
        let most = self.most_of(id);
        if count > most {
            let seen = format!("{count} run on {most} permits of {id:?}");
            self.broken(Invariant::QuotaPermitsWithinLimit, seen);
        }
    }

    fn flows(&mut self, node: usize, id: &BudgetId, period: Period) {
        let (now, limit, each) = (self.now.0, u128::from(self.most_of(id)), each(period));
        let burst = limit * u128::from(AT_ONCE.plus(PROMPT).0);
        let room = self.nodes.len() as u128 * each + burst;
        let limiters = &mut self.passing.limiters;
        let limiter = limiters.entry(*id).or_insert(Limiter { level: room, at: now });
        let gained = limit * u128::from(now.since(limiter.at).0);
        limiter.level = (limiter.level + gained).min(room);
        limiter.at = now;
        if limiter.level < each {
            let seen = format!("one more at node {node} than {limit} in {period:?} of {id:?}");
            return self.broken(Invariant::QuotaRateWithinLimit, seen);
        }
        limiter.level -= each;
    }

    /// The most that may be out of a budget at once: its largest limit, since changes of grants
    /// take longer to settle than a run lasts; and what disks forgot. Clocks that are further off
    /// than they may be leave no more than all limits together.
    fn most_of(&self, id: &BudgetId) -> u64 {
        let ledgers = self.books.ledgers.iter().filter(|(key, _)| key.budget == *id);
        let limits = ledgers.clone().map(|(_, ledger)| ledger.limit);
        let forgotten: u64 = ledgers.map(|(_, ledger): (_, &Ledger)| ledger.forgotten).sum();
        let astray = self.nodes.iter().any(|node| node.clock.was_wrong);
        let limit: u64 = if astray { limits.sum() } else { limits.max().unwrap_or(0) };
        limit.saturating_add(forgotten)
    }

    /// Whether a node came after the budgets were signed.
    pub(super) fn is_newcomer(&self, node: usize) -> bool {
        let id = self.id(node);
        self.holders.iter().all(|holder| holder.node != id)
    }

    /// A holder's word reached a node.
    pub(super) fn was_vouched(&mut self, node: usize, from: usize, id: BudgetId) {
        if !self.is_newcomer(from) {
            self.passing.vouched.insert((node, id), self.now.0);
        }
    }
}

/// The microseconds of a period; of a month, thirty days.
const fn each(period: Period) -> u128 {
    let secs = match period {
        Period::Second => 1,
        Period::Minute => 60,
        Period::Hour => 3_600,
        Period::Day => 86_400,
        Period::Month => 30 * 86_400,
    };
    secs * 1_000_000
}
