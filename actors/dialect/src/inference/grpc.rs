//! The protocol over gRPC: its messages and what they mean.
//!
//! Owns the messages of `inference.GRPCInferenceService` as far as they are used here (source:
//! `grpc_predict_v2.proto` of the protocol); fields that are not are skipped, as protocol buffers
//! do. Frames and statuses are whoever's who holds the connection.

use std::collections::BTreeMap;

use prost::Message;
use selvedge_base::{Code, Refusal, Stage};
use selvedge_contract::tensors::MAX_TENSORS;
use serde_json::Value;

use super::{
    EXTENSIONS, Fields, INPUT, Infer, Makes, PLATFORM, SERVER, Tensor, VERSION, check_id,
    check_input, check_shape, elements, input_shape, one_output, output, outputs, utf8,
};
use crate::chat::Usage;
use crate::decode::{self, MAX_LIST, invalid, required};
use crate::json::Json;
use crate::number::{Component, Double};

/// The service's name, as it stands in paths.
pub const SERVICE: &str = "inference.GRPCInferenceService";

/// The lists of a request, each with its tag.
const LISTS: [(usize, &str); 3] = [(5, "inputs"), (6, "outputs"), (7, "raw_input_contents")];

#[derive(Clone, PartialEq, Message)]
struct Yes {
    #[prost(bool, tag = "1")]
    yes: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Server {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(string, repeated, tag = "3")]
    extensions: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) versions: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) platform: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) inputs: Vec<OfTensor>,
    #[prost(message, repeated, tag = "5")]
    pub(super) outputs: Vec<OfTensor>,
}

/// What is said of a tensor, in metadata and in answers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OfTensor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    #[prost(string, tag = "2")]
    pub(super) model_version: String,
    #[prost(string, tag = "3")]
    pub(super) id: String,
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) parameters: BTreeMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    pub(super) inputs: Vec<Input>,
    #[prost(message, repeated, tag = "6")]
    pub(super) outputs: Vec<Wanted>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub(super) raw_input_contents: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Input {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) parameters: BTreeMap<String, Parameter>,
    #[prost(message, optional, tag = "5")]
    pub(super) contents: Option<Contents>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Contents {
    #[prost(bool, repeated, tag = "1")]
    pub(super) bool_contents: Vec<bool>,
    #[prost(int32, repeated, tag = "2")]
    pub(super) int_contents: Vec<i32>,
    #[prost(int64, repeated, tag = "3")]
    pub(super) int64_contents: Vec<i64>,
    #[prost(uint32, repeated, tag = "4")]
    pub(super) uint_contents: Vec<u32>,
    #[prost(float, repeated, tag = "6")]
    pub(super) fp32_contents: Vec<Component>,
    #[prost(double, repeated, tag = "7")]
    pub(super) fp64_contents: Vec<Double>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub(super) bytes_contents: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Wanted {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(btree_map = "string, message", tag = "2")]
    pub(super) parameters: BTreeMap<String, Parameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Parameter {
    #[prost(oneof = "Choice", tags = "1, 2, 3, 4, 5")]
    choice: Option<Choice>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Choice {
    #[prost(bool, tag = "1")]
    Bool(bool),
    #[prost(int64, tag = "2")]
    Int(i64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(double, tag = "4")]
    Double(Double),
    #[prost(uint64, tag = "5")]
    Uint(u64),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    #[prost(string, tag = "2")]
    pub(super) model_version: String,
    #[prost(string, tag = "3")]
    pub(super) id: String,
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) parameters: BTreeMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    pub(super) outputs: Vec<OfTensor>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(super) raw_output_contents: Vec<Vec<u8>>,
}

/// The model and its version that a request for readiness or metadata names.
///
/// # Errors
/// When the message is none.
pub fn parse_named(bytes: &[u8]) -> Result<(String, String), Refusal> {
    let Named { name, version } = message(bytes)?;
    Ok((decode::model(Some(name))?, version))
}

/// The model, its version, and the inference that a message means.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse_infer(bytes: &[u8]) -> Result<(String, String, Infer), Refusal> {
    let request = request(bytes)?;
    let inputs = request.inputs;
    let [input] = <[Input; 1]>::try_from(inputs).map_err(|inputs| {
        let message = format!("'inputs' must hold the one input '{INPUT}', not {}", inputs.len());
        invalid("inputs", message)
    })?;
    check_input(&input.name, &input.datatype)?;
    none(&input.parameters, "inputs[0].parameters")?;
    let contents = input.contents.map(|contents| contents.bytes_contents).unwrap_or_default();
    let texts = match (contents.as_slice(), request.raw_input_contents.as_slice()) {
        ([], [raw]) => elements(raw)?,
        (contents, []) if contents.len() <= MAX_LIST => {
            contents.iter().map(|bytes| utf8(bytes)).collect::<Result<_, _>>()?
        }
        (_, []) => return Err(invalid(INPUT, format!("more than {MAX_LIST} elements"))),
        _ => {
            let message = format!("'{INPUT}' has its elements in more places than one");
            return Err(invalid("raw_input_contents", message));
        }
    };
    check_shape(&input.shape, texts.len())?;
    let mut names = Vec::new();
    for wanted in &request.outputs {
        none(&wanted.parameters, "outputs[0].parameters")?;
        names.push(output(&wanted.name)?);
    }
    let infer = Infer {
        id: check_id(request.id)?,
        texts,
        output: one_output(&names)?,
        binary: true,
        settings: fields(request.parameters)?.settings()?,
    };
    Ok((decode::model(Some(request.model_name))?, request.model_version, infer))
}

