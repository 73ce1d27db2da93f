//! A tiny model that hears, for tests: a window of it is a second.

use selvedge_base::Dice;
use selvedge_kernels::SpeechConfig;
use serde_json::{Value, json};

use crate::testing::Directory;

/// Tokens of letters, then the marks.
pub(super) const LETTERS: [&str; 10] = ["\u{120}", "a", "b", "c", "d", "e", "f", "g", "h", "i"];
const MARKS: [&str; 10] = [
    "endoftext",
    "startoftranscript",
    "en",
    "de",
    "translate",
    "transcribe",
    "startoflm",
    "startofprev",
    "nospeech",
    "notimestamps",
];
/// The first token of a time.
pub(super) const FIRST_TIME: u32 = 20;

pub(super) fn config() -> Value {
    json!({
        "model_type": "whisper", "activation_function": "gelu", "d_model": 32,
        "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
        "num_mel_bins": 8, "max_source_positions": 50, "max_target_positions": 40,
        "vocab_size": 71
    })
}

pub(super) fn tokenizer() -> Value {
    let letters = LETTERS.iter().enumerate().map(|(at, word)| ((*word).to_owned(), json!(at)));
    let mark = |(at, name): (usize, &&str)| {
        json!({"id": LETTERS.len() + at, "content": format!("<|{name}|>"), "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
    };
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    json!({
        "version": "1.0",
        "added_tokens": MARKS.iter().enumerate().map(mark).collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "merges": [],
            "vocab": letters.collect::<serde_json::Map<_, _>>()}
    })
}

/// The names and shapes of the tensors, as the kernels ask for them.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    let config = SpeechConfig {
        bands: 8,
        frames: 50,
        width: 32,
        heads: [2, 2],
        layers: [1, 1],
        feed_forward: [48, 48],
        vocabulary: 71,
        positions: 40,
    };
    let loaded = selvedge_kernels::Speech::load(config, &mut |name, dims| {
        shapes.push((format!("model.{name}"), dims.to_vec()));
        Ok(vec![0.0; dims.iter().product()])
    });
    assert!(loaded.is_ok());
    shapes
}

/// A file of weights that follow from a seed.
pub(super) fn weights(seed: u64) -> Vec<u8> {
    let (mut header, mut data, mut dice) = (json!({}), Vec::new(), Dice::keyed(seed, "whisper"));
    for (name, shape) in shapes() {
        let start = data.len();
        let gain = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        for _ in 0..shape.iter().product::<usize>() {
            let number = gain + (dice.below(2_001) as f32 - 1_000.0) / 2_000.0;
            data.extend(number.to_le_bytes());
        }
        header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
    }
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// The tiny model's directory; it knows two languages, or English only.
pub(super) fn tiny(multilingual: bool) -> Directory {
    let directory = Directory::new();
    let writing = json!({"is_multilingual": multilingual, "suppress_tokens": [9],
        "begin_suppress_tokens": [0, 10]});
    directory.write("config.json", config().to_string().as_bytes());
    directory.write("generation_config.json", writing.to_string().as_bytes());
    directory.write("tokenizer.json", tokenizer().to_string().as_bytes());
    directory.write("model.safetensors", &weights(1));
    directory
}

/// So many seconds of a tone that rises.
pub(super) fn tone(seconds: f32) -> Vec<i16> {
    let sample = |at: usize| {
        let time = at as f32 / 16_000.0;
        ((time * (900.0 + 300.0 * time)).sin() * 9_000.0) as i16
    };
    (0..(seconds * 16_000.0) as usize).map(sample).collect()
}
