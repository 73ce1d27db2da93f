//! What secure mode refuses, though nobody sees an update: shares of no polynomial, sums that
//! honest updates cannot make, and groups that lie.

use super::super::client::{challenge, context, payload_digest, sharing_digest};
use super::*;
use crate::fixed::{LEVEL_MAX, UpdateError};
use crate::mask::Masks;
use crate::proof::{blinded, prove};
use crate::seal::seal;

fn guarded(groups: u8, rule: Rule) -> Job {
    Job { guard: Some(Guard { groups, rule }), ..job(Mode::Secure) }
}

/// What a client sends that shares what it likes, and does with the shares what it likes.
fn forged(
    job: &Job,
    index: u8,
    elements: &[Fp],
    spoil: impl FnOnce(&mut Vec<Vec<Fp>>),
) -> Vec<Message> {
    let name = job.digest();
    let mut header = header(index, 0, 100);
    let mut masks = Masks::new(&Seed([index; 32]));
    let blinded = blinded(job.scheme, elements, &mut masks);
    let honest = job.scheme.share(&blinded, &mut masks);
    let mut shares = honest.clone();
    spoil(&mut shares);
    let each = |(place, share): (usize, &Vec<Fp>)| {
        let (key, context) = (key(place as u8).public(), context(&name, &header.id, 0, place));
        seal(share, &key, &Seed([index + place as u8; 32]), &context).unwrap()
    };
    let sealed: Vec<Vec<u8>> = shares.iter().enumerate().map(each).collect();
    let digests: Vec<Digest> =
        sealed.iter().map(|sealed| payload_digest(&Payload::Sealed(sealed.clone()))).collect();
    let proof = prove(job.scheme, &blinded, &honest, &challenge(&name, &header, &digests));
    header.sharing = sharing_digest(&digests, &proof);
    let share = |sealed: Vec<u8>| {
        let payload = Payload::Proven { sealed, proof: proof.clone() };
        Message::Share { header, digests: digests.clone(), payload }
    };
    sealed.into_iter().map(share).collect()
}

/// The same of levels, which may be beyond all bounds.
fn levels(job: &Job, index: u8, levels: [i64; 3]) -> Vec<Message> {
    forged(job, index, &levels.map(Fp::of_signed), |_| ())
}

fn refusals(effects: &[Effect<AnchorChange>]) -> Vec<Refused> {
    let why = |effect: &Effect<AnchorChange>| match effect {
        Effect::Report(Event::Refused { why, .. }) => Some(*why),
        _ => None,
    };
    effects.iter().filter_map(why).collect()
}

/// A round of these contributions, all of which every anchor takes: what follows, and the ids of
/// what is left out.
fn round_of(job: &Job, shared: &[Vec<Message>]) -> (Tip, Vec<ContributionId>, Folded) {
    let tip = first(job);
    let mut anchors: Vec<Anchor> = (0..5).map(|index| anchor(job, index)).collect();
    let mut headers = Vec::new();
    for messages in shared {
        let Message::Share { header, .. } = &messages[0] else { panic!("a share") };
        headers.push(*header);
        for (anchor, message) in anchors.iter_mut().zip(messages) {
            let from = header.id.client.node.0[0];
            assert_eq!(refusals(&hear(anchor, from, message.clone())), []);
        }
    }
    let close = closing(job, &tip, &headers);
    assert_eq!(close.check(job, &tip), Ok(()));
    let ballot = Ballot { number: 1, by: node(0) };
    let accept = |index: u8| {
        let seal = Stamp(node(index));
        let (round, set) = (tip.round, close.digest());
        (
            node(index),
            SignedAccept::sign(&tip.job, round, ballot, set, node(index), &seal).signature,
        )
    };
    let accepts = [0, 1, 2].map(accept).to_vec();
    let openings =
        anchors[..=job.openings()].iter().map(|anchor| anchor.part_of(&close).unwrap()).collect();
    let folded = Folded { certificate: Certificate { close, ballot, accepts }, openings };
    let (next, left_out) = tip.fold_telling(job, &folded, &Stamp(node(0))).unwrap();
    // An anchor, and a client, come to the same and say what is left out.
    let effects = hear(&mut anchors[4], 0, Message::Folded(Box::new(folded.clone())));
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Report(Event::LeftOut { round: 0, ids }) => Some(ids.clone()),
        _ => None,
    });
    assert_eq!(told.unwrap_or_default(), left_out);
    assert_eq!(anchors[4].tip(), &next);
    (next, left_out, folded)
}

