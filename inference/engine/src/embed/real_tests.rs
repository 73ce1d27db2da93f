//! Tests on all-MiniLM-L6-v2: they need its files, and say how to get them when they are missing.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use selvedge_kernels::{EncoderCrew, Isa};

use super::{Folder, Reader};

fn folder() -> Folder {
    let directory = std::env::var_os("SELVEDGE_TEST_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.models")),
        PathBuf::from,
    );
    let path = directory.join("all-minilm-l6-v2");
    assert!(path.is_dir(), "{} is missing: run `cargo xtask models`", path.display());
    Folder::open(&path).expect("reads")
}

/// Texts, their tokens and their vectors by a reference of its own (`make_minilm.py`).
fn cases() -> Vec<(String, u64, Vec<f64>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/minilm.json");
    let text = std::fs::read_to_string(path).expect("the fixture is in the repository");
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).expect("the fixture is JSON");
    let case = |case: serde_json::Value| {
        let vector = case["vector"].as_array().expect("a vector");
        let vector = vector.iter().map(|number| number.as_f64().expect("a number")).collect();
        let text = case["text"].as_str().expect("a text").to_owned();
        (text, case["tokens"].as_u64().expect("a count"), vector)
    };
    cases.into_iter().map(case).collect()
}

fn cosine(a: &[f32], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum();
    let length = |squares: f64| squares.sqrt();
    let a = length(a.iter().map(|a| f64::from(*a).powi(2)).sum());
    dot / a / length(b.iter().map(|b| b * b).sum())
}

#[test]
fn the_directory_says_what_it_is() {
    let folder = folder();
    let facts = folder.facts();
    assert_eq!((facts.architecture.as_str(), facts.quantization.as_str()), ("bert", "F32"));
    assert_eq!((facts.context_length, facts.dimensions, facts.chat), (256, Some(384), false));
    assert_eq!(facts.parameters, 22_713_216);
    assert!(folder.unit);
}

#[test]
fn vectors_are_those_of_the_reference_alone_and_together() {
    let (folder, cases) = (folder(), cases());
    assert!(cases.len() >= 16);
    let reader = Reader::load(&folder).expect("loads");
    let progress = AtomicU64::new(0);
    let tokens: Vec<Vec<u32>> =
        cases.iter().map(|(text, ..)| reader.tokens(text, true).expect("tokens")).collect();
    for ((text, count, _), tokens) in cases.iter().zip(&tokens) {
        assert_eq!(tokens.len() as u64, *count, "{text:?}");
    }
    let mut crew = EncoderCrew::new(2).expect("threads");
    let slices: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let together = reader.embed(&mut crew, &slices, &progress).expect("vectors");
    let mut single = EncoderCrew::with_isa(1, Isa::detect()).expect("threads");
    for ((text, _, exact), (tokens, vector)) in cases.iter().zip(slices.iter().zip(&together)) {
        let found = cosine(vector, exact);
        assert!(found > 0.999_999, "{text:?}: {found}");
        let worst = vector.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).abs());
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 5e-6, "{text:?}: {worst}");
        let alone = reader.embed(&mut single, &[tokens], &progress).expect("a vector");
        let bits = |vector: &[f32]| vector.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
        assert!(bits(&alone[0]) == bits(vector), "{text:?} differs in a batch");
    }
}

#[test]
fn what_is_too_long_is_cut_or_refused_as_asked() {
    let reader = Reader::load(&folder()).expect("loads");
    let long = "word ".repeat(300);
    assert_eq!(reader.tokens(&long, true).expect("cut").len(), 256);
    let refused = reader.tokens(&long, false).expect_err("too long");
    assert!(refused.message.contains("256 tokens"), "{refused}");
    let fits = "word ".repeat(254);
    assert_eq!(reader.tokens(&fits, false).expect("fits").len(), 256);
}
