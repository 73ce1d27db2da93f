//! Server side: canonical events become a stream of `chat.completion.chunk`.
//!
//! Owns the shapes of chunks. What every chunk repeats is made once. After an error the stream ends
//! without `[DONE]`, so that a client cannot take it for complete.

use super::error;
use crate::chat::{Event, Failure, Finish, Head, TokenLogProb, TopLogProb, Usage};
use crate::exchange::{Dialect, Reply, StreamWriter};
use crate::json::{self, Object};
use crate::limits::CHOICES;

/// Writes a stream.
#[derive(Debug)]
pub struct Writer {
    reply: Reply,
    /// From `data: ` to the opening of `choices`.
    head: Vec<u8>,
    /// Choices that have said their role.
    begun: Vec<bool>,
    usage: Option<Usage>,
    over: bool,
}

impl Writer {
    /// A writer for one answer.
    pub fn new(reply: Reply) -> Self {
        let begun = Vec::new();
        let mut writer = Self { reply, head: Vec::new(), begun, usage: None, over: false };
        writer.begin(&Head::default());
        writer
    }

    fn begin(&mut self, head: &Head) {
        self.head = b"data: {\"id\":".to_vec();
        let out = &mut self.head;
        json::value(out, &head.id);
        out.extend_from_slice(b",\"object\":\"chat.completion.chunk\",\"created\":");
        json::value(out, &head.created.unwrap_or(self.reply.created));
        out.extend_from_slice(b",\"model\":");
        json::value(out, &head.model);
        if let Some(tier) = &head.service_tier {
            out.extend_from_slice(b",\"service_tier\":");
            json::value(out, tier);
        }
        out.extend_from_slice(b",\"system_fingerprint\":");
        json::value(out, &head.fingerprint);
        out.extend_from_slice(b",\"choices\":[");
    }

