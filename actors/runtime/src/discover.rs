//! The discovery actor: carries sightings to the mesh actor.
//!
//! Owns the running [`Discovery`] and is restarted with it. Sightings are hints; the mesh actor
//! dials and the handshake proves.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use selvedge_base::NodeId;
use selvedge_net::discovery::{Discovery, DiscoveryConfig, Sighting};

use crate::line::MeshLine;
use crate::mesh::MeshMessage;
use crate::supervise::Child;

/// What the actor starts from.
#[derive(Clone)]
pub(crate) struct DiscoveryArgs {
    pub(crate) me: NodeId,
    /// Where the QUIC endpoint listens.
    pub(crate) listen: SocketAddr,
    pub(crate) mdns: bool,
    pub(crate) rendezvous: Option<PathBuf>,
    pub(crate) mesh: MeshLine,
}

/// The supervised actor.
pub(crate) fn child(args: DiscoveryArgs) -> Child {
    Child {
        name: "discovery",
        start: Arc::new(move |supervisor| {
            let args = args.clone();
            Box::pin(async move {
                let (actor, _) =
                    Actor::spawn_linked(None, DiscoveryActor, args, supervisor).await?;
                Ok(actor.get_cell())
            })
        }),
    }
}

/// The addresses of an endpoint that does not listen on all interfaces.
pub(crate) fn fixed_addresses(listen: SocketAddr) -> Vec<SocketAddr> {
    if listen.ip().is_unspecified() { Vec::new() } else { vec![listen] }
}

struct DiscoveryActor;

enum DiscoveryMessage {
    /// Discovery ended by itself.
    Ended,
}

struct DiscoveryState {
    /// Stops when dropped.
    discovery: Option<Discovery>,
}

impl Actor for DiscoveryActor {
    type Msg = DiscoveryMessage;
    type State = DiscoveryState;
    type Arguments = DiscoveryArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<DiscoveryMessage>,
        args: DiscoveryArgs,
    ) -> Result<DiscoveryState, ActorProcessingErr> {
        let config = DiscoveryConfig { mdns: args.mdns, rendezvous: args.rendezvous.clone() };
        let (discovery, mut sightings) = Discovery::start(args.me, args.listen, config)?;
        tokio::spawn(async move {
            while let Some(sighting) = sightings.recv().await {
                pass_on(&args, sighting).await;
            }
            // Fails only when the actor is gone already.
            let _gone = myself.cast(DiscoveryMessage::Ended);
        });
        Ok(DiscoveryState { discovery: Some(discovery) })
    }

    async fn handle(
        &self,
        _myself: ActorRef<DiscoveryMessage>,
        DiscoveryMessage::Ended: DiscoveryMessage,
        _state: &mut DiscoveryState,
    ) -> Result<(), ActorProcessingErr> {
        Err("discovery ended".into())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<DiscoveryMessage>,
        state: &mut DiscoveryState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(discovery) = state.discovery.take() {
            discovery.shutdown().await;
        }
        Ok(())
    }
}

/// Tells the mesh actor of a sighting; waits while there is no place for it.
async fn pass_on(args: &DiscoveryArgs, sighting: Sighting) {
    let mesh = &args.mesh;
    match sighting {
        Sighting::PeerSeen { node, addrs } => {
            mesh.tell_in_turn(MeshMessage::Seen { node, addrs }).await;
        }
        Sighting::PeerGone { node } => {
            // Its last addresses may still work, and its links tell better whether it lives.
            tracing::debug!(peer = %node.short(), "no longer announced");
        }
        Sighting::OwnAddresses(ips) => {
            mesh.tell(MeshMessage::OwnAddresses(own_addresses(args.listen, &ips)));
        }
    }
}

/// Where the endpoint can be reached, given this machine's addresses. A machine without a network
/// is still reachable by itself.
fn own_addresses(listen: SocketAddr, ips: &[IpAddr]) -> Vec<SocketAddr> {
    if !listen.ip().is_unspecified() {
        return vec![listen];
    }
    let mut addrs: Vec<SocketAddr> =
        ips.iter().map(|ip| SocketAddr::new(*ip, listen.port())).collect();
    // Addresses that other machines can use come first: a join code has room for four.
    addrs.sort_by_key(|addr| (addr.ip().is_loopback(), addr.is_ipv6(), addr.ip()));
    addrs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_others_can_use_come_first() {
        let listen: SocketAddr = "0.0.0.0:8421".parse().expect("an address");
        let ips: Vec<IpAddr> = ["127.0.0.1", "192.168.1.7", "10.0.0.2"]
            .map(|ip| ip.parse().expect("an address"))
            .to_vec();
        let own = own_addresses(listen, &ips);
        assert_eq!(own[0].to_string(), "10.0.0.2:8421");
        assert_eq!(own[2].to_string(), "127.0.0.1:8421");
        let fixed: SocketAddr = "127.0.0.1:9".parse().expect("an address");
        assert_eq!(own_addresses(fixed, &ips), [fixed]);
    }
}
