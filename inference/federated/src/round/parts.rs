//! Which parts of a sum belong together, and when there are enough of them.
//!
//! k parts tell a secure sum, and nothing tells whether one of them is wrong. One part more does;
//! with another one more it is known whose, since only parts that are right lie on one polynomial
//! with k others. So anchors fold k + 1 parts that agree, and name those that do not. Where nobody
//! shows more than k a sum is made of k: losing anchors must not stop a job. That comes after a
//! wait, and those who showed a part tell each other all of theirs meanwhile: who shows two parts
//! of one sum is found out so, and none of them counts. Open sums are shown by being equal, which
//! says of each if it is right.
//!
//! Owns the parts of one round, what is known of who shows none, and the choice among them; that a
//! part belongs to the set and is its anchor's was checked before.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::NodeId;
use selvedge_base::plant::{self, Plant};

use super::canon::Canon;
use super::job::{Committee, Job, Mode, Seat};
use super::outbox::SEND_AGAIN;
use super::tip::{Folded, Opening, Partial};
use crate::field::Fp;
use crate::mask::Seed;
use crate::proof::{CHECKS, traces};

/// Ticks that parts of anchors that are not heard of are waited for: in these each is sent three
/// times, of which one arrives but for one time in a thousand where one message of ten is lost.
pub(super) const LOST_AFTER: usize = 3 * SEND_AGAIN;
/// So many times as long where they are heard of, which may have a slow link: a part of the largest
/// jobs takes five seconds at ten megabits a second, and this is twice that at the usual tick.
pub(super) const SLOWER: usize = 4;
/// Ticks between two tellings of all parts, the first one after two of them.
const TELLS_EVERY: usize = SEND_AGAIN;

/// What is made of the parts that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sorted {
    /// There are too few yet.
    Waits,
    /// One is wrong, and too few came to tell whose.
    Disagree,
    /// These make the sum; those anchors showed something else.
    Agree {
        /// Enough parts, in the order of their anchors' names.
        parts: Vec<Opening>,
        /// Whose parts are wrong.
        wrong: Vec<NodeId>,
    },
}

/// What a part is to those that are there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// It is its anchor's first.
    New,
    /// It is there already, and somebody else says the same.
    Same,
    /// It says nothing new, or its anchor's parts count no more.
    Known,
    /// Its anchor showed this one before: neither counts.
    Lie(Box<Opening>),
}

/// The parts of one round's sum, as they come.
#[derive(Debug, Default)]
pub(super) struct Parts {
    shown: BTreeMap<NodeId, Opening>,
    /// Who showed two.
    liars: BTreeSet<NodeId>,
    /// Who was heard of since there were enough.
    heard: BTreeSet<NodeId>,
    /// Whose parts, the same as are here, each anchor told.
    told: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// Whether all were told to the others.
    has_told: bool,
    /// Ticks since there were enough.
    enough_for: usize,
    /// Whether it was said that they disagree.
    is_said: bool,
    /// Who showed none in the round before though it was waited for, and was not heard of since.
    silent: BTreeSet<NodeId>,
}

impl Parts {
    /// A part that belongs to the set comes, from an anchor of the round, its own or another one's.
    pub(super) fn take(&mut self, from: NodeId, part: &Opening) -> Took {
        if self.liars.contains(&part.anchor) {
            return Took::Known;
        }
        let differs = |before: &&Opening| before.partial != part.partial;
        if let Some(before) = self.shown.get(&part.anchor).filter(differs).cloned() {
            self.shown.remove(&part.anchor);
            self.liars.insert(part.anchor);
            return Took::Lie(Box::new(before));
        }
        let is_new = self.told.entry(from).or_default().insert(part.anchor);
        if let Entry::Vacant(place) = self.shown.entry(part.anchor) {
            place.insert(part.clone());
            return Took::New;
        }
        if is_new { Took::Same } else { Took::Known }
    }

    /// An anchor said something: it is there.
    pub(super) fn heard_of(&mut self, from: NodeId, committee: &Committee) {
        self.silent.remove(&from);
        if self.enough_for > 0 && committee.place(&from).is_some() {
            self.heard.insert(from);
        }
    }

    /// Time passed: whether the parts are to be looked at, and told to those who showed one.
    pub(super) fn tick(&mut self, job: &Job) -> (bool, bool) {
        let (found, least) = (self.shown.len(), job.openings());
        if found < least {
            return (false, false);
        }
        self.enough_for += 1;
        // With more of them only a further part changes anything.
        let looks = found == least || self.enough_for == LOST_AFTER + 1;
        // Had they agreed the round would be over.
        let tells = job.mode == Mode::Secure && self.enough_for % TELLS_EVERY == 2;
        (looks, tells)
    }

    /// Whether there are just as many as tell a secure sum.
    fn is_bare(&self, job: &Job) -> bool {
        job.mode == Mode::Secure && self.shown.len() == job.openings()
    }

    /// Anchors that showed none, and did not lie.
    fn missing<'a>(&'a self, committee: &'a Committee) -> impl Iterator<Item = &'a NodeId> {
        let nodes = committee.seats.iter().map(|Seat { node, .. }| node);
        nodes.filter(|node| !self.shown.contains_key(*node) && !self.liars.contains(*node))
    }

    /// Whether all who may still show a part were silent before: then nobody waits for them.
    fn is_left(&self, job: &Job, committee: &Committee) -> bool {
        self.is_bare(job) && self.missing(committee).all(|node| self.silent.contains(node))
    }

