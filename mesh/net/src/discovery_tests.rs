#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::identity::Identity;
use crate::scratch::Scratch;

async fn next(sightings: &mut mpsc::Receiver<Sighting>) -> Sighting {
    let deadline = Duration::from_secs(20);
    let next = tokio::time::timeout(deadline, sightings.recv()).await.expect("in time");
    next.expect("discovery runs")
}

/// The next sighting that is about a peer.
async fn next_peer(sightings: &mut mpsc::Receiver<Sighting>) -> Sighting {
    loop {
        match next(sightings).await {
            Sighting::OwnAddresses(_) => {}
            peer @ (Sighting::PeerSeen { .. } | Sighting::PeerGone { .. }) => return peer,
        }
    }
}

#[tokio::test]
async fn nodes_on_one_machine_find_each_other_in_a_directory() {
    let shared = Scratch::new();
    let start = |port: u16| {
        let node = Identity::generate().node_id();
        let config = DiscoveryConfig { mdns: false, rendezvous: Some(shared.path().join("nodes")) };
        let listen = SocketAddr::from(([127, 0, 0, 1], port));
        let (discovery, sightings) = Discovery::start(node, listen, config).unwrap();
        (node, listen, discovery, sightings)
    };
    let (a, a_addr, a_discovery, mut a_sightings) = start(1_001);
    assert_eq!(
        next(&mut a_sightings).await,
        Sighting::OwnAddresses(vec![a_addr.ip()]),
        "an endpoint on one address has that one"
    );
    let (b, b_addr, b_discovery, mut b_sightings) = start(1_002);
    let a_seen = Sighting::PeerSeen { node: a, addrs: vec![a_addr] };
    assert_eq!(next_peer(&mut b_sightings).await, a_seen);
    let b_seen = Sighting::PeerSeen { node: b, addrs: vec![b_addr] };
    assert_eq!(next_peer(&mut a_sightings).await, b_seen);
    b_discovery.shutdown().await;
    assert_eq!(next_peer(&mut a_sightings).await, Sighting::PeerGone { node: b });
    a_discovery.shutdown().await;
    let left = std::fs::read_dir(shared.path().join("nodes")).unwrap().count();
    assert_eq!(left, 0, "everybody took its file along");
}

#[tokio::test]
async fn a_runtime_that_stopped_listening_does_not_hold_up_the_shutdown() {
    let node = Identity::generate().node_id();
    let config = DiscoveryConfig { mdns: true, rendezvous: None };
    let listen = SocketAddr::from(([0, 0, 0, 0], 1_003));
    let (discovery, sightings) = Discovery::start(node, listen, config).unwrap();
    discovery.ask();
    let deadline = Duration::from_secs(20);
    tokio::time::timeout(deadline, discovery.shutdown()).await.expect("in time");
    drop(sightings);
}
