//! What is done to rows between products: norms, rounding, rotation, gating.
//!
//! Owns the layout of a batch: sixteen numbers of one row lie together, then the same sixteen of
//! the next row, then the next sixteen of all rows. A product's tile writes one such group, and
//! any number of groups can be computed by different threads.

use crate::act::Act;
use crate::math::{gelu, silu, total};
use crate::model::{Activation, Rotation};
use crate::simd::{Floats, Kernel, LANES, Simd};

/// Numbers `from..` of one row, as many as `out` takes.
pub(crate) fn gather(all: &[Floats], rows: usize, row: usize, from: usize, out: &mut [f32]) {
    let (mut at, mut out) = (from, out);
    while !out.is_empty() {
        let Some(tile) = all.get(at / LANES * rows + row) else { return };
        let part = &tile[at % LANES..];
        let (now, later) = out.split_at_mut(part.len().min(out.len()));
        now.copy_from_slice(&part[..now.len()]);
        at += now.len();
        out = later;
    }
}

/// Puts one row's numbers in their places.
pub(crate) fn scatter(numbers: &[f32], rows: usize, row: usize, all: &mut [Floats]) {
    for (index, part) in numbers.chunks(LANES).enumerate() {
        if let Some(tile) = all.get_mut(index * rows + row) {
            tile[..part.len()].copy_from_slice(part);
        }
    }
}

/// For some rows from `first` on, what the norm multiplies them by: the inverse root of the mean
/// of squares (RMSNorm; Zhang and Sennrich, 2019).
pub(crate) struct Norm<'a> {
    pub(crate) x: &'a [Floats],
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) epsilon: f32,
    pub(crate) first: usize,
    pub(crate) out: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, out) in self.out.iter_mut().enumerate() {
            let mut sum = s.splat(0.0);
            for tile in self.x.iter().skip(self.first + row).step_by(self.rows) {
                let values = s.load(tile);
                sum = s.fma(values, values, sum);
            }
            *out = 1.0 / (total(s, sum) / self.width as f32 + self.epsilon).sqrt();
        }
    }
}

/// Blocks from `first` on of the normed rows, rounded.
pub(crate) struct RoundNormed<'a> {
    pub(crate) x: &'a [Floats],
    pub(crate) rows: usize,
    pub(crate) factors: &'a [f32],
    pub(crate) weights: &'a [Floats],
    pub(crate) first: usize,
    pub(crate) out: &'a mut [Act],
}

impl Kernel for RoundNormed<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const ZERO: Floats = [0.0; LANES];
        let blocks = self.out.chunks_exact_mut(self.rows).enumerate();
        for (index, block) in blocks {
            let tile = 2 * (self.first + index);
            let weights = [self.weights.get(tile), self.weights.get(tile + 1)];
            let weights =
                [s.load(weights[0].unwrap_or(&ZERO)), s.load(weights[1].unwrap_or(&ZERO))];
            let low = &self.x[tile * self.rows..][..self.rows];
            let high = &self.x[(tile + 1) * self.rows..][..self.rows];
            for (row, out) in block.iter_mut().enumerate() {
                let factor = s.splat(self.factors[row]);
                let low = s.mul(s.mul(s.load(&low[row]), factor), weights[0]);
                let high = s.mul(s.mul(s.load(&high[row]), factor), weights[1]);
                *out = Act::round(s, low, high);
            }
        }
    }
}

/// Blocks that lie in plain memory, rounded.
pub(crate) struct RoundPlain<'a> {
    pub(crate) values: &'a [[Floats; 2]],
    pub(crate) out: &'a mut [Act],
}

impl Kernel for RoundPlain<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (values, out) in self.values.iter().zip(self.out) {
            *out = Act::round_slice(s, values);
        }
    }
}

/// Some tiles of all rows from `first` on: what was computed apart, normed, is added to them.
pub(crate) struct AddNormed<'a> {
    pub(crate) apart: &'a [Floats],
    pub(crate) rows: usize,
    pub(crate) factors: &'a [f32],
    pub(crate) weights: &'a [Floats],
    pub(crate) first: usize,
    pub(crate) out: &'a mut [Floats],
}

