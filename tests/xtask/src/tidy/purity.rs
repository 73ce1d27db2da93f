//! Determinism: what pure crates must not name, and where the clock and entropy may be read.
//!
//! The layer check stops impure dependencies; this one stops the standard library's.

use super::Finding;
use crate::layers::PURE;
use crate::lexer::{Source, has_word};

/// Collections whose iteration order differs from run to run.
const HASHED: &[&str] = &["HashMap", "HashSet"];

/// Parts of the standard library that ask the operating system. Types without behaviour, such as
/// socket addresses, are values and stay allowed.
const SYSTEM: &[&str] = &[
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "ToSocketAddrs",
    "RandomState",
];

/// Files of pure crates that may hold floats: values that are handed to or come from a model and
/// are neither merged, hashed nor compared between nodes.
const FLOAT_HOMES: &[&str] = &[
    "mesh/base/src/dice.rs",
    "inference/contract/src/embed.rs",
    "inference/contract/src/request.rs",
    "inference/contract/src/speech.rs",
    "inference/federated/src/fixed.rs",
    "inference/federated/src/privacy/accountant.rs",
    "inference/federated/src/round/client.rs",
    "actors/dialect/src/number.rs",
    "actors/dialect/src/openai/audio.rs",
    "sim/src/federated/world.rs",
];

/// How the operating system's clocks are read.
const CLOCKS: &[&str] = &["std::time::Instant", "SystemTime::now", "Instant::now"];
/// How its entropy is named.
const ENTROPY: &[&str] = &["getrandom", "OsRng", "SysRng", "thread_rng", "rand::rng", "new_v4"];
/// The files that may read them; every other shell asks these.
const CLOCK_HOMES: &[&str] = &["mesh/net/src/clock.rs", "mesh/net/src/entropy.rs"];

/// Files that may hold unsafe code: instructions of one kind of processor, threads that share a
/// step's memory, files that are mapped, products of matrices, and pages of the program that are
/// given back. Each operation says why it is sound, and tests compare with safe code.
const UNSAFE_HOMES: &[&str] = &[
    "inference/engine/src/kept/map.rs",
    "inference/kernels/src/simd/avx2.rs",
    "inference/kernels/src/simd/avx512.rs",
    "inference/kernels/src/simd/interpreted.rs",
    "inference/kernels/src/simd/neon.rs",
    "inference/kernels/src/simd/neon/dotprod.rs",
    "inference/kernels/src/simd/neon/i8mm.rs",
    "inference/kernels/src/simd/neon/plain.rs",
    "inference/kernels/src/team.rs",
    "inference/train/src/net/product.rs",
    "node/src/rest/pages.rs",
];

pub(super) fn hash_order(source: &Source, findings: &mut Vec<Finding>) {
    if is_pure(&source.path) {
        let message = "iterates in random order: use a BTreeMap or BTreeSet in pure crates";
        find(source, HASHED, message, findings);
    }
}

pub(super) fn operating_system(source: &Source, findings: &mut Vec<Finding>) {
    if is_pure(&source.path) {
        find(source, SYSTEM, "asks the operating system in a pure crate", findings);
    }
}

pub(super) fn floats(source: &Source, findings: &mut Vec<Finding>) {
    if is_pure(&source.path) && !FLOAT_HOMES.contains(&source.path.as_str()) {
        let message = "floats do not merge or hash alike everywhere: use scaled integers";
        find(source, &["f32", "f64"], message, findings);
    }
}

