//! Attention within a text: up to sixteen of its rows look at all of them, or, where a model was
//! trained so, at those up to themselves.
//!
//! Owns the order of operations. The rows that look are the lanes, so that nothing is summed across
//! lanes: a score is one chain of fused multiply-adds over the dimensions, a mixed value one chain
//! over the text's rows, whichever rows look side by side.

use std::ops::Range;

use crate::math::exp;
use crate::simd::{Floats, Kernel, LANES, Simd};

/// Scores or values computed side by side: as many sums as hide a multiply-add's time.
pub(crate) const SIDE: usize = 8;
/// The same where registers hold fewer.
const FEW: usize = SIDE / 2;

/// The heads of some rows.
pub(crate) struct Look<'a> {
    /// Queries, keys and values of all rows, row after row, each `3 * width` numbers.
    pub(crate) qkv: &'a [f32],
    pub(crate) width: usize,
    pub(crate) heads: usize,
    /// The text's rows.
    pub(crate) text: Range<usize>,
    /// Those that look, at most sixteen.
    pub(crate) from: Range<usize>,
    /// Whether a row sees nothing that comes after it.
    pub(crate) back: bool,
    pub(crate) turned: &'a mut Vec<Floats>,
    pub(crate) scores: &'a mut Vec<Floats>,
    /// What they see, row after row.
    pub(crate) out: &'a mut [f32],
}

impl Kernel for Look<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let dim = self.width / self.heads;
        if self.back {
            self.text.end = self.text.end.min(self.from.end);
        }
        self.turned.resize(dim, [0.0; LANES]);
        self.scores.resize(self.text.len(), [0.0; LANES]);
        for head in 0..self.heads {
            self.turn(head, dim);
            let mut at = 0;
            while at < self.text.len() {
                at += match self.text.len() - at {
                    SIDE.. if S::BESIDE >= SIDE => self.score::<S, SIDE>(s, head, dim, at),
                    FEW.. => self.score::<S, FEW>(s, head, dim, at),
                    _ => self.score::<S, 1>(s, head, dim, at),
                };
            }
            self.hide(f32::NEG_INFINITY);
            let inverse = self.soften(s);
            self.hide(0.0);
            for first in (0..dim).step_by(SIDE) {
                if S::BESIDE >= SIDE {
                    self.mix::<S, SIDE>(s, head, dim, first, inverse);
                } else {
                    self.mix::<S, FEW>(s, head, dim, first, inverse);
                    self.mix::<S, FEW>(s, head, dim, first + FEW, inverse);
                }
            }
        }
    }
}

impl Look<'_> {
    /// Brings a head's queries into lanes, scaled.
    #[inline(always)]
    fn turn(&mut self, head: usize, dim: usize) {
        let scale = 1.0 / (dim as f32).sqrt();
        for (lane, row) in self.from.clone().enumerate() {
            let query = &self.qkv[row * 3 * self.width + head * dim..][..dim];
            for (lanes, number) in self.turned.iter_mut().zip(query) {
                lanes[lane] = number * scale;
            }
        }
    }

    #[inline(always)]
    fn score<S: Simd, const N: usize>(
        &mut self,
        s: S,
        head: usize,
        dim: usize,
        at: usize,
    ) -> usize {
        let mut keys: [&[f32]; N] = [&[]; N];
        for side in 0..N {
            let row = self.text.start + at + side;
            keys[side] = &self.qkv[row * 3 * self.width + self.width + head * dim..][..dim];
        }
        let turned = &self.turned[..dim];
        let mut sums = [s.splat(0.0); N];
        for place in 0..dim {
            let query = s.load(&turned[place]);
            for side in 0..N {
                sums[side] = s.fma(query, s.splat(keys[side][place]), sums[side]);
            }
        }
        for side in 0..N {
            s.store(sums[side], &mut self.scores[at + side]);
        }
        N
    }

    /// Gives the scores of what rows do not see this value: such that it weighs nothing, then none.
    /// A row's own score comes before those, so that no sum and no greatest depends on them.
    #[inline(always)]
    fn hide(&mut self, value: f32) {
        if self.back {
            for row in self.from.clone() {
                // Rows that look and come before this one.
                for lane in 0..row - self.from.start {
                    self.scores[row - self.text.start][lane] = value;
                }
            }
        }
    }

    /// Scores to weights; one over their sums.
    #[inline(always)]
    fn soften<S: Simd>(&mut self, s: S) -> S::F {
        let mut most = s.splat(f32::NEG_INFINITY);
        for score in self.scores.iter() {
            most = s.max(s.load(score), most);
        }
        let mut sum = s.splat(0.0);
        for score in self.scores.iter_mut() {
            let weight = exp(s, s.sub(s.load(score), most));
            sum = s.add(sum, weight);
            s.store(weight, score);
        }
        s.div(s.splat(1.0), sum)
    }

    #[inline(always)]
    fn mix<S: Simd, const N: usize>(
        &mut self,
        s: S,
        head: usize,
        dim: usize,
        first: usize,
        inverse: S::F,
    ) {
        let mut sums = [s.splat(0.0); N];
        for (at, score) in self.scores.iter().enumerate() {
            let place = (self.text.start + at) * 3 * self.width + 2 * self.width + head * dim;
            let values = &self.qkv[place + first..][..N];
            let weight = s.load(score);
            for side in 0..N {
                sums[side] = s.fma(weight, s.splat(values[side]), sums[side]);
            }
        }
        for side in 0..N {
            let mut lanes: Floats = [0.0; LANES];
            s.store(s.mul(sums[side], inverse), &mut lanes);
            for lane in 0..self.from.len() {
                self.out[lane * self.width + head * dim + first + side] = lanes[lane];
            }
        }
    }
}
