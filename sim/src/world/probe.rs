//! After healing the observer asks at each node that has a right to spend: it must be served.

use selvedge_base::{Micros, Mono};
use selvedge_proto::policy::Unit;

use super::{Due, World};
use crate::invariant::Invariant;
use crate::plan::{CALM_END, ClientPlan};

/// How long after healing: the recovery of connections, and then all is as it should be.
const AFTER: Micros = Micros::millis(12_500);
/// Between two nodes, so that engines with little room are not all asked at once.
const APART: Micros = Micros::millis(150);
/// Nodes asked in a large mesh.
const MOST: usize = 16;
/// What a probe asks for.
const PROMPT: u32 = 8;
/// Its answer: a moment's work.
const ANSWER: u32 = 2;
/// Tokens a probe may be reserved for: prompt, marks, answer.
const COST: u64 = 64;
/// A window that turns so soon may turn under a probe.
const NEAR: Micros = Micros::secs(5);

impl World<'_> {
    pub(super) fn plan_probes(&mut self) {
        if self.plan.span < self.plan.quiet_at.plus(CALM_END) || self.ease() > 1 {
            return;
        }
        for node in 0..self.plan.nodes.min(MOST) {
            let at = Mono(self.plan.quiet_at.0).plus(AFTER).plus(APART.times(node as u64));
            self.queue.push(at, super::Class::Node, Due::Probed { node });
        }
    }

    /// Asks for each account once, where rights are enough by the observer's accounts.
    pub(super) fn probe(&mut self, node: usize) {
        if !self.is_whole(node) || !self.can_anybody_compute() {
            return;
        }
        let plan = self.plan;
        for group in 0..plan.workload.clients.len() {
            let client = &plan.workload.clients[group];
            let asked_before = plan.workload.clients[..group].iter();
            if asked_before.clone().any(|one| one.account == client.account)
                || !self.has_right(node, group)
            {
                continue;
            }
            let asks = ClientPlan {
                prompt: (PROMPT, PROMPT),
                answer: (ANSWER, ANSWER),
                deadline: Micros::secs(3),
                nodes: vec![node],
                leave_permille: 0,
                home_permille: 0,
                dense_permille: 0,
                unlimited: false,
                ..client.clone()
            };
            let request = self.requests.len() as u64;
            self.ask(group, &asks);
            if self.requests.len() as u64 > request {
                self.probes.push((node, request));
            }
        }
    }

    fn can_anybody_compute(&self) -> bool {
        let computes = |node: &usize| {
            let state = &self.nodes[*node];
            let status = state.memory.engine.status(self.now.0);
            let ready = status.models.iter().any(|one| {
                one.state == selvedge_contract::ModelState::Ready && !state.memory.engine.frozen
            });
            self.is_whole(*node) && state.acts() && ready
        };
        (0..self.nodes.len()).any(|node| computes(&node))
    }

    /// Whether the node may spend what a probe takes from every budget of the account, whatever
    /// its own machine says.
    fn has_right(&mut self, node: usize, group: usize) -> bool {
        // A clock that was ahead keeps the window it was in; a guard needs somebody to ask.
        let others = (0..self.nodes.len()).filter(|one| {
            *one != node && self.is_whole(*one) && self.nodes[*one].memory.quota.is_some()
        });
        let alone = self.plan.options.rollback_guard && others.count() == 0;
        if alone || self.nodes[node].clock.was_wrong {
            return false;
        }
        if !self.all_right(node) || self.is_barred_for_good(node, group) {
            return false;
        }
        let Some(account) = self.accounts[group].clone() else { return true };
        let wall = self.nodes[node].now(self.now.0).wall;
        let Some(quota) = self.nodes[node].memory.quota.as_ref() else { return true };
        let holder = quota.holder();
        if quota.status(self.nodes[node].now(self.now.0)).iter().any(|one| one.debt > 0) {
            return false;
        }
        let key = self.key_of(group);
        for budget in self.truth_book.budgets_of(&account, key.as_ref()).iter() {
            let Some(ledger) = self.truth_book.current(&budget.id, wall) else { return false };
            let turns = self.truth_book.changes_at(&budget.id, wall);
            let granted = self.truth_book.grant(&ledger, &holder, wall);
            let own = self.nodes[node].memory.book.current(&budget.id, wall);
            if own != Some(ledger) || turns.since(wall) < NEAR || budget.spec.unit == Unit::Rate {
                return false;
            }
            let held = self.books.ledgers.get(&ledger).and_then(|one| one.holders.get(&holder));
            let used = held.map_or(0, |held| held.hw + held.out.values().sum::<u64>());
            let cost = match budget.spec.unit {
                Unit::Tokens => COST,
                // Permits that ended late elsewhere come back within the lease.
                Unit::Concurrent => continue,
                _ => 1,
            };
            if granted < used.saturating_add(cost) {
                return false;
            }
        }
        true
    }

    /// Those who had a right were served.
    pub(super) fn probes_served(&mut self) {
        for (node, request) in std::mem::take(&mut self.probes) {
            if !self.requests[request as usize].finished {
                let seen = format!("node {node} did not answer request {request}");
                self.broken(Invariant::LiveServes, seen);
            }
        }
    }
}
