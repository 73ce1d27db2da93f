use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use candle_core::Device;
use selvedge_base::{Code, Micros, Mono, RequestId};
use selvedge_contract::residence::{Room, Wish};
use selvedge_contract::{Engine, Input};

use super::super::folder::Folder;
use super::super::folder::tests::copied;
use super::super::golden_tests::{Case, cases, fixtures};
use super::*;
use crate::card::inspect;
use crate::shared::Makes;
use crate::testing::{Directory, Outlet, Writer, collect, engine, needs, request, temporary};
use crate::{EngineConfig, LocalEngine};

const MODEL: ModelDigest = ModelDigest([1; 32]);
const OTHER: ModelDigest = ModelDigest([2; 32]);

type Told<T> = mpsc::Receiver<Result<T, Refusal>>;

fn running() -> LocalEngine {
    engine(EngineConfig { threads: 1, ..EngineConfig::default() })
}

fn with(model: &str) -> LocalEngine {
    let engine = running();
    engine.add_model(&fixtures().join(model), model, MODEL).expect("a model");
    engine
}

/// A desk whose steps the test takes, with a model in memory.
fn by_hand(model: &str) -> (Arc<Shared>, Desk) {
    let config = EngineConfig { threads: 1, ..EngineConfig::default() };
    let shared = Shared::new(config, Arc::new(|| Mono(0)));
    let path = fixtures().join(model);
    let card = inspect(&path).expect("reads").card(model, MODEL);
    assert!(shared.add(card, path.clone(), Makes::default()).expect("added"));
    let seer = Seer::load(&Folder::open(&path).expect("reads")).expect("loads");
    let room = Room { weights: 1, beside: 0 };
    let reservation = shared.make_room(MODEL, room, Wish::Ahead).expect("room");
    let mut desk = Desk::new(Arc::clone(&shared), Device::Cpu);
    desk.receive(VecDeque::from([Message::Loaded(MODEL, Box::new((seer, reservation)))]));
    (shared, desk)
}

/// A request for classes of pictures, as that desk is told.
fn queued(
    (shared, desk): (&Arc<Shared>, &mut Desk),
    id: u128,
    pictures: &[&[u8]],
) -> Told<Vec<Tensor>> {
    let (sender, heard) = mpsc::channel();
    let request = asked(id, vec![bytes("image", pictures)], &[]);
    let sink: InferSink = Box::new(move |end| drop(sender.send(end)));
    let job = Job::tensors(&request, sink, || shared.admit(request.id, MODEL)).expect("fits");
    desk.receive(VecDeque::from([Message::Job(Box::new(job))]));
    heard
}

fn bytes(name: &str, elements: &[&[u8]]) -> Tensor {
    Tensor::of_bytes(name, vec![elements.len() as u64], elements.iter().copied())
}

fn asked(id: u128, inputs: Vec<Tensor>, outputs: &[&str]) -> InferRequest {
    let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
    InferRequest { id: RequestId(id), model: MODEL, inputs, outputs, within: Micros::secs(60) }
}

fn begin(engine: &LocalEngine, request: InferRequest) -> Result<Told<Vec<Tensor>>, Refusal> {
    let (sender, heard) = mpsc::channel();
    engine.infer(request, Box::new(move |end| drop(sender.send(end)))).map(|()| heard)
}

/// A minute is far more than any test's pictures take; it turns a hang into a failure.
fn end<T>(told: &Told<T>) -> Result<T, Refusal> {
    told.recv_timeout(Duration::from_secs(60)).expect("an end")
}

fn told(engine: &LocalEngine, request: InferRequest) -> Result<Vec<Tensor>, Refusal> {
    end(&begin(engine, request)?)
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    let floats = tensor.data.as_chunks().0.iter();
    floats.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
}

fn of(model: &str) -> Vec<Case> {
    cases().into_iter().filter(|case| case.model == model).collect()
}

