//! Client side: an answer, streamed or whole, becomes canonical events.
//!
//! Owns reading. A stream is complete with `messageStop`; `metadata` with the usage follows it.

use selvedge_base::Micros;
use serde::Deserialize;

use super::failure;
use crate::chat::{Event, Finish, Head, Timing, Usage};
use crate::exchange::{AnswerParser, Dialect};
use crate::failure::{clean, cut, malformed};
use crate::frame::Document;
use crate::frame::aws::{Message, Messages};
use crate::json::Json;
use crate::limits::CALLS;

const SELF: Dialect = Dialect::Bedrock;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Payload {
    start: Option<Start>,
    delta: Option<Delta>,
    stop_reason: Option<String>,
    usage: Option<UsageField>,
    metrics: Option<Metrics>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    tool_use: Option<CallField>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delta {
    text: Option<String>,
    tool_use: Option<InputField>,
    reasoning_content: Option<ReasoningDelta>,
}

#[derive(Deserialize)]
struct InputField {
    input: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReasoningDelta {
    text: Option<String>,
    signature: Option<String>,
    redacted_content: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallField {
    tool_use_id: String,
    name: String,
    input: Option<Json>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metrics {
    latency_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct UsageField {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_input_tokens: u64,
    cache_write_input_tokens: u64,
}

impl From<UsageField> for Usage {
    fn from(field: UsageField) -> Self {
        Self {
            // Tokens read from and written to a cache are counted beside the others here.
            prompt_tokens: field
                .input_tokens
                .saturating_add(field.cache_read_input_tokens)
                .saturating_add(field.cache_write_input_tokens),
            cached_tokens: field.cache_read_input_tokens,
            cache_creation_tokens: field.cache_write_input_tokens,
            completion_tokens: field.output_tokens,
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    output: Output,
    stop_reason: Option<String>,
    usage: Option<UsageField>,
    metrics: Option<Metrics>,
}

#[derive(Deserialize)]
struct Output {
    message: WholeMessage,
}

#[derive(Deserialize)]
struct WholeMessage {
    #[serde(default)]
    content: Vec<Json>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    text: Option<String>,
    tool_use: Option<CallField>,
    reasoning_content: Option<Reasoning>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reasoning {
    reasoning_text: Option<ReasoningDelta>,
    redacted_content: Option<String>,
}

/// Reads a stream in Amazon's framing.
#[derive(Debug, Default)]
pub struct Parser {
    messages: Messages,
    reader: Reader,
}

impl Parser {
    /// A parser of one answer by `model`. Answers name neither their model nor an id.
    pub fn new(id: impl Into<String>, model: impl Into<String>) -> Self {
        Self { messages: Messages::default(), reader: Reader::new(id.into(), model.into()) }
    }
}

impl AnswerParser for Parser {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        let Self { messages, reader } = self;
        if reader.over {
            return;
        }
        if messages.push(bytes, |message| reader.message(message, events)).is_err() {
            reader.fail(malformed("the framing of its events is broken"), events);
        }
    }

    fn finish(&mut self, events: &mut Vec<Event>) {
        // What bills the answer comes last; without it the answer itself is complete all the same.
        if self.reader.reason.is_some() && !self.messages.is_partial() {
            self.reader.complete(None, events);
        } else {
            self.reader.fail(cut(), events);
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.reader.usage
    }

    fn is_over(&self) -> bool {
        self.reader.over
    }
}

/// Reads a whole answer.
#[derive(Debug, Default)]
pub struct WholeParser {
    document: Document,
    reader: Reader,
}

impl WholeParser {
    /// A parser of one answer by `model`. Answers name neither their model nor an id.
    pub fn new(id: impl Into<String>, model: impl Into<String>) -> Self {
        Self { document: Document::default(), reader: Reader::new(id.into(), model.into()) }
    }
}

impl AnswerParser for WholeParser {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        if !self.reader.over && self.document.push(bytes).is_err() {
            self.reader.fail(malformed("it is too long"), events);
        }
    }

    fn finish(&mut self, events: &mut Vec<Event>) {
        if self.reader.over {
            return;
        }
        match serde_json::from_slice::<Whole>(&self.document.take()) {
            Ok(whole) => self.reader.whole(whole, events),
            Err(error) if error.is_eof() => self.reader.fail(cut(), events),
            Err(_) => self.reader.fail(malformed("it is not a conversation's answer"), events),
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.reader.usage
    }

    fn is_over(&self) -> bool {
        self.reader.over
    }
}

#[derive(Debug, Default)]
struct Reader {
    head: Head,
    begun: bool,
    over: bool,
    calls: u32,
    /// The call being read, and whether it has no arguments so far.
    call: Option<bool>,
    reason: Option<Finish>,
    usage: Option<Usage>,
}

impl Reader {
    fn new(id: String, model: String) -> Self {
        Self { head: Head { id, model, ..Head::default() }, ..Self::default() }
    }

    fn message(&mut self, message: &Message<'_>, events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        if message.kind != "event" {
            let failure = failure(0, Some(message.name), None, message.payload);
            return self.fail(Event::Failed(failure), events);
        }
        let Ok(payload) = serde_json::from_slice::<Payload>(message.payload) else {
            return self.fail(malformed("an event is not JSON"), events);
        };
        match message.name {
            "messageStart" => self.begin(events),
            "contentBlockStart" => {
                if let Some(call) = payload.start.and_then(|start| start.tool_use) {
                    self.call(call, events);
                }
            }
            "contentBlockDelta" => {
                if let Some(delta) = payload.delta {
                    self.delta(delta, events);
                }
            }
            "contentBlockStop" => self.end_call(events),
            "messageStop" => self.reason = Some(reason(payload.stop_reason)),
            "metadata" => {
                self.usage = payload.usage.map(Usage::from).or(self.usage);
                if self.reason.is_some() {
                    self.complete(payload.metrics, events);
                }
            }
            // Kinds that come later.
            _ => {}
        }
    }

    fn begin(&mut self, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.begun, true) {
            events.push(Event::Head(self.head.clone()));
        }
    }

    fn delta(&mut self, delta: Delta, events: &mut Vec<Event>) {
        self.begin(events);
        if let Some(text) = delta.text.filter(|text| !text.is_empty()) {
            events.push(Event::Text { choice: 0, text });
        }
        if let Some(json) = delta.tool_use.and_then(|field| field.input) {
            self.arguments(json, events);
        }
        if let Some(reasoning) = delta.reasoning_content {
            thinking(reasoning, events);
        }
    }

    fn call(&mut self, field: CallField, events: &mut Vec<Event>) {
        self.begin(events);
        self.end_call(events);
        if field.tool_use_id.is_empty() || field.name.is_empty() {
            return self.fail(malformed("a call has no id or no name"), events);
        }
        if self.calls as usize == CALLS {
            return self.fail(malformed("it has too many calls"), events);
        }
        let call = self.calls;
        self.calls += 1;
        self.call = Some(true);
        let (id, name) = (field.tool_use_id, field.name);
        events.push(Event::ToolBegin { choice: 0, call, id, name });
        if let Some(input) = field.input {
            self.arguments(input.text().to_owned(), events);
        }
    }

    fn arguments(&mut self, json: String, events: &mut Vec<Event>) {
        if json.is_empty() {
            return;
        }
        match &mut self.call {
            Some(empty) => {
                *empty = false;
                let call = self.calls.saturating_sub(1);
                events.push(Event::ToolArguments { choice: 0, call, json });
            }
            None => self.fail(malformed("arguments belong to no call"), events),
        }
    }

    fn end_call(&mut self, events: &mut Vec<Event>) {
        let Some(empty) = self.call.take() else { return };
        let call = self.calls.saturating_sub(1);
        if empty {
            events.push(Event::ToolArguments { choice: 0, call, json: "{}".to_owned() });
        }
        events.push(Event::ToolEnd { choice: 0, call });
    }

    fn whole(&mut self, whole: Whole, events: &mut Vec<Event>) {
        self.begin(events);
        self.usage = whole.usage.map(Usage::from);
        for value in whole.output.message.content {
            let Ok(block) = serde_json::from_str::<Block>(value.text()) else {
                return self.fail(malformed("a block is not an object"), events);
            };
            if let Some(text) = block.text {
                events.push(Event::Text { choice: 0, text });
            } else if let Some(call) = block.tool_use {
                self.call(call, events);
                self.end_call(events);
            } else if let Some(reasoning) = block.reasoning_content {
                if let Some(text) = reasoning.reasoning_text {
                    thinking(text, events);
                }
                if let Some(data) = reasoning.redacted_content {
                    events.push(Event::Redacted { choice: 0, data });
                }
            } else {
                let name = "block".to_owned();
                events.push(Event::Native { choice: 0, dialect: SELF, name, value });
            }
            if self.over {
                return;
            }
        }
        self.reason = Some(reason(whole.stop_reason));
        self.complete(whole.metrics, events);
    }

    fn complete(&mut self, metrics: Option<Metrics>, events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        self.begin(events);
        self.end_call(events);
        let reason = self.reason.take().unwrap_or(Finish::Stop);
        let timing = metrics
            .and_then(|metrics| metrics.latency_ms)
            .map(|latency| Timing { total: Micros::millis(latency), ..Timing::default() });
        events.push(Event::Ended { choice: 0, reason, stop: None });
        events.push(Event::Finished { usage: self.usage, timing });
        self.over = true;
    }

    fn fail(&mut self, event: Event, events: &mut Vec<Event>) {
        if !self.over {
            self.over = true;
            events.push(event);
        }
    }
}

fn thinking(delta: ReasoningDelta, events: &mut Vec<Event>) {
    if let Some(text) = delta.text.filter(|text| !text.is_empty()) {
        events.push(Event::Thinking { choice: 0, text });
    }
    if let Some(signature) = delta.signature.filter(|text| !text.is_empty()) {
        events.push(Event::Signature { choice: 0, signature });
    }
    if let Some(data) = delta.redacted_content {
        events.push(Event::Redacted { choice: 0, data });
    }
}

fn reason(word: Option<String>) -> Finish {
    match word.as_deref() {
        None | Some("end_turn") => Finish::Stop,
        Some("stop_sequence") => Finish::StopText,
        Some("max_tokens") => Finish::Length,
        Some("model_context_window_exceeded") => Finish::Context,
        Some("tool_use") => Finish::ToolCalls,
        Some("content_filtered" | "guardrail_intervened") => Finish::Filtered,
        Some(word) => Finish::Other(clean(word)),
    }
}
