//! The request path, top to bottom: admit → reserve → route → execute here or hand off → resume →
//! settle.
//!
//! Owns one task per request that feeds the flow machine ([`selvedge_core::flow`]) and carries out
//! what it orders. Everything it asks on the way (view, choice, counters) is a short synchronous
//! look at shared state; it awaits only the engine, a peer, the caller, the clock, and its budgets
//! when they do not answer at once. An account without budgets is not asked about. Does not decide
//! anything itself.

use std::sync::Arc;
use std::task::{Context, Poll};

use selvedge_base::{
    Blame, Code, Machine, Micros, ModelDigest, NodeId, Refusal, RequestId, Retry, Stage,
    TraceContext,
};
use selvedge_contract::{
    Answer, Asker, Emitted, EventSink, GenerateRequest, Input, Limits, LogProbs, Priority, Sampling,
};
use selvedge_core::flow::{Flow, FlowEffect, FlowInput, Piece};
use selvedge_core::meter::Meter;
use selvedge_core::route::{self, MeshView, Need};
use selvedge_core::{Outcome, RequestRecord};
use selvedge_net::clock;
use selvedge_proto::policy::{AccountPath, KeyId};
use selvedge_proto::wire::{Label, MAX_RECEIPT_BUDGETS, Receipt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::counters::{Counters, Held};
use crate::handoff::{self, Outbound};
use crate::quota::{Reservation, Takes, Wanted};
use crate::shared::Shared;
use crate::trace::{Asking, Came, Trace, Tracer, Whom, finish_of, usage_of};

/// Pieces that wait for a slow caller: a screenful of tokens; beyond it the request waits.
const PIECES: usize = 64;
/// Frames of a peer that wait for the flow; beyond it the peer waits.
const FRAMES: usize = 256;
/// How often a local engine's pulse is read for a request it answers: as often as a peer sends its
/// own.
const LOCAL_PULSE: Micros = Micros::millis(150);
/// How long a caller may read nothing before it counts as gone: a minute covers a suspended laptop
/// on the way to its next window, and frees the engine soon after.
pub(crate) const CALLER_PATIENCE: Micros = Micros::secs(60);
/// The wait suggested to a caller that found this node full: a short answer's time.
const FULL_RETRY: Micros = Micros::secs(1);

/// The largest prompt whose tokens are counted before it is reserved for: a few milliseconds' work.
/// A longer one is reserved for by its length.
const COUNTED_BYTES: usize = 64 << 10;

/// One call, authenticated and validated.
#[derive(Clone, Debug)]
pub struct Call {
    /// Names the answer everywhere.
    pub id: RequestId,
    /// Whose request it is, for records and for what peers serve.
    pub tenant: String,
    /// Whose budgets it counts against.
    pub account: AccountPath,
    /// The key of the mesh it came with, whose own budgets count too.
    pub key: Option<KeyId>,
    /// How far the data may travel.
    pub label: Label,
    /// Time the whole answer may take.
    pub deadline: Micros,
    /// How urgent it is among those of its tenant, at an engine of this node. Peers are not told.
    pub priority: Priority,
    /// The model's name, `name@digest prefix`, or digest.
    pub model: String,
    /// What to continue.
    pub input: Input,
    /// How to draw tokens.
    pub sampling: Sampling,
    /// At most this many tokens; `None` = what the context allows.
    pub max_tokens: Option<u32>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Log probabilities wanted.
    pub logprobs: Option<LogProbs>,
    /// What the answer must hold to, as [`selvedge_contract::Constraint`] reads it.
    pub schema: Option<String>,
    /// Its place in a trace, if it has one.
    pub trace: Option<Arc<Trace>>,
    /// Targets of the same request that were asked before.
    pub leg: usize,
}

/// The way in for every surface; cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) shared: Arc<Shared>,
}

/// One answer as it comes; dropping it cancels the work.
pub struct AnswerStream {
    pieces: mpsc::Receiver<Piece>,
}

impl AnswerStream {
    /// The next piece; `None` after the last one ([`Piece::Finished`] or [`Piece::Failed`]).
    pub async fn next(&mut self) -> Option<Piece> {
        self.pieces.recv().await
    }

