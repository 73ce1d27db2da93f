//! What the engine's tests share: a writer of small model files, a collecting sink, an engine.
//!
//! The tiny model is a llama of random weights with a byte-level vocabulary: it answers nonsense,
//! deterministically, in no time and without any download.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use selvedge_base::{Dice, ModelDigest, Mono, RequestId};
use selvedge_contract::{
    Answer, EventSink, FinishReason, GenerateRequest, Input, Sampling, TokenEvent, Usage,
};

use crate::{EngineConfig, LocalEngine};

/// A prompt that makes a step panic, to see what becomes of the others.
pub(crate) const FATAL: [u32; 4] = [258, 1, 258, 1];

/// A prompt whose first token panics when it is drawn.
pub(crate) const FATAL_TO_DELIVER: [u32; 4] = [258, 2, 258, 2];
/// A prompt that panics when the stepping thread sees it.
pub(crate) const FATAL_TO_SETTLE: [u32; 4] = [258, 3, 258, 3];
/// A model of this context panics when its weights are read.
pub(crate) const FATAL_CONTEXT: usize = 511;

/// A file that is removed with its owner.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(crate) fn temporary(bytes: &[u8]) -> Temporary {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("selvedge-engine-{}-{number}.gguf", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, bytes).expect("the temporary directory is writable");
    Temporary(path)
}

/// A directory that is removed with its owner.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("selvedge-engine-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("1_Pooling")).expect("the directory is writable");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).expect("the directory is writable");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A GGUF file in the making.
#[derive(Clone, Default)]
pub(crate) struct Writer {
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, Vec<f32>)>,
}

impl Writer {
    pub(crate) const WIDTH: usize = 32;
    pub(crate) const VOCABULARY: usize = 259;
    pub(crate) const CONTEXT: u32 = 512;
    /// The tiny model's tokens beyond the 256 bytes.
    pub(crate) const BEGIN: u32 = 256;
    pub(crate) const END: u32 = 257;

    /// A llama with two layers, four heads, two key heads.
    pub(crate) fn tiny(seed: u64) -> Self {
        let mut this = Self::default();
        this.text("general.architecture", "llama");
        for (key, value) in [
            ("block_count", 2),
            ("context_length", Self::CONTEXT),
            ("embedding_length", Self::WIDTH as u32),
            ("feed_forward_length", 64),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
        ] {
            this.number(&format!("llama.{key}"), value);
        }
        this.real("llama.attention.layer_norm_rms_epsilon", 1e-5);
        this.text("tokenizer.ggml.model", "gpt2");
        this.text("tokenizer.ggml.pre", "gpt-2");
        this.vocabulary();
        this.text(
            "tokenizer.chat_template",
            "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>\
             {% endfor %}",
        );
        this.weights(seed);
        this
    }

    /// The same model as a Qwen 2: other names, and biases of queries, keys and values.
    pub(crate) fn become_qwen2(&mut self, seed: u64) {
        for (key, _) in &mut self.entries {
            *key = key.replace("llama.", "qwen2.");
        }
        self.text("general.architecture", "qwen2");
        let (mut dice, width) = (Dice::keyed(seed, "biases"), Self::WIDTH as u64);
        for layer in 0..2 {
            for (name, length) in [("attn_q", width), ("attn_k", width / 2), ("attn_v", width / 2)]
            {
                self.tensor(&mut dice, &format!("blk.{layer}.{name}.bias"), &[length]);
            }
        }
    }

    /// The same model as a Qwen 3: heads of twelve dimensions, more than their share of the width,
    /// and a norm of each.
    pub(crate) fn become_qwen3(&mut self, seed: u64) {
        for (key, _) in &mut self.entries {
            *key = key.replace("llama.", "qwen3.");
        }
        self.text("general.architecture", "qwen3");
        self.number("qwen3.attention.key_length", 12);
        self.number("qwen3.attention.value_length", 12);
        let (mut dice, width) = (Dice::keyed(seed, "heads"), Self::WIDTH as u64);
        for layer in 0..2 {
            for (name, dims) in [
                ("attn_q", vec![width, 48]),
                ("attn_k", vec![width, 24]),
                ("attn_v", vec![width, 24]),
                ("attn_output", vec![48, width]),
                ("attn_q_norm", vec![12]),
                ("attn_k_norm", vec![12]),
            ] {
                let name = format!("blk.{layer}.{name}.weight");
                self.tensors.retain(|(other, ..)| *other != name);
                self.tensor(&mut dice, &name, &dims);
            }
        }
    }

