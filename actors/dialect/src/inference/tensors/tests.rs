use prost::Message as _;
use selvedge_contract::{Signature, TensorSpec};
use serde_json::{Value, json};

use super::super::Written;
use super::super::grpc::{Answer, Contents, Input, Metadata, Request};
use super::*;

fn asked(body: &Value) -> Result<Asked, Refusal> {
    parse(body.to_string().as_bytes(), None)
}

fn body(datatype: &str, shape: &Value, data: &Value) -> Value {
    json!({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]})
}

/// What elements of each type are as JSON and as bytes.
fn kinds() -> Vec<(Datatype, Value, Vec<u8>, Contents)> {
    let none = Contents::default;
    vec![
        (
            Datatype::Bool,
            json!([true, 0]),
            vec![1, 0],
            Contents { bool_contents: vec![true, false], ..none() },
        ),
        (
            Datatype::Uint8,
            json!([255, 0]),
            vec![255, 0],
            Contents { uint_contents: vec![255, 0], ..none() },
        ),
        (
            Datatype::Int8,
            json!([-128, 1]),
            vec![128, 1],
            Contents { int_contents: vec![-128, 1], ..none() },
        ),
        (
            Datatype::Int16,
            json!([-2, 256]),
            vec![254, 255, 0, 1],
            Contents { int_contents: vec![-2, 256], ..none() },
        ),
        (
            Datatype::Int32,
            json!([-2, 256]),
            [(-2_i32).to_le_bytes(), 256_i32.to_le_bytes()].concat(),
            Contents { int_contents: vec![-2, 256], ..none() },
        ),
        (
            Datatype::Int64,
            json!([i64::MIN, i64::MAX]),
            [i64::MIN.to_le_bytes(), i64::MAX.to_le_bytes()].concat(),
            Contents { int64_contents: vec![i64::MIN, i64::MAX], ..none() },
        ),
        (
            Datatype::Fp32,
            json!([0.5, 3]),
            vec![0, 0, 0, 63, 0, 0, 64, 64],
            Contents { fp32_contents: vec![0.5, 3.0], ..none() },
        ),
        (
            Datatype::Fp64,
            json!([0.5, -1]),
            [vec![0; 6], vec![0xe0, 0x3f], vec![0; 6], vec![0xf0, 0xbf]].concat(),
            Contents { fp64_contents: vec![0.5, -1.0], ..none() },
        ),
        (
            Datatype::Bytes,
            json!(["hi", ""]),
            b"\x02\0\0\0hi\0\0\0\0".to_vec(),
            Contents { bytes_contents: vec![b"hi".to_vec(), vec![]], ..none() },
        ),
    ]
}

fn tensor(datatype: Datatype, data: Vec<u8>) -> Tensor {
    Tensor { name: "x".to_owned(), datatype, shape: vec![2], data }
}

#[test]
fn the_same_is_understood_as_json_as_bytes_and_as_a_message() {
    for (datatype, data, bytes, contents) in kinds() {
        let plain = asked(&body(datatype.as_str(), &json!([2]), &data)).expect("understood");
        assert_eq!(plain.inputs, [tensor(datatype, bytes.clone())]);
        assert_eq!(plain.inputs[0].check(), Ok(()));
        let head = json!({"inputs": [{"name": "x", "datatype": datatype.as_str(), "shape": [2],
            "parameters": {"binary_data_size": bytes.len()}}]});
        let head = head.to_string().into_bytes();
        let whole = [head.as_slice(), bytes.as_slice()].concat();
        assert_eq!(parse(&whole, Some(head.len())).expect("understood"), plain);
        for end in 0..whole.len() {
            assert!(parse(&whole[..end], Some(head.len())).is_err(), "{end}");
        }
        assert!(parse(&[&whole, &b"!"[..]].concat(), Some(head.len())).is_err(), "one too many");
        for typed in [false, true] {
            let input = Input {
                name: "x".to_owned(),
                datatype: datatype.as_str().to_owned(),
                shape: vec![2],
                contents: typed.then(|| contents.clone()),
                ..Input::default()
            };
            let raw = if typed { vec![] } else { vec![bytes.clone()] };
            let request =
                Request { inputs: vec![input], raw_input_contents: raw, ..Request::default() };
            let asked = grpc_parse(&request.encode_to_vec()).expect("understood");
            assert_eq!(asked.inputs, plain.inputs);
        }
        // And back again.
        let told = written(&body(datatype.as_str(), &json!([2]), &data), &plain.inputs).0;
        let back = asked(&body(datatype.as_str(), &json!([2]), &told["outputs"][0]["data"]));
        assert_eq!(back.expect("understood").inputs, plain.inputs);
    }
}

