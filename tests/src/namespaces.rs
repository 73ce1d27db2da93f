//! Network namespaces on one bridge, and how to cut them apart.
//!
//! Owns `ip netns`, veth pairs and a bridge that lives in a namespace of its own, so that nothing
//! reaches the machine's real interfaces. Names carry the process id: leftovers of dead test runs
//! are removed at the start, one's own on drop. Needs root and says so. Loss is not made here but
//! in [`crate::proxy`], as kernels without netem exist.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{process, thread};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::node::NodeSpec;
use crate::process::run;
use crate::scenario::Scenario;
use crate::time::Deadline;

/// How long a connection to a node's HTTP interface may take.
const CONNECT: Duration = Duration::from_secs(5);
/// What every namespace of the suite begins with.
const PREFIX: &str = "selv-";

/// The switch that hosts are plugged into, and the one for those that are cut off together.
const HUB: &str = "hub";
const ASIDE: &str = "aside";

/// A bridge in its own namespace.
#[derive(Debug)]
pub struct Bridge {
    namespace: String,
    hosts: u8,
}

/// A namespace with one interface on the bridge.
#[derive(Debug)]
pub struct Host {
    namespace: String,
    bridge: String,
    port: String,
    /// Its address on the bridge.
    pub addr: Ipv4Addr,
}

impl Bridge {
    /// A new bridge. `label` tells several bridges of one process apart.
    ///
    /// # Errors
    /// When this is not run as root or `ip` fails.
    pub fn new(label: &str) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root: run the suite as root (or with sudo)"
        );
        sweep()?;
        let namespace = format!("{PREFIX}{}-{label}", process::id());
        ip(&format!("netns add {namespace}"))?;
        let bridge = Self { namespace, hosts: 0 };
        let name = &bridge.namespace;
        for switch in [HUB, ASIDE] {
            ip(&format!("-n {name} link add {switch} type bridge"))?;
            ip(&format!("-n {name} link set {switch} up"))?;
        }
        Ok(bridge)
    }

    /// A new namespace on the bridge.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn host(&mut self) -> Result<Host> {
        self.hosts += 1;
        let number = self.hosts;
        let bridge = self.namespace.clone();
        let host = Host {
            namespace: format!("{bridge}-{number}"),
            port: format!("port{number}"),
            addr: Ipv4Addr::new(10, 77, 0, number),
            bridge,
        };
        let Host { namespace, port, addr, bridge } = &host;
        ip(&format!("netns add {namespace}"))?;
        ip(&format!("-n {bridge} link add {port} type veth peer name eth0 netns {namespace}"))?;
        ip(&format!("-n {namespace} addr add {addr}/24 dev eth0"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        host.plug()?;
        Ok(host)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = ip(&format!("netns delete {}", self.namespace));
    }
}

impl Host {
    /// A node in this namespace that finds others by mDNS.
    pub fn node(&self, scenario: &Scenario, name: &str) -> NodeSpec {
        let mut spec = NodeSpec::new(name, scenario.path(name));
        spec.namespace = Some(self.namespace.clone());
        spec.listen = "0.0.0.0:0".to_owned();
        spec
    }

    /// The name of the namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Takes the interface down, which the node's system notices.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn link_down(&self) -> Result<()> {
        ip(&format!("-n {} link set eth0 down", self.namespace))
    }

    /// Brings the interface up again.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn link_up(&self) -> Result<()> {
        ip(&format!("-n {} link set eth0 up", self.namespace))
    }

    /// Takes the cable out at the bridge's side: packets vanish, the interface stays up.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn unplug(&self) -> Result<()> {
        ip(&format!("-n {} link set {} nomaster", self.bridge, self.port))
    }

    /// Puts the cable back in.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn plug(&self) -> Result<()> {
        self.plug_into(HUB)
    }

    /// Plugs the cable into the other switch: hosts there reach each other and nobody else.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn plug_aside(&self) -> Result<()> {
        self.plug_into(ASIDE)
    }

    fn plug_into(&self, switch: &str) -> Result<()> {
        ip(&format!("-n {} link set {} master {switch} up", self.bridge, self.port))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = ip(&format!("netns delete {}", self.namespace));
    }
}

/// A TCP connection made inside a namespace, usable anywhere.
///
/// # Errors
/// When the namespace is missing or nobody listens.
pub fn connect(namespace: Option<&str>, addr: SocketAddr) -> Result<TcpStream> {
    let dial = move || TcpStream::connect_timeout(&addr, CONNECT);
    let Some(namespace) = namespace else {
        return dial().with_context(|| format!("cannot connect to {addr}"));
    };
    // A thread of its own changes its namespace and ends; the socket stays where it was made.
    let dialled = enter(namespace, dial)?;
    dialled.with_context(|| format!("cannot connect to {addr} in {namespace}"))
}

/// Runs a piece of code on a thread inside a namespace.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn enter<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let path = namespace_file(namespace);
    let file = File::open(&path).with_context(|| format!("{}", path.display()))?;
    let inside = thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok::<T, rustix::io::Errno>(work())
    });
    let done = inside.join().map_err(|_| anyhow!("the thread in {namespace} panicked"))?;
    done.with_context(|| format!("cannot enter {namespace}"))
}

/// Whether an address has a port that can be connected to.
pub fn nonzero(addr: &SocketAddr) -> bool {
    addr.port() != 0
}

/// The address of a host on the bridge with a port.
pub fn at(host: &Host, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(host.addr), port)
}

/// Removes what dead test runs have left.
fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let owner = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            // Another test process may sweep the same one.
            let _ = ip(&format!("netns delete {name}"));
        }
    }
    Ok(())
}

fn namespace_file(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

fn ip(arguments: &str) -> Result<()> {
    let words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    let ran = run(Path::new("ip"), &words, None, &[], Deadline::secs(20))?;
    ran.success().with_context(|| format!("`ip {arguments}`")).map(|_| ())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn hosts_reach_each_other_until_a_link_goes_down() {
        let mut bridge = Bridge::new("unit").unwrap();
        let (one, two) = (bridge.host().unwrap(), bridge.host().unwrap());
        let addr = at(&one, 0);
        let listener = enter(one.namespace(), move || TcpListener::bind(addr)).unwrap().unwrap();
        let addr = listener.local_addr().unwrap();
        connect(Some(two.namespace()), addr).unwrap();
        assert!(connect(None, addr).is_err(), "the test's own namespace must not reach the bridge");
        two.link_down().unwrap();
        assert!(connect(Some(two.namespace()), addr).is_err());
        two.link_up().unwrap();
        connect(Some(two.namespace()), addr).unwrap();
        two.plug_aside().unwrap();
        let briefly = move || TcpStream::connect_timeout(&addr, Duration::from_millis(300));
        assert!(enter(two.namespace(), briefly).unwrap().is_err(), "nobody is on that side yet");
        one.plug_aside().unwrap();
        connect(Some(two.namespace()), addr).unwrap();
        let names = [one.namespace().to_owned(), two.namespace().to_owned()];
        drop((one, two, bridge));
        assert!(names.iter().all(|name| !namespace_file(name).exists()));
    }
}
