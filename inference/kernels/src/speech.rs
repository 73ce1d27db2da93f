//! Models that hear and write: Whisper (Radford et al., 2022), in full precision.
//!
//! Owns the dimensions, the weights and the threads. How sound is read is in `hear`, how text is
//! written in `write`. The bits of an answer do not depend on the number of threads or on the set
//! of instructions.

mod hear;
mod load;
mod write;

use std::ops::ControlFlow;

use crate::dense::{Dense, Gains, Multiply, MultiplyRow, Normalize, Then};
use crate::error::KernelError;
use crate::glance::Kept;
use crate::look::SIDE;
use crate::simd::{Floats, Isa, LANES};
use crate::team::Team;

/// What keeps norms from dividing by zero: PyTorch's own, which no configuration changes.
const EPSILON: f32 = 1e-5;
/// Rows that one thread takes at a time: their products stay in the nearest cache while a layer's
/// weights pass by.
const MOST_ROWS: usize = 64;
/// Fewer would fetch a layer's weights for hardly any work.
const LEAST_ROWS: usize = 8;
/// Pieces of one row's product for each thread: a thread that comes late finds one to take.
const PIECES: usize = 4;

/// The dimensions of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeechConfig {
    /// Bands of the spectrum.
    pub bands: usize,
    /// Rows that a window of sound becomes; its spectrum has twice as many.
    pub frames: usize,
    /// Numbers of a row.
    pub width: usize,
    /// Attention heads, of what hears and of what writes.
    pub heads: [usize; 2],
    /// Layers of both.
    pub layers: [usize; 2],
    /// Numbers of a row in the feed-forward parts of both.
    pub feed_forward: [usize; 2],
    /// Tokens known.
    pub vocabulary: usize,
    /// Tokens of the longest text, with what it begins with.
    pub positions: usize,
}

impl SpeechConfig {
    /// Refuses what the kernels cannot compute.
    ///
    /// # Errors
    /// Which dimensions they are.
    pub fn check(&self) -> Result<(), KernelError> {
        let whole = self.heads.iter().all(|heads| {
            let dim = self.width.checked_div(*heads).unwrap_or(0);
            dim > 0 && dim * heads == self.width && dim % LANES == 0 && dim % SIDE == 0
        });
        let wide = self.feed_forward.iter().all(|n| *n > 0 && n % LANES == 0);
        let some = [self.bands, self.frames, self.vocabulary, self.positions];
        if whole && wide && some.iter().all(|n| *n > 0) {
            return Ok(());
        }
        Err(KernelError::Shape(format!(
            "rows of {} with {:?} heads and {:?} in the feed-forward parts (multiples of {LANES}, \
             also in a head, are computed here)",
            self.width, self.heads, self.feed_forward
        )))
    }

    /// Bytes that the weights take in memory.
    pub fn bytes(&self) -> u64 {
        let n = |count: usize| count as u64;
        let width = n(self.width);
        let convolutions = 3 * (n(self.bands) + width);
        let rows = n(self.vocabulary) + n(self.positions) + n(self.frames) + 4;
        let layer = |side: usize, products: u64| {
            let one = products * width + 2 * n(self.feed_forward[side]) + 16;
            n(self.layers[side]).saturating_mul(one)
        };
        let numbers = convolutions.saturating_add(rows).saturating_add(layer(0, 4));
        let numbers = numbers.saturating_add(layer(1, 8));
        numbers.saturating_mul(width).saturating_mul(size_of::<f32>() as u64)
    }

    /// Bytes that a request takes beside the weights: what is kept of the sound and of the text,
    /// and rows under way.
    pub fn working_bytes(&self) -> u64 {
        let n = |count: usize| count as u64;
        let kept = 2 * n(self.layers[1]).saturating_mul(n(self.frames) + n(self.positions));
        // The spectrum's rows after the first convolution, and three numbers for each of a row.
        let rows = 8 * n(self.frames);
        kept.saturating_add(rows).saturating_mul(n(self.width)).saturating_mul(4)
    }
}

/// A model's weights.
pub struct Speech {
    config: SpeechConfig,
    first: Dense,
    second: Dense,
    /// Added to the rows of a window, row after row.
    places: Vec<f32>,
    hearing: Vec<Hearing>,
    hearing_norm: Gains,
    /// Tokens, as products; the vocabulary is filled up to whole tiles.
    words: Dense,
    /// Added to the rows of tokens.
    positions: Vec<f32>,
    writing: Vec<Writing>,
    writing_norm: Gains,
}

