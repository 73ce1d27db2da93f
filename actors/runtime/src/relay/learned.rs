//! Classes of rows of numbers, by models that jobs of learning made: admit → version → reserve →
//! compute → settle.
//!
//! Owns one task per request. Every node that follows a job has its model, so a request is answered
//! where it is asked, by the newest version that this node has. A name that means anything else
//! here (a route, a model of the mesh or of a provider) means that: jobs take no name away.

use std::sync::Arc;

use selvedge_base::{Blame, Code, Micros, Mono, Refusal, RequestId, Retry, Stage};
use selvedge_contract as contract;
use selvedge_core::bill::Took;
use selvedge_core::journey::{Journey, Step, Target};
use selvedge_core::meter::Meter;
use selvedge_dialect::inference::rows::{Asked, Card, Found};
use selvedge_net::clock;
use selvedge_proto::policy::{AccountPath, KeyId};

use super::errand::{self, Past, lost};
use crate::federated::{Labelled, Labeller, Learned, Served, unknown_request as unknown};
use crate::gateway::Gateway;
use crate::quota::Reservation;
use crate::shared::Shared;
use crate::trace::{CLASSES, Trace, Whom};

/// How long to wait for the first round of a job: a LAN's rounds take seconds.
const FIRST_ROUND: Micros = Micros::secs(5);

/// One request for classes, authenticated and understood.
#[derive(Clone, Debug)]
pub struct ClassCall {
    /// Names the answer everywhere.
    pub id: RequestId,
    /// Whose request it is, for records.
    pub tenant: String,
    /// Whose budgets it counts against.
    pub account: AccountPath,
    /// The key of the mesh it came with, whose own budgets count too.
    pub key: Option<KeyId>,
    /// Time the answer may take.
    pub deadline: Micros,
    /// Its place in a trace, if it has one.
    pub trace: Option<Arc<Trace>>,
    /// The model's name.
    pub model: String,
    /// The version that must answer; none: the newest.
    pub version: Option<String>,
    /// What is asked.
    pub asked: Asked,
}

impl Gateway {
    /// What is known of the model of a job, where this node follows one of this name.
    ///
    /// # Errors
    /// Why it does not answer here.
    pub fn learned(&self, name: &str) -> Option<Result<Card, Refusal>> {
        let learned = self.shared.federation.learned(name)?;
        Some(learned.map(|learned| card(&learned)).map_err(|why| not_here(name, &why)))
    }

    /// What means a name that a job has or wants, before the job does: a route, or a model of the
    /// mesh or of a provider. In words; nothing where the name is the job's.
    pub fn name_taken(&self, name: &str) -> Option<&'static str> {
        taken(&self.shared, name)
    }

    /// Gives a past request to a learned model the labels that its examples should have had: this
    /// node's jobs may learn from them.
    ///
    /// # Errors
    /// A refusal where no such request of whoever asks is kept here, its model is not known here
    /// now, labels do not fit, or the disk fails.
    pub async fn label(
        &self,
        id: RequestId,
        by: Labeller,
        labels: Vec<u32>,
    ) -> Result<Labelled, Refusal> {
        let federation = &self.shared.federation;
        let model = federation.log().find(id, &by).await.ok_or_else(unknown)?;
        let learned = match federation.learned(&model) {
            Some(learned) => learned.map_err(|why| not_here(&model, &why))?,
            None => return Err(no_classes(&model)),
        };
        let classes = learned.model.schema.classes;
        let beyond = |label: &&u32| usize::try_from(**label).map_or(true, |at| at >= classes);
        if let Some(label) = labels.iter().find(beyond) {
            let message =
                format!("label {label}: '{model}' tells {classes} classes, counted from 0");
            let refusal = Refusal::client(Stage::Validate, Code::InvalidRequest, message);
            return Err(refusal.param("labels"));
        }
        federation.log().label(&model, id, &by, labels).await
    }

    /// The classes of a request's examples. Dropping the future cancels the work. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn classify(&self, call: ClassCall) -> Result<Found, Refusal> {
        errand::carry_out::<Errand>(&self.shared, call).await
    }
}

/// One request under way.
struct Errand {
    shared: Arc<Shared>,
    call: ClassCall,
    journey: Journey,
    arrived: Mono,
    deadline: Mono,
}

