//! What a model file is, read from its header: the facts people and routing see, and the shape the
//! forward pass needs.
//!
//! Owns the translation of metadata into a checked [`Shape`]. Every number that later sizes an
//! allocation or divides another is bounded here.

use std::path::Path;

use selvedge_base::ModelDigest;
use selvedge_contract::ModelCard;

use crate::embed;
use crate::error::EngineError;
use crate::gguf::Gguf;
use crate::text::Text;

/// Layers: the deepest published models have fewer than 200.
const MAX_LAYERS: u64 = 1_024;
/// Width of embeddings and feed-forward layers: the widest published models stay below this.
const MAX_WIDTH: u64 = 1 << 18;
/// Attention heads.
const MAX_HEADS: u64 = 1_024;
/// Dimensions of a head: published models have 64 to 256.
const MAX_HEAD_DIM: u64 = 1_024;
/// Tokens of context: the longest published is 10 million, on machines this engine does not run on.
const MAX_CONTEXT: u64 = 1 << 21;
/// Tokens in a vocabulary.
const MAX_VOCABULARY: usize = 1 << 20;

/// What a model file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The name in the file, if any.
    pub name: Option<String>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Architecture, as the file names it.
    pub architecture: String,
    /// Quantization, as people write it.
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Tokens the model can attend to.
    pub context_length: u32,
    /// Whether it has a chat template.
    pub chat: bool,
    /// Numbers of the vectors it makes of texts, if that is what it makes.
    pub dimensions: Option<u32>,
}

impl Inspected {
    /// The card under which the mesh knows the model.
    pub fn card(&self, name: &str, digest: ModelDigest) -> ModelCard {
        ModelCard {
            name: name.to_owned(),
            digest,
            bytes: self.bytes,
            architecture: self.architecture.clone(),
            quantization: self.quantization.clone(),
            parameters: self.parameters,
            context_length: self.context_length,
            chat: self.chat,
        }
    }
}

/// Reads a model file's header, within bounds, and says what it is; or, of a model of embeddings,
/// its directory's.
///
/// # Errors
/// [`EngineError`] when it is unreadable, damaged or of a kind this engine does not run.
pub fn inspect(path: &Path) -> Result<Inspected, EngineError> {
    if embed::is_folder(path) {
        return Ok(embed::Folder::open(path)?.facts());
    }
    facts(&Gguf::open(path)?)
}

/// The same of a file that is held in memory, and with it everything else that is read from a
/// header before any weights are: the tokenizer and the chat template.
///
/// # Errors
/// [`EngineError`] when it cannot be a model here.
pub fn inspect_bytes(bytes: &[u8]) -> Result<Inspected, EngineError> {
    let gguf = Gguf::from_reader(Path::new("memory"), bytes, bytes.len() as u64)?;
    let facts = facts(&gguf)?;
    Text::here(&gguf).map(|_| facts)
}

pub(crate) fn facts(gguf: &Gguf) -> Result<Inspected, EngineError> {
    let shape = Shape::read(gguf)?;
    Ok(Inspected {
        name: gguf.text("general.name").map(|name| name.chars().take(128).collect()),
        bytes: gguf.file_bytes,
        architecture: shape.architecture.name().to_owned(),
        quantization: quantization(gguf),
        parameters: gguf.tensors.values().map(crate::gguf::TensorInfo::elements).sum(),
        context_length: shape.context as u32,
        chat: gguf.text("tokenizer.chat_template").is_some(),
        dimensions: None,
    })
}

/// The families whose forward pass is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// Llama and what shares its layout: SmolLM, Mistral, TinyLlama.
    Llama,
    /// Qwen 2 and 2.5: biases on q, k and v, rotation of halves instead of pairs.
    Qwen2,
    /// Qwen 3: as Qwen 2, with a norm of each query and key head instead of biases.
    Qwen3,
}

impl Architecture {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// The checked dimensions of a model.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) architecture: Architecture,
    pub(crate) layers: usize,
    pub(crate) context: usize,
    pub(crate) width: usize,
    pub(crate) feed_forward: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocabulary: usize,
    pub(crate) epsilon: f32,
    pub(crate) rope_base: f32,
    /// Positions are divided by this (linear scaling).
    pub(crate) rope_divisor: f32,
}

