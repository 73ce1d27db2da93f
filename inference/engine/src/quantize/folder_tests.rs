use std::sync::atomic::AtomicU64;

use selvedge_kernels::{Crew, Logits, Segment};
use serde_json::json;

use super::super::{Mixture, Recipe, quantize};
use super::*;
use crate::gguf::Gguf;
use crate::testing::families::drawn;
use crate::testing::writer::alphabet;
use crate::testing::{Family, Writer, temporary};
use crate::tokenizer::Tokenizer;

const HALF: Recipe = Recipe { mixture: Mixture::F16, again: false };

/// A directory that goes with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }
}

/// GGUF's rows of pairs as Hugging Face's halves of heads, written out by hand: row 2j of a head is
/// j of its first half, and row 2j + 1 is j of its second.
fn halved(values: &[f32], heads: usize, row: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = values.chunks(row).collect();
    let head_rows = rows.len() / heads;
    let mut all = Vec::new();
    for head in rows.chunks(head_rows) {
        head.iter().step_by(2).for_each(|row| all.extend(*row));
        head.iter().skip(1).step_by(2).for_each(|row| all.extend(*row));
    }
    all
}

/// The tiny model's weights under Hugging Face's names.
fn weights(writer: &Writer) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let width = Writer::WIDTH;
    let mut all = Vec::new();
    let mut add = |theirs: String, ours: &str, dims: &[usize], heads: Option<usize>| {
        let values = writer.values(ours).to_vec();
        let values = match heads {
            Some(heads) => halved(&values, heads, width),
            None => values,
        };
        all.push((theirs, dims.to_vec(), values));
    };
    let vocabulary = [Writer::VOCABULARY, width];
    add("model.embed_tokens.weight".to_owned(), "token_embd.weight", &vocabulary, None);
    add("lm_head.weight".to_owned(), "output.weight", &vocabulary, None);
    add("model.norm.weight".to_owned(), "output_norm.weight", &[width], None);
    for layer in 0..2 {
        for (theirs, ours, dims, heads) in [
            ("input_layernorm", "attn_norm", vec![width], None),
            ("self_attn.q_proj", "attn_q", vec![width, width], Some(4)),
            ("self_attn.k_proj", "attn_k", vec![width / 2, width], Some(2)),
            ("self_attn.v_proj", "attn_v", vec![width / 2, width], None),
            ("self_attn.o_proj", "attn_output", vec![width, width], None),
            ("post_attention_layernorm", "ffn_norm", vec![width], None),
            ("mlp.gate_proj", "ffn_gate", vec![64, width], None),
            ("mlp.up_proj", "ffn_up", vec![64, width], None),
            ("mlp.down_proj", "ffn_down", vec![width, 64], None),
        ] {
            let theirs = format!("model.layers.{layer}.{theirs}.weight");
            add(theirs, &format!("blk.{layer}.{ours}.weight"), &dims, heads);
        }
    }
    all
}

fn safetensors(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dims, values) in tensors {
        let from = data.len();
        values.iter().for_each(|value| data.extend(value.to_le_bytes()));
        let info = json!({ "dtype": "F32", "shape": dims, "data_offsets": [from, data.len()] });
        header.insert(name.clone(), info);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
        "hidden_size": Writer::WIDTH, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "max_position_embeddings": Writer::CONTEXT, "vocab_size": Writer::VOCABULARY,
        "rope_theta": 10_000.0, "rope_scaling": null,
    })
}

fn tokenizer() -> Value {
    let letters = (0..256_u32).map(|byte| (alphabet(byte).to_string(), json!(byte)));
    let added = |id: u32, content: &str, special: bool| {
        let special = json!(special);
        json!({ "id": id, "content": content, "special": special })
    };
    let letters: serde_json::Map<_, _> = letters.collect();
    json!({
        "model": { "type": "BPE", "vocab": letters, "merges": [] },
        "pre_tokenizer": { "type": "ByteLevel", "use_regex": true },
        "added_tokens": [
            added(256, "<|im_start|>", true),
            added(257, "<|im_end|>", true),
            added(258, "<extra>", false),
        ],
    })
}

