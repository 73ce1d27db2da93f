//! Functions of floats in sixteen lanes: the exponential, SiLU, GELU, sums in one fixed order.
//!
//! Owns polynomials, not instructions: the same multiplications and additions on every processor.

use crate::simd::{Floats, LANES, Simd};

/// 1.5 * 2^23: a float whose last bits count ones. Adding it rounds to an integer.
pub(crate) const ROUNDER: f32 = 12_582_912.0;
/// ln 2 in two parts: the first has few bits, so its multiples are exact (Cephes, `expf`).
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Minimax polynomial of (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2, the highest power first
/// (Cephes, `expf`; relative error below 2e-7).
const TERMS: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
/// Below e^-87 the result would leave the normal numbers; above e^88 the floats.
const RANGE: [f32; 2] = [-87.0, 88.0];

/// e^x, within 2e-7 of it; arguments are limited to -87..88, and what is no number stays so.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // In this order of operands what is no number stays so.
    let x = s.min(s.splat(RANGE[1]), s.max(s.splat(RANGE[0]), x));
    let biased = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUNDER));
    let whole = s.sub(biased, s.splat(ROUNDER));
    let rest = s.fma(whole, s.splat(-LN2[0]), x);
    let rest = s.fma(whole, s.splat(-LN2[1]), rest);
    let mut sum = s.splat(TERMS[0]);
    for term in 1..TERMS.len() {
        sum = s.fma(sum, rest, s.splat(TERMS[term]));
    }
    let sum = s.fma(s.mul(sum, rest), rest, s.add(rest, s.splat(1.0)));
    s.mul(sum, s.power_of_two(biased))
}

/// x / (1 + e^-x) (SiLU; Elfwing et al., 2017).
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(x, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// sqrt(2 / pi) and the cube's part of GELU by a hyperbolic tangent (Hendrycks and Gimpel, 2016).
const GELU: [f32; 2] = [0.797_884_6, 0.044_715];

/// x (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + e^-2u).
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let cube = s.mul(s.mul(x, x), x);
    let u = s.mul(s.splat(-2.0 * GELU[0]), s.fma(cube, s.splat(GELU[1]), x));
    s.div(x, s.add(one, exp(s, u)))
}

/// The sum of all lanes, always in the same order.
#[inline(always)]
pub(crate) fn total<S: Simd>(s: S, values: S::F) -> f32 {
    fold(s, values, |a, b| a + b)
}

/// The greatest magnitude of all lanes of both; no number if one is none.
#[inline(always)]
pub(crate) fn magnitude<S: Simd>(s: S, a: S::F, b: S::F) -> f32 {
    let zero = s.splat(0.0);
    let most = s.max(s.max(a, s.sub(zero, a)), s.max(b, s.sub(zero, b)));
    // Adds nothing, unless the sum is no number or infinite.
    let most = s.fma(s.add(a, b), zero, most);
    let mut lanes: Floats = [0.0; LANES];
    s.store(most, &mut lanes);
    // Magnitudes order like their bits, and no number is above all of them.
    let mut bits = lanes.map(|lane| lane.to_bits() & 0x7fff_ffff);
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            bits[lane] = bits[lane].max(bits[lane + width]);
        }
    }
    f32::from_bits(bits[0])
}

/// The greatest lane; one that is no number may be passed over.
#[inline(always)]
pub(crate) fn greatest<S: Simd>(s: S, values: S::F) -> f32 {
    fold(s, values, |a, b| if a > b { a } else { b })
}

#[inline(always)]
fn fold<S: Simd>(s: S, values: S::F, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes: Floats = [0.0; LANES];
    s.store(values, &mut lanes);
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
    }
    lanes[0]
}
