//! Text completions: a text is gone on with, without a chat around it.
//!
//! Owns the body of `POST /v1/completions`, as it is read and as a provider is sent it, and the
//! shapes of its answers. Answers are read as a chat's are, whose chunks differ in two fields.
//! Source: the OpenAI API reference, "Completions".

use selvedge_base::Refusal;
use serde::Deserialize;

use super::fields::{Drawing, StreamOptions, sampling, stop, stream_options};
use super::render::{Target, drawing, extensions, hold};
use super::usage;
use super::write::{put_end, put_failure, word};
use crate::cannot;
use crate::chat::{
    ChatRequest, Content, Event, Extension, Gathered, Head, LogProbs, Message, Role, TokenLogProb,
    TopLogProb, Usage,
};
use crate::decode::{self, Pairs, TextOr, invalid, required, unsupported, whole};
use crate::exchange::{Dialect, Outgoing, Reply, StreamWriter};
use crate::json::{self, Json, Object};
use crate::limits::CHOICES;
use crate::number::Number;

const SELF: Dialect = Dialect::OpenAi;
/// Tokens of an answer when the caller does not say, as the API defines this endpoint.
const DEFAULT_MAX_TOKENS: u32 = 16;
/// Alternatives per token: servers that speak alike allow as many as in chats.
const TOP_LOGPROBS: i64 = 20;

/// A body. `null` counts as absent everywhere.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    model: Option<String>,
    prompt: Option<Json>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    temperature: Option<Number>,
    top_p: Option<Number>,
    top_k: Option<i64>,
    min_p: Option<Number>,
    presence_penalty: Option<Number>,
    frequency_penalty: Option<Number>,
    repetition_penalty: Option<Number>,
    seed: Option<i64>,
    logit_bias: Option<Pairs<Number>>,
    stop: Option<TextOr<String>>,
    max_tokens: Option<i64>,
    logprobs: Option<i64>,
    n: Option<i64>,
    best_of: Option<i64>,
    user: Option<String>,
    // What only this dialect has.
    echo: Option<bool>,
    suffix: Option<String>,
    structured_outputs: Option<Json>,
    grammar: Option<Json>,
    guided_json: Option<Json>,
    guided_regex: Option<Json>,
    guided_choice: Option<Json>,
    guided_grammar: Option<Json>,
}

/// The canonical request that a body of `POST /v1/completions` means whose prompt is one text.
///
/// # Errors
/// A refusal that names the field which is unknown, of a wrong type or out of range; also of a
/// prompt that is several texts, or tokens, which mean something to one model only.
pub fn parse_text(bytes: &[u8]) -> Result<ChatRequest, Refusal> {
    let body: Body = decode::body(bytes)?;
    let prompt = prompt(body.prompt.as_ref())?;
    let stream = body.stream.unwrap_or(false);
    let n = whole("n", body.n, 1..=i64::from(CHOICES))?;
    // Others than those that are shown are made and billed too, and nobody can tell how many.
    if body.best_of.is_some_and(|best_of| best_of != i64::from(n.unwrap_or(1))) {
        let message = "'best_of' is not supported; leave it out or equal to 'n'";
        return Err(unsupported("best_of", message));
    }
    // The first token of a prompt has no probability, and the canonical form none for nothing.
    if body.echo == Some(true) && body.logprobs.is_some() {
        let message = "'echo' is not supported together with 'logprobs'; leave one of them out";
        return Err(unsupported("echo", message));
    }
    let mut extensions = own_fields(body.echo, body.suffix.as_deref())?;
    let held = [
        ("structured_outputs", body.structured_outputs),
        ("grammar", body.grammar),
        ("guided_json", body.guided_json),
        ("guided_regex", body.guided_regex),
        ("guided_choice", body.guided_choice),
        ("guided_grammar", body.guided_grammar),
    ];
    extensions.extend(held.into_iter().filter_map(|(name, value)| {
        value.map(|value| Extension { dialect: SELF, name: name.to_owned(), value })
    }));
    let include_usage = stream_options(body.stream_options, stream, &mut extensions)?;
    let logprobs: Option<u32> = whole("logprobs", body.logprobs, 0..=TOP_LOGPROBS)?;
    let max_tokens = whole("max_tokens", body.max_tokens, 1..=i64::from(u32::MAX))?;
    let drawing = Drawing {
        temperature: body.temperature,
        top_p: body.top_p,
        top_k: body.top_k,
        min_p: body.min_p,
        presence_penalty: body.presence_penalty,
        frequency_penalty: body.frequency_penalty,
        repetition_penalty: body.repetition_penalty,
        seed: body.seed,
        logit_bias: body.logit_bias,
    };
    Ok(ChatRequest {
        model: decode::model(body.model)?,
        messages: vec![Message::text(Role::User, prompt)],
        raw: true,
        sampling: sampling(drawing)?,
        max_tokens: Some(max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)),
        stop: stop(body.stop)?,
        logprobs: logprobs.map(|top| LogProbs { top: top as u8 }),
        n,
        stream,
        include_usage,
        user: body.user,
        extensions,
        ..ChatRequest::default()
    })
}

