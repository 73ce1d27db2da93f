//! One child process: started in a group of its own, watched, signalled, never left behind.
//!
//! Owns the child's life. The child dies with this value, and on Linux also with the test process
//! itself (`setpriv --pdeathsig`), so that a killed test run leaves nothing. Processes must be
//! started on the test's main thread, because Linux ties that to the starting thread.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::output::{Output, Source};
use crate::time::Deadline;

/// A running or finished child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    output: Output,
    exit: Arc<Exit>,
}

#[derive(Debug, Default)]
struct Exit {
    status: Mutex<Option<ExitStatus>>,
    known: Condvar,
}

impl Process {
    /// Starts a program. `namespace` is the network namespace to run it in.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        namespace: Option<&str>,
        environment: &[(String, String)],
    ) -> Result<Self> {
        let mut command = command(program, namespace);
        // A home of the person who runs the tests must not leak in.
        command.args(arguments).env_remove("SELVEDGE_HOME");
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        own_group(&mut command);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let output = Output::new(name);
        if let Some(stream) = child.stdout.take() {
            output.capture(Source::Out, stream);
        }
        if let Some(stream) = child.stderr.take() {
            output.capture(Source::Err, stream);
        }
        let pid = Pid::from_child(&child);
        Ok(Self { name: name.to_owned(), pid, output, exit: reap(child) })
    }

    /// What it has written so far.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.living()?;
        kill_process(self.pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Sends a signal to the process and its descendants, as a terminal does for Ctrl-C.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        self.living()?;
        kill_process_group(self.pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the deadline passes first.
    pub fn wait(&self, deadline: Deadline) -> Result<ExitStatus> {
        let mut status = self.exit.status.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(status) = *status {
                return Ok(status);
            }
            let Some(left) = deadline.left() else {
                bail!("{} (pid {}) did not end in time", self.name, self.pid());
            };
            let waited = self.exit.known.wait_timeout(status, left);
            status = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends it at once, as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub fn kill(&self) -> Result<()> {
        if self.ended().is_none() {
            kill_process(self.pid, Signal::KILL)?;
        }
        self.wait(Deadline::secs(10)).map(|_| ())
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.exit.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time all its threads have spent on a processor.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            // A thread that ended meanwhile did so with what it had used.
            let Ok(account) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let used = account.split_whitespace().next().context("an empty account")?;
            total += Duration::from_nanos(used.parse()?);
        }
        Ok(total)
    }

    fn living(&self) -> Result<()> {
        match self.ended() {
            Some(status) => bail!("{} has already ended: {status}", self.name),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group may outlive its leader: descendants go too.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = self.wait(Deadline::secs(10));
    }
}

/// What a program that ran to its end left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Finished {
    /// Its standard output if it succeeded.
    ///
    /// # Errors
    /// When it failed; with all it said.
    pub fn success(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.out);
        }
        bail!("{}\nstdout: {}\nstderr: {}", self.status, self.out.trim(), self.err.trim())
    }

    /// Its standard error if it failed in an orderly way: an exit code, no signal, no panic.
    ///
    /// # Errors
    /// When it succeeded or crashed.
    pub fn failure(self) -> Result<String> {
        let orderly = self.status.code().is_some_and(|code| code != 0 && code != 101);
        if orderly && !self.err.trim().is_empty() {
            return Ok(self.err);
        }
        let Self { status, out, err } = self;
        bail!("expected an orderly failure, got {status}\nstdout: {out}\nstderr: {err}")
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started or does not end in time.
pub fn run(
    program: &Path,
    arguments: &[String],
    namespace: Option<&str>,
    environment: &[(String, String)],
    deadline: Deadline,
) -> Result<Finished> {
    let name = format!("{} {}", program.display(), arguments.join(" "));
    let process = Process::start(&name, program, arguments, namespace, environment)?;
    let waited = process.wait(deadline).and_then(|status| {
        process.output.closed(Deadline::secs(5))?;
        Ok(status)
    });
    let status = waited.with_context(|| process.output.tail())?;
    let (out, err) = (process.output.text(Source::Out), process.output.text(Source::Err));
    Ok(Finished { status, out, err })
}

fn command(program: &Path, namespace: Option<&str>) -> Command {
    let mut words: Vec<&str> = Vec::new();
    if let Some(namespace) = namespace {
        words.extend(["ip", "netns", "exec", namespace]);
    }
    if cfg!(target_os = "linux") {
        words.extend(["setpriv", "--pdeathsig", "KILL", "--"]);
    }
    let Some((first, rest)) = words.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}

fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

fn reap(mut child: Child) -> Arc<Exit> {
    let exit = Arc::new(Exit::default());
    let reaper = Arc::clone(&exit);
    thread::spawn(move || {
        let status = child.wait().ok();
        *reaper.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        reaper.known.notify_all();
    });
    exit
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let arguments = ["-c".to_owned(), script.to_owned()];
        Process::start("shell", Path::new("/bin/sh"), &arguments, None, &[]).unwrap()
    }

    #[test]
    fn the_exit_status_and_the_output_are_known() {
        let process = shell("echo out; echo err >&2; exit 3");
        let status = process.wait(Deadline::patient()).unwrap();
        process.output().closed(Deadline::patient()).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(process.output().text(Source::Out), "out\n");
        assert_eq!(process.output().text(Source::Err), "err\n");
    }

    #[test]
    fn descendants_end_with_the_value() {
        let process = shell("cat /dev/zero >/dev/null & echo started; wait");
        let mut cursor = 0;
        let wanted = |line: &crate::output::Line| (line.text == "started").then_some(());
        process.output().wait(&mut cursor, Deadline::patient(), "a child", wanted).unwrap();
        let output = process.output().clone();
        drop(process);
        // The child holds the error pipe as long as it lives, which without the signal is forever.
        output.closed(Deadline::patient()).unwrap();
    }
}
