//! Weights as products take them: tiles of 16 output rows and 32 inputs.
//!
//! Owns the layouts and how a tile is multiplied by rounded activations. Lane `r` of everything
//! belongs to output row `r`: one load brings the same four inputs of all sixteen rows, and sixteen
//! sums grow side by side. Integers are summed exactly within a block; between blocks one fused
//! multiply-add per block and scale, in the order of the blocks, whoever computes it.

use crate::act::Act;
use crate::simd::{Halves, Simd, Words};

/// Steps of four inputs in a tile.
pub(crate) const STEPS: usize = 8;

/// A layout of tiles.
pub(crate) trait Tile: Copy + Send + Sync {
    /// What scales the integers, loaded.
    type Scales<S: Simd>: Copy;

    /// The weights of each step as unsigned bytes, and the scales.
    fn open<S: Simd>(&self, s: S) -> ([S::B; STEPS], Self::Scales<S>);

    /// `sum` and the product of the opened tile with one block of activations.
    fn add<S: Simd>(
        s: S,
        weights: &[S::B; STEPS],
        scales: &Self::Scales<S>,
        act: &Act,
        sum: S::F,
    ) -> S::F;

    /// The codes of one row (unsigned) with, for both halves, factor and offset: a weight is
    /// `factor * code + offset`.
    fn row(&self, row: usize) -> Row;
}

/// One row of a tile.
pub(crate) struct Row {
    /// Four codes each.
    pub(crate) words: [u32; STEPS],
    pub(crate) factors: [u16; 2],
    pub(crate) offsets: Offsets,
}

/// What is added to `factor * code`.
pub(crate) enum Offsets {
    /// A number of its own, in half precision.
    Own(u16),
    /// So many times the factor.
    Factors(i32),
}

/// Codes of four bits, a factor and an offset per row: Q4_0, Q4_1, Q4_K.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Tile4 {
    pub(crate) factor: Halves,
    pub(crate) offset: Halves,
    /// Step `j` in the lower four bits of vector `j`, step `j + 4` in the upper.
    pub(crate) low: [Words; 4],
}

/// Codes of five bits, a factor and an offset per row: Q5_0, Q5_1, Q5_K.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Tile5 {
    pub(crate) factor: Halves,
    pub(crate) offset: Halves,
    pub(crate) low: [Words; 4],
    /// Bit `j` of a byte is the fifth bit of its weight of step `j`.
    pub(crate) high: Words,
}

/// Codes of six bits that stand for themselves less 32, a factor per row and half: Q6_K.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Tile6 {
    pub(crate) factors: [Halves; 2],
    pub(crate) low: [Words; 4],
    /// Two bits per weight: steps 0 to 3, then 4 to 7.
    pub(crate) high: [Words; 2],
}

/// Codes of eight bits that stand for themselves less 128, a factor per row: Q8_0 and all that has
/// no layout of its own.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Tile8 {
    pub(crate) factor: Halves,
    pub(crate) codes: [Words; STEPS],
}

/// What six-bit codes are too large by.
pub(crate) const EXCESS6: i32 = 32;
/// What eight-bit codes are too large by.
pub(crate) const EXCESS8: i32 = 128;

/// All steps' lower four bits.
#[inline(always)]
fn nibbles<S: Simd>(s: S, low: &[Words; 4]) -> [S::B; STEPS] {
    let both = [s.bytes(&low[0]), s.bytes(&low[1]), s.bytes(&low[2]), s.bytes(&low[3])];
    [
        s.lower(both[0]),
        s.lower(both[1]),
        s.lower(both[2]),
        s.lower(both[3]),
        s.upper(both[0]),
        s.upper(both[1]),
        s.upper(both[2]),
        s.upper(both[3]),
    ]
}

/// Codes below 64 times the activations: two chains, because one waits for each of its sums.
#[inline(always)]
fn dots<S: Simd>(s: S, weights: &[S::B; STEPS], act: &Act) -> S::I {
    let (mut even, mut odd) = (s.splat_integer(0), s.splat_integer(0));
    for step in 0..STEPS / 2 {
        even = s.dot(even, weights[2 * step], act.words[2 * step]);
        odd = s.dot(odd, weights[2 * step + 1], act.words[2 * step + 1]);
    }
    s.add_integers(even, odd)
}

/// The sum of integers, scaled, and the offset's share.
#[inline(always)]
fn scaled<S: Simd>(s: S, dots: S::I, scales: &[S::F; 2], act: &Act, sum: S::F) -> S::F {
    let sum = s.fma(s.to_float(dots), s.mul(scales[0], s.splat(act.scale)), sum);
    s.fma(scales[1], s.splat(act.sum), sum)
}

impl Tile for Tile4 {
    type Scales<S: Simd> = [S::F; 2];

    #[inline(always)]
    fn open<S: Simd>(&self, s: S) -> ([S::B; STEPS], [S::F; 2]) {
        (nibbles(s, &self.low), [s.widen(&self.factor), s.widen(&self.offset)])
    }

