//! Lines, ended by LF, CR LF or CR, whatever pieces they arrive in.
//!
//! Owns the splitting only. A line that arrives whole is handed on without a copy.

use memchr::memchr2;

use super::TooLong;
use crate::limits::EVENT_BYTES;

/// Splits bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// The last byte was CR, so that an LF now ends nothing.
    after_cr: bool,
}

impl Lines {
    /// Calls `line` with each line that `bytes` completes, without its end.
    ///
    /// # Errors
    /// When a line is longer than [`EVENT_BYTES`]; what follows is not to be read.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) -> Result<(), TooLong> {
        let mut rest = bytes;
        if std::mem::take(&mut self.after_cr) && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
        }
        while let Some(end) = memchr2(b'\n', b'\r', rest) {
            let (head, tail) = (&rest[..end], &rest[end + 1..]);
            if self.partial.is_empty() {
                line(head);
            } else {
                self.keep(head)?;
                let whole = std::mem::take(&mut self.partial);
                line(&whole);
                // Its memory serves the next one.
                self.partial = whole;
                self.partial.clear();
            }
            let cr = rest[end] == b'\r';
            rest = match tail.strip_prefix(b"\n") {
                Some(after) if cr => after,
                _ => tail,
            };
            self.after_cr = cr && tail.is_empty();
        }
        self.keep(rest)
    }

    /// The last line, if it has no end.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        self.after_cr = false;
        let partial = std::mem::take(&mut self.partial);
        (!partial.is_empty()).then_some(partial)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.partial.len() + bytes.len() > EVENT_BYTES {
            self.partial = Vec::new();
            return Err(TooLong);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}
