//! Text to tokens and tokens to bytes, from a GGUF file's metadata.
//!
//! Owns byte-level BPE (`tokenizer.ggml.model = gpt2`) with the splitting rule the file names, the
//! special tokens and the set of tokens that end an answer. A splitting rule that is not known
//! here is refused by name: guessing one gives a model that almost works. How SentencePiece
//! (`llama`) cuts a text is `pieces`'; what its tokens mean is told here. An end token that a file
//! wants behind every text is not added: behind a prompt it would end the answer. Does not own
//! streaming: that is `stream`.

use std::collections::BTreeSet;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::error::EngineError;
use crate::gguf::Gguf;
use crate::gguf_value::Value;
use crate::pieces::{self, Before, Pieces};

/// How Llama 3 splits words: digits in groups of up to three.
pub(crate) const SPLIT_LLAMA3: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// How Qwen 2 splits words: digits one by one.
pub(crate) const SPLIT_QWEN2: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Texts of control tokens that end a turn in the families published so far; the file's own
/// `eos` and `eot` ids count as well.
const ENDINGS: [&str; 9] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|eot|>",
    "<end_of_turn>",
    "</s>",
];
/// Texts of tokens that begin a turn, or say whose it is, in the families that run here.
const TURNS: [&str; 10] = [
    "<|im_start|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<start_of_turn>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "[INST]",
    "[/INST]",
];
/// Bytes of a token that is matched in text, or must not be where a person wrote it: each place of
/// a text is compared with each length that there is, so that this bounds the time a text takes.
/// The longest published ones, runs of spaces, have 93.
const MAX_MATCHED_BYTES: usize = 256;
/// `tokenizer.ggml.token_type` of tokens that steer and are never text.
const TYPE_CONTROL: u64 = 3;
/// `tokenizer.ggml.token_type` of the token for what has none.
const TYPE_UNKNOWN: u64 = 2;
/// `tokenizer.ggml.token_type` of tokens for single bytes.
const TYPE_BYTE: u64 = 6;
/// `tokenizer.ggml.token_type` of tokens matched in text before it is split into words.
const TYPE_USER_DEFINED: u64 = 4;

/// A model's tokenizer.
pub(crate) struct Tokenizer {
    inner: Inner,
    /// The bytes of all tokens, one after the other.
    bytes: Vec<u8>,
    /// Where each token's bytes end in `bytes`.
    ends: Vec<u32>,
    control: BTreeSet<u32>,
    endings: BTreeSet<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    /// The texts of the begin and end tokens, for templates.
    pub(crate) bos_text: String,
    pub(crate) eos_text: String,
    /// The texts that must not be taken for control tokens where a person wrote them.
    pub(crate) control_texts: Vec<String>,
    longest: usize,
}

/// How a text is cut.
enum Inner {
    /// Byte-level BPE.
    Words(Box<tokenizers::Tokenizer>),
    /// SentencePiece.
    Pieces(Box<Pieces>),
}

