//! What an account has left, in the headers that clients of the OpenAI API know.
//!
//! Owns the headers' names and texts. Money, concurrency and rates have no such header: of the
//! first two the API has none, and of a rate nothing is left over; refusals tell of them.

use std::cmp::Reverse;

use bytes::{BufMut as _, BytesMut};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use selvedge_base::Micros;

use super::backend::Allowance;
use crate::amount::Measure;

/// Room for the texts of all six headers: of each unit two numbers of twenty digits and a span.
const TEXT_BYTES: usize = 128;

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

/// Of each unit that has headers the budget with the least left, and of those the one that stays so
/// longest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tightest {
    requests: Option<Allowance>,
    tokens: Option<Allowance>,
}

impl Tightest {
    /// Notes what is left of a budget.
    pub(super) fn take(&mut self, allowance: Allowance) {
        let place = match allowance.measure {
            Measure::Requests => &mut self.requests,
            Measure::Tokens => &mut self.tokens,
            Measure::MicroDollars | Measure::Concurrent | Measure::Rate => return,
        };
        let left = |one: &Allowance| (one.remaining, Reverse(one.reset));
        if place.as_ref().is_none_or(|held| left(&allowance) < left(held)) {
            *place = Some(allowance);
        }
    }

    /// Writes what is left.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        if self.requests.is_none() && self.tokens.is_none() {
            return;
        }
        // Cut into the values: one allocation for all of them.
        let mut text = BytesMut::with_capacity(TEXT_BYTES);
        put(self.requests, REQUESTS, &mut text, headers);
        put(self.tokens, TOKENS, &mut text, headers);
    }
}

fn put(allowance: Option<Allowance>, names: Names, text: &mut BytesMut, headers: &mut HeaderMap) {
    let Some(allowance) = allowance else { return };
    let [limit, remaining, reset] = names;
    number(text, allowance.limit);
    give(limit, text, headers);
    number(text, allowance.remaining);
    give(remaining, text, headers);
    duration(text, allowance.reset);
    give(reset, text, headers);
}

/// Makes what was written the value of a header.
fn give(name: HeaderName, text: &mut BytesMut, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::from_maybe_shared(text.split().freeze()) {
        headers.insert(name, value);
    }
}

/// A number by hand: a format takes several times as long, and there are six in each answer.
fn number(out: &mut BytesMut, number: u64) {
    // The largest has twenty.
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A span as these headers have it: `20ms`, `1s`, `6m0s`, `1h0m0s`; rounded up.
fn duration(out: &mut BytesMut, span: Micros) {
    if span.0 < 1_000_000 {
        number(out, span.0.div_ceil(1_000));
        return out.extend_from_slice(b"ms");
    }
    let seconds = span.0.div_ceil(1_000_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        number(out, hours);
        out.put_u8(b'h');
    }
    if hours > 0 || minutes > 0 {
        number(out, minutes);
        out.put_u8(b'm');
    }
    number(out, seconds);
    out.put_u8(b's');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance(measure: Measure, limit: u64, remaining: u64, reset: Micros) -> Allowance {
        Allowance { measure, limit, remaining, reset }
    }

    fn written(allowances: &[Allowance]) -> HeaderMap {
        let (mut headers, mut tightest) = (HeaderMap::new(), Tightest::default());
        allowances.iter().for_each(|allowance| tightest.take(*allowance));
        tightest.write(&mut headers);
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
            (Micros(999_001), "1000ms"),
            (Micros::secs(3_601), "1h0m1s"),
            (Micros::secs(86_399), "23h59m59s"),
            (Micros(u64::MAX), "5124095576h1m50s"),
        ];
        for (span, text) in table {
            let mut out = BytesMut::new();
            duration(&mut out, span);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn of_equals_the_one_that_stays_so_longest_is_told_and_the_largest_number_fits() {
        let headers = written(&[
            allowance(Measure::Tokens, 1, u64::MAX, Micros::secs(1)),
            allowance(Measure::Tokens, u64::MAX, u64::MAX, Micros(u64::MAX)),
            allowance(Measure::Tokens, 2, u64::MAX, Micros::secs(2)),
            allowance(Measure::Requests, u64::MAX, u64::MAX, Micros(u64::MAX)),
        ]);
        for (name, told) in [
            ("x-ratelimit-limit-tokens", "18446744073709551615"),
            ("x-ratelimit-remaining-tokens", "18446744073709551615"),
            ("x-ratelimit-reset-tokens", "5124095576h1m50s"),
            ("x-ratelimit-limit-requests", "18446744073709551615"),
        ] {
            assert_eq!(headers[name], told, "{name}");
        }
        assert!(2 * (2 * 20 + "5124095576h1m50s".len()) <= TEXT_BYTES);
    }
}
