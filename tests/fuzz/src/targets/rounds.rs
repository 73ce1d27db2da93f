//! What nodes say to each other in federated rounds, and the machines that hear it.
//!
//! Holds: a message is no larger than its bytes and written again is read as the same; an anchor
//! and a client that hear any messages, also such as are signed by whoever wants to, go on within
//! their bounds, and what they say fits a frame.

use std::collections::{BTreeMap, VecDeque};
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, LazyLock};

use selvedge_base::codec::{self, MAX_FRAME, VERSION};
use selvedge_base::{Machine as _, Micros, Mono, NodeId, Now};
use selvedge_core::{FederatedWord, PersonalWord};
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::{Holder, Seal};
use selvedge_federated::epidemic::{Base, Told};
use selvedge_federated::fixed::Clip;
use selvedge_federated::mask::Seed;
use selvedge_federated::privacy::Privacy;
use selvedge_federated::privacy::accountant::{MicroEpsilon, PicoDelta};
use selvedge_federated::privacy::adaptive::Adaptive;
use selvedge_federated::robust::Rule;
use selvedge_federated::round::{
    Anchor, AnchorInput, AnchorStored, Ballot, Client, ClientInput, ClientStored, Committee,
    Effect, Event, Folded, Guard, Job, MAX_CLIENTS, Message, Mode, Pace, Refused, Seat, Tip,
};
use selvedge_federated::seal::OpeningKey;
use selvedge_federated::server::Strategy;
use selvedge_federated::shamir::Scheme;

use super::Target;
use super::mesh::frame;
use crate::mutate::MAX_INPUT;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "rounds.message",
        holds: "no larger than its bytes; written again, it is read as the same",
        check: check_message,
        shares: &[],
        seeds: messages,
        words: &[],
    },
    Target {
        name: "rounds.talk",
        holds: "whatever an anchor and a client hear, they keep their bounds",
        check: check_talk,
        shares: &[],
        seeds: talks,
        words: &[],
    },
];

/// The anchors are nodes 0 to 4.
const ANCHORS: u8 = 5;
/// Who trains in a talk that was recorded.
const CLIENTS: [u8; 2] = [6, 7];
/// The anchor that a talk comes to.
const AT: u8 = 2;
/// Weights of the model: more than a share packs, few enough that all of a round fits an input.
const DIM: usize = 4;
/// Rounds of a job.
const ROUNDS: u64 = 3;
/// Orders that follow from one message at most: what is said to all anchors, some times over.
const MAX_ORDERS: usize = 64;
/// Contributions of one node that an anchor holds: of a store and of the one before.
const MAX_OF_NODE: usize = 2;
/// Kinds of jobs; see [`job_of`].
const KINDS: u8 = 5;

/// Signs with a hash of signer and bytes; one that is open takes any signature.
struct Stamp {
    me: NodeId,
    is_open: bool,
}

impl Seal for Stamp {
    fn sign(&self, bytes: &[u8]) -> Signature {
        let hash = *blake3::keyed_hash(&self.me.0, bytes).as_bytes();
        Signature(hash, hash)
    }

    fn is_signed(&self, signer: &NodeId, bytes: &[u8], signature: &Signature) -> bool {
        let hash = *blake3::keyed_hash(&signer.0, bytes).as_bytes();
        self.is_open || *signature == Signature(hash, hash)
    }
}

fn node(index: u8) -> NodeId {
    NodeId([index; 32])
}

fn key(index: u8) -> OpeningKey {
    OpeningKey::from_bytes([index + 100; 32])
}

fn holder(index: u8) -> Holder {
    Holder { node: node(index), incarnation: 1 }
}

static JOBS: LazyLock<Vec<Arc<Job>>> =
    LazyLock::new(|| (0..KINDS).map(|kind| Arc::new(job_of(kind))).collect());

