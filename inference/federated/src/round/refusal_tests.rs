//! Every way in which an anchor refuses a contribution: it says why, reports it, and goes on as if
//! nothing had come. What it holds, the sum and the model are those of anchors that never saw it.

use std::collections::{BTreeMap, VecDeque};

use super::super::client::{commitment, context, payload_digest, sharing_digest};
use super::*;
use crate::fixed::{LEVEL_MAX, UpdateError};
use crate::privacy::NOISY_MAX;
use crate::proof::CHECKS;
use crate::seal::seal;

/// The anchor that what is wrong is sent to.
const AT: usize = 2;
/// Turns of the clock until a round must be over: it takes some ten.
const TURNS: u64 = 200;

/// Five anchors whose disks answer at once, and what they said.
struct World {
    anchors: Vec<Anchor>,
    under_way: VecDeque<(NodeId, usize, Message)>,
    turns: u64,
    reported: Vec<(usize, ContributionId, Refused)>,
    /// What an anchor said to nodes that are none.
    said: Vec<(usize, Message)>,
}

/// What rounds left at every anchor.
type End = Vec<(Tip, BTreeMap<ContributionId, Held>)>;

impl World {
    fn new(job: &Job) -> Self {
        let anchors = (0..5).map(|index| anchor(job, index)).collect();
        let (under_way, reported, said) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { anchors, under_way, turns: 0, reported, said }
    }

    fn step(&mut self, at: usize, input: AnchorInput) {
        let now = Now { mono: selvedge_base::Mono(self.turns * 100_000), ..Now::default() };
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let sender = match &input {
                AnchorInput::Received { from, .. } => Some(*from),
                AnchorInput::Stored { .. }
                | AnchorInput::Reconfigured { .. }
                | AnchorInput::Ticked => None,
            };
            let mut effects = Vec::new();
            self.anchors[at].step(now, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Store { write, .. } => inputs.push_back(AnchorInput::Stored { write }),
                    Effect::Send { to, message } => match usize::from(to.0[0]) {
                        anchor @ 0..5 => {
                            self.under_way.push_back((node(at as u8), anchor, *message))
                        }
                        _ => self.said.push((at, *message)),
                    },
                    Effect::Report(Event::Refused { id, from, why }) => {
                        // Not whose name is on it, which may be anybody's.
                        assert_eq!(Some(from), sender, "{why}");
                        self.reported.push((at, id, why));
                    }
                    Effect::Report(Event::Misdeed { by, what }) => panic!("{by:?}: {what}"),
                    Effect::Replay { .. }
                    | Effect::Train { .. }
                    | Effect::Spend(_)
                    | Effect::Report(_) => {}
                }
            }
        }
    }

    /// A message comes to an anchor, and all that follows from it at once.
    fn hear(&mut self, from: NodeId, at: usize, message: Message) {
        self.under_way.push_back((from, at, message));
        while let Some((from, at, message)) = self.under_way.pop_front() {
            self.step(at, AnchorInput::Received { from, message: Box::new(message) });
        }
    }

    /// A client's shares come to all anchors.
    fn take(&mut self, shares: &[Message]) {
        for (at, share) in shares.iter().enumerate() {
            let Message::Share { header, .. } = share else { panic!("{share:?}") };
            self.hear(header.id.client.node, at, share.clone());
        }
    }

    /// Time passes until so many rounds are over everywhere.
    fn until(&mut self, round: u64) -> End {
        for _ in 0..TURNS {
            if self.anchors.iter().all(|anchor| anchor.tip().round >= round) {
                break;
            }
            self.turns += 1;
            (0..5).for_each(|at| self.step(at, AnchorInput::Ticked));
            while let Some((from, at, message)) = self.under_way.pop_front() {
                self.step(at, AnchorInput::Received { from, message: Box::new(message) });
            }
        }
        let end = self.end();
        assert!(end.iter().all(|(tip, _)| *tip == end[0].0 && tip.round == round), "{end:?}");
        end
    }

    fn end(&self) -> End {
        let one = |anchor: &Anchor| (anchor.tip().clone(), anchor.stored().held.clone());
        self.anchors.iter().map(one).collect()
    }

    /// What an anchor makes of one message: what it says, and what it reports.
    fn refusals(&mut self, from: u8, message: Message) -> (Vec<Message>, Vec<Refused>) {
        let (said, reported) = (self.said.len(), self.reported.len());
        self.hear(node(from), AT, message);
        let said = self.said[said..].iter().map(|(_, message)| message.clone()).collect();
        let reported = self.reported[reported..].iter();
        (said, reported.map(|(_, _, why)| *why).collect())
    }
}

