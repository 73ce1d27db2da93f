//! What computes an ONNX graph: the seam to the library that does, and that library.
//!
//! Owns the translation between tensors of the contract and the library's. The library (`rten`,
//! docs/decisions/0049) knows floats of 32 bits and whole numbers of 8 and 32: doubles are rounded,
//! and whole numbers of 64 bits that do not fit are refused. It promises nothing about memory and
//! time, so it is called in a process that is bounded from outside (`child`).

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value};
use rten_tensor::prelude::*;
use selvedge_contract::tensors::MAX_TENSOR_BYTES;
use selvedge_contract::{Datatype, Signature, Tensor, TensorSpec};
use std::sync::Arc;

/// What computes a graph.
pub(super) trait Runtime: Send {
    /// The outputs of these names for inputs that fit the model's signature.
    fn run(&self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, Failed>;
}

/// Why there are no outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The inputs are at fault.
    Inputs(String),
    /// The model is, or nothing tells.
    Model(String),
}

/// A graph in the library's memory.
pub(super) struct Rten {
    model: Model,
    signature: Signature,
    pool: Arc<ThreadPool>,
}

impl Rten {
    /// Loads a file that `header` has read.
    pub(super) fn load(
        bytes: Vec<u8>,
        signature: Signature,
        threads: usize,
    ) -> Result<Self, String> {
        // Weights in the order in which they are multiplied: as much memory again, less time.
        let options = ModelOptions::with_all_ops().prepack_weights(true).load(bytes);
        let model = options.map_err(|error| error.to_string())?;
        for spec in signature.inputs.iter().chain(&signature.outputs) {
            model.node_id(&spec.name).map_err(|error| error.to_string())?;
        }
        let pool = Arc::new(ThreadPool::with_num_threads(threads.max(1)));
        Ok(Self { model, signature, pool })
    }

    fn node(&self, name: &str) -> Result<NodeId, Failed> {
        self.model.node_id(name).map_err(|error| Failed::Model(error.to_string()))
    }
}

impl Runtime for Rten {
    fn run(&self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, Failed> {
        let mut given = Vec::with_capacity(inputs.len());
        for tensor in inputs {
            given.push((self.node(&tensor.name)?, value(tensor)?.into()));
        }
        let specs: Vec<&TensorSpec> = match outputs {
            [] => self.signature.outputs.iter().collect(),
            names => {
                let named = |name: &String| self.signature.outputs.iter().find(|s| s.name == *name);
                names.iter().filter_map(named).collect()
            }
        };
        let nodes =
            specs.iter().map(|spec| self.node(&spec.name)).collect::<Result<Vec<_>, _>>()?;
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.pool)));
        let run = self.model.run(given, &nodes, Some(options));
        // With inputs of another size the graph may well work: it is the caller who can help it.
        let values = run.map_err(|error| Failed::Inputs(error.to_string()))?;
        let mut room = MAX_TENSOR_BYTES;
        specs.into_iter().zip(values).map(|(spec, value)| tensor(spec, &value, &mut room)).collect()
    }
}

/// A tensor as the library has it.
fn value(tensor: &Tensor) -> Result<Value, Failed> {
    let side = |side: &u64| usize::try_from(*side).ok();
    let shape: Option<Vec<usize>> = tensor.shape.iter().map(side).collect();
    let shape = shape.ok_or_else(|| Failed::Inputs("a side beyond counting".to_owned()))?;
    let data = &tensor.data;
    let made = match tensor.datatype {
        Datatype::Fp32 => Value::from_shape(&shape, each(data, f32::from_le_bytes)).map_err(text),
        Datatype::Fp64 => {
            let values = each(data, f64::from_le_bytes).into_iter().map(|value| value as f32);
            Value::from_shape(&shape, values.collect::<Vec<f32>>()).map_err(text)
        }
        Datatype::Int32 => Value::from_shape(&shape, each(data, i32::from_le_bytes)).map_err(text),
        Datatype::Int64 => {
            let values =
                each(data, i64::from_le_bytes).into_iter().enumerate().map(|(at, value)| {
                    i32::try_from(value).map_err(|_| {
                    let name = &tensor.name;
                    Failed::Inputs(format!(
                        "input '{name}': element {at} is {value}; whole numbers are computed with \
                         32 bits"
                    ))
                })
                });
            Value::from_shape(&shape, values.collect::<Result<Vec<i32>, _>>()?).map_err(text)
        }
        Datatype::Int16 => {
            let values = each(data, i16::from_le_bytes).into_iter().map(i32::from);
            Value::from_shape(&shape, values.collect::<Vec<i32>>()).map_err(text)
        }
        Datatype::Bool => {
            let values = data.iter().map(|value| i32::from(*value));
            Value::from_shape(&shape, values.collect::<Vec<i32>>()).map_err(text)
        }
        Datatype::Int8 => Value::from_shape(&shape, each(data, i8::from_le_bytes)).map_err(text),
        Datatype::Uint8 => Value::from_shape(&shape, data.clone()).map_err(text),
        Datatype::Bytes => Err("bytes are no numbers".to_owned()),
    };
    made.map_err(|error| Failed::Inputs(format!("input '{}': {error}", tensor.name)))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The numbers that bytes are.
fn each<const N: usize, T>(data: &[u8], of: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|bytes| of(*bytes)).collect()
}

/// An output as the contract has it. `room` is how many bytes all of them may still take.
fn tensor(spec: &TensorSpec, value: &Value, room: &mut usize) -> Result<Tensor, Failed> {
    let failed = |message: String| Failed::Model(format!("output '{}': {message}", spec.name));
    let shape: Vec<u64> = value.shape().iter().map(|side| *side as u64).collect();
    let size = spec.datatype.size().unwrap_or(1);
    let elements = value.shape().iter().try_fold(1_usize, |all, side| all.checked_mul(*side));
    let bytes = elements.and_then(|all| all.checked_mul(size));
    match bytes.and_then(|bytes| room.checked_sub(bytes)) {
        Some(left) => *room = left,
        None => {
            let message = format!(
                "its shape is {shape:?}, and all outputs may take {MAX_TENSOR_BYTES} bytes; ask \
                 with smaller inputs or for fewer outputs"
            );
            let name = &spec.name;
            return Err(Failed::Inputs(format!("output '{name}': {message}")));
        }
    }
    let data: Option<Vec<u8>> = match (value, spec.datatype) {
        (Value::FloatTensor(all), Datatype::Fp32) => {
            Some(all.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        (Value::FloatTensor(all), Datatype::Fp64) => {
            Some(all.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect())
        }
        (Value::Int32Tensor(all), Datatype::Int32) => {
            Some(all.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        (Value::Int32Tensor(all), Datatype::Int64) => {
            Some(all.iter().flat_map(|value| i64::from(*value).to_le_bytes()).collect())
        }
        (Value::Int32Tensor(all), Datatype::Bool) => {
            Some(all.iter().map(|value| u8::from(*value != 0)).collect())
        }
        (Value::Int8Tensor(all), Datatype::Int8) => {
            Some(all.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        (Value::UInt8Tensor(all), Datatype::Uint8) => Some(all.iter().copied().collect()),
        _ => None,
    };
    let data = data.ok_or_else(|| {
        failed(format!("it is {:?}, where the file says {}", value.dtype(), spec.datatype))
    })?;
    Ok(Tensor { name: spec.name.clone(), datatype: spec.datatype, shape, data })
}
