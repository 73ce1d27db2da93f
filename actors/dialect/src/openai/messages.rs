//! Server side: the messages of a chat.
//!
//! Owns roles, parts and calls as this dialect writes them.

use schemars::JsonSchema;
use selvedge_base::Refusal;
use serde::Deserialize;

use super::fields::function_name;
use crate::chat::{self, Content, Extension, Part, Role, Source};
use crate::decode::{List, TextOr, invalid, required, unsupported};
use crate::exchange::Dialect;
use crate::json::Json;
use crate::media;

/// One message. What its role does not have must be absent; clients send it as `null` when they
/// return an answer as history.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    role: String,
    content: Option<TextOr<PartField>>,
    name: Option<String>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    tool_calls: Option<List<CallField>>,
    tool_call_id: Option<String>,
    annotations: Option<Json>,
    audio: Option<Json>,
    function_call: Option<Json>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PartField {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<ImageField>,
    input_audio: Option<AudioField>,
    file: Option<FileField>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ImageField {
    url: String,
    detail: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AudioField {
    data: String,
    format: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FileField {
    file_data: Option<String>,
    file_id: Option<String>,
    filename: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CallField {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Option<CallFunction>,
    custom: Option<Json>,
    /// Some clients return the index of a stream's call as history; it says nothing.
    #[serde(rename = "index")]
    _index: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CallFunction {
    name: String,
    arguments: String,
}

/// The canonical messages.
pub(super) fn canonical(messages: Option<Vec<Message>>) -> Result<Vec<chat::Message>, Refusal> {
    match messages {
        Some(messages) if !messages.is_empty() => {
            messages.into_iter().enumerate().map(|(at, message)| one(at, message)).collect()
        }
        Some(_) => Err(invalid("messages", "'messages' must hold at least one message")),
        None => Err(required("messages")),
    }
}

fn one(at: usize, message: Message) -> Result<chat::Message, Refusal> {
    let path = |field: &str| format!("messages[{at}].{field}");
    let role = match message.role.as_str() {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        "function" => {
            let message = "messages of functions are retired and not supported; use the role tool";
            return Err(unsupported(&path("role"), message));
        }
        _ => {
            let message = "'role' must be system, developer, user, assistant or tool";
            return Err(invalid(&path("role"), message));
        }
    };
    refuse_foreign(at, role, &message)?;
    let mut parts = Vec::new();
    if let Some(text) = message.reasoning_content.filter(|text| !text.is_empty()) {
        parts.push(Content::Thinking { text, signature: None }.into());
    }
    let content = content(at, role, message.content)?;
    let Some(content) = content else {
        let rest = !parts.is_empty()
            || message.refusal.is_some()
            || message.audio.is_some()
            || message.tool_calls.as_ref().is_some_and(|calls| !calls.0.is_empty());
        if role != Role::Assistant || !rest {
            return Err(required(&path("content")));
        }
        return Ok(finish(at, role, message.name, parts, message.refusal, message.tool_calls)?
            .with(extensions(message.annotations, message.audio)));
    };
    if role == Role::Tool {
        let id = message.tool_call_id.ok_or_else(|| required(&path("tool_call_id")))?;
        let result = Content::ToolResult { id, name: None, parts: content, is_error: false };
        return Ok(chat::Message { role, parts: vec![result.into()], ..Default::default() });
    }
    parts.extend(content);
    Ok(finish(at, role, message.name, parts, message.refusal, message.tool_calls)?
        .with(extensions(message.annotations, message.audio)))
}

fn finish(
    at: usize,
    role: Role,
    name: Option<String>,
    mut parts: Vec<Part>,
    refusal: Option<String>,
    calls: Option<List<CallField>>,
) -> Result<chat::Message, Refusal> {
    parts.extend(refusal.map(|text| Part::from(Content::Refusal(text))));
    for (index, call) in calls.unwrap_or_default().0.into_iter().enumerate() {
        parts.push(self::call(&format!("messages[{at}].tool_calls[{index}]"), call)?);
    }
    Ok(chat::Message { role, name, parts, extensions: Vec::new() })
}

impl chat::Message {
    fn with(mut self, extensions: Vec<Extension>) -> Self {
        self.extensions = extensions;
        self
    }
}

/// Refuses fields that a message of this role does not have.
fn refuse_foreign(at: usize, role: Role, message: &Message) -> Result<(), Refusal> {
    let assistant = role == Role::Assistant;
    let empty = |json: &Option<Json>| json.as_ref().is_none_or(|json| json.compact() == "[]");
    let no_calls = message.tool_calls.as_ref().is_none_or(|calls| calls.0.is_empty());
    for (field, absent, allowed) in [
        ("refusal", message.refusal.is_none(), assistant),
        ("reasoning_content", message.reasoning_content.is_none(), assistant),
        ("tool_calls", no_calls, assistant),
        ("annotations", empty(&message.annotations), assistant),
        ("audio", message.audio.is_none(), assistant),
        ("tool_call_id", message.tool_call_id.is_none(), role == Role::Tool),
        ("name", message.name.is_none(), role != Role::Tool),
        ("function_call", message.function_call.is_none(), false),
    ] {
        if !absent && !allowed {
            let path = format!("messages[{at}].{field}");
            let message = format!("'{field}' is not a field of messages of {}", role.as_str());
            return Err(invalid(&path, message));
        }
    }
    Ok(())
}

fn extensions(annotations: Option<Json>, audio: Option<Json>) -> Vec<Extension> {
    let annotations = annotations.filter(|json| json.compact() != "[]");
    [("annotations", annotations), ("audio", audio)]
        .into_iter()
        .filter_map(|(name, value)| {
            let name = name.to_owned();
            value.map(|value| Extension { dialect: Dialect::OpenAi, name, value })
        })
        .collect()
}

fn content(
    at: usize,
    role: Role,
    content: Option<TextOr<PartField>>,
) -> Result<Option<Vec<Part>>, Refusal> {
    let parts = match content {
        None => return Ok(None),
        Some(TextOr::Text(text)) => return Ok(Some(vec![Part::text(text)])),
        Some(TextOr::List(parts)) => parts,
    };
    if parts.is_empty() {
        let message = "'content' must hold at least one part";
        return Err(invalid(&format!("messages[{at}].content"), message));
    }
    let parts = parts.into_iter().enumerate().map(|(index, part)| {
        self::part(&format!("messages[{at}].content[{index}]"), role, part).map(Part::from)
    });
    parts.collect::<Result<_, _>>().map(Some)
}

fn part(path: &str, role: Role, part: PartField) -> Result<Content, Refusal> {
    let allowed = match part.kind.as_str() {
        "text" => true,
        "refusal" => role == Role::Assistant,
        "image_url" | "input_audio" | "file" => role == Role::User,
        _ => {
            let message = "'type' must be text, image_url, input_audio, file or refusal";
            return Err(invalid(&format!("{path}.type"), message));
        }
    };
    if !allowed {
        let message =
            format!("messages of {} have no parts of the type \"{}\"", role.as_str(), part.kind);
        return Err(invalid(&format!("{path}.type"), message));
    }
    // A part holds the field of its type and no other.
    let fields = [
        ("text", part.text.is_some()),
        ("refusal", part.refusal.is_some()),
        ("image_url", part.image_url.is_some()),
        ("input_audio", part.input_audio.is_some()),
        ("file", part.file.is_some()),
    ];
    for (name, present) in fields {
        let own = name == part.kind;
        if own && !present {
            return Err(required(&format!("{path}.{name}")));
        }
        if !own && present {
            let message = format!("a part of the type \"{}\" has no '{name}'", part.kind);
            return Err(invalid(&format!("{path}.{name}"), message));
        }
    }
    if let Some(text) = part.text {
        Ok(Content::Text(text))
    } else if let Some(text) = part.refusal {
        Ok(Content::Refusal(text))
    } else if let Some(image) = part.image_url {
        self::image(path, image)
    } else if let Some(audio) = part.input_audio {
        self::audio(path, audio)
    } else if let Some(file) = part.file {
        self::file(path, file)
    } else {
        Err(required(path))
    }
}

fn image(path: &str, image: ImageField) -> Result<Content, Refusal> {
    let source = media::of_url(image.url).ok_or_else(|| {
        let message = "'url' must be an address, or data:TYPE;base64,DATA";
        invalid(&format!("{path}.image_url.url"), message)
    })?;
    let known = |detail: &str| matches!(detail, "auto" | "low" | "high" | "original");
    if image.detail.as_deref().is_some_and(|detail| !known(detail)) {
        let message = "'detail' must be auto, low, high or original";
        return Err(invalid(&format!("{path}.image_url.detail"), message));
    }
    Ok(Content::Image { source, detail: image.detail })
}

fn audio(path: &str, audio: AudioField) -> Result<Content, Refusal> {
    let Some(media_type) = media::sound_type(&audio.format) else {
        let message = "'format' must be a known coding such as wav or mp3";
        return Err(invalid(&format!("{path}.input_audio.format"), message));
    };
    if !media::is_base64(&audio.data) {
        let message = "'data' must be base64";
        return Err(invalid(&format!("{path}.input_audio.data"), message));
    }
    let media_type = media_type.to_owned();
    Ok(Content::Audio(Source::Bytes { media_type, base64: audio.data }))
}

fn file(path: &str, file: FileField) -> Result<Content, Refusal> {
    let source = match (file.file_data, file.file_id) {
        (Some(data), None) => match media::of_url(data) {
            Some(bytes @ Source::Bytes { .. }) => bytes,
            _ => {
                let message = "'file_data' must be data:TYPE;base64,DATA";
                return Err(invalid(&format!("{path}.file.file_data"), message));
            }
        },
        (None, Some(id)) => Source::File(id),
        _ => {
            let message = "'file' must hold either 'file_data' or 'file_id'";
            return Err(invalid(&format!("{path}.file"), message));
        }
    };
    Ok(Content::Document { source, name: file.filename })
}

fn call(path: &str, call: CallField) -> Result<Part, Refusal> {
    match (call.kind.as_deref().unwrap_or("function"), call.function, call.custom) {
        ("function", Some(function), None) => {
            function_name(&format!("{path}.function.name"), &function.name)?;
            let (name, arguments) = (function.name, function.arguments);
            Ok(Content::ToolUse { id: call.id, name, arguments }.into())
        }
        ("custom", None, Some(custom)) => {
            let mut out = Vec::new();
            crate::json::Object::write(&mut out, |object| {
                object.field("id", &call.id);
                object.field("type", "custom");
                object.raw("custom", custom.text());
            });
            let text = String::from_utf8_lossy(&out).into_owned();
            let value = Json::parse(text).map_err(|_| required(path))?;
            Ok(Content::Native { dialect: Dialect::OpenAi, value }.into())
        }
        ("function", ..) => Err(required(&format!("{path}.function"))),
        ("custom", ..) => Err(required(&format!("{path}.custom"))),
        _ => Err(invalid(&format!("{path}.type"), "'type' must be \"function\" or \"custom\"")),
    }
}
