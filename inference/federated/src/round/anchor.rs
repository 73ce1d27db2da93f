//! The anchor: keeps shares, closes sets with the others, opens and folds.
//!
//! Owns what an anchor has on disk and all of its steps but the decision, which is `propose`'s.
//! A receipt, a promise, an acceptance and a part of a sum are each written down before they are
//! said. An anchor that is in no committee yet, or no more, follows the chain and tells it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Machine, Mono, NodeId, Now};
use selvedge_crdt::escrow::Seal;
use serde::{Deserialize, Serialize};

use super::Digest;
use super::certificate::{Ballot, Certificate, Receipt};
use super::client::{challenge, commitment, context, payload_digest, sharing_digest};
use super::close::{Close, ContributionId, Entry, Header};
use super::hearsay::{Hearsay, Word};
use super::job::{Committee, Job, MAX_CLIENTS, Mode};
use super::message::{Effect, Event, Message, Payload, Refused};
use super::outbox::{Outbox, SEND_AGAIN};
use super::parts::{self, Parts, Sorted, Took};
use super::propose::Campaign;
use super::tip::{Folded, Opening, Partial, Tip};
use super::wishes;
use crate::field::Fp;
use crate::fixed::{UpdateError, to_field};
use crate::proof::{CHECKS, is_proven};
use crate::seal::OpeningKey;
use crate::shamir::add_weighted;

/// Contributions of one client that an anchor holds: the last store's, and one of the store before.
/// A node has as many as its clients that the job counts have together.
const MAX_HELD: usize = 2;

/// A contribution as an anchor has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What is public.
    pub header: Header,
    /// Its share; all of the update in a job without shares.
    pub share: Vec<Fp>,
}