    fn vocabulary(&mut self) {
        let mut tokens: Vec<String> = (0u32..256).map(|byte| alphabet(byte).to_string()).collect();
        tokens.extend(["<|im_start|>", "<|im_end|>", "<extra>"].map(str::to_owned));
        let kinds: Vec<u32> = (0..Self::VOCABULARY)
            .map(|id| match id {
                0..256 => 1,
                256 | 257 => 3,
                _ => 4,
            })
            .collect();
        self.texts("tokenizer.ggml.tokens", &tokens);
        self.texts("tokenizer.ggml.merges", &[]);
        let mut value = 9u32.to_le_bytes().to_vec();
        value.extend(4u32.to_le_bytes());
        value.extend((kinds.len() as u64).to_le_bytes());
        kinds.iter().for_each(|kind| value.extend(kind.to_le_bytes()));
        self.entries.push(("tokenizer.ggml.token_type".to_owned(), value));
        self.number("tokenizer.ggml.bos_token_id", Self::BEGIN);
        self.number("tokenizer.ggml.eos_token_id", Self::END);
    }

    fn weights(&mut self, seed: u64) {
        let mut dice = Dice::keyed(seed, "tiny model");
        let (width, forward) = (Self::WIDTH as u64, 64);
        self.tensor(&mut dice, "token_embd.weight", &[width, Self::VOCABULARY as u64]);
        self.tensor(&mut dice, "output.weight", &[width, Self::VOCABULARY as u64]);
        self.tensor(&mut dice, "output_norm.weight", &[width]);
        for layer in 0..2 {
            for (name, dims) in [
                ("attn_norm", vec![width]),
                ("attn_q", vec![width, width]),
                ("attn_k", vec![width, width / 2]),
                ("attn_v", vec![width, width / 2]),
                ("attn_output", vec![width, width]),
                ("ffn_norm", vec![width]),
                ("ffn_gate", vec![width, forward]),
                ("ffn_up", vec![width, forward]),
                ("ffn_down", vec![forward, width]),
            ] {
                self.tensor(&mut dice, &format!("blk.{layer}.{name}.weight"), &dims);
            }
        }
    }

    /// Random weights; norms are about one, so that values neither vanish nor explode.
    fn tensor(&mut self, dice: &mut Dice, name: &str, dims: &[u64]) {
        let count = dims.iter().product::<u64>();
        let norm = dims.len() == 1;
        let value = |dice: &mut Dice| {
            let unit = dice.unit_f32() - 0.5;
            if norm { 1.0 + unit } else { unit }
        };
        let values = (0..count).map(|_| value(dice)).collect();
        self.tensors.push((name.to_owned(), dims.to_vec(), values));
    }

    pub(crate) fn text(&mut self, key: &str, text: &str) {
        let mut value = 8u32.to_le_bytes().to_vec();
        push_text(&mut value, text);
        self.set(key, value);
    }

    pub(crate) fn number(&mut self, key: &str, number: u32) {
        let mut value = 4u32.to_le_bytes().to_vec();
        value.extend(number.to_le_bytes());
        self.set(key, value);
    }

    pub(crate) fn real(&mut self, key: &str, number: f32) {
        let mut value = 6u32.to_le_bytes().to_vec();
        value.extend(number.to_le_bytes());
        self.set(key, value);
    }

    pub(crate) fn texts(&mut self, key: &str, texts: &[String]) {
        let mut value = 9u32.to_le_bytes().to_vec();
        value.extend(8u32.to_le_bytes());
        value.extend((texts.len() as u64).to_le_bytes());
        texts.iter().for_each(|text| push_text(&mut value, text));
        self.set(key, value);
    }

