//! What each node knows of what stewards asked for: its copy of the mesh's setting.
//!
//! Owns the copies, what is in which version, and what the observer keeps of each wish. Which
//! versions a copy keeps, which of them governs, and how they become one list of wishes are the
//! product's rules; the root key signs for all stewards here, and what is in a version stands in a
//! list of its own. When somebody hears of something is the world's (`world/seats.rs`).

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use selvedge_base::{MeshId, Micros, Mono, Wall};
use selvedge_federated::round::{Behind, Committee, MAX_WISHES, merge_wishes, one_more_wish};
use selvedge_proto::records::Roster;
use selvedge_proto::settings::{SettingKey, SettingNotice, SettingsBook, sign_setting};

use super::plan::{Plan, name};
use crate::names::Names;
use crate::stream::Stream;

#[cfg(test)]
#[path = "wishes_tests.rs"]
mod tests;

/// The longest that word of a wish takes to a node that is up and reached; later is late.
pub(super) const TOLD_WITHIN: Micros = Micros::secs(4);

/// All that a node has of the setting.
pub(super) type Line = Vec<SettingNotice>;

/// A wish, as the observer knows it.
struct Asked {
    committee: Committee,
    /// At which node it was asked for.
    at: usize,
    when: Mono,
    /// Wishes that were asked for across a cut, and that this steward knew nothing of.
    apart: Vec<usize>,
}

/// What is known where.
pub(super) struct Wishes {
    root: SigningKey,
    roster: Roster,
    books: Vec<SettingsBook>,
    /// What versions say: their content is a place here.
    lists: Vec<Vec<Committee>>,
    /// Every wish there ever was; a wish's number is its place.
    asked: Vec<Asked>,
    /// The wishes that each node's anchor was told of, in the order in which it first was.
    heard: Vec<Vec<usize>>,
    /// Those of which some anchor accepted a set.
    accepted: BTreeSet<usize>,
    /// The epoch that has to be reached with a round's end, as all who propose know a wish for it.
    due: BTreeMap<u64, u64>,
    /// The anchors of each epoch.
    line: BTreeMap<u64, Committee>,
    /// The epoch after each round.
    epochs: BTreeMap<u64, u64>,
    /// How wishes travel.
    pub(super) dice: Stream,
}

/// Where the mesh keeps who a job's anchors are to be; there is one job.
fn key() -> SettingKey {
    SettingKey { kind: 1, name: "job".to_owned() }
}

const fn wall(now: Mono) -> Wall {
    Wall(now.0 / 1_000)
}

impl Wishes {
    pub(super) fn new(plan: &Plan) -> Self {
        let root = Names::new(0).root;
        let mesh = MeshId(root.verifying_key().to_bytes());
        Self {
            roster: Roster::new(mesh, name(0)),
            root,
            books: vec![SettingsBook::new(mesh); plan.nodes],
            lists: Vec::new(),
            asked: Vec::new(),
            heard: vec![Vec::new(); plan.nodes],
            accepted: BTreeSet::new(),
            due: BTreeMap::new(),
            line: BTreeMap::from([(0, plan.job.committee.clone())]),
            epochs: BTreeMap::new(),
            dice: Stream::keyed(plan.seed, 31, 0, 0),
        }
    }

    /// Whether anybody asked for anything.
    pub(super) const fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    fn list_of(&self, version: &SettingNotice) -> Option<&Vec<Committee>> {
        let content = version.signed.body.content.as_deref()?;
        self.lists.get(u32::from_be_bytes(content.try_into().ok()?) as usize)
    }

    /// The wishes that a node knows, in the order in which its anchor is told of them.
    pub(super) fn known(&self, node: usize) -> Vec<Committee> {
        let key = key();
        let lists = self.books[node].history(&key).filter_map(|version| self.list_of(version));
        let mut lists: Vec<Vec<Committee>> = lists.cloned().collect();
        lists.reverse();
        merge_wishes(lists)
    }

    /// All that a node has of the setting, for another one.
    pub(super) fn line(&self, node: usize) -> Line {
        self.books[node].history(&key()).cloned().collect()
    }

    /// Whether one of two nodes has something that the other lacks.
    pub(super) fn differ(&self, one: usize, other: usize) -> bool {
        let key = key();
        !self.books[one].history(&key).eq(self.books[other].history(&key))
    }

