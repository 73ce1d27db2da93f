//! Files of models, which come from anybody: headers, vocabularies, graphs and chat templates; and
//! the grammars that callers have a model's answers hold to.
//!
//! Holds: within the bounds of time and memory they are read or refused in few words, and a
//! template gives no more text than its fuel pays for. A vocabulary that is read makes of a text no
//! more tokens than its bytes can be cut into.

use selvedge_contract::tensors::MAX_SIDES;
use selvedge_contract::{ChatMessage, Role};
use selvedge_engine::{
    EngineError, Template, encode_bytes, inspect_bytes, inspect_grammar, inspect_onnx_bytes,
};

use super::{Target, none};

/// Characters of an error: it may repeat a name of the file, which are bounded, but not the file.
pub(super) const ERROR_CHARS: usize = 2_000;
/// Bytes of a prompt: no template of an input's size can say more with its fuel.
const PROMPT_BYTES: usize = 64 << 20;
/// What people write to see what breaks: marks whole and cut, spaces of several kinds, letters of
/// several bytes, digits, what vocabularies write for spaces and bytes, and what no text has.
const SAID: &str = "ab  aab<|im_end|><|im_start<|end|> \n\tx\u{0}\u{7f}\u{2581}\u{120}a<0x41>\
                    e\u{301} \u{feff}\u{1f9ff}\u{200d}b 'LL'\u{17f} 12345\u{663}\r\n \n   \
                    \u{a0}\u{3000}abab ";

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "model.gguf",
        holds: "read or refused in few words, no tensor outside of the file; few tokens of a text",
        check: check_gguf,
        shares: &[],
        seeds: files,
        words: &[
            "GGUF",
            "general.architecture",
            "general.alignment",
            "llama.block_count",
            "tokenizer.ggml.tokens",
            "tokenizer.ggml.merges",
            "tokenizer.ggml.token_type",
            "tokenizer.chat_template",
            "token_embd.weight",
            "qwen2",
            "qwen3",
            "gemma3",
            "phi3",
            "tokenizer.ggml.scores",
            "tokenizer.ggml.pre",
            "tokenizer.ggml.add_space_prefix",
            "llama-bpe",
            "smollm",
            "\u{2581}",
            "gemma3.attention.sliding_window",
            "phi3.rope.scaling.original_context_length",
            "llama.attention.key_length",
        ],
    },
    Target {
        name: "model.onnx",
        holds: "read or refused in few words; inputs and outputs with names and bounded shapes",
        check: check_onnx,
        shares: &[],
        seeds: none,
        words: &[
            "Identity",
            "If",
            "Loop",
            "then_branch",
            "body",
            "location",
            "\x08\x08",
            "\x3a",
            "\x0a",
            "\x12",
            "\x2a",
            "\x4a",
            "\x5a",
            "\x62",
            "\x70\x01",
            "\x6a",
        ],
    },
    Target {
        name: "model.template",
        holds: "compiled or refused; renders, raises, fails or runs dry, in bounded text",
        check: check_template,
        shares: &[],
        seeds: none,
        words: &[
            "{{ messages }}",
            "{% for m in messages %}",
            "{% endfor %}",
            "{% if add_generation_prompt %}",
            "{% endif %}",
            "{% set x = ",
            " %}",
            "{{ x }}",
            "range(99999)",
            "range(100000)",
            "m['content']",
            "|tojson",
            "|tojson(1000000)",
            "|indent(100000000)",
            "|indent(width=1000000000, first=true)",
            "|replace('', 'xxxxxxxxxxxxxxxx')",
            ".replace('', 'xxxxxxxxxxxxxxxx')",
            "|batch(1000000000, 'x')",
            "|slice(1000000000)",
            "|join(x)",
            "|format(1)",
            "'%1000000000d'|format(1)",
            "'x' * 1000000000",
            "[1] * 1000000000",
            " ~ ",
            "|list",
            "|sort",
            "|unique",
            "|round(1000)",
            "1e308 ** 9",
            "10 ** 1000",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% filter upper %}",
            "{% include 'chat_template' %}",
            "{% extends 'chat_template' %}",
            "{% import 'chat_template' as t %}",
            "raise_exception('no')",
            "namespace(a=1)",
            "loop.index",
            "lipsum(1000000)",
            "debug()",
        ],
    },
    Target {
        name: "request.grammar",
        holds: "read or refused in few words, with no more in it than it has bytes",
        check: check_grammar,
        shares: &[],
        seeds: none,
        words: &[
            "root ::= ",
            "\nitem ::= ",
            "::=",
            " | ",
            "\"text\"",
            "[a-z]",
            "[^\\\\\\]]",
            "[\\x00-\\U0010ffff]",
            "\\ud83d",
            "(",
            ")",
            "*",
            "+",
            "?",
            "{2,3}",
            "{2000}",
            "{0,}",
            ".",
            "# note\n",
            "root",
            "item",
            "\r\n",
        ],
    },
];

