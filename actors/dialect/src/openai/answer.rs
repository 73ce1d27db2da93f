//! Client side: a provider's answer, streamed or whole, becomes canonical events.
//!
//! Owns reading. Lenient where servers differ: unknown fields are read over, indexes may be
//! missing, and a stream without `[DONE]` is complete once every choice has its reason.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::failure_in_stream;
use super::usage::UsageField;
use crate::chat::{Event, Finish, Head, TokenLogProb, TopLogProb, Usage};
use crate::exchange::{AnswerParser, Dialect};
use crate::failure::{cut, malformed};
use crate::frame::{Document, sse};
use crate::json::Json;
use crate::limits::{CALLS, CHOICES};
use crate::number::Number;

/// A chunk of a stream, or a whole answer: both have these fields.
#[derive(Deserialize)]
struct Chunk {
    id: Option<String>,
    model: Option<String>,
    created: Option<u64>,
    system_fingerprint: Option<String>,
    service_tier: Option<String>,
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<UsageField>,
    error: Option<Json>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    #[serde(alias = "message")]
    delta: Option<Delta>,
    /// Of a text that is gone on with.
    text: Option<String>,
    logprobs: Option<LogProbsField>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<Call>>,
    annotations: Option<Json>,
    audio: Option<Json>,
}

#[derive(Deserialize)]
struct Call {
    index: Option<u64>,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct LogProbsField {
    content: Option<Vec<TokenField>>,
    refusal: Option<Vec<TokenField>>,
    // Of a text that is gone on with. What nothing stands before has no probability.
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<Number>>>,
    top_logprobs: Option<Vec<Option<BTreeMap<String, Number>>>>,
}

#[derive(Deserialize)]
struct TokenField {
    #[serde(flatten)]
    top: TopField,
    #[serde(default)]
    top_logprobs: Vec<TopField>,
}

#[derive(Deserialize)]
struct TopField {
    token: String,
    logprob: Number,
    bytes: Option<Vec<u8>>,
}

impl From<TopField> for TopLogProb {
    fn from(field: TopField) -> Self {
        Self { token: field.token, bytes: field.bytes, logprob: field.logprob }
    }
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
        self.reader.end(events);
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
        self.reader.data(&self.document.take(), events);
        self.reader.end(events);
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
    begun: bool,
    over: bool,
    id: String,
    choices: Vec<Open>,
    usage: Option<Usage>,
}

/// One choice while it is read.
#[derive(Debug, Default)]
struct Open {
    seen: bool,
    ended: bool,
    /// The provider's index and id of each call, in the order of our indexes.
    calls: Vec<(Option<u64>, String)>,
    call_open: bool,
}

impl Reader {
    fn data(&mut self, data: &[u8], events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        if data == b"[DONE]" {
            if self.begun {
                self.complete(events);
            } else {
                self.fail(cut(), events);
            }
            return;
        }
        match serde_json::from_slice::<Chunk>(data) {
            Ok(Chunk { error: Some(_), .. }) => {
                self.fail(Event::Failed(failure_in_stream(data)), events);
            }
            Ok(chunk) => self.chunk(chunk, events),
            Err(error) if error.is_eof() => self.fail(cut(), events),
            Err(_) => self.fail(malformed("an event is not a chunk of a chat"), events),
        }
    }

    fn chunk(&mut self, chunk: Chunk, events: &mut Vec<Event>) {
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage.into());
        }
        // Azure's first chunk only tells what its filter thinks of the prompt.
        let empty = chunk.id.as_ref().is_none_or(String::is_empty) && chunk.choices.is_empty();
        if !self.begun && !empty {
            self.begun = true;
            self.id = chunk.id.clone().unwrap_or_default();
            events.push(Event::Head(Head {
                id: chunk.id.unwrap_or_default(),
                model: chunk.model.unwrap_or_default(),
                created: chunk.created,
                fingerprint: chunk.system_fingerprint,
                service_tier: chunk.service_tier,
                ..Head::default()
            }));
        }
        for choice in chunk.choices {
            if choice.index >= CHOICES {
                return self.fail(malformed("a choice has an index out of range"), events);
            }
            self.choice(choice, events);
            if self.over {
                return;
            }
        }
    }

    fn choice(&mut self, field: Choice, events: &mut Vec<Event>) {
        let (choice, at) = (field.index, field.index as usize);
        if self.choices.len() <= at {
            self.choices.resize_with(at + 1, Open::default);
        }
        let Some(open) = self.choices.get_mut(at) else { return };
        open.seen = true;
        if let Some(delta) = field.delta {
            let some = |text: Option<String>| text.filter(|text| !text.is_empty());
            if let Some(text) = some(delta.reasoning_content) {
                events.push(Event::Thinking { choice, text });
            }
            if let Some(text) = some(delta.content) {
                events.push(Event::Text { choice, text });
            }
            if let Some(text) = some(delta.refusal) {
                events.push(Event::Refusal { choice, text });
            }
            for (name, value) in [("annotations", delta.annotations), ("audio", delta.audio)] {
                if let Some(value) = value.filter(|value| value.compact() != "[]") {
                    let (dialect, name) = (Dialect::OpenAi, name.to_owned());
                    events.push(Event::Native { choice, dialect, name, value });
                }
            }
            for call in delta.tool_calls.unwrap_or_default() {
                if let Err(what) = open.call(choice, &self.id, call, events) {
                    return self.fail(malformed(what), events);
                }
            }
        }
        if let Some(text) = field.text.filter(|text| !text.is_empty()) {
            events.push(Event::Text { choice, text });
        }
        if let Some(logprobs) = field.logprobs {
            logprobs.into_events(choice, events);
        }
        if let Some(reason) = field.finish_reason
            && !open.ended
        {
            open.end(choice, self::reason(reason), events);
        }
    }

    /// The answer is complete by the dialect's own sign.
    fn complete(&mut self, events: &mut Vec<Event>) {
        for (choice, open) in (0_u32..).zip(&mut self.choices) {
            if open.seen && !open.ended {
                open.end(choice, Finish::Stop, events);
            }
        }
        self.over = true;
        events.push(Event::Finished { usage: self.usage, timing: None });
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let all = self.choices.iter().all(|open| open.ended || !open.seen);
        if self.begun && all && !self.choices.is_empty() {
            self.complete(events);
        } else {
            self.fail(cut(), events);
        }
    }

    fn fail(&mut self, event: Event, events: &mut Vec<Event>) {
        self.over = true;
        events.push(event);
    }
}

