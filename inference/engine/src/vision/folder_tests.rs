use serde_json::json;

use super::super::Seer;
use super::super::golden_tests::fixtures;
use super::*;
use crate::testing::Directory;

/// A copy of a fixture's directory, whose files can be changed.
pub(crate) fn copied(model: &str) -> Directory {
    let directory = Directory::new();
    for entry in std::fs::read_dir(fixtures().join(model)).expect("a fixture") {
        let entry = entry.expect("an entry");
        let bytes = std::fs::read(entry.path()).expect("a file");
        directory.write(&entry.file_name().to_string_lossy(), &bytes);
    }
    directory
}

fn json_of(directory: &Directory, name: &str) -> Value {
    let bytes = std::fs::read(directory.path().join(name)).expect("a file");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn refusal(path: &Path) -> String {
    let opened = Folder::open(path).and_then(|folder| Seer::load(&folder).map(|_| ()));
    opened.expect_err("must be refused").to_string()
}

#[test]
fn a_directory_says_what_it_is() {
    for (model, architecture, kind, context, dimensions) in [
        ("vit", "vit", "F32", 0, None),
        ("clip", "clip", "F32", 20, Some(24)),
        ("clip-old", "clip", "F16", 20, Some(24)),
    ] {
        let path = fixtures().join(model);
        assert!(is_folder(&path));
        let folder = Folder::open(&path).expect("reads");
        assert!(folder.needed() > MAX_POINT_BYTES + 50_000);
        let facts = folder.facts();
        assert_eq!((&*facts.architecture, &*facts.quantization), (architecture, kind));
        assert_eq!((facts.context_length, facts.dimensions), (context, dimensions));
        assert!(!facts.chat && facts.parameters > 10_000);
        let signature = facts.signature.expect("one");
        assert_eq!(signature.inputs[0].name, "image");
    }
    assert!(!is_folder(&fixtures().join("../classes/bert")));
    assert!(!is_folder(Path::new("nowhere")));
    assert_eq!(super::super::picture_files(&fixtures().join("clip")).len(), 2);
    assert!(super::super::picture_files(&fixtures().join("../classes/bert")).is_empty());
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    for (model, place, value, part) in [
        ("vit", "/architectures", json!(["ViTModel"]), "ViTForImageClassification is run here"),
        ("vit", "/hidden_size", json!(40), "rows of 40"),
        ("vit", "/hidden_size", json!(64), "[32, 3, 4, 4], not [64, 3, 4, 4]"),
        ("vit", "/hidden_size", json!(u64::from(u32::MAX)), "hidden_size is 4294967295"),
        ("vit", "/num_hidden_layers", json!(0), "num_hidden_layers is 0"),
        ("vit", "/num_hidden_layers", json!(3), "vit.encoder.layer.2"),
        ("vit", "/num_attention_heads", json!(5), "5 heads"),
        ("vit", "/image_size", json!(24), "the model sees 24 by 24"),
        ("vit", "/image_size", json!([20, 24]), "image_size is no whole number"),
        ("vit", "/image_size", json!(1_000_000), "image_size is 1000000"),
        ("vit", "/patch_size", json!(5), "not [32, 3, 5, 5]"),
        ("vit", "/patch_size", json!(21), "squares of 21"),
        ("vit", "/num_channels", json!(1), "num_channels"),
        ("vit", "/hidden_act", json!("relu"), "'relu'"),
        ("vit", "/layer_norm_eps", json!(2), "layer_norm_eps is 2"),
        ("vit", "/id2label", json!({"0": "a", "1": "b"}), "[7, 32], not [2, 32]"),
        ("vit", "/id2label", json!({"0": "a"}), "a single class"),
        ("vit", "/problem_type", json!("regression"), "problem_type"),
        ("clip", "/architectures", json!(["CLIPTextModel"]), "CLIPModel is run here"),
        ("clip", "/projection_dim", json!(0), "projection_dim is 0"),
        ("clip", "/projection_dim", json!(25), "[24, 48], not [25, 48]"),
        ("clip", "/text_config/vocab_size", json!(100), "and the model 100"),
        ("clip", "/text_config/max_position_embeddings", json!(2), "a longest text of 2"),
        ("clip", "/text_config/max_position_embeddings", json!(30), "not [30, 32]"),
        ("clip", "/text_config/hidden_size", json!(-1), "text_config"),
        ("clip", "/vision_config/num_hidden_layers", json!(3), "vision_model.encoder.layers.2"),
    ] {
        let directory = copied(model);
        let mut config = json_of(&directory, "config.json");
        let (parent, key) = place.rsplit_once('/').expect("a path");
        config.pointer_mut(parent).expect("a parent")[key] = value;
        directory.write("config.json", config.to_string().as_bytes());
        let said = refusal(directory.path());
        assert!(said.contains(part), "{model} {place}: {said}");
    }
}

#[test]
fn what_a_file_says_beside_a_half_is_meant() {
    let directory = copied("clip");
    let mut config = json_of(&directory, "config.json");
    config["text_config_dict"] = json!({"hidden_act": "gelu"});
    directory.write("config.json", config.to_string().as_bytes());
    let folder = Folder::open(directory.path()).expect("reads");
    let Kind::Clip { captions, .. } = folder.kind else { unreachable!("it is a CLIP") };
    assert_eq!(captions.tower.bend, Bend::Gelu);
    assert_eq!(folder.sight.tower.bend, Bend::QuickGelu);
}

#[test]
fn missing_and_damaged_files_are_refused() {
    let directory = copied("clip");
    let path = directory.path().join("tokenizer.json");
    std::fs::remove_file(path).expect("removed");
    assert!(refusal(directory.path()).contains("holds no tokenizer.json"));
    directory.write("tokenizer.json", b"{}");
    assert!(refusal(directory.path()).contains("tokenizer.json"));
    let directory = copied("vit");
    let whole = std::fs::read(directory.path().join("model.safetensors")).expect("weights");
    for length in [0, 7, 8, 200, whole.len() / 2, whole.len() - 1] {
        directory.write("model.safetensors", &whole[..length]);
        refusal(directory.path());
    }
    let mut long = whole.clone();
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    directory.write("model.safetensors", &long);
    assert!(refusal(directory.path()).contains("a header of"));
    std::fs::remove_file(directory.path().join("model.safetensors")).expect("removed");
    assert!(refusal(directory.path()).contains("holds no model.safetensors"));
    directory.write("config.json", b"{\"model_type\": \"vit\", \"id2label\": 7}");
    assert!(refusal(directory.path()).contains("id2label"));
}
