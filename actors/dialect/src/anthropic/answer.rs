//! Client side: a provider's answer, streamed or whole, becomes canonical events.
//!
//! Owns reading. Events and blocks of kinds unknown here pass as native ones.

use serde::Deserialize;

use super::error::failure;
use super::usage::UsageField;
use crate::chat::{Citation, Event, Finish, Head, Usage};
use crate::decode::Pairs;
use crate::exchange::{AnswerParser, Dialect};
use crate::failure::{clean, cut, malformed};
use crate::frame::{Document, sse};
use crate::json::{Json, Object};
use crate::limits::{CALLS, EVENT_BYTES};

const SELF: Dialect = Dialect::Anthropic;

/// Any event of a stream: the fields of all kinds.
#[derive(Deserialize)]
struct Data {
    #[serde(rename = "type")]
    kind: String,
    message: Option<MessageField>,
    content_block: Option<Json>,
    delta: Option<Delta>,
    usage: Option<UsageField>,
}

#[derive(Deserialize)]
struct MessageField {
    id: Option<String>,
    model: Option<String>,
    #[serde(default)]
    content: Vec<Json>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    usage: Option<UsageField>,
    /// Only errors have these.
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
    partial_json: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    citation: Option<Json>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    citations: Option<Vec<Json>>,
    thinking: Option<String>,
    signature: Option<String>,
    data: Option<String>,
    id: Option<String>,
    name: Option<String>,
    input: Option<Json>,
}

/// Reads a stream.
#[derive(Debug, Default)]
pub struct Parser {
    frames: sse::Events,
    reader: Reader,
}

