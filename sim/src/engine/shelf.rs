//! The models of an engine that share a memory too small for all: production's account of it, and a
//! model of what carries that out.
//!
//! Owns which models are in memory, on their way there or being freed, how long that takes and
//! whether it fails, and which requests wait for it. Decides none of it: who comes, goes, waits and
//! is refused is [`Residence`]'s business, in the order in which production's shell asks it, and
//! what weights leave is divided among the models as there.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::{Code, Micros, ModelDigest, Mono, Refusal, RequestId};
use selvedge_contract::residence::{
    Decision, Eviction, MOST_WAIT, Reason, Residence, Room, Wish, divide,
};
use selvedge_contract::schedule::{Arrival, Bounds, Schedule, pages_for};
use selvedge_contract::{Answer, Claim, ModelState, Scope};

use super::{Engine, Job, Model, Owner, refusal};
use crate::plan::{MemoryPlan, ModelPlan};
use crate::stream::Stream;

/// The purpose of the streams of loads that fail, and of who asks first.
const LOADS: u64 = 14;
/// Pages that a loaded model needs beside its weights to answer at all: the longest of simulated
/// answers with its prompt.
const LEAST_PAGES: u64 = 8;
/// How often a load that waits looks again, as production's does.
const LOOKS_EVERY: Micros = Micros::secs(1);
/// How long a model rests of which a load failed, doubled each time, as production's does.
const TRIED_AGAIN_AFTER: Micros = Micros::secs(10);
const MOST_DOUBLINGS: u32 = 5;
/// A load that waited is not late before this: it looks again every second, and a moment more.
const SLACK: Micros = Micros::secs(2);

/// The models that share an engine's memory.
#[derive(Debug)]
pub(crate) struct Shelf {
    plan: MemoryPlan,
    account: Residence,
    held: Vec<Held>,
    /// Requests whose model is not in memory, and since when: by job.
    waits: BTreeMap<u64, Wait>,
    stream: Stream,
    /// Models for which requests came or ended since it was looked at.
    touched: BTreeSet<Model>,
    /// Something changed that decisions go by.
    pub(crate) is_stale: bool,
    /// When it is looked at again.
    pub(crate) tick_at: Option<Mono>,
    /// Since when nothing keeps the engine from working.
    pub(crate) awake_since: Mono,
    /// Since when more is used than there is.
    over_since: Option<Mono>,
}

/// A request whose model is not in memory.
#[derive(Debug)]
struct Wait {
    since: Mono,
    arrival: Arrival,
}

/// One of the models.
#[derive(Debug)]
struct Held {
    state: ModelState,
    /// Bytes of its weights that are really there.
    real: u64,
    /// A load is under way or waits for memory, and on which wish.
    seeking: Option<Wish>,
    /// When a load that is under way ends, and whether it fails.
    loads: Option<(Mono, bool)>,
    /// When it is freed.
    frees_at: Option<Mono>,
    /// When one that failed is tried again.
    again_at: Option<Mono>,
    failures: u32,
    /// What is set aside for its running answers.
    set_aside: u64,
}

/// What became of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Loading,
    Loaded,
    LoadFailed,
    Freed,
    /// It makes room for another. So many requests for it had not ended; these idle ones stay.
    Evicted {
        eviction: Eviction,
        work: usize,
        stay: Vec<(Model, u64)>,
        bytes: u64,
        comes: Model,
    },
    Refused(Reason),
}

impl Shelf {
    fn new(plan: &MemoryPlan, now: Mono, (seed, node, start): (u64, usize, u64)) -> Self {
        let mut account = Residence::new(plan.budget);
        for (at, model) in plan.models.iter().enumerate() {
            let one = Model::Shared(at as u8);
            account.added(one.digest(), one.name(), model.kept, 0);
        }
        let held = plan.models.iter().map(|_| Held::default()).collect();
        Self {
            plan: plan.clone(),
            account,
            held,
            waits: BTreeMap::new(),
            stream: Stream::keyed(seed, LOADS, node, start as usize),
            touched: BTreeSet::new(),
            is_stale: true,
            tick_at: None,
            awake_since: now,
            over_since: None,
        }
    }

