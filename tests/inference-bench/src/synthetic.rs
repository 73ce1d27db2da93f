//! A model file of random weights in the shape and the types of a published one, for speed only.
//!
//! Owns the file: written once, seeded, so that it is the same everywhere. The shape is that of
//! Qwen2.5 0.5B, the types are those llama.cpp's quantizer gives its Q4_K_M: most rows are not a
//! multiple of 256 long, so that most of it is Q5_0 and Q8_0.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use selvedge_base::Dice;

use crate::place;

/// Where the file lies, and what a token reads of it.
pub(crate) struct Made {
    pub(crate) path: PathBuf,
    pub(crate) step_bytes: u64,
    /// Weights of all layers.
    pub(crate) weights: u64,
}

/// The published model's width, inner width, layers, heads and tokens.
const SHAPE: Shape =
    Shape { width: 896, inner: 4_864, layers: 24, heads: 14, kv_heads: 2, vocabulary: 151_936 };
/// Tokens it can attend to: enough for the longest prompt that is measured.
const CONTEXT: u32 = 4_096;
/// The first version of the format that this writes (GGUF specification).
const GGUF_VERSION: u32 = 3;
/// Where tensors begin, unless a file says otherwise (GGUF specification).
const ALIGNMENT: u64 = 32;
/// The token that ends an answer; its row of the head is zero, so that it is never the likeliest.
const END: u32 = 256;
/// Types of tokens (GGUF specification).
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

struct Shape {
    width: u64,
    inner: u64,
    layers: u32,
    heads: u32,
    kv_heads: u32,
    vocabulary: u64,
}

/// How a tensor's weights are stored (ggml's numbers and layouts).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F32,
    Q5_0,
    Q8_0,
    Q4K,
    Q6K,
}

struct Tensor {
    name: String,
    rows: u64,
    columns: u64,
    kind: Kind,
}

impl Kind {
    /// ggml's number.
    fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Q5_0 => 6,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
        }
    }

    /// Weights of a block and its bytes.
    fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::Q5_0 => (32, 22),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q6K => (256, 210),
        }
    }

    /// Where a block has its scales in half precision, and what they are for weights of some 0.02
    /// in the mean: as the bits of the nearest half.
    fn scales(self) -> Vec<(usize, u16)> {
        match self {
            Self::F32 => Vec::new(),
            Self::Q5_0 => vec![(0, half(1.0 / 512.0))],
            Self::Q8_0 => vec![(0, half(1.0 / 4_096.0))],
            // The minima take away what the codes have in the mean.
            Self::Q4K => vec![(0, half(1.0 / 8_192.0)), (2, half(1.0 / 1_024.0))],
            Self::Q6K => vec![(208, half(1.0 / 16_384.0))],
        }
    }
}

impl Tensor {
    fn bytes(&self) -> u64 {
        let (weights, bytes) = self.kind.block();
        self.rows * self.columns / weights * bytes
    }
}

/// The file, written if it is not there.
pub(crate) fn file() -> Result<Made> {
    let folder = place::folder()?;
    let tensors = tensors(&SHAPE);
    // A token reads one row of the table of embeddings and everything else whole.
    let read = tensors.iter().filter(|tensor| tensor.name != "token_embd.weight");
    let step_bytes = read.map(Tensor::bytes).sum();
    let layers = tensors.iter().filter(|tensor| tensor.rows > 1 && tensor.name.starts_with("blk."));
    let weights = layers.map(|tensor| tensor.rows * tensor.columns).sum();
    let path = folder.join("synthetic-0.5b.gguf");
    // A file of another length is one of another version of this writer.
    if fs::metadata(&path).map_or(0, |found| found.len()) != length(&SHAPE, &tensors) {
        let part = folder.join("synthetic-0.5b.part");
        write(&part, &SHAPE, &tensors).with_context(|| format!("writing {}", part.display()))?;
        fs::rename(&part, &path)?;
    }
    Ok(Made { path, step_bytes, weights })
}

