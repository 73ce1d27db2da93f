//! The stepping thread: one loop that computes, step by step, for all models of an engine.
//!
//! Owns the loaded models and the jobs under way, and carries out the schedule's plans. Runs on a
//! thread of its own with a crew of its own; nothing here waits for anybody but the
//! mailbox. A panic inside a step costs the requests of that step and reloads that model; one
//! anywhere else costs the requests this thread had taken and reloads all models. The thread
//! itself survives both.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use candle_core::Device;
use selvedge_base::{Code, ModelDigest, Refusal};
use selvedge_contract::ModelState;
use selvedge_contract::residence::{Wish, divide};
use selvedge_kernels::Crew;

use crate::error::{EngineError, elsewhere};
use crate::front::closing;
use crate::job::{Job, cancelled};
use crate::llama::Llama;
use crate::loader;
use crate::memory::Reservation;
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
    /// A model makes room for another: it has no request.
    Evicted(ModelDigest),
    /// Other models' weights have come or gone.
    Memory,
}

/// A model's weights.
pub(crate) struct Loaded {
    pub(crate) llama: Llama,
    /// The memory they take; given back after them.
    #[expect(dead_code, reason = "held for what its end does")]
    pub(crate) reservation: Reservation,
    pub(crate) kv_token_bytes: u64,
    /// Bytes that are kept for its keys and values at least.
    pub(crate) kept: u64,
}