#[test]
fn lists_in_lists_and_several_inputs_are_read_in_order() {
    let nested = body("INT64", &json!([2, 2]), &json!([[1, 2], [3, 4]]));
    let flat = body("INT64", &json!([2, 2]), &json!([1, 2, 3, 4]));
    assert_eq!(asked(&nested).expect("understood"), asked(&flat).expect("understood"));
    let one = json!({"name": "a", "datatype": "UINT8", "shape": [3],
        "parameters": {"binary_data_size": 3}});
    let two = json!({"name": "b", "datatype": "BOOL", "shape": [], "data": [true]});
    let three = json!({"name": "c", "datatype": "UINT8", "shape": [1],
        "parameters": {"binary_data_size": 1}});
    let head = json!({"inputs": [one, two, three], "id": "7",
        "parameters": {"timeout": 1_000, "binary_data_output": true},
        "outputs": [{"name": "y"}, {"name": "z", "parameters": {"binary_data": false}}]});
    let head = head.to_string().into_bytes();
    let whole = [head.as_slice(), b"abcd"].concat();
    let asked = parse(&whole, Some(head.len())).expect("understood");
    let data: Vec<&[u8]> = asked.inputs.iter().map(|tensor| tensor.data.as_slice()).collect();
    assert_eq!(data, [&b"abc"[..], &[1], b"d"]);
    assert_eq!((asked.id.as_str(), asked.timeout), ("7", Some(Micros::millis(1))));
    assert_eq!(asked.outputs(), ["y", "z"]);
    assert_eq!((asked.is_binary("y"), asked.is_binary("z")), (true, false));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let with = |more: Value| {
        let mut body = body("FP32", &json!([1]), &json!([1]));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let data = |datatype: &str, data: Value| body(datatype, &json!([1]), &data);
    for (body, param) in [
        (json!({}), "inputs"),
        (with(json!({"inputs": []})), "inputs"),
        (body("FP16", &json!([1]), &json!([1])), "inputs"),
        (body("FP32", &json!([-1]), &json!([1])), "x"),
        (body("FP32", &json!([1, 1, 1, 1, 1, 1, 1, 1, 1]), &json!([1])), "x"),
        (data("FP32", json!(["a"])), "inputs[0].data"),
        (data("FP32", json!([1e39])), "inputs[0].data"),
        (data("FP32", json!([true])), "inputs[0].data"),
        (data("FP32", json!(1)), "inputs[0].data"),
        (data("INT8", json!([128])), "inputs[0].data"),
        (data("INT64", json!([0.5])), "inputs[0].data"),
        (data("BOOL", json!([2])), "inputs[0].data"),
        (data("BYTES", json!([1])), "inputs[0].data"),
        (data("FP32", json!({"a": 1})), "inputs[0].data"),
        (data("FP32", json!([[[[[[[[[1]]]]]]]]])), "inputs[0].data"),
        (body("FP32", &json!([2, 3]), &json!([[1, 2], [3, 4], [5, 6]])), "inputs[0].data"),
        (body("FP32", &json!([2, 2]), &json!([[1], [2, 3, 4]])), "inputs[0].data"),
        (body("FP32", &json!([4]), &json!([[1, 2], [3, 4]])), "inputs[0].data"),
        (data("FP32", Value::Null), "inputs[0].data"),
        (with(json!({"outputs": [{"name": "x".repeat(600)}]})), "outputs"),
        (with(json!({"parameters": {"max_tokens": 4}})), "parameters.max_tokens"),
        (with(json!({"parameters": {"colour": 1}})), "parameters.colour"),
    ] {
        let refusal = asked(&body).expect_err("must be refused");
        assert_eq!(refusal.param.as_deref(), Some(param), "{body} {refusal}");
    }
    let input = |contents: Contents| Input {
        name: "x".to_owned(),
        datatype: "INT8".to_owned(),
        shape: vec![1],
        contents: Some(contents),
        ..Input::default()
    };
    let good = Contents { int_contents: vec![1], ..Contents::default() };
    let far = Contents { int_contents: vec![128], ..Contents::default() };
    let other = Contents { fp32_contents: vec![1.0], ..good.clone() };
    for (contents, raw) in [(far, vec![]), (other, vec![]), (good, vec![vec![1]])] {
        let inputs = vec![input(contents)];
        let request = Request { inputs, raw_input_contents: raw, ..Request::default() };
        assert!(grpc_parse(&request.encode_to_vec()).is_err(), "{request:?}");
    }
    for byte in 0..=u8::MAX {
        let _ = grpc_parse(&[byte; 64]);
    }
}

#[test]
fn what_json_has_no_form_for_is_given_as_bytes_alone() {
    let nan = tensor(Datatype::Fp32, [0x7fc0_0000_u32.to_le_bytes(), [0; 4]].concat());
    let odd = tensor(Datatype::Bytes, b"\x01\0\0\0\xff\0\0\0\0".to_vec());
    let plain = asked(&super::tests::body("FP32", &json!([1]), &json!([1]))).expect("understood");
    for output in [nan, odd] {
        let outputs = [output.clone()];
        let refusal = super::body("m", &plain, &outputs).expect_err("no form");
        assert!(refusal.message.contains("'binary_data' true"), "{refusal}");
        let mut binary = super::tests::body("FP32", &json!([1]), &json!([1]));
        binary["parameters"] = json!({"binary_data_output": true});
        let (head, bytes) = written(&binary, &outputs);
        assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], output.data.len());
        assert_eq!(bytes, output.data);
    }
}

