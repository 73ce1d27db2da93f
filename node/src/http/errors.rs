//! How the surface says no: the OpenAI error object and the status that goes with it.
//!
//! Owns the mapping from a refusal to HTTP. What may be refused, and why, is decided elsewhere.

use hyper::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use schemars::JsonSchema;
use selvedge_base::{Blame, Code, Micros, Refusal, Retry};
use serde::Serialize;

use super::body::{Answer, json};

/// Tells the official clients, which retry 408, 429 and 5xx by themselves, not to.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The wait in milliseconds; the official clients look here first.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// The longest wait the official clients heed. Told of a longer one they try again after seconds,
/// which cannot help.
const HEEDED: Micros = Micros::secs(60);
/// A budget whose refusal has to be waited for longer than this is not one of rate: nobody waits
/// within one request for the next day or month.
const LONGEST_RATE: Micros = Micros::secs(3_600);

/// What programs see of a budget with nothing left.
const BUDGET_EXHAUSTED: &str = "budget_exhausted";
/// What programs see of a budget that this node may not spend now, whatever is left of it.
const BUDGET_NOT_IN_FORCE: &str = "budget_not_in_force";

/// Characters of a decoder's complaint that are repeated to the client: enough to recognise it.
const QUOTE_CHARS: usize = 240;

/// A refused request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    /// The HTTP status.
    pub(super) status: StatusCode,
    /// The coarse name the official clients know.
    pub(super) kind: &'static str,
    /// The stable name programs see.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: String,
    /// The request field at fault.
    pub(super) param: Option<String>,
    /// Whether trying again can help.
    pub(super) retry: Retry,
    /// The methods that would have worked.
    pub(super) allow: Option<&'static str>,
}

impl Problem {
    /// Any problem that the same request will meet again.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let (retry, allow) = (Retry::Never, None);
        let kind = kind(status);
        Self { status, kind, code, message: message.into(), param: None, retry, allow }
    }

    /// A parameter whose value is wrong.
    pub(super) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::InvalidRequest.as_str(), message).param(param)
    }

    /// A parameter that this version does not honour.
    pub(super) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::Unsupported.as_str(), message).param(param)
    }

    /// A body that is not the JSON it should be.
    pub(super) fn json(what: &str, error: &serde_json::Error) -> Self {
        let mut why = error.to_string();
        // The decoder quotes what it met, which may be most of the body.
        if why.chars().nth(QUOTE_CHARS).is_some() {
            let (line, column) = (error.line(), error.column());
            why = why.chars().take(QUOTE_CHARS).collect();
            why.push_str(&format!("… at line {line} column {column}"));
        }
        let status = StatusCode::BAD_REQUEST;
        Self::new(status, Code::InvalidRequest.as_str(), format!("{what}: {why}"))
    }

    /// The same problem, naming the request field at fault.
    pub(super) fn param(mut self, field: impl Into<String>) -> Self {
        self.param = Some(field.into());
        self
    }

    /// The same problem, worth another try after `seconds`.
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry = Retry::After(Micros::secs(seconds));
        self
    }

    /// The response.
    pub(super) fn response(&self) -> Response<Answer> {
        let mut response = json(self.status, &self.object());
        let headers = response.headers_mut();
        match self.retry {
            Retry::After(wait) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(wait.0.div_ceil(1_000_000).max(1)));
                headers.insert(RETRY_AFTER_MS, HeaderValue::from(wait.0.div_ceil(1_000).max(1)));
                if wait > HEEDED {
                    headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
                }
            }
            Retry::Never if is_retried_by_clients(self.status) => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            Retry::Never | Retry::Elsewhere => {}
        }
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        response
    }

    /// The response in the shape of Anthropic's API.
    pub(super) fn response_as_anthropic(&self) -> Response<Answer> {
        let mut response = self.response();
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        let error = serde_json::json!({
            "type": "error",
            "error": { "type": kind, "message": self.message },
        });
        *response.body_mut() = json(self.status, &error).into_body();
        response
    }

    /// The response in the shape of Ollama's API and of the Open Inference Protocol.
    pub(super) fn response_as_text(&self) -> Response<Answer> {
        let mut response = self.response();
        let error = serde_json::json!({ "error": self.message });
        *response.body_mut() = json(self.status, &error).into_body();
        response
    }

    /// The OpenAI error object, also sent inside a stream.
    pub(super) fn object(&self) -> impl Serialize + '_ {
        Envelope {
            error: Object {
                message: &self.message,
                kind: self.kind,
                param: self.param.as_deref(),
                code: self.code,
            },
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = status(&refusal);
        let (kind, code) = match (refusal.code, refusal.blame) {
            (Code::QuotaExhausted, Blame::Client) => (exhausted_kind(&refusal), BUDGET_EXHAUSTED),
            (Code::QuotaExhausted, _) => (kind(status), BUDGET_NOT_IN_FORCE),
            (code, _) => (kind(status), code.as_str()),
        };
        // What refuses a budget names its window there, which is no field of the request.
        let param = refusal.param.filter(|_| refusal.code != Code::QuotaExhausted);
        Self {
            status,
            kind,
            code,
            message: refusal.message,
            param,
            retry: refusal.retry,
            allow: None,
        }
    }
}

