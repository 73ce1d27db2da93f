//! What went wrong at a provider: whose fault, whether to try again, and what may be repeated.
//!
//! Owns the classification by status and the cleaning of a provider's words. Each dialect finds
//! those words in its own shape of error.

use selvedge_base::{Blame, Code, Micros, Refusal, Retry, Stage};

use crate::chat::{Event, Failure, Provider};
use crate::limits::PROVIDER_TEXT_CHARS;

/// The longest wait that is believed: a provider that asks for more is treated as away this long.
const LONGEST_WAIT: Micros = Micros::secs(3_600);
/// The wait when a provider is full and does not say for how long.
const DEFAULT_WAIT: Micros = Micros::secs(1);
/// Beginnings of secrets that providers are known to quote in their errors.
const SECRETS: &[&str] = &[
    "sk-", "sk_", "pk-", "rk-", "gsk_", "xai-", "AIza", "AKIA", "ASIA", "ghp_", "hf_", "nvapi-",
    "pplx-", "ya29.", "eyJ",
];
/// A word this long without a space or a dot is a key, a token or a digest, and no word.
const LONGEST_WORD: usize = 40;

/// What an error answer's words are in its dialect.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    pub(crate) kind: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) param: Option<String>,
    pub(crate) message: Option<String>,
}

/// Classifies an error answer by its status and the provider's words. `retry_after` is what
/// [`retry_after`] read from the headers.
pub(crate) fn classify(status: u16, retry_after: Option<Micros>, words: Words) -> Failure {
    let hint = format!(
        "{} {} {}",
        words.kind.as_deref().unwrap_or_default(),
        words.code.as_deref().unwrap_or_default(),
        words.message.as_deref().unwrap_or_default()
    )
    .to_ascii_lowercase();
    let wait = Retry::After(retry_after.unwrap_or(DEFAULT_WAIT));
    let (blame, retry, code) = match status {
        _ if is_context(&hint) => (Blame::Client, Retry::Never, Code::ContextLengthExceeded),
        401 | 403 if !hint.contains("content") => {
            // The key is ours, not the caller's: another target may well answer.
            (Blame::Provider, Retry::Elsewhere, Code::ModelUnavailable)
        }
        402 => (Blame::Provider, Retry::Elsewhere, Code::ModelUnavailable),
        404 => (Blame::Provider, Retry::Elsewhere, Code::ModelNotFound),
        408 => (Blame::Provider, Retry::Elsewhere, Code::Timeout),
        413 => (Blame::Client, Retry::Never, Code::TooLarge),
        // No money left is told as 429 too, and waiting does not help against it.
        429 if hint.contains("insufficient_quota") || hint.contains("billing") => {
            (Blame::Provider, Retry::Elsewhere, Code::ModelUnavailable)
        }
        429 => (Blame::Provider, wait, Code::Overloaded),
        503 | 529 => (Blame::Provider, wait, Code::Overloaded),
        504 => (Blame::Provider, Retry::Elsewhere, Code::Timeout),
        400..=499 => (Blame::Client, Retry::Never, Code::InvalidRequest),
        0 => in_stream(&hint, wait),
        _ => (Blame::Provider, Retry::Elsewhere, Code::ModelUnavailable),
    };
    let said = clean(words.message.as_deref().unwrap_or("no explanation"));
    let message = match status {
        0 => format!("the provider broke off: {said}"),
        _ => format!("the provider answered {status}: {said}"),
    };
    let refusal = Refusal::new(Stage::Execute, blame, retry, code, message);
    let param = words.param.as_deref().map(clean);
    let refusal = match (&param, blame) {
        (Some(param), Blame::Client) => refusal.param(param.clone()),
        _ => refusal,
    };
    let clean_some = |text: Option<String>| text.as_deref().map(clean);
    let provider = Provider {
        status,
        kind: clean_some(words.kind),
        code: clean_some(words.code),
        param,
        message: said,
    };
    Failure { refusal, provider: Some(provider) }
}

/// An error inside a stream has no status, only words.
fn in_stream(hint: &str, wait: Retry) -> (Blame, Retry, Code) {
    let has = |words: &[&str]| words.iter().any(|word| hint.contains(word));
    if has(&["overloaded", "rate_limit", "throttl", "unavailable", "resource_exhausted"]) {
        (Blame::Provider, wait, Code::Overloaded)
    } else if has(&["invalid_request", "validationexception"]) {
        (Blame::Client, Retry::Never, Code::InvalidRequest)
    } else if has(&["timeout", "timed out"]) {
        (Blame::Provider, Retry::Elsewhere, Code::Timeout)
    } else {
        (Blame::Provider, Retry::Elsewhere, Code::ModelUnavailable)
    }
}

fn is_context(hint: &str) -> bool {
    const SIGNS: &[&str] = &[
        "context_length_exceeded",
        "maximum context length",
        "prompt is too long",
        "exceeds the maximum number of tokens",
        "input is too long",
        "too many tokens",
        "exceed context limit",
    ];
    // "Too many tokens" is also said of rates.
    SIGNS.iter().any(|sign| hint.contains(sign))
        && !hint.contains("per minute")
        && !hint.contains("throttl")
}