fn tensors(shape: &Shape) -> Vec<Tensor> {
    let head = shape.width / u64::from(shape.heads);
    let kv = head * u64::from(shape.kv_heads);
    let tensor = |name: String, rows, columns, kind| Tensor { name, rows, columns, kind };
    let mut all = vec![
        tensor("token_embd.weight".to_owned(), shape.vocabulary, shape.width, Kind::Q5_0),
        tensor("output.weight".to_owned(), shape.vocabulary, shape.width, Kind::Q8_0),
        tensor("output_norm.weight".to_owned(), 1, shape.width, Kind::F32),
    ];
    for layer in 0..shape.layers {
        // The quantizer gives every other layer's values and downward weights more bits.
        let more = layer % 2 == 0;
        let (value, down) = if more { (Kind::Q8_0, Kind::Q6K) } else { (Kind::Q5_0, Kind::Q4K) };
        for (name, rows, columns, kind) in [
            ("attn_norm.weight", 1, shape.width, Kind::F32),
            ("attn_q.weight", shape.width, shape.width, Kind::Q5_0),
            ("attn_q.bias", 1, shape.width, Kind::F32),
            ("attn_k.weight", kv, shape.width, Kind::Q5_0),
            ("attn_k.bias", 1, kv, Kind::F32),
            ("attn_v.weight", kv, shape.width, value),
            ("attn_v.bias", 1, kv, Kind::F32),
            ("attn_output.weight", shape.width, shape.width, Kind::Q5_0),
            ("ffn_norm.weight", 1, shape.width, Kind::F32),
            ("ffn_gate.weight", shape.inner, shape.width, Kind::Q5_0),
            ("ffn_up.weight", shape.inner, shape.width, Kind::Q5_0),
            ("ffn_down.weight", shape.width, shape.inner, down),
        ] {
            all.push(tensor(format!("blk.{layer}.{name}"), rows, columns, kind));
        }
    }
    all
}

fn write(path: &Path, shape: &Shape, tensors: &[Tensor]) -> Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let header = header(shape, tensors);
    out.write_all(&header)?;
    pad(&mut out, header.len() as u64)?;
    let mut dice = Dice::keyed(0, "synthetic weights");
    for tensor in tensors {
        let bytes = weights(tensor, &mut dice);
        out.write_all(&bytes)?;
        pad(&mut out, bytes.len() as u64)?;
    }
    Ok(out.flush()?)
}

/// Bytes of the whole file.
fn length(shape: &Shape, tensors: &[Tensor]) -> u64 {
    let header = header(shape, tensors).len() as u64;
    let padded = tensors.iter().map(|tensor| tensor.bytes().next_multiple_of(ALIGNMENT));
    header.next_multiple_of(ALIGNMENT) + padded.sum::<u64>()
}

fn pad(out: &mut impl Write, written: u64) -> Result<()> {
    let missing = written.next_multiple_of(ALIGNMENT) - written;
    Ok(out.write_all(&[0; ALIGNMENT as usize][..missing as usize])?)
}

