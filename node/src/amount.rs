//! Amounts of a budget as people write them: `20000 tokens/hour`, `5 usd/day`, `4 concurrent`.
//!
//! Owns the grammar, in both directions, and the errors that say what to write instead. Counts are
//! whole numbers throughout: money is micro-dollars, parsed digit by digit and never as a float.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Micro-dollars in a dollar.
const DOLLAR: u64 = 1_000_000;
/// Decimals of a dollar that are kept: a micro-dollar is the smallest unit counted.
const DECIMALS: usize = 6;
/// What every error about an amount ends with.
const EXAMPLES: &str = "write an amount like '20000 tokens/hour', '60 requests/minute', \
                        '2.50 usd/day', '4 concurrent' or '10 requests/second'";

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// Tokens of prompts and answers.
    Tokens,
    /// Requests.
    Requests,
    /// Millionths of a dollar.
    MicroDollars,
    /// Requests at the same time.
    Concurrent,
    /// Requests per second, evenly spaced.
    Rate,
}

/// How long a budget's window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Span {
    Minute,
    Hour,
    Day,
    Month,
}

/// A limit and what it limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount {
    /// How much, in the smallest unit of the measure.
    pub(crate) limit: u64,
    /// Of what.
    pub(crate) measure: Measure,
    /// In which time; absent for concurrency and rates, which have no window.
    pub(crate) span: Option<Span>,
}

impl Measure {
    /// The name in JSON and in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Requests => "requests",
            Self::MicroDollars => "micro_dollars",
            Self::Concurrent => "concurrent",
            Self::Rate => "rate",
        }
    }

    /// A count of this measure for people.
    pub(crate) fn text(self, count: u64) -> String {
        match self {
            Self::MicroDollars => format!("{} usd", dollars_text(count)),
            Self::Tokens | Self::Requests | Self::Concurrent | Self::Rate => grouped(count),
        }
    }

    /// A limit of this measure, with or without its unit: `10000`, `10000 tokens`, `2.50 usd`.
    pub(crate) fn limit(self, text: &str) -> Result<u64, String> {
        let (number, unit) = split_number(text);
        let unit = unit.split_once('/').map_or(unit, |(unit, _)| unit.trim_end());
        if !unit.is_empty() && measure_named(unit) != Some(self.bare()) {
            let message = format!("this budget counts {}, not '{unit}'", self.unit());
            return Err(message);
        }
        match self {
            Self::MicroDollars => dollars(number),
            Self::Tokens | Self::Requests | Self::Concurrent | Self::Rate => whole(number),
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Requests | Self::Rate => "requests",
            Self::MicroDollars => "usd",
            Self::Concurrent => "concurrent",
        }
    }

    /// The measure its unit alone would name.
    const fn bare(self) -> Self {
        match self {
            Self::Rate => Self::Requests,
            Self::Tokens | Self::Requests | Self::MicroDollars | Self::Concurrent => self,
        }
    }
}

