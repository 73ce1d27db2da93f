//! ONNX models in processes of their own: what a hostile one, or a hostile request, can do.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use selvedge_base::{Code, Micros, ModelDigest, Mono, Refusal, RequestId};
use selvedge_contract::{Datatype, Engine, InferRequest, Tensor};
use selvedge_engine::{EngineConfig, LocalEngine, Running};

const MODEL: ModelDigest = ModelDigest([1; 32]);
const OTHER: ModelDigest = ModelDigest([2; 32]);

fn running(program: &str, arguments: &[&str]) -> Running {
    let arguments = arguments.iter().map(Into::into).collect();
    Running::Apart { program: PathBuf::from(program), arguments }
}

/// An engine whose models run apart, and its clock, which stands until it is told otherwise.
fn engine(running: Running) -> (LocalEngine, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(1));
    let theirs = Arc::clone(&now);
    let clock = move || Mono(theirs.load(Ordering::Relaxed));
    let config = EngineConfig { threads: 1, running, ..EngineConfig::default() };
    (LocalEngine::start(config, Arc::new(clock)).expect("starts"), now)
}

fn apart() -> (LocalEngine, Arc<AtomicU64>) {
    engine(running(env!("CARGO_BIN_EXE_selvedge-template"), &["onnx"]))
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx").join(name)
}

fn whole(name: &str, shape: &[u64], numbers: &[i64]) -> Tensor {
    let data = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    Tensor { name: name.to_owned(), datatype: Datatype::Int64, shape: shape.to_vec(), data }
}

type Heard = mpsc::Receiver<Result<Vec<Tensor>, Refusal>>;

fn begin(engine: &LocalEngine, id: u128, model: ModelDigest, input: Tensor) -> Heard {
    let (sender, heard) = mpsc::channel();
    let (inputs, outputs) = (vec![input], Vec::new());
    let within = Micros::secs(3);
    let request = InferRequest { id: RequestId(id), model, inputs, outputs, within };
    let sink = Box::new(move |end| drop(sender.send(end)));
    engine.infer(request, sink).expect("queued");
    heard
}

/// A minute is far more than a request may take here; it turns a hang into a failure.
fn hear(heard: &Heard) -> Result<f32, Refusal> {
    let made = heard.recv_timeout(Duration::from_secs(60)).expect("an end")?;
    let bytes = made[0].data.as_slice().try_into().expect("one float");
    Ok(f32::from_le_bytes(bytes))
}

/// What onnxruntime makes of two files' bytes (`make_magika.py`).
#[derive(serde::Deserialize)]
struct Magika {
    bytes: String,
    told: Vec<Share>,
}

#[derive(serde::Deserialize)]
struct Share {
    class: usize,
    share: f64,
}

#[test]
fn a_published_model_tells_types_of_files() {
    let directory = std::env::var_os("SELVEDGE_TEST_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.models")),
        PathBuf::from,
    );
    let path = directory.join("magika/model.onnx");
    assert!(path.is_file(), "{} is missing: run `cargo xtask models`", path.display());
    let wanted = std::fs::read(fixture("../magika.json")).unwrap();
    let wanted: Magika = serde_json::from_slice(&wanted).unwrap();
    let pairs = wanted.bytes.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let data = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let (name, shape) = ("bytes".to_owned(), vec![2, 2_048]);
    let input = Tensor { name, datatype: Datatype::Int32, shape, data };
    let (engine, _) = apart();
    engine.add_model(&path, "magika", MODEL).expect("a model");
    let heard = begin(&engine, 1, MODEL, input).recv_timeout(Duration::from_secs(60));
    let made = heard.expect("an end").expect("shares");
    assert_eq!(made[0].shape, [2, 214]);
    let shares = made[0].data.as_chunks().0.iter();
    let shares: Vec<f64> = shares.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect();
    for (told, row) in wanted.told.chunks(5).zip(shares.chunks(214)) {
        let best = (0..214).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        assert_eq!(best, told[0].class);
        for Share { class, share } in told {
            assert!((row[*class] - share).abs() < 1e-4, "{class}: {} {share}", row[*class]);
        }
    }
}

