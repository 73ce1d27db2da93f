//! What a stream says, byte by byte, and when.

use std::sync::Arc;

use futures::future::poll_fn;
use selvedge_base::{Blame, ModelDigest, Refusal, RequestId, Retry, Stage};
use selvedge_contract::Input;
use serde_json::{Value, json};

use super::super::backend::Holder;
use super::super::chat;
use super::super::completions;
use super::super::guard::Caller;
use super::super::metrics::Metrics;
use super::super::params::Plan;
use super::super::script::{HERE, Script, Step, THERE, finished, scored, started, token};
use super::*;
use futures::StreamExt;
use selvedge_base::Micros;

/// A stream over a script, as the router makes it.
async fn events(script: &Arc<Script>, plan: Plan, stop: &Stop) -> Events {
    let caller = Caller { holder: Holder::local(), label: None, deadline: Micros::secs(1) };
    let backend: Arc<dyn Backend> = Arc::<Script>::clone(script);
    let metrics = Arc::new(Metrics::new(Arc::clone(&backend)));
    let mut heading = Heading::new(&plan, RequestId(0xa00), Some(ModelDigest([0xab; 32])));
    heading.created = 1_700_000_000;
    let include_usage = plan.include_usage;
    let calls = plan.calls(RequestId(0xa00), 1, &caller);
    let mut answers = Answers::ask(backend.as_ref(), calls);
    let first = answers.next().await.expect("a first piece");
    let progress = Progress::new(&metrics);
    let keep_alive = Duration::from_secs(15);
    let setting = Setting { backend, keep_alive, include_usage, stop: stop.clone(), keeper: None };
    Events::new(&heading, first, answers, progress, setting)
}

