//! What the endpoint tells the runtime.
//!
//! Owns the event type and the trait by which the runtime says who may come in.

use std::net::SocketAddr;

use bytes::Bytes;
use selvedge_base::{MeshId, NodeId, Refusal};
use selvedge_proto::wire::Hello;

use crate::frame::{FrameReceiver, FrameSender};
use crate::join::JoinLink;
use crate::link::Link;

/// Something that happened on the network. For one node the order is: `LinkUp`, its streams and
/// datagrams, `LinkLost`; never two `LinkUp` without a `LinkLost` between them.
#[derive(Debug)]
pub enum NetEvent {
    /// Both sides accepted each other.
    LinkUp {
        /// The link.
        link: Link,
        /// Whether this node dialled.
        dialled: bool,
        /// What the peer says about itself; its credential has been admitted.
        hello: Hello,
    },
    /// The link has ended and its streams with it.
    LinkLost {
        /// The peer.
        node: NodeId,
        /// Why, for people.
        why: String,
        /// Whether the peer's process is known to be gone: it said good-bye, or its machine has
        /// told of its end.
        gone: bool,
    },
    /// A datagram from a linked peer.
    Datagram {
        /// The peer.
        from: NodeId,
        /// What it sent.
        bytes: Bytes,
    },
    /// A linked peer opened a stream; its first frame is there or on its way.
    Stream {
        /// The peer.
        from: NodeId,
        /// The half to answer on.
        sender: FrameSender,
        /// The half with the request.
        receiver: FrameReceiver,
    },
    /// Somebody wants to become a member. Nothing is known but that it holds the key of `from`.
    JoinAttempt {
        /// Who.
        from: NodeId,
        /// From where.
        addr: SocketAddr,
        /// The only thing it can talk to.
        link: JoinLink,
    },
}

/// Who may come in. Asked on every new connection, from several tasks at once, and expected to
/// answer from memory.
pub trait Gate: Send + Sync + 'static {
    /// The mesh this node belongs to. Its id never crosses the wire before the other side has
    /// proven to know it.
    fn mesh(&self) -> MeshId;

    /// What this node says about itself.
    fn hello(&self) -> Hello;

    /// Whether `peer`, whose key the handshake has proven, may have a link.
    ///
    /// # Errors
    /// The refusal, which is told to the peer: it must not hold anything a stranger should not
    /// know.
    fn admit(&self, peer: NodeId, hello: &Hello) -> Result<(), Refusal>;
}
