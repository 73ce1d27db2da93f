//! The jobs of the mesh at this node: which there are, and what keeps each of them running.
//!
//! Owns the tasks of jobs, when they begin anew, and the orders of operators. A job that this build
//! or this processor cannot follow is shown with the reason and not run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::{Blame, Code, Micros, NodeId, Refusal, Retry, Stage};
use selvedge_core::{FederatedWord, PersonalWord};
use selvedge_crdt::escrow::Holder;
use selvedge_federated::privacy::ledger::Cap;
use selvedge_federated::round::{Committee, Digest, Job};
use selvedge_federated::seal::OpeningKey;
use selvedge_net::{Endpoint, Identity, clock, entropy};
use selvedge_train::{Local, Model, Requests, Source};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::chain::ChainWriter;
use super::disk::{JobDisk, Part, forget_others, hex};
use super::fits::{Checks, PartRead, no_source};
use super::labelled::RequestLog;
use super::ledger::LedgerLine;
use super::member::{Own, holder, ledger_name};
use super::post::Post;
use super::runner::{Heard, Parts, Runner, Word};
use super::seats;
use super::served::{Desk, Served};
use super::state::JobState;
use super::trainer::{Bench, Data};
use super::tries::{Failed, MAX_PANICS, Tries, caught};
use super::tuned::Tuned;
use super::view::{JobRun, JobView};
use super::{Announced, BaseModel, JobSpec, SpecError, Task, key_of};
use crate::quota::NodeSeal;
use crate::relay::taken;
use crate::shared::Shared;
use crate::store::{Store, StoreError};
use crate::task::Run;

/// Jobs that run here at a time: each holds its model and the shares of a round in memory.
const MAX_JOBS: usize = 32;
/// Messages of peers that wait for a job: what all anchors of the largest committee say at once.
const MAX_WAITING: usize = 32;
/// How long a message may wait for a job that is busy: its stream is kept for as long.
const HEAR_WITHIN: Micros = Micros::secs(5);

/// Data of this node under one name: the parts by their names, each of them a client of its own, or
/// one without a name.
pub type DataParts = BTreeMap<Option<String>, DataSource>;

/// Data of this node that jobs may train on.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSource {
    /// Where it is.
    pub source: Source,
    /// What all jobs together may spend of its privacy; with one, only jobs with privacy get it.
    /// Without one a job gets what it promises itself, less what all jobs before have spent.
    pub cap: Option<Cap>,
}

/// What jobs need of a node.
pub(crate) struct FederationParts {
    pub(crate) identity: Arc<Identity>,
    pub(crate) store: Store,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) data: BTreeMap<String, DataParts>,
    pub(crate) bases: Vec<BaseModel>,
}

/// The jobs of a node.
pub(crate) struct Federation {
    pub(super) parts: FederationParts,
    me: NodeId,
    /// Where jobs run, not on the thread of the connection that ordered one.
    home: Handle,
    /// One thread trains for all jobs.
    local: Mutex<Option<Arc<Local>>>,
    /// Where learned models answer.
    desk: Desk,
    /// Requests to learned models that were given labels.
    log: Arc<RequestLog>,
    ledgers: Mutex<BTreeMap<String, LedgerLine>>,
    /// Questions of members whether this node's data fit a job.
    pub(super) checks: Checks,
    /// By name; at most [`MAX_JOBS`] of them run.
    jobs: Mutex<BTreeMap<String, Entry>>,
    /// Changes of which jobs run happen one after another.
    turn: Mutex<()>,
    /// Told whenever a job is shown otherwise.
    changed: watch::Sender<()>,
}

/// A job that was told of.
struct Entry {
    content: Vec<u8>,
    known: Known,
}

enum Known {
    Runs(Running),
    Not(String),
}

