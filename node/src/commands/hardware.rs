//! `selvedge mesh hardware`: what the nodes' machines are and how they stand.
//!
//! Owns the words. A node that tells nothing, as one of an older version does, has dashes.

use anyhow::Result;
use serde_json::json;

use crate::http::wire::{Gpu, Machine, Node, Status};
use crate::ui::{self, bytes_text};

/// Characters of a processor's name in the table: makers' names are long.
const NAME_CHARS: usize = 40;

/// Shows the machines of all nodes.
pub(super) fn show(status: &Status, as_json: bool) -> Result<()> {
    if as_json {
        let one = |node: &Node| {
            json!({
                "node": node.node,
                "name": node.name,
                "me": node.me,
                "state": node.state,
                "machine": node.machine,
            })
        };
        let data: Vec<_> = status.nodes.iter().map(one).collect();
        ui::out(serde_json::to_string_pretty(&json!({ "data": data }))?);
        return Ok(());
    }
    ui::out(ui::table(&rows(status)));
    for node in &status.nodes {
        if let Some(spared) = &node.machine.spared {
            ui::out(format_args!("{} is {spared}: requests go to other nodes first", node.name));
        }
    }
    Ok(())
}

fn rows(status: &Status) -> Vec<Vec<String>> {
    let head = ["node", "processor", "cores", "kernels", "memory", "gpu", "heat", "power"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for node in &status.nodes {
        let machine = &node.machine;
        rows.push(vec![
            node.name.clone(),
            processor(machine),
            cores(machine),
            told(machine.kernels.clone()),
            memory(machine),
            gpus(&machine.gpus),
            told(machine.temperature_decidegrees.map(|heat| format!("{} °C", tenths(heat)))),
            power(machine),
        ]);
    }
    rows
}

fn told(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn processor(machine: &Machine) -> String {
    let name = machine.processor.as_ref().or(machine.architecture.as_ref());
    told(name.map(|name| name.chars().take(NAME_CHARS).collect()))
}

/// `4 (8 threads), 1.5 usable`: what is the same is said once.
fn cores(machine: &Machine) -> String {
    let text = match (machine.physical_cores, machine.logical_cores) {
        (Some(cores), Some(threads)) if cores != threads => format!("{cores} ({threads} threads)"),
        (Some(cores), _) => cores.to_string(),
        (None, Some(threads)) => format!("{threads} threads"),
        (None, None) => return "-".to_owned(),
    };
    let whole = machine.logical_cores.map(|threads| threads.saturating_mul(1_000));
    match machine.usable_millicores {
        Some(usable) if whole.is_some_and(|whole| usable < whole) => {
            format!("{text}, {}.{} usable", usable / 1_000, usable % 1_000 / 100)
        }
        Some(_) | None => text,
    }
}

fn memory(machine: &Machine) -> String {
    let all = machine.memory_bytes;
    // Nothing is free of what is not known.
    let free = all.and(machine.memory_available_bytes);
    let parts = [
        all.map(bytes_text),
        free.map(|bytes| format!("{} free", bytes_text(bytes))),
        machine.memory_budget_bytes.map(|bytes| format!("{} for models", bytes_text(bytes))),
    ];
    let known: Vec<String> = parts.into_iter().flatten().collect();
    if known.is_empty() { "-".to_owned() } else { known.join(", ") }
}

fn gpus(gpus: &[Gpu]) -> String {
    let one = |gpu: &Gpu| match gpu.memory_bytes {
        Some(bytes) => format!("{} ({})", gpu.name, bytes_text(bytes)),
        None => gpu.name.clone(),
    };
    match gpus {
        [] => "-".to_owned(),
        [first] => one(first),
        [first, rest @ ..] => format!("{} and {} more", one(first), rest.len()),
    }
}

fn tenths(heat: i16) -> String {
    let sign = if heat < 0 { "-" } else { "" };
    format!("{sign}{}.{}", heat.unsigned_abs() / 10, heat.unsigned_abs() % 10)
}

fn power(machine: &Machine) -> String {
    match (machine.on_battery, machine.battery_percent) {
        (Some(true), Some(percent)) => format!("battery, {percent} %"),
        (Some(true), None) => "battery".to_owned(),
        (Some(false), Some(percent)) => format!("mains, battery {percent} %"),
        (Some(false), None) => "mains".to_owned(),
        (None, Some(percent)) => format!("battery {percent} %"),
        (None, None) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_shown_and_what_is_not_has_a_dash() {
        let laptop = Machine {
            processor: Some("A Processor".to_owned()),
            kernels: Some("avx2".to_owned()),
            physical_cores: Some(4),
            logical_cores: Some(8),
            usable_millicores: Some(1_500),
            memory_bytes: Some(16_000_000_000),
            memory_available_bytes: Some(9_000_000_000),
            memory_budget_bytes: Some(4_000_000_000),
            gpus: vec![Gpu { name: "A Card".to_owned(), memory_bytes: Some(8_000_000_000) }; 3],
            temperature_decidegrees: Some(-125),
            battery_percent: Some(14),
            on_battery: Some(true),
            ..Machine::default()
        };
        let node = |name: &str, machine| Node { name: name.to_owned(), machine, ..Node::default() };
        let nodes = vec![node("pantry", laptop), node("attic", Machine::default())];
        let rows = rows(&Status { nodes, ..Status::default() });
        let pantry = [
            "pantry",
            "A Processor",
            "4 (8 threads), 1.5 usable",
            "avx2",
            "16.0 GB, 9.0 GB free, 4.0 GB for models",
            "A Card (8.0 GB) and 2 more",
            "-12.5 °C",
            "battery, 14 %",
        ];
        assert_eq!(rows[1], pantry);
        assert_eq!(rows[2], ["attic", "-", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(rows[0].len(), pantry.len());
    }
}
