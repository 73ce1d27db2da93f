//! The lanes in four registers of 128 bits: every processor of the ARM 64-bit kind.
//!
//! Owns the mapping of [`Simd`] to instructions; how a tile is multiplied is the business of one
//! class each: [`Plain`], [`Dotprod`], [`I8mm`]. Unsafe for two reasons: an instruction that the
//! processor lacks is undefined behaviour, and loads and stores take pointers.
#![allow(unsafe_code, reason = "instructions of one kind of processor")]

mod dotprod;
mod i8mm;
mod plain;
mod rows;

use std::arch::aarch64::*;

pub(super) use dotprod::Dotprod;
pub(super) use i8mm::I8mm;
pub(super) use plain::Plain;

use super::{Floats, Halves, Kernel, LANES, Simd, Words};
use crate::act::Act;
use crate::tile::Tile;
use rows::Class;

/// Proof that this processor has NEON, and what its class asks besides: only a class makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neon<C>(C);

impl<C: Class> Neon<C> {
    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        if K::TILES { C::run(self, kernel) } else { Plain::run(Plain::of(self), kernel) }
    }
}

/// Sixteen floats, integers, and times four bytes.
type F = [float32x4_t; 4];
type I = [int32x4_t; 4];
type B = [uint8x16_t; 4];

/// Calls intrinsics that need only the processor's support.
macro_rules! supported {
    ($value:expr) => {
        // SAFETY: a `Neon` exists (every caller takes one), so the processor has these
        // instructions; none of them touches memory.
        unsafe { $value }
    };
}

/// The same for all four quarters of a vector.
macro_rules! each {
    ($($quarter:ident),+ => $value:expr) => {
        supported!([
            { $(let $quarter = $quarter[0];)+ $value },
            { $(let $quarter = $quarter[1];)+ $value },
            { $(let $quarter = $quarter[2];)+ $value },
            { $(let $quarter = $quarter[3];)+ $value },
        ])
    };
}

impl<C: Class> Simd for Neon<C> {
    type F = F;
    type I = I;
    type B = B;
    const ROOMY: bool = false;
    /// Sixteen registers of sums; the other sixteen hold what is added to them.
    const BESIDE: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> F {
        supported!([vdupq_n_f32(value); 4])
    }

    #[inline(always)]
    fn load(self, from: &Floats) -> F {
        let from = from.as_ptr();
        // SAFETY: the processor has the instruction; four times four of sixteen readable floats.
        unsafe {
            [
                vld1q_f32(from),
                vld1q_f32(from.add(4)),
                vld1q_f32(from.add(8)),
                vld1q_f32(from.add(12)),
            ]
        }
    }

    #[inline(always)]
    fn store(self, value: F, to: &mut Floats) {
        let to = to.as_mut_ptr();
        // SAFETY: the processor has the instruction; four times four of sixteen writable floats.
        unsafe {
            vst1q_f32(to, value[0]);
            vst1q_f32(to.add(4), value[1]);
            vst1q_f32(to.add(8), value[2]);
            vst1q_f32(to.add(12), value[3]);
        }
    }

