//! The rows a node knows, and the exchange that makes two nodes know the same.
//!
//! Scuttlebutt reconciliation (van Renesse et al. 2008): a digest says which write of each writer
//! is known, a delta holds what the other side lacks, under a byte budget. The rotation that keeps
//! any row from starving is a cursor the caller keeps per peer and advances only after the delta
//! was sent. Owns no transport and no signature check.

use std::collections::BTreeMap;
use std::ops::Bound;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{BoundedQueue, NodeId};
use serde::{Deserialize, Serialize};

use crate::row::{Equivocation, MAX_VALUE_BYTES, Row, RowError, Stamp};

/// Equivocations remembered. One is enough to act on a writer; more than a screenful helps nobody.
pub const MAX_EVIDENCE: usize = 64;

/// The newest row of each writer.
#[derive(Clone, Debug)]
pub struct RowMap {
    /// At most `limit` of them.
    rows: BTreeMap<NodeId, Row>,
    evidence: BoundedQueue<Equivocation>,
    limit: usize,
}

/// Which rows a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Per writer, in order of the writers.
    pub entries: BTreeMap<NodeId, DigestEntry>,
}

/// Which row of a writer a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestEntry {
    /// Which write.
    pub stamp: Stamp,
    /// The first bytes of its hash: two rows under one stamp must meet, to become evidence.
    pub check: [u8; 8],
}

/// Rows the other side lacks, and where to go on next time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// The rows, within the budget.
    pub rows: Vec<Row>,
    /// The cursor to keep for this peer once the delta was sent.
    pub next: Option<NodeId>,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Merged {
    /// It was newer and is now held.
    Newer,
    /// It, or a newer one, was held already.
    Known,
    /// Its writer signed two values under one stamp; the map holds the one all nodes keep.
    Conflict(Box<Equivocation>),
    /// It was not taken.
    Refused(RowError),
}

impl RowMap {
    /// An empty map for at most `limit` writers.
    pub const fn new(limit: usize) -> Self {
        Self { rows: BTreeMap::new(), evidence: BoundedQueue::new(MAX_EVIDENCE), limit }
    }

    /// Takes a row if it is newer and `signed` approves of its signature, which is asked only for
    /// rows that would change something.
    pub fn merge(&mut self, row: Row, signed: impl FnOnce(&Row) -> bool) -> Merged {
        if row.value.len() > MAX_VALUE_BYTES {
            return Merged::Refused(RowError::TooLarge { size: row.value.len() });
        }
        let held = self.rows.get(&row.writer);
        match held {
            Some(held) if *held == row => return Merged::Known,
            Some(held) if held.stamp > row.stamp && !plant::is_on(Plant::RowsGoBack) => {
                return Merged::Known;
            }
            None if self.rows.len() >= self.limit => {
                return Merged::Refused(RowError::Full(self.limit));
            }
            Some(_) | None => {}
        }
        if !signed(&row) {
            return Merged::Refused(RowError::Signature(row.writer));
        }
        match held {
            Some(held) if held.stamp == row.stamp => self.settle_tie(held.clone(), row),
            Some(_) | None => self.hold(row),
        }
    }

    /// The row of a writer.
    pub fn get(&self, writer: &NodeId) -> Option<&Row> {
        self.rows.get(writer)
    }

    /// All rows, in order of their writers.
    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// How many writers have a row.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Drops the row of a writer that is no longer a member. It comes back from peers that still
    /// hold it unless `signed` of [`RowMap::merge`] refuses that writer from now on.
    pub fn forget(&mut self, writer: &NodeId) -> Option<Row> {
        self.rows.remove(writer)
    }

    /// The equivocations seen last, oldest first.
    pub fn evidence(&self) -> impl Iterator<Item = &Equivocation> {
        self.evidence.iter()
    }

    /// What this map holds.
    pub fn digest(&self) -> Digest {
        let entry = |row: &Row| DigestEntry { stamp: row.stamp, check: row.check() };
        Digest { entries: self.rows.iter().map(|(writer, row)| (*writer, entry(row))).collect() }
    }

    /// The rows that the holder of `theirs` lacks, at most `budget` bytes of them, beginning after
    /// `cursor` and wrapping around once. At least one row is sent if any is lacking, as a row is
    /// never larger than a frame; so every row has its turn whatever the budget.
    pub fn delta(&self, theirs: &Digest, cursor: Option<NodeId>, budget: usize) -> Delta {
        let start = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let mut delta = Delta { rows: Vec::new(), next: cursor };
        let mut left = budget;
        let lacking = |row: &Row| match theirs.entries.get(&row.writer) {
            None => true,
            Some(entry) if entry.stamp == row.stamp => entry.check != row.check(),
            Some(entry) => entry.stamp < row.stamp && !plant::is_on(Plant::UpdatesWithheld),
        };
        let after = self.rows.range((start, Bound::Unbounded));
        let until = cursor.map(|last| self.rows.range((Bound::Unbounded, Bound::Included(last))));
        for (writer, row) in after.chain(until.into_iter().flatten()) {
            if !lacking(row) {
                continue;
            }
            let size = row.wire_bytes();
            if size > left && !delta.rows.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            delta.rows.push(row.clone());
            delta.next = Some(*writer);
        }
        delta
    }

    fn hold(&mut self, row: Row) -> Merged {
        self.rows.insert(row.writer, row);
        Merged::Newer
    }

    /// Two rows under one stamp: the greater bytes stay, so that the order of arrival is no matter.
    fn settle_tie(&mut self, held: Row, row: Row) -> Merged {
        let differs = held.value != row.value;
        let theirs_wins = (&row.value, row.signature) > (&held.value, held.signature);
        let (kept, other) = if theirs_wins { (row, held) } else { (held, row) };
        if theirs_wins {
            self.rows.insert(kept.writer, kept.clone());
        }
        if !differs {
            // The same value signed twice is legal: signatures need not be deterministic.
            return if theirs_wins { Merged::Newer } else { Merged::Known };
        }
        let evidence = Equivocation { kept, other };
        if !self.evidence.iter().any(|known| *known == evidence) {
            self.evidence.push_evicting(evidence.clone());
        }
        Merged::Conflict(Box::new(evidence))
    }
}

#[cfg(test)]
mod tests;
