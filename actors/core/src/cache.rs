//! The exact cache: answers kept for equal requests, and one question for many that wait.
//!
//! Owns which answer is kept, for how long, what goes when there is no room, what a purge reaches,
//! and who asks when several want the same. Holds answers without looking at them. What makes
//! requests equal is [`key`]'s, what one request may do here is [`visit`]'s; nothing here reads a
//! clock.
//!
//! A purge holds: an answer whose question was asked before it is not kept, since the question is
//! no longer known when the answer comes.

pub mod key;
pub mod visit;

use std::collections::BTreeMap;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono};
use selvedge_proto::policy::AccountPath;

pub use self::key::{Key, Parts};
pub use self::visit::{Waits, Way, Wish, is_faithful};

/// Bytes an entry takes beside its answer: keys, the account, the model's name, nodes of three
/// maps.
pub const OVERHEAD: u64 = 512;
/// Questions under way at a time. A node answers a few hundred requests at a time; more are not
/// kept and share nothing.
const MAX_OPEN: usize = 4_096;
/// Requests that one answer was waited for by: past it they ask for themselves.
const MAX_FOLLOWERS: u32 = 1_024;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Answers.
    pub entries: usize,
    /// Bytes of all of them, [`OVERHEAD`] included.
    pub bytes: u64,
    /// Bytes of one.
    pub entry_bytes: u64,
    /// How long one is good.
    pub ttl: Micros,
}

/// Whose an answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub account: AccountPath,
    /// The model's name as it was asked for.
    pub model: String,
}

/// What a purge reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// An account and what lies below it; every account if none.
    pub account: Option<AccountPath>,
    /// A model's name; every model if none.
    pub model: Option<String>,
}

impl Scope {
    fn reaches(&self, owner: &Owner) -> bool {
        self.account.as_ref().is_none_or(|account| account.covers(&owner.account))
            && self.model.as_ref().is_none_or(|model| *model == owner.model)
    }
}

/// Names a question that was asked of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked<T> {
    /// Answer with this.
    Hit {
        /// What was kept.
        answer: T,
        /// How long ago.
        age: Micros,
    },
    /// Ask, and say how it ended under this ticket.
    Lead(Ticket),
    /// Somebody asks already: wait for what becomes of that ticket.
    Follow(Ticket),
    /// Too much is under way: ask, and keep nothing.
    Full,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests answered by what was kept.
    pub hits: u64,
    /// Requests that nothing was kept for and nobody asked.
    pub misses: u64,
    /// Requests that waited for another one's answer.
    pub coalesced: u64,
    /// Answers kept.
    pub stored: u64,
    /// Answers that went for want of room.
    pub evicted: u64,
    /// Answers that grew too old.
    pub expired: u64,
    /// Answers that were purged.
    pub purged: u64,
}

struct Entry<T> {
    answer: T,
    owner: Owner,
    bytes: u64,
    stored: Mono,
    /// Its place among the oldest and among the least used.
    born: u64,
    used: u64,
}

/// A question under way.
struct Open {
    key: Key,
    owner: Owner,
    /// Whether others may wait for it.
    leads: bool,
    followers: u32,
}

/// The answers kept by one node. All of one `ttl`, so the first kept is the first too old.
pub struct Cache<T> {
    bounds: Bounds,
    entries: BTreeMap<Key, Entry<T>>,
    by_age: BTreeMap<u64, Key>,
    by_use: BTreeMap<u64, Key>,
    open: BTreeMap<Ticket, Open>,
    leaders: BTreeMap<Key, Ticket>,
    bytes: u64,
    /// The last number given to a ticket, a birth or a use.
    last: u64,
    counts: Counts,
}

