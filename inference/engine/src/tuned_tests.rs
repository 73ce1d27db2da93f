use std::sync::atomic::AtomicU64;

use candle_core::Tensor;
use selvedge_base::Dice;
use selvedge_contract::schedule::PAGE_TOKENS;
use selvedge_kernels::Crew;

use super::prefix::{bits, cached, prompted, tokens, told};
use super::*;
use crate::decoder::{Additions, LowRank, Projection, Tunable, TunableShape};
use crate::llama::{Llama, Logits, Segment};
use crate::tuned::TunedPart;

const RANK: usize = 3;

/// A version in which something is added to every projection.
pub(super) fn version(shape: &TunableShape, round: u64) -> TunedModel {
    let mut dice = Dice::keyed(round, "a tuned model");
    let mut draw = |count: usize| (0..count).map(|_| (dice.unit_f32() - 0.5) * 0.5).collect();
    let mut parts = Vec::new();
    for layer in 0..shape.layers {
        for projection in Projection::ALL {
            let (outputs, inputs) = projection.sides(shape);
            let (a, b) = (draw(RANK * inputs), draw(outputs * RANK));
            parts.push(TunedPart { layer, projection, a, b });
        }
    }
    let (name, digest) = ("notes".to_owned(), digest(round));
    TunedModel { name, base: MODEL, digest, round, rank: RANK, scale: 0.5, parts }
}

pub(super) fn digest(round: u64) -> ModelDigest {
    ModelDigest([100 + round as u8; 32])
}

pub(super) fn shape(file: &Temporary) -> TunableShape {
    Tunable::open(file.path()).expect("well formed").shape()
}

/// The same as whoever tunes computes it.
fn learned(model: &TunedModel, shape: &TunableShape) -> Additions {
    let matrix = |numbers: &[f32], rows: usize, columns: usize| {
        Tensor::from_slice(numbers, (rows, columns), &candle_core::Device::Cpu).expect("a matrix")
    };
    let mut added = Additions::new();
    for TunedPart { layer, projection, a, b } in &model.parts {
        let (outputs, inputs) = projection.sides(shape);
        let (a, b) = (matrix(a, model.rank, inputs), matrix(b, outputs, model.rank));
        added.insert((*layer, *projection), LowRank { a, b, scale: model.scale.into() });
    }
    added
}

