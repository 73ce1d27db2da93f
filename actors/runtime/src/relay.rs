//! The request path of chats that may leave the mesh, top to bottom: admit → targets → for each:
//! reserve → ask → events → settle.
//!
//! Owns one task per chat that walks a journey ([`selvedge_core::journey`]) along the targets of
//! its model. A target of the mesh is answered by [`Gateway::generate`], whose flow chooses and
//! changes nodes; a target at a provider by `selvedge-upstream`. Either way canonical events come
//! out, one as it comes in. Decides nothing itself. What a client's bytes mean is the surface's
//! business.

mod aim;
mod count;
mod local;
mod paid;

use std::sync::Arc;

use selvedge_base::{Blame, Code, Micros, Mono, Refusal, RequestId, Retry, Stage};
use selvedge_core::aim::Aim;
use selvedge_core::journey::{Journey, Leg, Step, Target};
use selvedge_core::record::{Outcome, RequestRecord};
use selvedge_dialect::chat::{ChatRequest, Event, Failure, Usage};
use selvedge_net::clock;
use selvedge_proto::policy::{AccountPath, KeyId};
use selvedge_proto::wire::Label;
use tokio::sync::mpsc;

use crate::counters::Held;
use crate::gateway::{CALLER_PATIENCE, Gateway, node_full};
use crate::shared::Shared;

/// Events that wait for a slow caller: a screenful; beyond it the provider waits.
const EVENTS: usize = 64;

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
    /// Time the whole answer may take.
    pub deadline: Micros,
    /// The seed if the caller gave none.
    pub drawn: u64,
    /// What is asked.
    pub request: ChatRequest,
}

/// One answer as it comes; dropping it cancels the work.
pub struct ChatStream {
    events: mpsc::Receiver<Event>,
}

