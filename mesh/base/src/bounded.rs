//! Queues and maps that cannot grow without end.
//!
//! Owns the two collections machines may hold; a full one hands the item back instead of growing.

use std::collections::{BTreeMap, VecDeque};

use thiserror::Error;

/// The collection was full; the item that did not fit.
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

/// An ordered map of at most `limit` entries.
#[derive(Clone, Debug)]
pub struct BoundedMap<K, V> {
    entries: BTreeMap<K, V>,
    limit: usize,
}

impl<K: Ord, V> BoundedMap<K, V> {
    /// An empty map that holds at most `limit` entries.
    pub const fn new(limit: usize) -> Self {
        Self { entries: BTreeMap::new(), limit }
    }

    /// Inserts or replaces; a new key is handed back when the map is full.
    ///
    /// # Errors
    /// [`Full`] with the value when the key is new and the bound is reached.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>, Full<V>> {
        if self.entries.len() >= self.limit && !self.entries.contains_key(&key) {
            return Err(Full { item: value, limit: self.limit });
        }
        Ok(self.entries.insert(key, value))
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key)
    }

    /// Whether the key is held.
    pub fn contains_key(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Entries in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    /// Entries in key order, to change the values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut()
    }

    /// Keeps the entries the predicate approves of.
    pub fn retain(&mut self, keep: impl FnMut(&K, &mut V) -> bool) {
        self.entries.retain(keep);
    }

    /// How many entries are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
