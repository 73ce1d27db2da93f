//! A decoder in memory (llamas, Qwens, Gemma 3, Phi-3): its shape and its weights.
//!
//! Owns loading, several tensors at a time. Where tensors come from, what they are called in files
//! other than GGUF, and who keeps them packed, is the caller's affair.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::act::BLOCK;
use crate::error::KernelError;
use crate::format::Format;
use crate::kept::{Kept, Shelf, Taken, Wanted};
use crate::kv::{Cache, Geometry};
use crate::matrix::{Matrix, spell_row};
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
    /// Dimensions of a head that rotate, from the first on; even.
    pub rotated: usize,
    /// The tensor whose numbers rotation speeds are divided by, where a file has one.
    pub rope_factors: &'static str,
    /// What has rotated is multiplied by it.
    pub rope_scale: f32,
    /// Whether each query and each key head is normed before it rotates.
    pub head_norms: bool,
    /// Whether what attention and feed-forward hand on is normed before it is added.
    pub post_norms: bool,
    /// What gates the feed-forward part.
    pub activation: Activation,
    /// Embeddings are multiplied by it.
    pub embedding_scale: f32,
    /// Queries are multiplied by it.
    pub query_scale: f32,
    /// Whether queries, keys and values are one tensor, and gate and up another.
    pub fused: bool,
    /// The layers that look back only so far, if any do.
    pub window: Option<Window>,
}

/// Layers that do not look back at everything (Beltagy et al., 2020).
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Positions that a row sees, its own counted.
    pub positions: usize,
    /// Which layers, from the first on; those behind its end see all.
    pub layers: Vec<bool>,
    /// Their rotation speeds are powers of it, neither divided nor multiplied; as in the other
    /// layers if there is none.
    pub rope_base: Option<f32>,
}

/// The function that a gate goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x / (1 + e^-x).
    Silu,
    /// The Gaussian error linear unit, by a hyperbolic tangent.
    Gelu,
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

    /// Single rows of the tensor while the model answers, where they can be had: then it is not
    /// brought into memory if rows are all that is wanted of it.
    ///
    /// # Errors
    /// [`KernelError`] when the tensor cannot be opened.
    fn rows(&mut self, name: &str) -> Result<Option<Box<dyn Rows>>, KernelError> {
        let _ = name;
        Ok(None)
    }

    /// Is told of each tensor that is in memory.
    fn advanced(&mut self);
}

/// A tensor that stays where it is.
pub trait Rows: fmt::Debug + Send + Sync {
    /// Fills `into` with the tensor's bytes from `from` on.
    ///
    /// # Errors
    /// [`KernelError`] when they cannot be read.
    fn read(&self, from: u64, into: &mut [u8]) -> Result<(), KernelError>;
}

/// A model in memory.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) words: Words,
    pub(crate) norm: Vec<Floats>,
    pub(crate) blocks: Vec<Block>,
    /// Radians per position for each rotated pair.
    pub(crate) frequencies: Vec<f64>,
    /// The same in the layers of the window, if they differ.
    pub(crate) near_frequencies: Option<Vec<f64>>,
    /// What matrices lie in that are not in memory of their own.
    kept: Option<Arc<dyn Kept>>,
}

/// What stands at both ends: a row for each token, and what each token is judged by.
#[derive(Debug)]
pub(crate) enum Words {
    /// One matrix is both.
    Tied(Matrix),
    /// Two matrices in memory.
    Apart { embedding: Matrix, head: Matrix },
    /// The rows stay where they are: a step wants no more than one for each of its tokens.
    Kept { embedding: Box<dyn Rows>, format: Format, head: Matrix },
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
    /// Weights of the norms of what attention and what feed-forward hand on; or nothing.
    pub(crate) post_norms: Option<[Vec<Floats>; 2]>,
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
    words: Words,
    norm: Vec<Floats>,
    frequencies: Vec<f64>,
    near_frequencies: Option<Vec<f64>>,
}

enum Piece {
    Ends(Box<Ends>),
    Block(usize, Box<Block>),
}

impl Config {
    pub(crate) const fn geometry(&self) -> Geometry {
        Geometry { layers: self.layers, kv_heads: self.kv_heads, dim: self.head_dim }
    }

    /// The window of a layer, if it has one.
    pub(crate) fn window_of(&self, layer: usize) -> Option<&Window> {
        let window = self.window.as_ref()?;
        window.layers.get(layer).copied().unwrap_or(false).then_some(window)
    }

    /// Bytes that one position takes in a cache.
    pub const fn position_bytes(&self) -> usize {
        self.geometry().position_bytes()
    }

