//! What clients send: bodies of every surface.
//!
//! Holds: a body is refused in few words or understood; what is understood is said to every
//! provider or refused; said in its own dialect, it is understood again and said alike.

use selvedge_base::Refusal;
use selvedge_contract::tensors::MAX_TENSOR_BYTES;
use selvedge_dialect::chat::{ChatRequest, for_engine};
use selvedge_dialect::exchange::Outgoing;
use selvedge_dialect::{anthropic, bedrock, cohere, embed, gemini, inference, ollama, openai};
use selvedge_dialect::{responses, tap};

use super::{Target, check_refusal, none};

/// Words of all these dialects.
const WORDS: &[&str] = &[
    "\"model\"",
    "\"messages\"",
    "\"role\"",
    "\"content\"",
    "\"system\"",
    "\"developer\"",
    "\"user\"",
    "\"assistant\"",
    "\"tool\"",
    "\"type\"",
    "\"text\"",
    "\"image_url\"",
    "\"image\"",
    "\"data:image/png;base64,AA==\"",
    "\"tool_calls\"",
    "\"tool_call_id\"",
    "\"function\"",
    "\"arguments\"",
    "\"{}\"",
    "\"stream\":true",
    "\"stream_options\":{\"include_usage\":true}",
    "\"max_tokens\":1",
    "\"n\":2",
    "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a\",\"schema\":{}}}",
    "\"tool_choice\":\"none\"",
    "\"structured_outputs\":{\"regex\":\"a\"}",
    "\"structured_outputs\":{\"choice\":[\"a\"]}",
    "\"grammar\":\"root ::= \\\"a\\\"\"",
    "\"guided_json\":{}",
    "{\"type\":\"text\",\"text\":\"a\"}",
    "{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":[]}",
    "{\"type\":\"thinking\",\"thinking\":\"a\",\"signature\":\"b\"}",
    "{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"b\"}",
    "\"cache_control\":{\"type\":\"ephemeral\"}",
    "\"input\"",
    "\"dimensions\":3",
    "\"encoding_format\":\"base64\"",
    "\"options\"",
    "\"format\"",
];

type Parse = fn(&[u8]) -> Result<ChatRequest, Refusal>;
type Render = fn(&ChatRequest) -> Result<Outgoing, Refusal>;

/// Every provider, by what is said to it.
const PROVIDERS: &[(&str, Render)] = &[
    ("openai", |request| openai::render(request, openai::Target::OpenAi)),
    ("compatible", |request| openai::render(request, openai::Target::Compatible)),
    ("anthropic", |request| anthropic::render(request, anthropic::Target { max_tokens: 4_096 })),
    ("count", anthropic::render_count),
    ("ollama", ollama::render),
    ("responses", responses::render),
    ("gemini", gemini::render),
    ("cohere", cohere::render),
    ("bedrock", bedrock::render),
];

macro_rules! target {
    ($name:literal, $check:expr, $shares:expr) => {
        Target {
            name: $name,
            holds: "refused in few words, or said to every provider and understood again",
            check: $check,
            shares: $shares,
            seeds: none,
            words: WORDS,
        }
    };
}

pub(super) const TARGETS: &[Target] = &[
    target!("request.openai", check_openai, &["openai.request"]),
    target!("request.anthropic", check_anthropic, &["anthropic.request"]),
    target!(
        "request.responses",
        |body| chat(body, responses::parse, "responses"),
        &["responses.request"]
    ),
    target!("request.ollama", check_ollama, &["ollama.request"]),
    target!("request.embed", check_embed, &[]),
    target!("request.inference", check_inference, &[]),
    target!("request.grpc", check_grpc, &[]),
];

fn check_openai(body: &[u8]) {
    chat(body, openai::parse, "compatible");
    let (full, seen) = (openai::parse(body), tap::look(body));
    let Ok(full) = full else { return };
    // Who reads all of a body and who looks at a few fields must see the same.
    let seen = match seen {
        Ok(seen) => seen,
        Err(refusal) => panic!("understood, but the tap says {}", refusal.message),
    };
    assert_eq!(seen.model, full.model);
    assert_eq!(seen.stream, full.stream);
    assert_eq!(seen.max_tokens, full.max_tokens.map(u64::from));
    assert_eq!(seen.n, u64::from(full.n.unwrap_or(1)));
    assert_eq!(seen.has_tools, !full.tools.is_empty());
}

fn check_anthropic(body: &[u8]) {
    chat(body, anthropic::parse, "anthropic");
    if let Err(refusal) = anthropic::parse_count(body) {
        check_refusal(&refusal);
    }
    if let (Ok(full), Ok(seen)) = (anthropic::parse(body), tap::look(body)) {
        assert_eq!((seen.model, seen.stream), (full.model, full.stream));
        assert_eq!(seen.max_tokens, full.max_tokens.map(u64::from));
    }
}

fn check_ollama(body: &[u8]) {
    chat(body, ollama::parse, "ollama");
    chat(body, ollama::parse_generate, "none of its own");
    if let Err(refusal) = ollama::parse_show(body) {
        check_refusal(&refusal);
    }
}

