//! Budgets at each node: the production machine, its disk, and the observer's own accounts.

use std::collections::BTreeMap;

use selvedge_base::{Machine, Micros, Mono, Refusal, RequestId};
use selvedge_core::FlowInput;
use selvedge_core::quota::{
    Charge, CostClass, QuotaEffect, QuotaEvent, QuotaInput, QuotaMessage, Verdict, WitnessMessage,
};
use selvedge_crdt::escrow::{BudgetId, Holder, LedgerKey, RowRefused};
use selvedge_proto::policy::Unit;

use super::{Load, Own, World};
use crate::disk::Written;
use crate::engine::Model;
use crate::invariant::Invariant;
use crate::ledger::Ledger;
use crate::marks::Mark;
use crate::watch::{EventKind, Standing};

/// The wire version that brought budgets.
pub(super) const QUOTA_VERSION: u8 = 2;
/// What a lease lasts beyond its request's deadline: settlement is never far behind.
const LEASE_SLACK: Micros = Micros::secs(5);

/// What the observer believes a request draws from: per budget, in the order of reserving.
#[derive(Debug, Default)]
pub(crate) struct Drawn {
    /// Ledger, unit, amount reserved.
    shares: Vec<(LedgerKey, Unit, u64)>,
    holder: Option<Holder>,
    /// The windows in which the request was asked; compared with those in which it was granted.
    asked: BTreeMap<BudgetId, u64>,
    /// The window turned while it was asked for: nobody outside knows which one pays.
    is_vague: bool,
    /// When the request asked.
    asked_at: Mono,
    /// It waits, or waited, for rights of peers.
    pub(super) held: bool,
    /// More, asked for and not answered.
    more: Option<u64>,
}

impl Drawn {
    /// The same, as the ledgers name them.
    fn budget_ids(&self) -> Vec<BudgetId> {
        let all: std::collections::BTreeSet<_> =
            self.shares.iter().map(|(key, _, _)| key.budget).collect();
        all.into_iter().collect()
    }

    /// Notes the windows in which it was asked for.
    pub(super) fn asked_in(&mut self, windows: BTreeMap<BudgetId, u64>) {
        self.asked = windows;
    }

    /// The budgets of the request, each once.
    pub(super) fn budgets(&self) -> Vec<[u8; 16]> {
        let all: std::collections::BTreeSet<_> =
            self.shares.iter().map(|(key, _, _)| key.budget.0).collect();
        all.into_iter().collect()
    }
}

