//! Server side: the bodies of chat and generate become canonical requests.
//!
//! Owns every field but the messages.

use schemars::JsonSchema;
use selvedge_base::Refusal;
use serde::Deserialize;

use super::messages::{self, MessageField};
use crate::chat::{
    ChatRequest, Effort, Extension, Format, Function, LogProbs, Message, Part, Reasoning, Role,
    Sampling, Thinking, Tool,
};
use crate::decode::{self, List, Pairs, TextOr, invalid, number, required, unsupported, whole};
use crate::exchange::Dialect;
use crate::json::Json;
use crate::number::Number;

const SELF: Dialect = Dialect::Ollama;
/// Alternatives per token, as the API allows.
const TOP_LOGPROBS: i64 = 20;
/// Options that only this dialect has; an option that is neither here nor canonical is unknown.
const OPTIONS: &[&str] = &[
    "draft_num_predict",
    "main_gpu",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "num_batch",
    "num_ctx",
    "num_gpu",
    "num_keep",
    "num_thread",
    "numa",
    "penalize_newline",
    "repeat_last_n",
    "tfs_z",
    "typical_p",
    "use_mlock",
    "use_mmap",
    "vocab_only",
];

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Chat {
    #[schemars(required)]
    model: Option<String>,
    #[schemars(required)]
    messages: Option<List<MessageField>>,
    tools: Option<List<ToolField>>,
    stream: Option<bool>,
    format: Option<Json>,
    options: Option<Pairs<Json>>,
    think: Option<Json>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
    keep_alive: Option<Json>,
    shift: Option<Json>,
    truncate: Option<Json>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Generate {
    #[schemars(required)]
    model: Option<String>,
    prompt: Option<String>,
    system: Option<String>,
    images: Option<List<String>>,
    suffix: Option<String>,
    template: Option<String>,
    context: Option<Json>,
    raw: Option<bool>,
    stream: Option<bool>,
    format: Option<Json>,
    options: Option<Pairs<Json>>,
    think: Option<Json>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
    keep_alive: Option<Json>,
    shift: Option<Json>,
    truncate: Option<Json>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ToolField {
    #[serde(rename = "type")]
    kind: String,
    function: FunctionField,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FunctionField {
    name: String,
    description: Option<String>,
    parameters: Option<Json>,
}

/// The fields that chat and generate share.
struct Shared {
    format: Option<Json>,
    options: Option<Pairs<Json>>,
    think: Option<Json>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
    own: [(&'static str, Option<Json>); 3],
}

/// What a body of `POST /api/chat` may hold, as JSON Schema.
pub fn chat_schema() -> serde_json::Value {
    crate::schema::of::<Chat>()
}

/// What a body of `POST /api/generate` may hold, as JSON Schema.
pub fn generate_schema() -> serde_json::Value {
    crate::schema::of::<Generate>()
}

/// The canonical request that a body of `POST /api/chat` means.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse(bytes: &[u8]) -> Result<ChatRequest, Refusal> {
    let body: Chat = decode::body(bytes)?;
    let tools = body.tools.unwrap_or_default().0.into_iter().enumerate();
    let request = ChatRequest {
        model: decode::model(body.model)?,
        messages: messages::canonical(body.messages.map(|list| list.0))?,
        tools: tools.map(|(at, tool)| self::tool(at, tool)).collect::<Result<_, _>>()?,
        stream: body.stream.unwrap_or(true),
        include_usage: true,
        ..ChatRequest::default()
    };
    let own = [("keep_alive", body.keep_alive), ("shift", body.shift), ("truncate", body.truncate)];
    let (format, options, think) = (body.format, body.options, body.think);
    let (logprobs, top_logprobs) = (body.logprobs, body.top_logprobs);
    shared(request, Shared { format, options, think, logprobs, top_logprobs, own })
}

/// The canonical request that a body of `POST /api/generate` means: a chat of one message.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse_generate(bytes: &[u8]) -> Result<ChatRequest, Refusal> {
    let body: Generate = decode::body(bytes)?;
    for (name, present) in [
        ("suffix", body.suffix.is_some_and(|suffix| !suffix.is_empty())),
        ("template", body.template.is_some_and(|template| !template.is_empty())),
        ("context", body.context.is_some()),
        ("raw", body.raw == Some(true)),
    ] {
        if present {
            return Err(unsupported(name, format!("'{name}' is not supported; use /api/chat")));
        }
    }
    let prompt = body.prompt.filter(|prompt| !prompt.is_empty());
    let prompt = prompt.ok_or_else(|| required("prompt"))?;
    let mut parts = vec![Part::text(prompt)];
    parts.extend(messages::images("images", body.images)?);
    let system = body.system.filter(|system| !system.is_empty());
    let mut all: Vec<Message> =
        system.into_iter().map(|system| Message::text(Role::System, system)).collect();
    all.push(Message { role: Role::User, parts, ..Message::default() });
    let request = ChatRequest {
        model: decode::model(body.model)?,
        messages: all,
        stream: body.stream.unwrap_or(true),
        include_usage: true,
        ..ChatRequest::default()
    };
    let own = [("keep_alive", body.keep_alive), ("shift", body.shift), ("truncate", body.truncate)];
    let (format, options, think) = (body.format, body.options, body.think);
    let (logprobs, top_logprobs) = (body.logprobs, body.top_logprobs);
    shared(request, Shared { format, options, think, logprobs, top_logprobs, own })
}

fn shared(mut request: ChatRequest, fields: Shared) -> Result<ChatRequest, Refusal> {
    request.format = fields.format.map(format).transpose()?.flatten();
    request.reasoning = fields.think.map(think).transpose()?;
    let top = whole("top_logprobs", fields.top_logprobs, 0..=TOP_LOGPROBS)?;
    request.logprobs = match (fields.logprobs.unwrap_or(false), top) {
        (true, top) => Some(LogProbs { top: top.unwrap_or(0) as u8 }),
        (false, None) => None,
        (false, Some(_)) => {
            return Err(invalid("top_logprobs", "'top_logprobs' needs 'logprobs': true"));
        }
    };
    for (name, value) in fields.options.unwrap_or_default().0 {
        option(&mut request, &name, value)?;
    }
    for (name, value) in fields.own {
        let name = name.to_owned();
        let extension = value.map(|value| Extension { dialect: SELF, name, value });
        request.extensions.extend(extension);
    }
    Ok(request)
}

fn option(request: &mut ChatRequest, name: &str, value: Json) -> Result<(), Refusal> {
    let path = format!("options.{}", name.chars().take(64).collect::<String>());
    fn read<T: serde::de::DeserializeOwned>(path: &str, value: &Json) -> Result<T, Refusal> {
        serde_json::from_str(value.text()).map_err(|_| {
            invalid(path, format!("'{path}' is not as it should be: another type is wanted"))
        })
    }
    let real = |range| number(&path, read::<Option<Number>>(&path, &value)?, range);
    let count = || read::<Option<i64>>(&path, &value);
    let sampling: &mut Sampling = &mut request.sampling;
    match name {
        "temperature" => sampling.temperature = real(0..=2)?,
        "top_p" => sampling.top_p = real(0..=1)?,
        "min_p" => sampling.min_p = real(0..=1)?,
        "repeat_penalty" => sampling.repetition_penalty = real(0..=2)?,
        "presence_penalty" => sampling.presence_penalty = real(-2..=2)?,
        "frequency_penalty" => sampling.frequency_penalty = real(-2..=2)?,
        "top_k" => sampling.top_k = whole(&path, count()?, 0..=i64::from(u32::MAX))?,
        "seed" => sampling.seed = count()?,
        // Below zero is without end.
        "num_predict" => {
            let most = count()?.filter(|most| *most >= 0);
            request.max_tokens = whole(&path, most, 1..=i64::from(u32::MAX))?;
        }
        "stop" => {
            let stop: Option<TextOr<String>> = read(&path, &value)?;
            request.stop = stop.map(TextOr::into_list).unwrap_or_default();
        }
        _ if OPTIONS.contains(&name) => {
            request.extensions.push(Extension { dialect: SELF, name: path, value });
        }
        _ => {
            return Err(invalid(&path, format!("'{path}' is not a parameter of this endpoint")));
        }
    }
    Ok(())
}

fn format(value: Json) -> Result<Option<Format>, Refusal> {
    match value.text() {
        "\"\"" => Ok(None),
        "\"json\"" => Ok(Some(Format::JsonObject)),
        text if text.starts_with('{') => {
            let (name, description, strict) = (None, None, None);
            Ok(Some(Format::JsonSchema { name, description, schema: value, strict }))
        }
        _ => Err(invalid("format", "'format' must be \"json\" or a JSON schema")),
    }
}

fn think(value: Json) -> Result<Reasoning, Refusal> {
    let mut reasoning = Reasoning::default();
    match value.text() {
        "true" => reasoning.thinking = Some(Thinking::On),
        "false" => reasoning.thinking = Some(Thinking::Off),
        "\"low\"" => reasoning.effort = Some(Effort::Low),
        "\"medium\"" => reasoning.effort = Some(Effort::Medium),
        "\"high\"" => reasoning.effort = Some(Effort::High),
        _ => {
            let message = "'think' must be true, false, \"low\", \"medium\" or \"high\"";
            return Err(invalid("think", message));
        }
    }
    Ok(reasoning)
}

fn tool(at: usize, field: ToolField) -> Result<Tool, Refusal> {
    if field.kind != "function" {
        let path = format!("tools[{at}].type");
        return Err(invalid(&path, "'type' must be \"function\""));
    }
    let path = format!("tools[{at}].function.parameters");
    let FunctionField { name, description, parameters } = field.function;
    let schema = parameters.map(|schema| decode::object(&path, schema)).transpose()?;
    Ok(Tool::Function(Function { name, description, schema, ..Function::default() }))
}
