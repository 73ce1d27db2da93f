use proptest::prelude::*;

use super::*;

/// The sum that `combined` makes of many blocks, for one.
fn dot(row: &[Fp], values: &[Fp]) -> Fp {
    row.iter().zip(values).fold(Fp::ZERO, |sum, (factor, value)| sum.plus(factor.times(*value)))
}
use crate::field::P;
use crate::mask::Seed;

const SCHEMES: [Scheme; 3] = [Scheme::Five, Scheme::Nine, Scheme::Sixteen];

fn scheme() -> impl Strategy<Value = Scheme> {
    prop_oneof![Just(Scheme::Five), Just(Scheme::Nine), Just(Scheme::Sixteen)]
}

fn elements(most: usize) -> impl Strategy<Value = Vec<Fp>> {
    proptest::collection::vec((0..P).prop_map(|value| Fp::reduced(u64::from(value))), 1..most)
}

/// Some anchors, as many as wanted, chosen by a number.
fn subset(anchors: usize, wanted: usize, mut choice: u64) -> Vec<u8> {
    let mut left: Vec<u8> = (0..anchors as u8).collect();
    let mut chosen = Vec::new();
    while chosen.len() < wanted {
        choice = choice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        chosen.push(left.remove((choice >> 33) as usize % left.len()));
    }
    chosen
}

fn pick<'a>(shares: &'a [Vec<Fp>], places: &[u8]) -> Vec<(u8, &'a [Fp])> {
    places.iter().map(|place| (*place, shares[usize::from(*place)].as_slice())).collect()
}

#[test]
fn the_parameters_are_those_of_the_design() {
    let rows = SCHEMES.map(|one| (one.anchors(), one.colluding(), one.packing(), one.threshold()));
    assert_eq!(rows, [(5, 2, 1, 3), (9, 3, 3, 6), (16, 5, 6, 11)]);
}

