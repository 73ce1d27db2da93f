//! What crosses the network: datagrams, connections, the exchange of rows.

use selvedge_base::codec::{OLDEST_VERSION, encode_datagram};
use selvedge_base::{Micros, Mono};
use selvedge_core::quota::QuotaInput;
use selvedge_proto::swim::{MAX_MESSAGE_BYTES, SwimInput, SwimMessage};
use selvedge_proto::sync::{self, SyncDelta, SyncDigest};
use selvedge_proto::wire;

use super::quota::QUOTA_VERSION;
use super::{Class, Due, Load, Packet, SimNode, World};
use crate::invariant::Invariant;
use crate::marks::Mark;
use crate::names::is_row_signed;
use crate::node::{LinkEnd, MAX_BACKLOG};
use crate::watch::EventKind;

/// A connection over which nothing came for this long is lost, as production configures QUIC.
const IDLE_TIMEOUT: Micros = Micros::secs(3);
/// A connection with nothing to say sends a sign of life this often, as production configures
/// QUIC.
const KEEP_ALIVE: Micros = Micros::millis(500);
/// Bytes of rows in one delta in a small mesh: less than all rows of the larger ones, so that
/// rotation matters.
const ROW_BUDGET: usize = 1_000;
/// Messages with fewer rumours than this fit a datagram by far and are not measured each time.
const MEASURED_FROM: usize = 12;

