use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use serde_json::{Value, json};

use super::*;
use crate::chat::{ChatRequest, Content, Event, Finish, Format, Gathered, Message, Role, Usage};
use crate::exchange::{AnswerParser, Reply, StreamWriter};

fn refused(body: Value) -> (String, String) {
    let refusal = parse(body.to_string().as_bytes()).expect_err("must be refused");
    assert_eq!(status(&refusal), 400);
    (refusal.param.unwrap_or_default(), refusal.message)
}

fn chat(more: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    body
}

#[test]
fn every_wrong_field_is_refused_by_name() {
    let table = [
        (json!({"colour": 1}), "colour", "is not a parameter"),
        (json!({"temperature": 3}), "temperature", "0.0 to 2.0, not 3"),
        (json!({"top_p": "x"}), "top_p", "not as it should be"),
        (json!({"n": 0}), "n", "1 to 128"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop", "at most 4"),
        (json!({"top_logprobs": 2}), "top_logprobs", "needs 'logprobs'"),
        (json!({"max_tokens": 1, "max_completion_tokens": 2}), "max_tokens", "differ"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options", "needs 'stream'"),
        (json!({"functions": []}), "functions", "use 'tools'"),
        (json!({"tool_choice": "maybe"}), "tool_choice", "must be"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].function", "is required"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}),
            "tools[0].function.name",
            "letters",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "a", "x": 1}}]}),
            "tools[0].function.x",
            "is not a parameter",
        ),
        (json!({"response_format": {"type": "xml"}}), "response_format.type", "must be"),
        (json!({"reasoning_effort": "max"}), "reasoning_effort", "must be"),
        (json!({"messages": []}), "messages", "at least one"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content", "is required"),
        (json!({"messages": [{"role": "robot", "content": ""}]}), "messages[0].role", "must be"),
        (
            json!({"messages": [{"role": "user", "content": "", "tool_call_id": "x"}]}),
            "messages[0].tool_call_id",
            "not a field of messages of user",
        ),
        (
            json!({"messages": [{"role": "system", "content": [{"type": "image_url",
            "image_url": {"url": "https://a/b"}}]}]}),
            "messages[0].content[0].type",
            "system",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a",
            "colour": 1}]}]}),
            "messages[0].content[0].colour",
            "is not a parameter",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url",
            "image_url": {"url": "nothing"}}]}]}),
            "messages[0].content[0].image_url.url",
            "data:",
        ),
    ];
    for (more, param, part) in table {
        let (named, message) = refused(chat(more.clone()));
        assert_eq!(named, param, "{more} {message}");
        assert!(message.contains(part), "{more}: {message}");
    }
    let (_, message) = refused(json!([1]));
    assert!(message.contains("must be a JSON object"), "{message}");
    assert!(parse(b"{\"model\":").expect_err("cut").message.contains("not valid JSON"));
}

/// Found by fuzzing: only the names of the top level were cut.
#[test]
fn a_refusal_does_not_repeat_a_name_of_any_length() {
    let name = "x".repeat(5_000);
    let message = json!({"role": "user", "content": "hi", name.clone(): 1});
    for more in [json!({name.clone(): 1}), json!({"messages": [message]})] {
        let (param, message) = refused(chat(more));
        assert!(param.len() < 300 && message.len() < 600, "{param}");
    }
    let dotted = json!({"messages": [{"role": "user", "content": "hi", "a.b": 1}]});
    assert_eq!(refused(chat(dotted)).0, "messages[0].a.b");
}

#[test]
fn what_openai_cannot_be_told_is_refused_by_name() {
    let told = |more: Value| parse(chat(more).to_string().as_bytes()).expect("understood");
    let strict = render(&told(json!({"top_k": 5})), Target::OpenAi).expect_err("no top_k there");
    assert_eq!((strict.param.as_deref(), strict.retry), (Some("top_k"), Retry::Elsewhere));
    let body = render(&told(json!({"top_k": 5})), Target::Compatible).expect("known there").body;
    assert!(String::from_utf8_lossy(&body).contains("\"top_k\":5"));
    let part = Content::Thinking { text: "a".into(), signature: Some("b".into()) };
    let message = Message { role: Role::Assistant, parts: vec![part.into()], ..Message::default() };
    let request = ChatRequest { messages: vec![message], ..ChatRequest::default() };
    let refusal = render(&request, Target::Compatible).expect_err("no place for a signature");
    assert_eq!(refusal.param.as_deref(), Some("messages[0].content[0]"));
}

