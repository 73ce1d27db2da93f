//! A streamed answer's bytes, watched as they pass.
//!
//! Owns finding usage and the reason of the end, and leaving out the chunk of usage that only we
//! asked for. An event is looked at once, when it is whole; what passes whole is not copied.

use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::rename::Rename;
use super::{Kind, Took};
use crate::anthropic;
use crate::chat::{Finish, Usage};
use crate::openai;

/// Bytes of one event that are kept to look at it whole. Usage comes in events of a few hundred
/// bytes; a longer event passes unseen, and in pieces.
const EVENT_BYTES: usize = 256 << 10;

/// What is looked for in every event; made once, since making costs more than looking.
#[derive(Debug)]
struct Finders {
    usage: Finder<'static>,
    /// Why an answer ended.
    finish: Finder<'static>,
    /// A piece of an answer.
    piece: Finder<'static>,
}

impl Finders {
    fn new(finish: &'static str, piece: &'static str) -> Self {
        let usage = Finder::new("\"usage\"");
        Self { usage, finish: Finder::new(finish), piece: Finder::new(piece) }
    }
}

static OPENAI: LazyLock<Finders> = LazyLock::new(|| Finders::new("\"finish_reason\"", "\"delta\""));
static ANTHROPIC: LazyLock<Finders> =
    LazyLock::new(|| Finders::new("\"stop_reason\"", "content_block_delta"));

/// Watches one answer.
#[derive(Debug)]
pub struct StreamTap {
    kind: Kind,
    /// Whether a chunk with nothing but usage is left out.
    drops_usage: bool,
    /// The beginning of an event whose end has not come.
    partial: Vec<u8>,
    /// The event is longer than is kept: it passes unseen.
    long: bool,
    /// Where the line being read begins, in an event that is long: whether it is empty so far.
    line_empty: bool,
    finders: &'static Finders,
    anthropic: anthropic::Counts,
    /// The name that stands in the answer instead of the provider's.
    rename: Option<Rename>,
    took: Took,
}

#[derive(Deserialize)]
struct OpenAiChunk {
    usage: Option<openai::UsageField>,
    #[serde(default)]
    choices: Vec<OpenAiChoice>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct OpenAiChoice {
    finish_reason: Option<String>,
}

impl StreamTap {
    /// A tap on an answer. `drops_usage`: the chunk of usage was asked for by us and not by the
    /// client (OpenAI), and is left out of what passes.
    pub fn new(kind: Kind, drops_usage: bool) -> Self {
        let finders = match kind {
            Kind::OpenAi => &*OPENAI,
            Kind::Anthropic => &*ANTHROPIC,
        };
        Self {
            kind,
            drops_usage,
            partial: Vec::new(),
            long: false,
            line_empty: true,
            finders,
            anthropic: anthropic::Counts::default(),
            rename: None,
            took: Took::default(),
        }
    }

    /// The same, with another name of the model in what passes.
    #[must_use]
    pub fn renaming(mut self, model: Option<&str>) -> Self {
        self.rename = model.map(Rename::to);
        self
    }

    /// Watches bytes that the caller passes on itself. Not for a tap that drops usage or renames.
    pub fn see(&mut self, bytes: &[u8]) {
        self.walk(bytes, &mut |_| {});
    }

    /// Appends to `out` what is to be passed on of `bytes`, as soon as it can be known: every
    /// event that is whole, in the order they came.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.walk(bytes, &mut |piece| out.extend_from_slice(piece));
    }

