//! Client side: a canonical request becomes what OpenAI is sent.
//!
//! Owns the body. Nothing is stored at the provider unless the client asked for it.

use selvedge_base::Refusal;

use super::fields::LOGPROBS;
use crate::cannot;
use crate::chat::{
    ChatRequest, Content, Effort, Format, Message, Part, Role, Source, Tool, ToolChoice,
};
use crate::exchange::{Dialect, Outgoing};
use crate::json::{Array, Object};
use crate::media;

const SELF: Dialect = Dialect::Responses;

/// What to send for a chat.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render(request: &ChatRequest) -> Result<Outgoing, Refusal> {
    check(request)?;
    let mut body = Vec::with_capacity(1_024);
    Object::write(&mut body, |object| {
        object.field("model", &request.model);
        object.array("input", |array| {
            request.messages.iter().for_each(|message| items(array, message));
        });
        settings(object, request);
        tools(object, request);
        for own in request.extensions.iter().filter(|own| !own.name.contains('.')) {
            // Written with the log probabilities.
            if own.name != "include" {
                object.raw(&own.name, own.value.text());
            }
        }
        if !request.extensions.iter().any(|own| own.name == "store") {
            object.field("store", &false);
        }
    });
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path: "/v1/responses".to_owned(), headers, body })
}

fn check(request: &ChatRequest) -> Result<(), Refusal> {
    cannot::foreign(SELF, request)?;
    let sampling = &request.sampling;
    let reasoning = request.reasoning.unwrap_or_default();
    cannot::any(
        SELF,
        &[
            ("n", request.n.is_some_and(|n| n > 1)),
            ("stop", !request.stop.is_empty()),
            ("seed", sampling.seed.is_some()),
            ("top_k", sampling.top_k.is_some()),
            ("min_p", sampling.min_p.is_some()),
            ("presence_penalty", sampling.presence_penalty.is_some()),
            ("frequency_penalty", sampling.frequency_penalty.is_some()),
            ("repetition_penalty", sampling.repetition_penalty.is_some()),
            ("logit_bias", !sampling.logit_bias.is_empty()),
            ("thinking", reasoning.thinking.is_some()),
            ("thinking.budget_tokens", reasoning.budget_tokens.is_some()),
            ("thinking.display", reasoning.show.is_some()),
        ],
    )?;
    if reasoning.effort == Some(Effort::Max) {
        return Err(cannot::because(SELF, "reasoning_effort", "knows no effort above xhigh"));
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
        Content::Text(_) | Content::Refusal(_) | Content::Native { .. } => Ok(()),
        Content::Image { source: Source::Text(_), .. } => no(".source", "takes no such picture"),
        Content::Document { source: Source::Text(_), .. } => {
            no(".source", "takes documents as bytes, by address or by file id")
        }
        Content::Image { .. } | Content::Document { .. } if role == Role::Assistant => {
            no("", "takes files from the user only")
        }
        Content::Image { .. } | Content::Document { .. } | Content::ToolUse { .. } => Ok(()),
        Content::Audio(_) => no("", "takes no sound"),
        Content::ToolResult { is_error: true, .. } => {
            no(".is_error", "cannot mark a result as failed")
        }
        Content::ToolResult { parts, .. } => parts.iter().enumerate().try_for_each(|(at, part)| {
            check_part(&format!("{path}.content[{at}]"), Role::User, part)
        }),
        // Its own thinking has an id beside the proof.
        Content::Thinking { signature: Some(_), .. }
            if part.extensions.iter().any(|own| own.name == "id") =>
        {
            Ok(())
        }
        Content::Thinking { .. } | Content::Redacted(_) => {
            no("", "takes back only thinking of its own")
        }
    }
}

fn items(array: &mut Array<'_>, message: &Message) {
    let mut said: Vec<&Part> = Vec::new();
    for part in &message.parts {
        let is_said = matches!(
            part.content,
            Content::Text(_)
                | Content::Refusal(_)
                | Content::Image { .. }
                | Content::Document { .. }
        );
        // A part with an id of its own begins a new item.
        let begins = part.extensions.iter().any(|own| own.name == "id");
        if !is_said || begins {
            flush(array, message.role, &mut said);
        }
        if is_said {
            said.push(part);
        } else {
            item(array, part);
        }
    }
    flush(array, message.role, &mut said);
}

fn flush(array: &mut Array<'_>, role: Role, said: &mut Vec<&Part>) {
    let Some(first) = said.first() else { return };
    let role = if role == Role::Tool { Role::User } else { role };
    array.object(|object| {
        object.field("type", "message");
        object.field("role", role.as_str());
        for own in first.extensions.iter().filter(|own| matches!(own.name.as_str(), "id" | "phase"))
        {
            object.raw(&own.name, own.value.text());
        }
        object.array("content", |array| said.iter().for_each(|said| part(array, role, said)));
    });
    said.clear();
}

fn item(array: &mut Array<'_>, part: &Part) {
    let id = part.extensions.iter().find(|own| own.name == "id");
    match &part.content {
        Content::ToolUse { id: call, name, arguments } => array.object(|object| {
            object.field("type", "function_call");
            if let Some(id) = id {
                object.raw("id", id.value.text());
            }
            object.field("call_id", call);
            object.field("name", name);
            object.field("arguments", arguments);
        }),
        Content::ToolResult { id, parts, .. } => array.object(|object| {
            object.field("type", "function_call_output");
            object.field("call_id", id);
            match parts.as_slice() {
                [Part { content: Content::Text(text), .. }] => object.field("output", text),
                parts => object.array("output", |array| {
                    parts.iter().for_each(|inner| self::part(array, Role::User, inner));
                }),
            }
        }),
        Content::Thinking { text, signature } => array.object(|object| {
            object.field("type", "reasoning");
            object.array("summary", |array| {
                if !text.is_empty() {
                    array.object(|object| {
                        object.field("type", "summary_text");
                        object.field("text", text);
                    });
                }
            });
            object.maybe("encrypted_content", signature.as_ref());
            part.extensions.iter().for_each(|own| object.raw(&own.name, own.value.text()));
        }),
        Content::Native { value, .. } => array.raw(value.text()),
        _ => {}
    }
}

