//! A request that is carried out in a task of its own, until it ends or its caller leaves.
//!
//! Owns the permit, the count of what is under way, and that each request is recorded once before
//! its caller hears the end. What is done for it is the errand's.

use std::sync::Arc;

use selvedge_base::Refusal;
use tokio::sync::oneshot;

use crate::counters::Held;
use crate::gateway::node_full;
use crate::shared::Shared;

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
