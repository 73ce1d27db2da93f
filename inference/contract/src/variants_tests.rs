#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const WEIGHTS: u64 = 1_000_000_000;

fn variant(name: &str, tenths: u64) -> Variant {
    Variant {
        name: name.to_owned(),
        quantization: name.to_owned(),
        weights: WEIGHTS,
        file_bytes: WEIGHTS * tenths / 80,
        // Floats are held in eight bits.
        held_bytes: WEIGHTS * tenths.min(90) / 80,
        answer_bytes: 100_000_000,
        present: true,
    }
}

fn all() -> Vec<Variant> {
    [("F16", 160), ("Q8_0", 85), ("Q4_K_M", 48), ("Q2_K", 30)].map(|(n, t)| variant(n, t)).into()
}

fn place(memory: u64) -> Place {
    Place {
        memory,
        bound: "the memory that is free".to_owned(),
        kernels: "avx2".to_owned(),
        millicores: 4_000,
        bandwidth: 40_000_000_000,
        wanted_rate: 5,
        may_fetch: false,
    }
}

fn name(place: &Place, variants: &[Variant]) -> Option<String> {
    choose(place, variants).at.map(|at| variants[at].name.clone())
}

#[test]
fn the_most_bits_that_fit_are_chosen_and_said_why() {
    let told = choose(&place(4_000_000_000), &all());
    assert_eq!(told.at, Some(1), "floats keep no more than eight bits here");
    let fates = [Fate::Larger, Fate::Chosen, Fate::Lesser, Fate::Lesser];
    assert_eq!(told.fates, fates);
    assert_eq!(
        told.reason,
        "Q8_0 takes 1.1 GB of 4.0 GB (the memory that is free), at about 37 tokens a second on \
         avx2; no other that fits and is fast enough keeps more of the model"
    );
    let told = choose(&place(900_000_000), &all());
    assert_eq!(told.at, Some(2));
    assert_eq!(told.fates[1].to_string(), "needs 262.5 MB more memory");
    let card = Place { kernels: "cuda".to_owned(), ..place(4_000_000_000) };
    assert_eq!(name(&card, &all()).as_deref(), Some("F16"));
}

#[test]
fn where_nothing_fits_it_says_by_how_much() {
    let told = choose(&place(400_000_000), &all());
    assert_eq!(told.at, None);
    assert_eq!(
        told.reason,
        "the smallest, Q2_K, takes 475.0 MB: 75.0 MB more than 400.0 MB (the memory that is free)"
    );
    assert_eq!(choose(&place(1), &[]).reason, "none of its files is here");
}

#[test]
fn a_slow_machine_takes_fewer_bits() {
    let slow = Place { bandwidth: 4_000_000_000, ..place(8_000_000_000) };
    let told = choose(&slow, &all());
    assert_eq!(told.at, Some(2), "{told:?}");
    assert_eq!(told.fates[1], Fate::Slow(3));
    assert_eq!(told.fates[1].to_string(), "about 3 tokens a second, fewer than wanted");
    let crawling = Place { bandwidth: 1_000_000_000, ..slow.clone() };
    let told = choose(&crawling, &all());
    assert_eq!(told.at, Some(3));
    assert!(told.reason.ends_with("this one is the fastest"), "{}", told.reason);
    // Without vectors the multiplications hold it up, whatever the bits are.
    let scalar = Place { kernels: "scalar".to_owned(), ..place(8_000_000_000) };
    assert_eq!(scalar.rate(&all()[0]), Some(4));
    let unknown = Place { bandwidth: 0, millicores: 0, ..place(8_000_000_000) };
    assert_eq!(name(&unknown, &all()).as_deref(), Some("Q8_0"));
}

#[test]
fn a_file_that_is_not_here_counts_only_where_it_may_be_fetched() {
    let mut variants = all();
    variants[1].present = false;
    variants[0].present = false;
    let told = choose(&place(4_000_000_000), &variants);
    assert_eq!((told.at, told.fates[1]), (Some(2), Fate::Absent));
    let fetching = Place { may_fetch: true, ..place(4_000_000_000) };
    assert_eq!(choose(&fetching, &variants).at, Some(1));
}

fn any_variant() -> impl Strategy<Value = Variant> {
    let sizes = (1u64..1 << 36, 1u64..1 << 36, 1u64..1 << 36, 0u64..1 << 30);
    (sizes, any::<bool>()).prop_map(|((weights, file, held, answers), present)| Variant {
        name: "v".to_owned(),
        quantization: "Q".to_owned(),
        weights,
        file_bytes: file,
        held_bytes: held,
        answer_bytes: answers,
        present,
    })
}

fn any_place() -> impl Strategy<Value = Place> {
    let kernels = prop::sample::select(vec!["avx512-vnni", "avx2", "neon", "scalar", "cuda"]);
    let numbers = (0u64..1 << 37, 0u32..64_000, 0u64..1 << 38, 0u32..50);
    (numbers, kernels, any::<bool>()).prop_map(|(numbers, kernels, may_fetch)| Place {
        memory: numbers.0,
        bound: "b".to_owned(),
        kernels: kernels.to_owned(),
        millicores: numbers.1,
        bandwidth: numbers.2,
        wanted_rate: numbers.3,
        may_fetch,
    })
}

proptest! {
    #[test]
    fn what_is_chosen_fits_and_is_here(
        place in any_place(), variants in prop::collection::vec(any_variant(), 0..8)
    ) {
        let told = choose(&place, &variants);
        prop_assert_eq!(told.fates.len(), variants.len());
        let can = |v: &Variant| v.needs() <= place.memory && (v.present || place.may_fetch);
        match told.at {
            Some(at) => {
                prop_assert!(can(&variants[at]));
                let chosen = told.fates.iter().filter(|fate| **fate == Fate::Chosen).count();
                prop_assert_eq!((told.fates[at], chosen), (Fate::Chosen, 1));
            }
            None => prop_assert!(!variants.iter().any(can)),
        }
        for (variant, fate) in variants.iter().zip(&told.fates) {
            let needs = variant.needs();
            prop_assert!(!matches!(fate, Fate::TooLarge(by) if place.memory + by != needs));
        }
    }

    #[test]
    fn more_memory_never_chooses_worse(
        place in any_place(), more in 0u64..1 << 37,
        variants in prop::collection::vec(any_variant(), 1..8)
    ) {
        let roomier = Place { memory: place.memory + more, ..place.clone() };
        let (before, after) = (choose(&place, &variants).at, choose(&roomier, &variants).at);
        if let Some(before) = before {
            let (before, after) = (&variants[before], &variants[after.unwrap()]);
            let wanted = u64::from(place.wanted_rate);
            let fast = |v: &Variant| place.rate(v).is_none_or(|rate| rate >= wanted);
            prop_assert!(fast(after) || !fast(before));
            match fast(before) {
                true => prop_assert!(after.kept(&place) >= before.kept(&place)),
                false => prop_assert!(fast(after) || place.rate(after) >= place.rate(before)),
            }
        }
    }
}