    fn chunk(&self, out: &mut Vec<u8>, choice: u32, fill: impl FnOnce(&mut Object<'_>)) {
        out.extend_from_slice(&self.head);
        Object::write(out, |object| {
            object.field("index", &choice);
            fill(object);
        });
        // With usage asked for, every event before the last has it as null.
        let tail: &[u8] =
            if self.reply.include_usage { b"],\"usage\":null}\n\n" } else { b"]}\n\n" };
        out.extend_from_slice(tail);
    }

    fn delta(&mut self, out: &mut Vec<u8>, choice: u32, fill: impl FnOnce(&mut Object<'_>)) {
        self.role(out, choice);
        self.chunk(out, choice, |object| {
            object.object("delta", fill);
            object.raw("logprobs", "null");
            object.raw("finish_reason", "null");
        });
    }

    /// The first chunk of a choice tells its role.
    fn role(&mut self, out: &mut Vec<u8>, choice: u32) {
        let at = choice.min(CHOICES) as usize;
        if self.begun.len() <= at {
            self.begun.resize(at + 1, false);
        }
        let Some(begun) = self.begun.get_mut(at) else { return };
        if !std::mem::replace(begun, true) {
            self.chunk(out, choice, |object| {
                object.object("delta", |object| {
                    object.field("role", "assistant");
                    object.field("content", "");
                    object.raw("refusal", "null");
                });
                object.raw("logprobs", "null");
                object.raw("finish_reason", "null");
            });
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        put_end(out, self.reply, &self.head, self.usage);
        self.over = true;
    }

    fn ended(&mut self, out: &mut Vec<u8>, choice: u32, reason: &Finish) {
        self.role(out, choice);
        self.chunk(out, choice, |object| {
            object.object("delta", |_| {});
            object.raw("logprobs", "null");
            object.field("finish_reason", word(reason));
        });
    }
}

impl StreamWriter for Writer {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        match event {
            Event::Head(head) => self.begin(head),
            Event::Text { choice, text } => {
                self.delta(out, *choice, |object| object.field("content", text));
            }
            Event::Thinking { choice, text } => {
                self.delta(out, *choice, |object| object.field("reasoning_content", text));
            }
            Event::Refusal { choice, text } => {
                self.delta(out, *choice, |object| object.field("refusal", text));
            }
            Event::ToolBegin { choice, call, id, name } => {
                self.delta(out, *choice, |object| begin_call(object, *call, id, name));
            }
            Event::ToolArguments { choice, call, json } => {
                self.delta(out, *choice, |object| {
                    object.array("tool_calls", |array| {
                        array.object(|object| {
                            object.field("index", call);
                            object.object("function", |object| object.field("arguments", json));
                        });
                    });
                });
            }
            Event::LogProbs { choice, tokens, refusal } => {
                self.role(out, *choice);
                self.chunk(out, *choice, |object| {
                    object.object("delta", |_| {});
                    object.object("logprobs", |object| logprobs(object, tokens, *refusal));
                    object.raw("finish_reason", "null");
                });
            }
            Event::Native { choice, dialect: Dialect::OpenAi, name, value } => {
                self.delta(out, *choice, |object| object.raw(name, value.text()));
            }
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Ended { choice, reason, .. } => self.ended(out, *choice, reason),
            Event::Finished { usage, .. } => {
                self.usage = usage.or(self.usage);
                self.end(out);
            }
            Event::Failed(failure) => {
                put_failure(out, failure);
                self.over = true;
            }
            // No word of this dialect says these.
            Event::Signature { .. }
            | Event::Redacted { .. }
            | Event::ToolEnd { .. }
            | Event::Citation(_)
            | Event::Native { .. } => {}
        }
    }

    fn keep_alive(&mut self, out: &mut Vec<u8>) {
        if !self.over {
            out.extend_from_slice(b": still here\n\n");
        }
    }
}

/// An error inside of a stream.
pub(super) fn put_failure(out: &mut Vec<u8>, failure: &Failure) {
    out.extend_from_slice(b"data: ");
    Object::write(out, |object| error::object_of(object, &failure.refusal));
    out.extend_from_slice(b"\n\n");
}

/// A stream's end: its usage, if that was asked for, after the `head` that every chunk begins with.
pub(super) fn put_end(out: &mut Vec<u8>, reply: Reply, head: &[u8], usage: Option<Usage>) {
    if reply.include_usage {
        out.extend_from_slice(head);
        out.extend_from_slice(b"],\"usage\":");
        Object::write(out, |object| super::usage::write(object, &usage.unwrap_or_default()));
        out.extend_from_slice(b"}\n\n");
    }
    out.extend_from_slice(b"data: [DONE]\n\n");
}

fn begin_call(object: &mut Object<'_>, call: u32, id: &str, name: &str) {
    object.array("tool_calls", |array| {
        array.object(|object| {
            object.field("index", &call);
            object.field("id", id);
            object.field("type", "function");
            object.object("function", |object| {
                object.field("name", name);
                object.field("arguments", "");
            });
        });
    });
}

/// Writes the fields of `logprobs`.
pub(super) fn logprobs(object: &mut Object<'_>, tokens: &[TokenLogProb], refusal: bool) {
    let (own, other) = if refusal { ("refusal", "content") } else { ("content", "refusal") };
    object.array(own, |array| {
        for token in tokens {
            array.object(|object| {
                top(object, &token.top);
                object.array("top_logprobs", |array| {
                    for alternative in &token.alternatives {
                        array.object(|object| top(object, alternative));
                    }
                });
            });
        }
    });
    object.raw(other, "null");
}

fn top(object: &mut Object<'_>, token: &TopLogProb) {
    object.field("token", &token.token);
    object.field("logprob", &token.logprob);
    object.field("bytes", &token.bytes);
}

/// The word for why a choice ended. Where this dialect has none, the reason itself is written:
/// another word would hide it, and the official clients take one that they do not know as it is.
pub(crate) fn word(reason: &Finish) -> &str {
    match reason {
        Finish::Stop | Finish::StopText => "stop",
        Finish::Length | Finish::Context => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::Filtered | Finish::Refused => "content_filter",
        Finish::Paused => "pause_turn",
        Finish::Quota => "quota",
        Finish::Other(word) => word,
    }
}
