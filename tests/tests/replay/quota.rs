//! The quota machine behind the line that requests, peers and the disk of a real node step it by.

use std::fmt;

use anyhow::{Context, Result, ensure};
use selvedge_base::Micros;
use selvedge_core::quota::QuotaEffect;
use selvedge_sim::Plan;
use selvedge_sim::plan::{
    BudgetPlan, BudgetUnit, ClientPlan, FaultKind, NetworkPlan, PerPeriod, TenantPlan,
};

use crate::stage::{Stage, simulated};
use crate::tape::{Step, Tape};

/// Seeds of the stories told here, and of meshes made from a seed alone.
const TOLD: [u64; 4] = [1, 7, 42, 77];
const DRAWN: [u64; 8] = [2, 3, 5, 11, 21, 99, 123, 1_000];

/// What was compared.
#[derive(Debug, Default)]
struct Compared {
    steps: usize,
    answers: usize,
    writes: usize,
    sends: usize,
    reports: usize,
}

#[tokio::test]
async fn a_simulated_quota_machine_and_the_one_of_a_node_order_the_same() -> Result<()> {
    let mut all = Compared::default();
    let plans = TOLD.iter().flat_map(|seed| [story(*seed, false), story(*seed, true)]);
    for plan in plans.chain(DRAWN.map(Plan::seeded)) {
        let tape = simulated(&plan)?;
        if tape.quota.is_some() {
            compare(&tape, &mut all).await.with_context(|| format!("seed {}", plan.seed))?;
        }
    }
    // Otherwise nothing of interest was compared.
    let enough = all.steps > 5_000 && all.answers > 500 && all.writes > 50 && all.sends > 500;
    ensure!(enough && all.reports > 10, "compared only {all:?}");
    Ok(())
}

#[tokio::test]
async fn a_fact_that_is_left_out_is_noticed() -> Result<()> {
    let mut tape = simulated(&story(TOLD[0], true))?;
    let answers = |step: &Step<_, QuotaEffect>| {
        step.orders.iter().any(|order| matches!(order, QuotaEffect::Answer { .. }))
    };
    let first = tape.quota_steps.iter().position(answers).context("no answer")?;
    tape.quota_steps.remove(first);
    ensure!(compare(&tape, &mut Compared::default()).await.is_err(), "the comparison cannot fail");
    Ok(())
}

/// Each step orders the same in a node, and its disk holds what the machine had it write.
async fn compare(tape: &Tape, all: &mut Compared) -> Result<()> {
    let mut expected = tape.quota.as_ref().context("no budgets")?.stored.clone();
    let stage = Stage::new(tape).await?;
    for (index, Step { at, input, orders }) in tape.quota_steps.iter().enumerate() {
        stage.wind(*at);
        let ordered = stage.node.replay_quota(input.clone()).context("no quota machine")?;
        ensure!(
            ordered == *orders,
            "step {index} at {at:?}: {input:?} made the machine order {} in the simulator and {} \
             in a node",
            Orders(orders),
            Orders(&ordered)
        );
        all.steps += 1;
        for order in &ordered {
            match order {
                QuotaEffect::Answer { .. } => all.answers += 1,
                QuotaEffect::Persist { write, .. } => {
                    expected.apply(write);
                    all.writes += 1;
                }
                QuotaEffect::Send { .. } => all.sends += 1,
                QuotaEffect::Report(_) => all.reports += 1,
            }
        }
    }
    ensure!(stage.node.stored_quota().await? == expected, "the disk holds something else");
    stage.node.shutdown().await;
    Ok(())
}

/// Orders, one a line: they may be long.
struct Orders<'a>(&'a [QuotaEffect]);

impl fmt::Display for Orders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|order| write!(f, "\n  {order:?}"))
    }
}

/// Five nodes with budgets at two levels, in a window that ends in between, and more demand than
/// they hold rights for: rights move, requests are held and refused. With faults the mesh is cut
/// for a while and nodes other than the first crash.
fn story(seed: u64, faults: bool) -> Plan {
    let budget = |name: &str, unit, per, limit| BudgetPlan {
        name: name.to_owned(),
        unit,
        per,
        limit,
        elastic: None,
        sub_windows: 1,
        models: Vec::new(),
        downgrade: None,
        local_only: false,
        reclaimable: false,
    };
    let tokens = budget("tokens", BudgetUnit::Tokens, PerPeriod::Minute, 20_000);
    let requests = budget("requests", BudgetUnit::Requests, PerPeriod::Day, 10_000);
    let mut plan = Plan::calm(seed, 5)
        .tenant(TenantPlan { path: "acme".to_owned(), budgets: vec![tokens] })
        .tenant(TenantPlan { path: "acme/line3".to_owned(), budgets: vec![requests] });
    plan.network = NetworkPlan { loss_permille: 20, ..plan.network };
    for (nodes, per_minute) in [(vec![0], 300), (vec![], 200)] {
        plan = plan.client(client(nodes, per_minute));
    }
    if !faults {
        return plan;
    }
    let cut = FaultKind::Halves { left: vec![0, 1] };
    plan.with(cut, Micros::secs(30), Micros::secs(20))
        .with(FaultKind::Crash { node: 2, reset: false }, Micros::secs(20), Micros::secs(8))
        .with(FaultKind::Crash { node: 1, reset: true }, Micros::secs(60), Micros::secs(5))
}

fn client(nodes: Vec<usize>, per_minute: u64) -> ClientPlan {
    ClientPlan {
        nodes,
        prompt: (20, 80),
        answer: (10, 60),
        leave_permille: 50,
        dense_permille: 20,
        ..ClientPlan::steady("acme/line3", per_minute, Micros::secs(10), Micros::secs(100))
    }
}