/// In shares, in the open by two rules, in shares with a norm that follows, and in shares that are
/// proven to belong together.
fn job_of(kind: u8) -> Job {
    let mode = match kind {
        1 => Mode::Plain(Rule::Mean),
        2 => Mode::Plain(Rule::Median),
        _ => Mode::Secure,
    };
    let privacy = Privacy {
        noise_milli: 2_000,
        norm: 1 << 19,
        honest: 2,
        delta: PicoDelta(10_000_000),
        epsilon: MicroEpsilon(100_000_000),
        adaptive: Some(Adaptive { quantile_permille: 500, rate_permille: 200 }),
    };
    let seat = |index| Seat { node: node(index), key: key(index).public() };
    let clip = Clip::new(1 << 20).unwrap_or_else(|error| panic!("a clip: {error}"));
    let [tick, patience] = [100, 1_000].map(Micros::millis);
    let job = Job {
        nonce: u64::from(kind),
        task: [7; 32],
        dim: DIM,
        clip,
        mode,
        scheme: Scheme::Five,
        committee: Committee { epoch: 0, seats: (0..ANCHORS).map(seat).collect() },
        min_clients: 2,
        target: 2,
        sample_permille: 1_000,
        max_examples: 100,
        receipts: 4,
        rounds: ROUNDS,
        strategy: Strategy::Average { proximal_permille: 0 },
        privacy: (kind == 3).then_some(privacy),
        pace: Pace { tick, stagger: tick, gather: tick, patience },
        per_node: 1,
        guard: (kind == 4).then_some(Guard { groups: 1, rule: Rule::Mean }),
    };
    job.check().unwrap_or_else(|error| panic!("job {kind}: {error}"));
    job
}

fn job(kind: u8) -> Arc<Job> {
    Arc::clone(&JOBS[usize::from(kind % KINDS)])
}

fn tip(job: &Job) -> Tip {
    Tip::first(job, vec![0; job.dim]).unwrap_or_else(|error| panic!("a tip: {error}"))
}

fn anchor(job: &Arc<Job>, index: u8, is_open: bool) -> Anchor {
    let (seal, stored) = (Stamp { me: node(index), is_open }, AnchorStored::new(tip(job)));
    Anchor::new(Arc::clone(job), node(index), key(index), Arc::new(seal), stored)
}

fn client(job: &Arc<Job>, index: u8, is_open: bool) -> Client {
    let (seal, stored) = (Stamp { me: node(index), is_open }, ClientStored::new(tip(job)));
    Client::new(Arc::clone(job), holder(index), Arc::new(seal), stored)
}

fn now(turn: u64) -> Now {
    Now { mono: Mono(turn * 100_000), ..Now::default() }
}

fn check_message(body: &[u8]) {
    frame::<FederatedWord>(body);
    frame::<PersonalWord>(body);
    let Ok(FederatedWord { message, .. }) = codec::decode_body(body) else { return };
    // Of whoever it says it is, as far as it says.
    let from = match &message {
        Message::Share { header, .. } => header.id.client.node,
        Message::Opened(opening) => opening.anchor,
        Message::Accepted(accept) => accept.anchor,
        _ => node(0),
    };
    let turns = [Turn { from, ticks: true, stores: true, message }];
    (0..KINDS).for_each(|kind| hear(kind, false, &turns));
}

/// One message of a talk.
struct Turn {
    from: NodeId,
    /// Whether time passes before it.
    ticks: bool,
    /// Whether the disk answers after it.
    stores: bool,
    message: Message,
}

