//! The same job in Flower's simulation: what it reads is written here, and its answer read.
//!
//! Owns having it installed, starting it and reading what it says; what runs in Flower is
//! tests/compare/flower.py, and what installs it tests/gateway-bench/install.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use selvedge_tests::home::TempDir;
use selvedge_tests::places;
use selvedge_tests::process;
use selvedge_tests::time::Deadline;
use serde::Deserialize;

use crate::divided::{Divided, Division};
use crate::folder;
use crate::run::CLIENTS;

/// Its workers start once, and take half a minute on two cores; a round takes seconds.
const PATIENCE_SECS: u64 = 300;

/// What came of it.
#[derive(Deserialize)]
pub(crate) struct Flower {
    /// Share of digits that were right, by round.
    pub(crate) accuracy: Vec<f64>,
    /// Time of each round but the first, without measuring.
    pub(crate) seconds: Vec<f64>,
    /// CPU time of a round, of all its processes.
    pub(crate) cpu_seconds: f64,
}

/// What installs it, as people call it too.
const INSTALL: &str = "tests/gateway-bench/install";
/// Some hundred megabytes of packages.
const INSTALL_SECS: u64 = 900;
/// A Python that looks whether there is a package, without loading it.
const LOOK_SECS: u64 = 60;
const LOOK: &str = "import importlib.util as u; raise SystemExit(u.find_spec('flwr') is None)";

/// The Python that has Flower, which is installed first where it is not; else why not.
pub(crate) fn python(installs: bool) -> Result<Result<PathBuf, String>> {
    let python = places::repository().join("target/peers/flower/bin/python");
    if is_there(&python)? {
        return Ok(Ok(python));
    }
    if !installs {
        return Ok(Err(format!("Flower is not installed: {INSTALL} flower")));
    }
    say(&format!("installing Flower once, into target/peers: {INSTALL} flower"));
    let script = places::repository().join(INSTALL);
    let deadline = Deadline::secs(INSTALL_SECS);
    // Without a network, or without room: the rest of the table is worth having all the same.
    let ran = process::run(&script, &["flower".to_owned()], None, &[], deadline);
    if let Err(error) = ran.and_then(|ran| ran.success()) {
        say(&format!("{error:#}"));
        return Ok(Err(format!("Flower cannot be installed: {INSTALL} flower says why")));
    }
    ensure!(is_there(&python)?, "{INSTALL} flower left no Flower at {}", python.display());
    Ok(Ok(python))
}

#[expect(clippy::print_stderr, reason = "progress of minutes, beside the table")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// Whether an environment has Flower: one whose installing was cut off has not.
fn is_there(python: &Path) -> Result<bool> {
    if !python.is_file() {
        return Ok(false);
    }
    let words = ["-c", LOOK].map(str::to_owned);
    let looked = process::run(python, &words, None, &[], Deadline::secs(LOOK_SECS))?;
    Ok(looked.status.success())
}

/// Runs so many rounds with equal clients and the first weights of seed 0.
pub(crate) fn run(python: &Path, data: &Divided, rounds: u64) -> Result<Flower> {
    let home = TempDir::new()?;
    folder::write(home.path(), data, Division::Equal, 0)?;
    let script = places::repository().join("tests/compare/flower.py");
    let (clients, rounds) = (CLIENTS.to_string(), rounds.to_string());
    let words = [script.display().to_string(), home.path().display().to_string()];
    let words = words.into_iter().chain(["--clients".into(), clients, "--rounds".into(), rounds]);
    let words: Vec<String> = words.collect();
    let ran = process::run(python, &words, None, &[], Deadline::secs(PATIENCE_SECS))?;
    let out = ran.success().context("tests/compare/flower.py")?;
    let line = out.lines().last().context("Flower printed nothing")?;
    let told: Flower = serde_json::from_str(line).context("Flower's last line")?;
    ensure!(!told.seconds.is_empty(), "Flower measured no round");
    Ok(told)
}