    pub(crate) fn models(&self) -> impl Iterator<Item = Model> + use<> {
        (0..self.held.len() as u8).map(Model::Shared)
    }

    pub(crate) fn is_loading(&self) -> bool {
        self.held.iter().any(|held| held.loads.is_some())
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waits.len()
    }

    pub(crate) fn state(&self, model: Model) -> ModelState {
        place(model).and_then(|at| self.held.get(at)).map_or(ModelState::Failed, |held| held.state)
    }

    fn plan_of(&self, at: usize) -> ModelPlan {
        self.plan.models[at]
    }

    fn room(&self, at: usize) -> Room {
        let weights = self.plan_of(at).weights;
        Room { weights, beside: LEAST_PAGES * self.plan.page }
    }

    /// How many other nodes have which models in memory, as this one knows it.
    pub(crate) fn copied(&mut self, copies: &BTreeMap<ModelDigest, u32>) {
        self.account.copied(copies);
    }

    /// Lets a model be tried again whose rest is over.
    fn revive(&mut self, at: usize, now: Mono) {
        let held = &mut self.held[at];
        if held.state == ModelState::Failed && held.again_at.is_some_and(|again| now >= again) {
            (held.state, held.again_at) = (ModelState::Cold, None);
        }
    }

    /// Whether a model fits beside those that never go.
    pub(crate) fn fits(&self, model: usize) -> bool {
        let total = |at: usize| self.room(at).weights + self.room(at).beside;
        let others = (0..self.held.len()).filter(|at| *at != model && self.plan_of(*at).kept);
        others.map(total).sum::<u64>() + total(model) <= self.plan.budget
    }

    /// When there is something to do by itself.
    fn next(&self, now: Mono, waits: Option<Mono>) -> Option<Mono> {
        let loads = self.held.iter().filter_map(|held| held.loads.map(|(at, _)| at));
        let frees = self.held.iter().filter_map(|held| held.frees_at);
        loads.chain(frees).chain(waits).min().map(|at| at.max(now))
    }

    /// The weights that are really there.
    fn real(&self) -> u64 {
        self.held.iter().map(|held| held.real).sum()
    }

    /// The longest that anybody may wait for a model: for memory, for a load, and a moment.
    fn longest_wait(&self) -> Micros {
        let loads = self.plan.models.iter().map(|model| model.load).max().unwrap_or_default();
        MOST_WAIT.plus(loads).plus(self.plan.frees).plus(SLACK)
    }
}

impl Default for Held {
    fn default() -> Self {
        Self {
            state: ModelState::Cold,
            real: 0,
            seeking: None,
            loads: None,
            frees_at: None,
            again_at: None,
            failures: 0,
            set_aside: 0,
        }
    }
}

impl Engine {
    /// Has the models of a plan share the memory; as many as fit are loaded ahead.
    pub(crate) fn share(&mut self, plan: &MemoryPlan, now: Mono, key: (u64, usize, u64)) {
        if plan.is_none() || !self.has_model {
            return;
        }
        let lane = || Schedule::new(Bounds { pages: 0, ..self.lane_bounds() });
        self.lanes = plan.models.iter().map(|_| lane()).collect();
        self.shelf = Some(Box::new(Shelf::new(plan, now, key)));
        self.ready_at = now;
        self.wish_ahead();
    }

    const fn lane_bounds(&self) -> Bounds {
        let bounds = super::bounds(&self.plan);
        // Admission has counted already: every admitted request finds a place in this queue.
        Bounds { max_queue: bounds.max_batch + bounds.max_queue, ..bounds }
    }

    /// Models are to be there when somebody asks, as far as there is room.
    pub(super) fn wish_ahead(&mut self) {
        let Some(shelf) = &mut self.shelf else { return };
        for held in shelf.held.iter_mut().filter(|held| held.state == ModelState::Cold) {
            held.seeking.get_or_insert(Wish::Ahead);
        }
        shelf.is_stale = true;
    }

