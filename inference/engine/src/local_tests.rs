use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use selvedge_base::{Code, Retry};
use selvedge_contract::{
    Answer, ChatMessage, Emitted, FinishReason, Further, LogProbs, ModelState, Role, Sampling,
};

use super::*;
use crate::testing::{
    Collected, Outlet, Temporary, Writer, collect, engine, greedy, request, temporary,
};

#[path = "fair_tests.rs"]
mod fair;
#[path = "loading_tests.rs"]
mod loading;
#[path = "prefix_tests.rs"]
mod prefix;
#[path = "recovery_tests.rs"]
mod recovery;
#[path = "speculation_tests.rs"]
mod speculation;
#[path = "tuned_tests.rs"]
mod tuned;

const MODEL: ModelDigest = ModelDigest([1; 32]);
const OTHER: ModelDigest = ModelDigest([2; 32]);

fn config() -> EngineConfig {
    EngineConfig { threads: 1, ..EngineConfig::default() }
}

/// An engine with the tiny model; the file lives as long as the test.
fn with_tiny(config: EngineConfig) -> (LocalEngine, Temporary) {
    let file = temporary(&Writer::tiny(1).bytes());
    let engine = engine(config);
    engine.add_model(file.path(), "tiny", MODEL).expect("a model");
    (engine, file)
}

fn begin(engine: &LocalEngine, request: GenerateRequest) -> mpsc::Receiver<Answer> {
    let (sender, receiver) = mpsc::channel();
    engine.submit("acme", request, Box::new(Outlet(sender))).expect("submitted");
    receiver
}

fn answer(engine: &LocalEngine, request: GenerateRequest) -> Collected {
    collect(&begin(engine, request))
}

fn text(id: u128, prompt: &str) -> GenerateRequest {
    request(id, MODEL, Input::Text(prompt.to_owned()))
}

/// A varied answer of up to 40 tokens; some seeds end it earlier.
fn lively(id: u128, seed: u64) -> GenerateRequest {
    let sampling = Sampling { temperature: 1.5, seed, ..greedy() };
    GenerateRequest { sampling, max_tokens: 40, ..text(id, "once upon a time") }
}

fn wait_for(engine: &LocalEngine, holds: impl Fn(&EngineStatus) -> bool) {
    let (_never, timer) = mpsc::channel::<()>();
    for _ in 0..6_000 {
        if holds(&engine.status()) {
            return;
        }
        let _ = timer.recv_timeout(Duration::from_millis(10));
    }
    panic!("not within a minute: {:?}", engine.status());
}

#[test]
fn an_answer_is_streamed_and_ends_at_its_limit() {
    let (engine, _file) = with_tiny(config());
    let all = answer(&engine, lively(1, 3));
    let (reason, usage) = all.finished.expect("finished");
    assert_eq!(usage.prompt_tokens, 16);
    assert_eq!(usage.completion_tokens as usize, all.tokens.len());
    if reason == FinishReason::Length {
        assert_eq!(all.tokens.len(), 40);
    }
    let indices: Vec<_> = all.tokens.iter().map(|event| event.index).collect();
    assert_eq!(indices, (0..all.tokens.len() as u32).collect::<Vec<_>>());
    assert!(engine.status().progress > 0);
}

#[test]
fn an_answer_continues_exactly_from_every_token() {
    let (engine, _file) = with_tiny(config());
    let stop = vec!["\u{fffd}\u{fffd}\u{fffd}\u{fffd}".to_owned()];
    let of = |seed| answer(&engine, GenerateRequest { stop: stop.clone(), ..lively(1, seed) });
    // Random weights end some answers early; a long one shows more.
    let (seed, whole) = (0..50)
        .map(|seed| (seed, of(seed)))
        .find(|(_, whole)| whole.tokens.len() >= 30)
        .expect("one of fifty seeds gives a long answer");
    for split in 0..=whole.tokens.len() {
        let emitted =
            Emitted { tokens: whole.ids()[..split].to_vec(), prompt_digest: whole.digest };
        let request =
            GenerateRequest { stop: stop.clone(), emitted: Some(emitted), ..lively(2, seed) };
        let rest = answer(&engine, request);
        let mut before: String = whole.tokens[..split].iter().map(|t| t.text.as_str()).collect();
        before.push_str(&rest.text());
        assert_eq!(before, whole.text(), "continued after {split}");
        assert_eq!(rest.ids(), whole.ids()[split..], "continued after {split}");
        assert_eq!(rest.finished.map(|f| f.0), whole.finished.map(|f| f.0));
        assert_eq!(
            rest.finished.map(|f| f.1.completion_tokens),
            whole.finished.map(|f| f.1.completion_tokens)
        );
    }
}

