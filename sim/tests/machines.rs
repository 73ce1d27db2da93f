//! The simulated node runs every machine that production runs, or there is a written reason.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

/// Decision types that are no machines, but decide all the same.
const OTHER_DECISIONS: &[&str] = &[
    "Schedule",
    "CostModel",
    "Meter",
    "ReceivePolicy",
    "Receipts",
    "PolicyBook",
    "Roster",
    "RowMap",
    "route::choose",
    "sync::delta_within",
    "sync::apply_checked",
    "wire::agree",
];

/// What the simulator does not run, and why.
const EXCUSED: &[(&str, &str)] = &[
    (
        "Restart",
        "the patience with a crashed actor or a broken dial: the simulated world has no actors, \
         and redials are the failure detector's",
    ),
    ("Issuer", "joining is one exchange of five frames with nothing to lose on the way"),
    ("Joiner", "as Issuer"),
    ("Auth", "keys of the HTTP surface never reach the mesh"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

fn text_of(folders: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in folders {
        sources(&root.join(folder), &mut files);
    }
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// Names in `impl Machine for Name`.
fn machines(text: &str) -> Vec<String> {
    let after = text.split("impl Machine for ").skip(1);
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric()).collect::<String>();
    after.map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_machine_of_production_runs_in_the_simulator() {
    let pure =
        text_of(&["mesh/crdt/src", "mesh/proto/src", "inference/contract/src", "actors/core/src"]);
    let ours = text_of(&["sim/src"]);
    let mut wanted = machines(&pure);
    assert!(wanted.len() >= 3, "{wanted:?}");
    wanted.extend(OTHER_DECISIONS.iter().map(|name| (*name).to_owned()));
    let is_used = |name: &str| ours.contains(&format!("{name}::new(")) || ours.contains(name);
    let excused = |name: &str| EXCUSED.iter().any(|(known, _)| *known == name);
    let missing: Vec<&String> =
        wanted.iter().filter(|name| !is_used(name) && !excused(name)).collect();
    assert!(missing.is_empty(), "in production, not in the simulator: {missing:?}");
    for (name, why) in EXCUSED {
        assert!(!why.is_empty() && !OTHER_DECISIONS.contains(name));
    }
}

#[test]
fn a_machine_that_is_missing_is_noticed() {
    assert_eq!(machines("impl Machine for Flow {\nimpl Machine for Quota {"), ["Flow", "Quota"]);
}
