use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use serde_json::{Value, json};

use super::*;
use crate::anthropic;
use crate::chat::Finish;
use crate::exchange::AnswerParser;
use crate::openai::{Parser, WholeParser};

fn asked(more: Value) -> Result<ChatRequest, Refusal> {
    let mut body = json!({"model": "m", "prompt": "Once"});
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    parse_text(body.to_string().as_bytes())
}

fn sent(request: &ChatRequest, target: Target<'_>) -> (String, Value) {
    let outgoing = render(request, target).expect("it can be said");
    (outgoing.path, serde_json::from_slice(&outgoing.body).expect("JSON"))
}

#[test]
fn what_is_asked_is_sent_to_whoever_speaks_alike() {
    let own = json!({
        "prompt": ["Once upon"], "max_tokens": 7, "temperature": 0.5, "top_k": 3, "seed": 4,
        "stop": "end", "logprobs": 2, "n": 2, "stream": true, "user": "u",
        "suffix": "the end", "stream_options": {"include_usage": true}, "logit_bias": {"5": -1},
    });
    let request = asked(own.clone()).expect("good");
    let (path, mut body) = sent(&request, Target::Compatible);
    assert_eq!((path.as_str(), body["prompt"].take()), ("/v1/completions", json!("Once upon")));
    let mut wanted = own;
    wanted["prompt"] = Value::Null;
    wanted["model"] = json!("m");
    wanted["stop"] = json!(["end"]);
    assert_eq!(body, wanted);
    let azure = Target::Azure { deployment: "d", api_version: "v" };
    let (_, again) = sent(&asked(json!({"echo": true})).expect("good"), Target::OpenAi);
    assert_eq!(again["echo"], json!(true));
    let plain = asked(json!({"echo": false, "suffix": "", "best_of": 1})).expect("good");
    let (path, body) = sent(&plain, azure);
    assert_eq!(path, "/openai/deployments/d/completions?api-version=v");
    assert_eq!(body, json!({"model": "m", "prompt": "Once", "max_tokens": 16}));
}

#[test]
fn what_cannot_be_said_is_refused_by_name() {
    let table = [
        (json!({"prompt": null}), "prompt", "is required"),
        (json!({"prompt": ""}), "prompt", "must not be empty"),
        (json!({"prompt": ["a", "b"]}), "prompt", "one text"),
        (json!({"prompt": [1, 2]}), "prompt", "one text"),
        (json!({"best_of": 3}), "best_of", "equal to 'n'"),
        (json!({"logprobs": 21}), "logprobs", "0 to 20"),
        (json!({"logprobs": 1, "echo": true}), "echo", "leave one of them out"),
        (json!({"messages": []}), "messages", "is not a parameter"),
        (json!({"n": 0}), "n", "1 to 128"),
        (json!({"temperature": 3}), "temperature", "0.0 to 2.0"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options", "needs 'stream'"),
    ];
    for (more, field, why) in table {
        let refusal = asked(more.clone()).expect_err("must be refused");
        assert_eq!(refusal.param.as_deref(), Some(field), "{more}: {}", refusal.message);
        assert!(refusal.message.contains(why), "{more}: {}", refusal.message);
    }
    let strict = render(&asked(json!({"top_k": 3})).expect("good"), Target::OpenAi);
    assert_eq!(strict.expect_err("OpenAI knows none").param.as_deref(), Some("top_k"));
    let chats_only = anthropic::Target { max_tokens: 1 };
    let refusal = anthropic::render(&asked(json!({})).expect("good"), chats_only);
    let refusal = refusal.expect_err("a chat about a text is not its continuation");
    assert_eq!((refusal.param.as_deref(), refusal.retry), (Some("prompt"), Retry::Elsewhere));
}

/// What a provider says, as it is read here, and as it is written for a client.
fn told(parser: &mut dyn AnswerParser, said: &[u8]) -> (Vec<Event>, Vec<u8>, Value) {
    let mut events = Vec::new();
    parser.push(said, &mut events);
    parser.finish(&mut events);
    let mut writer = TextWriter::new(Reply { created: 9, include_usage: true });
    let (mut out, mut gathered) = (Vec::new(), Gathered::default());
    for event in &events {
        writer.write(event, &mut out);
        gathered.take(event.clone()).expect("no failure");
    }
    let whole = whole_text(&gathered, Reply::default());
    (events, out, serde_json::from_slice(&whole).expect("JSON"))
}

#[test]
fn an_answer_is_read_and_written_alike_whole_or_in_pieces() {
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
    let logprobs = json!({
        "tokens": [" upon", " é"], "token_logprobs": [-0.5, -1.5], "text_offset": [0, 5],
        "top_logprobs": [{" upon": -0.5, " on": -2.5}, {" é": -1.5}],
    });
    let choice = json!({
        "index": 0, "text": " upon é", "logprobs": logprobs, "finish_reason": "length",
    });
    let said = json!({"id": "x", "object": "text_completion", "created": 1, "model": "m",
        "choices": [choice], "usage": usage});
    let (events, _, whole) = told(&mut WholeParser::default(), said.to_string().as_bytes());
    assert_eq!(whole["choices"], said["choices"]);
    assert_eq!((&whole["id"], &whole["object"]), (&said["id"], &said["object"]));
    assert_eq!(whole["usage"]["total_tokens"], json!(5));

    let piece = |text: &str, logprobs: Value, reason: Value| {
        let choice = json!({"index": 0, "text": text, "logprobs": logprobs,
            "finish_reason": reason});
        let chunk = json!({"id": "x", "object": "text_completion", "created": 1, "model": "m",
            "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let last = json!({"id": "x", "object": "text_completion", "created": 1, "model": "m",
        "choices": [], "usage": usage});
    let stream = [
        piece(" upon é", logprobs, Value::Null),
        piece("", Value::Null, json!("length")),
        format!("data: {last}\n\ndata: [DONE]\n\n"),
    ]
    .concat();
    let (pieces, written, again) = told(&mut Parser::default(), stream.as_bytes());
    assert_eq!(again, whole);
    assert_eq!(pieces, events);
    // What was written is read as the same.
    let (read, ..) = told(&mut Parser::default(), &written);
    assert_eq!(read, events);
}

#[test]
fn what_is_said_first_has_no_probability_and_a_failure_ends_a_stream_without_its_sign() {
    let logprobs = json!({"tokens": ["Once", " a"], "token_logprobs": [null, -1.0],
        "top_logprobs": null, "text_offset": [0, 4]});
    let choice = json!({"text": "Once a", "logprobs": logprobs, "finish_reason": "stop"});
    let said = json!({"id": "x", "choices": [choice]}).to_string();
    let (events, ..) = told(&mut WholeParser::default(), said.as_bytes());
    let tokens = events.iter().find_map(|event| match event {
        Event::LogProbs { tokens, .. } => Some(tokens.len()),
        _ => None,
    });
    assert_eq!(tokens, Some(1));
    assert!(matches!(&events[..], [.., Event::Ended { reason: Finish::Stop, .. }, _]));

    let mut writer = TextWriter::new(Reply::default());
    let mut out = Vec::new();
    let refusal =
        Refusal::new(Stage::Execute, Blame::Provider, Retry::Elsewhere, Code::PeerLost, "gone");
    writer.write(&Event::Failed(refusal.into()), &mut out);
    writer.write(&Event::Finished { usage: None, timing: None }, &mut out);
    writer.keep_alive(&mut out);
    let out = String::from_utf8(out).expect("text");
    assert!(out.contains("gone") && !out.contains("[DONE]") && !out.contains("still"), "{out}");
}
