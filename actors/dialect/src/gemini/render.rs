//! Client side: a canonical request becomes what Gemini is sent.
//!
//! Owns the body. What cannot be said here is refused by name.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use selvedge_base::Refusal;

use super::unsign;
use crate::cannot;
use crate::chat::{
    ChatRequest, Content, Effort, Format, Message, Part, Role, Source, Thinking, Tool, ToolChoice,
};
use crate::exchange::{Dialect, Outgoing, encode};
use crate::json::{Array, Json, Object};

const SELF: Dialect = Dialect::Gemini;

/// Tools by the ids of their calls.
type Called<'r> = BTreeMap<&'r str, &'r str>;

/// What to send for a chat.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render(request: &ChatRequest) -> Result<Outgoing, Refusal> {
    let called = called(request);
    check(request, &called)?;
    let instructions = request.messages.iter().take_while(|m| m.role.is_instruction()).count();
    let (system, messages) = request.messages.split_at(instructions);
    let mut body = Vec::with_capacity(1_024);
    Object::write(&mut body, |object| {
        if !system.is_empty() {
            object.object("systemInstruction", |object| {
                parts(object, system.iter().flat_map(|message| &message.parts), &called);
            });
        }
        object.array("contents", |array| contents(array, messages, &called));
        tools(object, request);
        object.object("generationConfig", |object| config(object, request));
        request.extensions.iter().for_each(|own| object.raw(&own.name, own.value.text()));
    });
    let model = encode(request.model.trim_start_matches("models/"));
    let path = match request.stream {
        true => format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"),
        false => format!("/v1beta/models/{model}:generateContent"),
    };
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path, headers, body })
}

fn called(request: &ChatRequest) -> Called<'_> {
    let parts = request.messages.iter().flat_map(|message| &message.parts);
    let called = parts.filter_map(|part| match &part.content {
        Content::ToolUse { id, name, .. } => Some((id.as_str(), name.as_str())),
        _ => None,
    });
    called.collect()
}

fn check(request: &ChatRequest, called: &Called<'_>) -> Result<(), Refusal> {
    cannot::foreign(SELF, request)?;
    let sampling = &request.sampling;
    let strict = request.tools.iter().any(|tool| match tool {
        Tool::Function(function) => function.strict == Some(true),
        Tool::Native { .. } => false,
    });
    let described = matches!(request.format, Some(Format::JsonSchema { description: Some(_), .. }));
    cannot::any(
        SELF,
        &[
            ("min_p", sampling.min_p.is_some()),
            ("repetition_penalty", sampling.repetition_penalty.is_some()),
            ("logit_bias", !sampling.logit_bias.is_empty()),
            ("parallel_tool_calls", request.parallel_tool_calls == Some(false)),
            ("tools.strict", strict),
            ("response_format.json_schema.description", described),
            ("service_tier", !matches!(request.service_tier.as_deref(), None | Some("auto"))),
            ("seed", sampling.seed.is_some_and(|seed| i32::try_from(seed).is_err())),
        ],
    )?;
    let reasoning = request.reasoning.unwrap_or_default();
    if matches!(reasoning.effort, Some(Effort::XHigh | Effort::Max)) {
        return Err(cannot::because(SELF, "reasoning_effort", "knows no effort above high"));
    }
    if reasoning.effort.is_some() && reasoning.thinking.is_some() {
        return Err(cannot::because(SELF, "thinking", "takes either an effort or a budget"));
    }
    if reasoning.thinking == Some(Thinking::On) && reasoning.budget_tokens.is_none() {
        return Err(cannot::because(SELF, "thinking", "needs a budget of tokens with it"));
    }
    let mut begun = false;
    for (at, message) in request.messages.iter().enumerate() {
        begun |= !message.role.is_instruction();
        if begun && message.role.is_instruction() {
            let why = "takes instructions only before the conversation";
            return Err(cannot::because(SELF, &format!("messages[{at}].role"), why));
        }
        if message.name.is_some() {
            return Err(cannot::say(SELF, &format!("messages[{at}].name")));
        }
        for (index, part) in message.parts.iter().enumerate() {
            check_part(&format!("messages[{at}].content[{index}]"), message.role, part, called)?;
        }
    }
    Ok(())
}

