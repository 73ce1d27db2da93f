//! A language model in memory, on whichever side computes it.
//!
//! Owns the choice: on the processor the model is `selvedge_kernels`' own, packed as it is read or
//! mapped as it was packed before ([`crate::packed`]); on other devices candle's tensors compute it
//! ([`crate::tensors`]).
//! What holds on the processor: a row's logits are bitwise the same in every batch, for every way
//! of cutting a prompt into chunks, on any number of threads and for every set of vector
//! instructions. On other devices rounding differs with the number of rows: there, equality is
//! near, not bitwise.

use std::sync::atomic::AtomicU64;

use candle_core::Device;
use selvedge_base::ModelDigest;
use selvedge_kernels::{Additions, Crew, Model, SharedPage};

use crate::card::Shape;
use crate::error::EngineError;
use crate::gguf::Gguf;
use crate::kept::Keeping;
use crate::kv::KvCache;
use crate::{packed, tensors};

pub(crate) use selvedge_kernels::Logits;

/// A model in memory.
pub(crate) enum Llama {
    /// Packed for the processor.
    Packed(Box<Model>),
    /// On a device of candle's.
    Tensors(Box<tensors::Llama>),
}

/// What one sequence has computed so far, on the side of its model.
pub(crate) enum Cache {
    /// Pages of the kernels.
    Packed(selvedge_kernels::Cache),
    /// Tensors.
    Tensors(KvCache),
}

impl Cache {
    /// Tokens held.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Packed(cache) => cache.len(),
            Self::Tensors(cache) => cache.len(),
        }
    }

    /// Forgets all but the first tokens.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        match self {
            Self::Packed(cache) => cache.truncate(tokens),
            Self::Tensors(cache) => cache.truncate(tokens),
        }
    }

    /// Shares the first whole page that is the sequence's own; `None` when there is none.
    pub(crate) fn share(&mut self) -> Option<SharedPage> {
        match self {
            Self::Packed(cache) => cache.share(),
            Self::Tensors(_) => None,
        }
    }

    /// Goes on behind a shared page, in place of the sequence's own if it has computed that.
    pub(crate) fn join(&mut self, page: SharedPage) -> Result<(), EngineError> {
        match self {
            Self::Packed(cache) => Ok(cache.join(page)?),
            Self::Tensors(_) => Err(another()),
        }
    }
}

/// The tokens of one sequence in a step.
pub(crate) struct Segment<'a> {
    pub(crate) cache: &'a mut Cache,
    pub(crate) tokens: &'a [u32],
    pub(crate) logits: Logits,
    /// What is added to the model's matrices.
    pub(crate) added: Option<&'a Additions>,
}

impl Llama {
    /// Reads the weights, on `threads` threads where that helps; `advanced` is called after each
    /// tensor.
    pub(crate) fn load(
        gguf: &Gguf,
        device: &Device,
        threads: usize,
        advanced: &(dyn Fn() + Sync),
    ) -> Result<Self, EngineError> {
        if device.is_cpu() {
            let model = packed::load(gguf, threads, advanced)?;
            return Ok(Self::Packed(Box::new(model)));
        }
        let model = tensors::Llama::load(gguf, device, advanced)?;
        Ok(Self::Tensors(Box::new(model)))
    }

    /// The same, from what is kept of a model of this digest, or into it, if anything is kept.
    pub(crate) fn load_kept(
        gguf: &Gguf,
        device: &Device,
        keeping: Option<(&Keeping, ModelDigest)>,
        threads: usize,
        advanced: &(dyn Fn() + Sync),
    ) -> Result<Self, EngineError> {
        match keeping.filter(|_| device.is_cpu()) {
            Some(keeping) => {
                let model = packed::load_kept(gguf, keeping, threads, advanced)?;
                Ok(Self::Packed(Box::new(model)))
            }
            None => Self::load(gguf, device, threads, advanced),
        }
    }

    /// Whether its weights lie in a file that is mapped.
    pub(crate) fn is_mapped(&self) -> bool {
        match self {
            Self::Packed(model) => model.is_kept(),
            Self::Tensors(_) => false,
        }
    }

    /// Bytes that the weights will take.
    pub(crate) fn bytes(gguf: &Gguf, device: &Device) -> u64 {
        if device.is_cpu() { packed::bytes(gguf) } else { crate::weights::bytes(gguf) }
    }

    /// Bytes that one token's keys and values will take.
    pub(crate) fn token_bytes(shape: &Shape, device: &Device) -> u64 {
        if device.is_cpu() {
            packed::config(shape).position_bytes() as u64
        } else {
            shape.kv_token_bytes()
        }
    }

    /// An empty cache for a new sequence.
    pub(crate) fn cache(&self) -> Result<Cache, EngineError> {
        Ok(match self {
            Self::Packed(model) => Cache::Packed(model.cache()),
            Self::Tensors(model) => Cache::Tensors(model.cache()?),
        })
    }

    /// Whether whole pages can be shared. On candle's devices there are no pages, and a prompt that
    /// is cut elsewhere rounds elsewhere.
    pub(crate) const fn shares(&self) -> bool {
        matches!(self, Self::Packed(_))
    }

    /// Computes one step. Returns, per segment, the logits of the tokens that need them.
    /// `progress` advances with every layer.
    pub(crate) fn step(
        &self,
        crew: &mut Crew,
        segments: &mut [Segment<'_>],
        progress: &AtomicU64,
    ) -> Result<Vec<Vec<Vec<f32>>>, EngineError> {
        #[cfg(test)]
        assert!(
            !segments.iter().any(|segment| segment.tokens.starts_with(&crate::testing::FATAL)),
            "a fault that a test asked for"
        );
        match self {
            Self::Packed(model) => {
                let mut theirs = Vec::with_capacity(segments.len());
                for Segment { cache, tokens, logits, added } in segments {
                    let Cache::Packed(cache) = cache else { return Err(another()) };
                    let (logits, added) = (*logits, *added);
                    theirs.push(selvedge_kernels::Segment { cache, tokens, logits, added });
                }
                Ok(model.step(crew, &mut theirs, progress)?)
            }
            Self::Tensors(model) => {
                let mut theirs = Vec::with_capacity(segments.len());
                for Segment { cache, tokens, logits, added } in segments {
                    let Cache::Tensors(cache) = cache else { return Err(another()) };
                    if added.is_some() {
                        let message = "nothing is added to models on this device";
                        return Err(EngineError::Compute(message.to_owned()));
                    }
                    theirs.push(tensors::Segment { cache, tokens, logits: *logits });
                }
                Ok(model.step(&mut theirs, progress)?)
            }
        }
    }
}

fn another() -> EngineError {
    EngineError::Compute("a cache of another model".to_owned())
}
