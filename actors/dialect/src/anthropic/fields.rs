//! Server side: the body of a request becomes a canonical one.
//!
//! Owns every field of the body but the blocks of its messages.

use schemars::JsonSchema;
use selvedge_base::Refusal;
use serde::Deserialize;

use super::blocks::{self, CacheField, MessageField};
use crate::chat::{
    ChatRequest, Effort, Extension, Format, Function, Reasoning, Role, Sampling, Thinking, Tool,
    ToolChoice,
};
use crate::decode::{self, List, TextOr, invalid, number, required, whole};
use crate::exchange::Dialect;
use crate::json::Json;
use crate::number::Number;

const SELF: Dialect = Dialect::Anthropic;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Body {
    #[schemars(required)]
    model: Option<String>,
    #[schemars(required)]
    max_tokens: Option<i64>,
    #[schemars(required)]
    messages: Option<List<MessageField>>,
    system: Option<TextOr<Json>>,
    temperature: Option<Number>,
    top_p: Option<Number>,
    top_k: Option<i64>,
    stop_sequences: Option<List<String>>,
    stream: Option<bool>,
    metadata: Option<MetadataField>,
    thinking: Option<ThinkingField>,
    tool_choice: Option<ChoiceField>,
    tools: Option<List<Json>>,
    output_config: Option<OutputField>,
    service_tier: Option<String>,
    // What only this dialect has.
    cache_control: Option<Json>,
    container: Option<Json>,
    context_management: Option<Json>,
    inference_geo: Option<Json>,
    mcp_servers: Option<Json>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MetadataField {
    user_id: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ThinkingField {
    #[serde(rename = "type")]
    kind: String,
    budget_tokens: Option<i64>,
    display: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ChoiceField {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OutputField {
    effort: Option<String>,
    format: Option<FormatField>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FormatField {
    #[serde(rename = "type")]
    kind: String,
    schema: Option<Json>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolField {
    #[serde(rename = "type")]
    _kind: Option<String>,
    name: String,
    description: Option<String>,
    input_schema: Option<Json>,
    strict: Option<bool>,
    cache_control: Option<CacheField>,
    allowed_callers: Option<Json>,
    defer_loading: Option<Json>,
    eager_input_streaming: Option<Json>,
    input_examples: Option<Json>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// What a body of `POST /v1/messages` may hold, as JSON Schema.
pub fn body_schema() -> serde_json::Value {
    crate::schema::of::<Body>()
}

/// The canonical request that a body of `POST /v1/messages` means.
///
/// # Errors
/// A refusal that names the field which is unknown, of a wrong type or out of range.
pub fn parse(bytes: &[u8]) -> Result<ChatRequest, Refusal> {
    let request = parse_any(bytes)?;
    match request.max_tokens {
        Some(_) => Ok(request),
        None => Err(required("max_tokens")),
    }
}

/// The same for bodies that need no `max_tokens`.
pub(super) fn parse_any(bytes: &[u8]) -> Result<ChatRequest, Refusal> {
    let mut body: Body = decode::body(bytes)?;
    let extensions = extensions(&mut body);
    let mut messages = blocks::system(body.system)?;
    messages.extend(blocks::messages(body.messages.map(|list| list.0))?);
    let (tool_choice, parallel_tool_calls) = match body.tool_choice {
        None => (None, None),
        Some(field) => {
            let parallel = field.disable_parallel_tool_use.filter(|off| *off).map(|_| false);
            (Some(choice(field)?), parallel)
        }
    };
    let tools = body.tools.unwrap_or_default().0.into_iter().enumerate();
    let (effort, format) = output(body.output_config)?;
    let stop = body.stop_sequences.unwrap_or_default().0;
    if stop.iter().any(String::is_empty) {
        return Err(invalid("stop_sequences", "'stop_sequences' may hold no empty text"));
    }
    Ok(ChatRequest {
        model: decode::model(body.model)?,
        messages,
        tools: tools.map(|(at, tool)| self::tool(at, tool)).collect::<Result<_, _>>()?,
        tool_choice,
        parallel_tool_calls,
        format,
        sampling: Sampling {
            temperature: number("temperature", body.temperature, 0..=1)?,
            top_p: number("top_p", body.top_p, 0..=1)?,
            top_k: whole("top_k", body.top_k, 0..=i64::from(u32::MAX))?,
            ..Sampling::default()
        },
        max_tokens: whole("max_tokens", body.max_tokens, 1..=i64::from(u32::MAX))?,
        stop,
        stream: body.stream.unwrap_or(false),
        include_usage: true,
        reasoning: reasoning(body.thinking, effort)?,
        user: body.metadata.and_then(|metadata| metadata.user_id),
        service_tier: body.service_tier,
        extensions,
        ..ChatRequest::default()
    })
}

fn extensions(body: &mut Body) -> Vec<Extension> {
    let fields = [
        ("cache_control", body.cache_control.take()),
        ("container", body.container.take()),
        ("context_management", body.context_management.take()),
        ("inference_geo", body.inference_geo.take()),
        ("mcp_servers", body.mcp_servers.take()),
    ];
    blocks::extensions(fields)
}

fn choice(field: ChoiceField) -> Result<ToolChoice, Refusal> {
    match (field.kind.as_str(), field.name) {
        ("auto", None) => Ok(ToolChoice::Auto),
        ("any", None) => Ok(ToolChoice::Required),
        ("none", None) => Ok(ToolChoice::None),
        ("tool", Some(name)) => Ok(ToolChoice::Named(name)),
        ("tool", None) => Err(required("tool_choice.name")),
        _ => {
            let message = "'type' must be auto, any or none, or tool with a 'name'";
            Err(invalid("tool_choice.type", message))
        }
    }
}

fn output(field: Option<OutputField>) -> Result<(Option<Effort>, Option<Format>), Refusal> {
    let Some(field) = field else { return Ok((None, None)) };
    let effort = match field.effort.as_deref() {
        None => None,
        Some(word) => {
            let said = |effort: &Effort| !matches!(effort, Effort::None | Effort::Minimal);
            let effort = Effort::from_word(word).filter(said);
            let message = "'effort' must be low, medium, high, xhigh or max";
            Some(effort.ok_or_else(|| invalid("output_config.effort", message))?)
        }
    };
    let format = match field.format {
        None => None,
        Some(FormatField { kind, schema }) if kind == "json_schema" => {
            let path = "output_config.format.schema";
            let schema = decode::object(path, schema.ok_or_else(|| required(path))?)?;
            Some(Format::JsonSchema { name: None, description: None, schema, strict: None })
        }
        Some(_) => {
            let message = "'type' must be json_schema";
            return Err(invalid("output_config.format.type", message));
        }
    };
    Ok((effort, format))
}

fn reasoning(
    field: Option<ThinkingField>,
    effort: Option<Effort>,
) -> Result<Option<Reasoning>, Refusal> {
    let Some(field) = field else {
        return Ok(effort.map(|effort| Reasoning { effort: Some(effort), ..Default::default() }));
    };
    let path = "thinking.budget_tokens";
    let budget = whole(path, field.budget_tokens, 1..=i64::from(u32::MAX))?;
    let show = match field.display.as_deref() {
        None => None,
        Some("summarized") => Some(true),
        Some("omitted") => Some(false),
        Some(_) => {
            return Err(invalid("thinking.display", "'display' must be summarized or omitted"));
        }
    };
    let thinking = match (field.kind.as_str(), budget) {
        ("enabled", Some(_)) => Thinking::On,
        ("enabled", None) => return Err(required(path)),
        ("disabled", None) => Thinking::Off,
        ("adaptive", None) => Thinking::Adaptive,
        ("disabled" | "adaptive", Some(_)) => {
            return Err(invalid(path, "'budget_tokens' needs 'type': \"enabled\""));
        }
        _ => {
            let message = "'type' must be enabled, disabled or adaptive";
            return Err(invalid("thinking.type", message));
        }
    };
    Ok(Some(Reasoning { thinking: Some(thinking), effort, budget_tokens: budget, show }))
}

fn tool(at: usize, value: Json) -> Result<Tool, Refusal> {
    let path = format!("tools[{at}]");
    let Kind { kind } = decode::inside(&path, &value)?;
    if kind.is_some_and(|kind| kind != "custom") {
        return Ok(Tool::Native { dialect: SELF, value });
    }
    let field: ToolField = decode::inside(&path, &value)?;
    let schema_path = format!("{path}.input_schema");
    let schema = field.input_schema.ok_or_else(|| required(&schema_path))?;
    Ok(Tool::Function(Function {
        name: field.name,
        description: field.description,
        schema: Some(decode::object(&schema_path, schema)?),
        strict: field.strict,
        cache: field.cache_control.map(|cache| cache.canonical(&path)).transpose()?,
        extensions: blocks::extensions([
            ("allowed_callers", field.allowed_callers),
            ("defer_loading", field.defer_loading),
            ("eager_input_streaming", field.eager_input_streaming),
            ("input_examples", field.input_examples),
        ]),
    }))
}

/// A system prompt is text.
pub(super) const SYSTEM: Role = Role::System;
