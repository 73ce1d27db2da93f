//! The stored corpus and the first mutations of it, replayed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use selvedge_fuzz::{corpus, guard, targets};

/// Mutations of each target: about a second on an idle core without optimisation, so that all of
/// them cost the gate half a minute of one.
const MUTATIONS: usize = 800;

fn replay(name: &str) {
    guard::bound_memory();
    let target = targets::named(name).expect("a target of this name");
    let inputs = corpus::load(target).expect("a readable corpus");
    assert!(!inputs.is_empty(), "{name} has nothing to begin with");
    inputs.iter().for_each(|input| guard::check(target, input));
    for input in corpus::mutations(target, &inputs, 0).take(MUTATIONS) {
        let run = std::panic::catch_unwind(|| guard::check(target, &input));
        assert!(run.is_ok(), "{name} fails on {:?}", String::from_utf8_lossy(&input));
    }
}

/// A test for each target, so that they run beside each other and fail by name.
macro_rules! replayed {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            replay($name);
        })*

        #[test]
        fn every_target_is_replayed() {
            let known: Vec<&str> = targets::all().map(|target| target.name).collect();
            assert_eq!(known, [$($name),*]);
        }
    };
}

replayed! {
    request_openai: "request.openai",
    request_anthropic: "request.anthropic",
    request_responses: "request.responses",
    request_ollama: "request.ollama",
    request_embed: "request.embed",
    request_inference: "request.inference",
    request_grpc: "request.grpc",
    answer_openai_sse: "answer.openai.sse",
    answer_openai_json: "answer.openai.json",
    answer_anthropic_sse: "answer.anthropic.sse",
    answer_anthropic_json: "answer.anthropic.json",
    answer_ollama_ndjson: "answer.ollama.ndjson",
    answer_responses_sse: "answer.responses.sse",
    answer_responses_json: "answer.responses.json",
    answer_cohere_sse: "answer.cohere.sse",
    answer_cohere_json: "answer.cohere.json",
    answer_bedrock_stream: "answer.bedrock.stream",
    answer_bedrock_json: "answer.bedrock.json",
    answer_gemini_sse: "answer.gemini.sse",
    answer_gemini_json: "answer.gemini.json",
    answer_bedrock_events: "answer.bedrock.events",
    answer_frames: "answer.frames",
    answer_embed: "answer.embed",
    answer_error: "answer.error",
    tap_request: "tap.request",
    tap_stream: "tap.stream",
    tap_whole: "tap.whole",
    mesh_frames: "mesh.frames",
    mesh_records: "mesh.records",
    mesh_length: "mesh.length",
    disk_records: "disk.records",
    file_routes: "file.routes",
    file_routes_bytes: "file.routes.bytes",
    file_providers: "file.providers",
    text_short: "text.short",
}
