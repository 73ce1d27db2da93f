//! A directory as Hugging Face lays it out, said in the words of GGUF.
//!
//! Owns the files and the places of weights in `*.safetensors`. What `config.json` says is
//! `config`'s, and the vocabulary is `words`'.

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

use super::config::{Config, renamed};
use super::entries::Entries;
use super::source::{Change, Original, Source};
use super::words;
use crate::error::EngineError;
use crate::family::Architecture;
use crate::tokenizer;

/// Configurations have a few kilobytes, and chat templates in them tens of them.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Vocabularies of 262,144 tokens with their merges take 35 MB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Headers have some 120 bytes a tensor: room for 32,768 tensors.
const MAX_HEADER_BYTES: u64 = 4 << 20;
/// The largest models that run here come in fewer files.
const MAX_SHARDS: usize = 64;
/// What tokens are judged by, where it is not the table of embeddings.
const HEAD: &str = "lm_head.weight";
/// The length of a safetensors header stands before it.
const LENGTH_BYTES: u64 = 8;

/// The model in a directory.
pub(super) fn open(path: &Path) -> Result<Source, EngineError> {
    let config: Config = needed(path, "config.json")?;
    let family = config.family()?;
    let mut entries = Entries::default();
    let name = path.canonicalize().ok();
    let name = name.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    let tokenizer = bytes(&path.join("tokenizer.json"), MAX_TOKENIZER_BYTES)?;
    let tokenizer: words::Told = serde_json::from_slice(&tokenizer)
        .map_err(|error| EngineError::corrupt(format!("tokenizer.json: {error}")))?;
    let name = called(family, name.unwrap_or("model"), tokenizer.strips());
    let held = config.tell(family, &name, &mut entries)?;
    let settings: Value = optional(path, "tokenizer_config.json")?.unwrap_or_default();
    let template = match path.join("chat_template.jinja").exists() {
        true => Some(text(path, "chat_template.jinja")?),
        false => None,
    };
    words::tell(&tokenizer, &settings, template, config.vocab_size, &mut entries)?;
    let paired = config.paired(family);
    let (files, found) = shards(path)?;
    // Readers of GGUF take the table for it where it is missing: such a file would answer, and
    // wrongly.
    if !config.ties(family) && !found.contains_key(HEAD) {
        return Err(EngineError::corrupt(format!(
            "there is no '{HEAD}', and config.json does not say that the embeddings serve for it \
             (tie_word_embeddings)"
        )));
    }
    let mut tensors = Vec::with_capacity(found.len());
    for (name, (dims, kind, place)) in found {
        if config.ties(family) && name == HEAD {
            continue;
        }
        let Some(own) = renamed(family, &name)? else { continue };
        let paired = paired.and_then(|[queries, keys]| match own.rsplit_once('.')?.0 {
            part if part.ends_with(".attn_q") => Some(queries),
            part if part.ends_with(".attn_k") => Some(keys),
            _ => None,
        });
        if paired.is_some_and(|heads| !dims[0].is_multiple_of(2 * heads.max(1))) {
            return Err(EngineError::corrupt(format!("'{name}' does not divide into its heads")));
        }
        // Gemma's norms multiply by one more than their weights; GGUF's by their weights.
        let shifted = family == Architecture::Gemma3 && own.ends_with("norm.weight");
        let change = match paired {
            Some(heads) => Change::Paired(heads),
            None if shifted => Change::Plus(1.0),
            None => Change::None,
        };
        tensors.push(Original { name: own, dims, kind, place, change });
    }
    tensors.extend(held.into_iter().map(|(name, numbers)| Original {
        name: name.to_owned(),
        dims: vec![numbers.len()],
        kind: GgmlDType::F32,
        place: (0, 0),
        change: Change::Held(numbers),
    }));
    Ok(Source::new(entries.into_all(), tensors, config.num_hidden_layers as usize, files))
}

/// A model's name. Readers of GGUF know by it, and by nothing else, whether white space behind
/// matched tokens goes, so that a directory's own name is not enough.
fn called(family: Architecture, name: &str, strips: bool) -> String {
    match (family, tokenizer::strips(name)) {
        (Architecture::Phi3, false) if strips => format!("Phi-3 {name}"),
        (Architecture::Phi3, true) if !strips => "Phi".to_owned(),
        _ => name.to_owned(),
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
    let index = optional::<Index>(path, "model.safetensors.index.json")?;
    let promised = index.map(|index| index.weight_map).unwrap_or_default();
    let names: BTreeSet<String> = match promised.is_empty() {
        false => promised.values().cloned().collect(),
        true => BTreeSet::from(["model.safetensors".to_owned()]),
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
    // Some tensors may be missing from a model and still leave one: biases, a head of its own.
    if let Some((name, file)) = promised.iter().find(|(name, _)| !found.contains_key(*name)) {
        return Err(EngineError::corrupt(format!(
            "{} has no tensor '{}', which model.safetensors.index.json says it has",
            file.escape_debug(),
            name.escape_debug()
        )));
    }
    Ok((files, found))
}

/// One file's tensors.
fn shard(path: &Path, number: usize, found: &mut Found) -> Result<File, EngineError> {
    let io = |source| EngineError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    read_shard(path, (&mut file, size), number, found)?;
    Ok(file)
}

/// The tensors of a file of this size.
fn read_shard(
    path: &Path,
    (mut file, size): (impl Read, u64),
    number: usize,
    found: &mut Found,
) -> Result<(), EngineError> {
    let io = |source| EngineError::Io { path: path.to_owned(), source };
    let wrong = |what: String| EngineError::corrupt(format!("{}: {what}", path.display()));
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
    Ok(())
}

/// Reads weights and vocabulary of a directory that are held in memory, as they are read to be
/// turned: how many tensors there are.
///
/// # Errors
/// [`EngineError`] when they cannot be a model's.
pub fn inspect_directory_bytes(
    weights: &[u8],
    tokenizer: &[u8],
    rows: u32,
) -> Result<usize, EngineError> {
    let mut found = Found::new();
    read_shard(Path::new("memory"), (weights, weights.len() as u64), 0, &mut found)?;
    let tokenizer: words::Told = serde_json::from_slice(tokenizer)
        .map_err(|error| EngineError::corrupt(format!("tokenizer.json: {error}")))?;
    words::tell(&tokenizer, &Value::Null, None, rows, &mut Entries::default())?;
    Ok(found.len())
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
