//! A directory as Hugging Face lays it out, said in the words of GGUF.
//!
//! Owns the names of tensors, the facts of `config.json` and the places of weights in
//! `*.safetensors`. The vocabulary is `words`'. A configuration that means arithmetic which this
//! engine does not do is refused by name: a file of it would answer, and wrongly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::entries::Entries;
use super::source::{Original, Source};
use super::words;
use crate::error::EngineError;

/// Configurations have a few kilobytes, and chat templates in them tens of them.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Vocabularies of 262,144 tokens with their merges take 35 MB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Headers have some 120 bytes a tensor: room for 32,768 tensors.
const MAX_HEADER_BYTES: u64 = 4 << 20;
/// The largest models that run here come in fewer files.
const MAX_SHARDS: usize = 64;
/// The length of a safetensors header stands before it.
const LENGTH_BYTES: u64 = 8;

/// What is needed of `config.json`.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    max_position_embeddings: u32,
    rms_norm_eps: f32,
    rope_theta: Option<f32>,
    rope_parameters: Option<Rope>,
    rope_scaling: Option<Rope>,
    #[serde(default)]
    tie_word_embeddings: bool,
    use_sliding_window: Option<bool>,
    sliding_window: Option<u32>,
    hidden_act: Option<String>,
    quantization_config: Option<Value>,
    vocab_size: u32,
}

/// How positions are told, in the older words and the newer ones.
#[derive(Deserialize)]
struct Rope {
    rope_type: Option<String>,
    /// The same, as older files say it; some say both.
    #[serde(rename = "type")]
    older_type: Option<String>,
    factor: Option<f32>,
    rope_theta: Option<f32>,
}

/// The model in a directory.
pub(super) fn open(path: &Path) -> Result<Source, EngineError> {
    let config: Config = needed(path, "config.json")?;
    let architecture = architecture(&config)?;
    let mut entries = Entries::default();
    facts(&config, architecture, path, &mut entries)?;
    let settings: Value = optional(path, "tokenizer_config.json")?.unwrap_or_default();
    let template = match path.join("chat_template.jinja").exists() {
        true => Some(text(path, "chat_template.jinja")?),
        false => None,
    };
    let tokenizer = bytes(&path.join("tokenizer.json"), MAX_TOKENIZER_BYTES)?;
    let tokenizer: words::Told = serde_json::from_slice(&tokenizer)
        .map_err(|error| EngineError::corrupt(format!("tokenizer.json: {error}")))?;
    words::tell(&tokenizer, &settings, template, config.vocab_size, &mut entries)?;
    let paired = (architecture == "llama").then_some([
        config.num_attention_heads as usize,
        config.num_key_value_heads.unwrap_or(config.num_attention_heads) as usize,
    ]);
    let (files, found) = shards(path)?;
    let mut tensors = Vec::with_capacity(found.len());
    for (name, (dims, kind, place)) in found {
        if config.tie_word_embeddings && name == "lm_head.weight" {
            continue;
        }
        let Some(own) = renamed(&name)? else { continue };
        let paired = paired.and_then(|[queries, keys]| match own.rsplit_once('.')?.0 {
            part if part.ends_with(".attn_q") => Some(queries),
            part if part.ends_with(".attn_k") => Some(keys),
            _ => None,
        });
        if paired.is_some_and(|heads| !dims[0].is_multiple_of(2 * heads.max(1))) {
            return Err(EngineError::corrupt(format!("'{name}' does not divide into its heads")));
        }
        tensors.push(Original { name: own, dims, kind, place, paired });
    }
    Ok(Source::new(entries.into_all(), tensors, config.num_hidden_layers as usize, files))
}

/// GGUF's name of the architecture.
fn architecture(config: &Config) -> Result<&'static str, EngineError> {
    let refused = |what: String| Err(EngineError::unsupported(what));
    if config.quantization_config.is_some() {
        return refused("weights that are quantized already, in a form of their own".to_owned());
    }
    let window = config.sliding_window.filter(|window| *window < config.max_position_embeddings);
    // Mistral's files name a window and mean it; Qwen's say whether they do.
    if config.use_sliding_window.unwrap_or(window.is_some()) && window.is_some() {
        return refused("attention over a sliding window".to_owned());
    }
    if config.hidden_act.as_deref().is_some_and(|act| act != "silu") {
        return refused(format!("the activation {:?}", config.hidden_act));
    }
    match config.architectures.first().map(String::as_str) {
        Some("LlamaForCausalLM" | "MistralForCausalLM") => Ok("llama"),
        Some("Qwen2ForCausalLM") => Ok("qwen2"),
        Some("Qwen3ForCausalLM") => Ok("qwen3"),
        other => refused(format!(
            "{} (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM are \
             turned into GGUF)",
            other.unwrap_or("a model without an architecture").escape_debug()
        )),
    }
}

