//! Models that make vectors of texts, or tell their classes.
//!
//! Owns what such a model is on the disk, a directory as Hugging Face lays it out (`folder`,
//! `tensors`), what it is in memory (`reader`), what a head makes of it (`classes`), and the thread
//! that computes (`desk`). The
//! arithmetic is `selvedge_kernels`' encoder. Devices other than the processor are not used.

mod classes;
mod desk;
pub(crate) mod folder;
mod reader;
#[cfg(test)]
#[allow(clippy::expect_used)]
mod real_tests;
pub(crate) mod tensors;

pub(crate) use classes::{
    Layer, PLATFORM, Raw, infer, likeliest, outputs, shares, signature, spec, told, wanted,
};
pub(crate) use desk::{Desk, Job, Message};
pub use folder::FOLDER_FILES;
pub(crate) use folder::Folder;
pub(crate) use reader::{Reader, Words};

use std::path::Path;

use crate::error::EngineError;

/// Reads a safetensors file that is held in memory as weights are read: how many numbers its
/// tensors of floats have, each of which lies inside of it.
///
/// # Errors
/// [`EngineError`] when it cannot hold a model's weights.
pub fn inspect_weights_bytes(bytes: &[u8]) -> Result<u64, EngineError> {
    let size = bytes.len() as u64;
    let tensors = tensors::Tensors::from_reader(Path::new("memory"), bytes, size, ("", &[""]))?;
    for place in tensors.places() {
        let (start, count) = place?;
        debug_assert!(start + count as u64 <= size);
    }
    Ok(tensors.parameters())
}

/// Reads a `tokenizer.json` that is held in memory as models that read texts have it, and the
/// tokens that a text is to such a model, of which there are at most so many.
///
/// # Errors
/// [`EngineError`] when it cannot be a model's, or cannot read the text.
pub fn inspect_tokenizer_bytes(
    bytes: &[u8],
    text: &str,
    longest: usize,
) -> Result<Vec<u32>, EngineError> {
    let tokenizer = reader::read_tokenizer(bytes, folder::MAX_VOCABULARY, longest)?;
    let encoded = reader::encode(&tokenizer, text);
    encoded.map(|(tokens, _)| tokens).map_err(|error| EngineError::Compute(error.to_string()))
}

/// Whether a model's path leads to one of these.
pub(crate) fn is_folder(path: &Path) -> bool {
    path.is_dir()
}
