//! Server-sent events (the HTML standard, section 9.2), whatever pieces they arrive in.
//!
//! Owns fields, comments and dispatch. `id` and `retry` are read over: providers do not use them
//! and nothing reconnects here.

use super::TooLong;
use super::lines::Lines;
use crate::limits::EVENT_BYTES;

/// Reads events.
#[derive(Debug, Default)]
pub struct Events {
    lines: Lines,
    pending: Pending,
    begun: bool,
}

#[derive(Debug, Default)]
struct Pending {
    name: String,
    data: Vec<u8>,
    has_data: bool,
    too_long: bool,
}

impl Events {
    /// Calls `event` with the name (empty for a nameless one) and the data of each event that
    /// `bytes` completes.
    ///
    /// # Errors
    /// When an event is longer than [`EVENT_BYTES`]; what follows is not to be read.
    pub fn push(
        &mut self,
        bytes: &[u8],
        mut event: impl FnMut(&str, &[u8]),
    ) -> Result<(), TooLong> {
        let Self { lines, pending, begun } = self;
        lines.push(bytes, |line| {
            let line = match std::mem::replace(begun, true) {
                true => line,
                // A byte order mark may precede the first line.
                false => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            };
            pending.line(line, &mut event);
        })?;
        if pending.too_long { Err(TooLong) } else { Ok(()) }
    }
}

impl Pending {
    fn line(&mut self, line: &[u8], event: &mut impl FnMut(&str, &[u8])) {
        if line.is_empty() {
            if self.has_data && !self.too_long {
                event(&self.name, &self.data);
            }
            self.name.clear();
            self.data.clear();
            self.has_data = false;
            return;
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.data.len() + value.len() > EVENT_BYTES {
                    self.too_long = true;
                    return;
                }
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }
}
