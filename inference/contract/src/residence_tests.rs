use proptest::prelude::*;

use super::*;

const BUDGET: u64 = 100;
const MODELS: usize = 5;

fn digest(model: usize) -> ModelDigest {
    ModelDigest([model as u8; 32])
}

const fn weights(weights: u64) -> Room {
    Room { weights, beside: 0 }
}

const fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000)
}

/// Models of these weights, each loaded in the second of its number, none in use.
fn loaded(budget: u64, sizes: &[u64]) -> Residence {
    let mut residence = Residence::new(budget);
    for (model, size) in sizes.iter().enumerate() {
        let now = at(model as u64);
        residence.added(digest(model), &format!("m{model}"), false, 0);
        let decision = residence.want(digest(model), weights(*size), Wish::Ahead, now);
        assert_eq!(decision, Decision::Load);
        residence.loaded(digest(model), now);
        residence.worked(digest(model), 0, now);
    }
    residence
}

/// One more model that somebody asks for.
fn asked(residence: &mut Residence, model: usize, room: Room, now: Mono) -> Decision {
    residence.added(digest(model), &format!("m{model}"), false, 1);
    residence.want(digest(model), room, Wish::Asked, now)
}

fn gone(decision: &Decision) -> Vec<(usize, Why)> {
    let Decision::Evict(evictions) = decision else { panic!("{decision:?}") };
    evictions.iter().map(|one| (usize::from(one.model.0[0]), one.why)).collect()
}

#[test]
fn the_one_asked_for_the_longest_ago_goes_and_its_memory_comes_before_the_load() {
    let mut residence = loaded(BUDGET, &[40, 40]);
    residence.worked(digest(0), 0, at(5));
    let decision = asked(&mut residence, 2, weights(50), at(10));
    assert_eq!(gone(&decision), [(1, Why::Oldest)]);
    let again =
        |residence: &mut Residence| residence.want(digest(2), weights(50), Wish::Asked, at(11));
    assert_eq!(again(&mut residence), Decision::Wait { until: at(40) }, "it is still there");
    residence.freed(Some(digest(1)), 40);
    assert_eq!(again(&mut residence), Decision::Load);
    assert_eq!((residence.taken(), residence.counts().evicted_oldest), (90, 1));
    residence.loaded(digest(2), at(12));
    assert_eq!((residence.counts().loaded_ahead, residence.counts().loaded_asked), (2, 1));
    let standings = residence.standings(at(20));
    let (why, comes, ago) = standings[1].evicted.clone().expect("it went");
    assert_eq!((why, &*comes, ago), (Why::Oldest, "m2", Micros::secs(10)));
    assert_eq!((standings[1].bytes, standings[0].idle), (0, Some(Micros::secs(15))));
}

#[test]
fn one_that_a_peer_has_goes_first_however_late_it_was_used() {
    let mut residence = loaded(BUDGET, &[40, 40]);
    residence.copied(&BTreeMap::from([(digest(1), 1)]));
    residence.worked(digest(1), 0, at(9));
    assert_eq!(gone(&asked(&mut residence, 2, weights(50), at(10))), [(1, Why::Copied)]);
    // What peers have no more, they have no more.
    let mut residence = loaded(BUDGET, &[40, 40]);
    residence.copied(&BTreeMap::from([(digest(1), 1)]));
    residence.copied(&BTreeMap::new());
    assert_eq!(gone(&asked(&mut residence, 2, weights(50), at(10))), [(0, Why::Oldest)]);
}

#[test]
fn equals_go_by_name() {
    let mut residence = loaded(BUDGET, &[40, 40]);
    residence.worked(digest(0), 0, at(3));
    residence.worked(digest(1), 0, at(3));
    assert_eq!(gone(&asked(&mut residence, 2, weights(50), at(10))), [(0, Why::Oldest)]);
}

#[test]
fn one_that_a_larger_one_makes_superfluous_stays() {
    let mut residence = loaded(BUDGET, &[10, 70]);
    assert_eq!(gone(&asked(&mut residence, 2, weights(80), at(10))), [(1, Why::Oldest)]);
}

