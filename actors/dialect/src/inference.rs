//! The Open Inference Protocol (version 2 of KServe's), as a server.
//!
//! Owns what an inference means here, whichever encoding it comes in: texts in, one tensor of texts
//! or of vectors out. Source: the protocol's REST and gRPC specifications and its binary tensor
//! extension. Encodings are `rest` and `grpc`. Such a model has one version. Models that were
//! learned take and give other tensors: `rows`; so do those that are asked in their own terms:
//! `tensors`.

mod body;
pub mod grpc;
mod rest;
pub mod rows;
pub mod tensors;
#[cfg(test)]
#[path = "inference/tests.rs"]
mod tests;

use schemars::JsonSchema;
use selvedge_base::{Micros, Refusal};
use serde::Deserialize;

pub use rest::{
    Written, error_body, infer_body, infer_schema, live_body, metadata_body, parse, server_body,
};

use crate::chat::{ChatRequest, Message, Role, Sampling};
use crate::decode::{self, TextOr, invalid, unsupported};
use crate::embed::{EmbedInput, EmbedRequest, checked};
use crate::number::{Component, Number};

/// The name of the one input.
pub const INPUT: &str = "text_input";
/// The only version of every model.
pub const VERSION: &str = "1";
/// The server's name.
pub const SERVER: &str = "selvedge";
/// Extensions of the protocol that are spoken.
pub const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];
/// What kind of thing a model is, as the protocol asks.
pub const PLATFORM: &str = "selvedge_text";
/// Bytes of a request's own name, which is only repeated: several times a UUID.
const ID_BYTES: usize = 256;
/// Texts that end an answer, as the OpenAI API allows.
const STOPS: usize = 4;

/// What a model makes of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Makes {
    /// Texts.
    Text,
    /// Vectors, of so many components as far as is known.
    Embeddings(Option<u32>),
    /// One of both, and nothing tells which.
    Unknown,
}

/// A tensor that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// One text.
    Text,
    /// A vector for each input.
    Embedding,
}

impl Output {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text_output",
            Self::Embedding => "embedding",
        }
    }

    /// The type of its elements.
    pub const fn datatype(self) -> &'static str {
        match self {
            Self::Text => "BYTES",
            Self::Embedding => "FP32",
        }
    }
}

/// An inference, understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Infer {
    /// What the caller calls it; may be empty.
    pub id: String,
    /// The input's elements.
    pub texts: Vec<String>,
    /// The output wanted; `None`: what the model makes.
    pub output: Option<Output>,
    /// Whether the answer is to be binary, in the encoding that has a choice.
    pub binary: bool,
    /// How to answer.
    pub settings: Settings,
}

/// Parameters of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Tokens of a text at most.
    pub max_tokens: Option<u32>,
    /// How tokens are drawn.
    pub temperature: Option<Number>,
    /// The same.
    pub top_p: Option<Number>,
    /// The same.
    pub seed: Option<i64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Components of a vector.
    pub dimensions: Option<u32>,
    /// How long the caller waits.
    pub timeout: Option<Micros>,
}

/// Parameters as they are written in both encodings.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    binary_data_output: Option<bool>,
    max_tokens: Option<i64>,
    temperature: Option<Number>,
    top_p: Option<Number>,
    seed: Option<i64>,
    stop: Option<TextOr<String>>,
    dimensions: Option<i64>,
    timeout: Option<i64>,
}

impl Fields {
    fn settings(self) -> Result<Settings, Refusal> {
        let stop = self.stop.map(TextOr::into_list).unwrap_or_default();
        if stop.len() > STOPS || stop.iter().any(String::is_empty) {
            let message = format!("'parameters.stop' must be up to {STOPS} texts, none empty");
            return Err(invalid("parameters.stop", message));
        }
        let most = i64::from(u32::MAX);
        let timeout = decode::whole("parameters.timeout", self.timeout, 1..=most)?;
        Ok(Settings {
            max_tokens: decode::whole("parameters.max_tokens", self.max_tokens, 1..=most)?,
            temperature: decode::number("parameters.temperature", self.temperature, 0..=2)?,
            top_p: decode::number("parameters.top_p", self.top_p, 0..=1)?,
            seed: self.seed,
            stop,
            dimensions: decode::whole("parameters.dimensions", self.dimensions, 1..=most)?,
            timeout: timeout.map(|micros| Micros(u64::from(micros))),
        })
    }
}

