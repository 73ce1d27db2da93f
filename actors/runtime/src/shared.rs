//! What the request path looks at without asking anyone: snapshots, counters, permits.
//!
//! Owns no behaviour beyond short synchronous reads and writes. Actors replace the snapshots; the
//! request path only reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use selvedge_base::{
    Blame, Code, Dice, Micros, ModelDigest, NodeId, Refusal, RequestId, Retry, Stage,
};
use selvedge_contract::{Engine, Input};
use selvedge_core::auth::KeyRing;
use selvedge_core::receive::{Receipts, ReceivePolicy};
use selvedge_core::route::MeshView;
use selvedge_federated::refusals::Refusals;
use selvedge_net::{Endpoint, Identity};
use selvedge_proto::swim::Pulse;
use tokio::sync::{Semaphore, watch};

use crate::answers::Purges;
use crate::counters::Counters;
use crate::federated::Federation;
use crate::hardware::Machines;
use crate::line::MeshLine;
use crate::policies::Policies;
use crate::providers::Providers;
use crate::quota::QuotaLine;
use crate::records::Records;
use crate::relay::CacheLine;
use crate::relay::speech::Sounds;
use crate::routing::Routing;
use crate::trace::Tracer;

/// Prompts that are counted or continued at a time: each takes a thread of a pool that has other
/// work too, and a template that hangs takes one for seconds.
const MAX_PREPARING: usize = 8;
/// How long a prompt waits for a place among them: one takes a millisecond, so a burst gets through
/// and only what waits for templates that hang is refused.
const PLACE_WITHIN: Micros = Micros::secs(2);

/// Everything requests share.
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) engine: Arc<dyn Engine>,
    /// Where the running mesh actor is.
    pub(crate) mesh: MeshLine,
    pub(crate) view: ArcSwap<MeshView>,
    /// Told whenever the view was replaced by a different one.
    pub(crate) view_changed: watch::Sender<()>,
    pub(crate) keys: ArcSwap<KeyRing>,
    pub(crate) receive: ReceivePolicy,
    /// Receipts of hand-offs worked on here.
    pub(crate) receipts: Mutex<Receipts>,
    /// This node's machine, and those of its peers.
    pub(crate) machines: Machines,
    /// Signs receipts.
    pub(crate) identity: Arc<Identity>,
    /// Who has which budget.
    pub(crate) policies: Arc<Policies>,
    /// What may be spent.
    pub(crate) quota: QuotaLine,
    pub(crate) counters: Arc<Counters>,
    pub(crate) records: Records,
    /// Who is asked outside the mesh.
    pub(crate) providers: Arc<Providers>,
    /// Which targets a model's name leads to.
    pub(crate) routing: Arc<Routing>,
    /// What is learned across the mesh.
    pub(crate) federation: Arc<Federation>,
    /// Answers kept for equal requests, if any are.
    pub(crate) cache: Option<CacheLine>,
    /// What was purged in the mesh, known also where no answers are kept.
    pub(crate) purges: Arc<Purges>,
    /// Who is told of requests, if anybody is.
    pub(crate) tracer: Option<Arc<Tracer>>,
    /// One per request this node may answer at a time.
    pub(crate) permits: Arc<Semaphore>,
    /// Prompts that are counted and continued.
    pub(crate) preparing: Preparing,
    /// Sound that is decoded and held.
    pub(crate) sounds: Sounds,
    /// Requests handed to each peer and not yet over.
    pub(crate) in_flight: Tally,
    /// Requests of each peer running here.
    pub(crate) serving: Tally,
    /// Peers whose streams could not be read, as people are told of them.
    pub(crate) unread: Mutex<Refusals>,
    pub(crate) dice: Mutex<Dice>,
}

impl Shared {
    /// A name for one run on the local engine. Callers' and peers' own ids are not used there: two
    /// runs under one name could be cancelled for each other.
    pub(crate) fn run_id(&self) -> RequestId {
        let mut dice = self.dice.lock();
        RequestId((u128::from(dice.next()) << 64) | u128::from(dice.next()))
    }

