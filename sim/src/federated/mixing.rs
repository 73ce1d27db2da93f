//! Epidemic mode beside the rounds: the personal models of a job's nodes, on the same virtual time.
//!
//! Has dice, disks and a network of its own, so that the rounds of a plan happen exactly as they do
//! without it: what they come to can be compared, event by event. Owns the check of what must hold
//! of personal models; what of them is wanted afterwards is in [`Step`].

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::{Machine as _, Micros, Mono, Now, Wall};
use selvedge_crdt::escrow::Holder;
use selvedge_federated::epidemic::{
    Base, Epidemic, MAX_INBOX, Mixer, MixerChange, MixerEffect, MixerEvent, MixerInput,
    MixerStored, Told,
};
use selvedge_federated::fixed::LEVEL_MAX;
use selvedge_federated::round::Tip;

use super::check::{Observer, Promise};
use super::disk::Disk;
use super::plan::{DIM, Plan, name};
use super::world::{Counters, index_of};
use crate::stream::Stream;

/// The longest a node trains for itself.
const TRAINING_MS: u64 = 700;
/// The longest that a double comes late.
const LATE: Micros = Micros::secs(20);

/// What happens to personal models.
pub(super) enum Happening {
    Arrives { to: usize, from: usize, told: Box<Told> },
    Durable { node: usize, life: u32, write: u64 },
    Trained { node: usize, life: u32, round: u64, seq: u64 },
}

/// A step of a node that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it was.
    pub at: Micros,
    /// Whose.
    pub node: usize,
    /// The model.
    pub told: Told,
}

/// A node's part.
struct One {
    mixer: Mixer,
    disk: Disk<MixerStored, MixerChange>,
    dice: Stream,
    /// What it learns a step, about: its data are not those of the others.
    leaning: i64,
    /// Models that left in this life, and when it began.
    left: u64,
    began: Mono,
}

/// The personal models of all nodes.
pub(super) struct Mixing<'a> {
    plan: &'a Plan,
    rules: Epidemic,
    nodes: Vec<One>,
    network: Stream,
    now: Mono,
    /// What is to happen, and after how long.
    pub(super) due: Vec<(Micros, Happening)>,
    bases: BTreeMap<(Holder, u64), Base>,
    numbers: BTreeMap<(Holder, u64), Told>,
    mixed: BTreeSet<(usize, Holder, u64)>,
    pub(super) steps: Vec<Step>,
}

fn mixer_of(plan: &Plan, rules: Epidemic, node: usize, stored: MixerStored) -> Mixer {
    let me = Holder { node: name(node), incarnation: 1 };
    Mixer::new(plan.job.clone(), rules, me, stored)
}

impl<'a> Mixing<'a> {
    pub(super) fn new(plan: &'a Plan, rules: Epidemic) -> Self {
        let one = |node| {
            let mut dice = Stream::keyed(plan.seed, 30, node, 0);
            let leaning = dice.below(2 * LEVEL_MAX as u64) as i64 - i64::from(LEVEL_MAX);
            let stored = MixerStored::default();
            One {
                mixer: mixer_of(plan, rules, node, stored.clone()),
                disk: Disk::new(stored, Stream::keyed(plan.seed, 31, node, 0), plan.slow_disks),
                dice,
                leaning,
                left: 0,
                began: Mono(0),
            }
        };
        Self {
            plan,
            rules,
            nodes: (0..plan.nodes).map(one).collect(),
            network: Stream::keyed(plan.seed, 32, 0, 0),
            now: Mono(0),
            due: Vec::new(),
            bases: BTreeMap::new(),
            numbers: BTreeMap::new(),
            mixed: BTreeSet::new(),
            steps: Vec::new(),
        }
    }

    /// A node's client follows the chain to here.
    pub(super) fn followed(&mut self, node: usize, tip: &Tip, world: &mut Seen<'_>) {
        let input = MixerInput::Followed {
            base: Base { round: tip.round, record: tip.record },
            clients: tip.done.keys().map(|client| client.node).collect(),
            is_over: tip.round >= self.plan.job.rounds,
        };
        self.step(node, input, world);
    }