#[test]
fn of_those_that_a_larger_one_makes_superfluous_the_last_stay() {
    // 65 are missing: 50 with 10 are too few, and with the 60 behind them one of both need not go.
    let mut residence = loaded(120, &[50, 10, 60]);
    residence.copied(&BTreeMap::from([(digest(0), 1)]));
    let wants = |residence: &mut Residence| gone(&asked(residence, 3, weights(65), at(200)));
    assert_eq!(wants(&mut residence), [(0, Why::Copied), (2, Why::Oldest)], "a last copy stays");
    let mut residence = loaded(120, &[50, 10, 60]);
    assert_eq!(wants(&mut residence), [(0, Why::Oldest), (2, Why::Oldest)], "the oldest goes");
}

#[test]
fn one_that_is_at_work_is_waited_for_and_not_for_ever() {
    let mut residence = loaded(BUDGET, &[80]);
    residence.worked(digest(0), 1, at(9));
    let first = asked(&mut residence, 1, weights(50), at(10));
    assert_eq!(first, Decision::Wait { until: at(40) });
    let mut other = residence.clone();
    other.worked(digest(0), 0, at(20));
    let decision = other.want(digest(1), weights(50), Wish::Asked, at(20));
    assert_eq!(gone(&decision), [(0, Why::Oldest)]);
    let late = residence.want(digest(1), weights(50), Wish::Asked, at(40));
    let busy = Reason::Busy { needed: 50, waited: Micros::secs(30) };
    assert_eq!(late, Decision::Refuse(busy));
    assert_eq!(residence.counts().refused_busy, 1);
    let anew = residence.want(digest(1), weights(50), Wish::Asked, at(41));
    assert_eq!(anew, Decision::Wait { until: at(71) }, "whoever asks then waits anew");
}

#[test]
fn a_model_that_came_just_now_stays_for_a_while_unless_a_peer_has_it() {
    let mut residence = Residence::new(BUDGET);
    residence.added(digest(0), "m0", false, 1);
    assert_eq!(residence.want(digest(0), weights(80), Wish::Asked, at(0)), Decision::Load);
    residence.loaded(digest(0), at(2));
    residence.worked(digest(0), 0, at(3));
    let decision = asked(&mut residence, 1, weights(50), at(4));
    assert_eq!(decision, Decision::Wait { until: at(8) }, "three times what loading took");
    let mut copied = residence.clone();
    copied.copied(&BTreeMap::from([(digest(0), 1)]));
    let decision = copied.want(digest(1), weights(50), Wish::Asked, at(4));
    assert_eq!(gone(&decision), [(0, Why::Copied)]);
    let decision = residence.want(digest(1), weights(50), Wish::Asked, at(8));
    assert_eq!(gone(&decision), [(0, Why::Oldest)]);
}

#[test]
fn pinned_models_never_go_and_what_cannot_fit_beside_them_is_told_so() {
    let mut residence = Residence::new(BUDGET);
    residence.added(digest(0), "kept", true, 0);
    assert_eq!(residence.want(digest(0), weights(60), Wish::Ahead, at(0)), Decision::Load);
    residence.loaded(digest(0), at(0));
    let (needed, left, names) = (50, 40, vec!["kept".to_owned()]);
    let kept = Reason::Kept { needed, left, names };
    assert_eq!(asked(&mut residence, 1, weights(50), at(99)), Decision::Refuse(kept));
    let large = Reason::TooLarge { needed: 101, budget: BUDGET };
    assert_eq!(asked(&mut residence, 2, weights(101), at(99)), Decision::Refuse(large));
    let beside = Room { weights: 30, beside: 11 };
    let refused = asked(&mut residence, 3, beside, at(99));
    assert!(matches!(refused, Decision::Refuse(Reason::Kept { .. })), "{refused:?}");
}

