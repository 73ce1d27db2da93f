//! A writer of small model files, for the tests of this crate and of those that tune such models.
//!
//! The tiny model is a llama of random weights with a byte-level vocabulary: it answers nonsense,
//! deterministically, in no time and without any download.

use selvedge_base::Dice;

/// A GGUF file in the making.
#[derive(Clone, Default)]
pub(crate) struct Writer {
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, Vec<f32>)>,
}

impl Writer {
    /// The narrowest that divides into four heads of an even number.
    pub(crate) const WIDTH: usize = 32;
    /// A token for each byte, two marks, and one that is matched before words are split.
    pub(crate) const VOCABULARY: usize = 259;
    /// Longer than any prompt of a test.
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

    /// The same model as a Gemma 3: as that Qwen 3, with norms behind both parts of a layer, and a
    /// first layer that sees a window of no whole page.
    pub(crate) fn become_gemma3(&mut self, seed: u64) {
        self.become_qwen3(seed);
        for (key, _) in &mut self.entries {
            *key = key.replace("qwen3.", "gemma3.");
        }
        self.text("general.architecture", "gemma3");
        self.number("gemma3.attention.sliding_window", 40);
        self.number("gemma3.attention.sliding_window_pattern", 2);
        let mut dice = Dice::keyed(seed, "behind");
        for layer in 0..2 {
            for name in ["post_attention_norm", "post_ffw_norm"] {
                let name = format!("blk.{layer}.{name}.weight");
                self.tensor(&mut dice, &name, &[Self::WIDTH as u64]);
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

    /// One more matrix of random weights, the innermost side first.
    pub(crate) fn matrix(&mut self, seed: u64, name: &str, dims: &[u64]) {
        self.tensor(&mut Dice::keyed(seed, "one more"), name, dims);
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

    pub(crate) fn flag(&mut self, key: &str, flag: bool) {
        let mut value = 7u32.to_le_bytes().to_vec();
        value.push(u8::from(flag));
        self.set(key, value);
    }

    /// A list of flags.
    pub(crate) fn flags(&mut self, key: &str, flags: &[bool]) {
        let mut value = 9u32.to_le_bytes().to_vec();
        value.extend(7u32.to_le_bytes());
        value.extend((flags.len() as u64).to_le_bytes());
        value.extend(flags.iter().map(|flag| u8::from(*flag)));
        self.set(key, value);
    }

    /// A vocabulary of pieces: text, score and kind of each.
    pub(crate) fn pieces(&mut self, pieces: &[(String, f32, u32)]) {
        self.text("tokenizer.ggml.model", "llama");
        let texts: Vec<String> = pieces.iter().map(|(text, ..)| text.clone()).collect();
        self.texts("tokenizer.ggml.tokens", &texts);
        for (key, kind) in [("scores", 6u32), ("token_type", 4)] {
            let mut value = 9u32.to_le_bytes().to_vec();
            value.extend(kind.to_le_bytes());
            value.extend((pieces.len() as u64).to_le_bytes());
            for (_, score, kind) in pieces {
                let bits = if key == "scores" { score.to_bits() } else { *kind };
                value.extend(bits.to_le_bytes());
            }
            self.set(&format!("tokenizer.ggml.{key}"), value);
        }
    }

    /// One more tensor, the innermost side first.
    pub(crate) fn put(&mut self, name: &str, dims: Vec<u64>, values: Vec<f32>) {
        self.tensors.push((name.to_owned(), dims, values));
    }

    /// Replaces one tensor's values.
    pub(crate) fn fill(&mut self, name: &str, value: f32) {
        for (_, _, values) in self.tensors.iter_mut().filter(|(other, ..)| other == name) {
            values.fill(value);
        }
    }

    /// What comes next is for the most part a function of the token before, so that answers turn in
    /// circles sooner or later: of all else only a share is left.
    pub(crate) fn circle(&mut self, share: f32) {
        // Where a norm comes behind them, it is the norm that counts.
        let parts = ["attn_output", "ffn_down", ".post_"];
        let behind = |name: &str| parts.iter().any(|part| name.contains(part));
        for (_, _, values) in self.tensors.iter_mut().filter(|(name, ..)| behind(name)) {
            values.iter_mut().for_each(|value| *value *= share);
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
pub(crate) fn alphabet(byte: u32) -> char {
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte,
        0..=0x20 => 0x100 + byte,
        0x7f..=0xa0 => 0x121 + byte - 0x7f,
        _ => 0x143,
    };
    char::from_u32(code).expect("all letters are below U+0144")
}
