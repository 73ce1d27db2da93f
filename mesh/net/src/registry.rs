//! Which links exist.
//!
//! Owns the map from node to link, the order in which its comings and goings are announced, and
//! the rule for two connections with the same node: the same process gets one link, a new process
//! (another incarnation) replaces the old one. Does not decide who may have a link.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::NodeId;
use selvedge_proto::wire::Hello;
use tokio::sync::{mpsc, watch};

use crate::error::CloseCode;
use crate::event::NetEvent;
use crate::link::{Lane, Link, Session};

pub(crate) struct Registry {
    links: Mutex<Links>,
    /// Counts registrations, so that a dialler notices when the peer was faster.
    changed: watch::Sender<u64>,
    /// Held while announcing, so that a loss is always told before the next link to that node.
    announcing: tokio::sync::Mutex<()>,
    events: mpsc::Sender<NetEvent>,
    limit: usize,
}

struct Links {
    by_node: BTreeMap<NodeId, Entry>,
    /// Counts cuts. A Hello admitted before a cut is asked about again.
    cuts: u64,
    open: bool,
}

struct Entry {
    session: Arc<Session>,
    /// The link of an earlier process, whose loss is still to be announced.
    replaced: Vec<(Arc<Session>, Told)>,
    told: Told,
}

/// How far the runtime knows of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Up,
}

/// What became of a connection whose Hello was accepted.
pub(crate) enum Registered {
    /// It carries a link, its own or one that was there.
    Yes(Arc<Session>),
    /// Somebody was cut off meanwhile: ask the gate again.
    Stale,
    /// As many links as allowed.
    Full,
    /// The endpoint is going down.
    ShutDown,
}

impl Registry {
    pub(crate) fn new(events: mpsc::Sender<NetEvent>, limit: usize) -> Self {
        let links = Links { by_node: BTreeMap::new(), cuts: 0, open: true };
        Self {
            links: Mutex::new(links),
            changed: watch::channel(0).0,
            announcing: tokio::sync::Mutex::new(()),
            events,
            limit,
        }
    }

    pub(crate) fn link(&self, node: &NodeId) -> Option<Link> {
        let links = self.links.lock();
        let session = &links.by_node.get(node)?.session;
        session.current().map(|_| Link(Arc::clone(session)))
    }

    pub(crate) fn links(&self) -> Vec<Link> {
        let links = self.links.lock();
        let alive = links.by_node.values().filter(|entry| entry.session.current().is_some());
        alive.map(|entry| Link(Arc::clone(&entry.session))).collect()
    }

    /// How many cuts there were; to be read before the gate is asked.
    pub(crate) fn cuts(&self) -> u64 {
        self.links.lock().cuts
    }

    /// Resolves when `node` has a link.
    pub(crate) async fn linked(&self, node: &NodeId) -> Link {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(link) = self.link(node) {
                return link;
            }
            if changed.changed().await.is_err() {
                // The sender lives in this registry.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes a connection whose Hello was admitted when `cuts` were counted.
    pub(crate) fn register(
        &self,
        (node, hello, version): (NodeId, Hello, u8),
        (lane, dialled): (Lane, bool),
        cuts: u64,
    ) -> Registered {
        let mut links = self.links.lock();
        if !links.open {
            return Registered::ShutDown;
        }
        if links.cuts != cuts {
            return Registered::Stale;
        }
        if links.by_node.len() >= self.limit && !links.by_node.contains_key(&node) {
            return Registered::Full;
        }
        let mut replaced = Vec::new();
        if let Some(entry) = links.by_node.get_mut(&node) {
            let same = entry.session.hello.incarnation == hello.incarnation
                && entry.session.current().is_some();
            if same {
                if !entry.session.add(lane) {
                    return Registered::Full;
                }
                for spare in entry.session.spare() {
                    tokio::spawn(Arc::clone(&entry.session).retire(spare));
                }
                return Registered::Yes(Arc::clone(&entry.session));
            }
            entry.session.end(CloseCode::Restarted, "the node came back as a new process");
            replaced.append(&mut entry.replaced);
            replaced.push((Arc::clone(&entry.session), entry.told));
        }
        let session = Arc::new(Session::new(hello, version, node, dialled, lane));
        let entry = Entry { session: Arc::clone(&session), replaced, told: Told::Nothing };
        links.by_node.insert(node, entry);
        drop(links);
        self.changed.send_modify(|count| *count += 1);
        Registered::Yes(session)
    }

    /// Tells the runtime about a new link, after the losses that came before it.
    pub(crate) async fn announce_up(&self, session: &Arc<Session>) {
        let _turn = self.announcing.lock().await;
        let (lost, up) = {
            let mut links = self.links.lock();
            let Some(entry) = links.by_node.get_mut(&session.node) else { return };
            if !Arc::ptr_eq(&entry.session, session) {
                return;
            }
            let lost = std::mem::take(&mut entry.replaced);
            // A link that was cut meanwhile is not worth telling.
            let up = entry.told == Told::Nothing && session.why_ended().is_none();
            if up {
                entry.told = Told::Up;
            }
            (lost, up)
        };
        for (old, told) in lost {
            if told == Told::Up {
                self.tell_lost(&old).await;
            }
        }
        if up {
            let event = NetEvent::LinkUp {
                link: Link(Arc::clone(session)),
                dialled: session.dialled,
                hello: session.hello.clone(),
            };
            // Nobody listens any more: the runtime is going down.
            let _gone = self.events.send(event).await;
        }
    }

    /// Tells the runtime about the end of a link, once, and forgets it.
    pub(crate) async fn announce_lost(&self, session: &Arc<Session>) {
        let _turn = self.announcing.lock().await;
        let told = {
            let mut links = self.links.lock();
            let Some(entry) = links.by_node.get_mut(&session.node) else { return };
            if Arc::ptr_eq(&entry.session, session) {
                let told = links.by_node.remove(&session.node).map(|entry| {
                    let mut lost = entry.replaced;
                    lost.push((entry.session, entry.told));
                    lost
                });
                told.unwrap_or_default()
            } else {
                std::mem::take(&mut entry.replaced)
            }
        };
        for (old, told) in told {
            if told == Told::Up {
                self.tell_lost(&old).await;
            }
        }
    }

    async fn tell_lost(&self, session: &Session) {
        let why = session.why_ended().unwrap_or_else(|| "the last connection was lost".into());
        // Nobody listens any more: the runtime is going down.
        let gone = session.is_gone();
        let _gone = self.events.send(NetEvent::LinkLost { node: session.node, why, gone }).await;
    }

    /// Cuts a node off: its connections close at once, and a Hello of its that was admitted
    /// before now is asked about again.
    pub(crate) fn cut(&self, node: &NodeId, why: &str) {
        let mut links = self.links.lock();
        links.cuts += 1;
        if let Some(entry) = links.by_node.get(node) {
            entry.session.end(CloseCode::Cut, why);
        }
    }

    /// Ends every link and takes no more.
    pub(crate) fn close_all(&self, why: &str) {
        let mut links = self.links.lock();
        links.open = false;
        for entry in links.by_node.values() {
            entry.session.end(CloseCode::ShuttingDown, why);
        }
    }
}
