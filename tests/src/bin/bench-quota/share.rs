//! How much of a budget is served where it is asked for, in the simulator.
//!
//! Owns one story: ten nodes on a network that loses five in a hundred datagrams, one budget, and
//! demand that moves from one end of the mesh to the other at half time; a partition in between,
//! and crashes. Compared with the same load on a budget divided once and for all.

use anyhow::{Result, anyhow, ensure};
use selvedge_base::Micros;
use selvedge_sim::plan::{
    BudgetPlan, BudgetUnit, ClientPlan, FaultKind, NetworkPlan, PerPeriod, Plan, TenantPlan,
};
use selvedge_sim::{Event, EventKind, Watch, run};
use selvedge_tests::report::Report;

/// Seeds; the mean counts.
const SEEDS: u64 = 10;
const NODES: usize = 10;
const LIMIT: u64 = 100_000;
/// What each request takes: half prompt, half answer.
const COST: u32 = 200;
/// Requests a minute of the busy end and of the quiet one: a fifth more than the budget in all.
const BUSY: u64 = 48;
const QUIET: u64 = 12;
/// When demand begins, moves and ends.
const BEGIN: Micros = Micros::secs(10);
const MOVE: Micros = Micros::secs(310);
const END: Micros = Micros::secs(610);
/// The static split, served as a part of what could be served: what was measured on a model of it.
const STATIC_AT_LEAST: f64 = 0.75;

/// Measures and notes everything.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    for (name, faults) in [("calm", false), ("partition_and_crashes", true)] {
        let (mut ours, mut divided, mut over) = (0.0, 0.0, 0.0f64);
        for seed in 1..=SEEDS {
            let plan = story(seed, faults);
            let mut asked = Asked([0; NODES]);
            let outcome = run(&plan, &mut asked).map_err(|error| anyhow!("{error}"))?;
            let broken = outcome.violations.first();
            ensure!(broken.is_none(), "seed {seed}: {broken:?}");
            let spent: u64 = outcome.budgets.iter().map(|budget| budget.spent).sum();
            let all: u64 = asked.0.iter().sum();
            let servable = LIMIT.min(all * u64::from(COST)) as f64;
            let share = |asked: &u64| (asked * u64::from(COST)).min(LIMIT / NODES as u64);
            ours += spent as f64 / servable;
            divided += asked.0.iter().map(share).sum::<u64>() as f64 / servable;
            over = over.max(spent as f64 / LIMIT as f64);
        }
        let mean = |sum: f64| sum / SEEDS as f64 * 100.0;
        report.note(&format!("{name}_served_percent"), mean(ours), None);
        report.note(&format!("{name}_static_split_percent"), mean(divided), None);
        report.note(&format!("{name}_overspend_factor_max"), over, Some(1.0));
        ensure!(mean(divided) > STATIC_AT_LEAST, "the story does not move demand");
    }
    Ok(())
}

fn story(seed: u64, faults: bool) -> Plan {
    let budget = BudgetPlan {
        name: "tokens".to_owned(),
        unit: BudgetUnit::Tokens,
        per: PerPeriod::Day,
        limit: LIMIT,
        elastic: None,
        sub_windows: 1,
        models: Vec::new(),
        downgrade: None,
        local_only: false,
        reclaimable: false,
    };
    let mut plan = Plan::calm(seed, NODES);
    plan.network = NetworkPlan { loss_permille: 50, ..plan.network };
    plan = plan.tenant(TenantPlan { path: "acme".to_owned(), budgets: vec![budget] });
    let (near, far) = ((0..3).collect::<Vec<_>>(), (7..NODES).collect::<Vec<_>>());
    for (nodes, per_minute, from, until) in [
        (near.clone(), BUSY, BEGIN, MOVE),
        (far.clone(), QUIET, BEGIN, MOVE),
        (far, BUSY, MOVE, END),
        (near, QUIET, MOVE, END),
    ] {
        plan = plan.client(client(nodes, per_minute, from, until));
    }
    if faults {
        let left = (0..NODES / 2).collect();
        plan = plan
            .with(FaultKind::Halves { left }, Micros::secs(180), Micros::secs(60))
            .with(FaultKind::Crash { node: 1, reset: false }, Micros::secs(100), Micros::secs(10))
            .with(FaultKind::Crash { node: 8, reset: false }, Micros::secs(400), Micros::secs(10));
    }
    plan
}

fn client(nodes: Vec<usize>, per_minute: u64, from: Micros, until: Micros) -> ClientPlan {
    ClientPlan {
        nodes,
        prompt: (COST / 2, COST / 2),
        answer: (COST / 2, COST / 2),
        deadline: Micros::secs(60),
        unlimited: false,
        ..ClientPlan::steady("acme", per_minute, from, until)
    }
}

/// Requests that reached each node.
struct Asked([u64; NODES]);

impl Watch for Asked {
    fn wants_events(&self) -> bool {
        true
    }

    fn event(&mut self, event: Event) {
        if event.kind == EventKind::RequestArrived
            && let Some(node) = event.node
        {
            self.0[node] += 1;
        }
    }
}
