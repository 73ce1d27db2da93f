//! The forward pass of a model that is being tuned: in full precision, and with gradients.
//!
//! Owns the same arithmetic as `tensors` in operations that candle can differentiate, the frozen
//! weights it needs, and the place of what is learned beside them: a low-rank addition to any
//! projection. The frozen weights get no gradient and cost none. Rows of queries and keys lie as in
//! the models that these files are made from, whatever the file's own order, so that what is
//! learned fits them. What is learned and how is decided by whoever calls.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Shape as Dims, Storage, Tensor};

use crate::card::Shape;
use crate::error::EngineError;
use crate::family::Architecture;
use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;
use crate::weights::Loader;

/// Weights of a model that is tuned: two GiB of f32, what a machine of 8 GiB has beside the engine.
const MAX_WEIGHTS: u64 = 1 << 29;

/// A projection of a layer that can be added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Projection {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// What attention hands on.
    Output,
    /// The gate of the feed-forward layer.
    Gate,
    /// What the gate lets through.
    Up,
    /// Back to the model's width.
    Down,
}

/// Outputs and inputs of each kind of projection, and what else is to be known before tuning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunableShape {
    /// Layers.
    pub layers: usize,
    /// The model's width.
    pub width: usize,
    /// Numbers of all queries of a token.
    pub queries: usize,
    /// Numbers of all keys, and of all values.
    pub keys: usize,
    /// Width of the feed-forward layer.
    pub feed_forward: usize,
    /// Tokens that it can attend to.
    pub context: usize,
    /// Tokens that there are.
    pub vocabulary: usize,
}

/// A model file, opened for tuning: its shape and its tokenizer.
pub struct Tunable {
    path: PathBuf,
    shape: TunableShape,
    tokenizer: Tokenizer,
}

impl Tunable {
    /// Reads a file's header, within bounds.
    ///
    /// # Errors
    /// [`EngineError`] when it cannot be a model here, or is too large to be tuned.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let gguf = Gguf::open(path)?;
        let shape = Shape::read(&gguf)?;
        if let family @ (Architecture::Gemma3 | Architecture::Phi3) = shape.architecture {
            return Err(EngineError::unsupported(format!(
                "models of the family {} are not tuned here; llama, qwen2 and qwen3 are",
                family.name()
            )));
        }
        let weights = gguf.tensors.values().map(crate::gguf::TensorInfo::elements);
        let weights = weights.fold(0, u64::saturating_add);
        if weights > MAX_WEIGHTS {
            return Err(EngineError::unsupported(format!(
                "{weights} weights; models of up to {MAX_WEIGHTS} are tuned here"
            )));
        }
        let tokenizer = Tokenizer::read(&gguf, shape.vocabulary)?;
        let shape = TunableShape::of(&shape);
        Ok(Self { path: path.to_owned(), shape, tokenizer })
    }

    /// What is to be known before tuning.
    pub const fn shape(&self) -> TunableShape {
        self.shape
    }

    /// The tokens of a text. Control tokens are recognised: chats can be learned from.
    ///
    /// # Errors
    /// [`EngineError::Compute`] where it cannot be tokenized.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        self.tokenizer.encode(text).map_err(EngineError::Compute)
    }

    /// The token that stands between two texts, if the model has one.
    pub const fn end(&self) -> Option<u32> {
        self.tokenizer.end()
    }

    /// Reads the weights: four bytes for each of them in memory.
    ///
    /// # Errors
    /// [`EngineError`] when the file is damaged.
    pub fn load(&self) -> Result<Decoder, EngineError> {
        Decoder::load(&Gguf::open(&self.path)?)
    }

    /// The same, of the file with this BLAKE3 digest: between two rounds it may have been replaced,
    /// and what is learned beside other weights is of no use to anybody.
    ///
    /// # Errors
    /// [`EngineError`] when the file is another one, or damaged.
    pub fn load_of(&self, digest: &[u8; 32]) -> Result<Decoder, EngineError> {
        let decoder = self.load()?;
        // Afterwards: who replaced it meanwhile is seen.
        self.is(digest)?;
        Ok(decoder)
    }

    /// As [`Tunable::open`], of the file with this BLAKE3 digest.
    ///
    /// # Errors
    /// [`EngineError`], among others when the file is another one.
    pub fn open_of(path: &Path, digest: &[u8; 32]) -> Result<Self, EngineError> {
        let file = Self::open(path)?;
        file.is(digest)?;
        Ok(file)
    }

    fn is(&self, digest: &[u8; 32]) -> Result<(), EngineError> {
        let io = |source| EngineError::Io { path: self.path.clone(), source };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(&self.path).map_err(io)?).map_err(io)?;
        if hasher.finalize() == blake3::Hash::from_bytes(*digest) {
            return Ok(());
        }
        Err(EngineError::Corrupt(format!(
            "{} is not the file any more that the job tunes; put the one with the digest {} back, \
             or start the node again",
            self.path.display(),
            blake3::Hash::from_bytes(*digest).to_hex()
        )))
    }
}

