//! Requests: what a client dialect is told is what a server of that dialect understands.

use proptest::prelude::*;
use selvedge_base::{Code, Refusal};
use selvedge_dialect::chat::{ChatRequest, Content, Format, Message, Part, Role, ToolChoice};
use selvedge_dialect::exchange::Outgoing;
use selvedge_dialect::json::Json;
use selvedge_dialect::{anthropic, bedrock, cohere, gemini, ollama, openai, responses};
use serde_json::Value;

use crate::{corpus, strategies};

type Parse = fn(&[u8]) -> Result<ChatRequest, Refusal>;
type Render = fn(&ChatRequest) -> Result<Outgoing, Refusal>;

/// Dialects in both roles: corpus folder, server side, client side.
const BOTH: &[(&str, Parse, Render)] = &[
    ("openai.request", openai::parse, |request| openai::render(request, openai::Target::OpenAi)),
    ("openai.request", openai::parse, |request| {
        openai::render(request, openai::Target::Compatible)
    }),
    ("anthropic.request", anthropic::parse, |request| {
        anthropic::render(request, anthropic::Target { max_tokens: MAX_TOKENS })
    }),
    ("ollama.request", ollama::parse, ollama::render),
    ("responses.request", responses::parse, responses::render),
];

/// Dialects in the client role only.
const CLIENTS: &[(&str, Render)] =
    &[("gemini", gemini::render), ("cohere", cohere::render), ("bedrock", bedrock::render)];

/// What is asked for where a client says nothing and the dialect needs a number.
const MAX_TOKENS: u32 = 4_096;

/// What is left when hints, which change no answer, and what two dialects write alike are gone.
fn meaning(request: &ChatRequest) -> ChatRequest {
    let mut request = request.clone();
    request.include_usage = false;
    request.user = None;
    // One answer is one answer, said or not; calling as the model likes is every default.
    request.n = request.n.filter(|n| *n > 1);
    request.tool_choice = request.tool_choice.filter(|choice| *choice != ToolChoice::Auto);
    request.max_tokens.get_or_insert(MAX_TOKENS);
    request.format = request.format.filter(|format| *format != Format::Text);
    if request.tool_choice == Some(ToolChoice::None) {
        request.parallel_tool_calls = None;
    }
    request.messages = request.messages.into_iter().flat_map(split).collect();
    for tool in &mut request.tools {
        if let selvedge_dialect::chat::Tool::Function(function) = tool {
            function.cache = None;
            let empty = || Json::parse("{\"type\":\"object\"}").expect("JSON");
            function.schema.get_or_insert_with(empty);
            function.strict = function.strict.filter(|strict| *strict);
        }
    }
    for message in &mut request.messages {
        if message.role == Role::Developer {
            message.role = Role::System;
        }
        for part in &mut message.parts {
            part.cache = None;
            if let Content::Image { detail, .. } = &mut part.content {
                *detail = detail.take().filter(|detail| detail != "auto");
            }
        }
    }
    // A schema's name names nothing in the answer, and a dialect may always be strict.
    if let Some(Format::JsonSchema { name, strict, .. }) = &mut request.format {
        (*name, *strict) = (None, None);
    }
    request
}

/// Results of calls in messages of their own, and parts of the model in one order.
fn split(message: Message) -> Vec<Message> {
    let is_result = |part: &Part| matches!(part.content, Content::ToolResult { .. });
    let (results, mut rest): (Vec<_>, Vec<_>) = message.parts.into_iter().partition(is_result);
    let mut all: Vec<Message> = results
        .into_iter()
        .map(|part| Message { role: Role::Tool, parts: vec![part], ..Message::default() })
        .collect();
    if message.role == Role::Assistant {
        rest.sort_by_key(|part| match part.content {
            Content::Thinking { .. } | Content::Redacted(_) => 0,
            Content::Refusal(_) => 2,
            Content::ToolUse { .. } | Content::Native { .. } => 3,
            _ => 1,
        });
    }
    if !rest.is_empty() {
        let (role, name, extensions) = (message.role, message.name, message.extensions);
        all.push(Message { role, name, parts: rest, extensions });
    }
    all
}

/// Texts of one message are paragraphs of it; a name of the tool is no part of a result, and a
/// function that is not strict is one that says nothing about it.
fn joined(mut request: ChatRequest) -> ChatRequest {
    for tool in &mut request.tools {
        if let selvedge_dialect::chat::Tool::Function(function) = tool {
            function.strict = None;
        }
    }
    for message in &mut request.messages {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = Vec::new();
        for part in std::mem::take(&mut message.parts) {
            match (&part.content, parts.last_mut().map(|last| &mut last.content)) {
                (Content::Text(text), Some(Content::Text(all))) => {
                    all.push('\n');
                    all.push_str(text);
                }
                (Content::Text(_), _) => parts.push(part),
                _ => rest.push(part),
            }
        }
        parts.append(&mut rest);
        message.parts = parts;
        message.parts.sort_by_key(|part| matches!(part.content, Content::ToolUse { .. }));
    }
    request
}

