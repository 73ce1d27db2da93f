//! Half precision (IEEE 754 binary16), one number at a time.
//!
//! Owns the two conversions that processors without such instructions need, bit for bit as the
//! processors with them do it. A not-a-number stays one; which one is not promised.

/// The value of these bits; exact.
#[inline]
pub(crate) fn to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        // Multiples of 2^-24, below the normal numbers.
        0 => (fraction as f32 * f32::from_bits(0x3380_0000)).to_bits(),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// The nearest half, ties to even; what is too large becomes infinite.
#[inline]
pub(crate) fn from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude > 0x7f80_0000 {
        0x7e00
    } else if magnitude >= 0x4780_0000 {
        0x7c00
    } else if magnitude < 0x3880_0000 {
        // Adding 0.5 leaves a multiple of 2^-24 in the fraction, rounded by the adder.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0x3f00_0000
    } else {
        let odd = magnitude >> 13 & 1;
        (magnitude + 0xfff + odd - 0x3800_0000) >> 13
    };
    sign | half as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_and_ties_go_to_even() {
        for bits in 0..=u16::MAX {
            let value = to_f32(bits);
            if value.is_nan() {
                assert!(to_f32(from_f32(value)).is_nan());
                continue;
            }
            assert_eq!(from_f32(value), bits, "{value}");
            let next = to_f32(bits.wrapping_add(1));
            if bits & 0x7fff < 0x7bff {
                let middle = ((f64::from(value) + f64::from(next)) / 2.0) as f32;
                assert_eq!(from_f32(middle), bits + (bits & 1), "between {value} and {next}");
                let below = f32::from_bits(middle.to_bits() - 1);
                assert_eq!(from_f32(below), bits, "just below {middle}");
            }
        }
        assert_eq!(from_f32(65_519.9), 0x7bff);
        assert_eq!((from_f32(65_520.0), from_f32(-1e9)), (0x7c00, 0xfc00));
        assert_eq!((to_f32(0x3c00), to_f32(0xc000), to_f32(1)), (1.0, -2.0, 5.960_464_5e-8));
    }
}
