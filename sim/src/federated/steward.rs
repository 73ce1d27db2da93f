//! A steward that replaces anchors as `selvedge fed anchors` does, and what the mesh was told.
//!
//! Owns whom it asks for and which wishes are known; who hears of them when is the world's. The
//! rules are those of the product (`federated/seats.rs` of the runtime): whoever can be reached
//! and is an anchor stays, and wishes that may still be closed are told beside the last one. Some
//! wishes are for others first, which the product never asks for: more seats change hands so.

use selvedge_federated::round::{Committee, Job, MAX_WISHES, Tip};

use super::plan::{Wish, name, seat};

/// What was asked for so far.
#[derive(Default)]
pub(super) struct Steward {
    /// As the mesh is told of it, the last wish at the end.
    told: Vec<Committee>,
    /// Every wish there ever was.
    all: Vec<Committee>,
}

impl Steward {
    /// Asks for other anchors by what its node knows of the chain, among those nodes that can be
    /// reached. Why not, where it may not or cannot.
    pub(super) fn asks(
        &mut self,
        job: &Job,
        tip: &Tip,
        wish: Wish,
        reached: &[usize],
    ) -> Result<(), &'static str> {
        if tip.round >= job.rounds {
            return Err("a job over before its anchors were replaced");
        }
        let is_seated = |node: &usize| tip.committee.place(&name(*node)).is_some();
        let (seated, others): (Vec<usize>, Vec<usize>) =
            reached.iter().copied().partition(is_seated);
        if seated.len() < job.gathering() {
            return Err("too few anchors to hand a job on");
        }
        let (first, then) = if wish.fresh { (others, seated) } else { (seated, others) };
        let nodes: Vec<usize> = first.into_iter().chain(then).collect();
        let Some(nodes) = nodes.get(..job.scheme.anchors()) else {
            return Err("too few nodes to replace anchors");
        };
        let epoch = tip.committee.epoch + 1;
        if self.told.iter().any(|told| told.epoch > epoch) {
            return Err("a steward that was behind");
        }
        let next = Committee { epoch, seats: nodes.iter().map(|node| seat(*node)).collect() };
        self.told.retain(|told| told.epoch == epoch && *told != next);
        let spare = (self.told.len() + 1).saturating_sub(MAX_WISHES);
        self.told.drain(..spare);
        self.told.push(next.clone());
        self.all.push(next);
        Ok(())
    }

    /// What a node hears that hears of all.
    pub(super) fn told(&self) -> Vec<Committee> {
        self.told.clone()
    }

    /// Whether others were asked for after these, in their place.
    pub(super) fn has_followed(&self, committee: &Committee) -> bool {
        let last = self.told.iter().rev().find(|told| told.epoch == committee.epoch);
        last.is_some_and(|last| last != committee)
    }

    /// Whether these were ever asked for.
    pub(super) fn has_asked_for(&self, committee: &Committee) -> bool {
        self.all.contains(committee)
    }
}
