//! A file on its way in.
//!
//! Owns what every way of fetching shares: bytes go to a part file, are hashed as they pass, are
//! counted against the limit and the free space, and their kind is checked as soon as it can be.
//! A part that was interrupted is taken up again; it never has the name of a model.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::digest::Sha256Digest;
use super::kind;
use crate::ui::bytes_text;

/// Read and hashed at a time: large enough that system calls do not matter.
const CHUNK_BYTES: usize = 256 << 10;
/// Left free on the disk beside the model, for everything else that lives there.
const SPARE_BYTES: u64 = 64 << 20;

/// A part file, open for appending.
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    max_bytes: u64,
    /// Whether it must be a model by itself, or is told by its digest alone.
    by_kind: bool,
    head: Vec<u8>,
    sha256: Sha256,
    blake3: blake3::Hasher,
}

impl Part {
    /// Opens a part, with what an earlier attempt left of it.
    pub(crate) fn open(path: &Path, max_bytes: u64) -> Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let mut part = Self {
            path: path.to_owned(),
            file,
            len: 0,
            max_bytes,
            by_kind: true,
            head: Vec::new(),
            sha256: Sha256::new(),
            blake3: blake3::Hasher::new(),
        };
        part.rehash()?;
        Ok(part)
    }

    /// The same of a file of any kind, whose digest is known.
    pub(crate) fn open_any(path: &Path, max_bytes: u64) -> Result<Self> {
        Ok(Self { by_kind: false, ..Self::open(path, max_bytes)? })
    }

    fn rehash(&mut self) -> Result<()> {
        let mut file = File::open(&self.path)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            self.note(&chunk[..read]);
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        let missing = kind::HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..missing]);
        self.sha256.update(bytes);
        self.blake3.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// Drops what is there and begins anew.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.file.set_len(0)?;
        self.len = 0;
        self.head.clear();
        self.sha256 = Sha256::new();
        self.blake3 = blake3::Hasher::new();
        Ok(())
    }

    /// Says how long the whole file will be: refused when it cannot or may not be stored.
    pub(crate) fn announce(&self, total: u64) -> Result<()> {
        if total > self.max_bytes {
            bail!(
                "the file has {} and models.max_bytes allows {}",
                bytes_text(total),
                bytes_text(self.max_bytes)
            );
        }
        let missing = total.saturating_sub(self.len);
        let free = free_bytes(&self.path);
        if free.is_some_and(|free| free < missing.saturating_add(SPARE_BYTES)) {
            bail!(
                "{} more are needed and {} are free on the disk of {}; remove a model with \
                 `selvedge models rm`, or give another --home",
                bytes_text(missing),
                bytes_text(free.unwrap_or(0)),
                self.path.display()
            );
        }
        Ok(())
    }

    /// Appends bytes.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.len + bytes.len() as u64 > self.max_bytes {
            bail!("the file is larger than models.max_bytes allows ({})", self.max_bytes);
        }
        self.file
            .write_all(bytes)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        let headless = self.head.len() < kind::HEAD_BYTES;
        self.note(bytes);
        if headless && self.head.len() == kind::HEAD_BYTES {
            self.check_kind()?;
        }
        Ok(())
    }

    /// Appends all that a reader has; `report` hears the length so far.
    pub(crate) fn take_from(
        &mut self,
        reader: &mut dyn Read,
        report: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = match reader.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.append(&chunk[..read])?;
            report(self.len);
        }
    }

    fn check_kind(&self) -> Result<()> {
        if !self.by_kind {
            return Ok(());
        }
        kind::check(&self.head).inspect_err(|_| self.forget())
    }

    /// Says that all is there: checks the kind of short files too, and reaches the disk.
    pub(crate) fn complete(&self) -> Result<()> {
        self.check_kind()?;
        self.file.sync_all().with_context(|| format!("cannot write {}", self.path.display()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes so far.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// The digest of what is there.
    pub(crate) fn sha256(&self) -> Sha256Digest {
        Sha256Digest(self.sha256.clone().finalize().into())
    }

    /// The digest the mesh knows the model by.
    pub(crate) fn blake3(&self) -> selvedge_base::ModelDigest {
        selvedge_base::ModelDigest(*self.blake3.finalize().as_bytes())
    }

    /// Where notes about the part are kept, such as the server's version of the file.
    pub(crate) fn notes_path(&self) -> PathBuf {
        self.path.with_extension("notes")
    }

    /// Removes the file; nothing of it is used again.
    pub(crate) fn forget(&self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.notes_path());
    }

    /// As [`Self::forget`], for a part that is no longer needed at all.
    pub(crate) fn discard(self) {
        self.forget();
    }
}

fn free_bytes(path: &Path) -> Option<u64> {
    let directory = path.parent()?;
    let found = rustix::fs::statvfs(directory).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn digests_cover_what_an_earlier_attempt_left() {
        let scratch = Scratch::new("part");
        let path = scratch.path().join("m.part");
        let whole = b"GGUF and a few more bytes";
        Part::open(&path, 100).unwrap().append(&whole[..5]).unwrap();
        let mut part = Part::open(&path, 100).unwrap();
        assert_eq!(part.len(), 5);
        part.append(&whole[5..]).unwrap();
        part.complete().unwrap();
        assert_eq!(part.sha256().0, <[u8; 32]>::from(Sha256::digest(whole)));
        assert_eq!(part.blake3().0, *blake3::hash(whole).as_bytes());
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn limits_hold_before_and_while_bytes_arrive() {
        let scratch = Scratch::new("part");
        let mut part = Part::open(&scratch.path().join("m.part"), 10).unwrap();
        assert!(part.announce(11).unwrap_err().to_string().contains("models.max_bytes"));
        assert!(part.append(b"GGUF and more").is_err());
        let huge = Part::open(&scratch.path().join("n.part"), u64::MAX).unwrap();
        let error = huge.announce(1 << 60).unwrap_err().to_string();
        assert!(error.contains("are free on the disk"), "{error}");
    }

    #[test]
    fn a_pickle_is_refused_at_its_first_bytes_and_not_kept() {
        let scratch = Scratch::new("part");
        let path = scratch.path().join("m.part");
        let mut part = Part::open(&path, 100).unwrap();
        let error = part.append(b"\x80\x02}q\0(X\0\0").unwrap_err().to_string();
        assert!(error.contains("pickle"), "{error}");
        assert!(!path.exists());
    }
}
