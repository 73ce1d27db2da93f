//! The end of a run: everything must have come to rest.

use std::collections::BTreeSet;

use selvedge_base::{Micros, Mono};
use selvedge_crdt::Digest;
use selvedge_crdt::escrow::Holder;
use selvedge_proto::policy::Unit;
use selvedge_proto::swim::PeerState;

use super::World;
use crate::engine::Owner;
use crate::invariant::Invariant;
use crate::outcome::{BudgetOutcome, Outcome};
use crate::plan::{CALM_END, Fault, FaultKind};

/// Rights given this recently may be on their way.
const ON_THE_WAY: Micros = Micros::secs(5);
/// Rows of two nodes are compared only up to here: the digests of a large mesh are large.
const SHOWN: usize = 400;

impl World<'_> {
    pub(super) fn finish(mut self) -> Outcome {
        self.now.0 = Mono(self.plan.span.0);
        self.audit();
        // A run that was cut short, as shrunk ones are, has not come to rest.
        if self.plan.span >= self.plan.quiet_at.plus(CALM_END) {
            self.views_agree();
            self.rows_agree();
            self.settings_agree();
            self.purges_agree();
            self.nothing_pends();
            self.rights_at_rest();
            self.probes_served();
            self.provided();
            self.models_came();
            self.all_joined();
            self.limits_held();
            self.own_rows_newest();
        }
        let budgets = self.budget_outcomes();
        let (hash, checkpoints, records) = self.trace.finish();
        self.counters.records = records;
        self.counters.lost = self.network.lost;
        self.counters.duplicated = self.network.duplicated;
        self.counters.reordered = self.network.reordered;
        self.counters.cut = self.network.cut;
        self.counters.stored = self.nodes.iter().map(|node| node.disk.writes).sum();
        Outcome {
            hash,
            checkpoints,
            detections: self.checker.detections,
            violations: self.checker.violations,
            counters: self.counters,
            requests: self.tally,
            budgets,
            marks: self.marks,
        }
    }

    /// Whether a node is, or should be, up and a member at the end.
    pub(super) fn is_whole(&self, node: usize) -> bool {
        let death =
            |fault: &Fault| matches!(fault.kind, FaultKind::Death { node: dead } if dead == node);
        !self.is_out(node) && self.finds_in_time(node, node) && !self.plan.faults.iter().any(death)
    }

    fn views_agree(&mut self) {
        let mut wrong = Vec::new();
        for observer in self.checker.observers().filter(|node| self.is_whole(*node)) {
            for view in self.nodes[observer].memory.swim.states() {
                let peer = self.names.index(&view.node);
                if view.state != PeerState::Alive && self.is_whole(peer) {
                    wrong.push(format!("node {observer} of {peer}: {view:?}"));
                }
            }
        }
        for seen in wrong {
            self.broken(Invariant::LiveViewsAgree, seen);
        }
    }

    fn rows_agree(&mut self) {
        if self.ease() > 1 {
            return;
        }
        let whole = (0..self.nodes.len()).filter(|node| self.is_whole(*node));
        let digests: Vec<Digest> =
            whole.map(|node| self.nodes[node].memory.rows.digest()).collect();
        if digests.windows(2).any(|pair| pair[0] != pair[1]) {
            let mut seen = format!("{digests:?}");
            seen.truncate(SHOWN);
            self.broken(Invariant::LiveRowsAgree, seen);
        }
    }

    fn nothing_pends(&mut self) {
        let mut wrong = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.acts()) {
            let waiting = node.memory.cache.iter().flat_map(|side| side.waiting.keys());
            let asked = node.memory.taken.keys().chain(node.memory.relays.keys());
            for request in asked.chain(waiting) {
                if self.requests[*request as usize].deadline_at < self.now.0 {
                    wrong.push((Invariant::LiveNothingPending, format!("{request} at {index}")));
                }
            }
            for owner in node.memory.engine.owners() {
                let wanted = match owner {
                    Owner::Own { request, .. } => node.memory.taken.contains_key(&request),
                    Owner::Stream(stream) => {
                        let served = node.memory.served.get(&stream);
                        served.is_some_and(|served| !served.has_ended)
                    }
                };
                if !wanted {
                    wrong.push((Invariant::RouteLosersCancelled, format!("{owner:?} at {index}")));
                }
            }
        }
        for (invariant, seen) in wrong {
            self.broken(invariant, seen);
        }
    }

    /// After healing and quiet nothing is reserved, and what was not spent can be.
    fn rights_at_rest(&mut self) {
        let mut wrong = Vec::new();
        let policies = self.policies_agree();
        // What a donor gave and could tell nobody any more is lost with it.
        let honest = |node: &usize| self.is_whole(*node) && !self.liars.contains(node);
        let whole = (0..self.nodes.len()).filter(honest);
        let live: BTreeSet<Holder> = whole
            .filter_map(|node| self.nodes[node].memory.quota.as_ref().map(|one| one.holder()))
            .collect();
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.acts()) {
            let Some(quota) = &node.memory.quota else { continue };
            let errands = node.memory.relays.values().filter_map(|one| one.errand.as_ref());
            let mut errands = errands.filter(|errand| errand.granted);
            let waits =
                node.memory.taken.values().any(|taken| taken.granted) || errands.next().is_some();
            for audit in quota.audit() {
                let Some(ledger) = self.books.ledgers.get(&audit.key) else { continue };
                let seen = || format!("node {index}: {audit:?}");
                if audit.reserved > 0 && !waits {
                    wrong.push((Invariant::QuotaNothingReserved, seen()));
                }
                let Some(held) = ledger.holders.get(&audit.holder) else { continue };
                // An overrun is paid by whichever window has rights left.
                let mut all = self.books.ledgers.iter();
                let overran =
                    all.any(|(one, ledger)| one.budget == audit.key.budget && ledger.overrun > 0);
                let windowed = !overran && !matches!(audit.unit, Unit::Concurrent | Unit::Rate);
                let vague = self.books.vague.contains(&(audit.holder, audit.key.budget));
                let known = windowed && !held.is_rough && !vague;
                if known && audit.spent != held.spent + audit.owed && !waits {
                    let seen = format!("{}, served {}", seen(), held.spent);
                    wrong.push((Invariant::QuotaSettledOnce, seen));
                }
                let current = self.truth_book.current(&audit.key.budget, node.now(self.now.0).wall);
                let got = ledger.gifts_of(&audit.holder, &live);
                let settled = self.now.0.since(ledger.gave_at) >= ON_THE_WAY;
                let calm = policies && settled && ledger.forgotten == 0 && self.all_right(index);
                // What passed through a liar's hands does not count, whoever gave it on.
                let mut gave = ledger.holders.iter().filter(|(_, held)| !held.out.is_empty());
                let lied =
                    gave.any(|(donor, _)| self.liars.contains(&self.names.index(&donor.node)));
                let calm = calm && !lied;
                if current == Some(audit.key) && audit.counted < got && calm {
                    let seen = format!("{}, given {got}", seen());
                    wrong.push((Invariant::QuotaAvailable, seen));
                }
            }
        }
        for (invariant, seen) in wrong {
            self.broken(invariant, seen);
        }
    }

    /// Once it is settled which configuration governs a window, its marks are within that one's
    /// limit, whatever was known when they were made.
    fn limits_held(&mut self) {
        let mut wrong = Vec::new();
        for (key, ledger) in &self.books.ledgers {
            let ceiling = |holder| self.truth_book.ceiling(key, holder);
            let all: Option<Vec<u64>> = self.holders.iter().map(ceiling).collect();
            let Some(limit) = all.map(|all| all.into_iter().sum::<u64>()) else { continue };
            let marked = ledger.marked();
            if marked > limit.saturating_add(ledger.slack()) {
                let seen = format!("{key:?}: marks of {marked}, and {limit} is the limit");
                wrong.push((Invariant::QuotaMarksWithinLimit, seen));
            }
        }
        for (invariant, seen) in wrong {
            self.broken(invariant, seen);
        }
    }

    /// A node whose disk went back ends its old name as soon as it hears of a newer row of its own.
    fn own_rows_newest(&mut self) {
        let mut wrong = Vec::new();
        let lies = |node: usize| {
            let by = |fault: &Fault| fault.kind.lies() && fault.kind.node() == Some(node);
            self.plan.faults.iter().any(by)
        };
        for node in (0..self.nodes.len()).filter(|node| self.is_whole(*node) && !lies(*node)) {
            let state = &self.nodes[node];
            let Some(quota) = state.memory.quota.as_ref().filter(|_| state.acts()) else {
                continue;
            };
            let holder = quota.holder();
            let others = (0..self.nodes.len()).filter(|one| *one != node && self.is_whole(*one));
            for peer in others {
                for (key, stored) in &self.nodes[peer].disk.stored.quota.rows {
                    let own = state.disk.stored.quota.rows.get(key);
                    let is_own = key.1 == holder && own.is_some();
                    if is_own && own.is_some_and(|own| own.row.seq < stored.row.seq) {
                        let seen = format!("node {peer} holds {:?} of node {node}", stored.row);
                        wrong.push((Invariant::QuotaOwnRowsNewest, seen));
                    }
                }
            }
        }
        for (invariant, seen) in wrong {
            self.broken(invariant, seen);
        }
    }

    /// Whether a node's disk and clock are right at the end.
    pub(super) fn all_right(&self, node: usize) -> bool {
        if self.liars.contains(&node) || !self.is_whole(node) {
            return false;
        }
        let node = &self.nodes[node];
        node.disk.full == 0 && node.disk.errors_permille == 0 && node.clock.is_right()
    }

    /// Whether all nodes that know of budgets know the same policy.
    fn policies_agree(&mut self) -> bool {
        let whole: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.is_whole(*node) && self.nodes[*node].memory.quota.is_some())
            .filter(|node| self.nodes[*node].acts() && self.nodes[*node].clock.is_right())
            .collect();
        let greetings: Vec<_> =
            whole.iter().map(|node| self.nodes[*node].memory.book.greeting()).collect();
        let agree = greetings.windows(2).all(|pair| pair[0] == pair[1]);
        if !agree && self.ease() == 1 {
            self.broken(Invariant::LivePolicyAgrees, format!("{greetings:?}"));
        }
        agree
    }

    fn budget_outcomes(&self) -> Vec<BudgetOutcome> {
        let mut outcomes = Vec::new();
        for (key, ledger) in &self.books.ledgers {
            let (tenant, budget) = ledger.place;
            let tenant = &self.plan.workload.tenants[tenant];
            let plan = &tenant.budgets[budget];
            let (spent, marked) = (ledger.spent(), ledger.marked());
            outcomes.push(BudgetOutcome {
                account: tenant.path.clone(),
                budget: plan.name.clone(),
                unit: format!("{:?}", plan.unit).to_lowercase(),
                window: key.window,
                limit: ledger.limit,
                spent,
                wasted: marked.saturating_sub(spent),
                overspend: spent.saturating_sub(ledger.limit),
                refused: ledger.refused,
            });
        }
        outcomes
    }
}