impl Tokenizer {
    pub(crate) fn read(gguf: &Gguf, rows: usize) -> Result<Self, EngineError> {
        let in_pieces = match gguf.text("tokenizer.ggml.model") {
            Some("gpt2") => false,
            Some("llama") => true,
            Some(other) => {
                let other: String = other.chars().take(64).collect();
                return Err(EngineError::unsupported(format!(
                    "tokenizer model '{other}' (byte-level BPE, 'gpt2', and SentencePiece, \
                     'llama', are read)"
                )));
            }
            None => return Err(EngineError::corrupt("tokenizer.ggml.model is missing")),
        };
        let tokens = texts(gguf, "tokenizer.ggml.tokens")?;
        if tokens.is_empty() || tokens.len() > rows {
            return Err(EngineError::corrupt(format!(
                "{} tokens for {rows} embeddings",
                tokens.len()
            )));
        }
        let mut types = types(gguf, tokens.len())?;
        let template = gguf.text("tokenizer.chat_template").unwrap_or_default();
        steer(template, in_pieces, &tokens, &mut types);
        check_matched(&tokens, &types)?;
        let inner = match in_pieces {
            false => Inner::Words(Box::new(build(gguf, &tokens, &types)?)),
            true => Inner::Pieces(Box::new(read_pieces(gguf, &tokens, &types)?)),
        };
        let id =
            |key: &str| gguf.number(key).filter(|&id| id < tokens.len() as u64).map(|id| id as u32);
        // What SentencePiece's own files have where a key is missing.
        let or = |id: Option<u32>, other: u32| {
            id.or((in_pieces && (other as usize) < tokens.len()).then_some(other))
        };
        let bos = or(id("tokenizer.ggml.bos_token_id"), 1);
        let eos = or(id("tokenizer.ggml.eos_token_id"), 2);
        let text_of = |id: Option<u32>| id.map_or("", |id| tokens[id as usize]).to_owned();
        let mut this = Self {
            inner,
            bytes: Vec::new(),
            ends: Vec::with_capacity(tokens.len()),
            control: BTreeSet::new(),
            endings: [eos, id("tokenizer.ggml.eot_token_id"), id("tokenizer.ggml.eom_token_id")]
                .into_iter()
                .flatten()
                .collect(),
            bos: bos.filter(|_| gguf.flag("tokenizer.ggml.add_bos_token").unwrap_or(in_pieces)),
            eos,
            bos_text: text_of(bos),
            eos_text: text_of(eos),
            control_texts: Vec::new(),
            longest: 1,
        };
        this.index(&tokens, &types, in_pieces);
        Ok(this)
    }

    /// Tokens of `text`, in which control tokens are recognised.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        self.encode_all(std::slice::from_ref(&text))
    }

    /// Tokens of a text that comes in pieces: no token spans two of them.
    pub(crate) fn encode_all(&self, pieces: &[impl AsRef<str>]) -> Result<Vec<u32>, String> {
        self.encode_behind(Before::Nothing, pieces)
    }

    /// The same behind other text, to which no space is added.
    pub(crate) fn encode_on(&self, pieces: &[impl AsRef<str>]) -> Result<Vec<u32>, String> {
        self.encode_behind(Before::Text, pieces)
    }

    fn encode_behind(
        &self,
        mut before: Before,
        pieces: &[impl AsRef<str>],
    ) -> Result<Vec<u32>, String> {
        let mut tokens = Vec::new();
        for piece in pieces {
            match &self.inner {
                Inner::Pieces(inner) => before = inner.encode(piece.as_ref(), before, &mut tokens),
                Inner::Words(inner) => {
                    let encoding = inner.encode_fast(piece.as_ref(), false);
                    let encoding = encoding.map_err(|error| error.to_string())?;
                    tokens.extend(encoding.get_ids());
                }
            }
        }
        Ok(tokens)
    }

    /// The token every text begins with, if the model wants one.
    pub(crate) fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if the file names one.
    pub(crate) const fn end(&self) -> Option<u32> {
        self.eos
    }

    /// Whether it is one of SentencePiece's pieces.
    pub(crate) const fn in_pieces(&self) -> bool {
        matches!(self.inner, Inner::Pieces(_))
    }

    /// Tokens that have a text.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The most bytes of text one token can stand for.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// A token's bytes; a control token's are its name. Unknown tokens have none.
    pub(crate) fn bytes(&self, token: u32) -> &[u8] {
        let index = token as usize;
        let end = self.ends.get(index).copied().unwrap_or(0) as usize;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        self.bytes.get(start.unwrap_or(0) as usize..end).unwrap_or(&[])
    }

    /// The bytes a token adds to an answer: none for control tokens.
    pub(crate) fn shown(&self, token: u32) -> &[u8] {
        if self.control.contains(&token) { &[] } else { self.bytes(token) }
    }

    /// Whether this token ends an answer.
    pub(crate) fn ends_answer(&self, token: u32) -> bool {
        self.endings.contains(&token)
    }

    fn index(&mut self, tokens: &[&str], types: &[u64], in_pieces: bool) {
        for (id, (text, kind)) in (0u32..).zip(tokens.iter().zip(types)) {
            let before = self.bytes.len();
            match *kind {
                TYPE_UNKNOWN if in_pieces => {
                    self.bytes.extend_from_slice(text.as_bytes());
                    self.control.insert(id);
                    self.control_texts.push((*text).to_owned());
                }
                TYPE_BYTE if in_pieces => {
                    let byte = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                    self.bytes.extend(byte.and_then(|byte| u8::from_str_radix(byte, 16).ok()));
                }
                TYPE_CONTROL => {
                    self.bytes.extend_from_slice(text.as_bytes());
                    self.control.insert(id);
                    self.control_texts.push((*text).to_owned());
                    if ENDINGS.contains(text) {
                        self.endings.insert(id);
                    }
                }
                TYPE_USER_DEFINED => self.bytes.extend_from_slice(text.as_bytes()),
                _ if in_pieces => {
                    self.bytes.extend(text.replace(pieces::SPACE, " ").into_bytes());
                }
                _ => push_decoded(&mut self.bytes, text),
            }
            self.longest = self.longest.max(self.bytes.len() - before);
            self.ends.push(self.bytes.len() as u32);
        }
    }
}

