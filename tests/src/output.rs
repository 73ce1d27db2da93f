//! What a process writes, line by line, to wait for and to show when a test fails.
//!
//! Owns reading both streams on threads of their own, so that a process never blocks on a full
//! pipe. Lines past the bound are counted, not kept.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Result, bail};

use crate::time::{Deadline, Stopwatch};

/// Lines kept per process: a chatty debug log of several minutes.
const LINES: usize = 50_000;
/// Bytes of one line; longer ones are cut in pieces of this size.
const LINE_BYTES: u64 = 64 * 1024;
/// Lines shown of each process when a test fails: enough to see what it did last.
const SHOWN: usize = 120;

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line of output.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was read.
    pub at: Stopwatch,
    /// From where.
    pub source: Source,
    /// Without the line end.
    pub text: String,
}

/// The captured output of one process.
#[derive(Clone, Debug)]
pub struct Output(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    dropped: usize,
    open: u8,
}

impl Output {
    /// Nothing captured yet.
    pub fn new(name: &str) -> Self {
        let state = Mutex::new(State::default());
        Self(Arc::new(Shared { name: name.to_owned(), state, changed: Condvar::new() }))
    }

    /// Reads a stream to its end on a thread of its own.
    pub fn capture(&self, source: Source, stream: impl Read + Send + 'static) {
        self.state().open += 1;
        let output = self.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut bytes = Vec::new();
            loop {
                bytes.clear();
                match (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut bytes) {
                    Ok(0) | Err(_) => break,
                    Ok(_) => output.push(source, &bytes),
                }
            }
            output.state().open -= 1;
            output.0.changed.notify_all();
        });
    }

    /// The first line, from `cursor` on, that `wanted` makes something of. The cursor moves behind
    /// it, so that the next wait looks only at later lines.
    ///
    /// # Errors
    /// When the deadline passes or the process closes its output first.
    pub fn wait<T>(
        &self,
        cursor: &mut usize,
        deadline: Deadline,
        what: &str,
        mut wanted: impl FnMut(&Line) -> Option<T>,
    ) -> Result<T> {
        let mut state = self.state();
        loop {
            while let Some(line) = state.lines.get(*cursor) {
                *cursor += 1;
                if let Some(found) = wanted(line) {
                    return Ok(found);
                }
            }
            if state.open == 0 {
                bail!("{} closed its output without {what}", self.0.name);
            }
            let Some(left) = deadline.left() else {
                bail!("{} did not print {what} in time", self.0.name);
            };
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until both streams are closed.
    ///
    /// # Errors
    /// When the deadline passes first: something still holds the pipe.
    pub fn closed(&self, deadline: Deadline) -> Result<()> {
        let mut state = self.state();
        while state.open > 0 {
            let Some(left) = deadline.left() else {
                bail!("something still holds the output of {}", self.0.name);
            };
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// How many lines there are: a cursor that sees only what comes later.
    pub fn cursor(&self) -> usize {
        self.state().lines.len()
    }

    /// Everything one stream has said.
    pub fn text(&self, source: Source) -> String {
        let state = self.state();
        let lines = state.lines.iter().filter(|line| line.source == source);
        lines.fold(String::new(), |text, line| text + &line.text + "\n")
    }

    /// The last lines of both streams, for people.
    pub fn tail(&self) -> String {
        let state = self.state();
        let skipped = state.lines.len().saturating_sub(SHOWN);
        let mut text = format!("---- {} ({} lines", self.0.name, state.lines.len());
        let _ = writeln!(text, ", {} beyond the bound) ----", state.dropped);
        for line in &state.lines[skipped..] {
            let mark = if line.source == Source::Out { "out" } else { "err" };
            let _ = writeln!(text, "{mark} | {}", line.text);
        }
        text
    }

    fn push(&self, source: Source, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes).trim_end_matches(['\n', '\r']).to_owned();
        let mut state = self.state();
        if state.lines.len() < LINES {
            state.lines.push(Line { at: Stopwatch::start(), source, text });
        } else {
            state.dropped += 1;
        }
        drop(state);
        self.0.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_line_is_found_once_and_the_end_is_noticed() {
        let output = Output::new("x");
        output.capture(Source::Out, Cursor::new(b"one\ntwo\nthree".to_vec()));
        let mut cursor = 0;
        let seen = |wanted: &'static str| {
            move |line: &Line| (line.text == wanted).then(|| line.text.clone())
        };
        output.wait(&mut cursor, Deadline::patient(), "two", seen("two")).unwrap();
        output.wait(&mut cursor, Deadline::patient(), "three", seen("three")).unwrap();
        let missed = output.wait(&mut cursor, Deadline::patient(), "one", seen("one"));
        assert!(missed.unwrap_err().to_string().contains("closed its output"));
        assert_eq!(output.text(Source::Out), "one\ntwo\nthree\n");
    }
}
