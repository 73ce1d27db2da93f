//! What is known of one peer, and the verdict that follows from it.

use selvedge_base::plant::{self, Plant};
use selvedge_base::{BoundedQueue, Micros, Mono, NodeId};

use super::stillness::Stillness;
use super::{
    DEAD_AFTER, DEAD_AFTER_LINK_LOST, PROBE_PERIOD, PeerState, PeerView, Pulse, REDIAL_AFTER,
    Rumour, SUSPECT_AFTER, Why,
};

/// Pings remembered per peer for the round trip: two seconds' worth, more than a satellite takes.
const PINGS_REMEMBERED: usize = 8;
/// For this long after others reached a peer, "only through others" describes it: as long as a
/// peer may stay unanswered, and one period for the way around.
const REACHED_COUNTS: Micros = SUSPECT_AFTER.plus(PROBE_PERIOD);
/// How far above the known incarnation a rumour may lift it: a process restarts or refutes a few
/// times between two messages, not hundreds; a lie cannot lock a peer out.
const MAX_LEAP: u64 = 64;

/// A peer's facts.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) state: PeerState,
    pub(super) why: Why,
    pub(super) incarnation: u64,
    pub(super) linked: bool,
    engine: Stillness,
    rtt: Option<Micros>,
    pings: BoundedQueue<(u64, Mono)>,
    /// The first probe that nothing came back for.
    pub(super) unanswered_since: Option<Mono>,
    link_lost_at: Option<Mono>,
    /// Its process is known to be gone; only a later incarnation can speak for it.
    pub(super) ended: bool,
    /// The number of the last ping before the connection was lost.
    lost_at_seq: u64,
    heard_at: Option<Mono>,
    /// When another node last got an answer from it.
    reached_at: Option<Mono>,
    /// The incarnation under which it said itself, here or to others, that its engine stands still.
    frozen_as: Option<u64>,
    /// Two pulses in a row showed no progress: look closer.
    pub(super) doubtful: bool,
    /// Others suspect it, and nothing was heard of it since.
    pub(super) rumoured: bool,
    /// It speaks under a lower incarnation than others ascribe to it.
    behind: bool,
    tell: Option<Rumour>,
    pub(super) redial_at: Mono,
    pub(super) redial_wait: Micros,
}

impl Peer {
    pub(super) const fn introduced(now: Mono) -> Self {
        Self {
            state: PeerState::Suspect,
            why: Why::NotHeardYet,
            incarnation: 0,
            linked: false,
            engine: Stillness::new(now),
            rtt: None,
            pings: BoundedQueue::new(PINGS_REMEMBERED),
            unanswered_since: Some(now),
            link_lost_at: None,
            ended: false,
            lost_at_seq: 0,
            heard_at: None,
            reached_at: None,
            frozen_as: None,
            doubtful: false,
            rumoured: false,
            behind: false,
            tell: None,
            redial_at: now,
            redial_wait: REDIAL_AFTER,
        }
    }

    pub(super) fn view(&self, node: NodeId) -> PeerView {
        PeerView {
            node,
            state: self.state,
            why: self.why,
            rtt: self.rtt,
            pulse: self.engine.pulse(),
            incarnation: self.incarnation,
            linked: self.linked,
        }
    }

