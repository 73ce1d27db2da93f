use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use selvedge_base::{Code, Mono, Refusal, RequestId, Retry};
use selvedge_contract::residence::Standing;
use selvedge_contract::{
    Answer, EmbedRequest, Embedded, Engine, EngineStatus, EventSink, GenerateRequest, Input,
};

use super::*;
use crate::embed::folder::tests::tiny as vectors;
use crate::testing::{
    Collected, Directory, Outlet, Temporary, Writer, collect, engine, needs, request, temporary,
};
use crate::{EngineConfig, LocalEngine};

const FIRST: ModelDigest = ModelDigest([1; 32]);
const SECOND: ModelDigest = ModelDigest([2; 32]);

/// A budget for one of two models of the same size.
fn config(file: &Temporary) -> EngineConfig {
    let needed = needs(file.path());
    EngineConfig { threads: 1, memory_budget_bytes: needed + needed / 2, ..EngineConfig::default() }
}

fn files() -> [Temporary; 2] {
    [1, 2].map(|seed| temporary(&Writer::tiny(seed).bytes()))
}

/// Two models, of which nothing is loaded before it is asked for.
fn two(engine: &LocalEngine, files: &[Temporary; 2]) {
    engine.add_model(files[0].path(), "first", FIRST).expect("a model");
    engine.add_model(files[1].path(), "second", SECOND).expect("a model");
}

fn long(id: u128, model: ModelDigest) -> GenerateRequest {
    GenerateRequest { max_tokens: 40, ..request(id, model, Input::Text("once upon".to_owned())) }
}

fn begin(engine: &LocalEngine, request: GenerateRequest) -> mpsc::Receiver<Answer> {
    let (sender, receiver) = mpsc::channel();
    engine.submit("acme", request, Box::new(Outlet(sender))).expect("submitted");
    receiver
}

fn answer(engine: &LocalEngine, id: u128, model: ModelDigest) -> Collected {
    collect(&begin(engine, long(id, model)))
}

fn wait_for(engine: &LocalEngine, what: &str, holds: impl Fn(&EngineStatus) -> bool) {
    let (_never, timer) = mpsc::channel::<()>();
    for _ in 0..6_000 {
        if holds(&engine.status()) {
            return;
        }
        let _ = timer.recv_timeout(Duration::from_millis(10));
    }
    panic!("{what}: not within a minute: {:?}", engine.status());
}

fn state(engine: &LocalEngine, model: ModelDigest) -> ModelState {
    let models = engine.status().models;
    models.iter().find(|one| one.card.digest == model).expect("it is known").state
}

fn standing(engine: &LocalEngine, model: ModelDigest) -> Standing {
    engine.standings().into_iter().find(|one| one.model == model).expect("it is known")
}

fn evictions(engine: &LocalEngine) -> u64 {
    let counts = engine.memory().counts;
    counts.evicted_copied + counts.evicted_oldest
}

/// A sink that holds the stepping thread at its first token until the gate opens.
struct Gated {
    reached: mpsc::Sender<()>,
    gate: mpsc::Receiver<()>,
    outlet: Outlet,
}

impl EventSink for Gated {
    fn send(&mut self, event: Answer) -> bool {
        if matches!(&event, Answer::Token(token) if token.index == 0) {
            let _ = self.reached.send(());
            let _ = self.gate.recv_timeout(Duration::from_secs(60));
        }
        self.outlet.send(event)
    }
}

/// An answer that stands at its first token until the sender is dropped.
fn hold(
    engine: &LocalEngine,
    id: u128,
    model: ModelDigest,
) -> (mpsc::Sender<()>, mpsc::Receiver<Answer>) {
    let (open, gate) = mpsc::channel();
    let (reached, arrived) = mpsc::channel();
    let (sender, answers) = mpsc::channel();
    let sink = Gated { reached, gate, outlet: Outlet(sender) };
    engine.submit("acme", long(id, model), Box::new(sink)).expect("submitted");
    arrived.recv_timeout(Duration::from_secs(60)).expect("a first token");
    (open, answers)
}

