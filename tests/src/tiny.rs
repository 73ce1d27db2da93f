//! A model small enough that five nodes on two cores answer hundreds of requests a minute.
//!
//! Owns a GGUF file of a llama with random weights and one token for each byte. It answers
//! nonsense. At temperature 0 it is always the same and never ends by itself: an answer to a
//! prompt of `p` bytes with `max_tokens` of `m` costs exactly `p + m` tokens, and a begin mark
//! where one is added. Drawn at random, one token in some hundreds is the mark of the end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use selvedge_base::Dice;

/// The name under which it is offered.
pub const TINY: &str = "tiny";

/// Writes a copy beside a model, of the same weights under another name. A model is its digest:
/// with some bytes behind the weights it is another one.
///
/// # Errors
/// When a file cannot be read or written.
pub fn twin(model: &Path, name: &str) -> Result<PathBuf> {
    let mut bytes = fs::read(model).with_context(|| model.display().to_string())?;
    bytes.extend([0; 32]);
    let path = model.with_file_name(format!("{name}.gguf"));
    fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Writes the same model with another chat template, under another name.
///
/// # Errors
/// When the file cannot be written.
pub fn with_template(dir: &Path, name: &str, template: &str) -> Result<PathBuf> {
    let path = dir.join(format!("{name}.gguf"));
    fs::create_dir_all(dir)?;
    fs::write(&path, file(template, FORWARD)).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Writes one whose weights take some eleven million bytes of a node's memory: one of them fits
/// the least memory that a node may be given, two do not.
///
/// # Errors
/// When the file cannot be written.
pub fn wide(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(format!("{name}.gguf"));
    fs::create_dir_all(dir)?;
    fs::write(&path, file(TEMPLATE, WIDE)).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Sizes of the layers: the smallest that exercise grouped attention.
const WIDTH: u64 = 32;
const FORWARD: u64 = 64;
/// The same of the wide one: nine million weights in all.
const WIDE: u64 = 49_152;
const LAYERS: u32 = 2;
/// What it makes of a chat.
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}";
/// One token for each byte, and the two marks.
const VOCABULARY: u64 = 258;
const BEGIN: u32 = 256;
const END: u32 = 257;
/// Long enough for the longest prompt a test of budgets sends.
const CONTEXT: u32 = 4_096;
/// Bytes a tensor's data is aligned to in a GGUF file.
const ALIGNMENT: usize = 32;

/// Types of metadata values, by the numbers of the format.
const UINT32: u32 = 4;
const FLOAT32: u32 = 6;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Writes the model into a directory.
///
/// # Errors
/// When the file cannot be written.
pub fn write(dir: &Path) -> Result<PathBuf> {
    let path = dir.join(format!("{TINY}.gguf"));
    fs::create_dir_all(dir)?;
    let bytes = file(TEMPLATE, FORWARD);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[derive(Default)]
struct Gguf {
    entries: u64,
    metadata: Vec<u8>,
    tensors: Vec<(String, Vec<u64>, Vec<f32>)>,
}

fn file(template: &str, forward: u64) -> Vec<u8> {
    let mut gguf = Gguf::default();
    gguf.text("general.architecture", "llama");
    for (key, value) in [
        ("block_count", LAYERS),
        ("context_length", CONTEXT),
        ("embedding_length", WIDTH as u32),
        ("feed_forward_length", forward as u32),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ] {
        gguf.number(&format!("llama.{key}"), value);
    }
    let epsilon = 1e-5f32.to_le_bytes();
    gguf.entry("llama.attention.layer_norm_rms_epsilon", FLOAT32, &epsilon);
    gguf.text("tokenizer.ggml.model", "gpt2");
    gguf.text("tokenizer.ggml.pre", "gpt-2");
    gguf.vocabulary();
    gguf.text("tokenizer.chat_template", template);
    gguf.weights(forward);
    gguf.bytes()
}

impl Gguf {
    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.entries += 1;
        push_text(&mut self.metadata, key);
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend(value);
    }

    fn text(&mut self, key: &str, text: &str) {
        let mut value = Vec::new();
        push_text(&mut value, text);
        self.entry(key, STRING, &value);
    }

    fn number(&mut self, key: &str, number: u32) {
        self.entry(key, UINT32, &number.to_le_bytes());
    }

    fn array(&mut self, key: &str, kind: u32, count: u64, values: &[u8]) {
        let mut value = kind.to_le_bytes().to_vec();
        value.extend(count.to_le_bytes());
        value.extend(values);
        self.entry(key, ARRAY, &value);
    }

    fn vocabulary(&mut self) {
        let mut names = Vec::new();
        (0..256).for_each(|byte| push_text(&mut names, &letter(byte).to_string()));
        ["<|im_start|>", "<|im_end|>"].iter().for_each(|mark| push_text(&mut names, mark));
        // Bytes are normal tokens, the marks are control tokens.
        let kind = |id: u64| if id < 256 { 1u32 } else { 3 };
        let kinds: Vec<u8> = (0..VOCABULARY).flat_map(|id| kind(id).to_le_bytes()).collect();
        self.array("tokenizer.ggml.tokens", STRING, VOCABULARY, &names);
        self.array("tokenizer.ggml.merges", STRING, 0, &[]);
        self.array("tokenizer.ggml.token_type", UINT32, VOCABULARY, &kinds);
        self.number("tokenizer.ggml.bos_token_id", BEGIN);
        self.number("tokenizer.ggml.eos_token_id", END);
    }

    fn weights(&mut self, forward: u64) {
        let mut dice = Dice::keyed(1, "tiny model");
        self.tensor(&mut dice, "token_embd.weight", &[WIDTH, VOCABULARY]);
        self.tensor(&mut dice, "output.weight", &[WIDTH, VOCABULARY]);
        // Only small letters are ever likely: the others' logits are always zero.
        if let Some((_, _, rows)) = self.tensors.last_mut() {
            let width = WIDTH as usize;
            for (token, row) in rows.chunks_mut(width).enumerate() {
                if !(usize::from(b'a')..=usize::from(b'z')).contains(&token) {
                    row.fill(0.0);
                }
            }
        }
        self.tensor(&mut dice, "output_norm.weight", &[WIDTH]);
        for layer in 0..LAYERS {
            for (name, dims) in [
                ("attn_norm", vec![WIDTH]),
                ("attn_q", vec![WIDTH, WIDTH]),
                ("attn_k", vec![WIDTH, WIDTH / 2]),
                ("attn_v", vec![WIDTH, WIDTH / 2]),
                ("attn_output", vec![WIDTH, WIDTH]),
                ("ffn_norm", vec![WIDTH]),
                ("ffn_gate", vec![WIDTH, forward]),
                ("ffn_up", vec![WIDTH, forward]),
                ("ffn_down", vec![forward, WIDTH]),
            ] {
                self.tensor(&mut dice, &format!("blk.{layer}.{name}.weight"), &dims);
            }
        }
    }

    /// Random weights; those of norms are about one, so that values neither vanish nor explode.
    fn tensor(&mut self, dice: &mut Dice, name: &str, dims: &[u64]) {
        let middle = if dims.len() == 1 { 0.5 } else { -0.5 };
        let count = dims.iter().product::<u64>();
        let values = (0..count).map(|_| dice.unit_f32() + middle).collect();
        self.tensors.push((name.to_owned(), dims.to_vec(), values));
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.entries.to_le_bytes());
        bytes.extend(&self.metadata);
        let mut data: Vec<u8> = Vec::new();
        for (name, dims, values) in &self.tensors {
            push_text(&mut bytes, name);
            bytes.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
            // Type 0 is f32.
            bytes.extend(0u32.to_le_bytes());
            bytes.extend((data.len() as u64).to_le_bytes());
            values.iter().for_each(|value| data.extend(value.to_le_bytes()));
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.extend(data);
        bytes
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// GPT-2's letter for a byte.
fn letter(byte: u32) -> char {
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte,
        0..=0x20 => 0x100 + byte,
        0x7f..=0xa0 => 0x121 + byte - 0x7f,
        _ => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_what_its_header_promises() {
        let bytes = file(TEMPLATE, FORWARD);
        assert_eq!(&bytes[..4], b"GGUF");
        let count = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((count(8), count(16)), (3 + 9 * u64::from(LAYERS), 16));
        // All of a tensor's values, each tensor aligned.
        let weights = |dims: &[u64]| dims.iter().product::<u64>() * 4;
        let table = weights(&[WIDTH, VOCABULARY]);
        assert!(bytes.len() as u64 > 2 * table && bytes.len() < 300_000, "{}", bytes.len());
    }
}
