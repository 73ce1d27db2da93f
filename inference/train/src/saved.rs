//! A trained model as a file that any reader of safetensors opens.
//!
//! Owns the names of the tensors and what the header says beside them: a version, the layers, and
//! in words how to run them. What else is known of a model (which job, which round) is handed in as
//! notes and kept as it is. The same model with the same notes is the same bytes, so two nodes can
//! compare their files. Touches no disk.

use std::collections::BTreeMap;

use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use thiserror::Error;

use crate::model::MAX_PARAMETERS;
use crate::{Model, TrainError};

/// The version of the names and notes below. Another one may name tensors or run layers otherwise.
const VERSION: &str = "1";
/// The note with the version.
const VERSION_NOTE: &str = "selvedge_model";
/// The note with the layers, as JSON.
const LAYERS_NOTE: &str = "layers";
/// The note that says how to run them.
const HOW_NOTE: &str = "how";
/// How the layers are run, for whoever has only the file. Who proves a file compares it byte for
/// byte: with other words files of before are refused, so they need another version above.
const HOW: &str = "An example is one row of 32-bit values (an image: channel by channel, row by \
    row). Layers run in the order of their numbers. A weight of 2 dimensions [out, in]: x W^T + b, \
    then ReLU unless it is the last layer. A weight of 4 dimensions [out, in, 5, 5]: convolution \
    with stride 1 and zero padding 2, plus b, ReLU, then the largest of each 2 x 2, without an odd \
    last row or column. The class is the place of the greatest value of the last layer.";
/// Bytes of a header: 32 tensors and the notes take 8 KiB; eight times that is no honest file.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Letters of a file's own text in an error: two lines of a terminal.
const MAX_FOREIGN_TEXT: usize = 160;
/// The length of the header, before it.
pub(crate) const LENGTH_BYTES: usize = size_of::<u64>();
/// Bytes of the longest file: the most parameters, four bytes each, and what is before them.
pub const MAX_SAVED_BYTES: usize = LENGTH_BYTES + MAX_HEADER_BYTES + 4 * MAX_PARAMETERS;

/// A model with its weights, and what is noted of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// The layers.
    pub model: Model,
    /// The weights, in the model's flat order; all are finite.
    pub weights: Vec<f32>,
    /// What else is known of it. Three names are this module's own: see [`Saved::to_bytes`].
    pub notes: BTreeMap<String, String>,
}

/// Why a model is not written to a file or read from one.
#[derive(Debug, Error)]
pub enum SavedError {
    /// More bytes than a model has.
    #[error("it has {found} bytes; a file of a model has at most {most}")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        most: usize,
    },
    /// The header is longer than any honest one.
    #[error("its header says to be {0} bytes long, which is more than is read")]
    Header(u64),
    /// It is no safetensors file.
    #[error("it is no whole safetensors file: {0}")]
    Form(String),
    /// It holds something else.
    #[error("it is a safetensors file but no model that was saved here: {0}")]
    Foreign(String),
    /// Only a newer program understands it.
    #[error("it is a model in version '{0}', which this build does not know: update selvedge")]
    Version(String),
    /// The layers cannot be.
    #[error("its layers cannot be: {0}")]
    Model(#[from] TrainError),
    /// A tensor is missing, or has another type or shape than the layers say.
    #[error("its tensor {name} {why}")]
    Tensor {
        /// Which.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A weight is infinite or not a number.
    #[error("weight {0} is not a finite number")]
    NotFinite(usize),
    /// There are more or fewer weights than the layers have.
    #[error("{found} weights were given for a model of {wanted}")]
    Length {
        /// Weights given.
        found: usize,
        /// Weights of the model.
        wanted: usize,
    },
    /// A note is called what this module calls its own.
    #[error("a note cannot be called '{0}'")]
    Note(String),
}

/// The header as it is written. The notes come first, then the tensors by name.
#[derive(Serialize)]
pub(crate) struct Header<'a> {
    #[serde(rename = "__metadata__")]
    pub(crate) notes: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
}

