//! What a model file is, read from its header: the facts people and routing see, and the shape the
//! forward pass needs.
//!
//! Owns the translation of metadata into a checked [`Shape`]. Every number that later sizes an
//! allocation or divides another is bounded here.

use std::path::Path;

use selvedge_base::ModelDigest;
use selvedge_contract::{ModelCard, Signature};
use selvedge_kernels::Window;

use crate::embed;
use crate::error::EngineError;
use crate::family::{Architecture, SUPPORTED};
use crate::gguf::Gguf;
use crate::gguf_value::Value;
use crate::onnx;
use crate::speech;
use crate::text::Text;
use crate::tokenizer::Tokenizer;
use crate::vision;

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
/// Of six layers of Gemma 3 the last sees everything; its files do not say so.
const GEMMA_PERIOD: u64 = 6;
/// The rotation base of Gemma 3's layers that see a window; its files seldom say so.
const GEMMA_NEAR_BASE: f32 = 10_000.0;
/// Layers of Gemma 3 27B, which alone scales queries by its heads' share of the width. Files do
/// not say so; llama.cpp knows it by its layers, too.
const GEMMA_27B_LAYERS: usize = 62;
/// What Phi-3's longer rotations are multiplied by lies near 1.2.
const ROPE_SCALES: std::ops::RangeInclusive<f64> = 0.1..=10.0;

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
    /// What it takes and gives, if it is asked with tensors.
    pub signature: Option<Signature>,
    /// The classes of texts that it tells, if it does, in its own order.
    pub classes: Option<Vec<String>>,
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
/// of speech or of pictures, its directory's.
///
/// # Errors
/// [`EngineError`] when it is unreadable, damaged or of a kind this engine does not run.
pub fn inspect(path: &Path) -> Result<Inspected, EngineError> {
    if onnx::is_file(path) {
        return Ok(onnx::File::open(path)?.facts());
    }
    if vision::is_folder(path) {
        return Ok(vision::Folder::open(path)?.facts());
    }
    if embed::is_folder(path) {
        return match speech::is_folder(path) {
            true => Ok(speech::Folder::open(path)?.facts()),
            false => Ok(embed::Folder::open(path)?.facts()),
        };
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

/// What a text is to a model.
#[derive(Debug)]
pub struct Encoded {
    pub tokens: Vec<u32>,
    /// What those tokens stand for, one after the other.
    pub bytes: Vec<u8>,
    /// Tokens that the vocabulary has.
    pub known: usize,
    /// Whether it is one of SentencePiece's pieces, and not of byte-level BPE.
    pub in_pieces: bool,
}

/// What a text is to a model whose file is held in memory.
///
/// # Errors
/// [`EngineError`] when it cannot be a model here, or cannot read the text.
pub fn encode_bytes(bytes: &[u8], text: &str) -> Result<Encoded, EngineError> {
    let gguf = Gguf::from_reader(Path::new("memory"), bytes, bytes.len() as u64)?;
    let tokenizer = Tokenizer::read(&gguf, Shape::read(&gguf)?.vocabulary)?;
    let tokens = tokenizer.encode(text).map_err(EngineError::Compute)?;
    let bytes = tokens.iter().flat_map(|token| tokenizer.bytes(*token)).copied().collect();
    let (known, in_pieces) = (tokenizer.len(), tokenizer.in_pieces());
    Ok(Encoded { tokens, bytes, known, in_pieces })
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
        signature: None,
        classes: None,
    })
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
    /// Dimensions of a head that rotate, from the first on.
    pub(crate) rotated: usize,
    /// The tensor whose numbers rotation speeds are divided by, where a file has one.
    pub(crate) rope_factors: &'static str,
    /// What has rotated is multiplied by it.
    pub(crate) rope_scale: f32,
    pub(crate) embedding_scale: f32,
    pub(crate) query_scale: f32,
    /// The layers that look back only so far, if any do.
    pub(crate) window: Option<Window>,
}

