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

/// One scenario's table.
pub(super) fn scenario(scenario: Scenario, findings: &Findings) {
    println!("\n{scenario}");
    if scenario == Scenario::Streams {
        println!(
            "{:<10} {:>9} {:>9} {:>5} {:>10} {:>9} {:>9} {:>9}",
            "gateway", "whole", "at once", "bad", "CPU us/str", "MiB idle", "peak", "after"
        );
    } else {
        println!(
            "{:<10} {:>9} {:>8} {:>5} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>8} {:>5}",
            "gateway",
            "/s",
            "CPU us",
            "core",
            "half p50",
            "half p99",
            "lo p50",
            "lo p99",
            "hi p50",
            "hi p99",
            "MiB idle",
            "peak",
            "start ms",
            "wrong"
        );
    }
    for peer in Peer::ALL {
        let Some(figures) = findings.figures.get(&(peer.name(), scenario.name())) else {
            if let Some(said) = findings.refused.get(&(peer.name(), scenario.name())) {
                println!("{:<10} not measured: {}", peer.name(), said.lines().next().unwrap_or(""));
            }
            continue;
        };
        let show = |name: &str, digits: usize| {
            figures.get(name).map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        if scenario == Scenario::Streams {
            println!(
                "{:<10} {:>9} {:>9} {:>5} {:>10} {:>9} {:>9} {:>9}",
                peer.name(),
                show("whole", 0),
                show("at_once", 0),
                show("bad", 0),
                show("cpu_us", 0),
                show("idle_mib", 1),
                show("peak_mib", 1),
                show("after_mib", 1)
            );
            continue;
        }
        let (lo, hi) = if scenario.streams() { (100, 500) } else { (500, 2_000) };
        let added = |rate: u32, quantile: &str| show(&format!("at_{rate}_added_{quantile}_us"), 0);
        println!(
            "{:<10} {:>9} {:>8} {:>5} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>8} {:>5}",
            peer.name(),
            show("per_s", 0),
            show("cpu_us", 1),
            show("core", 2),
            show("half_added_p50_us", 0),
            show("half_added_p99_us", 0),
            added(lo, "p50"),
            added(lo, "p99"),
            added(hi, "p50"),
            added(hi, "p99"),
            show("idle_mib", 1),
            show("peak_mib", 1),
            show("start_ms", 0),
            show("stranger_status", 0)
        );
    }
    if scenario != Scenario::Streams {
        let (lo, hi) = if scenario.streams() { (100, 500) } else { (500, 2_000) };
        println!("added us: at half of saturation, at {lo}/s (lo) and at {hi}/s (hi)");
    }
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
