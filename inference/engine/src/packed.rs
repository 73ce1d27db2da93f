//! Models for the processor: read from GGUF, packed by `selvedge_kernels`.
//!
//! Owns the translation of shapes, formats and errors between the two, and the order in which ways
//! to load are tried: from what `kept` has, into what it keeps, into memory.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use candle_core::quantized::GgmlDType;
use selvedge_base::ModelDigest;
use selvedge_kernels::{Config, Format, KernelError, Model, Rows, Shelf, Source, held_bytes};

use crate::card::Shape;
use crate::error::EngineError;
use crate::gguf::{Gguf, TensorInfo};
use crate::kept::{Identity, Keeping, Unkept};
use crate::tensors::check_factors;

/// The table of embeddings.
const TABLE: &str = "token_embd.weight";
/// What tokens are judged by, where it is not the table.
const HEAD: &str = "output.weight";

/// Reads and packs the weights on so many threads.
pub(crate) fn load(
    gguf: &Gguf,
    threads: usize,
    advanced: &(dyn Fn() + Sync),
) -> Result<Model, EngineError> {
    Ok(load_with(gguf, checked(gguf)?, (threads, None), advanced)?)
}

/// The same, but a model that was packed before is mapped, and one that was not is kept while it is
/// packed. Where neither can be it is packed into memory.
pub(crate) fn load_kept(
    gguf: &Gguf,
    (keeping, digest): (&Keeping, ModelDigest),
    threads: usize,
    advanced: &(dyn Fn() + Sync),
) -> Result<Model, EngineError> {
    let (config, identity) = (checked(gguf)?, Identity::of(digest, gguf));
    let load =
        |shelf: Option<&dyn Shelf>| load_with(gguf, config.clone(), (threads, shelf), advanced);
    match keeping.find(&identity) {
        Ok(None) => {}
        Ok(Some(found)) => match unless_unkept(load(Some(&found)))? {
            Ok(model) => return Ok(model),
            Err(why) => {
                keeping.discard(&identity);
                tracing::warn!(%digest, %why, "packed weights on the disk are packed anew");
            }
        },
        Err(why) => tracing::warn!(%digest, %why, "packed weights on the disk are packed anew"),
    }
    let draft = keeping.begin(identity, bytes(gguf), gguf.tensors.len());
    let kept = match draft {
        Ok(draft) => unless_unkept(load(Some(&draft)))?,
        Err(why) => Err(why),
    };
    match kept {
        Ok(model) => Ok(model),
        Err(why) => {
            tracing::warn!(%digest, %why, "packed weights are not kept on the disk");
            Ok(load(None)?)
        }
    }
}

/// What was loaded, or why it could not be kept; any other error is one of the model.
fn unless_unkept(loaded: Result<Model, KernelError>) -> Result<Result<Model, Unkept>, EngineError> {
    match loaded {
        Ok(model) => Ok(Ok(model)),
        Err(KernelError::Source(source)) => match source.downcast::<Unkept>() {
            Ok(why) => Ok(Err(*why)),
            Err(source) => Err(KernelError::Source(source).into()),
        },
        Err(error @ (KernelError::Shape(_) | KernelError::Bytes | KernelError::Token { .. })) => {
            Err(error.into())
        }
    }
}

/// The shape of a model whose file says nothing strange of it.
pub(crate) fn checked(gguf: &Gguf) -> Result<Config, EngineError> {
    let shape = Shape::read(gguf)?;
    check_factors(gguf, &shape)?;
    Ok(config(&shape))
}

/// Reads the weights onto a shelf, from one, or into memory.
pub(crate) fn load_with(
    gguf: &Gguf,
    config: Config,
    (threads, shelf): (usize, Option<&dyn Shelf>),
    advanced: &(dyn Fn() + Sync),
) -> Result<Model, KernelError> {
    let open = || -> Result<Box<dyn Source + '_>, KernelError> {
        let file = File::open(&gguf.path)
            .map_err(|source| from_engine(EngineError::Io { path: gguf.path.clone(), source }))?;
        Ok(Box::new(Tensors { gguf, file, advanced }))
    };
    Model::load(config, &open, threads, shelf)
}

/// Bytes that the weights take when packed.
pub(crate) fn bytes(gguf: &Gguf) -> u64 {
    // A table beside a head of its own stays in the file.
    let apart = gguf.tensors.contains_key(HEAD);
    let all = gguf.tensors.iter().filter(|(name, _)| !(apart && *name == TABLE));
    let held = |info: &TensorInfo| match (&*info.dims, format(info.kind)) {
        (&[rows, columns], Some(format)) => held_bytes(format, rows, columns),
        _ => info.elements().saturating_mul(size_of::<f32>() as u64),
    };
    all.map(|(_, info)| held(info)).fold(0, u64::saturating_add)
}

