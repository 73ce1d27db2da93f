//! Which token may come next, and which one does.
//!
//! Owns the rules of what such a model writes (Radford et al., 2022, section 4.5, and the
//! reference implementation): words between two times, times that never go back, and never what
//! the model's list forbids.

use selvedge_base::Dice;

use super::words::Words;

/// The first time is at most this many steps of 20 milliseconds into a window: a second.
const LATEST_FIRST: u32 = 50;

/// Takes from `logits` what must not come after `written`.
pub(super) fn restrict(words: &Words, written: &[u32], logits: &mut [f32]) {
    let none = f32::NEG_INFINITY;
    let mut forbid = |tokens: &[u32]| {
        for token in tokens {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = none;
            }
        }
    };
    forbid(&words.suppressed);
    forbid(&[words.timeless, words.start, words.before, words.transcribe, words.translate]);
    if written.is_empty() {
        forbid(&words.suppressed_first);
    }
    let times = (words.first_time as usize).min(logits.len());
    let is_time = |token: &u32| *token >= words.first_time;
    let last = written.last().is_some_and(is_time);
    let before = written.len() < 2 || written.get(written.len() - 2).is_some_and(is_time);
    if last {
        match before {
            // Two times stand together: words are next.
            true => logits[times..].fill(none),
            // A time after words: the next part begins with one, or all ends.
            false => logits[..(words.end as usize).min(times)].fill(none),
        }
    }
    if let Some(time) = written.iter().copied().rfind(is_time) {
        // A part lasts; only the next one may begin where it ended.
        let from = if last && !before { time } else { time + 1 };
        let until = (from as usize).clamp(times, logits.len());
        logits[times..until].fill(none);
    }
    if written.is_empty() {
        logits[..times].fill(none);
        let latest = (times + LATEST_FIRST as usize + 1).min(logits.len());
        logits[latest..].fill(none);
    }
    // Where all times together are likelier than any word, a time it is.
    let (most, sum) = scale(logits);
    if !sum.is_finite() {
        return;
    }
    let all: f64 = logits[times..].iter().map(|logit| weight(*logit, most)).sum();
    let word = logits[..times].iter().copied().fold(none, f32::max);
    if all > weight(word, most) {
        logits[..times].fill(none);
    }
}

/// Draws a token, or takes the likeliest without a temperature; with the logarithm of its
/// probability. None where nothing may come.
pub(super) fn choose(logits: &[f32], temperature: f32, dice: &mut Dice) -> Option<(u32, f32)> {
    let (most, sum) = scale(logits);
    if !most.is_finite() || !sum.is_finite() {
        return None;
    }
    let token = match temperature > 0.0 {
        false => logits.iter().position(|logit| *logit == most)?,
        true => {
            let cooled = |logit: f32| f64::from((logit - most) / temperature).exp();
            let all: f64 = logits.iter().map(|logit| cooled(*logit)).sum();
            let mut left = f64::from(dice.unit_f32()) * all;
            let mut last = None;
            for (token, logit) in logits.iter().enumerate().filter(|(_, l)| l.is_finite()) {
                left -= cooled(*logit);
                last = Some(token);
                if left < 0.0 {
                    break;
                }
            }
            last?
        }
    };
    let logprob = f64::from(logits[token] - most) - sum.ln();
    Some((token as u32, logprob as f32))
}

/// The probability of a token.
pub(super) fn probability(logits: &[f32], token: u32) -> f32 {
    let (most, sum) = scale(logits);
    let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    (weight(logit, most) / sum) as f32
}

/// The greatest number, and the sum of what all weigh against it.
fn scale(logits: &[f32]) -> (f32, f64) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (most, logits.iter().map(|logit| weight(*logit, most)).sum())
}

fn weight(logit: f32, most: f32) -> f64 {
    f64::from(logit - most).exp()
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "rules_tests.rs"]
mod tests;
