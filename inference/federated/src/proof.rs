//! That shares lie on polynomials, shown to whoever holds one; it tells nothing of what is shared.
//!
//! A client that hands out values of no polynomial of degree below k would have nodes that open
//! different anchors' parts come to different sums. So each sharing has [`CHECKS`] blocks more, of
//! random elements. A challenge that follows from all sealed shares draws a coefficient for every
//! block; for each check the blocks, each times its coefficient, and the check's own random block
//! add up to one polynomial, which the client publishes and every anchor compares with what its own
//! share adds up to (the dual code's test of Cascudo and David 2017, made non-interactive as Fiat
//! and Shamir 1986). Coefficients are products of two drawn numbers: where a block lies on no
//! polynomial, what a check compares is of degree two in what is drawn, and is nothing with a
//! chance of 2/p (Schwartz 1980, Zippel 1979), 4/p as numbers are drawn here. All four pass with
//! 2^-120, and the challenge can be drawn again at the price of a sealing each time. The published
//! polynomial is uniform, since its random block is: it tells nothing.
//!
//! Parts of a sum are compared in the same way, see [`traces`].
//!
//! Owns the blocks, the proof and its check; whose shares, and what the challenge follows from, are
//! the caller's.

use crate::field::Fp;
use crate::mask::{Masks, Seed};
use crate::shamir::Scheme;

/// Checks of one sharing: (4/p)^4 is 2^-120.
pub const CHECKS: usize = 4;

/// An update with the random blocks of its proof behind it, ready to be shared.
pub fn blinded(scheme: Scheme, update: &[Fp], masks: &mut Masks) -> Vec<Fp> {
    let packing = scheme.packing();
    let mut all = update.to_vec();
    all.resize(scheme.share_len(update.len()) * packing, Fp::ZERO);
    all.extend((0..CHECKS * packing).map(|_| masks.element()));
    all
}

/// The proof for shares of what [`blinded`] made: of each check the polynomial's k values, at the
/// points of a block's elements and of the first T shares.
pub fn prove(scheme: Scheme, blinded: &[Fp], shares: &[Vec<Fp>], challenge: &Seed) -> Vec<Fp> {
    let packing = scheme.packing();
    let blocks = (blinded.len() / packing).saturating_sub(CHECKS);
    let column = |place: usize| -> Vec<Fp> {
        blinded.iter().skip(place).step_by(packing).copied().collect()
    };
    let elements: Vec<Vec<Fp>> = (0..packing).map(column).collect();
    let known: Vec<&Vec<Fp>> =
        elements.iter().chain(shares.iter().take(scheme.colluding())).collect();
    let mut proof = Vec::with_capacity(CHECKS * known.len());
    for check in 0..CHECKS {
        let drawn = Coefficients::drawn(challenge, check, blocks);
        let each = known.iter().map(|values| {
            let (values, own) = values.split_at(blocks.min(values.len()));
            drawn.added(values, own.get(check))
        });
        proof.extend(each);
    }
    proof
}

/// Whether the share of the anchor at this place, with its part of the random blocks, is what the
/// proof says.
pub fn is_proven(
    scheme: Scheme,
    place: usize,
    share: &[Fp],
    proof: &[Fp],
    challenge: &Seed,
) -> bool {
    let Some((values, own)) = share.split_last_chunk::<CHECKS>() else { return false };
    let row = scheme.known_at(place);
    if row.is_empty() {
        return false;
    }
    proof.len() == CHECKS * row.len()
        && proof.chunks_exact(row.len()).enumerate().all(|(check, told)| {
            let drawn = Coefficients::drawn(challenge, check, values.len());
            let told = row.iter().zip(told).map(|(factor, value)| factor.loose_product(*value));
            Fp::reduced(told.sum()) == drawn.added(values, own.get(check))
        })
}

/// What a share comes to in each check, each value times its coefficient: those of shares of one
/// polynomial lie on one polynomial, and of others they do but for a chance of 2^-120, whoever made
/// the shares before the challenge was known.
pub(crate) fn traces(share: &[Fp], challenge: &Seed) -> [Fp; CHECKS] {
    std::array::from_fn(|check| {
        Coefficients::drawn(challenge, check, share.len()).added(share, None)
    })
}

/// What the blocks count in a check: block b as a drawn number for b / width times one for
/// b mod width, so that few are drawn. They are words of 32 bits, of which five stand for two
/// residues each.
struct Coefficients {
    rows: Vec<u32>,
    columns: Vec<u32>,
}

impl Coefficients {
    fn drawn(challenge: &Seed, check: usize, blocks: usize) -> Self {
        let width = blocks.isqrt().max(1);
        let mut drawn = Masks::new(&challenge.derive("check", check as u64));
        let rows = drawn.words(blocks.div_ceil(width));
        Self { rows, columns: drawn.words(width) }
    }