/// What an anchor has on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorStored {
    /// The chain.
    pub tip: Tip,
    /// Contributions that are not over; at most [`MAX_CLIENTS`].
    pub held: BTreeMap<ContributionId, Held>,
    /// In this round: the greatest turn promised.
    pub promised: Option<Ballot>,
    /// In this round: what was accepted last.
    pub accepted: Option<(Ballot, Close)>,
    /// In this round: the set whose sum this anchor may show a part of.
    pub opened: Option<Certificate>,
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnchorChange {
    /// A contribution is held.
    Held(Held),
    /// A turn is promised.
    Promised(Ballot),
    /// A set is accepted.
    Accepted(Ballot, Box<Close>),
    /// A set is closed, and its sum may be opened here.
    Opened(Box<Certificate>),
    /// A round is over.
    Folded(Box<Folded>),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum AnchorInput {
    /// A message came.
    Received {
        /// From whom; the transport proved it.
        from: NodeId,
        /// The message.
        message: Box<Message>,
    },
    /// A write is durable.
    Stored {
        /// Its number.
        write: u64,
    },
    /// The operator wants other anchors; they take over with the next set that is closed here, or,
    /// where theirs is a later set of anchors than the next one, after those before them. Of
    /// several wishes the last one told is proposed, and each of them is accepted: no anchor hands
    /// the job to others that it was not told of.
    Reconfigured {
        /// Which.
        committee: Committee,
    },
    /// Time passed.
    Ticked,
}

pub(super) type Out = Vec<Effect<AnchorChange>>;

/// The machine of one anchor in one job.
pub struct Anchor {
    pub(super) job: Arc<Job>,
    pub(super) me: NodeId,
    pub(super) seal: Arc<dyn Seal>,
    key: OpeningKey,
    pub(super) stored: AnchorStored,
    pub(super) outbox: Outbox,
    /// This anchor's part of the closed set's sum, once it was made.
    pub(super) shown: Option<Opening>,
    /// Parts of this round's sum.
    parts: Parts,
    hearsay: Hearsay,
    pub(super) campaign: Option<Campaign>,
    /// Who shall be the next anchors, the last wish at the end.
    pub(super) wanted: Vec<Committee>,
    /// Proposals of this anchor in this round.
    pub(super) tries: u64,
    pub(super) since: Option<Mono>,
    pub(super) try_at: Mono,
    next_tick: Mono,
    ticks: usize,
    asked: usize,
}

impl AnchorStored {
    /// An anchor that knows the beginning of a job.
    pub const fn new(tip: Tip) -> Self {
        let held = BTreeMap::new();
        Self { tip, held, promised: None, accepted: None, opened: None }
    }

    /// What a write changes. A round that does not follow changes nothing.
    pub fn apply(&mut self, job: &Job, change: &AnchorChange, seal: &dyn Seal) {
        match change {
            AnchorChange::Held(held) => {
                self.held.insert(held.header.id, held.clone());
            }
            AnchorChange::Promised(ballot) => self.promised = Some(*ballot),
            AnchorChange::Accepted(ballot, close) => {
                self.promised = self.promised.max(Some(*ballot));
                self.accepted = Some((*ballot, (**close).clone()));
            }
            AnchorChange::Opened(certificate) => self.opened = Some((**certificate).clone()),
            AnchorChange::Folded(folded) => {
                if let Ok(tip) = self.tip.fold(job, folded, seal) {
                    self.follow(job, tip);
                }
            }
        }
    }

    fn follow(&mut self, job: &Job, tip: Tip) {
        self.held.retain(|_, held| {
            let carried = held.header.goes_on(job, &tip);
            let forgotten = plant::is_on(Plant::CarriedForgotten);
            carried && !forgotten
        });
        *self = Self { held: std::mem::take(&mut self.held), ..Self::new(tip) };
    }

    /// What counts of this set in an anchor's part, if it holds all of it.
    fn partial(&self, job: &Job, close: &Close) -> Option<Partial> {
        let share = |entry: &Entry| {
            let held = self.held.get(&entry.header.id)?;
            (held.header == entry.header).then_some((entry.weight, held.share.as_slice()))
        };
        match job.mode {
            Mode::Secure => {
                let len = job.scheme.share_len(job.payload_len());
                let mut parts = vec![Fp::ZERO; job.part_len()];
                for (sum, group) in parts.chunks_exact_mut(len.max(1)).zip(close.groups(job)) {
                    for entry in group {
                        let (weight, share) = share(entry)?;
                        add_weighted(sum, share, weight);
                    }
                }
                Some(Partial::Shares(parts))
            }
            Mode::Plain(rule) => {
                let shares: Vec<(u32, &[Fp])> =
                    close.entries.iter().map(share).collect::<Option<_>>()?;
                let level = |element: &Fp| element.signed() as i32;
                let levels: Vec<Vec<i32>> =
                    shares.iter().map(|(_, share)| share.iter().map(level).collect()).collect();
                let updates: Vec<(u32, &[i32])> = shares
                    .iter()
                    .zip(&levels)
                    .map(|((weight, _), levels)| (*weight, levels.as_slice()))
                    .collect();
                Some(Partial::Open(rule.aggregate(&updates, job.payload_len())))
            }
        }
    }
}

impl Anchor {
    /// An anchor as its disk has it; `job` has passed its check.
    pub fn new(
        job: Arc<Job>,
        me: NodeId,
        key: OpeningKey,
        seal: Arc<dyn Seal>,
        stored: AnchorStored,
    ) -> Self {
        Self {
            job,
            me,
            seal,
            key,
            stored,
            outbox: Outbox::default(),
            shown: None,
            parts: Parts::default(),
            hearsay: Hearsay::default(),
            campaign: None,
            wanted: Vec::new(),
            tries: 0,
            since: None,
            try_at: Mono(0),
            next_tick: Mono(0),
            ticks: 0,
            asked: 0,
        }
    }

    /// The chain, as far as it followed it.
    pub const fn tip(&self) -> &Tip {
        &self.stored.tip
    }

    /// What it has, or will have, on disk.
    pub const fn stored(&self) -> &AnchorStored {
        &self.stored
    }

    /// Whether the job is done: nothing is to be said of it but to those who ask.
    fn has_ended(&self) -> bool {
        self.stored.tip.round >= self.job.rounds
    }

    /// Whether it is an anchor of the next round.
    pub(super) fn is_seated(&self) -> bool {
        self.stored.tip.committee.place(&self.me).is_some()
    }

    /// All anchors, this one too.
    pub(super) fn anchors(&self) -> Vec<NodeId> {
        self.stored.tip.committee.seats.iter().map(|seat| seat.node).collect()
    }

    /// What is stored changes, here and on the disk alike.
    pub(super) fn change(&mut self, change: AnchorChange, out: &mut Out) {
        self.stored.apply(&self.job, &change, &*self.seal);
        self.outbox.store(change, out);
    }

    fn share(
        &mut self,
        from: NodeId,
        header: Header,
        digests: &[Digest],
        payload: &Payload,
        out: &mut Out,
    ) {
        let id = header.id;
        match self.take(from, header, digests, payload) {
            Ok(None) => {}
            Ok(Some(held)) => {
                if plant::is_on(Plant::ReceiptBeforeStored) {
                    self.receipt(from, &header, out);
                }
                self.change(AnchorChange::Held(held), out);
            }
            Err(why) => {
                out.push(Effect::Report(Event::Refused { id, from, why }));
                return self.outbox.send(from, Message::Refused { id, why }, out);
            }
        }
        self.receipt(from, &header, out);
    }

    fn receipt(&mut self, to: NodeId, header: &Header, out: &mut Out) {
        let receipt = Receipt::sign(&self.stored.tip.job, header, self.me, &*self.seal);
        self.outbox.send(to, Message::Receipt(receipt), out);
    }

    /// What is to be held of a contribution; nothing when it is held already.
    fn take(
        &self,
        from: NodeId,
        header: Header,
        digests: &[Digest],
        payload: &Payload,
    ) -> Result<Option<Held>, Refused> {
        let AnchorStored { tip, held, .. } = &self.stored;
        let id = header.id;
        if id.client.node != from {
            return Err(Refused::Sender);
        }
        let place = tip.committee.place(&self.me).ok_or(Refused::NoAnchor)?;
        if header.epoch != tip.committee.epoch {
            return Err(Refused::Epoch(tip.committee.epoch));
        }
        let last = tip.last(&id.client);
        if id.seq <= last {
            return Err(Refused::Replayed { last });
        }
        let in_turn = if self.job.follows_norm() {
            header.base_round == tip.round && header.is_one_a_round()
        } else {
            id.seq == last + 1 && header.base_round <= tip.round
        };
        if !in_turn {
            return Err(Refused::Ahead { round: tip.round });
        }
        if let Some(held) = held.get(&id) {
            return if held.header == header { Ok(None) } else { Err(Refused::Bound) };
        }
        if header.examples == 0 {
            return Err(UpdateError::Empty.into());
        }
        let is_known = tip.done.contains_key(&id.client);
        let new = held.keys().filter(|id| !tip.done.contains_key(&id.client)).count();
        let own = held.keys().filter(|id| id.client.node == from).count();
        let most = MAX_HELD * usize::from(self.job.per_node);
        let is_full = held.len() >= MAX_CLIENTS || own >= most;
        if is_full || (!is_known && tip.done.len() + new >= MAX_CLIENTS) {
            return Err(Refused::Full);
        }
        let is_named = digests.len() == tip.committee.seats.len()
            && digests.get(place) == Some(&payload_digest(payload))
            && sharing_digest(digests, payload.proof()) == header.sharing;
        if !is_named {
            return Err(Refused::Digest);
        }
        self.open(header, place, digests, payload).map(Some)
    }

    fn open(
        &self,
        header: Header,
        place: usize,
        digests: &[Digest],
        payload: &Payload,
    ) -> Result<Held, Refused> {
        let (job, name) = (&self.job, &self.stored.tip.job);
        let (share, wanted) = match (job.mode, job.guard, payload) {
            (Mode::Secure, None, Payload::Sealed(sealed)) => {
                let share = self.unsealed(&header, place, sealed)?;
                (share, job.scheme.share_len(job.payload_len()))
            }
            (Mode::Secure, Some(_), Payload::Proven { sealed, proof }) => {
                let mut share = self.unsealed(&header, place, sealed)?;
                let wanted = job.scheme.share_len(job.payload_len());
                if share.len() != wanted + CHECKS {
                    let found = share.len();
                    return Err(UpdateError::Length { found, wanted: wanted + CHECKS }.into());
                }
                let challenge = challenge(name, &header, digests);
                if !is_proven(job.scheme, place, &share, proof, &challenge) {
                    return Err(Refused::Unproven);
                }
                share.truncate(wanted);
                (share, wanted)
            }
            (Mode::Plain(_), _, Payload::Open { levels, salt }) => {
                let Header { id, base_round, examples, .. } = &header;
                let bound = commitment(name, id, *base_round, *examples, salt, levels);
                if bound != header.commitment {
                    return Err(Refused::Digest);
                }
                (to_field(levels, job.level_max())?, job.payload_len())
            }
            (Mode::Secure, Some(_), Payload::Sealed(_)) => return Err(Refused::Unproven),
            (Mode::Secure, _, Payload::Open { .. })
            | (Mode::Secure, None, Payload::Proven { .. })
            | (Mode::Plain(_), _, Payload::Sealed(_) | Payload::Proven { .. }) => {
                return Err(Refused::Sealed);
            }
        };
        if share.len() != wanted {
            return Err(UpdateError::Length { found: share.len(), wanted }.into());
        }
        Ok(Held { header, share })
    }

    /// The share that is sealed to this anchor.
    fn unsealed(&self, header: &Header, place: usize, sealed: &[u8]) -> Result<Vec<Fp>, Refused> {
        let context = context(&self.stored.tip.job, &header.id, header.epoch, place);
        self.key.open(sealed, &context).map_err(|_| Refused::Sealed)
    }

    /// A set is closed: this anchor writes down which, and then shows its part.
    pub(super) fn closed(&mut self, from: NodeId, certificate: Certificate, out: &mut Out) {
        self.confirm(from, &certificate, out);
        let round = self.stored.tip.round;
        if certificate.close.round != round {
            return self.catch_up(from, certificate.close.round, out);
        }
        if let Some(opened) = &self.stored.opened {
            if opened.close != certificate.close {
                let what = "another set of a round that is closed".to_owned();
                out.push(Effect::Report(Event::Misdeed { by: from, what }));
            }
            return;
        }
        if let Err(why) = certificate.check(&self.job, &self.stored.tip, &*self.seal) {
            let what = why.to_string();
            return out.push(Effect::Report(Event::Misdeed { by: from, what }));
        }
        self.campaign = None;
        let entries = certificate.close.entries.len();
        self.change(AnchorChange::Opened(Box::new(certificate)), out);
        out.push(Effect::Report(Event::Closed { round, entries }));
        self.show(out);
    }

    /// Shows this anchor's part of the closed set to all anchors, if it holds all of the set.
    fn show(&mut self, out: &mut Out) {
        if self.shown.is_none() {
            let opened = self.stored.opened.as_ref();
            self.shown = opened.and_then(|opened| self.part_of(&opened.close));
        }
        if let Some(opening) = self.shown.clone() {
            self.tell_part(&opening, out);
        }
    }

    /// Tells a part to all anchors, this one too.
    pub(super) fn tell_part(&mut self, opening: &Opening, out: &mut Out) {
        for anchor in self.anchors() {
            self.outbox.send(anchor, Message::Opened(Box::new(opening.clone())), out);
        }
    }

    /// This anchor's part of a set, if it is one of the anchors and holds all of it.
    pub(super) fn part_of(&self, close: &Close) -> Option<Opening> {
        let partial = self.stored.partial(&self.job, close).filter(|_| self.is_seated())?;
        let Tip { job, round, .. } = &self.stored.tip;
        Some(Opening::sign(job, *round, close.digest(), self.me, partial, &*self.seal))
    }

    fn opened(&mut self, from: NodeId, opening: Opening, out: &mut Out) {
        let Tip { job, round, committee, .. } = &self.stored.tip;
        if opening.round != *round {
            return self.catch_up(from, opening.round, out);
        }
        let Some(certificate) = &self.stored.opened else {
            return self.outbox.send(from, Message::Ask { round: *round }, out);
        };
        // Others' as well: those who have few tell each other all of them.
        let is_good = committee.place(&from).is_some()
            && committee.place(&opening.anchor).is_some()
            && opening.close == certificate.close.digest()
            && opening.partial.fits(&self.job)
            && opening.is_signed(job, &*self.seal);
        if !is_good {
            let what = "a part of a sum that does not belong to the set".to_owned();
            return out.push(Effect::Report(Event::Misdeed { by: from, what }));
        }
        if self.takes(from, &opening, out) {
            self.fold_parts(out);
        }
    }

    /// Takes a part that belongs to the set; whether it changes anything.
    fn takes(&mut self, from: NodeId, part: &Opening, out: &mut Out) -> bool {
        let took = self.parts.take(from, part);
        if let Took::Lie(before) = &took {
            let what = "two parts of one sum".to_owned();
            out.push(Effect::Report(Event::Misdeed { by: part.anchor, what }));
            // Others saw one of the two, maybe: both together show it to all.
            for anchor in self.anchors() {
                if anchor != self.me && anchor != part.anchor {
                    for part in [&**before, part] {
                        self.outbox.send(anchor, Message::Opened(Box::new(part.clone())), out);
                    }
                }
            }
        }
        took != Took::Known
    }

    /// Ends the round with the parts there are, if they are enough and agree.
    fn fold_parts(&mut self, out: &mut Out) {
        let Some(certificate) = self.stored.opened.clone() else { return };
        let round = self.stored.tip.round;
        match self.parts.look(&self.job, &self.stored.tip.committee, &self.me) {
            Sorted::Waits => {
                if self.parts.is_to_tell(&self.job, &self.stored.tip.committee) {
                    self.tell_parts(out);
                }
            }
            Sorted::Disagree => out.push(Effect::Report(Event::Disagree { round })),
            Sorted::Agree { parts, wrong } => {
                for by in wrong {
                    let what = "a part of a sum that does not fit the other parts".to_owned();
                    out.push(Effect::Report(Event::Misdeed { by, what }));
                }
                self.ends(self.me, Folded { certificate, openings: parts }, true, out);
            }
        }
    }

    /// Tells those who showed a part those of the others: who shows two of one sum is found out.
    fn tell_parts(&mut self, out: &mut Out) {
        for part in self.parts.all() {
            for anchor in self.parts.anchors() {
                if anchor != self.me && anchor != part.anchor {
                    self.outbox.send(anchor, Message::Opened(Box::new(part.clone())), out);
                }
            }
        }
    }

    fn folded(&mut self, from: NodeId, folded: Folded, out: &mut Out) {
        self.confirm(from, &folded.certificate, out);
        self.ends(from, folded, from == self.me, out);
    }

    /// A round was closed: an end of the one before that it was closed on top of is believed.
    fn confirm(&mut self, from: NodeId, certificate: &Certificate, out: &mut Out) {
        if let Some(end) = self.hearsay.before(certificate, &self.job, &*self.seal) {
            self.ends(from, end, true, out);
        }
    }

    /// Somebody tells an end of a round, or this anchor found it itself.
    fn ends(&mut self, from: NodeId, folded: Folded, is_known: bool, out: &mut Out) {
        let round = folded.certificate.close.round;
        if round < self.stored.tip.round {
            // An answer that came twice: its sender is not behind, and must not be answered.
            return;
        }
        if round > self.stored.tip.round {
            return self.catch_up(from, round, out);
        }
        let folds = self.stored.tip.fold_telling(&self.job, &folded, &*self.seal);
        let (tip, left_out) = match folds {
            Ok(folds) => folds,
            Err(why) => {
                let what = why.to_string();
                return out.push(Effect::Report(Event::Misdeed { by: from, what }));
            }
        };
        let record = tip.record;
        if !is_known && !self.is_believed(from, &folded, &tip, out) {
            return;
        }
        self.hearsay.end();
        if !left_out.is_empty() {
            out.push(Effect::Report(Event::LeftOut { round, ids: left_out }));
        }
        self.wanted.retain(|wanted| wanted.epoch > tip.committee.epoch);
        if tip.committee.epoch != self.stored.tip.committee.epoch || self.job.follows_norm() {
            // What these would say is held is not, from here on: its client shares once more, or
            // passes over it.
            self.outbox.retain(|message| !matches!(message, Message::Receipt(_)));
        }
        self.stored.follow(&self.job, tip);
        self.parts.end();
        self.shown = None;
        self.campaign = None;
        self.tries = 0;
        self.since = None;
        // Not by `change`: what it proves was worked out above.
        self.outbox.store(AnchorChange::Folded(Box::new(folded)), out);
        out.push(Effect::Report(Event::Folded { round, record }));
    }

    /// Whether a round is over as somebody says: its parts show it, or another anchor said so too.
    /// An anchor of the round looks at the parts itself, beside its own and others: whoever told
    /// them may have gone on, and shows its part no more.
    fn is_believed(&mut self, from: NodeId, folded: &Folded, tip: &Tip, out: &mut Out) -> bool {
        if parts::is_shown(&self.job, folded) {
            return true;
        }
        let is_anchor = self.known().contains(&from);
        let word = self.hearsay.hears((from, is_anchor), folded, tip);
        if word == Word::First {
            // Who has gone on tells what was closed on top of it.
            let round = tip.round;
            self.outbox.send(from, Message::Ask { round }, out);
            self.ask_next(out);
        }
        if word == Word::Seconded || !self.is_seated() {
            return word == Word::Seconded;
        }
        if self.stored.opened.is_none() {
            self.closed(from, folded.certificate.clone(), out);
        }
        let opened = self.stored.opened.as_ref();
        if opened.is_some_and(|opened| opened.close == folded.certificate.close) {
            let is_seat = self.stored.tip.committee.place(&from).is_some();
            for part in &folded.openings {
                // Whoever else tells a part, its anchor signed it.
                self.takes(if is_seat { from } else { part.anchor }, part, out);
            }
            self.fold_parts(out);
        }
        false
    }

    /// Somebody is in another round: who is behind is told, who is ahead is asked.
    pub(super) fn catch_up(&mut self, from: NodeId, theirs: u64, out: &mut Out) {
        let ours = self.stored.tip.round;
        if theirs < ours {
            out.push(Effect::Replay { to: from, round: theirs });
        } else if theirs > ours {
            self.outbox.send(from, Message::Ask { round: ours }, out);
        }
    }

    fn asked(&mut self, from: NodeId, round: u64, out: &mut Out) {
        if round < self.stored.tip.round {
            return out.push(Effect::Replay { to: from, round });
        }
        let Some(opened) = self.stored.opened.clone().filter(|one| one.close.round == round) else {
            return;
        };
        if self.stored.tip.committee.place(&from).is_some() {
            self.outbox.send(from, Message::Closed(Box::new(opened)), out);
        }
    }

    fn receive(&mut self, now: Now, from: NodeId, message: Message, out: &mut Out) {
        self.parts.heard_of(from, &self.stored.tip.committee);
        match message {
            Message::Share { header, digests, payload } => {
                self.share(from, header, &digests, &payload, out);
            }
            Message::Prepare { round, ballot } => self.prepare(now, from, round, ballot, out),
            Message::Promise { round, ballot, accepted, held } => {
                let accepted = accepted.map(|(ballot, close)| (ballot, *close));
                self.promise(now, from, round, ballot, accepted, held, out);
            }
            Message::Behind { round, promised } => self.behind(now, from, round, promised, out),
            Message::Propose { ballot, close } => self.propose(from, ballot, *close, out),
            Message::Accepted(accept) => self.accepted(from, accept, out),
            Message::Closed(certificate) => self.closed(from, *certificate, out),
            Message::Opened(opening) => self.opened(from, *opening, out),
            Message::Ask { round } => self.asked(from, round, out),
            Message::Folded(folded) => self.folded(from, *folded, out),
            Message::Receipt(_) | Message::Refused { .. } => {}
        }
    }

    /// Other anchors, of the first round and of this one.
    fn known(&self) -> Vec<NodeId> {
        let seats = self.job.committee.seats.iter().chain(&self.stored.tip.committee.seats);
        seats.map(|seat| seat.node).filter(|node| *node != self.me).collect()
    }

    /// Asks one of them after the other how its rounds go on.
    fn ask_next(&mut self, out: &mut Out) {
        let known = self.known();
        self.asked += 1;
        if let Some(peer) = known.get(self.asked % known.len().max(1)) {
            let round = self.stored.tip.round;
            self.outbox.send(*peer, Message::Ask { round }, out);
        }
    }

    fn tick(&mut self, now: Now, out: &mut Out) {
        if now.mono < self.next_tick || self.has_ended() {
            return;
        }
        self.next_tick = now.mono.plus(self.job.pace.tick);
        self.ticks += 1;
        self.ask_next(out);
        if self.stored.opened.is_some() {
            if self.shown.is_none() || self.ticks.is_multiple_of(SEND_AGAIN) {
                self.show(out);
            }
            let (looks, tells) = self.parts.tick(&self.job);
            if tells {
                self.tell_parts(out);
            }
            if looks {
                self.fold_parts(out);
            }
        } else if self.is_seated() {
            self.decide(now, out);
        }
    }

    /// Takes what this anchor says to itself at once: it is its own first acceptor.
    fn hear_itself(&mut self, now: Now, out: &mut Out) {
        let mut own = VecDeque::new();
        loop {
            let sent = std::mem::take(out);
            for effect in sent {
                match effect {
                    // What is for this node's client leaves, and comes back to that.
                    Effect::Send { to, message } if to == self.me && message.is_for().1 => {
                        own.push_back(message);
                    }
                    Effect::Store { .. }
                    | Effect::Send { .. }
                    | Effect::Replay { .. }
                    | Effect::Train { .. }
                    | Effect::Spend(_)
                    | Effect::Report(_) => out.push(effect),
                }
            }
            let Some(message) = own.pop_front() else { return };
            let mut more = Vec::new();
            self.receive(now, self.me, *message, &mut more);
            out.append(&mut more);
        }
    }
}

impl Machine for Anchor {
    type Input = AnchorInput;
    type Effect = Effect<AnchorChange>;

    fn step(&mut self, now: Now, input: AnchorInput, effects: &mut Vec<Self::Effect>) {
        let mut out = Vec::new();
        match input {
            AnchorInput::Received { from, message } => {
                self.receive(now, from, *message, &mut out);
            }
            AnchorInput::Stored { write } => self.outbox.stored(write, &mut out),
            AnchorInput::Reconfigured { committee } => {
                let is_later = committee.epoch > self.stored.tip.committee.epoch;
                if is_later && committee.check(self.job.scheme).is_ok() {
                    if plant::is_on(Plant::WishesForgotten) {
                        self.wanted.clear();
                    }
                    wishes::hear(&mut self.wanted, committee);
                }
            }
            AnchorInput::Ticked => self.tick(now, &mut out),
        }
        self.hear_itself(now, &mut out);
        effects.append(&mut out);
    }

    fn wake_at(&self) -> Option<Mono> {
        (!self.has_ended()).then_some(self.next_tick)
    }
}
