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

    /// Where a polynomial is known by its k values: at a block's elements and the first T shares.
    fn known_points(self) -> Vec<Fp> {
        let secrets = (0..self.packing()).map(Self::secret_point);
        secrets.chain((0..self.colluding()).map(Self::share_point)).collect()
    }

    /// What these k values count in the share of the anchor at a place; nothing where no anchor is.
    pub(crate) fn known_at(self, place: usize) -> Vec<Fp> {
        if place >= self.anchors() {
            return Vec::new();
        }
        lagrange(&self.known_points(), Self::share_point(place))
    }

    /// One share for each anchor; what is random in them comes from `masks`.
    pub fn share(self, update: &[Fp], masks: &mut Masks) -> Vec<Vec<Fp>> {
        let (packing, colluding) = (self.packing(), self.colluding());
        let rows: Vec<Vec<Fp>> =
            (colluding..self.anchors()).map(|anchor| self.known_at(anchor)).collect();
        let blocks = self.share_len(update.len());
        let mut drawn = vec![vec![Fp::ZERO; blocks]; colluding];
        // Block after block, as shares have always been drawn.
        for block in 0..blocks {
            drawn.iter_mut().for_each(|share| share[block] = masks.element());
        }
        // A last block that is not full ends with zeroes.
        let secrets = (0..packing).map(|from| Column { values: update, from, step: packing });
        let columns: Vec<Column<'_>> =
            secrets.chain(drawn.iter().map(|one| Column::of(one))).collect();
        let computed: Vec<Vec<Fp>> =
            rows.iter().map(|row| combined(row, &columns, blocks)).collect();
        drawn.extend(computed);
        drawn
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
        let columns: Vec<Column<'_>> = base.iter().map(|(_, share)| Column::of(share)).collect();
        let (packing, blocks) = (self.packing(), self.share_len(dim));
        for (place, share) in others {
            let row = lagrange(&points, Self::share_point(usize::from(*place)));
            if combined(&row, &columns, blocks) != *share {
                return Err(ShareError::Inconsistent);
            }
        }
        let secrets = (0..packing).map(|index| lagrange(&points, Self::secret_point(index)));
        let mut secrets: Vec<Vec<Fp>> =
            secrets.map(|row| combined(&row, &columns, blocks)).collect();
        if packing == 1 {
            return Ok(secrets.pop().unwrap_or_default());
        }
        Ok((0..dim).map(|at| secrets[at % packing][at / packing]).collect())
    }
}

impl Scheme {
    /// Which of these shares lie on one polynomial, the most there are of: their places in what is
    /// given. Among k or fewer nothing tells, so all of them do. Shares are short here: every k of
    /// them are tried, at most 4,368 times for the 16 that there can be.
    pub(crate) fn fitting(self, shares: &[(u8, &[Fp])]) -> Vec<usize> {
        let (count, threshold) = (shares.len().min(self.anchors()), self.threshold());
        let mut best: Vec<usize> = (0..count.min(threshold)).collect();
        let mut base = best.clone();
        while base.len() == threshold {
            let found = self.on_polynomial(shares, &base, count);
            if found.len() > best.len() {
                best = found;
            }
            // Had all been right, the first k would have shown it.
            if best.len() + 1 >= count || !next_choice(&mut base, count) {
                break;
            }
        }
        best
    }

    /// Of the first `count` shares those on the polynomial through these k.
    fn on_polynomial(self, shares: &[(u8, &[Fp])], base: &[usize], count: usize) -> Vec<usize> {
        let point = |at: usize| Self::share_point(usize::from(shares[at].0));
        let points: Vec<Fp> = base.iter().map(|at| point(*at)).collect();
        let columns: Vec<Column<'_>> = base.iter().map(|at| Column::of(shares[*at].1)).collect();
        let fits = |at: &usize| {
            base.contains(at) || {
                let (row, share) = (lagrange(&points, point(*at)), shares[*at].1);
                combined(&row, &columns, share.len()) == share
            }
        };
        (0..count).filter(fits).collect()
    }
}

/// The next choice of as many of `count` things, in order; false after the last one.
fn next_choice(chosen: &mut [usize], count: usize) -> bool {
    let size = chosen.len();
    let Some(at) = (0..size).rev().find(|at| chosen[*at] + (size - at) < count) else {
        return false;
    };
    let first = chosen[at] + 1;
    chosen[at..].iter_mut().zip(first..).for_each(|(place, value)| *place = value);
    true
}

/// One value of every block: that of block b is at `from + b · step`, zero beyond the end.
#[derive(Clone, Copy)]
struct Column<'a> {
    values: &'a [Fp],
    from: usize,
    step: usize,
}

impl<'a> Column<'a> {
    /// A value for each block, one after the other.
    const fn of(values: &'a [Fp]) -> Self {
        Self { values, from: 0, step: 1 }
    }
}

/// Blocks whose sums are made together: they stay in the first cache.
const TOGETHER: usize = 512;

/// Of every block the sum of its values, each times its factor.
fn combined(row: &[Fp], columns: &[Column<'_>], blocks: usize) -> Vec<Fp> {
    let mut all = Vec::with_capacity(blocks);
    let mut sums = [0_u64; TOGETHER];
    for start in (0..blocks).step_by(TOGETHER) {
        let sums = &mut sums[..TOGETHER.min(blocks - start)];
        sums.fill(0);
        for (factor, column) in row.iter().zip(columns) {
            let values = column.values.get(column.from + start * column.step..).unwrap_or(&[]);
            // At most sixteen of them come together, below 2^39.
            if column.step == 1 {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += factor.loose_product(*value);
                }
            } else {
                for (sum, value) in sums.iter_mut().zip(values.iter().step_by(column.step)) {
                    *sum += factor.loose_product(*value);
                }
            }
        }
        all.extend(sums.iter().map(|sum| Fp::reduced(*sum)));
    }
    all
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

#[cfg(test)]
#[path = "shamir_tests.rs"]
mod tests;