fn check_refusal(refusal: &Refusal) {
    assert_eq!(refusal.code, Code::Unsupported, "{refusal}");
    let param = refusal.param.as_deref().unwrap_or_else(|| panic!("no field: {refusal}"));
    assert!(!param.is_empty() && refusal.message.contains(param), "{refusal}");
}

fn check(request: &ChatRequest) {
    for (name, parse, render) in BOTH {
        match render(request) {
            Err(refusal) => check_refusal(&refusal),
            Ok(outgoing) => {
                let body = String::from_utf8_lossy(&outgoing.body);
                let back =
                    parse(&outgoing.body).unwrap_or_else(|no| panic!("{name}: {no}\n{body}"));
                let (mut is, mut asked) = (meaning(&back), meaning(request));
                if *name == "ollama.request" {
                    (is, asked) = (joined(is), joined(asked));
                }
                assert_eq!(is, asked, "{name}\n{body}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_target_is_asked_what_the_client_asked(request in strategies::request()) {
        check(&request);
        for (name, render) in CLIENTS {
            match render(&request) {
                Err(refusal) => check_refusal(&refusal),
                Ok(sent) => {
                    let body = serde_json::from_slice::<Value>(&sent.body);
                    prop_assert!(body.is_ok(), "{name}");
                }
            }
        }
    }

    #[test]
    fn plain_requests_are_refused_by_nobody(request in strategies::plain_request()) {
        check(&request);
        for (name, render) in CLIENTS {
            let sent = render(&request).expect(name);
            prop_assert!(serde_json::from_slice::<Value>(&sent.body).is_ok(), "{name}");
        }
        for (name, _, render) in BOTH {
            prop_assert!(render(&request).is_ok(), "{name}: {:?}", render(&request));
        }
    }

    #[test]
    fn hostile_bodies_are_refused_or_understood(
        noise in prop::collection::vec(any::<u8>(), 0..40),
        at in 0_usize..8_000,
        drop in 0_usize..40,
    ) {
        for (folder, parse, _) in BOTH {
            let _ = parse(&noise);
            for (name, mut bytes) in corpus::files(folder) {
                let from = at % (bytes.len() + 1);
                let to = (from + drop).min(bytes.len());
                bytes.splice(from..to, noise.iter().copied());
                if let Err(refusal) = parse(&bytes) {
                    prop_assert!(refusal.message.len() < 2_000, "{folder}/{name}");
                }
            }
        }
    }
}

/// `null` and what means the same when it is left out.
fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .filter(|(_, value)| !value.is_null() && *value != Value::Array(vec![]))
                .map(|(name, value)| (name, without_nothing(value)))
                .collect(),
        ),
        Value::Array(array) => Value::Array(array.into_iter().map(without_nothing).collect()),
        other => other,
    }
}

#[test]
fn a_body_comes_back_as_it_was() {
    for (folder, parse, render) in BOTH {
        for (name, bytes) in corpus::files(folder) {
            let request = parse(&bytes).unwrap_or_else(|no| panic!("{folder}/{name}: {no}"));
            let Ok(outgoing) = render(&request) else { continue };
            let again = parse(&outgoing.body).expect("what we write we read");
            assert_eq!(meaning(&again), meaning(&request), "{folder}/{name}");
            if name.starts_with("everything") && outgoing.path.contains("chat/completions") {
                let read = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).expect("JSON") };
                let (was, is) = (read(&bytes), read(&outgoing.body));
                let is = match was.get("max_completion_tokens") == is.get("max_completion_tokens") {
                    true => is,
                    false => continue,
                };
                assert_eq!(without_nothing(is), without_nothing(was), "{folder}/{name}");
            }
        }
    }
}

#[test]
fn an_array_is_no_object_inside_of_a_body_either() {
    let openai = [
        r#"{"model":"m","messages":[["user","hi"]]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":[["text","hi"]]}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream_options":[true]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"response_format":["text"]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[["function"]]}"#,
    ];
    let anthropic = [
        r#"{"model":"m","max_tokens":9,"messages":[["user","hi"]]}"#,
        r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[["text","hi"]]}]}"#,
        r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":""}],"tools":[[1]]}"#,
    ];
    let ollama = [
        r#"{"model":"m","messages":[["user","hi"]]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"options":[1]}"#,
    ];
    let responses = [
        r#"{"model":"m","store":false,"input":[["user","hi"]]}"#,
        r#"{"model":"m","store":false,"input":"hi","reasoning":["low"]}"#,
    ];
    let parses: [(Parse, &[&str]); 4] = [
        (openai::parse, &openai),
        (anthropic::parse, &anthropic),
        (ollama::parse, &ollama),
        (responses::parse, &responses),
    ];
    for (parse, bodies) in parses {
        for body in bodies {
            let refusal = parse(body.as_bytes()).expect_err(body);
            assert_eq!(refusal.code, Code::InvalidRequest, "{body}: {refusal}");
            assert!(refusal.param.is_some(), "{body}: {refusal}");
        }
    }
}