impl Shape {
    pub(crate) fn read(gguf: &Gguf) -> Result<Self, EngineError> {
        let architecture = architecture(gguf)?;
        let keys = Keys { gguf, architecture };
        keys.check_kind()?;
        let layers = keys.sized("block_count", MAX_LAYERS)?;
        let context = keys.sized("context_length", MAX_CONTEXT)?;
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
        let (rope_factors, rope_scale) = keys.long_rope(context)?;
        let gemma = architecture == Architecture::Gemma3;
        let shared = if gemma && layers == GEMMA_27B_LAYERS { width / heads } else { head_dim };
        Ok(Self {
            architecture,
            layers,
            context,
            width,
            feed_forward: keys.sized("feed_forward_length", MAX_WIDTH)?,
            heads,
            kv_heads,
            head_dim,
            vocabulary: vocabulary(gguf, width)?,
            epsilon: keys.epsilon()?,
            // The value of the paper and of the files that leave the key out.
            rope_base: keys.rope_base("rope.freq_base")?.unwrap_or(10_000.0),
            rope_divisor: keys.rope_divisor()?,
            rotated: keys.rotated(head_dim)?,
            rope_factors,
            rope_scale,
            embedding_scale: if gemma { (width as f32).sqrt() } else { 1.0 },
            query_scale: 1.0 / (shared.max(1) as f32).sqrt(),
            window: keys.window(layers, context)?,
        })
    }

    /// Bytes one token takes in the key/value cache: keys and values in f32 for every layer.
    pub(crate) fn kv_token_bytes(&self) -> u64 {
        (self.layers * self.kv_heads * self.head_dim * 2 * size_of::<f32>()) as u64
    }
}

fn architecture(gguf: &Gguf) -> Result<Architecture, EngineError> {
    let Some(name) = gguf.text("general.architecture") else {
        return Err(EngineError::corrupt("general.architecture is missing"));
    };
    Architecture::named(name).ok_or_else(|| {
        let name: String = name.chars().take(64).collect();
        EngineError::unsupported(format!("architecture '{name}' ({SUPPORTED})"))
    })
}

fn vocabulary(gguf: &Gguf, width: usize) -> Result<usize, EngineError> {
    match *gguf.tensor("token_embd.weight")?.dims {
        [rows, columns] if columns == width && rows <= MAX_VOCABULARY => Ok(rows),
        _ => Err(EngineError::corrupt("token_embd.weight has the wrong shape")),
    }
}