fn honest(job: &Job, count: u8) -> Vec<Vec<Message>> {
    (0..count).map(|at| shares(job, 10 + at, &[0.25, -0.25, f32::from(at) / 1_000.0])).collect()
}

fn moved(tip: &Tip) -> Vec<f64> {
    tip.server.model().iter().map(|weight| f64::from(*weight) / f64::from(1 << 20)).collect()
}

#[test]
fn honest_updates_with_a_proof_move_the_model_as_they_did_without() {
    let proven = guarded(1, Rule::Mean);
    let bare = job(Mode::Secure);
    assert_ne!(proven.digest(), bare.digest(), "another job");
    let (tip, left_out, _) = round_of(&proven, &honest(&proven, 4));
    let (old, ..) = round_of(&bare, &honest(&bare, 4));
    assert_eq!((tip.server.model(), left_out.len()), (old.server.model(), 0));
    assert!((moved(&tip)[0] - 0.25).abs() < 1e-4, "{:?}", moved(&tip));
}

#[test]
fn shares_that_lie_on_no_polynomial_are_refused_and_not_held() {
    let job = guarded(1, Rule::Mean);
    let spoil = |shares: &mut Vec<Vec<Fp>>| shares[2][1] = shares[2][1].plus(Fp::ONE);
    let told = forged(&job, 9, &[Fp::ONE; 3], spoil);
    for place in 0..5u8 {
        let mut anchor = anchor(&job, place);
        let effects = hear(&mut anchor, 9, told[usize::from(place)].clone());
        let wanted: &[Refused] = if place == 2 { &[Refused::Unproven] } else { &[] };
        assert_eq!(refusals(&effects), wanted, "{place}");
        assert_eq!(anchor.stored().held.is_empty(), place == 2);
    }
}

#[test]
fn a_share_without_its_proof_or_of_another_length_is_refused() {
    let job = guarded(1, Rule::Mean);
    let told = levels(&job, 9, [1, 2, 3]);
    let Message::Share { header, digests, payload } = told[2].clone() else { panic!("a share") };
    let Payload::Proven { sealed, proof } = payload else { panic!("a proof") };
    let refusal = |message: Message| {
        let mut anchor = anchor(&job, 2);
        let found = refusals(&hear(&mut anchor, 9, message));
        assert!(anchor.stored().held.is_empty());
        found
    };
    let share = |header, payload| Message::Share { header, digests: digests.clone(), payload };
    let sharing = sharing_digest(&digests, &[]);
    let bare = share(Header { sharing, ..header }, Payload::Sealed(sealed.clone()));
    assert_eq!(refusal(bare), [Refused::Unproven], "the form of jobs without a guard");
    let other = proof[1..].to_vec();
    let swapped = share(header, Payload::Proven { sealed: sealed.clone(), proof: other.clone() });
    assert_eq!(refusal(swapped), [Refused::Digest], "the header names the proof");
    let sharing = sharing_digest(&digests, &other);
    let named = share(
        Header { sharing, ..header },
        Payload::Proven { sealed: sealed.clone(), proof: other },
    );
    assert_eq!(refusal(named), [Refused::Unproven]);
    for (end, found) in [(6, 6), (8, 8)] {
        let spoil = |shares: &mut Vec<Vec<Fp>>| shares[2].resize(end, Fp::ONE);
        let told = forged(&job, 9, &[Fp::ONE; 3], spoil);
        let why = Refused::Update(UpdateError::Length { found, wanted: 7 });
        assert_eq!(refusal(told[2].clone()), [why]);
    }
    // Nor does a job of an older program take what it would not understand.
    let old = self::job(Mode::Secure);
    let told = levels(&old, 9, [1, 2, 3]);
    assert_eq!(refusals(&hear(&mut self::anchor(&old, 2), 9, told[2].clone())), [Refused::Sealed]);
}

