//! Windows of the calendar in UTC: seconds, minutes, hours, days and months since 1970.
//!
//! Owns the arithmetic, in integers only. Days become dates by the algorithm of Howard Hinnant
//! ("chrono-compatible low-level date algorithms", 2013), which counts years from March so that
//! the leap day is the last one. Leap seconds do not exist here, as in Unix time.

use selvedge_base::Wall;
use serde::{Deserialize, Serialize};

/// [`Wall`] counts milliseconds.
const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Days from 0000-03-01, where the algorithm counts from, to 1970-01-01.
const DAYS_TO_EPOCH: u64 = 719_468;
/// Days in 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;
/// Later months begin after the last moment [`Wall`] can name.
const LAST_MONTH: u64 = u64::MAX / (28 * DAY_MS);

/// How long a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Period {
    /// One second; for rates only.
    Second,
    /// One minute.
    Minute,
    /// One hour.
    Hour,
    /// One day in UTC.
    Day,
    /// One month in UTC.
    Month,
}

impl Period {
    /// The window that contains `wall`, counted from the one that contains 1970-01-01.
    pub const fn window(self, wall: Wall) -> u64 {
        match self {
            Self::Second => wall.0 / SECOND_MS,
            Self::Minute => wall.0 / MINUTE_MS,
            Self::Hour => wall.0 / HOUR_MS,
            Self::Day => wall.0 / DAY_MS,
            Self::Month => month_of(wall.0 / DAY_MS),
        }
    }

    /// When a window begins; the end of time for windows that [`Wall`] cannot name.
    pub const fn start(self, window: u64) -> Wall {
        Wall(match self {
            Self::Second => window.saturating_mul(SECOND_MS),
            Self::Minute => window.saturating_mul(MINUTE_MS),
            Self::Hour => window.saturating_mul(HOUR_MS),
            Self::Day => window.saturating_mul(DAY_MS),
            Self::Month => first_day(window).saturating_mul(DAY_MS),
        })
    }

    /// When a window ends, which is when the next one begins.
    pub const fn end(self, window: u64) -> Wall {
        self.start(window.saturating_add(1))
    }

    /// When the window that contains `wall` began.
    pub const fn start_at(self, wall: Wall) -> Wall {
        self.start(self.window(wall))
    }

    /// The name people write after a slash.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// The month a day lies in; both counted from January 1970.
const fn month_of(day: u64) -> u64 {
    let shifted = day + DAYS_TO_EPOCH;
    let day_of_era = shifted % ERA_DAYS;
    let leaps = day_of_era / 1_460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March: 0 to 11, of 153 days every five.
    let month = (5 * day_of_year + 2) / 153;
    let year = shifted / ERA_DAYS * 400 + year_of_era;
    year * 12 + month + 2 - 1_970 * 12
}

/// The first day of a month; both counted from January 1970.
const fn first_day(month: u64) -> u64 {
    if month > LAST_MONTH {
        return u64::MAX;
    }
    // Ten months lie between March of a year and January of the next, in which 1970 begins.
    let from_march = month + 1_969 * 12 + 10;
    let (year, month) = (from_march / 12, from_march % 12);
    let year_of_era = year % 400;
    let day_of_year = (153 * month + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    year / 400 * ERA_DAYS + day_of_era - DAYS_TO_EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first of a month by counting days one month at a time.
    fn counted(months: u64) -> u64 {
        let leap = |year: u64| {
            let by = |years| year.is_multiple_of(years);
            by(4) && (!by(100) || by(400))
        };
        (0..months)
            .map(|month| match month % 12 {
                1 => 28 + u64::from(leap(1_970 + month / 12)),
                3 | 5 | 8 | 10 => 30,
                _ => 31,
            })
            .sum()
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let mut first = 0;
        for month in 0..12 * 500 {
            assert_eq!(Period::Month.start(month).0, first * DAY_MS, "month {month}");
            first += counted(month + 1) - counted(month);
            assert_eq!(Period::Month.window(Wall(first * DAY_MS - 1)), month);
        }
        // 2026-11-22T21:50:34Z.
        let wall = Wall(1_795_384_234_000);
        assert_eq!(Period::Month.window(wall), 56 * 12 + 10);
        assert_eq!(Period::Month.start_at(wall), Wall(1_793_491_200_000));
        assert_eq!(Period::Month.end(56 * 12 + 10), Wall(1_796_083_200_000));
    }

    #[test]
    fn the_end_of_time_is_no_overflow() {
        for period in [Period::Second, Period::Minute, Period::Hour, Period::Day, Period::Month] {
            let last = period.window(Wall(u64::MAX));
            assert!(period.start(last) <= Wall(u64::MAX));
            assert_eq!(period.end(u64::MAX), Wall(u64::MAX));
        }
    }

    proptest! {
        #[test]
        fn every_moment_lies_in_its_window(ms in 0u64..253_402_300_800_000) {
            for period in
                [Period::Second, Period::Minute, Period::Hour, Period::Day, Period::Month]
            {
                let window = period.window(Wall(ms));
                prop_assert!(period.start(window) <= Wall(ms));
                prop_assert!(Wall(ms) < period.end(window));
            }
        }
    }
}
