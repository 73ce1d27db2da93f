//! Scripted scenarios, each of which reads like a story and names the kind of real incident it
//! models. What it expects goes beyond the invariants, which hold in every run.

mod cache;
mod cloud;
mod members;
mod memory;
mod mesh;
mod quota;
mod requests;

use selvedge_base::Micros;

use crate::Outcome;
use crate::marks::Mark;
use crate::plan::{ClientPlan, PerPeriod, Plan, TenantPlan};

/// A story and what must come of it.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name, for the command line.
    pub name: &'static str,
    /// The class of real incidents it models.
    pub incident: &'static str,
    /// Nodes it was written for.
    pub nodes: usize,
    /// Nodes it needs at least.
    pub nodes_least: usize,
    /// The plan for so many nodes and a seed.
    pub build: fn(usize, u64) -> Plan,
    /// What must be true of the outcome, invariants aside.
    ///
    /// # Errors
    /// What is not.
    pub expect: fn(&Plan, &Outcome) -> Result<(), String>,
}

/// All scenarios.
pub const fn scenarios() -> &'static [Scenario] {
    ALL
}

const ALL: &[Scenario] = &[
    quota::TWO_WAY_PARTITION,
    quota::ONE_WAY_PARTITION,
    quota::DONOR_CRASHES,
    quota::DEMAND_MOVES,
    quota::CLOCK_STEPS,
    quota::BOOT_IN_1970,
    quota::LOST_LAST_WRITE,
    quota::OLD_BACKUP,
    quota::DISK_FULL,
    quota::SMALL_CAP,
    quota::NEWCOMER,
    quota::NEWCOMER_AT_LIMITS,
    quota::STRANDED,
    quota::RECLAIMED,
    quota::RAISED_WHILE_CUT,
    quota::LOWERED_WHILE_CUT,
    quota::TEAM_AND_TENANT,
    quota::CONCURRENCY,
    quota::CRASH_STORM,
    requests::FROZEN_PEER,
    requests::SERVER_DIES,
    requests::INGEST_DIES,
    requests::SLOW_PEER,
    requests::OUT_OF_MEMORY,
    requests::LONG_ANSWERS,
    requests::FALSE_ADVERT,
    requests::CALLERS_LEAVE,
    mesh::CRASH_ON_A_LAN,
    mesh::ROLLING_UPGRADE,
    mesh::FLAPPING_LINK,
    mesh::REVOKED_RETURNS,
    mesh::STOPPED_PROCESS,
    mesh::BRIDGE,
    mesh::BY_SATELLITE,
    mesh::REPLAY,
    mesh::EQUIVOCATION,
    members::JOINS_WHILE_CUT,
    members::GUESSED_CODE,
    members::LEASE_LAPSES,
    members::LEAVES,
    members::KEY_REVOKED,
    members::KEY_EXPIRES,
    members::DOWNGRADE,
    members::POWER_LOST,
    cloud::INTERNET_CUT,
    cloud::OVERBILLED,
    cloud::HANGING,
    cloud::CUT_STREAM,
    cloud::OUT_OF_MONEY,
    cloud::RATE_LIMITED,
    cache::SAME_QUESTION,
    cache::PURGED,
    cache::SHARED,
    cloud::REROUTED_WHILE_CUT,
    cloud::CUT_STREAM_GOES_ON,
    memory::LOW_BATTERY,
    memory::MODELS_IN_TURN,
    memory::NEVER_IDLE,
    memory::MANY_MODELS,
];

impl Scenario {
    /// Whether an outcome is what the scenario promises: no invariant broken, expectation met.
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn judge(&self, plan: &Plan, outcome: &Outcome) -> Result<(), String> {
        match outcome.violations.first() {
            Some(first) => Err(first.to_string()),
            None => (self.expect)(plan, outcome),
        }
    }
}

const fn s(seconds: u64) -> Micros {
    Micros::secs(seconds)
}

/// A tenant with a hard budget of tokens an hour, and clients that ask at all nodes from the
/// beginning to the end.
fn acme(nodes: usize, seed: u64, limit: u64, per_minute: u64, until: u64) -> Plan {
    Plan::calm(seed, nodes)
        .tenant(TenantPlan::new("acme").tokens(limit, PerPeriod::Hour))
        .client(ClientPlan::steady("acme", per_minute, s(3), s(until)))
}

/// The first half of the nodes.
fn half(nodes: usize) -> Vec<usize> {
    (0..nodes / 2).collect()
}

/// All of these.
fn all(wanted: &[(bool, &str)]) -> Result<(), String> {
    match wanted.iter().find(|(met, _)| !met) {
        Some((_, what)) => Err((*what).to_owned()),
        None => Ok(()),
    }
}

fn happened(outcome: &Outcome, mark: Mark) -> (bool, &'static str) {
    (outcome.marks.count(mark) > 0, mark.sentence())
}

/// Nothing was spent over any limit, and something was spent.
fn within(outcome: &Outcome) -> (bool, &'static str) {
    let spent: u64 = outcome.budgets.iter().map(|budget| budget.spent).sum();
    let over: u64 = outcome.budgets.iter().map(|budget| budget.overspend).sum();
    (spent > 0 && over == 0, "budgets are spent from, and none is overspent")
}

/// What was spent of everything that could be, in permille.
fn use_of(outcome: &Outcome) -> u64 {
    let spent: u64 = outcome.budgets.iter().map(|budget| budget.spent).sum();
    let limit: u64 = outcome.budgets.iter().map(|budget| budget.limit).sum();
    (spent * 1_000).checked_div(limit).unwrap_or(0)
}

/// Every node answered somebody.
fn everywhere(outcome: &Outcome) -> (bool, &'static str) {
    (outcome.requests.finished_at.iter().all(|count| *count > 0), "every node answers somebody")
}
