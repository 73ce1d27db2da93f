//! Files, functions and lines that a person can read at one go, and a header in each file.

use super::Finding;
use crate::lexer::Source;

/// A file over this length is too long to read in one sitting and must be divided.
const HARD_FILE_LINES: usize = 800;
/// Over this a file is reported: most are a quarter of it.
pub(super) const SOFT_FILE_LINES: usize = 400;
/// A function that does not fit on one screen does more than one thing.
const FUNCTION_LINES: usize = 70;
/// The width rustfmt formats to; it leaves long strings and comments alone.
const LINE_CHARS: usize = 100;

pub(super) fn file_length(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.code.len();
    if lines > HARD_FILE_LINES {
        let message = format!("{lines} lines; the limit is {HARD_FILE_LINES}");
        findings.push(Finding::new(&source.path, 1, message));
    }
}

pub(super) fn function_length(source: &Source, findings: &mut Vec<Finding>) {
    for function in source.functions() {
        let (start, end) = (*function.lines.start(), *function.lines.end());
        let lines = end - start + 1;
        if lines > FUNCTION_LINES {
            let message =
                format!("fn {} has {lines} lines; the limit is {FUNCTION_LINES}", function.name);
            findings.push(Finding::new(&source.path, start, message));
        }
    }
}

pub(super) fn line_width(source: &Source, findings: &mut Vec<Finding>) {
    for (index, line) in source.text.lines().enumerate() {
        let chars = line.chars().count();
        if chars > LINE_CHARS {
            let message = format!("{chars} columns; the limit is {LINE_CHARS}");
            findings.push(Finding::new(&source.path, index + 1, message));
        }
    }
}

/// A sibling file of tests belongs to the file it tests, whose header speaks for both.
pub(super) fn header(source: &Source, findings: &mut Vec<Finding>) {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let sibling = name == "tests.rs" || name.ends_with("_tests.rs");
    if !sibling && !source.text.starts_with("//! ") {
        let message = "begins without a `//!` header that says what the file owns";
        findings.push(Finding::new(&source.path, 1, message));
    }
}

#[cfg(test)]
mod tests {
    use super::super::on_sample;
    use super::*;

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(on_sample(file_length, "a.rs", &"x;\n".repeat(801)).len(), 1);
        assert!(on_sample(file_length, "a.rs", &"x;\n".repeat(800)).is_empty());
    }

    #[test]
    fn a_long_function_is_found() {
        let long = format!("fn f() {{\n{}}}\n", "x();\n".repeat(69));
        assert_eq!(on_sample(function_length, "a.rs", &long).len(), 1);
        let short = format!("fn f() {{\n{}}}\n", "x();\n".repeat(68));
        assert!(on_sample(function_length, "a.rs", &short).is_empty());
    }

    #[test]
    fn a_wide_line_is_found() {
        assert_eq!(on_sample(line_width, "a.rs", &"x".repeat(101)).len(), 1);
        assert!(on_sample(line_width, "a.rs", &"ä".repeat(100)).is_empty());
    }

    #[test]
    fn a_missing_header_is_found() {
        assert_eq!(on_sample(header, "a.rs", "use std::fmt;\n").len(), 1);
        assert_eq!(on_sample(header, "tests/tests/e2e/main.rs", "mod x;\n").len(), 1);
        assert!(on_sample(header, "a.rs", "//! Owns nothing.\n").is_empty());
        assert!(on_sample(header, "mesh/net/src/link_tests.rs", "use super::*;\n").is_empty());
    }
}
