//! Server side: a gathered answer becomes one `chat.completion`.
//!
//! Owns the shape.

use super::write::{logprobs, word};
use crate::chat::{Block, Choice, Gathered};
use crate::exchange::{Dialect, Reply};
use crate::json::Object;

/// The body of a whole answer.
pub fn whole(answer: &Gathered, reply: Reply) -> Vec<u8> {
    let mut out = Vec::with_capacity(1_024);
    Object::write(&mut out, |object| {
        let head = &answer.head;
        object.field("id", &head.id);
        object.field("object", "chat.completion");
        object.field("created", &head.created.unwrap_or(reply.created));
        object.field("model", &head.model);
        object.array("choices", |array| {
            for (index, choice) in answer.choices.iter().enumerate() {
                array.object(|object| {
                    object.field("index", &index);
                    object.object("message", |object| message(object, choice));
                    if choice.logprobs.is_empty() && choice.refusal_logprobs.is_empty() {
                        object.raw("logprobs", "null");
                    } else {
                        let refusal = choice.logprobs.is_empty();
                        let tokens =
                            if refusal { &choice.refusal_logprobs } else { &choice.logprobs };
                        object.object("logprobs", |object| logprobs(object, tokens, refusal));
                    }
                    object.field("finish_reason", &choice.reason.as_ref().map(word));
                });
            }
        });
        if let Some(usage) = &answer.usage {
            object.object("usage", |object| super::usage::write(object, usage));
        }
        object.maybe("service_tier", head.service_tier.as_ref());
        object.field("system_fingerprint", &head.fingerprint);
    });
    out
}

fn message(object: &mut Object<'_>, choice: &Choice) {
    object.field("role", "assistant");
    let calls = || {
        choice.blocks.iter().filter_map(|block| match block {
            Block::ToolUse { id, name, arguments } => Some((id, name, arguments)),
            _ => None,
        })
    };
    let text = choice.text();
    if text.is_empty() && (calls().next().is_some() || !choice.refusal().is_empty()) {
        object.raw("content", "null");
    } else {
        object.field("content", &text);
    }
    let refusal = choice.refusal();
    object.field("refusal", &(!refusal.is_empty()).then_some(refusal));
    let thinking = choice.thinking();
    if !thinking.is_empty() {
        object.field("reasoning_content", &thinking);
    }
    if calls().next().is_some() {
        object.array("tool_calls", |array| {
            for (id, name, arguments) in calls() {
                array.object(|object| {
                    object.field("id", id);
                    object.field("type", "function");
                    object.object("function", |object| {
                        object.field("name", name);
                        object.field("arguments", arguments);
                    });
                });
            }
        });
    }
    for block in &choice.blocks {
        if let Block::Native { dialect: Dialect::OpenAi, name, value } = block {
            object.raw(name, value.text());
        }
    }
}
