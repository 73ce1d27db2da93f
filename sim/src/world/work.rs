//! What processes work on, for whom, until when, and how much they keep: looked at from outside.

use selvedge_base::{Micros, Mono};
use selvedge_core::receive::MAX_RECEIPTS;

use super::{AUDIT, World};
use crate::engine::Owner;
use crate::invariant::Invariant;
use crate::node::{MAX_BACKLOG, MAX_ROWS};
use crate::plan::MAX_NODES;

/// How long after its deadline a request may still be there: its tick, and a look.
const ENDS_WITHIN: Micros = Micros::secs(1);
/// How long an engine may go on for an attempt that its ingest node gave up, while nothing hinders
/// the word that says so: a few retransmissions.
const STOPS_WITHIN: Micros = Micros::secs(1);

impl World<'_> {
    /// Looks at every process that acts.
    pub(super) fn audit_work(&mut self) {
        let mut wrong = Vec::new();
        let now = self.now.0;
        for index in 0..self.nodes.len() {
            if !self.nodes[index].acts() {
                continue;
            }
            self.audit_requests(index, &mut wrong);
            self.audit_engine(index, &mut wrong);
            self.audit_cache(index, &mut wrong);
            wrong.extend(
                over(&self.sizes(index))
                    .map(|seen| (Invariant::BoundTables, format!("node {index}: {seen}"))),
            );
        }
        self.idle_work.retain(|_, (_, seen)| *seen == now);
        for (invariant, seen) in wrong {
            self.broken(invariant, seen);
        }
    }

    /// Requests do not outlive their deadline.
    fn audit_requests(&self, index: usize, wrong: &mut Vec<(Invariant, String)>) {
        let memory = &self.nodes[index].memory;
        let waiting = memory.cache.iter().flat_map(|side| side.waiting.keys());
        for request in memory.taken.keys().chain(memory.relays.keys()).chain(waiting) {
            let deadline = self.requests[*request as usize].deadline_at;
            if self.now.0.since(deadline) > ENDS_WITHIN {
                let seen = format!("request {request} at node {index}, due at {deadline:?}");
                wrong.push((Invariant::FlowEnds, seen));
            }
        }
    }

    /// An engine works only for those that were reserved for, are in time and still want it.
    fn audit_engine(&mut self, index: usize, wrong: &mut Vec<(Invariant, String)>) {
        let now = self.now.0;
        let slack = self.plan.network.slowest().times(4);
        let owners: Vec<Owner> = self.nodes[index].memory.engine.owners().collect();
        for owner in owners {
            let memory = &self.nodes[index].memory;
            let (wanted, deadline) = match owner {
                Owner::Own { request, fence } => {
                    let attempt = memory.taken.get(&request).and_then(|one| one.attempt.as_ref());
                    let current = attempt.is_some_and(|attempt| attempt.fence == fence);
                    (current, self.requests[request as usize].deadline_at)
                }
                Owner::Stream(stream) => {
                    let Some(served) = memory.served.get(&stream) else { continue };
                    (self.is_wanted(stream, served.peer), served.deadline_at)
                }
            };
            if now.since(deadline) > ENDS_WITHIN {
                let seen = format!("{owner:?} at node {index}, due at {deadline:?}");
                wrong.push((Invariant::FlowNothingLate, seen));
            }
            if wanted {
                continue;
            }
            let idle = self.idle_work.entry((index, owner)).or_insert((now, now));
            idle.1 = now;
            let since = idle.0.max(self.calm_since.unwrap_or(now));
            let allowed = match owner {
                Owner::Own { .. } => Micros::ZERO,
                Owner::Stream(_) => STOPS_WITHIN.plus(slack),
            };
            if now.since(idle.0) >= AUDIT && now.since(since) > allowed {
                let seen = format!("{owner:?} at node {index}, unwanted since {:?}", idle.0);
                wrong.push((Invariant::RouteLosersCancelled, seen));
            }
        }
    }

    /// Whether the node that asked for a stream still waits for it; who cannot say is believed.
    fn is_wanted(&self, stream: u64, at: usize) -> bool {
        let ingest = &self.nodes[at];
        // A member that says old things again may well ask for the same once more.
        if !ingest.acts() || self.said.contains_key(&at) {
            return true;
        }
        let asked = ingest.memory.streams.get(&stream);
        let attempt = asked.and_then(|(request, _)| ingest.memory.taken.get(request));
        let attempt = attempt.and_then(|taken| taken.attempt.as_ref());
        attempt.is_some_and(|attempt| attempt.stream == Some(stream))
    }

    /// Whether anything hinders words on their way is noted when it changes.
    pub(super) fn note_calm(&mut self) {
        let disturbed = self.network.is_cut()
            || self.network.is_disturbed()
            || self.nodes.iter().any(|node| node.crashes > 0 || node.pauses > 0);
        self.calm_since = match (disturbed, self.calm_since) {
            (true, _) => None,
            (false, Some(since)) => Some(since),
            (false, None) => Some(self.now.0),
        };
    }

    /// What a process keeps, and how much of it there may be.
    fn sizes(&self, index: usize) -> [(&'static str, usize, usize); 10] {
        let node = &self.nodes[index];
        let memory = &node.memory;
        let busiest = memory.served.values().filter(|served| !served.has_ended);
        let mut by_peer = vec![0; self.nodes.len()];
        for served in busiest {
            by_peer[served.peer] += 1;
        }
        let (peers, most) = (MAX_NODES, memory.receive.max_per_peer);
        let (mut kept, mut most_kept, mut bytes, mut most_bytes) = (0, 0, 0, 0);
        if let Some(side) = &memory.cache {
            let bounds = side.machine.bounds();
            (kept, most_kept) = (side.machine.len(), bounds.entries);
            (bytes, most_bytes) = (side.machine.bytes() as usize, bounds.bytes as usize);
        }
        let unsent = memory.served.values().map(|served| served.outbox.unsent.len()).max();
        [
            ("rows", memory.rows.len(), MAX_ROWS),
            ("receipts", memory.receipts.len(), MAX_RECEIPTS),
            ("requests of one peer", by_peer.into_iter().max().unwrap_or(0), most),
            ("peers", memory.presented.len(), peers),
            ("packets of a stopped process", memory.backlog.len(), MAX_BACKLOG),
            ("answers kept", kept, most_kept),
            ("bytes of answers", bytes, most_bytes),
            ("frames of a stream", unsent.unwrap_or(0), super::serving::MAX_UNSENT),
            ("equivocations", memory.rows.evidence().count(), MAX_EVIDENCE),
            ("members", memory.roster.members().count(), selvedge_proto::records::MAX_MEMBERS),
        ]
    }
}

/// Equivocations a map of rows keeps: see `selvedge_crdt::RowMap`.
const MAX_EVIDENCE: usize = 64;

/// What is over its bound.
fn over(sizes: &[(&'static str, usize, usize)]) -> Option<String> {
    let (what, size, bound) = sizes.iter().find(|(_, size, bound)| size > bound)?;
    Some(format!("{size} {what}, and {bound} are allowed"))
}

/// Since when engines work for nobody, and when that was seen last.
pub(super) type IdleWork = std::collections::BTreeMap<(usize, Owner), (Mono, Mono)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_its_bound_is_named() {
        assert_eq!(over(&[("rows", 4, 4)]), None);
        let seen = over(&[("rows", 4, 4), ("peers", 3, 2)]);
        assert_eq!(seen.as_deref(), Some("3 peers, and 2 are allowed"));
    }
}