/// Metadata under the architecture's own prefix.
struct Keys<'a> {
    gguf: &'a Gguf,
    architecture: Architecture,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name())
    }

    /// Refuses what would be computed as if it were not there.
    fn check_kind(&self) -> Result<(), EngineError> {
        if self.gguf.number(&self.name("expert_count")).unwrap_or(0) > 0 {
            return Err(EngineError::unsupported("mixtures of experts"));
        }
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            match self.gguf.metadata.get(&self.name(key)) {
                None | Some(Value::Number(0)) => {}
                Some(Value::Real(cap)) if *cap == 0.0 => {}
                Some(_) => {
                    let what = format!("{} (logits that are capped)", self.name(key));
                    return Err(EngineError::unsupported(what));
                }
            }
        }
        Ok(())
    }

    /// How many dimensions of a head rotate.
    fn rotated(&self, head_dim: usize) -> Result<usize, EngineError> {
        let rotated = match self.gguf.metadata.get(&self.name("rope.dimension_count")) {
            None => head_dim,
            Some(_) => self.sized("rope.dimension_count", MAX_HEAD_DIM)?,
        };
        let some = self.architecture == Architecture::Phi3 && rotated < head_dim;
        if rotated.is_multiple_of(2) && (some || rotated == head_dim) {
            return Ok(rotated);
        }
        Err(EngineError::unsupported(format!(
            "rotary embedding over {rotated} of {head_dim} dimensions"
        )))
    }

    /// The layers that do not see everything.
    fn window(&self, layers: usize, context: usize) -> Result<Option<Window>, EngineError> {
        let near = match self.architecture {
            Architecture::Gemma3 => true,
            Architecture::Phi3 => false,
            // What the others' files say of windows their models do not mean.
            Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => return Ok(None),
        };
        let positions = match self.gguf.metadata.get(&self.name("attention.sliding_window")) {
            None | Some(Value::Number(0)) => return Ok(None),
            // One that hides nothing is none, unless its layers rotate by another base.
            Some(Value::Number(said)) if !near && *said >= context as u64 => return Ok(None),
            Some(_) => self.sized("attention.sliding_window", MAX_CONTEXT)?,
        };
        let rope_base = match near {
            true => Some(self.rope_base("rope.freq_base_swa")?.unwrap_or(GEMMA_NEAR_BASE)),
            false => None,
        };
        Ok(Some(Window { positions, layers: self.pattern(layers, near)?, rope_base }))
    }

    /// Which layers see a window only: all but each so many-th, or those that a list names.
    fn pattern(&self, layers: usize, near: bool) -> Result<Vec<bool>, EngineError> {
        let name = self.name("attention.sliding_window_pattern");
        let each = |period: u64| {
            let see_all = |layer: u64| period > 0 && layer % period == period - 1;
            (0..layers as u64).map(|layer| !see_all(layer)).collect()
        };
        match self.gguf.metadata.get(&name) {
            None => Ok(each(if near { GEMMA_PERIOD } else { 0 })),
            Some(Value::Number(period)) => Ok(each(*period)),
            Some(Value::Array(list)) if list.len() == layers => {
                let said = |one: &Value| one.as_flag().or_else(|| Some(one.as_number()? != 0));
                let list: Option<Vec<bool>> = list.iter().map(said).collect();
                list.ok_or_else(|| EngineError::corrupt(format!("{name} is not a list of flags")))
            }
            Some(_) => Err(EngineError::corrupt(format!(
                "{name} is neither a number nor a list of {layers} flags"
            ))),
        }
    }

    /// The tensor of factors of rotation, and what is multiplied with what has rotated. LongRoPE
    /// (Ding et al., 2024) has two tensors: for texts within the length that a model was first
    /// trained for, and for longer ones. A sequence may grow from the one into the other, and pages
    /// of its keys are shared with others, so what holds is the longest text that may come.
    fn long_rope(&self, context: usize) -> Result<(&'static str, f32), EngineError> {
        if self.architecture != Architecture::Phi3 {
            return Ok(("rope_freqs.weight", 1.0));
        }
        let first = match self.gguf.metadata.get(&self.name("rope.scaling.original_context_length"))
        {
            None => context,
            Some(_) => self.sized("rope.scaling.original_context_length", MAX_CONTEXT)?,
        };
        let name = self.name("rope.scaling.attn_factor");
        let scale = self.gguf.real(&name).unwrap_or(1.0);
        if !ROPE_SCALES.contains(&scale) {
            return Err(EngineError::corrupt(format!("{name} is {scale}")));
        }
        let factors =
            if context > first { "rope_factors_long.weight" } else { "rope_factors_short.weight" };
        if context > first && !self.gguf.tensors.contains_key(factors) {
            return Err(EngineError::corrupt(format!(
                "a context of {context} tokens beyond the first {first} needs the factors of \
                 rotation in {factors}, which is missing"
            )));
        }
        Ok((factors, scale as f32))
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

    /// A base of rotation speeds, if the file says one.
    fn rope_base(&self, key: &str) -> Result<Option<f32>, EngineError> {
        let name = self.name(key);
        let base = self.gguf.real(&name);
        if base.is_some_and(|base| !(1.0..=1e12).contains(&base)) {
            return Err(EngineError::corrupt(format!("{name} is {base:?}")));
        }
        Ok(base.map(|base| base as f32))
    }

    fn rope_divisor(&self) -> Result<f32, EngineError> {
        match self.gguf.text(&self.name("rope.scaling.type")) {
            None | Some("none") => Ok(1.0),
            Some("longrope") if self.architecture == Architecture::Phi3 => Ok(1.0),
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
