//! A model's tokens: words, and the marks by which it is told what to do.
//!
//! Owns the tokenizer. What somebody writes stays text, whatever it looks like.

use std::collections::BTreeMap;

use tokenizers::Tokenizer;

use super::folder::Folder;
use crate::error::EngineError;

/// Vocabularies of models that know English only are one token shorter than this.
const MULTILINGUAL: usize = 51_865;

/// A model's tokens.
pub(super) struct Words {
    tokenizer: Tokenizer,
    /// Begins what is to be written.
    pub(super) start: u32,
    /// Ends it.
    pub(super) end: u32,
    pub(super) transcribe: u32,
    pub(super) translate: u32,
    /// Begins the text before.
    pub(super) before: u32,
    /// Nobody speaks.
    pub(super) silence: u32,
    /// No times are wanted.
    pub(super) timeless: u32,
    /// The window's beginning; each token after it is 20 milliseconds later.
    pub(super) first_time: u32,
    /// By their ISO 639-1 names; only that of English where it knows no others.
    pub(super) languages: BTreeMap<String, u32>,
    pub(super) multilingual: bool,
    pub(super) suppressed: Vec<u32>,
    pub(super) suppressed_first: Vec<u32>,
}

impl Words {
    pub(super) fn load(folder: &Folder) -> Result<Self, EngineError> {
        let wrong =
            |error: tokenizers::Error| EngineError::corrupt(format!("tokenizer.json: {error}"));
        let mut tokenizer = Tokenizer::from_bytes(folder.tokenizer()?).map_err(wrong)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(wrong)?;
        // What a text before holds must not be taken for a mark.
        tokenizer.set_encode_special_tokens(true);
        let vocabulary = folder.config.vocabulary;
        let find = |name: &str| tokenizer.token_to_id(&format!("<|{name}|>"));
        let mark = |name: &str| {
            find(name).filter(|id| (*id as usize) < vocabulary).ok_or_else(|| {
                EngineError::corrupt(format!("tokenizer.json has no <|{name}|> of the model's"))
            })
        };
        let (start, timeless) = (mark("startoftranscript")?, mark("notimestamps")?);
        let multilingual = folder.multilingual.unwrap_or(vocabulary >= MULTILINGUAL);
        let (transcribe, translate) = (mark("transcribe")?, mark("translate")?);
        let languages = languages(&tokenizer, start + 1, translate.min(transcribe));
        if multilingual && languages.is_empty() {
            return Err(EngineError::corrupt("tokenizer.json names no languages"));
        }
        let end = mark("endoftext")?;
        let blank = tokenizer.token_to_id("\u{120}");
        let first = blank.into_iter().chain([end]).collect();
        let known = |tokens: Vec<u32>| -> Vec<u32> {
            tokens.into_iter().filter(|token| (*token as usize) < vocabulary).collect()
        };
        let silence = find("nospeech").or_else(|| find("nocaptions"));
        Ok(Self {
            start,
            end,
            transcribe,
            translate,
            before: mark("startofprev")?,
            silence: silence
                .filter(|id| (*id as usize) < vocabulary)
                .ok_or_else(|| EngineError::corrupt("tokenizer.json has no mark for silence"))?,
            timeless,
            first_time: timeless + 1,
            languages,
            multilingual,
            suppressed: known(folder.suppressed.clone()),
            suppressed_first: known(folder.suppressed_first.clone().unwrap_or(first)),
            tokenizer,
        })
    }

    /// The tokens of a text.
    pub(super) fn tokens(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let encoded = self.tokenizer.encode(text, false);
        let encoded = encoded.map_err(|error| EngineError::Compute(error.to_string()))?;
        Ok(encoded.get_ids().to_vec())
    }

    /// The text of tokens, without marks and times.
    pub(super) fn text(&self, tokens: &[u32]) -> Result<String, EngineError> {
        let words: Vec<u32> = tokens.iter().copied().filter(|token| *token < self.end).collect();
        let text = self.tokenizer.decode(&words, true);
        text.map_err(|error| EngineError::Compute(error.to_string()))
    }
}

/// Tokens of languages, which stand between two others.
fn languages(tokenizer: &Tokenizer, from: u32, to: u32) -> BTreeMap<String, u32> {
    let name = |id: u32| {
        let token = tokenizer.id_to_token(id)?;
        let name = token.strip_prefix("<|")?.strip_suffix("|>")?.to_owned();
        // yue, haw and jw are among them.
        let good = (2..=3).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase());
        good.then_some((name, id))
    };
    // There are a hundred; a file may claim that there are billions.
    (from..to.min(from.saturating_add(512))).filter_map(name).collect()
}
