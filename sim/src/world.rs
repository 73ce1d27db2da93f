//! The run itself: one queue, some nodes, a network, faults, an observer.

mod faults;
mod traffic;

use selvedge_base::{Micros, Mono};
use selvedge_crdt::{Digest, Row};
use selvedge_proto::swim::{PeerState, SwimEffect, SwimInput, SwimMessage};

use crate::check::Checker;
use crate::engine::ENGINE_STEP;
use crate::invariant::Invariant;
use crate::marks::Marks;
use crate::network::Network;
use crate::node::{Node, node_index};
use crate::outcome::{Counters, Outcome, Requests};
use crate::plan::{Plan, PlanError};
use crate::queue::{Class, Moment, Queue};
use crate::trace::Trace;
use crate::watch::{Event as Shown, EventKind, Record, Watch};

/// How exactly idle connections are noticed.
const IDLE_LOOK: Micros = Micros::millis(100);
/// How often the observer looks: well below every bound.
const LOOK: Micros = Micros::millis(50);
/// How often a node compares rows with another one.
const SYNC_EVERY: Micros = Micros::secs(1);
/// How often a node writes its row.
const WRITE_EVERY: Micros = Micros::secs(2);
/// Writing stops this long after the last fault, so that everybody can come to agree.
const WRITES_GO_ON: Micros = Micros::secs(2);

/// Runs a plan to its end.
///
/// # Errors
/// As [`Plan::check`].
pub fn run(plan: &Plan, watch: &mut dyn Watch) -> Result<Outcome, PlanError> {
    plan.check()?;
    let mut world = World::new(plan, watch);
    world.prepare();
    while let Some((moment, event)) = world.queue.pop() {
        if moment.0 > Mono(plan.span.0) {
            break;
        }
        world.now = moment;
        world.happen(event);
    }
    Ok(world.finish())
}

struct World<'a> {
    plan: &'a Plan,
    watch: &'a mut dyn Watch,
    now: Moment,
    queue: Queue<Event>,
    nodes: Vec<Node<Packet>>,
    network: Network,
    checker: Checker,
    trace: Trace,
    counters: Counters,
    conns: u64,
}

enum Event {
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
    TickCame {
        node: usize,
    },
    EngineStepped {
        node: usize,
    },
    SyncCame {
        node: usize,
    },
    WriteCame {
        node: usize,
    },
    /// A node closes the connection to a peer it holds dead, as production does.
    Closed {
        node: usize,
        peer: usize,
    },
    IdleLooked,
    Looked,
}

#[derive(Debug)]
struct Packet {
    from: usize,
    conn: u64,
    load: Load,
}

