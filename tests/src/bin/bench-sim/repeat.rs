//! The same seeds in several processes and builds: the hashes must be the same, checkpoint by
//! checkpoint.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use selvedge_sim::{Plan, run};
use selvedge_tests::places::repository;

use crate::report::{Goal, Report};

/// Seeds compared.
const SEEDS: u64 = 32;

/// Runs the seeds here, in another process of this build and in one without optimisation.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let mut here = BTreeMap::new();
    for seed in 0..SEEDS {
        let outcome = run(&Plan::seeded(seed), &mut ()).context("seeded plans are sound")?;
        here.insert(seed, outcome.hash.to_string());
    }
    for (name, profile) in [("process", Some("--release")), ("debug_build", None)] {
        let there = elsewhere(profile)?;
        ensure!(there.len() == here.len(), "{name}: {} hashes", there.len());
        let differing = here.iter().filter(|(seed, hash)| there.get(seed) != Some(hash)).count();
        let figure = format!("divergences_{name}");
        report.note(&figure, differing as f64, Goal::AtMost(0.0));
    }
    report.note("seeds_compared", SEEDS as f64, Goal::None);
    Ok(())
}

/// The hashes that the simulator's own test program prints: another process, with another
/// environment and another folder, perhaps another build.
fn elsewhere(profile: Option<&str>) -> Result<BTreeMap<u64, String>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--package", "selvedge-sim", "--test", "hashes"]);
    cargo.args(profile);
    cargo.args(["--", "--exact", "hashes_of_seeds", "--nocapture"]);
    cargo.env("SELVEDGE_SIM_SEEDS", SEEDS.to_string()).env("RUST_LOG", "trace");
    let output = cargo.current_dir(repository()).output().context("cargo did not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| {
        let (seed, hash) = line.trim().strip_prefix("hash of seed ")?.split_once(": ")?;
        Some((seed.parse().ok()?, hash.to_owned()))
    };
    Ok(text.lines().filter_map(line).collect())
}
