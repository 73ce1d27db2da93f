//! The Open Inference Protocol over gRPC.
//!
//! Owns the calls, the one frame that a request and an answer are, and the status that stands for
//! a refusal. Source: "gRPC over HTTP2" of the gRPC project. Calls are unary; messages are not
//! compressed; what a message says is the dialect's.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Response, StatusCode};
use selvedge_base::{Code, Micros};
use selvedge_dialect::inference::{grpc, rows, tensors};
use selvedge_runtime::check_version;

use super::body::{Answer, whole};
use super::errors::Problem;
use super::infer::Meant;
use super::route::Surface;
use super::router::Exchange;

/// The type of requests and answers.
const GRPC: &str = "application/grpc";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// A frame's head: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;
/// Digits of a timeout, as the protocol allows.
const TIMEOUT_DIGITS: usize = 8;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    ServerLive,
    ServerReady,
    ServerMetadata,
    ModelReady,
    ModelMetadata,
    ModelInfer,
    /// A method of this service that is not served, or of none.
    Other,
}

impl Method {
    /// The method behind a path; none when it is no path of this service.
    pub(super) fn find(path: &str) -> Option<Self> {
        let name = path.strip_prefix('/')?.strip_prefix(grpc::SERVICE)?.strip_prefix('/')?;
        Some(match name {
            "ServerLive" => Self::ServerLive,
            "ServerReady" => Self::ServerReady,
            "ServerMetadata" => Self::ServerMetadata,
            "ModelReady" => Self::ModelReady,
            "ModelMetadata" => Self::ModelMetadata,
            "ModelInfer" => Self::ModelInfer,
            _ => Self::Other,
        })
    }
}

impl Exchange<'_> {
    /// One call.
    pub(super) async fn grpc(
        &self,
        method: Method,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Response<Answer>, Problem> {
        check_content(&parts.headers)?;
        match method {
            // No more than a stranger may know.
            Method::ServerLive => Ok(answer(&grpc::yes(true))),
            Method::ServerReady => Ok(answer(&grpc::yes(!self.app.stop.is_requested()))),
            Method::ServerMetadata => {
                self.holder(parts, Surface::Grpc)?;
                Ok(answer(&grpc::server(env!("CARGO_PKG_VERSION"))))
            }
            Method::ModelReady => {
                let holder = self.holder(parts, Surface::Grpc)?;
                let received = self.app.reader.read(&parts.headers, body).await?;
                let (model, version) = grpc::parse_named(frame(&received.bytes)?)?;
                holder.check_model(&model)?;
                let ready = match self.meant(&model, &version) {
                    Ok(Meant::Texts(_) | Meant::Tensors) => true,
                    Ok(Meant::Rows(card)) => check_version(&model, &card, Some(&version)).is_ok(),
                    Err(_) => false,
                };
                Ok(answer(&grpc::yes(ready)))
            }
            Method::ModelMetadata => {
                let holder = self.holder(parts, Surface::Grpc)?;
                let received = self.app.reader.read(&parts.headers, body).await?;
                let (model, version) = grpc::parse_named(frame(&received.bytes)?)?;
                holder.check_model(&model)?;
                let told = match self.meant(&model, &version)? {
                    Meant::Texts(makes) => grpc::metadata(&model, makes),
                    Meant::Rows(card) => rows::grpc_metadata(&model, &card),
                    Meant::Tensors => {
                        let caller = self.app.guard.caller(&parts.headers, holder.clone())?;
                        tensors::grpc_metadata(&model, &self.signature(&model, caller).await?)
                    }
                };
                Ok(answer(&told))
            }
            Method::ModelInfer => self.model_infer(parts, body).await,
            Method::Other => {
                let message = format!("{} has no such method here", grpc::SERVICE);
                Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "not_found", message))
            }
        }
    }

    /// One inference.
    async fn model_infer(
        &self,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Response<Answer>, Problem> {
        let holder = self.holder(parts, Surface::Grpc)?.clone();
        let mut caller = self.app.guard.caller(&parts.headers, holder)?;
        if let Some(timeout) = timeout(&parts.headers)? {
            caller.deadline = caller.deadline.min(timeout);
        }
        let received = self.app.reader.read(&parts.headers, body).await?;
        let message = frame(&received.bytes)?;
        // What the rest of it means depends on the model.
        let (model, version) = grpc::parse_named(message)?;
        caller.holder.check_model(&model)?;
        let meant = self.meant(&model, &version)?;
        if let Meant::Tensors = meant {
            let asked = tensors::grpc_parse(message)?;
            drop(received);
            let (asked, outputs) = self.tensors(&model, asked, caller).await?;
            return Ok(answer(&tensors::grpc_answer(&model, &asked, outputs)));
        }
        if let Meant::Rows(_) = meant {
            let asked = rows::grpc_parse(message)?;
            drop(received);
            let (asked, found) = self.classes(&model, &version, asked, caller).await?;
            return Ok(answer(&rows::grpc_answer(&model, &asked, &found)));
        }
        let (_, _, infer) = grpc::parse_infer(message)?;
        drop(received);
        let (tensor, usage) = self.infer(&model, &infer, caller).await?;
        Ok(answer(&grpc::answer(&model, &infer, &tensor, usage)))
    }
}

