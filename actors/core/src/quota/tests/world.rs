//! A few nodes with disks and a network that an adversary drives, and what must hold at all times.

use std::collections::BTreeMap;

use selvedge_base::Wall;
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::{BudgetId, EscrowRow, LedgerKey, SignedRow};
use selvedge_proto::policy::{
    Budget, BudgetSpec, Hardness, Ledgers, Level, OnExhausted, Period, Scope, Standing, Stop, Unit,
};

use super::super::*;

/// A policy made up on the spot: any number of budgets, all held by the same members.
#[derive(Clone, Debug)]
pub(super) struct Paper {
    pub(super) budgets: Vec<Arc<Budget>>,
    pub(super) members: Vec<(Holder, u64)>,
    /// Whether the node that reads it came later.
    pub(super) guest: bool,
}

impl Paper {
    pub(super) fn of(members: &[Holder], specs: &[(&str, BudgetSpec)]) -> Self {
        let budgets = specs
            .iter()
            .enumerate()
            .map(|(at, (level, spec))| {
                Arc::new(Budget {
                    id: BudgetId([at as u8 + 1; 16]),
                    level: level.parse::<Level>().unwrap(),
                    limit: spec.limit,
                    spec: spec.clone(),
                })
            })
            .collect();
        Self { budgets, members: members.iter().map(|holder| (*holder, 1)).collect(), guest: false }
    }

    fn whole(&self, key: &LedgerKey, wall: Wall) -> u64 {
        let Some(budget) = self.budget(&key.budget) else { return 0 };
        let (spec, period) = (&budget.spec, budget.spec.period);
        if !spec.unit.is_windowed() || wall >= period.end(key.window) {
            return budget.limit;
        }
        let length = period.end(key.window).0 - period.start(key.window).0;
        let passed = wall.0.saturating_sub(period.start(key.window).0);
        let parts = u64::from(spec.sub_windows);
        budget.limit * (passed * parts / length + 1).min(parts) / parts
    }

    fn part(&self, whole: u64, key: &LedgerKey, holder: &Holder) -> u64 {
        let weights: u64 = self.members.iter().map(|(_, weight)| weight).sum();
        let Some(at) = self.members.iter().position(|(member, _)| member == holder) else {
            return 0;
        };
        let share = |weight: u64| whole * weight / weights;
        let rest = whole - self.members.iter().map(|(_, weight)| share(*weight)).sum::<u64>();
        let count = self.members.len() as u64;
        let turn = (at as u64 + count - key.window % count) % count;
        share(self.members[at].1) + u64::from(turn < rest)
    }
}

impl Grants for Paper {
    fn budgets_of(&self, account: &AccountPath, _: Option<&KeyId>) -> Arc<[Arc<Budget>]> {
        let covers = |budget: &&Arc<Budget>| budget.level.account.covers(account);
        self.budgets.iter().filter(covers).cloned().collect()
    }

    fn budget(&self, id: &BudgetId) -> Option<Arc<Budget>> {
        self.budgets.iter().find(|budget| budget.id == *id).cloned()
    }

    fn standing(&self, id: &BudgetId, wall: Wall) -> Standing {
        let Some(budget) = self.budget(id) else { return Standing::Free };
        if wall < Wall(60_000) {
            return Standing::Stopped(Stop::Clock);
        }
        let windowed = budget.spec.unit.is_windowed();
        let window = if windowed { budget.spec.period.window(wall) } else { budget.spec.ledger };
        let first = LedgerKey { budget: *id, window };
        Standing::Open(Ledgers { first, also: [None; 2], guest: self.guest })
    }

    fn grant(&self, key: &LedgerKey, holder: &Holder, wall: Wall) -> u64 {
        self.part(self.whole(key, wall), key, holder)
    }

    fn ceiling(&self, key: &LedgerKey, holder: &Holder) -> Option<u64> {
        let whole = self.budget(&key.budget)?.spec.limit;
        Some(self.part(whole, key, holder))
    }

    fn budgets(&self) -> Vec<Arc<Budget>> {
        self.budgets.clone()
    }

