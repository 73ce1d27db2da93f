//! Dialling: several addresses, one winner.
//!
//! Owns the race between a peer's addresses and the report of why each failed. A winner is an
//! address whose handshake proved the wanted key; the Hello then decides about the link.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quinn::Connection;
use selvedge_base::NodeId;
use tokio::time::{Instant, sleep_until, timeout};

use crate::accept;
use crate::config::{self, ADDRESSES, GREETING, STAGGER};
use crate::counters::NetCounters;
use crate::endpoint::{Endpoint, Shared};
use crate::error::{Attempt, CloseCode, NetError, describe};
use crate::greet::{self, Greeted};
use crate::join::{JoinLink, JoinSide};
use crate::link::{Lane, Link, plain};
use crate::registry::Registered;
use crate::tls::{self, JOIN_ALPN, MEMBER_ALPN, SERVER_NAME};

impl Endpoint {
    /// Links with `node`, which is at one of `addrs`. The addresses race, each 150 ms after the
    /// one before it or as soon as that failed. Returns the link there is when there is one, also
    /// when the peer's own dial is faster than this one.
    ///
    /// # Errors
    /// [`NetError::Unreachable`] says of every address why it failed (also: another node answers
    /// there); [`NetError::RefusedByPeer`] and [`NetError::RefusedHere`] are final for now.
    pub async fn connect(&self, node: NodeId, addrs: &[SocketAddr]) -> Result<Link, NetError> {
        if node == self.shared.me {
            return Err(NetError::Myself);
        }
        let turn = Turn::new(&self.shared, node);
        let _mine = turn.lock.lock().await;
        tokio::select! {
            biased;
            link = self.shared.registry.linked(&node) => Ok(link),
            dialled = dial(&self.shared, Some(node), addrs) => dialled,
        }
    }

    /// Links with whichever member is at `addr`: its name is learned from its certificate, its
    /// membership from its Hello.
    ///
    /// # Errors
    /// As [`Endpoint::connect`]; [`NetError::Myself`] when the address is this node's own.
    pub async fn connect_unknown(&self, addr: SocketAddr) -> Result<Link, NetError> {
        dial(&self.shared, None, &[addr]).await
    }

    /// Reaches a node that may let this one join: `issuer` when the code names it, else whoever
    /// answers first (the conversation proves that it knows the code).
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn join(
        &self,
        issuer: Option<NodeId>,
        addrs: &[SocketAddr],
    ) -> Result<JoinLink, NetError> {
        let mut race = Race::new(&self.shared, JOIN_ALPN, issuer, addrs)?;
        let (_, connection) = race.winner().await?;
        let node = tls::peer_of(&connection).ok_or(NetError::NoAddress)?;
        let lane = Lane::new(connection, self.shared.me);
        let halves = lane.connection.open_bi().await?;
        Ok(JoinLink::new((node, lane), halves, JoinSide::Joiner))
    }
}

async fn dial(
    shared: &Arc<Shared>,
    expected: Option<NodeId>,
    addrs: &[SocketAddr],
) -> Result<Link, NetError> {
    let mut race = Race::new(shared, MEMBER_ALPN, expected, addrs)?;
    loop {
        let (addr, connection) = race.winner().await?;
        let Some(node) = tls::peer_of(&connection) else { continue };
        if node == shared.me {
            CloseCode::Done.close(&connection, "that is this node itself");
            return Err(NetError::Myself);
        }
        if let Some(link) = shared.registry.link(&node).filter(|_| expected.is_none()) {
            CloseCode::Duplicate.close(&connection, "there is a link already");
            return Ok(link);
        }
        let lane = Lane::new(connection, shared.me);
        let greeted = timeout(GREETING, link_up(shared, node, &lane)).await;
        let error = match greeted {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(error)) => error,
            Err(_) => NetError::Late("the Hello"),
        };
        let code = match error {
            NetError::RefusedHere { .. } => CloseCode::Refused,
            NetError::Late(_) => CloseCode::Late,
            _ => CloseCode::Done,
        };
        code.close(&lane.connection, &error.to_string());
        if !matches!(error, NetError::Lost(_) | NetError::Late(_)) {
            return Err(error);
        }
        race.failed.push(Attempt { addr, why: error.to_string() });
    }
}

