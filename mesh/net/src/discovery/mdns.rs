//! Multicast DNS: asking the local network who is there, and answering.
//!
//! Owns a libp2p swarm with nothing in it but mDNS, and the moments at which the network is asked
//! out of turn. The library asks by itself when an interface gets an address and then at
//! intervals; asking out of turn covers what it does not notice (a lost packet, a cable that came
//! back, an answer given before this node's addresses were known).

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, Transport, mdns, swarm};
use selvedge_base::NodeId;
use socket2::{Domain, Socket, Type};
use tokio::time::Instant;

use super::announce::{Announced, announce_only};
use super::sightings::Change;
use crate::identity::node_of;

/// Every peer is asked for this often, by whoever is first: a node that comes back unnoticed is
/// found again within it, and that shall take at most 2 s. One question and one answer per node
/// each time.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// An announcement lives for four questions: three may be lost.
const LIFETIME: Duration = Duration::from_secs(8);
/// When to ask out of turn: soon, because the library's first question may be answered before
/// this node's addresses are known to itself; again within the second that finding a node may
/// take; and once more after a bridge or a switch has begun to forward.
const BURST: [Duration; 3] =
    [Duration::from_millis(60), Duration::from_millis(400), Duration::from_millis(1_500)];
/// The group and port of mDNS (RFC 6762, 3).
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
/// A DNS question (RFC 1035, 4) for the pointers of `_p2p._udp.local`, the name of the libp2p
/// discovery specification.
const QUESTION: &[u8] = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x04_p2p\x04_udp\x05local\0\0\x0c\0\x01";

pub(crate) struct Mdns {
    swarm: Swarm<mdns::tokio::Behaviour>,
    announced: Announced,
    port: u16,
    /// The addresses to ask from.
    from: Vec<Ipv4Addr>,
    /// Of these, the ones on which multicast does not work.
    deaf: BTreeSet<Ipv4Addr>,
    questions: VecDeque<Instant>,
}

impl Mdns {
    /// Sets it up; it says and hears nothing before [`Mdns::announce`]. Runs on the current tokio
    /// runtime and leaves tasks on it when dropped.
    pub(crate) fn open(node: NodeId, listen: SocketAddr) -> io::Result<Self> {
        let peer = PeerId::from_bytes(&node.peer_id_bytes()).map_err(io::Error::other)?;
        let config = mdns::Config { ttl: LIFETIME, query_interval: ASK_EVERY, enable_ipv6: false };
        let behaviour = mdns::tokio::Behaviour::new(config, peer)?;
        let (transport, announced) = announce_only();
        let mut swarm =
            Swarm::new(transport.boxed(), behaviour, peer, swarm::Config::with_tokio_executor());
        let any = multiaddr(Ipv4Addr::UNSPECIFIED, listen.port());
        swarm.listen_on(any).map_err(io::Error::other)?;
        Ok(Self {
            swarm,
            announced,
            port: listen.port(),
            from: Vec::new(),
            deaf: BTreeSet::new(),
            questions: VecDeque::new(),
        })
    }

    /// Announces this node at these addresses and no others. Returns what does not work.
    pub(crate) fn announce(&mut self, addrs: &[IpAddr]) -> Vec<String> {
        self.from = addrs
            .iter()
            .filter_map(|ip| match ip {
                IpAddr::V4(ip) if !ip.is_loopback() => Some(*ip),
                IpAddr::V4(_) | IpAddr::V6(_) => None,
            })
            .collect();
        self.announced.set(self.from.iter().map(|ip| multiaddr(*ip, self.port)).collect());
        self.deaf.clear();
        let mut failed = Vec::new();
        for ip in &self.from {
            if let Err(error) = try_multicast(*ip) {
                self.deaf.insert(*ip);
                failed.push(format!("multicast DNS does not work on {ip}: {error}"));
            }
        }
        failed
    }

    /// Asks the network out of turn, some times in a row.
    pub(crate) fn ask_soon(&mut self) {
        let now = Instant::now();
        self.questions = BURST.iter().map(|wait| now + *wait).collect();
    }

