//! Licences, banned crates and versions known to be bad.
//!
//! Owns the lists. They are kept by hand because the public advisory databases are fetched over the
//! network and this check must hold without one; `cargo audit` on a connected machine is due before
//! a release all the same.

use std::collections::BTreeMap;

use anyhow::Result;
use cargo_metadata::semver::{Version, VersionReq};
use cargo_metadata::{Metadata, Package};

use crate::repo;

/// Licences whose terms Selvedge's own (Apache-2.0) can carry along as it is shipped: permissive
/// ones, data terms without conditions on code, and file-level copyleft used unmodified.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not be in the graph, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "TLS is rustls with aws-lc-rs; the build needs no system library"),
    ("openssl-sys", "TLS is rustls with aws-lc-rs; the build needs no system library"),
    ("native-tls", "TLS is rustls with aws-lc-rs; the build needs no system library"),
    ("onig", "needs a C++ compiler; tokenizers runs on fancy-regex"),
    ("rsa", "RUSTSEC-2023-0071: timing side channel without a fixed version"),
    ("rumqttc", "pins a rustls-webpki with open advisories"),
    ("rodbus", "licensed for non-commercial use only"),
    ("ort", "downloads a prebuilt library while building"),
    ("prost-build", "needs protoc on the machine"),
    ("pyo3", "Selvedge never runs Python in its process"),
];

/// Versions that must not be in the graph, and why.
const BAD_VERSIONS: &[(&str, &str, &str)] = &[
    ("bincode", ">=3.0.0", "3.0.0 is an empty notice; the wire is pinned to 2.0.1"),
    ("quinn-proto", "<0.11.15", "RUSTSEC-2026-0037, RUSTSEC-2026-0185: remote panic, memory"),
    ("libp2p", "<0.57.0", "several remote denials of service fixed in its parts"),
    ("libp2p-quic", "<0.13.1", "GHSA-5hq8-qhww-jm7q: remote panic on a bad certificate"),
    ("libp2p-gossipsub", "<0.50.1", "GHSA-xqmp-fxgv-xvq5, GHSA-gc42-3jg7-rxr2"),
    ("yamux", "<0.14.1", "GHSA-vxx9-2994-q338, GHSA-4w32-2493-32g7"),
    ("hickory-proto", "<0.26.3", "RUSTSEC-2026-0118, RUSTSEC-2026-0119"),
    ("rustls-webpki", "<0.103.13", "RUSTSEC-2026-0049, -0098, -0099, -0104"),
];

/// Crates of which two versions in one graph would be a defect: their types or global state meet.
const SINGLE: &[&str] = &[
    "bincode",
    "candle-core",
    "ed25519-dalek",
    "hyper",
    "libp2p-identity",
    "quinn",
    "quinn-proto",
    "ractor",
    "rustls",
    "rustls-webpki",
    "serde",
    "tokio",
];

/// What does not hold, one line each.
pub(crate) fn check() -> Result<Vec<String>> {
    let metadata = repo::metadata()?;
    let crates: Vec<Crate> = metadata.packages.iter().map(Crate::of).collect();
    let mut findings = check_crates(&crates);
    findings.extend(check_tls(&features_of(&metadata, "rustls")));
    Ok(findings)
}

/// What is judged about one package.
struct Crate {
    name: String,
    version: Version,
    licence: Option<String>,
    /// Where it comes from; `None` is this repository.
    source: Option<String>,
}

impl Crate {
    fn of(package: &Package) -> Self {
        Self {
            name: package.name.to_string(),
            version: package.version.clone(),
            licence: package.license.clone(),
            source: package.source.as_ref().map(|source| source.repr.clone()),
        }
    }
}

fn check_crates(crates: &[Crate]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for found in crates {
        let (name, version) = (found.name.as_str(), &found.version);
        versions.entry(name).or_default().push(version.to_string());
        match &found.licence {
            None => findings.push(format!("{name} {version}: names no licence")),
            Some(licence) if !allowed(licence) => {
                findings.push(format!("{name} {version}: licence {licence} is not on the list"));
            }
            Some(_) => {}
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            findings.push(format!("{name} {version}: banned: {why}"));
        }
        for (_, range, why) in BAD_VERSIONS.iter().filter(|(bad, ..)| *bad == name) {
            if VersionReq::parse(range).is_ok_and(|range| range.matches(version)) {
                findings.push(format!("{name} {version}: {range} is bad: {why}"));
            }
        }
        if found.source.as_ref().is_some_and(|source| !source.starts_with("registry+")) {
            findings.push(format!("{name} {version}: comes from outside the registry"));
        }
    }
    for name in SINGLE {
        if let Some(found) = versions.get(name).filter(|found| found.len() > 1) {
            findings.push(format!("{name}: more than one version: {}", found.join(", ")));
        }
    }
    findings
}

