//! The Open Inference Protocol over real sockets, and how a connection is told from another.

use serde_json::json;

use super::*;

fn asked(texts: &[&str]) -> Value {
    let shape = [texts.len()];
    json!({"inputs": [
        {"name": "text_input", "datatype": "BYTES", "shape": shape, "data": texts}]})
}

#[tokio::test]
async fn an_inference_gets_a_tensor_or_its_own_shape_of_refusal() {
    let surface = surface(Script::hello()).await;
    let answer = surface.post("/v2/models/cloud/e/infer", &asked(&["a", "b"])).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let wanted = json!([{"name": "embedding", "datatype": "FP32", "shape": [2, 3],
        "data": [0.5, -1.0, 0.25, 0.5, -1.0, 0.25]}]);
    assert_eq!(answer.json()["outputs"], wanted);
    for (path, body, status) in [
        ("/v2/models/cloud/e/infer", json!({"inputs": []}), 400),
        ("/v2/models/nobody/infer", asked(&["a"]), 404),
        ("/v2/models/cloud/large/infer", asked(&["a", "b"]), 400),
    ] {
        let refused = surface.post(path, &body).await;
        assert_eq!(refused.status, status, "{refused:?}");
        assert!(refused.json()["error"].is_string(), "{refused:?}");
    }
    let lines = format!("content-type: application/json\r\nx-api-key: {NARROW_KEY}\r\n");
    let body = asked(&["a"]).to_string();
    let narrow = surface.ask("POST", "/v2/models/small/infer", &lines, &body).await;
    assert_eq!(narrow.status, 403, "{narrow:?}");
    let live = surface.ask("GET", "/v2/health/live", "", "").await;
    assert_eq!(live.json(), json!({"live": true}));
    // A call of gRPC over HTTP/1.1 has its refusal in its head.
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let refused = surface.post(path, &json!({})).await;
    assert_eq!((refused.status, refused.header("grpc-status")), (200, Some("3")), "{refused:?}");
}

#[tokio::test]
async fn two_bytes_tell_how_a_client_speaks() {
    let surface = surface(Script::hello()).await;
    // A frame of settings without settings follows the preface (RFC 9113, section 3.4).
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let body = chat(&json!({})).to_string();
    let lines = "connection: close\r\ncontent-type: application/json\r\n";
    let post = request("POST", CHAT, lines, &body);
    for (whole, answer) in [(&preface[..], &b"\x04"[..]), (post.as_bytes(), b"P/1.1 200")] {
        let mut socket = surface.connect().await;
        let (first, rest) = whole.split_at(1);
        for part in [first, rest] {
            socket.write_all(part).await.expect("sent");
            tokio::task::yield_now().await;
        }
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head[3..3 + answer.len()], answer, "{head:?}");
    }
}

fn rows(shape: &[usize], more: &Value) -> Value {
    let count = shape.iter().product();
    let mut body = json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": shape,
        "data": vec![0.5; count]}]});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
    body
}

#[tokio::test]
async fn a_learned_model_tells_classes_and_names_its_version() {
    let surface = surface(Script::hello()).await;
    let told = surface.ask("GET", "/v2/models/wear", "", "").await.json();
    assert_eq!(
        (&told["versions"], &told["platform"]),
        (&json!(["12"]), &json!("selvedge_federated"))
    );
    for path in ["/v2/models/wear/infer", "/v2/models/wear/versions/12/infer"] {
        for shape in [&[2, 1, 2, 2][..], &[2, 4]] {
            let answer = surface.post(path, &rows(shape, &json!({"id": "7"}))).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let body = answer.json();
            assert_eq!((&body["model_version"], &body["id"]), (&json!("12"), &json!("7")));
            assert_eq!(body["outputs"][0]["data"], json!([0.25, 0.75, 0.25, 0.75]));
            assert_eq!(body["outputs"][1]["data"], json!([1, 1]));
        }
    }
    let only = rows(&[1, 4], &json!({"outputs": [{"name": "class"}]}));
    let answer = surface.post("/v2/models/wear/infer", &only).await.json();
    assert_eq!(answer["outputs"].as_array().map(Vec::len), Some(1), "{answer}");
    for (path, body, status) in [
        ("/v2/models/wear/versions/11/infer", rows(&[1, 4], &json!({})), 404),
        ("/v2/models/wear/infer", rows(&[1, 5], &json!({})), 400),
        ("/v2/models/wear/infer", asked(&["a"]), 400),
        ("/v2/models/small/infer", rows(&[1, 4], &json!({})), 400),
        ("/v2/models/small/versions/2/infer", asked(&["a"]), 404),
        ("/v2/models/young/infer", rows(&[1, 4], &json!({})), 503),
    ] {
        let refused = surface.post(path, &body).await;
        assert_eq!(refused.status, status, "{path} {refused:?}");
        assert!(refused.json()["error"].is_string(), "{refused:?}");
    }
    for (path, status) in [
        ("/v2/models/wear/ready", 200),
        ("/v2/models/wear/versions/12/ready", 200),
        ("/v2/models/wear/versions/11/ready", 404),
        ("/v2/models/wear/versions/11", 404),
        ("/v2/models/young", 200),
        ("/v2/models/young/ready", 503),
    ] {
        assert_eq!(surface.ask("GET", path, "", "").await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_learned_model_is_no_partner_for_a_chat() {
    let surface = surface(Script::hello()).await;
    let refused = surface.post(CHAT, &chat(&json!({"model": "wear"}))).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let message = refused.json()["error"]["message"].to_string();
    assert!(message.contains("selvedge infer wear"), "{message}");
}

fn readings(shape: &[usize], more: &Value) -> Value {
    let count = shape.iter().product();
    let mut body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape,
        "data": vec![0.5; count]}]});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
    body
}

#[tokio::test]
async fn a_model_of_tensors_is_asked_in_its_own_terms() {
    let surface = surface(Script::hello()).await;
    let told = surface.ask("GET", "/v2/models/sensor", "", "").await.json();
    let wanted = json!([{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]);
    assert_eq!((&told["platform"], &told["inputs"]), (&json!("onnx"), &wanted));
    for path in ["/v2/models/sensor/infer", "/v2/models/sensor/versions/1/infer"] {
        let answer = surface.post(path, &readings(&[3, 2], &json!({"id": "7"}))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let output = json!([{"name": "y", "datatype": "FP32", "shape": [3, 2],
            "data": [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]}]);
        assert_eq!((&answer.json()["id"], &answer.json()["outputs"]), (&json!("7"), &output));
    }
    for (path, body, status) in [
        ("/v2/models/sensor/infer", readings(&[3, 3], &json!({})), 400),
        ("/v2/models/sensor/infer", readings(&[1, 2], &json!({"outputs": [{"name": "z"}]})), 400),
        ("/v2/models/sensor/versions/2/infer", readings(&[1, 2], &json!({})), 404),
    ] {
        let refused = surface.post(path, &body).await;
        assert_eq!(refused.status, status, "{path} {refused:?}");
        assert!(refused.json()["error"].is_string(), "{refused:?}");
    }
    let lines = format!("content-type: application/json\r\nx-api-key: {NARROW_KEY}\r\n");
    let body = readings(&[1, 2], &json!({})).to_string();
    let narrow = surface.ask("POST", "/v2/models/other/infer", &lines, &body).await;
    assert_eq!(narrow.status, 403, "{narrow:?}");
    assert_eq!(surface.ask("GET", "/v2/models/sensor/ready", "", "").await.status, 200);
    assert_eq!(surface.ask("GET", "/v2/models/sensor/versions/3", "", "").await.status, 404);
}
