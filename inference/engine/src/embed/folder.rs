//! A model as Hugging Face and sentence-transformers lay it out: a directory of `config.json`,
//! `model.safetensors` and `tokenizer.json`, and, where it was made for sentences, `modules.json`
//! with what they name.
//!
//! Owns the translation of these files into a checked shape and what is done with the last layer's
//! rows. A directory is untrusted: each file is read up to a bound, and every number that later
//! sizes an allocation is bounded here.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use selvedge_contract::tensors::CLASSIFIER;
use selvedge_kernels::EncoderConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::classes::{Body, Classes, Raw};
use super::tensors::Tensors;
use crate::card::Inspected;
use crate::error::EngineError;

/// Published configurations are a few kilobytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Vocabularies of 250,000 tokens with scores take 17 MB.
pub(crate) const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Layers: BERT-large has 24.
const MAX_LAYERS: usize = 256;
/// Width of rows and of the feed-forward part: BERT-large has 1,024 and 4,096.
const MAX_WIDTH: usize = 1 << 15;
/// Tokens of a text: the longest published reads 8,192.
const MAX_POSITIONS: usize = 1 << 17;
/// Tokens in a vocabulary.
pub(crate) const MAX_VOCABULARY: usize = 1 << 20;
/// Kinds of text: BERT has two.
const MAX_KINDS: usize = 16;
/// Modules of a sentence-transformers model; published ones have two to four.
const MAX_MODULES: usize = 16;

/// Where sentence-transformers puts the second module.
const POOLING: &str = "1_Pooling";

/// What some files write before every name but those of a head.
const PREFIXES: &[&str] = &["bert.", "distilbert."];

/// What is read of a directory, of ONNX or not, also of one that hears; nothing else in it changes
/// an answer.
pub const FOLDER_FILES: [&str; 11] = [
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "model.onnx",
    "classify.toml",
    "labels.txt",
    "generation_config.json",
];

/// How a text's rows become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Their mean.
    Mean,
    /// The first one, which stands at the model's own mark.
    First,
    /// The greatest of each number.
    Greatest,
}

/// A directory that holds a model.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    pub(crate) config: EncoderConfig,
    /// Tokens of the longest text, the model's marks included.
    pub(crate) longest: usize,
    pub(crate) pooling: Pooling,
    /// Whether vectors are brought to length one.
    pub(crate) unit: bool,
    /// What it tells of texts instead of making vectors, if it does.
    pub(crate) classes: Option<Classes>,
    pub(crate) tensors: Tensors,
}

#[derive(Deserialize)]
struct Config {
    model_type: Option<String>,
    #[serde(flatten)]
    classes: Raw,
    #[serde(default, alias = "activation")]
    hidden_act: Option<String>,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    max_position_embeddings: usize,
    /// DistilBERT has one kind of text, and says so nowhere.
    #[serde(default = "one")]
    type_vocab_size: usize,
    vocab_size: usize,
    /// What DistilBERT has built in.
    #[serde(default = "tiny")]
    layer_norm_eps: f64,
}

const fn one() -> usize {
    1
}

