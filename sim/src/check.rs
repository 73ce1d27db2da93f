//! The omniscient observer: what must hold, given what is really going on.

use selvedge_base::{Micros, Mono};
use selvedge_proto::swim::{PeerState, Why};

use crate::invariant::Invariant;
use crate::outcome::{Detections, Violation};

/// A silent peer must be held dead within this (promise of the mesh).
const SILENT_BOUND: Micros = Micros::secs(3);
/// A peer whose connection was reset must be held dead within this.
const RESET_BOUND: Micros = Micros::secs(1);
/// A frozen peer must be held frozen within this.
const FROZEN_BOUND: Micros = Micros::secs(2);
/// Two nodes that reach each other must hold each other well after this: the longest wait between
/// redials (8 s) with its jitter, a handshake with retransmissions, a refutation, and slack.
const RECOVERY: Micros = Micros::secs(12);
/// A process that goes on after a stop may not declare anybody silent for this long: it heard
/// nothing because it did not listen.
const AFTER_STOP: Micros = Micros::secs(1);
/// A cut between just two nodes of a mesh must not make either think the other dead, once this
/// long has passed since anything else was wrong...
const SETTLED: Micros = Micros::secs(12);
/// ... where the four trips of the way around others fit between the loss of a connection and the
/// verdict that was promised a second after it, with two ticks to spare. By satellite they do not.
const WAY_AROUND: Micros = Micros::millis(500);
/// Even between healthy nodes loss makes a suspect now and then; it must not stay one.
const PASSING: Micros = Micros::secs(2);

/// What is really the case between an observer and a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Truth {
    /// The observer acts.
    pub(crate) watching: bool,
    /// Nothing gets out of the peer.
    pub(crate) gone: bool,
    /// The peer's engine computes without progress.
    pub(crate) frozen: bool,
    /// Both act and reach each other.
    pub(crate) healthy: bool,
    /// Both act, and every other node that acts reaches both and is reached; there is one.
    pub(crate) backed: bool,
}

/// Since when what is the case, by observer and peer.
#[derive(Debug)]
pub(crate) struct Checker {
    nodes: usize,
    /// Who is looked at: everybody in a small mesh, some in a large one.
    every: usize,
    /// By observer and peer.
    pairs: Vec<Pair>,
    /// What the network may add to any bound: a few of its slowest trips.
    slack: Micros,
    pub(crate) violations: Vec<Violation>,
    shown: usize,
    pub(crate) detections: Detections,
}

/// Observers whose word is held against the truth in a large mesh.
const OBSERVERS: usize = 16;
/// In a mesh of up to this, everybody's is.
const SMALL: usize = 64;
/// Violations kept: the first ones tell the story.
const MAX_VIOLATIONS: usize = 100;

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    gone: Option<Mono>,
    reset: Option<Mono>,
    frozen: Option<Mono>,
    thawed: Option<Mono>,
    healthy: Option<Mono>,
    backed: Option<Mono>,
    went_on: Option<Mono>,
    suspect: Option<Mono>,
    /// Whether the silence or freeze going on began in good order and was not yet counted.
    count_gone: bool,
    count_frozen: bool,
    state: Option<PeerState>,
    reported: bool,
}

impl Checker {
    pub(crate) fn new(nodes: usize, slowest: Micros) -> Self {
        let every = if nodes <= SMALL { 1 } else { nodes.div_ceil(OBSERVERS) };
        Self {
            nodes,
            every,
            pairs: vec![Pair::default(); nodes.div_ceil(every) * nodes],
            shown: 0,
            slack: slowest.times(4),
            violations: Vec::new(),
            detections: Detections::default(),
        }
    }