impl ChatStream {
    /// The next event; `None` after the last one ([`Event::Finished`] or [`Event::Failed`]).
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Gateway {
    /// Whether a name means something that [`Gateway::chat`] alone can answer.
    pub fn leaves_the_mesh(&self, model: &str) -> bool {
        self.shared.routing.has(model)
            || aim::by_name(&self.shared, model).targets.iter().any(|(target, _)| target.is_paid())
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

    /// Starts answering a chat. Must be called inside a tokio runtime.
    pub fn chat(&self, call: ChatCall) -> ChatStream {
        let (to_caller, events) = mpsc::channel(EVENTS);
        let Ok(permit) = Arc::clone(&self.shared.permits).try_acquire_owned() else {
            self.shared.counters.turned_away.bump();
            // The channel is new and empty: there is room for one event.
            let _delivered = to_caller.try_send(Event::Failed(node_full().into()));
            return ChatStream { events };
        };
        let gateway = self.clone();
        tokio::spawn(async move {
            let shared = Arc::clone(&gateway.shared);
            let _permit = permit;
            let _in_flight = Held::new(&shared.counters.in_flight);
            Relay::new(gateway, call, to_caller).run().await;
        });
        ChatStream { events }
    }
}

/// How one target's turn ended.
enum End {
    /// With the answer's end.
    Answered,
    /// Without it.
    Failed(Failure),
    /// The budgets allow no more money.
    LocalOnly,
    /// Nobody listens any more.
    CallerLeft,
}

/// One chat under way.
struct Relay {
    gateway: Gateway,
    shared: Arc<Shared>,
    call: ChatCall,
    journey: Journey,
    aim: Aim,
    to_caller: mpsc::Sender<Event>,
    arrived: Mono,
    deadline: Mono,
    /// The beginning of the answer, held until the first piece: another target may begin it anew.
    head: Option<Event>,
    first_piece: Option<Micros>,
    usage: Option<Usage>,
}

impl Relay {
    fn new(gateway: Gateway, call: ChatCall, to_caller: mpsc::Sender<Event>) -> Self {
        let shared = Arc::clone(&gateway.shared);
        let arrived = clock::mono();
        let mut aim = aim::aim(&shared, &call);
        Self {
            journey: Journey::new(std::mem::take(&mut aim.targets)),
            aim,
            deadline: arrived.plus(call.deadline),
            gateway,
            shared,
            call,
            to_caller,
            arrived,
            head: None,
            first_piece: None,
            usage: None,
        }
    }

    async fn run(mut self) {
        let barred = self.shared.policies.bars(&self.call.account, self.call.key.as_ref());
        let mut step = match barred.or_else(|| self.aim.refusal.take()) {
            Some(refusal) => Step::Fail(refusal),
            None => self.journey.begin(),
        };
        let outcome = loop {
            if let Step::Fail(refusal) = step {
                let failure = Failure { provider: None, refusal };
                break self.fail(failure).await;
            }
            let end = match self.journey.target().cloned() {
                Some(Target::Mesh { model }) => self.ask_mesh(model).await,
                Some(Target::Provider { provider, model }) => {
                    self.ask_provider(&provider, &model).await
                }
                None => End::Failed(nowhere().into()),
            };
            step = match end {
                End::Answered => {
                    self.measure();
                    break self.answered();
                }
                End::CallerLeft => break Outcome::Cancelled,
                End::LocalOnly => self.journey.local_only(),
                End::Failed(failure) => match self.journey.failed(failure.refusal.clone()) {
                    // The same refusal, with what the provider said.
                    Step::Fail(refusal) if refusal == failure.refusal => {
                        break self.fail(failure).await;
                    }
                    step => step,
                },
            };
        };
        self.record(outcome);
    }

    /// Gives the caller an event; `false` when it is gone.
    async fn deliver(&mut self, event: Event) -> bool {
        if matches!(event, Event::Head(_)) {
            self.head = Some(event);
            return true;
        }
        if let Event::Usage(usage) | Event::Finished { usage: Some(usage), .. } = &event {
            self.usage = Some(*usage);
        }
        // From here on the caller has part of an answer that nobody else can continue.
        self.journey.came();
        if self.first_piece.is_none() {
            self.first_piece = Some(clock::mono().since(self.arrived));
        }
        if let Some(head) = self.head.take()
            && !self.send(head).await
        {
            return false;
        }
        self.send(event).await
    }

    async fn send(&self, event: Event) -> bool {
        let sent = tokio::time::timeout(CALLER_PATIENCE.into(), self.to_caller.send(event)).await;
        matches!(sent, Ok(Ok(())))
    }

    async fn fail(&mut self, failure: Failure) -> Outcome {
        let refusal = failure.refusal.clone();
        self.send(Event::Failed(failure)).await;
        Outcome::Failed(refusal)
    }

    /// Notes how fast the target answered, for routes that go by it.
    fn measure(&self) {
        let (Some(target), Some(first)) = (self.journey.target(), self.first_piece) else { return };
        let tokens = self.usage.map_or(0, |usage| usage.completion_tokens);
        let after = clock::mono().since(self.arrived.plus(first));
        if let Some(gaps) = tokens.checked_sub(1).filter(|gaps| *gaps > 0) {
            self.shared.routing.observe(target, first, Micros(after.0 / gaps));
        }
    }

    fn answered(&self) -> Outcome {
        let usage = self.usage.unwrap_or_default();
        let count = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
        Outcome::Finished {
            reason: selvedge_contract::FinishReason::Stop,
            usage: selvedge_contract::Usage {
                prompt_tokens: count(usage.prompt_tokens),
                cached_tokens: count(usage.cached_tokens),
                completion_tokens: count(usage.completion_tokens),
                first_token: self.first_piece.unwrap_or_default(),
                total: clock::mono().since(self.arrived),
            },
        }
    }

    /// Keeps the one record of the request. What a flow in the mesh noted is part of it.
    fn record(self, outcome: Outcome) {
        let in_mesh = self.shared.records.find(self.call.id);
        let mut legs: Vec<Leg> = self.journey.legs().to_vec();
        legs.extend(self.aim.passed_over.iter().cloned());
        let paid = self.journey.target().is_some_and(Target::is_paid);
        let counters = &self.shared.counters;
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
            Some(known) if !paid => RequestRecord { legs, ..known.as_ref().clone() },
            known => RequestRecord {
                id: self.call.id,
                model: self.call.request.model.clone(),
                downgraded_to: None,
                tenant: self.call.tenant.clone(),
                legs,
                attempts: known.map(|known| known.attempts.clone()).unwrap_or_default(),
                outcome,
                took: clock::mono().since(self.arrived),
                first_token: self.first_piece,
                longest_gap: None,
            },
        };
        self.shared.records.keep(record);
    }
}

fn nowhere() -> Refusal {
    let message = "the request has nowhere to go; this is a fault of the node";
    Refusal::new(Stage::Route, Blame::Us, Retry::Never, Code::Internal, message)
}
