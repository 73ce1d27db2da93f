//! One simulated process: production machines, a model engine, a disk, clocks, and its ends of
//! connections.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use selvedge_base::{Dice, MeshId, Micros, Mono, NodeId, Now, Refusal, Wall};
use selvedge_contract::Condition;
use selvedge_core::auth::KeyRing;
use selvedge_core::flow::Flow;
use selvedge_core::journey::Target;
use selvedge_core::meter::Meter;
use selvedge_core::quota::{Intake, Quota, QuotaInput};
use selvedge_core::receive::{Receipts, ReceivePolicy};
use selvedge_core::route::{MeshView, NodeView};
use selvedge_core::routes::{Latency, Routes};
use selvedge_core::{FlowInput, HandOff, HandOffReply, NodeRow};
use selvedge_crdt::{Merged, Row, RowMap, Stamp};
use selvedge_proto::answers::PurgeBook;
use selvedge_proto::join::Invites;
use selvedge_proto::policy::PolicyBook;
use selvedge_proto::records::{Credential, Roster};
use selvedge_proto::settings::SettingsBook;
use selvedge_proto::swim::{PeerState, PeerView, Swim};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::engine::Engine;
use crate::names::{Names, is_row_signed, sign_row};
use crate::plan::{EnginePlan, MAX_NODES, MemoryPlan};
use crate::stream::Stream;
use crate::world::{CacheSide, DeskSide, Drawn, Joining, Machines, Relayed, ring};

/// Rows a node keeps: everybody's.
pub(crate) const MAX_ROWS: usize = MAX_NODES;
/// Packets a stopped process finds in its socket when it goes on; a default socket buffer holds
/// about so many.
pub(crate) const MAX_BACKLOG: usize = 256;
/// The purpose of the disks' streams.
const DISK: u64 = 2;

/// A process and its disk.
pub(crate) struct Node<P, W> {
    pub(crate) id: NodeId,
    seed: u64,
    index: usize,
    mesh: MeshId,
    engine_plan: EnginePlan,
    /// The models that share its engine's memory, if any do.
    pub(crate) shares: MemoryPlan,
    /// How its machine really stands.
    pub(crate) sensors: Condition,
    pub(crate) site: usize,
    /// How many faults keep it down, stopped, or its engine frozen.
    pub(crate) crashes: u32,
    pub(crate) pauses: u32,
    pub(crate) freezes: u32,
    pub(crate) throttles: Vec<u64>,
    pub(crate) shortages: u32,
    pub(crate) load_failures: u32,
    pub(crate) boasts: u32,
    /// Requests one peer may have running here.
    pub(crate) per_peer: usize,
    /// It was put out of the mesh.
    pub(crate) is_revoked: bool,
    /// Since when: what it signs later is void.
    pub(crate) revoked_at: Option<Wall>,
    /// A steward ever let it in.
    pub(crate) is_in: bool,
    /// Keys that only this node knows; its operator keeps them apart from the disk.
    pub(crate) ring: KeyRing,
    /// It was told to join.
    pub(crate) may_join: bool,
    /// It is leaving, or left, for good.
    pub(crate) is_leaving: bool,
    pub(crate) has_left: bool,
    /// The newest wire version its build speaks.
    pub(crate) version: u8,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    /// Counts the starts, so that what the last process asked for is not done for this one.
    pub(crate) starts: u64,
    pub(crate) memory: Memory<P, W>,
}

