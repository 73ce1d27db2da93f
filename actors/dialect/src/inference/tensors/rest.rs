//! Such inferences over REST: JSON, and tensors as bytes after it.

use std::fmt;

use selvedge_base::Refusal;
use selvedge_contract::{Datatype, Signature, Tensor, TensorSpec};
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::super::body::{Body, split};
use super::super::{VERSION, Written};
use super::{Asked, MAX_BYTES, MAX_SIDES, Wanted, cut, head, room};
use crate::decode::{self, invalid, required, unsupported};
use crate::json::{Array, Json, Object};
use crate::number::{Component, Double, component};

/// The inference that a body means. `json` is the length of its JSON, when bytes follow.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse(bytes: &[u8], json: Option<usize>) -> Result<Asked, Refusal> {
    let (json, mut binary) = split(bytes, json)?;
    let body: Body<Json> = decode::body(json)?;
    let (mut inputs, mut left) = (Vec::new(), MAX_BYTES);
    for (at, input) in body.inputs.ok_or_else(|| required("inputs"))?.0.into_iter().enumerate() {
        let mut tensor = head((input.name, &input.datatype), input.shape.0, &inputs)?;
        let size = input.parameters.unwrap_or_default().binary_data_size;
        tensor.data = match (input.data, size) {
            (Some(data), None) => elements(&tensor, &data, left).map_err(|error| {
                let field = format!("inputs[{at}].data");
                invalid(&field, format!("'{field}': {error}"))
            })?,
            (None, Some(size)) => {
                let Some((data, rest)) = binary.split_at_checked(size) else {
                    let message = format!(
                        "'binary_data_size' of input '{}' is more than the bytes after the JSON",
                        cut(&tensor.name)
                    );
                    return Err(invalid(&cut(&tensor.name), message));
                };
                binary = rest;
                data.to_vec()
            }
            (None, None) => return Err(required(&format!("inputs[{at}].data"))),
            (Some(_), Some(_)) => {
                let message =
                    format!("'{}' has both 'data' and bytes after the JSON", cut(&tensor.name));
                return Err(invalid(&cut(&tensor.name), message));
            }
        };
        room(&mut left, tensor.data.len())?;
        inputs.push(tensor);
    }
    if !binary.is_empty() {
        let message = format!("{} bytes after the JSON belong to no input", binary.len());
        return Err(invalid("inputs", message));
    }
    let fields = body.parameters.unwrap_or_default();
    let all = fields.binary_data_output.unwrap_or(false);
    let named = body.outputs.unwrap_or_default().0.into_iter();
    let wanted = named.map(|named| {
        let binary = named.binary().unwrap_or(all);
        Wanted { name: named.name, binary }
    });
    Asked::of(body.id.unwrap_or_default(), inputs, wanted.collect(), fields)
}

/// The bytes of a tensor's elements that are JSON, at most so many.
fn elements(tensor: &Tensor, data: &Json, most: usize) -> Result<Vec<u8>, serde_json::Error> {
    let (mut bytes, mut nested) = (Vec::new(), false);
    let (datatype, shape) = (tensor.datatype, tensor.shape.as_slice());
    let mut decoder = serde_json::Deserializer::from_str(data.text());
    let (bytes_of, nested) = (&mut bytes, &mut nested);
    Nest { datatype, bytes: bytes_of, depth: 0, most, shape, nested }.deserialize(&mut decoder)?;
    decoder.end()?;
    Ok(bytes)
}

/// One level of the nest: a list, or an element inside of one.
struct Nest<'a> {
    datatype: Datatype,
    bytes: &'a mut Vec<u8>,
    depth: usize,
    most: usize,
    shape: &'a [u64],
    /// Whether there are lists in lists, which are then as long as the shape says.
    nested: &'a mut bool,
}