fn part(array: &mut Array<'_>, role: Role, part: &Part) {
    array.object(|object| match &part.content {
        Content::Text(text) => {
            let kind = if role == Role::Assistant { "output_text" } else { "input_text" };
            object.field("type", kind);
            object.field("text", text);
            if let Some(own) = part.extensions.iter().find(|own| own.name == "annotations") {
                object.raw("annotations", own.value.text());
            }
        }
        Content::Refusal(text) => {
            object.field("type", "refusal");
            object.field("refusal", text);
        }
        Content::Image { source, detail } => {
            object.field("type", "input_image");
            match source {
                Source::Bytes { media_type, base64 } => {
                    object.field("image_url", &media::to_url(media_type, base64));
                }
                Source::Url(url) | Source::Text(url) => object.field("image_url", url),
                Source::File(id) => object.field("file_id", id),
            }
            object.maybe("detail", detail.as_ref());
        }
        Content::Document { source, name } => {
            object.field("type", "input_file");
            match source {
                Source::Bytes { media_type, base64 } => {
                    object.field("file_data", &media::to_url(media_type, base64));
                }
                Source::Url(url) | Source::Text(url) => object.field("file_url", url),
                Source::File(id) => object.field("file_id", id),
            }
            object.maybe("filename", name.as_ref());
        }
        _ => {}
    });
}

fn settings(object: &mut Object<'_>, request: &ChatRequest) {
    object.maybe("max_output_tokens", request.max_tokens.as_ref());
    object.maybe("temperature", request.sampling.temperature.as_ref());
    object.maybe("top_p", request.sampling.top_p.as_ref());
    let own = |name: &str| request.extensions.iter().find(|own| own.name == name);
    let include = own("include").map(|own| own.value.text());
    let include = include.and_then(|text| serde_json::from_str::<Vec<String>>(text).ok());
    let mut include = include.unwrap_or_default();
    if let Some(logprobs) = request.logprobs {
        object.field("top_logprobs", &logprobs.top);
        include.push(LOGPROBS.to_owned());
    }
    if !include.is_empty() {
        object.field("include", &include);
    }
    if request.stream {
        object.field("stream", &true);
    }
    let verbosity = own("text.verbosity");
    let format = request.format.as_ref().filter(|format| **format != Format::Text);
    if format.is_some() || verbosity.is_some() {
        object.object("text", |object| {
            if let Some(format) = format {
                object.object("format", |object| self::format(object, format));
            }
            if let Some(verbosity) = verbosity {
                object.raw("verbosity", verbosity.value.text());
            }
        });
    }
    let effort = request.reasoning.and_then(|reasoning| reasoning.effort);
    let summaries = || request.extensions.iter().filter(|own| own.name.starts_with("reasoning."));
    if effort.is_some() || summaries().next().is_some() {
        object.object("reasoning", |object| {
            object.maybe("effort", effort.map(Effort::as_str).as_ref());
            for own in summaries() {
                object.raw(own.name.trim_start_matches("reasoning."), own.value.text());
            }
        });
    }
    object.maybe("user", request.user.as_ref());
    object.maybe("safety_identifier", request.safety_id.as_ref());
    object.maybe("prompt_cache_key", request.cache_key.as_ref());
    if !request.metadata.is_empty() {
        object.object("metadata", |object| {
            request.metadata.iter().for_each(|(name, value)| object.field(name, value));
        });
    }
    object.maybe("service_tier", request.service_tier.as_ref());
}

fn format(object: &mut Object<'_>, format: &Format) {
    match format {
        Format::Text => object.field("type", "text"),
        Format::JsonObject => object.field("type", "json_object"),
        Format::JsonSchema { name, description, schema, strict } => {
            object.field("type", "json_schema");
            // A schema needs a name here, and nothing depends on which.
            object.field("name", name.as_deref().unwrap_or("answer"));
            object.maybe("description", description.as_ref());
            object.raw("schema", schema.text());
            object.maybe("strict", strict.as_ref());
        }
    }
}

fn tools(object: &mut Object<'_>, request: &ChatRequest) {
    if !request.tools.is_empty() {
        object.array("tools", |array| {
            for tool in &request.tools {
                match tool {
                    Tool::Native { value, .. } => array.raw(value.text()),
                    Tool::Function(function) => array.object(|object| {
                        object.field("type", "function");
                        object.field("name", &function.name);
                        object.maybe("description", function.description.as_ref());
                        let schema = function.schema.as_ref().map(|schema| schema.text());
                        object.raw("parameters", schema.unwrap_or("null"));
                        // Unlike in chats, a function is strict here unless told otherwise.
                        object.field("strict", &function.strict.unwrap_or(false));
                    }),
                }
            }
        });
    }
    match &request.tool_choice {
        None => {}
        Some(ToolChoice::Auto) => object.field("tool_choice", "auto"),
        Some(ToolChoice::None) => object.field("tool_choice", "none"),
        Some(ToolChoice::Required) => object.field("tool_choice", "required"),
        Some(ToolChoice::Named(name)) => object.object("tool_choice", |object| {
            object.field("type", "function");
            object.field("name", name);
        }),
        Some(ToolChoice::Native { value, .. }) => object.raw("tool_choice", value.text()),
    }
    object.maybe("parallel_tool_calls", request.parallel_tool_calls.as_ref());
}
