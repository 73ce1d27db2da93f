//! Policies: what the operator signs, how it spreads, and who may call.

use std::sync::Arc;

use selvedge_base::{Blame, Code, Micros, Refusal, Retry, Stage, Wall};
use selvedge_core::FlowInput;
use selvedge_core::quota::{QuotaInput, QuotaOptions};
use selvedge_crdt::escrow::Holder;
use selvedge_proto::policy::{
    AccountPath, BudgetSpec, Cut, CutOrder, Epoch, GrantNotice, Hardness, Level, OnExhausted,
    Period, PolicyBook, PolicyMessage, Scope, Unit,
};
use selvedge_proto::records::Signed;

use super::quota::QUOTA_VERSION;
use super::{Load, World};
use crate::marks::Mark;
use crate::names::StandIn;
use crate::plan::{BudgetPlan, BudgetUnit, FaultKind, PerPeriod};
use crate::watch::{EventKind, QuotaOrigin};

/// When the operator signs the first budgets: every node has started and made its store.
pub(super) const SIGNED_AT: Micros = Micros::secs(1);
/// How long a policy lasts: production's default.
const VALIDITY: Micros = Micros::secs(7 * 24 * 3_600);

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
        if let Some(snapshot) = self.nodes[node].disk.stored.policy.clone() {
            let roster = &self.nodes[node].memory.roster;
            if let Ok(book) = PolicyBook::from_snapshot(snapshot, roster, now.wall) {
                self.nodes[node].memory.book = book;
                self.hand_over_book(node);
            }
        }
        self.quota(node, QuotaInput::Ticked);
    }

    /// The operator signs the plan's budgets, for the holders there are.
    pub(super) fn operate(&mut self) {
        let mut members: Vec<(Holder, u32)> = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let holder = node.memory.quota.as_ref().map(|quota| quota.holder());
            if let Some(holder) = holder
                && !self.plan.options.newcomers.contains(&index)
            {
                members.push((holder, 1));
            }
        }
        members.sort_unstable();
        self.holders = members.iter().map(|(holder, _)| *holder).collect();
        let Some(first) = (0..self.nodes.len())
            .find(|node| self.nodes[*node].acts() && self.nodes[*node].memory.quota.is_some())
        else {
            return;
        };
        let wall = self.nodes[first].now(self.now.0).wall;
        for epoch in self.epochs(members, wall) {
            self.take_epoch(first, epoch);
        }
        self.policy_changed(first, true);
    }

    fn take_epoch(&mut self, node: usize, epoch: Signed<Epoch>) {
        let wall = self.nodes[node].now(self.now.0).wall;
        let memory = &mut self.nodes[node].memory;
        let truth = self.truth_book.apply_epoch(epoch.clone(), &memory.roster, wall);
        let taken = memory.book.apply_epoch(epoch, &memory.roster, wall);
        debug_assert!(truth.is_ok() && taken.is_ok(), "the operator signs well: {taken:?}");
        let text = || "the operator signs budgets".to_owned();
        self.show(EventKind::PolicyChanged, node, None, text);
    }

    /// One epoch per tenant, with the budgets of all accounts below it.
    fn epochs(&mut self, members: Vec<(Holder, u32)>, wall: Wall) -> Vec<Signed<Epoch>> {
        let mesh = self.truth_book.mesh();
        let mut epochs: Vec<Epoch> = Vec::new();
        for (tenant, plan) in self.plan.workload.tenants.iter().enumerate() {
            let Ok(path) = plan.path.parse::<AccountPath>() else { continue };
            let level = Level::of(path.clone());
            let specs: Vec<BudgetSpec> = plan.budgets.iter().map(|one| spec(one, wall)).collect();
            for (at, spec) in specs.iter().enumerate() {
                let id = Epoch::budget_id(&mesh, &level, spec);
                self.places.insert(id, (tenant, at));
            }
            let root = path.tenant_path();
            let at = match epochs.iter().position(|epoch| epoch.tenant == root) {
                Some(at) => at,
                None => {
                    epochs.push(first_epoch(mesh, root, &members, wall));
                    epochs.len() - 1
                }
            };
            if !specs.is_empty() {
                epochs[at].accounts.push((level, specs));
            }
        }
        let seal = |mut epoch: Epoch| {
            epoch.accounts.sort_by(|one, other| one.0.cmp(&other.0));
            Signed::seal(epoch, &self.names.root)
        };
        epochs.into_iter().filter(|epoch| !epoch.accounts.is_empty()).map(seal).collect()
    }

    /// A node's policy is another now: its budgets follow, its disk keeps it, peers hear of it.
    pub(super) fn policy_changed(&mut self, node: usize, tell: bool) {
        let now = self.nodes[node].now(self.now.0);
        let latest = self.nodes[node].disk.stored.latest_wall;
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
        let revision = self.nodes[node].memory.book.revision();
        self.record("policy", [node, node], &revision.to_be_bytes());
        if tell {
            self.greet_all(node);
        }
    }

    /// Stores a node's policy and gives it to its budgets.
    fn hand_over_book(&mut self, node: usize) {
        let book = self.nodes[node].memory.book.clone();
        self.nodes[node].disk.stored.policy = Some(book.snapshot());
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
        let book = &mut self.nodes[node].memory.book;
        if book.tick(wall) || book.adoption_due(wall) {
            self.policy_changed(node, false);
        }
    }

    /// Whether the node knows the caller: what it has no policy for was never given a key there.
    pub(super) fn may_call(&mut self, node: usize, request: u64) -> bool {
        let group = self.requests[request as usize].group;
        let Some(account) = self.accounts[group].clone() else { return true };
        if self.nodes[node].memory.quota.is_none() {
            return true;
        }
        let book = &self.nodes[node].memory.book;
        let known = !self.tenants.contains(&account.tenant_path())
            || book.epoch(account.tenant()).is_some();
        if known && book.suspended(&account).is_none() {
            return true;
        }
        self.hit(Mark::KeyRefused);
        let message = "this node knows no such account";
        let code = Code::Unauthorized;
        let refusal = Refusal::new(Stage::Authenticate, Blame::Client, Retry::Never, code, message);
        self.tally.refused += 1;
        self.tally.failed = self.tally.failed.saturating_sub(1);
        self.flow(node, request, FlowInput::NotReserved(refusal));
        false
    }

    /// A steward tightens: lowers all budgets of an account, or suspends it, at one node.
    pub(super) fn cut(&mut self, index: usize, kind: &FaultKind) {
        let (tenant, node, permille) = match kind {
            FaultKind::Lower { tenant, node, permille } => (*tenant, *node, Some(*permille)),
            FaultKind::RevokeKey { tenant, node } => (*tenant, *node, None),
            _ => return,
        };
        let Some(plan) = self.plan.workload.tenants.get(tenant) else { return };
        let Ok(account) = plan.path.parse::<AccountPath>() else { return };
        if !self.nodes[node].acts() || self.nodes[node].memory.quota.is_none() {
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
            let signed = Signed::seal(Cut { mesh, order, at: wall }, &self.names.root);
            let notice = GrantNotice { signed, steward: None };
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

fn first_epoch(
    mesh: selvedge_base::MeshId,
    tenant: AccountPath,
    members: &[(Holder, u32)],
    wall: Wall,
) -> Epoch {
    Epoch {
        mesh,
        tenant,
        number: 1,
        prev: [0; 32],
        prev_until: Wall(0),
        prev_since: Wall(0),
        generation: 0,
        issued: wall,
        from: wall,
        until: wall.plus(VALIDITY),
        members: members.to_vec(),
        accounts: Vec::new(),
    }
}

fn spec(plan: &BudgetPlan, set: Wall) -> BudgetSpec {
    BudgetSpec {
        name: plan.name.clone(),
        unit: match plan.unit {
            BudgetUnit::Tokens => Unit::Tokens,
            BudgetUnit::Requests => Unit::Requests,
            BudgetUnit::Concurrent => Unit::Concurrent,
            BudgetUnit::Rate => Unit::Rate,
        },
        period: match plan.per {
            PerPeriod::Minute => Period::Minute,
            PerPeriod::Hour => Period::Hour,
            PerPeriod::Day => Period::Day,
            PerPeriod::Month => Period::Month,
        },
        limit: plan.limit,
        hardness: plan.elastic.map_or(Hardness::Hard, |block| Hardness::Elastic { block }),
        on_exhausted: OnExhausted::Refuse,
        scope: Scope::All,
        sub_windows: plan.sub_windows,
        reclaimable: false,
        born: 1,
        ledger: 1,
        set,
    }
}