/// All kinds of jobs: in shares, in the open, and in shares that are proven to belong together.
fn jobs() -> [Job; 3] {
    let [secure, plain] = [Mode::Secure, Mode::Plain(Rule::Mean)].map(job);
    let guarded = Job { guard: Some(Guard { groups: 1, rule: Rule::Mean }), ..secure.clone() };
    [secure, plain, guarded]
}

fn holder(client: u8, incarnation: u64) -> Holder {
    Holder { node: node(client), incarnation }
}

/// What a client contributes to the round after a tip.
fn shares_after(job: &Job, tip: &Tip, me: Holder, draw: u8, delta: &[f32]) -> Vec<Message> {
    let seal = Arc::new(Stamp(me.node));
    let stored = ClientStored::new(tip.clone());
    let mut client = Client::new(Arc::new(job.clone()), me, seal, stored);
    let mut effects = Vec::new();
    let (base_round, seed, delta) = (tip.round, Seed([draw; 32]), delta.to_vec());
    for input in [
        ClientInput::Ticked,
        ClientInput::Trained { base_round, examples: 50, delta, seed },
        ClientInput::Stored { write: 1 },
    ] {
        client.step(Now::default(), input, &mut effects);
    }
    let share = |effect| match effect {
        Effect::Send { message, .. } if matches!(*message, Message::Share { .. }) => Some(*message),
        _ => None,
    };
    let shares: Vec<Message> = effects.into_iter().filter_map(share).collect();
    assert_eq!(shares.len(), 5);
    shares
}

/// What two honest clients contribute to the round after a tip.
fn honest(job: &Job, tip: &Tip) -> [Vec<Message>; 2] {
    let draw = tip.round as u8;
    let of = |client, delta: &[f32]| shares_after(job, tip, holder(client, 1), draw, delta);
    [of(8, &[0.25, 0.5, -0.5]), of(9, &[-0.125, 0.25, 0.0])]
}

/// A share taken apart, to be changed and put together again.
#[derive(Clone)]
struct Parts {
    header: Header,
    digests: Vec<Digest>,
    payload: Payload,
}

impl Parts {
    /// What a third client has for the anchor.
    fn new(job: &Job) -> Self {
        Self::of(&shares_of(job, holder(7, 1), 7, &[0.75, -0.75, 0.5])[AT])
    }

    fn of(share: &Message) -> Self {
        let Message::Share { header, digests, payload } = share.clone() else {
            panic!("{share:?}")
        };
        Self { header, digests, payload }
    }

    /// Digests that fit what is sent, as somebody makes them who lies about nothing else.
    fn fitting(mut self) -> Self {
        let open = matches!(self.payload, Payload::Open { .. });
        let own = payload_digest(&self.payload);
        let ours = |(at, digest): (usize, &mut Digest)| {
            if open || at == AT {
                *digest = own;
            }
        };
        self.digests.iter_mut().enumerate().for_each(ours);
        self.header.sharing = sharing_digest(&self.digests, self.payload.proof());
        self
    }

    fn message(self) -> Message {
        let Self { header, digests, payload } = self;
        Message::Share { header, digests, payload }
    }
}

