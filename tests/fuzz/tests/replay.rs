//! The stored corpus and the first mutations of it, replayed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use selvedge_fuzz::{corpus, guard, targets};

/// Mutations of each target: about a second on an idle core without optimisation, so that all of
/// them cost the gate half a minute of one.
const MUTATIONS: usize = 800;

/// Bytes of all stored inputs: what every clone of the tree carries.
const CORPUS_BYTES: usize = 1 << 20;

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

#[test]
fn the_program_lists_its_targets_and_runs_one() {
    let program = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge-fuzz"));
        command.args(args).output().expect("the program starts")
    };
    let listed = program(&[]);
    let text = String::from_utf8(listed.stdout).expect("text");
    assert!(listed.status.success() && text.lines().count() == targets::all().count(), "{text}");
    let run = program(&["mesh.length", "--seconds", "0"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(!program(&["nothing"]).status.success());
}

#[test]
fn the_corpus_is_small_and_belongs_to_targets() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let (mut bytes, mut seen) = (0, BTreeSet::new());
    for folder in std::fs::read_dir(&corpus).expect("readable") {
        let folder = folder.expect("readable").path();
        let name = folder.file_name().expect("named").to_string_lossy().into_owned();
        let known = targets::named(&name).is_some() || targets::ELSEWHERE.contains(&&*name);
        assert!(known, "{name} is no target");
        for file in std::fs::read_dir(&folder).expect("readable") {
            let content = std::fs::read(file.expect("readable").path()).expect("readable");
            bytes += content.len();
            assert!(seen.insert((name.clone(), content)), "{name} has an input twice");
        }
    }
    assert!(bytes <= CORPUS_BYTES, "{bytes} bytes");
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
    rounds_message: "rounds.message",
    rounds_talk: "rounds.talk",
    file_routes: "file.routes",
    file_routes_bytes: "file.routes.bytes",
    file_providers: "file.providers",
    file_image: "file.image",
    file_parquet: "file.parquet",
    model_gguf: "model.gguf",
    model_onnx: "model.onnx",
    model_template: "model.template",
    request_grammar: "request.grammar",
    model_safetensors: "model.safetensors",
    model_tokenizer: "model.tokenizer",
    request_audio: "request.audio",
    file_sound: "file.sound",
    text_short: "text.short",
}