    /// What the facts say now. Dead is left only by [`Peer::heard`] under a higher incarnation.
    pub(super) fn verdict(&self, now: Mono) -> (PeerState, Why) {
        if self.state == PeerState::Dead {
            return (PeerState::Dead, self.why);
        }
        if self.ended {
            return (PeerState::Dead, Why::Ended);
        }
        let for_at_least =
            |since: Option<Mono>, span| since.is_some_and(|since| now.since(since) >= span);
        let reached = self.reached_at.is_some_and(|at| now.since(at) <= REACHED_COUNTS);
        let silent = for_at_least(self.unanswered_since, SUSPECT_AFTER);
        // Word from others is a sign of life like any, though not one to send work on.
        let word = |since: Mono| self.reached_at.map_or(since, |at| at.max(since));
        let no_word = self.unanswered_since.map(word);
        if for_at_least(no_word, DEAD_AFTER) {
            return (PeerState::Dead, Why::Silent);
        }
        if for_at_least(self.link_lost_at, DEAD_AFTER_LINK_LOST) {
            return (PeerState::Dead, Why::LinkLost);
        }
        if self.heard_at.is_none() {
            return (PeerState::Suspect, Why::NotHeardYet);
        }
        if !self.linked || silent {
            let why = match (reached, self.linked) {
                (true, _) => Why::OnlyThroughOthers,
                (false, true) => Why::Silent,
                (false, false) => Why::LinkLost,
            };
            return (PeerState::Suspect, why);
        }
        if self.rumoured {
            return (PeerState::Suspect, Why::Rumoured);
        }
        if self.engine.is_frozen() {
            return (PeerState::Frozen, Why::NoProgress);
        }
        if self.frozen_as.is_some() {
            return (PeerState::Frozen, Why::Rumoured);
        }
        match self.state {
            PeerState::Frozen => (PeerState::Alive, Why::Progressing),
            PeerState::Alive => (PeerState::Alive, self.why),
            PeerState::Suspect | PeerState::Dead => {
                let returned = self.why == Why::Returned;
                (PeerState::Alive, if returned { Why::Returned } else { Why::Heard })
            }
        }
    }

    /// A message or handshake came from the peer itself. False when it does not count as a sign
    /// of life: an incarnation that is over, or one that was declared dead and must refute first.
    pub(super) fn heard(&mut self, now: Mono, incarnation: u64) -> bool {
        if incarnation < self.incarnation {
            self.behind = true;
            return false;
        }
        self.behind = false;
        if incarnation == self.incarnation && self.state == PeerState::Dead {
            return false;
        }
        if incarnation > self.incarnation {
            // A refutation raises it too, so it says nothing of progress: a frozen peer stays so.
            self.incarnation = incarnation;
            self.tell = None;
            if self.state == PeerState::Dead {
                self.state = PeerState::Suspect;
                self.why = Why::Returned;
            }
        }
        self.heard_at = Some(now);
        self.ended = false;
        self.unanswered_since = None;
        self.link_lost_at = self.link_lost_at.map(|_| now);
        self.rumoured = false;
        true
    }

    /// A pulse of the peer's, first hand.
    pub(super) fn pulsed(&mut self, now: Mono, pulse: Pulse) {
        self.doubtful = self.engine.pulsed(now, pulse);
    }

    /// Under this incarnation it does not say that its engine stands still; whether it said so
    /// under an earlier one. What was seen of the engine before then counts no more.
    pub(super) fn thawed_above(&mut self, now: Mono, incarnation: u64) -> bool {
        let thawed = self.frozen_as.is_some_and(|frozen| incarnation > frozen);
        if thawed {
            self.frozen_as = None;
            self.engine.moved(now);
        }
        thawed
    }

    /// Whether it said, here or to others, that its engine stands still.
    pub(super) const fn is_said_frozen(&self) -> bool {
        self.frozen_as.is_some()
    }

    /// Whether a tick has to look at it: time alone may change the verdict, or it is in doubt, or
    /// it must be dialled. What is said of all others stays the same until they are heard of.
    pub(super) fn is_restless(&self) -> bool {
        let calm = self.linked && self.state == PeerState::Alive;
        let doubted = self.unanswered_since.is_some() || self.rumoured || self.doubtful;
        !calm || doubted
    }

    pub(super) fn link_up(&mut self, now: Mono, incarnation: u64) {
        // Most likely a new process. If not, its next message says that it is still frozen.
        self.thawed_above(now, incarnation);
        self.linked = true;
        self.ended = false;
        self.link_lost_at = None;
        self.redial_wait = REDIAL_AFTER;
        // The silence that may have been counted was the old connection's.
        self.unanswered_since = self.unanswered_since.map(|_| now);
    }

    pub(super) fn link_lost(&mut self, now: Mono, seq: u64) {
        if self.linked {
            self.lost_at_seq = seq;
            self.linked = false;
            self.link_lost_at = Some(now).filter(|_| !plant::is_on(Plant::LinkLossIgnored));
            self.redial_at = now;
        }
    }

    pub(super) fn pinged(&mut self, now: Mono, seq: u64) {
        self.pings.push_evicting((seq, now));
        self.unanswered_since.get_or_insert(now);
    }

