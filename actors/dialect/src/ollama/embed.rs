//! Embeddings, both roles.
//!
//! Owns `POST /api/embed` and, as a server, the older `POST /api/embeddings`: one text, one vector.

use schemars::JsonSchema;
use selvedge_base::Refusal;
use serde::Deserialize;

use crate::cannot;
use crate::chat::{Extension, Usage};
use crate::decode::{self, TextOr, required, whole};
use crate::embed::{EmbedInput, EmbedRequest, Embeddings, checked};
use crate::exchange::{Dialect, Outgoing};
use crate::json::{Json, Object};
use crate::number::Component;

const SELF: Dialect = Dialect::Ollama;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Body {
    #[schemars(required)]
    model: Option<String>,
    #[schemars(required)]
    input: Option<TextOr<String>>,
    truncate: Option<bool>,
    dimensions: Option<i64>,
    options: Option<Json>,
    keep_alive: Option<Json>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OlderBody {
    #[schemars(required)]
    model: Option<String>,
    #[schemars(required)]
    prompt: Option<String>,
    options: Option<Json>,
    keep_alive: Option<Json>,
}

#[derive(Deserialize)]
struct Answer {
    model: Option<String>,
    embeddings: Vec<Vec<Component>>,
    prompt_eval_count: Option<u64>,
}

/// What a body of `POST /api/embed` may hold, as JSON Schema.
pub fn embed_schema() -> serde_json::Value {
    crate::schema::of::<Body>()
}

/// What a body of `POST /api/embeddings` may hold, as JSON Schema.
pub fn embeddings_schema() -> serde_json::Value {
    crate::schema::of::<OlderBody>()
}

/// The canonical request that a body of `POST /api/embed` means.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse_embed(bytes: &[u8]) -> Result<EmbedRequest, Refusal> {
    let body: Body = decode::body(bytes)?;
    let inputs = body.input.ok_or_else(|| required("input"))?.into_list();
    Ok(EmbedRequest {
        model: decode::model(body.model)?,
        inputs: checked("input", inputs.into_iter().map(EmbedInput::Text).collect())?,
        dimensions: whole("dimensions", body.dimensions, 1..=i64::from(u32::MAX))?,
        truncate: body.truncate,
        extensions: own(body.options, body.keep_alive),
        ..EmbedRequest::default()
    })
}

/// The canonical request that a body of `POST /api/embeddings` means.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse_embeddings(bytes: &[u8]) -> Result<EmbedRequest, Refusal> {
    let body: OlderBody = decode::body(bytes)?;
    let prompt = body.prompt.ok_or_else(|| required("prompt"))?;
    Ok(EmbedRequest {
        model: decode::model(body.model)?,
        inputs: checked("prompt", vec![EmbedInput::Text(prompt)])?,
        extensions: own(body.options, body.keep_alive),
        ..EmbedRequest::default()
    })
}

/// Fields that only this dialect has.
fn own(options: Option<Json>, keep_alive: Option<Json>) -> Vec<Extension> {
    let own = [("options", options), ("keep_alive", keep_alive)].into_iter();
    own.filter_map(|(name, value)| {
        let name = name.to_owned();
        value.map(|value| Extension { dialect: SELF, name, value })
    })
    .collect()
}

/// What to send for embeddings.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render_embed(request: &EmbedRequest) -> Result<Outgoing, Refusal> {
    if let Some(other) = request.extensions.iter().find(|field| field.dialect != SELF) {
        return Err(cannot::say(SELF, &other.name));
    }
    let tokens = request.inputs.iter().any(|input| matches!(input, EmbedInput::Tokens(_)));
    if tokens {
        return Err(cannot::because(SELF, "input", "takes texts, not tokens"));
    }
    cannot::any(SELF, &[("input_type", request.purpose.is_some())])?;
    let mut body = Vec::with_capacity(256);
    Object::write(&mut body, |object| {
        object.field("model", &request.model);
        object.array("input", |array| {
            for input in &request.inputs {
                if let EmbedInput::Text(text) = input {
                    array.item(text);
                }
            }
        });
        object.maybe("truncate", request.truncate.as_ref());
        object.maybe("dimensions", request.dimensions.as_ref());
        request.extensions.iter().for_each(|own| object.raw(&own.name, own.value.text()));
    });
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path: "/api/embed".to_owned(), headers, body })
}

/// Reads a whole answer with embeddings; see [`crate::embed::EmbedParser`].
///
/// # Errors
/// What is wrong with it.
pub fn read_embed(bytes: &[u8]) -> Result<Embeddings, &'static str> {
    let answer = serde_json::from_slice::<Answer>(bytes);
    let answer = answer.map_err(|_| "it holds no embeddings")?;
    let count = answer.prompt_eval_count;
    let usage = count.map(|prompt_tokens| Usage { prompt_tokens, ..Usage::default() });
    let model = answer.model.unwrap_or_default();
    Ok(Embeddings { model, vectors: answer.embeddings, usage })
}

/// The body of an answer.
pub fn embed_body(answer: &Embeddings) -> Vec<u8> {
    let mut out = Vec::new();
    Object::write(&mut out, |object| {
        object.field("model", &answer.model);
        object.field("embeddings", &answer.vectors);
        object.field("prompt_eval_count", &answer.usage.unwrap_or_default().prompt_tokens);
    });
    out
}

/// The body of an answer to `POST /api/embeddings`.
pub fn embeddings_body(answer: &Embeddings) -> Vec<u8> {
    let mut out = Vec::new();
    let first: &[Component] = answer.vectors.first().map_or(&[], Vec::as_slice);
    Object::write(&mut out, |object| object.field("embedding", first));
    out
}
