//! Server side: canonical events become lines of JSON, or one.
//!
//! Owns the shapes of chat and generate. Calls are written whole, since this dialect has no pieces
//! of arguments.

use selvedge_base::Micros;

use crate::chat::{Block, Event, Finish, Gathered, Timing, TokenLogProb, TopLogProb, Usage};
use crate::exchange::{Reply, StreamWriter};
use crate::json::{Json, Object};
use crate::limits::{CALLS, EVENT_BYTES};

/// The endpoint that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
}

/// Writes a stream.
#[derive(Debug)]
pub struct Writer {
    shape: Shape,
    model: String,
    created: String,
    reply: Reply,
    /// Calls whose arguments are still coming: id, name, arguments.
    calls: Vec<(String, String, String)>,
    usage: Usage,
    reason: Option<Finish>,
    over: bool,
}

impl Writer {
    /// A writer for one answer.
    pub fn new(shape: Shape, reply: Reply) -> Self {
        Self {
            shape,
            model: String::new(),
            created: timestamp(reply.created),
            reply,
            calls: Vec::new(),
            usage: Usage::default(),
            reason: None,
            over: false,
        }
    }

    fn line(&self, out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
        Object::write(out, |object| {
            object.field("model", &self.model);
            object.field("created_at", &self.created);
            fill(object);
        });
        out.push(b'\n');
    }

    fn piece(&self, out: &mut Vec<u8>, text: &str, thinking: &str) {
        self.line(out, |object| {
            said(object, self.shape, text, thinking, &[]);
            object.field("done", &false);
        });
    }

    fn call(&mut self, out: &mut Vec<u8>, at: usize) {
        let Some(call) = self.calls.get_mut(at).map(std::mem::take) else { return };
        self.line(out, |object| {
            said(object, self.shape, "", "", std::slice::from_ref(&call));
            object.field("done", &false);
        });
    }
}

impl StreamWriter for Writer {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        match event {
            Event::Head(head) => {
                self.model.clone_from(&head.model);
                self.created = timestamp(head.created.unwrap_or(self.reply.created));
                self.usage = head.usage.unwrap_or(self.usage);
            }
            // A refusal has no place of its own here: its words are text.
            Event::Text { choice: 0, text } | Event::Refusal { choice: 0, text } => {
                self.piece(out, text, "");
            }
            Event::Thinking { choice: 0, text } => self.piece(out, "", text),
            Event::ToolBegin { choice: 0, id, name, .. } if self.calls.len() < CALLS => {
                self.calls.push((id.clone(), name.clone(), String::new()));
            }
            Event::ToolArguments { choice: 0, call, json } => {
                if let Some((_, _, arguments)) = self.calls.get_mut(*call as usize)
                    && arguments.len() + json.len() <= EVENT_BYTES
                {
                    arguments.push_str(json);
                }
            }
            Event::ToolEnd { choice: 0, call } => self.call(out, *call as usize),
            Event::LogProbs { choice: 0, tokens, refusal: false } => self.line(out, |object| {
                said(object, self.shape, "", "", &[]);
                object.field("done", &false);
                logprobs(object, tokens);
            }),
            Event::Usage(usage) => self.usage = *usage,
            Event::Ended { choice: 0, reason, .. } => self.reason = Some(reason.clone()),
            Event::Finished { usage, timing } => {
                self.usage = usage.unwrap_or(self.usage);
                let reason = self.reason.clone().unwrap_or(Finish::Stop);
                self.line(out, |object| {
                    said(object, self.shape, "", "", &[]);
                    end(object, &reason, &self.usage, timing.unwrap_or_default());
                });
                self.over = true;
            }
            Event::Failed(failure) => {
                out.extend_from_slice(&super::error_body(&failure.refusal));
                out.push(b'\n');
                self.over = true;
            }
            // Other choices, and what no word of this dialect says.
            _ => {}
        }
    }

    fn keep_alive(&mut self, _out: &mut Vec<u8>) {
        // Every line means something here, and clients do not take an empty one.
    }
}

