#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use selvedge_crdt::escrow::Holder;
use selvedge_federated::field::Fp;
use selvedge_federated::robust::Rule;
use selvedge_federated::round::{Folded, Job, Mode, Partial, Seat};
use selvedge_net::Identity;
use selvedge_proto::seal::sealing_key;
use selvedge_train::Subject;

use super::super::chain::{ChainPart, ChainWriter};
use super::super::test_rounds::{Ran, job_file, run};
use super::super::trained::TrainedError;
use super::*;

/// Three rounds in shares, the anchors replaced in between.
static SECURE: LazyLock<Ran> = LazyLock::new(|| run(&job_file("rounds = 3", ""), true));
/// Two rounds in the open.
static PLAIN: LazyLock<Ran> = LazyLock::new(|| {
    run(&job_file("rounds = 2", "[mode]\nkind = 'plain'\nrule = 'median'"), false)
});

fn model(ran: &Ran) -> TrainedModel {
    TrainedModel::of("small", &ran.told, &ran.tip).unwrap()
}

fn chain(ran: &Ran) -> Vec<u8> {
    let mut writer = ChainWriter::begin(Vec::new(), &ran.told).unwrap();
    ran.rounds.iter().for_each(|folded| writer.round(folded).unwrap());
    writer.finish().unwrap()
}

/// A chain of whatever, as no writer would write it.
fn forged(told: &Announced, rounds: &[Folded]) -> Vec<u8> {
    let mut bytes = b"selvedge chain\n\x01".to_vec();
    let job = told.to_bytes().unwrap();
    for part in rounds.iter().map(|one| postcard::to_stdvec(one).unwrap()).fold(vec![job], push) {
        bytes.extend((part.len() as u32).to_be_bytes());
        bytes.extend(part);
    }
    bytes
}

fn push(mut parts: Vec<Vec<u8>>, part: Vec<u8>) -> Vec<Vec<u8>> {
    parts.push(part);
    parts
}

fn refused(model: &TrainedModel, chain: &[u8]) -> VerifyError {
    verify_model(model, chain).unwrap_err()
}

#[test]
fn a_model_is_proven_by_its_chain() {
    let ran = &*SECURE;
    let verified = verify_model(&model(ran), &chain(ran)[..]).unwrap();
    assert_eq!((&verified.tip, &verified.told), (&ran.tip, &ran.told));
    assert_eq!(verified.tip.round, 3);
    let anchors = |nodes: &[NodeId]| nodes.to_vec();
    let replaced = [(0, anchors(&ran.nodes[..5])), (1, anchors(&ran.nodes[1..]))];
    assert_eq!(verified.anchors, replaced);
    let said: u64 = verified.counted.values().sum();
    let closes = ran.rounds.iter().map(|one| &one.certificate.close);
    assert_eq!(said, closes.clone().map(|close| close.entries.len() as u64).sum::<u64>());
    assert_eq!(verified.expired, closes.map(|close| close.expired.len() as u64).sum::<u64>());
    assert!(verified.counted.len() >= 4 && verified.counted.keys().all(|n| ran.nodes.contains(n)));
    let ran = &*PLAIN;
    let verified = verify_model(&model(ran), &chain(ran)[..]).unwrap();
    assert_eq!((&verified.tip, verified.tip.round), (&ran.tip, 2));
    assert_eq!(verified.anchors, [(0, ran.nodes[..5].to_vec())]);
}

#[test]
fn rounds_of_which_nothing_checks_the_parts_are_counted() {
    let ran = &*SECURE;
    let unchecked = |rounds: &[Folded]| {
        let verified = verify_model(&model(ran), &forged(&ran.told, rounds)[..]).unwrap();
        assert_eq!(verified.tip, ran.tip, "the record does not say how many showed a part");
        verified.unchecked
    };
    let enough = ran.told.job.openings();
    let shown = |parts: usize, rounds: usize| {
        let mut folded = ran.rounds.clone();
        for one in folded.iter_mut().take(rounds) {
            assert!(one.openings.len() > enough, "a round of the tests is of all parts");
            one.openings.truncate(parts);
        }
        unchecked(&folded)
    };
    assert_eq!((shown(enough + 1, 3), shown(enough, 0)), (0, 0));
    assert_eq!((shown(enough, 1), shown(enough, 3)), (1, 3));
    let mut plain = PLAIN.rounds.clone();
    plain.iter_mut().for_each(|one| one.openings.truncate(PLAIN.told.job.openings()));
    let verified = verify_chain(&forged(&PLAIN.told, &plain)[..]).unwrap();
    assert_eq!((verified.tip, verified.unchecked), (PLAIN.tip.clone(), 0), "equal sums agree");
}

