//! Words that must not appear, and comments that must.

use super::Finding;
use crate::lexer::{Source, has_word};

/// Notes to oneself: what is left to do belongs in the tracker, or is done.
const MARKERS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Test files that may wait by sleeping: none. A test waits for an event with a deadline.
const SLEEP_HOMES: &[&str] = &[];

/// Hosts of package registries: packages are named by name, so that mirrors keep working.
const REGISTRIES: &[&str] = &[
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("deb.debian", ".org"),
];

pub(super) fn markers(source: &Source, findings: &mut Vec<Finding>) {
    for (index, comment) in source.comments.iter().enumerate() {
        report_marker(&source.path, index + 1, comment, findings);
    }
}

/// The same in everything that is not Rust.
pub(super) fn marker_words_in_pages(path: &str, text: &str, findings: &mut Vec<Finding>) {
    if path.ends_with(".rs") {
        return;
    }
    for (index, line) in text.lines().enumerate() {
        report_marker(path, index + 1, line, findings);
    }
}

fn report_marker(path: &str, line: usize, text: &str, findings: &mut Vec<Finding>) {
    if let Some(marker) = MARKERS.iter().find(|marker| has_word(text, marker)) {
        findings.push(Finding::new(path, line, format!("{marker}: do it, or open an issue")));
    }
}

pub(super) fn ignored_tests(source: &Source, findings: &mut Vec<Finding>) {
    for (line, _) in source.numbered().filter(|(_, code)| code.contains("#[ignore")) {
        let message = "ignored tests prove nothing: run it or remove it";
        findings.push(Finding::new(&source.path, line, message));
    }
}

pub(super) fn sleeping_tests(source: &Source, findings: &mut Vec<Finding>) {
    let path = source.path.as_str();
    if SLEEP_HOMES.contains(&path) || path.contains("/examples/") {
        return;
    }
    let sleeps = |code: &str| has_word(code, "sleep") || has_word(code, "sleep_until");
    let functions = source.functions();
    for (line, _) in source.tests().filter(|(_, code)| sleeps(code)) {
        let around = functions.iter().rfind(|function| function.lines.contains(&line));
        if around.is_some_and(|function| has_paused_clock(source, *function.lines.start())) {
            continue;
        }
        let message = "tests do not sleep: wait for what happens, with a deadline";
        findings.push(Finding::new(&source.path, line, message));
    }
}

/// Whether the function that starts on `line` runs on a paused clock, where sleeping only moves
/// virtual time.
fn has_paused_clock(source: &Source, line: usize) -> bool {
    let above = source.code[..line - 1].iter().rev();
    let mut attributes = above.take_while(|code| code.trim_start().starts_with("#["));
    attributes.any(|attribute| has_word(attribute, "start_paused"))
}

/// A number in production code that has a name says why it is that number, in a comment above or
/// beside it. Numbers of a record are named by its fields; their reasons stand inside.
pub(super) fn constants_without_reason(source: &Source, findings: &mut Vec<Finding>) {
    let lines: Vec<(usize, &str)> = source.production().collect();
    for (position, (line, code)) in lines.iter().enumerate() {
        if !is_constant(code) || explained(source, *line) {
            continue;
        }
        let mut item = String::new();
        for (_, part) in &lines[position..] {
            item.push_str(part);
            if part.trim_end().ends_with(';') {
                break;
            }
        }
        let value = item.split_once('=').map_or("", |(_, value)| value);
        let record = code.trim_end().ends_with('{');
        if !record && has_number(value) {
            let message = "number without a comment that says why it is this one";
            findings.push(Finding::new(&source.path, *line, message));
        }
    }
}

fn is_constant(code: &str) -> bool {
    let item = code.trim_start();
    let item = item.strip_prefix("pub ").unwrap_or(item);
    let visible = item.strip_prefix("pub(").and_then(|rest| rest.split_once(") "));
    let item = visible.map_or(item, |(_, item)| item);
    let constant = item.starts_with("const ") && !item.starts_with("const fn ");
    (constant && !item.starts_with("const _")) || item.starts_with("static ")
}

/// Whether an expression holds a number other than the 0 and 1 of plain counting.
fn has_number(value: &str) -> bool {
    value
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word != "0" && word != "1")
}

/// Whether a comment stands on the line (from 1) or directly above it, attributes and the other
/// constants of its group passed over.
fn explained(source: &Source, line: usize) -> bool {
    if !source.comments[line - 1].trim().is_empty() {
        return true;
    }
    let passed = |code: &str| code.trim_start().starts_with("#[") || is_constant(code);
    let above = (0..line - 1).rev().find(|at| !passed(&source.code[*at]));
    above.is_some_and(|at| {
        source.code[at].trim().is_empty() && !source.comments[at].trim().is_empty()
    })
}