impl Infer {
    /// What is wanted of a model that makes this.
    ///
    /// # Errors
    /// When the model does not make what was asked for.
    pub fn wanted(&self, makes: Makes) -> Result<Output, Refusal> {
        match (self.output, makes) {
            (None | Some(Output::Text), Makes::Text | Makes::Unknown) => Ok(Output::Text),
            (None | Some(Output::Embedding), Makes::Embeddings(_))
            | (Some(Output::Embedding), Makes::Unknown) => Ok(Output::Embedding),
            (Some(other), Makes::Text | Makes::Embeddings(_)) => {
                let message = format!("the model has no output '{}'", other.as_str());
                Err(unsupported("outputs", message))
            }
        }
    }

    /// The request for embeddings it means.
    ///
    /// # Errors
    /// A refusal that names what does not fit.
    pub fn embeddings(&self, model: &str) -> Result<EmbedRequest, Refusal> {
        self.settings.refuse_of_text("is for models that generate text")?;
        Ok(EmbedRequest {
            model: model.to_owned(),
            inputs: checked(INPUT, self.texts.iter().cloned().map(EmbedInput::Text).collect())?,
            dimensions: self.settings.dimensions,
            ..EmbedRequest::default()
        })
    }

    /// The chat it means: one text of a user.
    ///
    /// # Errors
    /// A refusal that names what does not fit.
    pub fn chat(&self, model: &str) -> Result<ChatRequest, Refusal> {
        refuse(&[("dimensions", self.settings.dimensions.is_some())], "is for embeddings")?;
        let [text] = self.texts.as_slice() else {
            let message = format!(
                "'{INPUT}' must hold one text where text is generated, not {}",
                self.texts.len()
            );
            return Err(invalid(INPUT, message));
        };
        let Settings { max_tokens, temperature, top_p, seed, stop, .. } = self.settings.clone();
        Ok(ChatRequest {
            model: model.to_owned(),
            messages: vec![Message::text(Role::User, text)],
            sampling: Sampling { temperature, top_p, seed, ..Sampling::default() },
            max_tokens,
            stop,
            ..ChatRequest::default()
        })
    }
}

impl Settings {
    /// Refuses what only means something where text is generated.
    fn refuse_of_text(&self, why: &str) -> Result<(), Refusal> {
        let of_text = [
            ("max_tokens", self.max_tokens.is_some()),
            ("temperature", self.temperature.is_some()),
            ("top_p", self.top_p.is_some()),
            ("seed", self.seed.is_some()),
            ("stop", !self.stop.is_empty()),
        ];
        refuse(&of_text, why)
    }

    /// Refuses all but how long the caller waits.
    fn refuse_all(&self, why: &str) -> Result<(), Refusal> {
        self.refuse_of_text(why)?;
        refuse(&[("dimensions", self.dimensions.is_some())], why)
    }
}

fn refuse(present: &[(&str, bool)], why: &str) -> Result<(), Refusal> {
    match present.iter().find(|(_, present)| *present) {
        Some((name, _)) => {
            let field = format!("parameters.{name}");
            Err(unsupported(&field, format!("'{field}' {why}")))
        }
        None => Ok(()),
    }
}

/// What an input or output tensor is called and how it is typed; one text is wanted as UTF-8.
fn check_input(name: &str, datatype: &str) -> Result<(), Refusal> {
    if name != INPUT {
        let message = format!("there is no input '{}'; '{INPUT}' is the one there is", cut(name));
        return Err(invalid("inputs", message));
    }
    if datatype != "BYTES" {
        let message = format!("input '{INPUT}' is of datatype BYTES, not '{}'", cut(datatype));
        return Err(invalid("inputs", message));
    }
    Ok(())
}

