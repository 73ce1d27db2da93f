//! Embeddings, both roles.
//!
//! Owns `POST /v1/embeddings`. Source: the OpenAI API reference, "Embeddings". Vectors are read as
//! numbers and as base64, whichever comes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use selvedge_base::Refusal;
use serde::Deserialize;

use super::render::Target;
use super::usage::UsageField;
use crate::cannot;
use crate::decode::{self, List, TextOr, invalid, required, whole};
use crate::embed::{EmbedInput, EmbedRequest, Embeddings, Encoding, checked};
use crate::exchange::{Dialect, Outgoing};
use crate::json::Object;
use crate::number::Component;

const SELF: Dialect = Dialect::OpenAi;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Body {
    #[schemars(required)]
    model: Option<String>,
    #[schemars(required)]
    input: Option<TextOr<Element>>,
    dimensions: Option<i64>,
    encoding_format: Option<String>,
    user: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Element {
    Token(u32),
    Text(String),
    Tokens(List<u32>),
}

/// What a body of `POST /v1/embeddings` may hold, as JSON Schema.
pub fn embed_schema() -> serde_json::Value {
    crate::schema::of::<Body>()
}

/// The canonical request that a body of `POST /v1/embeddings` means.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse_embed(bytes: &[u8]) -> Result<EmbedRequest, Refusal> {
    let body: Body = decode::body(bytes)?;
    let encoding = match body.encoding_format.as_deref() {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(_) => {
            let message = "'encoding_format' must be float or base64";
            return Err(invalid("encoding_format", message));
        }
    };
    Ok(EmbedRequest {
        model: decode::model(body.model)?,
        inputs: inputs(body.input.ok_or_else(|| required("input"))?)?,
        dimensions: whole("dimensions", body.dimensions, 1..=i64::from(u32::MAX))?,
        encoding,
        user: body.user,
        ..EmbedRequest::default()
    })
}

fn inputs(field: TextOr<Element>) -> Result<Vec<EmbedInput>, Refusal> {
    let elements = match field {
        TextOr::Text(text) => vec![Element::Text(text)],
        TextOr::List(elements) => elements,
    };
    let (mut inputs, mut tokens) = (Vec::new(), Vec::new());
    for element in elements {
        match element {
            Element::Token(token) => tokens.push(token),
            Element::Text(text) => inputs.push(EmbedInput::Text(text)),
            Element::Tokens(List(list)) => inputs.push(EmbedInput::Tokens(list)),
        }
    }
    if !tokens.is_empty() && !inputs.is_empty() {
        return Err(invalid("input", "'input' mixes tokens with texts or token arrays"));
    }
    if !tokens.is_empty() {
        inputs.push(EmbedInput::Tokens(tokens));
    }
    checked("input", inputs)
}

/// What to send for embeddings.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render_embed(request: &EmbedRequest, target: Target<'_>) -> Result<Outgoing, Refusal> {
    cannot::any(
        SELF,
        // What is too long is refused there, never cut.
        &[("input_type", request.purpose.is_some()), ("truncate", request.truncate == Some(true))],
    )?;
    if let Some(other) = request.extensions.iter().find(|field| field.dialect != SELF) {
        return Err(cannot::say(SELF, &other.name));
    }
    let mut body = Vec::with_capacity(256);
    Object::write(&mut body, |object| {
        object.field("model", &request.model);
        match request.inputs.as_slice() {
            [EmbedInput::Text(text)] => object.field("input", text),
            inputs => object.array("input", |array| {
                for input in inputs {
                    match input {
                        EmbedInput::Text(text) => array.item(text),
                        EmbedInput::Tokens(tokens) => array.item(tokens),
                    }
                }
            }),
        }
        object.maybe("dimensions", request.dimensions.as_ref());
        // A third of the bytes, and exact; compatible servers may not know it.
        let base64 = target != Target::Compatible || request.encoding == Encoding::Base64;
        object.field("encoding_format", if base64 { "base64" } else { "float" });
        object.maybe("user", request.user.as_ref());
    });
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path: target.path("embeddings"), headers, body })
}

#[derive(Deserialize)]
struct Answer {
    model: Option<String>,
    data: Vec<Datum>,
    usage: Option<UsageField>,
}

#[derive(Deserialize)]
struct Datum {
    index: Option<usize>,
    embedding: Vector,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<Component>),
    Base64(String),
}

/// Reads a whole answer with embeddings; see [`crate::embed::EmbedParser`].
///
/// # Errors
/// What is wrong with it.
pub fn read_embed(bytes: &[u8]) -> Result<Embeddings, &'static str> {
    let answer = serde_json::from_slice::<Answer>(bytes);
    let Answer { model, data, usage } = answer.map_err(|_| "it holds no embeddings")?;
    let mut vectors: Vec<Option<Vec<Component>>> = Vec::new();
    vectors.resize_with(data.len(), || None);
    for (at, datum) in data.into_iter().enumerate() {
        let place =
            vectors.get_mut(datum.index.unwrap_or(at)).ok_or("a vector has no place among them")?;
        *place = Some(match datum.embedding {
            Vector::Float(vector) => vector,
            Vector::Base64(text) => components(&text).ok_or("a vector is no base64")?,
        });
    }
    let vectors: Option<Vec<_>> = vectors.into_iter().collect();
    let vectors = vectors.ok_or("two vectors have one place")?;
    let model = model.unwrap_or_default();
    Ok(Embeddings { model, vectors, usage: usage.map(Into::into) })
}

