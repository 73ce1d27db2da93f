//! A model of the llama family in memory: its shape and its weights.
//!
//! Owns loading, several tensors at a time. Where tensors come from, and what they are called in
//! files other than GGUF, is the caller's affair.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::KernelError;
use crate::format::Format;
use crate::kv::{Cache, Geometry};
use crate::matrix::Matrix;
use crate::simd::{Floats, LANES};

/// The shape of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Blocks of attention and feed-forward.
    pub layers: usize,
    /// Numbers per token between blocks.
    pub width: usize,
    /// Numbers per token inside of the feed-forward part.
    pub feed_forward: usize,
    /// Query heads; a multiple of the key heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Dimensions of a head; even.
    pub head_dim: usize,
    /// Tokens known.
    pub vocabulary: usize,
    /// Of the norms (Zhang and Sennrich, 2019).
    pub epsilon: f32,
    /// Rotation speeds are powers of it (Su et al., 2021).
    pub rope_base: f32,
    /// Positions are divided by it.
    pub rope_divisor: f32,
    /// Which dimensions rotate together.
    pub rotation: Rotation,
    /// Whether each query and each key head is normed before it rotates.
    pub head_norms: bool,
}

/// Which dimensions of a head rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Neighbours.
    Pairs,
    /// Each with the one half a head further.
    Halves,
}

/// Where a model's tensors come from, by their names in GGUF.
pub trait Source {
    /// The format of a tensor of these dimensions, the outermost first; `None` when there is no
    /// such tensor.
    ///
    /// # Errors
    /// [`KernelError`] when there is one of another shape.
    fn format(&mut self, name: &str, dims: &[usize]) -> Result<Option<Format>, KernelError>;

    /// Appends bytes of the tensor.
    ///
    /// # Errors
    /// [`KernelError`] when they cannot be read.
    fn read(
        &mut self,
        name: &str,
        from: u64,
        bytes: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), KernelError>;

    /// Is told of each tensor that is in memory.
    fn advanced(&mut self);
}

/// A model in memory.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) embedding: Matrix,
    /// The embedding serves when there is none.
    pub(crate) head: Option<Matrix>,
    pub(crate) norm: Vec<Floats>,
    pub(crate) blocks: Vec<Block>,
    /// Radians per position for each rotated pair.
    pub(crate) frequencies: Vec<f64>,
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) attention_norm: Vec<Floats>,
    /// Of queries, keys and values.
    pub(crate) qkv: [Matrix; 3],
    /// Added to them, each padded to whole tiles; or nothing.
    pub(crate) biases: Vec<Floats>,
    /// Weights of the norms of a query head and of a key head; or nothing.
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    pub(crate) output: Matrix,
    pub(crate) feed_forward_norm: Vec<Floats>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

/// Opens a model's source once more, for one thread.
pub type Open<'a> = dyn Fn() -> Result<Box<dyn Source + 'a>, KernelError> + Sync + 'a;

/// What does not belong to a layer.
struct Ends {
    embedding: Matrix,
    head: Option<Matrix>,
    norm: Vec<Floats>,
    frequencies: Vec<f64>,
}

enum Piece {
    Ends(Box<Ends>),
    Block(usize, Box<Block>),
}

impl Config {
    pub(crate) const fn geometry(&self) -> Geometry {
        Geometry { layers: self.layers, kv_heads: self.kv_heads, dim: self.head_dim }
    }

    /// Bytes that one position takes in a cache.
    pub const fn position_bytes(&self) -> usize {
        self.geometry().position_bytes()
    }

    fn check(&self) -> Result<(), KernelError> {
        let sizes = [self.layers, self.width, self.feed_forward, self.kv_heads, self.vocabulary];
        let even = self.head_dim > 0 && self.head_dim.is_multiple_of(2);
        if sizes.contains(&0)
            || !even
            || !self.heads.is_multiple_of(self.kv_heads)
            || self.heads == 0
        {
            return Err(KernelError::Shape(format!("{self:?}")));
        }
        Ok(())
    }
}

