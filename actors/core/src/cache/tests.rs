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
    Owner { account: account.parse().unwrap(), model }
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
    stored: u64,
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
        self.kept.retain(|kept| now - kept.stored < BOUNDS.ttl.0);
        self.uses += 1;
        let kept = self.kept.iter_mut().find(|kept| kept.number == number)?;
        kept.used = self.uses;
        Some((kept.answer, now - kept.stored))
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
        self.kept.retain(|kept| now - kept.stored < BOUNDS.ttl.0);
        if bytes > BOUNDS.entry_bytes {
            return false;
        }
        self.kept.retain(|kept| kept.number != number);
        while self.kept.len() >= BOUNDS.entries || self.bytes() + bytes + OVERHEAD > BOUNDS.bytes {
            let least = self.kept.iter().map(|kept| kept.used).min().unwrap();
            self.kept.retain(|kept| kept.used != least);
        }
        self.uses += 1;
        self.kept.push(Kept { number, answer, bytes, stored: now, used: self.uses });
        true
    }

    fn purge(&mut self, scope: &Scope) -> u64 {
        let before = self.kept.len();
        self.kept.retain(|kept| !scope.reaches(&owner(kept.number)));
        self.open.retain(|(_, number, _)| !scope.reaches(&owner(*number)));
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
    fn act(&mut self, cache: &mut Cache<u32>, act: Act) -> Result<(), TestCaseError> {
        let now = Mono(self.now);
        let given = |tickets: &[Ticket], back: usize| {
            tickets.len().checked_sub(back + 1).map(|at| tickets[at])
        };
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
                let Some(ticket) = given(&self.tickets, back) else { return Ok(()) };
                self.answers += 1;
                let kept = cache.answered(now, ticket, self.answers, bytes);
                let known = self.naive.answered(self.now, ticket, self.answers, bytes);
                prop_assert_eq!(kept, known);
            }
            Act::End(back) => {
                let Some(ticket) = given(&self.tickets, back) else { return Ok(()) };
                cache.ended(ticket);
                self.naive.close(ticket);
            }
            Act::Purge(number) => {
                let scope = scope(number);
                // The reference forgets what is too old when it looks, and so it counts it here.
                cache.expire(now);
                self.naive.kept.retain(|kept| self.now - kept.stored < BOUNDS.ttl.0);
                prop_assert_eq!(cache.purge(&scope), self.naive.purge(&scope));
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
            pair.naive.kept.retain(|kept| pair.now - kept.stored < BOUNDS.ttl.0);
            prop_assert_eq!(cache.len(), pair.naive.kept.len());
            prop_assert_eq!(cache.bytes(), pair.naive.bytes());
            prop_assert!(cache.bytes() <= BOUNDS.bytes && cache.len() <= BOUNDS.entries);
            prop_assert_eq!((cache.by_age.len(), cache.by_use.len()), (cache.len(), cache.len()));
            prop_assert_eq!(cache.open.len(), pair.naive.open.len());
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
    assert_eq!(cache.purge(&scope), 0);
    // Who comes after the purge waits for nobody who asked before it.
    let late = lead(&mut cache, 0);
    assert!(!cache.answered(Mono(1), early, 1, 1));
    assert_eq!(cache.find(Mono(1), &key(0)), None);
    assert!(cache.answered(Mono(1), late, 2, 1));
    assert!(cache.answered(Mono(1), other, 3, 1));
    assert_eq!(cache.find(Mono(1), &key(0)), Some((2, Micros(0))));
    assert_eq!(cache.purge(&Scope::default()), 2);
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
