//! What the engine's threads and its callers share: the models, the live requests, the counters.
//!
//! Owns every lock of the engine, all held for moments only, never while computing. The stepping
//! thread publishes what it does here; callers read it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use selvedge_base::{Code, Micros, ModelDigest, Mono, Refusal, RequestId, Stage};
use selvedge_contract::cost::completion_time;
use selvedge_contract::fair::{Crowded, Places};
use selvedge_contract::schedule::Drafts;
use selvedge_contract::{
    CostModel, EngineStatus, ModelCard, ModelState, ModelStatus, Signature, Tenant,
};

use crate::config::EngineConfig;
use crate::embed;
use crate::error::{EngineError, elsewhere, over_share, overloaded};
use crate::front;
use crate::gguf::Gguf;
use crate::mailbox::Mailbox;
use crate::memory::Memory;
use crate::onnx;
use crate::speech;
use crate::text::Text;
use crate::tuned::{Tuned, Versions};
use crate::vision;
use crate::worker::Message;

/// Models an engine keeps track of: far more than fit a machine's memory at once.
const MAX_MODELS: usize = 256;
/// How long a model rests for which the system had no thread, process or file to spare: what was
/// short may be there by then, and trying costs little.
const TRIED_AGAIN_AFTER: Micros = Micros::secs(10);
/// Doublings of it while each load fails: a load may throw other models out before it does, and
/// those are back at work in the five minutes that it comes to.
const MOST_DOUBLINGS: u32 = 5;
/// A refused caller does not come back sooner than this: less would be busy waiting.
const LEAST_WAIT: Micros = Micros::secs(1);
/// Nor is it sent away for longer than this: the estimate is not worth more.
const MOST_WAIT: Micros = Micros::secs(60);

/// The state behind an engine.
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) clock: Arc<dyn Fn() -> Mono + Send + Sync>,
    /// Requests to prepare.
    pub(crate) front: Mailbox<front::Message>,
    /// Requests to compute and orders about models.
    pub(crate) worker: Mailbox<Message>,
    /// Requests for vectors and orders about models that make them.
    pub(crate) desk: Mailbox<embed::Message>,
    /// Requests with tensors and orders about models that take them.
    pub(crate) tensors: Mailbox<onnx::Message>,
    /// Requests for what is said in sound, and orders about models that hear.
    pub(crate) hearing: Mailbox<speech::Message>,
    /// Requests with pictures, or for vectors of models that see, and orders about such models.
    pub(crate) sight: Mailbox<vision::Message>,
    pub(crate) progress: AtomicU64,
    pub(crate) computing: AtomicBool,
    pub(crate) models: Mutex<BTreeMap<ModelDigest, Entry>>,
    /// What is one of them with something added.
    tuned: Mutex<Versions>,
    live: Mutex<BTreeMap<RequestId, Live>>,
    /// What the models take, and who goes for whom.
    pub(crate) memory: Memory,
    /// Sequences that were paused.
    #[cfg(test)]
    pub(crate) pauses: AtomicU64,
}

/// A request between submission and its last event.
struct Live {
    model: ModelDigest,
    /// Whose it is, where models are shared out.
    /// Among whose requests its place is counted.
    group: Option<Tenant>,
    cancelled: Arc<AtomicBool>,
}

/// A request's place among the live ones. It is given up with its owner, however that ends.
pub(crate) struct Place {
    shared: Weak<Shared>,
    id: RequestId,
    /// How many loads of its model had been given up by then.
    pub(crate) turn: u64,
    /// Set when the request is cancelled.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.ended(self.id);
        }
    }
}

/// What models are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// Text after text.
    Text,
    /// Vectors of texts.
    Vectors,
    /// What is said in sound.
    Transcripts,
    /// Tensors.
    Tensors,
}

impl Made {
    const fn does(self) -> &'static str {
        match self {
            Self::Text => "generates text",
            Self::Vectors => "makes embeddings",
            Self::Transcripts => "writes down what is said in sound",
            Self::Tensors => "takes and gives tensors",
        }
    }

    const fn lacks(self) -> &'static str {
        match self {
            Self::Text => "generates no text",
            Self::Vectors => "makes no embeddings",
            Self::Transcripts => "hears nothing",
            Self::Tensors => "takes no tensors",
        }
    }
}

