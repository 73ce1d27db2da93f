//! Carrying a join over its connection, from either side.
//!
//! Owns the loop of messages. The proof, the attempts and the single use of a code are the join
//! machines'; admission and its durability are the membership's.

use std::net::SocketAddr;
use std::sync::Arc;

use selvedge_base::{Micros, NodeId};
use selvedge_net::discovery::{Discovery, DiscoveryConfig, Sighting};
use selvedge_net::{Endpoint, Identity, JoinLink, NetConfig, NetError, clock, entropy};
use selvedge_proto::join::{
    Issuer, JoinCode, JoinError, JoinMessage, Joined, Joiner, JoinerStep, MAX_WELCOME_PEERS,
};
use thiserror::Error;

use crate::config::NodeConfig;
use crate::gate::ClosedGate;
use crate::membership::Membership;
use crate::shared::Shared;

/// How long the issuer of a code is looked for on the LAN when none of the code's addresses
/// answered: several rounds of questions, and still within a person's patience.
const LOOK_FOR: Micros = Micros::secs(8);

/// Why this node could not join.
#[derive(Debug, Error)]
pub enum JoinFailed {
    /// The issuer could not be reached or the connection broke.
    #[error(
        "the node that issued the code cannot be reached: {0}; check that it runs, that both \
         machines are on one network and that UDP is not blocked"
    )]
    Net(#[from] NetError),
    /// The code or the proof is not good.
    #[error("{0}")]
    Join(#[from] JoinError),
    /// The other side hung up.
    #[error("the other node ended the conversation before it was over")]
    HungUp,
}

/// Who let this node in, and at which address it answered: the one address that is known to work
/// from here, whatever the issuer believes its own to be.
pub(crate) struct Issued {
    pub(crate) by: NodeId,
    pub(crate) at: SocketAddr,
}

/// Joins the mesh a code is for, over an endpoint of its own that lets nobody in. Tries the
/// addresses in the code first, then whatever discovery says of the node that issued it.
///
/// # Errors
/// [`JoinFailed`].
pub(crate) async fn join(
    identity: &Arc<Identity>,
    config: &NodeConfig,
    code: &JoinCode,
) -> Result<(Joined, Issued), JoinFailed> {
    let gate = Arc::new(ClosedGate(Arc::clone(identity)));
    let local = SocketAddr::new(config.listen.ip(), 0);
    // It has no links, so nobody's death is to be noticed.
    let net = NetConfig { lifelines: false, ..NetConfig::default() };
    let (endpoint, _events) = Endpoint::bind(Arc::clone(identity), local, gate, net).await?;
    let mut addrs = code.addrs.clone();
    addrs.extend(&config.static_peers);
    let name = &config.name;
    let mut joined = converse(&endpoint, identity, name, code, &addrs).await;
    if let Err(JoinFailed::Net(_)) = joined
        && let Some(found) = look_for(&endpoint, config, code).await
    {
        joined = converse(&endpoint, identity, name, code, &found).await;
    }
    endpoint.shutdown().await;
    joined
}

/// Where discovery sees the node that issued a code, within [`LOOK_FOR`].
async fn look_for(
    endpoint: &Endpoint,
    config: &NodeConfig,
    code: &JoinCode,
) -> Option<Vec<SocketAddr>> {
    let search = DiscoveryConfig { mdns: config.mdns, rendezvous: config.rendezvous.clone() };
    let (discovery, mut sightings) =
        Discovery::start(endpoint.node_id(), endpoint.local_addr(), search).ok()?;
    let found = tokio::time::timeout(LOOK_FOR.into(), async {
        while let Some(sighting) = sightings.recv().await {
            if let Sighting::PeerSeen { node, addrs } = sighting
                && code.names(&node)
            {
                return Some(addrs);
            }
        }
        None
    })
    .await;
    discovery.shutdown().await;
    found.ok().flatten()
}

async fn converse(
    endpoint: &Endpoint,
    identity: &Identity,
    name: &str,
    code: &JoinCode,
    addrs: &[SocketAddr],
) -> Result<(Joined, Issued), JoinFailed> {
    let mut link = endpoint.join(None, addrs).await?;
    let (mut joiner, start) =
        Joiner::new(code.clone(), identity.node_id(), link.node(), name, entropy::dice())?;
    link.send(&start).await?;
    loop {
        let message = link.recv::<JoinMessage>().await?.ok_or(JoinFailed::HungUp)?;
        match joiner.received(message, clock::wall()) {
            JoinerStep::Send(answer) => link.send(&answer).await?,
            JoinerStep::Joined(joined) => {
                let issued = Issued { by: link.node(), at: link.remote_addr() };
                return Ok((*joined, issued));
            }
            JoinerStep::Failed(error) => return Err(error.into()),
        }
    }
}

/// Serves one node that wants to join.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    membership: Arc<Membership>,
    from: NodeId,
    mut link: JoinLink,
) {
    let mut issuer = Issuer::new(membership.mesh(), shared.me, from, entropy::dice());
    while let Ok(Some(message)) = link.recv::<JoinMessage>().await {
        let peers = peers(&shared, &membership);
        let (answer, refused) = match membership.join_step(&mut issuer, message, peers).await {
            Ok(step) => step,
            Err(error) => {
                tracing::error!(%error, "joining failed: the membership was not stored");
                return;
            }
        };
        let welcomed = matches!(answer, JoinMessage::Welcome { .. });
        if link.send(&answer).await.is_err() {
            return;
        }
        if let Some(error) = refused {
            tracing::warn!(peer = %from.short(), %error, "a node was not let in");
            return;
        }
        if welcomed {
            tracing::info!(peer = %from.short(), "a node joined");
        }
    }
}

fn peers(shared: &Shared, membership: &Membership) -> Vec<(NodeId, Vec<SocketAddr>)> {
    let view = shared.view.load();
    let mut peers = vec![(shared.me, membership.listen())];
    let others = view.nodes.iter().filter(|node| !node.me && !node.addrs.is_empty());
    peers.extend(others.map(|node| (node.node, node.addrs.clone())));
    peers.truncate(MAX_WELCOME_PEERS);
    peers
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
