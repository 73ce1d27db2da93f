use serde_json::{Value, json};

use super::*;
use crate::chat::Usage;

fn asked(body: &Value) -> Result<Infer, Refusal> {
    parse(body.to_string().as_bytes(), None)
}

fn body(more: Value) -> Value {
    let mut body = json!({"inputs": [
        {"name": "text_input", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn the_same_is_understood_as_json_and_as_bytes() {
    let plain = asked(&body(json!({"id": "7"}))).expect("understood");
    assert_eq!(
        (plain.texts.as_slice(), plain.id.as_str()),
        (["a", "b"].map(String::from).as_slice(), "7")
    );
    let nested = json!([{"name": "text_input", "datatype": "BYTES", "shape": [2, 1],
        "data": [["a"], ["b"]]}]);
    assert_eq!(asked(&body(json!({"id": "7", "inputs": nested}))).expect("understood"), plain);
    let data = b"\x01\0\0\0a\x01\0\0\0b";
    let head = json!({"id": "7", "inputs": [{"name": "text_input", "datatype": "BYTES",
        "shape": [2], "parameters": {"binary_data_size": data.len()}}]});
    let head = head.to_string().into_bytes();
    let whole = [head.as_slice(), data].concat();
    assert_eq!(parse(&whole, Some(head.len())).expect("understood"), plain);
    // Whatever is cut off, nothing panics and something is named.
    for end in 0..whole.len() {
        assert!(parse(&whole[..end], Some(head.len())).is_err(), "{end}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let input = |more: Value| {
        let mut input =
            json!({"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["a"]});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body(json!({ "inputs": [input] }))
    };
    for (body, param) in [
        (json!({}), "inputs"),
        (body(json!({"inputs": []})), "inputs"),
        (input(json!({"name": "other"})), "inputs"),
        (input(json!({"datatype": "FP32"})), "inputs"),
        (input(json!({"shape": [2]})), "text_input"),
        (input(json!({"shape": [-1]})), "text_input"),
        (input(json!({"shape": []})), "text_input"),
        (input(json!({"data": [1]})), "inputs[0].data"),
        (input(json!({"data": null})), "inputs[0].data"),
        (input(json!({"parameters": {"binary_data_size": 1}})), "text_input"),
        (body(json!({"outputs": [{"name": "logits"}]})), "outputs"),
        (body(json!({"outputs": [{"name": "embedding"}, {"name": "text_output"}]})), "outputs"),
        (body(json!({"parameters": {"sequence_id": 1}})), "parameters.sequence_id"),
        (body(json!({"parameters": {"temperature": 3}})), "parameters.temperature"),
        (body(json!({"parameters": {"max_tokens": 0}})), "parameters.max_tokens"),
        (body(json!({"colour": 1})), "colour"),
    ] {
        let refusal = asked(&body).expect_err("must be refused");
        assert_eq!(refusal.param.as_deref(), Some(param), "{body} {refusal}");
    }
    assert!(parse(b"{}", Some(3)).is_err());
}

#[test]
fn a_model_is_asked_for_what_it_makes() {
    let named = |name: &str| asked(&body(json!({"outputs": [{"name": name}]}))).expect("good");
    let (none, text, vectors) = (Infer::default(), named("text_output"), named("embedding"));
    for (infer, makes, wanted) in [
        (&none, Makes::Text, Some(Output::Text)),
        (&none, Makes::Unknown, Some(Output::Text)),
        (&none, Makes::Embeddings(None), Some(Output::Embedding)),
        (&text, Makes::Text, Some(Output::Text)),
        (&text, Makes::Embeddings(None), None),
        (&vectors, Makes::Text, None),
        (&vectors, Makes::Unknown, Some(Output::Embedding)),
    ] {
        assert_eq!(infer.wanted(makes).ok(), wanted, "{infer:?} {makes:?}");
    }
    let settings = json!({"parameters": {"max_tokens": 5, "stop": "x", "timeout": 1_000}});
    let both = asked(&body(settings)).expect("good");
    assert_eq!(both.settings.timeout, Some(Micros::millis(1)));
    let refusal = both.embeddings("m").expect_err("no tokens of vectors");
    assert_eq!(refusal.param.as_deref(), Some("parameters.max_tokens"));
    assert_eq!(both.chat("m").expect_err("two texts").param.as_deref(), Some("text_input"));
    let one = Infer { texts: vec!["a".into()], ..both };
    let chat = one.chat("m").expect("one text");
    assert_eq!((chat.max_tokens, chat.stop), (Some(5), vec!["x".to_owned()]));
}

#[test]
fn answers_are_written_as_they_are_wanted() {
    let tensor = Tensor::of_vectors(vec![vec![0.5, -1.0], vec![0.25, 2.0]]).expect("one length");
    assert_eq!(Tensor::of_vectors(vec![vec![1.0], vec![]]), None);
    let usage = Usage { prompt_tokens: 3, ..Usage::default() };
    let infer = asked(&body(json!({"id": "7"}))).expect("good");
    let plain = infer_body("m", &infer, &tensor, usage);
    let value: Value = serde_json::from_slice(&plain.body).expect("JSON");
    let wanted = json!({"model_name": "m", "model_version": "1", "id": "7",
        "parameters": {"prompt_tokens": 3, "completion_tokens": 0},
        "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [2, 2],
            "data": [0.5, -1.0, 0.25, 2.0]}]});
    assert_eq!((value, plain.json), (wanted, None));
    let infer = asked(&body(json!({"parameters": {"binary_data_output": true}}))).expect("good");
    let binary = infer_body("m", &infer, &Tensor::Text("hé".into()), usage);
    let (head, bytes) = binary.body.split_at(binary.json.expect("bytes follow"));
    let head: Value = serde_json::from_slice(head).expect("JSON");
    assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], 7);
    assert_eq!(bytes, b"\x03\0\0\0h\xc3\xa9");
}