    /// Nobody wants the rest: returns when the work has ended.
    pub(crate) async fn leave(mut self) {
        self.pieces.close();
        while self.pieces.recv().await.is_some() {}
    }

    /// The same for several streams at once.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.pieces.poll_recv(cx)
    }
}

impl Gateway {
    /// What this node knows of the mesh now.
    pub fn view(&self) -> Arc<MeshView> {
        self.shared.view.load_full()
    }

    /// Tells whenever [`Gateway::view`] has something new; several changes may be told as one.
    pub fn view_changes(&self) -> watch::Receiver<()> {
        self.shared.view_changed.subscribe()
    }

    /// Starts answering a call. Must be called inside a tokio runtime.
    pub fn generate(&self, call: Call) -> AnswerStream {
        let (to_caller, pieces) = mpsc::channel(PIECES);
        let Ok(permit) = Arc::clone(&self.shared.permits).try_acquire_owned() else {
            self.shared.counters.turned_away.bump();
            // The channel is new and empty: there is room for one piece.
            let _delivered = to_caller.try_send(Piece::Failed(node_full()));
            return AnswerStream { pieces };
        };
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let _permit = permit;
            let _in_flight = Held::new(&shared.counters.in_flight);
            shared.counters.admitted.bump();
            Request::new(Arc::clone(&shared), call, to_caller).run().await;
        });
        AnswerStream { pieces }
    }

    /// Starts answering a call of a request that holds a permit already.
    pub(crate) fn begin(&self, call: Call) -> AnswerStream {
        let (to_caller, pieces) = mpsc::channel(PIECES);
        let shared = Arc::clone(&self.shared);
        shared.counters.admitted.bump();
        tokio::spawn(Request::new(shared, call, to_caller).run());
        AnswerStream { pieces }
    }

    /// What is known of a recent request: candidates, choice, attempts, outcome.
    pub fn request_record(&self, id: RequestId) -> Option<Arc<RequestRecord>> {
        self.shared.records.find(id)
    }

    /// The same, if `reader` is the account of the request or lies above it; with a key, only what
    /// came with that.
    pub fn own_record(
        &self,
        id: RequestId,
        reader: &AccountPath,
        key: Option<KeyId>,
    ) -> Option<Arc<RequestRecord>> {
        self.shared.records.find_of(id, reader, key)
    }

    /// The place of a request in a trace, which `caller` may have begun; none where nobody traces
    /// it. What is given to a call is told once all of its work is over.
    pub fn trace(
        &self,
        caller: Option<TraceContext>,
        came: impl FnOnce() -> Came,
    ) -> Option<Arc<Trace>> {
        match &self.shared.tracer {
            Some(tracer) => Some(tracer.begin(caller.as_ref(), came())),
            None => caller.map(Trace::passing),
        }
    }

    /// Who is told of requests, if anybody is.
    pub fn tracer(&self) -> Option<&Arc<Tracer>> {
        self.shared.tracer.as_ref()
    }

    /// What the node counts.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

/// One request under way.
struct Request {
    shared: Arc<Shared>,
    call: Call,
    flow: Flow,
    to_caller: mpsc::Sender<Piece>,
    /// The model that the first choice settled on; a resumed answer may not change it.
    digest: Option<ModelDigest>,
    /// What its budgets hold for it; none when it has no budget. Dropping it settles.
    reservation: Option<Reservation>,
    /// Tells when its key may have been revoked; none where there is nothing to revoke.
    policy_changes: Option<watch::Receiver<()>>,
    local_events: mpsc::UnboundedReceiver<FlowInput>,
    from_engine: mpsc::UnboundedSender<FlowInput>,
    peer_events: mpsc::Receiver<FlowInput>,
    from_peer: mpsc::Sender<FlowInput>,
    turn: Turn,
    /// The same, for the trace.
    asking: Asking,
    /// Why the present turn will have ended, if it ends without the answer's end.
    why: Option<&'static str>,
}

/// Who works on the request now.
enum Turn {
    Nobody,
    Local { fence: u64, run: RequestId },
    Peer { _outbound: Outbound },
}

/// What woke the request's task.
enum Woken {
    Input(FlowInput),
    LocalPulse,
    /// Budgets said something: why the request is over, if it is.
    Extended(Option<Refusal>),
    PolicyChanged,
    Timer,
    CallerLeft,
}

