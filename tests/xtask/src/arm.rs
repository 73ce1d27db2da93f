//! The kernels' tests on 64-bit ARM, on an emulated processor of each class.
//!
//! Owns which processors those are and what emulating them needs. Says nothing about speed: an
//! emulator counts no cycles.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::check::heading;
use crate::needs::{self, Program};
use crate::repo;

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// What Debian calls the place of the libraries for it.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";
/// Processors as qemu calls them, and the set of instructions that the kernels must choose there.
const PROCESSORS: &[(&str, &str)] =
    &[("cortex-a53", "neon"), ("cortex-a76", "neon-dotprod"), ("max", "neon-i8mm")];
/// Cases of each property: an emulated processor is ten to thirty times slower, and the shapes of a
/// dozen cases meet every layout and every group of rows.
const CASES: &str = "12";

/// Built in a third of the time that full optimisation takes, and no slower to emulate by as much.
const PROFILE: &str = "profile.dev.package.selvedge-kernels.opt-level=1";

const PROGRAMS: &[Program] = &[
    Program {
        name: "qemu-aarch64",
        probe: &["qemu-aarch64", "--version"],
        install: "apt-get install qemu-user",
    },
    Program {
        name: "ARM linker",
        probe: &["aarch64-linux-gnu-gcc", "--version"],
        install: "apt-get install gcc-aarch64-linux-gnu",
    },
];

/// What is missing here, one line each with the command that brings it.
pub(crate) fn missing() -> Vec<String> {
    let mut missing = needs::unanswered(PROGRAMS);
    if !Path::new(SYSROOT).join("lib/crt1.o").is_file() {
        missing.push(needs::line("ARM C library", "apt-get install libc6-dev-arm64-cross"));
    }
    if !has_target(TARGET) {
        let install = format!("rustup target add {TARGET}");
        missing.push(needs::line("ARM standard library", &install));
    }
    missing
}

/// Runs the tests on each processor, and shows what is missing if they cannot run.
pub(crate) fn test() -> Result<bool> {
    let missing = missing();
    if !missing.is_empty() {
        println!("missing on this machine (nothing was installed):");
        for line in &missing {
            println!("  {line}");
        }
        return Ok(false);
    }
    for (processor, set) in PROCESSORS {
        heading(&format!("{processor}: {set}"));
        if !on(processor, set)? {
            println!("{processor}: the kernels' tests FAILED");
            return Ok(false);
        }
    }
    Ok(true)
}

fn on(processor: &str, set: &str) -> Result<bool> {
    let variable =
        |name: &str| format!("CARGO_TARGET_{}_{name}", TARGET.replace('-', "_").to_uppercase());
    let status = Command::new("cargo")
        .args(["test", "--locked", "--quiet", "--package", "selvedge-kernels", "--lib"])
        .args(["--target", TARGET, "--config", PROFILE])
        .env(variable("LINKER"), "aarch64-linux-gnu-gcc")
        .env(variable("RUNNER"), format!("qemu-aarch64 -L {SYSROOT} -cpu {processor}"))
        .env("PROPTEST_CASES", CASES)
        .env("SELVEDGE_TEST_ISA", set)
        // Where clippy is the compiler, it lints what is built for this machine.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .current_dir(repo::root())
        .stdin(Stdio::null())
        .status()
        .context("cargo test did not start")?;
    Ok(status.success())
}

/// Whether the compiler has the standard library for it.
fn has_target(target: &str) -> bool {
    let found = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(repo::root())
        .output();
    found.is_ok_and(|found| {
        let path = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        found.status.success() && !path.is_empty() && Path::new(&path).is_dir()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_not_installed_is_missing() {
        assert!(!has_target("no-such-target"));
        assert!(!has_target("aarch64-unknown-redox"), "known to the compiler, not installed");
    }

    #[test]
    fn each_class_of_the_kernels_has_a_processor() {
        let sets = repo::text("inference/kernels/src/simd.rs").ok().flatten().unwrap_or_default();
        let named: Vec<&str> =
            sets.split('"').filter(|name| *name == "neon" || name.starts_with("neon-")).collect();
        let run: Vec<&str> = PROCESSORS.iter().map(|(_, set)| *set).collect();
        assert_eq!(named, run);
    }
}
