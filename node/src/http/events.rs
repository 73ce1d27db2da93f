//! An answer as it is made: server-sent events, written as the pieces come.
//!
//! Owns the shapes `chat.completion.chunk` and `text_completion` in a stream, and when to write:
//! all pieces that are ready leave in one write, and a lone one never waits for company. The head
//! of the response is sent when the first piece came, so a refusal before it has a status of its
//! own; after it, an error is an event, and the stream ends without `[DONE]`. A pause longer than
//! the keep-alive is filled with a comment line, which clients ignore, and so is the news that
//! another node took over.

use std::collections::VecDeque;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use futures::future::BoxFuture;
use hyper::StatusCode;
use selvedge_base::Code;
use selvedge_contract::TokenLogProb;
use selvedge_core::Piece;
use selvedge_runtime::Keeper;
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep};

use super::answers::Answers;
use super::backend::Backend;
use super::errors::Problem;
use super::logprobs::{ChatLogProbs, TextLogProbs};
use super::metrics::Progress;
use super::params::Shape;
use super::reply::{Heading, Totals, reason_text};
use super::stop::{Phase, Stop};

/// What leaves in one write at most, but for one event: a socket's buffer.
const WRITE_BYTES: usize = 16 << 10;

/// A stream of events.
pub(super) struct Events {
    answers: Answers,
    /// Pieces taken before the stream began.
    first: VecDeque<(usize, Piece)>,
    writer: Writer,
    progress: Progress,
    totals: Totals,
    n: usize,
    backend: Arc<dyn Backend>,
    include_usage: bool,
    quiet: Pin<Box<Sleep>>,
    keep_alive: Duration,
    written: Instant,
    ending: BoxFuture<'static, ()>,
    over: bool,
    /// Takes the stream for the cache, if it may be kept.
    keeper: Option<Keeper>,
}

/// What a stream needs besides its answers.
pub(super) struct Setting {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) keep_alive: Duration,
    pub(super) include_usage: bool,
    pub(super) stop: Stop,
    pub(super) keeper: Option<Keeper>,
}

impl Events {
    /// A stream of `count` answers, whose `first` piece is already there.
    pub(super) fn new(
        heading: &Heading,
        first: (usize, Piece),
        answers: Answers,
        progress: Progress,
        setting: Setting,
    ) -> Self {
        let stop = setting.stop;
        Self {
            answers,
            first: VecDeque::from([first]),
            writer: Writer::new(heading, setting.include_usage),
            progress,
            totals: Totals::default(),
            n: heading.n,
            backend: setting.backend,
            include_usage: setting.include_usage,
            quiet: Box::pin(sleep(setting.keep_alive)),
            keep_alive: setting.keep_alive,
            written: Instant::now(),
            ending: Box::pin(async move { stop.reached(Phase::Ending).await }),
            over: false,
            keeper: setting.keeper,
        }
    }

    /// Whether everything was written.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// The next bytes to write; `None` at the end.
    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.over {
            return Poll::Ready(None);
        }
        while !self.over && self.writer.out.len() < WRITE_BYTES {
            match self.poll_piece(cx) {
                Poll::Ready(Some((index, piece))) => self.take(index, piece),
                Poll::Ready(None) => self.close(),
                Poll::Pending => break,
            }
        }
        if self.writer.out.is_empty() && self.ending.as_mut().poll(cx).is_ready() {
            self.fail(&stopping());
        }
        let mut silent = false;
        if self.writer.out.is_empty() && self.poll_quiet(cx).is_ready() {
            self.writer.comment("still here");
            silent = true;
        }
        if self.writer.out.is_empty() {
            return Poll::Pending;
        }
        self.written = Instant::now();
        let bytes = self.writer.out.split().freeze();
        // A sign of life is said while nothing else is.
        if !silent {
            self.keep(&bytes);
        }
        Poll::Ready(Some(bytes))
    }

    /// Collects what leaves, to keep it once it came to a good end.
    fn keep(&mut self, bytes: &Bytes) {
        if let Some(keeper) = &mut self.keeper {
            keeper.take(bytes);
        }
        if self.over
            && let Some(keeper) = self.keeper.take()
        {
            keeper.keep("text/event-stream");
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Piece)>> {
        match self.first.pop_front() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.answers).poll_next(cx),
        }
    }

    /// Ready when nothing was written for as long as the keep-alive.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.quiet.as_mut().poll(cx).is_ready() {
            // The timer is not reset with every write, only when it fires.
            let due = self.written + self.keep_alive;
            let now = Instant::now();
            let quiet = due <= now;
            self.quiet.as_mut().reset(if quiet { now + self.keep_alive } else { due });
            if quiet {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn take(&mut self, index: usize, piece: Piece) {
        match piece {
            Piece::Started { prompt_tokens, .. } => {
                self.progress.started(prompt_tokens);
                self.writer.begin(index);
            }
            Piece::Token(token) => {
                self.progress.token();
                self.writer.text(index, &token.text, token.logprob.as_ref());
            }
            Piece::Moved { from, to, why } => {
                let (from, to) = (self.backend.name_of(&from), self.backend.name_of(&to));
                self.writer.comment(&format!("moved from {from} to {to}: {why}"));
                // That is news for nobody later.
                self.keeper = None;
            }
            Piece::Finished { reason, text, usage, .. } => {
                self.totals.add(index, self.n, &usage);
                self.writer.text(index, &text, None);
                self.writer.end(index, reason_text(reason));
            }
            Piece::Failed(refusal) => self.fail(&Problem::from(refusal)),
        }
    }

    fn close(&mut self) {
        if self.include_usage {
            self.writer.usage(&self.totals);
        }
        self.writer.done();
        self.over = true;
    }

    fn fail(&mut self, problem: &Problem) {
        self.progress.failed(problem.code);
        self.writer.error(problem);
        self.over = true;
        self.keeper = None;
    }
}

