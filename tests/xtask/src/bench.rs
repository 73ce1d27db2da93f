//! Dispatch to the benchmark programs `bench-NAME` of the packages that hold them.
//!
//! Owns finding and starting them; what is measured and which targets hold is theirs.

use anyhow::{Result, bail};
use cargo_metadata::Metadata;

use crate::{check, repo};

/// The packages that hold the benchmark programs. The second one depends on nothing of the product
/// and the third one on its engine alone, so that they build without the rest.
const PACKAGES: &[&str] = &["selvedge-tests", "selvedge-gateway-bench", "selvedge-inference-bench"];
/// How their names begin.
const PREFIX: &str = "bench-";
/// Those that start no node, unless they are told to measure one: they need not wait for the
/// program to be built.
const WITHOUT_NODES: &[&str] = &["federated", "inference", "instructions", "sim"];

/// Runs the benchmark `name` with `more` arguments, or lists what there is. False if it failed.
pub(crate) fn run(name: Option<&str>, json: bool, more: &[String]) -> Result<bool> {
    let known = known(&repo::metadata()?);
    let Some(name) = name else {
        let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        println!("benchmarks: {}", names.join(", "));
        return Ok(true);
    };
    let Some((_, package)) = known.iter().find(|(known, _)| known == name) else {
        let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        bail!("no benchmark {name}; there are: {}", names.join(", "));
    };
    let program = format!("{PREFIX}{name}");
    // The benchmarks start the shipped binary: it must be the one built from this tree.
    if starts_nodes(name, more)
        && !check::run("cargo", &["build", "--release", "--package", "selvedge"])?
    {
        return Ok(false);
    }
    // Its programs start each other.
    if *package == PACKAGES[1]
        && !check::run("cargo", &["build", "--release", "--package", package, "--bins"])?
    {
        return Ok(false);
    }
    let mut args = vec!["run", "--quiet", "--release", "--package", package, "--bin", &program];
    args.push("--");
    if json {
        args.push("--json");
    }
    args.extend(more.iter().map(String::as_str));
    check::run("cargo", &args)
}

/// Whether a benchmark starts the shipped binary. Where it is told what to measure (`--only`), it
/// does if that is among it.
fn starts_nodes(name: &str, more: &[String]) -> bool {
    let mut words = more.iter();
    let only = words.find(|word| *word == "--only").and_then(|_| words.next());
    match only {
        Some(list) => list.split(',').any(|name| name == "selvedge"),
        None => !WITHOUT_NODES.contains(&name),
    }
}

/// The names of all benchmarks, each with its package.
fn known(metadata: &Metadata) -> Vec<(String, &'static str)> {
    let mut names = Vec::new();
    for package in PACKAGES {
        let found = metadata.packages.iter().find(|found| found.name.as_str() == *package);
        let programs =
            found.into_iter().flat_map(|found| &found.targets).filter(|one| one.is_bin());
        names.extend(programs.filter_map(|program| {
            let name = program.name.strip_prefix(PREFIX)?;
            Some((name.to_owned(), *package))
        }));
    }
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_benchmark_is_refused_by_name() {
        let error = run(Some("no-such-benchmark"), false, &[]).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("no benchmark no-such-benchmark")));
    }

    #[test]
    fn the_product_is_built_when_it_is_measured() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(starts_nodes("gateway", &[]));
        assert!(starts_nodes("gateway", &words("--quick --only nginx,selvedge")));
        assert!(!starts_nodes("gateway", &words("--quick --only nginx,floor")));
        assert!(!starts_nodes("sim", &[]) && !starts_nodes("instructions", &[]));
        assert!(starts_nodes("instructions", &words("--only selvedge")));
    }
}
