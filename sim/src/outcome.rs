//! What came of a run.

use std::collections::BTreeMap;
use std::fmt;

use selvedge_base::{Micros, Mono};
use serde::{Deserialize, Serialize};

use crate::invariant::Invariant;
use crate::marks::Marks;
use crate::trace::TraceHash;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Over everything that happened.
    pub hash: TraceHash,
    /// The hash after every 1,024 records: shows where two runs part.
    pub checkpoints: Vec<TraceHash>,
    /// What must not have happened.
    pub violations: Vec<Violation>,
    /// What did.
    pub counters: Counters,
    /// How long detections took.
    pub detections: Detections,
    /// Requests and what became of them.
    pub requests: Requests,
    /// Every window of every budget that was spent from, in order.
    pub budgets: Vec<BudgetOutcome>,
    /// Rare things that happened.
    pub marks: Marks,
}

/// Something that must not happen did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When, since the start of the run.
    pub at: Mono,
    /// Which invariant.
    pub invariant: Invariant,
    /// What was seen.
    pub seen: String,
}

/// How long it took to notice, one sample per observer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detections {
    /// From the last sign of life possible to Dead, without a word about the connection.
    pub silent: Vec<Micros>,
    /// From the loss of the connection to Dead.
    pub reset: Vec<Micros>,
    /// From the engine's last progress possible to Frozen.
    pub frozen: Vec<Micros>,
}

/// How often things happened; shows that faults were real.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Records in the trace.
    pub records: u64,
    /// Packets delivered.
    pub delivered: u64,
    /// Bytes of datagrams sent.
    pub sent_bytes: u64,
    /// Datagrams lost to chance.
    pub lost: u64,
    /// Datagrams that arrived twice.
    pub duplicated: u64,
    /// Datagrams that were overtaken.
    pub reordered: u64,
    /// Packets lost to cuts.
    pub cut: u64,
    /// Connections made.
    pub connections: u64,
    /// Rows of state taken over from others.
    pub rows_merged: u64,
    /// Rows of budgets taken over from others.
    pub quota_rows: u64,
    /// Writes that became durable.
    pub stored: u64,
    /// Faults that began, by name.
    pub faults: BTreeMap<String, u64>,
    /// Faults that had an effect, by name.
    pub fired: BTreeMap<String, u64>,
}

/// Requests and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Made by clients at nodes that were up.
    pub arrived: u64,
    /// Made at nodes that were down or stopped.
    pub unreachable: u64,
    /// Refused by a budget, a key or a policy.
    pub refused: u64,
    /// Answered to the end.
    pub finished: u64,
    /// Of those, by what a cache had kept.
    #[serde(default)]
    pub given_again: u64,
    /// Failed after they were reserved for.
    pub failed: u64,
    /// Whose caller left.
    pub left: u64,
    /// Whose node died with them.
    pub lost: u64,
    /// Changes of node in mid-answer.
    pub moved: u64,
    /// Tokens that reached callers.
    pub tokens: u64,
    /// Answered to the end while the network was cut.
    pub finished_while_cut: u64,
    /// Answered to the end, by the node that took the request.
    pub finished_at: Vec<u64>,
    /// The longest pause between two tokens that a change of node caused.
    pub longest_gap: Option<Micros>,
}

/// One window of one budget, as really spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetOutcome {
    /// On whose account.
    pub account: String,
    /// The budget's name.
    pub budget: String,
    /// What it counts.
    pub unit: String,
    /// Which window.
    pub window: u64,
    /// The limit of the window.
    pub limit: u64,
    /// Really settled, all nodes together.
    pub spent: u64,
    /// What crashes cost: marked as spent, and never served.
    pub wasted: u64,
    /// Spent over the limit; zero for a hard budget.
    pub overspend: u64,
    /// Requests it refused.
    pub refused: u64,
}

impl Requests {
    /// Adds another run's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.arrived += other.arrived;
        self.unreachable += other.unreachable;
        self.refused += other.refused;
        self.finished += other.finished;
        self.given_again += other.given_again;
        self.failed += other.failed;
        self.left += other.left;
        self.lost += other.lost;
        self.moved += other.moved;
        self.tokens += other.tokens;
        self.finished_while_cut += other.finished_while_cut;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "hash {} after {} records", self.hash, self.counters.records)?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "{violation}"))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ms: {}: {}", self.at.0 / 1_000, self.invariant, self.seen)
    }
}
