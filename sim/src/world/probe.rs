//! After healing the observer asks at each node that has a right to spend: it must be served. And
//! where a permit must come from a peer: who asks again, as a refusal says, must be served too.

use std::collections::BTreeSet;

use selvedge_base::{Micros, Mono, Wall};
use selvedge_crdt::escrow::{BudgetId, Holder, LedgerKey, Voters};
use selvedge_proto::policy::{AccountPath, Budget, Standing, Unit};
use selvedge_proto::wire::Label;

use super::{Due, World};
use crate::invariant::Invariant;
use crate::marks::Mark;
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
/// What one may be reserved for at a provider: tokens, and millionths of a dollar at the dearest.
const PAID_TOKENS: u64 = 512;
const PAID_MONEY: u64 = 4_000;
/// Between the groups: a breaker that is not sure lets one request through at a time.
const GROUPS_APART: Micros = Micros::millis(1_200);
/// Groups that are asked for: more would have no answer before the end.
const MOST_GROUPS: usize = 2;
/// A window that turns so soon may turn under a probe.
const NEAR: Micros = Micros::secs(5);
/// When it asks where a permit must come from a peer, the other probes being over in a mesh of so
/// many nodes at most.
const ELSEWHERE: Micros = Micros::millis(13_900);
const FEW: usize = 8;
/// And again: a refusal says after a second.
const AGAIN: Micros = Micros::millis(15_000);
/// There and back, with two writes, within that second.
const NEARBY: Micros = Micros::millis(100);
/// Rights given this recently may be on their way.
const ON_THE_WAY: Micros = Micros::secs(1);

/// What was asked where a permit must come from a peer.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// At which node, which group of clients, which request.
    first: Vec<(usize, usize, u64)>,
    second: Vec<(usize, u64)>,
}

/// Whether a node has what a probe takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    Here,
    /// But for a permit, and peers have one that is free.
    Elsewhere,
    Nowhere,
}

/// What a probe takes of the mesh at most.
const fn little(unit: Unit) -> u64 {
    match unit {
        Unit::Tokens => COST,
        Unit::MicroDollars => 0,
        Unit::Requests | Unit::Concurrent | Unit::Rate => 1,
    }
}

/// What a probe takes of a provider at most.
const fn dear(unit: Unit) -> u64 {
    match unit {
        Unit::Tokens => PAID_TOKENS,
        Unit::MicroDollars => PAID_MONEY,
        Unit::Requests | Unit::Concurrent | Unit::Rate => 1,
    }
}

