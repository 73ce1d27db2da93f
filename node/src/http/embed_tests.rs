//! Embeddings over real sockets: the shapes of answers and refusals of each surface.

use serde_json::json;

use super::*;

#[tokio::test]
async fn vectors_are_written_as_each_surface_writes_them() {
    let surface = surface(Script::hello()).await;
    let body = json!({"model": "cloud/e", "input": ["a", "b"], "dimensions": 3, "user": "u"});
    let answer = surface.post("/v1/embeddings", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let wanted = json!({"object": "list", "model": "cloud/e",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0, 0.25]},
            {"object": "embedding", "index": 1, "embedding": [0.5, -1.0, 0.25]}],
        "usage": {"prompt_tokens": 7, "total_tokens": 7}});
    assert_eq!(answer.json(), wanted);
    let call = surface.script.embeds.lock().pop().expect("a request");
    assert_eq!((call.request.dimensions, call.keyed), (Some(3), false));
    let body = json!({"model": "cloud/e", "input": "a", "encoding_format": "base64"});
    let answer = surface.post("/v1/embeddings", &body).await.json();
    assert_eq!(answer["data"][0]["embedding"], "AAAAPwAAgL8AAIA+");
    let body = json!({"model": "cloud/e", "input": "a"});
    let answer = surface.post("/api/embed", &body).await.json();
    let wanted = json!({"model": "cloud/e", "embeddings": [[0.5, -1.0, 0.25]],
        "prompt_eval_count": 7});
    assert_eq!(answer, wanted);
    let body = json!({"model": "cloud/e", "prompt": "a"});
    let answer = surface.post("/api/embeddings", &body).await.json();
    assert_eq!(answer, json!({"embedding": [0.5, -1.0, 0.25]}));
    let page = surface.ask("GET", "/metrics", "", "").await.body;
    assert!(
        page.contains("selvedge_requests_total{surface=\"embeddings\",code=\"200\"} 2"),
        "{page}"
    );
    assert!(page.contains("selvedge_prompt_tokens_total 28"), "{page}");
}

#[tokio::test]
async fn refusals_have_the_shape_of_their_surface() {
    let surface = surface(Script::hello()).await;
    let body = json!({"model": "small", "input": "a"});
    let refused = surface.post("/v1/embeddings", &body).await;
    assert_eq!((refused.status, &refused.error()["code"]), (400, &json!("unsupported")));
    let refused = surface.post("/api/embed", &body).await;
    assert_eq!(refused.json(), json!({"error": "this model makes no embeddings"}));
    let refused = surface.post("/v1/embeddings", &json!({"model": "cloud/e"})).await;
    assert_eq!((refused.status, &refused.error()["param"]), (400, &json!("input")));
    let many = json!({"model": "cloud/e", "input": vec!["a"; 2_049]});
    let refused = surface.post("/v1/embeddings", &many).await;
    assert_eq!((refused.status, &refused.error()["param"]), (400, &json!("input")));
    let narrow = {
        let lines = format!("content-type: application/json\r\nx-api-key: {NARROW_KEY}\r\n");
        surface.ask("POST", "/v1/embeddings", &lines, &body.to_string()).await
    };
    assert_eq!(narrow.status, 403, "{narrow:?}");
    let asked = surface.script.embeds.lock().len();
    assert_eq!(asked, 2, "what was understood and allowed");
}