    fn members(&self, _: &LedgerKey, _: Wall) -> BTreeSet<Holder> {
        self.members.iter().map(|(holder, _)| *holder).collect()
    }

    fn voters(&self, key: &LedgerKey, _: Wall) -> Vec<Vec<Holder>> {
        let witnessed = self.budget(&key.budget).is_some_and(|budget| budget.spec.reclaimable);
        let all = || self.members.iter().map(|(holder, _)| *holder).collect();
        witnessed.then(all).into_iter().collect()
    }

    fn changes_at(&self, id: &BudgetId, wall: Wall) -> Wall {
        let Some(budget) = self.budget(id) else { return Wall(u64::MAX) };
        let period = budget.spec.period;
        let window = period.window(wall);
        let length = period.end(window).0 - period.start(window).0;
        let part = (length / u64::from(budget.spec.sub_windows)).max(1);
        let next = (wall.0 - period.start(window).0) / part + 1;
        Wall(period.start(window).0 + next * part).min(period.end(window))
    }

    fn resets_at(&self, key: &LedgerKey) -> Option<Wall> {
        let budget = self.budget(&key.budget)?;
        budget.spec.unit.is_windowed().then(|| budget.spec.period.end(key.window))
    }
}

pub(super) fn spec(unit: Unit, limit: u64) -> BudgetSpec {
    BudgetSpec {
        name: "main".to_owned(),
        unit,
        period: Period::Hour,
        limit,
        hardness: Hardness::Hard,
        on_exhausted: OnExhausted::Refuse,
        scope: Scope::All,
        sub_windows: 1,
        reclaimable: false,
        born: 1,
        ledger: 1,
        set: Wall(0),
    }
}

/// A stand-in for signatures: a hash of the signer and the bytes.
#[derive(Debug)]
pub(super) struct Stamps(pub(super) NodeId);

fn stamp(node: &NodeId, bytes: &[u8]) -> Signature {
    let hash = *blake3::keyed_hash(&node.0, bytes).as_bytes();
    Signature(hash, hash)
}

impl Seal for Stamps {
    fn sign(&self, bytes: &[u8]) -> Signature {
        stamp(&self.0, bytes)
    }

    fn is_signed(&self, signer: &NodeId, bytes: &[u8], signature: &Signature) -> bool {
        stamp(signer, bytes) == *signature
    }
}

pub(super) fn node_id(at: usize) -> NodeId {
    NodeId([at as u8 + 1; 32])
}

pub(super) fn holder(at: usize) -> Holder {
    Holder { node: node_id(at), incarnation: 1 }
}

pub(super) fn stored_fresh() -> QuotaStored {
    let header = QuotaHeader { incarnation: 1, ..QuotaHeader::default() };
    QuotaStored { header: Some(header), ..QuotaStored::default() }
}

/// One node: its machine, its disk and what callers saw of it.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) quota: Quota,
    pub(super) disk: QuotaStored,
    /// The write that was ordered and not acknowledged.
    pub(super) writing: Option<(u64, QuotaWrite)>,
    /// Granted and not settled, with the cost.
    pub(super) active: Vec<(RequestId, u64)>,
    /// Asked and not answered, with the cost.
    pub(super) asked: BTreeMap<RequestId, u64>,
    /// What callers really used: settled, and all of what ran when it crashed.
    pub(super) used: u64,
    /// The same without crashed requests, plus what crashes made count as spent.
    pub(super) expected_spent: u64,
    pub(super) served: u64,
    pub(super) refused: u64,
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) network: Vec<(usize, usize, QuotaMessage)>,
    pub(super) now: Now,
    pub(super) paper: Arc<Paper>,
    pub(super) options: QuotaOptions,
    pub(super) events: Vec<(usize, QuotaEvent)>,
    pub(super) refusals: Vec<QuotaRefusal>,
    /// Every row a disk ever accepted as its witness.
    pub(super) accepted: Vec<(usize, SignedRow)>,
    /// A node whose process does not run.
    pub(super) down: Option<usize>,
    next_id: u128,
    restarts: u64,
}

