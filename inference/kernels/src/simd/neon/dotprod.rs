//! Products by dot products of signed bytes (FEAT_DotProd): most processors since 2018, among them
//! the Cortex-A55 and A76, Neoverse N1 and Apple's A11.
//!
//! Owns the instruction, which this compiler gives no intrinsic for, and the proof that the
//! processor has it. Codes below 64 are signed bytes as they are; those of eight bits become the
//! signed bytes that they stand for.
#![allow(unsafe_code, reason = "instructions of one kind of processor")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::rows::{Class, Weights};
use super::{B, I, Neon};
use crate::act::Act;
use crate::simd::Kernel;
use crate::tile::{STEPS, Tile, start};

/// Proof that this processor has the dot product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simd) struct Dotprod(());

impl Dotprod {
    pub(in crate::simd) fn detect() -> Option<Neon<Self>> {
        let all = std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("dotprod");
        all.then_some(Neon(Self(())))
    }
}

impl Class for Dotprod {
    /// Sixteen registers of sums, eight of activations; eight remain for weights.
    const GROUP: usize = 4;
    const INTERLEAVES: bool = false;

    #[inline(always)]
    fn dots<W: Weights, const ROWS: usize>(
        set: Neon<Self>,
        weights: &W,
        acts: &[Act; ROWS],
        part: usize,
    ) -> [I; ROWS] {
        by_lanes(set, weights, acts, part)
    }

    #[inline]
    fn run<K: Kernel>(set: Neon<Self>, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn inside<K: Kernel>(set: Neon<Dotprod>, kernel: K) -> K::Output {
            kernel.run(set)
        }
        // SAFETY: `set` exists, so the processor has what `inside` is compiled for.
        unsafe { inside(set, kernel) }
    }
}

/// A class that multiplies four bytes of each of four rows by four bytes of an activation, which
/// it takes from any lane of a register.
pub(super) trait Lanes: Class {
    /// Whether it takes codes of eight bits less 128, as signed bytes.
    const SIGNED: bool;

    /// `sum` and the products with the bytes `4 LANE..4 LANE + 4` of `by`. Exact.
    fn dot<const LANE: i32>(self, sum: int32x4_t, bytes: uint8x16_t, by: int8x16_t) -> int32x4_t;
}

impl Lanes for Dotprod {
    const SIGNED: bool = true;

    #[inline(always)]
    fn dot<const LANE: i32>(self, sum: int32x4_t, bytes: uint8x16_t, by: int8x16_t) -> int32x4_t {
        let mut sum = sum;
        // SAFETY: a `Dotprod` exists, so the processor has the instruction; it writes one register
        // and touches no memory, flags or stack. The first line tells the assembler alone, and
        // about these two lines alone.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sum:v}.4s, {bytes:v}.16b, {by:v}.4b[{lane}]",
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

/// Sums of rows: those of a single row grow in two chains, because one waits for each sum.
type Sums<const ROWS: usize> = [[I; ROWS]; 2];

/// [`Class::dots`] by such a class.
#[inline(always)]
pub(super) fn by_lanes<C: Lanes, W: Weights, const ROWS: usize>(
    set: Neon<C>,
    weights: &W,
    acts: &[Act; ROWS],
    part: usize,
) -> [I; ROWS] {
    let whole = W::Tile::PARTS == 1;
    // SAFETY: a `Neon` exists, so the processor has these instructions; each load takes sixteen of
    // the 32 readable bytes of an act's words.
    let (zero, by) = unsafe {
        let zero = vdupq_n_s32(0);
        let mut by = [[vreinterpretq_s8_s32(zero); ROWS]; 2];
        for row in 0..ROWS {
            let words = acts[row].words.as_ptr().cast::<i8>();
            by[0][row] = vld1q_s8(words);
            by[1][row] = vld1q_s8(words.add(16));
        }
        (zero, by)
    };
    let mut sums: Sums<ROWS> = [[[zero; 4]; ROWS]; 2];
    for row in 0..ROWS {
        if !(C::SIGNED && W::Tile::BITS == 8) {
            // SAFETY: as above; no memory is touched.
            sums[0][row] = unsafe { [vdupq_n_s32(start::<W::Tile>(&acts[row], part)); 4] };
        }
    }
    macro_rules! lanes {
        ($half:literal: $($lane:literal)*) => {$(
            lane::<C, W, ROWS, $lane>(set, weights, $half, &by, &mut sums);
        )*};
    }
    if W::PAIRED {
        lanes!(0: 0);
        lanes!(1: 0);
        lanes!(0: 1);
        lanes!(1: 1);
        lanes!(0: 2);
        lanes!(1: 2);
        lanes!(0: 3);
        lanes!(1: 3);
    } else {
        if whole || part == 0 {
            lanes!(0: 0 1 2 3);
        }
        if whole || part == 1 {
            lanes!(1: 0 1 2 3);
        }
    }
    let [mut low, high] = sums;
    if ROWS == 1 {
        for quarter in 0..4 {
            // SAFETY: as above; no memory is touched.
            low[0][quarter] = unsafe { vaddq_s32(low[0][quarter], high[0][quarter]) };
        }
    }
    low
}

/// One step of the lower or the upper half of a tile.
#[inline(always)]
fn lane<C: Lanes, W: Weights, const ROWS: usize, const LANE: i32>(
    set: Neon<C>,
    weights: &W,
    half: usize,
    by: &[[int8x16_t; ROWS]; 2],
    sums: &mut Sums<ROWS>,
) {
    let bytes = weights.step(set, STEPS / 2 * half + LANE as usize);
    let bytes = if C::SIGNED && W::Tile::BITS == 8 { signed(bytes) } else { bytes };
    let chain = if ROWS == 1 { half } else { 0 };
    // All that a register of weights is for at once, so that few of them are needed.
    for quarter in 0..4 {
        for row in 0..ROWS {
            let sum = &mut sums[chain][row][quarter];
            *sum = set.0.dot::<LANE>(*sum, bytes[quarter], by[half][row]);
        }
    }
}

/// Bytes less 128, as signed ones.
#[inline(always)]
pub(super) fn signed(bytes: B) -> B {
    // SAFETY: every processor that this module is compiled for has the instructions (a class
    // exists); they touch no memory.
    unsafe {
        let top = vdupq_n_u8(0x80);
        [
            veorq_u8(bytes[0], top),
            veorq_u8(bytes[1], top),
            veorq_u8(bytes[2], top),
            veorq_u8(bytes[3], top),
        ]
    }
}
