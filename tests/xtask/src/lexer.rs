//! Rust source split into code and comments, without a parser.
//!
//! Owns the distinction between code, comments and literals, which parts are test code, and where
//! functions begin and end. That is enough for the checks; names and types are the compiler's.

use std::ops::RangeInclusive;

/// One Rust file as the checks see it. `code` and `comments` have the lines of the original; what
/// belongs to the other (and the inside of literals) is blank.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) code: Vec<String>,
    pub(crate) comments: Vec<String>,
    test_lines: Vec<bool>,
}

/// A function with a body, by line numbers from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) lines: RangeInclusive<usize>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = split(text);
        let code: Vec<String> = code.lines().map(str::to_owned).collect();
        let comments = comments.lines().map(str::to_owned).collect();
        let test_lines =
            if is_test_path(path) { vec![true; code.len()] } else { test_regions(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, comments, test_lines }
    }

    /// The files of modules that are declared under `#[cfg(test)]` here.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let stem = name.trim_end_matches(".rs");
        let below = if matches!(stem, "lib" | "main" | "mod") {
            folder.to_owned()
        } else {
            format!("{folder}/{stem}")
        };
        self.tests()
            .filter_map(|(_, code)| code.trim().strip_suffix(';')?.split_once("mod "))
            .map(|(_, module)| format!("{below}/{module}.rs"))
            .collect()
    }

    /// Counts the whole file as test code.
    pub(crate) fn mark_as_test(&mut self) {
        self.test_lines.fill(true);
    }

    /// Line number (from 1) and code of each line that is not test code.
    pub(crate) fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        self.numbered().filter(|(line, _)| !self.is_test(*line))
    }

    /// Line number (from 1) and code of each line of test code.
    pub(crate) fn tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.numbered().filter(|(line, _)| self.is_test(*line))
    }

    /// Line number (from 1) and code of every line.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.iter().enumerate().map(|(index, line)| (index + 1, line.as_str()))
    }

    fn is_test(&self, line: usize) -> bool {
        self.test_lines.get(line - 1).copied().unwrap_or(false)
    }

    /// All functions that have a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let code = Flat::new(&self.code);
        let mut found = Vec::new();
        for (at, word) in code.words() {
            if word != "fn" {
                continue;
            }
            let name: String =
                code.chars[at + 2..].iter().skip_while(|c| c.is_whitespace()).collect::<String>();
            let name: String = name.chars().take_while(|c| is_word(*c)).collect();
            if name.is_empty() {
                continue; // a function pointer type
            }
            if let Some(end) = code.item_end(at).filter(|end| code.chars[*end] == '}') {
                found.push(Function { name, lines: code.line(at)..=code.line(end) });
            }
        }
        found
    }
}

/// True for `needle` in `line` not surrounded by other word characters.
pub(crate) fn has_word(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + needle.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Test code by where it lies: black-box tests, sibling test files, examples. The automation itself
/// lies under tests/ but is a program like any other.
fn is_test_path(path: &str) -> bool {
    let xtask = path.starts_with("tests/xtask/src/");
    let name = path.rsplit('/').next().unwrap_or(path);
    (path.starts_with("tests/") && !xtask)
        || name == "tests.rs"
        || name.ends_with("_tests.rs")
        || path.contains("/tests/")
        || path.contains("/benches/")
        || path.contains("/examples/")
}

/// Which lines belong to an item under `#[cfg(test)]`.
fn test_regions(lines: &[String]) -> Vec<bool> {
    let mut marks = vec![false; lines.len()];
    let code = Flat::new(lines);
    for (index, line) in lines.iter().enumerate() {
        let Some(column) = line.find("#[cfg(").filter(|_| has_word(line, "test")) else { continue };
        if line.contains("not(test") {
            continue;
        }
        let start = code.starts[index] + line[..column].chars().count();
        let end = code.item_end(start).map_or(lines.len(), |end| code.line(end));
        for mark in &mut marks[index..end.min(lines.len())] {
            *mark = true;
        }
    }
    marks
}

/// Code as one row of characters that knows its lines.
struct Flat {
    chars: Vec<char>,
    starts: Vec<usize>,
}

impl Flat {
    fn new(lines: &[String]) -> Self {
        let (mut chars, mut starts) = (Vec::new(), Vec::new());
        for line in lines {
            starts.push(chars.len());
            chars.extend(line.chars());
            chars.push('\n');
        }
        Self { chars, starts }
    }

    /// The line number, from 1, of the character at `at`.
    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// Each word and where it begins.
    fn words(&self) -> Vec<(usize, String)> {
        let mut words = Vec::new();
        let mut at = 0;
        while at < self.chars.len() {
            let length = self.chars[at..].iter().take_while(|c| is_word(**c)).count();
            if length > 0 {
                words.push((at, self.chars[at..at + length].iter().collect()));
            }
            at += length.max(1);
        }
        words
    }

    /// Where the item that begins at `from` ends: its closing brace, or the semicolon of an item
    /// without a body. Brackets and parentheses on the way are passed over.
    fn item_end(&self, from: usize) -> Option<usize> {
        let (mut round, mut braces) = (0usize, 0usize);
        for (at, c) in self.chars.iter().enumerate().skip(from) {
            match c {
                '(' | '[' => round += 1,
                ')' | ']' => round = round.saturating_sub(1),
                '{' => braces += 1,
                '}' => {
                    braces = braces.saturating_sub(1);
                    if braces == 0 && round == 0 {
                        return Some(at);
                    }
                }
                ';' if braces == 0 && round == 0 => return Some(at),
                _ => {}
            }
        }
        None
    }
}

/// The text twice: once with everything but code blanked, once with everything but comments.
fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let mut at = 0;
    while at < chars.len() {
        let (length, kind) = token(&chars[at..], at.checked_sub(1).map(|before| chars[before]));
        for (offset, c) in chars[at..at + length].iter().enumerate() {
            let edge = offset == 0 || offset + 1 == length;
            let blank = if c.is_whitespace() { *c } else { ' ' };
            let (in_code, in_comments) = match kind {
                Kind::Code => (*c, blank),
                Kind::Comment => (blank, *c),
                Kind::Literal if edge => (*c, blank),
                Kind::Literal => (blank, blank),
            };
            code.push(in_code);
            comments.push(in_comments);
        }
        at += length;
    }
    (code, comments)
}