/// For any T places, any values of their shares and any block there is exactly one choice of the
/// drawn elements that gives them: what T anchors see is possible, and equally likely, whatever the
/// update was. Seen by solving for it: from the T shares and another block follows a polynomial,
/// and its shares at 1, .., T are what would have been drawn.
fn possible_with_any(one: Scheme, shares: &[Vec<Fp>], places: &[u8], other: &[Fp]) {
    let mut points: Vec<Fp> = (0..one.packing()).map(Scheme::secret_point).collect();
    points.extend(places.iter().map(|place| Scheme::share_point(usize::from(*place))));
    let mut values = other.to_vec();
    values.extend(places.iter().map(|place| shares[usize::from(*place)][0]));
    let all: Vec<Vec<Fp>> = (0..one.anchors())
        .map(|anchor| vec![dot(&lagrange(&points, Scheme::share_point(anchor)), &values)])
        .collect();
    for place in places {
        assert_eq!(all[usize::from(*place)][0], shares[usize::from(*place)][0]);
    }
    let everyone: Vec<u8> = (0..one.anchors() as u8).collect();
    assert_eq!(one.reconstruct(&pick(&all, &everyone), one.packing()), Ok(other.to_vec()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Blocks computed together are those computed one by one, also across the pieces and where
    /// the last block is not full.
    #[test]
    fn columns_are_blocks(
        values in proptest::collection::vec(0..crate::field::P, 1..1_600), step in 1usize..4,
    ) {
        let values: Vec<Fp> = values.into_iter().map(|one| Fp::reduced(u64::from(one))).collect();
        let row: Vec<Fp> = (0..step).map(|at| Fp::of_signed(-1 - at as i64)).collect();
        let columns: Vec<Column<'_>> =
            (0..step).map(|from| Column { values: &values, from, step }).collect();
        let all = combined(&row, &columns, values.len().div_ceil(step));
        let one_by_one: Vec<Fp> = values.chunks(step).map(|block| dot(&row, block)).collect();
        prop_assert_eq!(all, one_by_one);
    }

    #[test]
    fn any_k_shares_tell_the_update(
        one in scheme(), update in elements(20), seed: [u8; 32], choice: u64
    ) {
        let shares = one.share(&update, &mut Masks::new(&Seed(seed)));
        prop_assert!(shares.iter().all(|share| share.len() == one.share_len(update.len())));
        let places = subset(one.anchors(), one.threshold(), choice);
        prop_assert_eq!(one.reconstruct(&pick(&shares, &places), update.len()), Ok(update));
    }

    #[test]
    fn weighted_sums_of_shares_are_shares_of_the_weighted_sum(
        one in scheme(), a in elements(12), seed: [u8; 32], weights: (u16, u16), choice: u64
    ) {
        let b: Vec<Fp> = a.iter().map(|value| value.times(*value)).collect();
        let first = one.share(&a, &mut Masks::new(&Seed(seed)));
        let second = one.share(&b, &mut Masks::new(&Seed(seed).derive("other", 0)));
        let sums: Vec<Vec<Fp>> = first.iter().zip(&second).map(|(first, second)| {
            let mut sum = vec![Fp::ZERO; first.len()];
            add_weighted(&mut sum, first, u32::from(weights.0));
            add_weighted(&mut sum, second, u32::from(weights.1));
            sum
        }).collect();
        let mut wanted = vec![Fp::ZERO; a.len()];
        add_weighted(&mut wanted, &a, u32::from(weights.0));
        add_weighted(&mut wanted, &b, u32::from(weights.1));
        let places = subset(one.anchors(), one.threshold(), choice);
        prop_assert_eq!(one.reconstruct(&pick(&sums, &places), a.len()), Ok(wanted));
    }

    #[test]
    fn t_shares_fit_every_update(
        one in scheme(), seed: [u8; 32], choice: u64, secret: u32, other: u32
    ) {
        let block = vec![Fp::reduced(u64::from(secret)); one.packing()];
        let shares = one.share(&block, &mut Masks::new(&Seed(seed)));
        let places = subset(one.anchors(), one.colluding(), choice);
        let another = vec![Fp::reduced(u64::from(other)); one.packing()];
        possible_with_any(one, &shares, &places, &another);
    }

    #[test]
    fn a_wrong_share_beyond_k_is_noticed(one in scheme(), seed: [u8; 32], at: u8, by in 1..P) {
        let update = vec![Fp::ONE; one.packing() * 2];
        let mut shares = one.share(&update, &mut Masks::new(&Seed(seed)));
        let at = usize::from(at) % one.anchors();
        shares[at][1] = shares[at][1].plus(Fp::reduced(u64::from(by)));
        let everyone: Vec<u8> = (0..one.anchors() as u8).collect();
        prop_assert_eq!(
            one.reconstruct(&pick(&shares, &everyone), update.len()),
            Err(ShareError::Inconsistent)
        );
    }
}

/// One share of very different updates has the same distribution: a chi-squared test over 16 bins,
/// 15 degrees of freedom, whose 0.999 quantile is 37.7. The seeds are fixed, so it cannot flicker.
#[test]
fn shares_of_different_updates_look_alike() {
    for one in SCHEMES {
        for anchor in [0, one.anchors() - 1] {
            for secret in [Fp::ZERO, Fp::of_signed(-1), Fp::reduced(131_071)] {
                let mut bins = [0u32; 16];
                let mut masks = Masks::new(&Seed([anchor as u8; 32]));
                let blocks = vec![secret; one.packing() * 4_096];
                for element in &one.share(&blocks, &mut masks)[anchor] {
                    bins[(element.residue() >> 28) as usize] += 1;
                }
                let chi: f64 =
                    bins.iter().map(|seen| (f64::from(*seen) - 256.0).powi(2) / 256.0).sum();
                assert!(chi < 37.7, "{one:?} anchor {anchor}: {chi}");
            }
        }
    }
}

#[test]
fn shares_that_cannot_do_are_refused() {
    let one = Scheme::Five;
    let shares = one.share(&[Fp::ONE], &mut Masks::new(&Seed([1; 32])));
    let few = pick(&shares, &[0, 4]);
    assert_eq!(one.reconstruct(&few, 1), Err(ShareError::TooFew { found: 2, wanted: 3 }));
    assert_eq!(one.reconstruct(&pick(&shares, &[0, 0, 1]), 1), Err(ShareError::Place(0)));
    assert_eq!(one.reconstruct(&[(5, &shares[0])], 1), Err(ShareError::Place(5)));
    assert_eq!(one.reconstruct(&pick(&shares, &[0, 1, 2]), 2), Err(ShareError::Length(0)));
}

proptest! {
    /// However many are wrong, each for itself, and wherever: those that are right are found as
    /// long as they are one more than tell what is shared.
    #[test]
    fn shares_that_lie_on_one_polynomial_are_found_among_others(
        scheme in scheme(), seed: u8, choice: u64, wrong in 0usize..5, blocks in 1usize..4,
    ) {
        let update = vec![Fp::ONE; blocks * scheme.packing()];
        let mut masks = Masks::new(&Seed([seed; 32]));
        let mut shares = scheme.share(&update, &mut masks);
        let wrong = wrong.min(scheme.anchors() - scheme.threshold() - 1);
        let spoilt = subset(scheme.anchors(), wrong, choice);
        for place in &spoilt {
            let share = &mut shares[usize::from(*place)];
            let at = share.len() - 1;
            share[at] = share[at].plus(masks.element());
        }
        let given = subset(scheme.anchors(), scheme.anchors(), choice ^ 1);
        let found = scheme.fitting(&pick(&shares, &given));
        let found: Vec<u8> = found.into_iter().map(|at| given[at]).collect();
        let right: Vec<u8> =
            given.iter().copied().filter(|place| !spoilt.contains(place)).collect();
        prop_assert_eq!(found, right);
    }
}

#[test]
fn among_shares_that_are_no_more_than_tell_the_update_all_fit() {
    let one = Scheme::Five;
    let shares = vec![vec![Fp::ONE; 2], vec![Fp::ZERO; 2], vec![Fp::reduced(7); 2]];
    for count in 0..=3u8 {
        let given: Vec<u8> = (0..count).collect();
        let all: Vec<usize> = (0..usize::from(count)).collect();
        assert_eq!(one.fitting(&pick(&shares, &given)), all);
    }
    let mut choice = vec![0, 1, 2];
    let mut seen = 1;
    while next_choice(&mut choice, 5) {
        seen += 1;
    }
    assert_eq!((seen, choice), (10, vec![2, 3, 4]));
}
