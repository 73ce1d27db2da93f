//! What is told of requests to whoever traces them: which spans there were, and how each ended.
//!
//! Owns the context of a request in a trace, what is noted on the way, and the bounded queue to
//! whoever sends it on ([`Tracer`]). A request that nobody traces has no [`Trace`]; one whose
//! client traces it while this node tells nothing has a context alone, which is passed on. Does
//! not own the form in which it is told, nor sending it: `node` does. No text of a prompt or of an
//! answer is ever noted.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::{Code, Dice, Mono, Now, Refusal, Sampler, TraceContext};
use selvedge_contract::FinishReason;
use selvedge_core::RequestRecord;
use selvedge_core::journey::{Leg, Target};
use selvedge_core::record::{Attempt, Outcome};
use selvedge_core::upstream::{ProviderKind, ProviderSpec};
use selvedge_dialect::chat::{Finish, Usage};
use selvedge_net::clock;
use selvedge_proto::choice::Choice;
use tokio::sync::mpsc;

use crate::counters::Count;

/// Requests that wait to be sent on: a busy second's worth. How large one is, is bounded by the
/// constants below: a request of one turn takes about a kilobyte.
const QUEUE: usize = 4_096;
/// Bytes of any name in what is told: the longest names of models are half as long, and most names
/// in it came from a client or a provider, who may say anything.
const NAME_BYTES: usize = 256;
/// Turns noted of one request: all targets of a route, and several nodes for the answers of one.
const MAX_TURNS: usize = 64;
/// Answers to one request whose records are told.
const MAX_RECORDS: usize = 64;

/// Tells of requests: which of them, and to whom.
pub struct Tracer {
    sampler: Sampler,
    queue: mpsc::Sender<Box<Told>>,
    dice: Mutex<Dice>,
    /// Requests nobody was told of, since the queue was full.
    pub dropped: Count,
    /// Requests whose telling no collector took.
    pub lost: Count,
    /// Requests a collector was told of.
    pub sent: Count,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("sampler", &self.sampler).finish_non_exhaustive()
    }
}

impl Tracer {
    /// A tracer, and where what it tells arrives. Names of traces and spans come from `dice`.
    pub fn new(sampler: Sampler, dice: Dice) -> (Arc<Self>, mpsc::Receiver<Box<Told>>) {
        let (queue, told) = mpsc::channel(QUEUE);
        let tracer = Self {
            sampler,
            queue,
            dice: Mutex::new(dice),
            dropped: Count::default(),
            lost: Count::default(),
            sent: Count::default(),
        };
        (Arc::new(tracer), told)
    }

    /// A request came, perhaps with its caller's context.
    pub(crate) fn begin(self: &Arc<Self>, caller: Option<&TraceContext>, came: Came) -> Arc<Trace> {
        let span = self.draw();
        let trace = caller.map_or_else(|| self.draw_trace(), |caller| caller.trace);
        let sampled = self.sampler.samples(trace, caller);
        let context = match caller {
            Some(caller) => caller.child(span, sampled),
            None => TraceContext::root(trace, span, sampled),
        };
        let mut came = came;
        if let Came::Peer { origin } = &mut came {
            cut(origin);
        }
        let story = Story { came, status: None, error: None, records: vec![], turns: vec![] };
        let telling = Telling {
            tracer: Arc::clone(self),
            parent: caller.map(|caller| caller.span),
            began: clock::now(),
            story: Mutex::new(story),
        };
        Arc::new(Trace { context, telling: Some(telling) })
    }

    fn draw_trace(&self) -> u128 {
        (u128::from(self.draw()) << 64) | u128::from(self.draw())
    }

    fn draw(&self) -> u64 {
        self.dice.lock().next()
    }
}

/// How a request came to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// From a client, by POST.
    Client {
        /// The endpoint's path, with names in braces for what varies.
        route: &'static str,
        /// What is asked for, as the conventions of GenAI call it.
        operation: &'static str,
    },
    /// From a peer, which took it from its client.
    Peer {
        /// The peer's name.
        origin: String,
    },
}

/// Who was asked for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// This node's own engine.
    Here,
    /// Another node of the mesh.
    Peer {
        /// Its name.
        node: String,
    },
    /// A provider.
    Provider {
        /// Its name in the configuration.
        name: String,
        /// Its kind.
        kind: ProviderKind,
        /// Its host.
        host: String,
        /// And port.
        port: u16,
    },
}

/// One turn of somebody who was asked for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Names its span.
    pub span: u64,
    /// Who.
    pub whom: Whom,
    /// For what, as the conventions of GenAI call it.
    pub operation: &'static str,
    /// Which model, as it was asked for there.
    pub model: String,
    /// Whether the answer was to come piece by piece, where that is known.
    pub streams: Option<bool>,
    /// When.
    pub began: Mono,
    /// When it was over.
    pub ended: Mono,
    /// When the first piece of an answer came.
    pub first: Option<Mono>,
    /// The model as whoever answers names itself.
    pub answered_by: Option<String>,
    /// The answer's id there.
    pub answer_id: Option<String>,
    /// What it took, as far as anybody said.
    pub usage: Option<Usage>,
    /// Why each answer ended.
    pub finish: Vec<&'static str>,
    /// Why there is none, or why it broke off.
    pub error: Option<&'static str>,
    /// Times a provider was asked, retries included.
    pub attempts: u32,
}

