//! What each provider's API looks like from outside: paths, authentication, answers, errors.

use hyper::HeaderMap;
use selvedge_base::Wall;
use selvedge_core::upstream::ProviderKind;
use selvedge_upstream::{Call, MediaType, Secret, sigv4};

/// The planted key of each test provider; Bedrock's has two parts.
pub(crate) const KEY: &str = "sk-planted-9f8e7d6c5b4a";
pub(crate) const AWS_ID: &str = "AKIAPLANTED0123";
pub(crate) const AWS_SECRET: &str = "plantedSecret/9f8e7d6c5b4a+x";
pub(crate) const REGION: &str = "eu-central-1";

/// What the vault holds for a kind.
pub(crate) fn vault_text(kind: ProviderKind) -> String {
    match kind {
        ProviderKind::Bedrock => format!("{AWS_ID}:{AWS_SECRET}"),
        _ => KEY.to_owned(),
    }
}

/// The secret a careless provider repeats; Ollama is never told one.
pub(crate) fn echoed(kind: ProviderKind) -> String {
    if kind == ProviderKind::Ollama { "nothing".to_owned() } else { vault_text(kind) }
}

/// The chat call of a kind, as its dialect would write it.
pub(crate) fn call(kind: ProviderKind, stream: bool) -> Call {
    let path = match (kind, stream) {
        (ProviderKind::OpenAi | ProviderKind::Azure, _) => "/v1/chat/completions",
        (ProviderKind::Anthropic, _) => "/v1/messages",
        (ProviderKind::Gemini, false) => "/v1beta/models/m:generateContent",
        (ProviderKind::Gemini, true) => "/v1beta/models/m:streamGenerateContent?alt=sse",
        (ProviderKind::Bedrock, false) => "/model/vendor.m-v1%3A0/converse",
        (ProviderKind::Bedrock, true) => "/model/vendor.m-v1%3A0/converse-stream",
        (ProviderKind::Cohere, _) => "/v2/chat",
        (ProviderKind::Ollama, _) => "/api/chat",
    };
    Call {
        model: "m".to_owned(),
        method: "POST",
        path: path.into(),
        headers: vec![("content-type", "application/json".into())],
        body: format!(r#"{{"model":"m","stream":{stream},"text":"hello"}}"#).into(),
        expects: media(kind, stream),
        tokens: 10,
        idempotent: false,
    }
}

/// The media type of a kind's answers.
pub(crate) fn media(kind: ProviderKind, stream: bool) -> MediaType {
    match (kind, stream) {
        (_, false) => MediaType::Json,
        (ProviderKind::Bedrock, true) => MediaType::AmazonEventStream,
        (ProviderKind::Ollama, true) => MediaType::JsonLines,
        (_, true) => MediaType::EventStream,
    }
}

pub(crate) fn content_type(kind: ProviderKind, stream: bool) -> &'static str {
    match media(kind, stream) {
        MediaType::EventStream => "text/event-stream; charset=utf-8",
        MediaType::JsonLines => "application/x-ndjson",
        MediaType::AmazonEventStream => "application/vnd.amazon.eventstream",
        MediaType::Json | MediaType::Any => "application/json",
    }
}

/// The path on the wire.
pub(crate) fn wire_path(kind: ProviderKind, stream: bool) -> String {
    match kind {
        ProviderKind::Azure => {
            "/openai/deployments/m/chat/completions?api-version=2024-10-21".to_owned()
        }
        _ => call(kind, stream).path.into_owned(),
    }
}

/// A whole answer, with its usage.
pub(crate) fn whole(kind: ProviderKind) -> Vec<u8> {
    match kind {
        ProviderKind::OpenAi | ProviderKind::Azure => {
            r#"{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},
            "finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#
        }
        ProviderKind::Anthropic => {
            r#"{"id":"msg","type":"message","role":"assistant","content":[{"type":"text",
            "text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":5,"output_tokens":2}}"#
        }
        ProviderKind::Gemini => {
            r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}],
            "usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2}}"#
        }
        ProviderKind::Bedrock => {
            r#"{"output":{"message":{"role":"assistant","content":[{"text":"hi"}]}},
            "stopReason":"end_turn","usage":{"inputTokens":5,"outputTokens":2}}"#
        }
        ProviderKind::Cohere => {
            r#"{"id":"c","message":{"role":"assistant","content":[{"type":"text","text":"hi"}]},
            "finish_reason":"COMPLETE","usage":{"tokens":{"input_tokens":5,"output_tokens":2}}}"#
        }
        ProviderKind::Ollama => {
            r#"{"model":"m","message":{"role":"assistant","content":"hi"},"done":true,
            "prompt_eval_count":5,"eval_count":2}"#
        }
    }
    .as_bytes()
    .to_vec()
}

