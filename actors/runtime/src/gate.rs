//! The gate of the QUIC endpoint: who gets a link, and what those outside are told.
//!
//! Owns the two gates (of a member, of a node that is not one yet) and their words. The verdict on
//! a credential is the roster's.

use std::sync::Arc;

use selvedge_base::{Blame, Code, MeshId, Micros, NodeId, Refusal, Retry, Stage};
use selvedge_net::{Gate, Identity, clock, entropy};
use selvedge_proto::records::{self, Credential, RecordError, STEWARD_LEASE, grant_steward};
use selvedge_proto::wire::Hello;

use crate::membership::{Key, Membership, refused};

/// The gate of the QUIC endpoint.
pub(crate) struct MemberGate(pub(crate) Arc<Membership>);

impl Gate for MemberGate {
    fn mesh(&self) -> MeshId {
        self.0.mesh()
    }

    fn hello(&self) -> Hello {
        let membership = &self.0;
        let own = membership.with(|roster| roster.own().cloned());
        let own = own.unwrap_or_else(|| throwaway_credential(membership.identity()));
        let hello = Hello::new(own, membership.incarnation(), membership.listen());
        Hello { newest: membership.newest(), ..hello }
    }

    fn admit(&self, peer: NodeId, hello: &Hello) -> Result<(), Refusal> {
        hello.agree()?;
        let wall = clock::wall();
        let verified = self.0.with(|roster| roster.verify(&hello.credential, peer, wall));
        verified.map_err(|error| turned_away(peer, &error))
    }
}

/// What a node at the door is told. Only one whose records are of this mesh learns what is wrong
/// with them; a stranger learns nothing.
fn turned_away(peer: NodeId, error: &RecordError) -> Refusal {
    tracing::debug!(peer = %peer.short(), %error, "turned away");
    match error {
        RecordError::Lapsed { .. }
        | RecordError::NotYet { .. }
        | RecordError::Revoked(_)
        | RecordError::StewardRevoked(_) => refused(error),
        _ => {
            let message = "not a member of this mesh";
            Refusal::client(Stage::Authenticate, Code::Unauthorized, message)
        }
    }
}

/// The gate of a node that is not a member yet: it lets nobody in.
pub(crate) struct ClosedGate(pub(crate) Arc<Identity>);

impl Gate for ClosedGate {
    fn mesh(&self) -> MeshId {
        // The mesh of a node that belongs to none: nobody else knows it.
        MeshId(entropy::seed())
    }

    fn hello(&self) -> Hello {
        Hello::new(throwaway_credential(&self.0), 0, Vec::new())
    }

    fn admit(&self, _peer: NodeId, _hello: &Hello) -> Result<(), Refusal> {
        let message = "this node has not joined the mesh yet";
        let retry = Retry::After(Micros::secs(1));
        Err(Refusal::new(Stage::Authenticate, Blame::Peer, retry, Code::Unauthorized, message))
    }
}

/// A credential of a mesh of one whose root is the node's own key: well formed, worth nothing to
/// anyone. A hello needs one even from a node that is about to be refused.
fn throwaway_credential(identity: &Identity) -> Credential {
    let key = Key(identity);
    let (me, wall) = (identity.node_id(), clock::wall());
    let steward = grant_steward(&key, MeshId(me.0), 0, me, wall, STEWARD_LEASE);
    let membership = records::Membership {
        mesh: MeshId(me.0),
        node: me,
        name: "stranger".to_owned(),
        issued: wall,
        not_after: wall,
    };
    let membership = records::Signed::seal(membership, &key);
    Credential { membership, steward, rotations: Vec::new() }
}