fn folder() -> Folder {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("selvedge-hf-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    let folder = Folder(path);
    folder.write("config.json", config().to_string());
    folder.write("tokenizer.json", tokenizer().to_string());
    let settings = json!({
        "bos_token": "<|im_start|>", "eos_token": { "content": "<|im_end|>" },
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    });
    folder.write("tokenizer_config.json", settings.to_string());
    folder.write("model.safetensors", safetensors(&weights(&Writer::tiny(5))));
    folder
}

fn turned(path: &Path) -> Result<Vec<u8>, EngineError> {
    let mut out = Vec::new();
    quantize(path, &mut out, HALF, &mut |_, _| ())?;
    Ok(out)
}

fn refused(folder: &Folder, expected: &str) {
    let said = turned(&folder.0).unwrap_err().to_string();
    assert!(said.contains(expected), "'{said}' does not say '{expected}'");
}

fn raw(gguf: &Gguf, name: &str) -> Vec<u8> {
    let mut file = File::open(&gguf.path).unwrap();
    gguf.read(&mut file, gguf.tensor(name).unwrap()).unwrap()
}

/// The same weights from a directory and from a file: one model.
#[test]
fn a_directory_becomes_the_file_that_holds_the_same_model() {
    let folder = folder();
    let (theirs, ours) = (turned(&folder.0).unwrap(), temporary(&Writer::tiny(5).bytes()));
    let ours = turned(ours.path()).unwrap();
    let (theirs, ours) = (temporary(&theirs), temporary(&ours));
    let (theirs, ours) = (Gguf::open(theirs.path()).unwrap(), Gguf::open(ours.path()).unwrap());
    assert_eq!(theirs.tensors.len(), ours.tensors.len());
    for name in ours.tensors.keys() {
        assert_eq!(raw(&theirs, name), raw(&ours, name), "{name}");
    }
    for (key, value) in ours.metadata.iter().filter(|(key, _)| !key.ends_with("chat_template")) {
        assert_eq!(theirs.metadata.get(key), Some(value), "{key}");
    }
    let tokens = |gguf: &Gguf| {
        let tokenizer = Tokenizer::read(gguf, Writer::VOCABULARY).unwrap();
        tokenizer.encode("<|im_start|>Grüße, it's 42 <extra>").unwrap()
    };
    assert_eq!(tokens(&theirs), tokens(&ours));
}

/// Weights in two files, and names of the tokens that no row has.
#[test]
fn weights_in_parts_and_rows_without_tokens_are_taken() {
    let folder = folder();
    let whole = turned(&folder.0).unwrap();
    let all = weights(&Writer::tiny(5));
    let names = ["a.safetensors", "b.safetensors"];
    folder.write(names[0], safetensors(&all[..9]));
    folder.write(names[1], safetensors(&all[9..]));
    std::fs::remove_file(folder.0.join("model.safetensors")).unwrap();
    let place = |(at, (name, ..)): (usize, &(String, Vec<usize>, Vec<f32>))| {
        (name.clone(), json!(names[usize::from(at >= 9)]))
    };
    let map: serde_json::Map<_, _> = all.iter().enumerate().map(place).collect();
    folder.write("model.safetensors.index.json", json!({ "weight_map": map }).to_string());
    assert_eq!(turned(&folder.0).unwrap(), whole);
    let mut fewer = tokenizer();
    fewer["added_tokens"].as_array_mut().unwrap().pop();
    folder.write("tokenizer.json", fewer.to_string());
    let file = temporary(&turned(&folder.0).unwrap());
    let gguf = Gguf::open(file.path()).unwrap();
    let tokens = gguf.metadata["tokenizer.ggml.tokens"].as_array().unwrap();
    assert_eq!(tokens[258].as_text(), Some("[PAD258]"));
}

/// What readers would do without, and answer wrongly.
#[test]
fn a_tensor_that_was_promised_and_is_missing_is_named() {
    let folder = folder();
    let mut all = weights(&Writer::tiny(5));
    let map: serde_json::Map<_, _> =
        all.iter().map(|(name, ..)| (name.clone(), json!("model.safetensors"))).collect();
    folder.write("model.safetensors.index.json", json!({ "weight_map": map }).to_string());
    turned(&folder.0).unwrap();
    all.retain(|(name, ..)| name != "model.layers.1.mlp.up_proj.weight");
    folder.write("model.safetensors", safetensors(&all));
    refused(&folder, "model.safetensors has no tensor 'model.layers.1.mlp.up_proj.weight'");
}

#[test]
fn embeddings_serve_as_the_head_only_where_the_directory_says_so() {
    let folder = folder();
    let mut tied = config();
    tied["tie_word_embeddings"] = json!(true);
    // A head beside it is what the table was copied to, and is not read.
    folder.write("config.json", tied.to_string());
    let with = turned(&folder.0).unwrap();
    let mut all = weights(&Writer::tiny(5));
    all.retain(|(name, ..)| name != "lm_head.weight");
    folder.write("model.safetensors", safetensors(&all));
    let without = turned(&folder.0).unwrap();
    assert_eq!(with, without);
    let file = temporary(&without);
    assert!(!Gguf::open(file.path()).unwrap().tensors.contains_key("output.weight"));
    for untied in [json!(false), Value::Null] {
        tied["tie_word_embeddings"] = untied;
        folder.write("config.json", tied.to_string());
        refused(&folder, "there is no 'lm_head.weight'");
    }
}

/// A directory of a family as its makers lay it out: weights, and a vocabulary of pieces.
fn family_folder(family: &Family, config: &Value, tokenizer: &Value) -> Folder {
    let folder = folder();
    folder.write("config.json", config.to_string());
    folder.write("tokenizer.json", tokenizer.to_string());
    let settings = json!({ "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true });
    folder.write("tokenizer_config.json", settings.to_string());
    let gemma = config["architectures"][0] == "Gemma3ForCausalLM";
    let paired = config["architectures"][0] == "LlamaForCausalLM";
    let heads = |ours: &str| match ours.rsplit('.').nth(1) {
        Some("attn_q") if paired => config["num_attention_heads"].as_u64(),
        Some("attn_k") if paired => config["num_key_value_heads"].as_u64(),
        _ => None,
    };
    let weights = family.tensors.iter().map(|(ours, theirs, sides)| {
        let mut values = drawn(ours, sides.iter().product());
        if let Some(heads) = heads(ours) {
            values = halved(&values, heads as usize, sides[1]);
        }
        if gemma && ours.contains("norm") {
            values.iter_mut().for_each(|value| *value -= 1.0);
        }
        (theirs.clone(), sides.clone(), values)
    });
    folder.write("model.safetensors", safetensors(&weights.collect::<Vec<_>>()));
    folder
}

/// Pieces as Llama 2 and Phi-3 have them, or as Gemma does: `ab` before `▁ab`, and no others.
fn pieces(gemma: bool) -> Value {
    let words = ["<unk>", "<s>", "</s>", "<0x21>", "\u{2581}", "a", "b", "ab", "\u{2581}ab"];
    let vocabulary: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(at, word)| ((*word).to_owned(), json!(at))).collect();
    let added = |id: u32, content: &str, special: bool| {
        let special = json!(special);
        json!({ "id": id, "content": content, "special": special })
    };
    let writes = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" });
    let adds = json!({ "type": "Prepend", "prepend": "\u{2581}" });
    let splits = json!({
        "type": "Split", "pattern": { "String": " " }, "behavior": "MergedWithPrevious",
    });
    let steps = json!({ "type": "Sequence", "normalizers": [adds, writes.clone()] });
    json!({
        "normalizer": if gemma { writes } else { steps },
        "pre_tokenizer": if gemma { splits } else { Value::Null },
        "model": {
            "type": "BPE", "vocab": vocabulary, "byte_fallback": true, "unk_token": "<unk>",
            "merges": [["a", "b"], ["\u{2581}", "ab"]],
        },
        "added_tokens": [
            added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true),
            added(9, "\u{2581}\u{2581}", false), added(10, "<|end|>", true),
            added(48, "<a picture>", false),
        ],
    })
}

#[test]
fn directories_of_all_families_become_files_that_compute_what_transformers_computes() {
    for name in Family::NAMES {
        let family = Family::read(name);
        for config in &family.configs {
            let folder = family_folder(&family, config, &pieces(name == "gemma3"));
            let file = temporary(&turned(&folder.0).unwrap());
            let gguf = Gguf::open(file.path()).unwrap();
            let model = crate::packed::load(&gguf, 1, &|| ()).unwrap();
            let (mut cache, mut crew) = (model.cache(), Crew::new(1).unwrap());
            let (tokens, logits) = (&*family.tokens, Logits::All);
            let segment = Segment { cache: &mut cache, tokens, logits, added: None };
            let ours = model.step(&mut crew, &mut [segment], &AtomicU64::new(0)).unwrap();
            let (mut error, mut size) = (0.0, 0.0);
            for (ours, theirs) in ours[0].iter().flatten().zip(family.logits.iter().flatten()) {
                error += f64::from(ours - theirs).powi(2);
                size += f64::from(*theirs).powi(2);
            }
            assert!((error / size).sqrt() < 0.1, "{name}: off by {}", (error / size).sqrt());
            // In norms nothing is lost, and what the file says is what the other one says.
            let expected = temporary(&family.writer.bytes());
            let expected = Gguf::open(expected.path()).unwrap();
            for (name, info) in expected.tensors.iter().filter(|(_, info)| info.dims.len() == 1) {
                let (ours, theirs) = (raw(&gguf, name), raw(&expected, name));
                for (ours, theirs) in ours.chunks(4).zip(theirs.chunks(4)) {
                    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
                    assert!((number(ours) - number(theirs)).abs() < 1e-6, "{name} {info:?}");
                }
            }
            for (key, value) in &expected.metadata {
                assert_eq!(gguf.metadata.get(key), Some(value), "{name}: {key}");
            }
        }
    }
}

#[test]
fn pieces_of_a_directory_are_joined_in_the_order_of_its_merges() {
    for (gemma, text, expected) in [
        (false, "ab", vec![8]),
        (true, "ab", vec![7]),
        (true, "a ab", vec![5, 8]),
        // Behind a token that is matched a text begins anew.
        (false, "a  ab!</s>", vec![4, 5, 9, 8, 3, 2]),
        (true, "  ?<|end|>", vec![9, 0, 10]),
    ] {
        let family = Family::read(if gemma { "gemma3" } else { "phi3" });
        let folder = family_folder(&family, &family.configs[0], &pieces(gemma));
        let file = temporary(&turned(&folder.0).unwrap());
        let tokenizer = Tokenizer::read(&Gguf::open(file.path()).unwrap(), 48).unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), expected, "{gemma} {text:?}");
        assert_eq!(tokenizer.bos(), Some(1));
    }
}