/// A stream's pieces.
pub(crate) fn pieces(kind: ProviderKind) -> Vec<Vec<u8>> {
    let sse = |events: &[(&str, &str)]| {
        let line = |(event, data): &(&str, &str)| match *event {
            "" => format!("data: {data}\n\n").into_bytes(),
            event => format!("event: {event}\ndata: {data}\n\n").into_bytes(),
        };
        events.iter().map(line).collect()
    };
    match kind {
        ProviderKind::OpenAi | ProviderKind::Azure => sse(&[
            ("", r#"{"choices":[{"index":0,"delta":{"content":"h"}}]}"#),
            ("", r#"{"choices":[{"index":0,"delta":{"content":"i"}}]}"#),
            ("", r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#),
            ("", "[DONE]"),
        ]),
        ProviderKind::Anthropic => sse(&[
            ("message_start", r#"{"type":"message_start","message":{"usage":{"input_tokens":5}}}"#),
            ("content_block_delta", r#"{"type":"content_block_delta","delta":{"text":"hi"}}"#),
            ("message_delta", r#"{"type":"message_delta","usage":{"output_tokens":2}}"#),
            ("message_stop", r#"{"type":"message_stop"}"#),
        ]),
        ProviderKind::Gemini => sse(&[
            ("", r#"{"candidates":[{"content":{"parts":[{"text":"h"}]}}]}"#),
            ("", r#"{"candidates":[{"content":{"parts":[{"text":"i"}]},"finishReason":"STOP"}]}"#),
        ]),
        ProviderKind::Cohere => sse(&[
            ("content-delta", r#"{"type":"content-delta","delta":{"message":{"content":{}}}}"#),
            ("message-end", r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE"}}"#),
        ]),
        ProviderKind::Ollama => vec![
            b"{\"message\":{\"content\":\"h\"},\"done\":false}\n".to_vec(),
            b"{\"message\":{\"content\":\"i\"},\"done\":true,\"eval_count\":2}\n".to_vec(),
        ],
        ProviderKind::Bedrock => vec![
            amazon_event("contentBlockDelta", br#"{"delta":{"text":"hi"}}"#),
            amazon_event("messageStop", br#"{"stopReason":"end_turn"}"#),
            amazon_event("metadata", br#"{"usage":{"inputTokens":5,"outputTokens":2}}"#),
        ],
    }
}

/// An error in a kind's own shape, which repeats the key as careless providers do.
pub(crate) fn error(kind: ProviderKind, message: &str) -> String {
    let text = format!("{message}: {}", echoed(kind));
    match kind {
        ProviderKind::OpenAi | ProviderKind::Azure => {
            format!(r#"{{"error":{{"message":"{text}","type":"e","param":null,"code":"c"}}}}"#)
        }
        ProviderKind::Anthropic => {
            format!(r#"{{"type":"error","error":{{"type":"e","message":"{text}"}}}}"#)
        }
        ProviderKind::Gemini => {
            format!(r#"{{"error":{{"code":400,"message":"{text}","status":"E"}}}}"#)
        }
        ProviderKind::Bedrock | ProviderKind::Cohere => format!(r#"{{"message":"{text}"}}"#),
        ProviderKind::Ollama => format!(r#"{{"error":"{text}"}}"#),
    }
}

/// Whether a request says who asks the way this provider wants it, and in no other way.
pub(crate) fn is_authentic(
    kind: ProviderKind,
    method: &str,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
    at: Wall,
) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let only = |name: &str| {
        let all = ["authorization", "x-api-key", "x-goog-api-key", "api-key"];
        all.iter().all(|other| *other == name || header(other).is_none())
    };
    let bearer = format!("Bearer {KEY}");
    match kind {
        ProviderKind::OpenAi | ProviderKind::Cohere => {
            header("authorization") == Some(&bearer) && only("authorization")
        }
        ProviderKind::Anthropic => {
            header("x-api-key") == Some(KEY)
                && header("anthropic-version") == Some("2023-06-01")
                && only("x-api-key")
        }
        ProviderKind::Gemini => header("x-goog-api-key") == Some(KEY) && only("x-goog-api-key"),
        ProviderKind::Azure => header("api-key") == Some(KEY) && only("api-key"),
        ProviderKind::Ollama => only(""),
        ProviderKind::Bedrock => {
            // Signed over what arrived, with the server's own copy of the secret.
            let host = header("host").unwrap_or_default();
            let keys = sigv4::Keys {
                id: Secret::new(AWS_ID.to_owned()),
                secret: Secret::new(AWS_SECRET.to_owned()),
                session: None,
            };
            let request = sigv4::Request { method, path, headers: &[("host", host)], body };
            let scope = sigv4::Scope { region: REGION, service: "bedrock", at };
            let signed = sigv4::sign(&keys, &request, &scope);
            signed.iter().all(|(name, value)| header(name) == Some(value.expose()))
                && only("authorization")
        }
    }
}

/// One message of Amazon's event stream encoding: lengths, CRC, headers, payload, CRC.
fn amazon_event(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [(":message-type", "event"), (":event-type", kind)] {
        headers.push(name.len() as u8);
        headers.extend(name.as_bytes());
        headers.push(7);
        headers.extend((value.len() as u16).to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let total = 12 + headers.len() + payload.len() + 4;
    let mut message = (total as u32).to_be_bytes().to_vec();
    message.extend((headers.len() as u32).to_be_bytes());
    message.extend(crc32(&message).to_be_bytes());
    message.extend(headers);
    message.extend(payload);
    message.extend(crc32(&message).to_be_bytes());
    message
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes
        .iter()
        .fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
