//! Requests to learned models that people have given labels: examples of this node's own.
//!
//! Owns which values of requests are kept and for how long. Nothing is unless a `[[data]]` table of
//! this node's configuration names the model; then values wait in memory until their request gets
//! its label, and are on this node's disk with it from then on. Both are bounded: where one more
//! does not fit, the oldest go of the account that has the most, so that nobody pushes out what
//! others gave. Nothing here leaves the node: jobs read it as they read any other data.
//!
//! ```text
//! labelled/MODEL/N    the Nth request that was given labels: whose it was, its values, its labels
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::{Blame, Code, Refusal, RequestId, Retry, Stage};
use selvedge_proto::policy::{AccountPath, KeyId};
use selvedge_train::{Subject, is_learnable};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedMutexGuard, watch};

use crate::shared::Shared;
use crate::store::{Batch, Store, StoreError};

/// What the names of all records begin with.
const PREFIX: &str = "labelled/";
/// Requests of a model that wait for their labels: a shift of a line that is asked every half a
/// minute.
const MAX_WAITING: usize = 1_024;
/// Values of those together, 4 MiB; also what one request may have at most, so that it fits a
/// record.
const MAX_WAITING_VALUES: usize = 1 << 20;
/// Labelled requests that are kept of a model.
const MAX_KEPT: usize = 16_384;
/// Values of those together, 16 MiB: 5,000 images of 28 by 28, or as many rows as are kept of 256
/// values each.
const MAX_KEPT_VALUES: usize = 1 << 22;

/// Whose request it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whose {
    /// The account, as its path is written.
    account: String,
    /// The key of the mesh it came with.
    key: Option<[u8; 8]>,
}

/// Examples of a model, as a job reads them: whole rows that fit what it learns.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Lessons {
    /// The values of all rows, one after the other.
    pub(crate) values: Vec<f32>,
    /// The class of each row.
    pub(crate) labels: Vec<u32>,
    /// A number below a thousand for each row, the same whenever and wherever it is read: those
    /// below a job's thousandths are held out.
    pub(crate) draws: Vec<u16>,
    /// Rows that do not fit: of another width, or of a class that there is not.
    pub(crate) unfit: u64,
}

/// Who gives labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labeller {
    /// An operator, to any request.
    Operator,
    /// Whoever made the request: the same key, or the same account where there is none.
    Own(AccountPath, Option<KeyId>),
}

/// What became of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// The model that was asked.
    pub model: String,
    /// Labelled requests of it that are kept.
    pub kept: u64,
    /// Requests that were forgotten for it: the oldest of the account that had the most.
    pub forgotten: u64,
}

/// A request on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    id: u128,
    whose: Whose,
    values: Vec<f32>,
    labels: Vec<u32>,
}

/// A request that waits.
struct Waiting {
    id: RequestId,
    whose: Whose,
    rows: usize,
    values: Vec<f32>,
}

/// A request that has its labels, without its values.
struct Row {
    number: u64,
    id: RequestId,
    whose: Whose,
    rows: usize,
    values: usize,
}

/// What takes part in the bounds.
trait Held {
    fn account(&self) -> &str;
    fn values(&self) -> usize;
}

/// What is on the disk of each model that was looked at, oldest first.
type OnDisk = BTreeMap<String, VecDeque<Row>>;

/// Who is told when there is more, or less, of some models.
struct Watcher {
    models: BTreeSet<String>,
    grown: watch::Sender<u64>,
}

/// The labelled requests of a node.
pub(crate) struct RequestLog {
    store: Store,
    /// What waits, by model: only those that the configuration names. Held for moments only, as
    /// requests that are answered come here.
    waiting: BTreeMap<String, Mutex<VecDeque<Waiting>>>,
    /// What the disk has. Held while it is read and until it has taken a change, so that no change
    /// meets another. Waited for without a thread, so that a slow disk holds one of them only.
    on_disk: Arc<tokio::sync::Mutex<OnDisk>>,
    watchers: Mutex<Vec<Watcher>>,
}

impl Whose {
    fn new(account: &AccountPath, key: Option<KeyId>) -> Self {
        Self { account: account.as_str().to_owned(), key: key.map(|key| key.0) }
    }