    /// A prompt's tokens. The model's chat template may take seconds to fail, so this waits off the
    /// threads that everything else runs on; so does [`Self::begun`].
    pub(crate) async fn count_tokens(
        &self,
        model: ModelDigest,
        input: Input,
    ) -> Result<u32, Refusal> {
        let engine = Arc::clone(&self.engine);
        self.preparing.apart(move || engine.count_tokens(model, &input)).await
    }

    /// The tokens of a prompt whose answer begins with `text`.
    pub(crate) async fn begun(
        &self,
        model: ModelDigest,
        input: Input,
        text: String,
    ) -> Result<Vec<u32>, Refusal> {
        let engine = Arc::clone(&self.engine);
        self.preparing.apart(move || engine.begun(model, &input, &text)).await
    }

    /// What the local engine does now, as heartbeats and hand-offs report it.
    pub(crate) fn pulse(&self) -> Pulse {
        let status = self.engine.status();
        // What is tuned says of itself what its base does: they share a batch.
        let files = || status.models.iter().filter(|model| model.card.round().is_none());
        Pulse {
            progress: status.progress,
            computing: status.computing,
            loading: status.loading,
            running: files().map(|model| model.running).sum(),
            queued: files().map(|model| model.queued).sum(),
        }
    }
}

/// Work on prompts, off the threads that everything else runs on.
pub(crate) struct Preparing(Arc<Semaphore>);

impl Default for Preparing {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_PREPARING)))
    }
}

impl Preparing {
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let place = Arc::clone(&self.0).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(PLACE_WITHIN.into(), place).await else {
            let message = "other prompts are being prepared; ask again in a second";
            let retry = Retry::After(Micros::secs(1));
            return Err(Refusal::new(Stage::Execute, Blame::Us, retry, Code::Overloaded, message));
        };
        // The work keeps its place when whoever wanted it has left: its thread is taken all the
        // same.
        let work = move || {
            let _place = place;
            work()
        };
        // Only a panic or the end of the runtime comes in between.
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
            let message = "preparing the prompt broke down";
            Err(Refusal::new(Stage::Execute, Blame::Us, Retry::Elsewhere, Code::Internal, message))
        })
    }
}

/// Counts of things in flight per node; an entry exists only while its count is above zero, so the
/// map is bounded by what is in flight.
#[derive(Default)]
pub(crate) struct Tally(Mutex<BTreeMap<NodeId, u32>>);

impl Tally {
    /// Adds one for a node until the guard is dropped.
    pub(crate) fn hold(&self, node: NodeId) -> TallyGuard<'_> {
        *self.0.lock().entry(node).or_default() += 1;
        TallyGuard { tally: self, node }
    }

    /// The count of a node.
    pub(crate) fn count(&self, node: &NodeId) -> usize {
        self.0.lock().get(node).copied().unwrap_or(0) as usize
    }

    /// All counts.
    pub(crate) fn snapshot(&self) -> BTreeMap<NodeId, u32> {
        self.0.lock().clone()
    }
}

/// Takes its one back when dropped.
pub(crate) struct TallyGuard<'a> {
    tally: &'a Tally,
    node: NodeId,
}

impl Drop for TallyGuard<'_> {
    fn drop(&mut self) {
        let mut counts = self.tally.0.lock();
        if let Some(count) = counts.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn prompts_that_hang_have_the_others_refused_and_not_kept() {
        let preparing = Preparing::default();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let hanging = || {
            let held = Arc::clone(&held);
            // Ends with `release`.
            preparing.apart(move || Ok(held.lock().recv().is_err()))
        };
        let mut work: Vec<_> = (0..MAX_PREPARING).map(|_| Box::pin(hanging())).collect();
        for one in &mut work {
            let begun = tokio::time::timeout(std::time::Duration::ZERO, one).await;
            assert!(begun.is_err(), "it hangs");
        }
        // Whoever wanted them has left; their threads are taken all the same.
        drop(work);
        let long = tokio::time::advance(std::time::Duration::from_secs(3));
        let (refused, ()) = tokio::join!(preparing.apart(|| Ok(())), long);
        let refusal = refused.unwrap_err();
        assert_eq!(refusal.code, Code::Overloaded);
        assert!(matches!(refusal.retry, Retry::After(_)));
        drop(release);
        let places = preparing.0.acquire_many(MAX_PREPARING as u32).await;
        assert_eq!(places.unwrap().num_permits(), MAX_PREPARING);
    }
}
