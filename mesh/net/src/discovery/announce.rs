//! A libp2p transport that only has addresses.
//!
//! Owns what the swarm believes it listens on, which is what mDNS answers with: the data plane's
//! port on this machine's addresses. It accepts nothing, because it has no socket, and refuses
//! every dial.

use std::collections::BTreeSet;
use std::future::Pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::{Multiaddr, PeerId, Transport};
use parking_lot::Mutex;

/// The transport's end of the list.
pub(crate) struct AnnounceOnly {
    wanted: Arc<Mutex<Wanted>>,
    told: BTreeSet<Multiaddr>,
    listener: Option<ListenerId>,
}

/// The end that knows the addresses.
pub(crate) struct Announced(Arc<Mutex<Wanted>>);

#[derive(Default)]
struct Wanted {
    addrs: BTreeSet<Multiaddr>,
    waker: Option<Waker>,
}

/// Never comes: there are no connections here.
type Never = Pending<Result<(PeerId, StreamMuxerBox), io::Error>>;

pub(crate) fn announce_only() -> (AnnounceOnly, Announced) {
    let wanted = Arc::new(Mutex::new(Wanted::default()));
    let transport =
        AnnounceOnly { wanted: Arc::clone(&wanted), told: BTreeSet::new(), listener: None };
    (transport, Announced(wanted))
}

impl Announced {
    /// Announces these addresses and no others.
    pub(crate) fn set(&self, addrs: BTreeSet<Multiaddr>) {
        let mut wanted = self.0.lock();
        wanted.addrs = addrs;
        if let Some(waker) = wanted.waker.take() {
            waker.wake();
        }
    }
}

impl Transport for AnnounceOnly {
    type Output = (PeerId, StreamMuxerBox);
    type Error = io::Error;
    type ListenerUpgrade = Never;
    type Dial = Never;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        if self.listener.is_some() {
            return Err(TransportError::MultiaddrNotSupported(addr));
        }
        self.listener = Some(id);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let known = self.listener == Some(id);
        if known {
            self.listener = None;
            self.told.clear();
        }
        known
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let this = &mut *self;
        let Some(listener_id) = this.listener else { return Poll::Pending };
        let mut wanted = this.wanted.lock();
        if let Some(listen_addr) = this.told.difference(&wanted.addrs).next().cloned() {
            this.told.remove(&listen_addr);
            return Poll::Ready(TransportEvent::AddressExpired { listener_id, listen_addr });
        }
        if let Some(listen_addr) = wanted.addrs.difference(&this.told).next().cloned() {
            this.told.insert(listen_addr.clone());
            return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr });
        }
        wanted.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use libp2p::core::Endpoint;
    use libp2p::core::transport::PortUse;

    use super::*;

    fn addrs(texts: &[&str]) -> BTreeSet<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn drain(transport: &mut AnnounceOnly) -> Vec<String> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut told = Vec::new();
        while let Poll::Ready(event) = Pin::new(&mut *transport).poll(&mut cx) {
            match event {
                TransportEvent::NewAddress { listen_addr, .. } => {
                    told.push(format!("+{listen_addr}"));
                }
                TransportEvent::AddressExpired { listen_addr, .. } => {
                    told.push(format!("-{listen_addr}"));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        told
    }

    #[test]
    fn changes_are_told_and_nothing_else() {
        let (mut transport, announced) = announce_only();
        announced.set(addrs(&["/ip4/10.0.0.1/udp/1/quic-v1"]));
        assert!(drain(&mut transport).is_empty(), "nobody listens yet");
        let id = ListenerId::next();
        transport.listen_on(id, Multiaddr::empty()).unwrap();
        assert_eq!(drain(&mut transport), ["+/ip4/10.0.0.1/udp/1/quic-v1"]);
        announced.set(addrs(&["/ip4/10.0.0.2/udp/1/quic-v1"]));
        assert_eq!(
            drain(&mut transport),
            ["-/ip4/10.0.0.1/udp/1/quic-v1", "+/ip4/10.0.0.2/udp/1/quic-v1"]
        );
        assert!(drain(&mut transport).is_empty());
        assert!(transport.remove_listener(id));
        assert!(!transport.remove_listener(id));
    }

    #[test]
    fn nothing_is_dialled() {
        let (mut transport, _announced) = announce_only();
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        assert!(transport.dial("/ip4/10.0.0.1/udp/1/quic-v1".parse().unwrap(), opts).is_err());
    }
}