impl World<'_> {
    /// Gives a node's budgets a fact and carries out the orders, one after the other.
    pub(super) fn quota(&mut self, node: usize, input: QuotaInput) {
        let memory = &mut self.nodes[node].memory;
        memory.quota_inbox.push_back(input);
        if std::mem::replace(&mut memory.quota_busy, true) {
            return;
        }
        let mut effects = Vec::new();
        loop {
            let now = self.nodes[node].now(self.now.0);
            let memory = &mut self.nodes[node].memory;
            let Some(quota) = memory.quota.as_mut() else {
                memory.quota_inbox.clear();
                break;
            };
            let Some(input) = memory.quota_inbox.pop_front() else { break };
            let kept = self.watch.wants_steps(node).then(|| input.clone());
            quota.step(now, input, &mut effects);
            if let Some(input) = kept {
                self.watch.quota_stepped(node, now, input, &effects);
            }
            for effect in effects.drain(..) {
                self.quota_effect(node, effect);
            }
        }
        let memory = &mut self.nodes[node].memory;
        memory.quota_busy = false;
        let wanted = memory.quota.as_ref().and_then(|quota| quota.wake_at());
        if let Some(at) = wanted.map(|at| at.max(self.now.0))
            && memory.quota_tick_at.is_none_or(|known| at < known || known <= self.now.0)
        {
            memory.quota_tick_at = Some(at);
            self.later(node, at, Own::QuotaTick);
        }
    }

    pub(super) fn quota_ticked(&mut self, node: usize) {
        let memory = &mut self.nodes[node].memory;
        if memory.quota_tick_at.is_some_and(|at| at <= self.now.0) {
            memory.quota_tick_at = None;
            self.quota(node, QuotaInput::Ticked);
        }
    }

    fn quota_effect(&mut self, node: usize, effect: QuotaEffect) {
        match effect {
            QuotaEffect::Persist { ticket, write } => {
                self.record("persist", [node, node], &ticket.to_be_bytes());
                let now = self.now.0;
                match self.nodes[node].disk.write(now, ticket, write) {
                    Written::At(at) => self.later(node, at, Own::Persisted { ticket }),
                    Written::FailsAt(at, _) => {
                        self.later(node, at, Own::PersistFailed { ticket });
                    }
                }
            }
            QuotaEffect::Send { to, message } => {
                let to = self.names.index(&to);
                self.send_quota(node, to, message);
            }
            QuotaEffect::Answer { id, verdict } => self.verdict(node, id, verdict),
            QuotaEffect::Report(event) => self.reported(node, &event),
        }
    }

    fn send_quota(&mut self, node: usize, to: usize, message: QuotaMessage) {
        let Some(link) = self.nodes[node].memory.link(to) else { return };
        if link.version < QUOTA_VERSION {
            let seen = format!("node {node} tells {to} of rights over version {}", link.version);
            self.broken(Invariant::StateVersionsAgree, seen);
            return;
        }
        if let QuotaMessage::Rows(rows) = &message {
            let holder = self.nodes[node].memory.quota.as_ref().map(|quota| quota.holder());
            self.nodes[node].disk.settle(self.now.0);
            let stored = &self.nodes[node].disk.stored.quota;
            let ahead = rows.iter().map(|signed| &signed.row).find(|row| {
                let known = stored.rows.get(&(row.key, row.holder)).map(|known| known.row.seq);
                let kept = stored.kept.get(&(row.key, row.holder));
                let kept = kept.and_then(|kept| kept.accepted.as_ref()).map(|one| one.row.seq);
                Some(row.holder) == holder && known.max(kept) < Some(row.seq)
            });
            if let Some(row) = ahead {
                let seen = format!("node {node} sends {row:?} before it is durable");
                self.broken(Invariant::StoreBeforeSend, seen);
            }
        }
        if let QuotaMessage::Witness(said) = &message
            && !self.has_kept(node, said)
        {
            let seen = format!("node {node} says {said:?} before it is durable");
            self.broken(Invariant::StoreBeforeSend, seen);
        }
        self.send_reliable(node, to, Load::Quota(Box::new(message)));
    }

    /// A peer says something of rights. As in production only so many of its rows are checked, and
    /// those that are not signed never reach the machine.
    pub(super) fn quota_received(&mut self, node: usize, from: usize, mut message: QuotaMessage) {
        if let QuotaMessage::Rows(rows) = &message {
            self.counters.quota_rows += rows.len() as u64;
        }
        if let QuotaMessage::Vouched { key, .. } = &message {
            self.was_vouched(node, from, key.budget);
        }
        let (now, from) = (self.now.0, self.id(from));
        let memory = &mut self.nodes[node].memory;
        let Some(quota) = memory.quota.as_ref().filter(|_| message.is_within_bounds()) else {
            return;
        };
        if let QuotaMessage::Rows(rows) | QuotaMessage::Recalled { rows, .. } = &mut message {
            let news = rows.iter().filter(|row| quota.may_be_news(row)).count();
            if !memory.intake.admit(now, from, news) {
                return self.hit(Mark::FloodUnread);
            }
            let seal = quota.seal();
            let mut bad = None;
            rows.retain(|signed| {
                let good = !quota.may_be_news(signed) || signed.is_signed(&*seal);
                if !good {
                    bad = Some(signed.row.holder.node);
                }
                good
            });
            if let Some(holder) = bad {
                let why = RowRefused::Signature(holder);
                self.reported(node, &QuotaEvent::RowRefused { from, why });
            }
        }
        self.quota(node, QuotaInput::Received { from, message });
    }

    pub(super) fn persisted(&mut self, node: usize, ticket: u64) {
        self.stored(node);
        self.record("durable", [node, node], &ticket.to_be_bytes());
        self.quota(node, QuotaInput::Persisted { ticket });
    }

    pub(super) fn persist_failed(&mut self, node: usize, ticket: u64) {
        self.hit(Mark::WriteFailed);
        self.show(EventKind::StoreFailed, node, None, || "a write failed".to_owned());
        let why = "the simulated disk refuses".to_owned();
        self.quota(node, QuotaInput::PersistFailed { ticket, why });
    }

    /// Takes note of what became durable at a node.
    pub(super) fn stored(&mut self, node: usize) {
        self.nodes[node].disk.settle(self.now.0);
        let own = std::mem::take(&mut self.nodes[node].disk.fresh);
        let me = self.id(node);
        for (key, holder) in own {
            if holder.node != me {
                continue;
            }
            let Some(stored) = self.nodes[node].disk.stored.quota.rows.get(&(key, holder)) else {
                continue;
            };
            let row = stored.row.clone();
            self.open_ledger(key);
            let granted = self.truth_book.ceiling(&key, &holder).unwrap_or(0);
            if let Err((invariant, seen)) = self.books.stored(&row, granted) {
                self.broken(invariant, format!("node {node} {key:?}: {seen}"));
            }
            self.tell_standing(node, key, holder);
        }
        self.witnessed(node);
    }

    /// Takes note of the rows a node's disk has as their witness.
    fn witnessed(&mut self, node: usize) {
        let rows = std::mem::take(&mut self.nodes[node].disk.witnessed);
        let stored = &self.nodes[node].disk.stored.quota.header;
        let incarnation = stored.as_ref().map_or(0, |header| header.incarnation);
        let by = Holder { node: self.id(node), incarnation };
        for row in rows {
            self.open_ledger(row.key);
            let granted = self.truth_book.ceiling(&row.key, &row.holder).unwrap_or(0);
            let found = self.books.witnessed(&row, by, &self.holders, granted);
            if let Err((invariant, seen)) = found {
                self.broken(invariant, format!("node {node} {:?}: {seen}", row.key));
            }
            self.tell_standing(node, row.key, row.holder);
        }
    }

    /// Whether a disk has what a node says of a row it keeps.
    fn has_kept(&mut self, node: usize, said: &WitnessMessage) -> bool {
        self.nodes[node].disk.settle(self.now.0);
        let kept = self.nodes[node].disk.stored.quota.kept.get(&said.about());
        let promised = kept.and_then(|kept| kept.promised);
        let turn = kept.and_then(|kept| kept.turn());
        match said {
            WitnessMessage::Prepare { ballot, .. } | WitnessMessage::Promise { ballot, .. } => {
                promised >= Some(*ballot)
            }
            WitnessMessage::Propose(signed) => {
                promised > signed.row.ballot || turn >= Some(signed.row.turn())
            }
            WitnessMessage::Vote { ballot, seq, .. } => {
                promised > *ballot || turn >= Some((*ballot, *seq))
            }
            // That a promise cannot be given needs no disk.
            WitnessMessage::Behind { .. } => true,
        }
    }

    /// The observer opens an account of a ledger it sees for the first time.
    pub(super) fn open_ledger(&mut self, key: LedgerKey) {
        let Some(budget) = self.truth_book.budget(&key.budget) else { return };
        if self.books.ledgers.contains_key(&key) {
            return;
        }
        let Some(place) = self.places.get(&key.budget).copied() else { return };
        let holders = self.holders.clone();
        let limit = holders.iter().filter_map(|one| self.truth_book.ceiling(&key, one)).sum();
        let elastic = match budget.spec.hardness {
            selvedge_proto::policy::Hardness::Hard => 0,
            selvedge_proto::policy::Hardness::Elastic { block } => block,
        };
        if self.books.ledgers.keys().any(|known| known.budget == key.budget) {
            self.hit(Mark::WindowTurned);
        }
        let ledger = Ledger { place, limit, elastic, ..Ledger::default() };
        self.books.ledgers.insert(key, ledger);
    }

    fn tell_standing(&mut self, node: usize, key: LedgerKey, holder: Holder) {
        if !self.watch.wants_events() {
            return;
        }
        let Some(ledger) = self.books.ledgers.get(&key) else { return };
        let Some(held) = ledger.holders.get(&holder) else { return };
        let given: u64 = held.out.values().sum();
        let standing = Standing {
            at: self.now.0,
            node,
            budget: self.budget_number(ledger.place),
            window: key.window,
            ceiling: (held.granted + ledger.gifts(&holder)).saturating_sub(given),
            hw: held.hw,
            spent: held.spent,
        };
        self.watch.standing(standing);
    }

    /// A budget's number among all of the plan.
    pub(super) fn budget_number(&self, (tenant, budget): (usize, usize)) -> usize {
        let before = self.plan.workload.tenants.iter().take(tenant);
        before.map(|tenant| tenant.budgets.len()).sum::<usize>() + budget
    }

    /// A client's request asks for what it may take at most.
    pub(super) fn reserve(&mut self, node: usize, request: u64) {
        if self.nodes[node].memory.quota.is_none() {
            return self.granted(node, request);
        }
        let group = self.requests[request as usize].group;
        let Some(account) = self.accounts[group].clone() else {
            return self.granted(node, request);
        };
        let key = self.requests[request as usize].key;
        let asked = self.windows_of(node, request);
        self.nodes[node].memory.asking = Some(request);
        self.requests[request as usize].unpaid = true;
        let memory = &mut self.nodes[node].memory;
        let Some(taken) = memory.taken.get_mut(&request) else { return };
        taken.drawn.asked = asked;
        taken.drawn.asked_at = self.now.0;
        let worst = charge(Model::Loom, taken.meter.reserved(), 1);
        let deadline = self.requests[request as usize].deadline_at.since(self.now.0);
        let id = RequestId(u128::from(request));
        let lease = deadline.plus(LEASE_SLACK);
        self.quota(node, QuotaInput::Asked { id, account, key, worst, lease });
        self.nodes[node].memory.asking = None;
    }

    /// The budgets of a request, each with its window now.
    pub(super) fn windows_of(&self, node: usize, request: u64) -> BTreeMap<BudgetId, u64> {
        let truth = &self.requests[request as usize];
        let Some(account) = &self.accounts[truth.group] else { return BTreeMap::new() };
        let wall = self.nodes[node].now(self.now.0).wall;
        let book = &self.nodes[node].memory.book;
        let asked = book.budgets_of(account, truth.key.as_ref());
        let window = |id: &BudgetId| book.current(id, wall).map(|key| key.window);
        asked.iter().filter_map(|one| Some((one.id, window(&one.id)?))).collect()
    }

    fn verdict(&mut self, node: usize, id: RequestId, verdict: Verdict) {
        let request = id.0 as u64;
        if self.paid_verdict(node, request, &verdict) {
            return;
        }
        match verdict {
            Verdict::Granted { budgets, downgrade, .. } => {
                self.record("granted", [node, node], &request.to_be_bytes());
                self.drew(node, request, &budgets);
                let asked_at = self.asked_at(node, request);
                self.passed(node, request, &budgets, asked_at);
                if self.nodes[node].memory.taken.contains_key(&request) {
                    self.downgraded(node, request, downgrade.as_deref());
                    self.granted(node, request);
                } else {
                    // The caller left while rights were on their way.
                    self.passing.ended(node, request);
                    self.quota(node, QuotaInput::Settled { id, actual: charge(Model::Loom, 0, 0) });
                }
            }
            Verdict::Extended => {
                self.hit(Mark::ReservationExtended);
                if let Some(taken) = self.nodes[node].memory.taken.get_mut(&request) {
                    taken.meter.extended();
                }
                self.drew_more(node, request);
                self.go_on_answering(node, request);
            }
            Verdict::Refused(refusal) => {
                self.record("refused", [node, node], &request.to_be_bytes());
                if let Some(blocked) = &refusal.budget {
                    self.hit(Mark::BudgetRefused);
                    self.note_refusal(node, blocked.id);
                    self.stopped_short(node, blocked.id);
                }
                let Some(taken) = self.nodes[node].memory.taken.get(&request) else { return };
                let was_granted = taken.granted;
                let refusal = refusal.to_refusal();
                if was_granted {
                    self.no_more(node, request, refusal);
                } else {
                    // Elsewhere there may be an answer.
                    if !self.nodes[node].memory.relays.contains_key(&request) {
                        self.tally.refused += 1;
                        self.tally.failed = self.tally.failed.saturating_sub(1);
                    }
                    let text = refusal.message.clone();
                    self.flow(node, request, FlowInput::NotReserved(refusal));
                    let who = (node, None);
                    self.show_request(EventKind::RequestRefused, who, (request, None), || text);
                }
            }
        }
    }

    /// A budget that had nothing left gave another model instead.
    fn downgraded(&mut self, node: usize, request: u64, to: Option<&str>) {
        let Some(to) = to else { return };
        if let (Some(model), Some(taken)) =
            (Model::named(to), self.nodes[node].memory.taken.get_mut(&request))
        {
            taken.flow.downgraded(to);
            self.requests[request as usize].model = model;
            self.hit(Mark::Downgraded);
        }
    }

    /// No more will be reserved: what there is may still be used; what was taken back ends at once.
    fn no_more(&mut self, node: usize, request: u64, refusal: Refusal) {
        let Some(taken) = self.nodes[node].memory.taken.get_mut(&request) else { return };
        let asked = taken.drawn.more.take().is_some();
        if asked && !taken.meter.is_used_up() {
            taken.refused = Some(refusal);
            return self.go_on_answering(node, request);
        }
        self.hit(Mark::ExtensionRefused);
        self.flow(node, request, FlowInput::QuotaEnded(refusal));
    }

    /// The budgets gave their word: answers that waited for it go on.
    fn go_on_answering(&mut self, node: usize, request: u64) {
        let Some(taken) = self.nodes[node].memory.taken.get_mut(&request) else { return };
        taken.waits = false;
        let held = std::mem::take(&mut taken.held);
        for input in held {
            self.flow(node, request, input);
        }
    }

    /// Everything reserved is used: the answer waits for more, or ends.
    pub(super) fn wait_if_used_up(&mut self, node: usize, request: u64) {
        let Some(taken) = self.nodes[node].memory.taken.get_mut(&request) else { return };
        if taken.granted && taken.meter.used() > taken.meter.reserved() {
            let seen = format!("request {request} at node {node}: {:?}", taken.meter);
            return self.broken(Invariant::QuotaServedWithinReserved, seen);
        }
        if !taken.meter.is_used_up() {
            return;
        }
        if taken.drawn.more.is_some() {
            taken.waits = true;
        } else if let Some(refusal) = taken.refused.take() {
            self.hit(Mark::ExtensionRefused);
            self.flow(node, request, FlowInput::QuotaEnded(refusal));
        }
    }

    /// When a request asked its budgets; for ever ago when nobody knows.
    fn asked_at(&self, node: usize, request: u64) -> Mono {
        let taken = self.nodes[node].memory.taken.get(&request);
        taken.map_or(Mono(0), |taken| taken.drawn.asked_at)
    }

    pub(super) fn note_refusal(&mut self, node: usize, budget: BudgetId) {
        let wall = self.nodes[node].now(self.now.0).wall;
        let key = self.nodes[node].memory.book.current(&budget, wall);
        if let Some(ledger) = key.and_then(|key| self.books.ledgers.get_mut(&key)) {
            ledger.refused += 1;
        }
    }

    /// A request was granted: the observer notes which ledgers pay.
    pub(super) fn drew(&mut self, node: usize, request: u64, budgets: &[BudgetId]) {
        let wall = self.nodes[node].now(self.now.0).wall;
        // Windows only move forward: a node that was ever ahead goes on from there.
        let was_wrong = self.nodes[node].clock.was_wrong;
        let memory = &mut self.nodes[node].memory;
        let holder = memory.quota.as_ref().map(|quota| quota.holder());
        let mut keys = Vec::new();
        for id in budgets {
            if let (Some(key), Some(budget)) =
                (memory.book.current(id, wall), memory.book.budget(id))
            {
                keys.push((key, budget.spec.unit));
            }
        }
        let relayed = memory.relays.get_mut(&request).and_then(|one| one.errand.as_deref_mut());
        let (worst, drawn) = match (relayed, memory.taken.get_mut(&request)) {
            (Some(errand), _) => (errand.worst(), &mut errand.drawn),
            (None, Some(taken)) => {
                (charge(Model::Loom, taken.meter.reserved(), 1), &mut taken.drawn)
            }
            (None, None) => return,
        };
        drawn.is_vague |= was_wrong;
        drawn.holder = holder;
        if drawn.held {
            self.marks.hit(Mark::HeldThenGranted);
        }
        drawn.is_vague |= keys.len() != budgets.len();
        for (key, unit) in &keys {
            drawn.is_vague |= drawn.asked.get(&key.budget) != Some(&key.window);
            drawn.shares.push((*key, *unit, worst.cost(*unit)));
        }
        for (key, _) in keys {
            self.open_ledger(key);
        }
    }

    fn drew_more(&mut self, node: usize, request: u64) {
        let wall = self.nodes[node].now(self.now.0).wall;
        let memory = &mut self.nodes[node].memory;
        let Some(taken) = memory.taken.get_mut(&request) else { return };
        let Some(more) = taken.drawn.more.take() else { return };
        let budgets: Vec<(BudgetId, Unit)> =
            taken.drawn.shares.iter().map(|(key, unit, _)| (key.budget, *unit)).collect();
        let mut seen = std::collections::BTreeSet::new();
        for (id, unit) in budgets.into_iter().filter(|(id, _)| seen.insert(*id)) {
            match memory.book.current(&id, wall) {
                Some(key) => {
                    taken.drawn.shares.push((key, unit, charge(Model::Loom, more, 0).cost(unit)));
                }
                None => taken.drawn.is_vague = true,
            }
        }
        // Which window an extension near a turn draws on is the machine's to know.
        taken.drawn.is_vague = true;
    }

    /// A request's meter moved; more may have to be asked for.
    pub(super) fn metered(
        &mut self,
        node: usize,
        request: u64,
        note: impl FnOnce(&mut selvedge_core::meter::Meter) -> Option<u64>,
    ) {
        let memory = &mut self.nodes[node].memory;
        let Some(taken) = memory.taken.get_mut(&request) else { return };
        let Some(more) = note(&mut taken.meter) else { return };
        let id = RequestId(u128::from(request));
        if taken.drawn.shares.is_empty() && memory.quota.is_none() {
            taken.meter.extended();
            return;
        }
        taken.drawn.more = Some(more);
        self.quota(
            node,
            QuotaInput::Extended {
                id,
                more: charge(self.requests[request as usize].model, more, 0),
            },
        );
    }

    /// A request is over at its node: what it really took is settled, once.
    pub(super) fn settle(&mut self, node: usize, request: u64) {
        let Some(taken) = self.nodes[node].memory.taken.get_mut(&request) else { return };
        let begun = taken.meter.has_begun();
        let model = self.requests[request as usize].model;
        let actual = charge(model, taken.meter.used(), u64::from(begun));
        let was_granted = taken.granted;
        let drawn = std::mem::take(&mut taken.drawn);
        self.settling_is(&drawn);
        if was_granted {
            self.served(node, &drawn, &actual);
        }
        self.charge_in_full(node, request, actual);
    }

    /// What is settled next draws from these.
    pub(super) fn settling_is(&mut self, drawn: &Drawn) {
        (self.settling, self.settling_as) = (drawn.budget_ids(), drawn.holder);
    }

    /// Settles, and sees whether the books of each budget grew by what was taken.
    pub(super) fn charge_in_full(&mut self, node: usize, request: u64, actual: Charge) {
        let id = RequestId(u128::from(request));
        let Some(quota) = self.nodes[node].memory.quota.as_ref() else { return };
        let counted =
            |unit: Unit| matches!(unit, Unit::Tokens | Unit::Requests | Unit::MicroDollars);
        // In the middle of a step it is heard only when the step is over.
        let busy = self.nodes[node].memory.quota_busy;
        let mut before: BTreeMap<BudgetId, (Unit, u64, usize)> = BTreeMap::new();
        let audits = quota.audit();
        // Whose disk went back goes on under another name: what the old one began is over.
        let same = self.settling_as == Some(quota.holder());
        if same && !busy && quota.is_active(&id) {
            for budget in std::mem::take(&mut self.settling) {
                let mut of = audits.iter().filter(|audit| audit.key.budget == budget);
                if let Some(audit) = of.next().filter(|audit| counted(audit.unit)) {
                    before.insert(budget, (audit.unit, quota.charged(&budget), 1 + of.count()));
                }
            }
        }
        self.passing.ended(node, request);
        self.quota(node, QuotaInput::Settled { id, actual: actual.clone() });
        let Some(quota) = self.nodes[node].memory.quota.as_ref() else { return };
        let audits = quota.audit();
        let mut wrong = None;
        for (budget, (unit, was, windows)) in before {
            let open = audits.iter().filter(|audit| audit.key.budget == budget).count();
            let (is, cost) = (quota.charged(&budget), actual.cost(unit));
            if open == windows && is != was + cost {
                wrong = Some(format!("request {request} at node {node}: {was} + {cost} is {is}"));
            }
        }
        if let Some(seen) = wrong {
            self.broken(Invariant::QuotaChargedInFull, seen);
        }
    }

    /// The observer's accounts: what a request really took, from the ledgers that it drew on.
    pub(super) fn served(&mut self, node: usize, drawn: &Drawn, actual: &Charge) {
        let Some(holder) = drawn.holder else { return };
        self.stored(node);
        let mut left: BTreeMap<BudgetId, u64> = BTreeMap::new();
        for (key, unit, amount) in &drawn.shares {
            if !matches!(unit, Unit::Tokens | Unit::Requests | Unit::MicroDollars) {
                continue;
            }
            if drawn.is_vague {
                // It may have been any window of the budget, one that is still to come too.
                self.books.vague.insert((holder, key.budget));
                let same = |(one, _): &(&LedgerKey, &mut Ledger)| one.budget == key.budget;
                for (_, ledger) in self.books.ledgers.iter_mut().filter(same) {
                    ledger.holders.entry(holder).or_default().is_rough = true;
                }
                continue;
            }
            let rest = left.entry(key.budget).or_insert_with(|| actual.cost(*unit));
            let took = (*rest).min(*amount);
            *rest -= took;
            // Only what is left after the last share of a budget is an overrun.
            let last = drawn.shares.iter().rfind(|(one, _, _)| one.budget == key.budget);
            let is_last = last.is_some_and(|(one, _, _)| one == key);
            let over = if is_last { std::mem::take(rest) } else { 0 };
            if over > 0 {
                // Rights of this window pay for it, or a later window's, as debt.
                let same = |(one, _): &(&LedgerKey, &mut Ledger)| one.budget == key.budget;
                for (_, ledger) in self.books.ledgers.iter_mut().filter(same) {
                    ledger.holders.entry(holder).or_default().is_rough = true;
                }
            }
            if let Some(ledger) = self.books.ledgers.get_mut(key) {
                ledger.overrun += over;
            }
            if let Err((invariant, seen)) = self.books.served(*key, holder, took + over) {
                self.broken(invariant, format!("node {node}: {seen}"));
            }
        }
    }

    /// A process dies: what its requests got was really served, and its disk tells the rest.
    pub(super) fn quota_died(&mut self, node: usize) {
        let given = |world: &Self| -> u64 {
            let me = world.id(node);
            let of = |ledger: &Ledger| -> u64 {
                let own = ledger.holders.iter().filter(|(one, _)| one.node == me);
                own.flat_map(|(_, held)| held.out.values()).sum()
            };
            world.books.ledgers.values().map(of).sum()
        };
        let before = given(self);
        self.stored(node);
        if given(self) > before {
            self.hit(Mark::CrashBetweenStoreAndSend);
        }
        self.passing.died(node);
        let taken = std::mem::take(&mut self.nodes[node].memory.taken);
        let holder = self.nodes[node].memory.quota.as_ref().map(|quota| quota.holder());
        for ledger in self.books.ledgers.values_mut() {
            if let Some(held) = holder.and_then(|holder| ledger.holders.get_mut(&holder)) {
                held.is_rough = true;
            }
        }
        for taken in taken.values().filter(|taken| taken.granted) {
            let begun = u64::from(taken.meter.has_begun());
            let actual = charge(Model::Loom, taken.meter.used(), begun);
            self.served(node, &taken.drawn, &actual);
        }
        self.nodes[node].memory.taken = taken;
        let relays = std::mem::take(&mut self.nodes[node].memory.relays);
        let errands = relays.values().filter_map(|relayed| relayed.errand.as_deref());
        for errand in errands.filter(|errand| errand.granted) {
            self.hit(Mark::CrashWithReservation);
            self.served(node, &errand.drawn, &errand.actual());
        }
        self.nodes[node].memory.relays = relays;
    }

    /// A disk forgot what it had confirmed: the promise holds but for that.
    pub(super) fn disk_forgot(&mut self, node: usize) {
        let me = self.id(node);
        self.secrets.forget(node);
        self.liars.insert(node);
        let rows = &self.nodes[node].disk.stored.quota.rows;
        for (key, ledger) in &mut self.books.ledgers {
            let budget = self.truth_book.budget(&key.budget);
            if budget.is_some_and(|budget| budget.spec.reclaimable) {
                // Whatever it had witnessed of others may be gone too.
                ledger.forgotten = ledger.forgotten.saturating_add(ledger.limit);
            }
            for (holder, held) in ledger.holders.iter().filter(|(one, _)| one.node == me) {
                let row = rows.get(&(*key, *holder)).map(|stored| &stored.row);
                let (hw, given) = row.map_or((0, 0), |row| (row.hw, row.given() as u64));
                let lost = (held.hw + held.out.values().sum::<u64>()).saturating_sub(hw + given);
                ledger.forgotten += lost;
            }
        }
    }
}

/// What a call of so many tokens and requests takes.
fn charge(model: Model, tokens: u64, requests: u64) -> Charge {
    Charge {
        tokens,
        requests,
        micro_dollars: 0,
        class: CostClass::Local,
        model: model.name().to_owned(),
    }
}
