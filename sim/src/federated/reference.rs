//! What a round makes of its updates, worked out a second time.
//!
//! Takes from the machines what a job is and nothing of what they compute with it: means are
//! fractions that are rounded once, rules are written as their papers say them. So what the nodes
//! do wrong together is found too. Owns the strategies and the rules; the noise of privacy and the
//! norm that follows have tests beside their code.

use selvedge_federated::robust::Rule;
use selvedge_federated::round::{Header, Job, Mode};
use selvedge_federated::server::Strategy;

/// Of an update: what it counts, and its levels.
pub(super) type Update<'a> = (u32, &'a [i32]);

/// The largest level that stands for a whole clip.
const FULL_LEVEL: i128 = (1 << 17) - 1;
/// A mean goes no further, in units of 2^-20: noise may be beyond the clip.
const MEAN_MAX: i128 = 1 << 30;
/// What Adam's decays are parts of, the first one, and the second one.
const DECAYS: (i128, i128, i128) = (1_024, 922, 1_014);

/// A model, and what its strategy remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reference {
    /// Weights, in units of 2^-20.
    pub(super) model: Vec<i128>,
    /// Adam's mean of gradients, or SCAFFOLD's control variate.
    pub(super) first: Vec<i128>,
    /// Adam's mean of squares.
    second: Vec<i128>,
}

/// A fraction, to the nearest, halves upwards.
fn rounded(value: i128, divisor: i128) -> i128 {
    (2 * value + divisor).div_euclid(2 * divisor)
}

/// The greatest number whose square is not more, one bit after the other.
fn root(value: i128) -> i128 {
    let mut root = 0i128;
    for bit in (0..63).rev() {
        let tried = root | (1 << bit);
        if tried * tried <= value {
            root = tried;
        }
    }
    root
}

/// What a contribution counts: 64 with as many examples as count, by 1/sqrt(1 + s) less after s
/// rounds, and never nothing; with privacy all count one.
pub(super) fn weight(job: &Job, header: &Header, round: u64) -> i128 {
    if job.privacy.is_some() {
        return 1;
    }
    let late = i128::from(round.saturating_sub(header.base_round).min(4));
    // 1,024 / sqrt(1 + s), to the nearest.
    let fresh = (root((4 << 20) / (1 + late)) + 1) / 2;
    let cap = i128::from(job.max_examples);
    let examples = i128::from(header.examples).min(cap);
    rounded(64 * examples * fresh, 1_024 * cap).max(1)
}