#[test]
fn each_contribution_is_told_once_with_what_became_of_it() {
    let ran = &*SECURE;
    let mut told = Vec::new();
    let verified = verify_each(&model(ran), &chain(ran)[..], &mut |one| told.push(one)).unwrap();
    let counts: u64 = verified.counted.values().sum();
    let (mut weighed, mut expired) = (0, 0);
    for one in &told {
        match one.fate {
            Fate::Counts(weight) => weighed += u64::from(weight > 0),
            Fate::Expired(_) => expired += 1,
            Fate::LeftOut => panic!("no sum is beyond what honest updates make: {one:?}"),
        }
    }
    assert_eq!((weighed, expired), (counts, verified.expired));
    let mut last: BTreeMap<Holder, u64> = BTreeMap::new();
    for one in &told {
        let last = last.entry(one.id.client).or_default();
        assert_eq!(one.id.seq, *last + 1, "{one:?}");
        *last += 1;
        assert!(one.base_round <= one.round, "{one:?}");
    }
    assert_eq!(last, verified.tip.done, "as far as the record says");
    assert!(told.is_sorted_by_key(|one| one.round));
    let mut forged = ran.rounds.clone();
    forged[1].certificate.close.entries[0].header.id.seq += 1;
    let mut told = Vec::new();
    let forged = self::forged(&ran.told, &forged);
    verify_each(&model(ran), &forged[..], &mut |one| told.push(one)).unwrap_err();
    assert!(told.iter().all(|one| one.round == 0), "nothing is told of what does not follow");
}

#[test]
fn strategies_with_a_memory_are_proven_as_well() {
    for strategy in ["'fedadam'\nrate = 0.1\ntau = 0.01", "'scaffold'\nclients = 6"] {
        let ran = run(&job_file("rounds = 2", &format!("[strategy]\nkind = {strategy}")), false);
        let verified = verify_model(&model(&ran), &chain(&ran)[..]).unwrap();
        assert_eq!(verified.tip, ran.tip);
    }
}

#[test]
fn a_model_survives_its_file_and_is_the_rounds_own() {
    let ran = &*SECURE;
    let model = model(ran);
    let read = TrainedModel::from_bytes(&model.to_bytes().unwrap()).unwrap();
    assert_eq!(read, model);
    assert!(verify_model(&read, &chain(ran)[..]).is_ok());
    for (weight, units) in model.weights.iter().zip(ran.tip.server.model()) {
        assert_eq!(f64::from(*weight), f64::from(*units) / 1_048_576.0, "below 16 it is exact");
    }
    assert_eq!(weight(i32::MAX), 2_048.0);
    let other = TrainedModel::of("small", &PLAIN.told, &ran.tip);
    assert!(matches!(other, Err(TrainedError::OtherJob)));
    assert!(matches!(TrainedModel::of("a b", &ran.told, &ran.tip), Err(TrainedError::Note(_))));
    let bare = selvedge_train::Saved {
        model: model.subject.as_model().unwrap().clone(),
        weights: model.weights,
        notes: BTreeMap::from([("job".to_owned(), "\u{1b}[2J".to_owned())]),
    };
    let read = TrainedModel::from_bytes(&bare.to_bytes().unwrap());
    assert!(matches!(read, Err(TrainedError::Note("job"))), "{read:?}");
}

#[test]
fn a_model_that_is_another_one_is_refused() {
    let (ran, chain) = (&*SECURE, chain(&SECURE));
    let said = |spoil: &dyn Fn(&mut TrainedModel)| {
        let mut model = model(ran);
        spoil(&mut model);
        refused(&model, &chain)
    };
    let next = |weight: f32| f32::from_bits(weight.to_bits() ^ 1);
    assert!(matches!(
        said(&|model| model.weights[5] = next(model.weights[5])),
        VerifyError::Weight { at: 5, .. }
    ));
    assert!(matches!(said(&|model| model.round = 2), VerifyError::Rounds { model: 2, chain: 3 }));
    assert!(matches!(said(&|model| model.record[0] ^= 1), VerifyError::Record { .. }));
    assert!(matches!(said(&|model| model.job[0] ^= 1), VerifyError::OtherJob { .. }));
    assert!(matches!(said(&|model| model.weights.truncate(9)), VerifyError::Layers));
    let barer = |model: &mut TrainedModel| {
        let Subject::Model(layers) = &mut model.subject else { panic!("a small model") };
        layers.hidden.clear();
    };
    assert!(matches!(said(&barer), VerifyError::Layers));
    assert!(matches!(refused(&model(&PLAIN), &chain), VerifyError::OtherJob { .. }));
}

