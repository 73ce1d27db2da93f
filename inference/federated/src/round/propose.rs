//! The one decision of a round: single-decree Paxos among its anchors over the closed set.
//!
//! A proposer draws a turn greater than all it knows and has a quorum promise it; the promises say
//! what was accepted before and what each anchor holds. What was accepted in the greatest turn is
//! proposed again; only if nothing was does the proposer make a set, of what all who promised hold.
//! So an anchor that is lost later was counted on, and one that was lost before was not: with no
//! more losses than the scheme allows, enough parts of every closed set remain.
//!
//! A proposer may die anywhere: what it promised itself is on its disk, and the next one in order
//! tries after a while of its own. Nothing here looks at an update.

use std::collections::BTreeMap;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono, NodeId, Now};
use selvedge_crdt::Signature;

use super::anchor::{Anchor, AnchorChange, AnchorStored, Out};
use super::canon::Canon;
use super::certificate::{Ballot, Certificate, SignedAccept};
use super::close::{Close, Header, MAX_ENTRIES};
use super::message::{Effect, Event, Message};

/// What an anchor said with its promise.
type Promised = (Option<(Ballot, Close)>, Vec<Header>);

/// How often the patience of a turn doubles while a round's turns fail: from a LAN's way there and
/// back to 16 times that, which is a satellite's.
const MAX_DOUBLINGS: u64 = 4;

/// Where the round that is next stands, as far as an anchor knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRound {
    /// Which, counted from 0: so many are over.
    pub round: u64,
    /// What it waits for.
    pub phase: Phase,
    /// Whose turn it is, or in whose the set was closed; none while nobody has one.
    pub proposer: Option<NodeId>,
    /// Nodes of which this anchor holds a contribution that may count: as many as the floor make a
    /// set. Other anchors may hold more.
    pub nodes: usize,
}

/// What an open round waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Contributions, and somebody to propose.
    Gathering,
    /// What the anchors hold: somebody asked them.
    Asking,
    /// A quorum of anchors that accept the set that somebody proposes.
    Proposing,
    /// Parts of the closed set's sum: this anchor does not hold all of the set and has none.
    Closed,
    /// The other parts of the closed set's sum: this anchor has shown its own.
    Opening,
}

impl Phase {
    /// The phase in a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gathering => "gathering",
            Self::Asking => "asking",
            Self::Proposing => "proposing",
            Self::Closed => "closed",
            Self::Opening => "opening",
        }
    }
}

/// A turn of this anchor.
#[derive(Clone, Debug)]
pub(super) struct Campaign {
    ballot: Ballot,
    /// When it proposes with a quorum, or gives up.
    until: Mono,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Waits for promises.
    Asking(BTreeMap<NodeId, Promised>),
    /// Waits for acceptances of this set.
    Proposing(Box<Close>, BTreeMap<NodeId, Signature>),
}

impl Anchor {
    /// Where the open round stands, as far as this anchor knows; none once the job is done, and
    /// where it is no anchor of the round.
    pub fn open_round(&self) -> Option<OpenRound> {
        let AnchorStored { tip, promised, accepted, opened, .. } = &self.stored;
        if tip.round >= self.job.rounds || !self.is_seated() {
            return None;
        }
        // A turn of its own that it gave up, or that a crash ended, is nobody's.
        let others = promised.filter(|ballot| ballot.by != self.me);
        let (phase, proposer) = match (opened, &self.campaign, others) {
            (Some(closed), ..) => {
                let phase = if self.shown.is_some() { Phase::Opening } else { Phase::Closed };
                (phase, Some(closed.ballot.by))
            }
            (None, Some(campaign), _) => {
                let phase = match campaign.stage {
                    Stage::Asking(_) => Phase::Asking,
                    Stage::Proposing(..) => Phase::Proposing,
                };
                (phase, Some(self.me))
            }
            (None, None, Some(turn)) => {
                let is_told = accepted.as_ref().is_some_and(|(ballot, _)| *ballot == turn);
                (if is_told { Phase::Proposing } else { Phase::Asking }, Some(turn.by))
            }
            (None, None, None) => (Phase::Gathering, None),
        };
        Some(OpenRound { round: tip.round, phase, proposer, nodes: self.fresh().0 })
    }

