//! Purges of the mesh: ordered at one node, remembered and passed on by all, heeded wherever they
//! are heard of.
//!
//! Owns the messages and the observer's account of which node has heard of which purge. What must
//! follow from that is [`super::kept`]'s business.

use selvedge_core::cache::{Scope, Ticket};
use selvedge_proto::answers::{Print, PurgeLine};
use selvedge_proto::records::Signed;

use super::lent::ANSWERS_VERSION;
use super::{Load, World};
use crate::invariant::Invariant;
use crate::marks::Mark;
use crate::names::{is_purge_signed, sign_purge};

impl World<'_> {
    /// A process starts with the purges of its disk.
    pub(super) fn boot_purges(&mut self, node: usize) {
        let lines = self.nodes[node].disk.stored.purges.clone();
        self.learned[node].clear();
        self.learns(node, &lines);
        self.nodes[node].memory.purges.take_by(lines, is_purge_signed, |_| true);
    }

    /// A node hears of these lines, by the observer's account.
    fn learns(&mut self, node: usize, lines: &[Signed<PurgeLine>]) {
        for line in lines.iter().filter(|line| is_purge_signed(line)) {
            let author = self.names.find(&line.body.node);
            for (index, purge) in self.purges.iter().enumerate() {
                let told = purge.number > 0 && purge.number <= line.body.last();
                if told && Some(purge.node) == author && !self.learned[node].contains(&index) {
                    self.learned[node].push(index);
                }
            }
        }
    }

    /// An operator purges, at one node.
    pub(super) fn purge(&mut self, index: usize, node: usize, of: (Option<&str>, Option<&str>)) {
        let account = of.0.and_then(|path| path.parse().ok());
        let scope = Scope { account, model: of.1.map(str::to_owned) };
        if !self.nodes[node].acts() || self.nodes[node].memory.cache.is_none() {
            return;
        }
        let mut number = 0;
        if self.nodes[node].version >= ANSWERS_VERSION {
            let (id, wall) = (self.id(node), self.nodes[node].now(self.now.0).wall);
            let line = self.nodes[node].memory.purges.next(id, scope.clone(), wall);
            number = line.last();
            let line = vec![sign_purge(line)];
            self.nodes[node].memory.purges.take_by(line, is_purge_signed, |_| true);
        }
        let gone = self.take_away(node, &[scope]);
        self.fired(index);
        self.record("purge", [node, index], &gone.to_be_bytes());
        self.note_purge(node, of, number);
        self.learned[node].push(self.purges.len() - 1);
        self.pass_purges_on(node, None);
    }

    /// Takes away what purges reach; how many answers were kept.
    fn take_away(&mut self, node: usize, scopes: &[Scope]) -> u64 {
        let lines = self.nodes[node].memory.purges.lines();
        self.nodes[node].disk.stored.purges = lines;
        let Some(side) = self.cache(node) else { return 0 };
        let gone = side.machine.purge(scopes);
        let waits = side.waiting.values().map(|waiting| waiting.ticket);
        let closed: Vec<Ticket> = waits.filter(|ticket| !side.machine.is_open(*ticket)).collect();
        if gone > 0 {
            self.hit(Mark::CachePurged);
        }
        for ticket in closed {
            self.tell_waiting(node, ticket, None);
        }
        gone
    }

    /// Tells all peers but the one it came from.
    fn pass_purges_on(&mut self, node: usize, from: Option<usize>) {
        for peer in (0..self.nodes.len()).filter(|peer| Some(*peer) != from) {
            if self.tells_purges(node, peer) {
                let lines = self.nodes[node].memory.purges.lines();
                self.send_reliable(node, peer, Load::Purges(lines));
            }
        }
    }

    fn tells_purges(&self, node: usize, peer: usize) -> bool {
        let link = self.nodes[node].memory.link(peer);
        self.plan.options.cache.is_some()
            && link.is_some_and(|link| link.version >= ANSWERS_VERSION)
    }

    /// Tells a peer in brief which purges a node knows.
    pub(super) fn greet_purges(&mut self, node: usize, peer: usize) {
        if self.tells_purges(node, peer) {
            let print = self.nodes[node].memory.purges.print();
            self.send_reliable(node, peer, Load::PurgesInBrief(print));
        }
    }

    /// A peer tells which purges it knows.
    pub(super) fn purges_compared(&mut self, node: usize, from: usize, theirs: Print) {
        if self.nodes[node].memory.purges.print() != theirs && self.tells_purges(node, from) {
            let lines = self.nodes[node].memory.purges.lines();
            self.send_reliable(node, from, Load::Purges(lines));
        }
    }

    /// A peer tells all purges it knows.
    pub(super) fn purges_received(
        &mut self,
        node: usize,
        from: usize,
        lines: Vec<Signed<PurgeLine>>,
    ) {
        let wall = self.nodes[node].now(self.now.0).wall;
        let sound = self.nodes[node].memory.purges.sound(lines.clone(), wall, is_purge_signed);
        self.learns(node, &sound);
        let memory = &mut self.nodes[node].memory;
        let heard = memory.purges.take_by(sound, |_| true, |_| true);
        let lacks = memory.purges.lines() != lines;
        if heard.is_new {
            self.hit(Mark::PurgeHeard);
            self.take_away(node, &heard.scopes);
            self.record("heeds", [node, from], &(heard.scopes.len() as u64).to_be_bytes());
            self.pass_purges_on(node, Some(from));
        }
        if lacks && self.tells_purges(node, from) {
            let lines = self.nodes[node].memory.purges.lines();
            self.send_reliable(node, from, Load::Purges(lines));
        }
    }

    /// After healing all nodes know the same purges.
    pub(super) fn purges_agree(&mut self) {
        if self.plan.options.cache.is_none() || self.ease() > 1 {
            return;
        }
        let whole: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.is_whole(*node) && self.nodes[*node].version >= ANSWERS_VERSION)
            .filter(|node| self.nodes[*node].acts() && self.nodes[*node].clock.is_right())
            .collect();
        for pair in whole.windows(2) {
            let print = |node: usize| self.nodes[node].memory.purges.print();
            if print(pair[0]) != print(pair[1]) {
                let known = |node: usize| self.nodes[node].memory.purges.lines().len();
                let seen = format!("{pair:?}: {} and {} lines", known(pair[0]), known(pair[1]));
                self.broken(Invariant::LivePurgesKnown, seen);
            }
        }
    }
}