#[test]
fn what_of_gemma_and_phi_has_no_word_in_gguf_is_refused_by_name() {
    let change = |name: &str, key: &str, value: Value, expected: &str| {
        let family = Family::read(name);
        let mut config = family.configs[0].clone();
        config[key] = value;
        let folder = family_folder(&family, &config, &pieces(name == "gemma3"));
        refused(&folder, expected);
    };
    change("gemma3", "query_pre_attn_scalar", json!(16), "scaled by 16");
    change("gemma3", "query_pre_attn_scalar", Value::Null, "scaled by 256");
    change("gemma3", "num_hidden_layers", json!(1_025), "1025 layers");
    change("gemma3", "layer_types", json!(["chunked_attention"]), "kind 'chunked_attention'");
    let kinds = json!({ "full_attention": {}, "chunked_attention": {} });
    change("gemma3", "rope_parameters", kinds, "kind 'chunked_attention'");
    let both = json!({ "full_attention": {}, "rope_theta": 5.0 });
    change("gemma3", "rope_parameters", both, "for all layers and for kinds");
    for factor in [0.0, -1.0, 1e39] {
        let long =
            json!({ "type": "longrope", "short_factor": [1, 1, 1], "long_factor": [1, 1, factor] });
        change("phi3-long", "rope_scaling", long, "a factor of rotation of");
    }
    change("phi3-long", "rope_scaling", Value::Null, "without its factors of rotation");
    change("gemma3", "final_logit_softcapping", json!(30.0), "softcapping");
    change("gemma3", "hidden_activation", json!("silu"), "the activation");
    change("gemma3", "use_bidirectional_attention", json!(true), "both ways");
    let mixed = ["full", "full", "sliding", "full", "sliding", "full"];
    let mixed = mixed.map(|kind| format!("{kind}_attention"));
    change("gemma3", "layer_types", json!(mixed), "in no period");
    change("phi3-long", "rope_scaling", json!({ "type": "longrope" }), "without its factors");
    let short = json!({ "type": "longrope", "short_factor": [1.0], "long_factor": [1.0] });
    change("phi3-long", "rope_scaling", short, "1 and 1 factors");
    change("phi3-long", "rope_scaling", json!({ "type": "yarn" }), "'yarn'");
    let family = Family::read("phi3");
    for edit in [
        json!({ "normalizer": { "type": "NFC" } }),
        json!({ "normalizer": null }),
        json!({ "pre_tokenizer": { "type": "Metaspace", "replacement": "\u{2581}" } }),
    ] {
        let mut all = pieces(false);
        all.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
        refused(&family_folder(&family, &family.configs[0], &all), "writes spaces");
    }
    let mut newer = pieces(false);
    newer["normalizer"] = Value::Null;
    newer["pre_tokenizer"] = json!({
        "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false,
    });
    turned(&family_folder(&family, &family.configs[0], &newer).0).unwrap();
}

