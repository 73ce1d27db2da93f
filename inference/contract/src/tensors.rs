//! One inference on named tensors and its answer, for models that are asked in their own terms.
//!
//! Plain data: what a model takes and gives ([`Signature`]), and the check that a request fits it.
//! Elements are bytes, the lowest first; those of [`Datatype::Bytes`] stand each after its length
//! in four bytes, as the Open Inference Protocol lays them out. How such a request reaches a peer
//! is `carried`'s.

use std::fmt;

use selvedge_base::{Code, Micros, ModelDigest, Refusal, RequestId, Stage};
use serde::{Deserialize, Serialize};

/// Architectures of models that are asked with tensors and write no text.
const KINDS: [&str; 4] = ["onnx", CLASSIFIER, VIT, CLIP];
/// The architecture of BERT with a head that tells classes of texts.
pub const CLASSIFIER: &str = "bert-classifier";
/// The architecture of ViT, which tells classes of pictures.
pub const VIT: &str = "vit";
/// The architecture of CLIP, which compares pictures with texts, and makes vectors of both.
pub const CLIP: &str = "clip";
/// Inputs or outputs of one model: those of published ones are below ten, but for models that write
/// text and hand on a cache of each layer.
pub const MAX_TENSORS: usize = 256;
/// Sides of a tensor: a batch of videos has five.
pub const MAX_SIDES: usize = 8;
/// Bytes of all tensors of a request or an answer: twice what a body of the largest size holds as
/// JSON, and far less than a small machine's memory.
pub const MAX_TENSOR_BYTES: usize = 64 << 20;
/// Bytes of a tensor's name: those that converters make have up to a hundred.
pub const MAX_NAME_BYTES: usize = 512;

/// Whether models of an architecture, as a card names it, are asked with tensors.
pub fn infers(architecture: &str) -> bool {
    KINDS.contains(&architecture)
}

/// Whether models of an architecture, as a card names it, see pictures.
pub fn sees(architecture: &str) -> bool {
    [VIT, CLIP].contains(&architecture)
}

/// What the elements of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Datatype {
    /// Truth values, a byte each.
    Bool,
    /// Whole numbers without a sign.
    Uint8,
    /// Whole numbers.
    Int8,
    /// The same.
    Int16,
    /// The same.
    Int32,
    /// The same.
    Int64,
    /// Floating point.
    Fp32,
    /// The same.
    Fp64,
    /// Bytes of any length: texts, images.
    Bytes,
}

impl Datatype {
    const ALL: [Self; 9] = [
        Self::Bool,
        Self::Uint8,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The name that the Open Inference Protocol has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// The type of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.as_str() == name)
    }

    /// All names, for messages.
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }

    /// Bytes of an element; none where each says its own.
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Int16 => Some(2),
            Self::Int32 | Self::Fp32 => Some(4),
            Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of a tensor that a model takes or gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its elements.
    pub datatype: Datatype,
    /// Its sides; -1 is any length.
    pub shape: Vec<i64>,
}

/// What a model takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// What kind of thing it is, as the protocol asks.
    pub platform: String,
    /// What it takes: all of them are needed.
    pub inputs: Vec<TensorSpec>,
    /// What it gives.
    pub outputs: Vec<TensorSpec>,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub datatype: Datatype,
    /// Its sides.
    pub shape: Vec<u64>,
    /// Its elements.
    pub data: Vec<u8>,
}

/// A request for an inference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InferRequest {
    /// Unique per request.
    pub id: RequestId,
    /// Which model, by content.
    pub model: ModelDigest,
    /// What it is given.
    pub inputs: Vec<Tensor>,
    /// What is wanted of it, by name; empty: all.
    pub outputs: Vec<String>,
    /// How long whoever asks waits, from now on.
    pub within: Micros,
}

/// What hears the end of a request, on the engine's thread: it must not block. Dropped unheard,
/// something panicked.
pub type InferSink = Box<dyn FnOnce(Result<Vec<Tensor>, Refusal>) + Send>;

