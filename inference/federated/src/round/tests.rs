use std::sync::Arc;

use proptest::prelude::*;
use selvedge_base::{Machine, Micros, Mono, NodeId, Now};
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::{Holder, Seal};

use super::*;
use crate::field::Fp;
use crate::fixed::Clip;
use crate::mask::Seed;
use crate::privacy::accountant::{MicroEpsilon, PicoDelta};
use crate::privacy::adaptive::Adaptive;
use crate::privacy::ledger::{Bound, Overspent};
use crate::privacy::{Privacy, PrivacyError};
use crate::robust::Rule;
use crate::seal::OpeningKey;
use crate::server::Strategy;
use crate::shamir::Scheme;

#[path = "refusal_tests.rs"]
mod refusals;

/// Signs with a hash of signer and bytes.
struct Stamp(NodeId);

fn stamp(signer: &NodeId, bytes: &[u8]) -> Signature {
    let hash = *blake3::keyed_hash(&signer.0, bytes).as_bytes();
    Signature(hash, hash)
}

impl Seal for Stamp {
    fn sign(&self, bytes: &[u8]) -> Signature {
        stamp(&self.0, bytes)
    }

    fn is_signed(&self, signer: &NodeId, bytes: &[u8], signature: &Signature) -> bool {
        *signature == stamp(signer, bytes)
    }
}

fn node(index: u8) -> NodeId {
    NodeId([index; 32])
}

fn key(index: u8) -> OpeningKey {
    OpeningKey::from_bytes([index + 100; 32])
}

fn job(mode: Mode) -> Job {
    let seat = |index| Seat { node: node(index), key: key(index).public() };
    Job {
        task: [7; 32],
        nonce: 1,
        dim: 3,
        clip: Clip::new(1 << 20).unwrap(),
        mode,
        scheme: Scheme::Five,
        committee: Committee { epoch: 0, seats: (0..5).map(seat).collect() },
        min_clients: 2,
        target: 2,
        sample_permille: 1_000,
        max_examples: 100,
        receipts: 4,
        rounds: 9,
        strategy: Strategy::Average { proximal_permille: 0 },
        privacy: None,
        pace: Pace {
            tick: Micros::millis(100),
            stagger: Micros::millis(100),
            gather: Micros::millis(100),
            patience: Micros::secs(1),
        },
        per_node: 1,
        guard: None,
    }
}

fn first(job: &Job) -> Tip {
    Tip::first(job, vec![0; job.dim]).unwrap()
}

fn header(client: u8, base_round: u64, examples: u32) -> Header {
    let client = Holder { node: node(client), incarnation: 1 };
    let id = ContributionId { client, seq: 1 };
    Header { id, base_round, examples, commitment: [1; 32], epoch: 0, sharing: [2; 32] }
}

/// The same of another client of its node.
fn part(incarnation: u64, header: Header) -> Header {
    let client = Holder { incarnation, ..header.id.client };
    Header { id: ContributionId { client, ..header.id }, ..header }
}

fn closing(job: &Job, tip: &Tip, headers: &[Header]) -> Close {
    Close::gathered(job, tip, &[headers, headers, headers], None)
}

fn anchor(job: &Job, index: u8) -> Anchor {
    let stored = AnchorStored::new(first(job));
    let seal = Arc::new(Stamp(node(index)));
    Anchor::new(Arc::new(job.clone()), node(index), key(index), seal, stored)
}

fn hear(anchor: &mut Anchor, from: u8, message: Message) -> Vec<Effect<AnchorChange>> {
    let mut effects = Vec::new();
    let input = AnchorInput::Received { from: node(from), message: Box::new(message) };
    anchor.step(Now::default(), input, &mut effects);
    effects
}

fn stored(anchor: &mut Anchor, write: u64) -> Vec<Message> {
    let mut effects = Vec::new();
    anchor.step(Now::default(), AnchorInput::Stored { write }, &mut effects);
    sent(&effects)
}

fn sent(effects: &[Effect<AnchorChange>]) -> Vec<Message> {
    let message = |effect: &Effect<AnchorChange>| match effect {
        Effect::Send { message, .. } => Some((**message).clone()),
        Effect::Store { .. }
        | Effect::Replay { .. }
        | Effect::Train { .. }
        | Effect::Spend(_)
        | Effect::Report(_) => None,
    };
    effects.iter().filter_map(message).collect()
}

/// A client that trained, and what it sends to each anchor.
fn shares(job: &Job, index: u8, delta: &[f32]) -> Vec<Message> {
    shares_of(job, Holder { node: node(index), incarnation: 1 }, index, delta)
}

