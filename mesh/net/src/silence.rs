//! Tells a dead process from a slow network before the idle timeout does.
//!
//! Owns one question: a connection fell silent, is anybody still there? The kernel of a machine
//! whose process died answers a packet to its port with "unreachable", which a connected socket
//! reports. That needs no cooperation of the peer, so it is what is left where no lifeline stands.
//! A machine that is gone altogether says nothing and is left to the idle timeout; so is a peer
//! behind a filter.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use quinn::Connection;
use tokio::net::UdpSocket;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use crate::link::plain;

/// A question that got no answer for this long is looked into. An acknowledgement takes a round
/// trip and at most 25 ms (RFC 9000, 18.2), so on a LAN this is no answer; elsewhere a living peer
/// costs one byte now and then. It must be short: a kernel says "unreachable" six times at once and
/// then once a second (Linux, `icmp_ratelimit`), and the connection's own retransmissions, which
/// begin after some 30 ms, use that up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// While a lifeline stands this is the second way to learn of a death, and an idle link should cost
/// little: only what a cut on the way hid from TCP is left to find.
const LOOK_RARELY: Duration = Duration::from_secs(1);
/// After a peer said over QUIC that it lives, although its port was said to be closed: whoever says
/// so there, such as a router that translates addresses, will say it again.
const REFUTED: Duration = Duration::from_secs(10);
/// How long "unreachable" is waited for: a LAN answers within a millisecond.
const ANSWER: Duration = Duration::from_millis(150);

/// The silence of one connection.
pub(crate) struct Silence {
    connection: Connection,
    every: Duration,
    look: Interval,
    heard: u64,
    said: u64,
}

impl Silence {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            every: LOOK_EVERY,
            look: looks(LOOK_EVERY, LOOK_EVERY),
            heard: 0,
            said: 0,
        }
    }

    /// Looks rarely while a lifeline stands, and often otherwise.
    pub(crate) fn relax(&mut self, lifeline_stands: bool) {
        let every = if lifeline_stands { LOOK_RARELY } else { LOOK_EVERY };
        if every != self.every {
            (self.every, self.look) = (every, looks(every, every));
        }
    }

    /// Takes note that the peer lives although its port was said to be closed.
    pub(crate) fn refuted(&mut self) {
        self.look = looks(REFUTED, self.every);
    }

    /// Resolves when the peer's port is said to be closed, which needs not be true. May be dropped
    /// and called again.
    pub(crate) async fn is_said_dead(&mut self) {
        loop {
            self.look.tick().await;
            let stats = self.connection.stats();
            let (heard, said) = (stats.udp_rx.datagrams, stats.udp_tx.datagrams);
            let unanswered = heard == self.heard && said > self.said;
            (self.heard, self.said) = (heard, said);
            if unanswered && is_closed(plain(self.connection.remote_address())).await {
                return;
            }
        }
    }
}

fn looks(after: Duration, every: Duration) -> Interval {
    let mut look = interval_at(Instant::now() + after, every);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look
}

/// Whether the machine at `addr` says that nobody has this port.
async fn is_closed(addr: SocketAddr) -> bool {
    let probe = async {
        let any: SocketAddr = match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(addr).await?;
        // One byte is no QUIC packet: a living peer counts it as a stray and says nothing.
        socket.send(&[0]).await?;
        socket.recv(&mut [0]).await
    };
    matches!(
        timeout(ANSWER, probe).await,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_told_from_a_silent_one() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        assert!(!is_closed(addr).await);
        drop(socket);
        assert!(is_closed(addr).await);
    }
}