/// A talk: which job, whether anything passes as signed, and messages. Of each a byte (in the low
/// three bits who says it), two bytes with its length, and its frame.
fn check_talk(input: &[u8]) {
    let Some((first, mut rest)) = input.split_first() else { return };
    let mut turns = Vec::new();
    while let Some(([how, high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (body, after) = after.split_at(length);
        rest = after;
        if let Ok(FederatedWord { message, .. }) = codec::decode_body(body) {
            let (ticks, stores) = (how & 8 == 0, how & 16 == 0);
            turns.push(Turn { from: node(how & 7), ticks, stores, message });
        }
    }
    hear(first & 7, first & 8 != 0, &turns);
}

/// An anchor and a client of a job hear messages.
fn hear(kind: u8, is_open: bool, turns: &[Turn]) {
    let job = job(kind);
    let (mut anchor, mut client) = (anchor(&job, AT, is_open), client(&job, CLIENTS[1], is_open));
    begin(&mut client);
    let mut ordered = 0;
    for (at, turn) in (1..).zip(turns) {
        let from = turn.from;
        let mut steps = Vec::new();
        if turn.ticks {
            steps.push(AnchorInput::Ticked);
        }
        let message = Box::new(turn.message.clone());
        steps.push(AnchorInput::Received { from, message: message.clone() });
        let before = anchor.tip().round;
        for step in steps {
            let mut effects = Vec::new();
            anchor.step(now(at), step, &mut effects);
            ordered += effects.iter().filter(|one| matches!(one, Effect::Store { .. })).count();
            check_orders(&effects);
        }
        if turn.stores {
            anchor.step(now(at), AnchorInput::Stored { write: ordered as u64 }, &mut Vec::new());
        }
        assert!((before..=before + 1).contains(&anchor.tip().round), "two rounds by one message");
        check_anchor(&job, &anchor);
        let mut effects = Vec::new();
        let input = ClientInput::Received { from, message };
        for input in [ClientInput::Ticked, input] {
            client.step(now(at), input, &mut effects);
        }
        check_orders(&effects);
        let pending = client.pending().map(|pending| pending.levels.len());
        assert!(pending.is_none_or(|levels| levels == job.payload_len()));
    }
}

/// It trains at once, and what it trained is on its disk and leaves.
fn begin(client: &mut Client) {
    let delta = vec![0.25, -0.5, 0.0, 0.125];
    let trained = ClientInput::Trained { base_round: 0, examples: 9, delta, seed: Seed([4; 32]) };
    let mut inputs = VecDeque::from([ClientInput::Ticked, trained]);
    while let Some(input) = inputs.pop_front() {
        let mut effects = Vec::new();
        client.step(now(0), input, &mut effects);
        inputs.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::Spend(spend) => Some(ClientInput::Granted { commitment: spend.commitment }),
            Effect::Store { write, .. } => Some(ClientInput::Stored { write }),
            _ => None,
        }));
    }
}

/// What follows from one message is little, and can be said.
fn check_orders<C>(effects: &[Effect<C>]) {
    assert!(effects.len() <= MAX_ORDERS, "{} orders from one message", effects.len());
    for effect in effects {
        match effect {
            Effect::Send { message, .. } => {
                let word = FederatedWord { job: [0; 32], message: (**message).clone() };
                assert!(codec::encode(&word, MAX_FRAME).is_ok(), "what is said fits no frame");
            }
            Effect::Report(Event::Misdeed { what, .. }) => {
                assert!(what.len() < super::REFUSAL_CHARS, "a report of {} bytes", what.len());
            }
            _ => {}
        }
    }
}

/// What an anchor holds is as much as it may, and each as long as the job's.
fn check_anchor(job: &Job, anchor: &Anchor) {
    let (held, tip) = (&anchor.stored().held, anchor.tip());
    assert!(held.len() <= MAX_CLIENTS && tip.done.len() <= MAX_CLIENTS);
    let mut of_node: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (id, one) in held {
        *of_node.entry(id.client.node).or_default() += 1;
        assert_eq!(one.share.len(), wanted(job), "a share of another length");
        assert!(*id == one.header.id && id.seq > tip.last(&id.client), "what is over is held");
    }
    assert!(of_node.values().all(|count| *count <= MAX_OF_NODE), "too many of one node");
    assert_eq!(tip.server.model().len(), job.dim);
    assert!(tip.round <= job.rounds);
}

