use prost::Message as _;
use serde_json::{Value, json};

use super::super::Written;
use super::super::grpc::{Answer, Contents, Input, Request};
use super::*;

fn card() -> Card {
    Card { example: vec![1, 2, 2], classes: 3, version: Some(12), job: "ab".to_owned(), rounds: 30 }
}

/// A body whose input is that of one image, but for what `more` says.
fn input(more: &Value) -> Value {
    let mut input = json!({"name": "input", "datatype": "FP32", "shape": [1, 1, 2, 2],
        "data": [0, 0.5, -1, 1e-3]});
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "inputs": [input] })
}

fn asked(body: &Value) -> Result<Asked, Refusal> {
    parse(body.to_string().as_bytes(), None)
}

fn found() -> Found {
    Found { version: 12, probabilities: vec![0.25, 0.5, 0.25, 1.0, 0.0, 0.0], classes: vec![1, 0] }
}

#[test]
fn the_same_is_understood_as_json_as_bytes_and_as_a_message() {
    let plain = asked(&input(&json!({}))).expect("understood");
    assert_eq!(plain.values, [0.0, 0.5, -1.0, 1e-3]);
    assert_eq!(plain.rows(&card()), Ok(1));
    let nested = input(&json!({"data": [[[[0, 0.5], [-1, 0.001]]]]}));
    assert_eq!(asked(&nested).expect("understood"), plain);
    let bytes: Vec<u8> = plain.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let head = json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1, 2, 2],
        "parameters": {"binary_data_size": bytes.len()}}]});
    let head = head.to_string().into_bytes();
    let whole = [head.as_slice(), bytes.as_slice()].concat();
    assert_eq!(parse(&whole, Some(head.len())).expect("understood"), plain);
    for end in 0..whole.len() {
        assert!(parse(&whole[..end], Some(head.len())).is_err(), "{end}");
    }
    let binary = Asked {
        wanted: Output::ALL.map(|output| Wanted { output, binary: true }).into(),
        ..plain.clone()
    };
    for typed in [false, true] {
        let contents = Contents { fp32_contents: plain.values.clone(), ..Contents::default() };
        let one = Input {
            name: INPUT.to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 1, 2, 2],
            contents: typed.then_some(contents),
            ..Input::default()
        };
        let raw = if typed { vec![] } else { vec![bytes.clone()] };
        let request = Request { inputs: vec![one], raw_input_contents: raw, ..Request::default() };
        assert_eq!(grpc_parse(&request.encode_to_vec()).expect("understood"), binary);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let more = |more: Value| {
        let mut body = input(&json!({}));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (body, param) in [
        (json!({}), "inputs"),
        (more(json!({"inputs": []})), "inputs"),
        (input(&json!({"name": "pixels"})), "inputs"),
        (input(&json!({"datatype": "FP64"})), "inputs"),
        (input(&json!({"data": ["a"]})), "inputs[0].data"),
        (input(&json!({"data": 1})), "inputs[0].data"),
        (input(&json!({"data": [1e39]})), "inputs[0].data"),
        (input(&json!({"data": [[[[[[[[[1]]]]]]]]]})), "inputs[0].data"),
        (input(&json!({"data": null})), "inputs[0].data"),
        (input(&json!({"parameters": {"binary_data_size": 4}})), INPUT),
        (input(&json!({"shape": [1, 1, 1, 1, 1, 1, 1, 1, 4]})), INPUT),
        (more(json!({"outputs": [{"name": "logits"}]})), "outputs"),
        (more(json!({"outputs": [{"name": "class"}, {"name": "class"}]})), "outputs"),
        (more(json!({"parameters": {"max_tokens": 4}})), "parameters.max_tokens"),
        (more(json!({"parameters": {"colour": 1}})), "parameters.colour"),
    ] {
        let refusal = asked(&body).expect_err("must be refused");
        // Of data the first wrong number is named.
        let named = refusal.param.as_deref().is_some_and(|named| named.starts_with(param));
        assert!(named, "{body} {refusal} {:?}", refusal.param);
    }
    let head = json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1],
        "parameters": {"binary_data_size": 4}}]});
    let head = head.to_string().into_bytes();
    let nan = [head.as_slice(), &Component::NAN.to_le_bytes()].concat();
    let refusal = parse(&nan, Some(head.len())).expect_err("no number");
    assert!(refusal.message.contains("value 0 of 'input' is NaN"), "{refusal}");
    for byte in 0..=u8::MAX {
        let _ = grpc_parse(&[byte; 64]);
    }
}