    /// All that is in memory is lost; what is on its way comes.
    pub(super) fn lose_models(&mut self) {
        let Some(shelf) = &mut self.shelf else { return };
        shelf.is_stale = true;
        for (at, held) in shelf.held.iter_mut().enumerate() {
            if held.real > 0 && held.loads.is_none() {
                let model = Model::Shared(at as u8).digest();
                shelf.account.freed(Some(model), std::mem::take(&mut held.real));
                (held.state, held.frees_at) = (ModelState::Cold, None);
            }
        }
        for at in 0..self.lanes.len() {
            self.clear(at);
        }
    }

    /// Keys and values of a model that is not in memory are gone.
    fn clear(&mut self, at: usize) {
        self.lanes[at] = Schedule::new(Bounds { pages: 0, ..self.lane_bounds() });
        if let Some(shelf) = &mut self.shelf {
            shelf.held[at].set_aside = 0;
        }
    }

    /// Requests for a model that have not ended.
    fn work_for(&self, model: Model) -> usize {
        self.jobs.values().filter(|job| job.model == model).count()
    }

    /// A request for a model came or ended.
    pub(super) fn worked(&mut self, model: Model) {
        let Some(shelf) = &mut self.shelf else { return };
        let jobs = &self.jobs;
        shelf.waits.retain(|id, _| jobs.contains_key(id));
        shelf.touched.insert(model);
        shelf.is_stale = true;
    }

    /// Takes a request in, whether its model is in memory or not.
    pub(super) fn take_in(
        &mut self,
        now: Mono,
        job: Job,
        (tenant, emitted): (&str, &[u32]),
    ) -> Result<Answer, Refusal> {
        let (most, accepted) = (self.lane_bounds().max_queue, self.work_for(job.model));
        let at = place(job.model).unwrap_or_default();
        let Some(shelf) = &mut self.shelf else { return Err(not_here()) };
        shelf.revive(at, now);
        if shelf.held[at].state == ModelState::Failed {
            return Err(not_here());
        }
        if accepted >= most {
            let message = format!("{accepted} requests are being answered already");
            return Err(refusal(Code::Overloaded, message));
        }
        let id = self.next_job;
        self.next_job += 1;
        let (longest, _) = job.prompt.end(job.max_tokens);
        let arrival = Arrival {
            id: RequestId(u128::from(id)),
            tokens: job.prompt.all_tokens().chain(emitted.iter().copied()).collect(),
            answer_tokens: job.max_tokens.max(longest).saturating_sub(job.drawn),
            scope: Some(Scope::new(tenant)),
            claim: Claim::of(tenant),
        };
        let prompt = job.prompt;
        shelf.waits.insert(id, Wait { since: now, arrival });
        self.jobs.insert(id, Job { lane: at, ..job });
        self.worked(Model::Shared(at as u8));
        Ok(Answer::Started { prompt_tokens: prompt.tokens, prompt_digest: prompt.digest() })
    }

    /// Does what is due and asks the account what becomes of those that want memory, until nothing
    /// changes any more.
    pub(crate) fn tend(&mut self, now: Mono, answers: &mut Vec<(Owner, Answer)>) -> Vec<Changed> {
        let mut changes = Vec::new();
        let Some(shelf) = &mut self.shelf else { return changes };
        shelf.is_stale = false;
        for model in std::mem::take(&mut shelf.touched) {
            let work = self.work_for(model);
            let Some(shelf) = &mut self.shelf else { break };
            shelf.account.worked(model.digest(), work, now);
        }
        self.finish_loads(now, &mut changes, answers);
        self.finish_frees(now, &mut changes);
        let waits = loop {
            self.share_out();
            self.seat(now, answers);
            let (decided, waits) = self.ask_all(now, &mut changes, answers);
            if !decided {
                break waits;
            }
        };
        if let Some(shelf) = &mut self.shelf {
            shelf.tick_at = shelf.next(now, waits);
        }
        changes
    }

