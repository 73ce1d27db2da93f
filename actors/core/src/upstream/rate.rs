//! How much may be used in a minute and at once.
//!
//! Owns the sliding minute and the limits' type. Providers count requests and tokens per minute,
//! each in its own way; this never lets through more than the limit in any sixty seconds, so it
//! holds under all of them.

use serde::{Deserialize, Serialize};

use selvedge_base::{Micros, Mono};

/// The span that limits are given for.
pub const MINUTE: Micros = Micros::secs(60);
/// Slices of the minute: use is forgotten between 60 and 65 seconds after it, so that a limit may
/// be used to at least twelve thirteenths.
const SLICES: u64 = 12;
/// One more is kept than the minute has: the slice that is being left still counts.
const KEPT: usize = SLICES as usize + 1;

/// What a key, or a provider as a whole, may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Requests in any minute; none: no limit.
    pub requests_per_minute: Option<u64>,
    /// Tokens of prompts and answers in any minute; none: no limit.
    pub tokens_per_minute: Option<u64>,
    /// Requests at the same time; none: no limit.
    pub concurrent: Option<u32>,
}

/// What was used in the last minute.
#[derive(Clone, Debug, Default)]
pub struct MinuteWindow {
    slices: [Slice; KEPT],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    number: u64,
    used: u64,
}

impl MinuteWindow {
    /// What was used in the minute before `now`.
    pub fn used(&self, now: Mono) -> u64 {
        let number = slice_of(now);
        let fresh = self.slices.iter().filter(|slice| is_fresh(**slice, number));
        fresh.fold(0, |sum, slice| sum.saturating_add(slice.used))
    }

    /// When `amount` more fit under `limit`: `now`, or a later moment. An amount above the limit
    /// fits when nothing else is used: refusing it for ever would help nobody.
    pub fn fits_at(&self, now: Mono, amount: u64, limit: u64) -> Mono {
        let number = slice_of(now);
        let mut used = self.used(now);
        if used == 0 || used.saturating_add(amount) <= limit {
            return now;
        }
        let mut slices: Vec<Slice> =
            self.slices.iter().copied().filter(|slice| is_fresh(*slice, number)).collect();
        slices.sort_by_key(|slice| slice.number);
        for slice in slices {
            used = used.saturating_sub(slice.used);
            if used == 0 || used.saturating_add(amount) <= limit {
                return Mono((slice.number + SLICES).saturating_mul(slice_micros()));
            }
        }
        now.plus(MINUTE)
    }

    /// Notes that `amount` was used.
    pub fn add(&mut self, now: Mono, amount: u64) {
        let number = slice_of(now);
        let slice = &mut self.slices[(number % KEPT as u64) as usize];
        if slice.number != number {
            *slice = Slice { number, used: 0 };
        }
        slice.used = slice.used.saturating_add(amount);
    }

    /// Corrects what was noted at `then` to what it really was, unless it is forgotten already.
    pub fn correct(&mut self, then: Mono, noted: u64, real: u64) {
        let number = slice_of(then);
        let slice = &mut self.slices[(number % KEPT as u64) as usize];
        if slice.number == number {
            slice.used = slice.used.saturating_sub(noted).saturating_add(real);
        }
    }
}

const fn slice_micros() -> u64 {
    MINUTE.0 / SLICES
}

const fn slice_of(now: Mono) -> u64 {
    // Zero is the mark of a slice that was never used.
    now.0 / slice_micros() + 1
}

const fn is_fresh(slice: Slice, number: u64) -> bool {
    slice.number > 0 && slice.number + KEPT as u64 > number
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever arrives when: in no sixty seconds is more let through than the limit, and who
        /// is told to come at a moment fits at that moment.
        #[test]
        fn no_minute_holds_more_than_the_limit(
            limit in 1u64..50,
            steps in prop::collection::vec((0u64..9_000_000, 1u64..8), 1..300),
        ) {
            let mut window = MinuteWindow::default();
            let mut now = Mono(0);
            let mut taken: Vec<(Mono, u64)> = Vec::new();
            for (micros, amount) in steps {
                let amount = amount.min(limit);
                now = now.plus(Micros(micros));
                let fits = window.fits_at(now, amount, limit);
                if fits > now {
                    prop_assert!(fits <= now.plus(Micros::secs(65)));
                    prop_assert_eq!(window.fits_at(fits, amount, limit), fits);
                    let before = Mono(fits.0 - 1);
                    prop_assert!(window.fits_at(before, amount, limit) > before);
                    continue;
                }
                window.add(now, amount);
                taken.push((now, amount));
                let last = taken.iter().filter(|(then, _)| now.since(*then) <= MINUTE);
                let sum: u64 = last.map(|(_, amount)| amount).sum();
                prop_assert!(sum <= limit, "{sum} of {limit}");
                prop_assert!(window.used(now) >= sum);
            }
        }
    }

    #[test]
    fn an_estimate_is_corrected() {
        let mut window = MinuteWindow::default();
        window.add(Mono(0), 500);
        window.correct(Mono(0), 500, 20);
        assert_eq!(window.used(Mono(1)), 20);
        window.correct(Mono(0), 20, 900);
        assert_eq!(window.used(Mono(1)), 900);
    }

    #[test]
    fn more_than_the_limit_fits_alone() {
        let mut window = MinuteWindow::default();
        assert_eq!(window.fits_at(Mono(5), 900, 100), Mono(5));
        window.add(Mono(5), 900);
        assert_eq!(window.fits_at(Mono(5), 1, 100), Mono(65_000_000));
    }
}
