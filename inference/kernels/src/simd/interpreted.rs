//! What the interpreter Miri does not know of the instructions, in plain Rust.
//!
//! Owns these few, under their own names, so that all else of the kernels runs there as it is
//! written. Compiled for nobody else.
#![allow(unsafe_code, reason = "vectors are taken apart into their lanes")]

use std::arch::x86_64::{__m128i, __m256, __m256i, __m512, __m512i};
use std::mem::transmute;

use crate::half;

/// # Safety
/// None is asked of the caller: the instruction's own signature is unsafe.
pub(super) unsafe fn _mm256_cvtph_ps(halves: __m128i) -> __m256 {
    // SAFETY: a vector of 16 bytes is any eight halves.
    let halves: [u16; 8] = unsafe { transmute(halves) };
    // SAFETY: any eight floats are a vector of 32 bytes.
    unsafe { transmute(halves.map(half::to_f32)) }
}

/// # Safety
/// None is asked of the caller: the instruction's own signature is unsafe.
pub(super) unsafe fn _mm256_cvtps_ph<const ROUNDING: i32>(floats: __m256) -> __m128i {
    // SAFETY: a vector of 32 bytes is any eight floats.
    let floats: [f32; 8] = unsafe { transmute(floats) };
    // SAFETY: any eight halves are a vector of 16 bytes.
    unsafe { transmute(floats.map(half::from_f32)) }
}

/// # Safety
/// None is asked of the caller: the instruction's own signature is unsafe.
pub(super) unsafe fn _mm512_cvtph_ps(halves: __m256i) -> __m512 {
    // SAFETY: a vector of 32 bytes is any sixteen halves.
    let halves: [u16; 16] = unsafe { transmute(halves) };
    // SAFETY: any sixteen floats are a vector of 64 bytes.
    unsafe { transmute(halves.map(half::to_f32)) }
}

/// # Safety
/// None is asked of the caller: the instruction's own signature is unsafe.
pub(super) unsafe fn _mm512_cvtps_ph<const ROUNDING: i32>(floats: __m512) -> __m256i {
    // SAFETY: a vector of 64 bytes is any sixteen floats.
    let floats: [f32; 16] = unsafe { transmute(floats) };
    // SAFETY: any sixteen halves are a vector of 32 bytes.
    unsafe { transmute(floats.map(half::from_f32)) }
}

/// # Safety
/// None is asked of the caller: the instruction's own signature is unsafe.
pub(super) unsafe fn _mm512_max_ps(a: __m512, b: __m512) -> __m512 {
    lanes(a, b, |a, b| if a > b { a } else { b })
}

/// # Safety
/// None is asked of the caller: the instruction's own signature is unsafe.
pub(super) unsafe fn _mm512_min_ps(a: __m512, b: __m512) -> __m512 {
    lanes(a, b, |a, b| if a < b { a } else { b })
}

/// Lane by lane; where one is no number, the instructions give the second.
fn lanes(a: __m512, b: __m512, of: impl Fn(f32, f32) -> f32) -> __m512 {
    // SAFETY: a vector of 64 bytes is any sixteen floats.
    let (a, b): ([f32; 16], [f32; 16]) = unsafe { (transmute(a), transmute(b)) };
    let each: [f32; 16] = std::array::from_fn(|lane| of(a[lane], b[lane]));
    // SAFETY: any sixteen floats are a vector of 64 bytes.
    unsafe { transmute(each) }
}

/// # Safety
/// None is asked of the caller: the instruction's own signature is unsafe.
pub(super) unsafe fn _mm512_sll_epi16(words: __m512i, by: __m128i) -> __m512i {
    shifted(words, by, |word, by| word.checked_shl(by).unwrap_or(0))
}

/// # Safety
/// None is asked of the caller: the instruction's own signature is unsafe.
pub(super) unsafe fn _mm512_srl_epi16(words: __m512i, by: __m128i) -> __m512i {
    shifted(words, by, |word, by| word.checked_shr(by).unwrap_or(0))
}

/// # Safety
/// None is asked of the caller: the instruction's own signature is unsafe.
pub(super) unsafe fn _mm512_dpbusd_epi32(sum: __m512i, bytes: __m512i, signed: __m512i) -> __m512i {
    // SAFETY: a vector of 64 bytes is any sixteen integers, or any sixty-four bytes.
    let (sum, bytes, signed): ([i32; 16], [[u8; 4]; 16], [[i8; 4]; 16]) =
        unsafe { (transmute(sum), transmute(bytes), transmute(signed)) };
    let each: [i32; 16] = std::array::from_fn(|lane| {
        let pairs = bytes[lane].into_iter().zip(signed[lane]);
        pairs.fold(sum[lane], |sum, (a, b)| sum.wrapping_add(i32::from(a) * i32::from(b)))
    });
    // SAFETY: any sixteen integers are a vector of 64 bytes.
    unsafe { transmute(each) }
}

/// Each word, moved by the lowest number in `by`.
fn shifted(words: __m512i, by: __m128i, of: impl Fn(u16, u32) -> u16) -> __m512i {
    // SAFETY: a vector of 64 bytes is any thirty-two words, one of 16 any two integers.
    let (words, by): ([u16; 32], [u64; 2]) = unsafe { (transmute(words), transmute(by)) };
    let by = u32::try_from(by[0]).unwrap_or(u32::MAX);
    // SAFETY: any thirty-two words are a vector of 64 bytes.
    unsafe { transmute(words.map(|word| of(word, by))) }
}