/// What a contribution to a plain job is, of any levels.
fn open_share(job: &Job, levels: Vec<i32>) -> Parts {
    let mut parts = Parts::new(job);
    let (id, salt) = (parts.header.id, [5; 32]);
    parts.header.commitment = commitment(&job.digest(), &id, 0, 50, &salt, &levels);
    parts.payload = Payload::Open { levels, salt };
    parts.fitting()
}

/// A share of any length, sealed to the anchor as its own client does it.
fn sealed_share(job: &Job, elements: usize) -> Parts {
    let mut parts = Parts::new(job);
    let context = context(&job.digest(), &parts.header.id, 0, AT);
    let share = vec![Fp::ONE; elements];
    let sealed = seal(&share, &key(AT as u8).public(), &Seed([6; 32]), &context);
    parts.payload = resealed(&parts.payload, sealed.unwrap());
    parts.fitting()
}

fn sealed_of(payload: &Payload) -> Vec<u8> {
    match payload {
        Payload::Sealed(sealed) | Payload::Proven { sealed, .. } => sealed.clone(),
        Payload::Open { .. } => panic!("an open share"),
    }
}

/// The same form with something else sealed.
fn resealed(payload: &Payload, sealed: Vec<u8>) -> Payload {
    let bare = Payload::Sealed(sealed);
    match payload {
        Payload::Proven { proof, .. } => bare.with_proof(proof),
        Payload::Sealed(_) | Payload::Open { .. } => bare,
    }
}