    /// Whose it was, for those who know what may be; none where the account cannot be.
    fn known(&self) -> Option<(AccountPath, Option<KeyId>)> {
        Some((self.account.parse().ok()?, self.key.map(KeyId)))
    }
}

impl Labeller {
    fn may(&self, whose: &Whose) -> bool {
        match self {
            Self::Operator => true,
            Self::Own(account, key) => Whose::new(account, *key) == *whose,
        }
    }
}

impl Held for Waiting {
    fn account(&self) -> &str {
        &self.whose.account
    }

    fn values(&self) -> usize {
        self.values.len()
    }
}

impl Held for Row {
    fn account(&self) -> &str {
        &self.whose.account
    }

    fn values(&self) -> usize {
        self.values
    }
}

/// Takes out the oldest of the account that has the most of what is over its bound, until so many
/// and so many values are left; what was taken out.
fn make_room<T: Held>(all: &mut VecDeque<T>, most: usize, most_values: usize) -> Vec<T> {
    let mut values: usize = all.iter().map(Held::values).sum();
    if all.len() <= most && values <= most_values {
        return Vec::new();
    }
    let mut shares: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for one in all.iter() {
        let share = shares.entry(one.account().to_owned()).or_default();
        *share = (share.0 + 1, share.1 + one.values());
    }
    let mut gone = Vec::new();
    while all.len() > most || values > most_values {
        let counts = all.len() > most;
        let of = |share: &(usize, usize)| if counts { share.0 } else { share.1 };
        let Some((account, share)) = shares.iter_mut().max_by_key(|(_, share)| of(share)) else {
            break;
        };
        let oldest = all.iter().position(|one| one.account() == account);
        let Some(oldest) = oldest.and_then(|at| all.remove(at)) else { break };
        *share = (share.0 - 1, share.1 - oldest.values());
        values -= oldest.values();
        gone.push(oldest);
    }
    gone
}

impl RequestLog {
    /// A log of the requests to these models; of none where there are none.
    pub(crate) fn new(store: Store, models: impl IntoIterator<Item = String>) -> Self {
        let waiting = models.into_iter().map(|model| (model, Mutex::default())).collect();
        Self { store, waiting, on_disk: Arc::default(), watchers: Mutex::default() }
    }

    /// Whether requests to a model are kept.
    pub(crate) fn keeps(&self, model: &str) -> bool {
        self.waiting.contains_key(model)
    }

    /// Tells whenever there is more, or less, to learn from that was asked of any of these models.
    pub(crate) fn changes(&self, models: BTreeSet<String>) -> watch::Receiver<u64> {
        let (grown, told) = watch::channel(0);
        let mut watchers = self.watchers.lock();
        watchers.retain(|one| !one.grown.is_closed());
        watchers.push(Watcher { models, grown });
        told
    }

    /// What the disk has, in turn with whatever else reads or changes it.
    async fn turn(&self) -> OwnedMutexGuard<OnDisk> {
        Arc::clone(&self.on_disk).lock_owned().await
    }

    fn changed(&self, model: &str) {
        for one in self.watchers.lock().iter().filter(|one| one.models.contains(model)) {
            one.grown.send_modify(|count| *count += 1);
        }
    }

    /// Keeps the values of a request until it gets its labels or makes room for others.
    pub(crate) fn note(
        &self,
        (model, id): (&str, RequestId),
        (account, key): (&AccountPath, Option<KeyId>),
        rows: usize,
        values: Vec<f32>,
    ) {
        let Some(waiting) = self.waiting.get(model) else { return };
        if rows == 0 || values.len() > MAX_WAITING_VALUES {
            return;
        }
        let whose = Whose::new(account, key);
        let mut waiting = waiting.lock();
        waiting.push_back(Waiting { id, whose, rows, values });
        let _gone = make_room(&mut waiting, MAX_WAITING, MAX_WAITING_VALUES);
    }

    /// The model that a request was made to, if whoever asks may give it labels: it waits for them,
    /// or has some already.
    pub(crate) async fn find(self: &Arc<Self>, id: RequestId, by: &Labeller) -> Option<String> {
        let waits = |waiting: &Mutex<VecDeque<Waiting>>| {
            waiting.lock().iter().any(|one| one.id == id && by.may(&one.whose))
        };
        if let Some((model, _)) = self.waiting.iter().find(|(_, waiting)| waits(waiting)) {
            return Some(model.clone());
        }
        let (log, by) = (Arc::clone(self), by.clone());
        let mut on_disk = self.turn().await;
        let found = tokio::task::spawn_blocking(move || {
            // What cannot be read cannot get other labels.
            let mut has = |model: &str| {
                let kept = log.kept(model, &mut on_disk);
                kept.is_ok_and(|kept| kept.iter().any(|one| one.id == id && by.may(&one.whose)))
            };
            log.waiting.keys().find(|model| has(model)).cloned()
        });
        found.await.ok().flatten()
    }