    fn check(&self) -> Result<(), KernelError> {
        let sizes = [self.layers, self.width, self.feed_forward, self.kv_heads, self.vocabulary];
        let even = self.rotated > 0 && self.rotated.is_multiple_of(2);
        let nothing = self.window.as_ref().is_some_and(|window| window.positions == 0);
        if sizes.contains(&0)
            || !even
            || self.rotated > self.head_dim
            || nothing
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
        matrix.open(&[]).row(row, numbers);
    }
    Ok(numbers)
}

impl Model {
    /// Reads a model on so many threads. With a shelf its matrices are taken from there, or packed
    /// onto it; without, they are packed into memory. What is no matrix is read in any case.
    ///
    /// # Errors
    /// [`KernelError`] when a tensor is missing, damaged or of another shape, or what the shelf
    /// says.
    pub fn load(
        config: Config,
        open: &Open<'_>,
        threads: usize,
        shelf: Option<&dyn Shelf>,
    ) -> Result<Self, KernelError> {
        config.check()?;
        let next = AtomicUsize::new(0);
        let pieces = Mutex::new(Vec::new());
        let work = || -> Result<(), KernelError> {
            let mut reader = Reader { source: open()?, shelf };
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
        let kept = shelf.map(Shelf::close).transpose()?;
        Self::assemble(config, pieces, kept)
    }

    fn assemble(
        config: Config,
        pieces: Vec<Piece>,
        kept: Option<Arc<dyn Kept>>,
    ) -> Result<Self, KernelError> {
        let (mut ends, mut blocks) = (None, Vec::new());
        for piece in pieces {
            match piece {
                Piece::Ends(piece) => ends = Some(*piece),
                Piece::Block(layer, block) => blocks.push((layer, *block)),
            }
        }
        blocks.sort_by_key(|(layer, _)| *layer);
        let blocks = blocks.into_iter().map(|(_, block)| block).collect();
        let Some(Ends { words, norm, frequencies, near_frequencies }) = ends else {
            return Err(KernelError::Bytes);
        };
        let model = Self { config, words, norm, blocks, frequencies, near_frequencies, kept };
        if model.is_whole() { Ok(model) } else { Err(KernelError::Bytes) }
    }

    /// Whether the tiles of all matrices are there: products with others would be zero, and nobody
    /// would notice.
    fn is_whole(&self) -> bool {
        let matrices = self.blocks.iter().flat_map(Block::parts);
        matrices.chain(self.words.all()).all(|matrix| matrix.is_whole(self.kept()))
    }

    /// What matrices lie in that are not in memory of their own; nothing if there is none.
    pub(crate) fn kept(&self) -> &[u8] {
        match &self.kept {
            Some(kept) => kept.bytes(),
            None => &[],
        }
    }

    /// Whether its matrices lie where somebody keeps them.
    pub const fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// An empty cache for a new sequence.
    pub const fn cache(&self) -> Cache {
        Cache::new(self.config.geometry())
    }
}

impl Words {
    /// What each token is judged by.
    pub(crate) const fn head(&self) -> &Matrix {
        match self {
            Self::Tied(matrix) => matrix,
            Self::Apart { head, .. } | Self::Kept { head, .. } => head,
        }
    }

    /// All matrices that are packed.
    fn all(&self) -> impl Iterator<Item = &Matrix> {
        let table = match self {
            Self::Apart { embedding, .. } => Some(embedding),
            Self::Tied(_) | Self::Kept { .. } => None,
        };
        std::iter::once(self.head()).chain(table)
    }

    /// A token's row, which has as many numbers as `out` takes; `kept` is what matrices lie in.
    pub(crate) fn row(
        &self,
        kept: &[u8],
        token: usize,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        match self {
            Self::Tied(matrix) => matrix.open(kept).row(token, out),
            Self::Apart { embedding, .. } => embedding.open(kept).row(token, out),
            Self::Kept { embedding, format, .. } => {
                let mut bytes = vec![0; format.bytes_for(out.len())];
                embedding.read((token as u64).saturating_mul(bytes.len() as u64), &mut bytes)?;
                spell_row(*format, &bytes, out);
            }
        }
        Ok(())
    }
}

struct Reader<'a> {
    source: Box<dyn Source + 'a>,
    shelf: Option<&'a dyn Shelf>,
}

