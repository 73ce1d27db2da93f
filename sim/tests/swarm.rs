//! Whole meshes under seeded faults: the promises hold, and runs repeat bit for bit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeSet;

use selvedge_base::Micros;
use selvedge_sim::plan::{ClientPlan, FAULT_NAMES, FaultKind, PerPeriod, PlanError, TenantPlan};
use selvedge_sim::swarm::{percentile, swarm};
use selvedge_sim::{Mark, Plan, run, scenarios};

/// Seeds of the gate: enough that every fault family fires many times. `SELVEDGE_SIM_SEEDS` runs
/// more by hand.
const SEEDS: u64 = 400;

/// Faults that no seed draws, only stories do.
const OF_STORIES: &[&str] = &["low battery", "hot"];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn the_promises_hold_over_hundreds_of_seeds() {
    let report = swarm(0..number("SELVEDGE_SIM_SEEDS").unwrap_or(SEEDS));
    println!("{report}");
    assert_eq!(report.runs, number("SELVEDGE_SIM_SEEDS").unwrap_or(SEEDS));
    assert!(report.failures.is_empty(), "{report}");
    // A fault that never fires proves nothing.
    let mut marks = report.marks.clone();
    let mut told: BTreeSet<String> = BTreeSet::new();
    for scenario in scenarios() {
        let plan = Plan::scenario(scenario.name, 0, 0).unwrap();
        let outcome = run(&plan, &mut ()).unwrap();
        marks.add(&outcome.marks);
        told.extend(outcome.counters.fired.into_keys());
    }
    let fires = |name: &str| match OF_STORIES.contains(&name) {
        true => told.contains(name),
        false => report.fired.contains_key(name),
    };
    let idle: Vec<_> = FAULT_NAMES.iter().filter(|name| !fires(name)).collect();
    assert!(idle.is_empty(), "never had an effect: {idle:?}");
    let missed = marks.missed();
    assert!(missed.len() * 20 <= Mark::ALL.len(), "never happened: {missed:?}");
    assert!(report.imperfections.iter().all(|count| *count > 100), "{:?}", report.imperfections);
    let bounds = [
        (&report.detections.silent, Micros::secs(3)),
        (&report.detections.reset, Micros::secs(1)),
        (&report.detections.frozen, Micros::secs(2)),
    ];
    for (samples, bound) in bounds {
        assert!(samples.len() >= 10, "{}", samples.len());
        assert!(percentile(samples, 990) <= Some(bound), "{report}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..12 {
        let plan = Plan::seeded(seed);
        let (first, second) = (run(&plan, &mut ()).unwrap(), run(&plan, &mut ()).unwrap());
        assert_eq!(first.checkpoints, second.checkpoints, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(
        run(&Plan::seeded(1), &mut ()).unwrap().hash,
        run(&Plan::seeded(2), &mut ()).unwrap().hash
    );
}

#[test]
fn another_process_comes_to_the_same_hash() {
    // Addresses in memory, hash seeds and the like differ between processes, not within one.
    let outcome = run(&Plan::seeded(5), &mut ()).unwrap();
    let other = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["replay", "--exact", "--nocapture"])
        .env("SELVEDGE_SIM_SEED", "5")
        .output()
        .unwrap();
    let printed = String::from_utf8(other.stdout).unwrap();
    assert!(printed.contains(&format!("hash {}", outcome.hash)), "{printed}");
}

#[test]
fn replay() {
    // One seed, given by hand; without one, the first.
    let plan = Plan::seeded(number("SELVEDGE_SIM_SEED").unwrap_or(0));
    let outcome = run(&plan, &mut ()).unwrap();
    println!("{plan:#?}\n{outcome}");
    assert!(outcome.violations.is_empty(), "{outcome}");
}

#[test]
fn a_fault_that_is_left_out_does_not_move_the_others() {
    let plan = Plan::seeded((0..).find(|seed| Plan::seeded(*seed).faults.len() >= 3).unwrap());
    let again = Plan::seeded(plan.seed);
    assert_eq!(plan, again);
    let mut fewer = plan.clone();
    fewer.faults.remove(0);
    let (all, some) = (run(&plan, &mut ()).unwrap(), run(&fewer, &mut ()).unwrap());
    assert_ne!(all.hash, some.hash);
    assert!(some.violations.is_empty(), "{some}");
}

#[test]
fn a_crash_on_a_calm_lan_is_seen_in_time() {
    let at = Micros::secs(14);
    let crash = FaultKind::Crash { node: 1, reset: false };
    let outcome = run(&Plan::calm(7, 5).with(crash, at, Micros::secs(6)), &mut ()).unwrap();
    assert!(outcome.violations.is_empty(), "{outcome}");
    assert_eq!(outcome.detections.silent.len(), 4);
    assert!(outcome.detections.silent.iter().all(|took| *took <= Micros::secs(3)));
}

#[test]
fn the_observer_notices_what_is_wrong() {
    // A plan that says all is healed when a node is still down.
    let mut plan = Plan::calm(3, 3).with(
        FaultKind::Crash { node: 1, reset: false },
        Micros::secs(14),
        Micros::secs(9),
    );
    plan.quiet_at = Micros::secs(2);
    plan.span = Micros::secs(20);
    let outcome = run(&plan, &mut ()).unwrap();
    let broken: Vec<&str> =
        outcome.violations.iter().map(|found| found.invariant.sentence()).collect();
    assert!(broken.contains(&"after healing all hold each other alive"), "{outcome}");
}

#[test]
fn a_larger_mesh_notices_in_time_too() {
    // Beyond eight nodes each probes a few; news of a death must still reach all in time.
    let crash = FaultKind::Crash { node: 3, reset: false };
    let plan = Plan::calm(11, 24).with(crash, Micros::secs(14), Micros::secs(6));
    let outcome = run(&plan, &mut ()).unwrap();
    println!("{:?}", outcome.detections);
    assert!(outcome.violations.is_empty(), "{outcome}");
    let detections = &outcome.detections;
    assert_eq!(detections.silent.len() + detections.reset.len(), 23);
}

#[test]
fn plans_that_cannot_be_run_are_refused() {
    assert_eq!(run(&Plan::calm(1, 1), &mut ()), Err(PlanError::Nodes(1)));
    let stranger = FaultKind::Pause { node: 3 };
    let plan = Plan::calm(1, 3).with(stranger, Micros::secs(1), Micros::secs(1));
    assert_eq!(run(&plan, &mut ()), Err(PlanError::Fault(0)));
    let mut plan = Plan::calm(1, 3);
    plan.network.latency_min = Micros::secs(1);
    assert_eq!(run(&plan, &mut ()), Err(PlanError::Latency));
    assert!((0..1_000).all(|seed| Plan::seeded(seed).check().is_ok()));
}

#[test]
fn fleet() {
    // A mesh of some size under the load of the benchmark, given by hand as `200x600`: nodes and
    // virtual seconds. For a profiler.
    let Ok(size) = std::env::var("SELVEDGE_SIM_FLEET") else { return };
    let (nodes, seconds) = size.split_once('x').unwrap();
    let span = Micros::secs(seconds.parse().unwrap());
    let until = Micros(span.0 - Micros::secs(20).0);
    let mut plan = Plan::calm(1, nodes.parse().unwrap());
    for tenant in 0..4 {
        let name = format!("tenant{tenant}");
        plan = plan
            .tenant(TenantPlan::new(&name).tokens(4_000_000, PerPeriod::Hour))
            .client(ClientPlan::steady(&name, 300, Micros::secs(2), until));
    }
    let outcome = run(&plan, &mut ()).unwrap();
    println!("{outcome}");
    assert!(outcome.violations.is_empty(), "{outcome}");
}

#[test]
fn story() {
    // One seed with its events, given by hand.
    let Some(seed) = number("SELVEDGE_SIM_STORY") else { return };
    let plan = match std::env::var("SELVEDGE_SIM_SCENARIO") {
        Ok(name) => Plan::scenario(&name, 0, seed).unwrap(),
        Err(_) => Plan::seeded(seed),
    };
    let mut events: Vec<selvedge_sim::Event> = Vec::new();
    let outcome = run(&plan, &mut events).unwrap();
    for event in events {
        let (at, tag) = (event.at.0 / 1_000, event.kind.tag());
        println!(
            "{at:>7} {tag:<7} {:?} {:?} {:?} {:?} {}",
            event.node, event.peer, event.request, event.budget, event.text
        );
    }
    println!("{}\n{outcome}", plan.to_toml().unwrap());
}
