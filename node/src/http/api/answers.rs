//! What answers look like where a dialect writes them without a type of its own.
//!
//! Owns these schemas: the fields that are always there, with their types; others may come. Says
//! nothing of the events of streams, which the APIs' own references define.

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::super::errors::Envelope;

/// Defines the errors of all surfaces.
pub(super) fn define_errors(generator: &mut SchemaGenerator) {
    generator.subschema_for::<Envelope<'static>>();
    let text = || json!({ "type": "string" });
    let own = [
        (
            "AnthropicError",
            with(&[
                ("type", json!({ "const": "error" })),
                ("error", with(&[("type", text()), ("message", text())])),
            ]),
        ),
        ("TextError", with(&[("error", text())])),
    ];
    for (name, schema) in own {
        generator.definitions_mut().insert(name.to_owned(), schema);
    }
}

/// An object that has these fields.
fn with(fields: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let fields: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": fields, "required": names })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn vector() -> Value {
    list(json!({ "type": "number" }))
}

/// An object of which no more is said.
pub(super) fn object() -> Value {
    json!({ "type": "object" })
}

/// A completion of OpenAI's, chat or text.
fn of_openai(kind: &str, said: (&str, Value)) -> Value {
    let choice =
        with(&[("index", count()), said, ("finish_reason", json!({ "type": ["string", "null"] }))]);
    with(&[
        ("id", text()),
        ("object", json!({ "const": kind })),
        ("created", count()),
        ("model", text()),
        ("choices", list(choice)),
    ])
}

pub(super) fn chat() -> Value {
    of_openai("chat.completion", ("message", with(&[("role", text())])))
}

pub(super) fn completion() -> Value {
    of_openai("text_completion", ("text", text()))
}

pub(super) fn embeddings() -> Value {
    let one = with(&[
        ("object", json!({ "const": "embedding" })),
        ("index", count()),
        ("embedding", json!({ "anyOf": [vector(), text()] })),
    ]);
    with(&[("object", json!({ "const": "list" })), ("data", list(one)), ("model", text())])
}

pub(super) fn response() -> Value {
    let kind = json!({ "const": "response" });
    with(&[("id", text()), ("object", kind), ("status", text()), ("output", list(object()))])
}

pub(super) fn message() -> Value {
    with(&[
        ("id", text()),
        ("type", json!({ "const": "message" })),
        ("role", json!({ "const": "assistant" })),
        ("model", text()),
        ("content", list(with(&[("type", text())]))),
        ("stop_reason", json!({ "type": ["string", "null"] })),
        ("usage", object()),
    ])
}

/// `POST /v1/messages/count_tokens`.
pub(super) fn count_tokens() -> Value {
    with(&[("input_tokens", count())])
}

/// An answer of Ollama's, whose text is in this field.
pub(super) fn ollama(said: &str) -> Value {
    let shape =
        if said == "message" { with(&[("role", text()), ("content", text())]) } else { text() };
    let done = json!({ "type": "boolean" });
    with(&[("model", text()), ("created_at", text()), (said, shape), ("done", done)])
}

pub(super) fn transcript() -> Value {
    with(&[("text", text()), ("usage", object())])
}

pub(super) fn ollama_embed() -> Value {
    with(&[("model", text()), ("embeddings", list(vector())), ("prompt_eval_count", count())])
}

pub(super) fn ollama_embeddings() -> Value {
    with(&[("embedding", vector())])
}

pub(super) fn tags() -> Value {
    let model = with(&[
        ("name", text()),
        ("model", text()),
        ("modified_at", text()),
        ("size", count()),
        ("digest", text()),
        ("details", object()),
    ]);
    with(&[("models", list(model))])
}

pub(super) fn show() -> Value {
    with(&[
        ("modified_at", text()),
        ("details", object()),
        ("model_info", object()),
        ("capabilities", list(text())),
    ])
}

pub(super) fn version() -> Value {
    with(&[("version", text())])
}

pub(super) fn health() -> Value {
    with(&[("status", json!({ "enum": ["ok", "stopping"] }))])
}

/// `GET /v2`.
pub(super) fn server() -> Value {
    with(&[("name", text()), ("version", text()), ("extensions", list(text()))])
}

/// A question that is answered with yes or no, under this name.
pub(super) fn yes(name: &str) -> Value {
    with(&[(name, json!({ "type": "boolean" }))])
}

fn tensor() -> Value {
    let shape = list(json!({ "type": "integer" }));
    with(&[("name", text()), ("datatype", text()), ("shape", shape)])
}

pub(super) fn metadata() -> Value {
    with(&[
        ("name", text()),
        ("versions", list(text())),
        ("platform", text()),
        ("inputs", list(tensor())),
        ("outputs", list(tensor())),
    ])
}

pub(super) fn inference() -> Value {
    with(&[("model_name", text()), ("model_version", text()), ("outputs", list(tensor()))])
}
