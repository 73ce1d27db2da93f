//! The thread of one kind of models: one loop over requests, step by step, for all models of that
//! kind that an engine has.
//!
//! Owns the loaded models and the requests under way. Between steps, requests are ended that were
//! given up or whose model is not coming. A panic costs the requests it met. Computes on a crew of
//! its own, which sleeps while there is nothing to do. How many requests there may be is decided
//! where they are admitted, and what a step is by the kind.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use candle_core::Device;
use selvedge_base::{Code, ModelDigest, Refusal};
use selvedge_contract::ModelState;
use selvedge_contract::residence::Wish;

use crate::error::elsewhere;
use crate::front::closing;
use crate::job::cancelled;
use crate::loader;
use crate::mailbox::Mailbox;
use crate::memory::Reservation;
use crate::shared::{Place, Pulse, Shared};
use crate::worker;

/// What the thread is told.
pub(crate) enum Message<W, M> {
    /// A request.
    Job(Box<Job<W>>),
    /// A model is in memory.
    Loaded(ModelDigest, Box<(M, Reservation)>),
    /// A model was removed, or makes room for another.
    Removed(ModelDigest),
}

/// A request under way.
pub(crate) struct Job<W> {
    pub(crate) work: W,
    /// Held until the end.
    pub(crate) place: Place,
}

/// What is asked of a model, how far that is, and whoever hears the end.
pub(crate) trait Work {
    /// What is told in the end.
    type Told;

    /// The model that is asked.
    fn model(&self) -> ModelDigest;

    /// Tells it.
    fn tell(self, end: Result<Self::Told, Refusal>);
}

/// A kind of models, by what is asked of them.
pub(crate) trait Kind: Work + Sized {
    /// A model in memory.
    type Model;
    /// The threads that compute.
    type Crew;

    /// What its thread does, and what a step does, for logs.
    const DOES: &'static str;
    /// See [`Kind::DOES`].
    const STEP: &'static str;
    /// The refusal's message for what a panic cost.
    const BROKEN: &'static str;

    /// Where its thread is told what to do.
    fn mailbox(shared: &Shared) -> &Mailbox<Message<Self, Self::Model>>;

    /// Starts so many threads.
    fn crew(threads: usize) -> std::io::Result<Self::Crew>;

    /// One step of the request at this place of the row, whose model is there.
    fn step(desk: &mut Desk<Self>, at: usize);
}

/// A kind whose requests take turns, each with steps of its own.
pub(crate) trait Turns: Kind {
    /// One step.
    fn advance(
        &mut self,
        model: &mut Self::Model,
        crew: &mut Self::Crew,
        go_on: &mut GoOn<'_>,
    ) -> Result<Step, Refusal>;

    /// What is told once all steps are done.
    fn finish(&mut self, model: &Self::Model) -> Result<Self::Told, Refusal>;
}

/// Whether to go on with a step; asked after each layer and each token.
pub(crate) type GoOn<'a> = dyn FnMut() -> ControlFlow<()> + 'a;

/// How a step ended.
pub(crate) enum Step {
    /// There is more to do.
    More,
    /// That was all.
    Done,
    /// Nobody wants it any more.
    GivenUp,
}

impl<W: Work> Job<W> {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.place.cancelled.load(Ordering::Relaxed)
    }

    /// Ends it. A sink that panics hears nothing more.
    pub(crate) fn end(self, end: Result<W::Told, Refusal>) {
        let Self { work, place } = self;
        // Given up first: whoever hears of the end may submit the next request at once.
        drop(place);
        if catch_unwind(AssertUnwindSafe(|| work.tell(end))).is_err() {
            tracing::error!("hearing the end of a request panicked");
        }
    }
}

/// The thread's state.
pub(crate) struct Desk<K: Kind> {
    pub(crate) shared: Arc<Shared>,
    device: Device,
    /// None before the first step, and after a panic: what that left half done is not to be
    /// trusted.
    pub(crate) crew: Option<K::Crew>,
    pub(crate) models: BTreeMap<ModelDigest, (K::Model, Reservation)>,
    pub(crate) jobs: VecDeque<Box<Job<K>>>,
}

impl<K: Kind> Desk<K> {
    pub(crate) fn new(shared: Arc<Shared>, device: Device) -> Self {
        Self { shared, device, crew: None, models: BTreeMap::new(), jobs: VecDeque::new() }
    }

