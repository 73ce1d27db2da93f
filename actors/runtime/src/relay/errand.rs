//! A request that is carried out in a task of its own, until it ends or its caller leaves.
//!
//! Owns the permit, the count of what is under way, that each request is recorded once before its
//! caller hears the end, what budgets hold for one that the mesh answers, and what ends one early.
//! What is done for it is the errand's.

use std::sync::Arc;

use selvedge_base::{Micros, Mono, Refusal, RequestId};
use selvedge_contract::{FinishReason, Usage};
use selvedge_core::journey::Leg;
use selvedge_core::meter::Meter;
use selvedge_core::record::{Attempt, Outcome, RequestRecord};
use selvedge_net::clock;
use selvedge_proto::policy::{AccountPath, KeyId};
use tokio::sync::oneshot;

use crate::counters::Held;
use crate::gateway::{change, node_full};
use crate::quota::{Reservation, Takes, Wanted};
use crate::shared::Shared;
use crate::trace::Trace;

/// One request under way.
pub(super) trait Errand: Sized + Send + 'static {
    /// What is asked.
    type Call: Send + 'static;
    /// What comes of it.
    type Made: Send + 'static;
    /// Why nothing did.
    type Failure: From<Refusal> + Send + 'static;

    /// The beginning.
    fn new(shared: Arc<Shared>, call: Self::Call) -> Self;

    /// All that is to be done. Dropping the future ends it.
    fn run(&mut self) -> impl Future<Output = Result<Self::Made, Self::Failure>> + Send;

    /// Writes down how it ended; `None` where its caller left.
    fn record(self, ended: Option<&Result<Self::Made, Self::Failure>>);
}

/// Carries out a request. Dropping the future cancels the work. Must be called inside a tokio
/// runtime.
///
/// # Errors
/// The errand's; a refusal where the node has as many as it takes.
pub(super) async fn carry_out<E: Errand>(
    shared: &Arc<Shared>,
    call: E::Call,
) -> Result<E::Made, E::Failure> {
    let Ok(permit) = Arc::clone(&shared.permits).try_acquire_owned() else {
        shared.counters.turned_away.bump();
        return Err(node_full().into());
    };
    let (mut to_caller, answer) = oneshot::channel();
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let _permit = permit;
        let _in_flight = Held::new(&shared.counters.in_flight);
        let mut errand = E::new(Arc::clone(&shared), call);
        let ended = tokio::select! {
            biased;
            () = to_caller.closed() => None,
            ended = errand.run() => Some(ended),
        };
        // Whoever has the answer may ask for its record at once.
        errand.record(ended.as_ref());
        if let Some(ended) = ended {
            // A caller that left just now has been answered all the same.
            let _delivered = to_caller.send(ended);
        }
    });
    match answer.await {
        Ok(ended) => ended,
        // Its task panicked, and has told so.
        Err(_) => Err(super::nowhere().into()),
    }
}

/// A request that is over, but for how it ended.
pub(super) struct Past {
    pub(super) id: RequestId,
    pub(super) model: String,
    pub(super) tenant: String,
    pub(super) account: AccountPath,
    pub(super) key: Option<KeyId>,
    pub(super) trace: Option<Arc<Trace>>,
    pub(super) arrived: Mono,
    pub(super) legs: Vec<Leg>,
    pub(super) attempts: Vec<Attempt>,
}

impl Past {
    /// Keeps the one record of it and counts how it ended: with what it used, or why with nothing;
    /// `None`: its caller left.
    pub(super) fn record(self, shared: &Shared, ended: Option<Result<Usage, &Refusal>>) {
        let counters = &shared.counters;
        let took = clock::mono().since(self.arrived);
        let outcome = match ended {
            Some(Ok(usage)) => {
                counters.finished.bump();
                let usage = Usage { total: took, ..usage };
                Outcome::Finished { reason: FinishReason::Stop, usage }
            }
            Some(Err(refusal)) => {
                counters.failed.bump();
                Outcome::Failed(refusal.clone())
            }
            None => {
                counters.cancelled.bump();
                Outcome::Cancelled
            }
        };
        let record = RequestRecord {
            id: self.id,
            model: self.model,
            downgraded_to: None,
            tenant: self.tenant,
            legs: self.legs,
            attempts: self.attempts,
            outcome,
            took,
            first_token: None,
            longest_gap: None,
            saving: None,
        };
        let record = shared.records.keep((&self.account, self.key), record);
        if let Some(trace) = &self.trace {
            trace.recorded(&record);
        }
    }
}

/// What the budgets hold for a request that the mesh answers; nothing where none counts it. `asks`
/// says which model is to answer, and the most it takes. One model does not stand in for another
/// here: `no_stand_in` is the refusal where a budget wants that.
pub(super) async fn reserve(
    shared: &Shared,
    (id, deadline): (RequestId, Micros),
    (account, key): (&AccountPath, Option<KeyId>),
    asks: impl FnOnce() -> (String, Meter),
    no_stand_in: fn(&str) -> Refusal,
) -> Result<Option<Reservation>, Refusal> {
    if !shared.policies.limits(account, key.as_ref()) {
        return Ok(None);
    }
    let (model, meter) = asks();
    let (account, takes) = (account.clone(), Takes::Free(meter));
    let held = shared.quota.reserve(Wanted { id, account, key, model, takes, deadline }).await;
    let held = held.and_then(|held| match held.downgrade() {
        Some(other) => Err(no_stand_in(other)),
        None => Ok(Some(held)),
    });
    held.inspect_err(|_| shared.counters.budget_refusals.bump())
}

/// Resolves when the budgets take back what they gave: why the request must end.
pub(super) async fn lost(reservation: &mut Option<Reservation>) -> Refusal {
    loop {
        match reservation {
            Some(reservation) => {
                if let Some(refusal) = reservation.answer().await {
                    return refusal;
                }
            }
            None => return std::future::pending().await,
        }
    }
}

/// Resolves when the key was revoked or the account suspended: why the request must end.
pub(super) async fn barred(
    shared: &Shared,
    (account, key): (&AccountPath, Option<KeyId>),
) -> Refusal {
    let mut changes = Some(shared.policies.changes());
    loop {
        change(&mut changes).await;
        if let Some(barred) = shared.policies.bars(account, key.as_ref()) {
            return barred;
        }
    }
}
