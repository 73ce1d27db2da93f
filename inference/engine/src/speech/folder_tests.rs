use serde_json::json;

use super::super::Listener;
use super::super::testing::{config, tiny, tokenizer};
use super::*;

fn refusal(path: &Path) -> String {
    let opened = Folder::open(path).and_then(|folder| Listener::load(&folder).map(|_| ()));
    opened.expect_err("refused").to_string()
}

#[test]
fn a_directory_says_what_it_is_and_loads() {
    let directory = tiny(true);
    assert!(is_folder(directory.path()));
    let folder = Folder::open(directory.path()).expect("reads");
    let facts = folder.facts();
    assert_eq!((facts.architecture.as_str(), facts.quantization.as_str()), ("whisper", "F32"));
    assert_eq!((facts.context_length, facts.dimensions, facts.chat), (40, None, false));
    assert_eq!(folder.suppressed_first, Some(vec![0, 10]));
    assert!(Listener::load(&folder).is_ok());
    let other = crate::embed::folder::tests::tiny();
    assert!(!is_folder(other.path()));
    assert!(!is_folder(Path::new("nowhere")));
}

#[test]
fn older_directories_say_all_in_one_file() {
    let directory = tiny(true);
    directory.write("generation_config.json", b"{}");
    let mut all = config();
    all["suppress_tokens"] = json!([-1, 1, 2]);
    all["begin_suppress_tokens"] = json!(null);
    directory.write("config.json", all.to_string().as_bytes());
    let folder = Folder::open(directory.path()).expect("reads");
    assert_eq!((folder.suppressed, folder.suppressed_first), (vec![1, 2], None));
    assert_eq!(folder.multilingual, None);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let directory = tiny(false);
    for (field, value, part) in [
        ("activation_function", json!("relu"), "'relu'"),
        ("scale_embedding", json!(true), "scaled"),
        ("d_model", json!(u64::from(u32::MAX)), "d_model"),
        ("d_model", json!(40), "rows of 40"),
        ("encoder_layers", json!(0), "encoder_layers"),
        ("decoder_layers", json!(2), "decoder.layers.1.self_attn"),
        ("decoder_attention_heads", json!(3), "heads"),
        ("num_mel_bins", json!(9), "[32, 8, 3], not [32, 9, 3]"),
        ("max_source_positions", json!(51), "[50, 32], not [51, 32]"),
        ("vocab_size", json!(-1), "config.json"),
        ("suppress_tokens", json!(vec![1; 5_000]), "suppressed"),
    ] {
        let mut changed = config();
        changed[field] = value;
        directory.write("config.json", changed.to_string().as_bytes());
        directory.write("generation_config.json", b"{}");
        let said = refusal(directory.path());
        assert!(said.contains(part), "{field}: {said}");
    }
}

#[test]
fn tokenizers_without_the_marks_are_refused() {
    let directory = tiny(true);
    directory.write("tokenizer.json", b"{}");
    assert!(refusal(directory.path()).contains("tokenizer.json"));
    for (at, mark) in [(1, "startoftranscript"), (7, "startofprev"), (8, "silence")] {
        let mut changed = tokenizer();
        changed["added_tokens"][at]["content"] = json!("<|other|>");
        directory.write("tokenizer.json", changed.to_string().as_bytes());
        let said = refusal(directory.path());
        assert!(said.contains(mark), "{mark}: {said}");
    }
}
