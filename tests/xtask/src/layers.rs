//! Which crate may depend on which.
//!
//! Owns the allowed edges, the crates that pure crates must never reach, the one home of each
//! heavy dependency, and the shape of the tree. The reasons are in ARCHITECTURE.md.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, Package};

use crate::repo;

/// Package, its folder, and the workspace packages it may depend on.
const EDGES: &[(&str, &str, &[&str])] = &[
    ("selvedge-base", "mesh/base", &[]),
    ("selvedge-crdt", "mesh/crdt", &["selvedge-base"]),
    ("selvedge-proto", "mesh/proto", &["selvedge-base", "selvedge-crdt"]),
    ("selvedge-net", "mesh/net", &["selvedge-base", "selvedge-proto"]),
    ("selvedge-contract", "inference/contract", &["selvedge-base"]),
    ("selvedge-kernels", "inference/kernels", &[]),
    (
        "selvedge-engine",
        "inference/engine",
        &["selvedge-base", "selvedge-contract", "selvedge-kernels"],
    ),
    ("selvedge-federated", "inference/federated", &["selvedge-base", "selvedge-crdt"]),
    ("selvedge-train", "inference/train", &["selvedge-base", "selvedge-engine"]),
    (
        "selvedge-core",
        "actors/core",
        &[
            "selvedge-base",
            "selvedge-crdt",
            "selvedge-proto",
            "selvedge-contract",
            "selvedge-federated",
        ],
    ),
    ("selvedge-dialect", "actors/dialect", &["selvedge-base", "selvedge-contract"]),
    (
        "selvedge-runtime",
        "actors/runtime",
        &[
            "selvedge-base",
            "selvedge-crdt",
            "selvedge-proto",
            "selvedge-net",
            "selvedge-contract",
            "selvedge-engine",
            "selvedge-federated",
            "selvedge-train",
            "selvedge-core",
            "selvedge-dialect",
            "selvedge-upstream",
        ],
    ),
    (
        "selvedge-upstream",
        "actors/upstream",
        &["selvedge-base", "selvedge-core", "selvedge-dialect"],
    ),
    (
        "selvedge-sim",
        "sim",
        &[
            "selvedge-base",
            "selvedge-crdt",
            "selvedge-proto",
            "selvedge-contract",
            "selvedge-core",
            "selvedge-dialect",
            "selvedge-federated",
        ],
    ),
    ("selvedge", "node", ANY),
    ("selvedge-tests", "tests", ANY),
    (
        "selvedge-fuzz",
        "tests/fuzz",
        &[
            "selvedge-base",
            "selvedge-contract",
            "selvedge-core",
            "selvedge-crdt",
            "selvedge-dialect",
            "selvedge-engine",
            "selvedge-federated",
            "selvedge-proto",
            "selvedge-train",
        ],
    ),
    ("selvedge-gateway-bench", "tests/gateway-bench", &[]),
    (
        "selvedge-inference-bench",
        "tests/inference-bench",
        &["selvedge-base", "selvedge-contract", "selvedge-engine", "selvedge-kernels"],
    ),
    ("xtask", "tests/xtask", &[]),
];

/// May depend on every crate of the workspace.
const ANY: &[&str] = &["*"];

/// Crates that are machines: same inputs, same outputs, no operating system.
pub(crate) const PURE: &[(&str, &str)] = &[
    ("selvedge-base", "mesh/base/"),
    ("selvedge-crdt", "mesh/crdt/"),
    ("selvedge-proto", "mesh/proto/"),
    ("selvedge-contract", "inference/contract/"),
    ("selvedge-federated", "inference/federated/"),
    ("selvedge-core", "actors/core/"),
    ("selvedge-dialect", "actors/dialect/"),
    ("selvedge-sim", "sim/"),
];

/// What a pure crate must not reach through any normal dependency; `*` ends a prefix. Runtimes,
/// sockets, stores, engines, threads, and whatever draws from the operating system's entropy.
const IMPURE: &[&str] = &[
    "async-std",
    "aws-lc-*",
    "candle-*",
    "futures-timer",
    "getrandom",
    "hyper*",
    "libp2p*",
    "mio",
    "openssl*",
    "quinn*",
    "ractor",
    "rand",
    "rayon*",
    "redb",
    "reqwest",
    "ring",
    "rustls",
    "socket2",
    "tokenizers",
    "tokio*",
    "ureq",
];

/// Heavy dependencies and the only crates that may name them, so that they rebuild rarely and can
/// be replaced in one place. Black-box tests may name anything.
const HOMES: &[(&str, &[&str])] = &[
    ("candle-*", &["selvedge-engine", "selvedge-train"]),
    ("gemm", &["selvedge-train"]),
    ("tokenizers", &["selvedge-engine"]),
    ("minijinja*", &["selvedge-engine"]),
    ("llguidance", &["selvedge-engine"]),
    ("symphonia*", &["selvedge-engine"]),
    ("libp2p*", &["selvedge-net"]),
    ("quinn*", &["selvedge-net"]),
    ("if-watch", &["selvedge-net"]),
    ("ractor", &["selvedge-runtime"]),
    ("redb", &["selvedge-runtime"]),
    ("hyper*", &["selvedge", "selvedge-upstream", "selvedge-gateway-bench"]),
    ("ureq", &["selvedge"]),
    ("bincode", &["selvedge-base"]),
];

/// The folders of the top level: fixed by the product's owner, nothing beside them but files, dot
/// folders and docs/.
const TOP: &[&str] = &["actors", "docs", "inference", "mesh", "node", "sim", "tests"];

