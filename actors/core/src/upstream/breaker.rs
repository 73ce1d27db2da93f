//! The circuit breaker: whether a provider that keeps failing is left alone for a while.
//!
//! Owns the count of endings in a sliding window, when it trips, how long it stays open, and that a
//! half-open one lets probes through and nothing else. Only endings that are the provider's fault
//! count against it: a caller with bad requests or a key over its limit cannot open it for others.

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono};

use super::ending::{Ending, Fault};

/// Slices of the window: an old failure is forgotten at most a tenth of the window late.
const SLICES: usize = 10;

/// When a breaker trips and how it recovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Endings older than this are forgotten.
    pub window: Micros,
    /// Endings in the window before it can trip.
    pub least: u32,
    /// Failures in a thousand endings that trip it.
    pub trip_permille: u32,
    /// How long it stays open the first time; doubled with each failed probe.
    pub open_first: Micros,
    /// The longest it stays open.
    pub open_longest: Micros,
    /// Successful probes that close it.
    pub close_after: u32,
    /// A probe that has not ended after this no longer holds up the next one.
    pub probe_lease: Micros,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            // Long enough to see a pattern at one request a second, short enough to forget.
            window: Micros::secs(30),
            // Fewer are an accident.
            least: 5,
            // Half of the traffic failing is no longer worth the callers' time.
            trip_permille: 500,
            // Most hiccups of providers last seconds.
            open_first: Micros::secs(5),
            // A provider that comes back is found within two minutes.
            open_longest: Micros::secs(120),
            // One success may be luck.
            close_after: 2,
            // As long as a slow model may take to its first byte, and some more.
            probe_lease: Micros::secs(120),
        }
    }
}

/// Leave to make one attempt; handed back with its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Endings of attempts that began under an earlier state say nothing about this one.
    epoch: u64,
    probe: bool,
}

impl Pass {
    /// Whether this attempt is to find out if the provider is back.
    pub const fn is_probe(self) -> bool {
        self.probe
    }
}

/// What changed with an ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It tripped, or a probe failed.
    Opened {
        /// No attempt before this.
        until: Mono,
    },
    /// Probes succeeded.
    Closed,
}

/// One circuit breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    epoch: u64,
    slices: [Slice; SLICES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Mono, level: u32 },
    HalfOpen { probing_since: Option<Mono>, good: u32, level: u32 },
}

#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    /// Which slice of time since the clock's zero this counts.
    number: u64,
    good: u32,
    bad: u32,
}

impl Breaker {
    /// A closed breaker.
    pub const fn new(settings: BreakerSettings) -> Self {
        let empty = Slice { number: 0, good: 0, bad: 0 };
        Self { settings, state: State::Closed, epoch: 0, slices: [empty; SLICES] }
    }

    /// Whether an attempt would be let through now; if not, when to ask again.
    ///
    /// # Errors
    /// The moment from which an attempt may be let through.
    pub fn allows(&self, now: Mono) -> Result<(), Mono> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until, .. } if now >= until && !plant::is_on(Plant::BreakerStaysOpen) => {
                Ok(())
            }
            State::Open { until, .. } => Err(until),
            State::HalfOpen { probing_since: None, .. } => Ok(()),
            State::HalfOpen { probing_since: Some(since), .. } => {
                let lapses = since.plus(self.settings.probe_lease);
                let free = now >= lapses || plant::is_on(Plant::ProbesUnlimited);
                if free { Ok(()) } else { Err(lapses) }
            }
        }
    }

    /// Leave for one attempt. Half-open, it is the one probe.
    ///
    /// # Errors
    /// As [`Breaker::allows`].
    pub fn take(&mut self, now: Mono) -> Result<Pass, Mono> {
        self.allows(now)?;
        let (good, level) = match self.state {
            State::Closed => return Ok(Pass { epoch: self.epoch, probe: false }),
            State::Open { level, .. } => (0, level),
            State::HalfOpen { good, level, .. } => (good, level),
        };
        // A probe whose lease lapsed must not report into the slot of the one that follows it.
        self.epoch += 1;
        self.state = State::HalfOpen { probing_since: Some(now), good, level };
        Ok(Pass { epoch: self.epoch, probe: true })
    }

    /// An attempt ended.
    pub fn ended(&mut self, now: Mono, pass: Pass, ending: Ending) -> Option<Turn> {
        if pass.epoch != self.epoch {
            return None;
        }
        let failed = ending.fault() == Fault::Provider;
        match self.state {
            State::Closed if failed || ending.shows_life() => self.count(now, failed),
            State::HalfOpen { level, .. } if failed => Some(self.open(now, level + 1)),
            State::HalfOpen { good, level, .. } => {
                let good = good + u32::from(ending.shows_life());
                if good >= self.settings.close_after {
                    self.epoch += 1;
                    self.state = State::Closed;
                    self.slices = [Slice::default(); SLICES];
                    return Some(Turn::Closed);
                }
                self.state = State::HalfOpen { probing_since: None, good, level };
                None
            }
            State::Closed | State::Open { .. } => None,
        }
    }

    /// Whether it is closed: nothing is known against the provider.
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    fn count(&mut self, now: Mono, failed: bool) -> Option<Turn> {
        let number = now.0 / self.slice_micros();
        let slice = &mut self.slices[(number % SLICES as u64) as usize];
        if slice.number != number {
            *slice = Slice { number, ..Slice::default() };
        }
        let side = if failed { &mut slice.bad } else { &mut slice.good };
        *side = side.saturating_add(1);
        let fresh = self.slices.iter().filter(|slice| number - slice.number < SLICES as u64);
        let (good, bad) = fresh.fold((0u64, 0u64), |(good, bad), slice| {
            (good + u64::from(slice.good), bad + u64::from(slice.bad))
        });
        let enough = good + bad >= u64::from(self.settings.least);
        let many = bad * 1_000 >= (good + bad) * u64::from(self.settings.trip_permille);
        (failed && enough && many).then(|| self.open(now, 0))
    }

    fn open(&mut self, now: Mono, level: u32) -> Turn {
        // 2^20 times any first wait is beyond any longest wait.
        let level = level.min(20);
        let wait = self.settings.open_first.times(1 << level).min(self.settings.open_longest);
        let until = now.plus(wait);
        self.epoch += 1;
        self.state = State::Open { until, level };
        Turn::Opened { until }
    }

    const fn slice_micros(&self) -> u64 {
        let micros = self.settings.window.0 / SLICES as u64;
        if micros == 0 { 1 } else { micros }
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