/// A model as callers see it.
pub(crate) struct Entry {
    card: ModelCard,
    path: PathBuf,
    state: ModelState,
    reason: Option<EngineError>,
    /// When one that failed is tried again, if the reason may be over then.
    again: Option<Mono>,
    /// Loads that failed since the last one that did not.
    failures: u32,
    text: Option<Arc<Text>>,
    makes: Makes,
    /// Requests submitted and not ended.
    accepted: usize,
    /// A load is under way or waits for memory.
    seeking: bool,
    /// How far the load under way has come, where that is counted.
    meter: Option<Meter>,
    /// Loads that were given up for want of memory, and what those are told who waited for the last
    /// of them.
    turns: u64,
    turned_away: Option<Refusal>,
    pulse: Pulse,
}

/// How far a load has come, by its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    done: Arc<AtomicU64>,
    all: u64,
}

impl Meter {
    /// Another tensor is in memory.
    pub(crate) fn advanced(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn percent(&self) -> u8 {
        let done = self.done.load(Ordering::Relaxed).saturating_mul(100);
        // A tensor may be read more than once.
        u8::try_from(done / self.all.max(1)).unwrap_or(100).min(100)
    }
}

/// What a model makes, where that is not text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Makes {
    /// Numbers of its vectors, of a model that makes them of texts.
    pub(crate) dimensions: Option<u32>,
    /// What it takes and gives, of a model that is asked with tensors.
    pub(crate) signature: Option<Arc<Signature>>,
    /// The classes that it tells of texts, if it does.
    pub(crate) classes: Option<Arc<Vec<String>>>,
}

/// What the stepping thread says of a model after each step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulse {
    pub(crate) running: usize,
    pub(crate) pending_tokens: u64,
    pub(crate) undrawn_tokens: u64,
    pub(crate) cost: CostModel,
    /// Microseconds that each token of an answer takes which comes next; 0 = not known.
    pub(crate) step_us: u32,
    pub(crate) drafts: Drafts,
}

impl Shared {
    pub(crate) fn new(
        config: EngineConfig,
        clock: Arc<dyn Fn() -> Mono + Send + Sync>,
    ) -> Arc<Self> {
        let memory = Memory::new(config.memory_budget_bytes);
        Arc::new(Self {
            config,
            clock,
            front: Mailbox::new(),
            worker: Mailbox::new(),
            desk: Mailbox::new(),
            tensors: Mailbox::new(),
            hearing: Mailbox::new(),
            sight: Mailbox::new(),
            progress: AtomicU64::new(0),
            computing: AtomicBool::new(false),
            models: Mutex::new(BTreeMap::new()),
            tuned: Mutex::default(),
            live: Mutex::new(BTreeMap::new()),
            memory,
            #[cfg(test)]
            pauses: AtomicU64::new(0),
        })
    }

    pub(crate) fn now(&self) -> Mono {
        (self.clock)()
    }

    /// Registers a model; an equal one that failed before is tried again.
    pub(crate) fn add(
        &self,
        card: ModelCard,
        path: PathBuf,
        makes: Makes,
    ) -> Result<bool, EngineError> {
        let mut models = self.models.lock();
        let taken = |(digest, entry): (&ModelDigest, &Entry)| {
            *digest != card.digest && entry.card.name == card.name
        };
        if models.iter().any(taken) {
            return Err(EngineError::NameTaken(card.name));
        }
        if models.len() >= MAX_MODELS && !models.contains_key(&card.digest) {
            return Err(EngineError::TooManyModels(MAX_MODELS));
        }
        let kept = self.config.keeps(&card.name);
        if let Some(entry) = models.get_mut(&card.digest) {
            let work = entry.accepted;
            self.memory.change(|account| account.added(card.digest, &card.name, kept, work));
            let load = entry.state == ModelState::Failed;
            if load {
                entry.state = ModelState::Cold;
                (entry.reason, entry.again) = (None, None);
            }
            (entry.card, entry.path, entry.makes) = (card, path, makes);
            return Ok(load);
        }
        // Requests of a model of this digest that was removed a moment ago may not have ended yet.
        let live = self.live.lock();
        let entry = Entry {
            card: card.clone(),
            path,
            state: ModelState::Cold,
            reason: None,
            again: None,
            failures: 0,
            text: None,
            makes,
            seeking: false,
            meter: None,
            turns: 0,
            turned_away: None,
            accepted: live.values().filter(|live| live.model == card.digest).count(),
            pulse: Pulse::default(),
        };
        let work = entry.accepted;
        self.memory.change(|account| account.added(card.digest, &card.name, kept, work));
        models.insert(card.digest, entry);
        Ok(true)
    }

