//! Models that share a memory, over hundreds of drawn plans: what must hold does, and all that is
//! worth seeing happens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use selvedge_sim::{Mark, Marks, Plan, run};

/// Seeds of the gate; `SELVEDGE_SIM_SEEDS` runs more by hand.
const SEEDS: u64 = 200;

/// Meshes of two to six nodes in turn.
fn plan(seed: u64) -> Plan {
    Plan::scenario("many-models", 2 + (seed % 5) as usize, seed).unwrap()
}

#[test]
fn models_come_and_go_as_they_must() {
    let seeds = std::env::var("SELVEDGE_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let (mut marks, mut broken) = (Marks::default(), Vec::new());
    for seed in 0..seeds.unwrap_or(SEEDS) {
        let plan = plan(seed);
        let outcome = run(&plan, &mut ()).unwrap();
        marks.add(&outcome.marks);
        if let Some(first) = outcome.violations.first() {
            let again = format!("sim run --scenario many-models --nodes {}", plan.nodes);
            broken.push(format!("{again} --seed {seed}: {first}"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let wanted = [
        Mark::ModelLoaded,
        Mark::ModelLoadFailed,
        Mark::ModelWentCopied,
        Mark::ModelWentOldest,
        Mark::ModelTurnedAway,
        Mark::ModelKeptOut,
        Mark::StrainedSpared,
        Mark::StrainedAsked,
    ];
    for mark in wanted {
        println!("{} {}", marks.count(mark), mark.sentence());
    }
    assert!(wanted.iter().all(|mark| marks.count(*mark) > 10), "{marks:?}");
}

#[test]
fn the_same_plan_gives_the_same_run() {
    for seed in 0..4 {
        let plan = plan(seed);
        let (first, second) = (run(&plan, &mut ()).unwrap(), run(&plan, &mut ()).unwrap());
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn models_that_cannot_share_are_refused() {
    let sound = plan(0);
    let refused = |change: fn(&mut Plan)| {
        let mut plan = sound.clone();
        change(&mut plan);
        plan.check().is_err()
    };
    assert!(sound.check().is_ok());
    assert!(refused(|plan| plan.memory.page = 0));
    assert!(refused(|plan| plan.workload.clients[0].models = vec![9]));
    assert!(refused(|plan| plan.workload.clients[0].models.clear()));
    assert!(refused(|plan| plan.workload.clients[0].answer = (1, 600)));
    assert!(refused(|plan| plan.memory.models.clear()));
}
