//! The machine: takes facts, probes, declares.
//!
//! All timing happens on one tick of half a probe period, so nothing has to be cancelled: each
//! tick asks the facts of every peer that is not plainly well for their verdict, every second tick
//! sends probes. A mesh in which all is well costs a tick nothing, however large it is.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::plant::{self, Plant};
use selvedge_base::{BoundedQueue, Dice, Machine, Micros, Mono, NodeId, Now};

use super::book::Peer;
use super::gossip::Gossip;
use super::stillness::Stillness;
use super::{
    Beat, HELPERS, MAX_PEERS, MAX_RUMOURS, PROBE_PERIOD, PROBES_PER_PERIOD, PeerState, PeerView,
    Pulse, REDIAL_AT_MOST, REDIALS_PER_PERIOD, Rumour, STALL_NOTICED, SwimEffect, SwimInput,
    SwimMessage, TOLD_AT_ONCE, Why,
};

/// Half a probe period: verdicts are at most this late.
const TICK: Micros = Micros(PROBE_PERIOD.0 / 2);
/// Probes made for others and not yet answered; a few hundred outlast any round trip.
const MAX_ERRANDS: usize = 256;
/// Rumours that lift this node's own incarnation by more are lies: nobody restarts that often.
const MAX_OWN_LEAP: u64 = 1 << 32;

/// The failure detector of one node.
#[derive(Clone, Debug)]
pub struct Swim {
    me: NodeId,
    incarnation: u64,
    engine: Stillness,
    /// What this node says of its own engine.
    frozen: bool,
    /// When news of an engine were last told at once.
    told_at: Option<Mono>,
    dice: Dice,
    peers: BTreeMap<NodeId, Peer>,
    /// Those a tick has to look at ([`Peer::is_restless`]).
    restless: BTreeSet<NodeId>,
    gossip: Gossip,
    errands: BoundedQueue<Errand>,
    seq: u64,
    /// Peers still to probe in this round through a mesh of more than [`PROBES_PER_PERIOD`].
    round: Vec<NodeId>,
    next_tick: Option<Mono>,
    /// Whether the coming tick probes.
    probes_next: bool,
}

/// A probe made for another node.
#[derive(Clone, Copy, Debug)]
struct Errand {
    seq: u64,
    target: NodeId,
    asker: NodeId,
    asker_seq: u64,
}

impl Swim {
    /// The detector of node `me` in this incarnation, which must be higher than any before.
    pub const fn new(me: NodeId, incarnation: u64, dice: Dice) -> Self {
        Self {
            me,
            incarnation,
            engine: Stillness::new(Mono(0)),
            frozen: false,
            told_at: None,
            dice,
            peers: BTreeMap::new(),
            restless: BTreeSet::new(),
            gossip: Gossip { news: BTreeMap::new() },
            errands: BoundedQueue::new(MAX_ERRANDS),
            seq: 0,
            round: Vec::new(),
            next_tick: None,
            probes_next: true,
        }
    }

    /// All peers, by node.
    pub fn states(&self) -> impl Iterator<Item = PeerView> {
        self.peers.iter().map(|(node, peer)| peer.view(*node))
    }

    /// One peer.
    pub fn peer(&self, node: &NodeId) -> Option<PeerView> {
        self.peers.get(node).map(|peer| peer.view(*node))
    }

    /// This node's incarnation, raised by refutations; goes into hellos.
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether no peer's verdict would be another one without a tick looking at it.
    #[cfg(test)]
    pub(super) fn looks_at_all_it_must(&self, now: Mono) -> bool {
        let calm = self.peers.iter().filter(|(node, _)| !self.restless.contains(node));
        let later = now.plus(Micros::secs(3_600));
        calm.into_iter().all(|(_, peer)| peer.verdict(later) == (peer.state, peer.why))
            && self.restless.iter().all(|node| self.peers.contains_key(node))
    }

    fn introduced(&mut self, now: Mono, node: NodeId) {
        if node == self.me || self.peers.contains_key(&node) {
            return;
        }
        if self.peers.len() >= MAX_PEERS && !self.drop_a_dead_peer() {
            return;
        }
        self.peers.insert(node, Peer::introduced(now));
        self.restless.insert(node);
        if self.next_tick.is_none() {
            // A random start keeps the nodes of a mesh from probing in step.
            self.next_tick = Some(now.plus(Micros(self.dice.below(TICK.0))));
        }
    }