fn header(shape: &Shape, tensors: &[Tensor]) -> Vec<u8> {
    let entries = entries(shape);
    let mut out = b"GGUF".to_vec();
    out.extend(GGUF_VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        text(&mut out, key);
        out.extend(value);
    }
    let mut offset = 0;
    for tensor in tensors {
        text(&mut out, &tensor.name);
        let plain = tensor.rows == 1;
        out.extend(if plain { 1_u32 } else { 2 }.to_le_bytes());
        out.extend(tensor.columns.to_le_bytes());
        if !plain {
            out.extend(tensor.rows.to_le_bytes());
        }
        out.extend(tensor.kind.number().to_le_bytes());
        out.extend(u64::to_le_bytes(offset));
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    out
}

/// Keys with their values as they are written, type first.
fn entries(shape: &Shape) -> Vec<(&'static str, Vec<u8>)> {
    let number = |value: u32| [4_u32.to_le_bytes(), value.to_le_bytes()].concat();
    let real = |value: f32| [6_u32.to_le_bytes(), value.to_le_bytes()].concat();
    let word = |value: &str| {
        let mut out = 8_u32.to_le_bytes().to_vec();
        text(&mut out, value);
        out
    };
    let list = |values: &[String]| {
        let mut out = [9_u32.to_le_bytes(), 8_u32.to_le_bytes()].concat();
        out.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| text(&mut out, value));
        out
    };
    let signed = |values: &[i32]| {
        let mut out = [9_u32.to_le_bytes(), 5_u32.to_le_bytes()].concat();
        out.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        out
    };
    let mut tokens: Vec<String> = (0..=255).map(|byte| alphabet(byte).to_string()).collect();
    tokens.push("<|endoftext|>".to_owned());
    tokens.push("th".to_owned());
    tokens.extend((tokens.len() as u64..shape.vocabulary).map(|id| format!("[filler {id}]")));
    let mut types = vec![NORMAL; tokens.len()];
    types[END as usize] = CONTROL;
    vec![
        ("general.architecture", word("qwen2")),
        ("general.name", word("synthetic 0.5B")),
        ("qwen2.block_count", number(shape.layers)),
        ("qwen2.context_length", number(CONTEXT)),
        ("qwen2.embedding_length", number(shape.width as u32)),
        ("qwen2.feed_forward_length", number(shape.inner as u32)),
        ("qwen2.attention.head_count", number(shape.heads)),
        ("qwen2.attention.head_count_kv", number(shape.kv_heads)),
        ("qwen2.attention.layer_norm_rms_epsilon", real(1e-6)),
        ("qwen2.rope.freq_base", real(1e6)),
        ("tokenizer.ggml.model", word("gpt2")),
        ("tokenizer.ggml.pre", word("qwen2")),
        ("tokenizer.ggml.tokens", list(&tokens)),
        ("tokenizer.ggml.token_type", signed(&types)),
        ("tokenizer.ggml.merges", list(&["t h".to_owned()])),
        ("tokenizer.ggml.bos_token_id", number(END)),
        ("tokenizer.ggml.eos_token_id", number(END)),
    ]
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The letter that stands for a byte in a byte-level vocabulary (GPT-2's table).
fn alphabet(byte: u8) -> char {
    let printed = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    if printed(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printed(other)).count() as u32;
    char::from_u32(256 + before).unwrap_or('?')
}

/// Random codes with fixed scales; norms are one and biases small, so that values neither vanish
/// nor explode.
fn weights(tensor: &Tensor, dice: &mut Dice) -> Vec<u8> {
    if tensor.kind == Kind::F32 {
        let norm = tensor.name.ends_with("norm.weight");
        let value = |dice: &mut Dice| {
            let unit = dice.unit_f32() - 0.5;
            if norm { 1.0 + unit / 10.0 } else { unit / 10.0 }
        };
        return (0..tensor.columns).flat_map(|_| value(dice).to_le_bytes()).collect();
    }
    let mut bytes = vec![0; tensor.bytes() as usize];
    dice.fill(&mut bytes);
    let ((_, block), scales) = (tensor.kind.block(), tensor.kind.scales());
    for block in bytes.chunks_exact_mut(block as usize) {
        for (at, scale) in &scales {
            block[*at..*at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    if tensor.name == "output.weight" {
        let row = tensor.bytes() / tensor.rows;
        let begin = (u64::from(END) * row) as usize;
        bytes[begin..begin + row as usize].fill(0);
    }
    bytes
}

/// The bits of a power of two in half precision, of normal ones.
fn half(value: f32) -> u16 {
    ((value.to_bits() >> 23) as u16 + 15 - 127) << 10
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The same with few layers, and as many tokens as prompts are made of.
    const SMALL: Shape =
        Shape { width: 64, inner: 256, layers: 2, heads: 4, kv_heads: 2, vocabulary: 22_000 };

    #[test]
    fn the_file_is_a_model_that_the_engine_measures() {
        let path = std::env::temp_dir().join(format!("synthetic-{}.gguf", std::process::id()));
        write(&path, &SMALL, &tensors(&SMALL)).unwrap();
        let (facts, bytes) = (selvedge_engine::inspect(&path), fs::metadata(&path).unwrap().len());
        let measured = crate::ours::measure_once(&path);
        fs::remove_file(&path).unwrap();
        let facts = facts.unwrap();
        assert_eq!((facts.architecture.as_str(), facts.context_length), ("qwen2", CONTEXT));
        assert_eq!((facts.bytes, bytes), (bytes, length(&SMALL, &tensors(&SMALL))));
        // Two answers of a quarter more, less what came before both had begun.
        let (prefill, decode) = measured.unwrap();
        assert_eq!(prefill.tokens, 32);
        let steps = crate::ours::TEST_STEPS;
        assert!((steps..=steps * 5 / 2).contains(&decode.tokens), "{decode:?}");
    }

    #[test]
    fn the_types_are_those_of_the_published_file() {
        let tensors = tensors(&SHAPE);
        let count = |kind| tensors.iter().filter(|tensor| tensor.kind == kind).count();
        assert_eq!([Kind::Q5_0, Kind::Q4K, Kind::Q6K, Kind::Q8_0].map(count), [133, 12, 12, 13]);
        assert_eq!(tensors.iter().map(Tensor::bytes).sum::<u64>() / 1_000_000, 485);
    }

    #[test]
    fn the_end_is_never_the_likeliest_token() {
        let all = tensors(&SMALL);
        let head = all.iter().find(|tensor| tensor.name == "output.weight").unwrap();
        let bytes = weights(head, &mut Dice::keyed(0, "test"));
        let row = bytes.len() / SMALL.vocabulary as usize;
        let of = |token: usize| &bytes[token * row..(token + 1) * row];
        assert!(of(END as usize).iter().all(|byte| *byte == 0));
        assert!(of(END as usize + 1).iter().any(|byte| *byte != 0));
    }

    #[test]
    fn halves_and_letters() {
        assert_eq!(half(1.0), 0x3c00);
        assert_eq!(half(1.0 / 16_384.0), 0x0400);
        assert_eq!((alphabet(b'a'), alphabet(0), alphabet(b' ')), ('a', '\u{100}', '\u{120}'));
    }
}
