//! Where the suite finds what it runs: the binary, the model, Python.
//!
//! Owns the paths and the messages that say which command makes a missing thing. It never installs
//! or builds anything itself.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// The name under which the test model is offered.
pub const MODEL: &str = "smollm2-135m-instruct";

/// The root of the repository.
pub fn repository() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().unwrap_or(crate_dir).to_path_buf()
}

/// The `selvedge` binary: `SELVEDGE_BIN`, or the one cargo built next to this test.
///
/// # Errors
/// When there is none; the message names the command that builds it.
pub fn selvedge() -> Result<PathBuf> {
    binary("selvedge", "SELVEDGE_BIN", "cargo build -p selvedge")
}

/// The test model: `SELVEDGE_TEST_MODELS` is the directory, `.models` by default.
///
/// # Errors
/// When it is missing; the message names the command that fetches it.
pub fn model() -> Result<PathBuf> {
    let dir = env::var_os("SELVEDGE_TEST_MODELS")
        .map_or_else(|| repository().join(".models"), PathBuf::from);
    let path = dir.join(format!("{MODEL}.gguf"));
    ensure!(path.is_file(), "no test model at {}: run `cargo xtask models`", path.display());
    Ok(path)
}

/// The directory of the test model of embeddings.
///
/// # Errors
/// As [`model`].
pub fn embedder() -> Result<PathBuf> {
    let path = model()?.with_file_name("all-minilm-l6-v2");
    ensure!(path.is_dir(), "no test model at {}: run `cargo xtask models`", path.display());
    Ok(path)
}

/// The directory of the test model of speech.
///
/// # Errors
/// As [`model`].
pub fn listener() -> Result<PathBuf> {
    let path = model()?.with_file_name("whisper-tiny.en");
    ensure!(path.is_dir(), "no test model at {}: run `cargo xtask models`", path.display());
    Ok(path)
}

/// Ten seconds of speech.
///
/// # Errors
/// As [`model`].
pub fn clip() -> Result<PathBuf> {
    let path = model()?.with_file_name("clips").join("beckett.wav");
    ensure!(path.is_file(), "no clip at {}: run `cargo xtask models`", path.display());
    Ok(path)
}

/// The Python that has the packages of tests/requirements.txt: `SELVEDGE_PYTHON`, or the virtual
/// environment at the root of the repository.
///
/// # Errors
/// When it is missing; the message names the commands that make it.
pub fn python() -> Result<PathBuf> {
    let path = env::var_os("SELVEDGE_PYTHON")
        .map_or_else(|| repository().join(".venv/bin/python"), PathBuf::from);
    ensure!(
        path.is_file(),
        "no Python at {}: run `python3 -m venv .venv && .venv/bin/pip install -r \
         tests/requirements.txt`",
        path.display()
    );
    Ok(path)
}

/// Node.js, once the packages of tests/node are there: `SELVEDGE_NODE`, or the one in the path.
///
/// # Errors
/// When the packages are missing; the message names the command that fetches them.
pub fn javascript() -> Result<PathBuf> {
    let packages = repository().join("tests/node/node_modules");
    ensure!(
        packages.is_dir(),
        "no packages at {}: run `npm ci --prefix tests/node`",
        packages.display()
    );
    Ok(env::var_os("SELVEDGE_NODE").map_or_else(|| PathBuf::from("node"), PathBuf::from))
}

/// A binary of this workspace: an environment variable, or the target directory of this build.
fn binary(name: &str, variable: &str, build: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "{variable} names {}, which is no file", path.display());
        return Ok(path);
    }
    let this = env::current_exe()?;
    // target/PROFILE/deps/e2e-HASH for tests, target/PROFILE/NAME for binaries.
    let found = this.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|p| p.is_file());
    let profile = this.parent().unwrap_or(&this);
    found.ok_or_else(|| {
        anyhow::anyhow!("no `{name}` at or above {}: run `{build}`", profile.display())
    })
}