/// The stepping thread's state.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    device: Device,
    crew: Crew,
    /// Taken from the mailbox and not looked at.
    inbox: VecDeque<Message>,
    runners: BTreeMap<ModelDigest, Runner>,
    /// Requests whose model is not in memory yet.
    #[expect(clippy::vec_box, reason = "jobs are large and move between threads and maps")]
    waiting: Vec<Box<Job>>,
    crashes: BTreeMap<ModelDigest, u32>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, device: Device) -> Result<Self, EngineError> {
        let crew = Crew::new(shared.config.thread_count())
            .map_err(|error| EngineError::Thread(error.to_string()))?;
        let (runners, crashes) = (BTreeMap::new(), BTreeMap::new());
        let inbox = VecDeque::new();
        Ok(Self { shared, device, crew, inbox, runners, waiting: Vec::new(), crashes })
    }

    /// Computes until the engine closes, whatever panics. Each panic takes the message or the
    /// requests with it that it met, so this comes to an end.
    pub(crate) fn serve(&mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            tracing::error!("the stepping thread panicked; it starts afresh");
            if catch_unwind(AssertUnwindSafe(|| self.restart())).is_err() {
                tracing::error!("starting afresh panicked, too");
            }
        }
    }

    /// Computes until the engine closes, then fails what is left.
    fn run(&mut self) {
        loop {
            let idle = self.runners.values().all(Runner::is_idle);
            self.shared.computing.store(!idle, Ordering::Relaxed);
            // What a panic left over comes first.
            let wait = idle && self.inbox.is_empty();
            let Some(messages) = self.shared.worker.take_all(wait) else { break };
            self.inbox.extend(messages);
            self.receive();
            // Weights that are being loaded take memory before they are here.
            self.share_memory();
            self.settle_waiting();
            let busy = self.runners.iter().filter(|(_, runner)| !runner.is_idle());
            let busy: Vec<_> =
                busy.map(|(digest, runner)| (*digest, runner.is_answering())).collect();
            for &(digest, answers) in &busy {
                let answering = busy.iter().filter(|(_, answers)| *answers).count();
                self.step(digest, (busy.len() - 1, answering - usize::from(answers)));
            }
        }
        self.shared.computing.store(false, Ordering::Relaxed);
        self.inbox.extend(self.shared.worker.drain());
        self.receive();
        self.fail_all(&closing());
    }

    /// Forgets everything that a panic may have left half done: requests fail, models are loaded
    /// again. Messages not looked at yet are kept.
    fn restart(&mut self) {
        self.shared.computing.store(false, Ordering::Relaxed);
        self.fail_all(&broken());
        self.runners.clear();
        for digest in self.shared.ready_models() {
            self.reload(digest);
        }
    }

    /// Fails the requests that this thread has taken.
    fn fail_all(&mut self, refusal: &Refusal) {
        let waiting = std::mem::take(&mut self.waiting);
        for job in self.runners.values_mut().flat_map(Runner::take_jobs).chain(waiting) {
            job.fail(refusal.clone());
        }
    }

    fn receive(&mut self) {
        while let Some(message) = self.inbox.pop_front() {
            match message {
                Message::Job(job) => self.waiting.push(job),
                Message::Loaded(digest, loaded) => self.loaded(digest, *loaded),
                Message::Memory => self.share_memory(),
                Message::Evicted(digest) => self.evict(digest),
                Message::Removed(digest) => {
                    let refusal = elsewhere(Code::ModelNotFound, "the model was removed");
                    self.unload(digest, &refusal);
                }
            }
        }
    }

    fn loaded(&mut self, digest: ModelDigest, loaded: Loaded) {
        if !self.shared.set_state(digest, ModelState::Ready, None) {
            return;
        }
        // What was measured before it was unloaded holds still.
        let cost = self.shared.cost(digest);
        // A model that was removed and added again while it was loading is loaded twice. The
        // weights are the same: the first ones stay, with the requests they work on.
        self.runners
            .entry(digest)
            .or_insert_with(|| Runner::new(Arc::clone(&self.shared), digest, loaded, cost));
        self.share_memory();
    }

    /// Divides what weights leave of the budget among the models in memory. None gets less than its
    /// running answers need: weights that come find no memory before those have ended.
    fn share_memory(&mut self) {
        let floors: Vec<u64> = self.runners.values().map(Runner::set_aside).collect();
        let parts = divide(self.shared.free_bytes(), &floors);
        for (runner, part) in self.runners.values_mut().zip(parts) {
            runner.resize(part);
        }
    }

    /// Hands requests to their model once it is there, and fails those whose model is not coming.
    fn settle_waiting(&mut self) {
        for job in std::mem::take(&mut self.waiting) {
            #[cfg(test)]
            assert!(!job.tokens.starts_with(&crate::testing::FATAL_TO_SETTLE), "a test's fault");
            if job.is_cancelled() {
                job.fail(cancelled());
            } else if let Some(runner) = self.runners.get_mut(&job.model) {
                runner.accept(job);
            } else if let Some(refusal) = self.shared.unavailable(job.model, job.turn()) {
                job.fail(refusal);
            } else {
                if self.shared.begin_loading(job.model) {
                    loader::spawn(
                        &self.shared,
                        &self.device,
                        job.model,
                        (Duration::ZERO, Wish::Asked),
                    );
                }
                self.waiting.push(job);
            }
        }
    }

    /// Computes one step of a model, for which so many others wait, so many of them with answers.
    fn step(&mut self, digest: ModelDigest, others: (usize, usize)) {
        let Some(runner) = self.runners.get_mut(&digest) else { return };
        match catch_unwind(AssertUnwindSafe(|| runner.step(&mut self.crew, others))) {
            Ok(Ok(())) => {}
            Ok(Err(Crash)) => self.crashed(digest),
            Err(_) => {
                // Outside the arithmetic nobody can tell whose fault it was.
                for job in runner.take_jobs() {
                    job.fail(broken());
                }
                self.crashed(digest);
            }
        }
    }

    /// Takes a model whose step panicked out of memory and loads it again, later each time.
    fn crashed(&mut self, digest: ModelDigest) {
        if let Some(mut runner) = self.runners.remove(&digest) {
            self.waiting.extend(runner.take_jobs());
        }
        self.share_memory();
        self.reload(digest);
        self.settle_waiting();
    }

    /// Loads a model again after a panic, unless there were too many.
    fn reload(&mut self, digest: ModelDigest) {
        let crashes = self.crashes.entry(digest).or_default();
        *crashes += 1;
        let (count, delay) = (*crashes, FIRST_RELOAD * (1 << (*crashes - 1).min(4)));
        tracing::error!(%digest, count, "a panic cost this model; it is loaded again");
        self.shared.publish(digest, Pulse::default());
        if count >= MAX_CRASHES {
            let error = EngineError::Compute(format!("its computation panicked {count} times"));
            self.shared.set_state(digest, ModelState::Failed, Some(error));
        } else if self.shared.set_state(digest, ModelState::Loading, None) {
            loader::spawn(&self.shared, &self.device, digest, (delay, Wish::Ahead));
        }
    }

    /// Frees a model that has nothing to do.
    fn evict(&mut self, digest: ModelDigest) {
        let Some(mut runner) = self.runners.remove(&digest) else { return };
        // There are none; one that there was would wait for the model to come back.
        self.waiting.extend(runner.take_jobs());
        // Giving gigabytes back takes a while that other models' answers need not wait for. Where
        // there is no thread to be had it is done here.
        let thread = std::thread::Builder::new().name("selvedge-free".to_owned());
        if let Err(error) = thread.spawn(move || drop(runner)) {
            tracing::debug!(%error, "a model was freed between two steps");
        }
        self.share_memory();
    }

    fn unload(&mut self, digest: ModelDigest, refusal: &Refusal) {
        self.crashes.remove(&digest);
        if let Some(mut runner) = self.runners.remove(&digest) {
            for job in runner.take_jobs() {
                job.fail(refusal.clone());
            }
            drop(runner);
            self.shared.unloaded(digest);
            self.share_memory();
        }
    }
}

/// The refusal for what a panic cost.
fn broken() -> Refusal {
    elsewhere(Code::Internal, "the computation of this answer broke down")
}
