use std::sync::mpsc;
use std::time::Duration;

use selvedge_base::{Code, ModelDigest, Refusal, RequestId};
use selvedge_contract::{EmbedRequest, Embedded, Engine, Input, ModelState};

use super::super::folder::Folder;
use super::super::folder::tests::tiny;
use crate::testing::{Outlet, Writer, collect, engine, needs, request, temporary};
use crate::{EngineConfig, LocalEngine};

const MODEL: ModelDigest = ModelDigest([1; 32]);
const WRITER: ModelDigest = ModelDigest([2; 32]);

fn config() -> EngineConfig {
    EngineConfig { threads: 1, ..EngineConfig::default() }
}

type Heard = mpsc::Receiver<Result<Embedded, Refusal>>;

fn asked(id: u128, texts: &[&str]) -> EmbedRequest {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    EmbedRequest { id: RequestId(id), model: MODEL, texts, cut: true }
}

fn begin(engine: &LocalEngine, request: EmbedRequest) -> Result<Heard, Refusal> {
    let (sender, heard) = mpsc::channel();
    let sink = Box::new(move |end| drop(sender.send(end)));
    engine.embed(request, sink).map(|()| heard)
}

/// A minute is far more than any test's vectors take; it turns a hang into a failure.
fn hear(heard: &Heard) -> Result<Embedded, Refusal> {
    heard.recv_timeout(Duration::from_secs(60)).expect("an end")
}

fn embedded(engine: &LocalEngine, request: EmbedRequest) -> Embedded {
    hear(&begin(engine, request).expect("queued")).expect("vectors")
}

