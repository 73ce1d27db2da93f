//! Wall clocks that are wrong.

use selvedge_base::{Micros, Mono, Now, Wall};

/// Wall time when a run begins: any date will do, as long as it is always the same. This one is
/// 35 s after a full minute, so that short runs see a minute's window turn.
pub(crate) const EPOCH: Wall = Wall(1_800_000_035_000);

/// A node's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// Milliseconds ahead (or behind).
    offset_ms: i64,
    /// Millionths fast (or slow), since when.
    drift: Option<(i64, Mono)>,
    /// Counts from 1970 since then.
    beginning: Option<Mono>,
    /// Whether it was ever wrong.
    pub(crate) was_wrong: bool,
}

impl Clock {
    pub(crate) fn now(&self, mono: Mono) -> Now {
        Now { mono, wall: self.wall(mono) }
    }

    fn wall(&self, mono: Mono) -> Wall {
        if let Some(since) = self.beginning {
            return Wall(mono.since(since).as_millis());
        }
        let drifted = self.drift.map_or(0, |(ppm, since)| drift_ms(ppm, mono.since(since)));
        let ahead = self.offset_ms.saturating_add(drifted);
        Wall((EPOCH.0 + mono.0 / 1_000).saturating_add_signed(ahead))
    }

    pub(crate) const fn step(&mut self, by_ms: i64) {
        self.was_wrong = true;
        self.offset_ms = self.offset_ms.saturating_add(by_ms);
    }

    /// Begins to drift, or ends: what has built up stays until the clock is set.
    pub(crate) fn drift(&mut self, now: Mono, ppm: Option<i64>) {
        if let Some((old, since)) = self.drift.take() {
            self.step(drift_ms(old, now.since(since)));
        }
        self.was_wrong = true;
        self.drift = ppm.map(|ppm| (ppm, now));
    }

    /// Begins in 1970, or is set right.
    pub(crate) const fn begin_in_1970(&mut self, since: Option<Mono>) {
        self.was_wrong = true;
        self.beginning = since;
    }

    /// Set by a time service.
    pub(crate) const fn set(&mut self) {
        let was_wrong = self.was_wrong;
        *self = Self { offset_ms: 0, drift: None, beginning: None, was_wrong };
    }

    pub(crate) const fn is_right(&self) -> bool {
        self.offset_ms == 0 && self.drift.is_none() && self.beginning.is_none()
    }
}

fn drift_ms(ppm: i64, span: Micros) -> i64 {
    let micros = i64::try_from(span.0).unwrap_or(i64::MAX);
    micros.saturating_mul(ppm) / 1_000_000_000
}
