//! A scripted node for the surface's tests: what stands behind the surface is not under test here.
//!
//! Owns the script and notes what it was asked; compiled for tests only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use selvedge_base::{Code, Micros, ModelDigest, NodeId, Refusal, RequestId, Stage, TraceContext};
use selvedge_contract::carried::Carried;
use selvedge_contract::residence::Counts;
use selvedge_contract::{
    Datatype, FinishReason, Segment, Signature, Tensor, TensorSpec, TokenEvent, TokenLogProb,
    Transcript, Usage,
};
use selvedge_core::Piece;
use selvedge_dialect::chat::{self as dialect, Event, Failure};
use selvedge_dialect::embed::Embeddings;
use selvedge_dialect::inference::Makes;
use selvedge_dialect::inference::rows::{Card, Found};
use selvedge_engine::MemoryUse;
use selvedge_proto::policy::KeyId;
use selvedge_runtime::{
    Cached, Call, Came, ChatCall, ClassCall, EmbedCall, Question, Said, Sound, SpeechCall,
    TensorCall, Trace, Transcribed, check_version,
};
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};

use super::backend::{Allowance, Backend, Holder, KeyRefused, Order};
use super::wire;
use crate::amount::{Measure, Span};
use crate::record::Record;

/// The node under the surface.
pub(super) const HERE: NodeId = NodeId([1; 32]);
/// Another node.
pub(super) const THERE: NodeId = NodeId([2; 32]);
/// A key that opens everything.
pub(super) const KEY: &str = "sk-selvedge-0123";
/// Its account.
const TEAM: &str = "team";
/// A key for chats with models whose names begin with `s`.
pub(super) const NARROW_KEY: &str = "sk-selvedge-4567";
/// A key whose time is over.
pub(super) const EXPIRED_KEY: &str = "sk-selvedge-89ab";

/// One step of an answer.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Gives a piece.
    Give(Piece),
    /// Waits until the test adds a permit to [`Script::gate`].
    Gate,
    /// Never goes on.
    Forever,
}

/// What is played for a call.
type Steps = dyn Fn(&Call) -> Vec<Step> + Send + Sync;
/// What is played for a chat that may leave the mesh.
type Events = dyn Fn(&ChatCall) -> Vec<Event> + Send + Sync;

/// A node that plays a script for every call.
pub(super) struct Script {
    steps: Box<Steps>,
    events: Box<Events>,
    /// The chats that came and may leave the mesh.
    pub(super) chats: Mutex<Vec<ChatCall>>,
    /// The requests for embeddings that came.
    pub(super) embeds: Mutex<Vec<EmbedCall>>,
    /// The requests for what is said that came.
    pub(super) hears: Mutex<Vec<SpeechCall>>,
    /// Opens [`Step::Gate`]s.
    pub(super) gate: Arc<Semaphore>,
    /// Every call so far.
    pub(super) calls: Mutex<Vec<Call>>,
    /// Every order so far.
    pub(super) orders: Mutex<Vec<Order>>,
    /// The accounts whose budgets were looked at.
    pub(super) looked: Mutex<Vec<Option<String>>>,
    /// What the key's account has left.
    pub(super) allowances: Mutex<Vec<Allowance>>,
    /// Answers that were dropped before their end.
    pub(super) cancelled: Arc<AtomicUsize>,
    /// Told with every such answer.
    pub(super) cancelling: Arc<Notify>,
}

impl Script {
    pub(super) fn new(steps: impl Fn(&Call) -> Vec<Step> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self::of(Box::new(steps), Box::new(|_| Vec::new())))
    }

    /// Answers chats that leave the mesh with these events.
    pub(super) fn provider(
        events: impl Fn(&ChatCall) -> Vec<Event> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self::of(Box::new(|_| Vec::new()), Box::new(events)))
    }

    fn of(steps: Box<Steps>, events: Box<Events>) -> Self {
        Self {
            steps,
            events,
            chats: Mutex::default(),
            embeds: Mutex::default(),
            hears: Mutex::default(),
            gate: Arc::new(Semaphore::new(0)),
            calls: Mutex::default(),
            orders: Mutex::default(),
            looked: Mutex::default(),
            allowances: Mutex::default(),
            cancelled: Arc::default(),
            cancelling: Arc::default(),
        }
    }

    /// Says "Hello, world" to everybody.
    pub(super) fn hello() -> Arc<Self> {
        Self::new(|_| {
            let mut steps = vec![started()];
            steps.extend(["Hello", ", ", "wor"].iter().zip(0..).map(|(text, at)| token(at, text)));
            steps.push(finished("ld", 3));
            steps
        })
    }

    /// Refuses everybody.
    pub(super) fn refusing(refusal: Refusal) -> Arc<Self> {
        Self::new(move |_| vec![Step::Give(Piece::Failed(refusal.clone()))])
    }
}

