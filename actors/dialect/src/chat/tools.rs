//! A canonical chat with tools as local engines take it.
//!
//! Owns how the canonical messages, in which one may hold several results beside other words,
//! become an engine's, where each result is a message of its own; and the refusal, by name, of
//! tools that a model of the mesh cannot be told of.

use std::collections::BTreeMap;

use selvedge_base::Refusal;
use selvedge_contract::{self as contract, ChatMessage, Input, Limits, Tooled, Turn, TurnKind};

use super::request::{ChatRequest, Content, Message, Part, Role, Tool, ToolChoice};
use crate::decode::{invalid, unsupported};

/// What stands before the words of a call that failed: models have no other sign for it.
const FAILED: &str = "Error: ";

/// What a model goes on with: a plain chat, or one with tools.
pub(super) fn input(request: &ChatRequest) -> Result<Input, Refusal> {
    let mut said = Said::default();
    for (at, message) in request.messages.iter().enumerate() {
        said.take(at, message)?;
    }
    if said.messages.len() > Limits::MESSAGES {
        let message = format!("'messages' may hold at most {}", Limits::MESSAGES);
        return Err(invalid("messages", message));
    }
    let (choice, may_call) = match request.tool_choice.as_ref().unwrap_or(&ToolChoice::Auto) {
        ToolChoice::Auto => (contract::ToolChoice::Auto, true),
        ToolChoice::None => (contract::ToolChoice::Auto, false),
        ToolChoice::Required => (contract::ToolChoice::Required, true),
        ToolChoice::Named(name) => (contract::ToolChoice::Named(name.clone()), true),
        ToolChoice::Native { .. } => {
            let message = "models of this mesh know auto, none, required and one function's name";
            return Err(unsupported("tool_choice", message));
        }
    };
    let tools = request.tools.iter().enumerate().map(|(at, tool)| self::tool(at, tool));
    let tools = tools.collect::<Result<Vec<_>, _>>()?;
    let wanted = contract::ToolChoice::Auto != choice;
    if !wanted && said.turns.is_empty() && (tools.is_empty() || !may_call) {
        return Ok(Input::Chat(said.messages));
    }
    let parallel = request.parallel_tool_calls != Some(false);
    let (messages, turns) = (said.messages, said.turns);
    let chat = Tooled { messages, turns, tools, choice, parallel };
    if wanted && chat.callable().next().is_none() {
        let message = "a tool must be called that is not among the tools";
        return Err(invalid("tool_choice", message));
    }
    // These bounds are the mesh's own: a provider that is next in turn may have wider ones.
    chat.check().map_err(|why| unsupported("tools", why))?;
    // What must not be called is not told of; it was looked at all the same.
    let tools = if may_call { chat.tools } else { Vec::new() };
    Ok(Input::Tooled(Box::new(Tooled { tools, ..chat })))
}

fn tool(at: usize, tool: &Tool) -> Result<contract::Tool, Refusal> {
    let function = match tool {
        Tool::Function(function) => function,
        Tool::Native { .. } => {
            let message = "models of this mesh call functions; nobody runs other tools for them";
            return Err(unsupported(&format!("tools[{at}].type"), message));
        }
    };
    // How arguments are cut into pieces changes nothing of what they are.
    let foreign = function.extensions.iter().find(|own| own.name != "eager_input_streaming");
    if let Some(own) = foreign {
        let message = format!("'{}' is not supported by models of this mesh", own.name);
        return Err(unsupported(&format!("tools[{at}].{}", own.name), message));
    }
    let parameters = match &function.schema {
        Some(schema) if !schema.text().trim_start().starts_with('{') => {
            let message = "the schema of a tool's arguments must be an object";
            return Err(invalid(&format!("tools[{at}].parameters"), message));
        }
        Some(schema) => schema.text().to_owned(),
        None => r#"{"type":"object","properties":{}}"#.to_owned(),
    };
    let description = function.description.clone().unwrap_or_default();
    Ok(contract::Tool { name: function.name.clone(), description, parameters })
}

