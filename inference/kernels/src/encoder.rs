//! Models that read a text whole: BERT (Devlin et al., 2018), in full precision.
//!
//! Owns the order of the phases and their division among threads. Texts stand in a batch row after
//! row, without padding; each row is computed by itself but for looking at its own text's rows, so
//! a text's numbers are bitwise the same in every batch, on any number of threads and on every set
//! of instructions.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dense::{Dense, Gains, Multiply, Normalize, Then};
use crate::error::KernelError;
use crate::load::{Tensors, dense, gains, joined};
use crate::look::{Look, SIDE};
use crate::simd::{Floats, Isa, LANES};
use crate::team::Team;

/// Rows that one thread takes at a time: their products stay in the nearest cache while a layer's
/// weights pass by, and a weight brought from memory serves all of them.
const MOST_ROWS: usize = 64;
/// Fewer would fetch a layer's weights for hardly any work.
const LEAST_ROWS: usize = 8;

/// The dimensions of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Tokens known.
    pub vocabulary: usize,
    /// Tokens of the longest text.
    pub positions: usize,
    /// Kinds of text that tokens may be of; the first is used.
    pub kinds: usize,
    /// Numbers of a row.
    pub width: usize,
    /// Numbers of a row in the feed-forward part.
    pub feed_forward: usize,
    /// Attention heads.
    pub heads: usize,
    /// Layers.
    pub layers: usize,
    /// What keeps norms from dividing by zero.
    pub epsilon: f32,
}

impl EncoderConfig {
    /// Refuses what the kernels cannot compute.
    ///
    /// # Errors
    /// Which dimension it is.
    pub fn check(&self) -> Result<(), KernelError> {
        let dim = self.width.checked_div(self.heads).unwrap_or(0);
        let whole = dim > 0 && dim * self.heads == self.width && dim.is_multiple_of(SIDE);
        let fits = [self.width, self.feed_forward].iter().all(|n| *n > 0 && n % LANES == 0);
        if whole && fits && self.kinds > 0 && self.positions > 0 && self.vocabulary > 0 {
            return Ok(());
        }
        Err(KernelError::Shape(format!(
            "rows of {} with {} heads and {} in the feed-forward part (multiples of {LANES}, and \
             heads of a multiple of {SIDE}, are computed here)",
            self.width, self.heads, self.feed_forward
        )))
    }

    /// Bytes that the weights take in memory.
    pub fn bytes(&self) -> u64 {
        let n = |count: usize| count as u64;
        let rows = n(self.vocabulary) + n(self.positions) + 2;
        let layer = 4 * n(self.width) + 2 * n(self.feed_forward) + 16;
        let numbers = rows.saturating_add(n(self.layers).saturating_mul(layer));
        numbers.saturating_mul(n(self.width)).saturating_mul(size_of::<f32>() as u64)
    }
}

/// A model's weights.
pub struct Encoder {
    config: EncoderConfig,
    /// Token after token.
    words: Vec<f32>,
    /// Position after position, the kind of text added.
    positions: Vec<f32>,
    norm: Gains,
    layers: Vec<Layer>,
}

struct Layer {
    qkv: Dense,
    output: Dense,
    attention_norm: Gains,
    up: Dense,
    down: Dense,
    norm: Gains,
}

/// The threads that compute, with the memory that they work on.
pub struct EncoderCrew {
    pub(crate) isa: Isa,
    pub(crate) team: Team,
    pub(crate) rows: Vec<f32>,
    pub(crate) qkv: Vec<f32>,
    pub(crate) scratches: Vec<Scratch>,
}

/// What one thread needs for itself.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) turned: Vec<Floats>,
    pub(crate) scores: Vec<Floats>,
    pub(crate) normed: Vec<f32>,
    pub(crate) seen: Vec<f32>,
    pub(crate) product: Vec<f32>,
    pub(crate) wide: Vec<f32>,
}

impl EncoderCrew {
    /// Starts so many threads, the caller's counted, on the processor's fastest instructions.
    ///
    /// # Errors
    /// What the system says when it has no thread to give.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Self::with_isa(threads, Isa::detect())
    }

    /// The same on given instructions.
    ///
    /// # Errors
    /// What the system says when it has no thread to give.
    pub fn with_isa(threads: usize, isa: Isa) -> std::io::Result<Self> {
        let team = Team::new(threads)?;
        let scratches = (0..team.size()).map(|_| Scratch::default()).collect();
        Ok(Self { isa, team, rows: Vec::new(), qkv: Vec::new(), scratches })
    }

    /// Rows per piece: enough pieces for all threads, none too small.
    pub(crate) const fn piece(&self, rows: usize) -> usize {
        let share = rows.div_ceil(2 * self.team.size()).next_multiple_of(LEAST_ROWS);
        if share > MOST_ROWS { MOST_ROWS } else { share }
    }
}

impl Encoder {
    /// Reads the weights.
    ///
    /// # Errors
    /// [`KernelError`] when the dimensions do not fit, or a tensor is missing or another.
    pub fn load(config: EncoderConfig, tensors: &mut Tensors<'_>) -> Result<Self, KernelError> {
        config.check()?;
        let width = config.width;
        let words = tensors("embeddings.word_embeddings.weight", &[config.vocabulary, width])?;
        let mut positions =
            tensors("embeddings.position_embeddings.weight", &[config.positions, width])?;
        let kinds = tensors("embeddings.token_type_embeddings.weight", &[config.kinds, width])?;
        for position in positions.chunks_exact_mut(width) {
            position.iter_mut().zip(&kinds).for_each(|(number, kind)| *number += kind);
        }
        let norm = gains(tensors, "embeddings.LayerNorm", width)?;
        let layers = (0..config.layers).map(|at| Layer::load(&config, tensors, at));
        let layers = layers.collect::<Result<_, _>>()?;
        Ok(Self { config, words, positions, norm, layers })
    }