/// What a process loses when it dies.
pub(crate) struct Memory<P, W> {
    pub(crate) swim: Swim,
    pub(crate) rows: RowMap,
    pub(crate) roster: Roster,
    /// What each linked peer presents; one entry per peer.
    pub(crate) presented: BTreeMap<usize, Credential>,
    /// The state of the roster by which they were judged last.
    pub(crate) judged_by: (u32, usize),
    pub(crate) invites: Invites,
    pub(crate) joining: Joining,
    pub(crate) renewed_at: Option<Mono>,
    /// The latest wall time this process saw; reaches the disk too seldom to outlive a crash.
    pub(crate) latest_wall: Wall,
    pub(crate) engine: Engine,
    /// This side of each connection, by peer.
    pub(crate) links: Vec<LinkEnd>,
    pub(crate) linked: usize,
    /// Before this no connection has been silent for long enough to be looked at.
    pub(crate) silent_from: Mono,
    /// Rotation of deltas, by peer.
    pub(crate) cursors: BTreeMap<usize, Option<NodeId>>,
    /// What arrived while the process was stopped, and what it would have done.
    pub(crate) backlog: Vec<P>,
    pub(crate) late: Vec<W>,
    /// When the detector's next tick is in the queue.
    pub(crate) tick_at: Option<Mono>,
    pub(crate) dice: Dice,
    pub(crate) route_dice: Dice,
    writes: u64,
    written: NodeRow,
    /// Requests this node took from clients, by number.
    pub(crate) taken: BTreeMap<u64, Taken>,
    /// Requests of peers, by stream.
    pub(crate) served: BTreeMap<u64, Served>,
    /// Which request and attempt a stream of this node's own carries, ended ones included.
    pub(crate) streams: BTreeMap<u64, (u64, u64)>,
    pub(crate) in_flight: BTreeMap<NodeId, u32>,
    pub(crate) view: MeshView,
    stale: BTreeSet<NodeId>,
    pub(crate) receive: ReceivePolicy,
    /// None in builds of before budgets, and where there are none.
    pub(crate) quota: Option<Box<Quota>>,
    pub(crate) quota_inbox: VecDeque<QuotaInput>,
    pub(crate) quota_busy: bool,
    /// The request that is being asked for.
    pub(crate) asking: Option<u64>,
    pub(crate) quota_tick_at: Option<Mono>,
    pub(crate) book: PolicyBook,
    /// The routes of the mesh, what is in force of them, and by which revision.
    pub(crate) settings: SettingsBook,
    pub(crate) routes: Routes,
    pub(crate) routed_by: u64,
    /// Receipts of hand-offs worked on here.
    pub(crate) receipts: Receipts,
    /// What peers may still have checked.
    pub(crate) intake: Intake,
    /// Requests that may leave the mesh, by number; a turn in the mesh is among the taken ones too.
    pub(crate) relays: BTreeMap<u64, Relayed>,
    /// One for each provider.
    pub(crate) desks: Vec<DeskSide>,
    /// The purges of the mesh.
    pub(crate) purges: PurgeBook,
    /// How this machine and those of linked peers stand, as far as they were told.
    pub(crate) machines: Machines,
    /// The exact cache, where there is one.
    pub(crate) cache: Option<Box<CacheSide>>,
    /// How fast targets answered; as many as routes and providers name.
    pub(crate) measured: BTreeMap<Target, Latency>,
}

/// One side of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkEnd {
    /// 0 = none.
    pub(crate) conn: u64,
    pub(crate) heard_at: Mono,
    /// The wire version both ends agreed on.
    pub(crate) version: u8,
}

/// A request at the node that took it.
pub(crate) struct Taken {
    pub(crate) flow: Flow,
    pub(crate) meter: Meter,
    /// Whether the budgets have granted it.
    pub(crate) granted: bool,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) tick_at: Option<Mono>,
    /// What the observer believes it draws from.
    pub(crate) drawn: Drawn,
    /// Everything reserved is used and more was asked for: answers wait for the budgets' word.
    pub(crate) waits: bool,
    pub(crate) held: VecDeque<FlowInput>,
    /// Why no more will be reserved; it ends when what it has is used.
    pub(crate) refused: Option<Refusal>,
}

impl Taken {
    /// One that was not reserved for yet.
    pub(crate) fn new(flow: Flow, meter: Meter) -> Self {
        Self {
            flow,
            meter,
            granted: false,
            attempt: None,
            tick_at: None,
            drawn: Drawn::default(),
            waits: false,
            held: VecDeque::new(),
            refused: None,
        }
    }
}

/// One node's turn at a request.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) fence: u64,
    pub(crate) to: usize,
    /// None at home.
    pub(crate) stream: Option<u64>,
    /// When the hand-off arrives: no word of the same stream overtakes it.
    pub(crate) opens_at: Mono,
}

/// A request at a node that serves a peer.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) peer: usize,
    pub(crate) conn: u64,
    pub(crate) outbox: Outbox,
    pub(crate) said_at: Mono,
    pub(crate) deadline_at: Mono,
    /// The last was said; kept while something of it is unsent.
    pub(crate) has_ended: bool,
}

/// What is written to a stream arrives in order, whatever is lost on the way.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) last_at: Mono,
    pub(crate) unsent: VecDeque<HandOffReply>,
}

/// What crosses a stream's beginning.
pub(crate) type Opened = Box<HandOff>;

