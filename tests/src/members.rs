//! Members that are no whole node: real keys, real records, the real data plane.
//!
//! Of a mesh that exists for one test, or of real nodes, which let one in by a join code as they
//! let in any. Owns signing the records and the gate that checks them, so that tests and benches
//! can speak the data plane. The checks are the product's own.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use selvedge_base::{Blame, Code, MeshId, Micros, NodeId, Refusal, Retry, Stage};
use selvedge_net::{Endpoint, Gate, Identity, NetConfig, NetEvent, clock, entropy};
use selvedge_proto::join::{JoinCode, JoinMessage, Joined, Joiner, JoinerStep};
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
        let gate = Arc::new(self.gate(&identity, name)?);
        let bound = Endpoint::bind(identity, listen, gate, NetConfig::default()).await?;
        Ok(Member { endpoint: bound.0, events: bound.1 })
    }

    /// What a node shows of itself as a member, and asks of others.
    fn gate(&self, identity: &Identity, name: &str) -> Result<RecordGate> {
        let mesh = MeshId(self.root.public());
        let root = (self.root.public(), |message: &[u8]| self.root.sign(message));
        let wall = clock::wall();
        let steward = grant_steward(&root, mesh, 0, NodeId(self.root.public()), wall, LEASE);
        let credential =
            grant_membership(&root, &steward, &[], identity.node_id(), name, wall, LEASE)?;
        Ok(RecordGate { mesh, credential })
    }
}

/// A member of a mesh of real nodes, let in by a join code and listening.
///
/// # Errors
/// When the code is none or the mesh does not let it in, or the address cannot be had.
pub async fn joined(name: &str, code: &str, listen: SocketAddr) -> Result<Member> {
    let identity = Arc::new(Identity::generate());
    let code: JoinCode = code.parse()?;
    // Of a mesh of its own, so that it lets nobody in before it has joined.
    let stranger = Arc::new(Clique::default().gate(&identity, name)?);
    let quiet = NetConfig { lifelines: false, ..NetConfig::default() };
    let (door, _events) = Endpoint::bind(Arc::clone(&identity), listen, stranger, quiet).await?;
    let joined = converse(&door, &identity, name, &code).await;
    door.shutdown().await;
    let Joined { mesh, credential, .. } = joined?;
    let gate = Arc::new(RecordGate { mesh, credential });
    let bound = Endpoint::bind(identity, listen, gate, NetConfig::default()).await?;
    Ok(Member { endpoint: bound.0, events: bound.1 })
}

async fn converse(
    door: &Endpoint,
    identity: &Identity,
    name: &str,
    code: &JoinCode,
) -> Result<Joined> {
    let mut link = door.join(None, &code.addrs).await?;
    let (me, issuer) = (identity.node_id(), link.node());
    let (mut joiner, start) = Joiner::new(code.clone(), me, issuer, name, entropy::dice())?;
    link.send(&start).await?;
    loop {
        let message = link.recv::<JoinMessage>().await?.context("the issuer hung up")?;
        match joiner.received(message, clock::wall()) {
            JoinerStep::Send(answer) => link.send(&answer).await?,
            JoinerStep::Joined(joined) => return Ok(*joined),
            JoinerStep::Failed(error) => return Err(error.into()),
        }
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