/// What a file of a changed configuration says under a key.
fn said(name: &str, key: &str, edit: &dyn Fn(&mut Value)) -> Option<crate::gguf_value::Value> {
    let family = Family::read(name);
    let mut config = family.configs[0].clone();
    edit(&mut config);
    let folder = family_folder(&family, &config, &pieces(name == "gemma3"));
    let file = temporary(&turned(&folder.0).unwrap());
    Gguf::open(file.path()).unwrap().metadata.get(key).cloned()
}

#[test]
fn kinds_of_layers_need_not_all_be_told() {
    let base = |edit: &dyn Fn(&mut Value), key: &str| {
        let edit = |config: &mut Value| {
            for key in ["rope_theta", "rope_local_base_freq", "rope_scaling"] {
                config.as_object_mut().unwrap().remove(key);
            }
            edit(config);
        };
        said("gemma3", key, &edit).and_then(|value| value.as_real())
    };
    let far = |config: &mut Value| {
        config["rope_parameters"] = json!({ "full_attention": { "rope_theta": 500.0 } });
    };
    assert_eq!(base(&far, "gemma3.rope.freq_base"), Some(500.0));
    assert_eq!(base(&far, "gemma3.rope.freq_base_swa"), Some(10_000.0));
    let near = |config: &mut Value| {
        config["rope_parameters"] = json!({ "sliding_attention": { "rope_theta": 500.0 } });
    };
    assert_eq!(base(&near, "gemma3.rope.freq_base"), Some(1_000_000.0));
    assert_eq!(base(&near, "gemma3.rope.freq_base_swa"), Some(500.0));
    let all_near = |config: &mut Value| config["layer_types"] = json!(vec!["sliding_attention"; 6]);
    let key = "gemma3.attention.sliding_window_pattern";
    assert_eq!(said("gemma3", key, &all_near).and_then(|value| value.as_number()), Some(0));
}

