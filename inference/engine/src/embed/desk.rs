//! The thread that makes vectors: one loop over batches of texts, for all models of an engine.
//!
//! Owns the loaded models of embeddings and the requests under way. A batch takes texts of all
//! requests for one model in turn, so that one of thousands of texts does not hold up one of a
//! single text; between batches, requests that were given up are dropped. A panic costs the
//! requests for the model it met. Computes on a crew of its own, which sleeps while there is
//! nothing to do.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use candle_core::Device;
use selvedge_base::{Code, ModelDigest, Refusal};
use selvedge_contract::residence::Wish;
use selvedge_contract::{EmbedRequest, EmbedSink, Embedded, ModelState};
use selvedge_kernels::EncoderCrew;

use super::reader::Reader;
use crate::error::elsewhere;
use crate::front::closing;
use crate::job::cancelled;
use crate::loader;
use crate::memory::Reservation;
use crate::shared::{Place, Pulse, Shared};
use crate::worker;

/// Tokens of a batch: enough that weights are brought from memory for many rows at once, few enough
/// that a small model's batch is over in a tenth of a second, which is what giving up waits for.
const BATCH_TOKENS: usize = 512;

/// What the thread is told.
pub(crate) enum Message {
    /// A request.
    Job(Box<Job>),
    /// A model's weights are in memory.
    Loaded(ModelDigest, Box<(Reader, Reservation)>),
    /// A model was removed, or makes room for another.
    Removed(ModelDigest),
}

/// A request under way.
pub(crate) struct Job {
    request: EmbedRequest,
    sink: EmbedSink,
    /// Held until the end.
    place: Place,
    done: Embedded,
}

impl Job {
    pub(crate) fn new(request: EmbedRequest, sink: EmbedSink, place: Place) -> Self {
        Self { request, sink, place, done: Embedded::default() }
    }

    fn is_cancelled(&self) -> bool {
        self.place.cancelled.load(Ordering::Relaxed)
    }

    /// Ends it. A sink that panics hears nothing more.
    fn end(self, end: Result<Embedded, Refusal>) {
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
    crew: Option<EncoderCrew>,
    readers: BTreeMap<ModelDigest, (Reader, Reservation)>,
    jobs: VecDeque<Box<Job>>,
}

/// A text of a batch: whose it is, and its tokens.
struct Taken {
    job: usize,
    tokens: Vec<u32>,
}

impl Desk {
    pub(crate) fn new(shared: Arc<Shared>, device: Device) -> Self {
        Self { shared, device, crew: None, readers: BTreeMap::new(), jobs: VecDeque::new() }
    }

    /// Makes vectors until the engine closes, whatever panics. Each panic takes the requests
    /// with it that it met, so this comes to an end.
    pub(crate) fn serve(&mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            tracing::error!("the thread that makes vectors panicked; it starts afresh");
            self.crew = None;
            for job in self.jobs.drain(..) {
                job.fail(broken());
            }
        }
    }

    /// Makes vectors until the engine closes, then fails what is left.
    fn run(&mut self) {
        loop {
            // Those whose model is still being loaded wait for it, or for its failure.
            let wait = !self.jobs.iter().any(|job| self.readers.contains_key(&job.request.model));
            let Some(messages) = self.shared.desk.take_all(wait) else { break };
            self.receive(messages);
            self.sweep();
            self.step();
        }
        let left = self.shared.desk.drain();
        self.receive(left);
        for job in self.jobs.drain(..) {
            job.fail(closing());
        }
    }

