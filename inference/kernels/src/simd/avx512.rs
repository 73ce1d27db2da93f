//! The lanes in one register of 512 bits, with the integer dot products of VNNI.
//!
//! Owns the mapping of [`Simd`] to instructions, nothing else. Unsafe for two reasons: an
//! instruction that the processor lacks is undefined behaviour, and loads and stores take pointers.
#![allow(unsafe_code, reason = "instructions of one kind of processor")]

use std::arch::x86_64::*;

#[cfg(miri)]
use super::interpreted::{
    _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_dpbusd_epi32, _mm512_max_ps, _mm512_min_ps,
    _mm512_sll_epi16, _mm512_srl_epi16,
};
use super::{Dot, Floats, Halves, Kernel, LANES, Simd, Words};
use crate::act::Act;
use crate::tile::{Tile, held};

/// Proof that this processor has AVX-512 (F, BW, VL, VNNI), AVX2, FMA and F16C: only
/// [`Avx512::detect`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Self(()))
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn inside<K: Kernel>(set: Avx512, kernel: K) -> K::Output {
            kernel.run(set)
        }
        // SAFETY: `self` exists, so the processor has what `inside` is compiled for.
        unsafe { inside(self, kernel) }
    }
}

/// Calls intrinsics that need only the processor's support.
macro_rules! supported {
    ($value:expr) => {
        // SAFETY: an `Avx512` exists (every caller takes one), so the processor has these
        // instructions; none of them touches memory.
        unsafe { $value }
    };
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    const ROOMY: bool = true;
    /// Half of the registers.
    const BESIDE: usize = 16;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        supported!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, from: &Floats) -> __m512 {
        // SAFETY: the processor has the instruction; 64 readable bytes, no alignment asked.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, value: __m512, to: &mut Floats) {
        // SAFETY: the processor has the instruction; 64 writable bytes, no alignment asked.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
    }

    #[inline(always)]
    fn widen(self, from: &Halves) -> __m512 {
        // SAFETY: the processor has the instructions; 32 readable bytes, no alignment asked.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn narrow(self, value: __m512, to: &mut Halves) {
        let halves = supported!(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value));
        // SAFETY: the processor has the instruction; 32 writable bytes, no alignment asked.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), halves) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        supported!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        supported!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        supported!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        supported!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        supported!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        supported!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        supported!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn power_of_two(self, biased: __m512) -> __m512 {
        supported!({
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(biased));
            _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(0x3f80_0000)))
        })
    }

    #[inline(always)]
    fn low_bytes(self, value: __m512, to: &mut [u8; LANES]) {
        let bytes = supported!(_mm512_cvtepi32_epi8(_mm512_castps_si512(value)));
        // SAFETY: the processor has the instruction; 16 writable bytes, no alignment asked.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) }
    }

    #[inline(always)]
    fn splat_integer(self, value: i32) -> __m512i {
        supported!(_mm512_set1_epi32(value))
    }

    #[inline(always)]
    fn add_integers(self, a: __m512i, b: __m512i) -> __m512i {
        supported!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn to_float(self, value: __m512i) -> __m512 {
        supported!(_mm512_cvtepi32_ps(value))
    }

    #[inline(always)]
    fn bytes(self, from: &Words) -> __m512i {
        // SAFETY: the processor has the instruction; 64 readable bytes, no alignment asked.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn lower(self, bytes: __m512i) -> __m512i {
        supported!(_mm512_and_si512(bytes, _mm512_set1_epi8(0x0f)))
    }

    #[inline(always)]
    fn upper(self, bytes: __m512i) -> __m512i {
        supported!(_mm512_and_si512(_mm512_srli_epi16::<4>(bytes), _mm512_set1_epi8(0x0f)))
    }

    // Shifts move pairs of bytes; what crosses from one byte into the other never lands on the bits
    // that are kept, because no shift is by more than four to the left or three to the right.
    #[inline(always)]
    fn with_bit(self, low: __m512i, bits: __m512i, at: u32) -> __m512i {
        // 0xf8 is `a | b & c`.
        supported!({
            let moved = if at <= 4 {
                _mm512_sll_epi16(bits, _mm_cvtsi32_si128(4 - at as i32))
            } else {
                _mm512_srl_epi16(bits, _mm_cvtsi32_si128(at as i32 - 4))
            };
            _mm512_ternarylogic_epi32::<0xf8>(low, moved, _mm512_set1_epi8(0x10))
        })
    }

    #[inline(always)]
    fn with_pair(self, low: __m512i, bits: __m512i, at: u32) -> __m512i {
        supported!({
            let moved = if at <= 2 {
                _mm512_sll_epi16(bits, _mm_cvtsi32_si128(4 - 2 * at as i32))
            } else {
                _mm512_srli_epi16::<2>(bits)
            };
            _mm512_ternarylogic_epi32::<0xf8>(low, moved, _mm512_set1_epi8(0x30))
        })
    }

    #[inline(always)]
    fn multiply<T: Tile, const ROWS: usize>(
        self,
        tile: &T,
        acts: &[Act; ROWS],
        sums: &mut [__m512; ROWS],
    ) {
        held(self, tile, acts, sums);
    }
}

impl Dot for Avx512 {
    #[inline(always)]
    fn dot(self, sum: __m512i, bytes: __m512i, by: u32) -> __m512i {
        self.dot_wide(sum, bytes, by)
    }

    /// Four products of at most 255 * 128 fit the instruction's intermediate; nothing saturates.
    #[inline(always)]
    fn dot_wide(self, sum: __m512i, bytes: __m512i, by: u32) -> __m512i {
        supported!(_mm512_dpbusd_epi32(sum, bytes, _mm512_set1_epi32(by as i32)))
    }
}
