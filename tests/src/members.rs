//! Members of a mesh that exists for one test: real keys, real records, the real data plane.
//!
//! Owns signing the records and the gate that checks them, so that tests and benches can speak the
//! data plane without a whole node. The checks are the product's own.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use selvedge_base::{Blame, Code, MeshId, Micros, NodeId, Refusal, Retry, Stage};
use selvedge_net::{Endpoint, Gate, Identity, NetConfig, NetEvent, clock};
use selvedge_proto::records::{Credential, grant_membership, grant_steward};
use selvedge_proto::wire::Hello;
use tokio::sync::mpsc;

/// How long the records of a test are good.
const LEASE: Micros = Micros::secs(3_600);

/// A mesh whose root key is at hand.
#[derive(Debug)]
pub struct Clique {
    root: Identity,
}

/// A member's endpoint and what happens on it.
#[derive(Debug)]
pub struct Member {
    /// The data plane.
    pub endpoint: Endpoint,
    /// Its events, which must be read.
    pub events: mpsc::Receiver<NetEvent>,
}

struct RecordGate {
    mesh: MeshId,
    credential: Credential,
}

impl Default for Clique {
    fn default() -> Self {
        Self { root: Identity::generate() }
    }
}

impl Clique {
    /// A new member, listening.
    ///
    /// # Errors
    /// When the records cannot be made or the address cannot be had.
    pub async fn member(&self, name: &str, listen: SocketAddr) -> Result<Member> {
        let identity = Arc::new(Identity::generate());
        let mesh = MeshId(self.root.public());
        let root = (self.root.public(), |message: &[u8]| self.root.sign(message));
        let wall = clock::wall();
        let steward = grant_steward(&root, mesh, 0, NodeId(self.root.public()), wall, LEASE);
        let credential =
            grant_membership(&root, &steward, &[], identity.node_id(), name, wall, LEASE)?;
        let gate = Arc::new(RecordGate { mesh, credential });
        let bound = Endpoint::bind(identity, listen, gate, NetConfig::default()).await?;
        Ok(Member { endpoint: bound.0, events: bound.1 })
    }
}

impl Gate for RecordGate {
    fn mesh(&self) -> MeshId {
        self.mesh
    }

    fn hello(&self) -> Hello {
        Hello::new(self.credential.clone(), 1, Vec::new())
    }

    fn admit(&self, peer: NodeId, hello: &Hello) -> Result<(), Refusal> {
        hello.credential.verify(self.mesh, peer, clock::wall()).map_err(|error| {
            let text = error.to_string();
            let (stage, code) = (Stage::Authenticate, Code::Unauthorized);
            Refusal::new(stage, Blame::Peer, Retry::Never, code, text)
        })
    }
}
