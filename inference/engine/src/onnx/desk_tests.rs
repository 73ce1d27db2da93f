use std::sync::mpsc;

use selvedge_base::{RequestId, Retry};
use selvedge_contract::carried::{self, Carried, Gathering};
use selvedge_contract::{Answer, Engine, Input};

use super::super::testing::{Case, assert_near, case};
use super::*;
use crate::testing::{Outlet, Writer, collect, engine, needs, request, temporary};
use crate::{EngineConfig, LocalEngine};

const MODEL: ModelDigest = ModelDigest([1; 32]);
const OTHER: ModelDigest = ModelDigest([2; 32]);

fn config() -> EngineConfig {
    EngineConfig { threads: 1, ..EngineConfig::default() }
}

fn with(case: &Case, config: EngineConfig) -> LocalEngine {
    let engine = engine(config);
    engine.add_model(&case.path(), "sensor", MODEL).expect("a model");
    engine
}

type Heard = mpsc::Receiver<Result<Vec<Tensor>, Refusal>>;

fn asked(case: &Case, id: u128) -> InferRequest {
    InferRequest {
        id: RequestId(id),
        model: MODEL,
        inputs: case.inputs.clone(),
        outputs: Vec::new(),
        within: Micros::secs(60),
    }
}

fn begin(engine: &LocalEngine, request: InferRequest) -> Result<Heard, Refusal> {
    let (sender, heard) = mpsc::channel();
    engine.infer(request, Box::new(move |end| drop(sender.send(end)))).map(|()| heard)
}

/// A minute is far more than any test's model takes; it turns a hang into a failure.
fn hear(heard: &Heard) -> Result<Vec<Tensor>, Refusal> {
    heard.recv_timeout(Duration::from_secs(60)).expect("an end")
}