fn chat(body: &[u8], parse: Parse, own: &str) {
    let request = match parse(body) {
        Ok(request) => request,
        Err(refusal) => return check_refusal(&refusal),
    };
    said(&request, parse, own, body.len());
}

fn said(request: &ChatRequest, parse: Parse, own: &str, length: usize) {
    for (name, render) in PROVIDERS {
        let outgoing = match render(request) {
            Ok(outgoing) => outgoing,
            Err(refusal) => {
                check_refusal(&refusal);
                continue;
            }
        };
        check_outgoing(name, &outgoing, length);
        if *name == own {
            let body = String::from_utf8_lossy(&outgoing.body);
            let again = parse(&outgoing.body)
                .unwrap_or_else(|no| panic!("{name}: {} of what we say: {body}", no.message));
            let again = render(&again)
                .unwrap_or_else(|no| panic!("{name}: {} said again: {body}", no.message));
            let again = String::from_utf8_lossy(&again.body);
            assert_eq!(again, body, "{name}: said again, it is another");
        }
    }
    if let Err(refusal) = for_engine(request) {
        check_refusal(&refusal);
    }
}

/// What is sent is JSON and not much more than what was asked. An escape makes six bytes of one.
fn check_outgoing(name: &str, outgoing: &Outgoing, length: usize) {
    assert!(outgoing.path.starts_with('/') && outgoing.path.bytes().all(|b| b.is_ascii_graphic()));
    let json = serde_json::from_slice::<serde::de::IgnoredAny>(&outgoing.body);
    let body = String::from_utf8_lossy(&outgoing.body);
    assert!(json.is_ok(), "{name} is sent what is no JSON: {body}");
    assert!(outgoing.body.len() <= 8 * length + 4_096, "{name}: {length} bytes became {body}");
}

fn check_embed(body: &[u8]) {
    let parsers = [openai::parse_embed, ollama::parse_embed, ollama::parse_embeddings];
    for parse in parsers {
        let request = match parse(body) {
            Ok(request) => request,
            Err(refusal) => {
                check_refusal(&refusal);
                continue;
            }
        };
        assert!((1..=embed::MAX_INPUTS).contains(&request.inputs.len()));
        let sent = [
            openai::render_embed(&request, openai::Target::OpenAi),
            openai::render_embed(&request, openai::Target::Compatible),
            ollama::render_embed(&request),
            gemini::render_embed(&request),
            cohere::render_embed(&request),
            bedrock::render_embed(&request),
        ];
        for sent in sent {
            match sent {
                // Gemini and others repeat the model and the settings for each input.
                Ok(outgoing) => {
                    let length = body.len() + request.inputs.len() * (request.model.len() + 128);
                    check_outgoing("embed", &outgoing, length);
                }
                Err(refusal) => check_refusal(&refusal),
            }
        }
    }
}

/// The first two bytes are the length of the JSON, as a header would tell it; all ones: none.
fn check_inference(input: &[u8]) {
    let Some((head, body)) = input.split_first_chunk::<2>() else { return };
    let json = Some(u16::from_le_bytes(*head)).filter(|json| *json != u16::MAX);
    check_infer(inference::parse(body, json.map(usize::from)));
    check_infer(inference::parse(body, None));
    check_tensors(inference::tensors::parse(body, json.map(usize::from)));
    check_tensors(inference::tensors::parse(body, None));
}

fn check_grpc(message: &[u8]) {
    if let Err(refusal) = inference::grpc::parse_named(message) {
        check_refusal(&refusal);
    }
    check_infer(inference::grpc::parse_infer(message).map(|(_, _, infer)| infer));
    check_tensors(inference::tensors::grpc_parse(message));
}

/// Whatever is read has bounded bytes; whether those fit the shape is the next check's to say.
fn check_tensors(asked: Result<inference::tensors::Asked, Refusal>) {
    match asked {
        Ok(asked) => {
            let bytes: usize = asked.inputs.iter().map(|tensor| tensor.data.len()).sum();
            assert!(bytes <= MAX_TENSOR_BYTES, "{bytes} bytes");
            for tensor in &asked.inputs {
                if let Err(refusal) = tensor.check() {
                    check_refusal(&refusal);
                }
            }
        }
        Err(refusal) => check_refusal(&refusal),
    }
}

fn check_infer(infer: Result<inference::Infer, Refusal>) {
    let infer = match infer {
        Ok(infer) => infer,
        Err(refusal) => return check_refusal(&refusal),
    };
    if let Err(refusal) = infer.embeddings("m") {
        check_refusal(&refusal);
    }
    match infer.chat("m") {
        Ok(request) => said(&request, openai::parse, "none of its own", usize::MAX >> 8),
        Err(refusal) => check_refusal(&refusal),
    }
    for makes in [inference::Makes::Text, inference::Makes::Embeddings(Some(2))] {
        if let Err(refusal) = infer.wanted(makes) {
            check_refusal(&refusal);
        }
    }
}
