//! One step of a run: a name, what it does, and how to run it alone.
//!
//! Owns how steps are announced, timed and summed up; the steps are in `suite`.

use std::io::{IsTerminal, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::repo;

/// What has run so far and how it went.
pub(crate) struct Run {
    total: usize,
    done: Vec<Done>,
}

struct Done {
    name: &'static str,
    again: String,
    took: Duration,
    outcome: Result<bool>,
}

impl Run {
    /// A run of `total` steps.
    pub(crate) fn new(total: usize) -> Self {
        Self { total, done: Vec::new() }
    }

    /// Runs a step; `again` is the command that runs it alone. True if it passed.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        again: &str,
        work: impl FnOnce() -> Result<bool>,
    ) -> bool {
        heading(&format!("[{}/{}] {name}", self.done.len() + 1, self.total));
        #[expect(clippy::disallowed_methods, reason = "how long a step took is shown, not decided")]
        let started = Instant::now();
        let outcome = work();
        let passed = matches!(outcome, Ok(true));
        if let Err(error) = &outcome {
            println!("{error:#}");
        }
        let took = started.elapsed();
        println!("{name}: {} in {}", if passed { "passed" } else { "FAILED" }, seconds(took));
        self.done.push(Done { name, again: again.to_owned(), took, outcome });
        passed
    }

    /// Runs a program as a step.
    pub(crate) fn command(&mut self, name: &'static str, program: &str, args: &[&str]) -> bool {
        let again = std::iter::once(program).chain(args.iter().copied()).collect::<Vec<_>>();
        self.step(name, &again.join(" "), || run(program, args))
    }

    /// Prints one line per step; true if all passed.
    pub(crate) fn summary(&self) -> bool {
        heading("summary");
        for done in &self.done {
            match done.outcome {
                Ok(true) => println!("  passed  {:<24} {}", done.name, seconds(done.took)),
                Ok(false) | Err(_) => {
                    println!("  FAILED  {:<24} again: {}", done.name, done.again);
                }
            }
        }
        let skipped = self.total - self.done.len();
        if skipped > 0 {
            println!("  not run: {skipped} (what they need did not build)");
        }
        skipped == 0 && self.done.iter().all(|done| matches!(done.outcome, Ok(true)))
    }
}

/// Runs a program in the root of the repository with its output shown; true if it succeeded.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<bool> {
    run_with(program, args, &[])
}

/// The same with some variables of the environment set.
pub(crate) fn run_with(program: &str, args: &[&str], set: &[(&str, &str)]) -> Result<bool> {
    let status = Command::new(program)
        .args(args)
        .envs(set.iter().copied())
        .current_dir(repo::root())
        .status()
        .with_context(|| format!("{program} did not start"))?;
    Ok(status.success())
}

pub(crate) fn heading(text: &str) {
    let colour = std::io::stdout().is_terminal();
    let (on, off) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!("\n{on}── {text}{off}");
    // A pipe is buffered, and what the step's own programs print must come after its heading.
    let _ = std::io::stdout().flush();
}

fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_run_passes_only_if_every_step_ran_and_passed() {
        let mut good = Run::new(1);
        assert!(good.step("a", "a", || Ok(true)) && good.summary());
        let mut bad = Run::new(2);
        assert!(!bad.step("a", "a", || Ok(false)) && bad.step("b", "b", || Ok(true)));
        assert!(!bad.summary());
        let mut broken = Run::new(1);
        assert!(!broken.step("a", "a", || anyhow::bail!("broken")) && !broken.summary());
        let mut short = Run::new(2);
        assert!(short.step("a", "a", || Ok(true)) && !short.summary());
    }

    #[test]
    fn the_exit_status_of_a_program_counts() {
        assert!(run("true", &[]).unwrap());
        assert!(!run("false", &[]).unwrap());
        assert!(run("no-such-program-here", &[]).is_err());
    }
}
