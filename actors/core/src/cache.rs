//! The exact cache: answers kept for equal requests, and one question for many that wait.
//!
//! Owns which answer is kept, for how long, what goes when there is no room, what a purge reaches,
//! who asks when several want the same, and what peers are told of it and given. Holds answers
//! without looking at them. What makes requests equal is [`key`]'s, what one request may do here is
//! [`visit`]'s, which peer is asked [`peers`]'; nothing here reads a clock.
//!
//! A purge holds: an answer whose question was asked before it is not kept, since the question is
//! no longer known when the answer comes; that goes for answers of peers, too, which are not even
//! given then. A peer that knows other purges gives and gets nothing.

pub mod key;
pub mod peers;
pub mod visit;

use std::collections::BTreeMap;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono};
use selvedge_proto::answers::{Ask, Digests, KeptInBrief, MAX_DIGESTS, Missing, Print};
use selvedge_proto::policy::AccountPath;
use selvedge_proto::wire::Label;

pub use selvedge_proto::answers::Scope;

pub use self::key::{Key, Parts, Place};
pub use self::peers::{Near, Peers};
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
    /// How far it may travel.
    pub label: Label,
}

impl Owner {
    fn is_reached(&self, scope: &Scope) -> bool {
        scope.reaches(&self.account, &self.model)
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

/// An answer that a peer may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lent<T> {
    /// What was kept.
    pub answer: T,
    /// How long ago it was made.
    pub age: Micros,
    /// How long it is good for.
    pub left: Micros,
}

/// How old an answer of a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dated {
    /// When the peer was asked: the answer grows older on its way.
    pub asked: Mono,
    /// How long ago it had been made, by the peer's word.
    pub age: Micros,
    /// How long it was good for, by the peer's word.
    pub left: Micros,
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
    /// Requests answered by what a peer kept.
    pub fetched: u64,
    /// Answers given to peers.
    pub lent: u64,
}

struct Entry<T> {
    answer: T,
    owner: Owner,
    bytes: u64,
    stored: Mono,
    /// How old it was then.
    older: Micros,
    /// Its place among those that end and among the least used.
    ends: (Mono, u64),
    used: u64,
}

/// What peers are told of what is kept. Bits of what went stay until it is made anew.
#[derive(Default)]
struct Told {
    wide: Digests,
    site: Digests,
    /// Digests put in since it was made, and those of them that went.
    put: usize,
    gone: usize,
    /// Changes with every digest that is put in.
    turn: u64,
}

/// A question under way.
struct Open {
    key: Key,
    owner: Owner,
    /// Whether others may wait for it.
    leads: bool,
    followers: u32,
}

/// The answers kept by one node.
pub struct Cache<T> {
    bounds: Bounds,
    entries: BTreeMap<Key, Entry<T>>,
    by_end: BTreeMap<(Mono, u64), Key>,
    by_use: BTreeMap<u64, Key>,
    open: BTreeMap<Ticket, Open>,
    leaders: BTreeMap<Key, Ticket>,
    bytes: u64,
    /// The last number given to a ticket, a birth or a use.
    last: u64,
    told: Told,
    counts: Counts,
}

