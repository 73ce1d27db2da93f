//! Client side: a canonical request becomes what Bedrock is sent.
//!
//! Owns the body. What cannot be said here is refused by name.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use selvedge_base::Refusal;

use crate::cannot;
use crate::chat::{
    Cache, ChatRequest, Content, Format, Message, Part, Role, Source, Tool, ToolChoice,
};
use crate::exchange::{Dialect, Outgoing, encode};
use crate::json::{Array, Json, Object};

const SELF: Dialect = Dialect::Bedrock;

/// Media types of files and the short names that this dialect calls them.
const PICTURES: &[(&str, &str)] =
    &[("image/png", "png"), ("image/jpeg", "jpeg"), ("image/gif", "gif"), ("image/webp", "webp")];
/// The same of documents.
const DOCUMENTS: &[(&str, &str)] = &[
    ("application/pdf", "pdf"),
    ("text/plain", "txt"),
    ("text/markdown", "md"),
    ("text/csv", "csv"),
    ("text/html", "html"),
];

/// What to send for a chat.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render(request: &ChatRequest) -> Result<Outgoing, Refusal> {
    check(request)?;
    let instructions = request.messages.iter().take_while(|m| m.role.is_instruction()).count();
    let (system, messages) = request.messages.split_at(instructions);
    let mut body = Vec::with_capacity(1_024);
    Object::write(&mut body, |object| {
        if !system.is_empty() {
            object.array("system", |array| {
                system
                    .iter()
                    .flat_map(|message| &message.parts)
                    .for_each(|part| block(array, part));
            });
        }
        object.array("messages", |array| self::messages(array, messages));
        object.object("inferenceConfig", |object| {
            object.maybe("maxTokens", request.max_tokens.as_ref());
            object.maybe("temperature", request.sampling.temperature.as_ref());
            object.maybe("topP", request.sampling.top_p.as_ref());
            if !request.stop.is_empty() {
                object.field("stopSequences", &request.stop);
            }
        });
        tools(object, request);
        request.extensions.iter().for_each(|own| object.raw(&own.name, own.value.text()));
    });
    let action = if request.stream { "converse-stream" } else { "converse" };
    let path = format!("/model/{}/{action}", encode(&request.model));
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path, headers, body })
}

fn check(request: &ChatRequest) -> Result<(), Refusal> {
    cannot::foreign(SELF, request)?;
    let sampling = &request.sampling;
    let strict = request.tools.iter().any(|tool| match tool {
        Tool::Function(function) => function.strict == Some(true),
        Tool::Native { .. } => false,
    });
    cannot::any(
        SELF,
        &[
            ("n", request.n.is_some_and(|n| n > 1)),
            ("logprobs", request.logprobs.is_some()),
            ("seed", sampling.seed.is_some()),
            ("top_k", sampling.top_k.is_some()),
            ("min_p", sampling.min_p.is_some()),
            ("presence_penalty", sampling.presence_penalty.is_some()),
            ("frequency_penalty", sampling.frequency_penalty.is_some()),
            ("repetition_penalty", sampling.repetition_penalty.is_some()),
            ("logit_bias", !sampling.logit_bias.is_empty()),
            ("parallel_tool_calls", request.parallel_tool_calls == Some(false)),
            // Not to call any is said by having none, and then calls of before are refused there.
            ("tool_choice", request.tool_choice == Some(ToolChoice::None)),
            ("tools.strict", strict),
            ("response_format", !matches!(request.format, None | Some(Format::Text))),
            ("service_tier", !matches!(request.service_tier.as_deref(), None | Some("auto"))),
            ("reasoning_effort", request.reasoning.is_some()),
        ],
    )?;
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
            check_part(&format!("messages[{at}].content[{index}]"), message.role, part)?;
        }
    }
    Ok(())
}

fn check_part(path: &str, role: Role, part: &Part) -> Result<(), Refusal> {
    let no = |field: &str, why: &str| Err(cannot::because(SELF, &format!("{path}{field}"), why));
    match &part.content {
        Content::Text(_) | Content::Native { .. } => Ok(()),
        _ if role.is_instruction() => no("", "takes instructions as text only"),
        Content::Image { detail: Some(detail), .. } if detail != "auto" => {
            no(".image_url.detail", "has no word for it")
        }
        Content::Image { source: Source::Bytes { media_type, .. }, .. }
            if short(PICTURES, media_type).is_some() =>
        {
            Ok(())
        }
        Content::Image { .. } => no(".source", "takes PNG, JPEG, GIF and WebP as bytes"),
        Content::Document { source: Source::Text(_), .. } => Ok(()),
        Content::Document { source: Source::Bytes { media_type, .. }, .. }
            if short(DOCUMENTS, media_type).is_some() =>
        {
            Ok(())
        }
        Content::Document { .. } => no(".source", "takes PDF and text as bytes"),
        Content::ToolUse { arguments, .. } => match arguments_object(arguments) {
            Some(_) => Ok(()),
            None => no(".arguments", "takes arguments only if they are a JSON object"),
        },
        Content::ToolResult { parts, .. } => parts
            .iter()
            .enumerate()
            .try_for_each(|(at, part)| check_part(&format!("{path}.content[{at}]"), role, part)),
        Content::Thinking { signature: Some(_), .. } | Content::Redacted(_) => Ok(()),
        Content::Thinking { .. } => no("", "takes thinking back only with its signature"),
        Content::Audio(_) | Content::Refusal(_) => no("", "has no such part"),
    }
}

