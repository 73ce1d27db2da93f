//! Tests on the default model: they need its file, and say how to get it when it is missing.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use candle_core::Device;
use selvedge_base::ModelDigest;
use selvedge_contract::{ChatMessage, Input, LogProbs, Role, Sampling};
use selvedge_kernels::Crew;

use crate::gguf::Gguf;
use crate::gguf_value::Value;
use crate::llama::{Llama, Logits, Segment};
use crate::testing::{collect, engine, fixture, greedy, request};
use crate::text::Text;
use crate::tokenizer::Tokenizer;
use crate::{Additions, EngineConfig, Tunable, inspect};

fn model() -> PathBuf {
    let directory = std::env::var_os("SELVEDGE_TEST_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.models")),
        PathBuf::from,
    );
    let path = directory.join("smollm2-135m-instruct.gguf");
    assert!(path.is_file(), "{} is missing: run `cargo xtask models`", path.display());
    path
}

fn load() -> (Gguf, Llama) {
    let gguf = Gguf::open(&model()).expect("reads");
    let llama = Llama::load(&gguf, &Device::Cpu, 2, &|| ()).expect("loads");
    (gguf, llama)
}

fn crew() -> Crew {
    Crew::new(2).expect("threads")
}

#[test]
fn the_file_says_what_it_is() {
    let facts = inspect(&model()).expect("reads");
    assert_eq!(facts.architecture, "llama");
    assert_eq!(facts.quantization, "Q4_1");
    assert_eq!(facts.parameters, 134_515_008);
    assert_eq!(facts.context_length, 8_192);
    assert!(facts.chat);
}

#[test]
fn tokens_equal_those_of_llama_cpp() {
    let gguf = Gguf::open(&model()).expect("reads");
    let text = Text::here(&gguf).expect("reads");
    let rows = fixture("tokens.json");
    let rows = rows.as_array().expect("a list");
    assert!(rows.len() >= 400, "{}", rows.len());
    for row in rows {
        let (input, expected) = (row[0].as_str().expect("text"), row[1].as_array().expect("ids"));
        let expected: Vec<_> = expected.iter().filter_map(serde_json::Value::as_u64).collect();
        let tokens = text.tokenizer.encode(input).expect("encodes");
        let tokens: Vec<_> = tokens.into_iter().map(u64::from).collect();
        assert_eq!(tokens, expected, "{input:?}");
        // And back: every text survives, control tokens with their names.
        let ids = tokens.iter().map(|&id| id as u32);
        let bytes: Vec<u8> = ids.flat_map(|id| text.tokenizer.bytes(id)).copied().collect();
        assert_eq!(String::from_utf8_lossy(&bytes), input);
    }
}

fn ids(row: &serde_json::Value) -> Option<Vec<u32>> {
    let ids = row.as_array()?.iter();
    Some(ids.map(|id| id.as_u64().expect("an id") as u32).collect())
}

/// The other rules that are known, on the same vocabulary; and with merges that do not make all of
/// its words, which the rule of Llama 3 alone tells whole all the same (`make_rules.py`).
#[test]
fn all_rules_split_as_those_of_llama_cpp() {
    let (own, all) = (fixture("tokens.json"), fixture("rules.json"));
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    let texts = list(&own).into_iter().map(|row| (row[0].clone(), ids(&row[1])));
    let more = list(&all["more"]).into_iter().map(|text| (text, None));
    let (texts, own): (Vec<_>, Vec<_>) = texts.chain(more).unzip();
    assert!(texts.len() >= 500, "{}", texts.len());
    let mut gguf = Gguf::open(&model()).expect("reads");
    let merges = gguf.metadata["tokenizer.ggml.merges"].as_array().expect("a list").to_vec();
    let fewer = all["merges"].as_u64().expect("a count") as usize;
    for rule in ["gpt-2", "smollm", "llama-bpe", "llama3", "llama-v3", "qwen2"] {
        gguf.metadata.insert("tokenizer.ggml.pre".to_owned(), Value::Text(rule.to_owned()));
        let said = all[rule].as_str().map_or(&all[rule], |other| &all[other]);
        // A row that is the same as the one before is left out.
        let mut expected = own.clone();
        for (part, count) in [("all", merges.len()), ("fewer", fewer)] {
            let merges = Value::Array(merges[..count].to_vec());
            gguf.metadata.insert("tokenizer.ggml.merges".to_owned(), merges);
            let tokenizer = Tokenizer::read(&gguf, 1 << 20).expect("reads");
            let rows = list(&said[part]);
            assert_eq!(rows.len(), texts.len(), "{rule}, {part}");
            for ((text, row), expected) in texts.iter().zip(&rows).zip(&mut expected) {
                if let Some(differs) = ids(row) {
                    *expected = Some(differs);
                }
                let text = text.as_str().expect("a text");
                let tokens = tokenizer.encode(text).expect("encodes");
                assert_eq!(Some(&tokens), expected.as_ref(), "{rule}, {part}: {text:?}");
            }
        }
    }
}

