#![allow(clippy::unwrap_used)]

use super::*;
use crate::home::Home;
use crate::scratch::Scratch;

fn means(budget: u64, free: Option<u64>) -> Means {
    Means {
        hardware: Hardware { usable_millicores: Some(4_000), ..Hardware::default() },
        condition: Condition { memory_available: free, ..Condition::default() },
        engine: EngineConfig { memory_budget_bytes: budget, ..EngineConfig::default() },
        bandwidth: 50_000_000_000,
    }
}

fn wanted(files: &[(&str, Option<u64>)]) -> VariantsConfig {
    VariantsConfig {
        name: "assistant".to_owned(),
        files: files.iter().map(|(text, bytes)| ((*text).to_owned(), *bytes)).collect(),
        wanted_rate: 5,
    }
}

#[test]
fn memory_is_the_tighter_of_the_budget_and_what_is_free() {
    let place = |budget, free, taken| means(budget, free).place(taken, 5, false);
    let tight = place(4_000, Some(1_000), 100);
    assert_eq!((tight.memory, tight.bound.as_str()), (900, "the memory that is free"));
    let bound = place(4_000, Some(9_000), 0);
    assert_eq!((bound.memory, bound.bound.as_str()), (4_000, "engine.memory_budget_bytes"));
    assert_eq!(place(4_000, None, 5_000).memory, 0);
    let mut few = means(4_000, None);
    few.engine.threads = 2;
    assert_eq!(few.place(0, 5, false).millicores, 2_000);
    // A card's kernels use its memory, not the machine's.
    let mut card = means(4_000, Some(1));
    card.engine.device = Device::Cuda(0);
    card.hardware.cards =
        vec![selvedge_contract::Card { name: "A Card".to_owned(), memory: Some(3_000) }];
    let place = card.place(0, 5, false);
    assert_eq!((place.memory, place.bound.as_str()), (3_000, "the card's memory"));
}

#[test]
fn files_that_are_not_here_count_when_they_are_fetched_and_their_size_is_known() {
    let scratch = Scratch::new("variants");
    let store = Store::of(&Home::locate(Some(scratch.path())).unwrap());
    let wanted = wanted(&[
        ("hf:o/r/m.Q8_0.gguf", Some(8_500_000_000)),
        ("hf:o/r/m.Q4_K_M.gguf", Some(4_800_000_000)),
        ("hf:o/r/m.Q2_K.gguf", None),
        ("nonesuch", None),
    ]);
    let means = means(8_000_000_000, None);
    let none = decide_one(&store, &wanted, &means, 0, false);
    assert!(none.file().is_none());
    let told = none.told();
    assert_eq!(told.reason, "none of its files is here");
    assert!(told.variants[0].why.contains("selvedge models pull assistant"), "{told:?}");
    assert!(told.variants[2].why.contains("'bytes'"), "{told:?}");
    assert_eq!(lines(&told)[0], "assistant is not served: none of its files is here");

    let fetched = decide_one(&store, &wanted, &means, 0, true);
    assert_eq!(fetched.file().unwrap().listed, "hf:o/r/m.Q4_K_M.gguf");
    let told = fetched.told();
    assert_eq!(told.variants[0].why, "needs 3.0 GB more memory");
    assert!(told.reason.starts_with("Q4_K takes 6.2 GB of 8.0 GB"), "{told:?}");
    assert_eq!(lines(&told).len(), 4);
    // Beside others there is less room.
    assert!(decide_one(&store, &wanted, &means, 7_000_000_000, true).file().is_none());
}

#[test]
fn a_file_that_is_no_model_is_said_so_and_not_chosen() {
    let scratch = Scratch::new("variants-bad");
    let path = scratch.path().join("bad.Q8_0.gguf");
    std::fs::write(&path, b"GGUF and then nothing of the kind").unwrap();
    let store = Store::of(&Home::locate(Some(scratch.path())).unwrap());
    let wanted = wanted(&[(path.to_str().unwrap(), Some(5))]);
    for may_fetch in [false, true] {
        let decided = decide_one(&store, &wanted, &means(1 << 30, None), 0, may_fetch);
        assert!(decided.file().is_none());
        assert!(!decided.told().variants[0].why.contains("pull"), "{:?}", decided.told());
    }
}

#[test]
fn types_are_known_by_the_names_of_files() {
    let tenths = |name: &str| {
        let seen = unseen(name, Some(1_000_000));
        seen.file_bytes * 80 / seen.weights
    };
    assert_eq!(tenths("x-BF16.gguf"), 160);
    assert_eq!(tenths("hf:o/r/model.q5_k_m.gguf"), 57);
    assert_eq!(tenths("model.Q4_0.gguf"), 45);
    let unsized_one = unseen("model.F16.gguf", None);
    assert!(unsized_one.needs() > 1 << 60 && !unsized_one.present);
    // What is rounded when it is loaded takes no more than it does then.
    assert!(unseen("a.F32.gguf", Some(3_200_000)).held_bytes < 1_200_000);
}
