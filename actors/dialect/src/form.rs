//! Bodies in parts: `multipart/form-data` (RFC 7578, with the framing of RFC 2046).
//!
//! Owns the cutting. A body is whole and in memory; parts are places in it, so that a file is not
//! copied. Everything is bounded, and what is not well-formed is refused.

use std::ops::Range;

use memchr::memmem;
use selvedge_base::{Code, Refusal, Stage};

/// Parts of a body: OpenAI's longest form has ten fields, of which some may come several times.
pub const MAX_PARTS: usize = 64;
/// Bytes of a part's headers: a name and the name of a file.
const HEAD_BYTES: usize = 4 << 10;
/// Bytes of what stands between parts (RFC 2046, section 5.1.1).
const BOUNDARY_BYTES: usize = 70;

/// A part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The field's name.
    pub name: String,
    /// Whether it is a file.
    pub file: bool,
    /// Where its content is in the body.
    pub content: Range<usize>,
}

/// The parts of a body that is declared as such a content type.
///
/// # Errors
/// A refusal that says what is wrong with it.
pub fn parts(content_type: &str, body: &[u8]) -> Result<Vec<Part>, Refusal> {
    let boundary = parameter(content_type, "boundary");
    let boundary = boundary.filter(|text| (1..=BOUNDARY_BYTES).contains(&text.len()));
    let boundary = boundary.ok_or_else(|| malformed("its content type names no boundary"))?;
    let line = format!("--{boundary}");
    // Each boundary but the first one begins a line.
    let mut at = match body.starts_with(line.as_bytes()) {
        true => line.len(),
        false => {
            let first = memmem::find(body, format!("\r\n{line}").as_bytes());
            first.map(|at| at + 2 + line.len()).ok_or_else(|| malformed("it has no parts"))?
        }
    };
    let finder = memmem::Finder::new(&line).into_owned();
    let mut parts = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        // Blanks may stand after a boundary.
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if !rest[blank..].starts_with(b"\r\n") {
            return Err(malformed("a boundary is followed by something else than a line's end"));
        }
        if parts.len() == MAX_PARTS {
            return Err(malformed(&format!("it has more than {MAX_PARTS} parts")));
        }
        // The end of the line before may be the empty one of no headers.
        let head = at + blank + 2;
        let window = &body[head - 2..body.len().min(head + HEAD_BYTES)];
        let end = memmem::find(window, b"\r\n\r\n");
        let end = end.ok_or_else(|| malformed("a part's headers do not end"))?;
        let content = head - 2 + end + 4;
        let headers = &body[head..content.saturating_sub(4).max(head)];
        let close = close(body, content, &finder)?;
        let (name, file) = disposition(headers)?;
        parts.push(Part { name, file, content: content..close });
        at = close + 2 + line.len();
    }
}

/// Where a part's content ends: before the line's end before the next boundary.
fn close(body: &[u8], from: usize, finder: &memmem::Finder<'_>) -> Result<usize, Refusal> {
    let found = finder.find_iter(&body[from..]).map(|at| from + at);
    let mut begins = found.filter(|at| *at >= from + 2 && body[*at - 2..].starts_with(b"\r\n"));
    begins.next().map(|at| at - 2).ok_or_else(|| malformed("its last boundary is missing"))
}

/// A part's name, and whether it is a file.
fn disposition(headers: &[u8]) -> Result<(String, bool), Refusal> {
    let headers =
        std::str::from_utf8(headers).map_err(|_| malformed("a part's headers are not UTF-8"))?;
    let line = headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    });
    let line = line.ok_or_else(|| malformed("a part has no content-disposition"))?;
    let name = parameter(line, "name").ok_or_else(|| malformed("a part has no name"))?;
    let file = parameter(line, "filename").or_else(|| parameter(line, "filename*"));
    Ok((name, file.is_some()))
}

/// A parameter of a header's value, without its quotes.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (found, next) = match after.strip_prefix('"') {
            None => match after.split_once(';') {
                Some((found, next)) => (found.trim().to_owned(), next),
                None => (after.trim().to_owned(), ""),
            },
            Some(quoted) => {
                let (found, next) = unquoted(quoted)?;
                (found, next.split_once(';').map_or("", |(_, next)| next))
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(found);
        }
        rest = next;
    }
}

/// A quoted text up to its end, and what is after it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut found, mut escaped) = (String::new(), false);
    for (at, char) in text.char_indices() {
        match char {
            '"' if !escaped => return Some((found, &text[at + 1..])),
            '\\' if !escaped => escaped = true,
            char => {
                found.push(char);
                escaped = false;
            }
        }
    }
    None
}

fn malformed(why: &str) -> Refusal {
    let message = format!("the body is not as multipart/form-data ought to be: {why}");
    Refusal::client(Stage::Validate, Code::InvalidRequest, message)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; charset=utf-8; boundary=\"a b\"";

    fn cut(body: &str) -> Result<Vec<(String, bool, String)>, String> {
        let parts = parts(TYPE, body.as_bytes()).map_err(|refusal| refusal.message)?;
        let told = |part: Part| (part.name, part.file, body[part.content].to_owned());
        Ok(parts.into_iter().map(told).collect())
    }

    #[test]
    fn parts_are_cut_where_they_end() {
        let body = "before\r\n--a b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nsmall\
            \r\n--a b \t\r\nContent-Type: audio/wav\r\nContent-Disposition: form-data; \
            filename=\"a;\\\"b\\\".wav\"; name=file\r\n\r\n\r\n--a b\0 x--a b\r\n\r\n--a b--after";
        let owned = |name: &str, file, text: &str| (name.to_owned(), file, text.to_owned());
        assert_eq!(
            cut(body).expect_err("a boundary in a line of its own is one"),
            "the body is not as multipart/form-data ought to be: a boundary is followed by \
             something else than a line's end"
        );
        let body = body.replace("\r\n--a b\0", "\n--a b\0");
        let found = cut(&body).expect("good");
        assert_eq!(
            found,
            [owned("model", false, "small"), owned("file", true, "\n--a b\0 x--a b\r\n")]
        );
        assert_eq!(cut("--a b--").expect("good"), []);
        let empty = "--a b\r\ncontent-disposition: form-data; name=x\r\n\r\n\r\n--a b--";
        assert_eq!(cut(empty).expect("good"), [owned("x", false, "")]);
    }

    #[test]
    fn what_is_not_well_formed_is_refused_in_words() {
        let head = "--a b\r\ncontent-disposition: form-data; name=x\r\n\r\n";
        for (body, part) in [
            (String::new(), "no parts"),
            ("--other\r\n".to_owned(), "no parts"),
            ("--a b\r\n\r\ntext\r\n--a b--".to_owned(), "no content-disposition"),
            (head.to_owned(), "last boundary"),
            (format!("{head}text--a b--"), "last boundary"),
            (format!("--a b\r\nx: {}", "y".repeat(5_000)), "do not end"),
            ("--a b\r\ncontent-disposition: form-data\r\n\r\n\r\n--a b--".to_owned(), "no name"),
            (format!("{}\r\n--a b--", format!("{head}\r\n").repeat(65)), "more than 64"),
        ] {
            let said = cut(&body).expect_err("refused");
            assert!(said.contains(part), "{part}: {said}");
        }
        for kind in ["multipart/form-data", "multipart/form-data; boundary=", "x; boundary=\"a"] {
            assert!(parts(kind, b"--\r\n").is_err(), "{kind}");
        }
    }
}