fn short(table: &[(&str, &'static str)], media_type: &str) -> Option<&'static str> {
    table.iter().find(|(long, _)| *long == media_type).map(|(_, short)| *short)
}

/// Arguments as the object this dialect wants; nothing means no arguments.
fn arguments_object(arguments: &str) -> Option<Json> {
    let text = if arguments.trim().is_empty() { "{}" } else { arguments.trim() };
    Json::parse(text).ok().filter(|json| json.text().starts_with('{'))
}

/// Turns alternate here: messages of one side that follow one another are one.
fn messages(array: &mut Array<'_>, messages: &[Message]) {
    let side = |message: &Message| message.role == Role::Assistant;
    let mut rest = messages;
    while let Some(first) = rest.first() {
        let own = rest.iter().take_while(|next| side(next) == side(first)).count();
        let (turn, next) = rest.split_at(own);
        rest = next;
        array.object(|object| {
            object.field("role", if side(first) { "assistant" } else { "user" });
            object.array("content", |array| {
                turn.iter().flat_map(|message| &message.parts).for_each(|part| block(array, part));
            });
        });
    }
}

fn block(array: &mut Array<'_>, part: &Part) {
    match &part.content {
        Content::Native { value, .. } => array.raw(value.text()),
        content => array.object(|object| fields(object, content)),
    }
    cache(array, part.cache);
}

/// A point up to which to cache is a block of its own here.
fn cache(array: &mut Array<'_>, cache: Option<Cache>) {
    let Some(cache) = cache else { return };
    array.object(|object| {
        object.object("cachePoint", |object| {
            object.field("type", "default");
            match cache {
                Cache::Default => {}
                Cache::FiveMinutes => object.field("ttl", "5m"),
                Cache::Hour => object.field("ttl", "1h"),
            }
        });
    });
}

fn fields(object: &mut Object<'_>, content: &Content) {
    match content {
        Content::Text(text) => object.field("text", text),
        Content::Image { source: Source::Bytes { media_type, base64 }, .. } => {
            object.object("image", |object| {
                object.field("format", short(PICTURES, media_type).unwrap_or("png"));
                object.object("source", |object| object.field("bytes", base64));
            });
        }
        Content::Document { source, name } => object.object("document", |object| {
            let (format, bytes) = match source {
                Source::Bytes { media_type, base64 } => {
                    (short(DOCUMENTS, media_type).unwrap_or("pdf"), base64.clone())
                }
                Source::Text(text) | Source::Url(text) | Source::File(text) => {
                    ("txt", STANDARD.encode(text))
                }
            };
            object.field("format", format);
            object.field("name", name.as_deref().unwrap_or("document"));
            object.object("source", |object| object.field("bytes", &bytes));
        }),
        Content::ToolUse { id, name, arguments } => object.object("toolUse", |object| {
            object.field("toolUseId", id);
            object.field("name", name);
            let arguments = arguments_object(arguments);
            object.raw("input", arguments.as_ref().map_or("{}", Json::text));
        }),
        Content::ToolResult { id, parts, is_error, .. } => object.object("toolResult", |object| {
            object.field("toolUseId", id);
            object.array("content", |array| {
                for part in parts {
                    array.object(|object| fields(object, &part.content));
                }
            });
            if *is_error {
                object.field("status", "error");
            }
        }),
        Content::Thinking { text, signature } => object.object("reasoningContent", |object| {
            object.object("reasoningText", |object| {
                object.field("text", text);
                object.maybe("signature", signature.as_ref());
            });
        }),
        Content::Redacted(data) => object.object("reasoningContent", |object| {
            object.field("redactedContent", data);
        }),
        // Refused before, or written whole.
        Content::Image { .. }
        | Content::Audio(_)
        | Content::Refusal(_)
        | Content::Native { .. } => {}
    }
}

fn tools(object: &mut Object<'_>, request: &ChatRequest) {
    if request.tools.is_empty() {
        return;
    }
    object.object("toolConfig", |object| {
        object.array("tools", |array| {
            for tool in &request.tools {
                match tool {
                    Tool::Native { value, .. } => array.raw(value.text()),
                    Tool::Function(function) => {
                        array.object(|object| {
                            object.object("toolSpec", |object| {
                                object.field("name", &function.name);
                                object.maybe("description", function.description.as_ref());
                                object.object("inputSchema", |object| {
                                    let schema = function.schema.as_ref().map(Json::text);
                                    object.raw("json", schema.unwrap_or("{\"type\":\"object\"}"));
                                });
                            });
                        });
                        cache(array, function.cache);
                    }
                }
            }
        });
        match &request.tool_choice {
            Some(ToolChoice::Auto) => {
                object.object("toolChoice", |object| object.object("auto", |_| {}));
            }
            Some(ToolChoice::Required) => {
                object.object("toolChoice", |object| object.object("any", |_| {}));
            }
            Some(ToolChoice::Named(name)) => object.object("toolChoice", |object| {
                object.object("tool", |object| object.field("name", name));
            }),
            None | Some(ToolChoice::None | ToolChoice::Native { .. }) => {}
        }
    });
}
