//! The discovery actor: carries sightings to the mesh actor.
//!
//! Owns the running [`Discovery`] and restarts with it. Sightings are hints; the mesh actor dials
//! and the handshake proves.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use selvedge_net::Identity;

use crate::mesh::{MeshMessage, tell};
use crate::node::MeshAddress;
use crate::supervise::Child;

/// What the actor starts from.
#[derive(Clone)]
pub(crate) struct DiscoveryArgs {
    pub(crate) identity: Arc<Identity>,
    /// Where the QUIC endpoint listens.
    pub(crate) listen: SocketAddr,
    pub(crate) mdns: bool,
    pub(crate) rendezvous: Option<PathBuf>,
    pub(crate) mesh: MeshAddress,
}

/// The addresses of an endpoint that does not listen on all interfaces.
pub(crate) fn fixed_addresses(listen: SocketAddr) -> Vec<SocketAddr> {
    if listen.ip().is_unspecified() { Vec::new() } else { vec![listen] }
}

pub(crate) fn child(_args: DiscoveryArgs) -> Child { unimplemented!() }