/// The first moment of an hour.
pub(super) const START: Wall = Wall(1_795_384_800_000);

impl World {
    pub(super) fn new(count: usize, specs: &[(&str, BudgetSpec)], options: QuotaOptions) -> Self {
        let holders: Vec<Holder> = (0..count).map(holder).collect();
        let paper = Arc::new(Paper::of(&holders, specs));
        let now = Now { mono: Mono(1_000_000), wall: START };
        let mut world = Self {
            nodes: Vec::new(),
            network: Vec::new(),
            now,
            paper,
            options,
            events: Vec::new(),
            refusals: Vec::new(),
            accepted: Vec::new(),
            down: None,
            next_id: 1,
            restarts: 0,
        };
        for at in 0..count {
            let node = Node {
                quota: world.machine(at, stored_fresh()),
                disk: stored_fresh(),
                writing: None,
                active: Vec::new(),
                asked: BTreeMap::new(),
                used: 0,
                expected_spent: 0,
                served: 0,
                refused: 0,
            };
            world.nodes.push(node);
        }
        (0..count).for_each(|at| world.greet(at));
        world
    }

    /// One budget of tokens per hour.
    pub(super) fn tokens(count: usize, limit: u64) -> Self {
        Self::new(count, &[("acme", spec(Unit::Tokens, limit))], QuotaOptions::default())
    }

    fn machine(&self, at: usize, stored: QuotaStored) -> Quota {
        let seal = Arc::new(Stamps(node_id(at)));
        let dice = Dice::keyed(self.restarts * 64 + at as u64, "world");
        Quota::new(node_id(at), stored, seal, dice, self.options, self.now)
    }

    fn greet(&mut self, at: usize) {
        let book: Arc<dyn Grants> = self.paper.clone();
        self.step(at, QuotaInput::PolicyChanged { book });
        for peer in (0..self.nodes.len()).filter(|peer| *peer != at) {
            self.step(at, QuotaInput::PeerUp { node: node_id(peer) });
        }
    }

    pub(super) fn step(&mut self, at: usize, input: QuotaInput) {
        let mut effects = Vec::new();
        self.nodes[at].quota.step(self.now, input, &mut effects);
        for effect in effects {
            match effect {
                QuotaEffect::Persist { ticket, write } => {
                    assert!(self.nodes[at].writing.is_none(), "two writes at once");
                    self.nodes[at].writing = Some((ticket, write));
                }
                QuotaEffect::Send { to, message } => {
                    assert!(message.is_within_bounds());
                    let to = usize::from(to.0[0]) - 1;
                    self.network.push((at, to, message));
                }
                QuotaEffect::Answer { id, verdict } => self.answered(at, id, verdict),
                QuotaEffect::Report(event) => self.events.push((at, event)),
            }
        }
    }

    fn answered(&mut self, at: usize, id: RequestId, verdict: Verdict) {
        let node = &mut self.nodes[at];
        match verdict {
            Verdict::Granted { .. } => {
                let cost = node.asked.remove(&id).expect("an answer to a question");
                node.served += cost;
                node.active.push((id, cost));
            }
            Verdict::Extended => {
                let more = node.asked.remove(&id).expect("an answer to a question");
                let active = node.active.iter_mut().find(|(active, _)| *active == id);
                active.expect("it runs").1 += more;
                node.served += more;
            }
            Verdict::Refused(refusal) => {
                match node.asked.remove(&id) {
                    Some(cost) => node.refused += cost,
                    None => {
                        let active = node.active.iter().position(|(active, _)| *active == id);
                        let (_, cost) = node.active.remove(active.expect("it runs"));
                        node.used += cost;
                    }
                }
                self.refusals.push(*refusal);
            }
        }
    }

    pub(super) fn ask(&mut self, at: usize, cost: u64) -> RequestId {
        self.ask_as(at, "acme", Charge { tokens: cost, requests: 1, ..Charge::default() })
    }

