//! Client side: embeddings.
//!
//! Owns `batchEmbedContents`. This dialect tells no usage for them.

use selvedge_base::Refusal;
use serde::Deserialize;

use crate::cannot;
use crate::embed::{EmbedInput, EmbedRequest, Embeddings};
use crate::exchange::{Dialect, Outgoing, encode};
use crate::frame::Document;
use crate::json::Object;
use crate::number::Component;

const SELF: Dialect = Dialect::Gemini;

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
    cannot::any(SELF, &[("truncate", request.truncate == Some(false))])?;
    let model = request.model.trim_start_matches("models/");
    let mut body = Vec::with_capacity(256);
    Object::write(&mut body, |object| {
        object.array("requests", |array| {
            for input in &request.inputs {
                let EmbedInput::Text(text) = input else { continue };
                array.object(|object| {
                    object.field("model", &format!("models/{model}"));
                    object.object("content", |object| {
                        object.array("parts", |array| {
                            array.object(|object| object.field("text", text));
                        });
                    });
                    object.maybe("taskType", request.purpose.as_ref());
                    object.maybe("outputDimensionality", request.dimensions.as_ref());
                });
            }
        });
    });
    let path = format!("/v1beta/models/{}:batchEmbedContents", encode(model));
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path, headers, body })
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    values: Vec<Component>,
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
        let vectors = answer.embeddings.into_iter().map(|vector| vector.values).collect();
        Ok(Embeddings { vectors, ..Embeddings::default() })
    }
}
