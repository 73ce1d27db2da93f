//! A process that measures one of the two: asked by lines, answered by lines.
//!
//! Owns how it is started, and what the kernel tells of its memory. It ends with this value.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Before everything that is not as nice. No real-time priority: of that the kernel takes a
/// twentieth of each second back at once, a stall of 50 ms that niceness does not cost.
const NICENESS: &str = "-20";

/// How drivers are started.
pub(crate) struct Starter {
    /// Before everything else on the machine (`nice`), so that other work shows little.
    pub(crate) first: bool,
}

/// A running driver with its model loaded.
pub(crate) struct Driver {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What loading the model took.
    pub(crate) load: Duration,
}

/// What a driver measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) tokens: u32,
    pub(crate) took: Duration,
}

impl Measured {
    /// Tokens per second.
    pub(crate) fn rate(self) -> f64 {
        f64::from(self.tokens) / self.took.as_secs_f64().max(1e-6)
    }

    /// The line that tells it.
    fn line(self) -> String {
        format!("measured {} {}", self.tokens, self.took.as_micros())
    }

    fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &["measured", tokens, micros] = words.as_slice() else {
            bail!("a driver said {line:?} where it should have measured");
        };
        let micros = micros.parse().with_context(|| format!("the time in {line:?}"))?;
        let tokens = tokens.parse().with_context(|| format!("the tokens in {line:?}"))?;
        Ok(Self { tokens, took: Duration::from_micros(micros) })
    }
}

impl Starter {
    /// Whether the machine allows [`NICENESS`]. `nice` alone tells its own niceness.
    pub(crate) fn can_be_first() -> bool {
        let mut probe = Command::new("nice");
        probe.args(["-n", NICENESS, "nice"]).stderr(Stdio::null());
        probe.output().is_ok_and(|told| told.stdout.trim_ascii() == NICENESS.as_bytes())
    }

    /// Starts `program` and waits until its model is loaded.
    pub(crate) fn start(&self, program: &Path, arguments: &[&str]) -> Result<Driver> {
        // Whatever becomes of the bench, what it started ends.
        let mut words = vec!["setpriv", "--pdeathsig", "KILL", "--"];
        if self.first {
            words.extend(["nice", "-n", NICENESS]);
        }
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(program).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("{} did not start", program.display()))?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut driver = Driver { child, input, output, load: Duration::ZERO };
        driver.load = driver.answer()?.took;
        Ok(driver)
    }
}

impl Driver {
    /// Asks for a measurement and waits for it.
    pub(crate) fn ask(&mut self, order: &str) -> Result<Measured> {
        writeln!(self.input, "{order}").with_context(|| format!("asking for {order}"))?;
        self.answer().with_context(|| format!("measuring {order}"))
    }

    /// Asks for numbers and waits for them.
    pub(crate) fn list(&mut self, order: &str) -> Result<Vec<f64>> {
        writeln!(self.input, "{order}").with_context(|| format!("asking for {order}"))?;
        let line = self.line().with_context(|| format!("asking for {order}"))?;
        listed(&line).with_context(|| format!("a driver listed no numbers for {order}"))
    }

    /// The most memory it has held so far, in MiB, pages of its files included.
    pub(crate) fn peak_mib(&self) -> Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        peak_kib(&status).map(|kib| kib / 1024.0).with_context(|| format!("no VmHWM in {path}"))
    }

    fn answer(&mut self) -> Result<Measured> {
        Measured::parse(&self.line()?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            bail!("the driver ended before it answered; what it said is above");
        }
        Ok(line)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells what was measured, from inside a driver.
pub(crate) fn tell(measured: Measured) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", measured.line())?;
    Ok(out.flush()?)
}

/// Tells numbers, from inside a driver.
pub(crate) fn tell_list<N: std::fmt::Display>(numbers: impl IntoIterator<Item = N>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "listed")?;
    for number in numbers {
        write!(out, " {number}")?;
    }
    writeln!(out)?;
    Ok(out.flush()?)
}

/// The numbers of a line that lists some.
fn listed(line: &str) -> Option<Vec<f64>> {
    let mut words = line.split_whitespace();
    words.next().filter(|word| *word == "listed")?;
    words.map(|word| word.parse().ok().filter(|number: &f64| number.is_finite())).collect()
}

/// The peak in a process' `status`, in KiB.
fn peak_kib(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_read_as_it_is_told() {
        let measured = Measured { tokens: 128, took: Duration::from_micros(64_000) };
        assert_eq!(Measured::parse(&measured.line()).unwrap(), measured);
        assert!((measured.rate() - 2_000.0).abs() < 1e-6);
        for bad in ["", "measured 1", "measured x 1", "measured 1 -1", "took 1 2", "measured 1 2 3"]
        {
            assert!(Measured::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_listed_whole_or_not_at_all() {
        assert_eq!(listed("listed 1 -2.5\n"), Some(vec![1.0, -2.5]));
        assert_eq!(listed("listed\n"), Some(vec![]));
        for bad in ["", "measured 1 2", "listed 1 x", "listed NaN"] {
            assert_eq!(listed(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_peak_is_found() {
        assert_eq!(peak_kib("VmPeak:\t 9 kB\nVmHWM:\t  1234 kB\n"), Some(1_234.0));
        assert_eq!(peak_kib("VmPeak:\t 9 kB\n"), None);
        assert_eq!(peak_kib("VmHWM:\t x kB\n"), None);
    }
}