impl Request {
    fn new(shared: Arc<Shared>, call: Call, to_caller: mpsc::Sender<Piece>) -> Self {
        let now = clock::now();
        let (model, tenant) = (call.model.clone(), call.tenant.clone());
        let flow = Flow::new(now, call.id, model, tenant, call.deadline).after(call.leg);
        // Bounded by the answer: an engine sends at most `max_tokens` tokens and three more events.
        let (from_engine, local_events) = mpsc::unbounded_channel();
        let (from_peer, peer_events) = mpsc::channel(FRAMES);
        let turn = Turn::Nobody;
        let policy_changes = call.key.is_some().then(|| shared.policies.changes());
        Self {
            shared,
            call,
            flow,
            to_caller,
            digest: None,
            reservation: None,
            policy_changes,
            local_events,
            from_engine,
            peer_events,
            from_peer,
            turn,
            asking: Asking::default(),
            why: None,
        }
    }

    async fn run(mut self) {
        let mut pending = vec![self.reserve().await];
        let mut effects = Vec::new();
        loop {
            while let Some(input) = pending.pop() {
                self.why = failing(&input).or(self.why);
                self.flow.step(clock::now(), input, &mut effects);
                for effect in effects.drain(..) {
                    match effect {
                        FlowEffect::Route { exclude } => pending.push(self.route(&exclude)),
                        FlowEffect::Dispatch { fence, to, emitted, deadline } => {
                            if let Some(input) = self.dispatch(fence, to, emitted, deadline) {
                                pending.push(input);
                            }
                        }
                        FlowEffect::Cancel { fence: _ } => self.cancel(),
                        FlowEffect::Deliver(piece) => {
                            if matches!(piece, Piece::Finished { .. } | Piece::Failed(_)) {
                                // Whoever has the end may ask for the record at once.
                                self.keep();
                            }
                            let counted = self.count(&piece);
                            if !self.deliver(piece).await {
                                pending.push(FlowInput::CallerLeft);
                            } else if counted && let Some(refusal) = self.quota_ended().await {
                                pending.push(FlowInput::QuotaEnded(refusal));
                            }
                        }
                        FlowEffect::Close => {}
                    }
                }
            }
            if self.flow.is_closed() {
                return self.settle();
            }
            match self.wait().await {
                Woken::Input(input) => pending.push(input),
                Woken::LocalPulse => pending.extend(self.local_pulse()),
                Woken::Extended(None) => {}
                Woken::Extended(Some(lost)) => {
                    self.shared.counters.budget_ends.bump();
                    pending.push(FlowInput::QuotaEnded(lost));
                }
                Woken::PolicyChanged => pending.extend(self.barred()),
                Woken::Timer => pending.push(FlowInput::Ticked),
                Woken::CallerLeft => pending.push(FlowInput::CallerLeft),
            }
        }
    }

    /// Asks the budgets of the request, if there are any; what becomes of it then.
    async fn reserve(&mut self) -> FlowInput {
        let shared = Arc::clone(&self.shared);
        let (account, key) = (&self.call.account, self.call.key.as_ref());
        if let Some(why) = shared.policies.bars(account, key) {
            return FlowInput::Barred(why);
        }
        if !shared.policies.limits(account, key) {
            return FlowInput::Arrived;
        }
        if self.policy_changes.is_none() {
            self.policy_changes = Some(shared.policies.changes());
        }
        let view = shared.view.load_full();
        let counted = match self.counts_here(&view) {
            Some((digest, input)) => tokio::select! {
                biased;
                counted = shared.count_tokens(digest, input) => counted.ok(),
                () = self.to_caller.closed() => return FlowInput::CallerLeft,
            },
            None => None,
        };
        let wanted = Wanted {
            id: self.call.id,
            account: self.call.account.clone(),
            key: self.call.key,
            model: view.plain_model_name(&self.call.model),
            takes: Takes::Free(self.meter(counted)),
            deadline: self.call.deadline,
        };
        let reserved = tokio::select! {
            biased;
            reserved = shared.quota.reserve(wanted) => reserved,
            () = self.to_caller.closed() => return FlowInput::CallerLeft,
        };
        match reserved {
            Ok(reservation) => {
                if let Some(model) = reservation.downgrade() {
                    self.flow.downgraded(model);
                    self.call.model = model.to_owned();
                }
                self.reservation = Some(reservation);
                FlowInput::Arrived
            }
            Err(refusal) => {
                shared.counters.budget_refusals.bump();
                FlowInput::NotReserved(refusal)
            }
        }
    }