fn shares_of(job: &Job, me: Holder, draw: u8, delta: &[f32]) -> Vec<Message> {
    let seal = Arc::new(Stamp(me.node));
    let mut client = Client::new(Arc::new(job.clone()), me, seal, ClientStored::new(first(job)));
    let mut effects = Vec::new();
    client.step(Now::default(), ClientInput::Ticked, &mut effects);
    assert!(effects.contains(&Effect::Train { round: 0 }));
    effects.clear();
    let seed = Seed([draw; 32]);
    let delta = delta.to_vec();
    let trained = ClientInput::Trained { base_round: 0, examples: 50, delta, seed };
    client.step(Now::default(), trained, &mut effects);
    assert!(effects.iter().all(|effect| !matches!(effect, Effect::Send { .. })), "not durable yet");
    client.step(Now::default(), ClientInput::Stored { write: 1 }, &mut effects);
    let share = |effect: &Effect<ClientChange>| match effect {
        Effect::Send { message, .. } if matches!(**message, Message::Share { .. }) => {
            Some((**message).clone())
        }
        Effect::Send { .. }
        | Effect::Store { .. }
        | Effect::Replay { .. }
        | Effect::Train { .. }
        | Effect::Spend(_)
        | Effect::Report(_) => None,
    };
    effects.iter().filter_map(share).collect()
}

#[test]
fn weights_go_by_examples_up_to_the_cap_and_fall_with_age() {
    let job = job(Mode::Secure);
    let of = |examples, base, round| weight(&job, &header(9, base, examples), round);
    assert_eq!((of(100, 0, 0), of(1_000, 0, 0), of(50, 0, 0), of(0, 0, 0)), (64, 64, 32, 1));
    let aged: Vec<u32> = (0..=4).map(|round| of(100, 0, round)).collect();
    assert_eq!(aged, [64, 45, 37, 32, 29], "64 / sqrt(1 + s)");
}

#[test]
fn sets_that_are_not_good_are_refused_with_the_reason() {
    let job = job(Mode::Secure);
    let tip = first(&job);
    let good = closing(&job, &tip, &[header(1, 0, 9), header(2, 0, 9)]);
    assert_eq!(good.check(&job, &tip), Ok(()));
    let spoilt = |spoil: &dyn Fn(&mut Close)| {
        let mut close = good.clone();
        spoil(&mut close);
        close.check(&job, &tip).unwrap_err()
    };
    assert_eq!(spoilt(&|close| close.round = 1), CloseError::Place);
    assert_eq!(spoilt(&|close| close.previous = [0; 32]), CloseError::Place);
    let floor = CloseError::Floor { found: 1, wanted: 2 };
    assert_eq!(spoilt(&|close| close.entries.truncate(1)), floor);
    assert_eq!(spoilt(&|close| close.entries.reverse()), CloseError::Order);
    assert_eq!(spoilt(&|close| close.entries[0].weight += 1), CloseError::Weight);
    assert_eq!(spoilt(&|close| close.entries[0].header.epoch = 1), CloseError::Epoch);
    assert_eq!(
        spoilt(&|close| close.entries[0].header.base_round = 1),
        CloseError::Age { base: 1 }
    );
    assert!(matches!(
        spoilt(&|close| close.entries[0].header.id.seq = 2),
        CloseError::Sequence { last: 0, .. }
    ));
    let early = Expired { id: header(3, 0, 9).id, base_round: 0, why: Why::Stale };
    assert_eq!(spoilt(&|close| close.expired = vec![early]), CloseError::Age { base: 0 });
}

#[test]
fn the_last_epoch_has_no_next_one() {
    let mut job = job(Mode::Secure);
    job.committee.epoch = u64::MAX;
    let tip = first(&job);
    let last = |client| Header { epoch: u64::MAX, ..header(client, 0, 9) };
    let mut close = closing(&job, &tip, &[last(1), last(2)]);
    assert_eq!(close.check(&job, &tip), Ok(()));
    close.next = Some(Committee { epoch: 0, ..job.committee.clone() });
    assert_eq!(close.check(&job, &tip), Err(CloseError::Epoch));
    let mut anchor = anchor(&job, 2);
    let committee = Committee { epoch: 0, ..job.committee };
    let mut effects = Vec::new();
    anchor.step(Now::default(), AnchorInput::Reconfigured { committee }, &mut effects);
    assert_eq!(effects, []);
}

#[test]
fn what_not_all_hold_waits_and_what_is_too_old_expires() {
    let job = job(Mode::Secure);
    let mut tip = first(&job);
    tip.round = 5;
    let (old, fresh, scarce) = (header(1, 0, 9), header(2, 5, 9), header(3, 4, 9));
    let all = [old, fresh, scarce];
    let close = Close::gathered(&job, &tip, &[&all, &all[..2]], None);
    let counted: Vec<ContributionId> = close.entries.iter().map(|one| one.header.id).collect();
    assert_eq!(counted, [fresh.id]);
    assert_eq!(close.expired, [Expired { id: old.id, base_round: 0, why: Why::Stale }]);
}

