//! Models that see, and those that read what pictures are called: ViT (Dosovitskiy et al., 2020)
//! and both halves of CLIP (Radford et al., 2021), in full precision.
//!
//! Owns a stack of layers with their norms before, its phases and their division among threads
//! (`Tower`), and what stands before and behind it: squares of a picture as rows ([`Sight`]), or
//! tokens of texts ([`Captions`]). A picture's or a text's numbers are bitwise the same whatever
//! else is computed, on any number of threads and on every set of instructions.

mod load;

use std::ops::{ControlFlow, Range};

use crate::dense::{Dense, Gains, Multiply, Normalize, Then};
use crate::encoder::{EncoderCrew, Scratch};
use crate::error::KernelError;
use crate::look::{Look, SIDE};
use crate::simd::{Isa, LANES};

/// Channels of a picture: red, green, blue.
const CHANNELS: usize = 3;

/// What bends the numbers of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bend {
    /// x * Phi(x).
    Gelu,
    /// x / (1 + e^-1.702x).
    QuickGelu,
}

/// The dimensions of a stack of layers.
#[derive(Clone, Debug, PartialEq)]
pub struct TowerConfig {
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
    /// What bends the feed-forward part.
    pub bend: Bend,
}

/// The dimensions of a model that sees.
#[derive(Clone, Debug, PartialEq)]
pub struct SightConfig {
    /// Its layers.
    pub tower: TowerConfig,
    /// Points along each side of a picture.
    pub side: usize,
    /// Points along each side of the squares that pictures are cut into.
    pub square: usize,
    /// Whether squares are added a number of their own.
    pub shifted: bool,
    /// Whether rows have a norm before the first layer.
    pub normed_first: bool,
}

/// The dimensions of a model that reads what pictures are called.
#[derive(Clone, Debug, PartialEq)]
pub struct CaptionsConfig {
    /// Its layers, in which no row sees those after it.
    pub tower: TowerConfig,
    /// Tokens known.
    pub vocabulary: usize,
    /// Tokens of the longest text.
    pub positions: usize,
}

/// A stack of layers.
struct Tower {
    config: TowerConfig,
    /// Whether a row sees nothing that comes after it.
    back: bool,
    layers: Vec<Layer>,
    /// The norm behind the last layer.
    norm: Gains,
}

struct Layer {
    norm: Gains,
    qkv: Dense,
    output: Dense,
    forward_norm: Gains,
    up: Dense,
    down: Dense,
}

/// A model that sees.
pub struct Sight {
    config: SightConfig,
    squares: Dense,
    /// The row that becomes the picture's, its place added.
    class: Vec<f32>,
    /// The places of the squares.
    places: Vec<f32>,
    first_norm: Option<Gains>,
    tower: Tower,
}

/// A model that reads what pictures are called.
pub struct Captions {
    config: CaptionsConfig,
    words: Vec<f32>,
    places: Vec<f32>,
    tower: Tower,
}

/// Whether to go on; asked after each layer.
pub(crate) type GoOn<'a> = dyn FnMut() -> ControlFlow<()> + 'a;

impl TowerConfig {
    fn check(&self) -> Result<(), KernelError> {
        let dim = self.width.checked_div(self.heads).unwrap_or(0);
        let whole = dim > 0 && dim * self.heads == self.width && dim.is_multiple_of(SIDE);
        let fits = [self.width, self.feed_forward].iter().all(|n| *n > 0 && n % LANES == 0);
        if whole && fits {
            return Ok(());
        }
        Err(KernelError::Shape(format!(
            "rows of {} with {} heads and {} in the feed-forward part (multiples of {LANES}, and \
             heads of a multiple of {SIDE}, are computed here)",
            self.width, self.heads, self.feed_forward
        )))
    }

    /// Numbers that the weights are.
    fn numbers(&self) -> u64 {
        let n = |count: usize| count as u64;
        let row = 4 * n(self.width) + 2 * n(self.feed_forward) + 16;
        n(self.layers).saturating_mul(row).saturating_mul(n(self.width))
    }

    /// Bytes that so many rows take beside the weights while they are computed.
    fn rows_bytes(&self, rows: usize) -> u64 {
        // Rows, queries, keys and values, and what threads hold of them.
        let row = (8 * self.width + self.feed_forward) as u64;
        row.saturating_mul(rows as u64).saturating_mul(size_of::<f32>() as u64)
    }
}

