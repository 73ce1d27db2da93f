use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use serde_json::{Value, json};

use super::*;
use crate::chat::{Block, ChatRequest, Event, Gathered, Usage};
use crate::exchange::{AnswerParser, Reply, StreamWriter};
use crate::openai;

const TARGET: Target = Target { max_tokens: 4_096 };

fn chat(more: Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}]});
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    body.to_string().into_bytes()
}

#[test]
fn every_wrong_field_is_refused_by_name() {
    let block = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    let table = [
        (json!({"colour": 1}), "colour"),
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"temperature": 1.5}), "temperature"),
        (json!({"messages": [{"role": "system", "content": "x"}]}), "messages[0].role"),
        (json!({"tools": [{"name": "f"}]}), "tools[0].input_schema"),
        (json!({"tools": [{"name": "f", "input_schema": {}, "x": 1}]}), "tools[0].x"),
        (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name"),
        (json!({"thinking": {"type": "enabled"}}), "thinking.budget_tokens"),
        (json!({"output_config": {"effort": "none"}}), "output_config.effort"),
        (json!({"system": [{"type": "image"}]}), "system[0].type"),
        (block(json!({"type": "text"})), "messages[0].content[0].text"),
        (block(json!({"type": "text", "text": "a", "id": "x"})), "messages[0].content[0].id"),
        (block(json!({"type": "text", "text": "a", "colour": 1})), "messages[0].content[0].colour"),
        (
            block(json!({"type": "text", "text": "a", "cache_control": {"type": "x"}})),
            "messages[0].content[0].cache_control",
        ),
        (
            block(json!({"type": "tool_use", "id": "a", "name": "b", "input": {}})),
            "messages[0].content[0].type",
        ),
        (
            block(json!({"type": "image", "source": {"type": "base64", "media_type": "a",
            "data": "?"}})),
            "messages[0].content[0].source.data",
        ),
    ];
    for (more, param) in table {
        let refusal = parse(&chat(more.clone())).expect_err("must be refused");
        assert_eq!(refusal.param.as_deref(), Some(param), "{more} {refusal}");
        assert!(refusal.message.contains(param.rsplit('.').next().unwrap()), "{refusal}");
    }
}

fn events(stream: &[u8]) -> Vec<Event> {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    parser.push(stream, &mut events);
    parser.finish(&mut events);
    events
}

fn gathered(events: Vec<Event>) -> Gathered {
    let mut whole = Gathered::default();
    events.into_iter().for_each(|event| whole.take(event).expect("no failure"));
    whole
}

