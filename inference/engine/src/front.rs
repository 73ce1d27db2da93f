//! The thread that turns requests into tokens.
//!
//! Owns tokenizing and templates off the stepping thread, so that a long prompt delays nobody's
//! next token. A panic in it costs the request that caused it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use selvedge_base::{Code, Mono};
use selvedge_contract::{Answer, GenerateRequest, Scope};

use crate::error::elsewhere;
use crate::job::{Job, Outlet, Prepared, cancelled};
use crate::shared::Shared;
use crate::tuned::Tuned;
use crate::worker::Message;

/// A request to prepare.
pub(crate) struct Order {
    /// With whom its pages may be shared.
    pub(crate) scope: Scope,
    /// What is added to the request's model, if anything is.
    pub(crate) tuned: Option<Arc<Tuned>>,
    pub(crate) request: GenerateRequest,
    pub(crate) outlet: Outlet,
    pub(crate) submitted: Mono,
}

/// Prepares requests until the engine closes.
pub(crate) fn run(shared: &Arc<Shared>) {
    while let Some(order) = shared.front.take() {
        prepare(shared, order);
    }
    for mut order in shared.front.drain() {
        order.outlet.send(Answer::Failed(closing()));
    }
}

/// The refusal for what an engine did not finish before it ended.
pub(crate) fn closing() -> selvedge_base::Refusal {
    elsewhere(Code::ModelUnavailable, "the node is shutting down")
}

fn prepare(shared: &Arc<Shared>, order: Order) {
    let Order { scope, tuned, request, mut outlet, submitted } = order;
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
            job.tuned = tuned;
            if let Err(Message::Job(job)) = shared.worker.push(Message::Job(job)) {
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