#[test]
fn a_process_of_its_own_answers_and_one_that_takes_all_memory_ends_alone() {
    let (engine, now) = apart();
    engine.add_model(&fixture("greedy.onnx"), "greedy", MODEL).expect("a model");
    engine.add_model(&fixture("endless.onnx"), "endless", OTHER).expect("a model");
    let greedy =
        |id, sides: [i64; 2]| hear(&begin(&engine, id, MODEL, whole("shape", &[2], &sides)));
    assert_eq!(greedy(1, [3, 4]), Ok(0.0));
    let refusal = greedy(2, [1 << 20, 1 << 20]).expect_err("a terabyte");
    assert!(matches!(refusal.code, Code::OutOfMemory | Code::InvalidRequest | Code::Internal));
    let other = begin(&engine, 3, OTHER, whole("times", &[], &[5]));
    assert_eq!(hear(&other), Ok(5.0), "another model does not notice");
    now.fetch_add(3_600_000_000, Ordering::Relaxed);
    assert_eq!(greedy(4, [3, 4]), Ok(0.0), "after its rest it is started again");
}

#[test]
fn a_model_that_crashes_is_left_alone_for_longer_each_time() {
    let (engine, now) = apart();
    engine.add_model(&fixture("greedy.onnx"), "greedy", MODEL).expect("a model");
    let ask = |id, sides: [i64; 2]| hear(&begin(&engine, id, MODEL, whole("shape", &[2], &sides)));
    let refusal = ask(1, [1 << 15, 1 << 15]).expect_err("four gigabytes");
    assert_eq!(refusal.code, Code::OutOfMemory, "{refusal}");
    let refusal = ask(2, [3, 4]).expect_err("it rests");
    assert!(refusal.message.contains("tried again in 1 s"), "{refusal}");
    now.fetch_add(1_000_000, Ordering::Relaxed);
    assert_eq!(ask(3, [3, 4]), Ok(0.0));
    ask(4, [1 << 15, 1 << 15]).expect_err("again");
    now.fetch_add(1_999_999, Ordering::Relaxed);
    assert!(ask(5, [3, 4]).is_err(), "twice as long");
    now.fetch_add(1, Ordering::Relaxed);
    assert_eq!(ask(6, [3, 4]), Ok(0.0));
}

#[test]
fn what_takes_too_long_or_is_given_up_ends_with_its_process() {
    let (engine, _) = apart();
    engine.add_model(&fixture("endless.onnx"), "endless", MODEL).expect("a model");
    let endless = |id| begin(&engine, id, MODEL, whole("times", &[], &[i64::from(i32::MAX)]));
    let refusal = hear(&endless(1)).expect_err("it counts for minutes");
    assert_eq!(refusal.code, Code::Timeout, "{refusal}");
    let given_up = endless(2);
    engine.cancel(RequestId(2));
    assert_eq!(hear(&given_up).expect_err("given up").code, Code::Cancelled);
    assert_eq!(hear(&begin(&engine, 3, MODEL, whole("times", &[], &[7]))), Ok(7.0));
    let last = endless(4);
    engine.shutdown();
    assert!(hear(&last).is_err());
}

#[test]
fn a_program_that_runs_no_models_is_told() {
    for (program, arguments) in [("/nonexistent/program", &[][..]), ("/bin/cat", &[])] {
        let (engine, _) = engine(running(program, arguments));
        engine.add_model(&fixture("mlp.onnx"), "mlp", MODEL).expect("its header is fine");
        let request = InferRequest {
            id: RequestId(1),
            model: MODEL,
            inputs: vec![Tensor {
                name: "readings".to_owned(),
                datatype: Datatype::Fp32,
                shape: vec![0, 4],
                data: Vec::new(),
            }],
            outputs: Vec::new(),
            within: Micros::secs(3),
        };
        let (sender, heard) = mpsc::channel::<Result<Vec<Tensor>, Refusal>>();
        let failed = engine.infer(request, Box::new(move |end| drop(sender.send(end))));
        let failed = failed
            .and_then(|()| heard.recv_timeout(Duration::from_secs(60)).expect("an end").map(drop));
        let refusal = failed.expect_err("nobody runs it");
        assert!(matches!(refusal.code, Code::ModelUnavailable | Code::Corrupt), "{refusal}");
    }
}
