//! The one queue of events, in a total order: time, then class, then sequence.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use selvedge_base::Mono;

/// What goes first among events of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Faults begin and end before anything else sees the moment.
    Fault,
    /// What arrives.
    Network,
    /// What nodes do by themselves.
    Node,
    /// What the observer looks at, after everything else.
    Check,
}

/// When an event happens.
pub(crate) type Moment = (Mono, Class, u64);

/// Events to come. The heap orders moments only; the events, which are larger, stay where they
/// are.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(Mono, Class, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    seq: u64,
}

impl<E> Queue<E> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), seq: 0 }
    }

    pub(crate) fn push(&mut self, at: Mono, class: Class, event: E) {
        self.seq += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.events[slot as usize] = Some(event);
                slot
            }
            None => {
                self.events.push(Some(event));
                (self.events.len() - 1) as u32
            }
        };
        self.heap.push(Reverse((at, class, self.seq, slot)));
    }

    pub(crate) fn pop(&mut self) -> Option<(Moment, E)> {
        let Reverse((at, class, seq, slot)) = self.heap.pop()?;
        self.free.push(slot);
        let event = self.events[slot as usize].take()?;
        Some(((at, class, seq), event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_time_then_class_then_sequence() {
        let mut queue = Queue::new();
        queue.push(Mono(2), Class::Fault, "d");
        queue.push(Mono(1), Class::Check, "c");
        queue.push(Mono(1), Class::Network, "a");
        queue.push(Mono(1), Class::Network, "b");
        let order: Vec<&str> = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
        queue.push(Mono(3), Class::Node, "e");
        assert_eq!(queue.events.len(), 4, "places are used again");
    }
}