#[test]
fn requests_get_their_own_vectors_whoever_asks_beside_them() {
    let directory = tiny();
    let engine = engine(config());
    let card = engine.add_model(directory.path(), "vectors", MODEL).expect("a model");
    assert!(card.embeds() && !card.chat);
    assert_eq!(engine.dimensions(MODEL), Some(16));
    let texts = ["a b c", "g", "f e d c b a", "zz"];
    let single: Vec<Vec<f32>> = texts
        .iter()
        .enumerate()
        .map(|(at, text)| embedded(&engine, asked(at as u128, &[text])).vectors.remove(0))
        .collect();
    for vector in &single {
        let length: f32 = vector.iter().map(|n| n * n).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    // More than a batch takes, so that requests share batches and span several.
    let many: Vec<&str> = texts.iter().copied().cycle().take(400).collect();
    let long = begin(&engine, asked(10, &many)).expect("queued");
    let short = begin(&engine, asked(11, &texts)).expect("queued");
    let short = hear(&short).expect("vectors");
    assert_eq!(short.vectors, single);
    // Each with the model's two marks.
    assert_eq!(short.tokens, 5 + 3 + 8 + 3);
    let long = hear(&long).expect("vectors");
    assert_eq!(long.tokens, 100 * 19);
    for (vector, at) in long.vectors.iter().zip((0..4).cycle()) {
        assert_eq!(vector, &single[at]);
    }
    assert!(engine.status().progress > 0);
    let status = engine.status();
    assert_eq!((status.models[0].running, status.models[0].queued), (0, 0));
}

#[test]
fn models_are_not_asked_for_what_they_do_not_make() {
    let (directory, file) = (tiny(), temporary(&Writer::tiny(1).bytes()));
    let engine = engine(config());
    engine.add_model(directory.path(), "vectors", MODEL).expect("a model");
    engine.add_model(file.path(), "tiny", WRITER).expect("a model");
    let refused = begin(&engine, EmbedRequest { model: WRITER, ..asked(1, &["a"]) });
    let refused = refused.expect_err("it writes");
    assert_eq!(refused.code, Code::Unsupported);
    assert!(refused.message.contains("makes no embeddings"), "{refused}");
    let input = Input::Text("a".to_owned());
    let refused = [
        engine
            .submit("", request(2, MODEL, input.clone()), Box::new(Outlet(mpsc::channel().0)))
            .err(),
        engine.count_tokens(MODEL, &input).err(),
        engine.begun(MODEL, &input, "a").err(),
    ];
    for refused in refused {
        let refused = refused.expect("it reads");
        assert!(refused.message.contains("generates no text"), "{refused}");
    }
    let unknown = EmbedRequest { model: ModelDigest([9; 32]), ..asked(3, &["a"]) };
    assert_eq!(begin(&engine, unknown).expect_err("none").code, Code::ModelNotFound);
    assert_eq!((engine.dimensions(WRITER), engine.dimensions(ModelDigest([9; 32]))), (None, None));
}

#[test]
fn a_text_that_must_not_be_cut_fails_its_request_alone() {
    let directory = tiny();
    let engine = engine(config());
    engine.add_model(directory.path(), "vectors", MODEL).expect("a model");
    let long = "a ".repeat(30);
    let strict = EmbedRequest { cut: false, ..asked(1, &["a", &long, "b"]) };
    let (strict, other) =
        (begin(&engine, strict).expect("queued"), begin(&engine, asked(2, &[&long])).expect("q"));
    let refused = hear(&strict).expect_err("too long");
    assert_eq!(
        (refused.code, refused.param.as_deref()),
        (Code::ContextLengthExceeded, Some("input"))
    );
    assert_eq!(hear(&other).expect("cut").tokens, 20);
}

#[test]
fn whoever_gives_up_leaves_and_whoever_asks_a_broken_model_is_told() {
    let directory = tiny();
    let lazy = engine(EngineConfig { lazy: true, ..config() });
    lazy.add_model(directory.path(), "vectors", MODEL).expect("a model");
    assert_eq!(lazy.status().models[0].state, ModelState::Cold);
    let many = vec!["a b c d e f g"; 2_000];
    let heard = begin(&lazy, asked(1, &many)).expect("queued");
    lazy.cancel(RequestId(1));
    assert_eq!(hear(&heard).expect_err("given up").code, Code::Cancelled);
    // The first request loads it.
    assert_eq!(embedded(&lazy, asked(2, &["a"])).vectors.len(), 1);
    assert!(lazy.remove_model("vectors"));
    assert_eq!(begin(&lazy, asked(3, &["a"])).expect_err("gone").code, Code::ModelNotFound);
    directory.write("tokenizer.json", b"{}");
    let broken = engine(EngineConfig { lazy: true, ..config() });
    broken.add_model(directory.path(), "vectors", MODEL).expect("its header is good");
    let refused = hear(&begin(&broken, asked(1, &["a"])).expect("queued")).expect_err("broken");
    assert!(refused.message.contains("tokenizer.json"), "{refused}");
    assert_eq!(broken.status().models[0].state, ModelState::Failed);
}

#[test]
fn an_engine_that_ends_tells_those_who_wait() {
    let directory = tiny();
    let engine = engine(EngineConfig { memory_budget_bytes: 1, ..config() });
    engine.add_model(directory.path(), "vectors", MODEL).expect("a model");
    match begin(&engine, asked(1, &["a"])) {
        Ok(heard) => assert_eq!(hear(&heard).expect_err("no room").code, Code::OutOfMemory),
        Err(refused) => assert_eq!(refused.code, Code::OutOfMemory),
    }
    drop(engine);
}

#[test]
fn a_model_of_vectors_and_one_that_writes_make_room_for_each_other() {
    let (directory, file) = (tiny(), temporary(&Writer::tiny(1).bytes()));
    let reader = Folder::open(directory.path()).expect("a model").config.bytes();
    let memory_budget_bytes = needs(file.path()).max(reader);
    let engine = engine(EngineConfig { lazy: true, memory_budget_bytes, ..config() });
    engine.add_model(directory.path(), "vectors", MODEL).expect("a model");
    engine.add_model(file.path(), "writer", WRITER).expect("a model");
    let vectors = embedded(&engine, asked(1, &["a b c"])).vectors;
    for _ in 0..2 {
        let (sender, answers) = mpsc::channel();
        let ask = request(2, WRITER, Input::Text("x".to_owned()));
        engine.submit("acme", ask, Box::new(Outlet(sender))).expect("submitted");
        assert!(collect(&answers).finished.is_some());
        assert!(engine.memory().taken <= memory_budget_bytes);
        assert_eq!(embedded(&engine, asked(3, &["a b c"])).vectors, vectors);
        assert_eq!(engine.memory().taken, reader, "the other one is gone");
    }
    assert_eq!(engine.memory().counts.evicted_oldest, 4);
}
