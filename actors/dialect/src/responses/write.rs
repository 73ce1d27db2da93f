//! Server side: canonical events become the events of a response, or one response.
//!
//! Owns the shapes. The stream repeats each item whole when it ends, and all of them at its end,
//! so a writer keeps what it wrote, up to the bound of [`Gathered`].

use crate::chat::{Block, Event, Failure, Finish, Gathered, Head, TokenLogProb, TopLogProb, Usage};
use crate::exchange::{Dialect, Reply, StreamWriter};
use crate::json::{Array, Object};
use crate::openai;

/// Writes a stream.
#[derive(Debug)]
pub struct Writer {
    reply: Reply,
    begun: bool,
    over: bool,
    /// Numbers the events.
    sequence: u64,
    /// What was written: the blocks of the one choice are the items of the response.
    all: Gathered,
    open: Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Nothing,
    Text,
    Refusal,
    Thinking,
    Call,
}

impl Writer {
    /// A writer for one answer.
    pub fn new(reply: Reply) -> Self {
        let all = Gathered::default();
        Self { reply, begun: false, over: false, sequence: 0, all, open: Open::Nothing }
    }

    fn event(&mut self, out: &mut Vec<u8>, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        Object::write(out, |object| {
            object.field("type", name);
            object.field("sequence_number", &self.sequence);
            fill(object);
        });
        out.extend_from_slice(b"\n\n");
        self.sequence += 1;
    }

    fn head(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let (reply, head) = (self.reply, self.all.head.clone());
        for name in ["response.created", "response.in_progress"] {
            let mut empty = Gathered::default();
            empty.head.clone_from(&head);
            self.event(out, name, |object| {
                object.object("response", |object| {
                    response(object, &empty, reply, "in_progress", None);
                });
            });
        }
    }

    fn blocks(&self) -> &[Block] {
        self.all.choices.first().map_or(&[], |choice| &choice.blocks)
    }

    /// The index of the item being written.
    fn index(&self) -> usize {
        self.blocks().len().saturating_sub(1)
    }

    /// Begins an item if it is not the one being written; `event` was taken before.
    fn begin(&mut self, out: &mut Vec<u8>, open: Open) {
        let at = self.index();
        let id = item_id(&self.all.head, at);
        self.open = open;
        let Some(block) = self.blocks().get(at).map(emptied) else { return };
        self.event(out, "response.output_item.added", |object| {
            object.field("output_index", &at);
            object.object("item", |object| item(object, &id, &block, &[], "in_progress"));
        });
        if let Open::Text | Open::Refusal = open {
            self.event(out, "response.content_part.added", |object| {
                place(object, &id, at);
                object.object("part", |object| part(object, &block, &[]));
            });
        }
        if open == Open::Thinking {
            self.event(out, "response.reasoning_summary_part.added", |object| {
                summary_place(object, &id, at);
                object.object("part", |object| summary(object, ""));
            });
        }
    }

    /// Ends the item being written: repeats it whole.
    fn close(&mut self, out: &mut Vec<u8>) {
        let at = self.index();
        let open = std::mem::replace(&mut self.open, Open::Nothing);
        let Some(block) = self.blocks().get(at).cloned() else { return };
        let id = item_id(&self.all.head, at);
        match (open, &block) {
            (Open::Nothing, _) => return,
            (Open::Text | Open::Refusal, Block::Text(text) | Block::Refusal(text)) => {
                let (name, field) = match open {
                    Open::Text => ("response.output_text.done", "text"),
                    _ => ("response.refusal.done", "refusal"),
                };
                self.event(out, name, |object| {
                    place(object, &id, at);
                    object.field(field, text);
                    if open == Open::Text {
                        object.array("logprobs", |_| {});
                    }
                });
                self.event(out, "response.content_part.done", |object| {
                    place(object, &id, at);
                    object.object("part", |object| part(object, &block, &[]));
                });
            }
            (Open::Thinking, Block::Thinking { text, .. }) => {
                self.event(out, "response.reasoning_summary_text.done", |object| {
                    summary_place(object, &id, at);
                    object.field("text", text);
                });
                self.event(out, "response.reasoning_summary_part.done", |object| {
                    summary_place(object, &id, at);
                    object.object("part", |object| summary(object, text));
                });
            }
            (Open::Call, Block::ToolUse { name, arguments, .. }) => {
                self.event(out, "response.function_call_arguments.done", |object| {
                    object.field("item_id", &id);
                    object.field("output_index", &at);
                    object.field("name", name);
                    object.field("arguments", arguments);
                });
            }
            _ => {}
        }
        self.event(out, "response.output_item.done", |object| {
            object.field("output_index", &at);
            object.object("item", |object| item(object, &id, &block, &[], "completed"));
        });
    }

