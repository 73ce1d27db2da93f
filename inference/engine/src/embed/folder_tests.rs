use std::path::Path;

use selvedge_base::Dice;
use serde_json::{Value, json};

use super::*;
use crate::testing::Directory;

/// The shapes of the tiny model's tensors.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let (width, wide) = (16, 32);
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![12, width]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![20, width]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, width]),
    ];
    let mut pair = |name: &str, dims: &[usize]| {
        shapes.push((format!("{name}.weight"), dims.to_vec()));
        shapes.push((format!("{name}.bias"), vec![dims[0]]));
    };
    pair("embeddings.LayerNorm", &[width]);
    for part in ["query", "key", "value"] {
        pair(&format!("encoder.layer.0.attention.self.{part}"), &[width, width]);
    }
    pair("encoder.layer.0.attention.output.dense", &[width, width]);
    pair("encoder.layer.0.attention.output.LayerNorm", &[width]);
    pair("encoder.layer.0.intermediate.dense", &[wide, width]);
    pair("encoder.layer.0.output.dense", &[width, wide]);
    pair("encoder.layer.0.output.LayerNorm", &[width]);
    shapes
}

/// A file of weights: header, then numbers.
pub(crate) fn weights(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (mut header, mut data, mut dice) = (json!({}), Vec::new(), Dice::keyed(1, "bert"));
    for (name, shape) in shapes() {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            let number = (dice.below(2_001) as f32 - 1_000.0) / 2_000.0;
            data.extend(number.to_le_bytes());
        }
        header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
    }
    change(&mut header);
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

pub(crate) fn config() -> Value {
    json!({
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": 16, "intermediate_size": 32,
        "num_attention_heads": 2, "num_hidden_layers": 1, "max_position_embeddings": 20,
        "type_vocab_size": 2, "vocab_size": 12, "layer_norm_eps": 1e-12
    })
}

fn tokenizer() -> Value {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "e", "f", "g", "##a"];
    let vocabulary = words.iter().enumerate().map(|(at, word)| ((*word).to_owned(), json!(at)));
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false})
    };
    json!({
        "version": "1.0",
        "added_tokens": [special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary.collect::<serde_json::Map<_, _>>()}
    })
}

/// The tiny model's directory.
pub(crate) fn tiny() -> Directory {
    let directory = Directory::new();
    directory.write("config.json", config().to_string().as_bytes());
    directory.write("tokenizer.json", tokenizer().to_string().as_bytes());
    directory.write("model.safetensors", &weights(|_| ()));
    directory
}

fn refusal(path: &Path) -> String {
    let opened = Folder::open(path).and_then(|folder| super::super::Reader::load(&folder));
    opened.err().expect("refused").to_string()
}

#[test]
fn a_directory_without_modules_means_the_mean_of_unit_length() {
    let directory = tiny();
    let folder = Folder::open(directory.path()).expect("reads");
    assert_eq!((folder.pooling, folder.unit, folder.longest), (Pooling::Mean, true, 20));
    let facts = folder.facts();
    assert_eq!((facts.dimensions, facts.context_length), (Some(16), 20));
    assert!(super::super::Reader::load(&folder).is_ok());
}