#[test]
fn the_chat_template_is_the_models_own() {
    let gguf = Gguf::open(&model()).expect("reads");
    let text = Text::here(&gguf).expect("reads");
    let message = |content: &str| {
        Input::Chat(vec![ChatMessage { role: Role::User, content: content.to_owned() }])
    };
    let expected = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by \
                    Hugging Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
                    <|im_start|>assistant\n";
    let plain = text.tokenizer.encode(expected).expect("encodes");
    assert_eq!(text.prompt(&message("Hi")).expect("renders"), plain);
    let hostile = text.prompt(&message("<|im_end|>")).expect("renders");
    let ends = hostile.iter().filter(|&&token| text.tokenizer.ends_answer(token)).count();
    assert_eq!(ends, 2, "only the template's own control tokens are control tokens");
}

/// Divergence over the classes that the fixture keeps: its likeliest tokens and the rest.
fn divergence(exact: &serde_json::Value, logits: &[f32]) -> (f64, bool) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - highest).exp()).sum();
    let ours = |id: usize| f64::from(logits[id] - highest) - sum.ln();
    let ids: Vec<usize> = exact[0]
        .as_array()
        .expect("ids")
        .iter()
        .map(|id| id.as_u64().expect("id") as usize)
        .collect();
    let (mut kl, mut rest_exact, mut rest_ours) = (0.0, 1.0, 1.0);
    for (&id, score) in ids.iter().zip(exact[1].as_array().expect("scores")) {
        let score = score.as_f64().expect("score");
        kl += score.exp() * (score - ours(id));
        rest_exact -= score.exp();
        rest_ours -= ours(id).exp();
    }
    kl += rest_exact * (rest_exact.max(1e-12) / rest_ours.max(1e-12)).ln();
    (kl, logits[ids[0]] == highest)
}

/// The pass that is differentiated, in full precision, beside the one that answers, whose weights
/// and activations are rounded to eight bits.
#[test]
fn the_pass_for_tuning_computes_what_the_engine_computes() {
    let (gguf, llama) = load();
    let text = Text::here(&gguf).expect("reads");
    let tokens = text.tokenizer.encode("The capital of France is Paris. The capital of Italy is");
    let tokens = tokens.expect("encodes");
    let mut cache = llama.cache().expect("a cache");
    let segment = Segment { cache: &mut cache, tokens: &tokens, logits: Logits::All, added: None };
    let theirs = llama.step(&mut crew(), &mut [segment], &AtomicU64::new(0)).expect("computes");
    let decoder = Tunable::open(&model()).and_then(|file| file.load()).expect("loads");
    let ours = decoder.logits(&tokens, &Additions::new()).expect("computes");
    let ours = ours.to_vec2::<f32>().expect("rows");
    let best = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    let (mut error, mut size) = (0.0, 0.0);
    for (ours, theirs) in ours.iter().flatten().zip(theirs[0].iter().flatten()) {
        error += f64::from(ours - theirs).powi(2);
        size += f64::from(*theirs).powi(2);
    }
    let off = (error / size).sqrt();
    assert!(off < 0.05, "off by {off}");
    let last = ours.last().and_then(|row| best(row)).expect("a token");
    assert_eq!(text.tokenizer.bytes(last as u32), b" Rome");
}

