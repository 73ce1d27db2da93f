//! One row times a matrix, divided by outputs: what a model that writes does at each token.
//!
//! Owns the same order of operations as products of many rows have, so that a row's numbers are
//! the same bits whichever way it was computed.

use super::{Dense, Then};
use crate::simd::{Kernel, LANES, Simd};

/// Tiles beside each other: as many sums as hide a multiply-add's time, in a quarter of the
/// registers of the smallest set.
const BESIDE: usize = 4;

impl Dense {
    /// Numbers that a product is made of.
    pub(crate) const fn inputs(&self) -> usize {
        self.inputs
    }

    /// The weights of one output, input after input.
    pub(crate) fn weights_of(&self, output: usize) -> impl Iterator<Item = f32> {
        let tile = &self.tiles[output / LANES * self.inputs..][..self.inputs];
        tile.iter().map(move |lanes| lanes[output % LANES])
    }
}

/// Multiplies one row, for some of the outputs.
pub(crate) struct MultiplyRow<'a> {
    pub(crate) dense: &'a Dense,
    pub(crate) row: &'a [f32],
    /// The first tile of outputs.
    pub(crate) first: usize,
    pub(crate) then: Then,
    /// Whole tiles.
    pub(crate) out: &'a mut [f32],
}

impl Kernel for MultiplyRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let tiles = self.out.len() / LANES;
        let mut at = 0;
        while at < tiles {
            if at + BESIDE <= tiles {
                self.tiles::<S, BESIDE>(s, at);
                at += BESIDE;
            } else {
                self.tiles::<S, 1>(s, at);
                at += 1;
            }
        }
    }
}

impl MultiplyRow<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const WIDE: usize>(&mut self, s: S, at: usize) {
        let (depth, first) = (self.dense.inputs, self.first + at);
        let mut weights: [&[_]; WIDE] = [&[]; WIDE];
        let mut sums = [s.splat(0.0); WIDE];
        for wide in 0..WIDE {
            weights[wide] = &self.dense.tiles[(first + wide) * depth..][..depth];
            sums[wide] = s.load(&self.dense.bias[first + wide]);
        }
        let row = &self.row[..depth];
        for place in 0..depth {
            let number = s.splat(row[place]);
            for wide in 0..WIDE {
                sums[wide] = s.fma(s.load(&weights[wide][place]), number, sums[wide]);
            }
        }
        let out = self.out.as_chunks_mut().0;
        for wide in 0..WIDE {
            s.store(self.then.of(s, sums[wide]), &mut out[at + wide]);
        }
    }
}
