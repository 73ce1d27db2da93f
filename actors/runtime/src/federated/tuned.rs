//! Language models that jobs tuned, as the engine of this node answers by them.
//!
//! Owns the version of each, a snapshot that a fold replaces, and the task that tells the engine of
//! it wherever the engine has the base model. From then on it is a model of this node like any
//! other: the mesh hears of it, and nodes without the base hand requests to those with it. A name
//! that means anything else here is not taken away, as with models that tell classes.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_base::ModelDigest;
use selvedge_contract::Engine as _;
use selvedge_engine::{LocalEngine, TunedModel};
use selvedge_federated::round::Tip;
use selvedge_train::{TrainError, Tuning};

use super::jobs::name_taken;
use super::state::JobState;
use super::trained::weight;
use crate::relay::taken;
use crate::shared::Shared;
use crate::task::Run;

/// What names of versions are derived for.
const VERSIONS: &str = "selvedge 2026 version of a tuned model";

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
            let mut answering = Answering { shared, engine, known: BTreeMap::new() };
            loop {
                answering.look().await;
                // A round may end, a base come or go, and another model take the name.
                let changed = tokio::select! {
                    changed = jobs.changed() => changed,
                    changed = view.changed() => changed,
                };
                if changed.is_err() {
                    // The senders live in `shared`.
                    return Ok(());
                }
            }
        })
    })
}

/// What the engine was told.
struct Answering {
    shared: Arc<Shared>,
    engine: Arc<LocalEngine>,
    /// By name, the version that answers.
    known: BTreeMap<String, ModelDigest>,
}

impl Answering {
    /// Tells the engine what it does not know yet.
    async fn look(&mut self) {
        let wanted = self.shared.federation.tuned();
        self.known.retain(|name, _| {
            let stays = wanted.iter().any(|(state, _)| state.name() == name);
            if !stays {
                self.engine.untune(name);
            }
            stays
        });
        for (state, tuned) in wanted {
            match self.answer(&state, &tuned).await {
                Ok(()) => state.answers(Ok(tuned.round)),
                Err(why) => {
                    if self.known.remove(state.name()).is_some() {
                        self.engine.untune(state.name());
                    }
                    state.answers(Err(why));
                }
            }
        }
    }

    async fn answer(&mut self, state: &JobState, tuned: &Arc<Tuned>) -> Result<(), String> {
        let name = state.name();
        if let Some(what) = taken(&self.shared, name) {
            return Err(name_taken(name, what));
        }
        let has = |digest| self.engine.status().models.iter().any(|m| m.card.digest == digest);
        if !has(tuned.base()) {
            return Err(format!(
                "this node has no base model '{}'; it hands requests to nodes that have it, and \
                 `selvedge models pull` fetches models",
                tuned.tuning.base.escape_debug()
            ));
        }
        if self.known.get(name) == Some(&tuned.digest) {
            return Ok(());
        }
        let (engine, tuned, own) = (Arc::clone(&self.engine), Arc::clone(tuned), name.to_owned());
        let digest = tuned.digest;
        let told = tokio::task::spawn_blocking(move || {
            let model = tuned.model(&own).map_err(|error| error.to_string())?;
            engine.tune(model).map_err(|error| error.to_string())
        });
        told.await.map_err(|error| error.to_string())??;
        tracing::info!(job = name, round = state.progress().round, "a tuned model answers");
        self.known.insert(name.to_owned(), digest);
        Ok(())
    }
}
