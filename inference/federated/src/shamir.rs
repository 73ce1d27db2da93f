//! Packed Shamir sharing: an update in A shares, of which k tell it and T tell nothing.
//!
//! A block of L elements is the values of a polynomial of degree below k = L + T at -1, .., -L; its
//! values at 1, .., A are the shares (Franklin and Yung 1992). The T degrees of freedom that are
//! left are drawn: the shares at 1, .., T are random elements, and the polynomial through them and
//! the block gives the others. Any T shares together are uniform whatever the block is, since for
//! every block there is exactly one polynomial through them and it; k determine the polynomial.
//! What lies between (T < n < k, which there is with L > 1 only) tells something of the block.
//!
//! Sharing is linear: sums of shares, each times a public weight, are shares of the weighted sum.
//! Owns the parameters, sharing and reconstruction; knows nothing of who holds a share.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::field::Fp;
use crate::mask::Masks;

/// Parameters of a sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// A = 5, T = 2, L = 1, k = 3: loses two anchors.
    Five,
    /// A = 9, T = 3, L = 3, k = 6: loses three.
    Nine,
    /// A = 16, T = 5, L = 6, k = 11: loses five.
    Sixteen,
}

/// Why shares do not make an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ShareError {
    /// There are fewer than k.
    #[error("{found} shares are not enough: {wanted} are needed")]
    TooFew {
        /// Shares given.
        found: usize,
        /// Shares needed.
        wanted: usize,
    },
    /// A share is of no anchor, or of one that gave another already.
    #[error("share {0} is of no anchor or comes twice")]
    Place(u8),
    /// A share has another length than the update's should.
    #[error("share {0} has the wrong length")]
    Length(u8),
    /// The shares lie on no common polynomial: at least one is wrong.
    #[error("the shares do not fit together: at least one is wrong")]
    Inconsistent,
}

impl Scheme {
    /// How many anchors hold shares.
    pub const fn anchors(self) -> usize {
        match self {
            Self::Five => 5,
            Self::Nine => 9,
            Self::Sixteen => 16,
        }
    }

    /// How many anchors together learn nothing.
    pub const fn colluding(self) -> usize {
        match self {
            Self::Five => 2,
            Self::Nine => 3,
            Self::Sixteen => 5,
        }
    }

    /// How many elements one share element stands for.
    pub const fn packing(self) -> usize {
        match self {
            Self::Five => 1,
            Self::Nine => 3,
            Self::Sixteen => 6,
        }
    }

    /// How many shares tell the update.
    pub const fn threshold(self) -> usize {
        self.packing() + self.colluding()
    }

    /// Elements of one share of an update of `dim` elements.
    pub const fn share_len(self, dim: usize) -> usize {
        dim.div_ceil(self.packing())
    }

    /// Where the i-th element of a block lies.
    fn secret_point(index: usize) -> Fp {
        Fp::of_signed(-(index as i64) - 1)
    }

    /// Where the share of the i-th anchor lies.
    fn share_point(index: usize) -> Fp {
        Fp::reduced(index as u64 + 1)
    }

    /// One share for each anchor; what is random in them comes from `masks`.
    pub fn share(self, update: &[Fp], masks: &mut Masks) -> Vec<Vec<Fp>> {
        let (packing, colluding) = (self.packing(), self.colluding());
        let mut known: Vec<Fp> = (0..packing).map(Self::secret_point).collect();
        known.extend((0..colluding).map(Self::share_point));
        let rows: Vec<Vec<Fp>> = (colluding..self.anchors())
            .map(|anchor| lagrange(&known, Self::share_point(anchor)))
            .collect();
        let mut shares = vec![Vec::with_capacity(self.share_len(update.len())); self.anchors()];
        let mut values = vec![Fp::ZERO; packing + colluding];
        for block in update.chunks(packing) {
            // A last block that is not full ends with zeroes.
            values.fill(Fp::ZERO);
            values[..block.len()].copy_from_slice(block);
            values[packing..].fill_with(|| masks.element());
            let (random, computed) = shares.split_at_mut(colluding);
            for (share, value) in random.iter_mut().zip(&values[packing..]) {
                share.push(*value);
            }
            for (share, row) in computed.iter_mut().zip(&rows) {
                share.push(dot(row, &values));
            }
        }
        shares
    }

    /// The update of `dim` elements from shares, each with its anchor's place from 0: the first k
    /// tell it, the others must agree.
    ///
    /// # Errors
    /// [`ShareError`], also when one share more than k does not fit the others.
    pub fn reconstruct(self, shares: &[(u8, &[Fp])], dim: usize) -> Result<Vec<Fp>, ShareError> {
        let threshold = self.threshold();
        let mut seen = [false; 16];
        for (place, share) in shares {
            let at = usize::from(*place);
            if at >= self.anchors() || std::mem::replace(&mut seen[at], true) {
                return Err(ShareError::Place(*place));
            }
            if share.len() != self.share_len(dim) {
                return Err(ShareError::Length(*place));
            }
        }
        if shares.len() < threshold {
            return Err(ShareError::TooFew { found: shares.len(), wanted: threshold });
        }
        let (base, others) = shares.split_at(threshold);
        let points: Vec<Fp> =
            base.iter().map(|(place, _)| Self::share_point(usize::from(*place))).collect();
        let secrets: Vec<Vec<Fp>> =
            (0..self.packing()).map(|index| lagrange(&points, Self::secret_point(index))).collect();
        let checks: Vec<(Vec<Fp>, &[Fp])> = others
            .iter()
            .map(|(place, share)| {
                (lagrange(&points, Self::share_point(usize::from(*place))), *share)
            })
            .collect();
        let mut update = Vec::with_capacity(self.share_len(dim) * self.packing());
        let mut values = Vec::with_capacity(threshold);
        for block in 0..self.share_len(dim) {
            values.clear();
            values.extend(base.iter().map(|(_, share)| share[block]));
            if checks.iter().any(|(row, share)| dot(row, &values) != share[block]) {
                return Err(ShareError::Inconsistent);
            }
            update.extend(secrets.iter().map(|row| dot(row, &values)));
        }
        update.truncate(dim);
        Ok(update)
    }
}

/// Adds a share times a public weight to a sum of shares of the same length.
pub fn add_weighted(sum: &mut [Fp], share: &[Fp], weight: u32) {
    let weight = Fp::reduced(u64::from(weight));
    for (sum, element) in sum.iter_mut().zip(share) {
        *sum = sum.plus(element.times(weight));
    }
}

/// What the values at `points`, which all differ, count in the value at `at` of the polynomial
/// through them.
fn lagrange(points: &[Fp], at: Fp) -> Vec<Fp> {
    let coefficient = |own: &Fp| {
        let others = points.iter().filter(|point| *point != own);
        let (above, below) = others.fold((Fp::ONE, Fp::ONE), |(above, below), point| {
            (above.times(at.minus(*point)), below.times(own.minus(*point)))
        });
        above.times(below.inverse())
    };
    points.iter().map(coefficient).collect()
}

fn dot(row: &[Fp], values: &[Fp]) -> Fp {
    row.iter().zip(values).fold(Fp::ZERO, |sum, (factor, value)| sum.plus(factor.times(*value)))
}

#[cfg(test)]
#[path = "shamir_tests.rs"]
mod tests;
