//! One loaded model with its schedule and jobs.
//!
//! Owns carrying out one plan: memory for new sequences, pages that are kept for others, the
//! forward pass, one token for each sequence that draws, and the measurements that predict the
//! next request's time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use selvedge_base::{Code, Micros, ModelDigest, Mono, Refusal, RequestId};
use selvedge_contract::CostModel;
use selvedge_contract::prefix::{Kept, PageId};
use selvedge_contract::schedule::{
    Arrival, Bounds, Joined, PAGE_TOKENS, Schedule, Work, pages_for,
};
use selvedge_kernels::{Crew, SharedPage};

use crate::error::{EngineError, elsewhere};
use crate::job::{Job, cancelled, late};
use crate::llama::{Cache, Llama, Logits, Segment};
use crate::sampling::Draws;
use crate::shared::{Pulse, Shared};
use crate::tuned::Tuned;
use crate::worker::Loaded;

// Memory is counted in the pages that caches are made of.
const _: () = assert!(selvedge_kernels::PAGE == PAGE_TOKENS as usize);

/// A step panicked; the model's state is not to be trusted.
#[derive(Debug)]
pub(crate) struct Crash;

/// A model in memory and what it works on.
pub(crate) struct Runner {
    shared: Arc<Shared>,
    digest: ModelDigest,
    loaded: Loaded,
    schedule: Schedule,
    jobs: BTreeMap<RequestId, Box<Job>>,
    pages: u64,
    /// Bytes of keys and values that are not given to weights.
    set_aside: u64,
    /// The pages that the schedule keeps.
    kept: BTreeMap<PageId, SharedPage>,
    cost: CostModel,
    draws: Draws,
}

/// One sequence's part of a step, with what the computation borrows.
struct Part {
    work: Work,
    cache: Cache,
    tokens: Vec<u32>,
    tuned: Option<Arc<Tuned>>,
}

/// The logits of each part.
type Computed = Vec<Vec<Vec<f32>>>;

/// What a step had to compute.
#[derive(Clone, Copy)]
struct Load {
    /// Sequences that are answered.
    answers: usize,
    /// Those of which a prompt is computed.
    chunked: usize,
    /// Tokens of prompts.
    prompt: u32,
    /// Tokens, drafted ones included.
    rows: usize,
}

impl Load {
    fn of(parts: &[Part]) -> Self {
        let chunks = || parts.iter().map(|part| part.work.prompt()).filter(|tokens| *tokens > 0);
        let chunked = chunks().count();
        Self {
            answers: parts.len() - chunked,
            chunked,
            prompt: chunks().sum(),
            rows: parts.iter().map(|part| part.tokens.len()).sum(),
        }
    }
}

impl Runner {
    pub(crate) fn new(
        shared: Arc<Shared>,
        digest: ModelDigest,
        loaded: Loaded,
        cost: CostModel,
    ) -> Self {
        let (max_batch, max_queue) = (shared.config.max_batch, shared.config.max_queue);
        let bounds = Bounds {
            max_batch,
            // Admission has counted already: every admitted request finds a place in this queue.
            max_queue: max_batch + max_queue,
            pages: 0,
            // Elsewhere rounding differs with the number of rows.
            drafts: shared.config.speculation && loaded.llama.shares(),
        };
        let schedule = Schedule::new(bounds);
        let (jobs, kept) = (BTreeMap::new(), BTreeMap::new());
        let set_aside = loaded.kept;
        let (pages, draws) = (0, Draws::default());
        Self { shared, digest, loaded, schedule, jobs, pages, set_aside, kept, cost, draws }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.schedule.is_idle()
    }

    /// Bytes of keys and values that it needs at least: so many that each of its requests can come
    /// to its end.
    pub(crate) const fn set_aside(&self) -> u64 {
        self.set_aside
    }

    const fn page_bytes(&self) -> u64 {
        let token = self.loaded.kv_token_bytes;
        PAGE_TOKENS as u64 * if token == 0 { 1 } else { token }
    }

