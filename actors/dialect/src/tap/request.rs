//! A request's bytes: what is read of them, and how they are changed.
//!
//! Owns one borrowed pass over the body. Fields that are not named here are skipped, not judged; a
//! named field that comes twice is refused, since two readers could disagree on which one counts.

use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};
use selvedge_base::Refusal;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Kind;
use crate::chat::HELD;
use crate::decode;
use crate::json;

/// What a body says to routing and budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The model.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the client itself asked for usage at the end of the stream (OpenAI).
    pub asks_usage: bool,
    /// Most tokens of the answer, if the client said.
    pub max_tokens: Option<u64>,
    /// Answers wanted.
    pub n: u64,
    /// Whether there are tools.
    pub has_tools: bool,
    /// Whether an answer in JSON is asked for, or one that holds to a grammar and the like.
    pub has_format: bool,
    /// Whether it is asked for in words that OpenAI itself does not know.
    pub is_held: bool,
    /// Whether log probabilities are asked for.
    pub has_logprobs: bool,
    /// Whether there is nothing in it but text and tools, so that it has no more tokens than bytes,
    /// and nothing that a service of the provider's own adds to it.
    pub is_plain: bool,
    /// Whether the limit stands in the field that OpenAI's newer models refuse.
    pub has_old_limit: bool,
    /// There is a field that OpenAI's chats, or Anthropic's messages, do not have.
    unknown: [bool; 2],
    /// Right after the body's opening brace.
    body_open: usize,
    /// Where the model's JSON string lies.
    model_at: Range<usize>,
    options: Options,
}

/// What is changed in a body before it is passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrite<'a> {
    /// Another model.
    pub model: Option<&'a str>,
    /// Usage is asked for at the end of the stream (OpenAI); nothing changes when the client asked
    /// itself.
    pub ask_usage: bool,
    /// A limit in tokens under this name, for a body without one.
    pub limit: Option<(&'static str, u64)>,
}

/// Where `stream_options` can be made to ask for usage.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Options {
    /// It is absent.
    Absent,
    /// It is there: this span becomes `text`.
    Present { at: Range<usize>, text: &'static str },
}

/// The fields that are read, each once at most; `Some(None)` where `null` stands for it.
#[derive(Default)]
struct Fields<'b> {
    model: Option<&'b RawValue>,
    stream: Option<Option<bool>>,
    stream_options: Option<&'b RawValue>,
    max_tokens: Option<Option<u64>>,
    max_completion_tokens: Option<Option<u64>>,
    n: Option<Option<u64>>,
    tools: Option<&'b RawValue>,
    response_format: Option<&'b RawValue>,
    logprobs: Option<Option<bool>>,
    /// Another field says what an answer must be.
    held: bool,
    dear: [Option<Option<IgnoredAny>>; DEAR_FIELDS.len()],
    /// There is one that OpenAI's chats, or Anthropic's messages, do not have.
    unknown: [bool; 2],
}

/// What changes the price of a token, or has more read or made than text.
const DEAR_FIELDS: [&str; 4] = ["web_search_options", "modalities", "service_tier", "mcp_servers"];

impl Fields<'_> {
    fn are_dear(&self) -> bool {
        self.dear.iter().flatten().any(Option::is_some)
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Fields<'b> {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(Name { which, unknown }) = map.next_key()? {
                    for (all, one) in fields.unknown.iter_mut().zip(unknown) {
                        *all |= one;
                    }
                    fields.take(which, &mut map)?;
                }
                Ok(fields)
            }
        }
        decoder.deserialize_map(Walk)
    }
}

