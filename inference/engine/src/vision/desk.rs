//! The thread that sees: one loop over pictures, for all models of an engine that do.
//!
//! Owns the loaded models and the requests under way, which take turns picture by picture. A
//! request that was given up ends within a layer, or when the picture that is read has been. A
//! panic costs the request it met. Computes on a crew of its own, which sleeps while there is
//! nothing to do.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use candle_core::Device;
use selvedge_base::{Code, ModelDigest, Refusal};
use selvedge_contract::residence::Wish;
use selvedge_contract::{
    EmbedRequest, EmbedSink, Embedded, InferRequest, InferSink, ModelState, Tensor,
};
use selvedge_kernels::EncoderCrew;

use super::asked::Asked;
use super::seer::Seer;
use crate::error::elsewhere;
use crate::front::closing;
use crate::job::cancelled;
use crate::loader;
use crate::memory::Reservation;
use crate::shared::{Place, Pulse, Shared};
use crate::worker;

/// Tokens of texts that are read at a time: weights are brought from memory for many rows at once.
const BATCH_TOKENS: usize = 512;

/// What the thread is told.
pub(crate) enum Message {
    /// A request.
    Job(Box<Job>),
    /// A model's weights are in memory.
    Loaded(ModelDigest, Box<(Seer, Reservation)>),
    /// A model was removed, or makes room for another.
    Removed(ModelDigest),
}

/// A request under way.
pub(crate) struct Job {
    model: ModelDigest,
    asked: Asked,
    made: Made,
    sink: Sink,
    /// Held until the end.
    place: Place,
}

/// What was made of a request so far.
#[derive(Default)]
struct Made {
    of_pictures: Vec<Vec<f32>>,
    of_texts: Vec<Vec<f32>>,
    tokens: u64,
}

/// Whoever hears the end.
enum Sink {
    Tensors(InferSink),
    Vectors(EmbedSink),
}

/// How a step ended.
enum Step {
    More,
    Done,
    GivenUp,
}

impl Job {
    /// A request with tensors that fit the model's signature.
    pub(crate) fn tensors(
        request: &InferRequest,
        sink: InferSink,
        admit: impl FnOnce() -> Result<Place, Refusal>,
    ) -> Result<Self, Refusal> {
        let (asked, made) = (Asked::tensors(request)?, Made::default());
        Ok(Self { model: request.model, asked, made, sink: Sink::Tensors(sink), place: admit()? })
    }

    /// A request for vectors of texts.
    pub(crate) fn vectors(mut request: EmbedRequest, sink: EmbedSink, place: Place) -> Self {
        let (asked, made) = (Asked::vectors(&mut request), Made::default());
        Self { model: request.model, asked, made, sink: Sink::Vectors(sink), place }
    }

    fn is_cancelled(&self) -> bool {
        self.place.cancelled.load(Ordering::Relaxed)
    }

    fn fail(self, refusal: Refusal) {
        self.end(Err(refusal));
    }

    /// Ends it. A sink that panics hears nothing more.
    fn end(self, tensors: Result<Vec<Tensor>, Refusal>) {
        let Self { made: Made { of_texts: vectors, tokens, .. }, sink, place, .. } = self;
        // Given up first: whoever hears of the end may submit the next request at once.
        drop(place);
        let told = || match sink {
            Sink::Tensors(sink) => sink(tensors),
            Sink::Vectors(sink) => sink(tensors.map(|_| Embedded { vectors, tokens })),
        };
        if catch_unwind(AssertUnwindSafe(told)).is_err() {
            tracing::error!("hearing the end of a request panicked");
        }
    }
}

/// The thread's state.
pub(crate) struct Desk {
    shared: Arc<Shared>,
    device: Device,
    crew: Option<EncoderCrew>,
    seers: BTreeMap<ModelDigest, (Seer, Reservation)>,
    jobs: VecDeque<Box<Job>>,
}

impl Desk {
    pub(crate) fn new(shared: Arc<Shared>, device: Device) -> Self {
        Self { shared, device, crew: None, seers: BTreeMap::new(), jobs: VecDeque::new() }
    }

