//! How soon a started node sees another one.
//!
//! Owns two measurements in two namespaces on a bridge: discovery alone, from its start to the
//! first sighting, 200 times with a fresh name that nobody remembers; and a member's whole process
//! coming back, from its start to both views.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use selvedge_base::NodeId;
use selvedge_net::Identity;
use selvedge_net::discovery::{Discovery, DiscoveryConfig, Sighting};
use selvedge_tests::admin::state;
use selvedge_tests::figures::Figures;
use selvedge_tests::namespaces::enter;
use selvedge_tests::report::Report;
use selvedge_tests::{Bridge, Deadline, Host, Scenario, Stopwatch};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;

/// Starts that the targets speak of.
const STARTS: usize = 200;
/// Starts of a whole process that is a member already.
const RETURNS: usize = 20;
/// The promise for half of all starts, and for 99 of 100, in milliseconds.
const TARGETS: [Option<f64>; 2] = [Some(1_000.0), Some(2_000.0)];
/// A sighting that takes longer than this is no measurement but a failure.
const PATIENCE: Duration = Duration::from_secs(20);
/// Any port does: nothing is dialled.
const PORT: u16 = 8421;

/// Measures and notes everything.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    starts(report)?;
    let s = Scenario::new()?;
    let done = returns(&s, report);
    if done.is_err() {
        s.show();
    }
    done
}

fn starts(report: &mut Report) -> Result<()> {
    let mut bridge = Bridge::new("bench-mdns")?;
    let hosts = [bridge.host()?, bridge.host()?];
    let runtime = Runtime::new()?;
    let (stays, _running, mut sightings) = discover(&hosts[0])?;
    let (mut sees, mut seen) = (Figures::default(), Figures::default());
    for _ in 0..STARTS {
        let begun = Stopwatch::start();
        let (comes, running, mut found) = discover(&hosts[1])?;
        runtime.block_on(sighted(&mut found, stays))?;
        sees.push(begun.elapsed());
        runtime.block_on(sighted(&mut sightings, comes))?;
        seen.push(begun.elapsed());
        runtime.block_on(running.shutdown());
    }
    report.note("discovery_starts", sees.count() as f64, None);
    report.millis("discovery_sees", &sees, TARGETS);
    report.millis("discovery_seen", &seen, TARGETS);
    Ok(())
}

/// Starts discovery of a fresh node inside a namespace.
fn discover(host: &Host) -> Result<(NodeId, Discovery, Receiver<Sighting>)> {
    let node = Identity::generate().node_id();
    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let config = DiscoveryConfig { mdns: true, rendezvous: None };
    let started = enter(host.namespace(), move || Discovery::start(node, listen, config))??;
    Ok((node, started.0, started.1))
}

async fn sighted(sightings: &mut Receiver<Sighting>, wanted: NodeId) -> Result<()> {
    let search = async {
        while let Some(sighting) = sightings.recv().await {
            match sighting {
                Sighting::PeerSeen { node, addrs } if node == wanted && !addrs.is_empty() => {
                    return Ok(());
                }
                Sighting::PeerSeen { .. }
                | Sighting::PeerGone { .. }
                | Sighting::OwnAddresses(_) => {}
            }
        }
        bail!("discovery ended")
    };
    tokio::time::timeout(PATIENCE, search).await.context("a node was not seen")?
}

fn returns(s: &Scenario, report: &mut Report) -> Result<()> {
    let mut bridge = Bridge::new("bench-find")?;
    let hosts = [bridge.host()?, bridge.host()?];
    let mut nodes = s.mesh(&[hosts[0].node(s, "stays"), hosts[1].node(s, "comes")])?;
    let (mut sees, mut seen) = (Figures::default(), Figures::default());
    for _ in 0..RETURNS {
        nodes[1].terminate()?;
        let stays = nodes[0].admin()?;
        let mut watch = stays.watch(Deadline::secs(30))?;
        watch.until("the node out", |view| state(view, "comes") != "alive")?;
        let begun = Stopwatch::start();
        nodes[1] = nodes[1].spec.up(s, &[])?;
        let admin = nodes[1].admin()?;
        admin.until("the other", Deadline::secs(20), |view| state(view, "stays") == "alive")?;
        sees.push(begun.elapsed());
        watch.until("the one that came", |view| state(view, "comes") == "alive")?;
        seen.push(begun.elapsed());
    }
    report.millis("process_start_to_sees", &sees, [None, None]);
    report.millis("process_start_to_seen", &seen, [None, None]);
    Ok(())
}