#[test]
fn a_penalty_on_repetition_heeds_what_was_emitted_elsewhere() {
    let (engine, _file) = with_tiny(config());
    // More than the prompt has, so that both count.
    let further = Further { min_p: 0.01, repetition_penalty: 2.0, repetition_window: 24 };
    let of = |id, seed, emitted| {
        let plain = lively(id, seed);
        let sampling = Sampling { further, ..plain.sampling };
        answer(&engine, GenerateRequest { sampling, emitted, ..plain })
    };
    let (seed, whole) = (0..50)
        .map(|seed| (seed, of(1, seed, None)))
        .find(|(_, whole)| whole.tokens.len() >= 20)
        .expect("one of fifty seeds gives a long answer");
    for split in 0..=whole.tokens.len() {
        let emitted =
            Emitted { tokens: whole.ids()[..split].to_vec(), prompt_digest: whole.digest };
        let rest = of(2, seed, Some(emitted));
        assert_eq!(rest.ids(), whole.ids()[split..], "continued after {split}");
    }
}

#[test]
fn another_prompt_is_not_continued() {
    let (engine, _file) = with_tiny(config());
    let emitted = Emitted { tokens: vec![1, 2], prompt_digest: [9; 32] };
    let all = answer(&engine, GenerateRequest { emitted: Some(emitted), ..lively(1, 1) });
    let refusal = all.failed.expect("refused");
    assert_eq!((refusal.stage, refusal.retry), (selvedge_base::Stage::Resume, Retry::Elsewhere));
}

#[test]
fn answers_do_not_depend_on_who_else_is_served() {
    let (engine, _file) = with_tiny(config());
    let alone: Vec<_> =
        (0..6).map(|seed| answer(&engine, lively(seed.into(), seed)).ids()).collect();
    let together: Vec<_> =
        (0..6).map(|seed| begin(&engine, lively(u128::from(seed) + 10, seed))).collect();
    let together: Vec<_> = together.iter().map(|events| collect(events).ids()).collect();
    assert_eq!(alone, together);
}

#[test]
fn a_stop_text_ends_the_answer_and_is_not_shown() {
    let (engine, _file) = with_tiny(config());
    let whole = answer(&engine, lively(1, 3)).text();
    let stop: String = whole.chars().skip(5).take(3).collect();
    let all = answer(&engine, GenerateRequest { stop: vec![stop.clone()], ..lively(2, 3) });
    assert_eq!(all.finished.map(|f| f.0), Some(FinishReason::Stop));
    assert_eq!(Some(all.text().as_str()), whole.split(&stop).next());
}

#[test]
fn log_probabilities_come_with_each_token() {
    let (engine, _file) = with_tiny(config());
    let wanted = Some(LogProbs { top: 5 });
    let all = answer(&engine, GenerateRequest { logprobs: wanted, ..text(1, "abc") });
    for event in &all.tokens {
        let scored = event.logprob.as_ref().expect("asked for");
        assert_eq!(scored.top.len(), 5);
        assert_eq!(scored.top[0], (scored.bytes.clone(), scored.logprob), "greedy takes the first");
    }
}

#[test]
fn a_cancelled_request_ends_and_frees_its_place() {
    let (engine, _file) = with_tiny(config());
    let endless = GenerateRequest { max_tokens: 490, ..lively(1, 11) };
    let events = begin(&engine, endless);
    wait_for(&engine, |status| status.models[0].running == 1 || !status.computing);
    engine.cancel(RequestId(1));
    let all = collect(&events);
    let ended_by_itself = all.finished.is_some();
    assert!(ended_by_itself || all.failed.is_some_and(|r| r.code == Code::Cancelled));
    wait_for(&engine, |status| status.models[0].running == 0 && !status.computing);
    engine.cancel(RequestId(77));
}

#[test]
fn a_sink_that_nobody_reads_frees_the_work() {
    let (engine, _file) = with_tiny(config());
    drop(begin(&engine, GenerateRequest { max_tokens: 490, ..lively(1, 11) }));
    wait_for(&engine, |status| {
        status.models[0].running + status.models[0].queued == 0 && !status.computing
    });
}

/// A sink that holds the engine up at its first token until the gate opens.
struct Gated(mpsc::Receiver<()>, Outlet);

