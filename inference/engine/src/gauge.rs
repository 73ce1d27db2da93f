//! How well and how fast a model file foretells a text, as the engine runs it.
//!
//! Owns one sequence and the sums of its losses, for people who choose between forms of a model;
//! and what holding an answer to a schema takes. Reads no clock: the caller times the calls, or
//! hands one in.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use candle_core::Device;
use selvedge_kernels::Crew;

use crate::card::Shape;
use crate::error::EngineError;
use crate::gguf::Gguf;
use crate::guide::Guides;
use crate::llama::{Llama, Logits, Segment};
use crate::parts;
use crate::tokenizer::Tokenizer;

/// Tokens of one window; each window begins with an empty memory, as llama.cpp's own measure does.
const WINDOW: usize = 512;
/// Tokens whose logits are in memory at once: of the largest vocabularies, 64 MiB.
const CHUNK: usize = 64;

/// A model that is measured.
pub struct Gauge {
    llama: Llama,
    tokenizer: Tokenizer,
    context: usize,
    crew: Crew,
}

/// How well a text was foretold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gauged {
    /// e to the power of the mean loss of a token in nats.
    pub perplexity: f64,
    /// Tokens that were foretold.
    pub tokens: usize,
}

/// What it took to hold an answer to a schema.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Reading the vocabulary, as the first schema of a model does, and compiling the schema.
    pub first: Duration,
    /// Compiling another one.
    pub compiled: Duration,
    /// Of each token: ruling out what cannot come, and taking what came.
    pub tokens: Vec<Duration>,
    /// The answer.
    pub text: String,
}

impl Gauge {
    /// Whether a file is a model that runs here: its header, its vocabulary, and that all tensors
    /// are there and have their sides. Reads no weights.
    ///
    /// # Errors
    /// [`EngineError`] with the first thing that is missing.
    pub fn check(path: &Path) -> Result<(), EngineError> {
        let gguf = Gguf::open(path)?;
        let shape = Shape::read(&gguf)?;
        Tokenizer::read(&gguf, shape.vocabulary)?;
        parts::check(&gguf, &shape)
    }

    /// The windows of a text that [`Gauge::foretell`] reads, in tokens. Reads no weights.
    ///
    /// # Errors
    /// [`EngineError`] for a file that this engine does not run.
    pub fn windows(path: &Path, text: &str, most: usize) -> Result<Vec<Vec<u32>>, EngineError> {
        let gguf = Gguf::open(path)?;
        let shape = Shape::read(&gguf)?;
        windows(&Tokenizer::read(&gguf, shape.vocabulary)?, shape.context, text, most)
    }

    /// A model on the processor, on so many threads.
    ///
    /// # Errors
    /// [`EngineError`] for a file that this engine does not run.
    pub fn open(path: &Path, threads: usize) -> Result<Self, EngineError> {
        let gguf = Gguf::open(path)?;
        let shape = Shape::read(&gguf)?;
        let tokenizer = Tokenizer::read(&gguf, shape.vocabulary)?;
        let llama = Llama::load(&gguf, &Device::Cpu, threads, &|| ())?;
        let crew = Crew::new(threads).map_err(|error| EngineError::Thread(error.to_string()))?;
        Ok(Self { llama, tokenizer, context: shape.context, crew })
    }

    /// Foretells the first `most` tokens of a text, in windows of 512 or what the model attends to,
    /// of which the first is the token that stands before texts where the model wants one.
    /// `advanced` is told how many of how many tokens were.
    ///
    /// # Errors
    /// [`EngineError`] for a text of which nothing is foretold: an empty one, or one of one token
    /// where the model has none that stands before a text.
    pub fn foretell(
        &mut self,
        text: &str,
        most: usize,
        advanced: &mut dyn FnMut(usize, usize),
    ) -> Result<Gauged, EngineError> {
        let windows = windows(&self.tokenizer, self.context, text, most)?;
        let all = windows.iter().map(Vec::len).sum();
        let (mut loss, mut foretold, mut read) = (0.0, 0, 0);
        for window in &windows {
            let mut read_more = |count: usize| {
                read += count;
                advanced(read, all);
            };
            loss += self.lose(window, &|| Duration::ZERO, &mut read_more)?.0;
            foretold += window.len().saturating_sub(1);
        }
        if foretold == 0 {
            let what = "the text is too short to foretell anything of it; take a longer one";
            return Err(EngineError::Compute(what.to_owned()));
        }
        Ok(Gauged { perplexity: (loss / foretold as f64).exp(), tokens: foretold })
    }

    /// The loss of all tokens of a window but the first, in nats and together, and what the model
    /// took to compute it by `clock`, without the sums over its vocabulary. `advanced` is told of
    /// tokens that were read.
    ///
    /// # Errors
    /// [`EngineError`] for tokens that the model has not, or more than it attends to.
    pub fn lose(
        &mut self,
        window: &[u32],
        clock: &dyn Fn() -> Duration,
        advanced: &mut dyn FnMut(usize),
    ) -> Result<(f64, Duration), EngineError> {
        if window.len() > self.context {
            let (length, context) = (window.len(), self.context);
            let what = format!("a window of {length} tokens; the model attends to {context}");
            return Err(EngineError::Compute(what));
        }
        let (mut loss, mut took) = (0.0, Duration::ZERO);
        let mut cache = self.llama.cache()?;
        for (at, chunk) in window.chunks(CHUNK).enumerate() {
            let next = &window[(at * CHUNK + 1).min(window.len())..];
            let segment =
                Segment { cache: &mut cache, tokens: chunk, logits: Logits::All, added: None };
            let began = clock();
            let logits = self.llama.step(&mut self.crew, &mut [segment], &AtomicU64::new(0))?;
            took += clock().saturating_sub(began);
            for (row, token) in logits.iter().flatten().zip(next) {
                loss += lost(row, *token)?;
            }
            advanced(chunk.len());
        }
        Ok((loss, took))
    }