#[test]
fn nobody_goes_for_a_model_that_nobody_asks_for_but_a_pinned_one() {
    let mut residence = loaded(BUDGET, &[80]);
    residence.added(digest(1), "m1", false, 0);
    let wish = residence.want(digest(1), weights(50), Wish::Ahead, at(99));
    assert_eq!(wish, Decision::Refuse(Reason::NoRoom { needed: 50, free: 20 }));
    let wish = residence.want(digest(1), weights(50), Wish::Asked, at(99));
    assert_eq!(wish, Decision::Refuse(Reason::Unwanted), "whoever asked has left");
    residence.added(digest(1), "m1", true, 0);
    let wish = residence.want(digest(1), weights(50), Wish::Ahead, at(99));
    assert_eq!(gone(&wish), [(0, Why::Oldest)]);
}

#[test]
fn whoever_waits_longest_is_served_first() {
    let mut residence = loaded(BUDGET, &[50, 50]);
    residence.worked(digest(0), 1, at(9));
    residence.worked(digest(1), 1, at(9));
    let large = weights(90);
    assert!(matches!(asked(&mut residence, 2, large, at(10)), Decision::Wait { .. }));
    assert!(matches!(asked(&mut residence, 3, weights(50), at(11)), Decision::Wait { .. }));
    residence.worked(digest(0), 0, at(12));
    let small = residence.want(digest(3), weights(50), Wish::Asked, at(12));
    assert!(matches!(small, Decision::Wait { .. }), "it would overtake the large one");
    residence.worked(digest(1), 0, at(13));
    assert_eq!(gone(&residence.want(digest(2), large, Wish::Asked, at(13))).len(), 2);
    let small = residence.want(digest(3), weights(50), Wish::Asked, at(14));
    assert!(matches!(small, Decision::Wait { .. }), "what leaves is promised to the large one");
}

#[test]
fn what_running_answers_need_is_not_given_to_weights() {
    let mut residence = loaded(BUDGET, &[40]);
    assert_eq!(residence.keep(digest(0), 20), 20);
    assert_eq!(residence.keep(digest(0), 10), 20, "never less than it has");
    residence.worked(digest(0), 1, at(1));
    assert!(matches!(asked(&mut residence, 1, weights(50), at(9)), Decision::Wait { .. }));
    residence.release(digest(0), 5);
    assert_eq!(residence.want(digest(1), weights(50), Wish::Asked, at(9)), Decision::Load);
    assert_eq!(residence.keep(digest(0), 50), 10, "as much as there is");
    let added = added(&mut residence, digest(0), 1, at(9));
    assert!(matches!(added, Decision::Wait { .. }), "nor to what is added to them");
}

/// What is added to a model.
fn added(residence: &mut Residence, base: ModelDigest, bytes: u64, now: Mono) -> Decision {
    residence.want_added((digest(9), base), "notes", bytes, now)
}

#[test]
fn what_is_added_makes_room_and_its_base_does_not_go_for_it() {
    // The base was asked for the longest ago.
    let mut residence = loaded(BUDGET, &[40, 40]);
    let notes = |residence: &mut Residence, now| added(residence, digest(0), 30, now);
    let decision = notes(&mut residence, at(30));
    assert_eq!(gone(&decision), [(1, Why::Oldest)]);
    let Decision::Evict(evictions) = decision else { panic!("{residence:?}") };
    assert_eq!(evictions[0].comes, "notes");
    assert_eq!(notes(&mut residence, at(31)), Decision::Wait { until: at(60) }, "still there");
    assert_eq!((residence.waiting(), residence.standings(at(31)).len()), (1, 2));
    residence.worked(digest(0), 1, at(32));
    let other = asked(&mut residence, 2, weights(35), at(32));
    assert!(matches!(other, Decision::Wait { .. }), "what leaves is promised: {other:?}");
    residence.freed(Some(digest(1)), 40);
    assert_eq!(notes(&mut residence, at(33)), Decision::Load);
    assert_eq!((residence.taken(), residence.standings(at(33)).len()), (70, 3));
    residence.freed(None, 30);
    assert_eq!(residence.taken(), 40);
    // What is free needs nobody to go.
    assert_eq!(added(&mut residence, digest(0), 10, at(33)), Decision::Load);
}