#[test]
fn answers_and_metadata_say_what_the_model_gives() {
    let outputs = vec![tensor(Datatype::Int64, vec![0; 16])];
    let plain = asked(&body("FP32", &json!([1]), &json!([1]))).expect("understood");
    let answer = Answer::decode(grpc_answer("m", &plain, outputs).as_slice()).expect("a message");
    assert_eq!((answer.model_name.as_str(), answer.model_version.as_str()), ("m", "1"));
    assert_eq!(
        (answer.outputs[0].shape.as_slice(), answer.raw_output_contents[0].len()),
        (&[2][..], 16)
    );
    let spec =
        |name: &str, datatype| TensorSpec { name: name.to_owned(), datatype, shape: vec![-1, 4] };
    let signature = Signature {
        platform: "onnx".to_owned(),
        inputs: vec![spec("x", Datatype::Fp32)],
        outputs: vec![spec("y", Datatype::Bytes)],
    };
    let told: Value = serde_json::from_slice(&metadata_body("m", &signature)).expect("JSON");
    assert_eq!((&told["platform"], &told["versions"]), (&json!("onnx"), &json!(["1"])));
    assert_eq!(told["inputs"], json!([{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]));
    let told = Metadata::decode(grpc_metadata("m", &signature).as_slice()).expect("a message");
    assert_eq!(
        (told.outputs[0].datatype.as_str(), &told.outputs[0].shape[..]),
        ("BYTES", &[-1, 4][..])
    );
}

/// The JSON of an answer, and the bytes after it.
fn written(asking: &Value, outputs: &[Tensor]) -> (Value, Vec<u8>) {
    let asked = asked(asking).expect("understood");
    let Written { body, json } = super::body("m", &asked, outputs).expect("a form");
    let (head, bytes) = body.split_at(json.unwrap_or(body.len()));
    (serde_json::from_slice(head).expect("JSON"), bytes.to_vec())
}
