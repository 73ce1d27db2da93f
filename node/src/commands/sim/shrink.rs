//! `selvedge sim shrink`: a failing plan, made small.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use selvedge_net::clock;
use selvedge_sim::Invariant;
use selvedge_sim::shrink::{Shrunk, Step};
use serde_json::json;

use super::cli::Shrink;
use super::source::Subject;
use super::told;
use crate::ui;

/// Carries it out.
pub(super) fn shrink(options: &Shrink) -> Result<()> {
    let subject = Subject::of(&options.source)?;
    let wanted = options.invariant.as_deref().map(invariant).transpose()?;
    let started = clock::mono();
    let limit = Duration::from_secs(options.within).as_micros() as u64;
    let bar = ui::bar(limit, "{spinner} {msg}");
    let mut go_on = |step: Step| {
        let spent = clock::mono().0.saturating_sub(started.0);
        bar.set_position(spent);
        bar.set_message(format!(
            "{} runs; {} faults, {} groups of clients, {} nodes left",
            step.runs, step.faults, step.clients, step.nodes
        ));
        spent < limit
    };
    let shrunk = selvedge_sim::shrink::shrink(&subject.plan, wanted, &mut go_on);
    bar.finish_and_clear();
    let Some(shrunk) = shrunk else {
        match wanted {
            None => bail!("nothing breaks in {}: there is nothing to shrink", subject.words),
            Some(one) => bail!("{} does not break {}", subject.words, one.id()),
        }
    };
    let spent_ms = clock::mono().0.saturating_sub(started.0) / 1_000;
    report(options, &subject, &shrunk, spent_ms)
}

fn report(options: &Shrink, subject: &Subject, shrunk: &Shrunk, spent_ms: u64) -> Result<()> {
    let file = options.out.as_ref().map_or("FILE".to_owned(), |path| path.display().to_string());
    let page = shrunk.page(
        &format!("`selvedge sim run {}`", subject.words),
        &format!("selvedge sim replay {file}"),
    );
    match &options.out {
        Some(path) => {
            std::fs::write(path, &page).with_context(|| format!("writing {}", path.display()))?
        }
        None if options.json => ui::note(&page),
        None => ui::out(page.trim_end()),
    }
    let plan = &shrunk.plan;
    ui::note(format_args!(
        "{} to {} faults, {} nodes, {} ms of virtual time, in {} runs and {} ms{}",
        shrunk.faults_before,
        plan.faults.len(),
        plan.nodes,
        plan.span.as_millis(),
        shrunk.runs,
        spent_ms,
        if shrunk.is_minimal { "" } else { "; time was up before nothing more went" }
    ));
    if options.json {
        ui::out(json!({
            "violation": told::violation(&shrunk.violation),
            "faults_before": shrunk.faults_before,
            "faults": plan.faults.len(),
            "nodes": plan.nodes,
            "runs": shrunk.runs,
            "minimal": shrunk.is_minimal,
            "elapsed_ms": spent_ms,
        }));
    }
    Ok(())
}

fn invariant(id: &str) -> Result<Invariant> {
    let found = Invariant::ALL.iter().find(|one| one.id().eq_ignore_ascii_case(id));
    match found {
        Some(found) => Ok(*found),
        None => bail!("there is no invariant '{id}'; `selvedge sim list --invariants` names them"),
    }
}
