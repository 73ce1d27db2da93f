//! What is told of a run: for people, and as JSON.

use selvedge_sim::grid::Tail;
use selvedge_sim::{Detections, Outcome, Violation, run};
use serde_json::{Value, json};

use super::source::Subject;
use crate::ui::{self, Ink, paint, paint_err};

/// Grid lines shown of a failure: what happened in the seconds before.
const LINES: usize = 24;

/// The object that ends the output of a run.
pub(super) fn object(subject: &Subject, outcome: &Outcome) -> Value {
    let judged = subject.scenario.map(|one| one.judge(&subject.plan, outcome));
    let unmet = judged.and_then(Result::err).filter(|_| outcome.violations.is_empty());
    json!({
        "hash": outcome.hash,
        "seed": subject.plan.seed,
        "scenario": subject.scenario.map(|one| one.name),
        "nodes": subject.plan.nodes,
        "virtual_seconds": subject.plan.span.0 / 1_000_000,
        "records": outcome.counters.records,
        "passed": outcome.violations.is_empty() && unmet.is_none(),
        "unmet_expectation": unmet,
        "violations": outcome.violations.iter().map(violation).collect::<Vec<_>>(),
        "counters": outcome.counters,
        "marks": outcome.marks,
        "served": outcome.requests.finished,
        "refused": outcome.requests.refused,
        "requests": outcome.requests,
        "budgets": outcome.budgets,
        "overspend": outcome.budgets.iter().map(|one| one.overspend).sum::<u64>(),
        "detections": detections(&outcome.detections),
    })
}

pub(super) fn violation(one: &Violation) -> Value {
    json!({
        "id": one.invariant.id(),
        "invariant": one.invariant,
        "sentence": one.invariant.sentence(),
        "at_us": one.at.0,
        "seen": one.seen,
    })
}

/// How many detections of each kind there were and the slowest, instead of every sample.
pub(super) fn detections(all: &Detections) -> Value {
    let told = |samples: &[selvedge_base::Micros]| {
        json!({
            "count": samples.len(),
            "max_ms": samples.iter().max().map(|slowest| slowest.as_millis()),
        })
    };
    json!({
        "silent": told(&all.silent),
        "reset": told(&all.reset),
        "frozen": told(&all.frozen),
    })
}

/// A run in a few lines.
pub(super) fn summary(subject: &Subject, outcome: &Outcome) -> String {
    let plan = &subject.plan;
    let requests = &outcome.requests;
    let mut lines = vec![
        format!(
            "{}  {} nodes, {} virtual seconds, {} faults",
            paint(Ink::Bold, subject.name()),
            plan.nodes,
            plan.span.0 / 1_000_000,
            plan.faults.len()
        ),
        format!("hash      {}  ({} records)", outcome.hash, outcome.counters.records),
    ];
    if requests.arrived > 0 {
        lines.push(format!(
            "requests  {} came in, {} answered ({} changes of node), {} refused, {} failed, \
             {} left, {} lost with their node",
            requests.arrived,
            requests.finished,
            requests.moved,
            requests.refused,
            requests.failed,
            requests.left,
            requests.lost
        ));
    }
    for budget in &outcome.budgets {
        lines.push(format!(
            "budget    {}/{} window {}: {} of {} {} spent, {} lost to crashes, {} over, {} refused",
            budget.account,
            budget.budget,
            budget.window,
            budget.spent,
            budget.limit,
            budget.unit,
            budget.wasted,
            budget.overspend,
            budget.refused
        ));
    }
    let verdict = match outcome.violations.as_slice() {
        [] => paint(Ink::Green, "every invariant held"),
        some => paint(Ink::Red, format_args!("{} violations", some.len())),
    };
    lines.push(verdict);
    lines.join("\n")
}

/// Tells a failure: how to see it again, what must hold, what happened, the last lines.
pub(super) fn failure(subject: &Subject, outcome: &Outcome) -> Option<String> {
    let first = outcome.violations.first()?;
    let mut tail = Tail::new(&subject.plan, LINES);
    // The same run once more, with somebody who looks: it ends the same way.
    run(&subject.plan, &mut tail).ok()?;
    let mut text = format!(
        "{} {}\n\n{}\n\n",
        paint_err(Ink::Red, "broken:"),
        first.invariant,
        tail.account(first)
    );
    for line in tail.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    let others = outcome.violations.len() - 1;
    if others > 0 {
        text.push_str(&format!("\nand {others} more after it\n"));
    }
    text.push_str(&format!(
        "\nreplay it:     {}\nmake it small: {}",
        subject.replay(),
        subject.shrink()
    ));
    Some(text)
}

/// What is for people goes where it does not disturb a reader of JSON.
pub(super) fn say(json: bool, text: &str) {
    if json { ui::note(text) } else { ui::out(text) }
}
