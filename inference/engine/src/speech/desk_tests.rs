use std::sync::{Arc, mpsc};
use std::time::Duration;

use selvedge_base::{Code, ModelDigest, Refusal, RequestId};
use selvedge_contract::{
    EmbedRequest, Engine, Input, ModelState, SpeechRequest, SpeechTask, Transcript,
};

use super::super::testing::{tiny, tone, weights};
use crate::testing::{Outlet, Writer, collect, engine, needs, request, temporary};
use crate::{EngineConfig, LocalEngine};

const MODEL: ModelDigest = ModelDigest([1; 32]);

fn config() -> EngineConfig {
    EngineConfig { threads: 1, ..EngineConfig::default() }
}

type Told = mpsc::Receiver<Result<Transcript, Refusal>>;

fn asked(id: u128) -> SpeechRequest {
    SpeechRequest {
        id: RequestId(id),
        model: MODEL,
        task: SpeechTask::Transcribe,
        language: None,
        prompt: String::new(),
        temperature_milli: 0,
        seed: 5,
    }
}

fn begin(engine: &LocalEngine, request: SpeechRequest, sound: Vec<i16>) -> Result<Told, Refusal> {
    let (sender, heard) = mpsc::channel();
    let sink = Box::new(move |end| drop(sender.send(end)));
    engine.hear(request, Arc::new(sound), sink).map(|()| heard)
}

/// A minute is far more than any test's sound takes; it turns a hang into a failure.
fn hear(told: &Told) -> Result<Transcript, Refusal> {
    told.recv_timeout(Duration::from_secs(60)).expect("an end")
}

fn heard(engine: &LocalEngine, request: SpeechRequest, seconds: f32) -> Transcript {
    hear(&begin(engine, request, tone(seconds)).expect("queued")).expect("a transcript")
}

#[test]
fn requests_have_their_own_words_whoever_asks_beside_them() {
    let directory = tiny(true);
    let engine = engine(config());
    let card = engine.add_model(directory.path(), "ears", MODEL).expect("a model");
    assert!(card.hears() && !card.writes() && !card.embeds());
    let single = heard(&engine, asked(1), 0.5);
    assert!(["de", "en"].contains(&single.language.as_str()), "{single:?}");
    assert_eq!((single.duration_ms, single.prompt_tokens), (500, 50));
    // Several windows, a short one beside them.
    let long = begin(&engine, asked(2), tone(4.0)).expect("queued");
    let short = begin(&engine, asked(3), tone(0.5)).expect("queued");
    assert_eq!(hear(&short).expect("a transcript"), single);
    let long = hear(&long).expect("a transcript");
    assert_eq!(long.duration_ms, 4_000);
    let mut last = 0;
    for segment in &long.segments {
        assert!(segment.start_ms < segment.end_ms && segment.start_ms >= last, "{long:?}");
        assert!(segment.window_ms <= segment.start_ms);
        last = segment.start_ms;
    }
    assert!(long.completion_tokens > 0);
    assert!(engine.status().progress > 0);
    let status = engine.status();
    assert_eq!((status.models[0].running, status.models[0].queued), (0, 0));
    // The threads change nothing; what is asked does.
    let other = crate::testing::engine(EngineConfig { threads: 3, ..config() });
    other.add_model(directory.path(), "ears", MODEL).expect("a model");
    assert_eq!(heard(&other, asked(1), 4.0), long);
    let german = SpeechRequest { language: Some("de".to_owned()), ..asked(4) };
    assert_eq!(heard(&engine, german, 0.5).language, "de");
    let warm = SpeechRequest { temperature_milli: 900, ..asked(5) };
    let (first, again) = (heard(&engine, warm.clone(), 0.5), heard(&engine, warm.clone(), 0.5));
    assert_eq!(first, again);
    assert!(first.segments.iter().all(|segment| segment.temperature_milli == 900));
    let before = SpeechRequest { prompt: "abc".to_owned(), ..asked(6) };
    assert_eq!(heard(&engine, before, 0.5).prompt_tokens, 54);
}

