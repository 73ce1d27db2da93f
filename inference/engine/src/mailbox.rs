//! A queue between threads that can be closed.
//!
//! Owns nothing but order and waking. It needs no bound of its own: every item is a request that
//! was admitted, or one of a handful of orders.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Items on their way to one thread.
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
    /// Somebody wants the thread to look around although nothing arrived.
    nudged: bool,
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> Self {
        let state = State { items: VecDeque::new(), closed: false, nudged: false };
        Self { state: Mutex::new(state), arrived: Condvar::new() }
    }

    /// Adds an item; hands it back when nobody reads any more.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        self.arrived.notify_one();
        Ok(())
    }

    /// How many items wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Wakes the reader.
    pub(crate) fn nudge(&self) {
        self.state.lock().nudged = true;
        self.arrived.notify_one();
    }

    /// Ends reading; items still inside are left to [`Mailbox::drain`].
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Waits for one item; `None` when closed.
    pub(crate) fn take(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            self.arrived.wait(&mut state);
        }
    }

    /// All items there are, after waiting for one or a nudge if `wait`; `None` when closed.
    pub(crate) fn take_all(&self, wait: bool) -> Option<VecDeque<T>> {
        let mut state = self.state.lock();
        while wait && !state.closed && !state.nudged && state.items.is_empty() {
            self.arrived.wait(&mut state);
        }
        state.nudged = false;
        if state.closed { None } else { Some(std::mem::take(&mut state.items)) }
    }

    /// What was not read before the close.
    pub(crate) fn drain(&self) -> VecDeque<T> {
        std::mem::take(&mut self.state.lock().items)
    }
}
