//! The exact cache on the way of a chat: looked at before targets are asked and before anything is
//! reserved, filled when an answer came whole and good.
//!
//! Owns the bytes kept and the waiting for an answer that somebody else asked for. What is kept,
//! for how long and who asks is decided by [`selvedge_core::cache`]; what a body says by its
//! dialect.
//!
//! An answer from here costs no money and counts no tokens: nobody made any, and a budget that
//! counted them would stop a caller who takes nothing from anybody. It has a record all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use selvedge_base::{Micros, RequestId};
use selvedge_contract::{FinishReason, Usage};
pub use selvedge_core::cache::Wish;
use selvedge_core::cache::{
    Bounds, Cache, Counts, Key, Looked, Owner, Parts, Scope, Ticket, Waits, Way, is_faithful,
};
use selvedge_core::journey::{Leg, Target};
use selvedge_core::record::{Outcome, RequestRecord};
use selvedge_dialect::canon::{Knobs, canon};
use selvedge_net::clock;
use tokio::sync::watch;

use super::{ChatCall, aim};
use crate::config::CacheConfig;
use crate::gateway::Gateway;
use crate::shared::Shared;

/// A chat as the cache has to know it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// How the client speaks.
    pub dialect: &'static str,
    /// Where that says how words are chosen.
    pub knobs: Knobs,
    /// The body as it came.
    pub body: &'a [u8],
    /// What the caller says about the cache.
    pub wish: Wish,
}

/// An answer as it was sent.
#[derive(Debug)]
pub struct Kept {
    /// All its bytes.
    pub body: Bytes,
    /// What they are.
    pub content_type: &'static str,
}

/// What the cache says to a chat.
pub enum Cached {
    /// This is the answer.
    Hit {
        /// Its bytes.
        kept: Arc<Kept>,
        /// How long they were kept.
        age: Micros,
        /// Whether it came just now, for somebody who asked the same.
        shared: bool,
    },
    /// Ask; the answer may be kept.
    Miss(Keeper),
    /// Ask: the cache was not looked at, for this reason, or no answer may be kept.
    Bypass(&'static str, Option<Keeper>),
}

/// What people see of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheView {
    /// Answers kept.
    pub entries: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What was counted since the start.
    pub counts: Counts,
    /// How much is kept.
    pub bounds: Bounds,
}

/// The cache, and who waits at it.
pub(crate) struct CacheLine {
    inner: Mutex<Inner>,
    sampled: bool,
}

struct Inner {
    machine: Cache<Arc<Kept>>,
    /// Where those wait who follow a question. One that closes without an answer sends them back.
    halls: BTreeMap<Ticket, watch::Sender<Option<Arc<Kept>>>>,
}

/// What a request found.
enum Door {
    Hit(Arc<Kept>, Micros),
    Lead(Ticket),
    Wait(watch::Receiver<Option<Arc<Kept>>>),
    Full,
}

impl CacheLine {
    pub(crate) fn new(config: CacheConfig) -> Self {
        let inner = Inner { machine: Cache::new(config.bounds), halls: BTreeMap::new() };
        Self { inner: Mutex::new(inner), sampled: config.sampled }
    }

    fn look(&self, key: Key, owner: &Owner) -> Door {
        let mut inner = self.inner.lock();
        match inner.machine.look(clock::mono(), key, owner) {
            Looked::Hit { answer, age } => Door::Hit(answer, age),
            Looked::Lead(ticket) => Door::Lead(ticket),
            Looked::Follow(ticket) => {
                let hall = inner.halls.entry(ticket).or_insert_with(|| watch::Sender::new(None));
                Door::Wait(hall.subscribe())
            }
            Looked::Full => Door::Full,
        }
    }

    fn answered(&self, ticket: Ticket, kept: Kept) {
        let kept = Arc::new(kept);
        let bytes = kept.body.len() as u64;
        let mut inner = self.inner.lock();
        let good = inner.machine.answered(clock::mono(), ticket, Arc::clone(&kept), bytes);
        if let Some(hall) = inner.halls.remove(&ticket)
            && good
        {
            hall.send_replace(Some(kept));
        }
    }

