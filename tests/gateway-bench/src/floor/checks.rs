//! Who asks, how much they may, what they ask for, and what it came to.
//!
//! Owns the checks of the floor. Everything is borrowed from the bytes it stands in.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

use hyper::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::clock;

/// Requests a second each key may make: far more than any run makes, so that none is refused.
const RATE: f64 = 1e6;

/// The keys, by their hashes.
pub(super) struct Keys(HashMap<[u8; 32], Bucket>);

struct Bucket {
    number: u32,
    level: Mutex<(f64, Instant)>,
}

/// What stands in a request's body.
#[derive(Deserialize)]
pub(super) struct Asked<'a> {
    #[serde(borrow)]
    pub(super) model: Cow<'a, str>,
    #[serde(default)]
    pub(super) stream: bool,
}

/// What an answer came to.
#[derive(Clone, Copy, Default, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
}

#[derive(Deserialize)]
struct Answer {
    usage: Option<Usage>,
}

impl Keys {
    pub(super) fn new(keys: &[String]) -> Self {
        let bucket = |(number, key): (u32, &String)| {
            let level = Mutex::new((RATE, clock::now()));
            (*blake3::hash(key.as_bytes()).as_bytes(), Bucket { number, level })
        };
        Self((0..).zip(keys).map(bucket).collect())
    }

    /// The number of the key a request shows, if it may go on.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<u32, (StatusCode, &'static str)> {
        let key = super::credential(headers).ok_or((StatusCode::UNAUTHORIZED, "no key"))?;
        let bucket = self.0.get(blake3::hash(key).as_bytes());
        let bucket = bucket.ok_or((StatusCode::UNAUTHORIZED, "unknown key"))?;
        let now = clock::now();
        let mut level = bucket.level.lock();
        let grown = now.saturating_duration_since(level.1).as_secs_f64() * RATE;
        *level = ((level.0 + grown).min(RATE), now);
        if level.0 < 1.0 {
            return Err((StatusCode::TOO_MANY_REQUESTS, "too many requests"));
        }
        level.0 -= 1.0;
        Ok(bucket.number)
    }
}

/// Model and stream of a request.
pub(super) fn asked(body: &[u8]) -> Option<Asked<'_>> {
    serde_json::from_slice(body).ok()
}

/// The usage in an answer or in one event of a stream.
pub(super) fn usage(document: &[u8]) -> Usage {
    let answer: Option<Answer> = serde_json::from_slice(document).ok();
    answer.and_then(|answer| answer.usage).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_keys_are_admitted() {
        let keys = Keys::new(&["a".to_owned(), "b".to_owned()]);
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", value.parse().unwrap());
            keys.admit(&headers)
        };
        assert_eq!(with("Bearer b"), Ok(1));
        assert_eq!(with("Bearer c").unwrap_err().0, StatusCode::UNAUTHORIZED);
        assert_eq!(with("b").unwrap_err().0, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn what_counts_is_read() {
        let asked = asked(br#"{"x":[1,{}],"model":"m","stream":true}"#).unwrap();
        assert_eq!((asked.model.as_ref(), asked.stream), ("m", true));
        let said = usage(br#"{"a":1,"usage":{"prompt_tokens":3,"completion_tokens":4}}"#);
        assert_eq!((said.prompt_tokens, said.completion_tokens), (3, 4));
        assert_eq!(usage(b"{}").prompt_tokens, 0);
    }
}
