//! The sockets of an endpoint: UDP for QUIC, and TCP on the same number for lifelines.
//!
//! Owns opening them. UDP must be had; TCP is a wish, without which the node works and says so.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::NetError;

/// The kernel's buffers of the UDP socket: a few milliseconds at 1 Gbit/s. The system may give
/// less.
const BUFFER: usize = 2 << 20;
/// Ports tried when the system may choose: each is free for UDP, and rarely taken for TCP.
const PORTS: usize = 8;
/// Lifelines connected and not yet accepted: what a switch that comes back brings at once.
const BACKLOG: i32 = 128;

/// Opens the UDP socket and, if `with_tcp`, the TCP one beside it.
pub(crate) fn open(
    listen: SocketAddr,
    with_tcp: bool,
) -> io::Result<(UdpSocket, Option<TcpListener>)> {
    // Kept until a pair is found, so that the system offers another number each time.
    let mut passed_over = Vec::new();
    loop {
        let udp = udp(listen)?;
        if !with_tcp {
            return Ok((udp, None));
        }
        let addr = SocketAddr::new(listen.ip(), udp.local_addr()?.port());
        match tcp(addr) {
            Ok(tcp) => return Ok((udp, Some(tcp))),
            Err(error)
                if listen.port() == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && passed_over.len() + 1 < PORTS =>
            {
                passed_over.push(udp);
            }
            Err(error) => {
                tracing::warn!(
                    "cannot listen on {addr}/tcp: {}; other nodes will notice later when this \
                     one's process dies",
                    in_words(&error)
                );
                return Ok((udp, None));
            }
        }
    }
}

/// Takes the UDP port of an address and reads nothing from it: whether it can be had, and as long
/// as the socket lives nobody else has it.
///
/// # Errors
/// [`NetError::Bind`].
pub fn hold(listen: SocketAddr) -> Result<UdpSocket, NetError> {
    udp(listen).map_err(|error| NetError::Bind { addr: listen, why: in_words(&error) })
}

/// What the system said, for people.
pub(crate) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program uses this port".into(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have this address".into(),
        io::ErrorKind::PermissionDenied => "not permitted".into(),
        _ => error.to_string(),
    }
}

fn udp(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = unbound(listen, Type::DGRAM, Protocol::UDP)?;
    // Larger buffers are a wish; a system that refuses works with its own.
    let _receive = socket.set_recv_buffer_size(BUFFER);
    let _send = socket.set_send_buffer_size(BUFFER);
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

fn tcp(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = unbound(listen, Type::STREAM, Protocol::TCP)?;
    // A node that starts again finds connections of its former self in their last minute. On
    // Windows this option would mean sharing the port with a stranger.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn unbound(listen: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(listen), kind, Some(protocol))?;
    if listen.is_ipv6() && listen.ip().is_unspecified() {
        // One socket for both families.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_sockets_have_one_number() {
        for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
            let (udp, tcp) = open(listen.parse().unwrap(), true).unwrap();
            let tcp = tcp.unwrap();
            assert_eq!(udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        }
    }

    #[test]
    fn a_number_that_is_taken_for_tcp_is_used_without_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let (udp, tcp) = open(addr, true).unwrap();
        assert_eq!(udp.local_addr().unwrap(), addr);
        assert!(tcp.is_none());
    }
}
