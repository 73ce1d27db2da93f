//! The client: trains, writes down, shares until it is safe, and follows the chain.
//!
//! One contribution at a time. It is written down, with the seed of its shares, before anything of
//! it is sent: what is sent again after a crash are the same bytes, and its number never names
//! another update. It is over when the chain says so. In a job with privacy it has its noise before
//! it is written down, and is written down only once the ledger of the node's data has granted it.

use std::collections::BTreeSet;
use std::sync::Arc;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Machine, Mono, NodeId, Now};
use selvedge_crdt::escrow::{Holder, Seal};
use serde::{Deserialize, Serialize};

use super::Digest;
use super::canon::Canon;
use super::close::{Close, ContributionId, Header};
use super::hearsay::{Hearsay, Word};
use super::job::{Job, Mode};
use super::message::{Effect, Event, Message, Payload, Refused};
use super::outbox::{Outbox, SEND_AGAIN};
use super::parts;
use super::tip::{Folded, Tip};
use crate::field::Fp;
use crate::fixed::{UpdateError, to_field};
use crate::mask::{Masks, Seed};
use crate::privacy::accountant::MicroEpsilon;
use crate::privacy::ledger::{Overspent, Spend};
use crate::proof::{blinded, prove};
use crate::seal::seal;
use crate::select::is_asked;

/// A contribution that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Which.
    pub id: ContributionId,
    /// The round it was trained for.
    pub base_round: u64,
    /// Examples it was trained on.
    pub examples: u32,
    /// The update.
    pub levels: Vec<i32>,
    /// What its shares are made with.
    pub seed: Seed,
}