/// Whatever the directory is called: readers know it by the name that the file has.
#[test]
fn white_space_behind_tokens_goes_where_the_directory_says_so() {
    let family = Family::read("phi3");
    let folder = |strips: bool| {
        let mut all = pieces(false);
        all["added_tokens"][4]["rstrip"] = json!(strips);
        family_folder(&family, &family.configs[0], &all)
    };
    let tokens = |path: &Path| {
        let file = temporary(&turned(path).unwrap());
        let gguf = Gguf::open(file.path()).unwrap();
        let name = gguf.text("general.name").unwrap().to_owned();
        let tokenizer = Tokenizer::read(&gguf, 48).unwrap();
        (name, tokenizer.encode("<|end|>  ab").unwrap())
    };
    let (stripping, keeping) = (folder(true), folder(false));
    let (name, stripped) = tokens(&stripping.0);
    assert!(name.starts_with("Phi-3 selvedge-hf-"), "{name}");
    assert_eq!(stripped, [10, 8]);
    let (name, kept) = tokens(&keeping.0);
    assert!(name.starts_with("selvedge-hf-"), "{name}");
    assert_ne!(kept, stripped);
    // A name that says otherwise than the directory is not taken.
    for (strips, folder) in [(true, &stripping), (false, &keeping)] {
        let named = folder.0.join("phi-3-tuned");
        std::fs::create_dir(&named).unwrap();
        for entry in std::fs::read_dir(&folder.0).unwrap().flatten() {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), named.join(entry.file_name())).unwrap();
            }
        }
        let (name, found) = tokens(&named);
        assert_eq!(name, if strips { "phi-3-tuned" } else { "Phi" });
        assert_eq!(found, if strips { stripped.clone() } else { kept.clone() });
    }
}