impl Projection {
    /// All, in the order of a layer's computation.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// Outputs and inputs.
    pub const fn sides(self, shape: &TunableShape) -> (usize, usize) {
        match self {
            Self::Query => (shape.queries, shape.width),
            Self::Key | Self::Value => (shape.keys, shape.width),
            Self::Output => (shape.width, shape.queries),
            Self::Gate | Self::Up => (shape.feed_forward, shape.width),
            Self::Down => (shape.width, shape.feed_forward),
        }
    }

    const fn file_name(self) -> &'static str {
        match self {
            Self::Query => "attn_q",
            Self::Key => "attn_k",
            Self::Value => "attn_v",
            Self::Output => "attn_output",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        }
    }
}

/// What is added to a projection: scale · B · A (Hu et al. 2022, arXiv 2106.09685).
#[derive(Clone)]
pub struct LowRank {
    /// `[rank, inputs]`; gets no gradient.
    pub a: Tensor,
    /// `[outputs, rank]`; what is learned.
    pub b: Tensor,
    /// What the product is multiplied by.
    pub scale: f64,
}

/// What is added, by layer and projection.
pub type Additions = BTreeMap<(usize, Projection), LowRank>;

/// A model in full precision.
pub struct Decoder {
    shape: Shape,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Tensor,
    /// Radians per position for each rotated pair.
    frequencies: Vec<f64>,
}

struct Block {
    attention_norm: Tensor,
    feed_forward_norm: Tensor,
    weights: BTreeMap<Projection, Tensor>,
    biases: BTreeMap<Projection, Tensor>,
    /// Norms of each query head and of each key head.
    head_norms: Option<[Tensor; 2]>,
}

/// What all layers of one text share.
struct Places {
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
}

impl Decoder {
    fn load(gguf: &Gguf) -> Result<Self, EngineError> {
        let shape = Shape::read(gguf)?;
        let mut loader = Loader::open(gguf, Device::Cpu, &|| ())?;
        let embedding = loader.dense("token_embd.weight", shape.vocabulary, shape.width)?;
        let head = if gguf.tensors.contains_key("output.weight") {
            loader.dense("output.weight", shape.vocabulary, shape.width)?
        } else {
            embedding.clone()
        };
        let blocks = (0..shape.layers)
            .map(|layer| Block::load(&mut loader, &shape, layer))
            .collect::<Result<_, _>>()?;
        let norm = loader.vector("output_norm.weight", shape.width)?;
        let frequencies = crate::tensors::frequencies(&mut loader, &shape)?;
        Ok(Self { shape, embedding, blocks, norm, head, frequencies })
    }

