//! ViT and CLIP as Hugging Face lays them out: a directory of `config.json`, `model.safetensors`,
//! `preprocessor_config.json` and, for CLIP, `tokenizer.json`.
//!
//! Owns the translation of these files into a checked shape. A directory is untrusted: every number
//! that later sizes an allocation is bounded here.

use std::path::{Path, PathBuf};

use selvedge_contract::tensors::{CLIP, VIT};
use selvedge_kernels::{Bend, CaptionsConfig, SightConfig, TowerConfig};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::prepare::{Prepare, Usual};
use super::resample::Filter;
use super::seer::MAX_POINT_BYTES;
use super::{asked, names::Half};
use crate::card::Inspected;
use crate::embed::Raw;
use crate::embed::folder::{MAX_TOKENIZER_BYTES, needed, read};
use crate::embed::tensors::Tensors;
use crate::error::EngineError;

/// Layers: the largest published have 48.
const MAX_LAYERS: usize = 256;
/// Width of rows and of the feed-forward part: the largest published have 1,664 and 8,192.
const MAX_WIDTH: usize = 1 << 15;
/// Points along a picture's side: published models see up to 560.
const MAX_SIDE: usize = 2_048;
/// Points along a square's side: published ones have 14 to 32.
const MAX_SQUARE: usize = 128;
/// Squares of a picture: published models have up to 1,600, and each looks at all.
const MAX_SQUARES: usize = 8_192;
/// Tokens of a text: CLIP reads 77.
const MAX_POSITIONS: usize = 8_192;
/// Tokens in a vocabulary: CLIP has 49,408.
const MAX_VOCABULARY: usize = 1 << 20;

/// A model's directory.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    pub(super) sight: SightConfig,
    pub(super) prepare: Prepare,
    pub(super) kind: Kind,
    pub(super) tensors: Tensors,
}

/// What it makes of what it sees.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Classes.
    Vit {
        labels: Vec<String>,
        /// Whether each is told for itself.
        several: bool,
        /// Whether queries, keys and values have biases.
        biased: bool,
    },
    /// Vectors, and of texts too.
    Clip {
        captions: CaptionsConfig,
        /// Numbers of a vector.
        dimensions: usize,
        /// The token at whose place a text's row is taken.
        end: u64,
    },
}

#[derive(Deserialize)]
struct Named {
    model_type: Option<String>,
}

#[derive(Deserialize)]
struct VitConfig {
    #[serde(flatten)]
    classes: Raw,
    #[serde(default)]
    architectures: Value,
    #[serde(flatten)]
    sight: Seeing,
    #[serde(default = "yes")]
    qkv_bias: bool,
}

#[derive(Deserialize)]
struct ClipConfig {
    #[serde(default)]
    architectures: Value,
    #[serde(default)]
    projection_dim: Option<usize>,
    #[serde(default)]
    text_config: Map<String, Value>,
    #[serde(default)]
    vision_config: Map<String, Value>,
    // Files of before have these beside, and mean them.
    #[serde(default)]
    text_config_dict: Option<Map<String, Value>>,
    #[serde(default)]
    vision_config_dict: Option<Map<String, Value>>,
}

/// What is said of a half that sees.
#[derive(Deserialize)]
struct Seeing {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_attention_heads: Option<usize>,
    num_hidden_layers: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    image_size: Option<Value>,
    patch_size: Option<Value>,
    num_channels: Option<usize>,
}

/// What is said of a half that reads.
#[derive(Deserialize)]
struct Reading {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_attention_heads: Option<usize>,
    num_hidden_layers: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    eos_token_id: Option<u64>,
}

const fn yes() -> bool {
    true
}

/// Whether a directory says that it holds such a model. One that says nothing sensible is left to
/// whoever reads it next, and says why then.
pub(crate) fn is_folder(path: &Path) -> bool {
    let named: Result<Named, _> = needed(path, "config.json");
    named.is_ok_and(|named| matches!(named.model_type.as_deref(), Some(VIT | CLIP)))
}

