//! Many seeds, one report.

use std::collections::BTreeMap;
use std::fmt;

use selvedge_base::Micros;

use crate::{BudgetOutcome, Detections, Marks, Outcome, Plan, Requests, run};

/// What came of many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwarmReport {
    /// Runs made.
    pub runs: u64,
    /// Virtual time simulated, all runs together.
    pub simulated: Micros,
    /// Records of all traces.
    pub records: u64,
    /// All detections.
    pub detections: Detections,
    /// Faults that began, by name.
    pub faults: BTreeMap<String, u64>,
    /// Faults that had an effect, by name.
    pub fired: BTreeMap<String, u64>,
    /// Rare things that happened.
    pub marks: Marks,
    /// Requests and what became of them.
    pub requests: Requests,
    /// Windows of budgets that were spent from, those that refused something, and those overspent.
    pub windows: [u64; 3],
    /// Datagrams lost, doubled, overtaken, and lost to cuts.
    pub imperfections: [u64; 4],
    /// Runs that broke an invariant, with what they broke.
    pub failures: Vec<(u64, Outcome)>,
}

/// Runs the plans of `seeds`, one after the other.
pub fn swarm(seeds: impl IntoIterator<Item = u64>) -> SwarmReport {
    let mut report = SwarmReport::default();
    for seed in seeds {
        let plan = Plan::seeded(seed);
        // Seeded plans are sound (there is a test), so none is left out here.
        if let Ok(outcome) = run(&plan, &mut ()) {
            report.take(&plan, outcome);
        }
    }
    report
}

impl SwarmReport {
    fn take(&mut self, plan: &Plan, outcome: Outcome) {
        self.runs += 1;
        self.simulated = self.simulated.plus(plan.span);
        self.records += outcome.counters.records;
        self.detections.silent.extend(&outcome.detections.silent);
        self.detections.reset.extend(&outcome.detections.reset);
        self.detections.frozen.extend(&outcome.detections.frozen);
        let counters = &outcome.counters;
        for (fault, count) in &counters.faults {
            *self.faults.entry(fault.clone()).or_default() += count;
        }
        for (fault, count) in &counters.fired {
            *self.fired.entry(fault.clone()).or_default() += count;
        }
        self.marks.add(&outcome.marks);
        self.requests.add(&outcome.requests);
        let is = |what: fn(&BudgetOutcome) -> bool| {
            outcome.budgets.iter().filter(|budget| what(budget)).count() as u64
        };
        let windows =
            [is(|one| one.spent > 0), is(|one| one.refused > 0), is(|one| one.overspend > 0)];
        for (sum, count) in self.windows.iter_mut().zip(windows) {
            *sum += count;
        }
        let seen = [counters.lost, counters.duplicated, counters.reordered, counters.cut];
        for (sum, count) in self.imperfections.iter_mut().zip(seen) {
            *sum += count;
        }
        if !outcome.violations.is_empty() {
            self.failures.push((plan.seed, outcome));
        }
    }
}

/// The value below which `permille` of the samples lie; none without samples.
pub fn percentile(samples: &[Micros], permille: usize) -> Option<Micros> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len().saturating_sub(1)) * permille / 1_000).copied()
}

impl fmt::Display for SwarmReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} runs, {} virtual seconds, {} records",
            self.runs,
            self.simulated.as_millis() / 1_000,
            self.records
        )?;
        let kinds = [
            ("silent", &self.detections.silent),
            ("reset", &self.detections.reset),
            ("frozen", &self.detections.frozen),
        ];
        for (name, samples) in kinds {
            let at = |permille| percentile(samples, permille).unwrap_or_default().as_millis();
            let (half, most, all) = (at(500), at(990), at(1_000));
            let count = samples.len();
            writeln!(f, "{name}: p50 {half} ms, p99 {most} ms, max {all} ms of {count}")?;
        }
        writeln!(f, "faults: {:?}", self.faults)?;
        let [lost, doubled, overtaken, cut] = self.imperfections;
        writeln!(f, "had an effect: {:?}", self.fired)?;
        writeln!(f, "{:?}", self.requests)?;
        let [spent, refused, over] = self.windows;
        writeln!(f, "windows: {spent} spent from, {refused} refused, {over} overspent")?;
        writeln!(f, "marks: {:?}", self.marks)?;
        writeln!(f, "marks missed: {:?}", self.marks.missed())?;
        writeln!(f, "datagrams: {lost} lost, {doubled} doubled, {overtaken} late, {cut} cut")?;
        for (seed, outcome) in &self.failures {
            writeln!(f, "seed {seed} failed: {outcome}")?;
            let test = "cargo test -p selvedge-sim --test swarm replay -- --nocapture";
            writeln!(f, "replay: SELVEDGE_SIM_SEED={seed} {test}")?;
        }
        Ok(())
    }
}
