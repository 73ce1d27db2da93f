//! What a language model was tuned by, as a file that other programs put beside the same base.
//!
//! Owns the names of the tensors, which are those of PEFT (`lora_A` is `[rank, inputs]`, `lora_B`
//! is `[outputs, rank]`), the order of the bytes (every B in the flat order, then every A), and
//! what the header says beside them. The same B with the same notes is the same bytes. Touches no
//! disk.

use std::collections::BTreeMap;

use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;

use crate::model::MAX_PARAMETERS;
use crate::saved::{
    Header, LENGTH_BYTES, MAX_SAVED_BYTES, SavedError, check_finite, header, plain,
};
use crate::tuning::{MAX_FROZEN, Place};
use crate::{Saved, TrainError, Tuning};

/// The version of the names and notes below.
const VERSION: &str = "1";
/// The note with the version, by which such a file is known.
const VERSION_NOTE: &str = "selvedge_adapter";
/// The note with the tuning, as JSON.
const TUNING_NOTE: &str = "tuning";
/// Bytes of a header: two thousand tensors of some 200 bytes each, twice.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// Bytes of the longest such file.
const MAX_ADAPTER_BYTES: usize =
    LENGTH_BYTES + MAX_HEADER_BYTES + 4 * (MAX_PARAMETERS + MAX_FROZEN);
/// Bytes of the longest file of something that was learned, whichever kind it is.
pub const MAX_LEARNED_BYTES: usize =
    if MAX_ADAPTER_BYTES > MAX_SAVED_BYTES { MAX_ADAPTER_BYTES } else { MAX_SAVED_BYTES };

/// What is added to a base model, with what is noted of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// What it is added to, and how.
    pub tuning: Tuning,
    /// Every B, in the flat order; all numbers are finite.
    pub weights: Vec<f32>,
    /// What else is known of it.
    pub notes: BTreeMap<String, String>,
}

/// What a file holds that something was learned into.
#[derive(Clone, Debug, PartialEq)]
pub enum Learned {
    /// A small model.
    Model(Saved),
    /// Additions to a language model.
    Adapter(Adapter),
}

impl Learned {
    /// What is in a file of at most [`MAX_LEARNED_BYTES`].
    ///
    /// # Errors
    /// [`SavedError`], the first thing that is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SavedError> {
        let header = header(bytes, MAX_LEARNED_BYTES, MAX_HEADER_BYTES)?;
        let mut notes = header.metadata().iter().flatten();
        if notes.any(|(name, _)| name == VERSION_NOTE) {
            return Adapter::from_bytes(bytes).map(Self::Adapter);
        }
        Saved::from_bytes(bytes).map(Self::Model)
    }
}

impl Adapter {
    /// The bytes of the file. The notes `selvedge_adapter`, `tuning`, `base_model`, `r`,
    /// `lora_alpha` and `format` are added to those handed in.
    ///
    /// # Errors
    /// [`SavedError`] as [`Saved::to_bytes`] has them.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SavedError> {
        let Self { tuning, weights, .. } = self;
        let wanted = tuning.size()?;
        if weights.len() != wanted {
            return Err(SavedError::Length { found: weights.len(), wanted });
        }
        check_finite(weights)?;
        let text =
            serde_json::to_string(tuning).map_err(|why| SavedError::Form(why.to_string()))?;
        let (rank, alpha) = (tuning.rank.to_string(), tuning.alpha.to_string());
        let mut notes: BTreeMap<&str, &str> = BTreeMap::from([
            (VERSION_NOTE, VERSION),
            (TUNING_NOTE, &*text),
            ("base_model", &*tuning.base),
            ("r", &*rank),
            ("lora_alpha", &*alpha),
            // What readers of PyTorch's files ask for.
            ("format", "pt"),
        ]);
        for (name, note) in &self.notes {
            if notes.insert(name, note).is_some() {
                return Err(SavedError::Note(name.clone()));
            }
        }
        let mut tensors = BTreeMap::new();
        let mut end = 0;
        for (name, shape) in names(tuning)? {
            let begin = end;
            end += 4 * shape.iter().product::<usize>();
            tensors
                .insert(name, TensorInfo { dtype: Dtype::F32, shape, data_offsets: (begin, end) });
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
        let frozen = tuning.frozen()?;
        let numbers = weights.iter().chain(frozen.iter().flatten());
        numbers.for_each(|number| bytes.extend(number.to_le_bytes()));
        Ok(bytes)
    }

