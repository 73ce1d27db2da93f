//! What models there are: tags and show.
//!
//! Owns their shapes: both roles of tags, the server side of show.

use schemars::JsonSchema;
use selvedge_base::Refusal;
use serde::Deserialize;

use super::write::timestamp;
use crate::decode::{self, required};
use crate::exchange::Outgoing;
use crate::json::{Json, Object};

/// A model, as far as this dialect tells about one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// The name clients use.
    pub name: String,
    /// When it changed, in seconds since the Unix epoch.
    pub modified: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Its digest in hexadecimal.
    pub digest: String,
    /// Its architecture.
    pub family: String,
    /// How large it is, such as `8.0B`.
    pub parameter_size: String,
    /// How its weights are stored, such as `Q4_K_M`.
    pub quantization: String,
    /// Tokens it can attend to.
    pub context_length: u32,
    /// What it can do (`completion`, `tools`, `vision`, `embedding`, `thinking`).
    pub capabilities: Vec<&'static str>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Show {
    model: Option<String>,
    name: Option<String>,
    #[serde(rename = "verbose")]
    _verbose: Option<bool>,
    #[serde(rename = "system")]
    _system: Option<Json>,
    #[serde(rename = "template")]
    _template: Option<Json>,
    #[serde(rename = "options")]
    _options: Option<Json>,
}

#[derive(Deserialize)]
struct Tags {
    models: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
}

fn details(object: &mut Object<'_>, card: &Card) {
    object.object("details", |object| {
        object.field("parent_model", "");
        object.field("format", "gguf");
        object.field("family", &card.family);
        object.field("families", &[&card.family]);
        object.field("parameter_size", &card.parameter_size);
        object.field("quantization_level", &card.quantization);
    });
}

/// The answer to `GET /api/tags`.
pub fn tags_body(cards: &[Card]) -> Vec<u8> {
    let mut out = Vec::new();
    Object::write(&mut out, |object| {
        object.array("models", |array| {
            for card in cards {
                array.object(|object| {
                    object.field("name", &card.name);
                    object.field("model", &card.name);
                    object.field("modified_at", &timestamp(card.modified));
                    object.field("size", &card.bytes);
                    object.field("digest", &card.digest);
                    details(object, card);
                });
            }
        });
    });
    out
}

/// What a body of `POST /api/show` may hold, as JSON Schema.
pub fn show_schema() -> serde_json::Value {
    crate::schema::of::<Show>()
}

/// The model that a body of `POST /api/show` asks about.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse_show(bytes: &[u8]) -> Result<String, Refusal> {
    let body: Show = decode::body(bytes)?;
    body.model.or(body.name).filter(|name| !name.is_empty()).ok_or_else(|| required("model"))
}

/// The answer to `POST /api/show`.
pub fn show_body(card: &Card) -> Vec<u8> {
    let mut out = Vec::new();
    Object::write(&mut out, |object| {
        object.field("modelfile", "");
        object.field("parameters", "");
        object.field("template", "");
        object.field("modified_at", &timestamp(card.modified));
        details(object, card);
        object.object("model_info", |object| {
            object.field("general.architecture", &card.family);
            let name = format!("{}.context_length", card.family);
            object.field(&name, &card.context_length);
        });
        object.field("capabilities", &card.capabilities);
    });
    out
}

/// What to send to learn which models a server has.
pub fn tags() -> Outgoing {
    let path = "/api/tags".to_owned();
    Outgoing { method: "GET", path, headers: Vec::new(), body: Vec::new() }
}

/// The names in a server's answer to [`tags`].
///
/// # Errors
/// When it is no such answer.
pub fn read_tags(bytes: &[u8]) -> Result<Vec<String>, Refusal> {
    let tags: Tags = decode::body(bytes)?;
    Ok(tags.models.into_iter().map(|tag| tag.name).collect())
}