fn check_gguf(input: &[u8]) {
    match inspect_bytes(input) {
        Ok(facts) => {
            assert_eq!(facts.bytes, input.len() as u64);
            assert!(facts.context_length > 0, "{facts:?}");
            // Four bits are the least a weight takes in any format that is read here.
            assert!(facts.parameters <= 8 * facts.bytes, "{facts:?}");
            check_text(input);
        }
        Err(error) => check_error(&error),
    }
}

/// What a text is to a model that was read.
fn check_text(input: &[u8]) {
    let encoded = match encode_bytes(input, SAID) {
        Ok(encoded) => encoded,
        Err(error) => return check_error(&error),
    };
    let (tokens, bytes, known) = (encoded.tokens.len(), encoded.bytes.len(), encoded.known);
    assert!(encoded.tokens.iter().all(|token| (*token as usize) < known), "of {known}");
    // A piece that has no token is told byte by byte, and a space, also one that is added where the
    // text begins and behind a mark, is written with three: a mark of one byte may so be four.
    let most = if encoded.in_pieces { 4 * SAID.len() + 3 } else { SAID.len() };
    assert!(tokens <= most, "{tokens} tokens of {} bytes", SAID.len());
    // Letters that stand for bytes have two at most, and may be told as what they are.
    assert!(encoded.in_pieces || bytes <= 2 * SAID.len(), "{bytes} bytes of {}", SAID.len());
}

fn check_onnx(input: &[u8]) {
    match inspect_onnx_bytes(input) {
        Ok(signature) => {
            assert!(!signature.inputs.is_empty() && !signature.outputs.is_empty(), "{signature:?}");
            for spec in signature.inputs.iter().chain(&signature.outputs) {
                assert!(!spec.name.is_empty() && spec.shape.len() <= MAX_SIDES, "{spec:?}");
                assert!(spec.shape.iter().all(|side| *side >= -1), "{spec:?}");
            }
        }
        Err(error) => check_error(&error),
    }
}

/// A grammar, and twice as many line ends before it, which change nothing but what is told of them.
fn check_grammar(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let read = inspect_grammar(&text);
    match &read {
        Ok((rules, things)) => {
            // The shortest rule is `a::=`, and nothing takes a byte but what is there.
            assert!(4 * rules <= text.len() && *things <= 2 * text.len() + 1, "{rules} {things}");
        }
        Err(error) => {
            let length = error.to_string().chars().count();
            assert!((1..ERROR_CHARS).contains(&length), "an error of {length} characters");
        }
    }
    let again = inspect_grammar(&format!("\n\n# a note\n{text}"));
    assert_eq!(again.is_ok(), read.is_ok(), "{text}");
}

fn check_error(error: &EngineError) {
    let length = error.to_string().chars().count();
    assert!((1..ERROR_CHARS).contains(&length), "an error of {length} characters");
}

/// The template, and after a zero byte what a user says.
fn check_template(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (source, said) = text.split_once('\0').unwrap_or((&text, "Hello <|im_end|>"));
    let template = match Template::compile(source, "<s>", "</s>") {
        Ok(template) => template,
        Err(error) => return check_error(&error),
    };
    let message = |role, content: &str| ChatMessage { role, content: content.to_owned() };
    let messages = [
        message(Role::System, "Be brief."),
        message(Role::User, said),
        message(Role::Assistant, "Hi."),
        message(Role::User, "Go on."),
    ];
    match template.render(&messages, &["<|im_start|>".to_owned(), "<|im_end|>".to_owned()]) {
        Ok(pieces) => {
            let bytes: usize = pieces.iter().map(String::len).sum();
            assert!(bytes <= PROMPT_BYTES, "{bytes} bytes of {}", source.len());
        }
        Err(refusal) => super::check_refusal(&refusal),
    }
}

