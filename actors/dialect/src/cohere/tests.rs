use serde_json::{Value, json};

use super::*;
use crate::chat::{Event, Finish, Usage};
use crate::embed::{EmbedInput, EmbedParser, EmbedRequest};
use crate::exchange::AnswerParser;
use crate::openai;

#[test]
fn an_openai_request_is_asked_in_coheres_words() {
    let body = json!({"model": "command-a", "stream": true, "max_tokens": 5, "stop": "END",
        "top_p": 0.5, "tool_choice": "required",
        "tools": [{"type": "function", "function": {"name": "f", "strict": true}}],
        "messages": [{"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "a", "type": "function",
                "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "1"}]});
    let request = openai::parse(body.to_string().as_bytes()).expect("understood");
    let sent = render(&request).expect("said");
    assert_eq!(sent.path, "/v2/chat");
    let sent: Value = serde_json::from_slice(&sent.body).expect("JSON");
    let wanted = json!({"model": "command-a", "stream": true, "max_tokens": 5, "p": 0.5,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"},
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "function",
                "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "1"}],
        "stop_sequences": ["END"], "strict_tools": true, "tool_choice": "REQUIRED",
        "tools": [{"type": "function", "function": {"name": "f",
            "parameters": {"type": "object"}}}]});
    assert_eq!(sent, wanted);
    let mut negative = request.clone();
    negative.sampling.presence_penalty = Some((-1).into());
    let refusal = render(&negative).expect_err("penalties are 0 to 1 there");
    assert_eq!(refusal.param.as_deref(), Some("presence_penalty"));
}

#[test]
fn what_is_billed_is_what_is_counted() {
    let (mut parser, mut events) = (Parser::new("command-a"), Vec::new());
    parser.push(include_bytes!("../../tests/corpus/cohere.sse/tools.sse"), &mut events);
    parser.finish(&mut events);
    let [.., Event::Ended { reason, .. }, Event::Finished { usage, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    let billed = Usage { prompt_tokens: 37, completion_tokens: 28, ..Usage::default() };
    assert_eq!((reason, *usage), (&Finish::ToolCalls, Some(billed)));
    let (mut parser, mut events) = (WholeParser::new("command-a"), Vec::new());
    parser.push(include_bytes!("../../tests/corpus/cohere.json/text.json"), &mut events);
    parser.finish(&mut events);
    assert!(matches!(&events[events.len() - 2], Event::Ended { reason: Finish::Length, .. }));
}

#[test]
fn embeddings_are_asked_for_with_a_purpose() {
    let request = EmbedRequest {
        model: "embed-v4.0".into(),
        inputs: vec![EmbedInput::Text("a".into())],
        ..EmbedRequest::default()
    };
    let sent: Value =
        serde_json::from_slice(&render_embed(&request).expect("said").body).expect("JSON");
    assert_eq!(
        sent,
        json!({"model": "embed-v4.0", "texts": ["a"], "input_type": "clustering",
        "embedding_types": ["float"]})
    );
    let mut parser = EmbedParser::new(read_embed);
    parser.push(
        br#"{"id":"x","embeddings":{"float":[[0.5]]},"meta":{"billed_units":{"input_tokens":2}}}"#,
    );
    let answer = parser.finish(1).expect("one");
    assert_eq!(
        (answer.vectors, answer.usage.map(|usage| usage.prompt_tokens)),
        (vec![vec![0.5]], Some(2))
    );
}
