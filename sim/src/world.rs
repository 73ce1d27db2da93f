//! The run itself: one queue, some nodes, a network, faults, an observer.

mod adversary;
mod bills;
mod body;
mod cached;
mod faults;
mod finish;
mod kept;
mod keys;
mod lent;
mod limits;
mod loads;
mod members;
mod packet;
mod paid;
mod policy;
mod probe;
mod purges;
mod quota;
mod relay;
mod reports;
mod requests;
mod serving;
mod settings;
mod strain;
mod traffic;
mod truth;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::codec::OLDEST_VERSION;
use selvedge_base::{Machine as _, MeshId, Micros, Mono, NodeId};
use selvedge_core::FlowInput;
use selvedge_core::routes::Routes;
use selvedge_core::upstream::ProviderSpec;
use selvedge_crdt::escrow::{BudgetId, Holder};
use selvedge_proto::join::JoinMessage;
use selvedge_proto::policy::{AccountPath, PolicyBook};
use selvedge_proto::swim::{PeerState, SwimEffect, SwimInput};

use crate::check::Checker;
use crate::cloud::{Cloud, Exchange, Word};
use crate::invariant::Invariant;
use crate::ledger::Books;
use crate::marks::{Mark, Marks};
use crate::names::Names;
use crate::network::Network;
use crate::node::Node;
use crate::outcome::{Counters, Outcome, Requests};
use crate::plan::{Fault, FaultKind, Plan, PlanError, TenantPlan};
use crate::queue::{Class, Moment, Queue};
use crate::stream::Stream;
use crate::trace::Trace;
use crate::watch::{Event, EventKind, Record, Watch};
pub(crate) use cached::CacheSide;
pub(crate) use keys::ring;
pub(crate) use loads::lasts_after;
pub(crate) use members::Joining;
use packet::{Load, Packet};
pub(crate) use paid::DeskSide;
pub(crate) use quota::Drawn;
pub(crate) use relay::Relayed;
use requests::{Group, Request};
pub(crate) use strain::Machines;

/// How often an engine reports to its node's detector.
const REPORT_EVERY: Micros = Micros::millis(100);
/// How exactly idle connections are noticed.
const IDLE_LOOK: Micros = Micros::millis(100);
/// How often the observer looks: well below every bound.
const LOOK: Micros = Micros::millis(50);
/// In meshes of more than this, looks and idle checks are made less often and rows are written
/// and exchanged more seldom: a thousand nodes have a million pairs.
const LARGE: usize = 64;
/// How much more seldom.
const LARGE_FACTOR: u64 = 5;
/// How often a node compares rows with another one.
const SYNC_EVERY: Micros = Micros::secs(2);
/// How often a node writes its row, when there is anything new.
const WRITE_EVERY: Micros = Micros::secs(2);
/// Writing stops this long after the last fault, so that everybody can come to agree.
const WRITES_GO_ON: Micros = Micros::secs(2);
/// How often all machines' own accounts are held against the observer's.
const AUDIT: Micros = Micros::millis(500);
/// The purpose of clients' streams.
const CLIENT: u64 = 3;

/// Runs a plan to its end, showing it to `watch`.
///
/// # Errors
/// As [`Plan::check`].
pub fn run(plan: &Plan, watch: &mut dyn Watch) -> Result<Outcome, PlanError> {
    plan.check()?;
    let (specs, routes) = plan.cloud.checked().map_err(PlanError::Cloud)?;
    let mut world = World::new(plan, watch);
    (world.specs, world.routes) = (specs, routes);
    world.prepare_settings();
    world.prepare();
    while let Some((moment, due)) = world.queue.pop() {
        if moment.0 > Mono(plan.span.0) {
            break;
        }
        world.now = moment;
        world.happen(due);
        world.tend_memories();
    }
    Ok(world.finish())
}

fn tenant_of(plan: &TenantPlan) -> Option<AccountPath> {
    let path: AccountPath = plan.path.parse().ok()?;
    (!plan.budgets.is_empty()).then(|| path.tenant_path())
}

fn clouds(plan: &Plan) -> Vec<Cloud> {
    let all = plan.cloud.providers.iter().enumerate();
    all.map(|(index, provider)| Cloud::new(plan.seed, index, provider)).collect()
}

