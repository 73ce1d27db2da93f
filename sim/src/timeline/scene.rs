//! How the parts of a plan and the events of a run are named and drawn.

use crate::plan::{Fault, FaultKind, Plan};
use crate::watch::{Event, EventKind};

/// A budget as the page shows it: account and name, unit, limit.
pub(super) type Budget = (String, &'static str, u64);

/// All budgets of a plan, in the order in which events number them.
pub(super) fn budgets(plan: &Plan) -> Vec<Budget> {
    let of = |unit| match unit {
        crate::plan::BudgetUnit::Tokens => "tokens",
        crate::plan::BudgetUnit::Requests => "requests",
        crate::plan::BudgetUnit::Concurrent => "at a time",
        crate::plan::BudgetUnit::Rate => "requests, spread",
        crate::plan::BudgetUnit::MicroDollars => "millionths of a dollar",
    };
    let tenants = plan.workload.tenants.iter();
    tenants
        .flat_map(|tenant| {
            let name =
                |budget: &crate::plan::BudgetPlan| format!("{}/{}", tenant.path, budget.name);
            tenant.budgets.iter().map(move |one| (name(one), of(one.unit), one.limit))
        })
        .collect()
}

/// The accounts that clients ask for, each once.
pub(super) fn tenants(plan: &Plan) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for client in &plan.workload.clients {
        if !names.contains(&client.account) {
            names.push(client.account.clone());
        }
    }
    names
}

/// The account that the text of an arrival begins with.
pub(super) fn tenant_of(plan: &Plan, text: &str) -> usize {
    let account = text.split_whitespace().next().unwrap_or_default();
    tenants(plan).iter().position(|name| name == account).unwrap_or(0)
}

/// Whether a refusal is a budget's.
pub(super) fn is_about_budget(event: &Event) -> bool {
    event.budget.is_some() || event.text.contains("budget") || event.text.contains("quota")
}

/// What machines report of budgets every second.
const USUAL: [&str; 5] = ["AskedPeer", "Gave", "Got", "Dropped", "Confirmed"];

/// Whether an event is every day's business: what is drawn stands out.
pub(super) fn is_dull(event: &Event) -> bool {
    match event.kind {
        EventKind::Declared => !event.text.starts_with("dead") && !event.text.starts_with("frozen"),
        EventKind::QuotaReported => USUAL.iter().any(|usual| event.text.starts_with(usual)),
        _ => false,
    }
}

/// An event in words, with the other node's name.
pub(super) fn told(event: &Event) -> String {
    match event.peer {
        Some(peer) if event.kind == EventKind::Declared => format!("node {peer} {}", event.text),
        Some(peer) => format!("{} (node {peer})", event.text),
        None => event.text.clone(),
    }
}

/// What the page calls a kind of event.
pub(super) const fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Declared => "verdict on a peer",
        EventKind::Crashed => "process died",
        EventKind::Started => "process started",
        EventKind::StoreFailed => "write failed",
        EventKind::PolicyChanged => "policy changed",
        EventKind::MemoryChanged => "models in memory",
        EventKind::ClockSet => "clock set",
        EventKind::QuotaReported => "budget",
        _ => "event",
    }
}

/// The family in which a fault is drawn: the place in the page's `FAULTS`.
pub(super) const fn family(kind: &FaultKind) -> u8 {
    match kind {
        FaultKind::OneWay { .. }
        | FaultKind::Isolate { .. }
        | FaultKind::Halves { .. }
        | FaultKind::OneWayHalves { .. }
        | FaultKind::Bridge { .. }
        | FaultKind::Flapping { .. }
        | FaultKind::Slow { .. }
        | FaultKind::Narrow { .. }
        | FaultKind::InternetCut { .. }
        | FaultKind::Lossy { .. } => 0,
        FaultKind::Crash { .. }
        | FaultKind::TornCrash { .. }
        | FaultKind::Wipe { .. }
        | FaultKind::Death { .. }
        | FaultKind::Upgrade { .. } => 1,
        FaultKind::Pause { .. }
        | FaultKind::Freeze { .. }
        | FaultKind::Throttle { .. }
        | FaultKind::LowBattery { .. }
        | FaultKind::Hot { .. }
        | FaultKind::ShortOfMemory { .. }
        | FaultKind::OutOfMemory { .. }
        | FaultKind::LoadFailure { .. } => 2,
        FaultKind::LostWrites { .. }
        | FaultKind::Backup { .. }
        | FaultKind::DiskSlow { .. }
        | FaultKind::DiskFull { .. }
        | FaultKind::DiskRot { .. }
        | FaultKind::DiskErrors { .. } => 3,
        FaultKind::ClockOff { .. }
        | FaultKind::ClockDrift { .. }
        | FaultKind::BootBack { .. }
        | FaultKind::PowerLost { .. }
        | FaultKind::Boot1970 { .. } => 4,
        FaultKind::Provider { .. }
        | FaultKind::Relimit { .. }
        | FaultKind::Reroute { .. }
        | FaultKind::Lower { .. }
        | FaultKind::Suspend { .. }
        | FaultKind::RevokeKey { .. }
        | FaultKind::RevokeNode { .. }
        | FaultKind::Join { .. }
        | FaultKind::GuessCode { .. }
        | FaultKind::Leave { .. }
        | FaultKind::Purge { .. }
        | FaultKind::Garble { .. }
        | FaultKind::Forge { .. }
        | FaultKind::Replay { .. }
        | FaultKind::Equivocate { .. }
        | FaultKind::FalseAdvert { .. } => 5,
    }
}

/// The nodes of a fault, each with its side: the sides of a partition are shaded differently.
pub(super) fn sides(kind: &FaultKind, nodes: usize) -> Vec<(usize, u8)> {
    match kind {
        FaultKind::Halves { left } | FaultKind::OneWayHalves { left } => {
            (0..nodes).map(|node| (node, u8::from(!left.contains(&node)))).collect()
        }
        FaultKind::Bridge { left, node } => (0..nodes)
            .filter(|one| one != node)
            .map(|one| (one, u8::from(!left.contains(&one))))
            .collect(),
        FaultKind::OneWay { from, to } | FaultKind::Flapping { from, to, .. } => {
            vec![(*from, 0), (*to, 1)]
        }
        FaultKind::InternetCut { left } => left.iter().map(|node| (*node, 0)).collect(),
        other => other.node().map(|node| (node, 0)).into_iter().collect(),
    }
}

/// A fault in a few words.
pub(crate) fn fault_text(fault: &Fault, nodes: usize) -> String {
    let name = fault.kind.as_str();
    let list = |some: &[usize]| {
        let names: Vec<String> = some.iter().map(ToString::to_string).collect();
        names.join(" ")
    };
    let others =
        |left: &[usize]| -> Vec<usize> { (0..nodes).filter(|node| !left.contains(node)).collect() };
    match &fault.kind {
        FaultKind::Halves { left } => format!("{name}: {} | {}", list(left), list(&others(left))),
        FaultKind::OneWayHalves { left } => {
            format!("{name}: {} may not reach {}", list(left), list(&others(left)))
        }
        FaultKind::Bridge { left, node } => {
            let right: Vec<usize> =
                others(left).into_iter().filter(|other| other != node).collect();
            format!("{name}: {} | {} over {node}", list(left), list(&right))
        }
        FaultKind::OneWay { from, to } => format!("{name}: {from} may not reach {to}"),
        FaultKind::Flapping { from, to, .. } => format!("{name}: {from} and {to}"),
        other => match other.node() {
            Some(node) => format!("{name}: node {node}"),
            None => name.to_owned(),
        },
    }
}