    /// This anchor's place in the order in which they try in this round, which changes with each.
    fn rank(&self) -> u64 {
        let lot = |node: &NodeId| {
            Canon::of("selvedge federated rank")
                .fixed(&self.stored.tip.record)
                .fixed(&node.0)
                .digest()
        };
        let own = lot(&self.me);
        self.anchors().iter().filter(|node| lot(node) < own).count() as u64
    }

    /// What is here that may count now: of how many nodes, and how many contributions.
    fn fresh(&self) -> (usize, usize) {
        let tip = &self.stored.tip;
        let oldest = self.job.max_staleness();
        let counts = |header: &Header| tip.round.saturating_sub(header.base_round) <= oldest;
        let nodes: Vec<NodeId> = self
            .stored
            .held
            .values()
            .filter(|held| counts(&held.header))
            .map(|held| held.header.id.client.node)
            .collect();
        // In order of clients, so those of a node are beside each other.
        let most = usize::from(self.job.per_node);
        let of_nodes = nodes.chunk_by(PartialEq::eq).map(|own| own.len().min(most));
        of_nodes.fold((0, 0), |(nodes, all), own| (nodes + 1, all + own))
    }

    /// What this anchor does about the decision as time passes.
    pub(super) fn decide(&mut self, now: Now, out: &mut Out) {
        let pace = self.job.pace;
        if self.since.is_none() {
            self.since = Some(now.mono);
            self.try_at = now.mono.plus(pace.stagger.times(self.rank()));
        }
        if self.stored.tip.round >= self.job.rounds {
            return;
        }
        if let Some(campaign) = &self.campaign {
            return if now.mono < campaign.until {
                self.say_again(out);
            } else {
                self.end_stage(now, out);
            };
        }
        if now.mono < self.try_at {
            return;
        }
        let waited = self.since.map_or(Micros::ZERO, |since| now.mono.since(since));
        let (nodes, contributions) = self.fresh();
        let reaches_floor = nodes >= self.job.floor();
        // Others may hold more than this anchor; one that just came to its place holds nothing. So
        // it tries after some time even if it cannot see that it will do.
        let is_enough = contributions >= self.job.target || waited >= pace.patience;
        let is_ready = (reaches_floor && is_enough) || waited >= pace.patience.times(4);
        if is_ready {
            self.begin(now, out);
        }
    }

    fn begin(&mut self, now: Now, out: &mut Out) {
        let known = self.stored.promised.map_or(0, |ballot| ballot.number);
        // Nobody comes to the greatest number in any job's life; whoever claims it takes no turn.
        let Some(number) = known.checked_add(1) else { return };
        let ballot = Ballot { number, by: self.me };
        self.tries += 1;
        // Its own promise first, so that after a crash it does not take the same turn again.
        self.change(AnchorChange::Promised(ballot), out);
        let stage = Stage::Asking(BTreeMap::new());
        self.campaign = Some(Campaign { ballot, until: self.later(now, 1), stage });
        self.say_again(out);
    }

    /// Says to all again what the present stage is about.
    fn say_again(&mut self, out: &mut Out) {
        let Some(campaign) = &self.campaign else { return };
        let (message, done): (Message, Vec<NodeId>) = match &campaign.stage {
            Stage::Asking(promises) => {
                let round = self.stored.tip.round;
                let message = Message::Prepare { round, ballot: campaign.ballot };
                (message, promises.keys().copied().collect())
            }
            Stage::Proposing(close, accepts) => {
                let (ballot, close) = (campaign.ballot, close.clone());
                (Message::Propose { ballot, close }, accepts.keys().copied().collect())
            }
        };
        for anchor in self.anchors() {
            if !done.contains(&anchor) {
                self.outbox.send(anchor, message.clone(), out);
            }
        }
    }

    /// The time of a stage is over: it proposes with a quorum, or tries later.
    fn end_stage(&mut self, now: Now, out: &mut Out) {
        let Some(campaign) = &self.campaign else { return };
        match &campaign.stage {
            Stage::Asking(promises) if promises.len() >= self.job.gathering() => {
                self.put_forward(now, out);
            }
            Stage::Asking(_) | Stage::Proposing(..) => self.give_up(now),
        }
    }

