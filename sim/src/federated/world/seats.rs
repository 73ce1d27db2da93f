//! Anchors that are replaced: when a steward asks, who hears of it, and who dies once it was done.
//!
//! Owns the way of a wish through the simulated mesh. Whom a steward may ask for is
//! [`super::super::steward`]'s.

use selvedge_base::Micros;
use selvedge_federated::round::AnchorInput;

use super::{Class, Happening, World};
use crate::federated::plan::{Wish, name};

/// The longest that word of a wish takes to a node that is up: settings go from node to node.
const TOLD_WITHIN: Micros = Micros::secs(4);

impl World<'_> {
    /// A steward at the first node that is up, from a drawn one on, asks for other anchors.
    pub(super) fn asks(&mut self, wish: Wish) {
        let (plan, count) = (self.plan, self.nodes.len());
        let reached: Vec<usize> = (0..count).filter(|node| self.nodes[*node].is_up).collect();
        let from = (0..count).map(|at| (wish.steward + at) % count).find(|at| reached.contains(at));
        let Some(steward) = from else { return self.count("nobody up to replace anchors") };
        let tip = self.nodes[steward].anchor.tip().clone();
        if let Err(why) = self.steward.asks(&plan.job, &tip, wish, &reached) {
            return self.count(why);
        }
        self.count("other anchors asked for");
        for node in reached {
            let span = Micros(self.network.below(TOLD_WITHIN.0));
            self.after(span, Class::Node, Happening::Told(node));
        }
    }

    /// A node hears what the mesh was told, if it is up; otherwise it does when it starts.
    pub(super) fn told(&mut self, node: usize) {
        if !self.nodes[node].is_up {
            return;
        }
        for committee in self.steward.told() {
            self.step_anchor(node, AnchorInput::Reconfigured { committee });
        }
    }

    /// One of the first anchors dies if all who live have had others: with it more of them may be
    /// dead than one set of anchors bears.
    pub(super) fn dies_late(&mut self, node: usize) {
        let lives = || self.nodes.iter().filter(|one| !one.is_dead);
        let tip = lives().map(|one| one.anchor.tip()).max_by_key(|tip| tip.committee.epoch);
        let is_new = lives().all(|one| one.anchor_disk.durable.tip.committee.epoch > 0);
        let Some(tip) = tip.filter(|_| is_new) else {
            return self.count("anchors not replaced in time");
        };
        let is_seated = |one: &usize| *one != node && tip.committee.place(&name(*one)).is_some();
        let left = (0..self.nodes.len()).filter(|one| !self.nodes[*one].is_dead);
        if left.filter(is_seated).count() < self.plan.job.gathering() {
            return self.count("too few anchors for one more to die");
        }
        self.count("death");
        self.crash(node, "up until its death");
        self.dies(node);
        let first = self.plan.job.scheme.anchors();
        let dead = self.nodes.iter().take(first).filter(|one| one.is_dead).count();
        if dead > first - self.plan.job.gathering() {
            self.count("more anchors dead than one set of them bears");
        }
    }
}
