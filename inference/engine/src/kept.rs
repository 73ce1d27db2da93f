//! Packed weights of language models on the disk, which later loads map.
//!
//! Owns the directory of them: what its files are called, who may write and remove them, and how
//! much of the disk they take. Whatever goes wrong here is a reason not to keep anything, never one
//! not to load. Other processes may use the same directory: a file is locked by those that read it
//! (together) or write it (alone), and removed to make room only by who gets its lock. One that is
//! gone is still there for whoever has it mapped.

mod file;
mod map;
mod shelf;

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens, statvfs};
use selvedge_base::ModelDigest;
use selvedge_kernels::KernelError;
use thiserror::Error;

pub(crate) use file::Identity;
pub(crate) use shelf::{Draft, Found};

/// What the names of files end with that are whole.
const WHOLE: &str = ".packed";
/// Of those in the making.
const DRAFT: &str = ".draft";
/// Of the locks of who makes one.
const LOCK: &str = ".lock";
/// Entries of the directory that are looked at: three for each of a thousand models.
const MAX_ENTRIES: usize = 4_096;
/// Bytes of the disk that stay free whatever is kept: room for the node's own state and for its
/// neighbours. Not in tests, which run on disks of any size.
const LEAST_FREE: u64 = if cfg!(test) { 0 } else { 1 << 30 };

/// Held while room is made and a draft begun, so that loads of one process do not count on the same
/// bytes.
static MAKING: Mutex<()> = Mutex::new(());

/// Where packed weights are kept, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// The directory, on a disk of this machine. Made where it is not there; nothing else belongs
    /// into it.
    pub directory: PathBuf,
    /// The most bytes that all files take together; the least recently used go first.
    pub max_bytes: u64,
}

/// Why nothing can be kept, or what is kept cannot be used.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct Unkept(String);

/// A file of the directory.
struct Listed {
    path: PathBuf,
    bytes: u64,
    /// Its last use, in seconds and nanoseconds.
    used: (i64, i64),
}

impl Unkept {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        Self(format!("cannot {what} {}: {error}", path.display()))
    }
}

impl From<Unkept> for KernelError {
    fn from(why: Unkept) -> Self {
        Self::Source(Box::new(why))
    }
}

impl Keeping {
    /// Bytes where nobody says how many: four times the most that models take of a machine's memory
    /// then.
    pub const USUAL_BYTES: u64 = 16 << 30;