fn output(name: &str) -> Result<Output, Refusal> {
    match name {
        "text_output" => Ok(Output::Text),
        "embedding" => Ok(Output::Embedding),
        other => {
            let message =
                format!("there is no output '{}': text_output and embedding are", cut(other));
            Err(invalid("outputs", message))
        }
    }
}

/// The one output asked for, if any.
fn one_output(wanted: &[Output]) -> Result<Option<Output>, Refusal> {
    match wanted {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(invalid("outputs", "'outputs' may name one output")),
    }
}

/// Texts from the bytes of a tensor: each after its length in four bytes, the lowest first.
fn elements(mut bytes: &[u8]) -> Result<Vec<String>, Refusal> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        if texts.len() == decode::MAX_LIST {
            return Err(invalid(INPUT, format!("more than {} elements", decode::MAX_LIST)));
        }
        let split = bytes.split_first_chunk().and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        });
        let Some((text, rest)) = split else {
            let message = format!("the binary data of '{INPUT}' ends within an element");
            return Err(invalid(INPUT, message));
        };
        texts.push(utf8(text)?);
        bytes = rest;
    }
    Ok(texts)
}

fn utf8(bytes: &[u8]) -> Result<String, Refusal> {
    let wrong = |_| invalid(INPUT, format!("an element of '{INPUT}' is not UTF-8"));
    std::str::from_utf8(bytes).map(str::to_owned).map_err(wrong)
}

/// Whether a shape has room for so many elements.
fn check_shape(shape: &[i64], elements: usize) -> Result<(), Refusal> {
    let room = shape.iter().try_fold(1_usize, |room, side| {
        usize::try_from(*side).ok().and_then(|side| room.checked_mul(side))
    });
    if room == Some(elements) && !shape.is_empty() {
        return Ok(());
    }
    let message = format!("the shape of '{INPUT}' does not fit its {elements} elements");
    Err(invalid(INPUT, message))
}

fn check_id(id: String) -> Result<String, Refusal> {
    match id.len() <= ID_BYTES {
        true => Ok(id),
        false => Err(invalid("id", format!("'id' has more than {ID_BYTES} bytes"))),
    }
}

/// The beginning of what a caller wrote, enough to recognise it.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// An answer's tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// One text.
    Text(String),
    /// Vectors of one length.
    Vectors(Vec<Vec<Component>>),
}

impl Tensor {
    /// Vectors that are one tensor: all of one length.
    pub fn of_vectors(vectors: Vec<Vec<Component>>) -> Option<Self> {
        let first = vectors.first()?.len();
        vectors.iter().all(|vector| vector.len() == first).then_some(Self::Vectors(vectors))
    }

    /// Which output it is.
    pub const fn output(&self) -> Output {
        match self {
            Self::Text(_) => Output::Text,
            Self::Vectors(_) => Output::Embedding,
        }
    }

    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Text(_) => vec![1],
            Self::Vectors(vectors) => vec![vectors.len(), vectors.first().map_or(0, Vec::len)],
        }
    }

    /// Its elements as bytes, the lowest first.
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => {
                // No answer is near four gigabytes.
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                [length.to_le_bytes().as_slice(), text.as_bytes()].concat()
            }
            Self::Vectors(vectors) => {
                vectors.iter().flatten().flat_map(|component| component.to_le_bytes()).collect()
            }
        }
    }
}

/// The outputs of a model and their shapes; -1 is any length.
fn outputs(makes: Makes) -> Vec<(Output, Vec<i64>)> {
    let text = (Output::Text, vec![1]);
    let vectors = |size: Option<u32>| (Output::Embedding, vec![-1, size.map_or(-1, i64::from)]);
    match makes {
        Makes::Text => vec![text],
        Makes::Embeddings(size) => vec![vectors(size)],
        Makes::Unknown => vec![text, vectors(None)],
    }
}

/// The shape of a model's input.
const fn input_shape(makes: Makes) -> i64 {
    match makes {
        Makes::Text => 1,
        Makes::Embeddings(_) | Makes::Unknown => -1,
    }
}