impl Turn {
    /// Cuts what others have named to its bound.
    fn cut(&mut self) {
        match &mut self.whom {
            Whom::Here => {}
            Whom::Peer { node } => cut(node),
            Whom::Provider { name, host, .. } => {
                cut(name);
                cut(host);
            }
        }
        cut(&mut self.model);
        self.answered_by.iter_mut().chain(&mut self.answer_id).for_each(cut);
        self.finish.truncate(MAX_RECORDS);
    }
}

/// One request, over.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its trace and the span of this node's work on it.
    pub context: TraceContext,
    /// The span of whoever asked.
    pub parent: Option<u64>,
    /// When it came.
    pub began: Now,
    /// When the last of its work was over.
    pub ended: Mono,
    /// How it came, and what became of it.
    pub story: Story,
}

/// What was noted of a request.
#[derive(Clone, Debug)]
pub struct Story {
    /// How it came.
    pub came: Came,
    /// The status it was answered with; none when its client left before there was one.
    pub status: Option<u16>,
    /// The code of the error it was answered with.
    pub error: Option<&'static str>,
    /// The records of its answers, without reasons, candidates and messages.
    pub records: Vec<RequestRecord>,
    /// Everybody who was asked, in the order in which they were done.
    pub turns: Vec<Turn>,
}

/// A request's place in a trace. Told once, when the last who works on it lets go.
pub struct Trace {
    context: TraceContext,
    telling: Option<Telling>,
}

struct Telling {
    tracer: Arc<Tracer>,
    parent: Option<u64>,
    began: Now,
    story: Mutex<Story>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("context", &self.context).finish_non_exhaustive()
    }
}

impl Trace {
    /// A context that is passed on as it came.
    pub(crate) fn passing(caller: TraceContext) -> Arc<Self> {
        Arc::new(Self { context: caller, telling: None })
    }

    /// The request was answered with this status, and this error's code.
    pub fn answered(&self, status: u16, error: Option<&'static str>) {
        if let Some(telling) = &self.telling {
            let mut story = telling.story.lock();
            (story.status, story.error) = (Some(status), error);
        }
    }

    /// One of the request's records, in its last form.
    pub(crate) fn recorded(&self, record: &RequestRecord) {
        let Some(telling) = &self.telling else { return };
        let records = &mut telling.story.lock().records;
        if let Some(known) = records.iter_mut().find(|known| known.id == record.id) {
            *known = brief(record);
        } else if records.len() < MAX_RECORDS {
            records.push(brief(record));
        }
    }

    /// Somebody is asked for an answer of a model. Ends when dropped.
    pub(crate) fn ask(
        trace: Option<&Arc<Self>>,
        model: &str,
        whom: impl FnOnce() -> Whom,
    ) -> Asking {
        let Some(trace) = trace else { return Asking::default() };
        let turn = trace.telling.as_ref().map(|telling| {
            let operation = match &telling.story.lock().came {
                Came::Client { operation, .. } => operation,
                Came::Peer { .. } => CHAT,
            };
            let began = clock::mono();
            Box::new(Turn {
                span: telling.tracer.draw().max(1),
                whom: whom(),
                operation,
                model: model.to_owned(),
                streams: None,
                began,
                ended: began,
                first: None,
                answered_by: None,
                answer_id: None,
                usage: None,
                finish: Vec::new(),
                error: Some(Code::Cancelled.as_str()),
                attempts: 0,
            })
        });
        Asking { trace: Some(Arc::clone(trace)), turn }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let Some(telling) = self.telling.take() else { return };
        let told = Told {
            context: self.context.clone(),
            parent: telling.parent,
            began: telling.began,
            ended: clock::mono(),
            story: telling.story.into_inner(),
        };
        // A collector that is slow or gone costs tellings, never a request's time.
        if telling.tracer.queue.try_send(Box::new(told)).is_err() {
            telling.tracer.dropped.bump();
        }
    }
}

/// Chats, as the conventions of GenAI call them.
pub const CHAT: &str = "chat";
/// Continuations of a text.
pub const COMPLETION: &str = "text_completion";
/// Vectors.
pub const EMBEDDINGS: &str = "embeddings";
/// What is said in sound, for which the conventions of GenAI have no word.
pub const TRANSCRIPTION: &str = "transcription";
/// Classes of rows of numbers, for which the conventions of GenAI have no word.
pub const CLASSES: &str = "classify";
/// What a model that is asked with tensors is asked for.
pub const INFERENCE: &str = "infer";

