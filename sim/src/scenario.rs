//! Scripted scenarios, each of which reads like a story and names the kind of real incident it
//! models. What it expects goes beyond the invariants, which hold in every run.

use selvedge_base::Micros;

use crate::plan::{FaultKind, Plan};
use crate::{Invariant, Outcome};

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

/// All scenarios, in the order of their names.
pub const fn scenarios() -> &'static [Scenario] {
    &[Scenario {
        name: "crash-on-a-lan",
        incident: "a process is killed by the kernel",
        nodes: 5,
        nodes_least: 2,
        build: crash_on_a_lan,
        expect: |plan, outcome| {
            let seen = outcome.detections.silent.len();
            let wanted = plan.nodes - 1;
            if seen == wanted { Ok(()) } else { Err(format!("{seen} of {wanted} noticed")) }
        },
    }]
}

/// A node dies without a word on a calm LAN and comes back six seconds later.
fn crash_on_a_lan(nodes: usize, seed: u64) -> Plan {
    let crash = FaultKind::Crash { node: 1, reset: false };
    Plan::calm(seed, nodes).with(crash, Micros::secs(14), Micros::secs(6))
}

impl Scenario {
    /// Whether an outcome is what the scenario promises: no invariant broken, expectation met.
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn judge(&self, plan: &Plan, outcome: &Outcome) -> Result<(), String> {
        if let Some(first) = outcome.violations.first() {
            let _: Invariant = first.invariant;
            return Err(first.to_string());
        }
        (self.expect)(plan, outcome)
    }
}