#[test]
fn a_shape_fits_a_model_or_says_what_would() {
    let rows = |shape: Value, values: usize| {
        let data = vec![0.5; values];
        asked(&input(&json!({"shape": shape, "data": data}))).expect("read").rows(&card())
    };
    assert_eq!(rows(json!([2, 1, 2, 2]), 8), Ok(2));
    assert_eq!(rows(json!([3, 4]), 12), Ok(3));
    for (shape, values) in [
        (json!([4]), 4),
        (json!([]), 4),
        (json!([1, 2, 2]), 4),
        (json!([1, 2, 2, 1]), 4),
        (json!([1, 5]), 5),
        (json!([-1, 4]), 4),
        (json!([0, 4]), 0),
        (json!([MAX_ROWS + 1, 4]), 4),
        (json!([2, 4]), 4),
    ] {
        let refusal = rows(shape.clone(), values).expect_err("must be refused");
        assert_eq!(refusal.param.as_deref(), Some(INPUT), "{shape} {refusal}");
    }
    let told = rows(json!([1, 5]), 5).expect_err("five values").message;
    assert!(told.contains("[-1, 1, 2, 2], or [-1, 4]"), "{told}");
}

#[test]
fn answers_name_the_version_and_hold_what_was_wanted() {
    let mut body = input(&json!({}));
    body["id"] = json!("7");
    let plain = body_of(&body);
    let wanted = json!({"model_name": "m", "model_version": "12", "id": "7", "outputs": [
        {"name": "probabilities", "datatype": "FP32", "shape": [2, 3],
            "data": [0.25, 0.5, 0.25, 1.0, 0.0, 0.0]},
        {"name": "class", "datatype": "INT64", "shape": [2], "data": [1, 0]}]});
    assert_eq!(plain, (wanted, Vec::new()));
    body["outputs"] = json!([{"name": "class", "parameters": {"binary_data": true}},
        {"name": "probabilities"}]);
    let (head, bytes) = body_of(&body);
    assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], 16);
    assert_eq!(head["outputs"][1]["data"][1], 0.5);
    assert_eq!(bytes, [1_i64.to_le_bytes(), 0_i64.to_le_bytes()].concat());
    let asked = asked(&body).expect("understood");
    let answer = Answer::decode(grpc_answer("m", &asked, &found()).as_slice()).expect("a message");
    assert_eq!((answer.model_version.as_str(), answer.id.as_str()), ("12", "7"));
    assert_eq!(answer.outputs[0].shape, [2]);
    assert_eq!(answer.raw_output_contents[1].len(), 24);
}

/// The JSON of an answer, and the bytes after it.
fn body_of(asking: &Value) -> (Value, Vec<u8>) {
    let asked = asked(asking).expect("understood");
    let Written { body, json } = body("m", &asked, &found());
    let (head, bytes) = body.split_at(json.unwrap_or(body.len()));
    (serde_json::from_slice(head).expect("JSON"), bytes.to_vec())
}

#[test]
fn a_model_says_what_it_takes_and_gives() {
    let told: Value = serde_json::from_slice(&metadata_body("m", &card())).expect("JSON");
    assert_eq!(told["versions"], json!(["12"]));
    assert_eq!(told["inputs"][0]["shape"], json!([-1, 1, 2, 2]));
    assert_eq!(told["outputs"][0]["shape"], json!([-1, 3]));
    assert!(told["parameters"]["values"].as_str().unwrap().contains("0 to 1"), "{told}");
    let none = Card { version: None, ..card() };
    let told: Value = serde_json::from_slice(&metadata_body("m", &none)).expect("JSON");
    assert_eq!(told["versions"], json!([]));
    assert!(!grpc_metadata("m", &card()).is_empty());
}