    fn ended(&self, ticket: Ticket) {
        let mut inner = self.inner.lock();
        inner.machine.ended(ticket);
        inner.halls.remove(&ticket);
    }

    fn purge(&self, scope: &Scope) -> u64 {
        let mut inner = self.inner.lock();
        let purged = inner.machine.purge(scope);
        let Inner { machine, halls } = &mut *inner;
        halls.retain(|ticket, _| machine.is_open(*ticket));
        purged
    }

    fn view(&self) -> CacheView {
        let mut inner = self.inner.lock();
        inner.machine.expire(clock::mono());
        let machine = &inner.machine;
        CacheView {
            entries: machine.len() as u64,
            bytes: machine.bytes(),
            counts: machine.counts(),
            bounds: *machine.bounds(),
        }
    }
}

impl Gateway {
    /// Whether answers are kept here.
    pub fn caches(&self) -> bool {
        self.shared.cache.is_some()
    }

    /// What is kept, if anything is.
    pub fn cache_view(&self) -> Option<CacheView> {
        self.shared.cache.as_ref().map(CacheLine::view)
    }

    /// Removes what is kept in a scope, and what is being answered in it will not be kept. How many
    /// answers were kept; none where there is no cache.
    pub fn purge_cache(&self, scope: &Scope) -> Option<u64> {
        self.shared.cache.as_ref().map(|cache| cache.purge(scope))
    }

    /// What the cache says to a chat. Waits while somebody else asks the same.
    pub async fn cached(&self, call: &ChatCall, question: Question<'_>) -> Cached {
        let Some(line) = &self.shared.cache else { return Cached::Bypass("off", None) };
        let barred = || self.shared.policies.bars(&call.account, call.key.as_ref()).is_some();
        if barred() {
            return Cached::Bypass("barred", None);
        }
        let Ok(canon) = canon(question.body, question.knobs) else {
            return Cached::Bypass("unreadable", None);
        };
        let way = question.wish.way(canon.sampled && !line.sampled);
        if let Way::Beside(why) = way {
            return Cached::Bypass(why, None);
        }
        let first = aim::aim(&self.shared, call).targets.into_iter().next();
        let Some((target, _)) = first else { return Cached::Bypass("no-target", None) };
        let key = key_of(&self.shared, call, question.dialect, &target, &canon.form);
        drop(canon);
        let owner = Owner { account: call.account.clone(), model: call.asked.model().to_owned() };
        let keeper = |ticket| Keeper::new(&self.shared, ticket, call.id, target.clone());
        match way {
            Way::Anew => {
                let ticket = line.inner.lock().machine.ask_anew(key, &owner);
                return Cached::Bypass("no-cache", ticket.map(keeper));
            }
            Way::Find(why) => {
                let found = line.inner.lock().machine.find(clock::mono(), &key);
                return match found {
                    Some((kept, age)) => self.hit(call, &target, kept, age, false),
                    None => Cached::Bypass(why, None),
                };
            }
            Way::Beside(_) | Way::Look => {}
        }
        let mut waits = Waits::new(call.came, call.deadline);
        while let Some(until) = waits.again() {
            let mut hall = match line.look(key, &owner) {
                Door::Hit(kept, age) => return self.hit(call, &target, kept, age, false),
                Door::Lead(ticket) => return Cached::Miss(keeper(ticket)),
                Door::Full => return Cached::Bypass("busy", None),
                Door::Wait(hall) => hall,
            };
            let left = std::time::Duration::from_micros(until.since(clock::mono()).0);
            let came = tokio::time::timeout(left, hall.wait_for(Option::is_some)).await;
            let kept = match came {
                Ok(Ok(kept)) => kept.clone(),
                Ok(Err(_)) => None,
                Err(_) => return Cached::Bypass("slow-leader", None),
            };
            if barred() {
                return Cached::Bypass("barred", None);
            }
            if let Some(kept) = kept {
                return self.hit(call, &target, kept, Micros(0), true);
            }
        }
        Cached::Bypass("failed-leader", None)
    }