impl Reader<'_> {
    fn ends(&mut self, config: &Config) -> Result<Ends, KernelError> {
        let width = config.width;
        Ok(Ends {
            words: self.words(config)?,
            norm: tiled(&self.vector("output_norm.weight", width)?),
            frequencies: self.frequencies(config)?,
            near_frequencies: config
                .window
                .as_ref()
                .and_then(|window| window.rope_base)
                .map(|base| speeds(base, config.rotated).collect()),
        })
    }

    fn words(&mut self, config: &Config) -> Result<Words, KernelError> {
        let (table, head, dims) =
            ("token_embd.weight", "output.weight", [config.vocabulary, config.width]);
        let [vocabulary, width] = dims;
        if self.source.format(head, &dims)?.is_none() {
            return Ok(Words::Tied(self.matrix(table, vocabulary, width)?));
        }
        let head = self.matrix(head, vocabulary, width)?;
        let format = self.source.format(table, &dims)?.ok_or_else(|| missing(table))?;
        match self.source.rows(table)? {
            Some(embedding) if width.is_multiple_of(format.block_len()) => {
                self.source.advanced();
                Ok(Words::Kept { embedding, format, head })
            }
            _ => Ok(Words::Apart { embedding: self.matrix(table, vocabulary, width)?, head }),
        }
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
        let forward = config.feed_forward;
        let [gate, up] = match config.fused {
            false => [
                self.matrix(&name("ffn_gate"), forward, width)?,
                self.matrix(&name("ffn_up"), forward, width)?,
            ],
            true => self.parts(&name("ffn_up"), [forward; 2], width)?,
        };
        Ok(Block {
            attention_norm: tiled(&self.vector(&name("attn_norm"), width)?),
            qkv: match config.fused {
                false => [
                    self.matrix(&name("attn_q"), all, width)?,
                    self.matrix(&name("attn_k"), few, width)?,
                    self.matrix(&name("attn_v"), few, width)?,
                ],
                true => self.parts(&name("attn_qkv"), [all, few, few], width)?,
            },
            biases: biases.concat(),
            head_norms: match config.head_norms {
                false => None,
                true => Some([
                    self.vector(&name("attn_q_norm"), dim)?,
                    self.vector(&name("attn_k_norm"), dim)?,
                ]),
            },
            post_norms: match config.post_norms {
                false => None,
                true => Some([
                    tiled(&self.vector(&name("post_attention_norm"), width)?),
                    tiled(&self.vector(&name("post_ffw_norm"), width)?),
                ]),
            },
            output: self.matrix(&name("attn_output"), width, all)?,
            feed_forward_norm: tiled(&self.vector(&name("ffn_norm"), width)?),
            gate,
            up,
            down: self.matrix(&name("ffn_down"), width, forward)?,
        })
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, KernelError> {
        let [matrix] = self.parts(name, [rows], columns)?;
        Ok(matrix)
    }

    /// Matrices that lie in one tensor, one below the other.
    fn parts<const PARTS: usize>(
        &mut self,
        name: &str,
        heights: [usize; PARTS],
        columns: usize,
    ) -> Result<[Matrix; PARTS], KernelError> {
        let rows = heights.iter().sum();
        let format = self.source.format(name, &[rows, columns])?.ok_or_else(|| missing(name))?;
        let (mut parts, mut first) = (Vec::with_capacity(PARTS), 0);
        for height in heights {
            parts.push(self.part(name, format, first..first + height, columns)?);
            first += height;
        }
        self.source.advanced();
        parts.try_into().map_err(|_| KernelError::Bytes)
    }

    fn part(
        &mut self,
        name: &str,
        format: Format,
        rows: Range<usize>,
        columns: usize,
    ) -> Result<Matrix, KernelError> {
        let (row_bytes, outputs) = (format.bytes_for(columns), rows.len());
        let source = &mut self.source;
        let mut read = |first: usize, count: usize, into: &mut Vec<u8>| {
            let from = ((rows.start + first) as u64).saturating_mul(row_bytes as u64);
            source.read(name, from, count.saturating_mul(row_bytes), into)
        };
        let Some(shelf) = self.shelf else {
            return Matrix::pack(format, outputs, columns, &mut read);
        };
        let (first, depth) = (rows.start, columns.div_ceil(BLOCK));
        let wanted = Wanted { tensor: name, first, layout: format.layout(), outputs, depth };
        match shelf.take(&wanted)? {
            Taken::Found(start) => Ok(Matrix::kept(&wanted, start)),
            Taken::Place(place) => Matrix::pack_into(place, format, outputs, columns, &mut read),
        }
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
    /// (the long-context scalings of Llama 3.1 and of Phi-3). Computed without the system's
    /// library, whose last bits differ from machine to machine.
    fn frequencies(&mut self, config: &Config) -> Result<Vec<f64>, KernelError> {
        let half = config.rotated / 2;
        let factors = self.vector_if_any(config.rope_factors, half)?;
        let factors = factors.unwrap_or_else(|| vec![1.0; half]);
        let divisor = f64::from(config.rope_divisor);
        let speeds = speeds(config.rope_base, config.rotated).zip(factors);
        Ok(speeds.map(|(speed, factor)| speed / divisor / f64::from(factor)).collect())
    }
}

/// Rotation speeds of the pairs of so many dimensions.
fn speeds(base: f32, rotated: usize) -> impl Iterator<Item = f64> {
    let base = f64::from(base);
    (0..rotated / 2).map(move |pair| libm::pow(base, -2.0 * pair as f64 / rotated as f64))
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
