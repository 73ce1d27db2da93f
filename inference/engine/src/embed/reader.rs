//! A model of embeddings in memory: its tokenizer, its weights, and what makes one vector of rows.
//!
//! Owns what a text is to the model. A vector depends on its text alone, bit for bit: the kernels'
//! rows do, and the rest is computed text by text in one order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use selvedge_base::{Code, Refusal, Stage};
use selvedge_kernels::{Encoder, EncoderCrew, KernelError};
use tokenizers::{PostProcessor as _, Tokenizer, TruncationParams};

use super::classes::{self, Head};
use super::folder::{Folder, Pooling};
use crate::error::{EngineError, elsewhere};

/// A model's tokenizer, which cuts at its longest text and pads nothing.
pub(crate) struct Words {
    tokenizer: Tokenizer,
    longest: usize,
}

/// A model's tokenizer and weights.
pub(crate) struct Reader {
    words: Words,
    encoder: Encoder,
    pooling: Pooling,
    unit: bool,
    head: Option<Head>,
}

impl Words {
    /// Reads the bytes of a `tokenizer.json`.
    pub(crate) fn load(
        bytes: &[u8],
        vocabulary: usize,
        longest: usize,
    ) -> Result<Self, EngineError> {
        let tokenizer = read_tokenizer(bytes, vocabulary, longest)?;
        Ok(Self { tokenizer, longest })
    }

    /// The tokens of a text, the model's own marks included.
    pub(crate) fn tokens(&self, text: &str, cut: bool) -> Result<Vec<u32>, Refusal> {
        let read = |text: &str| {
            encode(&self.tokenizer, text).map_err(|error| {
                elsewhere(Code::Internal, format!("a text cannot be tokenized: {error}"))
            })
        };
        // Of a long text that is to be cut only a beginning is looked at, where that is enough.
        let begins = beginning(text, self.longest).filter(|_| cut).map(read).transpose()?;
        let begins = begins.filter(|(_, overflows)| *overflows);
        let (tokens, overflows) = begins.map_or_else(|| read(text), Ok)?;
        if !cut && overflows {
            let message = format!(
                "a text is longer than the {} tokens that the model reads, and was not to be cut",
                self.longest
            );
            let code = Code::ContextLengthExceeded;
            return Err(Refusal::client(Stage::Validate, code, message).param("input"));
        }
        if tokens.is_empty() {
            let message = "a text has no tokens";
            return Err(
                Refusal::client(Stage::Validate, Code::InvalidRequest, message).param("input")
            );
        }
        Ok(tokens)
    }
}

impl Reader {
    pub(crate) fn load(folder: &Folder) -> Result<Self, EngineError> {
        let words = Words::load(&folder.tokenizer()?, folder.config.vocabulary, folder.longest)?;
        let mut file = folder.tensors.file()?;
        let mut source = |name: &str, dims: &[usize]| {
            let read = match &folder.classes {
                Some(told) => classes::read(told, name, dims, |name| {
                    folder.tensors.read(&mut file, name, dims)
                }),
                None => folder.tensors.read(&mut file, name, dims),
            };
            read.map_err(|error| KernelError::Source(Box::new(error)))
        };
        let encoder = Encoder::load(folder.config.clone(), &mut source);
        let encoder = encoder.map_err(|error| EngineError::corrupt(error.to_string()))?;
        let width = folder.config.width;
        let head = folder.classes.as_ref().map(|classes| {
            Head::load(classes, width, |name, dims| folder.tensors.read(&mut file, name, dims))
        });
        let head = head.transpose()?;
        let Folder { pooling, unit, .. } = *folder;
        Ok(Self { words, encoder, pooling, unit, head })
    }

    /// The tokens of a text, the model's own marks included.
    pub(crate) fn tokens(&self, text: &str, cut: bool) -> Result<Vec<u32>, Refusal> {
        self.words.tokens(text, cut)
    }

    /// The vectors of texts.
    pub(crate) fn embed(
        &self,
        crew: &mut EncoderCrew,
        texts: &[&[u32]],
        progress: &AtomicU64,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let rows = self.encoder.read(crew, texts, progress);
        let rows = rows.map_err(|error| EngineError::Compute(error.to_string()))?;
        let width = self.encoder.config().width;
        rows.iter().map(|rows| self.vector(rows, width)).collect()
    }

