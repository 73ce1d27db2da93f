//! The protocol over REST: JSON, and tensors as bytes after it.
//!
//! Owns the bodies. With the binary tensor extension a body is JSON of the length that the header
//! `Inference-Header-Content-Length` tells, then the bytes of tensors in their order.

use schemars::JsonSchema;
use selvedge_base::Refusal;
use serde::Deserialize;

use super::body::split;
use super::{
    EXTENSIONS, Fields, INPUT, Infer, Makes, PLATFORM, SERVER, Tensor, VERSION, check_id,
    check_input, check_shape, elements, input_shape, one_output, output, outputs,
};
use crate::chat::Usage;
use crate::decode::{self, List, MAX_LIST, TextOr, invalid, required};
use crate::json::{Array, Json, Object};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Body {
    id: Option<String>,
    parameters: Option<Fields>,
    #[schemars(required)]
    inputs: Option<List<Input>>,
    outputs: Option<List<Wanted>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    name: String,
    shape: List<i64>,
    datatype: String,
    parameters: Option<OfInput>,
    #[schemars(with = "Option<TextOr<Json>>")]
    data: Option<Data>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OfInput {
    binary_data_size: Option<usize>,
}

/// Elements, flat or nested as their shape is.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Data {
    Text(String),
    List(List<Self>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    parameters: Option<OfOutput>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OfOutput {
    binary_data: Option<bool>,
}

/// What a body of `POST /v2/models/MODEL/infer` may hold, as JSON Schema.
pub fn infer_schema() -> serde_json::Value {
    crate::schema::of::<Body>()
}

/// The inference that a body means. `json` is the length of its JSON, when bytes follow.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse(bytes: &[u8], json: Option<usize>) -> Result<Infer, Refusal> {
    let (json, binary) = split(bytes, json)?;
    let body: Body = decode::body(json)?;
    let inputs = body.inputs.ok_or_else(|| required("inputs"))?.0;
    let [input] = <[Input; 1]>::try_from(inputs).map_err(|inputs| {
        let message = format!("'inputs' must hold the one input '{INPUT}', not {}", inputs.len());
        invalid("inputs", message)
    })?;
    check_input(&input.name, &input.datatype)?;
    let size = input.parameters.unwrap_or_default().binary_data_size;
    let texts = match (input.data, size) {
        (Some(data), None) if binary.is_empty() => {
            let mut texts = Vec::new();
            flatten(data, &mut texts)?;
            texts
        }
        (None, Some(size)) if size == binary.len() => elements(binary)?,
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
    check_shape(&input.shape.0, texts.len())?;
    let wanted = body.outputs.unwrap_or_default().0;
    let fields = body.parameters.unwrap_or_default();
    let mut binary = fields.binary_data_output.unwrap_or(false);
    let mut names = Vec::new();
    for one in &wanted {
        names.push(output(&one.name)?);
        let own = one.parameters.as_ref().and_then(|parameters| parameters.binary_data);
        binary = own.unwrap_or(binary);
    }
    Ok(Infer {
        id: check_id(body.id.unwrap_or_default())?,
        texts,
        output: one_output(&names)?,
        binary,
        settings: fields.settings()?,
    })
}

fn flatten(data: Data, texts: &mut Vec<String>) -> Result<(), Refusal> {
    match data {
        Data::Text(_) if texts.len() == MAX_LIST => {
            Err(invalid(INPUT, format!("more than {MAX_LIST} elements")))
        }
        Data::Text(text) => {
            texts.push(text);
            Ok(())
        }
        Data::List(List(all)) => all.into_iter().try_for_each(|data| flatten(data, texts)),
    }
}

/// A body, and the length of its JSON when bytes follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The body.
    pub body: Vec<u8>,
    /// For the header `Inference-Header-Content-Length`.
    pub json: Option<usize>,
}

/// The body of an answer.
pub fn infer_body(model: &str, infer: &Infer, tensor: &Tensor, usage: Usage) -> Written {
    let bytes = if infer.binary { tensor.bytes() } else { Vec::new() };
    let mut body = Vec::new();
    Object::write(&mut body, |object| {
        object.field("model_name", model);
        object.field("model_version", VERSION);
        if !infer.id.is_empty() {
            object.field("id", &infer.id);
        }
        object.object("parameters", |object| {
            object.field("prompt_tokens", &usage.prompt_tokens);
            object.field("completion_tokens", &usage.completion_tokens);
        });
        object.array("outputs", |array| {
            array.object(|object| {
                let output = tensor.output();
                object.field("name", output.as_str());
                object.field("datatype", output.datatype());
                object.field("shape", &tensor.shape());
                if infer.binary {
                    object.object("parameters", |object| {
                        object.field("binary_data_size", &bytes.len());
                    });
                } else {
                    object.array("data", |array| data(array, tensor));
                }
            });
        });
    });
    let json = infer.binary.then_some(body.len());
    body.extend_from_slice(&bytes);
    Written { body, json }
}

fn data(array: &mut Array<'_>, tensor: &Tensor) {
    match tensor {
        Tensor::Text(text) => array.item(text),
        Tensor::Vectors(vectors) => {
            vectors.iter().flatten().for_each(|component| array.item(component));
        }
    }
}

/// `GET /v2`.
pub fn server_body(version: &str) -> Vec<u8> {
    let mut body = Vec::new();
    Object::write(&mut body, |object| {
        object.field("name", SERVER);
        object.field("version", version);
        object.field("extensions", &EXTENSIONS);
    });
    body
}

/// `GET /v2/health/live`, `GET /v2/health/ready`; the status says the same.
pub fn live_body(what: &str, yes: bool) -> Vec<u8> {
    let mut body = Vec::new();
    Object::write(&mut body, |object| object.field(what, &yes));
    body
}

/// `GET /v2/models/MODEL`.
pub fn metadata_body(model: &str, makes: Makes) -> Vec<u8> {
    let mut body = Vec::new();
    Object::write(&mut body, |object| {
        object.field("name", model);
        object.field("versions", &[VERSION]);
        object.field("platform", PLATFORM);
        object.array("inputs", |array| {
            array.object(|object| {
                object.field("name", INPUT);
                object.field("datatype", "BYTES");
                object.field("shape", &[input_shape(makes)]);
            });
        });
        object.array("outputs", |array| {
            for (output, shape) in outputs(makes) {
                array.object(|object| {
                    object.field("name", output.as_str());
                    object.field("datatype", output.datatype());
                    object.field("shape", &shape);
                });
            }
        });
    });
    body
}

/// A refusal.
pub fn error_body(message: &str) -> Vec<u8> {
    let mut body = Vec::new();
    Object::write(&mut body, |object| object.field("error", message));
    body
}