    /// Gives a request its labels, one for each of its examples, or other ones than it had.
    ///
    /// # Errors
    /// A refusal where there is no such request for whoever asks, labels are too few or too many,
    /// or the disk fails.
    pub(crate) async fn label(
        self: &Arc<Self>,
        model: &str,
        id: RequestId,
        by: &Labeller,
        labels: Vec<u32>,
    ) -> Result<Labelled, Refusal> {
        let (log, name, by) = (Arc::clone(self), model.to_owned(), by.clone());
        let mut on_disk = self.turn().await;
        // Goes on to its end where whoever asked has left.
        let done = tokio::task::spawn_blocking(move || {
            match log.first_labels(&name, id, &by, &labels, &mut on_disk) {
                None => log.other_labels(&name, id, &by, labels, &mut on_disk),
                Some(done) => done,
            }
        });
        done.await.map_err(|why| broken(&why))?
    }

    /// Labels for a request that waits; none where it does not.
    fn first_labels(
        &self,
        model: &str,
        id: RequestId,
        by: &Labeller,
        labels: &[u32],
        on_disk: &mut OnDisk,
    ) -> Option<Result<Labelled, Refusal>> {
        let shelf = self.waiting.get(model)?;
        let taken = {
            let mut waiting = shelf.lock();
            let at = waiting.iter().position(|one| one.id == id && by.may(&one.whose))?;
            let rows = waiting.get(at).map_or(0, |one| one.rows);
            if let Err(refusal) = check_count(rows, labels.len()) {
                return Some(Err(refusal));
            }
            waiting.remove(at)?
        };
        let Waiting { whose, rows, values, .. } = taken;
        let kept = Kept { id: id.0, whose, values, labels: labels.to_vec() };
        let done = self.keep(model, &kept, on_disk);
        Some(done.map_err(|why| {
            // It may get its labels once the disk takes them.
            let Kept { whose, values, .. } = kept;
            let mut waiting = shelf.lock();
            waiting.push_back(Waiting { id, whose, rows, values });
            let _gone = make_room(&mut waiting, MAX_WAITING, MAX_WAITING_VALUES);
            broken(&why)
        }))
    }

    /// Writes one more down, and takes off the disk what makes room for it.
    fn keep(&self, model: &str, kept: &Kept, on_disk: &mut OnDisk) -> Result<Labelled, StoreError> {
        let all = self.kept(model, on_disk)?;
        let number = all.back().map_or(0, |last| last.number + 1);
        let mut batch = Batch::default();
        batch.put(&name(model, number), kept)?;
        all.push_back(Row::of(number, kept));
        let gone = make_room(all, MAX_KEPT, MAX_KEPT_VALUES);
        gone.iter().for_each(|row| batch.remove(&name(model, row.number)));
        let (count, model) = (all.len() as u64, model.to_owned());
        self.write(&model, batch, on_disk)?;
        Ok(Labelled { model, kept: count, forgotten: gone.len() as u64 })
    }

    /// Other labels for a request that has some.
    fn other_labels(
        &self,
        model: &str,
        id: RequestId,
        by: &Labeller,
        labels: Vec<u32>,
        on_disk: &mut OnDisk,
    ) -> Result<Labelled, Refusal> {
        if !self.keeps(model) {
            return Err(unknown());
        }
        let all = self.kept(model, on_disk).map_err(|why| broken(&why))?;
        let row = all.iter().find(|one| one.id == id && by.may(&one.whose)).ok_or_else(unknown)?;
        check_count(row.rows, labels.len())?;
        let (record, count) = (name(model, row.number), all.len() as u64);
        let stored: Option<Kept> = self.store.load(&record).map_err(|why| broken(&why))?;
        let stored = stored.ok_or_else(unknown)?;
        // Who says the same again gives nobody anything to learn.
        if stored.labels != labels {
            let mut batch = Batch::default();
            batch.put(&record, &Kept { labels, ..stored }).map_err(|why| broken(&why))?;
            self.write(model, batch, on_disk).map_err(|why| broken(&why))?;
        }
        Ok(Labelled { model: model.to_owned(), kept: count, forgotten: 0 })
    }

