//! The data plane of a node: one UDP socket, links to members, a narrow door for joiners.
//!
//! Owns the life of everything on it. Dialling is in `dial`, being dialled in `accept`, the TCP
//! socket beside it belongs to `lifeline`. Decides nothing about membership: that is the gate's.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{EndpointConfig, TokioRuntime};
use quinn_proto::crypto::{CryptoError, HmacKey};
use selvedge_base::NodeId;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::accept::{self, Door};
use crate::config::{self, JOINS, JOINS_PER_ADDRESS, NetConfig, STRANGERS};
use crate::counters::{NetCounters, NetCounts};
use crate::entropy;
use crate::error::{CloseCode, NetError};
use crate::event::{Gate, NetEvent};
use crate::identity::Identity;
use crate::lifeline::{self, Lifelines};
use crate::link::Link;
use crate::registry::Registry;
use crate::sockets::{self, in_words};
use crate::stray;
use crate::tls::Credentials;

/// How long a shutdown waits for peers to hear of it: some round trips.
const GOODBYE: Duration = Duration::from_millis(500);

/// The data plane. Clones are the same endpoint; it closes with the last one.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) shared: Arc<Shared>,
    _closes: Arc<CloseOnDrop>,
}

/// What the endpoint's tasks have in common.
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) quinn: quinn::Endpoint,
    pub(crate) local: SocketAddr,
    pub(crate) credentials: Credentials,
    pub(crate) client_transport: Arc<quinn::TransportConfig>,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) config: NetConfig,
    pub(crate) registry: Registry,
    pub(crate) events: mpsc::Sender<NetEvent>,
    pub(crate) counters: Arc<NetCounters>,
    pub(crate) joins: Arc<Door>,
    pub(crate) lifelines: Lifelines,
    /// Whether lifelines can come in.
    pub(crate) listens_tcp: bool,
    /// Where they come in, until the shutdown.
    tcp: Mutex<Option<JoinHandle<()>>>,
    /// One dial at a time towards each node; entries live as long as somebody dials.
    pub(crate) dialling: Mutex<BTreeMap<NodeId, Arc<tokio::sync::Mutex<()>>>>,
}

struct CloseOnDrop(Arc<Shared>);

impl Endpoint {
    /// Binds the socket and begins to listen. Events must be read: while the queue is full,
    /// peers wait.
    ///
    /// # Errors
    /// [`NetError::Bind`] when the address cannot be had, [`NetError::Tls`] when no certificate
    /// can be made.
    #[expect(clippy::unused_async, reason = "quinn takes the runtime of the calling task")]
    pub async fn bind(
        identity: Arc<Identity>,
        listen: SocketAddr,
        gate: Arc<dyn Gate>,
        config: NetConfig,
    ) -> Result<(Self, mpsc::Receiver<NetEvent>), NetError> {
        // Not waited for: what is not warm when the first peer comes costs that handshake 30 ms.
        tokio::task::spawn_blocking(entropy::prewarm);
        let failed = |error: io::Error| NetError::Bind { addr: listen, why: in_words(&error) };
        let credentials = Credentials::new(&identity)?;
        let mut server = credentials.server()?;
        server
            .transport_config(config::transport(1))
            .max_incoming(STRANGERS)
            // Packets that arrive before the handshake is looked at: a first flight and a repeat.
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total(1 << 20);
        let counters = Arc::new(NetCounters::default());
        let (socket, tcp) = sockets::open(listen, config.lifelines).map_err(failed)?;
        let tcp = tcp.map(TcpListener::from_std).transpose().map_err(failed)?;
        let socket = stray::watch(socket, Arc::clone(&counters)).map_err(failed)?;
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            endpoint_config(&identity, &counters),
            Some(server),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(failed)?;
        let local = quinn.local_addr().map_err(failed)?;
        let (events, receiver) = mpsc::channel(config.event_queue.max(1));
        let shared = Arc::new(Shared {
            me: identity.node_id(),
            quinn,
            local,
            credentials,
            client_transport: config::transport(0),
            gate,
            registry: Registry::new(events.clone(), config.max_links),
            config,
            events,
            counters,
            joins: Arc::new(Door::new(JOINS, JOINS_PER_ADDRESS)),
            lifelines: Lifelines::new(),
            listens_tcp: tcp.is_some(),
            tcp: Mutex::default(),
            dialling: Mutex::new(BTreeMap::new()),
        });
        tokio::spawn(accept::listen(Arc::clone(&shared)));
        if let Some(listener) = tcp {
            let task = tokio::spawn(lifeline::listen(Arc::clone(&shared), listener));
            *shared.tcp.lock() = Some(task);
        }
        let closes = Arc::new(CloseOnDrop(Arc::clone(&shared)));
        Ok((Self { shared, _closes: closes }, receiver))
    }

    /// The address the socket has, with the port the system chose when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.shared.me
    }

    /// The link to a node, if there is one.
    pub fn link(&self, node: &NodeId) -> Option<Link> {
        self.shared.registry.link(node)
    }

    /// All links, in the order of the nodes' names.
    pub fn links(&self) -> Vec<Link> {
        self.shared.registry.links()
    }

    /// What was counted so far.
    pub fn counts(&self) -> NetCounts {
        self.shared.counters.read()
    }

    /// Cuts a node off: its connections close before this returns, what is in flight fails on
    /// both sides, and a Hello of its that is being exchanged goes to the gate once more.
    pub fn close(&self, node: &NodeId, why: &str) {
        self.shared.registry.cut(node, why);
    }

    /// Ends every link, tells the peers, and waits briefly until they heard it.
    pub async fn shutdown(&self) {
        self.shared.close("the node is shutting down");
        let tcp = self.shared.tcp.lock().take();
        if let Some(task) = tcp {
            // It has been told to end, so that the port is free when this returns.
            let _ended = tokio::time::timeout(GOODBYE, task).await;
        }
        // A peer that does not answer finds out by itself.
        let _heard = tokio::time::timeout(GOODBYE, self.shared.quinn.wait_idle()).await;
    }
}

impl Shared {
    fn close(&self, why: &str) {
        self.registry.close_all(why);
        self.lifelines.close();
        self.quinn.close((CloseCode::ShuttingDown as u32).into(), why.as_bytes());
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close("the node is gone");
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({} on {})", self.shared.me, self.shared.local)
    }
}

fn endpoint_config(identity: &Identity, counters: &Arc<NetCounters>) -> EndpointConfig {
    // Both keys are the same after a restart, so that the new process can tell its peers that the
    // connections of the old one are gone, instead of letting them wait for the idle timeout.
    let reset = ResetKey(identity.derive("selvedge 2026 quic stateless reset"));
    let ids = identity.derive("selvedge 2026 quic connection ids");
    let ids = ids.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mut config = EndpointConfig::new(Arc::new(reset));
    config
        .supported_versions(vec![stray::QUIC_V1])
        // Every packet then shows that it is QUIC, and what is not can be counted.
        .grease_quic_bit(false)
        .rng_seed(Some(entropy::seed()))
        .cid_generator(stray::connection_ids(ids, Arc::clone(counters)));
    config
}

/// Signs stateless resets (RFC 9000, 10.3.2).
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.0).update(data).finalize_xof().fill(out);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let given: [u8; blake3::OUT_LEN] = signature.try_into().map_err(|_| CryptoError)?;
        // Compares in constant time.
        (blake3::keyed_hash(&self.0, data) == given).then_some(()).ok_or(CryptoError)
    }
}
