//! Products by what every 64-bit ARM processor has: bytes into sums of sixteen bits, these by pairs
//! into sums of 32 bits. The Cortex-A53 and A72 have no more.
//!
//! Owns the proof that the short sums are long enough.
#![allow(unsafe_code, reason = "instructions of one kind of processor")]

use std::arch::aarch64::*;

use super::dotprod::signed;
use super::rows::{Class, Weights};
use super::{I, Neon};
use crate::act::Act;
use crate::simd::Kernel;
use crate::tile::{STEPS, Tile, start};

/// Proof that this processor has NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simd) struct Plain(());

impl Plain {
    pub(in crate::simd) fn detect() -> Option<Neon<Self>> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(Self(())))
    }

    /// Whatever a processor has besides, it has NEON.
    pub(super) const fn of<C: Class>(_: Neon<C>) -> Neon<Self> {
        Neon(Self(()))
    }
}

/// Sums of one row: two for each output in turn, two registers for each quarter of the outputs.
type Short = [[int16x8_t; 2]; 4];
type Long = [[int32x4_t; 2]; 4];

impl Class for Plain {
    /// Eight registers of short sums for each row.
    const GROUP: usize = 2;
    const INTERLEAVES: bool = false;

    /// A short sum takes one product a step. Activations are at most 127, as their rounding leaves
    /// out -128: eight products of codes below 32 are at most 8 * 31 * 127 = 31,496, the four of a
    /// part with codes below 64 at most 4 * 63 * 127 = 32,004, two of signed bytes at most
    /// 2 * 128 * 127 = 32,512. None leaves sixteen bits. A block with what is no number may hold
    /// any bytes; its sums wrap, and are then scaled by what is no number.
    #[inline(always)]
    fn dots<W: Weights, const ROWS: usize>(
        set: Neon<Self>,
        weights: &W,
        acts: &[Act; ROWS],
        part: usize,
    ) -> [I; ROWS] {
        // SAFETY: a `Neon` exists, so the processor has the instruction, which touches no memory.
        let (zero, short) = unsafe { (vdupq_n_s32(0), vdupq_n_s16(0)) };
        let mut long: [Long; ROWS] = [[[zero; 2]; 4]; ROWS];
        let mut sums: [Short; ROWS] = [[[short; 2]; 4]; ROWS];
        let whole = W::Tile::PARTS == 1;
        // The lower and the upper four bits of the same bytes one after the other: one load.
        macro_rules! steps {
            ($($step:literal)*) => {$(
                if whole || part == 0 {
                    add(set, weights, acts, $step, &mut sums);
                }
                if whole || part == 1 {
                    add(set, weights, acts, STEPS / 2 + $step, &mut sums);
                }
                if W::Tile::BITS == 8 && $step < 3 {
                    lengthen(set, &mut sums, &mut long);
                }
            )*};
        }
        steps!(0 1 2 3);
        lengthen(set, &mut sums, &mut long);
        let mut out = [[zero; 4]; ROWS];
        for row in 0..ROWS {
            let start = if W::Tile::BITS == 8 { 0 } else { start::<W::Tile>(&acts[row], part) };
            for quarter in 0..4 {
                let [low, high] = long[row][quarter];
                // SAFETY: as above.
                out[row][quarter] = unsafe { vaddq_s32(vpaddq_s32(low, high), vdupq_n_s32(start)) };
            }
        }
        out
    }

    #[inline]
    fn run<K: Kernel>(set: Neon<Self>, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn inside<K: Kernel>(set: Neon<Plain>, kernel: K) -> K::Output {
            kernel.run(set)
        }
        // SAFETY: `set` exists, so the processor has what `inside` is compiled for.
        unsafe { inside(set, kernel) }
    }
}

/// Adds one step's products to the short sums.
#[inline(always)]
fn add<W: Weights, const ROWS: usize>(
    set: Neon<Plain>,
    weights: &W,
    acts: &[Act; ROWS],
    step: usize,
    sums: &mut [Short; ROWS],
) {
    let bytes = weights.step(set, step);
    let bytes = if W::Tile::BITS == 8 { signed(bytes) } else { bytes };
    // SAFETY: a `Neon` exists, so the processor has the instructions, which touch no memory.
    unsafe {
        let mut by = [vdupq_n_s8(0); ROWS];
        for row in 0..ROWS {
            by[row] = vreinterpretq_s8_u32(vdupq_n_u32(acts[row].words[step]));
        }
        for quarter in 0..4 {
            let bytes = vreinterpretq_s8_u8(bytes[quarter]);
            for row in 0..ROWS {
                let [low, high] = &mut sums[row][quarter];
                *low = vmlal_s8(*low, vget_low_s8(bytes), vget_low_s8(by[row]));
                *high = vmlal_high_s8(*high, bytes, by[row]);
            }
        }
    }
}

/// Adds the short sums by pairs to the long ones, and begins them anew.
#[inline(always)]
fn lengthen<const ROWS: usize>(_: Neon<Plain>, sums: &mut [Short; ROWS], long: &mut [Long; ROWS]) {
    for row in 0..ROWS {
        for quarter in 0..4 {
            for side in 0..2 {
                // SAFETY: a `Neon` exists, so the processor has the instructions, which touch no
                // memory.
                unsafe {
                    let long = &mut long[row][quarter][side];
                    *long = vpadalq_s16(*long, sums[row][quarter][side]);
                    sums[row][quarter][side] = vdupq_n_s16(0);
                }
            }
        }
    }
}
