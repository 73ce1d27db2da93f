//! Epidemic mode: what a node makes of a model while no round of its job ends.
//!
//! ```text
//! no end of a round for so long ──▶ mix what came with one's own, train, write down,
//!                                   tell a few peers; again after a pause
//! a round ends                  ──▶ from here on the common model counts, and nothing else
//! ```
//!
//! Gossip learning (Ormándi, Hegedűs and Jelasity 2013; Hegedűs, Danner and Jelasity 2019), with
//! peers drawn anew for every step (de Vos et al. 2023, "Epidemic Learning", EL-Local). A personal
//! model is a drift from the common model of one round, in whole numbers, and is mixed with drifts
//! from that very model only. No machine of the rounds knows of this one: a personal model enters
//! no common one, and the chain is the same with this mode and without.
//!
//! **One number, one model.** A model is numbered and written down before it leaves, with the
//! numbers of all that was mixed into it: after a crash a number never names another model, and
//! nothing is mixed twice into one that lives. Owns that, when the mode begins and ends, whose
//! models are taken, and to whom one's own goes. Owns no training, disk or transport.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Machine, Micros, Mono, NodeId, Now};
use selvedge_crdt::escrow::Holder;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::fixed::LEVEL_MAX;
use crate::round::{Digest, Job, MAX_CLIENTS, Mode};

mod mix;

pub use mix::{MAX_AGE, Unmixed};

/// Peers that a model is told to in a step, at most: beyond a dozen the paper gains nothing, and
/// each costs a model's bytes.
pub const MAX_PEERS: u8 = 16;
/// Models that wait to be mixed, at most, each of another peer. A step hears of as many as it tells
/// on average; what finds no room comes again, newer.
pub const MAX_INBOX: usize = 8;

/// The epidemic mode of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epidemic {
    /// Peers that a node's model is told to in each step.
    pub peers: u8,
    /// How long a node sees no end of a round before it begins.
    pub after: Micros,
    /// The least time between two steps of a node: what bounds the bytes.
    pub every: Micros,
}

/// Why a job cannot have this mode.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EpidemicError {
    /// Nobody shall see what a node learned.
    #[error(
        "shows a node's model to its peers, which a secure job promises to nobody: it needs \
         plain mode"
    )]
    Secure,
    /// What peers see is not counted by the ledger.
    #[error("shows a node's model without noise: it does not go with privacy")]
    Private,
    /// Nobody, or too many.
    #[error("tells a model to 1 to {MAX_PEERS} peers, not to {0}")]
    Peers(u8),
    /// A round may wait as long for stragglers.
    #[error("begins after the patience of a round ({0} ms) or later")]
    Soon(u64),
    /// It would send without a pause.
    #[error("pauses between two steps for a tick of the pace ({0} ms) or longer")]
    Restless(u64),
}

/// The common model that a drift is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Rounds that are folded into it.
    pub round: u64,
    /// The record after them.
    pub record: Digest,
}

/// A personal model: what a node tells, and the same on its disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Whose.
    pub client: Holder,
    /// Counts the models of this client in this job, from 1; some may be missing.
    pub seq: u64,
    /// What it is a drift from.
    pub base: Base,
    /// Steps since the base, of whoever took the most of those that are in it.
    pub age: u32,
    /// Examples that its node trains on.
    pub examples: u32,
    /// Its weights less those of the base, in units of 2^-20.
    pub drift: Vec<i32>,
}

/// Of a node, the store and number of what was mixed last.
pub type Marks = BTreeMap<NodeId, (u64, u64)>;

/// What a node has on disk: its newest personal model, also when its time is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MixerStored {
    /// The model.
    pub told: Option<Told>,
    /// What is mixed into it. Only what is of the same base; at most [`MAX_CLIENTS`].
    pub marks: Marks,
}

