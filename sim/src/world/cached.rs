//! The exact cache of a node: production's machine and canonical form, in the order of production's
//! shells. A chat comes here before any target is asked.
//!
//! Owns who waits for whose answer and what is collected of it. What must hold of it is
//! [`super::kept`]'s business, how a request is written [`super::body`]'s; what nodes do together
//! is in [`super::lent`] and [`super::purges`].

use std::collections::BTreeMap;

use selvedge_base::{Code, Micros, Mono, Refusal, RequestId, Stage};
use selvedge_contract::{FinishReason, Usage};
use selvedge_core::cache::{
    Cache, Key, Looked, Owner, Parts, Peers, Place, Ticket, Waits, Way, is_faithful,
};
use selvedge_core::journey::Target;
use selvedge_core::record::{Outcome, RequestRecord};
use selvedge_dialect::canon::canon;
use selvedge_proto::wire::Label;

use super::lent::Fetching;
use super::relay::Relayed;
use super::{Own, World, body};
use crate::marks::Mark;
use crate::plan::CachePlan;
use crate::watch::EventKind;

/// Bytes of one piece of an answer as it is sent: a short event of a stream.
pub(super) const PIECE_BYTES: u64 = 64;

/// The cache of one process; memory only.
pub(crate) struct CacheSide {
    pub(super) machine: Cache<Kept>,
    /// Whether answers are kept whose words were drawn by chance.
    sampled: bool,
    /// Who asks and has its answer collected, by request.
    pub(super) keepers: BTreeMap<u64, Keeper>,
    /// Who waits for another's answer, by request.
    pub(super) waiting: BTreeMap<u64, Waiting>,
    /// Whose answer is looked for at peers, by request; what these told.
    pub(super) fetching: BTreeMap<u64, Fetching>,
    pub(super) peers: Peers,
    /// What peers were told: over which connection, and the turn.
    pub(super) told: BTreeMap<usize, (u64, u64)>,
    /// Whether they are to be told soon.
    pub(super) tells: bool,
    /// Answers that were found, as the observer counts them.
    pub(super) found: u64,
}

/// What is kept of an answer: the model of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The node and the start of it in whose memory this is.
    pub(super) at: (usize, u64),
    /// The request that it was the answer to.
    pub(super) by: u64,
    /// Its pieces.
    pub(super) pieces: u32,
}

/// How an answer of before comes to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// It was kept.
    Kept,
    /// It came just now, for several; the purges that the node knew of then.
    Handed(usize),
    /// A peer gave it.
    Fetched,
}

/// Collects an answer.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) ticket: Ticket,
    /// Whether others may wait for it.
    pub(super) leads: bool,
    target: Target,
    bytes: u64,
    pieces: u32,
}

/// A request at the cache.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub(super) key: Key,
    pub(super) owner: Owner,
    pub(super) target: Target,
    waits: Waits,
}

/// A request that waits for another one's answer.
#[derive(Debug)]
pub(super) struct Waiting {
    visit: Visit,
    pub(super) ticket: Ticket,
    until: Mono,
    /// It was told what became of the question, with the answer if one came, and how many purges
    /// there had been.
    pub(super) told: Option<(Option<Kept>, usize)>,
}

impl CacheSide {
    fn new(plan: CachePlan) -> Self {
        Self {
            machine: Cache::new(plan.bounds()),
            sampled: plan.sampled,
            keepers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            fetching: BTreeMap::new(),
            peers: Peers::new(),
            told: BTreeMap::new(),
            tells: false,
            found: 0,
        }
    }
}

