//! The thread that sees: one loop over pictures, for all models of an engine that do.
//!
//! Owns what a request is there. Requests take turns picture by picture, or some texts at a time;
//! one that was given up ends within a layer, or when the picture that is read has been. The loop
//! is [`desk`]'s.

use selvedge_base::{ModelDigest, Refusal};
use selvedge_contract::{EmbedRequest, EmbedSink, Embedded, InferRequest, InferSink, Tensor};
use selvedge_kernels::EncoderCrew;

use super::asked::{Asked, of_label};
use super::seer::Seer;
use crate::desk::{self, GoOn, Kind, Step, Turns, Work};
use crate::mailbox::Mailbox;
use crate::shared::{Place, Shared};

/// Tokens of texts that are read at a time: weights are brought from memory for many rows at once.
pub(super) const BATCH_TOKENS: usize = 512;

/// The thread's state.
pub(crate) type Desk = desk::Desk<Seeing>;
/// A request under way.
pub(crate) type Job = desk::Job<Seeing>;
/// What the thread is told.
pub(crate) type Message = desk::Message<Seeing, Seer>;

/// What is to be seen and read, and who hears of it.
pub(crate) struct Seeing {
    model: ModelDigest,
    asked: Asked,
    made: Made,
    sink: Sink,
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

impl Job {
    /// A request with tensors that fit the model's signature.
    pub(crate) fn tensors(
        request: &InferRequest,
        sink: InferSink,
        admit: impl FnOnce() -> Result<Place, Refusal>,
    ) -> Result<Self, Refusal> {
        let (model, made, sink) = (request.model, Made::default(), Sink::Tensors(sink));
        let work = Seeing { model, asked: Asked::tensors(request)?, made, sink };
        Ok(Self { work, place: admit()? })
    }

    /// A request for vectors of texts.
    pub(crate) fn vectors(mut request: EmbedRequest, sink: EmbedSink, place: Place) -> Self {
        let (model, made, sink) = (request.model, Made::default(), Sink::Vectors(sink));
        Self { work: Seeing { model, asked: Asked::vectors(&mut request), made, sink }, place }
    }
}

impl Work for Seeing {
    type Told = Vec<Tensor>;

    fn model(&self) -> ModelDigest {
        self.model
    }

    fn tell(self, tensors: Result<Vec<Tensor>, Refusal>) {
        let Made { of_texts: vectors, tokens, .. } = self.made;
        match self.sink {
            Sink::Tensors(sink) => sink(tensors),
            Sink::Vectors(sink) => sink(tensors.map(|_| Embedded { vectors, tokens })),
        }
    }
}

impl Kind for Seeing {
    type Model = Seer;
    type Crew = EncoderCrew;

    const DOES: &'static str = "sees";
    const STEP: &'static str = "seeing a picture";
    const BROKEN: &'static str = "the computation of these outputs broke down";

    fn mailbox(shared: &Shared) -> &Mailbox<Message> {
        &shared.sight
    }

    fn crew(threads: usize) -> std::io::Result<EncoderCrew> {
        EncoderCrew::new(threads)
    }

    fn step(desk: &mut Desk, at: usize) {
        desk.turn(at);
    }
}

impl Turns for Seeing {
    /// Reads some of the texts that are left, or sees the next picture.
    fn advance(
        &mut self,
        seer: &mut Seer,
        crew: &mut EncoderCrew,
        go_on: &mut GoOn<'_>,
    ) -> Result<Step, Refusal> {
        let (asked, made) = (&self.asked, &mut self.made);
        if let Some(texts) = asked.texts.get(made.of_texts.len()..).filter(|all| !all.is_empty()) {
            let (mut some, mut tokens) = (Vec::new(), 0);
            for text in texts {
                let at = made.of_texts.len() + some.len();
                let read = seer.tokens(text, asked.cut);
                some.push(read.map_err(|refusal| match &self.sink {
                    Sink::Tensors(_) => of_label(at, refusal),
                    Sink::Vectors(_) => refusal,
                })?);
                tokens += some.last().map_or(0, Vec::len);
                if tokens >= BATCH_TOKENS {
                    break;
                }
            }
            let read = seer.read(crew, &some, go_on).map_err(|error| error.to_refusal())?;
            let Some(read) = read else { return Ok(Step::GivenUp) };
            made.tokens += tokens as u64;
            made.of_texts.extend(read);
        } else if let Some(picture) = asked.pictures.get(made.of_pictures.len()) {
            let seen = seer.see(crew, (made.of_pictures.len(), picture), go_on)?;
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
    fn finish(&mut self, seer: &Seer) -> Result<Vec<Tensor>, Refusal> {
        if matches!(self.sink, Sink::Vectors(_)) {
            return Ok(Vec::new());
        }
        let (asked, made) = (&self.asked, &self.made);
        let told = seer.told((&asked.texts, &asked.outputs), &made.of_pictures, &made.of_texts);
        told.map_err(|error| error.to_refusal())
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "desk_tests.rs"]
mod tests;
