//! The model that a job has learned so far, as it answers.
//!
//! Owns the snapshot that requests take, which a fold replaces as a whole, and the one thread that
//! computes for all of them. A request keeps the snapshot it took, so it is answered by one version
//! from beginning to end. Decides nothing: who may ask and what it costs is the relay's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use selvedge_base::{Blame, Code, Micros, Mono, Refusal, Retry, Stage};
use selvedge_federated::round::Tip;
use selvedge_net::clock;
use selvedge_train::{Classified, Classifier, Local, Model, Shape, TrainError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::trained::weight;

/// Requests that compute at a time: small matrices are multiplied faster by one thread than by two,
/// and a node's other cores have other requests to answer.
const AT_ONCE: usize = 1;

/// Values of examples that wait or are computed, of all requests: 64 MiB, which a core computes in
/// seconds.
const MAX_WAITING_VALUES: usize = 16 << 20;

/// After which to ask again: what waits is computed in seconds.
const FULL_FOR: Micros = Micros::secs(2);

/// One version of a job's model.
pub(crate) struct Served {
    /// Rounds folded into it: its version.
    pub(crate) round: u64,
    model: Model,
    weights: Vec<f32>,
    /// Made for the first request that asks: most versions are never asked.
    built: OnceLock<Result<Classifier, String>>,
}

impl Served {
    /// The model at a tip.
    pub(super) fn of(model: &Model, tip: &Tip) -> Self {
        let weights = tip.server.model().iter().map(|units| weight(*units)).collect();
        Self { round: tip.round, model: model.clone(), weights, built: OnceLock::new() }
    }

    /// The sides of one example.
    pub(crate) fn example(model: &Model) -> Vec<usize> {
        match model.schema.shape {
            Shape::Flat(values) => vec![values],
            Shape::Image { channels, height, width } => vec![channels, height, width],
        }
    }

    /// Touches a core for milliseconds the first time.
    fn classifier(&self) -> Result<&Classifier, Refusal> {
        let built = self.built.get_or_init(|| {
            Classifier::new(&self.model, &self.weights).map_err(|error| error.to_string())
        });
        built.as_ref().map_err(|why| broken(why))
    }
}

/// Where learned models compute.
pub(crate) struct Desk {
    local: Mutex<Option<Arc<Local>>>,
    turns: Arc<Semaphore>,
    /// Room for values.
    room: Arc<Semaphore>,
}

/// Examples that have their room.
pub(crate) struct Waiting {
    values: Vec<f32>,
    room: OwnedSemaphorePermit,
}

/// Tells the work that nobody wants it any more.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Desk {
    pub(super) fn new() -> Self {
        let (turns, room) = (Semaphore::new(AT_ONCE), Semaphore::new(MAX_WAITING_VALUES));
        Self { local: Mutex::default(), turns: Arc::new(turns), room: Arc::new(room) }
    }

    /// Room for examples that wait and are computed: how much may is bounded.
    ///
    /// # Errors
    /// A refusal when there is none for so many values.
    pub(crate) fn room(&self, values: Vec<f32>) -> Result<Waiting, Refusal> {
        let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(count).map_err(|_| full())?;
        Ok(Waiting { values, room })
    }

    /// What a model makes of examples, within this time. Requests wait for each other in the order
    /// they came. Dropping the future ends the work at its next piece.
    ///
    /// # Errors
    /// A refusal of values that no answer comes of, or when the time was over.
    pub(crate) async fn classify(
        &self,
        served: Arc<Served>,
        Waiting { values, room }: Waiting,
        until: Mono,
    ) -> Result<Classified, Refusal> {
        let left = until.since(clock::mono());
        let turn = tokio::time::timeout(left.into(), Arc::clone(&self.turns).acquire_owned());
        let turn = turn.await.map_err(|_| late())?.map_err(|closed| broken(&closed))?;
        let local = self.local()?;
        let is_wanted = Arc::new(AtomicBool::new(true));
        let _wanted = Wanted(Arc::clone(&is_wanted));
        let work = tokio::task::spawn_blocking(move || {
            let (_turn, _room) = (turn, room);
            let go_on = || is_wanted.load(Ordering::Relaxed) && clock::mono() < until;
            served.classifier()?.classify(&local, &values, go_on).map_err(refused)
        });
        work.await.map_err(|panic| broken(&panic))??.ok_or_else(late)
    }

    fn local(&self) -> Result<Arc<Local>, Refusal> {
        let mut local = self.local.lock();
        if let Some(local) = &*local {
            return Ok(Arc::clone(local));
        }
        let made = Arc::new(Local::called("classify").map_err(|error| broken(&error))?);
        *local = Some(Arc::clone(&made));
        Ok(made)
    }
}