/// A way to be refused: by whom, what, and why.
type Way = (&'static str, u8, Message, Refused);

/// What is wrong whatever the payload is, and whatever came before.
fn ways_of_all(job: &Job) -> Vec<Way> {
    let parts = Parts::new(job);
    let changed = |change: &dyn Fn(&mut Parts)| {
        let mut parts = parts.clone();
        change(&mut parts);
        parts.message()
    };
    let longer = |parts: &mut Parts| parts.digests.push([0; 32]);
    let empty: UpdateError = UpdateError::Empty;
    vec![
        ("of another sender", 6, parts.clone().message(), Refused::Sender),
        ("for the next anchors", 7, changed(&|p| p.header.epoch = 1), Refused::Epoch(0)),
        ("number nothing", 7, changed(&|p| p.header.id.seq = 0), Refused::Replayed { last: 0 }),
        ("a gap before it", 7, changed(&|p| p.header.id.seq = 2), Refused::Ahead { round: 0 }),
        (
            "the last number",
            7,
            changed(&|p| p.header.id.seq = u64::MAX),
            Refused::Ahead { round: 0 },
        ),
        ("of a later round", 7, changed(&|p| p.header.base_round = 1), Refused::Ahead { round: 0 }),
        ("no examples", 7, changed(&|p| p.header.examples = 0), empty.into()),
        ("no digests", 7, changed(&|p| p.digests.clear()), Refused::Digest),
        ("a digest less", 7, changed(&|p| p.digests.truncate(4)), Refused::Digest),
        ("a digest more", 7, changed(&longer), Refused::Digest),
        ("another's digest", 7, changed(&|p| p.digests[0] = [0; 32]), Refused::Digest),
        ("its own digest", 7, changed(&|p| p.digests[AT] = [0; 32]), Refused::Digest),
        ("the digest of digests", 7, changed(&|p| p.header.sharing = [0; 32]), Refused::Digest),
    ]
}

fn sealed_ways(job: &Job) -> Vec<Way> {
    let parts = Parts::new(job);
    let all = shares_of(job, holder(7, 1), 7, &[0.75, -0.75, 0.5]);
    let with = |payload: Payload| Parts { payload, ..parts.clone() }.fitting().message();
    let good = sealed_of(&parts.payload);
    let damaged = |at: usize| {
        let mut sealed = good.clone();
        sealed[at] ^= 1;
        resealed(&parts.payload, sealed)
    };
    // All of it is another's but the name on it.
    let [_, other] = honest(job, &first(job)).map(|shares| Parts::of(&shares[AT]));
    let id = parts.header.id;
    let taken = Parts { header: Header { id, ..other.header }, ..other };
    let open = Payload::Open { levels: vec![1; 3], salt: [0; 32] };
    let wanted = if job.guard.is_some() { 3 + CHECKS } else { 3 };
    let length = |found| Refused::from(UpdateError::Length { found, wanted });
    let bare = |sealed: Vec<u8>| resealed(&parts.payload, sealed);
    let mut ways = vec![
        ("for another anchor", 7, with(Parts::of(&all[3]).payload), Refused::Sealed),
        ("of another client", 7, taken.message(), Refused::Sealed),
        ("damaged", 7, with(damaged(good.len() - 1)), Refused::Sealed),
        ("damaged key", 7, with(damaged(5)), Refused::Sealed),
        ("of another version", 7, with(damaged(0)), Refused::Sealed),
        ("nothing", 7, with(bare(Vec::new())), Refused::Sealed),
        ("too short for a seal", 7, with(bare(vec![1; 48])), Refused::Sealed),
        ("unsealed", 7, with(open), Refused::Sealed),
        (
            "damaged on the way",
            7,
            Parts { payload: damaged(40), ..parts.clone() }.message(),
            Refused::Digest,
        ),
    ];
    for elements in [0, 2, 4, 10_000] {
        let share = sealed_share(job, elements).message();
        ways.push(("of another length", 7, share, length(elements)));
    }
    let Payload::Proven { proof, .. } = &parts.payload else {
        let proven = Payload::Proven { sealed: good.clone(), proof: vec![Fp::ONE] };
        ways.push(("a proof that nobody asked for", 7, with(proven), Refused::Sealed));
        return ways;
    };
    let proven = |change: &dyn Fn(&mut Vec<Fp>)| {
        let mut proof = proof.clone();
        change(&mut proof);
        with(Payload::Proven { sealed: good.clone(), proof })
    };
    let other = |proof: &mut Vec<Fp>| proof[0] = proof[0].plus(Fp::ONE);
    ways.extend([
        ("without a proof", 7, with(Payload::Sealed(good.clone())), Refused::Unproven),
        ("another proof", 7, proven(&other), Refused::Unproven),
        ("an empty proof", 7, proven(&Vec::clear), Refused::Unproven),
        ("a longer proof", 7, proven(&|proof| proof.push(Fp::ZERO)), Refused::Unproven),
        ("of no polynomial", 7, sealed_share(job, wanted).message(), Refused::Unproven),
    ]);
    ways
}

fn open_ways(job: &Job) -> Vec<Way> {
    let open = |levels: &[i32]| open_share(job, levels.to_vec()).message();
    let mut other_salt = open_share(job, vec![1, 2, 3]);
    if let Payload::Open { salt, .. } = &mut other_salt.payload {
        *salt = [9; 32];
    }
    let mut other_levels = open_share(job, vec![1, 2, 3]);
    if let Payload::Open { levels, .. } = &mut other_levels.payload {
        levels[1] = 3;
    }
    let more_examples = |mut parts: Parts| {
        parts.header.examples = 100;
        parts.message()
    };
    let sealed = Parts { payload: Payload::Sealed(vec![1; 64]), ..Parts::new(job) };
    let proof = Payload::Proven { sealed: vec![1; 64], proof: vec![Fp::ONE] };
    let proven = Parts { payload: proof, ..Parts::new(job) };
    let level = |index| Refused::from(UpdateError::Level { index });
    let length = |found| Refused::from(UpdateError::Length { found, wanted: 3 });
    let most = LEVEL_MAX;
    vec![
        ("a level too high", 7, open(&[0, most + 1, 0]), level(1)),
        ("a level too low", 7, open(&[0, 0, -most - 1]), level(2)),
        ("the greatest number", 7, open(&[i32::MAX, 0, 0]), level(0)),
        ("the least number", 7, open(&[i32::MIN, 0, 0]), level(0)),
        ("no levels", 7, open(&[]), length(0)),
        ("too short", 7, open(&[0, 0]), length(2)),
        ("too long", 7, open(&[0; 4]), length(4)),
        ("oversized", 7, open(&[0; 10_000]), length(10_000)),
        ("another salt", 7, other_salt.fitting().message(), Refused::Digest),
        ("other levels than bound", 7, other_levels.fitting().message(), Refused::Digest),
        (
            "more examples than bound",
            7,
            more_examples(open_share(job, vec![1; 3])),
            Refused::Digest,
        ),
        ("sealed", 7, sealed.fitting().message(), Refused::Sealed),
        ("proven", 7, proven.fitting().message(), Refused::Sealed),
    ]
}

/// All that does not rest on what came before.
fn ways(job: &Job) -> Vec<Way> {
    let own = match job.mode {
        Mode::Secure => sealed_ways(job),
        Mode::Plain(_) => open_ways(job),
    };
    ways_of_all(job).into_iter().chain(own).collect()
}

/// The round that anchors come to which hear nothing but what is right.
fn undisturbed(job: &Job) -> End {
    let mut world = World::new(job);
    honest(job, &first(job)).iter().for_each(|shares| world.take(shares));
    let end = world.until(1);
    assert!(world.reported.is_empty());
    assert_ne!(end[0].0.server, first(job).server, "the round changed nothing");
    end
}

/// The anchor refuses it, says and reports why, and holds what it held.
fn refused(world: &mut World, (name, from, message, why): Way) {
    let Message::Share { header, .. } = &message else { panic!("{message:?}") };
    let (id, before) = (header.id, world.end());
    let (said, reported) = world.refusals(from, message);
    assert_eq!(said, [Message::Refused { id, why }], "{name}");
    assert_eq!(reported, [why], "{name}");
    assert_eq!(world.end(), before, "{name}");
}

#[test]
fn what_is_refused_is_told_reported_and_never_in_the_sum() {
    for job in jobs() {
        let good = undisturbed(&job);
        for after in [0, 1, 2] {
            let mut world = World::new(&job);
            let shares = honest(&job, &first(&job));
            shares[..after].iter().for_each(|shares| world.take(shares));
            for way in ways(&job) {
                refused(&mut world, way);
            }
            shares[after..].iter().for_each(|shares| world.take(shares));
            assert_eq!(world.until(1), good, "{:?} after {after}", job.mode);
        }
    }
}

/// The reasons above are all there are but for those that rest on what came before, and for the
/// one that is found when a sum is opened.
#[test]
fn no_reason_is_left_out() {
    let mut kinds: Vec<&str> = jobs().iter().flat_map(ways).map(|(.., why)| why.kind()).collect();
    kinds.extend(["beyond", "bound", "full", "no_anchor"]);
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, Refused::KINDS);
}