    fn link_up(&mut self, now: Mono, node: NodeId, incarnation: u64, out: &mut Vec<SwimEffect>) {
        self.introduced(now, node);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.link_up(now, incarnation);
            peer.heard(now, incarnation);
            self.judge(now, node, out);
            // At once: measures the round trip, and tells a peer that is held dead to refute.
            self.ping(now, node, out);
        }
    }

    fn received(
        &mut self,
        now: Mono,
        from: NodeId,
        message: SwimMessage,
        out: &mut Vec<SwimEffect>,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let (SwimMessage::Ping(beat)
        | SwimMessage::Ack(beat)
        | SwimMessage::PingReq { beat, .. }
        | SwimMessage::Reached { beat, .. }) = &message;
        let incarnation = beat.incarnation;
        if peer.heard(now, incarnation) {
            peer.pulsed(now, beat.pulse);
            let of_itself = |said: &Rumour| said.node == from && said.state == PeerState::Frozen;
            let frozen = beat.gossip.iter().take(MAX_RUMOURS).any(of_itself);
            if !frozen && peer.thawed_above(now, incarnation) {
                self.gossip.add(Rumour { node: from, incarnation, state: PeerState::Alive });
                self.tell_at_once(now, out);
            }
        }
        for rumour in beat.gossip.iter().take(MAX_RUMOURS) {
            self.rumoured(now, *rumour, out);
        }
        self.judge(now, from, out);
        match message {
            SwimMessage::Ping(beat) => {
                let beat = self.beat(&from, beat.seq);
                out.push(SwimEffect::Send { to: from, message: SwimMessage::Ack(beat) });
            }
            SwimMessage::Ack(beat) => self.acked(now, from, &beat, out),
            SwimMessage::PingReq { target, beat } => {
                let linked = self.peers.get(&target).is_some_and(|peer| peer.linked);
                if linked && target != from {
                    let seq = self.ping(now, target, out);
                    let asker_seq = beat.seq;
                    self.errands.push_evicting(Errand { seq, target, asker: from, asker_seq });
                }
            }
            SwimMessage::Reached { target, incarnation, beat, .. } => {
                if let Some(peer) = self.peers.get_mut(&target)
                    && !plant::is_on(Plant::WordOfOthersIgnored)
                {
                    peer.reached(now, incarnation, beat.seq);
                    self.judge(now, target, out);
                }
            }
        }
    }

    fn acked(&mut self, now: Mono, from: NodeId, beat: &Beat, out: &mut Vec<SwimEffect>) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.acked(now, beat.seq);
        }
        let asked = self
            .errands
            .iter()
            .find(|errand| errand.seq == beat.seq && errand.target == from)
            .copied();
        if let Some(errand) = asked {
            let message = SwimMessage::Reached {
                target: from,
                incarnation: beat.incarnation,
                pulse: beat.pulse,
                beat: self.beat(&errand.asker, errand.asker_seq),
            };
            out.push(SwimEffect::Send { to: errand.asker, message });
        }
    }

    fn rumoured(&mut self, now: Mono, rumour: Rumour, out: &mut Vec<SwimEffect>) {
        if rumour.node == self.me {
            self.refute(rumour, out);
        } else if let Some(peer) = self.peers.get_mut(&rumour.node) {
            let before = (peer.state, peer.is_said_frozen());
            let news = peer.rumoured(now, rumour);
            let engine_changed = peer.is_said_frozen() != before.1;
            if peer.state != before.0 {
                let (state, why) = (peer.state, peer.why);
                out.push(SwimEffect::Declare { node: rumour.node, state, why });
            }
            if news {
                self.gossip.add(rumour);
            }
            self.judge(now, rumour.node, out);
            if news && engine_changed {
                self.tell_at_once(now, out);
            }
        }
    }

    /// Takes this node's own pulse, and tells when its engine froze or goes on again.
    fn reported(&mut self, now: Mono, pulse: Pulse, out: &mut Vec<SwimEffect>) {
        self.engine.pulsed(now, pulse);
        let frozen = self.engine.is_frozen();
        if frozen == std::mem::replace(&mut self.frozen, frozen) {
            return;
        }
        if !frozen {
            // What was said under the old incarnation, and is still on its way, is over.
            self.rise(self.incarnation, out);
        }
        self.gossip.add(self.of_itself());
        self.tell_at_once(now, out);
    }

    /// What this node says of itself.
    const fn of_itself(&self) -> Rumour {
        let state = if self.frozen { PeerState::Frozen } else { PeerState::Alive };
        Rumour { node: self.me, incarnation: self.incarnation, state }
    }

    fn rise(&mut self, above: u64, out: &mut Vec<SwimEffect>) {
        if let Some(incarnation) = above.checked_add(1) {
            self.incarnation = incarnation;
            out.push(SwimEffect::StoreIncarnation { incarnation });
        }
    }

    /// Tells a few peers what does not wait for the next probes. Not more often than probes: what
    /// comes in between travels with them.
    fn tell_at_once(&mut self, now: Mono, out: &mut Vec<SwimEffect>) {
        if self.told_at.is_some_and(|at| now.since(at) < PROBE_PERIOD) {
            return;
        }
        self.told_at = Some(now);
        let well = |(_, peer): &(&NodeId, &Peer)| peer.linked && peer.state != PeerState::Dead;
        let peers = self.peers.iter().filter(well).map(|(node, _)| *node).collect();
        for peer in draw(&mut self.dice, peers, TOLD_AT_ONCE) {
            self.ping(now, peer, out);
        }
    }

    /// Rises above what others hold against this node.
    fn refute(&mut self, rumour: Rumour, out: &mut Vec<SwimEffect>) {
        let ahead = rumour.incarnation.saturating_sub(self.incarnation);
        let against = match rumour.state {
            PeerState::Suspect | PeerState::Dead => rumour.incarnation >= self.incarnation,
            PeerState::Frozen if !self.frozen => rumour.incarnation >= self.incarnation,
            PeerState::Alive | PeerState::Frozen => ahead > 0,
        };
        let against = against && !plant::is_on(Plant::RefutationForgotten);
        if against && ahead <= MAX_OWN_LEAP {
            self.rise(rumour.incarnation, out);
            self.gossip.add(self.of_itself());
        }
    }

    /// Draws the verdict from a peer's facts and declares it when it is another than before.
    fn judge(&mut self, now: Mono, node: NodeId, out: &mut Vec<SwimEffect>) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let before = peer.state;
        let (state, why) = peer.verdict(now);
        (peer.state, peer.why) = (state, why);
        match peer.is_restless() {
            true => self.restless.insert(node),
            false => self.restless.remove(&node),
        };
        if state == before {
            return;
        }
        let spread = match (state, why) {
            (PeerState::Dead, _) | (PeerState::Suspect, Why::Silent) => true,
            (PeerState::Alive, _) => before == PeerState::Dead || why == Why::Returned,
            (PeerState::Suspect | PeerState::Frozen, _) => false,
        };
        let incarnation = peer.incarnation;
        if spread {
            self.gossip.add(Rumour { node, incarnation, state });
        }
        out.push(SwimEffect::Declare { node, state, why });
    }

    fn ticked(&mut self, now: Mono, out: &mut Vec<SwimEffect>) {
        let Some(due) = self.next_tick.filter(|due| *due <= now) else { return };
        let late = now.since(due);
        if late >= STALL_NOTICED && !plant::is_on(Plant::OwnStallBlamed) {
            for peer in self.peers.values_mut() {
                peer.forgive(late);
            }
        }
        self.next_tick = Some(if late >= TICK { now.plus(TICK) } else { due.plus(TICK) });
        let changed = |(_, peer): &(&NodeId, &Peer)| peer.verdict(now) != (peer.state, peer.why);
        let news: Vec<NodeId> = self.restless().filter(changed).map(|(node, _)| *node).collect();
        for node in news {
            self.judge(now, node, out);
        }
        self.probes_next = !self.probes_next;
        if self.probes_next {
            return;
        }
        for node in self.due_for_probe() {
            self.ping(now, node, out);
        }
        self.ask_others(out);
        self.redial(now, out);
    }

    /// The peers that are not plainly well, by node.
    fn restless(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.restless.iter().filter_map(|node| self.peers.get_key_value(node))
    }

    /// All peers of a small mesh; of a large one the next few of the round and those in doubt.
    fn due_for_probe(&mut self) -> Vec<NodeId> {
        let linked = |node: &NodeId| self.peers.get(node).is_some_and(|peer| peer.linked);
        if self.peers.len() <= PROBES_PER_PERIOD {
            return self.peers.keys().copied().filter(linked).collect();
        }
        let doubted = |peer: &Peer| {
            let unclear = peer.unanswered_since.is_some() || peer.rumoured || peer.doubtful;
            peer.linked && peer.state != PeerState::Dead && unclear
        };
        let in_doubt = self.restless().filter(|(_, peer)| doubted(peer)).map(|(node, _)| *node);
        let in_doubt = in_doubt.collect();
        let mut due = draw(&mut self.dice, in_doubt, PROBES_PER_PERIOD);
        let mut wanted = PROBES_PER_PERIOD;
        let mut refilled = false;
        while wanted > 0 {
            let Some(node) = self.round.pop() else {
                if std::mem::replace(&mut refilled, true) {
                    break;
                }
                let all: Vec<NodeId> = self.peers.keys().copied().collect();
                let count = all.len();
                self.round = draw(&mut self.dice, all, count);
                continue;
            };
            let linked = self.peers.get(&node).is_some_and(|peer| peer.linked);
            if linked && !due.contains(&node) {
                due.push(node);
                wanted -= 1;
            }
        }
        due
    }

    /// Asks a few healthy peers to probe each suspect.
    fn ask_others(&mut self, out: &mut Vec<SwimEffect>) {
        let suspects: Vec<NodeId> = self
            .restless()
            .filter(|(_, peer)| peer.state == PeerState::Suspect)
            .map(|(node, _)| *node)
            .take(PROBES_PER_PERIOD)
            .collect();
        for target in suspects {
            let healthy = |(_, peer): &(&NodeId, &Peer)| {
                peer.linked && matches!(peer.state, PeerState::Alive | PeerState::Frozen)
            };
            let helpers = self.peers.iter().filter(healthy).map(|(node, _)| *node).collect();
            for helper in draw(&mut self.dice, helpers, HELPERS) {
                let seq = self.next_seq();
                let beat = self.beat(&helper, seq);
                let message = SwimMessage::PingReq { target, beat };
                out.push(SwimEffect::Send { to: helper, message });
            }
        }
    }

    fn redial(&mut self, now: Mono, out: &mut Vec<SwimEffect>) {
        let due = |peer: &Peer| !peer.linked && peer.redial_at <= now;
        let mut lost: Vec<(Mono, NodeId)> = self
            .restless()
            .filter(|(_, peer)| due(peer))
            .map(|(node, peer)| (peer.redial_at, *node))
            .collect();
        lost.sort_unstable();
        for (_, node) in lost.into_iter().take(REDIALS_PER_PERIOD) {
            let jitter = Micros(self.dice.below(PROBE_PERIOD.0));
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.redial_at = now.plus(peer.redial_wait).plus(jitter);
                peer.redial_wait = peer.redial_wait.times(2).min(REDIAL_AT_MOST);
                out.push(SwimEffect::Redial { node });
            }
        }
    }

    fn ping(&mut self, now: Mono, to: NodeId, out: &mut Vec<SwimEffect>) -> u64 {
        let seq = self.next_seq();
        let beat = self.beat(&to, seq);
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.pinged(now, seq);
            self.restless.insert(to);
        }
        out.push(SwimEffect::Send { to, message: SwimMessage::Ping(beat) });
        seq
    }

    fn beat(&mut self, to: &NodeId, seq: u64) -> Beat {
        let tell = self.peers.get_mut(to).and_then(|peer| peer.told(*to));
        let own = self.frozen.then(|| self.of_itself());
        let gossip = self.gossip.pick(to, tell.into_iter().chain(own).collect(), self.peers.len());
        Beat { seq, incarnation: self.incarnation, pulse: self.engine.pulse(), gossip }
    }

    const fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Makes room by dropping the dead peer that was heard longest ago.
    fn drop_a_dead_peer(&mut self) -> bool {
        let dead = self.peers.iter().filter(|(_, peer)| peer.state == PeerState::Dead);
        let oldest = dead.min_by_key(|(_, peer)| peer.heard_at()).map(|(node, _)| *node);
        oldest.is_some_and(|node| {
            self.restless.remove(&node);
            self.peers.remove(&node).is_some()
        })
    }
}