/// A bias that no reader would add.
#[test]
fn biases_of_other_matrices_are_refused_by_name() {
    let mut tensors = weights(&Writer::tiny(5));
    let folder = folder();
    let width = Writer::WIDTH;
    tensors.push((
        "model.layers.0.self_attn.q_proj.bias".to_owned(),
        vec![width],
        vec![1.0; width],
    ));
    folder.write("model.safetensors", safetensors(&tensors));
    turned(&folder.0).unwrap();
    let name = "model.layers.0.self_attn.o_proj.bias";
    tensors.push((name.to_owned(), vec![width], vec![1.0; width]));
    folder.write("model.safetensors", safetensors(&tensors));
    refused(&folder, name);
    let family = Family::read("phi3");
    let folder = family_folder(&family, &family.configs[0], &pieces(false));
    let mut tensors: Vec<_> = family
        .tensors
        .iter()
        .map(|(ours, theirs, sides)| {
            (theirs.clone(), sides.clone(), drawn(ours, sides.iter().product()))
        })
        .collect();
    let name = "model.layers.0.self_attn.qkv_proj.bias";
    tensors.push((name.to_owned(), vec![64], vec![1.0; 64]));
    folder.write("model.safetensors", safetensors(&tensors));
    refused(&folder, name);
}

#[test]
fn what_would_answer_wrongly_is_refused_by_name() {
    let change = |key: &str, value: Value, expected: &str| {
        let (folder, mut config) = (folder(), config());
        config[key] = value;
        folder.write("config.json", config.to_string());
        refused(&folder, expected);
    };
    change("architectures", json!(["GemmaForCausalLM"]), "GemmaForCausalLM");
    change("architectures", json!([]), "without an architecture");
    change("rope_scaling", json!({ "rope_type": "llama3", "factor": 8.0 }), "'llama3'");
    change("hidden_act", json!("gelu"), "gelu");
    change("sliding_window", json!(128), "sliding window");
    change("quantization_config", json!({ "bits": 4 }), "quantized already");
    change("vocab_size", json!(0), "a vocabulary of 0");
    change("vocab_size", json!(100), "has the number");
    change("hidden_size", json!("wide"), "config.json");
    let change = |edit: &dyn Fn(&mut Value), expected: &str| {
        let (folder, mut tokenizer) = (folder(), tokenizer());
        edit(&mut tokenizer);
        folder.write("tokenizer.json", tokenizer.to_string());
        refused(&folder, expected);
    };
    change(&|all| all["model"]["type"] = json!("Unigram"), "'Unigram'");
    change(&|all| all["pre_tokenizer"] = json!({ "type": "Metaspace" }), "splits words");
    change(&|all| all["pre_tokenizer"] = Value::Null, "splits words");
    change(&|all| all["model"]["merges"] = json!([["a"]]), "pairs of texts");
    change(&|all| *all = json!([]), "tokenizer.json");
}

