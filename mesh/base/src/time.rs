//! Time as machines see it: integers handed in by a shell, never read from the system.
//!
//! Owns the two clocks' types and their arithmetic. `Mono` orders events on one node; `Wall`
//! dates records that several nodes read. They never mix: there is no conversion between them.

use serde::{Deserialize, Serialize};

/// A span of time in microseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Micros(pub u64);

/// A reading of the node's monotonic clock, in microseconds since an arbitrary start.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Mono(pub u64);

/// A reading of the wall clock, in milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Wall(pub u64);

/// Both clocks, read at the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Orders events on this node.
    pub mono: Mono,
    /// Dates records for other nodes and for people.
    pub wall: Wall,
}

impl Micros {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// `ms` milliseconds.
    pub const fn millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000))
    }

    /// `s` seconds.
    pub const fn secs(s: u64) -> Self {
        Self(s.saturating_mul(1_000_000))
    }

    /// The whole milliseconds in this span.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// This span `n` times, without overflow.
    pub const fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n))
    }

    /// The sum of two spans, without overflow.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl From<Micros> for std::time::Duration {
    fn from(span: Micros) -> Self {
        Self::from_micros(span.0)
    }
}

impl Mono {
    /// The moment `span` after this one.
    pub const fn plus(self, span: Micros) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The span since `earlier`, zero if `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }
}

impl Wall {
    /// The moment `span` after this one, in whole milliseconds.
    pub const fn plus(self, span: Micros) -> Self {
        Self(self.0.saturating_add(span.0 / 1_000))
    }

    /// The moment `span` before this one, in whole milliseconds, not before the epoch.
    pub const fn minus(self, span: Micros) -> Self {
        Self(self.0.saturating_sub(span.0 / 1_000))
    }

    /// The span since `earlier`, zero if `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> Micros {
        Micros::millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000
    }
}
