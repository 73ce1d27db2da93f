//! The contract between decisions and the world.
//!
//! Owns the trait every state machine implements. A machine takes facts in the past tense and
//! emits effects in the imperative; it is total, synchronous, bounded and deterministic. Shells
//! (actors in production, the simulator in tests) carry the effects out.

use crate::time::{Mono, Now};

/// A pure decision maker.
pub trait Machine {
    /// A fact: something that happened, in the past tense.
    type Input;
    /// An order: something the shell must do, in the imperative.
    type Effect;

    /// Takes one fact and appends the orders that follow from it, in the order to carry them out.
    fn step(&mut self, now: Now, input: Self::Input, effects: &mut Vec<Self::Effect>);

    /// When the machine next wants a tick, derived from its state, so that no timer needs
    /// cancelling. `None` means: only when something happens.
    fn wake_at(&self) -> Option<Mono>;
}