impl Kernel for AddNormed<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (index, out) in self.out.chunks_exact_mut(self.rows).enumerate() {
            let tile = self.first + index;
            let weights = s.load(&self.weights[tile]);
            let apart = &self.apart[tile * self.rows..][..self.rows];
            for (row, out) in out.iter_mut().enumerate() {
                let normed = s.mul(s.load(&apart[row]), s.splat(self.factors[row]));
                s.store(s.fma(normed, weights, s.load(out)), out);
            }
        }
    }
}

/// One block of all rows: `activation(gate) * up` (Shazeer, 2020), rounded. Both have two tiles.
pub(crate) struct Gated<'a> {
    pub(crate) activation: Activation,
    pub(crate) gate: &'a [Floats],
    pub(crate) up: &'a [Floats],
    pub(crate) out: &'a mut [Act],
}

impl Kernel for Gated<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.activation {
            Activation::Silu => self.by::<S, false>(s),
            Activation::Gelu => self.by::<S, true>(s),
        }
    }
}

impl Gated<'_> {
    #[inline(always)]
    fn by<S: Simd, const GELU: bool>(self, s: S) {
        let rows = self.out.len();
        for (row, out) in self.out.iter_mut().enumerate() {
            let (low, high) = (row, rows + row);
            let first = opened::<S, GELU>(s, s.load(&self.gate[low]));
            let second = opened::<S, GELU>(s, s.load(&self.gate[high]));
            let first = s.mul(first, s.load(&self.up[low]));
            let second = s.mul(second, s.load(&self.up[high]));
            *out = Act::round(s, first, second);
        }
    }
}

#[inline(always)]
fn opened<S: Simd, const GELU: bool>(s: S, gate: S::F) -> S::F {
    if GELU { gelu(s, gate) } else { silu(s, gate) }
}

/// Keys and values of one position and head, put into its page.
pub(crate) struct Keep<'a> {
    /// Padded to whole vectors.
    pub(crate) key: &'a [f32],
    pub(crate) value: &'a [f32],
    pub(crate) slot: usize,
    /// The head's keys in the page, then its values.
    pub(crate) keys: &'a mut [u16],
    pub(crate) values: &'a mut [u16],
}

impl Kernel for Keep<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let padded = self.key.len();
        let keys = &mut self.keys[self.slot / LANES * padded * LANES..][..padded * LANES];
        let values = &mut self.values[self.slot * padded..][..padded];
        let lane = self.slot % LANES;
        for (index, part) in self.key.as_chunks().0.iter().enumerate() {
            let mut halves = [0; LANES];
            s.narrow(s.load(part), &mut halves);
            for (at, half) in halves.into_iter().enumerate() {
                keys[(index * LANES + at) * LANES + lane] = half;
            }
        }
        for (part, out) in self.value.as_chunks().0.iter().zip(values.as_chunks_mut().0) {
            s.narrow(s.load(part), out);
        }
    }
}

/// Norms one head in place (RMSNorm, as Qwen 3 and Gemma 3 do to queries and keys); sums sixteen by
/// sixteen, in one order on every processor.
pub(crate) fn norm_head(head: &mut [f32], weights: &[f32], epsilon: f32) {
    let mut sums = [0.0; LANES];
    for part in head.chunks(LANES) {
        for (sum, number) in sums.iter_mut().zip(part) {
            *sum += number * number;
        }
    }
    let mean = sums.iter().sum::<f32>() / head.len() as f32;
    let factor = 1.0 / (mean + epsilon).sqrt();
    for (number, weight) in head.iter_mut().zip(weights) {
        *number = *number * factor * weight;
    }
}

/// Rotates one head by its position's angles (Su et al., 2021); multiplications and additions are
/// rounded one by one on every processor.
pub(crate) fn rotate(head: &mut [f32], angles: &[[f32; 2]], rotation: Rotation) {
    match rotation {
        Rotation::Pairs => {
            for (pair, &[cos, sin]) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                let [a, b] = *pair;
                *pair = [a * cos - b * sin, a * sin + b * cos];
            }
        }
        Rotation::Halves => {
            let (left, right) = head.split_at_mut(angles.len());
            for ((a, b), &[cos, sin]) in left.iter_mut().zip(right).zip(angles) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
}
