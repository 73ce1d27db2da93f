//! The cache against a naive one: a list that is searched from its beginning.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds =
    Bounds { entries: 3, bytes: 3 * OVERHEAD + 60, entry_bytes: 40, ttl: Micros(100) };
/// What the questions of these tests are about: few, so that they meet.
const KEYS: u8 = 5;

fn key(number: u8) -> Key {
    Key([number; 32])
}

fn owner(number: u8) -> Owner {
    let account = ["acme", "acme/line3", "rival"][usize::from(number) % 3];
    let model = ["small", "large"][usize::from(number) % 2].to_owned();
    Owner { account: account.parse().unwrap(), model, label: Label::Anywhere }
}

fn scope(number: u8) -> Scope {
    let account = ["acme", "acme/line3", "rival"].get(usize::from(number) % 4);
    let model = ["small", "large"].get(usize::from(number) / 4 % 3);
    let account = account.map(|path| path.parse().unwrap());
    Scope { account, model: model.map(|model| (*model).to_owned()) }
}

struct Kept {
    number: u8,
    answer: u32,
    bytes: u64,
    /// When it was made, and when it ends.
    made: i64,
    ends: u64,
    used: u64,
}

/// The reference: no index, nothing removed until somebody looks.
#[derive(Default)]
struct Naive {
    kept: Vec<Kept>,
    /// Ticket, question, whether others wait for it.
    open: Vec<(Ticket, u8, bool)>,
    uses: u64,
}

impl Naive {
    fn find(&mut self, now: u64, number: u8) -> Option<(u32, u64)> {
        self.kept.retain(|kept| now < kept.ends);
        self.uses += 1;
        let kept = self.kept.iter_mut().find(|kept| kept.number == number)?;
        kept.used = self.uses;
        Some((kept.answer, (now as i64 - kept.made) as u64))
    }

    fn leader(&self, number: u8) -> Option<Ticket> {
        self.open.iter().find(|(_, of, leads)| *of == number && *leads).map(|(ticket, ..)| *ticket)
    }

    fn close(&mut self, ticket: Ticket) -> Option<u8> {
        let at = self.open.iter().position(|(open, ..)| *open == ticket)?;
        Some(self.open.remove(at).1)
    }

    fn answered(&mut self, now: u64, ticket: Ticket, answer: u32, bytes: u64) -> bool {
        let Some(number) = self.close(ticket) else { return false };
        self.keep(now, number, (answer, bytes), (now as i64, now + BOUNDS.ttl.0))
    }

    fn fetched(&mut self, now: u64, ticket: Ticket, answer: (u32, u64), dated: Dated) -> bool {
        let made = dated.asked.0 as i64 - dated.age.0 as i64;
        let ends = (dated.asked.0 + dated.left.0) as i64;
        let ends = ends.min(made + BOUNDS.ttl.0 as i64);
        if ends <= now as i64 || !self.open.iter().any(|(open, ..)| *open == ticket) {
            return false;
        }
        let Some(number) = self.close(ticket) else { return false };
        self.keep(now, number, answer, (made, ends as u64));
        true
    }

    fn keep(
        &mut self,
        now: u64,
        number: u8,
        (answer, bytes): (u32, u64),
        (made, ends): (i64, u64),
    ) -> bool {
        self.kept.retain(|kept| now < kept.ends);
        if bytes > BOUNDS.entry_bytes {
            return false;
        }
        self.kept.retain(|kept| kept.number != number);
        while self.kept.len() >= BOUNDS.entries || self.bytes() + bytes + OVERHEAD > BOUNDS.bytes {
            let least = self.kept.iter().map(|kept| kept.used).min().unwrap();
            self.kept.retain(|kept| kept.used != least);
        }
        self.uses += 1;
        self.kept.push(Kept { number, answer, bytes, made, ends, used: self.uses });
        true
    }

    fn purge(&mut self, scope: &Scope) -> u64 {
        let before = self.kept.len();
        self.kept.retain(|kept| !owner(kept.number).is_reached(scope));
        self.open.retain(|(_, number, _)| !owner(*number).is_reached(scope));
        (before - self.kept.len()) as u64
    }

