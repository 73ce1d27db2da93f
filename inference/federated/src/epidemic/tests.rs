use proptest::prelude::*;
use selvedge_base::Wall;

use super::*;
use crate::fixed::{Clip, MODEL_BITS};
use crate::privacy::Privacy;
use crate::privacy::accountant::{MicroEpsilon, PicoDelta};
use crate::robust::Rule;
use crate::round::{Committee, Pace, Seat};
use crate::shamir::Scheme;

const ONE: i32 = 1 << MODEL_BITS;
const DIM: usize = 3;

fn node(index: u8) -> NodeId {
    NodeId([index; 32])
}

fn job() -> Job {
    let seat = |index| Seat { node: node(index), key: [index; 32] };
    Job {
        nonce: 1,
        task: [7; 32],
        dim: DIM,
        clip: Clip::new(ONE as u32).unwrap(),
        mode: Mode::Plain(Rule::Mean),
        scheme: Scheme::Five,
        committee: Committee { epoch: 0, seats: (0..5).map(seat).collect() },
        min_clients: 2,
        target: 2,
        sample_permille: 1_000,
        max_examples: 100,
        receipts: 4,
        rounds: 9,
        strategy: crate::server::Strategy::Average { proximal_permille: 0 },
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

const RULES: Epidemic = Epidemic { peers: 2, after: Micros::secs(3), every: Micros::secs(1) };
const BASE: Base = Base { round: 4, record: [9; 32] };

fn holder(index: u8) -> Holder {
    Holder { node: node(index), incarnation: 1 }
}

/// A machine whose time passes in steps of 100 ms.
struct Tried {
    mixer: Mixer,
    now: Mono,
}

impl Tried {
    fn new(index: u8, stored: MixerStored) -> Self {
        let mut tried =
            Self { mixer: Mixer::new(Arc::new(job()), RULES, holder(index), stored), now: Mono(0) };
        tried.follow(BASE, false);
        tried
    }

    fn step(&mut self, input: MixerInput) -> Vec<MixerEffect> {
        let mut effects = Vec::new();
        self.mixer.step(Now { mono: self.now, wall: Wall(0) }, input, &mut effects);
        effects
    }

    fn follow(&mut self, base: Base, is_over: bool) -> Vec<MixerEffect> {
        self.step(MixerInput::Followed { base, clients: BTreeSet::new(), is_over })
    }

    fn tick(&mut self, millis: u64, peers: std::ops::Range<u8>) -> Vec<MixerEffect> {
        self.now = self.now.plus(Micros::millis(millis));
        self.step(MixerInput::Ticked { reachable: peers.map(node).collect() })
    }

    /// Waits until it trains.
    fn train(&mut self) -> (u64, u64, Vec<i32>) {
        for _ in 0..100 {
            for effect in self.tick(100, 0..9) {
                if let MixerEffect::Train { round, seq, drift } = effect {
                    return (round, seq, drift);
                }
            }
        }
        panic!("it never trains");
    }

    fn trained(&mut self, round: u64, seq: u64, level: i32) -> Vec<MixerEffect> {
        let levels = vec![level; DIM];
        self.step(MixerInput::Trained { round, seq, examples: 50, levels })
    }

    fn hear(&mut self, told: &Told) -> Result<(), Unmixed> {
        let effects = self
            .step(MixerInput::Received { from: told.client.node, told: Box::new(told.clone()) });
        match effects.as_slice() {
            [] => Ok(()),
            [MixerEffect::Report(MixerEvent::Unmixed { why, .. })] => Err(*why),
            other => panic!("{other:?}"),
        }
    }
}

fn told(index: u8, seq: u64, drift: i32) -> Told {
    let (client, base) = (holder(index), BASE);
    Told { client, seq, base, age: 5, examples: 50, drift: vec![drift; DIM] }
}

fn sent(effects: &[MixerEffect]) -> Vec<(NodeId, Told)> {
    let send = |effect: &MixerEffect| match effect {
        MixerEffect::Send { to, told } => Some((*to, (**told).clone())),
        MixerEffect::Store { .. } | MixerEffect::Train { .. } | MixerEffect::Report(_) => None,
    };
    effects.iter().filter_map(send).collect()
}

fn has(effects: &[MixerEffect], event: &MixerEvent) -> bool {
    effects.contains(&MixerEffect::Report(event.clone()))
}

#[test]
fn it_waits_begins_and_ends_with_a_round() {
    let mut one = Tried::new(1, MixerStored::default());
    for _ in 0..30 {
        assert!(one.tick(100, 0..9).is_empty());
    }
    let effects = one.tick(100, 0..9);
    assert!(has(&effects, &MixerEvent::Began { round: 4, waited: Micros::secs(3) }), "{effects:?}");
    assert!(matches!(effects[1], MixerEffect::Train { round: 4, seq: 1, .. }), "{effects:?}");
    let next = Base { round: 5, record: [8; 32] };
    assert!(has(&one.follow(next, false), &MixerEvent::Ended { round: 5 }));
    assert!(!one.mixer.is_on());
    // What was trained from the round before counts nowhere.
    assert!(one.trained(4, 1, 7).is_empty());
    assert_eq!(one.train().0, 5);
    // A job that is done has no such mode.
    assert!(has(
        &one.follow(Base { round: 9, record: [7; 32] }, true),
        &MixerEvent::Ended { round: 9 }
    ));
    assert!((0..99).all(|_| one.tick(100, 0..9).is_empty()));
}

#[test]
fn a_model_is_durable_before_it_leaves_and_its_number_is_its_own() {
    let mut one = Tried::new(1, MixerStored::default());
    let (round, seq, drift) = one.train();
    assert_eq!(drift, vec![0; DIM]);
    let effects = one.trained(round, seq, LEVEL_MAX);
    assert!(sent(&effects).is_empty(), "not durable yet");
    let MixerEffect::Store { write, change } = &effects[0] else { panic!("{effects:?}") };
    // Nothing else is begun before.
    assert!((0..30).all(|_| one.tick(100, 0..9).is_empty()));
    let first = sent(&one.step(MixerInput::Stored { write: *write }));
    assert_eq!(first.len(), 2);
    assert_eq!(first[0].1.drift, vec![ONE; DIM]);
    assert_eq!((first[0].1.seq, first[0].1.age, first[0].1.examples), (1, 1, 50));
    // Another life goes on at once: the same bytes, to the same peers, and then the next number.
    let mut other = Tried::new(1, change.stored.clone());
    let effects = other.tick(100, 0..9);
    assert!(has(&effects, &MixerEvent::Began { round: 4, waited: Micros(0) }));
    assert_eq!(sent(&effects), first);
    assert!(matches!(effects.last(), Some(MixerEffect::Train { seq: 2, .. })), "{effects:?}");
    // Of another round it begins anew, under the next number.
    let mut later = Tried::new(1, change.stored.clone());
    later.follow(Base { round: 6, record: [3; 32] }, false);
    assert_eq!(later.train(), (6, 2, vec![0; DIM]));
    // A chain that a crash took back has to catch up first.
    let mut back = Tried::new(1, change.stored.clone());
    back.follow(Base { round: 3, record: [3; 32] }, false);
    assert!((0..99).all(|_| back.tick(100, 0..9).is_empty()));
}

#[test]
fn what_came_is_mixed_once_by_age_and_examples() {
    let mut one = Tried::new(1, MixerStored::default());
    one.hear(&told(2, 3, 800)).unwrap();
    assert_eq!(one.hear(&told(2, 3, 800)), Err(Unmixed::Replayed));
    one.hear(&told(2, 4, 400)).unwrap();
    let (round, seq, drift) = one.train();
    // Of one's own there is nothing yet.
    assert_eq!(drift, vec![400; DIM]);
    assert_eq!(one.hear(&told(2, 4, 400)), Err(Unmixed::Replayed), "it is being mixed");
    let write = MixerInput::Stored { write: 1 };
    one.trained(round, seq, 0);
    one.step(write);
    assert_eq!(one.hear(&told(2, 4, 400)), Err(Unmixed::Replayed), "it is mixed");
    let own = one.mixer.stored().told.clone().unwrap();
    assert_eq!((own.age, own.drift), (6, vec![400; DIM]));
    // Its own weighs 6 * 50, the old one 16 * 100, the young one 1 * 50.
    one.hear(&Told { age: 20, examples: 7_000, ..told(3, 1, 1_000) }).unwrap();
    one.hear(&Told { age: 1, ..told(4, 1, 10) }).unwrap();
    let mixed = one.train().2;
    assert_eq!(mixed, vec![(300 * 400 + 1_600 * 1_000 + 50 * 10 + 975) / 1_950; DIM]);
    assert_eq!(one.mixer.waiting(), 0);
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let mut one = Tried::new(1, MixerStored::default());
    let good = told(2, 1, 5 * ONE);
    let of = |round| Base { round, ..BASE };
    for (bad, why) in [
        (Told { client: holder(1), ..good.clone() }, Unmixed::Sender),
        (Told { base: of(3), ..good.clone() }, Unmixed::Stale(3)),
        (Told { base: of(5), ..good.clone() }, Unmixed::Ahead(5)),
        (Told { base: Base { record: [1; 32], ..BASE }, ..good.clone() }, Unmixed::Record),
        (Told { age: 0, ..good.clone() }, Unmixed::Age(0)),
        (Told { age: MAX_AGE + 1, ..good.clone() }, Unmixed::Age(MAX_AGE + 1)),
        (Told { examples: 0, ..good.clone() }, Unmixed::Empty),
        (Told { drift: vec![0; 4], ..good.clone() }, Unmixed::Length(4)),
        (Told { drift: vec![0, 5 * ONE + 1, 0], ..good.clone() }, Unmixed::Range(1)),
        (Told { drift: vec![0, 0, i32::MIN], age: 9_999, ..good.clone() }, Unmixed::Range(2)),
    ] {
        assert_eq!(one.hear(&bad), Err(why), "{bad:?}");
    }
    let forged = MixerInput::Received { from: node(3), told: Box::new(good.clone()) };
    let effects = one.step(forged);
    assert!(has(&effects, &MixerEvent::Unmixed { by: node(3), why: Unmixed::Sender }));
    one.hear(&good).unwrap();
    for peer in 3..10 {
        one.hear(&told(peer, 1, 0)).unwrap();
    }
    assert_eq!(one.hear(&told(10, 1, 0)), Err(Unmixed::Full));
    one.hear(&told(9, 2, 0)).unwrap();
    let stored = MixerStored {
        told: Some(Told { age: 90, ..told(1, 1, 0) }),
        marks: [(node(2), (2, 7))].into(),
    };
    let mut old = Tried::new(1, stored);
    assert_eq!(old.hear(&told(3, 1, 0)), Err(Unmixed::Behind(5)));
    let of_store = |incarnation, seq| Told {
        client: Holder { node: node(2), incarnation },
        age: 80,
        ..told(2, seq, 0)
    };
    // A store that its node lost says nothing new.
    assert_eq!(old.hear(&of_store(1, 9)), Err(Unmixed::Replayed));
    assert_eq!(old.hear(&of_store(2, 7)), Err(Unmixed::Replayed));
    assert_eq!(old.hear(&of_store(3, 1)), Ok(()));
}

#[test]
fn a_step_without_training_carries_what_came() {
    let mut one = Tried::new(1, MixerStored::default());
    one.hear(&told(2, 1, 400)).unwrap();
    let (round, seq, _) = one.train();
    // It never trained: there is nothing of its own to say.
    assert!(one.step(MixerInput::Untrained { round, seq }).is_empty());
    let (round, seq, _) = one.train();
    one.trained(round, seq, 0);
    one.step(MixerInput::Stored { write: 1 });
    let (round, seq, _) = one.train();
    assert!(one.step(MixerInput::Untrained { round, seq }).is_empty(), "nothing came");
    one.hear(&told(2, 2, 400)).unwrap();
    let (round, seq, _) = one.train();
    let effects = one.trained(round, seq, LEVEL_MAX + 1);
    assert!(has(&effects, &MixerEvent::BadTraining));
    assert!(has(&effects, &MixerEvent::Stepped { seq: 2, age: 5, mixed: 1 }), "{effects:?}");
}

#[test]
fn peers_are_drawn_and_those_who_learn_come_first() {
    let mut one = Tried::new(1, MixerStored::default());
    one.mixer.reachable = (0..20).map(node).collect();
    let drawn = |one: &Tried, seq| one.mixer.peers(seq);
    let all: BTreeSet<Vec<NodeId>> = (0..40).map(|seq| drawn(&one, seq)).collect();
    assert!(all.len() > 30, "each step draws others");
    assert!(all.iter().all(|peers| peers.len() == 2 && !peers.contains(&node(1))));
    assert_eq!(drawn(&one, 3), drawn(&one, 3));
    let clients = [node(7), node(8), node(9)].into();
    one.step(MixerInput::Followed { base: BASE, clients, is_over: false });
    for seq in 0..40 {
        assert!(drawn(&one, seq).iter().all(|peer| (7..=9).contains(&peer.0[0])));
    }
    one.mixer.reachable = [node(1), node(3), node(9)].into();
    assert_eq!(drawn(&one, 0), [node(9), node(3)]);
}

#[test]
fn jobs_that_promise_more_are_refused() {
    let plain = job();
    assert_eq!(RULES.check(&plain), Ok(()));
    let secure = Job { mode: Mode::Secure, ..plain.clone() };
    assert_eq!(RULES.check(&secure), Err(EpidemicError::Secure));
    let privacy = Privacy {
        noise_milli: 4_000,
        norm: 1 << 17,
        honest: 1,
        delta: PicoDelta(10_000_000),
        epsilon: MicroEpsilon(8_000_000),
        adaptive: None,
    };
    let private = Job { privacy: Some(privacy), ..plain.clone() };
    assert_eq!(RULES.check(&private), Err(EpidemicError::Private));
    let of = |peers, after, every| {
        let (after, every) = (Micros::millis(after), Micros::millis(every));
        Epidemic { peers, after, every }.check(&plain)
    };
    assert_eq!(of(0, 1_000, 100), Err(EpidemicError::Peers(0)));
    assert_eq!(of(17, 1_000, 100), Err(EpidemicError::Peers(17)));
    assert_eq!(of(1, 999, 100), Err(EpidemicError::Soon(1_000)));
    assert_eq!(of(1, 1_000, 99), Err(EpidemicError::Restless(100)));
    assert_eq!(of(16, 1_000, 100), Ok(()));
}

/// Eight nodes that learn different things, and then nothing more: what they have in common grows
/// until they all have the same, to a few millionths.
#[test]
fn models_of_nodes_that_hear_each_other_come_together() {
    let mut nodes: Vec<Tried> = (0..8).map(|at| Tried::new(at, MixerStored::default())).collect();
    let mut spreads = Vec::new();
    for step in 0..40_u64 {
        let mut under_way = Vec::new();
        for (at, one) in nodes.iter_mut().enumerate() {
            let (round, seq, _) = one.train();
            let level = if step == 0 { (at as i32 * 7 % 8 - 4) * (LEVEL_MAX / 4) } else { 0 };
            one.trained(round, seq, level);
            under_way.extend(sent(&one.step(MixerInput::Stored { write: step + 1 })));
        }
        for (to, told) in under_way {
            if let Some(one) = nodes.get_mut(usize::from(to.0[0])) {
                let _full_or_behind = one.hear(&told);
            }
        }
        let first = |one: &Tried| one.mixer.stored().told.as_ref().unwrap().drift[0];
        let (least, most) = (nodes.iter().map(first).min(), nodes.iter().map(first).max());
        spreads.push(most.unwrap() - least.unwrap());
    }
    assert!(spreads[0] > ONE, "{spreads:?}");
    assert!(*spreads.last().unwrap() <= 4, "{spreads:?}");
    assert!(spreads.is_sorted_by(|before, after| after <= before), "{spreads:?}");
}

/// A model as anybody may send it.
fn anything() -> impl Strategy<Value = Told> {
    let weight = prop_oneof![9 => -5 * ONE..=5 * ONE, 1 => any::<i32>()];
    let of = |lengths: std::ops::Range<usize>| proptest::collection::vec(weight.clone(), lengths);
    let drift = prop_oneof![9 => of(DIM..DIM + 1), 1 => of(0..5)];
    let numbers = (1..6u8, 1..3u64, 1..6u64, 3..6u64, any::<bool>());
    (numbers, prop_oneof![8 => 0..40u32, 1 => any::<u32>()], 0..300u32, drift).prop_map(
        |((index, incarnation, seq, round, is_known), age, examples, drift)| {
            let client = Holder { node: node(index), incarnation };
            let record = if is_known { BASE.record } else { [1; 32] };
            let base = Base { round, record };
            Told { client, seq, base, age, examples, drift }
        },
    )
}

#[derive(Clone, Debug)]
enum Op {
    Hear(Told),
    Tick,
    Train(i32),
    Fail,
    Store,
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => anything().prop_map(Op::Hear),
        4 => Just(Op::Tick),
        3 => (-LEVEL_MAX..=LEVEL_MAX).prop_map(Op::Train),
        1 => Just(Op::Fail),
        3 => Just(Op::Store),
        1 => Just(Op::Restart),
    ];
    proptest::collection::vec(op, 1..120)
}

proptest! {
    /// Whatever comes, and however often it starts again: what is mixed into what is durable is
    /// mixed once, of this base and within range; a number names one model; nothing grows.
    #[test]
    fn each_is_mixed_once_and_every_number_is_one_model(ops in ops()) {
        let mut one = Tried::new(0, MixerStored::default());
        let mut durable = MixerStored::default();
        let mut ordered: Vec<(u64, MixerChange)> = Vec::new();
        let mut mixed = BTreeSet::new();
        let mut left: BTreeMap<u64, Told> = BTreeMap::new();
        let mut trains = None;
        for op in ops {
            let effects = match op {
                Op::Hear(told) => {
                    let from = told.client.node;
                    one.step(MixerInput::Received { from, told: Box::new(told) })
                }
                Op::Tick => one.tick(1_000, 0..9),
                Op::Train(level) => match trains.take() {
                    Some((round, seq)) => one.trained(round, seq, level),
                    None => continue,
                },
                Op::Fail => match trains.take() {
                    Some((round, seq)) => one.step(MixerInput::Untrained { round, seq }),
                    None => continue,
                },
                Op::Store => {
                    let Some((write, change)) = ordered.pop() else { continue };
                    for id in &change.mixed {
                        prop_assert!(mixed.insert(*id), "{id:?} is mixed twice");
                    }
                    durable = change.stored;
                    one.step(MixerInput::Stored { write })
                }
                Op::Restart => {
                    ordered.clear();
                    trains = None;
                    let now = one.now;
                    one = Tried::new(0, durable.clone());
                    one.now = now;
                    continue;
                }
            };
            for effect in effects {
                match effect {
                    MixerEffect::Store { write, change } => ordered.push((write, *change)),
                    MixerEffect::Send { told, .. } => {
                        prop_assert_eq!(Some(&*told), durable.told.as_ref());
                        let first = left.entry(told.seq).or_insert_with(|| (*told).clone());
                        prop_assert_eq!(first, &*told);
                        prop_assert_eq!(mix::check(&told, &job(), 0), Ok(()));
                    }
                    MixerEffect::Train { round, seq, drift } => {
                        prop_assert_eq!((round, drift.len()), (BASE.round, DIM));
                        trains = Some((round, seq));
                    }
                    MixerEffect::Report(_) => {}
                }
            }
            prop_assert!(one.mixer.waiting() <= MAX_INBOX && ordered.len() <= 1);
        }
    }

    /// A mix is the mean as fractions say it, whatever the order.
    #[test]
    fn a_mix_is_the_weighted_mean_in_any_order(
        models in proptest::collection::vec(
            (1..60u32, 1..300u32, proptest::collection::vec(any::<i32>(), DIM)), 1..9
        ),
        turn in 0..8usize,
    ) {
        let make = |(age, examples, drift): (u32, u32, Vec<i32>)| {
            Told { age, examples, drift, ..told(2, 1, 0) }
        };
        let models: Vec<Told> = models.into_iter().map(make).collect();
        let all: Vec<&Told> = models.iter().collect();
        let found = mix::mean(&all, 100, DIM);
        for (at, found) in found.iter().enumerate() {
            let weight = |one: &Told| f64::from(one.age.min(16) * one.examples.min(100));
            let total: f64 = models.iter().map(weight).sum();
            let sum: f64 = models.iter().map(|one| weight(one) * f64::from(one.drift[at])).sum();
            prop_assert!((f64::from(*found) - sum / total).abs() <= 0.501);
        }
        let mut turned = all.clone();
        turned.rotate_left(turn % all.len());
        turned.reverse();
        prop_assert_eq!(mix::mean(&turned, 100, DIM), found);
    }
}
