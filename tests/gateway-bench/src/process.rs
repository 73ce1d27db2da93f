//! Gateways as processes: pinned to a core, watched in `/proc`, ended with all their children.
//!
//! Owns how they are started and what the kernel tells of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::clock;

/// The core of the gateway under test.
pub const GATEWAY_CORE: &str = "0";
/// The core of the mock upstream and of the load generator.
pub const LOAD_CORE: &str = "1";
/// Above everything that has no real-time priority; the number among those does not matter.
const PRIORITY: &str = "10";
/// 2,000 streams are two descriptors each, and some peers need several times as many.
const DESCRIPTORS: u64 = 16_384;
/// How long a process may take to end after it was asked to.
const ENDING: Duration = Duration::from_secs(5);

/// How everything that is measured is started.
#[derive(Clone, Debug)]
pub struct Starter {
    /// Before everything else on the machine (`chrt`), so that other work does not show.
    pub first: bool,
}

/// A running process with its descendants.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Starter {
    /// Whether the machine allows real-time priorities.
    pub fn can_be_first() -> bool {
        let mut probe = Command::new("chrt");
        probe.args(["--rr", PRIORITY, "true"]).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    }

    /// Gives this process the place of the load, so that what it times is not others' work. It is
    /// idle while anything is measured.
    pub fn join_load_core(&self) {
        let own = std::process::id().to_string();
        let mut commands = vec![vec!["taskset", "--cpu-list", "--pid", LOAD_CORE, &own]];
        if self.first {
            commands.push(vec!["chrt", "--rr", "--pid", PRIORITY, &own]);
        }
        for words in commands {
            // Without it a start is timed less exactly, nothing else.
            let _ = Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).status();
        }
    }

    /// The command that runs `program` on `core`.
    pub fn command(&self, core: &str, program: &Path) -> Command {
        // Whatever becomes of the bench, what it started ends.
        let mut words = vec!["setpriv", "--pdeathsig", "KILL", "--"];
        if self.first {
            words.extend(["chrt", "--rr", PRIORITY]);
        }
        words.extend(["taskset", "--cpu-list", core]);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(program).process_group(0).stdin(Stdio::null());
        command
    }

    /// Starts a gateway with its output in a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn gateway(
        &self,
        program: &Path,
        log: PathBuf,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Process> {
        let mut command = self.command(GATEWAY_CORE, program);
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdout(out.try_clone()?).stderr(out);
        prepare(&mut command);
        let child =
            command.spawn().with_context(|| format!("{} did not start", program.display()))?;
        Ok(Process { child, log })
    }

    /// Starts a part of this bench that says one line when it is ready: that line and the process.
    ///
    /// # Errors
    /// When it ends before it has said anything.
    pub fn part(&self, core: &str, args: &[&str]) -> Result<(String, Process)> {
        let mut command = self.command(core, &std::env::current_exe()?);
        let mut child = command.args(args).stdout(Stdio::piped()).spawn()?;
        let line = first_line(child.stdout.take())?;
        let process = Process { child, log: PathBuf::new() };
        Ok((line, process))
    }
}

fn first_line(out: Option<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    BufReader::new(out.context("no standard output")?).read_line(&mut line)?;
    let line = line.trim_end();
    if line.is_empty() {
        bail!("a part of the bench ended before it was ready");
    }
    Ok(line.to_owned())
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it printed, for a message.
    pub fn said(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(600)..]).trim().to_owned()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end and waits until it has.
    pub fn end(self) {
        self.end_within(ENDING);
    }

    /// The same with more patience, or less.
    pub fn end_within(mut self, patience: Duration) {
        self.signal(Signal::TERM);
        let step = Duration::from_millis(10);
        clock::poll(patience, step, || self.has_ended().then_some(()));
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its children may outlive it.
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Set for a process that has a network namespace of its own.
const NAMESPACE: &str = "SELVEDGE_BENCH_NAMESPACE";

/// Whether this run has a network namespace of its own.
pub fn has_namespace() -> bool {
    std::env::var_os(NAMESPACE).is_some()
}

/// Starts this program again in a network namespace that holds nothing but loopback, where no
/// filter of the machine costs anything; goes on as it is where that is not allowed.
pub fn enter_namespace(words: &[String]) {
    let Ok(own) = std::env::current_exe() else { return };
    let mut probe = Command::new("unshare");
    probe.args(["--net", "true"]).stderr(Stdio::null());
    if has_namespace() || !probe.status().is_ok_and(|status| status.success()) {
        return;
    }
    // Comes back only when it failed.
    let _ = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(own)
        .args(words)
        .env(NAMESPACE, "1")
        .exec();
}

/// Lets this process and all it starts have enough descriptors.
///
/// # Errors
/// When the machine allows too few.
pub fn raise_limits() -> Result<()> {
    let limits = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limits.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    let raised = Rlimit { current: Some(wanted), maximum: limits.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).context("cannot raise the descriptors")
}

/// CPU time of a process and its descendants, user and system, ended children included.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn cpu_time(root: u32) -> Result<Duration> {
    let per_second = rustix::param::clock_ticks_per_second();
    let mut ticks = 0;
    for pid in descendants(root)? {
        // One may have ended since the list was made.
        let Some(fields) = stat(pid) else { continue };
        // utime, stime, cutime, cstime: fields 14 to 17 of proc_pid_stat(5).
        ticks += (14..=17).filter_map(|at| field(&fields, at)).sum::<u64>();
    }
    Ok(Duration::from_micros(ticks * 1_000_000 / per_second))
}

/// Memory of a process and its descendants in MiB: resident now, and the most it ever was.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn memory(root: u32) -> Result<(f64, f64)> {
    let (mut now, mut peak) = (0, 0);
    for pid in descendants(root)? {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let kib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let word = line.and_then(|line| line.split_whitespace().nth(1));
            word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        };
        now += kib("VmRSS:");
        peak += kib("VmHWM:");
    }
    Ok((now as f64 / 1_024.0, peak as f64 / 1_024.0))
}

/// A process and all below it.
fn descendants(root: u32) -> Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_string_lossy().parse().ok();
        let parent = pid.and_then(stat).and_then(|fields| field(&fields, 4));
        if let (Some(pid), Some(parent)) = (pid, parent) {
            children.entry(u32::try_from(parent)?).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

/// The fields of `/proc/PID/stat` from the third on: the second may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// A field by its number in proc_pid_stat(5).
fn field(fields: &[String], number: usize) -> Option<u64> {
    fields.get(number - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_with_its_children() {
        let own = std::process::id();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(descendants(own).unwrap().contains(&child.id()));
        let (now, peak) = memory(own).unwrap();
        assert!(now > 0.5 && peak >= now, "{now} {peak}");
        let before = cpu_time(own).unwrap();
        let grown = clock::poll(Duration::from_secs(20), Duration::ZERO, || {
            (cpu_time(own).unwrap() > before).then_some(())
        });
        assert!(grown.is_some(), "reading /proc costs time");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