impl Tensor {
    /// How many elements its shape has room for; none where that is beyond counting.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |room, side| {
            usize::try_from(*side).ok().and_then(|side| room.checked_mul(side))
        })
    }

    /// The elements of a tensor of bytes.
    ///
    /// # Errors
    /// A refusal where they end within an element.
    pub fn byte_elements(&self) -> Result<Vec<&[u8]>, Refusal> {
        self.walk().collect()
    }

    /// The elements of a tensor of bytes, one after the other. A refusal is the last.
    fn walk(&self) -> impl Iterator<Item = Result<&[u8], Refusal>> {
        let mut bytes = self.data.as_slice();
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let split = bytes.split_first_chunk().and_then(|(length, rest)| {
                rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
            });
            let Some((element, rest)) = split else {
                bytes = &[];
                return Some(Err(bad(&self.name, "its bytes end within an element".to_owned())));
            };
            bytes = rest;
            Some(Ok(element))
        })
    }

    /// A tensor of bytes with these elements.
    pub fn of_bytes<'a>(
        name: &str,
        shape: Vec<u64>,
        elements: impl Iterator<Item = &'a [u8]>,
    ) -> Self {
        let mut data = Vec::new();
        for element in elements {
            // None is near four gigabytes: all of a request are bounded far below.
            data.extend(u32::try_from(element.len()).unwrap_or(u32::MAX).to_le_bytes());
            data.extend_from_slice(element);
        }
        Self { name: name.to_owned(), datatype: Datatype::Bytes, shape, data }
    }

    /// Whether its bytes are what its type and shape say.
    ///
    /// # Errors
    /// A refusal that says what is wrong with it.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.shape.len() > MAX_SIDES {
            return Err(bad(&self.name, format!("it has more than {MAX_SIDES} sides")));
        }
        let has = match self.datatype.size() {
            Some(size) if self.data.len().is_multiple_of(size) => self.data.len() / size,
            Some(size) => {
                let message = format!(
                    "its {} bytes are no whole elements of {}, which have {size} bytes",
                    self.data.len(),
                    self.datatype
                );
                return Err(bad(&self.name, message));
            }
            // An element may be four bytes long: a list of them would be four times as large.
            None => self.walk().try_fold(0_usize, |all, one| one.map(|_| all + 1))?,
        };
        if self.elements() != Some(has) {
            let message = format!("the shape {:?} does not fit its {has} elements", self.shape);
            return Err(bad(&self.name, message));
        }
        let other = |byte: &u8| *byte > 1;
        if self.datatype == Datatype::Bool
            && let Some(at) = self.data.iter().position(other)
        {
            let message = format!("element {at} is {}; truth values are 0 or 1", self.data[at]);
            return Err(bad(&self.name, message));
        }
        Ok(())
    }
}

impl TensorSpec {
    /// Whether a tensor is one of these.
    fn check(&self, tensor: &Tensor) -> Result<(), Refusal> {
        if tensor.datatype != self.datatype {
            let message = format!("it is of {}, not {}", self.datatype, tensor.datatype);
            return Err(bad(&self.name, message));
        }
        let side = |(wanted, got): (&i64, &u64)| *wanted < 0 || u64::try_from(*wanted) == Ok(*got);
        let fits = self.shape.len() == tensor.shape.len()
            && self.shape.iter().zip(&tensor.shape).all(side);
        if !fits {
            let message = format!(
                "it has the shape {:?}, where the model takes {:?} (-1 is any length)",
                tensor.shape, self.shape
            );
            return Err(bad(&self.name, message));
        }
        tensor.check()
    }
}

impl Signature {
    /// Whether a request is one that the model takes.
    ///
    /// # Errors
    /// A refusal that says what does not fit and what would.
    pub fn check(&self, inputs: &[Tensor], outputs: &[String]) -> Result<(), Refusal> {
        let bytes = inputs.iter().fold(0_usize, |all, one| all.saturating_add(one.data.len()));
        if bytes > MAX_TENSOR_BYTES {
            let message = format!("the inputs have {bytes} bytes; {MAX_TENSOR_BYTES} are taken");
            return Err(client(Code::TooLarge, message).param("inputs"));
        }
        for (at, tensor) in inputs.iter().enumerate() {
            let Some(spec) = self.inputs.iter().find(|spec| spec.name == tensor.name) else {
                return Err(unknown("input", &tensor.name, &self.inputs));
            };
            if inputs[..at].iter().any(|other| other.name == tensor.name) {
                let message = format!("input '{}' is given twice", cut(&tensor.name));
                return Err(client(Code::InvalidRequest, message).param("inputs"));
            }
            spec.check(tensor)?;
        }
        let given = |spec: &&TensorSpec| !inputs.iter().any(|tensor| tensor.name == spec.name);
        if let Some(spec) = self.inputs.iter().find(given) {
            let message = format!(
                "the input '{}' of {} and shape {:?} is missing",
                cut(&spec.name),
                spec.datatype,
                spec.shape
            );
            return Err(client(Code::InvalidRequest, message).param("inputs"));
        }
        for (at, name) in outputs.iter().enumerate() {
            if !self.outputs.iter().any(|spec| spec.name == *name) {
                return Err(unknown("output", name, &self.outputs));
            }
            if outputs[..at].contains(name) {
                let message = format!("'outputs' names '{}' twice", cut(name));
                return Err(client(Code::InvalidRequest, message).param("outputs"));
            }
        }
        Ok(())
    }
}

fn unknown(what: &str, name: &str, known: &[TensorSpec]) -> Refusal {
    let known: Vec<String> =
        known.iter().take(16).map(|spec| format!("'{}'", cut(&spec.name))).collect();
    let message = format!(
        "the model has no {what} '{}'; it has {}",
        cut(name),
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    );
    client(Code::InvalidRequest, message).param(if what == "input" { "inputs" } else { "outputs" })
}

fn bad(name: &str, message: String) -> Refusal {
    let name = cut(name);
    client(Code::InvalidRequest, format!("input '{name}': {message}")).param(&name)
}

fn client(code: Code, message: String) -> Refusal {
    Refusal::client(Stage::Validate, code, message)
}

/// The beginning of a name, enough to recognise it.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
#[path = "tensors_tests.rs"]
mod tests;
