//! Server side: canonical events become the events of a message.
//!
//! Owns their shapes and which block is open. This dialect has one choice: others are left out.

use super::{error, usage};
use crate::chat::{Event, Finish, Head, Usage};
use crate::exchange::{Dialect, StreamWriter};
use crate::json::{self, Object};

/// Writes a stream.
#[derive(Debug, Default)]
pub struct Writer {
    begun: bool,
    over: bool,
    /// Blocks begun so far.
    blocks: u32,
    open: Open,
    usage: Usage,
    reason: Option<(Finish, Option<String>)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Open {
    #[default]
    Nothing,
    Text,
    Thinking,
    Call,
}

impl Writer {
    /// A writer for one answer.
    pub fn new() -> Self {
        Self::default()
    }

    fn event(out: &mut Vec<u8>, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        Object::write(out, |object| {
            object.field("type", name);
            fill(object);
        });
        out.extend_from_slice(b"\n\n");
    }

    fn head(&mut self, head: &Head, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        self.usage = head.usage.unwrap_or_default();
        Self::event(out, "message_start", |object| {
            object.object("message", |object| {
                object.field("id", &head.id);
                object.field("type", "message");
                object.field("role", "assistant");
                object.field("model", &head.model);
                object.array("content", |_| {});
                object.raw("stop_reason", "null");
                object.raw("stop_sequence", "null");
                object.object("usage", |object| usage::write(object, &self.usage));
            });
        });
    }

    fn begin(&mut self, open: Open, out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
        self.head(&Head::default(), out);
        self.close(out);
        let index = self.blocks;
        self.blocks += 1;
        self.open = open;
        Self::event(out, "content_block_start", |object| {
            object.field("index", &index);
            object.object("content_block", fill);
        });
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.open) != Open::Nothing {
            let index = self.blocks.saturating_sub(1);
            Self::event(out, "content_block_stop", |object| object.field("index", &index));
        }
    }

    fn delta(&mut self, out: &mut Vec<u8>, kind: &str, field: &str, text: &str) {
        let index = self.blocks.saturating_sub(1);
        Self::event(out, "content_block_delta", |object| {
            object.field("index", &index);
            object.object("delta", |object| {
                object.field("type", kind);
                object.field(field, text);
            });
        });
    }

    fn text(&mut self, out: &mut Vec<u8>, text: &str) {
        if self.open != Open::Text {
            self.begin(Open::Text, out, |object| {
                object.field("type", "text");
                object.field("text", "");
            });
        }
        self.delta(out, "text_delta", "text", text);
    }

    fn thinking(&mut self, out: &mut Vec<u8>) {
        if self.open != Open::Thinking {
            self.begin(Open::Thinking, out, |object| {
                object.field("type", "thinking");
                object.field("thinking", "");
                object.field("signature", "");
            });
        }
    }

    fn citation(&mut self, out: &mut Vec<u8>, citation: &str) {
        self.text(out, "");
        let index = self.blocks.saturating_sub(1);
        Self::event(out, "content_block_delta", |object| {
            object.field("index", &index);
            object.object("delta", |object| {
                object.field("type", "citations_delta");
                object.raw("citation", citation);
            });
        });
    }

    fn native(&mut self, out: &mut Vec<u8>, block: &str) {
        self.head(&Head::default(), out);
        self.close(out);
        let index = self.blocks;
        self.blocks += 1;
        Self::event(out, "content_block_start", |object| {
            object.field("index", &index);
            object.raw("content_block", block);
        });
        self.open = Open::Call;
        self.close(out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.head(&Head::default(), out);
        self.close(out);
        let (reason, stop) = self.reason.take().unwrap_or((Finish::Stop, None));
        Self::event(out, "message_delta", |object| {
            object.object("delta", |object| {
                object.field("stop_reason", word(&reason));
                object.field("stop_sequence", &stop);
            });
            object.object("usage", |object| usage::write(object, &self.usage));
        });
        Self::event(out, "message_stop", |_| {});
        self.over = true;
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
            Event::Head(head) => self.head(head, out),
            // A refusal has no place of its own here: its words are text.
            Event::Text { choice: 0, text } | Event::Refusal { choice: 0, text } => {
                self.text(out, text);
            }
            Event::Thinking { choice: 0, text } => {
                self.thinking(out);
                self.delta(out, "thinking_delta", "thinking", text);
            }
            Event::Signature { choice: 0, signature } => {
                self.thinking(out);
                self.delta(out, "signature_delta", "signature", signature);
            }
            Event::Redacted { choice: 0, data } => {
                self.begin(Open::Call, out, |object| {
                    object.field("type", "redacted_thinking");
                    object.field("data", data);
                });
                self.close(out);
            }
            Event::ToolBegin { choice: 0, id, name, .. } => {
                self.begin(Open::Call, out, |object| {
                    object.field("type", "tool_use");
                    object.field("id", id);
                    object.field("name", name);
                    object.raw("input", "{}");
                });
            }
            Event::ToolArguments { choice: 0, json, .. } => {
                self.delta(out, "input_json_delta", "partial_json", json);
            }
            Event::ToolEnd { choice: 0, .. } => self.close(out),
            Event::Citation(citation)
                if citation.dialect == Dialect::Anthropic && citation.choice == 0 =>
            {
                self.citation(out, citation.value.text());
            }
            Event::Native { choice: 0, dialect: Dialect::Anthropic, value, .. } => {
                self.native(out, value.text());
            }
            Event::Usage(usage) => self.usage = *usage,
            Event::Ended { choice: 0, reason, stop } => {
                self.reason = Some((reason.clone(), stop.clone()));
            }
            Event::Finished { usage, .. } => {
                self.usage = usage.unwrap_or(self.usage);
                self.end(out);
            }
            Event::Failed(failure) => {
                out.extend_from_slice(b"event: error\ndata: ");
                Object::write(out, |object| error::fields(object, &failure.refusal));
                out.extend_from_slice(b"\n\n");
                self.over = true;
            }
            // Other choices, and what no word of this dialect says.
            _ => {}
        }
    }

    fn keep_alive(&mut self, out: &mut Vec<u8>) {
        if !self.over {
            out.extend_from_slice(b"event: ping\ndata: ");
            json::value(out, &Ping { kind: "ping" });
            out.extend_from_slice(b"\n\n");
        }
    }
}

#[derive(serde::Serialize)]
struct Ping {
    #[serde(rename = "type")]
    kind: &'static str,
}

/// The word for why an answer ended; a reason without a word here is written as it is.
pub(super) fn word(reason: &Finish) -> &str {
    match reason {
        Finish::Stop => "end_turn",
        Finish::StopText => "stop_sequence",
        Finish::Length => "max_tokens",
        Finish::Context => "model_context_window_exceeded",
        Finish::ToolCalls => "tool_use",
        Finish::Filtered | Finish::Refused => "refusal",
        Finish::Paused => "pause_turn",
        Finish::Quota => "quota",
        Finish::Other(word) => word,
    }
}
