//! The node's durable state: small named records in one redb file.
//!
//! Owns the file, the record format (a version byte, then postcard) and group commit: writes that
//! arrive while a commit is under way share the next one, and each is answered only after its own
//! commit reached the disk. A write happens as a whole or not at all. After a failed one the file
//! is opened anew, as redb does nothing more with it: a disk that was full is used again once there
//! is room. redb's `StorageBackend` is the seam where a simulated disk goes in. Does not own what
//! the records mean.

use std::fs::{OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::supervise::{Child, Supervisor, SupervisorMessage};

/// The one table: record name → version byte and postcard bytes.
const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");
/// The version this build writes in front of each record.
const RECORD_VERSION: u8 = 1;
/// The oldest record version this build reads.
const OLDEST_RECORD_VERSION: u8 = 1;
/// Bytes of one record: the largest, a roster of a thousand revocations, is under 1 MiB.
const MAX_RECORD: usize = 8 << 20;
/// Page cache: all records together are a few megabytes at most.
const CACHE_BYTES: usize = 4 << 20;

/// Why durable state cannot be read or written.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error(
        "cannot open the state file {path}: {reason}; if another node uses this home, stop it or \
         choose another --home"
    )]
    Open {
        /// The file.
        path: String,
        /// What the disk or redb said.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("the state file failed: {0}; check that the disk is not full or damaged")]
    Disk(String),
    /// A record is of a version this build does not read.
    #[error(
        "record '{name}' is of version {version}; this build reads up to {RECORD_VERSION}: \
             start the newer selvedge that wrote it"
    )]
    Version {
        /// Which record.
        name: String,
        /// Its version.
        version: u8,
    },
    /// A record is damaged.
    #[error("record '{name}' is damaged: {reason}")]
    Damaged {
        /// Which record.
        name: String,
        /// What did not fit.
        reason: String,
    },
    /// A record is larger than any real one.
    #[error("record '{name}' of {size} bytes is over the limit of {MAX_RECORD}")]
    TooLarge {
        /// Which record.
        name: String,
        /// Its size.
        size: usize,
    },
    /// The store's actor is gone; the node is shutting down.
    #[error("the store is closed")]
    Closed,
}

/// Makes the file of a node's first start under another name, and gives it its own once it is on
/// the disk: a crash in between leaves nothing that would be refused ever after. A file that is
/// there and empty is locked meanwhile, so that of two nodes that start in one home at once none
/// replaces what the other one has begun to write.
fn make(path: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    // What is linked to elsewhere stays linked: redb makes what a link names.
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() || found.len() > 0) {
        return Ok(());
    }
    let held = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let held = held.map_err(text)?;
    // A disk that locks nothing is taken to have one node.
    if let Err(TryLockError::WouldBlock) = held.try_lock() {
        return Err("another process is making it".to_owned());
    }
    let (own, found) = (held.metadata().map_err(text)?, std::fs::metadata(path).map_err(text)?);
    let is_same = (own.dev(), own.ino()) == (found.dev(), found.ino());
    if !is_same || found.len() > 0 {
        return Ok(());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(text(error)),
        Ok(()) | Err(_) => {}
    }
    first(&beside).map_err(|error| error.to_string())?;
    std::fs::rename(&beside, path).map_err(text)?;
    // The name should be on the disk as well; not every file system can say so, and what is lost
    // with it is an empty file.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = std::fs::File::open(folder.unwrap_or_else(|| Path::new(".")));
    let _unsynced = folder.and_then(|folder| folder.sync_all());
    Ok(())
}

/// A file with an empty table, on the disk. What comes into it are secrets as well: it is its
/// owner's alone from the beginning.
fn first(path: &Path) -> Result<(), redb::Error> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    Ok(transaction.commit()?)
}

/// A handle to the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    file: Arc<File>,
    /// The writer that runs now; its supervisor replaces one that failed.
    writer: Arc<ArcSwapOption<ActorRef<StoreMessage>>>,
    supervisor: ActorRef<SupervisorMessage>,
}

