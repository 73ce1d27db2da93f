//! Products of rows of floats with a matrix of floats, and what comes right after them: a bias and
//! a GELU; the norm of a row.
//!
//! Owns the packing into tiles of 16 outputs, the same order of operations for every row whatever
//! else is multiplied (one chain of fused multiply-adds from the bias on, over the inputs in their
//! order), and nothing about threads.

mod row;

use crate::error::KernelError;
use crate::math::{exp, total};
use crate::simd::{Floats, Kernel, LANES, Simd};

pub(crate) use row::MultiplyRow;

/// Rows that a weight is multiplied with while it is in a register, and tiles beside each other:
/// sixteen sums, two weights and a row's number fill 32 registers by two thirds, and hide the four
/// or five cycles of a multiply-add.
const ROWS: usize = 8;
const TILES: usize = 2;
/// The same where sixteen lanes take two of 16 registers.
const FEW_ROWS: usize = 4;

/// A matrix and its bias.
pub(crate) struct Dense {
    inputs: usize,
    outputs: usize,
    /// Tile after tile, input after input: the weights of 16 outputs.
    tiles: Vec<Floats>,
    bias: Vec<Floats>,
}

/// What is done with a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// x * Phi(x), by the error function (Hendrycks and Gimpel, 2016).
    Gelu,
    /// x / (1 + e^-1.702x), which comes near it (the same paper, section 2).
    QuickGelu,
}

impl Then {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::F) -> S::F {
        match self {
            Self::Nothing => x,
            Self::Gelu => gelu(s, x),
            Self::QuickGelu => quick_gelu(s, x),
        }
    }
}

impl Dense {
    /// Packs weights given output by output.
    ///
    /// # Errors
    /// When the numbers are not those of such a matrix, or the outputs do not fill tiles.
    pub(crate) fn pack(inputs: usize, weights: &[f32], bias: &[f32]) -> Result<Self, KernelError> {
        let outputs = bias.len();
        let fits = inputs.checked_mul(outputs) == Some(weights.len());
        if !fits || inputs == 0 || !outputs.is_multiple_of(LANES) {
            return Err(KernelError::Shape(format!("a matrix of {outputs} by {inputs}")));
        }
        let mut tiles = vec![[0.0; LANES]; outputs / LANES * inputs];
        for (output, row) in weights.chunks_exact(inputs).enumerate() {
            let tile = &mut tiles[output / LANES * inputs..][..inputs];
            for (lanes, &weight) in tile.iter_mut().zip(row) {
                lanes[output % LANES] = weight;
            }
        }
        Ok(Self { inputs, outputs, tiles, bias: bias.as_chunks().0.to_vec() })
    }

    /// Numbers of a product.
    pub(crate) const fn outputs(&self) -> usize {
        self.outputs
    }
}

/// Multiplies rows.
pub(crate) struct Multiply<'a> {
    pub(crate) dense: &'a Dense,
    /// Row after row.
    pub(crate) rows: &'a [f32],
    pub(crate) then: Then,
    /// Row after row.
    pub(crate) out: &'a mut [f32],
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (tiles, rows) = (self.dense.bias.len(), self.out.len() / self.dense.outputs);
        let mut tile = 0;
        while tile < tiles {
            if S::ROOMY && tile + TILES <= tiles {
                self.column::<S, TILES>(s, tile, rows);
                tile += TILES;
            } else {
                self.column::<S, 1>(s, tile, rows);
                tile += 1;
            }
        }
    }
}

