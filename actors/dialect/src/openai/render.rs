//! Client side: a canonical request becomes what an OpenAI-compatible provider is sent.
//!
//! Owns the body, and the paths of OpenAI and Azure. What the provider cannot be told is refused
//! by name.

use selvedge_base::Refusal;

use super::text;
use crate::cannot;
use crate::chat::{
    ChatRequest, Content, Effort, Format, Message, Part, Role, Source, Tool, ToolChoice,
};
use crate::exchange::{Dialect, Envelope, Outgoing};
use crate::json::{Array, Object};
use crate::media;

const SELF: Dialect = Dialect::OpenAi;

/// Who is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'t> {
    /// OpenAI itself, which refuses fields it does not know.
    OpenAi,
    /// Azure OpenAI: OpenAI's fields at a path of the deployment.
    Azure {
        /// The deployment that serves the model.
        deployment: &'t str,
        /// The version of the API, such as `2024-10-21`.
        api_version: &'t str,
    },
    /// Servers that speak alike (vLLM, llama.cpp, most of the market): they know `top_k` and its
    /// kin and the older `max_tokens`, and no role `developer`.
    Compatible,
}

impl Target<'_> {
    /// The path of an endpoint such as `chat/completions`.
    pub(super) fn path(&self, endpoint: &str) -> String {
        match self {
            Self::OpenAi | Self::Compatible => format!("/v1/{endpoint}"),
            Self::Azure { deployment, api_version } => format!(
                "/openai/deployments/{}/{endpoint}?api-version={}",
                crate::exchange::encode(deployment),
                crate::exchange::encode(api_version)
            ),
        }
    }
}

/// What to send beside a body that passes as it came.
pub const ENVELOPE: Envelope =
    Envelope { path: "/v1/chat/completions", headers: &[("content-type", "application/json")] };

/// What to send for a chat.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render(request: &ChatRequest, target: Target<'_>) -> Result<Outgoing, Refusal> {
    if request.raw {
        return text::render(request, target);
    }
    check(request, target)?;
    let mut body = Vec::with_capacity(1_024);
    Object::write(&mut body, |object| {
        object.field("model", &request.model);
        object.array("messages", |array| {
            request.messages.iter().for_each(|message| self::message(array, message, target));
        });
        settings(object, request, target);
        tools(object, request);
        extensions(object, request);
    });
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path: target.path("chat/completions"), headers, body })
}

fn check(request: &ChatRequest, target: Target<'_>) -> Result<(), Refusal> {
    cannot::foreign(SELF, request)?;
    let strict = target != Target::Compatible;
    let sampling = &request.sampling;
    let reasoning = request.reasoning.unwrap_or_default();
    cannot::any(
        SELF,
        &[
            ("top_k", strict && sampling.top_k.is_some()),
            ("min_p", strict && sampling.min_p.is_some()),
            ("repetition_penalty", strict && sampling.repetition_penalty.is_some()),
            ("thinking", reasoning.thinking.is_some()),
            ("thinking.budget_tokens", reasoning.budget_tokens.is_some()),
            ("thinking.display", reasoning.show.is_some()),
        ],
    )?;
    hold(request, target)?;
    if reasoning.effort == Some(Effort::Max) {
        return Err(cannot::because(SELF, "reasoning_effort", "knows no effort above xhigh"));
    }
    for (at, message) in request.messages.iter().enumerate() {
        for (index, part) in message.parts.iter().enumerate() {
            check_part(&format!("messages[{at}].content[{index}]"), message.role, part, target)?;
        }
    }
    Ok(())
}

/// Refuses what says what an answer must be, where it is not known: servers that speak alike get it
/// in the words that it came in.
pub(super) fn hold(request: &ChatRequest, target: Target<'_>) -> Result<(), Refusal> {
    match request.held_by().filter(|_| target != Target::Compatible) {
        Some(field) => Err(cannot::say(SELF, field)),
        None => Ok(()),
    }
}

fn check_part(path: &str, role: Role, part: &Part, target: Target<'_>) -> Result<(), Refusal> {
    let no = |field: &str, why: &str| Err(cannot::because(SELF, &format!("{path}{field}"), why));
    match &part.content {
        Content::Text(_) => Ok(()),
        Content::Image { .. } | Content::Audio(_) | Content::Document { .. }
            if role != Role::User =>
        {
            no("", "takes files in messages of the user only")
        }
        Content::Image { source: Source::Url(_) | Source::Bytes { .. }, .. } => Ok(()),
        Content::Image { .. } => no(".source", "takes pictures by address or as bytes"),
        Content::Audio(Source::Bytes { media_type, .. }) => match media::sound_format(media_type) {
            Some(_) => Ok(()),
            None => no(".source.media_type", "has no name for this coding of sound"),
        },
        Content::Audio(_) => no(".source", "takes sound as bytes"),
        Content::Document { source: Source::Bytes { .. } | Source::File(_), .. } => Ok(()),
        Content::Document { .. } => no(".source", "takes documents as bytes or by file id"),
        Content::ToolUse { .. } | Content::Refusal(_) => Ok(()),
        Content::ToolResult { parts, is_error, .. } => {
            if *is_error {
                return no(".is_error", "cannot mark a result as failed");
            }
            match parts.iter().position(|part| !matches!(part.content, Content::Text(_))) {
                Some(at) => no(&format!(".content[{at}]"), "takes results of calls as text only"),
                None => Ok(()),
            }
        }
        Content::Thinking { signature: None, .. } if target == Target::Compatible => Ok(()),
        Content::Thinking { .. } | Content::Redacted(_) => {
            no("", "does not take a model's thinking back")
        }
        Content::Native { .. } => Ok(()),
    }
}

