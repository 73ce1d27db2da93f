//! Activations as products take them: signed bytes in blocks of 32 with a scale.
//!
//! Owns the rounding. A block depends on its own 32 values alone, so a row of a batch is rounded as
//! it would be by itself.

use crate::math::{ROUNDER, magnitude};
use crate::simd::{Floats, LANES, Simd};

/// Values per block: as many as weights share a scale in GGML's block formats.
pub(crate) const BLOCK: usize = 32;
/// The greatest magnitude of a byte; -128 is left out so that signs are symmetric.
const GREATEST: f32 = 127.0;

/// Thirty-two activations: byte `i` of word `w` is number `4 w + i`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(crate) struct Act {
    pub(crate) words: [u32; BLOCK / 4],
    /// One activation is `scale` times its byte.
    pub(crate) scale: f32,
    /// The sum of all, as rounded.
    pub(crate) sum: f32,
    /// The sums of the bytes of both halves.
    pub(crate) halves: [i32; 2],
}

impl Act {
    /// Rounds 32 values. If one is no number, nothing that is computed from them is.
    #[inline(always)]
    pub(crate) fn round<S: Simd>(s: S, low: S::F, high: S::F) -> Self {
        let magnitude = magnitude(s, low, high);
        let scale = magnitude / GREATEST;
        let inverse = if magnitude > 0.0 { GREATEST / magnitude } else { 0.0 };
        let mut bytes = [[0; LANES]; 2];
        let (inverse, rounder) = (s.splat(inverse), s.splat(ROUNDER));
        s.low_bytes(s.fma(low, inverse, rounder), &mut bytes[0]);
        s.low_bytes(s.fma(high, inverse, rounder), &mut bytes[1]);
        let mut this = Self { scale, ..Self::default() };
        for half in 0..2 {
            let mut sum = 0i32;
            for byte in bytes[half] {
                sum += i32::from(byte as i8);
            }
            this.halves[half] = sum;
            for (word, bytes) in this.words[4 * half..].iter_mut().zip(bytes[half].as_chunks().0) {
                *word = u32::from_le_bytes(*bytes);
            }
        }
        this.sum = scale * (this.halves[0] + this.halves[1]) as f32;
        this
    }

    /// Rounds 32 values in memory.
    #[inline(always)]
    pub(crate) fn round_slice<S: Simd>(s: S, values: &[Floats; 2]) -> Self {
        Self::round(s, s.load(&values[0]), s.load(&values[1]))
    }
}
