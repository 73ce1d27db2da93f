//! An Anthropic message as an OpenAI chat completion, and the answer back.
//!
//! Owns the least that such a translation is: text in, text out, no stream. It gives the column of
//! translations a floor; it is no measure of what a translation has to know.

use std::borrow::Cow;

use hyper::body::Bytes;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    max_tokens: u32,
    #[serde(borrow)]
    system: Option<Cow<'a, str>>,
    #[serde(borrow)]
    messages: Vec<Turn<'a>>,
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize, Serialize)]
struct Turn<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

#[derive(Serialize)]
struct Completion<'a> {
    model: &'a str,
    max_tokens: u32,
    messages: Vec<&'a Turn<'a>>,
}

#[derive(Deserialize)]
struct Completed<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
    usage: super::checks::Usage,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    message: Turn<'a>,
    #[serde(borrow)]
    finish_reason: Cow<'a, str>,
}

#[derive(Serialize)]
struct Answered<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: &'a str,
    content: [Text<'a>; 1],
    stop_reason: &'static str,
    stop_sequence: Option<&'static str>,
    usage: Counted,
}

#[derive(Serialize)]
struct Text<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct Counted {
    input_tokens: u64,
    output_tokens: u64,
}

/// The request in the other protocol; `None` if it is not one of the simple kind.
pub(super) fn request(body: &[u8]) -> Option<Bytes> {
    let asked: Message<'_> = serde_json::from_slice(body).ok()?;
    if asked.stream {
        return None;
    }
    let system = asked.system.map(|content| Turn { role: "system".into(), content });
    let messages = system.iter().chain(&asked.messages).collect();
    let said = Completion { model: &asked.model, max_tokens: asked.max_tokens, messages };
    serde_json::to_vec(&said).ok().map(Bytes::from)
}

/// The answer back in the protocol that was asked in.
pub(super) fn answer(body: &[u8]) -> Option<Bytes> {
    let said: Completed<'_> = serde_json::from_slice(body).ok()?;
    let choice = said.choices.first()?;
    let stop_reason = match choice.finish_reason.as_ref() {
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        _ => "end_turn",
    };
    let answer = Answered {
        id: &said.id,
        kind: "message",
        role: "assistant",
        model: &said.model,
        content: [Text { kind: "text", text: &choice.message.content }],
        stop_reason,
        stop_sequence: None,
        usage: Counted {
            input_tokens: said.usage.prompt_tokens,
            output_tokens: said.usage.completion_tokens,
        },
    };
    serde_json::to_vec(&answer).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::{MODELS, Protocol};
    use serde_json::Value;

    #[test]
    fn text_goes_there_and_back() {
        let asked = br#"{"model":"m","max_tokens":9,"system":"s",
            "messages":[{"role":"user","content":"u"}]}"#;
        let sent: Value = serde_json::from_slice(&request(asked).unwrap()).unwrap();
        assert_eq!(sent["messages"][0]["role"], "system");
        assert_eq!(sent["messages"][1]["content"], "u");
        let body = MODELS[0].body(Protocol::OpenAi);
        let back: Value = serde_json::from_slice(&answer(&body).unwrap()).unwrap();
        let original: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(back["content"][0]["text"], original["choices"][0]["message"]["content"]);
        assert_eq!(
            (&back["stop_reason"], &back["usage"]["output_tokens"]),
            (&"end_turn".into(), &64.into())
        );
    }
}