    /// Computes until the engine closes, whatever panics. Each panic takes the requests with it
    /// that it met, so this comes to an end.
    pub(crate) fn serve(&mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            tracing::error!("the thread that {} panicked; it starts afresh", K::DOES);
            self.crew = None;
            for job in self.jobs.drain(..) {
                job.end(Err(broken::<K>()));
            }
        }
    }

    /// Computes until the engine closes, then fails what is left.
    fn run(&mut self) {
        loop {
            // Those whose model is still being loaded wait for it, or for its failure.
            let wait = self.first().is_none();
            let Some(messages) = K::mailbox(&self.shared).take_all(wait) else { break };
            self.receive(messages);
            self.sweep();
            self.step();
        }
        let left = K::mailbox(&self.shared).drain();
        self.receive(left);
        for job in self.jobs.drain(..) {
            job.end(Err(closing()));
        }
    }

    pub(crate) fn receive(&mut self, messages: VecDeque<Message<K, K::Model>>) {
        for message in messages {
            match message {
                Message::Job(job) => self.jobs.push_back(job),
                Message::Loaded(digest, model) => {
                    if self.shared.set_state(digest, ModelState::Ready, None) {
                        self.models.insert(digest, *model);
                        tell_memory(&self.shared);
                    }
                }
                Message::Removed(digest) => {
                    if self.models.remove(&digest).is_some() {
                        if self.models.is_empty() {
                            self.crew = None;
                        }
                        self.shared.unloaded(digest);
                        tell_memory(&self.shared);
                    }
                }
            }
        }
    }

    /// Ends what was given up or whose model is not coming, and loads models that are wanted.
    pub(crate) fn sweep(&mut self) {
        let mut kept = VecDeque::with_capacity(self.jobs.len());
        for job in std::mem::take(&mut self.jobs) {
            let model = job.work.model();
            if job.is_cancelled() {
                job.end(Err(cancelled()));
            } else if let Some(refusal) = self.shared.unavailable(model, job.place.turn) {
                job.end(Err(refusal));
            } else {
                if !self.models.contains_key(&model) && self.shared.begin_loading(model) {
                    loader::spawn(&self.shared, &self.device, model, (Duration::ZERO, Wish::Asked));
                }
                kept.push_back(job);
            }
        }
        self.jobs = kept;
    }

    /// One step of the request that waits longest and whose model is there.
    pub(crate) fn step(&mut self) {
        if let Some(at) = self.first() {
            K::step(self, at);
        }
    }

    /// Where in the row that request is.
    fn first(&self) -> Option<usize> {
        self.jobs.iter().position(|job| self.models.contains_key(&job.work.model()))
    }

    /// How many requests ask a model.
    pub(crate) fn asking(&self, model: ModelDigest) -> usize {
        self.jobs.iter().filter(|job| job.work.model() == model).count()
    }

    pub(crate) fn publish(&self, model: ModelDigest, running: usize) {
        self.shared.publish(model, Pulse { running, ..Pulse::default() });
    }

    /// A model and the threads that compute, which are started now if there are none.
    pub(crate) fn ready(
        &mut self,
        model: ModelDigest,
    ) -> Result<(&mut K::Model, &mut K::Crew), Refusal> {
        let crew = match &mut self.crew {
            Some(crew) => crew,
            none => {
                let crew = K::crew(self.shared.config.thread_count()).map_err(|error| {
                    elsewhere(Code::Internal, format!("cannot start a thread: {error}"))
                })?;
                none.insert(crew)
            }
        };
        let (model, _) = self.models.get_mut(&model).ok_or_else(gone)?;
        Ok((model, crew))
    }
}

impl<K: Turns> Desk<K> {
    /// A step of the request at this place of the row, which goes to the row's end then.
    pub(crate) fn turn(&mut self, at: usize) {
        let Some(mut job) = self.jobs.remove(at) else { return };
        let model = job.work.model();
        let waiting = self.asking(model);
        self.publish(model, 1);
        match catch_unwind(AssertUnwindSafe(|| self.advance(&mut job))) {
            // Others have their turn.
            Ok(Ok(Step::More)) => self.jobs.push_back(job),
            Ok(Ok(Step::Done)) => {
                let told = self.models.get(&model).ok_or_else(gone);
                let told = told.and_then(|(model, _)| job.work.finish(model));
                job.end(told);
            }
            Ok(Ok(Step::GivenUp)) => job.end(Err(cancelled())),
            Ok(Err(refusal)) => job.end(Err(refusal)),
            Err(_) => {
                tracing::error!(%model, "{} panicked", K::STEP);
                self.crew = None;
                job.end(Err(broken::<K>()));
            }
        }
        self.publish(model, usize::from(waiting > 0));
    }

    fn advance(&mut self, job: &mut Job<K>) -> Result<Step, Refusal> {
        let shared = Arc::clone(&self.shared);
        let Job { work, place } = job;
        let (model, crew) = self.ready(work.model())?;
        let mut go_on = || {
            shared.progress.fetch_add(1, Ordering::Relaxed);
            match place.cancelled.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        work.advance(model, crew, &mut go_on)
    }
}

/// Has what is left of the memory divided anew among models that write.
pub(crate) fn tell_memory(shared: &Shared) {
    // A closed engine divides nothing any more.
    drop(shared.worker.push(worker::Message::Memory));
}

/// The refusal for what a panic cost.
pub(crate) fn broken<K: Kind>() -> Refusal {
    elsewhere(Code::Internal, K::BROKEN)
}

fn gone() -> Refusal {
    elsewhere(Code::ModelUnavailable, "the model was removed")
}