impl<T: Clone> Cache<T> {
    /// An empty one.
    pub const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: BTreeMap::new(),
            by_age: BTreeMap::new(),
            by_use: BTreeMap::new(),
            open: BTreeMap::new(),
            leaders: BTreeMap::new(),
            bytes: 0,
            last: 0,
            counts: Counts {
                hits: 0,
                misses: 0,
                coalesced: 0,
                stored: 0,
                evicted: 0,
                expired: 0,
                purged: 0,
            },
        }
    }

    /// A request came.
    pub fn look(&mut self, now: Mono, key: Key, owner: &Owner) -> Looked<T> {
        if let Some((answer, age)) = self.find(now, &key) {
            return Looked::Hit { answer, age };
        }
        let leader = self.leaders.get(&key).copied();
        if let Some(ticket) = leader
            && let Some(open) = self.open.get_mut(&ticket)
        {
            if open.followers == MAX_FOLLOWERS {
                return Looked::Full;
            }
            open.followers += 1;
            self.counts.coalesced += 1;
            return Looked::Follow(ticket);
        }
        let Some(ticket) = self.ask(key, owner, true) else { return Looked::Full };
        self.counts.misses += 1;
        Looked::Lead(ticket)
    }

    /// A request came that takes nothing but what is kept.
    pub fn find(&mut self, now: Mono, key: &Key) -> Option<(T, Micros)> {
        self.expire(now);
        let entry = self.entries.get_mut(key)?;
        self.last += 1;
        self.by_use.remove(&entry.used);
        entry.used = self.last;
        self.by_use.insert(self.last, *key);
        self.counts.hits += u64::from(!plant::is_on(Plant::CacheHitUncounted));
        Some((entry.answer.clone(), now.since(entry.stored)))
    }

    /// A request came that wants an answer of its own; what comes may be kept. None when too much
    /// is under way.
    pub fn ask_anew(&mut self, key: Key, owner: &Owner) -> Option<Ticket> {
        self.ask(key, owner, false)
    }

    fn ask(&mut self, key: Key, owner: &Owner, leads: bool) -> Option<Ticket> {
        if self.open.len() == MAX_OPEN {
            return None;
        }
        self.last += 1;
        let ticket = Ticket(self.last);
        self.open.insert(ticket, Open { key, owner: owner.clone(), leads, followers: 0 });
        if leads {
            self.leaders.insert(key, ticket);
        }
        Some(ticket)
    }

    /// A good answer of so many bytes came to its end. Whether it is kept: not when it is too large
    /// or was purged while it came.
    pub fn answered(&mut self, now: Mono, ticket: Ticket, answer: T, bytes: u64) -> bool {
        let Some(Open { key, owner, .. }) = self.close(ticket) else { return false };
        self.expire(now);
        let all = bytes.saturating_add(OVERHEAD);
        if bytes > self.bounds.entry_bytes || all > self.bounds.bytes || self.bounds.entries == 0 {
            return false;
        }
        self.remove(&key);
        while self.entries.len() >= self.bounds.entries || self.bytes + all > self.bounds.bytes {
            let unused = self.by_use.first_key_value().map(|(_, key)| *key);
            let evicts = !plant::is_on(Plant::CacheNeverEvicts);
            let Some(unused) = unused.filter(|_| evicts) else { break };
            self.remove(&unused);
            self.counts.evicted += 1;
        }
        self.last += 1;
        let (born, used) = (self.last, self.last);
        self.by_age.insert(born, key);
        self.by_use.insert(used, key);
        self.bytes += all;
        self.counts.stored += 1;
        self.entries.insert(key, Entry { answer, owner, bytes: all, stored: now, born, used });
        true
    }

    /// A question ended without an answer that can be kept: who waits for it looks again.
    pub fn ended(&mut self, ticket: Ticket) {
        if !plant::is_on(Plant::LeaderNeverEnds) {
            self.close(ticket);
        }
    }

    /// An operator wants answers gone, those under way too. How many were kept.
    pub fn purge(&mut self, scope: &Scope) -> u64 {
        let reached = |entry: &Entry<T>| scope.reaches(&entry.owner);
        let gone: Vec<Key> =
            self.entries.iter().filter(|(_, entry)| reached(entry)).map(|(key, _)| *key).collect();
        for key in &gone {
            self.remove(key);
        }
        let open = self.open.iter().filter(|(_, open)| scope.reaches(&open.owner));
        let asked: Vec<Ticket> = open.map(|(ticket, _)| *ticket).collect();
        for ticket in asked.into_iter().filter(|_| !plant::is_on(Plant::PurgeLeavesOpen)) {
            self.close(ticket);
        }
        self.counts.purged += gone.len() as u64;
        gone.len() as u64
    }

    /// Whether a question is known: neither ended nor purged.
    pub fn is_open(&self, ticket: Ticket) -> bool {
        self.open.contains_key(&ticket)
    }

    /// Lets go of what is too old by now.
    pub fn expire(&mut self, now: Mono) {
        while let Some((_, key)) = self.by_age.first_key_value()
            && let Some(entry) = self.entries.get(key)
            && now >= entry.stored.plus(self.bounds.ttl)
            && !plant::is_on(Plant::CacheNeverExpires)
        {
            let key = *key;
            self.remove(&key);
            self.counts.expired += 1;
        }
    }

    /// Answers kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of them, [`OVERHEAD`] included.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was counted.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// How much may be kept.
    pub const fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    fn close(&mut self, ticket: Ticket) -> Option<Open> {
        let open = self.open.remove(&ticket)?;
        if open.leads {
            self.leaders.remove(&open.key);
        }
        Some(open)
    }

    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.by_age.remove(&entry.born);
        self.by_use.remove(&entry.used);
        self.bytes -= entry.bytes;
    }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