fn settings(object: &mut Object<'_>, request: &ChatRequest, target: Target<'_>) {
    let max_tokens = match target {
        Target::Compatible => "max_tokens",
        Target::OpenAi | Target::Azure { .. } => "max_completion_tokens",
    };
    object.maybe(max_tokens, request.max_tokens.as_ref());
    drawing(object, request);
    if let Some(logprobs) = request.logprobs {
        object.field("logprobs", &true);
        if logprobs.top > 0 {
            object.field("top_logprobs", &logprobs.top);
        }
    }
    if let Some(effort) = request.reasoning.and_then(|reasoning| reasoning.effort) {
        object.field("reasoning_effort", effort.as_str());
    }
    if let Some(format) = &request.format {
        object.object("response_format", |object| self::format(object, format));
    }
    object.maybe("user", request.user.as_ref());
    object.maybe("safety_identifier", request.safety_id.as_ref());
    object.maybe("prompt_cache_key", request.cache_key.as_ref());
    if !request.metadata.is_empty() {
        object.object("metadata", |object| {
            request.metadata.iter().for_each(|(name, value)| object.field(name, value));
        });
    }
    let tier = request.service_tier.as_deref().map(|tier| match tier {
        // Anthropic's word for the same.
        "standard_only" => "default",
        tier => tier,
    });
    object.maybe("service_tier", tier.as_ref());
}

/// How tokens are drawn, how many answers there are and whether they stream: of chats and texts.
pub(super) fn drawing(object: &mut Object<'_>, request: &ChatRequest) {
    let sampling = &request.sampling;
    object.maybe("temperature", sampling.temperature.as_ref());
    object.maybe("top_p", sampling.top_p.as_ref());
    object.maybe("top_k", sampling.top_k.as_ref());
    object.maybe("min_p", sampling.min_p.as_ref());
    object.maybe("presence_penalty", sampling.presence_penalty.as_ref());
    object.maybe("frequency_penalty", sampling.frequency_penalty.as_ref());
    object.maybe("repetition_penalty", sampling.repetition_penalty.as_ref());
    object.maybe("seed", sampling.seed.as_ref());
    if !sampling.logit_bias.is_empty() {
        object.object("logit_bias", |object| {
            for (token, bias) in &sampling.logit_bias {
                object.field(&token.to_string(), bias);
            }
        });
    }
    if !request.stop.is_empty() {
        object.field("stop", &request.stop);
    }
    object.maybe("n", request.n.as_ref());
    if request.stream {
        object.field("stream", &true);
    }
}

fn format(object: &mut Object<'_>, format: &Format) {
    match format {
        Format::Text => object.field("type", "text"),
        Format::JsonObject => object.field("type", "json_object"),
        Format::JsonSchema { name, description, schema, strict } => {
            object.field("type", "json_schema");
            object.object("json_schema", |object| {
                // A schema needs a name here, and nothing depends on which.
                object.field("name", name.as_deref().unwrap_or("answer"));
                object.maybe("description", description.as_ref());
                object.raw("schema", schema.text());
                object.maybe("strict", strict.as_ref());
            });
        }
    }
}