/// The smallest files that are models: one layer, a vocabulary of a few tokens.
fn files() -> Vec<Vec<u8>> {
    let words = Words {
        rule: "gpt-2",
        name: "Tiny",
        tokens: ["a", "b", "ab", "<|im_start|>", "<|im_end|>"],
        kinds: [1, 1, 1, 3, 3],
    };
    // A rule that takes words whole, and a token that is matched and has a space.
    let whole = Words {
        rule: "llama-bpe",
        tokens: ["a", "b", "ab", "<|im_end|>", " \n"],
        kinds: [1, 1, 1, 3, 4],
        ..words
    };
    // Letters of bytes that print nothing, and one of them a mark.
    let letters = Words {
        rule: "qwen2",
        tokens: ["a", "b", "ab", "\u{120}", "\u{120}a"],
        kinds: [1, 1, 1, 4, 3],
        ..words
    };
    // White space goes behind marks; some pieces have spaces of their own.
    let stripping = Words {
        name: "Phi-3",
        tokens: ["\u{2581}", "a", "\u{2581}a", "<|end|>", " \n"],
        kinds: [1, 1, 1, 3, 4],
        ..words
    };
    let header = b"GGUF\x02\0\0\0".to_vec();
    let files = [words.file(false), words.file(true), File::default().bytes(), header];
    let more = [whole.file(false), letters.file(false), stripping.file(true)];
    files.into_iter().chain(more).collect()
}

/// A vocabulary in the making.
#[derive(Clone, Copy)]
struct Words {
    rule: &'static str,
    /// The model's.
    name: &'static str,
    tokens: [&'static str; 5],
    kinds: [u32; 5],
}

impl Words {
    /// A model with this vocabulary as byte-level BPE or as SentencePiece's pieces, and a window
    /// then.
    fn file(&self, pieces: bool) -> Vec<u8> {
        let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}";
        let mut whole = File::default();
        let family = if pieces { "gemma3" } else { "llama" };
        whole.entry("general.architecture", 8, &text(family));
        whole.entry("general.name", 8, &text(self.name));
        whole.entry("tokenizer.ggml.model", 8, &text(if pieces { "llama" } else { "gpt2" }));
        whole.entry("tokenizer.ggml.pre", 8, &text(self.rule));
        whole.entry("tokenizer.chat_template", 8, &text(template));
        for (key, value) in [
            ("block_count", 1_u32),
            ("context_length", 16),
            ("embedding_length", 4),
            ("feed_forward_length", 4),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
        ] {
            whole.entry(&format!("{family}.{key}"), 4, &value.to_le_bytes());
        }
        whole.entry(&format!("{family}.attention.sliding_window"), 4, &8_u32.to_le_bytes());
        let epsilon = format!("{family}.attention.layer_norm_rms_epsilon");
        whole.entry(&epsilon, 6, &1e-5_f32.to_le_bytes());
        let scores = [0_f32, -1.0, -2.0, 0.0, 0.0].map(|score| score.to_le_bytes().to_vec());
        whole.entry("tokenizer.ggml.scores", 9, &array(6, &scores));
        whole.entry("tokenizer.ggml.tokens", 9, &array(8, &self.tokens.map(text)));
        // Pieces have no use for it.
        whole.entry("tokenizer.ggml.merges", 9, &array(8, &[text("a b")]));
        let kinds = self.kinds.map(|kind| kind.to_le_bytes().to_vec());
        whole.entry("tokenizer.ggml.token_type", 9, &array(4, &kinds));
        whole.entry("tokenizer.ggml.eos_token_id", 4, &4_u32.to_le_bytes());
        let file = whole.bytes();
        let found = inspect_bytes(&file);
        assert!(found.is_ok(), "the seed is a model: {found:?}");
        file
    }
}

/// A file in the making; its one tensor holds the embeddings.
#[derive(Default)]
struct File {
    entries: Vec<Vec<u8>>,
}

impl File {
    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.entries.push([&text(key), &kind.to_le_bytes()[..], value].concat());
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend(1_u64.to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        self.entries.iter().for_each(|entry| out.extend(entry));
        out.extend(text("token_embd.weight"));
        out.extend(2_u32.to_le_bytes());
        // Four wide, five tokens, floats of 32 bits, at the beginning of the data.
        out.extend(4_u64.to_le_bytes());
        out.extend(5_u64.to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        out.extend(0_u64.to_le_bytes());
        out.resize(out.len().next_multiple_of(32) + 4 * 4 * 5, 0);
        out
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn array(kind: u32, values: &[Vec<u8>]) -> Vec<u8> {
    let mut out = kind.to_le_bytes().to_vec();
    out.extend((values.len() as u64).to_le_bytes());
    values.iter().for_each(|value| out.extend(value));
    out
}
