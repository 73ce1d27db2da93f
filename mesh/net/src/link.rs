//! A link: this node's session with one peer, whatever connections carry it.
//!
//! Owns the set of connections between the same two nodes and which of them is used. When both
//! sides dial at once there are two for a moment: both sides keep the one dialled by the smaller
//! name, move to it, and let streams on the other finish. Does not own how connections are made
//! (`dial`, `accept`) nor which links exist (`registry`).

use std::cmp::Reverse;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, SendDatagramError};
use selvedge_base::codec::{self, MAX_FRAME};
use selvedge_base::{Micros, NodeId};
use selvedge_proto::wire::Hello;
use tokio::sync::watch;

use crate::config::{LANES, RETIRE};
use crate::error::{CloseCode, NetError, describe};
use crate::frame::{FrameReceiver, FrameSender, InUse};

/// A link to a peer that is a member. Clones are the same link; it ends when the peer is cut off,
/// restarts, or its last connection is lost, and never comes back to life: a new one is made.
#[derive(Clone)]
pub struct Link(pub(crate) Arc<Session>);

pub(crate) struct Session {
    pub(crate) node: NodeId,
    pub(crate) hello: Hello,
    pub(crate) version: u8,
    pub(crate) dialled: bool,
    lanes: Mutex<Vec<Lane>>,
    /// Why the link ended, once it has.
    ended: watch::Sender<Option<String>>,
    /// The peer's process is known to be gone.
    gone: AtomicBool,
}

/// One connection of a link.
#[derive(Clone)]
pub(crate) struct Lane {
    pub(crate) connection: Connection,
    pub(crate) dialler: NodeId,
    /// Stream halves in use.
    in_use: Arc<AtomicUsize>,
    /// The version of what is written: the oldest until both sides agreed on one.
    version: Arc<AtomicU8>,
}

impl Link {
    /// The peer.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// What the peer said about itself when the link came up.
    pub fn hello(&self) -> &Hello {
        &self.0.hello
    }

    /// The version of the member protocol both sides speak.
    pub fn version(&self) -> u8 {
        self.0.version
    }

    /// Where the peer's packets come from.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.0.current().map(|lane| plain(lane.connection.remote_address()))
    }

    /// The smoothed round trip; `None` once the link has ended.
    pub fn rtt(&self) -> Option<Micros> {
        let rtt = self.0.current()?.connection.rtt();
        Some(Micros(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Opens a stream; one with a higher `priority` goes first when the link is full. Waits while
    /// the peer's limit of open streams is reached. The peer learns of the stream with the first
    /// frame.
    ///
    /// # Errors
    /// [`NetError::Lost`] when the link has ended.
    pub async fn open(&self, priority: i32) -> Result<(FrameSender, FrameReceiver), NetError> {
        let mut lost = None;
        // A connection can go between choosing and using it; then the next one is used.
        for _ in 0..LANES {
            let Some(lane) = self.0.current() else { break };
            match lane.connection.open_bi().await {
                Ok(halves) => {
                    let (sender, receiver) = lane.frame(halves, MAX_FRAME);
                    sender.set_priority(priority);
                    return Ok((sender, receiver));
                }
                Err(error) => lost = Some(error),
            }
        }
        Err(NetError::Lost(match (self.0.why_ended(), lost) {
            (Some(why), _) => why,
            (None, Some(error)) => describe(&error),
            (None, None) => "no connection is left".into(),
        }))
    }

    /// Sends a datagram: at most once, in no order, and never waiting. When the link is full the
    /// oldest waiting datagram is dropped for it.
    ///
    /// # Errors
    /// [`NetError::DatagramTooLarge`] beyond what the path carries (at least 1,100 bytes);
    /// [`NetError::Lost`] when the link has ended.
    pub fn datagram(&self, payload: &[u8]) -> Result<(), NetError> {
        let Some(lane) = self.0.current() else {
            return Err(NetError::Lost(self.0.why_ended().unwrap_or_default()));
        };
        let connection = &lane.connection;
        connection.send_datagram(Bytes::copy_from_slice(payload)).map_err(|error| match error {
            SendDatagramError::ConnectionLost(error) => error.into(),
            SendDatagramError::TooLarge
            | SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled => NetError::DatagramTooLarge {
                size: payload.len(),
                limit: connection.max_datagram_size().unwrap_or(0),
            },
        })
    }

    /// Whether the link has ended.
    pub fn is_closed(&self) -> bool {
        self.0.why_ended().is_some()
    }

    /// Resolves when the link has ended, with the reason.
    pub async fn closed(&self) -> String {
        let mut ended = self.0.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The sender lives in the session this link holds.
            Err(_) => String::new(),
        }
    }

    /// How many connections carry the link: one, but for the moment after both sides dialled.
    pub fn connections(&self) -> usize {
        self.0.lanes.lock().iter().filter(|lane| lane.alive()).count()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} at {:?})", self.0.node, self.remote_addr())
    }
}