fn build(
    gguf: &Gguf,
    tokens: &[&str],
    types: &[u64],
) -> Result<tokenizers::Tokenizer, EngineError> {
    let (splitter, ignore_merges) = splitter(gguf)?;
    let vocabulary: Vocab =
        (0u32..).zip(tokens).map(|(id, text)| ((*text).to_owned(), id)).collect();
    let mut merges = Vec::new();
    for merge in texts(gguf, "tokenizer.ggml.merges")? {
        // A piece may itself begin with a space, so the separator is looked for after it.
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let at = merge.get(first..).and_then(|rest| rest.find(' ')).map(|at| at + first);
        let Some((left, right)) = at.map(|at| (&merge[..at], &merge[at + 1..])) else {
            return Err(EngineError::corrupt("a tokenizer merge has no second part"));
        };
        merges.push((left.to_owned(), right.to_owned()));
    }
    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .ignore_merges(ignore_merges)
        .build()
        .map_err(|error| EngineError::corrupt(format!("tokenizer: {error}")))?;
    let mut inner = tokenizers::Tokenizer::new(model);
    inner.with_pre_tokenizer(Some(splitter));
    let of = |wanted: u64, special: bool| {
        tokens
            .iter()
            .zip(types)
            .filter(move |(text, kind)| **kind == wanted && !text.is_empty())
            .map(move |(text, _)| AddedToken::from(*text, special).normalized(false))
    };
    let failed = |error| EngineError::corrupt(format!("tokenizer: special tokens: {error}"));
    inner.add_special_tokens(of(TYPE_CONTROL, true)).map_err(failed)?;
    inner.add_tokens(of(TYPE_USER_DEFINED, false)).map_err(failed)?;
    Ok(inner)
}

/// Makes tokens that begin or end a turn control tokens, which some converters forget: those that
/// are known, and marks that the chat template writes. A person who writes one would begin a turn
/// of somebody else. In vocabularies of words only marks with bars are taken for such: templates
/// there look for others, as `</think>`, in what was said before, and are to find them.
fn steer(template: &str, in_pieces: bool, tokens: &[&str], types: &mut [u64]) {
    let within = |text: &str, open: &str, close: &str| {
        text.strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
            .is_some_and(|name| !name.is_empty() && !name.contains(char::is_whitespace))
    };
    let is_mark = |text: &str| {
        let plain = || within(text, "<", ">") || within(text, "[", "]");
        within(text, "<|", "|>") || in_pieces && plain()
    };
    for (text, kind) in tokens.iter().zip(types) {
        let steers = || {
            ENDINGS.contains(text)
                || TURNS.contains(text)
                || is_mark(text) && template.contains(text)
        };
        if *kind == TYPE_USER_DEFINED && steers() {
            *kind = TYPE_CONTROL;
        }
    }
}

/// Refuses tokens that would take too long to look for.
fn check_matched(tokens: &[&str], types: &[u64]) -> Result<(), EngineError> {
    let matched = |kind: u64| matches!(kind, TYPE_UNKNOWN | TYPE_CONTROL | TYPE_USER_DEFINED);
    let longest = tokens.iter().zip(types).filter(|(_, kind)| matched(**kind));
    match longest.map(|(text, _)| text.len()).max() {
        Some(bytes) if bytes > MAX_MATCHED_BYTES => Err(EngineError::unsupported(format!(
            "a token of {bytes} bytes that is matched in text (at most {MAX_MATCHED_BYTES})"
        ))),
        _ => Ok(()),
    }
}

