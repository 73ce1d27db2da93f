//! Evenly spaced requests: the generic cell rate algorithm with a rate that may change.
//!
//! A bucket fills at the node's share of the rate and every request takes one cell out. The share
//! is a right like any other: a donor's bucket fills slower from the moment it decides to give,
//! and the receiver's faster only once the gift is durable. What a bucket already holds never
//! grows by a gift, so all nodes together admit `rate × time` and one tolerance, never more.

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono, Now, Wall};

/// A bucket holds this much time's worth of cells, and at least one. A tenth of a second smooths
/// the arrival of a browser's parallel requests and stays far below what a person would notice.
const TOLERANCE: Micros = Micros::millis(100);

/// One node's bucket for one budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// In cells × microseconds of the period.
    level: u128,
    at: Mono,
}

impl Bucket {
    /// As full as its size will allow: of a store that never let anything pass.
    pub(super) const fn full() -> Self {
        Self { level: u128::MAX, at: Mono(0) }
    }

    /// Empty at a time: the last one at which the node may have let something pass.
    pub(super) const fn empty(at: Mono) -> Self {
        Self { level: 0, at }
    }

    /// What a limiter holds when a process starts whose disk says until when an earlier one may
    /// have let requests pass.
    pub(super) fn at_start(now: Now, horizon: Wall) -> Self {
        if horizon == Wall(0) {
            return Self::full();
        }
        let idle = now.wall.since(horizon);
        Self::empty(Mono(now.mono.0.saturating_sub(idle.0)))
    }

    /// Forgets what it held.
    pub(super) const fn drain(&mut self) {
        self.level = 0;
    }

    /// Lets time pass at `rights` cells per `period`, and forgets what does not fit.
    pub(super) fn fill(&mut self, now: Mono, rights: u64, period: Micros) {
        let passed = now.since(self.at);
        self.at = self.at.max(now);
        let gained = u128::from(rights) * u128::from(passed.0);
        self.level = self.level.saturating_add(gained).min(capacity(rights, period));
    }

    /// Whole cells in the bucket.
    pub(super) fn cells(&self, period: Micros) -> u64 {
        u64::try_from(self.level / u128::from(period.0.max(1))).unwrap_or(u64::MAX)
    }

    /// Takes cells out; false, and none taken, when there are not as many.
    pub(super) fn take(&mut self, cells: u64, period: Micros) -> bool {
        let cost = u128::from(cells) * u128::from(period.0);
        let enough = self.level >= cost;
        if enough && !plant::is_on(Plant::LimiterNeverEmpty) {
            self.level -= cost;
        }
        enough
    }

    /// How long until there are that many cells; `None` when the share is too small for ever.
    pub(super) fn wait_for(&self, cells: u64, rights: u64, period: Micros) -> Option<Micros> {
        let cost = u128::from(cells) * u128::from(period.0);
        if cost > capacity(rights, period) {
            return None;
        }
        let missing = cost.saturating_sub(self.level);
        let wait = missing.div_ceil(u128::from(rights.max(1)));
        Some(Micros(u64::try_from(wait).unwrap_or(u64::MAX)))
    }
}

fn capacity(rights: u64, period: Micros) -> u128 {
    if rights == 0 {
        return 0;
    }
    let tolerated = u128::from(rights) * u128::from(TOLERANCE.0);
    tolerated.max(u128::from(period.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = Micros::secs(1);

    #[test]
    fn a_minute_of_hurry_admits_the_rate_and_one_tolerance() {
        let mut bucket = Bucket::empty(Mono(0));
        let mut admitted = 0;
        for ms in 0..60_000u64 {
            bucket.fill(Mono(ms * 1_000), 50, SECOND);
            admitted += u64::from(bucket.take(1, SECOND));
        }
        assert!((2_990..=3_005).contains(&admitted), "{admitted}");
    }

    #[test]
    fn a_share_that_moves_admits_no_more_than_the_whole() {
        let (mut a, mut b) = (Bucket::empty(Mono(0)), Bucket::empty(Mono(0)));
        let mut admitted = 0;
        for ms in 0..10_000u64 {
            let now = Mono(ms * 1_000);
            // The share of 20 goes to and fro every 50 ms.
            let at_a = (ms / 50) % 2 == 0;
            a.fill(now, if at_a { 20 } else { 0 }, SECOND);
            b.fill(now, if at_a { 0 } else { 20 }, SECOND);
            for bucket in [&mut a, &mut b] {
                admitted += u64::from(bucket.take(1, SECOND));
            }
        }
        assert!(admitted <= 200 + 2, "{admitted}");
    }

    #[test]
    fn the_wait_is_exact() {
        let mut bucket = Bucket::empty(Mono(0));
        bucket.fill(Mono(0), 10, SECOND);
        assert!(!bucket.take(1, SECOND));
        let wait = bucket.wait_for(1, 10, SECOND).expect("ten per second");
        assert_eq!(wait, Micros::millis(100));
        bucket.fill(Mono(wait.0 - 1), 10, SECOND);
        assert!(!bucket.take(1, SECOND));
        bucket.fill(Mono(wait.0), 10, SECOND);
        assert!(bucket.take(1, SECOND));
        assert_eq!(bucket.wait_for(1, 0, SECOND), None);
        assert_eq!(bucket.wait_for(3, 10, SECOND), None);
    }
}
