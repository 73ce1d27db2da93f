//! The lanes in two registers of 256 bits.
//!
//! Owns the mapping of [`Simd`] to instructions, nothing else. Unsafe for two reasons: an
//! instruction that the processor lacks is undefined behaviour, and loads and stores take pointers.
#![allow(unsafe_code, reason = "instructions of one kind of processor")]

use std::arch::x86_64::*;

#[cfg(miri)]
use super::interpreted::{_mm256_cvtph_ps, _mm256_cvtps_ph};
use super::{Dot, Floats, Halves, Kernel, LANES, Simd, Words};
use crate::act::Act;
use crate::tile::{Tile, held};

/// Proof that this processor has AVX2, FMA and F16C: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Self(()))
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inside<K: Kernel>(set: Avx2, kernel: K) -> K::Output {
            kernel.run(set)
        }
        // SAFETY: `self` exists, so the processor has what `inside` is compiled for.
        unsafe { inside(self, kernel) }
    }
}

/// Calls intrinsics that need only the processor's support.
macro_rules! supported {
    ($value:expr) => {
        // SAFETY: an `Avx2` exists (every caller takes one), so the processor has these
        // instructions; none of them touches memory.
        unsafe { $value }
    };
}

/// The same for both halves of a vector.
macro_rules! both {
    ($($half:ident),+ => $value:expr) => {
        supported!([
            { $(let $half = $half[0];)+ $value },
            { $(let $half = $half[1];)+ $value },
        ])
    };
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type B = [__m256i; 2];
    const ROOMY: bool = false;
    /// More than registers hold, as for AVX-512: what is measured in docs/BENCHMARKS.md.
    const BESIDE: usize = 16;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        supported!([_mm256_set1_ps(value); 2])
    }

    #[inline(always)]
    fn load(self, from: &Floats) -> Self::F {
        let [low, high] = halves(from);
        // SAFETY: the processor has the instruction; twice 32 readable bytes, no alignment asked.
        unsafe { [_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())] }
    }

    #[inline(always)]
    fn store(self, value: Self::F, to: &mut Floats) {
        let (low, high) = to.split_at_mut(LANES / 2);
        // SAFETY: the processor has the instruction; both parts are 32 writable bytes (half of an
        // array of sixteen floats), no alignment asked.
        unsafe {
            _mm256_storeu_ps(low.as_mut_ptr(), value[0]);
            _mm256_storeu_ps(high.as_mut_ptr(), value[1]);
        }
    }

    #[inline(always)]
    fn widen(self, from: &Halves) -> Self::F {
        let [low, high] = halves(from);
        // SAFETY: the processor has the instructions; twice 16 readable bytes, no alignment asked.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(low.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(high.as_ptr().cast())),
            ]
        }
    }

    #[inline(always)]
    fn narrow(self, value: Self::F, to: &mut Halves) {
        let (low, high) = to.split_at_mut(LANES / 2);
        // SAFETY: the processor has the instructions; both parts are 16 writable bytes (half of an
        // array of sixteen halves), no alignment asked.
        unsafe {
            let of = |half| _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(half);
            _mm_storeu_si128(low.as_mut_ptr().cast(), of(value[0]));
            _mm_storeu_si128(high.as_mut_ptr().cast(), of(value[1]));
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        both!(a, b => _mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        both!(a, b => _mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        both!(a, b => _mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        both!(a, b => _mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        both!(a, b => _mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        both!(a, b => _mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(a, b, c => _mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn power_of_two(self, biased: Self::F) -> Self::F {
        both!(biased => {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(biased));
            _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f80_0000)))
        })
    }

    #[inline(always)]
    fn low_bytes(self, value: Self::F, to: &mut [u8; LANES]) {
        let mut floats = [0.0; LANES];
        self.store(value, &mut floats);
        *to = floats.map(|lane| lane.to_bits() as u8);
    }

    #[inline(always)]
    fn splat_integer(self, value: i32) -> Self::I {
        supported!([_mm256_set1_epi32(value); 2])
    }

    #[inline(always)]
    fn add_integers(self, a: Self::I, b: Self::I) -> Self::I {
        both!(a, b => _mm256_add_epi32(a, b))
    }

    #[inline(always)]
    fn to_float(self, value: Self::I) -> Self::F {
        both!(value => _mm256_cvtepi32_ps(value))
    }

    #[inline(always)]
    fn bytes(self, from: &Words) -> Self::B {
        let [low, high] = halves(from);
        // SAFETY: the processor has the instruction; twice 32 readable bytes, no alignment asked.
        unsafe {
            [_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())]
        }
    }

    #[inline(always)]
    fn lower(self, bytes: Self::B) -> Self::B {
        both!(bytes => _mm256_and_si256(bytes, _mm256_set1_epi8(0x0f)))
    }

    #[inline(always)]
    fn upper(self, bytes: Self::B) -> Self::B {
        both!(bytes => _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(0x0f)))
    }

    // Shifts move pairs of bytes; what crosses from one byte into the other never lands on the bits
    // that are kept, because no shift is by more than four to the left or three to the right.
    #[inline(always)]
    fn with_bit(self, low: Self::B, bits: Self::B, at: u32) -> Self::B {
        both!(low, bits => {
            let moved = if at <= 4 {
                _mm256_sll_epi16(bits, _mm_cvtsi32_si128(4 - at as i32))
            } else {
                _mm256_srl_epi16(bits, _mm_cvtsi32_si128(at as i32 - 4))
            };
            _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi8(0x10)))
        })
    }

    #[inline(always)]
    fn with_pair(self, low: Self::B, bits: Self::B, at: u32) -> Self::B {
        both!(low, bits => {
            let moved = if at <= 2 {
                _mm256_sll_epi16(bits, _mm_cvtsi32_si128(4 - 2 * at as i32))
            } else {
                _mm256_srli_epi16::<2>(bits)
            };
            _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi8(0x30)))
        })
    }

    #[inline(always)]
    fn multiply<T: Tile, const ROWS: usize>(
        self,
        tile: &T,
        acts: &[Act; ROWS],
        sums: &mut [Self::F; ROWS],
    ) {
        held(self, tile, acts, sums);
    }
}

impl Dot for Avx2 {
    /// The sums of two products are at most 2 * 63 * 128 = 16,128: the instruction's 16 bits hold
    /// them without saturating.
    #[inline(always)]
    fn dot(self, sum: Self::I, bytes: Self::B, by: u32) -> Self::I {
        both!(sum, bytes => {
            let pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi32(by as i32));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }

    /// Bytes up to 255 would saturate, so their halves are multiplied apart: at most 2 * 15 * 128
    /// each, the upper ones counting sixteenfold.
    #[inline(always)]
    fn dot_wide(self, sum: Self::I, bytes: Self::B, by: u32) -> Self::I {
        let (lower, upper) = (self.lower(bytes), self.upper(bytes));
        both!(sum, lower, upper => {
            let by = _mm256_set1_epi32(by as i32);
            let low = _mm256_madd_epi16(_mm256_maddubs_epi16(lower, by), _mm256_set1_epi16(1));
            let high = _mm256_madd_epi16(_mm256_maddubs_epi16(upper, by), _mm256_set1_epi16(16));
            _mm256_add_epi32(sum, _mm256_add_epi32(low, high))
        })
    }
}

/// Both halves of sixteen values.
#[inline(always)]
fn halves<T>(values: &[T; LANES]) -> [&[T]; 2] {
    let (low, high) = values.split_at(LANES / 2);
    [low, high]
}