/// The wait that headers ask for: `retry-after-ms`, or `retry-after` in seconds (a date is not
/// read, since there is no clock here).
pub fn retry_after<'h>(headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> Option<Micros> {
    let mut wait = None;
    for (name, value) in headers {
        let value = value.trim();
        if name.eq_ignore_ascii_case("retry-after-ms") {
            if let Ok(ms) = value.parse::<u64>() {
                return Some(Micros::millis(ms).min(LONGEST_WAIT));
            }
        } else if name.eq_ignore_ascii_case("retry-after") {
            let (whole, part) = value.split_once('.').unwrap_or((value, ""));
            if let Ok(seconds) = whole.parse::<u64>() {
                let more = u64::from(part.bytes().any(|digit| digit != b'0'));
                wait = Some(Micros::secs(seconds.saturating_add(more)).min(LONGEST_WAIT));
            }
        }
    }
    wait
}

/// A provider's text without control characters and secrets, cut to a bound.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::new();
    let mut room = PROVIDER_TEXT_CHARS;
    for word in text.split_whitespace() {
        if room == 0 {
            out.push('…');
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        let word = if is_secret(word) { "[removed]" } else { word };
        let shown = word.chars().filter(|char| !char.is_control()).take(room);
        let before = out.len();
        out.extend(shown);
        room = room.saturating_sub(out[before..].chars().count() + 1);
    }
    out
}

fn is_secret(word: &str) -> bool {
    let bare = word.trim_start_matches(|char: char| !char.is_alphanumeric());
    let plain =
        |char: char| !char.is_alphanumeric() && !matches!(char, '-' | '_' | '*' | '+' | '/' | '=');
    let long = bare.split(plain).any(|run| run.len() > LONGEST_WORD);
    // An address may carry a key in its query.
    let address = bare.contains("://") && (bare.contains("key=") || bare.contains("token="));
    let inside = |secret: &&str| bare.split(plain).any(|run| run.starts_with(*secret));
    long || address || SECRETS.iter().any(inside)
}

/// The stream ended before the answer did.
pub(crate) fn cut() -> Event {
    broken("the provider's answer ended before it was complete")
}

/// The answer is not what the dialect defines.
pub(crate) fn malformed(what: &str) -> Event {
    broken(format!("the provider's answer is malformed: {what}"))
}

fn broken(message: impl Into<String>) -> Event {
    let (stage, blame, retry) = (Stage::Execute, Blame::Provider, Retry::Elsewhere);
    Event::Failed(Refusal::new(stage, blame, retry, Code::ModelUnavailable, message).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(status: u16, message: &str) -> Failure {
        let words = Words { message: Some(message.to_owned()), ..Words::default() };
        classify(status, None, words)
    }

    #[test]
    fn each_status_has_its_blame_and_its_retry() {
        let wait = Retry::After(DEFAULT_WAIT);
        let table = [
            (400, "bad", Blame::Client, Retry::Never, Code::InvalidRequest),
            (
                400,
                "prompt is too long: 9 tokens",
                Blame::Client,
                Retry::Never,
                Code::ContextLengthExceeded,
            ),
            (401, "no", Blame::Provider, Retry::Elsewhere, Code::ModelUnavailable),
            (404, "no", Blame::Provider, Retry::Elsewhere, Code::ModelNotFound),
            (429, "slow down", Blame::Provider, wait, Code::Overloaded),
            (429, "check billing", Blame::Provider, Retry::Elsewhere, Code::ModelUnavailable),
            (429, "too many tokens per minute", Blame::Provider, wait, Code::Overloaded),
            (500, "oops", Blame::Provider, Retry::Elsewhere, Code::ModelUnavailable),
            (529, "overloaded", Blame::Provider, wait, Code::Overloaded),
            (0, "overloaded_error", Blame::Provider, wait, Code::Overloaded),
        ];
        for (status, message, blame, retry, code) in table {
            let refusal = classified(status, message).refusal;
            let got = (refusal.blame, refusal.retry, refusal.code);
            assert_eq!(got, (blame, retry, code), "{status} {message}");
        }
    }

    #[test]
    fn secrets_are_not_repeated() {
        for text in [
            "Incorrect API key provided: sk-abc123. You can",
            "bad key 'AIzaSyA-1234567890'",
            "see https://host/v1?key=abcdef for more",
            "token=0123456789abcdef0123456789abcdef0123456789abcdef",
        ] {
            let clean = clean(text);
            assert!(clean.contains("[removed]"), "{clean}");
            for part in ["abc123", "AIza", "abcdef"] {
                assert!(!clean.contains(part), "{clean}");
            }
        }
        assert_eq!(clean("a\u{0}b\r\nc  d"), "ab c d");
        assert!(clean(&"word ".repeat(1_000)).chars().count() <= PROVIDER_TEXT_CHARS + 2);
    }

    #[test]
    fn waits_are_read_and_bounded() {
        let read = |name, value| retry_after([(name, value)]);
        assert_eq!(read("Retry-After", "7"), Some(Micros::secs(7)));
        assert_eq!(read("retry-after", "0.5"), Some(Micros::secs(1)));
        assert_eq!(read("retry-after-ms", "250"), Some(Micros::millis(250)));
        assert_eq!(read("retry-after", "99999999999"), Some(LONGEST_WAIT));
        assert_eq!(read("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"), None);
        let both = [("retry-after", "9"), ("retry-after-ms", "20")];
        assert_eq!(retry_after(both), Some(Micros::millis(20)));
    }
}