    /// What to count, where this node has the model and counting is quick.
    fn counts_here(&self, view: &MeshView) -> Option<(ModelDigest, Input)> {
        let input = &self.call.input;
        let short = bytes(input) <= COUNTED_BYTES;
        let digest = view.own_model(&self.call.model).filter(|_| short)?;
        Some((digest, input.clone()))
    }

    /// What the call may take; exactly, where its prompt was counted. Whatever is wrong with the
    /// prompt, the engine says it later.
    fn meter(&self, counted: Option<u32>) -> Meter {
        let Call { input, max_tokens, .. } = &self.call;
        match counted {
            Some(prompt_tokens) => Meter::counted(prompt_tokens, *max_tokens),
            None => Meter::new(input, *max_tokens),
        }
    }

    /// Whether its key was revoked or its account suspended meanwhile.
    fn barred(&self) -> Option<FlowInput> {
        let why = self.shared.policies.bars(&self.call.account, self.call.key.as_ref())?;
        Some(FlowInput::Barred(why))
    }

    /// Notes what a piece takes of the reservation; whether it takes anything.
    fn count(&mut self, piece: &Piece) -> bool {
        let Some(reservation) = &mut self.reservation else { return false };
        match piece {
            Piece::Started { prompt_tokens, .. } => reservation.started(*prompt_tokens),
            Piece::Token(_) => reservation.token(),
            Piece::Moved { .. } => return false,
            // Whoever has the end finds it settled.
            Piece::Finished { usage, .. } => {
                reservation.finished(usage);
                self.reservation = None;
                return false;
            }
            Piece::Failed(_) => {
                self.reservation = None;
                return false;
            }
        }
        true
    }

    /// Why the answer must end here, if it must.
    async fn quota_ended(&mut self) -> Option<Refusal> {
        let refusal = self.reservation.as_mut()?.ended().await?;
        self.shared.counters.budget_ends.bump();
        Some(refusal)
    }

    async fn wait(&mut self) -> Woken {
        let patience = self.flow.wake_at().map_or(LOCAL_PULSE, |at| at.since(clock::mono()));
        let local = matches!(self.turn, Turn::Local { .. });
        tokio::select! {
            biased;
            () = self.to_caller.closed() => Woken::CallerLeft,
            Some(input) = self.local_events.recv() => Woken::Input(input),
            Some(input) = self.peer_events.recv() => Woken::Input(input),
            lost = extension(&mut self.reservation) => Woken::Extended(lost),
            () = change(&mut self.policy_changes) => Woken::PolicyChanged,
            () = tokio::time::sleep(LOCAL_PULSE.into()), if local => Woken::LocalPulse,
            () = tokio::time::sleep_until(Instant::now() + patience.into()) => Woken::Timer,
        }
    }

    fn route(&mut self, exclude: &[NodeId]) -> FlowInput {
        let need = Need {
            model: self.call.model.clone(),
            digest: self.digest,
            prompt_tokens: estimated_tokens(&self.call.input),
            answer_tokens: self.call.max_tokens,
            label: self.call.label,
        };
        let view = self.shared.view.load();
        let in_flight = self.shared.in_flight.snapshot();
        let routed = {
            let mut dice = self.shared.dice.lock();
            route::choose(&view, &need, exclude, &in_flight, &mut dice)
        };
        FlowInput::Routed(routed.map(|(digest, choice)| {
            self.digest = Some(digest);
            choice
        }))
    }