/// A request for inference, of which no list is longer than models have tensors: one that is empty
/// takes two bytes here, and hundreds once it is understood.
pub(super) fn request(bytes: &[u8]) -> Result<Request, Refusal> {
    let broken = |error: prost::DecodeError| unknown(&error);
    let (mut rest, mut counts) = (bytes, [0_usize; LISTS.len()]);
    while !rest.is_empty() {
        let key = prost::decode_length_delimiter(&mut rest).map_err(broken)?;
        let skipped = match key & 7 {
            0 => prost::decode_length_delimiter(&mut rest).map(|_| 0),
            1 => Ok(8),
            2 => prost::decode_length_delimiter(&mut rest),
            5 => Ok(4),
            // Groups, which nobody writes, and what nothing is.
            _ => return Err(unknown(&"a field of an unknown kind")),
        };
        let skipped = skipped.map_err(broken)?;
        rest = rest.get(skipped..).ok_or_else(|| unknown(&"it ends within a field"))?;
        for ((tag, name), count) in LISTS.iter().zip(&mut counts) {
            *count += usize::from(key >> 3 == *tag);
            if *count > MAX_TENSORS {
                return Err(invalid(name, format!("'{name}' holds more than {MAX_TENSORS}")));
            }
        }
    }
    message(bytes)
}

fn unknown(error: &dyn std::fmt::Display) -> Refusal {
    let message = format!("the message is none of this service: {error}");
    Refusal::client(Stage::Validate, Code::InvalidRequest, message)
}

fn message<M: Message + Default>(bytes: &[u8]) -> Result<M, Refusal> {
    M::decode(bytes).map_err(|error| unknown(&error))
}

/// There are no parameters here that are understood.
pub(super) fn none(parameters: &BTreeMap<String, Parameter>, path: &str) -> Result<(), Refusal> {
    let Some((name, _)) = parameters.first_key_value() else { return Ok(()) };
    let name: String = name.chars().take(64).collect();
    let field = format!("{path}.{name}");
    Err(invalid(&field, format!("'{field}' is not a parameter of this endpoint")))
}

/// The same parameters as they stand in JSON, so that they are judged alike.
pub(super) fn fields(parameters: BTreeMap<String, Parameter>) -> Result<Fields, Refusal> {
    let mut object = serde_json::Map::new();
    for (name, parameter) in parameters {
        let value = match parameter.choice {
            Some(Choice::Bool(yes)) => Value::from(yes),
            Some(Choice::Int(number)) => Value::from(number),
            Some(Choice::Uint(number)) => Value::from(number),
            Some(Choice::Double(number)) => Value::from(number),
            Some(Choice::Text(text)) => Value::from(text),
            None => return Err(required(&format!("parameters.{name}"))),
        };
        object.insert(name, value);
    }
    // An object of plain values always has a form in JSON.
    let json = Json::of(&object).map_err(|error| invalid("parameters", error.to_string()))?;
    decode::inside("parameters", &json)
}

/// `ServerLive`, `ServerReady` and `ModelReady`.
pub fn yes(yes: bool) -> Vec<u8> {
    Yes { yes }.encode_to_vec()
}

/// `ServerMetadata`.
pub fn server(version: &str) -> Vec<u8> {
    let extensions = EXTENSIONS.iter().map(|name| (*name).to_owned()).collect();
    let (name, version) = (SERVER.to_owned(), version.to_owned());
    Server { name, version, extensions }.encode_to_vec()
}