/// A layer of what hears.
struct Hearing {
    norm: Gains,
    qkv: Dense,
    output: Dense,
    forward: Forward,
}

/// A layer of what writes.
struct Writing {
    norm: Gains,
    qkv: Dense,
    output: Dense,
    /// How it looks at what was heard.
    heard_norm: Gains,
    query: Dense,
    heard: Dense,
    heard_output: Dense,
    forward: Forward,
}

/// The feed-forward part of a layer.
struct Forward {
    norm: Gains,
    up: Dense,
    down: Dense,
}

/// A window of sound as a model heard it, and what was written of it so far.
pub struct Heard {
    layers: Vec<Remembered>,
    /// Tokens written.
    written: usize,
}

struct Remembered {
    sound: Kept,
    text: Kept,
}

/// The threads that compute, with the memory that they work on.
pub struct SpeechCrew {
    isa: Isa,
    team: Team,
    rows: Vec<f32>,
    normed: Vec<f32>,
    wide: Vec<f32>,
    product: Vec<f32>,
    scratches: Vec<Scratch>,
}

/// What one thread needs for itself.
#[derive(Default)]
struct Scratch {
    turned: Vec<Floats>,
    scores: Vec<Floats>,
    normed: Vec<f32>,
    seen: Vec<f32>,
    product: Vec<f32>,
    wide: Vec<f32>,
}

impl SpeechCrew {
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
        Ok(Self {
            isa,
            team,
            rows: Vec::new(),
            normed: Vec::new(),
            wide: Vec::new(),
            product: Vec::new(),
            scratches,
        })
    }

    /// Rows per piece: enough pieces for all threads, none too small.
    const fn piece(&self, rows: usize) -> usize {
        let share = rows.div_ceil(2 * self.team.size()).next_multiple_of(LEAST_ROWS);
        if share > MOST_ROWS { MOST_ROWS } else { share }
    }
}

impl Speech {
    /// The dimensions.
    pub const fn config(&self) -> &SpeechConfig {
        &self.config
    }

    /// Room for a window.
    pub fn room(&self) -> Heard {
        let SpeechConfig { width, frames, positions, heads: [_, heads], .. } = self.config;
        let kept = |rows: usize| Kept::new(heads, width / heads, rows);
        let layer = |_: &Writing| Remembered { sound: kept(frames), text: kept(positions) };
        Heard { layers: self.writing.iter().map(layer).collect(), written: 0 }
    }
}

impl Heard {
    /// Tokens written so far.
    pub const fn written(&self) -> usize {
        self.written
    }

    /// Forgets what was written, and not what was heard.
    pub const fn anew(&mut self) {
        self.written = 0;
    }
}

/// Whether to go on; asked after each layer of a window.
pub(crate) type GoOn<'a> = dyn FnMut() -> ControlFlow<()> + 'a;

/// Products of rows: few are divided by outputs, many by rows.
fn multiply(
    (isa, team, scratches): (Isa, &mut Team, &mut [Scratch]),
    dense: &Dense,
    rows: &[f32],
    then: Then,
    out: &mut [f32],
) {
    let (inputs, outputs) = (dense.inputs(), dense.outputs());
    let count = rows.len() / inputs;
    if count >= LEAST_ROWS {
        let share = count.div_ceil(2 * team.size()).next_multiple_of(LEAST_ROWS).min(MOST_ROWS);
        team.split(out, share * outputs, scratches, |index, out, _| {
            let rows = &rows[index * share * inputs..][..out.len() / outputs * inputs];
            isa.run(Multiply { dense, rows, then, out });
        });
        return;
    }
    let tiles = (outputs / LANES).div_ceil(PIECES * team.size());
    for (row, out) in rows.chunks_exact(inputs).zip(out.chunks_exact_mut(outputs)) {
        team.split(out, tiles * LANES, scratches, |index, out, _| {
            isa.run(MultiplyRow { dense, row, first: index * tiles, then, out });
        });
    }
}

/// A copy of rows, each with mean 0 and variance 1, then gain and shift.
fn normalized(isa: Isa, gains: &Gains, rows: &[f32], into: &mut Vec<f32>) {
    into.clear();
    into.extend_from_slice(rows);
    isa.run(Normalize { gains, epsilon: EPSILON, add: None, rows: into });
}

fn add(rows: &mut [f32], more: &[f32]) {
    rows.iter_mut().zip(more).for_each(|(number, more)| *number += more);
}

#[cfg(test)]
#[path = "speech_tests.rs"]
mod tests;