#[derive(Debug)]
enum Load {
    Swim(SwimMessage),
    Digest(Digest),
    Delta {
        rows: Vec<Row>,
        digest: Option<Digest>,
    },
    /// The other side knows no such connection.
    Reset,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, watch: &'a mut dyn Watch) -> Self {
        Self {
            plan,
            watch,
            now: (Mono(0), Class::Fault, 0),
            queue: Queue::new(),
            nodes: (0..plan.nodes).map(|index| Node::new(plan.seed, index)).collect(),
            network: Network::new(plan.seed, plan.network),
            checker: Checker::new(plan.network.slowest()),
            trace: Trace::new(),
            counters: Counters::default(),
            conns: 0,
        }
    }

    fn prepare(&mut self) {
        for (index, fault) in self.plan.faults.iter().enumerate() {
            self.queue.push(Mono(fault.at.0), Class::Fault, Event::FaultBegan(index));
            self.queue.push(Mono(fault.until.0), Class::Fault, Event::FaultEnded(index));
        }
        for node in 0..self.plan.nodes {
            let offset = Mono(self.nodes[node].dice.below(ENGINE_STEP.0));
            self.queue.push(offset, Class::Node, Event::EngineStepped { node });
            let offset = Mono(self.nodes[node].dice.below(SYNC_EVERY.0));
            self.queue.push(offset, Class::Node, Event::SyncCame { node });
            let offset = Mono(self.nodes[node].dice.below(WRITE_EVERY.0));
            self.queue.push(offset, Class::Node, Event::WriteCame { node });
            self.introduce(node);
        }
        self.queue.push(Mono(0), Class::Check, Event::IdleLooked);
        self.queue.push(Mono(0), Class::Check, Event::Looked);
        self.learn_truth();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::FaultBegan(index) => self.begin(index),
            Event::FaultEnded(index) => self.end(index),
            Event::Arrived { to, packet } => self.arrived(to, packet),
            Event::Dialled { from, to } => self.dialled(from, to),
            Event::TickCame { node } => {
                if self.nodes[node].tick_at == Some(self.now.0) && self.nodes[node].acts() {
                    self.nodes[node].tick_at = None;
                    self.step(node, SwimInput::Ticked);
                }
            }
            Event::EngineStepped { node } => {
                if self.nodes[node].acts() {
                    let load = self.nodes[node].engine.step();
                    self.step(node, SwimInput::SelfReported { load });
                }
                self.again(ENGINE_STEP, Event::EngineStepped { node });
            }
            Event::SyncCame { node } => {
                self.begin_sync(node);
                self.again(SYNC_EVERY, Event::SyncCame { node });
            }
            Event::WriteCame { node } => {
                if self.nodes[node].acts() {
                    self.nodes[node].write();
                }
                if self.now.0 < Mono(self.plan.quiet_at.plus(WRITES_GO_ON).0) {
                    self.again(WRITE_EVERY, Event::WriteCame { node });
                }
            }
            Event::Closed { node, peer } => self.close(node, peer),
            Event::IdleLooked => {
                self.drop_idle();
                self.queue.push(self.now.0.plus(IDLE_LOOK), Class::Check, Event::IdleLooked);
            }
            Event::Looked => {
                self.look();
                self.queue.push(self.now.0.plus(LOOK), Class::Check, Event::Looked);
            }
        }
    }

    fn again(&mut self, after: Micros, event: Event) {
        self.queue.push(self.now.0.plus(after), Class::Node, event);
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
            let (at, node, peer) = (self.now.0, node.into(), peer.into());
            let (request, span, text) = (None, None, text());
            let (budget, amount) = (None, None);
            self.watch.event(Shown { at, kind, node, peer, request, span, budget, amount, text });
        }
    }

    /// Gives a node's detector a fact and carries out its orders.
    fn step(&mut self, node: usize, input: SwimInput) {
        let effects = self.nodes[node].step(self.now.0, input);
        for effect in effects {
            match effect {
                SwimEffect::Send { to, message } => self.send_swim(node, node_index(&to), message),
                SwimEffect::Declare { node: peer, state, why } => {
                    let peer = node_index(&peer);
                    self.record("declare", [node, peer], &[state as u8, why as u8]);
                    self.checker.declared(self.now.0, node, peer, (state, why));
                    self.show(EventKind::Declared, node, peer, || {
                        format!("{state:?}: {}", why.as_str()).to_lowercase()
                    });
                    if state == PeerState::Dead {
                        self.queue.push(self.now.0, Class::Network, Event::Closed { node, peer });
                    }
                }
                SwimEffect::Redial { node: peer } => self.dial(node, node_index(&peer)),
                SwimEffect::StoreIncarnation { incarnation } => {
                    self.record("store", [node, node], &incarnation.to_be_bytes());
                    self.nodes[node].stored_incarnation = incarnation;
                }
            }
        }
        let wanted = self.nodes[node].wake_at();
        if let Some(at) = wanted.map(|at| at.max(self.now.0))
            && self.nodes[node].tick_at != Some(at)
        {
            self.nodes[node].tick_at = Some(at);
            self.queue.push(at, Class::Node, Event::TickCame { node });
        }
    }

    fn look(&mut self) {
        for (observer, node) in self.nodes.iter().enumerate() {
            if !node.acts() {
                continue;
            }
            for view in node.swim.states() {
                self.checker.look(self.now.0, observer, node_index(&view.node), view.state);
            }
        }
    }

    fn finish(mut self) -> Outcome {
        let end = Mono(self.plan.span.0);
        for (index, node) in self.nodes.iter().enumerate() {
            for view in node.swim.states().filter(|view| view.state != PeerState::Alive) {
                let seen = format!("node {index}: {view:?}");
                self.checker.broken(end, Invariant::LiveViewsAgree, seen);
            }
        }
        let digests: Vec<Digest> = self.nodes.iter().map(|node| node.rows.digest()).collect();
        if digests.windows(2).any(|pair| pair[0] != pair[1]) {
            let seen = format!("{digests:?}");
            self.checker.broken(end, Invariant::LiveRowsAgree, seen);
        }
        let (hash, checkpoints, records) = self.trace.finish();
        self.counters.records = records;
        self.counters.lost = self.network.lost;
        self.counters.duplicated = self.network.duplicated;
        self.counters.reordered = self.network.reordered;
        self.counters.cut = self.network.cut;
        Outcome {
            hash,
            checkpoints,
            detections: self.checker.detections,
            violations: self.checker.violations,
            counters: self.counters,
            requests: Requests::default(),
            budgets: Vec::new(),
            marks: Marks::default(),
        }
    }
}

impl Load {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Swim(_) => "swim",
            Self::Digest(_) => "digest",
            Self::Delta { .. } => "delta",
            Self::Reset => "reset",
        }
    }
}