/// OpenAI's error object.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(super) struct Envelope<'a> {
    error: Object<'a>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ErrorBody")]
struct Object<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal.code {
        // A peer refused what this node sent it: the caller sent nothing wrong and may well ask.
        Code::InvalidRequest | Code::Forbidden if refusal.blame == Blame::Peer => {
            StatusCode::BAD_GATEWAY
        }
        Code::InvalidRequest | Code::Unsupported | Code::ContextLengthExceeded => {
            StatusCode::BAD_REQUEST
        }
        // What the caller named is no good, such as a file that is no model.
        Code::Corrupt if refusal.blame == Blame::Client => StatusCode::BAD_REQUEST,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::ModelNotFound => StatusCode::NOT_FOUND,
        // The caller's own share is used up, or everybody's is.
        Code::Overloaded if refusal.blame == Blame::Client => StatusCode::TOO_MANY_REQUESTS,
        Code::QuotaExhausted if refusal.blame == Blame::Client => StatusCode::TOO_MANY_REQUESTS,
        // Nothing the caller did: another node may well serve it.
        Code::QuotaExhausted => StatusCode::SERVICE_UNAVAILABLE,
        Code::Overloaded | Code::ModelUnavailable | Code::OutOfMemory | Code::Cancelled => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::Timeout if refusal.blame == Blame::Client => StatusCode::REQUEST_TIMEOUT,
        Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Code::PeerLost => StatusCode::BAD_GATEWAY,
        Code::Corrupt | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The coarse name the official clients know, by status.
fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
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

fn is_retried_by_clients(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 409 | 429 | 500..)
}

#[cfg(test)]
mod tests {
    use selvedge_base::Stage;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_code_has_its_status_and_type() {
        let table = [
            (Code::InvalidRequest, 400, "invalid_request_error"),
            (Code::Unsupported, 400, "invalid_request_error"),
            (Code::ContextLengthExceeded, 400, "invalid_request_error"),
            (Code::TooLarge, 413, "invalid_request_error"),
            (Code::Unauthorized, 401, "authentication_error"),
            (Code::Forbidden, 403, "permission_error"),
            (Code::ModelNotFound, 404, "invalid_request_error"),
            (Code::ModelUnavailable, 503, "server_error"),
            (Code::Overloaded, 503, "server_error"),
            (Code::Timeout, 504, "server_error"),
            (Code::PeerLost, 502, "server_error"),
            (Code::Cancelled, 503, "server_error"),
            (Code::OutOfMemory, 503, "server_error"),
            (Code::Corrupt, 500, "server_error"),
            (Code::Internal, 500, "server_error"),
        ];
        for (code, status, kind) in table {
            let refusal = Refusal::new(Stage::Route, Blame::Us, Retry::Never, code, "no");
            let problem = Problem::from(refusal.param("model"));
            assert_eq!(problem.status.as_u16(), status, "{code:?}");
            let object = serde_json::to_value(problem.object()).expect("plain");
            let wanted = json!({"message": "no", "type": kind, "param": "model",
                "code": code.as_str()});
            assert_eq!(object["error"], wanted, "{code:?}");
        }
    }

    #[test]
    fn what_the_caller_did_is_not_told_as_a_fault_of_the_node() {
        let own = [(Code::Overloaded, 429), (Code::Timeout, 408), (Code::Corrupt, 400)];
        for (code, status) in own {
            let problem = Problem::from(Refusal::client(Stage::Admit, code, "no"));
            assert_eq!(problem.status.as_u16(), status);
        }
    }