pub(super) struct Running {
    pub(super) job: Digest,
    pub(super) told: Arc<Announced>,
    mailbox: mpsc::Sender<Heard>,
    post: Post,
    pub(super) state: Arc<JobState>,
    /// Who is to be its anchors, once somebody asked for others; the last wish at the end.
    pub(super) seats: watch::Sender<Vec<Committee>>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends a job here, and takes it off the disk once nothing writes for it any more.
async fn forget(mut running: Running, disk: JobDisk, is_told: bool) {
    running.task.abort();
    // However it ended, it has.
    let _ended = (&mut running.task).await;
    if !is_told && let Err(error) = disk.begin(disk.forget()) {
        tracing::debug!(%error, "a job was not taken off the disk");
    }
}

/// The digest of the job in a setting, if it is one.
fn digest_of(content: &[u8]) -> Option<Digest> {
    Announced::from_bytes(content).ok().map(|told| told.job.digest())
}

/// Following the mesh's jobs, as a supervised task.
pub(crate) fn child(shared: Arc<Shared>) -> Run {
    Arc::new(move || {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            let mut changes = shared.routing.job_changes();
            shared.federation.heed(&shared);
            shared.federation.tidy();
            loop {
                shared.federation.heed(&shared);
                if changes.changed().await.is_err() {
                    // The sender lives in `shared`.
                    return Ok(());
                }
            }
        })
    })
}