    /// Sets memory aside for a request of so many tokens. How many there is memory for, if not for
    /// all of them.
    fn set_aside_for(&mut self, tokens: usize) -> usize {
        let page = self.page_bytes();
        let pages = pages_for(u32::try_from(tokens).unwrap_or(u32::MAX));
        let bytes = self.shared.keep(self.digest, pages.saturating_mul(page));
        self.set_aside = self.set_aside.max(bytes);
        if bytes >= pages.saturating_mul(page) {
            return usize::MAX;
        }
        usize::try_from(bytes / page * u64::from(PAGE_TOKENS)).unwrap_or(usize::MAX)
    }

    /// Gives back what requests that ended needed.
    fn release(&mut self) {
        let needed = self.schedule.longest_pages().saturating_mul(self.page_bytes());
        let needed = needed.max(self.loaded.kept);
        if needed < self.set_aside {
            self.set_aside = needed;
            self.shared.release(self.digest, needed);
        }
    }

    /// Sets the memory for keys and values.
    pub(crate) fn resize(&mut self, bytes: u64) {
        self.pages = bytes / self.page_bytes();
        let evicted = self.schedule.resize(self.pages);
        self.forget(&evicted);
    }

    /// Frees pages that are kept no longer.
    fn forget(&mut self, pages: &[PageId]) {
        for page in pages {
            self.kept.remove(page);
        }
    }

    /// Takes a request.
    pub(crate) fn accept(&mut self, mut job: Box<Job>) {
        let capacity = self.pages.saturating_mul(u64::from(PAGE_TOKENS));
        let room = usize::try_from(capacity).unwrap_or(usize::MAX);
        let room = self.set_aside_for(room.min(job.prompt_tokens + job.limit)).min(room);
        if job.tokens.len() >= room {
            let message = format!("this node has memory for {room} tokens of this model");
            self.release();
            return job.fail(elsewhere(Code::OutOfMemory, message));
        }
        job.room = room;
        let longest = room.min(job.prompt_tokens + job.limit);
        let arrival = Arrival {
            id: job.id,
            tokens: job.tokens.clone(),
            answer_tokens: longest.saturating_sub(job.tokens.len()) as u32,
            scope: self.loaded.llama.shares().then(|| job.scope.clone()),
            claim: job.claim.clone(),
        };
        match self.schedule.arrive(arrival) {
            Ok(()) => drop(self.jobs.insert(job.id, job)),
            Err(error) => job.fail(elsewhere(Code::Overloaded, error.to_string())),
        }
        self.publish();
    }

    /// Hands over all jobs, as if none had been begun here.
    #[expect(clippy::vec_box, reason = "jobs are large and move between threads and maps")]
    pub(crate) fn take_jobs(&mut self) -> Vec<Box<Job>> {
        let jobs = std::mem::take(&mut self.jobs);
        jobs.into_values()
            .map(|mut job| {
                self.schedule.leave(job.id);
                job.cache = None;
                job
            })
            .collect()
    }

    /// Whether answers are under way.
    pub(crate) fn is_answering(&self) -> bool {
        self.schedule.answering() > 0
    }

    /// Computes one step, for which so many other models wait; of these so many have answers under
    /// way.
    pub(crate) fn step(
        &mut self,
        crew: &mut Crew,
        (others, answering): (usize, usize),
    ) -> Result<(), Crash> {
        self.sweep();
        self.schedule.company(others, answering);
        let plan = self.schedule.plan();
        for id in &plan.paused {
            #[cfg(test)]
            self.shared.pauses.fetch_add(1, Ordering::Relaxed);
            if let Some(job) = self.jobs.get_mut(id) {
                job.cache = None;
            }
        }
        for id in plan.expelled {
            self.end(id, elsewhere(Code::OutOfMemory, "this node's memory is needed elsewhere"));
        }
        self.forget(&plan.evicted);
        self.begin(&plan.admitted);
        for joined in plan.joined {
            self.join(joined);
        }
        let parts = self.parts(&plan.work);
        if parts.is_empty() {
            self.publish();
            return Ok(());
        }
        self.compute(parts, crew)
    }

