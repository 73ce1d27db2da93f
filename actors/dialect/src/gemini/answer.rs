//! Client side: an answer, streamed or whole, becomes canonical events.
//!
//! Owns reading. A stream has no sign of its end: it is complete when every candidate has its
//! reason and the connection ends.

use serde::Deserialize;

use super::error::failure;
use super::sign;
use crate::chat::{Citation, Event, Finish, Head, TokenLogProb, TopLogProb, Usage};
use crate::exchange::{AnswerParser, Dialect};
use crate::failure::{clean, cut, malformed};
use crate::frame::{Document, sse};
use crate::json::Json;
use crate::limits::{CALLS, CHOICES};
use crate::number::Number;

const SELF: Dialect = Dialect::Gemini;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk {
    #[serde(default)]
    candidates: Vec<Candidate>,
    prompt_feedback: Option<Feedback>,
    usage_metadata: Option<UsageField>,
    model_version: Option<String>,
    response_id: Option<String>,
    error: Option<Json>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<ContentField>,
    finish_reason: Option<String>,
    #[serde(default)]
    index: u32,
    citation_metadata: Option<Json>,
    grounding_metadata: Option<Json>,
    logprobs_result: Option<LogProbsField>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
struct ContentField {
    #[serde(default)]
    parts: Vec<Json>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartField {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    thought_signature: Option<String>,
    function_call: Option<CallField>,
}

#[derive(Deserialize)]
struct CallField {
    id: Option<String>,
    name: String,
    args: Option<Json>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogProbsField {
    #[serde(default)]
    chosen_candidates: Vec<TokenField>,
    #[serde(default)]
    top_candidates: Vec<TopField>,
}

#[derive(Deserialize)]
struct TopField {
    #[serde(default)]
    candidates: Vec<TokenField>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenField {
    #[serde(default)]
    token: String,
    #[serde(default)]
    log_probability: Number,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct UsageField {
    prompt_token_count: u64,
    cached_content_token_count: u64,
    candidates_token_count: u64,
    thoughts_token_count: u64,
    tool_use_prompt_token_count: u64,
}

impl From<UsageField> for Usage {
    fn from(field: UsageField) -> Self {
        Self {
            prompt_tokens: field
                .prompt_token_count
                .saturating_add(field.tool_use_prompt_token_count),
            cached_tokens: field.cached_content_token_count,
            // Thinking is counted beside the answer here, and billed like it.
            completion_tokens: field
                .candidates_token_count
                .saturating_add(field.thoughts_token_count),
            reasoning_tokens: field.thoughts_token_count,
            ..Self::default()
        }
    }
}

/// Reads a stream of server-sent events.
#[derive(Debug, Default)]
pub struct Parser {
    frames: sse::Events,
    reader: Reader,
}

impl Parser {
    /// A parser of one answer. This dialect gives calls no ids: they are made of `id`.
    pub fn new(id: impl Into<String>) -> Self {
        let reader = Reader { id: id.into(), ..Reader::default() };
        Self { frames: sse::Events::default(), reader }
    }
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

impl WholeParser {
    /// A parser of one answer. This dialect gives calls no ids: they are made of `id`.
    pub fn new(id: impl Into<String>) -> Self {
        let reader = Reader { id: id.into(), ..Reader::default() };
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
        if !self.reader.over {
            self.reader.data(&self.document.take(), events);
        }
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
    id: String,
    begun: bool,
    over: bool,
    choices: Vec<Open>,
    usage: Option<Usage>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Open {
    seen: bool,
    ended: bool,
    calls: u32,
}

impl Reader {
    fn data(&mut self, data: &[u8], events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        match serde_json::from_slice::<Chunk>(data) {
            Ok(Chunk { error: Some(_), .. }) => {
                self.fail(Event::Failed(failure(0, None, data)), events);
            }
            Ok(chunk) => self.chunk(chunk, events),
            Err(error) if error.is_eof() => self.fail(cut(), events),
            Err(_) => self.fail(malformed("an event is not a part of an answer"), events),
        }
    }

    fn chunk(&mut self, chunk: Chunk, events: &mut Vec<Event>) {
        if let Some(usage) = chunk.usage_metadata {
            self.usage = Some(usage.into());
        }
        if !std::mem::replace(&mut self.begun, true) {
            events.push(Event::Head(Head {
                id: chunk.response_id.unwrap_or_else(|| self.id.clone()),
                model: chunk.model_version.unwrap_or_default(),
                ..Head::default()
            }));
        }
        let blocked = chunk.prompt_feedback.and_then(|feedback| feedback.block_reason);
        if blocked.is_some() && chunk.candidates.is_empty() && self.choices.is_empty() {
            self.choices.push(Open { seen: true, ended: true, calls: 0 });
            events.push(Event::Ended { choice: 0, reason: Finish::Filtered, stop: None });
        }
        for candidate in chunk.candidates {
            if candidate.index >= CHOICES {
                return self.fail(malformed("a candidate has an index out of range"), events);
            }
            self.candidate(candidate, events);
            if self.over {
                return;
            }
        }
    }

    fn candidate(&mut self, field: Candidate, events: &mut Vec<Event>) {
        let (choice, at) = (field.index, field.index as usize);
        if self.choices.len() <= at {
            self.choices.resize(at + 1, Open::default());
        }
        if let Some(open) = self.choices.get_mut(at) {
            open.seen = true;
        }
        for part in field.content.map(|content| content.parts).unwrap_or_default() {
            if let Err(what) = self.part(choice, part, events) {
                return self.fail(malformed(what), events);
            }
        }
        if let Some(logprobs) = field.logprobs_result {
            logprobs.into_events(choice, events);
        }
        for value in [field.citation_metadata, field.grounding_metadata].into_iter().flatten() {
            events.push(Event::Citation(Citation { choice, dialect: SELF, value }));
        }
        let Some(open) = self.choices.get_mut(at) else { return };
        if let Some(word) = field.finish_reason
            && !std::mem::replace(&mut open.ended, true)
        {
            let reason = reason(&word, open.calls > 0);
            events.push(Event::Ended { choice, reason, stop: None });
        }
    }

    fn part(
        &mut self,
        choice: u32,
        value: Json,
        events: &mut Vec<Event>,
    ) -> Result<(), &'static str> {
        let part = serde_json::from_str::<PartField>(value.text());
        let part = part.map_err(|_| "a part is not an object")?;
        let signature = part.thought_signature.filter(|signature| !signature.is_empty());
        if let Some(field) = part.function_call {
            if field.name.is_empty() {
                return Err("a call has no name");
            }
            let open = self.choices.get_mut(choice as usize).ok_or("a call is out of range")?;
            if open.calls as usize == CALLS {
                return Err("it has too many calls");
            }
            let call = open.calls;
            open.calls += 1;
            let id = field.id.filter(|id| !id.is_empty());
            let id = id.unwrap_or_else(|| format!("call_{}_{choice}_{call}", self.id));
            let id = sign(&id, signature.as_deref());
            let json = field.args.map_or_else(|| "{}".to_owned(), |args| args.text().to_owned());
            events.push(Event::ToolBegin { choice, call, id, name: field.name });
            events.push(Event::ToolArguments { choice, call, json });
            events.push(Event::ToolEnd { choice, call });
        } else if let Some(text) = part.text {
            match (text.is_empty(), part.thought) {
                (true, _) => {}
                (false, true) => events.push(Event::Thinking { choice, text }),
                (false, false) => events.push(Event::Text { choice, text }),
            }
        } else {
            let name = "part".to_owned();
            events.push(Event::Native { choice, dialect: SELF, name, value });
        }
        Ok(())
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let seen = self.choices.iter().any(|open| open.seen);
        if seen && self.choices.iter().all(|open| open.ended || !open.seen) {
            self.over = true;
            events.push(Event::Finished { usage: self.usage, timing: None });
        } else {
            self.fail(cut(), events);
        }
    }

    fn fail(&mut self, event: Event, events: &mut Vec<Event>) {
        self.over = true;
        events.push(event);
    }
}

impl LogProbsField {
    fn into_events(self, choice: u32, events: &mut Vec<Event>) {
        fn token(field: TokenField) -> TopLogProb {
            TopLogProb { token: field.token, bytes: None, logprob: field.log_probability }
        }
        let mut tops = self.top_candidates.into_iter();
        let tokens = self.chosen_candidates.into_iter().map(|chosen| TokenLogProb {
            top: token(chosen),
            alternatives: tops
                .next()
                .map(|top| top.candidates.into_iter().map(token).collect())
                .unwrap_or_default(),
        });
        let tokens: Vec<_> = tokens.collect();
        if !tokens.is_empty() {
            events.push(Event::LogProbs { choice, tokens, refusal: false });
        }
    }
}

fn reason(word: &str, called: bool) -> Finish {
    match word {
        "STOP" if called => Finish::ToolCalls,
        "STOP" => Finish::Stop,
        "MAX_TOKENS" => Finish::Length,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "IMAGE_SAFETY" => {
            Finish::Filtered
        }
        _ => Finish::Other(clean(word).to_ascii_lowercase()),
    }
}