    fn bytes(&self) -> u64 {
        self.kept.iter().map(|kept| kept.bytes + OVERHEAD).sum()
    }
}

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    Look(u8),
    Find(u8),
    Anew(u8),
    /// Ends the ticket given so many tickets ago, well or not.
    Answer(usize, u64),
    /// The same by a peer, asked so long ago: how old it was and how long it was good for.
    Fetch(usize, u64, (u64, u64)),
    /// A peer asks.
    Lend(u8, u64),
    End(usize),
    Purge(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        1 => (0_u64..60).prop_map(Act::Wait),
        4 => (0..KEYS).prop_map(Act::Look),
        1 => (0..KEYS).prop_map(Act::Find),
        1 => (0..KEYS).prop_map(Act::Anew),
        4 => (0_usize..4, 0_u64..50).prop_map(|(back, bytes)| Act::Answer(back, bytes)),
        3 => (0_usize..4, 0_u64..50, (0_u64..120, 0_u64..120))
            .prop_map(|(back, ago, dated)| Act::Fetch(back, ago, dated)),
        1 => (0..KEYS, 0_u64..50).prop_map(|(number, most)| Act::Lend(number, most)),
        1 => (0_usize..4).prop_map(Act::End),
        1 => (0_u8..12).prop_map(Act::Purge),
    ];
    prop::collection::vec(act, 0..120)
}

/// Both caches and what is common to them.
#[derive(Default)]
struct Pair {
    naive: Naive,
    now: u64,
    tickets: Vec<Ticket>,
    answers: u32,
}

impl Pair {
    fn given(&self, back: usize) -> Option<Ticket> {
        self.tickets.len().checked_sub(back + 1).map(|at| self.tickets[at])
    }

    /// What concerns peers.
    fn with_peers(&mut self, cache: &mut Cache<u32>, act: Act) -> Result<(), TestCaseError> {
        let now = Mono(self.now);
        match act {
            Act::Fetch(back, ago, (age, left)) => {
                let Some(ticket) = self.given(back) else { return Ok(()) };
                self.answers += 1;
                let asked = Mono(self.now - ago.min(self.now));
                let dated = Dated { asked, age: Micros(age), left: Micros(left) };
                let answer = (self.answers, 9);
                let got = cache.fetched(now, ticket, answer, dated);
                let known = self.naive.fetched(self.now, ticket, answer, dated);
                prop_assert_eq!(got, known.then(|| Micros(age + now.since(asked).0)));
            }
            Act::Lend(number, most) => {
                let ask = Ask { digest: key(number).0, purges: [0; 16], most_bytes: most };
                self.naive.kept.retain(|kept| self.now < kept.ends);
                let known = self.naive.kept.iter().find(|kept| kept.number == number);
                let known = known.filter(|kept| kept.bytes <= most).map(|kept| {
                    (kept.answer, (self.now as i64 - kept.made) as u64, kept.ends - self.now)
                });
                let lent = cache.lend(now, (&ask, true), [0; 16]).ok();
                prop_assert_eq!(lent.map(|lent| (lent.answer, lent.age.0, lent.left.0)), known);
            }
            Act::Wait(_)
            | Act::Look(_)
            | Act::Find(_)
            | Act::Anew(_)
            | Act::Answer(..)
            | Act::End(_)
            | Act::Purge(_) => {}
        }
        Ok(())
    }