const fn wanted(job: &Job) -> usize {
    match job.mode {
        Mode::Secure => job.scheme.share_len(job.payload_len()),
        Mode::Plain(_) => job.payload_len(),
    }
}

/// A job that was run: who said what to whom.
type Said = Vec<(u8, u8, Message)>;

struct Members {
    job: Arc<Job>,
    anchors: Vec<Anchor>,
    clients: Vec<(u8, Client)>,
    ends: Vec<Folded>,
    said: Said,
    /// How much of it was heard.
    heard: usize,
}

/// All that is said in a job of two clients, and at the end to somebody who was away.
fn recorded(kind: u8) -> Said {
    let job = job(kind);
    let anchors = (0..ANCHORS).map(|index| anchor(&job, index, false)).collect();
    let clients = CLIENTS.map(|index| (index, client(&job, index, false))).into();
    let mut all = Members { job, anchors, clients, ends: Vec::new(), said: Vec::new(), heard: 0 };
    for turn in 1..200 {
        (0..ANCHORS).for_each(|at| all.step_anchor(turn, at, AnchorInput::Ticked));
        CLIENTS.iter().for_each(|at| all.step_client(turn, *at, ClientInput::Ticked));
        while let Some((from, to, message)) = all.said.get(all.heard).cloned() {
            all.heard += 1;
            let (from, message) = (node(from), Box::new(message));
            match to < ANCHORS {
                true => all.step_anchor(turn, to, AnchorInput::Received { from, message }),
                false => all.step_client(turn, to, ClientInput::Received { from, message }),
            }
        }
    }
    let rounds = all.clients.iter().map(|(_, client)| client.tip().round);
    assert!(rounds.min() == Some(ROUNDS), "job {kind} of the corpus did not end");
    all.said
}

impl Members {
    fn say<C>(&mut self, from: u8, effect: &Effect<C>) {
        match effect {
            Effect::Send { to, message } => self.said.push((from, to.0[0], (**message).clone())),
            Effect::Replay { to, round } => {
                let end = self.ends.get(*round as usize).cloned();
                let message = end.map(|folded| Message::Folded(Box::new(folded)));
                self.said.extend(message.map(|message| (from, to.0[0], message)));
            }
            _ => {}
        }
    }

    fn step_anchor(&mut self, turn: u64, at: u8, input: AnchorInput) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.anchors[usize::from(at)].step(now(turn), input, &mut effects);
            for effect in effects {
                self.say(at, &effect);
                if let Effect::Store { write, change } = effect {
                    inputs.push_back(AnchorInput::Stored { write });
                    let end = match *change {
                        selvedge_federated::round::AnchorChange::Folded(folded) => Some(*folded),
                        _ => None,
                    };
                    let is_next =
                        |one: &Folded| one.certificate.close.round == self.ends.len() as u64;
                    let end = end.filter(is_next);
                    self.ends.extend(end);
                }
            }
        }
    }

    fn step_client(&mut self, turn: u64, at: u8, input: ClientInput) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            let found = self.clients.iter_mut().find(|(index, _)| *index == at);
            let Some((_, client)) = found else { return };
            client.step(now(turn), input, &mut effects);
            for effect in effects {
                self.say(at, &effect);
                inputs.extend(match effect {
                    Effect::Store { write, .. } => Some(ClientInput::Stored { write }),
                    Effect::Spend(one) => Some(ClientInput::Granted { commitment: one.commitment }),
                    Effect::Train { round: base_round } => {
                        let delta = vec![0.125 * f32::from(at); self.job.trained_len()];
                        let delta = delta.iter().map(|value| value - 0.75).collect();
                        let seed = Seed([at ^ base_round as u8; 32]);
                        Some(ClientInput::Trained { base_round, examples: 9, delta, seed })
                    }
                    _ => None,
                });
            }
        }
    }
}