    /// Sees until the engine closes, whatever panics. Each panic takes the requests with it that it
    /// met, so this comes to an end.
    pub(crate) fn serve(&mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            tracing::error!("the thread that sees panicked; it starts afresh");
            self.crew = None;
            for job in self.jobs.drain(..) {
                job.fail(broken());
            }
        }
    }

    /// Sees until the engine closes, then fails what is left.
    fn run(&mut self) {
        loop {
            // Those whose model is still being loaded wait for it, or for its failure.
            let wait = !self.jobs.iter().any(|job| self.seers.contains_key(&job.model));
            let Some(messages) = self.shared.sight.take_all(wait) else { break };
            self.receive(messages);
            self.sweep();
            self.step();
        }
        let left = self.shared.sight.drain();
        self.receive(left);
        for job in self.jobs.drain(..) {
            job.fail(closing());
        }
    }

    fn receive(&mut self, messages: VecDeque<Message>) {
        for message in messages {
            match message {
                Message::Job(job) => self.jobs.push_back(job),
                Message::Loaded(digest, seer) => {
                    if self.shared.set_state(digest, ModelState::Ready, None) {
                        self.seers.insert(digest, *seer);
                        self.tell_memory();
                    }
                }
                Message::Removed(digest) => {
                    if self.seers.remove(&digest).is_some() {
                        if self.seers.is_empty() {
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
            let model = job.model;
            if job.is_cancelled() {
                job.fail(cancelled());
            } else if let Some(refusal) = self.shared.unavailable(model, job.place.turn) {
                job.fail(refusal);
            } else {
                if !self.seers.contains_key(&model) && self.shared.begin_loading(model) {
                    loader::spawn(&self.shared, &self.device, model, (Duration::ZERO, Wish::Asked));
                }
                kept.push_back(job);
            }
        }
        self.jobs = kept;
    }

    /// One step of the request that waits longest and whose model is there.
    fn step(&mut self) {
        let loaded = |job: &Job| self.seers.contains_key(&job.model);
        let Some(first) = self.jobs.iter().position(|job| loaded(job)) else { return };
        let Some(mut job) = self.jobs.remove(first) else { return };
        let model = job.model;
        let waiting = self.jobs.iter().filter(|other| other.model == model).count();
        self.shared.publish(model, Pulse { running: 1, ..Pulse::default() });
        let step = catch_unwind(AssertUnwindSafe(|| self.advance(&mut job)));
        match step {
            // Others have their turn.
            Ok(Ok(Step::More)) => self.jobs.push_back(job),
            Ok(Ok(Step::Done)) => {
                let told = self.told(&job);
                job.end(told);
            }
            Ok(Ok(Step::GivenUp)) => job.fail(cancelled()),
            Ok(Err(refusal)) => job.fail(refusal),
            Err(_) => {
                tracing::error!(%model, "seeing a picture panicked");
                // What it left half done is not to be trusted.
                self.crew = None;
                job.fail(broken());
            }
        }
        let running = usize::from(waiting > 0);
        self.shared.publish(model, Pulse { running, ..Pulse::default() });
    }

    /// Reads some of the texts that are left, or sees the next picture.
    fn advance(&mut self, job: &mut Job) -> Result<Step, Refusal> {
        let crew = match &mut self.crew {
            Some(crew) => crew,
            none => {
                let crew = EncoderCrew::new(self.shared.config.thread_count());
                let crew = crew.map_err(|error| {
                    elsewhere(Code::Internal, format!("cannot start a thread: {error}"))
                })?;
                none.insert(crew)
            }
        };
        let Some((seer, _)) = self.seers.get(&job.model) else { return Err(gone()) };
        let (progress, cancelled) = (&self.shared.progress, &job.place.cancelled);
        let mut go_on = || {
            progress.fetch_add(1, Ordering::Relaxed);
            match cancelled.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let (asked, made) = (&job.asked, &mut job.made);
        if let Some(texts) = asked.texts.get(made.of_texts.len()..).filter(|all| !all.is_empty()) {
            let (mut some, mut tokens) = (Vec::new(), 0);
            for text in texts {
                some.push(seer.tokens(text, asked.cut)?);
                tokens += some.last().map_or(0, Vec::len);
                if tokens >= BATCH_TOKENS {
                    break;
                }
            }
            let read = seer.read(crew, &some, &mut go_on).map_err(|error| error.to_refusal())?;
            let Some(read) = read else { return Ok(Step::GivenUp) };
            made.tokens += tokens as u64;
            made.of_texts.extend(read);
        } else if let Some(picture) = asked.pictures.get(made.of_pictures.len()) {
            let seen = seer.see(crew, (made.of_pictures.len(), picture), &mut go_on)?;
            let Some(seen) = seen else { return Ok(Step::GivenUp) };
            made.of_pictures.push(seen);
        }
        let left = asked.texts.len() - made.of_texts.len();
        match left + asked.pictures.len() - made.of_pictures.len() {
            0 => Ok(Step::Done),
            _ => Ok(Step::More),
        }
    }

    /// What is answered where everything was seen and read.
    fn told(&self, job: &Job) -> Result<Vec<Tensor>, Refusal> {
        if matches!(job.sink, Sink::Vectors(_)) {
            return Ok(Vec::new());
        }
        let Some((seer, _)) = self.seers.get(&job.model) else { return Err(gone()) };
        let (asked, made) = (&job.asked, &job.made);
        let told = seer.told((&asked.texts, &asked.outputs), &made.of_pictures, &made.of_texts);
        told.map_err(|error| error.to_refusal())
    }
}

fn gone() -> Refusal {
    elsewhere(Code::ModelUnavailable, "the model was removed")
}

/// The refusal for what a panic cost.
fn broken() -> Refusal {
    elsewhere(Code::Internal, "the computation of these outputs broke down")
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "desk_tests.rs"]
mod tests;