    /// Time passed at a node; these peers can be reached.
    pub(super) fn tick(&mut self, node: usize, reachable: &[usize], world: &mut Seen<'_>) {
        let reachable = reachable.iter().map(|peer| name(*peer)).collect();
        self.step(node, MixerInput::Ticked { reachable }, world);
    }

    /// Something came, became durable or was learned at a node that is up, in this life of it.
    pub(super) fn happen(&mut self, event: Happening, world: &mut Seen<'_>) {
        match event {
            Happening::Arrives { to, from, told } => {
                self.step(to, MixerInput::Received { from: name(from), told }, world);
            }
            Happening::Durable { node, write, .. } => {
                let due = self.nodes[node].disk.due(write);
                due.into_iter().for_each(|change| self.wrote(node, change, world));
                self.step(node, MixerInput::Stored { write }, world);
            }
            Happening::Trained { node, round, seq, .. } => {
                let input = self.trained(node, round, seq);
                self.step(node, input, world);
            }
        }
    }

    /// What a node learns: something of its own for so many steps, and then nothing more.
    fn trained(&mut self, node: usize, round: u64, seq: u64) -> MixerInput {
        let learns = seq <= self.plan.learns;
        let One { dice, leaning, .. } = &mut self.nodes[node];
        if self.plan.loss_permille > 0 && dice.chance(50) {
            return MixerInput::Untrained { round, seq };
        }
        let most = i64::from(LEVEL_MAX);
        let mut level = || (*leaning + dice.below(1 << 15) as i64).clamp(-most, most) as i32;
        let levels = (0..DIM).map(|_| if learns { level() } else { 0 }).collect();
        MixerInput::Trained { round, seq, examples: 1 + node as u32 * 20, levels }
    }

    fn step(&mut self, node: usize, input: MixerInput, world: &mut Seen<'_>) {
        if !self.plan.is_client(node) {
            return;
        }
        self.now = world.now;
        let now = Now { mono: world.now, wall: Wall(0) };
        let mut effects = Vec::new();
        self.nodes[node].mixer.step(now, input, &mut effects);
        for effect in effects {
            self.effect(node, effect, world);
        }
        let mixer = &self.nodes[node].mixer;
        let waits = mixer.waiting() <= MAX_INBOX && mixer.stored().marks.len() < self.plan.nodes;
        world.observer.require(waits, Promise::MixingBounded, || {
            format!("node {node} keeps more personal models or marks than there may be")
        });
    }

    fn effect(&mut self, node: usize, effect: MixerEffect, world: &mut Seen<'_>) {
        let life = world.life;
        match effect {
            MixerEffect::Store { write, change } => {
                let span = self.nodes[node].disk.write(write, *change);
                self.due.push((span, Happening::Durable { node, life, write }));
            }
            MixerEffect::Send { to, told } => {
                self.leaves(node, &told, world);
                self.send(node, index_of(&to), told, world);
            }
            MixerEffect::Train { round, seq, .. } => {
                let span = Micros::millis(1 + self.nodes[node].dice.below(TRAINING_MS));
                self.due.push((span, Happening::Trained { node, life, round, seq }));
            }
            MixerEffect::Report(event) => world.count(match event {
                MixerEvent::Began { .. } => "mixing begun",
                MixerEvent::Ended { .. } => "mixing over",
                MixerEvent::Stepped { mixed: 0, .. } => "learned alone",
                MixerEvent::Stepped { .. } => "mixed",
                MixerEvent::Unmixed { why, .. } if why.is_misdeed() => "personal misdeed",
                MixerEvent::Unmixed { .. } => "personal model refused",
                MixerEvent::BadTraining => "bad training",
            }),
        }
    }