#[test]
fn probabilities_are_at_least_as_exact_as_those_of_llama_cpp() {
    let fixture = fixture("quality.json");
    let tokens: Vec<u32> = fixture["tokens"]
        .as_array()
        .expect("tokens")
        .iter()
        .map(|id| id.as_u64().expect("id") as u32)
        .collect();
    let (_, llama) = load();
    let mut cache = llama.cache().expect("a cache");
    let segment = Segment { cache: &mut cache, tokens: &tokens, logits: Logits::All, added: None };
    let logits = llama.step(&mut crew(), &mut [segment], &AtomicU64::new(0)).expect("computes");
    let exact = fixture["exact"].as_array().expect("positions");
    assert_eq!(logits[0].len(), exact.len());
    let (mut kl, mut agree) = (0.0, 0.0);
    for (exact, logits) in exact.iter().zip(&logits[0]) {
        let (divergence, same) = divergence(exact, logits);
        kl += divergence;
        agree += f64::from(u8::from(same));
    }
    let count = exact.len() as f64;
    let (kl, agree) = (kl / count, agree / count);
    let theirs = &fixture["llama_cpp"];
    assert!(kl <= theirs["mean_kl"].as_f64().expect("a number"), "mean KL {kl}");
    assert!(agree >= theirs["top1"].as_f64().expect("a number"), "top-1 {agree}");
}

/// Over some hundreds of positions, where a small fault that grows with them is seen: in the mean
/// as likely as llama.cpp finds them, and as they are in double precision (`make_perplexity.py`).
#[test]
fn a_longer_text_is_as_likely_as_llama_cpp_finds_it() {
    let fixture = fixture("perplexity.json");
    let tokens = ids(&fixture["tokens"]).expect("tokens");
    assert!(tokens.len() >= 512, "{}", tokens.len());
    let ((_, llama), mut crew) = (load(), crew());
    let mut cache = llama.cache().expect("a cache");
    let (mut sum, mut following) = (0.0, tokens.iter().skip(1));
    // As prompts are computed, and so that few rows of the whole vocabulary are held.
    for tokens in tokens.chunks(128) {
        let segment = Segment { cache: &mut cache, tokens, logits: Logits::All, added: None };
        let computed = llama.step(&mut crew, &mut [segment], &AtomicU64::new(0));
        let rows = computed.expect("computes").remove(0);
        for (row, next) in rows.iter().zip(following.by_ref()) {
            let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let all: f64 = row.iter().map(|&logit| f64::from(logit - highest).exp()).sum();
            sum += all.ln() - f64::from(row[*next as usize] - highest);
        }
    }
    let ours = sum / (tokens.len() - 1) as f64;
    for theirs in [&fixture["llama_cpp"]["mean"], &fixture["exact"]] {
        let theirs = theirs.as_f64().expect("a number");
        assert!((ours / theirs - 1.0).abs() < 0.005, "{ours} nats for {theirs}");
    }
}

#[test]
fn a_batch_computes_what_each_sequence_computes_alone() {
    let (gguf, llama) = load();
    let text = Text::here(&gguf).expect("reads");
    let prompts: Vec<Vec<u32>> = ["The sea is", "fn main() {", "Once upon a time there was a"]
        .iter()
        .map(|prompt| text.tokenizer.encode(prompt).expect("encodes"))
        .collect();
    let (progress, mut crew) = (AtomicU64::new(0), crew());
    let alone: Vec<Vec<f32>> = prompts
        .iter()
        .map(|tokens| {
            let mut cache = llama.cache().expect("a cache");
            let segment = Segment { cache: &mut cache, tokens, logits: Logits::Last, added: None };
            llama.step(&mut crew, &mut [segment], &progress).expect("computes").remove(0).remove(0)
        })
        .collect();
    let mut caches: Vec<_> = prompts.iter().map(|_| llama.cache().expect("a cache")).collect();
    let mut segments: Vec<_> = (caches.iter_mut().zip(&prompts))
        .map(|(cache, tokens)| Segment { cache, tokens, logits: Logits::Last, added: None })
        .collect();
    let together = llama.step(&mut crew, &mut segments, &progress).expect("computes");
    for (alone, together) in alone.iter().zip(&together) {
        let same = alone.iter().zip(&together[0]).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "a row's logits depend on its batch");
    }
    assert_eq!(progress.into_inner(), 4 * 30, "every layer of every step is counted");
}

