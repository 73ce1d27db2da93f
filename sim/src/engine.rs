//! A model of an inference engine: production's batching policy and cost model around a language
//! model that is a hash function.
//!
//! Token `i` of an answer is a function of the prompt and `i` alone, so that the omniscient
//! observer knows the answer every node must give. Owns what runs, how long a step takes, and the
//! ways an engine fails. Does not own where answers go. Which models are in memory, where they
//! share one that is too small for all, is the business of [`shelf`].

mod shelf;

use std::collections::BTreeMap;

use selvedge_base::{Blame, Code, Micros, ModelDigest, Mono, Refusal, RequestId, Retry, Stage};
use selvedge_contract::schedule::{Arrival, Bounds, Plan as StepPlan, Schedule, Work};
use selvedge_contract::{
    Answer, Claim, CostModel, EngineStatus, FinishReason, GenerateRequest, Input, ModelCard,
    ModelState, ModelStatus, Scope, TokenEvent, Usage,
};
use selvedge_proto::swim::Pulse;

pub(crate) use self::shelf::{Change, Changed, Shelf, place};
use crate::plan::{EnginePlan, MAX_SHARED};
use crate::stream::mix;

/// The models there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Model {
    /// What clients ask for.
    Loom,
    /// A smaller one that budgets may downgrade to.
    Heddle,
    /// One of those that share a memory: its place in the plan.
    Shared(u8),
}

/// The names of those that share a memory.
const SHARED: [&str; MAX_SHARED] = ["warp", "weft", "reed", "bobbin", "spindle", "shuttle"];
/// What their digests begin with: none of the others' do.
const SHARED_FROM: u8 = 0x10;

impl Model {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Loom => "loom",
            Self::Heddle => "heddle",
            Self::Shared(at) => SHARED[at as usize % MAX_SHARED],
        }
    }

    pub(crate) const fn digest(self) -> ModelDigest {
        match self {
            Self::Loom => ModelDigest([0x6d; 32]),
            Self::Heddle => ModelDigest([0x68; 32]),
            Self::Shared(at) => ModelDigest([SHARED_FROM + at; 32]),
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let shared = (0..MAX_SHARED as u8).map(Self::Shared);
        [Self::Loom, Self::Heddle].into_iter().chain(shared)
    }

    /// The model of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::all().find(|model| model.name() == name)
    }

    fn of(digest: ModelDigest) -> Option<Self> {
        Self::all().find(|model| model.digest() == digest)
    }
}

/// A dense prompt has so many times the tokens it seems to have.
const DENSE: u32 = 8;
/// The most tokens of an answer that are counted and not seen; less than what a node believes.
const MOST_HIDDEN: u32 = 48;
/// What is left of an engine's memory when it is short.
const SHORT: u64 = 8;

/// A prompt, as the simulated tokenizer sees it: `Input::Tokens` whose first three say seed, true
/// length and length of the answer. A dense prompt has more tokens than it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) seed: u32,
    pub(crate) tokens: u32,
    pub(crate) answer: u32,
    pub(crate) is_dense: bool,
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// To a request of this node's own: its number and attempt.
    Own { request: u64, fence: u64 },
    /// To a peer's stream.
    Stream(u64),
}

/// An engine of one node.
#[derive(Debug)]
pub(crate) struct Engine {
    plan: EnginePlan,
    has_model: bool,
    /// One for all models, or one for each where they share a memory.
    lanes: Vec<Schedule>,
    /// Which lane's step is next.
    turn: usize,
    /// The models that share a memory, where they do.
    pub(crate) shelf: Option<Box<Shelf>>,
    cost: CostModel,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    ready_at: Mono,
    /// The step under way: what it computes.
    step: Option<(usize, StepPlan)>,
    took: Micros,
    /// A step that ended while nobody could take note.
    pub(crate) stalled: bool,
    pub(crate) frozen: bool,
    /// How many times slower than planned.
    pub(crate) throttle: u64,
    failed: bool,
    progress: u64,
    pub(crate) paused: u64,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    owner: Owner,
    model: Model,
    prompt: Prompt,
    max_tokens: u32,
    /// Tokens of the answer that exist.
    drawn: u32,
    /// The schedule that it is on.
    lane: usize,
}

impl Prompt {
    /// Bytes of its text: four for a usual token, one where every byte is one.
    pub(crate) const fn bytes(self) -> u32 {
        if self.is_dense { self.tokens } else { self.tokens * 4 }
    }

