//! How membership records spread: what a node has, what another lacks, what taking it changed.
//!
//! Owns the shapes and the rules of the exchange. Does not act on it: it says who is newly
//! revoked, the shell closes their connections.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::{NodeId, Wall};
use serde::{Deserialize, Serialize};

use super::{
    MAX_REVOCATIONS, MAX_ROTATIONS, MAX_STEWARDS, RecordError, RevocationNotice, RootRotation,
    Roster, Signed, Steward,
};

/// Which records a node has, for the exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterDigest {
    /// The root generation known.
    pub generation: u32,
    /// Per steward, the generation and the end of its newest record.
    pub stewards: BTreeMap<NodeId, (u32, Wall)>,
    /// The first half of each revoked key: collisions of 128 bits do not happen by chance, and
    /// whoever searches for one only hides the revocation of a key of their own making.
    pub revoked: BTreeSet<[u8; 16]>,
}

/// Records that the other side lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterDelta {
    /// Rotations after the generation it knows, in order.
    pub rotations: Vec<Signed<RootRotation>>,
    /// Steward records.
    pub stewards: Vec<Signed<Steward>>,
    /// Revocations.
    pub revocations: Vec<RevocationNotice>,
}

/// What a delta changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Nodes newly revoked: close their connections now.
    pub revoked: Vec<NodeId>,
    /// Whether the root key rotated: renew the own credential now.
    pub rotated: bool,
    /// Whether anything must be stored.
    pub changed: bool,
    /// Records that were refused, and why.
    pub refused: Vec<RecordError>,
}

impl Roster {
    /// Which records are known here.
    pub fn digest(&self) -> RosterDigest {
        let end = |steward: &Signed<Steward>| (steward.body.generation, steward.body.not_after);
        RosterDigest {
            generation: self.generation(),
            stewards: self.book.stewards.iter().map(|(node, held)| (*node, end(held))).collect(),
            revoked: self.book.revocations.keys().map(half_key).collect(),
        }
    }

    /// What the holder of `theirs` lacks, at most `limit` steward records and as many revocations.
    pub fn delta(&self, theirs: &RosterDigest, limit: usize) -> RosterDelta {
        let lacks_steward = |held: &&Signed<Steward>| {
            let newness = (held.body.generation, held.body.not_after);
            theirs.stewards.get(&held.body.node).is_none_or(|known| *known < newness)
        };
        let lacks_revocation =
            |(node, _): &(&NodeId, &RevocationNotice)| !theirs.revoked.contains(&half_key(node));
        let revocations = self.book.revocations.iter().filter(lacks_revocation);
        RosterDelta {
            rotations: self
                .book
                .rotations
                .iter()
                .skip(theirs.generation as usize)
                .cloned()
                .collect(),
            stewards: self
                .book
                .stewards
                .values()
                .filter(lacks_steward)
                .take(limit)
                .cloned()
                .collect(),
            revocations: revocations.take(limit).map(|(_, notice)| notice.clone()).collect(),
        }
    }

    /// Takes a delta; records that do not hold are refused one by one.
    pub fn apply(&mut self, delta: RosterDelta, wall: Wall) -> Known {
        let mut known = Known::default();
        for rotation in delta.rotations.into_iter().take(MAX_ROTATIONS) {
            match self.apply_rotation(rotation) {
                Ok(new) => known.rotated |= new,
                Err(error) => known.refused.push(error),
            }
        }
        for steward in delta.stewards.into_iter().take(MAX_STEWARDS) {
            match self.apply_steward(steward) {
                Ok(new) => known.changed |= new,
                Err(error) => known.refused.push(error),
            }
        }
        for notice in delta.revocations.into_iter().take(MAX_REVOCATIONS) {
            let node = notice.revocation.body.node;
            match self.apply_revocation(notice, wall) {
                Ok(true) => known.revoked.push(node),
                Ok(false) => {}
                Err(error) => known.refused.push(error),
            }
        }
        known.changed |= known.rotated || !known.revoked.is_empty();
        known
    }
}

fn half_key(node: &NodeId) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&node.0[..16]);
    half
}
