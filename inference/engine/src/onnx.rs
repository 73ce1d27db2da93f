//! ONNX models: tensors in, tensors out.
//!
//! Owns what such a file is (`proto`, `header`, `file`), where it runs, which is a process of its
//! own (`host`, `child`, `speech`), what computes it there (`runtime`), what makes classes of it
//! (`classify`), and the threads that hand requests to it (`desk`). A file comes from anybody. What
//! it claims is checked before anything is computed; what computing it takes, in memory and time,
//! nothing but a process can bound (docs/decisions/0049).

mod child;
mod classify;
mod desk;
mod file;
mod header;
mod host;
mod proto;
mod runtime;
mod speech;
#[cfg(test)]
#[allow(clippy::expect_used)]
mod testing;

pub use child::serve_onnx;
pub(crate) use desk::{Desk, Job, Message};
pub(crate) use file::{File, is_file};
pub(crate) use host::Host;
pub use host::Running;

use selvedge_contract::Signature;

use crate::error::EngineError;

/// The architecture of such a model, as its card names it.
pub(crate) const ARCHITECTURE: &str = "onnx";
/// Bytes of a file: the format's own bound is two gigabytes, and a machine at the edge has the
/// memory for three times this and not more.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// What a file in memory takes and gives, with every check that is made before it is run.
///
/// # Errors
/// [`EngineError`] when it cannot be a model here.
pub fn inspect_onnx_bytes(bytes: &[u8]) -> Result<Signature, EngineError> {
    header::read(bytes).map(|header| header.signature)
}
