//! The nodes of one job, their network and their disks, on virtual time.

use std::collections::BTreeMap;

use selvedge_base::{Machine, Micros, Mono, NodeId, Now, Wall};
use selvedge_federated::mask::Seed;
use selvedge_federated::privacy::ledger::{LedgerEffect, LedgerInput};
use selvedge_federated::robust::Rule;
use selvedge_federated::round::{
    AnchorChange, AnchorInput, ClientChange, ClientInput, Effect, Event, Folded, Job, Message,
    Mode, Payload, Tip,
};
use selvedge_federated::server::Strategy;

use super::check::{Broken, Observer, Promise};
use super::faults::{self, Faults, Parts};
use super::kill::{self, Kill, Killer, Moment, Steps, Taken};
use super::mixing::{self, Mixing, Seen, Step};
use super::node::Node;
use super::plan::{DIM, Plan, name};
use super::wishes::Wishes;
use crate::names::StandIn;
use crate::queue::{Class, Queue};
use crate::stream::Stream;

mod ends;
mod lies;
mod seats;

/// How long a job may take once all faults are over: some hundred times what a calm one takes.
const PATIENCE: Micros = Micros::secs(600);
/// The longest a client trains.
const TRAINING_MS: u64 = 900;
/// The longest that a double comes late.
const LATE: Micros = Micros::secs(20);

/// How often things happened, to see that they do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By name.
    pub seen: BTreeMap<&'static str, u64>,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of everything that happened, in order.
    pub hash: [u8; 32],
    /// What did not hold; the first ones.
    pub broken: Vec<Broken>,
    /// How often things happened.
    pub counters: Counters,
    /// When the last node came to the end.
    pub took: Micros,
    /// What nodes made of personal models, in order.
    pub steps: Vec<Step>,
    /// The steps that proposers took, by round and by who was how manieth to propose in it.
    pub proposed: BTreeMap<(u64, usize), Vec<Taken>>,
}

enum Happening {
    Tick(usize),
    Arrives { from: usize, to: usize, number: u64, message: Box<Message> },
    Durable { node: usize, life: u32, whose: Whose, write: u64 },
    Trained { node: usize, at: usize, life: u32, round: u64 },
    Crash(usize),
    Back(usize),
    Dies(usize),
    DiesLate(usize),
    Seats(seats::Happening),
    Mixing(mixing::Happening),
}

/// Which of a node's machines; a client and its ledger by the client's place.
#[derive(Clone, Copy)]
enum Whose {
    Client(usize),
    Anchor,
    Ledger(usize),
}

struct World<'a> {
    plan: &'a Plan,
    now: Mono,
    queue: Queue<Happening>,
    nodes: Vec<Node>,
    observer: Observer,
    counters: Counters,
    hasher: blake3::Hasher,
    network: Stream,
    killer: Killer<'a>,
    faults: Faults,
    wishes: Wishes,
    until: Micros,
    /// Personal models, where the plan has them.
    mixing: Option<Mixing<'a>>,
}

/// Runs a plan to its end.
pub fn run(plan: &Plan) -> Outcome {
    let mut world = World::new(plan);
    let limit = world.until.plus(PATIENCE);
    let mut ended = false;
    while let Some(((at, ..), event)) = world.queue.pop() {
        world.now = at;
        if at.0 > limit.0 {
            break;
        }
        // Whether a job has ended is asked at the same moments with personal models and without.
        let is_round = !matches!(event, Happening::Mixing(_));
        world.happen(event);
        ended = is_round && world.has_ended();
        if ended || !world.observer.broken.is_empty() {
            break;
        }
    }
    world.finish(ended)
}

pub(super) const fn index_of(node: &NodeId) -> usize {
    node.0[0] as usize
}

/// A job by its strategy.
const fn strategy(job: &Job) -> &'static str {
    match job.strategy {
        Strategy::Average { proximal_permille: 0 } => "jobs of FedAvg",
        Strategy::Average { .. } => "jobs of FedProx",
        Strategy::Adam { .. } => "jobs of FedAdam",
        Strategy::Scaffold { .. } => "jobs of SCAFFOLD",
    }
}

