//! The policy book on the disk: a record for each of its parts, of which a change writes those that
//! changed, all at once.
//!
//! Owns the names of the records and the way from the one record that builds before this one wrote.
//! That record stays, as a mark of a version they do not read: one of them would otherwise find no
//! policy, and could break this node's word.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use selvedge_base::MeshId;
use selvedge_proto::policy::{PolicyBook, PolicyPart, PolicySnapshot};
use serde::Serialize;

use crate::store::{Batch, Store, StoreError};

/// Store record of the whole book, in builds before this one; now the mark.
pub(crate) const POLICY: &str = "policy";
/// What the names of the parts begin with.
pub(crate) const PARTS: &str = "policy/";
/// The version of the mark.
const IN_PARTS: u8 = 2;

/// What is on the disk of the book, as far as this process knows.
pub(super) struct OnDisk {
    /// The fingerprint of each part by the record's name; none when nobody knows, and everything
    /// must be written.
    known: Mutex<Option<Prints>>,
}

impl OnDisk {
    /// Reads what is stored; none when nothing ever was.
    ///
    /// # Errors
    /// A damaged record.
    pub(super) fn load(
        store: &Store,
        mesh: MeshId,
    ) -> Result<(Self, Option<PolicySnapshot>), StoreError> {
        let unknown = Self { known: Mutex::new(None) };
        match store.load::<PolicySnapshot>(POLICY) {
            Ok(whole) => Ok((unknown, whole)),
            Err(StoreError::Version { version: IN_PARTS, .. }) => {
                let parts = store.load_all::<PolicyPart>(PARTS)?;
                let snapshot = PolicySnapshot::of_parts(mesh, parts.into_iter().map(|(_, p)| p));
                Ok((unknown, Some(snapshot)))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes what changed; returns when it is on the disk. The caller has the writer's turn.
    ///
    /// # Errors
    /// Any [`StoreError`]; then the next write is of everything.
    pub(super) async fn save(&self, store: &Store, book: &PolicyBook) -> Result<(), StoreError> {
        let known = self.known.lock().take();
        let (batch, now) = changes(known, book)?;
        store.begin(batch)?.await.map_err(|_| StoreError::Closed)??;
        *self.known.lock() = Some(now);
        Ok(())
    }
}

/// The fingerprints of what is on the disk, by the records' names.
pub(crate) type Prints = BTreeMap<String, [u8; 32]>;

fn changes(known: Option<Prints>, book: &PolicyBook) -> Result<(Batch, Prints), StoreError> {
    let mut batch = Batch::default();
    if known.is_none() {
        batch.mark(POLICY, IN_PARTS);
    }
    let now = put_parts(&mut batch, PARTS, known, book.parts())?;
    Ok((batch, now))
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