    /// Changes what the disk has of a model, and returns when it has. Where that fails, what it has
    /// is looked at again when it is next needed. Blocks.
    fn write(&self, model: &str, batch: Batch, on_disk: &mut OnDisk) -> Result<(), StoreError> {
        let begun = self.store.begin(batch);
        let written =
            begun.and_then(|told| told.blocking_recv().unwrap_or(Err(StoreError::Closed)));
        match &written {
            Ok(()) => self.changed(model),
            Err(_) => drop(on_disk.remove(model)),
        }
        written
    }

    /// What the disk has of a model, read the first time. Touches the disk.
    fn kept<'a>(
        &self,
        model: &str,
        on_disk: &'a mut OnDisk,
    ) -> Result<&'a mut VecDeque<Row>, StoreError> {
        let rows = match on_disk.remove(model) {
            Some(rows) => rows,
            None => {
                let all = self.store.load_all::<Kept>(&prefix(model))?;
                let row = |(name, kept): &(String, Kept)| {
                    let number = name.rsplit('/').next().unwrap_or_default();
                    Some(Row::of(u64::from_str_radix(number, 16).ok()?, kept))
                };
                all.iter().filter_map(row).collect()
            }
        };
        Ok(on_disk.entry(model.to_owned()).or_insert(rows))
    }

    /// All examples of a model that fit a job, the oldest first, but of requests whose account or
    /// key is `barred` now. Touches the disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn examples(
        &self,
        model: &str,
        (width, classes): (usize, usize),
        barred: &dyn Fn(&AccountPath, Option<&KeyId>) -> bool,
    ) -> Result<Lessons, StoreError> {
        let mut lessons = Lessons::default();
        for (_, kept) in self.store.load_all::<Kept>(&prefix(model))? {
            let whose = kept.whose.known();
            if whose.is_some_and(|(account, key)| !barred(&account, key.as_ref())) {
                lessons.take(&kept, width, classes);
            }
        }
        Ok(lessons)
    }

    /// Forgets all requests to a model, those that wait too, also where the configuration names it
    /// no more; how many had labels.
    ///
    /// # Errors
    /// A refusal where none are kept here, or the disk fails.
    pub(crate) async fn forget(self: &Arc<Self>, model: &str) -> Result<u64, Refusal> {
        let (log, model) = (Arc::clone(self), model.to_owned());
        let mut on_disk = self.turn().await;
        let done = tokio::task::spawn_blocking(move || {
            let names = log.store.names(&prefix(&model)).map_err(|why| broken(&why))?;
            match log.waiting.get(&model) {
                Some(waiting) => waiting.lock().clear(),
                None if names.is_empty() => return Err(not_kept(&model)),
                None => {}
            }
            let mut batch = Batch::default();
            batch.remove_all(prefix(&model));
            // From now on the disk tells, whether it takes this or not.
            on_disk.remove(&model);
            if !names.is_empty() {
                log.write(&model, batch, &mut on_disk).map_err(|why| broken(&why))?;
            }
            Ok(names.len() as u64)
        });
        done.await.map_err(|why| broken(&why))?
    }

    /// Forgets all requests that came with a key, whatever model they asked, also of models that
    /// the configuration names no more; how many there were. May be repeated where it failed.
    ///
    /// # Errors
    /// A refusal where the disk fails; what it took stays forgotten.
    pub(crate) async fn forget_key(self: &Arc<Self>, key: KeyId) -> Result<u64, Refusal> {
        let log = Arc::clone(self);
        let mut on_disk = self.turn().await;
        let done = tokio::task::spawn_blocking(move || {
            let is_its = |whose: &Whose| whose.key == Some(key.0);
            let mut count = 0;
            for waiting in log.waiting.values() {
                let mut waiting = waiting.lock();
                let before = waiting.len();
                waiting.retain(|one| !is_its(&one.whose));
                count += before - waiting.len();
            }
            for model in log.models()? {
                let all = log.kept(&model, &mut on_disk)?;
                let mut batch = Batch::default();
                let before = all.len();
                all.retain(|row| {
                    if is_its(&row.whose) {
                        batch.remove(&name(&model, row.number));
                    }
                    !is_its(&row.whose)
                });
                let gone = before - all.len();
                if gone > 0 {
                    log.write(&model, batch, &mut on_disk)?;
                }
                count += gone;
            }
            Ok::<_, StoreError>(count as u64)
        });
        done.await.map_err(|why| broken(&why))?.map_err(|why| broken(&why))
    }

    /// The models that the disk has requests of. Touches the disk.
    fn models(&self) -> Result<BTreeSet<String>, StoreError> {
        let names = self.store.names(PREFIX)?;
        let model = |name: &String| Some(name.strip_prefix(PREFIX)?.split_once('/')?.0.to_owned());
        Ok(names.iter().filter_map(model).collect())
    }
}

