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
use selvedge_base::{Micros, Mono, Refusal, RequestId};
use selvedge_contract::{FinishReason, Usage};
pub use selvedge_core::cache::Wish;
use selvedge_core::cache::{
    Bounds, Cache, Counts, Dated, Key, Lent, Looked, Owner, Parts, Peers, Place, Scope, Ticket,
    Waits, Way, is_faithful,
};
use selvedge_core::journey::{Leg, Target};
use selvedge_core::record::{Outcome, RequestRecord};
use selvedge_dialect::canon::{Knobs, canon};
use selvedge_net::clock;
use selvedge_proto::answers::{Ask, KeptInBrief, Missing};
use selvedge_proto::policy::{AccountPath, KeyId, LOCAL_ACCOUNT};
use selvedge_proto::wire::Label;
use tokio::sync::watch;

use super::fetch::Found;
use super::{ChatCall, EmbedCall, aim};
use crate::answers::{self, Purged, Purges};
use crate::config::CacheConfig;
use crate::gateway::{Call, Gateway};
use crate::shared::Shared;
use crate::trace::Trace;

/// A request as the cache has to know it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// How the client speaks.
    pub dialect: &'static str,
    /// Where that says how words are chosen; none where none are.
    pub knobs: Option<Knobs>,
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

/// What the cache says to a request.
pub enum Cached {
    /// This is the answer.
    Hit {
        /// Its bytes.
        kept: Arc<Kept>,
        /// How long they were kept.
        age: Micros,
        /// Whether it came just now, for somebody who asked the same.
        shared: bool,
        /// The peer that kept it, if it was not this node.
        from: Option<String>,
    },
    /// Ask; the answer may be kept. Why there is none, where more was looked at than this node.
    Miss(Option<&'static str>, Keeper),
    /// Ask: the cache was not looked at, for this reason, or no answer may be kept.
    Bypass(&'static str, Option<Keeper>),
}

/// What people see of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheView {
    /// Answers kept.
    pub entries: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What was counted since the start.
    pub counts: Counts,
    /// How much is kept.
    pub bounds: Bounds,
    /// Peers that told what they keep, by name, and how many answers.
    pub peers: BTreeMap<String, u64>,
}

/// Who asks, and what the answer depends on beside the body.
struct Caller<'a> {
    id: RequestId,
    tenant: &'a str,
    account: &'a AccountPath,
    key: Option<&'a KeyId>,
    keyed: bool,
    label: Option<Label>,
    came: Mono,
    deadline: Micros,
    trace: Option<&'a Arc<Trace>>,
    model: &'a str,
}

/// The cache, and who waits at it.
pub(crate) struct CacheLine {
    inner: Mutex<Inner>,
    /// What peers keep. Never locked while `inner` is waited for.
    pub(crate) peers: Mutex<Peers>,
    /// Bytes of the largest answer kept.
    pub(super) entry_bytes: u64,
    sampled: bool,
}

struct Inner {
    machine: Cache<Arc<Kept>>,
    /// Where those wait who follow a question. One that closes without an answer sends them back.
    halls: BTreeMap<Ticket, watch::Sender<Come>>,
}

/// What came for those who wait, and how old it is.
type Come = Option<(Arc<Kept>, Micros)>;

/// What a request found.
enum Door {
    Hit(Arc<Kept>, Micros),
    Lead(Ticket),
    Wait(watch::Receiver<Come>),
    Full,
}