    fn piece(&mut self, out: &mut Vec<u8>, event: &Event, open: Open, text: &str) {
        self.head(out);
        let before = self.blocks().len();
        if self.open != open {
            self.close(out);
        }
        if let Err(failure) = self.all.take(event.clone()) {
            return self.fail(out, &failure);
        }
        if self.blocks().len() > before || self.open != open {
            self.begin(out, open);
        }
        let at = self.index();
        let id = item_id(&self.all.head, at);
        let name = match open {
            Open::Text => "response.output_text.delta",
            Open::Refusal => "response.refusal.delta",
            Open::Thinking => "response.reasoning_summary_text.delta",
            Open::Call | Open::Nothing => return,
        };
        self.event(out, name, |object| {
            match open {
                Open::Thinking => summary_place(object, &id, at),
                _ => place(object, &id, at),
            }
            object.field("delta", text);
            if open == Open::Text {
                object.array("logprobs", |_| {});
            }
        });
    }

    fn whole_block(&mut self, out: &mut Vec<u8>, event: &Event) {
        self.head(out);
        self.close(out);
        let before = self.blocks().len();
        if let Err(failure) = self.all.take(event.clone()) {
            return self.fail(out, &failure);
        }
        if self.blocks().len() > before {
            let at = self.index();
            let id = item_id(&self.all.head, at);
            let Some(block) = self.blocks().get(at).cloned() else { return };
            for name in ["response.output_item.added", "response.output_item.done"] {
                self.event(out, name, |object| {
                    object.field("output_index", &at);
                    match &block {
                        Block::Native { value, .. } => object.raw("item", value.text()),
                        block => object.object("item", |object| {
                            item(object, &id, block, &[], "completed");
                        }),
                    }
                });
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.head(out);
        self.close(out);
        let reason = self.all.choices.first().and_then(|choice| choice.reason.clone());
        let (status, _) = outcome(reason.as_ref());
        let (all, reply) = (std::mem::take(&mut self.all), self.reply);
        self.event(out, &format!("response.{status}"), |object| {
            object.object("response", |object| response(object, &all, reply, status, None));
        });
        self.over = true;
    }

    fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        self.head(out);
        let (all, reply) = (std::mem::take(&mut self.all), self.reply);
        self.event(out, "response.failed", |object| {
            object.object("response", |object| {
                response(object, &all, reply, "failed", Some(failure));
            });
        });
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
            Event::Head(head) => {
                self.all.head = head.clone();
                self.all.usage = head.usage;
                self.head(out);
            }
            Event::Text { choice: 0, text } => self.piece(out, event, Open::Text, text),
            Event::Refusal { choice: 0, text } => self.piece(out, event, Open::Refusal, text),
            Event::Thinking { choice: 0, text } => self.piece(out, event, Open::Thinking, text),
            Event::Signature { choice: 0, .. } => {
                let lone = self.open != Open::Thinking;
                if lone {
                    return self.whole_block(out, event);
                }
                if let Err(failure) = self.all.take(event.clone()) {
                    self.fail(out, &failure);
                }
            }
            Event::ToolBegin { choice: 0, .. } => {
                self.close(out);
                self.piece(out, event, Open::Call, "");
            }
            Event::ToolArguments { choice: 0, json, .. } => {
                if let Err(failure) = self.all.take(event.clone()) {
                    return self.fail(out, &failure);
                }
                let at = self.index();
                let id = item_id(&self.all.head, at);
                self.event(out, "response.function_call_arguments.delta", |object| {
                    object.field("item_id", &id);
                    object.field("output_index", &at);
                    object.field("delta", json);
                });
            }
            Event::ToolEnd { choice: 0, .. } => self.close(out),
            Event::Native { choice: 0, dialect: Dialect::Responses, .. } => {
                self.whole_block(out, event);
            }
            Event::LogProbs { choice: 0, .. }
            | Event::Usage(_)
            | Event::Ended { choice: 0, .. } => {
                if let Err(failure) = self.all.take(event.clone()) {
                    self.fail(out, &failure);
                }
            }
            Event::Finished { usage, .. } => {
                self.all.usage = usage.or(self.all.usage);
                self.end(out);
            }
            Event::Failed(failure) => self.fail(out, failure),
            // Other choices, and what no word of this dialect says.
            _ => {}
        }
    }

