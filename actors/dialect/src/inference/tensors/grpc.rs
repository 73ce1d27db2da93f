//! Such inferences over gRPC. The messages are the protocol's, in `inference/grpc.rs`.

use prost::Message as _;
use selvedge_base::Refusal;
use selvedge_contract::{Datatype, Signature, Tensor, TensorSpec};

use super::super::VERSION;
use super::super::grpc::{Answer, Contents, Metadata, OfTensor, fields, none, request};
use super::{Asked, MAX_BYTES, Wanted, cut, head, room};
use crate::decode::invalid;

/// The inference that a message means.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse(bytes: &[u8]) -> Result<Asked, Refusal> {
    let request = request(bytes)?;
    let raw = request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        let message = format!(
            "there are {} raw contents for {} inputs: as many, or none",
            raw.len(),
            request.inputs.len()
        );
        return Err(invalid("raw_input_contents", message));
    }
    let (mut inputs, mut left, mut raw) = (Vec::new(), MAX_BYTES, raw.into_iter());
    for input in request.inputs {
        none(&input.parameters, "inputs[0].parameters")?;
        let mut tensor = head((input.name, &input.datatype), input.shape, &inputs)?;
        let contents = input.contents.unwrap_or_default();
        tensor.data = match raw.next() {
            Some(_) if contents != Contents::default() => {
                let message =
                    format!("'{}' has its elements in more places than one", cut(&tensor.name));
                return Err(invalid("raw_input_contents", message));
            }
            Some(data) => data,
            None => typed(&tensor, contents)?,
        };
        room(&mut left, tensor.data.len())?;
        inputs.push(tensor);
    }
    let mut wanted = Vec::new();
    for output in request.outputs {
        none(&output.parameters, "outputs[0].parameters")?;
        wanted.push(Wanted { name: output.name, binary: true });
    }
    Asked::of(request.id, inputs, wanted, fields(request.parameters)?)
}

/// The bytes of elements that stand in the field of their type.
fn typed(tensor: &Tensor, contents: Contents) -> Result<Vec<u8>, Refusal> {
    let other = Contents { ..contents.clone() };
    let (data, rest) = match tensor.datatype {
        Datatype::Bool => {
            let data = contents.bool_contents.iter().map(|yes| u8::from(*yes)).collect();
            (data, Contents { bool_contents: Vec::new(), ..other })
        }
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => {
            let data = small(tensor, &contents.int_contents)?;
            (data, Contents { int_contents: Vec::new(), ..other })
        }
        Datatype::Int64 => {
            let all = contents.int64_contents.iter();
            let data = all.flat_map(|number| number.to_le_bytes()).collect();
            (data, Contents { int64_contents: Vec::new(), ..other })
        }
        Datatype::Uint8 => {
            let narrow = |number: &u32| u8::try_from(*number).map_err(|_| beyond(tensor));
            let data = contents.uint_contents.iter().map(narrow).collect::<Result<_, _>>()?;
            (data, Contents { uint_contents: Vec::new(), ..other })
        }
        Datatype::Fp32 => {
            let all = contents.fp32_contents.iter();
            let data = all.flat_map(|number| number.to_le_bytes()).collect();
            (data, Contents { fp32_contents: Vec::new(), ..other })
        }
        Datatype::Fp64 => {
            let all = contents.fp64_contents.iter();
            let data = all.flat_map(|number| number.to_le_bytes()).collect();
            (data, Contents { fp64_contents: Vec::new(), ..other })
        }
        Datatype::Bytes => {
            let all = contents.bytes_contents.iter().map(Vec::as_slice);
            let data = Tensor::of_bytes("", Vec::new(), all).data;
            (data, Contents { bytes_contents: Vec::new(), ..other })
        }
    };
    if rest != Contents::default() {
        let message = format!(
            "input '{}' of {} has elements in the field of another type",
            cut(&tensor.name),
            tensor.datatype
        );
        return Err(invalid(&cut(&tensor.name), message));
    }
    Ok(data)
}

/// Whole numbers of up to 32 bits, which share a field.
fn small(tensor: &Tensor, numbers: &[i32]) -> Result<Vec<u8>, Refusal> {
    let mut data = Vec::new();
    for number in numbers {
        match tensor.datatype {
            Datatype::Int8 => {
                let narrow = i8::try_from(*number).map_err(|_| beyond(tensor))?;
                data.extend(narrow.to_le_bytes());
            }
            Datatype::Int16 => {
                let narrow = i16::try_from(*number).map_err(|_| beyond(tensor))?;
                data.extend(narrow.to_le_bytes());
            }
            _ => data.extend(number.to_le_bytes()),
        }
    }
    Ok(data)
}

fn beyond(tensor: &Tensor) -> Refusal {
    let message = format!("input '{}' has a number beyond {}", cut(&tensor.name), tensor.datatype);
    invalid(&cut(&tensor.name), message)
}

/// `ModelMetadata`.
pub fn metadata(model: &str, signature: &Signature) -> Vec<u8> {
    let all = |specs: &[TensorSpec]| {
        let spec = |spec: &TensorSpec| OfTensor {
            name: spec.name.clone(),
            datatype: spec.datatype.as_str().to_owned(),
            shape: spec.shape.clone(),
        };
        specs.iter().map(spec).collect()
    };
    let metadata = Metadata {
        name: model.to_owned(),
        versions: vec![VERSION.to_owned()],
        platform: signature.platform.clone(),
        inputs: all(&signature.inputs),
        outputs: all(&signature.outputs),
    };
    metadata.encode_to_vec()
}

/// `ModelInfer`.
pub fn answer(model: &str, asked: &Asked, outputs: Vec<Tensor>) -> Vec<u8> {
    let of_tensor = |tensor: &Tensor| OfTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.as_str().to_owned(),
        shape: tensor.shape.iter().map(|side| i64::try_from(*side).unwrap_or(i64::MAX)).collect(),
    };
    let answer = Answer {
        model_name: model.to_owned(),
        model_version: VERSION.to_owned(),
        id: asked.id.clone(),
        outputs: outputs.iter().map(of_tensor).collect(),
        raw_output_contents: outputs.into_iter().map(|tensor| tensor.data).collect(),
        ..Answer::default()
    };
    answer.encode_to_vec()
}
