//! Which faults happened: not what a plan intends, but what the world saw of it.
//!
//! Owns when a cut counts as felt and what it leaves of the anchors, which messages came twice or
//! overtaken, and whether as many anchors are gone as may be. The world tells what it did and keeps
//! the counters.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::Micros;
use selvedge_federated::shamir::Scheme;

use super::node::Node;
use super::plan::Plan;
use super::world::index_of;

#[cfg(test)]
#[path = "faults_tests.rs"]
mod tests;

/// What cuts leave of the anchors that are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Parts {
    /// Some hear a quorum of them and are heard by it, and some are not.
    OneSide,
    /// A quorum is up, and nobody hears one.
    NoSide,
}

impl Parts {
    /// Of the anchors that are up; none where cuts change nothing, or no quorum is up anyway.
    pub(super) fn of(
        up: &[usize],
        quorum: usize,
        is_cut: impl Fn(usize, usize) -> bool,
    ) -> Option<Self> {
        let reaches = |one: &&usize| {
            let hear = |other: &&usize| !is_cut(**one, **other) && !is_cut(**other, **one);
            // An anchor hears itself, whatever is cut.
            up.iter().filter(|other| other == one || hear(other)).count() >= quorum
        };
        match up.iter().filter(reaches).count() {
            _ if up.len() < quorum => None,
            0 => Some(Self::NoSide),
            some if some < up.len() => Some(Self::OneSide),
            _ => None,
        }
    }

    /// The counter of such cuts.
    pub(super) const fn felt(self) -> &'static str {
        match self {
            Self::OneSide => "cuts felt with a quorum on one side",
            Self::NoSide => "cuts felt with a quorum on no side",
        }
    }
}

/// What is known of the faults so far.
#[derive(Default)]
pub(super) struct Faults {
    /// Messages sent: the number of the last one.
    sent: u64,
    /// Of messages sent twice: whether one of the two has arrived.
    doubled: BTreeMap<u64, bool>,
    /// The greatest number that arrived, from whom to whom.
    latest: BTreeMap<(usize, usize), u64>,
    /// The cuts and the anchors up when a message was lost last: others are another state.
    last: (Vec<usize>, Vec<usize>),
    /// What was counted already of which cuts together.
    felt: BTreeSet<(Vec<usize>, Parts)>,
    /// Whether as many anchors are dead as may be.
    is_bare: bool,
}

/// The anchors of the newest round anybody knows.
fn anchors(nodes: &[Node]) -> Vec<usize> {
    let newest = nodes.iter().map(|node| node.anchor.tip()).max_by_key(|tip| tip.round);
    newest.map_or_else(Vec::new, |tip| {
        tip.committee.seats.iter().map(|seat| index_of(&seat.node)).collect()
    })
}

/// Those of them that are up.
fn up(nodes: &[Node]) -> Vec<usize> {
    anchors(nodes).into_iter().filter(|node| nodes[*node].is_up).collect()
}

/// What the cuts of this moment leave of the anchors.
pub(super) fn parts(plan: &Plan, nodes: &[Node], at: Micros) -> Option<Parts> {
    Parts::of(&up(nodes), plan.job.quorum(), |from, to| plan.is_cut(from, to, at))
}

/// Whether fewer anchors are up than decide.
pub(super) fn is_without_quorum(plan: &Plan, nodes: &[Node]) -> bool {
    up(nodes).len() < plan.job.quorum()
}

impl Faults {
    /// A message was lost in a cut: what the cuts leave, when that was not counted of them before.
    pub(super) fn felt(&mut self, plan: &Plan, nodes: &[Node], at: Micros) -> Option<Parts> {
        let is_now = |index: &usize| plan.cuts[*index].from <= at && at < plan.cuts[*index].until;
        let cuts: Vec<usize> = (0..plan.cuts.len()).filter(is_now).collect();
        let now = (cuts, up(nodes));
        if self.last == now {
            return None;
        }
        self.last = now;
        let (cuts, up) = &self.last;
        let parts = Parts::of(up, plan.job.quorum(), |from, to| plan.is_cut(from, to, at))?;
        self.felt.insert((cuts.clone(), parts)).then_some(parts)
    }

    /// A message is sent: its number.
    pub(super) const fn sends(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// The last message is sent a second time.
    pub(super) fn doubles(&mut self) {
        self.doubled.insert(self.sent, false);
    }

    /// A message comes to a node that is up: the counter of what is wrong with it, if something is.
    pub(super) fn arrives(&mut self, from: usize, to: usize, number: u64) -> Option<&'static str> {
        if let Some(has_arrived) = self.doubled.get_mut(&number) {
            if *has_arrived {
                self.doubled.remove(&number);
                return Some("messages that came twice");
            }
            *has_arrived = true;
        }
        let latest = self.latest.entry((from, to)).or_default();
        if number < *latest {
            return Some("messages that came after a later one");
        }
        *latest = number;
        None
    }

    /// A node died for good. Whether as many anchors are dead now as may be.
    pub(super) fn dies(&mut self, plan: &Plan, nodes: &[Node]) -> bool {
        let dead = anchors(nodes).into_iter().filter(|node| nodes[*node].is_dead).count();
        let was_bare = self.is_bare;
        self.is_bare = dead == plan.job.scheme.anchors() - plan.job.gathering();
        self.is_bare && !was_bare
    }

    /// The counter of a set that is closed now, if as many anchors are dead as may be.
    pub(super) fn closed(&self, scheme: Scheme) -> Option<&'static str> {
        self.is_bare.then_some(match scheme {
            Scheme::Five => "closed by the fewest of five",
            Scheme::Nine => "closed by the fewest of nine",
            Scheme::Sixteen => "closed by the fewest of sixteen",
        })
    }
}