/// Messages as an engine takes them.
#[derive(Default)]
struct Said {
    messages: Vec<ChatMessage>,
    turns: Vec<Turn>,
    /// The functions of the calls so far, by the calls' ids.
    called: BTreeMap<String, String>,
}

impl Said {
    fn take(&mut self, at: usize, message: &Message) -> Result<(), Refusal> {
        let path = |field: &str| format!("messages[{at}].{field}");
        let role = match message.role {
            Role::System | Role::Developer => contract::Role::System,
            Role::User => contract::Role::User,
            Role::Assistant => contract::Role::Assistant,
            Role::Tool => contract::Role::Tool,
        };
        if message.name.is_some() {
            // Chat templates have no place for a speaker's name; dropping it would change who
            // spoke.
            let message = "'name' is not supported by models of this mesh";
            return Err(unsupported(&path("name"), message));
        }
        if let Some(own) = message.extensions.first() {
            let text = format!("'{}' is not supported by models of this mesh", own.name);
            return Err(unsupported(&path(&own.name), text));
        }
        let (mut texts, mut calls, mut results) = (Vec::new(), Vec::new(), 0);
        for (index, part) in message.parts.iter().enumerate() {
            let path = format!("messages[{at}].content[{index}]");
            match &part.content {
                Content::ToolUse { id, name, arguments } if role == contract::Role::Assistant => {
                    self.called.insert(id.clone(), name.clone());
                    let (id, name, arguments) = (id.clone(), name.clone(), arguments.clone());
                    calls.push(contract::ToolCall { id, name, arguments });
                }
                Content::ToolResult { id, name, parts, is_error } => {
                    self.result((at, &path), (id, name.as_deref()), parts, *is_error)?;
                    results += 1;
                }
                _ => texts.push(text(&path, part)?),
            }
        }
        if texts.is_empty() && calls.is_empty() {
            return match results {
                0 => Err(invalid(&path("content"), "'content' is required")),
                _ => Ok(()),
            };
        }
        // Parts are separate paragraphs of a message.
        self.messages.push(ChatMessage { role, content: texts.join("\n") });
        if !calls.is_empty() {
            self.turn(TurnKind::Called(calls));
        }
        Ok(())
    }

    fn result(
        &mut self,
        (at, path): (usize, &str),
        (id, name): (&str, Option<&str>),
        parts: &[Part],
        is_error: bool,
    ) -> Result<(), Refusal> {
        let Some(name) = self.called.get(id).map(String::as_str).or(name).map(str::to_owned) else {
            let message = "this result belongs to no call before it";
            return Err(invalid(&format!("messages[{at}].tool_call_id"), message));
        };
        let inner = parts.iter().enumerate();
        let texts = inner.map(|(index, part)| text(&format!("{path}.content[{index}]"), part));
        let words = texts.collect::<Result<Vec<_>, _>>()?.join("\n");
        let content = if is_error { format!("{FAILED}{words}") } else { words };
        self.messages.push(ChatMessage { role: contract::Role::Tool, content });
        self.turn(TurnKind::Answers { id: id.to_owned(), name });
        Ok(())
    }

    /// Says what the last message is.
    fn turn(&mut self, what: TurnKind) {
        let at = u32::try_from(self.messages.len().saturating_sub(1)).unwrap_or(u32::MAX);
        self.turns.push(Turn { at, what });
    }
}

fn text<'p>(path: &str, part: &'p Part) -> Result<&'p str, Refusal> {
    // What it is instead is said by name: the path alone means nothing to a reader of another API.
    let kind = match &part.content {
        Content::Text(text) => return Ok(text),
        Content::Image { .. } => "an image",
        Content::Audio(_) => "audio",
        Content::Document { .. } => "a document",
        Content::ToolUse { .. } => "a tool call",
        Content::ToolResult { .. } => "a tool result",
        Content::Thinking { .. } | Content::Redacted(_) => "thinking",
        Content::Refusal(_) => "a refusal",
        Content::Native { .. } => "a part of one API alone",
    };
    let message = format!("models of this mesh take text only, and this part is {kind}");
    Err(unsupported(&format!("{path}.type"), message))
}

#[cfg(test)]
#[path = "tools_tests.rs"]
mod tests;