/// rustls with two crypto providers panics when a configuration is built without naming one.
fn check_tls(features: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    if features.iter().any(|feature| feature == "ring") {
        findings.push("rustls: feature ring is on; the one provider is aws-lc-rs".to_owned());
    }
    if !features.iter().any(|feature| feature == "aws-lc-rs") {
        findings.push("rustls: feature aws-lc-rs is off, so no provider is left".to_owned());
    }
    findings
}

fn features_of(metadata: &Metadata, name: &str) -> Vec<String> {
    let package = metadata.packages.iter().find(|package| package.name.as_str() == name);
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    nodes
        .filter(|node| package.is_some_and(|package| package.id == node.id))
        .flat_map(|node| node.features.iter().map(|feature| feature.to_string()))
        .collect()
}

/// Whether an SPDX expression can be met with the listed licences alone.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    any_of(&words, &mut at) && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize) -> bool {
    let mut holds = all_of(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        holds |= all_of(words, at);
    }
    holds
}

fn all_of(words: &[&str], at: &mut usize) -> bool {
    let mut holds = one_of(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        holds &= one_of(words, at);
    }
    holds
}

fn one_of(words: &[&str], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let holds = any_of(words, at);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return holds && closed;
    }
    let mut licence = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        licence = format!("{word} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    LICENCES.contains(&licence.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn found(name: &str, version: &str, licence: Option<&str>) -> Vec<String> {
        check_crates(&[sample(name, version, licence)])
    }

    fn sample(name: &str, version: &str, licence: Option<&str>) -> Crate {
        Crate {
            name: name.to_owned(),
            version: version.parse().unwrap(),
            licence: licence.map(str::to_owned),
            source: None,
        }
    }

    #[test]
    fn this_repository_uses_what_it_may() {
        assert_eq!(check().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn licence_expressions_are_understood() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(GPL-3.0 OR MIT) AND ISC",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(allowed(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC", "MIT MIT", "", "MIT WITH x"] {
            assert!(!allowed(bad), "{bad}");
        }
    }

    #[test]
    fn a_bad_licence_or_none_is_found() {
        assert_eq!(found("x", "1.0.0", None), ["x 1.0.0: names no licence"]);
        assert_eq!(found("x", "1.0.0", Some("AGPL-3.0")).len(), 1);
    }

    #[test]
    fn banned_crates_and_versions_are_found() {
        assert_eq!(found("openssl", "0.10.0", Some("MIT")).len(), 1);
        assert_eq!(found("quinn-proto", "0.11.14", Some("MIT")).len(), 1);
        assert!(found("quinn-proto", "0.11.19", Some("MIT")).is_empty());
        assert_eq!(found("bincode", "3.0.0", Some("MIT")).len(), 1);
    }

    #[test]
    fn every_range_can_be_read() {
        for (name, range, _) in BAD_VERSIONS {
            assert!(VersionReq::parse(range).is_ok(), "{name} {range}");
        }
    }

    #[test]
    fn foreign_sources_and_double_versions_are_found() {
        let mut foreign = sample("x", "1.0.0", Some("MIT"));
        foreign.source = Some("git+https://example.org/x".to_owned());
        assert_eq!(check_crates(&[foreign]).len(), 1);
        let two = ["0.22.0", "0.23.0"].map(|version| sample("rustls", version, Some("MIT")));
        assert_eq!(check_crates(&two), ["rustls: more than one version: 0.22.0, 0.23.0"]);
    }

    #[test]
    fn a_second_tls_provider_is_found() {
        assert!(check_tls(&["aws-lc-rs".to_owned()]).is_empty());
        assert_eq!(check_tls(&["aws-lc-rs".to_owned(), "ring".to_owned()]).len(), 1);
        assert_eq!(check_tls(&[]).len(), 1);
    }
}
