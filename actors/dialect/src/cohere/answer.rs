//! Client side: an answer, streamed or whole, becomes canonical events.
//!
//! Owns reading. A stream ends with `message-end`.

use serde::Deserialize;

use crate::chat::{Citation, Event, Finish, Head, TokenLogProb, TopLogProb, Usage};
use crate::exchange::{AnswerParser, Dialect};
use crate::failure::{clean, cut, malformed};
use crate::frame::{Document, sse};
use crate::json::Json;
use crate::limits::CALLS;
use crate::number::Number;

const SELF: Dialect = Dialect::Cohere;

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<String>,
    /// Its shape depends on the kind: the first event has lists where later ones have one.
    delta: Option<Json>,
    logprobs: Option<LogProbsField>,
}

#[derive(Deserialize)]
struct Delta {
    message: Option<DeltaMessage>,
    finish_reason: Option<String>,
    usage: Option<UsageField>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct DeltaMessage {
    content: Option<Piece>,
    tool_plan: Option<String>,
    tool_calls: Option<CallField>,
    citations: Option<Json>,
}

#[derive(Deserialize)]
struct Piece {
    text: Option<String>,
    thinking: Option<String>,
}

#[derive(Deserialize)]
struct CallField {
    id: Option<String>,
    function: Option<FunctionField>,
}

#[derive(Deserialize)]
struct FunctionField {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct LogProbsField {
    text: Option<String>,
    #[serde(default)]
    logprobs: Vec<Number>,
}

#[derive(Deserialize)]
struct Whole {
    id: Option<String>,
    finish_reason: Option<String>,
    message: Option<WholeMessage>,
    usage: Option<UsageField>,
    logprobs: Option<Vec<LogProbsField>>,
}

#[derive(Deserialize)]
struct WholeMessage {
    #[serde(default)]
    content: Option<Vec<Piece>>,
    tool_plan: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<CallField>>,
    citations: Option<Vec<Json>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct UsageField {
    billed_units: Option<Counts>,
    tokens: Option<Counts>,
    cached_tokens: Option<Number>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
    input_tokens: Option<Number>,
    output_tokens: Option<Number>,
}

impl From<UsageField> for Usage {
    fn from(field: UsageField) -> Self {
        let counts = field.billed_units.or(field.tokens).unwrap_or_default();
        // A count that is none is not nothing: it is told as one that nobody can believe.
        let count = |number: Option<Number>| number.map_or(0, |n| n.whole().unwrap_or(1 << 53));
        Self {
            prompt_tokens: count(counts.input_tokens),
            cached_tokens: count(field.cached_tokens).min(count(counts.input_tokens)),
            completion_tokens: count(counts.output_tokens),
            ..Self::default()
        }
    }
}

/// Reads a stream. `model` is the one asked, since answers do not name theirs.
#[derive(Debug, Default)]
pub struct Parser {
    frames: sse::Events,
    reader: Reader,
}

impl Parser {
    /// A parser of one answer by `model`.
    pub fn new(model: impl Into<String>) -> Self {
        let reader = Reader { model: model.into(), ..Reader::default() };
        Self { frames: sse::Events::default(), reader }
    }
}

impl AnswerParser for Parser {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        let Self { frames, reader } = self;
        if reader.over {
            return;
        }
        let pushed = frames.push(bytes, |name, data| reader.data(name, data, events));
        if pushed.is_err() && !reader.over {
            reader.fail(malformed("an event is too long"), events);
        }
    }

