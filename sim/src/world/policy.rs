//! Policies: what the operator signs, how it spreads, and who may call.

use std::sync::Arc;

use selvedge_base::{Micros, Wall};
use selvedge_core::quota::{QuotaInput, QuotaOptions};
use selvedge_crdt::escrow::Holder;
use selvedge_proto::policy::{
    AccountPath, BudgetTerms, CutOrder, Epoch, EpochDraft, Hardness, Level, OnExhausted, Period,
    PolicyBook, PolicyMessage, PolicySnapshot, Scope, Unit, sign_cut,
};

use super::quota::QUOTA_VERSION;
use super::{Load, World};
use crate::marks::Mark;
use crate::names::StandIn;
use crate::plan::{BudgetPlan, BudgetUnit, FaultKind, PerPeriod};
use crate::watch::{EventKind, QuotaOrigin};

/// When the operator signs the first budgets: every node has started and made its store.
pub(super) const SIGNED_AT: Micros = Micros::secs(1);
/// How often the latest time a node saw reaches its disk, as in production.
const LATEST_EVERY: Micros = Micros::secs(60);

impl World<'_> {
    /// A process starts with the budgets and policies of its disk.
    pub(super) fn boot_budgets(&mut self, node: usize) {
        if self.plan.workload.tenants.is_empty() || self.nodes[node].version < QUOTA_VERSION {
            return;
        }
        let id = self.id(node);
        let now = self.nodes[node].now(self.now.0);
        let options = QuotaOptions {
            rollback_guard: self.plan.options.rollback_guard,
            hold: self.plan.options.hold,
        };
        let stored = self.nodes[node].disk.stored.quota.clone();
        let dice = self.nodes[node].dice("quota");
        let seal = Arc::new(StandIn(id));
        let origin = QuotaOrigin { me: id, stored, seal, dice, options, now };
        if self.watch.wants_steps(node) {
            self.watch.quota_made(node, origin.clone());
        }
        let quota = origin.make();
        self.nodes[node].memory.quota = Some(Box::new(quota));
        if let Some(parts) = self.nodes[node].disk.stored.policy.clone() {
            let roster = &self.nodes[node].memory.roster;
            let snapshot = PolicySnapshot::of_parts(roster.mesh(), parts);
            if let Ok(book) = PolicyBook::from_snapshot(snapshot, roster, now.wall) {
                self.nodes[node].memory.book = book;
                self.hand_over_book(node);
            }
        }
        self.heed_roster(node);
        self.quota(node, QuotaInput::Ticked);
    }

    /// Tells the budgets who is a member, and the book who was put out and is not waited for.
    pub(super) fn heed_roster(&mut self, node: usize) {
        let wall = self.nodes[node].now(self.now.0).wall;
        let all = 0..self.nodes.len();
        let memory = &self.nodes[node].memory;
        let is_out = |peer: &usize| memory.roster.is_revoked(&self.names.id(*peer));
        let out = all.clone().filter(is_out).map(|peer| self.names.id(peer)).collect();
        let is_member = |peer: &usize| self.nodes[*peer].is_in && !is_out(peer);
        let nodes = all.filter(is_member).map(|peer| self.names.id(peer)).collect();
        if memory.quota.is_none() {
            return;
        }
        self.quota(node, QuotaInput::Introduced { nodes });
        let book = &mut self.nodes[node].memory.book;
        if !book.knows_out(&out) && book.put_out(&out, wall) {
            self.hand_over_book(node);
        }
    }

    /// The operator signs the plan's budgets, for the holders there are.
    pub(super) fn operate(&mut self) {
        let mut members: Vec<(Holder, u32)> = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let holder = node.memory.quota.as_ref().map(|quota| quota.holder());
            if let Some(holder) = holder
                && self.belongs(index)
                && !self.plan.options.newcomers.contains(&index)
            {
                members.push((holder, 1));
            }
        }
        if members.is_empty() {
            // Somebody must hold the rights: newcomers, when nobody else is of a build that can.
            let all = self.nodes.iter().filter_map(|node| node.memory.quota.as_ref());
            members.extend(all.map(|quota| (quota.holder(), 1)));
        }
        members.sort_unstable();
        self.holders = members.iter().map(|(holder, _)| *holder).collect();
        let Some(first) = (0..self.nodes.len()).find(|node| {
            let state = &self.nodes[*node];
            state.acts() && self.belongs(*node) && state.memory.quota.is_some()
        }) else {
            return;
        };
        let wall = self.nodes[first].now(self.now.0).wall;
        for draft in self.drafts(&members, wall) {
            let signed = self.sign(first, draft);
            debug_assert!(signed, "the first epoch of a tenant can be signed");
        }
        self.make_keys(first);
        self.policy_changed(first, true);
    }

    /// The drafts of the plan's tenants, with the budgets of all accounts below each.
    fn drafts(&self, members: &[(Holder, u32)], wall: Wall) -> Vec<EpochDraft> {
        let mut drafts: Vec<EpochDraft> = Vec::new();
        for plan in self.plan.workload.tenants.iter().filter(|plan| !plan.budgets.is_empty()) {
            let Ok(path) = plan.path.parse::<AccountPath>() else { continue };
            let root = path.tenant_path();
            let at = drafts.iter().position(|draft| draft.tenant == root).unwrap_or_else(|| {
                drafts.push(EpochDraft::first(root, members.to_vec(), wall));
                drafts.len() - 1
            });
            for budget in &plan.budgets {
                drafts[at].set(Level::of(path.clone()), terms(budget, budget.limit));
            }
        }
        drafts
    }

    /// The operator signs an epoch at a node, which must take it; so does the observer.
    fn sign(&mut self, node: usize, draft: EpochDraft) -> bool {
        let wall = self.nodes[node].now(self.now.0).wall;
        let memory = &mut self.nodes[node].memory;
        let signed = memory.book.sign_epoch(&self.names.root, &memory.roster, draft, wall);
        let Ok(signed) = signed else { return false };
        let mesh = memory.roster.mesh();
        for (level, spec) in signed.body.budgets() {
            let id = Epoch::budget_id(&mesh, level, spec);
            let tenants = &self.plan.workload.tenants;
            let tenant = tenants.iter().position(|one| one.path == level.account.as_str());
            let at = tenant.and_then(|tenant| {
                let budgets = &tenants[tenant].budgets;
                Some((tenant, budgets.iter().position(|one| one.name == spec.name)?))
            });
            self.places.extend(at.map(|at| (id, at)));
        }
        let known = self.truth_book.apply_epoch(signed, &memory.roster, wall);
        debug_assert!(known.is_ok(), "what a node takes, all do: {known:?}");
        self.show(EventKind::PolicyChanged, node, None, || "the operator signs budgets".to_owned());
        true
    }

    /// The operator chooses other limits for a tenant, from the node where the root key is: the
    /// first that is up.
    pub(super) fn relimit(&mut self, index: usize, tenant: usize, permille: u64) {
        let Some(plan) = self.plan.workload.tenants.get(tenant) else { return };
        let Ok(path) = plan.path.parse::<AccountPath>() else { return };
        let able = |node: &usize| {
            let node = &self.nodes[*node];
            node.acts() && node.memory.quota.is_some() && node.clock.is_right()
        };
        let Some(node) = (0..self.nodes.len()).find(able) else { return };
        let wall = self.nodes[node].now(self.now.0).wall;
        let Some(epoch) = self.nodes[node].memory.book.epoch(path.tenant()) else { return };
        let mut draft = EpochDraft::after(&epoch.body, wall);
        for budget in &plan.budgets {
            let limit = (budget.limit.saturating_mul(permille) / 1_000).max(1);
            draft.set(Level::of(path.clone()), terms(budget, limit));
        }
        if self.sign(node, draft) {
            self.fired(index);
            self.policy_changed(node, true);
        }
    }

    /// A node's policy is another now: its budgets follow, its disk keeps it, peers hear of it.
    pub(super) fn policy_changed(&mut self, node: usize, tell: bool) {
        let now = self.nodes[node].now(self.now.0);
        let latest = self.spent_until(node);
        let key = self.names.key(node).clone();
        let memory = &mut self.nodes[node].memory;
        if memory.book.adoption_due(now.wall) {
            memory.book.adopt(&key, now.wall, latest);
            self.hit(Mark::PolicyAdopted);
        }
        self.hand_over_book(node);
        let memory = &mut self.nodes[node].memory;
        if memory.book.tell_adopted(&key, now.wall, latest) {
            self.hand_over_book(node);
        }
        self.bar_callers(node);
        let revision = self.nodes[node].memory.book.revision();
        self.record("policy", [node, node], &revision.to_be_bytes());
        if tell {
            self.greet_all(node);
        }
    }

    /// The latest time a node may have spent at, as production knows it: what this process saw, and
    /// what its budgets made durable before they spent.
    fn spent_until(&mut self, node: usize) -> Wall {
        let wall = self.nodes[node].now(self.now.0).wall;
        let memory = &mut self.nodes[node].memory;
        memory.latest_wall = memory.latest_wall.max(wall);
        let budgets = memory.quota.as_ref().map_or(Wall(0), |quota| quota.latest());
        memory.latest_wall.max(budgets)
    }

    /// Stores a node's policy and gives it to its budgets.
    fn hand_over_book(&mut self, node: usize) {
        let book = self.nodes[node].memory.book.clone();
        self.nodes[node].disk.stored.policy = Some(book.parts().into_values().collect());
        self.quota(node, QuotaInput::PolicyChanged { book: Arc::new(book) });
    }

    fn greet_all(&mut self, node: usize) {
        let linked = |(_, link): &(usize, &crate::node::LinkEnd)| link.version >= QUOTA_VERSION;
        let links = self.nodes[node].memory.links.iter().enumerate();
        let peers: Vec<usize> = links.filter(linked).map(|(peer, _)| peer).collect();
        for peer in peers {
            self.greet(node, peer);
        }
    }

    /// Tells a peer which policy this node has.
    pub(super) fn greet(&mut self, node: usize, peer: usize) {
        let memory = &self.nodes[node].memory;
        if memory.quota.is_none()
            || memory.link(peer).is_none_or(|link| link.version < QUOTA_VERSION)
        {
            return;
        }
        let message = memory.book.greeting();
        self.send_reliable(node, peer, Load::Policy(Box::new(message)));
    }

    pub(super) fn policy_received(&mut self, node: usize, from: usize, message: &PolicyMessage) {
        if self.nodes[node].memory.quota.is_none() {
            return;
        }
        let now = self.nodes[node].now(self.now.0);
        let mut changed = false;
        if let PolicyMessage::Delta(delta) = message {
            let memory = &mut self.nodes[node].memory;
            let applied = memory.book.apply((**delta).clone(), &memory.roster, now.wall);
            self.truth_book.apply((**delta).clone(), &memory.roster, now.wall);
            self.heard_cuts(node, delta);
            changed = applied.policy;
        }
        let turn = self.nodes[node].memory.dice.next();
        let answer = self.nodes[node].memory.book.answer(message, turn);
        if let Some(answer) = answer {
            self.send_reliable(node, from, Load::Policy(Box::new(answer)));
        }
        if changed {
            self.policy_changed(node, self.plan.nodes <= super::LARGE);
        }
    }

    /// Once in a while a node forgets what no window needs and looks whether its word is due.
    pub(super) fn look_after_policy(&mut self, node: usize) {
        if self.nodes[node].memory.quota.is_none() || !self.nodes[node].acts() {
            return;
        }
        let wall = self.nodes[node].now(self.now.0).wall;
        let latest = self.nodes[node].memory.latest_wall.max(wall);
        self.nodes[node].memory.latest_wall = latest;
        if latest >= self.nodes[node].disk.stored.latest_wall.plus(LATEST_EVERY) {
            self.nodes[node].disk.stored.latest_wall = latest;
        }
        let book = &mut self.nodes[node].memory.book;
        if book.tick(wall) || book.adoption_due(wall) {
            self.policy_changed(node, false);
        }
    }

    /// A steward tightens: lowers all budgets of an account, or suspends it, at one node.
    pub(super) fn cut(&mut self, index: usize, kind: &FaultKind) {
        let (tenant, node, permille) = match kind {
            FaultKind::Lower { tenant, node, permille } => (*tenant, *node, Some(*permille)),
            FaultKind::Suspend { tenant, node } => (*tenant, *node, None),
            _ => return,
        };
        let Some(plan) = self.plan.workload.tenants.get(tenant) else { return };
        let Ok(account) = plan.path.parse::<AccountPath>() else { return };
        let able = self.nodes[node].acts() && self.nodes[node].clock.is_right();
        if !able || self.nodes[node].memory.quota.is_none() {
            return;
        }
        let wall = self.nodes[node].now(self.now.0).wall;
        let mesh = self.truth_book.mesh();
        let mut orders = Vec::new();
        match permille {
            None => orders.push(CutOrder::Account(account)),
            Some(permille) => orders.extend(plan.budgets.iter().map(|budget| CutOrder::Budget {
                level: Level::of(account.clone()),
                name: budget.name.clone(),
                limit: budget.limit / 1_000 * permille + budget.limit % 1_000 * permille / 1_000,
            })),
        }
        for order in orders {
            let Ok(notice) = sign_cut(&self.names.root, None, mesh, order, wall) else { continue };
            let memory = &mut self.nodes[node].memory;
            if memory.book.apply_cut(notice, &memory.roster, wall).is_ok() {
                self.hit(Mark::LimitLowered);
                self.fired(index);
            }
        }
        self.show(EventKind::PolicyChanged, node, None, || kind.as_str().to_owned());
        self.policy_changed(node, true);
    }
}

fn terms(plan: &BudgetPlan, limit: u64) -> BudgetTerms {
    BudgetTerms {
        name: plan.name.clone(),
        unit: match plan.unit {
            BudgetUnit::Tokens => Unit::Tokens,
            BudgetUnit::Requests => Unit::Requests,
            BudgetUnit::Concurrent => Unit::Concurrent,
            BudgetUnit::Rate => Unit::Rate,
            BudgetUnit::MicroDollars => Unit::MicroDollars,
        },
        period: match plan.per {
            PerPeriod::Minute => Period::Minute,
            PerPeriod::Hour => Period::Hour,
            PerPeriod::Day => Period::Day,
            PerPeriod::Month => Period::Month,
        },
        limit,
        hardness: plan.elastic.map_or(Hardness::Hard, |block| Hardness::Elastic { block }),
        on_exhausted: match &plan.downgrade {
            None if plan.local_only => OnExhausted::LocalOnly,
            None => OnExhausted::Refuse,
            Some(model) => OnExhausted::Downgrade(model.clone()),
        },
        scope: match plan.models.is_empty() {
            true => Scope::All,
            false => Scope::Models(plan.models.clone()),
        },
        sub_windows: plan.sub_windows,
        reclaimable: plan.reclaimable,
    }
}