#[test]
fn how_a_tools_arguments_are_cut_is_no_reason_to_refuse() {
    let told = |field: &str| {
        let mut tool = json!({"name": "f", "input_schema": {"type": "object"}});
        tool[field] = json!(true);
        let messages = json!([{"role": "user", "content": "hi"}]);
        let body = json!({"model": "m", "max_tokens": 9, "messages": messages, "tools": [tool]});
        crate::anthropic::parse(body.to_string().as_bytes()).expect("understood")
    };
    let body = render(&told("eager_input_streaming"), Target::OpenAi).expect("a hint").body;
    assert!(!String::from_utf8_lossy(&body).contains("eager"));
    let refusal = render(&told("defer_loading"), Target::OpenAi).expect_err("says more than that");
    assert_eq!(refusal.param.as_deref(), Some("tools[0].defer_loading"));
}

#[test]
fn azure_has_its_own_paths() {
    let request = parse(chat(json!({})).to_string().as_bytes()).expect("plain");
    let azure = Target::Azure { deployment: "my gpt/4", api_version: "2024-10-21" };
    let path = render(&request, azure).expect("plain").path;
    let wanted = "/openai/deployments/my%20gpt%2F4/chat/completions?api-version=2024-10-21";
    assert_eq!(path, wanted);
    assert_eq!(render(&request, Target::OpenAi).expect("plain").path, "/v1/chat/completions");
}

fn events(stream: &str) -> Vec<Event> {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    parser.push(stream.as_bytes(), &mut events);
    parser.finish(&mut events);
    events
}

#[test]
fn a_stream_becomes_events() {
    let events = events(include_str!("../../tests/corpus/openai.sse/text.sse"));
    let Event::Head(head) = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!((head.id.as_str(), head.created), ("chatcmpl-123", Some(1_694_268_190)));
    assert_eq!(events[1], Event::Text { choice: 0, text: "Hello 🦀".into() });
    assert!(matches!(&events[2], Event::LogProbs { tokens, .. } if tokens.len() == 1));
    assert_eq!(events[3], Event::Ended { choice: 0, reason: Finish::Stop, stop: None });
    let usage = Usage {
        prompt_tokens: 19,
        cached_tokens: 8,
        completion_tokens: 10,
        reasoning_tokens: 4,
        rejected_prediction_tokens: 1,
        ..Usage::default()
    };
    assert_eq!(events[4], Event::Finished { usage: Some(usage), timing: None });
    assert_eq!(events.len(), 5);
}

#[test]
fn calls_are_told_apart_by_their_indexes() {
    let events = events(include_str!("../../tests/corpus/openai.sse/tools.sse"));
    let mut whole = Gathered::default();
    events.into_iter().for_each(|event| whole.take(event).expect("no failure"));
    let body: Value = serde_json::from_slice(&self::whole(&whole, Reply::default())).expect("JSON");
    let calls = &body["choices"][0]["message"]["tool_calls"];
    assert_eq!(calls[0]["function"]["arguments"], "{\"city\":\"Bonn\"}");
    assert_eq!(
        calls[1],
        json!({"id": "call_b", "type": "function",
        "function": {"name": "time", "arguments": "{}"}})
    );
    assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(body["choices"][0]["message"]["content"], Value::Null);
}

#[test]
fn a_cut_stream_fails_and_keeps_its_usage() {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    parser.push(include_bytes!("../../tests/corpus/openai.sse/cut.sse"), &mut events);
    parser.finish(&mut events);
    let Some(Event::Failed(failure)) = events.last() else { panic!("{events:?}") };
    assert_eq!((failure.refusal.blame, failure.refusal.retry), (Blame::Provider, Retry::Elsewhere));
    assert_eq!(parser.usage().map(|usage| usage.total()), Some(6));
}