impl Session {
    pub(crate) fn new(hello: Hello, version: u8, node: NodeId, dialled: bool, lane: Lane) -> Self {
        lane.agreed(version);
        let lanes = Mutex::new(vec![lane]);
        Self {
            node,
            hello,
            version,
            dialled,
            lanes,
            ended: watch::channel(None).0,
            gone: AtomicBool::new(false),
        }
    }

    /// The connection to use: alive, dialled by the smaller name, the newest of these.
    pub(crate) fn current(&self) -> Option<Lane> {
        best(&self.lanes.lock()).cloned()
    }

    /// Notes that the peer's process is gone, not only the connection to it.
    pub(crate) fn mark_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub(crate) fn why_ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// Takes another connection between the same two nodes; false when there are too many.
    pub(crate) fn add(&self, lane: Lane) -> bool {
        let mut lanes = self.lanes.lock();
        lanes.retain(Lane::alive);
        if lanes.len() >= LANES {
            return false;
        }
        lane.agreed(self.version);
        lanes.push(lane);
        true
    }

    /// Forgets the connections that are gone; ends the session with `why` when none is left.
    pub(crate) fn prune(&self, why: &str) {
        let empty = {
            let mut lanes = self.lanes.lock();
            lanes.retain(Lane::alive);
            lanes.is_empty()
        };
        if empty {
            self.mark_ended(why);
        }
    }

    /// Ends the session: its connections close at once.
    pub(crate) fn end(&self, code: CloseCode, why: &str) {
        self.mark_ended(why);
        for lane in self.lanes.lock().drain(..) {
            code.close(&lane.connection, why);
        }
    }

    fn mark_ended(&self, why: &str) {
        // The first reason stays.
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert_with(|| why.to_owned());
            first
        });
    }

    /// Closes `lane` once another connection has taken over and its last stream has ended.
    pub(crate) async fn retire(self: Arc<Self>, lane: Lane) {
        let mut idle = 0;
        while idle < 2 {
            tokio::time::sleep(RETIRE).await;
            let replaced = self
                .current()
                .is_some_and(|best| best.connection.stable_id() != lane.connection.stable_id());
            if !lane.alive() || !replaced {
                return;
            }
            idle = if lane.in_use.load(Ordering::Relaxed) == 0 { idle + 1 } else { 0 };
        }
        CloseCode::Duplicate.close(&lane.connection, "another connection is used instead");
    }

    /// The connections that are not the one in use.
    pub(crate) fn spare(&self) -> Vec<Lane> {
        let lanes = self.lanes.lock();
        let used = best(&lanes).map(|lane| lane.connection.stable_id());
        let spare = |lane: &&Lane| lane.alive() && Some(lane.connection.stable_id()) != used;
        lanes.iter().filter(spare).cloned().collect()
    }
}

impl Lane {
    pub(crate) fn new(connection: Connection, dialler: NodeId) -> Self {
        let version = Arc::new(AtomicU8::new(codec::OLDEST_VERSION));
        Self { connection, dialler, in_use: Arc::default(), version }
    }

    /// From now on new streams are written in this version.
    fn agreed(&self, version: u8) {
        self.version.store(version, Ordering::Relaxed);
    }

    pub(crate) fn alive(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Puts frames on a stream of this connection.
    pub(crate) fn frame(
        &self,
        (send, recv): (quinn::SendStream, quinn::RecvStream),
        limit: usize,
    ) -> (FrameSender, FrameReceiver) {
        let receiver = FrameReceiver::new(recv, limit, InUse::new(&self.in_use));
        let sender = FrameSender::new(send, limit, InUse::new(&self.in_use));
        (sender.speaking(self.version.load(Ordering::Relaxed)), receiver)
    }
}

/// The first of: alive, smaller dialler, newer. Lanes stand in the order they came.
fn best(lanes: &[Lane]) -> Option<&Lane> {
    let alive = lanes.iter().enumerate().filter(|(_, lane)| lane.alive());
    alive.min_by_key(|(index, lane)| (lane.dialler, Reverse(*index))).map(|(_, lane)| lane)
}

/// An IPv4 address that arrived on an IPv6 socket, written as IPv4.
pub(crate) fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
