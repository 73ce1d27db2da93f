//! What crosses the network: datagrams, connections, the exchange of rows.

use selvedge_base::Micros;
use selvedge_base::codec::encode_datagram;
use selvedge_crdt::{Digest, Merged, Row};
use selvedge_proto::swim::{MAX_MESSAGE_BYTES, SwimInput, SwimMessage};

use crate::invariant::Invariant;

use super::{Class, Event, Load, Packet, World};
use crate::node::{LinkEnd, MAX_BACKLOG, Node, is_signed, node_id, node_index};

/// A connection over which nothing came for this long is lost, as production configures QUIC.
const IDLE_TIMEOUT: Micros = Micros::secs(3);
/// Bytes of rows in one delta: less than all rows of the larger meshes, so that rotation matters.
const ROW_BUDGET: usize = 400;

impl World<'_> {
    pub(super) fn send_swim(&mut self, from: usize, to: usize, message: SwimMessage) {
        let Some(conn) = self.nodes[from].links.get(&to).map(|link| link.conn) else { return };
        match encode_datagram(&message, MAX_MESSAGE_BYTES) {
            Ok(bytes) => {
                self.counters.sent_bytes += bytes.len() as u64;
                self.record("send", [from, to], &bytes);
            }
            Err(error) => {
                let seen = format!("node {from} to {to}: {error}");
                self.checker.broken(self.now.0, Invariant::BoundDatagram, seen);
            }
        }
        for delay in self.network.datagram(self.now.0, from, to) {
            let packet = Packet { from, conn, load: Load::Swim(message.clone()) };
            self.deliver(to, delay, packet);
        }
    }

    fn send_reliable(&mut self, from: usize, to: usize, load: Load) {
        let Some(conn) = self.nodes[from].links.get(&to).map(|link| link.conn) else { return };
        if let Some(delay) = self.network.reliable(self.now.0, from, to) {
            self.deliver(to, delay, Packet { from, conn, load });
        }
    }

    pub(super) fn deliver(&mut self, to: usize, delay: Micros, packet: Packet) {
        self.queue.push(self.now.0.plus(delay), Class::Network, Event::Arrived { to, packet });
    }

    pub(super) fn arrived(&mut self, to: usize, packet: Packet) {
        if self.nodes[to].crashes > 0 {
            return;
        }
        if self.nodes[to].pauses > 0 {
            if self.nodes[to].backlog.len() < MAX_BACKLOG {
                self.nodes[to].backlog.push(packet);
            }
            return;
        }
        let Packet { from, conn, load } = packet;
        let known = self.nodes[to].links.get(&from).is_some_and(|link| link.conn == conn);
        if !known {
            let reset = matches!(load, Load::Reset);
            if let (false, Some(delay)) = (reset, self.network.reliable(self.now.0, to, from)) {
                self.deliver(from, delay, Packet { from: to, conn, load: Load::Reset });
            }
            return;
        }
        if let Some(link) = self.nodes[to].links.get_mut(&from) {
            link.heard_at = self.now.0;
        }
        self.counters.delivered += 1;
        self.record(load.as_str(), [from, to], &conn.to_be_bytes());
        match load {
            Load::Swim(message) => {
                self.step(to, SwimInput::Received { from: node_id(from), message });
            }
            Load::Digest(theirs) => self.answer_digest(to, from, &theirs, true),
            Load::Delta { rows, digest } => {
                self.take_rows(to, rows);
                if let Some(theirs) = digest {
                    self.answer_digest(to, from, &theirs, false);
                }
            }
            Load::Reset => self.lose_link(to, from),
        }
    }

    pub(super) fn begin_sync(&mut self, node: usize) {
        let peers: Vec<usize> = self.nodes[node].links.keys().copied().collect();
        if !self.nodes[node].acts() || peers.is_empty() {
            return;
        }
        let peer = peers[self.nodes[node].dice.below(peers.len() as u64) as usize];
        let digest = self.nodes[node].rows.digest();
        self.send_reliable(node, peer, Load::Digest(digest));
    }

    fn answer_digest(&mut self, node: usize, peer: usize, theirs: &Digest, reply: bool) {
        let cursor = self.nodes[node].cursors.get(&peer).copied().flatten();
        let delta = self.nodes[node].rows.delta(theirs, cursor, ROW_BUDGET);
        self.nodes[node].cursors.insert(peer, delta.next);
        let digest = reply.then(|| self.nodes[node].rows.digest());
        self.send_reliable(node, peer, Load::Delta { rows: delta.rows, digest });
    }

    fn take_rows(&mut self, node: usize, rows: Vec<Row>) {
        for row in rows {
            let (writer, stamp) = (row.writer, row.stamp);
            let before = self.nodes[node].rows.get(&writer).map(|row| row.stamp);
            let merged = self.nodes[node].rows.merge(row, is_signed);
            match merged {
                Merged::Newer => {
                    self.counters.rows_merged += 1;
                    self.record("row", [node, node_index(&writer)], &stamp.seq.to_be_bytes());
                }
                Merged::Known => {}
                Merged::Conflict(_) | Merged::Refused(_) => {
                    let seen = format!("node {node}: {merged:?}");
                    self.checker.broken(self.now.0, Invariant::StateHonestRowsTaken, seen);
                }
            }
            let after = self.nodes[node].rows.get(&writer).map(|row| row.stamp);
            if after < before {
                let seen = format!("node {node}: {before:?} to {after:?}");
                self.checker.broken(self.now.0, Invariant::StateNeverBack, seen);
            }
        }
    }

    pub(super) fn dial(&mut self, from: usize, to: usize) {
        let there = self.network.reliable(self.now.0, from, to);
        let back = self.network.reliable(self.now.0, to, from);
        if let (Some(there), Some(back)) = (there, back) {
            // A handshake takes a round trip, and its last flight another half.
            let at = self.now.0.plus(there).plus(back).plus(there);
            self.queue.push(at, Class::Network, Event::Dialled { from, to });
        }
    }

    pub(super) fn dialled(&mut self, from: usize, to: usize) {
        let open =
            self.network.open(self.now.0, from, to) && self.network.open(self.now.0, to, from);
        if !open || !self.nodes[from].acts() || !self.nodes[to].acts() {
            return;
        }
        let conn_of = |node: &Node<Packet>, peer| node.links.get(&peer).map(|link| link.conn);
        let (ours, theirs) = (conn_of(&self.nodes[from], to), conn_of(&self.nodes[to], from));
        if ours.is_some() && ours == theirs {
            return;
        }
        self.lose_link(from, to);
        self.lose_link(to, from);
        self.conns += 1;
        self.counters.connections += 1;
        self.record("connected", [from, to], &self.conns.to_be_bytes());
        let end = LinkEnd { conn: self.conns, heard_at: self.now.0 };
        for (node, peer) in [(from, to), (to, from)] {
            self.nodes[node].links.insert(peer, end);
            let incarnation = self.nodes[peer].swim.incarnation();
            self.step(node, SwimInput::LinkUp { node: node_id(peer), incarnation });
        }
    }

    fn lose_link(&mut self, node: usize, peer: usize) {
        if self.nodes[node].links.remove(&peer).is_some() {
            self.record("link lost", [node, peer], &[]);
            self.checker.was_reset(self.now.0, node, peer);
            self.step(node, SwimInput::LinkLost { node: node_id(peer) });
        }
    }

    /// Closes a connection and tells the other side.
    pub(super) fn close(&mut self, node: usize, peer: usize) {
        let Some(end) = self.nodes[node].links.get(&peer).copied() else { return };
        if let Some(delay) = self.network.reliable(self.now.0, node, peer) {
            self.deliver(peer, delay, Packet { from: node, conn: end.conn, load: Load::Reset });
        }
        self.lose_link(node, peer);
    }

    pub(super) fn drop_idle(&mut self) {
        for node in 0..self.nodes.len() {
            if !self.nodes[node].acts() {
                continue;
            }
            let idle = |end: &LinkEnd| self.now.0.since(end.heard_at) >= IDLE_TIMEOUT;
            let links = self.nodes[node].links.iter();
            let lost: Vec<usize> =
                links.filter(|(_, end)| idle(end)).map(|(peer, _)| *peer).collect();
            for peer in lost {
                self.lose_link(node, peer);
            }
        }
    }
}
