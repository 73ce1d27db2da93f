//! What the caches of several nodes do together: a node tells its peers what it keeps, and one that
//! lacks an answer asks few of them for a short time before it asks a target.
//!
//! Owns the messages and who is being asked; production's machines choose the peers, the time and
//! what may be given. Nodes of a build before this take no part.

use std::collections::VecDeque;

use selvedge_base::{Micros, Mono, NodeId};
use selvedge_core::cache::{Dated, Near, Peers, Ticket};
use selvedge_proto::answers::{Ask, KeptInBrief, Missing};

use super::cached::{Given, Kept, PIECE_BYTES, Visit};
use super::{Load, Own, World};
use crate::marks::Mark;

/// The wire version that brought this.
pub(super) const ANSWERS_VERSION: u8 = 5;
/// A node with something new to tell tells it within this, as production does.
const TELL_WITHIN: Micros = Micros::millis(250);

/// A request whose answer is looked for at peers.
#[derive(Debug)]
pub(super) struct Fetching {
    visit: Visit,
    pub(super) ticket: Ticket,
    /// Who is to be asked yet.
    whom: VecDeque<usize>,
    /// Who is asked, and since when.
    asked: (usize, Mono),
    until: Mono,
}

impl World<'_> {
    /// Nobody here asks the same: whether peers are looked at first.
    pub(super) fn look_at_peers(
        &mut self,
        node: usize,
        request: u64,
        visit: &Visit,
        ticket: Ticket,
    ) -> bool {
        let now = self.now.0;
        let near: Vec<Near> = (0..self.nodes.len())
            .filter(|peer| self.shares_answers(node, *peer))
            .map(|peer| Near {
                node: self.id(peer),
                same_site: self.nodes[peer].site == self.nodes[node].site,
                rtt: None,
            })
            .collect();
        let whole = self.requests[request as usize].deadline_at.since(now);
        let Some(side) = self.cache(node) else { return false };
        let whom = side.peers.whom(now, &visit.key, visit.owner.label, &near);
        let until = Peers::until(now, now, whole);
        if whom.is_empty() || until <= now {
            return false;
        }
        let whom = whom.iter().filter_map(|peer| self.names.find(peer)).collect();
        let visit = visit.clone();
        let fetching = Fetching { visit, ticket, whom, asked: (node, now), until };
        if let Some(side) = self.cache(node) {
            side.fetching.insert(request, fetching);
        }
        self.record("looks", [node, node], &request.to_be_bytes());
        self.later(node, until, Own::CacheLooked { request });
        self.ask_next_peer(node, request);
        true
    }

    /// Whether two nodes talk about answers.
    fn shares_answers(&self, node: usize, peer: usize) -> bool {
        let link = self.nodes[node].memory.link(peer);
        peer != node && link.is_some_and(|link| link.version >= ANSWERS_VERSION)
    }

    fn ask_next_peer(&mut self, node: usize, request: u64) {
        let now = self.now.0;
        let purges = self.nodes[node].memory.purges.print();
        let Some(side) = self.cache(node) else { return };
        let most_bytes = side.machine.bounds().entry_bytes;
        let Some(fetching) = side.fetching.get_mut(&request) else { return };
        let next = fetching.whom.pop_front().filter(|_| now < fetching.until);
        let Some(peer) = next else { return self.not_at_peers(node, request) };
        fetching.asked = (peer, now);
        let ask = Ask { digest: fetching.visit.key.0, purges, most_bytes };
        self.send_reliable(node, peer, Load::Ask { request, ask });
    }

    /// A peer wants an answer.
    pub(super) fn asked_for_answer(&mut self, node: usize, from: usize, request: u64, ask: &Ask) {
        let now = self.now.0;
        let same_site = self.nodes[from].site == self.nodes[node].site;
        let ours = self.nodes[node].memory.purges.print();
        let Some(side) = self.cache(node) else { return };
        let lent = side.machine.lend(now, (ask, same_site), ours);
        if lent == Err(Missing::Purges) {
            self.hit(Mark::CacheOtherPurges);
            self.greet_purges(node, from);
        }
        let lent = lent.ok().map(|lent| (lent.answer, lent.age, lent.left));
        self.send_reliable(node, from, Load::Lent { request, lent });
    }

    /// A peer gives an answer, or none.
    pub(super) fn lent(
        &mut self,
        node: usize,
        from: usize,
        request: u64,
        lent: Option<(Kept, Micros, Micros)>,
    ) {
        let (now, start, id) = (self.now.0, self.nodes[node].starts, self.id(from));
        let barred = self.barred(node, request).is_some();
        let Some(side) = self.cache(node) else { return };
        let Some(fetching) = side.fetching.get(&request).filter(|one| one.asked.0 == from) else {
            return;
        };
        let (ticket, asked) = (fetching.ticket, fetching.asked.1);
        let Some((kept, age, left)) = lent else {
            side.peers.in_vain(now, &id);
            return self.ask_next_peer(node, request);
        };
        side.peers.gave(&id);
        let kept = Kept { at: (node, start), ..kept };
        let answer = (kept, u64::from(kept.pieces) * PIECE_BYTES);
        let dated = Dated { asked, age, left };
        if side.machine.fetched(now, ticket, answer, dated).is_none() {
            self.hit(Mark::CacheFetchedInVain);
            return self.ask_next_peer(node, request);
        }
        side.fetching.remove(&request);
        self.hit(Mark::CacheFetched);
        self.record("fetched", [node, from], &request.to_be_bytes());
        self.has_more_to_tell(node);
        self.tell_waiting(node, ticket, Some(kept));
        match barred {
            true => self.ask_targets(node, request),
            false => self.give_again(node, request, kept, Given::Fetched),
        }
    }

    /// A request may have looked at peers for long enough.
    pub(super) fn looked_enough(&mut self, node: usize, request: u64) {
        let now = self.now.0;
        let Some(side) = &self.nodes[node].memory.cache else { return };
        let Some(fetching) = side.fetching.get(&request) else { return };
        if fetching.until > now {
            return;
        }
        let id = self.id(fetching.asked.0);
        self.hit(Mark::CacheLookedEnough);
        if let Some(side) = self.cache(node) {
            side.peers.in_vain(now, &id);
        }
        self.not_at_peers(node, request);
    }

    fn not_at_peers(&mut self, node: usize, request: u64) {
        let Some(side) = self.cache(node) else { return };
        let Some(fetching) = side.fetching.remove(&request) else { return };
        self.collect(node, request, fetching.visit.target, (fetching.ticket, true));
        self.ask_targets(node, request);
    }

    /// The caller of a request that is looked for hangs up; whether there was one.
    pub(super) fn looker_left(&mut self, node: usize, request: u64) -> bool {
        let Some(side) = self.cache(node) else { return false };
        let Some(fetching) = side.fetching.remove(&request) else { return false };
        side.machine.ended(fetching.ticket);
        self.tell_waiting(node, fetching.ticket, None);
        true
    }

    /// A node keeps more than it told.
    pub(super) fn has_more_to_tell(&mut self, node: usize) {
        let at = self.now.0.plus(TELL_WITHIN);
        let Some(side) = self.cache(node) else { return };
        if !std::mem::replace(&mut side.tells, true) {
            self.later(node, at, Own::CacheTells);
        }
    }

    /// Tells every peer that was not told yet what a node keeps.
    pub(super) fn tell_kept(&mut self, node: usize) {
        let (start, own_site) = (self.nodes[node].starts, self.nodes[node].site);
        let Some(side) = self.cache(node) else { return };
        side.tells = false;
        let turn = side.machine.turn();
        for peer in 0..self.nodes.len() {
            let Some(link) = self.nodes[node].memory.link(peer) else { continue };
            let same_site = self.nodes[peer].site == own_site;
            let Some(side) = self.nodes[node].memory.cache.as_deref_mut() else { return };
            let is_new = turn > 0 && side.told.get(&peer) != Some(&(link.conn, turn));
            if is_new && link.version >= ANSWERS_VERSION {
                side.told.insert(peer, (link.conn, turn));
                let told = side.machine.in_brief(start, same_site);
                self.send_reliable(node, peer, Load::Kept(Box::new(told)));
            }
        }
    }

    /// A peer tells what it keeps.
    pub(super) fn told_kept(&mut self, node: usize, from: usize, told: KeptInBrief) {
        let id = self.id(from);
        if let Some(side) = self.cache(node) {
            side.peers.heard(id, told);
        }
    }

    /// A connection is lost: what the peer keeps it tells anew.
    pub(super) fn peer_left_cache(&mut self, node: usize, id: NodeId) {
        if let Some(side) = self.cache(node) {
            side.peers.keep(|known| *known != id);
        }
    }
}
