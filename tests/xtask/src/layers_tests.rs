//! The layer checks hold on this repository, and each of them fails on a bad sample.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn member(name: &str, folder: &str, dependencies: &[&str]) -> Member {
    let dependencies = dependencies.iter().map(|name| ((*name).to_owned(), true)).collect();
    Member { name: name.to_owned(), folder: folder.to_owned(), dependencies }
}

#[test]
fn this_repository_keeps_its_layers() {
    assert_eq!(check().unwrap(), Vec::<String>::new());
}

#[test]
fn an_edge_upwards_is_found() {
    let net = member("selvedge-net", "mesh/net", &[]);
    let base = member("selvedge-base", "mesh/base", &["selvedge-net", "serde"]);
    assert_eq!(check_members(&[net, base]), ["selvedge-base: must not depend on selvedge-net"]);
}

#[test]
fn a_test_dependency_upwards_is_found_too() {
    let mut base = member("selvedge-base", "mesh/base", &["selvedge-net"]);
    base.dependencies[0].1 = false;
    let found = check_members(&[member("selvedge-net", "mesh/net", &[]), base]);
    assert_eq!(found.len(), 1);
}

#[test]
fn an_unknown_or_moved_crate_is_found() {
    let found = check_members(&[member("selvedge-extra", "mesh/extra", &[])]);
    assert!(found[0].contains("docs/decisions"), "{found:?}");
    let found = check_members(&[member("selvedge-base", "base", &[])]);
    assert_eq!(found, ["selvedge-base: lies in base, not in mesh/base"]);
}

#[test]
fn a_heavy_dependency_outside_its_home_is_found() {
    let found = check_members(&[member("selvedge", "node", &["quinn"])]);
    assert_eq!(found, ["selvedge: must not name quinn, whose home is selvedge-net"]);
    assert!(check_members(&[member("selvedge-tests", "tests", &["quinn"])]).is_empty());
}

#[test]
fn an_impure_crate_is_found_however_far_away() {
    let tree = "0 selvedge-crdt v0.1.0 (/x)\n1 selvedge-base v0.1.0\n2 friendly v1.0.0\n\
                3 tokio-util v1.0.0\n4 mio v1.0.0\n2 serde v1.0.0 (*)\n1 rand v0.9.0\n";
    assert_eq!(
        check_reach("selvedge-crdt", tree),
        [
            "selvedge-crdt is pure but reaches: \
             selvedge-crdt → selvedge-base → friendly → tokio-util",
            "selvedge-crdt is pure but reaches: selvedge-crdt → rand",
        ]
    );
    assert!(check_reach("selvedge-base", "0 selvedge-base v0.1.0\n1 serde v1.0.0\n").is_empty());
    assert_eq!(check_reach("selvedge-base", "├── serde v1.0.0\n").len(), 1);
}

#[test]
fn the_real_trees_are_not_empty() {
    // The reach check passes on an empty tree, so the trees must be known to hold something.
    assert!(!check_reach("selvedge-net", &tree("selvedge-net").unwrap()).is_empty());
    for (package, folder) in PURE {
        assert!(tree(package).unwrap().lines().count() > 3, "{package}");
        assert!(repo::root().join(folder).is_dir());
    }
    assert!(tree("no-such-package").is_err());
}

#[test]
fn a_new_top_folder_and_a_deep_crate_are_found() {
    let files = ["src/main.rs", ".ci/run", "README.md", "mesh/net/deep/Cargo.toml"];
    let found = check_top(&files.map(str::to_owned));
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_manifest_that_goes_its_own_way_is_found() {
    let found = check_manifest("mesh/base/Cargo.toml", "[package]\nname = \"x\"\n");
    assert_eq!(found.len(), 6, "{found:?}");
}
