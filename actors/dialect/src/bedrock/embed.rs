//! Client side: embeddings.
//!
//! Owns InvokeModel for the two families of models of embeddings, whose bodies are their makers'
//! own: Amazon's Titan and Cohere's. Source: the Amazon Bedrock user guide, "Inference request
//! parameters". A region may stand in front of a model's name.

use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use serde::Deserialize;

use crate::cannot;
use crate::chat::Usage;
use crate::cohere;
use crate::embed::{EmbedRequest, Embeddings};
use crate::exchange::{Dialect, Outgoing, encode};
use crate::json::Object;
use crate::number::Component;

const SELF: Dialect = Dialect::Bedrock;

#[derive(Clone, Copy)]
enum Family {
    Titan,
    Cohere,
}

fn family(model: &str) -> Option<Family> {
    if model.contains("amazon.titan-embed-text") {
        Some(Family::Titan)
    } else if model.contains("cohere.embed") {
        Some(Family::Cohere)
    } else {
        None
    }
}

/// Inputs of one request: Titan takes one text.
pub fn embed_inputs(model: &str) -> usize {
    match family(model) {
        Some(Family::Cohere) => cohere::EMBED_INPUTS,
        Some(Family::Titan) | None => 1,
    }
}

/// What to send for embeddings.
///
/// # Errors
/// A refusal that names the field which the target cannot be told, or the model when it is of
/// neither family.
pub fn render_embed(request: &EmbedRequest) -> Result<Outgoing, Refusal> {
    if let Some(other) = request.extensions.iter().find(|field| field.dialect != SELF) {
        return Err(cannot::say(SELF, &other.name));
    }
    let Some(texts) = request.texts() else {
        return Err(cannot::because(SELF, "input", "takes texts, not tokens"));
    };
    let mut body = Vec::with_capacity(256);
    match (family(&request.model), texts.as_slice()) {
        (Some(Family::Titan), [text]) => {
            let truncate = request.truncate == Some(true);
            let wanted = [("input_type", request.purpose.is_some()), ("truncate", truncate)];
            cannot::any(SELF, &wanted)?;
            Object::write(&mut body, |object| {
                object.field("inputText", text);
                object.maybe("dimensions", request.dimensions.as_ref());
            });
        }
        (Some(Family::Titan), _) => {
            return Err(cannot::because(SELF, "input", "takes one text at a time for this model"));
        }
        (Some(Family::Cohere), texts) => {
            Object::write(&mut body, |object| cohere::embed_fields(object, request, texts));
        }
        (None, _) => return Err(unknown(&request.model)),
    }
    let path = format!("/model/{}/invoke", encode(&request.model));
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("accept", "application/json".to_owned()),
    ];
    Ok(Outgoing { method: "POST", path, headers, body })
}

fn unknown(model: &str) -> Refusal {
    let message = format!(
        "the embeddings of model '{model}' cannot be asked for at Bedrock: names with \
         'amazon.titan-embed-text' or 'cohere.embed' can"
    );
    let (stage, blame) = (Stage::Validate, Blame::Client);
    Refusal::new(stage, blame, Retry::Elsewhere, Code::Unsupported, message).param("model")
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    #[serde(rename_all = "camelCase")]
    Titan {
        embedding: Vec<Component>,
        input_text_token_count: Option<u64>,
    },
    Cohere {
        embeddings: Vectors,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vectors {
    Plain(Vec<Vec<Component>>),
    Typed { float: Vec<Vec<Component>> },
}

/// Reads a whole answer with embeddings; see [`crate::embed::EmbedParser`]. Cohere's models tell no
/// usage here.
///
/// # Errors
/// What is wrong with it.
pub fn read_embed(bytes: &[u8]) -> Result<Embeddings, &'static str> {
    match serde_json::from_slice::<Answer>(bytes) {
        Ok(Answer::Titan { embedding, input_text_token_count: count }) => {
            let usage = count.map(|prompt_tokens| Usage { prompt_tokens, ..Usage::default() });
            Ok(Embeddings { vectors: vec![embedding], usage, ..Embeddings::default() })
        }
        Ok(Answer::Cohere {
            embeddings: Vectors::Plain(vectors) | Vectors::Typed { float: vectors },
        }) => Ok(Embeddings { vectors, ..Embeddings::default() }),
        Err(_) => Err("it holds no embeddings"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::embed::{EmbedInput, EmbedParser};

    fn asked(model: &str, inputs: &[&str]) -> EmbedRequest {
        EmbedRequest {
            model: model.to_owned(),
            inputs: inputs.iter().map(|text| EmbedInput::Text((*text).to_owned())).collect(),
            dimensions: Some(256),
            ..EmbedRequest::default()
        }
    }

    #[test]
    fn each_family_is_asked_in_its_makers_words() {
        let sent = render_embed(&asked("amazon.titan-embed-text-v2:0", &["hi"])).expect("said");
        assert_eq!(sent.path, "/model/amazon.titan-embed-text-v2%3A0/invoke");
        let body: Value = serde_json::from_slice(&sent.body).expect("JSON");
        assert_eq!(body, json!({"inputText": "hi", "dimensions": 256}));
        let sent = render_embed(&asked("eu.cohere.embed-v4:0", &["a", "b"])).expect("said");
        let body: Value = serde_json::from_slice(&sent.body).expect("JSON");
        let wanted = json!({"texts": ["a", "b"], "input_type": "clustering",
            "embedding_types": ["float"], "output_dimension": 256});
        assert_eq!(body, wanted);
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_name() {
        let table = [
            (asked("meta.llama3", &["a"]), "model"),
            (asked("amazon.titan-embed-text-v2:0", &["a", "b"]), "input"),
            (
                EmbedRequest {
                    inputs: vec![EmbedInput::Tokens(vec![1])],
                    ..asked("cohere.embed-english-v3", &[])
                },
                "input",
            ),
            (
                EmbedRequest {
                    truncate: Some(true),
                    ..asked("amazon.titan-embed-text-v2:0", &["a"])
                },
                "truncate",
            ),
        ];
        for (request, param) in table {
            let refusal = render_embed(&request).expect_err("must be refused");
            assert_eq!(refusal.param.as_deref(), Some(param), "{refusal}");
        }
    }

    #[test]
    fn the_answers_of_both_families_are_read() {
        let read = |answer: Value, inputs| {
            let mut parser = EmbedParser::new(read_embed);
            parser.push(answer.to_string().as_bytes());
            parser.finish(inputs)
        };
        let one = read(json!({"embedding": [0.5, 1], "inputTextTokenCount": 3}), 1).expect("read");
        assert_eq!(one.vectors, [[0.5, 1.0]]);
        assert_eq!(one.usage.expect("told").prompt_tokens, 3);
        for vectors in [json!([[1], [2]]), json!({"float": [[1], [2]]})] {
            let both = read(json!({"embeddings": vectors, "id": "x"}), 2).expect("read");
            assert_eq!(both.vectors, [[1.0], [2.0]]);
            assert_eq!(both.usage, None);
        }
        assert!(read(json!({"message": "no"}), 1).is_err());
    }
}
