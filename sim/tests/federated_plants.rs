//! Every bug planted in federated rounds is found by seeds that the right machines pass.
//!
//! Needs the feature `plants`: `cargo test -p selvedge-sim --features plants --release --test
//! federated_plants`.

#![cfg(feature = "plants")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use selvedge_base::plant::{self, Plant};
use selvedge_sim::federated::{LYING_PLANTS, MIXING_PLANTS, PLANTS, Plan, run};

/// Seeds a bug may take to be found: the rarest, a promise that is forgotten, takes a thousand.
const SEEDS: u64 = 3_000;

/// The plan of a seed, of the kind that finds a bug.
fn plan_of(bug: Plant, seed: u64) -> Plan {
    if MIXING_PLANTS.contains(&bug) {
        Plan::mixing(seed)
    } else if LYING_PLANTS.contains(&bug) {
        Plan::lying(seed)
    } else {
        Plan::seeded(seed)
    }
}

#[test]
fn every_bug_planted_in_rounds_is_found() {
    let (mut found, mut missed) = (0, Vec::new());
    let wanted = std::env::var("SELVEDGE_SIM_PLANT").ok();
    let is_wanted = |bug: &Plant| wanted.as_deref().is_none_or(|name| name == bug.as_str());
    let all = [PLANTS, MIXING_PLANTS, LYING_PLANTS].concat();
    for bug in all.into_iter().filter(is_wanted) {
        let by = (0..SEEDS).find_map(|seed| {
            let plan = plan_of(bug, seed);
            plant::plant(Some(bug));
            let outcome = run(&plan);
            plant::plant(None);
            let broken = outcome.broken.first().cloned()?;
            run(&plan).broken.is_empty().then_some((seed, broken.promise))
        });
        match by {
            Some((seed, promise)) => {
                found += 1;
                println!("planted {}: seed {seed} breaks {promise:?}", bug.as_str());
            }
            None => missed.push(bug.as_str()),
        }
    }
    println!("{found} planted bugs found, {} missed", missed.len());
    assert!(missed.is_empty(), "not found: {missed:?}");
}