    /// What is in a file. Tensors may lie in any order; every A must be the one that is drawn.
    fn from_bytes(bytes: &[u8]) -> Result<Self, SavedError> {
        if bytes.len() > MAX_ADAPTER_BYTES {
            return Err(SavedError::TooLarge { found: bytes.len(), most: MAX_ADAPTER_BYTES });
        }
        let form = |error: safetensors::SafeTensorError| SavedError::Form(plain(error));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(form)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(form)?;
        let said = header.metadata().iter().flatten();
        let mut notes: BTreeMap<String, String> =
            said.map(|(name, note)| (name.clone(), note.clone())).collect();
        let version = notes.remove(VERSION_NOTE).unwrap_or_default();
        if version != VERSION {
            return Err(SavedError::Version(plain(version)));
        }
        let text = notes.remove(TUNING_NOTE).unwrap_or_default();
        let tuning: Tuning = serde_json::from_str(&text)
            .map_err(|error| SavedError::Foreign(format!("its tuning: {}", plain(error))))?;
        // What the tuning says as well.
        notes.retain(|name, _| !["base_model", "r", "lora_alpha", "format"].contains(&&**name));
        let names = names(&tuning)?;
        if tensors.len() != names.len() {
            let (found, wanted) = (tensors.len(), names.len());
            let why = format!("it has {found} tensors and its tuning {wanted}");
            return Err(SavedError::Foreign(why));
        }
        let mut numbers = Vec::new();
        for (name, shape) in names {
            let wrong = |why: String| SavedError::Tensor { name: name.clone(), why };
            let tensor = tensors.tensor(&name).map_err(|_| wrong("is not there".to_owned()))?;
            if (tensor.dtype(), tensor.shape()) != (Dtype::F32, &shape) {
                let (dtype, found) = (tensor.dtype(), tensor.shape());
                return Err(wrong(format!("is {dtype} {found:?} and must be F32 {shape:?}")));
            }
            let (own, _) = tensor.data().as_chunks();
            numbers.extend(own.iter().map(|number| f32::from_le_bytes(*number)));
        }
        let frozen = numbers.split_off(tuning.size()?);
        check_finite(&numbers)?;
        let drawn = tuning.frozen()?;
        // The bits: 0 and -0 are two numbers.
        let pairs = frozen.iter().zip(drawn.iter().flatten());
        if let Some(at) =
            pairs.into_iter().position(|(own, drawn)| own.to_bits() != drawn.to_bits())
        {
            return Err(SavedError::Foreign(format!(
                "number {at} of its lora_A is not what its seed draws, and no A is ever learned"
            )));
        }
        Ok(Self { tuning, weights: numbers, notes })
    }
}

impl Tuning {
    /// What PEFT reads beside the file, as `adapter_config.json`.
    pub fn peft_config(&self) -> String {
        let modules = self.targets.iter().map(|target| {
            let module = target.module();
            module.rsplit('.').next().unwrap_or(module)
        });
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "target_modules": modules.collect::<Vec<_>>(),
        });
        format!("{config:#}\n")
    }
}

/// Names and shapes of the tensors in the order of the file: every B in the flat order, every A.
fn names(tuning: &Tuning) -> Result<Vec<(String, Vec<usize>)>, TrainError> {
    let places = tuning.places()?;
    let name = |place: &Place, which: &str| {
        let (layer, module) = (place.layer, place.target.module());
        format!("base_model.model.model.layers.{layer}.{module}.lora_{which}.weight")
    };
    let b = places.iter().map(|place| (name(place, "B"), vec![place.outputs, tuning.rank]));
    let a = places.iter().map(|place| (name(place, "A"), vec![tuning.rank, place.inputs]));
    Ok(b.chain(a).collect())
}

#[cfg(test)]
#[path = "adapter_tests.rs"]
mod tests;
