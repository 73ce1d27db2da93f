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
    /// The value being kept.
    kept: Option<Kept>,
    took: Took,
}

/// A value that is looked for, from its first byte on.
#[derive(Debug)]
struct Kept {
    key: Key,
    /// The depth at which it ends.
    depth: u32,
    /// Where it begins in the bytes that are being watched. It is copied only where it goes on in
    /// the next ones, which few do.
    from: usize,
    /// What came of it before those.
    earlier: Vec<u8>,
}

impl Kept {
    const fn begin(key: Key, depth: u32, from: usize) -> Self {
        Self { key, depth, from, earlier: Vec::new() }
    }

    /// All of it, cut: it ends in `bytes`, before `end`.
    fn value<'v>(&'v mut self, bytes: &'v [u8], end: usize) -> &'v [u8] {
        let here = &bytes[self.from..end];
        if self.earlier.is_empty() {
            return &here[..here.len().min(VALUE_BYTES)];
        }
        self.put(here);
        &self.earlier
    }

    /// It goes on after `bytes`.
    fn put_aside(&mut self, bytes: &[u8]) {
        let from = std::mem::take(&mut self.from);
        self.put(&bytes[from..]);
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = VALUE_BYTES.saturating_sub(self.earlier.len());
        self.earlier.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Other,
    Usage,
    Reason,
}

/// Whether a byte may stand outside of strings, between brackets: in a number or a word such as
/// `true`, or as a space.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0_u8;
    // All of them are ASCII.
    while byte < 128 {
        plain[byte as usize] = byte.is_ascii_digit()
            || byte.is_ascii_lowercase()
            || matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'+' | b'-' | b'.' | b'E');
        byte += 1;
    }
    plain
};

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
        let mut at = 0;
        while at < bytes.len() {
            at = if self.in_string { self.string(bytes, at) } else { self.structure(bytes, at) };
        }
        if let Some(kept) = &mut self.kept {
            kept.put_aside(bytes);
        }
    }

    /// What was seen so far.
    pub fn took(&self) -> &Took {
        &self.took
    }

    /// Reads on in a string; where to go on after it.
    fn string(&mut self, bytes: &[u8], at: usize) -> usize {
        if self.escaped {
            self.escaped = false;
            return at + 1;
        }
        let rest = &bytes[at..];
        let end = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        let cut = end.min(KEY_BYTES - self.word_len);
        self.word[self.word_len..self.word_len + cut].copy_from_slice(&rest[..cut]);
        self.word_len += cut;
        let Some(stop) = rest.get(end) else { return bytes.len() };
        let after = at + end + 1;
        if *stop == b'\\' {
            self.escaped = true;
            // A key with an escape in it is none that is looked for.
            self.word[self.word_len..].fill(b'\\');
            self.word_len = KEY_BYTES;
        } else {
            self.in_string = false;
            if matches!(&self.kept, Some(Kept { key: Key::Reason, .. })) {
                self.end_value(bytes, after);
            }
        }
        after
    }

    /// Reads what stands outside of strings; where to go on after it.
    fn structure(&mut self, bytes: &[u8], at: usize) -> usize {
        let byte = bytes[at];
        match byte {
            b'"' => {
                self.in_string = true;
                self.word_len = 0;
                if self.key == Key::Reason {
                    self.kept = Some(Kept::begin(Key::Reason, self.depth, at));
                }
                self.key = Key::Other;
            }
            b':' => self.key = self.key_of(),
            b'{' | b'[' => {
                if self.key == Key::Usage && byte == b'{' && self.kept.is_none() {
                    self.kept = Some(Kept::begin(Key::Usage, self.depth, at));
                }
                self.key = Key::Other;
                if self.depth < u128::BITS {
                    self.objects = self.objects << 1 | u128::from(byte == b'{');
                }
                self.depth = self.depth.saturating_add(1);
            }
            b'}' | b']' => {
                if self.depth <= u128::BITS {
                    let fits = self.objects & 1 == u128::from(byte == b'}');
                    self.took.failed |= self.depth == 0 || !fits;
                    self.objects >>= 1;
                }
                self.depth = self.depth.saturating_sub(1);
                self.key = Key::Other;
                if self.kept.as_ref().is_some_and(|kept| kept.depth == self.depth) {
                    self.end_value(bytes, at + 1);
                }
                if self.depth == 0 {
                    self.took.done = true;
                }
            }
            b',' => self.key = Key::Other,
            _ => {
                self.took.failed |= !PLAIN[usize::from(byte)];
                let more = bytes[at + 1..].iter().take_while(|byte| PLAIN[usize::from(**byte)]);
                return at + 1 + more.count();
            }
        }
        at + 1
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

    /// The value that is kept ends in `bytes`, before `end`.
    fn end_value(&mut self, bytes: &[u8], end: usize) {
        let Some(mut kept) = self.kept.take() else { return };
        let key = kept.key;
        let value = kept.value(bytes, end);
        match (key, self.kind) {
            (Key::Usage, Kind::OpenAi) => {
                let usage = serde_json::from_slice::<openai::UsageField>(value).ok();
                self.took.usage = usage.map(Usage::from).or(self.took.usage);
            }
            (Key::Usage, Kind::Anthropic) => {
                let usage = serde_json::from_slice::<anthropic::UsageField>(value).ok();
                self.took.usage = usage.map(Usage::from).or(self.took.usage);
            }
            (Key::Reason, kind) => {
                let word = serde_json::from_slice::<String>(value).unwrap_or_default();
                self.took.finish = Some(match kind {
                    Kind::OpenAi => openai::reason(word),
                    Kind::Anthropic => anthropic::reason(word),
                });
            }
            (Key::Other, _) => {}
        }
    }
}
