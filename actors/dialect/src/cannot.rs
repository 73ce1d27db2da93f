//! What a target cannot say, refused by name before anything is sent.
//!
//! Owns the one wording of such refusals and the checks all renderers share. A refusal here says
//! [`Retry::Elsewhere`]: the request is fine, and a target of another dialect may be able to.

use selvedge_base::{Blame, Code, Refusal, Retry, Stage};

use crate::chat::{ChatRequest, Content, Extension, Message, Part, Tool};
use crate::exchange::Dialect;

/// The refusal for a field that `dialect` has no word for.
pub(crate) fn say(dialect: Dialect, field: &str) -> Refusal {
    because(dialect, field, "has no word for it")
}

/// The refusal for a field whose value `dialect` cannot take, and why.
pub(crate) fn because(dialect: Dialect, field: &str, why: &str) -> Refusal {
    let message = format!(
        "'{field}' cannot be passed on: the target speaks {}, which {why}",
        dialect.as_str()
    );
    let (stage, blame) = (Stage::Validate, Blame::Client);
    Refusal::new(stage, blame, Retry::Elsewhere, Code::Unsupported, message).param(field)
}

/// Refuses each field in `present` that is there.
pub(crate) fn any(dialect: Dialect, present: &[(&str, bool)]) -> Result<(), Refusal> {
    match present.iter().find(|(_, present)| *present) {
        Some((field, _)) => Err(say(dialect, field)),
        None => Ok(()),
    }
}

/// Refuses what belongs to dialects other than `dialect`, anywhere in the request.
pub(crate) fn foreign(dialect: Dialect, request: &ChatRequest) -> Result<(), Refusal> {
    if request.raw && dialect != Dialect::OpenAi {
        return Err(because(dialect, "prompt", "answers chats and goes on with no bare text"));
    }
    if let Some(other) = request.extensions.iter().find(|field| field.dialect != dialect) {
        return Err(say(dialect, &other.name));
    }
    for (at, tool) in request.tools.iter().enumerate() {
        let foreign = match tool {
            Tool::Function(function) => function
                .extensions
                .iter()
                // How arguments are cut into pieces changes nothing of what they are.
                .find(|field| field.dialect != dialect && field.name != "eager_input_streaming")
                .map(|field| format!("tools[{at}].{}", field.name)),
            Tool::Native { dialect: own, .. } => {
                (*own != dialect).then(|| format!("tools[{at}].type"))
            }
        };
        if let Some(field) = foreign {
            return Err(say(dialect, &field));
        }
    }
    if let Some(crate::chat::ToolChoice::Native { dialect: own, .. }) = &request.tool_choice
        && *own != dialect
    {
        return Err(say(dialect, "tool_choice"));
    }
    request
        .messages
        .iter()
        .enumerate()
        .try_for_each(|(at, message)| in_message(dialect, at, message))
}

fn in_message(dialect: Dialect, at: usize, message: &Message) -> Result<(), Refusal> {
    if let Some(other) = message.extensions.iter().find(|field| field.dialect != dialect) {
        return Err(say(dialect, &format!("messages[{at}].{}", other.name)));
    }
    for (index, part) in message.parts.iter().enumerate() {
        in_part(dialect, &format!("messages[{at}].content[{index}]"), part)?;
    }
    Ok(())
}

fn in_part(dialect: Dialect, path: &str, part: &Part) -> Result<(), Refusal> {
    // Ids of items and what a text was annotated with tell a model nothing.
    let hint = |name: &str| matches!(name, "id" | "phase" | "annotations");
    let foreign = |field: &&Extension| field.dialect != dialect && !hint(&field.name);
    if let Some(other) = part.extensions.iter().find(foreign) {
        return Err(say(dialect, &format!("{path}.{}", other.name)));
    }
    match &part.content {
        Content::Native { dialect: own, .. } if *own != dialect => {
            Err(say(dialect, &format!("{path}.type")))
        }
        Content::ToolResult { parts, .. } => {
            let inner = parts.iter().enumerate();
            inner
                .into_iter()
                .try_for_each(|(at, part)| in_part(dialect, &format!("{path}.content[{at}]"), part))
        }
        _ => Ok(()),
    }
}
