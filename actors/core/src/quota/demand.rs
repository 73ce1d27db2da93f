//! How much is asked for per second: an exponentially weighted mean in integers.

use selvedge_base::{Micros, Mono};

/// The mean forgets half of what it knew in this time: long enough to smooth single requests of a
/// thousand tokens, short enough to follow demand that moves to another node.
const HALF_LIFE: Micros = Micros::secs(10);
/// The mean decays in steps of a 64th of its half-life; nothing decides in less than 0.2 s.
const STEP: Micros = Micros(HALF_LIFE.0 / STEPS_PER_HALF_LIFE);
const STEPS_PER_HALF_LIFE: u64 = 64;
/// 2^(-1/64) in units of 2^-32.
const STEP_FACTOR: u64 = 4_248_701_965;
/// What one unit adds, in millionths of a thousandth per second: ln 2 / 10 s, so that a steady
/// flow of one unit per second settles at 1,000.
const GAIN: u64 = 69_315;

/// Units asked for per second, served and refused alike.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    /// In thousandths of a unit per second, as of `at`.
    milli: u64,
    at: Mono,
    /// When something was asked for last.
    last: Mono,
}

impl Demand {
    /// Notes that `amount` units were asked for.
    pub(super) fn add(&mut self, now: Mono, amount: u64) {
        self.decay(now);
        self.last = now;
        let gain = u128::from(amount) * u128::from(GAIN) / 1_000;
        self.milli = self.milli.saturating_add(u64::try_from(gain).unwrap_or(u64::MAX));
    }

    /// Thousandths of a unit per second.
    pub(super) fn milli_at(&self, now: Mono) -> u64 {
        let mut copy = *self;
        copy.decay(now);
        copy.milli
    }

    /// For how long nothing was asked for.
    pub(super) const fn idle(&self, now: Mono) -> Micros {
        now.since(self.last)
    }

    fn decay(&mut self, now: Mono) {
        let steps = now.since(self.at).0 / STEP.0;
        if steps == 0 {
            return;
        }
        self.at = self.at.plus(STEP.times(steps));
        let halves = steps / STEPS_PER_HALF_LIFE;
        self.milli = if halves >= 64 { 0 } else { self.milli >> halves };
        let mut factor = STEP_FACTOR;
        let mut rest = steps % STEPS_PER_HALF_LIFE;
        while rest > 0 && self.milli > 0 {
            if rest & 1 == 1 {
                self.milli = scale(self.milli, factor);
            }
            factor = scale(factor, factor);
            rest >>= 1;
        }
    }
}

/// What `milli` thousandths per second make in `seconds`, in whole units, rounded up.
pub(super) fn units_in(milli: u64, seconds: u64) -> u64 {
    let product = u128::from(milli) * u128::from(seconds);
    u64::try_from(product.div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// The same, rounded down.
pub(super) fn whole_units_in(milli: u64, seconds: u64) -> u64 {
    let product = u128::from(milli) * u128::from(seconds);
    u64::try_from(product / 1_000).unwrap_or(u64::MAX)
}

/// `value × factor`, the factor in units of 2^-32 and not above one.
fn scale(value: u64, factor: u64) -> u64 {
    ((u128::from(value) * u128::from(factor)) >> 32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_is_its_own_mean() {
        let mut demand = Demand::default();
        for second in 0..120 {
            demand.add(Mono(second * 1_000_000), 50);
        }
        let mean = demand.milli_at(Mono(119_500_000));
        assert!((48_000..52_000).contains(&mean), "{mean}");
    }

    #[test]
    fn half_is_forgotten_in_ten_seconds_and_all_in_the_end() {
        let mut demand = Demand::default();
        demand.add(Mono(0), 1_000_000);
        let start = demand.milli_at(Mono(0));
        let later = demand.milli_at(Mono(HALF_LIFE.0));
        assert!(start.abs_diff(2 * later) <= 2, "{start} {later}");
        let quarter = demand.milli_at(Mono(HALF_LIFE.0 / 4));
        // 2^(-1/4) = 0.8409.
        assert!(quarter.abs_diff(start / 10_000 * 8_409) < start / 1_000, "{start} {quarter}");
        assert_eq!(demand.milli_at(Mono(u64::MAX)), 0);
    }

    #[test]
    fn the_largest_amounts_do_not_overflow() {
        let mut demand = Demand::default();
        demand.add(Mono(5), u64::MAX);
        demand.add(Mono(5), u64::MAX);
        assert_eq!(demand.milli_at(Mono(5)), u64::MAX);
        assert_eq!(units_in(u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(units_in(1, 3), 1);
    }
}