impl Folder {
    /// Reads what a directory says it holds, and the header of its weights.
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let named: Named = needed(path, "config.json")?;
        let (sight, kind) = match named.model_type.as_deref() {
            Some(VIT) => vit(needed(path, "config.json")?)?,
            _ => clip(needed(path, "config.json")?)?,
        };
        let prepare = Prepare::read(path, sight.side, kind.usual())?;
        let weights = path.join("model.safetensors");
        if !weights.exists() {
            return Err(EngineError::unsupported(format!(
                "{} holds no model.safetensors (weights in several files and pickles are not read)",
                path.display()
            )));
        }
        let tensors = Tensors::open(&weights, (kind.first(), &[]))?;
        let (width, square) = (sight.tower.width, sight.square);
        tensors.find(kind.first(), &[width, 3, square, square])?;
        Ok(Self { path: path.to_owned(), sight, prepare, kind, tensors })
    }

    /// What people and routing see.
    pub(crate) fn facts(&self) -> Inspected {
        let (architecture, context, dimensions) = match &self.kind {
            Kind::Vit { .. } => (VIT, 0, None),
            Kind::Clip { captions, dimensions, .. } => {
                (CLIP, captions.positions as u32, Some(*dimensions as u32))
            }
        };
        Inspected {
            name: None,
            bytes: self.tensors.file_bytes,
            architecture: architecture.to_owned(),
            quantization: self.tensors.type_of(self.kind.first()),
            parameters: self.tensors.parameters(),
            context_length: context,
            chat: false,
            dimensions,
            signature: Some(asked::signature(&self.kind)),
            classes: None,
        }
    }

    /// Bytes of memory that it takes: weights, and what is read and computed at a time.
    pub(crate) fn needed(&self) -> u64 {
        let kind = match &self.kind {
            Kind::Vit { labels, .. } => (labels.len() * self.sight.tower.width * 4) as u64,
            Kind::Clip { captions, dimensions, .. } => {
                let widths = (captions.tower.width + self.sight.tower.width) as u64;
                captions.bytes().saturating_add(widths * *dimensions as u64 * 4)
            }
        };
        self.sight.bytes().saturating_add(kind).saturating_add(MAX_POINT_BYTES)
    }

    /// The bytes of `tokenizer.json`.
    pub(super) fn tokenizer(&self) -> Result<Vec<u8>, EngineError> {
        let path = self.path.join("tokenizer.json");
        if !path.exists() {
            return Err(EngineError::unsupported(format!(
                "{} holds no tokenizer.json (vocab.json with merges.txt is not read: transformers \
                 writes it when the tokenizer is saved)",
                self.path.display()
            )));
        }
        read(&path, MAX_TOKENIZER_BYTES)
    }
}

impl Kind {
    /// The tensor by whose type the weights are called.
    const fn first(&self) -> &'static str {
        match self {
            Self::Vit { .. } => "vit.embeddings.patch_embeddings.projection.weight",
            Self::Clip { .. } => "vision_model.embeddings.patch_embedding.weight",
        }
    }

    /// Whose names the half that sees has.
    pub(super) const fn half(&self) -> Half {
        match self {
            Self::Vit { biased, .. } => Half::Vit { biased: *biased },
            Self::Clip { .. } => Half::Vision,
        }
    }

    /// How pictures become numbers where the directory does not say.
    const fn usual(&self) -> Usual {
        match self {
            Self::Vit { .. } => {
                let half = [0.5, 0.5, 0.5];
                Usual { filter: Filter::Bilinear, middle: false, mean: half, std: half }
            }
            Self::Clip { .. } => Usual {
                filter: Filter::Bicubic,
                middle: true,
                mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
                std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
            },
        }
    }
}

fn vit(config: VitConfig) -> Result<(SightConfig, Kind), EngineError> {
    check_architecture(&config.architectures, "ViTForImageClassification")?;
    let usual = ([768, 3_072, 12, 12], "gelu", 1e-12, 16);
    let mut sight = config.sight.checked(usual)?;
    sight.shifted = true;
    let (labels, several) = config.classes.told()?;
    Ok((sight, Kind::Vit { labels, several, biased: config.qkv_bias }))
}

fn clip(config: ClipConfig) -> Result<(SightConfig, Kind), EngineError> {
    check_architecture(&config.architectures, "CLIPModel")?;
    let seeing: Seeing = half("vision_config", config.vision_config, config.vision_config_dict)?;
    let reading: Reading = half("text_config", config.text_config, config.text_config_dict)?;
    let mut sight = seeing.checked(([768, 3_072, 12, 12], "quick_gelu", 1e-5, 32))?;
    sight.normed_first = true;
    let end = reading.eos_token_id.unwrap_or(49_407);
    let captions = reading.checked()?;
    let dimensions = sized("projection_dim", config.projection_dim.unwrap_or(512), MAX_WIDTH)?;
    Ok((sight, Kind::Clip { captions, dimensions, end }))
}

fn check_architecture(said: &Value, runs: &str) -> Result<(), EngineError> {
    let mut all = said.as_array().into_iter().flatten().filter_map(Value::as_str);
    if said.is_null() || all.any(|one| one == runs) {
        return Ok(());
    }
    let said: String = said.to_string().chars().take(128).collect();
    Err(EngineError::unsupported(format!("architectures {said} ({runs} is run here)")))
}

/// What is said of one half of CLIP.
fn half<T: DeserializeOwned>(
    name: &str,
    mut said: Map<String, Value>,
    beside: Option<Map<String, Value>>,
) -> Result<T, EngineError> {
    said.extend(beside.unwrap_or_default());
    let half = serde_json::from_value(Value::Object(said));
    half.map_err(|error| EngineError::corrupt(format!("config.json: {name}: {error}")))
}

