//! Where the repository is and what is in it.
//!
//! Owns the root, the list of its files and the reading of cargo's metadata. Does not judge them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};

/// The platform whose dependency graph is checked: one fixed triple, so that every machine judges
/// the same graph.
pub(crate) const GRAPH_PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Paths, relative to the root, of all files that git tracks or would track, sorted.
pub(crate) fn files() -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output()
        .context("git ls-files did not start: is git installed?")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut files: Vec<String> = String::from_utf8(output.stdout)
        .context("a file name is not UTF-8")?
        .split('\0')
        .filter(|path| !path.is_empty() && root().join(path).is_file())
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// The text of a file given by its path relative to the root; `None` if it is not text.
pub(crate) fn text(path: &str) -> Result<Option<String>> {
    let bytes = std::fs::read(root().join(path)).with_context(|| format!("reading {path}"))?;
    Ok(String::from_utf8(bytes).ok())
}

/// Cargo's view of the workspace with the dependency graph resolved.
pub(crate) fn metadata() -> Result<Metadata> {
    MetadataCommand::new()
        .current_dir(root())
        .other_options(vec![format!("--filter-platform={GRAPH_PLATFORM}"), "--locked".to_owned()])
        .exec()
        .context("cargo metadata failed")
}