#[test]
fn what_comes_twice_counts_once_and_what_is_over_is_refused() {
    for job in jobs() {
        let good = undisturbed(&job);
        let mut world = World::new(&job);
        let shares = honest(&job, &first(&job));
        for _ in 0..3 {
            shares.iter().for_each(|shares| world.take(shares));
        }
        let receipts = world.said.iter().filter(|(_, one)| matches!(one, Message::Receipt(_)));
        assert_eq!(receipts.count(), 3 * 2 * 5, "each time a receipt");
        assert_eq!(world.until(1), good, "{:?}", job.mode);

        // What was folded is over, the same bytes and others alike; the next round is as it is
        // without them.
        let tip = good[0].0.clone();
        let other = shares_of(&job, holder(9, 1), 4, &[1.0, 1.0, 1.0]);
        for share in [&shares[1][AT], &other[AT]] {
            let why = Refused::Replayed { last: 1 };
            refused(&mut world, ("replayed", 9, share.clone(), why));
        }
        let next = honest(&job, &tip);
        next.iter().for_each(|shares| world.take(shares));
        let mut calm = World::new(&job);
        shares.iter().for_each(|shares| calm.take(shares));
        calm.until(1);
        next.iter().for_each(|shares| calm.take(shares));
        let end = world.until(2);
        assert_eq!(end, calm.until(2), "{:?}", job.mode);
        assert_eq!(end[0].0.done.values().copied().collect::<Vec<_>>(), [2, 2]);
    }
}

