//! What can be typed after `selvedge sim`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  selvedge sim list                                   the stories there are
  selvedge sim run --scenario crash-on-a-lan --short  watch one, a line per event
  selvedge sim run --seed 42 --html run.html          a timeline to open in a browser
  selvedge sim swarm --seeds 500                      many seeds, on all cores
  selvedge sim replay --seed 42                       the same run again: the same hash
  selvedge sim shrink --seed 42 --out small.toml      a failing plan, made small
  selvedge sim diff 41 42                             where two runs part

Whole meshes on virtual time, in one thread, bit for bit the same each time. The exit code is 1
when something that must hold did not. Nothing is read from or written to the home.";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Sim {
    /// Run one plan: a scenario, a seed or a file
    Run(Run),
    /// Run many seeds and tell what broke
    Swarm(Swarm),
    /// Run something again, twice, and compare the hashes
    Replay(Replay),
    /// Make a failing plan small
    Shrink(Shrink),
    /// Find the first event in which two runs differ
    Diff(Diff),
    /// List the scenarios, or what is checked
    List(List),
}

/// What to run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Source {
    /// A scripted story; `selvedge sim list` names them
    #[arg(long, value_name = "NAME", conflicts_with = "plan")]
    pub(crate) scenario: Option<String>,
    /// How many nodes [default: as many as the scenario was written for]
    #[arg(long, value_name = "N", requires = "scenario")]
    #[arg(value_parser = clap::value_parser!(u16).range(2..=1_000))]
    pub(crate) nodes: Option<u16>,
    /// Where all chance comes from; without a scenario the plan too [default: 0]
    #[arg(long, value_name = "S", conflicts_with = "plan")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=9_223_372_036_854_775_807))]
    pub(crate) seed: Option<u64>,
    /// A plan written down, or a run recorded with --trace
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
}

/// What to make of a run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Show {
    /// End with one JSON object on a line; `hash` is the hash of the trace
    #[arg(long)]
    pub(crate) json: bool,
    /// Print a line per event, a column per node
    #[arg(long)]
    pub(crate) short: bool,
    /// Write a timeline: one file, to be opened in a browser
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write what another process or build needs to compare its run with this one
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// A plan, a shrunk failure, or a run recorded with --trace
    #[arg(value_name = "FILE", conflicts_with_all = ["scenario", "seed", "plan"])]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Swarm {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) seeds: u64,
    /// The first of them
    #[arg(long, value_name = "S", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=9_000_000_000_000_000_000))]
    pub(crate) from: u64,
    /// Run this scenario with every seed instead of seeded plans
    #[arg(long, value_name = "NAME")]
    pub(crate) scenario: Option<String>,
    /// Threads; the result does not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// End with one JSON object on a line; `hash` is over the hashes of all runs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Shrink {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Keep this invariant broken, by its id [default: the first that breaks]
    #[arg(long, value_name = "ID")]
    pub(crate) invariant: Option<String>,
    /// Stop searching after so long; what was found until then counts
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) within: u64,
    /// Write the small plan here [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// End with one JSON object on a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// One run: a seed, a plan, or a run recorded with --trace
    pub(crate) left: String,
    /// The other run
    pub(crate) right: String,
    /// End with one JSON object on a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// List what must hold in every run instead
    #[arg(long, conflicts_with_all = ["marks", "faults"])]
    pub(crate) invariants: bool,
    /// List what must happen in some run instead
    #[arg(long, conflicts_with = "faults")]
    pub(crate) marks: bool,
    /// List what can break instead
    #[arg(long)]
    pub(crate) faults: bool,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