impl<'de> Fields<'de> {
    fn take<A: MapAccess<'de>>(&mut self, which: Which, map: &mut A) -> Result<(), A::Error> {
        match which {
            Which::Model => once("model", &mut self.model, map),
            Which::Stream => once("stream", &mut self.stream, map),
            Which::StreamOptions => once("stream_options", &mut self.stream_options, map),
            Which::MaxTokens => once("max_tokens", &mut self.max_tokens, map),
            Which::MaxCompletionTokens => {
                once("max_completion_tokens", &mut self.max_completion_tokens, map)
            }
            Which::N => once("n", &mut self.n, map),
            Which::Tools => once("tools", &mut self.tools, map),
            Which::ResponseFormat => once("response_format", &mut self.response_format, map),
            Which::LogProbs => once("logprobs", &mut self.logprobs, map),
            Which::Held => {
                self.held |= map.next_value::<Option<IgnoredAny>>()?.is_some();
                Ok(())
            }
            Which::Dear(at) => once(DEAR_FIELDS[at], &mut self.dear[at], map),
            Which::Other => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

/// Takes the value of a field that may come once.
fn once<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    name: &'static str,
    place: &mut Option<T>,
    map: &mut A,
) -> Result<(), A::Error> {
    if place.replace(map.next_value()?).is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    Ok(())
}

/// A field by its name: which of those that are read, and whom it is unknown to.
struct Name {
    which: Which,
    unknown: [bool; 2],
}

enum Which {
    Model,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    N,
    Tools,
    ResponseFormat,
    LogProbs,
    /// Of [`HELD`].
    Held,
    /// Of [`DEAR_FIELDS`].
    Dear(usize),
    Other,
}

/// In whose requests a field costs what the tap makes of it.
enum Known {
    /// OpenAI's chats and Anthropic's messages.
    Both,
    OpenAi,
    Anthropic,
    Neither,
}

impl Known {
    /// Who knows a field that is skipped.
    fn of(name: &str) -> Self {
        match name {
            "messages" | "temperature" | "top_p" | "top_k" | "tool_choice" | "metadata" => {
                Self::Both
            }
            "min_p"
            | "presence_penalty"
            | "frequency_penalty"
            | "repetition_penalty"
            | "seed"
            | "logit_bias"
            | "stop"
            | "top_logprobs"
            | "parallel_tool_calls"
            | "reasoning_effort"
            | "user"
            | "safety_identifier"
            | "prompt_cache_key" => Self::OpenAi,
            "system" | "stop_sequences" | "thinking" => Self::Anthropic,
            _ => Self::Neither,
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
                let (which, known) = match name {
                    "model" => (Which::Model, Known::Both),
                    "stream" => (Which::Stream, Known::Both),
                    "stream_options" => (Which::StreamOptions, Known::OpenAi),
                    "max_tokens" => (Which::MaxTokens, Known::Both),
                    "max_completion_tokens" => (Which::MaxCompletionTokens, Known::OpenAi),
                    "n" => (Which::N, Known::OpenAi),
                    "tools" => (Which::Tools, Known::Both),
                    "response_format" => (Which::ResponseFormat, Known::OpenAi),
                    "logprobs" => (Which::LogProbs, Known::OpenAi),
                    name if HELD.contains(&name) => (Which::Held, Known::OpenAi),
                    name => match DEAR_FIELDS.iter().position(|dear| *dear == name) {
                        Some(dear) => (Which::Dear(dear), Known::Neither),
                        None => (Which::Other, Known::of(name)),
                    },
                };
                let unknown = match known {
                    Known::Both => [false, false],
                    Known::OpenAi => [false, true],
                    Known::Anthropic => [true, false],
                    Known::Neither => [true, true],
                };
                Ok(Name { which, unknown })
            }
        }
        decoder.deserialize_str(Read)
    }
}

#[derive(Deserialize)]
struct StreamOptions<'b> {
    #[serde(borrow, default, deserialize_with = "raw")]
    include_usage: Option<&'b RawValue>,
}

/// A value as it stands, `null` included.
fn raw<'de: 'b, 'b, D: Deserializer<'de>>(decoder: D) -> Result<Option<&'b RawValue>, D::Error> {
    <&RawValue>::deserialize(decoder).map(Some)
}