impl SightConfig {
    /// Refuses what the kernels cannot compute.
    ///
    /// # Errors
    /// Which dimension it is.
    pub fn check(&self) -> Result<(), KernelError> {
        self.tower.check()?;
        match self.square > 0 && self.side >= self.square {
            true => Ok(()),
            false => Err(KernelError::Shape(format!(
                "squares of {} points a side in pictures of {}",
                self.square, self.side
            ))),
        }
    }

    /// Squares of a picture.
    pub const fn squares(&self) -> usize {
        let along = self.side / self.square;
        along * along
    }

    /// Numbers of a picture.
    pub const fn numbers(&self) -> usize {
        CHANNELS * self.side * self.side
    }

    /// Numbers of a square.
    const fn square_numbers(&self) -> usize {
        CHANNELS * self.square * self.square
    }

    /// Bytes that the weights take in memory, and a picture beside them while it is computed.
    pub fn bytes(&self) -> u64 {
        let rows = (self.square_numbers() + self.squares() + 4) as u64;
        let before = rows.saturating_mul(self.tower.width as u64);
        let weights = self.tower.numbers().saturating_add(before).saturating_mul(4);
        let picture = (2 * self.numbers() * size_of::<f32>()) as u64;
        let rows = self.tower.rows_bytes(self.squares() + 1);
        weights.saturating_add(rows).saturating_add(picture)
    }
}

impl CaptionsConfig {
    /// Refuses what the kernels cannot compute.
    ///
    /// # Errors
    /// Which dimension it is.
    pub fn check(&self) -> Result<(), KernelError> {
        self.tower.check()?;
        match self.vocabulary > 0 && self.positions > 0 {
            true => Ok(()),
            false => Err(KernelError::Shape("a vocabulary or texts without tokens".to_owned())),
        }
    }

    /// Bytes that the weights take in memory.
    pub fn bytes(&self) -> u64 {
        let rows = (self.vocabulary + self.positions + 2) as u64;
        let before = rows.saturating_mul(self.tower.width as u64);
        self.tower.numbers().saturating_add(before).saturating_mul(4)
    }
}

impl Sight {
    /// The dimensions.
    pub const fn config(&self) -> &SightConfig {
        &self.config
    }

    /// The row that stands for a picture, given as its channels one after the other, each row by
    /// row. None where `go_on`, which is asked after each layer, broke off.
    ///
    /// # Errors
    /// [`KernelError`] when the numbers are not those of such a picture; nothing is computed then.
    pub fn see(
        &self,
        crew: &mut EncoderCrew,
        picture: &[f32],
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<Vec<f32>>, KernelError> {
        if picture.len() != self.config.numbers() {
            let why = format!("a picture of {}, not {}", picture.len(), self.config.numbers());
            return Err(KernelError::Shape(why));
        }
        let (width, count) = (self.config.tower.width, self.config.squares());
        let cut = self.cut(picture);
        let piece = crew.piece(count);
        let EncoderCrew { isa, team, rows, scratches, .. } = &mut *crew;
        let isa = *isa;
        rows.clear();
        rows.extend_from_slice(&self.class);
        rows.resize((count + 1) * width, 0.0);
        let (dense, numbers) = (&self.squares, self.config.square_numbers());
        team.split(&mut rows[width..], piece * width, scratches, |index, out, _| {
            let rows = &cut[index * piece * numbers..][..out.len() / width * numbers];
            isa.run(Multiply { dense, rows, then: Then::Nothing, out });
        });
        add(&mut rows[width..], &self.places);
        if let Some(gains) = &self.first_norm {
            let epsilon = self.config.tower.epsilon;
            isa.run(Normalize { gains, epsilon, add: None, rows });
        }
        let whole = 0..count + 1;
        if self.tower.climb(crew, std::slice::from_ref(&whole), go_on).is_break() {
            return Ok(None);
        }
        Ok(Some(self.tower.row(crew, 0)))
    }

    /// A picture's squares, row by row of squares, each with its channels one after the other.
    fn cut(&self, picture: &[f32]) -> Vec<f32> {
        let SightConfig { side, square, .. } = self.config;
        let along = side / square;
        let mut cut = Vec::with_capacity(self.config.squares() * self.config.square_numbers());
        for at in 0..self.config.squares() {
            let (top, left) = (at / along * square, at % along * square);
            for channel in 0..CHANNELS {
                for row in top..top + square {
                    cut.extend_from_slice(
                        &picture[(channel * side + row) * side + left..][..square],
                    );
                }
            }
        }
        cut
    }
}

impl Captions {
    /// The dimensions.
    pub const fn config(&self) -> &CaptionsConfig {
        &self.config
    }

