//! What the tests need on the machine, and the command that brings what is missing.
//!
//! Owns the list. Installs nothing: `.ci/run` is the script that may.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::{arm, models, repo};

/// The Python packages of the tests, pinned.
const REQUIREMENTS: &str = "tests/requirements.txt";

/// A program the tests call: how to ask whether it is there, and what brings it.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) probe: &'static [&'static str],
    pub(crate) install: &'static str,
}

/// Programs of the machine and of the toolchain.
const PROGRAMS: &[Program] = &[
    Program { name: "cc", probe: &["cc", "--version"], install: "apt-get install gcc" },
    Program { name: "make", probe: &["make", "--version"], install: "apt-get install make" },
    Program {
        name: "chromium",
        probe: &["chromium", "--version"],
        install: "apt-get install chromium",
    },
    Program {
        name: "chromedriver",
        probe: &["chromedriver", "--version"],
        install: "apt-get install chromium-driver",
    },
    Program { name: "curl", probe: &["curl", "--version"], install: "apt-get install curl" },
    Program { name: "git", probe: &["git", "--version"], install: "apt-get install git" },
    Program { name: "ip", probe: &["ip", "-V"], install: "apt-get install iproute2" },
    Program {
        name: "setpriv",
        probe: &["setpriv", "--version"],
        install: "apt-get install util-linux",
    },
    Program {
        name: "rustfmt",
        probe: &["cargo", "fmt", "--version"],
        install: "rustup component add rustfmt",
    },
    Program {
        name: "clippy",
        probe: &["cargo", "clippy", "--version"],
        install: "rustup component add clippy",
    },
    Program {
        name: "cargo-nextest",
        probe: &["cargo", "nextest", "--version"],
        install: "cargo install --locked cargo-nextest",
    },
    Program { name: "node", probe: &["node", "--version"], install: "apt-get install nodejs npm" },
    Program {
        name: "npm packages",
        probe: &["npm", "ls", "--prefix", "tests/node"],
        install: "npm ci --prefix tests/node",
    },
    Program {
        name: "python3 with pip",
        probe: &["python3", "-m", "pip", "--version"],
        install: "apt-get install python3 python3-pip python3-venv",
    },
];

/// What is missing, one line each with the command that brings it.
pub(crate) fn missing() -> Result<Vec<String>> {
    let mut missing = unanswered(PROGRAMS);
    missing.extend(arm::missing());
    missing.extend(missing_packages(&repo::text(REQUIREMENTS)?.unwrap_or_default()));
    if !models::present()? {
        missing.push(line("test model", "cargo xtask models"));
    }
    Ok(missing)
}

/// A line for each program that does not answer.
pub(crate) fn unanswered(programs: &[Program]) -> Vec<String> {
    let silent = programs.iter().filter(|program| !answers(program.probe));
    silent.map(|program| line(program.name, program.install)).collect()
}

/// What is missing, and the command that brings it.
pub(crate) fn line(name: &str, install: &str) -> String {
    format!("{name:<20} {install}")
}

/// Whether the tests that make network namespaces can: they need root and fail by name without.
pub(crate) fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn missing_packages(requirements: &str) -> Vec<String> {
    let python = repo::root().join(".venv/bin/python");
    let bring = format!(
        "python3 -m venv .venv && .venv/bin/python -m pip install --requirement {REQUIREMENTS}"
    );
    if !python.is_file() {
        return vec![line(".venv", &bring)];
    }
    let mut missing = Vec::new();
    for (name, version) in pins(requirements) {
        let script = format!(
            "import importlib.metadata as m, sys; sys.exit(m.version('{name}') != '{version}')"
        );
        if !answers(&[&python.to_string_lossy(), "-c", &script]) {
            missing.push(line(&format!("{name}=={version}"), &bring));
        }
    }
    missing
}

/// The `name==version` lines of a requirements file; what a package brings more, as in
/// `name[extra]==version`, is no part of its name.
fn pins(requirements: &str) -> Vec<(&str, &str)> {
    requirements
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter_map(|line| line.split_once("=="))
        .map(|(name, version)| (name.split('[').next().unwrap_or(name), version))
        .collect()
}

/// Whether a command runs and succeeds; its output is not shown.
fn answers(command: &[&str]) -> bool {
    let Some((program, args)) = command.split_first() else { return false };
    let status = Command::new(program)
        .args(args)
        .current_dir(repo::root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_is_missing() {
        assert!(answers(&["true"]));
        assert!(!answers(&["false"]));
        assert!(!answers(&["no-such-program-here"]));
        assert!(!answers(&[]));
    }

    #[test]
    fn requirements_are_pins() {
        let text = "# why\na==1.0 # x\n\nb[more,yet]==2\n";
        assert_eq!(pins(text), [("a", "1.0"), ("b", "2")]);
    }

    #[test]
    fn every_requirement_of_the_tests_is_pinned() {
        let text = repo::text(REQUIREMENTS).ok().flatten().unwrap_or_default();
        let named = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        assert_eq!(named.count(), pins(&text).len());
        assert!(!pins(&text).is_empty());
    }
}
