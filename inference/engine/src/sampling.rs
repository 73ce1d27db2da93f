//! Choosing the next token.
//!
//! Owns penalties, temperature, the cuts, the draw and log probabilities. Token `i` of an answer is
//! drawn from a stream of (seed, i) alone: another node that continues the answer draws from the
//! same numbers. So that it draws the same tokens on whatever machine, exponentials and logarithms
//! are `libm`'s: those of glibc, musl and Apple round differently.
//!
//! Each step takes what the one before it left: the penalty on repetition, the ones on presence and
//! frequency, temperature, top-k, top-p, min-p, the draw. It is the order of llama.cpp, but for the
//! temperature, which comes last there and before the cuts here, as in the models of OpenAI, vLLM
//! and transformers: the cuts see the probabilities that are drawn from.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use selvedge_base::{Code, Dice, Refusal, Stage};
use selvedge_contract::{Limits, Sampling};

/// The exponents below this one are of weights that are zero: half the smallest number there is.
const WEIGHTLESS: f64 = -745.2;
/// Above this, exponents that differ by [`SLACK`] have different weights.
const COARSE: f64 = -700.0;
/// Far more than what rounding adds to an exponent or takes from its weight.
const SLACK: f64 = 1e-9;

/// A token and its log probability.
pub(crate) type Scored = (u32, f32);

/// A token and its weight beside the likeliest one's, which is 1.
type Weighed = (u32, f64);

/// What was said before a token.
#[derive(Clone, Copy)]
pub(crate) struct Past<'a> {
    /// The prompt and the answer.
    pub(crate) tokens: &'a [u32],
    /// How often each token occurred in the answer.
    pub(crate) counts: &'a BTreeMap<u32, u32>,
}

/// Memory that draws need, kept from one to the next: it is some of a vocabulary's size.
#[derive(Default)]
pub(crate) struct Draws {
    penalized: Vec<f32>,
    leaders: Vec<f32>,
    candidates: Vec<Weighed>,
}

/// Refuses values outside what [`Sampling`] documents.
pub(crate) fn check(sampling: &Sampling) -> Result<(), Refusal> {
    let further = &sampling.further;
    let in_range = [
        ("temperature", (0.0..=2.0).contains(&sampling.temperature), "from 0 to 2"),
        ("top_p", sampling.top_p > 0.0 && sampling.top_p <= 1.0, "above 0 and at most 1"),
        ("presence_penalty", (-2.0..=2.0).contains(&sampling.presence_penalty), "from -2 to 2"),
        ("frequency_penalty", (-2.0..=2.0).contains(&sampling.frequency_penalty), "from -2 to 2"),
        ("min_p", (0.0..=1.0).contains(&further.min_p), "from 0 to 1"),
        (
            "repetition_penalty",
            (0.01..=2.0).contains(&further.repetition_penalty),
            "from 0.01 to 2",
        ),
    ];
    match in_range.iter().find(|(_, holds, _)| !holds) {
        None => Ok(()),
        Some((name, _, range)) => Err(Refusal::client(
            Stage::Validate,
            Code::InvalidRequest,
            format!("{name} must be {range}"),
        )
        .param(*name)),
    }
}

impl Draws {
    /// Draws token number `index` of an answer. `None` when the logits are not numbers.
    pub(crate) fn draw(
        &mut self,
        logits: &[f32],
        sampling: &Sampling,
        past: Past<'_>,
        index: u32,
    ) -> Option<u32> {
        let Self { penalized, leaders, candidates } = self;
        let logits = penalties(penalized, logits, sampling, past);
        let best = likeliest(logits)?;
        if sampling.temperature <= 0.0 {
            return Some(best);
        }
        let highest = f64::from(*logits.get(best as usize)?);
        let temperature = f64::from(sampling.temperature);
        let exponent = |logit: f32| (f64::from(logit) - highest) / temperature;
        let floor = floor(leaders, logits, sampling, exponent);
        candidates.clear();
        let mut possible = 0;
        for (token, &logit) in (0u32..).zip(logits) {
            // What is ruled out weighs nothing and must not be left over by rounding either.
            if logit > f32::NEG_INFINITY {
                possible += 1;
                let exponent = exponent(logit);
                if exponent >= floor {
                    candidates.push((token, libm::exp(exponent)));
                }
            }
        }
        cut(candidates, possible, sampling);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        // 53 bits are what an f64 holds; 24 would make rare tokens impossible.
        let unit = (dice(sampling.seed, index).next() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = unit * total;
        for &(token, weight) in candidates.iter() {
            left -= weight;
            if left < 0.0 {
                return Some(token);
            }
        }
        // Rounding may leave a rest after the last candidate.
        candidates.last().map(|&(token, _)| token)
    }
}

/// The log probability of `token` and the `top` likeliest, before any sampling parameter.
pub(crate) fn log_probabilities(logits: &[f32], token: u32, top: u8) -> (f32, Vec<Scored>) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| libm::exp(f64::from(logit - highest))).sum();
    let normal = f64::from(highest) + libm::log(sum);
    let of = |logit: f32| (f64::from(logit) - normal) as f32;
    let wanted = usize::from(top.min(Limits::TOP_LOGPROBS));
    let mut best: Vec<Scored> = Vec::with_capacity(wanted + 1);
    for (id, &logit) in (0u32..).zip(logits) {
        if best.len() == wanted && best.last().is_none_or(|&(_, least)| logit <= least) {
            continue;
        }
        let at = best.partition_point(|&(_, other)| other >= logit);
        best.insert(at, (id, logit));
        best.truncate(wanted);
    }
    let chosen = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    (of(chosen), best.into_iter().map(|(id, logit)| (id, of(logit))).collect())
}

