//! A network that delays, loses, doubles, reorders and cuts.

use std::collections::BTreeMap;

use selvedge_base::{Dice, Micros, Mono};

use crate::plan::{FaultKind, NetworkPlan};

/// What a lost packet costs a reliable stream or handshake: about one probe timeout of QUIC.
const RETRANSMISSION: Micros = Micros::millis(200);
/// Retransmissions before a stream's frame counts as late for good; cuts end connections anyway.
const MAX_RETRANSMISSIONS: u32 = 6;

/// All directions between nodes.
#[derive(Debug)]
pub(crate) struct Network {
    plan: NetworkPlan,
    seed: u64,
    directions: BTreeMap<(usize, usize), Dice>,
    cuts: Vec<(usize, Mono, FaultKind)>,
    /// How often each imperfection really happened.
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) cut: u64,
}

impl Network {
    pub(crate) const fn new(seed: u64, plan: NetworkPlan) -> Self {
        Self {
            plan,
            seed,
            directions: BTreeMap::new(),
            cuts: Vec::new(),
            lost: 0,
            duplicated: 0,
            reordered: 0,
            cut: 0,
        }
    }

    pub(crate) fn begin_cut(&mut self, fault: usize, now: Mono, kind: FaultKind) {
        self.cuts.push((fault, now, kind));
    }

    pub(crate) fn end_cut(&mut self, fault: usize) {
        self.cuts.retain(|(known, _, _)| *known != fault);
    }

    pub(crate) fn open(&self, now: Mono, from: usize, to: usize) -> bool {
        !self.cuts.iter().any(|(_, since, kind)| kind.cuts(from, to, now.since(*since)))
    }

    /// The delays after which a datagram arrives: none, one or two of them.
    pub(crate) fn datagram(&mut self, now: Mono, from: usize, to: usize) -> Vec<Micros> {
        if !self.open(now, from, to) {
            self.cut += 1;
            return Vec::new();
        }
        let plan = self.plan;
        let dice = self.dice(from, to);
        let lost = dice.chance(plan.loss_permille);
        let doubled = dice.chance(plan.duplicate_permille);
        let late = dice.chance(plan.reorder_permille);
        let mut delays = vec![latency(&plan, dice)];
        if doubled {
            delays.push(latency(&plan, dice));
        }
        if lost {
            self.lost += 1;
            return Vec::new();
        }
        if late {
            delays[0] = delays[0].plus(plan.reorder_by);
        }
        self.duplicated += u64::from(doubled);
        self.reordered += u64::from(late);
        delays
    }

    /// The delay of something that is sent again when lost; none when the way is cut.
    pub(crate) fn reliable(&mut self, now: Mono, from: usize, to: usize) -> Option<Micros> {
        if !self.open(now, from, to) {
            self.cut += 1;
            return None;
        }
        let plan = self.plan;
        let dice = self.dice(from, to);
        let mut delay = latency(&plan, dice);
        for _ in 0..MAX_RETRANSMISSIONS {
            if !dice.chance(plan.loss_permille) {
                break;
            }
            delay = delay.plus(RETRANSMISSION);
        }
        Some(delay)
    }

    fn dice(&mut self, from: usize, to: usize) -> &mut Dice {
        let seed = self.seed;
        self.directions
            .entry((from, to))
            .or_insert_with(|| Dice::keyed(seed, &format!("network/{from}/{to}")))
    }
}

fn latency(plan: &NetworkPlan, dice: &mut Dice) -> Micros {
    let spread = plan.latency_max.0 - plan.latency_min.0;
    plan.latency_min.plus(Micros(dice.below(spread + 1)))
}
