//! The same job in Flower's simulation: what it reads is written here, and its answer read.
//!
//! Owns the folder between the two programs; what runs in Flower is tests/compare/flower.py.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use selvedge_tests::digits::{Digits, model};
use selvedge_tests::home::TempDir;
use selvedge_tests::places;
use selvedge_tests::process;
use selvedge_tests::time::Deadline;
use selvedge_train::{Examples, Split, split};
use serde::Deserialize;

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

/// Runs so many rounds with equal clients and the first weights of seed 1; none where Flower is not
/// installed.
pub(crate) fn run(digits: &Digits, rounds: u64) -> Result<Option<Flower>> {
    let python = places::repository().join("target/peers/flower/bin/python");
    if !python.is_file() {
        return Ok(None);
    }
    let home = TempDir::new()?;
    write(home.path(), digits)?;
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

fn write(folder: &Path, digits: &Digits) -> Result<()> {
    let clients = split(&digits.train, CLIENTS, Split::Equal, 1)?;
    for (at, client) in clients.iter().enumerate() {
        write_examples(folder, &format!("client-{at}"), client)?;
    }
    write_examples(folder, "test", &digits.test)?;
    fs::write(folder.join("first.f32"), bytes(&model().first(1)?))?;
    Ok(())
}

fn write_examples(folder: &Path, name: &str, examples: &Examples) -> Result<()> {
    fs::write(folder.join(format!("{name}.x")), bytes(examples.values()))?;
    let labels: Vec<u8> = examples.labels().iter().flat_map(|label| label.to_le_bytes()).collect();
    fs::write(folder.join(format!("{name}.y")), labels)?;
    Ok(())
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
