//! How long each part of an attempt may take.
//!
//! Owns the limits, and which one an attempt waits for at the moment. Does not wait: the shell asks
//! [`Watch::wake_at`] and says when that moment has come.

use selvedge_base::{Micros, Mono};
use serde::{Deserialize, Serialize};

use super::ending::Ending;

/// The longest times of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeLimits {
    /// To a connection that is ready: name, TCP, TLS.
    pub connect: Micros,
    /// From the request to the first byte of the answer's body.
    pub first_byte: Micros,
    /// Between two pieces of the answer.
    pub between: Micros,
    /// For the whole attempt.
    pub whole: Micros,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            // Three lost SYNs on a slow line.
            connect: Micros::secs(5),
            // Reasoning models think for a minute before they say a word.
            first_byte: Micros::secs(120),
            // Providers send pings every ten or fifteen seconds where they pause.
            between: Micros::secs(30),
            // The longest answers of today at twenty tokens a second.
            whole: Micros::secs(600),
        }
    }
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No connection yet.
    Connecting,
    /// The request is sent or being sent; nothing came back.
    Waiting,
    /// Bytes of the answer came.
    Streaming,
}

/// The times of one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    limits: TimeLimits,
    started: Mono,
    /// The request's own.
    deadline: Mono,
    phase: Phase,
    since: Mono,
}

impl Watch {
    /// An attempt that begins now, for a request that must be answered at `deadline`.
    pub const fn new(limits: TimeLimits, now: Mono, deadline: Mono) -> Self {
        Self { limits, started: now, deadline, phase: Phase::Connecting, since: now }
    }

    /// The connection that was to be used is gone: another one is made.
    pub const fn disconnected(&mut self, now: Mono) {
        self.phase = Phase::Connecting;
        self.since = now;
    }

    /// The connection is ready.
    pub const fn connected(&mut self, now: Mono) {
        self.phase = Phase::Waiting;
        self.since = now;
    }

    /// A piece of the answer came.
    pub const fn progressed(&mut self, now: Mono) {
        self.phase = Phase::Streaming;
        self.since = now;
    }

    /// The reader took its time: what the provider sent meanwhile waited for us, so its pause
    /// begins now.
    pub const fn resumed(&mut self, now: Mono) {
        self.since = now;
    }

    /// Where it stands.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// When [`Watch::expired`] will next say something.
    pub fn wake_at(&self) -> Mono {
        self.phase_ends().min(self.whole_ends()).min(self.deadline)
    }

    /// How the attempt ended, if its time is over.
    pub fn expired(&self, now: Mono) -> Option<Ending> {
        // The provider's own limits first: where both are over, it was slow as well.
        if now >= self.phase_ends() {
            return Some(match self.phase {
                Phase::Connecting => Ending::Unreachable,
                Phase::Waiting => Ending::Silent,
                Phase::Streaming => Ending::Stalled,
            });
        }
        if now >= self.whole_ends() {
            return Some(Ending::Overran);
        }
        (now >= self.deadline).then_some(Ending::Expired)
    }

    /// How the attempt ended, if the request's own time is over: then nothing is taken any more,
    /// whatever lies ready, as it does for a process that was stopped.
    pub fn late(&self, now: Mono) -> Option<Ending> {
        (now >= self.deadline).then_some(Ending::Expired)
    }

    fn phase_ends(&self) -> Mono {
        self.since.plus(match self.phase {
            Phase::Connecting => self.limits.connect,
            Phase::Waiting => self.limits.first_byte,
            Phase::Streaming => self.limits.between,
        })
    }

    const fn whole_ends(&self) -> Mono {
        self.started.plus(self.limits.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TimeLimits = TimeLimits {
        connect: Micros(5),
        first_byte: Micros(50),
        between: Micros(20),
        whole: Micros(100),
    };

    #[test]
    fn each_phase_has_its_own_limit() {
        let mut watch = Watch::new(LIMITS, Mono(0), Mono(1_000));
        assert_eq!(watch.wake_at(), Mono(5));
        assert_eq!(watch.expired(Mono(4)), None);
        assert_eq!(watch.expired(Mono(5)), Some(Ending::Unreachable));
        watch.connected(Mono(3));
        assert_eq!(watch.wake_at(), Mono(53));
        assert_eq!(watch.expired(Mono(53)), Some(Ending::Silent));
        watch.progressed(Mono(50));
        assert_eq!(watch.expired(Mono(69)), None);
        assert_eq!(watch.expired(Mono(70)), Some(Ending::Stalled));
        watch.progressed(Mono(69));
        watch.progressed(Mono(85));
        assert_eq!(watch.wake_at(), Mono(100));
        assert_eq!(watch.expired(Mono(100)), Some(Ending::Overran));
    }

    #[test]
    fn a_short_deadline_is_nobodys_fault() {
        let mut watch = Watch::new(LIMITS, Mono(0), Mono(10));
        watch.connected(Mono(1));
        assert_eq!(watch.wake_at(), Mono(10));
        assert_eq!(watch.expired(Mono(10)), Some(Ending::Expired));
    }

    #[test]
    fn what_lies_ready_after_the_deadline_is_late() {
        let mut watch = Watch::new(LIMITS, Mono(0), Mono(30));
        watch.progressed(Mono(29));
        assert_eq!(watch.late(Mono(29)), None);
        assert_eq!(watch.late(Mono(30)), Some(Ending::Expired));
    }

    #[test]
    fn a_slow_reader_is_not_the_providers_pause() {
        let mut watch = Watch::new(LIMITS, Mono(0), Mono(1_000));
        watch.progressed(Mono(10));
        watch.resumed(Mono(29));
        assert_eq!(watch.expired(Mono(30)), None);
        assert_eq!(watch.wake_at(), Mono(49));
    }
}