impl World<'_> {
    pub(super) fn send_swim(&mut self, from: usize, to: usize, message: SwimMessage) {
        let Some(link) = self.nodes[from].memory.link(to) else { return };
        self.record_swim(from, to, &message);
        let [first, second] = self.network.datagram(self.now.0, from, to);
        if let Some(delay) = second {
            let load = Load::Swim(message.clone());
            self.deliver(to, delay, Packet { from, conn: link.conn, load });
        }
        if let Some(delay) = first {
            self.deliver(to, delay, Packet { from, conn: link.conn, load: Load::Swim(message) });
        }
    }

    /// Into the trace goes every field; the encoding itself is tested where it is made.
    fn record_swim(&mut self, from: usize, to: usize, message: &SwimMessage) {
        let (kind, beat, target) = match message {
            SwimMessage::Ping(beat) => (0, beat, None),
            SwimMessage::Ack(beat) => (1, beat, None),
            SwimMessage::PingReq { target, beat } => (2, beat, Some(target)),
            SwimMessage::Reached { target, beat, .. } => (3, beat, Some(target)),
        };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.push(kind);
        bytes.extend(beat.seq.to_be_bytes());
        bytes.extend(beat.incarnation.to_be_bytes());
        bytes.extend(beat.pulse.progress.to_be_bytes());
        for rumour in &beat.gossip {
            bytes.extend(&rumour.node.0[..8]);
            bytes.extend(rumour.incarnation.to_be_bytes());
            bytes.push(rumour.state as u8);
        }
        if let Some(target) = target {
            bytes.extend(&target.0[..8]);
        }
        self.counters.sent_bytes += bytes.len() as u64;
        if beat.gossip.len() >= MEASURED_FROM
            && let Err(error) = encode_datagram(message, MAX_MESSAGE_BYTES)
        {
            self.broken(Invariant::BoundDatagram, format!("node {from} to {to}: {error}"));
        }
        self.record("send", [from, to], &bytes);
        self.bytes = bytes;
    }

    pub(super) fn send_reliable(&mut self, from: usize, to: usize, load: Load) {
        let _arrives = self.send_timed(from, to, load);
    }

    /// Sends on a stream of its own; when it arrives, if the way is not cut.
    pub(super) fn send_timed(&mut self, from: usize, to: usize, load: Load) -> Option<Mono> {
        let link = self.nodes[from].memory.link(to)?;
        self.remember(from, to, &load);
        let delay = self.network.reliable(self.now.0, from, to)?;
        self.deliver(to, delay, Packet { from, conn: link.conn, load });
        Some(self.now.0.plus(delay))
    }

    pub(super) fn deliver(&mut self, to: usize, delay: Micros, packet: Packet) {
        self.queue.push(self.now.0.plus(delay), Class::Network, Due::Arrived { to, packet });
    }

    pub(super) fn arrived(&mut self, to: usize, packet: Packet) {
        if self.nodes[to].crashes > 0 {
            return;
        }
        if self.nodes[to].pauses > 0 {
            if self.nodes[to].memory.backlog.len() < MAX_BACKLOG {
                self.nodes[to].memory.backlog.push(packet);
            }
            return;
        }
        let Packet { from, conn, load } = packet;
        let known = self.nodes[to].memory.link(from).is_some_and(|link| link.conn == conn);
        if !known {
            let reset = matches!(load, Load::Reset);
            if !reset && let Some(delay) = self.network.reliable(self.now.0, to, from) {
                self.deliver(from, delay, Packet { from: to, conn, load: Load::Reset });
            }
            return;
        }
        self.nodes[to].memory.links[from].heard_at = self.now.0;
        self.counters.delivered += 1;
        self.record(load.as_str(), [from, to], &conn.to_be_bytes());
        match load {
            Load::Swim(message) => {
                let from = self.id(from);
                self.step(to, SwimInput::Received { from, message });
            }
            Load::Digest(theirs) => self.answer_digest(to, from, &theirs, true),
            Load::Delta(mut delta) => {
                let digest = delta.digest.take();
                self.take_delta(to, from, *delta);
                if let Some(theirs) = digest {
                    self.answer_digest(to, from, &theirs, false);
                }
            }
            Load::Open { stream, handed, receipt } => {
                self.opened(to, from, stream, handed, receipt);
            }
            Load::Reply { stream, reply } => self.replied(to, from, stream, reply),
            Load::Stop { stream } => self.stopped(to, stream),
            Load::Quota(message) => self.quota_received(to, from, *message),
            Load::Policy(message) => self.policy_received(to, from, &message),
            Load::Settings(message) => self.settings_received(to, from, &message),
            Load::PurgesInBrief(theirs) => self.purges_compared(to, from, theirs),
            Load::Purges(lines) => self.purges_received(to, from, lines),
            Load::Kept(told) => self.told_kept(to, from, *told),
            Load::Ask { request, ask } => self.asked_for_answer(to, from, request, &ask),
            Load::Machine(machine) => self.machine_told(to, from, *machine),
            Load::Lent { request, lent } => self.lent(to, from, request, lent),
            Load::Renew(held) => self.lease_shown(to, from, &held, true),
            Load::LeaseShown(held) => self.lease_shown(to, from, &held, false),
            Load::Renewed(renewed) => self.renewed(to, *renewed),
            Load::Reset => self.lose_link(to, from),
        }
    }

    pub(super) fn begin_sync(&mut self, node: usize) {
        let memory = &mut self.nodes[node].memory;
        let linked = memory.linked as u64;
        if !self.nodes[node].acts() || linked == 0 {
            return;
        }
        let memory = &mut self.nodes[node].memory;
        let wanted = memory.dice.below(linked) as usize;
        let is_linked = |(_, link): &(usize, &LinkEnd)| link.conn != 0;
        let found = memory.links.iter().enumerate().filter(is_linked).nth(wanted);
        let Some((peer, _)) = found else { return };
        let digest = sync::digest(&memory.rows, &memory.roster);
        self.send_reliable(node, peer, Load::Digest(Box::new(digest)));
        self.greet(node, peer);
        self.greet_settings(node, peer);
        self.greet_purges(node, peer);
        if self.plan.options.cache.is_some() {
            self.tell_kept(node);
        }
    }

    fn answer_digest(&mut self, node: usize, peer: usize, theirs: &SyncDigest, reply: bool) {
        let budget = ROW_BUDGET.max(self.plan.nodes * 20);
        let memory = &mut self.nodes[node].memory;
        let cursor = memory.cursors.get(&peer).copied().flatten();
        let (delta, next) =
            sync::delta_within(&memory.rows, &memory.roster, theirs, cursor, reply, budget);
        memory.cursors.insert(peer, next);
        if delta.digest.is_none() && delta.rows.is_empty() && delta.roster == <_>::default() {
            return;
        }
        self.send_reliable(node, peer, Load::Delta(Box::new(delta)));
    }

    fn take_delta(&mut self, node: usize, from: usize, delta: SyncDelta) {
        let wall = self.nodes[node].now(self.now.0).wall;
        let memory = &mut self.nodes[node].memory;
        let before: Vec<_> = delta
            .rows
            .iter()
            .filter_map(|row| Some((row.writer, memory.rows.get(&row.writer)?.stamp)))
            .collect();
        let (rows, roster) = (&mut memory.rows, &mut memory.roster);
        let taken = sync::apply_checked(rows, roster, delta, wall, is_row_signed);
        for (writer, stamp) in before {
            let after = self.nodes[node].memory.rows.get(&writer).map(|row| row.stamp);
            if after.is_some_and(|after| after < stamp) {
                let seen = format!("node {node}: {stamp:?} to {after:?}");
                self.broken(Invariant::StateNeverBack, seen);
            }
        }
        let lies = self.liars.contains(&from);
        let liar = |writer: &selvedge_base::NodeId| {
            lies || self.names.find(writer).is_none_or(|writer| self.liars.contains(&writer))
        };
        let honest = taken.suspicious.iter().any(|writer| !liar(writer));
        if lies && !(taken.suspicious.is_empty() && taken.known.refused.is_empty()) {
            self.hit(Mark::ForgeryRefused);
        }
        if !honest && !taken.suspicious.is_empty() {
            self.hit(Mark::EquivocationSeen);
        }
        // A node whose clock is wrong cannot tell what is dated rightly.
        let right = self.nodes[node].clock.is_right() && !lies;
        let refused = !taken.known.refused.is_empty() && right;
        if honest || refused {
            let seen = format!("node {node}: {taken:?}");
            self.broken(Invariant::StateHonestRowsTaken, seen);
        }
        let names = &self.names;
        let known: Vec<_> =
            taken.rows.into_iter().filter(|one| names.find(one).is_some()).collect();
        for writer in known {
            self.counters.rows_merged += 1;
            let seq = self.nodes[node].memory.rows.get(&writer).map_or(0, |row| row.stamp.seq);
            self.nodes[node].memory.row_changed(writer);
            let writer = self.names.index(&writer);
            self.record("row", [node, writer], &seq.to_be_bytes());
        }
        for revoked in taken.known.revoked {
            let peer = self.names.index(&revoked);
            if !self.nodes[peer].is_revoked {
                let seen = format!("node {node} believes {from} that {peer} is out");
                self.broken(Invariant::StateRightsCount, seen);
            }
            self.show(EventKind::PolicyChanged, node, peer, || "learns who is out".to_owned());
            self.revocation_learnt(node, peer);
        }
    }

    pub(super) fn dial(&mut self, from: usize, to: usize) {
        let there = self.network.reliable(self.now.0, from, to);
        let back = self.network.reliable(self.now.0, to, from);
        if let (Some(there), Some(back)) = (there, back) {
            // A handshake takes a round trip, and its last flight another half.
            let at = self.now.0.plus(there).plus(back).plus(there);
            self.queue.push(at, Class::Network, Due::Dialled { from, to });
        }
    }

    pub(super) fn dialled(&mut self, from: usize, to: usize) {
        let now = self.now.0;
        let open = self.network.open(now, from, to) && self.network.open(now, to, from);
        if !open || !self.nodes[from].acts() || !self.nodes[to].acts() {
            return;
        }
        if !self.lets_in(to, from) || !self.lets_in(from, to) {
            return;
        }
        let range = |node: usize| (OLDEST_VERSION, self.nodes[node].version);
        let Ok(version) = wire::agree(range(from), range(to)) else { return };
        let conn_of = |node: usize, peer| self.nodes[node].memory.link(peer).map(|link| link.conn);
        let (ours, theirs) = (conn_of(from, to), conn_of(to, from));
        if ours.is_some() && ours == theirs {
            return;
        }
        self.lose_link(from, to);
        self.lose_link(to, from);
        self.conns += 1;
        self.counters.connections += 1;
        let conn = self.conns;
        self.record("connected", [from, to], &conn.to_be_bytes());
        self.show(EventKind::LinkUp, from, to, || format!("version {version}"));
        for (node, peer) in [(from, to), (to, from)] {
            let id = self.id(peer);
            let mut known = self.nodes[node].memory.roster.revocations();
            let is_out = known.any(|notice| notice.revocation.body.node == id);
            drop(known);
            if is_out {
                let seen = format!("node {node} let {peer} in, which it knows to be revoked");
                self.broken(Invariant::StateRevokedStaysOut, seen);
            }
        }
        for (node, peer) in [(from, to), (to, from)] {
            self.presented(node, peer);
            let end = LinkEnd { conn, heard_at: now, version };
            self.nodes[node].memory.links[peer] = end;
            self.nodes[node].memory.linked += 1;
            let incarnation = self.nodes[peer].memory.swim.incarnation();
            let peer = self.id(peer);
            self.step(node, SwimInput::LinkUp { node: peer, incarnation });
            if version >= QUOTA_VERSION {
                self.quota(node, QuotaInput::PeerUp { node: peer });
            }
            let peer = self.names.index(&peer);
            self.greet_purges(node, peer);
        }
    }

    pub(super) fn lose_link(&mut self, node: usize, peer: usize) {
        let memory = &mut self.nodes[node].memory;
        if memory.link(peer).is_none() {
            return;
        }
        memory.links[peer] = LinkEnd::default();
        memory.presented.remove(&peer);
        memory.linked -= 1;
        self.record("link lost", [node, peer], &[]);
        self.show(EventKind::LinkLost, node, peer, String::new);
        self.checker.was_reset(self.now.0, node, peer);
        let id = self.id(peer);
        self.step(node, SwimInput::LinkLost { node: id });
        self.quota(node, QuotaInput::PeerDown { node: id });
        self.peer_left_cache(node, id);
        self.nodes[node].memory.machines.forget(peer);
        self.lose_streams(node, peer);
    }

    /// Closes a connection and tells the other side.
    pub(super) fn close(&mut self, node: usize, peer: usize) {
        let Some(end) = self.nodes[node].memory.link(peer) else { return };
        if let Some(delay) = self.network.reliable(self.now.0, node, peer) {
            self.deliver(peer, delay, Packet { from: node, conn: end.conn, load: Load::Reset });
        }
        self.lose_link(node, peer);
    }

    pub(super) fn drop_idle(&mut self) {
        let now = self.now.0;
        let (mut lost, mut kept) = (Vec::new(), Vec::new());
        let looks = |node: &SimNode| node.acts() && now >= node.memory.silent_from;
        let mut next = Vec::new();
        for (node, state) in self.nodes.iter().enumerate().filter(|(_, node)| looks(node)) {
            let heard = state.memory.links.iter().filter(|end| end.conn != 0);
            next.push((node, heard.map(|end| end.heard_at).min().unwrap_or(now)));
            let links = state.memory.links.iter().enumerate().filter(|(_, end)| end.conn != 0);
            for (peer, end) in links {
                let idle = now.since(end.heard_at);
                if idle < KEEP_ALIVE {
                    continue;
                }
                let other = &self.nodes[peer];
                let stands = other.memory.links[node].conn == end.conn;
                if other.acts() && stands && self.network.open(now, peer, node) {
                    kept.push((node, peer));
                } else if idle >= IDLE_TIMEOUT {
                    lost.push((node, peer));
                }
            }
        }
        for (node, heard) in next {
            self.nodes[node].memory.silent_from = heard.plus(KEEP_ALIVE);
        }
        for (node, peer) in kept {
            self.nodes[node].memory.links[peer].heard_at = now;
        }
        for (node, peer) in lost {
            self.lose_link(node, peer);
        }
    }
}