    #[inline(always)]
    fn add<S: Simd>(
        s: S,
        weights: &[S::B; STEPS],
        scales: &[S::F; 2],
        act: &Act,
        sum: S::F,
    ) -> S::F {
        scaled(s, dots(s, weights, act), scales, act, sum)
    }

    fn row(&self, row: usize) -> Row {
        Row {
            words: low_row(&self.low, row),
            factors: [self.factor[row]; 2],
            offsets: Offsets::Own(self.offset[row]),
        }
    }
}

impl Tile for Tile5 {
    type Scales<S: Simd> = [S::F; 2];

    #[inline(always)]
    fn open<S: Simd>(&self, s: S) -> ([S::B; STEPS], [S::F; 2]) {
        let mut weights = nibbles(s, &self.low);
        let high = s.bytes(&self.high);
        for step in 0..STEPS {
            weights[step] = s.with_bit(weights[step], high, step as u32);
        }
        (weights, [s.widen(&self.factor), s.widen(&self.offset)])
    }

    #[inline(always)]
    fn add<S: Simd>(
        s: S,
        weights: &[S::B; STEPS],
        scales: &[S::F; 2],
        act: &Act,
        sum: S::F,
    ) -> S::F {
        scaled(s, dots(s, weights, act), scales, act, sum)
    }

    fn row(&self, row: usize) -> Row {
        let mut words = low_row(&self.low, row);
        for (step, word) in words.iter_mut().enumerate() {
            *word |= (self.high[row] >> step & 0x0101_0101) << 4;
        }
        let offsets = Offsets::Own(self.offset[row]);
        Row { words, factors: [self.factor[row]; 2], offsets }
    }
}

impl Tile for Tile6 {
    type Scales<S: Simd> = [S::F; 2];

    #[inline(always)]
    fn open<S: Simd>(&self, s: S) -> ([S::B; STEPS], [S::F; 2]) {
        let mut weights = nibbles(s, &self.low);
        let high = [s.bytes(&self.high[0]), s.bytes(&self.high[1])];
        for step in 0..STEPS {
            weights[step] = s.with_pair(weights[step], high[step / 4], step as u32 % 4);
        }
        (weights, [s.widen(&self.factors[0]), s.widen(&self.factors[1])])
    }

    #[inline(always)]
    fn add<S: Simd>(
        s: S,
        weights: &[S::B; STEPS],
        scales: &[S::F; 2],
        act: &Act,
        sum: S::F,
    ) -> S::F {
        let mut sum = sum;
        let scale = s.splat(act.scale);
        for half in 0..2 {
            let mut dots = s.splat_integer(-EXCESS6 * act.halves[half]);
            for step in 4 * half..4 * half + 4 {
                dots = s.dot(dots, weights[step], act.words[step]);
            }
            sum = s.fma(s.to_float(dots), s.mul(scales[half], scale), sum);
        }
        sum
    }

    fn row(&self, row: usize) -> Row {
        let mut words = low_row(&self.low, row);
        for (step, word) in words.iter_mut().enumerate() {
            *word |= (self.high[step / 4][row] >> (2 * (step % 4)) & 0x0303_0303) << 4;
        }
        let factors = [self.factors[0][row], self.factors[1][row]];
        Row { words, factors, offsets: Offsets::Factors(-EXCESS6) }
    }
}

impl Tile for Tile8 {
    type Scales<S: Simd> = S::F;

    #[inline(always)]
    fn open<S: Simd>(&self, s: S) -> ([S::B; STEPS], S::F) {
        let codes = &self.codes;
        let weights = [
            s.bytes(&codes[0]),
            s.bytes(&codes[1]),
            s.bytes(&codes[2]),
            s.bytes(&codes[3]),
            s.bytes(&codes[4]),
            s.bytes(&codes[5]),
            s.bytes(&codes[6]),
            s.bytes(&codes[7]),
        ];
        (weights, s.widen(&self.factor))
    }

    #[inline(always)]
    fn add<S: Simd>(s: S, weights: &[S::B; STEPS], factor: &S::F, act: &Act, sum: S::F) -> S::F {
        let mut even = s.splat_integer(-EXCESS8 * (act.halves[0] + act.halves[1]));
        let mut odd = s.splat_integer(0);
        for step in 0..STEPS / 2 {
            even = s.dot_wide(even, weights[2 * step], act.words[2 * step]);
            odd = s.dot_wide(odd, weights[2 * step + 1], act.words[2 * step + 1]);
        }
        let dots = s.to_float(s.add_integers(even, odd));
        s.fma(dots, s.mul(*factor, s.splat(act.scale)), sum)
    }

    fn row(&self, row: usize) -> Row {
        let words = std::array::from_fn(|step| self.codes[step][row]);
        Row { words, factors: [self.factor[row]; 2], offsets: Offsets::Factors(-EXCESS8) }
    }
}

fn low_row(low: &[Words; 4], row: usize) -> [u32; STEPS] {
    std::array::from_fn(|step| low[step % 4][row] >> (step / 4 * 4) & 0x0f0f_0f0f)
}
