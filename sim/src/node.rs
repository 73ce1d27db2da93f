//! One simulated process: production machines, a model engine, a disk, and its ends of connections.

use std::collections::BTreeMap;

use selvedge_base::{Dice, Machine, Mono, NodeId, Now, Wall};
use selvedge_crdt::{Merged, Row, RowMap, Signature, Stamp};
use selvedge_proto::swim::{Swim, SwimEffect, SwimInput};

use crate::engine::Engine;
use crate::plan::MAX_NODES;

/// Rows a node keeps: everybody's.
const MAX_ROWS: usize = MAX_NODES;
/// Packets a stopped process finds in its socket when it goes on; a default socket buffer holds
/// about so many.
pub(crate) const MAX_BACKLOG: usize = 256;
/// Wall time when a run begins: any date will do, as long as it is always the same.
const EPOCH: Wall = Wall(1_800_000_000_000);

/// A process and its disk.
#[derive(Debug)]
pub(crate) struct Node<P> {
    pub(crate) id: NodeId,
    seed: u64,
    index: usize,
    /// How many faults keep it down, stopped, or its engine frozen.
    pub(crate) crashes: u32,
    pub(crate) pauses: u32,
    pub(crate) freezes: u32,
    /// The disk: what survives a crash.
    pub(crate) stored_incarnation: u64,
    pub(crate) swim: Swim,
    pub(crate) rows: RowMap,
    pub(crate) engine: Engine,
    /// This side of each connection, by peer.
    pub(crate) links: BTreeMap<usize, LinkEnd>,
    /// Rotation of deltas, by peer.
    pub(crate) cursors: BTreeMap<usize, Option<NodeId>>,
    /// What arrived while the process was stopped.
    pub(crate) backlog: Vec<P>,
    /// When the next tick is in the queue.
    pub(crate) tick_at: Option<Mono>,
    pub(crate) dice: Dice,
    writes: u64,
}

/// One side of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkEnd {
    pub(crate) conn: u64,
    pub(crate) heard_at: Mono,
}

impl<P> Node<P> {
    pub(crate) fn new(seed: u64, index: usize) -> Self {
        let mut node = Self {
            id: node_id(index),
            seed,
            index,
            crashes: 0,
            pauses: 0,
            freezes: 0,
            stored_incarnation: 0,
            swim: Swim::new(node_id(index), 0, Dice::keyed(seed, "unused")),
            rows: RowMap::new(MAX_ROWS),
            engine: Engine::new(Dice::keyed(seed, "unused")),
            links: BTreeMap::new(),
            cursors: BTreeMap::new(),
            backlog: Vec::new(),
            tick_at: None,
            dice: Dice::keyed(seed, &format!("node/{index}")),
            writes: 0,
        };
        node.start();
        node
    }

    /// Starts the process with what the disk holds.
    pub(crate) fn start(&mut self) {
        self.stored_incarnation += 1;
        let purpose = |what: &str| format!("{what}/{}/{}", self.index, self.stored_incarnation);
        let swim_dice = Dice::keyed(self.seed, &purpose("swim"));
        let engine_dice = Dice::keyed(self.seed, &purpose("engine"));
        self.swim = Swim::new(self.id, self.stored_incarnation, swim_dice);
        self.engine = Engine::new(engine_dice);
        self.engine.freeze(self.freezes > 0);
        self.rows = RowMap::new(MAX_ROWS);
        self.links.clear();
        self.cursors.clear();
        self.backlog.clear();
        self.tick_at = None;
        self.writes = 0;
    }

    /// Whether it takes steps.
    pub(crate) const fn acts(&self) -> bool {
        self.crashes == 0 && self.pauses == 0
    }

    pub(crate) fn step(&mut self, now: Mono, input: SwimInput) -> Vec<SwimEffect> {
        let mut effects = Vec::new();
        let wall = Wall(EPOCH.0 + now.0 / 1_000);
        self.swim.step(Now { mono: now, wall }, input, &mut effects);
        effects
    }

    /// When the detector wants a tick.
    pub(crate) fn wake_at(&self) -> Option<Mono> {
        self.swim.wake_at()
    }

    /// Writes the node's own row.
    pub(crate) fn write(&mut self) {
        self.writes += 1;
        // Refutations raise the incarnation too; rows of the next start still come after these.
        let stamp = Stamp { incarnation: self.swim.incarnation(), seq: self.writes };
        if let Ok(mut row) = Row::draft(self.id, stamp, &(self.writes, self.dice.next())) {
            row.signature = stand_in(&row);
            let merged = self.rows.merge(row, is_signed);
            debug_assert_eq!(merged, Merged::Newer, "a writer's next row is newer than its last");
        }
    }
}

/// The name of the node of this index: the index, then a filling.
pub(crate) const fn node_id(index: usize) -> NodeId {
    let mut name = [0x5e; 32];
    [name[0], name[1]] = (index as u16).to_be_bytes();
    NodeId(name)
}

pub(crate) const fn node_index(id: &NodeId) -> usize {
    u16::from_be_bytes([id.0[0], id.0[1]]) as usize
}

/// Stands for the writer's signature: real ones are proven where they are made, and cost a hundred
/// times more than everything else in a run.
fn stand_in(row: &Row) -> Signature {
    let hash = *blake3::keyed_hash(&row.writer.0, &row.canonical_bytes()).as_bytes();
    Signature(hash, hash)
}

pub(crate) fn is_signed(row: &Row) -> bool {
    row.signature == stand_in(row)
}