    /// Loads that are over: their models answer, or rest.
    fn finish_loads(
        &mut self,
        now: Mono,
        changes: &mut Vec<Changed>,
        answers: &mut Vec<(Owner, Answer)>,
    ) {
        let broken = self.failed;
        let Some(shelf) = &mut self.shelf else { return };
        let mut lost = Vec::new();
        for (at, held) in shelf.held.iter_mut().enumerate() {
            let Some((_, fails)) = held.loads.take_if(|(ends, _)| *ends <= now) else { continue };
            let model = Model::Shared(at as u8);
            held.seeking = None;
            if fails || broken {
                // What was read is given back before anybody hears that it failed.
                shelf.account.freed(Some(model.digest()), std::mem::take(&mut held.real));
                shelf.account.given_up(model.digest());
                held.rests(now, true);
                held.failures = held.failures.saturating_add(1);
                lost.push(model);
                changes.push((model, Change::LoadFailed));
            } else {
                (held.state, held.failures) = (ModelState::Ready, 0);
                held.set_aside = LEAST_PAGES * shelf.plan.page;
                shelf.account.loaded(model.digest(), now);
                changes.push((model, Change::Loaded));
            }
        }
        for model in lost {
            self.turn_away(model, &not_here(), answers);
        }
    }

    fn finish_frees(&mut self, now: Mono, changes: &mut Vec<Changed>) {
        let Some(shelf) = &mut self.shelf else { return };
        for (at, held) in shelf.held.iter_mut().enumerate() {
            if held.frees_at.take_if(|frees| *frees <= now).is_some() {
                let model = Model::Shared(at as u8);
                shelf.account.freed(Some(model.digest()), std::mem::take(&mut held.real));
                changes.push((model, Change::Freed));
            }
        }
    }

    /// Divides what weights leave among the models in memory, none less than it has set aside.
    fn share_out(&mut self) {
        let Some(shelf) = &mut self.shelf else { return };
        let page = shelf.plan.page;
        let ready = |held: &Held| held.state == ModelState::Ready;
        let all: Vec<usize> = (0..shelf.held.len()).filter(|at| ready(&shelf.held[*at])).collect();
        for at in &all {
            // Gives back what requests that ended needed.
            let needed = self.lanes[*at].longest_pages().max(LEAST_PAGES) * page;
            if needed < shelf.held[*at].set_aside {
                shelf.held[*at].set_aside = needed;
                shelf.account.release(Model::Shared(*at as u8).digest(), needed);
            }
        }
        let floors: Vec<u64> = all.iter().map(|at| shelf.held[*at].set_aside).collect();
        let parts = divide(shelf.account.untaken(), &floors);
        for (at, part) in all.into_iter().zip(parts) {
            drop(self.lanes[at].resize(part / page));
        }
    }

    /// Hands requests to their model where it is in memory, and wishes for it where it is not.
    fn seat(&mut self, now: Mono, answers: &mut Vec<(Owner, Answer)>) {
        let Some(shelf) = &self.shelf else { return };
        for id in shelf.waits.keys().copied().collect::<Vec<_>>() {
            let Some(at) = self.jobs.get(&id).map(|job| job.lane) else { continue };
            let Some(shelf) = &mut self.shelf else { return };
            shelf.revive(at, now);
            let held = &mut shelf.held[at];
            match held.state {
                ModelState::Ready => self.begin_job(id, at, answers),
                ModelState::Failed => self.end_job(id, not_here(), answers),
                ModelState::Cold | ModelState::Loading => {
                    held.seeking.get_or_insert(Wish::Asked);
                }
            }
        }
    }

    fn begin_job(&mut self, id: u64, at: usize, answers: &mut Vec<(Owner, Answer)>) {
        let Some(shelf) = &mut self.shelf else { return };
        let Some(Wait { arrival, .. }) = shelf.waits.remove(&id) else { return };
        let known = u32::try_from(arrival.tokens.len()).unwrap_or(u32::MAX);
        let needed = pages_for(known.saturating_add(arrival.answer_tokens)) * shelf.plan.page;
        let kept = shelf.account.keep(Model::Shared(at as u8).digest(), needed);
        shelf.held[at].set_aside = shelf.held[at].set_aside.max(kept);
        if let Err(error) = self.lanes[at].arrive(arrival) {
            self.end_job(id, refusal(Code::OutOfMemory, error.to_string()), answers);
        }
    }

