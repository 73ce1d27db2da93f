//! Requests to learned models that people have given labels: examples of this node's own.
//!
//! Owns which values of requests are kept and for how long. Nothing is unless a `[[data]]` table of
//! this node's configuration names the model; then values wait in memory until their request gets
//! its label, and are on this node's disk with it from then on. Both are bounded, and the oldest go
//! first. Nothing here leaves the node: jobs read it as they read any other data.
//!
//! ```text
//! labelled/MODEL/N    the Nth request that was given labels: whose it was, its values, its labels
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::{Blame, Code, Refusal, RequestId, Retry, Stage};
use selvedge_proto::policy::{AccountPath, KeyId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

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
    /// Requests that were forgotten for it, the oldest.
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

/// What is known of one model.
#[derive(Default)]
struct Shelf {
    waiting: VecDeque<Waiting>,
    waiting_values: usize,
    /// Oldest first; none before the disk was looked at.
    kept: Option<VecDeque<Row>>,
}

/// The labelled requests of a node.
pub(crate) struct RequestLog {
    store: Store,
    /// By model: only those that the configuration names.
    shelves: BTreeMap<String, Mutex<Shelf>>,
    /// Counts changes of what is kept.
    grown: watch::Sender<u64>,
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

impl Shelf {
    /// Forgets the oldest that wait until one more fits.
    fn make_room(&mut self, values: usize) {
        while self.waiting.len() >= MAX_WAITING || self.waiting_values + values > MAX_WAITING_VALUES
        {
            let Some(oldest) = self.waiting.pop_front() else { return };
            self.waiting_values -= oldest.values.len();
        }
    }

    fn take(&mut self, at: usize) -> Option<Waiting> {
        let taken = self.waiting.remove(at)?;
        self.waiting_values -= taken.values.len();
        Some(taken)
    }
}

impl RequestLog {
    /// A log of the requests to these models; of none where there are none.
    pub(crate) fn new(store: Store, models: impl IntoIterator<Item = String>) -> Self {
        let shelves = models.into_iter().map(|model| (model, Mutex::default())).collect();
        Self { store, shelves, grown: watch::Sender::new(0) }
    }

    /// Whether requests to a model are kept.
    pub(crate) fn keeps(&self, model: &str) -> bool {
        self.shelves.contains_key(model)
    }

    /// Tells whenever there is more, or less, to learn from.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }

    /// Keeps the values of a request until it gets its labels or makes room for others.
    pub(crate) fn note(
        &self,
        (model, id): (&str, RequestId),
        (account, key): (&AccountPath, Option<KeyId>),
        rows: usize,
        values: Vec<f32>,
    ) {
        let Some(shelf) = self.shelves.get(model) else { return };
        if rows == 0 || values.len() > MAX_WAITING_VALUES {
            return;
        }
        let mut shelf = shelf.lock();
        shelf.make_room(values.len());
        shelf.waiting_values += values.len();
        shelf.waiting.push_back(Waiting { id, whose: Whose::new(account, key), rows, values });
    }

    /// The model that a request was made to, if whoever asks may give it labels: it waits for them,
    /// or has some already.
    pub(crate) async fn find(self: &Arc<Self>, id: RequestId, by: &Labeller) -> Option<String> {
        let (log, by) = (Arc::clone(self), by.clone());
        let found = tokio::task::spawn_blocking(move || {
            let has = |model: &str, shelf: &Mutex<Shelf>| {
                let mut shelf = shelf.lock();
                let waits = shelf.waiting.iter().any(|one| one.id == id && by.may(&one.whose));
                // What cannot be read cannot get other labels.
                waits
                    || log
                        .kept(model, &mut shelf)
                        .is_ok_and(|kept| kept.iter().any(|one| one.id == id && by.may(&one.whose)))
            };
            let found = log.shelves.iter().find(|(model, shelf)| has(model, shelf));
            found.map(|(model, _)| model.clone())
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
        let begun = tokio::task::spawn_blocking(move || log.begin(&name, id, &by, labels));
        let (labelled, written) = begun.await.map_err(|why| broken(&why))??;
        let written = written.await.map_err(|_| broken(&StoreError::Closed))?;
        if let Err(why) = written {
            // What is on the disk is looked at again.
            self.shelves.get(model).into_iter().for_each(|shelf| shelf.lock().kept = None);
            return Err(broken(&why));
        }
        self.grown.send_modify(|count| *count += 1);
        Ok(labelled)
    }

    fn begin(
        &self,
        model: &str,
        id: RequestId,
        by: &Labeller,
        labels: Vec<u32>,
    ) -> Result<(Labelled, Written), Refusal> {
        let shelf = self.shelves.get(model).ok_or_else(unknown)?;
        let mut shelf = shelf.lock();
        let waits = shelf.waiting.iter().position(|one| one.id == id && by.may(&one.whose));
        let (number, kept) = match waits {
            Some(at) => {
                let rows = shelf.waiting.get(at).map_or(0, |one| one.rows);
                check_count(rows, labels.len())?;
                let last = self.kept(model, &mut shelf).map_err(|why| broken(&why))?.back();
                let number = last.map_or(0, |last| last.number + 1);
                let Waiting { whose, values, .. } = shelf.take(at).ok_or_else(unknown)?;
                (number, Kept { id: id.0, whose, values, labels })
            }
            None => {
                let all = self.kept(model, &mut shelf).map_err(|why| broken(&why))?;
                let row = all.iter().find(|one| one.id == id && by.may(&one.whose));
                let row = row.ok_or_else(unknown)?;
                check_count(row.rows, labels.len())?;
                let stored: Option<Kept> =
                    self.store.load(&name(model, row.number)).map_err(|why| broken(&why))?;
                (row.number, Kept { labels, ..stored.ok_or_else(unknown)? })
            }
        };
        let mut batch = Batch::default();
        batch.put(&name(model, number), &kept).map_err(|why| broken(&why))?;
        let all = self.kept(model, &mut shelf).map_err(|why| broken(&why))?;
        if waits.is_some() {
            all.push_back(Row::of(number, &kept));
        }
        let before = all.len();
        let mut values: usize = all.iter().map(|row| row.values).sum();
        while all.len() > MAX_KEPT || values > MAX_KEPT_VALUES {
            let Some(oldest) = all.pop_front() else { break };
            values -= oldest.values;
            batch.remove(&name(model, oldest.number));
        }
        let (model, kept) = (model.to_owned(), all.len() as u64);
        let labelled = Labelled { model, kept, forgotten: before as u64 - kept };
        Ok((labelled, self.store.begin(batch).map_err(|why| broken(&why))?))
    }

    /// What is kept of a model, read from the disk the first time. Touches the disk.
    fn kept<'a>(
        &self,
        model: &str,
        shelf: &'a mut Shelf,
    ) -> Result<&'a mut VecDeque<Row>, StoreError> {
        let rows = match shelf.kept.take() {
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
        Ok(shelf.kept.insert(rows))
    }

    /// The values and labels of all examples of a model, the oldest first, but of requests whose
    /// account or key is `barred` now. Touches the disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn examples(
        &self,
        model: &str,
        barred: &dyn Fn(&AccountPath, Option<&KeyId>) -> bool,
    ) -> Result<(Vec<f32>, Vec<u32>), StoreError> {
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for (_, kept) in self.store.load_all::<Kept>(&prefix(model))? {
            let whose = kept.whose.known();
            if whose.is_some_and(|(account, key)| !barred(&account, key.as_ref())) {
                values.extend(kept.values);
                labels.extend(kept.labels);
            }
        }
        Ok((values, labels))
    }

    /// Forgets all requests to a model, those that wait too; how many had labels.
    ///
    /// # Errors
    /// A refusal where none are kept here, or the disk fails.
    pub(crate) async fn forget(self: &Arc<Self>, model: &str) -> Result<u64, Refusal> {
        let shelf = self.shelves.get(model).ok_or_else(|| not_kept(model))?;
        let mut batch = Batch::default();
        batch.remove_all(prefix(model));
        let (count, written) = {
            let mut shelf = shelf.lock();
            let count = self.kept(model, &mut shelf).map_err(|why| broken(&why))?.len() as u64;
            *shelf = Shelf { kept: Some(VecDeque::new()), ..Shelf::default() };
            (count, self.store.begin(batch).map_err(|why| broken(&why))?)
        };
        let written = written.await.map_err(|_| broken(&StoreError::Closed))?;
        written.map_err(|why| broken(&why))?;
        self.grown.send_modify(|count| *count += 1);
        Ok(count)
    }

    /// Forgets all requests that came with a key, whatever model they asked.
    ///
    /// # Errors
    /// A refusal where the disk fails.
    pub(crate) async fn forget_key(self: &Arc<Self>, key: KeyId) -> Result<(), Refusal> {
        let log = Arc::clone(self);
        let begun = tokio::task::spawn_blocking(move || {
            let mut batch = Batch::default();
            let is_its = |whose: &Whose| whose.key == Some(key.0);
            for (model, shelf) in &log.shelves {
                let mut shelf = shelf.lock();
                shelf.waiting.retain(|one| !is_its(&one.whose));
                shelf.waiting_values = shelf.waiting.iter().map(|one| one.values.len()).sum();
                log.kept(model, &mut shelf)?.retain(|row| {
                    if is_its(&row.whose) {
                        batch.remove(&name(model, row.number));
                    }
                    !is_its(&row.whose)
                });
            }
            log.store.begin(batch)
        });
        let begun = begun.await.map_err(|why| broken(&why))?.map_err(|why| broken(&why))?;
        let written = begun.await.map_err(|_| broken(&StoreError::Closed))?;
        written.map_err(|why| broken(&why))?;
        self.grown.send_modify(|count| *count += 1);
        Ok(())
    }
}

type Written = tokio::sync::oneshot::Receiver<Result<(), StoreError>>;

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
        "no requests to '{model}' are kept here: no [[data]] table of kind 'requests' names it"
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

#[cfg(test)]
#[path = "labelled_tests.rs"]
mod tests;
