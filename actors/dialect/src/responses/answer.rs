//! Client side: an answer, streamed or whole, becomes canonical events.
//!
//! Owns reading. Pieces are read as they come; what repeats them whole (`…done`) is read over.

use serde::Deserialize;

use crate::chat::{Event, Finish, Head, TokenLogProb, TopLogProb, Usage};
use crate::exchange::{AnswerParser, Dialect};
use crate::failure::{clean, cut, malformed};
use crate::frame::{Document, sse};
use crate::json::Json;
use crate::limits::CALLS;
use crate::number::Number;
use crate::openai;

const SELF: Dialect = Dialect::Responses;

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "type")]
    kind: String,
    response: Option<ResponseField>,
    item: Option<Json>,
    output_index: Option<u64>,
    delta: Option<Json>,
    logprobs: Option<Vec<TokenField>>,
}

#[derive(Deserialize)]
struct ResponseField {
    id: Option<String>,
    model: Option<String>,
    created_at: Option<Number>,
    status: Option<String>,
    service_tier: Option<String>,
    incomplete_details: Option<Incomplete>,
    error: Option<Json>,
    #[serde(default)]
    output: Vec<Json>,
    usage: Option<UsageField>,
}

#[derive(Deserialize)]
struct Incomplete {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    content: Option<Vec<PartField>>,
    #[serde(default)]
    summary: Vec<PartField>,
    encrypted_content: Option<String>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct PartField {
    text: Option<String>,
    refusal: Option<String>,
    logprobs: Option<Vec<TokenField>>,
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

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct UsageField {
    input_tokens: u64,
    output_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens_details: OutputDetails,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    reasoning_tokens: u64,
}

impl From<UsageField> for Usage {
    fn from(field: UsageField) -> Self {
        Self {
            prompt_tokens: field.input_tokens,
            cached_tokens: field.input_tokens_details.cached_tokens,
            completion_tokens: field.output_tokens,
            reasoning_tokens: field.output_tokens_details.reasoning_tokens,
            ..Self::default()
        }
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
        match serde_json::from_slice::<ResponseField>(&body) {
            Ok(mut response) => {
                let items = std::mem::take(&mut response.output);
                self.reader.head(&response, events);
                items.into_iter().for_each(|item| self.reader.whole_item(item, events));
                self.reader.end(response, &body, events);
            }
            Err(error) if error.is_eof() => self.reader.fail(cut(), events),
            Err(_) => self.reader.fail(malformed("it is not a response"), events),
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
    begun: bool,
    over: bool,
    /// The provider's index of each call, in the order of ours.
    calls: Vec<u64>,
    call_open: bool,
    refused: bool,
    usage: Option<Usage>,
}

impl Reader {
    fn data(&mut self, data: &[u8], events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let Ok(event) = serde_json::from_slice::<Data>(data) else {
            return self.fail(malformed("an event is not one of a response"), events);
        };
        let piece = || {
            let text = event.delta.as_ref().map(Json::text);
            text.and_then(|text| serde_json::from_str::<String>(text).ok())
        };
        match event.kind.as_str() {
            "response.created" | "response.in_progress" | "response.queued" => {
                if let Some(response) = event.response {
                    self.head(&response, events);
                }
            }
            "response.output_text.delta" => {
                self.text(piece(), events);
                logprobs(event.logprobs, events);
            }
            "response.refusal.delta" => self.refusal(piece(), events),
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                self.thinking(piece(), events);
            }
            "response.function_call_arguments.delta" => {
                let index = event.output_index.unwrap_or(0);
                match (self.calls.iter().position(|own| *own == index), piece()) {
                    (Some(call), Some(json)) => {
                        let call = call as u32;
                        events.push(Event::ToolArguments { choice: 0, call, json });
                    }
                    _ => self.fail(malformed("arguments belong to no call"), events),
                }
            }
            "response.output_item.added" => {
                self.added(event.item, event.output_index.unwrap_or(0), events);
            }
            "response.output_item.done" => self.done(event.item, events),
            "response.completed" | "response.incomplete" | "response.failed" => {
                match event.response {
                    Some(response) => {
                        self.head(&response, events);
                        self.end(response, data, events);
                    }
                    None => self.fail(malformed("it ends without a response"), events),
                }
            }
            "error" => self.fail(Event::Failed(openai::failure(0, None, data)), events),
            // What repeats pieces whole, and tools that the provider runs.
            _ => {}
        }
    }

    fn head(&mut self, response: &ResponseField, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let created = response.created_at.and_then(Number::whole);
        events.push(Event::Head(Head {
            id: response.id.clone().unwrap_or_default(),
            model: response.model.clone().unwrap_or_default(),
            created,
            service_tier: response.service_tier.clone(),
            ..Head::default()
        }));
    }

    fn text(&mut self, text: Option<String>, events: &mut Vec<Event>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            events.push(Event::Text { choice: 0, text });
        }
    }

    fn refusal(&mut self, text: Option<String>, events: &mut Vec<Event>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.refused = true;
            events.push(Event::Refusal { choice: 0, text });
        }
    }

    fn thinking(&mut self, text: Option<String>, events: &mut Vec<Event>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            events.push(Event::Thinking { choice: 0, text });
        }
    }