#[test]
fn modules_say_what_becomes_of_the_rows() {
    let directory = tiny();
    let module = |kind: &str, path: &str| {
        let kind = format!("sentence_transformers.models.{kind}");
        json!({"type": kind, "path": path})
    };
    let modules =
        |list: &[Value]| directory.write("modules.json", json!(list).to_string().as_bytes());
    let pooling = |mode: &str| {
        directory.write("1_Pooling/config.json", json!({ mode: true }).to_string().as_bytes());
    };
    let two = [module("Transformer", ""), module("Pooling", "1_Pooling")];
    modules(&two);
    for (mode, expected) in [
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_cls_token", Pooling::First),
        ("pooling_mode_max_tokens", Pooling::Greatest),
    ] {
        pooling(mode);
        let folder = Folder::open(directory.path()).expect("reads");
        assert_eq!((folder.pooling, folder.unit), (expected, false));
    }
    directory.write("sentence_bert_config.json", br#"{"max_seq_length": 9}"#);
    assert_eq!(Folder::open(directory.path()).expect("reads").longest, 9);
    pooling("pooling_mode_lasttoken");
    assert!(refusal(directory.path()).contains("this pooling"));
    pooling("pooling_mode_mean_tokens");
    modules(&[two[0].clone(), two[1].clone(), module("Dense", "2_Dense")]);
    assert!(refusal(directory.path()).contains("Transformer, Pooling, Dense"));
    modules(&[two[0].clone(), module("Pooling", "../elsewhere")]);
    assert!(refusal(directory.path()).contains("elsewhere than in 1_Pooling"));
}

#[test]
fn configurations_that_do_not_fit_are_refused_by_name() {
    let directory = tiny();
    for (field, value, part) in [
        ("model_type", json!("roberta"), "'roberta'"),
        ("hidden_act", json!("relu"), "hidden_act"),
        ("position_embedding_type", json!("relative_key"), "position_embedding_type"),
        ("hidden_size", json!(u64::from(u32::MAX)), "hidden_size"),
        ("hidden_size", json!(24), "rows of 24"),
        ("num_hidden_layers", json!(0), "num_hidden_layers"),
        ("num_hidden_layers", json!(2), "encoder.layer.1.attention.self.query.weight"),
        ("layer_norm_eps", json!(7), "layer_norm_eps"),
        ("vocab_size", json!(13), "[12, 16], not [13, 16]"),
        ("vocab_size", json!(-1), "config.json"),
    ] {
        let mut config = config();
        config[field] = value;
        directory.write("config.json", config.to_string().as_bytes());
        let said = refusal(directory.path());
        assert!(said.contains(part), "{field}: {said}");
    }
    directory.write("config.json", &vec![b' '; 2 << 20]);
    assert!(refusal(directory.path()).contains("more than"));
}

#[test]
fn hostile_headers_are_refused_before_anything_is_believed() {
    let directory = tiny();
    let word = "embeddings.word_embeddings.weight";
    let write = |bytes: &[u8]| directory.write("model.safetensors", bytes);
    for (offsets, shape, dtype, part) in [
        (json!([0, u64::MAX]), json!([12, 16]), "F32", ""),
        (json!([768, 0]), json!([12, 16]), "F32", ""),
        (json!([0, 764]), json!([12, 16]), "F32", ""),
        (json!([0, 768]), json!([u64::MAX, u64::MAX]), "F32", ""),
        (json!([0, 768]), json!([16, 12]), "F32", "has the shape"),
        (json!([0, 768]), json!([12, 16]), "I32", "of type I32"),
        (json!([0, 768]), json!([12, 16]), "X9", "header"),
    ] {
        write(&weights(|header| {
            header[word] = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        }));
        let said = refusal(directory.path());
        assert!(said.contains(part), "{dtype} {shape} {offsets}: {said}");
    }
    let whole = weights(|_| ());
    for bytes in [
        Vec::new(),
        vec![1, 2, 3],
        u64::MAX.to_le_bytes().to_vec(),
        [&(8_u64 << 20).to_le_bytes()[..], &vec![b' '; 8 << 20]].concat(),
        [&20_u64.to_le_bytes()[..], b"{\"a\":[[[[[[[[[[[[[["].concat(),
        whole[..whole.len() - 1].to_vec(),
        whole[..100].to_vec(),
    ] {
        write(&bytes);
        refusal(directory.path());
    }
    // Deeper than any parser's stack.
    let deep = [&200_000_u64.to_le_bytes()[..], &vec![b'['; 200_000]].concat();
    write(&deep);
    assert!(refusal(directory.path()).contains("header"));
    write(&whole);
    assert!(Folder::open(directory.path()).is_ok());
}

#[test]
fn tokenizers_that_do_not_fit_are_refused() {
    let directory = tiny();
    directory.write("tokenizer.json", b"{}");
    assert!(refusal(directory.path()).contains("tokenizer.json"));
    let mut larger = tokenizer();
    larger["model"]["vocab"]["h"] = json!(12);
    directory.write("tokenizer.json", larger.to_string().as_bytes());
    assert!(refusal(directory.path()).contains("knows 13 tokens and the model 12"));
}

#[test]
fn marks_that_leave_no_room_for_a_text_are_refused() {
    let mark = r#"{"SpecialToken":{"id":"m","type_id":0}}"#;
    let tokenizer = |marks: usize| {
        let marks = vec![mark; marks].join(",");
        format!(
            r#"{{"added_tokens":[],"model":{{"type":"WordLevel","vocab":{{"a":0,"m":1}},
            "unk_token":"a"}},"post_processor":{{"type":"TemplateProcessing",
            "single":[{marks},{{"Sequence":{{"id":"A","type_id":0}}}}],
            "pair":[{{"Sequence":{{"id":"A","type_id":0}}}},
            {{"Sequence":{{"id":"B","type_id":0}}}}],
            "special_tokens":{{"m":{{"id":"m","ids":[1],"tokens":["m"]}}}}}}}}"#
        )
    };
    let read = |marks| crate::inspect_tokenizer_bytes(tokenizer(marks).as_bytes(), "a", 4);
    assert_eq!(read(3).expect("one token of text"), [1, 1, 1, 0]);
    for marks in [4, 5, 300] {
        let refused = read(marks).expect_err("no room").to_string();
        assert!(refused.contains(&format!("{marks} marks around texts of 4")), "{refused}");
    }
}
