//! Client side: a canonical request becomes what Ollama is sent.
//!
//! Owns the body. What cannot be said here is refused by name.

use selvedge_base::Refusal;

use super::messages::picture_type;
use crate::cannot;
use crate::chat::{
    ChatRequest, Content, Effort, Format, Message, Part, Role, Source, Thinking, Tool, ToolChoice,
};
use crate::exchange::{Dialect, Outgoing};
use crate::json::{Array, Json, Object};

const SELF: Dialect = Dialect::Ollama;

/// What to send for a chat.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render(request: &ChatRequest) -> Result<Outgoing, Refusal> {
    check(request)?;
    let mut body = Vec::with_capacity(1_024);
    Object::write(&mut body, |object| {
        object.field("model", &request.model);
        object.array("messages", |array| {
            request.messages.iter().for_each(|message| self::message(array, message));
        });
        object.field("stream", &request.stream);
        settings(object, request);
        for own in request.extensions.iter().filter(|own| !own.name.starts_with("options.")) {
            object.raw(&own.name, own.value.text());
        }
    });
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path: "/api/chat".to_owned(), headers, body })
}

fn check(request: &ChatRequest) -> Result<(), Refusal> {
    cannot::foreign(SELF, request)?;
    let reasoning = request.reasoning.unwrap_or_default();
    let thinks = reasoning.thinking.is_some() && reasoning.effort.is_some();
    let strict = request.tools.iter().any(|tool| match tool {
        Tool::Function(function) => function.strict == Some(true),
        Tool::Native { .. } => false,
    });
    let described = matches!(request.format, Some(Format::JsonSchema { description: Some(_), .. }));
    cannot::any(
        SELF,
        &[
            ("n", request.n.is_some_and(|n| n > 1)),
            ("logit_bias", !request.sampling.logit_bias.is_empty()),
            ("tool_choice", !matches!(request.tool_choice, None | Some(ToolChoice::Auto))),
            ("parallel_tool_calls", request.parallel_tool_calls == Some(false)),
            ("tools.strict", strict),
            ("response_format.json_schema.description", described),
            ("service_tier", !matches!(request.service_tier.as_deref(), None | Some("auto"))),
            ("thinking.budget_tokens", reasoning.budget_tokens.is_some()),
            ("thinking.display", reasoning.show.is_some()),
            ("thinking", reasoning.thinking == Some(Thinking::Adaptive) || thinks),
        ],
    )?;
    if think(request).is_none() && request.reasoning.is_some() {
        return Err(cannot::because(SELF, "reasoning_effort", "knows low, medium and high"));
    }
    for (at, message) in request.messages.iter().enumerate() {
        if message.name.is_some() {
            return Err(cannot::say(SELF, &format!("messages[{at}].name")));
        }
        for (index, part) in message.parts.iter().enumerate() {
            check_part(&format!("messages[{at}].content[{index}]"), message.role, part)?;
        }
    }
    Ok(())
}

fn check_part(path: &str, role: Role, part: &Part) -> Result<(), Refusal> {
    let no = |field: &str, why: &str| Err(cannot::because(SELF, &format!("{path}{field}"), why));
    match &part.content {
        Content::Text(_) => Ok(()),
        Content::Image { source: Source::Bytes { media_type, base64 }, detail }
            if role == Role::User =>
        {
            if picture_type(base64) != Some(media_type) {
                return no(".source.media_type", "takes PNG, JPEG, GIF and WebP");
            }
            match detail.as_deref() {
                None | Some("auto") => Ok(()),
                Some(_) => no(".image_url.detail", "has no word for it"),
            }
        }
        Content::Image { .. } => no(".source", "takes pictures as bytes, from the user"),
        Content::ToolUse { arguments, .. } => match arguments_object(arguments) {
            Some(_) => Ok(()),
            None => no(".arguments", "takes arguments only if they are a JSON object"),
        },
        Content::ToolResult { is_error: true, .. } => {
            no(".is_error", "cannot mark a result as failed")
        }
        Content::ToolResult { parts, .. } => {
            match parts.iter().position(|part| !matches!(part.content, Content::Text(_))) {
                Some(at) => no(&format!(".content[{at}]"), "takes results of calls as text only"),
                None => Ok(()),
            }
        }
        Content::Thinking { signature: None, .. } => Ok(()),
        Content::Thinking { .. }
        | Content::Redacted(_)
        | Content::Refusal(_)
        | Content::Audio(_)
        | Content::Document { .. }
        | Content::Native { .. } => no("", "has no such part"),
    }
}

/// Arguments as the object this dialect wants; nothing means no arguments.
fn arguments_object(arguments: &str) -> Option<Json> {
    let text = if arguments.trim().is_empty() { "{}" } else { arguments.trim() };
    Json::parse(text).ok().filter(|json| json.text().starts_with('{'))
}

