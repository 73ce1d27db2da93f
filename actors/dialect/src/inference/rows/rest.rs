//! Such inferences over REST: JSON, and tensors as bytes after it.

use std::fmt;

use selvedge_base::Refusal;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::super::Written;
use super::super::body::{Body, split};
use super::{
    Asked, Card, Found, INPUT, MAX_SIDES, MAX_VALUES, Output, PLATFORM, check_input, floats, one,
    wanted,
};
use crate::decode::{self, invalid, required};
use crate::json::{Array, Object};
use crate::number::{Component, Double, component};

/// Numbers, flat or nested as their shape is.
#[derive(Debug)]
struct Data(Vec<Component>);

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        let mut values = Vec::new();
        Nest { values: &mut values, depth: 0 }.deserialize(decoder)?;
        Ok(Self(values))
    }
}

/// One level of the nest: a list, or a number inside of one.
struct Nest<'a> {
    values: &'a mut Vec<Component>,
    depth: usize,
}

impl Nest<'_> {
    fn push<E: Error>(self, value: Double) -> Result<(), E> {
        if self.depth == 0 {
            return Err(E::custom("numbers must be in a list"));
        }
        if self.values.len() == MAX_VALUES {
            return Err(E::custom(format_args!("more than {MAX_VALUES} values")));
        }
        let value = component(value);
        let beyond = || E::custom("a number that is too large for 32 bits");
        self.values.push(value.ok_or_else(beyond)?);
        Ok(())
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
        f.write_str("numbers, in one list or in lists of lists")
    }

    fn visit_f64<E: Error>(self, value: Double) -> Result<(), E> {
        self.push(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.push(value as Double)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.push(value as Double)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.depth + 1;
        if depth > MAX_SIDES {
            return Err(A::Error::custom(format_args!("more than {MAX_SIDES} lists in lists")));
        }
        while seq.next_element_seed(Nest { values: &mut *self.values, depth })?.is_some() {}
        Ok(())
    }
}

/// The inference that a body means. `json` is the length of its JSON, when bytes follow.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse(bytes: &[u8], json: Option<usize>) -> Result<Asked, Refusal> {
    let (json, binary) = split(bytes, json)?;
    let body: Body<Data> = decode::body(json)?;
    let input = one(body.inputs.ok_or_else(|| required("inputs"))?.0)?;
    check_input(&input.name, &input.datatype)?;
    let size = input.parameters.unwrap_or_default().binary_data_size;
    let values = match (input.data, size) {
        (Some(data), None) if binary.is_empty() => data.0,
        (None, Some(size)) if size == binary.len() => floats(binary)?,
        (None, Some(_)) => {
            let message = "the bytes after the JSON are not as many as 'binary_data_size' says";
            return Err(invalid(INPUT, message));
        }
        (None, None) => return Err(required("inputs[0].data")),
        (Some(_), _) => {
            let message = format!("'{INPUT}' has both 'data' and bytes after the JSON");
            return Err(invalid(INPUT, message));
        }
    };
    let fields = body.parameters.unwrap_or_default();
    let all = fields.binary_data_output.unwrap_or(false);
    let named = body.outputs.unwrap_or_default().0;
    let names = named.iter().map(|named| (named.name.as_str(), named.binary().unwrap_or(all)));
    let wanted = wanted(names, all)?;
    Asked::of(body.id.unwrap_or_default(), (input.shape.0, values), wanted, fields)
}

/// The body of an answer.
pub fn body(model: &str, asked: &Asked, found: &Found) -> Written {
    let mut after = Vec::new();
    let mut body = Vec::new();
    Object::write(&mut body, |object| {
        object.field("model_name", model);
        object.field("model_version", &found.version.to_string());
        if !asked.id.is_empty() {
            object.field("id", &asked.id);
        }
        object.array("outputs", |array| {
            for wanted in asked.outputs() {
                let output = wanted.output;
                array.object(|object| {
                    object.field("name", output.as_str());
                    object.field("datatype", output.datatype());
                    object.field("shape", &found.shape(output));
                    if wanted.binary {
                        let bytes = found.bytes(output);
                        object.object("parameters", |object| {
                            object.field("binary_data_size", &bytes.len());
                        });
                        after.extend(bytes);
                    } else {
                        object.array("data", |array| data(array, found, output));
                    }
                });
            }
        });
    });
    let json = asked.outputs().any(|wanted| wanted.binary).then_some(body.len());
    body.extend_from_slice(&after);
    Written { body, json }
}

fn data(array: &mut Array<'_>, found: &Found, output: Output) {
    match output {
        Output::Probabilities => found.probabilities.iter().for_each(|share| array.item(share)),
        Output::Class => found.classes.iter().for_each(|class| array.item(class)),
    }
}

/// `GET /v2/models/MODEL`. Its parameters are not the protocol's, which has none here and lets
/// servers add some.
pub fn metadata_body(model: &str, card: &Card) -> Vec<u8> {
    let mut body = Vec::new();
    Object::write(&mut body, |object| {
        object.field("name", model);
        object.field("versions", &card.versions());
        object.field("platform", PLATFORM);
        object.array("inputs", |array| {
            array.object(|object| {
                object.field("name", INPUT);
                object.field("datatype", "FP32");
                object.field("shape", &card.input_shape());
            });
        });
        object.array("outputs", |array| {
            for output in Output::ALL {
                array.object(|object| {
                    object.field("name", output.as_str());
                    object.field("datatype", output.datatype());
                    object.field("shape", &card.output_shape(output));
                });
            }
        });
        object.object("parameters", |object| {
            object.field("job", &card.job);
            object.field("rounds", &card.rounds);
            object.field("max_examples", &super::MAX_ROWS);
            object.field("values", VALUES);
        });
    });
    body
}

/// What values mean, for whoever has only the metadata.
const VALUES: &str = "as training read them: divided by the scale of the nodes' data; bytes of \
    images divided by 255, so 0 to 1";
