//! How soon planted bugs are found, and how small their failures become.
//!
//! Asked of the simulator's own test program, built with the feature `plants`: it prints a line
//! per bug.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use selvedge_tests::places::repository;
use selvedge_tests::time::Stopwatch;
use serde_json::json;

use crate::report::{Goal, Report};

/// A bug that was found.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    seed: u64,
    faults: u64,
}

/// Builds the simulator with the bugs in it, and reads what came of them.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let started = Stopwatch::start();
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--release", "--package", "selvedge-sim"]);
    cargo.args(["--features", "plants", "--test", "plants", "--", "--nocapture"]);
    let output = cargo.current_dir(repository()).output().context("cargo did not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("planted ")).collect();
    ensure!(!lines.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let mut found: Vec<Found> = lines.iter().filter_map(|line| parsed(line)).collect();
    let missed: Vec<&&str> = lines.iter().filter(|line| parsed(line).is_none()).collect();
    report.note("planted_bugs", lines.len() as f64, Goal::AtLeast(24.0));
    report.note("planted_bugs_not_found", missed.len() as f64, Goal::AtMost(0.0));
    report.tell("planted_bugs_missed", json!(missed));
    let shrunk = found.iter().filter(|one| one.faults <= 10).count();
    let share = 100.0 * shrunk as f64 / found.len().max(1) as f64;
    report.note("shrunk_to_10_faults_percent", share, Goal::AtLeast(90.0));
    found.sort_by_key(|one| one.seed);
    // A seed counts from 0, so the first one takes one run.
    let seeds = |at: usize| found.get(at).map_or(0.0, |one| (one.seed + 1) as f64);
    report.note("seeds_to_find_median", seeds(found.len() / 2), Goal::AtMost(50.0));
    report.note("seeds_to_find_max", seeds(found.len().saturating_sub(1)), Goal::AtMost(1_000.0));
    report.note("planted_bugs_wall_s", started.elapsed().as_secs_f64(), Goal::None);
    Ok(())
}

/// `planted NAME: seed N breaks ID, B faults shrink to A in R runs`.
fn parsed(line: &str) -> Option<Found> {
    let (_, rest) = line.split_once(": seed ")?;
    let (seed, rest) = rest.split_once(" breaks ")?;
    let (_, rest) = rest.split_once("shrink to ")?;
    let (faults, _) = rest.split_once(' ')?;
    Some(Found { seed: seed.parse().ok()?, faults: faults.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_test_program_are_read() {
        let line = "planted GiveFromSpent: seed 12 breaks Q2, 5 faults shrink to 1 in 38 runs";
        assert_eq!(parsed(line), Some(Found { seed: 12, faults: 1 }));
        assert_eq!(parsed("planted FreezeUnseen: not found within 1000 seeds"), None);
    }
}
