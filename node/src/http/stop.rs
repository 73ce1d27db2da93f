//! The end of the surface: asked for by a signal or by an operator, seen by every connection.
//!
//! Owns the phases only. Who waits how long in which phase is decided where the waiting is done.

use tokio::sync::watch;

/// Asks the surface to end and tells when that was asked. Clones share the same end.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    phase: watch::Sender<Phase>,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Requests are taken.
    Serving,
    /// No new ones; those that run may finish.
    Draining,
    /// Time is up: streams end now, with an error that says so.
    Ending,
}

impl Stop {
    /// Nothing was asked yet.
    pub(crate) fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving) }
    }

    /// Asks for the end. Asking again changes nothing.
    pub(crate) fn request(&self) {
        self.advance(Phase::Draining);
    }

    /// Waits until the end was asked for.
    pub(crate) async fn requested(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Whether the end was asked for.
    pub(super) fn is_requested(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// Enters a phase, never going back.
    pub(super) fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = to.max(*phase);
            later
        });
    }

    /// Waits for a phase or a later one.
    pub(super) async fn reached(&self, phase: Phase) {
        let mut watcher = self.phase.subscribe();
        // An error means that the sender is gone; `self` holds it.
        let _ = watcher.wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_advance() {
        let stop = Stop::new();
        assert!(!stop.is_requested());
        stop.advance(Phase::Ending);
        stop.request();
        stop.reached(Phase::Ending).await;
        stop.requested().await;
        assert!(stop.is_requested());
    }
}
