//! A few runs whose hashes are written down, and the failures of the past, each of which must hold.
//!
//! A golden hash changes when anything that a run does changes: which message is sent, when, with
//! which bytes. That may be meant; then `SELVEDGE_SIM_BLESS=1 cargo test -p selvedge-sim --test
//! golden` writes the new ones, and the change is part of the commit that made it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use selvedge_sim::{Plan, TraceHash, run, scenarios};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    golden: Vec<Golden>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Golden {
    /// None: the plan of the seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario: Option<String>,
    seed: u64,
    hash: TraceHash,
}

fn seeds() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

/// What is worth a golden hash: some seeded plans, every seventh story, and one of the cache.
fn wanted() -> Vec<(Option<String>, u64)> {
    let stories = scenarios().iter().step_by(7).map(|one| (Some(one.name.to_owned()), 7));
    let kept = (Some("answers-purged".to_owned()), 7);
    (1..=4).map(|seed| (None, seed)).chain(stories).chain([kept]).collect()
}

fn made() -> Book {
    let golden = wanted().into_iter().map(|(scenario, seed)| {
        let plan = match &scenario {
            None => Plan::seeded(seed),
            Some(name) => Plan::scenario(name, 0, seed).unwrap(),
        };
        let hash = run(&plan, &mut ()).unwrap().hash;
        Golden { scenario, seed, hash }
    });
    Book { golden: golden.collect() }
}

#[test]
fn golden_hashes_change_only_on_purpose() {
    let path = seeds().join("golden.toml");
    let made = made();
    if std::env::var_os("SELVEDGE_SIM_BLESS").is_some() {
        let head = "# Hashes of whole runs. Written by the test that compares them:\n\
                    # SELVEDGE_SIM_BLESS=1 cargo test -p selvedge-sim --test golden\n\n";
        let text = head.to_owned() + &toml::to_string(&made).unwrap();
        std::fs::write(&path, text.trim_end().to_owned() + "\n").unwrap();
    }
    let kept: Book = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let bless = "if the change is meant: SELVEDGE_SIM_BLESS=1 cargo test -p selvedge-sim --test \
                 golden";
    assert_eq!(kept, made, "{bless}");
}

#[test]
fn failures_of_the_past_hold() {
    let mut replayed = 0;
    let mut files: Vec<PathBuf> = std::fs::read_dir(seeds().join("regressions"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    files.sort();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.display();
        assert!(text.starts_with("# "), "{name} does not begin by saying which invariant it broke");
        let plan = Plan::from_toml(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let outcome = run(&plan, &mut ()).unwrap();
        assert!(outcome.violations.is_empty(), "{name}: {outcome}");
        replayed += 1;
    }
    assert!(replayed > 0, "no plan under sim/seeds/regressions");
}