impl World<'_> {
    /// A process starts with nothing kept.
    pub(super) fn boot_cache(&mut self, node: usize) {
        let side = self.plan.options.cache.map(|plan| Box::new(CacheSide::new(plan)));
        self.nodes[node].memory.cache = side;
    }

    pub(super) fn cache(&mut self, node: usize) -> Option<&mut CacheSide> {
        self.nodes[node].memory.cache.as_deref_mut()
    }

    /// A chat was let in: what is kept is looked at before anything is asked.
    pub(super) fn at_cache(&mut self, node: usize, request: u64) {
        let Some(side) = &self.nodes[node].memory.cache else {
            return self.ask_targets(node, request);
        };
        let sampled = side.sampled;
        if self.barred(node, request).is_some() {
            return self.ask_targets(node, request);
        }
        let written = body::written(
            &self.requests[request as usize],
            &self.plan.workload.clients[self.requests[request as usize].group],
        );
        let Ok(canon) = canon(written.body.as_bytes(), written.knobs) else {
            return self.ask_targets(node, request);
        };
        let way = written.wish.way(canon.sampled && !sampled);
        if let Way::Beside(_) = way {
            self.hit(Mark::CacheBeside);
            return self.ask_targets(node, request);
        }
        let first = self.aim(node, request).targets.into_iter().next();
        let account = self.accounts[self.requests[request as usize].group].clone();
        let (Some((target, _)), Some(account)) = (first, account) else {
            return self.ask_targets(node, request);
        };
        let limited = self.counts(node, request, |_| true);
        let truth = &self.requests[request as usize];
        let client = &self.plan.workload.clients[truth.group];
        let key = Key::of(&Parts {
            tenant: client.account.split('/').next().unwrap_or_default(),
            account: &account,
            dialect: written.dialect,
            label: truth.label,
            target: &target,
            place: self.place_of(&target),
            limited,
            keyed: true,
            request: &canon.form,
        });
        let (came, whole) = (self.now.0, truth.deadline_at.since(self.now.0));
        let label = truth.label.unwrap_or(Label::Anywhere);
        let owner = Owner { account, model: client.asks.clone().unwrap_or_default(), label };
        self.note_question(node, request, &written, (&target, limited));
        let visit = Visit { key, owner, target, waits: Waits::new(came, whole) };
        match way {
            Way::Beside(_) => {}
            Way::Look => self.look_up(node, request, visit),
            Way::Anew => {
                let asked = |side: &mut CacheSide| side.machine.ask_anew(visit.key, &visit.owner);
                if let Some(ticket) = self.cache(node).and_then(asked) {
                    self.note_asked_at_cache(request);
                    self.collect(node, request, visit.target, (ticket, false));
                }
                self.hit(Mark::CacheBeside);
                self.ask_targets(node, request);
            }
            Way::Find(_) => self.take_or_pass(node, request, &visit, written.wish.only_cached),
        }
    }

    /// What stands behind a target's name: the same at every node here.
    fn place_of(&self, target: &Target) -> Place<'_> {
        let Target::Provider { provider, .. } = target else { return Place::Unknown };
        self.specs.iter().find(|spec| spec.name == *provider).map_or(Place::Unknown, Place::At)
    }

    /// Takes what is kept, waits for who asks the same, or asks.
    fn look_up(&mut self, node: usize, request: u64, mut visit: Visit) {
        let now = self.now.0;
        let Some(until) = visit.waits.again() else {
            self.hit(Mark::CacheGaveUp);
            return self.ask_targets(node, request);
        };
        let Some(side) = self.cache(node) else { return };
        match side.machine.look(now, visit.key, &visit.owner) {
            Looked::Hit { answer, .. } => {
                side.found += 1;
                self.give_again(node, request, answer, Given::Kept);
            }
            Looked::Lead(ticket) => {
                self.audit_lead(node, request);
                self.note_asked_at_cache(request);
                if self.look_at_peers(node, request, &visit, ticket) {
                    return;
                }
                self.collect(node, request, visit.target, (ticket, true));
                self.ask_targets(node, request);
            }
            Looked::Follow(ticket) => {
                side.waiting.insert(request, Waiting { visit, ticket, until, told: None });
                self.record("waits", [node, node], &request.to_be_bytes());
                self.later(node, until, Own::CacheWaited { request });
            }
            Looked::Full => self.ask_targets(node, request),
        }
    }

    /// Takes what is kept; if nothing is, asks, or is told so.
    fn take_or_pass(&mut self, node: usize, request: u64, visit: &Visit, only_kept: bool) {
        let now = self.now.0;
        let Some(side) = self.cache(node) else { return };
        let found = side.machine.find(now, &visit.key);
        side.found += u64::from(found.is_some());
        match found {
            Some((kept, _)) => self.give_again(node, request, kept, Given::Kept),
            None if only_kept => {
                self.hit(Mark::CacheOnlyKept);
                let message = "no answer to this request is kept";
                let refusal = Refusal::client(Stage::Route, Code::InvalidRequest, message);
                self.tell_failure(node, request, &refusal, true);
            }
            None => {
                self.hit(Mark::CacheBeside);
                self.ask_targets(node, request);
            }
        }
    }

    /// The answer of a request that is asked next may be kept.
    pub(super) fn collect(
        &mut self,
        node: usize,
        request: u64,
        target: Target,
        (ticket, leads): (Ticket, bool),
    ) {
        self.record("leads", [node, usize::from(leads)], &request.to_be_bytes());
        let keeper = Keeper { ticket, leads, target, bytes: 0, pieces: 0 };
        if let Some(side) = self.cache(node) {
            side.keepers.insert(request, keeper);
        }
    }

    /// A piece of an answer goes to its caller.
    pub(super) fn collect_piece(&mut self, node: usize, request: u64) {
        let Some(side) = self.cache(node) else { return };
        let most = side.machine.bounds().entry_bytes;
        let Some(keeper) = side.keepers.get_mut(&request) else { return };
        keeper.pieces += 1;
        keeper.bytes += PIECE_BYTES;
        if keeper.bytes > most {
            self.hit(Mark::CacheTooLarge);
            self.spoil(node, request);
        }
    }

    /// A request that may have been collected is over.
    pub(super) fn collected(&mut self, node: usize, request: u64, relayed: &Relayed) {
        let Some(side) = self.cache(node) else { return };
        let Some(keeper) = side.keepers.get(&request) else { return };
        let target = keeper.target.clone();
        if !relayed.answered {
            return self.spoil(node, request);
        }
        if !is_faithful(&self.record_of(request, relayed), &target) {
            self.hit(Mark::CacheUnfaithful);
            return self.spoil(node, request);
        }
        let (now, at) = (self.now.0, (node, self.nodes[node].starts));
        let Some(side) = self.cache(node) else { return };
        let Some(keeper) = side.keepers.remove(&request) else { return };
        let kept = Kept { at, by: request, pieces: keeper.pieces };
        let purged = !side.machine.is_open(keeper.ticket);
        let good = side.machine.answered(now, keeper.ticket, kept, keeper.bytes);
        if purged {
            self.hit(Mark::CachePurgedUnderWay);
        }
        if good {
            self.record("kept", [node, node], &request.to_be_bytes());
            self.note_kept(request);
            self.has_more_to_tell(node);
        }
        self.tell_waiting(node, keeper.ticket, good.then_some(kept));
    }

    /// What production keeps as the record of a request that is over, as far as it says whether
    /// the answer is kept.
    fn record_of(&self, request: u64, relayed: &Relayed) -> RequestRecord {
        let legs = relayed.journey.legs().to_vec();
        let paid = relayed.journey.target().is_some_and(Target::is_paid);
        let client = &self.plan.workload.clients[self.requests[request as usize].group];
        match relayed.in_mesh.as_deref() {
            Some(known) if !paid => RequestRecord { legs, ..known.clone() },
            known => RequestRecord {
                id: RequestId(u128::from(request)),
                model: client.asks.clone().unwrap_or_default(),
                downgraded_to: None,
                tenant: client.account.clone(),
                legs,
                attempts: known.map(|known| known.attempts.clone()).unwrap_or_default(),
                outcome: Outcome::Finished { reason: FinishReason::Stop, usage: Usage::default() },
                took: Micros::ZERO,
                first_token: None,
                longest_gap: None,
                saving: None,
            },
        }
    }

    /// What comes is not kept: who waits for it looks again.
    fn spoil(&mut self, node: usize, request: u64) {
        let Some(side) = self.cache(node) else { return };
        let Some(keeper) = side.keepers.remove(&request) else { return };
        side.machine.ended(keeper.ticket);
        self.tell_waiting(node, keeper.ticket, None);
    }

    /// Tells who waits for a question what became of it.
    pub(super) fn tell_waiting(&mut self, node: usize, ticket: Ticket, came: Option<Kept>) {
        let purges = self.learned[node].len();
        let Some(side) = self.cache(node) else { return };
        let mut told = Vec::new();
        for (request, waiting) in &mut side.waiting {
            if waiting.ticket == ticket && waiting.told.is_none() {
                waiting.told = Some((came, purges));
                told.push(*request);
            }
        }
        for request in told {
            self.later(node, self.now.0, Own::CacheTold { request });
        }
    }

    /// A request that waited hears what became of the question.
    pub(super) fn told_by_cache(&mut self, node: usize, request: u64) {
        let Some(side) = self.cache(node) else { return };
        let Some(waiting) = side.waiting.remove(&request) else { return };
        if self.barred(node, request).is_some() {
            return self.ask_targets(node, request);
        }
        match waiting.told {
            Some((Some(kept), purges)) => {
                self.give_again(node, request, kept, Given::Handed(purges));
            }
            Some((None, _)) | None => {
                self.look_up(node, request, waiting.visit);
                let leads =
                    self.cache(node).is_some_and(|side| side.keepers.contains_key(&request));
                if leads {
                    self.hit(Mark::CacheTakenOver);
                }
            }
        }
    }

    /// A request may have waited for long enough.
    pub(super) fn waited_at_cache(&mut self, node: usize, request: u64) {
        let now = self.now.0;
        let Some(side) = self.cache(node) else { return };
        let due = |waiting: &Waiting| waiting.until <= now && waiting.told.is_none();
        if !side.waiting.get(&request).is_some_and(due) {
            return;
        }
        side.waiting.remove(&request);
        self.hit(Mark::CacheWaitedEnough);
        self.ask_targets(node, request);
    }

    /// The caller of a request that waits hangs up; whether there was one.
    pub(super) fn waiter_left(&mut self, node: usize, request: u64) -> bool {
        let left = self.cache(node).and_then(|side| side.waiting.remove(&request));
        if left.is_none() && !self.looker_left(node, request) {
            return false;
        }
        self.hit(Mark::CallerLeft);
        self.hit(Mark::CacheWaiterLeft);
        self.tally.left += 1;
        self.requests[request as usize].ends += 1;
        self.show_request(EventKind::RequestLeft, (node, None), (request, None), String::new);
        self.close_request(node, request);
        true
    }

    /// An answer of before is the answer.
    pub(super) fn give_again(&mut self, node: usize, request: u64, kept: Kept, how: Given) {
        self.audit_given(node, request, kept, how);
        self.hit(if let Given::Handed(_) = how { Mark::CacheShared } else { Mark::CacheHit });
        self.record("again", [node, node], &request.to_be_bytes());
        self.audit_key(node, request, false);
        self.audit_late(node, request);
        let truth = &mut self.requests[request as usize];
        (truth.ends, truth.finished) = (truth.ends + 1, true);
        truth.given_again = true;
        self.tally.given_again += 1;
        self.finished_at(node);
        let (kind, who) = (EventKind::RequestFinished, (node, None));
        self.show_request(kind, who, (request, None), || format!("as request {}", kept.by));
        self.close_request(node, request);
        self.audit_settled(node, request);
    }

    /// The process died, and what it kept with it.
    pub(super) fn lose_cache(&mut self, node: usize) {
        let Some(side) = self.nodes[node].memory.cache.take() else { return };
        if !side.machine.is_empty() || !side.waiting.is_empty() {
            self.hit(Mark::CacheLost);
        }
        for request in side.waiting.into_keys().chain(side.fetching.into_keys()) {
            self.tally.lost += 1;
            self.requests[request as usize].is_over = true;
            self.hit(Mark::IngestDied);
            let who = (node, None);
            self.show_request(EventKind::RequestLost, who, (request, None), String::new);
        }
    }
}
