//! The same job in Flower's simulation: what it reads is written here, and its answer read.
//!
//! Owns starting it and reading what it says; what runs in Flower is tests/compare/flower.py.

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

/// Runs so many rounds with equal clients and the first weights of seed 0; none where Flower is not
/// installed.
pub(crate) fn run(data: &Divided, rounds: u64) -> Result<Option<Flower>> {
    let python = places::repository().join("target/peers/flower/bin/python");
    if !python.is_file() {
        return Ok(None);
    }
    let home = TempDir::new()?;
    folder::write(home.path(), data, Division::Equal, 0)?;
    let script = places::repository().join("tests/compare/flower.py");
    let (clients, rounds) = (CLIENTS.to_string(), rounds.to_string());
    let words = [script.display().to_string(), home.path().display().to_string()];
    let words = words.into_iter().chain(["--clients".into(), clients, "--rounds".into(), rounds]);
    let words: Vec<String> = words.collect();
    let ran = process::run(&python, &words, None, &[], Deadline::secs(PATIENCE_SECS))?;
    let out = ran.success().context("tests/compare/flower.py")?;
    let line = out.lines().last().context("Flower printed nothing")?;
    let told: Flower = serde_json::from_str(line).context("Flower's last line")?;
    ensure!(!told.seconds.is_empty(), "Flower measured no round");
    Ok(Some(told))
}