impl<T: Clone> Cache<T> {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: BTreeMap::new(),
            by_end: BTreeMap::new(),
            by_use: BTreeMap::new(),
            open: BTreeMap::new(),
            leaders: BTreeMap::new(),
            bytes: 0,
            last: 0,
            told: Told::default(),
            counts: Counts::default(),
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
        Some((entry.answer.clone(), now.since(entry.stored).plus(entry.older)))
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
        let fresh = (now, Micros::ZERO, now.plus(self.bounds.ttl));
        self.keep((key, owner), (answer, bytes), fresh)
    }

    /// A peer gave an answer of so many bytes to a question. How old it is, if it may be given: not
    /// when the question was purged since, nor when the answer is too old for this node. It is good
    /// for as long as it was where it came from, and no longer. If it is not given the question
    /// stays open.
    pub fn fetched(
        &mut self,
        now: Mono,
        ticket: Ticket,
        (answer, bytes): (T, u64),
        dated: Dated,
    ) -> Option<Micros> {
        if !self.open.contains_key(&ticket) {
            return None;
        }
        let way = now.since(dated.asked);
        let age = dated.age.plus(way);
        let mut left = Micros(dated.left.0.checked_sub(way.0)?);
        left = left.min(Micros(self.bounds.ttl.0.checked_sub(age.0)?));
        if plant::is_on(Plant::FetchedGrowsYoung) {
            left = self.bounds.ttl;
        }
        if left == Micros::ZERO {
            return None;
        }
        let Open { key, owner, .. } = self.close(ticket)?;
        self.counts.fetched += 1;
        self.keep((key, owner), (answer, bytes), (now, age, now.plus(left)));
        Some(age)
    }

    fn keep(
        &mut self,
        (key, owner): (Key, Owner),
        (answer, bytes): (T, u64),
        (stored, older, end): (Mono, Micros, Mono),
    ) -> bool {
        self.expire(stored);
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
        let (ends, used) = ((end, self.last), self.last);
        self.by_end.insert(ends, key);
        self.by_use.insert(used, key);
        self.bytes += all;
        self.counts.stored += 1;
        let label = owner.label;
        let entry = Entry { answer, owner, bytes: all, stored, older, ends, used };
        self.entries.insert(key, entry);
        self.tell(&key, label);
        true
    }

    /// A peer wants an answer, and `ours` is what this node knows of purges.
    ///
    /// # Errors
    /// Why it gets none.
    pub fn lend(
        &mut self,
        now: Mono,
        (ask, same_site): (&Ask, bool),
        ours: Print,
    ) -> Result<Lent<T>, Missing> {
        // What one of two knows to be purged the other one may still have, or want.
        if ask.purges != ours {
            return Err(Missing::Purges);
        }
        self.expire(now);
        let entry = self.entries.get(&Key(ask.digest)).ok_or(Missing::NotKept)?;
        let stays = match entry.owner.label {
            Label::Node => true,
            Label::Site => !same_site,
            Label::Mesh | Label::Anywhere => false,
        };
        if stays && !plant::is_on(Plant::CacheLabelIgnored) {
            return Err(Missing::Stays);
        }
        if entry.bytes - OVERHEAD > ask.most_bytes {
            return Err(Missing::TooLarge);
        }
        self.counts.lent += 1;
        let age = now.since(entry.stored).plus(entry.older);
        Ok(Lent { answer: entry.answer.clone(), age, left: entry.ends.0.since(now) })
    }

    /// Changes when there is more to tell peers.
    pub const fn turn(&self) -> u64 {
        self.told.turn
    }

    /// What peers may know of what is kept, `start` being the number of this process.
    pub fn in_brief(&self, start: u64, same_site: bool) -> KeptInBrief {
        let Told { wide, site, turn, .. } = &self.told;
        let site = same_site.then(|| site.clone());
        KeptInBrief { at: (start, *turn), answers: self.len() as u64, wide: wide.clone(), site }
    }

    /// Puts a digest among those that peers are told of.
    fn tell(&mut self, key: &Key, label: Label) {
        let told = &self.told;
        let is_full = told.put >= told.wide.room() && told.wide.room() < MAX_DIGESTS;
        let is_old = told.gone > self.entries.len().max(64);
        if is_full || is_old {
            return self.tell_anew();
        }
        self.told.put(key, label);
    }

    /// Makes what peers are told from what is kept, with room for as much again.
    fn tell_anew(&mut self) {
        let room = self.entries.len().saturating_mul(2);
        let (wide, site) = (Digests::for_so_many(room), Digests::for_so_many(room));
        self.told = Told { wide, site, turn: self.told.turn + 1, ..Told::default() };
        for (key, entry) in &self.entries {
            self.told.put(key, entry.owner.label);
        }
    }

    /// A question ended without an answer that can be kept: who waits for it looks again.
    pub fn ended(&mut self, ticket: Ticket) {
        if !plant::is_on(Plant::LeaderNeverEnds) {
            self.close(ticket);
        }
    }

    /// Answers in any of these scopes are to be gone, those under way too. How many were kept.
    pub fn purge(&mut self, scopes: &[Scope]) -> u64 {
        let is_reached = |owner: &Owner| scopes.iter().any(|scope| owner.is_reached(scope));
        let reached = |entry: &Entry<T>| is_reached(&entry.owner);
        let gone: Vec<Key> =
            self.entries.iter().filter(|(_, entry)| reached(entry)).map(|(key, _)| *key).collect();
        for key in &gone {
            self.remove(key);
        }
        let open = self.open.iter().filter(|(_, open)| is_reached(&open.owner));
        let asked: Vec<Ticket> = open.map(|(ticket, _)| *ticket).collect();
        for ticket in asked.into_iter().filter(|_| !plant::is_on(Plant::PurgeLeavesOpen)) {
            self.close(ticket);
        }
        self.counts.purged += gone.len() as u64;
        if !gone.is_empty() {
            self.tell_anew();
        }
        gone.len() as u64
    }

    /// Whether a question is known: neither ended nor purged.
    pub fn is_open(&self, ticket: Ticket) -> bool {
        self.open.contains_key(&ticket)
    }

    /// Lets go of what is too old by now.
    pub fn expire(&mut self, now: Mono) {
        while let Some(((end, _), key)) = self.by_end.first_key_value()
            && now >= *end
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
        self.by_end.remove(&entry.ends);
        self.by_use.remove(&entry.used);
        self.bytes -= entry.bytes;
        self.told.gone += 1;
    }
}

impl Told {
    /// What must stay at its node is told nobody.
    fn put(&mut self, key: &Key, label: Label) {
        match label {
            Label::Node => return,
            Label::Site => self.site.put(&key.0),
            Label::Mesh | Label::Anywhere => self.wide.put(&key.0),
        }
        self.put += 1;
        self.turn += 1;
    }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