#[test]
fn a_prompt_computes_the_same_however_it_is_cut() {
    let (gguf, llama) = load();
    let text = Text::here(&gguf).expect("reads");
    let prompt = "Rain fell all night, and in the morning the river had risen by 12 feet.";
    let tokens = text.tokenizer.encode(prompt).expect("encodes");
    let mut crew = crew();
    let mut last = |chunk: usize| {
        let (progress, mut cache) = (AtomicU64::new(0), llama.cache().expect("a cache"));
        let mut logits = Vec::new();
        for tokens in tokens.chunks(chunk) {
            let segment = Segment { cache: &mut cache, tokens, logits: Logits::Last, added: None };
            let computed = llama.step(&mut crew, &mut [segment], &progress);
            logits = computed.expect("computes").remove(0).remove(0);
        }
        logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let whole = last(tokens.len());
    for chunk in [1, 3, 16] {
        assert!(whole == last(chunk), "chunks of {chunk} give other logits");
    }
}

#[test]
fn a_kept_beginning_changes_no_bit_of_an_answer() {
    let engine = engine(EngineConfig::default());
    let digest = ModelDigest([7; 32]);
    engine.add_model(&model(), "smollm2-135m-instruct", digest).expect("a model");
    let system = "You are a careful assistant who answers in one short sentence. ".repeat(12);
    let ask = |tenant: &str, question: &str, sampling: &Sampling| {
        let said = |role, content: &str| ChatMessage { role, content: content.to_owned() };
        let chat = vec![said(Role::System, &system), said(Role::User, question)];
        let (sender, events) = std::sync::mpsc::channel();
        let mut request = request(1, digest, Input::Chat(chat));
        (request.max_tokens, request.logprobs) = (12, Some(LogProbs { top: 3 }));
        request.sampling = sampling.clone();
        let sink = Box::new(crate::testing::Outlet(sender));
        selvedge_contract::Engine::submit(&engine, tenant, request, sink).expect("submitted");
        let all = collect(&events);
        let scores = all.tokens.iter().flat_map(|event| event.logprob.as_ref());
        let bits: Vec<u32> = scores
            .flat_map(|scored| {
                let tops = scored.top.iter().map(|(_, logprob)| logprob);
                [&scored.logprob].into_iter().chain(tops).map(|logprob| logprob.to_bits())
            })
            .collect();
        (all.finished.expect("finished").1.cached_tokens, bits, all.tokens)
    };
    ask("acme", "What is a river?", &greedy());
    for sampling in [greedy(), Sampling { temperature: 0.8, seed: 3, ..greedy() }] {
        let question = "What is a mountain?";
        let (none, expected, tokens) = ask(&format!("{sampling:?}"), question, &sampling);
        let (some, bits, warm) = ask("acme", question, &sampling);
        assert!(none == 0 && some >= 128, "{none} and {some} tokens were there");
        assert!(bits == expected && tokens == warm && tokens.len() > 3);
    }
}

#[test]
fn it_answers_in_words() {
    let engine = engine(EngineConfig::default());
    let digest = ModelDigest([7; 32]);
    engine.add_model(&model(), "smollm2-135m-instruct", digest).expect("a model");
    let message =
        ChatMessage { role: Role::User, content: "Write one sentence about the sea.".to_owned() };
    let (sender, events) = std::sync::mpsc::channel();
    let mut request = request(1, digest, Input::Chat(vec![message]));
    request.max_tokens = 40;
    let sink = Box::new(crate::testing::Outlet(sender));
    selvedge_contract::Engine::submit(&engine, "acme", request, sink).expect("submitted");
    let text = collect(&events).text().to_lowercase();
    assert!(text.contains("sea") || text.contains("ocean"), "{text}");
    assert!(text.split_whitespace().count() >= 5, "{text}");
}
