//! Server side: the body of a chat becomes a canonical request.
//!
//! Owns every field of the body but its messages. Ranges are those of the API reference.

use schemars::JsonSchema;
use selvedge_base::Refusal;
use serde::Deserialize;

use super::messages::{self, Message};
use crate::chat::held::Given;
use crate::chat::{
    ChatRequest, Effort, Extension, Format, Function, LogProbs, Reasoning, Sampling, Tool,
    ToolChoice,
};
use crate::decode::{self, List, Pairs, TextOr, invalid, number, required, unsupported, whole};
use crate::exchange::Dialect;
use crate::json::Json;
use crate::limits::CHOICES;
use crate::number::Number;
use crate::objects;

/// Stop texts, as the API allows.
const STOPS: usize = 4;
/// Alternatives per token, as the API allows.
const TOP_LOGPROBS: i64 = 20;
/// Tools in one request, as the API allows.
const TOOLS: usize = 128;
/// Pairs in `metadata`, as the API allows.
const METADATA_PAIRS: usize = 16;

/// A body. `null` counts as absent everywhere, as the official clients mean it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Body {
    #[schemars(required)]
    model: Option<String>,
    #[schemars(required)]
    messages: Option<List<Message>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    temperature: Option<Number>,
    top_p: Option<Number>,
    top_k: Option<i64>,
    min_p: Option<Number>,
    presence_penalty: Option<Number>,
    frequency_penalty: Option<Number>,
    repetition_penalty: Option<Number>,
    seed: Option<i64>,
    logit_bias: Option<Pairs<Number>>,
    stop: Option<TextOr<String>>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
    n: Option<i64>,
    tools: Option<List<ToolField>>,
    tool_choice: Option<Json>,
    parallel_tool_calls: Option<bool>,
    functions: Option<Json>,
    function_call: Option<Json>,
    response_format: Option<FormatField>,
    reasoning_effort: Option<String>,
    user: Option<String>,
    safety_identifier: Option<String>,
    prompt_cache_key: Option<String>,
    metadata: Option<Pairs<String>>,
    service_tier: Option<String>,
    // What only this dialect has.
    #[schemars(with = "Option<Given>")]
    structured_outputs: Option<Json>,
    /// A grammar in GBNF, whose rule `root` is the answer.
    #[schemars(with = "Option<String>")]
    grammar: Option<Json>,
    guided_json: Option<Json>,
    #[schemars(with = "Option<String>")]
    guided_regex: Option<Json>,
    #[schemars(with = "Option<List<String>>")]
    guided_choice: Option<Json>,
    #[schemars(with = "Option<String>")]
    guided_grammar: Option<Json>,
    audio: Option<Json>,
    modalities: Option<Json>,
    moderation: Option<Json>,
    prediction: Option<Json>,
    prompt_cache_retention: Option<Json>,
    store: Option<Json>,
    verbosity: Option<Json>,
    web_search_options: Option<Json>,
}

