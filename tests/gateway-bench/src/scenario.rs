//! What is asked for and what a right answer is.
//!
//! Owns the scenarios, the bytes of their requests and the check of an answer. Every request of a
//! scenario that must not be answered from a cache differs from all others by a number.

use std::fmt;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answers::{MODELS, Protocol, UPSTREAM_KEY};

/// Pieces of text in a stream; with its end, usage and the end mark, 35 events.
pub const DELTAS: usize = 32;

/// Where the number goes that makes a request differ; as many digits are written over it.
const NONCE: &str = "0000000000000000";

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scenario {
    /// Chat completion, 1 KiB in and out.
    Json1k,
    /// Chat completion, 16 KiB in and out.
    Json16k,
    /// Streamed chat completion whose events come at once.
    SseBurst,
    /// Streamed chat completion, an event every 5 ms.
    SsePaced,
    /// An Anthropic message answered by an OpenAI upstream.
    Translate,
    /// The same chat completion again and again.
    Cached,
    /// Streams that are all open at the same time.
    Streams,
    /// [`Scenario::Json1k`] for minutes, to see what becomes of the memory.
    Soak,
}

/// A request to be sent again and again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Template {
    /// Head and body.
    pub bytes: Vec<u8>,
    /// Where the number goes, if there is one.
    pub nonce: Option<usize>,
}

/// What a right answer is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Expected {
    /// A document of this length, or at least nine tenths of it where a gateway writes its own.
    Document {
        /// Its length in bytes.
        bytes: usize,
        /// The gateway passes bytes on as they came.
        exact: bool,
    },
    /// A stream of this many events, or at least all deltas where a gateway writes its own.
    Stream {
        /// How many events.
        events: usize,
        /// The gateway passes bytes on as they came.
        exact: bool,
    },
}

impl Scenario {
    /// All of them in the order they run.
    pub const ALL: [Self; 8] = [
        Self::Json1k,
        Self::Json16k,
        Self::SseBurst,
        Self::SsePaced,
        Self::Translate,
        Self::Cached,
        Self::Streams,
        Self::Soak,
    ];