/// The numbers for one token of an answer.
fn dice(seed: u64, index: u32) -> Dice {
    Dice::keyed(seed, &format!("token {index}"))
}

/// The logits less what penalties take; in `copy`, where there are any.
fn penalties<'a>(
    copy: &'a mut Vec<f32>,
    logits: &'a [f32],
    sampling: &Sampling,
    past: Past<'_>,
) -> &'a [f32] {
    let further = &sampling.further;
    let counts = sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0;
    if !counts && !further.penalizes() {
        return logits;
    }
    copy.clear();
    copy.extend_from_slice(logits);
    if further.penalizes() {
        let penalty = further.repetition_penalty;
        for &token in past.tokens.iter().rev().take(further.repetition_window as usize) {
            if let (Some(logit), Some(&said)) =
                (copy.get_mut(token as usize), logits.get(token as usize))
            {
                // Of what the model said: a token that occurred twice is penalized once.
                *logit = if said > 0.0 { said / penalty } else { said * penalty };
            }
        }
    }
    if counts {
        for (&token, &count) in past.counts {
            if let Some(logit) = copy.get_mut(token as usize) {
                *logit -= sampling.presence_penalty + sampling.frequency_penalty * count as f32;
            }
        }
    }
    copy
}

/// The highest logit, the lowest id among equals; `None` when one is not a number.
fn likeliest(logits: &[f32]) -> Option<u32> {
    let mut best: Option<Scored> = None;
    for (id, &logit) in (0u32..).zip(logits) {
        if logit.is_nan() || logit == f32::INFINITY {
            return None;
        }
        if best.is_none_or(|(_, highest)| logit > highest) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id)
}

/// An exponent below which no token stays after the cuts, or has a weight at all: theirs need not
/// be computed. What it spares is never what the cuts would keep.
fn floor(
    leaders: &mut Vec<f32>,
    logits: &[f32],
    sampling: &Sampling,
    exponent: impl Fn(f32) -> f64,
) -> f64 {
    let mut floor = WEIGHTLESS;
    let keep = sampling.top_k as usize;
    // Where more are kept, finding the last of them costs more than it spares.
    if keep > 0 && keep < logits.len() / 4 {
        let last = exponent(nth_highest(leaders, logits, keep));
        if last > COARSE {
            floor = floor.max(last - SLACK);
        }
    }
    // The nucleus is a share of all weights.
    if sampling.further.min_p > 0.0 && sampling.top_p >= 1.0 {
        floor = floor.max(libm::log(f64::from(sampling.further.min_p)) - SLACK);
    }
    floor
}

/// The `nth` highest logit; minus infinity where fewer are possible.
fn nth_highest(leaders: &mut Vec<f32>, logits: &[f32], nth: usize) -> f32 {
    let mut least = f32::NEG_INFINITY;
    leaders.clear();
    for &logit in logits {
        if logit > least {
            leaders.push(logit);
            if leaders.len() >= 2 * nth {
                least = leave(leaders, nth);
            }
        }
    }
    if leaders.len() >= nth { leave(leaders, nth) } else { f32::NEG_INFINITY }
}

/// Leaves so many of the highest, and says which is the least of them.
fn leave(leaders: &mut Vec<f32>, many: usize) -> f32 {
    let (_, &mut least, _) = leaders.select_nth_unstable_by(many - 1, |a, b| b.total_cmp(a));
    leaders.truncate(many);
    least
}

/// Applies top-k, then the nucleus of what is left, then min-p. `possible` tokens were there, those
/// that weigh nothing included.
fn cut(candidates: &mut Vec<Weighed>, mut possible: usize, sampling: &Sampling) {
    let by_weight = |a: &Weighed, b: &Weighed| match b.1.total_cmp(&a.1) {
        Ordering::Equal => a.0.cmp(&b.0),
        unequal => unequal,
    };
    let keep = sampling.top_k as usize;
    if keep > 0 {
        possible = possible.min(keep);
        if keep < candidates.len() {
            candidates.select_nth_unstable_by(keep - 1, by_weight);
            candidates.truncate(keep);
        }
        // Before anything is summed: what a selection leaves has no order of its own.
        candidates.sort_unstable_by(by_weight);
    }
    if sampling.top_p < 1.0 {
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let outside = total * (1.0 - f64::from(sampling.top_p));
        // A token below this cannot be in the nucleus: all such tokens together weigh less than
        // what stays outside. It spares sorting a whole vocabulary.
        let floor = outside / possible as f64;
        candidates.retain(|&(_, weight)| weight >= floor);
        if keep == 0 {
            candidates.sort_unstable_by(by_weight);
        }
        let mut sum = 0.0;
        let inside = total * f64::from(sampling.top_p);
        let nucleus = candidates.iter().position(|&(_, weight)| {
            sum += weight;
            sum >= inside
        });
        candidates.truncate(nucleus.map_or(candidates.len(), |last| last + 1));
    }
    if sampling.further.min_p > 0.0 {
        // The likeliest weighs 1, and stays.
        let least = f64::from(sampling.further.min_p);
        candidates.retain(|&(_, weight)| weight >= least);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "sampling_tests.rs"]
mod tests;
