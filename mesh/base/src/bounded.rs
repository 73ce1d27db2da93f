//! Queues that cannot grow without end.
//!
//! Owns the queue machines may hold; a full one hands the item back instead of growing.

use std::collections::VecDeque;

use thiserror::Error;

/// The queue was full; the item that did not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("full at {limit} entries")]
pub struct Full<T> {
    /// The item handed back.
    pub item: T,
    /// The bound that was reached.
    pub limit: usize,
}

/// A first-in, first-out queue of at most `limit` items.
#[derive(Clone, Debug)]
pub struct BoundedQueue<T> {
    items: VecDeque<T>,
    limit: usize,
}

impl<T> BoundedQueue<T> {
    /// An empty queue that holds at most `limit` items.
    pub const fn new(limit: usize) -> Self {
        Self { items: VecDeque::new(), limit }
    }

    /// Appends an item, or hands it back when the queue is full.
    ///
    /// # Errors
    /// [`Full`] with the item when the bound is reached.
    pub fn push(&mut self, item: T) -> Result<(), Full<T>> {
        if self.items.len() >= self.limit {
            return Err(Full { item, limit: self.limit });
        }
        self.items.push_back(item);
        Ok(())
    }

    /// Appends an item and returns the oldest one when that made room for it.
    pub fn push_evicting(&mut self, item: T) -> Option<T> {
        let evicted = if self.items.len() >= self.limit { self.items.pop_front() } else { None };
        if self.limit > 0 {
            self.items.push_back(item);
        }
        evicted
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// The items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// How many items are held.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