impl Open {
    fn call(
        &mut self,
        choice: u32,
        answer: &str,
        field: Call,
        events: &mut Vec<Event>,
    ) -> Result<(), &'static str> {
        let function = field.function;
        let id = field.id.filter(|id| !id.is_empty());
        let (name, json) = match function {
            Some(function) => (function.name.filter(|name| !name.is_empty()), function.arguments),
            None => (None, None),
        };
        let known = match (field.index, &id) {
            (Some(index), _) => self.calls.iter().position(|(own, _)| *own == Some(index)),
            (None, Some(id)) => self.calls.iter().position(|(_, own)| own == id),
            (None, None) if name.is_none() => self.calls.len().checked_sub(1),
            (None, None) => None,
        };
        let at = match known {
            Some(at) => at,
            None => {
                let name = name.ok_or("a call has no name")?;
                if self.calls.len() == CALLS {
                    return Err("it has too many calls");
                }
                self.end_call(choice, events);
                let at = self.calls.len();
                let id = id.unwrap_or_else(|| format!("call_{answer}_{choice}_{at}"));
                self.calls.push((field.index, id.clone()));
                self.call_open = true;
                events.push(Event::ToolBegin { choice, call: at as u32, id, name });
                at
            }
        };
        if let Some(json) = json.filter(|json| !json.is_empty()) {
            events.push(Event::ToolArguments { choice, call: at as u32, json });
        }
        Ok(())
    }

    fn end_call(&mut self, choice: u32, events: &mut Vec<Event>) {
        if std::mem::take(&mut self.call_open) {
            let call = self.calls.len().saturating_sub(1) as u32;
            events.push(Event::ToolEnd { choice, call });
        }
    }

    fn end(&mut self, choice: u32, reason: Finish, events: &mut Vec<Event>) {
        self.end_call(choice, events);
        self.ended = true;
        events.push(Event::Ended { choice, reason, stop: None });
    }
}

impl LogProbsField {
    fn into_events(mut self, choice: u32, events: &mut Vec<Event>) {
        let texts = self.of_text();
        if !texts.is_empty() {
            events.push(Event::LogProbs { choice, tokens: texts, refusal: false });
        }
        for (refusal, tokens) in [(false, self.content), (true, self.refusal)] {
            let Some(tokens) = tokens.filter(|tokens| !tokens.is_empty()) else { continue };
            let token = |field: TokenField| TokenLogProb {
                top: field.top.into(),
                alternatives: field.top_logprobs.into_iter().map(TopLogProb::from).collect(),
            };
            let tokens = tokens.into_iter().map(token).collect();
            events.push(Event::LogProbs { choice, tokens, refusal });
        }
    }
}

impl LogProbsField {
    /// The tokens of a text that is gone on with. Their bytes are not told.
    fn of_text(&mut self) -> Vec<TokenLogProb> {
        let mut tops = self.top_logprobs.take().unwrap_or_default().into_iter();
        let tokens = self.tokens.take().unwrap_or_default().into_iter();
        let logprobs = self.token_logprobs.take().unwrap_or_default().into_iter();
        let of = |(token, logprob)| TopLogProb { token, bytes: None, logprob };
        let mut all = Vec::new();
        for (token, logprob) in tokens.zip(logprobs) {
            let mut alternatives: Vec<TopLogProb> =
                tops.next().flatten().unwrap_or_default().into_iter().map(of).collect();
            alternatives
                .sort_by(|one, other| other.logprob.value().total_cmp(&one.logprob.value()));
            if let Some(logprob) = logprob {
                all.push(TokenLogProb { top: of((token, logprob)), alternatives });
            }
        }
        all
    }
}

pub(crate) fn reason(word: String) -> Finish {
    match word.as_str() {
        "stop" | "eos" => Finish::Stop,
        "length" => Finish::Length,
        "tool_calls" | "function_call" => Finish::ToolCalls,
        "content_filter" => Finish::Filtered,
        "pause_turn" => Finish::Paused,
        "quota" => Finish::Quota,
        _ => Finish::Other(crate::failure::clean(&word)),
    }
}