#[test]
fn a_receipt_waits_for_the_disk_and_a_number_is_bound() {
    for mode in [Mode::Secure, Mode::Plain(Rule::Mean)] {
        let job = job(mode);
        let share = shares(&job, 9, &[0.5, -0.5, 0.0]);
        assert_eq!(share.len(), 5);
        let mut anchor = anchor(&job, 2);
        let effects = hear(&mut anchor, 9, share[2].clone());
        assert!(matches!(effects[..], [Effect::Store { write: 1, .. }]), "{effects:?}");
        assert!(matches!(stored(&mut anchor, 1)[..], [Message::Receipt(_)]));
        // The same again is a receipt again; another update under the number is not.
        let again = sent(&hear(&mut anchor, 9, share[2].clone()));
        assert!(matches!(again[..], [Message::Receipt(_)]));
        let other = shares(&job, 9, &[0.25, 0.0, 0.0]);
        let refused = sent(&hear(&mut anchor, 9, other[2].clone()));
        assert!(matches!(refused[..], [Message::Refused { why: Refused::Bound, .. }]));
        let foreign = sent(&hear(&mut anchor, 8, share[2].clone()));
        assert!(matches!(foreign[..], [Message::Refused { why: Refused::Sender, .. }]));
        assert_eq!(anchor.stored().held.len(), 1);
    }
}

#[test]
fn shares_that_were_tampered_with_are_refused() {
    let job = job(Mode::Secure);
    let share = shares(&job, 9, &[0.5, -0.5, 0.0]);
    let mut anchor = anchor(&job, 2);
    let refusal = |anchor: &mut Anchor, message: Message| match &sent(&hear(anchor, 9, message))[..]
    {
        [Message::Refused { why, .. }] => *why,
        other => panic!("{other:?}"),
    };
    // Another anchor's share, and a turned bit.
    let Message::Share { header, digests, payload } = share[2].clone() else { panic!() };
    let Message::Share { payload: others, .. } = share[3].clone() else { panic!() };
    let swapped = Message::Share { header, digests: digests.clone(), payload: others };
    assert_eq!(refusal(&mut anchor, swapped), Refused::Digest);
    let open = Payload::Open { levels: vec![1; 3], salt: [0; 32] };
    let opened = Message::Share { header, digests: digests.clone(), payload: open };
    assert_eq!(refusal(&mut anchor, opened), Refused::Digest);
    let later = Header { base_round: 1, ..header };
    let ahead =
        Message::Share { header: later, digests: digests.clone(), payload: payload.clone() };
    assert_eq!(refusal(&mut anchor, ahead), Refused::Ahead { round: 0 });
    let moved = Message::Share { header: Header { epoch: 1, ..header }, digests, payload };
    assert_eq!(refusal(&mut anchor, moved), Refused::Epoch(0));
    assert!(anchor.stored().held.is_empty());
}

#[test]
fn a_promise_binds_and_tells_and_nothing_opens_without_a_certificate() {
    let job = job(Mode::Secure);
    let mut anchor = anchor(&job, 2);
    let (low, high) = (Ballot { number: 1, by: node(0) }, Ballot { number: 2, by: node(1) });
    let close = Box::new(closing(&job, anchor.tip(), &[header(8, 0, 9), header(9, 0, 9)]));
    hear(&mut anchor, 0, Message::Prepare { round: 0, ballot: low });
    assert!(matches!(stored(&mut anchor, 1)[..], [Message::Promise { accepted: None, .. }]));
    hear(&mut anchor, 0, Message::Propose { ballot: low, close: close.clone() });
    let said = stored(&mut anchor, 2);
    assert!(matches!(said[..], [Message::Accepted(_)]), "and no part of a sum: {said:?}");
    hear(&mut anchor, 1, Message::Prepare { round: 0, ballot: high });
    let said = stored(&mut anchor, 3);
    let told = matches!(&said[..], [Message::Promise { accepted: Some((ballot, _)), .. }]
        if *ballot == low);
    assert!(told, "{said:?}");
    let late = sent(&hear(&mut anchor, 0, Message::Propose { ballot: low, close: close.clone() }));
    assert!(matches!(late[..], [Message::Behind { promised, .. }] if promised == high));
    // Two acceptances are no quorum of five.
    let name = anchor.tip().job;
    let accept = |index: u8| {
        let seal = Stamp(node(index));
        let one = SignedAccept::sign(&name, 0, low, close.digest(), node(index), &seal);
        (node(index), one.signature)
    };
    let certificate = |indices: &[u8]| {
        let accepts = indices.iter().map(|index| accept(*index)).collect();
        Certificate { close: (*close).clone(), ballot: low, accepts }
    };
    let tip = anchor.tip().clone();
    let judged = |one: &Certificate| one.check(&job, &tip, &Stamp(node(0)));
    let few = CertificateError::Quorum { found: 2, wanted: 3 };
    assert_eq!(judged(&certificate(&[0, 1])), Err(few.clone()));
    assert!(judged(&certificate(&[0, 1, 1])).is_err(), "one anchor twice");
    assert!(judged(&certificate(&[0, 1, 7])).is_err(), "no anchor");
    let mut forged = certificate(&[0, 1, 2]);
    forged.accepts[2].1 = forged.accepts[1].1;
    assert_eq!(judged(&forged), Err(CertificateError::Signature(node(2))));
    assert_eq!(judged(&certificate(&[0, 1, 2])), Ok(()));
    hear(&mut anchor, 1, Message::Closed(Box::new(certificate(&[0, 1]))));
    assert_eq!(anchor.stored().opened, None);
    hear(&mut anchor, 1, Message::Closed(Box::new(certificate(&[0, 1, 3]))));
    assert!(anchor.stored().opened.is_some());
    // A part of another length than the sum's, or of an open sum, is not taken.
    let blame = |anchor: &mut Anchor, partial: Partial| {
        let part = Opening::sign(&name, 0, close.digest(), node(3), partial, &Stamp(node(3)));
        let effects = hear(anchor, 3, Message::Opened(Box::new(part)));
        matches!(effects[..], [Effect::Report(Event::Misdeed { by, .. })] if by == node(3))
    };
    let open = Rule::Mean.aggregate(&[(1, &[0; 3])], 3);
    assert!(blame(&mut anchor, Partial::Shares(vec![Fp::ONE; 2])));
    assert!(blame(&mut anchor, Partial::Open(open)));
    assert!(!blame(&mut anchor, Partial::Shares(vec![Fp::ONE; 3])));
}