    #[inline(always)]
    fn widen(self, from: &Halves) -> F {
        let from = from.as_ptr();
        // SAFETY: the processor has the instructions; four times four of sixteen readable halves.
        unsafe {
            [
                vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))),
                vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.add(4)))),
                vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.add(8)))),
                vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.add(12)))),
            ]
        }
    }

    #[inline(always)]
    fn narrow(self, value: F, to: &mut Halves) {
        let to = to.as_mut_ptr();
        // SAFETY: the processor has the instructions, and rounds to the nearest, ties to even,
        // because nothing in this program tells it otherwise; four times four of sixteen writable
        // halves.
        unsafe {
            vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(value[0])));
            vst1_u16(to.add(4), vreinterpret_u16_f16(vcvt_f16_f32(value[1])));
            vst1_u16(to.add(8), vreinterpret_u16_f16(vcvt_f16_f32(value[2])));
            vst1_u16(to.add(12), vreinterpret_u16_f16(vcvt_f16_f32(value[3])));
        }
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        each!(a, b => vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        each!(a, b => vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        each!(a, b => vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        each!(a, b => vdivq_f32(a, b))
    }

    // The instructions for the greatest and the least treat zeros and what is no number otherwise.
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        each!(a, b => vbslq_f32(vcgtq_f32(a, b), a, b))
    }

    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        each!(a, b => vbslq_f32(vcltq_f32(a, b), a, b))
    }

    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        each!(a, b, c => vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn power_of_two(self, biased: F) -> F {
        each!(biased => {
            let exponent = vshlq_n_s32::<23>(vreinterpretq_s32_f32(biased));
            vreinterpretq_f32_s32(vaddq_s32(exponent, vdupq_n_s32(0x3f80_0000)))
        })
    }

    #[inline(always)]
    fn low_bytes(self, value: F, to: &mut [u8; LANES]) {
        let pairs = each!(value => vmovn_u32(vreinterpretq_u32_f32(value)));
        // SAFETY: the processor has the instructions; twice eight of sixteen writable bytes.
        unsafe {
            let to = to.as_mut_ptr();
            vst1_u8(to, vmovn_u16(vcombine_u16(pairs[0], pairs[1])));
            vst1_u8(to.add(8), vmovn_u16(vcombine_u16(pairs[2], pairs[3])));
        }
    }

    #[inline(always)]
    fn splat_integer(self, value: i32) -> I {
        supported!([vdupq_n_s32(value); 4])
    }

    #[inline(always)]
    fn add_integers(self, a: I, b: I) -> I {
        each!(a, b => vaddq_s32(a, b))
    }

    #[inline(always)]
    fn to_float(self, value: I) -> F {
        each!(value => vcvtq_f32_s32(value))
    }

    #[inline(always)]
    fn bytes(self, from: &Words) -> B {
        let from: *const u8 = from.as_ptr().cast();
        // SAFETY: the processor has the instruction; four times sixteen of 64 readable bytes.
        unsafe {
            [vld1q_u8(from), vld1q_u8(from.add(16)), vld1q_u8(from.add(32)), vld1q_u8(from.add(48))]
        }
    }

    #[inline(always)]
    fn lower(self, bytes: B) -> B {
        each!(bytes => vandq_u8(bytes, vdupq_n_u8(0x0f)))
    }

    #[inline(always)]
    fn upper(self, bytes: B) -> B {
        each!(bytes => vshrq_n_u8::<4>(bytes))
    }

    #[inline(always)]
    fn with_bit(self, low: B, bits: B, at: u32) -> B {
        each!(low, bits => {
            let moved = match at {
                0 => vshlq_n_u8::<4>(bits),
                1 => vshlq_n_u8::<3>(bits),
                2 => vshlq_n_u8::<2>(bits),
                3 => vshlq_n_u8::<1>(bits),
                4 => bits,
                5 => vshrq_n_u8::<1>(bits),
                6 => vshrq_n_u8::<2>(bits),
                _ => vshrq_n_u8::<3>(bits),
            };
            vorrq_u8(low, vandq_u8(moved, vdupq_n_u8(0x10)))
        })
    }

    #[inline(always)]
    fn with_pair(self, low: B, bits: B, at: u32) -> B {
        each!(low, bits => {
            let moved = match at {
                0 => vshlq_n_u8::<4>(bits),
                1 => vshlq_n_u8::<2>(bits),
                2 => bits,
                _ => vshrq_n_u8::<2>(bits),
            };
            vorrq_u8(low, vandq_u8(moved, vdupq_n_u8(0x30)))
        })
    }

    #[inline(always)]
    fn multiply<T: Tile, const ROWS: usize>(
        self,
        tile: &T,
        acts: &[Act; ROWS],
        sums: &mut [F; ROWS],
    ) {
        rows::multiply(self, tile, acts, sums);
    }
}
