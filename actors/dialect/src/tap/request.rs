//! A request's bytes: what is read of them, and how they are changed.
//!
//! Owns one borrowed pass over the body. Fields that are not named here are skipped, not judged; a
//! named field that comes twice is refused, since two readers could disagree on which one counts.

use std::ops::Range;

use selvedge_base::Refusal;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

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
    /// Where the model's JSON string lies.
    model_at: Range<usize>,
    options: Options,
}

/// Where `stream_options` can be made to ask for usage.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Options {
    /// It is absent: right after the body's opening brace.
    Absent { body_open: usize },
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
    let (asks_usage, options) = options(body, open, fields.stream_options)?;
    let there = |value: Option<&RawValue>| {
        value.is_some_and(|value| !matches!(value.get(), "null" | "[]" | "{}"))
    };
    Ok(Seen {
        model,
        stream: fields.stream.unwrap_or(false),
        asks_usage,
        max_tokens: fields.max_completion_tokens.or(fields.max_tokens),
        n: fields.n.unwrap_or(1),
        has_tools: there(fields.tools),
        has_format: there(fields.response_format),
        has_logprobs: fields.logprobs.unwrap_or(false),
        model_at,
        options,
    })
}

impl Seen {
    /// The body with another model, and, if `ask_usage`, with usage asked for at the end of the
    /// stream (OpenAI; nothing changes when the client asked itself).
    pub fn rewrite(&self, body: &[u8], model: Option<&str>, ask_usage: bool) -> Vec<u8> {
        let mut changes: Vec<(Range<usize>, Vec<u8>)> = Vec::with_capacity(2);
        if let Some(model) = model {
            let mut text = Vec::with_capacity(model.len() + 2);
            json::value(&mut text, model);
            changes.push((self.model_at.clone(), text));
        }
        if ask_usage && self.stream && !self.asks_usage {
            changes.push(match &self.options {
                Options::Absent { body_open } => {
                    let text = &b"\"stream_options\":{\"include_usage\":true},"[..];
                    (*body_open..*body_open, text.to_vec())
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

fn options(body: &[u8], open: usize, field: Option<&RawValue>) -> Result<(bool, Options), Refusal> {
    let Some(field) = field else {
        return Ok((false, Options::Absent { body_open: open + 1 }));
    };
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
}

fn not_an_object() -> Refusal {
    decode::invalid("model", "the body must be a JSON object")
}
