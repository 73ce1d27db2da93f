//! Who is announced where, from every source.
//!
//! Owns the table and its bounds, and decides what of a change is news. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use selvedge_base::NodeId;

use super::Sighting;

/// Peers remembered: ten times the mesh size from which views are partial.
const MAX_PEERS: usize = 1_024;
/// Addresses remembered of one peer: what a machine with some interfaces has.
const MAX_ADDRS: usize = 8;

/// What one source says about one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is (also) at this address.
    At(NodeId, SocketAddr),
    /// It is no longer at this address.
    NotAt(NodeId, SocketAddr),
    /// It is at these addresses and no others.
    OnlyAt(NodeId, Vec<SocketAddr>),
}

/// Where an announcement came from; an address stays while one source names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Mdns,
    Rendezvous,
}

pub(crate) struct Sightings {
    me: NodeId,
    peers: BTreeMap<NodeId, BTreeSet<(Source, SocketAddr)>>,
}

impl Sightings {
    pub(crate) fn new(me: NodeId) -> Self {
        Self { me, peers: BTreeMap::new() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.peers.len() >= MAX_PEERS
    }

    /// Takes a change; what the runtime should hear of it.
    pub(crate) fn apply(&mut self, source: Source, change: Change) -> Option<Sighting> {
        let (Change::At(node, _) | Change::NotAt(node, _) | Change::OnlyAt(node, _)) = &change;
        let node = *node;
        if node == self.me || (self.is_full() && !self.peers.contains_key(&node)) {
            return None;
        }
        let addrs = self.peers.entry(node).or_default();
        let before = union(addrs);
        match change {
            Change::At(_, addr) => {
                insert(addrs, source, addr);
            }
            Change::NotAt(_, addr) => {
                addrs.remove(&(source, addr));
            }
            Change::OnlyAt(_, now) => {
                addrs.retain(|(from, _)| *from != source);
                now.into_iter().for_each(|addr| insert(addrs, source, addr));
            }
        }
        let after = union(addrs);
        if after.is_empty() {
            self.peers.remove(&node);
        }
        news(node, &before, after)
    }

    /// Drops what one source said.
    pub(crate) fn forget(&mut self, source: Source) -> Vec<Sighting> {
        let mut told = Vec::new();
        self.peers.retain(|node, addrs| {
            let before = union(addrs);
            addrs.retain(|(from, _)| *from != source);
            told.extend(news(*node, &before, union(addrs)));
            !addrs.is_empty()
        });
        told
    }
}

fn insert(addrs: &mut BTreeSet<(Source, SocketAddr)>, source: Source, addr: SocketAddr) {
    if addrs.len() < MAX_ADDRS {
        addrs.insert((source, addr));
    }
}

fn union(addrs: &BTreeSet<(Source, SocketAddr)>) -> Vec<SocketAddr> {
    let union: BTreeSet<_> = addrs.iter().map(|(_, addr)| *addr).collect();
    union.into_iter().collect()
}

fn news(node: NodeId, before: &[SocketAddr], after: Vec<SocketAddr>) -> Option<Sighting> {
    if before == after {
        None
    } else if after.is_empty() {
        Some(Sighting::PeerGone { node })
    } else {
        Some(Sighting::PeerSeen { node, addrs: after })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId([2; 32]);

    fn addr(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    fn table() -> Sightings {
        Sightings::new(NodeId([1; 32]))
    }

    #[test]
    fn only_news_is_told() {
        let mut table = table();
        let seen = Sighting::PeerSeen { node: PEER, addrs: vec![addr(1)] };
        assert_eq!(table.apply(Source::Mdns, Change::At(PEER, addr(1))), Some(seen));
        assert_eq!(table.apply(Source::Mdns, Change::At(PEER, addr(1))), None);
        assert_eq!(table.apply(Source::Rendezvous, Change::OnlyAt(PEER, vec![addr(1)])), None);
        // One source still names it.
        assert_eq!(table.apply(Source::Mdns, Change::NotAt(PEER, addr(1))), None);
        let gone = Sighting::PeerGone { node: PEER };
        assert_eq!(table.apply(Source::Rendezvous, Change::OnlyAt(PEER, vec![])), Some(gone));
        assert_eq!(table.apply(Source::Rendezvous, Change::OnlyAt(PEER, vec![])), None);
    }

    #[test]
    fn a_node_does_not_see_itself() {
        let mut table = table();
        assert_eq!(table.apply(Source::Mdns, Change::At(NodeId([1; 32]), addr(1))), None);
    }

    #[test]
    fn a_flood_of_names_and_addresses_is_bounded() {
        let mut table = table();
        for n in 0..5_000u32 {
            let mut name = [7; 32];
            name[..4].copy_from_slice(&n.to_be_bytes());
            table.apply(Source::Mdns, Change::At(NodeId(name), addr(1)));
        }
        assert_eq!(table.peers.len(), MAX_PEERS);
        let known = *table.peers.keys().next().unwrap();
        for port in 1..100 {
            table.apply(Source::Mdns, Change::At(known, addr(port)));
        }
        assert_eq!(table.peers[&known].len(), MAX_ADDRS);
        assert!(table.is_full());
        assert_eq!(table.forget(Source::Mdns).len(), MAX_PEERS);
        assert!(!table.is_full());
    }
}