impl Store {
    /// Opens or creates the state file and starts its writer.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let (path, at) = (path.to_owned(), path.to_owned());
        let refused =
            move |reason: String| StoreError::Open { path: path.display().to_string(), reason };
        Self::start(Box::new(move || {
            make(&at).map_err(&refused)?;
            let opened = Database::builder().set_cache_size(CACHE_BYTES).create(&at);
            opened.map_err(|error| refused(error.to_string()))
        }))
        .await
    }

    /// Opens a store on any backend, such as a simulated disk; `backend` is asked for it again
    /// after a failed write.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub async fn with_backend<B: StorageBackend>(
        backend: impl Fn() -> B + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        Self::start(Box::new(move || {
            let builder =
                Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend());
            builder.map_err(|error| StoreError::Open {
                path: "(backend)".to_owned(),
                reason: error.to_string(),
            })
        }))
        .await
    }

    async fn start(open: Open) -> Result<Self, StoreError> {
        let file = Arc::new(File { open, database: Mutex::new(Held::Failed) });
        // The table must exist before the first read; where it does, nothing is written for it.
        if !file.has_table()? {
            file.commit(&[])?;
        }
        let writer = Arc::new(ArcSwapOption::empty());
        let child = writer_child(Arc::downgrade(&file), Arc::clone(&writer));
        let supervisor = Supervisor::start(vec![child])
            .await
            .map_err(|error| StoreError::Disk(error.to_string()))?;
        Ok(Self { file, writer, supervisor })
    }

    /// Reads a record; `None` when it was never written.
    ///
    /// # Errors
    /// Any [`StoreError`] but `Closed`.
    pub fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let transaction = self.file.database()?.begin_read().map_err(disk)?;
        let table = transaction.open_table(RECORDS).map_err(disk)?;
        let Some(guard) = table.get(name).map_err(disk)? else { return Ok(None) };
        decode(name, guard.value()).map(Some)
    }

    /// Reads all records whose names begin with `prefix`, in the order of their names.
    ///
    /// # Errors
    /// Any [`StoreError`] but `Closed`.
    pub(crate) fn load_all<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, T)>, StoreError> {
        self.read_all(prefix, decode)
    }

    /// The same, each with the fingerprint that [`Batch::put_changed`] gives it.
    ///
    /// # Errors
    /// As [`Store::load_all`].
    pub(crate) fn load_printed<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, Printed<T>)>, StoreError> {
        self.read_all(prefix, |name, bytes| Ok((print_of(bytes), decode(name, bytes)?)))
    }

    fn read_all<T>(
        &self,
        prefix: &str,
        read: impl Fn(&str, &[u8]) -> Result<T, StoreError>,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let transaction = self.file.database()?.begin_read().map_err(disk)?;
        let table = transaction.open_table(RECORDS).map_err(disk)?;
        let mut found = Vec::new();
        for entry in table.range(prefix..past(prefix).as_str()).map_err(disk)? {
            let (name, bytes) = entry.map_err(disk)?;
            found.push((name.value().to_owned(), read(name.value(), bytes.value())?));
        }
        Ok(found)
    }

    /// The names of all records that begin with `prefix`, in their order.
    ///
    /// # Errors
    /// [`StoreError::Open`] and [`StoreError::Disk`].
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let transaction = self.file.database()?.begin_read().map_err(disk)?;
        let table = transaction.open_table(RECORDS).map_err(disk)?;
        let range = table.range(prefix..past(prefix).as_str()).map_err(disk)?;
        range.map(|entry| Ok(entry.map_err(disk)?.0.value().to_owned())).collect()
    }

    /// Writes a record; returns when it is on the disk.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(name, value)?;
        self.write(batch).await
    }

    /// Removes a record; returns when it is gone from the disk.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn remove(&self, name: &str) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.remove(name);
        self.write(batch).await
    }

    async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.begin(batch)?.await.map_err(|_| StoreError::Closed)?
    }

    /// Hands a write to the disk without waiting: writes happen in the order of these calls. What
    /// comes back tells when it is on the disk; one that is dropped means that the store is gone.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub(crate) fn begin(
        &self,
        batch: Batch,
    ) -> Result<oneshot::Receiver<Result<(), StoreError>>, StoreError> {
        let (reply, answered) = oneshot::channel();
        let writer = self.writer.load_full().ok_or(StoreError::Closed)?;
        writer.cast(StoreMessage::Put { batch, reply }).map_err(|_| StoreError::Closed)?;
        Ok(answered)
    }

    /// Stops the writer after what it already holds and closes the file, whoever still has a
    /// handle.
    pub async fn close(&self) {
        // Waiting is bounded: the writer holds at most one commit and one batch.
        let patience = Some(std::time::Duration::from_secs(2));
        if let Some(writer) = self.writer.swap(None) {
            let _closed = writer.drain_and_wait(patience).await;
        }
        self.supervisor.stop(None);
        *self.file.database.lock() = Held::Closed;
    }
}