fn read_pieces(gguf: &Gguf, tokens: &[&str], types: &[u64]) -> Result<Pieces, EngineError> {
    let scores = gguf.metadata.get("tokenizer.ggml.scores").and_then(Value::as_array);
    let scores: Option<Vec<f32>> = scores.and_then(|scores| {
        scores.iter().map(|score| score.as_real().map(|score| score as f32)).collect()
    });
    let matched = |kind: u64| matches!(kind, TYPE_UNKNOWN | TYPE_CONTROL | TYPE_USER_DEFINED);
    let kinds = (0u32..).zip(types);
    let unknown = gguf.number("tokenizer.ggml.unknown_token_id").unwrap_or(0);
    Pieces::new(pieces::Said {
        tokens,
        scores: scores.unwrap_or_default(),
        matched: kinds.filter(|(_, kind)| matched(**kind)).map(|(id, _)| id).collect(),
        adds_space: gguf.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true),
        strips: strips(gguf.text("general.name").unwrap_or_default()),
        unknown: u32::try_from(unknown).ok().filter(|id| (*id as usize) < tokens.len()),
    })
}

/// Whether white space behind matched tokens goes in a model of this name, as llama.cpp knows it:
/// no key of GGUF says so.
pub(crate) fn strips(name: &str) -> bool {
    let name = name.to_lowercase();
    ["phi-3", "phi3"].iter().any(|phi| name.contains(phi))
}

/// The rule the file names, and whether whole words in the vocabulary bypass the merges.
fn splitter(gguf: &Gguf) -> Result<(PreTokenizerWrapper, bool), EngineError> {
    let by = |regex: &str| {
        Split::new(SplitPattern::Regex(regex.to_owned()), SplitDelimiterBehavior::Isolated, false)
            .map_err(|error| EngineError::corrupt(format!("tokenizer: {error}")))
    };
    let words = |split: Split| -> PreTokenizerWrapper {
        Sequence::new(vec![split.into(), ByteLevel::new(false, true, false).into()]).into()
    };
    match gguf.text("tokenizer.ggml.pre") {
        Some("gpt-2") => Ok((ByteLevel::new(false, true, true).into(), false)),
        Some("smollm") => {
            let digits = Digits::new(true).into();
            let bytes = ByteLevel::new(false, true, true).into();
            Ok((Sequence::new(vec![digits, bytes]).into(), false))
        }
        Some("llama-bpe" | "llama3" | "llama-v3") => Ok((words(by(SPLIT_LLAMA3)?), true)),
        Some("qwen2") => Ok((words(by(SPLIT_QWEN2)?), false)),
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            Err(EngineError::unsupported(format!(
                "pre-tokenizer '{other}' (gpt-2, smollm, llama-bpe and qwen2 are known)"
            )))
        }
        None => Err(EngineError::unsupported("a tokenizer that does not name its pre-tokenizer")),
    }
}

fn texts<'a>(gguf: &'a Gguf, key: &str) -> Result<Vec<&'a str>, EngineError> {
    gguf.metadata
        .get(key)
        .and_then(Value::as_array)
        .and_then(|values| values.iter().map(Value::as_text).collect())
        .ok_or_else(|| EngineError::corrupt(format!("{key} is missing or not a list of texts")))
}

fn types(gguf: &Gguf, count: usize) -> Result<Vec<u64>, EngineError> {
    gguf.metadata
        .get("tokenizer.ggml.token_type")
        .and_then(Value::as_array)
        .and_then(|values| values.iter().map(Value::as_number).collect::<Option<Vec<_>>>())
        .filter(|types| types.len() == count)
        .ok_or_else(|| {
            EngineError::corrupt("tokenizer.ggml.token_type is missing or of another length")
        })
}

/// Undoes GPT-2's byte alphabet: printable bytes stand for themselves, the others for U+0100 on.
fn push_decoded(bytes: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        let code = u32::from(character);
        match code {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => bytes.push(code as u8),
            0x100..=0x120 => bytes.push((code - 0x100) as u8),
            0x121..=0x142 => bytes.push((code - 0x121 + 0x7f) as u8),
            0x143 => bytes.push(0xad),
            _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "tokenizer_tests.rs"]
mod tests;
