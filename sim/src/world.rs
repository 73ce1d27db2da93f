//! The run itself: one queue, some nodes, a network, faults, an observer.

use std::fmt;

use selvedge_base::codec::encode_datagram;
use selvedge_base::{Micros, Mono};
use selvedge_crdt::{Digest, Merged, Row};
use selvedge_proto::swim::{MAX_MESSAGE_BYTES, PeerState, SwimEffect, SwimInput, SwimMessage};

use crate::check::{Checker, Detections, Truth, Violation};
use crate::engine::ENGINE_STEP;
use crate::network::Network;
use crate::node::{LinkEnd, MAX_BACKLOG, Node, is_signed, node_id, node_index};
use crate::plan::{FaultKind, Plan};
use crate::queue::{Class, Moment, Queue};
use crate::trace::{Trace, TraceHash};

/// A connection over which nothing came for this long is lost, as production configures QUIC.
const IDLE_TIMEOUT: Micros = Micros::secs(3);
/// How exactly idle connections are noticed.
const IDLE_LOOK: Micros = Micros::millis(100);
/// How often the observer looks: well below every bound.
const LOOK: Micros = Micros::millis(50);
/// How often a node compares rows with another one.
const SYNC_EVERY: Micros = Micros::secs(1);
/// How often a node writes its row.
const WRITE_EVERY: Micros = Micros::secs(2);
/// Bytes of rows in one delta: less than all rows of the larger meshes, so that rotation matters.
const ROW_BUDGET: usize = 400;
/// Writing stops this long after the last fault, so that everybody can come to agree.
const WRITES_GO_ON: Micros = Micros::secs(2);

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Over everything that happened.
    pub hash: TraceHash,
    /// The hash after every 1,024 records: shows where two runs part.
    pub checkpoints: Vec<TraceHash>,
    /// How long detections took.
    pub detections: Detections,
    /// What must not have happened.
    pub violations: Vec<Violation>,
    /// What did.
    pub counters: Counters,
}

/// How often things happened; shows that faults were real.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records in the trace.
    pub records: u64,
    /// Datagrams delivered.
    pub delivered: u64,
    /// Bytes of datagrams sent.
    pub sent_bytes: u64,
    /// Datagrams lost to chance.
    pub lost: u64,
    /// Datagrams that arrived twice.
    pub duplicated: u64,
    /// Datagrams that were overtaken.
    pub reordered: u64,
    /// Packets lost to cuts.
    pub cut: u64,
    /// Connections made.
    pub connections: u64,
    /// Rows taken over from others.
    pub rows_merged: u64,
    /// Faults that began, by name.
    pub faults: std::collections::BTreeMap<&'static str, u64>,
}

/// Runs a plan to its end.
pub fn run(plan: &Plan) -> Outcome {
    let mut world = World::new(plan);
    world.prepare();
    while let Some((moment, event)) = world.queue.pop() {
        if moment.0 > Mono(plan.span.0) {
            break;
        }
        world.now = moment;
        world.happen(event);
    }
    world.finish()
}

