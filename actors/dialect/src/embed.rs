//! The canonical form of a request for embeddings and of its answer.
//!
//! Owns plain data, its bounds, and reading an answer that comes in pieces. Vectors are kept in the
//! precision models compute in; a dialect that sends them as base64 gets little-endian 32-bit
//! floats, as the OpenAI API defines.

use selvedge_base::Refusal;

use crate::chat::{Extension, Usage};
use crate::decode::invalid;
use crate::frame::Document;
use crate::number::Component;

/// Inputs of one request: as many as the OpenAI API takes, which is the most of all.
pub const MAX_INPUTS: usize = 2_048;
/// Bytes of one text: the longest context of a model of embeddings is 128 Ki tokens, which is half
/// of this in English and nearly all of it in scripts of three bytes a letter.
pub const INPUT_BYTES: usize = 1 << 20;

/// A request for embeddings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbedRequest {
    /// The model as whoever asks names it.
    pub model: String,
    /// What to embed, in order; each gives one vector.
    pub inputs: Vec<EmbedInput>,
    /// Components wanted per vector, where the model can shorten them.
    pub dimensions: Option<u32>,
    /// How the vectors are to be written.
    pub encoding: Encoding,
    /// What the vectors are for, in dialects that ask (`search_query`, `RETRIEVAL_DOCUMENT`…).
    pub purpose: Option<String>,
    /// Whether inputs that are too long may be cut; `None` = as the target does by itself.
    pub truncate: Option<bool>,
    /// The end user, as the caller names them. A hint.
    pub user: Option<String>,
    /// Fields of the body that only one dialect has.
    pub extensions: Vec<Extension>,
}

impl EmbedRequest {
    /// The inputs, if all of them are texts.
    pub(crate) fn texts(&self) -> Option<Vec<&str>> {
        self.inputs.iter().map(EmbedInput::text).collect()
    }

    /// The same request for some of its inputs.
    #[must_use]
    pub fn part(&self, inputs: &[EmbedInput]) -> Self {
        Self {
            model: self.model.clone(),
            inputs: inputs.to_vec(),
            dimensions: self.dimensions,
            encoding: self.encoding,
            purpose: self.purpose.clone(),
            truncate: self.truncate,
            user: self.user.clone(),
            extensions: self.extensions.clone(),
        }
    }
}

/// Inputs as they may be, from the field of this name.
pub(crate) fn checked(field: &str, inputs: Vec<EmbedInput>) -> Result<Vec<EmbedInput>, Refusal> {
    let wrong = |why: &str| Err(invalid(field, format!("'{field}' {why}")));
    if inputs.is_empty() || inputs.iter().any(EmbedInput::is_empty) {
        return wrong("must be one or more inputs, none empty");
    }
    if inputs.len() > MAX_INPUTS {
        return wrong(&format!("must be at most {MAX_INPUTS} inputs, not {}", inputs.len()));
    }
    let long = |input: &EmbedInput| matches!(input, EmbedInput::Text(t) if t.len() > INPUT_BYTES);
    match inputs.iter().position(long) {
        Some(at) => wrong(&format!("holds more than {INPUT_BYTES} bytes in its input {at}")),
        None => Ok(inputs),
    }
}

/// One thing to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmbedInput {
    /// Text.
    Text(String),
    /// Tokens of the model's own vocabulary.
    Tokens(Vec<u32>),
}

impl EmbedInput {
    /// The text, if it is one.
    pub(crate) const fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            Self::Tokens(_) => None,
        }
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Tokens(tokens) => tokens.is_empty(),
        }
    }
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As JSON numbers.
    #[default]
    Float,
    /// As base64 of little-endian 32-bit floats.
    Base64,
}

/// The answer to a request for embeddings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// The model that answered, as it names itself.
    pub model: String,
    /// One vector per input, in the order of the inputs.
    pub vectors: Vec<Vec<Component>>,
    /// What it took; only the prompt's counts are used.
    pub usage: Option<Usage>,
}

/// Reads a whole answer.
pub type Read = fn(&[u8]) -> Result<Embeddings, &'static str>;

/// Reads an answer with embeddings as it arrives.
#[derive(Debug)]
pub struct EmbedParser {
    document: Document,
    too_long: bool,
    read: Read,
}

impl EmbedParser {
    /// For an answer in the words of the dialect whose reading this is.
    pub fn new(read: Read) -> Self {
        Self { document: Document::default(), too_long: false, read }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.too_long |= self.document.push(bytes).is_err();
    }

    /// The answer, once all bytes came; `inputs` is how many vectors there must be.
    ///
    /// # Errors
    /// What is wrong with it, in words for a [`crate::chat::Failure`].
    pub fn finish(&mut self, inputs: usize) -> Result<Embeddings, &'static str> {
        if self.too_long {
            return Err("it is too long");
        }
        let answer = (self.read)(&self.document.take())?;
        if answer.vectors.len() != inputs {
            return Err("it has not one vector for each input");
        }
        // JSON has no word for the others, and a search over them finds nothing.
        let sound = |vector: &Vec<Component>| {
            !vector.is_empty() && vector.iter().all(|component| component.is_finite())
        };
        if !answer.vectors.iter().all(sound) {
            return Err("a vector is empty or holds what is no number");
        }
        Ok(answer)
    }
}
