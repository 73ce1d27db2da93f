//! A model of an inference engine, as its pulse shows it: idle, loading, queued, fast, slow.

use selvedge_base::{Dice, Micros};
use selvedge_proto::swim::Pulse;

/// How often the model advances and reports, as the runtime does.
pub(crate) const ENGINE_STEP: Micros = Micros::millis(100);
/// The slowest progress: one layer in nine steps is slower than any machine worth using, and must
/// still not count as frozen.
const SLOWEST: u64 = 9;

/// What an engine is doing.
#[derive(Debug)]
pub(crate) struct Engine {
    dice: Dice,
    doing: Doing,
    frozen: bool,
    progress: u64,
    /// Steps since the last progress.
    steps: u64,
}

#[derive(Clone, Copy, Debug)]
enum Doing {
    Nothing,
    Loading,
    /// Requests wait while another model loads.
    Queueing,
    /// Advances once in so many steps.
    Computing(u64),
}

impl Engine {
    pub(crate) const fn new(dice: Dice) -> Self {
        Self { dice, doing: Doing::Nothing, frozen: false, progress: 0, steps: 0 }
    }

    pub(crate) const fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    pub(crate) fn step(&mut self) -> Pulse {
        // Changes its mind every two seconds on average.
        if self.dice.chance(50) {
            // Work that ends has computed its last layer.
            self.advance();
            self.doing = match self.dice.below(5) {
                0 => Doing::Nothing,
                1 => Doing::Loading,
                2 => Doing::Queueing,
                _ => Doing::Computing(1 + self.dice.below(SLOWEST)),
            };
        }
        self.steps += 1;
        if let Doing::Computing(every) = self.doing
            && self.steps >= every
        {
            self.advance();
        }
        self.pulse()
    }

    const fn advance(&mut self) {
        if !self.frozen {
            self.progress += 1;
            self.steps = 0;
        }
    }

    const fn pulse(&self) -> Pulse {
        let (computing, loading, queued) = match self.doing {
            _ if self.frozen => (true, false, 2),
            Doing::Nothing => (false, false, 0),
            Doing::Loading => (true, true, 0),
            Doing::Queueing => (false, true, 3),
            Doing::Computing(_) => (true, false, 0),
        };
        let running = computing as u32;
        Pulse { progress: self.progress, computing, loading, running, queued }
    }
}