#[test]
fn what_is_added_is_refused_where_its_base_leaves_too_little_or_is_not_there() {
    let mut residence = loaded(BUDGET, &[80]);
    let names = vec!["m0".to_owned()];
    let kept = Decision::Refuse(Reason::Kept { needed: 30, left: 20, names });
    assert_eq!(added(&mut residence, digest(0), 30, at(30)), kept);
    let unwanted = Decision::Refuse(Reason::Unwanted);
    assert_eq!(added(&mut residence, digest(5), 1, at(30)), unwanted, "no base");
    assert_eq!(residence.want_added((digest(0), digest(0)), "m0", 1, at(30)), unwanted);
    let mut residence = loaded(BUDGET, &[40, 50]);
    residence.worked(digest(1), 1, at(30));
    assert_eq!(added(&mut residence, digest(0), 30, at(30)), Decision::Wait { until: at(60) });
    let busy = Decision::Refuse(Reason::Busy { needed: 30, waited: MOST_WAIT });
    assert_eq!(added(&mut residence, digest(0), 30, at(60)), busy);
    assert_eq!((residence.waiting(), residence.standings(at(60)).len()), (0, 2));
    assert!(matches!(added(&mut residence, digest(0), 30, at(61)), Decision::Wait { .. }));
    residence.removed(digest(0));
    assert_eq!(added(&mut residence, digest(0), 30, at(62)), unwanted, "its base went");
    assert_eq!(residence.waiting(), 0);
}

#[test]
fn a_model_removed_while_it_is_in_memory_is_counted_until_it_is_freed() {
    let mut residence = loaded(BUDGET, &[80]);
    residence.removed(digest(0));
    assert!(matches!(asked(&mut residence, 1, weights(50), at(9)), Decision::Wait { .. }));
    residence.added(digest(0), "m0", false, 0);
    residence.removed(digest(0));
    residence.freed(Some(digest(0)), 80);
    assert_eq!(residence.want(digest(1), weights(50), Wish::Asked, at(9)), Decision::Load);
    residence.close();
    residence.freed(Some(digest(1)), 50);
    let closed = residence.want(digest(1), weights(50), Wish::Asked, at(9));
    assert_eq!(closed, Decision::Refuse(Reason::Unwanted));
}

#[test]
fn one_that_comes_back_before_it_is_gone_waits_for_its_own_memory() {
    for wish in [Wish::Ahead, Wish::Asked] {
        let mut residence = loaded(BUDGET, &[80]);
        residence.removed(digest(0));
        residence.added(digest(0), "again", false, 1);
        let wants = |residence: &mut Residence| residence.want(digest(0), weights(80), wish, at(9));
        assert_eq!(wants(&mut residence), Decision::Wait { until: at(39) });
        residence.freed(Some(digest(0)), 80);
        assert_eq!(wants(&mut residence), Decision::Load);
    }
}

#[test]
fn one_of_which_a_second_copy_is_on_its_way_does_not_go_before_that_has_come() {
    let mut residence = loaded(BUDGET, &[40]);
    residence.worked(digest(0), 1, at(1));
    assert_eq!(residence.want(digest(0), weights(40), Wish::Asked, at(2)), Decision::Load);
    residence.worked(digest(0), 0, at(3));
    assert!(matches!(asked(&mut residence, 1, weights(50), at(9)), Decision::Wait { .. }));
    // Nobody needs it twice.
    residence.freed(Some(digest(0)), 40);
    assert_eq!(residence.want(digest(1), weights(50), Wish::Asked, at(9)), Decision::Load);
    assert_eq!(gone(&asked(&mut residence, 2, weights(40), at(9))), [(0, Why::Oldest)]);
}

