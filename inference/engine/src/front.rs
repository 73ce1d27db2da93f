//! The threads that turn requests into tokens.
//!
//! Owns tokenizing and templates off the stepping thread, so that a long prompt delays nobody's
//! next token. Each model has a thread of its own for it, from its first request until it
//! leaves: a template that hangs delays its own model's prompts alone. A panic in one costs the
//! request that caused it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use selvedge_base::{Code, ModelDigest, Mono};
use selvedge_contract::{Answer, Claim, GenerateRequest, Scope};

use crate::error::{EngineError, elsewhere};
use crate::guide;
use crate::job::{Job, Outlet, Prepared, cancelled};
use crate::mailbox::Mailbox;
use crate::shared::Shared;
use crate::tuned::Tuned;
use crate::worker;

/// What the thread that hands out is told.
pub(crate) enum Message {
    /// A request to prepare.
    Order(Box<Order>),
    /// A model was removed, or makes room for another.
    Removed(ModelDigest),
}

/// A request to prepare.
pub(crate) struct Order {
    /// With whom its pages may be shared.
    pub(crate) scope: Scope,
    /// Whose turn it takes.
    pub(crate) claim: Claim,
    /// What is added to the request's model, if anything is.
    pub(crate) tuned: Option<Arc<Tuned>>,
    pub(crate) request: GenerateRequest,
    pub(crate) outlet: Outlet,
    pub(crate) submitted: Mono,
}

/// One model's thread.
struct Lane {
    orders: Arc<Mailbox<Box<Order>>>,
    thread: JoinHandle<()>,
}

/// Hands requests to their models' threads until the engine closes.
pub(crate) fn run(shared: &Arc<Shared>) {
    // No more of them than models, whose number is bounded.
    let mut lanes: BTreeMap<ModelDigest, Lane> = BTreeMap::new();
    while let Some(message) = shared.front.take() {
        match message {
            Message::Order(order) => hand_out(shared, &mut lanes, order),
            // Its thread ends after the request it is at.
            Message::Removed(digest) => drop(lanes.remove(&digest).map(|lane| lane.orders.close())),
        }
    }
    lanes.values().for_each(|lane| lane.orders.close());
    for message in shared.front.drain() {
        if let Message::Order(order) = message {
            order.fail(closing());
        }
    }
    for lane in lanes.into_values() {
        if lane.thread.join().is_err() {
            tracing::error!("a thread that prepares prompts had panicked");
        }
    }
}

fn hand_out(shared: &Arc<Shared>, lanes: &mut BTreeMap<ModelDigest, Lane>, order: Box<Order>) {
    let model = order.request.model;
    let lane = match lanes.remove(&model) {
        Some(lane) => lane,
        None => {
            // Removed meanwhile, it would have a thread for ever.
            if let Some(refusal) = shared.unavailable(model, order.outlet.turn()) {
                return order.fail(refusal);
            }
            match Lane::start(shared, model) {
                Ok(lane) => lane,
                Err(error) => return order.fail(error.to_refusal()),
            }
        }
    };
    // Only this thread closes it, and then it is not among them any more.
    if let Err(order) = lane.orders.push(order) {
        order.fail(closing());
    }
    lanes.insert(model, lane);
}

impl Lane {
    fn start(shared: &Arc<Shared>, model: ModelDigest) -> Result<Self, EngineError> {
        let orders = Arc::new(Mailbox::new());
        let (shared, theirs) = (Arc::clone(shared), Arc::clone(&orders));
        let thread = std::thread::Builder::new()
            .name("selvedge-prompt".to_owned())
            .stack_size(guide::STACK_BYTES)
            .spawn(move || prepare_all(&shared, model, &theirs))
            .map_err(|error| EngineError::Thread(error.to_string()))?;
        Ok(Self { orders, thread })
    }
}

impl Order {
    fn fail(mut self, refusal: selvedge_base::Refusal) {
        self.outlet.send(Answer::Failed(refusal));
    }
}

/// Prepares the requests for one model until it is removed or the engine closes.
fn prepare_all(shared: &Arc<Shared>, model: ModelDigest, orders: &Mailbox<Box<Order>>) {
    while let Some(order) = orders.take() {
        prepare(shared, *order);
    }
    for order in orders.drain() {
        let turn = order.outlet.turn();
        order.fail(shared.unavailable(model, turn).unwrap_or_else(closing));
    }
}

/// The refusal for what an engine did not finish before it ended.
pub(crate) fn closing() -> selvedge_base::Refusal {
    elsewhere(Code::ModelUnavailable, "the node is shutting down")
}

fn prepare(shared: &Arc<Shared>, order: Order) {
    let Order { scope, claim, tuned, request, mut outlet, submitted } = order;
    let id = request.id;
    if outlet.is_cancelled() {
        outlet.send(Answer::Failed(cancelled()));
        return;
    }
    let text = match shared.text(request.model) {
        Ok(text) => text,
        Err(refusal) => {
            outlet.send(Answer::Failed(refusal));
            return;
        }
    };
    let prepared =
        catch_unwind(AssertUnwindSafe(|| Job::prepare(scope, request, outlet, text, submitted)));
    match prepared {
        Ok(Ok(Prepared::Job(mut job))) => {
            (job.tuned, job.claim) = (tuned, claim);
            if let Err(worker::Message::Job(job)) = shared.worker.push(worker::Message::Job(job)) {
                job.fail(closing());
            }
        }
        Ok(Ok(Prepared::Done)) => {}
        Ok(Err((mut outlet, refusal))) => {
            outlet.send(Answer::Failed(refusal));
        }
        Err(_) => {
            // The outlet went down with the panic and said so.
            tracing::error!(%id, "preparing a request panicked");
        }
    }
}
