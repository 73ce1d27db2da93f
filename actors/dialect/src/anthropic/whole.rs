//! Server side: a gathered answer becomes one `message`.
//!
//! Owns the shape.

use super::usage;
use super::write::word;
use crate::chat::{Block, Choice, Gathered};
use crate::exchange::Dialect;
use crate::json::{Array, Json, Object};

/// The body of a whole answer: its first choice, since this dialect has one.
pub fn whole(answer: &Gathered) -> Vec<u8> {
    let mut out = Vec::with_capacity(1_024);
    let none = Choice::default();
    let choice = answer.choices.first().unwrap_or(&none);
    Object::write(&mut out, |object| {
        object.field("id", &answer.head.id);
        object.field("type", "message");
        object.field("role", "assistant");
        object.field("model", &answer.head.model);
        object.array("content", |array| {
            let mut blocks = choice.blocks.iter().peekable();
            while let Some(block) = blocks.next() {
                let mut citations = Vec::new();
                while let Some(Block::Citation { dialect: Dialect::Anthropic, value }) =
                    blocks.peek()
                {
                    citations.push(value);
                    blocks.next();
                }
                self::block(array, block, &citations);
            }
        });
        object.field("stop_reason", &choice.reason.as_ref().map(word));
        object.field("stop_sequence", &choice.stop);
        let usage = answer.usage.unwrap_or_default();
        object.object("usage", |object| usage::write(object, &usage));
    });
    out
}

fn block(array: &mut Array<'_>, block: &Block, citations: &[&Json]) {
    match block {
        Block::Text(text) | Block::Refusal(text) => array.object(|object| {
            object.field("type", "text");
            object.field("text", text);
            if !citations.is_empty() {
                object.array("citations", |array| {
                    citations.iter().for_each(|citation| array.raw(citation.text()));
                });
            }
        }),
        Block::Thinking { text, signature } => array.object(|object| {
            object.field("type", "thinking");
            object.field("thinking", text);
            object.field("signature", signature.as_deref().unwrap_or_default());
        }),
        Block::Redacted(data) => array.object(|object| {
            object.field("type", "redacted_thinking");
            object.field("data", data);
        }),
        Block::ToolUse { id, name, arguments } => array.object(|object| {
            object.field("type", "tool_use");
            object.field("id", id);
            object.field("name", name);
            match Json::parse(arguments.as_str()) {
                Ok(json) if json.text().starts_with('{') => object.raw("input", json.text()),
                // What the model wrote is no object: nothing of it is lost or repaired.
                _ if !arguments.trim().is_empty() => {
                    object.object("input", |object| object.field("_unparsed", arguments));
                }
                _ => object.raw("input", "{}"),
            }
        }),
        Block::Native { dialect: Dialect::Anthropic, value, .. } => array.raw(value.text()),
        Block::Native { .. } | Block::Citation { .. } => {}
    }
}