#[test]
fn an_anchor_tells_where_its_round_stands_and_who_proposes() {
    let job = Job { target: 9, ..job(Mode::Secure) };
    let stands = |anchor: &Anchor| {
        let OpenRound { round, phase, proposer, .. } = anchor.open_round().unwrap();
        assert_eq!(round, 0);
        (phase, proposer)
    };
    let mut own = anchor(&job, 2);
    assert_eq!(stands(&own), (Phase::Gathering, None));
    // A turn of its own, once its patience is over.
    for at in [0, 60] {
        let now = Now { mono: Mono(0).plus(Micros::secs(at)), ..Now::default() };
        own.step(now, AnchorInput::Ticked, &mut Vec::new());
    }
    assert_eq!(stands(&own), (Phase::Asking, Some(node(2))));
    let (stored, seal) = (own.stored().clone(), Arc::new(Stamp(node(2))));
    let back = Anchor::new(Arc::new(job.clone()), node(2), key(2), seal, stored);
    assert_eq!(stands(&back), (Phase::Gathering, None), "a crash ended its turn");
    let turn = Ballot { number: 7, by: node(0) };
    hear(&mut own, 0, Message::Prepare { round: 0, ballot: turn });
    assert_eq!(stands(&own), (Phase::Asking, Some(node(0))), "it has given its own up");
    let mut whole = anchor(&job, 2);
    for client in [8, 9] {
        hear(&mut whole, client, shares(&job, client, &[0.1; 3]).swap_remove(2));
    }
    let nodes = |anchor: &Anchor| anchor.open_round().unwrap().nodes;
    assert_eq!((nodes(&own), nodes(&whole)), (0, 2));
    let headers: Vec<Header> = whole.stored().held.values().map(|held| held.header).collect();
    let close = Box::new(closing(&job, own.tip(), &headers));
    hear(&mut own, 0, Message::Propose { ballot: turn, close: close.clone() });
    assert_eq!(stands(&own), (Phase::Proposing, Some(node(0))));
    let accept = |index: u8| {
        let (name, seal) = (close.job, Stamp(node(index)));
        let one = SignedAccept::sign(&name, 0, turn, close.digest(), node(index), &seal);
        (node(index), one.signature)
    };
    let accepts = [0, 1, 3].map(accept).to_vec();
    let certificate = Certificate { close: (*close).clone(), ballot: turn, accepts };
    for (anchor, phase) in [(&mut own, Phase::Closed), (&mut whole, Phase::Opening)] {
        hear(anchor, 0, Message::Closed(Box::new(certificate.clone())));
        assert_eq!(stands(anchor), (phase, Some(node(0))), "who holds all of it shows a part");
    }
    let words = [Phase::Gathering, Phase::Closed, Phase::Opening].map(Phase::word);
    assert_eq!(words, ["gathering", "closed", "opening"]);
    assert_eq!(anchor(&job, 7).open_round(), None, "no anchor");
    let over = Job { rounds: 0, ..job };
    assert_eq!(anchor(&over, 2).open_round(), None, "nothing is open any more");
}

