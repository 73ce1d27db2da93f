//! How machines stand: read and told as production does, over the links of the mesh, and whether
//! those that run low or hot are spared while others can answer.
//!
//! Owns what each node knows of itself and its peers, and what the observer knows of all. What is a
//! strain, what is told anew and where requests go is decided by production.

use std::collections::BTreeMap;

use selvedge_base::{Micros, Mono, NodeId};
use selvedge_contract::{Condition, Machine, ModelState};
use selvedge_core::route::{NodeView, strain};
use selvedge_proto::wire::Label;

use super::{Load, Own, World};
use crate::invariant::Invariant;
use crate::marks::Mark;
use crate::node::site_name;
use crate::plan::{FaultKind, Plan};

/// The wire version that knows machines.
const MACHINES_SINCE: u8 = 10;
/// How often links are looked at, as in production.
const LOOK_EVERY: Micros = Micros::millis(500);
/// How often a machine is read, as in production.
const READ_EVERY: Micros = Micros::secs(5);
/// How often it is told though nothing changed, as in production.
const AGAIN_EVERY: Micros = Micros::secs(60);
/// A strain is known to all that are linked after this: it is read, told, and arrives.
const KNOWN_AFTER: Micros = Micros::secs(8);
/// All are linked again after this, once nothing hinders them: the longest wait between redials.
const LINKED_AFTER: Micros = Micros::secs(14);
/// The temperature, in tenths of a degree, of a machine that has cooled down.
const COOL: i16 = 500;

/// What a process knows of machines.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    /// Its own, as it is told.
    pub(crate) own: Condition,
    read_at: Option<Mono>,
    /// Counts the changes of it.
    turn: u64,
    /// Those of linked peers.
    heard: BTreeMap<usize, Condition>,
    /// What each was told last: over which connection, which turn, and when.
    told: BTreeMap<usize, (u64, u64, Mono)>,
}

impl Machines {
    /// How a peer's machine stands; nothing is known of one that did not say.
    pub(crate) fn of(&self, peer: usize) -> Condition {
        self.heard.get(&peer).copied().unwrap_or_default()
    }

    /// What was heard goes with the link.
    pub(super) fn forget(&mut self, peer: usize) {
        self.heard.remove(&peer);
        self.told.remove(&peer);
    }
}

/// How machines really stand.
#[derive(Debug)]
pub(super) struct Strains {
    /// Whether any is ever strained.
    any: bool,
    /// By node: since when it is strained, or is not.
    since: Vec<(bool, Mono)>,
}

impl Strains {
    pub(super) fn new(plan: &Plan) -> Self {
        let any = plan.faults.iter().any(|fault| fault.kind.strains());
        Self { any, since: vec![(false, Mono(0)); plan.nodes] }
    }
}

