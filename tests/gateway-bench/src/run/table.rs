//! The tables of a run.

use std::process::Command;

use super::Findings;
use crate::peers::Peer;
use crate::process;
use crate::scenario::Scenario;

/// What the machine is, in a few lines.
pub(super) fn machine(first: bool) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split(": ").nth(1)).unwrap_or("unknown processor");
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = Command::new("uname").arg("-r").output().map(|output| output.stdout);
    let kernel = String::from_utf8_lossy(&kernel.unwrap_or_default()).trim().to_owned();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let order = if first { "real-time priority" } else { "no real-time priority: others show" };
    format!(
        "{cores} cores ({model}), Linux {kernel}; load average at the start {load}; {order}\n\
         gateway on core 0, mock upstream and load generator on core 1, loopback{}, HTTP/1.1",
        if process::has_namespace() { " of an own network namespace" } else { "" }
    )
}

/// A column: its title, its width, the figure in it, and the decimals shown.
type Column = (&'static str, usize, String, usize);

/// One scenario's table.
pub(super) fn scenario(scenario: Scenario, findings: &Findings) {
    println!("\n{scenario}");
    let (lo, hi) = if scenario.streams() { (100, 500) } else { (500, 2_000) };
    let columns = match scenario {
        Scenario::Streams => of_streams(),
        Scenario::Soak => of_soak(),
        _ => of_load(lo, hi),
    };
    let titles = columns.iter().map(|(title, width, ..)| format!(" {title:>width$}"));
    println!("{:<10}{}", "gateway", titles.collect::<String>());
    for peer in Peer::ALL {
        let place = (peer.name(), scenario.name());
        if let Some(figures) = findings.figures.get(&place) {
            let cells = columns.iter().map(|(_, width, name, digits)| match figures.get(name) {
                Some(value) => format!(" {value:>width$.digits$}"),
                None => format!(" {:>width$}", "-"),
            });
            println!("{:<10}{}", peer.name(), cells.collect::<String>());
        } else if let Some(said) = findings.refused.get(&place) {
            println!("{:<10} not measured: {}", peer.name(), said.lines().next().unwrap_or(""));
        }
    }
    if !matches!(scenario, Scenario::Streams | Scenario::Soak) {
        println!("added us: at half of saturation, at {lo}/s (lo) and at {hi}/s (hi)");
    }
}

fn of_streams() -> Vec<Column> {
    [
        ("whole", 9, "whole", 0),
        ("at once", 9, "at_once", 0),
        ("bad", 5, "bad", 0),
        ("CPU us", 9, "cpu_us", 0),
        ("MiB idle", 9, "idle_mib", 1),
        ("peak", 9, "peak_mib", 1),
        ("after", 9, "after_mib", 1),
    ]
    .map(|(title, width, name, digits)| (title, width, name.to_owned(), digits))
    .to_vec()
}

fn of_soak() -> Vec<Column> {
    [
        ("/s", 9, "per_s", 0),
        ("done", 9, "done", 0),
        ("bad", 5, "bad", 0),
        ("MiB idle", 9, "idle_mib", 1),
        ("early", 9, "early_mib", 1),
        ("late", 9, "late_mib", 1),
        ("after", 9, "after_mib", 1),
    ]
    .map(|(title, width, name, digits)| (title, width, name.to_owned(), digits))
    .to_vec()
}

fn of_load(lo: u32, hi: u32) -> Vec<Column> {
    let at = |rate: u32, quantile: &str| format!("at_{rate}_added_{quantile}_us");
    vec![
        ("/s", 9, "per_s".to_owned(), 0),
        ("CPU us", 8, "cpu_us".to_owned(), 1),
        ("core", 5, "core".to_owned(), 2),
        ("half p50", 9, "half_added_p50_us".to_owned(), 0),
        ("half p99", 9, "half_added_p99_us".to_owned(), 0),
        ("lo p50", 8, at(lo, "p50"), 0),
        ("lo p99", 8, at(lo, "p99"), 0),
        ("hi p50", 8, at(hi, "p50"), 0),
        ("hi p99", 8, at(hi, "p99"), 0),
        ("MiB idle", 8, "idle_mib".to_owned(), 1),
        ("peak", 7, "peak_mib".to_owned(), 1),
        ("start ms", 8, "start_ms".to_owned(), 0),
        ("bad", 5, "bad".to_owned(), 0),
        ("wrong", 5, "stranger_status".to_owned(), 0),
    ]
}

/// What is missing and how it comes.
pub(super) fn absent(findings: &Findings) {
    if findings.absent.is_empty() {
        return;
    }
    println!("\nabsent");
    for (name, absent) in &findings.absent {
        let reason = absent.reason.lines().next().unwrap_or_default();
        let help = absent.command.as_ref().map_or_else(String::new, |line| format!(": {line}"));
        println!("{name:<10} {reason}{help}");
    }
}
