//! What the mock upstream answers, prepared once: whole HTTP answers and the events of streams.
//!
//! Owns the models the mock knows and their bytes. Which is asked for stands in the request's
//! body, so that it reaches the mock through any gateway; which protocol, in its path.

use std::time::Duration;

use serde_json::{Value, json};

use crate::scenario::DELTAS;

/// The credential the mock demands: a gateway must put it in place of the client's key.
pub const UPSTREAM_KEY: &str = "sk-upstream-5c1f0b7a";

/// How the names of all models begin; the mock looks for it in the body.
pub const PREFIX: &str = "bench-";

/// A model of the mock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// Bytes of its answer's body, zero for streams.
    pub bytes: usize,
    /// Time between the events of a stream; `None` for answers that are no streams.
    pub pace: Option<Duration>,
}

/// Everything the mock answers to. A name must not begin with another's.
pub const MODELS: &[Model] = &[
    Model { name: "bench-json-1k", bytes: 1_024, pace: None },
    Model { name: "bench-json-16k", bytes: 16_384, pace: None },
    Model { name: "bench-cached", bytes: 1_024, pace: None },
    Model { name: "bench-burst", bytes: 0, pace: Some(Duration::ZERO) },
    // The pace of a fast provider.
    Model { name: "bench-paced", bytes: 0, pace: Some(Duration::from_millis(5)) },
    // Slow enough that 2,000 streams are open at the same time before the first one ends.
    Model { name: "bench-slow", bytes: 0, pace: Some(Duration::from_millis(150)) },
];

/// The answers of one model in one protocol.
#[derive(Debug)]
pub struct Answer {
    /// What is written first: a head with its body, or the head of a stream.
    pub head: Vec<u8>,
    /// The events of a stream, each framed as the chunk it is sent in; the last ends the body.
    pub events: Vec<Vec<u8>>,
    /// Time between events.
    pub pace: Duration,
}

/// The two protocols of the mock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `/v1/chat/completions`.
    OpenAi,
    /// `/v1/messages`.
    Anthropic,
}

impl Model {
    /// The model a body asks for.
    pub fn asked(body: &[u8]) -> Option<usize> {
        let at = memchr::memmem::find(body, PREFIX.as_bytes())?;
        MODELS.iter().position(|model| body[at..].starts_with(model.name.as_bytes()))
    }

    /// Its answer in a protocol.
    pub fn answer(&self, protocol: Protocol) -> Answer {
        let Some(pace) = self.pace else {
            let body = self.body(protocol);
            let mut head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            head.extend_from_slice(&body);
            return Answer { head, events: Vec::new(), pace: Duration::ZERO };
        };
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                     cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
        let framed = |event: String| format!("{:x}\r\n{event}\r\n", event.len()).into_bytes();
        let mut events: Vec<Vec<u8>> = self.events(protocol).into_iter().map(framed).collect();
        if let Some(last) = events.last_mut() {
            last.extend_from_slice(b"0\r\n\r\n");
        }
        Answer { head: head.to_vec(), events, pace }
    }

    /// The body of an answer that is no stream, of exactly the length it should have.
    pub fn body(&self, protocol: Protocol) -> Vec<u8> {
        let document = |content: &str| self.document(protocol, content).to_string();
        let bare = document("").len();
        document(&"word ".repeat(self.bytes)[..self.bytes.saturating_sub(bare)]).into_bytes()
    }

    fn document(&self, protocol: Protocol, content: &str) -> Value {
        match protocol {
            Protocol::OpenAi => json!({
                "id": "chatcmpl-bench", "object": "chat.completion", "created": 1_767_225_600,
                "model": self.name,
                "choices": [{
                    "index": 0, "finish_reason": "stop",
                    "message": {"role": "assistant", "content": content},
                }],
                "usage": {"prompt_tokens": 210, "completion_tokens": 64, "total_tokens": 274},
            }),
            Protocol::Anthropic => json!({
                "id": "msg_bench", "type": "message", "role": "assistant", "model": self.name,
                "content": [{"type": "text", "text": content}],
                "stop_reason": "end_turn", "stop_sequence": null,
                "usage": {"input_tokens": 210, "output_tokens": 64},
            }),
        }
    }

    /// The events of a stream as text.
    pub fn events(&self, protocol: Protocol) -> Vec<String> {
        match protocol {
            Protocol::OpenAi => self.openai_events(),
            Protocol::Anthropic => self.anthropic_events(),
        }
    }

    fn openai_events(&self) -> Vec<String> {
        let chunk = |choices: Value, usage: Value| {
            let chunk = json!({
                "id": "chatcmpl-bench", "object": "chat.completion.chunk",
                "created": 1_767_225_600, "model": self.name, "choices": choices, "usage": usage,
            });
            format!("data: {chunk}\n\n")
        };
        let delta = |number: usize| {
            let delta = json!({"role": "assistant", "content": format!(" token{number}")});
            json!([{"index": 0, "delta": delta, "finish_reason": null}])
        };
        let mut events: Vec<String> =
            (0..DELTAS).map(|number| chunk(delta(number), Value::Null)).collect();
        events
            .push(chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), Value::Null));
        let usage = json!({"prompt_tokens": 210, "completion_tokens": 32, "total_tokens": 242});
        events.push(chunk(json!([]), usage));
        events.push("data: [DONE]\n\n".to_owned());
        events
    }

    fn anthropic_events(&self) -> Vec<String> {
        let event = |value: Value| {
            format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default())
        };
        let mut message = self.document(Protocol::Anthropic, "");
        message["content"] = json!([]);
        let mut events = vec![
            event(json!({"type": "message_start", "message": message})),
            event(json!({
                "type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": ""},
            })),
        ];
        events.extend((0..DELTAS).map(|number| {
            let delta = json!({"type": "text_delta", "text": format!(" token{number}")});
            event(json!({"type": "content_block_delta", "index": 0, "delta": delta}))
        }));
        events.push(event(json!({"type": "content_block_stop", "index": 0})));
        events.push(event(json!({
            "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": 32},
        })));
        events.push(event(json!({"type": "message_stop"})));
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_exactly_their_length() {
        for model in MODELS.iter().filter(|model| model.pace.is_none()) {
            for protocol in [Protocol::OpenAi, Protocol::Anthropic] {
                let body = model.body(protocol);
                assert_eq!(body.len(), model.bytes, "{}", model.name);
                assert!(serde_json::from_slice::<Value>(&body).is_ok());
            }
        }
    }

    #[test]
    fn the_model_is_found_in_a_body_however_it_is_spaced() {
        assert_eq!(Model::asked(br#"{"model": "bench-json-16k","x":1}"#), Some(1));
        assert_eq!(Model::asked(br#"{"model":"other"}"#), None);
    }

    #[test]
    fn streams_hold_their_deltas_and_end() {
        let events = MODELS[3].events(Protocol::OpenAi);
        assert_eq!(events.len(), DELTAS + 3);
        assert_eq!(events.last().map(String::as_str), Some("data: [DONE]\n\n"));
        let answer = MODELS[3].answer(Protocol::OpenAi);
        assert!(answer.events.last().is_some_and(|event| event.ends_with(b"0\r\n\r\n")));
    }
}