/// What tells a record's bytes, its version's among them, from all others.
pub(crate) type Print = [u8; 32];

/// A record with the fingerprint of its bytes.
pub(crate) type Printed<T> = (Print, T);

fn print_of(bytes: &[u8]) -> Print {
    *blake3::hash(bytes).as_bytes()
}

/// Several changes that happen together, in their order.
#[derive(Default)]
pub(crate) struct Batch(Vec<Change>);

enum Change {
    Put(String, Vec<u8>),
    Remove(String),
    RemoveAll { prefix: String },
}

impl Batch {
    /// Writes a record.
    pub(crate) fn put<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), StoreError> {
        self.0.push(Change::Put(name.to_owned(), encode(name, value)?));
        Ok(())
    }

    /// Writes a record unless it is what `known` is the fingerprint of; its own fingerprint.
    pub(crate) fn put_changed<T: Serialize>(
        &mut self,
        name: &str,
        value: &T,
        known: Option<&Print>,
    ) -> Result<Print, StoreError> {
        let bytes = encode(name, value)?;
        let print = print_of(&bytes);
        if known != Some(&print) {
            self.0.push(Change::Put(name.to_owned(), bytes));
        }
        Ok(print)
    }

    /// Writes a record of nothing but a version, which builds that read older ones only refuse.
    pub(crate) fn mark(&mut self, name: &str, version: u8) {
        self.0.push(Change::Put(name.to_owned(), vec![version]));
    }

    /// How many changes these are.
    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Removes a record.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.push(Change::Remove(name.to_owned()));
    }

    /// Removes all records whose names begin with `prefix`.
    pub(crate) fn remove_all(&mut self, prefix: String) {
        self.0.push(Change::RemoveAll { prefix });
    }
}

type Open = Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>;

/// The database, as long as it works.
struct File {
    open: Open,
    database: Mutex<Held>,
}

enum Held {
    /// It works.
    Open(Arc<Database>),
    /// A write failed; it is opened anew when it is next needed.
    Failed,
    /// The node is shutting down: somebody else may open the file.
    Closed,
}

impl File {
    /// The open database, opened anew after a failure.
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let mut held = self.database.lock();
        match &*held {
            Held::Open(database) => Ok(Arc::clone(database)),
            Held::Closed => Err(StoreError::Closed),
            Held::Failed => {
                let database = Arc::new((self.open)()?);
                *held = Held::Open(Arc::clone(&database));
                Ok(database)
            }
        }
    }

    fn has_table(&self) -> Result<bool, StoreError> {
        let transaction = self.database()?.begin_read().map_err(disk)?;
        match transaction.open_table(RECORDS) {
            Ok(_) => Ok(true),
            Err(TableError::TableDoesNotExist(_)) => Ok(false),
            Err(error) => Err(disk(error)),
        }
    }

    fn commit(&self, batch: &[Change]) -> Result<(), StoreError> {
        let written = self.database().and_then(|database| commit(&database, batch));
        if written.is_err() {
            let mut held = self.database.lock();
            if matches!(*held, Held::Open(_)) {
                // Nothing of a failed write stays; what is on the disk is whole.
                *held = Held::Failed;
            }
        }
        written
    }
}

fn writer_child(file: Weak<File>, running: Arc<ArcSwapOption<ActorRef<StoreMessage>>>) -> Child {
    Child {
        name: "store",
        start: Arc::new(move |supervisor| {
            let (file, running) = (Weak::clone(&file), Arc::clone(&running));
            Box::pin(async move {
                let (writer, _) = Actor::spawn_linked(None, Writer, file, supervisor).await?;
                let cell = writer.get_cell();
                running.store(Some(Arc::new(writer)));
                Ok(cell)
            })
        }),
    }
}