#[test]
fn two_models_are_in_memory_in_turn_and_say_the_same_each_time() {
    let files = files();
    let engine = engine(EngineConfig { lazy: true, ..config(&files[0]) });
    two(&engine, &files);
    let budget = engine.memory().budget;
    let alone = [FIRST, SECOND].map(|model| answer(&engine, 1, model).ids());
    assert!(!alone[0].is_empty() && alone[0] != alone[1]);
    for turn in 0..6 {
        let model = [FIRST, SECOND][turn % 2];
        assert_eq!(answer(&engine, 2, model).ids(), alone[turn % 2]);
        let taken = engine.memory().taken;
        assert!(taken <= budget && taken > 0, "{taken} of {budget}");
        assert_eq!(state(&engine, model), ModelState::Ready);
        assert_eq!(state(&engine, [SECOND, FIRST][turn % 2]), ModelState::Cold);
    }
    assert_eq!((evictions(&engine), engine.memory().counts.loaded_asked), (7, 8));
    let (first, second) = (standing(&engine, FIRST), standing(&engine, SECOND));
    let (_, comes, _) = first.evicted.expect("it went");
    assert_eq!((first.bytes, &*comes), (0, "second"));
    assert!(second.bytes > 0 && second.idle.is_some() && !second.pinned);
}

/// A model that writes, and one that makes vectors on a thread of its own, which do not fit
/// together.
struct Pair {
    engine: LocalEngine,
    now: Arc<AtomicU64>,
    _files: (Temporary, Directory),
}

impl Pair {
    fn new() -> Self {
        let (file, directory) = (temporary(&Writer::tiny(1).bytes()), vectors());
        let reader = embed::Folder::open(directory.path()).expect("a model").config.bytes();
        let memory_budget_bytes = needs(file.path()).max(reader);
        let now = Arc::new(AtomicU64::new(1));
        let theirs = Arc::clone(&now);
        // It stands until it is set.
        let clock = move || Mono(theirs.load(Ordering::Relaxed));
        let config =
            EngineConfig { threads: 1, lazy: true, memory_budget_bytes, ..Default::default() };
        let engine = LocalEngine::start(config, Arc::new(clock)).expect("starts");
        engine.add_model(file.path(), "first", FIRST).expect("a model");
        engine.add_model(directory.path(), "second", SECOND).expect("a model");
        Self { engine, now, _files: (file, directory) }
    }

    /// Asks for vectors.
    fn embed(&self, id: u128) -> mpsc::Receiver<Result<Embedded, Refusal>> {
        let (sender, heard) = mpsc::channel();
        let texts = vec!["a b c".to_owned()];
        let request = EmbedRequest { id: RequestId(id), model: SECOND, texts, cut: true };
        self.engine.embed(request, Box::new(move |end| drop(sender.send(end)))).expect("queued");
        heard
    }

    /// Waits until the second one waits for memory. Peers that have it are asked first meanwhile.
    fn wait(&self) {
        wait_for(&self.engine, "the second waits", |status| {
            let second = &status.models[1];
            let waits = self.engine.memory().waiting == 1;
            waits && second.queued == 1 && second.state == ModelState::Cold
        });
    }
}

/// A minute is far more than any test's vectors take; it turns a hang into a failure.
fn hear(heard: &mpsc::Receiver<Result<Embedded, Refusal>>) -> Result<Embedded, Refusal> {
    heard.recv_timeout(Duration::from_secs(60)).expect("an end")
}

#[test]
fn an_answer_that_runs_is_not_cut_for_another_model() {
    let pair = Pair::new();
    let whole = answer(&pair.engine, 1, FIRST).ids();
    let (gate, first) = hold(&pair.engine, 2, FIRST);
    let second = pair.embed(3);
    pair.wait();
    assert_eq!((evictions(&pair.engine), state(&pair.engine, FIRST)), (0, ModelState::Ready));
    drop(gate);
    assert_eq!(collect(&first).ids(), whole);
    assert_eq!(hear(&second).expect("vectors").vectors.len(), 1);
    assert_eq!((evictions(&pair.engine), state(&pair.engine, FIRST)), (1, ModelState::Cold));
}

#[test]
fn nobody_goes_for_a_request_that_was_given_up() {
    let pair = Pair::new();
    let (gate, first) = hold(&pair.engine, 1, FIRST);
    let second = pair.embed(2);
    pair.wait();
    pair.engine.cancel(RequestId(2));
    assert_eq!(hear(&second).expect_err("cancelled").code, Code::Cancelled);
    wait_for(&pair.engine, "nobody waits", |_| pair.engine.memory().waiting == 0);
    drop(gate);
    assert!(collect(&first).finished.is_some());
    assert!(answer(&pair.engine, 3, FIRST).finished.is_some());
    assert_eq!((evictions(&pair.engine), state(&pair.engine, SECOND)), (0, ModelState::Cold));
}

