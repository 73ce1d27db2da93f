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

/// Set where nothing was built before and nothing is built afterwards: clippy then is the compiler
/// of what is built, where it would go through every dependency a second time on its own.
const LINT_AS_BUILT: &str = "SELVEDGE_LINT_AS_BUILT";
/// Cargo's name for the compiler of the workspace's own packages.
const WRAPPER: &str = "RUSTC_WORKSPACE_WRAPPER";

/// Runs every check and every test.
pub(crate) fn test() -> Result<bool> {
    if std::env::var_os(LINT_AS_BUILT).is_some() {
        let mut again = Command::new(std::env::current_exe().context("this program's path")?);
        again.arg("test").env_remove(LINT_AS_BUILT);
        again.env(WRAPPER, "clippy-driver").env("CLIPPY_ARGS", "-Dwarnings");
        return Ok(again.status().context("this program did not start again")?.success());
    }
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
    let (is_compiler, arguments) = lint(std::env::var_os(WRAPPER).as_deref());
    let linted = run.command("clippy", "cargo", arguments);
    if is_compiler && !linted {
        run.summary();
        println!("\nonce more with clippy apart: what it finds must hide no failed test");
        let mut apart = Command::new("cargo");
        apart.args(["xtask", "test"]).env_remove(WRAPPER).env_remove("CLIPPY_ARGS");
        let _failed = apart.current_dir(repo::root()).status().context("cargo did not start")?;
        return Ok(false);
    }
    // With the features that the tests want of dependencies: what they start is the same program.
    let build = &["build", "--locked", "--workspace", "--bins", "--tests"];
    let built = run.command("build", "cargo", build);
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

/// What lints everything: clippy, or a build whose compiler it is; and whether it is that.
fn lint(wrapper: Option<&OsStr>) -> (bool, &'static [&'static str]) {
    if wrapper.is_some_and(|wrapper| Path::new(wrapper).ends_with("clippy-driver")) {
        (true, &["build", "--locked", "--workspace", "--all-targets"])
    } else {
        (false, &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
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
        let verb = |wrapper: Option<&str>| {
            let (is_compiler, arguments) = lint(wrapper.map(OsStr::new));
            (is_compiler, arguments.first().copied())
        };
        assert_eq!(verb(Some("clippy-driver")), (true, Some("build")));
        assert_eq!(verb(Some("/usr/lib/rust/clippy-driver")), (true, Some("build")));
        assert_eq!(verb(None), (false, Some("clippy")));
        assert_eq!(verb(Some("sccache")), (false, Some("clippy")));
    }
}