#[test]
fn a_sum_that_honest_updates_cannot_make_is_left_out_and_told() {
    let job = guarded(1, Rule::Mean);
    let far = i64::from(LEVEL_MAX) * 100;
    let with_liar = |lie: i64| {
        let mut shared = honest(&job, 4);
        shared.push(levels(&job, 9, [lie, 0, 0]));
        round_of(&job, &shared)
    };
    let (tip, left_out, folded) = with_liar(far);
    assert_eq!((left_out.len(), moved(&tip)), (5, vec![0.0; 3]), "nothing of it counts");
    assert_eq!((tip.round, tip.done.len()), (1, 5), "and nothing comes again");
    // Whoever follows comes to the same, and the client hears why it does not count.
    let me = Holder { node: node(10), incarnation: 1 };
    let pending = Pending {
        id: ContributionId { client: me, seq: 1 },
        base_round: 0,
        examples: 50,
        levels: vec![0; 3],
        seed: Seed([10; 32]),
    };
    let disk = ClientStored { pending: Some(pending), ..ClientStored::new(first(&job)) };
    let seal = Arc::new(Stamp(me.node));
    let mut client = Client::new(Arc::new(job.clone()), me, seal, disk);
    let mut effects = Vec::new();
    let (from, message) = (node(0), Box::new(Message::Folded(Box::new(folded))));
    client.step(Now::default(), ClientInput::Received { from, message }, &mut effects);
    let beyond = |effect: &Effect<ClientChange>| {
        matches!(effect, Effect::Report(Event::Refused { why: Refused::Beyond, .. }))
    };
    assert!(effects.iter().any(beyond), "{effects:?}");
    let counted =
        |effect: &Effect<ClientChange>| matches!(effect, Effect::Report(Event::Counted(_)));
    assert!(!effects.iter().any(counted), "{effects:?}");
    // The largest honest update is none. A lie that fits the sum's bound moves its mean as far as
    // the clip: more than any honest update, and what groups are for.
    let most = i64::from(LEVEL_MAX);
    let of = |lie: i64| {
        let (tip, left_out, _) = with_liar(lie);
        assert!(left_out.is_empty(), "{lie}");
        moved(&tip)[0]
    };
    assert!(of(most) > 0.4 && of(most) < 0.6 && of(5 * most / 2) > 0.95, "{}", of(5 * most / 2));
}

/// With noise the bound has room for the noise, and no more.
#[test]
fn with_privacy_the_bound_is_that_of_the_noise() {
    let job = Job { privacy: private(3).privacy, ..guarded(1, Rule::Mean) };
    assert_eq!(job.check(), Ok(()));
    let privacy = job.privacy.unwrap();
    let most = privacy.sum_bound(job.clip, 5);
    let bare = 5 * i64::from(LEVEL_MAX);
    assert!(bare < most && most < 100 * bare, "{most}");
    let with_liar = |lie: i64| {
        let mut shared: Vec<_> = (10..14).map(|at| levels(&job, at, [0; 3])).collect();
        shared.push(levels(&job, 9, [lie, 0, 0]));
        round_of(&job, &shared).1.len()
    };
    assert_eq!((with_liar(most), with_liar(-most)), (0, 0));
    assert_eq!((with_liar(most + 1), with_liar(-most - 1), with_liar(1 << 30)), (5, 5, 5));
}