fn check_part(path: &str, role: Role, part: &Part, called: &Called<'_>) -> Result<(), Refusal> {
    let no = |field: &str, why: &str| Err(cannot::because(SELF, &format!("{path}{field}"), why));
    match &part.content {
        Content::Text(_) => Ok(()),
        _ if role.is_instruction() => no("", "takes instructions as text only"),
        Content::Image { detail: Some(detail), .. } if detail != "auto" => {
            no(".image_url.detail", "has no word for it")
        }
        Content::Image { source, .. }
        | Content::Audio(source)
        | Content::Document { source, .. } => match source {
            Source::Url(_) => no(".source", "takes files as bytes or uploaded, not by address"),
            Source::Bytes { .. } | Source::Text(_) | Source::File(_) => Ok(()),
        },
        Content::ToolUse { arguments, .. } => match arguments_object(arguments) {
            Some(_) => Ok(()),
            None => no(".arguments", "takes arguments only if they are a JSON object"),
        },
        Content::ToolResult { id, name, parts, .. } => {
            if name.is_none() && !called.contains_key(id.as_str()) {
                return no(".tool_call_id", "needs the call that this result answers");
            }
            match parts.iter().position(|part| !matches!(part.content, Content::Text(_))) {
                Some(at) => no(&format!(".content[{at}]"), "takes results of calls as text only"),
                None => Ok(()),
            }
        }
        Content::Thinking { signature: None, .. } => Ok(()),
        Content::Thinking { .. } | Content::Redacted(_) => {
            no("", "does not take another provider's signed thinking")
        }
        Content::Refusal(_) => no("", "has no refusals in messages"),
        Content::Native { .. } => Ok(()),
    }
}

/// Arguments as the object this dialect wants; nothing means no arguments.
fn arguments_object(arguments: &str) -> Option<Json> {
    let text = if arguments.trim().is_empty() { "{}" } else { arguments.trim() };
    Json::parse(text).ok().filter(|json| json.text().starts_with('{'))
}

/// Results that follow one another answer one turn, so they are one content here.
fn contents(array: &mut Array<'_>, messages: &[Message], called: &Called<'_>) {
    let mut rest = messages;
    while let Some((first, others)) = rest.split_first() {
        let more = match first.role {
            Role::Tool => others.iter().take_while(|next| next.role == Role::Tool).count(),
            _ => 0,
        };
        let (own, next) = rest.split_at(more + 1);
        rest = next;
        array.object(|object| {
            let role = if first.role == Role::Assistant { "model" } else { "user" };
            object.field("role", role);
            parts(object, own.iter().flat_map(|message| &message.parts), called);
        });
    }
}

fn parts<'p>(object: &mut Object<'_>, parts: impl Iterator<Item = &'p Part>, called: &Called<'_>) {
    object.array("parts", |array| {
        for part in parts {
            match &part.content {
                Content::Native { value, .. } => array.raw(value.text()),
                content => array.object(|object| self::part(object, content, called)),
            }
        }
    });
}

fn part(object: &mut Object<'_>, content: &Content, called: &Called<'_>) {
    match content {
        Content::Text(text) => object.field("text", text),
        Content::Thinking { text, .. } => {
            object.field("text", text);
            object.field("thought", &true);
        }
        Content::Image { source, .. }
        | Content::Audio(source)
        | Content::Document { source, .. } => match source {
            Source::Bytes { media_type, base64 } => inline(object, media_type, base64),
            Source::Text(text) => inline(object, "text/plain", &STANDARD.encode(text)),
            Source::File(uri) | Source::Url(uri) => {
                object.object("fileData", |object| object.field("fileUri", uri));
            }
        },
        Content::ToolUse { id, name, arguments } => {
            let (id, signature) = unsign(id);
            object.object("functionCall", |object| {
                object.field("id", id);
                object.field("name", name);
                let arguments = arguments_object(arguments);
                object.raw("args", arguments.as_ref().map_or("{}", Json::text));
            });
            object.maybe("thoughtSignature", signature.as_ref());
        }
        Content::ToolResult { id, name, parts, is_error } => {
            let name = name.as_deref().or(called.get(id.as_str()).copied()).unwrap_or_default();
            let texts = parts.iter().filter_map(|part| match &part.content {
                Content::Text(text) => Some(text.as_str()),
                _ => None,
            });
            let text = texts.collect::<Vec<_>>().join("\n");
            object.object("functionResponse", |object| {
                object.field("id", unsign(id).0);
                object.field("name", name);
                object.object("response", |object| {
                    object.field(if *is_error { "error" } else { "output" }, &text);
                });
            });
        }
        // Refused before, or written whole.
        Content::Redacted(_) | Content::Refusal(_) | Content::Native { .. } => {}
    }
}