#[test]
fn a_number_names_one_update_for_ever() {
    for job in jobs() {
        let good = undisturbed(&job);
        let mut world = World::new(&job);
        let shares = honest(&job, &first(&job));
        shares.iter().for_each(|shares| world.take(shares));
        // Another update, the same one with another word about its examples, and one that could
        // not be opened at all: the number is taken whatever is behind it.
        let other = shares_of(&job, holder(9, 1), 4, &[1.0, 1.0, 1.0])[AT].clone();
        let mut more = Parts::of(&shares[1][AT]);
        more.header.examples += 1;
        let mut spoilt = Parts::of(&other);
        spoilt.payload = Payload::Sealed(vec![1; 64]);
        for message in [other, more.message(), spoilt.fitting().message()] {
            refused(&mut world, ("bound", 9, message, Refused::Bound));
        }
        assert_eq!(world.until(1), good, "{:?}", job.mode);
    }
}

#[test]
fn who_is_no_anchor_takes_nothing() {
    for job in jobs() {
        let stored = AnchorStored::new(first(&job));
        let seal = Arc::new(Stamp(node(20)));
        let mut other = Anchor::new(Arc::new(job.clone()), node(20), key(20), seal, stored);
        let share = Parts::new(&job);
        let (id, why) = (share.header.id, Refused::NoAnchor);
        let effects = hear(&mut other, 7, share.message());
        assert_eq!(sent(&effects), [Message::Refused { id, why }]);
        assert!(effects.contains(&Effect::Report(Event::Refused { id, from: node(7), why })));
        assert!(other.stored().held.is_empty());
    }
}

/// A node with many stores, and many nodes: each has its room, and takes nobody else's.
#[test]
fn who_finds_no_room_is_told_so() {
    for job in jobs() {
        let mut world = World::new(&job);
        let of = |client, one| shares_of(&job, holder(client, one), 0, &[0.5, 0.0, 0.0]);
        for one in [1, 2] {
            world.hear(node(7), AT, of(7, one)[AT].clone());
        }
        let good = world.end();
        refused(&mut world, ("a third store", 7, of(7, 3)[AT].clone(), Refused::Full));
        assert_eq!(world.end(), good);
        world.hear(node(6), AT, of(6, 1)[AT].clone());
        assert_eq!(world.anchors[AT].stored().held.len(), 3, "others have room");

        // All numbers that the chain has room for are somebody's.
        let mut tip = first(&job);
        let known = |at: u16| {
            let mut id = [0xee; 32];
            id[..2].copy_from_slice(&at.to_le_bytes());
            (Holder { node: NodeId(id), incarnation: 1 }, 1)
        };
        tip.done = (0..MAX_CLIENTS as u16 - 1).map(known).collect();
        tip.done.insert(holder(9, 1), 0);
        let seal = Arc::new(Stamp(node(AT as u8)));
        let (key, stored) = (key(AT as u8), AnchorStored::new(tip));
        let mut anchor = Anchor::new(Arc::new(job.clone()), node(AT as u8), key, seal, stored);
        let effects = hear(&mut anchor, 7, of(7, 1)[AT].clone());
        let (id, why) = (Parts::of(&of(7, 1)[AT]).header.id, Refused::Full);
        assert_eq!(sent(&effects), [Message::Refused { id, why }]);
        assert!(effects.contains(&Effect::Report(Event::Refused { id, from: node(7), why })));
        let taken = hear(&mut anchor, 9, of(9, 1)[AT].clone());
        assert!(matches!(taken[..], [Effect::Store { .. }]), "a client that is known: {taken:?}");
    }
}

