//! The fields of request bodies as they stand in the JSON, before any of them is judged.
//!
//! Owns decoding: one typed struct for both endpoints, the list of fields each endpoint knows, and
//! errors that name the field at fault (which the decoder alone does not tell). Unknown and
//! doubled fields are errors. Ranges and meanings are judged in `params`, `chat` and
//! `completions`.

use std::fmt;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use selvedge_dialect::objects::Objects;
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::errors::Problem;

/// Prompts in one request; each is a sequence of its own in the batch.
pub(super) const MAX_PROMPTS: usize = 16;
/// Tokens in one prompt given as tokens: the longest context of any open model.
const MAX_PROMPT_TOKENS: usize = 1 << 20;
/// Elements of the short lists (`stop`, parts of a message).
const MAX_LIST: usize = 1_024;

/// The fields both endpoints know.
macro_rules! fields {
    ($($own:literal),*) => {
        &[
            "model", "stream", "stream_options", "temperature", "top_p", "top_k", "min_p", "seed",
            "stop", "max_tokens", "presence_penalty", "frequency_penalty", "repetition_penalty",
            "logprobs", "n", "user", "logit_bias", "structured_outputs", "grammar", "guided_json",
            "guided_regex", "guided_choice", "guided_grammar", $($own),*
        ]
    };
}

/// The fields of a chat.
pub(super) const CHAT: &[&str] = fields![
    "messages",
    "max_completion_tokens",
    "top_logprobs",
    "store",
    "metadata",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "modalities",
    "audio",
    "prediction",
    "reasoning_effort",
    "verbosity",
    "service_tier",
    "web_search_options",
    "safety_identifier",
    "prompt_cache_key"
];

/// The fields of a text completion.
pub(super) const TEXT: &[&str] = fields!["prompt", "suffix", "echo", "best_of"];

/// A body. `null` counts as absent everywhere, as the official clients mean it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Fields {
    #[schemars(required)]
    pub(super) model: Option<String>,
    #[schemars(skip)]
    pub(super) messages: Option<Messages>,
    #[schemars(with = "PromptShape")]
    pub(super) prompt: Option<Prompt>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) top_k: Option<i64>,
    pub(super) min_p: Option<f64>,
    #[schemars(with = "Option<i128>")]
    pub(super) seed: Option<Seed>,
    #[schemars(with = "Option<TextsShape>")]
    pub(super) stop: Option<Texts>,
    pub(super) max_tokens: Option<i64>,
    pub(super) max_completion_tokens: Option<i64>,
    pub(super) presence_penalty: Option<f64>,
    pub(super) frequency_penalty: Option<f64>,
    pub(super) repetition_penalty: Option<f64>,
    #[schemars(with = "Option<i64>")]
    pub(super) logprobs: Option<LogProbsField>,
    pub(super) top_logprobs: Option<i64>,
    pub(super) n: Option<i64>,
    pub(super) store: Option<bool>,
    pub(super) echo: Option<bool>,
    pub(super) best_of: Option<i64>,
    pub(super) suffix: Option<String>,
    pub(super) logit_bias: Option<Value>,
    pub(super) metadata: Option<Value>,
    pub(super) tools: Option<Value>,
    pub(super) tool_choice: Option<Value>,
    pub(super) functions: Option<Value>,
    pub(super) function_call: Option<Value>,
    #[schemars(with = "Option<Value>")]
    pub(super) response_format: Option<Box<RawValue>>,
    /// What the answer must be: one of `json`, `json_object`, `regex`, `choice` and `grammar`.
    #[schemars(with = "Option<std::collections::BTreeMap<String, Value>>")]
    pub(super) structured_outputs: Option<Box<RawValue>>,
    /// A grammar in GBNF, whose rule `root` is the answer.
    #[schemars(with = "Option<String>")]
    pub(super) grammar: Option<Box<RawValue>>,
    #[schemars(with = "Option<Value>")]
    pub(super) guided_json: Option<Box<RawValue>>,
    #[schemars(with = "Option<String>")]
    pub(super) guided_regex: Option<Box<RawValue>>,
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) guided_choice: Option<Box<RawValue>>,
    #[schemars(with = "Option<String>")]
    pub(super) guided_grammar: Option<Box<RawValue>>,
    pub(super) modalities: Option<Value>,
    pub(super) audio: Option<Value>,
    pub(super) prediction: Option<Value>,
    pub(super) reasoning_effort: Option<Value>,
    pub(super) verbosity: Option<Value>,
    pub(super) service_tier: Option<Value>,
    pub(super) web_search_options: Option<Value>,
    /// Hints that change no answer: decoded so that a wrong type is noticed.
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<String>,
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<String>,
    /// Means something only with tools, which go another way.
    #[serde(rename = "parallel_tool_calls")]
    _parallel_tool_calls: Option<bool>,
}