impl CacheLine {
    pub(crate) fn new(config: CacheConfig) -> Self {
        let inner = Inner { machine: Cache::new(config.bounds), halls: BTreeMap::new() };
        let entry_bytes = config.bounds.entry_bytes;
        let (inner, peers) = (Mutex::new(inner), Mutex::default());
        Self { inner, peers, entry_bytes, sampled: config.sampled }
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
            hall.send_replace(Some((kept, Micros::ZERO)));
        }
    }

    fn ended(&self, ticket: Ticket) {
        let mut inner = self.inner.lock();
        inner.machine.ended(ticket);
        inner.halls.remove(&ticket);
    }

    /// A peer gave an answer to a question; how old it is, if it may be given.
    pub(super) fn fetched(
        &self,
        ticket: Ticket,
        kept: Kept,
        dated: Dated,
    ) -> Option<(Arc<Kept>, Micros)> {
        let kept = Arc::new(kept);
        let answer = (Arc::clone(&kept), kept.body.len() as u64);
        let mut inner = self.inner.lock();
        let age = inner.machine.fetched(clock::mono(), ticket, answer, dated)?;
        if let Some(hall) = inner.halls.remove(&ticket) {
            hall.send_replace(Some((Arc::clone(&kept), age)));
        }
        Some((kept, age))
    }

    /// A peer asks for an answer. What is known of purges is looked at with what is kept.
    pub(crate) fn lend(
        &self,
        ask: &Ask,
        same_site: bool,
        purges: &Purges,
    ) -> Result<Lent<Arc<Kept>>, Missing> {
        let mut inner = self.inner.lock();
        inner.machine.lend(clock::mono(), (ask, same_site), purges.print())
    }

    /// Removes what scopes reach, and has it `known` before anybody looks again.
    pub(crate) fn purge(&self, scopes: &[Scope], known: impl FnOnce()) -> u64 {
        let mut inner = self.inner.lock();
        let purged = inner.machine.purge(scopes);
        let Inner { machine, halls } = &mut *inner;
        halls.retain(|ticket, _| machine.is_open(*ticket));
        known();
        purged
    }

    /// Changes when there is more to tell peers.
    pub(crate) fn turn(&self) -> u64 {
        self.inner.lock().machine.turn()
    }

    /// What peers may know of what is kept.
    pub(crate) fn in_brief(&self, start: u64, same_site: bool) -> KeptInBrief {
        self.inner.lock().machine.in_brief(start, same_site)
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
            peers: BTreeMap::new(),
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
        let line = self.shared.cache.as_ref()?;
        let view = self.shared.view.load();
        let peers = line.peers.lock();
        let peers = peers.told().map(|(node, answers)| (view.name_of(&node), answers)).collect();
        Some(CacheView { peers, ..line.view() })
    }

    /// Removes what is kept in a scope in the whole mesh, and what is being answered in it will not
    /// be kept. Done here when it returns, and at the peers that it counts; others do it when they
    /// are back.
    ///
    /// # Errors
    /// When the scope cannot be told, or the purge is not on the disk.
    pub async fn purge_cache(&self, scope: Scope) -> Result<Purged, Refusal> {
        answers::purge(&self.shared, scope).await
    }

    /// What the cache says to a chat. Waits while somebody else asks the same.
    pub async fn cached(&self, call: &ChatCall, question: Question<'_>) -> Cached {
        let caller = Caller {
            id: call.id,
            tenant: &call.tenant,
            account: &call.account,
            key: call.key.as_ref(),
            keyed: call.keyed,
            label: call.label,
            came: call.came,
            deadline: call.deadline,
            trace: call.trace.as_ref(),
            model: call.asked.model(),
        };
        let first = || aim::aim(&self.shared, call).targets.into_iter().next();
        self.visit(caller, question, || first().map(|(target, _)| target)).await
    }

    /// What the cache says to a request for embeddings.
    pub async fn cached_embeddings(&self, call: &EmbedCall, question: Question<'_>) -> Cached {
        let caller = Caller {
            id: call.id,
            tenant: &call.tenant,
            account: &call.account,
            key: call.key.as_ref(),
            keyed: call.keyed,
            label: call.label,
            came: clock::mono(),
            deadline: call.deadline,
            trace: call.trace.as_ref(),
            model: &call.request.model,
        };
        self.visit(caller, question, || super::embed::first(&self.shared, call)).await
    }

    /// What the cache says to a request that a model of the mesh answers by itself, without a
    /// route.
    pub async fn cached_in_mesh(&self, call: &Call, question: Question<'_>) -> Cached {
        let caller = Caller {
            id: call.id,
            tenant: &call.tenant,
            account: &call.account,
            key: call.key.as_ref(),
            // Money is never spent here.
            keyed: false,
            label: Some(call.label),
            came: clock::mono(),
            deadline: call.deadline,
            trace: call.trace.as_ref(),
            model: &call.model,
        };
        let has = self.shared.view.load().has_model(&call.model);
        let target = has.then(|| Target::Mesh { model: call.model.clone() });
        self.visit(caller, question, || target).await
    }

    async fn visit(
        &self,
        call: Caller<'_>,
        question: Question<'_>,
        first: impl FnOnce() -> Option<Target>,
    ) -> Cached {
        let Some(line) = &self.shared.cache else { return Cached::Bypass("off", None) };
        if self.is_barred(&call) {
            return Cached::Bypass("barred", None);
        }
        let Ok(canon) = canon(question.body, question.knobs.unwrap_or(Knobs::Top)) else {
            return Cached::Bypass("unreadable", None);
        };
        let by_chance = canon.sampled && question.knobs.is_some() && !line.sampled;
        let way = question.wish.way(by_chance);
        if let Way::Beside(why) = way {
            return Cached::Bypass(why, None);
        }
        let Some(target) = first() else { return Cached::Bypass("no-target", None) };
        let key = key_of(&self.shared, &call, question.dialect, &target, &canon.form);
        drop(canon);
        // Whoever needs no key is whoever sits at this machine: what they ask stays here.
        let local = call.account.as_str() == LOCAL_ACCOUNT;
        let label = if local { Label::Node } else { call.label.unwrap_or(Label::Anywhere) };
        let owner = Owner { account: call.account.clone(), model: call.model.to_owned(), label };
        match way {
            Way::Anew => {
                let ticket = line.inner.lock().machine.ask_anew(key, &owner);
                let keeper = |ticket| Keeper::new(&self.shared, ticket, call.id, target);
                Cached::Bypass("no-cache", ticket.map(keeper))
            }
            Way::Find(why) => {
                let found = line.inner.lock().machine.find(clock::mono(), &key);
                match found {
                    Some((kept, age)) => self.hit(&call, &target, kept, age, None),
                    None => Cached::Bypass(why, None),
                }
            }
            Way::Beside(_) | Way::Look => self.look(line, &call, key, &owner, target).await,
        }
    }

    fn is_barred(&self, call: &Caller<'_>) -> bool {
        self.shared.policies.bars(call.account, call.key).is_some()
    }

    /// Takes what is kept here, waits for who asks the same, takes what a peer keeps, or asks.
    async fn look(
        &self,
        line: &CacheLine,
        call: &Caller<'_>,
        key: Key,
        owner: &Owner,
        target: Target,
    ) -> Cached {
        let mut waits = Waits::new(call.came, call.deadline);
        while let Some(until) = waits.again() {
            let mut hall = match line.look(key, owner) {
                Door::Hit(kept, age) => return self.hit(call, &target, kept, age, None),
                Door::Lead(ticket) => {
                    return self.lead(line, call, (key, owner), target, ticket).await;
                }
                Door::Full => return Cached::Bypass("busy", None),
                Door::Wait(hall) => hall,
            };
            let left = std::time::Duration::from_micros(until.since(clock::mono()).0);
            let came = tokio::time::timeout(left, hall.wait_for(Option::is_some)).await;
            let kept = match came {
                Ok(Ok(came)) => came.clone(),
                Ok(Err(_)) => None,
                Err(_) => return Cached::Bypass("slow-leader", None),
            };
            if self.is_barred(call) {
                return Cached::Bypass("barred", None);
            }
            if let Some((kept, age)) = kept {
                return self.hit(call, &target, kept, age, Some(Via::Equal));
            }
        }
        Cached::Bypass("failed-leader", None)
    }

    /// Nobody asks yet: peers are looked at first.
    async fn lead(
        &self,
        line: &CacheLine,
        call: &Caller<'_>,
        (key, owner): (Key, &Owner),
        target: Target,
        ticket: Ticket,
    ) -> Cached {
        // From here on a caller that leaves lets another one ask.
        let keeper = Keeper::new(&self.shared, ticket, call.id, target.clone());
        let question = (&key, owner, ticket);
        match self.look_at_peers(line, question, (call.came, call.deadline)).await {
            Found::Answer(..) if self.is_barred(call) => Cached::Bypass("barred", None),
            Found::Answer(kept, age, node) => {
                let name = self.shared.view.load().name_of(&node);
                self.hit(call, &target, kept, age, Some(Via::Peer(name)))
            }
            Found::Nothing(why) => Cached::Miss(why, keeper),
        }
    }

    /// Answers with what is kept, and keeps a record of that.
    fn hit(
        &self,
        call: &Caller<'_>,
        target: &Target,
        kept: Arc<Kept>,
        age: Micros,
        via: Option<Via>,
    ) -> Cached {
        let why = match &via {
            Some(Via::Equal) => "an equal request under way answered it".to_owned(),
            Some(Via::Peer(name)) => format!("the cache of node '{name}' answered it"),
            None => "the cache answered it".to_owned(),
        };
        let leg = Leg::unasked(target.clone(), why, None);
        self.shared.counters.finished.bump();
        let record = RequestRecord {
            id: call.id,
            model: call.model.to_owned(),
            downgraded_to: None,
            tenant: call.tenant.to_owned(),
            legs: vec![leg],
            attempts: Vec::new(),
            outcome: Outcome::Finished { reason: FinishReason::Stop, usage: Usage::default() },
            took: clock::mono().since(call.came),
            first_token: None,
            longest_gap: None,
            saving: None,
        };
        let record = self.shared.records.keep((call.account, call.key.copied()), record);
        if let Some(trace) = call.trace {
            trace.recorded(&record);
        }
        let shared = matches!(via, Some(Via::Equal));
        let from = match via {
            Some(Via::Peer(name)) => Some(name),
            Some(Via::Equal) | None => None,
        };
        Cached::Hit { kept, age, shared, from }
    }
}

/// How an answer came that this node did not keep yet.
enum Via {
    /// Somebody else asked the same.
    Equal,
    /// A peer of this name kept it.
    Peer(String),
}

fn key_of(
    shared: &Shared,
    call: &Caller<'_>,
    dialect: &'static str,
    target: &Target,
    request: &[u8],
) -> Key {
    let of = |place: Place<'_>| {
        Key::of(&Parts {
            tenant: call.tenant,
            account: call.account,
            dialect,
            label: call.label,
            target,
            place,
            limited: shared.policies.limits(call.account, call.key),
            keyed: call.keyed,
            request,
        })
    };
    match target {
        Target::Mesh { model } => {
            of(shared.view.load().file_of(model).map_or(Place::Unknown, Place::File))
        }
        Target::Provider { provider, .. } => {
            let open = shared.providers.find(provider);
            of(open.as_ref().map_or(Place::Unknown, |open| Place::At(open.spec())))
        }
    }
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
