//! The thread that makes vectors: one loop over batches of texts, for all models of an engine.
//!
//! Owns what a request is there, and the batches. A batch takes texts of all requests for one model
//! in turn, so that one of thousands of texts does not hold up one of a single text; between
//! batches, requests that were given up are dropped. A panic costs the requests for the model it
//! met. The loop is [`desk`]'s.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use selvedge_base::{ModelDigest, Refusal};
use selvedge_contract::{EmbedRequest, EmbedSink, Embedded};
use selvedge_kernels::EncoderCrew;

use super::reader::Reader;
use crate::desk::{self, Kind, Work, broken};
use crate::mailbox::Mailbox;
use crate::shared::{Place, Shared};

/// Tokens of a batch: enough that weights are brought from memory for many rows at once, few enough
/// that a small model's batch is over in a tenth of a second, which is what giving up waits for.
const BATCH_TOKENS: usize = 512;

/// The thread's state.
pub(crate) type Desk = desk::Desk<Reading>;
/// A request under way.
pub(crate) type Job = desk::Job<Reading>;
/// What the thread is told.
pub(crate) type Message = desk::Message<Reading, Reader>;

/// What is to be read, what was made of it so far, and who hears of it.
pub(crate) struct Reading {
    request: EmbedRequest,
    sink: EmbedSink,
    done: Embedded,
}

/// A text of a batch: whose it is, and its tokens.
struct Taken {
    job: usize,
    tokens: Vec<u32>,
}

impl Job {
    pub(crate) fn new(request: EmbedRequest, sink: EmbedSink, place: Place) -> Self {
        Self { work: Reading { request, sink, done: Embedded::default() }, place }
    }
}

impl Work for Reading {
    type Told = Embedded;

    fn model(&self) -> ModelDigest {
        self.request.model
    }

    fn tell(self, end: Result<Embedded, Refusal>) {
        (self.sink)(end);
    }
}

impl Kind for Reading {
    type Model = Reader;
    type Crew = EncoderCrew;

    const DOES: &'static str = "makes vectors";
    const STEP: &'static str = "a batch of texts";
    const BROKEN: &'static str = "the computation of these vectors broke down";

    fn mailbox(shared: &Shared) -> &Mailbox<Message> {
        &shared.desk
    }

    fn crew(threads: usize) -> std::io::Result<EncoderCrew> {
        EncoderCrew::new(threads)
    }

    /// Computes one batch for the model of that request.
    fn step(desk: &mut Desk, first: usize) {
        let model = desk.jobs[first].work.request.model;
        desk.publish(model, desk.asking(model));
        let batch = catch_unwind(AssertUnwindSafe(|| desk.batch(model)));
        if batch.is_err() {
            tracing::error!(%model, "{} panicked", Self::STEP);
            // What it left half done is not to be trusted.
            desk.crew = None;
            desk.end_where(|work| work.request.model == model, |_| Err(broken::<Self>()));
        }
        desk.end_where(
            |work| work.done.vectors.len() == work.request.texts.len(),
            |work| Ok(std::mem::take(&mut work.done)),
        );
        // Another model's requests are next.
        if desk.jobs.get(first).is_some_and(|job| job.work.request.model == model) {
            desk.jobs.rotate_left((first + 1) % desk.jobs.len().max(1));
        }
        desk.publish(model, desk.asking(model));
    }
}

impl Desk {
    fn batch(&mut self, model: ModelDigest) {
        let (taken, refused) = self.take(model);
        // Places of requests are those in `jobs`: nothing is removed before the vectors are there.
        let result = self.compute(model, &taken);
        let mut failed: BTreeMap<usize, Refusal> = refused.into_iter().collect();
        match result {
            Ok(vectors) => {
                for (text, vector) in taken.iter().zip(vectors) {
                    if let Some(job) = self.jobs.get_mut(text.job) {
                        job.work.done.vectors.push(vector);
                        job.work.done.tokens += text.tokens.len() as u64;
                    }
                }
            }
            Err(refusal) => {
                failed.extend(taken.iter().map(|text| (text.job, refusal.clone())));
            }
        }
        for (at, refusal) in failed.into_iter().rev() {
            if let Some(job) = self.jobs.remove(at) {
                job.end(Err(refusal));
            }
        }
    }

    /// The next texts of a model's requests, one of each in turn, and the requests that hold a text
    /// it cannot read.
    fn take(&self, model: ModelDigest) -> (Vec<Taken>, Vec<(usize, Refusal)>) {
        let Some((reader, _)) = self.models.get(&model) else { return Default::default() };
        let (mut taken, mut refused, mut tokens) = (Vec::new(), Vec::new(), 0);
        let mut open: Vec<(usize, std::slice::Iter<'_, String>)> = self
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| job.work.request.model == model)
            .map(|(at, job)| {
                let next = job.work.done.vectors.len().min(job.work.request.texts.len());
                (at, job.work.request.texts[next..].iter())
            })
            .collect();
        while !open.is_empty() {
            let mut still = Vec::with_capacity(open.len());
            for (at, mut texts) in open {
                let Some(text) = texts.next() else { continue };
                match reader.tokens(text, self.jobs[at].work.request.cut) {
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
        let shared = Arc::clone(&self.shared);
        let (reader, crew) = self.ready(model)?;
        let texts: Vec<&[u32]> = taken.iter().map(|text| text.tokens.as_slice()).collect();
        let vectors = reader.embed(crew, &texts, &shared.progress);
        vectors.map_err(|error| error.to_refusal())
    }

    fn end_where(
        &mut self,
        ends: impl Fn(&Reading) -> bool,
        mut with: impl FnMut(&mut Reading) -> Result<Embedded, Refusal>,
    ) {
        let mut kept = VecDeque::with_capacity(self.jobs.len());
        for mut job in std::mem::take(&mut self.jobs) {
            if ends(&job.work) {
                let end = with(&mut job.work);
                job.end(end);
            } else {
                kept.push_back(job);
            }
        }
        self.jobs = kept;
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "desk_tests.rs"]
mod tests;
