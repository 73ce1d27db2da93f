//! What this node and its peers have said of their machines, and the task that says it.
//!
//! Owns both books. A row of state cannot carry these facts: rows are signed, and travel through
//! nodes of every version, which would not read one with more in it. So a node tells those it is
//! linked to, and those are all that it hands requests to.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::{Micros, Mono, NodeId};
use selvedge_contract::{Condition, Machine};
use selvedge_core::Opening;
use selvedge_net::{Link, clock};

use super::Probe;
use crate::handoff::{CONTROL_PRIORITY, deliver};
use crate::shared::Shared;
use crate::task::Run;

/// The wire version that knows machines.
const MACHINES_SINCE: u8 = 10;
/// How often links are looked at: a new peer knows this machine about so soon.
const LOOK_EVERY: Micros = Micros::millis(500);
/// How often the machine is read: heat and batteries change within seconds at the soonest.
const READ_EVERY: Micros = Micros::secs(5);
/// How often it is said though nothing changed, for what a peer may have missed.
const AGAIN_EVERY: Micros = Micros::secs(60);
/// A few hundred bytes reach a peer within this, or are said again.
const SAID_WITHIN: Micros = Micros::secs(5);
/// Peers whose machines are kept: as many as have rows.
const MAX_PEERS: usize = selvedge_proto::sync::MAX_ROWS;

/// The machines of this node and of those it is linked to.
pub(crate) struct Machines {
    probe: Probe,
    own: Mutex<Machine>,
    peers: Mutex<BTreeMap<NodeId, Machine>>,
}

impl Machines {
    pub(crate) fn new(probe: Probe) -> Self {
        Self { probe, own: Mutex::default(), peers: Mutex::default() }
    }

    /// This node's machine, as it is told.
    pub(crate) fn own(&self) -> Machine {
        self.own.lock().clone()
    }

    /// What a peer said of its machine.
    pub(crate) fn of(&self, peer: &NodeId) -> Option<Machine> {
        self.peers.lock().get(peer).cloned()
    }

    /// Takes what a peer says of its machine.
    pub(crate) fn hear(&self, peer: NodeId, machine: Machine) {
        let Some(machine) = machine.received() else {
            tracing::warn!(peer = %peer.short(), "a machine out of all bounds was told of");
            return;
        };
        let mut peers = self.peers.lock();
        if peers.len() < MAX_PEERS || peers.contains_key(&peer) {
            peers.insert(peer, machine);
        }
    }

    /// Forgets the peers that are no longer linked.
    fn keep(&self, is_linked: impl Fn(&NodeId) -> bool) {
        self.peers.lock().retain(|peer, _| is_linked(peer));
    }

    /// Takes what was read of this machine's condition; whether it is news.
    fn stands(&self, now: Condition) -> bool {
        let mut own = self.own.lock();
        let told = now.settled(&own.now, own.made.memory);
        let changed = told != own.now;
        own.now = told;
        changed
    }
}

/// The task that reads this machine and tells peers of it.
pub(crate) fn child(shared: Arc<Shared>) -> Run {
    Arc::new(move || {
        let shared = Arc::clone(&shared);
        Box::pin(async move { keep_telling(&shared).await })
    })
}

async fn keep_telling(shared: &Arc<Shared>) -> Result<(), String> {
    let made = off_this_thread(shared, |probe| probe.hardware()).await?;
    shared.machines.own.lock().made = made;
    let mut turn = 1u64;
    let mut read_at: Option<Mono> = None;
    // What each peer was told last: its start, the turn, and when.
    let mut told: BTreeMap<NodeId, (u64, u64, Mono)> = BTreeMap::new();
    let mut ticks = tokio::time::interval(LOOK_EVERY.into());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = clock::mono();
        if read_at.is_none_or(|at| now.since(at) >= READ_EVERY) {
            read_at = Some(now);
            let condition = off_this_thread(shared, |probe| probe.condition()).await?;
            turn += u64::from(shared.machines.stands(condition));
        }
        let links = shared.endpoint.links();
        let is_linked = |node: &NodeId| links.iter().any(|link| link.node() == *node);
        told.retain(|node, _| is_linked(node));
        shared.machines.keep(is_linked);
        let machine = shared.machines.own();
        let sends = links.into_iter().filter_map(|link| {
            let (node, start) = (link.node(), link.hello().incarnation);
            let is_new = told.get(&node).is_none_or(|(of, last, at)| {
                (*of, *last) != (start, turn) || now.since(*at) >= AGAIN_EVERY
            });
            let machine = machine.clone();
            (is_new && link.version() >= MACHINES_SINCE).then_some(async move {
                let sent = tokio::time::timeout(SAID_WITHIN.into(), say(&link, machine)).await;
                matches!(sent, Ok(Ok(()))).then_some((node, (start, turn, now)))
            })
        });
        told.extend(futures::future::join_all(sends).await.into_iter().flatten());
    }
}

async fn say(link: &Link, machine: Machine) -> Result<(), selvedge_net::NetError> {
    deliver(link, CONTROL_PRIORITY, &Opening::Machine(Box::new(machine))).await
}

/// Files of the system may take their time: a sensor behind a slow bus, a driver that wakes up.
async fn off_this_thread<T: Send + 'static>(
    shared: &Arc<Shared>,
    read: impl FnOnce(&Probe) -> T + Send + 'static,
) -> Result<T, String> {
    let probe = shared.machines.probe.clone();
    tokio::task::spawn_blocking(move || read(&probe)).await.map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "telling_tests.rs"]
mod tests;