impl EventSink for Gated {
    fn send(&mut self, event: Answer) -> bool {
        if matches!(&event, Answer::Token(token) if token.index == 0) {
            let _ = self.0.recv_timeout(Duration::from_secs(60));
        }
        self.1.send(event)
    }
}

#[test]
fn a_full_engine_says_when_to_come_back() {
    let (engine, _file) = with_tiny(EngineConfig { max_batch: 1, max_queue: 1, ..config() });
    let (gate, held) = mpsc::channel();
    let (sender, first) = mpsc::channel();
    engine.submit("acme", lively(1, 3), Box::new(Gated(held, Outlet(sender)))).expect("a place");
    let second = begin(&engine, lively(2, 3));
    let (sender, _receiver) = mpsc::channel();
    let refusal = engine.submit("acme", lively(3, 3), Box::new(Outlet(sender))).expect_err("full");
    assert_eq!(refusal.code, Code::Overloaded);
    assert!(matches!(refusal.retry, Retry::After(after) if after.0 >= 1_000_000), "{refusal:?}");
    drop(gate);
    assert!(collect(&first).finished.is_some());
    assert!(collect(&second).finished.is_some());
    assert!(answer(&engine, lively(3, 3)).finished.is_some(), "there is room again");
}

#[test]
fn impossible_requests_are_refused_by_field() {
    let (engine, _file) = with_tiny(config());
    let refused = |request: GenerateRequest| {
        let (sender, receiver) = mpsc::channel();
        match engine.submit("acme", request, Box::new(Outlet(sender))) {
            Err(refusal) => refusal,
            Ok(()) => collect(&receiver).failed.expect("refused"),
        }
    };
    let wrong = Sampling { temperature: 9.0, ..greedy() };
    assert_eq!(
        refused(GenerateRequest { sampling: wrong, ..text(1, "x") }).param.as_deref(),
        Some("temperature")
    );
    assert_eq!(
        refused(GenerateRequest { max_tokens: 0, ..text(1, "x") }).param.as_deref(),
        Some("max_tokens")
    );
    assert_eq!(refused(text(1, "")).code, Code::InvalidRequest);
    assert_eq!(refused(request(1, OTHER, Input::Text("x".into()))).code, Code::ModelNotFound);
    assert_eq!(refused(text(1, &"x".repeat(600))).code, Code::ContextLengthExceeded);
    assert_eq!(refused(text(1, &"x".repeat(10 << 20))).code, Code::ContextLengthExceeded);
    assert_eq!(refused(request(1, MODEL, Input::Tokens(vec![9_999]))).code, Code::InvalidRequest);
    assert_eq!(refused(request(1, MODEL, Input::Chat(Vec::new()))).code, Code::InvalidRequest);
}

#[test]
fn text_that_looks_like_control_tokens_does_not_steer() {
    let (engine, _file) = with_tiny(config());
    let chat = |content: &str| {
        let message = ChatMessage { role: Role::User, content: content.to_owned() };
        engine.count_tokens(MODEL, &Input::Chat(vec![message])).expect("counts")
    };
    assert_eq!(chat("<|im_end|>") - chat(""), 10, "ten bytes, not one token");
}

#[test]
fn an_answer_ends_where_the_context_does() {
    let (engine, _file) = with_tiny(config());
    let prompt = "y".repeat(500);
    let all = answer(&engine, GenerateRequest { max_tokens: 1_000, ..text(1, &prompt) });
    let (reason, usage) = all.finished.expect("finished");
    assert!(reason == FinishReason::Stop || usage.completion_tokens == 12);
}

#[test]
fn a_model_larger_than_the_budget_fails_with_its_reason_and_others_serve() {
    let big = temporary(&Writer::tiny(2).bytes());
    let engine = engine(EngineConfig { memory_budget_bytes: 1_000, ..config() });
    engine.add_model(big.path(), "big", OTHER).expect("its header is fine");
    wait_for(&engine, |status| status.models[0].state == ModelState::Failed);
    let reason = engine.failure(OTHER).expect("a reason");
    assert!(reason.contains("bytes of memory"), "{reason}");
    let (sender, _receiver) = mpsc::channel();
    let refusal = engine
        .submit("acme", request(1, OTHER, Input::Text("x".into())), Box::new(Outlet(sender)))
        .expect_err("refused");
    assert_eq!((refusal.code, refusal.retry), (Code::OutOfMemory, Retry::Elsewhere));
}

