//! A mixed load: clients that read what is written to them while long prompts of others arrive.
//!
//! Owns the load, which both sides get by the same order, and what is made of the times that they
//! list. The clients of one kind ask again as soon as their answer has ended; those of the other
//! have long prompts and short answers and pause in between.

use anyhow::{Result, ensure};

/// Clients that stream: with the others eight, as many as the targets' batch has.
const STREAMS: u32 = 6;
/// Clients with long prompts.
const LONGS: u32 = 2;
/// Tokens of a streaming client's prompt and answer: a short question and a paragraph.
const STREAM: [u32; 2] = [32, 128];
/// Tokens of a long prompt, some two pages, and of its answer.
const LONG: [u32; 2] = [1_024, 16];
/// What a client with long prompts waits after its answer, in milliseconds: the load is the same
/// for a side that computes prompts slowly, and streams have a time of their own.
const PAUSE_MS: u32 = 1_000;
/// How long a load lasts, in milliseconds: some thousand tokens, so that ten of them lie beyond the
/// 99th percentile. A quick run has as many: a side that computes both long prompts in one step is
/// at it for longer than half of this.
const LASTS_MS: u32 = 12_000;

/// A load by its name, with the numbers of clients of both kinds.
pub(crate) const LOADS: &[(&str, u32, u32)] =
    &[(ALONE, 1, 0), ("streams", STREAMS, 0), (MIXED, STREAMS, LONGS)];
/// One client on an idle engine.
pub(crate) const ALONE: &str = "alone";
/// All of them.
pub(crate) const MIXED: &str = "mixed";

/// What a percentile is of.
pub(crate) const BETWEEN: &str = "between_p99_ms";

/// The order for a load, but for the salt.
pub(crate) fn order(streams: u32, longs: u32) -> String {
    let ([prompt, steps], [long, short]) = (STREAM, LONG);
    format!("load {streams} {prompt} {steps} {longs} {long} {short} {PAUSE_MS} {LASTS_MS}")
}

/// A load as a driver reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) streams: u32,
    pub(crate) stream: [u32; 2],
    pub(crate) longs: u32,
    pub(crate) long: [u32; 2],
    pub(crate) pause_ms: u32,
    pub(crate) lasts_ms: u32,
    pub(crate) salt: u32,
}

impl Load {
    /// The numbers of an order; `None` for others.
    pub(crate) fn parse(numbers: &[u32]) -> Option<Self> {
        let &[streams, a, b, longs, c, d, pause_ms, lasts_ms, salt] = numbers else { return None };
        let (stream, long) = ([a, b], [c, d]);
        Some(Self { streams, stream, longs, long, pause_ms, lasts_ms, salt })
    }
}

/// Figures of a list, each with the name that it has behind the load's.
pub(crate) fn figures(numbers: &[f64]) -> Result<Vec<(&'static str, f64)>> {
    let count = numbers.first().copied().unwrap_or_default() as usize;
    let times = numbers.get(1..).unwrap_or_default();
    ensure!(count > 0 && count < times.len(), "no answers under load: {count} of {}", times.len());
    let (firsts, between) = times.split_at(count);
    let ms = |times: &[f64], share: f64| percentile(times, share) / 1e3;
    Ok(vec![
        ("first_p50_ms", ms(firsts, 0.5)),
        ("first_p99_ms", ms(firsts, 0.99)),
        ("between_p50_ms", ms(between, 0.5)),
        (BETWEEN, ms(between, 0.99)),
    ])
}

/// The value that so large a share of all do not exceed (nearest rank).
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| percentile(&values, share)), [100.0, 198.0, 200.0]);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn first_tokens_and_what_is_between_are_told_apart() {
        let figures = figures(&[2.0, 50_000.0, 70_000.0, 4_000.0, 5_000.0, 9_000.0]).unwrap();
        let value = |name| figures.iter().find(|(known, _)| *known == name).unwrap().1;
        assert_eq!([value("first_p50_ms"), value("first_p99_ms")], [50.0, 70.0]);
        assert_eq!([value("between_p50_ms"), value(BETWEEN)], [5.0, 9.0]);
        assert!(super::figures(&[]).is_err() && super::figures(&[0.0, 1.0]).is_err());
        assert!(super::figures(&[2.0, 1.0, 1.0]).is_err());
    }

    #[test]
    fn a_load_is_read_as_it_is_ordered() {
        let order = format!("{} 7", order(STREAMS, LONGS));
        let numbers: Vec<u32> =
            order.split(' ').skip(1).map(|word| word.parse().unwrap()).collect();
        let load = Load::parse(&numbers).unwrap();
        assert_eq!((load.streams, load.longs, load.long, load.salt), (6, 2, LONG, 7));
        assert_eq!(Load::parse(&numbers[1..]), None);
    }
}
