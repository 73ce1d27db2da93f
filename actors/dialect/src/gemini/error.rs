//! Errors: `{"error":{code, message, status, details}}`.
//!
//! Owns reading them, and the wait they ask for, which is not in a header here.

use selvedge_base::Micros;
use serde::Deserialize;

use crate::chat::Failure;
use crate::failure::{self, Words};
use crate::limits::ERROR_BYTES;
use crate::openai;

#[derive(Deserialize)]
struct Envelope {
    error: ErrorField,
}

#[derive(Deserialize)]
struct ErrorField {
    code: Option<u16>,
    message: Option<String>,
    status: Option<String>,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(rename = "retryDelay")]
    retry_delay: Option<String>,
    reason: Option<String>,
}

/// Classifies an error answer. `retry_after` comes from [`crate::failure::retry_after`]. Status 0
/// is an error inside a stream, which names its own.
pub fn failure(status: u16, retry_after: Option<Micros>, body: &[u8]) -> Failure {
    let body = &body[..body.len().min(ERROR_BYTES)];
    // A stream that is not asked for as events answers with an array.
    let one = serde_json::from_slice::<Envelope>(body).ok();
    let many = || serde_json::from_slice::<Vec<Envelope>>(body).ok()?.into_iter().next();
    let Some(Envelope { error }) = one.or_else(many) else {
        return openai::failure(status, retry_after, body);
    };
    let delay = error.details.iter().find_map(|detail| detail.retry_delay.as_deref());
    let delay = delay.and_then(|delay| delay.strip_suffix('s'));
    let delay = delay.and_then(|seconds| failure::retry_after([("retry-after", seconds)]));
    let code = error.details.into_iter().find_map(|detail| detail.reason);
    let words = Words { kind: error.status, code, message: error.message, param: None };
    let said = if status == 0 { error.code.unwrap_or(0) } else { status };
    // A bad key is told as a bad request here.
    let status = match (said, words.code.as_deref()) {
        (400, Some("API_KEY_INVALID")) => 401,
        _ => said,
    };
    failure::classify(status, retry_after.or(delay), words)
}