    /// Forgets a model by name.
    pub(crate) fn remove(&self, name: &str) -> Option<ModelDigest> {
        let mut models = self.models.lock();
        let digest = models.iter().find(|(_, entry)| entry.card.name == name).map(|(d, _)| *d)?;
        models.remove(&digest);
        self.memory.change(|account| account.removed(digest));
        Some(digest)
    }

    /// Marks a cold model as loading; false when it is not cold, or waits for memory already.
    pub(crate) fn begin_loading(&self, digest: ModelDigest) -> bool {
        let mut models = self.models.lock();
        let cold = |entry: &&mut Entry| entry.state == ModelState::Cold && !entry.seeking;
        let Some(entry) = models.get_mut(&digest).filter(cold) else { return false };
        (entry.state, entry.seeking, entry.meter) = (ModelState::Loading, true, None);
        true
    }

    /// Begins to count how many of so many tensors of a model are in memory.
    pub(crate) fn measures(&self, digest: ModelDigest, all: usize) -> Meter {
        let meter = Meter { done: Arc::default(), all: all as u64 };
        if let Some(entry) = self.models.lock().get_mut(&digest) {
            entry.meter = Some(meter.clone());
        }
        meter
    }

    /// How much of a model is in memory, in percent, while it is loaded and that is known.
    pub(crate) fn loading(&self, digest: ModelDigest) -> Option<u8> {
        let models = self.models.lock();
        let entry = models.get(&digest).filter(|entry| entry.state == ModelState::Loading)?;
        entry.meter.as_ref().map(Meter::percent)
    }

    /// Notes where a model stands now; false when it was removed meanwhile.
    pub(crate) fn set_state(
        &self,
        digest: ModelDigest,
        state: ModelState,
        reason: Option<EngineError>,
    ) -> bool {
        let mut models = self.models.lock();
        let Some(entry) = models.get_mut(&digest) else { return false };
        (entry.state, entry.seeking) = (state, state == ModelState::Loading);
        (entry.reason, entry.again, entry.meter) = (reason, None, None);
        if state == ModelState::Ready {
            entry.failures = 0;
            let now = self.now();
            self.memory.change(|account| account.loaded(digest, now));
        }
        true
    }

    /// Notes that a load came to nothing. Another load of the same model may have been faster.
    pub(crate) fn load_failed(&self, digest: ModelDigest, reason: EngineError) {
        let now = self.now();
        self.memory.change(|account| account.given_up(digest));
        if let Some(entry) = self.models.lock().get_mut(&digest)
            && entry.seeking
        {
            entry.gave_up(reason, now);
        }
        self.worker.nudge();
        self.desk.nudge();
        self.tensors.nudge();
        self.hearing.nudge();
        self.sight.nudge();
    }

    /// Notes that a model's weights are gone, if it is known at all: it may have been added again.
    pub(crate) fn unloaded(&self, digest: ModelDigest) {
        if let Some(entry) = self.models.lock().get_mut(&digest)
            && entry.state == ModelState::Ready
        {
            entry.state = ModelState::Cold;
        }
    }

    /// What was measured of a model.
    pub(crate) fn cost(&self, digest: ModelDigest) -> CostModel {
        self.models.lock().get(&digest).map(|entry| entry.pulse.cost).unwrap_or_default()
    }

    /// Models that write answers.
    pub(crate) fn ready_models(&self) -> Vec<ModelDigest> {
        let models = self.models.lock();
        let ready = |entry: &Entry| entry.state == ModelState::Ready && entry.card.writes();
        let ready = models.iter().filter(|(_, entry)| ready(entry));
        ready.map(|(digest, _)| *digest).collect()
    }

    /// The model whose weights answer for a digest, and what is added to them.
    pub(crate) fn meant(&self, digest: ModelDigest) -> (ModelDigest, Option<Arc<Tuned>>) {
        match self.tuned.lock().find(digest) {
            Some(tuned) => (tuned.base, Some(tuned)),
            None => (digest, None),
        }
    }

    /// The file of a model that something of this name can be added to.
    pub(crate) fn tunable(&self, base: ModelDigest, name: &str) -> Result<PathBuf, EngineError> {
        let path = check_tunable(&self.models.lock(), base, name)?.path.clone();
        self.tuned.lock().has_room(name).map(|()| path)
    }

