//! A whole answer's bytes, watched as they pass.
//!
//! Owns a walk over JSON that keeps nothing but the depth, the last key and the two values it looks
//! for. Bytes pass before and whatever it finds.

use memchr::memchr2;

use super::{Kind, Took};
use crate::anthropic;
use crate::chat::Usage;
use crate::openai;

/// Bytes of a value that are kept: usage has a few hundred.
const VALUE_BYTES: usize = 16 << 10;
/// Room for such a value, so that one of the usual size is moved once.
const KEPT_BYTES: usize = 512;
/// Bytes of a key that are kept: one more than the longest looked for, so that a longer one with
/// the same beginning is told apart.
const KEY_BYTES: usize = 14;

/// Watches one answer.
#[derive(Debug)]
pub struct WholeTap {
    kind: Kind,
    depth: u32,
    /// The open brackets, the innermost last: whether each is one of an object. Those deeper than
    /// it has places are not held to.
    objects: u128,
    in_string: bool,
    escaped: bool,
    /// The string read last or being read, cut, and how much of it there is.
    word: [u8; KEY_BYTES],
    word_len: usize,
    /// The key whose value comes next.
    key: Key,
    /// The value being kept, and the depth at which it ends.
    kept: Option<(Key, u32, Vec<u8>)>,
    took: Took,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Other,
    Usage,
    Reason,
}

/// Whether a byte may stand outside of strings, between brackets: in a number or a word such as
/// `true`, or as a space.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_digit()
        || byte.is_ascii_lowercase()
        || matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'+' | b'-' | b'.' | b'E')
}

impl WholeTap {
    /// A tap on an answer.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            depth: 0,
            objects: 0,
            in_string: false,
            escaped: false,
            word: [0; KEY_BYTES],
            word_len: 0,
            key: Key::Other,
            kept: None,
            took: Took::default(),
        }
    }

    /// Watches the next bytes.
    pub fn see(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            if self.in_string {
                rest = self.string(rest);
            } else {
                self.structure(*first);
                rest = after;
            }
        }
    }

    /// What was seen so far.
    pub fn took(&self) -> &Took {
        &self.took
    }

    /// Reads on in a string; what is left after it.
    fn string<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if self.escaped {
            self.escaped = false;
            self.keep(&bytes[..1]);
            return &bytes[1..];
        }
        let end = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
        let cut = end.min(KEY_BYTES - self.word_len);
        self.word[self.word_len..self.word_len + cut].copy_from_slice(&bytes[..cut]);
        self.word_len += cut;
        self.keep(&bytes[..end]);
        let Some(stop) = bytes.get(end) else { return &[] };
        self.keep(&[*stop]);
        if *stop == b'\\' {
            self.escaped = true;
            // A key with an escape in it is none that is looked for.
            self.word[self.word_len..].fill(b'\\');
            self.word_len = KEY_BYTES;
        } else {
            self.in_string = false;
            if matches!(&self.kept, Some((Key::Reason, ..))) {
                self.end_value();
            }
        }
        &bytes[end + 1..]
    }

    fn structure(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.in_string = true;
                self.word_len = 0;
                if self.key == Key::Reason {
                    self.kept = Some((Key::Reason, self.depth, Vec::with_capacity(KEPT_BYTES)));
                }
                self.keep(b"\"");
                self.key = Key::Other;
            }
            b':' => {
                self.keep(b":");
                self.key = self.key_of();
            }
            b'{' | b'[' => {
                if self.key == Key::Usage && byte == b'{' && self.kept.is_none() {
                    self.kept = Some((Key::Usage, self.depth, Vec::with_capacity(KEPT_BYTES)));
                }
                self.key = Key::Other;
                if self.depth < u128::BITS {
                    self.objects = self.objects << 1 | u128::from(byte == b'{');
                }
                self.depth = self.depth.saturating_add(1);
                self.keep(&[byte]);
            }
            b'}' | b']' => {
                if self.depth <= u128::BITS {
                    let fits = self.objects & 1 == u128::from(byte == b'}');
                    self.took.failed |= self.depth == 0 || !fits;
                    self.objects >>= 1;
                }
                self.depth = self.depth.saturating_sub(1);
                self.key = Key::Other;
                self.keep(&[byte]);
                if self.kept.as_ref().is_some_and(|(_, depth, _)| *depth == self.depth) {
                    self.end_value();
                }
                if self.depth == 0 {
                    self.took.done = true;
                }
            }
            b',' => {
                self.key = Key::Other;
                self.keep(b",");
            }
            _ => {
                self.took.failed |= !is_plain(byte);
                self.keep(&[byte]);
            }
        }
    }

    /// Whether the word before a colon is looked for at this depth.
    fn key_of(&self) -> Key {
        let (word, depth) = match self.kind {
            Kind::OpenAi => (&b"finish_reason"[..], 3),
            Kind::Anthropic => (&b"stop_reason"[..], 1),
        };
        match &self.word[..self.word_len] {
            b"usage" if self.depth == 1 => Key::Usage,
            own if own == word && self.depth == depth => Key::Reason,
            _ => Key::Other,
        }
    }

    #[inline]
    fn keep(&mut self, bytes: &[u8]) {
        if let Some((_, _, value)) = &mut self.kept {
            let room = VALUE_BYTES.saturating_sub(value.len());
            value.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn end_value(&mut self) {
        let Some((key, _, value)) = self.kept.take() else { return };
        match (key, self.kind) {
            (Key::Usage, Kind::OpenAi) => {
                let usage = serde_json::from_slice::<openai::UsageField>(&value).ok();
                self.took.usage = usage.map(Usage::from).or(self.took.usage);
            }
            (Key::Usage, Kind::Anthropic) => {
                let usage = serde_json::from_slice::<anthropic::UsageField>(&value).ok();
                self.took.usage = usage.map(Usage::from).or(self.took.usage);
            }
            (Key::Reason, kind) => {
                let word = serde_json::from_slice::<String>(&value).unwrap_or_default();
                self.took.finish = Some(match kind {
                    Kind::OpenAi => openai::reason(word),
                    Kind::Anthropic => anthropic::reason(word),
                });
            }
            (Key::Other, _) => {}
        }
    }
}