/// A write: all of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixerChange {
    /// What is stored from then on.
    pub stored: MixerStored,
    /// What was mixed in this step, by client and number.
    pub mixed: Vec<(Holder, u64)>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum MixerInput {
    /// The chain of the job was followed to here; also said at the start.
    Followed {
        /// The common model.
        base: Base,
        /// Nodes that ever contributed.
        clients: BTreeSet<NodeId>,
        /// Whether the job is done.
        is_over: bool,
    },
    /// A peer's model came.
    Received {
        /// From whom; the transport proved it.
        from: NodeId,
        /// The model.
        told: Box<Told>,
    },
    /// A write is durable.
    Stored {
        /// Its number.
        write: u64,
    },
    /// Training is done.
    Trained {
        /// As it was ordered.
        round: u64,
        /// As it was ordered.
        seq: u64,
        /// On how many examples.
        examples: u32,
        /// What changed, in levels of the job's clip.
        levels: Vec<i32>,
    },
    /// Training failed.
    Untrained {
        /// As it was ordered.
        round: u64,
        /// As it was ordered.
        seq: u64,
    },
    /// Time passed.
    Ticked {
        /// Peers that can be told something now.
        reachable: BTreeSet<NodeId>,
    },
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MixerEffect {
    /// Make this durable; answer with its number. A shell that cannot stops the machine and begins
    /// again from what is stored.
    Store {
        /// Its number, from 1.
        write: u64,
        /// What.
        change: Box<MixerChange>,
    },
    /// Send this; it may be lost.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        told: Box<Told>,
    },
    /// Train from the common model of this round and this drift from it; answer when done.
    Train {
        /// The round.
        round: u64,
        /// The number that the model will have.
        seq: u64,
        /// In units of 2^-20.
        drift: Vec<i32>,
    },
    /// Tell people.
    Report(MixerEvent),
}

/// What is worth telling people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MixerEvent {
    /// No round ended for so long.
    Began {
        /// The rounds that are over.
        round: u64,
        /// How long this node has waited for the next.
        waited: Micros,
    },
    /// A round is over.
    Ended {
        /// The rounds that are over now.
        round: u64,
    },
    /// A step is written down.
    Stepped {
        /// The number of the model.
        seq: u64,
        /// Its age.
        age: u32,
        /// Models of peers that were mixed in.
        mixed: usize,
    },
    /// A peer's model is not taken.
    Unmixed {
        /// Whose.
        by: NodeId,
        /// Why.
        why: Unmixed,
    },
    /// What was trained is none of this job.
    BadTraining,
}

/// A mix that is trained on.
struct Mixing {
    round: u64,
    seq: u64,
    age: u32,
    drift: Vec<i32>,
    mixed: Vec<(Holder, u64)>,
}

/// The machine of one node in one job.
pub struct Mixer {
    job: Arc<Job>,
    name: Digest,
    rules: Epidemic,
    me: Holder,
    stored: MixerStored,
    /// The newest common model; none where nothing is known of it, or the job is done.
    base: Option<Base>,
    clients: BTreeSet<NodeId>,
    reachable: BTreeSet<NodeId>,
    /// The newest of each peer.
    inbox: BTreeMap<NodeId, Box<Told>>,
    mixing: Option<Mixing>,
    ordered: u64,
    /// The write after which the stored model is told.
    untold: Option<u64>,
    /// When it came to the base.
    since: Option<Mono>,
    /// Whether it mixes.
    is_on: bool,
    /// Whether it did when it stopped, on the same base.
    was_on: bool,
    next_tick: Mono,
    next_step: Mono,
}

impl Epidemic {
    /// Checks the mode for a job, which has passed its own check.
    ///
    /// # Errors
    /// [`EpidemicError`], the first thing that is wrong.
    pub fn check(&self, job: &Job) -> Result<(), EpidemicError> {
        if job.mode == Mode::Secure {
            return Err(EpidemicError::Secure);
        }
        if job.privacy.is_some() {
            return Err(EpidemicError::Private);
        }
        if !(1..=MAX_PEERS).contains(&self.peers) {
            return Err(EpidemicError::Peers(self.peers));
        }
        if self.after < job.pace.patience {
            return Err(EpidemicError::Soon(job.pace.patience.as_millis()));
        }
        if self.every < job.pace.tick {
            return Err(EpidemicError::Restless(job.pace.tick.as_millis()));
        }
        Ok(())
    }
}

impl Mixer {
    /// A node as its disk has it; `job` and `rules` have passed their checks.
    pub fn new(job: Arc<Job>, rules: Epidemic, me: Holder, stored: MixerStored) -> Self {
        let name = job.digest();
        Self {
            job,
            name,
            rules,
            me,
            stored,
            base: None,
            clients: BTreeSet::new(),
            reachable: BTreeSet::new(),
            inbox: BTreeMap::new(),
            mixing: None,
            ordered: 0,
            untold: None,
            since: None,
            is_on: false,
            was_on: false,
            next_tick: Mono(0),
            next_step: Mono(0),
        }
    }

    /// Whether it mixes now.
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// What it has, or will have, on disk.
    pub const fn stored(&self) -> &MixerStored {
        &self.stored
    }

    /// Models that wait to be mixed.
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Its model, where that is a drift from the newest common one.
    fn own(&self) -> Option<&Told> {
        self.stored.told.as_ref().filter(|told| Some(told.base) == self.base)
    }

