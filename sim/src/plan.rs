//! What a run is made of, explicit and serialisable: topology, network, faults.
//!
//! Every part is drawn from its own stream, keyed by purpose, and every fault from one of its
//! own, so that leaving a fault out does not shift the others.

use selvedge_base::{Dice, Micros};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The first fault comes after the mesh has formed.
const CALM_START: Micros = Micros::secs(5);
/// Faults begin within this span after that.
const FAULT_SPAN: Micros = Micros::secs(20);
/// The longest fault: well beyond every detection time.
const LONGEST_FAULT: Micros = Micros::secs(9);
/// After the last fault: room for recovery and then some time in which all must stay well.
const CALM_END: Micros = Micros::secs(16);
/// Faults in a seeded plan: enough to overlap now and then.
const MAX_FAULTS: u64 = 6;
/// Nodes a plan may have: what one mesh is meant for, this side of the detector's table.
pub const MAX_NODES: usize = 1_000;
/// Nodes in a seeded plan; small meshes have the most interesting partitions.
const NODES: std::ops::RangeInclusive<u64> = 2..=7;

/// A run, before it is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// All randomness of the run comes from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// When the last fault is over.
    pub quiet_at: Micros,
    /// When the run ends.
    pub span: Micros,
    /// The network.
    pub network: NetworkPlan,
    /// The faults.
    pub faults: Vec<Fault>,
}

/// How the network behaves when nothing is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// One way, at least.
    pub latency_min: Micros,
    /// One way, at most.
    pub latency_max: Micros,
    /// Datagrams lost.
    pub loss_permille: u64,
    /// Datagrams that arrive twice.
    pub duplicate_permille: u64,
    /// Datagrams delayed by [`NetworkPlan::reorder_by`], so that later ones overtake them.
    pub reorder_permille: u64,
    /// How long those are delayed.
    pub reorder_by: Micros,
}

/// Something breaks for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Since the start of the run.
    pub at: Micros,
    /// Since the start of the run.
    pub until: Micros,
    /// What breaks.
    pub kind: FaultKind,
}

/// What breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// The process dies and starts again when the fault ends; its memory is lost, its disk is not.
    Crash {
        /// Which node.
        node: usize,
        /// Whether its peers are told, as when a process is stopped in good order.
        reset: bool,
    },
    /// The process is stopped and later goes on as if nothing had happened.
    Pause {
        /// Which node.
        node: usize,
    },
    /// The engine computes without progress; the process is fine.
    Freeze {
        /// Which node.
        node: usize,
    },
    /// Nothing gets from one node to another; the other way is open.
    OneWay {
        /// From here.
        from: usize,
        /// Not to there.
        to: usize,
    },
    /// Nothing gets to or from a node.
    Isolate {
        /// Which node.
        node: usize,
    },
    /// Nothing gets between those whose bit is set and the others; nodes beyond 64 have none set.
    Halves {
        /// A bit per node.
        left: u64,
    },
}

/// Why a plan cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Too few or too many nodes.
    #[error("a plan needs 2 to {MAX_NODES} nodes, not {0}")]
    Nodes(usize),
    /// The network's shortest trip is longer than its longest.
    #[error("the network's least latency is above its greatest")]
    Latency,
    /// A fault ends before it begins, or names a node that does not exist.
    #[error("fault {0} ends before it begins or names a node that does not exist")]
    Fault(usize),
}

