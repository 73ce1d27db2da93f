//! Answers whose targets may lie outside the mesh, in the dialect of the surface.
//!
//! Owns the reply to such a request: its status, its head, the stream as events come or the whole
//! answer. The request is understood by the surface's dialect, answered by the backend, and written
//! by the dialect again. Who may ask was decided before.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::{BoxStream, StreamExt as _};
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use selvedge_dialect::chat::{ChatRequest, Event, Failure, Gathered, Usage};
use selvedge_dialect::exchange::{Reply, StreamWriter};
use selvedge_net::clock;
use selvedge_runtime::ChatCall;

use super::body::{Answer, whole};
use super::errors::Problem;
use super::metrics::Progress;
use super::router::UNBUFFERED;
use super::speech::Speech;
use super::stop::{Phase, Stop};

/// What leaves in one write at most, but for one event: a socket's buffer.
const WRITE_BYTES: usize = 16 << 10;

/// What an answer needs besides its events.
pub(super) struct Setting {
    pub(super) speech: Speech,
    pub(super) keep_alive: Duration,
    pub(super) stop: Stop,
    pub(super) progress: Progress,
}

/// The reply to a chat: its events as they come, or all of them at once.
pub(super) async fn reply(
    call: ChatCall,
    mut events: BoxStream<'static, Event>,
    setting: Setting,
) -> Result<Response<Answer>, Problem> {
    let request = &call.request;
    let reply = Reply { created: clock::wall().as_secs(), include_usage: request.include_usage };
    let id = format!("{}{:032x}", setting.speech.id_prefix, call.id.0);
    if !request.stream {
        return gathered(events, setting, reply, (&id, request)).await;
    }
    // A refusal before the first piece has a status of its own.
    let first = match events.next().await {
        Some(Event::Failed(failure)) => return Err(problem(failure)),
        Some(first) => named(first, &id, request),
        None => return Err(problem(broken_off().into())),
    };
    let writer = (setting.speech.writer)(reply);
    let content_type = writer.content_type();
    let talk = Talk {
        events,
        first: Some(first),
        writer,
        setting,
        id: id.clone(),
        request: call.request.clone(),
        over: false,
    };
    let mut response = whole(StatusCode::OK, content_type, "");
    // Some reverse proxies hold streams back unless told not to.
    response.headers_mut().insert(UNBUFFERED, HeaderValue::from_static("no"));
    let lines = futures::stream::unfold(talk, |mut talk| async move {
        let bytes = talk.next().await?;
        Some((bytes, talk))
    });
    *response.body_mut() = Answer::Lines(lines.boxed());
    Ok(response)
}

/// The same event with the id and the model's name that this gateway gave.
fn named(event: Event, id: &str, request: &ChatRequest) -> Event {
    match event {
        Event::Head(mut head) => {
            id.clone_into(&mut head.id);
            request.model.clone_into(&mut head.model);
            Event::Head(head)
        }
        other => other,
    }
}

async fn gathered(
    mut events: BoxStream<'static, Event>,
    mut setting: Setting,
    reply: Reply,
    (id, request): (&str, &ChatRequest),
) -> Result<Response<Answer>, Problem> {
    let mut gathered = Gathered::default();
    while let Some(event) = events.next().await {
        progressed(&mut setting.progress, &event);
        gathered.take(named(event, id, request)).map_err(|failure| problem(*failure))?;
        if gathered.complete {
            let body = (setting.speech.whole)(&gathered, reply);
            return Ok(whole(StatusCode::OK, "application/json", body));
        }
    }
    Err(problem(broken_off().into()))
}

/// A stream that is being written.
struct Talk {
    events: BoxStream<'static, Event>,
    first: Option<Event>,
    writer: Box<dyn StreamWriter>,
    setting: Setting,
    id: String,
    request: ChatRequest,
    over: bool,
}

impl Talk {
    /// The next bytes: all that is ready, without waiting for company; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.is_empty() {
            if self.over {
                return None;
            }
            let event = match self.first.take() {
                Some(first) => Some(first),
                None => tokio::select! {
                    biased;
                    event = self.events.next() => event,
                    () = self.setting.stop.reached(Phase::Ending) => {
                        Some(Event::Failed(stopping().into()))
                    }
                    () = tokio::time::sleep(self.setting.keep_alive) => {
                        self.writer.keep_alive(&mut out);
                        continue;
                    }
                },
            };
            self.take(event, &mut out);
            while !self.over
                && out.len() < WRITE_BYTES
                && let Some(ready) = self.events.next().now_or_never()
            {
                self.take(ready, &mut out);
            }
        }
        Some(Bytes::from(out))
    }

    fn take(&mut self, event: Option<Event>, out: &mut Vec<u8>) {
        let event = event.unwrap_or_else(|| Event::Failed(broken_off().into()));
        self.over = matches!(event, Event::Finished { .. } | Event::Failed(_));
        progressed(&mut self.setting.progress, &event);
        if let Event::Failed(failure) = &event {
            self.setting.progress.failed(failure.refusal.code.as_str());
        }
        self.writer.write(&named(event, &self.id, &self.request), out);
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
