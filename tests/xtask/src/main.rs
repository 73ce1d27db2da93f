//! The project's own automation: `cargo xtask NAME`.
//!
//! Owns what the gate checks, how the tests are run, how test models are fetched and how the
//! generated reference pages are made. Depends on no other crate of the workspace, so that it
//! builds in seconds and still runs while they do not compile.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what this program is for"
)]

mod arm;
mod bench;
mod check;
mod deny;
mod docs;
mod layers;
mod lexer;
mod miri;
mod models;
mod needs;
#[cfg(test)]
mod pictures_tests;
mod repo;
mod report;
mod rounds;
mod suite;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, checks, tests and measures Selvedge.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch the test models, then run everything `test` runs: what the gate checks.
    Ci,
    /// Run every check and every test. Installs nothing; names what is missing.
    Test,
    /// Run the checks that need no build: formatting, layers, tidy, licences.
    Check,
    /// Run the kernels' tests on emulated ARM processors, one of each class.
    Arm,
    /// Run the kernels' tests in Miri, which finds undefined behaviour, for each set of
    /// instructions of x86-64. Takes a nightly toolchain, and minutes for single tests.
    Miri,
    /// Run a benchmark: `cargo xtask bench mesh`.
    Bench {
        /// Which one; without a name the known ones are listed.
        name: Option<String>,
        /// End with one JSON object that holds the figures and the list of missed targets.
        #[arg(long)]
        json: bool,
        /// What else the benchmark takes, such as `--quick` and `--only NAME,...` of `gateway`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
    /// Try parsers with mutations of the stored corpus; what fails is minimized and kept in it.
    Fuzz {
        /// The target, or `all`; without one they are listed.
        target: Option<String>,
        /// What else it takes: `--seconds N`, `--seed N`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
    /// Run federated rounds under drawn faults, kill the proposer around every step, and look for
    /// every planted bug.
    SimFederated {
        /// How many seeds, from 0 on.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
    },
    /// Fetch the models the tests use into .models/ and check their digests.
    Models,
    /// Write the generated reference pages docs/cli.md and docs/config.md.
    Docs {
        /// Change nothing; fail if a page is not current.
        #[arg(long)]
        check: bool,
    },
    /// Check that crates depend on each other and on others only as ARCHITECTURE.md allows.
    Layers,
    /// Check sizes, headers, determinism rules, links and documented commands.
    Tidy {
        /// Also list the files over the soft limit.
        #[arg(long)]
        report: bool,
    },
    /// Check licences, banned crates and known-bad versions.
    Deny,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Carries out one command; `false` when what it checked does not hold.
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Ci => {
            models::fetch()?;
            suite::test()
        }
        Command::Test => suite::test(),
        Command::Check => suite::check(),
        Command::Arm => arm::test(),
        Command::Miri => miri::test(),
        Command::Bench { name, json, more } => bench::run(name.as_deref(), json, &more),
        Command::Fuzz { target, more } => {
            // Without optimisation: overflows and broken assertions are found, too.
            let mut args = vec!["run", "--quiet", "--package", "selvedge-fuzz", "--"];
            args.extend(target.iter().chain(&more).map(String::as_str));
            check::run("cargo", &args)
        }
        Command::SimFederated { seeds } => rounds::run(seeds),
        Command::Models => models::fetch().map(|()| true),
        Command::Docs { check: true } => Ok(report::show("docs", &docs::check()?)),
        Command::Docs { check: false } => docs::write().map(|()| true),
        Command::Layers => Ok(report::show("layers", &layers::check()?)),
        Command::Tidy { report } => {
            if report {
                tidy::print_long_files()?;
            }
            Ok(report::show("tidy", &tidy::check()?))
        }
        Command::Deny => Ok(report::show("deny", &deny::check()?)),
    }
}
