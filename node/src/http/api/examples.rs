//! A good body for each path that asks a model, or says what it should have answered.
//!
//! Owns the examples in the description; the name in them stands for a model that there is. They
//! are sent as they are by the tests.

use serde_json::{Value, json};

/// Stands for the name of a model.
const MODEL: &str = "smollm2-135m-instruct";
/// Stands for the name of a model of vectors.
const VECTORS: &str = "nomic-embed-text";

/// The example of a path, where it has one.
pub(super) fn of(path: &str) -> Option<Value> {
    let messages = json!([{ "role": "user", "content": "Good morning!" }]);
    let example = match path {
        "/v1/chat/completions" => {
            json!({ "model": MODEL, "messages": messages, "max_tokens": 8, "temperature": 0 })
        }
        "/v1/completions" => json!({ "model": MODEL, "prompt": "Once upon", "max_tokens": 8 }),
        "/v1/embeddings" | "/api/embed" => {
            json!({ "model": VECTORS, "input": ["Good morning!", "Good night."] })
        }
        "/v1/responses" => {
            json!({ "model": MODEL, "input": "Good morning!", "max_output_tokens": 8 })
        }
        "/v1/messages" => json!({ "model": MODEL, "messages": messages, "max_tokens": 8 }),
        "/v1/messages/count_tokens" => json!({ "model": MODEL, "messages": messages }),
        "/api/chat" => json!({
            "model": MODEL,
            "messages": messages,
            "stream": false,
            "options": { "num_predict": 8 },
        }),
        "/api/generate" => json!({
            "model": MODEL,
            "prompt": "Once upon",
            "stream": false,
            "options": { "num_predict": 8 },
        }),
        "/api/embeddings" => json!({ "model": VECTORS, "prompt": "Good morning!" }),
        "/api/show" => json!({ "model": MODEL }),
        "/v2/models/{model}/infer" | "/v2/models/{model}/versions/{version}/infer" => json!({
            "inputs": [{ "name": "text_input", "datatype": "BYTES", "shape": [1],
                "data": ["Good morning!"] }],
            "parameters": { "max_tokens": 8 },
        }),
        "/v1/requests/{id}/labels" => json!({ "labels": [1] }),
        _ => return None,
    };
    Some(example)
}