fn tools(object: &mut Object<'_>, request: &ChatRequest) {
    if !request.tools.is_empty() {
        object.array("tools", |array| {
            for tool in &request.tools {
                match tool {
                    Tool::Function(function) => array.object(|object| {
                        object.field("type", "function");
                        object.object("function", |object| {
                            object.field("name", &function.name);
                            object.maybe("description", function.description.as_ref());
                            if let Some(schema) = &function.schema {
                                object.raw("parameters", schema.text());
                            }
                            object.maybe("strict", function.strict.as_ref());
                        });
                    }),
                    Tool::Native { value, .. } => array.raw(value.text()),
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
            object.object("function", |object| object.field("name", name));
        }),
        Some(ToolChoice::Native { value, .. }) => object.raw("tool_choice", value.text()),
    }
    object.maybe("parallel_tool_calls", request.parallel_tool_calls.as_ref());
}

pub(super) fn extensions(object: &mut Object<'_>, request: &ChatRequest) {
    let (inside, own): (Vec<_>, Vec<_>) =
        request.extensions.iter().partition(|field| field.name.starts_with("stream_options."));
    own.iter().for_each(|field| object.raw(&field.name, field.value.text()));
    // Usage is always asked for: what the provider bills is what is recorded.
    if request.stream {
        object.object("stream_options", |object| {
            object.field("include_usage", &true);
            for field in inside {
                object.raw(field.name.trim_start_matches("stream_options."), field.value.text());
            }
        });
    }
}

fn message(array: &mut Array<'_>, message: &Message, target: Target<'_>) {
    for part in &message.parts {
        if let Content::ToolResult { id, parts, .. } = &part.content {
            array.object(|object| {
                object.field("role", "tool");
                object.field("tool_call_id", id);
                content(object, parts.iter());
            });
        }
    }
    let rest = || message.parts.iter().filter(|part| !is_result(part));
    if rest().next().is_none() && message.parts.iter().any(is_result) {
        return;
    }
    array.object(|object| {
        let role = match (message.role, target) {
            (Role::Developer, Target::Compatible) => Role::System,
            (role, _) => role,
        };
        object.field("role", role.as_str());
        object.maybe("name", message.name.as_ref());
        let said = rest().filter(|part| is_said(part));
        if rest().any(is_said) {
            content(object, said);
        } else {
            object.raw("content", "null");
        }
        assistant(object, message);
        for field in &message.extensions {
            object.raw(&field.name, field.value.text());
        }
    });
}

fn is_result(part: &Part) -> bool {
    matches!(part.content, Content::ToolResult { .. })
}

/// Whether a part stands in `content`.
fn is_said(part: &Part) -> bool {
    match part.content {
        Content::Text(_) | Content::Image { .. } | Content::Audio(_) | Content::Document { .. } => {
            true
        }
        Content::ToolUse { .. }
        | Content::ToolResult { .. }
        | Content::Thinking { .. }
        | Content::Redacted(_)
        | Content::Refusal(_)
        | Content::Native { .. } => false,
    }
}

fn content<'p>(object: &mut Object<'_>, parts: impl Iterator<Item = &'p Part> + Clone) {
    let mut few = parts.clone();
    if let (Some(Part { content: Content::Text(text), .. }), None) = (few.next(), few.next()) {
        object.field("content", text);
        return;
    }
    object.array("content", |array| {
        for part in parts {
            array.object(|object| self::part(object, &part.content));
        }
    });
}

fn part(object: &mut Object<'_>, content: &Content) {
    match content {
        Content::Text(text) => {
            object.field("type", "text");
            object.field("text", text);
        }
        Content::Image { source, detail } => {
            object.field("type", "image_url");
            object.object("image_url", |object| {
                match source {
                    Source::Bytes { media_type, base64 } => {
                        object.field("url", &media::to_url(media_type, base64));
                    }
                    Source::Url(text) | Source::Text(text) | Source::File(text) => {
                        object.field("url", text);
                    }
                }
                object.maybe("detail", detail.as_ref());
            });
        }
        Content::Audio(Source::Bytes { media_type, base64 }) => {
            object.field("type", "input_audio");
            object.object("input_audio", |object| {
                object.field("data", base64);
                object.field("format", media::sound_format(media_type).unwrap_or("wav"));
            });
        }
        Content::Document { source, name } => {
            object.field("type", "file");
            object.object("file", |object| {
                match source {
                    Source::Bytes { media_type, base64 } => {
                        object.field("file_data", &media::to_url(media_type, base64));
                    }
                    Source::File(id) | Source::Url(id) | Source::Text(id) => {
                        object.field("file_id", id);
                    }
                }
                object.maybe("filename", name.as_ref());
            });
        }
        // Refused before, or not part of the content.
        Content::Audio(_)
        | Content::ToolUse { .. }
        | Content::ToolResult { .. }
        | Content::Thinking { .. }
        | Content::Redacted(_)
        | Content::Refusal(_)
        | Content::Native { .. } => {}
    }
}

/// What only the model's own messages have.
fn assistant(object: &mut Object<'_>, message: &Message) {
    let thinking: String = texts(message, |content| match content {
        Content::Thinking { text, .. } => Some(text),
        _ => None,
    });
    if !thinking.is_empty() {
        object.field("reasoning_content", &thinking);
    }
    let refusal: String = texts(message, |content| match content {
        Content::Refusal(text) => Some(text),
        _ => None,
    });
    if !refusal.is_empty() {
        object.field("refusal", &refusal);
    }
    let is_call =
        |part: &&Part| matches!(part.content, Content::ToolUse { .. } | Content::Native { .. });
    if message.parts.iter().any(|part| is_call(&part)) {
        object.array("tool_calls", |array| {
            for part in message.parts.iter().filter(is_call) {
                match &part.content {
                    Content::ToolUse { id, name, arguments } => array.object(|object| {
                        object.field("id", id);
                        object.field("type", "function");
                        object.object("function", |object| {
                            object.field("name", name);
                            object.field("arguments", arguments);
                        });
                    }),
                    Content::Native { value, .. } => array.raw(value.text()),
                    _ => {}
                }
            }
        });
    }
}

fn texts<'m>(message: &'m Message, of: impl Fn(&'m Content) -> Option<&'m String>) -> String {
    message.parts.iter().filter_map(|part| of(&part.content)).map(String::as_str).collect()
}