/// `ModelMetadata`.
pub fn metadata(model: &str, makes: Makes) -> Vec<u8> {
    let input = OfTensor {
        name: INPUT.to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![input_shape(makes)],
    };
    let outputs = outputs(makes).into_iter().map(|(output, shape)| OfTensor {
        name: output.as_str().to_owned(),
        datatype: output.datatype().to_owned(),
        shape,
    });
    let metadata = Metadata {
        name: model.to_owned(),
        versions: vec![VERSION.to_owned()],
        platform: PLATFORM.to_owned(),
        inputs: vec![input],
        outputs: outputs.collect(),
    };
    metadata.encode_to_vec()
}

/// `ModelInfer`.
pub fn answer(model: &str, infer: &Infer, tensor: &Tensor, usage: Usage) -> Vec<u8> {
    let count = |name: &str, tokens: u64| {
        let choice = Choice::Int(i64::try_from(tokens).unwrap_or(i64::MAX));
        (name.to_owned(), Parameter { choice: Some(choice) })
    };
    let shape = tensor.shape().into_iter();
    let output = OfTensor {
        name: tensor.output().as_str().to_owned(),
        datatype: tensor.output().datatype().to_owned(),
        shape: shape.map(|side| i64::try_from(side).unwrap_or(i64::MAX)).collect(),
    };
    let answer = Answer {
        model_name: model.to_owned(),
        model_version: VERSION.to_owned(),
        id: infer.id.clone(),
        parameters: BTreeMap::from([
            count("prompt_tokens", usage.prompt_tokens),
            count("completion_tokens", usage.completion_tokens),
        ]),
        outputs: vec![output],
        raw_output_contents: vec![tensor.bytes()],
    };
    answer.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let input = Input {
            name: INPUT.to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![1],
            ..Input::default()
        };
        Request {
            model_name: "m".to_owned(),
            inputs: vec![input],
            raw_input_contents: vec![b"\x02\0\0\0hi".to_vec()],
            ..Request::default()
        }
    }

    #[test]
    fn an_inference_is_understood_wherever_its_elements_are() {
        let raw = request();
        let mut typed = request();
        typed.raw_input_contents.clear();
        typed.inputs[0].contents =
            Some(Contents { bytes_contents: vec![b"hi".to_vec()], ..Contents::default() });
        for request in [raw, typed] {
            let (model, _, infer) = parse_infer(&request.encode_to_vec()).expect("understood");
            assert_eq!(
                (model.as_str(), infer.texts.as_slice()),
                ("m", ["hi".to_owned()].as_slice())
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let with = |change: fn(&mut Request)| {
            let mut request = request();
            change(&mut request);
            parse_infer(&request.encode_to_vec()).expect_err("must be refused")
        };
        let parameter = |request: &mut Request, name: &str, choice| {
            request.parameters.insert(name.to_owned(), Parameter { choice: Some(choice) });
        };
        let mut odd = request();
        parameter(&mut odd, "sequence_id", Choice::Int(1));
        let odd = parse_infer(&odd.encode_to_vec()).expect_err("must be refused");
        assert_eq!(odd.param.as_deref(), Some("parameters.sequence_id"));
        for (refusal, param) in [
            (with(|request| request.inputs.clear()), "inputs"),
            (with(|request| request.inputs[0].shape = vec![2]), INPUT),
            (with(|request| request.raw_input_contents.clear()), INPUT),
            (with(|request| request.raw_input_contents.push(vec![])), "raw_input_contents"),
            (with(|request| request.raw_input_contents[0].truncate(5)), INPUT),
            (with(|request| request.model_name.clear()), "model"),
        ] {
            assert_eq!(refusal.param.as_deref(), Some(param), "{refusal}");
        }
        let mut good = request();
        parameter(&mut good, "max_tokens", Choice::Uint(4));
        parameter(&mut good, "temperature", Choice::Double(0.5));
        let (.., infer) = parse_infer(&good.encode_to_vec()).expect("understood");
        assert_eq!(infer.settings.max_tokens, Some(4));
        // What is long is refused before anything is made of it, wherever it stands.
        for (tag, param) in [(0x2a_u8, "inputs"), (0x32, "outputs"), (0x3a, "raw_input_contents")] {
            let long = [tag, 0].repeat(MAX_TENSORS + 1);
            let refusal = parse_infer(&long).expect_err("must be refused");
            assert_eq!(refusal.param.as_deref(), Some(param), "{refusal}");
            let behind = [&[0x53, 0x54][..], &long].concat();
            assert!(parse_infer(&behind).is_err(), "behind a group");
        }
        // Bytes of any kind harm nothing.
        for byte in 0..=u8::MAX {
            let _ = parse_infer(&[byte; 64]);
        }
    }
}
