//! What the parts of a closed set add up to, and what of it counts.
//!
//! Nobody sees an update in secure mode, so what can be refused there is what many make together.
//! A set is opened in one sum or in several, of disjoint groups that each reach the floor of
//! privacy; who is in which is drawn from the record before, anew in each round. A sum that
//! honest updates cannot make is left out with its whole group, and a rule of `robust` looks at the
//! means of the others. Owns the groups, the bound and the rule over them; that the parts belong to
//! the set was checked before.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::canon::Canon;
use super::close::{Close, ContributionId, Entry};
use super::job::{Job, Mode};
use super::tip::{FoldError, Folded, Partial, Tip};
use crate::field::Fp;
use crate::fixed::LEVEL_MAX;
use crate::robust::{Aggregate, Rule, RuleError};

/// Sums of one set at most: a median of 16 groups holds against seven that lie, and each sum takes
/// as many bytes of a round's end as the first.
pub const MAX_GROUPS: u8 = 16;
/// Groups a rule needs to tell one that lies from the others.
const LEAST_GROUPS: u8 = 3;

/// What secure mode refuses: shares without a proof, and sums that honest updates cannot make. Jobs
/// of older programs have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Sums that a set is opened in.
    pub groups: u8,
    /// What is made of their means; the mean where there is one sum.
    pub rule: Rule,
}

/// Why a guard cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GuardError {
    /// Where updates are seen they are looked at one by one.
    #[error("groups are of secure mode; in plain mode the rule looks at every update")]
    Plain,
    /// No sum, or too many.
    #[error("a sum is taken in 1 to {MAX_GROUPS} groups, not in {0}")]
    Groups(u8),
    /// Too few to compare.
    #[error("the rule {rule} needs at least {LEAST_GROUPS} groups, not {found}")]
    Few {
        /// Which rule.
        rule: &'static str,
        /// Groups there are.
        found: u8,
    },
    /// No set can have so many nodes.
    #[error("all groups together need {found} nodes, and a set has at most {most}")]
    Floor {
        /// Nodes of all groups.
        found: usize,
        /// Nodes of a set.
        most: usize,
    },
    /// The rule cannot do with so few groups.
    #[error("over groups the rule {0}; `groups` is how many there are")]
    Rule(RuleError),
}

impl Guard {
    /// One sum, as secure jobs have unless they say more.
    pub const ONE: Self = Self { groups: 1, rule: Rule::Mean };

    /// Whether it can be.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn check(self) -> Result<(), GuardError> {
        let Self { groups, rule } = self;
        if groups == 0 || groups > MAX_GROUPS {
            return Err(GuardError::Groups(groups));
        }
        if rule != Rule::Mean && groups < LEAST_GROUPS {
            return Err(GuardError::Few { rule: rule.name(), found: groups });
        }
        rule.check(groups.into()).map_err(GuardError::Rule)
    }

    pub(super) fn put(self, canon: Canon) -> Canon {
        let canon = canon.number(1).number(self.groups.into());
        self.rule.numbers().into_iter().fold(canon, Canon::number)
    }
}

/// What a closed set comes to.
pub(super) struct Summed {
    /// What the model moves by. Without weight nothing counts, and it does not move.
    pub(super) aggregate: Aggregate,
    /// Contributions whose group's sum no honest updates make: they never count.
    pub(super) left_out: Vec<ContributionId>,
}

/// A sum of a set: whose, and how much.
struct Group {
    ids: Vec<ContributionId>,
    weight: u32,
    sum: Vec<i64>,
}

impl Close {
    /// The set in the groups of a job, each in order of ids; sizes differ by one. They are dealt by
    /// lots of the nodes that follow from the record before: who contributes has nothing to draw
    /// again, so that no client chooses beside whom it counts.
    pub fn groups(&self, job: &Job) -> Vec<Vec<&Entry>> {
        let count = usize::from(job.groups());
        if count == 1 {
            return vec![self.entries.iter().collect()];
        }
        let lot = |at: &usize| {
            let canon = Canon::of("selvedge federated group").fixed(&self.previous);
            canon.fixed(&self.entries[*at].header.id.client.node.0).digest()
        };
        let mut places: Vec<usize> = (0..self.entries.len()).collect();
        places.sort_by_cached_key(lot);
        let group = |first: usize| {
            let mut own: Vec<usize> = places.iter().copied().skip(first).step_by(count).collect();
            own.sort_unstable();
            own.into_iter().map(|at| &self.entries[at]).collect()
        };
        (0..count).map(group).collect()
    }
}

