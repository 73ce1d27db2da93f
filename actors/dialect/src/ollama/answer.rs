//! Client side: lines of JSON, or one, become canonical events.
//!
//! Owns reading. A whole answer is a stream of one line.

use selvedge_base::Micros;
use serde::Deserialize;

use crate::chat::{Event, Finish, Head, Timing, TokenLogProb, TopLogProb, Usage};
use crate::exchange::AnswerParser;
use crate::failure::{clean, cut, malformed};
use crate::frame::lines::Lines;
use crate::json::Json;
use crate::limits::CALLS;
use crate::number::Number;

#[derive(Deserialize)]
struct Line {
    model: Option<String>,
    message: Option<MessageField>,
    #[serde(default)]
    done: bool,
    done_reason: Option<String>,
    error: Option<Json>,
    logprobs: Option<Vec<TokenField>>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    total_duration: Option<u64>,
    load_duration: Option<u64>,
    prompt_eval_duration: Option<u64>,
    eval_duration: Option<u64>,
}

#[derive(Deserialize)]
struct MessageField {
    content: Option<String>,
    thinking: Option<String>,
    tool_calls: Option<Vec<CallField>>,
}

#[derive(Deserialize)]
struct CallField {
    id: Option<String>,
    function: FunctionField,
}

#[derive(Deserialize)]
struct FunctionField {
    name: String,
    arguments: Option<Json>,
}

#[derive(Deserialize)]
struct TokenField {
    token: String,
    logprob: Number,
    bytes: Option<Vec<u8>>,
    #[serde(default)]
    top_logprobs: Vec<TopField>,
}

#[derive(Deserialize)]
struct TopField {
    token: String,
    logprob: Number,
    bytes: Option<Vec<u8>>,
}

/// Reads an answer, streamed or whole.
#[derive(Debug, Default)]
pub struct Parser {
    lines: Lines,
    reader: Reader,
}

#[derive(Debug, Default)]
struct Reader {
    id: String,
    begun: bool,
    over: bool,
    calls: u32,
    usage: Option<Usage>,
}

impl Parser {
    /// A parser of one answer. This dialect gives answers and often calls no ids: `id` becomes the
    /// answer's, and calls get ids made of it.
    pub fn new(id: impl Into<String>) -> Self {
        let reader = Reader { id: id.into(), ..Reader::default() };
        Self { lines: Lines::default(), reader }
    }
}

impl AnswerParser for Parser {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        let Self { lines, reader } = self;
        if reader.over {
            return;
        }
        if lines.push(bytes, |line| reader.line(line, events)).is_err() && !reader.over {
            reader.fail(malformed("a line is too long"), events);
        }
    }

    fn finish(&mut self, events: &mut Vec<Event>) {
        if let Some(last) = self.lines.finish() {
            match serde_json::from_slice::<serde::de::IgnoredAny>(&last) {
                Ok(_) => self.reader.line(&last, events),
                Err(_) => self.reader.fail(cut(), events),
            }
        }
        self.reader.fail(cut(), events);
    }

    fn usage(&self) -> Option<Usage> {
        self.reader.usage
    }

    fn is_over(&self) -> bool {
        self.reader.over
    }
}

impl Reader {
    fn line(&mut self, line: &[u8], events: &mut Vec<Event>) {
        if self.over || line.trim_ascii().is_empty() {
            return;
        }
        match serde_json::from_slice::<Line>(line) {
            Ok(Line { error: Some(_), .. }) => {
                self.fail(Event::Failed(super::failure(0, None, line)), events);
            }
            Ok(line) => self.read(line, events),
            Err(_) => self.fail(malformed("a line is not a part of a chat"), events),
        }
    }

    fn read(&mut self, line: Line, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.begun, true) {
            let (id, model) = (self.id.clone(), line.model.unwrap_or_default());
            events.push(Event::Head(Head { id, model, ..Head::default() }));
        }
        if let Some(message) = line.message {
            let some = |text: Option<String>| text.filter(|text| !text.is_empty());
            if let Some(text) = some(message.thinking) {
                events.push(Event::Thinking { choice: 0, text });
            }
            if let Some(text) = some(message.content) {
                events.push(Event::Text { choice: 0, text });
            }
            for call in message.tool_calls.unwrap_or_default() {
                self.call(call, events);
            }
        }
        let tokens = line.logprobs.unwrap_or_default();
        if !tokens.is_empty() {
            let tokens = tokens.into_iter().map(TokenLogProb::from).collect();
            events.push(Event::LogProbs { choice: 0, tokens, refusal: false });
        }
        if line.prompt_eval_count.is_some() || line.eval_count.is_some() {
            self.usage = Some(Usage {
                prompt_tokens: line.prompt_eval_count.unwrap_or(0),
                completion_tokens: line.eval_count.unwrap_or(0),
                ..Usage::default()
            });
        }
        if line.done && !self.over {
            let reason = match line.done_reason.as_deref() {
                None | Some("" | "stop") if self.calls > 0 => Finish::ToolCalls,
                None | Some("" | "stop") => Finish::Stop,
                Some("length") => Finish::Length,
                Some("quota") => Finish::Quota,
                Some(word) => Finish::Other(clean(word)),
            };
            let span = |nanos: Option<u64>| Micros(nanos.unwrap_or(0) / 1_000);
            let timing = line.total_duration.map(|total| Timing {
                total: span(Some(total)),
                load: span(line.load_duration),
                prompt: span(line.prompt_eval_duration),
                answer: span(line.eval_duration),
            });
            events.push(Event::Ended { choice: 0, reason, stop: None });
            events.push(Event::Finished { usage: self.usage, timing });
            self.over = true;
        }
    }

    fn call(&mut self, field: CallField, events: &mut Vec<Event>) {
        if field.function.name.is_empty() {
            return self.fail(malformed("a call has no name"), events);
        }
        if self.calls as usize == CALLS {
            return self.fail(malformed("it has too many calls"), events);
        }
        let (choice, call) = (0, self.calls);
        self.calls += 1;
        let id = field.id.filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| format!("call_{}_{call}", self.id));
        let arguments = field.function.arguments;
        let json = arguments.map_or_else(|| "{}".to_owned(), |json| json.text().to_owned());
        events.push(Event::ToolBegin { choice, call, id, name: field.function.name });
        events.push(Event::ToolArguments { choice, call, json });
        events.push(Event::ToolEnd { choice, call });
    }

    fn fail(&mut self, event: Event, events: &mut Vec<Event>) {
        if !self.over {
            self.over = true;
            events.push(event);
        }
    }
}

impl From<TokenField> for TokenLogProb {
    fn from(field: TokenField) -> Self {
        let TokenField { token, logprob, bytes, top_logprobs } = field;
        let alternative = |field: TopField| TopLogProb {
            token: field.token,
            bytes: field.bytes,
            logprob: field.logprob,
        };
        Self {
            top: TopLogProb { token, bytes, logprob },
            alternatives: top_logprobs.into_iter().map(alternative).collect(),
        }
    }
}
