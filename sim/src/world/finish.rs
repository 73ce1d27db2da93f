//! The end of a run: everything must have come to rest.

use selvedge_base::Mono;
use selvedge_crdt::Digest;
use selvedge_proto::swim::PeerState;

use super::World;
use crate::engine::Owner;
use crate::invariant::Invariant;
use crate::outcome::Outcome;
use crate::plan::{Fault, FaultKind};

/// Rows of two nodes are compared only up to here: the digests of a large mesh are large.
const SHOWN: usize = 400;

impl World<'_> {
    pub(super) fn finish(mut self) -> Outcome {
        self.now.0 = Mono(self.plan.span.0);
        self.views_agree();
        self.rows_agree();
        self.nothing_pends();
        let (hash, checkpoints, records) = self.trace.finish();
        self.counters.records = records;
        self.counters.lost = self.network.lost;
        self.counters.duplicated = self.network.duplicated;
        self.counters.reordered = self.network.reordered;
        self.counters.cut = self.network.cut;
        self.counters.stored = self.nodes.iter().map(|node| node.disk.writes).sum();
        Outcome {
            hash,
            checkpoints,
            detections: self.checker.detections,
            violations: self.checker.violations,
            counters: self.counters,
            requests: self.tally,
            budgets: Vec::new(),
            marks: self.marks,
        }
    }

    /// Whether a node is, or should be, up and a member at the end.
    fn is_whole(&self, node: usize) -> bool {
        let death =
            |fault: &Fault| matches!(fault.kind, FaultKind::Death { node: dead } if dead == node);
        !self.nodes[node].is_revoked && !self.plan.faults.iter().any(death)
    }

    fn views_agree(&mut self) {
        let mut wrong = Vec::new();
        for observer in self.checker.observers().filter(|node| self.is_whole(*node)) {
            for view in self.nodes[observer].memory.swim.states() {
                let peer = self.names.index(&view.node);
                if view.state != PeerState::Alive && self.is_whole(peer) {
                    wrong.push(format!("node {observer} of {peer}: {view:?}"));
                }
            }
        }
        for seen in wrong {
            self.broken(Invariant::LiveViewsAgree, seen);
        }
    }

    fn rows_agree(&mut self) {
        if self.ease() > 1 {
            return;
        }
        let whole = (0..self.nodes.len()).filter(|node| self.is_whole(*node));
        let digests: Vec<Digest> =
            whole.map(|node| self.nodes[node].memory.rows.digest()).collect();
        if digests.windows(2).any(|pair| pair[0] != pair[1]) {
            let mut seen = format!("{digests:?}");
            seen.truncate(SHOWN);
            self.broken(Invariant::LiveRowsAgree, seen);
        }
    }

    fn nothing_pends(&mut self) {
        let mut wrong = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.acts()) {
            for request in node.memory.taken.keys() {
                if self.requests[*request as usize].deadline_at < self.now.0 {
                    wrong.push((Invariant::LiveNothingPending, format!("{request} at {index}")));
                }
            }
            for owner in node.memory.engine.owners() {
                let wanted = match owner {
                    Owner::Own { request, .. } => node.memory.taken.contains_key(&request),
                    Owner::Stream(stream) => node.memory.served.contains_key(&stream),
                };
                if !wanted {
                    wrong.push((Invariant::RouteLosersCancelled, format!("{owner:?} at {index}")));
                }
            }
        }
        for (invariant, seen) in wrong {
            self.broken(invariant, seen);
        }
    }
}
