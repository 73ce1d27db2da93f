//! The exact cache of answers that every node has, when a plan has any.

use selvedge_base::Micros;
use selvedge_core::cache::Bounds;
use serde::{Deserialize, Serialize};

/// How much is kept, and for how long: production's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachePlan {
    /// Answers kept.
    pub entries: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes of one.
    pub entry_bytes: u64,
    /// How long one is good.
    pub ttl: Micros,
    /// Whether answers are kept whose words were drawn by chance.
    pub sampled: bool,
}

impl Default for CachePlan {
    /// Room for everything, for less time than a run takes.
    fn default() -> Self {
        Self {
            entries: 256,
            bytes: 1 << 20,
            entry_bytes: 1 << 16,
            ttl: Micros::secs(10),
            sampled: false,
        }
    }
}

impl CachePlan {
    /// What would keep nothing is no cache.
    pub(super) const fn check(self) -> Result<(), &'static str> {
        match (self.entries, self.ttl.0) {
            (0, _) => Err("options.cache.entries"),
            (_, 0) => Err("options.cache.ttl"),
            _ => Ok(()),
        }
    }

    pub(crate) const fn bounds(self) -> Bounds {
        let Self { entries, bytes, entry_bytes, ttl, .. } = self;
        Bounds { entries, bytes, entry_bytes, ttl }
    }
}
