//! In which order the rows of a batch meet a tile where sixteen lanes take four of 32 registers.
//!
//! Owns the grouping: an opened tile would fill all registers by itself, so the weights of one step
//! are brought at a time, and the sums of a few rows stay in registers for the whole tile.

use std::fmt::Debug;
use std::marker::PhantomData;

use super::{B, F, I, Neon};
use crate::act::Act;
use crate::simd::Kernel;
use crate::tile::{STEPS, Tile};

/// What a class of processors multiplies with.
pub(in crate::simd) trait Class: Copy + Debug + Eq + Send + Sync + 'static {
    /// Rows whose sums leave room in the registers for what they are computed from: 4 or 2.
    const GROUP: usize;
    /// Whether it interleaves the weights of two steps, which is work that groups can share.
    const INTERLEAVES: bool;

    /// For each row the sums of one part of the tile's codes, less their excess, times the
    /// activations. Exact.
    fn dots<W: Weights, const ROWS: usize>(
        set: Neon<Self>,
        weights: &W,
        acts: &[Act; ROWS],
        part: usize,
    ) -> [I; ROWS];

    /// Runs a kernel in a function that may use the class's instructions.
    fn run<K: Kernel>(set: Neon<Self>, kernel: K) -> K::Output;
}

/// The weights of a tile, step by step.
pub(in crate::simd) trait Weights {
    /// Its layout.
    type Tile: Tile;
    /// Whether a step and the one half a tile behind it come of one load.
    const PAIRED: bool;

    fn step<C: Class>(&self, set: Neon<C>, step: usize) -> B;
}

/// Each step is opened when it is asked for.
struct Closed<'a, T>(&'a T);

/// All steps were opened before, into memory near the processor.
struct Opened<T>(PhantomData<T>, [B; STEPS]);

/// What a tile's integers are scaled by.
type Scales<C, W> = <<W as Weights>::Tile as Tile>::Scales<Neon<C>>;

impl<T: Tile> Weights for Closed<'_, T> {
    type Tile = T;
    /// Nibbles; where both halves have a factor of their own, one comes after the other.
    const PAIRED: bool = T::BITS < 8 && T::PARTS == 1;

    #[inline(always)]
    fn step<C: Class>(&self, set: Neon<C>, step: usize) -> B {
        self.0.step(set, step)
    }
}

impl<T: Tile> Weights for Opened<T> {
    type Tile = T;
    const PAIRED: bool = false;

    #[inline(always)]
    fn step<C: Class>(&self, _: Neon<C>, step: usize) -> B {
        self.1[step]
    }
}

/// What [`crate::simd::Simd::multiply`] does.
#[inline(always)]
pub(super) fn multiply<C: Class, T: Tile, const ROWS: usize>(
    set: Neon<C>,
    tile: &T,
    acts: &[Act; ROWS],
    sums: &mut [F; ROWS],
) {
    // Several groups share an opened tile where that is quicker to load than to open.
    let slow = C::INTERLEAVES || T::BITS == 5 || T::BITS == 6;
    if ROWS <= C::GROUP || !slow {
        return all(set, &Closed(tile), &tile.scales(set), acts, sums);
    }
    let steps = [
        tile.step(set, 0),
        tile.step(set, 1),
        tile.step(set, 2),
        tile.step(set, 3),
        tile.step(set, 4),
        tile.step(set, 5),
        tile.step(set, 6),
        tile.step(set, 7),
    ];
    all(set, &Opened(PhantomData::<T>, steps), &tile.scales(set), acts, sums);
}

/// All rows in groups.
#[inline(always)]
fn all<C: Class, W: Weights>(
    set: Neon<C>,
    weights: &W,
    scales: &Scales<C, W>,
    acts: &[Act],
    sums: &mut [F],
) {
    let (mut acts, mut sums) = (acts, sums);
    if C::GROUP >= 4 {
        some::<C, W, 4>(set, weights, scales, &mut acts, &mut sums);
    }
    some::<C, W, 2>(set, weights, scales, &mut acts, &mut sums);
    some::<C, W, 1>(set, weights, scales, &mut acts, &mut sums);
}

/// As many groups of `ROWS` rows as there are.
#[inline(always)]
fn some<C: Class, W: Weights, const ROWS: usize>(
    set: Neon<C>,
    weights: &W,
    scales: &Scales<C, W>,
    acts: &mut &[Act],
    sums: &mut &mut [F],
) {
    while let Some((now, later)) = acts.split_first_chunk::<ROWS>() {
        *acts = later;
        let all = std::mem::take(sums);
        let Some((sums_now, sums_later)) = all.split_first_chunk_mut::<ROWS>() else { return };
        *sums = sums_later;
        for part in 0..W::Tile::PARTS {
            let dots = C::dots(set, weights, now, part);
            for row in 0..ROWS {
                let sum = sums_now[row];
                sums_now[row] = W::Tile::scale(set, part, dots[row], scales, &now[row], sum);
            }
        }
    }
}