/// The one text of a prompt.
fn prompt(prompt: Option<&Json>) -> Result<String, Refusal> {
    let Some(prompt) = prompt.filter(|prompt| prompt.text() != "null") else {
        return Err(required("prompt"));
    };
    let one = serde_json::from_str::<String>(prompt.text()).ok();
    let one = one.or_else(|| match serde_json::from_str::<[String; 1]>(prompt.text()) {
        Ok([one]) => Some(one),
        Err(_) => None,
    });
    match one {
        Some(text) if text.is_empty() => Err(invalid("prompt", "'prompt' must not be empty")),
        Some(text) => Ok(text),
        None => Err(unsupported("prompt", "'prompt' must be one text for this model")),
    }
}

fn own_fields(echo: Option<bool>, suffix: Option<&str>) -> Result<Vec<Extension>, Refusal> {
    let own = |name: &str, value: Json| Extension { dialect: SELF, name: name.to_owned(), value };
    let json = |name: &str, value: serde_json::Result<Json>| {
        value.map(|value| own(name, value)).map_err(|_| required(name))
    };
    let echo = echo.filter(|echo| *echo).map(|echo| json("echo", Json::of(&echo)));
    let suffix = suffix.filter(|suffix| !suffix.is_empty());
    let suffix = suffix.map(|suffix| json("suffix", Json::of(&suffix)));
    echo.into_iter().chain(suffix).collect()
}

/// What to send for a text that is to be gone on with.
pub(super) fn render(request: &ChatRequest, target: Target<'_>) -> Result<Outgoing, Refusal> {
    cannot::foreign(SELF, request)?;
    let strict = target != Target::Compatible;
    let sampling = &request.sampling;
    cannot::any(
        SELF,
        &[
            ("top_k", strict && sampling.top_k.is_some()),
            ("min_p", strict && sampling.min_p.is_some()),
            ("repetition_penalty", strict && sampling.repetition_penalty.is_some()),
        ],
    )?;
    hold(request, target)?;
    let parts = request.messages.iter().flat_map(|message| &message.parts);
    let prompt: String = parts
        .filter_map(|part| match &part.content {
            Content::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let mut body = Vec::with_capacity(512 + prompt.len());
    Object::write(&mut body, |object| {
        object.field("model", &request.model);
        object.field("prompt", &prompt);
        object.maybe("max_tokens", request.max_tokens.as_ref());
        drawing(object, request);
        object.maybe("logprobs", request.logprobs.map(|logprobs| logprobs.top).as_ref());
        object.maybe("user", request.user.as_ref());
        extensions(object, request);
    });
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path: target.path("completions"), headers, body })
}

/// Writes a stream.
#[derive(Debug)]
pub struct TextWriter {
    reply: Reply,
    /// From `data: ` to the opening of `choices`.
    head: Vec<u8>,
    /// Of each choice, characters of the tokens whose probabilities were told.
    offsets: Vec<usize>,
    usage: Option<Usage>,
    over: bool,
}

impl TextWriter {
    /// A writer for one answer.
    pub fn new(reply: Reply) -> Self {
        let (head, offsets) = (Vec::new(), Vec::new());
        let mut writer = Self { reply, head, offsets, usage: None, over: false };
        writer.begin(&Head::default());
        writer
    }

    fn begin(&mut self, head: &Head) {
        self.head = b"data: {\"id\":".to_vec();
        let out = &mut self.head;
        json::value(out, &head.id);
        out.extend_from_slice(b",\"object\":\"text_completion\",\"created\":");
        json::value(out, &head.created.unwrap_or(self.reply.created));
        out.extend_from_slice(b",\"model\":");
        json::value(out, &head.model);
        out.extend_from_slice(b",\"system_fingerprint\":");
        json::value(out, &head.fingerprint);
        out.extend_from_slice(b",\"choices\":[");
    }

    fn chunk(
        &self,
        out: &mut Vec<u8>,
        (choice, text): (u32, &str),
        tokens: Option<(&[TokenLogProb], usize)>,
        reason: Option<&str>,
    ) {
        out.extend_from_slice(&self.head);
        Object::write(out, |object| {
            object.field("index", &choice);
            object.field("text", text);
            put_logprobs(object, tokens);
            object.field("finish_reason", &reason);
        });
        // With usage asked for, every event before the last has it as null.
        let tail: &[u8] =
            if self.reply.include_usage { b"],\"usage\":null}\n\n" } else { b"]}\n\n" };
        out.extend_from_slice(tail);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        put_end(out, self.reply, &self.head, self.usage);
        self.over = true;
    }

