//! Text to tokens as SentencePiece does it (Kudo and Richardson, 2018), from a GGUF file's scores.
//!
//! Owns the order of things that llama.cpp's tokenizer has, token for token: tokens that are
//! matched in text come first, the longest before the others; the rest is cut into characters, of
//! which the pair whose token has the highest score is joined, again and again; what has no token
//! is told byte by byte. Does not own what tokens mean: that is `tokenizer`.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::error::EngineError;
use crate::texts::Texts;

/// A space in a vocabulary's texts.
pub(crate) const SPACE: char = '\u{2581}';

/// What a file says of such a vocabulary.
pub(crate) struct Said<'a> {
    pub(crate) tokens: &'a [&'a str],
    pub(crate) scores: Vec<f32>,
    /// The tokens that are matched in text before it is cut into characters.
    pub(crate) matched: Vec<u32>,
    /// Whether a text begins with a space that is not there.
    pub(crate) adds_space: bool,
    /// Whether white space behind a token that is matched goes, which the file's name says.
    pub(crate) strips: bool,
    /// What stands for bytes that have no token.
    pub(crate) unknown: Option<u32>,
}

/// A vocabulary with its scores.
#[derive(Debug)]
pub(crate) struct Pieces {
    all: Texts,
    scores: Vec<f32>,
    matched: Texts,
    /// Those of `matched` behind which white space goes.
    stripping: Vec<bool>,
    bytes: [u32; 256],
    adds_space: bool,
}

/// Where in a text its next piece stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// At its beginning, or behind a token that is matched: a space may be added.
    Nothing,
    /// Behind other text.
    Text,
}

/// A part of a text that is a token by itself.
struct Found {
    /// With the white space behind it that goes.
    place: Range<usize>,
    token: u32,
}

/// Characters that have become one.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    /// Nothing once another has taken it in.
    length: usize,
    before: Option<usize>,
    after: Option<usize>,
}

/// Two symbols that may become one.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Of both when they were found: others have grown since.
    length: usize,
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pair {
    /// The highest score first, then the first in the text.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl Pieces {
    pub(crate) fn new(said: Said<'_>) -> Result<Self, EngineError> {
        let Said { tokens, mut scores, matched, adds_space, strips, unknown } = said;
        if scores.len() != tokens.len() || scores.iter().any(|score| score.is_nan()) {
            return Err(EngineError::corrupt(format!(
                "tokenizer.ggml.scores are not {} numbers",
                tokens.len()
            )));
        }
        // Both zeros are one score.
        scores.iter_mut().for_each(|score| *score += 0.0);
        let all = Texts::new(tokens.iter().copied().zip(0..));
        let mut bytes = [0; 256];
        for (byte, token) in (0u8..=255).zip(&mut bytes) {
            let named = all.find(format!("<0x{byte:02X}>").as_bytes());
            *token = named.or_else(|| all.find(&[byte])).or(unknown).ok_or_else(|| {
                EngineError::corrupt(format!("the vocabulary has no token for byte {byte:#04x}"))
            })?;
        }
        let text_of = |token: &u32| Some((*tokens.get(*token as usize)?, *token));
        let stripping = |token: &u32| {
            let kept = ["<unk>", "<s>", "<|endoftext|>"];
            strips && text_of(token).is_some_and(|(text, _)| !kept.contains(&text))
        };
        let mut strip = vec![false; if strips { tokens.len() } else { 0 }];
        for token in matched.iter().filter(|token| stripping(token)) {
            strip[*token as usize] = true;
        }
        let matched = Texts::new(matched.iter().filter_map(text_of));
        Ok(Self { all, scores, matched, stripping: strip, bytes, adds_space })
    }

    /// Appends the tokens of a piece of text; returns where the next piece stands.
    pub(crate) fn encode(&self, text: &str, before: Before, into: &mut Vec<u32>) -> Before {
        let (mut at, mut before) = (0, before);
        for Found { place, token } in self.found(text.as_bytes()) {
            self.rest(&text[at..place.start], before, into);
            into.push(token);
            (at, before) = (place.end, Before::Nothing);
        }
        if at < text.len() {
            self.rest(&text[at..], before, into);
            before = Before::Text;
        }
        before
    }

    /// The tokens that are matched, in the order of the text.
    fn found(&self, text: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        let mut taken = vec![false; text.len()];
        for (length, begins) in self.matched.lengths() {
            let mut at = 0;
            while at + length <= text.len() {
                let word = &text[at..at + length];
                let token =
                    if begins[usize::from(word[0])] { self.matched.find(word) } else { None };
                let Some(token) = token.filter(|_| !taken[at..at + length].contains(&true)) else {
                    at += 1;
                    continue;
                };
                let mut end = at + length;
                if self.stripping.get(token as usize).copied().unwrap_or(false) {
                    let blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
                    while text.get(end).is_some_and(blank) && !taken[end] {
                        end += 1;
                    }
                }
                taken[at..end].fill(true);
                found.push(Found { place: at..end, token });
                at = end;
            }
        }
        found.sort_by_key(|found| found.place.start);
        found
    }

    /// The tokens of text in which none is matched.
    fn rest(&self, text: &str, before: Before, into: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let added = self.adds_space && before == Before::Nothing;
        let mut spaced = String::with_capacity(text.len() + 2 * SPACE.len_utf8());
        spaced.extend(added.then_some(SPACE));
        spaced.extend(text.chars().map(|one| if one == ' ' { SPACE } else { one }));
        let symbols = self.joined(&spaced);
        let mut next = Some(0);
        while let Some(symbol) = next.and_then(|at| symbols.get(at)) {
            let text = &spaced.as_bytes()[symbol.start..][..symbol.length];
            match self.all.find(text) {
                Some(token) => into.push(token),
                None => into.extend(text.iter().map(|byte| self.bytes[usize::from(*byte)])),
            }
            next = symbol.after;
        }
    }

    /// A text's characters, joined as far as there are tokens for it.
    fn joined(&self, text: &str) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = (text.char_indices().enumerate())
            .map(|(at, (start, one))| Symbol {
                start,
                length: one.len_utf8(),
                before: at.checked_sub(1),
                after: Some(at + 1),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.after = None;
        }
        let pair = |symbols: &[Symbol], left: Option<usize>, right: Option<usize>| {
            let (left, right) = (left?, right?);
            let length = symbols[left].length + symbols[right].length;
            let token = self.all.find(&text.as_bytes()[symbols[left].start..][..length])?;
            Some(Pair { score: self.scores[token as usize], left, right, length })
        };
        let mut pairs: BinaryHeap<Pair> =
            (1..symbols.len()).filter_map(|at| pair(&symbols, Some(at - 1), Some(at))).collect();
        while let Some(Pair { left, right, length, .. }) = pairs.pop() {
            let (first, second) = (symbols[left], symbols[right]);
            if first.length == 0 || second.length == 0 || first.length + second.length != length {
                continue;
            }
            symbols[left].length = length;
            symbols[right].length = 0;
            symbols[left].after = second.after;
            if let Some(after) = second.after {
                symbols[after].before = Some(left);
            }
            pairs.extend(pair(&symbols, first.before, Some(left)));
            pairs.extend(pair(&symbols, Some(left), second.after));
        }
        symbols
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "pieces_tests.rs"]
mod tests;
