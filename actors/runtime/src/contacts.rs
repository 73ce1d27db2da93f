//! Where nodes were last seen, so that they can be dialled again.
//!
//! Owns a bounded book of addresses per node. Addresses are hints: whoever answers there must prove
//! to be the node, so a wrong one costs an attempt and nothing else. Anybody can announce anything,
//! so the book tells those who proved themselves from those only heard of: only the former are
//! stored and watched, and the latter make room first.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use selvedge_base::NodeId;
use selvedge_proto::swim::MAX_PEERS;
use serde::{Deserialize, Serialize};

/// Addresses kept per node, newest first: a machine's interfaces, and those it had before.
const MAX_ADDRS: usize = 8;
/// Nodes only heard of: a busy LAN's announcements, without crowding out those who belong.
const MAX_HEARSAY: usize = 256;

/// The address book.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contacts {
    nodes: BTreeMap<NodeId, Contact>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Contact {
    addrs: Vec<SocketAddr>,
    /// Whether it was linked, or named by a member when this node joined.
    proven: bool,
}

impl Contacts {
    /// Notes where a node is said to be. True when something worth storing changed.
    pub(crate) fn seen(&mut self, node: NodeId, addrs: &[SocketAddr]) -> bool {
        let known = self.nodes.contains_key(&node);
        let hearsay = self.nodes.values().filter(|contact| !contact.proven).count();
        if !known && hearsay >= MAX_HEARSAY {
            return false;
        }
        self.put(node, addrs)
    }

    /// Notes where a node that proved itself is. True when something worth storing changed.
    pub(crate) fn proven(&mut self, node: NodeId, addrs: &[SocketAddr]) -> bool {
        let members = self.nodes.values().filter(|contact| contact.proven).count();
        let new = self.nodes.get(&node).is_none_or(|contact| !contact.proven);
        if new && members >= MAX_PEERS {
            return false;
        }
        self.nodes.entry(node).or_default().proven = true;
        self.put(node, addrs) || new
    }

    /// Where a node may be.
    pub(crate) fn addrs(&self, node: &NodeId) -> &[SocketAddr] {
        self.nodes.get(node).map_or(&[], |contact| &contact.addrs)
    }

    /// Nodes that proved themselves.
    pub(crate) fn members(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().filter(|(_, contact)| contact.proven).map(|(node, _)| *node)
    }

    /// Nodes only heard of.
    pub(crate) fn hearsay(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().filter(|(_, contact)| !contact.proven).map(|(node, _)| *node)
    }

    /// What is worth storing.
    pub(crate) fn stored(&self) -> Self {
        let proven = self.nodes.iter().filter(|(_, contact)| contact.proven);
        Self { nodes: proven.map(|(node, contact)| (*node, contact.clone())).collect() }
    }

    /// Forgets a node that is no member any more, or was never heard of again.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    fn put(&mut self, node: NodeId, addrs: &[SocketAddr]) -> bool {
        let contact = self.nodes.entry(node).or_default();
        let before = contact.addrs.clone();
        for addr in addrs.iter().rev().filter(|addr| is_dialable(addr)) {
            contact.addrs.retain(|other| other != addr);
            contact.addrs.insert(0, *addr);
        }
        contact.addrs.truncate(MAX_ADDRS);
        let (mut old, mut new) = (before, contact.addrs.clone());
        old.sort();
        new.sort();
        contact.proven && old != new
    }
}

fn is_dialable(addr: &SocketAddr) -> bool {
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn stranger(n: u64) -> NodeId {
        let mut key = [9; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        NodeId(key)
    }

    #[test]
    fn the_newest_addresses_come_first_and_the_book_is_bounded() {
        let mut book = Contacts::default();
        let node = NodeId([1; 32]);
        assert!(book.proven(node, &[addr("10.0.0.1:1"), addr("10.0.0.2:1")]));
        assert!(!book.seen(node, &[addr("10.0.0.2:1")]), "nothing new");
        assert_eq!(book.addrs(&node)[0], addr("10.0.0.2:1"));
        assert!(!book.seen(node, &[addr("0.0.0.0:1"), addr("10.0.0.3:0")]), "not dialable");
        for n in 10..40 {
            book.seen(node, &[addr(&format!("10.0.1.{n}:1"))]);
        }
        assert_eq!(book.addrs(&node).len(), MAX_ADDRS);
        assert_eq!(book.addrs(&node)[0], addr("10.0.1.39:1"));
    }

    #[test]
    fn strangers_are_not_stored_and_take_no_members_place() {
        let mut book = Contacts::default();
        for n in 0..5_000 {
            book.seen(stranger(n), &[addr("10.9.9.9:1")]);
        }
        assert_eq!(book.hearsay().count(), MAX_HEARSAY);
        let member = NodeId([1; 32]);
        assert!(book.proven(member, &[addr("10.0.0.1:1")]), "there is room for a member");
        assert_eq!(book.members().collect::<Vec<_>>(), [member]);
        assert_eq!(book.stored().hearsay().count(), 0);
        assert!(book.proven(stranger(3), &[]), "a stranger may turn out to be a member");
        assert_eq!(book.hearsay().count(), MAX_HEARSAY - 1);
    }
}