/// Somebody is being asked; noted when this is dropped, as cancelled unless it ended otherwise.
/// Does nothing for a request that is not told of.
#[derive(Default)]
pub(crate) struct Asking {
    trace: Option<Arc<Trace>>,
    turn: Option<Box<Turn>>,
}

impl Asking {
    /// What whoever is asked may be told of the trace.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        let context = &self.trace.as_ref()?.context;
        Some(match &self.turn {
            Some(turn) => context.child(turn.span, context.sampled()),
            None => context.clone(),
        })
    }

    /// The same as headers of HTTP.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let Some(context) = self.context() else { return Vec::new() };
        let mut headers = vec![("traceparent", context.parent_text())];
        if !context.state_text().is_empty() {
            headers.push(("tracestate", context.state_text().to_owned()));
        }
        headers
    }

    /// The first piece of an answer came, unless it had come before.
    pub(crate) fn came(&mut self) {
        if let Some(turn) = &mut self.turn
            && turn.first.is_none()
        {
            turn.first = Some(clock::mono());
        }
    }

    /// Notes something, if there is anybody to tell.
    pub(crate) fn note(&mut self, note: impl FnOnce(&mut Turn)) {
        if let Some(turn) = &mut self.turn {
            note(turn);
        }
    }

    /// It ended with an answer.
    pub(crate) fn finished(mut self, usage: Option<Usage>) {
        self.note(|turn| {
            turn.error = None;
            turn.usage = usage.or(turn.usage);
        });
    }

    /// It ended without one, or broke off.
    pub(crate) fn failed(mut self, code: &'static str) {
        self.note(|turn| turn.error = Some(code));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let (Some(trace), Some(mut turn)) = (self.trace.take(), self.turn.take()) else { return };
        let Some(telling) = &trace.telling else { return };
        turn.ended = clock::mono();
        turn.cut();
        let turns = &mut telling.story.lock().turns;
        if turns.len() < MAX_TURNS {
            turns.push(*turn);
        }
    }
}

/// What is told of a record: no more of it than that waits in the queue.
fn brief(record: &RequestRecord) -> RequestRecord {
    let mut brief = RequestRecord {
        model: record.model.clone(),
        downgraded_to: record.downgraded_to.clone(),
        tenant: record.tenant.clone(),
        legs: Vec::new(),
        attempts: Vec::new(),
        outcome: match &record.outcome {
            // Messages are not told: they may repeat a prompt.
            Outcome::Failed(refusal) => {
                let Refusal { stage, blame, retry, code, .. } = *refusal;
                Outcome::Failed(Refusal::new(stage, blame, retry, code, ""))
            }
            other => other.clone(),
        },
        ..*record
    };
    [&mut brief.model, &mut brief.tenant].into_iter().chain(&mut brief.downgraded_to).for_each(cut);
    let asked = record.legs.iter().filter(|leg| leg.asked).take(MAX_TURNS);
    brief.legs.extend(asked.map(|leg| {
        let mut target = leg.target.clone();
        match &mut target {
            Target::Mesh { model } => cut(model),
            Target::Provider { provider, model } => {
                cut(provider);
                cut(model);
            }
        }
        let (took, judged) = (leg.took, leg.judged);
        Leg { asked: true, took, judged, ..Leg::unasked(target, String::new(), None) }
    }));
    let attempts = record.attempts.iter().take(MAX_TURNS);
    brief.attempts.extend(attempts.map(|attempt| Attempt {
        node: attempt.node,
        choice: Choice::default(),
        from_index: attempt.from_index,
        ended: None,
    }));
    brief
}

/// Cuts a name to its bound, between two characters, and gives back what it held beyond that.
fn cut(name: &mut String) {
    name.truncate(name.floor_char_boundary(NAME_BYTES));
    name.shrink_to_fit();
}

/// A provider as one who is asked.
pub(crate) fn whom(spec: &ProviderSpec) -> Whom {
    Whom::Provider {
        name: spec.name.clone(),
        kind: spec.kind,
        host: spec.base.host().to_owned(),
        port: spec.base.port(),
    }
}

/// Why an answer of the mesh ended, as the conventions call it.
pub(crate) const fn finish_of(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Quota => "quota",
    }
}

/// Why an answer of a provider ended.
pub(crate) const fn finish_at(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopText => "stop",
        Finish::Length | Finish::Context => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::Filtered => "content_filter",
        Finish::Refused => "refusal",
        Finish::Paused => "pause",
        Finish::Quota => "quota",
        Finish::Other(_) => "other",
    }
}

/// What an answer of the mesh took.
pub(crate) fn usage_of(usage: &selvedge_contract::Usage) -> Usage {
    Usage {
        prompt_tokens: u64::from(usage.prompt_tokens),
        cached_tokens: u64::from(usage.cached_tokens),
        completion_tokens: u64::from(usage.completion_tokens),
        ..Usage::default()
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