fn relative(ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> f64 {
    let (mut error, mut size) = (0.0, 0.0);
    for (ours, theirs) in ours.iter().flatten().zip(theirs.iter().flatten()) {
        error += f64::from(ours - theirs).powi(2);
        size += f64::from(*theirs).powi(2);
    }
    (error / size).sqrt()
}

/// What answers is what was learned, as far as the engine's rounding of activations to eight bits
/// lets it: that moves the base's logits as much.
#[test]
fn a_tuned_model_computes_what_its_training_computed() {
    for family in ["llama", "qwen2", "qwen3"] {
        let mut writer = Writer::tiny(1);
        match family {
            "qwen2" => writer.become_qwen2(1),
            "qwen3" => writer.become_qwen3(1),
            _ => {}
        }
        let file = temporary(&writer.bytes());
        let engine = engine(config());
        engine.add_model(file.path(), "tiny", MODEL).expect("a model");
        let shape = shape(&file);
        let model = version(&shape, 1);
        engine.tune(model.clone()).expect("fits");
        let tuned = engine.shared.meant(digest(1)).1.expect("it is there");
        let gguf = Gguf::open(file.path()).expect("well formed");
        let llama = Llama::load(&gguf, &candle_core::Device::Cpu, 1, &|| ()).expect("loads");
        let prompt = tokens(1, 40);
        let ours = |added| {
            let mut cache = llama.cache().expect("a cache");
            let segment =
                Segment { cache: &mut cache, tokens: &prompt, logits: Logits::All, added };
            let mut crew = Crew::new(1).expect("threads");
            llama.step(&mut crew, &mut [segment], &AtomicU64::new(0)).expect("computes").remove(0)
        };
        let decoder = Tunable::open(file.path()).and_then(|file| file.load()).expect("loads");
        let theirs = |added: &Additions| {
            let logits = decoder.logits(&prompt, added).expect("computes");
            logits.to_vec2::<f32>().expect("rows")
        };
        let (base, taught) = (theirs(&Additions::new()), theirs(&learned(&model, &shape)));
        assert!(relative(&taught, &base) > 0.3, "{family}: it changes what comes out");
        let (plain, tuned) =
            (relative(&ours(None), &base), relative(&ours(Some(&tuned.additions)), &taught));
        assert!(tuned < 0.05 && tuned < 2.0 * plain, "{family}: off by {tuned}, base by {plain}");
    }
}

#[test]
fn base_and_tuned_share_a_batch_and_neither_pages_nor_bits() {
    let (engine, file) = with_tiny(config());
    let shape = shape(&file);
    let mut other = version(&shape, 2);
    other.name = "letters".to_owned();
    engine.tune(version(&shape, 1)).expect("fits");
    engine.tune(other).expect("fits");
    let prompt = tokens(2, 150);
    let of = |id: u128, model: ModelDigest| GenerateRequest {
        model,
        ..prompted(id, &prompt, &greedy())
    };
    let models = [MODEL, digest(1), digest(2)];
    let alone: Vec<_> = models.iter().map(|model| told(&engine, "acme", of(1, *model))).collect();
    assert!(alone.iter().all(|all| cached(all) == 0), "equal tokens are other numbers");
    let heard = alone.iter().map(bits).collect::<Vec<_>>();
    assert!(heard[0] != heard[1] && heard[1] != heard[2] && heard[0] != heard[2]);
    for (model, heard) in models.iter().zip(&heard) {
        let again = told(&engine, "acme", of(1, *model));
        assert_eq!(cached(&again), 2 * PAGE_TOKENS, "its own pages it finds");
        assert!(bits(&again) == *heard);
    }
    let gate = recovery::hold(&engine, GenerateRequest { max_tokens: 2, ..of(99, MODEL) });
    let all: Vec<_> = (0..6)
        .map(|at| {
            let (sender, receiver) = mpsc::channel();
            let request = of(at as u128 + 1, models[at % 3]);
            engine.submit("zeta", request, Box::new(Outlet(sender))).expect("a place");
            receiver
        })
        .collect();
    drop(gate.0);
    for (at, receiver) in all.iter().enumerate() {
        assert!(bits(&collect(receiver)) == heard[at % 3], "request {at} of a mixed batch");
    }
}

#[test]
fn a_new_round_answers_those_who_come_and_the_old_one_those_who_are_there() {
    let (engine, file) = with_tiny(config());
    let shape = shape(&file);
    let of = |id: u128, round: u64| GenerateRequest {
        model: digest(round),
        ..prompted(id, &tokens(3, 20), &greedy())
    };
    let card = engine.tune(version(&shape, 1)).expect("fits");
    assert_eq!((card.round(), card.digest, &*card.name), (Some(1), digest(1), "notes"));
    let first = bits(&told(&engine, "acme", of(1, 1)));
    let (gate, running) = recovery::hold(&engine, of(2, 1));
    for round in [2, 3] {
        engine.tune(version(&shape, round)).expect("fits");
    }
    let listed = |engine: &LocalEngine| {
        let models = engine.status().models.into_iter();
        models.map(|model| (model.card.name.clone(), model.card.round())).collect::<Vec<_>>()
    };
    let named = |name: &str, round| (name.to_owned(), round);
    assert_eq!(listed(&engine), [named("notes", Some(3)), named("tiny", None)]);
    drop(gate);
    assert!(bits(&collect(&running)) == first, "it ends as it began");
    let (second, third) = (told(&engine, "acme", of(3, 2)), told(&engine, "acme", of(4, 3)));
    assert!(bits(&second) != first && bits(&third) != first && bits(&second) != bits(&third));
    let refused = engine.submit("acme", of(5, 1), Box::new(Outlet(mpsc::channel().0)));
    assert_eq!(refused.expect_err("two rounds ago").code, Code::ModelNotFound);
    let input = Input::Text("abc".to_owned());
    assert_eq!(engine.count_tokens(digest(3), &input), engine.count_tokens(MODEL, &input));
    assert!(engine.untune("notes") && !engine.untune("notes"));
    assert_eq!(listed(&engine), [named("tiny", None)]);
}

#[test]
fn what_is_tuned_makes_room_and_its_base_does_not_go_for_it() {
    let files = [1, 2].map(|seed| temporary(&Writer::tiny(seed).bytes()));
    // Both fit, and nothing beside them.
    let memory_budget_bytes = 2 * crate::testing::needs(files[0].path());
    let config = EngineConfig { lazy: true, memory_budget_bytes, ..config() };
    // It stands: no model rests, and of two the one whose name comes first would go.
    let clock = Arc::new(|| selvedge_base::Mono(1));
    let engine = LocalEngine::start(config, clock).expect("starts");
    engine.add_model(files[0].path(), "tiny", MODEL).expect("a model");
    engine.add_model(files[1].path(), "zeta", OTHER).expect("a model");
    let ask = |id: u128, model: ModelDigest| {
        answer(&engine, request(id, model, Input::Text("a".to_owned())))
    };
    for (id, model) in [(1, MODEL), (2, OTHER)] {
        assert!(ask(id, model).finished.is_some());
    }
    let taken_name = TunedModel { name: "zeta".to_owned(), ..version(&shape(&files[0]), 1) };
    assert!(engine.tune(taken_name).is_err(), "nobody goes for what is refused");
    let state = |model: ModelDigest| {
        let models = engine.status().models;
        models.iter().find(|one| one.card.digest == model).expect("it is known").state
    };
    assert_eq!((state(MODEL), state(OTHER)), (ModelState::Ready, ModelState::Ready));
    engine.tune(version(&shape(&files[0]), 1)).expect("another makes room");
    assert_eq!((state(MODEL), state(OTHER)), (ModelState::Ready, ModelState::Cold));
    assert!(engine.memory().taken <= memory_budget_bytes);
    assert!(ask(3, digest(1)).finished.is_some());
}

#[test]
fn what_is_tuned_is_there_with_its_base_and_takes_no_name_away() {
    let (engine, file) = with_tiny(config());
    let shape = shape(&file);
    let why = |model: TunedModel| engine.tune(model).expect_err("refused").to_string();
    let named = |name: &str| TunedModel { name: name.to_owned(), ..version(&shape, 1) };
    assert!(why(named("tiny")).contains("already called 'tiny'"));
    assert!(why(TunedModel { base: OTHER, ..named("notes") }).contains("is not here"));
    let mut strange = named("notes");
    strange.parts[3].b.pop();
    assert!(why(strange).contains("Output"));
    assert!(why(TunedModel { rank: 40, ..named("notes") }).contains("layer 0"));
    wait_for(&engine, |status| status.models[0].state == ModelState::Ready);
    let free = engine.shared.free_bytes();
    engine.tune(named("notes")).expect("fits");
    let taken = free - engine.shared.free_bytes();
    // Of each A and B sixteen lanes: 2 layers of q, k, v, o, gate, up, down with sides of 32, 16
    // and 64.
    let lanes = 6 * 32 + 64 + 3 * (2 + 1 + 1 + 2 + 4 + 4 + 2);
    assert_eq!(taken, 2 * lanes * 64);
    assert!(engine.untune("notes"));
    assert_eq!(engine.shared.free_bytes(), free);
    engine.tune(named("notes")).expect("fits");
    assert!(engine.remove_model("tiny"));
    assert!(engine.status().models.is_empty());
    let gone = engine.submit(
        "acme",
        GenerateRequest { model: digest(1), ..text(1, "a") },
        Box::new(Outlet(mpsc::channel().0)),
    );
    assert_eq!(gone.expect_err("without its base").code, Code::ModelNotFound);
    engine.add_model(file.path(), "tiny", MODEL).expect("a model");
    assert_eq!(engine.status().models.len(), 2, "back with its base");
}