    /// Values of the blocks, each times its coefficient, and the check's own: at most 2^10 or so
    /// products below 2^35 in a row, and as many rows.
    fn added(&self, values: &[Fp], own: Option<&Fp>) -> Fp {
        let row = |values: &[Fp]| {
            let products = values.iter().zip(&self.columns);
            Fp::reduced(products.map(|(value, word)| value.loose_times(*word)).sum())
        };
        let rows = values.chunks(self.columns.len()).zip(&self.rows);
        let sum: u64 = rows.map(|(values, word)| row(values).loose_times(*word)).sum();
        Fp::reduced(sum).plus(own.copied().unwrap_or_default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SCHEMES: [Scheme; 3] = [Scheme::Five, Scheme::Nine, Scheme::Sixteen];
    const CHALLENGE: Seed = Seed([9; 32]);

    fn shared(scheme: Scheme, update: &[Fp], seed: u8) -> (Vec<Vec<Fp>>, Vec<Fp>) {
        let mut masks = Masks::new(&Seed([seed; 32]));
        let blinded = blinded(scheme, update, &mut masks);
        let shares = scheme.share(&blinded, &mut masks);
        let proof = prove(scheme, &blinded, &shares, &CHALLENGE);
        (shares, proof)
    }

    proptest! {
        #[test]
        fn what_is_honest_is_proven_and_still_adds_up(
            levels in proptest::collection::vec(-131_071i64..131_071, 1..40), seed: u8,
        ) {
            let update: Vec<Fp> = levels.iter().map(|level| Fp::of_signed(*level)).collect();
            for scheme in SCHEMES {
                let (shares, proof) = shared(scheme, &update, seed);
                let blocks = scheme.share_len(update.len());
                for (place, share) in shares.iter().enumerate() {
                    prop_assert_eq!(share.len(), blocks + CHECKS);
                    prop_assert!(is_proven(scheme, place, share, &proof, &CHALLENGE));
                }
                let parts: Vec<(u8, &[Fp])> =
                    (0..).zip(&shares).map(|(place, share)| (place, &share[..blocks])).collect();
                prop_assert_eq!(scheme.reconstruct(&parts, update.len()).unwrap(), update.clone());
            }
        }

        /// One element of one share is another: its anchor sees it, whatever else is right. Where
        /// the proof is changed, those see it to whom it says something else.
        #[test]
        fn what_lies_on_no_polynomial_is_seen(
            dim in 1usize..40, seed: u8, at: prop::sample::Index, by in 1u64..4_294_967_290,
        ) {
            let update = vec![Fp::ONE; dim];
            for scheme in SCHEMES {
                let (mut shares, mut proof) = shared(scheme, &update, seed);
                let place = at.index(shares.len());
                let element = at.index(shares[place].len());
                shares[place][element] = shares[place][element].plus(Fp::reduced(by));
                prop_assert!(!is_proven(scheme, place, &shares[place], &proof, &CHALLENGE));
                let (shares, _) = shared(scheme, &update, seed);
                let value = at.index(proof.len());
                proof[value] = proof[value].plus(Fp::reduced(by));
                let fooled = (0..shares.len())
                    .filter(|place| is_proven(scheme, *place, &shares[*place], &proof, &CHALLENGE))
                    .count();
                prop_assert!(fooled < scheme.threshold(), "{} of {:?}", fooled, scheme);
            }
        }
    }

    #[test]
    fn what_has_another_length_is_no_proof_and_no_share() {
        let scheme = Scheme::Nine;
        let (shares, proof) = shared(scheme, &[Fp::ONE; 7], 1);
        let is_good = |share: &[Fp], proof: &[Fp]| is_proven(scheme, 0, share, proof, &CHALLENGE);
        assert!(is_good(&shares[0], &proof));
        for bad in [&[][..], &proof[1..], &[proof.clone(), vec![Fp::ZERO]].concat()] {
            assert!(!is_good(&shares[0], bad));
        }
        for end in 0..shares[0].len() {
            assert!(!is_good(&shares[0][..end], &proof), "{end}");
        }
        assert!(!is_proven(scheme, 9, &shares[0], &proof, &CHALLENGE));
        assert!(!is_proven(scheme, 9, &shares[0], &[], &CHALLENGE));
        assert!(!is_proven(scheme, 0, &shares[0], &proof, &Seed([8; 32])));
    }

    /// The proof of one update is as likely that of any other: with the random blocks of one
    /// drawing, proofs of different updates differ by what other random blocks make up for.
    #[test]
    fn a_proof_is_uniform_whatever_is_shared() {
        for scheme in SCHEMES {
            let mut values = BTreeSet::new();
            let mut ones = 0u64;
            for seed in 0..64 {
                let (_, proof) = shared(scheme, &[Fp::ZERO; 5], seed);
                ones += proof.iter().map(|one| u64::from(one.residue().count_ones())).sum::<u64>();
                values.extend(proof);
            }
            let count = 64 * CHECKS * scheme.threshold();
            assert!(values.len() > count - 3, "no value comes twice but by chance");
            let mean = ones as f64 / count as f64;
            assert!((mean - 16.0).abs() < 0.7, "{mean} of 32 bits are ones");
        }
    }
}