/// Coefficients that did not follow from every share could be known before they are sealed.
#[test]
fn the_challenge_follows_from_each_sealed_share() {
    let (header, digests) = (header(9, 0, 9), vec![[1; 32], [2; 32], [3; 32]]);
    let of = |job: [u8; 32], header: &Header, digests: &[Digest]| challenge(&job, header, digests);
    let first = of([0; 32], &header, &digests);
    for at in 0..digests.len() {
        let mut other = digests.clone();
        other[at][31] ^= 1;
        assert_ne!(of([0; 32], &header, &other), first, "{at}");
    }
    let mut swapped = digests.clone();
    swapped.swap(0, 1);
    let mut next = header;
    next.id.seq += 1;
    let later = Header { epoch: 1, ..header };
    for other in [
        of([0; 32], &header, &swapped),
        of([0; 32], &header, &digests[..2]),
        of([1; 32], &header, &digests),
        of([0; 32], &next, &digests),
        of([0; 32], &later, &digests),
    ] {
        assert_ne!(other, first);
    }
}

/// Who is beside whom changes from round to round, and with nothing that a client says.
#[test]
fn groups_are_drawn_from_the_record_before() {
    let job = guarded(3, Rule::Median);
    let tip = first(&job);
    let headers: Vec<Header> = (0..12).map(|at| header(at, 0, 9)).collect();
    let close = closing(&job, &tip, &headers);
    let nodes = |close: &Close| -> Vec<Vec<NodeId>> {
        let of = |group: &Vec<&Entry>| group.iter().map(|one| one.header.id.client.node).collect();
        close.groups(&job).iter().map(of).collect()
    };
    let mut said = close.clone();
    for entry in &mut said.entries {
        entry.header.commitment = [7; 32];
        entry.header.sharing = [8; 32];
        entry.header.examples = 99;
        entry.header.id.client.incarnation = 5;
        entry.header.id.seq = 3;
    }
    assert_eq!(nodes(&said), nodes(&close));
    let later = Close { previous: [5; 32], ..close.clone() };
    assert_ne!(nodes(&later), nodes(&close));
}

#[test]
fn what_is_left_out_does_not_move_the_moments_of_a_strategy() {
    let strategy = Strategy::Adam { rate: 1 << 19, tau: 1 << 10 };
    let job = Job { strategy, ..guarded(1, Rule::Mean) };
    let mut shared = honest(&job, 4);
    shared.push(levels(&job, 9, [1 << 24, 0, 0]));
    let (tip, left_out, _) = round_of(&job, &shared);
    assert_eq!((left_out.len(), tip.server.digest()), (5, first(&job).server.digest()));
}

/// Of five groups of two, a liar spoils one, within all bounds or beyond them: the others decide.
#[test]
fn a_group_that_lies_does_not_move_the_rules_out_of_the_honest() {
    let rules = [Rule::Median, Rule::Trimmed { cut: 1 }, Rule::MultiKrum { byzantine: 1, keep: 3 }];
    for rule in rules {
        let job = guarded(5, rule);
        assert_eq!((job.check(), job.floor(), job.part_len()), (Ok(()), 10, 15));
        for lie in [LEVEL_MAX.into(), -i64::from(LEVEL_MAX), 20_000_000, 1 << 24] {
            let mut shared = honest(&job, 9);
            shared.push(levels(&job, 9, [lie, lie, lie]));
            let (tip, left_out, _) = round_of(&job, &shared);
            let at = moved(&tip);
            assert!((at[0] - 0.25).abs() < 1e-3 && (at[1] + 0.25).abs() < 1e-3, "{rule:?} {at:?}");
            assert!(at[2] >= -1e-6 && at[2] < 0.009, "{rule:?} {lie} {at:?}");
            let is_beyond = lie.abs() > 2 * i64::from(LEVEL_MAX);
            assert_eq!(left_out.len(), if is_beyond { 2 } else { 0 }, "{rule:?} {lie}");
            let liar = header(9, 0, 100).id;
            assert!(!is_beyond || left_out.contains(&liar));
        }
        // The plain mean of the same is far off.
        let job = guarded(1, Rule::Mean);
        let mut shared = honest(&job, 9);
        shared.push(levels(&job, 9, [LEVEL_MAX.into(), 0, 0]));
        assert!(moved(&round_of(&job, &shared).0)[0] > 0.3);
    }
}

