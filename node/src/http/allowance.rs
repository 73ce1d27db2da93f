//! What an account has left, in the headers that clients of the OpenAI API know.
//!
//! Owns the headers' names and texts. Money, concurrency and rates have no such header: of the
//! first two the API has none, and of a rate nothing is left over; refusals tell of them.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use selvedge_base::Micros;

use super::backend::Allowance;
use crate::amount::Measure;

/// Limit, rest and time to the next window of one unit.
type Names = [HeaderName; 3];

const REQUESTS: Names = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: Names = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Writes what is left of the tightest budget of each unit.
pub(super) fn write(allowances: &[Allowance], headers: &mut HeaderMap) {
    put(tightest(allowances, Measure::Requests), REQUESTS, headers);
    put(tightest(allowances, Measure::Tokens), TOKENS, headers);
}

/// The one with the least left, and of those the one that stays so longest.
fn tightest(allowances: &[Allowance], measure: Measure) -> Option<&Allowance> {
    let counted = allowances.iter().filter(|allowance| allowance.measure == measure);
    counted.min_by_key(|allowance| (allowance.remaining, std::cmp::Reverse(allowance.reset)))
}

fn put(allowance: Option<&Allowance>, names: Names, headers: &mut HeaderMap) {
    let Some(allowance) = allowance else { return };
    let [limit, remaining, reset] = names;
    headers.insert(limit, HeaderValue::from(allowance.limit));
    headers.insert(remaining, HeaderValue::from(allowance.remaining));
    if let Ok(text) = HeaderValue::from_str(&duration_text(allowance.reset)) {
        headers.insert(reset, text);
    }
}

/// A span as these headers have it: `20ms`, `1s`, `6m0s`, `1h0m0s`; rounded up.
fn duration_text(span: Micros) -> String {
    if span.0 < 1_000_000 {
        return format!("{}ms", span.0.div_ceil(1_000));
    }
    let seconds = span.0.div_ceil(1_000_000);
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance(measure: Measure, limit: u64, remaining: u64, reset: Micros) -> Allowance {
        Allowance { measure, limit, remaining, reset }
    }

    fn written(allowances: &[Allowance]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        write(allowances, &mut headers);
        headers
    }

    #[test]
    fn the_tightest_budget_of_each_unit_is_told() {
        let headers = written(&[
            allowance(Measure::Tokens, 1_000, 900, Micros::secs(60)),
            allowance(Measure::Tokens, 90_000, 10, Micros::secs(3_600)),
            allowance(Measure::Rate, 10, 0, Micros::millis(100)),
            allowance(Measure::Requests, 60, 3, Micros::secs(59)),
            allowance(Measure::MicroDollars, 5, 0, Micros::secs(1)),
        ]);
        let told = |name: &str| headers[name].to_str().expect("ASCII").to_owned();
        assert_eq!(told("x-ratelimit-limit-tokens"), "90000");
        assert_eq!(told("x-ratelimit-remaining-tokens"), "10");
        assert_eq!(told("x-ratelimit-reset-tokens"), "1h0m0s");
        assert_eq!(told("x-ratelimit-limit-requests"), "60");
        assert_eq!(told("x-ratelimit-reset-requests"), "59s");
        assert_eq!(headers.len(), 6);
    }

    #[test]
    fn what_is_not_budgeted_is_not_told() {
        assert!(written(&[]).is_empty());
        assert!(written(&[allowance(Measure::Concurrent, 4, 1, Micros(0))]).is_empty());
    }

    #[test]
    fn spans_are_written_as_clients_read_them() {
        let table = [
            (Micros(0), "0ms"),
            (Micros(1), "1ms"),
            (Micros::millis(20), "20ms"),
            (Micros::secs(1), "1s"),
            (Micros(1_000_001), "2s"),
            (Micros::secs(360), "6m0s"),
            (Micros::secs(86_399), "23h59m59s"),
        ];
        for (span, text) in table {
            assert_eq!(duration_text(span), text);
        }
    }
}
