//! Tiny models of all families, of weights that follow from their tensors' names, and what
//! transformers computes with them (`tests/fixtures/make_families.py`).

use serde_json::Value;

use super::{Writer, fixture};

/// A model and its reference.
pub(crate) struct Family {
    pub(crate) writer: Writer,
    /// Its tensors: GGUF's names, Hugging Face's, and the sides, outermost first.
    pub(crate) tensors: Vec<(String, String, Vec<usize>)>,
    /// What its `config.json` says, in the older words and in the newer ones, where directories of
    /// it are turned into files.
    pub(crate) configs: Vec<Value>,
    pub(crate) tokens: Vec<u32>,
    /// After each token.
    pub(crate) logits: Vec<Vec<f32>>,
}

impl Family {
    /// All that there are.
    pub(crate) const NAMES: [&str; 8] =
        ["gemma3", "phi3", "phi3-long", "llama", "llama-tied", "llama-scaled", "qwen2", "qwen3"];

    pub(crate) fn read(name: &str) -> Self {
        let all = fixture("families.json");
        let said = &all[name];
        let numbers = |value: &Value| -> Vec<f32> {
            let list = value.as_array().expect("a list").iter();
            list.map(|number| number.as_f64().expect("a number") as f32).collect()
        };
        let tokens = numbers(&all["tokens"]).into_iter().map(|token| token as u32).collect();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let mut writer = Writer::default();
        writer.text("general.architecture", name.split('-').next().expect("a family"));
        for (key, value) in said["facts"].as_object().expect("facts") {
            match value {
                Value::Number(number) if number.is_f64() => {
                    writer.real(key, number.as_f64().expect("a number") as f32);
                }
                Value::Number(number) => writer.number(key, number.as_u64().expect("whole") as u32),
                other => writer.text(key, other.as_str().expect("a text")),
            }
        }
        let mut tensors = Vec::new();
        for tensor in said["tensors"].as_array().expect("tensors") {
            let sides = numbers(&tensor[2]).into_iter().map(|side| side as usize);
            tensors.push((text(&tensor[0]), text(&tensor[1]), sides.collect::<Vec<_>>()));
        }
        for (name, _, sides) in &tensors {
            let values = drawn(name, sides.iter().product());
            writer.put(name, sides.iter().rev().map(|side| *side as u64).collect(), values);
        }
        for (name, values) in said["vectors"].as_object().expect("vectors") {
            let values = numbers(values);
            writer.put(name, vec![values.len() as u64], values);
        }
        let configs = said["config"].as_array().expect("configurations").clone();
        let logits = said["logits"].as_array().expect("logits").iter().map(numbers).collect();
        Self { writer, tensors, configs, tokens, logits }
    }
}

/// Numbers from -0.5 to 0.5, in norms about one: splitmix64 from the name's FNV-1a hash.
pub(crate) fn drawn(name: &str, count: usize) -> Vec<f32> {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let middle = if name.contains("norm") { 1.0 } else { 0.0 };
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 40) as f32 / (1 << 24) as f32 - 0.5 + middle
    };
    (0..count).map(|_| next()).collect()
}
