//! Errors in this dialect: reading a provider's, writing our own.
//!
//! Owns the error object `{"error":{message, type, param, code}}` and the status of a refusal.

use selvedge_base::{Blame, Code, Micros, Refusal, Retry};
use serde::Deserialize;

use crate::chat::Failure;
use crate::failure::{self, Words};
use crate::json::{Json, Object};
use crate::limits::ERROR_BYTES;

/// A budget whose refusal has to be waited for longer than this is not one of rate: nobody waits
/// within one request for the next day or month.
const LONGEST_RATE: Micros = Micros::secs(3_600);

#[derive(Deserialize)]
struct Envelope {
    error: Option<ErrorField>,
    /// Some servers write the fields without the envelope.
    message: Option<Json>,
    detail: Option<Json>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorField {
    Text(String),
    Object {
        message: Option<String>,
        #[serde(rename = "type")]
        kind: Option<String>,
        param: Option<serde_json::Value>,
        code: Option<serde_json::Value>,
    },
}

/// Classifies an error answer. `retry_after` comes from [`crate::failure::retry_after`].
pub fn failure(status: u16, retry_after: Option<Micros>, body: &[u8]) -> Failure {
    failure::classify(status, retry_after, words(body))
}

/// Classifies an error that came inside a stream.
pub(crate) fn failure_in_stream(data: &[u8]) -> Failure {
    failure::classify(0, None, words(data))
}

fn words(body: &[u8]) -> Words {
    let body = &body[..body.len().min(ERROR_BYTES)];
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match serde_json::from_slice::<Envelope>(body) {
        Ok(Envelope { error: Some(ErrorField::Text(message)), .. }) => {
            Words { message: Some(message), ..Words::default() }
        }
        Ok(Envelope { error: Some(ErrorField::Object { message, kind, param, code }), .. }) => {
            Words { kind, code: code.and_then(text), param: param.and_then(text), message }
        }
        Ok(Envelope { message: Some(said), .. } | Envelope { detail: Some(said), .. }) => {
            let plain = serde_json::from_str::<String>(said.text());
            let message = Some(plain.unwrap_or_else(|_| said.text().to_owned()));
            Words { message, ..Words::default() }
        }
        _ => Words { message: plain(body), ..Words::default() },
    }
}

/// The text of an error that is no JSON; pages of proxies are not repeated.
fn plain(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    (!text.is_empty() && !text.starts_with('<')).then(|| text.to_owned())
}

/// Our own refusal as this dialect's error object.
pub fn error_body(refusal: &Refusal) -> Vec<u8> {
    let mut out = Vec::new();
    Object::write(&mut out, |object| object_of(object, refusal));
    out
}

/// Adds the field `error`.
pub(crate) fn object_of(object: &mut Object<'_>, refusal: &Refusal) {
    let status = status(refusal);
    let (kind, code) = match (refusal.code, refusal.blame) {
        (Code::QuotaExhausted, Blame::Client) => (exhausted_kind(refusal), "budget_exhausted"),
        (Code::QuotaExhausted, _) => (kind(status), "budget_not_in_force"),
        (code, _) => (kind(status), code.as_str()),
    };
    // What refuses a budget names its window there, which is no field of the request.
    let param = refusal.param.as_ref().filter(|_| refusal.code != Code::QuotaExhausted);
    object.object("error", |object| {
        object.field("message", &refusal.message);
        object.field("type", kind);
        object.field("param", &param);
        object.field("code", code);
    });
}

/// The HTTP status of a refusal, in every dialect but for the dialect's own exceptions.
pub fn status(refusal: &Refusal) -> u16 {
    match refusal.code {
        // A peer refused what this node sent it: the caller sent nothing wrong and may well ask.
        Code::InvalidRequest | Code::Forbidden if refusal.blame == Blame::Peer => 502,
        Code::InvalidRequest | Code::Unsupported | Code::ContextLengthExceeded => 400,
        Code::TooLarge => 413,
        Code::Unauthorized => 401,
        Code::Forbidden => 403,
        Code::ModelNotFound => 404,
        // The caller's own share is used up, or everybody's is.
        Code::Overloaded | Code::QuotaExhausted if refusal.blame == Blame::Client => 429,
        Code::Overloaded
        | Code::QuotaExhausted
        | Code::ModelUnavailable
        | Code::OutOfMemory
        | Code::Cancelled => 503,
        Code::Timeout if refusal.blame == Blame::Client => 408,
        Code::Timeout => 504,
        Code::PeerLost => 502,
        Code::Corrupt | Code::Internal => 500,
    }
}

/// The coarse name the official clients know, by status.
fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// What the official clients call a budget with nothing left: one of rate, which waiting helps, or
/// one that is spent. A budget by the day or month is of the second kind even in its last hour.
fn exhausted_kind(refusal: &Refusal) -> &'static str {
    let long = matches!(refusal.param.as_deref(), Some("day" | "month"));
    match refusal.retry {
        Retry::After(wait) if !long && wait <= LONGEST_RATE => "rate_limit_exceeded",
        Retry::After(_) | Retry::Never | Retry::Elsewhere => "insufficient_quota",
    }
}