    /// Removes what is kept of a model. Whoever has it mapped keeps it.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn forget(&self, model: ModelDigest) -> io::Result<()> {
        [WHOLE, LOCK].iter().try_for_each(|ending| gone(&self.path(model, ending)))
    }

    /// Removes what is kept of other models than these, and what nobody completed; how many files
    /// that were. What is in use stays, and so does what cannot be removed.
    pub fn sweep(&self, known: &BTreeSet<ModelDigest>) -> usize {
        let unknown = |model: ModelDigest| !known.contains(&model);
        let mut removed = 0;
        for (path, model, ending) in self.entries() {
            removed += usize::from((ending == DRAFT || unknown(model)) && remove_unused(&path));
        }
        removed
    }

    /// What is kept of a model. What is not whole, or of another one, is removed.
    pub(crate) fn find(&self, identity: &Identity) -> Result<Option<Found>, Unkept> {
        check_processor()?;
        let path = self.path(identity.model, WHOLE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Unkept::io("open", &path, &error)),
        };
        match file.try_lock_shared() {
            Ok(()) => {}
            // It is just being completed, or removed.
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(Unkept::io("lock", &path, &error)),
        }
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let now = Timestamps { last_access: now, last_modification: now };
        // Without it another one goes first than the least recently used.
        let _ = futimens(&file, &now);
        Found::open(file, identity).map(Some).inspect_err(|_| self.discard(identity))
    }

    /// Removes what is kept of a model, which turned out to be damaged.
    pub(crate) fn discard(&self, identity: &Identity) {
        // Where it cannot be removed, it is found damaged again.
        let _ = gone(&self.path(identity.model, WHOLE));
    }

    /// Begins to keep a model whose tiles take so many bytes, of a file with so many tensors.
    pub(crate) fn begin(
        &self,
        identity: Identity,
        bytes: u64,
        tensors: usize,
    ) -> Result<Draft, Unkept> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        check_processor()?;
        let directory = &self.directory;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| Unkept::io("make", directory, &error))?;
        let lock = self.lock(identity.model)?;
        let needed = bytes.saturating_add(file::beside(tensors));
        let _making = MAKING.lock();
        self.make_room(needed)?;
        // Names of drafts are their makers' alone, so that nobody writes another's.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let own = format!(".{}-{number}{DRAFT}", std::process::id());
        let paths = (self.path(identity.model, &own), self.path(identity.model, WHOLE));
        Draft::create(paths, identity, needed, lock)
    }

    fn path(&self, model: ModelDigest, ending: &str) -> PathBuf {
        self.directory.join(format!("{model}{ending}"))
    }

    /// The lock of who makes a model's file. It is given back when the file is closed.
    fn lock(&self, model: ModelDigest) -> Result<File, Unkept> {
        let path = self.path(model, LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&path).map_err(|error| Unkept::io("open", &path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => {
                Err(Unkept::new("another load packs the same model at this moment"))
            }
            Err(TryLockError::Error(error)) => Err(Unkept::io("lock", &path, &error)),
        }
    }

    /// The directory's files, with the model of each and what its name ends with.
    fn entries(&self) -> impl Iterator<Item = (PathBuf, ModelDigest, &'static str)> + use<> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten();
        entries.take(MAX_ENTRIES).flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let ending = [WHOLE, DRAFT, LOCK].into_iter().find(|end| name.ends_with(end))?;
            let model: ModelDigest = name.split('.').next()?.parse().ok()?;
            Some((entry.path(), model, ending))
        })
    }

    /// Removes files until so many bytes fit: those that nobody completed, then the least recently
    /// used. Removes none where that would not do.
    fn make_room(&self, needed: u64) -> Result<(), Unkept> {
        let (mut whole, mut taken) = (Vec::new(), 0);
        for (path, _, ending) in self.entries().filter(|(_, _, ending)| *ending != LOCK) {
            if ending == DRAFT && remove_unused(&path) {
                continue;
            }
            let Ok(found) = std::fs::metadata(&path) else { continue };
            taken += found.len();
            if ending == WHOLE {
                let used = (found.mtime(), found.mtime_nsec());
                whole.push(Listed { path, bytes: found.len(), used });
            }
        }
        whole.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        let mut removable: u64 = whole.iter().map(|one| one.bytes).sum();
        let mut whole = whole.into_iter();
        loop {
            let Some(short) = self.short(needed, taken)? else { return Ok(()) };
            // What is in use stays, so that this may turn out not to do after all.
            let next = whole.next().filter(|_| short.bytes <= removable);
            let Some(Listed { path, bytes, .. }) = next else {
                return Err(Unkept::new(format!("{needed} bytes do not fit: {}", short.of)));
            };
            removable -= bytes;
            if remove_unused(&path) {
                taken -= bytes;
                let name = path.display();
                tracing::info!(%name, bytes, "packed weights make room for others on the disk");
            }
        }
    }

    /// What so many bytes lack beside those that are taken, if anything.
    fn short(&self, needed: u64, taken: u64) -> Result<Option<Short>, Unkept> {
        let most = self.max_bytes;
        let over = taken.saturating_add(needed).saturating_sub(most);
        if over > 0 {
            let of = format!("packed_max_bytes in [engine] is {most}");
            return Ok(Some(Short { bytes: over, of }));
        }
        let found = statvfs(&self.directory);
        let found = found.map_err(|error| Unkept::io("look at", &self.directory, &error.into()))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let lacks = needed.saturating_add(LEAST_FREE).saturating_sub(free);
        let of = format!("the disk has {free} free, of which {LEAST_FREE} stay so");
        Ok((lacks > 0).then_some(Short { bytes: lacks, of }))
    }
}

/// What is short.
struct Short {
    bytes: u64,
    /// For people.
    of: String,
}

/// Removes a file that nobody reads or writes; whether it is gone.
fn remove_unused(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    if file.try_lock().is_err() {
        return false;
    }
    // Another process may have given the name to another file meanwhile.
    let same =
        |a: &std::fs::Metadata, b: &std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let (Ok(own), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else {
        return false;
    };
    same(&own, &named) && std::fs::remove_file(path).is_ok()
}

/// Sees to it that there is no file of this name.
fn gone(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Files are little endian, and mapped as they are.
fn check_processor() -> Result<(), Unkept> {
    if cfg!(target_endian = "little") {
        return Ok(());
    }
    Err(Unkept::new("on this processor numbers lie the other way round"))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "kept_tests.rs"]
mod tests;