#[test]
fn a_stream_becomes_events_with_what_is_billed() {
    let whole = gathered(events(include_bytes!("../../tests/corpus/anthropic.sse/tools.sse")));
    let usage = Usage {
        prompt_tokens: 602,
        cached_tokens: 30,
        cache_creation_tokens: 100,
        cache_creation_1h_tokens: 40,
        completion_tokens: 89,
        web_searches: 1,
        ..Usage::default()
    };
    assert_eq!(whole.usage, Some(usage));
    let calls: Vec<_> = whole.choices[0]
        .blocks
        .iter()
        .filter_map(|block| match block {
            Block::ToolUse { name, arguments, .. } => Some((name.as_str(), arguments.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(calls, [("get_weather", "{\"location\": \"San Francisco, CA\"}"), ("now", "{}")]);
    assert!(whole.choices[0].blocks.iter().any(|block| matches!(block,
        Block::Native { name, value, .. }
            if name == "server_tool_use" && value.text().contains("\"query\":\"a\""))));
}

#[test]
fn a_whole_message_is_written_as_it_was_read() {
    let bytes = include_bytes!("../../tests/corpus/anthropic.json/message.json");
    let (mut parser, mut events) = (WholeParser::default(), Vec::new());
    parser.push(bytes, &mut events);
    parser.finish(&mut events);
    let ours: Value = serde_json::from_slice(&whole(&gathered(events))).expect("JSON");
    let mut theirs: Value = serde_json::from_slice(bytes).expect("JSON");
    theirs["usage"]["cache_creation"] =
        json!({"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 0});
    assert_eq!(ours, theirs);
}

#[test]
fn what_openai_clients_see_of_an_anthropic_stream() {
    let mut writer = openai::Writer::new(Reply { created: 5, include_usage: true });
    let mut out = Vec::new();
    let events = events(include_bytes!("../../tests/corpus/anthropic.sse/tools.sse"));
    events.iter().for_each(|event| writer.write(event, &mut out));
    let (mut parser, mut again) = (openai::Parser::default(), Vec::new());
    parser.push(&out, &mut again);
    let whole = gathered(again);
    assert!(whole.complete);
    assert_eq!(whole.choices[0].text(), "Okay, let’s check");
    assert_eq!(whole.choices[0].thinking(), "Let me solve this");
    let usage = whole.usage.expect("asked for");
    assert_eq!((usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens), (602, 30, 89));
}

#[test]
fn an_openai_request_is_asked_in_anthropics_words() {
    let body = json!({"model": "m", "max_tokens": 5, "stop": "END", "user": "u",
        "tools": [{"type": "function", "function": {"name": "f"}}], "parallel_tool_calls": false,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "a", "type": "function",
                "function": {"name": "f", "arguments": "{\"x\":1}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "tool", "tool_call_id": "b", "content": "2"}]});
    let request = openai::parse(body.to_string().as_bytes()).expect("understood");
    let sent = render(&request, TARGET).expect("said");
    assert!(sent.headers.contains(&("anthropic-version", "2023-06-01".to_owned())));
    let sent: Value = serde_json::from_slice(&sent.body).expect("JSON");
    let wanted = json!({"model": "m", "max_tokens": 5, "system": "Be brief.",
        "messages": [{"role": "user", "content": "hi"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                {"type": "tool_result", "tool_use_id": "b", "content": "2"}]}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
        "stop_sequences": ["END"], "metadata": {"user_id": "u"}});
    assert_eq!(sent, wanted);
}

#[test]
fn what_anthropic_cannot_be_told_is_refused_by_name() {
    let told = |more: Value| -> ChatRequest {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        openai::parse(body.to_string().as_bytes()).expect("understood")
    };
    for (more, param) in [
        (json!({"n": 2}), "n"),
        (json!({"seed": 1}), "seed"),
        (json!({"temperature": 1.5}), "temperature"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"prediction": {}}), "prediction"),
        (json!({"service_tier": "flex"}), "service_tier"),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "system",
            "content": "b"}]}),
            "messages[1].role",
        ),
    ] {
        let refusal = render(&told(more), TARGET).expect_err("must be refused");
        assert_eq!((refusal.param.as_deref(), refusal.retry), (Some(param), Retry::Elsewhere));
        assert_eq!(refusal.code, Code::Unsupported);
    }
}

#[test]
fn overload_inside_a_stream_is_the_providers_and_waits() {
    let events = events(include_bytes!("../../tests/corpus/anthropic.sse/overloaded.sse"));
    let Some(Event::Failed(failure)) = events.last() else { panic!("{events:?}") };
    assert_eq!((failure.refusal.blame, failure.refusal.code), (Blame::Provider, Code::Overloaded));
    let provider = failure.provider.as_ref().expect("one spoke");
    assert_eq!(provider.kind.as_deref(), Some("overloaded_error"));
}

#[test]
fn errors_have_this_dialects_shape_and_status() {
    let refusal = Refusal::new(Stage::Admit, Blame::Us, Retry::Never, Code::Overloaded, "full");
    assert_eq!(status(&refusal), 529);
    let body: Value = serde_json::from_slice(&error_body(&refusal)).expect("JSON");
    assert_eq!(
        body,
        json!({"type": "error",
        "error": {"type": "overloaded_error", "message": "full"}})
    );
}

#[test]
fn tokens_are_counted_without_an_answer() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let request = parse_count(body.to_string().as_bytes()).expect("no max_tokens needed");
    assert!(parse(body.to_string().as_bytes()).is_err());
    assert!(parse_count(&chat(json!({}))).is_err());
    let sent = render_count(&request).expect("said");
    assert_eq!(sent.path, "/v1/messages/count_tokens");
    assert_eq!(serde_json::from_slice::<Value>(&sent.body).expect("JSON"), body);
    assert_eq!(read_count(&count_body(14)).expect("a count"), 14);
}