/// An `allow` or `expect` of a lint in production code carries its reason.
pub(super) fn exceptions_without_reason(source: &Source, findings: &mut Vec<Finding>) {
    let lines: Vec<(usize, &str)> = source.production().collect();
    for (position, (line, code)) in lines.iter().enumerate() {
        let opens = ["#[allow(", "#[expect(", "#![allow(", "#![expect("]
            .iter()
            .any(|attribute| code.contains(attribute));
        if !opens {
            continue;
        }
        let rest = lines[position..].iter().map(|(_, code)| *code);
        let mut attribute = String::new();
        for part in rest {
            attribute.push_str(part);
            if part.contains(']') {
                break;
            }
        }
        if !has_word(&attribute, "reason") {
            let message = "a lint is switched off without `reason = \"...\"`";
            findings.push(Finding::new(&source.path, *line, message));
        }
    }
}

pub(super) fn white_space(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(path, index + 1, "white space at the end of the line"));
        }
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        let line = text.lines().count().max(1);
        findings.push(Finding::new(path, line, "must end with exactly one line feed"));
    }
}

pub(super) fn registry_hosts(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        if let Some(host) = REGISTRIES.iter().find(|host| line.contains(**host)) {
            findings.push(Finding::new(path, index + 1, format!("names the registry {host}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::on_sample;
    use super::*;

    fn on_text(rule: super::super::TextRule, text: &str) -> usize {
        let mut findings = Vec::new();
        rule("docs/x.md", text, &mut findings);
        findings.len()
    }

    #[test]
    fn markers_are_found() {
        let comment = format!("// {} later\n", MARKERS[0]);
        assert_eq!(on_sample(markers, "a.rs", &comment).len(), 1);
        let literal = format!("let x = \"{}\";\n", MARKERS[0]);
        assert!(on_sample(markers, "a.rs", &literal).is_empty());
        assert_eq!(on_text(marker_words_in_pages, &comment), 1);
    }

    #[test]
    fn ignored_tests_are_found() {
        assert_eq!(on_sample(ignored_tests, "a.rs", "#[ignore]\nfn x() {}\n").len(), 1);
        assert_eq!(on_sample(ignored_tests, "a.rs", "#[ignore = \"slow\"]\n").len(), 1);
    }

    #[test]
    fn sleeping_is_found_in_tests_only() {
        let code = "fn f() { std::thread::sleep(SPAN); }\n";
        assert_eq!(on_sample(sleeping_tests, "tests/tests/all.rs", code).len(), 1);
        assert!(on_sample(sleeping_tests, "mesh/net/src/a.rs", code).is_empty());
        let paused = format!("#[tokio::test(start_paused = true)]\n{code}");
        assert!(on_sample(sleeping_tests, "tests/tests/all.rs", &paused).is_empty());
        let imported = "use tokio::time::{sleep, timeout};\n";
        assert_eq!(on_sample(sleeping_tests, "mesh/net/src/a_tests.rs", imported).len(), 1);
    }

    #[test]
    fn bare_constants_are_found() {
        let rule = constants_without_reason;
        assert_eq!(on_sample(rule, "a.rs", "const N: u8 = 3;\n").len(), 1);
        assert_eq!(on_sample(rule, "a.rs", "pub(crate) const N: u8 = 3;\n").len(), 1);
        assert_eq!(on_sample(rule, "a.rs", "const N: [u8; 2] = [\n    7,\n    1,\n];\n").len(), 1);
        let pair = "/// Why.\nconst N: u8 = 3;\n\nconst M: u8 = 4;\n";
        assert_eq!(on_sample(rule, "a.rs", pair).len(), 1);
        for good in [
            "/// Why.\n#[allow(x)]\npub const N: u8 = 3;\n",
            "/// Why both.\nconst N: u8 = 3;\nconst M: u8 = 4;\n",
            "const N: u8 = 3; // why\n",
            "const PLAN: Plan = Plan {\n    nodes: 5,\n};\n",
            "const NAME: &str = \"3 words\";\nconst OFF: bool = false;\n",
            "const KIND: &'static str;\nfn f() { x = 3; }\n",
            "const fn f() {}\n",
            "#[cfg(test)]\nmod tests {\n const N: u8 = 3;\n}\n",
        ] {
            assert!(on_sample(rule, "a.rs", good).is_empty(), "{good}");
        }
    }

    #[test]
    fn silent_exceptions_are_found() {
        let rule = exceptions_without_reason;
        assert_eq!(on_sample(rule, "a.rs", "#[allow(clippy::x)]\nfn f() {}\n").len(), 1);
        let multi = "#[expect(\n    clippy::x,\n    reason = \"y\"\n)]\nfn f() {}\n";
        assert!(on_sample(rule, "a.rs", multi).is_empty());
    }

    #[test]
    fn loose_white_space_is_found() {
        assert_eq!(on_text(white_space, "a \nb\n"), 1);
        assert_eq!(on_text(white_space, "a"), 1);
        assert_eq!(on_text(white_space, "a\n\n"), 1);
        assert_eq!(on_text(white_space, "a\n"), 0);
    }

    #[test]
    fn registry_hosts_are_found() {
        let text = format!("see https://{}/x\n", REGISTRIES[0]);
        assert_eq!(on_text(registry_hosts, &text), 1);
    }
}
