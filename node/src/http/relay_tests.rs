//! Chats that a provider answers, over real sockets, in both dialects.

use serde_json::{Value, json};

use super::*;
use selvedge_dialect::chat::{Event, Finish, Head, Usage};

/// What a provider says: two pieces, an end, what it counted.
fn hello() -> Arc<Script> {
    Script::provider(|call| {
        let text = |text: &str| Event::Text { choice: 0, text: text.to_owned() };
        let usage = Some(Usage { prompt_tokens: 9, completion_tokens: 2, ..Usage::default() });
        let head = Head { id: "theirs".to_owned(), model: "theirs".to_owned(), ..Head::default() };
        assert_eq!(call.asked.model(), "cloud/large");
        vec![
            Event::Head(head),
            text("Hello"),
            text(" there"),
            Event::Ended { choice: 0, reason: Finish::Stop, stop: None },
            Event::Finished { usage, timing: None },
        ]
    })
}

fn refusing(code: Code, retry: Retry) -> Arc<Script> {
    Script::provider(move |_| {
        let refusal = Refusal::new(Stage::Execute, Blame::Provider, retry, code, "not now");
        vec![Event::Failed(refusal.into())]
    })
}

fn asked(stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    json!({"model": "cloud/large", "messages": messages, "max_tokens": 9, "stream": stream})
}

#[tokio::test]
async fn a_providers_answer_comes_under_the_name_asked_for() {
    let surface = surface(hello()).await;
    let answer = surface.post(CHAT, &asked(false)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["choices"][0]["message"]["content"], "Hello there");
    assert_eq!(
        (&body["model"], &body["usage"]["total_tokens"]),
        (&json!("cloud/large"), &json!(11))
    );
    let id = body["id"].as_str().expect("an id");
    assert!(id.starts_with("chatcmpl-") && !id.contains("theirs"), "{id}");
    let call = surface.script.chats.lock().pop().expect("a chat");
    assert!(!call.keyed && call.label.is_none(), "{call:?}");
}

#[tokio::test]
async fn a_stream_is_written_event_by_event_to_its_end() {
    let surface = surface(hello()).await;
    let answer = surface.post(CHAT, &asked(true)).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert!(answer.body.contains("Hello") && answer.body.contains(" there"), "{answer:?}");
    assert!(answer.body.trim_end().ends_with("[DONE]"), "{answer:?}");
    assert!(!answer.body.contains("usage"), "nobody asked for it: {answer:?}");
}

#[tokio::test]
async fn a_text_goes_where_chats_go_and_comes_back_as_a_text() {
    let surface = surface(hello()).await;
    let body = |stream: bool| json!({"model": "cloud/large", "prompt": "Oh, ", "stream": stream});
    let whole = surface.post("/v1/completions", &body(false)).await.json();
    assert_eq!(whole["choices"][0]["text"], "Hello there", "{whole}");
    assert_eq!(
        (&whole["object"], &whole["model"]),
        (&json!("text_completion"), &json!("cloud/large"))
    );
    assert!(whole["id"].as_str().is_some_and(|id| id.starts_with("cmpl-")), "{whole}");
    let call = surface.script.chats.lock().pop().expect("a chat");
    let asked = call.asked.request().expect("understood");
    assert_eq!((asked.raw, asked.max_tokens), (true, Some(16)));
    let stream = surface.post("/v1/completions", &body(true)).await;
    assert!(stream.body.contains(r#""text":" there""#), "{stream:?}");
    assert!(stream.body.trim_end().ends_with("[DONE]"), "{stream:?}");
}

#[tokio::test]
async fn anthropics_clients_are_answered_in_their_own_words() {
    let surface = surface(hello()).await;
    let whole = surface.post("/v1/messages", &asked(false)).await.json();
    assert_eq!(whole["content"][0]["text"], "Hello there");
    assert_eq!((&whole["type"], &whole["stop_reason"]), (&json!("message"), &json!("end_turn")));
    assert!(whole["id"].as_str().is_some_and(|id| id.starts_with("msg_")), "{whole}");
    let stream = surface.post("/v1/messages", &asked(true)).await;
    for event in ["message_start", "content_block_delta", "message_delta", "message_stop"] {
        assert!(stream.body.contains(&format!("event: {event}")), "{event}: {stream:?}");
    }
    let counted = json!({"model": "cloud/large", "messages": [{"role": "user", "content": "Hi"}]});
    let counted = surface.post("/v1/messages/count_tokens", &counted).await.json();
    assert_eq!(counted, json!({"input_tokens": 1}));
}

#[tokio::test]
async fn a_refusal_before_the_first_piece_has_a_status_and_the_surfaces_shape() {
    let wait = Retry::After(Micros::secs(7));
    let surface = surface(refusing(Code::Overloaded, wait)).await;
    for stream in [false, true] {
        let refused = surface.post(CHAT, &asked(stream)).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("7")));
        assert_eq!(refused.error()["message"], "not now");
        let refused = surface.post("/v1/messages", &asked(stream)).await;
        assert_eq!(refused.status, 503);
        assert_eq!(refused.json()["type"], "error", "{refused:?}");
        assert_eq!(refused.error()["type"], "api_error");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_says_so_and_does_not_look_complete() {
    let script = Script::provider(|_| {
        let lost = Refusal::new(
            Stage::Execute,
            Blame::Provider,
            Retry::Elsewhere,
            Code::PeerLost,
            "it was cut",
        );
        let text = Event::Text { choice: 0, text: "Hel".to_owned() };
        vec![Event::Head(Head::default()), text, Event::Failed(lost.into())]
    });
    let surface = surface(script).await;
    let answer = surface.post(CHAT, &asked(true)).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("it was cut") && !answer.body.contains("[DONE]"), "{answer:?}");
    assert_eq!(surface.post(CHAT, &asked(false)).await.status, 502);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_message_is_said_in_anthropics_shape() {
    let surface = surface(hello()).await;
    let without = json!({"model": "cloud/large", "messages": []});
    for body in [without, json!({"messages": "?"}), json!([])] {
        let refused = surface.post("/v1/messages", &body).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert_eq!(refused.error()["type"], "invalid_request_error");
    }
    assert!(surface.script.chats.lock().is_empty());
}

#[tokio::test]
async fn models_of_providers_are_listed_and_found() {
    let surface = surface(hello()).await;
    let list = surface.ask("GET", "/v1/models", "", "").await.json();
    let ids: Vec<&str> =
        list["data"].as_array().expect("a list").iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(ids, ["small", "cloud/large"]);
    let one = surface.ask("GET", "/v1/models/cloud%2Flarge", "", "").await.json();
    assert_eq!(one["owned_by"], "cloud");
}