    /// Frees what was given up since the last step, or was not begun in time.
    fn sweep(&mut self) {
        let gone: Vec<_> =
            self.jobs.values().filter(|job| job.is_cancelled()).map(|job| job.id).collect();
        for id in gone {
            self.end(id, cancelled());
        }
        if self.schedule.queued() > 0 {
            for id in self.schedule.expire(self.shared.now()) {
                self.end(id, late());
            }
        }
    }

    fn begin(&mut self, admitted: &[RequestId]) {
        for id in admitted {
            match self.loaded.llama.cache() {
                Ok(cache) => {
                    if let Some(job) = self.jobs.get_mut(id) {
                        job.cache = Some(cache);
                    }
                }
                Err(error) => self.end(*id, elsewhere(Code::OutOfMemory, error.to_string())),
            }
        }
    }

    /// Lets a sequence go on behind pages that are kept.
    fn join(&mut self, joined: Joined) {
        let Some(job) = self.jobs.get_mut(&joined.id) else { return };
        let Some(cache) = &mut job.cache else { return };
        let mut pages = joined.pages.iter();
        let result = pages.try_for_each(|page| cache.join(kept(&self.kept, *page)?));
        let reached = cache.len();
        job.reach(reached, true);
        if let Err(error) = result {
            self.lost(joined.id, &error);
        }
    }

    /// Keeps a page that a sequence has just ended, or frees it when it is there already.
    fn keep(&mut self, page: Kept, cache: &mut Cache) -> Result<(), EngineError> {
        if page.is_new {
            self.kept.insert(page.page, cache.share().ok_or_else(no_page)?);
            return Ok(());
        }
        cache.join(kept(&self.kept, page.page)?)
    }

    /// Ends a request whose pages are not what the schedule takes them for.
    fn lost(&mut self, id: RequestId, error: &EngineError) {
        tracing::error!(%id, %error, "a page is lost");
        self.end(id, failure(error));
    }

    fn parts(&mut self, work: &[Work]) -> Vec<Part> {
        work.iter()
            .filter_map(|work| {
                let job = self.jobs.get_mut(&work.id)?;
                let (from, count) = (work.computed as usize, work.tokens as usize);
                let mut tokens = job.tokens.get(from..from + count)?.to_vec();
                tokens.extend_from_slice(&work.draft);
                Some(Part {
                    work: work.clone(),
                    cache: job.cache.take()?,
                    tokens,
                    tuned: job.tuned.clone(),
                })
            })
            .collect()
    }

    fn compute(&mut self, mut parts: Vec<Part>, crew: &mut Crew) -> Result<(), Crash> {
        let before = self.shared.now();
        let computed = {
            let (llama, progress) = (&self.loaded.llama, &self.shared.progress);
            let parts = &mut parts;
            catch_unwind(AssertUnwindSafe(|| run(llama, crew, parts, progress)))
        };
        let took = self.shared.now().since(before);
        match computed {
            Ok(Ok(logits)) => {
                let load = Load::of(&parts);
                self.deliver(parts, &logits);
                if self.schedule.is_idle() {
                    // What is drawn next may take its memory anew; rest needs none.
                    self.draws = Draws::default();
                } else {
                    crew.take_back(logits);
                }
                self.measure(load, took);
            }
            Ok(Err(error)) => {
                tracing::error!(digest = %self.digest, %error, "a step failed");
                self.end_all(&parts, &failure(&error));
            }
            Err(_) => {
                let message = "the computation of this answer broke down";
                self.end_all(&parts, &elsewhere(Code::Internal, message));
                return Err(Crash);
            }
        }
        self.publish();
        Ok(())
    }

    /// A step of decoding alone measures a step, less what drafts made it longer, which promise the
    /// next answer nothing; one with prompts measures prompts, less what decoding beside them is
    /// known to take.
    fn measure(&mut self, load: Load, took: Micros) {
        let Load { answers, chunked, prompt, rows } = load;
        self.shared.progress.fetch_add(chunked as u64, Ordering::Relaxed);
        if prompt == 0 {
            self.schedule.stepped(rows, took);
            self.cost.stepped(self.schedule.plain_time(answers, rows, took));
        } else {
            let step = if answers > 0 { self.schedule.step_time(answers).0 } else { 0 };
            self.schedule.stretched(answers, prompt, took);
            // Never less than half: rows share the reading of weights.
            self.cost.prefilled(prompt, Micros(took.0.saturating_sub(step).max(took.0 / 2)));
        }
    }

