//! Language models that jobs tuned, as the engine of this node answers by them.
//!
//! Owns the version of each, a snapshot that a fold replaces, and the task that tells the engine of
//! it wherever the engine has the base model. From then on it is a model of this node like any
//! other: the mesh hears of it, and nodes without the base hand requests to those with it. A name
//! that means anything else here is not taken away, as with models that tell classes.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_base::{Micros, ModelDigest, Mono};
use selvedge_contract::Engine as _;
use selvedge_engine::{LocalEngine, TunedModel};
use selvedge_federated::round::Tip;
use selvedge_net::clock;
use selvedge_train::{TrainError, Tuning};

use super::jobs::name_taken;
use super::state::JobState;
use super::trained::weight;
use crate::relay::taken;
use crate::shared::Shared;
use crate::task::Run;

/// What names of versions are derived for.
const VERSIONS: &str = "selvedge 2026 version of a tuned model";
/// How long a version rests that the engine could not take. Drawing it takes a core for seconds,
/// and the view of the mesh changes with every heartbeat of a node that computes.
const TRIED_AGAIN_AFTER: Micros = Micros::secs(60);

/// One version of a job's language model.
pub(crate) struct Tuned {
    /// Rounds folded into it: its version.
    pub(crate) round: u64,
    /// Names it at all nodes alike.
    digest: ModelDigest,
    tuning: Tuning,
    /// Every B.
    weights: Vec<f32>,
}

impl Tuned {
    /// The model at a tip.
    pub(super) fn of(tuning: &Tuning, tip: &Tip) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(VERSIONS);
        hasher.update(&tuning.digest).update(&tip.job).update(&tip.record);
        let weights = tip.server.model().iter().map(|units| weight(*units)).collect();
        Self {
            round: tip.round,
            digest: ModelDigest(*hasher.finalize().as_bytes()),
            tuning: tuning.clone(),
            weights,
        }
    }

    /// The model as the engine takes it, under a job's name. Draws millions of numbers.
    ///
    /// # Errors
    /// [`TrainError`] for weights that are not those of the tuning.
    pub(super) fn model(&self, name: &str) -> Result<TunedModel, TrainError> {
        self.tuning.version(name, self.digest, self.round, &self.weights)
    }

    const fn base(&self) -> ModelDigest {
        ModelDigest(self.tuning.digest)
    }
}

/// Lets the engine answer by the newest versions, as a supervised task.
pub(crate) fn serving(shared: Arc<Shared>, engine: Arc<LocalEngine>) -> Run {
    Arc::new(move || {
        let (shared, engine) = (Arc::clone(&shared), Arc::clone(&engine));
        Box::pin(async move {
            let mut jobs = shared.federation.changes();
            let mut view = shared.view_changed.subscribe();
            let (known, failed) = (BTreeMap::new(), Failed::default());
            let mut answering = Answering { shared, engine, known, failed };
            loop {
                answering.look().await;
                let rest = answering.failed.rest(clock::mono());
                // A round may end, a base come or go, and another model take the name.
                let changed = tokio::select! {
                    changed = jobs.changed() => changed,
                    changed = view.changed() => changed,
                    () = rested(rest) => Ok(()),
                };
                if changed.is_err() {
                    // The senders live in `shared`.
                    return Ok(());
                }
            }
        })
    })
}

/// Waits until what failed may be tried again, if anything failed.
async fn rested(rest: Option<Micros>) {
    match rest {
        Some(rest) => tokio::time::sleep(rest.into()).await,
        None => std::future::pending().await,
    }
}

/// What the engine was told.
struct Answering {
    shared: Arc<Shared>,
    engine: Arc<LocalEngine>,
    /// By name, the version that answers.
    known: BTreeMap<String, ModelDigest>,
    failed: Failed,
}

/// Versions that the engine could not take, by their jobs' names: the newest of each, when that
/// was, and why.
#[derive(Default)]
struct Failed(BTreeMap<String, (ModelDigest, Mono, String)>);

impl Failed {
    /// Why a version is not tried now, if so.
    fn why(&self, name: &str, digest: ModelDigest, now: Mono) -> Option<&str> {
        let (failed, at, why) = self.0.get(name)?;
        let stands = *failed == digest && now.since(*at) < TRIED_AGAIN_AFTER;
        stands.then_some(why.as_str())
    }