/// Bytes that a tensor of this format takes when loaded.
pub const fn held_bytes(format: Format, rows: usize, columns: usize) -> u64 {
    Matrix::bytes_for(format, rows, columns)
}

/// A tensor's numbers as products see them, row by row: packed and unpacked again.
///
/// # Errors
/// [`KernelError`] when the bytes do not match the shape.
pub fn unpacked(
    format: Format,
    bytes: &[u8],
    rows: usize,
    columns: usize,
) -> Result<Vec<f32>, KernelError> {
    let row_bytes = format.bytes_for(columns);
    let matrix = Matrix::pack(format, rows, columns, &mut |first, count, into| {
        let all = bytes.get(first * row_bytes..(first + count) * row_bytes);
        into.extend_from_slice(all.ok_or(KernelError::Bytes)?);
        Ok(())
    })?;
    let mut numbers = vec![0.0; rows * columns];
    for (row, numbers) in numbers.chunks_exact_mut(columns.max(1)).enumerate() {
        matrix.row(row, numbers);
    }
    Ok(numbers)
}

impl Model {
    /// Reads a model on so many threads.
    ///
    /// # Errors
    /// [`KernelError`] when a tensor is missing, damaged or of another shape.
    pub fn load(config: Config, open: &Open<'_>, threads: usize) -> Result<Self, KernelError> {
        config.check()?;
        let next = AtomicUsize::new(0);
        let pieces = Mutex::new(Vec::new());
        let work = || -> Result<(), KernelError> {
            let mut reader = Reader { source: open()? };
            loop {
                let piece = match next.fetch_add(1, Ordering::Relaxed) {
                    0 => Piece::Ends(Box::new(reader.ends(&config)?)),
                    at if at <= config.layers => {
                        Piece::Block(at - 1, Box::new(reader.block(&config, at - 1)?))
                    }
                    _ => return Ok(()),
                };
                pieces.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
            }
        };
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for helper in helpers {
                let helped = helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(helped);
            }
            result
        })?;
        let pieces = pieces.into_inner().unwrap_or_else(PoisonError::into_inner);
        Self::assemble(config, pieces)
    }

    fn assemble(config: Config, pieces: Vec<Piece>) -> Result<Self, KernelError> {
        let (mut ends, mut blocks) = (None, Vec::new());
        for piece in pieces {
            match piece {
                Piece::Ends(piece) => ends = Some(*piece),
                Piece::Block(layer, block) => blocks.push((layer, *block)),
            }
        }
        blocks.sort_by_key(|(layer, _)| *layer);
        let blocks = blocks.into_iter().map(|(_, block)| block).collect();
        let Some(Ends { embedding, head, norm, frequencies }) = ends else {
            return Err(KernelError::Bytes);
        };
        Ok(Self { config, embedding, head, norm, blocks, frequencies })
    }

    /// An empty cache for a new sequence.
    pub const fn cache(&self) -> Cache {
        Cache::new(self.config.geometry())
    }
}

struct Reader<'a> {
    source: Box<dyn Source + 'a>,
}

