//! What can go wrong between two nodes, in words that name the address and the cause.
//!
//! Owns the error type of this crate and the numbers that cross the wire when a connection or a
//! stream ends early.

use std::fmt;
use std::net::SocketAddr;

use quinn::{ConnectionError, VarInt};
use selvedge_base::codec::CodecError;
use selvedge_base::{NodeId, Refusal};
use thiserror::Error;

/// Why a connection was closed; the number crosses the wire, the text beside it is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum CloseCode {
    /// Nothing is left to say.
    Done = 0,
    /// The node is going down.
    ShuttingDown = 1,
    /// The link was cut on purpose: revoked, or left.
    Cut = 2,
    /// The Hello was refused.
    Refused = 3,
    /// Too many already.
    Busy = 4,
    /// Another connection between the same two nodes is used instead.
    Duplicate = 5,
    /// The same node came back as a new process.
    Restarted = 6,
    /// The other side broke the rules of the protocol.
    Broken = 7,
    /// It took too long.
    Late = 8,
}

impl CloseCode {
    pub(crate) fn close(self, connection: &quinn::Connection, why: &str) {
        // A reason longer than a packet would be cut by QUIC at a byte, not at a character.
        let end = why.floor_char_boundary(400);
        connection.close(VarInt::from_u32(self as u32), &why.as_bytes()[..end]);
    }
}

/// Numbers for streams that end early, in `reset` and `stop`.
pub mod stream_code {
    /// Nobody waits for the rest.
    pub const CANCELLED: u32 = 1;
    /// A frame was over the limit.
    pub const OVERSIZED: u32 = 2;
    /// A frame could not be read.
    pub const MALFORMED: u32 = 3;
}

/// One address that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The address.
    pub addr: SocketAddr,
    /// Why it did not work.
    pub why: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.addr, self.why)
    }
}

/// Why something between two nodes did not work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetError {
    /// The UDP socket could not be had.
    #[error("cannot listen on {addr}/udp: {why}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        why: String,
    },
    /// The TLS set-up is impossible.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// A node dialled itself.
    #[error("that is this node itself")]
    Myself,
    /// There is nothing to dial.
    #[error("no address to dial is known")]
    NoAddress,
    /// No address worked.
    #[error("no address answered ({})", list(.0))]
    Unreachable(Vec<Attempt>),
    /// The other side refused the Hello.
    #[error("{node} refused: {refusal}")]
    RefusedByPeer {
        /// Who refused.
        node: NodeId,
        /// Why.
        refusal: Refusal,
    },
    /// This node refused the other side's Hello.
    #[error("{node} may not connect: {refusal}")]
    RefusedHere {
        /// Who was refused.
        node: NodeId,
        /// Why.
        refusal: Refusal,
    },
    /// The connection is gone.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The other side does not want the rest of a stream.
    #[error("the reader stopped (code {0})")]
    Stopped(u64),
    /// The other side gave up a stream.
    #[error("the writer gave up (code {0})")]
    Reset(u64),
    /// A stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// An earlier send was interrupted, so what follows would be misread.
    #[error("an earlier frame was interrupted")]
    Interrupted,
    /// This side has already ended the stream.
    #[error("the stream is closed on this side")]
    Closed,
    /// A frame was refused or could not be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A datagram does not fit the path.
    #[error("datagram of {size} bytes is over the path's {limit}")]
    DatagramTooLarge {
        /// Its size.
        size: usize,
        /// What fits.
        limit: usize,
    },
    /// It took too long.
    #[error("{0} took too long")]
    Late(&'static str),
    /// Too many messages for one attempt to join.
    #[error("more than {0} messages in one attempt to join")]
    TooManyMessages(u32),
    /// The endpoint has been shut down.
    #[error("this node is shutting down")]
    ShuttingDown,
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(Attempt::to_string).collect::<Vec<_>>().join("; ")
}

/// The end of a connection in words.
pub(crate) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let text: String = String::from_utf8_lossy(&close.reason)
                .chars()
                // A peer's text ends up on a screen: no control characters.
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            if text.is_empty() {
                format!("closed by the peer (code {})", close.error_code)
            } else {
                format!("closed by the peer: {text}")
            }
        }
        ConnectionError::TimedOut => "nothing heard in time".into(),
        ConnectionError::LocallyClosed => "closed here".into(),
        ConnectionError::Reset => "the peer has forgotten the connection (restarted)".into(),
        ConnectionError::ConnectionClosed(close) => match alert(u64::from(close.error_code)) {
            Some(120) => "the service there does not speak this protocol".into(),
            Some(49) => "the peer expected another node".into(),
            Some(_) | None if u64::from(close.error_code) == REFUSED => "the peer is busy".into(),
            Some(_) | None => format!("refused by the peer's QUIC: {close}"),
        },
        ConnectionError::TransportError(error) => match alert(u64::from(error.code)) {
            Some(120) => "the service there does not speak this protocol".into(),
            Some(_) | None => format!("{error}"),
        },
        ConnectionError::VersionMismatch => "the service there speaks another QUIC".into(),
        ConnectionError::CidsExhausted => "this node has too many connections".into(),
    }
}

/// CONNECTION_REFUSED (RFC 9000, 20.1).
const REFUSED: u64 = 0x2;

/// The TLS alert inside a QUIC error code (RFC 9001, 4.8: 0x0100 to 0x01ff).
fn alert(code: u64) -> Option<u64> {
    (0x100..=0x1ff).contains(&code).then_some(code & 0xff)
}

impl From<ConnectionError> for NetError {
    fn from(error: ConnectionError) -> Self {
        Self::Lost(describe(&error))
    }
}

impl From<quinn::WriteError> for NetError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => Self::Stopped(code.into_inner()),
            quinn::WriteError::ConnectionLost(error) => error.into(),
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => Self::Closed,
        }
    }
}

impl From<quinn::ReadError> for NetError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => Self::Reset(code.into_inner()),
            quinn::ReadError::ConnectionLost(error) => error.into(),
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => Self::Closed,
        }
    }
}