    /// The logits after each of these tokens, `[tokens, vocabulary]`, through which gradients reach
    /// the B of every addition.
    ///
    /// # Errors
    /// Candle's, for tokens or additions that do not fit the model.
    pub fn logits(&self, tokens: &[u32], added: &Additions) -> candle_core::Result<Tensor> {
        let places = self.places(tokens.len())?;
        let mut x = self.embedding.index_select(&Tensor::new(tokens, &Device::Cpu)?, 0)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let by = |which: Projection, input: &Tensor| {
                let bias = block.biases.get(&which);
                let weight = block.weights.get(&which).ok_or_else(|| missing(which))?;
                project(input, weight, bias, added.get(&(layer, which)))
            };
            let normed = normalized(&x, &block.attention_norm, self.shape.epsilon)?;
            x = (x + by(Projection::Output, &self.attend(block, &by, &normed, &places)?)?)?;
            let normed = normalized(&x, &block.feed_forward_norm, self.shape.epsilon)?;
            let gate = by(Projection::Gate, &normed)?.silu()?;
            x = (x + by(Projection::Down, &(gate * by(Projection::Up, &normed)?)?)?)?;
        }
        times(&normalized(&x, &self.norm, self.shape.epsilon)?, &self.head)
    }

    fn places(&self, count: usize) -> candle_core::Result<Places> {
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in 0..count {
            for frequency in &self.frequencies {
                let angle = position as f64 * frequency;
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        let hidden = |row: usize, at: usize| if at <= row { 0.0 } else { f32::NEG_INFINITY };
        let mask: Vec<f32> =
            (0..count).flat_map(|row| (0..count).map(move |at| hidden(row, at))).collect();
        let dims = (count, self.frequencies.len());
        Ok(Places {
            cos: Tensor::from_vec(cos, dims, &Device::Cpu)?,
            sin: Tensor::from_vec(sin, dims, &Device::Cpu)?,
            mask: Tensor::from_vec(mask, (1, 1, count, count), &Device::Cpu)?,
        })
    }

    fn attend(
        &self,
        block: &Block,
        by: &impl Fn(Projection, &Tensor) -> candle_core::Result<Tensor>,
        normed: &Tensor,
        places: &Places,
    ) -> candle_core::Result<Tensor> {
        let Shape { heads, kv_heads, head_dim, epsilon, .. } = self.shape;
        let (count, group) = (normed.dim(0)?, heads / kv_heads);
        let split = |tensor: &Tensor, heads: usize| {
            tensor.reshape((count, heads, head_dim))?.transpose(0, 1)?.contiguous()
        };
        let mut queries = split(&by(Projection::Query, normed)?, heads)?;
        let mut keys = split(&by(Projection::Key, normed)?, kv_heads)?;
        if let Some([of_queries, of_keys]) = &block.head_norms {
            queries = normalized(&queries, of_queries, epsilon)?;
            keys = normalized(&keys, of_keys, epsilon)?;
        }
        let values = split(&by(Projection::Value, normed)?, kv_heads)?;
        let scale = 1.0 / (head_dim as f64).sqrt();
        let queries = (turned(&queries, places)? * scale)?;
        let queries = queries.reshape((kv_heads, group * count, head_dim))?;
        let scores = queries.matmul(&turned(&keys, places)?.t()?)?;
        let scores = scores.reshape((kv_heads, group, count, count))?;
        let shares = shares(&scores.broadcast_add(&places.mask)?)?;
        let output = shares.reshape((kv_heads, group * count, count))?.matmul(&values)?;
        let output = output.reshape((heads, count, head_dim))?.transpose(0, 1)?.contiguous()?;
        output.reshape((count, heads * head_dim))
    }
}

impl TunableShape {
    /// The sides that matter to whoever tunes.
    pub(crate) fn of(shape: &Shape) -> Self {
        Self {
            layers: shape.layers,
            width: shape.width,
            queries: shape.heads * shape.head_dim,
            keys: shape.kv_heads * shape.head_dim,
            feed_forward: shape.feed_forward,
            context: shape.context,
            vocabulary: shape.vocabulary,
        }
    }
}

impl Block {
    fn load(loader: &mut Loader<'_>, shape: &Shape, layer: usize) -> Result<Self, EngineError> {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let sides = TunableShape::of(shape);
        let heads = |which: Projection| match (shape.architecture, which) {
            (Architecture::Llama, Projection::Query) => Some(shape.heads),
            (Architecture::Llama, Projection::Key) => Some(shape.kv_heads),
            _ => None,
        };
        let (mut weights, mut biases) = (BTreeMap::new(), BTreeMap::new());
        for which in Projection::ALL {
            let (outputs, inputs) = which.sides(&sides);
            let part = which.file_name();
            let mut weight = loader.dense(&name(part), outputs, inputs)?;
            let mut bias = match which {
                Projection::Query | Projection::Key | Projection::Value => {
                    loader.vector_if_any(&format!("blk.{layer}.{part}.bias"), outputs)?
                }
                _ => None,
            };
            if let Some(heads) = heads(which) {
                weight = unpaired(&weight, heads)?;
                bias = bias.map(|bias| unpaired(&bias, heads)).transpose()?;
            }
            weights.insert(which, weight);
            biases.extend(bias.map(|bias| (which, bias)));
        }
        let head_norms = match shape.architecture.norms_heads() {
            false => None,
            true => Some([
                loader.vector(&name("attn_q_norm"), shape.head_dim)?,
                loader.vector(&name("attn_k_norm"), shape.head_dim)?,
            ]),
        };
        Ok(Self {
            attention_norm: loader.vector(&name("attn_norm"), shape.width)?,
            feed_forward_norm: loader.vector(&name("ffn_norm"), shape.width)?,
            weights,
            biases,
            head_norms,
        })
    }
}

/// Llama's files have the two numbers that turn together side by side, so that their rows are in
/// another order than in the models they are made from: there each has its partner half a head
/// away. This is the order of the model.
fn unpaired(rows: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let all = rows.dim(0)?;
    let inner = rows.elem_count() / all;
    let pairs = rows.reshape((heads, all / heads / 2, 2, inner))?;
    pairs.transpose(1, 2)?.contiguous()?.reshape(rows.shape())
}

fn project(
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    added: Option<&LowRank>,
) -> candle_core::Result<Tensor> {
    let mut output = times(input, weight)?;
    if let Some(bias) = bias {
        output = output.broadcast_add(bias)?;
    }
    if let Some(LowRank { a, b, scale }) = added {
        output = (output + (times(input, a)?.matmul(&b.t()?)? * *scale)?)?;
    }
    Ok(output)
}

/// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467).
fn normalized(x: &Tensor, weight: &Tensor, epsilon: f32) -> candle_core::Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + f64::from(epsilon))?.sqrt()?)?.broadcast_mul(weight)
}