fn written(message: &Message) -> Vec<u8> {
    let word = FederatedWord { job: [1; 32], message: message.clone() };
    codec::encode_datagram_at(VERSION, &word, MAX_FRAME)
        .unwrap_or_else(|error| panic!("a frame: {error}"))
}

/// One of each, of every kind of job, and some that calm rounds have none of.
fn messages() -> Vec<Vec<u8>> {
    let mut seen: BTreeMap<(u8, String), Vec<u8>> = BTreeMap::new();
    let mut kinds: Vec<Discriminant<Message>> = Vec::new();
    for kind in 0..KINDS {
        for (_, _, message) in recorded(kind) {
            let kind_of = discriminant(&message);
            let place = kinds.iter().position(|one| *one == kind_of).unwrap_or_else(|| {
                kinds.push(kind_of);
                kinds.len() - 1
            });
            seen.entry((kind, place.to_string())).or_insert_with(|| written(&message));
        }
    }
    assert!(kinds.len() >= 9, "{} kinds of messages were said", kinds.len());
    let id = selvedge_federated::round::ContributionId { client: holder(6), seq: 1 };
    let promised = Ballot { number: 2, by: node(0) };
    let rare = [
        Message::Refused { id, why: Refused::Replayed { last: 1 } },
        Message::Behind { round: 0, promised },
        Message::Ask { round: 0 },
    ];
    let base = Base { round: 1, record: [1; 32] };
    let (client, drift) = (holder(6), vec![1, -1, i32::MAX, i32::MIN]);
    let told = Told { client, seq: 1, base, age: 1, examples: 9, drift };
    let personal = PersonalWord { job: [1; 32], told };
    let personal = codec::encode_datagram_at(VERSION, &personal, MAX_FRAME)
        .unwrap_or_else(|error| panic!("a frame: {error}"));
    seen.into_values().chain(rare.iter().map(written)).chain([personal]).collect()
}

/// What an anchor heard in a job of each kind, and what a client did.
fn talks() -> Vec<Vec<u8>> {
    let talk = |kind: u8, to: u8, first: u8| {
        let mut bytes = vec![first];
        for (from, _, message) in recorded(kind).iter().filter(|(_, other, _)| *other == to) {
            let body = written(message);
            let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
            let more = [&[*from][..], &length.to_be_bytes(), &body].concat();
            if bytes.len() + more.len() <= MAX_INPUT {
                bytes.extend(more);
            }
        }
        bytes
    };
    let of_kind =
        |kind| [talk(kind, AT, kind), talk(kind, AT, kind | 8), talk(kind, CLIENTS[1], kind)];
    (0..KINDS).flat_map(of_kind).collect()
}

#[cfg(test)]
mod tests {
    use selvedge_federated::round::Payload;

    use super::*;

    /// What is recorded leads those who hear it to the end: mutations begin deep in a job.
    #[test]
    fn a_talk_is_understood() {
        for kind in 0..KINDS {
            let (job, said) = (job(kind), recorded(kind));
            let mut anchor = anchor(&job, AT, false);
            let (mut turn, mut writes) = (0, 0);
            for (from, _, message) in said.iter().filter(|(_, to, _)| *to == AT) {
                turn += 1;
                let (from, message) = (node(*from), Box::new(message.clone()));
                let mut effects = Vec::new();
                anchor.step(now(turn), AnchorInput::Received { from, message }, &mut effects);
                writes += effects.iter().filter(|one| matches!(one, Effect::Store { .. })).count();
                let stored = AnchorInput::Stored { write: writes as u64 };
                anchor.step(now(turn), stored, &mut Vec::new());
            }
            assert!(anchor.tip().round >= 1, "job {kind} comes to no round");
            let open =
                |one: &Message| matches!(one, Message::Share { payload: Payload::Open { .. }, .. });
            let is_open = said.iter().any(|(_, _, message)| open(message));
            assert_eq!(is_open, matches!(job.mode, Mode::Plain(_)));
        }
    }
}
