use super::*;
use crate::testing::{FATAL, FATAL_CONTEXT, FATAL_TO_DELIVER, FATAL_TO_SETTLE};

/// Requests of a model that have not ended.
fn unended(status: &EngineStatus) -> u32 {
    status.models.iter().map(|model| model.running + model.queued).sum()
}

/// A request that holds the stepping thread at its first token until the gate is dropped.
pub(super) fn hold(engine: &LocalEngine, request: GenerateRequest) -> (mpsc::Sender<()>, Held) {
    let (gate, answers, arrived) = submit_held(engine, request);
    arrived.recv_timeout(Duration::from_secs(60)).expect("a first token");
    (gate, answers)
}

/// The same, without waiting for that token: the last receiver is told of it.
fn submit_held(
    engine: &LocalEngine,
    request: GenerateRequest,
) -> (mpsc::Sender<()>, Held, mpsc::Receiver<()>) {
    let (gate, held) = mpsc::channel();
    let (sender, answers) = mpsc::channel();
    let (reached, arrived) = mpsc::channel();
    let sink = Gated(held, Outlet(sender));
    engine.submit("acme", request, Box::new(Announced(reached, sink))).expect("a place");
    (gate, answers, arrived)
}

pub(super) type Held = mpsc::Receiver<Answer>;

/// A sink that says when its first token arrives.
struct Announced(mpsc::Sender<()>, Gated);

impl EventSink for Announced {
    fn send(&mut self, event: Answer) -> bool {
        if matches!(&event, Answer::Token(_)) {
            let _ = self.0.send(());
        }
        self.1.send(event)
    }
}

#[test]
fn a_panic_in_a_step_costs_its_requests_and_reloads_the_model() {
    let (engine, _file) = with_tiny(config());
    let other = temporary(&Writer::tiny(2).bytes());
    engine.add_model(other.path(), "other", OTHER).expect("a model");
    let fatal = Input::Tokens(FATAL.to_vec());
    let refusal = answer(&engine, request(1, MODEL, fatal)).failed.expect("failed");
    assert_eq!((refusal.code, refusal.retry), (Code::Internal, Retry::Elsewhere));
    let elsewhere = answer(&engine, request(2, OTHER, Input::Text("x".into())));
    assert!(elsewhere.finished.is_some(), "other models serve on");
    assert!(answer(&engine, lively(3, 1)).finished.is_some(), "and the model comes back");
}

#[test]
fn a_sink_that_panics_ends_its_request_only() {
    struct Panics;
    impl EventSink for Panics {
        fn send(&mut self, _: Answer) -> bool {
            panic!("a sink's own fault")
        }
    }
    let (engine, _file) = with_tiny(config());
    engine.submit("acme", lively(1, 1), Box::new(Panics)).expect("submitted");
    assert!(answer(&engine, lively(2, 1)).finished.is_some());
    wait_for(&engine, |status| status.models[0].running + status.models[0].queued == 0);
}

#[test]
fn a_panic_while_delivering_costs_the_requests_of_its_model() {
    let (engine, _file) = with_tiny(config());
    let fatal = Input::Tokens(FATAL_TO_DELIVER.to_vec());
    let refusal = answer(&engine, request(1, MODEL, fatal)).failed.expect("failed");
    assert_eq!((refusal.code, refusal.retry), (Code::Internal, Retry::Elsewhere));
    wait_for(&engine, |status| unended(status) == 0 && !status.computing);
    assert!(answer(&engine, lively(1, 1)).finished.is_some(), "the model comes back");
}

