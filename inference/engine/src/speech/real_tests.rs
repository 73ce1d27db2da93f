//! Tests on Whisper tiny.en: they need its files, and say how to get them when they are missing.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use selvedge_base::{ModelDigest, RequestId};
use selvedge_contract::{Engine, SpeechRequest, SpeechTask, Transcript};
use serde_json::Value;

use super::spectrum::Spectrum;
use crate::testing::engine;
use crate::{EngineConfig, LocalEngine, samples};

const MODEL: ModelDigest = ModelDigest([1; 32]);

fn place(name: &str) -> PathBuf {
    let directory = std::env::var_os("SELVEDGE_TEST_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.models")),
        PathBuf::from,
    );
    let path = directory.join(name);
    assert!(path.exists(), "{} is missing: run `cargo xtask models`", path.display());
    path
}

/// What the reference hears (`make_speech.py`).
fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/speech.json");
    let text = std::fs::read_to_string(path).expect("the fixture is in the repository");
    serde_json::from_str(&text).expect("the fixture is JSON")
}

fn clip() -> Vec<i16> {
    let file = std::fs::read(place("clips/beckett.wav")).expect("reads");
    samples(&file).expect("samples")
}

fn heard(engine: &LocalEngine, id: u128, prompt: &str, sound: Vec<i16>) -> Transcript {
    let request = SpeechRequest {
        id: RequestId(id),
        model: MODEL,
        task: SpeechTask::Transcribe,
        language: None,
        prompt: prompt.to_owned(),
        temperature_milli: 0,
        seed: 1,
    };
    let (sender, told) = mpsc::channel();
    let sink = Box::new(move |end| drop(sender.send(end)));
    engine.hear(request, Arc::new(sound), sink).expect("queued");
    told.recv_timeout(Duration::from_secs(300)).expect("an end").expect("a transcript")
}

#[test]
fn what_is_heard_is_what_the_reference_hears() {
    let engine = engine(EngineConfig::default());
    engine.add_model(&place("whisper-tiny.en"), "whisper-tiny.en", MODEL).expect("a model");
    let (fixture, clip) = (fixture(), clip());
    for (at, case) in fixture["cases"].as_array().expect("cases").iter().enumerate() {
        let mut sound = clip.clone();
        if let Some(silence) = case["silence"].as_u64() {
            sound.resize(sound.len() + silence as usize, 0);
            sound.extend_from_slice(&clip);
        }
        let prompt = case["initial_prompt"].as_str().unwrap_or_default();
        let found = heard(&engine, at as u128, prompt, sound);
        let expected = case["segments"].as_array().expect("segments");
        assert_eq!(found.segments.len(), expected.len(), "{at}: {found:?}");
        for (found, expected) in found.segments.iter().zip(expected) {
            assert_eq!(Some(found.text.as_str()), expected["text"].as_str(), "{at}");
            let tokens: Vec<u64> = found.tokens.iter().map(|token| u64::from(*token)).collect();
            let theirs = expected["tokens"].as_array().expect("tokens");
            assert_eq!(tokens, theirs.iter().filter_map(Value::as_u64).collect::<Vec<_>>());
            let times = (Some(u64::from(found.start_ms)), Some(u64::from(found.end_ms)));
            assert_eq!(times, (expected["start"].as_u64(), expected["end"].as_u64()), "{at}");
            for (field, found, near) in [
                ("mean_logprob", found.mean_logprob, 2e-3),
                ("compression", found.compression, 0.05),
                ("silence", found.silence, 2e-3),
            ] {
                let theirs = expected[field].as_f64().expect("a number") as f32;
                assert!((found - theirs).abs() < near, "{at} {field}: {found} {theirs}");
            }
        }
    }
}

#[test]
fn the_spectrum_is_the_reference_s() {
    let (fixture, clip, spectrum) = (fixture(), clip(), Spectrum::new(80));
    let rows = Spectrum::rows(clip.len());
    let loudest = spectrum.loudest(&clip, 0, rows + 2);
    let mut window = vec![0.0; rows * 80];
    spectrum.window(&clip, (0, rows), loudest, &mut window);
    for (row, expected) in fixture["spectrum"].as_object().expect("rows") {
        let row: usize = row.parse().expect("a row");
        let expected = expected.as_array().expect("values");
        assert_eq!(expected.len(), 80);
        for (found, expected) in window[row * 80..].iter().zip(expected) {
            let expected = expected.as_f64().expect("a number") as f32 / 1_000.0;
            assert!((found - expected).abs() < 2e-3, "row {row}: {found} {expected}");
        }
    }
}
