//! What is really the case, and holding what nodes believe against it.

use selvedge_proto::swim::{PeerState, Why};

use super::World;
use crate::check::Truth;
use crate::marks::Mark;
use crate::watch::EventKind;

/// In meshes larger than this nobody asks whether all others reach a node: with that many, some
/// always do.
const FEW: usize = 64;

impl World<'_> {
    /// The truth changed, or may have.
    pub(super) fn learn_truth(&mut self) {
        self.note_calm();
        let (count, now) = (self.nodes.len(), self.now.0);
        let acts: Vec<bool> = self.nodes.iter().map(|node| node.acts()).collect();
        let calm = !self.network.is_cut();
        let open = |one: usize, other: usize| calm || self.network.open(now, one, other);
        let disturbed = self.network.is_disturbed();
        let out: Vec<bool> = (0..count).map(|node| self.is_out(node)).collect();
        let out = |node: usize| out[node];
        let small = self.ease() == 1;
        let fit = |one: usize, other: usize| {
            !small || (self.finds_in_time(one, other) && self.finds_in_time(other, one))
        };
        let healthy = |one: usize, other: usize| {
            let both = acts[one] && acts[other] && !out(one) && !out(other) && !disturbed;
            both && open(one, other) && open(other, one) && fit(one, other)
        };
        let acting = acts.iter().filter(|acts| **acts).count();
        let gone = |peer: usize| {
            if !acts[peer] {
                return true;
            }
            let heard_by = |other: usize| other != peer && acts[other] && open(peer, other);
            if calm { acting < 2 } else { !(0..count).any(heard_by) }
        };
        let mut truths = Vec::new();
        let gone: Vec<bool> = (0..count).map(gone).collect();
        for observer in self.checker.observers() {
            for peer in (0..count).filter(|peer| *peer != observer) {
                let backed = count > 2 && count <= FEW && {
                    let other = |other: &usize| *other != observer && *other != peer;
                    let both = |other| healthy(other, observer) && healthy(other, peer);
                    (0..count).filter(other).all(both)
                };
                let truth = Truth {
                    watching: acts[observer] && !out(observer),
                    gone: gone[peer] && !out(peer) && !disturbed,
                    frozen: self.nodes[peer].freezes > 0,
                    healthy: healthy(observer, peer),
                    backed,
                };
                truths.push((observer, peer, truth));
            }
        }
        for (observer, peer, truth) in truths {
            self.checker.learn(now, observer, peer, truth);
        }
    }

    /// A detector declared something.
    pub(super) fn declared(&mut self, node: usize, peer: usize, state: PeerState, why: Why) {
        self.checker.declared(self.now.0, node, peer, (state, why));
        if why == Why::OnlyThroughOthers {
            self.hit(Mark::FoundThroughOthers);
        }
        self.show(EventKind::Declared, node, peer, || {
            format!("{state:?}: {}", why.as_str()).to_lowercase()
        });
    }

    pub(super) fn look(&mut self) {
        for observer in self.checker.observers() {
            let node = &self.nodes[observer];
            if !node.acts() {
                continue;
            }
            for view in node.memory.swim.states() {
                let peer = self.names.index(&view.node);
                self.checker.look(self.now.0, observer, peer, view.state);
            }
        }
        for violation in self.checker.news() {
            self.show(EventKind::Violated, None, None, || {
                format!("{} {}", violation.invariant.id(), violation.seen)
            });
        }
    }
}
