//! The request path of chats that may leave the mesh, top to bottom: admit → targets → for each:
//! reserve → ask → events → settle.
//!
//! Owns the work of a chat, which walks a journey ([`selvedge_core::journey`]) along the targets of
//! its model. A target of the mesh is answered by [`Gateway::generate`], whose flow chooses and
//! changes nodes; a target at a provider by `selvedge-upstream`. Either way canonical events come
//! out, one as it comes in. Decides nothing itself. What a client's bytes mean is the surface's
//! business.

mod aim;
mod asked;
mod cached;
mod count;
mod embed;
mod errand;
mod fetch;
mod judge;
mod learned;
mod local;
mod outlet;
mod paid;
mod resume;
pub(crate) mod speech;
mod tensors;
mod text;

use std::sync::Arc;

use selvedge_base::{Blame, Code, Micros, Mono, Refusal, RequestId, Retry, Stage};
use selvedge_core::aim::Aim;
use selvedge_core::journey::{Journey, Leg, Step, Target};
use selvedge_core::record::{Attempt, Outcome, RequestRecord};
use selvedge_core::routes::Saving;
use selvedge_dialect::chat::{Event, Failure, Head, Usage};
use selvedge_net::clock;
use selvedge_proto::policy::{AccountPath, KeyId};
use selvedge_proto::wire::Label;

pub use self::asked::Asked;
pub(crate) use self::asked::Passable;
pub(crate) use self::cached::CacheLine;
pub use self::cached::{CacheView, Cached, Keeper, Kept, Question, Wish};
pub use self::embed::EmbedCall;
use self::judge::Judging;
pub(crate) use self::learned::taken;
pub use self::learned::{ClassCall, check_version, tells_classes};
use self::outlet::Outlet;
pub use self::outlet::{ChatStream, Said};
use self::resume::{Going, Had};
pub use self::speech::{Sound, SpeechCall, Transcribed};
pub use self::tensors::TensorCall;
use crate::counters::Held;
use crate::gateway::{Gateway, node_full};
use crate::providers::counts;
use crate::shared::Shared;
use crate::trace::{Asking, Trace, finish_at};

/// One chat, authenticated and understood.
#[derive(Clone, Debug)]
pub struct ChatCall {
    /// Names the answer everywhere.
    pub id: RequestId,
    /// Whose request it is, for records and for what peers serve.
    pub tenant: String,
    /// Whose budgets it counts against.
    pub account: AccountPath,
    /// The key of the mesh it came with, whose own budgets count too.
    pub key: Option<KeyId>,
    /// Whether the caller showed a key at all: only then money is spent.
    pub keyed: bool,
    /// How far the data may travel, if the caller said.
    pub label: Option<Label>,
    /// When it came: its time runs from then on, whatever it waits for.
    pub came: Mono,
    /// Time the whole answer may take.
    pub deadline: Micros,
    /// The seed if the caller gave none.
    pub drawn: u64,
    /// Its place in a trace, if it has one.
    pub trace: Option<Arc<Trace>>,
    /// What is asked.
    pub asked: Asked,
}

impl Gateway {
    /// Whether a name means something that [`Gateway::chat`] alone can answer.
    pub fn leaves_the_mesh(&self, model: &str) -> bool {
        let all = self.shared.providers.all();
        let specs = all.values().map(|open| open.spec());
        self.shared.routing.has(model) || Aim::is_provided(model, specs)
    }

    /// The routes and the models of providers, as clients name them.
    pub fn provided(&self) -> Vec<String> {
        let all = self.shared.providers.all();
        let named = all.values().flat_map(|open| {
            let spec = open.spec();
            spec.models.keys().map(move |model| format!("{}/{model}", spec.name))
        });
        let routes = self.shared.routing.names().into_iter();
        routes.chain(named).collect()
    }

