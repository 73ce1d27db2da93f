//! The lanes one by one: what every other implementation must equal, and what runs where there is
//! no other.

use super::{Dot, Floats, Halves, LANES, Simd, Words};
use crate::act::Act;
use crate::half;
use crate::tile::{Tile, held};

/// No vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scalar;

/// One bit, two bits, four bits of each byte of a word.
const ONE: u32 = 0x0101_0101;
const TWO: u32 = 0x0303_0303;
const FOUR: u32 = 0x0f0f_0f0f;

impl Simd for Scalar {
    type F = Floats;
    type I = [i32; LANES];
    type B = Words;
    const ROOMY: bool = false;
    /// There is nothing to hold them in, whatever it is: the shapes of AVX-512 are tested here.
    const BESIDE: usize = 16;

    #[inline(always)]
    fn splat(self, value: f32) -> Floats {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &Floats) -> Floats {
        *from
    }

    #[inline(always)]
    fn store(self, value: Floats, to: &mut Floats) {
        *to = value;
    }

    #[inline(always)]
    fn widen(self, from: &Halves) -> Floats {
        from.map(half::to_f32)
    }

    #[inline(always)]
    fn narrow(self, value: Floats, to: &mut Halves) {
        *to = value.map(half::from_f32);
    }

    #[inline(always)]
    fn add(self, a: Floats, b: Floats) -> Floats {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: Floats, b: Floats) -> Floats {
        std::array::from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul(self, a: Floats, b: Floats) -> Floats {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn div(self, a: Floats, b: Floats) -> Floats {
        std::array::from_fn(|lane| a[lane] / b[lane])
    }

    #[inline(always)]
    fn max(self, a: Floats, b: Floats) -> Floats {
        std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn min(self, a: Floats, b: Floats) -> Floats {
        std::array::from_fn(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn fma(self, a: Floats, b: Floats, c: Floats) -> Floats {
        std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }

    #[inline(always)]
    fn power_of_two(self, biased: Floats) -> Floats {
        biased.map(|lane| f32::from_bits((lane.to_bits() << 23).wrapping_add(0x3f80_0000)))
    }

    #[inline(always)]
    fn low_bytes(self, value: Floats, to: &mut [u8; LANES]) {
        *to = value.map(|lane| lane.to_bits() as u8);
    }

    #[inline(always)]
    fn splat_integer(self, value: i32) -> [i32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn add_integers(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|lane| a[lane].wrapping_add(b[lane]))
    }

    #[inline(always)]
    fn to_float(self, value: [i32; LANES]) -> Floats {
        value.map(|lane| lane as f32)
    }

    #[inline(always)]
    fn bytes(self, from: &Words) -> Words {
        *from
    }

    #[inline(always)]
    fn lower(self, bytes: Words) -> Words {
        bytes.map(|word| word & FOUR)
    }

    #[inline(always)]
    fn upper(self, bytes: Words) -> Words {
        bytes.map(|word| word >> 4 & FOUR)
    }

    #[inline(always)]
    fn with_bit(self, low: Words, bits: Words, at: u32) -> Words {
        std::array::from_fn(|lane| low[lane] | (bits[lane] >> at & ONE) << 4)
    }

    #[inline(always)]
    fn with_pair(self, low: Words, bits: Words, at: u32) -> Words {
        std::array::from_fn(|lane| low[lane] | (bits[lane] >> (2 * at) & TWO) << 4)
    }

    #[inline(always)]
    fn multiply<T: Tile, const ROWS: usize>(
        self,
        tile: &T,
        acts: &[Act; ROWS],
        sums: &mut [Floats; ROWS],
    ) {
        held(self, tile, acts, sums);
    }
}

impl Dot for Scalar {
    #[inline(always)]
    fn dot(self, sum: [i32; LANES], bytes: Words, by: u32) -> [i32; LANES] {
        let by = by.to_le_bytes().map(|byte| i32::from(byte as i8));
        std::array::from_fn(|lane| {
            let bytes = bytes[lane].to_le_bytes().map(i32::from);
            let products = bytes.iter().zip(by).map(|(byte, by)| byte * by);
            sum[lane].wrapping_add(products.sum::<i32>())
        })
    }

    #[inline(always)]
    fn dot_wide(self, sum: [i32; LANES], bytes: Words, by: u32) -> [i32; LANES] {
        self.dot(sum, bytes, by)
    }
}