fn chat_plan(extra: &Value) -> Plan {
    let mut body = json!({"model": "small", "stream": true,
        "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    chat::plan(body.to_string().as_bytes()).expect("a good body")
}

async fn next(events: &mut Events) -> Option<String> {
    let bytes = poll_fn(|cx| events.poll_bytes(cx)).await?;
    Some(String::from_utf8(bytes.to_vec()).expect("UTF-8"))
}

async fn all(mut events: Events) -> String {
    let mut text = String::new();
    while let Some(more) = next(&mut events).await {
        text.push_str(&more);
    }
    text
}

/// The JSON of every event but `[DONE]`.
fn data(text: &str) -> Vec<Value> {
    let lines = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let lines = lines.filter(|line| *line != "[DONE]");
    lines.map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[tokio::test]
async fn a_chat_is_written_as_the_official_clients_read_it() {
    let script = Script::new(|_| vec![started(), token(0, "He\"y"), finished("!", 1)]);
    let text = all(events(&script, chat_plan(&json!({})), &Stop::new()).await).await;
    let head = "data: {\"id\":\"chatcmpl-00000000000000000000000000000a00\",\
        \"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"small\",\
        \"system_fingerprint\":\"fp_abababab\",\"choices\":[{\"index\":0,\"delta\":";
    let open = ",\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    let wanted = format!(
        "{head}{{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}}{open}\
         {head}{{\"content\":\"He\\\"y\"}}{open}\
         {head}{{\"content\":\"!\"}}{open}\
         {head}{{}},\"logprobs\":null,\"finish_reason\":\"stop\"}}]}}\n\ndata: [DONE]\n\n"
    );
    assert_eq!(text, wanted);
}

#[tokio::test]
async fn every_event_says_the_class_of_service_that_was_named() {
    let plan = chat_plan(&json!({"service_tier": "flex"}));
    let text = all(events(&Script::hello(), plan, &Stop::new()).await).await;
    let data = data(&text);
    assert!(data.len() > 1 && data.iter().all(|event| event["service_tier"] == "flex"), "{text}");
}

#[tokio::test]
async fn usage_comes_last_and_only_if_asked_for() {
    let plan = chat_plan(&json!({"stream_options": {"include_usage": true}}));
    let text = all(events(&Script::hello(), plan, &Stop::new()).await).await;
    let data = data(&text);
    let (last, before) = data.split_last().expect("events");
    assert!(
        before.iter().all(|event| event["usage"] == Value::Null && event.get("usage").is_some())
    );
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["prompt_tokens"], 7);
    assert_eq!(last["usage"]["completion_tokens"], 3);
    assert_eq!(last["usage"]["total_tokens"], 10);
    assert_eq!(last["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
    assert!(text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn several_answers_come_interleaved_with_their_indexes() {
    let plan = chat_plan(&json!({"n": 2, "stream_options": {"include_usage": true}}));
    let text = all(events(&Script::hello(), plan, &Stop::new()).await).await;
    let mut said = [String::new(), String::new()];
    let mut turns = Vec::new();
    let data = data(&text);
    for event in &data {
        let Some(choice) = event["choices"].get(0) else { continue };
        let index = choice["index"].as_u64().expect("an index") as usize;
        turns.push(index);
        said[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
    }
    assert_eq!(said, ["Hello, world", "Hello, world"]);
    assert!(turns.windows(2).any(|two| two == [1, 0]), "interleaved: {turns:?}");
    let usage = &data.last().expect("usage")["usage"];
    assert_eq!(
        (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()),
        (Some(7), Some(6))
    );
}

#[tokio::test]
async fn log_probabilities_come_with_their_tokens_even_without_text() {
    let script = Script::new(|_| vec![started(), scored(0, "ab"), scored(1, ""), finished("", 2)]);
    let plan = chat_plan(&json!({"logprobs": true, "top_logprobs": 2}));
    let text = all(events(&script, plan, &Stop::new()).await).await;
    let tokens: Vec<Value> = data(&text)
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].get(0).cloned())
        .collect();
    assert_eq!(tokens.len(), 2);
    assert_eq!(tokens[0]["token"], "ab");
    assert_eq!(tokens[0]["top_logprobs"][1]["token"], "x");
}

#[tokio::test]
async fn a_text_completion_has_text_and_offsets() {
    let script = Script::new(|_| vec![started(), scored(0, "äb"), scored(1, "c"), finished("", 2)]);
    let body = br#"{"model":"small","prompt":"a","stream":true,"logprobs":1}"#;
    let plan = completions::plan(body).expect("good");
    assert_eq!(plan.inputs, [Input::Text("a".to_owned())]);
    let text = all(events(&script, plan, &Stop::new()).await).await;
    let data = data(&text);
    assert_eq!(data.len(), 3, "no event for the beginning: {text}");
    assert!(data.iter().all(|event| event["object"] == "text_completion"));
    assert_eq!(data[0]["id"], "cmpl-00000000000000000000000000000a00");
    assert_eq!(data[0]["choices"][0]["text"], "äb");
    assert_eq!(data[1]["choices"][0]["logprobs"]["text_offset"], json!([2]));
    assert_eq!(data[1]["choices"][0]["logprobs"]["top_logprobs"], json!([{"c": -0.25, "x": -2.0}]));
    assert_eq!(data[2]["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn what_is_ready_leaves_together_and_a_lone_piece_does_not_wait() {
    let steps = vec![started(), token(0, "a"), Step::Gate, token(1, "b"), finished("", 2)];
    let script = Script::new(move |_| steps.clone());
    let mut events = events(&script, chat_plan(&json!({})), &Stop::new()).await;
    let first = next(&mut events).await.expect("the first write");
    assert_eq!(data(&first).len(), 2, "role and text: {first}");
    script.gate.add_permits(1);
    let second = next(&mut events).await.expect("the second write");
    assert!(second.contains("\"b\"") && second.ends_with("[DONE]\n\n"), "{second}");
    assert!(events.is_over());
    assert_eq!(next(&mut events).await, None);
}

#[tokio::test]
async fn an_error_ends_the_stream_without_done() {
    let why = "no node has the model any more";
    let refusal = Refusal::new(Stage::Resume, Blame::Peer, Retry::Elsewhere, Code::PeerLost, why);
    let failing = Step::Give(Piece::Failed(refusal));
    let script = Script::new(move |_| vec![started(), token(0, "a"), failing.clone()]);
    let text = all(events(&script, chat_plan(&json!({})), &Stop::new()).await).await;
    let data = data(&text);
    let error = &data.last().expect("an error")["error"];
    assert_eq!((&error["code"], &error["message"]), (&json!("peer_lost"), &json!(why)));
    assert!(!text.contains("[DONE]"));
}

#[tokio::test]
async fn one_failed_answer_frees_the_others() {
    let refusal = Refusal::client(Stage::Execute, Code::OutOfMemory, "no");
    let script = Script::new(move |call| match call.id.0 & 0xff {
        0 => vec![started(), Step::Forever],
        _ => vec![started(), Step::Give(Piece::Failed(refusal.clone()))],
    });
    let events = events(&script, chat_plan(&json!({"n": 2})), &Stop::new()).await;
    let text = all(events).await;
    assert!(text.contains("out_of_memory"), "{text}");
    assert_eq!(script.cancelled.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_move_is_a_comment_on_one_line() {
    let moved =
        Step::Give(Piece::Moved { from: THERE, to: HERE, why: "it froze\n\ndata: x".into() });
    let script = Script::new(move |_| vec![started(), moved.clone(), finished("", 0)]);
    let text = all(events(&script, chat_plan(&json!({})), &Stop::new()).await).await;
    assert!(text.contains("\n\n: moved from there to here: it frozedata: x\n\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_with_comments() {
    let steps = vec![started(), Step::Gate, finished("", 0)];
    let script = Script::new(move |_| steps.clone());
    let mut events = events(&script, chat_plan(&json!({})), &Stop::new()).await;
    next(&mut events).await.expect("the beginning");
    let began = Instant::now();
    for _ in 0..2 {
        assert_eq!(next(&mut events).await.as_deref(), Some(": still here\n\n"));
    }
    assert_eq!(began.elapsed().as_secs(), 30);
    script.gate.add_permits(1);
    assert!(next(&mut events).await.expect("the end").ends_with("[DONE]\n\n"));
}

#[tokio::test]
async fn a_stopping_node_says_so_in_the_stream() {
    let script = Script::new(|_| vec![started(), Step::Forever]);
    let stop = Stop::new();
    let mut events = events(&script, chat_plan(&json!({})), &stop).await;
    next(&mut events).await.expect("the beginning");
    stop.advance(Phase::Ending);
    let last = next(&mut events).await.expect("an error");
    assert!(last.contains("the node stopped"), "{last}");
    assert_eq!(next(&mut events).await, None);
}