/// Reads a body in one pass.
///
/// # Errors
/// When the body is no JSON object, names no model, or a field read here has a wrong type or comes
/// twice.
pub fn look(body: &[u8]) -> Result<Seen, Refusal> {
    let open = body.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    let fields = match serde_json::from_slice::<Fields<'_>>(body) {
        Ok(fields) if body.get(open) == Some(&b'{') => fields,
        // The slow way names the field at fault.
        _ => return Err(decode::body::<Owned>(body).err().unwrap_or_else(not_an_object)),
    };
    let raw = fields.model.filter(|model| model.get() != "null");
    let name = raw.map(|model| serde_json::from_str::<String>(model.get()));
    let name = name.transpose().map_err(|_| {
        decode::invalid("model", "'model' is not as it should be: a string is wanted")
    })?;
    let model = decode::model(name)?;
    let model_at = raw.map_or(0..0, |model| span(body, model));
    let (asks_usage, options) = options(body, fields.stream_options)?;
    let there = |value: Option<&RawValue>| {
        value.is_some_and(|value| !matches!(value.get(), "null" | "[]" | "{}"))
    };
    let (completion, older) = (fields.max_completion_tokens.flatten(), fields.max_tokens.flatten());
    Ok(Seen {
        model,
        stream: fields.stream.flatten().unwrap_or(false),
        asks_usage,
        // Providers differ in which of the two they go by.
        max_tokens: completion.max(older),
        n: fields.n.flatten().unwrap_or(1),
        has_tools: there(fields.tools),
        has_format: there(fields.response_format) || fields.held,
        is_held: fields.held,
        has_logprobs: fields.logprobs.flatten().unwrap_or(false),
        is_plain: !fields.are_dear() && is_plain(body),
        has_old_limit: older.is_some() && completion.is_none(),
        unknown: fields.unknown,
        body_open: open + 1,
        model_at,
        options,
    })
}

impl Seen {
    /// Whether all of the body's fields are known to cost no more than its length and its limit. A
    /// provider may do and charge more for one that is not: other models, plugins, another limit.
    pub const fn is_bounded(&self, kind: Kind) -> bool {
        let [openai, anthropic] = self.unknown;
        match kind {
            Kind::OpenAi => !openai,
            Kind::Anthropic => !anthropic,
        }
    }

    /// The body with what is changed in it; none where that is nothing.
    pub fn rewrite(&self, body: &[u8], rewrite: Rewrite<'_>) -> Option<Vec<u8>> {
        let asks_usage = rewrite.ask_usage && self.stream && !self.asks_usage;
        if rewrite.limit.is_none() && rewrite.model.is_none() && !asks_usage {
            return None;
        }
        let mut changes: Vec<(Range<usize>, Vec<u8>)> = Vec::with_capacity(3);
        if let Some((field, tokens)) = rewrite.limit {
            let text = format!("\"{field}\":{tokens},").into_bytes();
            changes.push((self.body_open..self.body_open, text));
        }
        if let Some(model) = rewrite.model {
            let mut text = Vec::with_capacity(model.len() + 2);
            json::value(&mut text, model);
            changes.push((self.model_at.clone(), text));
        }
        if asks_usage {
            changes.push(match &self.options {
                Options::Absent => {
                    let text = &b"\"stream_options\":{\"include_usage\":true},"[..];
                    (self.body_open..self.body_open, text.to_vec())
                }
                Options::Present { at, text } => (at.clone(), text.as_bytes().to_vec()),
            });
        }
        changes.sort_by_key(|(at, _)| at.start);
        let more: usize = changes.iter().map(|(_, text)| text.len()).sum();
        let mut out = Vec::with_capacity(body.len() + more);
        let mut from = 0;
        for (at, text) in changes {
            out.extend_from_slice(body.get(from..at.start).unwrap_or_default());
            out.extend_from_slice(&text);
            from = at.end;
        }
        out.extend_from_slice(body.get(from..).unwrap_or_default());
        Some(out)
    }
}

