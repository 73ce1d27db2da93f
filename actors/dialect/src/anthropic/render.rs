//! Client side: a canonical request becomes what Anthropic is sent.
//!
//! Owns the body. What cannot be said here is refused by name.

use selvedge_base::Refusal;

use crate::cannot;
use crate::chat::{
    Cache, ChatRequest, Content, Effort, Format, Message, Part, Role, Source, Thinking, Tool,
    ToolChoice,
};
use crate::exchange::{Dialect, Envelope, Outgoing};
use crate::json::{Array, Json, Object};
use crate::number::Number;

const SELF: Dialect = Dialect::Anthropic;
/// The version of the API, which every request names.
const VERSION: &str = "2023-06-01";

/// Who is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// What is asked for when the client says no `max_tokens`, which this dialect requires: the
    /// most the model can, from the catalogue.
    pub max_tokens: u32,
}

/// What to send for a chat.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render(request: &ChatRequest, target: Target) -> Result<Outgoing, Refusal> {
    let mut outgoing = render_at("/v1/messages", request, |object| {
        object.field("max_tokens", &request.max_tokens.unwrap_or(target.max_tokens));
    })?;
    outgoing.method = "POST";
    Ok(outgoing)
}

/// What to send beside a body that passes as it came.
pub const ENVELOPE: Envelope = Envelope {
    path: "/v1/messages",
    headers: &[("content-type", "application/json"), ("anthropic-version", VERSION)],
};