    /// How long until the first of them may be tried again.
    fn rest(&self, now: Mono) -> Option<Micros> {
        let rest = |at: &Mono| Micros(TRIED_AGAIN_AFTER.0.saturating_sub(now.since(*at).0));
        self.0.values().map(|(_, at, _)| rest(at)).min()
    }
}

/// Why a version does not answer.
enum Why {
    /// What it stands on is not here; nor may an earlier version answer.
    Gone(String),
    /// The engine could not take it; the one before answers on.
    NotTaken(String),
}

impl Answering {
    /// Tells the engine what it does not know yet.
    async fn look(&mut self) {
        let wanted = self.shared.federation.tuned();
        let stays = |name: &String| wanted.iter().any(|(state, _)| state.name() == name);
        self.failed.0.retain(|name, _| stays(name));
        self.known.retain(|name, _| {
            let stays = stays(name);
            if !stays {
                self.engine.untune(name);
            }
            stays
        });
        for (state, tuned) in wanted {
            match self.answer(&state, &tuned).await {
                Ok(()) => state.answers(Ok(tuned.round)),
                Err(Why::NotTaken(why)) => state.answers(Err(why)),
                Err(Why::Gone(why)) => {
                    self.failed.0.remove(state.name());
                    if self.known.remove(state.name()).is_some() {
                        self.engine.untune(state.name());
                    }
                    state.answers(Err(why));
                }
            }
        }
    }

    async fn answer(&mut self, state: &JobState, tuned: &Arc<Tuned>) -> Result<(), Why> {
        let name = state.name();
        if let Some(what) = taken(&self.shared, name) {
            return Err(Why::Gone(name_taken(name, what)));
        }
        let has = |digest| self.engine.status().models.iter().any(|m| m.card.digest == digest);
        if !has(tuned.base()) {
            return Err(Why::Gone(format!(
                "this node has no base model '{}'; it hands requests to nodes that have it, and \
                 `selvedge models pull` fetches models",
                tuned.tuning.base.escape_debug()
            )));
        }
        if self.known.get(name) == Some(&tuned.digest) {
            self.failed.0.remove(name);
            return Ok(());
        }
        let digest = tuned.digest;
        if let Some(why) = self.failed.why(name, digest, clock::mono()) {
            return Err(Why::NotTaken(why.to_owned()));
        }
        if let Err(why) = self.take(name, tuned).await {
            self.failed.0.insert(name.to_owned(), (digest, clock::mono(), why.clone()));
            return Err(Why::NotTaken(why));
        }
        tracing::info!(job = name, round = state.progress().round, "a tuned model answers");
        self.failed.0.remove(name);
        self.known.insert(name.to_owned(), digest);
        Ok(())
    }

    /// Has the engine take a version.
    async fn take(&self, name: &str, tuned: &Arc<Tuned>) -> Result<(), String> {
        // Nothing is drawn for an engine that cannot use it.
        self.engine.tunes().map_err(|error| error.to_string())?;
        let (engine, tuned, own) = (Arc::clone(&self.engine), Arc::clone(tuned), name.to_owned());
        let told = tokio::task::spawn_blocking(move || {
            let model = tuned.model(&own).map_err(|error| error.to_string())?;
            engine.tune(model).map_err(|error| error.to_string())
        });
        told.await.map_err(|error| error.to_string())?.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_failed_rests_and_another_one_does_not() {
        let (one, other) = (ModelDigest([1; 32]), ModelDigest([2; 32]));
        let began = Mono(7_000_000);
        let mut failed = Failed::default();
        assert_eq!((failed.why("a", one, began), failed.rest(began)), (None, None));
        failed.0.insert("a".to_owned(), (one, began, "no memory".to_owned()));
        let last = Mono(began.0 + TRIED_AGAIN_AFTER.0 - 1);
        for now in [began, last] {
            assert_eq!(failed.why("a", one, now), Some("no memory"));
            assert_eq!(failed.why("a", other, now), None, "a new round is tried at once");
            assert_eq!(failed.why("b", one, now), None);
        }
        assert_eq!(failed.rest(began), Some(TRIED_AGAIN_AFTER));
        assert_eq!(failed.rest(last), Some(Micros(1)));
        let over = Mono(last.0 + 1);
        assert_eq!((failed.why("a", one, over), failed.rest(over)), (None, Some(Micros(0))));
    }
}
