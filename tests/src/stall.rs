//! Stops single threads of a process, as a stuck computation would.
//!
//! Owns the tracing process (tests/python/stall.py): no signal stops one thread and leaves the
//! others running, but a tracer does. The threads go on when this value is dropped.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::places;
use crate::process::Process;
use crate::time::{Deadline, Stopwatch};

/// Threads that stand still.
#[derive(Debug)]
pub struct Stall {
    tracer: Process,
    /// When the last of them stopped.
    pub begun: Stopwatch,
    /// How many there are.
    pub threads: usize,
}

impl Stall {
    /// Stops the threads of a process whose names begin with one of these.
    ///
    /// # Errors
    /// When there is none or tracing is not permitted; the message says so.
    pub fn begin(process: &Process, names: &[&str]) -> Result<Self> {
        let script = places::repository().join("tests/python/stall.py");
        let mut arguments = vec![script.display().to_string(), process.pid().to_string()];
        arguments.extend(names.iter().map(|&name| name.to_owned()));
        let tracer = Process::start("stall.py", &places::python()?, &arguments, None, &[])?;
        let mut cursor = 0;
        let output = tracer.output();
        let line = output.wait(&mut cursor, Deadline::secs(10), "that threads stalled", |line| {
            line.text.starts_with("stalled ").then(|| line.clone())
        });
        let line = line.with_context(|| output.tail())?;
        let threads = line.text.split_whitespace().count() - 1;
        Ok(Self { begun: line.at, threads, tracer })
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When the tracer cannot.
    pub fn end(self) -> Result<()> {
        self.tracer.signal(Signal::TERM)?;
        let status = self.tracer.wait(Deadline::secs(10))?;
        ensure!(status.success(), "{status}: {}", self.tracer.output().tail());
        Ok(())
    }
}
