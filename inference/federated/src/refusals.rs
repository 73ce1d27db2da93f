//! Who was refused for what: counted by node and reason, and said at a pace that people can read.
//!
//! Whoever lies does so as often as it likes, so a line for each refusal would bury the log. The
//! first of a node for a reason is said at once, further ones once in a while with their number.
//! Owns the counts, their bounds and when something is said; the words are the caller's. A reason
//! is one of a few fixed words, never what a peer sent.

use std::collections::BTreeMap;

use selvedge_base::{Micros, Mono, NodeId};

/// Nodes that are remembered: more than a set of anchors has to deal with, and all of them fit a
/// record on the disk. Only members come here, so that nobody makes up more.
pub const MAX_NODES: usize = 128;
/// Between two lines about one node and reason: somebody who looks every few minutes misses
/// nothing, and a liar makes a dozen lines an hour.
pub const SAY_EVERY: Micros = Micros::secs(300);
/// Lines within [`SAY_EVERY`] about all nodes and reasons together: what a person still reads.
pub const MAX_SAID: u32 = 32;

/// Who was refused here for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    nodes: BTreeMap<NodeId, Refusee>,
    /// When the first of the lines of this while was said, and how many were.
    said: Option<(Mono, u32)>,
    /// Orders what is noted: the clock may stand still between two notes.
    noted: u64,
}

/// A node that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Refusee {
    reasons: BTreeMap<&'static str, Tally>,
    last: u64,
}

/// How often for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    times: u64,
    unsaid: u64,
    said_at: Option<Mono>,
}

impl Refusals {
    /// Counts that were written down. Of reasons that this build does not know nothing is kept,
    /// nor of more nodes than there may be.
    pub fn restored(
        stored: impl IntoIterator<Item = (NodeId, String, u64)>,
        reasons: &[&'static str],
    ) -> Self {
        let mut all = Self::default();
        for (node, reason, times) in stored {
            let known = reasons.iter().copied().find(|known| *known == reason);
            let Some(why) = known else { continue };
            all.tally(node, why).times = times;
        }
        all
    }

    /// Notes that a node was refused so many times for a reason. Where people shall be told now:
    /// how many refusals of it they have not been told of, these among them.
    pub fn note(&mut self, now: Mono, node: NodeId, why: &'static str, times: u64) -> Option<u64> {
        let has_room = match self.said {
            Some((from, lines)) if now.since(from) < SAY_EVERY => lines < MAX_SAID,
            Some(_) | None => true,
        };
        let tally = self.tally(node, why);
        tally.times = tally.times.saturating_add(times);
        tally.unsaid = tally.unsaid.saturating_add(times);
        let is_due = tally.said_at.is_none_or(|said| now.since(said) >= SAY_EVERY);
        if !is_due || !has_room {
            return None;
        }
        tally.said_at = Some(now);
        let unsaid = std::mem::take(&mut tally.unsaid);
        self.said = match self.said {
            Some((from, lines)) if now.since(from) < SAY_EVERY => Some((from, lines + 1)),
            Some(_) | None => Some((now, 1)),
        };
        Some(unsaid)
    }

    /// Counts that a node was refused; people are told of it otherwise, or need not be. Whether it
    /// is the first time for this reason.
    pub fn count(&mut self, node: NodeId, why: &'static str, times: u64) -> bool {
        let tally = self.tally(node, why);
        let is_first = tally.times == 0;
        tally.times = tally.times.saturating_add(times);
        is_first
    }

    /// How often each node was refused, by reason.
    pub fn counts(&self) -> BTreeMap<NodeId, BTreeMap<&'static str, u64>> {
        let of_one = |refusee: &Refusee| {
            refusee.reasons.iter().map(|(why, tally)| (*why, tally.times)).collect()
        };
        self.nodes.iter().map(|(node, refusee)| (*node, of_one(refusee))).collect()
    }

    /// Whether nobody was.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The tally of a node and a reason. Where there are too many nodes, the one that was refused
    /// longest ago makes room.
    fn tally(&mut self, node: NodeId, why: &'static str) -> &mut Tally {
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&node) {
            let oldest = self.nodes.iter().min_by_key(|(_, refusee)| refusee.last);
            if let Some(gone) = oldest.map(|(gone, _)| *gone) {
                self.nodes.remove(&gone);
            }
        }
        self.noted += 1;
        let refusee = self.nodes.entry(node).or_default();
        refusee.last = self.noted;
        refusee.reasons.entry(why).or_default()
    }
}

#[cfg(test)]
#[path = "refusals_tests.rs"]
mod tests;