/// What does not hold, one line each.
pub(crate) fn check() -> Result<Vec<String>> {
    let metadata = repo::metadata()?;
    let files = repo::files()?;
    let mut findings = check_top(&files);
    findings.extend(check_members(&members(&metadata)));
    let defaults: Vec<&str> =
        metadata.workspace_default_packages().iter().map(|package| package.name.as_str()).collect();
    if defaults != ["selvedge"] {
        findings.push(format!("default-members must be [\"node\"] only, not {defaults:?}"));
    }
    for (package, _) in PURE {
        findings.extend(check_reach(package, &tree(package)?));
    }
    for path in files.iter().filter(|path| path.ends_with("Cargo.toml")) {
        findings.extend(check_manifest(path, &repo::text(path)?.unwrap_or_default()));
    }
    Ok(findings)
}

/// A workspace package with its folder and direct dependencies.
struct Member {
    name: String,
    folder: String,
    /// Name and whether it is a dependency of the shipped code (not only of its tests).
    dependencies: Vec<(String, bool)>,
}

fn members(metadata: &Metadata) -> Vec<Member> {
    let root = metadata.workspace_root.as_str();
    let member = |package: &&Package| Member {
        name: package.name.to_string(),
        folder: package
            .manifest_path
            .parent()
            .and_then(|folder| folder.strip_prefix(root).ok())
            .map(ToString::to_string)
            .unwrap_or_default(),
        dependencies: package
            .dependencies
            .iter()
            .map(|dependency| {
                (dependency.name.clone(), dependency.kind != DependencyKind::Development)
            })
            .collect(),
    };
    metadata.workspace_packages().iter().map(member).collect()
}

fn check_members(members: &[Member]) -> Vec<String> {
    let mut findings = Vec::new();
    let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    for member in members {
        let Some((_, folder, allowed)) = EDGES.iter().find(|(name, ..)| *name == member.name)
        else {
            findings.push(format!(
                "{}: not in the table of crates (tests/xtask/src/layers.rs); a new crate needs a \
                 page in docs/decisions",
                member.name
            ));
            continue;
        };
        if *folder != member.folder {
            findings.push(format!("{}: lies in {}, not in {folder}", member.name, member.folder));
        }
        for (dependency, _) in &member.dependencies {
            let inside = names.contains(dependency.as_str());
            if inside && *allowed != ANY && !allowed.contains(&dependency.as_str()) {
                findings.push(format!("{}: must not depend on {dependency}", member.name));
            }
        }
        if member.name != "selvedge-tests" {
            findings.extend(check_homes(member));
        }
    }
    findings
}

fn check_homes(member: &Member) -> Vec<String> {
    let mut findings = Vec::new();
    for (dependency, shipped) in &member.dependencies {
        let home = HOMES.iter().find(|(pattern, _)| matches(pattern, dependency));
        if let Some((_, homes)) = home
            && *shipped
            && !homes.contains(&member.name.as_str())
        {
            findings.push(format!(
                "{}: must not name {dependency}, whose home is {}",
                member.name,
                homes.join(", ")
            ));
        }
    }
    findings
}

/// The dependency tree of one package by itself, as cargo prints it: depth, then name. Only by
/// itself are the features the ones it asks for; in the whole workspace they are those of all.
fn tree(package: &str) -> Result<String> {
    let output = Command::new("cargo")
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "depth", "--format", " {p}"])
        .args(["--target", repo::GRAPH_PLATFORM, "--package", package])
        .current_dir(repo::root())
        .output()
        .context("cargo tree did not start")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("cargo tree printed something odd")
}

/// The impure crates in the tree of `package`, each with the path that leads there.
fn check_reach(package: &str, tree: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let depth = words.next().and_then(|depth| depth.parse::<usize>().ok());
        let (Some(depth), Some(name)) = (depth, words.next()) else {
            findings.push(format!("{package}: cannot read this line of cargo tree: {line}"));
            continue;
        };
        path.truncate(depth);
        let below = path.iter().any(|above| is_impure(above));
        path.push(name);
        // What an impure crate needs is its own affair: the way in is what must be closed.
        if is_impure(name) && !below {
            findings.push(format!("{package} is pure but reaches: {}", path.join(" → ")));
        }
    }
    findings
}

fn is_impure(name: &str) -> bool {
    IMPURE.iter().any(|pattern| matches(pattern, name))
}

fn check_top(files: &[String]) -> Vec<String> {
    let mut folders: Vec<&str> = files
        .iter()
        .filter_map(|path| path.split_once('/').map(|(folder, _)| folder))
        .filter(|folder| !folder.starts_with('.') && !TOP.contains(folder))
        .collect();
    folders.dedup();
    let mut findings: Vec<String> =
        folders.iter().map(|folder| format!("{folder}/: not a folder of the top level")).collect();
    for path in files.iter().filter(|path| path.ends_with("/Cargo.toml")) {
        if path.matches('/').count() > 2 {
            findings.push(format!("{path}: crates nest one level deep only"));
        }
    }
    findings
}

/// Every crate takes the workspace's lints, licence and edition.
fn check_manifest(path: &str, text: &str) -> Vec<String> {
    if path == "Cargo.toml" {
        return Vec::new();
    }
    let manifest: toml::Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![format!("{path}: {error}")],
    };
    let inherits = |table: &str, key: &str| {
        let value = manifest.get(table).and_then(|table| table.get(key));
        value.and_then(|value| value.get("workspace")) == Some(&toml::Value::Boolean(true))
    };
    let mut findings = Vec::new();
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    if lints != Some(&toml::Value::Boolean(true)) {
        findings.push(format!("{path}: [lints] must say workspace = true"));
    }
    for key in ["version", "edition", "rust-version", "license", "publish"] {
        if !inherits("package", key) {
            findings.push(format!("{path}: package.{key} must come from the workspace"));
        }
    }
    findings
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