#[test]
fn memory_is_divided_equally_but_for_what_each_needs() {
    assert_eq!(divide(90, &[0, 0, 0]), [30, 30, 30]);
    assert_eq!(divide(90, &[50, 0, 10]), [50, 20, 20]);
    assert_eq!(divide(90, &[50, 40, 0]), [50, 40, 0]);
    assert_eq!(divide(90, &[100, 10]), [90, 0], "no more than there is");
    assert_eq!(divide(90, &[]), Vec::<u64>::new());
}

/// What may happen to an engine.
#[derive(Clone, Debug)]
enum Op {
    Begin(usize),
    End(usize),
    Want(usize),
    Ahead(usize),
    Loaded(usize),
    Freed(usize),
    Copies(usize, u32),
    Keep(usize, u64),
    Release(usize, u64),
    Later(u64),
    Removed(usize),
}

/// A shell that does what it is told, with an account of its own, kept in the plainest way.
#[derive(Debug)]
struct Shell {
    residence: Residence,
    now: Mono,
    models: Vec<Shadow>,
    /// In the order in which they wait.
    waiting: Vec<(usize, Mono)>,
}

#[derive(Clone, Debug, Default)]
struct Shadow {
    room: Room,
    pinned: bool,
    work: usize,
    copies: u32,
    used: Option<Mono>,
    held: bool,
    floor: u64,
    granted: Mono,
    /// Loaded, and until when it rests.
    ready: Option<Mono>,
    leaving: bool,
    claims: bool,
}

impl Shadow {
    /// What it takes once all that leaves has left.
    fn stays(&self) -> u64 {
        if self.held && !self.leaving { self.room.weights + self.floor } else { 0 }
    }
}

impl Shell {
    fn new(rooms: &[(u64, u64)], pinned: usize) -> Self {
        let mut residence = Residence::new(BUDGET);
        let shadow = |(model, &(weights, beside)): (usize, &(u64, u64))| {
            residence.added(digest(model), &format!("m{model}"), model == pinned, 0);
            let room = Room { weights, beside };
            Shadow { room, pinned: model == pinned, ..Shadow::default() }
        };
        let models = rooms.iter().enumerate().map(shadow).collect();
        Self { residence, now: at(1), models, waiting: Vec::new() }
    }

    fn taken(&self) -> u64 {
        self.models.iter().filter(|m| m.held).map(|m| m.room.weights).sum()
    }

    fn used(&self) -> u64 {
        let floors = self.models.iter().filter(|m| m.held && !m.leaving).map(|m| m.floor);
        self.taken() + floors.sum::<u64>()
    }

    fn work(&mut self, model: usize, work: usize) {
        (self.models[model].work, self.models[model].used) = (work, Some(self.now));
        self.residence.worked(digest(model), work, self.now);
    }

    /// The models that may go for another one, in the order in which they do.
    fn order(&self, comes: usize) -> Vec<usize> {
        let hurried = self.models[comes].pinned;
        let may_go = |model: &usize| {
            let one = &self.models[*model];
            let rested = one.ready.is_some_and(|until| until <= self.now);
            *model != comes
                && one.ready.is_some()
                && one.work == 0
                && !one.pinned
                && !one.leaving
                && (rested || one.copies > 0 || hurried)
        };
        let mut order: Vec<usize> = (0..self.models.len()).filter(may_go).collect();
        order.sort_by_key(|model| {
            let one = &self.models[*model];
            (one.copies == 0, one.used, format!("m{model}"))
        });
        order
    }