    /// A version takes the place of those before, for requests to come.
    pub(crate) fn tune(&self, tuned: Tuned) -> Result<ModelCard, EngineError> {
        let models = self.models.lock();
        let base = check_tunable(&models, tuned.base, &tuned.name)?;
        let card = base.card.tuned(&tuned.name, tuned.digest, tuned.round);
        self.tuned.lock().put(tuned)?;
        Ok(card)
    }

    /// Forgets a tuned model; what runs goes on. Whether there was one.
    pub(crate) fn untune(&self, name: &str) -> bool {
        self.tuned.lock().take(name)
    }

    pub(crate) fn dimensions(&self, digest: ModelDigest) -> Option<u32> {
        self.models.lock().get(&digest)?.makes.dimensions
    }

    pub(crate) fn signature(&self, digest: ModelDigest) -> Option<Arc<Signature>> {
        self.models.lock().get(&digest)?.makes.signature.clone()
    }

    pub(crate) fn classes(&self, digest: ModelDigest) -> Option<Arc<Vec<String>>> {
        self.models.lock().get(&digest)?.makes.classes.clone()
    }

    /// Whether a model sees pictures.
    pub(crate) fn sees(&self, digest: ModelDigest) -> bool {
        self.models.lock().get(&digest).is_some_and(|entry| entry.card.sees())
    }

    pub(crate) fn path(&self, digest: ModelDigest) -> Option<PathBuf> {
        self.models.lock().get(&digest).map(|entry| entry.path.clone())
    }

    pub(crate) fn failure(&self, digest: ModelDigest) -> Option<String> {
        let models = self.models.lock();
        models.get(&digest)?.reason.as_ref().map(ToString::to_string)
    }

    /// Why a request for a model cannot be answered that was admitted after so many loads had been
    /// given up, if so.
    pub(crate) fn unavailable(&self, digest: ModelDigest, turn: u64) -> Option<Refusal> {
        match self.models.lock().get(&digest) {
            None => Some(not_found()),
            Some(entry) if entry.state == ModelState::Failed => Some(entry.refusal()),
            Some(entry) if turn < entry.turns => entry.turned_away.clone(),
            Some(_) => None,
        }
    }

    /// Refuses what a model is not made for.
    pub(crate) fn check_makes(&self, digest: ModelDigest, wanted: Made) -> Result<(), Refusal> {
        let models = self.models.lock();
        let card = &models.get(&digest).ok_or_else(not_found)?.card;
        // One that compares pictures with texts makes two of these.
        let all = [
            (card.embeds(), Made::Vectors),
            (card.hears(), Made::Transcripts),
            (card.infers(), Made::Tensors),
            (card.writes(), Made::Text),
        ];
        let mut made = all.into_iter().filter(|(makes, _)| *makes).map(|(_, made)| made);
        let Some(first) = made.clone().next().filter(|_| made.all(|made| made != wanted)) else {
            return Ok(());
        };
        let made = first;
        let message = format!("model '{}' {}, and {}", card.name, made.does(), wanted.lacks());
        Err(Refusal::client(Stage::Validate, Code::Unsupported, message).param("model"))
    }

    /// A model's text side, read from its file at the first call.
    pub(crate) fn text(&self, digest: ModelDigest) -> Result<Arc<Text>, Refusal> {
        self.check_makes(digest, Made::Text)?;
        let path = {
            let models = self.models.lock();
            let entry = models.get(&digest).ok_or_else(not_found)?;
            match &entry.text {
                Some(text) => return Ok(Arc::clone(text)),
                None => entry.path.clone(),
            }
        };
        Gguf::open(&path).and_then(|gguf| self.read_text(digest, &gguf)).map_err(|error| {
            let refusal = error.to_refusal();
            self.text_failed(digest, error);
            refusal
        })
    }

    /// A model's text side from its open file, unless another thread was faster.
    pub(crate) fn read_text(
        &self,
        digest: ModelDigest,
        gguf: &Gguf,
    ) -> Result<Arc<Text>, EngineError> {
        let known = self.models.lock().get(&digest).and_then(|entry| entry.text.clone());
        if let Some(text) = known {
            return Ok(text);
        }
        let text = Arc::new(Text::read(gguf, &self.config.rendering, &self.clock)?);
        Ok(match self.models.lock().get_mut(&digest) {
            Some(entry) => Arc::clone(entry.text.get_or_insert(text)),
            None => text,
        })
    }

