//! Server side: messages and their blocks.
//!
//! Owns the fields of each kind of block. A kind that is not known here passes through whole, to
//! targets of this dialect only.

use schemars::JsonSchema;
use selvedge_base::Refusal;
use serde::Deserialize;

use super::fields::SYSTEM;
use crate::chat::{Cache, Content, Extension, Message, Part, Role, Source};
use crate::decode::{self, TextOr, invalid, required};
use crate::exchange::Dialect;
use crate::json::Json;
use crate::media;

const SELF: Dialect = Dialect::Anthropic;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageField {
    role: String,
    content: Option<TextOr<Json>>,
}

/// `cache_control`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CacheField {
    #[serde(rename = "type")]
    kind: String,
    ttl: Option<String>,
}

impl CacheField {
    pub(super) fn canonical(self, path: &str) -> Result<Cache, Refusal> {
        match (self.kind.as_str(), self.ttl.as_deref()) {
            ("ephemeral", None) => Ok(Cache::Default),
            ("ephemeral", Some("5m")) => Ok(Cache::FiveMinutes),
            ("ephemeral", Some("1h")) => Ok(Cache::Hour),
            _ => {
                let message = "'cache_control' must be {\"type\": \"ephemeral\"}, with a 'ttl' of \
                               \"5m\" or \"1h\" if any";
                Err(invalid(&format!("{path}.cache_control"), message))
            }
        }
    }
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

/// All fields of the kinds of block known here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    #[serde(rename = "type")]
    _kind: String,
    cache_control: Option<CacheField>,
    citations: Option<Json>,
    content: Option<TextOr<Json>>,
    context: Option<Json>,
    caller: Option<Json>,
    data: Option<String>,
    id: Option<String>,
    input: Option<Json>,
    is_error: Option<bool>,
    name: Option<String>,
    signature: Option<String>,
    source: Option<Json>,
    text: Option<String>,
    thinking: Option<String>,
    title: Option<String>,
    tool_use_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceField {
    #[serde(rename = "type")]
    kind: String,
    media_type: Option<String>,
    data: Option<String>,
    url: Option<String>,
    file_id: Option<String>,
}

/// Kinds of block and the fields each may have.
const KINDS: &[(&str, &[&str])] = &[
    ("text", &["text", "citations", "cache_control"]),
    ("image", &["source", "cache_control"]),
    ("document", &["source", "title", "context", "citations", "cache_control"]),
    ("tool_use", &["id", "name", "input", "caller", "cache_control"]),
    ("tool_result", &["tool_use_id", "content", "is_error", "cache_control"]),
    ("thinking", &["thinking", "signature"]),
    ("redacted_thinking", &["data"]),
];

/// Fields only this dialect has, where they are present.
pub(super) fn extensions<const N: usize>(fields: [(&str, Option<Json>); N]) -> Vec<Extension> {
    let extension = |(name, value): (&str, Option<Json>)| {
        let name = name.to_owned();
        value.map(|value| Extension { dialect: SELF, name, value })
    };
    fields.into_iter().filter_map(extension).collect()
}

/// The messages a system prompt means.
pub(super) fn system(field: Option<TextOr<Json>>) -> Result<Vec<Message>, Refusal> {
    let parts = match field {
        None => return Ok(Vec::new()),
        Some(TextOr::Text(text)) => vec![Part::text(text)],
        Some(TextOr::List(blocks)) => {
            let blocks = blocks.iter().enumerate();
            let block = |(at, value)| block(&format!("system[{at}]"), value, &["text"]);
            blocks.map(block).collect::<Result<_, _>>()?
        }
    };
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Message { role: SYSTEM, parts, ..Message::default() }])
}

/// The canonical messages.
pub(super) fn messages(fields: Option<Vec<MessageField>>) -> Result<Vec<Message>, Refusal> {
    let fields = fields.ok_or_else(|| required("messages"))?;
    if fields.is_empty() {
        return Err(invalid("messages", "'messages' must hold at least one message"));
    }
    fields.into_iter().enumerate().map(|(at, field)| message(at, field)).collect()
}

fn message(at: usize, field: MessageField) -> Result<Message, Refusal> {
    let mut role = match field.role.as_str() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => {
            let message = "'role' must be user or assistant; instructions go in 'system'";
            return Err(invalid(&format!("messages[{at}].role"), message));
        }
    };
    let allowed: &[&str] = match role {
        Role::Assistant => &["text", "thinking", "redacted_thinking", "tool_use"],
        _ => &["text", "image", "document", "tool_result"],
    };
    let path = format!("messages[{at}].content");
    let parts: Vec<Part> = match field.content.ok_or_else(|| required(&path))? {
        TextOr::Text(text) => vec![Part::text(text)],
        TextOr::List(blocks) => {
            let blocks = blocks.iter().enumerate();
            let block = |(index, value)| block(&format!("{path}[{index}]"), value, allowed);
            blocks.map(block).collect::<Result<_, _>>()?
        }
    };
    let is_result = |part: &Part| matches!(part.content, Content::ToolResult { .. });
    if !parts.is_empty() && parts.iter().all(is_result) {
        role = Role::Tool;
    }
    // What answers calls comes first, here and at the provider.
    let results = parts.iter().take_while(|part| is_result(part)).count();
    if let Some(late) = parts.iter().skip(results).position(is_result) {
        let path = format!("{path}[{}]", results + late);
        return Err(invalid(&path, "blocks of the type tool_result must come before all others"));
    }
    Ok(Message { role, parts, ..Message::default() })
}

