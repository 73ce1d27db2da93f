use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use selvedge_base::{Micros, ModelDigest, RequestId};
use selvedge_contract::Engine;
use serde_json::{Value, json};

use super::super::Folder;
use super::super::folder::tests::{config, tiny};
use super::*;
use crate::testing::engine;
use crate::{EngineConfig, LocalEngine};

const MODEL: ModelDigest = ModelDigest([1; 32]);

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Texts, and the share of each class by a reference of its own (`make_classes.py`).
struct Case {
    text: String,
    labels: Vec<String>,
    shares: Vec<f64>,
}

fn cases(model: &str) -> Vec<Case> {
    let text = std::fs::read(fixtures().join("classes.json")).expect("a fixture");
    let cases: Vec<Value> = serde_json::from_slice(&text).expect("cases");
    let strings = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one.as_str().expect("a text").into())
            .collect()
    };
    cases
        .into_iter()
        .filter(|case| case["model"] == model)
        .map(|case| Case {
            text: case["text"].as_str().expect("a text").to_owned(),
            labels: strings(&case["labels"]),
            shares: serde_json::from_value(case["shares"].clone()).expect("numbers"),
        })
        .collect()
}

fn asked(texts: &[&str], outputs: &[&str]) -> InferRequest {
    let elements = texts.iter().map(|text| text.as_bytes());
    InferRequest {
        id: RequestId(1),
        model: MODEL,
        inputs: vec![Tensor::of_bytes("text", vec![texts.len() as u64], elements)],
        outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
        within: Micros::secs(60),
    }
}

/// A minute is far more than any test's texts take; it turns a hang into a failure.
fn told(engine: &LocalEngine, request: InferRequest) -> Result<Vec<Tensor>, Refusal> {
    let (sender, heard) = mpsc::channel();
    engine.infer(request, Box::new(move |end| drop(sender.send(end))))?;
    heard.recv_timeout(Duration::from_secs(60)).expect("an end")
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    let floats = tensor.data.as_chunks().0.iter();
    floats.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
}

#[test]
fn classes_are_those_of_the_reference_alone_and_in_a_batch() {
    for model in ["bert", "distil"] {
        let engine = engine(EngineConfig { threads: 1, ..EngineConfig::default() });
        let path = fixtures().join("classes").join(model);
        let card = engine.add_model(&path, model, MODEL).expect("a model");
        assert!(card.infers() && !card.embeds() && !card.writes());
        assert_eq!(engine.dimensions(MODEL), None);
        let cases = cases(model);
        let texts: Vec<&str> = cases.iter().map(|case| case.text.as_str()).collect();
        let batch = told(&engine, asked(&texts, &[])).expect("classes");
        let (all, width) = (floats(&batch[2]), cases[0].labels.len());
        let signature = engine.signature(MODEL).expect("one");
        assert_eq!(signature.outputs[2].shape, [-1, width as i64]);
        for (case, shares) in cases.iter().zip(all.chunks(width)) {
            for (got, wanted) in shares.iter().zip(&case.shares) {
                assert!((got - wanted).abs() < 1e-5, "{model} '{}': {got} {wanted}", case.text);
            }
            let alone = told(&engine, asked(&[&case.text], &["probabilities"])).expect("classes");
            assert_eq!(floats(&alone[0]), shares, "{model} '{}'", case.text);
        }
        // The likeliest first, under their names.
        let top = width.min(TOP);
        assert_eq!(
            (&batch[0].shape, &batch[1].shape),
            (&vec![6, top as u64], &vec![6, top as u64])
        );
        let names = batch[0].byte_elements().expect("whole");
        for (at, share) in floats(&batch[1]).into_iter().enumerate() {
            let (case, rank) = (&cases[at / top], at % top);
            let name = std::str::from_utf8(names[at]).expect("a text");
            let class = case.labels.iter().position(|label| label == name).expect("a label");
            assert!((share - case.shares[class]).abs() < 1e-5, "{name}");
            let above = case.shares.iter().filter(|other| **other > case.shares[class] + 1e-6);
            assert_eq!(above.count(), rank, "{name} of '{}'", case.text);
        }
    }
}