type SimNode = Node<Packet, Own>;

/// A node before its first start.
fn made_node(plan: &Plan, mesh: MeshId, (index, id): (usize, NodeId)) -> SimNode {
    let forgets = plan
        .faults
        .iter()
        .any(|fault| matches!(fault.kind, FaultKind::LostWrites { node, .. } if node == index));
    let mut node = Node::new(
        (plan.seed, mesh),
        (index, plan.nodes, plan.options.sites),
        id,
        plan.engine,
        (plan.options.fsync, forgets),
    );
    if plan.options.old_version.contains(&index) {
        node.version = OLDEST_VERSION;
    }
    node.per_peer = plan.options.per_peer;
    node.shares = plan.memory.clone();
    let joins = |fault: &Fault| matches!(fault.kind, FaultKind::Join { node } if node == index);
    if index > 0 && plan.faults.iter().any(joins) {
        (node.is_in, node.may_join) = (false, false);
    }
    node
}

struct World<'a> {
    plan: &'a Plan,
    watch: &'a mut dyn Watch,
    now: Moment,
    queue: Queue<Due>,
    names: Names,
    nodes: Vec<SimNode>,
    network: Network,
    checker: Checker,
    trace: Trace,
    counters: Counters,
    marks: Marks,
    conns: u64,
    streams: u64,
    groups: Vec<Group>,
    requests: Vec<Request>,
    tally: Requests,
    /// All policy records there are, as the observer knows them.
    truth_book: PolicyBook,
    /// What was really made durable and served.
    books: Books,
    /// Where a budget stands in the plan.
    places: BTreeMap<BudgetId, (usize, usize)>,
    /// Whom the operator granted rights.
    holders: Vec<Holder>,
    /// The accounts of the groups of clients, and the tenants with budgets.
    accounts: Vec<Option<AccountPath>>,
    tenants: BTreeSet<AccountPath>,
    /// Nodes that lied, or whose disks forgot: nobody has to believe them.
    liars: BTreeSet<usize>,
    members: members::Members,
    secrets: keys::Secrets,
    /// Engines that work for nobody, and since when nothing hinders words on their way.
    idle_work: work::IdleWork,
    /// The providers as they are, and as nodes know them; what is asked of them.
    clouds: Vec<Cloud>,
    specs: Vec<ProviderSpec>,
    /// The plan's, by which builds before settings go.
    routes: Routes,
    settings: settings::Observed,
    exchanges: BTreeMap<u64, Exchange>,
    exchanges_made: u64,
    bills: bills::Bills,
    /// Cuts of the internet that last, with the nodes behind them, and those that somebody met.
    cuts: Vec<(usize, Vec<usize>)>,
    cuts_met: BTreeSet<usize>,
    calm_since: Option<Mono>,
    /// Purges of caches, in order, and those that each node heard of, as it did.
    purges: Vec<kept::Purge>,
    learned: Vec<Vec<usize>>,
    /// What the observer asked at the end, to see whether those with rights serve.
    probes: Vec<(usize, u64)>,
    again: probe::Again,
    /// Permits that are out, and requests that passed limiters.
    passing: limits::Passing,
    paid_probes: Vec<(usize, u64)>,
    /// The budgets of the request that is being settled.
    settling: Vec<BudgetId>,
    settling_as: Option<Holder>,
    /// What nodes that will repeat themselves said last.
    said: adversary::Said,
    /// Which models are in memory where, and how machines stand, as the observer knows it.
    residents: loads::Residents,
    strains: strain::Strains,
    /// Emptied and used again, so that a step allocates nothing.
    swim_effects: Vec<SwimEffect>,
    bytes: Vec<u8>,
}

