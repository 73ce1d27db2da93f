//! A request's bytes: what is read of them, and how they are changed.
//!
//! Owns one borrowed pass over the body. Fields that are not named here are skipped, not judged; a
//! named field that comes twice is refused, since two readers could disagree on which one counts.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;
use selvedge_base::Refusal;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Kind;
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
    /// Whether an answer in JSON is asked for.
    pub has_format: bool,
    /// Whether log probabilities are asked for.
    pub has_logprobs: bool,
    /// Whether there is nothing in it but text and tools, so that it has no more tokens than bytes,
    /// and nothing that a service of the provider's own adds to it.
    pub is_plain: bool,
    /// Whether the limit stands in the field that OpenAI's newer models refuse.
    pub has_old_limit: bool,
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

#[derive(Deserialize)]
struct Fields<'b> {
    #[serde(borrow, default, deserialize_with = "raw")]
    model: Option<&'b RawValue>,
    stream: Option<bool>,
    #[serde(borrow, default, deserialize_with = "raw")]
    stream_options: Option<&'b RawValue>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u64>,
    #[serde(borrow, default, deserialize_with = "raw")]
    tools: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "raw")]
    response_format: Option<&'b RawValue>,
    logprobs: Option<bool>,
    // What changes the price of a token, or has more read or made than text.
    web_search_options: Option<IgnoredAny>,
    modalities: Option<IgnoredAny>,
    service_tier: Option<IgnoredAny>,
    mcp_servers: Option<IgnoredAny>,
}

impl Fields<'_> {
    const fn are_dear(&self) -> bool {
        self.web_search_options.is_some()
            || self.modalities.is_some()
            || self.service_tier.is_some()
            || self.mcp_servers.is_some()
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
    Ok(Seen {
        model,
        stream: fields.stream.unwrap_or(false),
        asks_usage,
        // Providers differ in which of the two they go by.
        max_tokens: fields.max_completion_tokens.max(fields.max_tokens),
        n: fields.n.unwrap_or(1),
        has_tools: there(fields.tools),
        has_format: there(fields.response_format),
        has_logprobs: fields.logprobs.unwrap_or(false),
        is_plain: !fields.are_dear() && is_plain(body),
        has_old_limit: fields.max_tokens.is_some() && fields.max_completion_tokens.is_none(),
        body_open: open + 1,
        model_at,
        options,
    })
}

impl Seen {
    /// The body with what is changed in it.
    pub fn rewrite(&self, body: &[u8], rewrite: Rewrite<'_>) -> Vec<u8> {
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
        if rewrite.ask_usage && self.stream && !self.asks_usage {
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
        out
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
struct Finders {
    /// The beginning of a character written as an escape.
    escape: Finder<'static>,
    kind: Finder<'static>,
    /// Changes what a token costs, and may stand anywhere.
    cache: Finder<'static>,
}

static FINDERS: LazyLock<Finders> = LazyLock::new(|| Finders {
    escape: Finder::new("\\u00"),
    kind: Finder::new("\"type\""),
    cache: Finder::new("\"cache_control\""),
});

/// Whether every `type` in a body is one of the plain ones. A name that is written with escapes
/// counts as not plain.
fn is_plain(body: &[u8]) -> bool {
    let Finders { escape, kind, cache } = &*FINDERS;
    // ASCII written as an escape, in which a name could hide; real writers escape no such letter.
    let hidden = escape.find_iter(body).any(|at| matches!(body.get(at + 4), Some(b'2'..=b'7')));
    let plain = |at: usize| {
        let after = body[at + kind.needle().len()..].trim_ascii_start();
        let Some(value) = after.strip_prefix(b":") else {
            // The word itself as a value, or as a text.
            return true;
        };
        let Some(value) = value.trim_ascii_start().strip_prefix(b"\"") else { return false };
        let end = memchr(b'"', value).unwrap_or(0);
        PLAIN_TYPES.iter().any(|plain| plain.as_bytes() == &value[..end])
    };
    !hidden && kind.find_iter(body).all(plain) && cache.find(body).is_none()
}

/// Fields of OpenAI's chats that cost what the tap makes of them.
const OPENAI_FIELDS: [&str; 28] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "logit_bias",
    "stop",
    "max_tokens",
    "max_completion_tokens",
    "logprobs",
    "top_logprobs",
    "n",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "metadata",
];

/// The same of Anthropic's messages.
const ANTHROPIC_FIELDS: [&str; 13] = [
    "model",
    "messages",
    "max_tokens",
    "system",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "tools",
    "tool_choice",
    "metadata",
    "thinking",
];

/// Whether all of a body's fields are known to cost no more than its length and its limit. A
/// provider may do and charge more for one that is not: other models, plugins, another limit.
pub fn is_bounded(body: &[u8], kind: Kind) -> bool {
    struct Names(Kind);
    impl<'de> Visitor<'de> for Names {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<bool, A::Error> {
            let known: &[&str] = match self.0 {
                Kind::OpenAi => &OPENAI_FIELDS,
                Kind::Anthropic => &ANTHROPIC_FIELDS,
            };
            let mut bounded = true;
            while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
                bounded &= known.contains(&&*name);
                fields.next_value::<IgnoredAny>()?;
            }
            Ok(bounded)
        }
    }
    serde_json::Deserializer::from_slice(body).deserialize_map(Names(kind)).unwrap_or(false)
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
