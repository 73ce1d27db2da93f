//! What may be said only once something is durable.
//!
//! Every order to send waits for all that was ordered to be stored before it. That is more than
//! each needs, and leaves no case to forget.

use std::collections::VecDeque;

use super::message::{Effect, Message};
use selvedge_base::NodeId;

/// Messages that wait for a disk. When more do, further ones are dropped: all of them are said
/// again until they are answered.
const MAX_WAITING: usize = 4_096;

/// Ticks after which what is large is sent again to those that have not answered. A share of a
/// large model takes longer than one tick on a home's link; what is small is said in every tick.
pub(super) const SEND_AGAIN: usize = 5;

/// Numbers the writes and holds the messages back.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    ordered: u64,
    durable: u64,
    waiting: VecDeque<(u64, NodeId, Box<Message>)>,
}

impl Outbox {
    /// Orders a write.
    pub(super) fn store<C>(&mut self, change: C, effects: &mut Vec<Effect<C>>) {
        self.ordered += 1;
        effects.push(Effect::Store { write: self.ordered, change: Box::new(change) });
    }

    /// Sends once all that was ordered before is durable.
    pub(super) fn send<C>(&mut self, to: NodeId, message: Message, effects: &mut Vec<Effect<C>>) {
        let message = Box::new(message);
        if self.durable >= self.ordered {
            effects.push(Effect::Send { to, message });
        } else if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back((self.ordered, to, message));
        }
    }

    /// Forgets what waits and is not true any more.
    pub(super) fn retain(&mut self, is_true: impl Fn(&Message) -> bool) {
        self.waiting.retain(|(.., message)| is_true(message));
    }

    /// Writes up to this one are durable.
    pub(super) fn stored<C>(&mut self, write: u64, effects: &mut Vec<Effect<C>>) {
        self.durable = self.durable.max(write.min(self.ordered));
        while self.waiting.front().is_some_and(|(after, ..)| *after <= self.durable) {
            if let Some((_, to, message)) = self.waiting.pop_front() {
                effects.push(Effect::Send { to, message });
            }
        }
    }
}