    fn dispatch(
        &mut self,
        fence: u64,
        to: NodeId,
        emitted: Option<Emitted>,
        deadline: Micros,
    ) -> Option<FlowInput> {
        let Some(model) = self.digest else {
            // Routing always settles the model before a dispatch; a refusal is still better than
            // a panic if that ever changes.
            return Some(FlowInput::Refused { fence, refusal: no_model(&self.call.model) });
        };
        if emitted.is_some() {
            self.shared.counters.resumed.bump();
        }
        self.ask(to);
        let request = GenerateRequest {
            id: self.call.id,
            model,
            input: self.call.input.clone(),
            sampling: self.call.sampling.clone(),
            max_tokens: self.call.max_tokens.unwrap_or(Limits::ANSWER_TOKENS),
            stop: self.call.stop.clone(),
            logprobs: self.call.logprobs,
            schema: self.call.schema.clone(),
            emitted,
        };
        if to == self.shared.me {
            let run = self.shared.run_id();
            let request = GenerateRequest { id: run, ..request };
            let sink = LocalSink { fence, events: self.from_engine.clone() };
            // A key of this node alone may be called as a tenant of the mesh is. What is shared is
            // an account's; turns are its tenant's, however many accounts that has.
            let (account, tenant) = (&self.call.account, &self.call.tenant);
            let turns = format!("{}|{tenant}", account.tenant());
            let asker = Asker {
                scope: &format!("{}|{tenant}", account.as_str()),
                tenant: &turns,
                group: &turns,
                priority: self.call.priority,
                within: Some(deadline),
            };
            return match self.shared.engine.submit_as(&asker, request, Box::new(sink)) {
                Ok(()) => {
                    self.turn = Turn::Local { fence, run };
                    Some(FlowInput::Accepted { fence })
                }
                Err(refusal) => Some(FlowInput::Refused { fence, refusal }),
            };
        }
        let handed = handoff::Handed {
            fence,
            to,
            tenant: self.call.tenant.clone(),
            label: self.call.label,
            deadline,
            receipt: self.receipt(fence, to, deadline),
            trace: self.asking.context(),
            request,
        };
        self.shared.counters.handed_off.bump();
        let outbound = handoff::send(Arc::clone(&self.shared), handed, self.from_peer.clone());
        self.turn = Turn::Peer { _outbound: outbound };
        None
    }

    /// What a serving peer is shown of the reservation. Of a tenant with hard budgets it wants to
    /// see a receipt also for those of its accounts that none of them counts.
    fn receipt(&self, fence: u64, serving: NodeId, deadline: Micros) -> Option<Receipt> {
        let (tokens, budgets) = match &self.reservation {
            Some(reservation) => (reservation.answers_for(), reservation.budgets()),
            None if self.shared.policies.is_hard(self.call.account.tenant()) => {
                (Meter::new(&self.call.input, self.call.max_tokens).answers_for(), &[][..])
            }
            None => return None,
        };
        Some(Receipt {
            request: self.call.id,
            ingest: self.shared.me,
            serving,
            account: self.call.account.to_string(),
            key: self.call.key.map(|key| key.to_string()),
            tokens,
            not_after_in: deadline,
            fence,
            budgets: budgets.iter().take(MAX_RECEIPT_BUDGETS).map(|budget| budget.0).collect(),
        })
    }

    /// Ends the present turn: a local engine is told, a peer notices that its stream was dropped.
    fn cancel(&mut self) {
        if let Turn::Local { run, .. } = self.turn {
            self.shared.engine.cancel(run);
        }
        self.turn = Turn::Nobody;
    }

    /// Gives the caller a piece, waiting for a slow one within reason; `false` when it is gone.
    async fn deliver(&mut self, piece: Piece) -> bool {
        if let Piece::Token(_) = &piece {
            self.shared.counters.answer_tokens.bump();
            self.asking.came();
        }
        let sent = tokio::time::timeout(CALLER_PATIENCE.into(), self.to_caller.send(piece)).await;
        matches!(sent, Ok(Ok(())))
    }

    fn local_pulse(&self) -> Option<FlowInput> {
        let Turn::Local { fence, .. } = self.turn else { return None };
        Some(FlowInput::Pulsed { fence, pulse: self.shared.pulse() })
    }

    fn settle(mut self) {
        // Whoever left and waits for the end may ask for more of the same budgets then.
        self.reservation = None;
        self.told();
        let record = self.flow.record();
        let counters = &self.shared.counters;
        if let Some(took) = record.first_token {
            counters.first_token(took);
        }
        match &record.outcome {
            Outcome::Finished { usage, .. } => {
                counters.finished.bump();
                counters.prompt_tokens.add(u64::from(usage.prompt_tokens));
            }
            Outcome::Failed(refusal) => {
                counters.failed.bump();
                tracing::debug!(request = %record.id, %refusal, "request failed");
            }
            Outcome::Cancelled | Outcome::Running => counters.cancelled.bump(),
        }
        self.keep();
    }