/// Little-endian 32-bit floats in base64.
fn components(text: &str) -> Option<Vec<Component>> {
    let bytes = STANDARD.decode(text).ok()?;
    let chunks = bytes.chunks_exact(size_of::<Component>());
    let whole = chunks.remainder().is_empty();
    let read = |chunk: &[u8]| chunk.try_into().map(Component::from_le_bytes).ok();
    if whole { chunks.map(read).collect() } else { None }
}

/// The body of an answer, vectors as the client asked for them.
pub fn embed_body(answer: &Embeddings, encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::new();
    Object::write(&mut out, |object| {
        object.field("object", "list");
        object.array("data", |array| {
            for (index, vector) in answer.vectors.iter().enumerate() {
                array.object(|object| {
                    object.field("object", "embedding");
                    object.field("index", &index);
                    match encoding {
                        Encoding::Float => object.field("embedding", vector),
                        Encoding::Base64 => {
                            let bytes = vector.iter().flat_map(|part| part.to_le_bytes());
                            let text = STANDARD.encode(bytes.collect::<Vec<u8>>());
                            object.field("embedding", &text);
                        }
                    }
                });
            }
        });
        object.field("model", &answer.model);
        let prompt = answer.usage.unwrap_or_default().prompt_tokens;
        object.object("usage", |object| {
            object.field("prompt_tokens", &prompt);
            object.field("total_tokens", &prompt);
        });
    });
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::chat::Usage;
    use crate::embed::EmbedParser;

    fn asked(more: Value) -> Result<EmbedRequest, Refusal> {
        let mut body = json!({"model": "m", "input": "hi"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parse_embed(body.to_string().as_bytes())
    }

    #[test]
    fn requests_come_back_as_they_were() {
        for input in [json!("a"), json!(["a", "b"]), json!([[1, 2], [3]]), json!([1, 2])] {
            let more = json!({"input": input, "dimensions": 8, "encoding_format": "base64",
                "user": "u"});
            let request = asked(more).expect("understood");
            let sent = render_embed(&request, Target::OpenAi).expect("said");
            assert_eq!(sent.path, "/v1/embeddings");
            assert_eq!(parse_embed(&sent.body).expect("understood"), request);
        }
    }

    #[test]
    fn wrong_fields_are_refused_by_name() {
        for (more, param) in [
            (json!({"input": null}), "input"),
            (json!({"input": [""]}), "input"),
            (json!({"input": []}), "input"),
            (json!({"input": [1, "a"]}), "input"),
            (json!({"encoding_format": "hex"}), "encoding_format"),
            (json!({"dimensions": 0}), "dimensions"),
            (json!({"colour": 1}), "colour"),
        ] {
            let refusal = asked(more.clone()).expect_err("must be refused");
            assert_eq!(refusal.param.as_deref(), Some(param), "{more} {refusal}");
        }
    }

    #[test]
    fn vectors_are_the_same_as_numbers_and_as_base64() {
        let usage = Some(Usage { prompt_tokens: 8, ..Usage::default() });
        let vectors = vec![vec![0.25, -1.5, 3.0e-9], vec![1.0]];
        let answer = Embeddings { model: "m".into(), vectors, usage };
        for encoding in [Encoding::Float, Encoding::Base64] {
            let mut parser = EmbedParser::new(read_embed);
            embed_body(&answer, encoding).chunks(5).for_each(|piece| parser.push(piece));
            assert_eq!(parser.finish(2), Ok(answer.clone()));
        }
        let mut parser = EmbedParser::new(read_embed);
        parser.push(&embed_body(&answer, Encoding::Float));
        assert_eq!(parser.finish(3), Err("it has not one vector for each input"));
    }

    #[test]
    fn what_is_no_vector_is_no_answer() {
        for (data, wrong) in [
            (json!([{"embedding": []}]), "a vector is empty or holds what is no number"),
            (json!([{"embedding": [1e99]}]), "a vector is empty or holds what is no number"),
            (json!([{"embedding": "AADAfw=="}]), "a vector is empty or holds what is no number"),
            (json!([{"embedding": "AAA="}]), "a vector is no base64"),
            (json!([{"index": 1, "embedding": [1]}]), "a vector has no place among them"),
            (json!({}), "it holds no embeddings"),
        ] {
            let mut parser = EmbedParser::new(read_embed);
            parser.push(json!({ "data": data }).to_string().as_bytes());
            assert_eq!(parser.finish(1), Err(wrong), "{data}");
        }
    }
}