impl Seeing {
    /// The shape; `usual` is what silence means: dimensions, what bends, the norms' smallest, and
    /// the side of a square.
    fn checked(
        self,
        (dims, act, epsilon, square): ([usize; 4], &str, f64, usize),
    ) -> Result<SightConfig, EngineError> {
        let said = [
            self.hidden_size,
            self.intermediate_size,
            self.num_attention_heads,
            self.num_hidden_layers,
        ];
        let act = self.hidden_act.as_deref().unwrap_or(act);
        let tower = tower(said, dims, act, self.layer_norm_eps.unwrap_or(epsilon))?;
        if self.num_channels.is_some_and(|count| count != 3) {
            return Err(EngineError::unsupported("num_channels (3 are seen here)"));
        }
        let side = one_side("image_size", self.image_size.as_ref(), 224, MAX_SIDE)?;
        let square = one_side("patch_size", self.patch_size.as_ref(), square, MAX_SQUARE)?;
        let config = SightConfig { tower, side, square, shifted: false, normed_first: false };
        config.check().map_err(|error| EngineError::unsupported(error.to_string()))?;
        if config.squares() > MAX_SQUARES {
            return Err(EngineError::unsupported(format!(
                "{} squares of a picture (up to {MAX_SQUARES} are seen here)",
                config.squares()
            )));
        }
        Ok(config)
    }
}

impl Reading {
    fn checked(self) -> Result<CaptionsConfig, EngineError> {
        let said = [
            self.hidden_size,
            self.intermediate_size,
            self.num_attention_heads,
            self.num_hidden_layers,
        ];
        let act = self.hidden_act.as_deref().unwrap_or("quick_gelu");
        let epsilon = self.layer_norm_eps.unwrap_or(1e-5);
        let tower = tower(said, [512, 2_048, 8, 12], act, epsilon)?;
        let vocabulary = sized("vocab_size", self.vocab_size.unwrap_or(49_408), MAX_VOCABULARY)?;
        let positions = self.max_position_embeddings.unwrap_or(77);
        let positions = sized("max_position_embeddings", positions, MAX_POSITIONS)?;
        // Less would not hold the model's marks and a token.
        if positions < 3 {
            return Err(EngineError::corrupt(format!("a longest text of {positions} tokens")));
        }
        let config = CaptionsConfig { tower, vocabulary, positions };
        config.check().map_err(|error| EngineError::unsupported(error.to_string()))?;
        Ok(config)
    }
}

/// A stack of layers: width, feed-forward, heads and layers as they are said, or else as usual.
fn tower(
    said: [Option<usize>; 4],
    usual: [usize; 4],
    act: &str,
    epsilon: f64,
) -> Result<TowerConfig, EngineError> {
    let names = ["hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers"];
    let most = [MAX_WIDTH, MAX_WIDTH, MAX_WIDTH, MAX_LAYERS];
    let mut all = usual;
    for at in 0..all.len() {
        all[at] = sized(names[at], said[at].unwrap_or(usual[at]), most[at])?;
    }
    let bend = match act {
        "gelu" => Bend::Gelu,
        "quick_gelu" => Bend::QuickGelu,
        other => {
            let other: String = other.chars().take(64).collect();
            return Err(EngineError::unsupported(format!(
                "hidden_act '{other}' (gelu and quick_gelu are run here)"
            )));
        }
    };
    if !(0.0..=0.1).contains(&epsilon) {
        return Err(EngineError::corrupt(format!("layer_norm_eps is {epsilon}")));
    }
    let [width, feed_forward, heads, layers] = all;
    Ok(TowerConfig { width, feed_forward, heads, layers, epsilon: epsilon as f32, bend })
}

fn sized(name: &str, value: usize, most: usize) -> Result<usize, EngineError> {
    match (1..=most).contains(&value) {
        true => Ok(value),
        false => Err(EngineError::corrupt(format!("{name} is {value}, not 1 to {most}"))),
    }
}

/// A side of a square, as files write it: once, or twice.
fn one_side(
    name: &str,
    said: Option<&Value>,
    usual: usize,
    most: usize,
) -> Result<usize, EngineError> {
    let side = match said {
        None => Some(usual),
        Some(Value::Array(two)) => match two.as_slice() {
            [one, other] if one == other => one.as_u64().map(|side| side as usize),
            _ => None,
        },
        Some(one) => one.as_u64().map(|side| side as usize),
    };
    let side = side.ok_or_else(|| {
        EngineError::unsupported(format!("{name} is no whole number (squares are seen here)"))
    })?;
    sized(name, side, most)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "folder_tests.rs"]
pub(crate) mod tests;
