//! A network that delays, loses, doubles, reorders and cuts.

use std::collections::BTreeMap;

use selvedge_base::{Micros, Mono};

use crate::plan::{FaultKind, NetworkPlan};
use crate::stream::Stream;

/// What a lost packet costs a reliable stream or handshake: about one probe timeout of QUIC.
pub(crate) const RETRANSMISSION: Micros = Micros::millis(200);
/// Retransmissions before a stream's frame counts as late for good; cuts end connections anyway.
const MAX_RETRANSMISSIONS: u32 = 6;
/// What waits in front of a narrow link, at most: a second's buffer, as routers have.
const LONGEST_QUEUE: Micros = Micros::secs(1);
/// The purpose of the directions' streams.
const DIRECTION: u64 = 1;

/// All directions between nodes.
#[derive(Debug)]
pub(crate) struct Network {
    plan: NetworkPlan,
    nodes: usize,
    /// One stream per direction, drawn from by whatever goes there.
    directions: Vec<Stream>,
    cuts: Vec<(usize, Mono, FaultKind)>,
    /// Nodes everything takes longer for, or is lost for, by fault.
    slow: Vec<(usize, usize, Micros)>,
    lossy: Vec<(usize, usize, u64)>,
    /// Nodes whose link carries one packet after the other: how long each takes, and until when
    /// those before it do.
    narrow: Vec<(usize, usize, Micros, Mono)>,
    /// How often each imperfection really happened.
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) cut: u64,
    /// How often each fault had an effect.
    pub(crate) fired: BTreeMap<usize, u64>,
}

impl Network {
    pub(crate) fn new(seed: u64, nodes: usize, plan: NetworkPlan) -> Self {
        let directions = (0..nodes * nodes)
            .map(|at| Stream::keyed(seed, DIRECTION, at / nodes, at % nodes))
            .collect();
        Self {
            plan,
            nodes,
            directions,
            cuts: Vec::new(),
            slow: Vec::new(),
            lossy: Vec::new(),
            narrow: Vec::new(),
            lost: 0,
            duplicated: 0,
            reordered: 0,
            cut: 0,
            fired: BTreeMap::new(),
        }
    }

    pub(crate) fn begin(&mut self, fault: usize, now: Mono, kind: &FaultKind) {
        match kind {
            FaultKind::Slow { node, by } => self.slow.push((fault, *node, *by)),
            FaultKind::Narrow { node, each } => {
                self.narrow.push((fault, *node, *each, now));
            }
            FaultKind::Lossy { node, permille } => self.lossy.push((fault, *node, *permille)),
            cut => self.cuts.push((fault, now, cut.clone())),
        }
    }

    pub(crate) fn end(&mut self, fault: usize) {
        self.cuts.retain(|(known, _, _)| *known != fault);
        self.slow.retain(|(known, _, _)| *known != fault);
        self.lossy.retain(|(known, _, _)| *known != fault);
        self.narrow.retain(|(known, ..)| *known != fault);
    }

    pub(crate) fn is_cut(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// Whether anything changes the latencies or losses that the plan promises.
    pub(crate) fn is_disturbed(&self) -> bool {
        // A way that opens and closes is never settled enough to judge by.
        let flaps =
            |(_, _, kind): &(usize, Mono, FaultKind)| matches!(kind, FaultKind::Flapping { .. });
        let hindered = !self.slow.is_empty() || !self.lossy.is_empty() || !self.narrow.is_empty();
        hindered || self.cuts.iter().any(flaps)
    }

    pub(crate) fn open(&self, now: Mono, from: usize, to: usize) -> bool {
        self.closed_by(now, from, to).is_none()
    }

    fn closed_by(&self, now: Mono, from: usize, to: usize) -> Option<usize> {
        let cut = self.cuts.iter().find(|(_, since, kind)| kind.cuts(from, to, now.since(*since)));
        cut.map(|(fault, _, _)| *fault)
    }

    fn is_open(&mut self, now: Mono, from: usize, to: usize) -> bool {
        let Some(fault) = self.closed_by(now, from, to) else { return true };
        self.cut += 1;
        *self.fired.entry(fault).or_default() += 1;
        false
    }

    /// The delays after which a datagram arrives: none, one or two of them.
    pub(crate) fn datagram(&mut self, now: Mono, from: usize, to: usize) -> [Option<Micros>; 2] {
        if !self.is_open(now, from, to) {
            return [None, None];
        }
        let plan = self.plan;
        let (extra, loss) = self.disturbance(now, from, to);
        let stream = &mut self.directions[from * self.nodes + to];
        let lost = stream.chance(plan.loss_permille + loss);
        let doubled = stream.chance(plan.duplicate_permille);
        let late = stream.chance(plan.reorder_permille);
        let mut first = latency(&plan, stream).plus(extra);
        let second = doubled.then(|| latency(&plan, stream).plus(extra));
        if lost {
            self.lost += 1;
            return [None, None];
        }
        if late {
            first = first.plus(plan.reorder_by);
        }
        self.duplicated += u64::from(doubled);
        self.reordered += u64::from(late);
        [Some(first), second]
    }

    /// The delay of something that is sent again when lost; none when the way is cut.
    pub(crate) fn reliable(&mut self, now: Mono, from: usize, to: usize) -> Option<Micros> {
        if !self.is_open(now, from, to) {
            return None;
        }
        let plan = self.plan;
        let (extra, loss) = self.disturbance(now, from, to);
        let stream = &mut self.directions[from * self.nodes + to];
        let mut delay = latency(&plan, stream).plus(extra);
        for _ in 0..MAX_RETRANSMISSIONS {
            if !stream.chance(plan.loss_permille + loss) {
                break;
            }
            delay = delay.plus(RETRANSMISSION);
        }
        Some(delay)
    }

    /// What slow and lossy nodes add to a direction.
    fn disturbance(&mut self, now: Mono, from: usize, to: usize) -> (Micros, u64) {
        if self.slow.is_empty() && self.lossy.is_empty() && self.narrow.is_empty() {
            return (Micros::ZERO, 0);
        }
        let mut extra = Micros::ZERO;
        for (fault, node, by) in &self.slow {
            if *node == from || *node == to {
                extra = extra.plus(*by);
                *self.fired.entry(*fault).or_default() += 1;
            }
        }
        for (fault, node, each, until) in &mut self.narrow {
            if *node == from || *node == to {
                let waits = until.since(now).min(LONGEST_QUEUE);
                *until = now.plus(waits).plus(*each);
                extra = extra.plus(waits).plus(*each);
                *self.fired.entry(*fault).or_default() += 1;
            }
        }
        let mut loss = 0;
        for (fault, node, permille) in &self.lossy {
            if *node == from || *node == to {
                loss += permille;
                *self.fired.entry(*fault).or_default() += 1;
            }
        }
        (extra, loss)
    }
}

fn latency(plan: &NetworkPlan, stream: &mut Stream) -> Micros {
    let spread = plan.latency_max.0 - plan.latency_min.0;
    plan.latency_min.plus(Micros(stream.below(spread + 1)))
}
