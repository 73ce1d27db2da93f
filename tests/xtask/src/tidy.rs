//! House rules that a compiler does not know: sizes, headers, determinism, plain text, pages.
//!
//! Owns which rules run on which files. Each rule lives in a module below and is a function from
//! a file to findings; each has a test with a sample it must reject.

mod pages;
mod purity;
mod size;
mod words;

use std::collections::BTreeSet;

use anyhow::Result;

use crate::lexer::Source;
use crate::repo;

/// A line of a file that breaks a rule.
#[derive(Debug)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

/// A rule about one Rust file.
type SourceRule = fn(&Source, &mut Vec<Finding>);
/// A rule about one text file of any kind: its path and its text.
type TextRule = fn(&str, &str, &mut Vec<Finding>);

/// Rules about Rust files.
const SOURCE_RULES: &[SourceRule] = &[
    size::file_length,
    size::function_length,
    size::line_width,
    size::header,
    words::markers,
    words::ignored_tests,
    words::sleeping_tests,
    words::constants_without_reason,
    words::exceptions_without_reason,
    purity::hash_order,
    purity::operating_system,
    purity::floats,
    purity::clock_and_entropy,
    purity::unsafe_code,
];

/// Rules about every text file.
const TEXT_RULES: &[TextRule] =
    &[words::white_space, words::registry_hosts, words::marker_words_in_pages];

/// Lock files are written by tools, licences by lawyers, pictures by a script.
const NOT_OURS: &[&str] = &["Cargo.lock", "LICENSE"];
/// Inputs of the fuzz targets: broken on purpose, and they stay as they are to the byte.
const INPUTS: &str = "tests/fuzz/corpus/";

/// What does not hold, one line each.
pub(crate) fn check() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let files = repo::files()?;
    let mut sources = Vec::new();
    for path in files.iter().filter(|path| is_ours(path)) {
        let Some(text) = repo::text(path)? else { continue };
        for rule in TEXT_RULES {
            rule(path, &text, &mut findings);
        }
        if path.ends_with(".rs") {
            sources.push(Source::new(path, &text));
        }
    }
    let tests: BTreeSet<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        if tests.contains(&source.path) {
            source.mark_as_test();
        }
        for rule in SOURCE_RULES {
            rule(source, &mut findings);
        }
    }
    findings.extend(pages::check(&files)?);
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(findings.iter().map(ToString::to_string).collect())
}

/// Lists the Rust files over the soft limit, the longest first.
pub(crate) fn print_long_files() -> Result<()> {
    let mut long = Vec::new();
    for path in repo::files()?.iter().filter(|path| path.ends_with(".rs")) {
        let lines = repo::text(path)?.unwrap_or_default().lines().count();
        if lines > size::SOFT_FILE_LINES {
            long.push((lines, path.clone()));
        }
    }
    long.sort_by(|a, b| b.cmp(a));
    for (lines, path) in long {
        println!("{path}: {lines} lines, over the soft limit of {}", size::SOFT_FILE_LINES);
    }
    Ok(())
}

fn is_ours(path: &str) -> bool {
    !NOT_OURS.contains(&path) && !path.starts_with(INPUTS) && !path.ends_with(".svg")
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Findings of one rule on a sample, for the tests of the rules.
#[cfg(test)]
fn on_sample(rule: SourceRule, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    rule(&Source::new(path, text), &mut findings);
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn this_repository_is_tidy() {
        let findings = check().unwrap();
        assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    }

    #[test]
    fn a_finding_says_where() {
        assert_eq!(Finding::new("a.rs", 3, "is odd").to_string(), "a.rs:3: is odd");
    }
}
