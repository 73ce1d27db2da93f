//! The policy book on the disk: a record for each of its parts, of which a change writes those that
//! changed, all at once, and a seal over what they are together.
//!
//! Owns the names of the records and the way from the one record that builds before this one wrote.
//! That record stays, as a mark of a version they do not read: one of them would otherwise find no
//! policy, and could break this node's word. The seal says that this node stored these very bytes,
//! of a book whose signatures it had checked: a start need not check a thousand of them again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use selvedge_base::{MeshId, Wall};
use selvedge_net::Identity;
use selvedge_proto::policy::{PolicyBook, PolicyError, PolicyPart, PolicySnapshot};
use selvedge_proto::records::Roster;
use serde::Serialize;

use crate::store::{Batch, Print, Store, StoreError};

/// Store record of the whole book, in builds before this one; now the mark.
pub(crate) const POLICY: &str = "policy";
/// What the names of the parts begin with.
pub(crate) const PARTS: &str = "policy/";
/// Store record of the seal. Builds before it leave it as it is when they write parts, so that it
/// does not fit them.
pub(crate) const SEAL: &str = "policy seal";
/// The version of the mark.
const IN_PARTS: u8 = 2;
/// What the node's key makes the seal's key from. Its number changes whenever more is asked of a
/// signature than before, so that what was checked otherwise is checked again.
const SEALING: &str = "selvedge 2026 seal of checked policy parts 1";

/// What is on the disk of the book, as far as this process knows.
pub(super) struct OnDisk {
    /// None when nobody knows, and everything must be written.
    known: Mutex<Option<Known>>,
    sealing: Sealing,
    /// Whether the parts that were read have no seal that fits. The one record of earlier builds
    /// stays until something changes: before, those builds can still be gone back to.
    unsealed: AtomicBool,
}

/// What was written last, or read.
#[derive(Clone)]
struct Known {
    /// The fingerprint of each part by the record's name.
    prints: Prints,
    seal: Option<Print>,
}

/// A book that was read.
pub(super) struct Stored {
    snapshot: PolicySnapshot,
    /// Whether it is what this node stored, all of its signatures checked.
    is_sealed: bool,
}

impl Stored {
    /// The book of it. Here alone the seal decides what is believed without its signature.
    ///
    /// # Errors
    /// As [`PolicyBook::from_snapshot`].
    pub(super) fn restore(self, roster: &Roster, wall: Wall) -> Result<PolicyBook, PolicyError> {
        match self.is_sealed {
            true => PolicyBook::from_own_snapshot(self.snapshot, roster, wall),
            false => PolicyBook::from_snapshot(self.snapshot, roster, wall),
        }
    }
}

/// A key that nobody else has.
struct Sealing([u8; 32]);

impl Sealing {
    fn seal(&self, prints: &Prints) -> Print {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for (name, print) in prints {
            hasher.update(&(name.len() as u64).to_be_bytes());
            hasher.update(name.as_bytes());
            hasher.update(print);
        }
        *hasher.finalize().as_bytes()
    }

    /// Compares in the same time wherever they differ.
    fn fits(&self, prints: &Prints, seal: &Print) -> bool {
        blake3::Hash::from(self.seal(prints)) == blake3::Hash::from(*seal)
    }
}

impl OnDisk {
    /// Reads what is stored; none when nothing ever was.
    ///
    /// # Errors
    /// A damaged record.
    pub(super) fn load(
        store: &Store,
        mesh: MeshId,
        identity: &Identity,
    ) -> Result<(Self, Option<Stored>), StoreError> {
        let sealing = Sealing(identity.derive(SEALING));
        let mark = store.load::<PolicySnapshot>(POLICY);
        let (known, stored) = match mark {
            Ok(whole) => {
                let stored = whole.map(|snapshot| Stored { snapshot, is_sealed: false });
                (None, stored)
            }
            Err(StoreError::Version { version: IN_PARTS, .. }) => {
                let (known, stored) = in_parts(store, mesh, &sealing)?;
                (Some(known), Some(stored))
            }
            Err(error) => return Err(error),
        };
        let unsealed = known.is_some() && stored.as_ref().is_some_and(|stored| !stored.is_sealed);
        let unsealed = AtomicBool::new(unsealed);
        Ok((Self { known: Mutex::new(known), sealing, unsealed }, stored))
    }

    /// Writes what changed; returns when it is on the disk. The caller has the writer's turn.
    ///
    /// # Errors
    /// Any [`StoreError`]; then the next write is of everything.
    pub(super) async fn save(&self, store: &Store, book: &PolicyBook) -> Result<(), StoreError> {
        let known = self.known.lock().take();
        let (batch, now) = changes(known, book, &self.sealing)?;
        store.begin(batch)?.await.map_err(|_| StoreError::Closed)??;
        *self.known.lock() = Some(now);
        Ok(())
    }

    /// Whether what was read at the start is to be written once more for its seal; true once.
    pub(super) fn wants_seal(&self) -> bool {
        self.unsealed.swap(false, Ordering::Relaxed)
    }
}

fn in_parts(store: &Store, mesh: MeshId, sealing: &Sealing) -> Result<(Known, Stored), StoreError> {
    // A seal of another version, or a damaged one, is none.
    let seal = store.load::<Print>(SEAL).unwrap_or_default();
    let parts = store.load_printed::<PolicyPart>(PARTS)?;
    let prints: Prints = parts.iter().map(|(name, (print, _))| (name.clone(), *print)).collect();
    let is_sealed = seal.is_some_and(|seal| sealing.fits(&prints, &seal));
    let parts = parts.into_iter().map(|(_, (_, part))| part);
    let snapshot = PolicySnapshot::of_parts(mesh, parts);
    Ok((Known { prints, seal }, Stored { snapshot, is_sealed }))
}

/// The fingerprints of what is on the disk, by the records' names.
pub(crate) type Prints = BTreeMap<String, Print>;

/// All in a book was checked when it was taken, or when an earlier run of this node took it.
fn changes(
    known: Option<Known>,
    book: &PolicyBook,
    sealing: &Sealing,
) -> Result<(Batch, Known), StoreError> {
    let mut batch = Batch::default();
    if known.is_none() {
        batch.mark(POLICY, IN_PARTS);
    }
    let (before, seal) = known.map(|known| (known.prints, known.seal)).unzip();
    let prints = put_parts(&mut batch, PARTS, before, book.parts())?;
    let now = sealing.seal(&prints);
    if seal.flatten() != Some(now) {
        batch.put(SEAL, &now)?;
    }
    Ok((batch, Known { prints, seal: Some(now) }))
}

/// Writes those of some parts that are not what `known` says, and removes those that are gone;
/// without it everything is written anew.
///
/// # Errors
/// A part that is too large for a record.
pub(crate) fn put_parts<T: Serialize>(
    batch: &mut Batch,
    prefix: &str,
    known: Option<Prints>,
    parts: BTreeMap<String, T>,
) -> Result<Prints, StoreError> {
    let mut now = Prints::new();
    if known.is_none() {
        batch.remove_all(prefix.to_owned());
    }
    let known = known.unwrap_or_default();
    for (name, part) in parts {
        let name = format!("{prefix}{name}");
        let print = batch.put_changed(&name, &part, known.get(&name))?;
        now.insert(name, print);
    }
    for gone in known.keys().filter(|name| !now.contains_key(*name)) {
        batch.remove(gone);
    }
    Ok(now)
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
