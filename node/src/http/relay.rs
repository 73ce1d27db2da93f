//! Answers whose targets may lie outside the mesh, in the dialect of the surface.
//!
//! Owns the reply to such a request: its status, its head, the stream as events come or the whole
//! answer. What a provider of the surface's own dialect says passes as it came, all else is written
//! by the dialect. Who may ask was decided before.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt as _};
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use selvedge_base::{Blame, Code, Refusal, RequestId, Retry, Stage};
use selvedge_dialect::chat::{Event, Failure, Finish, Gathered, Usage};
use selvedge_dialect::exchange::{Reply, StreamWriter};
use selvedge_net::clock;
use selvedge_runtime::{Keeper, Said};
use selvedge_upstream::Aside;
use tokio::time::{Instant, Sleep, sleep};

use super::body::{Answer, whole};
use super::errors::Problem;
use super::metrics::Progress;
use super::router::UNBUFFERED;
use super::speech::Speech;
use super::stop::{Phase, Stop};

/// What leaves in one write at most, but for one event: a socket's buffer.
const WRITE_BYTES: usize = 16 << 10;

/// What an answer needs besides what is said of it.
pub(super) struct Setting {
    /// Names the answer, where it is this gateway's own words.
    pub(super) id: RequestId,
    /// The model's name as it was asked for.
    pub(super) model: String,
    /// Whether the client asked for usage at the end of a stream.
    pub(super) include_usage: bool,
    pub(super) speech: Speech,
    pub(super) keep_alive: Duration,
    pub(super) stop: Stop,
    pub(super) progress: Progress,
    /// Takes the answer for the cache, if it may be kept.
    pub(super) keeper: Option<Keeper>,
}

impl Setting {
    fn reply(&self) -> Reply {
        Reply { created: clock::wall().as_secs(), include_usage: self.include_usage }
    }

    /// A whole answer, kept if it may be.
    fn all_of(&mut self, body: Bytes) -> Response<Answer> {
        if let Some(keeper) = self.keeper.take() {
            keeper.keep_whole(body.clone(), "application/json");
        }
        whole(StatusCode::OK, "application/json", body)
    }

    /// An answer that a budget ended is not the one that an equal request is to get.
    fn doubt(&mut self, event: &Event) {
        if matches!(event, Event::Ended { reason: Finish::Quota, .. }) {
            self.keeper = None;
        }
    }

    /// The same event with the id and the model's name that this gateway gave.
    fn named(&self, event: Event) -> Event {
        match event {
            Event::Head(mut head) => {
                head.id = format!("{}{:032x}", self.speech.id_prefix, self.id.0);
                self.model.clone_into(&mut head.model);
                Event::Head(head)
            }
            other => other,
        }
    }
}

/// The reply to a chat, its pieces as they come.
pub(super) async fn stream(
    mut said: BoxStream<'static, Said>,
    setting: Setting,
) -> Result<Response<Answer>, Problem> {
    // A refusal before the first piece has a status of its own.
    let first = match said.next().await {
        Some(Said::Event(Event::Failed(failure))) => return Err(problem(failure)),
        Some(first) => first,
        None => return Err(problem(broken_off().into())),
    };
    let writer = (setting.speech.writer)(setting.reply());
    let content_type = writer.content_type();
    let stop = setting.stop.clone();
    let talk = Talk {
        said: Aside::new(said),
        first: Some(first),
        writer,
        over: false,
        good: false,
        written: Instant::now(),
        alarm: Aside::new(Box::pin(sleep(setting.keep_alive))),
        stopped: Aside::new(Box::pin(async move { stop.reached(Phase::Ending).await })),
        setting,
    };
    let mut response = whole(StatusCode::OK, content_type, "");
    // Some reverse proxies hold streams back unless told not to.
    response.headers_mut().insert(UNBUFFERED, HeaderValue::from_static("no"));
    *response.body_mut() = Answer::Lines(talk.boxed());
    Ok(response)
}

/// The reply to a chat, all of it at once.
pub(super) async fn whole_answer(
    mut said: BoxStream<'static, Said>,
    mut setting: Setting,
) -> Result<Response<Answer>, Problem> {
    let mut gathered = Gathered::default();
    while let Some(said) = said.next().await {
        let event = match said {
            Said::Event(event) => event,
            // Only a stream is gone on with.
            Said::Taken { .. } => continue,
            Said::Bytes { bytes, pieces, usage, .. } => {
                passed(&mut setting.progress, pieces.max(1), usage);
                return Ok(setting.all_of(bytes));
            }
        };
        progressed(&mut setting.progress, &event);
        setting.doubt(&event);
        gathered.take(setting.named(event)).map_err(|failure| problem(*failure))?;
        if gathered.complete {
            let body = (setting.speech.whole)(&gathered, setting.reply());
            return Ok(setting.all_of(Bytes::from(body)));
        }
    }
    Err(problem(broken_off().into()))
}

/// A stream that is being written.
struct Talk {
    /// Whoever writes asks twice for each event.
    said: Aside<BoxStream<'static, Said>>,
    first: Option<Said>,
    writer: Box<dyn StreamWriter>,
    setting: Setting,
    over: bool,
    /// Whether the end that came is a good one.
    good: bool,
    /// When something was written last.
    written: Instant,
    /// Rings when it may be time for a sign of life; set anew when it rang too early, not for every
    /// piece.
    alarm: Aside<Pin<Box<Sleep>>>,
    stopped: Aside<BoxFuture<'static, ()>>,
}

impl Stream for Talk {
    type Item = Bytes;

