//! Low-rank additions to a model's matrices: for some rows of a batch, scale · B · A · x beside
//! what the matrix makes of x (Hu et al. 2022, arXiv 2106.09685).
//!
//! Owns their packing and their two products, in floats and in one order of operations for each
//! row by itself, so that a row is bitwise the same whatever other rows have or lack. They take the
//! activations as the matrix takes them, rounded: what comes out is what the matrix with B · A
//! within would make of them. Where they come from is the caller's affair.

use crate::act::{Act, BLOCK};
use crate::error::KernelError;
use crate::matrix::Matrix;
use crate::model::{Block, Model};
use crate::simd::{Floats, Kernel, LANES, Simd};

/// A matrix of a layer that can be added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// What attention hands on.
    Output,
    /// The gate of the feed-forward layer.
    Gate,
    /// What the gate lets through.
    Up,
    /// Back to the model's width.
    Down,
}

/// How many parts a layer has.
const PARTS: usize = 7;
/// The greatest rank: what A makes of a row is one vector.
const MAX_RANK: usize = LANES;
/// Sums of A's product beside each other: they hide the four cycles of a multiply-add.
const SUMS: usize = 4;

/// What is added to one model.
#[derive(Debug)]
pub struct Additions {
    layers: Vec<[Option<LowRank>; PARTS]>,
}

/// What is added to one matrix.
#[derive(Debug)]
pub(crate) struct LowRank {
    outputs: usize,
    rank: usize,
    /// For each input, in whole blocks, its numbers of all ranks.
    a: Vec<Floats>,
    /// For each sixteen outputs, rank by rank; multiplied by the scale.
    b: Vec<Floats>,
}

/// What one row's matrices get, and what A made of the row.
#[derive(Clone, Copy)]
pub(crate) struct Low<'a> {
    pub(crate) low_rank: &'a LowRank,
    pub(crate) low: &'a Floats,
}

impl Additions {
    /// Nothing for so many layers.
    pub fn new(layers: usize) -> Self {
        Self { layers: (0..layers).map(|_| std::array::from_fn(|_| None)).collect() }
    }

    /// Adds to a part of a layer scale · `b` · `a`, of which `a` is `[rank, inputs]` and `b` is
    /// `[outputs, rank]`, row by row; outputs in the order of the model's own rows.
    ///
    /// # Errors
    /// [`KernelError::Shape`] when there is no such layer or the numbers are of no such matrices.
    pub fn add(
        &mut self,
        (layer, part): (usize, Part),
        rank: usize,
        (a, b): (&[f32], &[f32]),
        scale: f32,
    ) -> Result<(), KernelError> {
        let low_rank = LowRank::pack(rank, a, b, scale)?;
        let count = self.layers.len();
        let Some(parts) = self.layers.get_mut(layer) else {
            return Err(KernelError::Shape(format!("layer {layer} of {count}")));
        };
        parts[part as usize] = Some(low_rank);
        Ok(())
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        let all = self.layers.iter().flatten().flatten();
        let floats: usize = all.map(|one| one.a.len() + one.b.len()).sum();
        (floats * size_of::<Floats>()) as u64
    }

    pub(crate) fn of(&self, layer: usize, part: Part) -> Option<&LowRank> {
        self.layers.get(layer)?[part as usize].as_ref()
    }

    /// Whether all of it belongs to matrices of this model.
    pub(crate) fn fits(&self, model: &Model) -> bool {
        let fits = |(parts, block): (&[Option<LowRank>; PARTS], &Block)| {
            let fits = |low_rank: &LowRank, matrix: &Matrix| {
                low_rank.outputs == matrix.outputs && low_rank.a.len() == matrix.depth * BLOCK
            };
            let mut both = parts.iter().zip(block.parts());
            both.all(|(added, matrix)| added.as_ref().is_none_or(|added| fits(added, matrix)))
        };
        self.layers.len() == model.blocks.len() && self.layers.iter().zip(&model.blocks).all(fits)
    }
}

impl Block {
    /// The matrices in the order of [`Part`].
    pub(crate) const fn parts(&self) -> [&Matrix; PARTS] {
        let [query, key, value] = &self.qkv;
        [query, key, value, &self.output, &self.gate, &self.up, &self.down]
    }
}

impl LowRank {
    fn pack(rank: usize, a: &[f32], b: &[f32], scale: f32) -> Result<Self, KernelError> {
        let fits = (1..=MAX_RANK).contains(&rank)
            && [a, b].iter().all(|side| !side.is_empty() && side.len().is_multiple_of(rank));
        if !fits {
            let (a, b) = (a.len(), b.len());
            return Err(KernelError::Shape(format!("{a} and {b} numbers of rank {rank}")));
        }
        let (inputs, outputs) = (a.len() / rank, b.len() / rank);
        let mut ours = vec![[0.0; LANES]; inputs.next_multiple_of(BLOCK)];
        for (at, row) in a.chunks_exact(inputs).enumerate() {
            ours.iter_mut().zip(row).for_each(|(lanes, number)| lanes[at] = *number);
        }
        let mut theirs = vec![[0.0; LANES]; outputs.div_ceil(LANES) * rank];
        for (output, row) in b.chunks_exact(rank).enumerate() {
            let tile = &mut theirs[output / LANES * rank..][..rank];
            for (lanes, number) in tile.iter_mut().zip(row) {
                lanes[output % LANES] = number * scale;
            }
        }
        Ok(Self { outputs, rank, a: ours, b: theirs })
    }
}

/// What A makes of one row of a batch.
pub(crate) struct Lower<'a> {
    pub(crate) low_rank: &'a LowRank,
    pub(crate) acts: &'a [Act],
    pub(crate) rows: usize,
    pub(crate) row: usize,
    pub(crate) out: &'a mut Floats,
}

impl Kernel for Lower<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sums = [s.splat(0.0); SUMS];
        let blocks = self.low_rank.a.as_chunks::<BLOCK>().0;
        let acts = self.acts.iter().skip(self.row).step_by(self.rows.max(1));
        for (a, act) in blocks.iter().zip(acts) {
            for (word, a) in act.words.iter().zip(a.as_chunks::<SUMS>().0) {
                let bytes = word.to_le_bytes();
                for at in 0..SUMS {
                    let number = f32::from(bytes[at] as i8) * act.scale;
                    sums[at] = s.fma(s.load(&a[at]), s.splat(number), sums[at]);
                }
            }
        }
        let [first, second, third, fourth] = sums;
        s.store(s.add(s.add(first, second), s.add(third, fourth)), self.out);
    }
}

/// Adds B's part to sixteen outputs of one row.
pub(crate) struct Raise<'a> {
    pub(crate) low: Low<'a>,
    /// Which sixteen.
    pub(crate) height: usize,
    pub(crate) out: &'a mut Floats,
}

impl Kernel for Raise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Low { low_rank: LowRank { rank, b, .. }, low } = self.low;
        let Some(b) = b.get(self.height * rank..(self.height + 1) * rank) else { return };
        let mut sum = s.splat(0.0);
        for (b, low) in b.iter().zip(low) {
            sum = s.fma(s.load(b), s.splat(*low), sum);
        }
        s.store(s.add(s.load(self.out), sum), self.out);
    }
}

#[cfg(test)]
#[path = "added_tests.rs"]
mod tests;
