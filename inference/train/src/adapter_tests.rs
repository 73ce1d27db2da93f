#![allow(clippy::unwrap_used)]

use super::*;
use crate::{BaseShape, Layer, Model, Schema, Shape, Target};

fn adapter() -> Adapter {
    let shape = BaseShape { layers: 2, width: 6, queries: 8, keys: 4, feed_forward: 10 };
    let targets = vec![Target::Q, Target::V, Target::Down];
    let (base, digest) = ("small".to_owned(), [3; 32]);
    let tuning = Tuning { base, digest, shape, rank: 2, alpha: 4, targets, window: 16, seed: 9 };
    let weights = (0..tuning.size().unwrap()).map(|at| at as f32 / 8.0).collect();
    let notes = BTreeMap::from([("job".to_owned(), "letters".to_owned())]);
    Adapter { tuning, weights, notes }
}

fn refusal(bytes: &[u8]) -> String {
    Learned::from_bytes(bytes).unwrap_err().to_string()
}

#[test]
fn an_adapter_is_read_as_it_was_written() {
    let adapter = adapter();
    let bytes = adapter.to_bytes().unwrap();
    assert_eq!(Learned::from_bytes(&bytes).unwrap(), Learned::Adapter(adapter.clone()));
    assert_eq!(bytes, adapter.to_bytes().unwrap(), "the same bytes each time");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let again = safetensors::serialize(tensors.iter(), header.metadata().clone()).unwrap();
    assert_eq!(Learned::from_bytes(&again).unwrap(), Learned::Adapter(adapter));
}

/// The names, shapes and numbers that PEFT looks for.
#[test]
fn other_programs_find_what_they_look_for() {
    let adapter = adapter();
    let bytes = adapter.to_bytes().unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let layer = "base_model.model.model.layers.1";
    let shape = |name: &str| tensors.tensor(&format!("{layer}.{name}")).unwrap().shape().to_vec();
    assert_eq!(shape("self_attn.q_proj.lora_A.weight"), [2, 6]);
    assert_eq!(shape("self_attn.q_proj.lora_B.weight"), [8, 2]);
    assert_eq!(shape("self_attn.v_proj.lora_B.weight"), [4, 2]);
    assert_eq!(shape("mlp.down_proj.lora_A.weight"), [2, 10]);
    assert_eq!(tensors.len(), 12);
    let first: Vec<u8> = adapter.weights[..16].iter().flat_map(|b| b.to_le_bytes()).collect();
    let held =
        tensors.tensor("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight").unwrap();
    assert_eq!(held.data(), first);
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let notes = header.metadata().clone().unwrap();
    assert_eq!((notes["r"].as_str(), notes["lora_alpha"].as_str()), ("2", "4"));
    let config: serde_json::Value = serde_json::from_str(&adapter.tuning.peft_config()).unwrap();
    assert_eq!(config["target_modules"], serde_json::json!(["q_proj", "v_proj", "down_proj"]));
    assert_eq!((config["peft_type"].as_str(), config["r"].as_u64()), (Some("LORA"), Some(2)));
}

#[test]
fn both_kinds_of_files_are_told_apart() {
    let schema = Schema { shape: Shape::Flat(2), classes: 2 };
    let model = Model { schema, hidden: vec![Layer::Dense(3)] };
    let weights = model.first(1).unwrap();
    let saved = Saved { model, weights, notes: BTreeMap::new() };
    let read = Learned::from_bytes(&saved.to_bytes().unwrap()).unwrap();
    assert_eq!(read, Learned::Model(saved));
    assert!(refusal(b"").contains("no whole safetensors file"));
    assert!(refusal(&[0xff; 64]).contains("header"));
}

#[test]
fn what_is_another_adapter_is_refused() {
    let good = adapter();
    let said = |spoil: &dyn Fn(&mut Adapter)| {
        let mut adapter = good.clone();
        spoil(&mut adapter);
        adapter.to_bytes().unwrap_err().to_string()
    };
    assert!(said(&|one| one.weights.truncate(3)).starts_with("3 weights"));
    assert!(said(&|one| one.weights[1] = f32::INFINITY).contains("weight 1 is not"));
    assert!(said(&|one| drop(one.notes.insert("r".to_owned(), String::new()))).contains("'r'"));
    let mut bytes = good.to_bytes().unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(refusal(&bytes).contains("no A is ever learned"), "{}", refusal(&bytes));
    let spoilt = |from: &str, to: &str| {
        let mut bytes = good.to_bytes().unwrap();
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        refusal(&bytes)
    };
    assert!(spoilt("\"selvedge_adapter\":\"1\"", "\"selvedge_adapter\":\"2\"").contains("'2'"));
    assert!(spoilt("\\\"seed\\\":9", "\\\"seed\\\":8").contains("no A is ever learned"));
    assert!(spoilt("\\\"rank\\\":2", "\\\"rank\\\":3").contains("must be F32"));
    assert!(spoilt("lora_A", "lora_C").contains("is not there"));
}