impl Shape {
    pub(crate) fn read(gguf: &Gguf) -> Result<Self, EngineError> {
        let architecture = match gguf.text("general.architecture") {
            Some("llama") => Architecture::Llama,
            Some("qwen2") => Architecture::Qwen2,
            Some("qwen3") => Architecture::Qwen3,
            Some(other) => {
                let other: String = other.chars().take(64).collect();
                return Err(EngineError::unsupported(format!(
                    "architecture '{other}' (llama, qwen2 and qwen3 run here)"
                )));
            }
            None => return Err(EngineError::corrupt("general.architecture is missing")),
        };
        let keys = Keys { gguf, prefix: architecture.name() };
        if keys.gguf.number(&keys.name("expert_count")).unwrap_or(0) > 0 {
            return Err(EngineError::unsupported("mixtures of experts"));
        }
        let width = keys.sized("embedding_length", MAX_WIDTH)?;
        let heads = keys.sized("attention.head_count", MAX_HEADS)?;
        let kv_heads = match gguf.metadata.get(&keys.name("attention.head_count_kv")) {
            None => heads,
            Some(_) => keys.sized("attention.head_count_kv", MAX_HEADS)?,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(EngineError::corrupt(format!(
                "{heads} heads do not divide among {kv_heads} key heads"
            )));
        }
        let head_dim = keys.head_dim(width, heads)?;
        let rotated = gguf.number(&keys.name("rope.dimension_count"));
        if !head_dim.is_multiple_of(2) || rotated.is_some_and(|dims| dims != head_dim as u64) {
            return Err(EngineError::unsupported(format!(
                "rotary embedding over {rotated:?} of {head_dim} dimensions"
            )));
        }
        let embedding = gguf.tensor("token_embd.weight")?;
        let vocabulary = match *embedding.dims {
            [rows, columns] if columns == width && rows <= MAX_VOCABULARY => rows,
            _ => return Err(EngineError::corrupt("token_embd.weight has the wrong shape")),
        };
        Ok(Self {
            architecture,
            layers: keys.sized("block_count", MAX_LAYERS)?,
            context: keys.sized("context_length", MAX_CONTEXT)?,
            width,
            feed_forward: keys.sized("feed_forward_length", MAX_WIDTH)?,
            heads,
            kv_heads,
            head_dim,
            vocabulary,
            epsilon: keys.epsilon()?,
            rope_base: keys.rope_base()?,
            rope_divisor: keys.rope_divisor()?,
        })
    }

    /// Bytes one token takes in the key/value cache: keys and values in f32 for every layer.
    pub(crate) fn kv_token_bytes(&self) -> u64 {
        (self.layers * self.kv_heads * self.head_dim * 2 * size_of::<f32>()) as u64
    }
}

/// Metadata under the architecture's own prefix.
struct Keys<'a> {
    gguf: &'a Gguf,
    prefix: &'static str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn sized(&self, key: &str, limit: u64) -> Result<usize, EngineError> {
        let name = self.name(key);
        let value = self.gguf.number(&name);
        value.filter(|value| (1..=limit).contains(value)).map(|value| value as usize).ok_or_else(
            || EngineError::corrupt(format!("{name} is {value:?}, expected 1 to {limit}")),
        )
    }

    /// What the file says, or an even share of the width.
    fn head_dim(&self, width: usize, heads: usize) -> Result<usize, EngineError> {
        let said = |key: &str| match self.gguf.metadata.get(&self.name(key)) {
            None => Ok(None),
            Some(_) => self.sized(key, MAX_HEAD_DIM).map(Some),
        };
        let (keys, values) = (said("attention.key_length")?, said("attention.value_length")?);
        let share = (width.is_multiple_of(heads)).then_some(width / heads);
        let (Some(keys), Some(values)) = (keys.or(share), values.or(share)) else {
            return Err(EngineError::corrupt(format!("{width} wide does not divide by {heads}")));
        };
        if keys != values {
            return Err(EngineError::unsupported(format!(
                "keys of {keys} dimensions with values of {values}"
            )));
        }
        Ok(keys)
    }

    fn epsilon(&self) -> Result<f32, EngineError> {
        let name = self.name("attention.layer_norm_rms_epsilon");
        self.gguf
            .real(&name)
            .filter(|value| (0.0..=0.1).contains(value))
            .map(|value| value as f32)
            .ok_or_else(|| EngineError::corrupt(format!("{name} is missing or out of range")))
    }

    fn rope_base(&self) -> Result<f32, EngineError> {
        let name = self.name("rope.freq_base");
        // 10,000 is the value of the paper and of the files that leave the key out.
        let base = self.gguf.real(&name).unwrap_or(10_000.0);
        if !(1.0..=1e12).contains(&base) {
            return Err(EngineError::corrupt(format!("{name} is {base}")));
        }
        Ok(base as f32)
    }

    fn rope_divisor(&self) -> Result<f32, EngineError> {
        match self.gguf.text(&self.name("rope.scaling.type")) {
            None | Some("none") => Ok(1.0),
            Some("linear") => {
                let factor = self.gguf.real(&self.name("rope.scaling.factor")).unwrap_or(1.0);
                if !(1e-3..=1e6).contains(&factor) {
                    return Err(EngineError::corrupt(format!("rope scaling factor {factor}")));
                }
                Ok(factor as f32)
            }
            Some(other) => {
                let other: String = other.chars().take(64).collect();
                Err(EngineError::unsupported(format!("rope scaling '{other}'")))
            }
        }
    }
}

/// The type that holds most of the file's weights.
fn quantization(gguf: &Gguf) -> String {
    let mut bytes = std::collections::BTreeMap::<String, u64>::new();
    for info in gguf.tensors.values() {
        *bytes.entry(kind_name(info.kind)).or_default() += info.elements();
    }
    bytes.into_iter().max_by_key(|(_, weights)| *weights).map_or_else(String::new, |(kind, _)| kind)
}

fn kind_name(kind: candle_core::quantized::GgmlDType) -> String {
    // K types are written with an underscore by everybody: Q4_K, not Q4K.
    format!("{kind:?}").replace('K', "_K")
}
