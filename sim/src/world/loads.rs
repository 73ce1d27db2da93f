//! Models that share a memory too small for all: when production's account is asked, and what the
//! observer holds its decisions against.
//!
//! Owns when an engine is tended and what its node's view tells it of peers; which nodes had which
//! models in memory, as it really was; and the requests that the observer makes at the end. What
//! comes and goes is decided by production, carried out by [`crate::engine`].

use std::collections::BTreeMap;

use selvedge_base::{Code, Micros, ModelDigest, Mono, Refusal};
use selvedge_contract::ModelState;
use selvedge_contract::residence::{Reason, Why};

use super::{Class, Due, Own, WRITES_GO_ON, World};
use crate::engine::{Change, Changed, Model, place};
use crate::invariant::Invariant;
use crate::marks::Mark;
use crate::plan::{CALM_END, ClientPlan, FaultKind, Plan};
use crate::watch::EventKind;

/// Rows are written every two seconds and exchanged with one peer in as many: in meshes of up to
/// nine nodes a row has reached all long before this, if nothing hinders it.
const KNOWN_AFTER: Micros = Micros::secs(24);
/// When the observer asks for each model after healing: connections have recovered.
const ASKS_AFTER: Micros = Micros::millis(12_500);
/// Between two models: what one of them had loaded has rested by then, where loads take up to two
/// seconds.
const MODELS_APART: Micros = Micros::secs(9);
/// Between two nodes that ask for the same one.
const NODES_APART: Micros = Micros::millis(150);
/// How long it waits for an answer: for others to rest, and for a load.
const PROBE_WAITS: Micros = Micros::secs(30);
/// The longest load after which what came rests for less than [`MODELS_APART`].
const LONGEST_LOAD: Micros = Micros::secs(2);

/// Which models are and were in memory where.
#[derive(Debug, Default)]
pub(super) struct Residents {
    /// By node, then by model.
    ready: Vec<Vec<Ready>>,
    /// What the observer asked at the end: where, for which model, under which number.
    probes: Vec<(usize, usize, u64)>,
}

/// Since when a model is in memory, and until when it was.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    since: Option<Mono>,
    until: Option<Mono>,
}

impl Residents {
    pub(super) fn new(plan: &Plan) -> Self {
        let row = vec![Ready::default(); plan.memory.models.len()];
        Self { ready: vec![row; plan.nodes], probes: Vec::new() }
    }
}

/// How long a run with models that share a memory goes on after it is quiet: the observer asks for
/// each of them.
pub(crate) fn lasts_after(models: usize) -> Micros {
    ASKS_AFTER.plus(MODELS_APART.times(models as u64)).plus(PROBE_WAITS).plus(CALM_END)
}