pub(super) fn started() -> Step {
    Step::Give(Piece::Started { prompt_tokens: 7, served_by: THERE })
}

pub(super) fn token(index: u32, text: &str) -> Step {
    let (text, logprob) = (text.to_owned(), None);
    Step::Give(Piece::Token(TokenEvent { index, token: 100 + index, text, logprob }))
}

pub(super) fn scored(index: u32, text: &str) -> Step {
    let logprob = Some(TokenLogProb {
        bytes: text.as_bytes().to_vec(),
        logprob: -0.25,
        top: vec![(text.as_bytes().to_vec(), -0.25), (b"x".to_vec(), -2.0)],
    });
    let text = text.to_owned();
    Step::Give(Piece::Token(TokenEvent { index, token: 100 + index, text, logprob }))
}

/// An answer that its budget ended.
pub(super) fn out_of_budget() -> Step {
    let (reason, text) = (FinishReason::Quota, String::new());
    let usage = Usage { prompt_tokens: 7, completion_tokens: 1, ..Usage::default() };
    Step::Give(Piece::Finished { reason, text, usage, served_by: THERE })
}

pub(super) fn finished(text: &str, tokens: u32) -> Step {
    let usage =
        Usage { prompt_tokens: 7, cached_tokens: 2, completion_tokens: tokens, ..Usage::default() };
    let (reason, text) = (FinishReason::Stop, text.to_owned());
    Step::Give(Piece::Finished { reason, text, usage, served_by: THERE })
}

fn one(said: Said) -> BoxStream<'static, Said> {
    futures::stream::iter([said]).boxed()
}

