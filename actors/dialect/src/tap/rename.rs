//! The model's name in an answer that passes: the one asked for in place of the provider's.
//!
//! Owns finding it. A model's name stands once in an event or a whole answer, under its own key; in
//! a text the key's quotes would be escaped, so that no text is taken for it.

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;

use crate::json;

/// Made once, since making costs more than looking.
static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"model\""));

/// Puts one name in the place of another.
#[derive(Debug)]
pub struct Rename {
    /// The name as JSON.
    name: Vec<u8>,
}

impl Rename {
    /// Renames to `model`.
    pub fn to(model: &str) -> Self {
        let mut name = Vec::with_capacity(model.len() + 2);
        json::value(&mut name, model);
        Self { name }
    }

    /// Gives `bytes` on, with the name in them replaced.
    pub fn give(&self, bytes: &[u8], give: &mut impl FnMut(&[u8])) {
        match Self::find(bytes) {
            Some((start, end)) => {
                give(&bytes[..start]);
                give(&self.name);
                give(&bytes[end..]);
            }
            None => give(bytes),
        }
    }

    /// Where the first name lies, with its quotes.
    fn find(bytes: &[u8]) -> Option<(usize, usize)> {
        KEY.find_iter(bytes).find_map(|at| {
            let mut at = skip(bytes, at + KEY.needle().len())?;
            if bytes[at] != b':' {
                return None;
            }
            at = skip(bytes, at + 1)?;
            if bytes[at] != b'"' {
                return None;
            }
            let mut end = at + 1;
            loop {
                end += memchr2(b'"', b'\\', bytes.get(end..)?)?;
                if bytes[end] == b'"' {
                    return Some((at, end + 1));
                }
                // What an escape escapes is no end.
                end += 2;
            }
        })
    }
}

/// The next byte that is no space, if there is one.
fn skip(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.iter().position(|byte| !byte.is_ascii_whitespace()).map(|spaces| from + spaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(text: &str) -> String {
        let mut out = Vec::new();
        Rename::to("a/\"b\"").give(text.as_bytes(), &mut |piece| out.extend_from_slice(piece));
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn only_the_value_of_the_key_is_replaced() {
        for (before, after) in [
            (r#"{"model":"x","b":1}"#, r#"{"model":"a/\"b\"","b":1}"#),
            (
                r#"{"t":"a \"model\":\"x\"","model" : "x\\"}"#,
                r#"{"t":"a \"model\":\"x\"","model" : "a/\"b\""}"#,
            ),
            (
                r#"["model",{"model":null},{"model":"x"}]"#,
                r#"["model",{"model":null},{"model":"a/\"b\""}]"#,
            ),
        ] {
            assert_eq!(renamed(before), after);
        }
        for same in [r#"{"model":1}"#, r#"{"model":"cut"#, r#"{"model":"cut\"#, r#""model""#, ""] {
            assert_eq!(renamed(same), same);
        }
    }
}
