//! Client side: a canonical request becomes what Cohere is sent.
//!
//! Owns the body. What cannot be said here is refused by name.

use selvedge_base::Refusal;

use crate::cannot;
use crate::chat::{
    ChatRequest, Content, Format, Message, Part, Role, Source, Thinking, Tool, ToolChoice,
};
use crate::exchange::{Dialect, Outgoing};
use crate::json::{Array, Object};
use crate::media;
use crate::number::Number;

const SELF: Dialect = Dialect::Cohere;

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
        request.extensions.iter().for_each(|own| object.raw(&own.name, own.value.text()));
    });
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path: "/v2/chat".to_owned(), headers, body })
}

fn check(request: &ChatRequest) -> Result<(), Refusal> {
    cannot::foreign(SELF, request)?;
    let sampling = &request.sampling;
    let reasoning = request.reasoning.unwrap_or_default();
    let penalty = |value: Option<Number>| value.is_some_and(|value| !value.is_within(0, 1));
    let described = matches!(request.format, Some(Format::JsonSchema { description: Some(_), .. }));
    cannot::any(
        SELF,
        &[
            ("n", request.n.is_some_and(|n| n > 1)),
            ("min_p", sampling.min_p.is_some()),
            ("repetition_penalty", sampling.repetition_penalty.is_some()),
            ("presence_penalty", penalty(sampling.presence_penalty)),
            ("frequency_penalty", penalty(sampling.frequency_penalty)),
            ("seed", sampling.seed.is_some_and(|seed| seed < 0)),
            ("logit_bias", !sampling.logit_bias.is_empty()),
            ("top_logprobs", request.logprobs.is_some_and(|logprobs| logprobs.top > 0)),
            ("parallel_tool_calls", request.parallel_tool_calls == Some(false)),
            ("tool_choice", matches!(request.tool_choice, Some(ToolChoice::Named(_)))),
            ("response_format.json_schema.description", described),
            ("service_tier", !matches!(request.service_tier.as_deref(), None | Some("auto"))),
            ("reasoning_effort", reasoning.effort.is_some()),
            ("thinking.display", reasoning.show.is_some()),
            ("thinking", reasoning.thinking == Some(Thinking::Adaptive)),
        ],
    )?;
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
        Content::Text(_) | Content::ToolUse { .. } => Ok(()),
        Content::Image { source: Source::Url(_) | Source::Bytes { .. }, .. }
            if role == Role::User =>
        {
            Ok(())
        }
        Content::Image { .. } => {
            no(".source", "takes pictures by address or as bytes, from the user")
        }
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

fn message(array: &mut Array<'_>, message: &Message) {
    for part in &message.parts {
        if let Content::ToolResult { id, parts, .. } = &part.content {
            array.object(|object| {
                object.field("role", "tool");
                object.field("tool_call_id", id);
                content(object, parts.iter());
            });
        }
    }
    let said = message.parts.iter().filter(|part| {
        matches!(part.content, Content::Text(_) | Content::Image { .. } | Content::Thinking { .. })
    });
    let calls = message.parts.iter().filter_map(|part| match &part.content {
        Content::ToolUse { id, name, arguments } => Some((id, name, arguments)),
        _ => None,
    });
    let (speaks, calling) = (said.clone().next().is_some(), calls.clone().next().is_some());
    if !speaks && !calling {
        return;
    }
    array.object(|object| {
        let role = match message.role {
            Role::Developer => Role::System,
            Role::Tool => Role::User,
            role => role,
        };
        object.field("role", role.as_str());
        if speaks {
            content(object, said);
        }
        if calling {
            object.array("tool_calls", |array| {
                for (id, name, arguments) in calls {
                    array.object(|object| {
                        object.field("id", id);
                        object.field("type", "function");
                        object.object("function", |object| {
                            object.field("name", name);
                            object.field("arguments", arguments);
                        });
                    });
                }
            });
        }
    });
}

fn content<'p>(object: &mut Object<'_>, parts: impl Iterator<Item = &'p Part> + Clone) {
    let mut few = parts.clone();
    if let (Some(Part { content: Content::Text(text), .. }), None) = (few.next(), few.next()) {
        object.field("content", text);
        return;
    }
    object.array("content", |array| {
        for part in parts {
            array.object(|object| match &part.content {
                Content::Text(text) => {
                    object.field("type", "text");
                    object.field("text", text);
                }
                Content::Thinking { text, .. } => {
                    object.field("type", "thinking");
                    object.field("thinking", text);
                }
                Content::Image { source, detail } => {
                    object.field("type", "image_url");
                    object.object("image_url", |object| {
                        match source {
                            Source::Bytes { media_type, base64 } => {
                                object.field("url", &media::to_url(media_type, base64));
                            }
                            Source::Url(url) | Source::Text(url) | Source::File(url) => {
                                object.field("url", url);
                            }
                        }
                        object.maybe("detail", detail.as_ref());
                    });
                }
                // Refused before, or written beside the content.
                _ => {}
            });
        }
    });
}

fn settings(object: &mut Object<'_>, request: &ChatRequest) {
    let sampling = &request.sampling;
    object.maybe("max_tokens", request.max_tokens.as_ref());
    object.maybe("temperature", sampling.temperature.as_ref());
    object.maybe("p", sampling.top_p.as_ref());
    object.maybe("k", sampling.top_k.as_ref());
    object.maybe("presence_penalty", sampling.presence_penalty.as_ref());
    object.maybe("frequency_penalty", sampling.frequency_penalty.as_ref());
    object.maybe("seed", sampling.seed.as_ref());
    if !request.stop.is_empty() {
        object.field("stop_sequences", &request.stop);
    }
    if request.logprobs.is_some() {
        object.field("logprobs", &true);
    }
    match &request.format {
        None | Some(Format::Text) => {}
        Some(Format::JsonObject) => {
            object.object("response_format", |object| object.field("type", "json_object"));
        }
        Some(Format::JsonSchema { schema, .. }) => object.object("response_format", |object| {
            object.field("type", "json_object");
            object.raw("json_schema", schema.text());
        }),
    }
    let reasoning = request.reasoning.unwrap_or_default();
    if let Some(thinking) = reasoning.thinking {
        object.object("thinking", |object| {
            let kind = if thinking == Thinking::Off { "disabled" } else { "enabled" };
            object.field("type", kind);
            object.maybe("token_budget", reasoning.budget_tokens.as_ref());
        });
    }
    tools(object, request);
}

fn tools(object: &mut Object<'_>, request: &ChatRequest) {
    let functions = request.tools.iter().filter_map(|tool| match tool {
        Tool::Function(function) => Some(function),
        Tool::Native { .. } => None,
    });
    if functions.clone().next().is_some() {
        // One switch for all tools here: strict if any of them is.
        if functions.clone().any(|function| function.strict == Some(true)) {
            object.field("strict_tools", &true);
        }
        object.array("tools", |array| {
            for function in functions {
                array.object(|object| {
                    object.field("type", "function");
                    object.object("function", |object| {
                        object.field("name", &function.name);
                        object.maybe("description", function.description.as_ref());
                        let schema = function.schema.as_ref().map(|schema| schema.text());
                        object.raw("parameters", schema.unwrap_or("{\"type\":\"object\"}"));
                    });
                });
            }
        });
    }
    match request.tool_choice {
        Some(ToolChoice::Required) => object.field("tool_choice", "REQUIRED"),
        Some(ToolChoice::None) => object.field("tool_choice", "NONE"),
        _ => {}
    }
}