#[test]
fn thinking_that_is_counted_beside_the_answer_is_added() {
    let usage = |text: &str| Usage::from(serde_json::from_str::<usage::UsageField>(text).unwrap());
    let beside = r#"{"prompt_tokens":9,"completion_tokens":3,"total_tokens":112,
        "completion_tokens_details":{"reasoning_tokens":100}}"#;
    assert_eq!(usage(beside).completion_tokens, 103);
    let within = r#"{"prompt_tokens":9,"completion_tokens":103,"total_tokens":112,
        "completion_tokens_details":{"reasoning_tokens":100}}"#;
    assert_eq!(usage(within).completion_tokens, 103);
}

#[test]
fn errors_are_classified_and_ours_are_written() {
    let body = json!({"error": {"message": "Rate limit reached", "type": "tokens", "param": null,
        "code": "rate_limit_exceeded"}});
    let wait = Some(selvedge_base::Micros::secs(7));
    let failure = failure(429, wait, body.to_string().as_bytes());
    assert_eq!(failure.refusal.retry, Retry::After(selvedge_base::Micros::secs(7)));
    let provider = failure.provider.expect("one spoke");
    assert_eq!(provider.code.as_deref(), Some("rate_limit_exceeded"));
    let refusal = Refusal::client(Stage::Validate, Code::InvalidRequest, "no").param("n");
    let ours: Value = serde_json::from_slice(&error_body(&refusal)).expect("JSON");
    let wanted = json!({"message": "no", "type": "invalid_request_error", "param": "n",
        "code": "invalid_request"});
    assert_eq!(ours["error"], wanted);
}

#[test]
fn an_error_ends_a_stream_without_done() {
    let mut writer = Writer::new(Reply::default());
    let mut out = Vec::new();
    writer.write(&Event::Text { choice: 0, text: "a".into() }, &mut out);
    let refusal = Refusal::new(Stage::Execute, Blame::Us, Retry::Never, Code::Internal, "broke");
    writer.write(&Event::Failed(refusal.into()), &mut out);
    writer.write(&Event::Finished { usage: None, timing: None }, &mut out);
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("\"error\":{\"message\":\"broke\"") && !text.contains("[DONE]"));
}

#[test]
fn what_holds_an_answer_goes_to_servers_that_may_know_it_as_it_came() {
    let grammar = json!("root ::= [a-z]+");
    for (field, value) in [
        ("grammar", grammar.clone()),
        ("guided_grammar", grammar),
        ("structured_outputs", json!({"regex": "a+"})),
        ("guided_regex", json!("a+")),
        ("guided_choice", json!(["a"])),
        ("guided_json", json!({"type": "object"})),
    ] {
        let mut chat = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        chat[field] = value.clone();
        let mut text = json!({"model": "m", "prompt": "hi"});
        text[field] = value.clone();
        let chat = parse(chat.to_string().as_bytes()).expect("understood");
        let text = parse_text(text.to_string().as_bytes()).expect("understood");
        for request in [chat, text] {
            assert_eq!(request.held_by(), Some(field));
            let told = render(&request, Target::Compatible).expect("said");
            let told: Value = serde_json::from_slice(&told.body).expect("JSON");
            assert_eq!(told[field], value);
            let refused = [
                render(&request, Target::OpenAi),
                render(&request, Target::Azure { deployment: "d", api_version: "v" }),
                crate::anthropic::render(&request, crate::anthropic::Target { max_tokens: 9 }),
                crate::ollama::render(&request),
                crate::gemini::render(&request),
            ];
            for refused in refused {
                let refusal = refused.expect_err("nobody ignores it");
                assert_eq!(refusal.retry, Retry::Elsewhere);
                // A bare text is no word of theirs either.
                let named = refusal.param.as_deref();
                assert!(named == Some(field) || named == Some("prompt"), "{refusal}");
            }
        }
    }
}

#[test]
fn a_schema_without_a_name_gets_one() {
    let schema = crate::json::Json::parse("{}").expect("JSON");
    let format = Format::JsonSchema { name: None, description: None, schema, strict: None };
    let request = ChatRequest {
        messages: vec![Message::text(Role::User, "hi")],
        format: Some(format),
        ..ChatRequest::default()
    };
    let body: Value = serde_json::from_slice(&render(&request, Target::OpenAi).expect("said").body)
        .expect("JSON");
    assert_eq!(body["response_format"]["json_schema"]["name"], "answer");
}