fn stopping() -> Problem {
    let message = "the node stopped before the answer was complete";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::Cancelled.as_str(), message)
}

/// Writes events; what they all repeat is made once.
struct Writer {
    out: BytesMut,
    /// From `data: ` to the opening of `choices`.
    head: Vec<u8>,
    /// From the closing of `choices` to the end of the event.
    tail: &'static [u8],
    shape: Shape,
    /// What each answer has written: whether it began, and its offset in characters.
    answers: Vec<Begun>,
}

#[derive(Clone, Copy, Default)]
struct Begun {
    role: bool,
    offset: usize,
}

impl Writer {
    fn new(heading: &Heading, include_usage: bool) -> Self {
        let object = match heading.shape {
            Shape::Chat => "chat.completion.chunk",
            Shape::Text => "text_completion",
        };
        let mut head = b"data: {\"id\":".to_vec();
        put_json(&mut head, &heading.id);
        head.extend_from_slice(b",\"object\":");
        put_json(&mut head, &object);
        head.extend_from_slice(b",\"created\":");
        put_json(&mut head, &heading.created);
        head.extend_from_slice(b",\"model\":");
        put_json(&mut head, &heading.model);
        head.extend_from_slice(b",\"system_fingerprint\":");
        put_json(&mut head, &heading.fingerprint);
        if let Some(tier) = heading.tier {
            head.extend_from_slice(b",\"service_tier\":");
            put_json(&mut head, &tier);
        }
        head.extend_from_slice(b",\"choices\":[");
        // With usage asked for, every event before the last has it as null.
        let tail: &[u8] = if include_usage { b"],\"usage\":null}\n\n" } else { b"]}\n\n" };
        let answers = Vec::new();
        Self { out: BytesMut::new(), head, tail, shape: heading.shape, answers }
    }

    /// An answer began: a chat says who speaks.
    fn begin(&mut self, index: usize) {
        if self.answers.len() <= index {
            self.answers.resize(index + 1, Begun::default());
        }
        if self.shape == Shape::Chat && !self.answers[index].role {
            self.answers[index].role = true;
            self.chat(
                index,
                b"{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}",
                None,
                None,
            );
        }
    }

    /// More of an answer's text.
    fn text(&mut self, index: usize, text: &str, logprob: Option<&TokenLogProb>) {
        if text.is_empty() && logprob.is_none() {
            return;
        }
        self.begin(index);
        match self.shape {
            Shape::Chat => {
                let logprobs = logprob.map(|token| ChatLogProbs::new(std::slice::from_ref(token)));
                self.open(index);
                self.raw(b",\"delta\":{\"content\":");
                self.json(&text);
                self.raw(b"}");
                self.shut(logprobs.as_ref(), None);
            }
            Shape::Text => self.plain(index, text, logprob, None),
        }
    }

    /// An answer's end.
    fn end(&mut self, index: usize, reason: &'static str) {
        self.begin(index);
        match self.shape {
            Shape::Chat => self.chat(index, b"{}", None, Some(reason)),
            Shape::Text => self.plain(index, "", None, Some(reason)),
        }
    }

    fn chat(
        &mut self,
        index: usize,
        delta: &[u8],
        logprobs: Option<&ChatLogProbs>,
        reason: Option<&'static str>,
    ) {
        self.open(index);
        self.raw(b",\"delta\":");
        self.raw(delta);
        self.shut(logprobs, reason);
    }

    fn plain(
        &mut self,
        index: usize,
        text: &str,
        logprob: Option<&TokenLogProb>,
        reason: Option<&'static str>,
    ) {
        let logprobs = logprob.map(|token| {
            let begun = &mut self.answers[index];
            let (shape, end) = TextLogProbs::new(std::slice::from_ref(token), begun.offset);
            begun.offset = end;
            shape
        });
        self.open(index);
        self.raw(b",\"text\":");
        self.json(&text);
        self.shut(logprobs.as_ref(), reason);
    }

    fn open(&mut self, index: usize) {
        self.out.extend_from_slice(&self.head);
        self.raw(b"{\"index\":");
        self.json(&index);
    }

    fn shut(&mut self, logprobs: Option<&impl Serialize>, reason: Option<&'static str>) {
        self.raw(b",\"logprobs\":");
        self.json(&logprobs);
        self.raw(b",\"finish_reason\":");
        self.json(&reason);
        self.raw(b"}");
        self.raw(self.tail);
    }

    fn usage(&mut self, totals: &Totals) {
        self.out.extend_from_slice(&self.head);
        self.raw(b"],\"usage\":");
        self.json(&totals.object());
        self.raw(b"}\n\n");
    }

    fn done(&mut self) {
        self.raw(b"data: [DONE]\n\n");
    }

    fn error(&mut self, problem: &Problem) {
        self.raw(b"data: ");
        self.json(&problem.object());
        self.raw(b"\n\n");
    }

    /// A line clients ignore. A line break in it would end the comment, so there is none.
    fn comment(&mut self, text: &str) {
        self.raw(b": ");
        for line in text.split(['\r', '\n']) {
            self.raw(line.as_bytes());
        }
        self.raw(b"\n\n");
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn json(&mut self, value: &impl Serialize) {
        put_json(&mut (&mut self.out).writer(), value);
    }
}

fn put_json(out: &mut impl Write, value: &impl Serialize) {
    // Strings, numbers and plain structs written into memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
