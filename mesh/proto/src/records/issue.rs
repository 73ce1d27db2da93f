//! Making records: what the holder of a root key or a steward signs.

use selvedge_base::{MeshId, Micros, NodeId, Wall};

use super::{
    Credential, MAX_LEASE, MAX_ROTATIONS, MAX_STEWARD_LEASE, Membership, RecordError, Revocation,
    RevocationNotice, RootRotation, Signed, Signer, Steward, check_name,
};

/// The root makes `node` a steward of the generation its key belongs to.
pub fn grant_steward(
    root: &impl Signer,
    mesh: MeshId,
    generation: u32,
    node: NodeId,
    wall: Wall,
    lease: Micros,
) -> Signed<Steward> {
    let not_after = wall.plus(lease.min(MAX_STEWARD_LEASE));
    Signed::seal(Steward { mesh, node, generation, issued: wall, not_after }, root)
}

/// A steward admits or renews `node`: the lease is cut to what the steward's own record allows.
///
/// # Errors
/// [`RecordError::Name`] for an unusable name, [`RecordError::NotSteward`] when `signer` is not
/// the steward's key, [`RecordError::Lapsed`] when the steward's record is over.
pub fn grant_membership(
    signer: &impl Signer,
    steward: &Signed<Steward>,
    rotations: &[Signed<RootRotation>],
    node: NodeId,
    name: &str,
    wall: Wall,
    lease: Micros,
) -> Result<Credential, RecordError> {
    check_name(name)?;
    if signer.public() != steward.body.node.0 {
        return Err(RecordError::NotSteward);
    }
    if wall >= steward.body.not_after {
        let ago_s = wall.since(steward.body.not_after).0 / 1_000_000;
        return Err(RecordError::Lapsed { record: "steward", ago_s });
    }
    let not_after = wall.plus(lease.min(MAX_LEASE)).min(steward.body.not_after);
    let mesh = steward.body.mesh;
    let membership = Membership { mesh, node, name: name.to_owned(), issued: wall, not_after };
    Ok(Credential {
        membership: Signed::seal(membership, signer),
        steward: steward.clone(),
        rotations: rotations.to_vec(),
    })
}

/// A steward (with its record) or the root (without) puts `node` out.
pub fn revoke(
    signer: &impl Signer,
    steward: Option<Signed<Steward>>,
    mesh: MeshId,
    node: NodeId,
    wall: Wall,
) -> RevocationNotice {
    let revocation = Signed::seal(Revocation { mesh, node, at: wall }, signer);
    RevocationNotice { revocation, steward }
}

/// The root key hands over to `to`. `rotations` is the chain so far.
///
/// # Errors
/// [`RecordError::Rotations`] when the chain is as long as it may be, [`RecordError::Chain`] when
/// `root` is not the key at its end.
pub fn rotate_root(
    root: &impl Signer,
    mesh: MeshId,
    rotations: &[Signed<RootRotation>],
    to: [u8; 32],
    wall: Wall,
) -> Result<Signed<RootRotation>, RecordError> {
    if rotations.len() >= MAX_ROTATIONS {
        return Err(RecordError::Rotations(rotations.len() + 1));
    }
    let generation = rotations.len() as u32 + 1;
    let from = super::credential::follow(mesh, rotations)?;
    if root.public() != from || to == from {
        return Err(RecordError::Chain(generation));
    }
    Ok(Signed::seal(RootRotation { mesh, from, to, generation, at: wall }, root))
}