    /// Notes that a model has no usable text side. It is not tried with every request: a template
    /// may take seconds to fail. What passes is tried again in a while.
    fn text_failed(&self, digest: ModelDigest, reason: EngineError) {
        let now = self.now();
        if let Some(entry) = self.models.lock().get_mut(&digest)
            && entry.state == ModelState::Cold
        {
            entry.fail(reason, now);
        }
    }

    /// Admits a request of nobody in particular, or says when to come back.
    pub(crate) fn admit(
        self: &Arc<Self>,
        id: RequestId,
        model: ModelDigest,
    ) -> Result<Place, Refusal> {
        self.admit_of(id, model, None)
    }

    /// Admits a request, or says when to come back. A tenant, or a peer with all of its tenants,
    /// has no more places than its part.
    pub(crate) fn admit_of(
        self: &Arc<Self>,
        id: RequestId,
        model: ModelDigest,
        group: Option<&Tenant>,
    ) -> Result<Place, Refusal> {
        let mut models = self.models.lock();
        let entry = models.get_mut(&model).ok_or_else(not_found)?;
        entry.revive(self.now());
        if entry.state == ModelState::Failed {
            return Err(entry.refusal());
        }
        let mut live = self.live.lock();
        let own = |live: &&Live| group.is_some() && live.group.as_ref() == group;
        let own = live.values().filter(|live| live.model == model).filter(own).count();
        let places = Places { running: self.config.max_batch, waiting: self.config.max_queue };
        if let Err(crowded) = places.admit(entry.accepted, own) {
            return Err(entry.crowded(crowded, own, self.config.max_batch));
        }
        if live.contains_key(&id) {
            return Err(elsewhere(Code::Internal, format!("{id} is being answered already")));
        }
        entry.accepted += 1;
        let (work, turn, now) = (entry.accepted, entry.turns, self.now());
        self.memory.change(|account| account.worked(model, work, now));
        let cancelled = Arc::new(AtomicBool::new(false));
        let group = group.cloned();
        live.insert(id, Live { model, group, cancelled: Arc::clone(&cancelled) });
        Ok(Place { shared: Arc::downgrade(self), id, turn, cancelled })
    }

    /// Forgets a request that ended.
    fn ended(&self, id: RequestId) {
        // Both locks, models first as everywhere, so that `add` counts each request once.
        let mut models = self.models.lock();
        let Some(live) = self.live.lock().remove(&id) else { return };
        if let Some(entry) = models.get_mut(&live.model) {
            entry.accepted = entry.accepted.saturating_sub(1);
            let (work, now) = (entry.accepted, self.now());
            self.memory.change(|account| account.worked(live.model, work, now));
        }
    }

    pub(crate) fn cancel(&self, id: RequestId) {
        if let Some(live) = self.live.lock().get(&id) {
            live.cancelled.store(true, Ordering::Relaxed);
        }
        self.worker.nudge();
        self.desk.nudge();
        self.tensors.nudge();
        self.hearing.nudge();
        self.sight.nudge();
    }

    /// What was drafted for each model that writes, since it was loaded.
    pub(crate) fn drafts(&self) -> Vec<(String, Drafts)> {
        let models = self.models.lock();
        let writing = models.values().filter(|entry| entry.card.writes());
        writing.map(|entry| (entry.card.name.clone(), entry.pulse.drafts)).collect()
    }

    pub(crate) fn publish(&self, digest: ModelDigest, pulse: Pulse) {
        if let Some(entry) = self.models.lock().get_mut(&digest) {
            entry.pulse = pulse;
        }
    }

    pub(crate) fn status(&self) -> EngineStatus {
        let now = self.now();
        let mut models = self.models.lock();
        models.values_mut().for_each(|entry| entry.revive(now));
        let mut list: Vec<_> = models.values().map(Entry::status).collect();
        for tuned in self.tuned.lock().newest() {
            // Without its base it is not here, and a file's name is the file's.
            let free = models.values().all(|entry| entry.card.name != tuned.name);
            if let Some(base) = models.get(&tuned.base).filter(|_| free) {
                let status = base.status();
                let card = status.card.tuned(&tuned.name, tuned.digest, tuned.round);
                list.push(ModelStatus { card, ..status });
            }
        }
        list.sort_by(|a, b| a.card.name.cmp(&b.card.name));
        EngineStatus {
            progress: self.progress.load(Ordering::Relaxed),
            computing: self.computing.load(Ordering::Relaxed),
            loading: models.values().any(|entry| entry.state == ModelState::Loading),
            models: list,
        }
    }
}

