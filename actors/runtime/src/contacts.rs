//! Where nodes were last seen, so that they can be dialled again.
//!
//! Owns a bounded book of addresses per node. Addresses are hints: whoever answers there must prove
//! to be the node, so a wrong one costs an attempt and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use selvedge_base::NodeId;
use selvedge_proto::swim::MAX_PEERS;
use serde::{Deserialize, Serialize};

/// Addresses kept per node, newest first: a machine's interfaces, and those it had before.
const MAX_ADDRS: usize = 8;

/// The address book; stored, so that a restart without discovery finds the mesh again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contacts {
    nodes: BTreeMap<NodeId, Vec<SocketAddr>>,
}

impl Contacts {
    /// Puts addresses in front of what was known. True when the set of addresses changed.
    pub(crate) fn seen(&mut self, node: NodeId, addrs: &[SocketAddr]) -> bool {
        if !self.nodes.contains_key(&node) && self.nodes.len() >= MAX_PEERS {
            return false;
        }
        let known = self.nodes.entry(node).or_default();
        let before = known.clone();
        for addr in addrs.iter().rev().filter(|addr| is_dialable(addr)) {
            known.retain(|other| other != addr);
            known.insert(0, *addr);
        }
        known.truncate(MAX_ADDRS);
        let (mut old, mut new) = (before, known.clone());
        old.sort();
        new.sort();
        old != new
    }

    /// Where a node may be.
    pub(crate) fn addrs(&self, node: &NodeId) -> &[SocketAddr] {
        self.nodes.get(node).map_or(&[], Vec::as_slice)
    }

    /// All nodes and where they may be.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Vec<SocketAddr>)> {
        self.nodes.iter()
    }

    /// Forgets a node that is no member any more.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
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

    #[test]
    fn the_newest_addresses_come_first_and_the_book_is_bounded() {
        let mut book = Contacts::default();
        let node = NodeId([1; 32]);
        assert!(book.seen(node, &[addr("10.0.0.1:1"), addr("10.0.0.2:1")]));
        assert!(!book.seen(node, &[addr("10.0.0.2:1")]), "nothing new");
        assert_eq!(book.addrs(&node)[0], addr("10.0.0.2:1"));
        assert!(!book.seen(node, &[addr("0.0.0.0:1"), addr("10.0.0.3:0")]), "not dialable");
        for n in 10..40 {
            book.seen(node, &[addr(&format!("10.0.1.{n}:1"))]);
        }
        assert_eq!(book.addrs(&node).len(), MAX_ADDRS);
        assert_eq!(book.addrs(&node)[0], addr("10.0.1.39:1"));
    }
}