/// The fields that say how tokens are drawn, of a chat or of a text.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    pub(super) temperature: Option<Number>,
    pub(super) top_p: Option<Number>,
    pub(super) top_k: Option<i64>,
    pub(super) min_p: Option<Number>,
    pub(super) presence_penalty: Option<Number>,
    pub(super) frequency_penalty: Option<Number>,
    pub(super) repetition_penalty: Option<Number>,
    pub(super) seed: Option<i64>,
    pub(super) logit_bias: Option<Pairs<Number>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamOptions {
    include_usage: Option<bool>,
    include_obfuscation: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ToolField {
    #[serde(rename = "type")]
    kind: String,
    function: Option<FunctionField>,
    custom: Option<Json>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FunctionField {
    name: String,
    description: Option<String>,
    parameters: Option<Json>,
    strict: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FormatField {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<SchemaField>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SchemaField {
    name: String,
    description: Option<String>,
    schema: Option<Json>,
    strict: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChoiceField {
    #[serde(rename = "type")]
    kind: String,
    function: Option<NameField>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameField {
    name: String,
}

/// What a body of `POST /v1/chat/completions` may hold, as JSON Schema.
pub fn body_schema() -> serde_json::Value {
    crate::schema::of::<Body>()
}

/// The canonical request that a body of `POST /v1/chat/completions` means.
///
/// # Errors
/// A refusal that names the field which is unknown, of a wrong type or out of range.
pub fn parse(bytes: &[u8]) -> Result<ChatRequest, Refusal> {
    let mut body: Body = decode::body(bytes)?;
    refuse_retired(&body)?;
    let stream = body.stream.unwrap_or(false);
    let mut extensions = extensions(&mut body);
    let include_usage = stream_options(body.stream_options.take(), stream, &mut extensions)?;
    let n = whole("n", body.n, 1..=i64::from(CHOICES))?;
    let logprobs = logprobs(body.logprobs, body.top_logprobs)?;
    let max_tokens = max_tokens(body.max_tokens, body.max_completion_tokens)?;
    let sampling = sampling(Drawing {
        temperature: body.temperature,
        top_p: body.top_p,
        top_k: body.top_k,
        min_p: body.min_p,
        presence_penalty: body.presence_penalty,
        frequency_penalty: body.frequency_penalty,
        repetition_penalty: body.repetition_penalty,
        seed: body.seed,
        logit_bias: body.logit_bias,
    })?;
    let metadata = body.metadata.unwrap_or_default().0;
    if metadata.len() > METADATA_PAIRS {
        let message = format!("'metadata' must be an object of at most {METADATA_PAIRS} strings");
        return Err(invalid("metadata", message));
    }
    let effort = body.reasoning_effort.as_deref().map(effort).transpose()?;
    Ok(ChatRequest {
        model: decode::model(body.model)?,
        messages: messages::canonical(body.messages.map(|list| list.0))?,
        tools: tools(body.tools.unwrap_or_default().0)?,
        tool_choice: body.tool_choice.map(tool_choice).transpose()?,
        parallel_tool_calls: body.parallel_tool_calls,
        format: body.response_format.map(format).transpose()?,
        sampling,
        max_tokens,
        stop: stop(body.stop)?,
        logprobs,
        n,
        stream,
        include_usage,
        reasoning: effort.map(|effort| Reasoning { effort: Some(effort), ..Default::default() }),
        user: body.user,
        safety_id: body.safety_identifier,
        cache_key: body.prompt_cache_key,
        metadata,
        service_tier: body.service_tier,
        extensions,
        ..ChatRequest::default()
    })
}

fn refuse_retired(body: &Body) -> Result<(), Refusal> {
    for (name, value, instead) in [
        ("functions", &body.functions, "tools"),
        ("function_call", &body.function_call, "tool_choice"),
    ] {
        if value.is_some() {
            let message = format!("'{name}' is retired and not supported; use '{instead}'");
            return Err(unsupported(name, message));
        }
    }
    Ok(())
}

fn extensions(body: &mut Body) -> Vec<Extension> {
    let fields = [
        ("structured_outputs", body.structured_outputs.take()),
        ("grammar", body.grammar.take()),
        ("guided_json", body.guided_json.take()),
        ("guided_regex", body.guided_regex.take()),
        ("guided_choice", body.guided_choice.take()),
        ("guided_grammar", body.guided_grammar.take()),
        ("audio", body.audio.take()),
        ("modalities", body.modalities.take().filter(|value| value.compact() != "[\"text\"]")),
        ("moderation", body.moderation.take()),
        ("prediction", body.prediction.take()),
        ("prompt_cache_retention", body.prompt_cache_retention.take()),
        ("store", body.store.take().filter(|value| value.text() != "false")),
        ("verbosity", body.verbosity.take().filter(|value| value.text() != "\"medium\"")),
        ("web_search_options", body.web_search_options.take()),
    ];
    let extension = |(name, value): (&str, Option<Json>)| {
        let name = name.to_owned();
        value.map(|value| Extension { dialect: Dialect::OpenAi, name, value })
    };
    fields.into_iter().filter_map(extension).collect()
}

pub(super) fn stream_options(
    options: Option<StreamOptions>,
    stream: bool,
    extensions: &mut Vec<Extension>,
) -> Result<bool, Refusal> {
    let Some(options) = options else { return Ok(false) };
    if !stream {
        return Err(invalid("stream_options", "'stream_options' needs 'stream': true"));
    }
    if let Some(obfuscate) = options.include_obfuscation {
        // Only a target of this dialect adds noise, so only there it can be asked for.
        let text = if obfuscate { "true" } else { "false" };
        if let (true, Ok(value)) = (obfuscate, Json::parse(text)) {
            let name = "stream_options.include_obfuscation".to_owned();
            extensions.push(Extension { dialect: Dialect::OpenAi, name, value });
        }
    }
    Ok(options.include_usage.unwrap_or(false))
}

fn logprobs(on: Option<bool>, top: Option<i64>) -> Result<Option<LogProbs>, Refusal> {
    match (on.unwrap_or(false), whole("top_logprobs", top, 0..=TOP_LOGPROBS)?) {
        (true, top) => Ok(Some(LogProbs { top: top.unwrap_or(0) as u8 })),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(invalid("top_logprobs", "'top_logprobs' needs 'logprobs': true")),
    }
}

fn max_tokens(old: Option<i64>, new: Option<i64>) -> Result<Option<u32>, Refusal> {
    let range = 1..=i64::from(u32::MAX);
    let old = whole("max_tokens", old, range.clone())?;
    let new = whole("max_completion_tokens", new, range)?;
    if old.is_some() && new.is_some() && old != new {
        let message = "'max_tokens' and 'max_completion_tokens' differ; give one of them";
        return Err(invalid("max_tokens", message));
    }
    Ok(new.or(old))
}

pub(super) fn sampling(body: Drawing) -> Result<Sampling, Refusal> {
    let penalty = -2..=2;
    let bias = body.logit_bias.unwrap_or_default().0;
    let bias = bias.into_iter().map(|(token, bias)| match token.parse::<u32>() {
        Ok(token) if bias.is_within(-100, 100) => Ok((token, bias)),
        _ => Err(invalid("logit_bias", "'logit_bias' maps token ids to -100 to 100")),
    });
    Ok(Sampling {
        temperature: number("temperature", body.temperature, 0..=2)?,
        top_p: number("top_p", body.top_p, 0..=1)?,
        top_k: whole("top_k", body.top_k.filter(|top| *top > 0), 0..=i64::from(u32::MAX))?,
        min_p: number("min_p", body.min_p, 0..=1)?,
        presence_penalty: number("presence_penalty", body.presence_penalty, penalty.clone())?,
        frequency_penalty: number("frequency_penalty", body.frequency_penalty, penalty)?,
        repetition_penalty: number("repetition_penalty", body.repetition_penalty, 0..=2)?,
        seed: body.seed,
        logit_bias: bias.collect::<Result<_, _>>()?,
    })
}

pub(super) fn stop(stop: Option<TextOr<String>>) -> Result<Vec<String>, Refusal> {
    let stop = stop.map(TextOr::into_list).unwrap_or_default();
    if stop.len() > STOPS || stop.iter().any(String::is_empty) {
        let message = format!("'stop' may be at most {STOPS} strings, none of them empty");
        return Err(invalid("stop", message));
    }
    Ok(stop)
}

/// A word of effort.
pub(crate) fn effort(word: &str) -> Result<Effort, Refusal> {
    Effort::from_word(word).filter(|effort| *effort != Effort::Max).ok_or_else(|| {
        let message = "'reasoning_effort' must be none, minimal, low, medium, high or xhigh";
        invalid("reasoning_effort", message)
    })
}

fn tools(fields: Vec<ToolField>) -> Result<Vec<Tool>, Refusal> {
    if fields.len() > TOOLS {
        return Err(invalid("tools", format!("'tools' may hold at most {TOOLS} tools")));
    }
    fields.into_iter().enumerate().map(|(at, field)| tool(at, field)).collect()
}

fn tool(at: usize, field: ToolField) -> Result<Tool, Refusal> {
    let path = |name: &str| format!("tools[{at}].{name}");
    match (field.kind.as_str(), field.function, field.custom) {
        ("function", Some(function), None) => {
            function_name(&path("function.name"), &function.name)?;
            let schema = function
                .parameters
                .map(|schema| decode::object(&path("function.parameters"), schema))
                .transpose()?;
            let (name, description) = (function.name, function.description);
            let strict = function.strict;
            Ok(Tool::Function(Function {
                name,
                description,
                schema,
                strict,
                ..Function::default()
            }))
        }
        ("custom", None, Some(custom)) => {
            let value =
                Json::parse(format!("{{\"type\":\"custom\",\"custom\":{}}}", custom.text()));
            let value = value.map_err(|_| required(&path("custom")))?;
            Ok(Tool::Native { dialect: Dialect::OpenAi, value })
        }
        ("function", ..) => Err(required(&path("function"))),
        ("custom", ..) => Err(required(&path("custom"))),
        _ => Err(invalid(&path("type"), "'type' must be \"function\" or \"custom\"")),
    }
}

/// Names of functions are words, here and at most providers.
pub(crate) fn function_name(field: &str, name: &str) -> Result<(), Refusal> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (1..=128).contains(&name.len()) && name.bytes().all(word) {
        return Ok(());
    }
    let message = format!("'{field}' must be 1 to 128 letters, digits, '_', '-' or '.'");
    Err(invalid(field, message))
}

fn tool_choice(value: Json) -> Result<ToolChoice, Refusal> {
    let wrong = || {
        let message = "'tool_choice' must be \"none\", \"auto\", \"required\", or name a function";
        invalid("tool_choice", message)
    };
    match value.text() {
        "\"auto\"" => return Ok(ToolChoice::Auto),
        "\"none\"" => return Ok(ToolChoice::None),
        "\"required\"" => return Ok(ToolChoice::Required),
        text if !text.starts_with('{') => return Err(wrong()),
        _ => {}
    }
    match objects::from_slice::<ChoiceField>(value.text().as_bytes()) {
        Ok(ChoiceField { kind, function: Some(function) }) if kind == "function" => {
            Ok(ToolChoice::Named(function.name))
        }
        _ if value.has_type(&["allowed_tools", "custom"]) => {
            Ok(ToolChoice::Native { dialect: Dialect::OpenAi, value })
        }
        _ => Err(wrong()),
    }
}

fn format(field: FormatField) -> Result<Format, Refusal> {
    match (field.kind.as_str(), field.json_schema) {
        ("text", None) => Ok(Format::Text),
        ("json_object", None) => Ok(Format::JsonObject),
        ("json_schema", Some(schema)) => {
            let path = "response_format.json_schema.schema";
            let value = schema.schema.ok_or_else(|| required(path))?;
            Ok(Format::JsonSchema {
                name: Some(schema.name),
                description: schema.description,
                schema: decode::object(path, value)?,
                strict: schema.strict,
            })
        }
        ("json_schema", None) => Err(required("response_format.json_schema")),
        ("text" | "json_object", Some(_)) => {
            let message = "'json_schema' needs 'type': \"json_schema\"";
            Err(invalid("response_format.json_schema", message))
        }
        _ => {
            let message = "'type' must be text, json_object or json_schema";
            Err(invalid("response_format.type", message))
        }
    }
}