impl AnswerParser for Parser {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        let Self { frames, reader } = self;
        if reader.over {
            return;
        }
        if frames.push(bytes, |_, data| reader.data(data, events)).is_err() && !reader.over {
            reader.fail(malformed("an event is too long"), events);
        }
    }

    fn finish(&mut self, events: &mut Vec<Event>) {
        if !self.reader.over {
            self.reader.fail(cut(), events);
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.reader.usage.map(Usage::from)
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
        let body = self.document.take();
        match serde_json::from_slice::<MessageField>(&body) {
            Ok(MessageField { kind: Some(kind), .. }) if kind == "error" => {
                self.reader.fail(Event::Failed(failure(0, None, &body)), events);
            }
            Ok(message) => self.reader.whole(message, events),
            Err(error) if error.is_eof() => self.reader.fail(cut(), events),
            Err(_) => self.reader.fail(malformed("it is not a message"), events),
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.reader.usage.map(Usage::from)
    }

    fn is_over(&self) -> bool {
        self.reader.over
    }
}

#[derive(Debug, Default)]
struct Reader {
    over: bool,
    begun: bool,
    usage: Option<UsageField>,
    calls: u32,
    open: Open,
    reason: Option<(Finish, Option<String>)>,
}

/// The block being read.
#[derive(Debug, Default)]
enum Open {
    #[default]
    Nothing,
    Said,
    Call {
        empty: bool,
    },
    Native {
        start: Json,
        input: String,
    },
}

impl Reader {
    fn data(&mut self, data: &[u8], events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let Ok(event) = serde_json::from_slice::<Data>(data) else {
            return self.fail(malformed("an event is not one of a message"), events);
        };
        if let Some(usage) = event.usage {
            self.usage = Some(usage.over(self.usage.unwrap_or_default()));
        }
        match event.kind.as_str() {
            "message_start" => match event.message {
                Some(message) if !self.begun => self.head(message, events),
                _ => self.fail(malformed("message_start holds no message"), events),
            },
            "content_block_start" => match event.content_block {
                Some(block) => {
                    self.close(events);
                    self.block(block, events);
                }
                None => self.fail(malformed("content_block_start holds no block"), events),
            },
            "content_block_delta" => {
                if let Some(delta) = event.delta {
                    self.delta(delta, events);
                }
            }
            "content_block_stop" => self.close(events),
            "message_delta" => {
                let reason = event.delta.and_then(|delta| {
                    delta.stop_reason.map(|word| (reason(word), delta.stop_sequence))
                });
                self.reason = reason.or(self.reason.take());
            }
            "message_stop" => self.complete(events),
            "error" => self.fail(Event::Failed(failure(0, None, data)), events),
            // `ping`, and whatever comes next.
            _ => {}
        }
    }

    fn head(&mut self, message: MessageField, events: &mut Vec<Event>) {
        self.begun = true;
        self.usage = message.usage.or(self.usage);
        events.push(Event::Head(Head {
            id: message.id.unwrap_or_default(),
            model: message.model.unwrap_or_default(),
            usage: self.usage.map(Usage::from),
            ..Head::default()
        }));
    }

    fn whole(&mut self, mut message: MessageField, events: &mut Vec<Event>) {
        let content = std::mem::take(&mut message.content);
        let reason = message.stop_reason.take().map(reason);
        let stop = message.stop_sequence.take();
        self.head(message, events);
        for block in content {
            self.block(block, events);
            self.close(events);
            if self.over {
                return;
            }
        }
        self.reason = reason.map(|reason| (reason, stop));
        self.complete(events);
    }

    fn block(&mut self, value: Json, events: &mut Vec<Event>) {
        let Ok(block) = serde_json::from_str::<Block>(value.text()) else {
            return self.fail(malformed("a block is not an object with a type"), events);
        };
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        self.open = Open::Said;
        match block.kind.as_str() {
            "text" => {
                if let Some(text) = some(block.text) {
                    events.push(Event::Text { choice: 0, text });
                }
                for value in block.citations.unwrap_or_default() {
                    let dialect = SELF;
                    events.push(Event::Citation(Citation { choice: 0, dialect, value }));
                }
            }
            "thinking" => {
                if let Some(text) = some(block.thinking) {
                    events.push(Event::Thinking { choice: 0, text });
                }
                if let Some(signature) = some(block.signature) {
                    events.push(Event::Signature { choice: 0, signature });
                }
            }
            "redacted_thinking" => {
                let data = block.data.unwrap_or_default();
                events.push(Event::Redacted { choice: 0, data });
            }
            "tool_use" => self.call(block, events),
            _ => self.open = Open::Native { start: value, input: String::new() },
        }
    }

    fn call(&mut self, block: Block, events: &mut Vec<Event>) {
        let named = |text: &String| !text.is_empty();
        let (Some(id), Some(name)) = (block.id.filter(named), block.name.filter(named)) else {
            return self.fail(malformed("a call has no id or no name"), events);
        };
        if self.calls as usize == CALLS {
            return self.fail(malformed("it has too many calls"), events);
        }
        let call = self.calls;
        self.calls += 1;
        events.push(Event::ToolBegin { choice: 0, call, id, name });
        // A stream begins with an empty object and sends the arguments after it.
        let input = block.input.filter(|input| input.compact() != "{}");
        self.open = Open::Call { empty: input.is_none() };
        if let Some(input) = input {
            events.push(Event::ToolArguments { choice: 0, call, json: input.text().to_owned() });
        }
    }

    fn delta(&mut self, delta: Delta, events: &mut Vec<Event>) {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        match delta.kind.as_deref() {
            Some("text_delta") => {
                if let Some(text) = some(delta.text) {
                    events.push(Event::Text { choice: 0, text });
                }
            }
            Some("thinking_delta") => {
                if let Some(text) = some(delta.thinking) {
                    events.push(Event::Thinking { choice: 0, text });
                }
            }
            Some("signature_delta") => {
                if let Some(signature) = some(delta.signature) {
                    events.push(Event::Signature { choice: 0, signature });
                }
            }
            Some("citations_delta") => {
                if let Some(value) = delta.citation {
                    let dialect = SELF;
                    events.push(Event::Citation(Citation { choice: 0, dialect, value }));
                }
            }
            Some("input_json_delta") => self.input(some(delta.partial_json), events),
            // Kinds that come later: what is not understood is not passed on.
            _ => {}
        }
    }

    fn input(&mut self, piece: Option<String>, events: &mut Vec<Event>) {
        let Some(json) = piece else { return };
        match &mut self.open {
            Open::Call { empty } => {
                *empty = false;
                let call = self.calls.saturating_sub(1);
                events.push(Event::ToolArguments { choice: 0, call, json });
            }
            Open::Native { input, .. } if input.len() + json.len() <= EVENT_BYTES => {
                input.push_str(&json);
            }
            Open::Native { .. } => self.fail(malformed("a block is too long"), events),
            Open::Nothing | Open::Said => {
                self.fail(malformed("arguments belong to no call"), events);
            }
        }
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let call = self.calls.saturating_sub(1);
        match std::mem::take(&mut self.open) {
            Open::Nothing | Open::Said => {}
            Open::Call { empty } => {
                if empty {
                    let json = "{}".to_owned();
                    events.push(Event::ToolArguments { choice: 0, call, json });
                }
                events.push(Event::ToolEnd { choice: 0, call });
            }
            Open::Native { start, input } => match with_input(start, &input) {
                Some((name, value)) => {
                    events.push(Event::Native { choice: 0, dialect: SELF, name, value });
                }
                None => self.fail(malformed("a block is not JSON"), events),
            },
        }
    }

    fn complete(&mut self, events: &mut Vec<Event>) {
        self.close(events);
        if self.over {
            return;
        }
        if !self.begun {
            return self.fail(malformed("it ends before it begins"), events);
        }
        let (reason, stop) = self.reason.take().unwrap_or((Finish::Stop, None));
        events.push(Event::Ended { choice: 0, reason, stop });
        events.push(Event::Finished { usage: self.usage.map(Usage::from), timing: None });
        self.over = true;
    }

    fn fail(&mut self, event: Event, events: &mut Vec<Event>) {
        if !self.over {
            self.over = true;
            events.push(event);
        }
    }
}

/// A native block with the input that came after its beginning, and its kind.
fn with_input(start: Json, input: &str) -> Option<(String, Json)> {
    let fields = serde_json::from_str::<Pairs<Json>>(start.text()).ok()?.0;
    let kind = fields.iter().find(|(name, _)| name == "type")?;
    let kind = serde_json::from_str::<String>(kind.1.text()).ok()?;
    if input.is_empty() {
        return Some((kind, start));
    }
    let input = Json::parse(input).ok()?;
    let mut out = Vec::new();
    Object::write(&mut out, |object| {
        for (name, value) in fields.iter().filter(|(name, _)| name != "input") {
            object.raw(name, value.text());
        }
        object.raw("input", input.text());
    });
    let value = Json::parse(String::from_utf8(out).ok()?).ok()?;
    Some((kind, value))
}

pub(crate) fn reason(word: String) -> Finish {
    match word.as_str() {
        "end_turn" => Finish::Stop,
        "stop_sequence" => Finish::StopText,
        "max_tokens" => Finish::Length,
        "model_context_window_exceeded" => Finish::Context,
        "tool_use" => Finish::ToolCalls,
        "refusal" => Finish::Refused,
        "pause_turn" => Finish::Paused,
        "quota" => Finish::Quota,
        _ => Finish::Other(clean(&word)),
    }
}

/// The counts of a stream that is not parsed but only watched.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts(Option<UsageField>);

#[derive(Deserialize)]
struct Watched {
    message: Option<WatchedMessage>,
    delta: Option<WatchedDelta>,
    usage: Option<UsageField>,
}

#[derive(Deserialize)]
struct WatchedMessage {
    usage: Option<UsageField>,
}

#[derive(Deserialize)]
struct WatchedDelta {
    stop_reason: Option<String>,
}

impl Counts {
    /// Takes an event that may hold usage or the reason of the end.
    pub(crate) fn read(&mut self, data: &[u8]) -> (Option<Usage>, Option<Finish>) {
        let Ok(event) = serde_json::from_slice::<Watched>(data) else { return (None, None) };
        let usage = event.usage.or(event.message.and_then(|message| message.usage));
        if let Some(usage) = usage {
            self.0 = Some(usage.over(self.0.unwrap_or_default()));
        }
        let word = event.delta.and_then(|delta| delta.stop_reason);
        (self.0.map(Usage::from), word.map(reason))
    }
}