/// What a client trained that is no update does not leave it, and costs no epsilon.
#[test]
fn what_is_no_number_never_leaves_its_client() {
    let spoilt = |at: usize, value: f32| {
        let mut delta = vec![0.25; 3];
        delta[at] = value;
        delta
    };
    let mut bad = vec![
        (vec![0.5; 2], UpdateError::Length { found: 2, wanted: 3 }),
        (vec![0.5; 4], UpdateError::Length { found: 4, wanted: 3 }),
        (Vec::new(), UpdateError::Length { found: 0, wanted: 3 }),
    ];
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        bad.extend((0..3).map(|at| (spoilt(at, value), UpdateError::NotFinite { index: at })));
    }
    for job in jobs().into_iter().chain([private(3)]) {
        let over = (spoilt(1, 1.5), UpdateError::OverClip { index: 1 });
        // With privacy what is beyond the clip is brought to it: that alone would tell something.
        let more = job.privacy.is_none().then_some(over);
        let none = (vec![0.5; 3], UpdateError::Empty);
        for (delta, why) in bad.clone().into_iter().chain(more).chain([none]) {
            let mut client = client(&job, ClientStored::new(first(&job)));
            let asked = told(&mut client, 1, ClientInput::Ticked);
            assert!(asked.contains(&Effect::Train { round: 0 }));
            let examples = if why == UpdateError::Empty { 0 } else { 50 };
            let trained =
                ClientInput::Trained { base_round: 0, examples, delta, seed: Seed([3; 32]) };
            let effects = told(&mut client, 1, trained);
            assert_eq!(effects, [Effect::Report(Event::BadUpdate(why))], "nothing else");
            assert_eq!(client.pending(), None);
            let again = told(&mut client, 2, ClientInput::Ticked);
            assert!(again.contains(&Effect::Train { round: 0 }), "it trains again: {again:?}");
        }
    }
}

