//! A hash over everything that happened, with checkpoints to find where two runs part.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::queue::Moment;

/// A checkpoint every so many records: a few dozen in a short run.
pub(crate) const CHECKPOINT_EVERY: u64 = 1_024;

/// 128 bits over the canonical bytes of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceHash(pub u128);

/// The hash so far.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    /// Bytes not hashed yet: a long piece is hashed many times faster than its parts.
    pending: Vec<u8>,
    records: u64,
    checkpoints: Vec<TraceHash>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        let hasher = blake3::Hasher::new_derive_key("selvedge 2026 simulation trace");
        Self { hasher, pending: Vec::new(), records: 0, checkpoints: Vec::new() }
    }

    /// Adds a record: when, which kind, about whom, and its bytes.
    pub(crate) fn record(&mut self, moment: Moment, kind: &str, who: [usize; 2], bytes: &[u8]) {
        let (at, class, seq) = moment;
        let mut head = [0; 8 * 6];
        let fields = [
            at.0,
            class as u64,
            seq,
            who[0] as u64,
            who[1] as u64,
            ((kind.len() as u64) << 32) | bytes.len() as u64,
        ];
        for (slot, field) in head.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_be_bytes());
        }
        self.pending.extend_from_slice(&head);
        self.pending.extend_from_slice(kind.as_bytes());
        self.pending.extend_from_slice(bytes);
        self.records += 1;
        if self.records.is_multiple_of(CHECKPOINT_EVERY) {
            let hash = self.hash();
            self.checkpoints.push(hash);
        }
    }

    pub(crate) const fn records(&self) -> u64 {
        self.records
    }

    pub(crate) fn finish(mut self) -> (TraceHash, Vec<TraceHash>, u64) {
        (self.hash(), self.checkpoints, self.records)
    }

    fn hash(&mut self) -> TraceHash {
        self.hasher.update(&self.pending);
        self.pending.clear();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.hasher.finalize().as_bytes()[..16]);
        TraceHash(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceHash({self})")
    }
}

impl std::str::FromStr for TraceHash {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for TraceHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