impl Lessons {
    /// Takes the rows of a request that fit.
    fn take(&mut self, kept: &Kept, width: usize, classes: usize) {
        let rows = kept.labels.len();
        if width == 0 || rows.checked_mul(width) != Some(kept.values.len()) {
            self.unfit += rows as u64;
            return;
        }
        for (at, (values, label)) in kept.values.chunks_exact(width).zip(&kept.labels).enumerate() {
            let is_class = usize::try_from(*label).is_ok_and(|label| label < classes);
            if !is_class || !values.iter().copied().all(is_learnable) {
                self.unfit += 1;
                continue;
            }
            self.values.extend_from_slice(values);
            self.labels.push(*label);
            self.draws.push(draw(kept.id, at));
        }
    }
}

/// The number below a thousand of a row of a request.
fn draw(id: u128, at: usize) -> u16 {
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 held out of labelled requests");
    hasher.update(&id.to_le_bytes()).update(&(at as u64).to_le_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    (u64::from_le_bytes(first) % 1_000) as u16
}

impl Row {
    fn of(number: u64, kept: &Kept) -> Self {
        let Kept { id, whose, values, labels } = kept;
        let (rows, values) = (labels.len(), values.len());
        Self { number, id: RequestId(*id), whose: whose.clone(), rows, values }
    }
}

/// Names of models are those of jobs, which hold no slash.
fn prefix(model: &str) -> String {
    format!("{PREFIX}{model}/")
}

fn name(model: &str, number: u64) -> String {
    format!("{PREFIX}{model}/{number:016x}")
}

fn check_count(rows: usize, labels: usize) -> Result<(), Refusal> {
    if rows == labels {
        return Ok(());
    }
    let message = format!("{labels} labels, and the request asked about {rows} examples: one each");
    Err(bad(message).param("labels"))
}

/// The refusal of labels for what is not kept.
pub(crate) fn unknown() -> Refusal {
    bad("no request of this id that you made waits for labels here: a node keeps the values of \
         its latest requests to models that a [[data]] table of kind 'requests' names, and only \
         of those that were sent to it since it started")
    .param("id")
}

fn not_kept(model: &str) -> Refusal {
    let message = format!(
        "no requests to '{model}' are kept here: no [[data]] table of kind 'requests' names it, \
         and none are left on the disk from when one did"
    );
    bad(message).param("model")
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::client(Stage::Validate, Code::InvalidRequest, message)
}

fn broken(why: &dyn std::fmt::Display) -> Refusal {
    let message = why.to_string();
    Refusal::new(Stage::Execute, Blame::Us, Retry::Never, Code::Internal, message)
}

/// The labelled requests of a model that fit what is learned, but of keys and accounts that are
/// refused now. Touches the disk. What does not fit is counted, not said: a member may ask as often
/// as it likes.
pub(super) fn log_of(
    log: &RequestLog,
    shared: &Shared,
    model: &str,
    subject: &Subject,
) -> Result<Lessons, String> {
    let Subject::Model(learned) = subject else {
        return Err("it holds labelled requests, and the job learns from texts".to_owned());
    };
    let width = learned.schema.check().map_err(|error| error.to_string())?;
    let barred =
        |account: &AccountPath, key: Option<&KeyId>| shared.policies.bars(account, key).is_some();
    let lessons = log.examples(model, (width, learned.schema.classes), &barred);
    lessons.map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "labelled_tests.rs"]
mod tests;
