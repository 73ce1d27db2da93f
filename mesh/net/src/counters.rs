//! What the data plane counts.
//!
//! Owns the numbers. Naming them for a metrics system belongs to the surface that serves them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one endpoint since its start.
#[derive(Debug, Default)]
pub(crate) struct NetCounters {
    pub(crate) strays: AtomicU64,
    pub(crate) turned_away: AtomicU64,
    pub(crate) failed_handshakes: AtomicU64,
    pub(crate) refused_hellos: AtomicU64,
    pub(crate) links: AtomicU64,
    pub(crate) joins: AtomicU64,
    pub(crate) dropped_datagrams: AtomicU64,
    pub(crate) lifelines: AtomicU64,
    pub(crate) lifelines_refused: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounts {
    /// Packets that cannot be of any connection: not QUIC, or for nobody.
    pub strays: u64,
    /// Connections turned away unheard, for lack of room.
    pub turned_away: u64,
    /// Handshakes or Hellos that failed or took too long.
    pub failed_handshakes: u64,
    /// Hellos refused here.
    pub refused_hellos: u64,
    /// Connections that became part of a link.
    pub links: u64,
    /// Attempts to join handed to the runtime.
    pub joins: u64,
    /// Datagrams dropped because the runtime was behind.
    pub dropped_datagrams: u64,
    /// Lifelines that showed which link they belong to.
    pub lifelines: u64,
    /// TCP connections that did not, and were dropped.
    pub lifelines_refused: u64,
}

impl NetCounters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> NetCounts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetCounts {
            strays: value(&self.strays),
            turned_away: value(&self.turned_away),
            failed_handshakes: value(&self.failed_handshakes),
            refused_hellos: value(&self.refused_hellos),
            links: value(&self.links),
            joins: value(&self.joins),
            dropped_datagrams: value(&self.dropped_datagrams),
            lifelines: value(&self.lifelines),
            lifelines_refused: value(&self.lifelines_refused),
        }
    }
}
