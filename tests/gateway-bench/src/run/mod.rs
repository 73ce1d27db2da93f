//! The order of a run: scenario by scenario, round by round, the sides in turns.
//!
//! Owns the options and the schedule. Every gateway is started anew for every scenario and round
//! and runs alone, so that what one leaves behind is not another's; the order turns round with
//! each round, so that what drifts on the machine falls on all of them.

mod measure;
mod options;
mod table;
mod verdict;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::peers::{Absent, Peer};
use crate::process::{self, Starter};

pub use measure::probe_on;
pub use options::Options;

/// Figures of one gateway in one scenario, by name.
pub type Figures = BTreeMap<String, f64>;

/// Everything a run found out.
#[derive(Debug, Default)]
pub struct Findings {
    /// Medians of the rounds.
    pub figures: BTreeMap<(&'static str, &'static str), Figures>,
    /// Gateways that were not measured.
    pub absent: BTreeMap<&'static str, Absent>,
    /// Gateways that did not serve a scenario, and what they said.
    pub refused: BTreeMap<(&'static str, &'static str), String>,
}

/// Runs everything that is asked for.
///
/// # Errors
/// When the mock upstream or the load generator does not work, or nothing can be measured.
pub fn main(options: Options) -> Result<()> {
    process::raise_limits()?;
    let starter = Starter { first: !options.fair && Starter::can_be_first() };
    starter.join_load_core();
    println!("{}", table::machine(starter.first));
    let (mock, _mock) = starter.part(process::LOAD_CORE, &["mock"])?;
    let bench = measure::Bench {
        starter,
        upstream: mock.parse().context("the mock's address")?,
        spans: options.spans(),
        dir: scratch()?,
    };
    let mut findings = Findings::default();
    let peers = present(&options, &mut findings);
    for scenario in options.scenarios.clone() {
        let mut rounds: BTreeMap<&'static str, Vec<Figures>> = BTreeMap::new();
        // What lasts minutes runs once: its first part is what the rest is compared with.
        let times = if scenario.is_long() { 1 } else { bench.spans.rounds };
        for round in 0..times {
            let mut order: Vec<&(Peer, PathBuf)> = peers.iter().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for (peer, program) in order {
                let name = peer.name();
                let refused = findings.refused.contains_key(&(name, scenario.name()));
                if refused || findings.absent.contains_key(name) || !peer.serves(scenario) {
                    continue;
                }
                match bench.measure(*peer, program, scenario) {
                    Ok(figures) => rounds.entry(name).or_default().push(figures),
                    Err(error) => {
                        eprintln!("{name} {scenario}: {error:#}");
                        findings.refused.insert((name, scenario.name()), format!("{error:#}"));
                    }
                }
            }
        }
        for (name, rounds) in rounds {
            findings.figures.insert((name, scenario.name()), medians(&rounds));
        }
        table::scenario(scenario, &findings);
    }
    std::fs::remove_dir_all(&bench.dir)?;
    give_up_on_silent(&mut findings);
    table::absent(&findings);
    verdict::Verdict::of(&findings, &options).end(&findings, options.json)
}

/// The gateways that are asked for and there; the others are noted as absent.
fn present(options: &Options, findings: &mut Findings) -> Vec<(Peer, PathBuf)> {
    let mut there = Vec::new();
    for peer in &options.peers {
        match peer.program() {
            Ok(program) => there.push((*peer, program)),
            Err(absent) => {
                findings.absent.insert(peer.name(), absent);
            }
        }
    }
    there
}

/// One that answered in no scenario is as good as absent.
fn give_up_on_silent(findings: &mut Findings) {
    let names: Vec<&'static str> = findings.refused.keys().map(|(name, _)| *name).collect();
    for name in names {
        let measured = findings.figures.keys().any(|(known, _)| *known == name);
        let said = findings.refused.iter().find(|((known, _), _)| *known == name);
        if let Some((_, reason)) = said.filter(|_| !measured) {
            let reason = reason.clone();
            findings.absent.insert(name, Absent { reason, command: None });
        }
    }
}

/// The median of each figure over the rounds.
fn medians(rounds: &[Figures]) -> Figures {
    let names = rounds.iter().flat_map(|round| round.keys());
    let median = |name: &String| {
        let mut values: Vec<f64> =
            rounds.iter().filter_map(|round| round.get(name)).copied().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        }
    };
    names.map(|name| (name.clone(), median(name))).collect()
}

/// A directory for what gateways write, removed at the end.
fn scratch() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("selvedge-gateway-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_each_figure() {
        let round = |a: f64| Figures::from([("a".to_owned(), a)]);
        assert_eq!(medians(&[round(3.0), round(1.0), round(2.0)])["a"], 2.0);
        assert_eq!(medians(&[round(3.0), round(1.0)])["a"], 2.0);
    }
}
