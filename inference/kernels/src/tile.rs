//! Weights as products take them: tiles of 16 output rows and 32 inputs.
//!
//! Owns the layouts and how a tile is multiplied by rounded activations. Lane `r` of everything
//! belongs to output row `r`: one load brings the same four inputs of all sixteen rows, and sixteen
//! sums grow side by side. Integers are summed exactly within a block; between blocks one fused
//! multiply-add per block and scale, in the order of the blocks, whoever computes it.
//!
//! The layouts are the same for all sets of instructions, and files keep them: whoever changes one
//! raises [`crate::kept::TILES_VERSION`].

use bytemuck::{Pod, Zeroable};

use crate::act::Act;
use crate::simd::{Dot, Halves, Simd, Words};

/// Steps of four inputs in a tile.
pub(crate) const STEPS: usize = 8;

/// A layout of tiles. Each is its bytes and nothing else ([`Pod`]), which is how a file keeps it.
pub(crate) trait Tile: Pod + Send + Sync {
    /// Bits of a code: one of eight is any byte, all others are below 64.
    const BITS: u32;
    /// Parts, in equal shares of the steps, that have a factor of their own: one or two.
    const PARTS: usize;
    /// What codes are too large by.
    const EXCESS: i32;
    /// What scales the integers, loaded.
    type Scales<S: Simd>: Copy;

    fn scales<S: Simd>(&self, s: S) -> Self::Scales<S>;

    /// The weights of a step as unsigned bytes.
    fn step<S: Simd>(&self, s: S, step: usize) -> S::B;

    /// `sum` and the scaled `dots` of one part of the tile, the excess taken off.
    fn scale<S: Simd>(
        s: S,
        part: usize,
        dots: S::I,
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
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Tile4 {
    pub(crate) factor: Halves,
    pub(crate) offset: Halves,
    /// Step `j` in the lower four bits of vector `j`, step `j + 4` in the upper.
    pub(crate) low: [Words; 4],
}

/// Codes of five bits, a factor and an offset per row: Q5_0, Q5_1, Q5_K.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Tile5 {
    pub(crate) factor: Halves,
    pub(crate) offset: Halves,
    pub(crate) low: [Words; 4],
    /// Bit `j` of a byte is the fifth bit of its weight of step `j`.
    pub(crate) high: Words,
}

/// Codes of six bits that stand for themselves less 32, a factor per row and half: Q6_K.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Tile6 {
    pub(crate) factors: [Halves; 2],
    pub(crate) low: [Words; 4],
    /// Two bits per weight: steps 0 to 3, then 4 to 7.
    pub(crate) high: [Words; 2],
}

/// Codes of eight bits that stand for themselves less 128, a factor per row: Q8_0 and all that has
/// no layout of its own.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(32))]
pub(crate) struct Tile8 {
    pub(crate) factor: Halves,
    pub(crate) codes: [Words; STEPS],
}

/// What six-bit codes are too large by.
pub(crate) const EXCESS6: i32 = 32;
/// What eight-bit codes are too large by.
pub(crate) const EXCESS8: i32 = 128;

/// The lower four bits of a step.
#[inline(always)]
fn nibble<S: Simd>(s: S, low: &[Words; 4], step: usize) -> S::B {
    let both = s.bytes(&low[step % 4]);
    if step < 4 { s.lower(both) } else { s.upper(both) }
}

/// What the integer sum of a part begins with, so that codes count without their excess.
#[inline(always)]
pub(crate) const fn start<T: Tile>(act: &Act, part: usize) -> i32 {
    let sum = if T::PARTS == 1 { act.halves[0] + act.halves[1] } else { act.halves[part] };
    -T::EXCESS * sum
}

/// [`Simd::multiply`] by a processor that opens the tile once and multiplies row after row.
#[inline(always)]
pub(crate) fn held<S: Dot, T: Tile, const ROWS: usize>(
    s: S,
    tile: &T,
    acts: &[Act; ROWS],
    sums: &mut [S::F; ROWS],
) {
    let weights = [
        tile.step(s, 0),
        tile.step(s, 1),
        tile.step(s, 2),
        tile.step(s, 3),
        tile.step(s, 4),
        tile.step(s, 5),
        tile.step(s, 6),
        tile.step(s, 7),
    ];
    let scales = tile.scales(s);
    for row in 0..ROWS {
        for part in 0..T::PARTS {
            let dots = dots::<S, T>(s, &weights, &acts[row], part);
            sums[row] = T::scale(s, part, dots, &scales, &acts[row], sums[row]);
        }
    }
}

/// A part's codes times the activations: where it is long in two chains, because one waits for each
/// of its sums.
#[inline(always)]
fn dots<S: Dot, T: Tile>(s: S, weights: &[S::B; STEPS], act: &Act, part: usize) -> S::I {
    let mut even = s.splat_integer(start::<T>(act, part));
    if T::PARTS == 2 {
        for step in STEPS / 2 * part..STEPS / 2 * (part + 1) {
            even = dot::<S, T>(s, even, weights, act, step);
        }
        return even;
    }
    let mut odd = s.splat_integer(0);
    for step in 0..STEPS / 2 {
        even = dot::<S, T>(s, even, weights, act, 2 * step);
        odd = dot::<S, T>(s, odd, weights, act, 2 * step + 1);
    }
    s.add_integers(even, odd)
}