#[test]
fn weights_that_do_not_lie_in_their_file_are_refused() {
    let folder = folder();
    let good = std::fs::read(folder.0.join("model.safetensors")).unwrap();
    let mut tensors = weights(&Writer::tiny(5));
    for end in [0, 4, 20, good.len() - 1] {
        folder.write("model.safetensors", &good[..end]);
        assert!(turned(&folder.0).is_err(), "{end}");
    }
    folder.write("model.safetensors", [&u64::MAX.to_le_bytes()[..], &good[8..]].concat());
    refused(&folder, "a header of");
    tensors[0].0 = "model.layers.0.mlp.experts.weight".to_owned();
    folder.write("model.safetensors", safetensors(&tensors));
    refused(&folder, "mlp.experts");
    let index = json!({ "weight_map": { "a": "../model.safetensors" } });
    folder.write("model.safetensors.index.json", index.to_string());
    refused(&folder, "../model.safetensors");
}

/// The rules of published tokenizers, as they write them.
#[test]
fn rules_are_recognised_by_what_they_do() {
    let rule = |pre: Value| {
        let mut all = tokenizer();
        all["pre_tokenizer"] = pre;
        let mut entries = Entries::default();
        let all = serde_json::from_value(all).ok()?;
        words::tell(&all, &json!({}), None, Writer::VOCABULARY as u32, &mut entries).ok()?;
        let (_, bytes) = entries.into_all().into_iter().find(|(key, _)| key.ends_with(".pre"))?;
        // Key, type and length come before the text.
        Some(String::from_utf8(bytes[8 + "tokenizer.ggml.pre".len() + 12..].to_vec()).unwrap())
    };
    let split = |digits: &str| {
        let regex = format!(
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{{L}}\\p{{N}}]?\\p{{L}}+|{digits}| \
             ?[^\\s\\p{{L}}\\p{{N}}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
        );
        json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated" },
            { "type": "ByteLevel", "use_regex": false },
        ] })
    };
    assert_eq!(rule(split("\\p{N}{1,3}")).as_deref(), Some("llama-bpe"));
    assert_eq!(rule(split("\\p{N}")).as_deref(), Some("qwen2"));
    assert_eq!(rule(split("\\p{N}{1,2}")), None);
    let digits = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Digits", "individual_digits": true }, { "type": "ByteLevel", "use_regex": true },
    ] });
    assert_eq!(rule(digits).as_deref(), Some("smollm"));
    assert_eq!(rule(json!({ "type": "ByteLevel" })).as_deref(), Some("gpt-2"));
}
