use serde_json::{Value, json};

use super::write::timestamp;
use super::*;
use crate::chat::{Content, Event, Finish, Gathered, Role, Usage};
use crate::embed::{EmbedInput, EmbedParser, Embeddings};
use crate::exchange::{AnswerParser, Reply, StreamWriter};
use crate::openai;

fn events(bytes: &[u8]) -> Vec<Event> {
    let (mut parser, mut events) = (Parser::new("r1"), Vec::new());
    parser.push(bytes, &mut events);
    parser.finish(&mut events);
    events
}

#[test]
fn every_wrong_field_is_refused_by_name() {
    for (more, param) in [
        (json!({"colour": 1}), "colour"),
        (json!({"options": {"colour": 1}}), "options.colour"),
        (json!({"options": {"temperature": "x"}}), "options.temperature"),
        (json!({"options": {"top_p": 2}}), "options.top_p"),
        (json!({"format": "xml"}), "format"),
        (json!({"think": "much"}), "think"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "robot"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].tool_call_id"),
        (json!({"messages": [{"role": "user", "images": ["AAAA"]}]}), "messages[0].images[0]"),
        (
            json!({"messages": [{"role": "user", "content": "", "thinking": "x"}]}),
            "messages[0].thinking",
        ),
    ] {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let refusal = parse(body.to_string().as_bytes()).expect_err("must be refused");
        assert_eq!(refusal.param.as_deref(), Some(param), "{more} {refusal}");
    }
}

#[test]
fn results_find_their_calls_and_a_chat_streams_by_itself() {
    let body = json!({"model": "m", "messages": [
        {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": {}}},
            {"function": {"name": "b", "arguments": {}}}]},
        {"role": "tool", "content": "1", "tool_name": "b"}, {"role": "tool", "content": "2"}]});
    let request = parse(body.to_string().as_bytes()).expect("understood");
    assert!(request.stream);
    let id = |at: usize| match &request.messages[at].parts[0].content {
        Content::ToolResult { id, .. } => id.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((id(1), id(2)), ("call_0_1".to_owned(), "call_0_0".to_owned()));
}

#[test]
fn generate_is_a_chat_of_one_message() {
    let body = json!({"model": "m", "prompt": "Why?", "system": "Be brief.", "stream": false});
    let request = parse_generate(body.to_string().as_bytes()).expect("understood");
    let roles: Vec<Role> = request.messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User]);
    for field in ["raw", "suffix", "template", "context"] {
        let value = match field {
            "raw" => json!(true),
            "context" => json!([1]),
            _ => json!("x"),
        };
        let body = json!({"model": "m", "prompt": "a", field: value});
        let refusal = parse_generate(body.to_string().as_bytes()).expect_err("must be refused");
        assert_eq!(refusal.param.as_deref(), Some(field));
    }
}

#[test]
fn a_stream_becomes_events_and_calls_get_ids() {
    let events = events(include_bytes!("../../tests/corpus/ollama.ndjson/chat.ndjson"));
    let ids: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::ToolBegin { id, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(ids, ["call_r1_0", "call_x"]);
    let [.., Event::Ended { reason, .. }, Event::Finished { usage, timing }] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(*reason, Finish::ToolCalls);
    let counted = Usage { prompt_tokens: 169, completion_tokens: 15, ..Usage::default() };
    assert_eq!(*usage, Some(counted));
    assert_eq!(timing.map(|timing| timing.total.0), Some(182_242));
}

#[test]
fn whole_answers_and_generated_text_have_their_shapes() {
    let mut answer = Gathered::default();
    for event in events(include_bytes!("../../tests/corpus/ollama.ndjson/whole.json")) {
        answer.take(event).expect("no failure");
    }
    let reply = Reply { created: 1_702_390_423, include_usage: true };
    let chat: Value = serde_json::from_slice(&whole(&answer, Shape::Chat, reply)).expect("JSON");
    let wanted = json!({"model": "llama3.2", "created_at": "2023-12-12T14:13:43Z",
        "message": {"role": "assistant", "content": "Hello!"}, "done": true,
        "done_reason": "length", "total_duration": 5_191_566_000_u64, "load_duration": 2_154_000,
        "prompt_eval_count": 26, "prompt_eval_duration": 383_809_000, "eval_count": 298,
        "eval_duration": 4_799_921_000_u64});
    assert_eq!(chat, wanted);
    let text: Value =
        serde_json::from_slice(&whole(&answer, Shape::Generate, reply)).expect("JSON");
    assert_eq!(text["response"], "Hello!");
    assert_eq!(text.get("message"), None);
}

#[test]
fn an_openai_stream_becomes_lines() {
    let stream = include_bytes!("../../tests/corpus/openai.sse/tools.sse");
    let (mut parser, mut events) = (openai::Parser::default(), Vec::new());
    parser.push(stream, &mut events);
    let mut writer = Writer::new(Shape::Chat, Reply::default());
    let mut out = Vec::new();
    events.iter().for_each(|event| writer.write(event, &mut out));
    let lines: Vec<Value> = out
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["message"]["tool_calls"][0]["function"]["arguments"]["city"], "Bonn");
    assert_eq!(lines[2]["done"], true);
}