    /// Draws what a step's logits allow.
    fn deliver(&mut self, parts: Vec<Part>, logits: &[Vec<Vec<f32>>]) {
        let now = self.shared.now();
        for (part, logits) in parts.into_iter().zip(logits) {
            self.draw(part, logits, now);
        }
    }

    /// Draws a part's tokens: behind what was known, and behind each drafted token that was drawn,
    /// as if it had been computed in a step of its own.
    fn draw(&mut self, part: Part, logits: &[Vec<f32>], now: Mono) {
        let Part { work, mut cache, .. } = part;
        let id = work.id;
        // First of all: what is kept outlives the request.
        if let Some(page) = self.schedule.computed(&work)
            && let Err(error) = self.keep(page, &mut cache)
        {
            self.lost(id, &error);
        }
        let Some(mut job) = self.jobs.remove(&id) else { return };
        let mut length = (work.computed + work.tokens) as usize;
        job.reach(length, false);
        for (at, logits) in logits.iter().enumerate() {
            job = match job.deliver(logits, &mut self.draws, now) {
                Some(job) => job,
                None => {
                    self.schedule.leave(id);
                    return;
                }
            };
            let Some(&token) = job.tokens.last() else { break };
            self.schedule.drawn(id, token);
            if work.draft.get(at) != Some(&token) {
                break;
            }
            length += 1;
            if let Some(page) = self.schedule.accepted(id)
                && let Err(error) = self.keep(page, &mut cache)
            {
                tracing::error!(%id, %error, "a page is lost");
                self.schedule.leave(id);
                job.fail(failure(&error));
                return;
            }
        }
        // What was computed behind a token that was not drawn.
        cache.truncate(length);
        job.reach(length, false);
        job.cache = Some(cache);
        self.jobs.insert(id, job);
    }

    fn end(&mut self, id: RequestId, refusal: Refusal) {
        self.schedule.leave(id);
        if let Some(job) = self.jobs.remove(&id) {
            job.fail(refusal);
        }
    }

    fn end_all(&mut self, parts: &[Part], refusal: &Refusal) {
        for part in parts {
            self.end(part.work.id, refusal.clone());
        }
    }

    fn publish(&mut self) {
        self.release();
        let pulse = Pulse {
            running: self.schedule.running(),
            pending_tokens: self.schedule.pending_tokens(),
            undrawn_tokens: self.schedule.undrawn_tokens(),
            cost: self.cost,
            step_us: self.schedule.next_step_us(&self.cost),
            drafts: self.schedule.drafts(),
        };
        self.shared.publish(self.digest, pulse);
    }
}

fn run(
    llama: &Llama,
    crew: &mut Crew,
    parts: &mut [Part],
    progress: &std::sync::atomic::AtomicU64,
) -> Result<Computed, EngineError> {
    let mut segments: Vec<_> = parts
        .iter_mut()
        .map(|part| Segment {
            cache: &mut part.cache,
            tokens: &part.tokens,
            logits: match (part.work.draws, part.work.draft.is_empty()) {
                (false, _) => Logits::None,
                (true, true) => Logits::Last,
                // Then its last known token is its only one.
                (true, false) => Logits::All,
            },
            added: part.tuned.as_ref().map(|tuned| &tuned.additions),
        })
        .collect();
    llama.step(crew, &mut segments, progress)
}

fn kept(pages: &BTreeMap<PageId, SharedPage>, page: PageId) -> Result<SharedPage, EngineError> {
    pages.get(&page).cloned().ok_or_else(no_page)
}

fn no_page() -> EngineError {
    EngineError::Compute("a page that was kept is not there".to_owned())
}

fn failure(error: &EngineError) -> Refusal {
    let text = error.to_string();
    // Drivers have no common type for it, but all say it.
    let memory = text.to_ascii_lowercase().contains("memory");
    let code = if memory { Code::OutOfMemory } else { Code::Internal };
    elsewhere(code, format!("the computation failed: {text}"))
}
