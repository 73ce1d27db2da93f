//! Whether an engine stands still while it computes, told from its pulses.
//!
//! Owns the one rule by which a node judges its peers and itself. Does not own what follows from
//! it.

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono};

use super::{FROZEN_AFTER, Pulse};

/// Pulses further apart than this say nothing about the time between them: the engine may have been
/// idle meanwhile and have just begun again.
const PULSE_GAP: Micros = Micros::secs(1);

/// An engine, as its pulses show it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stillness {
    pulse: Pulse,
    pulse_at: Mono,
    /// Since when every pulse showed the same progress while computing.
    still_since: Mono,
}

impl Stillness {
    pub(super) const fn new(now: Mono) -> Self {
        let pulse = Pulse { progress: 0, computing: false, loading: false, running: 0, queued: 0 };
        Self { pulse, pulse_at: now, still_since: now }
    }

    /// The latest pulse.
    pub(super) const fn pulse(&self) -> Pulse {
        self.pulse
    }

    /// Takes a pulse; whether nothing moved since the one before.
    pub(super) fn pulsed(&mut self, now: Mono, pulse: Pulse) -> bool {
        let works = |pulse: &Pulse| pulse.computing && !pulse.loading;
        let still = works(&pulse) && works(&self.pulse) && pulse.progress == self.pulse.progress;
        if !still || now.since(self.pulse_at) > PULSE_GAP {
            self.still_since = now;
        }
        self.pulse = pulse;
        self.pulse_at = now;
        still
    }

    /// It moved, as is known by another way: whatever stillness was seen is over.
    pub(super) const fn moved(&mut self, now: Mono) {
        self.still_since = now;
        self.pulse_at = now;
    }

    /// Whether it stood still for too long, up to the latest pulse.
    pub(super) fn is_frozen(&self) -> bool {
        self.pulse.computing
            && !self.pulse.loading
            && self.pulse_at.since(self.still_since) >= FROZEN_AFTER
            && !plant::is_on(Plant::FreezeUnseen)
    }
}
