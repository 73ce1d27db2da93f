//! Errors in this dialect: `{"type":"error","error":{"type","message"}}`.
//!
//! Owns reading a provider's and writing our own.

use selvedge_base::{Blame, Code, Micros, Refusal};
use serde::Deserialize;

use crate::chat::Failure;
use crate::failure::{self, Words};
use crate::json::Object;
use crate::limits::ERROR_BYTES;
use crate::openai;

#[derive(Deserialize)]
struct Envelope {
    error: ErrorField,
}

#[derive(Deserialize)]
struct ErrorField {
    #[serde(rename = "type")]
    kind: Option<String>,
    message: Option<String>,
}

/// Classifies an error answer. `retry_after` comes from [`crate::failure::retry_after`]. Status 0
/// is an error inside a stream.
pub fn failure(status: u16, retry_after: Option<Micros>, body: &[u8]) -> Failure {
    let body = &body[..body.len().min(ERROR_BYTES)];
    match serde_json::from_slice::<Envelope>(body) {
        Ok(Envelope { error: ErrorField { kind, message } }) => {
            failure::classify(status, retry_after, Words { kind, message, ..Words::default() })
        }
        // A proxy in front of it may speak otherwise.
        Err(_) => openai::failure(status, retry_after, body),
    }
}

/// The HTTP status of a refusal.
pub fn status(refusal: &Refusal) -> u16 {
    match refusal.code {
        Code::Overloaded if refusal.blame != Blame::Client => 529,
        _ => openai::status(refusal),
    }
}

/// Our own refusal as this dialect's error object.
pub fn error_body(refusal: &Refusal) -> Vec<u8> {
    let mut out = Vec::new();
    Object::write(&mut out, |object| fields(object, refusal));
    out
}

/// Writes the fields of the error object.
pub(super) fn fields(object: &mut Object<'_>, refusal: &Refusal) {
    object.field("type", "error");
    object.object("error", |object| {
        object.field("type", kind(status(refusal)));
        object.field("message", &refusal.message);
    });
}

fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}
