//! Every scripted scenario ends as it promises, whatever the seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeSet;

use selvedge_base::Micros;
use selvedge_sim::{Plan, run, scenarios};

/// Seeds of each scenario in the gate; `SELVEDGE_SIM_SEEDS` runs more by hand.
const SEEDS: u64 = 3;

#[test]
fn every_scenario_ends_as_it_promises() {
    let seeds = std::env::var("SELVEDGE_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let mut broken = Vec::new();
    for scenario in scenarios() {
        for seed in 0..seeds.unwrap_or(SEEDS) {
            let plan = Plan::scenario(scenario.name, 0, seed).unwrap();
            let outcome = run(&plan, &mut ()).unwrap();
            if let Err(why) = scenario.judge(&plan, &outcome) {
                broken.push(format!("{} with seed {seed}: {why}", scenario.name));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Each node looks at eight others at a time; a freeze is known in time in a larger mesh, too.
#[test]
fn a_freeze_is_seen_in_time_in_a_mesh_of_any_size() {
    for nodes in [24, 60] {
        for seed in 0..SEEDS {
            let plan = Plan::scenario("frozen-peer", nodes, seed).unwrap();
            let outcome = run(&plan, &mut ()).unwrap();
            let slowest = outcome.detections.frozen.iter().max().copied();
            println!("{nodes} nodes, seed {seed}: {slowest:?}");
            assert_eq!(outcome.violations, [], "{nodes} nodes, seed {seed}");
            assert!(slowest.is_some_and(|took| took <= Micros::secs(2)), "{slowest:?}");
        }
    }
}

#[test]
fn every_scenario_is_a_page_of_toml() {
    let names: BTreeSet<&str> = scenarios().iter().map(|scenario| scenario.name).collect();
    assert_eq!(names.len(), scenarios().len());
    for scenario in scenarios() {
        assert!(!scenario.incident.is_empty());
        let plan = Plan::scenario(scenario.name, 0, 7).unwrap();
        let page = plan.to_toml().unwrap();
        assert_eq!(Plan::from_toml(&page).unwrap(), plan, "{}", scenario.name);
        let larger = Plan::scenario(scenario.name, 9, 7).unwrap();
        assert_eq!(larger.nodes, 9);
    }
    for seed in 0..200 {
        let plan = Plan::seeded(seed);
        assert_eq!(Plan::from_toml(&plan.to_toml().unwrap()).unwrap(), plan, "seed {seed}");
    }
}
