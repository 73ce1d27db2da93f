//! Reference pages written by the program itself: docs/cli.md and docs/config.md.
//!
//! Owns how they are laid out. What they say is asked of the `selvedge` binary, so that a page
//! cannot drift from the program: the check writes it anew and compares.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::repo;

/// The deepest chain of subcommands followed: `selvedge mesh root export` is three, and a loop in
/// what the program prints must end.
const DEEPEST: usize = 5;

/// First line of each generated page.
const NOTICE: &str = "<!-- Written by `cargo xtask docs`; change the program, not this page. -->";

/// Writes the pages.
pub(crate) fn write() -> Result<()> {
    for (path, text) in pages()? {
        fs::write(repo::root().join(path), text).with_context(|| format!("writing {path}"))?;
        println!("{path}: written");
    }
    Ok(())
}

/// The pages that are not current.
pub(crate) fn check() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for (path, text) in pages()? {
        let found = fs::read_to_string(repo::root().join(path)).unwrap_or_default();
        if found != text {
            let line = found.lines().zip(text.lines()).take_while(|(a, b)| a == b).count() + 1;
            findings.push(format!("{path}:{line}: not current: run `cargo xtask docs`"));
        }
    }
    Ok(findings)
}

fn pages() -> Result<Vec<(&'static str, String)>> {
    let binary = Binary::built()?;
    let mut cli =
        format!("{NOTICE}\n\n# Command line\n\nWhat `--help` prints, command by command.\n");
    describe(&binary, &mut Vec::new(), &mut cli)?;
    let reference = binary.output(&["config", "reference"])?;
    let config = format!("{NOTICE}\n\n{}\n", plain(&reference));
    Ok(vec![("docs/cli.md", cli), ("docs/config.md", config)])
}

/// The program the pages describe.
struct Binary(std::path::PathBuf);

impl Binary {
    /// Builds it if it is not current. The whole workspace with its tests is named, so that cargo
    /// chooses the same features as for the tests and compiles nothing twice: tests want some of
    /// dependencies that the program alone does not.
    fn built() -> Result<Self> {
        let output = Command::new("cargo")
            .args(["build", "--quiet", "--workspace", "--bin", "selvedge", "--tests"])
            .args(["--message-format", "json-render-diagnostics"])
            .current_dir(repo::root())
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("cargo did not start")?;
        if !output.status.success() {
            bail!("selvedge does not build");
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        let path = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["target"]["name"] == "selvedge")
            // Its unit tests are a program of the same name.
            .filter(|message| message["profile"]["test"] == false)
            .find_map(|message| message["executable"].as_str().map(str::to_owned))
            .context("cargo did not say where it put selvedge")?;
        Ok(Self(path.into()))
    }

    fn output(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.0)
            .args(args)
            .env_clear()
            .env("COLUMNS", "100")
            .output()
            .with_context(|| format!("{} did not start", self.0.display()))?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("selvedge {} failed: {error}", args.join(" "));
        }
        String::from_utf8(output.stdout).context("output is not UTF-8")
    }
}

/// Appends the help of the command at `path` and of all below it.
fn describe(binary: &Binary, path: &mut Vec<String>, page: &mut String) -> Result<()> {
    let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
    args.push("--help");
    let help = binary.output(&args)?;
    let title = std::iter::once("selvedge").chain(path.iter().map(String::as_str));
    let title = title.collect::<Vec<_>>().join(" ");
    write!(page, "\n## {title}\n\n```text\n{}\n```\n", plain(&help))?;
    if path.len() < DEEPEST {
        for name in subcommands(&help) {
            path.push(name);
            describe(binary, path, page)?;
            path.pop();
        }
    }
    Ok(())
}

/// Text without white space at the ends of lines.
fn plain(help: &str) -> String {
    help.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The names listed under `Commands:` in a help text.
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        // A name is indented by two; deeper lines carry on the text of the line above.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
#[path = "docs_tests.rs"]
mod tests;