impl World<'_> {
    pub(super) fn plan_probes(&mut self) {
        if self.plan.span < self.plan.quiet_at.plus(CALM_END) || self.ease() > 1 {
            return;
        }
        if !self.plan.memory.is_none() {
            return self.plan_model_probes();
        }
        for node in 0..self.plan.nodes.min(MOST) {
            let clients = self.plan.workload.clients.iter().enumerate();
            let by_name = clients.filter(|(_, client)| client.asks.is_some());
            let groups: Vec<usize> = by_name.map(|(group, _)| group).take(MOST_GROUPS).collect();
            for (turn, group) in groups.into_iter().enumerate() {
                let at = Mono(self.plan.quiet_at.0).plus(AFTER).plus(APART.times(node as u64));
                let at = at.plus(GROUPS_APART.times(turn as u64));
                self.queue.push(at, super::Class::Node, Due::ProvidersProbed { node, group });
            }
            let at = Mono(self.plan.quiet_at.0).plus(AFTER).plus(APART.times(node as u64));
            self.queue.push(at, super::Class::Node, Due::Probed { node });
        }
        if self.plan.nodes <= FEW && self.plan.network.latency_max <= NEARBY {
            let quiet = Mono(self.plan.quiet_at.0);
            self.queue.push(quiet.plus(ELSEWHERE), super::Class::Node, Due::ProbedElsewhere);
            self.queue.push(quiet.plus(AGAIN), super::Class::Node, Due::ProbedAgain);
        }
    }

    /// Asks for each account once, where rights are enough by the observer's accounts.
    pub(super) fn probe(&mut self, node: usize) {
        if !self.is_whole(node) || !self.can_anybody_compute() {
            return;
        }
        let plan = self.plan;
        // Two of one tenant might want one and the same permit.
        let mut permits: BTreeSet<BudgetId> = BTreeSet::new();
        // One peer must take all that ask at the same moment.
        for group in 0..plan.workload.clients.len().min(plan.options.per_peer) {
            let client = &plan.workload.clients[group];
            let asked_before = plan.workload.clients[..group].iter();
            let mut by_model = asked_before.filter(|one| one.asks.is_none());
            if client.asks.is_some()
                || by_model.any(|one| one.account == client.account)
                || self.right(node, group, little) != Right::Here
            {
                continue;
            }
            let wanted = self.permits_wanted(group);
            if !wanted.is_disjoint(&permits) {
                continue;
            }
            permits.extend(wanted);
            if let Some(request) = self.ask_little(node, group) {
                self.probes.push((node, request));
            }
        }
    }

    /// Asks for what each group asks for by name, where rights are enough by the observer's
    /// accounts. Providers of short tempers only: the others may be left alone for minutes.
    pub(super) fn probe_providers(&mut self, node: usize, group: usize) {
        let plan = self.plan;
        let hasty = plan.cloud.providers.iter().all(|one| one.hasty);
        if !self.is_whole(node) || !hasty || group >= plan.options.per_peer {
            return;
        }
        let in_mesh = plan.workload.clients[group].asks.as_deref() == Some("loom");
        if self.right(node, group, dear) != Right::Here || in_mesh && !self.can_anybody_compute() {
            return;
        }
        if let Some(request) = self.ask_little(node, group) {
            self.paid_probes.push((node, request));
        }
    }

    /// Those who had a right were answered, by whomever.
    pub(super) fn provided(&mut self) {
        for (node, request) in std::mem::take(&mut self.paid_probes) {
            if !self.requests[request as usize].finished {
                let seen = format!("node {node} did not answer request {request}");
                self.broken(Invariant::LiveProvided, seen);
            }
        }
    }

    /// The budgets that clients of a group need a permit of.
    fn permits_wanted(&self, group: usize) -> BTreeSet<BudgetId> {
        let Some(account) = self.accounts[group].as_ref() else { return BTreeSet::new() };
        let budgets = self.truth_book.budgets_of(account, self.key_of(group).as_ref());
        let permits = budgets.iter().filter(|budget| budget.spec.unit == Unit::Concurrent);
        permits.map(|budget| budget.id).collect()
    }

    /// A small request at a node; none when that one takes none.
    fn ask_little(&mut self, node: usize, group: usize) -> Option<u64> {
        let asks = ClientPlan {
            prompt: (PROMPT, PROMPT),
            answer: (ANSWER, ANSWER),
            deadline: Micros::secs(3),
            nodes: vec![node],
            leave_permille: 0,
            home_permille: 0,
            dense_permille: 0,
            unlimited: false,
            tools_permille: 0,
            questions: 0,
            label: Some(Label::Anywhere),
            ..self.plan.workload.clients[group].clone()
        };
        let request = self.requests.len() as u64;
        self.ask(group, &asks);
        (self.requests.len() as u64 > request).then_some(request)
    }

    /// Asks once for each tenant where a permit must come from a peer, at a newcomer if there is
    /// one. What this asks may be refused: it tells the peers.
    pub(super) fn probe_elsewhere(&mut self) {
        if !self.can_anybody_compute() {
            return;
        }
        let mut asked: BTreeSet<AccountPath> = BTreeSet::new();
        let mut nodes: Vec<usize> = (0..self.nodes.len()).collect();
        nodes.sort_by_key(|node| !self.is_newcomer(*node));
        for group in 0..self.plan.workload.clients.len() {
            let Some(tenant) = self.accounts[group].as_ref().map(AccountPath::tenant_path) else {
                continue;
            };
            if asked.contains(&tenant) {
                continue;
            }
            let elsewhere = |node: &usize| {
                self.is_whole(*node) && self.right(*node, group, little) == Right::Elsewhere
            };
            let Some(node) = nodes.iter().copied().find(elsewhere) else { continue };
            asked.insert(tenant);
            if let Some(request) = self.ask_little(node, group) {
                self.again.first.push((node, group, request));
            }
        }
    }

    /// And once more where it was refused, as long as a permit is free: now it must be served.
    pub(super) fn probe_again(&mut self) {
        for (node, group, request) in std::mem::take(&mut self.again.first) {
            let served = self.requests[request as usize].finished;
            if served || self.right(node, group, little) == Right::Nowhere {
                continue;
            }
            if let Some(request) = self.ask_little(node, group) {
                self.again.second.push((node, request));
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
    fn right(&self, node: usize, group: usize, cost: fn(Unit) -> u64) -> Right {
        // A clock that was ahead keeps the window it was in; a guard needs somebody to ask.
        let others = (0..self.nodes.len()).filter(|one| {
            *one != node && self.is_whole(*one) && self.nodes[*one].memory.quota.is_some()
        });
        let alone = self.plan.options.rollback_guard && others.count() == 0;
        if alone || self.nodes[node].clock.was_wrong {
            return Right::Nowhere;
        }
        if !self.all_right(node) || self.is_barred_for_good(node, group) {
            return Right::Nowhere;
        }
        let Some(account) = self.accounts[group].clone() else { return Right::Here };
        let now = self.nodes[node].now(self.now.0);
        let Some(quota) = self.nodes[node].memory.quota.as_ref() else { return Right::Here };
        if quota.status(now).iter().any(|one| one.debt > 0) {
            return Right::Nowhere;
        }
        let key = self.key_of(group);
        let budgets = self.truth_book.budgets_of(&account, key.as_ref());
        let rights = budgets.iter().map(|budget| self.right_to(node, budget, now.wall, cost));
        // The worst of them.
        rights.fold(Right::Here, |worst, right| match (worst, right) {
            (Right::Nowhere, _) | (_, Right::Nowhere) => Right::Nowhere,
            (Right::Elsewhere, _) | (_, Right::Elsewhere) => Right::Elsewhere,
            (Right::Here, Right::Here) => Right::Here,
        })
    }

    fn right_to(&self, node: usize, budget: &Budget, wall: Wall, cost: fn(Unit) -> u64) -> Right {
        let Some(ledger) = self.truth_book.current(&budget.id, wall) else { return Right::Nowhere };
        let turns = self.truth_book.changes_at(&budget.id, wall);
        let memory = &self.nodes[node].memory;
        let own = memory.book.current(&budget.id, wall);
        if own != Some(ledger) || turns.since(wall) < NEAR {
            return Right::Nowhere;
        }
        if budget.spec.reclaimable && !self.is_witnessed(&ledger, wall) {
            return Right::Nowhere;
        }
        let cost = match budget.spec.unit {
            // Each group may ask at the same moment, before the others have settled.
            unit @ (Unit::Tokens | Unit::Requests | Unit::MicroDollars) => {
                cost(unit).saturating_mul(self.accounts.len() as u64)
            }
            Unit::Concurrent => return self.right_to_run(node, budget, &ledger, wall),
            Unit::Rate => return Right::Nowhere,
        };
        let Some(holder) = memory.quota.as_ref().map(|quota| quota.holder()) else {
            return Right::Nowhere;
        };
        let granted = self.truth_book.grant(&ledger, &holder, wall);
        let held = self.books.ledgers.get(&ledger).and_then(|one| one.holders.get(&holder));
        let used = held.map_or(0, |held| held.hw + held.out.values().sum::<u64>());
        if granted < used.saturating_add(cost) { Right::Nowhere } else { Right::Here }
    }

    /// Whether a majority of those who keep the rows of a reclaimable budget can. One that left,
    /// died or was put out keeps none, nor does one whose disk was lost: under its new name it has
    /// signed for nothing until the next epoch. One whose clock was ahead has closed the windows in
    /// between and has a say in them no more. Without a majority rights stand still at every node,
    /// and must: whoever is missing may have stored what was spent (decision 0013).
    fn is_witnessed(&self, ledger: &LedgerKey, wall: Wall) -> bool {
        let keeps = |node: &usize| {
            let state = &self.nodes[*node];
            self.is_whole(*node) && state.acts() && !state.clock.was_wrong
        };
        let keepers = (0..self.nodes.len()).filter(keeps);
        let holder = |node: usize| self.nodes[node].memory.quota.as_ref().map(|one| one.holder());
        let keepers: BTreeSet<Holder> = keepers.filter_map(holder).collect();
        let voters = Voters::new(self.truth_book.voters(ledger, wall));
        voters.is_quorum(|voter| keepers.contains(voter))
    }

    /// Where a permit is free. A node has as many as it was granted and given, less what it gave,
    /// whoever the epoch names: one that gave its last away has none, however it was named.
    fn right_to_run(&self, node: usize, budget: &Budget, key: &LedgerKey, wall: Wall) -> Right {
        let Standing::Open(ledgers) = self.truth_book.standing(&budget.id, wall) else {
            return Right::Nowhere;
        };
        // Around a change of grants a permit needs more than one right, and of a lowered limit the
        // machines alone know who gives up what; nor is it clear who believes whom among liars.
        let settled = ledgers.also.iter().all(Option::is_none) && budget.limit == budget.spec.limit;
        if !settled || !self.liars.is_empty() {
            return Right::Nowhere;
        }
        let ledger = self.books.ledgers.get(key);
        if ledger.is_some_and(|one| one.forgotten > 0 || self.now.0.since(one.gave_at) < ON_THE_WAY)
        {
            return Right::Nowhere;
        }
        let whole = |one: &usize| self.is_whole(*one) && self.all_right(*one);
        let holder = |one: usize| self.nodes[one].memory.quota.as_ref().map(|quota| quota.holder());
        let all: Vec<usize> = (0..self.nodes.len()).filter(whole).collect();
        let live: BTreeSet<Holder> = all.iter().filter_map(|one| holder(*one)).collect();
        let free = |one: usize| {
            let Some(holder) = holder(one) else { return false };
            let granted = self.truth_book.grant(key, &holder, wall);
            let got = ledger.map_or(0, |ledger| ledger.gifts_of(&holder, &live));
            let held = ledger.and_then(|ledger| ledger.holders.get(&holder));
            let given = held.map_or(0, |held| held.out.values().sum::<u64>());
            let runs = self.passing.running_at(one, &budget.id);
            granted + got > given + runs
        };
        if free(node) {
            Right::Here
        } else if all.into_iter().any(free) {
            Right::Elsewhere
        } else {
            Right::Nowhere
        }
    }

    /// Those who had a right were served.
    pub(super) fn probes_served(&mut self) {
        for (node, request) in std::mem::take(&mut self.probes) {
            if !self.requests[request as usize].finished {
                let seen = format!("node {node} did not answer request {request}");
                self.broken(Invariant::LiveServes, seen);
            }
        }
        for (node, request) in std::mem::take(&mut self.again.second) {
            if self.requests[request as usize].finished {
                self.hit(Mark::PermitCame);
            } else {
                let seen = format!("node {node} did not answer request {request}");
                self.broken(Invariant::LivePermitsMove, seen);
            }
        }
    }
}
