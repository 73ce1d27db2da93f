//! `selvedge sim swarm`: many seeds on all cores, one report in the order of the seeds.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use anyhow::{Result, bail};
use selvedge_base::Micros;
use selvedge_sim::{Marks, Outcome, Requests, Violation, run};
use serde_json::{Value, json};

use super::cli::Swarm;
use super::source::Subject;
use super::told;
use crate::ui::{self, Ink, paint};

/// Results a thread may be ahead of the one that reports: a seed takes milliseconds.
const AHEAD: usize = 64;
/// Failures told one by one; the others are counted.
const TOLD: usize = 5;
/// Failures listed in the JSON object.
const LISTED: usize = 1_000;

/// What is kept of one run.
struct Run {
    subject: Subject,
    outcome: Outcome,
}

/// What came of all.
#[derive(Default)]
struct Total {
    runs: u64,
    simulated: Micros,
    records: u64,
    hasher: blake3::Hasher,
    requests: Requests,
    overspend: u64,
    faults: BTreeMap<String, u64>,
    fired: BTreeMap<String, u64>,
    marks: Marks,
    failed: u64,
    failures: Vec<(Subject, Vec<Violation>)>,
    unmet: Vec<(Subject, String)>,
}

/// Carries it out.
pub(super) fn swarm(options: &Swarm) -> Result<()> {
    // A wrong name is told at once, not by every thread.
    subject(options, options.from)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = options.threads.map_or(cores, usize::from);
    let template = "{bar:28.cyan/blue} {pos}/{len} seeds  {per_sec}  {eta}  {msg}";
    let bar = ui::bar(options.seeds, template);
    let next = AtomicU64::new(0);
    let (sender, receiver) = mpsc::sync_channel::<(u64, Result<Run>)>(AHEAD);
    let total = std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= options.seeds {
                        return;
                    }
                    let made = one(options, options.from + index);
                    if sender.send((index, made)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        gather(receiver, &bar)
    });
    bar.finish_and_clear();
    report(options, total?)
}

fn subject(options: &Swarm, seed: u64) -> Result<Subject> {
    match &options.scenario {
        None => Ok(Subject::of_seed(seed)),
        Some(name) => Subject::of_scenario(name, 0, seed),
    }
}

fn one(options: &Swarm, seed: u64) -> Result<Run> {
    let subject = subject(options, seed)?;
    let outcome = run(&subject.plan, &mut ())?;
    Ok(Run { subject, outcome })
}

/// Adds the runs up in the order of their seeds, whichever thread was faster.
fn gather(
    receiver: mpsc::Receiver<(u64, Result<Run>)>,
    bar: &indicatif::ProgressBar,
) -> Result<Total> {
    let mut total = Total::default();
    let mut early = BTreeMap::new();
    let mut wanted = 0;
    for (index, made) in receiver {
        early.insert(index, made?);
        while let Some(run) = early.remove(&wanted) {
            wanted += 1;
            total.add(run);
            bar.set_position(wanted);
            if total.failed > 0 {
                bar.set_message(format!("{} failed", total.failed));
            }
        }
    }
    Ok(total)
}

impl Total {
    fn add(&mut self, Run { subject, outcome }: Run) {
        self.runs += 1;
        self.simulated = self.simulated.plus(subject.plan.span);
        self.records += outcome.counters.records;
        self.hasher.update(&outcome.hash.0.to_be_bytes());
        self.add_requests(&outcome.requests);
        self.overspend += outcome.budgets.iter().map(|one| one.overspend).sum::<u64>();
        for (sums, counts) in [
            (&mut self.faults, &outcome.counters.faults),
            (&mut self.fired, &outcome.counters.fired),
        ] {
            for (name, count) in counts {
                *sums.entry(name.clone()).or_default() += count;
            }
        }
        self.marks.add(&outcome.marks);
        let judged = subject.scenario.map(|scenario| scenario.judge(&subject.plan, &outcome));
        if !outcome.violations.is_empty() {
            self.failed += 1;
            if self.failures.len() < LISTED {
                self.failures.push((subject, outcome.violations));
            }
        } else if let Some(Err(unmet)) = judged {
            self.failed += 1;
            if self.unmet.len() < LISTED {
                self.unmet.push((subject, unmet));
            }
        }
    }

    fn add_requests(&mut self, more: &Requests) {
        let sums = &mut self.requests;
        sums.arrived += more.arrived;
        sums.unreachable += more.unreachable;
        sums.refused += more.refused;
        sums.finished += more.finished;
        sums.failed += more.failed;
        sums.left += more.left;
        sums.lost += more.lost;
        sums.moved += more.moved;
        sums.tokens += more.tokens;
        sums.longest_gap = sums.longest_gap.max(more.longest_gap);
    }

    /// 128 bits over the hashes of all runs, in their order.
    fn hash(&self) -> String {
        let bytes = self.hasher.finalize();
        bytes.as_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn object(&self, options: &Swarm) -> Value {
        let failures = self.failures.iter().map(|(subject, violations)| {
            json!({
                "seed": subject.plan.seed,
                "violations": violations.iter().map(told::violation).collect::<Vec<_>>(),
                "replay": subject.replay(),
            })
        });
        let unmet = self.unmet.iter().map(|(subject, unmet)| {
            json!({ "seed": subject.plan.seed, "unmet": unmet, "replay": subject.replay() })
        });
        json!({
            "hash": self.hash(),
            "from": options.from,
            "seeds": options.seeds,
            "scenario": options.scenario,
            "runs": self.runs,
            "virtual_seconds": self.simulated.0 / 1_000_000,
            "records": self.records,
            "failed": self.failed,
            "failures": failures.collect::<Vec<_>>(),
            "unmet_expectations": unmet.collect::<Vec<_>>(),
            "requests": self.requests,
            "overspend": self.overspend,
            "faults": self.faults,
            "fired": self.fired,
            "marks": self.marks,
            "marks_missed": self.marks.missed(),
        })
    }
}

fn report(options: &Swarm, total: Total) -> Result<()> {
    let json = options.json;
    let requests = &total.requests;
    told::say(
        json,
        &format!(
            "{} runs, {} virtual minutes, {} records, hash {}\n\
             requests  {} came in, {} answered ({} changes of node), {} refused, {} failed\n\
             overspend {}\nfaults    {} of {} kinds fired\nmarks     {} hit, {} never",
            total.runs,
            total.simulated.0 / 60_000_000,
            total.records,
            total.hash(),
            requests.arrived,
            requests.finished,
            requests.moved,
            requests.refused,
            requests.failed,
            total.overspend,
            total.fired.len(),
            total.faults.len(),
            total.marks.iter().count(),
            total.marks.missed().len(),
        ),
    );
    for (subject, violations) in total.failures.iter().take(TOLD) {
        let first = violations.first().map(ToString::to_string).unwrap_or_default();
        let head = paint(Ink::Red, format_args!("{} failed", subject.name()));
        told::say(
            json,
            &format!(
                "\n{head} {first}\nreplay it:     {}\nmake it small: {}",
                subject.replay(),
                subject.shrink()
            ),
        );
    }
    for (subject, unmet) in total.unmet.iter().take(TOLD) {
        told::say(json, &format!("\n{}: {unmet}\nreplay it: {}", subject.name(), subject.replay()));
    }
    if json {
        ui::out(total.object(options));
    }
    match total.failed {
        0 => Ok(()),
        failed => bail!("{failed} of {} runs failed", total.runs),
    }
}
