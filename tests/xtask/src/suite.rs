//! The whole suite in order: what is cheap and says most comes first, the tests come last.
//!
//! Owns the order and the arguments. Every step runs even if an earlier one failed, so that one
//! run tells everything; only the tests wait for the build.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::check::Run;
use crate::{arm, deny, docs, layers, needs, repo, report, tidy};

/// Runs the checks that need no build.
pub(crate) fn check() -> Result<bool> {
    let mut run = Run::new(4);
    checks(&mut run);
    Ok(run.summary())
}

/// Runs every check and every test.
pub(crate) fn test() -> Result<bool> {
    let missing = needs::missing()?;
    if !missing.is_empty() {
        println!("missing on this machine (nothing was installed):");
        for line in &missing {
            println!("  {line}");
        }
        println!("run as root, `bash .ci/run` installs all of it and then runs the suite");
        return Ok(false);
    }
    if !needs::is_root() {
        println!("not root: the tests that make network namespaces will fail, by name");
    }
    let mut run = Run::new(9);
    checks(&mut run);
    run.command("clippy", "cargo", lint(std::env::var_os("RUSTC_WORKSPACE_WRAPPER").as_deref()));
    let built = run.command("build", "cargo", &["build", "--locked", "--workspace"]);
    run.step("kernels on ARM", "cargo xtask arm", arm::test);
    let mut closing = None;
    if built {
        run.step("generated pages", "cargo xtask docs --check", || {
            Ok(report::show("docs", &docs::check()?))
        });
        run.step("tests", "cargo nextest run --workspace", || {
            let (passed, line) = nextest()?;
            closing = line;
            Ok(passed)
        });
    }
    let passed = run.summary();
    // Repeated at the very end: what reads only the tail must see that tests ran.
    if let Some(line) = closing {
        println!("\n{line}");
    }
    Ok(passed)
}

fn checks(run: &mut Run) {
    run.command("format", "cargo", &["fmt", "--all", "--check"]);
    run.step("layers", "cargo xtask layers", || Ok(report::show("layers", &layers::check()?)));
    run.step("tidy", "cargo xtask tidy", || Ok(report::show("tidy", &tidy::check()?)));
    run.step("licences and bans", "cargo xtask deny", || Ok(report::show("deny", &deny::check()?)));
}

/// What lints everything: clippy, or a build where clippy is the compiler (`.ci/run`).
fn lint(wrapper: Option<&OsStr>) -> &'static [&'static str] {
    if wrapper.is_some_and(|wrapper| Path::new(wrapper).ends_with("clippy-driver")) {
        &["build", "--locked", "--workspace", "--all-targets"]
    } else {
        &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]
    }
}

/// Runs all tests; whether they passed, and the runner's closing line.
fn nextest() -> Result<(bool, Option<String>)> {
    let profile = if std::env::var_os("CI").is_some() { "ci" } else { "default" };
    let mut child = Command::new("cargo")
        .args(["nextest", "run", "--locked", "--workspace", "--profile", profile])
        .current_dir(repo::root())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cargo nextest did not start")?;
    let mut closing = None;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.context("reading the output of cargo nextest")?;
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.trim_start().starts_with("Summary [") {
                closing = Some(line.trim().to_owned());
            }
            println!("{line}");
            let _ = std::io::stdout().flush();
        }
    }
    Ok((child.wait()?.success(), closing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_lints_only_where_clippy_is_its_compiler() {
        let verb = |wrapper: Option<&str>| lint(wrapper.map(OsStr::new)).first().copied();
        assert_eq!(verb(Some("clippy-driver")), Some("build"));
        assert_eq!(verb(Some("/usr/lib/rust/clippy-driver")), Some("build"));
        assert_eq!(verb(None), Some("clippy"));
        assert_eq!(verb(Some("sccache")), Some("clippy"));
    }
}