fn options(body: &[u8], field: Option<&RawValue>) -> Result<(bool, Options), Refusal> {
    let Some(field) = field else { return Ok((false, Options::Absent)) };
    let at = span(body, field);
    if field.get() == "null" {
        return Ok((false, Options::Present { at, text: "{\"include_usage\":true}" }));
    }
    let wrong = || decode::invalid("stream_options", "'stream_options' must be an object");
    let inner = match field.get().starts_with('{') {
        true => serde_json::from_str::<StreamOptions<'_>>(field.get()).map_err(|_| wrong())?,
        false => return Err(wrong()),
    };
    if let Some(asked) = inner.include_usage {
        let at = span(body, asked);
        return Ok((asked.get() == "true", Options::Present { at, text: "true" }));
    }
    let empty = field.get()[1..].trim_start() == "}";
    let text = if empty { "\"include_usage\":true" } else { "\"include_usage\":true," };
    Ok((false, Options::Present { at: at.start + 1..at.start + 1, text }))
}

/// Values of `type` that stand for text, tools, schemas and settings. Whatever else there is, now
/// or later, may cost more than its bytes.
const PLAIN_TYPES: [&str; 24] = [
    "text",
    "function",
    "tool_use",
    "tool_result",
    "tool",
    "auto",
    "any",
    "none",
    "refusal",
    "thinking",
    "redacted_thinking",
    "enabled",
    "disabled",
    "adaptive",
    "text_delta",
    "json_object",
    "json_schema",
    "object",
    "array",
    "string",
    "number",
    "integer",
    "boolean",
    "null",
];

/// What is looked for in every body; made once, since making costs more than looking.
static KIND: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"type\""));

/// Whether every `type` in a body is one of the plain ones. A name that is written with escapes
/// counts as not plain.
fn is_plain(body: &[u8]) -> bool {
    // ASCII written as an escape, in which a name could hide; real writers escape no such letter.
    let hides = |at: usize| {
        body[at..].starts_with(b"\\u00") && matches!(body.get(at + 4), Some(b'2'..=b'7'))
    };
    // Changes what a token costs, and may stand anywhere. Texts have few of its middle byte.
    let caches =
        |at: usize| body[..at].ends_with(b"\"cache") && body[at..].starts_with(b"_control\"");
    let plain = |at: usize| {
        let after = body[at + KIND.needle().len()..].trim_ascii_start();
        let Some(value) = after.strip_prefix(b":") else {
            // The word itself as a value, or as a text.
            return true;
        };
        let Some(value) = value.trim_ascii_start().strip_prefix(b"\"") else { return false };
        let end = memchr(b'"', value).unwrap_or(0);
        PLAIN_TYPES.iter().any(|plain| plain.as_bytes() == &value[..end])
    };
    !memchr_iter(b'\\', body).any(hides)
        && KIND.find_iter(body).all(plain)
        && !memchr_iter(b'_', body).any(caches)
}

/// Where a borrowed value lies in the body it was borrowed from.
fn span(body: &[u8], value: &RawValue) -> Range<usize> {
    let start = (value.get().as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
    start..start + value.get().len()
}

/// The same fields, owned, to name the one at fault.
#[derive(Deserialize)]
#[expect(dead_code, reason = "decoded only for the error")]
struct Owned {
    model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<json::Json>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u64>,
    tools: Option<json::Json>,
    response_format: Option<json::Json>,
    logprobs: Option<bool>,
    web_search_options: Option<json::Json>,
    modalities: Option<json::Json>,
    service_tier: Option<json::Json>,
    mcp_servers: Option<json::Json>,
}

fn not_an_object() -> Refusal {
    decode::invalid("model", "the body must be a JSON object")
}
