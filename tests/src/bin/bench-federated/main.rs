//! `cargo xtask bench federated`: how well models learn that nodes train together, at what cost.
//!
//! Owns the order of the measurements: accuracy by strategy and by how unequal the clients' data
//! are, accuracy under attack, both beside the same jobs in numpy; then bytes and time of a round,
//! beside the same job in Flower, which is installed once unless `--as-is` says not to; without it
//! its targets are missed, as is the time that all of it may take. The rounds are those of the
//! product: its machines, real shares, real signatures, in one process without network or disk.
//! Every setting runs with three seeds; `--quick` runs one, `--seeds N` as many as that, which
//! tells luck with a division from more; `--costs` measures bytes and time alone.

mod divided;
mod fleet;
mod flower;
mod folder;
mod reference;
mod run;
mod table;

use anyhow::{Context, Result, bail, ensure};
use divided::Divided;
use selvedge_tests::Stopwatch;
use selvedge_tests::report::Report;

/// Seeds of each setting. With Dirichlet 0.1 one division lies 1.5 points from the next, so that a
/// mean of three is known to 0.9 points; the same divisions in numpy take most of that luck out.
const SEEDS: u64 = 3;
/// All of it takes no more on two cores, but for what is built and installed once.
const MAX_MINUTES: f64 = 10.0;
/// The most that can be asked for: an hour and a half on two cores.
const MAX_SEEDS: u64 = 30;

fn main() -> Result<()> {
    let (mut as_json, mut costs, mut installs, mut count) = (false, false, true, SEEDS);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => as_json = true,
            "--quick" => count = 1,
            "--seeds" => {
                let said = words.next().context("--seeds needs a number")?;
                count = said.parse().with_context(|| format!("--seeds {said}"))?;
                ensure!((1..=MAX_SEEDS).contains(&count), "--seeds takes 1 to {MAX_SEEDS}");
            }
            "--costs" => costs = true,
            "--as-is" => installs = false,
            other => bail!(
                "unknown option `{other}`; there are --json, --quick, --seeds N, --costs, --as-is"
            ),
        }
    }
    let seeds: Vec<u64> = (0..if costs { 1 } else { count }).collect();
    // Once in the life of a checkout, and no measurement.
    let python = flower::python(installs)?;
    let begun = Stopwatch::start();
    let data = Divided::load(seeds.len() as u64)?;
    let mut report = Report::default();
    if !costs {
        learning(&data, &seeds, &mut report)?;
    }
    report.heading("a round of ten clients and five anchors, 79,510 weights");
    table::costs(&data, &python, &mut report)?;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    report.note("minutes", minutes, (!costs && count <= SEEDS).then_some(MAX_MINUTES));
    report.end(as_json)
}

/// How well models learn, honest clients and others.
fn learning(data: &Divided, seeds: &[u64], report: &mut Report) -> Result<()> {
    report.heading("accuracy: best round of 30, percent, mean of the seeds (percent points below)");
    table::accuracy(data, seeds, report)?;
    report.heading("two of ten clients send what is wrong: last of 15 rounds (rounds: mean of 15)");
    table::attacked(data, seeds, report)
}