/// Found by fuzzing: models write their arguments over several lines.
#[test]
fn arguments_of_several_lines_are_one_line_of_the_stream() {
    let json = "{\n \"a\":\r\n \"b\\n\"}";
    let (id, name) = ("c".to_owned(), "f".to_owned());
    let mut writer = Writer::new(Shape::Chat, Reply::default());
    let mut out = Vec::new();
    for event in [
        Event::ToolBegin { choice: 0, call: 0, id, name },
        Event::ToolArguments { choice: 0, call: 0, json: json.to_owned() },
        Event::ToolEnd { choice: 0, call: 0 },
    ] {
        writer.write(&event, &mut out);
    }
    let text = String::from_utf8(out).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: Value = serde_json::from_str(&text).expect("JSON");
    let arguments = &line["message"]["tool_calls"][0]["function"]["arguments"];
    assert_eq!(arguments, &json!({"a": "b\n"}));
}

#[test]
fn dates_are_dates() {
    for (seconds, date) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_709_251_200, "2024-03-01T00:00:00Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(timestamp(seconds), date);
    }
}

#[test]
fn models_are_listed_and_shown() {
    let card = Card { name: "qwen3".into(), family: "qwen3".into(), ..Card::default() };
    assert_eq!(read_tags(&tags_body(std::slice::from_ref(&card))).expect("tags"), ["qwen3"]);
    let shown: Value = serde_json::from_slice(&show_body(&card)).expect("JSON");
    assert_eq!(shown["model_info"]["qwen3.context_length"], 0);
    assert_eq!(parse_show(br#"{"name":"a"}"#).expect("older clients"), "a");
    assert!(parse_show(b"{}").is_err());
}

#[test]
fn embeddings_go_both_ways() {
    let body = json!({"model": "m", "input": ["a", "b"], "truncate": true, "dimensions": 4,
        "keep_alive": "1m"});
    let request = parse_embed(body.to_string().as_bytes()).expect("understood");
    let sent: Value =
        serde_json::from_slice(&render_embed(&request).expect("said").body).expect("JSON");
    assert_eq!(sent, body);
    let mut tokens = request.clone();
    tokens.inputs = vec![EmbedInput::Tokens(vec![1])];
    let refusal = render_embed(&tokens).expect_err("no tokens there");
    assert_eq!(refusal.param.as_deref(), Some("input"));
    let usage = Some(Usage { prompt_tokens: 3, ..Usage::default() });
    let answer = Embeddings { model: "m".into(), vectors: vec![vec![0.5]], usage };
    let mut parser = EmbedParser::new(read_embed);
    parser.push(&embed_body(&answer));
    assert_eq!(parser.finish(1), Ok(answer));
}

#[test]
fn the_older_endpoint_takes_one_text_and_gives_one_vector() {
    let body = json!({"model": "m", "prompt": "a", "options": {"seed": 1}});
    let request = parse_embeddings(body.to_string().as_bytes()).expect("understood");
    assert_eq!(request.inputs, [EmbedInput::Text("a".into())]);
    assert_eq!(request.extensions.len(), 1);
    for (body, param) in [
        (json!({"model": "m"}), "prompt"),
        (json!({"model": "m", "prompt": ""}), "prompt"),
        (json!({"model": "m", "prompt": "a", "input": "a"}), "input"),
    ] {
        let refusal = parse_embeddings(body.to_string().as_bytes()).expect_err("refused");
        assert_eq!(refusal.param.as_deref(), Some(param), "{refusal}");
    }
    let answer = Embeddings { vectors: vec![vec![0.5, -1.0]], ..Embeddings::default() };
    assert_eq!(embeddings_body(&answer), br#"{"embedding":[0.5,-1.0]}"#);
}