    /// Starts answering a chat. It is worked on while it is polled, inside a tokio runtime.
    pub fn chat(&self, call: ChatCall) -> ChatStream {
        let Ok(permit) = Arc::clone(&self.shared.permits).try_acquire_owned() else {
            self.shared.counters.turned_away.bump();
            return ChatStream::over(Said::Event(Event::Failed(node_full().into())));
        };
        let in_flight = Arc::clone(&self.shared);
        let outlet = Outlet::default();
        let mut relay = Relay::new(self.clone(), call, outlet.clone());
        let work = Box::pin(async move {
            let _permit = permit;
            let _in_flight = Held::new(&in_flight.counters.in_flight);
            relay.run().await;
        });
        ChatStream::new(outlet, work)
    }
}

/// How one target's turn ended.
enum End {
    /// With the answer's end, which the caller does not have yet.
    Answered(Said),
    /// Without it.
    Failed(Failure),
    /// The budgets allow no more money.
    LocalOnly,
    /// With an answer that is not good enough, of which the caller has nothing.
    Doubted,
}

/// One chat under way. Dropped before its end, its caller has left.
struct Relay {
    gateway: Gateway,
    shared: Arc<Shared>,
    call: ChatCall,
    journey: Journey,
    aim: Aim,
    outlet: Outlet,
    arrived: Mono,
    deadline: Mono,
    /// The beginning of the answer, held until the first piece: another target may begin it anew.
    head: Option<Event>,
    first_piece: Option<Micros>,
    usage: Option<Usage>,
    /// The present answer, while it is held back.
    judging: Option<Judging>,
    /// Log probabilities were asked for by us alone.
    hides_logprobs: bool,
    /// An answer was found wanting.
    escalated: bool,
    /// What the caller has, while somebody could go on after it.
    kept: Option<Had>,
    /// How bytes that the caller has began, and their text, until whoever writes is told.
    passed: Option<(Head, Option<String>)>,
    /// The present target goes on with an answer.
    going: Option<Going>,
    /// What the present target counted so far, and what those before it did whose parts of the
    /// answer the caller has.
    counted: Usage,
    carried: Usage,
    /// Turns of nodes at targets that did not answer.
    turns: Vec<Attempt>,
    /// The provider that is being asked, for the trace.
    asking: Asking,
    /// A flow of the mesh was begun, which keeps a record too.
    in_mesh: bool,
    /// By which revision of the policy it was let in last.
    let_in: Option<u64>,
    recorded: bool,
}

impl Relay {
    fn new(gateway: Gateway, call: ChatCall, outlet: Outlet) -> Self {
        let shared = Arc::clone(&gateway.shared);
        let arrived = clock::mono();
        let mut aim = aim::aim(&shared, &call);
        Self {
            journey: Journey::new(std::mem::take(&mut aim.targets)).rising(aim.rising),
            aim,
            deadline: call.came.plus(call.deadline),
            gateway,
            shared,
            call,
            outlet,
            arrived,
            head: None,
            first_piece: None,
            usage: None,
            judging: None,
            hides_logprobs: false,
            escalated: false,
            kept: None,
            passed: None,
            going: None,
            counted: Usage::default(),
            carried: Usage::default(),
            turns: Vec::new(),
            asking: Asking::default(),
            in_mesh: false,
            let_in: None,
            recorded: false,
        }
    }