    fn act(&mut self, cache: &mut Cache<u32>, act: Act) -> Result<(), TestCaseError> {
        let now = Mono(self.now);
        match act {
            Act::Wait(micros) => self.now += micros,
            Act::Look(number) => {
                let looked = cache.look(now, key(number), &owner(number));
                match (looked, self.naive.find(self.now, number), self.naive.leader(number)) {
                    (Looked::Hit { answer, age }, Some(known), _) => {
                        prop_assert_eq!((answer, age.0), known);
                    }
                    (Looked::Follow(ticket), None, Some(leader)) => prop_assert_eq!(ticket, leader),
                    (Looked::Lead(ticket), None, None) => {
                        self.naive.open.push((ticket, number, true));
                        self.tickets.push(ticket);
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            Act::Find(number) => {
                let found = cache.find(now, &key(number)).map(|(answer, age)| (answer, age.0));
                prop_assert_eq!(found, self.naive.find(self.now, number));
            }
            Act::Anew(number) => {
                let ticket = cache.ask_anew(key(number), &owner(number)).unwrap();
                self.naive.open.push((ticket, number, false));
                self.tickets.push(ticket);
            }
            Act::Answer(back, bytes) => {
                let Some(ticket) = self.given(back) else { return Ok(()) };
                self.answers += 1;
                let kept = cache.answered(now, ticket, self.answers, bytes);
                let known = self.naive.answered(self.now, ticket, self.answers, bytes);
                prop_assert_eq!(kept, known);
            }
            act @ (Act::Fetch(..) | Act::Lend(..)) => self.with_peers(cache, act)?,
            Act::End(back) => {
                let Some(ticket) = self.given(back) else { return Ok(()) };
                cache.ended(ticket);
                self.naive.close(ticket);
            }
            Act::Purge(number) => {
                let scope = scope(number);
                // The reference forgets what is too old when it looks, and so it counts it here.
                cache.expire(now);
                self.naive.kept.retain(|kept| self.now < kept.ends);
                prop_assert_eq!(
                    cache.purge(std::slice::from_ref(&scope)),
                    self.naive.purge(&scope)
                );
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn it_does_what_a_naive_cache_does(acts in acts()) {
        let mut cache = Cache::new(BOUNDS);
        let mut pair = Pair::default();
        for act in acts {
            pair.act(&mut cache, act)?;
            cache.expire(Mono(pair.now));
            pair.naive.kept.retain(|kept| pair.now < kept.ends);
            prop_assert_eq!(cache.len(), pair.naive.kept.len());
            prop_assert_eq!(cache.bytes(), pair.naive.bytes());
            prop_assert!(cache.bytes() <= BOUNDS.bytes && cache.len() <= BOUNDS.entries);
            prop_assert_eq!((cache.by_end.len(), cache.by_use.len()), (cache.len(), cache.len()));
            prop_assert_eq!(cache.open.len(), pair.naive.open.len());
            // Whatever is kept, peers are told of it.
            let told = cache.in_brief(1, true);
            let all = pair.naive.kept.iter().all(|kept| told.wide.may_have(&key(kept.number).0));
            prop_assert!(all && told.answers == cache.len() as u64);
            let leaders = pair.naive.open.iter().filter(|(.., leads)| *leads).count();
            prop_assert_eq!(cache.leaders.len(), leaders);
        }
    }
}

fn lead(cache: &mut Cache<u32>, number: u8) -> Ticket {
    match cache.look(Mono(0), key(number), &owner(number)) {
        Looked::Lead(ticket) => ticket,
        other @ (Looked::Hit { .. } | Looked::Follow(_) | Looked::Full) => panic!("{other:?}"),
    }
}

#[test]
fn one_asks_for_all_and_another_takes_over() {
    let mut cache = Cache::<u32>::new(BOUNDS);
    let first = lead(&mut cache, 1);
    assert_eq!(cache.look(Mono(0), key(1), &owner(1)), Looked::Follow(first));
    cache.ended(first);
    let second = lead(&mut cache, 1);
    assert_eq!(cache.look(Mono(0), key(1), &owner(1)), Looked::Follow(second));
    assert!(cache.answered(Mono(5), second, 7, 10));
    let hit = Looked::Hit { answer: 7, age: Micros(4) };
    assert_eq!(cache.look(Mono(9), key(1), &owner(1)), hit);
    assert_eq!(cache.look(Mono(105), key(1), &owner(1)), Looked::Lead(Ticket(5)));
    let counts = cache.counts();
    assert_eq!((counts.hits, counts.misses, counts.coalesced, counts.expired), (1, 3, 2, 1));
}

#[test]
fn a_purge_reaches_what_is_under_way() {
    let mut cache = Cache::<u32>::new(BOUNDS);
    let early = lead(&mut cache, 0);
    let other = lead(&mut cache, 2);
    let scope = Scope { account: Some("acme".parse().unwrap()), model: None };
    assert_eq!(cache.purge(&[scope]), 0);
    // Who comes after the purge waits for nobody who asked before it.
    let late = lead(&mut cache, 0);
    assert!(!cache.answered(Mono(1), early, 1, 1));
    assert_eq!(cache.find(Mono(1), &key(0)), None);
    assert!(cache.answered(Mono(1), late, 2, 1));
    assert!(cache.answered(Mono(1), other, 3, 1));
    assert_eq!(cache.find(Mono(1), &key(0)), Some((2, Micros(0))));
    assert_eq!(cache.purge(&[Scope::default()]), 2);
    assert!(cache.is_empty());
}

#[test]
fn what_is_under_way_is_bounded() {
    let mut cache = Cache::<u32>::new(BOUNDS);
    let first = lead(&mut cache, 0);
    for _ in 0..MAX_FOLLOWERS {
        assert_eq!(cache.look(Mono(0), key(0), &owner(0)), Looked::Follow(first));
    }
    assert_eq!(cache.look(Mono(0), key(0), &owner(0)), Looked::Full);
    while cache.ask_anew(key(9), &owner(9)).is_some() {}
    assert_eq!(cache.open.len(), MAX_OPEN);
    assert_eq!(cache.look(Mono(0), key(1), &owner(1)), Looked::Full);
}

fn labelled(cache: &mut Cache<u32>, number: u8, label: Label) {
    let owner = Owner { label, ..owner(number) };
    let Looked::Lead(ticket) = cache.look(Mono(0), key(number), &owner) else { panic!() };
    assert!(cache.answered(Mono(0), ticket, u32::from(number), 1));
}

#[test]
fn a_label_keeps_an_answer_and_the_word_of_it_where_they_belong() {
    let mut cache = Cache::<u32>::new(BOUNDS);
    for (number, label) in [(0, Label::Node), (1, Label::Site), (2, Label::Mesh)] {
        labelled(&mut cache, number, label);
    }
    let ask = |number| Ask { digest: key(number).0, purges: [0; 16], most_bytes: 9 };
    let mut lend = |number, same_site| {
        cache.lend(Mono(1), (&ask(number), same_site), [0; 16]).map(|lent| lent.answer)
    };
    assert_eq!([lend(0, true), lend(0, false)], [Err(Missing::Stays); 2]);
    assert_eq!([lend(1, true), lend(1, false)], [Ok(1), Err(Missing::Stays)]);
    assert_eq!([lend(2, true), lend(2, false)], [Ok(2), Ok(2)]);
    assert_eq!(lend(3, true), Err(Missing::NotKept));
    let (near, far) = (cache.in_brief(1, true), cache.in_brief(1, false));
    let told = |brief: &KeptInBrief, number: u8| {
        let has = |set: &Digests| set.may_have(&key(number).0);
        has(&brief.wide) || brief.site.as_ref().is_some_and(has)
    };
    assert_eq!([0, 1, 2].map(|number| told(&near, number)), [false, true, true]);
    assert_eq!([0, 1, 2].map(|number| told(&far, number)), [false, false, true]);
    // A peer that knows other purges gets nothing.
    let other = Ask { purges: [1; 16], ..ask(2) };
    assert_eq!(cache.lend(Mono(1), (&other, true), [0; 16]), Err(Missing::Purges));
}

#[test]
fn what_a_peer_gives_ends_when_it_would_have_there() {
    let mut cache = Cache::<u32>::new(BOUNDS);
    let ticket = lead(&mut cache, 1);
    let dated = Dated { asked: Mono(10), age: Micros(60), left: Micros(35) };
    assert_eq!(cache.fetched(Mono(15), ticket, (7, 1), dated), Some(Micros(65)));
    assert_eq!(cache.find(Mono(44), &key(1)), Some((7, Micros(94))));
    assert_eq!(cache.find(Mono(45), &key(1)), None);
    // One that is too old, or was purged on its way, is not given; the question stays, or is gone.
    let ticket = lead(&mut cache, 2);
    let old = Dated { asked: Mono(0), age: Micros(100), left: Micros(50) };
    assert_eq!(cache.fetched(Mono(1), ticket, (7, 1), old), None);
    assert!(cache.is_open(ticket));
    cache.purge(&[Scope::default()]);
    assert_eq!(cache.fetched(Mono(1), ticket, (7, 1), dated), None);
    assert_eq!((cache.counts().fetched, cache.len()), (1, 0));
}

#[test]
fn what_peers_are_told_is_made_anew_when_most_of_it_is_gone() {
    let bounds = Bounds { entries: 100, bytes: 1 << 20, ..BOUNDS };
    let mut cache = Cache::<u32>::new(bounds);
    let numbered = |number: u32| Key(*blake3::hash(&number.to_be_bytes()).as_bytes());
    for number in 0..2_000 {
        let ticket = cache.ask_anew(numbered(number), &owner(0)).unwrap();
        cache.answered(Mono(0), ticket, number, 1);
    }
    let told = cache.in_brief(1, false);
    assert!((1_900..2_000).all(|number| told.wide.may_have(&numbered(number).0)));
    let wrong = (0..1_900).filter(|number| told.wide.may_have(&numbered(*number).0)).count();
    assert!(wrong < 400, "{wrong} that are gone seem to be there");
    assert_eq!(told.at.0, 1);
}
