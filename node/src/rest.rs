//! What a node gives back to its machine when it has nothing to do.
//!
//! Owns the decision when that is, by the processor's time that the node takes, and the task that
//! asks for it, which runs from when the start is over. What is given back is in [`pages`]; the
//! allocator gives back what is free by itself. Deliberately knows of no request: whatever keeps a
//! node busy shows in its time.

mod pages;

use std::sync::Arc;
use std::time::Duration;

use selvedge_runtime::Run;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

/// What Linux counts the time of a process in, in microseconds: the kernel's `USER_HZ` is 100 on
/// every processor that Selvedge runs on (proc_pid_stat(5)).
const TICK_US: u64 = 10_000;

/// How often it is looked: a rest begins within three of these. Each look costs some microseconds.
const LOOK: Duration = Duration::from_millis(500);
/// Time of the processor within one look beyond which the node had something to do: two of the
/// kernel's ticks, a twenty-fifth. A linked node at rest takes less than a hundredth
/// (`docs/BENCHMARKS.md`).
const BUSY: Duration = Duration::from_millis(20);
/// Looks without work until the node rests: one alone falls between two requests of a slow client.
const QUIET: u8 = 2;

/// Whether a node rests. A pure machine: it is told what each look found.
#[derive(Debug)]
struct Rest {
    /// Looks since the last one that found work.
    quiet: u8,
    /// Whether what the last work left behind was given back.
    given: bool,
}

impl Rest {
    /// Of a node that has just started, which is work.
    fn new() -> Self {
        Self { quiet: 0, given: false }
    }

    /// The processor's time that the node took since the last look; whether it is to give back now,
    /// which it is once in each rest.
    fn look(&mut self, took: Duration) -> bool {
        if took > BUSY {
            *self = Self::new();
            return false;
        }
        self.quiet = self.quiet.saturating_add(1);
        if self.given || self.quiet < QUIET {
            return false;
        }
        self.given = true;
        true
    }
}

/// A task that gives back what is not needed whenever the node begins to rest.
pub(crate) fn watching() -> Run {
    Arc::new(|| {
        Box::pin(async {
            // The first look is at once, so that a start, which leaves more behind than most work
            // does, is given back after half a second if nothing came meanwhile. Who waits for a
            // node to come up asks at once, and finds its code in place.
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut rest = Rest::new();
            // Other systems than Linux tell nothing, and have nothing to give back.
            let Some(mut before) = cpu_time() else { return Ok(()) };
            loop {
                looks.tick().await;
                let Some(now) = cpu_time() else { return Ok(()) };
                if rest.look(now.saturating_sub(before)) {
                    give_back().await;
                }
                before = now;
            }
        })
    })
}

async fn give_back() {
    // It takes a millisecond and may wait for other threads' page faults.
    match tokio::task::spawn_blocking(pages::give_back).await {
        Ok(Ok(bytes)) => debug!(bytes, "pages of the program were given back"),
        Ok(Err(error)) => debug!(%error, "pages of the program were kept"),
        Err(error) => debug!(%error, "pages of the program were kept"),
    }
}

/// Time of the processor that this process has taken, all of its threads together.
fn cpu_time() -> Option<Duration> {
    time_of(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// The time in what the kernel tells of a process: the 14th word and the 15th, where the second one
/// is a name in parentheses that may hold anything.
fn time_of(told: &str) -> Option<Duration> {
    let (_, words) = told.rsplit_once(')')?;
    let mut words = words.split_ascii_whitespace().skip(11);
    let mut ticks = || words.next()?.parse::<u64>().ok();
    let (own, kernel) = (ticks()?, ticks()?);
    Some(Duration::from_micros(own.checked_add(kernel)?.checked_mul(TICK_US)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Duration = Duration::from_millis(30);
    const NONE: Duration = Duration::from_millis(10);

    #[test]
    fn a_node_gives_back_once_in_each_rest() {
        let mut rest = Rest::new();
        let looks = [NONE, NONE, NONE, NONE, WORK, NONE, WORK, NONE, BUSY, NONE, NONE];
        let given = looks.map(|took| rest.look(took));
        let rests = [1, 8].map(|at| given[at]);
        assert_eq!(rests, [true; 2], "{given:?}");
        assert_eq!(given.iter().filter(|given| **given).count(), 2, "{given:?}");
    }

    #[test]
    fn a_node_that_always_works_never_rests() {
        let mut rest = Rest::new();
        assert!(!(0..1_000).any(|_| rest.look(WORK)));
    }

    #[test]
    fn the_time_of_a_process_is_read_whatever_its_name() {
        let told = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20 0";
        assert_eq!(time_of(told), Some(Duration::from_millis(1_540)));
        for bad in ["", "7 (a) S 1", "7 (a) S 1 2 3 4 5 6 7 8 9 10 x 34"] {
            assert_eq!(time_of(bad), None, "{bad}");
        }
    }
}
