//! Membership as signed records: who may belong to a mesh, who may admit, who was put out.
//!
//! The chain is root key → steward → membership. The mesh is named after its first root key
//! ([`MeshId`]); when the root key changes, each old key signs its successor, so any chain can be
//! followed from the name alone. A membership is a lease: it lapses unless a steward renews it.
//! Owns the records, their signed bytes and their checks. Holds no private key.

mod credential;
mod exchange;
mod issue;
mod right;
mod roster;
mod signed;

use selvedge_base::{MeshId, Micros, NodeId, Wall};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use credential::Credential;
pub use exchange::{Known, RosterDelta, RosterDigest};
pub use issue::{grant_membership, grant_steward, revoke, rotate_root};
pub(crate) use right::ShownRights;
pub use roster::{Lease, Member, Roster, RosterSnapshot};
pub use selvedge_crdt::Signature;
pub(crate) use signed::verify;
pub use signed::{Record, Signed, Signer};

/// The longest name of a node in bytes: fits a table column and a DNS label (63) plus one.
pub const MAX_NAME_BYTES: usize = 64;
/// The longest chain of root rotations; at one a year it outlives the hardware, and a credential
/// of 32 rotations (7 KiB) still fits easily into a hello.
pub const MAX_ROTATIONS: usize = 32;
/// How long a membership lasts unless the operator says otherwise: longer than a week-end without
/// contact, short enough that a lost machine lapses by itself.
pub const DEFAULT_LEASE: Micros = Micros::secs(7 * 24 * 3_600);
/// The longest membership any node accepts, so that a stolen steward key cannot grant forever.
pub const MAX_LEASE: Micros = Micros::secs(90 * 24 * 3_600);
/// How long a steward's own record lasts: renewed by whoever holds the root key, about yearly.
pub const STEWARD_LEASE: Micros = Micros::secs(400 * 24 * 3_600);
/// The longest steward record any node accepts.
pub const MAX_STEWARD_LEASE: Micros = Micros::secs(800 * 24 * 3_600);
/// How far two clocks may differ: computers without a time service drift by a second a day or so;
/// two minutes forgive that for months and add little to a lease of days.
pub const CLOCK_SKEW: Micros = Micros::secs(120);
/// How long records of the previous root generation stay good after a rotation: the default lease,
/// so that a node that was cut off during the rotation still finds its way back.
pub const ROTATION_GRACE: Micros = DEFAULT_LEASE;
/// Revocations kept. Each names a key that may not come back; older ones are dropped once no record
/// they cancel can still run.
pub const MAX_REVOCATIONS: usize = 4_096;
/// Stewards known at once: every node of a large site may be one, most meshes have two or three.
pub const MAX_STEWARDS: usize = 256;
/// Members remembered by name: twice the mesh size the failure detector is sized for.
pub const MAX_MEMBERS: usize = 2_048;

/// The root key of a mesh passes to a successor. Signed by `from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRotation {
    /// The mesh, which keeps its name.
    pub mesh: MeshId,
    /// The root key so far.
    pub from: [u8; 32],
    /// The root key from now on.
    pub to: [u8; 32],
    /// Counts the rotations; the first one makes generation 1.
    pub generation: u32,
    /// When it was signed.
    pub at: Wall,
}

/// A node may admit and renew members. Signed by the root key of its generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steward {
    /// The mesh.
    pub mesh: MeshId,
    /// The node.
    pub node: NodeId,
    /// The generation of the root key that signed.
    pub generation: u32,
    /// When it was signed.
    pub issued: Wall,
    /// When it lapses; no membership it grants may outlast it.
    pub not_after: Wall,
}

/// A node belongs to the mesh until `not_after`. Signed by a steward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The mesh.
    pub mesh: MeshId,
    /// The node.
    pub node: NodeId,
    /// What people call the node; at most [`MAX_NAME_BYTES`], not empty, no control characters.
    pub name: String,
    /// When it was signed.
    pub issued: Wall,
    /// When it lapses.
    pub not_after: Wall,
}

/// A node's key is put out of the mesh, for good. Signed by a steward or the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The mesh.
    pub mesh: MeshId,
    /// The node that is out.
    pub node: NodeId,
    /// Since when.
    pub at: Wall,
}