/// What a client has on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStored {
    /// The chain, as far as it followed it.
    pub tip: Tip,
    /// What it contributes.
    pub pending: Option<Pending>,
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientChange {
    /// It contributes.
    Contributed(Pending),
    /// A round is over.
    Folded(Box<Folded>),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum ClientInput {
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
    /// Training is done.
    Trained {
        /// From the model of which round.
        base_round: u64,
        /// On how many examples.
        examples: u32,
        /// What changed.
        delta: Vec<f32>,
        /// 256 bits of the system's entropy, for its shares.
        seed: Seed,
    },
    /// Training failed; it is tried again once the round has had its patience.
    Untrained {
        /// From the model of which round.
        base_round: u64,
    },
    /// The ledger wrote down what a contribution costs: it may leave.
    Granted {
        /// Which.
        commitment: Digest,
    },
    /// The ledger does not let it leave.
    Denied {
        /// Which.
        commitment: Digest,
        /// Why.
        why: Overspent,
    },
    /// Time passed.
    Ticked,
}

/// A contribution ready to be sent.
struct Shared {
    header: Header,
    digests: Vec<Digest>,
    payloads: Vec<Payload>,
}

/// The machine of one client in one job.
pub struct Client {
    job: Arc<Job>,
    me: Holder,
    seal: Arc<dyn Seal>,
    stored: ClientStored,
    outbox: Outbox,
    shared: Option<Shared>,
    /// Places of anchors that have it.
    receipts: BTreeSet<usize>,
    /// The round it trains for.
    training: Option<u64>,
    /// What waits for the ledger's word.
    unpaid: Option<(Spend, Pending)>,
    /// Other clients of this node: their data and what these have spent are their own.
    siblings: BTreeSet<Holder>,
    /// Contributions of this client that the job's epsilon allows; without privacy any number.
    allowed: u64,
    /// Whether the ledger said no, or people were told that nothing is allowed any more.
    is_spent: bool,
    /// When it came to its tip.
    since: Option<Mono>,
    next_tick: Mono,
    hearsay: Hearsay,
    /// It trains not before, after training failed.
    rests_until: Mono,
    ticks: usize,
    asked: usize,
}

impl Pending {
    /// What its commitment is made with.
    fn salt(&self) -> Digest {
        self.seed.derive("salt", 0).0
    }

    /// What names its very bytes.
    pub fn commitment(&self, job: &Digest) -> Digest {
        let Self { id, base_round, examples, levels, .. } = self;
        commitment(job, id, *base_round, *examples, &self.salt(), levels)
    }
}

/// What a contribution is bound to.
pub(super) fn commitment(
    job: &Digest,
    id: &ContributionId,
    base_round: u64,
    examples: u32,
    salt: &Digest,
    levels: &[i32],
) -> Digest {
    id.put(Canon::of("selvedge federated update").fixed(job))
        .number(base_round)
        .number(u64::from(examples))
        .fixed(salt)
        .numbers(levels.iter().map(|level| i64::from(*level) as u64))
        .digest()
}

/// What a share is sealed for: it opens at this place, for this contribution, and nowhere else.
pub(super) fn context(job: &Digest, id: &ContributionId, epoch: u64, place: usize) -> Vec<u8> {
    id.put(Canon::of("selvedge federated share").fixed(job))
        .number(epoch)
        .number(place as u64)
        .bytes()
}

/// The digest of a share as it is sent.
pub(super) fn payload_digest(payload: &Payload) -> Digest {
    match payload {
        // Not of the proof, which the digests of all shares decide.
        Payload::Sealed(sealed) | Payload::Proven { sealed, .. } => {
            *blake3::hash(sealed).as_bytes()
        }
        Payload::Open { levels, salt } => Canon::of("selvedge federated open")
            .fixed(salt)
            .numbers(levels.iter().map(|level| i64::from(*level) as u64))
            .digest(),
    }
}

/// The digest of all shares and of what proves them, where something does.
pub(super) fn sharing_digest(digests: &[Digest], proof: &[Fp]) -> Digest {
    let canon = Canon::of("selvedge federated sharing").list(digests.iter(), Canon::fixed);
    if proof.is_empty() {
        return canon.digest();
    }
    canon.numbers(proof.iter().map(|element| u64::from(element.residue()))).digest()
}

/// What the coefficients of a proof are drawn from: the sealed shares alone, so that whoever wants
/// others has to seal all shares again.
pub(super) fn challenge(job: &Digest, header: &Header, digests: &[Digest]) -> Seed {
    let canon = header.id.put(Canon::of("selvedge federated challenge").fixed(job));
    Seed(canon.number(header.epoch).list(digests.iter(), Canon::fixed).digest())
}

impl ClientStored {
    /// A client that knows the beginning of a job.
    pub const fn new(tip: Tip) -> Self {
        Self { tip, pending: None }
    }

    /// What a write changes. A round that does not follow changes nothing.
    pub fn apply(&mut self, job: &Job, change: &ClientChange, seal: &dyn Seal) {
        match change {
            ClientChange::Contributed(pending) => self.pending = Some(pending.clone()),
            ClientChange::Folded(folded) => {
                if let Ok(tip) = self.tip.fold(job, folded, seal) {
                    self.follow(tip);
                }
            }
        }
    }

    fn follow(&mut self, tip: Tip) {
        self.tip = tip;
        let tip = &self.tip;
        self.pending.take_if(|pending| tip.last(&pending.id.client) >= pending.id.seq);
    }
}

impl Client {
    /// A client as its disk has it; `job` has passed its check.
    pub fn new(job: Arc<Job>, me: Holder, seal: Arc<dyn Seal>, stored: ClientStored) -> Self {
        let allowed = job.privacy.map_or(u64::MAX, |privacy| privacy.contributions());
        Self {
            job,
            me,
            seal,
            stored,
            outbox: Outbox::default(),
            shared: None,
            receipts: BTreeSet::new(),
            training: None,
            unpaid: None,
            siblings: BTreeSet::new(),
            allowed,
            is_spent: false,
            since: None,
            next_tick: Mono(0),
            hearsay: Hearsay::default(),
            rests_until: Mono(0),
            ticks: 0,
            asked: 0,
        }
    }

    /// One of several clients of a node; the others have other data.
    #[must_use]
    pub fn beside(mut self, clients: impl IntoIterator<Item = Holder>) -> Self {
        self.siblings = clients.into_iter().filter(|client| *client != self.me).collect();
        self
    }

    /// Whether a message is for this one of a node's clients: what is said of one contribution is
    /// for whose it is, also of one that it wrote down when the node's store had another number.
    pub fn is_meant(&self, message: &Message) -> bool {
        let pending = self.pending().map(|pending| pending.id.client);
        let is_own = |client: Holder| client == self.me || Some(client) == pending;
        match message {
            Message::Receipt(receipt) => is_own(receipt.id.client),
            Message::Refused { id, .. } => is_own(id.client),
            Message::Folded(_)
            | Message::Share { .. }
            | Message::Prepare { .. }
            | Message::Promise { .. }
            | Message::Behind { .. }
            | Message::Propose { .. }
            | Message::Accepted(_)
            | Message::Closed(_)
            | Message::Opened(_)
            | Message::Ask { .. } => true,
        }
    }

    /// Whether the ledger was asked for an update that is not written down yet: whoever lets this
    /// client go now pays for nothing.
    pub const fn is_unpaid(&self) -> bool {
        self.unpaid.is_some()
    }

    /// Training that waited for its turn begins now, from the newest model: the round that it is
    /// of. None where it is not wanted any more.
    pub fn begins(&mut self) -> Option<u64> {
        let wanted = self.training.take().filter(|_| !self.has_ended());
        self.training = wanted.map(|_| self.stored.tip.round);
        self.training
    }

    /// The chain, as far as it followed it.
    pub const fn tip(&self) -> &Tip {
        &self.stored.tip
    }

    /// What it has, or will have, on disk.
    pub const fn stored(&self) -> &ClientStored {
        &self.stored
    }

    /// Whether the job is done.
    fn has_ended(&self) -> bool {
        self.stored.tip.round >= self.job.rounds
    }

    /// What it contributes and may still count: with a norm that follows, nothing of an earlier
    /// round.
    fn under_way(&self) -> Option<&Pending> {
        let is_void =
            |one: &&Pending| self.job.follows_norm() && one.base_round < self.stored.tip.round;
        self.stored.pending.as_ref().filter(|one| !is_void(one))
    }

    /// The last number that this client gave to a contribution, wherever that is now.
    fn last_seq(&self) -> u64 {
        // What another store of this node wrote down has numbers of its own.
        let own = self.stored.pending.as_ref().filter(|pending| pending.id.client == self.me);
        let written = own.map_or(0, |pending| pending.id.seq);
        self.stored.tip.last(&self.me).max(written)
    }

    /// What the record has of this client's data, at least.
    fn known(&self) -> u64 {
        self.stored.tip.contributions_but(&self.me.node, &self.siblings)
    }

    /// What this client has spent on the job, as far as the record tells.
    pub fn spent(&self) -> MicroEpsilon {
        self.job.privacy.map_or(MicroEpsilon(0), |privacy| privacy.spent(self.known()))
    }

    /// Who it is.
    pub const fn me(&self) -> Holder {
        self.me
    }

    /// What it contributes.
    pub const fn pending(&self) -> Option<&Pending> {
        self.stored.pending.as_ref()
    }

    fn receive(&mut self, from: NodeId, message: Message, out: &mut Vec<Effect<ClientChange>>) {
        match message {
            Message::Receipt(receipt) => {
                let Some(shared) = self.shared.as_ref().filter(|_| receipt.anchor == from) else {
                    return;
                };
                let Some(place) = self.stored.tip.committee.place(&from) else { return };
                // Word of an earlier contribution, or of an earlier sharing, may come late.
                if !receipt.names(&shared.header) {
                    return;
                }
                if !receipt.is_for(&self.stored.tip.job, &shared.header, &*self.seal) {
                    let what = "a receipt that does not fit".to_owned();
                    return out.push(Effect::Report(Event::Misdeed { by: from, what }));
                }
                let is_new = self.receipts.insert(place);
                if is_new && self.receipts.len() == self.job.receipts {
                    out.push(Effect::Report(Event::Receipted(shared.header.id)));
                }
            }
            Message::Refused { id, why } => {
                out.push(Effect::Report(Event::Refused { id, from, why }));
            }
            Message::Folded(folded) => self.folded(from, *folded, out),
            Message::Share { .. }
            | Message::Prepare { .. }
            | Message::Promise { .. }
            | Message::Behind { .. }
            | Message::Propose { .. }
            | Message::Accepted(_)
            | Message::Closed(_)
            | Message::Opened(_)
            | Message::Ask { .. } => {}
        }
    }

    fn folded(&mut self, from: NodeId, folded: Folded, out: &mut Vec<Effect<ClientChange>>) {
        if let Some(end) = self.hearsay.before(&folded.certificate, &self.job, &*self.seal) {
            self.ends(from, end, true, out);
        }
        // This node's own anchor made its end of what it was shown, or believed it.
        self.ends(from, folded, from == self.me.node, out);
    }

    /// Somebody tells an end of a round; whether it is known to be right beside what shows it.
    fn ends(
        &mut self,
        from: NodeId,
        folded: Folded,
        is_known: bool,
        out: &mut Vec<Effect<ClientChange>>,
    ) {
        let close = &folded.certificate.close;
        if close.round != self.stored.tip.round {
            return;
        }
        let folds = self.stored.tip.fold_telling(&self.job, &folded, &*self.seal);
        let (tip, left_out) = match folds {
            Ok(folds) => folds,
            Err(why) => {
                let what = why.to_string();
                return out.push(Effect::Report(Event::Misdeed { by: from, what }));
            }
        };
        let moved = tip.committee.epoch != self.stored.tip.committee.epoch;
        let (round, record) = (close.round, tip.record);
        if !is_known && !self.is_believed(from, &folded, &tip, out) {
            return;
        }
        self.hearsay.end();
        self.tell_what_became(close, &left_out, out);
        self.stored.follow(tip);
        if moved || self.under_way().is_none() {
            self.shared = None;
            self.receipts.clear();
        }
        // What is trained goes on: it counts in a later round, the less the older it is.
        self.since = None;
        self.outbox.store(ClientChange::Folded(Box::new(folded)), out);
        out.push(Effect::Report(Event::Folded { round, record }));
    }

    /// Whether a round is over as somebody says: its parts show it, or another anchor said so too.
    fn is_believed(
        &mut self,
        from: NodeId,
        folded: &Folded,
        tip: &Tip,
        out: &mut Vec<Effect<ClientChange>>,
    ) -> bool {
        if parts::is_shown(&self.job, folded) {
            return true;
        }
        let is_anchor = self.anchors().contains(&from);
        let word = self.hearsay.hears((from, is_anchor), folded, tip);
        if word == Word::First {
            // Who has gone on tells what was closed on top of it.
            let round = tip.round;
            self.outbox.send(from, Message::Ask { round }, out);
            self.ask_next(out);
        }
        word == Word::Seconded
    }

    /// The anchors, of the first round and of this one.
    fn anchors(&self) -> Vec<NodeId> {
        let seats = self.job.committee.seats.iter().chain(&self.stored.tip.committee.seats);
        seats.map(|seat| seat.node).collect()
    }

    /// Asks one of them after the other how its rounds go on.
    fn ask_next(&mut self, out: &mut Vec<Effect<ClientChange>>) {
        let anchors = self.anchors();
        self.asked += 1;
        if let Some(anchor) = anchors.get(self.asked % anchors.len().max(1)) {
            let round = self.stored.tip.round;
            self.outbox.send(*anchor, Message::Ask { round }, out);
        }
    }

    fn tell_what_became(
        &self,
        close: &Close,
        left_out: &[ContributionId],
        out: &mut Vec<Effect<ClientChange>>,
    ) {
        let Some(pending) = &self.stored.pending else { return };
        if left_out.contains(&pending.id) {
            let (id, from, why) = (pending.id, self.me.node, Refused::Beyond);
            out.push(Effect::Report(Event::Refused { id, from, why }));
        } else if close.entries.iter().any(|entry| entry.header.id == pending.id) {
            out.push(Effect::Report(Event::Counted(pending.id)));
        }
        if let Some(expired) = close.expired.iter().find(|expired| expired.id == pending.id) {
            out.push(Effect::Report(Event::Expired(pending.id, expired.why)));
        }
    }

    fn trained(
        &mut self,
        base_round: u64,
        examples: u32,
        delta: &[f32],
        seed: Seed,
        out: &mut Vec<Effect<ClientChange>>,
    ) {
        if self.training != Some(base_round) || self.under_way().is_some() {
            return;
        }
        self.training = None;
        // What nobody would count any more costs no epsilon: it trains again.
        if self.has_ended() || is_late(&self.job, &self.stored.tip, base_round) {
            return;
        }
        let levels = match self.levels(delta, examples, &seed) {
            Ok(levels) => levels,
            Err(why) => return out.push(Effect::Report(Event::BadUpdate(why))),
        };
        let seq = self.last_seq().saturating_add(1);
        let id = ContributionId { client: self.me, seq };
        // Noise is drawn from the seed that came: whoever has the disk cannot take it off again.
        let seed = seed.derive("shares", 0);
        let Some(privacy) = self.job.privacy else {
            let pending = Pending { id, base_round, examples, levels, seed };
            return self.contribute(pending, out);
        };
        // How many examples there are is the client's own affair, and weighs nothing.
        let pending = Pending { id, base_round, examples: 1, levels, seed };
        let known = self.known();
        let (job, commitment) = (self.stored.tip.job, pending.commitment(&self.stored.tip.job));
        let (cost, promised) = (privacy.cost(), privacy.promised());
        let spend = Spend { job, commitment, cost, promised, known };
        out.push(Effect::Spend(spend));
        if plant::is_on(Plant::LeftUnasked) {
            return self.contribute(pending, out);
        }
        self.unpaid = Some((spend, pending));
    }

    /// An update in whole numbers, as it may leave: with privacy it is bounded and has its noise.
    fn levels(&self, delta: &[f32], examples: u32, seed: &Seed) -> Result<Vec<i32>, UpdateError> {
        let Job { clip, privacy, .. } = &*self.job;
        if examples == 0 {
            return Err(UpdateError::Empty);
        }
        let values = self.job.trained_len();
        let Some(privacy) = privacy else { return clip.encode(delta, values) };
        let mut levels = clip.encode_clipped(delta, values)?;
        // What was trained for an earlier round than the tip's does not come here where it matters.
        privacy.at(self.stored.tip.norm).conceal(&mut levels, *clip, seed)?;
        Ok(levels)
    }

    fn granted(&mut self, commitment: Digest, out: &mut Vec<Effect<ClientChange>>) {
        let Some((_, pending)) = self.unpaid.take_if(|(one, _)| one.commitment == commitment)
        else {
            return;
        };
        // A chain that knows more than the disk did may have taken the number meanwhile, or told of
        // what the node contributed from another store.
        let is_next = self.stored.tip.check_next(&self.job, pending.id).is_ok()
            && !is_late(&self.job, &self.stored.tip, pending.base_round);
        if is_next && self.under_way().is_none() && self.may_spend(out) {
            self.contribute(pending, out);
        }
    }

    fn denied(&mut self, commitment: Digest, why: Overspent, out: &mut Vec<Effect<ClientChange>>) {
        if self.unpaid.take_if(|(one, _)| one.commitment == commitment).is_some() {
            self.is_spent = true;
            out.push(Effect::Report(Event::PrivacyDenied(why)));
        }
    }

    /// Whether the job's epsilon allows one contribution more; people are told once that not.
    fn may_spend(&mut self, out: &mut Vec<Effect<ClientChange>>) -> bool {
        // What is void was paid for, and the record may not tell of it yet.
        let void = self.last_seq() - self.stored.tip.last(&self.me);
        let known = self.known();
        let is_allowed = known.saturating_add(void) < self.allowed;
        if !is_allowed && !self.is_spent {
            self.is_spent = true;
            let spent = self.spent();
            out.push(Effect::Report(Event::PrivacySpent { spent }));
        }
        !self.is_spent
    }

    /// Writes a contribution down, and sends it once it is durable.
    fn contribute(&mut self, pending: Pending, out: &mut Vec<Effect<ClientChange>>) {
        let change = ClientChange::Contributed(pending);
        self.stored.apply(&self.job, &change, &*self.seal);
        if plant::is_on(Plant::SharedBeforeStored) {
            self.share(out);
        }
        self.outbox.store(change, out);
        self.share(out);
    }

    /// Sends shares to the anchors that have not said they have theirs.
    fn share(&mut self, out: &mut Vec<Effect<ClientChange>>) {
        if self.shared.is_none() {
            let Some(pending) = self.under_way() else { return };
            match self.prepare(self.redrawn(pending).as_ref().unwrap_or(pending)) {
                Ok(shared) => self.shared = Some(shared),
                Err(why) => return out.push(Effect::Report(Event::BadUpdate(why))),
            }
        }
        let Some(shared) = &self.shared else { return };
        for (place, seat) in self.stored.tip.committee.seats.iter().enumerate() {
            let Some(payload) = shared.payloads.get(place) else { continue };
            if !self.receipts.contains(&place) {
                let Shared { header, digests, .. } = shared;
                let payload = payload.clone();
                let message = Message::Share { header: *header, digests: digests.clone(), payload };
                self.outbox.send(seat.node, message, out);
            }
        }
    }

    /// Nothing, but for a planted bug: ticks since the start are another number in another life.
    fn redrawn(&self, pending: &Pending) -> Option<Pending> {
        let privacy = self.job.privacy.filter(|_| plant::is_on(Plant::NoiseRedrawn))?;
        let (mut other, seed) = (pending.clone(), pending.seed.derive("again", self.asked as u64));
        let privacy = privacy.at(self.stored.tip.norm);
        privacy.add_noise(&mut other.levels, self.job.clip, &seed).ok()?;
        Some(other)
    }

    /// A contribution as it is sent: all of it follows from what is written down.
    fn prepare(&self, pending: &Pending) -> Result<Shared, UpdateError> {
        let Tip { job: name, committee, .. } = &self.stored.tip;
        let Pending { id, base_round, examples, levels, .. } = pending;
        let mut header = Header {
            id: *id,
            base_round: *base_round,
            examples: *examples,
            commitment: pending.commitment(name),
            epoch: committee.epoch,
            sharing: [0; 32],
        };
        let (payloads, digests) = match self.job.mode {
            Mode::Secure => self.sealed(pending, &header)?,
            Mode::Plain(_) => {
                let one = Payload::Open { levels: levels.clone(), salt: pending.salt() };
                let (digest, seats) = (payload_digest(&one), committee.seats.len());
                (vec![one; seats], vec![digest; seats])
            }
        };
        header.sharing = sharing_digest(&digests, payloads.first().map_or(&[], Payload::proof));
        Ok(Shared { header, digests, payloads })
    }

    /// A share for each anchor, sealed to it, with the proof that a guard asks for.
    fn sealed(
        &self,
        pending: &Pending,
        header: &Header,
    ) -> Result<(Vec<Payload>, Vec<Digest>), UpdateError> {
        let Tip { job: name, committee, .. } = &self.stored.tip;
        let (scheme, epoch, seed) = (self.job.scheme, committee.epoch, &pending.seed);
        let mut elements = to_field(&pending.levels, self.job.level_max())?;
        let mut masks = Masks::new(&seed.derive("masks", epoch));
        if self.job.guard.is_some() {
            elements = blinded(scheme, &elements, &mut masks);
        }
        let shares = scheme.share(&elements, &mut masks);
        let each = |(place, (share, seat)): (usize, (&Vec<_>, &super::job::Seat))| {
            let own = seed.derive("seal", epoch).derive("seal", place as u64);
            let context = context(name, &header.id, epoch, place);
            // A seat whose key cannot be sealed to gets nothing it could open.
            seal(share, &seat.key, &own, &context).unwrap_or_default()
        };
        let sealed: Vec<Vec<u8>> =
            shares.iter().zip(&committee.seats).enumerate().map(each).collect();
        let mut payloads: Vec<Payload> = sealed.into_iter().map(Payload::Sealed).collect();
        let digests: Vec<Digest> = payloads.iter().map(payload_digest).collect();
        if self.job.guard.is_some() {
            let proof = prove(scheme, &elements, &shares, &challenge(name, header, &digests));
            payloads = payloads.into_iter().map(|one| one.with_proof(&proof)).collect();
        }
        Ok((payloads, digests))
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect<ClientChange>>) {
        if now.mono < self.next_tick || self.has_ended() {
            return;
        }
        self.next_tick = now.mono.plus(self.job.pace.tick);
        let since = *self.since.get_or_insert(now.mono);
        self.ticks += 1;
        self.ask_next(out);
        if self.under_way().is_some() {
            if self.shared.is_none() || self.ticks.is_multiple_of(SEND_AGAIN) {
                self.share(out);
            }
            return;
        }
        let (job, tip) = (&self.job, &self.stored.tip);
        self.unpaid.take_if(|(_, pending)| is_late(job, tip, pending.base_round));
        if let Some((spend, _)) = &self.unpaid {
            return out.push(Effect::Spend(*spend));
        }
        let (permille, patience) = (self.job.sample_permille, self.job.pace.patience);
        let waited = now.mono.since(since);
        let asked = is_asked(&tip.record, &self.me.node, permille, waited, patience);
        let round = tip.round;
        let rests = now.mono < self.rests_until;
        let trains = self.training.is_none() && asked && !rests;
        if trains && self.may_spend(out) {
            self.training = Some(round);
            out.push(Effect::Train { round });
        }
    }
}

/// Whether nobody would count any more what was trained for a round.
fn is_late(job: &Job, tip: &Tip, base_round: u64) -> bool {
    tip.round.saturating_sub(base_round) > job.max_staleness()
}

impl Machine for Client {
    type Input = ClientInput;
    type Effect = Effect<ClientChange>;

    fn step(&mut self, now: Now, input: ClientInput, effects: &mut Vec<Self::Effect>) {
        match input {
            ClientInput::Received { from, message } => self.receive(from, *message, effects),
            ClientInput::Stored { write } => self.outbox.stored(write, effects),
            ClientInput::Trained { base_round, examples, delta, seed } => {
                self.trained(base_round, examples, &delta, seed, effects);
            }
            ClientInput::Untrained { base_round } => {
                if self.training == Some(base_round) {
                    self.training = None;
                    self.rests_until = now.mono.plus(self.job.pace.patience);
                }
            }
            ClientInput::Granted { commitment } => self.granted(commitment, effects),
            ClientInput::Denied { commitment, why } => self.denied(commitment, why, effects),
            ClientInput::Ticked => self.tick(now, effects),
        }
    }

    fn wake_at(&self) -> Option<Mono> {
        (!self.has_ended()).then_some(self.next_tick)
    }
}
