//! What bodies of inferences have in common that have tensors of their own, over REST.
//!
//! Owns the fields, and where the JSON ends. What elements are, `D`, is the model's business.

use selvedge_base::Refusal;
use serde::Deserialize;

use super::Fields;
use crate::decode::{List, invalid};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body<D> {
    pub(super) id: Option<String>,
    pub(super) parameters: Option<Fields>,
    pub(super) inputs: Option<List<Input<D>>>,
    pub(super) outputs: Option<List<Named>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input<D> {
    pub(super) name: String,
    pub(super) shape: List<i64>,
    pub(super) datatype: String,
    pub(super) parameters: Option<OfInput>,
    pub(super) data: Option<D>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfInput {
    pub(super) binary_data_size: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) parameters: Option<OfOutput>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfOutput {
    pub(super) binary_data: Option<bool>,
}

impl Named {
    /// Whether it is to be bytes, where it says so itself.
    pub(super) fn binary(&self) -> Option<bool> {
        self.parameters.as_ref().and_then(|own| own.binary_data)
    }
}

/// A body's JSON and the bytes after it. `json` is the length of the JSON, when bytes follow.
pub(super) fn split(bytes: &[u8], json: Option<usize>) -> Result<(&[u8], &[u8]), Refusal> {
    bytes.split_at_checked(json.unwrap_or(bytes.len())).ok_or_else(|| {
        let message = "'Inference-Header-Content-Length' is more than the whole body";
        invalid("Inference-Header-Content-Length", message)
    })
}
