//! The narrow door for those who are not members yet.
//!
//! Owns the limits of that door: one stream, a few small messages, a few seconds. What is said
//! there (the PAKE and the record at its end) is `selvedge_proto::join`'s.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::Connection;
use selvedge_base::NodeId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::accept::Place;
use crate::config::{JOIN_BYTES, JOIN_MESSAGES, JOIN_TIME, LAST_WORDS};
use crate::error::{CloseCode, NetError};
use crate::frame::{FrameReceiver, FrameSender};
use crate::link::{Lane, plain};

/// A conversation about joining. Dropping it ends it; the side that was dialled lingers for a
/// moment so that its last message arrives.
#[derive(Debug)]
pub struct JoinLink {
    node: NodeId,
    addr: SocketAddr,
    sender: FrameSender,
    receiver: FrameReceiver,
    sent: u32,
    received: u32,
    deadline: Instant,
    _done: oneshot::Sender<()>,
}

/// Which side of the conversation this is.
pub(crate) enum JoinSide {
    /// It asks, so the other side has the last word.
    Joiner,
    /// It was asked; `_place` is its place among those served at one time.
    Issuer { _place: Place },
}

impl JoinLink {
    pub(crate) fn new(
        (node, lane): (NodeId, Lane),
        halves: (quinn::SendStream, quinn::RecvStream),
        side: JoinSide,
    ) -> Self {
        let (sender, receiver) = lane.frame(halves, JOIN_BYTES);
        let deadline = Instant::now() + JOIN_TIME;
        let (done, over) = oneshot::channel();
        let addr = plain(lane.connection.remote_address());
        tokio::spawn(watch(lane.connection, deadline, over, side));
        Self { node, addr, sender, receiver, sent: 0, received: 0, deadline, _done: done }
    }

    /// The other side, whose key the handshake has proven.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Where it is.
    pub fn remote_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`NetError::TooManyMessages`] and [`NetError::Late`] beyond the limits of joining, and as
    /// [`FrameSender::send`].
    pub async fn send<T: Serialize + ?Sized>(&mut self, message: &T) -> Result<(), NetError> {
        self.sent = allow(self.sent)?;
        let late = |_| NetError::Late("joining");
        timeout_at(self.deadline, self.sender.send(message)).await.map_err(late)?
    }

    /// The next message; `None` when the other side has ended the conversation.
    ///
    /// # Errors
    /// As [`JoinLink::send`] and [`FrameReceiver::recv`].
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, NetError> {
        self.received = allow(self.received)?;
        let late = |_| NetError::Late("joining");
        timeout_at(self.deadline, self.receiver.recv()).await.map_err(late)?
    }
}

fn allow(count: u32) -> Result<u32, NetError> {
    if count >= JOIN_MESSAGES {
        return Err(NetError::TooManyMessages(JOIN_MESSAGES));
    }
    Ok(count + 1)
}

/// Closes the connection when the conversation is over, at the latest when its time is.
async fn watch(
    connection: Connection,
    deadline: Instant,
    over: oneshot::Receiver<()>,
    side: JoinSide,
) {
    let linger = match &side {
        JoinSide::Joiner => Duration::ZERO,
        JoinSide::Issuer { .. } => LAST_WORDS,
    };
    let (code, why) = tokio::select! {
        biased;
        _ = connection.closed() => return,
        // Resolves with an error when the link is dropped, which is how it ends.
        _ = over => {
            tokio::select! {
                _ = connection.closed() => return,
                () = sleep(linger) => (CloseCode::Done, ""),
            }
        }
        () = sleep_until(deadline) => (CloseCode::Late, "joining took too long"),
    };
    code.close(&connection, why);
}
