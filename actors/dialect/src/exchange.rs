//! The two roles of a dialect, as traits and plain data.
//!
//! Owns what a sender of bytes needs to know and nothing of how it sends. A shell that serves
//! clients writes what a [`StreamWriter`] gives it; a shell that asks providers sends an
//! [`Outgoing`], feeds an [`AnswerParser`] what arrives, and adds the secrets itself.

use crate::chat::{Event, Usage};

/// A way of speaking. Azure speaks [`Dialect::OpenAi`] at other paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// OpenAI chat completions and embeddings, and the many who speak alike.
    OpenAi,
    /// OpenAI's older text completions.
    Completions,
    /// OpenAI responses.
    Responses,
    /// Anthropic messages.
    Anthropic,
    /// Ollama.
    Ollama,
    /// Gemini.
    Gemini,
    /// Cohere, version 2.
    Cohere,
    /// Bedrock's Converse.
    Bedrock,
}

impl Dialect {
    /// The name in messages and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
            Self::Gemini => "gemini",
            Self::Cohere => "cohere",
            Self::Bedrock => "bedrock",
        }
    }
}

/// A request to a provider, without its secrets: the sender adds those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path below the provider's base address, beginning with `/`, percent-encoded; with a query
    /// where the dialect needs one. Never holds a secret.
    pub path: String,
    /// Headers besides those of authentication, `content-length` and `host`.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty for `GET`.
    pub body: Vec<u8>,
}

/// What is sent beside a body that passes as it came, always by `POST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// As [`Outgoing::path`].
    pub path: &'static str,
    /// As [`Outgoing::headers`].
    pub headers: &'static [(&'static str, &'static str)],
}

/// How the bytes of an answer are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One JSON document.
    Json,
    /// Server-sent events.
    Sse,
    /// One JSON document per line.
    Ndjson,
    /// Amazon's binary event stream.
    AwsEventStream,
}

/// Reads a successful answer as it arrives. The events are the same for any split of the bytes.
pub trait AnswerParser: Send {
    /// Takes the next bytes and appends the events they complete. After [`Event::Failed`] or
    /// [`Event::Finished`] further bytes are ignored.
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>);

    /// The connection ended. Appends [`Event::Finished`] if the answer was complete by its
    /// dialect's own sign, [`Event::Failed`] (a cut, worth asking elsewhere) if it was not, and
    /// nothing if one of them was given before.
    fn finish(&mut self, events: &mut Vec<Event>);

    /// The usage seen so far, for an answer that is cut: as the provider told it last.
    fn usage(&self) -> Option<Usage>;

    /// Whether the answer is over, by [`Event::Finished`] or [`Event::Failed`].
    fn is_over(&self) -> bool;
}

/// Writes an answer's events as one dialect's stream.
pub trait StreamWriter: Send {
    /// The media type of the stream.
    fn content_type(&self) -> &'static str;

    /// Appends what an event is in this dialect; possibly nothing. One event in gives all bytes
    /// that can be known from it: nothing is held back for company.
    fn write(&mut self, event: &Event, out: &mut Vec<u8>);

    /// Appends something that clients ignore, to keep a quiet connection open; possibly nothing.
    fn keep_alive(&mut self, out: &mut Vec<u8>);
}

/// What a writer needs that no event tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Seconds since the Unix epoch, for answers whose head does not say when they were made.
    pub created: u64,
    /// Whether the client asked for usage at the end of a stream, where a client can choose.
    pub include_usage: bool,
}

/// A path segment or the value of a query, percent-encoded (RFC 3986: all but unreserved bytes).
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
