//! Models that see: ViT, which tells classes of pictures, and CLIP, which tells which of some texts
//! a picture shows, and makes vectors of both.
//!
//! Owns what such a model is on the disk, a directory as Hugging Face lays it out (`folder`,
//! `names`), how a picture becomes its numbers (`prepare`, `resample`), what it is in memory
//! (`seer`), requests and what is answered (`asked`), and the thread that computes (`desk`). The
//! arithmetic is `selvedge_kernels`' tower; pictures are read by `pictures`. Devices other than the
//! processor are not used.

mod asked;
mod desk;
mod folder;
#[cfg(test)]
#[allow(clippy::expect_used)]
mod golden_tests;
mod names;
mod prepare;
mod resample;
mod seer;

pub(crate) use asked::completed;
pub(crate) use desk::{Desk, Job, Message};
pub(crate) use folder::{Folder, is_folder};
pub(crate) use seer::Seer;

use std::path::Path;

/// What says how pictures become numbers; a model that does not see may have such a file, which
/// changes none of its answers.
const PREPARING: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];

/// The files of a directory that can change what its model answers, beside those of all kinds of
/// directories.
pub fn picture_files(path: &Path) -> &'static [&'static str] {
    if is_folder(path) { &PREPARING } else { &[] }
}