impl Saved {
    /// The bytes of the file. The tensors are `layers.N.weight` and `layers.N.bias`, output first
    /// and counted from 0, one after the other in the flat order; the notes `selvedge_model`,
    /// `layers` and `how` are added to those handed in.
    ///
    /// # Errors
    /// [`SavedError::Model`], [`SavedError::Length`], [`SavedError::NotFinite`],
    /// [`SavedError::Note`], and [`SavedError::Header`] for notes that are too long together.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SavedError> {
        let wanted = self.model.size()?;
        if self.weights.len() != wanted {
            return Err(SavedError::Length { found: self.weights.len(), wanted });
        }
        check_finite(&self.weights)?;
        let layers = serde_json::to_string(&self.model);
        let layers = layers.map_err(|error| SavedError::Form(error.to_string()))?;
        let mut notes = BTreeMap::from([
            (VERSION_NOTE, VERSION),
            (LAYERS_NOTE, layers.as_str()),
            (HOW_NOTE, HOW),
        ]);
        for (name, note) in &self.notes {
            if notes.insert(name, note).is_some() {
                return Err(SavedError::Note(name.clone()));
            }
        }
        let mut tensors = BTreeMap::new();
        let mut end = 0;
        for (name, shape) in names(&self.model)? {
            let begin = end;
            end += 4 * shape.iter().product::<usize>();
            let info = TensorInfo { dtype: Dtype::F32, shape, data_offsets: (begin, end) };
            tensors.insert(name, info);
        }
        let header = serde_json::to_vec(&Header { notes, tensors });
        let mut header = header.map_err(|error| SavedError::Form(error.to_string()))?;
        // What follows begins at a multiple of eight, as the format asks.
        header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
        if header.len() > MAX_HEADER_BYTES {
            return Err(SavedError::Header(header.len() as u64));
        }
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + header.len() + end);
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        self.weights.iter().for_each(|weight| bytes.extend(weight.to_le_bytes()));
        Ok(bytes)
    }

    /// The model in a file. Tensors may lie in any order, as other programs write them again.
    ///
    /// # Errors
    /// [`SavedError`], the first thing that is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SavedError> {
        let header = header(bytes, MAX_SAVED_BYTES, MAX_HEADER_BYTES)?;
        let form = |error: safetensors::SafeTensorError| SavedError::Form(plain(error));
        let tensors = SafeTensors::deserialize(bytes).map_err(form)?;
        let said = header.metadata().iter().flatten();
        let mut notes: BTreeMap<String, String> =
            said.map(|(name, note)| (name.clone(), note.clone())).collect();
        let mut own = |name: &str| {
            let missing = || SavedError::Foreign(format!("it has no note '{name}'"));
            notes.remove(name).ok_or_else(missing)
        };
        let version = own(VERSION_NOTE)?;
        if version != VERSION {
            return Err(SavedError::Version(plain(version)));
        }
        let model: Model = serde_json::from_str(&own(LAYERS_NOTE)?)
            .map_err(|error| SavedError::Foreign(format!("its layers: {}", plain(error))))?;
        notes.remove(HOW_NOTE);
        let names = names(&model)?;
        if tensors.len() != names.len() {
            let (found, wanted) = (tensors.len(), names.len());
            let why = format!("it has {found} tensors and its layers {wanted}");
            return Err(SavedError::Foreign(why));
        }
        let mut weights = Vec::with_capacity(model.size()?);
        for (name, shape) in names {
            let wrong = |why: String| SavedError::Tensor { name: name.clone(), why };
            let tensor = tensors.tensor(&name).map_err(|_| wrong("is not there".to_owned()))?;
            if (tensor.dtype(), tensor.shape()) != (Dtype::F32, &shape) {
                let (dtype, found) = (tensor.dtype(), tensor.shape());
                return Err(wrong(format!("is {dtype} {found:?} and must be F32 {shape:?}")));
            }
            let (numbers, _) = tensor.data().as_chunks();
            weights.extend(numbers.iter().map(|number| f32::from_le_bytes(*number)));
        }
        check_finite(&weights)?;
        Ok(Self { model, weights, notes })
    }
}

/// Names and shapes of a model's tensors, in the flat order: weight and bias of each layer.
fn names(model: &Model) -> Result<Vec<(String, Vec<usize>)>, TrainError> {
    let kinds = ["weight", "bias"].iter().cycle();
    let parameters = model.parameters()?.into_iter().zip(kinds).enumerate();
    let named = |(at, (parameter, kind)): (usize, (crate::model::Parameter, &&str))| {
        (format!("layers.{}.{kind}", at / 2), parameter.shape)
    };
    Ok(parameters.map(named).collect())
}

pub(crate) fn check_finite(weights: &[f32]) -> Result<(), SavedError> {
    let bad = weights.iter().position(|weight| !weight.is_finite());
    bad.map_or(Ok(()), |at| Err(SavedError::NotFinite(at)))
}

/// The header of a file within bounds on all of it and on the header, before anything is made of
/// what follows.
///
/// # Errors
/// [`SavedError`], the first thing that is wrong.
pub(crate) fn header(
    bytes: &[u8],
    most: usize,
    most_header: usize,
) -> Result<safetensors::tensor::Metadata, SavedError> {
    if bytes.len() > most {
        return Err(SavedError::TooLarge { found: bytes.len(), most });
    }
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    if let Some(length) = length.filter(|length| *length > most_header as u64) {
        return Err(SavedError::Header(length));
    }
    let read = SafeTensors::read_metadata(bytes);
    read.map(|(_, header)| header).map_err(|error| SavedError::Form(plain(error)))
}

/// As much of a foreign text as a line of an error should hold, with nothing that a terminal obeys.
pub(crate) fn plain(text: impl ToString) -> String {
    text.to_string().chars().filter(|c| !c.is_control()).take(MAX_FOREIGN_TEXT).collect()
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
