use std::sync::mpsc;
use std::time::Duration;

use selvedge_base::{Micros, RequestId};
use selvedge_contract::{Engine, Input};

use super::super::folder::tests::copied;
use super::super::golden_tests::{Case, cases, fixtures};
use super::*;
use crate::testing::{Directory, engine};
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
    let cut = &picture[..picture.len() / 2];
    for (engine, inputs, says) in [
        (&vit, bytes("image", &[good, b"GIF89a"]), "picture 1: it is neither PNG nor JPEG"),
        (&vit, bytes("image", &[good, cut]), "picture 1: "),
        (&vit, bytes("image", &[&bomb]), "picture 0: its points have more than 96 MiB"),
        (&vit, bytes("image", &[]), "0 pictures"),
        (&vit, bytes("image", &[good; 65]), "65 pictures"),
        (&vit, bytes("labels", &[b"a"]), "no input 'labels'"),
        (&clip, bytes("labels", &[b"a".as_slice(); 1_025]), "1025 labels"),
        (&clip, bytes("labels", &[&[b'a'; 1_025]]), "a label of 1025 bytes"),
        (&clip, bytes("labels", &[&[0xff]]), "not UTF-8"),
        (&clip, bytes("labels", &["dog ".repeat(50).as_bytes()]), "longer than the 20 tokens"),
    ] {
        let refused = told(engine, asked(1, vec![inputs], &[])).expect_err("must be refused");
        assert!(refused.message.contains(says), "{refused} / {says}");
        assert_eq!(refused.blame, selvedge_base::Blame::Client, "{refused}");
    }
    told(&vit, asked(2, vec![bytes("image", &[good])], &[])).expect("it goes on");
    let text = crate::testing::request(3, MODEL, Input::Text("a".to_owned()));
    let (sender, _heard) = mpsc::channel();
    let refused = vit.submit("tenant", text, Box::new(crate::testing::Outlet(sender)));
    assert!(refused.expect_err("it writes nothing").message.contains("generates no text"));
}

#[test]
fn a_request_that_is_given_up_ends_and_others_go_on() {
    let (engine, picture) = (with("vit"), of("vit")[0].bytes());
    let pictures = vec![picture.as_slice(); 64];
    let long = begin(&engine, asked(1, vec![bytes("image", &pictures)], &[])).expect("queued");
    let short = begin(&engine, asked(2, vec![bytes("image", &[&picture])], &[])).expect("queued");
    engine.cancel(RequestId(1));
    assert_eq!(end(&short).expect("classes")[2].shape, [1, 7]);
    // It may have been over before it was given up.
    if let Err(refused) = end(&long) {
        assert_eq!(refused.code, Code::Cancelled);
    }
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