    /// Whose word is held against the truth.
    pub(crate) fn observers(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.nodes).step_by(self.every)
    }

    /// Whether an observer's word is held against the truth.
    pub(crate) const fn observes(&self, observer: usize) -> bool {
        observer.is_multiple_of(self.every)
    }

    fn pair(&mut self, observer: usize, peer: usize) -> Option<&mut Pair> {
        let observed = observer.is_multiple_of(self.every);
        let at = observer / self.every * self.nodes + peer;
        self.pairs.get_mut(at).filter(|_| observed)
    }

    fn of(&mut self, observer: usize) -> &mut [Pair] {
        let row = observer / self.every * self.nodes;
        let until = if observer.is_multiple_of(self.every) { row + self.nodes } else { row };
        self.pairs.get_mut(row..until).unwrap_or_default()
    }

    /// Violations nobody was shown yet.
    pub(crate) fn news(&mut self) -> Vec<Violation> {
        let from = self.shown.min(self.violations.len());
        self.shown = self.violations.len();
        self.violations[from..].to_vec()
    }

    fn violated(&mut self, violation: Violation) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(violation);
        }
    }

    /// The truth changed, or may have.
    pub(crate) fn learn(&mut self, now: Mono, observer: usize, peer: usize, truth: Truth) {
        let Some(pair) = self.pair(observer, peer) else { return };
        let was_well = pair.healthy.is_some_and(|since| now.since(since) >= RECOVERY)
            && pair.state == Some(PeerState::Alive);
        let gone = truth.watching && truth.gone;
        if gone && pair.gone.is_none() {
            pair.count_gone = was_well;
        }
        let frozen = truth.frozen && truth.healthy;
        if frozen && pair.frozen.is_none() {
            pair.count_frozen = was_well;
        }
        keep(&mut pair.gone, gone, now);
        keep(&mut pair.frozen, frozen, now);
        keep(&mut pair.thawed, !truth.frozen, now);
        keep(&mut pair.healthy, truth.healthy, now);
        keep(&mut pair.backed, truth.backed, now);
        if !gone {
            pair.reset = None;
        }
    }

    /// The observer was told that its connection to a peer is gone.
    pub(crate) fn was_reset(&mut self, now: Mono, observer: usize, peer: usize) {
        let pair = self.pair(observer, peer);
        if let Some(pair) = pair.filter(|pair| pair.gone.is_some()) {
            pair.reset.get_or_insert(now);
        }
    }

    /// The observer's process goes on after a stop.
    pub(crate) fn went_on(&mut self, now: Mono, observer: usize) {
        for pair in self.of(observer) {
            // One that was in doubt before the stop may well be gone.
            pair.went_on = (pair.state == Some(PeerState::Alive)).then_some(now);
        }
    }

    /// The observer's detector declared something.
    pub(crate) fn declared(
        &mut self,
        now: Mono,
        observer: usize,
        peer: usize,
        (state, why): (PeerState, Why),
    ) {
        let Some(pair) = self.pair(observer, peer) else { return };
        pair.state = Some(state);
        let just_went_on = pair.went_on.is_some_and(|at| now.since(at) < AFTER_STOP);
        if (state, why) == (PeerState::Dead, Why::Silent) && just_went_on && pair.healthy.is_some()
        {
            let seen = format!("node {observer} holds node {peer} dead: {pair:?}");
            let invariant = Invariant::MemberStoppedBlamesNobody;
            self.violated(Violation { at: now, invariant, seen });
        }
        let Some(pair) = self.pair(observer, peer) else { return };
        let (gone, frozen) = (pair.gone, pair.frozen);
        match (state, gone, frozen) {
            (PeerState::Dead, Some(since), _) if std::mem::take(&mut pair.count_gone) => {
                let reset = pair.reset;
                match reset {
                    Some(reset) => self.detections.reset.push(now.since(reset)),
                    None => self.detections.silent.push(now.since(since)),
                }
            }
            (PeerState::Frozen, _, Some(since)) if std::mem::take(&mut pair.count_frozen) => {
                self.detections.frozen.push(now.since(since));
            }
            _ => {}
        }
    }

    /// A new process: what its predecessor held is forgotten.
    pub(crate) fn restarted(&mut self, observer: usize) {
        for pair in self.of(observer) {
            pair.state = None;
        }
    }

    /// Holds what the observer's detector says against the truth.
    pub(crate) fn look(&mut self, now: Mono, observer: usize, peer: usize, state: PeerState) {
        let slack = self.slack;
        let Some(pair) = self.pair(observer, peer) else { return };
        let over = |since: Option<Mono>, bound: Micros| {
            since.is_some_and(|since| now.since(since) > bound.plus(slack))
        };
        keep(&mut pair.suspect, state == PeerState::Suspect, now);
        let well = over(pair.healthy, RECOVERY);
        let broken = match state {
            PeerState::Alive | PeerState::Suspect | PeerState::Frozen
                if over(pair.gone, SILENT_BOUND) =>
            {
                Some(Invariant::MemberSilentDead)
            }
            PeerState::Alive | PeerState::Suspect | PeerState::Frozen
                if over(pair.reset, RESET_BOUND) =>
            {
                Some(Invariant::MemberResetDead)
            }
            PeerState::Alive if well && over(pair.frozen, FROZEN_BOUND) => {
                Some(Invariant::MemberFrozenSeen)
            }
            PeerState::Frozen if well && over(pair.thawed, FROZEN_BOUND) => {
                Some(Invariant::MemberSlowNotFrozen)
            }
            PeerState::Dead if slack <= WAY_AROUND && over(pair.backed, SETTLED) => {
                Some(Invariant::MemberBackedAlive)
            }
            PeerState::Dead if well => Some(Invariant::MemberHealthyAlive),
            PeerState::Suspect if well && over(pair.suspect, PASSING) => {
                Some(Invariant::MemberHealthyNotSuspect)
            }
            PeerState::Alive | PeerState::Suspect | PeerState::Frozen | PeerState::Dead => None,
        };
        match broken {
            Some(invariant) if !std::mem::replace(&mut pair.reported, true) => {
                let seen = format!("node {observer} holds node {peer} {state:?}: {pair:?}");
                self.violated(Violation { at: now, invariant, seen });
            }
            Some(_) => {}
            None => pair.reported = false,
        }
    }

    pub(crate) fn broken(&mut self, at: Mono, invariant: Invariant, seen: String) {
        self.violated(Violation { at, invariant, seen });
        // Whoever tells of one shows it too.
        self.shown = self.shown.max(self.violations.len());
    }
}

/// Since when something is the case.
const fn keep(since: &mut Option<Mono>, is: bool, now: Mono) {
    match (is, *since) {
        (true, None) => *since = Some(now),
        (true, Some(_)) => {}
        (false, _) => *since = None,
    }
}