    fn want(&mut self, model: usize, wish: Wish) -> Decision {
        let room = self.models[model].room;
        let needed = room.weights + room.beside;
        if !self.waiting.iter().any(|(other, _)| *other == model) {
            self.waiting.push((model, self.now));
        }
        let decision = self.residence.want(digest(model), room, wish, self.now);
        let claims = |shell: &Self, but: usize| -> u64 {
            let others = shell.models.iter().enumerate().filter(|(at, m)| *at != but && m.claims);
            others.map(|(_, m)| m.room.weights + m.room.beside).sum()
        };
        let stays: u64 = self.models.iter().map(Shadow::stays).sum();
        let free = BUDGET as i64 - (stays + claims(self, model)) as i64;
        match &decision {
            Decision::Load => {
                assert!(!self.models[model].held, "it is loaded once");
                assert!(self.used() + needed <= BUDGET, "the budget is kept: {self:?}");
                let one = &mut self.models[model];
                (one.held, one.floor, one.granted) = (true, room.beside, self.now);
            }
            Decision::Evict(evictions) => {
                self.check(model, needed as i64 - free, evictions);
                assert!(wish == Wish::Asked || self.models[model].pinned);
                for eviction in evictions {
                    self.models[usize::from(eviction.model.0[0])].leaving = true;
                }
                self.models[model].claims = true;
                return decision;
            }
            Decision::Wait { until } => {
                assert!(*until > self.now, "there is something to wait for");
                self.models[model].claims |= needed as i64 <= free;
                let mine = self.waiting.iter().position(|(other, _)| *other == model);
                let since = self.now.since(self.waiting[mine.expect("it waits")].1);
                assert!(since < MOST_WAIT);
                return decision;
            }
            Decision::Refuse(reason) => self.refused(model, wish, reason),
        }
        self.models[model].claims = false;
        self.waiting.retain(|(other, _)| *other != model);
        decision
    }

    /// Those that go may go, are the first in the order, and none of them need not.
    fn check(&self, model: usize, missing: i64, evictions: &[Eviction]) {
        let order = self.order(model);
        let gone: Vec<usize> = evictions.iter().map(|one| usize::from(one.model.0[0])).collect();
        let bytes = |models: &[usize]| -> i64 {
            models.iter().map(|model| self.models[*model].stays() as i64).sum()
        };
        assert!(!gone.is_empty() && gone.iter().all(|one| order.contains(one)), "{self:?}");
        assert!(bytes(&gone) >= missing, "it is enough: {self:?}");
        for one in &gone {
            assert!(bytes(&gone) - bytes(&[*one]) < missing, "m{one} need not go: {self:?}");
        }
        for (place, one) in gone.iter().map(|one| (order.iter().position(|o| o == one), one)) {
            // Nobody before it could go in its place.
            let mut before = order[..place.expect("it may go")].iter();
            let instead = |other: &usize| {
                !gone.contains(other) && bytes(&gone) - bytes(&[*one]) + bytes(&[*other]) >= missing
            };
            assert!(!before.any(|other| instead(other) && bytes(&[*other]) >= bytes(&[*one])));
        }
        let last = order.iter().rposition(|one| gone.contains(one)).expect("not empty");
        assert!(bytes(&order[..last]) < missing, "earlier ones would do: {self:?}");
        for eviction in evictions {
            let copies = self.models[usize::from(eviction.model.0[0])].copies;
            assert_eq!(eviction.why == Why::Copied, copies > 0);
        }
    }

