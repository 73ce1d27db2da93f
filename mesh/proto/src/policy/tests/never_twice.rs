//! Whatever is delivered to whom and when, no right of any window is granted twice.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use selvedge_base::Dice;
use selvedge_base::codec::{decode_body, encode_datagram};
use selvedge_crdt::escrow::{BudgetId, LedgerKey};

use super::*;
use crate::policy::share::Split;

/// A node as a crash leaves it: its book as stored, and the latest time it spent at.
struct Member {
    book: PolicyBook,
    disk: PolicySnapshot,
    /// Its clock is wrong by this much.
    fast_ms: u64,
    latest: Wall,
}

struct World {
    site: Site,
    dice: Dice,
    wall: Wall,
    members: Vec<Member>,
    epochs: Vec<Signed<Epoch>>,
    words: Vec<Signed<Adopted>>,
    /// The most every node was ever granted of a ledger.
    used: BTreeMap<LedgerKey, BTreeMap<usize, u64>>,
    /// Permits taken: when, by whom and in which ledgers.
    permits: Vec<(Wall, BTreeSet<LedgerKey>)>,
}

impl World {
    fn new(seed: u64, nodes: u8, skew_ms: u64) -> Self {
        let site = site(nodes);
        let mut dice = Dice::keyed(seed, "never twice");
        let members = (0..usize::from(nodes)).map(|at| {
            let book = site.book(at);
            let fast_ms = if skew_ms > 0 && at > 0 { dice.below(skew_ms + 1) } else { 0 };
            Member { disk: book.snapshot(), book, fast_ms, latest: Wall(0) }
        });
        Self {
            members: members.collect(),
            site,
            dice,
            wall: START,
            epochs: Vec::new(),
            words: Vec::new(),
            used: BTreeMap::new(),
            permits: Vec::new(),
        }
    }

    fn clock(&self, at: usize) -> Wall {
        Wall(self.wall.0 + self.members[at].fast_ms)
    }

    fn step(&mut self) {
        let at = self.dice.below(self.members.len() as u64) as usize;
        match self.dice.below(100) {
            0..20 => self.wall = self.wall.plus(MINUTE.times(self.dice.below(40))),
            20..23 => self.wall = self.wall.plus(HOUR.times(self.dice.below(30))),
            23..35 => self.deliver(at),
            35..42 => {
                let from = self.dice.below(self.members.len() as u64) as usize;
                let delta = self.members[from].book.delta(&Default::default(), usize::MAX / 8);
                self.take(at, delta);
            }
            42..52 => self.adopt(at),
            52..60 => self.sign(),
            60..64 => self.crash(at),
            64..68 => {
                let wall = self.clock(at);
                self.members[at].book.tick(wall);
            }
            68..71 => self.members[at].fast_ms /= 2,
            _ => self.spend(at),
        }
    }

    /// Any one record reaches a node, however old.
    fn deliver(&mut self, at: usize) {
        let mut delta = PolicyDelta::default();
        let epoch = self.dice.below(self.epochs.len() as u64) as usize;
        delta.epochs.extend(self.epochs.get(epoch).cloned());
        if !self.words.is_empty() && self.dice.chance(700) {
            delta.epochs.clear();
            let word = self.dice.below(self.words.len() as u64) as usize;
            delta.adopted.push(self.words[word].clone());
        }
        self.take(at, delta);
    }

    fn take(&mut self, at: usize, delta: PolicyDelta) {
        let (roster, wall) = (self.site.roster(at), self.clock(at));
        self.members[at].book.apply(delta, &roster, wall);
    }

    /// Signs what waits for this node's word; a crash may come before anybody is told.
    fn adopt(&mut self, at: usize) {
        let (key, wall, latest) = (self.site.nodes[at].clone(), self.clock(at), self.latest(at));
        let book = &mut self.members[at].book;
        book.adopt(&key, wall, latest);
        self.members[at].disk = self.members[at].book.snapshot();
        if self.dice.chance(300) {
            // The disk was slow; meanwhile this node went on spending.
            self.wall = self.wall.plus(MINUTE);
            self.spend(at);
        }
        let (wall, latest) = (self.clock(at), self.latest(at));
        self.members[at].book.tell_adopted(&key, wall, latest);
        self.members[at].disk = self.members[at].book.snapshot();
        let delta = self.members[at].book.delta(&Default::default(), usize::MAX / 8);
        self.words.extend(delta.adopted);
    }