impl<P, W> Node<P, W> {
    pub(crate) fn new(
        (seed, mesh): (u64, MeshId),
        (index, nodes, sites): (usize, usize, usize),
        id: NodeId,
        engine_plan: EnginePlan,
        (fsync, forgets): (Micros, bool),
    ) -> Self {
        let site = index % sites;
        let disk = Disk::new(fsync, forgets, Stream::keyed(seed, DISK, index, 0));
        Self {
            id,
            seed,
            index,
            mesh,
            engine_plan,
            shares: MemoryPlan::default(),
            sensors: Condition::default(),
            site,
            crashes: 0,
            pauses: 0,
            freezes: 0,
            throttles: Vec::new(),
            shortages: 0,
            load_failures: 0,
            boasts: 0,
            per_peer: usize::MAX,
            is_revoked: false,
            revoked_at: None,
            is_in: true,
            ring: ring(&id),
            may_join: true,
            is_leaving: false,
            has_left: false,
            version: selvedge_base::codec::VERSION,
            clock: Clock::default(),
            disk,
            starts: 0,
            memory: Memory::empty((seed, index, 0, nodes), (id, mesh), engine_plan, site, Mono(0)),
        }
    }

    /// Starts the process with what the disk holds.
    pub(crate) fn start(&mut self, now: Mono) {
        self.starts += 1;
        self.disk.stored.incarnation += 1;
        let nodes = self.memory.links.len();
        let key = (self.seed, self.index, self.disk.stored.incarnation, nodes);
        self.memory = Memory::empty(key, (self.id, self.mesh), self.engine_plan, self.site, now);
        if let Some(book) = self.disk.stored.roster.clone()
            && let Ok(roster) = Roster::from_snapshot(book, self.id)
        {
            self.memory.roster = roster;
        }
        self.memory.latest_wall = self.disk.stored.latest_wall.max(self.clock.now(now).wall);
        self.memory.receive.max_per_peer = self.per_peer;
        self.memory.invites = self.disk.stored.invites.clone();
        let engine = &mut self.memory.engine;
        engine.share(&self.shares, now, (self.seed, self.index, self.starts));
        engine.frozen = self.freezes > 0;
        engine.throttle = self.throttles.iter().copied().max().unwrap_or(1);
        engine.squeeze(self.shortages > 0);
        if self.load_failures > 0 {
            engine.fail(now, true, &mut Vec::new());
        }
    }

    /// Whether it takes steps.
    pub(crate) const fn acts(&self) -> bool {
        self.crashes == 0 && self.pauses == 0
    }

    pub(crate) fn now(&self, mono: Mono) -> Now {
        self.clock.now(mono)
    }

    /// Random numbers of this process for one purpose.
    pub(crate) fn dice(&self, what: &str) -> Dice {
        let incarnation = self.disk.stored.incarnation;
        Dice::keyed(self.seed, &format!("{what}/{}/{incarnation}", self.index))
    }

    /// Writes the node's own row if it has anything new to say.
    pub(crate) fn write(&mut self, now: Mono) -> bool {
        let mut row = NodeRow {
            site: site_name(self.site),
            engine: self.memory.engine.status(now),
            ..NodeRow::default()
        };
        if self.boasts > 0 {
            boast(&mut row);
        }
        let memory = &mut self.memory;
        if memory.writes > 0 && memory.written == row {
            return false;
        }
        memory.writes += 1;
        // Refutations raise the incarnation too; rows of the next start still come after these.
        let stamp = Stamp { incarnation: memory.swim.incarnation(), seq: memory.writes };
        let Ok(mut draft) = Row::draft(self.id, stamp, &row) else { return false };
        sign_row(&mut draft);
        let merged = memory.rows.merge(draft, is_row_signed);
        debug_assert_eq!(merged, Merged::Newer, "a writer's next row is newer than its last");
        memory.written = row;
        true
    }

    /// What the node knows of the mesh now.
    pub(crate) fn view(&mut self, now: Mono, names: &Names) -> &MeshView {
        let (id, site) = (self.id, self.site);
        let memory = &mut self.memory;
        if memory.view.nodes.is_empty() {
            memory.view.nodes.push(blank(id, site, true));
        }
        memory.view.nodes[0].engine = memory.engine.status(now);
        memory.view.nodes[0].machine.now = memory.machines.own;
        let mut at = 1;
        for peer in memory.swim.states() {
            let nodes = &mut memory.view.nodes;
            if nodes.get(at).is_none_or(|node| node.node != peer.node) {
                // Peers come in order, so that one that is missing belongs here; forgotten ones
                // are left behind and cut off below.
                nodes.insert(at, blank(peer.node, 0, false));
                memory.stale.insert(peer.node);
            }
            let index = names.index(&peer.node);
            let linked = memory.links[index].conn != 0;
            let row = memory.stale.remove(&peer.node).then(|| memory.rows.get(&peer.node));
            refresh(&mut nodes[at], &peer, linked, row.flatten());
            nodes[at].machine.now = memory.machines.of(index);
            at += 1;
        }
        memory.view.nodes.truncate(at);
        &memory.view
    }
}