    /// Whether multicast does not work on an address.
    pub(crate) fn is_deaf(&self) -> bool {
        !self.deaf.is_empty()
    }

    /// Whether multicast works now on an address where it did not.
    pub(crate) fn would_hear(&mut self) -> bool {
        self.deaf.iter().any(|ip| try_multicast(*ip).is_ok())
    }

    /// What the network said next. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Vec<Change> {
        loop {
            let question = self.questions.front().copied();
            tokio::select! {
                event = self.swarm.select_next_some() => {
                    if let SwarmEvent::Behaviour(event) = event {
                        return changes(event);
                    }
                }
                () = super::until(question) => {
                    self.questions.pop_front();
                    for ip in &self.from {
                        if let Err(error) = ask(*ip) {
                            // A cable is out: the next question may get through.
                            tracing::debug!(%ip, %error, "could not ask the network");
                        }
                    }
                }
            }
        }
    }
}

fn changes(event: mdns::Event) -> Vec<Change> {
    let known = |(peer, addr): (PeerId, Multiaddr)| Some((node_of(&peer)?, socket_addr(&addr)?));
    match event {
        mdns::Event::Discovered(seen) => {
            seen.into_iter().filter_map(known).map(|(n, a)| Change::At(n, a)).collect()
        }
        mdns::Event::Expired(gone) => {
            gone.into_iter().filter_map(known).map(|(n, a)| Change::NotAt(n, a)).collect()
        }
    }
}

fn multiaddr(ip: Ipv4Addr, port: u16) -> Multiaddr {
    Multiaddr::empty().with(Protocol::Ip4(ip)).with(Protocol::Udp(port)).with(Protocol::QuicV1)
}

/// The address in `/ip4/A/udp/PORT/quic-v1[/p2p/NODE]`; other forms are not this project's.
fn socket_addr(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let (ip, port) = match (parts.next()?, parts.next()?, parts.next()?) {
        (Protocol::Ip4(ip), Protocol::Udp(port), Protocol::QuicV1) => (ip, port),
        _ => return None,
    };
    let usable = port != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback();
    let rest = parts.all(|part| matches!(part, Protocol::P2p(_)));
    (usable && rest).then(|| (ip, port).into())
}

/// Sends the question from one address.
fn ask(ip: Ipv4Addr) -> io::Result<()> {
    let socket = UdpSocket::bind((ip, 0))?;
    let socket = Socket::from(socket);
    socket.set_nonblocking(true)?;
    socket.set_multicast_if_v4(&ip)?;
    // RFC 6762, 11: mDNS packets leave with a hop limit of 255.
    socket.set_multicast_ttl_v4(255)?;
    socket.send_to(QUESTION, &SocketAddr::from((GROUP, PORT)).into())?;
    Ok(())
}

/// Whether the system lets a program listen to the group on this address.
fn try_multicast(ip: Ipv4Addr) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    socket.join_multicast_v4(&GROUP, &ip)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_quic_addresses_of_the_network_count() {
        let parsed = |text: &str| socket_addr(&text.parse().unwrap());
        let peer = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        let good = Some("10.0.0.1:8421".parse().unwrap());
        assert_eq!(parsed("/ip4/10.0.0.1/udp/8421/quic-v1"), good);
        assert_eq!(parsed(&format!("/ip4/10.0.0.1/udp/8421/quic-v1/p2p/{peer}")), good);
        for bad in [
            "/ip4/10.0.0.1/tcp/8421",
            "/ip4/127.0.0.1/udp/8421/quic-v1",
            "/ip4/10.0.0.1/udp/0/quic-v1",
            "/ip4/224.0.0.251/udp/5353/quic-v1",
            "/dns4/example/udp/8421/quic-v1",
            "/ip4/10.0.0.1/udp/8421/quic-v1/p2p-circuit",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
        assert_eq!(socket_addr(&multiaddr([10, 0, 0, 1].into(), 8421)), good);
    }
}