/// The value of `think`.
fn think(request: &ChatRequest) -> Option<&'static str> {
    let reasoning = request.reasoning?;
    match (reasoning.thinking, reasoning.effort) {
        (Some(Thinking::On), None) => Some("true"),
        (Some(Thinking::Off), None) => Some("false"),
        (None, Some(Effort::Low)) => Some("\"low\""),
        (None, Some(Effort::Medium)) => Some("\"medium\""),
        (None, Some(Effort::High)) => Some("\"high\""),
        _ => None,
    }
}

fn settings(object: &mut Object<'_>, request: &ChatRequest) {
    if !request.tools.is_empty() {
        object.array("tools", |array| {
            for tool in &request.tools {
                let Tool::Function(function) = tool else { continue };
                array.object(|object| {
                    object.field("type", "function");
                    object.object("function", |object| {
                        object.field("name", &function.name);
                        object.maybe("description", function.description.as_ref());
                        if let Some(schema) = &function.schema {
                            object.raw("parameters", schema.text());
                        }
                    });
                });
            }
        });
    }
    match &request.format {
        None | Some(Format::Text) => {}
        Some(Format::JsonObject) => object.field("format", "json"),
        Some(Format::JsonSchema { schema, .. }) => object.raw("format", schema.text()),
    }
    if let Some(think) = think(request) {
        object.raw("think", think);
    }
    if let Some(logprobs) = request.logprobs {
        object.field("logprobs", &true);
        object.field("top_logprobs", &logprobs.top);
    }
    let sampling = &request.sampling;
    object.object("options", |object| {
        object.maybe("num_predict", request.max_tokens.as_ref());
        object.maybe("temperature", sampling.temperature.as_ref());
        object.maybe("top_p", sampling.top_p.as_ref());
        object.maybe("top_k", sampling.top_k.as_ref());
        object.maybe("min_p", sampling.min_p.as_ref());
        object.maybe("presence_penalty", sampling.presence_penalty.as_ref());
        object.maybe("frequency_penalty", sampling.frequency_penalty.as_ref());
        object.maybe("repeat_penalty", sampling.repetition_penalty.as_ref());
        object.maybe("seed", sampling.seed.as_ref());
        if !request.stop.is_empty() {
            object.field("stop", &request.stop);
        }
        for own in &request.extensions {
            if let Some(name) = own.name.strip_prefix("options.") {
                object.raw(name, own.value.text());
            }
        }
    });
}

fn message(array: &mut Array<'_>, message: &Message) {
    for part in &message.parts {
        if let Content::ToolResult { id, name, parts, .. } = &part.content {
            array.object(|object| {
                object.field("role", "tool");
                object.field("content", &texts(parts));
                object.maybe("tool_name", name.as_ref());
                object.field("tool_call_id", id);
            });
        }
    }
    let is_result = |part: &Part| matches!(part.content, Content::ToolResult { .. });
    if !message.parts.is_empty() && message.parts.iter().all(is_result) {
        return;
    }
    array.object(|object| {
        let role = if message.role.is_instruction() { Role::System } else { message.role };
        let role = if role == Role::Tool { Role::User } else { role };
        object.field("role", role.as_str());
        object.field("content", &texts(&message.parts));
        let thinking: String = message
            .parts
            .iter()
            .filter_map(|part| match &part.content {
                Content::Thinking { text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        if !thinking.is_empty() {
            object.field("thinking", &thinking);
        }
        let images = message.parts.iter().filter_map(|part| match &part.content {
            Content::Image { source: Source::Bytes { base64, .. }, .. } => Some(base64),
            _ => None,
        });
        if images.clone().next().is_some() {
            object.array("images", |array| images.for_each(|image| array.item(image)));
        }
        calls(object, message);
    });
}

fn calls(object: &mut Object<'_>, message: &Message) {
    let calls = message.parts.iter().filter_map(|part| match &part.content {
        Content::ToolUse { id, name, arguments } => Some((id, name, arguments)),
        _ => None,
    });
    if calls.clone().next().is_none() {
        return;
    }
    object.array("tool_calls", |array| {
        for (id, name, arguments) in calls {
            array.object(|object| {
                object.field("id", id);
                object.object("function", |object| {
                    object.field("name", name);
                    let arguments = arguments_object(arguments);
                    object.raw("arguments", arguments.as_ref().map_or("{}", Json::text));
                });
            });
        }
    });
}

/// Parts of text are separate paragraphs of a message.
fn texts(parts: &[Part]) -> String {
    let texts = parts.iter().filter_map(|part| match &part.content {
        Content::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}