fn inline(object: &mut Object<'_>, media_type: &str, base64: &str) {
    object.object("inlineData", |object| {
        object.field("mimeType", media_type);
        object.field("data", base64);
    });
}

fn tools(object: &mut Object<'_>, request: &ChatRequest) {
    if !request.tools.is_empty() {
        object.array("tools", |array| {
            let functions = request.tools.iter().filter_map(|tool| match tool {
                Tool::Function(function) => Some(function),
                Tool::Native { .. } => None,
            });
            if functions.clone().next().is_some() {
                array.object(|object| {
                    object.array("functionDeclarations", |array| {
                        for function in functions {
                            array.object(|object| {
                                object.field("name", &function.name);
                                object.maybe("description", function.description.as_ref());
                                if let Some(schema) = &function.schema {
                                    object.raw("parametersJsonSchema", schema.text());
                                }
                            });
                        }
                    });
                });
            }
            for tool in &request.tools {
                if let Tool::Native { value, .. } = tool {
                    array.raw(value.text());
                }
            }
        });
    }
    let (mode, name) = match &request.tool_choice {
        None | Some(ToolChoice::Native { .. }) => return,
        Some(ToolChoice::Auto) => ("AUTO", None),
        Some(ToolChoice::None) => ("NONE", None),
        Some(ToolChoice::Required) => ("ANY", None),
        Some(ToolChoice::Named(name)) => ("ANY", Some([name])),
    };
    object.object("toolConfig", |object| {
        object.object("functionCallingConfig", |object| {
            object.field("mode", mode);
            object.maybe("allowedFunctionNames", name.as_ref());
        });
    });
}

fn config(object: &mut Object<'_>, request: &ChatRequest) {
    let sampling = &request.sampling;
    object.maybe("maxOutputTokens", request.max_tokens.as_ref());
    object.maybe("temperature", sampling.temperature.as_ref());
    object.maybe("topP", sampling.top_p.as_ref());
    object.maybe("topK", sampling.top_k.as_ref());
    object.maybe("presencePenalty", sampling.presence_penalty.as_ref());
    object.maybe("frequencyPenalty", sampling.frequency_penalty.as_ref());
    object.maybe("seed", sampling.seed.as_ref());
    if !request.stop.is_empty() {
        object.field("stopSequences", &request.stop);
    }
    object.maybe("candidateCount", request.n.as_ref());
    if let Some(logprobs) = request.logprobs {
        object.field("responseLogprobs", &true);
        if logprobs.top > 0 {
            object.field("logprobs", &logprobs.top);
        }
    }
    match &request.format {
        None | Some(Format::Text) => {}
        Some(Format::JsonObject) => object.field("responseMimeType", "application/json"),
        Some(Format::JsonSchema { schema, .. }) => {
            object.field("responseMimeType", "application/json");
            object.raw("responseJsonSchema", schema.text());
        }
    }
    let Some(reasoning) = request.reasoning else { return };
    object.object("thinkingConfig", |object| {
        match (reasoning.thinking, reasoning.effort) {
            (Some(Thinking::Off), _) | (_, Some(Effort::None)) => {
                object.field("thinkingBudget", &0);
            }
            // Minus one is "as the model sees fit".
            (Some(Thinking::Adaptive), _) => object.field("thinkingBudget", &-1),
            (_, Some(effort)) => object.field("thinkingLevel", effort.as_str()),
            (Some(Thinking::On), None) | (None, None) => {
                object.maybe("thinkingBudget", reasoning.budget_tokens.as_ref());
            }
        }
        object.maybe("includeThoughts", reasoning.show.as_ref());
    });
}
