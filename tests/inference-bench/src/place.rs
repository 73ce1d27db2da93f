//! Where things lie, and what time it is.
//!
//! Owns the paths in the repository, and the only reading of a clock of this package.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// The monotonic clock.
#[allow(clippy::disallowed_methods, reason = "the one reading of the monotonic clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_path_buf()
}

/// Where this package keeps what it writes, made if it is not there.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = repository().join("target/bench-inference");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// The real model, which the tests use too.
pub(crate) fn model() -> Result<PathBuf> {
    let path = repository().join(".models/smollm2-135m-instruct.gguf");
    ensure!(path.is_file(), "no model at {}: run `cargo xtask models`", path.display());
    Ok(path)
}

/// The directory of the model of embeddings, which the tests use too.
pub(crate) fn embeddings() -> Result<PathBuf> {
    let path = repository().join(".models/all-minilm-l6-v2");
    ensure!(path.is_dir(), "no model at {}: run `cargo xtask models`", path.display());
    Ok(path)
}
