//! Asking a model over the streaming API and noting what comes back and when.
//!
//! Owns the shape of questions and of a heard answer. The questions suit a very small model:
//! they are continued or rewritten, never answered from knowledge.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::http::{Client, Reply};
use crate::places::MODEL;
use crate::sse::{self, Event};
use crate::time::{Deadline, Stopwatch};

/// A text that this model continues for a long time.
pub const STORY: &str = "Once upon a time, in a small village by the sea, there lived a";

/// A text completion with the likeliest token each time, so that it can be repeated.
pub fn completion(prompt: &str, max_tokens: u32) -> Value {
    json!({"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0})
}

/// A chat of one question with the likeliest token each time.
pub fn chat(question: &str, max_tokens: u32) -> Value {
    json!({"model": MODEL, "max_tokens": max_tokens, "temperature": 0,
           "messages": [{"role": "user", "content": question}]})
}

/// The same request with further fields.
#[must_use]
pub fn with(mut request: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut request, more) {
        fields.extend(more);
    }
    request
}

/// A streaming answer being read.
#[derive(Debug)]
pub struct Asked {
    reply: Reply,
    heard: Heard,
    last: Stopwatch,
    sent: Stopwatch,
}

/// What was heard of an answer.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The node that began the answer, by name.
    pub node: String,
    /// The request id.
    pub request: String,
    /// The text so far.
    pub text: String,
    /// Pieces with text so far.
    pub pieces: usize,
    /// Why it ended.
    pub finish: Option<String>,
    /// The usage, if asked for.
    pub usage: Option<Value>,
    /// The error event that ended it.
    pub error: Option<Value>,
    /// Whether the closing mark came.
    pub done: bool,
    /// From asking to the first piece.
    pub first: Duration,
    /// The longest pause between two pieces.
    pub gap: Duration,
}

impl Asked {
    /// Sends a request with streaming switched on and reads up to the answer's head.
    ///
    /// # Errors
    /// When the request is refused.
    pub fn stream(client: &Client, request: Value) -> Result<Self> {
        Self::stream_until(client, request, Deadline::patient())
    }

    /// The same with another deadline for the whole answer.
    ///
    /// # Errors
    /// When the request is refused.
    pub fn stream_until(client: &Client, request: Value, deadline: Deadline) -> Result<Self> {
        let path = match request.get("messages") {
            Some(_) => "/v1/chat/completions",
            None => "/v1/completions",
        };
        let sent = Stopwatch::start();
        let body = with(request, json!({"stream": true})).to_string();
        let reply = client.send("POST", path, body.as_bytes(), deadline)?;
        let status = reply.status;
        if status != 200 {
            bail!("status {status}: {}", reply.text()?);
        }
        let kind = reply.header("content-type").unwrap_or_default();
        ensure!(kind.starts_with("text/event-stream"), "a stream of type `{kind}`");
        let header = |name| reply.header(name).unwrap_or_default().to_owned();
        let heard = Heard {
            node: header("x-selvedge-node"),
            request: header("x-request-id"),
            ..Heard::default()
        };
        Ok(Self { reply, heard, last: sent, sent })
    }

    /// What was heard so far.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Reads until `pieces` pieces with text have come.
    ///
    /// # Errors
    /// When the answer ends before.
    pub fn until(&mut self, pieces: usize) -> Result<&Heard> {
        while self.heard.pieces < pieces {
            ensure!(self.advance()?, "the answer ended early: {:?}", self.heard);
        }
        Ok(&self.heard)
    }

    /// Reads to the end of the stream, whatever the end is.
    ///
    /// # Errors
    /// When the stream breaks off or stands still beyond the deadline.
    pub fn to_the_end(mut self) -> Result<Heard> {
        loop {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(self.heard),
                Err(error) => return Err(error).context(format!("heard {:?}", self.heard)),
            }
        }
    }

    /// Takes one event; `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        match sse::next(&mut self.reply)? {
            Event::End => Ok(false),
            Event::Done => {
                ensure!(!self.heard.done, "two closing marks");
                self.heard.done = true;
                Ok(true)
            }
            Event::Data(data) => {
                let closed = self.heard.done || self.heard.error.is_some();
                ensure!(!closed, "an event after the end: {data}");
                let event = serde_json::from_str(&data).with_context(|| format!("event {data}"))?;
                self.take(&event)?;
                Ok(true)
            }
        }
    }

    fn take(&mut self, event: &Value) -> Result<()> {
        if let Some(error) = event.get("error") {
            self.heard.error = Some(error.clone());
            return Ok(());
        }
        if let Some(usage) = event.get("usage").filter(|usage| !usage.is_null()) {
            self.heard.usage = Some(usage.clone());
        }
        let Some(choice) = event["choices"].get(0) else { return Ok(()) };
        let text = choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or("");
        if !text.is_empty() {
            ensure!(self.heard.finish.is_none(), "text after the finish: {event}");
            let now = Stopwatch::start();
            let pause = now.since(&self.last);
            if self.heard.pieces == 0 {
                self.heard.first = now.since(&self.sent);
            } else {
                self.heard.gap = self.heard.gap.max(pause);
            }
            self.last = now;
            self.heard.pieces += 1;
            self.heard.text.push_str(text);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            ensure!(self.heard.finish.is_none(), "two finishes: {event}");
            self.heard.finish = Some(reason.to_owned());
        }
        Ok(())
    }
}

impl Heard {
    /// Checks that the answer is whole.
    ///
    /// # Errors
    /// When it ended with an error or without its marks.
    pub fn whole(self) -> Result<Self> {
        let good = self.error.is_none() && self.done && self.finish.is_some();
        ensure!(good, "not a whole answer: {self:?}");
        Ok(self)
    }
}
