//! A disk of one machine: writes become durable in order, and a crash loses the last of them.

use std::collections::{BTreeMap, VecDeque};

use selvedge_base::Micros;
use selvedge_federated::round::Folded;

use crate::stream::Stream;

/// What a machine stored, and what is on its way.
pub(super) struct Disk<S, C> {
    pub(super) durable: S,
    pending: VecDeque<(u64, C)>,
    /// Ends of rounds, as they were stored.
    pub(super) rounds: BTreeMap<u64, Folded>,
    stream: Stream,
    slow: bool,
}

impl<S, C> Disk<S, C> {
    pub(super) const fn new(durable: S, stream: Stream, slow: bool) -> Self {
        Self { durable, pending: VecDeque::new(), rounds: BTreeMap::new(), stream, slow }
    }

    /// Takes a write; after how long it will be durable.
    pub(super) fn write(&mut self, number: u64, change: C) -> Micros {
        self.pending.push_back((number, change));
        let most = if self.slow && self.stream.chance(300) { 400 } else { 8 };
        Micros::millis(1 + self.stream.below(most))
    }

    /// What becomes durable with this write, it and all before.
    pub(super) fn due(&mut self, number: u64) -> Vec<C> {
        let mut due = Vec::new();
        while self.pending.front().is_some_and(|(first, _)| *first <= number) {
            due.extend(self.pending.pop_front().map(|(_, change)| change));
        }
        due
    }

    /// A crash: of what was on its way a part from the beginning is found durable, the rest is
    /// gone. Whether something is.
    pub(super) fn crash(&mut self) -> (Vec<C>, bool) {
        let kept = self.stream.below(self.pending.len() as u64 + 1) as usize;
        let lost = self.pending.len() > kept;
        let found = self.pending.drain(..kept).map(|(_, change)| change).collect();
        self.pending.clear();
        (found, lost)
    }
}