/// The shape as the kernels take it.
pub(crate) fn config(shape: &Shape) -> Config {
    Config {
        layers: shape.layers,
        width: shape.width,
        feed_forward: shape.feed_forward,
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
        vocabulary: shape.vocabulary,
        epsilon: shape.epsilon,
        rope_base: shape.rope_base,
        rope_divisor: shape.rope_divisor,
        rotation: shape.architecture.rotation(),
        rotated: shape.rotated,
        rope_factors: shape.rope_factors,
        rope_scale: shape.rope_scale,
        head_norms: shape.architecture.norms_heads(),
        post_norms: shape.architecture.norms_behind(),
        activation: shape.architecture.activation(),
        embedding_scale: shape.embedding_scale,
        query_scale: shape.query_scale,
        fused: shape.architecture.fused(),
        window: shape.window.clone(),
    }
}

/// A model file that is read part by part.
struct Tensors<'a> {
    gguf: &'a Gguf,
    file: File,
    /// Called after each tensor, so that a slow load is seen to move.
    advanced: &'a (dyn Fn() + Sync),
}

impl Source for Tensors<'_> {
    fn format(&mut self, name: &str, dims: &[usize]) -> Result<Option<Format>, KernelError> {
        let Some(info) = self.gguf.tensors.get(name) else { return Ok(None) };
        if info.dims != dims {
            let message = format!("tensor {name} is {:?}, expected {dims:?}", info.dims);
            return Err(KernelError::Shape(message));
        }
        let known = format(info.kind).ok_or_else(|| {
            from_engine(EngineError::unsupported(format!("tensor {name} is {:?}", info.kind)))
        });
        known.map(Some)
    }

    fn read(
        &mut self,
        name: &str,
        from: u64,
        bytes: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), KernelError> {
        let info = self.gguf.tensor(name).map_err(from_engine)?;
        self.gguf.read_part(&mut self.file, info, from, bytes, into).map_err(from_engine)
    }

    fn rows(&mut self, name: &str) -> Result<Option<Box<dyn Rows>>, KernelError> {
        let info = self.gguf.tensor(name).map_err(from_engine)?.clone();
        let path = self.gguf.path.clone();
        let file = File::open(&path)
            .map_err(|source| from_engine(EngineError::Io { path: path.clone(), source }))?;
        Ok(Some(Box::new(Stays { path, file, info })))
    }

    fn advanced(&mut self) {
        (self.advanced)();
    }
}

/// A tensor whose rows are read from the file one by one. The open file stays the same whatever
/// becomes of its name.
#[derive(Debug)]
struct Stays {
    path: PathBuf,
    file: File,
    info: TensorInfo,
}

impl Rows for Stays {
    fn read(&self, from: u64, into: &mut [u8]) -> Result<(), KernelError> {
        if from.saturating_add(into.len() as u64) > self.info.bytes {
            return Err(KernelError::Bytes);
        }
        let read = self.file.read_exact_at(into, self.info.start + from);
        read.map_err(|source| from_engine(EngineError::Io { path: self.path.clone(), source }))
    }
}

fn from_engine(error: EngineError) -> KernelError {
    KernelError::Source(Box::new(error))
}

impl From<KernelError> for EngineError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::Source(source) => match source.downcast::<Self>() {
                Ok(error) => *error,
                Err(error) => Self::Compute(error.to_string()),
            },
            KernelError::Shape(_) | KernelError::Bytes => Self::Corrupt(error.to_string()),
            KernelError::Token { .. } => Self::Compute(error.to_string()),
        }
    }
}

const fn format(kind: GgmlDType) -> Option<Format> {
    Some(match kind {
        GgmlDType::F32 => Format::F32,
        GgmlDType::F16 => Format::F16,
        GgmlDType::BF16 => Format::BF16,
        GgmlDType::Q4_0 => Format::Q4_0,
        GgmlDType::Q4_1 => Format::Q4_1,
        GgmlDType::Q5_0 => Format::Q5_0,
        GgmlDType::Q5_1 => Format::Q5_1,
        GgmlDType::Q8_0 => Format::Q8_0,
        GgmlDType::Q2K => Format::Q2K,
        GgmlDType::Q3K => Format::Q3K,
        GgmlDType::Q4K => Format::Q4K,
        GgmlDType::Q5K => Format::Q5K,
        GgmlDType::Q6K => Format::Q6K,
        GgmlDType::Q8_1 | GgmlDType::Q8K => return None,
    })
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "packed_tests.rs"]
mod tests;