    /// When a turn has had its time, which doubles with every turn of the round: it may be shorter
    /// than the way to the others. The number of turns is on disk, so a crash does not forget it.
    fn later(&self, now: Now, turns: u64) -> Mono {
        let before = self.stored.promised.map_or(0, |ballot| ballot.number.saturating_sub(1));
        let doubled = self.job.pace.gather.times(1 << before.min(MAX_DOUBLINGS));
        now.mono.plus(doubled.times(turns))
    }

    fn give_up(&mut self, now: Now) {
        self.campaign = None;
        let anchors = self.job.scheme.anchors() as u64;
        let turns = 1 + (self.rank() + self.tries) % anchors;
        self.try_at = self.later(now, 1).plus(self.job.pace.stagger.times(turns));
    }

    /// Another anchor asks for a promise.
    pub(super) fn prepare(
        &mut self,
        now: Now,
        from: NodeId,
        round: u64,
        ballot: Ballot,
        out: &mut Out,
    ) {
        if round != self.stored.tip.round {
            return self.catch_up(from, round, out);
        }
        if ballot.by != from || self.stored.tip.committee.place(&from).is_none() {
            return;
        }
        if let Some(opened) = self.stored.opened.clone() {
            return self.outbox.send(from, Message::Closed(Box::new(opened)), out);
        }
        if let Some(promised) = self.stored.promised.filter(|promised| *promised > ballot) {
            return self.outbox.send(from, Message::Behind { round, promised }, out);
        }
        if self.stored.promised != Some(ballot) {
            self.change(AnchorChange::Promised(ballot), out);
        }
        if from != self.me {
            // It has its turn now; this anchor's, if it has one, cannot succeed any more.
            self.campaign = None;
            let after = self.later(now, 2).plus(self.job.pace.stagger.times(self.rank()));
            self.try_at = self.try_at.max(after);
        }
        let accepted = self.stored.accepted.clone();
        let accepted = accepted.filter(|_| !plant::is_on(Plant::AcceptedUntold));
        let accepted = accepted.map(|(ballot, close)| (ballot, Box::new(close)));
        let held = self.stored.held.values().map(|held| held.header).take(MAX_ENTRIES).collect();
        self.outbox.send(from, Message::Promise { round, ballot, accepted, held }, out);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn promise(
        &mut self,
        now: Now,
        from: NodeId,
        round: u64,
        ballot: Ballot,
        accepted: Option<(Ballot, Close)>,
        held: Vec<Header>,
        out: &mut Out,
    ) {
        if round != self.stored.tip.round {
            return self.catch_up(from, round, out);
        }
        let is_seated = self.stored.tip.committee.place(&from).is_some();
        let all = self.anchors().len();
        let Some(campaign) = self.campaign.as_mut().filter(|one| one.ballot == ballot) else {
            return;
        };
        let Stage::Asking(promises) = &mut campaign.stage else { return };
        if !is_seated || held.len() > MAX_ENTRIES {
            return;
        }
        // Whoever proposed this would be named for what the one that promised made up.
        let wrong = accepted.as_ref().map(|(_, close)| close.check(&self.job, &self.stored.tip));
        if let Some(Err(why)) = wrong {
            let what = format!("word that it accepted a set that cannot be closed: {why}");
            return out.push(Effect::Report(Event::Misdeed { by: from, what }));
        }
        promises.insert(from, (accepted, held));
        if promises.len() == all {
            self.put_forward(now, out);
        }
    }

    /// Proposes what was accepted before, or a set of what all who promised hold.
    fn put_forward(&mut self, now: Now, out: &mut Out) {
        let next = self.stored.tip.committee.epoch.checked_add(1);
        let last = self.wanted.iter().rev().find(|wanted| Some(wanted.epoch) == next);
        let wanted = last.cloned();
        let until = self.later(now, 1);
        let Some(campaign) = &mut self.campaign else { return };
        let Stage::Asking(promises) = &campaign.stage else { return };
        let before = promises.values().filter_map(|(accepted, _)| accepted.as_ref());
        let close = match before.max_by_key(|(ballot, _)| *ballot) {
            Some((_, close)) => close.clone(),
            None => {
                let held: Vec<&[Header]> =
                    promises.values().map(|(_, held)| held.as_slice()).collect();
                let close = Close::gathered(&self.job, &self.stored.tip, &held, wanted);
                let (round, found) = (close.round, close.nodes());
                if found < self.job.floor() && !plant::is_on(Plant::PrivacyFloorIgnored) {
                    out.push(Effect::Report(Event::BelowFloor { round, found }));
                    return self.give_up(now);
                }
                close
            }
        };
        campaign.stage = Stage::Proposing(Box::new(close), BTreeMap::new());
        campaign.until = until;
        self.say_again(out);
    }

    /// Somebody promised a greater turn.
    pub(super) fn behind(
        &mut self,
        now: Now,
        from: NodeId,
        round: u64,
        promised: Ballot,
        out: &mut Out,
    ) {
        if round != self.stored.tip.round {
            return self.catch_up(from, round, out);
        }
        let is_beaten = self.campaign.as_ref().is_some_and(|one| one.ballot < promised);
        if is_beaten && self.stored.tip.committee.place(&from).is_some() {
            self.give_up(now);
            // So that its next turn is greater. No promise to anybody: the turn is another's, and
            // promising more than was asked for is always safe, once it is durable.
            if self.stored.promised < Some(promised) {
                self.change(AnchorChange::Promised(promised), out);
            }
        }
    }

    /// Another anchor proposes a set.
    pub(super) fn propose(&mut self, from: NodeId, ballot: Ballot, close: Close, out: &mut Out) {
        let round = self.stored.tip.round;
        if close.round != round {
            return self.catch_up(from, close.round, out);
        }
        if ballot.by != from || self.stored.tip.committee.place(&from).is_none() {
            return;
        }
        if let Some(opened) = self.stored.opened.clone() {
            return self.outbox.send(from, Message::Closed(Box::new(opened)), out);
        }
        let is_behind = |promised: &Ballot| *promised > ballot;
        let promised = self.stored.promised.filter(is_behind);
        if let Some(promised) = promised.filter(|_| !plant::is_on(Plant::PromiseForgotten)) {
            return self.outbox.send(from, Message::Behind { round, promised }, out);
        }
        if let Err(why) = close.check(&self.job, &self.stored.tip) {
            let what = format!("a set that cannot be closed: {why}");
            return out.push(Effect::Report(Event::Misdeed { by: from, what }));
        }
        // Else one anchor that lies could hand the job to whom it likes. The wish may be on its way
        // here; the set is proposed again until it is.
        if close.next.as_ref().is_some_and(|next| !self.wanted.contains(next)) {
            return out.push(Effect::Report(Event::Unasked { by: from, round }));
        }
        let digest = close.digest();
        if self.stored.accepted.as_ref() != Some(&(ballot, close.clone())) {
            self.change(AnchorChange::Accepted(ballot, Box::new(close.clone())), out);
        }
        let job = self.stored.tip.job;
        let accept = SignedAccept::sign(&job, round, ballot, digest, self.me, &*self.seal);
        self.outbox.send(from, Message::Accepted(accept), out);
        if plant::is_on(Plant::OpenedUncertified) {
            self.part_of(&close).iter().for_each(|opening| self.tell_part(opening, out));
        }
    }

    /// An anchor accepted this one's set.
    pub(super) fn accepted(&mut self, from: NodeId, accept: SignedAccept, out: &mut Out) {
        if accept.round != self.stored.tip.round {
            return self.catch_up(from, accept.round, out);
        }
        let is_seated = self.stored.tip.committee.place(&from).is_some();
        let is_good = is_seated
            && accept.anchor == from
            && accept.is_signed(&self.stored.tip.job, &*self.seal);
        let wanted = if plant::is_on(Plant::MinorityCloses) { 1 } else { self.job.quorum() };
        let Some(campaign) = self.campaign.as_mut().filter(|one| one.ballot == accept.ballot)
        else {
            return;
        };
        let Stage::Proposing(close, accepts) = &mut campaign.stage else { return };
        if !is_good || accept.close != close.digest() {
            return;
        }
        accepts.insert(from, accept.signature);
        if accepts.len() < wanted {
            return;
        }
        let accepts = accepts.iter().map(|(anchor, signature)| (*anchor, *signature)).collect();
        let certificate = Certificate { close: (**close).clone(), ballot: accept.ballot, accepts };
        for anchor in self.anchors() {
            if anchor != self.me {
                let message = Message::Closed(Box::new(certificate.clone()));
                self.outbox.send(anchor, message, out);
            }
        }
        self.closed(self.me, certificate, out);
    }
}