    fn added(&mut self, item: Option<Json>, index: u64, events: &mut Vec<Event>) {
        let item = item.and_then(|item| serde_json::from_str::<Item>(item.text()).ok());
        let Some(item) = item else {
            return self.fail(malformed("an item is not an object with a type"), events);
        };
        if item.kind == "function_call" {
            self.call(&item, index, events);
        }
    }

    fn call(&mut self, item: &Item, index: u64, events: &mut Vec<Event>) {
        self.end_call(events);
        let (Some(id), Some(name)) = (&item.call_id, &item.name) else {
            return self.fail(malformed("a call has no id or no name"), events);
        };
        if id.is_empty() || name.is_empty() {
            return self.fail(malformed("a call has no id or no name"), events);
        }
        if self.calls.len() == CALLS {
            return self.fail(malformed("it has too many calls"), events);
        }
        let call = self.calls.len() as u32;
        self.calls.push(index);
        self.call_open = true;
        events.push(Event::ToolBegin { choice: 0, call, id: id.clone(), name: name.clone() });
    }

    fn end_call(&mut self, events: &mut Vec<Event>) {
        if std::mem::take(&mut self.call_open) {
            let call = self.calls.len().saturating_sub(1) as u32;
            events.push(Event::ToolEnd { choice: 0, call });
        }
    }

    /// An item of a stream is whole: its pieces were read before, but for proofs of thinking and
    /// what only this dialect has.
    fn done(&mut self, value: Option<Json>, events: &mut Vec<Event>) {
        let Some(value) = value else { return };
        let Ok(item) = serde_json::from_str::<Item>(value.text()) else {
            return self.fail(malformed("an item is not an object with a type"), events);
        };
        match item.kind.as_str() {
            "message" => {}
            "function_call" => self.end_call(events),
            "reasoning" => {
                if let Some(signature) = item.encrypted_content.filter(|text| !text.is_empty()) {
                    events.push(Event::Signature { choice: 0, signature });
                }
            }
            _ => events.push(Event::Native { choice: 0, dialect: SELF, name: item.kind, value }),
        }
    }

    fn whole_item(&mut self, value: Json, events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let Ok(item) = serde_json::from_str::<Item>(value.text()) else {
            return self.fail(malformed("an item is not an object with a type"), events);
        };
        match item.kind.as_str() {
            "message" => {
                for part in item.content.unwrap_or_default() {
                    self.text(part.text, events);
                    self.refusal(part.refusal, events);
                    logprobs(part.logprobs, events);
                }
            }
            "function_call" => {
                self.call(&item, self.calls.len() as u64, events);
                let call = self.calls.len().saturating_sub(1) as u32;
                if let (Some(json), false) = (item.arguments, self.over) {
                    events.push(Event::ToolArguments { choice: 0, call, json });
                }
                self.end_call(events);
            }
            "reasoning" => {
                for part in item.summary.into_iter().chain(item.content.unwrap_or_default()) {
                    self.thinking(part.text, events);
                }
                self.done(Some(value), events);
            }
            _ => events.push(Event::Native { choice: 0, dialect: SELF, name: item.kind, value }),
        }
    }

    fn end(&mut self, response: ResponseField, data: &[u8], events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        self.usage = response.usage.map(Usage::from).or(self.usage);
        let why = response.incomplete_details.and_then(|details| details.reason);
        let reason = match response.status.as_deref() {
            Some("failed") | None => {
                let said = response.error.as_ref().map(|error| {
                    let mut out = b"{\"error\":".to_vec();
                    out.extend_from_slice(error.text().as_bytes());
                    out.push(b'}');
                    out
                });
                let data = said.as_deref().unwrap_or(data);
                return self.fail(Event::Failed(openai::failure(0, None, data)), events);
            }
            Some("incomplete") => match why.as_deref() {
                Some("max_output_tokens") | None => Finish::Length,
                Some("content_filter") => Finish::Filtered,
                Some(word) => Finish::Other(clean(word)),
            },
            Some(_) if !self.calls.is_empty() => Finish::ToolCalls,
            Some(_) if self.refused => Finish::Refused,
            Some(_) => Finish::Stop,
        };
        self.end_call(events);
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

fn logprobs(tokens: Option<Vec<TokenField>>, events: &mut Vec<Event>) {
    let tokens = tokens.unwrap_or_default();
    if tokens.is_empty() {
        return;
    }
    let token = |field: TokenField| TokenLogProb {
        top: TopLogProb { token: field.token, bytes: field.bytes, logprob: field.logprob },
        alternatives: field
            .top_logprobs
            .into_iter()
            .map(|top| TopLogProb { token: top.token, bytes: top.bytes, logprob: top.logprob })
            .collect(),
    };
    let tokens = tokens.into_iter().map(token).collect();
    events.push(Event::LogProbs { choice: 0, tokens, refusal: false });
}