/// A job by how it adds up.
const fn rule(job: &Job) -> &'static str {
    match job.mode {
        Mode::Secure if job.groups() > 1 => "jobs of sums in groups",
        Mode::Secure => "jobs of secure sums",
        Mode::Plain(Rule::Mean) => "jobs of open means",
        Mode::Plain(Rule::Median) => "jobs of medians",
        Mode::Plain(Rule::Trimmed { .. }) => "jobs of trimmed means",
        Mode::Plain(Rule::MultiKrum { .. }) => "jobs of multi-Krum",
    }
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan) -> Self {
        let first = Tip::first(&plan.job, vec![0; DIM])
            .unwrap_or_else(|_| unreachable!("a model of the job's size"));
        let mut observer = Observer::default();
        observer.begins(&plan.job, &first);
        let mut world = Self {
            plan,
            now: Mono(0),
            queue: Queue::new(),
            nodes: (0..plan.nodes).map(|index| Node::new(plan, index, &first)).collect(),
            observer,
            counters: Counters::default(),
            hasher: blake3::Hasher::new(),
            network: Stream::keyed(plan.seed, 20, 0, 0),
            killer: Killer::new(&plan.kills),
            faults: Faults::default(),
            wishes: Wishes::new(plan),
            until: plan.faulty_until(),
            mixing: plan.epidemic.map(|rules| Mixing::new(plan, rules)),
        };
        for index in 0..plan.nodes {
            world.after(Micros::millis(index as u64), Class::Node, Happening::Tick(index));
        }
        for (node, at, back) in &plan.crashes {
            world.after(*at, Class::Fault, Happening::Crash(*node));
            world.after(*back, Class::Fault, Happening::Back(*node));
        }
        for (node, at) in &plan.deaths {
            world.after(*at, Class::Fault, Happening::Dies(*node));
        }
        world.begin_seats();
        if let Some((node, at)) = plan.late {
            world.after(at, Class::Fault, Happening::DiesLate(node));
        }
        (0..plan.nodes).for_each(|node| world.follow(node));
        world.count(strategy(&plan.job));
        world.count(rule(&plan.job));
        world
    }

    fn after(&mut self, span: Micros, class: Class, event: Happening) {
        self.queue.push(self.now.plus(span), class, event);
    }

    fn count(&mut self, what: &'static str) {
        *self.counters.seen.entry(what).or_default() += 1;
    }

    const fn clock(&self) -> Now {
        Now { mono: self.now, wall: Wall(0) }
    }

    fn happen(&mut self, event: Happening) {
        match event {
            Happening::Tick(node) => self.tick(node),
            Happening::Arrives { from, to, number, message } => {
                if self.nodes[to].is_up {
                    let wrong = self.faults.arrives(from, to, number);
                    wrong.into_iter().for_each(|what| self.count(what));
                    self.arrives(from, to, &message);
                }
            }
            Happening::Durable { node, life, whose, write } => {
                if self.nodes[node].life == life && self.nodes[node].is_up {
                    self.durable(node, whose, write);
                }
            }
            Happening::Trained { node, at, life, round } => {
                if self.nodes[node].life == life && self.nodes[node].is_up {
                    self.trained((node, at), round);
                }
            }
            Happening::Crash(node) => self.crash(node, "crash"),
            Happening::Back(node) => self.back(node),
            Happening::Dies(node) => {
                self.count("death");
                self.crash(node, "up until its death");
                self.dies(node);
            }
            Happening::DiesLate(node) => self.dies_late(node),
            Happening::Seats(event) => self.seats(event),
            Happening::Mixing(event) => self.mixes(event),
        }
    }

    /// Hands something to the personal models of a node, and takes what they order.
    fn mix(&mut self, node: usize, act: impl FnOnce(&mut Mixing<'a>, &mut Seen<'_>)) {
        let Some(mixing) = &mut self.mixing else { return };
        let mut seen = Seen {
            now: self.now,
            life: self.nodes[node].life,
            until: self.until,
            observer: &mut self.observer,
            counters: &mut self.counters,
        };
        act(mixing, &mut seen);
        for (span, event) in std::mem::take(&mut mixing.due) {
            self.queue.push(self.now.plus(span), Class::Check, Happening::Mixing(event));
        }
    }

    fn mixes(&mut self, event: mixing::Happening) {
        let (node, life) = match &event {
            mixing::Happening::Arrives { to, .. } => (*to, self.nodes[*to].life),
            mixing::Happening::Durable { node, life, .. }
            | mixing::Happening::Trained { node, life, .. } => (*node, *life),
        };
        if self.nodes[node].is_up && self.nodes[node].life == life {
            self.mix(node, |mixing, seen| mixing.happen(event, seen));
        }
    }

    /// The personal models of a node hear how far its client follows the chain.
    fn follow(&mut self, node: usize) {
        let tip = self.nodes[node].tip().clone();
        self.mix(node, |mixing, seen| mixing.followed(node, &tip, seen));
    }

    fn tick(&mut self, node: usize) {
        self.after(self.plan.job.pace.tick, Class::Node, Happening::Tick(node));
        if self.nodes[node].is_up {
            for at in 0..self.nodes[node].members.len() {
                self.step_client((node, at), ClientInput::Ticked);
            }
            self.step_anchor(node, AnchorInput::Ticked);
        }
        if self.nodes[node].is_up && self.mixing.is_some() {
            let (plan, at) = (self.plan, Micros(self.now.0));
            let others = (0..plan.nodes).filter(|other| {
                let is_cut = plan.is_cut(node, *other, at) || plan.is_cut(*other, node, at);
                *other != node && self.nodes[*other].is_up && !is_cut
            });
            let others: Vec<usize> = others.collect();
            self.mix(node, |mixing, seen| mixing.tick(node, &others, seen));
        }
    }

    fn step_client(&mut self, (node, at): (usize, usize), input: ClientInput) {
        if !self.plan.is_client(node) || !self.nodes[node].is_up {
            return;
        }
        let mut effects = Vec::new();
        let now = self.clock();
        self.killer.acts(node);
        self.nodes[node].members[at].client.step(now, input, &mut effects);
        for effect in effects {
            let moment = kill::of_client(&effect);
            if !self.takes(node, moment, |world| world.client_effect((node, at), effect)) {
                return;
            }
        }
    }

    /// A node takes a step, unless it is to die just before it. Whether it lives on.
    fn takes(&mut self, node: usize, moment: Option<Moment>, step: impl FnOnce(&mut Self)) -> bool {
        let life = self.nodes[node].life;
        let kill = match moment {
            Some(moment) => self.killer.comes(node, moment),
            None => {
                self.killer.acts(node);
                None
            }
        };
        if kill.is_none_or(|kill| !kill.before) {
            step(self);
        }
        if let Some(kill) = kill.filter(|_| self.nodes[node].is_up) {
            self.kill(node, &kill);
        }
        self.nodes[node].life == life
    }

    fn kill(&mut self, node: usize, kill: &Kill) {
        match kill.steps {
            Steps::OfProposer { .. } => self.count("a proposer killed"),
            Steps::Of(moment) if Moment::CLIENTS.contains(&moment) => {
                self.count("killed in a client's step");
            }
            Steps::Of(_) => self.count("killed in an anchor's step"),
        }
        self.crash(node, "killed in a step");
        match kill.back {
            Some(back) => self.after(back, Class::Fault, Happening::Back(node)),
            None => self.dies(node),
        }
    }

    /// A node that is down never comes back.
    fn dies(&mut self, node: usize) {
        self.nodes[node].is_dead = true;
        if self.faults.dies(self.plan, &self.nodes) {
            self.count("as many anchors dead as may be");
        }
    }

    fn client_effect(&mut self, (node, at): (usize, usize), effect: Effect<ClientChange>) {
        match effect {
            Effect::Store { write, change } => {
                let span = self.nodes[node].members[at].disk.write(write, *change);
                let life = self.nodes[node].life;
                let event = Happening::Durable { node, life, whose: Whose::Client(at), write };
                self.after(span, Class::Node, event);
            }
            Effect::Send { to, message } => {
                if let Message::Share { header, .. } = &*message {
                    self.observer.named(header.id, header.commitment);
                    let spent = self.nodes[node].members[at].ledger_disk.durable.spent;
                    self.observer.leaves(&self.plan.job, header, spent, self.plan.cap(node));
                }
                self.send(node, index_of(&to), message);
            }
            Effect::Spend(spend) => self.step_ledger((node, at), LedgerInput::Asked(spend)),
            Effect::Replay { .. } => {}
            Effect::Train { round } => {
                let span = Micros::millis(1 + self.nodes[node].dice.below(TRAINING_MS));
                let life = self.nodes[node].life;
                self.after(span, Class::Node, Happening::Trained { node, at, life, round });
            }
            Effect::Report(event) => self.client_event((node, at), event),
        }
    }

    fn step_ledger(&mut self, (node, at): (usize, usize), input: LedgerInput) {
        let mut effects = Vec::new();
        self.killer.acts(node);
        self.nodes[node].members[at].ledger.step(input, &mut effects);
        for effect in effects {
            let stores = matches!(effect, LedgerEffect::Store { .. });
            let moment = stores.then_some(Moment::StoreSpent);
            if !self.takes(node, moment, |world| world.ledger_effect((node, at), effect)) {
                return;
            }
        }
    }

    fn ledger_effect(&mut self, (node, at): (usize, usize), effect: LedgerEffect) {
        match effect {
            LedgerEffect::Store { write, change } => {
                let span = self.nodes[node].members[at].ledger_disk.write(write, change);
                let life = self.nodes[node].life;
                let event = Happening::Durable { node, life, whose: Whose::Ledger(at), write };
                self.after(span, Class::Node, event);
            }
            LedgerEffect::Granted { commitment, .. } => {
                self.step_client((node, at), ClientInput::Granted { commitment });
            }
            LedgerEffect::Denied { commitment, why, .. } => {
                self.step_client((node, at), ClientInput::Denied { commitment, why });
            }
        }
    }

    fn client_event(&mut self, (node, at): (usize, usize), event: Event) {
        match event {
            Event::Receipted(id) => {
                self.count("receipted");
                // It ends in a set that is closed after its receipts, whatever it was trained for.
                let base =
                    self.nodes[node].members[at].client.pending().map_or(0, |one| one.base_round);
                let known = self.nodes.iter().map(|node| node.anchor.tip().round).max();
                let next = known
                    .map_or(0, |round| round + 1)
                    .saturating_sub(self.plan.job.max_staleness());
                let epoch = self.nodes[node].members[at].client.tip().committee.epoch;
                self.observer.receipted.insert(id, (base.max(next), epoch));
            }
            Event::BadUpdate(_) => self.count("bad update refused"),
            Event::PrivacySpent { .. } => self.count("privacy of a job used up"),
            Event::PrivacyDenied(_) => self.count("privacy of a node used up"),
            Event::Refused { .. } => self.count("contribution refused"),
            Event::Misdeed { by, what } => self.misdeed(&by, &what),
            Event::Disagree { .. } => {}
            Event::Unasked { .. } => self.count("a proposal of other anchors waits"),
            Event::Folded { .. } => {
                let tip = self.nodes[node].members[at].client.tip().clone();
                self.hasher.update(&tip.record);
                if at == 0 {
                    self.follow(node);
                }
            }
            Event::Counted(_)
            | Event::Expired(..)
            | Event::Closed { .. }
            | Event::LeftOut { .. } => {}
            Event::BelowFloor { .. } => {}
        }
    }

    /// A step of an anchor; somebody who is to die in it does.
    fn step_anchor(&mut self, node: usize, input: AnchorInput) {
        if !self.nodes[node].is_up {
            return;
        }
        let mut effects = Vec::new();
        let now = self.clock();
        self.killer.acts(node);
        self.nodes[node].anchor.step(now, input, &mut effects);
        for effect in effects {
            if let Effect::Store { change, .. } = &effect
                && let AnchorChange::Promised(ballot) = &**change
            {
                let round = self.nodes[node].anchor.tip().round;
                self.killer.promises(node, round, ballot);
            }
            let moment = kill::of_anchor(&effect);
            if !self.takes(node, moment, |world| world.anchor_effect(node, effect)) {
                return;
            }
        }
    }

    fn anchor_effect(&mut self, node: usize, effect: Effect<AnchorChange>) {
        match effect {
            Effect::Store { write, change } => {
                let span = self.nodes[node].anchor_disk.write(write, *change);
                let life = self.nodes[node].life;
                let event = Happening::Durable { node, life, whose: Whose::Anchor, write };
                self.after(span, Class::Node, event);
            }
            Effect::Send { to, message } => {
                self.anchor_says(node, &message);
                self.anchor_sends(node, &to, message);
            }
            Effect::Replay { to, round } => {
                if let Some(folded) = self.nodes[node].anchor_disk.rounds.get(&round).cloned() {
                    self.count("round told again");
                    self.anchor_sends(node, &to, Box::new(Message::Folded(Box::new(folded))));
                }
            }
            Effect::Train { .. } | Effect::Spend(_) => {}
            Effect::Report(event) => match event {
                Event::Closed { .. } => self.closed(),
                Event::LeftOut { .. } => self.count("left out"),
                Event::BelowFloor { .. } => self.count("below the floor"),
                Event::Refused { .. } => self.count("contribution refused"),
                Event::Misdeed { by, what } => self.misdeed(&by, &what),
                Event::Disagree { .. } => self.count("parts that disagree"),
                Event::Unasked { .. } => self.count("a proposal of other anchors waits"),
                Event::Folded { .. } => {
                    let record = self.nodes[node].anchor.tip().record;
                    self.hasher.update(&record);
                }
                Event::Receipted(_)
                | Event::Counted(_)
                | Event::Expired(..)
                | Event::PrivacySpent { .. }
                | Event::PrivacyDenied(_)
                | Event::BadUpdate(_) => {}
            },
        }
    }

    /// An anchor closed a set, beside whatever faults there are now.
    fn closed(&mut self) {
        self.count("closed");
        let fewest = self.faults.closed(self.plan.job.scheme);
        fewest.into_iter().for_each(|what| self.count(what));
        let parts = faults::parts(self.plan, &self.nodes, Micros(self.now.0));
        if parts == Some(Parts::OneSide) {
            self.count("closed on one side of a cut");
        }
    }

    fn anchor_says(&mut self, node: usize, message: &Message) {
        let durable = &self.nodes[node].anchor_disk.durable;
        match message {
            Message::Receipt(receipt) => {
                let id = receipt.id;
                let is_over = durable.tip.last(&id.client) >= id.seq;
                let held = durable.held.get(&id);
                let is_held = held.is_some_and(|held| {
                    held.header.sharing == receipt.sharing
                        && held.header.commitment == receipt.commitment
                });
                self.observer.receipt(id, is_held || is_over);
            }
            Message::Accepted(accept) => {
                self.observer.accepts(accept, self.plan.job.quorum());
            }
            Message::Closed(certificate) => {
                self.observer.closes(certificate.close.round, certificate.close.digest());
            }
            Message::Prepare { ballot, .. } if ballot.number > 1 => self.count("later turn"),
            Message::Opened(opening) => {
                let disk = &self.nodes[node].anchor_disk;
                let over = disk.rounds.get(&opening.round).map(|folded| &folded.certificate);
                let now = durable.opened.as_ref().filter(|one| one.close.round == opening.round);
                let written = now.or(over).map(|one| one.close.digest());
                self.observer.shows(opening, written);
            }
            Message::Share { .. }
            | Message::Refused { .. }
            | Message::Prepare { .. }
            | Message::Promise { .. }
            | Message::Behind { .. }
            | Message::Propose { .. }
            | Message::Ask { .. }
            | Message::Folded(_) => {}
        }
    }

    /// Whether something said now from one node to another is lost.
    fn is_lost(&mut self, from: usize, to: usize) -> bool {
        let at = Micros(self.now.0);
        let is_cut = self.plan.is_cut(from, to, at);
        if is_cut {
            self.count("lost in a cut");
            let felt = self.faults.felt(self.plan, &self.nodes, at);
            felt.into_iter().for_each(|parts| self.count(parts.felt()));
        }
        is_cut || (at < self.until && self.network.chance(self.plan.loss_permille))
    }

    fn send(&mut self, from: usize, to: usize, message: Box<Message>) {
        if from == to {
            let number = self.faults.sends();
            let event = Happening::Arrives { from, to, number, message };
            return self.after(Micros(1), Class::Network, event);
        }
        if self.is_lost(from, to) {
            return;
        }
        let faulty = self.now.0 < self.until.0;
        let way = Micros(500 + self.network.below(self.plan.delay.0));
        let number = self.faults.sends();
        if faulty && self.network.chance(self.plan.double_permille) {
            self.faults.doubles();
            let late = if self.network.chance(250) { self.network.below(LATE.0) } else { 5_000 };
            let message = message.clone();
            let event = Happening::Arrives { from, to, number, message };
            self.after(way.plus(Micros(late)), Class::Network, event);
        }
        let mut message = message;
        if faulty && self.network.chance(self.plan.damage_permille) {
            let bits = self.network.next();
            if let Message::Share {
                payload: Payload::Sealed(sealed) | Payload::Proven { sealed, .. },
                ..
            } = &mut *message
            {
                let at = bits as usize % sealed.len().max(1);
                sealed.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (bits >> 61));
            }
        }
        self.after(way, Class::Network, Happening::Arrives { from, to, number, message });
    }

    fn arrives(&mut self, from: usize, to: usize, message: &Message) {
        self.hasher.update(&self.now.0.to_be_bytes());
        self.hasher.update(&[from as u8, to as u8]);
        let from = name(from);
        let (for_client, for_anchor) = message.is_for();
        let message = Box::new(message.clone());
        if for_client {
            for at in 0..self.nodes[to].members.len() {
                if self.nodes[to].members[at].client.is_meant(&message) {
                    let input = ClientInput::Received { from, message: message.clone() };
                    self.step_client((to, at), input);
                }
            }
        }
        if for_anchor {
            self.step_anchor(to, AnchorInput::Received { from, message });
        }
    }

    fn durable(&mut self, node: usize, whose: Whose, write: u64) {
        match whose {
            Whose::Anchor => {
                let due = self.nodes[node].anchor_disk.due(write);
                due.iter().for_each(|change| self.anchor_wrote(node, change));
                self.step_anchor(node, AnchorInput::Stored { write });
            }
            Whose::Client(at) => {
                let due = self.nodes[node].members[at].disk.due(write);
                due.iter().for_each(|change| self.client_wrote((node, at), change));
                self.step_client((node, at), ClientInput::Stored { write });
            }
            Whose::Ledger(at) => {
                let disk = &mut self.nodes[node].members[at].ledger_disk;
                let due = disk.due(write);
                due.iter().for_each(|change| disk.durable.apply(change));
                self.step_ledger((node, at), LedgerInput::Stored { write });
            }
        }
    }

    fn anchor_wrote(&mut self, node: usize, change: &AnchorChange) {
        let (job, seal) = (&*self.plan.job, StandIn(name(node)));
        let disk = &mut self.nodes[node].anchor_disk;
        disk.durable.apply(job, change, &seal);
        let tip = disk.durable.tip.clone();
        match change {
            AnchorChange::Held(held) => {
                self.observer.named(held.header.id, held.header.commitment);
            }
            AnchorChange::Folded(folded) => {
                disk.rounds.insert(folded.certificate.close.round, (**folded).clone());
                self.folded(job, folded, &tip);
            }
            AnchorChange::Accepted(_, close) => self.accepted(node, close),
            AnchorChange::Promised(_) | AnchorChange::Opened(_) => {}
        }
    }

    fn client_wrote(&mut self, (node, at): (usize, usize), change: &ClientChange) {
        let (job, seal) = (&*self.plan.job, StandIn(name(node)));
        let disk = &mut self.nodes[node].members[at].disk;
        disk.durable.apply(job, change, &seal);
        let tip = disk.durable.tip.clone();
        match change {
            ClientChange::Contributed(pending) => self.observer.contributed(pending),
            ClientChange::Folded(folded) => self.folded(job, folded, &tip),
        }
    }

    fn folded(&mut self, job: &Job, folded: &Folded, tip: &Tip) {
        let carried = self.observer.carried;
        self.observer.folds(job, folded, tip);
        if self.plan.job.privacy.is_some_and(|privacy| privacy.norm != tip.norm) {
            self.count("norm followed");
        }
        if self.observer.carried > carried {
            self.count("carried");
        }
        if folded.certificate.close.nodes() < folded.certificate.close.entries.len() {
            self.count("several clients of a node in a sum");
        }
        if !folded.certificate.close.expired.is_empty() {
            self.count("expired");
        }
        self.hands_on(folded, tip);
    }

    /// Training is a draw; now and then it fails.
    fn trained(&mut self, (node, at): (usize, usize), round: u64) {
        let controls = self.plan.job.trained_len() - DIM;
        let Node { dice, controls: others, .. } = &mut self.nodes[node];
        let value = |dice: &mut Stream| (dice.below(2_000) as f32 - 1_000.0) / 4_001.0;
        let mut delta: Vec<f32> = (0..DIM).map(|_| value(dice)).collect();
        delta.extend((0..controls).map(|_| value(others)));
        if dice.chance(30) {
            delta[dice.below(DIM as u64) as usize] =
                [f32::NAN, f32::INFINITY, 9.0][round as usize % 3];
        }
        let examples = 1 + dice.below(150) as u32;
        let mut seed = [0; 32];
        seed.chunks_mut(8).for_each(|part| part.copy_from_slice(&dice.next().to_le_bytes()));
        let input = ClientInput::Trained { base_round: round, examples, delta, seed: Seed(seed) };
        self.step_client((node, at), input);
    }

    fn crash(&mut self, node: usize, why: &'static str) {
        if !self.nodes[node].is_up {
            return;
        }
        self.count(why);
        let had_quorum = !faults::is_without_quorum(self.plan, &self.nodes);
        self.nodes[node].is_up = false;
        self.nodes[node].life += 1;
        if had_quorum && faults::is_without_quorum(self.plan, &self.nodes) {
            self.count("fewer anchors up than a quorum");
        }
        let (found, mut lost) = self.nodes[node].anchor_disk.crash();
        let mut torn = lost && !found.is_empty();
        let mut untold = !found.is_empty();
        found.iter().for_each(|change| self.anchor_wrote(node, change));
        for at in 0..self.nodes[node].members.len() {
            let (found, also_lost) = self.nodes[node].members[at].disk.crash();
            (torn, lost) = (torn || (also_lost && !found.is_empty()), lost || also_lost);
            untold |= !found.is_empty();
            found.iter().for_each(|change| self.client_wrote((node, at), change));
            let disk = &mut self.nodes[node].members[at].ledger_disk;
            let (found, spend_lost) = disk.crash();
            torn |= spend_lost && !found.is_empty();
            untold |= !found.is_empty();
            found.iter().for_each(|change| disk.durable.apply(change));
            if spend_lost {
                self.count("a spend lost in a crash");
            }
        }
        let writes = [
            (lost, "writes lost in a crash"),
            (torn, "writes in part lost in a crash"),
            (untold, "writes kept in a crash that nobody was told of"),
        ];
        writes.into_iter().filter(|(is_so, _)| *is_so).for_each(|(_, what)| self.count(what));
        self.mix(node, |mixing, seen| mixing.crash(node, seen));
    }

    fn back(&mut self, node: usize) {
        let plan = self.plan;
        let at = &mut self.nodes[node];
        if at.is_up || at.is_dead {
            return;
        }
        at.starts(plan, node);
        let tip = at.tip().clone();
        self.mix(node, |mixing, seen| mixing.back(node, &tip, seen));
        self.told(node);
    }
}