#[derive(Clone, Copy)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// Length and kind of what begins `rest`; `before` is the character before it.
fn token(rest: &[char], before: Option<char>) -> (usize, Kind) {
    let next = rest.get(1).copied();
    match rest[0] {
        '/' if next == Some('/') => {
            (rest.iter().take_while(|c| **c != '\n').count(), Kind::Comment)
        }
        '/' if next == Some('*') => (block_comment(rest), Kind::Comment),
        '"' => (quoted(rest, '"'), Kind::Literal),
        '\'' => char_literal(rest),
        'r' if !before.is_some_and(|c| is_word(c) && c != 'b' && c != 'c') => {
            raw_string(rest).map_or((1, Kind::Code), |length| (length, Kind::Literal))
        }
        _ => (1, Kind::Code),
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character literal, or the tick of a lifetime.
fn char_literal(rest: &[char]) -> (usize, Kind) {
    match (rest.get(1), rest.get(2)) {
        (Some('\\'), _) => (quoted(rest, '\''), Kind::Literal),
        (Some(_), Some('\'')) => (3, Kind::Literal),
        _ => (1, Kind::Code),
    }
}

fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = 2 + hashes;
    let end = rest[body..].windows(close.len()).position(|window| window == close.as_slice());
    Some(end.map_or(rest.len(), |end| body + end + close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("mesh/base/src/x.rs", text)
    }

    #[test]
    fn literals_and_comments_are_not_code() {
        let found = source("let a = \"todo // {\"; // note {\nlet b = r#\"}\"#; let c = '\\'';\n");
        assert_eq!(found.code[0].trim_end(), "let a = \"         \";");
        assert_eq!(found.comments[0].trim_start(), "// note {");
        assert!(!found.code[1].contains('}'));
        assert!(found.code[1].ends_with(';'));
    }

    #[test]
    fn nested_comments_end_where_they_end() {
        let found = source("/* a /* b */ c */ fn f() {}");
        assert_eq!(found.code[0].trim_start(), "fn f() {}");
    }

    #[test]
    fn lifetimes_are_not_characters() {
        let found = source("fn f<'a>(x: &'a str) -> &'a str { x }");
        assert_eq!(found.functions().len(), 1);
    }

    #[test]
    fn functions_are_measured_to_their_brace() {
        let found =
            source("fn a(x: [u8; 3]) -> u8\nwhere\n{\n  if x { '}' } else { 1 }\n}\nfn b();\n");
        assert_eq!(found.functions(), vec![Function { name: "a".to_owned(), lines: 1..=5 }]);
    }

    #[test]
    fn test_modules_are_told_from_production() {
        let found = source("fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n");
        let lines: Vec<usize> = found.production().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 6]);
        assert_eq!(found.tests().count(), 4);
    }

    #[test]
    fn a_declared_test_module_hides_nothing_else() {
        let found = source("#[cfg(test)]\n#[path = \"x_tests.rs\"]\nmod tests;\nfn c() {}\n");
        assert_eq!(found.production().map(|(line, _)| line).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn files_of_test_modules_are_found() {
        let text = "mod a;\n#[cfg(test)]\nmod b;\n#[cfg(test)]\npub(crate) mod c;\n";
        let lib = Source::new("mesh/net/src/lib.rs", text);
        assert_eq!(lib.test_modules(), ["mesh/net/src/b.rs", "mesh/net/src/c.rs"]);
        let link = Source::new("mesh/net/src/link.rs", text);
        assert_eq!(link.test_modules()[0], "mesh/net/src/link/b.rs");
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("let x: f32 = 1;", "f32"));
        assert!(!has_word("let x = unit_f32();", "f32"));
    }
}
