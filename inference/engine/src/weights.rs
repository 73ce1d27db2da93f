//! Weights in memory: which stay quantized, which become f32, and what that costs.
//!
//! Owns the reading of tensors and their multiplication with activations. candle's processor
//! backend has vector kernels for Q4_0, Q8_0 and the K types; for Q4_1, Q5_0 and Q5_1 it falls to
//! scalar code, several times slower than a dense f32 product. Such matrices are dequantized at
//! load where the budget allows: faster and exact, for more memory (see docs/BENCHMARKS.md).

use std::fs::File;
use std::sync::Arc;

use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};

use crate::error::EngineError;
use crate::gguf::{Gguf, TensorInfo};

/// Reads a model's tensors one by one.
pub(crate) struct Loader<'a> {
    gguf: &'a Gguf,
    file: File,
    device: Device,
    dense: bool,
    /// Called after each tensor, so that a slow load is seen to move.
    advanced: &'a dyn Fn(),
}

/// How a model would be held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Whether types without a vector kernel become f32.
    pub(crate) dense: bool,
    /// Bytes of all weights.
    pub(crate) bytes: u64,
}

impl Footprint {
    /// The faster way of holding the model that fits in `free` bytes.
    pub(crate) fn choose(gguf: &Gguf, device: &Device, free: u64) -> Result<Self, EngineError> {
        let of = |dense| Self {
            dense,
            bytes: gguf.tensors.values().map(|info| held_bytes(info, device, dense)).sum(),
        };
        let (fast, small) = (of(true), of(false));
        match (fast.bytes <= free, small.bytes <= free) {
            (true, _) => Ok(fast),
            (false, true) => Ok(small),
            (false, false) => Err(EngineError::OutOfMemory { needed: small.bytes, free }),
        }
    }
}

impl<'a> Loader<'a> {
    pub(crate) fn open(
        gguf: &'a Gguf,
        device: Device,
        footprint: Footprint,
        advanced: &'a dyn Fn(),
    ) -> Result<Self, EngineError> {
        let file = File::open(&gguf.path)
            .map_err(|source| EngineError::Io { path: gguf.path.clone(), source })?;
        Ok(Self { gguf, file, device, dense: footprint.dense, advanced })
    }

    /// A matrix of `rows` outputs and `columns` inputs.
    pub(crate) fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<QMatMul, EngineError> {
        let (info, tensor) = self.tensor(name, &[rows, columns])?;
        if widens(info.kind, &self.device, self.dense) {
            return Ok(QMatMul::Tensor(tensor.dequantize(&self.device)?));
        }
        Ok(QMatMul::from_arc(Arc::new(tensor))?)
    }

    /// A vector in f32.
    pub(crate) fn vector(&mut self, name: &str, length: usize) -> Result<Tensor, EngineError> {
        let (_, tensor) = self.tensor(name, &[length])?;
        Ok(tensor.dequantize(&self.device)?)
    }

    /// A vector in f32, if the file has it.
    pub(crate) fn vector_if_any(
        &mut self,
        name: &str,
        length: usize,
    ) -> Result<Option<Tensor>, EngineError> {
        if !self.gguf.tensors.contains_key(name) {
            return Ok(None);
        }
        self.vector(name, length).map(Some)
    }

    /// Several matrices over the same inputs.
    pub(crate) fn fused(
        &mut self,
        names: &[(String, usize)],
        columns: usize,
    ) -> Result<Fused, EngineError> {
        let mut parts = Vec::new();
        for (name, rows) in names {
            parts.push(self.matrix(name, *rows, columns)?);
        }
        Fused::new(parts, names.iter().map(|(_, rows)| *rows).collect())
    }

    fn tensor(
        &mut self,
        name: &str,
        dims: &[usize],
    ) -> Result<(&'a TensorInfo, QTensor), EngineError> {
        let info = self.gguf.tensor(name)?;
        if info.dims != dims {
            return Err(EngineError::corrupt(format!(
                "tensor {name} has the shape {:?}, expected {dims:?}",
                info.dims
            )));
        }
        let bytes = self.gguf.read(&mut self.file, info)?;
        let tensor = qtensor_from_ggml(info.kind, &bytes, info.dims.clone(), &self.device)?;
        (self.advanced)();
        Ok((info, tensor))
    }
}

/// Matrices over the same inputs, multiplied at once where they are dense.
pub(crate) struct Fused {
    parts: Vec<QMatMul>,
    widths: Vec<usize>,
}

impl Fused {
    fn new(parts: Vec<QMatMul>, widths: Vec<usize>) -> Result<Self, EngineError> {
        let dense: Option<Vec<&Tensor>> = parts.iter().map(dense).collect();
        let parts = match dense {
            Some(tensors) => vec![QMatMul::Tensor(Tensor::cat(&tensors, 0)?)],
            None => parts,
        };
        Ok(Self { parts, widths })
    }

    /// The product with each matrix.
    pub(crate) fn forward(&self, input: &Tensor) -> candle_core::Result<Vec<Tensor>> {
        if let [all] = &*self.parts {
            let product = all.forward(input)?;
            let mut at = 0;
            return self
                .widths
                .iter()
                .map(|&width| {
                    let part = product.narrow(1, at, width)?.contiguous();
                    at += width;
                    part
                })
                .collect();
        }
        self.parts.iter().map(|part| part.forward(input)).collect()
    }
}

fn dense(matrix: &QMatMul) -> Option<&Tensor> {
    if let QMatMul::Tensor(tensor) = matrix { Some(tensor) } else { None }
}

/// Whether a matrix of this type becomes f32 at load.
fn widens(kind: GgmlDType, device: &Device, dense: bool) -> bool {
    let no_kernel = matches!(kind, GgmlDType::Q4_1 | GgmlDType::Q5_0 | GgmlDType::Q5_1);
    let float = matches!(kind, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16);
    float || (no_kernel && dense && device.is_cpu())
}

fn held_bytes(info: &TensorInfo, device: &Device, dense: bool) -> u64 {
    if widens(info.kind, device, dense) || info.dims.len() == 1 {
        info.elements().saturating_mul(size_of::<f32>() as u64)
    } else {
        info.bytes
    }
}