#[test]
fn an_earlier_model_is_proven_as_the_earlier_model() {
    let ran = &*SECURE;
    let mut tip = ran.told.first().unwrap();
    for end in 0..=3 {
        let model = TrainedModel::of("small", &ran.told, &tip).unwrap();
        let cut = forged(&ran.told, &ran.rounds[..end]);
        assert_eq!(verify_model(&model, &cut[..]).unwrap().tip, tip);
        if let Some(folded) = ran.rounds.get(end) {
            let other = refused(&self::model(ran), &cut);
            assert!(matches!(other, VerifyError::Rounds { model: 3, .. }), "{other}");
            tip = tip.fold(&ran.told.job, folded, &Reader).unwrap();
        }
    }
}

/// A way to spoil the end of a round.
type Spoil = (&'static str, fn(&mut Folded));

/// All that is in the end of a round, each spoilt once.
const SPOILT: &[Spoil] = &[
    ("job", |one| one.certificate.close.job[3] ^= 1),
    ("round", |one| one.certificate.close.round += 1),
    ("previous", |one| one.certificate.close.previous[0] ^= 1),
    ("fewer entries than the floor", |one| one.certificate.close.entries.truncate(3)),
    ("no entries", |one| one.certificate.close.entries.clear()),
    ("an entry twice", |one| {
        let entry = one.certificate.close.entries[0];
        one.certificate.close.entries.insert(0, entry);
    }),
    ("entries in another order", |one| one.certificate.close.entries.reverse()),
    ("node", |one| one.certificate.close.entries[0].header.id.client.node.0[0] ^= 1),
    ("store", |one| one.certificate.close.entries[0].header.id.client.incarnation += 1),
    ("sequence", |one| one.certificate.close.entries[0].header.id.seq += 1),
    ("base", |one| one.certificate.close.entries[0].header.base_round += 1),
    ("examples", |one| one.certificate.close.entries[0].header.examples -= 1),
    ("commitment", |one| one.certificate.close.entries[0].header.commitment[0] ^= 1),
    ("epoch", |one| one.certificate.close.entries[0].header.epoch += 1),
    ("sharing", |one| one.certificate.close.entries[0].header.sharing[0] ^= 1),
    ("weight", |one| one.certificate.close.entries[0].weight += 1),
    ("an expired one", |one| {
        let client = Holder { node: NodeId([255; 32]), incarnation: 1 };
        let id = ContributionId { client, seq: 1 };
        one.certificate.close.expired.push(Expired { id, base_round: 0, why: Why::Stale });
    }),
    ("anchors", |one| {
        let close = &mut one.certificate.close;
        close.next = match close.next.take() {
            Some(_) => None,
            None => Some(Committee { epoch: 1, seats: Vec::new() }),
        };
    }),
    ("ballot", |one| one.certificate.ballot.number += 1),
    ("proposer", |one| one.certificate.ballot.by.0[0] ^= 1),
    ("signature of an acceptance", |one| one.certificate.accepts[0].1.0[0] ^= 1),
    ("other half of it", |one| one.certificate.accepts[1].1.1[31] ^= 1),
    ("acceptances exchanged", |one| {
        let first = one.certificate.accepts[0].1;
        one.certificate.accepts[0].1 = std::mem::replace(&mut one.certificate.accepts[1].1, first);
    }),
    ("an acceptance twice", |one| one.certificate.accepts[1] = one.certificate.accepts[0]),
    ("too few acceptances", |one| one.certificate.accepts.truncate(2)),
    ("who accepted", |one| one.certificate.accepts[0].0 = Identity::generate().node_id()),
    ("round of a part", |one| one.openings[0].round += 1),
    ("set of a part", |one| one.openings[0].close[0] ^= 1),
    ("anchor of a part", |one| one.openings[0].anchor = Identity::generate().node_id()),
    ("signature of a part", |one| one.openings[0].signature.0[0] ^= 1),
    ("a part twice", |one| one.openings[1] = one.openings[0].clone()),
    ("too few parts", |one| one.openings.truncate(1)),
    ("a value of a part", |one| match &mut one.openings[0].partial {
        Partial::Shares(share) => share[0] = share[0].plus(Fp::ONE),
        Partial::Open(open) => open.sum[0] += 1,
    }),
    ("a part of another length", |one| match &mut one.openings[0].partial {
        Partial::Shares(share) => drop(share.pop()),
        Partial::Open(open) => drop(open.sum.pop()),
    }),
    ("a part of the other kind", |one| {
        let open = Rule::Mean.aggregate(&[(1, &[0; 23])], 23);
        let partial = &mut one.openings[0].partial;
        *partial = match partial {
            Partial::Shares(_) => Partial::Open(open),
            Partial::Open(_) => Partial::Shares(vec![Fp::ONE; 23]),
        };
    }),
];

#[test]
fn whatever_is_spoilt_in_a_round_is_found_in_that_round() {
    for ran in [&*SECURE, &*PLAIN] {
        let model = model(ran);
        for round in 0..ran.rounds.len() {
            for (what, spoil) in SPOILT {
                let mut rounds = ran.rounds.clone();
                spoil(&mut rounds[round]);
                let said = refused(&model, &forged(&ran.told, &rounds));
                let found =
                    matches!(said, VerifyError::Round { round: at, .. } if at == round as u64);
                assert!(found, "{what} in round {round}: {said}");
            }
        }
    }
}

#[test]
fn rounds_that_do_not_follow_are_found() {
    let ran = &*SECURE;
    let model = model(ran);
    let of = |order: &[usize]| {
        let rounds: Vec<Folded> = order.iter().map(|at| ran.rounds[*at].clone()).collect();
        refused(&model, &forged(&ran.told, &rounds))
    };
    assert!(matches!(of(&[1, 2]), VerifyError::Round { round: 0, .. }));
    assert!(matches!(of(&[0, 2]), VerifyError::Round { round: 1, .. }));
    assert!(matches!(of(&[0, 0, 1]), VerifyError::Round { round: 1, .. }));
    assert!(matches!(of(&[0, 1, 2, 2]), VerifyError::Chain(ChainError::Beyond(3))));
    let mut foreign = ran.rounds.clone();
    foreign[1] = PLAIN.rounds[1].clone();
    let said = refused(&model, &forged(&ran.told, &foreign));
    assert!(matches!(said, VerifyError::Round { round: 1, .. }), "{said}");
}

#[test]
fn rounds_of_anchors_that_the_job_does_not_name_are_refused() {
    // A whole job of the same file, run by other nodes.
    let (ran, other) = (&*SECURE, run(&job_file("rounds = 3", ""), true));
    let mut model = model(&other);
    let honest = forged(&other.told, &other.rounds);
    assert!(verify_model(&model, &honest[..]).is_ok(), "of its own job it is proven");
    model.job = ran.told.job.digest();
    let said = refused(&model, &forged(&ran.told, &other.rounds));
    assert!(matches!(said, VerifyError::Round { round: 0, .. }), "{said}");
}

#[test]
fn a_job_that_was_changed_has_other_rounds() {
    let ran = &*SECURE;
    let changes: &[fn(&mut Job)] = &[
        |job| job.nonce += 1,
        |job| job.min_clients -= 1,
        |job| job.target += 1,
        |job| job.rounds += 1,
        |job| job.max_examples -= 1,
        |job| (job.mode, job.guard) = (Mode::Plain(Rule::Mean), None),
        |job| job.committee.epoch = u64::MAX,
        |job| job.committee.seats.reverse(),
        |job| {
            let node = Identity::generate().node_id();
            job.committee.seats[0] = Seat { node, key: sealing_key(&node).unwrap() };
        },
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut told = ran.told.clone();
        change(&mut told.job);
        let mut model = model(ran);
        let forged = forged(&told, &ran.rounds);
        let said = refused(&model, &forged);
        assert!(matches!(said, VerifyError::OtherJob { .. }), "{at}: {said}");
        model.job = told.job.digest();
        let said = refused(&model, &forged);
        assert!(matches!(said, VerifyError::Round { round: 0, .. }), "{at}: {said}");
    }
    let mut told = ran.told.clone();
    told.task.seed += 1;
    let said = refused(&model(ran), &forged(&told, &ran.rounds));
    assert!(matches!(said, VerifyError::Chain(ChainError::Job(AnnouncedError::Unbound))), "{said}");
    told.job.task = told.task.digest(None).unwrap();
    let mut other = model(ran);
    other.job = told.job.digest();
    let said = refused(&other, &forged(&told, &ran.rounds));
    assert!(matches!(said, VerifyError::Job(AnnouncedError::First)), "{said}");
}

#[test]
fn files_that_are_cut_or_something_else_are_named_so() {
    let (ran, whole) = (&*SECURE, chain(&SECURE));
    let model = model(ran);
    let said = |bytes: &[u8]| match refused(&model, bytes) {
        VerifyError::Chain(why) => why,
        other => panic!("{other}"),
    };
    assert!(matches!(said(b""), ChainError::Foreign));
    assert!(matches!(said(&model.to_bytes().unwrap()), ChainError::Foreign));
    assert!(matches!(said(&whole[..9]), ChainError::Cut(ChainPart::Beginning)));
    assert!(matches!(said(&whole[..15]), ChainError::Cut(ChainPart::Beginning)));
    assert!(matches!(said(&whole[..16]), ChainError::Cut(ChainPart::Job)));
    assert!(matches!(said(&whole[..18]), ChainError::Cut(ChainPart::Job)));
    assert!(matches!(said(&whole[..30]), ChainError::Cut(ChainPart::Job)));
    let newer = [&whole[..15], &[2], &whole[16..]].concat();
    assert!(matches!(said(&newer), ChainError::Version(2)));
    let first = 16 + 4 + ran.told.to_bytes().unwrap().len();
    for inside in [first + 1, first + 4, first + 100] {
        assert!(matches!(said(&whole[..inside]), ChainError::Cut(ChainPart::Round(0))), "{inside}");
    }
    let last = said(&whole[..whole.len() - 1]);
    assert!(matches!(last, ChainError::Cut(ChainPart::Round(2))), "{last}");
    let beyond = [&whole[..], &[0]].concat();
    assert!(matches!(said(&beyond), ChainError::Beyond(3)));
    // Lengths that nobody has memory for, and such as lie.
    let with = |length: u32| {
        let mut bytes = whole.clone();
        bytes[first..first + 4].copy_from_slice(&length.to_be_bytes());
        said(&bytes)
    };
    assert!(matches!(with(u32::MAX), ChainError::TooLong { part: ChainPart::Round(0), .. }));
    assert!(matches!(with(8 << 20), ChainError::Cut(ChainPart::Round(0))));
    assert!(matches!(with(0), ChainError::Malformed { part: ChainPart::Round(0), .. }));
    let mut long = forged(&ran.told, &ran.rounds[..1]);
    let length = (long.len() - first - 4 + 2) as u32;
    long[first..first + 4].copy_from_slice(&length.to_be_bytes());
    long.extend([0, 0]);
    let said = said(&long);
    assert!(
        matches!(&said, ChainError::Malformed { why, .. } if why.contains("2 bytes")),
        "{said}"
    );
}

/// One bit of each byte, which no room for chance leaves out.
#[test]
fn no_byte_of_a_model_file_but_those_of_its_name_can_be_changed() {
    let (ran, chain) = (&*PLAIN, chain(&PLAIN));
    let honest = model(ran);
    let file = honest.to_bytes().unwrap();
    let of = |text: &[u8]| file.windows(text.len()).position(|part| part == text).unwrap();
    let name = of(br#""job":"small""#) + br#""job":""#.len();
    let mut renamed = 0;
    for at in 0..file.len() {
        let mut turned = file.clone();
        turned[at] ^= 1;
        let Ok(read) = TrainedModel::from_bytes(&turned) else { continue };
        if verify_model(&read, &chain[..]).is_ok() {
            assert!((name..name + "small".len()).contains(&at), "byte {at} is proven by nothing");
            assert_eq!(TrainedModel { name: honest.name.clone(), ..read }, honest);
            renamed += 1;
        }
    }
    assert!(renamed > 0, "a name is nobody's word, and reads as one");
    let how = of(b"The class is the place of the greatest value of the last layer.");
    let lie = b"The class is 1, whatever the values are.                       ";
    let mut turned = file.clone();
    turned[how..how + lie.len()].copy_from_slice(lie);
    let said = TrainedModel::from_bytes(&turned).unwrap_err();
    let TrainedError::Bytes(at) = said else { panic!("{said}") };
    assert_eq!(at, how + "The class is ".len());
    assert!(said.to_string().contains("`selvedge fed model export` writes it anew"), "{said}");
    // A note that no export writes, and the notes in another order of bytes.
    let (_, header) = safetensors(&file);
    let more = header.replacen("{\"how\"", "{\"hint\":\"ask 1\",\"how\"", 1);
    let spaced = header.replacen("{\"how\"", "{ \"how\"", 1);
    for header in [more, spaced] {
        let other = with_header(&file, &header);
        let said = TrainedModel::from_bytes(&other);
        assert!(matches!(said, Err(TrainedError::Bytes(_))), "{said:?}");
    }
}

/// The header of a file and how long it is.
fn safetensors(file: &[u8]) -> (usize, String) {
    let length = u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    (length, String::from_utf8(file[8..8 + length].to_vec()).unwrap())
}

/// The file with another header, whose weights begin where they may.
fn with_header(file: &[u8], header: &str) -> Vec<u8> {
    let header = header.trim_end();
    let length = header.len().next_multiple_of(8);
    let mut bytes = (length as u64).to_le_bytes().to_vec();
    bytes.extend(format!("{header:<length$}").into_bytes());
    bytes.extend(&file[8 + safetensors(file).0..]);
    bytes
}

/// Who submitted a job is not in its digest, and `verify` tells nobody of it.
#[test]
fn no_byte_of_a_chains_job_but_those_of_who_submitted_it_can_be_changed() {
    let (ran, whole) = (&*PLAIN, chain(&PLAIN));
    let model = model(ran);
    let job = ran.told.to_bytes().unwrap();
    let by = job.windows(32).rposition(|part| part == ran.told.by.0).unwrap();
    let first = b"selvedge chain\n\x01".len() + 4;
    for at in 0..first + job.len() {
        for flip in [1, 2] {
            let mut turned = whole.clone();
            turned[at] ^= flip;
            if verify_model(&model, &turned[..]).is_ok() {
                let within = first + by..first + by + 32;
                assert!(within.contains(&at), "byte {at} is proven by nothing");
            }
        }
    }
}

/// Files as an earlier build wrote them are proven by this one. With `SELVEDGE_WRITE_GOLDEN` set
/// they are written anew, which only a new version of a format is a reason for.
#[test]
fn files_of_an_earlier_build_are_proven() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/federated/golden");
    let (file, chain) = (folder.join("small.safetensors"), folder.join("small.chain"));
    if std::env::var_os("SELVEDGE_WRITE_GOLDEN").is_some() {
        std::fs::write(&file, model(&SECURE).to_bytes().unwrap()).unwrap();
        std::fs::write(&chain, self::chain(&SECURE)).unwrap();
    }
    let model = TrainedModel::from_bytes(&std::fs::read(file).unwrap()).unwrap();
    let verified = verify_model(&model, std::fs::File::open(chain).unwrap()).unwrap();
    assert_eq!((model.name.as_str(), verified.tip.round), ("small", 3));
    assert_eq!((verified.anchors.len(), verified.tip.record), (2, model.record));
}

#[test]
fn a_writer_takes_the_rounds_of_a_job_in_order() {
    let ran = &*PLAIN;
    let mut writer = ChainWriter::begin(Vec::new(), &ran.told).unwrap();
    let early = writer.round(&ran.rounds[1]);
    assert!(matches!(early, Err(ChainError::Order { found: 1, wanted: 0 })));
    writer.round(&ran.rounds[0]).unwrap();
    writer.round(&ran.rounds[1]).unwrap();
    let mut more = ran.rounds[1].clone();
    more.certificate.close.round = 2;
    assert!(matches!(writer.round(&more), Err(ChainError::Beyond(2))));
    assert_eq!(writer.finish().unwrap(), chain(ran));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is turned in either file: it is refused, or what is said of the model is the same
    /// but for what nothing binds, the name and where the job was submitted.
    #[test]
    fn no_turned_byte_changes_what_is_proven(
        in_chain in any::<bool>(), at in any::<prop::sample::Index>(), flip in 1_u8..,
    ) {
        let (ran, mut chain) = (&*PLAIN, chain(&PLAIN));
        let mut file = model(ran).to_bytes().unwrap();
        let honest = verify_model(&model(ran), &chain[..]).unwrap();
        let turned = if in_chain { &mut chain } else { &mut file };
        let at = at.index(turned.len());
        turned[at] ^= flip;
        if let Ok(model) = TrainedModel::from_bytes(&file)
            && let Ok(mut verified) = verify_model(&model, &chain[..])
        {
            verified.told.by = honest.told.by;
            prop_assert_eq!(verified, honest);
            let named = self::model(ran).name;
            prop_assert_eq!(TrainedModel { name: named, ..model }, self::model(ran));
        }
    }
}
