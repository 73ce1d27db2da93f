//! The same jobs by numpy: plain rounds in one program, written from the papers.
//!
//! Owns handing them over and reading their accuracy; what computes is tests/compare/rounds.py. On
//! the same divisions and first weights most of the luck is the same on both sides, so that few
//! seeds tell whether rounds lose something by being shares of integers among machines.

use std::fs;
use std::iter;

use anyhow::{Context, Result, ensure};
use selvedge_tests::home::TempDir;
use selvedge_tests::places;
use selvedge_tests::process;
use selvedge_tests::time::Deadline;
use serde_json::json;

use crate::divided::Divided;
use crate::folder;
use crate::run::{CLIENTS, CLIP_VALUE, KRUM, Setting};

/// A job takes some ten seconds on one core, and a table of `--seeds 30` has 180 at most.
const PATIENCE_SECS: u64 = 3_600;

/// Of every setting the share of digits that was right, by round: the mean of so many orders of the
/// clients' examples, at least one.
pub(crate) fn run_all(
    data: &Divided,
    settings: &[Setting],
    orders: usize,
) -> Result<Vec<Vec<f64>>> {
    let home = TempDir::new()?;
    let mut jobs = Vec::new();
    for (at, setting) in settings.iter().enumerate() {
        let (name, strategy) = (at.to_string(), strategy(setting));
        let own = home.path().join(&name);
        fs::create_dir(&own)?;
        folder::write(&own, data, setting.division, setting.seed)?;
        jobs.extend((0..orders).map(|order| {
            json!({
                "folder": name, "strategy": strategy, "clients": CLIENTS, "clip": CLIP_VALUE,
                "rounds": setting.rounds, "attackers": setting.attackers,
                "seed": setting.seed, "order": order,
            })
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
    let asked = settings.iter().flat_map(|one| iter::repeat_n(one.rounds, orders));
    let found = told.iter().map(|one| one.len() as u64);
    ensure!(found.eq(asked), "rounds.py ran other jobs or rounds than it was asked for");
    Ok(told.chunks(orders).map(mean_by_round).collect())
}

/// Of each round the mean of all orders, which have as many rounds.
fn mean_by_round(orders: &[Vec<f64>]) -> Vec<f64> {
    let rounds = orders.first().map_or(0, Vec::len);
    let mean = |at: usize| orders.iter().map(|one| one[at]).sum::<f64>() / orders.len() as f64;
    (0..rounds).map(mean).collect()
}

/// The strategy's name there.
fn strategy(setting: &Setting) -> &'static str {
    match (setting.scaffold, setting.mode == KRUM) {
        (true, _) => "scaffold",
        (false, true) => "multi_krum",
        (false, false) => "average",
    }
}
