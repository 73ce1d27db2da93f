//! The same jobs by numpy: plain rounds in one program, written from the papers.
//!
//! Owns handing them over and reading their accuracy; what computes is tests/compare/rounds.py. On
//! the same divisions and first weights most of the luck is the same on both sides, so that few
//! seeds tell whether rounds lose something by being shares of integers among machines.

use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_tests::home::TempDir;
use selvedge_tests::places;
use selvedge_tests::process;
use selvedge_tests::time::Deadline;
use serde_json::json;

use crate::divided::Divided;
use crate::folder;
use crate::run::{CLIENTS, KRUM, Setting};

/// A job takes some ten seconds on one core, and a table of `--seeds 30` has a hundred and twenty.
const PATIENCE_SECS: u64 = 3_600;

/// Of every setting the share of digits that was right, by round.
pub(crate) fn run_all(data: &Divided, settings: &[Setting]) -> Result<Vec<Vec<f64>>> {
    let home = TempDir::new()?;
    let mut jobs = Vec::new();
    for (at, setting) in settings.iter().enumerate() {
        let (name, strategy) = (at.to_string(), strategy(setting));
        let own = home.path().join(&name);
        fs::create_dir(&own)?;
        folder::write(&own, data, setting.division, setting.seed)?;
        jobs.push(json!({
            "folder": name, "strategy": strategy, "clients": CLIENTS,
            "rounds": setting.rounds, "attackers": setting.attackers, "seed": setting.seed,
        }));
    }
    fs::write(home.path().join("jobs.json"), serde_json::to_vec(&jobs)?)?;
    let script = places::repository().join("tests/compare/rounds.py");
    let words = [script.display().to_string(), home.path().display().to_string()];
    let deadline = Deadline::secs(PATIENCE_SECS);
    let ran = process::run(&places::python()?, &words, None, &[], deadline)?;
    let out = ran.success().context("tests/compare/rounds.py")?;
    let line = out.lines().last().context("the rounds in numpy printed nothing")?;
    let told: Vec<Vec<f64>> = serde_json::from_str(line).context("the last line of rounds.py")?;
    ensure!(told.len() == settings.len(), "{} jobs of {}", told.len(), settings.len());
    Ok(told)
}

/// The strategy's name there.
fn strategy(setting: &Setting) -> &'static str {
    match (setting.scaffold, setting.mode == KRUM) {
        (true, _) => "scaffold",
        (false, true) => "multi_krum",
        (false, false) => "average",
    }
}
