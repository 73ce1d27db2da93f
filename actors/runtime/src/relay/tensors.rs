//! Inferences of models that are asked with tensors: admit → who has it → reserve → here, or a peer
//! that has it → settle.
//!
//! Owns one task per request. A model of this node is run here; of one that only peers have, each
//! that is within reach is asked in turn until one answers or says that the request is at fault. A
//! name that is a route means that. What runs a model is the engine's, what a peer is told
//! `selvedge_contract::carried`'s.

mod elsewhere;

use std::sync::Arc;

use selvedge_base::{
    Blame, Code, Micros, ModelDigest, Mono, NodeId, Refusal, RequestId, Retry, Stage,
};
use selvedge_contract as contract;
use selvedge_contract::carried::Carried;
use selvedge_core::bill::Took;
use selvedge_core::journey::{Journey, Step, Target};
use selvedge_core::meter::Meter;
use selvedge_core::route;
use selvedge_dialect::inference::tensors::Asked;
use selvedge_net::clock;
use selvedge_proto::policy::{AccountPath, KeyId};
use selvedge_proto::wire::Label;
use tokio::sync::oneshot;

use super::aim;
use super::errand::{self, Past, lost};
use crate::gateway::Gateway;
use crate::quota::Reservation;
use crate::serve::CancelOnDrop;
use crate::shared::Shared;
use crate::trace::{INFERENCE, Trace, Whom};

/// One inference, authenticated and understood.
#[derive(Clone, Debug)]
pub struct TensorCall {
    /// Names the answer everywhere.
    pub id: RequestId,
    /// Whose request it is, for records and for what peers serve.
    pub tenant: String,
    /// Whose budgets it counts against.
    pub account: AccountPath,
    /// The key of the mesh it came with, whose own budgets count too.
    pub key: Option<KeyId>,
    /// How far the data may travel, if the caller said.
    pub label: Option<Label>,
    /// Time the answer may take.
    pub deadline: Micros,
    /// Its place in a trace, if it has one.
    pub trace: Option<Arc<Trace>>,
    /// The model's name.
    pub model: String,
    /// What is asked; none: what the model takes and gives.
    pub asked: Option<Asked>,
}

impl Gateway {
    /// Whether a name means a model of the mesh that is asked with tensors.
    pub fn takes_tensors(&self, model: &str) -> bool {
        if self.shared.routing.has(model) {
            return false;
        }
        match aim::by_name(&self.shared, model).targets.into_iter().next() {
            Some((Target::Mesh { model }, _)) => self.shared.view.load().infers(&model),
            Some((Target::Provider { .. }, _)) | None => false,
        }
    }

    /// What a model takes and gives, or the tensors that it gives. Dropping the future cancels the
    /// work. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn infer(&self, call: TensorCall) -> Result<Carried, Refusal> {
        errand::carry_out::<Errand>(&self.shared, call).await
    }
}

/// One request under way.
struct Errand {
    shared: Arc<Shared>,
    call: TensorCall,
    journey: Journey,
    arrived: Mono,
    deadline: Mono,
}

impl errand::Errand for Errand {
    type Call = TensorCall;
    type Made = Carried;
    type Failure = Refusal;

    fn new(shared: Arc<Shared>, call: TensorCall) -> Self {
        let arrived = clock::mono();
        let target = Target::Mesh { model: call.model.clone() };
        let why = "a model of the mesh has this name".to_owned();
        let deadline = arrived.plus(call.deadline);
        Self { journey: Journey::new([(target, why)]), shared, call, arrived, deadline }
    }

    async fn run(&mut self) -> Result<Carried, Refusal> {
        if let Some(refusal) = self.shared.policies.bars(&self.call.account, self.call.key.as_ref())
        {
            return Err(refusal);
        }
        let view = self.shared.view.load_full();
        let label = self.call.label.unwrap_or(Label::Mesh);
        let (digest, holders) = route::holders(&view, &self.call.model, label)?;
        let asked = self.call.asked.take();
        if asked.is_none() {
            // Nothing is computed for it.
            return match self.shared.engine.signature(digest) {
                Some(signature) => Ok(Carried::Signature((*signature).clone())),
                None => self.elsewhere(digest, &holders, None, &mut None).await,
            };
        }
        let model = view.plain_model_name(&self.call.model);
        let mut reservation = self.reserve(model).await?;
        if let Step::Fail(refusal) = self.journey.begin() {
            return Err(refusal);
        }
        self.shared.counters.admitted.bump();
        let made = self.anywhere(digest, &holders, asked, &mut reservation).await;
        match &made {
            Ok(_) => self.journey.took(Took::default()),
            Err(refusal) => drop(self.journey.failed(refusal.clone())),
        }
        // Whoever has the answer finds it settled.
        drop(reservation);
        made
    }