fn refused(error: TrainError) -> Refusal {
    match error {
        TrainError::Unclear { .. } | TrainError::Schema(_) => {
            let (stage, code) = (Stage::Validate, Code::InvalidRequest);
            Refusal::client(stage, code, error.to_string()).param("input")
        }
        error => broken(&error),
    }
}

fn full() -> Refusal {
    let message = "too many examples wait for this node's learned models; ask again, or for fewer";
    let retry = Retry::After(FULL_FOR);
    Refusal::new(Stage::Admit, Blame::Us, retry, Code::Overloaded, message)
}

fn late() -> Refusal {
    let message = "the classes were not told within the request's time";
    Refusal::new(Stage::Execute, Blame::Us, Retry::Never, Code::Timeout, message)
}

fn broken(why: &dyn std::fmt::Display) -> Refusal {
    let message = format!("the computation of the classes broke down: {why}");
    Refusal::new(Stage::Execute, Blame::Us, Retry::Elsewhere, Code::Internal, message)
}

#[cfg(test)]
mod tests {
    use selvedge_train::{Layer, Schema};

    use super::super::TrainedModel;
    use super::super::state::JobState;
    use super::super::test_rounds::{job_file, run};
    use super::*;

    #[test]
    fn a_fold_replaces_the_model_and_who_has_the_old_one_keeps_it() {
        let ran = run(&job_file("rounds = 2", ""), false);
        let first = ran.told.first().expect("a beginning");
        let state = JobState::new("small", &ran.told, tokio::sync::watch::Sender::new(()));
        state.follows(&ran.told.job, &first);
        assert!(state.served().is_none(), "first weights know nothing");
        let early = Tip { round: 1, ..first };
        state.follows(&ran.told.job, &early);
        let old = state.served().expect("a model");
        state.follows(&ran.told.job, &ran.tip);
        let new = state.served().expect("a model");
        assert_eq!((old.round, new.round), (1, 2));
        let trained = TrainedModel::of("small", &ran.told, &ran.tip).expect("a model");
        assert_eq!(new.weights, trained.weights, "what answers is what is exported");
        assert_ne!(new.weights, old.weights);
    }

    fn served(weights: &[f32]) -> Arc<Served> {
        let schema = Schema { shape: Shape::Flat(2), classes: 2 };
        let model = Model { schema, hidden: Vec::<Layer>::new() };
        let weights = weights.to_vec();
        Arc::new(Served { round: 3, model, weights, built: OnceLock::new() })
    }

    fn soon() -> Mono {
        clock::mono().plus(Micros::secs(60))
    }

    async fn ask(
        desk: &Desk,
        served: &Arc<Served>,
        values: Vec<f32>,
        until: Mono,
    ) -> Result<Classified, Refusal> {
        desk.classify(Arc::clone(served), desk.room(values)?, until).await
    }

    #[tokio::test]
    async fn a_model_answers_and_many_take_turns() {
        let desk = Desk::new();
        let served = served(&[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let ask = |values: Vec<f32>| ask(&desk, &served, values, soon());
        let (one, other, both) =
            tokio::join!(ask(vec![1.0, 0.0]), ask(vec![0.0, 1.0]), ask(vec![1.0, 0.0, 0.0, 1.0]));
        let classes = |found: Result<Classified, Refusal>| found.unwrap_or_default().classes;
        assert_eq!((classes(one), classes(other), classes(both)), (vec![0], vec![1], vec![0, 1]));
    }

    #[tokio::test]
    async fn whose_fault_it_is_is_told() {
        let desk = Desk::new();
        let good = served(&[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let huge = ask(&desk, &good, vec![f32::MAX, f32::MAX], soon()).await;
        assert_eq!(huge.expect_err("too large").code, Code::InvalidRequest);
        let wild = served(&[f32::MAX, f32::MAX, 0.0, 1.0, 0.0, 0.0]);
        let refusal = ask(&desk, &wild, vec![9.0, 9.0], soon()).await.expect_err("infinite");
        assert_eq!((refusal.code, refusal.blame), (Code::InvalidRequest, Blame::Client));
        let over = ask(&desk, &good, vec![0.0, 0.0], Mono(0)).await;
        assert_eq!(over.expect_err("too late").code, Code::Timeout);
        let bad = ask(&desk, &served(&[1.0]), vec![0.0, 0.0], soon()).await;
        assert_eq!(bad.expect_err("no such model").code, Code::Internal);
    }

    #[tokio::test]
    async fn who_finds_no_room_is_told_when_to_ask_again() {
        let desk = Desk::new();
        let first = desk.room(vec![0.0; MAX_WAITING_VALUES]).expect("there is room");
        let refusal = desk.room(vec![0.0]).err().expect("there is none");
        assert_eq!((refusal.code, refusal.stage), (Code::Overloaded, Stage::Admit));
        drop(first);
        assert!(desk.room(vec![0.0]).is_ok());
    }
}
