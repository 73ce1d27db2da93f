//! Client side: embeddings.
//!
//! Owns `POST /v2/embed`.

use selvedge_base::Refusal;
use serde::Deserialize;

use crate::cannot;
use crate::chat::Usage;
use crate::embed::{EmbedInput, EmbedRequest, Embeddings};
use crate::exchange::{Dialect, Outgoing};
use crate::frame::Document;
use crate::json::Object;
use crate::number::{Component, Number};

const SELF: Dialect = Dialect::Cohere;
/// What the vectors are for when the client does not say, which this dialect requires: comparing
/// any text with any other.
const PURPOSE: &str = "clustering";

/// What to send for embeddings.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render_embed(request: &EmbedRequest) -> Result<Outgoing, Refusal> {
    if let Some(other) = request.extensions.iter().find(|field| field.dialect != SELF) {
        return Err(cannot::say(SELF, &other.name));
    }
    if request.inputs.iter().any(|input| matches!(input, EmbedInput::Tokens(_))) {
        return Err(cannot::because(SELF, "input", "takes texts, not tokens"));
    }
    let mut body = Vec::with_capacity(256);
    Object::write(&mut body, |object| {
        object.field("model", &request.model);
        object.array("texts", |array| {
            for input in &request.inputs {
                if let EmbedInput::Text(text) = input {
                    array.item(text);
                }
            }
        });
        object.field("input_type", request.purpose.as_deref().unwrap_or(PURPOSE));
        object.field("embedding_types", &["float"]);
        object.maybe("output_dimension", request.dimensions.as_ref());
        if let Some(truncate) = request.truncate {
            object.field("truncate", if truncate { "END" } else { "NONE" });
        }
        request.extensions.iter().for_each(|own| object.raw(&own.name, own.value.text()));
    });
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path: "/v2/embed".to_owned(), headers, body })
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Typed,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Typed {
    float: Vec<Vec<Component>>,
}

#[derive(Deserialize)]
struct Meta {
    billed_units: Option<Billed>,
}

#[derive(Deserialize)]
struct Billed {
    input_tokens: Option<Number>,
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
        let Answer { embeddings, meta } = answer.map_err(|_| "it holds no embeddings")?;
        if embeddings.float.len() != inputs {
            return Err("it has not one vector for each input");
        }
        let billed = meta.and_then(|meta| meta.billed_units?.input_tokens?.whole());
        let usage = billed.map(|prompt_tokens| Usage { prompt_tokens, ..Usage::default() });
        Ok(Embeddings { vectors: embeddings.float, usage, ..Embeddings::default() })
    }
}