fn headers() -> Vec<(&'static str, String)> {
    ENVELOPE.headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

pub(super) fn render_at(
    path: &str,
    request: &ChatRequest,
    more: impl FnOnce(&mut Object<'_>),
) -> Result<Outgoing, Refusal> {
    check(request)?;
    let instructions = request.messages.iter().take_while(|m| m.role.is_instruction()).count();
    let (system, messages) = request.messages.split_at(instructions);
    let mut body = Vec::with_capacity(1_024);
    Object::write(&mut body, |object| {
        object.field("model", &request.model);
        more(object);
        self::system(object, system);
        object.array("messages", |array| self::messages(array, messages));
        tools(object, request);
        settings(object, request);
        request.extensions.iter().for_each(|own| object.raw(&own.name, own.value.text()));
    });
    Ok(Outgoing { method: "POST", path: path.to_owned(), headers: headers(), body })
}

fn check(request: &ChatRequest) -> Result<(), Refusal> {
    cannot::foreign(SELF, request)?;
    let sampling = &request.sampling;
    cannot::any(
        SELF,
        &[
            ("n", request.n.is_some_and(|n| n > 1)),
            ("logprobs", request.logprobs.is_some()),
            ("seed", sampling.seed.is_some()),
            ("min_p", sampling.min_p.is_some()),
            ("presence_penalty", sampling.presence_penalty.is_some()),
            ("frequency_penalty", sampling.frequency_penalty.is_some()),
            ("repetition_penalty", sampling.repetition_penalty.is_some()),
            ("logit_bias", !sampling.logit_bias.is_empty()),
        ],
    )?;
    let one = Number::from(1);
    if sampling.temperature.is_some_and(|temperature| temperature > one) {
        return Err(cannot::because(SELF, "temperature", "takes 0.0 to 1.0"));
    }
    let reasoning = request.reasoning.unwrap_or_default();
    if matches!(reasoning.effort, Some(Effort::None | Effort::Minimal)) {
        return Err(cannot::because(SELF, "reasoning_effort", "knows no effort below low"));
    }
    if reasoning.thinking == Some(Thinking::On) && reasoning.budget_tokens.is_none() {
        return Err(cannot::because(SELF, "thinking", "needs a budget of tokens with it"));
    }
    match &request.format {
        Some(Format::JsonObject) => {
            return Err(cannot::because(SELF, "response_format", "takes JSON by a schema only"));
        }
        Some(Format::JsonSchema { description: Some(_), .. }) => {
            return Err(cannot::say(SELF, "response_format.json_schema.description"));
        }
        Some(Format::JsonSchema { .. } | Format::Text) | None => {}
    }
    if !matches!(request.service_tier.as_deref(), None | Some("auto" | "default" | "standard_only"))
    {
        return Err(cannot::say(SELF, "service_tier"));
    }
    let mut begun = false;
    for (at, message) in request.messages.iter().enumerate() {
        begun |= !message.role.is_instruction();
        check_message(at, message, begun)?;
    }
    Ok(())
}

fn check_message(at: usize, message: &Message, begun: bool) -> Result<(), Refusal> {
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
    Ok(())
}

fn check_part(path: &str, role: Role, part: &Part) -> Result<(), Refusal> {
    let no = |field: &str, why: &str| Err(cannot::because(SELF, &format!("{path}{field}"), why));
    match &part.content {
        Content::Text(_) | Content::Redacted(_) | Content::Native { .. } => Ok(()),
        _ if role.is_instruction() => no("", "takes instructions as text only"),
        Content::Image { source: Source::Text(_), .. } => no(".source", "takes no such picture"),
        Content::Image { detail, .. } => match detail.as_deref() {
            None | Some("auto") => Ok(()),
            Some(_) => no(".image_url.detail", "has no word for it"),
        },
        Content::Document { .. } => Ok(()),
        Content::Audio(_) => no("", "takes no sound"),
        Content::ToolUse { arguments, .. } => match arguments_object(arguments) {
            Some(_) => Ok(()),
            None => no(".arguments", "takes arguments only if they are a JSON object"),
        },
        Content::ToolResult { parts, .. } => parts
            .iter()
            .enumerate()
            .try_for_each(|(at, part)| check_part(&format!("{path}.content[{at}]"), role, part)),
        Content::Thinking { signature: Some(_), .. } => Ok(()),
        Content::Thinking { .. } => no("", "takes thinking back only with its signature"),
        Content::Refusal(_) => no("", "has no refusals in messages"),
    }
}

/// Arguments as the object this dialect wants; nothing means no arguments.
fn arguments_object(arguments: &str) -> Option<Json> {
    let text = if arguments.trim().is_empty() { "{}" } else { arguments.trim() };
    Json::parse(text).ok().filter(|json| json.text().starts_with('{'))
}

fn system(object: &mut Object<'_>, messages: &[Message]) {
    let mut parts = messages.iter().flat_map(|message| &message.parts);
    match (parts.next(), parts.next()) {
        (None, _) => {}
        (Some(Part { content: Content::Text(text), cache: None, extensions }), None)
            if extensions.is_empty() =>
        {
            object.field("system", text);
        }
        _ => object.array("system", |array| {
            messages.iter().flat_map(|message| &message.parts).for_each(|part| block(array, part));
        }),
    }
}

/// Results that follow one another answer one turn, so they are one message here.
fn messages(array: &mut Array<'_>, messages: &[Message]) {
    let mut rest = messages;
    while let Some((first, others)) = rest.split_first() {
        let more = match first.role {
            Role::Tool => others.iter().take_while(|next| next.role == Role::Tool).count(),
            _ => 0,
        };
        let (own, next) = rest.split_at(more + 1);
        rest = next;
        array.object(|object| {
            let role = if first.role == Role::Assistant { "assistant" } else { "user" };
            object.field("role", role);
            content(object, own.iter().flat_map(|message| &message.parts));
        });
    }
}

fn content<'p>(object: &mut Object<'_>, parts: impl Iterator<Item = &'p Part> + Clone) {
    let mut few = parts.clone();
    if let (Some(Part { content: Content::Text(text), cache: None, extensions }), None) =
        (few.next(), few.next())
        && extensions.is_empty()
    {
        object.field("content", text);
        return;
    }
    object.array("content", |array| parts.for_each(|part| block(array, part)));
}

fn block(array: &mut Array<'_>, part: &Part) {
    if let Content::Native { value, .. } = &part.content {
        return array.raw(value.text());
    }
    array.object(|object| {
        fields(object, &part.content);
        let own = part.extensions.iter().filter(|own| own.dialect == SELF);
        own.for_each(|own| object.raw(&own.name, own.value.text()));
        cache(object, part.cache);
    });
}

fn fields(object: &mut Object<'_>, content: &Content) {
    match content {
        Content::Text(text) => {
            object.field("type", "text");
            object.field("text", text);
        }
        Content::Image { source, .. } => {
            object.field("type", "image");
            object.object("source", |object| self::source(object, source));
        }
        Content::Document { source, name } => {
            object.field("type", "document");
            object.object("source", |object| self::source(object, source));
            object.maybe("title", name.as_ref());
        }
        Content::ToolUse { id, name, arguments } => {
            object.field("type", "tool_use");
            object.field("id", id);
            object.field("name", name);
            let input = arguments_object(arguments);
            object.raw("input", input.as_ref().map_or("{}", Json::text));
        }
        Content::ToolResult { id, parts, is_error, .. } => {
            object.field("type", "tool_result");
            object.field("tool_use_id", id);
            if !parts.is_empty() {
                self::content(object, parts.iter());
            }
            if *is_error {
                object.field("is_error", &true);
            }
        }
        Content::Thinking { text, signature } => {
            object.field("type", "thinking");
            object.field("thinking", text);
            object.maybe("signature", signature.as_ref());
        }
        Content::Redacted(data) => {
            object.field("type", "redacted_thinking");
            object.field("data", data);
        }
        // Refused before, or written whole.
        Content::Audio(_) | Content::Refusal(_) | Content::Native { .. } => {}
    }
}

fn source(object: &mut Object<'_>, source: &Source) {
    match source {
        Source::Bytes { media_type, base64 } => {
            object.field("type", "base64");
            object.field("media_type", media_type);
            object.field("data", base64);
        }
        Source::Url(url) => {
            object.field("type", "url");
            object.field("url", url);
        }
        Source::Text(text) => {
            object.field("type", "text");
            object.field("media_type", "text/plain");
            object.field("data", text);
        }
        Source::File(id) => {
            object.field("type", "file");
            object.field("file_id", id);
        }
    }
}

fn cache(object: &mut Object<'_>, cache: Option<Cache>) {
    let Some(cache) = cache else { return };
    object.object("cache_control", |object| {
        object.field("type", "ephemeral");
        match cache {
            Cache::Default => {}
            Cache::FiveMinutes => object.field("ttl", "5m"),
            Cache::Hour => object.field("ttl", "1h"),
        }
    });
}

fn tools(object: &mut Object<'_>, request: &ChatRequest) {
    if !request.tools.is_empty() {
        object.array("tools", |array| {
            for tool in &request.tools {
                match tool {
                    Tool::Native { value, .. } => array.raw(value.text()),
                    Tool::Function(function) => array.object(|object| {
                        object.field("name", &function.name);
                        object.maybe("description", function.description.as_ref());
                        // A function without arguments has a schema here all the same.
                        let schema = function.schema.as_ref().map(Json::text);
                        object.raw("input_schema", schema.unwrap_or("{\"type\":\"object\"}"));
                        object.maybe("strict", function.strict.as_ref());
                        for own in &function.extensions {
                            object.raw(&own.name, own.value.text());
                        }
                        cache(object, function.cache);
                    }),
                }
            }
        });
    }
    let single = request.parallel_tool_calls == Some(false);
    let choice = match &request.tool_choice {
        None if single => Some(("auto", None)),
        None => None,
        Some(ToolChoice::Auto) => Some(("auto", None)),
        Some(ToolChoice::None) => Some(("none", None)),
        Some(ToolChoice::Required) => Some(("any", None)),
        Some(ToolChoice::Named(name)) => Some(("tool", Some(name))),
        // Refused before: this dialect has none of its own.
        Some(ToolChoice::Native { .. }) => None,
    };
    if let Some((kind, name)) = choice {
        object.object("tool_choice", |object| {
            object.field("type", kind);
            object.maybe("name", name);
            if single && kind != "none" {
                object.field("disable_parallel_tool_use", &true);
            }
        });
    }
}

fn settings(object: &mut Object<'_>, request: &ChatRequest) {
    object.maybe("temperature", request.sampling.temperature.as_ref());
    object.maybe("top_p", request.sampling.top_p.as_ref());
    object.maybe("top_k", request.sampling.top_k.as_ref());
    if !request.stop.is_empty() {
        object.field("stop_sequences", &request.stop);
    }
    if request.stream {
        object.field("stream", &true);
    }
    if let Some(user) = &request.user {
        object.object("metadata", |object| object.field("user_id", user));
    }
    let reasoning = request.reasoning.unwrap_or_default();
    if let Some(thinking) = reasoning.thinking {
        object.object("thinking", |object| {
            let kind = match thinking {
                Thinking::On => "enabled",
                Thinking::Off => "disabled",
                Thinking::Adaptive => "adaptive",
            };
            object.field("type", kind);
            object.maybe("budget_tokens", reasoning.budget_tokens.as_ref());
            if let Some(show) = reasoning.show {
                object.field("display", if show { "summarized" } else { "omitted" });
            }
        });
    }
    let schema = match &request.format {
        Some(Format::JsonSchema { schema, .. }) => Some(schema),
        _ => None,
    };
    if reasoning.effort.is_some() || schema.is_some() {
        object.object("output_config", |object| {
            object.maybe("effort", reasoning.effort.map(Effort::as_str).as_ref());
            if let Some(schema) = schema {
                object.object("format", |object| {
                    object.field("type", "json_schema");
                    object.raw("schema", schema.text());
                });
            }
        });
    }
    if let Some(tier) = &request.service_tier {
        let tier = if tier == "auto" { "auto" } else { "standard_only" };
        object.field("service_tier", tier);
    }
}
