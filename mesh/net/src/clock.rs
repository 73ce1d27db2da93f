//! The only place that reads the operating system's clocks.
//!
//! Owns the readings. What they mean is `selvedge_base::time`'s business; waiting is tokio's.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use selvedge_base::{Mono, Now, Wall};

/// The monotonic clock's zero: the first reading of this process.
static START: OnceLock<Instant> = OnceLock::new();

/// A moment as traits of other libraries name it. Whoever implements one asks tokio for the time.
pub type SystemInstant = Instant;

/// Both clocks.
pub fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}

/// Microseconds since the first reading of this process.
#[expect(clippy::disallowed_methods, reason = "this module is where the clock is read")]
pub fn mono() -> Mono {
    let now = Instant::now();
    let start = *START.get_or_init(|| now);
    Mono(u64::try_from(now.saturating_duration_since(start).as_micros()).unwrap_or(u64::MAX))
}

/// Milliseconds since the Unix epoch; zero when the system's clock stands before it.
#[expect(clippy::disallowed_methods, reason = "this module is where the clock is read")]
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward() {
        let first = now();
        let second = now();
        assert!(second.mono >= first.mono);
        // 2025-01-01: a build older than that cannot exist.
        assert!(first.wall > Wall(1_735_689_600_000), "{:?}", first.wall);
    }
}