    fn followed(&mut self, base: Base, is_over: bool, out: &mut Vec<MixerEffect>) {
        // A chain that a crash took back may not have the base of a model that was told; what was
        // mixed before that is not known any more.
        let is_back = self.stored.told.as_ref().is_some_and(|told| told.base.round > base.round);
        let round = base.round;
        let base = (!is_over && !is_back).then_some(base);
        if self.base == base {
            return;
        }
        if self.is_on {
            out.push(MixerEffect::Report(MixerEvent::Ended { round }));
        }
        self.base = base;
        self.inbox.clear();
        self.mixing = None;
        self.untold = None;
        self.since = None;
        self.is_on = false;
        self.was_on = self.own().is_some();
    }

    fn received(&mut self, from: NodeId, told: Box<Told>, out: &mut Vec<MixerEffect>) {
        let Some(base) = self.base else { return };
        match self.take(from, &told, base) {
            Ok(()) => {
                self.inbox.insert(from, told);
            }
            Err(why) => out.push(MixerEffect::Report(MixerEvent::Unmixed { by: from, why })),
        }
    }

    /// Whether a peer's model may be mixed.
    fn take(&self, from: NodeId, told: &Told, base: Base) -> Result<(), Unmixed> {
        if told.client.node != from || from == self.me.node {
            return Err(Unmixed::Sender);
        }
        if !plant::is_on(Plant::PersonalBaseIgnored) {
            mix::check_base(told.base, base)?;
        }
        let id = (told.client.incarnation, told.seq);
        let is_old = self.last(&from).is_some_and(|last| id <= last);
        if is_old && !plant::is_on(Plant::PersonalMixedTwice) {
            return Err(Unmixed::Replayed);
        }
        mix::check(told, &self.job, self.own().map_or(0, |own| own.age))?;
        let is_waiting = self.inbox.contains_key(&from);
        let mixing = self.mixing.as_ref().map_or(0, |mixing| mixing.mixed.len());
        let marks = self.marks().map_or(0, BTreeMap::len) + mixing + self.inbox.len();
        if !is_waiting && (self.inbox.len() >= MAX_INBOX || marks >= MAX_CLIENTS) {
            return Err(Unmixed::Full);
        }
        Ok(())
    }

    /// What is mixed into its model, where that is a drift from the newest common one: nothing else
    /// could be mixed again.
    fn marks(&self) -> Option<&Marks> {
        self.own().map(|_| &self.stored.marks)
    }

    /// The newest model of a node that is mixed, or is being, or waits to be.
    fn last(&self, node: &NodeId) -> Option<(u64, u64)> {
        let marked = self.marks().and_then(|marks| marks.get(node).copied());
        let mixing = self.mixing.iter().flat_map(|mixing| &mixing.mixed);
        let mixing = mixing.filter(|(client, _)| client.node == *node);
        let mixing = mixing.map(|(client, seq)| (client.incarnation, *seq)).max();
        let waiting = self.inbox.get(node).map(|told| (told.client.incarnation, told.seq));
        [marked, mixing, waiting].into_iter().flatten().max()
    }

    fn tick(&mut self, now: Now, reachable: BTreeSet<NodeId>, out: &mut Vec<MixerEffect>) {
        self.reachable = reachable;
        let Some(base) = self.base.filter(|_| now.mono >= self.next_tick) else { return };
        self.next_tick = now.mono.plus(self.job.pace.tick);
        let since = *self.since.get_or_insert(now.mono);
        let waited = now.mono.since(since);
        if !self.is_on && (self.was_on || waited >= self.rules.after) {
            self.is_on = true;
            self.next_step = now.mono;
            out.push(MixerEffect::Report(MixerEvent::Began { round: base.round, waited }));
            if std::mem::take(&mut self.was_on) {
                // Whether it was told before is not known: the same bytes again.
                self.tell(out);
            }
        }
        let is_due = self.is_on && now.mono >= self.next_step;
        if is_due && self.mixing.is_none() && self.untold.is_none() {
            self.next_step = now.mono.plus(self.rules.every);
            self.mix(base, out);
        }
    }

    /// Mixes what came with its own, and trains from there.
    fn mix(&mut self, base: Base, out: &mut Vec<MixerEffect>) {
        let came = std::mem::take(&mut self.inbox);
        let all: Vec<&Told> =
            self.own().into_iter().chain(came.values().map(|one| &**one)).collect();
        let drift = mix::mean(&all, self.job.max_examples, self.job.dim);
        let age = all.iter().map(|one| one.age).max().unwrap_or(0);
        let mixed = came.values().map(|one| (one.client, one.seq)).collect();
        let seq = self.stored.told.as_ref().map_or(0, |told| told.seq).saturating_add(1);
        let round = base.round;
        self.mixing = Some(Mixing { round, seq, age, drift: drift.clone(), mixed });
        out.push(MixerEffect::Train { round, seq, drift });
    }

