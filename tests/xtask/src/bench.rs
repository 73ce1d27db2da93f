//! Dispatch to the benchmark programs `bench-NAME` of the package `selvedge-tests`.
//!
//! Owns finding and starting them; what is measured and which targets hold is theirs.

use anyhow::{Result, bail};
use cargo_metadata::Metadata;

use crate::{check, repo};

/// The package that holds the benchmark programs.
const PACKAGE: &str = "selvedge-tests";
/// How their names begin.
const PREFIX: &str = "bench-";
/// Those that start no node: they need not wait for the program to be built.
const WITHOUT_NODES: &[&str] = &["sim"];

/// Runs the benchmark `name`, or lists what there is. False if it failed.
pub(crate) fn run(name: Option<&str>, json: bool) -> Result<bool> {
    let known = known(&repo::metadata()?);
    let Some(name) = name else {
        println!("benchmarks: {}", known.join(", "));
        return Ok(true);
    };
    if !known.iter().any(|known| known == name) {
        bail!("no benchmark {name}; there are: {}", known.join(", "));
    }
    let program = format!("{PREFIX}{name}");
    // The benchmarks start the shipped binary: it must be the one built from this tree.
    let starts_nodes = !WITHOUT_NODES.contains(&name);
    if starts_nodes && !check::run("cargo", &["build", "--release", "--package", "selvedge"])? {
        return Ok(false);
    }
    let mut args = vec!["run", "--quiet", "--release", "--package", PACKAGE, "--bin", &program];
    if json {
        args.extend(["--", "--json"]);
    }
    check::run("cargo", &args)
}

fn known(metadata: &Metadata) -> Vec<String> {
    let package = metadata.packages.iter().find(|package| package.name.as_str() == PACKAGE);
    let targets = package.into_iter().flat_map(|package| &package.targets);
    let mut names: Vec<String> = targets
        .filter(|target| target.is_bin())
        .filter_map(|target| target.name.strip_prefix(PREFIX).map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_benchmark_is_refused_by_name() {
        let error = run(Some("no-such-benchmark"), false).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("no benchmark no-such-benchmark")));
    }
}
