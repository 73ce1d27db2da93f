//! Weights in memory: in which form each tensor is held, and what that costs.
//!
//! Owns the reading of tensors and their multiplication with activations: candle's kernels for
//! quantized matrices, its dense product for floats.

use std::fs::File;
use std::sync::Arc;

use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};

use crate::error::EngineError;
use crate::gguf::{Gguf, TensorInfo};

/// A matrix, or several over the same inputs, one below the other.
#[derive(Clone)]
pub(crate) struct Matrix {
    parts: Vec<QMatMul>,
    widths: Vec<usize>,
}

/// Reads a model's tensors one by one.
pub(crate) struct Loader<'a> {
    gguf: &'a Gguf,
    file: File,
    device: Device,
    /// Called after each tensor, so that a slow load is seen to move.
    advanced: &'a dyn Fn(),
}

impl Matrix {
    /// The products of `input` (contiguous rows) with each matrix.
    pub(crate) fn forward_all(&self, input: &Tensor) -> candle_core::Result<Vec<Tensor>> {
        let [all] = &*self.parts else {
            return self.parts.iter().map(|part| part.forward(input)).collect();
        };
        let product = all.forward(input)?;
        if self.widths.len() == 1 {
            return Ok(vec![product]);
        }
        let mut at = 0;
        let parts = self.widths.iter().map(|&width| {
            let part = product.narrow(1, at, width)?.contiguous();
            at += width;
            part
        });
        parts.collect()
    }

    /// The product of `input` with a single matrix.
    pub(crate) fn forward(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        match &*self.parts {
            [only] => only.forward(input),
            _ => candle_core::bail!("{} matrices where one was expected", self.parts.len()),
        }
    }

    /// The matrix' rows of these numbers.
    pub(crate) fn rows(&self, ids: &[u32], device: &Device) -> candle_core::Result<Tensor> {
        match &*self.parts {
            [matrix] => matrix.embedding(&Tensor::new(ids, device)?),
            _ => candle_core::bail!("{} matrices where one was expected", self.parts.len()),
        }
    }
}

impl<'a> Loader<'a> {
    pub(crate) fn open(
        gguf: &'a Gguf,
        device: Device,
        advanced: &'a dyn Fn(),
    ) -> Result<Self, EngineError> {
        let file = File::open(&gguf.path)
            .map_err(|source| EngineError::Io { path: gguf.path.clone(), source })?;
        Ok(Self { gguf, file, device, advanced })
    }

    /// A matrix of `rows` outputs and `columns` inputs.
    pub(crate) fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Matrix, EngineError> {
        self.stacked(&[(name.to_owned(), rows)], columns)
    }

    /// Several matrices over the same inputs.
    pub(crate) fn stacked(
        &mut self,
        names: &[(String, usize)],
        columns: usize,
    ) -> Result<Matrix, EngineError> {
        let widths = names.iter().map(|(_, rows)| *rows).collect();
        let mut tensors = Vec::new();
        for (name, rows) in names {
            let (info, bytes) = self.bytes(name, &[*rows, columns])?;
            let shape = vec![*rows, columns];
            tensors.push(qtensor_from_ggml(info.kind, &bytes, shape, &self.device)?);
        }
        Ok(Matrix { parts: self.candle(tensors)?, widths })
    }

    /// Several matrices over the same inputs that lie in one tensor.
    pub(crate) fn fused(
        &mut self,
        name: &str,
        widths: &[usize],
        columns: usize,
    ) -> Result<Matrix, EngineError> {
        let whole = self.matrix(name, widths.iter().sum(), columns)?;
        Ok(Matrix { widths: widths.to_vec(), ..whole })
    }

    /// A matrix of `rows` outputs and `columns` inputs in f32, however the file stores it.
    pub(crate) fn dense(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Tensor, EngineError> {
        let (info, bytes) = self.bytes(name, &[rows, columns])?;
        let tensor = qtensor_from_ggml(info.kind, &bytes, vec![rows, columns], &self.device)?;
        Ok(tensor.dequantize(&self.device)?)
    }

    /// A vector in f32.
    pub(crate) fn vector(&mut self, name: &str, length: usize) -> Result<Tensor, EngineError> {
        let (info, bytes) = self.bytes(name, &[length])?;
        let tensor = qtensor_from_ggml(info.kind, &bytes, vec![length], &self.device)?;
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

    /// Dense matrices become one; quantized ones stay apart.
    fn candle(&self, tensors: Vec<QTensor>) -> Result<Vec<QMatMul>, EngineError> {
        if tensors.iter().all(|tensor| is_float(tensor.dtype())) {
            let dense = tensors.iter().map(|tensor| tensor.dequantize(&self.device));
            let dense = dense.collect::<candle_core::Result<Vec<_>>>()?;
            return Ok(vec![QMatMul::Tensor(Tensor::cat(&dense, 0)?)]);
        }
        let parts = tensors.into_iter().map(|tensor| QMatMul::from_arc(Arc::new(tensor)));
        Ok(parts.collect::<candle_core::Result<_>>()?)
    }

    fn bytes(
        &mut self,
        name: &str,
        dims: &[usize],
    ) -> Result<(&'a TensorInfo, Vec<u8>), EngineError> {
        let info = self.gguf.tensor(name)?;
        if info.dims != dims {
            return Err(EngineError::corrupt(format!(
                "tensor {name} has the shape {:?}, expected {dims:?}",
                info.dims
            )));
        }
        let bytes = self.gguf.read(&mut self.file, info)?;
        (self.advanced)();
        Ok((info, bytes))
    }
}

const fn is_float(kind: GgmlDType) -> bool {
    matches!(kind, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16)
}

/// Bytes that all tensors of a file take.
pub(crate) fn bytes(gguf: &Gguf) -> u64 {
    gguf.tensors.values().map(held_bytes).fold(0, u64::saturating_add)
}

fn held_bytes(info: &TensorInfo) -> u64 {
    if is_float(info.kind) || info.dims.len() == 1 {
        info.elements().saturating_mul(size_of::<f32>() as u64)
    } else {
        info.bytes
    }
}