    fn end_job(&mut self, id: u64, why: Refusal, answers: &mut Vec<(Owner, Answer)>) {
        if let Some(job) = self.forget(id) {
            answers.push((job.owner, Answer::Failed(why)));
        }
    }

    /// Those who wait for a model are told that it does not come.
    fn turn_away(&mut self, model: Model, why: &Refusal, answers: &mut Vec<(Owner, Answer)>) {
        let Some(shelf) = &self.shelf else { return };
        let waits = |id: &u64| self.jobs.get(id).is_some_and(|job| job.model == model);
        for id in shelf.waits.keys().copied().filter(waits).collect::<Vec<_>>() {
            self.end_job(id, why.clone(), answers);
        }
    }

    /// Asks for each model that is sought, whoever of their threads comes first. Whether anything
    /// but waiting came of it, and until when the others wait.
    fn ask_all(
        &mut self,
        now: Mono,
        changes: &mut Vec<Changed>,
        answers: &mut Vec<(Owner, Answer)>,
    ) -> (bool, Option<Mono>) {
        let Some(shelf) = &mut self.shelf else { return (false, None) };
        let sought = |at: &usize| {
            let held = &shelf.held[*at];
            held.seeking.is_some() && held.loads.is_none()
        };
        let mut all: Vec<usize> = (0..shelf.held.len()).filter(sought).collect();
        let first = shelf.stream.below(all.len() as u64) as usize;
        all.rotate_left(first);
        let (mut decided, mut waits) = (false, None::<Mono>);
        for at in all {
            match self.ask_one(at, now, changes, answers) {
                Some(until) => waits = Some(waits.map_or(until, |waits| waits.min(until))),
                None => decided = true,
            }
        }
        (decided, waits)
    }

    /// Asks for one; until when it waits, if it does.
    fn ask_one(
        &mut self,
        at: usize,
        now: Mono,
        changes: &mut Vec<Changed>,
        answers: &mut Vec<(Owner, Answer)>,
    ) -> Option<Mono> {
        let model = Model::Shared(at as u8);
        let shelf = self.shelf.as_mut()?;
        let (room, plan) = (shelf.room(at), shelf.plan_of(at));
        let wish = shelf.held[at].seeking?;
        // What came or ended for others may have come of what was decided just now.
        for touched in std::mem::take(&mut shelf.touched) {
            let jobs = self.jobs.values().filter(|job| job.model == touched);
            shelf.account.worked(touched.digest(), jobs.count(), now);
        }
        match shelf.account.want(model.digest(), room, wish, now) {
            Decision::Load => {
                let fails = shelf.stream.chance(shelf.plan.failing_permille);
                let held = &mut shelf.held[at];
                held.real += room.weights;
                held.loads = Some((now.plus(plan.load), fails));
                held.state = ModelState::Loading;
                changes.push((model, Change::Loading));
                None
            }
            Decision::Evict(evictions) => {
                self.evict(evictions, model, now, changes);
                None
            }
            Decision::Wait { until } => {
                shelf.held[at].state = ModelState::Cold;
                Some(until.min(now.plus(LOOKS_EVERY)))
            }
            Decision::Refuse(reason) => {
                self.gave_up(model, at, (&reason, now), answers);
                changes.push((model, Change::Refused(reason)));
                None
            }
        }
    }

    /// These go: the thread that holds them has none of their requests, and frees them in a while.
    fn evict(
        &mut self,
        evictions: Vec<Eviction>,
        comes: Model,
        now: Mono,
        changes: &mut Vec<Changed>,
    ) {
        let go: Vec<Model> = evictions.iter().filter_map(|one| Model::of(one.model)).collect();
        let stay = self.idle_but(&go);
        for eviction in evictions {
            let Some(at) = Model::of(eviction.model).and_then(place) else { continue };
            let model = Model::Shared(at as u8);
            let work = self.work_for(model);
            let Some(shelf) = &mut self.shelf else { return };
            let held = &mut shelf.held[at];
            held.state = ModelState::Cold;
            held.frees_at = Some(now.plus(shelf.plan.frees));
            let bytes = held.real;
            self.clear(at);
            let stay = stay.clone();
            changes.push((model, Change::Evicted { eviction, work, stay, bytes, comes }));
        }
    }

