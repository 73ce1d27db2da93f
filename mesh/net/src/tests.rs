//! Endpoints that talk over the loopback interface.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod joining;
mod lifelines;
mod links;
mod mortal;
mod relay;
mod strangers;
mod streams;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use selvedge_base::codec::{OLDEST_VERSION, VERSION};
use selvedge_base::{Code, MeshId, Micros, NodeId, Refusal, Stage};
use selvedge_proto::records::{Credential, grant_membership, grant_steward};
use selvedge_proto::wire::Hello;
use tokio::sync::mpsc;

use crate::{Endpoint, Gate, Identity, Link, NetConfig, NetEvent, clock};

/// Nothing in these tests takes this long unless it is broken.
const DEADLINE: Duration = Duration::from_secs(20);

/// A mesh: its root key.
struct Mesh(Identity);

impl Mesh {
    fn new() -> Self {
        Self(Identity::generate())
    }

    fn id(&self) -> MeshId {
        MeshId(self.0.public())
    }

    /// What a member of this mesh presents.
    fn credential(&self, node: NodeId) -> Credential {
        let (wall, lease) = (clock::wall(), Micros::secs(3_600));
        let root = self.0.node_id();
        let steward = grant_steward(&self.0, self.id(), 0, root, wall, lease);
        grant_membership(&self.0, &steward, &[], node, "test", wall, lease).unwrap()
    }

    fn pass(&self, identity: &Identity) -> Pass {
        Pass {
            mesh: self.id(),
            credential: self.credential(identity.node_id()),
            incarnation: 1,
            versions: (OLDEST_VERSION, VERSION),
            on_admit: OnceLock::new(),
            revoked: Mutex::default(),
        }
    }

    async fn node(&self) -> Node {
        Node::start(self, Identity::generate(), |_| {}).await
    }
}

type Hook = Box<dyn Fn(&Pass, NodeId) + Send + Sync>;

/// A gate with the real check of credentials.
struct Pass {
    mesh: MeshId,
    credential: Credential,
    incarnation: u64,
    versions: (u8, u8),
    on_admit: OnceLock<Hook>,
    revoked: Mutex<Vec<NodeId>>,
}

impl Gate for Pass {
    fn mesh(&self) -> MeshId {
        self.mesh
    }

    fn hello(&self) -> Hello {
        Hello {
            oldest: self.versions.0,
            newest: self.versions.1,
            credential: self.credential.clone(),
            incarnation: self.incarnation,
            listen: Vec::new(),
        }
    }

    fn admit(&self, peer: NodeId, hello: &Hello) -> Result<(), Refusal> {
        let forbidden = |why: String| Refusal::client(Stage::Authenticate, Code::Forbidden, why);
        if self.revoked.lock().contains(&peer) {
            return Err(forbidden("revoked".into()));
        }
        let checked = hello.credential.verify(self.mesh, peer, clock::wall());
        if let Some(hook) = self.on_admit.get() {
            hook(self, peer);
        }
        checked.map_err(|error| forbidden(error.to_string()))
    }
}

/// One endpoint and what it was told.
struct Node {
    identity: Arc<Identity>,
    endpoint: Endpoint,
    events: mpsc::Receiver<NetEvent>,
    pass: Arc<Pass>,
}

impl Node {
    async fn start(mesh: &Mesh, identity: Identity, change: impl FnOnce(&mut Pass)) -> Self {
        Self::with_config(mesh, identity, change, NetConfig::default()).await
    }

    async fn with_config(
        mesh: &Mesh,
        identity: Identity,
        change: impl FnOnce(&mut Pass),
        config: NetConfig,
    ) -> Self {
        Self::at(mesh, identity, change, config, loopback(0)).await
    }

    async fn at(
        mesh: &Mesh,
        identity: Identity,
        change: impl FnOnce(&mut Pass),
        config: NetConfig,
        listen: SocketAddr,
    ) -> Self {
        let mut pass = mesh.pass(&identity);
        change(&mut pass);
        let (pass, identity) = (Arc::new(pass), Arc::new(identity));
        let gate = Arc::clone(&pass) as Arc<dyn Gate>;
        let (endpoint, events) =
            Endpoint::bind(Arc::clone(&identity), listen, gate, config).await.unwrap();
        Self { identity, endpoint, events, pass }
    }

    fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    fn addr(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    async fn link_to(&self, other: &Self) -> Link {
        soon(self.endpoint.connect(other.id(), &[other.addr()])).await.unwrap()
    }

    async fn event(&mut self) -> NetEvent {
        soon(self.events.recv()).await.expect("the endpoint lives")
    }

    /// The next event must be a link coming up.
    async fn up(&mut self) -> (Link, bool) {
        match self.event().await {
            NetEvent::LinkUp { link, dialled, .. } => (link, dialled),
            other => panic!("expected a link, got {other:?}"),
        }
    }

    /// The next event must be a link's end.
    async fn lost(&mut self) -> (NodeId, String) {
        match self.event().await {
            NetEvent::LinkLost { node, why, .. } => (node, why),
            other => panic!("expected the end of a link, got {other:?}"),
        }
    }

    /// The next event must be a stream.
    async fn stream(&mut self) -> (crate::FrameSender, crate::FrameReceiver) {
        match self.event().await {
            NetEvent::Stream { sender, receiver, .. } => (sender, receiver),
            other => panic!("expected a stream, got {other:?}"),
        }
    }

    fn nothing_more(&mut self) {
        if let Ok(event) = self.events.try_recv() {
            panic!("unexpected {event:?}");
        }
    }
}

/// Two linked nodes whose events have been read up to the link.
async fn pair() -> (Node, Node, Link) {
    let mesh = Mesh::new();
    let (mut a, mut b) = (mesh.node().await, mesh.node().await);
    let link = a.link_to(&b).await;
    a.up().await;
    b.up().await;
    (a, b, link)
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}