#[inline(always)]
fn dot<S: Dot, T: Tile>(s: S, sum: S::I, weights: &[S::B; STEPS], act: &Act, step: usize) -> S::I {
    if T::BITS == 8 {
        s.dot_wide(sum, weights[step], act.words[step])
    } else {
        s.dot(sum, weights[step], act.words[step])
    }
}

/// The sum of integers, scaled, and the offset's share.
#[inline(always)]
fn scaled<S: Simd>(s: S, dots: S::I, scales: &[S::F; 2], act: &Act, sum: S::F) -> S::F {
    let sum = s.fma(s.to_float(dots), s.mul(scales[0], s.splat(act.scale)), sum);
    s.fma(scales[1], s.splat(act.sum), sum)
}

impl Tile for Tile4 {
    /// A nibble.
    const BITS: u32 = 4;
    const PARTS: usize = 1;
    const EXCESS: i32 = 0;
    type Scales<S: Simd> = [S::F; 2];

    #[inline(always)]
    fn scales<S: Simd>(&self, s: S) -> [S::F; 2] {
        [s.widen(&self.factor), s.widen(&self.offset)]
    }

    #[inline(always)]
    fn step<S: Simd>(&self, s: S, step: usize) -> S::B {
        nibble(s, &self.low, step)
    }

    #[inline(always)]
    fn scale<S: Simd>(
        s: S,
        _: usize,
        dots: S::I,
        scales: &[S::F; 2],
        act: &Act,
        sum: S::F,
    ) -> S::F {
        scaled(s, dots, scales, act, sum)
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
    /// A nibble and a bit.
    const BITS: u32 = 5;
    const PARTS: usize = 1;
    const EXCESS: i32 = 0;
    type Scales<S: Simd> = [S::F; 2];

    #[inline(always)]
    fn scales<S: Simd>(&self, s: S) -> [S::F; 2] {
        [s.widen(&self.factor), s.widen(&self.offset)]
    }

    #[inline(always)]
    fn step<S: Simd>(&self, s: S, step: usize) -> S::B {
        s.with_bit(nibble(s, &self.low, step), s.bytes(&self.high), step as u32)
    }

    #[inline(always)]
    fn scale<S: Simd>(
        s: S,
        _: usize,
        dots: S::I,
        scales: &[S::F; 2],
        act: &Act,
        sum: S::F,
    ) -> S::F {
        scaled(s, dots, scales, act, sum)
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
    /// A nibble and two bits.
    const BITS: u32 = 6;
    /// Q6_K has a factor for each sixteen weights.
    const PARTS: usize = 2;
    const EXCESS: i32 = EXCESS6;
    type Scales<S: Simd> = [S::F; 2];

    #[inline(always)]
    fn scales<S: Simd>(&self, s: S) -> [S::F; 2] {
        [s.widen(&self.factors[0]), s.widen(&self.factors[1])]
    }

    #[inline(always)]
    fn step<S: Simd>(&self, s: S, step: usize) -> S::B {
        let high = s.bytes(&self.high[step / 4]);
        s.with_pair(nibble(s, &self.low, step), high, step as u32 % 4)
    }

    #[inline(always)]
    fn scale<S: Simd>(
        s: S,
        part: usize,
        dots: S::I,
        scales: &[S::F; 2],
        act: &Act,
        sum: S::F,
    ) -> S::F {
        s.fma(s.to_float(dots), s.mul(scales[part], s.splat(act.scale)), sum)
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
    /// A byte.
    const BITS: u32 = 8;
    const PARTS: usize = 1;
    const EXCESS: i32 = EXCESS8;
    type Scales<S: Simd> = S::F;

    #[inline(always)]
    fn scales<S: Simd>(&self, s: S) -> S::F {
        s.widen(&self.factor)
    }

    #[inline(always)]
    fn step<S: Simd>(&self, s: S, step: usize) -> S::B {
        s.bytes(&self.codes[step])
    }

    #[inline(always)]
    fn scale<S: Simd>(s: S, _: usize, dots: S::I, factor: &S::F, act: &Act, sum: S::F) -> S::F {
        s.fma(s.to_float(dots), s.mul(*factor, s.splat(act.scale)), sum)
    }

    fn row(&self, row: usize) -> Row {
        let words = std::array::from_fn(|step| self.codes[step][row]);
        Row { words, factors: [self.factor[row]; 2], offsets: Offsets::Factors(-EXCESS8) }
    }
}

fn low_row(low: &[Words; 4], row: usize) -> [u32; STEPS] {
    std::array::from_fn(|step| low[step % 4][row] >> (step / 4 * 4) & 0x0f0f_0f0f)
}
