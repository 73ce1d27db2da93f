//! A machine, the clock it is told, and a memory of what it was told.
//!
//! Owns the one way in which a running node steps a machine: the time comes from a clock that is
//! handed in, so that a test can replay a recorded or simulated trace through the code that runs in
//! production, and a node in the field can keep its last inputs for such a replay. Decides nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use selvedge_base::{Machine, Mono, Now};
use selvedge_net::clock;

/// Tells the time to a machine.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// The clock of this computer.
pub fn system_clock() -> Clock {
    Arc::new(clock::now)
}

/// One step: when, what was told, what was ordered.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded<I, E> {
    /// The time the machine was told.
    pub at: Now,
    /// The fact.
    pub input: I,
    /// The orders, in their order.
    pub effects: Vec<E>,
}

/// Steps one machine.
pub struct Stepper<M: Machine> {
    machine: M,
    clock: Clock,
    recorder: Option<Recorder<M>>,
}

/// The last steps of a machine.
struct Recorder<M: Machine> {
    steps: VecDeque<Recorded<M::Input, M::Effect>>,
    limit: usize,
    // As functions, so that a machine whose facts cannot be copied can be stepped all the same.
    input: fn(&M::Input) -> M::Input,
    effects: fn(&[M::Effect]) -> Vec<M::Effect>,
}

impl<M: Machine> Stepper<M> {
    /// Steps `machine` by `clock`.
    pub const fn new(machine: M, clock: Clock) -> Self {
        Self { machine, clock, recorder: None }
    }

    /// The machine, to look at.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The time now, as the machine would be told it.
    pub fn now(&self) -> Now {
        (self.clock)()
    }

    /// Tells the machine a fact; its orders are appended to `effects`.
    pub fn step(&mut self, input: M::Input, effects: &mut Vec<M::Effect>) {
        let at = (self.clock)();
        let Some(recorder) = &mut self.recorder else {
            return self.machine.step(at, input, effects);
        };
        let (kept, before) = ((recorder.input)(&input), effects.len());
        self.machine.step(at, input, effects);
        let ordered = (recorder.effects)(&effects[before..]);
        if recorder.steps.len() >= recorder.limit {
            recorder.steps.pop_front();
        }
        recorder.steps.push_back(Recorded { at, input: kept, effects: ordered });
    }

    /// When the machine next wants to be told the time.
    pub fn wake_at(&self) -> Option<Mono> {
        self.machine.wake_at()
    }
}

impl<M: Machine<Input: Clone, Effect: Clone>> Stepper<M> {
    /// The same stepper, keeping its last `limit` steps; none when `limit` is 0.
    #[must_use]
    pub fn recording(mut self, limit: usize) -> Self {
        self.recorder = (limit > 0).then(|| Recorder {
            steps: VecDeque::new(),
            limit,
            input: M::Input::clone,
            effects: <[M::Effect]>::to_vec,
        });
        self
    }

    /// The steps that were kept, oldest first.
    pub fn recorded(&self) -> Vec<Recorded<M::Input, M::Effect>> {
        let steps = self.recorder.iter().flat_map(|recorder| &recorder.steps);
        steps.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use selvedge_base::{Dice, Micros, NodeId, Wall};
    use selvedge_proto::swim::{Swim, SwimInput};

    use super::*;

    /// A clock that a test winds.
    fn wound() -> (Clock, Arc<Mutex<Now>>) {
        let now = Arc::new(Mutex::new(Now { mono: Mono(1), wall: Wall(1_700_000_000_000) }));
        let hand = Arc::clone(&now);
        (Arc::new(move || *hand.lock()), now)
    }

    fn swim(clock: Clock) -> Stepper<Swim> {
        Stepper::new(Swim::new(NodeId([1; 32]), 1, Dice::from_seed([7; 32])), clock)
    }

    #[test]
    fn what_was_recorded_replays_to_the_same_orders() {
        let (clock, hand) = wound();
        let mut lived = swim(clock).recording(100);
        let mut effects = Vec::new();
        let peer = NodeId([2; 32]);
        lived.step(SwimInput::PeerIntroduced { node: peer }, &mut effects);
        lived.step(SwimInput::LinkUp { node: peer, incarnation: 3 }, &mut effects);
        for _ in 0..40 {
            let next = lived.wake_at().unwrap_or(Mono(0)).max(hand.lock().mono.plus(Micros(1)));
            hand.lock().mono = next;
            lived.step(SwimInput::Ticked, &mut effects);
        }
        let trace = lived.recorded();
        assert_eq!(trace.len(), 42);
        assert!(trace.iter().any(|step| !step.effects.is_empty()), "the peer was probed");

        let (clock, hand) = wound();
        let mut again = swim(clock);
        for step in trace {
            *hand.lock() = step.at;
            let mut ordered = Vec::new();
            again.step(step.input, &mut ordered);
            assert_eq!(ordered, step.effects);
        }
    }

    #[test]
    fn only_the_last_steps_are_kept() {
        let (clock, _) = wound();
        let mut stepper = swim(clock).recording(3);
        for n in 2..9 {
            let input = SwimInput::PeerIntroduced { node: NodeId([n; 32]) };
            stepper.step(input, &mut Vec::new());
        }
        let kept = stepper.recorded();
        assert_eq!(kept.len(), 3);
        assert_eq!(kept[0].input, SwimInput::PeerIntroduced { node: NodeId([6; 32]) });
        let (clock, _) = wound();
        let mut silent = swim(clock).recording(0);
        silent.step(SwimInput::Ticked, &mut Vec::new());
        assert!(silent.recorded().is_empty());
    }
}