impl Plan {
    /// Whether the plan can be run.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), PlanError> {
        if !(2..=MAX_NODES).contains(&self.nodes) {
            return Err(PlanError::Nodes(self.nodes));
        }
        if self.network.latency_min > self.network.latency_max {
            return Err(PlanError::Latency);
        }
        let wrong = |fault: &Fault| fault.until < fault.at || !fault.kind.fits(self.nodes);
        match self.faults.iter().position(wrong) {
            Some(index) => Err(PlanError::Fault(index)),
            None => Ok(()),
        }
    }

    /// The plan of a seed.
    pub fn seeded(seed: u64) -> Self {
        let mut topology = Dice::keyed(seed, "plan/topology");
        let count = NODES.end() - NODES.start() + 1;
        let nodes = (NODES.start() + topology.below(count)) as usize;
        let wanted = topology.below(MAX_FAULTS + 1);
        let faults: Vec<Fault> = (0..wanted)
            .map(|index| {
                Fault::seeded(&mut Dice::keyed(seed, &format!("plan/fault/{index}")), nodes)
            })
            .collect();
        let quiet_at = faults.iter().map(|fault| fault.until).max().unwrap_or(CALM_START);
        Self {
            seed,
            nodes,
            quiet_at,
            span: quiet_at.plus(CALM_END),
            network: NetworkPlan::seeded(&mut Dice::keyed(seed, "plan/network")),
            faults,
        }
    }

    /// A plan without faults over a perfect LAN, to add to by hand.
    pub fn calm(seed: u64, nodes: usize) -> Self {
        let network = NetworkPlan {
            latency_min: Micros(150),
            latency_max: Micros(600),
            loss_permille: 0,
            duplicate_permille: 0,
            reorder_permille: 0,
            reorder_by: Micros::ZERO,
        };
        let span = CALM_START.plus(CALM_END);
        Self { seed, nodes, quiet_at: CALM_START, span, network, faults: Vec::new() }
    }

    /// The same plan with one more fault.
    #[must_use]
    pub fn with(mut self, kind: FaultKind, at: Micros, lasting: Micros) -> Self {
        let until = at.plus(lasting);
        self.faults.push(Fault { at, until, kind });
        self.quiet_at = self.quiet_at.max(until);
        self.span = self.quiet_at.plus(CALM_END);
        self
    }
}

impl NetworkPlan {
    /// A rung of the latency ladder (LAN, campus, continent, satellite), and each imperfection in
    /// about half of the seeds.
    fn seeded(dice: &mut Dice) -> Self {
        let (latency_min, latency_max) = match dice.below(5) {
            0 | 1 => (Micros(100), Micros::millis(2)),
            2 => (Micros::millis(2), Micros::millis(15)),
            3 => (Micros::millis(20), Micros::millis(60)),
            _ => (Micros::millis(250), Micros::millis(350)),
        };
        let mut in_half = |most: u64| if dice.chance(500) { dice.below(most + 1) } else { 0 };
        Self {
            latency_min,
            latency_max,
            loss_permille: in_half(50),
            duplicate_permille: in_half(30),
            reorder_permille: in_half(50),
            reorder_by: Micros::millis(40),
        }
    }

    /// The longest a datagram takes.
    pub const fn slowest(&self) -> Micros {
        self.latency_max.plus(self.reorder_by)
    }
}

impl Fault {
    fn seeded(dice: &mut Dice, nodes: usize) -> Self {
        let at = CALM_START.plus(Micros(dice.below(FAULT_SPAN.0)));
        let shortest = Micros::millis(200);
        let until = at.plus(shortest).plus(Micros(dice.below(LONGEST_FAULT.0 - shortest.0)));
        let node = dice.below(nodes as u64) as usize;
        let other = (node + 1 + dice.below(nodes as u64 - 1) as usize) % nodes;
        let kind = match dice.below(7) {
            0 => FaultKind::Crash { node, reset: false },
            1 => FaultKind::Crash { node, reset: true },
            2 => FaultKind::Pause { node },
            3 => FaultKind::Freeze { node },
            4 => FaultKind::OneWay { from: node, to: other },
            5 => FaultKind::Isolate { node },
            _ => FaultKind::Halves { left: 1 + dice.below((1 << nodes) - 2) },
        };
        Self { at, until, kind }
    }
}

impl FaultKind {
    /// Whether nothing gets from one node to the other while this lasts.
    pub const fn cuts(&self, from: usize, to: usize) -> bool {
        match self {
            Self::OneWay { from: a, to: b } => *a == from && *b == to,
            Self::Isolate { node } => *node == from || *node == to,
            Self::Halves { left } => bit(*left, from) != bit(*left, to),
            Self::Crash { .. } | Self::Pause { .. } | Self::Freeze { .. } => false,
        }
    }

    const fn fits(&self, nodes: usize) -> bool {
        match self {
            Self::Crash { node, .. }
            | Self::Pause { node }
            | Self::Freeze { node }
            | Self::Isolate { node } => *node < nodes,
            Self::OneWay { from, to } => *from < nodes && *to < nodes,
            Self::Halves { .. } => true,
        }
    }

    /// A name for counters and traces.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Crash { reset: false, .. } => "crash",
            Self::Crash { reset: true, .. } => "crash with reset",
            Self::Pause { .. } => "pause",
            Self::Freeze { .. } => "freeze",
            Self::OneWay { .. } => "one-way cut",
            Self::Isolate { .. } => "isolation",
            Self::Halves { .. } => "halves",
        }
    }
}

const fn bit(bits: u64, at: usize) -> bool {
    at < 64 && (bits >> at) & 1 == 1
}
