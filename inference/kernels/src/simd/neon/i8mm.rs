//! Products by matrices of bytes (FEAT_I8MM): Neoverse V1, N2 and later, Cortex-A510 and A710 and
//! later, Apple's M2 and later.
//!
//! Owns the two instructions, which this compiler gives no intrinsics for, and the proof that the
//! processor has them. Both take unsigned by signed bytes, so codes go in as they are. One
//! instruction multiplies eight inputs of two outputs by those of two rows: a batch needs half as
//! many as dot products would take. A single row takes dot products.
#![allow(unsafe_code, reason = "instructions of one kind of processor")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::dotprod::{Lanes, by_lanes};
use super::rows::{Class, Weights};
use super::{I, Neon};
use crate::act::Act;
use crate::simd::Kernel;
use crate::tile::{Tile, start};

/// Proof that this processor has the products of matrices and the mixed dot product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simd) struct I8mm(());

impl I8mm {
    pub(in crate::simd) fn detect() -> Option<Neon<Self>> {
        let all = std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("i8mm");
        all.then_some(Neon(Self(())))
    }

    /// `sum` and the products of two rows of eight unsigned bytes with two of eight signed bytes:
    /// first with first, first with second, second with first, second with second. Exact.
    #[inline(always)]
    fn matrix(self, sum: int32x4_t, bytes: uint8x16_t, by: int8x16_t) -> int32x4_t {
        let mut sum = sum;
        // SAFETY: an `I8mm` exists, so the processor has the instruction; it writes one register
        // and touches no memory, flags or stack. The first line tells the assembler alone, and
        // about these two lines alone.
        unsafe {
            asm!(
                ".arch_extension i8mm",
                "usmmla {sum:v}.4s, {bytes:v}.16b, {by:v}.16b",
                sum = inout(vreg) sum,
                bytes = in(vreg) bytes,
                by = in(vreg) by,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }
}

impl Lanes for I8mm {
    const SIGNED: bool = false;

    #[inline(always)]
    fn dot<const LANE: i32>(self, sum: int32x4_t, bytes: uint8x16_t, by: int8x16_t) -> int32x4_t {
        let mut sum = sum;
        // SAFETY: as in `matrix`: the mixed dot product is part of the same feature.
        unsafe {
            asm!(
                ".arch_extension i8mm",
                "usdot {sum:v}.4s, {bytes:v}.16b, {by:v}.4b[{lane}]",
                sum = inout(vreg) sum,
                bytes = in(vreg) bytes,
                by = in(vreg) by,
                lane = const LANE,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }
}

impl Class for I8mm {
    /// Sixteen registers of sums, eight of activations; eight remain for weights.
    const GROUP: usize = 4;
    const INTERLEAVES: bool = true;

    #[inline(always)]
    fn dots<W: Weights, const ROWS: usize>(
        set: Neon<Self>,
        weights: &W,
        acts: &[Act; ROWS],
        part: usize,
    ) -> [I; ROWS] {
        match ROWS {
            1 => by_lanes(set, weights, acts, part),
            _ => by_matrices(set, weights, acts, part),
        }
    }

    #[inline]
    fn run<K: Kernel>(set: Neon<Self>, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,i8mm")]
        fn inside<K: Kernel>(set: Neon<I8mm>, kernel: K) -> K::Output {
            kernel.run(set)
        }
        // SAFETY: `set` exists, so the processor has what `inside` is compiled for.
        unsafe { inside(set, kernel) }
    }
}

/// Two rows of activations, two by two of a tile's steps.
type Pair = [int8x16_t; 4];

/// The sums of a pair of rows: for each quarter of the outputs two times two by two.
type Square = [[int32x4_t; 2]; 4];

/// [`Class::dots`] of rows two by two.
#[inline(always)]
fn by_matrices<W: Weights, const ROWS: usize>(
    set: Neon<I8mm>,
    weights: &W,
    acts: &[Act; ROWS],
    part: usize,
) -> [I; ROWS] {
    let whole = W::Tile::PARTS == 1;
    // SAFETY: a `Neon` exists, so the processor has the instructions, which touch no memory.
    let (zero, none) = unsafe { (vdupq_n_s32(0), vdupq_n_s8(0)) };
    // As many as there are pairs are used.
    let (mut by, mut sums) = ([[none; 4]; ROWS], [[[zero; 2]; 4]; ROWS]);
    for pair in 0..ROWS / 2 {
        by[pair] = beside(set, &acts[2 * pair], &acts[2 * pair + 1]);
    }
    // The lower and the upper four bits of the same bytes one after the other: one load.
    if whole || part == 0 {
        couple::<W, ROWS, 0>(set, weights, &by, &mut sums);
    }
    if whole || part == 1 {
        couple::<W, ROWS, 2>(set, weights, &by, &mut sums);
    }
    if whole || part == 0 {
        couple::<W, ROWS, 1>(set, weights, &by, &mut sums);
    }
    if whole || part == 1 {
        couple::<W, ROWS, 3>(set, weights, &by, &mut sums);
    }
    let mut out = [[zero; 4]; ROWS];
    for row in 0..ROWS {
        out[row] = one_of(set, &sums[row / 2], row % 2, start::<W::Tile>(&acts[row], part));
    }
    out
}

/// Steps `2 AT` and `2 AT + 1` of a tile.
#[inline(always)]
fn couple<W: Weights, const ROWS: usize, const AT: usize>(
    set: Neon<I8mm>,
    weights: &W,
    by: &[Pair; ROWS],
    sums: &mut [Square; ROWS],
) {
    let (first, second) = (weights.step(set, 2 * AT), weights.step(set, 2 * AT + 1));
    for quarter in 0..4 {
        // SAFETY: a `Neon` exists, so the processor has the instructions, which touch no memory.
        let sides = unsafe {
            let first = vreinterpretq_u32_u8(first[quarter]);
            let second = vreinterpretq_u32_u8(second[quarter]);
            [
                vreinterpretq_u8_u32(vzip1q_u32(first, second)),
                vreinterpretq_u8_u32(vzip2q_u32(first, second)),
            ]
        };
        for pair in 0..ROWS / 2 {
            for side in 0..2 {
                let sum = &mut sums[pair][quarter][side];
                *sum = set.0.matrix(*sum, sides[side], by[pair][AT]);
            }
        }
    }
}

/// Two rows' activations, eight by eight.
#[inline(always)]
fn beside(_: Neon<I8mm>, first: &Act, second: &Act) -> Pair {
    // SAFETY: a `Neon` exists, so the processor has the instructions; each load takes sixteen of
    // the 32 readable bytes of an act's words.
    unsafe {
        let (first, second) = (first.words.as_ptr().cast(), second.words.as_ptr().cast());
        let low = [vld1q_s64(first), vld1q_s64(second)];
        let high = [vld1q_s64(first.add(2)), vld1q_s64(second.add(2))];
        [
            vreinterpretq_s8_s64(vzip1q_s64(low[0], low[1])),
            vreinterpretq_s8_s64(vzip2q_s64(low[0], low[1])),
            vreinterpretq_s8_s64(vzip1q_s64(high[0], high[1])),
            vreinterpretq_s8_s64(vzip2q_s64(high[0], high[1])),
        ]
    }
}

/// The first or the second row's sums, from `start` on.
#[inline(always)]
fn one_of(_: Neon<I8mm>, sums: &Square, row: usize, start: i32) -> I {
    // SAFETY: a `Neon` exists, so the processor has the instructions, which touch no memory.
    unsafe {
        let mut out = [vdupq_n_s32(start); 4];
        for quarter in 0..4 {
            let [low, high] = sums[quarter];
            let own = if row == 0 { vuzp1q_s32(low, high) } else { vuzp2q_s32(low, high) };
            out[quarter] = vaddq_s32(out[quarter], own);
        }
        out
    }
}