    pub(crate) fn input(self) -> Input {
        let looks = if self.is_dense { self.tokens / DENSE } else { self.tokens };
        let mut tokens = vec![self.seed, self.tokens, self.answer];
        tokens.resize((looks as usize).max(3), 0);
        Input::Tokens(tokens)
    }

    fn read(input: &Input) -> Option<Self> {
        match input {
            Input::Tokens(tokens) => match tokens.as_slice() {
                [seed, tokens, answer, rest @ ..] => {
                    let is_dense = rest.len() + 3 < *tokens as usize;
                    Some(Self { seed: *seed, tokens: *tokens, answer: *answer, is_dense })
                }
                _ => None,
            },
            Input::Chat(_) | Input::Text(_) | Input::Tooled(_) => None,
        }
    }

    /// The prompt's own tokens, at least one.
    fn all_tokens(self) -> impl Iterator<Item = u32> {
        let seed = u64::from(self.seed) << 32;
        (0..self.tokens.max(1)).map(move |index| mix(!seed ^ u64::from(index)) as u32)
    }

    /// The answer's token at a place.
    pub(crate) const fn token(self, model: Model, index: u32) -> u32 {
        let seed = self.seed ^ model.digest().0[0] as u32;
        mix(((seed as u64) << 32) | index as u64) as u32
    }

    pub(crate) fn digest(self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&self.seed.to_be_bytes());
        digest[4..8].copy_from_slice(&self.tokens.to_be_bytes());
        digest
    }

    /// Tokens that the engine counts and nobody sees: marks, a stop sequence it kept back.
    pub(crate) const fn hidden(self) -> u32 {
        if self.seed.is_multiple_of(3) { 1 + (self.seed >> 8) % MOST_HIDDEN } else { 0 }
    }

    /// How long the answer gets and why it ends.
    pub(crate) const fn end(self, max_tokens: u32) -> (u32, FinishReason) {
        if self.answer <= max_tokens {
            (self.answer, FinishReason::Stop)
        } else {
            (max_tokens, FinishReason::Length)
        }
    }
}

impl Engine {
    pub(crate) fn new(plan: EnginePlan, has_model: bool, now: Mono) -> Self {
        Self {
            lanes: vec![Schedule::new(bounds(&plan))],
            turn: 0,
            shelf: None,
            plan,
            has_model,
            cost: CostModel::default(),
            jobs: BTreeMap::new(),
            next_job: 0,
            ready_at: now.plus(plan.load),
            step: None,
            took: Micros::ZERO,
            stalled: false,
            frozen: false,
            throttle: 1,
            failed: false,
            progress: 0,
            paused: 0,
        }
    }

    /// Queues a tenant's request; its answers are for `owner`.
    ///
    /// # Errors
    /// As production's engine refuses.
    pub(crate) fn submit(
        &mut self,
        now: Mono,
        owner: Owner,
        tenant: &str,
        request: &GenerateRequest,
    ) -> Result<Answer, Refusal> {
        let model = Model::of(request.model).filter(|model| self.models().contains(model));
        let Some(model) = model.filter(|_| !self.failed) else {
            let message = "the model is not here".to_owned();
            return Err(refusal(Code::ModelUnavailable, message));
        };
        let Some(prompt) = Prompt::read(&request.input) else {
            return Err(refusal(Code::InvalidRequest, "not a prompt".to_owned()));
        };
        let emitted = request.emitted.as_ref();
        if emitted.is_some_and(|emitted| emitted.prompt_digest != prompt.digest()) {
            return Err(refusal(Code::InvalidRequest, "another prompt".to_owned()));
        }
        let emitted = emitted.map_or(&[][..], |emitted| &emitted.tokens);
        let drawn = emitted.len() as u32;
        let (longest, _) = prompt.end(request.max_tokens);
        let id = self.next_job;
        if self.shelf.is_some() {
            let max_tokens = request.max_tokens;
            let job = Job { owner, model, prompt, max_tokens, drawn, lane: 0 };
            return self.take_in(now, job, (tenant, emitted));
        }
        let arrival = Arrival {
            id: RequestId(u128::from(id)),
            tokens: prompt.all_tokens().chain(emitted.iter().copied()).collect(),
            answer_tokens: request.max_tokens.saturating_sub(drawn).max(longest - drawn),
            // One schedule has both models here; their pages are not the same.
            scope: Some(Scope::new(&format!("{}/{tenant}", model.name()))),
            claim: Claim::of(tenant),
        };
        self.lanes[0]
            .arrive(arrival)
            .map_err(|error| refusal(Code::Overloaded, error.to_string()))?;
        self.next_job += 1;
        let max_tokens = request.max_tokens;
        self.jobs.insert(id, Job { owner, model, prompt, max_tokens, drawn, lane: 0 });
        Ok(Answer::Started { prompt_tokens: prompt.tokens, prompt_digest: prompt.digest() })
    }

