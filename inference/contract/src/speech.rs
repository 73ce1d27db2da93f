//! One request to write down what is said in sound, and its answer.
//!
//! Plain data. A request crosses the wire without its sound, which follows in [`Chunk`]s. Times are
//! whole milliseconds.

use std::sync::Arc;

use selvedge_base::{ModelDigest, Refusal, RequestId};
use serde::{Deserialize, Serialize};

/// Architectures of models that write down what is said.
const LISTENERS: [&str; 1] = ["whisper"];

/// Samples a second of the sound in a request: what such models hear.
pub const RATE: u32 = 16_000;
/// Samples of a request at most: an hour, which takes 115 MB.
pub const MAX_SAMPLES: usize = 3_600 * RATE as usize;
/// Samples of a chunk at most: a minute. A sample takes up to three bytes on the wire, so that a
/// chunk is less than a third of the largest frame.
pub const CHUNK_SAMPLES: usize = 60 * RATE as usize;
/// Bytes of the text before: models read 223 tokens of it, and few tokens have more than 8 bytes.
pub const PROMPT_BYTES: usize = 4 << 10;
/// Tokens that a second of sound counts for: the rows that it becomes inside of such a model.
pub const TOKENS_PER_SECOND: u32 = 50;
/// Tokens that count at most for a second of sound, and for each request beside. Whoever speaks
/// fast says six words a second, which are ten tokens with their times; a model that repeats
/// itself over noise writes more, and is cut short.
pub const WRITTEN_PER_SECOND: u32 = 16;
/// See [`WRITTEN_PER_SECOND`].
pub const WRITTEN_AT_LEAST: u32 = 448;

/// Samples of one channel, [`RATE`] a second.
pub type Samples = Arc<Vec<i16>>;

/// Whether models of an architecture, as a card names it, write down what is said.
pub fn hears(architecture: &str) -> bool {
    LISTENERS.contains(&architecture)
}

/// Milliseconds that so many samples last.
pub const fn lasting_ms(samples: usize) -> u32 {
    (samples as u64 * 1_000 / RATE as u64) as u32
}

/// Tokens that so many samples count for, and that may be written of them.
pub const fn tokens_of(samples: usize) -> (u32, u32) {
    let seconds = samples.div_ceil(RATE as usize) as u32;
    (seconds * TOKENS_PER_SECOND, seconds * WRITTEN_PER_SECOND + WRITTEN_AT_LEAST)
}

/// What is to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpeechTask {
    /// What is said, in its language.
    #[default]
    Transcribe,
    /// What is said, in English.
    Translate,
}

/// A request to write down what is said. The sound is beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeechRequest {
    /// Unique per request.
    pub id: RequestId,
    /// Which model, by content.
    pub model: ModelDigest,
    /// What is to be written.
    pub task: SpeechTask,
    /// The language, as ISO 639-1 has it; none: the model says which it is.
    pub language: Option<String>,
    /// Text that comes before, for its words and its style; at most [`PROMPT_BYTES`].
    pub prompt: String,
    /// How freely words are drawn, in thousandths; zero draws none, and where that comes to
    /// nothing good, more is tried.
    pub temperature_milli: u32,
    /// What is drawn follows from this.
    pub seed: u64,
}

/// A part of a request's sound on its way to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The samples, at most [`CHUNK_SAMPLES`].
    pub samples: Vec<i16>,
    /// Whether it is the last.
    pub last: bool,
}

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// The language, as ISO 639-1 has it; empty where the sound was too short to tell.
    pub language: String,
    /// What the sound lasts.
    pub duration_ms: u32,
    /// Its parts, in order.
    pub segments: Vec<Segment>,
    /// Tokens that the sound and the text before count for.
    pub prompt_tokens: u32,
    /// Tokens written, those included that were written in vain; at most what [`tokens_of`] says.
    pub completion_tokens: u32,
}

impl Transcript {
    /// All of the text.
    pub fn text(&self) -> String {
        let text: String = self.segments.iter().map(|segment| segment.text.as_str()).collect();
        text.trim().to_owned()
    }
}

/// A part of what was said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Where the window begins that it was heard in.
    pub window_ms: u32,
    /// Where it begins.
    pub start_ms: u32,
    /// Where it ends.
    pub end_ms: u32,
    /// The text, with the space before it.
    pub text: String,
    /// The tokens of text and times.
    pub tokens: Vec<u32>,
    /// How freely they were drawn, in thousandths.
    pub temperature_milli: u32,
    /// The mean logarithm of the tokens' probabilities in its window.
    pub mean_logprob: f32,
    /// How many times smaller the window's text can be packed; repetitions make it large.
    pub compression: f32,
    /// The probability that nobody speaks in its window.
    pub silence: f32,
}

/// What another node says of a request that was passed to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Heard {
    /// What was said.
    Told(Box<Transcript>),
    /// It cannot be told.
    Failed(Refusal),
}

/// What hears the end of a request, on the engine's thread: it must not block. Dropped unheard,
/// something panicked.
pub type SpeechSink = Box<dyn FnOnce(Result<Transcript, Refusal>) + Send>;
