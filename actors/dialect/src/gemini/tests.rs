use selvedge_base::{Blame, Code, Micros, Retry};
use serde_json::{Value, json};

use super::*;
use crate::chat::{ChatRequest, Content, Event, Finish, Message, Part, Role, Usage};
use crate::embed::{EmbedInput, EmbedParser, EmbedRequest};
use crate::exchange::AnswerParser;
use crate::openai;

fn asked(more: Value) -> ChatRequest {
    let mut body =
        json!({"model": "gemini-2.5-pro", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    openai::parse(body.to_string().as_bytes()).expect("understood")
}

fn events(bytes: &[u8]) -> Vec<Event> {
    let (mut parser, mut events) = (Parser::new("r1"), Vec::new());
    parser.push(bytes, &mut events);
    parser.finish(&mut events);
    events
}

#[test]
fn an_openai_request_is_asked_in_geminis_words() {
    let request =
        asked(json!({"stream": true, "max_tokens": 5, "stop": "END", "top_p": 0.5, "n": 2,
        "tools": [{"type": "function",
            "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}}, "reasoning_effort": "low",
        "response_format": {"type": "json_schema",
            "json_schema": {"name": "a", "schema": {"b": 1}}},
        "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": [
                {"type": "text", "text": "hi"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "a~thought~sig",
                "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}}]},
            {"role": "tool", "tool_call_id": "a~thought~sig", "content": "1"}]}));
    let sent = render(&request).expect("said");
    assert_eq!(sent.path, "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse");
    let sent: Value = serde_json::from_slice(&sent.body).expect("JSON");
    let wanted = json!({"systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "hi"},
                {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]},
            {"role": "model", "parts": [{"functionCall": {"id": "a", "name": "f", "args": {"x": 1}},
                "thoughtSignature": "sig"}]},
            {"role": "user", "parts": [{"functionResponse": {"id": "a", "name": "f",
                "response": {"output": "1"}}}]}],
        "tools": [{"functionDeclarations": [{"name": "f",
            "parametersJsonSchema": {"type": "object"}}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {"maxOutputTokens": 5, "topP": 0.5, "stopSequences": ["END"],
            "candidateCount": 2, "responseMimeType": "application/json",
            "responseJsonSchema": {"b": 1}, "thinkingConfig": {"thinkingLevel": "low"}}});
    assert_eq!(sent, wanted);
}

#[test]
fn what_gemini_cannot_be_told_is_refused_by_name() {
    let url = json!({"messages": [{"role": "user", "content": [{"type": "image_url",
        "image_url": {"url": "https://a/b"}}]}]});
    let lost = json!({"messages": [{"role": "tool", "tool_call_id": "x", "content": "1"}]});
    for (more, param) in [
        (json!({"logit_bias": {"1": 1}}), "logit_bias"),
        (json!({"min_p": 0.5}), "min_p"),
        (json!({"reasoning_effort": "xhigh"}), "reasoning_effort"),
        (json!({"store": true}), "store"),
        (url, "messages[0].content[0].source"),
        (lost, "messages[0].content[0].tool_call_id"),
    ] {
        let refusal = render(&asked(more)).expect_err("must be refused");
        assert_eq!((refusal.param.as_deref(), refusal.code), (Some(param), Code::Unsupported));
    }
    let part = Part::from(Content::Thinking { text: "a".into(), signature: Some("b".into()) });
    let message = Message { role: Role::Assistant, parts: vec![part], ..Message::default() };
    let request = ChatRequest { messages: vec![message], ..ChatRequest::default() };
    assert!(render(&request).is_err());
}

#[test]
fn a_stream_becomes_events_and_signatures_travel_with_calls() {
    let events = events(include_bytes!("../../tests/corpus/gemini.sse/tools.sse"));
    let ids: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::ToolBegin { id, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(ids, ["call_r1_0_0~thought~CqQBsig==", "call_r1_0_1"]);
    assert_eq!(unsign(ids[0]), ("call_r1_0_0", Some("CqQBsig==")));
    let [.., Event::Ended { reason, .. }, Event::Finished { usage, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(*reason, Finish::ToolCalls);
    let counted = Usage {
        prompt_tokens: 15,
        cached_tokens: 5,
        completion_tokens: 78,
        reasoning_tokens: 58,
        ..Usage::default()
    };
    assert_eq!(*usage, Some(counted));
}

#[test]
fn a_blocked_prompt_is_an_answer_that_was_filtered() {
    let (mut parser, mut events) = (WholeParser::new("r1"), Vec::new());
    parser.push(include_bytes!("../../tests/corpus/gemini.json/blocked.json"), &mut events);
    parser.finish(&mut events);
    assert!(matches!(&events[1], Event::Ended { reason: Finish::Filtered, .. }), "{events:?}");
    assert!(matches!(&events[2], Event::Finished { usage: Some(_), .. }));
}

#[test]
fn errors_are_classified() {
    let body = json!({"error": {"code": 429, "message": "Quota exceeded", "status":
        "RESOURCE_EXHAUSTED", "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": "34.07s"}]}});
    let refusal = failure(429, None, body.to_string().as_bytes()).refusal;
    assert_eq!(refusal.retry, Retry::After(Micros::secs(35)));
    let body = json!({"error": {"code": 400, "message": "API key not valid.", "status":
        "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}});
    let refusal = failure(400, None, body.to_string().as_bytes()).refusal;
    assert_eq!((refusal.blame, refusal.retry), (Blame::Provider, Retry::Elsewhere));
    let events = events(include_bytes!("../../tests/corpus/gemini.sse/error.sse"));
    let Some(Event::Failed(failure)) = events.last() else { panic!("{events:?}") };
    assert_eq!(failure.refusal.code, Code::Overloaded);
}

#[test]
fn embeddings_are_asked_for_in_one_request() {
    let request = EmbedRequest {
        model: "gemini-embedding-001".into(),
        inputs: vec![EmbedInput::Text("a".into()), EmbedInput::Text("b".into())],
        dimensions: Some(4),
        ..EmbedRequest::default()
    };
    let sent = render_embed(&request).expect("said");
    assert_eq!(sent.path, "/v1beta/models/gemini-embedding-001:batchEmbedContents");
    let sent: Value = serde_json::from_slice(&sent.body).expect("JSON");
    assert_eq!(
        sent["requests"][1],
        json!({"model": "models/gemini-embedding-001",
        "content": {"parts": [{"text": "b"}]}, "outputDimensionality": 4})
    );
    let mut parser = EmbedParser::new(read_embed);
    parser.push(br#"{"embeddings":[{"values":[0.5,-1]},{"values":[1,2]}]}"#);
    let vectors = parser.finish(2).expect("two").vectors;
    assert_eq!(vectors, [[0.5, -1.0], [1.0, 2.0]]);
}
