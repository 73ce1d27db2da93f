//! Files of models that are directories: the headers of safetensors and `tokenizer.json`.
//!
//! Holds: within the bounds of time and memory they are read or refused in few words, no tensor
//! lies outside of its file, and a text becomes no more tokens than the model reads.

use std::fmt::Display;

use selvedge_engine::{inspect_directory_bytes, inspect_tokenizer_bytes, inspect_weights_bytes};
use selvedge_train::Learned;

use super::models::ERROR_CHARS;
use super::{Target, none};

/// Tokens of the longest text, as models of embeddings have.
const LONGEST: usize = 256;
/// Rows of the model that a vocabulary is for: more than an input has tokens.
const ROWS: u32 = 4_096;
/// What is read with a tokenizer: words, marks, several scripts and what is no word.
const TEXT: &str = "Hello [CLS] \u{2581}the 12345 caf\u{e9} e\u{301} \u{5317}\u{4eac} \u{1f980} \
    <s> a\u{0}b\r\n\tAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// The smallest vocabulary and weights that are read, to go with the other of a pair.
const VOCABULARY: &[u8] =
    br#"{"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"pre_tokenizer":null}"#;
const WEIGHTS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "model.safetensors",
        holds: "read or refused in few words, no tensor outside of the file",
        check: check_weights,
        shares: &[],
        seeds: none,
        words: &[
            "\"__metadata__\"",
            "\"dtype\"",
            "\"shape\"",
            "\"data_offsets\"",
            "\"F32\"",
            "\"F16\"",
            "\"BF16\"",
            "\"F8_E4M3\"",
            "\"F4\"",
            "\"I64\"",
            "\"BOOL\"",
            "[4294967296,4294967296]",
            "[18446744073709551615]",
            "[0,18446744073709551615]",
            "[8,0]",
            "\"selvedge_model\":\"1\"",
            "\"selvedge_adapter\":\"1\"",
            "\"layers\":\"[]\"",
        ],
    },
    Target {
        name: "model.tokenizer",
        holds: "read or refused in few words; a text becomes no more tokens than are read",
        check: check_tokenizer,
        shares: &[],
        seeds: none,
        words: &[
            "\"type\":\"BPE\"",
            "\"type\":\"WordPiece\"",
            "\"type\":\"Unigram\"",
            "\"type\":\"WordLevel\"",
            "\"type\":\"Sequence\"",
            "\"type\":\"Split\"",
            "\"type\":\"Replace\"",
            "\"type\":\"Prepend\"",
            "\"type\":\"Precompiled\"",
            "\"type\":\"BertNormalizer\"",
            "\"type\":\"ByteLevel\"",
            "\"type\":\"Metaspace\"",
            "\"type\":\"TemplateProcessing\"",
            "\"type\":\"NFKC\"",
            "\"type\":\"Strip\"",
            "\"pattern\":{\"Regex\":\"(a+)+$\"}",
            "\"pattern\":{\"Regex\":\"(?=a*)(A|A)*B\"}",
            "\"pattern\":{\"Regex\":\"\"}",
            "\"pattern\":{\"String\":\"\"}",
            "\"content\":\"AAAAAAAAAAAAAAAAAAAAAAAA\"",
            "\"max_input_chars_per_word\":18446744073709551615",
            "\"continuing_subword_prefix\":\"\"",
            "\"unk_id\":18446744073709551615",
            "\"merges\"",
            "\"vocab\"",
            "\"added_tokens\"",
            "\"id\":4294967295",
            "\"truncation\":{\"direction\":\"Right\",\"max_length\":0,\
             \"strategy\":\"LongestFirst\",\"stride\":9}",
            "\"padding\":{\"strategy\":{\"Fixed\":1000000000},\"direction\":\"Right\",\
             \"pad_to_multiple_of\":0,\"pad_id\":0,\"pad_type_id\":0,\"pad_token\":\"p\"}",
            "\"dropout\":1.0",
            "\"byte_fallback\":true",
            "\"ignore_merges\":true",
            "\"fuse_unk\":true",
        ],
    },
];

/// Read as a model of embeddings', as one that is turned into GGUF, and as what was learned.
fn check_weights(input: &[u8]) {
    match inspect_weights_bytes(input) {
        // Two bytes are the least that a float takes.
        Ok(numbers) => assert!(numbers <= input.len() as u64, "{numbers} numbers"),
        Err(error) => check_error(&error),
    }
    if let Err(error) = inspect_directory_bytes(input, VOCABULARY, ROWS) {
        check_error(&error);
    }
    if let Err(error) = Learned::from_bytes(input) {
        check_error(&error);
    }
}

fn check_tokenizer(input: &[u8]) {
    match inspect_tokenizer_bytes(input, TEXT, LONGEST) {
        Ok(tokens) => assert!(tokens.len() <= LONGEST, "{} tokens", tokens.len()),
        Err(error) => check_error(&error),
    }
    if let Err(error) = inspect_directory_bytes(WEIGHTS, input, ROWS) {
        check_error(&error);
    }
}

fn check_error(error: &impl Display) {
    let length = error.to_string().chars().count();
    assert!((1..ERROR_CHARS).contains(&length), "an error of {length} characters");
}