    /// Smooths the round trip as TCP does (RFC 6298: one eighth of the new sample).
    pub(super) fn acked(&mut self, now: Mono, seq: u64) {
        let sent = self.pings.iter().find(|(known, _)| *known == seq).map(|(_, at)| *at);
        if let Some(sample) = sent.map(|at| now.since(at)) {
            let smooth = |old: Micros| Micros((old.0.saturating_mul(7) + sample.0) / 8);
            self.rtt = Some(self.rtt.map_or(sample, smooth));
        }
    }

    /// Another node got an answer from the peer, when asked by the request of this number.
    pub(super) fn reached(&mut self, now: Mono, incarnation: u64, seq: u64) {
        // An answer to a question from before the connection was lost says nothing of after.
        let counts = seq > self.lost_at_seq && incarnation >= self.incarnation;
        if counts && self.believable(incarnation) {
            self.reached_at = Some(now);
            // Not gone with its connection: from here on it is watched like a silent peer.
            if self.link_lost_at.take().is_some() {
                self.unanswered_since.get_or_insert(now);
            }
        }
    }

    /// Takes what others say. Returns whether to pass it on.
    pub(super) fn rumoured(&mut self, now: Mono, rumour: Rumour) -> bool {
        let incarnation = rumour.incarnation;
        if incarnation < self.incarnation || !self.believable(incarnation) {
            return false;
        }
        let heard_lately = self.linked
            && self.heard_at.is_some_and(|at| now.since(at) < SUSPECT_AFTER)
            && self.state != PeerState::Dead;
        match rumour.state {
            PeerState::Alive => {
                let thawed = self.thawed_above(now, incarnation);
                self.risen(now, incarnation) || thawed
            }
            PeerState::Frozen => {
                let risen = self.risen(now, incarnation);
                let news = risen || self.frozen_as.is_none();
                let gone = self.state == PeerState::Dead;
                self.frozen_as = Some(incarnation).filter(|_| !gone);
                news && !gone
            }
            PeerState::Suspect | PeerState::Dead if heard_lately => {
                // First-hand knowledge beats hearsay; the peer is told, so that it refutes.
                self.tell = Some(rumour);
                false
            }
            PeerState::Suspect => {
                let news = self.state != PeerState::Dead && !self.rumoured;
                self.rumoured |= news;
                self.incarnation = incarnation;
                news
            }
            PeerState::Dead => {
                let news = self.state != PeerState::Dead || incarnation > self.incarnation;
                self.incarnation = incarnation;
                self.state = PeerState::Dead;
                self.why = Why::Rumoured;
                news
            }
        }
    }

    /// It lives under this incarnation, others say; whether it is a later one than known.
    fn risen(&mut self, now: Mono, incarnation: u64) -> bool {
        if incarnation == self.incarnation {
            return false;
        }
        self.incarnation = incarnation;
        self.rumoured = false;
        if self.state == PeerState::Dead {
            self.state = PeerState::Suspect;
            self.why = Why::Rumoured;
            self.unanswered_since = Some(now);
            self.link_lost_at = None;
            self.redial_at = now;
            self.redial_wait = REDIAL_AFTER;
        }
        true
    }

    /// The rumour about the peer that it should know of: what others hold against it, or what this
    /// node does.
    pub(super) fn told(&mut self, node: NodeId) -> Option<Rumour> {
        let state = match (self.state, self.rumoured) {
            (PeerState::Dead, _) => PeerState::Dead,
            (_, true) => PeerState::Suspect,
            (_, false) if self.behind => PeerState::Alive,
            (_, false) if self.frozen_as.is_some() => PeerState::Frozen,
            (_, false) => return self.tell.take(),
        };
        Some(Rumour { node, incarnation: self.incarnation, state })
    }

    /// This node stood still for `span`: what did not arrive meanwhile is not the peer's fault.
    pub(super) fn forgive(&mut self, span: Micros) {
        let later = |at: Mono| at.plus(span);
        self.unanswered_since = self.unanswered_since.map(later);
        self.link_lost_at = self.link_lost_at.map(later);
        self.reached_at = self.reached_at.map(later);
        self.heard_at = self.heard_at.map(later);
    }

    /// When it was last known to live, for choosing whom to drop.
    pub(super) const fn heard_at(&self) -> Option<Mono> {
        self.heard_at
    }

    fn believable(&self, incarnation: u64) -> bool {
        incarnation <= self.incarnation.saturating_add(MAX_LEAP)
    }
}
