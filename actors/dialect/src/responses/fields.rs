//! Server side: the body of a request becomes a canonical one.
//!
//! Owns every field but the items of `input`.

use schemars::JsonSchema;
use selvedge_base::Refusal;
use serde::Deserialize;

use super::items;
use crate::chat::{
    ChatRequest, Extension, Format, Function, LogProbs, Message, Reasoning, Role, Sampling, Tool,
    ToolChoice,
};
use crate::decode::{self, List, Pairs, TextOr, invalid, number, required, whole};
use crate::exchange::Dialect;
use crate::json::Json;
use crate::number::Number;
use crate::openai::{effort, function_name};

const SELF: Dialect = Dialect::Responses;
/// Alternatives per token, as the API allows.
const TOP_LOGPROBS: i64 = 20;
/// What must be included for log probabilities to come.
pub(super) const LOGPROBS: &str = "message.output_text.logprobs";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Body {
    #[schemars(required)]
    model: Option<String>,
    #[schemars(required)]
    input: Option<TextOr<Json>>,
    instructions: Option<String>,
    max_output_tokens: Option<i64>,
    temperature: Option<Number>,
    top_p: Option<Number>,
    top_logprobs: Option<i64>,
    include: Option<List<String>>,
    tools: Option<List<Json>>,
    tool_choice: Option<Json>,
    parallel_tool_calls: Option<bool>,
    text: Option<TextField>,
    reasoning: Option<ReasoningField>,
    stream: Option<bool>,
    stream_options: Option<Json>,
    metadata: Option<Pairs<String>>,
    user: Option<String>,
    safety_identifier: Option<String>,
    prompt_cache_key: Option<String>,
    service_tier: Option<String>,
    // What only this dialect has.
    background: Option<Json>,
    context_management: Option<Json>,
    conversation: Option<Json>,
    max_tool_calls: Option<Json>,
    moderation: Option<Json>,
    previous_response_id: Option<Json>,
    prompt: Option<Json>,
    prompt_cache_retention: Option<Json>,
    store: Option<Json>,
    truncation: Option<Json>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TextField {
    format: Option<FormatField>,
    verbosity: Option<Json>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FormatField {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    description: Option<String>,
    schema: Option<Json>,
    strict: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReasoningField {
    effort: Option<String>,
    summary: Option<Json>,
    generate_summary: Option<Json>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionField {
    #[serde(rename = "type")]
    _kind: String,
    name: String,
    description: Option<String>,
    parameters: Option<Json>,
    strict: Option<bool>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

/// What a body of `POST /v1/responses` may hold, as JSON Schema.
pub fn body_schema() -> serde_json::Value {
    crate::schema::of::<Body>()
}

/// The canonical request that a body of `POST /v1/responses` means.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse(bytes: &[u8]) -> Result<ChatRequest, Refusal> {
    let mut body: Body = decode::body(bytes)?;
    let mut extensions = extensions(&mut body);
    let mut messages: Vec<Message> =
        body.instructions.into_iter().map(|text| Message::text(Role::System, text)).collect();
    messages.extend(items::messages(body.input.ok_or_else(|| required("input"))?)?);
    let logprobs = logprobs(body.include, body.top_logprobs, &mut extensions)?;
    let tools = body.tools.unwrap_or_default().0.into_iter().enumerate();
    let format = body.text.and_then(|text| text.format).map(format).transpose()?.flatten();
    let effort_word = body.reasoning.and_then(|reasoning| reasoning.effort);
    let effort = effort_word.as_deref().map(effort).transpose()?;
    Ok(ChatRequest {
        model: decode::model(body.model)?,
        messages,
        tools: tools.map(|(at, tool)| self::tool(at, tool)).collect::<Result<_, _>>()?,
        tool_choice: body.tool_choice.map(choice).transpose()?,
        parallel_tool_calls: body.parallel_tool_calls,
        format,
        sampling: Sampling {
            temperature: number("temperature", body.temperature, 0..=2)?,
            top_p: number("top_p", body.top_p, 0..=1)?,
            ..Sampling::default()
        },
        max_tokens: whole("max_output_tokens", body.max_output_tokens, 1..=i64::from(u32::MAX))?,
        logprobs,
        stream: body.stream.unwrap_or(false),
        include_usage: true,
        reasoning: effort.map(|effort| Reasoning { effort: Some(effort), ..Default::default() }),
        user: body.user,
        safety_id: body.safety_identifier,
        cache_key: body.prompt_cache_key,
        metadata: body.metadata.unwrap_or_default().0,
        service_tier: body.service_tier,
        extensions,
        ..ChatRequest::default()
    })
}

fn extensions(body: &mut Body) -> Vec<Extension> {
    let unless = |value: Option<Json>, plain: &str| value.filter(|value| value.text() != plain);
    let (mut summary, mut older) = (None, None);
    if let Some(reasoning) = &mut body.reasoning {
        (summary, older) = (reasoning.summary.take(), reasoning.generate_summary.take());
    }
    let verbosity = body.text.as_mut().and_then(|text| text.verbosity.take());
    let fields = [
        ("background", unless(body.background.take(), "false")),
        ("context_management", body.context_management.take()),
        ("conversation", body.conversation.take()),
        ("max_tool_calls", body.max_tool_calls.take()),
        ("moderation", body.moderation.take()),
        ("previous_response_id", body.previous_response_id.take()),
        ("prompt", body.prompt.take()),
        ("prompt_cache_retention", body.prompt_cache_retention.take()),
        ("reasoning.generate_summary", older),
        ("reasoning.summary", summary),
        ("store", unless(body.store.take(), "false")),
        ("stream_options", body.stream_options.take()),
        ("text.verbosity", unless(verbosity, "\"medium\"")),
        ("truncation", unless(body.truncation.take(), "\"disabled\"")),
    ];
    let extension = |(name, value): (&str, Option<Json>)| {
        let name = name.to_owned();
        value.map(|value| Extension { dialect: SELF, name, value })
    };
    fields.into_iter().filter_map(extension).collect()
}

fn logprobs(
    include: Option<List<String>>,
    top: Option<i64>,
    extensions: &mut Vec<Extension>,
) -> Result<Option<LogProbs>, Refusal> {
    let (own, other): (Vec<_>, Vec<_>) =
        include.unwrap_or_default().0.into_iter().partition(|name| name == LOGPROBS);
    if !other.is_empty()
        && let Ok(value) = Json::of(&other)
    {
        extensions.push(Extension { dialect: SELF, name: "include".to_owned(), value });
    }
    let top = whole("top_logprobs", top, 0..=TOP_LOGPROBS)?;
    match (own.is_empty(), top) {
        (true, None | Some(0)) => Ok(None),
        (true, Some(_)) => {
            let message = format!("'top_logprobs' needs \"{LOGPROBS}\" in 'include'");
            Err(invalid("top_logprobs", message))
        }
        (false, top) => Ok(Some(LogProbs { top: top.unwrap_or(0) as u8 })),
    }
}

fn format(field: FormatField) -> Result<Option<Format>, Refusal> {
    match field.kind.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some(Format::JsonObject)),
        "json_schema" => {
            let path = "text.format.schema";
            let schema = decode::object(path, field.schema.ok_or_else(|| required(path))?)?;
            let FormatField { name, description, strict, .. } = field;
            Ok(Some(Format::JsonSchema { name, description, schema, strict }))
        }
        _ => {
            let message = "'type' must be text, json_object or json_schema";
            Err(invalid("text.format.type", message))
        }
    }
}

fn tool(at: usize, value: Json) -> Result<Tool, Refusal> {
    if !value.has_type(&["function"]) {
        let path = format!("tools[{at}]");
        // Decoded so that what is no object with a type is noticed.
        let _: Named = decode::inside(&path, &value)?;
        return Ok(Tool::Native { dialect: SELF, value });
    }
    let field: FunctionField = decode::inside(&format!("tools[{at}]"), &value)?;
    function_name(&format!("tools[{at}].name"), &field.name)?;
    let path = format!("tools[{at}].parameters");
    let schema = field.parameters.map(|schema| decode::object(&path, schema)).transpose()?;
    let FunctionField { name, description, strict, .. } = field;
    Ok(Tool::Function(Function { name, description, schema, strict, ..Function::default() }))
}

fn choice(value: Json) -> Result<ToolChoice, Refusal> {
    match value.text() {
        "\"auto\"" => Ok(ToolChoice::Auto),
        "\"none\"" => Ok(ToolChoice::None),
        "\"required\"" => Ok(ToolChoice::Required),
        _ if value.has_type(&["function"]) => {
            let named: Named = decode::inside("tool_choice", &value)?;
            named.name.map(ToolChoice::Named).ok_or_else(|| required("tool_choice.name"))
        }
        text if text.starts_with('{') => Ok(ToolChoice::Native { dialect: SELF, value }),
        _ => {
            let message = "'tool_choice' must be \"none\", \"auto\", \"required\", or name a tool";
            Err(invalid("tool_choice", message))
        }
    }
}
