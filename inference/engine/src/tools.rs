//! How models are told of functions, and the forms in which they call them.
//!
//! Owns the forms, as chat templates show them, and our own words for models whose template knows
//! none of them. What holds a call to its form while it is written is `calls`'; reading calls back
//! from a text is not the engine's.

use std::io::{self, Write};

use selvedge_contract::{ChatMessage, Role, Tool, ToolCall, ToolChoice, Tooled, TurnKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

/// Calls of one answer that are held to their form as a list: more is no turn of a chat.
const MAX_LISTED: usize = 16;
/// What a call may stand before.
pub(crate) const CLOSING: &str = "</tool_call>";
/// Letters and digits of a call's id as templates see it: Mistral's refuse any other number.
const ID_CHARS: usize = 9;

/// How a model calls functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`, once for each: Hermes, Qwen.
    Tagged,
    /// `{"name": …, "parameters": …}`, with or without `<|python_tag|>` before it: Llama 3.
    Bare,
    /// `[TOOL_CALLS] [{"name": …, "arguments": …}, …]`: Mistral.
    Listed,
}

impl Form {
    /// The form that a chat template teaches; none where it knows of no tools, or of a form that is
    /// not known here.
    pub(crate) fn of(template: &str) -> Option<Self> {
        let has = |text: &str| template.contains(text);
        // Newer models write other things between the same marks.
        let other = ["[ARGS]", "<function=", "<arg_key>"].into_iter().any(has);
        if !has("tools") || other {
            None
        } else if has("[TOOL_CALLS]") {
            Some(Self::Listed)
        } else if has("<tool_call>") {
            Some(Self::Tagged)
        } else if has("<|python_tag|>") || has("ipython") {
            Some(Self::Bare)
        } else {
            None
        }
    }

    /// What a call stands behind.
    pub(crate) const fn mark(self) -> &'static str {
        match self {
            Self::Tagged => "<tool_call>",
            Self::Bare => "<|python_tag|>",
            Self::Listed => "[TOOL_CALLS]",
        }
    }

    /// What an answer begins with that must be a call.
    pub(crate) const fn lead(self) -> &'static str {
        match self {
            Self::Tagged => "<tool_call>\n",
            Self::Bare => "",
            Self::Listed => "[TOOL_CALLS]",
        }
    }

    const fn arguments(self) -> &'static str {
        match self {
            Self::Tagged | Self::Listed => "arguments",
            Self::Bare => "parameters",
        }
    }

    /// The schema of what stands behind the mark; none where a function's own is no JSON object.
    pub(crate) fn schema(self, chat: &Tooled) -> Option<String> {
        let tools: Vec<&Tool> = chat.callable().collect();
        let root = match self {
            Self::Listed => "#/items",
            Self::Tagged | Self::Bare => "#",
        };
        let one = |tool: &Tool, at: String| {
            let arguments = self.arguments();
            let parameters = parameters(tool, &format!("{at}/properties/{arguments}"))?;
            Some(json!({
                "type": "object",
                "properties": { "name": { "const": tool.name }, arguments: parameters },
                "required": ["name", arguments],
                "additionalProperties": false,
            }))
        };
        let call = match tools.as_slice() {
            [tool] => one(tool, root.to_owned())?,
            tools => {
                let options = tools.iter().enumerate();
                let options = options.map(|(at, tool)| one(tool, format!("{root}/anyOf/{at}")));
                json!({ "anyOf": options.collect::<Option<Vec<_>>>()? })
            }
        };
        let single = chat.choice != ToolChoice::Auto || !chat.parallel;
        let most = if single { 1 } else { MAX_LISTED };
        Some(match self {
            Self::Listed => {
                json!({ "type": "array", "items": call, "minItems": 1, "maxItems": most })
                    .to_string()
            }
            Self::Tagged | Self::Bare => call.to_string(),
        })
    }
}

/// The schema of a function's arguments, as it stands at a place of a larger one.
fn parameters(tool: &Tool, place: &str) -> Option<Value> {
    let Ok(Value::Object(mut schema)) = serde_json::from_str(&tool.parameters) else { return None };
    // It is part of another document now, which has a dialect and no name.
    schema.remove("$schema");
    schema.remove("$id");
    schema.entry("type").or_insert_with(|| "object".into());
    let mut schema = Value::Object(schema);
    move_references(&mut schema, place, false);
    Some(schema)
}

