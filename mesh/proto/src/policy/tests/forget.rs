//! Cuts of keys go when nobody needs them any more, and no key comes back by that.

use std::collections::BTreeSet;

use proptest::prelude::*;
use selvedge_base::Dice;

use super::*;
use crate::records::MAX_LEASE;

impl Site {
    fn ending(&self, entropy: u8, end: Option<Wall>) -> NewKey {
        let draft = KeyDraft {
            name: "line 3".to_owned(),
            account: path("acme"),
            models: Vec::new(),
            routes: Vec::new(),
            not_after: end,
        };
        let steward = Some(self.steward.clone());
        sign_key(&self.steward_key, steward, self.mesh, draft, [entropy; 32], START).unwrap()
    }

    fn close(&self, order: CutOrder, wall: Wall) -> CutNotice {
        sign_cut(&self.steward_key, Some(self.steward.clone()), self.mesh, order, wall).unwrap()
    }
}

#[test]
fn a_closed_key_is_remembered_until_no_clock_can_open_it() {
    let site = site(2);
    let (mut book, roster) = (site.book(0), site.roster(0));
    let end = START.plus(HOUR);
    let (mortal, endless) = (site.ending(1, Some(end)), site.ending(2, None));
    let ids = [&mortal, &endless].map(|key| key.notice.signed.body.id);
    for key in [&mortal, &endless] {
        book.apply_key(key.notice.clone(), &roster, START).unwrap();
    }
    assert_eq!(book.close_key(ids[0]), CutOrder::KeyUntil { key: ids[0], end });
    assert_eq!(book.close_key(ids[1]), CutOrder::Key(ids[1]));
    let cuts = ids.map(|id| site.close(book.close_key(id), START));
    for cut in &cuts {
        assert_eq!(book.apply_cut(cut.clone(), &roster, START), Ok(true));
    }
    assert!(!book.is_empty());
    let last = end.plus(MAX_LEASE).plus(CLOCK_SKEW);
    assert!(!book.tick_due(last));
    assert!(!book.tick(last), "somebody's clock may still be before its end");
    assert_eq!(book.verify(&mortal.secret, last), Err(KeyProblem::Revoked(ids[0])));
    let later = last.plus(MINUTE);
    assert!(book.tick_due(later));
    assert!(book.tick(later));
    assert!(!book.tick_due(later));
    // It is unknown now, and neither the key nor the cut is taken again.
    assert_eq!(book.verify(&mortal.secret, later), Err(KeyProblem::Unknown));
    assert_eq!(book.apply_key(mortal.notice.clone(), &roster, later), Ok(false));
    assert_eq!(book.apply_cut(cuts[0].clone(), &roster, later), Ok(false));
    // Even where the clock was set back as far as leaves a node in contact it opens nothing.
    let back = Wall(later.0 - MAX_LEASE.as_millis());
    assert_eq!(book.apply_key(mortal.notice, &roster, back), Ok(false));
    assert_eq!(book.verify(&endless.secret, later), Err(KeyProblem::Revoked(ids[1])));
    assert_eq!(book.apply_key(endless.notice, &roster, later), Ok(false));
}

#[test]
fn of_two_cuts_of_one_key_all_nodes_keep_the_same() {
    let site = site(2);
    let id = KeyId([7; 8]);
    let orders = [
        CutOrder::Key(id),
        CutOrder::KeyUntil { key: id, end: START.plus(DAY) },
        CutOrder::KeyUntil { key: id, end: START.plus(HOUR) },
        CutOrder::KeyUntil { key: id, end: START.plus(DAY) },
    ];
    let minutes = |at: usize| START.plus(MINUTE.times(at as u64));
    let cuts: Vec<CutNotice> =
        (0..4).map(|at| site.close(orders[at].clone(), minutes(at))).collect();
    for pair in [[0, 1], [1, 2], [1, 3]] {
        let greeting = |order: [usize; 2]| {
            let mut book = site.book(0);
            for at in order {
                book.apply_cut(cuts[at].clone(), &site.roster(0), minutes(4)).unwrap();
            }
            book.greeting()
        };
        assert_eq!(greeting(pair), greeting([pair[1], pair[0]]), "{pair:?}");
    }
}

