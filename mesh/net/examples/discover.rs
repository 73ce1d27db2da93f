//! Looks for peers and prints what it sees, with the time since its start in milliseconds.
//!
//! `discover [PORT [DIRECTORY]]`: announces a fresh identity at 0.0.0.0:PORT (default 8421).
//! Used by hand and by tests that put nodes into network namespaces. It has no data plane: nothing
//! listens on the port it announces.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use anyhow::Context;
use selvedge_net::discovery::{Discovery, DiscoveryConfig, Sighting};
use selvedge_net::{Identity, clock};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().map_or(Ok(8421), |text| text.parse()).context("PORT")?;
    let config = DiscoveryConfig { mdns: true, rendezvous: args.next().map(PathBuf::from) };
    let node = Identity::generate().node_id();
    let start = clock::mono();
    let (discovery, mut sightings) = Discovery::start(node, ([0, 0, 0, 0], port).into(), config)?;
    println!("0 me {node}");
    loop {
        let sighting = tokio::select! {
            sighting = sightings.recv() => sighting,
            _ = tokio::signal::ctrl_c() => None,
        };
        let ms = clock::mono().since(start).as_millis();
        match sighting {
            Some(Sighting::PeerSeen { node, addrs }) => println!("{ms} seen {node} {addrs:?}"),
            Some(Sighting::PeerGone { node }) => println!("{ms} gone {node}"),
            Some(Sighting::OwnAddresses(addrs)) => println!("{ms} own {addrs:?}"),
            None => break,
        }
    }
    discovery.shutdown().await;
    Ok(())
}