    /// Stops whatever is computed for an owner.
    pub(crate) fn cancel(&mut self, owner: Owner) {
        let found = self.jobs.iter().find(|(_, job)| job.owner == owner).map(|(id, _)| *id);
        if let Some(id) = found {
            self.forget(id);
        }
    }

    /// A job ends, however it does.
    fn forget(&mut self, id: u64) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        self.lanes[job.lane].leave(RequestId(u128::from(id)));
        self.worked(job.model);
        Some(job)
    }

    fn models(&self) -> Vec<Model> {
        match (&self.shelf, self.has_model, self.plan.small) {
            (_, false, _) => Vec::new(),
            (Some(shelf), ..) => shelf.models().collect(),
            (None, true, false) => vec![Model::Loom],
            (None, true, true) => vec![Model::Loom, Model::Heddle],
        }
    }

    /// For whom something is computed.
    pub(crate) fn owners(&self) -> impl Iterator<Item = Owner> + '_ {
        self.jobs.values().map(|job| job.owner)
    }

    /// Begins a step if there is work and none is under way; returns when it ends.
    pub(crate) fn begin(&mut self, now: Mono) -> Option<Mono> {
        let count = self.lanes.len();
        let mut turns = (0..count).map(|at| (self.turn + at) % count);
        let lane = turns.find(|lane| !self.lanes[*lane].is_idle());
        let lane = lane.filter(|_| self.step.is_none() && !self.failed)?;
        if now < self.ready_at {
            // Loading: an empty step that ends when the model is there.
            self.step = Some((lane, StepPlan::default()));
            self.took = Micros::ZERO;
            return Some(self.ready_at);
        }
        self.turn = lane + 1;
        let others = self.lanes.iter().enumerate();
        let others = others.filter(|(at, other)| *at != lane && !other.is_idle());
        let (others, answering) = others.fold((0, 0), |(count, answering), (_, other)| {
            (count + 1, answering + usize::from(other.answering() > 0))
        });
        let schedule = &mut self.lanes[lane];
        schedule.company(others, answering);
        let plan = schedule.plan();
        self.paused += plan.paused.len() as u64;
        let prompt: u32 = plan.work.iter().map(Work::prompt).sum();
        // A token computed ahead takes what one of a prompt takes.
        let drafted: usize = plan.work.iter().map(|work| work.draft.len()).sum();
        self.took = self
            .plan
            .step
            .plus(self.plan.prompt_token.times(u64::from(prompt) + drafted as u64))
            .times(self.throttle);
        self.step = Some((lane, plan));
        Some(now.plus(self.took))
    }

    /// The step under way is over: what came of it.
    pub(crate) fn end_step(&mut self, answers: &mut Vec<(Owner, Answer)>) {
        let Some((lane, plan)) = self.step.take() else { return };
        for id in &plan.expelled {
            if let Some(job) = self.forget(id.0 as u64) {
                let failed = refusal(Code::OutOfMemory, "memory has shrunk".to_owned());
                answers.push((job.owner, Answer::Failed(failed)));
            }
        }
        if plan.work.is_empty() {
            return;
        }
        self.progress += plan.work.len() as u64;
        for work in &plan.work {
            self.cost.prefilled(work.prompt(), self.took);
            if self.jobs.contains_key(&(work.id.0 as u64)) {
                self.lanes[lane].computed(work);
                self.draw(lane, work, answers);
            }
        }
        // Drafts come in steps of answers alone.
        let rows = plan.work.iter().map(|work| 1 + work.draft.len()).sum();
        let answering = plan.work.iter().filter(|work| work.prompt() == 0).count();
        let prompt: u32 = plan.work.iter().map(Work::prompt).sum();
        match prompt {
            0 => self.lanes[lane].stepped(rows, self.took),
            _ => self.lanes[lane].stretched(answering, prompt, self.took),
        }
        self.cost.stepped(self.lanes[lane].plain_time(plan.work.len(), rows, self.took));
    }

    /// Says what a step allows of one answer.
    fn draw(&mut self, lane: usize, work: &Work, answers: &mut Vec<(Owner, Answer)>) {
        let rows = if work.draws { 1 + work.draft.len() } else { 0 };
        for at in 0..rows {
            let Some(job) = self.jobs.get_mut(&(work.id.0 as u64)) else { return };
            let (index, owner, prompt, model) = (job.drawn, job.owner, job.prompt, job.model);
            let (longest, reason) = prompt.end(job.max_tokens);
            let token = prompt.token(model, index);
            if index < longest {
                job.drawn += 1;
                self.lanes[lane].drawn(work.id, token);
                let event = TokenEvent { index, token, text: String::new(), logprob: None };
                answers.push((owner, Answer::Token(event)));
            }
            if index + 1 >= longest {
                let usage = Usage {
                    prompt_tokens: prompt.tokens,
                    completion_tokens: longest + prompt.hidden(),
                    ..Usage::default()
                };
                answers.push((owner, Answer::Finished { reason, text: String::new(), usage }));
                self.forget(work.id.0 as u64);
                return;
            }
            if work.draft.get(at) != Some(&token) {
                return;
            }
            let schedule = &mut self.lanes[lane];
            schedule.accepted(work.id);
        }
    }

    /// The model becomes unusable (everything that runs fails) or usable again.
    pub(crate) fn fail(&mut self, now: Mono, failed: bool, answers: &mut Vec<(Owner, Answer)>) {
        self.failed = failed;
        if !failed {
            self.ready_at =
                now.plus(if self.shelf.is_some() { Micros::ZERO } else { self.plan.load });
            self.wish_ahead();
            return;
        }
        let all: Vec<u64> = self.jobs.keys().copied().collect();
        for job in all.into_iter().filter_map(|id| self.forget(id)) {
            let failed = refusal(Code::ModelUnavailable, "the model was lost".to_owned());
            answers.push((job.owner, Answer::Failed(failed)));
        }
        self.lose_models();
    }

    pub(crate) fn squeeze(&mut self, short: bool) {
        let pages = if short { (self.plan.pages / SHORT).max(2) } else { self.plan.pages };
        // Pages have no numbers here: what is forgotten needs no freeing. Models that share a
        // memory have theirs divided.
        if self.shelf.is_none() {
            drop(self.lanes[0].resize(pages));
        }
    }

    pub(crate) fn pulse(&self, now: Mono) -> Pulse {
        let running = self.running() as u32;
        let loading = match &self.shelf {
            Some(shelf) => !self.failed && shelf.is_loading(),
            None => self.has_model && !self.failed && now < self.ready_at,
        };
        Pulse {
            progress: self.progress,
            computing: self.frozen || (running > 0 && (!loading || self.shelf.is_some())),
            loading: loading && !self.frozen,
            running,
            queued: self.queued() as u32,
        }
    }

    fn running(&self) -> usize {
        self.lanes.iter().map(Schedule::running).sum()
    }

    fn queued(&self) -> usize {
        let waiting = self.shelf.as_ref().map_or(0, |shelf| shelf.waiting());
        waiting + self.lanes.iter().map(Schedule::queued).sum::<usize>()
    }

    pub(crate) fn status(&self, now: Mono) -> EngineStatus {
        let pulse = self.pulse(now);
        let state = if self.failed {
            ModelState::Failed
        } else if now < self.ready_at {
            ModelState::Loading
        } else {
            ModelState::Ready
        };
        let pending: u64 = self.lanes.iter().map(Schedule::pending_tokens).sum();
        let status = |model: &Model| ModelStatus {
            card: ModelCard {
                name: model.name().to_owned(),
                digest: model.digest(),
                bytes: 1,
                architecture: String::new(),
                quantization: String::new(),
                parameters: 1,
                context_length: 8_192,
                chat: true,
            },
            state: match (&self.shelf, self.failed) {
                (Some(shelf), false) => shelf.state(*model),
                _ => state,
            },
            running: pulse.running,
            queued: pulse.queued,
            pending_prompt_tokens: pending.min(u64::from(u32::MAX)) as u32,
            prefill_rate: self.cost.prefill_rate(),
            // Steps of more rows take no longer here, so that the average is the next answer's too.
            step_us: self.cost.step_us(),
        };
        EngineStatus {
            progress: pulse.progress,
            computing: pulse.computing,
            loading: pulse.loading,
            models: self.models().iter().map(status).collect(),
        }
    }
}

const fn bounds(plan: &EnginePlan) -> Bounds {
    let EnginePlan { max_batch, max_queue, pages, .. } = *plan;
    Bounds { max_batch, max_queue, pages, drafts: true }
}

fn refusal(code: Code, message: String) -> Refusal {
    Refusal::new(Stage::Execute, Blame::Us, Retry::Elsewhere, code, message)
}