impl World<'_> {
    /// When nodes write their rows for the last time: late enough for what still happens, early
    /// enough for all to agree.
    pub(super) fn writes_end(&self) -> Mono {
        let usual = self.plan.quiet_at.plus(WRITES_GO_ON);
        match self.plan.memory.is_none() {
            true => Mono(usual.0),
            false => Mono(self.plan.span.0.saturating_sub(CALM_END.0).max(usual.0)),
        }
    }

    /// Engines in which something changed that decisions about memory go by are looked after, and
    /// those that this changed.
    pub(super) fn tend_memories(&mut self) {
        if self.plan.memory.is_none() {
            return;
        }
        while let Some(node) = (0..self.nodes.len()).find(|node| self.is_stale(*node)) {
            self.tend_memory(node);
        }
    }

    fn is_stale(&self, node: usize) -> bool {
        let engine = &self.nodes[node].memory.engine;
        let stale = engine.shelf.as_ref().is_some_and(|shelf| shelf.is_stale);
        stale && !engine.frozen && self.nodes[node].acts()
    }

    pub(super) fn memory_due(&mut self, node: usize) {
        let now = self.now.0;
        if let Some(shelf) = &mut self.nodes[node].memory.engine.shelf
            && shelf.tick_at.is_some_and(|at| at <= now)
        {
            (shelf.tick_at, shelf.is_stale) = (None, true);
        }
    }

    /// Nothing keeps an engine from working any more.
    pub(super) fn memory_awakes(&mut self, node: usize) {
        if let Some(shelf) = &mut self.nodes[node].memory.engine.shelf {
            (shelf.awake_since, shelf.is_stale) = (self.now.0, true);
        }
    }

    fn tend_memory(&mut self, node: usize) {
        let now = self.now.0;
        let copies = self.nodes[node].view(now, &self.names).copies();
        let mut answers = Vec::new();
        let engine = &mut self.nodes[node].memory.engine;
        let armed = engine.shelf.as_ref().and_then(|shelf| shelf.tick_at);
        if let Some(shelf) = &mut engine.shelf {
            shelf.copied(&copies);
        }
        let changes = engine.tend(now, &mut answers);
        let tick = engine.shelf.as_ref().and_then(|shelf| shelf.tick_at);
        for change in &changes {
            self.changed(node, change, &copies);
        }
        self.note_residents(node);
        self.audit_memory(node);
        self.answer_all(node, answers);
        self.kick(node);
        if let Some(at) = tick.filter(|at| Some(*at) != armed) {
            self.later(node, at, Own::MemoryDue);
        }
    }

    /// What became of a model is noted, shown, and held against what must be.
    fn changed(&mut self, node: usize, (model, change): &Changed, copies: &Copies) {
        let at = place(*model).unwrap_or_default();
        let tag = match change {
            Change::Loading => 0,
            Change::Loaded => 1,
            Change::LoadFailed => 2,
            Change::Freed => 3,
            Change::Evicted { .. } => 4,
            Change::Refused(_) => 5,
        };
        self.record("memory", [node, node], &[at as u8, tag]);
        match change {
            Change::Loading | Change::Freed => {}
            Change::Loaded => self.hit(Mark::ModelLoaded),
            Change::LoadFailed => self.hit(Mark::ModelLoadFailed),
            Change::Evicted { eviction, .. } => {
                self.hit(match eviction.why {
                    Why::Copied => Mark::ModelWentCopied,
                    Why::Oldest => Mark::ModelWentOldest,
                });
                self.audit_eviction(node, (*model, change), copies);
            }
            Change::Refused(Reason::Busy { .. }) => self.hit(Mark::ModelTurnedAway),
            Change::Refused(Reason::Kept { .. } | Reason::TooLarge { .. }) => {
                self.hit(Mark::ModelKeptOut);
            }
            Change::Refused(Reason::NoRoom { .. } | Reason::Unwanted) => return,
        }
        self.show(EventKind::MemoryChanged, node, None, || said(*model, change));
    }

    /// No model goes that somebody waits for, and none of which this is the last copy while one
    /// stays that is as large, idle, and in memory at a peer too.
    fn audit_eviction(&mut self, node: usize, (model, change): (Model, &Change), copies: &Copies) {
        let Change::Evicted { eviction, work, stay, bytes, comes } = change else { return };
        let name = model.name();
        if *work > 0 {
            let seen = format!("node {node} unloads {name} for {comes:?} with {work} requests");
            self.broken(Invariant::MemoryWorkStays, seen);
        }
        let copied = |one: Model| copies.get(&one.digest()).is_some_and(|count| *count > 0);
        let would_do = || stay.iter().filter(|(_, other)| other >= bytes).map(|(one, _)| *one);
        let believed = would_do().find(|one| copied(*one)).filter(|_| !copied(model));
        let known = would_do().find(|one| self.is_known_copy(node, *one));
        let known = known.filter(|_| self.is_last_copy(node, model));
        if let Some(other) = believed.or(known) {
            let other = other.name();
            let seen =
                format!("node {node} unloads {name} of {bytes}, and keeps {other}: {stay:?}");
            self.broken(Invariant::MemoryCopyFirst, seen);
        }
        if (eviction.why == Why::Copied) != copied(model) {
            let seen = format!("node {node} unloads {name} as {:?}, of {copies:?}", eviction.why);
            self.broken(Invariant::MemoryCopyFirst, seen);
        }
    }

    /// Whether nobody else had a model in memory for so long that all know of it.
    fn is_last_copy(&self, node: usize, model: Model) -> bool {
        let Some(at) = place(model) else { return false };
        let others = self.residents.ready.iter().enumerate().filter(|(one, _)| *one != node);
        let mut others = others.map(|(_, all)| all[at]);
        others.all(|ready| {
            let gone = ready.until.is_none_or(|until| self.now.0.since(until) >= KNOWN_AFTER);
            ready.since.is_none() && gone
        })
    }

    /// Whether a node must know that a peer has a model in memory, whom it reaches.
    fn is_known_copy(&self, node: usize, model: Model) -> bool {
        let now = self.now.0;
        let long = |since: Option<Mono>| since.is_some_and(|at| now.since(at) >= KNOWN_AFTER);
        let Some(at) = place(model).filter(|_| long(self.calm_since)) else { return false };
        let tells = |one: usize| {
            let engine = &self.nodes[one].memory.engine;
            let awake = engine.shelf.as_ref().map(|shelf| shelf.awake_since);
            self.nodes[one].acts() && self.is_whole(one) && !engine.frozen && long(awake)
        };
        let has =
            |one: usize| one != node && tells(one) && long(self.residents.ready[one][at].since);
        now < self.writes_end() && (0..self.nodes.len()).any(has)
    }

    /// Which models are in memory at a node, as it really is.
    fn note_residents(&mut self, node: usize) {
        let now = self.now.0;
        let Some(shelf) = &self.nodes[node].memory.engine.shelf else { return };
        for (at, ready) in self.residents.ready[node].iter_mut().enumerate() {
            match shelf.state(Model::Shared(at as u8)) == ModelState::Ready {
                true => drop(ready.since.get_or_insert(now)),
                false => ready.leaves(now),
            }
        }
    }

    /// A process died, and what it had in memory.
    pub(super) fn lose_residents(&mut self, node: usize) {
        for ready in &mut self.residents.ready[node] {
            ready.leaves(self.now.0);
        }
    }

    pub(super) fn audit_memories(&mut self) {
        if self.plan.memory.is_none() {
            return;
        }
        for node in
            (0..self.nodes.len()).filter(|node| self.nodes[*node].acts()).collect::<Vec<_>>()
        {
            self.audit_memory(node);
        }
    }

    fn audit_memory(&mut self, node: usize) {
        let (over, late) = self.nodes[node].memory.engine.audit_memory(self.now.0);
        let broken = [(Invariant::MemoryWithinBudget, over), (Invariant::MemoryInTime, late)];
        for (invariant, seen) in broken {
            if let Some(seen) = seen {
                self.broken(invariant, format!("node {node}: {seen}"));
            }
        }
    }

    /// A caller whose model could not be had is told why.
    pub(super) fn audit_reason(&mut self, node: usize, request: u64, refusal: &Refusal) {
        if self.plan.memory.is_none() {
            return;
        }
        if refusal.message.is_empty() || refusal.code == Code::Internal {
            let seen = format!("request {request} at node {node}: {refusal:?}");
            self.broken(Invariant::MemoryInTime, seen);
        }
    }

    /// After healing the observer asks at each node for each model that fits.
    pub(super) fn plan_model_probes(&mut self) {
        let memory = &self.plan.memory;
        let quiet = Mono(self.plan.quiet_at.0);
        if self.plan.span < self.plan.quiet_at.plus(lasts_after(memory.models.len())) {
            return;
        }
        // Whose load failed rests for a while, and more than these must wait for others to rest.
        let fails = |kind: &FaultKind| matches!(kind, FaultKind::LoadFailure { .. });
        let fails = self.plan.faults.iter().any(|fault| fails(&fault.kind));
        let slow = memory.models.iter().any(|model| model.load > LONGEST_LOAD);
        if fails || slow || memory.failing_permille > 0 {
            return;
        }
        for model in 0..memory.models.len() {
            for node in 0..self.plan.nodes {
                let at = quiet.plus(ASKS_AFTER).plus(MODELS_APART.times(model as u64));
                let at = at.plus(NODES_APART.times(node as u64));
                self.queue.push(at, Class::Node, Due::ModelProbed { node, model });
            }
        }
    }

    pub(super) fn probe_model(&mut self, node: usize, model: usize) {
        let plan = self.plan;
        let asks = |client: &&ClientPlan| client.models.contains(&model);
        let found = plan.workload.clients.iter().enumerate().find(|(_, client)| asks(client));
        let Some((group, client)) = found else { return };
        let fits = |shelf: &crate::engine::Shelf| shelf.fits(model);
        let fits = self.nodes[node].memory.engine.shelf.as_ref().is_some_and(|shelf| fits(shelf));
        if !fits || !self.is_whole(node) || self.is_barred_for_good(node, group) {
            return;
        }
        let little = ClientPlan {
            prompt: (8, 8),
            answer: (2, 2),
            deadline: PROBE_WAITS,
            nodes: vec![node],
            leave_permille: 0,
            home_permille: 0,
            dense_permille: 0,
            models: vec![model],
            ..client.clone()
        };
        let request = self.requests.len() as u64;
        self.ask(group, &little);
        if self.requests.len() as u64 > request {
            self.residents.probes.push((node, model, request));
        }
    }

    /// Whoever asked for a model that fits was answered.
    pub(super) fn models_came(&mut self) {
        for (node, model, request) in std::mem::take(&mut self.residents.probes) {
            if !self.requests[request as usize].finished {
                let seen = format!("node {node}, model {model}: request {request}");
                self.broken(Invariant::LiveLoads, seen);
            }
        }
    }
}

impl Ready {
    const fn leaves(&mut self, now: Mono) {
        if self.since.take().is_some() {
            self.until = Some(now);
        }
    }
}

/// How many peers have which models, as a node knows it.
type Copies = BTreeMap<ModelDigest, u32>;

/// What became of a model, for people.
fn said(model: Model, change: &Change) -> String {
    let name = model.name();
    match change {
        Change::Loading => format!("{name} is being loaded"),
        Change::Loaded => format!("{name} is in memory"),
        Change::LoadFailed => format!("{name} could not be loaded"),
        Change::Freed => format!("{name} is freed"),
        Change::Evicted { eviction, comes, .. } => {
            format!("{name} goes for {}: {}", comes.name(), eviction.why.as_str())
        }
        Change::Refused(reason) => format!("{name} does not come: {reason:?}"),
    }
}