    fn latest(&self, at: usize) -> Wall {
        self.members[at].latest
    }

    fn sign(&mut self) {
        let (root, roster, wall) = (self.site.root.clone(), self.site.roster(0), self.clock(0));
        let hours = [2, 5, 24, 24 * 7][self.dice.below(4) as usize];
        let mut draft = match self.members[0].book.epoch("acme") {
            None => EpochDraft::first(path("acme"), self.some_members(), wall),
            Some(epoch) => EpochDraft::after(&epoch.body, wall),
        };
        draft.validity = HOUR.times(hours);
        if self.dice.chance(400) {
            draft.members = self.some_members();
        }
        if self.dice.chance(200) {
            draft.from = wall.plus(HOUR.times(self.dice.below(6)));
        }
        for _ in 0..1 + self.dice.below(2) {
            self.change(&mut draft);
        }
        let book = &mut self.members[0].book;
        if let Ok(epoch) = book.sign_epoch(&root, &roster, draft, wall) {
            self.members[0].disk = self.members[0].book.snapshot();
            self.epochs.push(epoch);
        }
    }

    fn change(&mut self, draft: &mut EpochDraft) {
        let names = ["minutes", "hours", "days", "months", "permits"];
        let name = names[self.dice.below(5) as usize];
        if self.dice.chance(150) {
            draft.remove(&level("acme"), name);
            return;
        }
        let unit = if name == "permits" { Unit::Concurrent } else { Unit::Tokens };
        let mut terms = terms(name, unit, 1 + self.dice.below(30));
        terms.period = match name {
            "minutes" => Period::Minute,
            "days" => Period::Day,
            "months" => Period::Month,
            _ => Period::Hour,
        };
        terms.sub_windows = if name == "days" { 1 + self.dice.below(5) as u32 } else { 1 };
        draft.set(level("acme"), terms);
    }

    fn some_members(&mut self) -> Vec<(Holder, u32)> {
        let mut members = self.site.members();
        let skipped = self.dice.below(members.len() as u64 + 2) as usize;
        if skipped < members.len() && members.len() > 1 {
            members.remove(skipped);
        }
        for (_, weight) in &mut members {
            *weight = 1 + self.dice.below(5) as u32;
        }
        members
    }

    /// Power fails; what was not stored is forgotten.
    fn crash(&mut self, at: usize) {
        if self.dice.chance(500) {
            self.members[at].disk = self.members[at].book.snapshot();
        }
        let bytes = encode_datagram(&self.members[at].disk, usize::MAX).unwrap();
        let stored: PolicySnapshot = decode_body(&bytes).unwrap();
        let (roster, wall) = (self.site.roster(at), self.clock(at));
        self.members[at].book = PolicyBook::from_snapshot(stored, &roster, wall).unwrap();
    }

    /// Uses everything there is of everything.
    fn spend(&mut self, at: usize) {
        let wall = self.clock(at).max(self.latest(at));
        let holder = self.site.holder(at);
        let true_wall = self.wall;
        let mut taken = Vec::new();
        let member = &mut self.members[at];
        member.latest = wall;
        for budget in member.book.budgets() {
            let Standing::Open(ledgers) = member.book.standing(&budget.id, wall) else { continue };
            for key in ledgers.iter() {
                let granted = member.book.grant(&key, &holder, wall);
                let most = self.used.entry(key).or_default().entry(at).or_default();
                *most = granted.max(*most);
                let ceiling = member.book.ceiling(&key, &holder);
                assert!(ceiling.is_none_or(|ceiling| ceiling >= granted), "{key:?} at {wall:?}");
            }
            if budget.spec.name == "permits" {
                taken.push((budget.id, ledgers));
            }
        }
        for (budget, ledgers) in taken {
            if !ledgers.guest {
                self.permits.push((true_wall, ledgers.iter().collect()));
            } else if let Some(vouched) = self.vouch(&budget, &ledgers) {
                // As late as it may.
                self.permits.push((true_wall.plus(vouched), ledgers.iter().collect()));
            }
        }
    }