    fn refused(&self, model: usize, wish: Wish, reason: &Reason) {
        let one = &self.models[model];
        match reason {
            Reason::TooLarge { needed, .. } => assert!(*needed > BUDGET),
            Reason::Kept { needed, left, .. } => {
                assert!(
                    left < needed && self.models.iter().any(|m| m.pinned && (m.held || m.claims))
                );
            }
            Reason::Busy { waited, .. } => assert!(*waited >= MOST_WAIT),
            Reason::NoRoom { needed, free } => {
                assert!(free < needed && wish == Wish::Ahead && !one.pinned);
            }
            Reason::Unwanted => assert!(wish == Wish::Asked && one.work == 0),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Begin(model) => self.work(model, self.models[model].work + 1),
            Op::End(model) if self.models[model].work > 0 => {
                self.work(model, self.models[model].work - 1);
            }
            Op::Want(model) if !self.models[model].held || self.models[model].leaving => {
                self.want(model, Wish::Asked);
            }
            Op::Ahead(model) if !self.models[model].held => drop(self.want(model, Wish::Ahead)),
            Op::Loaded(model) if self.models[model].held && self.models[model].ready.is_none() => {
                self.residence.loaded(digest(model), self.now);
                let one = &mut self.models[model];
                let took = self.now.since(one.granted).times(REST_PER_LOAD);
                one.ready = Some(self.now.plus(took.min(MOST_REST)));
            }
            Op::Freed(model) if self.models[model].leaving => {
                let one = &mut self.models[model];
                self.residence.freed(Some(digest(model)), one.room.weights);
                (one.held, one.leaving, one.ready, one.floor) = (false, false, None, 0);
            }
            Op::Copies(model, count) => {
                self.models[model].copies = count;
                let all = self.models.iter().enumerate();
                let all = all.map(|(model, one)| (digest(model), one.copies)).collect();
                self.residence.copied(&all);
            }
            Op::Keep(model, bytes) if self.models[model].held && !self.models[model].leaving => {
                let floor = self.residence.keep(digest(model), bytes);
                assert!(floor >= self.models[model].floor);
                self.models[model].floor = floor;
            }
            Op::Release(model, bytes) if !self.models[model].leaving => {
                self.residence.release(digest(model), bytes);
                let one = &mut self.models[model];
                one.floor = one.floor.min(bytes.max(one.room.beside));
            }
            Op::Later(seconds) => self.now = self.now.plus(Micros::secs(seconds)),
            Op::Removed(model) if !self.models[model].held => {
                self.residence.removed(digest(model));
                let pinned = self.models[model].pinned;
                self.residence.added(digest(model), &format!("m{model}"), pinned, 0);
                let one = &mut self.models[model];
                (one.work, one.used, one.copies, one.claims) = (0, None, 0, false);
                self.waiting.retain(|(other, _)| *other != model);
            }
            Op::End(_) | Op::Want(_) | Op::Ahead(_) | Op::Loaded(_) | Op::Freed(_) => {}
            Op::Keep(..) | Op::Release(..) | Op::Removed(_) => {}
        }
        assert!(self.used() <= BUDGET, "{self:?}");
        assert_eq!(self.taken(), self.residence.taken(), "both count the same: {self:?}");
        let promised: u64 = self
            .models
            .iter()
            .map(|one| {
                let claim = if one.claims { one.room.weights + one.room.beside } else { 0 };
                one.stays() + claim
            })
            .sum();
        assert!(promised <= BUDGET, "no more is promised than there is: {self:?}");
    }
}

fn op() -> impl Strategy<Value = Op> {
    let model = || 0..MODELS;
    prop_oneof![
        3 => model().prop_map(Op::Begin),
        3 => model().prop_map(Op::End),
        6 => model().prop_map(Op::Want),
        1 => model().prop_map(Op::Ahead),
        4 => model().prop_map(Op::Loaded),
        4 => model().prop_map(Op::Freed),
        1 => (model(), 0..3_u32).prop_map(|(model, count)| Op::Copies(model, count)),
        1 => (model(), 0..40_u64).prop_map(|(model, bytes)| Op::Keep(model, bytes)),
        1 => (model(), 0..10_u64).prop_map(|(model, bytes)| Op::Release(model, bytes)),
        2 => (0..15_u64).prop_map(Op::Later),
        1 => model().prop_map(Op::Removed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The account never promises more than there is, none goes that may not, they go in order,
    /// and whoever wants a model hears in the end whether it comes.
    #[test]
    fn the_account_holds_whatever_happens(
        rooms in prop::collection::vec((5..70_u64, 0..12_u64), MODELS),
        pinned in 0..2 * MODELS,
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut shell = Shell::new(&rooms, pinned);
        for op in &ops {
            shell.apply(op);
        }
        // All that is under way ends; those that wait ask as they were told to.
        for _ in 0..2 * MODELS {
            for model in 0..MODELS {
                shell.apply(&Op::Freed(model));
                shell.apply(&Op::Loaded(model));
            }
            for (model, _) in shell.waiting.clone() {
                shell.want(model, Wish::Asked);
            }
            shell.apply(&Op::Later(10));
        }
        prop_assert!(shell.waiting.is_empty(), "nobody waits for ever: {shell:?}");
    }
}
