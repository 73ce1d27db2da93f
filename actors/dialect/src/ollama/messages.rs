//! Server side: the messages of a chat.
//!
//! Owns finding the call a result belongs to (older clients name only the tool, or nothing), and
//! the media type of pictures, which come as bare base64.

use schemars::JsonSchema;
use selvedge_base::Refusal;
use serde::Deserialize;

use crate::chat::{Content, Message, Part, Role, Source};
use crate::decode::{List, invalid, required};
use crate::json::Json;
use crate::media;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageField {
    role: String,
    content: Option<String>,
    thinking: Option<String>,
    images: Option<List<String>>,
    tool_calls: Option<List<CallField>>,
    tool_name: Option<String>,
    tool_call_id: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CallField {
    id: Option<String>,
    #[serde(rename = "type")]
    _kind: Option<String>,
    function: CallFunction,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CallFunction {
    name: String,
    arguments: Option<Json>,
    #[serde(rename = "description")]
    _description: Option<String>,
    #[serde(rename = "index")]
    _index: Option<u32>,
}

/// The canonical messages.
pub(super) fn canonical(fields: Option<Vec<MessageField>>) -> Result<Vec<Message>, Refusal> {
    let fields = fields.ok_or_else(|| required("messages"))?;
    if fields.is_empty() {
        let message = "'messages' must hold at least one message; models load by themselves";
        return Err(invalid("messages", message));
    }
    // Calls that have no result yet: id and tool.
    let mut waiting: Vec<(String, String)> = Vec::new();
    let fields = fields.into_iter().enumerate();
    fields.map(|(at, field)| message(at, field, &mut waiting)).collect()
}

fn message(
    at: usize,
    field: MessageField,
    waiting: &mut Vec<(String, String)>,
) -> Result<Message, Refusal> {
    let path = |name: &str| format!("messages[{at}].{name}");
    let role = match field.role.as_str() {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => {
            let message = "'role' must be system, user, assistant or tool";
            return Err(invalid(&path("role"), message));
        }
    };
    let calls = field.tool_calls.unwrap_or_default().0;
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let images = field.images.filter(|images| !images.0.is_empty());
    let (thinking, name) = (some(field.thinking), some(field.tool_name));
    let id = some(field.tool_call_id);
    for (name, present, allowed) in [
        ("thinking", thinking.is_some(), role == Role::Assistant),
        ("tool_calls", !calls.is_empty(), role == Role::Assistant),
        ("images", images.is_some(), role == Role::User),
        ("tool_name", name.is_some(), role == Role::Tool),
        ("tool_call_id", id.is_some(), role == Role::Tool),
    ] {
        if present && !allowed {
            let message = format!("'{name}' is not a field of messages of {}", role.as_str());
            return Err(invalid(&path(name), message));
        }
    }
    if role == Role::Tool {
        let content = field.content.ok_or_else(|| required(&path("content")))?;
        let found = waiting.iter().position(|(own, tool)| match (&id, &name) {
            (Some(id), _) => own == id,
            (None, Some(name)) => tool == name,
            (None, None) => true,
        });
        let waited = found.map(|found| waiting.remove(found).0);
        let unmatched = || {
            let message = "this result belongs to no call before it; give its 'tool_call_id'";
            invalid(&path("tool_call_id"), message)
        };
        let id = id.or(waited).ok_or_else(unmatched)?;
        let parts = vec![Part::text(content)];
        let result = Content::ToolResult { id, name, parts, is_error: false };
        return Ok(Message { role, parts: vec![result.into()], ..Message::default() });
    }
    let mut parts: Vec<Part> = Vec::new();
    parts.extend(thinking.map(|text| Part::from(Content::Thinking { text, signature: None })));
    let content = field.content.unwrap_or_default();
    let other = !parts.is_empty() || images.is_some() || !calls.is_empty();
    if !content.is_empty() || !other {
        parts.push(Part::text(content));
    }
    parts.extend(self::images(&path("images"), images)?);
    for (index, call) in calls.into_iter().enumerate() {
        let id = some(call.id).unwrap_or_else(|| format!("call_{at}_{index}"));
        let name = call.function.name;
        waiting.push((id.clone(), name.clone()));
        let arguments = call.function.arguments;
        let arguments = arguments.map_or_else(|| "{}".to_owned(), |json| json.text().to_owned());
        parts.push(Content::ToolUse { id, name, arguments }.into());
    }
    Ok(Message { role, parts, ..Message::default() })
}

/// Pictures in base64, whose beginnings tell what they are.
pub(super) fn images(path: &str, images: Option<List<String>>) -> Result<Vec<Part>, Refusal> {
    let images = images.map(|list| list.0).unwrap_or_default().into_iter().enumerate();
    let image = |(at, base64): (usize, String)| match picture_type(&base64) {
        Some(media_type) if media::is_base64(&base64) => {
            let source = Source::Bytes { media_type: media_type.to_owned(), base64 };
            Ok(Content::Image { source, detail: None }.into())
        }
        _ => {
            let message = "pictures must be PNG, JPEG, GIF or WebP in base64";
            Err(invalid(&format!("{path}[{at}]"), message))
        }
    };
    images.map(image).collect()
}

/// The media type that the first bytes of a picture tell, in base64.
pub(super) fn picture_type(base64: &str) -> Option<&'static str> {
    const BEGINNINGS: &[(&str, &str)] = &[
        ("iVBORw0KG", "image/png"),
        ("/9j/", "image/jpeg"),
        ("R0lGOD", "image/gif"),
        ("UklGR", "image/webp"),
    ];
    let found = BEGINNINGS.iter().find(|(beginning, _)| base64.starts_with(beginning));
    found.map(|(_, media_type)| *media_type)
}
