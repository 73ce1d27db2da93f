//! Fleets of several sizes under load, and many seeds.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use selvedge_base::Micros;
use selvedge_sim::plan::{ClientPlan, FaultKind, PerPeriod, TenantPlan};
use selvedge_sim::{Mark, Marks, Outcome, Plan, run};
use selvedge_tests::time::{Stopwatch, cpu_time};
use serde_json::json;

use crate::report::{Goal, Report};

/// Accounts of the standard fleet.
const TENANTS: u64 = 4;
/// Requests a minute of all of them: twenty a second.
const PER_MINUTE: u64 = 1_200;
/// Tokens an hour of each: more than an hour of that load needs, so that budgets work and seldom
/// refuse.
const TOKENS: u64 = 4_000_000;
/// Virtual time of the standard fleet: long enough that starting it does not count.
const STANDARD: Micros = Micros::secs(30 * 60);
/// A fault this often, of four kinds in turn.
const FAULT_EVERY: Micros = Micros::secs(60);
/// The piece of a large mesh's time by which the rest is foreseen: twice what it takes to form.
const PIECE: Micros = Micros::secs(30);
/// A large mesh that would take longer is not run to its end, in CPU seconds.
const LONGEST_CPU_S: f64 = 150.0;
/// Real time in which seeds are run: a fifth of the gate's.
const GATE_SECONDS: f64 = 60.0;
/// Seeds after which marks are counted: what the gate runs.
const GATE_SEEDS: u64 = 400;

/// So many nodes, four tenants, twenty requests a second, now and then a fault.
pub(crate) fn fleet(nodes: usize, span: Micros, faulty: bool) -> Plan {
    let calm_end = Micros::secs(20);
    let until = Micros(span.0 - calm_end.0);
    let mut plan = Plan::calm(1, nodes);
    for tenant in 0..TENANTS {
        let name = format!("tenant{tenant}");
        plan = plan
            .tenant(TenantPlan::new(&name).tokens(TOKENS, PerPeriod::Hour))
            .client(ClientPlan::steady(&name, PER_MINUTE / TENANTS, Micros::secs(2), until));
    }
    let faults = if faulty { (until.0 / FAULT_EVERY.0).saturating_sub(1) } else { 0 };
    for index in 0..faults {
        let node = (index as usize * 5 + 1) % nodes;
        let kind = match index % 4 {
            0 => FaultKind::Crash { node, reset: false },
            1 => FaultKind::Halves { left: (0..nodes / 2).collect() },
            2 => FaultKind::Freeze { node },
            _ => FaultKind::OneWay { from: node, to: (node + 1) % nodes },
        };
        let at = Micros(FAULT_EVERY.0 * (index + 1));
        plan = plan.with(kind, at, Micros::secs(10));
    }
    plan
}

/// A run and the CPU seconds it took.
fn timed(plan: &Plan) -> Result<(Outcome, f64)> {
    let before = cpu_time();
    let outcome = run(plan, &mut ()).context("the plan of a benchmark is sound")?;
    Ok((outcome, (cpu_time() - before).as_secs_f64()))
}

/// The standard fleet, and two large ones.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let plan = fleet(16, STANDARD, true);
    let (outcome, spent) = timed(&plan)?;
    ensure!(outcome.requests.finished > 10_000, "the fleet did not serve: {outcome}");
    let per_hour = plan.span.0 as f64 / 1e6 / spent;
    report.note("fleet_hours_per_cpu_hour", per_hour, Goal::AtLeast(500.0));
    report.note("standard_records_per_s", outcome.counters.records as f64 / spent, Goal::None);
    report.note("standard_answered", outcome.requests.finished as f64, Goal::None);
    report.note("standard_violations", outcome.violations.len() as f64, Goal::AtMost(0.0));
    let overspend: u64 = outcome.budgets.iter().map(|one| one.overspend).sum();
    report.note("standard_overspend", overspend as f64, Goal::AtMost(0.0));
    for (nodes, minutes, most) in [(200, 10, 20.0), (1_000, 5, 60.0)] {
        // A short piece first: what would take many minutes is told by that, not waited for.
        let (first, forming) = timed(&fleet(nodes, PIECE, false))?;
        let pieces = minutes as f64 * 60e6 / PIECE.0 as f64;
        let (outcome, seen, two) = if forming > LONGEST_CPU_S {
            (first, forming, forming * 2.0)
        } else {
            let (outcome, two) = timed(&fleet(nodes, PIECE.times(2), false))?;
            (outcome, two, two)
        };
        let foreseen = forming + (two - forming).max(0.0) * (pieces - 1.0);
        let (outcome, spent) = if foreseen > LONGEST_CPU_S {
            report.note(&format!("nodes_{nodes}_foreseen_from_cpu_s"), seen, Goal::None);
            (outcome, foreseen)
        } else {
            timed(&fleet(nodes, Micros::secs(minutes * 60), false))?
        };
        report.note(&format!("nodes_{nodes}_minutes_{minutes}_cpu_s"), spent, Goal::AtMost(most));
        let name = format!("nodes_{nodes}_violations");
        report.note(&name, outcome.violations.len() as f64, Goal::AtMost(0.0));
        let name = format!("nodes_{nodes}_answered");
        report.note(&name, outcome.requests.finished as f64, Goal::None);
    }
    Ok(())
}

/// Seeds on all cores for a while: how many a minute, and what they come across.
pub(crate) fn swarm(report: &mut Report) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (next, started) = (AtomicU64::new(0), Stopwatch::start());
    let found = Mutex::new((Marks::default(), Vec::new(), 0_u64));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let late = started.elapsed().as_secs_f64() > GATE_SECONDS;
                    if late && seed >= GATE_SEEDS {
                        return;
                    }
                    let plan = Plan::seeded(seed);
                    let Ok(outcome) = run(&plan, &mut ()) else { return };
                    let Ok(mut found) = found.lock() else { return };
                    if seed < GATE_SEEDS {
                        found.0.add(&outcome.marks);
                    }
                    if !outcome.violations.is_empty() {
                        found.1.push(seed);
                    }
                    found.2 += 1;
                }
            });
        }
    });
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let (marks, mut failed, runs) =
        found.into_inner().ok().context("a thread that ran seeds panicked")?;
    failed.sort_unstable();
    report.note("seeds_per_minute", runs as f64 / minutes, Goal::AtLeast(80.0));
    report.note("seeds_run", runs as f64, Goal::AtLeast(GATE_SEEDS as f64));
    report.note("seeds_failed", failed.len() as f64, Goal::AtMost(0.0));
    report.tell("seeds_that_failed", json!(failed.iter().take(20).collect::<Vec<_>>()));
    let hit = Mark::ALL.len() - marks.missed().len();
    let share = 100.0 * hit as f64 / Mark::ALL.len() as f64;
    report.note("marks_hit_percent", share, Goal::AtLeast(95.0));
    report.tell("marks_never_hit", json!(marks.missed()));
    Ok(())
}