/// Of every value what the rule makes of the updates: a sum, and what it is divided by.
fn aggregate(mode: Mode, updates: &[Update<'_>], values: usize) -> Vec<(i128, i128)> {
    let column = |at: usize| updates.iter().map(move |(_, levels)| i128::from(levels[at]));
    let sorted = |at: usize| {
        let mut column: Vec<i128> = column(at).collect();
        column.sort_unstable();
        column
    };
    let mean = |at: usize| {
        let weighted =
            column(at).zip(updates).map(|(level, (weight, _))| level * i128::from(*weight));
        let weights = updates.iter().map(|(weight, _)| i128::from(*weight));
        (weighted.sum(), weights.sum())
    };
    let median = |at: usize| {
        let column = sorted(at);
        let half = column.len() / 2;
        if column.len() % 2 == 1 { (column[half], 1) } else { (column[half - 1] + column[half], 2) }
    };
    let trimmed = |at: usize, cut: usize| {
        let column = sorted(at);
        let kept = &column[cut..column.len() - cut];
        (kept.iter().sum(), kept.len() as i128)
    };
    match mode {
        Mode::Secure | Mode::Plain(Rule::Mean) => (0..values).map(mean).collect(),
        Mode::Plain(Rule::Median) => (0..values).map(median).collect(),
        Mode::Plain(Rule::Trimmed { cut }) => {
            (0..values).map(|at| trimmed(at, cut as usize)).collect()
        }
        Mode::Plain(Rule::MultiKrum { byzantine, keep }) => {
            let near = updates.len() - byzantine as usize - 2;
            let mut order: Vec<(i128, usize)> =
                (0..updates.len()).map(|at| (score(updates, at, near), at)).collect();
            order.sort_unstable();
            let kept: Vec<usize> = order.iter().take(keep as usize).map(|(_, at)| *at).collect();
            let of = |at: usize| kept.iter().map(|one| i128::from(updates[*one].1[at])).sum();
            (0..values).map(|at| (of(at), kept.len() as i128)).collect()
        }
    }
}

/// How far an update is from the nearest others: Krum's score.
fn score(updates: &[Update<'_>], one: usize, near: usize) -> i128 {
    let apart = |other: usize| -> i128 {
        let pairs = updates[one].1.iter().zip(updates[other].1);
        pairs.map(|(a, b)| (i128::from(*a) - i128::from(*b)).pow(2)).sum()
    };
    let mut distances: Vec<i128> =
        (0..updates.len()).filter(|other| *other != one).map(apart).collect();
    distances.sort_unstable();
    distances.iter().take(near).sum()
}

/// The mean of a group, in levels.
fn levels(group: &[Update<'_>], values: usize) -> Vec<i32> {
    let mean = |(sum, weight): (i128, i128)| rounded(sum, weight) as i32;
    aggregate(Mode::Secure, group, values).into_iter().map(mean).collect()
}

impl Reference {
    /// A model before its first round.
    pub(super) fn new(strategy: Strategy, model: &[i32]) -> Self {
        let dim = model.len();
        let (first, second) = match strategy {
            Strategy::Average { .. } => (0, 0),
            Strategy::Adam { .. } => (dim, dim),
            Strategy::Scaffold { .. } => (dim, 0),
        };
        let model = model.iter().map(|weight| i128::from(*weight)).collect();
        Self { model, first: vec![0; first], second: vec![0; second] }
    }

    /// The model after a round with these updates, in the groups that they were summed in and in
    /// the order of its set.
    pub(super) fn after(&self, job: &Job, groups: &[Vec<Update<'_>>]) -> Self {
        let mut next = self.clone();
        let clip = i128::from(job.clip.units());
        let change = |(sum, weight): (i128, i128)| {
            rounded(sum * clip, weight * FULL_LEVEL).clamp(-MEAN_MAX, MEAN_MAX)
        };
        let values = job.strategy.payload_len(job.dim);
        let updates: Vec<Update<'_>> = groups.iter().flatten().copied().collect();
        let sums = match job.guard.map(|guard| guard.rule) {
            None | Some(Rule::Mean) => aggregate(job.mode, &updates, values),
            Some(rule) => {
                let means: Vec<Vec<i32>> = groups.iter().map(|own| levels(own, values)).collect();
                let means: Vec<Update<'_>> = means.iter().map(|mean| (1, &mean[..])).collect();
                aggregate(Mode::Plain(rule), &means, values)
            }
        };
        let changes: Vec<i128> = sums.into_iter().map(change).collect();
        match job.strategy {
            // FedProx is a term of the clients' steps.
            Strategy::Average { .. } => next.moves(&changes),
            Strategy::Adam { rate, tau } => {
                let steps = next.adam(&changes, (rate.into(), tau.into()));
                next.moves(&steps);
            }
            Strategy::Scaffold { clients } => {
                let (model, controls) = changes.split_at(job.dim);
                next.moves(model);
                let all = i128::from(clients);
                let took_part = all.min(updates.len() as i128);
                for (control, change) in next.first.iter_mut().zip(controls) {
                    *control += rounded(took_part * change, all);
                }
            }
        }
        next
    }

    fn moves(&mut self, changes: &[i128]) {
        for (weight, change) in self.model.iter_mut().zip(changes) {
            *weight = (*weight + change).clamp(i32::MIN.into(), i32::MAX.into());
        }
    }

    fn adam(&mut self, changes: &[i128], (rate, tau): (i128, i128)) -> Vec<i128> {
        let (one, first, second) = DECAYS;
        for (moment, change) in self.first.iter_mut().zip(changes) {
            *moment = rounded(first * *moment + (one - first) * change, one);
        }
        for (moment, change) in self.second.iter_mut().zip(changes) {
            *moment = rounded(second * *moment + (one - second) * change * change, one);
        }
        let moments = self.first.iter().zip(&self.second);
        moments.map(|(first, second)| rounded(rate * first, root(*second) + tau)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_what_their_names_say() {
        let levels = [[1], [2], [3], [10], [1_000]];
        let updates: Vec<Update<'_>> =
            levels.iter().zip([1, 1, 1, 2, 1]).map(|(one, weight)| (weight, &one[..])).collect();
        let of = |rule: Rule, most: usize| aggregate(Mode::Plain(rule), &updates[..most], 1)[0];
        assert_eq!(of(Rule::Mean, 5), (1_026, 6));
        assert_eq!(of(Rule::Median, 5), (3, 1));
        assert_eq!(of(Rule::Median, 4), (5, 2));
        assert_eq!(of(Rule::Trimmed { cut: 1 }, 5), (15, 3));
        assert_eq!(of(Rule::MultiKrum { byzantine: 1, keep: 3 }, 5), (6, 3));
    }

    #[test]
    fn roots_and_halves_are_rounded_as_it_says() {
        assert_eq!([0, 1, 3, 4, 1 << 60].map(root), [0, 1, 1, 2, 1 << 30]);
        assert_eq!([(1, 2), (-1, 2), (-3, 2), (2, 3)].map(|(a, b)| rounded(a, b)), [1, 0, -1, 1]);
    }
}