/// What the writer hears. Its mailbox is bounded by its callers: each waits for its answer.
pub(crate) enum StoreMessage {
    /// Write this, then answer.
    Put {
        /// What to write.
        batch: Batch,
        /// Answered after the commit.
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// A commit ended.
    Committed {
        /// Those who wait for it.
        waiting: Vec<oneshot::Sender<Result<(), StoreError>>>,
        /// How it went.
        result: Result<(), StoreError>,
    },
}

struct Writer;

struct WriterState {
    /// The handles own the database: when the last one is gone the file is closed, however long
    /// the actor takes to end.
    file: Weak<File>,
    batch: Vec<Change>,
    waiting: Vec<oneshot::Sender<Result<(), StoreError>>>,
    committing: bool,
}

impl Actor for Writer {
    type Msg = StoreMessage;
    type State = WriterState;
    type Arguments = Weak<File>;

    async fn pre_start(
        &self,
        _myself: ActorRef<StoreMessage>,
        file: Weak<File>,
    ) -> Result<WriterState, ActorProcessingErr> {
        Ok(WriterState { file, batch: Vec::new(), waiting: Vec::new(), committing: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<StoreMessage>,
        message: StoreMessage,
        state: &mut WriterState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            StoreMessage::Put { batch, reply } => {
                state.batch.extend(batch.0);
                state.waiting.push(reply);
            }
            StoreMessage::Committed { waiting, result } => {
                state.committing = false;
                for reply in waiting {
                    // A caller that stopped waiting needs no answer.
                    let _gone = reply.send(result.clone());
                }
            }
        }
        if !state.committing && !state.waiting.is_empty() {
            let batch = std::mem::take(&mut state.batch);
            let waiting = std::mem::take(&mut state.waiting);
            let Some(file) = state.file.upgrade() else {
                for reply in waiting {
                    let _gone = reply.send(Err(StoreError::Closed));
                }
                return Ok(());
            };
            state.committing = true;
            tokio::task::spawn_blocking(move || {
                let result = file.commit(&batch);
                // Whoever hears that this is on the disk may close the store and open it again.
                drop(file);
                // Fails only when the writer is gone; then the callers learn it by their channel.
                let _stopped = myself.cast(StoreMessage::Committed { waiting, result });
            });
        }
        Ok(())
    }
}

fn commit(database: &Database, batch: &[Change]) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(disk)?;
    {
        let mut table = transaction.open_table(RECORDS).map_err(disk)?;
        for change in batch {
            match change {
                Change::Put(name, bytes) => {
                    table.insert(name.as_str(), bytes.as_slice()).map_err(disk)?;
                }
                Change::Remove(name) => {
                    table.remove(name.as_str()).map_err(disk)?;
                }
                Change::RemoveAll { prefix } => {
                    let end = past(prefix);
                    table.retain_in(prefix.as_str()..end.as_str(), |_, _| false).map_err(disk)?;
                }
            }
        }
    }
    transaction.commit().map_err(disk)
}

/// The end of all names that begin with `prefix`: names hold no such character.
fn past(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}

fn encode<T: Serialize>(name: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    let bytes = postcard::to_extend(value, vec![RECORD_VERSION]).map_err(|error| {
        StoreError::Damaged { name: name.to_owned(), reason: error.to_string() }
    })?;
    if bytes.len() > MAX_RECORD {
        return Err(StoreError::TooLarge { name: name.to_owned(), size: bytes.len() });
    }
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let damaged = |reason: String| StoreError::Damaged { name: name.to_owned(), reason };
    let Some((&version, payload)) = bytes.split_first() else {
        return Err(damaged("it is empty".to_owned()));
    };
    if !(OLDEST_RECORD_VERSION..=RECORD_VERSION).contains(&version) {
        return Err(StoreError::Version { name: name.to_owned(), version });
    }
    let (value, rest) =
        postcard::take_from_bytes(payload).map_err(|error| damaged(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(damaged(format!("{} bytes left", rest.len()))) }
}

fn disk(error: impl std::fmt::Display) -> StoreError {
    StoreError::Disk(error.to_string())
}

#[cfg(test)]
#[path = "store_tests.rs"]
pub(crate) mod tests;
