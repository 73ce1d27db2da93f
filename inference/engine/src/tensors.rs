//! The forward pass of all families on candle's tensors: RMSNorm, grouped-query attention with
//! rotary positions and windows, gated feed-forward, embeddings shared with the output or not.
//!
//! Owns one step over a ragged batch: rows of several sequences, each with its own position, some
//! one token long (decoding), some a chunk of a prompt. The same code runs on every candle device;
//! CUDA and Metal use it, and on the processor it is the second opinion of the tests.

use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::{rope, rope_i};
use selvedge_kernels::{Activation, Rotation, Window};

use crate::card::Shape;
use crate::error::EngineError;
use crate::gguf::Gguf;
use crate::kv::KvCache;
use crate::llama::Logits;
use crate::weights::{Loader, Matrix};

/// A model in memory.
pub(crate) struct Llama {
    shape: Shape,
    device: Device,
    embedding: Matrix,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Matrix,
    /// Radians per position for each rotated pair.
    frequencies: Vec<f64>,
    /// The same in the layers of the window, if they differ.
    near_frequencies: Option<Vec<f64>>,
}

/// The tokens of one sequence in a step.
pub(crate) struct Segment<'a> {
    pub(crate) cache: &'a mut KvCache,
    pub(crate) tokens: &'a [u32],
    pub(crate) logits: Logits,
}

struct Block {
    attention_norm: Tensor,
    qkv: Matrix,
    /// Biases of q, k and v.
    biases: Option<[Tensor; 3]>,
    /// Norms of each query head and of each key head.
    head_norms: Option<[Tensor; 2]>,
    output: Matrix,
    feed_forward_norm: Tensor,
    /// Norms of what attention and what feed-forward hand on.
    post_norms: Option<[Tensor; 2]>,
    gate_up: Matrix,
    down: Matrix,
}

/// What all layers of a step share.
struct Step {
    /// First row and number of rows of each segment.
    spans: Vec<(usize, usize)>,
    far: Places,
    /// In the layers of the window.
    near: Option<Places>,
}

/// Angles of all rows, and what each segment's rows do not see.
struct Places {
    cos: Tensor,
    sin: Tensor,
    masks: Vec<Option<Tensor>>,
}

impl Llama {
    /// Reads the weights.
    pub(crate) fn load(
        gguf: &Gguf,
        device: &Device,
        advanced: &dyn Fn(),
    ) -> std::result::Result<Self, EngineError> {
        let shape = Shape::read(gguf)?;
        let mut loader = Loader::open(gguf, device.clone(), advanced)?;
        let embedding = loader.matrix("token_embd.weight", shape.vocabulary, shape.width)?;
        let head = if gguf.tensors.contains_key("output.weight") {
            loader.matrix("output.weight", shape.vocabulary, shape.width)?
        } else {
            embedding.clone()
        };
        let blocks = (0..shape.layers)
            .map(|layer| Block::load(&mut loader, &shape, layer))
            .collect::<std::result::Result<_, _>>()?;
        let norm = loader.vector("output_norm.weight", shape.width)?;
        let frequencies = frequencies(&mut loader, &shape)?;
        let near = shape.window.as_ref().and_then(|window| window.rope_base);
        let near_frequencies = near.map(|base| speeds(base, shape.rotated).collect());
        let device = device.clone();
        Ok(Self { shape, device, embedding, blocks, norm, head, frequencies, near_frequencies })
    }

    /// An empty cache for a new sequence.
    pub(crate) fn cache(&self) -> Result<KvCache> {
        KvCache::new(&self.shape, &self.device)
    }