#[test]
fn little_memory_slows_answers_down_but_ends_them() {
    // Room for the weights and about 20 pages of 64 tokens.
    let (engine, _file) =
        with_tiny(EngineConfig { memory_budget_bytes: 900_000, max_batch: 8, ..config() });
    let answers: Vec<_> = (1..=8)
        .map(|id| begin(&engine, GenerateRequest { max_tokens: 300, ..lively(id, id as u64) }))
        .collect();
    for events in answers {
        assert!(collect(&events).finished.is_some());
    }
}

#[test]
fn weights_that_are_no_numbers_fail_the_request_only() {
    let mut writer = Writer::tiny(1);
    writer.fill("output_norm.weight", f32::NAN);
    let broken = temporary(&writer.bytes());
    let (engine, _file) = with_tiny(config());
    engine.add_model(broken.path(), "broken", OTHER).expect("its header is fine");
    let all = answer(&engine, request(1, OTHER, Input::Text("x".into())));
    assert_eq!(all.failed.map(|refusal| refusal.code), Some(Code::Internal));
    assert!(answer(&engine, lively(2, 1)).finished.is_some());
}

#[test]
fn a_file_that_vanished_or_lost_a_tensor_fails_its_model() {
    let lacking = temporary(&Writer::tiny(1).without("blk.1.ffn_up.weight").bytes());
    // It is loaded for the request, which else might come when that has failed.
    let (engine, _file) = with_tiny(EngineConfig { lazy: true, ..config() });
    engine.add_model(lacking.path(), "lacking", OTHER).expect("its header is fine");
    let all = answer(&engine, request(1, OTHER, Input::Text("x".into())));
    let refusal = all.failed.expect("failed");
    assert!(refusal.message.contains("ffn_up"), "{refusal}");
    assert!(engine.add_model(&PathBuf::from("/nowhere"), "x", ModelDigest([3; 32])).is_err());
    assert!(answer(&engine, lively(2, 1)).finished.is_some());
}

#[test]
fn a_lazy_engine_loads_at_the_first_request() {
    let (engine, _file) = with_tiny(EngineConfig { lazy: true, ..config() });
    assert_eq!(engine.status().models[0].state, ModelState::Cold);
    assert!(answer(&engine, lively(1, 1)).finished.is_some());
    assert_eq!(engine.status().models[0].state, ModelState::Ready);
}

/// As when the system has no process or thread to spare.
#[test]
fn what_fails_for_a_moment_is_tried_again_after_a_rest() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let file = temporary(&Writer::tiny(1).bytes());
    let program = PathBuf::from("/nonexistent/program");
    let rendering = crate::Rendering::Apart { program, arguments: Vec::new() };
    let now = Arc::new(AtomicU64::new(1));
    let theirs = Arc::clone(&now);
    let clock = move || Mono(theirs.load(Ordering::Relaxed));
    let lazy = EngineConfig { lazy: true, rendering, ..config() };
    let engine = LocalEngine::start(lazy, Arc::new(clock)).expect("starts");
    engine.add_model(file.path(), "tiny", MODEL).expect("a model");
    let state = || engine.status().models[0].state;
    for id in 1..=2 {
        assert_eq!(state(), ModelState::Cold);
        let refusal = answer(&engine, text(id, "x")).failed.expect("failed");
        assert_eq!(refusal.retry, Retry::Elsewhere);
        assert!(refusal.message.contains("cannot render chat templates"), "{refusal}");
        now.fetch_add(9_999_999, Ordering::Relaxed);
        assert_eq!(state(), ModelState::Failed, "it rests");
        now.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_removed_model_fails_its_requests() {
    let (engine, _file) = with_tiny(config());
    let events = begin(&engine, GenerateRequest { max_tokens: 490, ..lively(1, 11) });
    assert!(engine.remove_model("tiny"));
    let all = collect(&events);
    assert!(all.finished.is_some() || all.failed.is_some_and(|r| r.code == Code::ModelNotFound));
    assert!(engine.status().models.is_empty());
}

#[test]
fn shutting_down_ends_every_request() {
    let (engine, _file) = with_tiny(config());
    let answers: Vec<_> = (1..=5)
        .map(|id| begin(&engine, GenerateRequest { max_tokens: 490, ..lively(id, 11) }))
        .collect();
    engine.shutdown();
    for events in answers {
        collect(&events);
    }
}

#[test]
fn names_are_taken_once() {
    let (engine, file) = with_tiny(config());
    let taken = engine.add_model(file.path(), "tiny", OTHER);
    assert!(matches!(taken, Err(EngineError::NameTaken(_))));
    assert!(engine.add_model(file.path(), "tiny", MODEL).is_ok(), "the same again is fine");
}
