//! Such inferences over gRPC. The messages are the protocol's, in `inference/grpc.rs`.

use prost::Message as _;
use selvedge_base::Refusal;

use super::super::grpc::{Answer, Metadata, OfTensor, fields, none, request};
use super::{
    Asked, Card, Found, INPUT, MAX_VALUES, Output, PLATFORM, check_input, floats, one,
    unknown_contents, wanted,
};
use crate::decode::invalid;

/// The inference that a message means.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse(bytes: &[u8]) -> Result<Asked, Refusal> {
    let request = request(bytes)?;
    let input = one(request.inputs)?;
    check_input(&input.name, &input.datatype)?;
    none(&input.parameters, "inputs[0].parameters")?;
    let contents = input.contents.unwrap_or_default();
    if !contents.bytes_contents.is_empty() {
        return Err(unknown_contents());
    }
    let values = match (contents.fp32_contents, request.raw_input_contents.as_slice()) {
        (values, [raw]) if values.is_empty() => floats(raw)?,
        (values, []) if values.len() <= MAX_VALUES => values,
        (_, []) => return Err(invalid(INPUT, format!("more than {MAX_VALUES} values"))),
        _ => {
            let message = format!("'{INPUT}' has its values in more places than one");
            return Err(invalid("raw_input_contents", message));
        }
    };
    for wanted in &request.outputs {
        none(&wanted.parameters, "outputs[0].parameters")?;
    }
    let wanted = wanted(request.outputs.iter().map(|wanted| (wanted.name.as_str(), true)), true)?;
    Asked::of(request.id, (input.shape, values), wanted, fields(request.parameters)?)
}

/// `ModelMetadata`.
pub fn metadata(model: &str, card: &Card) -> Vec<u8> {
    let input =
        OfTensor { name: INPUT.to_owned(), datatype: "FP32".to_owned(), shape: card.input_shape() };
    let outputs = Output::ALL.map(|output| of_tensor(output, card.output_shape(output)));
    let metadata = Metadata {
        name: model.to_owned(),
        versions: card.versions(),
        platform: PLATFORM.to_owned(),
        inputs: vec![input],
        outputs: outputs.into(),
    };
    metadata.encode_to_vec()
}

/// `ModelInfer`.
pub fn answer(model: &str, asked: &Asked, found: &Found) -> Vec<u8> {
    let shape = |output| {
        let sides = found.shape(output).into_iter();
        sides.map(|side| i64::try_from(side).unwrap_or(i64::MAX)).collect()
    };
    let wanted = || asked.outputs().map(|wanted| wanted.output);
    let answer = Answer {
        model_name: model.to_owned(),
        model_version: found.version.to_string(),
        id: asked.id.clone(),
        outputs: wanted().map(|output| of_tensor(output, shape(output))).collect(),
        raw_output_contents: wanted().map(|output| found.bytes(output)).collect(),
        ..Answer::default()
    };
    answer.encode_to_vec()
}

fn of_tensor(output: Output, shape: Vec<i64>) -> OfTensor {
    OfTensor { name: output.as_str().to_owned(), datatype: output.datatype().to_owned(), shape }
}