#[test]
fn classes_of_pictures_come_as_those_of_graphs_do() {
    let (engine, cases) = (with("vit"), of("vit"));
    let card = engine.status().models[0].card.clone();
    assert!(card.infers() && card.sees() && !card.embeds() && !card.writes() && !card.hears());
    let pictures: Vec<Vec<u8>> = cases.iter().map(Case::bytes).collect();
    let pictures: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
    let batch = told(&engine, asked(1, vec![bytes("image", &pictures)], &[])).expect("classes");
    let shapes: Vec<_> = batch.iter().map(|tensor| (&*tensor.name, &*tensor.shape)).collect();
    let count = cases.len() as u64;
    assert_eq!(
        shapes,
        [("label", &[count, 5][..]), ("probability", &[count, 5]), ("probabilities", &[count, 7]),]
    );
    let (names, all) = (batch[0].byte_elements().expect("whole"), floats(&batch[2]));
    for (at, case) in cases.iter().enumerate() {
        let one = asked(2, vec![bytes("image", &[pictures[at]])], &["probabilities", "label"]);
        let alone = told(&engine, one).expect("classes");
        assert_eq!(floats(&alone[0]), all[at * 7..][..7], "{}", case.picture);
        assert_eq!(alone[1].byte_elements().expect("whole"), names[at * 5..][..5]);
    }
    // As JSON has it.
    let coded = base64_of(pictures[0]);
    let again = told(&engine, asked(3, vec![bytes("image", &[coded.as_bytes()])], &[]));
    assert_eq!(floats(&again.expect("classes")[2]), all[..7]);
    assert!(engine.status().progress > 0);
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn what_was_left_out_is_not_made() {
    let (engine, cases) = (with("clip"), of("clip"));
    let case = &cases[0];
    let (picture, texts) = (case.bytes(), case.texts());
    let texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
    let (image, labels) = (bytes("image", &[&picture]), bytes("labels", &texts));
    let names = |told: &[Tensor]| -> Vec<String> {
        told.iter().map(|tensor| tensor.name.clone()).collect()
    };
    let both = told(&engine, asked(1, vec![image.clone(), labels.clone()], &[])).expect("all");
    assert_eq!(names(&both).join(" "), "label probability probabilities embedding text_embedding");
    for (got, wanted) in floats(&both[2]).iter().zip(case.floats("shares")) {
        assert!((got - wanted).abs() < 1e-4, "{got} {wanted}");
    }
    let seen = told(&engine, asked(2, vec![image.clone()], &[])).expect("a vector");
    assert_eq!((names(&seen), &seen[0].data), (vec!["embedding".to_owned()], &both[3].data));
    let read = told(&engine, asked(3, vec![labels.clone()], &["text_embedding"])).expect("vectors");
    assert_eq!((read[0].shape.as_slice(), &read[0].data), (&[5, 24][..], &both[4].data));
    let none = bytes("labels", &[]);
    let empty = told(&engine, asked(4, vec![image.clone(), none], &["embedding"])).expect("one");
    assert_eq!(empty[0].data, both[3].data);
    for (inputs, outputs, says) in [
        (vec![image.clone()], &["probabilities"][..], "needs the input 'labels'"),
        (vec![labels.clone()], &["embedding"], "needs the input 'image'"),
        (vec![], &[], "0 pictures and 0 labels"),
        (vec![image.clone()], &["class"], "no output 'class'"),
        (vec![image, labels.clone(), labels], &[], "given twice"),
    ] {
        let refused = told(&engine, asked(5, inputs, outputs)).expect_err("must be refused");
        assert!(refused.message.contains(says), "{refused}");
    }
}

#[test]
fn texts_have_their_vectors_as_of_any_model_of_embeddings() {
    let (engine, case) = (with("clip"), &of("clip")[0]);
    let card = engine.status().models[0].card.clone();
    assert!(card.embeds() && card.infers() && !card.writes());
    assert_eq!(engine.dimensions(MODEL), Some(24));
    let read = told(&engine, {
        let texts = case.texts();
        let texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        asked(1, vec![bytes("labels", &texts)], &[])
    });
    let wanted = floats(&read.expect("vectors")[0]);
    let embed = |texts: Vec<String>, cut: bool| {
        let (sender, heard) = mpsc::channel();
        let request = EmbedRequest { id: RequestId(2), model: MODEL, texts, cut };
        engine.embed(request, Box::new(move |end| drop(sender.send(end)))).expect("queued");
        end(&heard)
    };
    let made = embed(case.texts(), false).expect("vectors");
    assert_eq!(made.tokens as f64, case.floats("tokens").iter().sum::<f64>());
    let got: Vec<f64> = made.vectors.iter().flatten().map(|number| f64::from(*number)).collect();
    assert_eq!(got, wanted);
    // Many tokens are read in several turns, and what is too long is cut or refused.
    let many = embed(vec!["dog ".repeat(100); 60], true).expect("vectors");
    assert_eq!((many.vectors.len(), many.tokens), (60, 60 * 20));
    assert!(many.vectors.iter().all(|vector| *vector == many.vectors[0]));
    let refused = embed(vec!["dog ".repeat(100)], false).expect_err("too long");
    assert_eq!(refused.code, Code::ContextLengthExceeded);
}

#[test]
fn what_is_no_picture_and_no_text_is_refused_with_its_place() {
    let (vit, clip, picture) = (with("vit"), with("clip"), of("vit")[0].bytes());
    let good = picture.as_slice();
    let mut bomb = picture.clone();
    // Sides of a PNG stand at its sixteenth byte.
    bomb[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
    let mut sum = flate2::Crc::new();
    sum.update(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&sum.sum().to_be_bytes());
    let mut wide = std::fs::read(fixtures().join("large.jpg")).expect("a picture");
    // Sides of a JPEG stand at the fifth byte after its frame's mark.
    let frame = wide.windows(2).position(|mark| mark == [0xff, 0xc0]).expect("a frame");
    wide[frame + 5..frame + 9].copy_from_slice(&[0x10, 0, 0x10, 0]);
    let (cut, long) = (&picture[..picture.len() / 2], "dog ".repeat(50));
    for (engine, inputs, says) in [
        (&vit, bytes("image", &[good, b"GIF89a"]), "picture 1: it is neither PNG nor JPEG"),
        (&vit, bytes("image", &[good, cut]), "picture 1: "),
        (&vit, bytes("image", &[&bomb]), "picture 0: its points have more than 36 MiB"),
        (&vit, bytes("image", &[good, &wide]), "picture 1: its points have more than 36 MiB"),
        (&vit, bytes("image", &[]), "0 pictures"),
        (&vit, bytes("image", &[good; 65]), "65 pictures"),
        (&vit, bytes("labels", &[b"a"]), "no input 'labels'"),
        (&clip, bytes("labels", &[b"a".as_slice(); 1_025]), "1025 labels"),
        (&clip, bytes("labels", &[&[b'a'; 1_025]]), "label 0: it has 1025 bytes"),
        (&clip, bytes("labels", &[b"a".as_slice(), &[0xff]]), "label 1: it is not UTF-8"),
        (
            &clip,
            bytes("labels", &[b"a".as_slice(), long.as_bytes()]),
            "label 1: a text is longer than the 20",
        ),
    ] {
        let refused = told(engine, asked(1, vec![inputs], &[])).expect_err("must be refused");
        assert!(refused.message.contains(says), "{refused} / {says}");
        assert_eq!(refused.blame, selvedge_base::Blame::Client, "{refused}");
        if says.starts_with("label ") {
            assert_eq!(refused.param.as_deref(), Some("labels"), "{refused}");
        }
    }
    told(&vit, asked(2, vec![bytes("image", &[good])], &[])).expect("it goes on");
    let text = crate::testing::request(3, MODEL, Input::Text("a".to_owned()));
    let (sender, _heard) = mpsc::channel();
    let refused = vit.submit("tenant", text, Box::new(crate::testing::Outlet(sender)));
    assert!(refused.expect_err("it writes nothing").message.contains("generates no text"));
}

#[test]
fn a_request_that_is_given_up_ends_and_others_go_on() {
    let (picture, (shared, mut desk)) = (of("vit")[0].bytes(), by_hand("vit"));
    let (one, two) = ([picture.as_slice()], [picture.as_slice(); 2]);
    let over = |told: &Told<Vec<Tensor>>| told.try_recv().expect("an end");
    // Before its turn.
    let early = queued((&shared, &mut desk), 1, &two);
    let other = queued((&shared, &mut desk), 2, &one);
    shared.cancel(RequestId(1));
    desk.sweep();
    assert_eq!(over(&early).expect_err("given up").code, Code::Cancelled);
    desk.step();
    assert_eq!(over(&other).expect("classes")[2].shape, [1, 7]);
    // Within its second picture, which nothing but the layers' looking ends.
    let late = queued((&shared, &mut desk), 3, &two);
    let other = queued((&shared, &mut desk), 4, &one);
    desk.step();
    assert!(late.try_recv().is_err(), "one of two was seen");
    desk.step();
    assert_eq!(over(&other).expect("classes")[2].shape, [1, 7]);
    shared.cancel(RequestId(3));
    desk.step();
    assert_eq!(over(&late).expect_err("given up").code, Code::Cancelled);
    assert!(desk.jobs.is_empty());
}

#[test]
fn models_whose_weights_do_not_fit_are_refused_and_others_see() {
    let small = EngineConfig { memory_budget_bytes: 1 << 20, ..EngineConfig::default() };
    let small = engine(small);
    small.add_model(&fixtures().join("vit"), "vit", MODEL).expect("its header is fine");
    let picture = of("vit")[0].bytes();
    let refused = told(&small, asked(1, vec![bytes("image", &[&picture])], &[]));
    assert!(refused.expect_err("no room").message.contains("memory"));
    let engine = running();
    let damaged: Directory = copied("vit");
    let path = damaged.path().join("model.safetensors");
    let whole = std::fs::read(&path).expect("weights");
    std::fs::write(&path, &whole[..whole.len() - 4]).expect("written");
    engine.add_model(damaged.path(), "cut", OTHER).expect("its header is fine");
    let mut of_other = asked(1, vec![bytes("image", &[&picture])], &[]);
    of_other.model = OTHER;
    let refused = told(&engine, of_other).expect_err("its weights are short");
    assert!(refused.message.contains("does not lie in the file"), "{refused}");
    engine.add_model(&fixtures().join("vit"), "vit", MODEL).expect("a model");
    told(&engine, asked(2, vec![bytes("image", &[&picture])], &[])).expect("classes");
    assert!(engine.remove_model("vit"));
    assert!(begin(&engine, asked(3, vec![bytes("image", &[&picture])], &[])).is_err());
}

#[test]
fn a_model_that_sees_and_one_that_writes_make_room_for_each_other() {
    let (file, picture) = (temporary(&Writer::tiny(1).bytes()), of("vit")[0].bytes());
    let eyes = Folder::open(&fixtures().join("vit")).expect("a model").needed();
    let memory_budget_bytes = needs(file.path()).max(eyes);
    let engine = engine(EngineConfig {
        threads: 1,
        lazy: true,
        memory_budget_bytes,
        ..EngineConfig::default()
    });
    engine.add_model(&fixtures().join("vit"), "vit", MODEL).expect("a model");
    engine.add_model(file.path(), "writer", OTHER).expect("a model");
    let ask = |id| asked(id, vec![bytes("image", &[&picture])], &["probabilities"]);
    let seen = floats(&told(&engine, ask(1)).expect("classes")[0]);
    for _ in 0..2 {
        let (sender, answers) = mpsc::channel();
        let text = request(2, OTHER, Input::Text("x".to_owned()));
        engine.submit("acme", text, Box::new(Outlet(sender))).expect("submitted");
        assert!(collect(&answers).finished.is_some());
        assert_eq!(floats(&told(&engine, ask(3)).expect("classes")[0]), seen);
        assert_eq!(engine.memory().taken, eyes, "the other one is gone");
    }
    assert_eq!(engine.memory().counts.evicted_oldest, 4);
}