pub(super) fn clock_and_entropy(source: &Source, findings: &mut Vec<Finding>) {
    let path = source.path.as_str();
    let own = CLOCK_HOMES.contains(&path);
    if own || path.starts_with("tests/xtask/") {
        return;
    }
    let tokio = source.code.iter().any(|line| line.contains("tokio::time"));
    for (line, code) in source.production() {
        let clock = CLOCKS.iter().find(|clock| has_word(code, clock));
        // tokio's Instant is its own: waiting on it is allowed, and a paused test controls it.
        let waits = clock == Some(&"Instant::now") && tokio;
        let drawn = ENTROPY.iter().find(|name| has_word(code, name));
        if let Some(name) = clock.filter(|_| !waits).or(drawn) {
            let message = format!("`{name}`: ask selvedge_net::clock or selvedge_net::entropy");
            findings.push(Finding::new(path, line, message));
        } else if code.contains("std::time::{") && has_word(code, "Instant") {
            let message = "`std::time::Instant`: ask selvedge_net::clock";
            findings.push(Finding::new(path, line, message));
        }
    }
}

pub(super) fn unsafe_code(source: &Source, findings: &mut Vec<Finding>) {
    if UNSAFE_HOMES.contains(&source.path.as_str()) {
        return;
    }
    for (line, _) in source.numbered().filter(|(_, code)| has_word(code, "unsafe")) {
        let message = "unsafe code lives in named files only (tests/xtask/src/tidy/purity.rs)";
        findings.push(Finding::new(&source.path, line, message));
    }
}

fn is_pure(path: &str) -> bool {
    PURE.iter().any(|(_, folder)| path.starts_with(folder))
}

/// Reports each production line that names one of `words`.
fn find(source: &Source, words: &[&str], message: &str, findings: &mut Vec<Finding>) {
    for (line, code) in source.production() {
        if let Some(word) = words.iter().find(|word| has_word(code, word)) {
            findings.push(Finding::new(&source.path, line, format!("`{word}` {message}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::on_sample;
    use super::*;

    const PURE_FILE: &str = "mesh/crdt/src/rows.rs";
    const SHELL_FILE: &str = "mesh/net/src/link.rs";

    #[test]
    fn random_order_is_found_in_pure_crates_only() {
        let code = "use std::collections::HashMap;\n";
        assert_eq!(on_sample(hash_order, PURE_FILE, code).len(), 1);
        assert!(on_sample(hash_order, SHELL_FILE, code).is_empty());
        assert!(on_sample(hash_order, PURE_FILE, "// not a HashMap\n").is_empty());
    }

    #[test]
    fn the_operating_system_is_found_in_pure_crates() {
        assert_eq!(on_sample(operating_system, PURE_FILE, "std::fs::read(x);\n").len(), 1);
        let in_test = "#[cfg(test)]\nmod tests {\n std::fs::read(x);\n}\n";
        assert!(on_sample(operating_system, PURE_FILE, in_test).is_empty());
        assert!(on_sample(operating_system, PURE_FILE, "use std::net::SocketAddr;\n").is_empty());
    }

    #[test]
    fn floats_are_found_in_pure_crates() {
        assert_eq!(on_sample(floats, PURE_FILE, "let x: f64 = y;\n").len(), 1);
        assert!(on_sample(floats, FLOAT_HOMES[0], "let x: f32 = y;\n").is_empty());
    }

    #[test]
    fn clocks_and_entropy_are_found_outside_their_homes() {
        for code in [
            "let now = std::time::Instant::now();\n",
            "use std::time::{Duration, Instant};\n",
            "let now = SystemTime::now();\n",
            "use std::time::Instant;\n",
            "getrandom::fill(&mut seed)?;\n",
            "let x = rand::rng();\n",
        ] {
            assert!(!on_sample(clock_and_entropy, SHELL_FILE, code).is_empty(), "{code}");
            assert!(on_sample(clock_and_entropy, CLOCK_HOMES[0], code).is_empty(), "{code}");
        }
        let waiting = "use tokio::time::Instant;\nlet until = Instant::now() + SPAN;\n";
        assert!(on_sample(clock_and_entropy, SHELL_FILE, waiting).is_empty());
    }

    #[test]
    fn unsafe_code_is_found() {
        assert_eq!(on_sample(unsafe_code, SHELL_FILE, "unsafe { f() }\n").len(), 1);
        assert!(on_sample(unsafe_code, SHELL_FILE, "#![forbid(unsafe_code)]\n").is_empty());
    }
}