    /// A steward asks for these at a node; who else is cut off from that node, `is_cut` says. What
    /// is worth counting of it.
    ///
    /// # Errors
    /// [`Behind`] where its node knows of a wish for later anchors.
    pub(super) fn asks(
        &mut self,
        node: usize,
        now: Mono,
        wish: &Committee,
        is_cut: impl Fn(usize) -> bool,
    ) -> Result<Vec<&'static str>, Behind> {
        let list = one_more_wish(self.known(node), wish.clone())?;
        let seen = self.notes(node, now, wish, is_cut);
        let key = key();
        let head = self.books[node].head(&key).and_then(|head| self.list_of(head));
        if head != Some(&list) {
            let content = (self.lists.len() as u32).to_be_bytes().to_vec();
            self.lists.push(list);
            let next = self.books[node].next(key, Some(content), 0, wall(now));
            let next = next.unwrap_or_else(|_| unreachable!("a version of four bytes"));
            let version = sign_setting(&self.root, None, next);
            self.takes(node, vec![version], now);
        }
        Ok(seen)
    }

    /// The observer notes a wish, if it is a new one, and which others its steward knew nothing of.
    fn notes(
        &mut self,
        node: usize,
        now: Mono,
        wish: &Committee,
        is_cut: impl Fn(usize) -> bool,
    ) -> Vec<&'static str> {
        let (mut seen, mut apart) = (Vec::new(), Vec::new());
        if self.number(wish).is_some() {
            return seen;
        }
        for (number, other) in self.asked.iter().enumerate() {
            if self.heard[node].contains(&number) {
                continue;
            }
            seen.push(if other.committee.epoch == wish.epoch {
                "two stewards with different wishes"
            } else {
                "two stewards with wishes of different epochs"
            });
            if is_cut(other.at) {
                apart.push(number);
                seen.push("wishes on both sides of a cut");
            }
        }
        self.asked.push(Asked { committee: wish.clone(), at: node, when: now, apart });
        seen
    }

    /// A node takes what another one has. Whether it knows other wishes now.
    pub(super) fn takes(&mut self, node: usize, line: Line, now: Mono) -> bool {
        let before = self.known(node);
        let taken = self.books[node].apply(line, &self.roster, wall(now));
        debug_assert!(taken.is_ok(), "what the root key signs is taken: {taken:?}");
        self.known(node) != before
    }

    /// A node's anchor is told all that its node knows. What is worth counting of it, if it is an
    /// anchor now.
    pub(super) fn handed(&mut self, node: usize, now: Mono, is_seated: bool) -> Vec<&'static str> {
        let mut seen = Vec::new();
        for wish in self.known(node) {
            let Some(number) = self.number(&wish) else { continue };
            if self.heard[node].contains(&number) {
                seen.push("a wish told twice to an anchor");
                continue;
            }
            let one = &self.asked[number];
            let overtook = |before: &usize| {
                self.heard.iter().any(|others| {
                    let place = |wish| others.iter().position(|other| other == wish);
                    place(&number).zip(place(before)).is_some_and(|(this, that)| this < that)
                })
            };
            let is_apart = |before: &usize| {
                one.apart.contains(before) || self.asked[*before].apart.contains(&number)
            };
            let counts = [
                (now.since(one.when) > TOLD_WITHIN, "a wish heard late by an anchor"),
                (self.accepted.contains(&number), "a wish heard after another anchor accepted it"),
                (self.heard[node].iter().any(overtook), "wishes heard in another order"),
                (self.heard[node].iter().any(is_apart), "wishes of both sides of a cut heard"),
            ];
            seen.extend(counts.iter().filter(|(is_so, _)| *is_so).map(|(_, what)| *what));
            self.heard[node].push(number);
        }
        seen.retain(|_| is_seated);
        seen
    }

    fn number(&self, committee: &Committee) -> Option<usize> {
        self.asked.iter().position(|one| one.committee == *committee)
    }

    /// Whether these were ever asked for.
    pub(super) fn has_asked_for(&self, committee: &Committee) -> bool {
        self.number(committee).is_some()
    }

    /// Whether others were asked for after these, in their place.
    pub(super) fn has_followed(&self, committee: &Committee) -> bool {
        let mut lasts = self.lists.iter().rev().filter_map(|list| list.last());
        let last = lasts.find(|last| last.epoch == committee.epoch);
        last.is_some_and(|last| last != committee)
    }

    /// Wishes for later anchors than those of an epoch.
    pub(super) fn after(&self, epoch: u64) -> impl Iterator<Item = &Committee> {
        self.asked.iter().map(|one| &one.committee).filter(move |one| one.epoch > epoch)
    }

    /// A node's anchor wrote down that it accepts these as next ones. Whether it was told of them.
    pub(super) fn accepts(&mut self, node: usize, next: &Committee) -> bool {
        let Some(number) = self.number(next) else { return false };
        self.accepted.insert(number);
        self.heard[node].contains(&number)
    }

    /// Nobody has ended a round before this one, and these are all who may propose in it. If all of
    /// them know a wish for the next epoch, then whatever is proposed in it has one.
    pub(super) fn owes(&mut self, round: u64, next: u64, seated: &[usize]) {
        // Of more of them some may be forgotten by whoever holds others.
        if self.lists.len() > MAX_WISHES {
            return;
        }
        let is_known =
            |number: usize| seated.iter().all(|node| self.heard[*node].contains(&number));
        let mut asked = self.asked.iter().enumerate();
        if asked.any(|(number, one)| one.committee.epoch == next && is_known(number)) {
            self.due.insert(round, next);
        }
    }

    /// The epoch that has to be reached with the end of a round, if one has to.
    pub(super) fn due(&self, round: u64) -> Option<u64> {
        self.due.get(&round).copied()
    }

    /// After a round a node has these anchors. Whether they are those of all others, and follow
    /// those of the round before.
    pub(super) fn follows(&mut self, round: u64, committee: &Committee) -> bool {
        let epoch = committee.epoch;
        let before = round.checked_sub(1).map_or(Some(0), |one| self.epochs.get(&one).copied());
        let is_next = before.is_some_and(|before| epoch == before || epoch == before + 1);
        let known = *self.epochs.entry(round).or_insert(epoch);
        let seated = self.line.entry(epoch).or_insert_with(|| committee.clone());
        is_next && known == epoch && seated == committee
    }
}
