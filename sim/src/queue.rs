//! The one queue of events, in a total order: time, then class, then sequence.

use std::collections::BTreeMap;

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

/// Events to come.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    events: BTreeMap<Moment, E>,
    seq: u64,
}

impl<E> Queue<E> {
    pub(crate) const fn new() -> Self {
        Self { events: BTreeMap::new(), seq: 0 }
    }

    pub(crate) fn push(&mut self, at: Mono, class: Class, event: E) {
        self.seq += 1;
        self.events.insert((at, class, self.seq), event);
    }

    pub(crate) fn pop(&mut self) -> Option<(Moment, E)> {
        self.events.pop_first()
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
    }
}