#[test]
fn models_are_not_asked_for_what_they_cannot_do() {
    let (several, english) = (tiny(true), tiny(false));
    english.write("model.safetensors", &weights(2));
    let engine = engine(config());
    engine.add_model(several.path(), "ears", MODEL).expect("a model");
    let other = ModelDigest([2; 32]);
    engine.add_model(english.path(), "english", other).expect("a model");
    let refused = |request: SpeechRequest| {
        let told = begin(&engine, request, tone(0.3)).expect("queued");
        hear(&told).expect_err("refused")
    };
    let french = Some("fr".to_owned());
    let unknown = refused(SpeechRequest { language: french.clone(), ..asked(1) });
    assert_eq!(unknown.param.as_deref(), Some("language"));
    let only = refused(SpeechRequest { model: other, language: french, ..asked(2) });
    assert!(only.message.contains("English only"), "{only}");
    let task = SpeechTask::Translate;
    let none = refused(SpeechRequest { model: other, task, ..asked(3) });
    assert_eq!((none.code, none.param.as_deref()), (Code::Unsupported, Some("model")));
    let long = refused(SpeechRequest { prompt: "a".repeat(5_000), ..asked(4) });
    assert_eq!(long.param.as_deref(), Some("prompt"));
    let english = Some("en".to_owned());
    assert_eq!(
        heard(&engine, SpeechRequest { model: other, language: english, ..asked(5) }, 0.3).language,
        "en"
    );
    for sound in [Vec::new(), vec![0; 3_601 * 16_000]] {
        let refused = begin(&engine, asked(6), sound).expect_err("not heard");
        assert_eq!(refused.param.as_deref(), Some("file"));
    }
    let input = Input::Text("a".to_owned());
    let texts = EmbedRequest { id: RequestId(7), model: MODEL, texts: vec![], cut: true };
    let refused = [
        engine.submit("", request(8, MODEL, input.clone()), Box::new(Outlet(mpsc::channel().0))),
        engine.count_tokens(MODEL, &input).map(|_| ()),
        engine.embed(texts, Box::new(|_| ())),
    ];
    for refused in refused {
        let refused = refused.expect_err("it hears");
        assert!(refused.message.contains("writes down what is said"), "{refused}");
    }
    let gone = SpeechRequest { model: ModelDigest([9; 32]), ..asked(9) };
    assert_eq!(begin(&engine, gone, tone(0.1)).expect_err("none").code, Code::ModelNotFound);
}

#[test]
fn whoever_gives_up_leaves_and_whoever_asks_a_broken_model_is_told() {
    let directory = tiny(true);
    let lazy = engine(EngineConfig { lazy: true, ..config() });
    lazy.add_model(directory.path(), "ears", MODEL).expect("a model");
    assert_eq!(lazy.status().models[0].state, ModelState::Cold);
    let told = begin(&lazy, asked(1), tone(900.0)).expect("queued");
    lazy.cancel(RequestId(1));
    assert_eq!(hear(&told).expect_err("given up").code, Code::Cancelled);
    // The first request loads it.
    assert_eq!(heard(&lazy, asked(2), 0.2).duration_ms, 200);
    assert!(lazy.remove_model("ears"));
    assert_eq!(begin(&lazy, asked(3), tone(0.1)).expect_err("gone").code, Code::ModelNotFound);
    directory.write("tokenizer.json", b"{}");
    let broken = engine(EngineConfig { lazy: true, ..config() });
    broken.add_model(directory.path(), "ears", MODEL).expect("its header is good");
    let refused = hear(&begin(&broken, asked(1), tone(0.1)).expect("queued")).expect_err("broken");
    assert!(refused.message.contains("tokenizer.json"), "{refused}");
    assert_eq!(broken.status().models[0].state, ModelState::Failed);
}

#[test]
fn sound_of_less_than_a_row_says_nothing() {
    let directory = tiny(true);
    let engine = engine(config());
    engine.add_model(directory.path(), "ears", MODEL).expect("a model");
    let told = hear(&begin(&engine, asked(1), vec![5; 100]).expect("queued")).expect("nothing");
    assert_eq!((told.segments.len(), told.duration_ms), (0, 6));
}

#[test]
fn an_engine_that_ends_tells_those_who_wait() {
    let directory = tiny(true);
    let engine = engine(EngineConfig { memory_budget_bytes: 1, ..config() });
    engine.add_model(directory.path(), "ears", MODEL).expect("a model");
    match begin(&engine, asked(1), tone(0.1)) {
        Ok(told) => assert_eq!(hear(&told).expect_err("no room").code, Code::OutOfMemory),
        Err(refused) => assert_eq!(refused.code, Code::OutOfMemory),
    }
    drop(engine);
}

#[test]
fn a_model_that_hears_and_one_that_writes_make_room_for_each_other() {
    let (directory, file) = (tiny(true), temporary(&Writer::tiny(1).bytes()));
    let ears = {
        let engine = engine(config());
        engine.add_model(directory.path(), "ears", MODEL).expect("a model");
        heard(&engine, asked(1), 0.5);
        engine.memory().taken
    };
    let memory_budget_bytes = needs(file.path()).max(ears);
    let engine = engine(EngineConfig { lazy: true, memory_budget_bytes, ..config() });
    engine.add_model(directory.path(), "ears", MODEL).expect("a model");
    let writer = ModelDigest([2; 32]);
    engine.add_model(file.path(), "writer", writer).expect("a model");
    let words = heard(&engine, asked(1), 0.5);
    for _ in 0..2 {
        let (sender, answers) = mpsc::channel();
        let ask = request(2, writer, Input::Text("x".to_owned()));
        engine.submit("acme", ask, Box::new(Outlet(sender))).expect("submitted");
        assert!(collect(&answers).finished.is_some());
        assert_eq!(heard(&engine, asked(3), 0.5), words);
        assert_eq!(engine.memory().taken, ears, "the other one is gone");
    }
    assert_eq!(engine.memory().counts.evicted_oldest, 4);
}