#[test]
fn what_is_no_text_is_refused() {
    let engine = engine(EngineConfig { threads: 1, ..EngineConfig::default() });
    engine.add_model(&fixtures().join("classes/bert"), "bert", MODEL).expect("a model");
    let mut odd = asked(&["a"], &[]);
    odd.inputs[0].data[4] = 0xff;
    for (request, says) in [
        (odd, "not UTF-8"),
        (asked(&[], &[]), "0 texts"),
        (asked(&["a"; MAX_TEXTS + 1], &[]), "2049 texts"),
        (asked(&["a"], &["embedding"]), "no output 'embedding'"),
    ] {
        let refusal = told(&engine, request).expect_err("must be refused");
        assert!(refusal.message.contains(says), "{refusal}");
    }
    assert!(engine.count_tokens(MODEL, &selvedge_contract::Input::Text("a".into())).is_err());
}

#[test]
fn heads_that_do_not_fit_are_refused_by_name() {
    let directory = tiny();
    let with = |more: Value| {
        let mut config = config();
        config["architectures"] = json!(["BertForSequenceClassification"]);
        config.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
        directory.write("config.json", config.to_string().as_bytes());
        let loaded = Folder::open(directory.path())
            .and_then(|folder| super::super::Reader::load(&folder).map(|_| ()));
        loaded.err().map(|error| error.to_string()).unwrap_or_default()
    };
    for (more, says) in [
        (json!({}), "'pooler.dense.weight' is missing"),
        (json!({"problem_type": "regression"}), "problem_type 'regression'"),
        (json!({"id2label": {"1": "a", "2": "b"}}), "does not count its classes from 0"),
        (json!({"id2label": {"0": "a"}}), "a single class"),
        (json!({"id2label": {}}), "0 classes"),
        (json!({"num_labels": 1_000_000}), "classes, not 1 to"),
        (json!({"id2label": {"0": "x".repeat(2_000), "1": "b"}}), "bytes"),
        (json!({"id2label": ["a", "b"]}), "config.json: id2label"),
        (json!({"model_type": "distilbert"}), "model_type"),
    ] {
        let said = with(more);
        assert!(said.contains(says), "{said} / {says}");
    }
}

#[test]
fn a_model_of_embeddings_is_one_whatever_it_says_of_heads_and_whatever_stands_beside_it() {
    let directory = tiny();
    for more in [
        json!({"architectures": null, "id2label": null, "num_labels": "two"}),
        json!({"architectures": "BertModel", "id2label": {"0": 0}, "problem_type": 1}),
    ] {
        let mut config = config();
        config.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
        directory.write("config.json", config.to_string().as_bytes());
        assert!(Folder::open(directory.path()).expect("reads").classes.is_none(), "{more}");
    }
    directory.write("model.onnx", &[8, 8]);
    assert!(crate::inspect(directory.path()).expect("reads").dimensions.is_some());
    directory.write("classify.toml", b"");
    assert!(crate::inspect(directory.path()).is_err(), "the other one is meant");
}

#[test]
fn names_of_tensors_are_translated() {
    let layer = "encoder.layer.3.attention.self.query.bias";
    assert_eq!(distil_name(layer), "transformer.layer.3.attention.q_lin.bias");
    assert_eq!(distil_name("embeddings.LayerNorm.weight"), "embeddings.LayerNorm.weight");
    let equal = vec![vec![0.5, 0.5]];
    let labels = vec!["b".to_owned(), "a".to_owned()];
    let told = super::told(&labels, &equal, &["label".to_owned()]);
    assert_eq!(told[0].byte_elements().expect("whole"), [b"b", b"a"], "of equal ones the first");
}
