//! Time for the benchmark: the only place of this package that reads a clock.

use std::thread;
use std::time::{Duration, Instant};

/// The monotonic clock.
#[allow(clippy::disallowed_methods, reason = "the one reading of the monotonic clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Asks `ready` every `step` until it says something or `limit` has passed.
pub fn poll<T>(limit: Duration, step: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = now();
    loop {
        if let Some(found) = ready() {
            return Some(found);
        }
        if begun.elapsed() >= limit {
            return None;
        }
        pause(step);
    }
}

/// Lets this long pass.
pub fn pause(span: Duration) {
    let until = now() + span;
    while let Some(left) = until.checked_duration_since(now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