impl Span {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

impl Amount {
    /// What a budget of this amount is called unless told: one budget per unit and window, so that
    /// setting it again changes it.
    pub(crate) fn default_name(&self) -> String {
        match (self.measure, self.span) {
            (Measure::Rate, _) => "rate".to_owned(),
            (measure, None) => measure.unit().to_owned(),
            (measure, Some(span)) => format!("{}-{}", measure.unit(), span.as_str()),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match self.measure {
            Measure::MicroDollars => dollars_text(self.limit),
            Measure::Tokens | Measure::Requests | Measure::Concurrent | Measure::Rate => {
                self.limit.to_string()
            }
        };
        write!(f, "{number} {}", self.measure.unit())?;
        match (self.measure, self.span) {
            (Measure::Rate, _) => f.write_str("/second"),
            (_, Some(span)) => write!(f, "/{}", span.as_str()),
            (_, None) => Ok(()),
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, rest) = split_number(text);
        let (unit, span) = match rest.split_once('/').or_else(|| rest.split_once(" per ")) {
            Some((unit, span)) => (unit.trim(), Some(span.trim())),
            None => (rest, None),
        };
        let measure = measure_named(unit).ok_or_else(|| match unit {
            "" => format!("'{text}' does not say of what: {EXAMPLES}"),
            unit => format!("'{unit}' is not counted here: {EXAMPLES}"),
        })?;
        let (measure, span) = windowed(measure, span)?;
        let limit = measure.limit(number)?;
        if limit == 0 {
            return Err(format!("an amount of nothing allows nothing: {EXAMPLES}"));
        }
        Ok(Self { limit, measure, span })
    }
}

fn windowed(measure: Measure, span: Option<&str>) -> Result<(Measure, Option<Span>), String> {
    let span = match span {
        Some("second" | "s") if measure == Measure::Requests => return Ok((Measure::Rate, None)),
        Some("second" | "s") => {
            return Err(format!(
                "only requests are limited per second; {} are budgeted per minute, hour, day or \
                 month",
                measure.unit()
            ));
        }
        Some("minute" | "min") => Some(Span::Minute),
        Some("hour" | "h") => Some(Span::Hour),
        Some("day" | "d") => Some(Span::Day),
        Some("month") => Some(Span::Month),
        Some(other) => {
            return Err(format!("'{other}' is no window: write minute, hour, day or month"));
        }
        None => None,
    };
    match (measure, span) {
        (Measure::Concurrent, None) => Ok((measure, None)),
        (Measure::Concurrent, Some(_)) => {
            Err("requests at the same time have no window: write '4 concurrent'".to_owned())
        }
        (_, Some(_)) => Ok((measure, span)),
        (_, None) => Err(format!(
            "say in which time: '{}/hour'; minute, hour, day and month are the windows",
            measure.unit()
        )),
    }
}

fn measure_named(unit: &str) -> Option<Measure> {
    match unit {
        "token" | "tokens" => Some(Measure::Tokens),
        "request" | "requests" => Some(Measure::Requests),
        "usd" | "USD" => Some(Measure::MicroDollars),
        "concurrent" => Some(Measure::Concurrent),
        _ => None,
    }
}

/// The leading number of a text, and what follows it.
fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let is_part = |c: char| c.is_ascii_digit() || "._,+-".contains(c);
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    // `20k` and `5M`, when nothing else is glued to it.
    let suffixed = text[end..].starts_with(['k', 'M'])
        && text[end + 1..].chars().next().is_none_or(char::is_whitespace);
    let end = if suffixed { end + 1 } else { end };
    (&text[..end], text[end..].trim())
}

fn whole(number: &str) -> Result<u64, String> {
    let (digits, scale) = match number.char_indices().last() {
        Some((at, 'k')) => (&number[..at], 1_000),
        Some((at, 'M')) => (&number[..at], 1_000_000),
        _ => (number, 1),
    };
    let plain = !digits.is_empty() && !digits.starts_with('_');
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    let good = plain && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count = digits.parse::<u64>().ok().filter(|_| good);
    count.and_then(|count| count.checked_mul(scale)).ok_or_else(|| {
        format!("'{number}' is not a whole number: {EXAMPLES}; 20_000 and 20k mean the same")
    })
}

/// Micro-dollars of a decimal number of dollars.
fn dollars(number: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "'{number}' is not an amount of dollars: write '5 usd' or '0.25 usd', with at most \
             {DECIMALS} decimals"
        )
    };
    let (units, decimals) = number.split_once('.').unwrap_or((number, ""));
    let is_decimal = decimals.bytes().all(|byte| byte.is_ascii_digit());
    if decimals.len() > DECIMALS || !is_decimal || number.ends_with('.') {
        return Err(wrong());
    }
    let units = whole(units).map_err(|_| wrong())?;
    let scale = 10_u64.pow((DECIMALS - decimals.len()) as u32);
    let parts = if decimals.is_empty() { 0 } else { decimals.parse().map_err(|_| wrong())? };
    units.checked_mul(DOLLAR).and_then(|all| all.checked_add(parts * scale)).ok_or_else(wrong)
}