    /// A model leaves: it is on the disk, its number is its own, and it does not leave too often.
    fn leaves(&mut self, node: usize, told: &Told, world: &mut Seen<'_>) {
        let id = (told.client, told.seq);
        self.bases.insert(id, told.base);
        let is_durable = self.nodes[node].disk.durable.told.as_ref() == Some(told);
        world.observer.require(is_durable, Promise::ToldIsDurable, || {
            format!("model {} of node {node} leaves and is not on its disk", told.seq)
        });
        self.bound(told, world);
        let One { left, began, .. } = &mut self.nodes[node];
        *left += 1;
        let steps = world.now.since(*began).0 / self.rules.every.0 + 2;
        let within = *left <= steps * u64::from(self.rules.peers);
        world.observer.require(within, Promise::MixingBounded, || {
            format!("{left} models left node {node} in {steps} steps")
        });
    }

    fn bound(&mut self, told: &Told, world: &mut Seen<'_>) {
        let first = self.numbers.entry((told.client, told.seq)).or_insert_with(|| told.clone());
        world.observer.require(first == told, Promise::NumberBound, || {
            format!("number {} of {} is of two models", told.seq, told.client.node.short())
        });
    }

    fn send(&mut self, from: usize, to: usize, told: Box<Told>, world: &mut Seen<'_>) {
        let faulty = world.now.0 < world.until.0;
        let is_lost = self.plan.is_cut(from, to, Micros(world.now.0))
            || (faulty && self.network.chance(self.plan.loss_permille));
        if is_lost {
            return world.count("personal model lost");
        }
        let way = Micros(500 + self.network.below(self.plan.delay.0));
        if faulty && self.network.chance(self.plan.double_permille) {
            let late = if self.network.chance(500) { self.network.below(LATE.0) } else { 5_000 };
            let told = told.clone();
            self.due.push((way.plus(Micros(late)), Happening::Arrives { to, from, told }));
        }
        let mut told = told;
        if faulty && self.network.chance(self.plan.damage_permille) {
            let at = self.network.below(DIM as u64) as usize;
            told.drift[at] = i32::MIN;
        }
        self.due.push((way, Happening::Arrives { to, from, told }));
    }

    /// A step of a node is durable.
    fn wrote(&mut self, node: usize, change: MixerChange, world: &mut Seen<'_>) {
        let MixerChange { stored, mixed } = change;
        let base = stored.told.as_ref().map(|told| told.base);
        for (client, seq) in mixed {
            let theirs = self.bases.get(&(client, seq)).copied();
            world.observer.require(theirs == base, Promise::MixedOfOneBase, || {
                format!("node {node} mixed a model of {theirs:?} into one of {base:?}")
            });
            let is_new = self.mixed.insert((node, client, seq));
            world.observer.require(is_new, Promise::MixedOnce, || {
                format!("node {node} mixed model {seq} of {} twice", client.node.short())
            });
        }
        if let Some(told) = &stored.told {
            self.bound(told, world);
            let at = Micros(world.now.0);
            self.steps.push(Step { at, node, told: told.clone() });
        }
        self.nodes[node].disk.durable = stored;
    }

    /// A node stops; a part of what it was writing is found on its disk.
    pub(super) fn crash(&mut self, node: usize, world: &mut Seen<'_>) {
        let (found, torn) = self.nodes[node].disk.crash();
        found.into_iter().for_each(|change| self.wrote(node, change, world));
        if torn {
            world.count("a personal model lost in a crash");
        }
    }

    /// A node starts again, with its client at this tip.
    pub(super) fn back(&mut self, node: usize, tip: &Tip, world: &mut Seen<'_>) {
        let stored = self.nodes[node].disk.durable.clone();
        let one = &mut self.nodes[node];
        one.mixer = mixer_of(self.plan, self.rules, node, stored);
        (one.left, one.began) = (0, world.now);
        self.followed(node, tip, world);
    }
}

/// What of the world a step may touch.
pub(super) struct Seen<'a> {
    pub(super) now: Mono,
    /// The node's life.
    pub(super) life: u32,
    /// Until when faults happen.
    pub(super) until: Micros,
    pub(super) observer: &'a mut Observer,
    pub(super) counters: &'a mut Counters,
}

impl Seen<'_> {
    fn count(&mut self, what: &'static str) {
        *self.counters.seen.entry(what).or_default() += 1;
    }
}