impl Reader<'_> {
    fn ends(&mut self, config: &Config) -> Result<Ends, KernelError> {
        let (vocabulary, width) = (config.vocabulary, config.width);
        Ok(Ends {
            embedding: self.matrix("token_embd.weight", vocabulary, width)?,
            head: match self.source.format("output.weight", &[vocabulary, width])? {
                Some(_) => Some(self.matrix("output.weight", vocabulary, width)?),
                None => None,
            },
            norm: tiled(&self.vector("output_norm.weight", width)?),
            frequencies: self.frequencies(config)?,
        })
    }

    fn block(&mut self, config: &Config, layer: usize) -> Result<Block, KernelError> {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let (width, dim) = (config.width, config.head_dim);
        let (all, few) = (config.heads * dim, config.kv_heads * dim);
        let parts = [("attn_q", all), ("attn_k", few), ("attn_v", few)];
        let mut biases = Vec::new();
        for (part, length) in parts {
            let bias = self.vector_if_any(&format!("blk.{layer}.{part}.bias"), length)?;
            biases.extend(bias.map(|bias| tiled(&bias)));
        }
        if biases.len() % parts.len() > 0 {
            return Err(KernelError::Shape(format!("biases of layer {layer} are incomplete")));
        }
        Ok(Block {
            attention_norm: tiled(&self.vector(&name("attn_norm"), width)?),
            qkv: [
                self.matrix(&name("attn_q"), all, width)?,
                self.matrix(&name("attn_k"), few, width)?,
                self.matrix(&name("attn_v"), few, width)?,
            ],
            biases: biases.concat(),
            head_norms: match config.head_norms {
                false => None,
                true => Some([
                    self.vector(&name("attn_q_norm"), dim)?,
                    self.vector(&name("attn_k_norm"), dim)?,
                ]),
            },
            output: self.matrix(&name("attn_output"), width, all)?,
            feed_forward_norm: tiled(&self.vector(&name("ffn_norm"), width)?),
            gate: self.matrix(&name("ffn_gate"), config.feed_forward, width)?,
            up: self.matrix(&name("ffn_up"), config.feed_forward, width)?,
            down: self.matrix(&name("ffn_down"), width, config.feed_forward)?,
        })
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, KernelError> {
        let format = self.source.format(name, &[rows, columns])?.ok_or_else(|| missing(name))?;
        let row_bytes = format.bytes_for(columns);
        let source = &mut self.source;
        let matrix = Matrix::pack(format, rows, columns, &mut |first, count, into| {
            let from = (first as u64).saturating_mul(row_bytes as u64);
            source.read(name, from, count.saturating_mul(row_bytes), into)
        })?;
        self.source.advanced();
        Ok(matrix)
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, KernelError> {
        self.vector_if_any(name, length)?.ok_or_else(|| missing(name))
    }

    fn vector_if_any(
        &mut self,
        name: &str,
        length: usize,
    ) -> Result<Option<Vec<f32>>, KernelError> {
        let Some(format) = self.source.format(name, &[length])? else { return Ok(None) };
        let (mut bytes, wanted) = (Vec::new(), format.bytes_for(length));
        self.source.read(name, 0, wanted, &mut bytes)?;
        self.source.advanced();
        if bytes.len() != wanted {
            return Err(KernelError::Bytes);
        }
        format
            .vector(&bytes, length)
            .map(Some)
            .ok_or_else(|| KernelError::Shape(format!("{name} is {format:?}")))
    }

    /// Rotation speeds: powers of the base, divided by the file's own factors where it has them
    /// (Llama 3.1's long-context scaling). Computed without the system's library, whose last bits
    /// differ from machine to machine.
    fn frequencies(&mut self, config: &Config) -> Result<Vec<f64>, KernelError> {
        let half = config.head_dim / 2;
        let factors = self.vector_if_any("rope_freqs.weight", half)?;
        let factors = factors.unwrap_or_else(|| vec![1.0; half]);
        let (base, divisor) = (f64::from(config.rope_base), f64::from(config.rope_divisor));
        let speeds = factors.iter().enumerate().map(|(pair, factor)| {
            let speed = libm::pow(base, -2.0 * pair as f64 / config.head_dim as f64);
            speed / divisor / f64::from(*factor)
        });
        Ok(speeds.collect())
    }
}

fn missing(name: &str) -> KernelError {
    KernelError::Shape(format!("tensor {name} is missing"))
}

/// A vector in whole tiles, with zeros behind its end.
fn tiled(vector: &[f32]) -> Vec<Floats> {
    let tile = |part: &[f32]| {
        let mut tile = [0.0; LANES];
        tile[..part.len()].copy_from_slice(part);
        tile
    };
    vector.chunks(LANES).map(tile).collect()
}