impl Entry {
    /// Where its load stands, if there is one.
    pub(crate) fn seeks(&mut self, state: ModelState) {
        if self.seeking {
            self.state = state;
        }
    }

    /// It makes room for another. Its text side goes with its weights, and is read with them again.
    pub(crate) fn goes(&mut self) {
        if self.state == ModelState::Ready {
            self.state = ModelState::Cold;
        }
        self.text = None;
    }

    /// Its load came to nothing.
    fn gave_up(&mut self, reason: EngineError, now: Mono) {
        (self.seeking, self.meter) = (false, None);
        match reason {
            // There was no memory, and nobody who needs it; whoever comes begins another.
            EngineError::OutOfMemory { .. } | EngineError::Unwanted => {
                self.state = ModelState::Cold;
                // Of many models on disk, these would fill memory that nobody counts.
                self.text = None;
            }
            EngineError::Occupied { .. } => {
                let name = &self.card.name;
                tracing::warn!(%name, %reason, "requests for a model are turned away");
                self.turns += 1;
                self.turned_away = Some(reason.to_refusal());
                self.state = ModelState::Cold;
            }
            reason => {
                let name = &self.card.name;
                tracing::warn!(%name, %reason, "model could not be loaded");
                // Nothing was thrown out for one that others keep out.
                let more = u32::from(!matches!(reason, EngineError::KeptOut { .. }));
                self.fail(reason, now);
                self.failures = self.failures.saturating_add(more);
            }
        }
    }

    fn fail(&mut self, reason: EngineError, now: Mono) {
        let rest = TRIED_AGAIN_AFTER.times(1 << self.failures.min(MOST_DOUBLINGS));
        self.again = reason.passes().then(|| now.plus(rest));
        self.state = ModelState::Failed;
        self.reason = Some(reason);
    }

    /// Lets a model be tried again whose reason to fail may be over.
    fn revive(&mut self, now: Mono) {
        if self.state == ModelState::Failed && self.again.is_some_and(|again| now >= again) {
            self.state = ModelState::Cold;
            (self.reason, self.again) = (None, None);
        }
    }

    fn status(&self) -> ModelStatus {
        let running = self.pulse.running.min(self.accepted);
        ModelStatus {
            card: self.card.clone(),
            state: self.state,
            running: running as u32,
            queued: (self.accepted - running) as u32,
            pending_prompt_tokens: self.pulse.pending_tokens.min(u64::from(u32::MAX)) as u32,
            prefill_rate: self.pulse.cost.prefill_rate(),
            step_us: self.pulse.step_us,
        }
    }

    fn refusal(&self) -> Refusal {
        match &self.reason {
            Some(error) => error.to_refusal(),
            None => elsewhere(Code::ModelUnavailable, "the model could not be loaded"),
        }
    }

    /// The refusal where there is no place for one more of a tenant that has so many.
    fn crowded(&self, crowded: Crowded, own: usize, batch: usize) -> Refusal {
        let wait = self.wait(batch);
        match crowded {
            Crowded::Everybody => {
                let count = self.accepted;
                overloaded(format!("{count} requests are being answered already"), wait)
            }
            Crowded::Tenant(most) => over_share(
                format!(
                    "{own} of your requests are being answered or wait already, and beside those \
                     of others you may have {most}: wait for some to end"
                ),
                wait,
            ),
        }
    }

    /// When a place should be free: all that is pending, spread over a full batch.
    fn wait(&self, batch: usize) -> Micros {
        let cost = &self.pulse.cost;
        let answers = self.pulse.undrawn_tokens / batch.max(1) as u64;
        let (rate, step) = (cost.prefill_rate(), cost.step_us());
        completion_time(self.pulse.pending_tokens, rate, answers, step).clamp(LEAST_WAIT, MOST_WAIT)
    }
}

/// The model that something of this name can be added to.
fn check_tunable<'a>(
    models: &'a BTreeMap<ModelDigest, Entry>,
    base: ModelDigest,
    name: &str,
) -> Result<&'a Entry, EngineError> {
    let Some(base) = models.get(&base) else {
        return Err(EngineError::unsupported("the model that it adds to is not here"));
    };
    match models.values().any(|entry| entry.card.name == name) {
        true => Err(EngineError::NameTaken(name.to_owned())),
        false => Ok(base),
    }
}

fn not_found() -> Refusal {
    elsewhere(Code::ModelNotFound, "this node does not have the model")
}
