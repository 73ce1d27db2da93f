//! The keys and values of one sequence.
//!
//! Owns their memory: it grows page by page, so that a short answer never pays for a long context,
//! and it is all freed when the sequence ends. Who may grow is the scheduler's decision.

use candle_core::{DType, Device, Result, Tensor};
use selvedge_contract::schedule::PAGE_TOKENS;

use crate::card::Shape;

/// Keys and values, layer by layer, each `[kv heads, capacity, head dimension]`.
pub(crate) struct KvCache {
    layers: Vec<(Tensor, Tensor)>,
    capacity: usize,
    length: usize,
}

impl KvCache {
    /// An empty cache for a model of this shape.
    pub(crate) fn new(shape: &Shape, device: &Device) -> Result<Self> {
        let empty = || {
            let dims = (shape.kv_heads, PAGE_TOKENS as usize, shape.head_dim);
            Tensor::zeros(dims, DType::F32, device)
        };
        let layers =
            (0..shape.layers).map(|_| Ok((empty()?, empty()?))).collect::<Result<Vec<_>>>()?;
        Ok(Self { layers, capacity: PAGE_TOKENS as usize, length: 0 })
    }

    /// Tokens held.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Forgets all but the first tokens; what comes next is written over the others.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        self.length = self.length.min(tokens);
    }

    /// Makes room for `more` tokens.
    pub(crate) fn reserve(&mut self, more: usize) -> Result<()> {
        let needed = (self.length + more).next_multiple_of(PAGE_TOKENS as usize);
        if needed <= self.capacity {
            return Ok(());
        }
        for (keys, values) in &mut self.layers {
            for side in [keys, values] {
                let (heads, _, dim) = side.dims3()?;
                let wider = Tensor::zeros((heads, needed, dim), DType::F32, side.device())?;
                wider.slice_set(side, 1, 0)?;
                *side = wider;
            }
        }
        self.capacity = needed;
        Ok(())
    }

    /// Writes one layer's keys and values of the tokens being computed and returns all so far.
    pub(crate) fn write(
        &self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let Some((all_keys, all_values)) = self.layers.get(layer) else {
            candle_core::bail!("layer {layer} of {}", self.layers.len());
        };
        all_keys.slice_set(keys, 1, self.length)?;
        all_values.slice_set(values, 1, self.length)?;
        let length = self.length + keys.dim(1)?;
        Ok((all_keys.narrow(1, 0, length)?, all_values.narrow(1, 0, length)?))
    }

    /// Marks the tokens written in every layer as held.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }
}