    /// The models that are in memory without any work, and may go, and do not.
    fn idle_but(&self, go: &[Model]) -> Vec<(Model, u64)> {
        let Some(shelf) = &self.shelf else { return Vec::new() };
        let idle = |(at, held): (usize, &Held)| {
            let model = Model::Shared(at as u8);
            let is_idle = held.state == ModelState::Ready && self.work_for(model) == 0;
            let may = is_idle && !shelf.plan_of(at).kept && !go.contains(&model);
            may.then_some((model, held.real))
        };
        shelf.held.iter().enumerate().filter_map(idle).collect()
    }

    fn gave_up(
        &mut self,
        model: Model,
        at: usize,
        (reason, now): (&Reason, Mono),
        answers: &mut Vec<(Owner, Answer)>,
    ) {
        let Some(shelf) = &mut self.shelf else { return };
        shelf.account.given_up(model.digest());
        let held = &mut shelf.held[at];
        held.seeking = None;
        match reason {
            // There was no memory, and nobody who needs it; whoever comes begins another load.
            Reason::NoRoom { .. } | Reason::Unwanted => held.state = ModelState::Cold,
            Reason::Busy { .. } => {
                held.state = ModelState::Cold;
                let message = "all that could go is at work".to_owned();
                self.turn_away(model, &refusal(Code::Overloaded, message), answers);
            }
            Reason::TooLarge { .. } | Reason::Kept { .. } => {
                held.rests(now, matches!(reason, Reason::Kept { .. }));
                let message = "it needs more memory than can be free".to_owned();
                self.turn_away(model, &refusal(Code::OutOfMemory, message), answers);
            }
        }
    }

    /// What takes more memory than there is, and who has waited for longer than anybody may.
    pub(crate) fn audit_memory(&mut self, now: Mono) -> (Option<String>, Option<String>) {
        let frozen = self.frozen;
        let Some(shelf) = &mut self.shelf else { return (None, None) };
        let page = shelf.plan.page;
        let (real, budget) = (shelf.real(), shelf.plan.budget);
        let pages = |lane: &Schedule| lane.pages_held() + lane.pages_idle();
        let kept: u64 = self.lanes.iter().map(pages).sum::<u64>() * page;
        // Pages of what runs are given up with its next step.
        let is_over = real + kept > budget && !frozen;
        shelf.over_since = is_over.then(|| shelf.over_since.unwrap_or(now).max(shelf.awake_since));
        let over = shelf.over_since.is_some_and(|since| now.since(since) > SLACK);
        let over = (real > budget || over)
            .then(|| format!("{real} of weights and {kept} beside them, of {budget}"));
        let most = shelf.longest_wait();
        let late = shelf.waits.iter().find(|(_, wait)| {
            let since = wait.since.max(shelf.awake_since);
            !frozen && now.since(since) > most
        });
        let late = late.map(|(id, wait)| format!("job {id} waits since {:?}", wait.since));
        (over, late)
    }
}

impl Held {
    /// It cannot be loaded now; tried again in a while, if the reason may be over then.
    fn rests(&mut self, now: Mono, passes: bool) {
        let rest = TRIED_AGAIN_AFTER.times(1 << self.failures.min(MOST_DOUBLINGS));
        self.again_at = passes.then(|| now.plus(rest));
        self.state = ModelState::Failed;
    }
}

/// What became of which model.
pub(crate) type Changed = (Model, Change);

/// Where a model stands in the plan, if it is one of those that share a memory.
pub(crate) fn place(model: Model) -> Option<usize> {
    match model {
        Model::Shared(at) => Some(usize::from(at)),
        Model::Loom | Model::Heddle => None,
    }
}

fn not_here() -> Refusal {
    refusal(Code::ModelUnavailable, "the model is not here".to_owned())
}