impl errand::Errand for Errand {
    type Call = ClassCall;
    type Made = Found;
    type Failure = Refusal;

    fn new(shared: Arc<Shared>, call: ClassCall) -> Self {
        let arrived = clock::mono();
        let target = Target::Mesh { model: call.model.clone() };
        let why = "a job of learning has this name".to_owned();
        let deadline = arrived.plus(call.deadline);
        Self { journey: Journey::new([(target, why)]), shared, call, arrived, deadline }
    }

    async fn run(&mut self) -> Result<Found, Refusal> {
        if let Some(refusal) = self.shared.policies.bars(&self.call.account, self.call.key.as_ref())
        {
            return Err(refusal);
        }
        let (served, rows) = self.version()?;
        let mut reservation = self.reserve().await?;
        if let Step::Fail(refusal) = self.journey.begin() {
            return Err(refusal);
        }
        self.shared.counters.admitted.bump();
        let mut asking = Trace::ask(self.call.trace.as_ref(), &self.call.model, || Whom::Here);
        asking.note(|turn| turn.operation = CLASSES);
        let values = std::mem::take(&mut self.call.asked.values);
        let log = self.shared.federation.log();
        let kept = log.keeps(&self.call.model).then(|| values.clone());
        let version = served.round;
        let desk = self.shared.federation.desk();
        let told = match desk.room(values) {
            Ok(waiting) => {
                if let Some(reservation) = &mut reservation {
                    // There are no tokens; from here on it counts as one request, also where its
                    // time is over or its caller leaves: it had its place in the queue.
                    reservation.started(0);
                }
                tokio::select! {
                    biased;
                    lost = lost(&mut reservation) => Err(lost),
                    barred = errand::barred(&self.shared, self.payer()) => Err(barred),
                    told = desk.classify(served, waiting, self.deadline) => told,
                }
            }
            Err(full) => Err(full),
        };
        let told = match told {
            Ok(told) if told.classes.len() == rows => told,
            Ok(_) => return Err(super::nowhere()),
            Err(refusal) => {
                asking.failed(refusal.code.as_str());
                self.journey.failed(refusal.clone());
                return Err(refusal);
            }
        };
        self.journey.took(Took::default());
        asking.finished(None);
        // Whoever has the answer finds it settled.
        drop(reservation);
        if let Some(values) = kept {
            let ClassCall { id, account, key, model, .. } = &self.call;
            log.note((model, *id), (account, *key), rows, values);
        }
        let classes = told.classes.iter().map(|class| i64::from(*class)).collect();
        Ok(Found { version, probabilities: told.probabilities, classes })
    }

    /// Keeps the record of the request; `None`: its caller left.
    fn record(mut self, ended: Option<&Result<Found, Refusal>>) {
        let ended = ended.map(|ended| ended.as_ref().map(|_| contract::Usage::default()));
        let legs = self.journey.take_legs();
        let ClassCall { id, tenant, account, key, trace, model, .. } = self.call;
        let (arrived, attempts) = (self.arrived, Vec::new());
        let past = Past { id, model, tenant, account, key, trace, arrived, legs, attempts };
        past.record(&self.shared, ended);
    }
}

impl Errand {
    /// The one version that answers, and how many examples it is asked of.
    fn version(&self) -> Result<(Arc<Served>, usize), Refusal> {
        let ClassCall { model, version, asked, .. } = &self.call;
        let learned = match self.shared.federation.learned(model) {
            Some(learned) => learned.map_err(|why| not_here(model, &why))?,
            None => {
                let message =
                    format!("there is no model '{model}'; `selvedge models list` lists them");
                let refusal = Refusal::client(Stage::Route, Code::ModelNotFound, message);
                return Err(refusal.param("model"));
            }
        };
        let card = card(&learned);
        check_version(model, &card, version.as_deref())?;
        let rows = asked.rows(&card)?;
        let served = learned.served.ok_or_else(|| not_yet(model))?;
        Ok((served, rows))
    }

