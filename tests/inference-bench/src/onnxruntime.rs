//! ONNX Runtime on this machine: packages of pinned versions and digests in an environment of its
//! own, and the model of embeddings written in its format.
//!
//! Owns the steps and what each says when it cannot be done. Everything lies in
//! `target/onnxruntime`; nothing is installed elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::llama::run;
use crate::place::repository;

/// Its version, which names the folder: the packages are in `onnxruntime/requirements.txt`.
const VERSION: &str = "1.32.0";
/// What brings the tools.
const BRING: &str = "apt-get install python3 python3-venv (Python 3.11 or newer)";

/// What measures it.
pub(crate) struct Peer {
    /// Python with the packages.
    pub(crate) python: PathBuf,
    /// The program that it runs.
    pub(crate) driver: PathBuf,
    /// The model in its format.
    pub(crate) model: PathBuf,
    /// The words that texts are made of.
    pub(crate) words: PathBuf,
}

/// Installs what is not there and writes the model of `folder`.
pub(crate) fn peer(folder: &Path) -> Result<Peer> {
    let home = repository().join("target/onnxruntime").join(VERSION);
    fs::create_dir_all(&home).with_context(|| format!("creating {}", home.display()))?;
    let lock = fs::File::create(home.join(".lock")).context("creating a lock file")?;
    lock.lock().context("waiting for whoever installs ONNX Runtime")?;
    let sources = repository().join("tests/inference-bench/onnxruntime");
    let python = home.join("venv/bin/python");
    let wanted = fs::read(sources.join("requirements.txt"))?;
    let note = home.join("installed.txt");
    // Written last: a step that was interrupted is done again.
    if fs::read(&note).unwrap_or_default() != wanted {
        install(&home, &sources, &python)?;
        fs::write(&note, wanted)?;
    }
    let model = home.join("model.onnx");
    let part = home.join("model.part");
    say("writing the model as ONNX");
    let mut export = Command::new(&python);
    export.arg(sources.join("export.py")).arg(folder).arg(&part);
    run(&mut export, BRING)?;
    fs::rename(&part, &model)?;
    let (driver, words) = (sources.join("driver.py"), sources.join("words.txt"));
    Ok(Peer { python, driver, model, words })
}

fn install(home: &Path, sources: &Path, python: &Path) -> Result<()> {
    say(&format!("installing {VERSION} with pip"));
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(home.join("venv"));
    run(&mut venv, BRING)?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--require-hashes", "--only-binary", ":all:", "--requirement"]);
    pip.arg(sources.join("requirements.txt"));
    run(&mut pip, BRING)
}

#[expect(clippy::print_stderr, reason = "progress of minutes, beside the table")]
fn say(text: &str) {
    eprintln!("ONNX Runtime: {text}");
}
