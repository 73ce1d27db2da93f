//! Runs of a job that fail: which panicked, how long to wait before the next, and when there is
//! none.
//!
//! A panic of the code around a job must not end it without a word. Each run begins from the disk,
//! so the next one may pass by what the last one stumbled over; what is on the disk itself is
//! stumbled over again. Owns the counting; whoever runs the job waits and tells people.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use selvedge_base::{Micros, Mono};
use selvedge_core::restart::{Patience, Restart};
use tokio::task::JoinError;

/// Runs that panic one soon after the other before a job is given up: with the pauses between them
/// they last some six seconds, longer than what passes by itself, and the log holds a few lines.
pub(super) const MAX_PANICS: u32 = 8;

/// Why a run failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) why: String,
    /// Whether it was a fault of the program.
    pub(super) panicked: bool,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, panicked: false }
    }
}

impl From<JoinError> for Failed {
    fn from(error: JoinError) -> Self {
        let panicked = error.is_panic();
        let why = match error.try_into_panic() {
            Ok(panic) => words(&*panic),
            Err(error) => error.to_string(),
        };
        Self { why, panicked }
    }
}

/// The runs of one job.
pub(super) struct Tries {
    restart: Restart,
    panics: u32,
}

impl Tries {
    /// The first run begins.
    pub(super) const fn new(now: Mono) -> Self {
        Self { restart: Restart::new(Patience::ACTOR, now), panics: 0 }
    }

    /// The next run begins.
    pub(super) const fn started(&mut self, now: Mono) {
        self.restart.started(now);
    }

    /// A run failed: how long to wait before the next one, or none where it is given up. What
    /// fails without a panic, as a disk does, is tried for ever: it may be mended meanwhile.
    pub(super) fn failed(&mut self, now: Mono, panicked: bool) -> Option<Micros> {
        let wait = self.restart.failed(now);
        // A run that lasted forgets what was before.
        if self.restart.failures() == 1 {
            self.panics = 0;
        }
        self.panics += u32::from(panicked);
        (self.panics < MAX_PANICS).then_some(wait)
    }
}

/// What a run comes to.
///
/// # Errors
/// What it said where it panicked.
pub(super) async fn caught<T>(run: impl Future<Output = T>) -> Result<T, Failed> {
    // Nothing of a run is used after it but what other tasks share, whose locks hold no half-made
    // state over an await; and the mailbox.
    let run = AssertUnwindSafe(run).catch_unwind().await;
    run.map_err(|panic| Failed { why: words(&*panic), panicked: true })
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("the log says where"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_run_is_its_result_and_what_it_borrowed_is_still_there() {
        let (tell, mut heard) = tokio::sync::mpsc::channel::<u8>(4);
        for word in [1, 2, 3] {
            tell.send(word).await.expect("room");
        }
        let run = async |heard: &mut tokio::sync::mpsc::Receiver<u8>, what: u8| {
            let word = heard.recv().await;
            assert!(what != 1, "stumbled over {word:?}");
            if what == 2 { Err("the disk".to_owned()) } else { Ok(word) }
        };
        let why = "it panicked: stumbled over Some(1)".to_owned();
        let panicked = Err(Failed { why, panicked: true });
        assert_eq!(caught(run(&mut heard, 1)).await, panicked);
        assert_eq!(caught(run(&mut heard, 2)).await, Ok(Err("the disk".to_owned())));
        assert_eq!(caught(run(&mut heard, 3)).await, Ok(Ok(Some(3))));
    }

    #[tokio::test]
    async fn a_panic_on_a_thread_of_its_own_is_a_panic_of_the_run() {
        let broken =
            tokio::task::spawn_blocking(|| assert!(clock_is_broken(), "round {}", 7)).await;
        let failed = broken.map_err(Failed::from);
        assert_eq!(failed, Err(Failed { why: "it panicked: round 7".to_owned(), panicked: true }));
        let ended = tokio::spawn(std::future::pending::<()>());
        ended.abort();
        assert!(!ended.await.map_err(Failed::from).expect_err("ended").panicked);
        assert!(!Failed::from("the disk".to_owned()).panicked);
    }

    const fn clock_is_broken() -> bool {
        false
    }

    #[test]
    fn who_panics_again_and_again_is_given_up_with_growing_pauses_before() {
        let mut now = Mono(0);
        let mut tries = Tries::new(now);
        let mut last = Micros(0);
        for _ in 1..MAX_PANICS {
            let wait = tries.failed(now, true).expect("another try");
            assert!(wait > last, "{wait:?} after {last:?}");
            last = wait;
            now = now.plus(wait);
            tries.started(now);
        }
        assert_eq!(tries.failed(now, true), None);
    }

    #[test]
    fn a_run_that_lasted_forgets_panics_and_other_failures_are_tried_for_ever() {
        let mut now = Mono(0);
        let mut tries = Tries::new(now);
        for _ in 0..4 * MAX_PANICS {
            now = now.plus(Patience::ACTOR.settled_after);
            assert!(tries.failed(now, true).is_some());
            tries.started(now);
        }
        for _ in 0..4 * MAX_PANICS {
            assert!(tries.failed(now, false).is_some());
            tries.started(now);
        }
    }
}
