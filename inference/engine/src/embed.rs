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

/// Whether a model's path leads to one of these.
pub(crate) fn is_folder(path: &Path) -> bool {
    path.is_dir()
}