    fn trained(
        &mut self,
        (round, seq): (u64, u64),
        learned: Option<(u32, Vec<i32>)>,
        out: &mut Vec<MixerEffect>,
    ) {
        let is_it = |mixing: &mut Mixing| (mixing.round, mixing.seq) == (round, seq);
        let Some(mut mixing) = self.mixing.take_if(is_it) else { return };
        let Some(base) = self.base else { return };
        let fits = |(examples, levels): &(u32, Vec<i32>)| {
            *examples > 0
                && levels.len() == self.job.dim
                && levels.iter().all(|level| level.unsigned_abs() <= LEVEL_MAX.unsigned_abs())
        };
        if learned.as_ref().is_some_and(|learned| !fits(learned)) {
            out.push(MixerEffect::Report(MixerEvent::BadTraining));
        }
        let examples = match learned.filter(fits) {
            Some((examples, levels)) => {
                mixing.age = mixing.age.saturating_add(1).min(MAX_AGE);
                mix::learn(&mut mixing.drift, &levels, self.job.clip, mixing.age);
                examples
            }
            // A step without training still carries what others learned.
            None => match self.own() {
                Some(own) if !mixing.mixed.is_empty() => own.examples,
                Some(_) | None => return,
            },
        };
        let mut marks = self.marks().cloned().unwrap_or_default();
        for (client, seq) in &mixing.mixed {
            marks.insert(client.node, (client.incarnation, *seq));
        }
        let Mixing { seq, age, drift, mixed, .. } = mixing;
        let told = Told { client: self.me, seq, base, age, examples, drift };
        self.stored = MixerStored { told: Some(told), marks };
        self.ordered += 1;
        self.untold = Some(self.ordered);
        if plant::is_on(Plant::PersonalSentUnstored) {
            self.tell(out);
        }
        let event = MixerEvent::Stepped { seq, age, mixed: mixed.len() };
        let change = Box::new(MixerChange { stored: self.stored.clone(), mixed });
        out.push(MixerEffect::Store { write: self.ordered, change });
        out.push(MixerEffect::Report(event));
    }

    fn stored_up_to(&mut self, write: u64, out: &mut Vec<MixerEffect>) {
        if self.untold.take_if(|untold| *untold <= write).is_some() {
            self.tell(out);
        }
    }

    /// Tells its model, as it is stored, to a few peers.
    fn tell(&self, out: &mut Vec<MixerEffect>) {
        let Some(told) = self.own() else { return };
        let peers = self.peers(told.seq);
        out.extend(
            peers.into_iter().map(|to| MixerEffect::Send { to, told: Box::new(told.clone()) }),
        );
    }

    /// Whom a model is told to: drawn from its number, so that everybody could know, among those
    /// who can be reached; first those who are known to learn.
    fn peers(&self, seq: u64) -> Vec<NodeId> {
        let is_client = |node: &NodeId| {
            let heard = self.stored.marks.contains_key(node) || self.inbox.contains_key(node);
            heard || self.clients.contains(node)
        };
        let lot = |node: &NodeId| {
            let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 epidemic peers");
            hasher.update(&self.name);
            hasher.update(&self.me.node.0);
            hasher.update(&seq.to_be_bytes());
            hasher.update(&node.0);
            *hasher.finalize().as_bytes()
        };
        let others = self.reachable.iter().filter(|node| **node != self.me.node);
        let mut all: Vec<_> = others.map(|node| (!is_client(node), lot(node), *node)).collect();
        all.sort_unstable();
        all.into_iter().take(usize::from(self.rules.peers)).map(|(.., node)| node).collect()
    }
}

impl Machine for Mixer {
    type Input = MixerInput;
    type Effect = MixerEffect;

    fn step(&mut self, now: Now, input: MixerInput, effects: &mut Vec<MixerEffect>) {
        match input {
            MixerInput::Followed { base, clients, is_over } => {
                self.clients = clients;
                self.followed(base, is_over, effects);
            }
            MixerInput::Received { from, told } => self.received(from, told, effects),
            MixerInput::Stored { write } => self.stored_up_to(write, effects),
            MixerInput::Trained { round, seq, examples, levels } => {
                self.trained((round, seq), Some((examples, levels)), effects);
            }
            MixerInput::Untrained { round, seq } => self.trained((round, seq), None, effects),
            MixerInput::Ticked { reachable } => self.tick(now, reachable, effects),
        }
    }

    fn wake_at(&self) -> Option<Mono> {
        self.base.is_some().then_some(self.next_tick)
    }
}

#[cfg(test)]
mod tests;