    /// Computes one step. Returns, per segment, the logits of the tokens that need them.
    /// `progress` advances with every layer.
    pub(crate) fn step(
        &self,
        segments: &mut [Segment<'_>],
        progress: &AtomicU64,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let tokens: Vec<u32> = segments.iter().flat_map(|s| s.tokens.iter().copied()).collect();
        let step = self.prepare(segments)?;
        let (epsilon, activation) = (self.shape.epsilon, self.shape.architecture.activation());
        let mut x = self.embedding.rows(&tokens, &self.device)?;
        x = (x * f64::from(self.shape.embedding_scale))?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let normed = rms_norm(&x, &block.attention_norm, epsilon)?;
            let mut attended = self.attend(block, layer, &normed, segments, &step)?;
            if let Some([of_attended, _]) = &block.post_norms {
                attended = rms_norm(&attended, of_attended, epsilon)?;
            }
            x = (x + attended)?;
            let normed = rms_norm(&x, &block.feed_forward_norm, epsilon)?;
            let mut fed = block.feed_forward(&normed, activation)?;
            if let Some([_, of_fed]) = &block.post_norms {
                fed = rms_norm(&fed, of_fed, epsilon)?;
            }
            x = (x + fed)?;
            progress.fetch_add(1, Ordering::Relaxed);
        }
        for segment in segments.iter_mut() {
            segment.cache.advance(segment.tokens.len());
        }
        self.logits(&x, segments, &step)
    }