    /// Replaces one tensor's values.
    pub(crate) fn fill(&mut self, name: &str, value: f32) {
        for (_, _, values) in self.tensors.iter_mut().filter(|(other, ..)| other == name) {
            values.fill(value);
        }
    }

    /// One tensor's values.
    pub(crate) fn values(&self, name: &str) -> &[f32] {
        let tensor = self.tensors.iter().find(|(other, ..)| other == name);
        &tensor.expect("the model has it").2
    }

    /// Leaves one tensor out.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.tensors.retain(|(other, ..)| other != name);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            push_text(&mut bytes, key);
            bytes.extend(value);
        }
        let mut data = Vec::new();
        for (name, dims, values) in &self.tensors {
            push_text(&mut bytes, name);
            bytes.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
            bytes.extend(0u32.to_le_bytes());
            bytes.extend((data.len() as u64).to_le_bytes());
            values.iter().for_each(|value| data.extend(value.to_le_bytes()));
            data.resize(data.len().next_multiple_of(32), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(data);
        bytes
    }

    fn set(&mut self, key: &str, value: Vec<u8>) {
        self.entries.retain(|(other, _)| other != key);
        self.entries.push((key.to_owned(), value));
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// GPT-2's letter for a byte.
fn alphabet(byte: u32) -> char {
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte,
        0..=0x20 => 0x100 + byte,
        0x7f..=0xa0 => 0x121 + byte - 0x7f,
        _ => 0x143,
    };
    char::from_u32(code).expect("all letters are below U+0144")
}

/// A sink that passes events on.
pub(crate) struct Outlet(pub(crate) mpsc::Sender<Answer>);

impl EventSink for Outlet {
    fn send(&mut self, event: Answer) -> bool {
        self.0.send(event).is_ok()
    }
}

/// What came of a request.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) digest: [u8; 32],
    pub(crate) tokens: Vec<TokenEvent>,
    pub(crate) tail: String,
    pub(crate) finished: Option<(FinishReason, Usage)>,
    pub(crate) failed: Option<selvedge_base::Refusal>,
}

impl Collected {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|event| event.token).collect()
    }

    pub(crate) fn text(&self) -> String {
        let texts = self.tokens.iter().map(|event| event.text.as_str());
        texts.chain([self.tail.as_str()]).collect()
    }
}

/// Waits for the end of an answer.
pub(crate) fn collect(events: &mpsc::Receiver<Answer>) -> Collected {
    let mut all = Collected::default();
    // A minute is far more than any test's answer takes; it turns a hang into a failure.
    while let Ok(event) = events.recv_timeout(std::time::Duration::from_secs(60)) {
        match event {
            Answer::Started { prompt_digest, .. } => all.digest = prompt_digest,
            Answer::Token(token) => all.tokens.push(token),
            Answer::Finished { reason, text, usage } => {
                all.tail = text;
                all.finished = Some((reason, usage));
            }
            Answer::Failed(refusal) => assert!(all.failed.replace(refusal).is_none(), "one end"),
        }
    }
    assert!(all.finished.is_some() != all.failed.is_some(), "exactly one end: {all:?}");
    all
}

pub(crate) fn greedy() -> Sampling {
    Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
    }
}

pub(crate) fn request(id: u128, model: ModelDigest, input: Input) -> GenerateRequest {
    GenerateRequest {
        id: RequestId(id),
        model,
        input,
        sampling: greedy(),
        max_tokens: 20,
        stop: Vec::new(),
        logprobs: None,
        emitted: None,
    }
}

/// An engine whose clock counts how often it is read: enough for what needs some time.
pub(crate) fn engine(config: EngineConfig) -> LocalEngine {
    let ticks = AtomicU64::new(0);
    let clock = Arc::new(move || Mono(ticks.fetch_add(1_000, Ordering::Relaxed)));
    LocalEngine::start(config, clock).expect("the engine starts")
}