/// Each number with the one half a head further, turned by their place (Su et al. 2021, arXiv
/// 2104.09864).
fn turned(x: &Tensor, places: &Places) -> candle_core::Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (first, second) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let Places { cos, sin, .. } = places;
    let left = (first.broadcast_mul(cos)? - second.broadcast_mul(sin)?)?;
    let right = (second.broadcast_mul(cos)? + first.broadcast_mul(sin)?)?;
    Tensor::cat(&[left, right], D::Minus1)
}

/// Softmax. The greatest score is there for its size alone: no gradient goes through it.
fn shares(scores: &Tensor) -> candle_core::Result<Tensor> {
    let greatest = scores.max_keepdim(D::Minus1)?.detach();
    let powers = scores.broadcast_sub(&greatest)?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
}

/// `input` times a frozen matrix of `[outputs, inputs]`.
fn times(input: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    input.contiguous()?.apply_op1(Frozen(weight.clone()))
}

/// A product with a matrix that is not learned. Candle's own would work out a gradient of the
/// matrix as well, which takes as long as that of the input and as much memory as the matrix.
struct Frozen(Tensor);

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "frozen-product"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Dims)> {
        let Some((from, to)) = layout.contiguous_offsets() else {
            candle_core::bail!("a frozen product of rows that do not lie together");
        };
        let rows = storage.as_slice::<f32>()?;
        let Some(rows) = rows.get(from..to) else {
            candle_core::bail!("rows beyond their own memory");
        };
        let input = Tensor::from_slice(rows, layout.shape(), &Device::Cpu)?;
        let output = input.matmul(&self.0.t()?)?;
        let (held, _) = output.storage_and_layout();
        match &*held {
            Storage::Cpu(numbers) => Ok((numbers.clone(), output.shape().clone())),
            _ => candle_core::bail!("a product on another device than its factors"),
        }
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        gradient.contiguous()?.matmul(&self.0).map(Some)
    }
}

fn missing(which: Projection) -> candle_core::Error {
    candle_core::Error::Msg(format!("{which:?}: the model has no such projection"))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "decoder_tests.rs"]
mod tests;