    /// The answer ended: appends what was held of an event without an end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.partial);
    }

    /// What was seen so far.
    pub fn took(&self) -> &Took {
        &self.took
    }

    fn walk(&mut self, bytes: &[u8], pass: &mut impl FnMut(&[u8])) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.end_of_event(rest) {
                Some(end) => {
                    let (event, after) = rest.split_at(end);
                    self.event(event, pass);
                    rest = after;
                }
                None => {
                    self.hold(rest, pass);
                    return;
                }
            }
        }
    }

    /// The length of what completes the event, if it is there: up to and with a blank line.
    fn end_of_event(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut from = 0;
        while let Some(line) = memchr(b'\n', &bytes[from..]) {
            let text = &bytes[from..from + line];
            let blank = self.line_empty && matches!(text, b"" | b"\r");
            from += line + 1;
            self.line_empty = true;
            if blank {
                return Some(from);
            }
        }
        // A CR alone may begin the end of a blank line.
        let last = &bytes[from..];
        self.line_empty = self.line_empty && matches!(last, b"" | b"\r");
        None
    }

    fn hold(&mut self, bytes: &[u8], pass: &mut impl FnMut(&[u8])) {
        if self.long {
            return pass(bytes);
        }
        if self.partial.len() + bytes.len() > EVENT_BYTES {
            pass(&self.partial);
            pass(bytes);
            self.partial = Vec::new();
            self.long = true;
            return;
        }
        self.partial.extend_from_slice(bytes);
    }

    fn event(&mut self, end: &[u8], pass: &mut impl FnMut(&[u8])) {
        if std::mem::take(&mut self.long) {
            return pass(end);
        }
        if self.partial.is_empty() {
            if !self.look(end) {
                self.give(end, pass);
            }
            return;
        }
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(end);
        if !self.look(&whole) {
            self.give(&whole, pass);
        }
        // Its memory serves the next one.
        whole.clear();
        self.partial = whole;
    }

    fn give(&self, event: &[u8], pass: &mut impl FnMut(&[u8])) {
        match &self.rename {
            Some(rename) => rename.give(event, pass),
            None => pass(event),
        }
    }

    /// Looks at a whole event; whether it is to be left out.
    fn look(&mut self, event: &[u8]) -> bool {
        self.took.pieces += u64::from(self.finders.piece.find(event).is_some());
        let Some(data) = data(event) else { return false };
        // What a reader of the dialect would stop at.
        self.took.failed |= !matches!(data, [] | [b'{', ..] | b"[DONE]");
        match self.kind {
            Kind::OpenAi => self.look_openai(data),
            Kind::Anthropic => {
                self.look_anthropic(data);
                false
            }
        }
    }

    fn look_openai(&mut self, data: &[u8]) -> bool {
        if data == b"[DONE]" {
            self.took.done = true;
            return false;
        }
        let usage = holds(&self.finders.usage, data, b'{');
        if !usage && !holds(&self.finders.finish, data, b'"') && !data.starts_with(b"{\"error\"") {
            return false;
        }
        let Ok(chunk) = serde_json::from_slice::<OpenAiChunk>(data) else { return false };
        self.took.failed |= chunk.error.is_some();
        let reason = chunk.choices.iter().rev().find_map(|choice| choice.finish_reason.clone());
        if let Some(reason) = reason {
            self.took.finish = Some(openai::reason(reason));
        }
        let Some(usage) = chunk.usage else { return false };
        self.took.usage = Some(Usage::from(usage));
        self.drops_usage && chunk.choices.is_empty() && chunk.error.is_none()
    }

    fn look_anthropic(&mut self, data: &[u8]) {
        let usage = holds(&self.finders.usage, data, b'{');
        let finish = holds(&self.finders.finish, data, b'"');
        if usage || finish {
            let (usage, reason): (Option<Usage>, Option<Finish>) = self.anthropic.read(data);
            self.took.usage = usage.or(self.took.usage);
            self.took.finish = reason.or(self.took.finish.take());
        }
        if data.len() < SIGN_BYTES {
            let text = |part: &str| memchr::memmem::find(data, part.as_bytes()).is_some();
            self.took.done |= text("\"message_stop\"");
            self.took.failed |= text("\"type\": \"error\"") || text("\"type\":\"error\"");
        }
    }
}

/// Signs of the end and of errors come in short events; longer ones hold text.
const SIGN_BYTES: usize = 2_048;

/// Whether the key that `finder` finds is followed by a value that begins with `first`. Inside of
/// a JSON string the key's quotes would be escaped, so text is never taken for a key.
fn holds(finder: &Finder<'_>, data: &[u8], first: u8) -> bool {
    finder.find_iter(data).any(|at| {
        let after = data[at + finder.needle().len()..].iter();
        let mut after = after.filter(|byte| !byte.is_ascii_whitespace());
        after.next() == Some(&b':') && after.next() == Some(&first)
    })
}

/// The data of an event in one line, which is how providers write theirs.
fn data(event: &[u8]) -> Option<&[u8]> {
    let mut rest = event;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        if let Some(data) = line.strip_prefix(b"data:") {
            return Some(data.trim_ascii());
        }
        rest = after.get(1..).unwrap_or_default();
    }
    None
}
