//! The kernels' tests in Miri, the interpreter that finds undefined behaviour.
//!
//! Owns for which sets of instructions it is done. Says nothing about speed, and is no part of
//! `cargo xtask test`: it takes a nightly toolchain, and minutes for single tests.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::check::heading;
use crate::needs;
use crate::repo;

/// What the interpreted processor has, and the set of instructions that the kernels must choose
/// there.
const PROCESSORS: &[(&str, &str)] = &[
    ("", "scalar"),
    ("+avx2,+fma,+f16c", "avx2"),
    ("+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512vl,+avx512vnni", "avx512-vnni"),
];
/// The toolchain: Miri comes with nightly ones only.
const TOOLCHAIN: &str = "+nightly";

/// Runs the tests on each processor, and shows what is missing if they cannot run.
pub(crate) fn test() -> Result<bool> {
    if !cfg!(target_arch = "x86_64") {
        println!("these sets of instructions are of x86-64, and this machine is another one");
        return Ok(false);
    }
    let there = Command::new("cargo")
        .args([TOOLCHAIN, "miri", "--version"])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success());
    if !there {
        println!("missing on this machine (nothing was installed):");
        let install = "rustup toolchain install nightly --component miri --component rust-src";
        println!("  {}", needs::line("Miri", install));
        return Ok(false);
    }
    let mut all = true;
    for (features, set) in PROCESSORS {
        heading(&format!("Miri: {set}"));
        if !with(features, set)? {
            println!("{set}: the kernels' tests FAILED in Miri");
            all = false;
        }
    }
    Ok(all)
}

fn with(features: &str, set: &str) -> Result<bool> {
    let flags =
        if features.is_empty() { String::new() } else { format!("-Ctarget-feature={features}") };
    let status = Command::new("cargo")
        .args([TOOLCHAIN, "miri", "nextest", "run", "--locked", "--no-fail-fast"])
        .args(["--package", "selvedge-kernels", "--lib"])
        // Each has a place of its own: the flags are part of what is compiled.
        .arg("--target-dir")
        .arg(repo::root().join("target/miri").join(set))
        .env("RUSTFLAGS", flags)
        // The tests read which processor they must see, and how late it is.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("SELVEDGE_TEST_ISA", set)
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .current_dir(repo::root())
        .stdin(Stdio::null())
        .status()
        .context("cargo did not start")?;
    Ok(status.success())
}
