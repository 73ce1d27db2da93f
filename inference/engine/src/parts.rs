//! Which tensors a model consists of, and their sides.
//!
//! Owns the list by which a file is judged without reading its weights. What is computed with them
//! is `tensors`' and the kernels'; that both want the same tensors is for the tests to say.

use crate::card::Shape;
use crate::error::EngineError;
use crate::gguf::Gguf;

/// Refuses a file in which a tensor is missing or has other sides than the header says.
pub(crate) fn check(gguf: &Gguf, shape: &Shape) -> Result<(), EngineError> {
    let (width, vocabulary) = (shape.width, shape.vocabulary);
    needed(gguf, "token_embd.weight", &[vocabulary, width])?;
    needed(gguf, "output_norm.weight", &[width])?;
    // Without it the table of embeddings serves.
    optional(gguf, "output.weight", &[vocabulary, width])?;
    optional(gguf, shape.rope_factors, &[shape.rotated / 2])?;
    (0..shape.layers).try_for_each(|layer| layer_is_whole(gguf, shape, layer))
}

fn layer_is_whole(gguf: &Gguf, shape: &Shape, layer: usize) -> Result<(), EngineError> {
    let (family, dim) = (shape.architecture, shape.head_dim);
    let (width, forward) = (shape.width, shape.feed_forward);
    let (all, few) = (shape.heads * dim, shape.kv_heads * dim);
    let part =
        |name: &str, dims: &[usize]| needed(gguf, &format!("blk.{layer}.{name}.weight"), dims);
    part("attn_norm", &[width])?;
    part("attn_output", &[width, all])?;
    part("ffn_norm", &[width])?;
    part("ffn_down", &[width, forward])?;
    if family.fused() {
        part("attn_qkv", &[all + 2 * few, width])?;
        part("ffn_up", &[2 * forward, width])?;
    } else {
        for (name, rows) in [("attn_q", all), ("attn_k", few), ("attn_v", few)] {
            part(name, &[rows, width])?;
        }
        part("ffn_gate", &[forward, width])?;
        part("ffn_up", &[forward, width])?;
    }
    if family.norms_heads() {
        part("attn_q_norm", &[dim])?;
        part("attn_k_norm", &[dim])?;
    }
    if family.norms_behind() {
        part("post_attention_norm", &[width])?;
        part("post_ffw_norm", &[width])?;
    }
    let mut biases = 0;
    for (name, length) in [("attn_q", all), ("attn_k", few), ("attn_v", few)] {
        let name = format!("blk.{layer}.{name}.bias");
        biases += usize::from(optional(gguf, &name, &[length])?);
    }
    if !matches!(biases, 0 | 3) {
        return Err(EngineError::corrupt(format!("biases of layer {layer} are incomplete")));
    }
    Ok(())
}

fn needed(gguf: &Gguf, name: &str, dims: &[usize]) -> Result<(), EngineError> {
    if optional(gguf, name, dims)? {
        return Ok(());
    }
    gguf.tensor(name).map(drop)
}

/// Whether it is there.
fn optional(gguf: &Gguf, name: &str, dims: &[usize]) -> Result<bool, EngineError> {
    let Some(info) = gguf.tensors.get(name) else { return Ok(false) };
    if info.dims != dims {
        let found = &info.dims;
        return Err(EngineError::corrupt(format!("tensor {name} is {found:?}, expected {dims:?}")));
    }
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "parts_tests.rs"]
mod tests;