    /// The dimensions.
    pub const fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The last layer's rows of each text, row after row. `progress` advances with every layer.
    ///
    /// # Errors
    /// [`KernelError`] when a token is none of the model's or a text is longer than it reads;
    /// nothing is computed then.
    pub fn read(
        &self,
        crew: &mut EncoderCrew,
        texts: &[&[u32]],
        progress: &AtomicU64,
    ) -> Result<Vec<Vec<f32>>, KernelError> {
        let (width, spans) = (self.config.width, self.begin(crew, texts)?);
        let rows = crew.rows.len() / width;
        crew.qkv.resize(rows * 3 * width, 0.0);
        for layer in &self.layers {
            self.layer(crew, layer, &spans);
            progress.fetch_add(1, Ordering::Relaxed);
        }
        let of = |span: &Range<usize>| crew.rows[span.start * width..span.end * width].to_vec();
        Ok(spans.iter().map(of).collect())
    }

    /// The rows' embeddings, and where each text has its rows.
    fn begin(
        &self,
        crew: &mut EncoderCrew,
        texts: &[&[u32]],
    ) -> Result<Vec<Range<usize>>, KernelError> {
        let EncoderConfig { width, vocabulary, positions, epsilon, .. } = self.config;
        crew.rows.clear();
        let mut spans = Vec::with_capacity(texts.len());
        for text in texts {
            if text.len() > positions {
                let why = format!("{} tokens of at most {positions}", text.len());
                return Err(KernelError::Shape(why));
            }
            let start = crew.rows.len() / width;
            for (&token, position) in text.iter().zip(self.positions.chunks_exact(width)) {
                let at = token as usize * width;
                let word = self.words.get(at..at + width);
                let word = word.ok_or(KernelError::Token { token, vocabulary })?;
                crew.rows.extend(word.iter().zip(position).map(|(word, place)| word + place));
            }
            spans.push(start..start + text.len());
        }
        let (gains, rows) = (&self.norm, crew.rows.as_mut_slice());
        crew.isa.run(Normalize { gains, epsilon, add: None, rows });
        Ok(spans)
    }

    fn layer(&self, crew: &mut EncoderCrew, layer: &Layer, texts: &[Range<usize>]) {
        let EncoderConfig { width, heads, epsilon, .. } = self.config;
        let piece = crew.piece(crew.rows.len() / width);
        let EncoderCrew { isa, team, rows, qkv, scratches } = crew;
        let isa = *isa;
        let all = &*rows;
        team.split(qkv, piece * 3 * width, scratches, |index, out, _| {
            let rows = &all[index * piece * width..][..out.len() / 3];
            isa.run(Multiply { dense: &layer.qkv, rows, then: Then::Nothing, out });
        });
        let qkv = &*qkv;
        team.split(rows, piece * width, scratches, |index, rows, scratch| {
            let Scratch { turned, scores, seen, product, wide, .. } = scratch;
            let first = index * piece;
            let mine = first..first + rows.len() / width;
            for buffer in [&mut *seen, &mut *product] {
                buffer.resize(rows.len(), 0.0);
            }
            // Texts stand in the order of their rows.
            let begin = texts.partition_point(|text| text.end <= mine.start);
            for text in texts[begin..].iter().take_while(|text| text.start < mine.end) {
                let (from, to) = (text.start.max(mine.start), text.end.min(mine.end));
                for start in (from..to).step_by(LANES) {
                    let from = start..to.min(start + LANES);
                    let out = &mut seen[(start - first) * width..][..from.len() * width];
                    let text = text.clone();
                    let back = false;
                    isa.run(Look { qkv, width, heads, text, from, back, turned, scores, out });
                }
            }
            let (dense, then) = (&layer.output, Then::Nothing);
            isa.run(Multiply { dense, rows: seen, then, out: product });
            let gains = &layer.attention_norm;
            isa.run(Normalize { gains, epsilon, add: Some(product), rows });
            wide.resize(rows.len() / width * layer.up.outputs(), 0.0);
            isa.run(Multiply { dense: &layer.up, rows, then: Then::Gelu, out: wide });
            isa.run(Multiply { dense: &layer.down, rows: wide, then, out: product });
            isa.run(Normalize { gains: &layer.norm, epsilon, add: Some(product), rows });
        });
    }
}

impl Layer {
    fn load(
        config: &EncoderConfig,
        tensors: &mut Tensors<'_>,
        at: usize,
    ) -> Result<Self, KernelError> {
        let (width, wide) = (config.width, config.feed_forward);
        let name = |part: &str| format!("encoder.layer.{at}.{part}");
        let (own, parts) = (name("attention.self"), ["query", "key", "value"]);
        Ok(Self {
            qkv: joined(tensors, &own, &parts, width, None)?,
            output: dense(tensors, &name("attention.output.dense"), width, width)?,
            up: dense(tensors, &name("intermediate.dense"), width, wide)?,
            down: dense(tensors, &name("output.dense"), wide, width)?,
            attention_norm: gains(tensors, &name("attention.output.LayerNorm"), width)?,
            norm: gains(tensors, &name("output.LayerNorm"), width)?,
        })
    }
}

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
