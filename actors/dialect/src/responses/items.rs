//! Server side: the items of `input` become messages.
//!
//! Owns items and their parts. Items of kinds not known here pass whole to targets of this dialect.

use selvedge_base::Refusal;
use serde::Deserialize;

use crate::chat::{Content, Extension, Message, Part, Role, Source};
use crate::decode::{self, List, TextOr, invalid, required};
use crate::exchange::Dialect;
use crate::json::Json;
use crate::media;

const SELF: Dialect = Dialect::Responses;

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageItem {
    #[serde(rename = "type")]
    _kind: Option<String>,
    role: String,
    content: TextOr<PartField>,
    id: Option<Json>,
    #[serde(rename = "status")]
    _status: Option<String>,
    phase: Option<Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallItem {
    #[serde(rename = "type")]
    _kind: String,
    call_id: String,
    name: String,
    arguments: String,
    id: Option<Json>,
    #[serde(rename = "status")]
    _status: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputItem {
    #[serde(rename = "type")]
    _kind: String,
    call_id: String,
    output: TextOr<PartField>,
    #[serde(rename = "id")]
    _id: Option<Json>,
    #[serde(rename = "status")]
    _status: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReasoningItem {
    #[serde(rename = "type")]
    _kind: String,
    id: Option<Json>,
    summary: Option<List<SummaryField>>,
    content: Option<Json>,
    encrypted_content: Option<String>,
    #[serde(rename = "status")]
    _status: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SummaryField {
    #[serde(rename = "type")]
    _kind: String,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartField {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<String>,
    detail: Option<String>,
    file_id: Option<String>,
    file_data: Option<String>,
    file_url: Option<String>,
    filename: Option<String>,
    annotations: Option<Json>,
    logprobs: Option<Json>,
}

/// The canonical messages.
pub(super) fn messages(input: TextOr<Json>) -> Result<Vec<Message>, Refusal> {
    let items = match input {
        TextOr::Text(text) => return Ok(vec![Message::text(Role::User, text)]),
        TextOr::List(items) => items,
    };
    if items.is_empty() {
        return Err(invalid("input", "'input' must hold at least one item"));
    }
    let mut messages: Vec<Message> = Vec::new();
    for (at, value) in items.iter().enumerate() {
        let message = item(&format!("input[{at}]"), value)?;
        match messages.last_mut() {
            // Items of one turn of the model are one message.
            Some(last) if last.role == Role::Assistant && message.role == Role::Assistant => {
                last.parts.extend(message.parts);
            }
            _ => messages.push(message),
        }
    }
    Ok(messages)
}

fn item(path: &str, value: &Json) -> Result<Message, Refusal> {
    let Kind { kind } = decode::inside(path, value)?;
    let part = match kind.as_deref() {
        None | Some("message") => return message(path, decode::inside(path, value)?),
        Some("function_call") => {
            let item: CallItem = decode::inside(path, value)?;
            let content =
                Content::ToolUse { id: item.call_id, name: item.name, arguments: item.arguments };
            Part { extensions: own("id", item.id), ..Part::from(content) }
        }
        Some("function_call_output") => {
            let item: OutputItem = decode::inside(path, value)?;
            let parts = parts(&format!("{path}.output"), Role::User, item.output)?;
            let content =
                Content::ToolResult { id: item.call_id, name: None, parts, is_error: false };
            return Ok(Message {
                role: Role::Tool,
                parts: vec![content.into()],
                ..Message::default()
            });
        }
        Some("reasoning") => {
            let item: ReasoningItem = decode::inside(path, value)?;
            let summary = item.summary.unwrap_or_default().0;
            let text = summary.iter().map(|part| part.text.as_str()).collect::<Vec<_>>();
            let content =
                Content::Thinking { text: text.join("\n"), signature: item.encrypted_content };
            let mut extensions = own("id", item.id);
            extensions.extend(own("content", item.content.filter(|json| json.compact() != "[]")));
            Part { extensions, ..Part::from(content) }
        }
        Some(_) => Content::Native { dialect: SELF, value: value.clone() }.into(),
    };
    Ok(Message { role: Role::Assistant, parts: vec![part], ..Message::default() })
}

fn own(name: &str, value: Option<Json>) -> Vec<Extension> {
    let name = name.to_owned();
    value.map(|value| Extension { dialect: SELF, name, value }).into_iter().collect()
}

fn message(path: &str, item: MessageItem) -> Result<Message, Refusal> {
    let role = match item.role.as_str() {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => {
            let message = "'role' must be system, developer, user or assistant";
            return Err(invalid(&format!("{path}.role"), message));
        }
    };
    let mut parts = parts(&format!("{path}.content"), role, item.content)?;
    if let (Role::Assistant, Some(first)) = (role, parts.first_mut()) {
        first.extensions.extend(own("id", item.id));
        first.extensions.extend(own("phase", item.phase));
    }
    Ok(Message { role, parts, ..Message::default() })
}

fn parts(path: &str, role: Role, content: TextOr<PartField>) -> Result<Vec<Part>, Refusal> {
    match content {
        TextOr::Text(text) => Ok(vec![Part::text(text)]),
        TextOr::List(parts) => parts
            .into_iter()
            .enumerate()
            .map(|(at, part)| self::part(&format!("{path}[{at}]"), role, part))
            .collect(),
    }
}

fn part(path: &str, role: Role, part: PartField) -> Result<Part, Refusal> {
    refuse_foreign(path, &part)?;
    let need = |name: &str, field: Option<String>| {
        field.ok_or_else(|| required(&format!("{path}.{name}")))
    };
    let assistant = role == Role::Assistant;
    let content = match part.kind.as_str() {
        "input_text" if !assistant => Content::Text(need("text", part.text)?),
        "output_text" if assistant => Content::Text(need("text", part.text)?),
        "refusal" if assistant => Content::Refusal(need("refusal", part.refusal)?),
        "input_image" if !assistant => {
            let source = match (part.image_url, part.file_id) {
                (Some(url), None) => media::of_url(url).ok_or_else(|| {
                    let message = "'image_url' must be an address, or data:TYPE;base64,DATA";
                    invalid(&format!("{path}.image_url"), message)
                })?,
                (None, Some(id)) => Source::File(id),
                _ => return Err(required(&format!("{path}.image_url"))),
            };
            Content::Image { source, detail: part.detail.filter(|detail| detail != "auto") }
        }
        "input_file" if !assistant => {
            let source = match (part.file_data, part.file_id, part.file_url) {
                (Some(data), None, None) => match media::of_url(data) {
                    Some(bytes @ Source::Bytes { .. }) => bytes,
                    _ => {
                        let message = "'file_data' must be data:TYPE;base64,DATA";
                        return Err(invalid(&format!("{path}.file_data"), message));
                    }
                },
                (None, Some(id), None) => Source::File(id),
                (None, None, Some(url)) => Source::Url(url),
                _ => return Err(required(&format!("{path}.file_data"))),
            };
            Content::Document { source, name: part.filename }
        }
        _ => {
            let message = "'type' must be input_text, input_image or input_file, or in messages of \
                           assistant output_text or refusal";
            return Err(invalid(&format!("{path}.type"), message));
        }
    };
    // Where a text came from and how likely it was says nothing new to a model.
    let annotations = part.annotations.filter(|json| json.compact() != "[]");
    Ok(Part { extensions: own("annotations", annotations), ..Part::from(content) })
}

fn refuse_foreign(path: &str, part: &PartField) -> Result<(), Refusal> {
    let allowed: &[&str] = match part.kind.as_str() {
        "input_text" => &["text"],
        "output_text" => &["text", "annotations", "logprobs"],
        "refusal" => &["refusal"],
        "input_image" => &["image_url", "file_id", "detail"],
        "input_file" => &["file_id", "file_data", "file_url", "filename"],
        _ => return Ok(()),
    };
    let present = [
        ("text", part.text.is_some()),
        ("refusal", part.refusal.is_some()),
        ("image_url", part.image_url.is_some()),
        ("detail", part.detail.is_some()),
        ("file_id", part.file_id.is_some()),
        ("file_data", part.file_data.is_some()),
        ("file_url", part.file_url.is_some()),
        ("filename", part.filename.is_some()),
        ("annotations", part.annotations.is_some()),
        ("logprobs", part.logprobs.is_some()),
    ];
    match present.iter().find(|(name, there)| *there && !allowed.contains(name)) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!("a part of the type {} has no '{name}'", part.kind);
            Err(invalid(&format!("{path}.{name}"), message))
        }
    }
}