struct World<'a> {
    plan: &'a Plan,
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
    Arrived { to: usize, packet: Packet },
    Dialled { from: usize, to: usize },
    TickCame { node: usize },
    EngineStepped { node: usize },
    SyncCame { node: usize },
    WriteCame { node: usize },
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
    fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
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

    fn record(&mut self, kind: &str, who: [usize; 2], bytes: &[u8]) {
        self.trace.record(self.now, kind, who, bytes);
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

    fn send_swim(&mut self, from: usize, to: usize, message: SwimMessage) {
        let Some(conn) = self.nodes[from].links.get(&to).map(|link| link.conn) else { return };
        match encode_datagram(&message, MAX_MESSAGE_BYTES) {
            Ok(bytes) => {
                self.counters.sent_bytes += bytes.len() as u64;
                self.record("send", [from, to], &bytes);
            }
            Err(error) => {
                let seen = format!("node {from} to {to}: {error}");
                self.checker.broken(self.now.0, "a message fits a datagram", seen);
            }
        }
        for delay in self.network.datagram(from, to) {
            let packet = Packet { from, conn, load: Load::Swim(message.clone()) };
            self.deliver(to, delay, packet);
        }
    }

    fn send_reliable(&mut self, from: usize, to: usize, load: Load) {
        let Some(conn) = self.nodes[from].links.get(&to).map(|link| link.conn) else { return };
        if let Some(delay) = self.network.reliable(from, to) {
            self.deliver(to, delay, Packet { from, conn, load });
        }
    }

    fn deliver(&mut self, to: usize, delay: Micros, packet: Packet) {
        self.queue.push(self.now.0.plus(delay), Class::Network, Event::Arrived { to, packet });
    }

    fn arrived(&mut self, to: usize, packet: Packet) {
        if self.nodes[to].crashes > 0 {
            return;
        }
        if self.nodes[to].pauses > 0 {
            if self.nodes[to].backlog.len() < MAX_BACKLOG {
                self.nodes[to].backlog.push(packet);
            }
            return;
        }
        let Packet { from, conn, load } = packet;
        let known = self.nodes[to].links.get(&from).is_some_and(|link| link.conn == conn);
        if !known {
            let reset = matches!(load, Load::Reset);
            if let (false, Some(delay)) = (reset, self.network.reliable(to, from)) {
                self.deliver(from, delay, Packet { from: to, conn, load: Load::Reset });
            }
            return;
        }
        if let Some(link) = self.nodes[to].links.get_mut(&from) {
            link.heard_at = self.now.0;
        }
        self.counters.delivered += 1;
        self.record(load.as_str(), [from, to], &conn.to_be_bytes());
        match load {
            Load::Swim(message) => {
                self.step(to, SwimInput::Received { from: node_id(from), message });
            }
            Load::Digest(theirs) => self.answer_digest(to, from, &theirs, true),
            Load::Delta { rows, digest } => {
                self.take_rows(to, rows);
                if let Some(theirs) = digest {
                    self.answer_digest(to, from, &theirs, false);
                }
            }
            Load::Reset => self.lose_link(to, from),
        }
    }

    fn begin_sync(&mut self, node: usize) {
        let peers: Vec<usize> = self.nodes[node].links.keys().copied().collect();
        if !self.nodes[node].acts() || peers.is_empty() {
            return;
        }
        let peer = peers[self.nodes[node].dice.below(peers.len() as u64) as usize];
        let digest = self.nodes[node].rows.digest();
        self.send_reliable(node, peer, Load::Digest(digest));
    }

    fn answer_digest(&mut self, node: usize, peer: usize, theirs: &Digest, reply: bool) {
        let cursor = self.nodes[node].cursors.get(&peer).copied().flatten();
        let delta = self.nodes[node].rows.delta(theirs, cursor, ROW_BUDGET);
        self.nodes[node].cursors.insert(peer, delta.next);
        let digest = reply.then(|| self.nodes[node].rows.digest());
        self.send_reliable(node, peer, Load::Delta { rows: delta.rows, digest });
    }

    fn take_rows(&mut self, node: usize, rows: Vec<Row>) {
        for row in rows {
            let (writer, stamp) = (row.writer, row.stamp);
            let before = self.nodes[node].rows.get(&writer).map(|row| row.stamp);
            let merged = self.nodes[node].rows.merge(row, is_signed);
            match merged {
                Merged::Newer => {
                    self.counters.rows_merged += 1;
                    self.record("row", [node, node_index(&writer)], &stamp.seq.to_be_bytes());
                }
                Merged::Known => {}
                Merged::Conflict(_) | Merged::Refused(_) => {
                    let seen = format!("node {node}: {merged:?}");
                    self.checker.broken(self.now.0, "honest rows are taken", seen);
                }
            }
            let after = self.nodes[node].rows.get(&writer).map(|row| row.stamp);
            if after < before {
                let seen = format!("node {node}: {before:?} to {after:?}");
                self.checker.broken(self.now.0, "rows never go back", seen);
            }
        }
    }

    fn dial(&mut self, from: usize, to: usize) {
        let there = self.network.reliable(from, to);
        let back = self.network.reliable(to, from);
        if let (Some(there), Some(back)) = (there, back) {
            // A handshake takes a round trip, and its last flight another half.
            let at = self.now.0.plus(there).plus(back).plus(there);
            self.queue.push(at, Class::Network, Event::Dialled { from, to });
        }
    }

    fn dialled(&mut self, from: usize, to: usize) {
        let open = self.network.open(from, to) && self.network.open(to, from);
        if !open || !self.nodes[from].acts() || !self.nodes[to].acts() {
            return;
        }
        let conn_of = |node: &Node<Packet>, peer| node.links.get(&peer).map(|link| link.conn);
        let (ours, theirs) = (conn_of(&self.nodes[from], to), conn_of(&self.nodes[to], from));
        if ours.is_some() && ours == theirs {
            return;
        }
        self.lose_link(from, to);
        self.lose_link(to, from);
        self.conns += 1;
        self.counters.connections += 1;
        self.record("connected", [from, to], &self.conns.to_be_bytes());
        let end = LinkEnd { conn: self.conns, heard_at: self.now.0 };
        for (node, peer) in [(from, to), (to, from)] {
            self.nodes[node].links.insert(peer, end);
            let incarnation = self.nodes[peer].swim.incarnation();
            self.step(node, SwimInput::LinkUp { node: node_id(peer), incarnation });
        }
    }

    fn lose_link(&mut self, node: usize, peer: usize) {
        if self.nodes[node].links.remove(&peer).is_some() {
            self.record("link lost", [node, peer], &[]);
            self.checker.was_reset(self.now.0, node, peer);
            self.step(node, SwimInput::LinkLost { node: node_id(peer) });
        }
    }

    fn drop_idle(&mut self) {
        for node in 0..self.nodes.len() {
            if !self.nodes[node].acts() {
                continue;
            }
            let idle = |end: &LinkEnd| self.now.0.since(end.heard_at) >= IDLE_TIMEOUT;
            let links = self.nodes[node].links.iter();
            let lost: Vec<usize> =
                links.filter(|(_, end)| idle(end)).map(|(peer, _)| *peer).collect();
            for peer in lost {
                self.lose_link(node, peer);
            }
        }
    }

    fn begin(&mut self, index: usize) {
        let kind = self.plan.faults[index].kind.clone();
        *self.counters.faults.entry(kind.as_str()).or_default() += 1;
        self.record("fault", [index, 0], kind.as_str().as_bytes());
        match kind {
            FaultKind::Crash { node, reset } => {
                self.nodes[node].crashes += 1;
                self.learn_truth();
                if reset {
                    self.say_goodbye(node);
                }
            }
            FaultKind::Pause { node } => self.nodes[node].pauses += 1,
            FaultKind::Freeze { node } => {
                self.nodes[node].freezes += 1;
                self.nodes[node].engine.freeze(true);
            }
            FaultKind::OneWay { .. } | FaultKind::Isolate { .. } | FaultKind::Halves { .. } => {
                self.network.begin_cut(index, kind);
            }
        }
        self.learn_truth();
    }

    fn end(&mut self, index: usize) {
        let kind = self.plan.faults[index].kind.clone();
        self.record("healed", [index, 0], kind.as_str().as_bytes());
        match kind {
            FaultKind::Crash { node, .. } => {
                self.nodes[node].crashes -= 1;
                if self.nodes[node].crashes == 0 {
                    self.nodes[node].start();
                    self.checker.restarted(node);
                    self.introduce(node);
                }
            }
            FaultKind::Pause { node } => {
                self.nodes[node].pauses -= 1;
                if self.nodes[node].acts() {
                    self.learn_truth();
                    self.checker.went_on(self.now.0, node);
                    self.go_on(node);
                }
            }
            FaultKind::Freeze { node } => {
                self.nodes[node].freezes -= 1;
                let frozen = self.nodes[node].freezes > 0;
                self.nodes[node].engine.freeze(frozen);
            }
            FaultKind::OneWay { .. } | FaultKind::Isolate { .. } | FaultKind::Halves { .. } => {
                self.network.end_cut(index);
            }
        }
        self.learn_truth();
    }

    /// A process that ends in good order closes its connections.
    fn say_goodbye(&mut self, node: usize) {
        let links = std::mem::take(&mut self.nodes[node].links);
        for (peer, end) in links {
            if let Some(delay) = self.network.reliable(node, peer) {
                self.deliver(peer, delay, Packet { from: node, conn: end.conn, load: Load::Reset });
            }
        }
    }

    /// A stopped process goes on: its socket is full, its timers are late.
    fn go_on(&mut self, node: usize) {
        let backlog = std::mem::take(&mut self.nodes[node].backlog);
        for packet in backlog {
            self.deliver(node, Micros::ZERO, packet);
        }
        self.nodes[node].tick_at = Some(self.now.0);
        self.queue.push(self.now.0, Class::Node, Event::TickCame { node });
    }

    fn introduce(&mut self, node: usize) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.step(node, SwimInput::PeerIntroduced { node: node_id(peer) });
        }
    }

    fn learn_truth(&mut self) {
        let count = self.nodes.len();
        let healthy = |one: usize, other: usize| {
            self.nodes[one].acts()
                && self.nodes[other].acts()
                && self.network.open(one, other)
                && self.network.open(other, one)
        };
        let gone = |peer: usize| {
            let heard_by =
                |other: usize| self.nodes[other].acts() && self.network.open(peer, other);
            !self.nodes[peer].acts() || !(0..count).any(|other| other != peer && heard_by(other))
        };
        let mut truths = Vec::new();
        for observer in 0..count {
            for peer in (0..count).filter(|peer| *peer != observer) {
                let mut others =
                    (0..count).filter(|other| *other != observer && *other != peer).peekable();
                let truth = Truth {
                    watching: self.nodes[observer].acts(),
                    gone: gone(peer),
                    frozen: self.nodes[peer].freezes > 0,
                    healthy: healthy(observer, peer),
                    backed: others.peek().is_some()
                        && others.all(|other| healthy(other, observer) && healthy(other, peer)),
                };
                truths.push((observer, peer, truth));
            }
        }
        for (observer, peer, truth) in truths {
            self.checker.learn(self.now.0, observer, peer, truth);
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
                self.checker.broken(end, "after healing all hold each other alive", seen);
            }
        }
        let digests: Vec<Digest> = self.nodes.iter().map(|node| node.rows.digest()).collect();
        if digests.windows(2).any(|pair| pair[0] != pair[1]) {
            let seen = format!("{digests:?}");
            self.checker.broken(end, "after healing all rows agree", seen);
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

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "hash {} after {} records", self.hash, self.counters.records)?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "{violation}"))
    }
}