    /// What the budgets hold for it: one request.
    async fn reserve(&self) -> Result<Option<Reservation>, Refusal> {
        let times = (self.call.id, self.call.deadline);
        let asks = || (self.call.model.clone(), Meter::counted(0, Some(0)));
        errand::reserve(&self.shared, times, self.payer(), asks, no_stand_in).await
    }

    /// Whose budgets it counts against.
    const fn payer(&self) -> (&AccountPath, Option<KeyId>) {
        (&self.call.account, self.call.key)
    }
}

/// What means a name before a job does.
pub(crate) fn taken(shared: &Shared, name: &str) -> Option<&'static str> {
    if shared.routing.has(name) {
        return Some("a route");
    }
    if shared.view.load().has_file(name) {
        return Some("a model of the mesh");
    }
    let providers = shared.providers.all();
    let provided = providers.values().any(|open| open.spec().model(name).is_some());
    provided.then_some("a model of a provider")
}

/// A refusal of what talks or makes vectors, where the name is that of a learned model and no node
/// of the mesh answers to it.
pub(super) fn no_talker(shared: &Shared, name: &str) -> Option<Refusal> {
    if let Some(why) = shared.federation.not_tuned(name) {
        let message = format!("no node that can be reached answers as '{name}'; here: {why}");
        let retry = Retry::After(FIRST_ROUND);
        let code = Code::ModelUnavailable;
        return Some(Refusal::new(Stage::Route, Blame::Us, retry, code, message).param("model"));
    }
    shared.federation.learned(name).map(|_| tells_classes(name))
}

/// The refusal of what talks or makes vectors by a learned model.
pub fn tells_classes(name: &str) -> Refusal {
    let message = format!(
        "'{name}' is a model that a job of learning made: it tells classes of rows of numbers and \
         writes nothing; ask it with `selvedge infer {name}` or at POST /v2/models/{name}/infer"
    );
    Refusal::client(Stage::Route, Code::Unsupported, message).param("model")
}

fn card(learned: &Learned) -> Card {
    Card {
        example: Served::example(&learned.model),
        classes: learned.model.schema.classes,
        version: learned.served.as_ref().map(|served| served.round),
        job: learned.job.clone(),
        rounds: learned.rounds,
    }
}

/// Whether a model has the version that is asked for. None and an empty one are the newest.
///
/// # Errors
/// A refusal that says which one it has, or that it has none yet.
pub fn check_version(model: &str, card: &Card, version: Option<&str>) -> Result<(), Refusal> {
    let Some(now) = card.version else { return Err(not_yet(model)) };
    match version.filter(|version| !version.is_empty()) {
        Some(version) if version != now.to_string() => {
            let shown: String = version.chars().take(32).collect();
            let message = format!(
                "model '{model}' has the version {now} here, which is the rounds it learned in, \
                 and not '{shown}': only the newest is served"
            );
            let refusal = Refusal::client(Stage::Route, Code::ModelNotFound, message);
            Err(refusal.param("model_version"))
        }
        _ => Ok(()),
    }
}

fn not_yet(model: &str) -> Refusal {
    let message =
        format!("model '{model}' has learned nothing yet: the first round of its job is not over");
    let retry = Retry::After(FIRST_ROUND);
    Refusal::new(Stage::Route, Blame::Us, retry, Code::ModelUnavailable, message).param("model")
}

fn not_here(model: &str, why: &str) -> Refusal {
    let message = format!("the job that learns model '{model}' does not run at this node: {why}");
    let retry = Retry::Elsewhere;
    Refusal::new(Stage::Route, Blame::Us, retry, Code::ModelUnavailable, message).param("model")
}

fn no_classes(model: &str) -> Refusal {
    let message = format!(
        "no job that learns '{model}' is known here now, so nobody can tell which labels fit: \
         submit it again, or take its requests away with `selvedge label --forget {model}`"
    );
    let retry = Retry::After(FIRST_ROUND);
    Refusal::new(Stage::Validate, Blame::Us, retry, Code::ModelUnavailable, message).param("id")
}

fn no_stand_in(model: &str) -> Refusal {
    let message = format!(
        "the budget for this model is used up, and '{model}', which stands in for it, tells no \
         classes"
    );
    let (stage, blame) = (Stage::Reserve, Blame::Client);
    Refusal::new(stage, blame, Retry::Never, Code::QuotaExhausted, message)
}