    /// Its name in figures and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json1k => "json_1k",
            Self::Json16k => "json_16k",
            Self::SseBurst => "sse_burst",
            Self::SsePaced => "sse_paced",
            Self::Translate => "translate",
            Self::Cached => "cached",
            Self::Streams => "streams",
            Self::Soak => "soak",
        }
    }

    /// The mock's model behind it.
    pub fn model(self) -> &'static str {
        match self {
            Self::Json1k | Self::Translate | Self::Soak => "bench-json-1k",
            Self::Json16k => "bench-json-16k",
            Self::SseBurst => "bench-burst",
            Self::SsePaced => "bench-paced",
            Self::Cached => "bench-cached",
            Self::Streams => "bench-slow",
        }
    }

    /// Whether it takes ten minutes and runs only when it is named.
    pub fn is_long(self) -> bool {
        self == Self::Soak
    }

    /// Whether the answer is a stream.
    pub fn streams(self) -> bool {
        matches!(self, Self::SseBurst | Self::SsePaced | Self::Streams)
    }

    /// The path a client asks for.
    pub fn path(self) -> &'static str {
        if self == Self::Translate { "/v1/messages" } else { "/v1/chat/completions" }
    }

    /// Bytes of the request's body.
    fn request_bytes(self) -> usize {
        if self == Self::Json16k { 16_384 } else { 1_024 }
    }

    /// The request to a gateway: `key` is the client's, `headers` what else this gateway wants,
    /// `prefix` what it wants in front of the model's name.
    pub fn template(self, key: &str, headers: &[(String, String)], prefix: &str) -> Template {
        let body = self.body(prefix);
        let mut head = format!("POST {} HTTP/1.1\r\nhost: bench.local\r\n", self.path());
        match self {
            Self::Translate => {
                head.push_str(&format!("x-api-key: {key}\r\nanthropic-version: 2023-06-01\r\n"));
            }
            _ => head.push_str(&format!("authorization: Bearer {key}\r\n")),
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("content-type: application/json\r\naccept: */*\r\nuser-agent: bench\r\n");
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let bytes = [head.as_bytes(), body.as_bytes()].concat();
        let nonce = memchr::memmem::find(&bytes, NONCE.as_bytes());
        Template { bytes, nonce: nonce.filter(|_| self != Self::Cached) }
    }

    /// The request of the same kind that needs no gateway: the mock speaks OpenAI here.
    pub fn direct(self) -> Template {
        let plain = if self == Self::Translate { Self::Json1k } else { self };
        plain.template(UPSTREAM_KEY, &[], "")
    }

    /// The body of the request, of exactly the length it should have. The model stands first, as
    /// clients write it.
    fn body(self, prefix: &str) -> String {
        let text = |padding: &str| {
            let content = format!("request {NONCE}: {padding}");
            let user = json!([{"role": "user", "content": content}]);
            let model = format!("{prefix}{}", self.model());
            let system = "You answer briefly and to the point.";
            match self {
                Self::Translate => format!(
                    r#"{{"model":"{model}","max_tokens":64,"system":"{system}","messages":{user}}}"#
                ),
                _ if self.streams() => {
                    let usage = r#""stream":true,"stream_options":{"include_usage":true}"#;
                    format!(r#"{{"model":"{model}",{usage},"max_tokens":64,"messages":{user}}}"#)
                }
                _ => format!(
                    r#"{{"model":"{model}","max_tokens":64,"temperature":0.2,"messages":{user}}}"#
                ),
            }
        };
        let wanted = self.request_bytes() - text("").len();
        text(&"word ".repeat(wanted)[..wanted])
    }

    /// The right answer from a gateway that passes bytes on (`exact`) or writes its own.
    pub fn expected(self, exact: bool) -> Expected {
        let model = MODELS.iter().find(|model| model.name == self.model());
        match model {
            Some(model) if model.pace.is_some() => {
                Expected::Stream { events: model.events(Protocol::OpenAi).len(), exact }
            }
            // A translated answer is written anew by everybody.
            model => {
                let bytes = model.map_or(0, |model| model.bytes);
                Expected::Document { bytes, exact: exact && self != Self::Translate }
            }
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Template {
    /// Writes a number into the request so that it differs from all others.
    pub fn number(&mut self, number: u64) {
        let Some(at) = self.nonce else { return };
        let mut left = number;
        for digit in self.bytes[at..at + NONCE.len()].iter_mut().rev() {
            // A remainder by ten is a digit.
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
    }
}

impl Expected {
    /// Whether an answer is right.
    ///
    /// # Errors
    /// When it is not; with what is wrong.
    pub fn check(&self, status: u16, body: &[u8]) -> Result<()> {
        ensure!(status == 200, "status {status}: {}", shown(body));
        match self {
            Self::Document { bytes, exact } => {
                let long = if *exact { body.len() == *bytes } else { body.len() >= bytes * 9 / 10 };
                ensure!(long, "{} bytes where {bytes} were expected: {}", body.len(), shown(body));
                let usage = memchr::memmem::rfind(body, b"\"usage\"").is_some();
                ensure!(usage, "an answer without usage: {}", shown(body));
            }
            Self::Stream { events, exact } => {
                let count = memchr::memmem::find_iter(body, b"data: ").count();
                let many = if *exact { count == *events } else { count >= DELTAS };
                ensure!(many, "{count} events where {events} were expected: {}", shown(body));
                let end = body.trim_ascii_end().ends_with(b"data: [DONE]");
                ensure!(end, "a stream without its end: {}", shown(body));
            }
        }
        Ok(())
    }
}

/// The beginning of a body, for a message.
fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::Model;
    use crate::wire;

    #[test]
    fn requests_have_their_length_and_differ_by_their_number() {
        for scenario in Scenario::ALL {
            let mut template = scenario.template("key", &[], "");
            let before = template.bytes.clone();
            template.number(42);
            assert_eq!(template.bytes != before, scenario != Scenario::Cached, "{scenario}");
            let request = wire::request(&template.bytes).unwrap().unwrap();
            assert_eq!(request.body.len(), scenario.request_bytes());
            let document: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(document["model"], scenario.model());
            assert_eq!(document["stream"].as_bool().unwrap_or(false), scenario.streams());
            assert_eq!(
                Model::asked(&request.body).map(|at| MODELS[at].name),
                Some(scenario.model())
            );
        }
    }

    #[test]
    fn wrong_answers_are_named() {
        let right = MODELS[0].body(Protocol::OpenAi);
        let document = Scenario::Json1k.expected(true);
        document.check(200, &right).unwrap();
        assert!(document.check(500, &right).is_err());
        assert!(document.check(200, &right[..right.len() - 1]).is_err());
        let events = MODELS[3].events(Protocol::OpenAi);
        let stream = Scenario::SseBurst.expected(true);
        stream.check(200, events.concat().as_bytes()).unwrap();
        assert!(stream.check(200, events[1..].concat().as_bytes()).is_err());
        assert!(stream.check(200, events[..events.len() - 1].concat().as_bytes()).is_err());
    }
}