    async fn run(&mut self) {
        let barred = self.bars();
        let mut step = match barred.or_else(|| self.aim.refusal.take()) {
            Some(refusal) => Step::Fail(refusal),
            None => self.journey.begin(),
        };
        loop {
            let asks = match step {
                Step::Fail(refusal) => return self.fail(Failure { provider: None, refusal }),
                Step::Whole => false,
                Step::Continue(_) => {
                    Box::pin(self.go_on()).await;
                    true
                }
                Step::Ask(_) => {
                    self.begin_leg();
                    true
                }
            };
            let end = match self.journey.target().cloned().filter(|_| asks) {
                None if !asks => Box::pin(self.end_whole()).await,
                // Far larger than the way to a provider: not every chat carries it along.
                Some(Target::Mesh { model }) => Box::pin(self.ask_mesh(model)).await,
                Some(Target::Provider { provider, model }) => {
                    self.ask_provider(&provider, &model).await
                }
                None => End::Failed(nowhere().into()),
            };
            step = match end {
                End::Answered(last) if self.stands().await => {
                    return self.answered(last).await;
                }
                End::Answered(_) | End::Doubted => self.doubted(),
                End::LocalOnly => self.journey.local_only(),
                End::Failed(failure) => {
                    match self.missed(&failure).after(&failure) {
                        // The same refusal, with what the provider said.
                        Step::Fail(refusal) if refusal == failure.refusal => {
                            return self.fail(failure);
                        }
                        step => step,
                    }
                }
            };
        }
    }

    /// Notes for the trace that whoever was asked does not answer.
    fn missed(&mut self, failure: &Failure) -> &mut Self {
        self.leave_mesh();
        let usage = self.usage;
        self.asking.note(|turn| turn.usage = usage);
        std::mem::take(&mut self.asking).failed(failure.refusal.code.as_str());
        self
    }

    /// Takes an event that is not the last; whether the answer goes on.
    async fn deliver(&mut self, event: Event) -> bool {
        if self.judging.is_some() {
            return Box::pin(self.judge(event)).await;
        }
        self.give(event).await;
        true
    }

    /// Gives the caller an event that is not the last.
    async fn give(&mut self, event: Event) {
        if self.hides_logprobs && matches!(event, Event::LogProbs { .. }) {
            return;
        }
        let Some(event) = self.joined(event) else { return };
        self.keep_event(&event);
        if let Event::Ended { reason, .. } = &event {
            self.asking.note(|turn| turn.finish.push(finish_at(reason)));
        }
        if let Event::Head(head) = &event {
            self.asking.note(|turn| {
                turn.answered_by = Some(head.model.clone()).filter(|model| !model.is_empty());
                turn.answer_id = Some(head.id.clone()).filter(|id| !id.is_empty());
            });
            self.head = Some(event);
            return;
        }
        if let Event::Usage(usage) = &event {
            self.usage = Some(*usage);
        }
        self.begin_giving();
        if let Some(head) = self.head.take() {
            self.outlet.say(Said::Event(head)).await;
        }
        self.outlet.say(Said::Event(event)).await;
    }

    /// From here on the caller has part of an answer.
    fn begin_giving(&mut self) {
        self.journey.came();
        self.asking.came();
        if self.first_piece.is_none() {
            self.first_piece = Some(clock::mono().since(self.arrived));
        }
    }

    /// Gives the caller the answer's end. Whoever has it finds the record.
    async fn answered(&mut self, mut last: Said) {
        if let Said::Event(Event::Finished { usage: Some(usage), .. }) = &mut last {
            *usage = self.carried.plus(usage);
        }
        if let Said::Event(Event::Finished { usage: Some(usage), .. })
        | Said::Bytes { usage: Some(usage), .. } = &last
        {
            self.usage = Some(*usage);
        }
        self.begin_giving();
        if let Some(head) = self.head.take() {
            self.outlet.say(Said::Event(head)).await;
        }
        std::mem::take(&mut self.asking).finished(self.usage);
        let now = clock::mono();
        self.measure(now);
        let outcome = self.outcome(now);
        self.record(outcome, now);
        self.outlet.end(last);
    }

    fn fail(&mut self, failure: Failure) {
        self.record(Outcome::Failed(failure.refusal.clone()), clock::mono());
        self.outlet.end(Said::Event(Event::Failed(failure)));
    }

