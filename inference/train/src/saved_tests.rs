#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{Layer, Schema, Shape};

/// A small model of both kinds of layers, with weights that are all different.
fn saved() -> Saved {
    let shape = Shape::Image { channels: 1, height: 4, width: 4 };
    let schema = Schema { shape, classes: 3 };
    let model = Model { schema, hidden: vec![Layer::Convolution(2), Layer::Dense(5)] };
    let weights = model.first(7).unwrap();
    let notes = [("job", "digits"), ("round", "30")];
    let notes = notes.map(|(name, note)| (name.to_owned(), note.to_owned())).into();
    Saved { model, weights, notes }
}

/// A file of this header and so many bytes after it.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// A good file whose header has one text in place of another of the same length.
fn spoilt(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = saved().to_bytes().unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    Saved::from_bytes(bytes).unwrap_err().to_string()
}

#[test]
fn a_model_is_read_as_it_was_written() {
    let saved = saved();
    let bytes = saved.to_bytes().unwrap();
    assert_eq!(Saved::from_bytes(&bytes).unwrap(), saved);
    assert_eq!(bytes, saved.clone().to_bytes().unwrap(), "the same bytes each time");
    let largest = Model {
        schema: Schema { shape: Shape::Flat(255), classes: 2 },
        hidden: vec![Layer::Dense(MAX_PARAMETERS / 258)],
    };
    let weights = largest.first(1).unwrap();
    let largest = Saved { model: largest, weights, notes: BTreeMap::new() };
    assert_eq!(Saved::from_bytes(&largest.to_bytes().unwrap()).unwrap(), largest);
}

#[test]
fn any_reader_of_the_format_finds_tensors_and_layers() {
    let saved = saved();
    let bytes = saved.to_bytes().unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| tensors.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("layers.0.weight"), [2, 1, 5, 5]);
    assert_eq!(shape("layers.1.weight"), [5, 8], "two filters of 2 x 2 after pooling");
    assert_eq!(shape("layers.2.bias"), [3]);
    let flat: Vec<u8> = saved.weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    assert!(bytes.ends_with(&flat), "the data are the flat vector");
    let (header, _) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header % 8, 0, "what follows is aligned");
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let notes = header.metadata().clone().unwrap();
    assert_eq!((notes["job"].as_str(), notes["selvedge_model"].as_str()), ("digits", "1"));
    assert_eq!(serde_json::from_str::<Model>(&notes["layers"]).unwrap(), saved.model);
    assert!(notes["how"].contains("x W^T + b"));
}

#[test]
fn what_another_program_wrote_again_is_the_same_model() {
    let saved = saved();
    let bytes = saved.to_bytes().unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    // By name, and with the notes in whatever order.
    let again = safetensors::serialize(tensors.iter(), header.metadata().clone()).unwrap();
    assert_ne!(again, bytes);
    assert_eq!(Saved::from_bytes(&again).unwrap(), saved);
}

#[test]
fn what_is_no_model_is_not_written() {
    let good = saved();
    let said = |spoil: &dyn Fn(&mut Saved)| {
        let mut saved = good.clone();
        spoil(&mut saved);
        saved.to_bytes().unwrap_err().to_string()
    };
    assert!(said(&|saved| saved.weights.truncate(9)).starts_with("9 weights"));
    assert!(said(&|saved| saved.weights[4] = f32::NAN).contains("weight 4 is not"));
    assert!(said(&|saved| saved.model.hidden.push(Layer::Dense(0))).contains("no units"));
    let note = |name: &str, text: String| {
        said(&|saved| drop(saved.notes.insert(name.to_owned(), text.clone())))
    };
    assert!(note("layers", String::new()).contains("called 'layers'"));
    assert!(note("long", "x".repeat(MAX_HEADER_BYTES)).contains("header"));
}

#[test]
fn files_that_are_no_model_are_refused_with_a_reason() {
    assert!(refusal(b"").contains("no whole safetensors file"));
    assert!(refusal(&vec![0; MAX_SAVED_BYTES + 1]).contains("at most"));
    assert!(refusal(b"PK\x03\x04 a zip archive").contains("header says"));
    assert!(refusal(&file("{}", 0)).contains("no note 'selvedge_model'"));
    assert!(refusal(&file("{", 0)).contains("safetensors"));
    // A tensor that says to be huge, and one beyond the end.
    let huge = r#"{"a":{"dtype":"F32","shape":[4294967295,4294967295,9],"data_offsets":[0,4]}}"#;
    assert!(refusal(&file(huge, 4)).contains("safetensors"));
    let beyond = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    assert!(refusal(&file(beyond, 4)).contains("safetensors"));
    let deep = format!(r#"{{"a":{}"#, "[".repeat(60_000));
    assert!(refusal(&file(&deep, 0)).contains("safetensors"));
    let newer = spoilt(r#""selvedge_model":"1""#, r#""selvedge_model":"2""#);
    assert!(refusal(&newer).contains("version '2'"));
    // Layers that would take all memory, and such as do not fit the tensors.
    let many = spoilt(r#"{\"convolution\":2}"#, r#"{\"dense\":9999999}"#);
    assert!(refusal(&many).contains("more than the limit"), "{}", refusal(&many));
    let other = spoilt(r#"{\"dense\":5}"#, r#"{\"dense\":6}"#);
    assert!(refusal(&other).contains("layers.1.weight is F32 [5, 8] and must be F32 [6, 8]"));
    let renamed = spoilt("layers.2.bias", "layers.2.bios");
    assert!(refusal(&renamed).contains("layers.2.bias is not there"));
    // What a file says reaches a terminal only as letters.
    let rude = r#"{"\u001b[2J":{"dtype":"F32","shape":[1],"data_offsets":[3,4]}}"#;
    assert!(!refusal(&file(rude, 4)).contains(char::is_control), "{}", refusal(&file(rude, 4)));
    let rude = spoilt(r#"{\"dense\":5}"#, r#"{\"\\u001b\"}"#);
    assert!(!refusal(&rude).contains(char::is_control), "{}", refusal(&rude));
    let mut infinite = saved().to_bytes().unwrap();
    let end = infinite.len() - 4;
    infinite[end..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert!(refusal(&infinite).contains("not a finite number"));
    let whole = saved().to_bytes().unwrap();
    for end in 0..whole.len() {
        assert!(Saved::from_bytes(&whole[..end]).is_err(), "cut at {end}");
    }
    assert!(Saved::from_bytes(&[&whole[..], &[0]].concat()).is_err(), "with a byte after it");
}

proptest! {
    /// Whatever was turned in a file, reading ends, and what is read can be written.
    #[test]
    fn damaged_files_are_refused_or_are_models(
        turned in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = saved().to_bytes().unwrap();
        for (at, value) in turned {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(saved) = Saved::from_bytes(&bytes) {
            prop_assert!(saved.to_bytes().is_ok());
        }
    }
}
