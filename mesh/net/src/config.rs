//! Limits and timings of the data plane.
//!
//! Owns every number of the QUIC side. Before a peer's Hello is accepted it gets the small
//! windows; afterwards the connection is raised to the member's.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

/// Handshake and Hello together. A LAN needs 10 ms; a phone's link with a lost packet 2 s.
pub(crate) const GREETING: Duration = Duration::from_secs(3);
/// A connection that says nothing for this long is gone: the promise for a silent peer is 3 s.
pub(crate) const IDLE: Duration = Duration::from_secs(3);
/// Five of these may be lost before the connection is given up.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// The first guess of the round trip: a lost first packet is sent again after three of these.
/// The usual 333 ms would spend a second on it, the whole promise of finding a node.
pub(crate) const FIRST_RTT: Duration = Duration::from_millis(100);
/// Handshakes of strangers under way at one time. Each costs about 100 KiB and 1.5 ms of CPU.
pub(crate) const STRANGERS: usize = 64;
/// Of these, from one address: one machine must not take all places. Several nodes behind one
/// address (containers) restart together, so it is not smaller.
pub(crate) const STRANGERS_PER_ADDRESS: usize = 16;
/// From here on strangers first prove that they receive at the address they send from.
pub(crate) const STRANGERS_UNPROVEN: usize = 16;
/// What a stranger may have in flight unread: a Hello is under 4 KiB.
pub(crate) const STRANGER_WINDOW: u32 = 64 << 10;
/// Unread bytes on one stream: 10 Gbit/s over 1 ms, and a quarter of the largest frame.
pub(crate) const STREAM_WINDOW: u32 = 2 << 20;
/// Unread bytes on all streams of a member: the largest frame and room for the small ones.
pub(crate) const MEMBER_WINDOW: u32 = 16 << 20;
/// Unacknowledged bytes towards one peer; `send` waits beyond it.
pub(crate) const SEND_WINDOW: u64 = 8 << 20;
/// Datagrams waiting in either direction, about 50 probes: older ones are worth nothing.
pub(crate) const DATAGRAM_BUFFER: usize = 64 << 10;
/// Wait between two addresses of the same peer: RFC 8305 recommends 250 ms for the Internet, and
/// a LAN answers in a few.
pub(crate) const STAGGER: Duration = Duration::from_millis(150);
/// Addresses tried for one peer: what a machine with some interfaces has.
pub(crate) const ADDRESSES: usize = 8;
/// One attempt to join, from its handshake to its last message. A person is not in this loop.
pub(crate) const JOIN_TIME: Duration = Duration::from_secs(10);
/// Attempts to join at one time: each is a person with a code.
pub(crate) const JOINS: usize = 4;
/// Of these, from one address, loopback aside: a stranger that only holds its place until the time
/// is over must not keep out everybody else.
pub(crate) const JOINS_PER_ADDRESS: usize = 1;
/// Messages of one attempt in each direction: the protocol needs two.
pub(crate) const JOIN_MESSAGES: u32 = 8;
/// The largest message of joining: a credential and some dozens of addresses.
pub(crate) const JOIN_BYTES: usize = 64 << 10;
/// A duplicate connection is closed when it stood unused for two of these: longer than any round
/// trip, so that the other side has switched too.
pub(crate) const RETIRE: Duration = Duration::from_secs(1);
/// Connections kept between the same two nodes while duplicates retire: one dialled by each side,
/// and one of each again when the first are dying unnoticed.
pub(crate) const LANES: usize = 4;
/// How long the last words of a closing connection are waited for.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// What an operator or a test may choose.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Peers linked at one time.
    pub max_links: usize,
    /// Streams one peer may have open towards this node.
    pub max_streams_per_peer: u32,
    /// Events waiting for the runtime; beyond it streams wait and datagrams are dropped.
    pub event_queue: usize,
    /// Whether to listen with TCP beside UDP and to keep an idle TCP connection beside each link,
    /// by whose end a killed peer is noticed at once.
    pub lifelines: bool,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            // A full mesh of this size is far beyond the 150 nodes from which views are partial.
            max_links: 512,
            // 64 hand-offs, state exchange, and room for four times as much.
            max_streams_per_peer: 256,
            event_queue: 1_024,
            lifelines: true,
        }
    }
}

/// How a connection begins: with a stranger's windows.
pub(crate) fn transport(streams_before_hello: u32) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let idle = u32::try_from(IDLE.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(FIRST_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(streams_before_hello))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    Arc::new(transport)
}

/// Raises an accepted connection to a member's windows.
pub(crate) fn raise(connection: &quinn::Connection, config: &NetConfig) {
    connection.set_receive_window(VarInt::from_u32(MEMBER_WINDOW));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(config.max_streams_per_peer));
}