    /// Keeps the record of the request; `None`: its caller left.
    fn record(mut self, ended: Option<&Result<Carried, Refusal>>) {
        if matches!(ended, Some(Ok(Carried::Signature(_)))) {
            return;
        }
        let ended = ended.map(|ended| ended.as_ref().map(|_| contract::Usage::default()));
        let legs = self.journey.take_legs();
        let TensorCall { id, tenant, account, key, trace, model, .. } = self.call;
        let (arrived, attempts) = (self.arrived, Vec::new());
        let past = Past { id, model, tenant, account, key, trace, arrived, legs, attempts };
        past.record(&self.shared, ended);
    }
}

impl Errand {
    async fn anywhere(
        &self,
        digest: ModelDigest,
        holders: &[NodeId],
        asked: Option<Asked>,
        reservation: &mut Option<Reservation>,
    ) -> Result<Carried, Refusal> {
        if let Some(reservation) = reservation {
            // There are no tokens; from here on it counts as one request, also where its time is
            // over or its caller leaves: it had its place in the queue.
            reservation.started(0);
        }
        if !holders.contains(&self.shared.me) {
            return self.elsewhere(digest, holders, asked, reservation).await;
        }
        let again = if holders.len() > 1 { asked.clone() } else { None };
        let mut asking = Trace::ask(self.call.trace.as_ref(), &self.call.model, || Whom::Here);
        asking.note(|turn| turn.operation = INFERENCE);
        let (made, is_ours) = tokio::select! {
            biased;
            lost = lost(reservation) => (Err(lost), false),
            barred = errand::barred(&self.shared, self.payer()) => (Err(barred), false),
            made = self.here(digest, asked.unwrap_or_default()) => (made, true),
        };
        match &made {
            Ok(_) => asking.finished(None),
            Err(refusal) => asking.failed(refusal.code.as_str()),
        }
        match made {
            // This node's own copy cannot: it is full, or the file is damaged. Where nobody else
            // can either, that is the reason that counts.
            Err(refusal) if is_ours && again.is_some() && moves(&refusal) => {
                let made = self.elsewhere(digest, holders, again, reservation).await;
                made.map_err(|_| refusal)
            }
            made => made,
        }
    }

    /// The engine's outputs, within the request's time.
    async fn here(&self, model: ModelDigest, asked: Asked) -> Result<Carried, Refusal> {
        let id = self.shared.run_id();
        let within = self.deadline.since(clock::mono());
        let outputs = asked.outputs();
        let request = contract::InferRequest { id, model, inputs: asked.inputs, outputs, within };
        let (sink, end) = oneshot::channel();
        let sink = Box::new(move |made| {
            // Nobody listens when the request was given up.
            let _heard = sink.send(made);
        });
        let _cancel = CancelOnDrop { shared: &self.shared, id };
        self.shared.engine.infer(request, sink)?;
        match tokio::time::timeout(within.into(), end).await {
            Ok(Ok(made)) => made.map(Carried::Tensors),
            Ok(Err(_)) => {
                let message = "the computation of the outputs broke down";
                Err(ours(Retry::Elsewhere, Code::Internal, message))
            }
            Err(_) => Err(late()),
        }
    }

    /// What the budgets hold for it: one request.
    async fn reserve(&self, model: String) -> Result<Option<Reservation>, Refusal> {
        let times = (self.call.id, self.call.deadline);
        let asks = || (model, Meter::counted(0, Some(0)));
        errand::reserve(&self.shared, times, self.payer(), asks, no_stand_in).await
    }

    /// Whose budgets it counts against.
    const fn payer(&self) -> (&AccountPath, Option<KeyId>) {
        (&self.call.account, self.call.key)
    }
}

fn ours(retry: Retry, code: Code, message: &str) -> Refusal {
    Refusal::new(Stage::Execute, Blame::Us, retry, code, message)
}

/// Whether another node may do what this one refuses.
fn moves(refusal: &Refusal) -> bool {
    matches!(refusal.retry, Retry::Elsewhere) && refusal.blame != Blame::Client
}

fn late() -> Refusal {
    ours(Retry::Never, Code::Timeout, "the outputs were not there within the request's time")
}

fn no_stand_in(model: &str) -> Refusal {
    let message = format!(
        "the budget for this model is used up, and '{model}', which stands in for it, takes other \
         inputs"
    );
    let (stage, blame) = (Stage::Reserve, Blame::Client);
    Refusal::new(stage, blame, Retry::Never, Code::QuotaExhausted, message)
}