fn block(path: &str, value: &Json, allowed: &[&str]) -> Result<Part, Refusal> {
    let Kind { kind } = decode::inside(path, value)?;
    let Some((_, fields)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        return Ok(Content::Native { dialect: SELF, value: value.clone() }.into());
    };
    if !allowed.contains(&kind.as_str()) {
        let message = format!("blocks of the type {kind} do not belong here");
        return Err(invalid(&format!("{path}.type"), message));
    }
    let block: Block = decode::inside(path, value)?;
    block.refuse_foreign(path, &kind, fields)?;
    let cache = match block.cache_control {
        None => None,
        Some(field) => Some(field.canonical(path)?),
    };
    let need = |name: &str, field: Option<String>| {
        field.ok_or_else(|| required(&format!("{path}.{name}")))
    };
    let mut extra =
        [("citations", block.citations), ("context", block.context), ("caller", block.caller)];
    // An empty list is what clients return when there was no source.
    for (_, value) in &mut extra {
        *value = value.take().filter(|value| value.compact() != "[]");
    }
    let content = match kind.as_str() {
        "text" => Content::Text(need("text", block.text)?),
        "image" => Content::Image { source: source(path, block.source, true)?, detail: None },
        "document" => match block.source {
            // Documents made of blocks exist here only.
            Some(source) if source.has_type(&["content"]) => {
                return Ok(Content::Native { dialect: SELF, value: value.clone() }.into());
            }
            field => Content::Document { source: source(path, field, false)?, name: block.title },
        },
        "tool_use" => Content::ToolUse {
            id: need("id", block.id)?,
            name: need("name", block.name)?,
            arguments: match block.input {
                Some(input) => decode::object(&format!("{path}.input"), input)?.text().to_owned(),
                None => return Err(required(&format!("{path}.input"))),
            },
        },
        "tool_result" => Content::ToolResult {
            id: need("tool_use_id", block.tool_use_id)?,
            name: None,
            parts: result(path, block.content)?,
            is_error: block.is_error.unwrap_or(false),
        },
        "thinking" => Content::Thinking {
            text: need("thinking", block.thinking)?,
            signature: block.signature,
        },
        _ => Content::Redacted(need("data", block.data)?),
    };
    Ok(Part { content, cache, extensions: extensions(extra) })
}

/// The content of a call's result: text, pictures and documents, and nothing deeper.
fn result(path: &str, content: Option<TextOr<Json>>) -> Result<Vec<Part>, Refusal> {
    match content {
        None => Ok(Vec::new()),
        Some(TextOr::Text(text)) => Ok(vec![Part::text(text)]),
        Some(TextOr::List(blocks)) => {
            let blocks = blocks.iter().enumerate();
            let allowed: &[&str] = &["text", "image", "document"];
            blocks
                .map(|(at, value)| block(&format!("{path}.content[{at}]"), value, allowed))
                .collect()
        }
    }
}

fn source(path: &str, field: Option<Json>, picture: bool) -> Result<Source, Refusal> {
    let path = format!("{path}.source");
    let field = field.ok_or_else(|| required(&path))?;
    let field: SourceField = decode::inside(&path, &field)?;
    match (field.kind.as_str(), field.media_type, field.data, field.url, field.file_id) {
        ("base64", Some(media_type), Some(base64), None, None) => {
            if !media::is_base64(&base64) {
                return Err(invalid(&format!("{path}.data"), "'data' must be base64"));
            }
            Ok(Source::Bytes { media_type, base64 })
        }
        ("text", _, Some(text), None, None) if !picture => Ok(Source::Text(text)),
        ("url", None, None, Some(url), None) => Ok(Source::Url(url)),
        ("file", None, None, None, Some(id)) => Ok(Source::File(id)),
        _ => {
            let message = "'source' must be base64 with 'media_type' and 'data', url with 'url', \
                           file with 'file_id', or for documents text with 'data'";
            Err(invalid(&path, message))
        }
    }
}

impl Block {
    fn refuse_foreign(&self, path: &str, kind: &str, fields: &[&str]) -> Result<(), Refusal> {
        let present = [
            ("cache_control", self.cache_control.is_some()),
            ("citations", self.citations.is_some()),
            ("content", self.content.is_some()),
            ("context", self.context.is_some()),
            ("caller", self.caller.is_some()),
            ("data", self.data.is_some()),
            ("id", self.id.is_some()),
            ("input", self.input.is_some()),
            ("is_error", self.is_error.is_some()),
            ("name", self.name.is_some()),
            ("signature", self.signature.is_some()),
            ("source", self.source.is_some()),
            ("text", self.text.is_some()),
            ("thinking", self.thinking.is_some()),
            ("title", self.title.is_some()),
            ("tool_use_id", self.tool_use_id.is_some()),
        ];
        let foreign = present.iter().find(|(name, there)| *there && !fields.contains(name));
        match foreign {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("a block of the type {kind} has no '{name}'");
                Err(invalid(&format!("{path}.{name}"), message))
            }
        }
    }
}