/// What is in the queue.
enum Due {
    FaultBegan(usize),
    FaultEnded(usize),
    Arrived {
        to: usize,
        packet: Packet,
    },
    Dialled {
        from: usize,
        to: usize,
    },
    /// Something a process does by itself; void once it died.
    Own {
        node: usize,
        start: u64,
        own: Own,
    },
    EngineReported {
        node: usize,
    },
    SyncCame {
        node: usize,
    },
    WriteCame {
        node: usize,
    },
    /// A word of joining, over a connection of its own.
    JoinSaid {
        from: usize,
        to: usize,
        attempt: u64,
        message: Box<JoinMessage>,
    },
    ClientCame {
        group: usize,
    },
    /// The observer asks for one of the models that share a memory.
    ModelProbed {
        node: usize,
        model: usize,
    },
    /// The observer asks at a node that has a right to spend.
    Probed {
        node: usize,
    },
    /// It asks where a permit must come from a peer, for the first or second time.
    ProbedElsewhere,
    ProbedAgain,
    /// A provider says its next word on an exchange.
    CloudSpeaks {
        exchange: u64,
    },
    /// The observer asks for what only providers have.
    ProvidersProbed {
        node: usize,
        group: usize,
    },
    /// The operator signs the first budgets.
    Operated,
    /// Whoever's clock is wrong gets the time.
    TimeTold,
    Audited,
    /// A node closes the connection to a peer it holds dead, as production does.
    Closed {
        node: usize,
        peer: usize,
    },
    IdleLooked,
    Looked,
}

