//! Whose signature counts, and when: root keys and stewards, over rotations and revocations.
//!
//! Shared by every record that a steward or the root signs.

use selvedge_base::{MeshId, NodeId, Wall};

use super::credential::{check_mesh, check_steward_terms, check_window};
use super::{CLOCK_SKEW, ROTATION_GRACE, Record, RecordError, Roster, Signed, Steward};

/// Rights kept in mind: as many stewards as a mesh has in a few years, each looked for in turn.
const MAX_SHOWN: usize = 16;

/// Rights to sign whose own signatures were found good, so that a thousand records of one steward
/// do not cost a thousand checks of the same right. All else about a right is checked every time:
/// who is root, who was put out, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShownRights {
    found: Vec<Signed<Steward>>,
    /// Whether all signatures that come were found good before, those under records as well.
    all: bool,
}

impl ShownRights {
    /// For records that this node checked before it stored them, and that are what it stored.
    pub(crate) const fn all() -> Self {
        Self { found: Vec::new(), all: true }
    }

    /// Whether the signature under a right is good: it is the very record of an earlier check, or
    /// is checked now.
    fn check(&mut self, right: &Signed<Steward>) -> Result<(), RecordError> {
        if self.all || self.found.contains(right) {
            return Ok(());
        }
        right.check_signature()?;
        if self.found.len() >= MAX_SHOWN {
            self.found.remove(0);
        }
        self.found.push(right.clone());
        Ok(())
    }

    /// Whether the signature under a record is good.
    pub(crate) fn check_record<T: Record>(&self, record: &Signed<T>) -> Result<(), RecordError> {
        if self.all { Ok(()) } else { record.check_signature() }
    }
}

impl Roster {
    /// Whether a record that only a root key may sign was signed by the one of `generation`, at a
    /// time that was its own.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_root<T: Record>(
        &self,
        record: &Signed<T>,
        mesh: MeshId,
        generation: u32,
        at: Wall,
    ) -> Result<(), RecordError> {
        check_mesh(T::KIND, mesh, self.mesh())?;
        let root = self.root_of(generation, T::KIND)?;
        if record.signer != root {
            let expected = "the mesh's root key of its generation";
            return Err(RecordError::Signer { record: T::KIND, expected });
        }
        self.check_own_time(T::KIND, generation, at)?;
        record.check_signature()
    }

    /// Whether a record was signed by a steward whose right is shown beside it, or, where none is
    /// shown, by the root key of the time. `at` is when the record says it was signed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_right<T: Record>(
        &self,
        record: &Signed<T>,
        steward: Option<&Signed<Steward>>,
        mesh: MeshId,
        at: Wall,
    ) -> Result<(), RecordError> {
        self.check_right_among(&mut ShownRights::default(), record, steward, mesh, at)
    }

    /// The same, for one of many records.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check_right_among<T: Record>(
        &self,
        shown: &mut ShownRights,
        record: &Signed<T>,
        steward: Option<&Signed<Steward>>,
        mesh: MeshId,
        at: Wall,
    ) -> Result<(), RecordError> {
        check_mesh(T::KIND, mesh, self.mesh())?;
        let Some(steward) = steward else {
            let expected = "the mesh's root key of its time";
            return if self.was_root(record.signer, at) {
                shown.check_record(record)
            } else {
                Err(RecordError::Signer { record: T::KIND, expected })
            };
        };
        let body = &steward.body;
        let root = self.root_of(body.generation, "steward")?;
        check_steward_terms(steward, self.mesh(), root, body.generation)?;
        shown.check(steward)?;
        if record.signer != body.node.0 {
            return Err(RecordError::Signer { record: T::KIND, expected: "its steward" });
        }
        self.check_not_revoked(&body.node, at)?;
        check_window("steward", body.issued, body.not_after, at)?;
        shown.check_record(record)
    }

    /// Whoever was put out signs nothing afterwards. A node that hears of both the other way round
    /// keeps both.
    fn check_not_revoked(&self, steward: &NodeId, at: Wall) -> Result<(), RecordError> {
        let ended = self.book.revocations.get(steward);
        if ended.is_some_and(|end| at > end.revocation.body.at) {
            return Err(RecordError::StewardRevoked(steward.short()));
        }
        Ok(())
    }

    /// A root key that was replaced signs nothing after that, give or take the clocks.
    fn check_own_time(
        &self,
        record: &'static str,
        generation: u32,
        at: Wall,
    ) -> Result<(), RecordError> {
        let ended = self.rotations().get(generation as usize).map(|rotation| rotation.body.at);
        if ended.is_some_and(|end| at > end.plus(CLOCK_SKEW)) {
            let ours = self.generation();
            return Err(RecordError::Generation { record, theirs: generation, ours });
        }
        Ok(())
    }

    /// Whether records of a root generation are still taken by nodes that have not seen them: a
    /// key that was replaced, perhaps because it was stolen, may date its records back.
    pub fn is_within_grace(&self, generation: u32, wall: Wall) -> bool {
        let ended = self.rotations().get(generation as usize).map(|rotation| rotation.body.at);
        ended.is_none_or(|end| wall <= end.plus(ROTATION_GRACE))
    }
}