    fn keep_alive(&mut self, out: &mut Vec<u8>) {
        if !self.over {
            out.extend_from_slice(b": still here\n\n");
        }
    }
}

/// The body of a whole answer: its first choice, since this dialect has one.
pub fn whole(answer: &Gathered, reply: Reply) -> Vec<u8> {
    let mut out = Vec::with_capacity(1_024);
    let reason = answer.choices.first().and_then(|choice| choice.reason.as_ref());
    let (status, _) = outcome(reason);
    Object::write(&mut out, |object| response(object, answer, reply, status, None));
    out
}

/// The status of a response, and why it is incomplete.
fn outcome(reason: Option<&Finish>) -> (&'static str, Option<&str>) {
    match reason {
        Some(Finish::Length | Finish::Context) => ("incomplete", Some("max_output_tokens")),
        Some(Finish::Filtered) => ("incomplete", Some("content_filter")),
        Some(Finish::Quota) => ("incomplete", Some("quota")),
        Some(Finish::Paused) => ("incomplete", Some("pause_turn")),
        Some(Finish::Other(word)) => ("incomplete", Some(word)),
        Some(Finish::Stop | Finish::StopText | Finish::ToolCalls | Finish::Refused) | None => {
            ("completed", None)
        }
    }
}

fn response(
    object: &mut Object<'_>,
    answer: &Gathered,
    reply: Reply,
    status: &str,
    failure: Option<&Failure>,
) {
    let choice = answer.choices.first();
    let (_, why) = outcome(choice.and_then(|choice| choice.reason.as_ref()));
    object.field("id", &answer.head.id);
    object.field("object", "response");
    object.field("created_at", &answer.head.created.unwrap_or(reply.created));
    object.field("status", status);
    match failure {
        None => object.raw("error", "null"),
        Some(failure) => object.object("error", |object| {
            let kind = if openai::status(&failure.refusal) == 429 {
                "rate_limit_exceeded"
            } else {
                "server_error"
            };
            object.field("code", kind);
            object.field("message", &failure.refusal.message);
        }),
    }
    match why {
        Some(why) if status == "incomplete" => {
            object.object("incomplete_details", |object| object.field("reason", why));
        }
        _ => object.raw("incomplete_details", "null"),
    }
    object.raw("instructions", "null");
    object.object("metadata", |_| {});
    object.field("model", &answer.head.model);
    object.array("output", |array| {
        for (at, block) in choice.map_or(&[][..], |choice| &choice.blocks).iter().enumerate() {
            let id = item_id(&answer.head, at);
            let tokens = choice.map_or(&[][..], |choice| &choice.logprobs);
            output(array, &id, block, tokens);
        }
    });
    object.field("parallel_tool_calls", &true);
    object.raw("temperature", "null");
    object.field("tool_choice", "auto");
    object.array("tools", |_| {});
    object.raw("top_p", "null");
    object.maybe("service_tier", answer.head.service_tier.as_ref());
    match answer.usage.filter(|_| status != "in_progress") {
        None => object.raw("usage", "null"),
        Some(usage) => object.object("usage", |object| self::usage(object, &usage)),
    }
}

