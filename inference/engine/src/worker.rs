//! The stepping thread: one loop that computes, step by step, for all models of an engine.
//!
//! Owns the loaded models and the jobs under way, and carries out the schedule's plans. Runs on a
//! thread of its own with a thread pool of its own; nothing here waits for anybody but the
//! mailbox. A panic inside a step costs the requests of that step and reloads that model.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use candle_core::Device;
use selvedge_base::{Code, ModelDigest, RequestId};
use selvedge_contract::{CostModel, ModelState};

use crate::error::{EngineError, elsewhere};
use crate::front::closing;
use crate::job::{Job, cancelled};
use crate::llama::Llama;
use crate::loader;
use crate::runner::{Crash, Runner};
use crate::shared::{Pulse, Shared};

/// Wait before the first reload after a panic; it doubles with each one after.
const FIRST_RELOAD: Duration = Duration::from_secs(1);
/// Panics after which a model is given up: a fault that survives five reloads is in the file or in
/// the code, not in one request.
const MAX_CRASHES: u32 = 5;

/// What the stepping thread is told.
pub(crate) enum Message {
    /// A prepared request.
    Job(Box<Job>),
    /// A model's weights are in memory.
    Loaded(ModelDigest, Box<Loaded>),
    /// A model was removed.
    Removed(ModelDigest),
}

/// A model's weights.
pub(crate) struct Loaded {
    pub(crate) llama: Llama,
    pub(crate) bytes: u64,
    pub(crate) kv_token_bytes: u64,
}

/// The stepping thread's state.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    device: Device,
    pool: rayon::ThreadPool,
    runners: BTreeMap<ModelDigest, Runner>,
    /// Requests whose model is not in memory yet.
    #[expect(clippy::vec_box, reason = "jobs are large and move between threads and maps")]
    waiting: Vec<Box<Job>>,
    crashes: BTreeMap<ModelDigest, u32>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, device: Device) -> Result<Self, EngineError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(shared.config.thread_count())
            .thread_name(|index| format!("selvedge-compute-{index}"))
            .build()
            .map_err(|error| EngineError::Thread(error.to_string()))?;
        let (runners, crashes) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { shared, device, pool, runners, waiting: Vec::new(), crashes })
    }

    /// Computes until the engine closes, then fails what is left.
    pub(crate) fn run(mut self) {
        loop {
            let idle = self.runners.values().all(Runner::is_idle);
            self.shared.computing.store(!idle, Ordering::Relaxed);
            let Some(messages) = self.shared.worker.take_all(idle) else { break };
            self.receive(messages);
            self.settle_waiting();
            let busy = self.runners.iter().filter(|(_, runner)| !runner.is_idle());
            for digest in busy.map(|(digest, _)| *digest).collect::<Vec<_>>() {
                self.step(digest);
            }
        }
        self.shared.computing.store(false, Ordering::Relaxed);
        let undelivered = self.shared.worker.drain();
        self.receive(undelivered);
        for job in self.runners.values_mut().flat_map(Runner::take_jobs).chain(self.waiting) {
            fail(&self.shared, job, closing());
        }
    }

    fn receive(&mut self, messages: VecDeque<Message>) {
        for message in messages {
            match message {
                Message::Job(job) => self.waiting.push(job),
                Message::Loaded(digest, loaded) => self.loaded(digest, *loaded),
                Message::Removed(digest) => {
                    let refusal = elsewhere(Code::ModelNotFound, "the model was removed");
                    self.unload(digest, |_| refusal.clone());
                }
            }
        }
    }

    fn loaded(&mut self, digest: ModelDigest, loaded: Loaded) {
        if !self.shared.set_state(digest, ModelState::Ready, None) {
            self.shared.release_weights(loaded.bytes);
            return;
        }
        let cost = CostModel::default();
        let runner = Runner::new(Arc::clone(&self.shared), digest, loaded, cost);
        if let Some(old) = self.runners.insert(digest, runner) {
            self.shared.release_weights(old.bytes());
        }
        self.share_memory();
    }

    /// Divides what weights leave of the budget among the models in memory.
    fn share_memory(&mut self) {
        let share = self.shared.free_bytes() / self.runners.len().max(1) as u64;
        for runner in self.runners.values_mut() {
            runner.resize(share);
        }
    }

    /// Hands requests to their model once it is there, and fails those whose model is not coming.
    fn settle_waiting(&mut self) {
        for job in std::mem::take(&mut self.waiting) {
            if job.is_cancelled() {
                fail(&self.shared, job, cancelled());
            } else if let Some(runner) = self.runners.get_mut(&job.model) {
                runner.accept(job);
            } else if let Some(refusal) = self.shared.unavailable(job.model) {
                fail(&self.shared, job, refusal);
            } else {
                if self.shared.begin_loading(job.model) {
                    loader::spawn(&self.shared, &self.device, job.model, Duration::ZERO);
                }
                self.waiting.push(job);
            }
        }
    }

    fn step(&mut self, digest: ModelDigest) {
        let Some(runner) = self.runners.get_mut(&digest) else { return };
        if let Err(Crash) = runner.step(&self.pool) {
            self.crashed(digest);
        }
    }

    /// Takes a model whose step panicked out of memory and loads it again, later each time.
    fn crashed(&mut self, digest: ModelDigest) {
        let crashes = self.crashes.entry(digest).or_default();
        *crashes += 1;
        let (count, delay) = (*crashes, FIRST_RELOAD * (1 << (*crashes - 1).min(4)));
        tracing::error!(%digest, count, "a step panicked; the model is loaded again");
        if let Some(mut runner) = self.runners.remove(&digest) {
            self.waiting.extend(runner.take_jobs());
            self.shared.release_weights(runner.bytes());
        }
        self.shared.publish(digest, Pulse::default());
        self.share_memory();
        if count >= MAX_CRASHES {
            let error = EngineError::Compute(format!("its computation panicked {count} times"));
            self.shared.set_state(digest, ModelState::Failed, Some(error));
        } else if self.shared.set_state(digest, ModelState::Loading, None) {
            loader::spawn(&self.shared, &self.device, digest, delay);
        }
        self.settle_waiting();
    }

    fn unload(
        &mut self,
        digest: ModelDigest,
        refusal: impl Fn(RequestId) -> selvedge_base::Refusal,
    ) {
        self.crashes.remove(&digest);
        if let Some(mut runner) = self.runners.remove(&digest) {
            for job in runner.take_jobs() {
                let refusal = refusal(job.id);
                fail(&self.shared, job, refusal);
            }
            self.shared.release_weights(runner.bytes());
            self.share_memory();
        }
    }
}

/// Ends a request with a refusal.
pub(crate) fn fail(shared: &Shared, job: Box<Job>, refusal: selvedge_base::Refusal) {
    let id = job.id;
    // Forgotten first: whoever hears of the end may submit the next request at once.
    shared.ended(id);
    job.fail(refusal);
}
