//! Anchors that are replaced: when a steward asks, who hears of it, and who dies once it was done.
//!
//! Owns the way of a wish through the simulated mesh, and what must hold of anchors that are handed
//! on. Whom a steward may ask for is [`super::super::steward`]'s, and what a node makes of what it
//! hears [`super::super::wishes`]'s.

use selvedge_base::Micros;
use selvedge_federated::round::{AnchorInput, Close, Committee, Folded, Tip};

use super::{Class, Promise, World, index_of};
use crate::federated::plan::{Wish, name};
use crate::federated::steward::asked_for;
use crate::federated::wishes::{Line, TOLD_WITHIN};

/// Between two nodes' looks at what another one has.
const SPREADS_EVERY: Micros = Micros::secs(2);
/// How often of a thousand times an anchor is told again what it knows: what takes care of a job
/// begins anew when a write fails.
const AGAIN_PERMILLE: u64 = 100;

/// What happens to wishes.
pub(super) enum Happening {
    /// A steward asks for other anchors.
    Asks(Wish),
    /// A node hears what another one has.
    Told { from: usize, to: usize, line: Line },
    /// A node looks at what another one has.
    Spreads(usize),
}

impl World<'_> {
    /// Stewards ask when the plan says so, and nodes tell each other.
    pub(super) fn begin_seats(&mut self) {
        let plan = self.plan;
        for (at, wish) in &plan.wishes {
            self.later(*at, Class::Fault, Happening::Asks(*wish));
        }
        // Where nobody will ask there is nothing to tell.
        let told = if plan.wishes.is_empty() { 0 } else { plan.nodes };
        for node in 0..told {
            self.later(Micros::millis(node as u64), Class::Node, Happening::Spreads(node));
        }
    }

    fn later(&mut self, span: Micros, class: Class, event: Happening) {
        self.after(span, class, super::Happening::Seats(event));
    }

    pub(super) fn seats(&mut self, event: Happening) {
        match event {
            Happening::Asks(wish) => self.asks(wish),
            Happening::Told { from, to, line } => self.hears(from, to, line),
            Happening::Spreads(node) => self.spreads(node),
        }
    }

    /// Whether a cut is between two nodes now, in one direction or both.
    fn are_apart(&self, one: usize, other: usize) -> bool {
        let at = Micros(self.now.0);
        self.plan.is_cut(one, other, at) || self.plan.is_cut(other, one, at)
    }

    /// A steward at the first node that is up, from a drawn one on, asks for other anchors.
    fn asks(&mut self, wish: Wish) {
        let (plan, count) = (self.plan, self.nodes.len());
        let up: Vec<usize> = (0..count).filter(|node| self.nodes[*node].is_up).collect();
        let from = (0..count).map(|at| (wish.steward + at) % count).find(|at| up.contains(at));
        let Some(steward) = from else { return self.count("nobody up to replace anchors") };
        let now = Micros(self.now.0);
        let is_reached = |node: &usize| wish.view.reaches(plan, steward, *node, now);
        let reached: Vec<usize> = up.iter().copied().filter(is_reached).collect();
        let tip = self.nodes[steward].anchor.tip().clone();
        let next = match asked_for(&plan.job, &tip, wish.fresh, &reached) {
            Ok(next) => next,
            Err(why) => return self.count(why),
        };
        let apart: Vec<usize> =
            (0..count).filter(|other| self.are_apart(steward, *other)).collect();
        match self.wishes.asks(steward, self.now, &next, |other| apart.contains(&other)) {
            Ok(seen) => seen.into_iter().for_each(|what| self.count(what)),
            Err(_) => return self.count("a steward that was behind"),
        }
        self.count("other anchors asked for");
        let is_seated = |one: &&usize| tip.committee.place(&name(**one)).is_some();
        if apart.iter().filter(is_seated).any(|one| self.nodes[*one].is_up) {
            self.count("a wish on one side of a cut");
        }
        self.hand(steward);
        for node in up.into_iter().filter(|node| *node != steward) {
            let span = Micros(self.wishes.dice.below(TOLD_WITHIN.0));
            self.tells(steward, node, span);
        }
    }

    /// What a node has goes to another one, maybe twice, if it is not lost.
    fn tells(&mut self, from: usize, to: usize, span: Micros) {
        let faulty = self.now.0 < self.until.0;
        if faulty && self.wishes.dice.chance(self.plan.loss_permille) {
            return;
        }
        let line = self.wishes.line(from);
        if faulty && self.wishes.dice.chance(self.plan.double_permille) {
            let late = span.plus(Micros(self.wishes.dice.below(TOLD_WITHIN.0)));
            let line = line.clone();
            self.later(late, Class::Network, Happening::Told { from, to, line });
        }
        self.later(span, Class::Network, Happening::Told { from, to, line });
    }

    fn hears(&mut self, from: usize, to: usize, line: Line) {
        if !self.nodes[to].is_up || self.are_apart(from, to) {
            return;
        }
        let is_new = self.wishes.takes(to, line, self.now);
        if is_new || self.wishes.dice.chance(AGAIN_PERMILLE) {
            self.hand(to);
        }
    }

    /// A node and another one come to have the same, if they reach each other.
    fn spreads(&mut self, node: usize) {
        self.later(SPREADS_EVERY, Class::Node, Happening::Spreads(node));
        self.owes();
        let count = self.nodes.len();
        let other = (node + 1 + self.wishes.dice.below(count as u64 - 1) as usize) % count;
        let are_up = self.nodes[node].is_up && self.nodes[other].is_up;
        if !are_up || self.are_apart(node, other) || !self.wishes.differ(node, other) {
            return;
        }
        for (from, to) in [(node, other), (other, node)] {
            let span = Micros(500 + self.wishes.dice.below(self.plan.delay.0));
            self.tells(from, to, span);
        }
    }

    /// A node's anchor is told of all wishes that its node knows.
    fn hand(&mut self, node: usize) {
        let is_seated = self.nodes[node].anchor.tip().committee.place(&name(node)).is_some();
        for committee in self.wishes.known(node) {
            self.step_anchor(node, AnchorInput::Reconfigured { committee });
        }
        let seen = self.wishes.handed(node, self.now, is_seated);
        seen.into_iter().for_each(|what| self.count(what));
        self.owes();
    }

    /// A node that starts is told again, from its own copy of the mesh's settings.
    pub(super) fn told(&mut self, node: usize) {
        if self.wishes.known(node).is_empty() {
            return;
        }
        self.count("wishes told again at a start");
        self.hand(node);
    }

    /// Whether all who live know the same wishes.
    pub(super) fn knows_one(&self) -> bool {
        let lives = (0..self.nodes.len()).filter(|node| !self.nodes[*node].is_dead);
        let mut known = lives.map(|node| self.wishes.known(node));
        let first = known.next();
        known.all(|one| Some(&one) == first.as_ref())
    }

    /// Nobody is further than the newest round. If all of its anchors that live know a wish for the
    /// next ones, the round after it has to end with those, or with others that came first.
    fn owes(&mut self) {
        let newest = self.nodes.iter().map(|node| node.anchor.tip()).max_by_key(|tip| tip.round);
        let Some(tip) = newest.filter(|_| !self.wishes.is_empty()) else { return };
        let seated = tip.committee.seats.iter().map(|seat| index_of(&seat.node));
        let seated: Vec<usize> = seated.filter(|node| !self.nodes[*node].is_dead).collect();
        let (round, next) = (tip.round + 1, tip.committee.epoch + 1);
        self.wishes.owes(round, next, &seated);
    }

    /// An anchor wrote down that it accepts a set.
    pub(super) fn accepted(&mut self, node: usize, close: &Close) {
        let Some(next) = &close.next else { return };
        let is_told = self.wishes.accepts(node, next);
        self.observer.require(is_told, Promise::AnchorsAsked, || {
            format!("node {node} accepts anchors of epoch {} that nobody told it of", next.epoch)
        });
    }

    /// A node came to the end of a round: who its anchors are from now on.
    pub(super) fn hands_on(&mut self, folded: &Folded, tip: &Tip) {
        let close = &folded.certificate.close;
        let (round, epoch) = (close.round, tip.committee.epoch);
        let is_one = self.wishes.follows(round, &tip.committee);
        self.observer.require(is_one, Promise::OneLineOfAnchors, || {
            format!("the anchors of epoch {epoch} after round {round} do not follow")
        });
        let due = self.wishes.due(round);
        self.observer.require(due.is_none_or(|due| due <= epoch), Promise::WishesEnd, || {
            format!(
                "all knew a wish for anchors of epoch {due:?}, and round {round} ends in {epoch}"
            )
        });
        if let Some(next) = &close.next {
            self.handed_to(next);
        }
        self.owes();
    }

    fn handed_to(&mut self, next: &Committee) {
        let is_asked = self.wishes.has_asked_for(next);
        self.observer.require(is_asked, Promise::AnchorsAsked, || {
            format!("anchors of epoch {} that nobody asked for", next.epoch)
        });
        self.count(if next.epoch > 1 { "anchors replaced again" } else { "anchors replaced" });
        if self.nodes.iter().any(|node| node.is_dead) {
            self.count("anchors replaced after a death");
        }
        if self.wishes.has_followed(next) {
            self.count("an earlier wish for anchors closed");
        }
    }

    /// One of the first anchors dies if all who live have had others: with it more of them may be
    /// dead than one set of anchors bears.
    pub(super) fn dies_late(&mut self, node: usize) {
        let lives = || self.nodes.iter().filter(|one| !one.is_dead);
        let tip = lives().map(|one| one.anchor.tip()).max_by_key(|tip| tip.committee.epoch);
        let is_new = lives().all(|one| one.anchor_disk.durable.tip.committee.epoch > 0);
        let Some(tip) = tip.filter(|_| is_new) else {
            return self.count("anchors not replaced in time");
        };
        let left = |one: &usize| *one != node && !self.nodes[*one].is_dead;
        let bears = |seats: &Committee| {
            let is_seated = |one: &usize| seats.place(&name(*one)).is_some();
            let found = (0..self.nodes.len()).filter(left).filter(is_seated).count();
            found >= self.plan.job.gathering()
        };
        // Anchors that were asked for and are none yet may still be those of the next round.
        if !bears(&tip.committee) || !self.wishes.after(tip.committee.epoch).all(bears) {
            return self.count("too few anchors for one more to die");
        }
        self.count("death");
        self.crash(node, "up until its death");
        self.dies(node);
        let first = self.plan.job.scheme.anchors();
        let dead = self.nodes.iter().take(first).filter(|one| one.is_dead).count();
        if dead > first - self.plan.job.gathering() {
            self.count("more anchors dead than one set of them bears");
        }
    }
}