    pub(super) fn ask_as(&mut self, at: usize, account: &str, worst: Charge) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.nodes[at].asked.insert(id, worst.tokens);
        let (account, lease) = (account.parse().unwrap(), Micros::secs(600));
        self.step(at, QuotaInput::Asked { id, account, key: None, worst, lease });
        id
    }

    pub(super) fn extend(&mut self, at: usize, which: usize, more: u64) {
        let Some((id, _)) = self.nodes[at].active.get(which).copied() else { return };
        if self.nodes[at].asked.contains_key(&id) {
            return;
        }
        self.nodes[at].asked.insert(id, more);
        let more = Charge { tokens: more, ..Charge::default() };
        self.step(at, QuotaInput::Extended { id, more });
    }

    /// Settles a running request at so many thousandths of what was reserved.
    pub(super) fn settle(&mut self, at: usize, which: usize, permille: u64) {
        let node = &mut self.nodes[at];
        if node.active.is_empty() {
            return;
        }
        let which = which % node.active.len();
        if node.asked.contains_key(&node.active[which].0) {
            return;
        }
        let (id, cost) = node.active.remove(which);
        let tokens = cost * permille.min(1_000) / 1_000;
        node.used += tokens;
        node.expected_spent += tokens;
        let actual = Charge { tokens, requests: 1, ..Charge::default() };
        self.step(at, QuotaInput::Settled { id, actual: actual.clone() });
        // Nothing counts twice.
        self.step(at, QuotaInput::Settled { id, actual });
    }

    /// A steward lowers every budget, and all nodes hear of it.
    pub(super) fn lower(&mut self, limit: u64) {
        let mut paper = Paper::clone(&self.paper);
        for budget in &mut paper.budgets {
            *budget = Arc::new(Budget { limit, ..Budget::clone(budget) });
        }
        self.paper = Arc::new(paper);
        for at in 0..self.nodes.len() {
            let book: Arc<dyn Grants> = self.paper.clone();
            self.step(at, QuotaInput::PolicyChanged { book });
        }
    }

    /// Makes the write under way durable and says so.
    pub(super) fn persist(&mut self, at: usize) -> bool {
        let Some((ticket, write)) = self.nodes[at].writing.take() else { return false };
        self.store(at, &write);
        self.step(at, QuotaInput::Persisted { ticket });
        true
    }

    fn store(&mut self, at: usize, write: &QuotaWrite) {
        self.nodes[at].disk.apply(write);
        for kept in &write.kept {
            if let Some(signed) = kept.register.accepted.clone()
                && !self.accepted.iter().any(|(by, known)| *by == at && *known == signed)
            {
                self.accepted.push((at, signed));
            }
        }
    }

    /// Says that a write failed, although it may have happened.
    pub(super) fn fail_write(&mut self, at: usize, happened: bool) {
        let Some((ticket, write)) = self.nodes[at].writing.take() else { return };
        if happened {
            self.store(at, &write);
        }
        self.step(at, QuotaInput::PersistFailed { ticket, why: "no space".to_owned() });
    }

    pub(super) fn deliver(&mut self, which: usize, keep: bool) {
        if self.network.is_empty() {
            return;
        }
        let which = which % self.network.len();
        let (from, to, message) =
            if keep { self.network[which].clone() } else { self.network.remove(which) };
        self.step(to, QuotaInput::Received { from: node_id(from), message });
    }

    /// The process ends and starts again, with or without its last write.
    pub(super) fn crash(&mut self, at: usize, wrote: bool) {
        if let Some((_, write)) = self.nodes[at].writing.take()
            && wrote
        {
            self.store(at, &write);
        }
        let node = &mut self.nodes[at];
        node.used += node.active.drain(..).map(|(_, cost)| cost).sum::<u64>();
        node.asked.clear();
        self.restarts += 1;
        let quota = self.machine(at, self.nodes[at].disk.clone());
        self.nodes[at].quota = quota;
        self.nodes[at].expected_spent =
            self.own_rows(at).filter(|row| row.holder == holder(at)).map(|row| row.hw).sum();
        self.greet(at);
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus(Micros::millis(ms));
        self.now.wall = self.now.wall.plus(Micros::millis(ms));
        for at in (0..self.nodes.len()).filter(|at| self.down != Some(*at)).collect::<Vec<_>>() {
            if self.nodes[at].quota.wake_at().is_some_and(|wake| wake <= self.now.mono) {
                self.step(at, QuotaInput::Ticked);
            }
        }
    }

    /// Lets everything arrive and every write happen, for so many seconds.
    pub(super) fn quiet(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.settle_down();
            self.pass(100);
        }
        self.settle_down();
    }

    pub(super) fn settle_down(&mut self) {
        for _ in 0..10_000 {
            let wrote = (0..self.nodes.len()).filter(|at| self.persist(*at)).count();
            if self.network.is_empty() && wrote == 0 {
                return;
            }
            self.deliver(0, false);
        }
        panic!("the nodes never stop talking");
    }

    /// The rows on a node's disk that it wrote itself, under any incarnation.
    pub(super) fn own_rows(&self, at: usize) -> impl Iterator<Item = &EscrowRow> {
        let rows = self.nodes[at].disk.rows.values().map(|stored| &stored.row);
        rows.filter(move |row| row.holder.node == node_id(at))
    }

    /// What must hold at every moment, seen from outside, as long as no window is dropped.
    pub(super) fn check(&self) {
        self.check_ledgers();
        for (at, node) in self.nodes.iter().enumerate() {
            let marks: u64 = self.own_rows(at).map(|row| row.hw).sum();
            let running: u64 = node.active.iter().map(|(_, cost)| cost).sum();
            assert!(node.used + running <= marks, "{} + {running} over {marks}", node.used);
        }
    }

    /// What must hold of every ledger at every moment, seen from outside.
    pub(super) fn check_ledgers(&self) {
        let mut rows: BTreeMap<LedgerKey, Vec<&EscrowRow>> = BTreeMap::new();
        for at in 0..self.nodes.len() {
            self.own_rows(at).for_each(|row| rows.entry(row.key).or_default().push(row));
        }
        for (key, rows) in &rows {
            let limit = self.paper.budget(&key.budget).unwrap().limit;
            let marks: u64 = rows.iter().map(|row| row.hw).sum();
            assert!(marks <= limit, "marks of {marks} in a budget of {limit}");
            for row in rows {
                let granted = self.paper.ceiling(key, &row.holder).unwrap();
                let got: u64 = rows.iter().filter_map(|donor| donor.out.get(&row.holder)).sum();
                let used = row.hw + row.out.values().sum::<u64>();
                assert!(granted + got >= used, "rights below zero: {granted} + {got} < {used}");
            }
        }
        self.nodes.iter().for_each(|node| self.check_node(node));
    }

    fn check_node(&self, node: &Node) {
        for audit in node.quota.audit() {
            assert!(audit.spent <= audit.hw, "{audit:?}");
            assert!(audit.hw <= audit.planned_hw, "{audit:?}");
            assert!(audit.spent + audit.reserved + audit.owed <= audit.planned_hw, "{audit:?}");
            let planned = audit.planned_hw + audit.given;
            assert!(audit.granted + audit.counted + audit.elastic >= planned, "{audit:?}");
            let got: u64 = (0..self.nodes.len())
                .flat_map(|peer| self.own_rows(peer))
                .filter(|row| row.key == audit.key)
                .filter_map(|row| row.out.get(&audit.holder))
                .sum();
            assert!(audit.counted <= got, "counted {} of {got}", audit.counted);
        }
    }

    /// What must hold once nothing is under way: no reservation is left and no right is lost.
    pub(super) fn check_quiet(&self, limit: u64) {
        let mut available = 0;
        let mut spent = 0;
        for (at, node) in self.nodes.iter().enumerate() {
            assert!(node.asked.is_empty(), "node {at} never answered {:?}", node.asked);
            let sum: u64 = node.quota.audit().iter().map(|audit| audit.spent).sum();
            assert_eq!(sum, node.expected_spent, "node {at}");
            spent += sum;
            for status in node.quota.status(self.now) {
                assert_eq!(status.reserved, 0);
                available += status.available;
            }
        }
        assert_eq!(available, limit - spent, "rights were lost");
    }
}