#[test]
fn a_panic_of_the_stepping_thread_ends_each_request_once_and_nothing_else() {
    let (engine, _file) = with_tiny(config());
    let free = {
        assert!(answer(&engine, lively(9, 1)).finished.is_some());
        engine.shared.free_bytes()
    };
    let (gate, first) = hold(&engine, GenerateRequest { max_tokens: 490, ..lively(1, 3) });
    let fatal = begin(&engine, request(2, MODEL, Input::Tokens(FATAL_TO_SETTLE.to_vec())));
    drop(gate);
    let refusal = collect(&fatal).failed.expect("failed");
    assert_eq!((refusal.code, refusal.retry), (Code::Internal, Retry::Elsewhere));
    let first = collect(&first);
    assert!(first.finished.is_some() || first.failed.is_some_and(|r| r.code == Code::Internal));
    wait_for(&engine, |status| unended(status) == 0 && !status.computing);
    assert!(answer(&engine, lively(1, 1)).finished.is_some(), "the model comes back");
    assert_eq!(engine.shared.free_bytes(), free, "weights are counted once");
    assert!(engine.status().models.iter().all(|model| model.state == ModelState::Ready));
}

#[test]
fn a_load_that_panics_gives_its_memory_back() {
    let mut writer = Writer::tiny(1);
    writer.number("llama.context_length", FATAL_CONTEXT as u32);
    let file = temporary(&writer.bytes());
    let engine = engine(config());
    let free = engine.shared.free_bytes();
    engine.add_model(file.path(), "fatal", MODEL).expect("its header is fine");
    wait_for(&engine, |status| status.models[0].state == ModelState::Failed);
    assert_eq!(
        engine.failure(MODEL).as_deref(),
        Some("damaged model file: loading the file panicked")
    );
    assert_eq!(engine.shared.free_bytes(), free);
}

#[test]
fn a_model_that_was_loaded_twice_keeps_its_requests() {
    let (engine, _file) = with_tiny(config());
    let (gate, first) = hold(&engine, lively(1, 3));
    let free = engine.shared.free_bytes();
    let second = begin(&engine, lively(2, 3));
    loader::load(&engine.shared, &engine.device, MODEL, Wish::Ahead);
    drop(gate);
    assert!(collect(&first).finished.is_some());
    assert!(collect(&second).finished.is_some());
    wait_for(&engine, |status| unended(status) == 0 && !status.computing);
    assert_eq!(engine.shared.free_bytes(), free, "weights are counted once");
}

#[test]
fn a_model_that_comes_back_counts_the_requests_that_have_not_ended() {
    let (engine, file) = with_tiny(config());
    let (gate, first) = hold(&engine, lively(1, 3));
    assert!(engine.remove_model("tiny") && !engine.remove_model("tiny"));
    engine.add_model(file.path(), "tiny", MODEL).expect("a model");
    assert_eq!(unended(&engine.status()), 1);
    drop(gate);
    collect(&first);
    assert_eq!(unended(&engine.status()), 0);
}

#[test]
fn a_model_added_again_before_its_removal_was_seen_is_loaded_again() {
    let (engine, file) = with_tiny(EngineConfig { lazy: true, ..config() });
    let (gate, first) = hold(&engine, lively(1, 3));
    engine.add_model(file.path(), "other", OTHER).expect("a model");
    loader::load(&engine.shared, &engine.device, OTHER, Wish::Ahead);
    assert!(engine.remove_model("other"));
    engine.add_model(file.path(), "other", OTHER).expect("a model");
    drop(gate);
    assert!(collect(&first).finished.is_some());
    let all = answer(&engine, request(2, OTHER, Input::Text("x".into())));
    assert!(all.finished.is_some());
}

#[test]
fn several_requests_progress_at_once() {
    let (engine, _file) = with_tiny(config());
    let long = |id| GenerateRequest { max_tokens: 300, ..lively(id, 11) };
    let (first_gate, first) = hold(&engine, long(1));
    let (second_gate, second, arrived) = submit_held(&engine, long(2));
    wait_for(&engine, |_| engine.shared.worker.len() == 1);
    drop(first_gate);
    arrived.recv_timeout(Duration::from_secs(60)).expect("a first token");
    // The thread that computes stands still at the second answer's first token.
    let so_far: Vec<_> = first.try_iter().collect();
    assert!(so_far.iter().all(|event| !matches!(event, Answer::Finished { .. })), "{so_far:?}");
    drop(second_gate);
    assert!(collect(&first).finished.is_some());
    assert!(collect(&second).finished.is_some());
    wait_for(&engine, |status| !status.computing && status.models[0].running == 0);
}
