//! Pages that stay true: links lead somewhere, and each command shown is run by a test.
//!
//! Owns how links and fenced commands are read from Markdown. Which test runs which command is
//! listed in `tests/commands.toml`; a listed test or script must exist.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;
use crate::repo;

/// Where the documented commands are listed with what runs them.
const COMMANDS: &str = "tests/commands.toml";

/// Languages of fenced blocks that hold commands to type.
const SHELLS: &[&str] = &["sh", "bash", "shell", "console"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Commands {
    command: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    /// The command as the page shows it.
    line: String,
    /// `path` of a script that holds it, or `path::name` of a test function.
    proof: String,
}

/// What does not hold in the pages among `files`.
pub(super) fn check(files: &[String]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let known: BTreeSet<&str> = files.iter().map(String::as_str).collect();
    let listed = repo::text(COMMANDS)?.unwrap_or_default();
    let listed: Commands = toml::from_str(&listed).with_context(|| COMMANDS.to_owned())?;
    let mut shown = BTreeSet::new();
    for path in files.iter().filter(|path| path.ends_with(".md")) {
        let text = repo::text(path)?.unwrap_or_default();
        findings.extend(check_links(path, &text, &known));
        for (line, command) in commands(&text) {
            if !listed.command.iter().any(|listed| listed.line == command) {
                let message = format!("`{command}` is not in {COMMANDS}: no test runs it");
                findings.push(Finding::new(path, line, message));
            }
            shown.insert(command);
        }
    }
    for listed in &listed.command {
        if !shown.contains(&listed.line) {
            let message = format!("`{}` is shown on no page", listed.line);
            findings.push(Finding::new(COMMANDS, 1, message));
        }
        let path = listed.proof.split("::").next().unwrap_or_default();
        let text = if known.contains(path) { repo::text(path)? } else { None };
        if let Some(message) = check_proof(listed, text.as_deref()) {
            findings.push(Finding::new(COMMANDS, 1, message));
        }
    }
    Ok(findings)
}

/// Why a proof is none; `text` is the text of the file it names.
fn check_proof(listed: &Listed, text: Option<&str>) -> Option<String> {
    let Listed { line, proof } = listed;
    let Some(text) = text else { return Some(format!("`{line}`: {proof} does not exist")) };
    let holds = match proof.split_once("::") {
        None => text.contains(line.as_str()),
        Some((_, name)) => text.contains(&format!("fn {name}(")) && text.contains("test]"),
    };
    (!holds).then(|| format!("`{line}`: {proof} does not run it"))
}

/// Line number and text of each command in a page's fenced blocks; a line that ends in a
/// backslash goes on in the next one.
fn commands(page: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut language: Option<String> = None;
    let mut continued = false;
    for (index, line) in page.lines().enumerate() {
        if let Some(rest) = line.trim_start().strip_prefix("```") {
            language = if language.is_some() { None } else { Some(rest.trim().to_owned()) };
            continue;
        }
        let Some(language) = language.as_deref().filter(|l| SHELLS.contains(l)) else { continue };
        let text = line.trim();
        let command = match text.strip_prefix("$ ") {
            Some(command) => command,
            None if language == "console" && !continued => continue,
            None => text,
        };
        if command.is_empty() || (command.starts_with('#') && !continued) {
            continue;
        }
        let (command, goes_on) = match command.strip_suffix('\\') {
            Some(start) => (start.trim_end(), true),
            None => (command, false),
        };
        match found.last_mut().filter(|_| continued) {
            Some((_, before)) => {
                before.push(' ');
                before.push_str(command);
            }
            None => found.push((index + 1, command.to_owned())),
        }
        continued = goes_on;
    }
    found
}

fn check_links(path: &str, page: &str, known: &BTreeSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in page.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in targets(line) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.to_owned() } else { resolve(path, file) };
            let folder = known.iter().any(|known| known.starts_with(&format!("{file}/")));
            let found = known.contains(file.as_str()) || folder;
            if !found {
                let message = format!("link to {target}, which does not exist");
                findings.push(Finding::new(path, index + 1, message));
            } else if !anchor.is_empty() && file == path && !has_heading(page, anchor) {
                let message = format!("link to #{anchor}, a heading that does not exist");
                findings.push(Finding::new(path, index + 1, message));
            }
        }
    }
    findings
}

/// What the links and pictures of one line point at.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (opening, closing) in [("](", ')'), ("src=\"", '"'), ("href=\"", '"')] {
        for (at, _) in line.match_indices(opening) {
            let rest = &line[at + opening.len()..];
            if let Some(end) = rest.find(closing) {
                found.push(rest[..end].split(' ').next().unwrap_or_default());
            }
        }
    }
    found
}

/// A link's path, relative to the page it is on, as a path from the root.
fn resolve(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in Path::new(link).components() {
        match part.as_os_str().to_str().unwrap_or_default() {
            ".." => {
                parts.pop();
            }
            "." | "/" => {}
            name => parts.push(name),
        }
    }
    parts.join("/")
}

fn has_heading(page: &str, anchor: &str) -> bool {
    page.lines().filter(|line| line.starts_with('#')).any(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let slug: String = title
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        slug == anchor
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_from_fences_only() {
        let page = "`a b`\n\n```sh\n# why\ncargo run -- demo\ncurl x \\\n  -d y\n```\n\n\
                    ```console\n$ selvedge up\nready\n```\n\n```rust\nfn x() {}\n```\n";
        let found: Vec<String> = commands(page).into_iter().map(|(_, command)| command).collect();
        assert_eq!(found, ["cargo run -- demo", "curl x -d y", "selvedge up"]);
    }

    #[test]
    fn a_proof_must_exist_and_name_the_command() {
        let listed = |proof: &str| Listed { line: "x y".to_owned(), proof: proof.to_owned() };
        assert!(check_proof(&listed("a.sh"), Some("x y\n")).is_none());
        assert!(check_proof(&listed("a.sh"), Some("x z\n")).is_some());
        assert!(check_proof(&listed("a.sh"), None).is_some());
        let test = "#[test]\nfn it_runs() {}\n";
        assert!(check_proof(&listed("a.rs::it_runs"), Some(test)).is_none());
        assert!(check_proof(&listed("a.rs::it_flies"), Some(test)).is_some());
    }

    #[test]
    fn dead_links_are_found() {
        let known = BTreeSet::from(["README.md", "docs/a.md", "docs/p/x.svg"]);
        let page = "[a](../README.md) [b](b.md) ![c](p/x.svg) [d](https://x.y) [e](p)\n\
                    # A head, line\n[f](#a-head-line) [g](#none)\n<img src=\"q.svg\">\n";
        let found = check_links("docs/a.md", page, &known);
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 3, 4], "{found:?}");
    }
}