    /// Keeps the record as it is now.
    fn keep(&self) {
        let payer = (&self.call.account, self.call.key);
        let record = self.shared.records.keep(payer, self.flow.record().clone());
        if let Some(trace) = &self.call.trace {
            trace.recorded(&record);
        }
    }

    /// Notes for the trace that a node is asked, and that the one before is not any more.
    fn ask(&mut self, to: NodeId) {
        let why = self.why.take().unwrap_or(Code::Timeout.as_str());
        std::mem::take(&mut self.asking).failed(why);
        let shared = &self.shared;
        self.asking = Trace::ask(self.call.trace.as_ref(), &self.call.model, || {
            if to == shared.me {
                return Whom::Here;
            }
            Whom::Peer { node: shared.view.load().name_of(&to) }
        });
    }

    /// Notes for the trace how the last turn ended.
    fn told(&mut self) {
        let mut asking = std::mem::take(&mut self.asking);
        match &self.flow.record().outcome {
            Outcome::Finished { reason, usage } => {
                asking.note(|turn| turn.finish.push(finish_of(*reason)));
                asking.finished(Some(usage_of(usage)));
            }
            Outcome::Failed(refusal) => asking.failed(refusal.code.as_str()),
            Outcome::Cancelled | Outcome::Running => asking.failed(Code::Cancelled.as_str()),
        }
    }
}

/// Why a turn ends, if this ends it.
const fn failing(input: &FlowInput) -> Option<&'static str> {
    match input {
        FlowInput::Refused { refusal, .. }
        | FlowInput::Answered { answer: Answer::Failed(refusal), .. } => {
            Some(refusal.code.as_str())
        }
        FlowInput::Lost { .. } => Some(Code::PeerLost.as_str()),
        _ => None,
    }
}

/// Resolves when budgets answered a wish for more, or took back what they gave: why.
async fn extension(reservation: &mut Option<Reservation>) -> Option<Refusal> {
    match reservation {
        Some(reservation) => reservation.answer().await,
        None => std::future::pending().await,
    }
}

/// Resolves when the policy changed.
pub(crate) async fn change(changes: &mut Option<watch::Receiver<()>>) {
    let told = match changes {
        Some(changes) => changes.changed().await,
        None => std::future::pending().await,
    };
    if told.is_err() {
        // The sender lives in what the request shares.
        std::future::pending::<()>().await;
    }
}

/// Carries a local engine's events into the request's task.
struct LocalSink {
    fence: u64,
    events: mpsc::UnboundedSender<FlowInput>,
}

impl EventSink for LocalSink {
    fn send(&mut self, answer: Answer) -> bool {
        self.events.send(FlowInput::Answered { fence: self.fence, answer }).is_ok()
    }
}

/// Tokens a prompt will have, before any node has read it: four bytes a token is usual for English
/// text and errs towards too few for other scripts, which only blurs the estimate.
fn estimated_tokens(input: &Input) -> u32 {
    if let Input::Tokens(tokens) = input {
        return u32::try_from(tokens.len()).unwrap_or(u32::MAX);
    }
    u32::try_from(bytes(input) / 4 + 1).unwrap_or(u32::MAX)
}

fn bytes(input: &Input) -> usize {
    match input {
        Input::Chat(messages) => messages.iter().map(|message| message.content.len()).sum(),
        Input::Text(text) => text.len(),
        Input::Tokens(tokens) => 4 * tokens.len(),
        Input::Tooled(chat) => chat.bytes(),
    }
}

pub(crate) fn node_full() -> Refusal {
    let message = "this node answers as many requests as it may; try again shortly";
    Refusal::new(Stage::Admit, Blame::Us, Retry::After(FULL_RETRY), Code::Overloaded, message)
}

fn no_model(name: &str) -> Refusal {
    let message = format!("no node was chosen for model '{name}'");
    Refusal::new(Stage::Route, Blame::Us, Retry::Never, Code::Internal, message)
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