#[test]
fn requests_get_their_tensors_and_a_model_says_what_it_takes() {
    for lazy in [false, true] {
        let case = case("mlp");
        let engine = with(&case, EngineConfig { lazy, ..config() });
        let card = engine.status().models.remove(0).card;
        assert!(card.infers() && !card.writes() && !card.chat);
        let facts = (card.architecture.as_str(), card.quantization.as_str(), card.parameters);
        assert_eq!(facts, ("onnx", "F32", 67));
        let signature = engine.signature(MODEL).expect("one");
        assert_eq!(signature.inputs[0].shape, [-1, 4]);
        let heard: Vec<Heard> =
            (1..=9).map(|id| begin(&engine, asked(&case, id)).expect("queued")).collect();
        for heard in heard {
            assert_near(&hear(&heard).expect("tensors"), &case.outputs, "mlp");
        }
        assert!(engine.status().progress > 0);
        let status = engine.status().models.remove(0);
        assert_eq!((status.state, status.queued), (ModelState::Ready, 0));
    }
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_queued() {
    let case = case("mlp");
    let engine = with(&case, config());
    let mut wrong = asked(&case, 1);
    wrong.inputs[0].shape = vec![4, 5];
    let refusal = begin(&engine, wrong).expect_err("must be refused");
    assert!(refusal.message.contains("[4, 5], where the model takes [-1, 4]"), "{refusal}");
    let other = InferRequest { model: OTHER, ..asked(&case, 2) };
    assert_eq!(begin(&engine, other).expect_err("unknown").code, Code::ModelNotFound);
    let late = InferRequest { within: Micros(0), ..asked(&case, 3) };
    let refusal = hear(&begin(&engine, late).expect("queued")).expect_err("too late");
    assert_eq!((refusal.code, refusal.retry), (Code::Timeout, Retry::Never));
    engine.cancel(RequestId(4));
    assert!(hear(&begin(&engine, asked(&case, 4)).expect("queued")).is_ok());
}

#[test]
fn models_that_write_and_models_that_take_tensors_are_not_confused() {
    let (case, file) = (case("mlp"), temporary(&Writer::tiny(1).bytes()));
    let engine = with(&case, config());
    engine.add_model(file.path(), "tiny", OTHER).expect("a model");
    let tensors = InferRequest { model: OTHER, ..asked(&case, 1) };
    let refusal = begin(&engine, tensors).expect_err("it writes");
    assert!(refusal.message.contains("generates text, and takes no tensors"), "{refusal}");
    let (outlet, _events) = mpsc::channel();
    let chat = request(2, MODEL, Input::Text("hello".to_owned()));
    let refusal =
        engine.submit("tenant", chat, Box::new(Outlet(outlet))).expect_err("it takes tensors");
    assert!(
        refusal.message.contains("takes and gives tensors, and generates no text"),
        "{refusal}"
    );
    assert!(engine.count_tokens(MODEL, &Input::Text("hello".to_owned())).is_err());
}

#[test]
fn a_peer_is_answered_as_if_it_asked_for_text() {
    let case = case("lstm");
    let engine = with(&case, config());
    let carry = |id: u128, inputs: &[Tensor]| {
        let (outlet, events) = mpsc::channel();
        let handed = carried::to_hand_off(RequestId(id), MODEL, inputs.to_vec(), Vec::new());
        engine.submit("peer", handed.expect("fits"), Box::new(Outlet(outlet))).expect("queued");
        let mut gathering = Gathering::default();
        loop {
            match events.recv_timeout(Duration::from_secs(60)).expect("an event") {
                Answer::Token(event) => assert!(gathering.take(&event)),
                Answer::Finished { .. } => return gathering.finish().expect("an answer"),
                other => panic!("{other:?}"),
            }
        }
    };
    let Carried::Tensors(tensors) = carry(1, &case.inputs) else { panic!("no tensors") };
    assert_near(&tensors, &case.outputs, "over the wire");
    let Carried::Signature(signature) = carry(2, &[]) else { panic!("no signature") };
    assert_eq!(Some(Arc::new(signature)), engine.signature(MODEL));
}

#[test]
fn a_removed_model_and_a_closed_engine_end_their_requests() {
    let case = case("cnn");
    let engine = with(&case, config());
    let heard: Vec<Heard> =
        (1..=5).map(|id| begin(&engine, asked(&case, id)).expect("queued")).collect();
    assert!(engine.remove_model("sensor"));
    for heard in heard {
        drop(hear(&heard));
    }
    engine.add_model(&case.path(), "sensor", MODEL).expect("again");
    let heard: Vec<Heard> =
        (6..=9).map(|id| begin(&engine, asked(&case, id)).expect("queued")).collect();
    engine.shutdown();
    for heard in heard {
        drop(hear(&heard));
    }
}

#[test]
fn a_file_that_changed_or_does_not_fit_the_memory_is_not_loaded() {
    let case = case("mlp");
    let small = EngineConfig { memory_budget_bytes: 1 << 20, ..config() };
    let engine = with(&case, small);
    let refusal = match begin(&engine, asked(&case, 1)) {
        Ok(heard) => hear(&heard).expect_err("too large"),
        Err(refusal) => refusal,
    };
    assert_eq!(refusal.code, Code::OutOfMemory, "{refusal}");
    let bytes = case.bytes();
    let file = temporary(&bytes);
    let opened = super::super::File::open(file.path()).expect("a model");
    std::fs::write(file.path(), &bytes[..bytes.len() - 1]).expect("writable");
    let error = Host::open(opened, &crate::Running::Here, 1).err().expect("changed").to_string();
    assert!(error.contains("is not the one that was added"), "{error}");
}

#[test]
fn a_model_of_tensors_and_one_that_writes_make_room_for_each_other() {
    let (case, file) = (case("mlp"), temporary(&Writer::tiny(1).bytes()));
    let sensor = super::super::File::open(&case.path()).expect("a model").needed();
    let memory_budget_bytes = needs(file.path()).max(sensor);
    let engine = with(&case, EngineConfig { lazy: true, memory_budget_bytes, ..config() });
    engine.add_model(file.path(), "writer", OTHER).expect("a model");
    for turn in 0..2 {
        let heard = begin(&engine, asked(&case, 1)).expect("queued");
        assert_near(&hear(&heard).expect("tensors"), &case.outputs, "mlp");
        assert_eq!(engine.memory().taken, sensor, "turn {turn}: the other one is gone");
        let (sender, answers) = mpsc::channel();
        let ask = request(2, OTHER, Input::Text("x".to_owned()));
        engine.submit("acme", ask, Box::new(Outlet(sender))).expect("submitted");
        assert!(collect(&answers).finished.is_some());
    }
    assert_eq!(engine.memory().counts.evicted_oldest, 3);
}