/// An answer of one message.
fn answer(message: &[u8]) -> Response<Answer> {
    let mut framed = Vec::with_capacity(HEAD_BYTES + message.len());
    framed.push(0);
    // Answers are far below four gigabytes: a provider's is at most 64 MiB.
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    let mut response = whole(StatusCode::OK, GRPC, "");
    *response.body_mut() = Answer::Trailed(Some(Bytes::from(framed)), Some(trailers));
    response
}

/// A refusal: a head with a status and no message.
pub(super) fn refused(problem: &Problem) -> Response<Answer> {
    // Of the problem's own response its headers stay: how long to wait.
    let mut response = problem.response();
    *response.status_mut() = StatusCode::OK;
    *response.body_mut() = Answer::Whole(None);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert(STATUS, HeaderValue::from(status(problem.status)));
    if let Ok(message) = HeaderValue::from_str(&encoded(&problem.message)) {
        headers.insert(MESSAGE, message);
    }
    response
}

/// The status of gRPC that says what a status of HTTP says.
fn status(status: StatusCode) -> u16 {
    match status.as_u16() {
        401 => 16,
        403 => 7,
        404 => 5,
        408 | 504 => 4,
        413 | 429 => 8,
        405 | 501 => 12,
        502 | 503 => 14,
        500.. => 13,
        _ => 3,
    }
}

/// A message as a header holds it: percent-encoded but for printable ASCII.
fn encoded(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A web page cannot send this type without being asked whether it may.
fn check_content(headers: &HeaderMap) -> Result<(), Problem> {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if matches!(declared, Some(GRPC | "application/grpc+proto")) {
        return Ok(());
    }
    let message = "calls of this service are 'application/grpc', with protocol buffers";
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Err(Problem::new(status, "unsupported_media_type", message))
}

/// The one message of a body.
fn frame(body: &[u8]) -> Result<&[u8], Problem> {
    let bad = |message: &str| {
        let status = StatusCode::BAD_REQUEST;
        Err(Problem::new(status, Code::InvalidRequest.as_str(), message))
    };
    let Some(([compressed, length @ ..], message)) = body.split_first_chunk::<HEAD_BYTES>() else {
        return bad("the request holds no message");
    };
    if *compressed != 0 {
        let message = "compressed messages are not understood";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "unsupported", message));
    }
    if u32::from_be_bytes(*length) as usize != message.len() {
        return bad("the request must hold one whole message");
    }
    Ok(message)
}

/// How long the caller waits, as gRPC says it: digits and a unit.
fn timeout(headers: &HeaderMap) -> Result<Option<Micros>, Problem> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let parsed = value.to_str().ok().filter(|text| text.len() <= TIMEOUT_DIGITS + 1);
    let parsed = parsed.and_then(|text| {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let amount: u64 = digits.parse().ok().filter(|_| !digits.starts_with('+'))?;
        let micros = match unit {
            "H" => amount.saturating_mul(3_600_000_000),
            "M" => amount.saturating_mul(60_000_000),
            "S" => amount.saturating_mul(1_000_000),
            "m" => amount.saturating_mul(1_000),
            "u" => amount,
            "n" => amount / 1_000,
            _ => return None,
        };
        Some(Micros(micros))
    });
    match parsed {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Problem::invalid("grpc-timeout", "grpc-timeout is no number with a unit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_whole_message() {
        assert_eq!(frame(b"\0\0\0\0\x02hi").expect("one"), b"hi");
        for bad in
            [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x03hi", b"\0\0\0\0\x01hi", b"\x01\0\0\0\x02hi"]
        {
            assert!(frame(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::from_static(text));
            timeout(&headers)
        };
        assert_eq!(read("2S").expect("good"), Some(Micros::secs(2)));
        assert_eq!(read("1500m").expect("good"), Some(Micros::millis(1_500)));
        assert_eq!(read("99999999H").expect("good"), Some(Micros(99_999_999 * 3_600_000_000)));
        for bad in ["", "S", "2", "2s", "-2S", "+2S", "123456789S"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_is_a_status_and_its_words() {
        let problem =
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "budget_exhausted", "50 % — over")
                .retry_after(7);
        let response = refused(&problem);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[STATUS], "8");
        assert_eq!(response.headers()[MESSAGE], "50 %25 %E2%80%94 over");
        assert_eq!(response.headers()["retry-after"], "7");
        for (http, code) in [(400, 3), (401, 16), (404, 5), (503, 14), (504, 4), (501, 12)] {
            assert_eq!(status(StatusCode::from_u16(http).expect("one")), code, "{http}");
        }
    }
}