/// What follows from the parts of a closed set.
///
/// # Errors
/// [`FoldError`] where the parts are not enough or do not fit together.
pub(super) fn summed(tip: &Tip, job: &Job, folded: &Folded) -> Result<Summed, FoldError> {
    match job.mode {
        Mode::Secure => secure(tip, job, folded),
        Mode::Plain(_) => {
            let aggregate = agreed(job, folded)?;
            Ok(Summed { aggregate, left_out: Vec::new() })
        }
    }
}

/// The open sum that enough anchors found.
fn agreed(job: &Job, folded: &Folded) -> Result<Aggregate, FoldError> {
    let wanted = job.openings();
    let open = folded.openings.iter().filter_map(|opening| match &opening.partial {
        Partial::Open(aggregate) => Some(aggregate),
        Partial::Shares(_) => None,
    });
    let equals = |one: &&Aggregate| open.clone().filter(|other| other == one).count();
    let agreed = open.clone().find(|one| equals(one) >= wanted);
    agreed.cloned().ok_or(FoldError::Unequal(wanted))
}

fn secure(tip: &Tip, job: &Job, folded: &Folded) -> Result<Summed, FoldError> {
    let len = job.scheme.share_len(job.payload_len());
    let mut parts = Vec::new();
    for opening in &folded.openings {
        let place = tip.committee.place(&opening.anchor);
        let (Some(place), Partial::Shares(share)) = (place, &opening.partial) else {
            return Err(FoldError::Opening(opening.anchor));
        };
        parts.push((place as u8, share.as_slice()));
    }
    let mut groups = Vec::new();
    for (at, entries) in folded.certificate.close.groups(job).iter().enumerate() {
        let own = parts
            .iter()
            .map(|&(place, share)| (place, share.get(at * len..(at + 1) * len).unwrap_or(&[])));
        let own: Vec<(u8, &[Fp])> = own.collect();
        let sum = job.scheme.reconstruct(&own, job.payload_len())?;
        groups.push(Group {
            ids: entries.iter().map(|entry| entry.header.id).collect(),
            weight: entries.iter().fold(0, |sum: u32, entry| sum.saturating_add(entry.weight)),
            sum: sum.into_iter().map(Fp::signed).collect(),
        });
    }
    Ok(judged(job, tip.norm, groups))
}

/// What no value of an honest group's sum exceeds; `norm` is that of the round, with privacy.
fn bound(job: &Job, norm: u32, group: &Group) -> i64 {
    let levels = i64::from(group.weight) * i64::from(LEVEL_MAX);
    // All weigh one there.
    let clients = group.ids.len() as u32;
    job.privacy.map_or(levels, |privacy| privacy.at(norm).sum_bound(job.clip, clients))
}

/// What counts of the sums: of those that can be, what the rule makes.
fn judged(job: &Job, norm: u32, groups: Vec<Group>) -> Summed {
    let rule = job.guard.map_or(Rule::Mean, |guard| guard.rule);
    let can_be = |group: &Group| {
        let most = bound(job, norm, group);
        job.guard.is_none() || group.sum.iter().all(|sum| (-most..=most).contains(sum))
    };
    let (good, bad): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(can_be);
    let left_out = bad.iter().flat_map(|group| group.ids.iter().copied()).collect();
    let clients = good.iter().fold(0, |sum: u32, group| sum + group.ids.len() as u32);
    if rule == Rule::Mean || good.is_empty() {
        let mut sum = vec![0; job.payload_len()];
        for group in &good {
            sum.iter_mut().zip(&group.sum).for_each(|(sum, own)| *sum += own);
        }
        let weight = good.iter().fold(0, |sum: u32, group| sum.saturating_add(group.weight));
        return Summed { aggregate: Aggregate { sum, weight, clients }, left_out };
    }
    let means: Vec<Vec<i32>> = good.iter().map(Group::mean).collect();
    let means: Vec<(u32, &[i32])> = means.iter().map(|mean| (1, mean.as_slice())).collect();
    let rule = rule.without(bad.len() as u32);
    let aggregate = rule.aggregate(&means, job.payload_len());
    Summed { aggregate: Aggregate { clients, ..aggregate }, left_out }
}

impl Group {
    /// Its mean in levels, to the nearest, halves upwards. The sum is within its bound, so that it
    /// is a level, with privacy one with noise.
    fn mean(&self) -> Vec<i32> {
        let weight = i64::from(self.weight.max(1));
        self.sum.iter().map(|sum| (2 * sum + weight).div_euclid(2 * weight) as i32).collect()
    }
}