    #[test]
    fn a_spent_budget_is_told_as_clients_know_it() {
        let refused = |retry, window: &str| {
            let code = Code::QuotaExhausted;
            let refusal = Refusal::new(Stage::Reserve, Blame::Client, retry, code, "spent");
            Problem::from(refusal.param(window))
        };
        let table = [
            (Retry::After(Micros::secs(9)), "minute", "rate_limit_exceeded"),
            (Retry::After(Micros::secs(3_600)), "hour", "rate_limit_exceeded"),
            (Retry::After(Micros::secs(3_601)), "hour", "insufficient_quota"),
            (Retry::After(Micros::secs(9)), "day", "insufficient_quota"),
            (Retry::After(Micros::secs(9)), "month", "insufficient_quota"),
            (Retry::Never, "minute", "insufficient_quota"),
        ];
        for (retry, window, kind) in table {
            let problem = refused(retry, window);
            assert_eq!(problem.status, StatusCode::TOO_MANY_REQUESTS);
            let object = serde_json::to_value(problem.object()).expect("plain");
            let wanted = json!({"message": "spent", "type": kind, "param": null,
                "code": "budget_exhausted"});
            assert_eq!(object["error"], wanted, "{retry:?}");
        }
    }

    #[test]
    fn a_budget_that_may_not_be_spent_here_is_not_the_callers_fault() {
        let (code, retry) = (Code::QuotaExhausted, Retry::Never);
        let refusal = Refusal::new(Stage::Reserve, Blame::Us, retry, code, "not in force");
        let problem = Problem::from(refusal);
        assert_eq!((problem.status.as_u16(), problem.kind), (503, "server_error"));
        assert_eq!(problem.code, "budget_not_in_force");
    }

    #[test]
    fn waits_that_clients_do_not_heed_are_not_retried() {
        let header = |seconds: u64, name| {
            let code = Code::QuotaExhausted;
            let retry = Retry::After(Micros(seconds * 1_000_000 - 1_500));
            let refusal = Refusal::new(Stage::Reserve, Blame::Client, retry, code, "spent");
            let response = Problem::from(refusal).response();
            response.headers().get(name).map(|value| value.to_str().expect("ASCII").to_owned())
        };
        assert_eq!(header(2, RETRY_AFTER).as_deref(), Some("2"));
        assert_eq!(header(2, RETRY_AFTER_MS).as_deref(), Some("1999"));
        assert_eq!(header(60, SHOULD_RETRY), None);
        assert_eq!(header(62, SHOULD_RETRY).as_deref(), Some("false"));
    }

    #[test]
    fn what_a_peer_did_not_take_is_not_the_callers_fault() {
        for code in [Code::InvalidRequest, Code::Forbidden] {
            let (stage, retry) = (Stage::HandOff, Retry::Elsewhere);
            let problem = Problem::from(Refusal::new(stage, Blame::Peer, retry, code, "no"));
            assert_eq!(problem.status, StatusCode::BAD_GATEWAY, "{code:?}");
        }
    }

    #[test]
    fn waiting_is_written_in_whole_seconds_rounded_up() {
        for (wait, seconds) in [(1, "1"), (1_000_000, "1"), (1_000_001, "2"), (0, "1")] {
            let retry = Retry::After(Micros(wait));
            let refusal = Refusal::new(Stage::Admit, Blame::Us, retry, Code::Overloaded, "full");
            let response = Problem::from(refusal).response();
            assert_eq!(response.headers()[RETRY_AFTER], seconds, "{wait}");
            assert!(!response.headers().contains_key(SHOULD_RETRY));
        }
    }

    #[test]
    fn clients_are_told_not_to_retry_what_cannot_work() {
        let never = Refusal::new(Stage::Execute, Blame::Us, Retry::Never, Code::Corrupt, "no");
        assert_eq!(Problem::from(never).response().headers()[SHOULD_RETRY], "false");
        let elsewhere =
            Refusal::new(Stage::Execute, Blame::Us, Retry::Elsewhere, Code::Internal, "no");
        assert!(!Problem::from(elsewhere).response().headers().contains_key(SHOULD_RETRY));
        assert!(!Problem::invalid("n", "no").response().headers().contains_key(SHOULD_RETRY));
    }

    #[test]
    fn an_absent_field_is_null() {
        let problem = Problem::new(StatusCode::NOT_FOUND, "not_found", "nothing here");
        let object = serde_json::to_value(problem.object()).expect("plain");
        assert_eq!(object["error"]["param"], Value::Null);
    }
}