    /// Writes so many tokens behind the text's first ones, the likeliest each time, or as many as
    /// the model attends to; how many.
    ///
    /// # Errors
    /// [`EngineError`] for an empty text.
    pub fn write(&mut self, text: &str, count: usize) -> Result<usize, EngineError> {
        let prompt = self.tokenizer.encode(text).map_err(EngineError::Compute)?;
        let prompt = self.tokenizer.bos().into_iter().chain(prompt);
        let count = count.min(self.context / 2);
        let room = self.context.saturating_sub(count);
        let mut tokens: Vec<u32> = prompt.take(CHUNK.min(room)).collect();
        let mut cache = self.llama.cache()?;
        for _ in 0..count {
            let segment =
                Segment { cache: &mut cache, tokens: &tokens, logits: Logits::Last, added: None };
            let logits = self.llama.step(&mut self.crew, &mut [segment], &AtomicU64::new(0))?;
            let row = logits.iter().flatten().last();
            let likeliest =
                row.and_then(|row| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])));
            let Some(likeliest) = likeliest else {
                return Err(EngineError::Compute("a text is needed to go on from".to_owned()));
            };
            tokens = vec![likeliest as u32];
        }
        Ok(count)
    }
}

impl Gauge {
    /// Writes an answer of at most so many tokens behind a text, the likeliest that a JSON Schema
    /// allows each time, and times the schema's part of it by `clock`.
    ///
    /// # Errors
    /// [`EngineError`] for a schema that nothing is held to here.
    pub fn hold(
        &mut self,
        (text, schema): (&str, &str),
        most: usize,
        clock: &dyn Fn() -> Duration,
    ) -> Result<Held, EngineError> {
        let refused = |refusal: selvedge_base::Refusal| EngineError::Compute(refusal.message);
        let (guides, mut held) = (Guides::default(), Held::default());
        let began = clock();
        guides.guide(&self.tokenizer, schema).map_err(refused)?;
        held.first = clock().saturating_sub(began);
        // Another text is another schema; this one means the same.
        let (again, began) = (format!("{schema} "), clock());
        let mut guide = guides.guide(&self.tokenizer, &again).map_err(refused)?;
        held.compiled = clock().saturating_sub(began);
        let prompt = self.tokenizer.encode(text).map_err(EngineError::Compute)?;
        let prompt = self.tokenizer.bos().into_iter().chain(prompt);
        let room = self.context.saturating_sub(most);
        let mut tokens: Vec<u32> = prompt.take(CHUNK.min(room)).collect();
        let (mut cache, mut answer) = (self.llama.cache()?, Vec::new());
        for _ in 0..most {
            let segment =
                Segment { cache: &mut cache, tokens: &tokens, logits: Logits::Last, added: None };
            let logits = self.llama.step(&mut self.crew, &mut [segment], &AtomicU64::new(0))?;
            let Some(row) = logits.iter().flatten().last() else { break };
            let began = clock();
            let Some(ruled) = guide.rule(row).map_err(refused)? else { break };
            let Some(token) = (0..ruled.len()).max_by(|a, b| ruled[*a].total_cmp(&ruled[*b]))
            else {
                break;
            };
            guide.push(token as u32).map_err(refused)?;
            held.tokens.push(clock().saturating_sub(began));
            answer.extend_from_slice(self.tokenizer.bytes(token as u32));
            if guide.is_over() {
                break;
            }
            tokens = vec![token as u32];
        }
        held.text = String::from_utf8_lossy(&answer).into_owned();
        Ok(held)
    }
}

/// The first tokens of a text in windows, each behind the token that stands before texts where the
/// model wants one: some foretell nothing of use unless a text begins as they learned that texts
/// do.
fn windows(
    tokenizer: &Tokenizer,
    context: usize,
    text: &str,
    most: usize,
) -> Result<Vec<Vec<u32>>, EngineError> {
    let mut tokens = tokenizer.encode(text).map_err(EngineError::Compute)?;
    tokens.truncate(most);
    let begin = tokenizer.bos();
    let room = WINDOW.min(context) - usize::from(begin.is_some() && context > 1);
    let behind = |window: &[u32]| begin.into_iter().chain(window.iter().copied()).collect();
    Ok(tokens.chunks(room).map(behind).collect())
}

/// The loss of a token in nats.
fn lost(logits: &[f32], token: u32) -> Result<f64, EngineError> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    let own = logits.get(token as usize).copied();
    let loss = own.map(|own| sum.ln() - f64::from(own - highest));
    loss.filter(|loss| loss.is_finite())
        .ok_or_else(|| EngineError::Compute("the logits are no numbers".to_owned()))
}
