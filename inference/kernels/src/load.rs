//! Reading weights in full precision by their names.
//!
//! Owns what the parts are that models of all kinds have in common: a product, several over the
//! same rows as one, and a norm. Which names they have is the models' business.

use crate::dense::{Dense, Gains};
use crate::error::KernelError;
use crate::simd::Floats;

/// Where the weights come from: a name as Hugging Face has it, and how many numbers there must be.
pub type Tensors<'a> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>, KernelError> + 'a;

/// A product.
pub(crate) fn dense(
    tensors: &mut Tensors<'_>,
    name: &str,
    inputs: usize,
    outputs: usize,
) -> Result<Dense, KernelError> {
    let weights = tensors(&format!("{name}.weight"), &[outputs, inputs])?;
    let shifts = tensors(&format!("{name}.bias"), &[outputs])?;
    Dense::pack(inputs, &weights, &shifts)
}

/// Products of square matrices with the same rows, as one. The one of that name, if any, has no
/// shifts.
pub(crate) fn joined(
    tensors: &mut Tensors<'_>,
    name: &str,
    parts: &[&str],
    width: usize,
    unshifted: Option<&str>,
) -> Result<Dense, KernelError> {
    let (mut weights, mut shifts) = (Vec::new(), Vec::new());
    for &part in parts {
        weights.extend(tensors(&format!("{name}.{part}.weight"), &[width, width])?);
        match Some(part) == unshifted {
            true => shifts.resize(shifts.len() + width, 0.0),
            false => shifts.extend(tensors(&format!("{name}.{part}.bias"), &[width])?),
        }
    }
    Dense::pack(width, &weights, &shifts)
}

/// A norm.
pub(crate) fn gains(
    tensors: &mut Tensors<'_>,
    name: &str,
    width: usize,
) -> Result<Gains, KernelError> {
    let mut read = |part: &str| -> Result<Vec<Floats>, KernelError> {
        let numbers = tensors(&format!("{name}.{part}"), &[width])?;
        Ok(numbers.as_chunks().0.to_vec())
    };
    Ok(Gains { gain: read("weight")?, shift: read("bias")? })
}