    /// Notes how fast the target answered, for routes that go by it.
    fn measure(&self, now: Mono) {
        if self.going.is_some() {
            return;
        }
        let (Some(target), Some(first)) = (self.journey.target(), self.first_piece) else { return };
        let tokens = self.usage.map_or(0, |usage| usage.completion_tokens);
        let after = now.since(self.arrived.plus(first));
        if let Some(gaps) = tokens.checked_sub(1).filter(|gaps| *gaps > 0) {
            self.shared.routing.observe(target, first, Micros(after.0 / gaps));
        }
    }

    fn outcome(&self, now: Mono) -> Outcome {
        let usage = self.usage.unwrap_or_default();
        let count = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
        Outcome::Finished {
            reason: selvedge_contract::FinishReason::Stop,
            usage: selvedge_contract::Usage {
                prompt_tokens: count(usage.prompt_tokens),
                cached_tokens: count(usage.cached_tokens),
                completion_tokens: count(usage.completion_tokens),
                first_token: self.first_piece.unwrap_or_default(),
                total: now.since(self.arrived),
            },
        }
    }

    /// What trying small models first has saved, where the route does; noted for the route too.
    fn saving(&self, outcome: &Outcome) -> Option<Saving> {
        let yardstick = self.aim.yardstick.as_ref()?;
        let Outcome::Finished { .. } = outcome else { return None };
        let answer = counts(&self.usage.unwrap_or_default());
        let saving = yardstick.saving(self.journey.legs(), &answer);
        self.shared.counters.saved(saving);
        self.shared.routing.note_saving(&yardstick.route, self.escalated, saving);
        saving
    }

    /// Keeps the one record of the request. What a flow in the mesh noted is part of it.
    fn record(&mut self, outcome: Outcome, now: Mono) {
        self.recorded = true;
        let in_mesh = self.in_mesh.then(|| self.shared.records.find(self.call.id)).flatten();
        let mut attempts = std::mem::take(&mut self.turns);
        if let Some(known) = &in_mesh
            && !attempts.ends_with(&known.attempts)
        {
            attempts.extend_from_slice(&known.attempts);
        }
        let saving = self.saving(&outcome);
        let paid = self.journey.target().is_some_and(Target::is_paid);
        // It is over: what it was moves into its record.
        let mut legs: Vec<Leg> = self.journey.take_legs();
        legs.append(&mut self.aim.passed_over);
        let counters = &self.shared.counters;
        counters.paid(&legs);
        match (&in_mesh, paid) {
            // The flow of the mesh counted it.
            (Some(_), false) => {}
            _ => match &outcome {
                Outcome::Finished { usage, .. } => {
                    counters.finished.bump();
                    counters.prompt_tokens.add(u64::from(usage.prompt_tokens));
                    counters.answer_tokens.add(u64::from(usage.completion_tokens));
                }
                Outcome::Failed(_) => counters.failed.bump(),
                Outcome::Cancelled | Outcome::Running => counters.cancelled.bump(),
            },
        }
        let record = match in_mesh {
            // Of an answer in parts it has one.
            Some(known) if !paid && self.going.is_none() => {
                RequestRecord { legs, attempts, saving, ..known.as_ref().clone() }
            }
            _ => RequestRecord {
                id: self.call.id,
                model: self.call.asked.model().to_owned(),
                downgraded_to: None,
                tenant: std::mem::take(&mut self.call.tenant),
                legs,
                attempts,
                outcome,
                took: now.since(self.arrived),
                first_token: self.first_piece,
                longest_gap: None,
                saving,
            },
        };
        let record = self.shared.records.keep((&self.call.account, self.call.key), record);
        if let Some(trace) = &self.call.trace {
            trace.recorded(&record);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !self.recorded {
            let usage = self.usage;
            self.asking.note(|turn| turn.usage = usage);
            self.record(Outcome::Cancelled, clock::mono());
        }
    }
}

fn nowhere() -> Refusal {
    let message = "the request has nowhere to go; this is a fault of the node";
    Refusal::new(Stage::Route, Blame::Us, Retry::Never, Code::Internal, message)
}
