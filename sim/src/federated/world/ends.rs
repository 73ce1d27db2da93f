//! When a run is over, and what came of it.

use std::collections::BTreeSet;

use selvedge_base::Micros;

use super::{Node, Outcome, Promise, World, name};

impl World<'_> {
    /// Whether faults are over and all who live know the end of the job, and what stewards asked
    /// for of it.
    pub(super) fn has_ended(&self) -> bool {
        let rounds = self.plan.job.rounds;
        let mut lives = self.nodes.iter().enumerate().filter(|(_, node)| !node.is_dead);
        let has_all = |(index, node): (usize, &Node)| {
            node.is_up && node.has_all(rounds, self.plan.is_client(index))
        };
        self.now.0 >= self.until.0 && lives.all(has_all) && self.knows_one()
    }

    pub(super) fn finish(mut self, ended: bool) -> Outcome {
        if ended {
            let lives = || self.nodes.iter().filter(|node| !node.is_dead);
            let held = lives().flat_map(|node| node.anchor_disk.durable.held.keys().copied());
            // Where the anchors were replaced, a client that lives shares it once more.
            let members = lives().flat_map(|node| &node.members);
            let kept = members.filter_map(|member| member.disk.durable.pending.as_ref());
            let (held, kept): (BTreeSet<_>, BTreeSet<_>) =
                (held.collect(), kept.map(|one| one.id).collect());
            let dead = self.nodes.iter().enumerate().filter(|(_, node)| node.is_dead);
            let dead = dead.map(|(index, _)| name(index)).collect();
            let epoch = lives().map(|node| node.anchor.tip().committee.epoch).max();
            let epoch = epoch.unwrap_or_default();
            self.observer.ends(&self.plan.job, &held, &kept, &dead, epoch);
        } else if self.observer.broken.is_empty() {
            let mut story = self.nodes.iter().map(Node::story).collect::<Vec<_>>().join("; ");
            if !self.knows_one() {
                story.push_str("; not all know of the same wishes");
            }
            self.observer.require(false, Promise::Ends, || story);
        }
        let hash = *self.hasher.finalize().as_bytes();
        let took = Micros(self.now.0);
        let steps = self.mixing.map(|mixing| mixing.steps).unwrap_or_default();
        let (broken, counters) = (self.observer.broken, self.counters);
        Outcome { hash, broken, counters, took, steps, proposed: self.killer.taken }
    }
}