/// A revocation with the record that shows its signer's right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationNotice {
    /// The revocation.
    pub revocation: Signed<Revocation>,
    /// The signer's steward record; none when a root key signed.
    pub steward: Option<Signed<Steward>>,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The signature does not fit.
    #[error("the {0} record's signature is wrong")]
    Signature(&'static str),
    /// The wrong key signed.
    #[error("the {record} record is signed by the wrong key: expected {expected}")]
    Signer {
        /// Which record.
        record: &'static str,
        /// Whose signature it should bear.
        expected: &'static str,
    },
    /// The record is of another mesh.
    #[error("the {record} record belongs to mesh {theirs}, not to {ours}")]
    Mesh {
        /// Which record.
        record: &'static str,
        /// The mesh it names.
        theirs: String,
        /// The mesh it was checked against.
        ours: String,
    },
    /// The record names another node than the one presenting it.
    #[error("the membership is of node {named}, but {presenting} presents it")]
    Node {
        /// Short name in the record.
        named: String,
        /// Short name of the node on the connection.
        presenting: String,
    },
    /// This node's clock stands before its own membership.
    #[error(
        "this node's clock is at least {behind_s} s behind, and what it dates now would undo \
         memberships that came later: set the clock, or do this on another node"
    )]
    Clock {
        /// Seconds from the clock to the membership's beginning.
        behind_s: u64,
    },
    /// It is not valid yet.
    #[error("the {record} record begins {ahead_s} s in the future; check both machines' clocks")]
    NotYet {
        /// Which record.
        record: &'static str,
        /// Seconds ahead, tolerance not counted.
        ahead_s: u64,
    },
    /// It has lapsed.
    #[error("the {record} record lapsed {ago_s} s ago")]
    Lapsed {
        /// Which record.
        record: &'static str,
        /// Seconds since.
        ago_s: u64,
    },
    /// It would last longer than allowed.
    #[error("the {0} record lasts longer than this mesh allows")]
    TooLong(&'static str),
    /// The node's name is empty, too long or holds control characters.
    #[error("the node's name must have 1 to {MAX_NAME_BYTES} bytes and no control characters")]
    Name,
    /// The chain of rotations is too long.
    #[error("{0} root rotations are over the limit of {MAX_ROTATIONS}")]
    Rotations(usize),
    /// A rotation does not follow from the one before.
    #[error("root rotation {0} does not follow from the key before it")]
    Chain(u32),
    /// Two rotations name different successors of the same root key.
    #[error("root generation {0} has another key here: the mesh was split by two rotations")]
    Fork(u32),
    /// The record's root generation does not fit.
    #[error("the {record} record is of root generation {theirs}, expected {ours}")]
    Generation {
        /// Which record.
        record: &'static str,
        /// Its generation.
        theirs: u32,
        /// The generation it was checked against.
        ours: u32,
    },
    /// The node was put out of the mesh.
    #[error("node {0} was revoked")]
    Revoked(String),
    /// The steward that admitted the node was put out before it did.
    #[error("steward {0}, who admitted this node, was revoked")]
    StewardRevoked(String),
    /// This node may not do that.
    #[error("this node is no steward of the mesh")]
    NotSteward,
    /// A bounded collection is full.
    #[error("no room for another {what} record: {limit} are held")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many are held.
        limit: usize,
    },
}

/// The mesh's fingerprint as bytes: what a join code carries.
pub fn fingerprint(mesh: &MeshId) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 mesh fingerprint");
    hasher.update(&mesh.0);
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

/// The mesh's fingerprint for people to compare: base32 in groups of four.
pub fn fingerprint_text(mesh: &MeshId) -> String {
    crate::base32::grouped(&fingerprint(mesh))
}

/// Whether a node may carry this name.
///
/// # Errors
/// [`RecordError::Name`].
pub fn check_name(name: &str) -> Result<(), RecordError> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
    if fits && !name.chars().any(char::is_control) { Ok(()) } else { Err(RecordError::Name) }
}

#[cfg(test)]
mod tests;