/// What a process does by itself.
#[derive(Clone, Copy, Debug)]
enum Own {
    SwimTick,
    FlowTick {
        request: u64,
    },
    StepEnded,
    /// A sign of life on a stream this node serves.
    Alive {
        stream: u64,
    },
    /// The engine's pulse for a request computed at home.
    HomePulse {
        request: u64,
        fence: u64,
    },
    ServeDeadline {
        stream: u64,
    },
    CallerLeft {
        request: u64,
    },
    /// The word that a stream is not wanted goes out again: the way was cut.
    Stop {
        to: usize,
        conn: u64,
        stream: u64,
        after: Mono,
    },
    Flush {
        stream: u64,
    },
    /// A word of a provider's arrives.
    Heard {
        exchange: u64,
        word: Word,
    },
    /// The time of an attempt at a provider may be over.
    ErrandTick {
        request: u64,
    },
    TryAgain {
        request: u64,
    },
    VerdictDue {
        request: u64,
    },
    /// Who waits at the cache has waited long enough, or hears what became of the question.
    CacheWaited {
        request: u64,
    },
    CacheTold {
        request: u64,
    },
    /// Who looks for an answer at peers has looked for long enough.
    CacheLooked {
        request: u64,
    },
    /// Peers are told what is kept.
    CacheTells,
    /// Something about the models that share a memory is due.
    MemoryDue,
    /// How the machine stands is read and told.
    MachineLooked,
    JoinTried,
    JoinAnswered {
        attempt: u64,
    },
    /// A node that leaves has waited long enough.
    Left,
    QuotaTick,
    Persisted {
        ticket: u64,
    },
    PersistFailed {
        ticket: u64,
    },
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, watch: &'a mut dyn Watch) -> Self {
        let names = Names::new(plan.nodes);
        let mesh = MeshId(names.root.verifying_key().to_bytes());
        let node = |index: usize| made_node(plan, mesh, (index, names.id(index)));
        let mut nodes: Vec<SimNode> = (0..plan.nodes).map(node).collect();
        let mut rings: Vec<_> = nodes.iter_mut().map(|node| &mut node.ring).collect();
        let secrets = keys::Secrets::new(plan, &mut rings);
        Self {
            plan,
            watch,
            now: (Mono(0), Class::Fault, 0),
            queue: Queue::new(),
            nodes,
            names,
            network: Network::new(plan.seed, plan.nodes, plan.network),
            checker: Checker::new(plan.nodes, plan.network.slowest()),
            trace: Trace::new(),
            counters: Counters::default(),
            marks: Marks::default(),
            conns: 0,
            streams: 0,
            groups: Group::all(plan),
            truth_book: PolicyBook::new(mesh, NodeId([0; 32])),
            books: Books::default(),
            places: BTreeMap::new(),
            holders: Vec::new(),
            accounts: plan.workload.clients.iter().map(|one| one.account.parse().ok()).collect(),
            liars: BTreeSet::new(),
            members: members::Members::default(),
            secrets,
            idle_work: work::IdleWork::new(),
            clouds: clouds(plan),
            specs: Vec::new(),
            routes: Routes::default(),
            settings: settings::Observed::default(),
            exchanges: BTreeMap::new(),
            exchanges_made: 0,
            bills: bills::Bills::new(),
            cuts: Vec::new(),
            cuts_met: BTreeSet::new(),
            calm_since: None,
            purges: Vec::new(),
            learned: vec![Vec::new(); plan.nodes],
            probes: Vec::new(),
            again: probe::Again::default(),
            passing: limits::Passing::default(),
            paid_probes: Vec::new(),
            settling: Vec::new(),
            settling_as: None,
            said: adversary::speakers(plan),
            residents: loads::Residents::new(plan),
            strains: strain::Strains::new(plan),
            tenants: plan.workload.tenants.iter().filter_map(tenant_of).collect(),
            requests: Vec::new(),
            tally: Requests { finished_at: vec![0; plan.nodes], ..Requests::default() },
            swim_effects: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// How much longer periods are in a large mesh.
    const fn ease(&self) -> u64 {
        if self.plan.nodes > LARGE { LARGE_FACTOR } else { 1 }
    }

    fn prepare(&mut self) {
        for (index, fault) in self.plan.faults.iter().enumerate() {
            self.queue.push(Mono(fault.at.0), Class::Fault, Due::FaultBegan(index));
            self.queue.push(Mono(fault.until.0), Class::Fault, Due::FaultEnded(index));
        }
        self.found();
        let ease = self.ease() * self.ease();
        for node in 0..self.plan.nodes {
            self.boot(node);
            let mut stream = Stream::keyed(self.plan.seed, CLIENT, node, usize::MAX);
            let mut offset = |most: Micros| Mono(stream.below(most.0));
            let (report, sync) = (offset(REPORT_EVERY), offset(SYNC_EVERY.times(ease)));
            let write = offset(WRITE_EVERY.times(ease));
            self.queue.push(report, Class::Node, Due::EngineReported { node });
            self.queue.push(sync, Class::Node, Due::SyncCame { node });
            self.queue.push(write, Class::Node, Due::WriteCame { node });
        }
        for group in 0..self.groups.len() {
            let first = Mono(self.plan.workload.clients[group].from.0);
            self.queue.push(first, Class::Node, Due::ClientCame { group });
        }
        if !self.plan.workload.tenants.is_empty() {
            self.queue.push(Mono(policy::SIGNED_AT.0), Class::Fault, Due::Operated);
        }
        self.queue.push(Mono(AUDIT.0), Class::Check, Due::Audited);
        self.plan_probes();
        self.queue.push(Mono(self.plan.quiet_at.0), Class::Fault, Due::TimeTold);
        self.queue.push(Mono(0), Class::Check, Due::IdleLooked);
        self.queue.push(Mono(0), Class::Check, Due::Looked);
        self.learn_truth();
    }

    /// A process starts.
    fn boot(&mut self, node: usize) {
        self.nodes[node].start(self.now.0);
        if self.watch.wants_steps(node) {
            self.watch.detector_made(node, &self.nodes[node].memory.swim);
        }
        self.boot_desks(node);
        self.boot_cache(node);
        self.boot_purges(node);
        self.boot_settings(node);
        self.introduce_all(node);
        self.boot_budgets(node);
        self.wants_in(node);
        self.boot_machine(node);
    }

    fn happen(&mut self, due: Due) {
        let ease = self.ease();
        match due {
            Due::FaultBegan(index) => self.begin(index),
            Due::FaultEnded(index) => self.end(index),
            Due::Arrived { to, packet } => self.arrived(to, packet),
            Due::Dialled { from, to } => self.dialled(from, to),
            Due::Own { node, start, own } => self.own(node, start, own),
            Due::EngineReported { node } => {
                if self.nodes[node].acts() {
                    let load = self.nodes[node].memory.engine.pulse(self.now.0);
                    self.step(node, SwimInput::SelfReported { load });
                }
                self.again(REPORT_EVERY, Due::EngineReported { node });
            }
            Due::SyncCame { node } => {
                self.begin_sync(node);
                self.look_after_policy(node);
                self.look_after_settings(node);
                self.look_after_leases(node);
                self.again(SYNC_EVERY.times(ease * ease), Due::SyncCame { node });
            }
            Due::WriteCame { node } => {
                if self.nodes[node].acts() {
                    self.nodes[node].write(self.now.0);
                }
                if self.now.0 < self.writes_end() {
                    self.again(WRITE_EVERY.times(ease * ease), Due::WriteCame { node });
                }
            }
            Due::JoinSaid { from, to, attempt, message } => {
                self.join_said((from, to), attempt, *message);
            }
            Due::ClientCame { group } => self.client_came(group),
            Due::CloudSpeaks { exchange } => self.cloud_speaks(exchange),
            Due::ModelProbed { node, model } => self.probe_model(node, model),
            Due::Probed { node } => self.probe(node),
            Due::ProbedElsewhere => self.probe_elsewhere(),
            Due::ProbedAgain => self.probe_again(),
            Due::ProvidersProbed { node, group } => self.probe_providers(node, group),
            Due::Operated => self.operate(),
            Due::TimeTold => self.nodes.iter_mut().for_each(|node| node.clock.set()),
            Due::Audited => {
                self.audit();
                self.audit_work();
                self.audit_memories();
                let at = self.now.0.plus(AUDIT.times(ease * ease));
                self.queue.push(at, Class::Check, Due::Audited);
            }
            Due::Closed { node, peer } => self.close(node, peer),
            Due::IdleLooked => {
                self.drop_idle();
                let at = self.now.0.plus(IDLE_LOOK.times(ease));
                self.queue.push(at, Class::Check, Due::IdleLooked);
            }
            Due::Looked => {
                self.look();
                self.queue.push(self.now.0.plus(LOOK.times(ease)), Class::Check, Due::Looked);
            }
        }
    }

    /// A process does something by itself: a dead one does not, a stopped one does it later.
    fn own(&mut self, node: usize, start: u64, own: Own) {
        if self.nodes[node].starts != start || self.nodes[node].crashes > 0 {
            return;
        }
        if self.nodes[node].pauses > 0 {
            self.nodes[node].memory.late.push(own);
            return;
        }
        match own {
            Own::SwimTick => {
                if self.nodes[node].memory.tick_at.is_some_and(|at| at <= self.now.0) {
                    self.nodes[node].memory.tick_at = None;
                    self.step(node, SwimInput::Ticked);
                }
            }
            Own::FlowTick { request } => {
                let taken = self.nodes[node].memory.taken.get_mut(&request);
                if let Some(taken) = taken.filter(|t| t.tick_at.is_some_and(|at| at <= self.now.0))
                {
                    taken.tick_at = None;
                    self.flow(node, request, FlowInput::Ticked);
                }
            }
            Own::StepEnded => self.step_ended(node),
            Own::Alive { stream } => self.say_alive(node, stream),
            Own::HomePulse { request, fence } => self.home_pulse(node, request, fence),
            Own::ServeDeadline { stream } => self.serve_deadline(node, stream),
            Own::CallerLeft { request } => {
                if self.nodes[node].memory.relays.contains_key(&request) {
                    self.relay_left(node, request);
                } else if self.nodes[node].memory.taken.contains_key(&request) {
                    self.caller_left(node, request);
                } else {
                    self.waiter_left(node, request);
                }
            }
            Own::Flush { stream } => self.flush(node, stream),
            Own::Stop { to, conn, stream, after } => {
                self.stop(node, to, conn, (stream, after));
            }
            Own::Heard { exchange, word } => self.heard_provider(node, exchange, word),
            Own::ErrandTick { request } => self.errand_ticked(node, request),
            Own::TryAgain { request } => self.try_again(node, request),
            Own::VerdictDue { request } => self.verdict_due(node, request),
            Own::CacheWaited { request } => self.waited_at_cache(node, request),
            Own::CacheTold { request } => self.told_by_cache(node, request),
            Own::CacheLooked { request } => self.looked_enough(node, request),
            Own::CacheTells => self.tell_kept(node),
            Own::MemoryDue => self.memory_due(node),
            Own::MachineLooked => self.look_at_machine(node),
            Own::JoinTried => self.try_to_join(node),
            Own::JoinAnswered { attempt } => self.join_answered(node, attempt),
            Own::Left => self.left(node),
            Own::QuotaTick => self.quota_ticked(node),
            Own::Persisted { ticket } => self.persisted(node, ticket),
            Own::PersistFailed { ticket } => self.persist_failed(node, ticket),
        }
    }

    fn again(&mut self, after: Micros, due: Due) {
        self.queue.push(self.now.0.plus(after), Class::Node, due);
    }

    /// A process will do something by itself.
    fn later(&mut self, node: usize, at: Mono, own: Own) {
        let start = self.nodes[node].starts;
        self.queue.push(at.max(self.now.0), Class::Node, Due::Own { node, start, own });
    }

    fn id(&self, node: usize) -> NodeId {
        self.names.id(node)
    }

    fn record(&mut self, kind: &'static str, who: [usize; 2], bytes: &[u8]) {
        if self.watch.wants_records() {
            let (index, at) = (self.trace.records(), self.now.0);
            self.watch.record(Record { index, at, kind, who, bytes });
        }
        self.trace.record(self.now, kind, who, bytes);
    }

    /// Shows something to whoever watches.
    fn show(
        &mut self,
        kind: EventKind,
        node: impl Into<Option<usize>>,
        peer: impl Into<Option<usize>>,
        text: impl FnOnce() -> String,
    ) {
        if self.watch.wants_events() {
            let event = Event {
                at: self.now.0,
                kind,
                node: node.into(),
                peer: peer.into(),
                request: None,
                span: None,
                budget: None,
                amount: None,
                text: text(),
            };
            self.watch.event(event);
        }
    }

    /// Shows something about a request.
    fn show_request(
        &mut self,
        kind: EventKind,
        (node, peer): (usize, Option<usize>),
        (request, amount): (u64, Option<u64>),
        text: impl FnOnce() -> String,
    ) {
        if self.watch.wants_events() {
            let event = Event {
                at: self.now.0,
                kind,
                node: Some(node),
                peer,
                request: Some(request),
                span: None,
                budget: None,
                amount,
                text: text(),
            };
            self.watch.event(event);
        }
    }

    /// Something that must not happen did.
    fn broken(&mut self, invariant: Invariant, seen: String) {
        self.show(EventKind::Violated, None, None, || format!("{} {seen}", invariant.id()));
        self.checker.broken(self.now.0, invariant, seen);
    }

    fn hit(&mut self, mark: Mark) {
        self.marks.hit(mark);
    }

    /// Gives a node's detector a fact and carries out its orders.
    fn step(&mut self, node: usize, input: SwimInput) {
        let mut effects = std::mem::take(&mut self.swim_effects);
        let now = self.nodes[node].now(self.now.0);
        let kept = self.watch.wants_steps(node).then(|| input.clone());
        self.nodes[node].memory.swim.step(now, input, &mut effects);
        if let Some(input) = kept {
            self.watch.detector_stepped(node, now, input, &effects);
        }
        for effect in effects.drain(..) {
            match effect {
                SwimEffect::Send { to, message } => {
                    let to = self.names.index(&to);
                    self.send_swim(node, to, message);
                }
                SwimEffect::Declare { node: peer, state, why } => {
                    let peer = self.names.index(&peer);
                    self.record("declare", [node, peer], &[state as u8, why as u8]);
                    self.declared(node, peer, state, why);
                    if state == PeerState::Dead {
                        self.queue.push(self.now.0, Class::Network, Due::Closed { node, peer });
                    }
                }
                SwimEffect::Redial { node: peer } => {
                    let peer = self.names.index(&peer);
                    self.dial(node, peer);
                }
                SwimEffect::StoreIncarnation { incarnation } => {
                    self.record("store", [node, node], &incarnation.to_be_bytes());
                    self.nodes[node].disk.stored.incarnation = incarnation;
                    self.hit(Mark::GossipRefuted);
                }
            }
        }
        self.swim_effects = effects;
        let wanted = self.nodes[node].memory.swim.wake_at();
        if let Some(at) = wanted.map(|at| at.max(self.now.0))
            && self.nodes[node].memory.tick_at != Some(at)
        {
            self.nodes[node].memory.tick_at = Some(at);
            self.later(node, at, Own::SwimTick);
        }
    }
}