    fn receive(&mut self, messages: VecDeque<Message>) {
        for message in messages {
            match message {
                Message::Job(job) => self.jobs.push_back(job),
                Message::Loaded(digest, reader) => {
                    if self.shared.set_state(digest, ModelState::Ready, None) {
                        self.readers.insert(digest, *reader);
                        self.tell_memory();
                    }
                }
                Message::Removed(digest) => {
                    if self.readers.remove(&digest).is_some() {
                        if self.readers.is_empty() {
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
            let model = job.request.model;
            if job.is_cancelled() {
                job.fail(cancelled());
            } else if let Some(refusal) = self.shared.unavailable(model, job.place.turn) {
                job.fail(refusal);
            } else {
                if !self.readers.contains_key(&model) && self.shared.begin_loading(model) {
                    loader::spawn(&self.shared, &self.device, model, (Duration::ZERO, Wish::Asked));
                }
                kept.push_back(job);
            }
        }
        self.jobs = kept;
    }

    /// Computes one batch for the model of the request that waits longest.
    fn step(&mut self) {
        let loaded = |job: &Job| self.readers.contains_key(&job.request.model);
        let Some(first) = self.jobs.iter().position(|job| loaded(job)) else { return };
        let model = self.jobs[first].request.model;
        let running = self.jobs.iter().filter(|job| job.request.model == model).count();
        self.shared.publish(model, Pulse { running, ..Pulse::default() });
        let batch = catch_unwind(AssertUnwindSafe(|| self.batch(model)));
        if batch.is_err() {
            tracing::error!(%model, "a batch of texts panicked");
            // What it left half done is not to be trusted.
            self.crew = None;
            self.end_where(|job| job.request.model == model, |_| Err(broken()));
        }
        self.end_where(
            |job| job.done.vectors.len() == job.request.texts.len(),
            |job| Ok(std::mem::take(&mut job.done)),
        );
        // Another model's requests are next.
        if self.jobs.get(first).is_some_and(|job| job.request.model == model) {
            self.jobs.rotate_left((first + 1) % self.jobs.len().max(1));
        }
        let running = self.jobs.iter().filter(|job| job.request.model == model).count();
        self.shared.publish(model, Pulse { running, ..Pulse::default() });
    }

    fn batch(&mut self, model: ModelDigest) {
        let (taken, refused) = self.take(model);
        // Places of requests are those in `jobs`: nothing is removed before the vectors are there.
        let result = self.compute(model, &taken);
        let mut failed: BTreeMap<usize, Refusal> = refused.into_iter().collect();
        match result {
            Ok(vectors) => {
                for (text, vector) in taken.iter().zip(vectors) {
                    if let Some(job) = self.jobs.get_mut(text.job) {
                        job.done.vectors.push(vector);
                        job.done.tokens += text.tokens.len() as u64;
                    }
                }
            }
            Err(refusal) => {
                failed.extend(taken.iter().map(|text| (text.job, refusal.clone())));
            }
        }
        for (at, refusal) in failed.into_iter().rev() {
            if let Some(job) = self.jobs.remove(at) {
                job.fail(refusal);
            }
        }
    }

    /// The next texts of a model's requests, one of each in turn, and the requests that hold a text
    /// it cannot read.
    fn take(&self, model: ModelDigest) -> (Vec<Taken>, Vec<(usize, Refusal)>) {
        let Some((reader, _)) = self.readers.get(&model) else { return Default::default() };
        let (mut taken, mut refused, mut tokens) = (Vec::new(), Vec::new(), 0);
        let mut open: Vec<(usize, std::slice::Iter<'_, String>)> = self
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| job.request.model == model)
            .map(|(at, job)| {
                let next = job.done.vectors.len().min(job.request.texts.len());
                (at, job.request.texts[next..].iter())
            })
            .collect();
        while !open.is_empty() {
            let mut still = Vec::with_capacity(open.len());
            for (at, mut texts) in open {
                let Some(text) = texts.next() else { continue };
                match reader.tokens(text, self.jobs[at].request.cut) {
                    Ok(read) => {
                        tokens += read.len();
                        taken.push(Taken { job: at, tokens: read });
                        still.push((at, texts));
                    }
                    Err(refusal) => refused.push((at, refusal)),
                }
                if tokens >= BATCH_TOKENS {
                    return (taken, refused);
                }
            }
            open = still;
        }
        (taken, refused)
    }

    fn compute(&mut self, model: ModelDigest, taken: &[Taken]) -> Result<Vec<Vec<f32>>, Refusal> {
        let Some((reader, _)) = self.readers.get(&model) else { return Ok(Vec::new()) };
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
        let texts: Vec<&[u32]> = taken.iter().map(|text| text.tokens.as_slice()).collect();
        let vectors = reader.embed(crew, &texts, &self.shared.progress);
        vectors.map_err(|error| error.to_refusal())
    }

    fn end_where(
        &mut self,
        ends: impl Fn(&Job) -> bool,
        mut with: impl FnMut(&mut Job) -> Result<Embedded, Refusal>,
    ) {
        let mut kept = VecDeque::with_capacity(self.jobs.len());
        for mut job in std::mem::take(&mut self.jobs) {
            if ends(&job) {
                let end = with(&mut job);
                job.end(end);
            } else {
                kept.push_back(job);
            }
        }
        self.jobs = kept;
    }
}

/// The refusal for what a panic cost.
fn broken() -> Refusal {
    elsewhere(Code::Internal, "the computation of these vectors broke down")
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "desk_tests.rs"]
mod tests;