#[test]
fn jobs_that_cannot_work_are_refused() {
    let good = job(Mode::Secure);
    assert_eq!(good.check(), Ok(()));
    let spoilt = |spoil: &dyn Fn(&mut Job)| {
        let mut job = good.clone();
        spoil(&mut job);
        assert_ne!(job.digest(), good.digest(), "every field is part of the name");
        job.check().unwrap_err()
    };
    assert_eq!(spoilt(&|job| job.dim = 0), JobError::Dim(0));
    assert_eq!(spoilt(&|job| job.min_clients = 1), JobError::Floor(1));
    assert!(matches!(spoilt(&|job| job.receipts = 2), JobError::Receipts { .. }));
    assert_eq!(spoilt(&|job| job.rounds = 0), JobError::Rounds(0));
    assert_eq!(spoilt(&|job| job.max_examples = 0), JobError::Cap);
    assert_eq!(spoilt(&|job| job.sample_permille = 0), JobError::Sample(0));
    let twice = spoilt(&|job| job.committee.seats[0] = job.committee.seats[1]);
    assert_eq!(twice, JobError::Anchors { found: 4, wanted: 5 });
    let krum = Mode::Plain(Rule::MultiKrum { byzantine: 2, keep: 4 });
    assert!(matches!(spoilt(&|job| job.mode = krum), JobError::Rule(_)));
    assert_eq!(spoilt(&|job| job.per_node = 0), JobError::PerNode(0));
    assert_eq!(spoilt(&|job| job.per_node = 17), JobError::PerNode(17));
    let median = |job: &mut Job| (job.mode, job.per_node) = (Mode::Plain(Rule::Median), 2);
    assert_eq!(spoilt(&median), JobError::Votes, "a node would have two votes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever anchors say they hold, the set made of it is one that all accept, or is below the
    /// floor.
    #[test]
    fn gathered_sets_are_good(
        held in proptest::collection::vec((1u8..20, 1u64..5, 0u64..9, 0u32..200, 0u8..8), 0..60),
        round in 0u64..9,
        per_node in 1u8..4,
    ) {
        let job = Job { per_node, ..job(Mode::Secure) };
        let mut tip = first(&job);
        tip.round = round;
        let mut lists = [const { Vec::new() }; 3];
        for (client, incarnation, base, examples, who) in held {
            for (at, list) in lists.iter_mut().enumerate() {
                if who & (1 << at) == 0 {
                    list.push(part(incarnation, header(client, base, examples)));
                }
            }
        }
        lists.iter_mut().for_each(|list| {
            list.sort_by_key(|header| header.id);
            list.dedup_by_key(|header| header.id);
        });
        let lists: Vec<&[Header]> = lists.iter().map(Vec::as_slice).collect();
        let close = Close::gathered(&job, &tip, &lists, None);
        match close.check(&job, &tip) {
            Ok(()) => {}
            Err(CloseError::Floor { found, .. }) => prop_assert!(found < job.min_clients),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

#[test]
fn a_node_with_several_stores_counts_once() {
    let job = job(Mode::Secure);
    let tip = first(&job);
    let mut headers: Vec<Header> = (1..4).map(|client| header(client, 0, 100)).collect();
    for incarnation in 2..9 {
        let client = Holder { node: node(1), incarnation };
        headers.push(Header { id: ContributionId { client, seq: 1 }, ..headers[0] });
    }
    headers.sort_by_key(|header| header.id);
    let close = closing(&job, &tip, &headers);
    assert_eq!((close.entries.len(), close.nodes()), (3, 3));
    assert_eq!(close.check(&job, &tip), Ok(()));
    let mut several = close.clone();
    several.entries = headers
        .iter()
        .map(|header| Entry { header: *header, weight: weight(&job, header, 0) })
        .collect();
    assert_eq!(several.check(&job, &tip), Err(CloseError::Node));
}

#[test]
fn clients_of_one_node_count_each_where_the_job_says_so_and_nodes_make_the_floor() {
    let job = Job { per_node: 2, ..job(Mode::Secure) };
    let tip = first(&job);
    let mut headers = Vec::new();
    for (node, parts) in [(1, 3), (2, 2), (3, 1)] {
        headers.extend((1..=parts).map(|one| part(one, header(node, 0, 100))));
    }
    let close = closing(&job, &tip, &headers);
    assert_eq!((close.entries.len(), close.nodes()), (5, 3), "two of three, two of two, one");
    assert_eq!(close.check(&job, &tip), Ok(()));
    let entry = |header: &Header| Entry { header: *header, weight: weight(&job, header, 0) };
    let third = Close { entries: headers.iter().map(entry).collect(), ..close.clone() };
    assert_eq!(third.check(&job, &tip), Err(CloseError::Node));
    let alone = Close { entries: headers[..2].iter().map(entry).collect(), ..close };
    assert_eq!(alone.check(&job, &tip), Err(CloseError::Floor { found: 1, wanted: 2 }));
}

/// 128 full weights fit a round: none of a node's many clients takes the place of another node.
#[test]
fn a_node_with_many_clients_keeps_nobody_out() {
    let job = Job { per_node: 16, ..job(Mode::Secure) };
    let tip = first(&job);
    let of_node = |node| (1..=16).map(move |one| part(one, header(node, 0, 100)));
    let headers: Vec<Header> = (1..101).flat_map(of_node).collect();
    let close = closing(&job, &tip, &headers);
    assert_eq!((close.entries.len(), close.nodes()), (128, 100));
    assert_eq!(close.check(&job, &tip), Ok(()));
}

#[test]
fn an_anchor_holds_as_many_of_a_node_as_the_job_counts_and_once_more() {
    let job = Job { per_node: 2, ..job(Mode::Secure) };
    let mut anchor = anchor(&job, 2);
    let shared = |one: u64| {
        let me = Holder { node: node(9), incarnation: one };
        shares_of(&job, me, 0, &[0.5, 0.0, 0.0])
    };
    for one in 1..=4 {
        let taken = hear(&mut anchor, 9, shared(one)[2].clone());
        assert!(matches!(taken[..], [Effect::Store { .. }]), "{one}: {taken:?}");
    }
    hear(&mut anchor, 9, shared(5)[2].clone());
    let said = stored(&mut anchor, 4);
    let full = |one: &Message| matches!(one, Message::Refused { why: Refused::Full, .. });
    assert_eq!(said.iter().filter(|one| full(one)).count(), 1, "{said:?}");
}

/// Every client pays for itself; what another store of the node gave counts for each of them.
#[test]
fn clients_of_one_node_spend_apart() {
    let job = private(2);
    let [me, other] = [1, 2].map(|incarnation| Holder { node: node(9), incarnation });
    let mut tip = first(&job);
    let trains = |tip: &Tip, others: &[Holder]| {
        let client = client(&job, ClientStored::new(tip.clone()));
        assert_eq!(client.me(), me);
        let mut client = client.beside(others.iter().copied());
        let all = [1, 2].map(|ticks| told(&mut client, ticks, ClientInput::Ticked)).concat();
        all.contains(&Effect::Train { round: 0 })
    };
    tip.done = [(me, 1), (other, 5)].into();
    assert!(trains(&tip, &[me, other]));
    assert!(!trains(&tip, &[me]), "nobody knows whose data the other store's were");
    tip.done.insert(me, 2);
    assert!(!trains(&tip, &[me, other]), "its own are spent");
}

#[test]
fn a_model_of_another_size_begins_no_job() {
    let job = job(Mode::Secure);
    let wrong = Tip::first(&job, vec![0; job.dim + 1]);
    assert_eq!(wrong, Err(JobError::Model { found: job.dim + 1, wanted: job.dim }));
}

fn private(contributions: u64) -> Job {
    let mut privacy = Privacy {
        noise_milli: 2_000,
        norm: 1 << 19,
        honest: 2,
        delta: PicoDelta(10_000_000),
        epsilon: MicroEpsilon(0),
        adaptive: None,
    };
    privacy.epsilon = privacy.spent(contributions);
    Job { privacy: Some(privacy), ..job(Mode::Secure) }
}

fn client(job: &Job, stored: ClientStored) -> Client {
    let me = Holder { node: node(9), incarnation: 1 };
    Client::new(Arc::new(job.clone()), me, Arc::new(Stamp(me.node)), stored)
}

/// What a client orders, a tick later than before.
fn told(client: &mut Client, ticks: u64, input: ClientInput) -> Vec<Effect<ClientChange>> {
    let mut effects = Vec::new();
    let now = Now { mono: selvedge_base::Mono(ticks * 200_000), ..Now::default() };
    client.step(now, input, &mut effects);
    effects
}

fn trained(client: &mut Client) -> Vec<Effect<ClientChange>> {
    assert!(told(client, 1, ClientInput::Ticked).contains(&Effect::Train { round: 0 }));
    let (delta, seed) = (vec![0.5, -0.5, 0.0], Seed([3; 32]));
    told(client, 1, ClientInput::Trained { base_round: 0, examples: 50, delta, seed })
}

#[test]
fn jobs_whose_privacy_cannot_be_are_refused() {
    let good = private(3);
    assert_eq!(good.check(), Ok(()));
    let others = [private(2), Job { privacy: None, ..good.clone() }];
    assert!(others.iter().all(|other| other.digest() != good.digest()));
    let refused = |mode, honest| {
        let mut job = Job { mode, min_clients: 9, ..good.clone() };
        job.privacy.as_mut().unwrap().honest = honest;
        job.check()
    };
    let plain = Mode::Plain(Rule::Median);
    assert_eq!(refused(plain, 2), Err(JobError::Privacy(PrivacyError::Plain)));
    assert_eq!(refused(plain, 1), Ok(()));
    let krum = Mode::Plain(Rule::MultiKrum { byzantine: 2, keep: 4 });
    assert_eq!(refused(krum, 1), Err(JobError::Privacy(PrivacyError::Krum)));
    let honest = PrivacyError::Honest { found: 10, floor: 9 };
    assert_eq!(refused(Mode::Secure, 10), Err(JobError::Privacy(honest)));
}

#[test]
fn with_privacy_all_weigh_alike_and_say_nothing_of_their_examples() {
    let job = private(3);
    let weights = [(100, 0, 0), (1, 0, 0), (100, 0, 4)]
        .map(|(examples, base, round)| weight(&job, &header(9, base, examples), round));
    assert_eq!(weights, [1; 3]);
    let mut client = client(&job, ClientStored::new(first(&job)));
    let effects = trained(&mut client);
    let [Effect::Spend(spend)] = effects[..] else { panic!("before it is paid for: {effects:?}") };
    assert_eq!((spend.cost, spend.known), (job.privacy.unwrap().cost(), 0));
    // Without an answer it asks again, and does not train again.
    let again = told(&mut client, 2, ClientInput::Ticked);
    assert!(again.contains(&Effect::Spend(spend)) && client.pending().is_none(), "{again:?}");
    assert!(!again.iter().any(|effect| matches!(effect, Effect::Train { .. })));
    let other = ClientInput::Granted { commitment: [0; 32] };
    assert_eq!(told(&mut client, 2, other), []);
    let granted = ClientInput::Granted { commitment: spend.commitment };
    let effects = told(&mut client, 2, granted.clone());
    assert!(matches!(effects[..], [Effect::Store { write: 1, .. }]), "{effects:?}");
    assert_eq!(told(&mut client, 2, granted), [], "once");
    let pending = client.pending().unwrap();
    assert_eq!((pending.examples, pending.commitment(&job.digest())), (1, spend.commitment));
    // Shortened to half a weight's clip, and noised by more than that.
    let bare = job.clip.encode(&[0.5, -0.5, 0.0], 3).unwrap();
    assert!(pending.levels.iter().zip(&bare).all(|(noisy, bare)| noisy != bare));
    // A crash and the same bytes.
    let disk = ClientStored { pending: Some(pending.clone()), ..ClientStored::new(first(&job)) };
    // What is large is sent again after some ticks only.
    let shares = |client: &mut Client, ticks: std::ops::Range<u64>| {
        let ticked = |at| told(client, at, ClientInput::Ticked);
        let effects: Vec<_> = ticks.flat_map(ticked).collect();
        let share = |effect: Effect<ClientChange>| match effect {
            Effect::Send { message, .. } => {
                matches!(*message, Message::Share { .. }).then_some(message)
            }
            _ => None,
        };
        effects.into_iter().filter_map(share).collect::<Vec<_>>()
    };
    told(&mut client, 2, ClientInput::Stored { write: 1 });
    let mut restarted = self::client(&job, disk);
    let sent = shares(&mut client, 3..3 + outbox::SEND_AGAIN as u64);
    assert_eq!((sent.len(), &sent), (5, &shares(&mut restarted, 1..2)));
}

fn following() -> Job {
    let mut job = private(3);
    let adaptive = Adaptive { quantile_permille: 500, rate_permille: 200 };
    job.privacy.as_mut().unwrap().adaptive = Some(adaptive);
    job
}

#[test]
fn with_a_norm_that_follows_an_update_has_a_vote_and_counts_in_its_own_round_only() {
    let job = following();
    assert_eq!(job.check(), Ok(()));
    assert_ne!(job.digest(), private(3).digest());
    assert_eq!((job.trained_len(), job.payload_len(), job.max_staleness()), (3, 4, 0));
    let median = Job { mode: Mode::Plain(Rule::Median), ..job.clone() };
    let privacy = median.privacy.map(|privacy| Privacy { honest: 1, ..privacy });
    let median = Job { privacy, ..median };
    assert_eq!(median.check(), Err(JobError::Privacy(PrivacyError::Votes)));

    let tip = first(&job);
    assert_eq!(tip.norm, 1 << 19);
    let mut client = client(&job, ClientStored::new(tip.clone()));
    let effects = trained(&mut client);
    let [Effect::Spend(spend)] = effects[..] else { panic!("{effects:?}") };
    told(&mut client, 2, ClientInput::Granted { commitment: spend.commitment });
    let pending = client.pending().unwrap().clone();
    assert_eq!((pending.levels.len(), pending.id.seq), (4, 1));

    // Its round ended without it: it trains again, under the next number, which may follow at once.
    let later = Tip { round: 1, ..tip };
    let disk = ClientStored { pending: Some(pending.clone()), ..ClientStored::new(later.clone()) };
    let mut client = self::client(&job, disk);
    assert!(told(&mut client, 1, ClientInput::Ticked).contains(&Effect::Train { round: 1 }));
    let (delta, seed) = (vec![0.5, -0.5, 0.0], Seed([4; 32]));
    let trained = ClientInput::Trained { base_round: 1, examples: 50, delta, seed };
    let effects = told(&mut client, 1, trained);
    let [Effect::Spend(spend)] = effects[..] else { panic!("{effects:?}") };
    told(&mut client, 2, ClientInput::Granted { commitment: spend.commitment });
    let next = client.pending().unwrap();
    assert_eq!((next.id.seq, next.base_round), (2, 1));
    assert_eq!(later.check_next(&job, next.id), Ok(()));
    assert!(later.check_next(&private(3), next.id).is_err(), "a gap elsewhere");
    // Three are allowed: two are written down, so one is left, though no record tells of any.
    let third = ClientStored {
        pending: Some(Pending {
            base_round: 0,
            id: ContributionId { seq: 3, ..next.id },
            ..pending
        }),
        ..ClientStored::new(later)
    };
    let effects = told(&mut self::client(&job, third), 1, ClientInput::Ticked);
    let spent = |one: &Effect<_>| matches!(one, Effect::Report(Event::PrivacySpent { .. }));
    assert!(effects.iter().any(spent), "{effects:?}");
}

#[test]
fn with_a_norm_that_follows_what_is_void_is_void_without_a_word() {
    let job = following();
    let tip = Tip { round: 2, ..first(&job) };
    let numbered = |client, base_round, seq| {
        let mut header = header(client, base_round, 1);
        header.id.seq = seq;
        header
    };
    // One a round: nobody comes to number 7 by its third.
    let held = [
        numbered(8, 1, 2),
        numbered(9, 1, 1),
        numbered(9, 2, 2),
        numbered(10, 2, 3),
        numbered(11, 2, 7),
    ];
    let close = closing(&job, &tip, &held);
    let counted: Vec<_> = close.entries.iter().map(|entry| entry.header.id.seq).collect();
    assert_eq!((counted, close.expired.len()), (vec![2, 3], 0));
    assert_eq!(close.check(&job, &tip), Ok(()));
    let spoilt = |spoil: &dyn Fn(&mut Close)| {
        let mut close = close.clone();
        spoil(&mut close);
        close.check(&job, &tip)
    };
    let stale = spoilt(&|close| close.entries[0].header.base_round = 1);
    assert_eq!(stale, Err(CloseError::Age { base: 1 }));
    let far = spoilt(&|close| close.entries[1].header.id.seq = 7);
    assert!(matches!(far, Err(CloseError::Sequence { .. })), "{far:?}");
    let expired = Expired { id: held[0].id, base_round: 1, why: Why::Stale };
    let named = spoilt(&|close| close.expired = vec![expired]);
    assert_eq!(named, Err(CloseError::Age { base: 1 }));
}

/// Nobody fills an anchor with what can never count.
#[test]
fn with_a_norm_that_follows_an_anchor_takes_nothing_of_an_earlier_round() {
    let job = following();
    let shared = shares(&self::job(Mode::Secure), 9, &[0.5, 0.5, 0.0]);
    let Message::Share { header, digests, payload } = &shared[0] else { panic!("a share") };
    // A number that nobody comes to, and an earlier round.
    for (round, base_round, seq) in [(0, 0, 2), (3, 2, 1)] {
        let tip = Tip { round, ..first(&job) };
        let stored = AnchorStored::new(tip);
        let mut header = Header { base_round, ..*header };
        header.id.seq = seq;
        let seal = Arc::new(Stamp(node(0)));
        let mut anchor = Anchor::new(Arc::new(job.clone()), node(0), key(0), seal, stored);
        let (digests, payload) = (digests.clone(), payload.clone());
        let told = Message::Share { header, digests, payload };
        let why = Refused::Ahead { round };
        assert_eq!(sent(&hear(&mut anchor, 9, told)), [Message::Refused { id: header.id, why }]);
    }
}

#[test]
fn a_client_that_has_spent_its_part_trains_no_more() {
    let job = private(2);
    let mut tip = first(&job);
    tip.done.insert(Holder { node: node(9), incarnation: 1 }, 1);
    assert_eq!(tip.spent(&job, &node(9)), job.privacy.unwrap().spent(1));
    let asks = |tip: &Tip| {
        let mut client = client(&job, ClientStored::new(tip.clone()));
        [1, 2].map(|ticks| told(&mut client, ticks, ClientInput::Ticked)).concat()
    };
    assert!(asks(&tip).contains(&Effect::Train { round: 0 }));
    // What the same node contributed under a store that is lost counts too.
    tip.done.insert(Holder { node: node(9), incarnation: 7 }, 1);
    let effects = asks(&tip);
    assert!(!effects.contains(&Effect::Train { round: 0 }), "{effects:?}");
    let spent = tip.spent(&job, &node(9));
    assert_eq!(spent, job.privacy.unwrap().epsilon);
    let told: Vec<_> = effects.iter().filter(|one| matches!(one, Effect::Report(_))).collect();
    assert_eq!(told, [&Effect::Report(Event::PrivacySpent { spent })], "once");
}

#[test]
fn what_the_ledger_denies_does_not_leave() {
    let job = private(5);
    let mut client = client(&job, ClientStored::new(first(&job)));
    let effects = trained(&mut client);
    let [Effect::Spend(spend)] = effects[..] else { panic!("{effects:?}") };
    let (epsilon, cap) = (MicroEpsilon(2), MicroEpsilon(1));
    let why = Overspent { epsilon, cap, whose: Bound::Data };
    let denied = ClientInput::Denied { commitment: spend.commitment, why };
    assert_eq!(told(&mut client, 2, denied), [Effect::Report(Event::PrivacyDenied(why))]);
    let granted = ClientInput::Granted { commitment: spend.commitment };
    assert_eq!(told(&mut client, 2, granted), [], "too late");
    let later = told(&mut client, 3, ClientInput::Ticked);
    let trains = |effect: &Effect<_>| matches!(effect, Effect::Train { .. } | Effect::Spend(_));
    assert!(client.pending().is_none() && !later.iter().any(trains), "{later:?}");
}

#[path = "tests/guard.rs"]
mod guard;
#[path = "tests/parts.rs"]
mod parts;
#[path = "tests/wishes.rs"]
mod wishes;