impl Federation {
    /// Must be called in the runtime that is to run the jobs.
    pub(crate) fn new(parts: FederationParts) -> Self {
        let me = parts.identity.node_id();
        let sources = parts.data.values().flat_map(BTreeMap::values);
        let models = sources.filter_map(|own| match &own.source {
            Source::Requests(Requests { model }) => Some(model.clone()),
            Source::Csv(_)
            | Source::Parquet(_)
            | Source::Idx(_)
            | Source::Images(_)
            | Source::Text(_) => None,
        });
        let log = Arc::new(RequestLog::new(parts.store.clone(), models));
        Self {
            log,
            parts,
            me,
            home: Handle::current(),
            local: Mutex::default(),
            desk: Desk::new(),
            ledgers: Mutex::default(),
            checks: Checks::default(),
            jobs: Mutex::default(),
            turn: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Runs the jobs that the mesh has now, and no others.
    pub(super) fn heed(&self, shared: &Arc<Shared>) {
        // Whoever submits and whoever follows would each begin a job; two runs of one must not be.
        let _turn = self.turn.lock();
        let told: BTreeMap<String, Vec<u8>> = shared.routing.jobs().into_iter().collect();
        // What had no room before may have some now.
        self.jobs.lock().retain(|_, entry| matches!(entry.known, Known::Runs(_)));
        let gone: Vec<(String, Entry)> = {
            let mut jobs = self.jobs.lock();
            let is_gone = |name: &String, entry: &Entry| told.get(name) != Some(&entry.content);
            let names: Vec<String> =
                jobs.iter().filter(|(n, e)| is_gone(n, e)).map(|(n, _)| n.clone()).collect();
            names.into_iter().filter_map(|name| jobs.remove_entry(&name)).collect()
        };
        for (name, entry) in gone {
            tracing::info!(job = name, "the job was taken away");
            if let Known::Runs(running) = entry.known {
                let is_told = told.values().any(|content| digest_of(content) == Some(running.job));
                let disk = JobDisk::new(self.parts.store.clone(), &running.job);
                self.home.spawn(forget(running, disk, is_told));
            }
        }
        self.changed.send_replace(());
        for (name, content) in told {
            if !self.jobs.lock().contains_key(&name) {
                let known = self.begin(shared, &name, &content);
                if let Known::Not(why) = &known {
                    tracing::warn!(job = name, why, "a job of the mesh does not run here");
                }
                self.jobs.lock().insert(name, Entry { content, known });
            }
        }
        self.heed_seats(shared);
    }

    /// Takes off the disk what is left of jobs that were taken away while this node was off.
    fn tidy(&self) {
        let jobs = self.jobs.lock();
        let running = jobs.values().filter_map(|entry| match &entry.known {
            Known::Runs(running) => Some(running.job),
            Known::Not(_) => None,
        });
        let running: Vec<Digest> = running.collect();
        let is_all = running.len() == jobs.len();
        // What does not run here may run again after an update: it is kept.
        let done = is_all.then(|| forget_others(&self.parts.store, &running));
        match done {
            Some(Ok(batch)) => {
                if let Err(error) = self.parts.store.begin(batch) {
                    tracing::debug!(%error, "jobs were not taken off the disk");
                }
            }
            Some(Err(error)) => tracing::warn!(%error, "jobs were not taken off the disk"),
            None => {}
        }
    }

    /// Why no other job can run here, where as many run as may.
    pub(super) fn is_full(&self) -> Option<String> {
        let runs = |entry: &&Entry| matches!(entry.known, Known::Runs(_));
        let is_full = self.jobs.lock().values().filter(runs).count() >= MAX_JOBS;
        is_full.then(|| format!("{MAX_JOBS} jobs run here already: cancel those that are done"))
    }

    fn begin(&self, shared: &Arc<Shared>, name: &str, content: &[u8]) -> Known {
        let told = match Announced::from_bytes(content) {
            Ok(told) => Arc::new(told),
            Err(error) => return Known::Not(error.to_string()),
        };
        if let Some(why) = self.is_full() {
            return Known::Not(why);
        }
        let job = told.job.digest();
        let twin = self.jobs.lock().iter().find_map(|(name, entry)| match &entry.known {
            Known::Runs(running) if running.job == job => Some(name.clone()),
            Known::Runs(_) | Known::Not(_) => None,
        });
        if let Some(twin) = twin {
            // Two machines on the same records would each forget what the other promised.
            return Known::Not(format!("it is the same as '{twin}', which runs here"));
        }
        let (mailbox, heard) = mpsc::channel(MAX_WAITING);
        let (endpoint, clients) = (Arc::clone(&self.parts.endpoint), told.job.per_node);
        let post = Post::new(endpoint, self.me, job, mailbox.clone(), clients.into());
        let state = JobState::new(name, &told, self.changed.clone());
        let state = Arc::new(state.naming(super::refused::names_of(shared)));
        let seats = watch::Sender::new(Vec::new());
        let start = Start {
            shared: Arc::clone(shared),
            told: Arc::clone(&told),
            rules: Arc::new(told.job.clone()),
            name: job,
            post: post.clone(),
            state: Arc::clone(&state),
            seats: seats.clone(),
        };
        tracing::info!(job = name, digest = %hex(&job), "a job of the mesh runs here");
        let task = self.home.spawn(start.keep_running(heard));
        Known::Runs(Running { job, told, mailbox, post, state, seats, task })
    }

    /// Takes what a peer says of a round.
    pub(crate) async fn hear(&self, from: NodeId, word: FederatedWord) {
        self.put(from, word.job, Word::Round(Box::new(word.message))).await;
    }

    /// Takes a personal model of a peer.
    pub(crate) async fn hear_personal(&self, from: NodeId, word: PersonalWord) {
        self.put(from, word.job, Word::Personal(Box::new(word.told))).await;
    }

    async fn put(&self, from: NodeId, job: Digest, word: Word) {
        let mailbox = {
            let jobs = self.jobs.lock();
            let mut running = jobs.values().filter_map(|entry| match &entry.known {
                Known::Runs(running) => Some(running),
                Known::Not(_) => None,
            });
            // Of a job that is not known here yet: it is said again.
            let Some(running) = running.find(|running| running.job == job) else { return };
            // It would keep a place from what belongs to a round.
            if matches!(word, Word::Personal(_)) && running.told.epidemic.is_none() {
                return;
            }
            running.mailbox.clone()
        };
        // A peer that says more than is taken waits; what is lost is said again.
        let put = mailbox.send(Heard { from, word });
        let _late = tokio::time::timeout(HEAR_WITHIN.into(), put).await;
    }

    /// The node stops: its jobs go on at the next start.
    pub(crate) fn stop(&self) {
        let _turn = self.turn.lock();
        self.jobs.lock().clear();
    }

    /// Tells whenever a job is shown otherwise.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The jobs of the mesh, by name.
    pub(crate) fn views(&self) -> Vec<JobView> {
        let (jobs, ledgers) = (self.jobs.lock(), self.ledgers.lock());
        let view = |(name, entry): (&String, &Entry)| {
            let run = match &entry.known {
                Known::Not(why) => JobRun::Not { why: why.clone() },
                Known::Runs(running) => {
                    let mut progress = Box::new(running.state.progress());
                    for part in &mut progress.parts {
                        let name = ledger_name(&running.told.task.data, &part.part);
                        part.data_spent = ledgers.get(&name).and_then(LedgerLine::epsilon);
                    }
                    let data_spent = progress.parts.iter().filter_map(|one| one.data_spent).max();
                    let (job, told) = (hex(&running.job), Arc::clone(&running.told));
                    let (sent, wanted) = (running.post.sent(), seats::wanted(running, &progress));
                    JobRun::Runs { job, told, progress, sent, data_spent, wanted }
                }
            };
            JobView { name: name.clone(), run }
        };
        jobs.iter().map(view).collect()
    }

    /// The model of the job of this name, where there is one that tells classes.
    ///
    /// # Errors
    /// Why the job does not run here.
    pub(crate) fn learned(&self, name: &str) -> Option<Result<Learned, String>> {
        let jobs = self.jobs.lock();
        match &jobs.get(name)?.known {
            Known::Not(why) => Some(Err(why.clone())),
            Known::Runs(running) => running.told.task.subject.as_model().map(|model| {
                Ok(Learned {
                    job: hex(&running.job),
                    rounds: running.told.job.rounds,
                    model: model.clone(),
                    served: running.state.served(),
                })
            }),
        }
    }

    /// Why a job that tunes a language model of this name has none that answers, where there is
    /// such a job.
    pub(crate) fn not_tuned(&self, name: &str) -> Option<String> {
        let jobs = self.jobs.lock();
        let Known::Runs(running) = &jobs.get(name)?.known else { return None };
        running.told.task.subject.as_tuning()?;
        Some(match running.state.progress().answers {
            Some(Err(why)) => why,
            Some(Ok(_)) => "it is being loaded".to_owned(),
            None => "the first round of its job is not over".to_owned(),
        })
    }

    /// The language models that jobs have tuned so far.
    pub(super) fn tuned(&self) -> Vec<(Arc<JobState>, Arc<Tuned>)> {
        let jobs = self.jobs.lock();
        let running = jobs.values().filter_map(|entry| match &entry.known {
            Known::Runs(running) => Some(&running.state),
            Known::Not(_) => None,
        });
        running.filter_map(|state| Some((Arc::clone(state), state.tuned()?))).collect()
    }

    /// Where learned models answer.
    pub(crate) const fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Requests that were given labels, or wait for them.
    pub(crate) const fn log(&self) -> &Arc<RequestLog> {
        &self.log
    }

    /// Signs a job for the whole mesh.
    ///
    /// # Errors
    /// A refusal with what is wrong with the file, or with the mesh for it.
    pub(crate) async fn submit(&self, shared: &Arc<Shared>, text: &str) -> Result<String, Refusal> {
        let (spec, first) = self.checked(shared, text).await?;
        self.own_fit(shared, &spec).await.map_err(bad)?;
        let nonce = u64::from_le_bytes(*entropy::seed().first_chunk().unwrap_or(&[0; 8]));
        let anchors = self.can_be_anchors(shared, nonce, spec.since());
        let told = spec.told(nonce, &anchors, Task::digest_of(&first), self.me);
        let told = told.map_err(|why| bad(why.to_string()))?;
        let content = told.to_bytes().map_err(|why| bad(why.to_string()))?;
        shared.routing.tell_job(key_of(&spec.name), content).await?;
        self.heed(shared);
        Ok(spec.name)
    }

    /// The job of a file, and the first weights of what it learns.
    ///
    /// # Errors
    /// A refusal with what is wrong with the file, or that its name is taken.
    pub(super) async fn checked(
        &self,
        shared: &Shared,
        text: &str,
    ) -> Result<(JobSpec, Vec<i32>), Refusal> {
        let (text, bases) = (text.to_owned(), self.parts.bases.clone());
        // Reads the header of a base model, and draws first weights.
        let checked = tokio::task::spawn_blocking(move || {
            let spec = JobSpec::from_toml(&text, &|name| BaseModel::facts(&bases, name))?;
            let first = Task::weights(&spec.subject, spec.seed)?;
            Ok::<_, SpecError>((spec, first))
        });
        let checked = checked.await.map_err(|why| broken(&why))?;
        let (spec, first) = checked.map_err(|why| bad(why.to_string()))?;
        if let Some(what) = taken(shared, &spec.name) {
            return Err(bad(name_taken(&spec.name, what)));
        }
        Ok((spec, first))
    }

    /// Takes a job away from the whole mesh. What data have spent on it stays spent.
    ///
    /// # Errors
    /// A refusal where there is none, or this node may not.
    pub(crate) async fn cancel(&self, shared: &Arc<Shared>, name: &str) -> Result<(), Refusal> {
        if !self.jobs.lock().contains_key(name) {
            return Err(unknown(name));
        }
        shared.routing.take_job_away(key_of(name)).await?;
        self.heed(shared);
        Ok(())
    }

    /// A job that runs here: its rules and what is stored of it.
    fn running(&self, name: &str) -> Result<(Arc<Announced>, JobDisk), Refusal> {
        self.look(name, |running| {
            let disk = JobDisk::new(self.parts.store.clone(), &running.job);
            (Arc::clone(&running.told), disk)
        })
    }

    /// Looks at a job that runs here.
    pub(super) fn look<T>(&self, name: &str, at: impl FnOnce(&Running) -> T) -> Result<T, Refusal> {
        match self.jobs.lock().get(name).map(|entry| &entry.known) {
            Some(Known::Runs(running)) => Ok(at(running)),
            Some(Known::Not(why)) => Err(not_here(name, why)),
            None => Err(unknown(name)),
        }
    }

    pub(super) const fn me(&self) -> NodeId {
        self.me
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.parts.endpoint
    }

    /// A piece of a job's chain as a file: the first one is its beginning, and each of the others
    /// the end of a round. None behind the last round that is known here.
    ///
    /// # Errors
    /// A refusal where there is no such job, or the disk fails.
    pub(crate) async fn piece(&self, name: &str, piece: u64) -> Result<Option<Vec<u8>>, Refusal> {
        let (told, disk) = self.running(name)?;
        let task = tokio::task::spawn_blocking(move || {
            let Some(round) = piece.checked_sub(1) else {
                let begun = ChainWriter::begin(Vec::new(), &told).and_then(ChainWriter::finish);
                return begun.map(Some).map_err(|why| broken(&why));
            };
            let Some(folded) = disk.round(round).map_err(|why| broken(&why))? else {
                return Ok(None);
            };
            let mut chain = ChainWriter::after(Vec::new(), &told, round);
            let written = chain.round(&folded).and_then(|()| chain.finish());
            written.map(Some).map_err(|why| broken(&why))
        });
        task.await.map_err(|why| broken(&why))?
    }

    /// The file of this node's own model of a job, as it is on the disk; none where it has none.
    ///
    /// # Errors
    /// A refusal where there is no such job, or the disk fails.
    pub(crate) async fn personal(&self, name: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let (told, disk) = self.running(name)?;
        let name = name.to_owned();
        let task = tokio::task::spawn_blocking(move || {
            let kept = disk.personal().map_err(|why| broken(&why))?;
            let file = kept.map(|kept| kept.to_file(&name, &told)).transpose();
            Ok(file.map_err(|why| broken(&why))?.flatten())
        });
        task.await.map_err(|why| broken(&why))?
    }

    fn local(&self) -> Result<Arc<Local>, String> {
        let mut local = self.local.lock();
        if let Some(local) = &*local {
            return Ok(Arc::clone(local));
        }
        let made = Arc::new(Local::new().map_err(|error| error.to_string())?);
        *local = Some(Arc::clone(&made));
        Ok(made)
    }

    pub(super) fn ledger(&self, name: &str, source: &DataSource) -> Result<LedgerLine, StoreError> {
        let mut ledgers = self.ledgers.lock();
        if let Some(line) = ledgers.get(name) {
            return Ok(line.clone());
        }
        let line = LedgerLine::open(self.parts.store.clone(), name, source.cap)?;
        ledgers.insert(name.to_owned(), line.clone());
        Ok(line)
    }
}

/// What a job is started with, each time.
struct Start {
    shared: Arc<Shared>,
    told: Arc<Announced>,
    rules: Arc<Job>,
    name: Digest,
    post: Post,
    state: Arc<JobState>,
    seats: watch::Sender<Vec<Committee>>,
}

impl Start {
    /// Runs the job, again and again after failures, until it is taken away or given up.
    async fn keep_running(self, mut heard: mpsc::Receiver<Heard>) {
        let (mut tries, job) = (Tries::new(clock::mono()), self.state.name());
        loop {
            let Failed { why, panicked } = match Box::pin(caught(self.run_once(&mut heard))).await {
                // It has more examples than it read.
                Ok(Ok(())) => continue,
                Ok(Err(Unable::For(failed))) | Err(failed) => failed,
                Ok(Err(Unable::Ever(why))) => {
                    tracing::warn!(job, why, "this node cannot follow the job");
                    self.state.stops(format!("this node cannot follow the job: {why}"));
                    break;
                }
            };
            tracing::error!(job, why, "a job failed; it goes on from the disk");
            let Some(wait) = tries.failed(clock::mono(), panicked) else {
                tracing::error!(job, why, "a job failed too often; it is given up at this node");
                let given_up = format!(
                    "the job is given up at this node, after {MAX_PANICS} failures: {why}; the \
                     log says where, and the node tries it again once it is started anew"
                );
                self.state.gives_up(&given_up);
                self.state.stops(given_up);
                break;
            };
            tokio::time::sleep(wait.into()).await;
            tries.started(clock::mono());
        }
        // Nothing that comes is of use; the mailbox must not hold up those who send.
        while heard.recv().await.is_some() {}
    }

    /// One run, from the disk to a failure or to more examples than were read.
    async fn run_once(&self, heard: &mut mpsc::Receiver<Heard>) -> Result<(), Unable> {
        self.prepare().await?.run(heard).await.map_err(Unable::For)
    }

    /// Reads what the data and the disk have.
    async fn prepare(&self) -> Result<Runner, Unable> {
        let federation = &self.shared.federation;
        let (told, rules) = (Arc::clone(&self.told), Arc::clone(&self.rules));
        let disk = JobDisk::new(federation.parts.store.clone(), &self.name);
        let seal = Arc::new(NodeSeal::new(Arc::clone(&federation.parts.identity)));
        let first = tokio::task::spawn_blocking(move || told.first());
        let first = first.await.map_err(Failed::from)?;
        let first = first.map_err(|error| Unable::Ever(error.to_string()))?;
        // What comes while they are read is read at the next beginning.
        let asked = self.asked();
        let grown = (!asked.is_empty()).then(|| federation.log.changes(asked));
        let own = self.clients().await;
        let parts: Vec<Part> = own.iter().map(|own| own.part.clone()).collect();
        let (reading, checking) = (disk.clone(), Arc::clone(&seal));
        let loaded = tokio::task::spawn_blocking(move || {
            let loaded = reading.load(&rules, &first, &*checking, &parts);
            loaded.map_err(|error| Failed::from(error.to_string()))
        });
        let loaded = loaded.await.map_err(Failed::from)??;
        let secret = federation.parts.identity.opening_secret();
        let parts = Parts {
            job: Arc::clone(&self.rules),
            name: self.name,
            me: Holder { node: federation.me, incarnation: self.shared.quota.incarnation() },
            key: OpeningKey::from_bytes(*secret),
            seal,
            disk,
            post: self.post.clone(),
            state: Arc::clone(&self.state),
            own,
            holders: self.holders(),
            grown,
            seats: self.seats.subscribe(),
            epidemic: self.told.epidemic,
        };
        Ok(Runner::new(parts, loaded))
    }

    /// The clients of all parts of this node's data, readable or not.
    fn holders(&self) -> Vec<Holder> {
        let federation = &self.shared.federation;
        let parts = federation.parts.data.get(&self.told.task.data);
        let incarnation = self.shared.quota.incarnation();
        let client = |part| holder(&federation.parts.identity, incarnation, part);
        parts.into_iter().flat_map(BTreeMap::keys).map(client).collect()
    }

    /// The models whose labelled requests are among its data, which may grow while it runs.
    fn asked(&self) -> BTreeSet<String> {
        let parts = self.shared.federation.parts.data.get(&self.told.task.data);
        let asked = |own: &DataSource| {
            let Source::Requests(Requests { model }) = &own.source else { return None };
            Some(model.clone())
        };
        parts.into_iter().flat_map(BTreeMap::values).filter_map(asked).collect()
    }

    /// The clients of this node, and what people are told of them: those that train first.
    async fn clients(&self) -> Vec<Own> {
        let (federation, name) = (&self.shared.federation, &self.told.task.data);
        let Some(parts) = federation.parts.data.get(name) else {
            self.state.takes_no_part(no_source(name));
            return Vec::new();
        };
        let (identity, most) = (&federation.parts.identity, usize::from(self.rules.per_node));
        let (mut own, mut shown, mut idle): (Vec<Own>, _, _) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (part, source)) in parts.iter().enumerate() {
            let other = own.first().map(|own| Arc::clone(&own.bench.data));
            let bench = if at < most {
                self.bench(part, source, other).await
            } else {
                Err(format!(
                    "the job counts {most} of a node's clients (`clients_per_node`), and other \
                     parts of the data come first by name"
                ))
            };
            match bench {
                Ok((bench, ledger)) => {
                    let me = holder(identity, self.shared.quota.incarnation(), part);
                    shown.push((part.clone(), Ok(bench.data.len() as u64)));
                    own.push(Own { part: part.clone(), me, bench, ledger });
                }
                Err(why_not) => idle.push((part.clone(), Err(why_not))),
            }
        }
        shown.append(&mut idle);
        self.state.takes_part(shown);
        own
    }

    /// What training on a part of the data needs, or why it is not trained on.
    async fn bench(
        &self,
        part: &Part,
        source: &DataSource,
        other: Option<Arc<Data>>,
    ) -> Result<(Bench, LedgerLine), String> {
        let (federation, task) = (&self.shared.federation, Arc::new(self.told.task.clone()));
        let job = (&*self.rules, &task);
        let turn = federation.checks.turn().await?;
        let read = federation.read_part(&self.shared, job, (part, source), other, turn).await;
        let PartRead { data, ledger, left_out } = read.map_err(|unfit| unfit.why)?;
        if left_out > 0 {
            let (job, data, fit) = (self.state.name(), ledger_name(&task.data, part), data.len());
            let unfit = left_out;
            tracing::warn!(job, data, unfit, fit, "labelled requests that do not fit are left out");
        }
        let (local, job) = (federation.local()?, Arc::clone(&self.rules));
        Ok((Bench { local, job, task, data }, ledger))
    }
}

/// What a job has learned, as it answers.
pub(crate) struct Learned {
    /// The job's digest, in hexadecimal.
    pub(crate) job: String,
    /// Rounds of the job.
    pub(crate) rounds: u64,
    /// What is trained.
    pub(crate) model: Model,
    /// The newest version; none before the first round is over.
    pub(crate) served: Option<Arc<Served>>,
}

/// Why a job does not run.
enum Unable {
    /// It may later.
    For(Failed),
    /// It never will at this node.
    Ever(String),
}

impl From<Failed> for Unable {
    fn from(failed: Failed) -> Self {
        Self::For(failed)
    }
}

/// Why a job may not have a name, or its model does not answer under it.
pub fn name_taken(name: &str, what: &str) -> String {
    format!(
        "'{name}' is the name of {what} here, which answers to it; what a job learns is served \
         under the job's name, so give the job another one"
    )
}

fn bad(why: String) -> Refusal {
    Refusal::client(Stage::Validate, Code::InvalidRequest, why)
}

fn unknown(name: &str) -> Refusal {
    let message = format!("there is no job '{name}': `selvedge fed status` lists them");
    Refusal::client(Stage::Validate, Code::InvalidRequest, message)
}

fn not_here(name: &str, why: &str) -> Refusal {
    let message = format!("the job '{name}' does not run here: {why}");
    Refusal::client(Stage::Validate, Code::InvalidRequest, message)
}

fn broken(why: &dyn std::fmt::Display) -> Refusal {
    let message = why.to_string();
    Refusal::new(Stage::Execute, Blame::Us, Retry::Never, Code::Internal, message)
}
