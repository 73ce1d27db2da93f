//! The threads that hand requests to ONNX models: one for each loaded model, and one that knows
//! them.
//!
//! Owns the requests under way. Those of one model are run one after the other, each on all threads
//! of its process; one model that takes long holds up no other. A request that was given up is not
//! begun, and one that runs is ended with its process.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use candle_core::Device;
use selvedge_base::{Code, Micros, ModelDigest, Mono, Refusal};
use selvedge_contract::residence::Wish;
use selvedge_contract::{InferRequest, InferSink, ModelState, Tensor};

use super::host::{Host, Patience, late};
use crate::desk::{self, Work, tell_memory};
use crate::error::elsewhere;
use crate::front::closing;
use crate::job::cancelled;
use crate::loader;
use crate::mailbox::Mailbox;
use crate::memory::Reservation;
use crate::shared::{Place, Pulse, Shared};

/// What the thread that knows the models is told.
pub(crate) type Message = desk::Message<Inferring, Host>;
/// A request under way.
pub(crate) type Job = desk::Job<Inferring>;

/// What is asked, and who hears of it.
pub(crate) struct Inferring {
    request: InferRequest,
    sink: InferSink,
    until: Mono,
}

impl Job {
    pub(crate) fn new(request: InferRequest, sink: InferSink, place: Place, now: Mono) -> Self {
        let until = now.plus(request.within);
        Self { work: Inferring { request, sink, until }, place }
    }
}

impl Work for Inferring {
    type Told = Vec<Tensor>;

    fn model(&self) -> ModelDigest {
        self.request.model
    }

    fn tell(self, end: Result<Vec<Tensor>, Refusal>) {
        (self.sink)(end);
    }
}

/// The state of the thread that knows the models.
pub(crate) struct Desk {
    shared: Arc<Shared>,
    device: Device,
    runners: BTreeMap<ModelDigest, Runner>,
    /// Requests for models that are not loaded yet.
    waiting: VecDeque<Box<Job>>,
}

/// A loaded model's thread. Dropping it ends the thread, and with it the model's process.
struct Runner {
    jobs: Arc<Mailbox<Box<Job>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.jobs.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread of a model had panicked");
        }
    }
}

impl Desk {
    pub(crate) fn new(shared: Arc<Shared>, device: Device) -> Self {
        Self { shared, device, runners: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Hands requests on until the engine closes, then fails what is left.
    pub(crate) fn serve(&mut self) {
        while let Some(messages) = self.shared.tensors.take_all(true) {
            self.receive(messages);
            self.sweep();
        }
        let left = self.shared.tensors.drain();
        self.receive(left);
        self.runners.clear();
        for job in self.waiting.drain(..) {
            job.end(Err(closing()));
        }
    }

    fn receive(&mut self, messages: VecDeque<Message>) {
        for message in messages {
            match message {
                Message::Job(job) => self.waiting.push_back(job),
                Message::Loaded(digest, loaded) => self.take(digest, *loaded),
                Message::Removed(digest) => {
                    if self.runners.remove(&digest).is_some() {
                        self.shared.unloaded(digest);
                        tell_memory(&self.shared);
                    }
                }
            }
        }
    }

    fn take(&mut self, digest: ModelDigest, (host, reservation): (Host, Reservation)) {
        if !self.shared.set_state(digest, ModelState::Ready, None) {
            return;
        }
        match Runner::start(&self.shared, digest, host, reservation) {
            Ok(runner) => {
                self.runners.insert(digest, runner);
                tell_memory(&self.shared);
            }
            Err(error) => {
                let reason = crate::EngineError::Thread(error.to_string());
                self.shared.set_state(digest, ModelState::Failed, Some(reason));
            }
        }
    }

    /// Hands on what can be run, ends what was given up or whose model is not coming, and loads
    /// models that are wanted.
    fn sweep(&mut self) {
        for job in std::mem::take(&mut self.waiting) {
            let model = job.work.model();
            if job.is_cancelled() {
                job.end(Err(cancelled()));
            } else if let Some(refusal) = self.shared.unavailable(model, job.place.turn) {
                job.end(Err(refusal));
            } else if let Some(runner) = self.runners.get(&model) {
                if let Err(job) = runner.jobs.push(job) {
                    job.end(Err(closing()));
                }
            } else {
                if self.shared.begin_loading(model) {
                    loader::spawn(&self.shared, &self.device, model, (Duration::ZERO, Wish::Asked));
                }
                self.waiting.push_back(job);
            }
        }
    }
}

impl Runner {
    fn start(
        shared: &Arc<Shared>,
        digest: ModelDigest,
        host: Host,
        reservation: Reservation,
    ) -> std::io::Result<Self> {
        let (jobs, stopped) = (Arc::new(Mailbox::new()), Arc::new(AtomicBool::new(false)));
        let mut bench = Bench {
            shared: Arc::clone(shared),
            digest,
            host,
            jobs: Arc::clone(&jobs),
            stopped: Arc::clone(&stopped),
            _reservation: reservation,
        };
        let thread = std::thread::Builder::new().name("selvedge-onnx".to_owned());
        let thread = Some(thread.spawn(move || bench.serve())?);
        Ok(Self { jobs, stopped, thread })
    }
}

/// The state of a model's thread.
struct Bench {
    shared: Arc<Shared>,
    digest: ModelDigest,
    host: Host,
    jobs: Arc<Mailbox<Box<Job>>>,
    stopped: Arc<AtomicBool>,
    _reservation: Reservation,
}

impl Bench {
    fn serve(&mut self) {
        while let Some(job) = self.jobs.take() {
            self.publish(1);
            self.run(*job);
            self.shared.progress.fetch_add(1, Ordering::Relaxed);
            self.publish(0);
        }
        for job in self.jobs.drain() {
            job.end(Err(closing()));
        }
    }

    fn publish(&self, running: usize) {
        self.shared.publish(self.digest, Pulse { running, ..Pulse::default() });
    }

    fn run(&mut self, mut job: Job) {
        if job.is_cancelled() {
            return job.end(Err(cancelled()));
        }
        if job.work.until.since(self.shared.now()) == Micros(0) {
            return job.end(Err(late()));
        }
        let inputs = std::mem::take(&mut job.work.request.inputs);
        let outputs = std::mem::take(&mut job.work.request.outputs);
        let stopped = Arc::clone(&self.stopped);
        let kept = || !stopped.load(Ordering::Relaxed);
        let wanted = || !job.is_cancelled() && kept();
        let (shared, until) = (&self.shared, job.work.until);
        let clock = || shared.now();
        let patience = Patience { until, clock: &clock, wanted: &wanted, kept: &kept };
        let host = &mut self.host;
        let made = catch_unwind(AssertUnwindSafe(|| host.run(inputs, outputs, &patience)));
        let made = made.unwrap_or_else(|_| {
            Err(elsewhere(Code::Internal, "the computation of these outputs broke down"))
        });
        job.end(made);
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "desk_tests.rs"]
mod tests;