    fn vector(&self, rows: &[f32], width: usize) -> Result<Vec<f32>, EngineError> {
        if let Some(head) = &self.head {
            return head.shares(rows.get(..width).unwrap_or_default());
        }
        let rows = rows.chunks_exact(width);
        let mut vector: Vec<f64> = match self.pooling {
            Pooling::First => rows.take(1).flatten().map(|n| f64::from(*n)).collect(),
            Pooling::Mean => {
                let count = rows.len() as f64;
                let sums = rows.fold(vec![0.0; width], |mut sums, row| {
                    sums.iter_mut().zip(row).for_each(|(sum, n)| *sum += f64::from(*n));
                    sums
                });
                sums.into_iter().map(|sum: f64| sum / count).collect()
            }
            Pooling::Greatest => rows.fold(vec![f64::NEG_INFINITY; width], |mut most, row| {
                most.iter_mut().zip(row).for_each(|(most, n)| *most = most.max(f64::from(*n)));
                most
            }),
        };
        if self.unit {
            let length = vector.iter().map(|n| n * n).sum::<f64>().sqrt();
            // The bound of PyTorch's `normalize`, for a vector of zeros.
            vector.iter_mut().for_each(|n| *n /= length.max(1e-12));
        }
        let vector: Vec<f32> = vector.into_iter().map(|n| n as f32).collect();
        match vector.len() == width && vector.iter().all(|n| n.is_finite()) {
            true => Ok(vector),
            false => Err(EngineError::Compute("a vector holds what is no number".to_owned())),
        }
    }
}

/// A tokenizer of at most so many tokens, which cuts at so many.
pub(super) fn read_tokenizer(
    bytes: &[u8],
    vocabulary: usize,
    longest: usize,
) -> Result<Tokenizer, EngineError> {
    let wrong = |error: tokenizers::Error| EngineError::corrupt(format!("tokenizer.json: {error}"));
    let Normalizing { growth, overstates } =
        normalizing(bytes).map_err(|error| wrong(error.into()))?;
    if growth > MAX_GROWTH || overstates {
        return Err(EngineError::corrupt(format!(
            "tokenizer.json makes texts {growth} times as long before it reads them, of at most \
             {MAX_GROWTH}, or has a table of characters that is cut short"
        )));
    }
    let mut tokenizer = guarded(|| Tokenizer::from_bytes(bytes)).map_err(wrong)?;
    let known = tokenizer.get_vocab_size(true);
    if known > vocabulary {
        return Err(EngineError::corrupt(format!(
            "tokenizer.json knows {known} tokens and the model {vocabulary}"
        )));
    }
    // The crate subtracts the one from the other unseen.
    let marks = tokenizer.get_post_processor().map_or(0, |marks| marks.added_tokens(false));
    if marks >= longest {
        return Err(EngineError::corrupt(format!(
            "tokenizer.json puts {marks} marks around texts of {longest} tokens"
        )));
    }
    tokenizer.with_padding(None);
    let cut = TruncationParams { max_length: longest, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(cut)).map_err(wrong)?;
    Ok(tokenizer)
}

/// How many times as long a text may become by what is replaced in it: published tokenizers put
/// three bytes for a blank, or do a few such steps; chains of them grow without end and take all
/// memory.
const MAX_GROWTH: u64 = 64;

/// What a tokenizer's normalizer takes for granted and would take all memory for.
struct Normalizing {
    /// How many times as long a text becomes at most by what is replaced in it.
    growth: u64,
    /// Whether a table of characters says to be longer than it is: room is made for all it says.
    overstates: bool,
}

/// Looks at a normalizer by its fields: the crate reads some of them without their type, too.
fn normalizing(bytes: &[u8]) -> serde_json::Result<Normalizing> {
    let file: serde_json::Value = serde_json::from_slice(bytes)?;
    let mut told = Normalizing { growth: 1, overstates: false };
    let mut open = vec![&file["normalizer"]];
    while let Some(one) = open.pop() {
        open.extend(one["normalizers"].as_array().into_iter().flatten());
        if let Some(content) = one["content"].as_str() {
            let content = content.len() as u64;
            // Where a pattern matches nothing it does so between any two bytes.
            let plain = one["pattern"]["String"].as_str().is_some_and(|text| !text.is_empty());
            let factor = if plain { content.max(1) } else { content.saturating_add(1) };
            told.growth = told.growth.saturating_mul(factor);
        }
        if let Some(table) = one["precompiled_charsmap"].as_str() {
            let table = STANDARD.decode(table).unwrap_or_default();
            let said = table.first_chunk().map_or(0, |first| u32::from_le_bytes(*first));
            told.overstates |= said as usize > table.len();
        }
    }
    Ok(told)
}

/// The tokens of a text and whether some were cut off.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str) -> tokenizers::Result<(Vec<u32>, bool)> {
    let encoded = guarded(|| tokenizer.encode(text, true))?;
    Ok((encoded.get_ids().to_vec(), !encoded.get_overflowing().is_empty()))
}

/// The crate takes some things that a file says for granted, and panics where they do not hold.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    let worked = catch_unwind(AssertUnwindSafe(work));
    worked.unwrap_or_else(|_| Err("it is contradictory in itself".into()))
}

/// Bytes that a token has at most in usual texts: their words are shorter.
const TOKEN_BYTES: usize = 64;

/// The whole words of a text within what so many tokens usually take; none of a shorter text, or
/// of one without words.
fn beginning(text: &str, tokens: usize) -> Option<&str> {
    let most = tokens.saturating_mul(TOKEN_BYTES);
    if text.len() <= most {
        return None;
    }
    let end = text.floor_char_boundary(most);
    let (words, _) = text[..end].rsplit_once(char::is_whitespace)?;
    Some(words)
}