    fn finish(&mut self, events: &mut Vec<Event>) {
        self.reader.fail(cut(), events);
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
    /// A parser of one answer by `model`, since answers do not name theirs.
    pub fn new(model: impl Into<String>) -> Self {
        let reader = Reader { model: model.into(), ..Reader::default() };
        Self { document: Document::default(), reader }
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
            Err(_) => self.reader.fail(malformed("it is not a chat's answer"), events),
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
    model: String,
    begun: bool,
    over: bool,
    calls: u32,
    call_open: bool,
    usage: Option<Usage>,
}

impl Reader {
    fn data(&mut self, name: &str, data: &[u8], events: &mut Vec<Event>) {
        if self.over || data == b"[DONE]" {
            return;
        }
        let Ok(event) = serde_json::from_slice::<Data>(data) else {
            return self.fail(malformed("an event is not one of a chat"), events);
        };
        let kind = event.kind.unwrap_or_else(|| name.to_owned());
        if kind == "message-start" {
            return self.head(event.id, events);
        }
        if kind == "tool-call-end" {
            return self.end_call(events);
        }
        let Some(delta) = event.delta else {
            if kind == "message-end" {
                self.fail(malformed("it ends without a reason"), events);
            }
            return;
        };
        let Ok(delta) = serde_json::from_str::<Delta>(delta.text()) else {
            return self.fail(malformed("an event's delta is not as it should be"), events);
        };
        if kind == "message-end" {
            self.usage = delta.usage.map(Usage::from).or(self.usage);
            return match delta.error {
                Some(error) => {
                    let mut body = Vec::new();
                    crate::json::Object::write(&mut body, |object| {
                        object.field("message", &error);
                    });
                    self.fail(Event::Failed(super::failure(0, None, &body)), events);
                }
                None => self.end(delta.finish_reason, events),
            };
        }
        let Some(message) = delta.message else { return };
        if let Some(plan) = message.tool_plan {
            self.piece(Piece { text: None, thinking: Some(plan) }, events);
        }
        if let Some(piece) = message.content {
            self.piece(piece, events);
            logprobs(event.logprobs, events);
        }
        if let Some(value) = message.citations {
            events.push(Event::Citation(Citation { choice: 0, dialect: SELF, value }));
        }
        match (kind.as_str(), message.tool_calls) {
            ("tool-call-start", Some(call)) => self.call(call, events),
            ("tool-call-delta", Some(CallField { function: Some(function), .. })) => {
                self.arguments(function.arguments, events);
            }
            _ => {}
        }
    }

    fn head(&mut self, id: Option<String>, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.begun, true) {
            let (id, model) = (id.unwrap_or_default(), self.model.clone());
            events.push(Event::Head(Head { id, model, ..Head::default() }));
        }
    }

    fn piece(&mut self, piece: Piece, events: &mut Vec<Event>) {
        if let Some(text) = piece.thinking.filter(|text| !text.is_empty()) {
            events.push(Event::Thinking { choice: 0, text });
        }
        if let Some(text) = piece.text.filter(|text| !text.is_empty()) {
            events.push(Event::Text { choice: 0, text });
        }
    }

    fn call(&mut self, field: CallField, events: &mut Vec<Event>) {
        self.end_call(events);
        let (name, arguments) = match field.function {
            Some(function) => (function.name, function.arguments),
            None => (None, None),
        };
        let named = |text: &String| !text.is_empty();
        let (Some(id), Some(name)) = (field.id.filter(named), name.filter(named)) else {
            return self.fail(malformed("a call has no id or no name"), events);
        };
        if self.calls as usize == CALLS {
            return self.fail(malformed("it has too many calls"), events);
        }
        let call = self.calls;
        self.calls += 1;
        self.call_open = true;
        events.push(Event::ToolBegin { choice: 0, call, id, name });
        self.arguments(arguments, events);
    }

    fn arguments(&mut self, json: Option<String>, events: &mut Vec<Event>) {
        let Some(json) = json.filter(|json| !json.is_empty()) else { return };
        match self.calls.checked_sub(1) {
            Some(call) => events.push(Event::ToolArguments { choice: 0, call, json }),
            None => self.fail(malformed("arguments belong to no call"), events),
        }
    }

    fn end_call(&mut self, events: &mut Vec<Event>) {
        if std::mem::take(&mut self.call_open) {
            events.push(Event::ToolEnd { choice: 0, call: self.calls.saturating_sub(1) });
        }
    }

    fn whole(&mut self, whole: Whole, events: &mut Vec<Event>) {
        let Some(message) = whole.message else {
            return self.fail(malformed("it holds no message"), events);
        };
        self.head(whole.id, events);
        self.usage = whole.usage.map(Usage::from);
        if let Some(plan) = message.tool_plan {
            self.piece(Piece { text: None, thinking: Some(plan) }, events);
        }
        for piece in message.content.unwrap_or_default() {
            self.piece(piece, events);
        }
        for tokens in whole.logprobs.unwrap_or_default() {
            logprobs(Some(tokens), events);
        }
        for value in message.citations.unwrap_or_default() {
            events.push(Event::Citation(Citation { choice: 0, dialect: SELF, value }));
        }
        for call in message.tool_calls.unwrap_or_default() {
            self.call(call, events);
            if self.over {
                return;
            }
        }
        self.end(whole.finish_reason, events);
    }

    fn end(&mut self, word: Option<String>, events: &mut Vec<Event>) {
        self.end_call(events);
        self.head(None, events);
        let reason = match word.as_deref() {
            Some("COMPLETE") => Finish::Stop,
            Some("STOP_SEQUENCE") => Finish::StopText,
            Some("MAX_TOKENS") => Finish::Length,
            Some("TOOL_CALL") => Finish::ToolCalls,
            Some("ERROR_TOXIC") => Finish::Filtered,
            Some(error @ ("ERROR" | "TIMEOUT")) => {
                let text = format!("{{\"message\":\"{}\"}}", error.to_ascii_lowercase());
                let failure = super::failure(0, None, text.as_bytes());
                return self.fail(Event::Failed(failure), events);
            }
            Some(word) => Finish::Other(clean(word).to_ascii_lowercase()),
            None => return self.fail(malformed("it ends without a reason"), events),
        };
        events.push(Event::Ended { choice: 0, reason, stop: None });
        events.push(Event::Finished { usage: self.usage, timing: None });
        self.over = true;
    }

    fn fail(&mut self, event: Event, events: &mut Vec<Event>) {
        if !self.over {
            self.over = true;
            events.push(event);
        }
    }
}

/// This dialect tells the probabilities of a piece's tokens, but its text only as a whole: it goes
/// with the first.
fn logprobs(field: Option<LogProbsField>, events: &mut Vec<Event>) {
    let Some(LogProbsField { text, logprobs }) = field else { return };
    let mut text = text;
    let tokens = logprobs.into_iter().map(|logprob| TokenLogProb {
        top: TopLogProb { token: text.take().unwrap_or_default(), bytes: None, logprob },
        alternatives: Vec::new(),
    });
    let tokens: Vec<_> = tokens.collect();
    if !tokens.is_empty() {
        events.push(Event::LogProbs { choice: 0, tokens, refusal: false });
    }
}
