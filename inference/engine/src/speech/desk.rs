//! The thread that hears: one loop over windows of sound, for all models of an engine.
//!
//! Owns the loaded models and the requests under way, which take turns window by window. A request
//! that was given up ends within a layer or a token. A panic costs the requests for the model it
//! met. Computes on a crew of its own, which sleeps while there is nothing to do.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use candle_core::Device;
use selvedge_base::{Code, ModelDigest, Refusal};
use selvedge_contract::residence::Wish;
use selvedge_contract::{ModelState, Samples, SpeechRequest, SpeechSink, Transcript};
use selvedge_kernels::SpeechCrew;

use super::listener::Listener;
use super::listening::{Listening, Step};
use crate::error::elsewhere;
use crate::front::closing;
use crate::job::cancelled;
use crate::loader;
use crate::memory::Reservation;
use crate::shared::{Place, Pulse, Shared};
use crate::worker;

/// What the thread is told.
pub(crate) enum Message {
    /// A request.
    Job(Box<Job>),
    /// A model's weights are in memory.
    Loaded(ModelDigest, Box<(Listener, Reservation)>),
    /// A model was removed, or makes room for another.
    Removed(ModelDigest),
}

/// A request under way.
pub(crate) struct Job {
    listening: Listening,
    sink: SpeechSink,
    /// Held until the end.
    place: Place,
}

impl Job {
    pub(crate) fn new(
        request: SpeechRequest,
        sound: Samples,
        sink: SpeechSink,
        place: Place,
    ) -> Self {
        Self { listening: Listening::new(request, sound), sink, place }
    }

    const fn model(&self) -> ModelDigest {
        self.listening.request().model
    }

    fn is_cancelled(&self) -> bool {
        self.place.cancelled.load(Ordering::Relaxed)
    }

    /// Ends it. A sink that panics hears nothing more.
    fn end(self, end: Result<Transcript, Refusal>) {
        // Given up first: whoever hears of the end may submit the next request at once.
        drop(self.place);
        if catch_unwind(AssertUnwindSafe(|| (self.sink)(end))).is_err() {
            tracing::error!("hearing the end of a request panicked");
        }
    }

    pub(crate) fn fail(self, refusal: Refusal) {
        self.end(Err(refusal));
    }
}

/// The thread's state.
pub(crate) struct Desk {
    shared: Arc<Shared>,
    device: Device,
    crew: Option<SpeechCrew>,
    listeners: BTreeMap<ModelDigest, (Listener, Reservation)>,
    jobs: VecDeque<Box<Job>>,
}

impl Desk {
    pub(crate) fn new(shared: Arc<Shared>, device: Device) -> Self {
        Self { shared, device, crew: None, listeners: BTreeMap::new(), jobs: VecDeque::new() }
    }

    /// Hears until the engine closes, whatever panics. Each panic takes the requests with it that
    /// it met, so this comes to an end.
    pub(crate) fn serve(&mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            tracing::error!("the thread that hears panicked; it starts afresh");
            self.crew = None;
            for job in self.jobs.drain(..) {
                job.fail(broken());
            }
        }
    }

    /// Hears until the engine closes, then fails what is left.
    fn run(&mut self) {
        loop {
            // Those whose model is still being loaded wait for it, or for its failure.
            let wait = !self.jobs.iter().any(|job| self.listeners.contains_key(&job.model()));
            let Some(messages) = self.shared.hearing.take_all(wait) else { break };
            self.receive(messages);
            self.sweep();
            self.step();
        }
        let left = self.shared.hearing.drain();
        self.receive(left);
        for job in self.jobs.drain(..) {
            job.fail(closing());
        }
    }

    fn receive(&mut self, messages: VecDeque<Message>) {
        for message in messages {
            match message {
                Message::Job(job) => self.jobs.push_back(job),
                Message::Loaded(digest, listener) => {
                    if self.shared.set_state(digest, ModelState::Ready, None) {
                        self.listeners.insert(digest, *listener);
                        self.tell_memory();
                    }
                }
                Message::Removed(digest) => {
                    if self.listeners.remove(&digest).is_some() {
                        if self.listeners.is_empty() {
                            self.crew = None;
                        }
                        self.shared.unloaded(digest);
                        self.tell_memory();
                    }
                }
            }
        }
    }

    /// Has what is left of the memory divided anew among models that write.
    fn tell_memory(&self) {
        // A closed engine divides nothing any more.
        drop(self.shared.worker.push(worker::Message::Memory));
    }

    /// Ends what was given up or whose model is not coming, and loads models that are wanted.
    fn sweep(&mut self) {
        let mut kept = VecDeque::with_capacity(self.jobs.len());
        for job in std::mem::take(&mut self.jobs) {
            let model = job.model();
            if job.is_cancelled() {
                job.fail(cancelled());
            } else if let Some(refusal) = self.shared.unavailable(model, job.place.turn) {
                job.fail(refusal);
            } else {
                if !self.listeners.contains_key(&model) && self.shared.begin_loading(model) {
                    loader::spawn(&self.shared, &self.device, model, (Duration::ZERO, Wish::Asked));
                }
                kept.push_back(job);
            }
        }
        self.jobs = kept;
    }

    /// One step of the request that waits longest and whose model is there.
    fn step(&mut self) {
        let loaded = |job: &Job| self.listeners.contains_key(&job.model());
        let Some(first) = self.jobs.iter().position(|job| loaded(job)) else { return };
        let Some(mut job) = self.jobs.remove(first) else { return };
        let model = job.model();
        let waiting = self.jobs.iter().filter(|other| other.model() == model).count();
        self.shared.publish(model, Pulse { running: 1, ..Pulse::default() });
        let step = catch_unwind(AssertUnwindSafe(|| self.advance(model, &mut job)));
        match step {
            // Others have their turn.
            Ok(Ok(Step::More)) => self.jobs.push_back(job),
            Ok(Ok(Step::Done)) => {
                let done = job.listening.finish();
                job.end(Ok(done));
            }
            Ok(Ok(Step::GivenUp)) => job.fail(cancelled()),
            Ok(Err(refusal)) => job.fail(refusal),
            Err(_) => {
                tracing::error!(%model, "hearing a window panicked");
                // What it left half done is not to be trusted.
                self.crew = None;
                job.fail(broken());
            }
        }
        let running = usize::from(waiting > 0);
        self.shared.publish(model, Pulse { running, ..Pulse::default() });
    }

    fn advance(&mut self, model: ModelDigest, job: &mut Job) -> Result<Step, Refusal> {
        let crew = match &mut self.crew {
            Some(crew) => crew,
            none => {
                let crew = SpeechCrew::new(self.shared.config.thread_count());
                let crew = crew.map_err(|error| {
                    elsewhere(Code::Internal, format!("cannot start a thread: {error}"))
                })?;
                none.insert(crew)
            }
        };
        let Some((listener, _)) = self.listeners.get_mut(&model) else {
            return Err(elsewhere(Code::ModelUnavailable, "the model was removed"));
        };
        let (progress, cancelled) = (&self.shared.progress, &job.place.cancelled);
        let mut go_on = || {
            progress.fetch_add(1, Ordering::Relaxed);
            match cancelled.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        job.listening.step(listener, crew, &mut go_on)
    }
}

/// The refusal for what a panic cost.
fn broken() -> Refusal {
    elsewhere(Code::Internal, "the computation of this transcript broke down")
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "desk_tests.rs"]
mod tests;