#[test]
fn guards_that_cannot_be_are_refused() {
    let check = |groups, rule| guarded(groups, rule).check();
    assert_eq!(check(1, Rule::Mean), Ok(()));
    assert_eq!(check(0, Rule::Mean), Err(JobError::Guard(GuardError::Groups(0))));
    assert_eq!(check(17, Rule::Mean), Err(JobError::Guard(GuardError::Groups(17))));
    let few = GuardError::Few { rule: "median", found: 2 };
    assert_eq!(check(2, Rule::Median), Err(JobError::Guard(few)));
    let krum = Rule::MultiKrum { byzantine: 2, keep: 2 };
    assert!(matches!(check(6, krum), Err(JobError::Guard(GuardError::Rule(_)))));
    let plain = Job { guard: Some(Guard::ONE), ..job(Mode::Plain(Rule::Mean)) };
    assert_eq!(plain.check(), Err(JobError::Guard(GuardError::Plain)));
    let several = Job { per_node: 2, ..guarded(3, Rule::Mean) };
    assert_eq!(several.check(), Err(JobError::Votes));
    let wide = |min_clients| Job { min_clients, ..guarded(16, Rule::Median) };
    let floor = |found, most| Err(JobError::Guard(GuardError::Floor { found, most }));
    assert_eq!((wide(8).check(), wide(9).check()), (Ok(()), floor(144, 128)));
    let private = |min_clients| Job { privacy: super::private(3).privacy, ..wide(min_clients) };
    assert_eq!((private(64).check(), private(65).check()), (Ok(()), floor(1_040, 1_024)));
    let mut private = guarded(3, Rule::Median);
    let privacy = super::private(3).privacy;
    private.privacy = privacy;
    assert_eq!(private.check(), Ok(()));
    let adaptive = Some(Adaptive { quantile_permille: 500, rate_permille: 200 });
    private.privacy = privacy.map(|privacy| Privacy { adaptive, ..privacy });
    assert_eq!(private.check(), Err(JobError::Privacy(PrivacyError::Votes)));
    let krum = Rule::MultiKrum { byzantine: 1, keep: 2 };
    let krum = Job { privacy, ..guarded(5, krum) };
    assert_eq!(krum.check(), Err(JobError::Privacy(PrivacyError::Krum)));
}

proptest! {
    /// Every contribution of a set is in one group, sizes differ by one, and each has the floor.
    #[test]
    fn groups_are_a_division_of_the_set(
        groups in 1u8..=16, more in 0usize..20, floor in 2usize..4,
    ) {
        let rule = if groups < 3 { Rule::Mean } else { Rule::Median };
        let job = Job { min_clients: floor, ..guarded(groups, rule) };
        let tip = first(&job);
        let count = (job.floor() + more) as u8;
        let headers: Vec<Header> = (0..count).map(|at| header(at, 0, 9)).collect();
        let close = closing(&job, &tip, &headers);
        prop_assert_eq!(close.check(&job, &tip), Ok(()));
        let dealt = close.groups(&job);
        prop_assert_eq!(dealt.len(), usize::from(groups));
        let mut all: Vec<ContributionId> =
            dealt.iter().flatten().map(|entry| entry.header.id).collect();
        all.sort_unstable();
        let set: Vec<ContributionId> = close.entries.iter().map(|entry| entry.header.id).collect();
        prop_assert_eq!(all, set);
        let sizes: Vec<usize> = dealt.iter().map(Vec::len).collect();
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        prop_assert!(most - least <= 1 && *least >= floor);
        let few = closing(&job, &tip, &headers[..job.floor() - 1]);
        let wanted = CloseError::Floor { found: job.floor() - 1, wanted: job.floor() };
        prop_assert_eq!(few.check(&job, &tip), Err(wanted));
    }
}
