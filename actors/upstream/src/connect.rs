//! From a name to a connection that speaks HTTP/1.1.
//!
//! Owns the look-up of names, the race of addresses (RFC 8305, "Happy Eyeballs"), the tunnel
//! through a proxy, TLS and the limits of the protocol's parser.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Empty, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use selvedge_core::upstream::Ending;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsConnector;

use crate::error::Lost;
use crate::proxy::Proxy;
use crate::tls::Roots;

/// Addresses of one name that are tried: real ones have two to four, and each may be far away.
const MAX_ADDRESSES: usize = 8;
/// How long an address is tried alone (RFC 8305, section 5, "Connection Attempt Delay").
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Bytes of headers: eight times what the largest clouds send.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Where and how to connect.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// None: plain text.
    pub(crate) tls: Option<(Roots, ServerName<'static>)>,
    pub(crate) proxy: Option<Proxy>,
}

/// A connection and the task that drives it, which ends with this.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    _driver: Driver,
}

/// Aborts a connection's task, which closes its socket at once.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Route {
    /// Connects. Takes as long as it takes: the caller has a deadline.
    pub(crate) async fn connect(&self) -> Result<Connection, Lost> {
        let through = self.proxy.as_ref().filter(|proxy| proxy.serves(&self.host));
        match (&self.tls, through) {
            (None, _) => handshake(dial(&self.host, self.port).await?).await,
            (Some((roots, name)), None) => {
                let stream = dial(&self.host, self.port).await?;
                handshake(secure(roots, name, stream).await?).await
            }
            (Some((roots, name)), Some(proxy)) => {
                let stream = self.tunnel(proxy).await?;
                handshake(secure(roots, name, stream).await?).await
            }
        }
    }

    async fn tunnel(&self, proxy: &Proxy) -> Result<impl AsyncRead + AsyncWrite + use<>, Lost> {
        let stream = dial(proxy.host(), proxy.port()).await?;
        let away = |_| unreachable("the proxy does not speak HTTP");
        let (mut sender, connection) =
            builder().handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(away)?;
        let driver = Driver(tokio::spawn(connection.with_upgrades()).abort_handle());
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let authority = format!("{host}:{}", self.port);
        let request = Request::connect(&authority)
            .header(HOST, &authority)
            .body(Empty::new())
            .map_err(|_| unreachable("its name cannot be asked for at the proxy"))?;
        let mut answer = sender.send_request(request).await.map_err(away)?;
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            return Err(unreachable(format!("the proxy refuses the connection with {status}")));
        }
        let upgraded = hyper::upgrade::on(&mut answer).await.map_err(away)?;
        drop(driver);
        Ok(TokioIo::new(upgraded))
    }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, Lost> {
    let mut addresses = addresses(host, port).await?.into_iter();
    let mut attempts = JoinSet::new();
    let mut last = unreachable("its name has no address");
    loop {
        if let Some(address) = addresses.next() {
            attempts.spawn(TcpStream::connect(address));
        } else if attempts.is_empty() {
            return Err(last);
        }
        let more = addresses.len() > 0;
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if more => continue,
        };
        match ended {
            Some(Ok(Ok(stream))) => {
                // An event of a stream is a small write that must not wait for the next.
                return match stream.set_nodelay(true) {
                    Ok(()) => Ok(stream),
                    Err(error) => Err(io_lost(&error)),
                };
            }
            Some(Ok(Err(error))) => last = io_lost(&error),
            Some(Err(_)) | None => {}
        }
    }
}

/// The addresses of a host, IPv6 and IPv4 in turn, so that one family that goes nowhere costs one
/// delay.
async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, Lost> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found =
        lookup_host((host, port)).await.map_err(|_| unreachable("its name is not found"))?;
    Ok(in_turn(found.collect()))
}

fn in_turn(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (six, four): (Vec<_>, Vec<_>) = found.into_iter().partition(SocketAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let pairs = std::iter::from_fn(|| {
        let pair = [six.next(), four.next()];
        pair.iter().any(Option::is_some).then_some(pair)
    });
    pairs.flatten().flatten().take(MAX_ADDRESSES).collect()
}

async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    roots: &Roots,
    name: &ServerName<'static>,
    stream: S,
) -> Result<tokio_rustls::client::TlsStream<S>, Lost> {
    let connector = TlsConnector::from(Arc::clone(&roots.0));
    // rustls' words name certificates and alerts, nothing of ours.
    connector
        .connect(name.clone(), stream)
        .await
        .map_err(|error| unreachable(format!("TLS with it fails: {error}")))
}

async fn handshake<S>(stream: S) -> Result<Connection, Lost>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = builder()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| unreachable("it does not speak HTTP"))?;
    // What ends the connection is seen by the request that is on it; an idle one is found closed.
    let task = tokio::spawn(async move {
        let _ended = connection.await;
    });
    Ok(Connection { sender, _driver: Driver(task.abort_handle()) })
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // A hundred headers is hyper's own bound, which it keeps without work for each answer; the
    // largest clouds send forty.
    builder.max_header_size(MAX_HEADER_BYTES);
    builder
}

fn io_lost(error: &io::Error) -> Lost {
    let kind = error.kind();
    unreachable(if kind == io::ErrorKind::ConnectionRefused {
        "nothing listens there"
    } else if matches!(kind, io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) {
        "no route leads there"
    } else if kind == io::ErrorKind::TimedOut {
        "it does not answer"
    } else {
        "no connection"
    })
}

fn unreachable(why: impl Into<String>) -> Lost {
    Lost::new(Ending::Unreachable, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_are_bounded() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let four = address("192.0.2.1:1");
        let six = address("[2001:db8::1]:1");
        assert_eq!(in_turn(vec![four, four, six]), [six, four, four]);
        assert_eq!(in_turn(vec![four; 50]).len(), MAX_ADDRESSES);
        assert!(in_turn(Vec::new()).is_empty());
    }
}