    /// Whether all are to be told to the others at once, and were not yet.
    pub(super) fn is_to_tell(&mut self, job: &Job, committee: &Committee) -> bool {
        self.is_left(job, committee) && !std::mem::replace(&mut self.has_told, true)
    }

    /// Whether no more will come than there are, as far as one can know.
    fn is_all(&self, job: &Job, committee: &Committee, me: &NodeId) -> bool {
        let is_slow = self.missing(committee).any(|node| self.heard.contains(node));
        let patience = if is_slow { SLOWER * LOST_AFTER } else { LOST_AFTER };
        let has_all = |node: &NodeId| {
            let told = self.told.get(node);
            told.is_some_and(|told| self.shown.keys().all(|anchor| told.contains(anchor)))
        };
        let mut others = self.shown.keys().filter(|node| *node != me);
        self.enough_for > patience || (self.is_left(job, committee) && others.all(has_all))
    }

    /// What they come to.
    pub(super) fn look(&mut self, job: &Job, committee: &Committee, me: &NodeId) -> Sorted {
        let is_all = self.is_all(job, committee, me);
        let sorted = sorted(job, committee, &self.shown, is_all);
        match sorted {
            Sorted::Disagree if self.enough_for <= LOST_AFTER || self.is_said => Sorted::Waits,
            Sorted::Disagree => {
                self.is_said = true;
                Sorted::Disagree
            }
            Sorted::Agree { .. } => {
                // What comes late says by itself that its anchor is there.
                let silent = self.missing(committee).filter(|_| is_all).copied().collect();
                self.silent = silent;
                sorted
            }
            Sorted::Waits => Sorted::Waits,
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Opening> {
        self.shown.values().cloned().collect()
    }

    /// Who showed one.
    pub(super) fn anchors(&self) -> Vec<NodeId> {
        self.shown.keys().copied().collect()
    }

    /// The round is over.
    pub(super) fn end(&mut self) {
        let silent = std::mem::take(&mut self.silent);
        *self = Self { silent, ..Self::default() };
    }
}

/// Whether a secure sum is of more parts than it needs, so that all of them are right but for
/// anchors that lie together; open sums are equal, which says as much.
pub(super) fn is_shown(job: &Job, folded: &Folded) -> bool {
    match job.mode {
        Mode::Secure => {
            folded.openings.len() > job.openings() || plant::is_on(Plant::FirstWordBelieved)
        }
        Mode::Plain(_) => true,
    }
}

/// What the parts of a set come to. `is_all` when no more will come than there are.
fn sorted(
    job: &Job,
    committee: &Committee,
    parts: &BTreeMap<NodeId, Opening>,
    is_all: bool,
) -> Sorted {
    let least = job.openings();
    if parts.len() < least {
        return Sorted::Waits;
    }
    let agree = |mut right: BTreeSet<NodeId>, most: usize| {
        let wrong = parts.keys().filter(|anchor| !right.contains(*anchor)).copied().collect();
        while right.len() > most {
            right.pop_last();
        }
        let parts = parts.values().filter(|part| right.contains(&part.anchor)).cloned().collect();
        Sorted::Agree { parts, wrong }
    };
    match job.mode {
        Mode::Plain(_) => match equal(parts, least) {
            Some(right) => agree(right, least),
            None if parts.len() < committee.seats.len() => Sorted::Waits,
            None => Sorted::Disagree,
        },
        Mode::Secure if parts.len() == least => {
            if is_all || plant::is_on(Plant::FewestPartsFolded) {
                agree(parts.keys().copied().collect(), least)
            } else {
                Sorted::Waits
            }
        }
        Mode::Secure => {
            let right = fitting(job, committee, parts);
            if right.len() > least { agree(right, least + 1) } else { Sorted::Disagree }
        }
    }
}

/// Anchors whose open sum is one that enough of them found.
fn equal(parts: &BTreeMap<NodeId, Opening>, least: usize) -> Option<BTreeSet<NodeId>> {
    let same = |part: &Opening| -> BTreeSet<NodeId> {
        let same = parts.values().filter(|other| other.partial == part.partial);
        same.map(|other| other.anchor).collect()
    };
    parts.values().map(same).find(|same| same.len() >= least)
}

/// Anchors whose parts lie on one polynomial, the most there are of.
///
/// Parts have a value for each block of the update, and each is looked at by few numbers that it
/// comes to: sums of all its values, each times a number that follows from all parts together. What
/// fits in every one of [`CHECKS`] sums fits but for a chance of 2^-120.
fn fitting(
    job: &Job,
    committee: &Committee,
    parts: &BTreeMap<NodeId, Opening>,
) -> BTreeSet<NodeId> {
    let canon = Canon::of("selvedge federated parts").list(parts.values(), |canon, part| {
        // A signature names the part's very values.
        let canon = canon.fixed(&part.anchor.0).fixed(&part.close);
        canon.fixed(&part.signature.0).fixed(&part.signature.1)
    });
    let challenge = Seed(canon.digest());
    let traced = |part: &Opening| {
        let place = committee.place(&part.anchor)? as u8;
        let Partial::Shares(values) = &part.partial else { return None };
        Some((part.anchor, place, traces(values, &challenge)))
    };
    let traced: Vec<(NodeId, u8, [Fp; CHECKS])> = parts.values().filter_map(traced).collect();
    let places: Vec<(u8, &[Fp])> =
        traced.iter().map(|(_, place, traces)| (*place, traces.as_slice())).collect();
    job.scheme.fitting(&places).into_iter().map(|at| traced[at].0).collect()
}