/// The body of a whole answer: its first choice, since this dialect has one.
pub fn whole(answer: &Gathered, shape: Shape, reply: Reply) -> Vec<u8> {
    let mut out = Vec::with_capacity(1_024);
    let none = crate::chat::Choice::default();
    let choice = answer.choices.first().unwrap_or(&none);
    let calls: Vec<_> = choice
        .blocks
        .iter()
        .filter_map(|block| match block {
            Block::ToolUse { id, name, arguments } => {
                Some((id.clone(), name.clone(), arguments.clone()))
            }
            _ => None,
        })
        .collect();
    Object::write(&mut out, |object| {
        object.field("model", &answer.head.model);
        object.field("created_at", &timestamp(answer.head.created.unwrap_or(reply.created)));
        let text = choice.text() + &choice.refusal();
        said(object, shape, &text, &choice.thinking(), &calls);
        if !choice.logprobs.is_empty() {
            logprobs(object, &choice.logprobs);
        }
        let reason = choice.reason.as_ref().unwrap_or(&Finish::Stop);
        let usage = answer.usage.unwrap_or_default();
        end(object, reason, &usage, answer.timing.unwrap_or_default());
    });
    out
}

fn said(
    object: &mut Object<'_>,
    shape: Shape,
    text: &str,
    thinking: &str,
    calls: &[(String, String, String)],
) {
    match shape {
        Shape::Generate => {
            object.field("response", text);
            if !thinking.is_empty() {
                object.field("thinking", thinking);
            }
        }
        Shape::Chat => object.object("message", |object| {
            object.field("role", "assistant");
            object.field("content", text);
            if !thinking.is_empty() {
                object.field("thinking", thinking);
            }
            if !calls.is_empty() {
                object.array("tool_calls", |array| {
                    for (id, name, arguments) in calls {
                        array.object(|object| {
                            object.field("id", id);
                            object.object("function", |object| {
                                object.field("name", name);
                                self::arguments(object, arguments);
                            });
                        });
                    }
                });
            }
        }),
    }
}

fn arguments(object: &mut Object<'_>, text: &str) {
    match Json::parse(text) {
        Ok(json) if json.text().starts_with('{') => object.raw("arguments", json.text()),
        // What the model wrote is no object: nothing of it is lost or repaired.
        _ if !text.trim().is_empty() => {
            object.object("arguments", |object| object.field("_unparsed", text));
        }
        _ => object.raw("arguments", "{}"),
    }
}

fn end(object: &mut Object<'_>, reason: &Finish, usage: &Usage, timing: Timing) {
    let word = match reason {
        Finish::Stop | Finish::StopText | Finish::ToolCalls => "stop",
        Finish::Length | Finish::Context => "length",
        Finish::Filtered | Finish::Refused => "content_filter",
        Finish::Paused => "pause_turn",
        Finish::Quota => "quota",
        Finish::Other(word) => word,
    };
    let nanos = |span: Micros| span.0.saturating_mul(1_000);
    object.field("done", &true);
    object.field("done_reason", word);
    object.field("total_duration", &nanos(timing.total));
    object.field("load_duration", &nanos(timing.load));
    object.field("prompt_eval_count", &usage.prompt_tokens);
    object.field("prompt_eval_duration", &nanos(timing.prompt));
    object.field("eval_count", &usage.completion_tokens);
    object.field("eval_duration", &nanos(timing.answer));
}

fn logprobs(object: &mut Object<'_>, tokens: &[TokenLogProb]) {
    fn top(object: &mut Object<'_>, token: &TopLogProb) {
        object.field("token", &token.token);
        object.field("logprob", &token.logprob);
        object.maybe("bytes", token.bytes.as_ref());
    }
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

/// Seconds since the Unix epoch as a date (RFC 3339, UTC). The calendar is the proleptic Gregorian
/// one, counted in eras of 400 years from the first of March.
pub(super) fn timestamp(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days from the first of March of the year 0 to the epoch.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let date = day - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}
