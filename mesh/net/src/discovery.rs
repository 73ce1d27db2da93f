//! Finding peers: multicast DNS on the local network, and a shared directory on one machine.
//!
//! Owns a thread of its own and what is known of who is where. Three facts come out: a peer was
//! seen, a peer is gone, this machine's addresses changed. Nothing here is trusted (anybody on the
//! network can announce anything) and nothing depends on it: addresses that are configured or
//! remembered work without it. A stranger learns this node's name and addresses, no more: there is
//! no second socket that accepts connections.

mod announce;
mod mdns;
mod rendezvous;
mod sightings;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use if_watch::IfEvent;
use if_watch::tokio::IfWatcher;
use selvedge_base::NodeId;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::mdns::Mdns;
use self::rendezvous::Rendezvous;
use self::sightings::{Sightings, Source};

/// Facts waiting for the runtime; discovery waits beyond it.
const QUEUE: usize = 256;
/// When mDNS or the list of addresses is unavailable: the first wait and the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// A full table of peers is started afresh at most this often.
const FRESH_START: Duration = Duration::from_secs(60);

/// Running discovery; stops when dropped.
#[derive(Debug)]
pub struct Discovery {
    stop: watch::Sender<bool>,
    ask: Arc<Notify>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// How to look for peers.
#[derive(Clone, Debug, Default)]
pub struct DiscoveryConfig {
    /// Multicast DNS on every interface the endpoint listens on, but loopback.
    pub mdns: bool,
    /// A directory that the nodes of one machine share.
    pub rendezvous: Option<PathBuf>,
}

/// A fact about who is where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// A peer is announced at these addresses, all of them. Told again when they change.
    PeerSeen {
        /// The peer, as announced.
        node: NodeId,
        /// Where, as announced.
        addrs: Vec<SocketAddr>,
    },
    /// A peer is no longer announced. Its last addresses may still work.
    PeerGone {
        /// The peer.
        node: NodeId,
    },
    /// This machine's addresses on which the endpoint listens. Told at start and on every change,
    /// also when a cable is pulled and the list shrinks.
    OwnAddresses(Vec<IpAddr>),
}

impl Discovery {
    /// Begins to look for peers and to announce `node` at `listen`, the data plane's socket.
    ///
    /// # Errors
    /// When the system has no thread to give. Everything else is logged once and tried again.
    pub fn start(
        node: NodeId,
        listen: SocketAddr,
        config: DiscoveryConfig,
    ) -> io::Result<(Self, mpsc::Receiver<Sighting>)> {
        let (out, sightings) = mpsc::channel(QUEUE);
        let (stop, stopped) = watch::channel(false);
        let ask = Arc::new(Notify::new());
        let mut search = Search {
            node,
            listen,
            mdns: config.mdns && !listen.ip().is_loopback(),
            own: BTreeSet::new(),
            told: None,
            known: Sightings::new(node),
            rendezvous: config.rendezvous.map(|path| Rendezvous::new(path, node)),
            out,
            stopped,
            ask: Arc::clone(&ask),
            retry: RETRY_FIRST,
            complained: BTreeSet::new(),
            fresh_at: None,
        };
        let thread = std::thread::Builder::new()
            .name("selvedge-discovery".into())
            .spawn(move || search.run())?;
        Ok((Self { stop, ask, thread: Some(thread) }, sightings))
    }

    /// Asks the network now instead of at the next interval, for instance after a link was lost.
    pub fn ask(&self) {
        self.ask.notify_one();
    }