impl Machine for Swim {
    type Input = SwimInput;
    type Effect = SwimEffect;

    fn step(&mut self, now: Now, input: SwimInput, effects: &mut Vec<SwimEffect>) {
        let mono = now.mono;
        // First the tick that is due: a stall of this node must be forgiven before anything that
        // arrived after it is judged.
        self.ticked(mono, effects);
        match input {
            SwimInput::PeerIntroduced { node } => self.introduced(mono, node),
            SwimInput::LinkUp { node, incarnation } => {
                self.link_up(mono, node, incarnation, effects);
            }
            SwimInput::LinkLost { node } => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.link_lost(mono, self.seq);
                    self.judge(mono, node, effects);
                }
            }
            SwimInput::PeerEnded { node } => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.link_lost(mono, self.seq);
                    peer.ended = true;
                    self.judge(mono, node, effects);
                }
            }
            SwimInput::Received { from, message } => self.received(mono, from, message, effects),
            SwimInput::PulseSeen { node, pulse } => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    let incarnation = peer.incarnation;
                    if peer.heard(mono, incarnation) {
                        peer.pulsed(mono, pulse);
                    }
                    self.judge(mono, node, effects);
                }
            }
            SwimInput::SelfReported { load } => self.reported(mono, load, effects),
            SwimInput::PeerForgotten { node } => {
                self.peers.remove(&node);
                self.restless.remove(&node);
                self.gossip.forget(&node);
                if self.peers.is_empty() {
                    self.next_tick = None;
                }
            }
            SwimInput::Ticked => {}
        }
    }

    fn wake_at(&self) -> Option<Mono> {
        self.next_tick
    }
}

/// At most `count` of the nodes, in random order (Fisher and Yates, stopped early).
fn draw(dice: &mut Dice, mut nodes: Vec<NodeId>, count: usize) -> Vec<NodeId> {
    let count = count.min(nodes.len());
    for at in 0..count {
        let left = (nodes.len() - at) as u64;
        nodes.swap(at, at + dice.below(left) as usize);
    }
    nodes.truncate(count);
    nodes
}
