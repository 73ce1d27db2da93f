use selvedge_base::Code;
use serde_json::{Value, json};

use super::*;
use crate::chat::{Content, Event, Finish, Gathered, Role, Usage};
use crate::exchange::{AnswerParser, Reply, StreamWriter};
use crate::openai;

fn asked(more: Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "input": "hi"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string().into_bytes()
}

#[test]
fn every_wrong_field_is_refused_by_name() {
    let item = |item: Value| json!({"input": [item]});
    let part = |part: Value| item(json!({"role": "user", "content": [part]}));
    for (more, param) in [
        (json!({"colour": 1}), "colour"),
        (json!({"input": null}), "input"),
        (json!({"input": []}), "input"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"text": {"format": {"type": "xml"}}}), "text.format.type"),
        (json!({"tool_choice": "maybe"}), "tool_choice"),
        (json!({"tools": [{"type": "function", "name": "a b"}]}), "tools[0].name"),
        (json!({"reasoning": {"effort": "max"}}), "reasoning_effort"),
        (item(json!({"role": "robot", "content": "x"})), "input[0].role"),
        (item(json!({"role": "user", "content": "x", "odd": 1})), "input[0].odd"),
        (part(json!({"type": "output_text", "text": "x"})), "input[0].content[0].type"),
        (
            part(json!({"type": "input_text", "text": "x", "detail": "low"})),
            "input[0].content[0].detail",
        ),
        (part(json!({"type": "input_image", "image_url": "x"})), "input[0].content[0].image_url"),
    ] {
        let refusal = parse(&asked(more.clone())).expect_err("must be refused");
        assert_eq!(refusal.param.as_deref(), Some(param), "{more} {refusal}");
    }
}

#[test]
fn items_of_one_turn_are_one_message() {
    let body = include_bytes!("../../tests/corpus/responses.request/everything.json");
    let request = parse(body).expect("understood");
    let roles: Vec<Role> = request.messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::Tool, Role::User]);
    let turn = &request.messages[2].parts;
    assert_eq!(turn.len(), 4);
    assert!(matches!(&turn[2].content, Content::ToolUse { id, .. } if id == "call_1"));
    let sent: Value = serde_json::from_slice(&render(&request).expect("said").body).expect("JSON");
    assert_eq!(sent["previous_response_id"], "resp_0");
    assert_eq!(sent["reasoning"], json!({"effort": "low", "summary": "auto"}));
    assert_eq!(sent["input"][2]["encrypted_content"], "gAAA");
}

#[test]
fn what_refers_to_a_stored_answer_stays_in_this_dialect() {
    let request = parse(&asked(json!({"previous_response_id": "resp_0"}))).expect("understood");
    let refusal = openai::render(&request, openai::Target::OpenAi).expect_err("nothing stored");
    assert_eq!(refusal.param.as_deref(), Some("previous_response_id"));
    let plain = parse(&asked(json!({"store": false}))).expect("understood");
    assert!(openai::render(&plain, openai::Target::OpenAi).is_ok());
    let kept: Value = serde_json::from_slice(&render(&plain).expect("said").body).expect("JSON");
    assert_eq!(kept["store"], false);
}

fn events(parser: &mut dyn AnswerParser, bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    parser.push(bytes, &mut events);
    parser.finish(&mut events);
    events
}

#[test]
fn a_stream_becomes_events() {
    let bytes = include_bytes!("../../tests/corpus/responses.sse/tools.sse");
    let mut whole = Gathered::default();
    for event in events(&mut Parser::default(), bytes) {
        whole.take(event).expect("no failure");
    }
    let choice = &whole.choices[0];
    assert_eq!((choice.text().as_str(), choice.thinking().as_str()), ("Hi 🦀", "Hm"));
    assert_eq!(choice.reason, Some(Finish::ToolCalls));
    let usage = Usage {
        prompt_tokens: 37,
        cached_tokens: 8,
        completion_tokens: 11,
        reasoning_tokens: 3,
        ..Usage::default()
    };
    assert_eq!(whole.usage, Some(usage));
    let body: Value =
        serde_json::from_slice(&super::whole(&whole, Reply::default())).expect("JSON");
    let kinds: Vec<_> =
        body["output"].as_array().unwrap().iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    assert_eq!(body["status"], "completed");
}

#[test]
fn a_whole_answer_that_is_cut_short_says_so() {
    let bytes = include_bytes!("../../tests/corpus/responses.json/incomplete.json");
    let events = events(&mut WholeParser::default(), bytes);
    assert!(
        events.iter().any(|event| matches!(event, Event::Ended { reason: Finish::Length, .. })),
        "{events:?}"
    );
}

#[test]
fn a_failed_response_is_a_failure() {
    let bytes = include_bytes!("../../tests/corpus/responses.sse/failed.sse");
    let events = events(&mut Parser::default(), bytes);
    let Some(Event::Failed(failure)) = events.last() else { panic!("{events:?}") };
    assert_eq!(failure.refusal.code, Code::Overloaded);
}

#[test]
fn every_item_of_a_stream_begins_and_ends_once() {
    let stream = include_bytes!("../../tests/corpus/openai.sse/tools.sse");
    let chat = events(&mut openai::Parser::default(), stream);
    let mut writer = Writer::new(Reply::default());
    let mut out = Vec::new();
    chat.iter().for_each(|event| writer.write(event, &mut out));
    let text = String::from_utf8(out).expect("text");
    let datas: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect();
    let kinds: Vec<&str> = datas.iter().map(|data| data["type"].as_str().unwrap()).collect();
    let call = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ];
    let mut wanted = vec!["response.created", "response.in_progress"];
    wanted.extend(call);
    wanted.extend([call[0], call[1], call[3], call[4]]);
    wanted.push("response.completed");
    assert_eq!(kinds, wanted);
    for (at, data) in datas.iter().enumerate() {
        assert_eq!(data["sequence_number"], at);
    }
    let last = &datas[datas.len() - 1]["response"]["output"];
    assert_eq!(last[0]["arguments"], "{\"city\":\"Bonn\"}");
    assert_eq!(last[1]["call_id"], "call_b");
}