/// Nodes that hear of keys and cuts in any order, or never, whose clocks are set back.
struct World {
    site: Site,
    dice: Dice,
    wall: Wall,
    books: Vec<PolicyBook>,
    /// How far each clock is behind, in milliseconds.
    behind: Vec<u64>,
    keys: Vec<NewKey>,
    cuts: Vec<CutNotice>,
    /// Which node took the cut of which key.
    closed: BTreeSet<(usize, usize)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let site = site(3);
        let mut dice = Dice::keyed(seed, "forget");
        let mut end = |at: u8| (at > 0).then(|| START.plus(HOUR.times(1 + dice.below(24 * 60))));
        let keys: Vec<NewKey> = (0..6).map(|at| site.ending(at, end(at))).collect();
        let books: Vec<PolicyBook> = (0..3).map(|at| site.book(at)).collect();
        let (cuts, closed) = (Vec::new(), BTreeSet::new());
        Self { site, dice, wall: START, books, behind: vec![0; 3], keys, cuts, closed }
    }

    fn clock(&self, at: usize) -> Wall {
        Wall(self.wall.0.saturating_sub(self.behind[at]))
    }

    fn step(&mut self) {
        let at = self.dice.below(3) as usize;
        let key = self.dice.below(self.keys.len() as u64) as usize;
        let (wall, roster) = (self.clock(at), self.site.roster(at));
        match self.dice.below(100) {
            0..15 => self.wall = self.wall.plus(HOUR.times(self.dice.below(24 * 20))),
            15..20 => {
                // As far as leaves it in contact: a membership of the longest kind, just signed.
                let most = MAX_LEASE.as_millis();
                self.behind[at] = if self.dice.chance(500) { 0 } else { self.dice.below(most) };
            }
            20..40 => drop(self.books[at].apply_key(self.keys[key].notice.clone(), &roster, wall)),
            40..50 => {
                let id = self.keys[key].notice.signed.body.id;
                if self.books[at].key(&id).is_some() {
                    let order = self.books[at].close_key(id);
                    self.cuts.push(self.site.close(order, wall));
                }
            }
            50..70 if !self.cuts.is_empty() => {
                let cut = self.dice.below(self.cuts.len() as u64) as usize;
                let cut = self.cuts[cut].clone();
                let id = cut.signed.body.order.key();
                if self.books[at].apply_cut(cut, &roster, wall) == Ok(true) {
                    let is = |key: &NewKey| Some(key.notice.signed.body.id) == id;
                    let key = self.keys.iter().position(is).unwrap();
                    self.closed.insert((at, key));
                }
            }
            _ => {
                let (due, before) = (self.books[at].tick_due(wall), self.books[at].revision());
                assert_eq!(self.books[at].tick(wall), due);
                assert_eq!(self.books[at].revision() > before, due);
            }
        }
    }

    fn check(&self) {
        for (at, key) in &self.closed {
            let opened = self.books[*at].verify(&self.keys[*key].secret, self.clock(*at));
            assert!(opened.is_err(), "key {key} is back at {at} at {:?}", self.clock(*at));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_closed_key_comes_back_and_cuts_do_not_pile_up(seed in any::<u64>()) {
        let mut world = World::new(seed);
        for _ in 0..300 {
            world.step();
            world.check();
        }
        // Long after, only the cut of the key without an end is left.
        world.wall = START.plus(DAY.times(2 * 365));
        for at in 0..3 {
            world.books[at].tick(world.wall);
            prop_assert!(world.books[at].cuts.len() <= 1);
        }
    }
}