    /// Answers with what is kept, and keeps a record of that.
    fn hit(
        &self,
        call: &ChatCall,
        target: &Target,
        kept: Arc<Kept>,
        age: Micros,
        shared: bool,
    ) -> Cached {
        let why = match shared {
            true => "an equal request under way answered it",
            false => "the cache answered it",
        };
        let leg = Leg::unasked(target.clone(), why.to_owned(), None);
        self.shared.counters.finished.bump();
        let record = RequestRecord {
            id: call.id,
            model: call.asked.model().to_owned(),
            downgraded_to: None,
            tenant: call.tenant.clone(),
            legs: vec![leg],
            attempts: Vec::new(),
            outcome: Outcome::Finished { reason: FinishReason::Stop, usage: Usage::default() },
            took: clock::mono().since(call.came),
            first_token: None,
            longest_gap: None,
            saving: None,
        };
        let record = self.shared.records.keep((&call.account, call.key), record);
        if let Some(trace) = &call.trace {
            trace.recorded(&record);
        }
        Cached::Hit { kept, age, shared }
    }
}

fn key_of(
    shared: &Shared,
    call: &ChatCall,
    dialect: &'static str,
    target: &Target,
    request: &[u8],
) -> Key {
    Key::of(&Parts {
        tenant: &call.tenant,
        account: &call.account,
        dialect,
        label: call.label,
        target,
        limited: shared.policies.limits(&call.account, call.key.as_ref()),
        keyed: call.keyed,
        request,
    })
}

/// Collects an answer to keep it. Dropped before its end, it sends back who waits for it.
pub struct Keeper {
    shared: Arc<Shared>,
    /// Until it has ended.
    ticket: Option<Ticket>,
    id: RequestId,
    target: Target,
    most: usize,
    body: Vec<u8>,
}

impl Keeper {
    fn new(shared: &Arc<Shared>, ticket: Ticket, id: RequestId, target: Target) -> Self {
        let most = shared.cache.as_ref().map_or(0, |line| {
            let most = line.inner.lock().machine.bounds().entry_bytes;
            usize::try_from(most).unwrap_or(usize::MAX)
        });
        let shared = Arc::clone(shared);
        Self { shared, ticket: Some(ticket), id, target, most, body: Vec::new() }
    }

    /// Takes bytes that go to the client.
    pub fn take(&mut self, bytes: &[u8]) {
        if self.ticket.is_none() {
            return;
        }
        if self.body.len() + bytes.len() > self.most {
            return self.spoil();
        }
        self.body.extend_from_slice(bytes);
    }

    /// What comes is not to be kept.
    pub fn spoil(&mut self) {
        self.body = Vec::new();
        if let (Some(line), Some(ticket)) = (&self.shared.cache, self.ticket.take()) {
            line.ended(ticket);
        }
    }

    /// All of the answer was taken, and it is good as far as the client's side knows.
    pub fn keep(mut self, content_type: &'static str) {
        let body = Bytes::from(std::mem::take(&mut self.body));
        self.keep_whole(body, content_type);
    }

    /// The same, of an answer that came at once.
    pub fn keep_whole(mut self, body: Bytes, content_type: &'static str) {
        if !self.is_faithful() {
            return;
        }
        if let (Some(line), Some(ticket)) = (&self.shared.cache, self.ticket.take()) {
            line.answered(ticket, Kept { body, content_type });
        }
    }

    /// Whether it may be kept, by its record.
    fn is_faithful(&self) -> bool {
        // Whoever has the answer's end finds the record.
        let record = self.shared.records.find(self.id);
        record.is_some_and(|record| is_faithful(&record, &self.target))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.spoil();
    }
}