/// A client that is refused tells people, and contributes what it has all the same.
#[test]
fn a_client_tells_that_it_was_refused() {
    let job = job(Mode::Secure);
    let mut client = client(&job, ClientStored::new(first(&job)));
    trained(&mut client);
    let pending = client.pending().unwrap().clone();
    let (id, why) = (pending.id, Refused::Full);
    let message = Box::new(Message::Refused { id, why });
    let effects = told(&mut client, 2, ClientInput::Received { from: node(AT as u8), message });
    let from = node(AT as u8);
    assert_eq!(effects, [Effect::Report(Event::Refused { id, from, why })]);
    assert_eq!(client.pending(), Some(&pending));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// An open update is held if and only if it has the job's length and all levels are within
    /// what the job allows, and then as it is.
    #[test]
    fn levels_within_the_bound_and_no_others_are_held(
        levels in proptest::collection::vec(
            prop_oneof![-LEVEL_MAX - 3..=LEVEL_MAX + 3, any::<i32>(), -9..9i32], 0..6),
        noisy in any::<bool>(),
    ) {
        let mut job = job(Mode::Plain(Rule::Mean));
        if noisy {
            job.privacy = private(3).privacy.map(|one| Privacy { honest: 1, ..one });
        }
        prop_assert_eq!(job.check(), Ok(()));
        let most = if noisy { NOISY_MAX } else { LEVEL_MAX };
        let mut parts = Parts::new(&self::job(Mode::Plain(Rule::Mean)));
        let Header { id, examples, .. } = parts.header;
        let salt = [5; 32];
        parts.header.commitment = commitment(&job.digest(), &id, 0, examples, &salt, &levels);
        parts.payload = Payload::Open { levels: levels.clone(), salt };
        let mut anchor = anchor(&job, AT as u8);
        let effects = hear(&mut anchor, 7, parts.fitting().message());
        let far = levels.iter().position(|level| level.unsigned_abs() > most.unsigned_abs());
        let why = match far {
            Some(index) => Some(UpdateError::Level { index }),
            None if levels.len() != 3 => {
                Some(UpdateError::Length { found: levels.len(), wanted: 3 })
            }
            None => None,
        };
        let held: Vec<Vec<i64>> = anchor.stored().held.values()
            .map(|held| held.share.iter().map(|one| one.signed()).collect())
            .collect();
        match why {
            Some(why) => {
                let why = Refused::from(why);
                prop_assert_eq!(sent(&effects), [Message::Refused { id, why }]);
                prop_assert!(held.is_empty());
            }
            None => {
                let stores = matches!(effects[..], [Effect::Store { .. }]);
                prop_assert!(stores, "it is held");
                let wanted: Vec<i64> = levels.iter().map(|level| i64::from(*level)).collect();
                prop_assert_eq!(held, [wanted]);
            }
        }
    }

    /// One bit that turned on the way, in whatever of a payload or of the digests, and the share
    /// is not held.
    #[test]
    fn a_turned_bit_is_noticed(kind in 0usize..3, place in any::<prop::sample::Index>()) {
        let job = jobs()[kind].clone();
        let mut parts = Parts::new(&job);
        let bytes = match &parts.payload {
            Payload::Sealed(sealed) => sealed.len(),
            Payload::Proven { sealed, proof } => sealed.len() + 4 * proof.len(),
            Payload::Open { levels, .. } => 4 * levels.len() + 32,
        };
        let bit = place.index(8 * (bytes + 5 * 32 + 64));
        let (byte, turned) = (bit / 8, 1 << (bit % 8));
        match byte.checked_sub(bytes) {
            Some(behind @ 0..160) => parts.digests[behind / 32][behind % 32] ^= turned,
            Some(behind @ 160..192) => parts.header.sharing[behind - 160] ^= turned,
            // What binds the update: an anchor that sees none cannot tell.
            Some(behind) if job.mode == Mode::Secure => {
                parts.header.sharing[behind - 192] ^= turned;
            }
            Some(behind) => parts.header.commitment[behind - 192] ^= turned,
            None => match &mut parts.payload {
                Payload::Sealed(sealed) => sealed[byte] ^= turned,
                Payload::Proven { sealed, .. } if byte < sealed.len() => sealed[byte] ^= turned,
                Payload::Proven { sealed, proof } => {
                    let (at, shift) = ((byte - sealed.len()) / 4, 8 * ((byte - sealed.len()) % 4));
                    proof[at] = proof[at].plus(Fp::of_signed(i64::from(turned) << shift));
                }
                Payload::Open { salt, .. } if byte < 32 => salt[byte] ^= turned,
                Payload::Open { levels, .. } => {
                    levels[(byte - 32) / 4] ^= i32::from(turned) << (8 * (byte % 4));
                }
            },
        }
        let mut anchor = anchor(&job, AT as u8);
        let (id, why) = (parts.header.id, Refused::Digest);
        let effects = hear(&mut anchor, 7, parts.message());
        prop_assert_eq!(sent(&effects), [Message::Refused { id, why }]);
        let reports = effects.contains(&Effect::Report(Event::Refused { id, from: node(7), why }));
        prop_assert!(reports, "it is reported");
        prop_assert!(anchor.stored().held.is_empty());
    }

    /// Whatever comes that is wrong, in whatever order and however often, between what is right:
    /// the round is the one without it.
    #[test]
    fn rounds_are_those_without_what_was_refused(
        kind in 0usize..3,
        noise in proptest::collection::vec((any::<prop::sample::Index>(), 0..11usize), 0..24),
    ) {
        let job = jobs()[kind].clone();
        let good = undisturbed(&job);
        let mut world = World::new(&job);
        let all = ways(&job);
        let shares = honest(&job, &first(&job));
        let mut wrong = 0;
        let shares = shares.iter().flat_map(|all| all.iter().enumerate());
        for (turn, (at, share)) in shares.enumerate() {
            for (way, _) in noise.iter().filter(|(_, when)| *when == turn) {
                let (_, from, message, _) = way.get(&all).clone();
                world.hear(node(from), AT, message);
                wrong += 1;
            }
            let from = Parts::of(share).header.id.client.node;
            world.hear(from, at, share.clone());
        }
        prop_assert_eq!(world.until(1), good);
        prop_assert_eq!(world.reported.len(), wrong);
    }
}
