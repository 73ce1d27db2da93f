//! When to start something again that failed.
//!
//! Owns the patience: exponential back-off with a reset after a quiet time. Used for actors that
//! crashed and for connections that broke. The shell waits; this only says how long.

use selvedge_base::{Micros, Mono};

/// How patient to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The wait after the first failure.
    pub first: Micros,
    /// The longest wait.
    pub longest: Micros,
    /// A run at least this long counts as a success and forgets earlier failures.
    pub settled_after: Micros,
}

impl Patience {
    /// For actors: quick enough that nobody notices one crash, slow enough that a crash loop costs
    /// nothing.
    pub const ACTOR: Self = Self {
        first: Micros::millis(50),
        longest: Micros::secs(10),
        settled_after: Micros::secs(30),
    };
    /// For nodes that were only heard of: most are members that have just started, the rest belong
    /// to somebody else and are left in peace soon.
    pub const STRANGER: Self = Self {
        first: Micros::millis(200),
        longest: Micros::secs(30),
        settled_after: Micros::secs(3_600),
    };
    /// For links to peers: at most a second late after a cut heals, and cheap towards a peer that
    /// is switched off.
    pub const LINK: Self = Self {
        first: Micros::millis(200),
        longest: Micros::secs(1),
        settled_after: Micros::secs(5),
    };
}

/// The history of one thing that may fail.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    patience: Patience,
    failures: u32,
    started: Mono,
}

impl Restart {
    /// Something that was just started for the first time.
    pub const fn new(patience: Patience, now: Mono) -> Self {
        Self { patience, failures: 0, started: now }
    }

    /// Notes that it was started.
    pub const fn started(&mut self, now: Mono) {
        self.started = now;
    }

    /// Notes that it failed; returns how long to wait before starting it again. Unless
    /// [`Restart::started`] says otherwise, the next run begins now: a failure ends a run, so that
    /// only one that really lasted forgets earlier failures.
    pub fn failed(&mut self, now: Mono) -> Micros {
        if now.since(self.started) >= self.patience.settled_after {
            self.failures = 0;
        }
        self.started = now;
        // 2^20 times any first wait is beyond any longest wait.
        let wait = self.patience.first.times(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        wait.min(self.patience.longest)
    }

    /// How often it failed since it last settled.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_are_forgotten() {
        let mut restart = Restart::new(Patience::ACTOR, Mono(0));
        let waits: Vec<u64> = (0..12).map(|_| restart.failed(Mono(1)).as_millis()).collect();
        assert_eq!(waits[..4], [50, 100, 200, 400]);
        assert_eq!(waits[11], 10_000);
        restart.started(Mono(1));
        let later = Mono(1).plus(Patience::ACTOR.settled_after);
        assert_eq!(restart.failed(later), Patience::ACTOR.first);
    }

    #[test]
    fn failing_for_long_is_not_running_for_long() {
        let mut now = Mono(0).plus(Patience::LINK.settled_after);
        let mut restart = Restart::new(Patience::LINK, Mono(0));
        let waits: Vec<u64> = (0..5)
            .map(|_| {
                let wait = restart.failed(now);
                now = now.plus(wait);
                wait.as_millis()
            })
            .collect();
        assert_eq!(waits, [200, 400, 800, 1_000, 1_000]);
        let settled = now.plus(Patience::LINK.settled_after);
        assert_eq!(restart.failed(settled), Patience::LINK.first);
    }
}
