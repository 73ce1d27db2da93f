//! The hashes of some seeds, printed for whoever compares processes and builds.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use selvedge_sim::{Plan, run};

/// Seeds without `SELVEDGE_SIM_SEEDS`: a look, not a search.
const SEEDS: u64 = 4;

#[test]
fn hashes_of_seeds() {
    let wanted = std::env::var("SELVEDGE_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    for seed in 0..wanted.unwrap_or(SEEDS) {
        let plan = Plan::seeded(seed);
        let first = run(&plan, &mut ()).unwrap();
        // Someone who looks on must not change what happens.
        let watched = run(&plan, &mut Vec::new()).unwrap();
        assert_eq!(first.checkpoints, watched.checkpoints, "seed {seed}");
        assert_eq!(first.hash, watched.hash, "seed {seed}");
        println!("hash of seed {seed}: {}", first.hash);
    }
}