/// What the model is, under the keys of gguf.md.
fn facts(
    config: &Config,
    architecture: &str,
    path: &Path,
    entries: &mut Entries,
) -> Result<(), EngineError> {
    entries.text("general.architecture", architecture);
    let name = path.canonicalize().ok();
    let name = name.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    entries.text("general.name", name.unwrap_or("model"));
    let key = |key: &str| format!("{architecture}.{key}");
    let heads = config.num_attention_heads.max(1);
    let head_dim = config.head_dim.unwrap_or(config.hidden_size / heads);
    for (name, number) in [
        ("block_count", config.num_hidden_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads.unwrap_or(heads)),
        ("attention.key_length", head_dim),
        ("attention.value_length", head_dim),
        ("rope.dimension_count", head_dim),
        ("vocab_size", config.vocab_size),
    ] {
        entries.number(&key(name), number);
    }
    entries.real(&key("attention.layer_norm_rms_epsilon"), config.rms_norm_eps);
    let newer = config.rope_parameters.as_ref();
    let base = config.rope_theta.or_else(|| newer?.rope_theta);
    entries.real(&key("rope.freq_base"), base.unwrap_or(10_000.0));
    let Some(scaling) = config.rope_scaling.as_ref().or(newer) else { return Ok(()) };
    match scaling.rope_type.as_deref().or(scaling.older_type.as_deref()) {
        None | Some("default") => {}
        Some("linear") => {
            entries.text(&key("rope.scaling.type"), "linear");
            entries.real(&key("rope.scaling.factor"), scaling.factor.unwrap_or(1.0));
        }
        Some(other) => {
            let other = other.escape_debug();
            return Err(EngineError::unsupported(format!("rope scaling '{other}'")));
        }
    }
    Ok(())
}

/// GGUF's name of a tensor; none for what is computed anew by everybody.
fn renamed(name: &str) -> Result<Option<String>, EngineError> {
    let whole = match name {
        "model.embed_tokens.weight" => "token_embd.weight",
        "model.norm.weight" => "output_norm.weight",
        "lm_head.weight" => "output.weight",
        _ => "",
    };
    if !whole.is_empty() {
        return Ok(Some(whole.to_owned()));
    }
    let unknown = || EngineError::unsupported(format!("a tensor '{}'", name.escape_debug()));
    if name.ends_with("rotary_emb.inv_freq") {
        return Ok(None);
    }
    let (layer, part) = name
        .strip_prefix("model.layers.")
        .and_then(|rest| rest.split_once('.'))
        .ok_or_else(unknown)?;
    let layer: u32 = layer.parse().map_err(|_| unknown())?;
    let (part, end) = part.rsplit_once('.').ok_or_else(unknown)?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return Err(unknown()),
    };
    match end {
        "weight" | "bias" => Ok(Some(format!("blk.{layer}.{part}.{end}"))),
        _ => Err(unknown()),
    }
}

/// Tensors by name: sides, form, and place.
type Found = BTreeMap<String, (Vec<usize>, GgmlDType, (usize, u64))>;

/// All weights of a directory, in one file or in several.
fn shards(path: &Path) -> Result<(Vec<(PathBuf, File)>, Found), EngineError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let names: BTreeSet<String> = match optional::<Index>(path, "model.safetensors.index.json")? {
        Some(index) => index.weight_map.into_values().collect(),
        None => BTreeSet::from(["model.safetensors".to_owned()]),
    };
    if names.len() > MAX_SHARDS {
        return Err(EngineError::unsupported(format!("weights in more than {MAX_SHARDS} files")));
    }
    let (mut files, mut found) = (Vec::new(), Found::new());
    for name in names {
        // A name leads to no other directory.
        if !name.ends_with(".safetensors") || name.contains(['/', '\\']) {
            let name = name.escape_debug();
            return Err(EngineError::corrupt(format!("weights in a file called '{name}'")));
        }
        let path = path.join(name);
        let file = shard(&path, files.len(), &mut found)?;
        files.push((path, file));
    }
    Ok((files, found))
}

/// One file's tensors.
fn shard(path: &Path, number: usize, found: &mut Found) -> Result<File, EngineError> {
    let io = |source| EngineError::Io { path: path.to_owned(), source };
    let wrong = |what: String| EngineError::corrupt(format!("{}: {what}", path.display()));
    let mut file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact(&mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length > size.saturating_sub(LENGTH_BYTES) {
        return Err(wrong(format!("a header of {length} bytes (at most {MAX_HEADER_BYTES})")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(io)?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| wrong(error.to_string()))?;
    let data = LENGTH_BYTES + length;
    for (name, info) in header.tensors() {
        let (kind, width) = match info.dtype {
            Dtype::F32 => (GgmlDType::F32, 4),
            Dtype::F16 => (GgmlDType::F16, 2),
            Dtype::BF16 => (GgmlDType::BF16, 2),
            other => {
                let what = format!("'{}' of type {other:?} (F32, F16, BF16)", name.escape_debug());
                return Err(EngineError::unsupported(what));
            }
        };
        let (from, to) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let bytes = info.shape.iter().try_fold(width, |all: u64, &n| all.checked_mul(n as u64));
        let lies = data.checked_add(to).is_some_and(|end| end <= size);
        if !lies
            || to.checked_sub(from) != bytes
            || !matches!(info.shape.len(), 1 | 2)
            || from == to
        {
            return Err(wrong(format!("tensor '{}' does not lie in it", name.escape_debug())));
        }
        let place = (number, data + from);
        if found.insert(name.clone(), (info.shape.clone(), kind, place)).is_some() {
            return Err(wrong(format!("tensor '{}' is there twice", name.escape_debug())));
        }
    }
    Ok(file)
}

fn needed<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, EngineError> {
    serde_json::from_slice(&bytes(&folder.join(name), MAX_CONFIG_BYTES)?)
        .map_err(|error| EngineError::corrupt(format!("{name}: {error}")))
}

fn optional<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, EngineError> {
    folder.join(name).exists().then(|| needed(folder, name)).transpose()
}

fn text(folder: &Path, name: &str) -> Result<String, EngineError> {
    String::from_utf8(bytes(&folder.join(name), MAX_CONFIG_BYTES)?)
        .map_err(|_| EngineError::corrupt(format!("{name} is not UTF-8")))
}

fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, EngineError> {
    let io = |source| EngineError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(EngineError::corrupt(format!("{} has more than {most} bytes", path.display())));
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "folder_tests.rs"]
mod tests;
