//! Models that are asked in their own terms: named tensors in, named tensors out.
//!
//! Owns what such an inference means, whichever encoding it comes in. What is read does not depend
//! on the model; its signature says whether it fits ([`selvedge_contract::Signature::check`]). Such
//! a model has one version. Encodings are `rest` and `grpc`.

mod grpc;
mod rest;
#[cfg(test)]
#[path = "tensors/tests.rs"]
mod tests;

use selvedge_base::{Micros, Refusal};
use selvedge_contract::tensors::{MAX_NAME_BYTES, MAX_SIDES, MAX_TENSOR_BYTES, MAX_TENSORS};
use selvedge_contract::{Datatype, Tensor};

pub use self::grpc::{answer as grpc_answer, metadata as grpc_metadata, parse as grpc_parse};
pub use self::rest::{body, metadata_body, parse};
use super::{Fields, check_id, cut};
use crate::decode::{invalid, unsupported};

/// Bytes of all inputs of one request. The body holds them with some that say what they are, and is
/// bounded far below; this is what JSON may become.
const MAX_BYTES: usize = MAX_TENSOR_BYTES;

/// An output that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    /// Whether as bytes, in the encoding that has a choice.
    binary: bool,
}

/// An inference, understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// What the caller calls it; may be empty.
    pub id: String,
    /// What the model is given.
    pub inputs: Vec<Tensor>,
    /// How long the caller waits.
    pub timeout: Option<Micros>,
    wanted: Vec<Wanted>,
    /// Whether outputs that nobody named are to be bytes.
    binary: bool,
}

impl Asked {
    /// Puts together what both encodings read.
    fn of(
        id: String,
        inputs: Vec<Tensor>,
        wanted: Vec<Wanted>,
        fields: Fields,
    ) -> Result<Self, Refusal> {
        let binary = fields.binary_data_output.unwrap_or(false);
        let settings = fields.settings()?;
        settings.refuse_all("means nothing to a model that takes tensors")?;
        if inputs.is_empty() {
            return Err(invalid("inputs", "'inputs' must hold the model's inputs"));
        }
        if wanted.len() > MAX_TENSORS {
            return Err(invalid("outputs", format!("'outputs' names more than {MAX_TENSORS}")));
        }
        if let Some(long) = wanted.iter().find(|wanted| wanted.name.len() > MAX_NAME_BYTES) {
            return Err(invalid("outputs", format!("there is no output '{}'", cut(&long.name))));
        }
        Ok(Self { id: check_id(id)?, inputs, timeout: settings.timeout, wanted, binary })
    }

    /// The outputs that are wanted, by name; none: all.
    pub fn outputs(&self) -> Vec<String> {
        self.wanted.iter().map(|wanted| wanted.name.clone()).collect()
    }

    /// Whether an output is to be bytes, in the encoding that has a choice.
    fn is_binary(&self, name: &str) -> bool {
        let wanted = self.wanted.iter().find(|wanted| wanted.name == name);
        wanted.map_or(self.binary, |wanted| wanted.binary)
    }
}

/// A tensor's head, checked as far as it can be without its data.
fn head(
    (name, datatype): (String, &str),
    shape: Vec<i64>,
    before: &[Tensor],
) -> Result<Tensor, Refusal> {
    if before.len() == MAX_TENSORS {
        return Err(invalid("inputs", format!("'inputs' holds more than {MAX_TENSORS}")));
    }
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(invalid("inputs", format!("there is no input '{}'", cut(&name))));
    }
    let Some(datatype) = Datatype::of_name(datatype) else {
        let message = format!(
            "input '{}' is of datatype '{}'; there are {}",
            cut(&name),
            cut(datatype),
            Datatype::names()
        );
        return Err(unsupported("inputs", message));
    };
    if shape.len() > MAX_SIDES {
        let name = cut(&name);
        return Err(invalid(&name, format!("input '{name}' has more than {MAX_SIDES} sides")));
    }
    let sides: Option<Vec<u64>> = shape.iter().map(|side| u64::try_from(*side).ok()).collect();
    let Some(shape) = sides else {
        let name = cut(&name);
        let message = format!("input '{name}' has the shape {shape:?}: no side may be negative");
        return Err(invalid(&name, message));
    };
    Ok(Tensor { name, datatype, shape, data: Vec::new() })
}

/// What is left of the room for bytes after so many.
fn room(left: &mut usize, bytes: usize) -> Result<(), Refusal> {
    match left.checked_sub(bytes) {
        Some(rest) => {
            *left = rest;
            Ok(())
        }
        None => Err(invalid("inputs", format!("the inputs have more than {MAX_BYTES} bytes"))),
    }
}
