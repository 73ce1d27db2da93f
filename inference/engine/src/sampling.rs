//! Choosing the next token.
//!
//! Owns penalties, temperature, nucleus and top-k cuts, the draw and log probabilities. Token `i`
//! of an answer is drawn from a stream of (seed, i) alone: another node that continues the answer
//! draws from the same numbers.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use selvedge_base::{Code, Dice, Refusal, Stage};
use selvedge_contract::{Limits, Sampling};

/// A token and its log probability.
pub(crate) type Scored = (u32, f32);

/// Refuses values outside what [`Sampling`] documents.
pub(crate) fn check(sampling: &Sampling) -> Result<(), Refusal> {
    let in_range = [
        ("temperature", (0.0..=2.0).contains(&sampling.temperature), "from 0 to 2"),
        ("top_p", sampling.top_p > 0.0 && sampling.top_p <= 1.0, "above 0 and at most 1"),
        ("presence_penalty", (-2.0..=2.0).contains(&sampling.presence_penalty), "from -2 to 2"),
        ("frequency_penalty", (-2.0..=2.0).contains(&sampling.frequency_penalty), "from -2 to 2"),
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

/// Draws token number `index` of an answer in which the tokens of `counts` occurred so often.
/// `None` when the logits are not numbers.
pub(crate) fn draw(
    logits: &[f32],
    sampling: &Sampling,
    counts: &BTreeMap<u32, u32>,
    index: u32,
) -> Option<u32> {
    let mut logits = Cow::Borrowed(logits);
    if sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0 {
        let logits = logits.to_mut();
        for (&token, &count) in counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= sampling.presence_penalty + sampling.frequency_penalty * count as f32;
            }
        }
    }
    let best = likeliest(&logits)?;
    if sampling.temperature <= 0.0 {
        return Some(best);
    }
    let highest = f64::from(*logits.get(best as usize)?);
    let temperature = f64::from(sampling.temperature);
    let weight = |logit: f32| ((f64::from(logit) - highest) / temperature).exp();
    // What is ruled out weighs nothing and must not be left over by rounding either.
    let possible = (0u32..).zip(logits.iter()).filter(|(_, logit)| **logit > f32::NEG_INFINITY);
    let mut candidates: Vec<(u32, f64)> =
        possible.map(|(token, &logit)| (token, weight(logit))).collect();
    cut(&mut candidates, sampling);
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    // 53 bits are what an f64 holds; 24 would make rare tokens impossible.
    let unit = (dice(sampling.seed, index).next() >> 11) as f64 / (1u64 << 53) as f64;
    let mut left = unit * total;
    for &(token, weight) in &candidates {
        left -= weight;
        if left < 0.0 {
            return Some(token);
        }
    }
    // Rounding may leave a rest after the last candidate.
    candidates.last().map(|&(token, _)| token)
}

/// The log probability of `token` and the `top` likeliest, before any sampling parameter.
pub(crate) fn log_probabilities(logits: &[f32], token: u32, top: u8) -> (f32, Vec<Scored>) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - highest).exp()).sum();
    let normal = f64::from(highest) + sum.ln();
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

/// Applies top-k, then the nucleus of what is left.
fn cut(candidates: &mut Vec<(u32, f64)>, sampling: &Sampling) {
    let by_weight = |a: &(u32, f64), b: &(u32, f64)| match b.1.total_cmp(&a.1) {
        Ordering::Equal => a.0.cmp(&b.0),
        unequal => unequal,
    };
    let keep = sampling.top_k as usize;
    if keep > 0 && keep < candidates.len() {
        candidates.select_nth_unstable_by(keep - 1, by_weight);
        candidates.truncate(keep);
    }
    if sampling.top_p < 1.0 {
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let outside = total * (1.0 - f64::from(sampling.top_p));
        // A token below this cannot be in the nucleus: all such tokens together weigh less than
        // what stays outside. It spares sorting a whole vocabulary.
        let floor = outside / candidates.len() as f64;
        candidates.retain(|&(_, weight)| weight >= floor);
        candidates.sort_unstable_by(by_weight);
        let mut sum = 0.0;
        let inside = total * f64::from(sampling.top_p);
        let nucleus = candidates.iter().position(|&(_, weight)| {
            sum += weight;
            sum >= inside
        });
        candidates.truncate(nucleus.map_or(candidates.len(), |last| last + 1));
    } else if keep > 0 {
        candidates.sort_unstable_by(by_weight);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "sampling_tests.rs"]
mod tests;
