//! Where two runs part: the first record that differs.
//!
//! Both runs are made once for their checkpoints, and again with only the records between the last
//! checkpoint they share and the next. A run recorded elsewhere (another process, another build)
//! is compared by its checkpoints. Owns the comparison; who reads files and prints is the caller.

use selvedge_base::Mono;
use serde::{Deserialize, Serialize};

use crate::grid::{Grid, seconds};
use crate::trace::CHECKPOINT_EVERY;
use crate::watch::{Event, Record, Standing, Watch};
use crate::{Outcome, Plan, PlanError, TraceHash, run};

/// Records shown before the one that differs.
const SHARED: usize = 4;
/// Grid lines shown before the difference.
const LINES: usize = 8;
/// Bytes of a record shown: enough to see a message's head.
const BYTES: usize = 48;

/// What a run leaves to be compared with, on a disk or in another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// The form of this record.
    pub version: u8,
    /// What was run.
    pub plan: Plan,
    /// Records in the trace.
    pub records: u64,
    /// Over all of them.
    pub hash: TraceHash,
    /// After every 1,024 of them.
    pub checkpoints: Vec<TraceHash>,
}

/// The only form there is.
const VERSION: u8 = 1;

/// Two runs, and where they part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which record, from 0.
    pub index: u64,
    /// Records before it that both have, in words.
    pub shared: Vec<String>,
    /// The first run's record; none when it ended before.
    pub left: Option<String>,
    /// The second run's.
    pub right: Option<String>,
    /// The first run's events up to there, as grid lines.
    pub left_lines: Vec<String>,
    /// The second run's.
    pub right_lines: Vec<String>,
}

impl Traced {
    /// Of a run that was made.
    pub fn new(plan: &Plan, outcome: &Outcome) -> Self {
        Self {
            version: VERSION,
            plan: plan.clone(),
            records: outcome.counters.records,
            hash: outcome.hash,
            checkpoints: outcome.checkpoints.clone(),
        }
    }

    /// Whether this program knows the form.
    pub const fn is_known(&self) -> bool {
        self.version == VERSION
    }
}

/// The records among which two traces part, by their checkpoints; none when they are the same.
pub fn parting(left: &Traced, right: &Traced) -> Option<std::ops::Range<u64>> {
    if left.hash == right.hash && left.records == right.records {
        return None;
    }
    let pairs = left.checkpoints.iter().zip(&right.checkpoints);
    let same = pairs.take_while(|(one, other)| one == other).count() as u64;
    let from = same * CHECKPOINT_EVERY;
    let end = left.records.max(right.records);
    Some(from..(from + CHECKPOINT_EVERY).min(end))
}

/// Makes both runs and finds the first record in which they differ.
///
/// # Errors
/// When one of the plans cannot be run.
pub fn difference(left: &Plan, right: &Plan) -> Result<Option<Difference>, PlanError> {
    let one = Traced::new(left, &run(left, &mut ())?);
    let other = Traced::new(right, &run(right, &mut ())?);
    let Some(range) = parting(&one, &other) else { return Ok(None) };
    let one = Window::of(left, &range)?;
    let other = Window::of(right, &range)?;
    let pairs = one.records.iter().zip(&other.records);
    let same = pairs.take_while(|(a, b)| a.same(b)).count();
    let lines = |window: &Window| window.lines_at(same);
    Ok(Some(Difference {
        index: range.start + same as u64,
        shared: one.records[same.saturating_sub(SHARED)..same].iter().map(Kept::told).collect(),
        left: one.records.get(same).map(Kept::told),
        right: other.records.get(same).map(Kept::told),
        left_lines: lines(&one),
        right_lines: lines(&other),
    }))
}

/// The records of a run in a range, in words: what to read when the other run is not here.
///
/// # Errors
/// When the plan cannot be run.
pub fn records(plan: &Plan, range: &std::ops::Range<u64>) -> Result<Vec<String>, PlanError> {
    Ok(Window::of(plan, range)?.records.iter().map(Kept::told).collect())
}

/// A record that is kept.
#[derive(Debug)]
struct Kept {
    index: u64,
    at: Mono,
    kind: &'static str,
    who: [usize; 2],
    bytes: Vec<u8>,
}

/// Watches a run for the records of a range.
#[derive(Debug)]
struct Window {
    range: std::ops::Range<u64>,
    records: Vec<Kept>,
    grid: Grid,
    lines: Vec<(Mono, String)>,
}

impl Window {
    fn of(plan: &Plan, range: &std::ops::Range<u64>) -> Result<Self, PlanError> {
        let grid = Grid::new(plan);
        let mut window =
            Self { range: range.clone(), records: Vec::new(), grid, lines: Vec::new() };
        run(plan, &mut window)?;
        Ok(window)
    }

    fn lines_at(&self, same: usize) -> Vec<String> {
        let at = self.records.get(same).or(self.records.last()).map_or(Mono(0), |one| one.at);
        let until = self.lines.partition_point(|(moment, _)| *moment <= at);
        let lines = &self.lines[until.saturating_sub(LINES)..until];
        lines.iter().map(|(_, line)| line.clone()).collect()
    }
}

impl Watch for Window {
    fn wants_events(&self) -> bool {
        true
    }

    fn wants_records(&self) -> bool {
        true
    }

    fn event(&mut self, event: Event) {
        // Only what may be shown is kept: some lines before the range, and those within it.
        if let Some(line) = self.grid.line(&event) {
            if self.records.is_empty() && self.lines.len() > 2 * LINES {
                self.lines.drain(..LINES);
            }
            if (self.records.len() as u64) < self.range.end - self.range.start {
                self.lines.push((event.at, line));
            }
        }
    }

    fn standing(&mut self, standing: Standing) {
        self.grid.stand(&standing);
    }

    fn record(&mut self, record: Record<'_>) {
        if self.range.contains(&record.index) {
            let Record { index, at, kind, who, bytes } = record;
            self.records.push(Kept { index, at, kind, who, bytes: bytes.to_vec() });
        }
    }
}

impl Kept {
    fn same(&self, other: &Self) -> bool {
        (self.at, self.kind, self.who) == (other.at, other.kind, other.who)
            && self.bytes == other.bytes
    }

    fn told(&self) -> String {
        let [from, to] = self.who;
        let shown: String =
            self.bytes.iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect();
        let more = if self.bytes.len() > BYTES { "…" } else { "" };
        let length = self.bytes.len();
        format!(
            "#{} {} s {} {from}>{to} {length} bytes {shown}{more}",
            self.index,
            seconds(self.at),
            self.kind
        )
    }
}

#[cfg(test)]
#[path = "diff/tests.rs"]
mod tests;
