//! The two shelves: a file that is there, and one in the making.
//!
//! Owns when bytes are held against their digests, and the order in which a file comes to be:
//! tiles, table, header, name, map. Which file that is, and who may make it, is the directory's
//! affair.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use selvedge_kernels::{Kept, KernelError, Place, Shelf, Taken, Wanted};

use super::Unkept;
use super::file::{self, ALIGN, Entry, HEADER, Identity, Table};
use super::map::Map;

/// A file of packed weights that is mapped. Its header and its table were looked at; each matrix is
/// when it is taken, by the thread that takes it.
pub(crate) struct Found {
    map: Arc<Map>,
    table: Table,
}

/// A file that is being written. It has a name that nobody looks for, and loses it when this is
/// dropped before it was closed.
pub(crate) struct Draft {
    file: File,
    path: PathBuf,
    target: PathBuf,
    identity: Identity,
    inside: Mutex<Inside>,
    named: AtomicBool,
    /// Of the model: nobody else writes it meanwhile.
    _lock: File,
}

/// How far a draft has come.
struct Inside {
    /// Where the next matrix begins.
    next: u64,
    table: Table,
}

/// A matrix on its way into a draft.
struct Writing<'a> {
    draft: &'a Draft,
    tensor: String,
    first: usize,
    entry: Entry,
    /// Where the next tiles go.
    at: u64,
    hasher: blake3::Hasher,
}

impl Found {
    /// Maps a file of this model.
    pub(super) fn open(file: File, identity: &Identity) -> Result<Self, Unkept> {
        let map = Map::of(file).map_err(|error| Unkept::new(format!("cannot map it: {error}")))?;
        let table = file::read(map.bytes(), identity)?;
        Ok(Self { map: Arc::new(map), table })
    }
}

impl Shelf for Found {
    fn take(&self, wanted: &Wanted<'_>) -> Result<Taken<'_>, KernelError> {
        let Some(entry) = self.table.find(wanted) else {
            return Err(Unkept::new(format!("{} is not in the file", wanted.tensor)).into());
        };
        let bytes = entry.bytes(self.map.bytes());
        let bytes = bytes.ok_or_else(|| Unkept::new("the file was cut short"))?;
        if blake3::hash(bytes) != blake3::Hash::from_bytes(entry.digest) {
            return Err(Unkept::new(format!("{} is damaged in the file", wanted.tensor)).into());
        }
        let start = usize::try_from(entry.start);
        Ok(Taken::Found(start.map_err(|_| Unkept::new("the file is too large"))?))
    }

    fn close(&self) -> Result<Arc<dyn Kept>, KernelError> {
        Ok(Arc::<Map>::clone(&self.map))
    }
}

impl Draft {
    /// Begins a file at `path`, which becomes `target`; `needed` bytes at most.
    pub(super) fn create(
        (path, target): (PathBuf, PathBuf),
        identity: Identity,
        needed: u64,
        lock: File,
    ) -> Result<Self, Unkept> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| Unkept::io("write", &path, &error))?;
        let inside = Inside { next: HEADER as u64, table: Table::default() };
        let (inside, named) = (Mutex::new(inside), AtomicBool::new(false));
        let draft = Self { file, path, target, identity, inside, named, _lock: lock };
        // Whoever tidies up leaves the file alone, and counts its bytes before they are there.
        let locked = draft.file.try_lock();
        locked.map_err(|error| Unkept::new(format!("cannot lock a draft: {error}")))?;
        draft.take_room(needed).map_err(|error| draft.failed(&error))?;
        Ok(draft)
    }

    /// Takes the room on the disk now, so that whoever looks next sees it taken; where the file
    /// system cannot, the file only has its length.
    fn take_room(&self, needed: u64) -> std::io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, needed) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(needed),
            taken => Ok(taken?),
        }
    }

    fn failed(&self, error: &std::io::Error) -> Unkept {
        Unkept::io("write", &self.path, error)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), Unkept> {
        self.file.write_all_at(bytes, at).map_err(|error| self.failed(&error))
    }

    /// Completes the file, gives it its name and maps it. That the disk has it is not waited for:
    /// what a machine loses that stops meanwhile, the digests tell.
    fn complete(&self) -> Result<Map, Unkept> {
        let inside = self.inside.lock();
        let (encoded, start) = (inside.table.encode(), inside.next);
        let length = start + encoded.len() as u64;
        self.file.set_len(length).map_err(|error| self.failed(&error))?;
        self.write(&encoded, start)?;
        self.write(&file::header(&self.identity, &inside.table, &encoded, start), 0)?;
        std::fs::rename(&self.path, &self.target).map_err(|error| self.failed(&error))?;
        self.named.store(true, Ordering::Relaxed);
        // Its reader's from here on. Where somebody was faster, who then removed it, the file
        // itself is still there for whoever has it open.
        let _shared = self.file.try_lock_shared();
        let file = self.file.try_clone().map_err(|error| self.failed(&error))?;
        Map::of(file).map_err(|error| self.failed(&error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.named.load(Ordering::Relaxed) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Shelf for Draft {
    fn take(&self, wanted: &Wanted<'_>) -> Result<Taken<'_>, KernelError> {
        let Wanted { tensor, first, layout, outputs, depth } = *wanted;
        let start = {
            let mut inside = self.inside.lock();
            let end = file::padded(wanted).and_then(|bytes| inside.next.checked_add(bytes));
            let end = end.ok_or_else(|| Unkept::new(format!("{tensor} is too large")))?;
            std::mem::replace(&mut inside.next, end)
        };
        let entry = Entry { layout, outputs, depth, start, digest: [0; 32] };
        let (tensor, hasher) = (tensor.to_owned(), blake3::Hasher::new());
        let writing = Writing { draft: self, tensor, first, entry, at: start, hasher };
        Ok(Taken::Place(Box::new(writing)))
    }

    fn close(&self) -> Result<Arc<dyn Kept>, KernelError> {
        Ok(Arc::new(self.complete()?))
    }
}

impl Place for Writing<'_> {
    fn write(&mut self, tiles: &[u8]) -> Result<(), KernelError> {
        self.hasher.update(tiles);
        self.draft.write(tiles, self.at)?;
        self.at += tiles.len() as u64;
        Ok(())
    }

    fn end(mut self: Box<Self>) -> Result<usize, KernelError> {
        let end = self.at.next_multiple_of(ALIGN);
        let zeros = [0; ALIGN as usize];
        let rest = (end - self.at) as usize;
        self.write(&zeros[..rest])?;
        if self.entry.end() != Some(end) {
            return Err(
                Unkept::new(format!("{} is not as long as it was to be", self.tensor)).into()
            );
        }
        self.entry.digest = *self.hasher.finalize().as_bytes();
        let start = usize::try_from(self.entry.start);
        let start = start.map_err(|_| Unkept::new("the file is too large"))?;
        self.draft.inside.lock().table.put(&self.tensor, self.first, self.entry);
        Ok(start)
    }
}