/// Has references lead to where the schema stands now. In a map of names, names are no keywords.
fn move_references(value: &mut Value, place: &str, names: bool) {
    const NAMES: [&str; 5] =
        ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
    const DATA: [&str; 4] = ["const", "enum", "default", "examples"];
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(|item| move_references(item, place, false))
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if !names && name == "$ref" && text.starts_with('#') => {
                        let within = text.trim_start_matches('#').trim_end_matches('/');
                        *text = format!("{place}{within}");
                    }
                    _ if !names && DATA.contains(&name.as_str()) => {}
                    value => {
                        move_references(value, place, !names && NAMES.contains(&name.as_str()));
                    }
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The functions as templates know them.
pub(crate) fn declared(tools: &[Tool]) -> Value {
    tools.iter().map(|tool| json!({ "type": "function", "function": function(tool) })).collect()
}

fn function(tool: &Tool) -> Value {
    let mut function = Map::new();
    function.insert("name".to_owned(), tool.name.clone().into());
    if !tool.description.is_empty() {
        function.insert("description".to_owned(), tool.description.clone().into());
    }
    let parameters = serde_json::from_str(&tool.parameters).unwrap_or_else(|_| json!({}));
    function.insert("parameters".to_owned(), parameters);
    Value::Object(function)
}

/// A message as templates know it.
pub(crate) fn message(message: &ChatMessage, turn: Option<&TurnKind>) -> Value {
    let mut said = json!({ "role": message.role.as_str(), "content": message.content });
    match turn {
        None => {}
        Some(TurnKind::Called(calls)) => {
            let call = |call: &ToolCall| {
                json!({
                    "id": short(&call.id),
                    "type": "function",
                    "function": { "name": call.name, "arguments": arguments(call) },
                })
            };
            said["tool_calls"] = calls.iter().map(call).collect();
        }
        Some(TurnKind::Answers { id, name }) => {
            said["name"] = name.clone().into();
            said["tool_call_id"] = short(id).into();
        }
    }
    said
}

/// A call's arguments: what is no JSON stays text.
fn arguments(call: &ToolCall) -> Value {
    serde_json::from_str(&call.arguments).unwrap_or_else(|_| call.arguments.clone().into())
}

/// An id as templates take it, equal for equal ids.
fn short(id: &str) -> String {
    if id.len() == ID_CHARS && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return id.to_owned();
    }
    blake3::hash(id.as_bytes()).to_hex().chars().take(ID_CHARS).collect()
}

/// The chat in words that every template can say: functions stand in a message of the system's,
/// before its own words or, where a template knows no such messages, before the user's. Calls are
/// part of what the model said, results of what the user did.
pub(crate) fn in_words(chat: &Tooled, as_system: bool) -> Vec<ChatMessage> {
    let mut said: Vec<ChatMessage> = Vec::with_capacity(chat.messages.len() + 1);
    let mut after_result = false;
    for (at, message) in chat.messages.iter().enumerate() {
        let turn = chat.turn(at);
        let content = match turn {
            None => message.content.clone(),
            Some(TurnKind::Called(calls)) => with_calls(&message.content, calls),
            Some(TurnKind::Answers { .. }) => {
                format!("<tool_response>\n{}\n</tool_response>", message.content)
            }
        };
        let role = if message.role == Role::Tool { Role::User } else { message.role };
        // Many templates want a user and a model in turns: what a user adds to results goes with
        // them.
        match said.last_mut().filter(|_| after_result && role == Role::User) {
            Some(last) => {
                last.content.push('\n');
                last.content.push_str(&content);
            }
            None => said.push(ChatMessage { role, content }),
        }
        after_result = matches!(turn, Some(TurnKind::Answers { .. }));
    }
    if chat.tools.is_empty() {
        return said;
    }
    let words = introduction(chat);
    let wanted = if as_system { Role::System } else { Role::User };
    match said.first_mut().filter(|first| first.role == wanted) {
        Some(first) => first.content = format!("{}\n\n{words}", first.content),
        None => said.insert(0, ChatMessage { role: wanted, content: words }),
    }
    said
}

fn with_calls(content: &str, calls: &[ToolCall]) -> String {
    let call = |call: &ToolCall| {
        let body = json!({ "name": call.name, "arguments": arguments(call) });
        format!("<tool_call>\n{}\n</tool_call>", line(&body))
    };
    let said = (!content.is_empty()).then(|| content.to_owned());
    said.into_iter().chain(calls.iter().map(call)).collect::<Vec<_>>().join("\n")
}

fn introduction(chat: &Tooled) -> String {
    let tools: Vec<String> = chat.tools.iter().map(|tool| line(&function(tool))).collect();
    let when = match &chat.choice {
        ToolChoice::Auto => {
            "Call a function only if it helps; otherwise answer in words.".to_owned()
        }
        ToolChoice::Required => "Your next answer must be such a call.".to_owned(),
        ToolChoice::Named(name) => format!("Your next answer must be a call of {name}."),
    };
    format!(
        "You can call functions. Each line describes one of them, its arguments as JSON Schema:\n\
         {}\n\
         To call a function, write nothing but its name and arguments in this form:\n\
         <tool_call>\n{{\"name\": \"NAME\", \"arguments\": {{ARGUMENTS}}}}\n</tool_call>\n\
         Its result is given to you in <tool_response>. {when}",
        tools.join("\n")
    )
}

/// JSON as Python writes it, and so as models have read it; none of what has no JSON.
pub(crate) fn spaced(value: &impl Serialize) -> Option<String> {
    written(value, Spaced)
}

/// The same, a line for each part.
pub(crate) fn indented(value: &impl Serialize, spaces: usize) -> Option<String> {
    let indent = " ".repeat(spaces);
    written(value, PrettyFormatter::with_indent(indent.as_bytes()))
}

fn written(value: &impl Serialize, form: impl Formatter) -> Option<String> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, form)).ok()?;
    String::from_utf8(out).ok()
}

/// A value in one line. All values of JSON have a text.
fn line(value: &Value) -> String {
    spaced(value).unwrap_or_default()
}

/// A space behind each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "tools_tests.rs"]
mod tests;
