use super::check;
use crate::card::Shape;
use crate::gguf::Gguf;
use crate::packed;
use crate::testing::{Family, Writer, temporary};

/// A tiny model of each family, and one whose table is its head.
fn models() -> Vec<(&'static str, Writer)> {
    let tied = Writer::tiny(5).without("output.weight");
    let mut all = vec![("llama", Writer::tiny(5)), ("tied", tied)];
    for (name, change) in [
        ("qwen2", Writer::become_qwen2 as fn(&mut Writer, u64)),
        ("qwen3", Writer::become_qwen3),
        ("gemma3", Writer::become_gemma3),
    ] {
        let mut writer = Writer::tiny(5);
        change(&mut writer, 6);
        all.push((name, writer));
    }
    for name in Family::NAMES {
        all.push((name, Family::read(name).writer));
    }
    all
}

/// Whether a file passes, and whether it loads.
fn judged(writer: &Writer) -> (bool, bool) {
    let file = temporary(&writer.bytes());
    let gguf = Gguf::open(file.path()).unwrap();
    let passes = Shape::read(&gguf).and_then(|shape| check(&gguf, &shape));
    (passes.is_ok(), packed::load(&gguf, 1, &|| ()).is_ok())
}

/// Each tensor left out in turn, and each with other sides: what passes is what loads.
#[test]
fn a_file_passes_exactly_if_its_weights_can_be_loaded() {
    for (family, writer) in models() {
        assert_eq!(judged(&writer), (true, true), "{family}");
        let file = temporary(&writer.bytes());
        let names: Vec<String> = Gguf::open(file.path()).unwrap().tensors.into_keys().collect();
        for name in names {
            let (passes, loads) = judged(&writer.clone().without(&name));
            assert_eq!(passes, loads, "{family} without {name}");
            let mut other = writer.clone().without(&name);
            other.matrix(7, &name, &[3, 5]);
            let (passes, loads) = judged(&other);
            // Of two kinds of factors a model has use for one.
            assert!(passes == loads && (!loads || name.contains("factors")), "{family}: {name}");
        }
    }
}