    fn prepare(&self, segments: &mut [Segment<'_>]) -> Result<Step> {
        let (mut spans, mut row) = (Vec::new(), 0);
        for segment in segments.iter_mut() {
            segment.cache.reserve(segment.tokens.len())?;
            spans.push((row, segment.tokens.len()));
            row += segment.tokens.len();
        }
        let near = |window: &Window| {
            let frequencies = self.near_frequencies.as_ref().unwrap_or(&self.frequencies);
            let own = self.near_frequencies.is_some();
            let scale = if own { 1.0 } else { self.shape.rope_scale };
            self.places(segments, frequencies, scale, window.positions)
        };
        Ok(Step {
            spans,
            far: self.places(segments, &self.frequencies, self.shape.rope_scale, usize::MAX)?,
            near: self.shape.window.as_ref().map(near).transpose()?,
        })
    }

    /// Where rows that see `sight` positions are.
    fn places(
        &self,
        segments: &[Segment<'_>],
        frequencies: &[f64],
        scale: f32,
        sight: usize,
    ) -> Result<Places> {
        let (mut cos, mut sin, mut masks) = (Vec::new(), Vec::new(), Vec::new());
        for segment in segments {
            let (start, count) = (segment.cache.len(), segment.tokens.len());
            for position in start..start + count {
                for frequency in frequencies {
                    let angle = position as f64 * frequency;
                    cos.push(angle.cos() as f32 * scale);
                    sin.push(angle.sin() as f32 * scale);
                }
            }
            masks.push(self.mask(start, count, sight)?);
        }
        let dims = (cos.len() / frequencies.len(), frequencies.len());
        Ok(Places {
            cos: Tensor::from_vec(cos, dims, &self.device)?,
            sin: Tensor::from_vec(sin, dims, &self.device)?,
            masks,
        })
    }

    /// Hides later tokens from earlier ones, and those out of sight; none where none is hidden.
    fn mask(&self, start: usize, count: usize, sight: usize) -> Result<Option<Tensor>> {
        let length = start + count;
        if count == 1 && length <= sight {
            return Ok(None);
        }
        let seen = |row: usize, at: usize| at <= row && row - at < sight;
        let values = (start..length)
            .flat_map(|row| {
                (0..length).map(move |at| if seen(row, at) { 0.0 } else { f32::NEG_INFINITY })
            })
            .collect();
        Tensor::from_vec(values, (1, 1, count, length), &self.device).map(Some)
    }

    fn attend(
        &self,
        block: &Block,
        layer: usize,
        normed: &Tensor,
        segments: &[Segment<'_>],
        step: &Step,
    ) -> Result<Tensor> {
        let shape = &self.shape;
        let (queries, keys, values) = block.project(normed)?;
        let windowed = shape.window.as_ref().is_some_and(|window| window.layers[layer]);
        let places = step.near.as_ref().filter(|_| windowed).unwrap_or(&step.far);
        let mut queries = self.split(&queries, shape.heads)?;
        let mut keys = self.split(&keys, shape.kv_heads)?;
        if let Some([of_queries, of_keys]) = &block.head_norms {
            queries = rms_norm(&queries, of_queries, shape.epsilon)?;
            keys = rms_norm(&keys, of_keys, shape.epsilon)?;
        }
        let queries = (self.rotate(&queries, places)? * f64::from(shape.query_scale))?;
        let keys = self.rotate(&keys, places)?;
        let values = self.split(&values, shape.kv_heads)?;
        let mut outputs = Vec::with_capacity(segments.len());
        for (index, (segment, &(start, count))) in segments.iter().zip(&step.spans).enumerate() {
            let of = |tensor: &Tensor| tensor.narrow(1, start, count)?.contiguous();
            let (all_keys, all_values) = segment.cache.write(layer, &of(&keys)?, &of(&values)?)?;
            let mask = places.masks.get(index).and_then(Option::as_ref);
            outputs.push(self.weigh(&of(&queries)?, &all_keys, &all_values, mask)?);
        }
        let output = if outputs.len() == 1 { outputs.remove(0) } else { Tensor::cat(&outputs, 0)? };
        block.output.forward(&output)
    }

    /// `[rows, heads * dim]` as `[heads, rows, dim]`.
    fn split(&self, tensor: &Tensor, heads: usize) -> Result<Tensor> {
        let rows = tensor.dim(0)?;
        tensor.reshape((rows, heads, self.shape.head_dim))?.transpose(0, 1)?.contiguous()
    }

    fn rotate(&self, tensor: &Tensor, places: &Places) -> Result<Tensor> {
        let Shape { rotated, head_dim, .. } = self.shape;
        if rotated < head_dim {
            let turned = self.rotate_all(&tensor.narrow(2, 0, rotated)?.contiguous()?, places)?;
            let rest = tensor.narrow(2, rotated, head_dim - rotated)?;
            return Tensor::cat(&[turned, rest], D::Minus1)?.contiguous();
        }
        self.rotate_all(tensor, places)
    }

    fn rotate_all(&self, tensor: &Tensor, places: &Places) -> Result<Tensor> {
        let tensor = tensor.unsqueeze(0)?;
        match self.shape.architecture.rotation() {
            Rotation::Pairs => rope_i(&tensor, &places.cos, &places.sin)?.squeeze(0),
            Rotation::Halves => rope(&tensor, &places.cos, &places.sin)?.squeeze(0),
        }
    }

    /// Attention of one sequence: the query heads of a key head stand together as its rows.
    fn weigh(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (heads, count, dim) = queries.dims3()?;
        let (kv_heads, length, _) = keys.dims3()?;
        let group = heads / kv_heads;
        let queries = queries.reshape((kv_heads, group * count, dim))?;
        let mut scores = queries.matmul(&keys.t()?)?;
        if let Some(mask) = mask {
            scores = scores
                .reshape((kv_heads, group, count, length))?
                .broadcast_add(mask)?
                .reshape((kv_heads, group * count, length))?;
        }
        let output = softmax_last_dim(&scores)?.matmul(values)?;
        output.reshape((heads, count, dim))?.transpose(0, 1)?.reshape((count, heads * dim))
    }

    fn logits(
        &self,
        x: &Tensor,
        segments: &[Segment<'_>],
        step: &Step,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let mut rows = Vec::new();
        let mut counts = Vec::new();
        for (segment, &(start, count)) in segments.iter().zip(&step.spans) {
            let wanted = match segment.logits {
                Logits::None => start..start,
                Logits::Last => start + count - 1..start + count,
                Logits::All => start..start + count,
            };
            counts.push(wanted.len());
            rows.extend(wanted.map(|row| row as u32));
        }
        let mut computed = if rows.is_empty() {
            Vec::new()
        } else {
            let picked = x.index_select(&Tensor::new(rows, &self.device)?, 0)?;
            let normed = rms_norm(&picked, &self.norm, self.shape.epsilon)?;
            self.head.forward(&normed)?.to_vec2::<f32>()?
        };
        let mut rest = computed.drain(..);
        Ok(counts.into_iter().map(|count| rest.by_ref().take(count).collect()).collect())
    }
}

impl Block {
    fn load(
        loader: &mut Loader<'_>,
        shape: &Shape,
        layer: usize,
    ) -> std::result::Result<Self, EngineError> {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let (width, kv_width) = (shape.width, shape.kv_heads * shape.head_dim);
        let all = shape.heads * shape.head_dim;
        let qkv = [("attn_q", all), ("attn_k", kv_width), ("attn_v", kv_width)];
        let gate_up = ["ffn_gate", "ffn_up"].map(|part| (name(part), shape.feed_forward));
        let family = shape.architecture;
        let mut biases = Vec::new();
        for (part, length) in qkv {
            biases.extend(loader.vector_if_any(&format!("blk.{layer}.{part}.bias"), length)?);
        }
        let biases = if biases.is_empty() { None } else { biases.try_into().ok() };
        let mut two = |present: bool, names: [&str; 2], length: usize| {
            let mut both = Vec::new();
            for part in names.into_iter().filter(|_| present) {
                both.push(loader.vector(&name(part), length)?);
            }
            std::result::Result::<_, EngineError>::Ok(both.try_into().ok())
        };
        let head_norms = ["attn_q_norm", "attn_k_norm"];
        let head_norms = two(family.norms_heads(), head_norms, shape.head_dim)?;
        let post_norms = ["post_attention_norm", "post_ffw_norm"];
        let post_norms = two(family.norms_behind(), post_norms, width)?;
        Ok(Self {
            attention_norm: loader.vector(&name("attn_norm"), width)?,
            qkv: match family.fused() {
                true => loader.fused(&name("attn_qkv"), &qkv.map(|(_, rows)| rows), width)?,
                false => loader.stacked(&qkv.map(|(part, rows)| (name(part), rows)), width)?,
            },
            biases,
            head_norms,
            post_norms,
            output: loader.matrix(&name("attn_output"), width, all)?,
            feed_forward_norm: loader.vector(&name("ffn_norm"), width)?,
            gate_up: match family.fused() {
                true => loader.fused(&name("ffn_up"), &[shape.feed_forward; 2], width)?,
                false => loader.stacked(&gate_up, width)?,
            },
            down: loader.matrix(&name("ffn_down"), width, shape.feed_forward)?,
        })
    }

    fn project(&self, normed: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let [queries, keys, values]: [Tensor; 3] =
            self.qkv.forward_all(normed)?.try_into().map_err(|_| unexpected("q, k and v"))?;
        match &self.biases {
            None => Ok((queries, keys, values)),
            Some([q, k, v]) => {
                Ok((queries.broadcast_add(q)?, keys.broadcast_add(k)?, values.broadcast_add(v)?))
            }
        }
    }

    fn feed_forward(&self, normed: &Tensor, activation: Activation) -> Result<Tensor> {
        let [gate, up]: [Tensor; 2] =
            self.gate_up.forward_all(normed)?.try_into().map_err(|_| unexpected("gate and up"))?;
        let gate = match activation {
            Activation::Silu => silu(&gate)?,
            Activation::Gelu => gate.gelu()?,
        };
        self.down.forward(&(gate * up)?)
    }
}

fn unexpected(what: &str) -> candle_core::Error {
    candle_core::Error::Msg(format!("{what}: another number of products than of matrices"))
}

/// Rotation speeds: powers of the base, divided by the file's own factors where it has them
/// (the long-context scalings of Llama 3.1 and of Phi-3).
pub(crate) fn frequencies(
    loader: &mut Loader<'_>,
    shape: &Shape,
) -> std::result::Result<Vec<f64>, EngineError> {
    let half = shape.rotated / 2;
    let factors = match loader.vector_if_any(shape.rope_factors, half)? {
        Some(factors) => factors.to_vec1::<f32>()?,
        None => vec![1.0; half],
    };
    if let Some(factor) = factors.iter().find(|factor| !divides(**factor)) {
        let name = shape.rope_factors;
        return Err(EngineError::corrupt(format!("{name} has the factor {factor}")));
    }
    let divisor = f64::from(shape.rope_divisor);
    let speeds = speeds(shape.rope_base, shape.rotated).zip(factors);
    Ok(speeds.map(|(speed, factor)| speed / divisor / f64::from(factor)).collect())
}

/// Refuses factors of rotation by which no speed may be divided.
pub(crate) fn check_factors(gguf: &Gguf, shape: &Shape) -> std::result::Result<(), EngineError> {
    let mut loader = Loader::open(gguf, Device::Cpu, &|| ())?;
    frequencies(&mut loader, shape).map(drop)
}

/// Whether a rotation speed may be divided by it.
pub(crate) fn divides(factor: f32) -> bool {
    factor.is_finite() && factor > 0.0
}

/// Rotation speeds of the pairs of so many dimensions.
fn speeds(base: f32, rotated: usize) -> impl Iterator<Item = f64> {
    let base = f64::from(base);
    (0..rotated / 2).map(move |pair| base.powf(-2.0 * pair as f64 / rotated as f64))
}
