//! Tiny models of transformers' making: what the node sees is what transformers sees
//! (`make_vision.py`).

use std::ops::ControlFlow;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use selvedge_kernels::EncoderCrew;
use serde_json::Value;

use super::{Folder, Seer};
use crate::testing::fixture;

pub(super) fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vision")
}

/// A model, a picture, and what the reference makes of both.
pub(super) struct Case {
    pub(super) model: String,
    pub(super) picture: String,
    all: Value,
}

impl Case {
    pub(super) fn bytes(&self) -> Vec<u8> {
        std::fs::read(fixtures().join(&self.picture)).expect("a picture")
    }

    pub(super) fn floats(&self, name: &str) -> Vec<f64> {
        serde_json::from_value(self.all[name].clone()).expect("numbers")
    }

    pub(super) fn texts(&self) -> Vec<String> {
        serde_json::from_value(self.all["texts"].clone()).expect("texts")
    }

    fn numbers(&self) -> Vec<f32> {
        let packed = self.all["numbers"].as_str().expect("a text");
        let bytes = STANDARD.decode(packed).expect("base64");
        bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// The picture as the reference sees it. JPEG's own arithmetic is not the same in all
    /// libraries: beside such a picture lie the points that the reference has of it.
    fn seen(&self) -> Vec<u8> {
        let name = self.picture.replace("jpg", "png");
        std::fs::read(fixtures().join(name)).expect("a picture")
    }
}

pub(super) fn cases() -> Vec<Case> {
    let all: Vec<Value> = serde_json::from_value(fixture("vision.json")).expect("a list");
    let text = |all: &Value, name: &str| all[name].as_str().expect("a text").to_owned();
    let case =
        |all: Value| Case { model: text(&all, "model"), picture: text(&all, "picture"), all };
    all.into_iter().map(case).collect()
}

fn seer(model: &str) -> Seer {
    Seer::load(&Folder::open(&fixtures().join(model)).expect("reads")).expect("loads")
}

fn apart<A: Copy + Into<f64>, B: Copy + Into<f64>>(got: &[A], wanted: &[B]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let apart = got.iter().zip(wanted).map(|(a, b)| ((*a).into() - (*b).into()).abs());
    apart.fold(0.0, f64::max)
}

fn greatest(all: &[f64]) -> Option<usize> {
    (0..all.len()).max_by(|a, b| all[*a].total_cmp(&all[*b]))
}

fn on() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_pictures_numbers_are_the_processors() {
    let cases = cases();
    assert_eq!(cases.len(), 24);
    for case in cases {
        let (seer, what) = (seer(&case.model), format!("{} {}", case.model, case.picture));
        let got = seer.numbers(&case.seen()).expect("a picture");
        let worst = apart(&got, &case.numbers());
        assert!(worst < 1e-5, "{what}: {worst}");
        let own = seer.numbers(&case.bytes()).expect("a picture");
        let worst = apart(&own, &got);
        // Of a JPEG a few steps of a byte; of others nothing is apart.
        assert!(worst < 0.1 && (worst == 0.0 || case.picture.ends_with("jpg")), "{what}: {worst}");
    }
}

#[test]
fn a_jpegs_points_are_near_those_of_the_reference() {
    let points = |name: &str| {
        let bytes = std::fs::read(fixtures().join(name)).expect("a picture");
        crate::pictures::read(&bytes, 1 << 20).expect("a picture").to_rgb8().into_raw()
    };
    let (own, reference) = (points("large.jpg"), points("large.png"));
    assert_eq!(own.len(), 120 * 90 * 3);
    let steps: Vec<f64> =
        own.iter().zip(&reference).map(|(a, b)| f64::from(a.abs_diff(*b))).collect();
    let mean = steps.iter().sum::<f64>() / steps.len() as f64;
    let most = steps.into_iter().fold(0.0, f64::max);
    // The transform and the colours are each rounded otherwise.
    assert!(most <= 8.0 && mean <= 1.0, "{most} of 255, {mean} in the mean");
}

#[test]
fn classes_are_those_of_the_reference() {
    let mut crew = EncoderCrew::new(2).expect("threads");
    let told = cases().into_iter().filter(|case| case.model.starts_with("vit"));
    for case in told {
        let seen = seer(&case.model).see(&mut crew, (0, &case.seen()), &mut on);
        let shares = seen.expect("sees").expect("not given up");
        let what = format!("{} {}", case.model, case.picture);
        let (wanted, logits) = (case.floats("shares"), case.floats("logits"));
        let shares: Vec<f64> = shares.into_iter().map(f64::from).collect();
        assert!(apart(&shares, &wanted) < 1e-5, "{what}: {shares:?} {wanted:?}");
        assert_eq!(greatest(&shares), greatest(&wanted), "{what}");
        // Shares of one tell logits but for what is added to all of them.
        let several = case.model == "vit-several";
        let logit = |share: &f64| if several { -(1.0 / share - 1.0).ln() } else { share.ln() };
        let got: Vec<f64> = shares.iter().map(logit).collect();
        let shift = if several { 0.0 } else { got[0] - logits[0] };
        let got: Vec<f64> = got.iter().map(|logit| logit - shift).collect();
        let worst = apart(&got, &logits);
        assert!(worst < 1e-4, "{what}: {worst}");
    }
}

#[test]
fn pictures_are_compared_with_texts_as_by_the_reference() {
    let mut crew = EncoderCrew::new(2).expect("threads");
    for case in cases().into_iter().filter(|case| case.model.starts_with("clip")) {
        let (seer, what) = (seer(&case.model), format!("{} {}", case.model, case.picture));
        let picture = seer.see(&mut crew, (0, &case.seen()), &mut on);
        let picture = picture.expect("sees").expect("not given up");
        let worst = apart(&picture, &case.floats("picture_vector"));
        assert!(worst < 1e-5, "{what}: {worst}");
        let texts = case.texts();
        let tokens: Vec<Vec<u32>> =
            texts.iter().map(|text| seer.tokens(text, false).expect("tokens")).collect();
        let counts: Vec<f64> = tokens.iter().map(|tokens| tokens.len() as f64).collect();
        assert_eq!(counts, case.floats("tokens"));
        let read = seer.read(&mut crew, &tokens, &mut on).expect("reads").expect("not given up");
        let wanted: Vec<Vec<f64>> =
            serde_json::from_value(case.all["text_vectors"].clone()).expect("vectors");
        for ((got, wanted), text) in read.iter().zip(&wanted).zip(&texts) {
            let worst = apart(got, wanted);
            assert!(worst < 1e-5, "{what} '{text}': {worst}");
        }
        let told = seer.told((&texts, &[]), &[picture], &read).expect("tensors");
        let names: Vec<&str> = told.iter().map(|tensor| tensor.name.as_str()).collect();
        let all = ["label", "probability", "probabilities", "embedding", "text_embedding"];
        assert_eq!(names, all);
        let shares: Vec<f64> = told[2]
            .data
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
            .collect();
        let (wanted, logits) = (case.floats("shares"), case.floats("logits"));
        assert!(apart(&shares, &wanted) < 1e-4, "{what}: {shares:?} {wanted:?}");
        assert_eq!(greatest(&shares), greatest(&wanted), "{what}");
        let shift = shares[0].ln() - logits[0];
        let got: Vec<f64> = shares.iter().map(|share| share.ln() - shift).collect();
        let worst = apart(&got, &logits);
        assert!(worst < 1e-4, "{what}: {worst}");
    }
}