const fn tiny() -> f64 {
    1e-12
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

#[derive(Deserialize)]
struct Sentences {
    max_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct Prompts {
    default_prompt_name: Option<String>,
}

impl Folder {
    /// Reads what a directory says it holds, and the header of its weights.
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let config: Config = needed(path, "config.json")?;
        let classes = Classes::of(&config.classes)?;
        let config = config.checked(classes.as_ref())?;
        let prompts: Option<Prompts> = optional(path, "config_sentence_transformers.json")?;
        if prompts.is_some_and(|prompts| prompts.default_prompt_name.is_some()) {
            return Err(EngineError::unsupported("a prompt before every text"));
        }
        let (pooling, unit) = match optional::<Vec<Module>>(path, "modules.json")? {
            Some(modules) => after(path, &modules)?,
            // What nearly all models for sentences do.
            None => (Pooling::Mean, true),
        };
        let sentences: Option<Sentences> = optional(path, "sentence_bert_config.json")?;
        let said = sentences.and_then(|sentences| sentences.max_seq_length);
        let longest = said.unwrap_or(config.positions).min(config.positions);
        // Less would not hold the model's marks and a token.
        if longest < 3 {
            return Err(EngineError::corrupt(format!("a longest text of {longest} tokens")));
        }
        let weights = path.join("model.safetensors");
        if !weights.exists() {
            return Err(EngineError::unsupported(format!(
                "{} holds no model.safetensors (weights in several files and pickles are not read)",
                path.display()
            )));
        }
        let words = ("embeddings.word_embeddings.weight", PREFIXES);
        let tensors = Tensors::open(&weights, words)?;
        let dims = [config.vocabulary, config.width];
        tensors.find("embeddings.word_embeddings.weight", &dims)?;
        Ok(Self { path: path.to_owned(), config, longest, pooling, unit, classes, tensors })
    }

    /// What people and routing see.
    pub(crate) fn facts(&self) -> Inspected {
        Inspected {
            name: None,
            bytes: self.tensors.file_bytes,
            architecture: if self.classes.is_some() { CLASSIFIER } else { "bert" }.to_owned(),
            quantization: self.tensors.type_of("embeddings.word_embeddings.weight"),
            parameters: self.tensors.parameters(),
            context_length: self.longest as u32,
            chat: false,
            dimensions: self.classes.is_none().then_some(self.config.width as u32),
            signature: self.classes.as_ref().map(super::signature),
            classes: self.classes.as_ref().map(|classes| classes.labels.clone()),
        }
    }

    /// The bytes of `tokenizer.json`.
    pub(crate) fn tokenizer(&self) -> Result<Vec<u8>, EngineError> {
        read(&self.path.join("tokenizer.json"), MAX_TOKENIZER_BYTES)
    }
}

impl Config {
    fn checked(self, classes: Option<&Classes>) -> Result<EncoderConfig, EngineError> {
        let other = |what: &str, value: &str| {
            let value: String = value.chars().take(64).collect();
            Err(EngineError::unsupported(format!("{what} '{value}'")))
        };
        match self.model_type.as_deref() {
            Some("bert") if classes.is_none_or(|classes| classes.body == Body::Bert) => {}
            Some("distilbert") if classes.is_some_and(|it| it.body == Body::Distil) => {}
            kind => return other("model_type (bert is run here)", kind.unwrap_or("none")),
        }
        match self.hidden_act.as_deref() {
            None | Some("gelu") => {}
            Some(act) => return other("hidden_act (gelu is run here)", act),
        }
        match self.position_embedding_type.as_deref() {
            None | Some("absolute") => {}
            Some(kind) => return other("position_embedding_type (absolute is run here)", kind),
        }
        let epsilon = self.layer_norm_eps;
        for (name, value, most) in [
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("num_attention_heads", self.num_attention_heads, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("max_position_embeddings", self.max_position_embeddings, MAX_POSITIONS),
            ("type_vocab_size", self.type_vocab_size, MAX_KINDS),
            ("vocab_size", self.vocab_size, MAX_VOCABULARY),
        ] {
            if !(1..=most).contains(&value) {
                return Err(EngineError::corrupt(format!("{name} is {value}, not 1 to {most}")));
            }
        }
        if !(0.0..=0.1).contains(&epsilon) {
            return Err(EngineError::corrupt(format!("layer_norm_eps is {epsilon}")));
        }
        let config = EncoderConfig {
            vocabulary: self.vocab_size,
            positions: self.max_position_embeddings,
            kinds: self.type_vocab_size,
            width: self.hidden_size,
            feed_forward: self.intermediate_size,
            heads: self.num_attention_heads,
            layers: self.num_hidden_layers,
            epsilon: epsilon as f32,
        };
        config.check().map_err(|error| EngineError::unsupported(error.to_string()))?;
        Ok(config)
    }
}

/// What comes after the transformer, by the list of a model's modules.
fn after(path: &Path, modules: &[Module]) -> Result<(Pooling, bool), EngineError> {
    let kinds: Vec<&str> = modules
        .iter()
        .take(MAX_MODULES)
        .map(|module| module.kind.rsplit('.').next().unwrap_or_default())
        .collect();
    let unit = match kinds.as_slice() {
        ["Transformer", "Pooling"] => false,
        ["Transformer", "Pooling", "Normalize"] => true,
        other => {
            let other: String = other.join(", ").chars().take(128).collect();
            return Err(EngineError::unsupported(format!(
                "the modules {other} (a transformer, pooling and normalization run here)"
            )));
        }
    };
    if modules.get(1).is_none_or(|module| module.path != POOLING) {
        return Err(EngineError::unsupported(format!(
            "a pooling module elsewhere than in {POOLING}"
        )));
    }
    let said: PoolingConfig = needed(&path.join(POOLING), "config.json")?;
    let modes = [
        (said.pooling_mode_mean_tokens, Some(Pooling::Mean)),
        (said.pooling_mode_cls_token, Some(Pooling::First)),
        (said.pooling_mode_max_tokens, Some(Pooling::Greatest)),
        (said.pooling_mode_mean_sqrt_len_tokens, None),
        (said.pooling_mode_weightedmean_tokens, None),
        (said.pooling_mode_lasttoken, None),
    ];
    match modes.iter().filter(|(on, _)| *on).collect::<Vec<_>>().as_slice() {
        [(_, Some(pooling))] => Ok((*pooling, unit)),
        _ => Err(EngineError::unsupported(
            "this pooling (one of mean, first token and greatest is run here)",
        )),
    }
}

pub(crate) fn needed<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, EngineError> {
    let path = folder.join(name);
    if !path.exists() {
        return Err(EngineError::unsupported(format!(
            "{} holds no {name}: it is no model as Hugging Face lays it out",
            folder.display()
        )));
    }
    serde_json::from_slice(&read(&path, MAX_CONFIG_BYTES)?)
        .map_err(|error| EngineError::corrupt(format!("{name}: {error}")))
}

pub(crate) fn optional<T: DeserializeOwned>(
    folder: &Path,
    name: &str,
) -> Result<Option<T>, EngineError> {
    match folder.join(name).exists() {
        true => needed(folder, name).map(Some),
        false => Ok(None),
    }
}

pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, EngineError> {
    let io = |source| EngineError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(EngineError::corrupt(format!("{} is not a file", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(EngineError::corrupt(format!("{} has more than {most} bytes", path.display())));
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "folder_tests.rs"]
pub(crate) mod tests;
