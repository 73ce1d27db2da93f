//! Counts packets that belong to nobody.
//!
//! Owns two looks at what arrives: at the shape of every packet as it leaves the socket, and at
//! connection ids that no connection has. Everything is still handed on: dropping is QUIC's part.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator, InvalidCid};

use crate::counters::NetCounters;

/// QUIC version 1 (RFC 9000).
pub(crate) const QUIC_V1: u32 = 1;
/// First byte, an 8-byte connection id, and the 20 bytes behind it that header protection needs
/// (RFC 9001, 5.4.2).
const SMALLEST_PACKET: usize = 1 + 8 + 20;

/// The socket, counting.
pub(crate) fn watch(
    socket: UdpSocket,
    counters: Arc<NetCounters>,
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let inner = TokioRuntime.wrap_udp_socket(socket)?;
    Ok(Arc::new(Watched { inner, counters }))
}

/// Makes connection ids that can be told from invented ones.
pub(crate) fn connection_ids(
    key: u64,
    counters: Arc<NetCounters>,
) -> impl Fn() -> Box<dyn ConnectionIdGenerator> + Send + Sync + 'static {
    move || {
        let inner = HashedConnectionIdGenerator::from_key(key);
        Box::new(WatchedIds { inner, counters: Arc::clone(&counters) })
    }
}

#[derive(Debug)]
struct Watched {
    inner: Arc<dyn AsyncUdpSocket>,
    counters: Arc<NetCounters>,
}

impl AsyncUdpSocket for Watched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(cx, buffers, meta))?;
        for (buffer, meta) in buffers.iter().zip(meta.iter()).take(received) {
            let packets = buffer[..meta.len].chunks(meta.stride.max(1));
            for _stray in packets.filter(|packet| !could_be_quic(packet)) {
                NetCounters::count(&self.counters.strays);
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Whether the first packet in a datagram has the shape of QUIC version 1.
fn could_be_quic(datagram: &[u8]) -> bool {
    match datagram {
        [first, ..] if datagram.len() < SMALLEST_PACKET || first & 0x40 == 0 => false,
        // The long form names its version; zero is an offer of versions.
        [first, a, b, c, d, ..] if first & 0x80 != 0 => {
            matches!(u32::from_be_bytes([*a, *b, *c, *d]), 0 | QUIC_V1)
        }
        [] => false,
        [..] => true,
    }
}

struct WatchedIds {
    inner: HashedConnectionIdGenerator,
    counters: Arc<NetCounters>,
}

impl ConnectionIdGenerator for WatchedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.inner.generate_cid()
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        let valid = self.inner.validate(cid);
        if valid.is_err() {
            NetCounters::count(&self.counters.strays);
        }
        valid
    }

    fn cid_len(&self) -> usize {
        self.inner.cid_len()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        self.inner.cid_lifetime()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_quic_is_known() {
        let mut packet = [0u8; 64];
        assert!(!could_be_quic(&packet));
        assert!(!could_be_quic(&[]));
        packet[0] = 0x40;
        assert!(could_be_quic(&packet), "short form");
        assert!(!could_be_quic(&packet[..20]), "too short for a connection id");
        packet[0] = 0xc0;
        packet[4] = 1;
        assert!(could_be_quic(&packet), "long form");
        packet[1] = 0xff;
        assert!(!could_be_quic(&packet), "another version");
    }
}