    /// Where the next tokens of a choice begin; the ones after these.
    fn offset(&mut self, choice: u32, tokens: &[TokenLogProb]) -> usize {
        let at = choice.min(CHOICES) as usize;
        if self.offsets.len() <= at {
            self.offsets.resize(at + 1, 0);
        }
        let Some(offset) = self.offsets.get_mut(at) else { return 0 };
        let begin = *offset;
        *offset += tokens.iter().map(|token| characters(&token.top)).sum::<usize>();
        begin
    }
}

impl StreamWriter for TextWriter {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        match event {
            Event::Head(head) => self.begin(head),
            Event::Text { choice, text } => self.chunk(out, (*choice, text), None, None),
            Event::LogProbs { choice, tokens, refusal: false } => {
                let offset = self.offset(*choice, tokens);
                self.chunk(out, (*choice, ""), Some((tokens, offset)), None);
            }
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Ended { choice, reason, .. } => {
                self.chunk(out, (*choice, ""), None, Some(word(reason)));
            }
            Event::Finished { usage, .. } => {
                self.usage = usage.or(self.usage);
                self.end(out);
            }
            Event::Failed(failure) => {
                put_failure(out, failure);
                self.over = true;
            }
            // A text that is gone on with has none of these.
            Event::LogProbs { .. }
            | Event::Thinking { .. }
            | Event::Refusal { .. }
            | Event::ToolBegin { .. }
            | Event::ToolArguments { .. }
            | Event::Signature { .. }
            | Event::Redacted { .. }
            | Event::ToolEnd { .. }
            | Event::Citation(_)
            | Event::Native { .. } => {}
        }
    }

    fn keep_alive(&mut self, out: &mut Vec<u8>) {
        if !self.over {
            out.extend_from_slice(b": still here\n\n");
        }
    }
}

/// The body of a whole answer.
pub fn whole_text(answer: &Gathered, reply: Reply) -> Vec<u8> {
    let mut out = Vec::with_capacity(1_024);
    Object::write(&mut out, |object| {
        let head = &answer.head;
        object.field("id", &head.id);
        object.field("object", "text_completion");
        object.field("created", &head.created.unwrap_or(reply.created));
        object.field("model", &head.model);
        object.field("system_fingerprint", &head.fingerprint);
        object.array("choices", |array| {
            for (index, choice) in answer.choices.iter().enumerate() {
                array.object(|object| {
                    object.field("index", &index);
                    object.field("text", &choice.text());
                    let tokens = choice.logprobs.as_slice();
                    put_logprobs(object, (!tokens.is_empty()).then_some((tokens, 0)));
                    object.field("finish_reason", &choice.reason.as_ref().map(word));
                });
            }
        });
        if let Some(usage) = &answer.usage {
            object.object("usage", |object| usage::write(object, usage));
        }
    });
    out
}

fn put_logprobs(object: &mut Object<'_>, tokens: Option<(&[TokenLogProb], usize)>) {
    let Some((tokens, mut offset)) = tokens else { return object.raw("logprobs", "null") };
    object.object("logprobs", |object| {
        let texts: Vec<String> = tokens.iter().map(|token| readable(&token.top)).collect();
        object.field("tokens", &texts);
        let logprobs: Vec<Number> = tokens.iter().map(|token| token.top.logprob).collect();
        object.field("token_logprobs", &logprobs);
        object.array("top_logprobs", |array| {
            tokens.iter().for_each(|token| array.object(|object| alternatives(object, token)));
        });
        object.array("text_offset", |array| {
            for token in tokens {
                array.item(&offset);
                offset += characters(&token.top);
            }
        });
    });
}

/// Alternatives as an object, likeliest first. Two tokens can have the same text; an object may
/// hold a name once.
fn alternatives(object: &mut Object<'_>, token: &TokenLogProb) {
    let mut names: Vec<String> = Vec::with_capacity(token.alternatives.len());
    for alternative in &token.alternatives {
        let name = readable(alternative);
        if !names.contains(&name) {
            object.field(&name, &alternative.logprob);
            names.push(name);
        }
    }
}

/// A token's text, or its bytes escaped where they are only part of a character.
fn readable(token: &TopLogProb) -> String {
    match token.bytes.as_deref().map(std::str::from_utf8) {
        Some(Err(_)) => {
            let bytes = token.bytes.iter().flatten();
            ["bytes:".to_owned()].into_iter().chain(bytes.map(|b| format!("\\x{b:02x}"))).collect()
        }
        Some(Ok(text)) => text.to_owned(),
        None => token.token.clone(),
    }
}

/// Characters that begin in a token; one that is split over tokens counts where it begins.
fn characters(token: &TopLogProb) -> usize {
    let bytes = token.bytes.as_deref().unwrap_or(token.token.as_bytes());
    bytes.iter().filter(|byte| (**byte & 0b1100_0000) != 0b1000_0000).count()
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
