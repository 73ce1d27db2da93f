//! The settings that are run, the figures they are held against, and what is noted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};
use selvedge_federated::robust::Rule;
use selvedge_federated::round::Mode;
use selvedge_tests::report::Report;
use selvedge_train::Split;

use crate::flower;
use crate::run::{KRUM, Outcome, Setting, run};
use selvedge_tests::digits::Digits;

/// Percent points that a mean may lie below the published figure.
const MARGIN: f64 = 1.0;

/// Divisions of the digits with the published accuracy of FedAvg and SCAFFOLD, in percent (best of
/// 30 rounds, the same model, data and steps, in another program).
const DIVISIONS: &[(&str, Split, f64, f64)] = &[
    ("iid", Split::Equal, 93.2, 93.3),
    ("dirichlet_0_5", Split::Dirichlet(0.5), 92.2, 93.1),
    ("dirichlet_0_1", Split::Dirichlet(0.1), 88.6, 91.5),
    ("two_shards", Split::Shards(2), 87.2, 91.7),
];

/// Under attack: division, mean, multi-Krum; last of 15 rounds, in percent.
const ATTACKED: &[(&str, Split, f64, f64)] =
    &[("iid", Split::Equal, 10.4, 91.6), ("dirichlet_0_5", Split::Dirichlet(0.5), 37.0, 90.3)];

/// Rounds of the jobs that are timed: enough that a slow one does not decide, and Flower's start is
/// spread.
const COMPARED_ROUNDS: u64 = 10;

/// Accuracy without attackers, in shares.
pub(crate) fn accuracy(digits: &[Digits], seeds: &[u64], report: &mut Report) -> Result<()> {
    for scaffold in [false, true] {
        let mut settings = Vec::new();
        for (_, split, ..) in DIVISIONS {
            settings.extend(seeds.iter().map(|&seed| Setting {
                split: *split,
                scaffold,
                mode: Mode::Secure,
                rounds: 30,
                attackers: 0,
                seed,
            }));
        }
        let outcomes = run_all(digits, &settings)?;
        for (division, outcomes) in DIVISIONS.iter().zip(outcomes.chunks(seeds.len())) {
            let (name, _, average, with_control) = division;
            let (strategy, published) =
                if scaffold { ("scaffold", with_control) } else { ("fedavg", average) };
            let mean = percent(outcomes, Outcome::best);
            report.note(&format!("{strategy}_{name}_percent"), mean, None);
            let below = published - mean;
            report.note(&format!("{strategy}_{name}_below"), below, Some(MARGIN));
        }
    }
    Ok(())
}

/// Accuracy with two attackers, in the open.
pub(crate) fn attacked(digits: &[Digits], seeds: &[u64], report: &mut Report) -> Result<()> {
    for (rule, mode) in [("mean", Mode::Plain(Rule::Mean)), ("multi_krum", KRUM)] {
        let mut settings = Vec::new();
        for (_, split, ..) in ATTACKED {
            settings.extend(seeds.iter().map(|&seed| Setting {
                split: *split,
                scaffold: false,
                mode,
                rounds: 15,
                attackers: 2,
                seed,
            }));
        }
        let outcomes = run_all(digits, &settings)?;
        for (division, outcomes) in ATTACKED.iter().zip(outcomes.chunks(seeds.len())) {
            let (name, _, _, krum) = division;
            let mean = percent(outcomes, Outcome::last);
            report.note(&format!("attacked_{rule}_{name}_percent"), mean, None);
            if mode == KRUM {
                report.note(&format!("attacked_{rule}_{name}_below"), krum - mean, Some(MARGIN));
            }
        }
    }
    Ok(())
}

/// Bytes and time of a round, one job at a time; then the same job in Flower.
pub(crate) fn costs(digits: &Digits, report: &mut Report) -> Result<()> {
    let mut own = Vec::new();
    for (name, mode) in [("secure", Mode::Secure), ("plain", Mode::Plain(Rule::Mean))] {
        let setting = Setting {
            split: Split::Equal,
            scaffold: false,
            mode,
            rounds: COMPARED_ROUNDS,
            attackers: 0,
            seed: 1,
        };
        let outcome = run(digits, &setting)?;
        report.note(&format!("{name}_bytes_per_client"), outcome.bytes as f64, None);
        report.note(&format!("{name}_round_ms"), outcome.round.as_secs_f64() * 1e3, None);
        report.note(&format!("{name}_joining_ms"), outcome.joining.as_secs_f64() * 1e3, None);
        report.note(&format!("{name}_last_percent"), 100.0 * outcome.last(), None);
        own.push((name, outcome.round));
    }
    let Some(flower) = flower::run(digits, COMPARED_ROUNDS)? else {
        report.heading("Flower is not measured: tests/gateway-bench/install flower");
        return Ok(());
    };
    report.note("flower_round_ms", flower.seconds * 1e3, None);
    let last = flower.accuracy.last().copied().unwrap_or_default();
    report.note("flower_last_percent", 100.0 * last, None);
    for (name, round) in own {
        let ratio = round.as_secs_f64() / flower.seconds;
        report.note(&format!("{name}_round_to_flower"), ratio, Some(1.0));
    }
    Ok(())
}

fn percent(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> f64 {
    100.0 * outcomes.iter().map(of).sum::<f64>() / outcomes.len().max(1) as f64
}

/// Runs the settings, two at a time where there are two cores; outcomes in their order.
fn run_all(digits: &[Digits], settings: &[Setting]) -> Result<Vec<Outcome>> {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(settings.len());
    let work = || -> Result<Vec<(usize, Outcome)>> {
        let mut own = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(setting) = settings.get(at) else { return Ok(own) };
            // Settings go by seed, and so do the divisions.
            own.push((at, run(&digits[at % digits.len()], setting)?));
        }
    };
    let mut all = thread::scope(|scope| -> Result<Vec<(usize, Outcome)>> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().ok().context("a job panicked")??);
        }
        Ok(all)
    })?;
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, outcome)| outcome).collect())
}