fn usage(object: &mut Object<'_>, usage: &Usage) {
    object.field("input_tokens", &usage.prompt_tokens);
    object.object("input_tokens_details", |object| {
        object.field("cached_tokens", &usage.cached_tokens);
    });
    object.field("output_tokens", &usage.completion_tokens);
    object.object("output_tokens_details", |object| {
        object.field("reasoning_tokens", &usage.reasoning_tokens);
    });
    object.field("total_tokens", &usage.total());
}

fn output(array: &mut Array<'_>, id: &str, block: &Block, tokens: &[TokenLogProb]) {
    match block {
        Block::Native { dialect: Dialect::Responses, value, .. } => array.raw(value.text()),
        Block::Native { .. } | Block::Citation { .. } | Block::Redacted(_) => {}
        block => array.object(|object| item(object, id, block, tokens, "completed")),
    }
}

fn item(object: &mut Object<'_>, id: &str, block: &Block, tokens: &[TokenLogProb], status: &str) {
    match block {
        Block::Text(_) | Block::Refusal(_) => {
            object.field("id", id);
            object.field("type", "message");
            object.field("status", status);
            object.field("role", "assistant");
            object.array("content", |array| {
                if status == "completed" {
                    array.object(|object| part(object, block, tokens));
                }
            });
        }
        Block::Thinking { text, signature } => {
            object.field("id", id);
            object.field("type", "reasoning");
            object.array("summary", |array| {
                if !text.is_empty() {
                    array.object(|object| summary(object, text));
                }
            });
            object.maybe("encrypted_content", signature.as_ref());
        }
        Block::ToolUse { id: call, name, arguments } => {
            object.field("id", id);
            object.field("type", "function_call");
            object.field("status", status);
            object.field("call_id", call);
            object.field("name", name);
            object.field("arguments", arguments);
        }
        Block::Redacted(_) | Block::Citation { .. } | Block::Native { .. } => {}
    }
}

fn part(object: &mut Object<'_>, block: &Block, tokens: &[TokenLogProb]) {
    match block {
        Block::Refusal(text) => {
            object.field("type", "refusal");
            object.field("refusal", text);
        }
        Block::Text(text) => {
            object.field("type", "output_text");
            object.field("text", text);
            object.array("annotations", |_| {});
            object.array("logprobs", |array| {
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
        }
        _ => {}
    }
}

fn top(object: &mut Object<'_>, token: &TopLogProb) {
    object.field("token", &token.token);
    object.field("logprob", &token.logprob);
    object.field("bytes", token.bytes.as_deref().unwrap_or_default());
}

fn summary(object: &mut Object<'_>, text: &str) {
    object.field("type", "summary_text");
    object.field("text", text);
}

fn place(object: &mut Object<'_>, id: &str, at: usize) {
    object.field("item_id", id);
    object.field("output_index", &at);
    object.field("content_index", &0);
}

fn summary_place(object: &mut Object<'_>, id: &str, at: usize) {
    object.field("item_id", id);
    object.field("output_index", &at);
    object.field("summary_index", &0);
}

/// A block as it begins.
fn emptied(block: &Block) -> Block {
    match block {
        Block::Text(_) => Block::Text(String::new()),
        Block::Refusal(_) => Block::Refusal(String::new()),
        Block::Thinking { .. } => Block::Thinking { text: String::new(), signature: None },
        Block::ToolUse { id, name, .. } => {
            Block::ToolUse { id: id.clone(), name: name.clone(), arguments: String::new() }
        }
        other => other.clone(),
    }
}

fn item_id(head: &Head, at: usize) -> String {
    format!("item_{}_{at}", head.id)
}