impl Nest<'_> {
    fn push<E: Error>(self, element: &[u8]) -> Result<(), E> {
        if self.depth == 0 {
            return Err(E::custom("elements must be in a list"));
        }
        if self.bytes.len().saturating_add(element.len()) > self.most {
            return Err(E::custom(format_args!("more than {MAX_BYTES} bytes")));
        }
        self.bytes.extend_from_slice(element);
        Ok(())
    }

    fn wrong<E: Error>(&self, what: &str) -> E {
        E::custom(format_args!("{what} is no {}", self.datatype))
    }

    fn whole<E: Error>(self, value: i128) -> Result<(), E> {
        let beyond = || self.wrong(&value.to_string());
        match self.datatype {
            Datatype::Bool if value == 0 || value == 1 => self.push(&[u8::from(value == 1)]),
            Datatype::Uint8 => {
                let narrow = u8::try_from(value).map_err(|_| beyond())?;
                self.push(&narrow.to_le_bytes())
            }
            Datatype::Int8 => {
                let narrow = i8::try_from(value).map_err(|_| beyond())?;
                self.push(&narrow.to_le_bytes())
            }
            Datatype::Int16 => {
                let narrow = i16::try_from(value).map_err(|_| beyond())?;
                self.push(&narrow.to_le_bytes())
            }
            Datatype::Int32 => {
                let narrow = i32::try_from(value).map_err(|_| beyond())?;
                self.push(&narrow.to_le_bytes())
            }
            Datatype::Int64 => {
                let narrow = i64::try_from(value).map_err(|_| beyond())?;
                self.push(&narrow.to_le_bytes())
            }
            Datatype::Fp32 | Datatype::Fp64 => self.float(value as Double),
            Datatype::Bool | Datatype::Bytes => Err(beyond()),
        }
    }

    fn float<E: Error>(self, value: Double) -> Result<(), E> {
        match self.datatype {
            Datatype::Fp32 => {
                let narrow = component(value).ok_or_else(|| self.wrong(&value.to_string()))?;
                self.push(&narrow.to_le_bytes())
            }
            Datatype::Fp64 => self.push(&value.to_le_bytes()),
            _ => Err(self.wrong(&value.to_string())),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Nest<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, decoder: D) -> Result<(), D::Error> {
        decoder.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nest<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "elements of {}, in one list or in lists of lists", self.datatype)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.datatype {
            Datatype::Bool => self.push(&[u8::from(value)]),
            _ => Err(self.wrong(&value.to_string())),
        }
    }

    fn visit_f64<E: Error>(self, value: Double) -> Result<(), E> {
        self.float(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.whole(i128::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.whole(i128::from(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        match self.datatype {
            Datatype::Bytes => {
                let element = std::iter::once(value.as_bytes());
                let element = Tensor::of_bytes("", Vec::new(), element);
                self.push(&element.data)
            }
            _ => Err(self.wrong("a text")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Nest { datatype, bytes, most, shape, nested, .. } = self;
        let depth = self.depth + 1;
        if depth > MAX_SIDES {
            return Err(A::Error::custom(format_args!("more than {MAX_SIDES} lists in lists")));
        }
        *nested |= depth > 1;
        let mut count = 0_u64;
        let mut next = || {
            let (bytes, nested) = (&mut *bytes, &mut *nested);
            seq.next_element_seed(Nest { datatype, bytes, depth, most, shape, nested })
        };
        while next()?.is_some() {
            count += 1;
        }
        if *nested && shape.get(depth - 1) != Some(&count) {
            let message = format!("a list of {count} where the shape is {shape:?}");
            return Err(A::Error::custom(message));
        }
        Ok(())
    }
}

/// The body of an answer.
///
/// # Errors
/// A refusal where an output that is to be JSON has no form there.
pub fn body(model: &str, asked: &Asked, outputs: &[Tensor]) -> Result<Written, Refusal> {
    for tensor in outputs.iter().filter(|tensor| !asked.is_binary(&tensor.name)) {
        check_json(tensor)?;
    }
    let (mut after, mut body) = (Vec::new(), Vec::new());
    Object::write(&mut body, |object| {
        object.field("model_name", model);
        object.field("model_version", VERSION);
        if !asked.id.is_empty() {
            object.field("id", &asked.id);
        }
        object.array("outputs", |array| {
            for tensor in outputs {
                array.object(|object| {
                    object.field("name", &tensor.name);
                    object.field("datatype", tensor.datatype.as_str());
                    object.field("shape", &tensor.shape);
                    if asked.is_binary(&tensor.name) {
                        object.object("parameters", |object| {
                            object.field("binary_data_size", &tensor.data.len());
                        });
                        after.extend_from_slice(&tensor.data);
                    } else {
                        object.array("data", |array| data(array, tensor));
                    }
                });
            }
        });
    });
    let binary = outputs.iter().any(|tensor| asked.is_binary(&tensor.name));
    let json = binary.then_some(body.len());
    body.extend_from_slice(&after);
    Ok(Written { body, json })
}

/// JSON has no numbers that are not finite, and no bytes that are no text.
fn check_json(tensor: &Tensor) -> Result<(), Refusal> {
    let odd = match tensor.datatype {
        Datatype::Fp32 => numbers(tensor).any(|bytes| !Component::from_le_bytes(bytes).is_finite()),
        Datatype::Fp64 => numbers(tensor).any(|bytes| !Double::from_le_bytes(bytes).is_finite()),
        Datatype::Bytes => {
            let texts = tensor.byte_elements()?;
            texts.into_iter().any(|text| std::str::from_utf8(text).is_err())
        }
        _ => false,
    };
    if !odd {
        return Ok(());
    }
    let message = format!(
        "output '{}' holds what JSON has no form for (numbers that are not finite, or bytes that \
         are no text): ask for it with 'binary_data' true",
        cut(&tensor.name)
    );
    Err(unsupported("outputs", message))
}

fn numbers<const N: usize>(tensor: &Tensor) -> impl Iterator<Item = [u8; N]> + '_ {
    tensor.data.as_chunks().0.iter().copied()
}

fn data(array: &mut Array<'_>, tensor: &Tensor) {
    match tensor.datatype {
        Datatype::Bool => tensor.data.iter().for_each(|byte| array.item(&(*byte != 0))),
        Datatype::Uint8 => tensor.data.iter().for_each(|byte| array.item(byte)),
        Datatype::Int8 => numbers(tensor).for_each(|it| array.item(&i8::from_le_bytes(it))),
        Datatype::Int16 => numbers(tensor).for_each(|it| array.item(&i16::from_le_bytes(it))),
        Datatype::Int32 => numbers(tensor).for_each(|it| array.item(&i32::from_le_bytes(it))),
        Datatype::Int64 => numbers(tensor).for_each(|it| array.item(&i64::from_le_bytes(it))),
        Datatype::Fp32 => numbers(tensor).for_each(|it| array.item(&Component::from_le_bytes(it))),
        Datatype::Fp64 => numbers(tensor).for_each(|it| array.item(&Double::from_le_bytes(it))),
        Datatype::Bytes => {
            for text in tensor.byte_elements().unwrap_or_default() {
                array.item(&*String::from_utf8_lossy(text));
            }
        }
    }
}

/// `GET /v2/models/MODEL`.
pub fn metadata_body(model: &str, signature: &Signature) -> Vec<u8> {
    let all = |array: &mut Array<'_>, specs: &[TensorSpec]| {
        for spec in specs {
            array.object(|object| {
                object.field("name", &spec.name);
                object.field("datatype", spec.datatype.as_str());
                object.field("shape", &spec.shape);
            });
        }
    };
    let mut body = Vec::new();
    Object::write(&mut body, |object| {
        object.field("name", model);
        object.field("versions", &[VERSION]);
        object.field("platform", &signature.platform);
        object.array("inputs", |array| all(array, &signature.inputs));
        object.array("outputs", |array| all(array, &signature.outputs));
    });
    body
}
