//! A process of its own for a file that comes from anybody, and what the node has to do with it.
//!
//! Owns the process: it is started, asked one thing at a time, and ended when it takes too long or
//! nobody waits any more; how long a file is left alone that was at fault; and the frames of what
//! is said, which both sides bound. The process's own side is `child`. What is said, and what an
//! answer or an end means, is the business of whoever has it.

mod child;

use std::io::{self, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use selvedge_base::{Micros, Mono, codec};
use serde::de::DeserializeOwned;

pub(crate) use child::{Watch, confine};

/// How often one that waits looks whether anybody still wants the answer.
const LOOKS_EVERY: Duration = Duration::from_millis(20);
/// Milliseconds from the end of a process's output to its own: usually less than one.
const REAPED_WITHIN_MS: u32 = 500;
/// How long a file is left alone after its first fault; it doubles with each more.
pub(crate) const FIRST_REST: Micros = Micros::secs(1);
/// Doublings of it: a file that always hangs or crashes is tried every four minutes.
const MAX_DOUBLINGS: u32 = 8;
/// A file that did well for so long begins afresh.
const FORGIVEN_AFTER: Micros = Micros::secs(3_600);
/// Characters of an error that are shown: the text is in part the file's.
const SHOWN_CHARS: usize = 500;

/// A running process, which is asked `A` and answers `T`. The thread that writes to it and reads
/// from it is apart, so that whoever waits can stop waiting.
pub(crate) struct Process<A, T> {
    child: Child,
    asks: SyncSender<A>,
    answers: Receiver<T>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Nobody waits any more.
    Unwanted,
    /// The time is over.
    TooLong,
    /// The process ended.
    Ended,
}

/// What came of asking one thing.
pub(crate) enum Heard<T> {
    /// An answer.
    Answer(T),
    /// An answer, and the process has no ear for more.
    Last(T),
    /// None: the process is gone, or said what cannot be understood.
    Nothing,
}

impl<A: Send + 'static, T: Send + 'static> Process<A, T> {
    /// Starts a command, and a thread of this name which says to it what is asked and reads what it
    /// answers, as `exchange` does.
    pub(crate) fn spawn(
        mut command: Command,
        thread: &str,
        exchange: impl Fn(A, &mut ChildStdin, &mut ChildStdout) -> Heard<T> + Send + 'static,
    ) -> io::Result<Self> {
        // It says what there is to say in its answers; a crash's last words would be a file's.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        #[cfg(unix)]
        {
            // A key that interrupts the node on a terminal is not for its helpers.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let mut child = command.spawn()?;
        let (asks, asked) = sync_channel(1);
        let (told, answers) = sync_channel(1);
        let pipes = child.stdin.take().zip(child.stdout.take());
        // From here on the process ends with this value.
        let process = Self { child, asks, answers };
        let Some((mut input, mut output)) = pipes else {
            return Err(io::Error::other("it has no pipes"));
        };
        std::thread::Builder::new().name(thread.to_owned()).spawn(move || {
            // Until one of the sides is gone.
            while let Ok(ask) = asked.recv() {
                let (heard, more) = match exchange(ask, &mut input, &mut output) {
                    Heard::Answer(heard) => (heard, true),
                    Heard::Last(heard) => (heard, false),
                    Heard::Nothing => return,
                };
                if told.send(heard).is_err() || !more {
                    return;
                }
            }
        })?;
        Ok(process)
    }

    /// The process, unless it has ended.
    pub(crate) fn running(mut self) -> Option<Self> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }

    /// Its number with the system.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How a process that closed its output ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        for _ in 0..REAPED_WITHIN_MS {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => std::thread::park_timeout(Duration::from_millis(1)),
                Err(_) => return None,
            }
        }
        None
    }

    /// Asks one thing and waits for the answer. After a silence the process is of no use.
    pub(crate) fn ask(&mut self, ask: A, within: Duration) -> Result<T, Silence> {
        self.asked(ask, within, within, &|| true)
    }

    /// The same, as long as the answer is wanted.
    pub(crate) fn ask_while(
        &mut self,
        ask: A,
        within: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<T, Silence> {
        self.asked(ask, within, LOOKS_EVERY, wanted)
    }

    fn asked(
        &mut self,
        ask: A,
        within: Duration,
        looks_every: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<T, Silence> {
        // One thing at a time: there is always room for it.
        self.asks.send(ask).map_err(|_| Silence::Ended)?;
        let mut left = within;
        loop {
            let look = left.min(looks_every);
            left = left.saturating_sub(look);
            match self.answers.recv_timeout(look) {
                Ok(told) => return Ok(told),
                Err(RecvTimeoutError::Disconnected) => return Err(Silence::Ended),
                Err(RecvTimeoutError::Timeout) if !wanted() => return Err(Silence::Unwanted),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Err(Silence::TooLong),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl<A, T> Drop for Process<A, T> {
    fn drop(&mut self) {
        // Both fail only when it is gone already. It holds nothing that is worth a farewell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hangs and crashes that are not forgiven.
#[derive(Default)]
pub(crate) struct Faults {
    count: u32,
    last: Option<Mono>,
}

impl Faults {
    /// How much longer what was at fault is left alone, if it is.
    pub(crate) fn rests(&self, now: Mono) -> Option<Micros> {
        let (since, rest) = (now.since(self.last?), self.rest());
        (since < rest).then(|| Micros(rest.0 - since.0))
    }

    /// Notes a fault; how long it is left alone now.
    pub(crate) fn note(&mut self, now: Mono) -> Micros {
        if self.last.is_some_and(|last| now.since(last) >= FORGIVEN_AFTER) {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
        self.rest()
    }

    fn rest(&self) -> Micros {
        match self.count.checked_sub(1) {
            None => Micros(0),
            Some(doublings) => Micros(FIRST_REST.0 << doublings.min(MAX_DOUBLINGS)),
        }
    }
}

/// As much of an error as is shown.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

/// Reads a message of so many bytes at most; `None` where the other side has ended.
pub(crate) fn read<T: DeserializeOwned>(
    input: &mut impl Read,
    limit: usize,
) -> io::Result<Option<T>> {
    let mut header = [0; codec::LENGTH_BYTES];
    match input.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = codec::body_length(header, limit).map_err(io::Error::other)?;
    let body = exactly(input, length as u64)?;
    codec::decode_body(&body).map(Some).map_err(io::Error::other)
}

/// Reads so many bytes. Grows with what comes: a length alone takes no memory.
pub(crate) fn exactly(input: &mut impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    match input.take(bytes).read_to_end(&mut all)? as u64 == bytes {
        true => Ok(all),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "apart_tests.rs"]
mod tests;