    /// The next bytes: what is ready, without waiting for company. Bytes that pass are not
    /// gathered: whoever writes takes all that is ready into one write.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = Out::default();
        let mut silent = false;
        while out.is_empty() {
            if self.over {
                return Poll::Ready(None);
            }
            let Poll::Ready(said) = self.poll_said(cx) else {
                ready!(Pin::new(&mut self.alarm).poll(cx));
                silent = self.end_silence(&mut out);
                continue;
            };
            self.hear(said, &mut out);
            while !self.over
                && !out.passes()
                && out.len() < WRITE_BYTES
                && let Poll::Ready(ready) = self.said.look(cx, |said, cx| said.poll_next_unpin(cx))
            {
                self.hear(ready, &mut out);
            }
        }
        self.written = Instant::now();
        let bytes = out.bytes();
        // A sign of life is said while nothing else is.
        if !silent {
            self.keep(&bytes);
        }
        Poll::Ready(Some(bytes))
    }
}

impl Talk {
    /// What is said next; that the node stops is said like a failure of the answer.
    fn poll_said(&mut self, cx: &mut Context<'_>) -> Poll<Option<Said>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if let Poll::Ready(said) = self.said.look(cx, |said, cx| said.poll_next_unpin(cx)) {
            return Poll::Ready(said);
        }
        let stopped = || Some(Said::Event(Event::Failed(stopping().into())));
        Pin::new(&mut self.stopped).poll(cx).map(|()| stopped())
    }

    /// The alarm rang: says a sign of life, if nothing was written for long enough; whether it did.
    fn end_silence(&mut self, out: &mut Out) -> bool {
        let (now, due) = (Instant::now(), self.written + self.setting.keep_alive);
        let silent = now >= due;
        if silent {
            self.writer.keep_alive(out.own());
        }
        let next = if silent { now + self.setting.keep_alive } else { due };
        self.alarm.change().as_mut().reset(next);
        silent
    }

    /// Collects what leaves, to keep it once it came to a good end.
    fn keep(&mut self, bytes: &Bytes) {
        if let Some(keeper) = &mut self.setting.keeper {
            keeper.take(bytes);
        }
        if self.over
            && let Some(keeper) = self.setting.keeper.take()
            && self.good
        {
            keeper.keep(self.writer.content_type());
        }
    }

    fn hear(&mut self, said: Option<Said>, out: &mut Out) {
        let said = said.unwrap_or_else(|| Said::Event(Event::Failed(broken_off().into())));
        self.over = said.is_last();
        self.good = self.over && !matches!(said, Said::Event(Event::Failed(_)));
        match said {
            Said::Event(event) => {
                progressed(&mut self.setting.progress, &event);
                self.setting.doubt(&event);
                if let Event::Failed(failure) = &event {
                    self.setting.progress.failed(failure.refusal.code.as_str());
                }
                self.writer.write(&self.setting.named(event), out.own());
            }
            Said::Bytes { bytes, pieces, usage, .. } => {
                passed(&mut self.setting.progress, pieces, usage);
                out.pass(bytes);
            }
            // The client has it: the writer is brought to where it would be had it written it.
            Said::Taken { head, text } => {
                let mut had = Vec::new();
                self.writer.write(&Event::Head(head), &mut had);
                if let Some(text) = text {
                    self.writer.write(&Event::Text { choice: 0, text }, &mut had);
                }
            }
        }
    }
}

/// What leaves in one write: bytes that pass alone are not copied.
#[derive(Default)]
struct Out {
    passed: Option<Bytes>,
    own: Vec<u8>,
}

impl Out {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is bytes that pass.
    const fn passes(&self) -> bool {
        self.passed.is_some()
    }

    fn len(&self) -> usize {
        self.own.len() + self.passed.as_ref().map_or(0, Bytes::len)
    }

    /// Where own words are written, after what passed before.
    fn own(&mut self) -> &mut Vec<u8> {
        if let Some(passed) = self.passed.take() {
            self.own.extend_from_slice(&passed);
        }
        &mut self.own
    }

    fn pass(&mut self, bytes: Bytes) {
        if self.is_empty() {
            self.passed = Some(bytes);
        } else {
            self.own().extend_from_slice(&bytes);
        }
    }

    fn bytes(self) -> Bytes {
        self.passed.unwrap_or_else(|| Bytes::from(self.own))
    }
}

/// Counts bytes that pass.
fn passed(progress: &mut Progress, pieces: u64, usage: Option<Usage>) {
    for _ in 0..pieces {
        progress.token();
    }
    if let Some(usage) = usage {
        progress.took(usage.prompt_tokens, usage.completion_tokens);
    }
}

/// Counts what an event says of the answer's progress.
fn progressed(progress: &mut Progress, event: &Event) {
    match event {
        Event::Text { .. } | Event::Thinking { .. } | Event::ToolBegin { .. } => progress.token(),
        Event::Finished { usage: Some(Usage { prompt_tokens, completion_tokens, .. }), .. } => {
            progress.took(*prompt_tokens, *completion_tokens);
        }
        _ => {}
    }
}

/// A failure before anything was written.
fn problem(failure: Failure) -> Problem {
    Problem::from(failure.refusal)
}

fn broken_off() -> Refusal {
    let message = "the answer broke off without a reason; this is a fault of the node";
    Refusal::new(Stage::Execute, Blame::Us, Retry::Elsewhere, Code::Internal, message)
}

fn stopping() -> Refusal {
    let message = "the node stopped before the answer was complete";
    Refusal::new(Stage::Execute, Blame::Us, Retry::Elsewhere, Code::Cancelled, message)
}