    /// The row of each text that stands at the given place of it. None where `go_on`, which is
    /// asked after each layer, broke off.
    ///
    /// # Errors
    /// [`KernelError`] when a token is none of the model's, a text is longer than it reads, or a
    /// place is beyond its text; nothing is computed then.
    pub fn read(
        &self,
        crew: &mut EncoderCrew,
        texts: &[(&[u32], usize)],
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<Vec<Vec<f32>>>, KernelError> {
        let CaptionsConfig { vocabulary, positions, ref tower } = self.config;
        let width = tower.width;
        crew.rows.clear();
        let mut spans = Vec::with_capacity(texts.len());
        for (text, place) in texts {
            if text.len() > positions || *place >= text.len() {
                let why = format!("{} tokens of at most {positions}, at {place}", text.len());
                return Err(KernelError::Shape(why));
            }
            let start = crew.rows.len() / width;
            for (&token, place) in text.iter().zip(self.places.chunks_exact(width)) {
                let at = token as usize * width;
                let word = self.words.get(at..at + width);
                let word = word.ok_or(KernelError::Token { token, vocabulary })?;
                crew.rows.extend(word.iter().zip(place).map(|(word, place)| word + place));
            }
            spans.push(start..start + text.len());
        }
        if self.tower.climb(crew, &spans, go_on).is_break() {
            return Ok(None);
        }
        let places = spans.iter().zip(texts).map(|(span, (_, place))| span.start + place);
        Ok(Some(places.map(|row| self.tower.row(crew, row)).collect()))
    }
}

impl Tower {
    /// Takes the crew's rows through all layers. Each of `texts` sees its own rows.
    fn climb(
        &self,
        crew: &mut EncoderCrew,
        texts: &[Range<usize>],
        go_on: &mut GoOn<'_>,
    ) -> ControlFlow<()> {
        crew.qkv.resize(crew.rows.len() * 3, 0.0);
        for layer in &self.layers {
            self.layer(crew, layer, texts);
            go_on()?;
        }
        ControlFlow::Continue(())
    }

    /// A row behind the last norm.
    fn row(&self, crew: &EncoderCrew, row: usize) -> Vec<f32> {
        let (width, epsilon) = (self.config.width, self.config.epsilon);
        let mut row = crew.rows[row * width..][..width].to_vec();
        crew.isa.run(Normalize { gains: &self.norm, epsilon, add: None, rows: &mut row });
        row
    }

    fn layer(&self, crew: &mut EncoderCrew, layer: &Layer, texts: &[Range<usize>]) {
        let TowerConfig { width, heads, epsilon, bend, .. } = self.config;
        let (piece, back) = (crew.piece(crew.rows.len() / width), self.back);
        let EncoderCrew { isa, team, rows, qkv, scratches } = crew;
        let isa = *isa;
        let all = &*rows;
        team.split(qkv, piece * 3 * width, scratches, |index, out, scratch| {
            let rows = &all[index * piece * width..][..out.len() / 3];
            normalized(isa, (&layer.norm, epsilon), rows, &mut scratch.normed);
            let (dense, rows) = (&layer.qkv, scratch.normed.as_slice());
            isa.run(Multiply { dense, rows, then: Then::Nothing, out });
        });
        let qkv = &*qkv;
        team.split(rows, piece * width, scratches, |index, rows, scratch| {
            let Scratch { turned, scores, normed, seen, product, wide } = scratch;
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
                    isa.run(Look { qkv, width, heads, text, from, back, turned, scores, out });
                }
            }
            let (dense, then) = (&layer.output, Then::Nothing);
            isa.run(Multiply { dense, rows: seen, then, out: product });
            add(rows, product);
            normalized(isa, (&layer.forward_norm, epsilon), rows, normed);
            wide.resize(rows.len() / width * layer.up.outputs(), 0.0);
            let bent = match bend {
                Bend::Gelu => Then::Gelu,
                Bend::QuickGelu => Then::QuickGelu,
            };
            isa.run(Multiply { dense: &layer.up, rows: normed, then: bent, out: wide });
            isa.run(Multiply { dense: &layer.down, rows: wide, then, out: product });
            add(rows, product);
        });
    }
}

/// A copy of rows, each with mean 0 and variance 1, then gain and shift.
fn normalized(isa: Isa, (gains, epsilon): (&Gains, f32), rows: &[f32], into: &mut Vec<f32>) {
    into.clear();
    into.extend_from_slice(rows);
    isa.run(Normalize { gains, epsilon, add: None, rows: into });
}

fn add(rows: &mut [f32], more: &[f32]) {
    rows.iter_mut().zip(more).for_each(|(number, more)| *number += more);
}

#[cfg(test)]
#[path = "tower_tests.rs"]
mod tests;
