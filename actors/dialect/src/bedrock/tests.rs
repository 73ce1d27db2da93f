use selvedge_base::{Blame, Code, Retry};
use serde_json::{Value, json};

use super::*;
use crate::chat::{Event, Finish, Usage};
use crate::exchange::AnswerParser;
use crate::openai;

fn events(bytes: &[u8]) -> Vec<Event> {
    let (mut parser, mut events) = (Parser::new("r1", "m"), Vec::new());
    parser.push(bytes, &mut events);
    parser.finish(&mut events);
    events
}

#[test]
fn an_openai_request_is_asked_in_bedrocks_words() {
    let body = json!({"model": "anthropic.claude-3:0", "stream": true,
        "max_tokens": 5, "stop": "END",
        "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "a", "type": "function",
                "function": {"name": "f", "arguments": "{\"x\":1}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "user", "content": "and now?"}]});
    let request = openai::parse(body.to_string().as_bytes()).expect("understood");
    let sent = render(&request).expect("said");
    assert_eq!(sent.path, "/model/anthropic.claude-3%3A0/converse-stream");
    let sent: Value = serde_json::from_slice(&sent.body).expect("JSON");
    let wanted = json!({"system": [{"text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"text": "hi"}]},
            {"role": "assistant", "content": [
                {"toolUse": {"toolUseId": "a", "name": "f", "input": {"x": 1}}}]},
            {"role": "user", "content": [
                {"toolResult": {"toolUseId": "a", "content": [{"text": "1"}]}},
                {"text": "and now?"}]}],
        "inferenceConfig": {"maxTokens": 5, "stopSequences": ["END"]},
        "toolConfig": {"tools": [{"toolSpec": {"name": "f",
            "inputSchema": {"json": {"type": "object"}}}}], "toolChoice": {"any": {}}}});
    assert_eq!(sent, wanted);
    let mut seeded = request.clone();
    seeded.sampling.seed = Some(1);
    let refusal = render(&seeded).expect_err("no seeds there");
    assert_eq!((refusal.param.as_deref(), refusal.code), (Some("seed"), Code::Unsupported));
}

#[test]
fn a_binary_stream_becomes_events() {
    let events = events(include_bytes!("../../tests/corpus/bedrock.stream/tools.bin"));
    let [.., Event::Ended { reason, .. }, Event::Finished { usage, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    let billed = Usage { prompt_tokens: 47, completion_tokens: 20, ..Usage::default() };
    assert_eq!((reason, *usage), (&Finish::ToolCalls, Some(billed)));
    assert!(events.contains(&Event::Text { choice: 0, text: "Hi 🦀".into() }));
    let (mut parser, mut whole) = (WholeParser::new("r1", "m"), Vec::new());
    parser.push(include_bytes!("../../tests/corpus/bedrock.json/tools.json"), &mut whole);
    parser.finish(&mut whole);
    let usage = parser.usage().expect("told");
    assert_eq!((usage.prompt_tokens, usage.cached_tokens), (140, 10));
}

#[test]
fn exceptions_are_classified_and_damage_is_noticed() {
    let bytes = include_bytes!("../../tests/corpus/bedrock.stream/throttled.bin");
    let failed = events(bytes);
    let Some(Event::Failed(failure)) = failed.last() else { panic!("{failed:?}") };
    assert_eq!((failure.refusal.blame, failure.refusal.code), (Blame::Provider, Code::Overloaded));
    let mut damaged = bytes.to_vec();
    damaged[20] ^= 1;
    let Some(Event::Failed(failure)) = events(&damaged).pop() else { panic!("not noticed") };
    assert_eq!(failure.refusal.retry, Retry::Elsewhere);
    let kind = Some("ValidationException:http://internal.amazon.com/");
    let said = super::failure(400, kind, None, br#"{"message":"bad"}"#);
    assert_eq!(said.refusal.blame, Blame::Client);
    let provider = said.provider.expect("one spoke");
    assert_eq!(provider.kind.as_deref(), Some("ValidationException"));
}