impl<P, W> Memory<P, W> {
    fn empty(
        (seed, index, incarnation, nodes): (u64, usize, u64, usize),
        (id, mesh): (NodeId, MeshId),
        engine: EnginePlan,
        site: usize,
        now: Mono,
    ) -> Self {
        let dice = |what: &str| Dice::keyed(seed, &format!("{what}/{index}/{incarnation}"));
        Self {
            swim: Swim::new(id, incarnation, dice("swim")),
            rows: RowMap::new(MAX_ROWS),
            roster: Roster::new(mesh, id),
            presented: BTreeMap::new(),
            judged_by: (0, 0),
            invites: Invites::default(),
            joining: Joining::default(),
            renewed_at: None,
            latest_wall: Wall(0),
            engine: Engine::new(engine, index.is_multiple_of(engine.every), now),
            links: vec![LinkEnd::default(); nodes],
            linked: 0,
            silent_from: Mono(0),
            cursors: BTreeMap::new(),
            backlog: Vec::new(),
            late: Vec::new(),
            tick_at: None,
            dice: dice("node"),
            route_dice: dice("route"),
            writes: 0,
            written: NodeRow::default(),
            taken: BTreeMap::new(),
            served: BTreeMap::new(),
            streams: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            view: MeshView { me: id, mesh: Some(mesh), nodes: Vec::new() },
            stale: BTreeSet::new(),
            receive: ReceivePolicy {
                site: site_name(site),
                tenants: BTreeSet::new(),
                max_per_peer: usize::MAX,
            },
            quota: None,
            quota_inbox: VecDeque::new(),
            quota_busy: false,
            asking: None,
            quota_tick_at: None,
            book: PolicyBook::new(mesh, id),
            settings: SettingsBook::new(mesh),
            routes: Routes::default(),
            routed_by: 0,
            receipts: Receipts::default(),
            intake: Intake::default(),
            relays: BTreeMap::new(),
            desks: Vec::new(),
            purges: PurgeBook::new(mesh),
            machines: Machines::default(),
            cache: None,
            measured: BTreeMap::new(),
        }
    }

    pub(crate) fn link(&self, peer: usize) -> Option<LinkEnd> {
        self.links.get(peer).copied().filter(|link| link.conn != 0)
    }

    /// A row of this writer is new: the view must follow.
    pub(crate) fn row_changed(&mut self, writer: NodeId) {
        self.stale.insert(writer);
    }
}

/// Says that it has nothing to do and is faster than any machine.
fn boast(row: &mut NodeRow) {
    for model in &mut row.engine.models {
        model.running = 0;
        model.queued = 0;
        model.pending_prompt_tokens = 0;
        model.prefill_rate = u32::MAX;
        model.step_us = 1;
    }
}

pub(crate) fn site_name(site: usize) -> String {
    format!("s{site}")
}

fn blank(node: NodeId, site: usize, me: bool) -> NodeView {
    NodeView {
        node,
        me,
        name: String::new(),
        site: if me { site_name(site) } else { String::new() },
        state: PeerState::Alive,
        why: String::new(),
        linked: me,
        rtt: None,
        addrs: Vec::new(),
        api: None,
        version: String::new(),
        engine: selvedge_contract::EngineStatus::default(),
        machine: selvedge_contract::Machine::default(),
    }
}

/// Puts together what production puts together: the row, then the fresher facts of the detector.
fn refresh(node: &mut NodeView, peer: &PeerView, linked: bool, row: Option<&Row>) {
    if let Some(row) = row.and_then(|row| row.value::<NodeRow>().ok())
        && row.is_within_bounds()
    {
        node.site = row.site;
        node.engine = row.engine;
    }
    node.state = peer.state;
    node.linked = linked;
    node.rtt = peer.rtt;
    node.engine.progress = peer.pulse.progress;
    node.engine.computing = peer.pulse.computing;
    node.engine.loading = peer.pulse.loading;
    for model in &mut node.engine.models {
        model.running = peer.pulse.running;
        model.queued = peer.pulse.queued;
    }
}
