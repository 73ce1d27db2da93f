//! Arithmetic modulo p = 2^32 - 5, the largest prime below 2^32.
//!
//! Owns the elements and their operations. An element fits four bytes on the wire, and a product
//! fits 64 bits; small numbers of either sign are kept as residues next to zero.

use serde::{Deserialize, Serialize};

/// The modulus, a prime.
pub const P: u32 = 4_294_967_291;

/// An element of the field: a residue below [`P`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "u32", into = "u32")]
pub struct Fp(u32);

/// A number from outside that is no residue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no element of the field modulo {P}")]
pub struct NotAnElement(pub u32);

impl Fp {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(1);

    /// The residue of a number of any size. 2^32 is 5 here, so what is above 32 bits counts five
    /// times; after two such folds at most 2^32 + 24 is left.
    pub const fn reduced(value: u64) -> Self {
        let rest = folded(folded(value));
        Self(if rest >= P as u64 { (rest - P as u64) as u32 } else { rest as u32 })
    }

    /// The residue of a signed number.
    pub const fn of_signed(value: i64) -> Self {
        Self(value.rem_euclid(P as i64) as u32)
    }

    /// The number next to zero that has this residue: between -(p-1)/2 and (p-1)/2.
    pub const fn signed(self) -> i64 {
        if self.0 > P / 2 { self.0 as i64 - P as i64 } else { self.0 as i64 }
    }

    /// The residue itself.
    pub const fn residue(self) -> u32 {
        self.0
    }

    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        let sum = self.0 as u64 + other.0 as u64;
        Self(if sum >= P as u64 { (sum - P as u64) as u32 } else { sum as u32 })
    }

    /// The difference.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self::reduced(self.0 as u64 + (P - other.0) as u64)
    }

    /// The product: below 2^64, since both are below 2^32.
    #[must_use]
    pub const fn times(self, other: Self) -> Self {
        Self::reduced(self.0 as u64 * other.0 as u64)
    }

    /// A number below 2^35 with the residue of the product: sums of up to 2^29 of them can wait for
    /// [`Fp::reduced`].
    pub(crate) const fn loose_product(self, other: Self) -> u64 {
        folded(self.0 as u64 * other.0 as u64)
    }

    /// The same with any number of 32 bits, which need not be a residue.
    pub(crate) const fn loose_times(self, word: u32) -> u64 {
        folded(self.0 as u64 * word as u64)
    }

    /// The element whose product with this one is one; zero for zero. By Fermat, the power p - 2.
    #[must_use]
    pub const fn inverse(self) -> Self {
        let (mut base, mut exponent, mut power) = (self, P - 2, Self::ONE);
        while exponent > 0 {
            if exponent & 1 == 1 {
                power = power.times(base);
            }
            base = base.times(base);
            exponent >>= 1;
        }
        power
    }
}

/// A number with the same residue, below six times 2^32.
const fn folded(value: u64) -> u64 {
    (value >> 32) * 5 + (value & 0xffff_ffff)
}

impl TryFrom<u32> for Fp {
    type Error = NotAnElement;

    fn try_from(value: u32) -> Result<Self, NotAnElement> {
        if value < P { Ok(Self(value)) } else { Err(NotAnElement(value)) }
    }
}

impl From<Fp> for u32 {
    fn from(element: Fp) -> Self {
        element.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any() -> impl Strategy<Value = Fp> {
        prop_oneof![(0..P).prop_map(Fp), Just(Fp(P - 1)), Just(Fp(0)), Just(Fp(P / 2))]
    }

    #[test]
    fn the_modulus_is_a_prime() {
        assert_eq!(u64::from(P), (1 << 32) - 5);
        assert!((2..65_536).all(|divisor| !P.is_multiple_of(divisor)));
    }

    #[test]
    fn what_is_no_residue_is_refused() {
        assert_eq!(Fp::try_from(P), Err(NotAnElement(P)));
        assert_eq!(Fp::try_from(u32::MAX), Err(NotAnElement(u32::MAX)));
        assert_eq!(Fp::try_from(P - 1).map(Fp::signed), Ok(-1));
    }

    proptest! {
        #[test]
        fn the_laws_of_a_field_hold(a in any(), b in any(), c in any()) {
            prop_assert_eq!(a.plus(b), b.plus(a));
            prop_assert_eq!(a.plus(b).plus(c), a.plus(b.plus(c)));
            prop_assert_eq!(a.times(b).times(c), a.times(b.times(c)));
            prop_assert_eq!(a.times(b.plus(c)), a.times(b).plus(a.times(c)));
            prop_assert_eq!(a.minus(b).plus(b), a);
            prop_assert!(a.minus(b).residue() < P);
            if a != Fp::ZERO {
                prop_assert_eq!(a.times(a.inverse()), Fp::ONE);
            }
        }

        #[test]
        fn residues_are_remainders(value: u64, a in any(), b in any()) {
            for value in [value, u64::MAX - (value & 63), u64::from(P) * (value & 0xffff_ffff)] {
                prop_assert_eq!(u64::from(Fp::reduced(value).0), value % u64::from(P));
            }
            let sum = u64::from(a.0) + u64::from(b.0);
            prop_assert_eq!(u64::from(a.plus(b).0), sum % u64::from(P));
            prop_assert!(a.loose_product(b) < 1 << 35);
            prop_assert_eq!(Fp::reduced(a.loose_product(b)), a.times(b));
            for word in [b.residue(), P, u32::MAX] {
                let wanted = a.times(Fp::reduced(word.into()));
                prop_assert!(a.loose_times(word) < 1 << 35);
                prop_assert_eq!(Fp::reduced(a.loose_times(word)), wanted);
            }
        }

        #[test]
        fn signed_numbers_come_back(value in -2_147_483_645i64..=2_147_483_645) {
            prop_assert_eq!(Fp::of_signed(value).signed(), value);
        }
    }
}