impl Backend for Script {
    fn generate(&self, call: Call) -> BoxStream<'static, Piece> {
        let steps = (self.steps)(&call).into_iter();
        self.calls.lock().push(call);
        let watch = Watch {
            ended: false,
            cancelled: Arc::clone(&self.cancelled),
            cancelling: Arc::clone(&self.cancelling),
        };
        let gate = Arc::clone(&self.gate);
        futures::stream::unfold((steps, watch, gate), |(mut steps, mut watch, gate)| async move {
            loop {
                match steps.next() {
                    Some(Step::Give(piece)) => {
                        watch.ended = matches!(piece, Piece::Finished { .. } | Piece::Failed(_));
                        return Some((piece, (steps, watch, gate)));
                    }
                    Some(Step::Gate) => gate.acquire().await.ok()?.forget(),
                    Some(Step::Forever) => std::future::pending::<()>().await,
                    None => return None,
                }
            }
        })
        .boxed()
    }

    fn caches(&self) -> bool {
        false
    }

    fn cached<'a>(&'a self, _: &'a ChatCall, _: Question<'a>) -> BoxFuture<'a, Cached> {
        Box::pin(async { Cached::Bypass("off", None) })
    }

    fn cached_in_mesh<'a>(&'a self, _: &'a Call, _: Question<'a>) -> BoxFuture<'a, Cached> {
        Box::pin(async { Cached::Bypass("off", None) })
    }

    fn cached_embeddings<'a>(&'a self, _: &'a EmbedCall, _: Question<'a>) -> BoxFuture<'a, Cached> {
        Box::pin(async { Cached::Bypass("off", None) })
    }

    fn record_of(&self, id: RequestId, holder: &Holder) -> Option<Record> {
        let known = id == RequestId(0xfeed) && holder.account.as_str() == TEAM;
        known.then(|| Record { id: id.to_string(), ..Record::default() })
    }

    fn label<'a>(
        &'a self,
        id: RequestId,
        holder: &'a Holder,
        labels: Vec<u32>,
    ) -> BoxFuture<'a, Result<wire::Labelled, Refusal>> {
        Box::pin(async move {
            if id != RequestId(0xfeed) || holder.account.as_str() != TEAM {
                let (stage, code) = (Stage::Validate, Code::InvalidRequest);
                return Err(Refusal::client(stage, code, "no request waits for labels"));
            }
            let kept = labels.len() as u64;
            Ok(wire::Labelled { model: "wear".to_owned(), kept, forgotten: 0 })
        })
    }

    fn cache(&self) -> Option<wire::Cache> {
        None
    }

    fn leaves_the_mesh(&self, model: &str) -> bool {
        model.starts_with("cloud/") || model == "routed"
    }

    fn continues(&self, call: &ChatCall) -> Result<String, Refusal> {
        match call.asked.model() {
            "routed" => Ok("small".to_owned()),
            _ => Err(Refusal::client(Stage::Validate, Code::Unsupported, "chats only")),
        }
    }

    fn chat(&self, call: ChatCall) -> BoxStream<'static, Said> {
        // A target that a body does not pass to as it came has it read.
        let events = match call.asked.request() {
            Ok(_) => (self.events)(&call),
            Err(refusal) => return one(Said::Event(Event::Failed(refusal.into()))),
        };
        self.chats.lock().push(call);
        futures::stream::iter(events).map(Said::Event).boxed()
    }

    fn count_tokens(&self, call: ChatCall) -> BoxFuture<'_, Result<u64, Refusal>> {
        Box::pin(async move { Ok(call.asked.request()?.messages.len() as u64) })
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'_, Result<Embeddings, Failure>> {
        let request = call.request.clone();
        self.embeds.lock().push(call);
        Box::pin(async move {
            if !request.model.starts_with("cloud/") {
                let message = "this model makes no embeddings";
                return Err(Refusal::client(Stage::Route, Code::Unsupported, message).into());
            }
            let usage = dialect::Usage { prompt_tokens: 7, ..dialect::Usage::default() };
            let vectors = vec![vec![0.5, -1.0, 0.25]; request.inputs.len()];
            Ok(Embeddings { model: request.model, vectors, usage: Some(usage) })
        })
    }

    fn sound(&self, file: Bytes, _: Micros) -> BoxFuture<'_, Result<Sound, Refusal>> {
        let samples = file.iter().map(|byte| i16::from(*byte)).collect();
        Box::pin(async move { Ok(Sound::new(Arc::new(samples))) })
    }

    fn hear(&self, call: SpeechCall) -> BoxFuture<'_, Result<Transcribed, Refusal>> {
        let text = format!(" {:?} {:?} {:?}", call.task, call.language, call.sound);
        self.hears.lock().push(call);
        Box::pin(async move {
            let segment = Segment { end_ms: 900, text, ..Segment::default() };
            let transcript = Transcript {
                language: "de".to_owned(),
                duration_ms: 1_000,
                segments: vec![segment],
                prompt_tokens: 50,
                completion_tokens: 3,
            };
            Ok(Transcribed { transcript, by: NodeId([7; 32]) })
        })
    }

    fn trace(&self, _: Option<TraceContext>, _: Came) -> Option<Arc<Trace>> {
        None
    }

    fn makes(&self, model: &str) -> Option<Makes> {
        match model {
            "cloud/e" => Some(Makes::Embeddings(Some(3))),
            "small" | "cloud/large" => Some(Makes::Text),
            _ => None,
        }
    }

    fn learned(&self, model: &str) -> Option<Result<Card, Refusal>> {
        let card = Card {
            example: vec![1, 2, 2],
            classes: 2,
            version: Some(12),
            job: "ab".to_owned(),
            rounds: 30,
        };
        match model {
            "wear" => Some(Ok(card)),
            "young" => Some(Ok(Card { version: None, ..card })),
            _ => None,
        }
    }

    fn classify(&self, call: ClassCall) -> BoxFuture<'_, Result<Found, Refusal>> {
        Box::pin(async move {
            let card = self.learned(&call.model).expect("asked only of a learned model")?;
            check_version(&call.model, &card, call.version.as_deref())?;
            let rows = call.asked.rows(&card)?;
            let shares = [0.25, 0.75].repeat(rows);
            Ok(Found { version: 12, probabilities: shares, classes: vec![1; rows] })
        })
    }

    fn takes_tensors(&self, model: &str) -> bool {
        model == "sensor"
    }

    fn infer(&self, call: TensorCall) -> BoxFuture<'_, Result<Carried, Refusal>> {
        Box::pin(async move {
            let spec = |name: &str| TensorSpec {
                name: name.to_owned(),
                datatype: Datatype::Fp32,
                shape: vec![-1, 2],
            };
            let (inputs, outputs) = (vec![spec("x")], vec![spec("y")]);
            let signature = Signature { platform: "onnx".to_owned(), inputs, outputs };
            let Some(asked) = call.asked else { return Ok(Carried::Signature(signature)) };
            signature.check(&asked.inputs, &asked.outputs())?;
            let made = asked.inputs.into_iter().map(|x| Tensor { name: "y".to_owned(), ..x });
            Ok(Carried::Tensors(made.collect()))
        })
    }

    fn provided(&self) -> Vec<String> {
        vec!["cloud/large".to_owned()]
    }

    fn name_of(&self, node: &NodeId) -> String {
        if *node == HERE { "here".to_owned() } else { "there".to_owned() }
    }

    fn digest_of(&self, model: &str) -> Option<ModelDigest> {
        (model == "small").then_some(ModelDigest([0xab; 32]))
    }

    fn holder_of(&self, key: &str) -> Result<Holder, KeyRefused> {
        let holder = |models: &[&str], routes: &[&str]| Holder {
            tenant: TEAM.to_owned(),
            account: TEAM.parse().expect("an account"),
            key: Some(KeyId([1; 8])),
            keyed: true,
            models: models.iter().map(|name| (*name).to_owned()).collect(),
            routes: routes.iter().map(|name| (*name).to_owned()).collect(),
        };
        match key {
            KEY => Ok(holder(&[], &[])),
            NARROW_KEY => Ok(holder(&["s*"], &["chat", "models"])),
            EXPIRED_KEY => Err(KeyRefused::Over("the key expired".to_owned())),
            _ => Err(KeyRefused::Unknown),
        }
    }

    fn allowances(&self, holder: &Holder, tell: &mut dyn FnMut(Allowance)) {
        let team = holder.account.as_str() == TEAM;
        self.allowances.lock().iter().copied().filter(|_| team).for_each(tell);
    }

    fn budgets(&self, path: Option<&str>) -> Vec<wire::Budget> {
        self.looked.lock().push(path.map(ToOwned::to_owned));
        vec![wire::Budget {
            account: TEAM.to_owned(),
            name: "tokens-hour".to_owned(),
            unit: Measure::Tokens,
            period: Some(Span::Hour),
            limit: 20_000,
            spent: 6_000,
            reserved: 500,
            left: 13_500,
            debt: 0,
            spendable_here: 7_000,
            resets_ms: Some(3_600_000),
            resets_in_us: Some(60_000_000),
            in_force: true,
            reclaimable: false,
            witnesses_needed: None,
            witnesses_reached: None,
            nodes: Vec::new(),
        }]
    }

    fn status(&self) -> wire::Status {
        let model = wire::Model {
            name: "small".to_owned(),
            state: "ready".to_owned(),
            queued: 3,
            ..wire::Model::default()
        };
        let node = |name: &str, me| wire::Node {
            name: name.to_owned(),
            me,
            state: "alive".to_owned(),
            models: vec![model.clone()],
            ..wire::Node::default()
        };
        wire::Status { nodes: vec![node("here", true), node("there", false)], ..Default::default() }
    }

    fn watch(&self) -> BoxStream<'static, wire::Status> {
        let now = self.status();
        futures::stream::iter([now.clone(), now]).chain(futures::stream::pending()).boxed()
    }

    fn federated_watch(&self) -> BoxStream<'static, wire::List<wire::FederatedJob>> {
        let now = wire::List { data: Vec::new() };
        futures::stream::iter([now.clone(), now]).chain(futures::stream::pending()).boxed()
    }

    fn memory(&self) -> Option<MemoryUse> {
        let counts = Counts { loaded_asked: 4, evicted_copied: 2, ..Counts::default() };
        Some(MemoryUse { taken: 70, budget: 100, waiting: 1, counts })
    }

    fn totals(&self) -> Vec<(&'static str, &'static str, u64)> {
        vec![("handed_off", "Requests handed to peers", 5)]
    }

    fn drafts(&self) -> Vec<(String, u64, u64)> {
        vec![("small".to_owned(), 9, 7)]
    }

    fn manage(&self, order: Order) -> BoxFuture<'_, Result<Value, Refusal>> {
        self.orders.lock().push(order.clone());
        Box::pin(async move {
            if let Order::KeyRevoke(id) = order {
                return Err(Refusal::client(Stage::Validate, Code::InvalidRequest, id));
            }
            Ok(json!({ "order": format!("{order:?}") }))
        })
    }
}

/// Tells when an answer was dropped before its end.
struct Watch {
    ended: bool,
    cancelled: Arc<AtomicUsize>,
    cancelling: Arc<Notify>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.ended {
            self.cancelled.fetch_add(1, Ordering::SeqCst);
            self.cancelling.notify_one();
        }
    }
}
