//! Deadlines and stopwatches: the only place of the harness that reads a clock.
//!
//! Owns how long a test waits. Every wait in the harness takes a [`Deadline`] and ends with what
//! was waited for or an error that names it. Waits are for events; only what tells nobody when it
//! changes is looked at again and again, by [`Deadline::until`].

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// How long the suite waits for something that takes a fraction of this on an idle machine: two
/// cores shared by three nodes that each load a model still fit.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often something is looked at that tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(50);

/// A moment to give up at.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

/// Time since a moment.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Deadline {
    /// This long from now.
    pub fn after(span: Duration) -> Self {
        Self(now() + span)
    }

    /// The usual patience of the suite from now.
    pub fn patient() -> Self {
        Self::after(PATIENCE)
    }

    /// This many seconds from now.
    pub fn secs(seconds: u64) -> Self {
        Self::after(Duration::from_secs(seconds))
    }

    /// What is left, `None` when it has passed.
    pub fn left(&self) -> Option<Duration> {
        self.0.checked_duration_since(now()).filter(|left| !left.is_zero())
    }

    /// Looks again and again until there is something to see.
    ///
    /// # Errors
    /// When looking fails, or there is nothing in time.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let (never, nobody) = (Condvar::new(), Mutex::new(()));
        loop {
            if let Some(seen) = look()? {
                return Ok(seen);
            }
            ensure!(self.left().is_some(), "waiting for {what}");
            let guard = nobody.lock().unwrap_or_else(PoisonError::into_inner);
            let _passed = never.wait_timeout(guard, LOOK);
        }
    }
}

impl Stopwatch {
    /// Starts counting.
    pub fn start() -> Self {
        Self(now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.0)
    }

    /// From the other's start to this one's.
    pub fn since(&self, earlier: &Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

/// CPU time this process has used on all its threads.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

// The one reading of the monotonic clock.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
