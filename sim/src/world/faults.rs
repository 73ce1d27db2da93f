//! How faults begin and end, and what is really the case in between.

use selvedge_base::Micros;
use selvedge_proto::swim::SwimInput;

use super::{Class, Event as Due, Load, Packet, World};
use crate::check::Truth;
use crate::node::node_id;
use crate::plan::FaultKind;
use crate::watch::{Event, EventKind};

impl World<'_> {
    pub(super) fn begin(&mut self, index: usize) {
        let kind = self.plan.faults[index].kind.clone();
        *self.counters.faults.entry(kind.as_str().to_owned()).or_default() += 1;
        self.record("fault", [index, 0], kind.as_str().as_bytes());
        self.show_fault(EventKind::FaultBegan, index);
        match kind {
            FaultKind::Crash { node, reset } => {
                self.nodes[node].crashes += 1;
                self.learn_truth();
                if reset {
                    self.say_goodbye(node);
                }
            }
            FaultKind::Pause { node } => self.nodes[node].pauses += 1,
            FaultKind::Freeze { node } => {
                self.nodes[node].freezes += 1;
                self.nodes[node].engine.freeze(true);
            }
            _ => {
                self.network.begin_cut(index, self.now.0, kind);
            }
        }
        self.learn_truth();
    }

    pub(super) fn end(&mut self, index: usize) {
        let kind = self.plan.faults[index].kind.clone();
        self.record("healed", [index, 0], kind.as_str().as_bytes());
        self.show_fault(EventKind::FaultEnded, index);
        match kind {
            FaultKind::Crash { node, .. } => {
                self.nodes[node].crashes -= 1;
                if self.nodes[node].crashes == 0 {
                    self.nodes[node].start();
                    self.checker.restarted(node);
                    self.introduce(node);
                }
            }
            FaultKind::Pause { node } => {
                self.nodes[node].pauses -= 1;
                if self.nodes[node].acts() {
                    self.learn_truth();
                    self.checker.went_on(self.now.0, node);
                    self.go_on(node);
                }
            }
            FaultKind::Freeze { node } => {
                self.nodes[node].freezes -= 1;
                let frozen = self.nodes[node].freezes > 0;
                self.nodes[node].engine.freeze(frozen);
            }
            _ => {
                self.network.end_cut(index);
            }
        }
        self.learn_truth();
    }

    fn show_fault(&mut self, event: EventKind, index: usize) {
        if self.watch.wants_events() {
            let kind = &self.plan.faults[index].kind;
            let (at, span, text) = (self.now.0, Some(index as u64), kind.as_str().to_owned());
            let (node, peer) = (kind.node(), kind.peer());
            let (request, budget, amount) = (None, None, None);
            let kind = event;
            self.watch.event(Event { at, kind, node, peer, request, span, budget, amount, text });
        }
    }

    /// A process that ends in good order closes its connections.
    fn say_goodbye(&mut self, node: usize) {
        let links = std::mem::take(&mut self.nodes[node].links);
        for (peer, end) in links {
            if let Some(delay) = self.network.reliable(self.now.0, node, peer) {
                self.deliver(peer, delay, Packet { from: node, conn: end.conn, load: Load::Reset });
            }
        }
    }

    /// A stopped process goes on: its socket is full, its timers are late.
    fn go_on(&mut self, node: usize) {
        let backlog = std::mem::take(&mut self.nodes[node].backlog);
        for packet in backlog {
            self.deliver(node, Micros::ZERO, packet);
        }
        self.nodes[node].tick_at = Some(self.now.0);
        self.queue.push(self.now.0, Class::Node, Due::TickCame { node });
    }

    pub(super) fn introduce(&mut self, node: usize) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.step(node, SwimInput::PeerIntroduced { node: node_id(peer) });
        }
    }

    pub(super) fn learn_truth(&mut self) {
        let count = self.nodes.len();
        let healthy = |one: usize, other: usize| {
            self.nodes[one].acts()
                && self.nodes[other].acts()
                && self.network.open(self.now.0, one, other)
                && self.network.open(self.now.0, other, one)
        };
        let gone = |peer: usize| {
            let heard_by = |other: usize| {
                self.nodes[other].acts() && self.network.open(self.now.0, peer, other)
            };
            !self.nodes[peer].acts() || !(0..count).any(|other| other != peer && heard_by(other))
        };
        let mut truths = Vec::new();
        for observer in 0..count {
            for peer in (0..count).filter(|peer| *peer != observer) {
                let mut others =
                    (0..count).filter(|other| *other != observer && *other != peer).peekable();
                let truth = Truth {
                    watching: self.nodes[observer].acts(),
                    gone: gone(peer),
                    frozen: self.nodes[peer].freezes > 0,
                    healthy: healthy(observer, peer),
                    backed: others.peek().is_some()
                        && others.all(|other| healthy(other, observer) && healthy(other, peer)),
                };
                truths.push((observer, peer, truth));
            }
        }
        for (observer, peer, truth) in truths {
            self.checker.learn(self.now.0, observer, peer, truth);
        }
    }
}