impl Fields {
    /// The schema of a body whose fields are `known`, with nothing outside of it.
    pub(super) fn schema(known: &[&str]) -> Value {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        });
        let mut schema = settings.into_generator().into_root_schema_for::<Self>();
        schema.remove("title");
        if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            fields.retain(|name, _| known.contains(&name.as_str()));
        }
        schema.insert("additionalProperties".to_owned(), false.into());
        schema.to_value()
    }

    /// Decodes a body whose fields must be among `known`.
    pub(super) fn decode(body: &[u8], known: &'static [&'static str]) -> Result<Self, Problem> {
        let mut at = Place::default();
        let mut decoder = serde_json::Deserializer::from_slice(body);
        let decoded = Body { known, at: &mut at }.deserialize(Objects(&mut decoder));
        decoded.and_then(|fields| decoder.end().map(|()| fields)).map_err(|error| at.blame(&error))
    }
}

/// `stream_options`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
    pub(super) include_obfuscation: Option<bool>,
}

/// One message of a chat. What only tool calls and audio use must be absent or empty; clients
/// send it as `null` when they return an answer as history.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    pub(super) role: String,
    pub(super) content: Option<Content>,
    pub(super) name: Option<Value>,
    pub(super) refusal: Option<Value>,
    pub(super) annotations: Option<Value>,
    pub(super) audio: Option<Value>,
    pub(super) function_call: Option<Value>,
    pub(super) tool_calls: Option<Value>,
    pub(super) tool_call_id: Option<Value>,
}

/// One part of a message's content.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) text: Option<String>,
    pub(super) refusal: Option<Value>,
    pub(super) image_url: Option<Value>,
    pub(super) input_audio: Option<Value>,
    pub(super) file: Option<Value>,
}

/// A list of messages, bounded.
#[derive(Debug)]
pub(super) struct Messages(pub(super) Vec<Message>);

/// What a message says.
#[derive(Debug)]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// What [`Prompt`] decodes from.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "says a shape, holds nothing")]
enum PromptShape {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Lists(Vec<Vec<u32>>),
}

/// What [`Texts`] decodes from.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "says a shape, holds nothing")]
enum TextsShape {
    One(String),
    Many(Vec<String>),
}

/// One text or several.
#[derive(Debug, PartialEq)]
pub(super) enum Texts {
    One(String),
    Many(Vec<String>),
}

/// What to continue.
#[derive(Debug, PartialEq)]
pub(super) enum Prompt {
    Texts(Vec<String>),
    Tokens(Vec<Vec<u32>>),
}

/// A seed: signed or unsigned, its 64 bits count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seed(pub(super) u64);

/// `logprobs` is a switch for chats and a number for texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LogProbsField {
    Switch(bool),
    Count(i64),
}

/// The field the decoder is at.
#[derive(Default)]
struct Place {
    field: Option<String>,
    unknown: bool,
}

impl Place {
    fn blame(self, error: &serde_json::Error) -> Problem {
        match (error.classify(), self.field) {
            (Category::Data, Some(field)) if self.unknown => {
                let message = format!("'{field}' is not a parameter of this endpoint");
                Problem::invalid(field, message)
            }
            (Category::Data, Some(field)) => {
                let what = format!("'{field}' is not as it should be");
                Problem::json(&what, error).param(field)
            }
            (Category::Data, None) => Problem::json("the body must be a JSON object", error),
            (Category::Syntax | Category::Eof | Category::Io, _) => {
                Problem::json("the body is not valid JSON", error)
            }
        }
    }
}

/// Decodes an object while noting the field it is at.
struct Body<'p> {
    known: &'static [&'static str],
    at: &'p mut Place,
}

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, decoder: D) -> Result<Fields, D::Error> {
        decoder.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Fields, A::Error> {
        let noted = Noted { map, known: self.known, at: self.at };
        Fields::deserialize(MapAccessDeserializer::new(noted))
    }
}

