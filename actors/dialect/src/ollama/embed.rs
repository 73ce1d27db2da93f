//! Embeddings, both roles.
//!
//! Owns `POST /api/embed`.

use selvedge_base::Refusal;
use serde::Deserialize;

use crate::cannot;
use crate::chat::{Extension, Usage};
use crate::decode::{self, TextOr, invalid, required, whole};
use crate::embed::{EmbedInput, EmbedRequest, Embeddings};
use crate::exchange::{Dialect, Outgoing};
use crate::frame::Document;
use crate::json::{Json, Object};
use crate::number::Component;

const SELF: Dialect = Dialect::Ollama;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    model: Option<String>,
    input: Option<TextOr<String>>,
    truncate: Option<bool>,
    dimensions: Option<i64>,
    options: Option<Json>,
    keep_alive: Option<Json>,
}

#[derive(Deserialize)]
struct Answer {
    model: Option<String>,
    embeddings: Vec<Vec<Component>>,
    prompt_eval_count: Option<u64>,
}

/// The canonical request that a body of `POST /api/embed` means.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse_embed(bytes: &[u8]) -> Result<EmbedRequest, Refusal> {
    let body: Body = decode::body(bytes)?;
    let inputs = body.input.ok_or_else(|| required("input"))?.into_list();
    if inputs.is_empty() || inputs.iter().any(String::is_empty) {
        return Err(invalid("input", "'input' must be one or more texts, none empty"));
    }
    let own = [("options", body.options), ("keep_alive", body.keep_alive)];
    let own = own.into_iter().filter_map(|(name, value)| {
        let name = name.to_owned();
        value.map(|value| Extension { dialect: SELF, name, value })
    });
    Ok(EmbedRequest {
        model: decode::model(body.model)?,
        inputs: inputs.into_iter().map(EmbedInput::Text).collect(),
        dimensions: whole("dimensions", body.dimensions, 1..=i64::from(u32::MAX))?,
        truncate: body.truncate,
        extensions: own.collect(),
        ..EmbedRequest::default()
    })
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

/// Reads an answer with embeddings.
#[derive(Debug, Default)]
pub struct EmbedParser {
    document: Document,
    too_long: bool,
}

impl EmbedParser {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.too_long |= self.document.push(bytes).is_err();
    }

    /// The answer, once all bytes came; `inputs` is how many vectors there must be.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn finish(&mut self, inputs: usize) -> Result<Embeddings, &'static str> {
        if self.too_long {
            return Err("it is too long");
        }
        let answer = serde_json::from_slice::<Answer>(&self.document.take());
        let answer = answer.map_err(|_| "it holds no embeddings")?;
        if answer.embeddings.len() != inputs {
            return Err("it has not one vector for each input");
        }
        let count = answer.prompt_eval_count;
        let usage = count.map(|prompt_tokens| Usage { prompt_tokens, ..Usage::default() });
        let model = answer.model.unwrap_or_default();
        Ok(Embeddings { model, vectors: answer.embeddings, usage })
    }
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