#[test]
fn whoever_waited_too_long_is_sent_elsewhere_and_the_next_one_is_not() {
    let pair = Pair::new();
    let (gate, first) = hold(&pair.engine, 1, FIRST);
    let second = pair.embed(2);
    pair.wait();
    pair.now.fetch_add(30_000_000, Ordering::Relaxed);
    let refusal = hear(&second).expect_err("refused");
    assert_eq!((refusal.code, refusal.retry), (Code::Overloaded, Retry::Elsewhere));
    assert!(refusal.message.contains("memory_budget_bytes"), "{refusal}");
    assert_eq!(pair.engine.memory().counts.refused_busy, 1);
    drop(gate);
    assert!(collect(&first).finished.is_some());
    assert_eq!(state(&pair.engine, FIRST), ModelState::Ready);
    assert_eq!(hear(&pair.embed(3)).expect("vectors").vectors.len(), 1);
    assert_eq!(evictions(&pair.engine), 1);
}

#[test]
fn at_the_start_as_many_are_loaded_as_fit_and_the_others_stay_on_disk() {
    let files = files();
    let engine = engine(config(&files[0]));
    two(&engine, &files);
    wait_for(&engine, "one is ready", |status| {
        let count = |state| status.models.iter().filter(|model| model.state == state).count();
        (count(ModelState::Ready), count(ModelState::Cold)) == (1, 1)
    });
    assert_eq!((evictions(&engine), engine.memory().counts.loaded_ahead), (0, 1));
    for model in [FIRST, SECOND] {
        assert!(answer(&engine, 1, model).finished.is_some());
    }
}

#[test]
fn one_that_stays_loaded_is_not_thrown_out_and_the_other_hears_of_it() {
    let files = files();
    let keep_loaded = vec!["first".to_owned()];
    let engine = engine(EngineConfig { lazy: true, keep_loaded, ..config(&files[0]) });
    two(&engine, &files);
    assert!(answer(&engine, 1, FIRST).finished.is_some());
    let refusal = answer(&engine, 2, SECOND).failed.expect("refused");
    assert_eq!((refusal.code, refusal.retry), (Code::OutOfMemory, Retry::Elsewhere));
    assert!(refusal.message.contains("loaded now: first"), "{refusal}");
    assert_eq!((evictions(&engine), state(&engine, FIRST)), (0, ModelState::Ready));
    assert!(standing(&engine, FIRST).pinned);
}

#[test]
fn many_that_are_asked_for_at_once_never_take_more_than_there_is() {
    let files: Vec<Temporary> =
        (1..=5).map(|seed| temporary(&Writer::tiny(seed).bytes())).collect();
    let needed = needs(files[0].path());
    let memory_budget_bytes = 2 * needed + needed / 2;
    let engine = engine(EngineConfig {
        threads: 1,
        lazy: true,
        memory_budget_bytes,
        ..EngineConfig::default()
    });
    for (at, file) in files.iter().enumerate() {
        let digest = ModelDigest([at as u8; 32]);
        engine.add_model(file.path(), &format!("model {at}"), digest).expect("a model");
    }
    let asked: Vec<_> =
        (0..20_u8).map(|id| begin(&engine, long(id.into(), ModelDigest([id % 5; 32])))).collect();
    for events in &asked {
        let one = collect(events);
        assert!(one.finished.is_some(), "{:?}", one.failed);
        assert!(engine.memory().taken <= memory_budget_bytes);
    }
    assert!(evictions(&engine) >= 3);
    wait_for(&engine, "all of them told", |status| {
        status.models.iter().all(|model| model.running + model.queued == 0)
    });
}

#[test]
fn what_peers_have_in_memory_goes_first() {
    let files: Vec<Temporary> =
        (1..=3).map(|seed| temporary(&Writer::tiny(seed).bytes())).collect();
    let needed = needs(files[0].path());
    let memory_budget_bytes = 2 * needed + needed / 2;
    let config = EngineConfig { threads: 1, lazy: true, memory_budget_bytes, ..Default::default() };
    let engine = engine(config);
    let digests = [FIRST, SECOND, ModelDigest([3; 32])];
    for (digest, file) in digests.iter().zip(&files) {
        engine.add_model(file.path(), &digest.to_string(), *digest).expect("a model");
    }
    for model in [FIRST, SECOND] {
        assert!(answer(&engine, 1, model).finished.is_some());
    }
    engine.copied(&std::collections::BTreeMap::from([(SECOND, 1)]));
    assert!(answer(&engine, 2, digests[2]).finished.is_some());
    let states = digests.map(|model| state(&engine, model));
    assert_eq!(states, [ModelState::Ready, ModelState::Cold, ModelState::Ready]);
    let counts = engine.memory().counts;
    assert_eq!((counts.evicted_copied, counts.evicted_oldest), (1, 0));
}