struct Noted<'p, A> {
    map: A,
    known: &'static [&'static str],
    at: &'p mut Place,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Noted<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.at.field = None;
        let Some(key) = self.map.next_key::<String>()? else { return Ok(None) };
        self.at.unknown = !self.known.contains(&key.as_str());
        // A hostile name is cut: it comes back in the error.
        let field = self.at.field.insert(key.chars().take(64).collect());
        if self.at.unknown {
            return Err(A::Error::custom("unknown"));
        }
        seed.deserialize(StrDeserializer::new(field)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads a sequence of at most `limit` elements.
fn bounded<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    mut seq: A,
    limit: usize,
) -> Result<Vec<T>, A::Error> {
    let mut all = Vec::new();
    while let Some(element) = seq.next_element()? {
        if all.len() == limit {
            return Err(A::Error::custom(format_args!("more than {limit} elements")));
        }
        all.push(element);
    }
    Ok(all)
}

/// Implements decoding for a type by the shapes it may have in JSON.
macro_rules! decode {
    ($type:ty, $entry:ident, $expecting:literal, { $($body:tt)* }) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
                struct Shapes;
                impl<'de> Visitor<'de> for Shapes {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    $($body)*
                }
                decoder.$entry(Shapes)
            }
        }
    };
}

decode!(Messages, deserialize_seq, "an array of messages", {
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Messages, A::Error> {
        bounded(seq, selvedge_contract::Limits::MESSAGES).map(Messages)
    }
});

decode!(Content, deserialize_any, "a string or an array of parts", {
    fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Content, A::Error> {
        bounded(seq, MAX_LIST).map(Content::Parts)
    }
});

decode!(Texts, deserialize_any, "a string or an array of strings", {
    fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
        Ok(Texts::One(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Texts, A::Error> {
        bounded(seq, MAX_LIST).map(Texts::Many)
    }
});

decode!(Seed, deserialize_any, "a whole number of 64 bits", {
    fn visit_u64<E: Error>(self, seed: u64) -> Result<Seed, E> {
        Ok(Seed(seed))
    }
    fn visit_i64<E: Error>(self, seed: i64) -> Result<Seed, E> {
        Ok(Seed(seed.cast_unsigned()))
    }
});

decode!(LogProbsField, deserialize_any, "true, false or a whole number", {
    fn visit_bool<E: Error>(self, on: bool) -> Result<LogProbsField, E> {
        Ok(LogProbsField::Switch(on))
    }
    fn visit_u64<E: Error>(self, count: u64) -> Result<LogProbsField, E> {
        Ok(LogProbsField::Count(i64::try_from(count).unwrap_or(i64::MAX)))
    }
    fn visit_i64<E: Error>(self, count: i64) -> Result<LogProbsField, E> {
        Ok(LogProbsField::Count(count))
    }
});

decode!(
    Prompt,
    deserialize_any,
    "a string, or an array of strings, of tokens or of token arrays",
    {
        fn visit_str<E: Error>(self, text: &str) -> Result<Prompt, E> {
            Ok(Prompt::Texts(vec![text.to_owned()]))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
            let (mut texts, mut tokens, mut lists) = (Vec::new(), Vec::new(), Vec::new());
            while let Some(element) = seq.next_element()? {
                match element {
                    Element::Text(text) => texts.push(text),
                    Element::Token(token) => tokens.push(token),
                    Element::Tokens(list) => lists.push(list),
                }
                if texts.len() + lists.len() > MAX_PROMPTS {
                    return Err(A::Error::custom(format_args!("more than {MAX_PROMPTS} prompts")));
                }
                if tokens.len() > MAX_PROMPT_TOKENS {
                    return Err(A::Error::custom("more tokens than any model's context"));
                }
            }
            match (texts.is_empty(), tokens.is_empty(), lists.is_empty()) {
                (false, true, true) => Ok(Prompt::Texts(texts)),
                (true, false, true) => Ok(Prompt::Tokens(vec![tokens])),
                (true, true, false) => Ok(Prompt::Tokens(lists)),
                (true, true, true) => Err(A::Error::custom("the array is empty")),
                _ => Err(A::Error::custom("strings, tokens and token arrays are mixed")),
            }
        }
    }
);

/// One element of a prompt that is an array.
enum Element {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

decode!(Element, deserialize_any, "a string, a token or an array of tokens", {
    fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Text(text.to_owned()))
    }
    fn visit_u64<E: Error>(self, token: u64) -> Result<Element, E> {
        u32::try_from(token).map(Element::Token).map_err(|_| E::custom("not a token"))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Element, A::Error> {
        bounded(seq, MAX_PROMPT_TOKENS).map(Element::Tokens)
    }
});
