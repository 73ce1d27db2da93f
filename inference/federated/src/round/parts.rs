//! Which parts of a sum belong together, and whose word that a round is over is taken.
//!
//! k parts tell a secure sum, and nothing tells whether one of them is wrong. One part more does;
//! with another one more it is known whose, since only parts that are right lie on one polynomial
//! with k others. So anchors fold k + 1 parts that agree, and name those that do not. Where nobody
//! shows more than k, for so long that it would have come, a sum is made of k: losing anchors must
//! not stop a job. Nothing but its teller vouches for such an end of a round, so another anchor
//! has to tell the same. Open sums are shown by being equal, which says of each if it is right.
//!
//! Owns the choice among parts and what is heard of ends of rounds; holds no part and no record.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::NodeId;

use super::Digest;
use super::canon::Canon;
use super::job::{Committee, Job, Mode};
use super::tip::{Folded, Opening, Partial};
use crate::field::Fp;
use crate::mask::Seed;
use crate::proof::{CHECKS, traces};

/// Times that parts are sent again before those that have not come count as lost: of three sendings
/// one arrives but for one time in a thousand where one message of ten is lost.
pub(super) const SENDINGS: usize = 3;

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

/// Whether a secure sum is of more parts than it needs, so that all of them are right but for
/// anchors that lie together; open sums are equal, which says as much.
pub(super) fn is_shown(job: &Job, folded: &Folded) -> bool {
    match job.mode {
        Mode::Secure => folded.openings.len() > job.openings(),
        Mode::Plain(_) => true,
    }
}

/// What the parts of a set come to. `is_all` when no more will come than there are.
pub(super) fn sorted(
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
            if is_all {
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

/// What anchors told of the end of a round that nothing else shows.
#[derive(Debug, Default)]
pub(super) struct Hearsay(BTreeMap<NodeId, Digest>);

/// What word of the end of a round is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Another anchor said the same.
    Seconded,
    /// It is the first of its anchor.
    First,
    /// Its anchor spoke before, or it is no anchor's.
    Idle,
}

impl Hearsay {
    /// Somebody tells an end of the round. What others than anchors tell counts for nothing, so
    /// there is no more to keep than there are anchors.
    pub(super) fn hears(&mut self, from: NodeId, record: Digest, is_anchor: bool) -> Word {
        if !is_anchor {
            return Word::Idle;
        }
        let before = self.0.insert(from, record);
        let seconds = |(other, told): (&NodeId, &Digest)| *other != from && *told == record;
        match before {
            _ if self.0.iter().any(seconds) => Word::Seconded,
            None => Word::First,
            Some(_) => Word::Idle,
        }
    }

    /// The round ended so: who told another end, and nothing is kept.
    pub(super) fn settle(&mut self, record: Digest) -> Vec<NodeId> {
        let told = std::mem::take(&mut self.0).into_iter();
        told.filter(|(_, told)| *told != record).map(|(from, _)| from).collect()
    }
}
