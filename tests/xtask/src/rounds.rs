//! Federated rounds under drawn faults: many seeds, and the planted bugs.
//!
//! Owns how the simulator's tests are called; what must hold is theirs.

use anyhow::Result;

use crate::check;

/// The package of the simulator.
const PACKAGE: &str = "selvedge-sim";
/// Its tests of rounds: seeds that must hold, proposers that die around each of their steps, bugs
/// that must be found, and stewards who do not know of each other.
const TESTS: [&str; 4] =
    ["federated", "federated_proposers", "federated_plants", "federated_stewards"];
/// Tells the first one how many seeds it runs.
const SEEDS: &str = "SELVEDGE_SIM_SEEDS";
/// Tells the second one to sweep every number of anchors, in how many seeds each.
const SWEEPS: &str = "SELVEDGE_SIM_SWEEPS";
/// So many: what a turn's steps are hardly depends on the seed, when they come does.
const SWEPT_SEEDS: &str = "3";

/// Runs so many seeds, from 0 on, kills the proposer around every step for each number of anchors,
/// and looks for every planted bug. False if a promise was broken or a bug missed.
pub(crate) fn run(seeds: u64) -> Result<bool> {
    check::run_with("cargo", &arguments(), &[(SEEDS, &seeds.to_string()), (SWEEPS, SWEPT_SEEDS)])
}

fn arguments() -> Vec<&'static str> {
    // Optimised: a thousand seeds are minutes, not an hour.
    let mut args = vec!["test", "--release", "--package", PACKAGE, "--features", "plants"];
    args.extend(TESTS.iter().flat_map(|test| ["--test", test]));
    args.extend(["--", "--nocapture"]);
    args
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::repo;

    #[test]
    fn what_is_called_is_there() {
        let folder = repo::root().join("sim");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = \"{PACKAGE}\"")));
        assert!(manifest.contains("plants = ["));
        let read = |test: &str| {
            std::fs::read_to_string(folder.join("tests").join(format!("{test}.rs"))).unwrap()
        };
        assert!(read(TESTS[0]).contains(&format!("var(\"{SEEDS}\")")));
        assert!(read(TESTS[1]).contains(&format!("var(\"{SWEEPS}\")")));
        assert!(read(TESTS[2]).contains("#![cfg(feature = \"plants\")]"));
    }
}