    /// Stops announcing and waits until that is done.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its thread.
            let _ended = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

struct Search {
    node: NodeId,
    listen: SocketAddr,
    mdns: bool,
    own: BTreeSet<IpAddr>,
    /// What the runtime was last told of them.
    told: Option<Vec<IpAddr>>,
    known: Sightings,
    rendezvous: Option<Rendezvous>,
    out: mpsc::Sender<Sighting>,
    stopped: watch::Receiver<bool>,
    ask: Arc<Notify>,
    /// The next wait after a failure.
    retry: Duration,
    /// What was logged already.
    complained: BTreeSet<String>,
    /// When the table of peers may be started afresh.
    fresh_at: Option<Instant>,
}

/// Why a round of searching ended.
enum Ended {
    /// The node is going down.
    Stopped,
    /// Something must be set up anew.
    Again,
}

impl Search {
    fn run(&mut self) {
        loop {
            // mDNS leaves tasks behind for every interface. Their runtime ends them.
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!(%error, "discovery cannot run");
                    return;
                }
            };
            if matches!(runtime.block_on(self.round()), Ended::Stopped) {
                break;
            }
        }
        if let Some(rendezvous) = &mut self.rendezvous {
            rendezvous.leave();
        }
    }

    async fn round(&mut self) -> Ended {
        // What the last round heard would never expire: this one hears it again in a moment.
        for sighting in self.known.forget(Source::Mdns) {
            if self.tell(sighting).await {
                return Ended::Stopped;
            }
        }
        let mut watcher = self.watch_addresses();
        let mut mdns = self.open_mdns();
        let mut retry_at =
            (watcher.is_none() || (self.mdns && mdns.is_none())).then(|| self.next_retry());
        let mut stopped = self.stopped.clone();
        let ask = Arc::clone(&self.ask);
        // A fixed address, or no list of them: nothing to wait for.
        let fixed = watcher.is_none() || !self.listen.ip().is_unspecified();
        if fixed && self.adopt(BTreeSet::new(), mdns.as_mut()).await {
            return Ended::Stopped;
        }
        loop {
            let rendezvous_at = self.rendezvous.as_ref().map(Rendezvous::due_at);
            let found = tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return Ended::Stopped,
                event = next_change(&mut watcher) => match event {
                    Ok(changes) => {
                        let mut addresses = self.own.clone();
                        changes.into_iter().for_each(|change| apply(&mut addresses, change));
                        if self.adopt(addresses, mdns.as_mut()).await {
                            return Ended::Stopped;
                        }
                        if mdns.as_ref().is_some_and(Mdns::is_deaf) {
                            retry_at = retry_at.or_else(|| Some(self.next_retry()));
                        }
                        continue;
                    }
                    Err(error) => {
                        self.complain(&format!("the list of addresses is lost: {error}"));
                        watcher = None;
                        retry_at = retry_at.or_else(|| Some(self.next_retry()));
                        continue;
                    }
                },
                () = ask.notified() => {
                    if let Some(mdns) = &mut mdns {
                        mdns.ask_soon();
                    }
                    continue;
                }
                changed = next_found(&mut mdns) => (Source::Mdns, changed),
                () = until(rendezvous_at) => (Source::Rendezvous, self.read_rendezvous()),
                () = until(retry_at) => {
                    // Deaf on an address: only worth a fresh start when it would hear now.
                    if watcher.is_none() || mdns.as_mut().is_none_or(Mdns::would_hear) {
                        return Ended::Again;
                    }
                    retry_at = Some(self.next_retry());
                    continue;
                }
            };
            match self.found(found).await {
                Some(ended) => return ended,
                None => continue,
            }
        }
    }

    /// Takes new facts about peers and passes on what changed.
    async fn found(
        &mut self,
        (source, changes): (Source, Vec<sightings::Change>),
    ) -> Option<Ended> {
        for change in changes {
            if let Some(sighting) = self.known.apply(source, change)
                && self.tell(sighting).await
            {
                return Some(Ended::Stopped);
            }
        }
        let now = Instant::now();
        if self.known.is_full() && self.fresh_at.is_none_or(|at| at <= now) {
            self.complain("more peers are announced than fit the table: starting it afresh");
            self.fresh_at = Some(now + FRESH_START);
            return Some(Ended::Again);
        }
        None
    }

    /// Uses a new list of this machine's addresses; true when it is time to stop.
    async fn adopt(&mut self, addresses: BTreeSet<IpAddr>, mdns: Option<&mut Mdns>) -> bool {
        self.own = addresses;
        let usable = self.usable();
        if let Some(mdns) = mdns {
            for failed in mdns.announce(&usable) {
                self.complain(&failed);
            }
            if !mdns.is_deaf() {
                self.retry = RETRY_FIRST;
            }
            mdns.ask_soon();
        }
        if let Some(rendezvous) = &mut self.rendezvous {
            let port = self.listen.port();
            let addrs = usable.iter().map(|ip| SocketAddr::new(*ip, port));
            let loopback: IpAddr = [127, 0, 0, 1].into();
            let here = self.listen.ip().is_unspecified().then(|| SocketAddr::new(loopback, port));
            rendezvous.announce(here.into_iter().chain(addrs).collect());
        }
        if self.told.as_ref() != Some(&usable) {
            self.told = Some(usable.clone());
            return self.tell(Sighting::OwnAddresses(usable)).await;
        }
        false
    }

    /// The addresses at which others can reach the endpoint.
    fn usable(&self) -> Vec<IpAddr> {
        if !self.listen.ip().is_unspecified() {
            return vec![self.listen.ip()];
        }
        let reachable = |ip: &&IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
            // Link-local addresses mean nothing without the interface, which no peer knows.
            IpAddr::V6(ip) => {
                self.listen.is_ipv6() && !ip.is_loopback() && !ip.is_unicast_link_local()
            }
        };
        self.own.iter().filter(reachable).copied().collect()
    }

    fn watch_addresses(&mut self) -> Option<IfWatcher> {
        match IfWatcher::new() {
            Ok(watcher) => {
                // What the last round knew comes again from the new list.
                self.own.clear();
                Some(watcher)
            }
            Err(error) => {
                self.complain(&format!("this machine's addresses cannot be listed: {error}"));
                None
            }
        }
    }

    fn open_mdns(&mut self) -> Option<Mdns> {
        if !self.mdns {
            return None;
        }
        match Mdns::open(self.node, self.listen) {
            Ok(mdns) => Some(mdns),
            Err(error) => {
                self.complain(&format!("multicast DNS is not available: {error}"));
                None
            }
        }
    }

    fn read_rendezvous(&mut self) -> Vec<sightings::Change> {
        let Some(rendezvous) = &mut self.rendezvous else { return Vec::new() };
        match rendezvous.read() {
            Ok(changes) => changes,
            Err(error) => {
                self.complain(&error);
                Vec::new()
            }
        }
    }

    /// Passes on a fact; true when it is time to stop.
    async fn tell(&mut self, sighting: Sighting) -> bool {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => true,
            sent = self.out.send(sighting) => sent.is_err(),
        }
    }

    /// Logs a failure the first time it happens.
    fn complain(&mut self, what: &str) {
        // Texts hold addresses and system errors: a few, but not promised to be.
        if self.complained.len() < 64 && self.complained.insert(what.to_owned()) {
            tracing::warn!("{what}; trying again from time to time");
        }
    }

    fn next_retry(&mut self) -> Instant {
        let at = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(RETRY_LONGEST);
        at
    }
}

fn apply(addresses: &mut BTreeSet<IpAddr>, change: IfEvent) {
    match change {
        IfEvent::Up(net) => addresses.insert(net.addr()),
        IfEvent::Down(net) => addresses.remove(&net.addr()),
    };
}

/// The changes of addresses that are there, at least one.
async fn next_change(watcher: &mut Option<IfWatcher>) -> io::Result<Vec<IfEvent>> {
    let Some(watcher) = watcher else { return std::future::pending().await };
    let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
    let mut changes = vec![watcher.next().await.ok_or_else(closed)??];
    while let Some(Some(change)) = watcher.next().now_or_never() {
        changes.push(change?);
    }
    Ok(changes)
}

async fn next_found(mdns: &mut Option<Mdns>) -> Vec<sightings::Change> {
    match mdns {
        Some(mdns) => mdns.next().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