    /// Some node says for how long nothing but a ledger can count, and remembers that it did.
    fn vouch(&mut self, budget: &BudgetId, ledgers: &Ledgers) -> Option<Micros> {
        let by = self.dice.below(self.members.len() as u64) as usize;
        let (wall, holder) = (self.clock(by).max(self.latest(by)), self.site.holder(by));
        let book = &self.members[by].book;
        let Standing::Open(theirs) = book.standing(budget, wall) else { return None };
        let alone = theirs.also.iter().all(Option::is_none) && !theirs.guest;
        if !alone || theirs.first != ledgers.first || !book.is_member(&theirs.first, &holder, wall)
        {
            return None;
        }
        let until = book.changes_at(budget, wall).min(wall.plus(HOUR));
        self.members[by].latest = until;
        Some(until.since(wall))
    }

    /// For every ledger there is one epoch whose shares nobody ever passed.
    fn check_no_right_twice(&self) {
        for (key, used) in self.used.iter().filter(|(_, used)| used.values().any(|x| *x > 0)) {
            let grants = self.epochs.iter().filter_map(|signed| {
                let epoch = &signed.body;
                let spec = epoch
                    .budgets()
                    .find(|(level, spec)| Epoch::budget_id(&epoch.mesh, level, spec) == key.budget);
                let (_, spec) = spec?;
                let begins =
                    !spec.unit.is_windowed() || spec.period.start(key.window) < epoch.until;
                begins.then(|| (epoch, Split::new(spec.limit, &epoch.members)))
            });
            let mut grants = grants.peekable();
            assert!(grants.peek().is_some(), "{key:?} is of no epoch");
            let within = grants.any(|(epoch, split)| {
                used.iter().all(|(at, used)| {
                    *used <= split.of(&epoch.members, &self.site.holder(*at), key.window)
                })
            });
            let what: Vec<_> = used.iter().collect();
            assert!(within, "ledger {key:?}: {what:?} is more than any epoch grants");
        }
    }

    /// All permits that may be out at once hold a right of one and the same ledger.
    fn check_permits_meet(&mut self) {
        let mut permits = std::mem::take(&mut self.permits);
        permits.sort_by_key(|(wall, _)| *wall);
        for (at, (wall, ledgers)) in permits.iter().enumerate() {
            let budget = ledgers.first().unwrap().budget;
            let mut common = ledgers.clone();
            for (earlier, others) in permits[..at].iter().rev() {
                if wall.since(*earlier) >= PERMIT_LEASE {
                    break;
                }
                if others.iter().all(|key| key.budget == budget) {
                    common.retain(|key| others.contains(key));
                }
            }
            assert!(!common.is_empty(), "permits of {budget:?} at {wall:?} share no ledger");
        }
    }
}

/// Worlds that once broke a version of the rules.
#[test]
fn worlds_that_were_broken_hold() {
    for (seed, nodes) in [(2_553_869_381_532_364_874, 4), (13_354_891_469_043_347_703, 2)] {
        let mut world = World::new(seed, nodes, 0);
        for _ in 0..300 {
            world.step();
        }
        world.check_no_right_twice();
        world.check_permits_meet();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_right_is_granted_twice(seed in any::<u64>(), nodes in 2u8..5) {
        let mut world = World::new(seed, nodes, 7_200_000);
        for _ in 0..300 {
            world.step();
        }
        world.check_no_right_twice();
    }

    #[test]
    fn permits_that_are_out_together_share_a_ledger(seed in any::<u64>(), nodes in 2u8..5) {
        let mut world = World::new(seed, nodes, CLOCK_SKEW.as_millis());
        for _ in 0..300 {
            world.step();
        }
        world.check_permits_meet();
    }
}
