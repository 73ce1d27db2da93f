//! What a node presents: its membership and everything needed to check it from the mesh's name.

use selvedge_base::plant::{self, Plant};
use selvedge_base::{MeshId, Micros, NodeId, Wall};
use serde::{Deserialize, Serialize};

use super::{
    CLOCK_SKEW, MAX_LEASE, MAX_ROTATIONS, MAX_STEWARD_LEASE, Membership, RecordError, RootRotation,
    Signed, Steward, check_name,
};

/// A membership with its chain: rotations lead from the mesh's name to the root key, which signed
/// the steward, who signed the membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The lease.
    pub membership: Signed<Membership>,
    /// Its signer's right to sign it.
    pub steward: Signed<Steward>,
    /// From the first root key to the one that signed the steward.
    pub rotations: Vec<Signed<RootRotation>>,
}

impl Credential {
    /// Checks the whole chain against the mesh's name, the presenting node and the time. Knows
    /// nothing of revocations: see [`super::Roster::verify`].
    ///
    /// # Errors
    /// The first [`RecordError`] found.
    pub fn verify(&self, mesh: MeshId, presenting: NodeId, wall: Wall) -> Result<(), RecordError> {
        let membership = &self.membership.body;
        if membership.node != presenting {
            return Err(RecordError::Node {
                named: membership.node.short(),
                presenting: presenting.short(),
            });
        }
        let root = follow(mesh, &self.rotations)?;
        check_steward(&self.steward, mesh, root, self.rotations.len() as u32)?;
        check_membership(&self.membership, mesh, &self.steward.body)?;
        check_window("steward", self.steward.body.issued, self.steward.body.not_after, wall)?;
        check_window("membership", membership.issued, membership.not_after, wall)
    }

    /// The node it is for.
    pub fn node(&self) -> NodeId {
        self.membership.body.node
    }

    /// What people call the node.
    pub fn name(&self) -> &str {
        &self.membership.body.name
    }

    /// The root generation of the chain.
    pub fn generation(&self) -> u32 {
        self.rotations.len() as u32
    }

    /// Whether half of the lease is over, so that one lost renewal does not matter.
    pub fn due_for_renewal(&self, wall: Wall) -> bool {
        let lease = &self.membership.body;
        let whole = lease.not_after.since(lease.issued);
        wall >= lease.issued.plus(Micros(whole.0 / 2))
    }
}

/// The root key at the end of a chain of rotations that begins at the mesh's name.
pub(super) fn follow(
    mesh: MeshId,
    rotations: &[Signed<RootRotation>],
) -> Result<[u8; 32], RecordError> {
    if rotations.len() > MAX_ROTATIONS {
        return Err(RecordError::Rotations(rotations.len()));
    }
    let mut root = mesh.0;
    for (index, rotation) in rotations.iter().enumerate() {
        check_rotation(rotation, mesh, root, index as u32 + 1)?;
        root = rotation.body.to;
    }
    Ok(root)
}

pub(super) fn check_rotation(
    rotation: &Signed<RootRotation>,
    mesh: MeshId,
    root: [u8; 32],
    generation: u32,
) -> Result<(), RecordError> {
    let body = &rotation.body;
    check_mesh("root rotation", body.mesh, mesh)?;
    if body.generation != generation || body.from != root || body.to == root {
        return Err(RecordError::Chain(body.generation));
    }
    if rotation.signer != root {
        return Err(RecordError::Signer { record: "root rotation", expected: "the key before it" });
    }
    rotation.check_signature()
}

/// Everything about a steward record but the time.
pub(super) fn check_steward(
    steward: &Signed<Steward>,
    mesh: MeshId,
    root: [u8; 32],
    generation: u32,
) -> Result<(), RecordError> {
    check_steward_terms(steward, mesh, root, generation)?;
    steward.check_signature()
}

/// Everything about a steward record but the time and its signature.
pub(super) fn check_steward_terms(
    steward: &Signed<Steward>,
    mesh: MeshId,
    root: [u8; 32],
    generation: u32,
) -> Result<(), RecordError> {
    let body = &steward.body;
    check_mesh("steward", body.mesh, mesh)?;
    if body.generation != generation {
        return Err(RecordError::Generation {
            record: "steward",
            theirs: body.generation,
            ours: generation,
        });
    }
    if steward.signer != root {
        return Err(RecordError::Signer { record: "steward", expected: "the mesh's root key" });
    }
    if body.not_after.since(body.issued) > MAX_STEWARD_LEASE {
        return Err(RecordError::TooLong("steward"));
    }
    Ok(())
}

fn check_membership(
    membership: &Signed<Membership>,
    mesh: MeshId,
    steward: &Steward,
) -> Result<(), RecordError> {
    let body = &membership.body;
    check_mesh("membership", body.mesh, mesh)?;
    check_name(&body.name)?;
    if membership.signer != steward.node.0 {
        return Err(RecordError::Signer { record: "membership", expected: "its steward" });
    }
    if body.not_after.since(body.issued) > MAX_LEASE || body.not_after > steward.not_after {
        return Err(RecordError::TooLong("membership"));
    }
    membership.check_signature()
}

pub(super) fn check_mesh(
    record: &'static str,
    theirs: MeshId,
    ours: MeshId,
) -> Result<(), RecordError> {
    if theirs == ours {
        return Ok(());
    }
    Err(RecordError::Mesh { record, theirs: theirs.short(), ours: ours.short() })
}

/// Whether `wall` lies within the window, give or take [`CLOCK_SKEW`].
pub(super) fn check_window(
    record: &'static str,
    issued: Wall,
    not_after: Wall,
    wall: Wall,
) -> Result<(), RecordError> {
    if issued > wall.plus(CLOCK_SKEW) {
        return Err(RecordError::NotYet { record, ahead_s: issued.since(wall).0 / 1_000_000 });
    }
    if wall > not_after.plus(CLOCK_SKEW) && !plant::is_on(Plant::LapsedAdmitted) {
        return Err(RecordError::Lapsed { record, ago_s: wall.since(not_after).0 / 1_000_000 });
    }
    Ok(())
}