impl World<'_> {
    pub(super) fn boot_machine(&mut self, node: usize) {
        if self.strains.any {
            self.later(node, self.now.0, Own::MachineLooked);
        }
    }

    /// A machine runs low or hot, or does no more.
    pub(super) fn strained(&mut self, kind: &FaultKind, begins: bool) {
        let now = self.now.0;
        let node = match kind {
            FaultKind::LowBattery { node, percent } => {
                let sensors = &mut self.nodes[*node].sensors;
                (sensors.has_battery, sensors.on_battery) = (Some(true), Some(begins));
                sensors.battery_percent = Some(*percent);
                *node
            }
            FaultKind::Hot { node, decidegrees } => {
                let heat = if begins { *decidegrees } else { COOL };
                self.nodes[*node].sensors.temperature = Some(heat);
                *node
            }
            _ => return,
        };
        let is_strained = strain(&self.nodes[node].sensors).is_some();
        if self.strains.since[node].0 != is_strained {
            self.strains.since[node] = (is_strained, now);
        }
    }

    /// A node reads its machine now and then, and tells those who do not know yet.
    pub(super) fn look_at_machine(&mut self, node: usize) {
        let now = self.now.0;
        let sensors = self.nodes[node].sensors;
        let memory = &mut self.nodes[node].memory;
        let machines = &mut memory.machines;
        if machines.read_at.is_none_or(|at| now.since(at) >= READ_EVERY) {
            machines.read_at = Some(now);
            let told = sensors.settled(&machines.own, None);
            machines.turn += u64::from(told != machines.own);
            machines.own = told;
        }
        let machine = Machine { now: machines.own, ..Machine::default() };
        let turn = machines.turn;
        let links = memory.links.iter().enumerate().filter(|(_, link)| link.conn != 0);
        let knows = |peer: usize, conn: u64| {
            let told = memory.machines.told.get(&peer);
            told.is_some_and(|(of, last, at)| {
                (*of, *last) == (conn, turn) && now.since(*at) < AGAIN_EVERY
            })
        };
        let news =
            links.filter(|(peer, link)| link.version >= MACHINES_SINCE && !knows(*peer, link.conn));
        let news: Vec<(usize, u64)> = news.map(|(peer, link)| (peer, link.conn)).collect();
        for (peer, conn) in news {
            let load = Load::Machine(Box::new(machine.clone()));
            if self.send_timed(node, peer, load).is_some() {
                let told = &mut self.nodes[node].memory.machines.told;
                told.insert(peer, (conn, turn, now));
            }
        }
        self.later(node, now.plus(LOOK_EVERY), Own::MachineLooked);
    }

    /// A peer says how its machine stands.
    pub(super) fn machine_told(&mut self, node: usize, from: usize, machine: Machine) {
        if let Some(machine) = machine.received() {
            self.nodes[node].memory.machines.heard.insert(from, machine.now);
        }
    }

    /// A node that runs low or hot is asked only if no other can answer: by what the node that asks
    /// knows, and by what it must know.
    pub(super) fn audit_spared(
        &mut self,
        node: usize,
        request: u64,
        (to, exclude): (usize, &[NodeId]),
    ) {
        if !self.strains.any {
            return;
        }
        let truth = &self.requests[request as usize];
        let (digest, label) = (truth.model.digest(), truth.label.unwrap_or(Label::Mesh));
        let site = site_name(self.nodes[node].site);
        let view = &self.nodes[node].memory.view;
        let reaches = |one: &NodeView| match label {
            Label::Node => one.me,
            Label::Site => one.site == site,
            Label::Mesh | Label::Anywhere => true,
        };
        let is_ready = |one: &NodeView| {
            let mut models = one.engine.models.iter();
            models.any(|held| held.card.digest == digest && held.state == ModelState::Ready)
        };
        let able = view.nodes.iter().filter(|one| {
            one.is_usable() && reaches(one) && is_ready(one) && !exclude.contains(&one.node)
        });
        let others: Vec<(usize, bool)> = able
            .map(|one| (self.names.index(&one.node), strain(&one.machine.now).is_some()))
            .filter(|(one, _)| *one != to)
            .collect();
        let asked = view.node(&self.names.id(to)).map(|one| one.machine.now).unwrap_or_default();
        let believed = strain(&asked).is_some() && others.iter().any(|(_, strained)| !strained);
        let known = self.is_known(to, true)
            && others.iter().any(|(one, strained)| !strained && self.is_known(*one, false));
        if believed || known {
            let seen = format!(
                "node {node} asks {to} for request {request}, {asked:?}, rather than {others:?}"
            );
            return self.broken(Invariant::RouteStrainedSpared, seen);
        }
        if strain(&asked).is_some() {
            self.hit(Mark::StrainedAsked);
        } else if others.iter().any(|(_, strained)| *strained) {
            self.hit(Mark::StrainedSpared);
        }
    }

    /// Whether all must know that a machine is strained, or that it is not.
    fn is_known(&self, node: usize, strained: bool) -> bool {
        let now = self.now.0;
        let (is, since) = self.strains.since[node];
        let linked = self.calm_since.is_some_and(|since| now.since(since) >= LINKED_AFTER);
        let tells = self.nodes[node].acts() && self.nodes[node].version >= MACHINES_SINCE;
        is == strained && now.since(since) >= KNOWN_AFTER && linked && tells
    }
}
