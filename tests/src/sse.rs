//! Server-sent events as the streaming API sends them.
//!
//! Owns splitting a body into events and knowing how it ended. Deliberately strict: anything that
//! is not a `data:` line, a comment or a blank line is an error.

use anyhow::{Result, bail, ensure};

use crate::http::Reply;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A JSON document.
    Data(String),
    /// The `[DONE]` mark.
    Done,
    /// The connection ended.
    End,
}

/// The next event of a stream.
///
/// # Errors
/// When the stream breaks off in the middle of an event or the deadline passes.
pub fn next(reply: &mut Reply) -> Result<Event> {
    let mut data = String::new();
    while let Some(line) = reply.line()? {
        ensure!(line.ends_with('\n'), "the stream broke off inside a line: `{line}`");
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            match data.as_str() {
                // A comment or a stray blank line carries nothing.
                "" => continue,
                "[DONE]" => return Ok(Event::Done),
                _ => return Ok(Event::Data(data)),
            }
        }
        if let Some(text) = line.strip_prefix("data:") {
            data.push_str(text.trim_start());
        } else if !line.starts_with(':') && !line.starts_with("id:") {
            bail!("not a line of an event stream: `{line}`");
        }
    }
    ensure!(data.is_empty(), "the stream broke off inside an event: `{data}`");
    Ok(Event::End)
}
