//! Every planted bug is found by seeds that the right machines pass, and its failure shrinks.
//!
//! Needs the feature `plants`: `cargo test -p selvedge-sim --features plants --release --test
//! plants`. Prints a line per bug, which the benchmark reads.

#![cfg(feature = "plants")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeSet;

use selvedge_base::plant::{self, Plant};
use selvedge_sim::federated::{LYING_PLANTS, MIXING_PLANTS, PLANTS};
use selvedge_sim::shrink::shrink;
use selvedge_sim::{Invariant, Outcome, Plan, run, scenarios};

/// Seeds a bug may take to be found.
const SEEDS: u64 = 1_000;
/// Bugs that need more to come together than seeds do: a written scenario finds each.
const BY_STORY: &[Plant] = &[Plant::HorizonForgotten, Plant::CacheLabelIgnored];
/// Bugs of models that share a memory, which seeds of a story of its own find.
const OF_MEMORY: &[Plant] = &[
    Plant::BusyModelGoes,
    Plant::CopiesIgnored,
    Plant::LeavingCountsAsFree,
    Plant::WaitsForMemoryForEver,
    Plant::StrainIgnored,
];
/// Runs a shrink may take: well under a minute.
const RUNS: u64 = 2_000;

fn with_bug<T>(bug: Plant, what: impl FnOnce() -> T) -> T {
    plant::plant(Some(bug));
    let made = what();
    plant::plant(None);
    made
}

/// `GiveFromSpent` as a file is called: `give-from-spent`.
fn dashed(name: &str) -> String {
    let mut dashed = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !dashed.is_empty() {
            dashed.push('-');
        }
        dashed.push(letter.to_ascii_lowercase());
    }
    dashed
}

/// The plan of a seed that may find a bug.
fn plan_of(bug: Plant, seed: u64) -> Plan {
    match OF_MEMORY.contains(&bug) {
        true => Plan::scenario("many-models", 0, seed).unwrap(),
        false => Plan::seeded(seed),
    }
}

/// The first seed in which the bug breaks something that holds without it.
fn found(bug: Plant) -> Option<(u64, Outcome)> {
    (0..SEEDS).find_map(|seed| {
        let plan = plan_of(bug, seed);
        let outcome = with_bug(bug, || run(&plan, &mut ()).unwrap());
        let is_found =
            !outcome.violations.is_empty() && run(&plan, &mut ()).unwrap().violations.is_empty();
        is_found.then_some((seed, outcome))
    })
}

/// The first scenario in which it does, when no seed finds it, and what it breaks there.
fn found_by_story(bug: Plant) -> Option<(&'static str, Outcome)> {
    scenarios().iter().find_map(|one| {
        let plan = Plan::scenario(one.name, 0, 1).unwrap();
        let outcome = with_bug(bug, || run(&plan, &mut ()).unwrap());
        (!outcome.violations.is_empty()).then_some((one.name, outcome))
    })
}

/// Invariants that nothing but a wrong machine breaks: each must be seen to fail by some bug.
const MUST_FAIL: &[Invariant] = &[
    Invariant::FlowNothingLate,
    Invariant::FlowStageOrder,
    Invariant::FlowEnds,
    Invariant::FlowKeysBind,
    Invariant::QuotaServedWithinReserved,
    Invariant::QuotaChargedInFull,
    Invariant::QuotaPermitsWithinLimit,
    Invariant::QuotaRateWithinLimit,
    Invariant::QuotaNewcomersVouched,
    Invariant::LiveServes,
    Invariant::LivePermitsMove,
    Invariant::LivePurgesKnown,
    Invariant::PaidAsBilled,
    Invariant::PaidWithinBudget,
    Invariant::PaidOneVoice,
    Invariant::PaidLeftAlone,
    Invariant::PaidTriesBounded,
    Invariant::LiveProvided,
    Invariant::CacheOwnOnly,
    Invariant::CacheEqualOnly,
    Invariant::CacheInTime,
    Invariant::CachePurgeHolds,
    Invariant::CacheWholeOnly,
    Invariant::CacheCostsNothing,
    Invariant::CacheOneAsks,
    Invariant::CacheNobodyForgotten,
    Invariant::CacheStaysHome,
    Invariant::RouteStrainedSpared,
    Invariant::MemoryWithinBudget,
    Invariant::MemoryWorkStays,
    Invariant::MemoryInTime,
    Invariant::MemoryCopyFirst,
    Invariant::BoundTables,
    Invariant::StateOnlyMembersLinked,
    Invariant::StateCodesBind,
    Invariant::StateRightsCount,
];

#[test]
fn every_planted_bug_is_found_and_shrinks() {
    let wanted = std::env::var("SELVEDGE_SIM_PLANT").ok();
    let mut missed = Vec::new();
    let mut failed = BTreeSet::new();
    let of_rounds = [PLANTS, MIXING_PLANTS, LYING_PLANTS].concat();
    for bug in Plant::ALL.iter().copied().filter(|bug| !of_rounds.contains(bug)) {
        if wanted.as_deref().is_some_and(|name| name != bug.as_str()) {
            continue;
        }
        let Some((seed, outcome)) = found(bug) else {
            let story = found_by_story(bug);
            let by = story.as_ref().map_or(String::new(), |(name, _)| format!(", but by {name}"));
            println!("planted {}: not found within {SEEDS} seeds{by}", bug.as_str());
            if story.is_none() || !BY_STORY.contains(&bug) {
                missed.push(bug.as_str());
            }
            let broken = story.iter().flat_map(|(_, outcome)| &outcome.violations);
            failed.extend(broken.map(|one| one.invariant));
            continue;
        };
        failed.extend(outcome.violations.iter().map(|one| one.invariant));
        let violation = outcome.violations.first().unwrap();
        let plan = plan_of(bug, seed);
        let shrunk = with_bug(bug, || {
            shrink(&plan, Some(violation.invariant), &mut |step| step.runs < RUNS).unwrap()
        });
        println!(
            "planted {}: seed {seed} breaks {}, {} faults shrink to {} in {} runs",
            bug.as_str(),
            violation.invariant.id(),
            shrunk.faults_before,
            shrunk.plan.faults.len(),
            shrunk.runs
        );
        if let Some(folder) = std::env::var_os("SELVEDGE_SIM_KEEP") {
            let name = format!("{}.toml", dashed(bug.as_str()));
            let path = std::path::Path::new("sim/seeds/regressions").join(&name);
            let story = if OF_MEMORY.contains(&bug) { " of many-models" } else { "" };
            let page = shrunk.page(
                &format!("seed {seed}{story} with the planted bug {}", bug.as_str()),
                &format!("selvedge sim replay {}", path.display()),
            );
            std::fs::write(std::path::Path::new(&folder).join(name), page).unwrap();
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
    let never: Vec<_> = MUST_FAIL.iter().filter(|one| !failed.contains(one)).collect();
    assert!(never.is_empty() || wanted.is_some(), "seen to fail by no bug: {never:?}");
}