/// Dollars with the decimals they need, and at least two when they need any.
pub(crate) fn dollars_text(micro_dollars: u64) -> String {
    let (units, parts) = (micro_dollars / DOLLAR, micro_dollars % DOLLAR);
    if parts == 0 {
        return units.to_string();
    }
    let decimals = format!("{parts:06}");
    let needed = decimals.trim_end_matches('0').len().max(2);
    format!("{units}.{}", &decimals[..needed])
}

/// A number in groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        let table = [
            ("20000 tokens/hour", 20_000, Measure::Tokens, Some(Span::Hour)),
            ("20_000 tokens / hour", 20_000, Measure::Tokens, Some(Span::Hour)),
            ("20k tokens/day", 20_000, Measure::Tokens, Some(Span::Day)),
            ("5M tokens per month", 5_000_000, Measure::Tokens, Some(Span::Month)),
            ("1 token/min", 1, Measure::Tokens, Some(Span::Minute)),
            ("60 requests/minute", 60, Measure::Requests, Some(Span::Minute)),
            ("5 usd/day", 5_000_000, Measure::MicroDollars, Some(Span::Day)),
            ("0.1 usd/month", 100_000, Measure::MicroDollars, Some(Span::Month)),
            ("12.345678 usd/day", 12_345_678, Measure::MicroDollars, Some(Span::Day)),
            ("4 concurrent", 4, Measure::Concurrent, None),
            ("10 requests/second", 10, Measure::Rate, None),
        ];
        for (text, limit, measure, span) in table {
            assert_eq!(text.parse(), Ok(Amount { limit, measure, span }), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_amount_says_what_to_write() {
        let table = [
            ("", "of what"),
            ("20000", "of what"),
            ("tokens/hour", "whole number"),
            ("20000 tokens", "in which time: 'tokens/hour'"),
            ("20000 tokens/week", "minute, hour, day or month"),
            ("20000 tokens/second", "only requests are limited per second"),
            ("5 usd", "in which time"),
            ("5 eur/day", "'eur' is not counted"),
            ("4 concurrent/hour", "'4 concurrent'"),
            ("-1 tokens/hour", "whole number"),
            ("1.5 tokens/hour", "whole number"),
            ("1,000 tokens/hour", "whole number"),
            ("0 tokens/hour", "nothing"),
            ("0.0000001 usd/day", "6 decimals"),
            ("1. usd/day", "dollars"),
            (".5 usd/day", "dollars"),
            ("1.+5 usd/day", "dollars"),
            ("99999999999999999999 tokens/hour", "whole number"),
            ("18446744073710 usd/day", "dollars"),
            ("20kk tokens/hour", "not counted"),
        ];
        for (text, part) in table {
            let error = text.parse::<Amount>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "20000 tokens/hour",
            "60 requests/minute",
            "5 usd/day",
            "2.50 usd/day",
            "0.000001 usd/month",
            "4 concurrent",
            "10 requests/second",
        ] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_lower_limit_is_in_the_units_of_its_budget() {
        assert_eq!(Measure::Tokens.limit("10k"), Ok(10_000));
        assert_eq!(Measure::Tokens.limit("0 tokens/hour"), Ok(0));
        assert_eq!(Measure::MicroDollars.limit("2.5"), Ok(2_500_000));
        assert_eq!(Measure::MicroDollars.limit("2.5 usd"), Ok(2_500_000));
        assert_eq!(Measure::Rate.limit("5 requests/second"), Ok(5));
        let error = Measure::Tokens.limit("2 usd").unwrap_err();
        assert!(error.contains("counts tokens, not 'usd'"), "{error}");
    }

    #[test]
    fn budgets_are_named_after_unit_and_window() {
        let name = |text: &str| text.parse::<Amount>().unwrap().default_name();
        assert_eq!(name("1 tokens/hour"), "tokens-hour");
        assert_eq!(name("1 usd/day"), "usd-day");
        assert_eq!(name("1 concurrent"), "concurrent");
        assert_eq!(name("1 requests/second"), "rate");
    }

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(Measure::MicroDollars.text(1_250_000), "1.25 usd");
    }
}