impl Multiply<'_> {
    #[inline(always)]
    fn column<S: Simd, const WIDE: usize>(&mut self, s: S, tile: usize, rows: usize) {
        let mut row = 0;
        while row < rows {
            let left = rows - row;
            if S::ROOMY && left >= ROWS {
                self.block::<S, ROWS, WIDE>(s, tile, row);
                row += ROWS;
            } else if left >= FEW_ROWS {
                self.block::<S, FEW_ROWS, WIDE>(s, tile, row);
                row += FEW_ROWS;
            } else {
                self.block::<S, 1, WIDE>(s, tile, row);
                row += 1;
            }
        }
    }

    #[inline(always)]
    fn block<S: Simd, const HIGH: usize, const WIDE: usize>(
        &mut self,
        s: S,
        tile: usize,
        row: usize,
    ) {
        let (depth, none): (usize, &[Floats]) = (self.dense.inputs, &[]);
        let mut weights = [none; WIDE];
        for wide in 0..WIDE {
            weights[wide] = &self.dense.tiles[(tile + wide) * depth..][..depth];
        }
        let mut rows: [&[f32]; HIGH] = [&[]; HIGH];
        for high in 0..HIGH {
            rows[high] = &self.rows[(row + high) * depth..][..depth];
        }
        let mut sums = [[s.splat(0.0); WIDE]; HIGH];
        for wide in 0..WIDE {
            let bias = s.load(&self.dense.bias[tile + wide]);
            for high in 0..HIGH {
                sums[high][wide] = bias;
            }
        }
        for at in 0..depth {
            let mut now = [s.splat(0.0); WIDE];
            for wide in 0..WIDE {
                now[wide] = s.load(&weights[wide][at]);
            }
            for high in 0..HIGH {
                let number = s.splat(rows[high][at]);
                for wide in 0..WIDE {
                    sums[high][wide] = s.fma(now[wide], number, sums[high][wide]);
                }
            }
        }
        for high in 0..HIGH {
            let out = &mut self.out[(row + high) * self.dense.outputs..][..self.dense.outputs];
            let out = out.as_chunks_mut().0;
            for wide in 0..WIDE {
                let sum = self.then.of(s, sums[high][wide]);
                s.store(sum, &mut out[tile + wide]);
            }
        }
    }
}

/// The coefficients of the error function's approximation 7.1.26 by Abramowitz and Stegun (1964),
/// the highest power first: within 1.5e-7.
const ERROR: [f32; 5] = [1.061_405_4, -1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6];
/// The same one's scale.
const ERROR_SCALE: f32 = 0.327_591_1;

/// x * Phi(x) = (x + |x| erf(|x| / sqrt 2)) / 2.
#[inline(always)]
fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let (one, half) = (s.splat(1.0), s.splat(0.5));
    let size = s.max(x, s.sub(s.splat(0.0), x));
    let z = s.mul(size, s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = s.div(one, s.fma(z, s.splat(ERROR_SCALE), one));
    let mut sum = s.splat(ERROR[0]);
    for term in 1..ERROR.len() {
        sum = s.fma(sum, t, s.splat(ERROR[term]));
    }
    let tail = s.mul(s.mul(sum, t), exp(s, s.sub(s.splat(0.0), s.mul(z, z))));
    s.mul(half, s.fma(size, s.sub(one, tail), x))
}

/// What x is multiplied by where the logistic function stands for Phi.
const QUICK: f32 = 1.702;

#[inline(always)]
fn quick_gelu<S: Simd>(s: S, x: S::F) -> S::F {
    s.div(x, s.add(s.splat(1.0), exp(s, s.mul(x, s.splat(-QUICK)))))
}

/// Gain and shift of a norm.
pub(crate) struct Gains {
    pub(crate) gain: Vec<Floats>,
    pub(crate) shift: Vec<Floats>,
}

/// Adds rows to rows, and gives each sum mean 0 and variance 1, then gain and shift (Ba et al.,
/// 2016).
pub(crate) struct Normalize<'a> {
    pub(crate) gains: &'a Gains,
    pub(crate) epsilon: f32,
    /// Row after row, as long as those that change; none adds nothing.
    pub(crate) add: Option<&'a [f32]>,
    pub(crate) rows: &'a mut [f32],
}

impl Kernel for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let tiles = self.gains.gain.len();
        let width = (tiles * LANES) as f32;
        let added = self.add.map(|add| add.as_chunks::<LANES>().0);
        let rows = self.rows.as_chunks_mut::<LANES>().0;
        for (index, row) in rows.chunks_exact_mut(tiles).enumerate() {
            if let Some(added) = added {
                let added = &added[index * tiles..][..tiles];
                for tile in 0..tiles {
                    let sum = s.add(s.load(&row[tile]), s.load(&added[tile]));
                    s.store(sum, &mut row[tile]);
                }
            }
            let mut sum = s.splat(0.0);
            for tile in 0..tiles {
                sum = s.add(sum, s.load(&row[tile]));
            }
            let mean = s.splat(total(s, sum) / width);
            let mut squares = s.splat(0.0);
            for tile in 0..tiles {
                let apart = s.sub(s.load(&row[tile]), mean);
                squares = s.fma(apart, apart, squares);
            }
            let factor = s.splat(1.0 / (total(s, squares) / width + self.epsilon).sqrt());
            for tile in 0..tiles {
                let apart = s.mul(s.sub(s.load(&row[tile]), mean), factor);
                let gain = s.load(&self.gains.gain[tile]);
                s.store(s.fma(apart, gain, s.load(&self.gains.shift[tile])), &mut row[tile]);
            }
        }
    }
}

#[cfg(test)]
#[path = "dense_tests.rs"]
mod tests;