/// From an established connection to a link.
async fn link_up(shared: &Arc<Shared>, node: NodeId, lane: &Lane) -> Result<Link, NetError> {
    let gate = shared.gate.as_ref();
    let mut cuts = shared.registry.cuts();
    let (Greeted { hello, version }, confirmation) = greet::introduce(lane, node, gate).await?;
    config::raise(&lane.connection, &shared.config);
    let session = loop {
        let peer = (node, hello.clone(), version);
        match shared.registry.register(peer, (lane.clone(), true), cuts) {
            Registered::Yes(session) => break session,
            Registered::Full => {
                return Err(NetError::RefusedHere { node, refusal: accept::full(shared) });
            }
            Registered::ShutDown => return Err(NetError::ShuttingDown),
            Registered::Stale => {
                cuts = shared.registry.cuts();
                gate.admit(node, &hello)
                    .map_err(|refusal| NetError::RefusedHere { node, refusal })?;
            }
        }
    };
    confirmation.give();
    NetCounters::count(&shared.counters.links);
    tokio::spawn(accept::serve(Arc::clone(shared), Arc::clone(&session), lane.clone()));
    Ok(Link(session))
}

/// The addresses of one peer, tried one after the other but not one at a time.
pub(crate) struct Race<'a> {
    shared: &'a Shared,
    alpn: &'static [u8],
    expected: Option<NodeId>,
    waiting: std::vec::IntoIter<SocketAddr>,
    running: FuturesUnordered<futures::future::BoxFuture<'a, Result<Reached, Attempt>>>,
    next_at: Instant,
    failed: Vec<Attempt>,
}

type Reached = (SocketAddr, Connection);

impl<'a> Race<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        alpn: &'static [u8],
        expected: Option<NodeId>,
        addrs: &[SocketAddr],
    ) -> Result<Self, NetError> {
        let mut seen = BTreeSet::new();
        let usable = |addr: &SocketAddr| addr.port() != 0 && !addr.ip().is_unspecified();
        let addrs: Vec<_> = addrs
            .iter()
            .map(|addr| plain(*addr))
            .filter(|addr| usable(addr) && seen.insert(*addr))
            .take(ADDRESSES)
            .collect();
        if addrs.is_empty() {
            return Err(NetError::NoAddress);
        }
        Ok(Self {
            shared,
            alpn,
            expected,
            waiting: addrs.into_iter(),
            running: FuturesUnordered::new(),
            next_at: Instant::now(),
            failed: Vec::new(),
        })
    }

    /// The next address whose handshake succeeds.
    pub(crate) async fn winner(&mut self) -> Result<Reached, NetError> {
        loop {
            if self.running.is_empty() {
                // Nothing to wait for.
                self.next_at = Instant::now();
            }
            tokio::select! {
                biased;
                Some(finished) = self.running.next() => match finished {
                    Ok(reached) => return Ok(reached),
                    Err(attempt) => {
                        self.failed.push(attempt);
                        self.next_at = Instant::now();
                    }
                },
                () = sleep_until(self.next_at), if self.waiting.len() > 0 => {
                    if let Some(addr) = self.waiting.next() {
                        let reached = reach(self.shared, self.alpn, self.expected, addr);
                        self.running.push(Box::pin(reached));
                    }
                    self.next_at = Instant::now() + STAGGER;
                }
                else => return Err(NetError::Unreachable(std::mem::take(&mut self.failed))),
            }
        }
    }
}

/// One handshake.
async fn reach(
    shared: &Shared,
    alpn: &'static [u8],
    expected: Option<NodeId>,
    addr: SocketAddr,
) -> Result<Reached, Attempt> {
    let failed = |why: String| Attempt { addr, why };
    let (mut config, found) =
        shared.credentials.client(alpn, expected).map_err(|error| failed(error.to_string()))?;
    config.transport_config(Arc::clone(&shared.client_transport));
    let connecting = shared
        .quinn
        .connect_with(config, addr, SERVER_NAME)
        .map_err(|error| failed(error.to_string()))?;
    match timeout(GREETING, connecting).await {
        Ok(Ok(connection)) => Ok((addr, connection)),
        Ok(Err(error)) => Err(failed(match found.get() {
            Some(other) => format!("another node answers there: {other}"),
            None => describe(&error),
        })),
        Err(_) => Err(failed("nothing heard in time".into())),
    }
}

/// A place in the queue of dials towards one node.
struct Turn<'a> {
    shared: &'a Shared,
    node: NodeId,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl<'a> Turn<'a> {
    fn new(shared: &'a Shared, node: NodeId) -> Self {
        let lock = Arc::clone(shared.dialling.lock().entry(node).or_default());
        Self { shared, node, lock }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut dialling = self.shared.dialling.lock();
        // The map's reference and this one: nobody else waits.
        if Arc::strong_count(&self.lock) <= 2 {
            dialling.remove(&self.node);
        }
    }
}
